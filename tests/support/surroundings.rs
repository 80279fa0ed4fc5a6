//! Makes the surroundings of the tests the same on every machine, before the first one runs: the variables that steer
//! CUDA, the loader, Python and colours are taken out, the umask is the usual one, and where the machine has a GPU or an
//! NVIDIA driver, both are hidden, since the tests' driver is the fake one.
#![allow(unsafe_code)] // remove_var and unshare while there is one thread

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use nix::libc;

/// What a machine's owner may have set, and what none of the tests means.
const FOREIGN: [&str; 14] = [
    "CUDA_",
    "NVIDIA_",
    "LD_",
    "PYTHON",
    "VIRTUAL_ENV",
    "CONDA_",
    "PYENV_VERSION",
    "TORCH_",
    "FAKE_",
    "NO_COLOR",
    "CLICOLOR",
    "GLIBC_TUNABLES",
    "MALLOC_",
    "NCCL_",
];

/// The tests' own settings; what the entrypoint reads is not among them.
const OWN: [&str; 9] = [
    "CUDA_ENTRYPOINT_CROSS_",
    "CUDA_ENTRYPOINT_DIST",
    "CUDA_ENTRYPOINT_HELPER_BIN",
    "CUDA_ENTRYPOINT_MUTANT",
    "CUDA_ENTRYPOINT_SKIP_",
    "CUDA_ENTRYPOINT_TEST_",
    "CUDA_ENTRYPOINT_TOOLS",
    "CUDA_ENTRYPOINT_TORCH_",
    "CUDA_ENTRYPOINT_WHEELS",
];

/// Files that a development build of the binary looks past, with a colon between them.
const HIDDEN: &str = "CUDA_ENTRYPOINT_TEST_HIDDEN";

/// Once, while this process has one thread.
pub fn prepare() {
    let starts = |name: &OsString, prefixes: &[&str]| {
        let name = name.to_string_lossy();
        prefixes.iter().any(|prefix| name.starts_with(prefix))
    };
    for (name, _) in env::vars_os() {
        if starts(&name, &FOREIGN) && !starts(&name, &OWN) {
            // SAFETY: there is one thread.
            unsafe { env::remove_var(&name) };
        }
    }
    if let Some(path) = without_environments() {
        // SAFETY: there is one thread.
        unsafe { env::set_var("PATH", path) };
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let folders = library_folders();
    if nodes().is_empty() && folders.is_empty() {
        return;
    }
    if let Err(error) = hide(&folders) {
        // What a namespace does not hide, the binaries of these tests look past.
        eprintln!("this machine's CUDA is hidden from the development build alone: {error}");
    }
    let left: Vec<PathBuf> = nodes()
        .into_iter()
        .chain(library_folders().iter().flat_map(|folder| library_files(folder)))
        .map(|path| fs::canonicalize(&path).unwrap_or(path))
        .collect();
    let left = env::join_paths(left).unwrap();
    // SAFETY: there is one thread.
    unsafe { env::set_var(HIDDEN, left) };
}

/// Gives a command whose environment was cleared what it needs to look past this machine's GPU.
pub fn keep(command: &mut Command) -> &mut Command {
    let hidden = env::var_os(HIDDEN).map(|value| (HIDDEN, value));
    command.envs(hidden)
}

/// `PATH` without the programs of an activated environment of Python's or conda's, whose packages are not the tests'. None
/// where that would leave no Python.
fn without_environments() -> Option<OsString> {
    let path = env::var_os("PATH")?;
    let is_environment = |bin: &Path| {
        let root = bin.parent();
        root.is_some_and(|root| root.join("pyvenv.cfg").exists() || root.join("conda-meta").exists())
    };
    let kept: Vec<PathBuf> = env::split_paths(&path)
        .filter(|bin| !is_environment(bin))
        .collect();
    let has_python = kept.iter().any(|bin| bin.join("python3").exists());
    has_python.then(|| env::join_paths(kept).ok())?
}

/// Device nodes of a GPU.
fn nodes() -> Vec<PathBuf> {
    let entries = fs::read_dir("/dev").into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("nvidia") || name == "dxg"
        })
        .collect()
}

