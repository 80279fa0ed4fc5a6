//! Symbolic links, followed for many paths that share most of their folders.

use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

/// Most links that lead to one another, and most parts of a path, that are followed here: one inside the other.
const MAX_LINKS: usize = 8;
const MAX_PARTS: usize = 64;

/// Paths whose links were followed. The fifty that the loader lists for torch have ten folders each, and mostly the same.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Links {
    /// in the order of the paths; `None` where there is nothing
    known: Vec<(PathBuf, Option<PathBuf>)>,
}

impl Links {
    /// As `canonicalize` has it, with each folder looked at once; `None` where that fails.
    pub fn follow(&mut self, path: &Path) -> Option<PathBuf> {
        let is_folder = path.as_os_str().as_encoded_bytes().ends_with(b"/");
        let found = (path.is_absolute() && !is_folder)
            .then(|| self.steps(path, 0))
            .flatten();
        // Whatever is unusual is the system's to say.
        found.unwrap_or_else(|| path.canonicalize().ok())
    }

    /// `None` where that is too far.
    fn steps(&mut self, path: &Path, links: usize) -> Option<Option<PathBuf>> {
        if let Ok(at) = self.place(path) {
            return self.known.get(at).map(|(_, real)| real.clone());
        }
        if links > MAX_LINKS || path.components().nth(MAX_PARTS).is_some() {
            return None;
        }
        let real = self.last_step(path, links)?;
        let (Ok(at) | Err(at)) = self.place(path);
        self.known.insert(at, (path.to_path_buf(), real.clone()));
        Some(real)
    }

    fn place(&self, path: &Path) -> Result<usize, usize> {
        self.known
            .binary_search_by(|(known, _)| known.as_os_str().cmp(path.as_os_str()))
    }

    fn last_step(&mut self, path: &Path, links: usize) -> Option<Option<PathBuf>> {
        let Some(folder) = path.parent() else {
            return Some(Some(path.to_path_buf()));
        };
        let Some(folder) = self.steps(folder, links)? else {
            return Some(None);
        };
        let Some(Component::Normal(name)) = path.components().next_back() else {
            // The folder above the one that a link leads to.
            let above = folder.parent().unwrap_or(&folder);
            return Some(folder.is_dir().then(|| above.to_path_buf()));
        };
        let here = folder.join(name);
        match here.read_link() {
            Ok(target) => self.steps(&folder.join(target), links + 1),
            // It is no link.
            Err(e) if e.raw_os_error() == Some(Errno::EINVAL as i32) => Some(Some(here)),
            Err(_) => Some(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn paths_lead_where_canonicalize_says() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for folder in ["a/b/c", "other/deep"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("a/file"), "").unwrap();
        for (target, link) in [
            ("b", "a/to-b"),
            ("../other/deep", "a/out"),
            ("to-b/../file", "a/by-way-of-b"),
            ("out/..", "a/to-other"),
            ("/", "a/top"),
            ("nowhere", "a/broken"),
            ("itself", "a/itself"),
            ("two", "a/one"),
            ("one", "a/two"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        symlink(root.join("other"), root.join("a/absolute")).unwrap();
        for at in 0..60 {
            let target = if at == 59 {
                "b".to_string()
            } else {
                format!("chain-{}", at + 1)
            };
            symlink(target, root.join(format!("a/chain-{at}"))).unwrap();
        }
        let deep = "b/../".repeat(80);
        let mut links = Links::default();
        for path in [
            "a",
            "a/b/c",
            "a/to-b",
            "a/to-b/c",
            "a/to-b/../file",
            "a/out",
            "a/out/..",
            "a/out/../../a/b",
            "a/./b//c",
            "a/by-way-of-b",
            "a/to-other/deep",
            "a/top",
            "a/broken",
            "a/broken/x",
            "a/itself",
            "a/itself/..",
            "a/one",
            "a/absolute/deep",
            "a/absolute/none",
            "a/file",
            "a/file/..",
            "a/file/x",
            "a/file/",
            "a/b/",
            "a/none/..",
            "a/none/../b",
            "a/none/x/y",
            "a/chain-0",
            "a/chain-55",
            "a/chain-40",
            &format!("a/{deep}file"),
        ] {
            let path = root.join(path);
            // Twice: the second time it is known.
            for _ in 0..2 {
                assert_eq!(
                    links.follow(&path),
                    path.canonicalize().ok(),
                    "{}",
                    path.display()
                );
            }
        }
        for path in ["/", "/..", "/../..", ".", "..", "no-such-file"] {
            assert_eq!(
                links.follow(Path::new(path)),
                Path::new(path).canonicalize().ok(),
                "{path}"
            );
        }
    }
}
