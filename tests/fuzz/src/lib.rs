//! One function a target, for what reads untrusted bytes: it takes any bytes, and panics where something that must hold
//! does not.
//!
//! The binaries of this crate hand them to libFuzzer; `tests/fuzz.rs` of the project runs them over the inputs that
//! are kept, without libFuzzer, in every `cargo test`.

// A target that finds something ends loudly.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

pub mod binary;
pub mod environment;
mod input;
pub mod json;
pub mod long;
pub mod machine;
pub mod python;
#[path = "../../../src/discover/testing.rs"]
#[allow(dead_code, missing_docs)]
mod testing;
pub mod text;

/// What is tried.
pub struct Target {
    /// its name, and that of its binary and of its folder of inputs
    pub name: &'static str,
    /// takes any bytes
    pub run: fn(&[u8]),
    /// inputs of the real form, from which libFuzzer starts
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// longest input that is worth trying, in bytes
    pub longest: usize,
}

macro_rules! targets {
    ($($module:ident::$name:ident $longest:literal;)*) => {
        /// Every target.
        pub const TARGETS: &[Target] = &[$(Target {
            name: stringify!($name),
            run: $module::$name::run,
            seeds: $module::$name::seeds,
            longest: $longest,
        },)*];
    };
}

targets! {
    binary::fatbin 8192;
    binary::fatbin_built 1024;
    binary::unpack 1024;
    binary::elf 8192;
    binary::elf_patched 512;
    binary::ld_cache 2048;
    python::metadata 1024;
    python::requirement 512;
    python::version_file 1024;
    python::record 1024;
    python::pth 1024;
    python::environment_files 512;
    python::command_line 1024;
    json::manifest 2048;
    json::manifest_changed 1024;
    json::receipt 4096;
    json::receipt_changed 1024;
    json::facts 3600;
    json::judged 1024;
    machine::helper_lines 1024;
    machine::smoke_lines 1024;
    machine::handoff 1024;
    machine::loader_list 2048;
    text::archs 512;
    text::require 1024;
    text::settings 1024;
    text::shown 256;
    environment::folder 2048;
    environment::libraries 1024;
    long::repeated 2048;
}

/// Inputs as they are kept, one file a target: each behind its length, in four bytes with the lowest first.
pub fn pack<'i>(inputs: impl IntoIterator<Item = &'i [u8]>) -> Vec<u8> {
    let mut packed = Vec::new();
    for input in inputs {
        packed.extend(u32::try_from(input.len()).unwrap().to_le_bytes());
        packed.extend(input);
    }
    packed
}

/// The inputs of a target that are kept in the folder of this crate: its seeds, the least that reach all that libFuzzer
/// reached, and what it found, each with a name.
pub fn kept(target: &Target, folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    for (number, seed) in (target.seeds)().into_iter().enumerate() {
        all.push((format!("seed-{number}"), seed));
    }
    let packed =
        std::fs::read(folder.join("corpus").join(format!("{}.bin", target.name))).unwrap_or_default();
    let mut rest = packed.as_slice();
    while let Some((length, behind)) = rest.split_first_chunk() {
        let (input, behind) = behind.split_at(usize::try_from(u32::from_le_bytes(*length)).unwrap());
        all.push((format!("corpus-{}", all.len()), input.to_vec()));
        rest = behind;
    }
    let mut found: Vec<_> = std::fs::read_dir(folder.join("found").join(target.name))
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    for path in found {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        all.push((name, std::fs::read(path).unwrap()));
    }
    all
}

/// Runs a target over files, to see a finding again without libFuzzer.
pub fn replay(run: fn(&[u8]), files: impl Iterator<Item = impl AsRef<Path>>) {
    for file in files {
        let file = file.as_ref();
        let bytes = std::fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        run(&bytes);
        println!("{} passed", file.display());
    }
}

/// The whole of a target's binary. It names its target alone, so that the linker leaves out what is another's: what is
/// counted is looked through at each input.
#[macro_export]
macro_rules! target {
    ($module:ident::$name:ident) => {
        #[cfg(feature = "libfuzzer")]
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::$module::$name::run(data));

        #[cfg(not(feature = "libfuzzer"))]
        fn main() {
            $crate::replay($crate::$module::$name::run, std::env::args_os().skip(1));
        }
    };
}
