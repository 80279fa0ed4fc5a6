//! What is being read at the moment, for who watches: a file system may take its time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

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
