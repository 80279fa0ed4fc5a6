//! Whether the C library of this process is glibc.

use std::ptr;

/// NVIDIA's libraries need glibc itself. Alpine's gcompat and libc6-compat give musl's loader the name of glibc's:
/// this program then starts, and none of the libraries loads.
///
/// Source: confstr(3); musl knows no `_CS_GNU_LIBC_VERSION`.
pub fn is_here() -> bool {
    // SAFETY: without a buffer it writes nothing and returns the size of the answer, 0 for a name that it lacks.
    unsafe { libc::confstr(libc::_CS_GNU_LIBC_VERSION, ptr::null_mut(), 0) > 0 }
}
