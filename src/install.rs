//! `install DIR`: this binary and its helper as files, for an emptyDir that another image's container mounts, or for
//! `--helper-path`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::packed;

/// The helper's name there.
pub const HELPER: &str = "cuda-helper";

/// Writes `cuda-entrypoint` and `cuda-helper` into `dir`, which is made if it is not there. Both are complete or absent
/// for whoever looks, and may replace running ones.
///
/// # Errors
/// What could not be written, with its path.
pub fn install(dir: &Path) -> Result<[PathBuf; 2], String> {
    fs::create_dir_all(dir).map_err(|e| format!("cannot make the folder {}: {e}", dir.display()))?;
    let entrypoint = dir.join("cuda-entrypoint");
    let own = File::open("/proc/self/exe")
        .map_err(|e| format!("cannot read this binary by /proc/self/exe: {e}"))?;
    place(&entrypoint, |file| io::copy(&mut &own, file).map(|_| ()))?;
    let helper = dir.join(HELPER);
    place(&helper, |file| file.write_all(packed::helper()))?;
    Ok([entrypoint, helper])
}

fn place(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), String> {
    let fail = |e: io::Error| format!("cannot write {}: {e}", path.display());
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", std::process::id()));
    let draft = path.with_file_name(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(&draft)
        .map_err(fail)?;
    // Whatever the umask: another user's container has to execute it.
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    let written = write(&mut file)
        .and_then(|()| file.set_permissions(mode))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&draft, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&draft);
        return Err(fail(error));
    }
    Ok(())
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
    fn what_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(install(&file).unwrap_err().contains("file"));
        fs::create_dir_all(folder.path().join("d/cuda-entrypoint")).unwrap();
        assert!(
            install(&folder.path().join("d"))
                .unwrap_err()
                .contains("cuda-entrypoint")
        );
        assert_eq!(fs::read_dir(folder.path().join("d")).unwrap().count(), 1);
    }
}
