//! Docker without a registry: base images from an empty folder and from debootstrap, containers and images that go
//! with their owner, and a driver injected as the NVIDIA runtime injects the real one.
//!
//! Everything bears the label `cuda-entrypoint-test=PID`. Guards remove it when their test is over, and a process that
//! outlives the tests removes what is left, also where they were killed.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, process, thread};

use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

use super::folders::{self, root};
use super::needs::Need;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What `make build` made: the very bytes that ship, with the helper for old versions of glibc.
pub fn binary() -> PathBuf {
    Need::Shipped.demand();
    env::var_os("CUDA_ENTRYPOINT_DIST").unwrap().into()
}

/// The docker client. The longest of these commands builds the binary, a minute's work for an idle machine; one that
/// hangs must fail.
pub fn docker<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    // Not while a guard tidies up: what it removes was made by Docker.
    if !thread::panicking() {
        Need::Docker.demand();
    }
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "900", "docker"]).args(arguments);
    // The daemon of Debian 12 knows the classic builder only.
    command.env("DOCKER_BUILDKIT", "0");
    for inherited in ["DOCKER_DEFAULT_PLATFORM", "DOCKER_CONTENT_TRUST"] {
        command.env_remove(inherited);
    }
    command.stdin(Stdio::null());
    command
}

/// Its output, if it succeeds.
#[track_caller]
fn output_of(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{}: {command:?}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim_end().to_string()
}

fn quietly(command: &mut Command) {
    let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
}

/// A name that no other test and no other run has, and the label by which the janitor knows what is ours.
fn fresh_name() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("cuda-entrypoint-test-{}-{number}", process::id())
}

/// Waits for the end of this process, then removes containers and images, the newest first: no image goes before those
/// that are based on it. More than once, since the daemon finishes what a killed client asked for.
const JANITOR: &str = r#"
read -r _
for _ in 1 2 3; do
  docker ps --all --quiet --filter "label=$1" | xargs --no-run-if-empty docker rm --force --volumes
  docker images --all --quiet --filter "label=$1" | xargs --no-run-if-empty docker rmi --force
  docker volume ls --quiet --filter "label=$1" | xargs --no-run-if-empty docker volume rm --force
  [ -z "$(docker ps --all --quiet --filter "label=$1")$(docker images --all --quiet --filter "label=$1")" ] && break
  sleep 1
done
"#;

/// The label; the first call starts the janitor.
fn label() -> String {
    // Its input is open as long as this process lives.
    static WAITING: OnceLock<Child> = OnceLock::new();
    let label = format!("cuda-entrypoint-test={}", process::id());
    WAITING.get_or_init(|| {
        let mut command = Command::new("sh");
        command.args(["-c", JANITOR, "sh", &label]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Ctrl-C is for the tests; what they leave behind is to be removed even so.
        command.process_group(0).spawn().unwrap()
    });
    label
}

/// An image that goes with this value.
#[derive(Debug)]
pub struct Image {
    name: String,
}

impl Image {
    /// For `docker run` and `FROM`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What `docker inspect` says of it.
    pub fn inspect(&self, format: &str) -> String {
        output_of(&mut docker(["inspect", "--format", format, &self.name]))
    }

    /// How many layers it is made of.
    pub fn layers(&self) -> usize {
        self.inspect("{{len .RootFS.Layers}}").parse().unwrap()
    }

    fn import(archive: &Path, changes: &[String]) -> Self {
        let name = fresh_name();
        let mut command = docker(["import", "--change", &format!("LABEL {}", label())]);
        command.args(changes.iter().flat_map(|change| ["--change", change]));
        output_of(command.arg(archive).arg(&name));
        Self { name }
    }

    /// `docker build` by the classic builder of a context in memory: paths and what is to be there.
    ///
    /// # Errors
    /// The client's exit status and everything that it printed.
    pub fn build(dockerfile: &str, context: &[(&str, Content)]) -> Result<Self, BuildFailure> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("Dockerfile"), dockerfile).unwrap();
        for (path, content) in context {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match content {
                Content::Text(text) => fs::write(&path, text).unwrap(),
                Content::File(original) => drop(fs::copy(original, &path).unwrap()),
            }
        }
        // Each step takes the classic builder a second, and the label comes with the base image.
        Self::build_with(docker(["build"]).arg(folder.path()))
    }

    /// `docker build OPTIONS FOLDER`, of a Dockerfile whose result is based on nothing of ours.
    ///
    /// # Errors
    /// The client's exit status and everything that it printed.
    pub fn build_folder(folder: &Path, options: &[&str]) -> Result<Self, BuildFailure> {
        Self::build_with(docker(["build", "--label", &label()]).args(options).arg(folder))
    }

    fn build_with(command: &mut Command) -> Result<Self, BuildFailure> {
        let image = Self { name: fresh_name() };
        let output = command
            .args(["--force-rm", "--no-cache", "--tag", image.name()])
            .output()
            .unwrap();
        if output.status.success() {
            return Ok(image);
        }
        let text = [output.stdout, output.stderr].concat();
        Err(BuildFailure {
            code: output.status.code(),
            text: String::from_utf8_lossy(&text).into_owned(),
        })
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        quietly(&mut docker(["rmi", "--force", &self.name]));
    }
}