/// What the tests bring themselves, or do not want there.
const LIBRARIES: [&str; 4] = ["libcuda.so", "libnvidia-ml.so", "libcudart", "libnvrtc"];

/// Folders in which the loader or the entrypoint would find one of them.
fn library_folders() -> Vec<PathBuf> {
    let usual = [
        "/lib64",
        "/usr/lib64",
        "/lib/x86_64-linux-gnu",
        "/usr/lib/x86_64-linux-gnu",
        "/lib",
        "/usr/lib",
    ];
    let mut folders: Vec<PathBuf> = usual.iter().map(PathBuf::from).collect();
    for ldconfig in ["ldconfig", "/sbin/ldconfig", "/usr/sbin/ldconfig"] {
        let Ok(output) = Command::new(ldconfig).arg("-p").output() else {
            continue;
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let files = text.lines().filter_map(|line| line.split_once(" => "));
        folders.extend(files.filter_map(|(_, file)| Some(Path::new(file.trim()).parent()?.to_path_buf())));
        break;
    }
    // Where the entrypoint looks for a driver that the loader does not find.
    folders.extend(cuda_entrypoint::processor::OWN.driver.iter().map(PathBuf::from));
    // Toolkits, of which cuda is a link to one.
    let entries = fs::read_dir("/usr/local").into_iter().flatten().flatten();
    for toolkit in entries.map(|entry| entry.path()) {
        if toolkit
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("cuda"))
        {
            folders.extend(["lib64", "targets/x86_64-linux/lib"].map(|lib| toolkit.join(lib)));
        }
    }
    let mut folders: Vec<PathBuf> = folders.iter().filter_map(|f| fs::canonicalize(f).ok()).collect();
    folders.sort();
    folders.dedup();
    folders.retain(|folder| !library_files(folder).is_empty());
    folders
}

fn library_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            LIBRARIES.iter().any(|library| name.starts_with(library))
        })
        .collect()
}

/// Goes into a mount namespace whose /dev has no GPU and whose folders have neither a driver nor a toolkit's libraries.
fn hide(folders: &[PathBuf]) -> Result<(), String> {
    // SAFETY: there is one thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(format!(
            "unshare(CLONE_NEWNS): {}",
            std::io::Error::last_os_error()
        ));
    }
    let script = r#"
set -e
mount --make-rprivate /
# The old /dev stays in reach while the new one takes from it what every container has.
hidden=$(mktemp -d)
# What is mounted stays; its folder is not left behind.
trap 'umount -l "$hidden"; rmdir "$hidden"' EXIT
mount -t tmpfs none "$hidden"
mkdir "$hidden/dev" "$hidden/new"
mount --rbind /dev "$hidden/dev"
mount -t tmpfs -o mode=755 none "$hidden/new"
for path in "$hidden/dev"/* ; do
  name=${path##*/}
  case $name in nvidia* | dxg | pts | ptmx) continue ;; esac
  if [ -L "$path" ]; then
    cp -P "$path" "$hidden/new/$name"
  elif [ -d "$path" ]; then
    mkdir "$hidden/new/$name"
    mount --rbind "$path" "$hidden/new/$name"
  else
    : >"$hidden/new/$name"
    mount --bind "$path" "$hidden/new/$name"
  fi
done
# Terminals of its own, as in a container: a ptmx that is mounted alone does not find its pts.
mkdir "$hidden/new/pts"
mount -t devpts -o newinstance,ptmxmode=0666 none "$hidden/new/pts"
ln -s pts/ptmx "$hidden/new/ptmx"
mount --rbind "$hidden/new" /dev
# An overlay, so that each path stays what it is but for these libraries.
number=0
for folder in "$@"; do
  number=$((number + 1))
  mkdir "$hidden/upper$number" "$hidden/work$number"
  mount -t overlay -o "lowerdir=$folder,upperdir=$hidden/upper$number,workdir=$hidden/work$number" none "$folder"
  for library in $LIBRARIES; do rm -f "$folder/$library"*; done
done
"#;
    let output = Command::new("sh")
        .args(["-c", script, "sh"])
        .args(folders)
        .env("LIBRARIES", LIBRARIES.join(" "))
        .output()
        .map_err(|error| format!("sh: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_string()),
    }
}
