//! `install DIR`: this binary and its helper as files, for an emptyDir that another image's container mounts, or for
//! `--helper-path`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::draft;
use crate::packed;
use crate::process::limits::ResourceLimit;

/// The helper's name there.
pub const HELPER: &str = "cuda-helper";

/// Writes `cuda-entrypoint` and `cuda-helper` into `dir`, which is made if it is not there. Both are complete or absent
/// for whoever looks, and may replace running ones.
///
/// # Errors
/// What could not be written, with its path, and what to do.
pub fn install(dir: &Path) -> Result<[PathBuf; 2], (String, &'static str)> {
    let failed = |what: String, error: io::Error| {
        let hint = ResourceLimit::of_io(&error).map(ResourceLimit::hint);
        (
            format!("{what}: {error}"),
            hint.unwrap_or("choose a folder that this user can write to"),
        )
    };
    fs::create_dir_all(dir)
        .map_err(|e| failed(format!("cannot create the directory {}", dir.display()), e))?;
    let entrypoint = dir.join("cuda-entrypoint");
    let own = File::open("/proc/self/exe")
        .map_err(|e| failed("cannot read this binary by /proc/self/exe".to_string(), e))?;
    let place = |path: &Path, write: &mut draft::Writing<'_>| {
        place(path, write).map_err(|e| failed(format!("cannot write {}", path.display()), e))
    };
    place(&entrypoint, &mut |file| io::copy(&mut &own, file).map(|_| ()))?;
    let helper = dir.join(HELPER);
    place(&helper, &mut |file| file.write_all(packed::helper()))?;
    Ok([entrypoint, helper])
}

fn place(path: &Path, write: &mut draft::Writing<'_>) -> io::Result<()> {
    // Whatever the umask: another user's container has to execute it.
    draft::replace(path, Some(0o755), &mut |file| {
        write(file)?;
        file.sync_all()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn both_files_are_whole_and_executable_for_all() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("not/yet");
        for _ in 0..2 {
            let [entrypoint, helper] = install(&dir).unwrap();
            assert_eq!(fs::read(&helper).unwrap(), packed::helper());
            assert_eq!(
                fs::read(&entrypoint).unwrap(),
                fs::read("/proc/self/exe").unwrap()
            );
            for path in [entrypoint, helper] {
                assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o755);
            }
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
    }

    #[test]
    fn what_a_killed_one_left_is_no_hindrance() {
        let folder = tempfile::tempdir().unwrap();
        // As releases before named it, whose process number is 1 in every container.
        for name in [
            format!("cuda-entrypoint.{}.new", std::process::id()),
            "cuda-entrypoint.1.new".to_string(),
            ".cuda-helper.0123456789abcdef.draft".to_string(),
        ] {
            fs::write(folder.path().join(name), "half").unwrap();
        }
        install(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(install(&file).unwrap_err().0.contains("file"));
        fs::create_dir_all(folder.path().join("d/cuda-entrypoint")).unwrap();
        assert!(
            install(&folder.path().join("d"))
                .unwrap_err()
                .0
                .contains("cuda-entrypoint")
        );
        assert_eq!(fs::read_dir(folder.path().join("d")).unwrap().count(), 1);
    }
}