/// A volume that goes with this value.
#[derive(Debug)]
pub struct Volume {
    name: String,
}

impl Volume {
    /// An empty one.
    pub fn new() -> Self {
        let name = fresh_name();
        output_of(&mut docker(["volume", "create", "--label", &label(), &name]));
        Self { name }
    }

    /// For `docker run --volume`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        quietly(&mut docker(["volume", "rm", "--force", &self.name]));
    }
}

/// A `docker build` that did not go through.
#[derive(Debug)]
pub struct BuildFailure {
    /// exit status of the client, which the classic builder takes from the command that failed
    pub code: Option<i32>,
    /// stdout and stderr
    pub text: String,
}

/// A file of a build context.
#[derive(Clone, Debug)]
pub enum Content {
    /// these words
    Text(String),
    /// a copy of this file
    File(PathBuf),
}

impl Content {
    /// A file with this text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }
}

/// Root file systems to build upon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Base {
    /// `/cuda-entrypoint` and nothing else
    Scratch,
    /// static busybox: programs, but no C library
    Busybox,
    /// busybox and musl's loader, as in Alpine
    Musl,
    /// the same under glibc's name, as Alpine's gcompat and libc6-compat link it
    MuslAsGlibc,
    /// Debian 11: glibc 2.31, Python 3.9
    Debian11,
    /// Debian 12: glibc 2.36, Python 3.11
    Debian12,
}

impl Base {
    /// Its image, imported when it is first asked for. The janitor removes it.
    pub fn image(self) -> &'static Image {
        static IMAGES: [OnceLock<Image>; 6] = [const { OnceLock::new() }; 6];
        IMAGES[self as usize].get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            Image::import(&self.archive(folder.path()), &[])
        })
    }

    /// The root file system as a tar archive, in `folder` unless it is kept for the next run.
    fn archive(self, folder: &Path) -> PathBuf {
        match self {
            Self::Debian12 => debian_12(),
            Self::Debian11 => debian("bullseye", "python3-minimal"),
            Self::Scratch | Self::Busybox | Self::Musl | Self::MuslAsGlibc => self.small_archive(folder),
        }
    }

    /// Made anew each time, since the binary is in it. Busybox and musl are Debian's, out of its archive.
    fn small_archive(self, folder: &Path) -> PathBuf {
        let tree = folder.join("root");
        fs::create_dir(&tree).unwrap();
        fs::copy(binary(), tree.join("cuda-entrypoint")).unwrap();
        let take = |member: &str, to: &str| {
            let to = tree.join(to);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            let mut tar = Command::new("tar");
            tar.args(["--extract", "--to-stdout", "--file"]);
            let output = tar.arg(debian_12()).arg(member).output().unwrap();
            assert!(
                output.status.success() && !output.stdout.is_empty(),
                "{member}: {output:?}"
            );
            fs::write(&to, output.stdout).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).unwrap();
        };
        if self != Self::Scratch {
            take("./usr/bin/busybox", "bin/busybox");
            for applet in ["cat", "echo", "ls", "sh", "sleep", "true"] {
                symlink("busybox", tree.join("bin").join(applet)).unwrap();
            }
        }
        if matches!(self, Self::Musl | Self::MuslAsGlibc) {
            take("./usr/lib/x86_64-linux-musl/libc.so", "lib/ld-musl-x86_64.so.1");
        }
        if self == Self::MuslAsGlibc {
            fs::create_dir(tree.join("lib64")).unwrap();
            symlink(
                "/lib/ld-musl-x86_64.so.1",
                tree.join("lib64/ld-linux-x86-64.so.2"),
            )
            .unwrap();
        }
        let archive = tree.with_extension("tar");
        let mut tar = Command::new("tar");
        tar.args(["--create", "--owner=0", "--group=0", "--file"])
            .arg(&archive);
        output_of(tar.arg("--directory").arg(&tree).arg("."));
        archive
    }
}

