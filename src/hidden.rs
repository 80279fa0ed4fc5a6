//! Files of this machine that the tests do not want seen: the driver and the device nodes of a machine with a GPU, where
//! no mount namespace can hide them. Only a build with debug assertions has this; in what ships nothing is hidden.

use std::path::Path;

/// Whether this build can hide anything.
pub const IS_POSSIBLE: bool = cfg!(debug_assertions);

/// Whether this file counts as not being there.
#[cfg(debug_assertions)]
pub fn is_hidden(path: &Path) -> bool {
    // Files, symbolic links resolved, with a colon between them.
    let hidden = std::env::var_os("CUDA_ENTRYPOINT_TEST_HIDDEN").unwrap_or_default();
    let resolved = path.canonicalize();
    let path = resolved.as_deref().unwrap_or(path);
    std::env::split_paths(&hidden).any(|hidden| hidden == path)
}

/// Whether this file counts as not being there: none does.
#[cfg(not(debug_assertions))]
pub fn is_hidden(_: &Path) -> bool {
    false
}
