//! Work beside the main thread.

use std::sync::{Arc, Mutex};

use crate::process::supervisor::Supervisor;
use crate::sys;

/// What a thread makes; a channel would do, at five times the code.
pub(super) struct Awaited<T>(Arc<Mutex<Option<T>>>);

impl<T> Awaited<T> {
    /// Takes it, once it is there.
    pub(super) fn take(&self) -> Option<T> {
        // A panic ends the process.
        self.0.lock().ok()?.take()
    }
}

/// Does work that may hang on a file system beside the main thread; here and now where no thread is to be had.
pub(super) fn in_thread<T: Send + 'static>(
    supervisor: &Supervisor,
    name: &str,
    work: impl FnOnce() -> T + Clone + Send + 'static,
) -> Awaited<T> {
    let place = Arc::new(Mutex::new(None));
    let spawned = supervisor.waker().and_then(|waker| {
        let (work, place) = (work.clone(), Arc::clone(&place));
        sys::thread(name).spawn(move || {
            let made = work();
            if let Ok(mut place) = place.lock() {
                *place = Some(made);
            }
            waker.wake();
        })
    });
    match spawned {
        Ok(_) => Awaited(place),
        Err(_) => Awaited(Arc::new(Mutex::new(Some(work())))),
    }
}
