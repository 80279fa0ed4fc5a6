//! Finds what is true, from files alone: no code of the image is ever run here.
//!
//! Reading is separate from judging: everything in this module returns facts, and what cannot be read becomes a fact
//! as well, never an abort.

pub mod bytes;
pub mod editable;
pub mod elf;
pub mod fatbin;
pub mod files;
pub mod installed;
pub mod kernels;
pub mod ld_cache;
pub mod libraries;
pub mod loader;
pub mod machine;
pub mod modules;
pub mod named_files;
pub mod nvidia_require;
pub mod python;
pub mod reading;
pub mod record;
pub mod requirement;
pub mod wheels;

#[cfg(test)]
pub(crate) mod testing;
