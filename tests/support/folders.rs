//! Where the tests read and where they write.

use std::path::{Path, PathBuf};

/// The repository, in which nothing is written: it may lie on a read-only disk.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Cargo's target folder, wherever `CARGO_TARGET_DIR` has it.
pub fn target() -> &'static Path {
    // `target/TRIPLE/tmp`, since .cargo/config.toml names a target.
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    temporary
        .ancestors()
        .nth(2)
        .expect("cargo puts it below the target folder")
}

/// The wheels that tests/build/wheels.py fetched.
pub fn wheels() -> PathBuf {
    std::env::var_os("CUDA_ENTRYPOINT_WHEELS").map_or_else(|| target().join("wheels"), PathBuf::from)
}

/// A folder for one test, on the disk of the target folder, where big files can be linked instead of copied. Elsewhere
/// where that path has a blank: LD_PRELOAD and `#!` cannot name such a file.
pub fn scratch() -> tempfile::TempDir {
    let folder = env!("CARGO_TARGET_TMPDIR");
    let made = if folder.contains(char::is_whitespace) {
        tempfile::tempdir()
    } else {
        tempfile::tempdir_in(folder)
    };
    made.unwrap()
}
