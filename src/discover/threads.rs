//! Work that several threads do at once.

use crate::sys;

/// Does work on this thread and on one more. Listing folders and reading headers waits for the system in the main, so that
/// a second thread halves the time; without one (a limit on processes) the first does all of it. Whatever the threads are
/// to do, they have to share it out among themselves.
///
/// Taken by reference, so that there is one copy of this for all kinds of work.
pub fn on_two(work: &(dyn Fn() + Sync)) {
    std::thread::scope(|scope| {
        let _ = sys::thread("files").spawn_scoped(scope, work);
        work();
    });
}