fn debian_12() -> PathBuf {
    debian("bookworm", "busybox-static,musl,python3,python3-venv")
}

/// A root file system of Debian as a tar archive, kept for the next run.
fn debian(suite: &str, packages: &str) -> PathBuf {
    Need::Docker.demand();
    let folder = folders::target().join("images");
    // Another list of packages is another file.
    let archive = folder.join(format!("{suite}+{}.tar", packages.replace(',', "+")));
    fs::create_dir_all(&folder).unwrap();
    let lock = File::create(archive.with_extension("lock")).unwrap();
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    if !archive.exists() {
        Need::Debootstrap.demand();
        let mut command = Command::new(root().join("tests/support/debootstrap.sh"));
        output_of(command.args([suite, packages]).arg(&archive));
    }
    archive
}

/// [`Base::Debian12`] for builds that fetch from PyPI. Where a proxy ends TLS, its certificate is in this machine's
/// bundle and in no image.
pub fn pip_image() -> Image {
    let bundle = Path::new(CA_FOLDER).join(CA_BUNDLE);
    let mut dockerfile = format!("FROM {}\n", Base::Debian12.image().name());
    let mut context = Vec::new();
    if bundle.exists() {
        dockerfile +=
            &format!("COPY {CA_BUNDLE} /usr/local/share/\nENV PIP_CERT=/usr/local/share/{CA_BUNDLE}\n");
        context.push((CA_BUNDLE, Content::File(bundle)));
    }
    Image::build(&dockerfile, &context).unwrap()
}

const CA_FOLDER: &str = "/etc/ssl/certs";
const CA_BUNDLE: &str = "ca-certificates.crt";

/// Debian 12 with this machine's Rust: what the image `rust` of a registry is to others.
pub fn rust_image() -> Image {
    let compiler = debian(
        "bookworm",
        "binutils,ca-certificates,gcc,libc6-dev,make,python3,python3-venv",
    );
    let folder = tempfile::tempdir_in(compiler.parent().unwrap()).unwrap();
    let whole = folder.path().join("rust.tar");
    fs::copy(compiler, &whole).unwrap();
    let sysroot = output_of(Command::new("rustc").args(["--print", "sysroot"]));
    let mut tar = Command::new("tar");
    tar.args(["--append", "--owner=0", "--group=0", "--dereference", "--file"]);
    tar.arg(&whole).args(["--transform", "s,^,usr/local/rust/,"]);
    let mut changes =
        vec!["ENV PATH=/usr/local/rust/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin".to_string()];
    // As in `pip_image`.
    if Path::new(CA_FOLDER).join(CA_BUNDLE).exists() {
        tar.args(["--directory", CA_FOLDER, CA_BUNDLE]);
        changes.push(format!(
            "ENV PIP_CERT=/usr/local/rust/{CA_BUNDLE} CARGO_HTTP_CAINFO=/usr/local/rust/{CA_BUNDLE}"
        ));
    }
    // Compiler and standard library of one target: a third of a toolchain with its documentation.
    tar.args(["--directory", &sysroot, "bin/cargo", "bin/rustc"]);
    tar.arg(format!("lib/rustlib/{TARGET}"));
    let libraries = fs::read_dir(Path::new(&sysroot).join("lib")).unwrap();
    let names = libraries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    tar.args(
        names
            .filter(|name| name.contains(".so"))
            .map(|name| format!("lib/{name}")),
    );
    output_of(&mut tar);
    Image::import(&whole, &changes)
}

