//! Images to check: an environment's folder put together from real or made-up parts, and what the binary says of it.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cuda;
use crate::support::folders;
use crate::support::surroundings;

/// Where libcudart lies in an environment, below site-packages.
pub const CUDART: &str = "nvidia/cuda_runtime/lib/libcudart.so.12";
/// Where libnvrtc lies in an environment, below site-packages.
pub const NVRTC: &str = "nvidia/cuda_nvrtc/lib/libnvrtc.so.12";

/// The binary under test with nothing of this process's environment but what it needs to find programs.
pub fn entrypoint() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cuda-entrypoint"));
    surroundings::keep(command.env_clear()).env("PATH", "/usr/bin:/bin");
    command
}

/// An environment of Python 3.11 in a folder of its own: `env`, beside what a test adds.
pub struct Image {
    dir: TempDir,
}

impl Image {
    /// Nothing but `pyvenv.cfg` and an empty site-packages.
    pub fn empty() -> Self {
        // Below target/, so that big libraries can be linked instead of copied.
        let dir = crate::support::folders::scratch();
        let image = Self { dir };
        environment(&image.env());
        image
    }

    /// The CUDA runtime and NVRTC of `version`, with the metadata that their wheels leave.
    pub fn with_cuda(version: &str, release: &str) -> Self {
        let image = Self::empty();
        image.wheel(
            "nvidia-cuda-runtime-cu12",
            release,
            "py3-none-manylinux2014_x86_64",
        );
        image.wheel("nvidia-cuda-nvrtc-cu12", release, "py3-none-manylinux2014_x86_64");
        image.put(CUDART, &cuda::cudart(version));
        image.put(NVRTC, &cuda::nvrtc(version));
        let builtins = format!("nvidia/cuda_nvrtc/lib/libnvrtc-builtins.so.{version}");
        image.put(&builtins, &cuda::nvrtc_builtins(version));
        image
    }

    /// The real wheels of spconv, cumm and CUDA 12.4. Entries of site-packages are links into one unpacked tree, so
    /// that a test can change its own in no time.
    pub fn real() -> Self {
        let image = Self::empty();
        image.links_to(real_stack().join("lib/python3.11/site-packages"), &image.site());
        image
    }

    fn links_to(&self, from: PathBuf, to: &Path) {
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap().path();
            symlink(&entry, to.join(entry.file_name().unwrap())).unwrap();
        }
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// The environment's folder, `sys.prefix`.
    pub fn env(&self) -> PathBuf {
        self.root().join("env")
    }

    pub fn site(&self) -> PathBuf {
        self.env().join("lib/python3.11/site-packages")
    }

    /// A file below site-packages by its name there, as reports write it.
    pub fn path(&self, name: &str) -> String {
        self.site().join(name).to_str().unwrap().to_string()
    }

    /// The metadata of an installed wheel.
    pub fn wheel(&self, name: &str, version: &str, tag: &str) {
        let folder = format!("{}-{version}.dist-info", name.replace('-', "_"));
        self.write(
            &format!("{folder}/METADATA"),
            &format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"),
        );
        self.write(
            &format!("{folder}/WHEEL"),
            &format!("Wheel-Version: 1.0\nTag: {tag}\n"),
        );
    }

