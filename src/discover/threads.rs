//! Work that several threads do at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::sys;

/// Most threads that share one piece of work. Six and eight were no quicker than four on 32 processors.
const MOST: usize = 4;

/// Does work on this thread and on one more, or on three more where there are processors for them. Listing folders and
/// reading headers waits for the system in the main, so that a second thread halves the time even on one processor; without
/// one (a limit on processes) the first does all of it. Whatever the threads are to do, they have to share it out among
/// themselves.
///
/// Taken by reference, so that there is one copy of this for all kinds of work.
pub fn on_several(work: &(dyn Fn() + Sync)) {
    std::thread::scope(|scope| {
        for _ in 1..sys::processors().clamp(2, MOST) {
            if sys::thread("files").spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
}

/// Makes something of each item on several threads, in the items' order.
pub fn each<T: Sync, R: Send>(items: &[T], make: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let places: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    on_several(&|| {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let (Some(item), Some(place)) = (items.get(at), places.get(at)) else {
                return;
            };
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(make(item));
        }
    });
    let made = places
        .into_iter()
        .map(|place| place.into_inner().unwrap_or_else(PoisonError::into_inner));
    made.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_threads_make_comes_in_the_items_order() {
        for count in [0, 1, 2, 1000] {
            let items: Vec<usize> = (0..count).collect();
            let made = each(&items, |item| item * 2);
            assert_eq!(made, items.iter().map(|item| item * 2).collect::<Vec<_>>());
        }
    }
}