/// The folder with `libcuda.so` and `libnvidia_ml.so` of tests/fakes, built for the glibc of [`Base::Debian11`] and
/// before.
pub fn fake_driver() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let tools = output_of(Command::new(root().join("tests/build/tools.sh")).arg("build"));
        let tools = Path::new(&tools);
        let path = env::join_paths(
            [tools.join("bin")]
                .into_iter()
                .chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())),
        );
        let zig = folders::target().join("zig");
        let target_dir = folders::target().join("fakes-portable");
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(root())
            .args(["zigbuild", "--quiet", "--locked"]);
        cargo.args(["--manifest-path", "tests/fakes/Cargo.toml", "--target"]);
        cargo
            .arg(format!("{TARGET}.2.17"))
            .arg("--target-dir")
            .arg(&target_dir);
        cargo
            .env("PATH", path.unwrap())
            .env("CARGO_ZIGBUILD_ZIG_PATH", tools.join("ziglang/zig"))
            .env("CARGO_ZIGBUILD_CACHE_DIR", zig.join("cargo-zigbuild"))
            .env("ZIG_GLOBAL_CACHE_DIR", zig.join("global"))
            .env("ZIG_LOCAL_CACHE_DIR", zig.join("local"))
            .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=-crt-static");
        for inherited in [
            "RUSTFLAGS",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "LD_LIBRARY_PATH",
        ] {
            cargo.env_remove(inherited);
        }
        output_of(&mut cargo);
        target_dir.join(TARGET).join("debug")
    })
}

/// Where Debian's loader looks without being told, and where the NVIDIA runtime mounts the host's driver.
pub const LIBRARY_FOLDER: &str = "/usr/lib/x86_64-linux-gnu";

/// A `docker run` to be.
#[derive(Debug)]
pub struct Run {
    image: String,
    options: Vec<OsString>,
    command: Vec<String>,
    /// files that are mounted
    folder: TempDir,
}

