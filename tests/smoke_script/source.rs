//! Where the tests take the Python programs from, which they run as they are.

use std::path::{Path, PathBuf};

/// `smoke.py` or `handoff.py`: the tree's, or the one that tests/mutation/python.py has changed, in a folder that
/// `CUDA_ENTRYPOINT_MUTANT` names.
pub fn source(name: &str) -> PathBuf {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/smoke");
    std::env::var_os("CUDA_ENTRYPOINT_MUTANT")
        .map_or(tree, PathBuf::from)
        .join(name)
}