    /// Writes a file below site-packages.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.own(name), text).unwrap();
    }

    /// Puts a copy of a file below site-packages.
    pub fn put(&self, name: &str, from: &Path) {
        let to = self.own(name);
        fs::hard_link(from, &to)
            .or_else(|_| fs::copy(from, &to).map(drop))
            .unwrap();
    }

    /// Removes a file or folder below site-packages.
    pub fn remove(&self, name: &str) {
        let path = self.own(name);
        assert!(!path.exists());
    }

    /// A path below site-packages that is this image's own and free: links on the way to it become folders of links,
    /// and what lay there is gone.
    fn own(&self, name: &str) -> PathBuf {
        let mut path = self.site();
        let mut parts = Path::new(name).components().peekable();
        while let Some(part) = parts.next() {
            path.push(part);
            if parts.peek().is_none() {
                break;
            }
            if path.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                fs::remove_file(&path).unwrap();
                fs::create_dir(&path).unwrap();
                self.links_to(target, &path);
            }
            fs::create_dir_all(&path).unwrap();
        }
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(&path).unwrap();
        } else if path.symlink_metadata().is_ok() {
            fs::remove_file(&path).unwrap();
        }
        path
    }

    /// Writes a manifest beside the environment.
    pub fn manifest(&self, value: &Value) -> PathBuf {
        let path = self.root().join("stack.json");
        fs::write(&path, value.to_string()).unwrap();
        path
    }

    /// `check --stage image` of the environment against a manifest.
    pub fn check(&self, manifest: &Value) -> Checked {
        self.check_with(manifest, |_| {})
    }

    /// The same, with more options or variables.
    pub fn check_with(&self, manifest: &Value, change: impl FnOnce(&mut Command)) -> Checked {
        let mut command = entrypoint();
        command.args(["check", "--stage", "image", "--stack"]);
        command
            .arg(self.manifest(manifest))
            .arg("--python")
            .arg(self.env());
        change(&mut command);
        self.run_check(command)
    }

    /// Runs a `check`, whose report and termination message go to this image's folder.
    pub fn run_check(&self, mut command: Command) -> Checked {
        let (report, message) = (self.root().join("report.json"), self.root().join("termination"));
        // In front of the service command, if there is one.
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let at = arguments
            .iter()
            .position(|a| a == "--")
            .unwrap_or(arguments.len());
        let mut ordered = Command::new(command.get_program());
        ordered.env_clear();
        for (name, value) in command.get_envs() {
            ordered.env(name, value.unwrap());
        }
        ordered.args(&arguments[..at]);
        ordered
            .arg("--report")
            .arg(&report)
            .arg("--termination-log")
            .arg(&message);
        ordered.args(&arguments[at..]);
        ordered.current_dir(self.root());
        command = ordered;
        Checked::of(command.output().unwrap(), &report, &message, self.root())
    }
}

/// `pyvenv.cfg` and an empty site-packages of Python 3.11.
pub fn environment(folder: &Path) {
    fs::create_dir_all(folder.join("lib/python3.11/site-packages")).unwrap();
    let config = "home = /nowhere/bin\ninclude-system-site-packages = false\nversion = 3.11.9\n";
    fs::write(folder.join("pyvenv.cfg"), config).unwrap();
}

/// A manifest that asks for CUDA 12.4 and nothing else.
pub fn cuda_124() -> Value {
    json!({"schema": 1, "name": "test", "cuda": {"runtime": "12.4", "nvrtc": "12.4"}})
}

/// What a `check` came to.
pub struct Checked {
    pub exit: i32,
    pub table: String,
    pub stderr: String,
    pub report: Value,
    pub termination: String,
}

impl Checked {
    pub fn of(output: Output, report: &Path, message: &Path, root: &Path) -> Self {
        let stderr = String::from_utf8(output.stderr).unwrap();
        let exit = output
            .status
            .code()
            .unwrap_or_else(|| panic!("{}: {stderr}", output.status));
        let text =
            fs::read_to_string(report).unwrap_or_else(|e| panic!("no report: {e}; exit {exit}: {stderr}"));
        let root = format!("{}/", root.display());
        Self {
            exit,
            table: String::from_utf8(output.stdout).unwrap().replace(&root, ""),
            stderr,
            report: serde_json::from_str(&text).unwrap(),
            termination: fs::read_to_string(message).unwrap_or_default().replace(&root, ""),
        }
    }

    pub fn findings(&self) -> impl Iterator<Item = &Value> {
        self.report["findings"].as_array().unwrap().iter()
    }

    /// `code status` of everything that is not as it should be, in the report's order. What an image needs of the driver is
    /// said of each.
    pub fn problems(&self) -> Vec<String> {
        self.findings()
            .filter(|f| {
                f["status"] != "pass"
                    && (&f["code"], &f["subject"]) != (&"driver-floor".into(), &"driver".into())
            })
            .map(|f| {
                format!(
                    "{} {}",
                    f["code"].as_str().unwrap(),
                    f["status"].as_str().unwrap()
                )
            })
            .collect()
    }

