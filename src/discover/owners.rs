//! Which distributions list a library, and whose contents it has, as far as sizes say it: wheels of one project for several
//! CUDAs install into the same folder (`nvidia-nccl-cu12` and `nvidia-nccl-cu13`), and the last one installed wins.
//!
//! No library is opened: RECORD has the size and the hash of what was installed, and the file has its size.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::record::{self, Record};
use super::{reading, unread};
use crate::facts::{Distribution, FileOwner, OwnedFile};
use crate::text::one_line;

/// Most files that are kept.
const MAX_FILES: usize = 200;
/// Longest path and version that are kept, in characters.
const MAX_TEXT: usize = 500;

/// What the RECORDs say of libraries.
#[derive(Default)]
pub struct Owners {
    files: BTreeMap<PathBuf, Vec<Entry>>,
}

struct Entry {
    owner: FileOwner,
    /// as RECORD writes the hash and the size
    contents: String,
    /// its size is compared though no other distribution lists the file
    is_compared: bool,
}

/// Whether a distribution can have libraries: by its wheel's tags, which is cheaper than its RECORD.
pub fn may_own_libraries(dist: &Distribution) -> bool {
    let is_pure = |tag: &String| tag.ends_with("-any");
    dist.path.ends_with(".dist-info")
        && (dist.name.starts_with("nvidia-") || dist.tags.is_empty() || !dist.tags.iter().all(is_pure))
}

impl Owners {
    /// Adds the libraries of one RECORD; `place` says where a recorded path leads.
    pub fn add(
        &mut self,
        dist: &Distribution,
        record: &Record<'_>,
        is_wanted: bool,
        place: impl Fn(&str) -> Option<PathBuf>,
    ) {
        let is_compared = is_wanted || dist.name.starts_with("nvidia-");
        for (library, contents) in record.libraries.iter().zip(&record.contents) {
            let Some(path) = place(library) else { continue };
            let entries = self.files.entry(path).or_default();
            let is_same = |e: &Entry| e.owner.name == dist.name && e.owner.version == dist.version;
            if !entries.iter().any(is_same) {
                entries.push(Entry {
                    owner: FileOwner {
                        name: dist.name.clone(),
                        version: one_line(&dist.version, MAX_TEXT),
                        size: record::size(contents),
                    },
                    contents: (*contents).to_string(),
                    is_compared,
                });
            }
        }
    }

    /// The files about which there is a doubt, in the order of their paths.
    pub fn in_doubt(self) -> Vec<OwnedFile> {
        let files = self.files.into_iter().filter_map(|(path, entries)| {
            let is_shared = entries.len() > 1;
            // Distributions that install the same contents do each other no harm.
            let agree = entries.windows(2).all(|pair| match pair {
                [a, b] => a.contents == b.contents && a.owner.size.is_some(),
                _ => false,
            });
            let is_open = match is_shared {
                true => !agree,
                false => entries.iter().any(|e| e.is_compared && e.owner.size.is_some()),
            };
            if !is_open {
                return None;
            }
            let _going = reading::begin(&path);
            let size = unread::metadata(&path).filter(|found| found.is_file())?.len();
            let is_as_recorded = entries.iter().all(|e| e.owner.size == Some(size));
            (is_shared || !is_as_recorded).then(|| OwnedFile {
                path: one_line(&path.to_string_lossy(), MAX_TEXT),
                size,
                owners: entries.into_iter().map(|entry| entry.owner).collect(),
            })
        });
        files.take(MAX_FILES).collect()
    }
}
