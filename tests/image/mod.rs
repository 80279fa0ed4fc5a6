//! The image stage through the binary, on real parts: NVIDIA's libraries, published wheels, environments as installers
//! leave them.
#![cfg(feature = "entrypoint")]

mod complete;
mod debian;
mod libraries;
mod metadata;
mod owners;
mod python;
mod surroundings;
mod wheels;
