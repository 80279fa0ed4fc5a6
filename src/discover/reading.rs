//! What is being read at the moment, for who watches: a file system may take its time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// What every thread reads at this moment, in the order in which they began. One that hangs is not the one that has left
/// the last note.
static UNDER_WAY: Mutex<Vec<UnderWay>> = Mutex::new(Vec::new());

struct UnderWay {
    path: PathBuf,
    since: Instant,
    number: u64,
}

/// Until it is dropped, a file or folder is being read.
#[derive(Debug)]
pub struct Going(u64);

/// Notes that this file or folder is being read from here on.
pub fn begin(path: &Path) -> Going {
    let mut all = under_way();
    let number = all.last().map_or(0, |last| last.number.wrapping_add(1));
    all.push(UnderWay {
        path: path.to_path_buf(),
        since: Instant::now(),
        number,
    });
    Going(number)
}

impl Drop for Going {
    fn drop(&mut self) {
        under_way().retain(|one| one.number != self.0);
    }
}

/// What has been read for the longest time by now, and since when.
pub fn longest() -> Option<(PathBuf, Instant)> {
    under_way().first().map(|one| (one.path.clone(), one.since))
}

fn under_way() -> MutexGuard<'static, Vec<UnderWay>> {
    UNDER_WAY.lock().unwrap_or_else(|e| e.into_inner())
}

/// The place where readers leave a note. The default one is nowhere, and costs nothing.
#[derive(Clone, Default, Debug)]
pub struct Reading(Option<Arc<Mutex<PathBuf>>>);

impl Reading {
    /// A place that is looked at if `watched`, else nowhere.
    pub fn new(watched: bool) -> Self {
        Self(watched.then(Arc::default))
    }

    /// Notes that this file or folder is read from here on.
    pub fn at(&self, path: &Path) {
        if let Some(place) = &self.0 {
            path.clone_into(&mut place.lock().unwrap_or_else(|e| e.into_inner()));
        }
    }

    /// What was noted last.
    pub fn path(&self) -> Option<PathBuf> {
        let noted = self.0.as_ref()?.lock().unwrap_or_else(|e| e.into_inner()).clone();
        (!noted.as_os_str().is_empty()).then_some(noted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_first_and_is_not_over_takes_longest() {
        // Other tests read as well.
        let is_ours = |path: &str| under_way().iter().any(|one| one.path == Path::new(path));
        let first = begin(Path::new("/the/first"));
        let second = begin(Path::new("/the/second"));
        assert!(is_ours("/the/first") && is_ours("/the/second"));
        let places: Vec<usize> = ["/the/first", "/the/second"]
            .into_iter()
            .filter_map(|path| under_way().iter().position(|one| one.path == Path::new(path)))
            .collect();
        assert!(places[0] < places[1]);
        let (_, since) = longest().unwrap();
        assert!(since <= Instant::now());
        drop(first);
        assert!(!is_ours("/the/first") && is_ours("/the/second"));
        drop(second);
        assert!(!is_ours("/the/second"));
    }

    #[test]
    fn the_last_note_counts_and_nowhere_keeps_none() {
        for watched in [false, true] {
            let reading = Reading::new(watched);
            assert_eq!(reading.path(), None);
            let elsewhere = reading.clone();
            elsewhere.at(Path::new("/a"));
            elsewhere.at(Path::new("/b"));
            assert_eq!(reading.path(), watched.then(|| PathBuf::from("/b")));
        }
    }
}
