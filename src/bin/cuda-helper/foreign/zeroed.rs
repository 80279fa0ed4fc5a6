//! The memory that a library starts with as zeros (its .bss).
//!
//! libnvidia-ml has 12 to 14 MB of it since driver 525, and `nvmlInit_v2` touches every page: more than 3,000 page faults.
//! To ask for all of it at once is quicker by some two milliseconds (tests/gpu/results.md). Huge pages would save more,
//! but where memory is full of files the kernel moves those about first, and some starts took 20 ms longer for it.

use std::ffi::{c_int, c_void};
use std::ops::Range;

use libc::{Elf64_Phdr, PF_W, PT_LOAD, dl_phdr_info};

/// x86-64's; of aarch64's sizes the largest, which Grace machines use.
const PAGE: usize = if cfg!(target_arch = "aarch64") {
    65536
} else {
    4096
};

/// Has the kernel provide all of it, in the library that the loader has mapped at `base` (madvise(2),
/// `MADV_POPULATE_WRITE`). A kernel before 5.14 refuses, and the pages come one by one.
pub fn populate(base: usize) {
    let mut search = Search { base, zeroed: None };
    // SAFETY: the callback gets the pointer to `search`, which outlives the call and which nothing else touches meanwhile.
    unsafe { libc::dl_iterate_phdr(Some(look_at), (&raw mut search).cast()) };
    if let Some(zeroed) = search.zeroed {
        // SAFETY: the pages belong to the library, which is never unloaded. What they hold stays as it is.
        unsafe {
            libc::madvise(
                zeroed.start as *mut c_void,
                zeroed.len(),
                libc::MADV_POPULATE_WRITE,
            )
        };
    }
}

struct Search {
    base: usize,
    zeroed: Option<Range<usize>>,
}

/// For dl_iterate_phdr(3), once for each library; not 0 ends it.
extern "C" fn look_at(library: *mut dl_phdr_info, _size: usize, search: *mut c_void) -> c_int {
    // SAFETY: what `populate` passed on.
    let search = unsafe { &mut *search.cast::<Search>() };
    // SAFETY: the loader's own, valid during this call.
    let library = unsafe { &*library };
    if library.dlpi_addr as usize != search.base || library.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: so many headers are there, says the loader, which has read them itself.
    let headers = unsafe { std::slice::from_raw_parts(library.dlpi_phdr, library.dlpi_phnum.into()) };
    search.zeroed = headers.iter().find_map(|header| zeroed(search.base, header));
    1
}

/// The whole pages of a segment that no byte of the file fills.
fn zeroed(base: usize, segment: &Elf64_Phdr) -> Option<Range<usize>> {
    if segment.p_type != PT_LOAD || segment.p_flags & PF_W == 0 {
        return None;
    }
    let start = base.checked_add(usize::try_from(segment.p_vaddr).ok()?)?;
    let from = start.checked_add(usize::try_from(segment.p_filesz).ok()?)?;
    let to = start.checked_add(usize::try_from(segment.p_memsz).ok()?)?;
    let pages = from.checked_next_multiple_of(PAGE)?..to - to % PAGE;
    (!pages.is_empty()).then_some(pages)
}