impl Run {
    /// Of this image, with no command but its own.
    pub fn of(image: &Image) -> Self {
        Self {
            image: image.name().to_string(),
            options: Vec::new(),
            command: Vec::new(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Options of `docker run`.
    pub fn options<'a>(mut self, options: impl IntoIterator<Item = &'a str>) -> Self {
        self.options.extend(options.into_iter().map(OsString::from));
        self
    }

    /// `--env NAME=VALUE`
    pub fn env(self, name: &str, value: &str) -> Self {
        self.options(["--env", &format!("{name}={value}")])
    }

    /// The command that takes the place of the image's CMD, words parted by blanks.
    pub fn command(self, words: &str) -> Self {
        self.words(words.split_whitespace())
    }

    /// The same, words as they are.
    pub fn words<'a>(mut self, words: impl IntoIterator<Item = &'a str>) -> Self {
        self.command = words.into_iter().map(str::to_string).collect();
        self
    }

    /// Mounts a file for reading.
    pub fn mount(mut self, file: &Path, at: &str) -> Self {
        let mut volume = file.as_os_str().to_os_string();
        volume.push(format!(":{at}:ro"));
        self.options.extend(["--volume".into(), volume]);
        self
    }

    /// Mounts a file with this text.
    pub fn mount_text(self, text: &str, at: &str) -> Self {
        let file = self
            .folder
            .path()
            .join(at.trim_start_matches('/').replace('/', "-"));
        fs::write(&file, text).unwrap();
        self.mount(&file, at)
    }

    /// Injects the fake driver, following `script`.
    pub fn driver(self, script: &str) -> Self {
        let libraries = fake_driver();
        self.mount(
            &libraries.join("libcuda.so"),
            &format!("{LIBRARY_FOLDER}/libcuda.so.1"),
        )
        .mount(
            &libraries.join("libnvidia_ml.so"),
            &format!("{LIBRARY_FOLDER}/libnvidia-ml.so.1"),
        )
        .mount_text(script, "/gpu.json")
        .env("FAKE_GPU_SCRIPT", "/gpu.json")
    }

    fn create(&self, verb: &[&str]) -> (Container, Command) {
        let container = Container { name: fresh_name() };
        let mut command = docker(verb);
        command.args(["--name", &container.name, "--label", &label()]);
        command.args(&self.options).arg(&self.image).args(&self.command);
        (container, command)
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn finish(self) -> Finished {
        let (container, mut command) = self.create(&["run"]);
        let output = command.output().unwrap();
        container.finished(&output)
    }

    /// Starts it in the background.
    #[track_caller]
    pub fn start(self) -> Running {
        let (container, mut command) = self.create(&["run", "--detach"]);
        output_of(&mut command);
        Running {
            container,
            _folder: self.folder,
        }
    }
}

/// A container that goes with this value.
#[derive(Debug)]
struct Container {
    name: String,
}

impl Container {
    #[track_caller]
    fn finished(&self, output: &Output) -> Finished {
        let inspect = docker(["inspect", "--format", "{{.State.ExitCode}}", &self.name])
            .output()
            .unwrap();
        let code = String::from_utf8_lossy(&inspect.stdout).trim().parse().ok();
        Finished {
            code: code.unwrap_or_else(|| panic!("{} has no exit code: {output:?}", self.name)),
            client: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        quietly(&mut docker(["rm", "--force", "--volumes", &self.name]));
    }
}

/// A container that ended.
#[derive(Debug)]
pub struct Finished {
    /// as `docker inspect` reports it
    pub code: i32,
    /// exit status of `docker run`, or of `docker logs`
    pub client: Option<i32>,
    /// of the container
    pub stdout: String,
    /// of the container
    pub stderr: String,
}

impl Finished {
    /// It ended with this code, of which `docker run` told as well.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        assert_eq!(self.client, Some(code), "{self:#?}");
        self
    }

    /// All that it said: on a terminal the two are one.
    pub fn all(&self) -> String {
        [self.stdout.as_str(), &self.stderr].concat()
    }

    /// It ended with this code, long after `docker run` went to the background.
    #[track_caller]
    pub fn code_is(&self, code: i32) {
        assert_eq!(self.code, code, "{self:#?}");
    }

    /// stderr holds each of these.
    #[track_caller]
    pub fn says(self, all: &[&str]) -> Self {
        for each in all {
            assert!(self.stderr.contains(each), "no {each:?} in {self:#?}");
        }
        self
    }
}

/// A container in the background.
#[derive(Debug)]
pub struct Running {
    container: Container,
    _folder: TempDir,
}

impl Running {
    /// Waits until a process of the container has a command line that begins with `command`.
    #[track_caller]
    pub fn wait_for(&self, command: &str) {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let top = docker(["top", &self.container.name, "-eo", "pid,args"])
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&top.stdout);
            let mut lines = text.lines().filter_map(|line| line.trim_start().split_once(' '));
            if lines.any(|(_, arguments)| arguments.trim_start().starts_with(command)) {
                return;
            }
            let logs = || docker(["logs", &self.container.name]).output();
            assert!(Instant::now() < until, "no {command}: {top:?}, {:?}", logs());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// `docker exec`: its exit status, stdout and stderr.
    pub fn exec(&self, words: &str) -> (Option<i32>, String) {
        let mut command = docker(["exec", &self.container.name]);
        let output = command.args(words.split_whitespace()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Its first process, as this machine numbers it; 0 where that has ended.
    pub fn pid(&self) -> u32 {
        let format = ["inspect", "--format", "{{.State.Pid}}", &self.container.name];
        output_of(&mut docker(format)).parse().unwrap()
    }

    /// `docker kill` with a signal's number; false where nothing runs any more.
    pub fn send(&self, signal: i32) -> bool {
        let mut command = docker(["kill", "--signal", &signal.to_string(), &self.container.name]);
        command.output().unwrap().status.success()
    }

    /// What it has said by now.
    pub fn said(&self) -> Finished {
        let logs = docker(["logs", &self.container.name]).output().unwrap();
        self.container.finished(&logs)
    }

    /// `docker stop` as everybody calls it, with its 10 seconds; and how long that took.
    #[track_caller]
    pub fn stop_patiently(self) -> (Finished, Duration) {
        let since = Instant::now();
        output_of(&mut docker(["stop", &self.container.name]));
        let took = since.elapsed();
        (self.ended(), took)
    }

    /// `docker stop` with 3 of its usual 10 seconds: past them Docker kills, and the exit code is 137.
    #[track_caller]
    pub fn stop(self) -> Finished {
        output_of(&mut docker(["stop", "--time", "3", &self.container.name]));
        self.ended()
    }

    /// `docker kill`, and the wait for the end.
    #[track_caller]
    pub fn kill(self, signal: &str) -> Finished {
        output_of(&mut docker(["kill", "--signal", signal, &self.container.name]));
        output_of(&mut docker(["wait", &self.container.name]));
        self.ended()
    }

    #[track_caller]
    fn ended(self) -> Finished {
        let logs = docker(["logs", &self.container.name]).output().unwrap();
        self.container.finished(&logs)
    }
}
