//! The manifest's `files`: whether each one lies in some site-packages folder.

use std::path::Path;

use super::unread;
use crate::facts::NamedFile;

/// Looks for each name in the folders, in their order. A symbolic link that leads nowhere is not a find.
pub fn find(site_packages: &[String], names: &[String]) -> Vec<NamedFile> {
    names
        .iter()
        .map(|name| NamedFile {
            name: name.clone(),
            path: site_packages
                .iter()
                .map(|folder| Path::new(folder).join(name))
                .find(|path| unread::metadata(path).is_some())
                .map(|path| path.to_string_lossy().into_owned()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_that_has_it_wins() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let header = "cumm/include/tensorview/core/all.h";
        let at_b = b.path().join(header);
        std::fs::create_dir_all(at_b.parent().unwrap()).unwrap();
        std::fs::write(&at_b, "").unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", a.path().join("dangling.h")).unwrap();
        let folders = [a.path(), b.path()].map(|p| p.to_str().unwrap().to_string());
        let found = find(
            &folders,
            &[header.into(), "dangling.h".into(), "cumm/gone.h".into()],
        );
        assert_eq!(found[0].path.as_deref(), at_b.to_str());
        assert_eq!((&found[1].path, &found[2].path), (&None, &None));
    }
}
