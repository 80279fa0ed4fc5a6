//! Nothing but the helper's own bytes is executed, however fast somebody else is.

use std::ffi::CString;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use cuda_entrypoint::packed;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};

use crate::support::device::Machine;
use crate::support::needs::Need;
use crate::support::probe::probe;
use crate::support::run::{Running, World, eventually};
use crate::support::sandbox;

const HANGS: &str = r#"{"calls": {"cuInit": {"hang": true}}}"#;

#[test]
fn the_memory_file_that_is_executed_can_be_changed_by_nobody() {
    let world = World::new();
    let mut command = world.check(&["--gpu", "required", "--stage", "device"]);
    world.with_gpu(&mut command, HANGS);
    let running = Running::start(&mut command);
    let exe = format!("/proc/{}/exe", running.helper_in_driver());
    let link = fs::read_link(&exe).unwrap();
    assert!(link.to_str().unwrap().starts_with("/memfd:"), "{link:?}");
    let file = fs::File::open(&exe).unwrap();
    let seals = SealFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GET_SEALS).unwrap());
    let wanted =
        SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    assert!(seals.contains(wanted), "{seals:?}");
    assert!(fs::OpenOptions::new().write(true).open(&exe).is_err());
    assert_eq!(fs::read(&exe).unwrap(), packed::helper());
    running.kill(nix::sys::signal::Signal::SIGTERM);
    running.finish().exits(143);
}

/// The way by which the helper was started, as the debug log names it, or why it was not.
fn health(machine: &Machine, options: &[&str]) -> (Option<i32>, String) {
    let mut command = machine.command("check", &["--stage", "health", "--log", "debug"]);
    let output = command.args(options).output().unwrap();
    let said = [output.stderr, output.stdout].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn where_no_file_can_be_without_a_name_it_has_one_for_a_moment() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new("{}")
        .sandbox(sandbox::no_memfd_and_no_unlinked_file)
        .env("TMPDIR", folder.path().to_str().unwrap());
    let (code, said) = health(&machine, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("helper started: temporary file"), "{said}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Does `work` while another thread does the other thing again and again; also where the work fails.
fn meanwhile<R>(again: impl Fn() -> R + Sync, work: impl FnOnce()) {
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let flag = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !flag.load(Ordering::Relaxed) {
                again();
            }
        });
        let _over = Over(&flag);
        work();
    });
}

/// As in an emptyDir: 0777 without the sticky bit, where anybody may put a file in another's place.
#[test]
fn a_file_that_another_was_put_in_the_place_of_is_not_executed() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let machine = Machine::new("{}")
        .sandbox(sandbox::no_memfd_and_no_unlinked_file)
        .env("TMPDIR", folder.path().to_str().unwrap());
    let replaced = AtomicUsize::new(0);
    let attack = || replaced.fetch_add(replace_helpers(folder.path()), Ordering::Relaxed);
    meanwhile(attack, || {
        let mut starts = 0;
        // An attack that is never fast enough would prove nothing.
        let proven = eventually(|| {
            let (_, said) = health(&machine, &[]);
            // What the probe says is no fact.
            assert!(!said.contains("no fact"), "it was executed: {said}");
            starts += 1;
            starts >= 40 && replaced.load(Ordering::Relaxed) > 0
        });
        assert!(proven, "no file was replaced in {starts} starts");
    });
}

/// Puts a link to the probe in the place of every file that the helper is written to; how many there were.
fn replace_helpers(folder: &Path) -> usize {
    let names = fs::read_dir(folder).unwrap().flatten();
    let helpers = names.filter(|entry| entry.file_name().to_str().unwrap().starts_with(".cuda-helper"));
    let draft = folder.join("draft");
    let replace = |entry: &fs::DirEntry| {
        let _ = symlink(probe(), &draft);
        entry.metadata().is_ok_and(|file| file.is_file()) && fs::rename(&draft, entry.path()).is_ok()
    };
    helpers.filter(replace).count()
}

/// A helper on disk in a folder of its own.
fn on_disk() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cuda-helper");
    fs::write(&path, packed::helper()).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    let shown = path.to_str().unwrap().to_string();
    (folder, shown)
}

#[test]
fn one_on_disk_of_another_user_is_refused() {
    Need::Root.demand();
    let (_folder, path) = on_disk();
    let machine = Machine::new("{}");
    chown(&path, Some(1000), Some(1000)).unwrap();
    let (code, said) = health(&machine, &["--helper-path", &path]);
    assert_eq!(code, Some(82), "{said}");
    assert!(
        said.contains("is owned by uid 1000 with mode 755: another user could replace it"),
        "{said}"
    );
    chown(&path, Some(0), Some(1000)).unwrap();
    let (code, said) = health(&machine, &["--helper-path", &path]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_list_of_who_may_write_counts() {
    let (_folder, path) = on_disk();
    // `setfacl --modify user:1000:rwx`, as the kernel keeps it: version 2, then tag, permissions and id of each entry.
    let entry = |tag: u16, permissions: u16, id: u32| {
        [
            &tag.to_le_bytes()[..],
            &permissions.to_le_bytes(),
            &id.to_le_bytes(),
        ]
        .concat()
    };
    let none = u32::MAX;
    let list = [
        2u32.to_le_bytes().to_vec(),
        entry(1, 7, none),
        entry(2, 7, 1000),
        entry(4, 5, none),
        entry(16, 7, none),
        entry(32, 5, none),
    ]
    .concat();
    if !set_attribute(&path, "system.posix_acl_access", &list) {
        Need::Acl.lacking("that of temporary files has none");
    }
    let (code, said) = health(&Machine::new("{}"), &["--helper-path", &path]);
    assert_eq!(code, Some(82), "{said}");
    assert!(said.contains("another user could replace it"), "{said}");
}

#[allow(unsafe_code)] // setxattr(2)
fn set_attribute(path: &str, name: &str, value: &[u8]) -> bool {
    let (path, name) = (CString::new(path).unwrap(), CString::new(name).unwrap());
    // SAFETY: two strings that end in NUL and as many bytes as it is told, all of which outlive the call.
    let set = unsafe {
        nix::libc::setxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    set == 0
}

/// What is judged is what is executed: the link may lead elsewhere a moment later.
#[test]
fn a_link_that_changes_all_the_time_leads_to_the_helper_or_to_a_refusal() {
    let (folder, path) = on_disk();
    let link = folder.path().join("link");
    symlink(&path, &link).unwrap();
    let machine = Machine::new("{}");
    let draft = folder.path().join("draft");
    let swap = || {
        for target in [probe(), Path::new(&path)] {
            symlink(target, &draft).unwrap();
            fs::rename(&draft, &link).unwrap();
        }
    };
    meanwhile(swap, || {
        for _ in 0..20_000 {
            if let Err(error) = fs::File::open(&link) {
                Need::AtomicRename.lacking(format!("{}: {error}", folder.path().display()));
            }
        }
    });
    meanwhile(swap, || {
        for _ in 0..40 {
            let (code, said) = health(&machine, &["--helper-path", link.to_str().unwrap()]);
            let refused = code == Some(82) && said.contains("is not the helper of cuda-entrypoint");
            assert!(code == Some(0) || refused, "{said}");
        }
    });
}
