//! Whose word a receipt is: judged on the opened file, since its folder is mostly one that everybody may write to.
//!
//! Who may write a receipt may start the service unchecked. So it has to be a regular file of ours or of root's that
//! nobody else may write. Its folder does not count: an emptyDir is root's with mode 0777, where anybody may put a file
//! of his own in the place of ours, but none that looks like ours. A second hard link to it is no danger either: what
//! can be linked to this place is a file that we or root wrote, and its keys have to hold like any other's.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::discover::files;

use nix::errno::Errno;
use nix::fcntl::OFlag;

/// Largest receipt, in bytes. A torch environment's has about 60 KiB, five hundred distributions about 500.
pub const MAX_BYTES: u64 = 4 << 20;

/// What the file system says of an opened file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ownership {
    /// a regular file
    pub is_file: bool,
    /// its owner
    pub uid: u32,
    /// type and permissions, as stat(2) has them
    pub mode: u32,
    /// bytes
    pub size: u64,
}

/// Whether `us` may believe what a file says.
///
/// # Errors
/// Why not.
pub fn judge(file: Ownership, us: u32) -> Result<(), String> {
    let Ownership {
        is_file,
        uid,
        mode,
        size,
    } = file;
    if !is_file {
        return Err("not a regular file".to_string());
    }
    if uid != us && uid != 0 {
        return Err(format!(
            "owned by uid {uid}, whom uid {us} does not believe: let one user, or root, write it"
        ));
    }
    if mode & 0o022 != 0 {
        return Err(format!(
            "owned by uid {uid}, mode {:o}: others may write it (chmod 644)",
            mode & 0o7777
        ));
    }
    if size > MAX_BYTES {
        return Err(format!("{size} bytes, more than the {MAX_BYTES} of any receipt"));
    }
    Ok(())
}

/// The content of a file that can be believed; `None` where there is none.
///
/// # Errors
/// Why it cannot, or the system's error.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    // O_NONBLOCK: a FIFO must not keep us waiting for whoever writes to it.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file: File = match OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
    {
        Ok(file) => file,
        Err(error) => {
            return match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
                Some(Errno::ELOOP) => Err("a symbolic link: name the file itself".to_string()),
                _ => Err(format!("it cannot be opened: {error}")),
            };
        }
    };
    let unreadable = |error: std::io::Error| format!("it cannot be read: {error}");
    let found = file.metadata().map_err(unreadable)?;
    let ownership = Ownership {
        is_file: found.is_file(),
        uid: found.uid(),
        mode: found.mode(),
        size: found.size(),
    };
    judge(ownership, nix::unistd::geteuid().as_raw())?;
    if files::is_anybody(ownership.uid) {
        return Err(format!(
            "owned by uid {}, which stands for everybody whom this user namespace does not map: let another user, or its root, write it",
            ownership.uid
        ));
    }
    let mut bytes = Vec::new();
    // It may grow meanwhile.
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const GOOD: Ownership = Ownership {
        is_file: true,
        uid: 1000,
        mode: 0o100_644,
        size: 10,
    };

    #[test]
    fn ours_and_roots_are_believed_and_nobody_elses() {
        assert_eq!(judge(GOOD, 1000), Ok(()));
        assert_eq!(judge(Ownership { uid: 0, ..GOOD }, 1000), Ok(()));
        assert_eq!(
            judge(
                Ownership {
                    mode: 0o100_600,
                    ..GOOD
                },
                1000
            ),
            Ok(())
        );
        let kind = Ownership {
            is_file: false,
            ..GOOD
        };
        let huge = Ownership {
            size: MAX_BYTES + 1,
            ..GOOD
        };
        for (file, us, part) in [
            (GOOD, 0, "owned by uid 1000, whom uid 0 does not believe"),
            (GOOD, 1001, "owned by uid 1000, whom uid 1001 does not believe"),
            (
                Ownership {
                    mode: 0o100_664,
                    ..GOOD
                },
                1000,
                "owned by uid 1000, mode 664",
            ),
            (
                Ownership {
                    mode: 0o100_646,
                    ..GOOD
                },
                1000,
                "mode 646",
            ),
            (
                Ownership {
                    uid: 0,
                    mode: 0o100_666,
                    ..GOOD
                },
                0,
                "mode 666",
            ),
            (kind, 1000, "not a regular file"),
            (huge, 1000, "4194305 bytes"),
        ] {
            let error = judge(file, us).expect_err(part);
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn what_stands_in_the_files_place_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("good"), "x").unwrap();
        // As an emptyDir is.
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
        std::fs::set_permissions(path("good"), PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(read(&path("good")), Ok(Some(b"x".to_vec())));
        assert_eq!(read(&path("none")), Ok(None));
        assert_eq!(read(&path("good/below")), Ok(None));
        std::os::unix::fs::symlink("good", path("link")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("zero")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::create_dir(path("folder")).unwrap();
        std::fs::write(path("group"), "x").unwrap();
        std::fs::set_permissions(path("group"), PermissionsExt::from_mode(0o664)).unwrap();
        std::fs::hard_link(path("good"), path("second")).unwrap();
        assert_eq!(read(&path("second")), Ok(Some(b"x".to_vec())));
        for (name, part) in [
            ("link", "a symbolic link"),
            ("zero", "a symbolic link"),
            ("fifo", "not a regular file"),
            ("folder", "not a regular file"),
            ("group", "mode 664"),
        ] {
            let error = read(&path(name)).expect_err(name);
            assert!(error.contains(part), "{name}: {error}");
        }
        for special in ["/dev/zero", "/dev/tty"] {
            assert!(read(Path::new(special)).is_err(), "{special}");
        }
        let huge = path("huge");
        if File::create(&huge).unwrap().set_len(1 << 40).is_ok() {
            assert!(read(&huge).expect_err("huge").contains("bytes, more than"));
        }
    }
}
