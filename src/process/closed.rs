//! The folder that keeps this user from a file: what the kernel's "permission denied" does not name.

use std::io;
use std::path::{Path, PathBuf};

/// Most links that are followed, as by the kernel.
const MAX_LINKS: usize = 40;

/// What to do where uv installed the interpreter: it does so below the home of the user who runs it.
pub const REMEDY: &str = "set UV_PYTHON_INSTALL_DIR to a folder that every user may enter, such as /opt/python, before uv \
     creates the environment, and build the image again";

/// The folder, where the way to the file behind this path is barred by one.
pub fn on_the_way(path: &Path) -> Option<PathBuf> {
    let is_closed = |path: &Path| {
        std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    if std::fs::metadata(path).is_ok() {
        return None;
    }
    let mut path = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        let mut ways: Vec<&Path> = path.ancestors().collect();
        ways.reverse();
        if let Some(closed) = ways.iter().find(|way| is_closed(way)) {
            return closed.parent().map(Path::to_path_buf);
        }
        let link = ways
            .iter()
            .find_map(|way| Some((*way, std::fs::read_link(way).ok()?)));
        let (link, target) = link?;
        let rest = path.strip_prefix(link).ok()?.to_path_buf();
        path = link.parent()?.join(target);
        // Joining nothing would add a slash, behind which a link is followed.
        if rest.components().next().is_some() {
            path = path.join(rest);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_there_or_nowhere_has_no_closed_folder() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "").unwrap();
        symlink("file", at("link")).unwrap();
        symlink("gone/x", at("dangling")).unwrap();
        symlink("round", at("round")).unwrap();
        for name in ["file", "link", "dangling", "round", "gone"] {
            assert_eq!(on_the_way(&at(name)), None, "{name}");
        }
    }
}
