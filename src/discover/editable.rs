//! What makes spconv and cumm believe that they are editable installs.
//!
//! Both ask `pccm.utils.project_is_editable` at import, and compile their C++ core there and then if it says yes. As
//! pccm 0.4.16 has it, the answer is yes when `setup.py` or `.gitignore` exists in the folder that holds the package
//! (so: in site-packages itself), or when any folder of `sys.path` has `<package>.egg-link`. A build leaves
//! `<package>/build` behind, beside the compiled module that it overwrites.

use std::path::{Path, PathBuf};

use super::unread;
use crate::facts::{EditableTrap, TrapKind};
use crate::packages::compiled_by_pccm;

/// Every trap, in the order of the packages and then of pccm's questions.
pub fn traps(site_packages: &[String]) -> Vec<EditableTrap> {
    compiled_by_pccm()
        .flat_map(|(package, _)| traps_of(package, site_packages))
        .collect()
}

/// Calls with what has to stay as it is for [`traps`] to stay the same: the packages and what a build leaves in them.
/// What lies beside them is among the names of the folders themselves.
pub fn places(site_packages: &[String], take: &mut dyn FnMut(&Path)) {
    for folder in site_packages {
        for (package, _) in compiled_by_pccm() {
            let package = Path::new(folder).join(package);
            take(&package.join("__init__.py"));
            take(&package.join("build"));
        }
    }
}

fn traps_of(package: &str, site_packages: &[String]) -> Vec<EditableTrap> {
    // The package that an import would take: the first folder with it, as `importlib.util.find_spec` has it.
    let holder = site_packages
        .iter()
        .map(Path::new)
        .find(|folder| folder.join(package).join("__init__.py").is_file());
    let Some(holder) = holder else { return Vec::new() };
    let beside = [
        (TrapKind::SetupPy, holder.join("setup.py")),
        (TrapKind::GitIgnore, holder.join(".gitignore")),
    ];
    let links = site_packages.iter().map(|folder| {
        (
            TrapKind::EggLink,
            Path::new(folder).join(format!("{package}.egg-link")),
        )
    });
    let build = (TrapKind::Build, holder.join(package).join("build"));
    // pccm asks `exists()` of the first two and `isfile()` of the links; spconv's own build.py is no leftover.
    let there = |(kind, path): &(TrapKind, PathBuf)| match kind {
        TrapKind::SetupPy | TrapKind::GitIgnore => unread::metadata(path).is_some(),
        TrapKind::EggLink => unread::metadata(path).is_some_and(|found| found.is_file()),
        TrapKind::Build => unread::metadata(path).is_some_and(|found| found.is_dir()),
    };
    beside
        .into_iter()
        .chain(links)
        .chain([build])
        .filter(there)
        .map(|(kind, path)| EditableTrap {
            package: package.to_string(),
            path: path.to_string_lossy().into_owned(),
            kind,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn site(packages: &[&str]) -> (tempfile::TempDir, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        for package in packages {
            fs::create_dir(dir.path().join(package)).unwrap();
            fs::write(dir.path().join(package).join("__init__.py"), "").unwrap();
        }
        let folders = vec![dir.path().to_str().unwrap().to_string()];
        (dir, folders)
    }

    #[test]
    fn a_clean_site_packages_has_none() {
        let (dir, folders) = site(&["cumm", "spconv"]);
        // spconv ships a module of that name.
        fs::write(dir.path().join("spconv/build.py"), "").unwrap();
        assert_eq!(traps(&folders), []);
    }

    #[test]
    fn each_cause_is_named_with_its_package() {
        let (dir, folders) = site(&["cumm", "spconv"]);
        fs::write(dir.path().join(".gitignore"), "").unwrap();
        fs::write(dir.path().join("setup.py"), "").unwrap();
        fs::write(dir.path().join("spconv.egg-link"), "").unwrap();
        fs::create_dir(dir.path().join("cumm/build")).unwrap();
        let found: Vec<_> = traps(&folders).into_iter().map(|t| (t.package, t.kind)).collect();
        let expected = [
            ("cumm", TrapKind::SetupPy),
            ("cumm", TrapKind::GitIgnore),
            ("cumm", TrapKind::Build),
            ("spconv", TrapKind::SetupPy),
            ("spconv", TrapKind::GitIgnore),
            ("spconv", TrapKind::EggLink),
        ];
        assert_eq!(found, expected.map(|(p, k)| (p.to_string(), k)));
    }

    #[test]
    fn without_the_packages_a_gitignore_is_only_a_file() {
        let (dir, folders) = site(&[]);
        fs::write(dir.path().join(".gitignore"), "").unwrap();
        assert_eq!(traps(&folders), []);
    }
}
