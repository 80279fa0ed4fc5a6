//! Finds what is true, from files alone: no code of the image is ever run here.
//!
//! Reading is separate from judging: everything in this module returns facts, and what cannot be read becomes a fact
//! as well, never an abort.

pub mod bytes;
pub mod editable;
pub mod elf;
pub mod extensions;
pub mod extras;
pub mod fatbin;
pub mod files;
pub mod forward;
pub mod imports;
pub mod installed;
pub mod kernels;
pub mod ld_cache;
pub mod libraries;
pub mod links;
pub mod loader;
pub mod machine;
pub mod modules;
pub mod named_files;
pub mod named_libraries;
pub mod nvidia_require;
pub mod opened;
pub mod owners;
pub mod python;
pub mod reading;
pub mod record;
pub mod requirement;
pub mod sample;
pub mod surroundings;
pub mod threads;
pub mod torch_abi;
pub mod tree;
pub mod unread;
pub mod wheels;

#[cfg(test)]
pub(crate) mod testing;