    /// The exit code and all problems at once, so that a failing test shows both and the table.
    #[track_caller]
    pub fn is(&self, exit: i32, problems: &[&str]) -> &Self {
        assert_eq!(
            (self.exit, self.problems()),
            (exit, problems.iter().map(ToString::to_string).collect()),
            "{}{}",
            self.table,
            self.stderr
        );
        assert_eq!(self.report["exit_code"], exit);
        self
    }

    /// A line of the table, or the lines of a finding, as people read them.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        assert!(self.table.contains(text), "not said: {text}\n{}", self.table);
        self
    }

    /// The first finding with this code that is no pass.
    #[track_caller]
    pub fn problem(&self, code: &str) -> &Value {
        self.findings()
            .find(|f| f["code"] == code && f["status"] != "pass")
            .unwrap_or_else(|| panic!("no {code} in\n{}", self.table))
    }
}

/// The unpacked wheels of the demo's stack: an environment for Python 3.11 in target/, which no test may change.
pub fn real_stack() -> &'static Path {
    static STACK: OnceLock<PathBuf> = OnceLock::new();
    // The loader takes no path with a blank: where the target folder has one, a link stands for it.
    static LINK: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let unpacked = STACK.get_or_init(|| {
        let target = folders::target();
        let done = target.join("demo-stack");
        if done.exists() {
            return done; // it gets its name when it is complete
        }
        // The runtime's wheels are fetched under a lock of their own.
        cuda::cudart("12.4");
        let file = File::create(target.join("demo-stack.lock")).unwrap();
        let _lock = Flock::lock(file, FlockArg::LockExclusive).unwrap();
        if done.exists() {
            return done;
        }
        let draft = target.join("demo-stack.draft");
        if draft.exists() {
            fs::remove_dir_all(&draft).unwrap();
        }
        environment(&draft);
        for (package, release, python) in [
            ("nvidia-cuda-runtime-cu12", "12.4.127", None),
            ("nvidia-cuda-nvrtc-cu12", "12.4.127", None),
            ("cumm-cu124", "0.8.2", Some("3.11")),
            ("spconv-cu124", "2.3.8", Some("3.11")),
        ] {
            let mut command = Command::new("python3");
            command.args(["-m", "zipfile", "-e"]);
            command.arg(cuda::wheel(package, release, python));
            command.arg(draft.join("lib/python3.11/site-packages"));
            let status = command
                .status()
                .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
            assert!(
                status.success(),
                "{status}: {command:?}; delete the wheel if it is damaged"
            );
        }
        fs::rename(&draft, &done).unwrap();
        done
    });
    if !unpacked.to_str().unwrap().contains(char::is_whitespace) {
        return unpacked;
    }
    let (_, link) = LINK.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("demo-stack");
        symlink(unpacked, &link).unwrap();
        (folder, link)
    });
    link
}

/// The manifest of the demo, which the real wheels fulfil.
pub fn demo_manifest() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/demo/stack.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Compiles C to a shared library in `folder`. What it does not define is looked for when it is called.
pub fn c_library(folder: &Path, name: &str, source: &str) -> PathBuf {
    let (input, output) = (
        folder.join(format!("{name}.c")),
        folder.join(format!("{name}.so")),
    );
    fs::write(&input, source).unwrap();
    let mut command = Command::new("cc");
    command
        .args(["-shared", "-fPIC", "-Wl,-z,lazy", "-o"])
        .arg(&output)
        .arg(&input);
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    assert!(status.success(), "{status}: {command:?}");
    output
}

/// The same with a section of CUDA code.
pub fn c_library_with_kernels(folder: &Path, name: &str, source: &str, fatbins: &[Vec<u8>]) -> PathBuf {
    let library = c_library(folder, name, source);
    add_kernels(&library, fatbins);
    library
}

/// Gives a library or program a section of CUDA code, with binutils as nvcc's linker leaves it.
pub fn add_kernels(file: &Path, fatbins: &[Vec<u8>]) {
    let section = file.with_extension("nv_fatbin");
    fs::write(&section, fatbins.concat()).unwrap();
    let status = Command::new("objcopy")
        .arg(format!("--add-section=.nv_fatbin={}", section.display()))
        .arg("--set-section-flags=.nv_fatbin=data,readonly")
        .arg("--set-section-alignment=.nv_fatbin=8")
        .arg(file)
        .status()
        .unwrap();
    assert!(status.success());
    fs::remove_file(section).unwrap();
}
