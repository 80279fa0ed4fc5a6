//! Pods without a cluster: `podman kube play` of the shipped manifests, in a store of its own.
//!
//! podman 4.3 plays Pods and Deployments with their init containers, volumes, users, capabilities and read-only root file
//! systems. It ignores termination messages, probes, seccompProfile, runAsNonRoot, resource limits that it does not
//! know, and affinities, so a file is mounted where the kubelet would mount one.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};
use std::{process, thread};

use serde_json::{Value, json};

use crate::support::docker::{self, Image, LIBRARY_FOLDER};
use crate::support::folders::{self, root};
use crate::support::needs::Need;

/// What is said where podman does not work, which is a matter of the machine.
const ADVICE: &str = "the tests of pods need podman (apt-get install -y podman catatonit) on a machine where containers \
                      may be started inside of what it runs in; CUDA_ENTRYPOINT_SKIP_PODMAN=1 leaves them out";

/// For what takes moments.
const PATIENCE: Duration = Duration::from_secs(60);

/// Held while pods are made: a name of an image is another image's for the moment in which a manifest is played as it is.
static NAMES: RwLock<()> = RwLock::new(());

/// Waits for the end of this process, then removes the store and what runs from it.
const JANITOR: &str = r#"
read -r _
store=$1
shift
"$@" pod rm --all --force --time 0
"$@" rm --all --force --time 0
for each in "$store"/*/* "/tmp/${store##*/}"/*; do umount "$each"; done
rm -rf --one-file-system "$store" "/tmp/${store##*/}"
"#;

/// A store for this process, removed after its end.
struct Store {
    folder: PathBuf,
    driver: &'static str,
    /// Its input is open as long as this process lives.
    _janitor: Child,
}

impl Store {
    fn command(&self) -> Command {
        podman(&self.folder, self.driver)
    }
}

/// The longest of these commands takes in an image, seconds of work for an idle machine; one that hangs must fail.
fn podman(folder: &Path, driver: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "300", "podman", "--cgroup-manager", "cgroupfs"]);
    command.arg("--root").arg(folder.join("root"));
    command.arg("--runroot").arg(runroot(folder));
    command.args(["--storage-driver", driver]);
    if !has_sys_resource() {
        command
            .arg("--runtime")
            .arg(root().join("tests/support/runtime.py"));
    }
    command.stdin(Stdio::null());
    command
}

/// podman takes none that is longer than 50 characters.
fn runroot(folder: &Path) -> PathBuf {
    Path::new("/tmp").join(folder.file_name().unwrap())
}

/// CAP_SYS_RESOURCE: number 24 of capabilities(7).
fn has_sys_resource() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap();
    u64::from_str_radix(effective.trim(), 16).unwrap() & (1 << 24) != 0
}

/// The first call makes the store, and finds out whether podman can start a container here.
fn store() -> &'static Store {
    static STORE: OnceLock<Result<Store, String>> = OnceLock::new();
    Need::Podman.demand();
    let made = STORE.get_or_init(|| {
        let mut refusals = String::new();
        // Native overlay does not work on top of another overlay, as in a container's own file system.
        for driver in ["overlay", "vfs"] {
            // One that did not work is cleared away while the other is tried.
            let folder = folders::target().join(format!("podman-{}-{driver}", process::id()));
            fs::create_dir_all(&folder).unwrap();
            let store = Store {
                _janitor: janitor(&folder, driver),
                folder,
                driver,
            };
            let image = docker::Base::Scratch.image();
            let trial = load(&store, image, "trial").and_then(|()| {
                let mut command = store.command();
                command.args(["run", "--rm", "--network", "none", "localhost/trial"]);
                outcome(command.args(["/cuda-entrypoint", "--version"])).map(|_| ())
            });
            match trial {
                Ok(()) => return Ok(store),
                Err(error) => refusals += &format!("\nwith the storage driver {driver}: {error}"),
            }
        }
        tell!("podman starts no container here; {ADVICE}{refusals}");
        let last = refusals.trim().lines().last().unwrap_or_default().trim();
        Err(format!("it starts no container here: {last}"))
    });
    match made {
        Ok(store) => store,
        Err(reason) => Need::Podman.lacking(reason.as_str()),
    }
}

fn janitor(folder: &Path, driver: &str) -> Child {
    let podman = podman(folder, driver);
    let mut command = Command::new("sh");
    command.args(["-c", JANITOR, "sh"]).arg(folder);
    command.arg(podman.get_program()).args(podman.get_args());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // Ctrl-C is for the tests; what they leave behind is to be removed even so.
    command.process_group(0).spawn().unwrap()
}

/// stdout, or everything that was said.
fn outcome(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}; {ADVICE}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {command:?}\n{stdout}{stderr}", output.status))
}

/// An image of Docker's under the name `localhost/NAME`.
fn load(store: &Store, image: &Image, name: &str) -> Result<(), String> {
    let mut save = docker::docker(["save", image.name()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut load = store.command();
    load.args(["load", "--quiet"]).stdin(save.stdout.take().unwrap());
    let loaded = outcome(&mut load);
    // It holds the other end of the pipe: docker would wait for a reader that has gone.
    drop(load);
    let saved = save.wait().unwrap();
    // podman may stop reading where the archive ends, before the last of what docker writes.
    loaded.map_err(|error| format!("docker save {}: {saved}; {error}", image.name()))?;
    let loaded_as = format!("localhost/{}:latest", image.name());
    let mut tag = store.command();
    tag.args(["tag", &loaded_as, &format!("localhost/{name}")]);
    outcome(&mut tag).map(|_| ())
}

/// Makes an image of Docker's known to the pods, under the name that a manifest has for it.
#[track_caller]
pub fn provide(image: &Image, name: &str) {
    load(store(), image, name).unwrap_or_else(|error| panic!("{error}"));
}

/// Plays a file of docker/kubernetes as it is, byte for byte, where `name` is that image of Docker's. The pod's name is the
/// file's own.
#[track_caller]
pub fn play_as_shipped(file: &str, pod: &str, image: &Image, name: &str) -> Pod {
    let store = store();
    let tag = |from: &str| {
        let tagged = outcome(store.command().args(["tag", from, &format!("localhost/{name}")]));
        tagged.unwrap_or_else(|error| panic!("{error}"));
    };
    provide(image, &format!("shipped-{name}"));
    let _alone = NAMES.write().unwrap_or_else(PoisonError::into_inner);
    let kept = format!("localhost/kept-{name}");
    outcome(store.command().args(["tag", &format!("localhost/{name}"), &kept]))
        .unwrap_or_else(|error| panic!("{error}"));
    tag(&format!("localhost/shipped-{name}"));
    let mut command = store.command();
    command.args(["kube", "play", "--network", "none"]);
    command.arg(root().join("docker/kubernetes").join(file));
    let output = command.output().unwrap();
    tag(&kept);
    Pod {
        name: pod.to_string(),
        folder: tempfile::tempdir().unwrap(),
        output,
    }
}

/// The documents of a file of docker/kubernetes.
#[track_caller]
pub fn manifest(name: &str) -> Vec<Value> {
    let mut command = Command::new(root().join("tests/kubernetes/manifests.py"));
    let json = outcome(
        command
            .arg("json")
            .arg(root().join("docker/kubernetes").join(name)),
    );
    serde_json::from_str(&json.unwrap_or_else(|error| panic!("{error}"))).unwrap()
}

/// The pod of a Pod, or of what makes pods by a template.
pub fn pod_of(document: &mut Value) -> &mut Value {
    if document["kind"] == "Pod" {
        &mut document["spec"]
    } else {
        &mut document["spec"]["template"]["spec"]
    }
}

/// Documents to be played, with what a cluster would add to them.
pub struct Play {
    name: String,
    folder: tempfile::TempDir,
    documents: Vec<Value>,
}

impl Play {
    /// Of a file's documents. The pod gets a name that no other test has; podman names a Deployment's pod after it.
    pub fn of(mut documents: Vec<Value>) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("pod{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::tempdir().unwrap();
        let last = documents.last_mut().unwrap();
        last["metadata"]["name"] = json!(name);
        let mut play = Self {
            name,
            folder,
            documents,
        };
        // podman would apply it to init containers as well, over and over; the kubelet does not.
        play.pod()["restartPolicy"] = json!("Never");
        play.separate_volumes();
        play.mount_termination_logs();
        play
    }

    /// podman makes an emptyDir a volume of that name, of which each store has one, whichever pod asks.
    fn separate_volumes(&mut self) {
        let pod = self.name.clone();
        let mut own = Vec::new();
        for volume in self.pod()["volumes"].as_array_mut().into_iter().flatten() {
            if !volume["emptyDir"].is_null() {
                let name = volume["name"].as_str().unwrap().to_string();
                volume["name"] = json!(format!("{pod}-{name}"));
                own.push(name);
            }
        }
        for (_, container) in self.containers() {
            for mount in container["volumeMounts"].as_array_mut().into_iter().flatten() {
                let name = mount["name"].as_str().unwrap();
                if own.iter().any(|one| one == name) {
                    mount["name"] = json!(format!("{pod}-{name}"));
                }
            }
        }
    }

    fn pod(&mut self) -> &mut Value {
        pod_of(self.documents.last_mut().unwrap())
    }

    /// Each container's, as the kubelet makes them: empty, and writable for whoever it runs as.
    fn mount_termination_logs(&mut self) {
        let folder = self.folder.path().to_path_buf();
        for (name, container) in self.containers() {
            let file = folder.join(format!("{name}.termination"));
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
            add_mount(
                container,
                &format!("{name}-termination"),
                "/dev/termination-log",
                false,
            );
        }
        let names: Vec<String> = self.containers().into_iter().map(|(name, _)| name).collect();
        for name in names {
            let file = folder.join(format!("{name}.termination"));
            self.add_file(&format!("{name}-termination"), &file);
        }
    }

    fn containers(&mut self) -> Vec<(String, &mut Value)> {
        let pod = self.pod().as_object_mut().unwrap();
        let lists = pod
            .iter_mut()
            .filter(|(key, _)| matches!(key.as_str(), "initContainers" | "containers"));
        let containers = lists.flat_map(|(_, list)| list.as_array_mut().unwrap());
        containers
            .map(|container| (container["name"].as_str().unwrap().to_string(), container))
            .collect()
    }

    fn add_file(&mut self, name: &str, file: &Path) {
        let volume = json!({"name": name, "hostPath": {"path": file, "type": "File"}});
        let volumes = &mut self.pod()["volumes"];
        if volumes.is_null() {
            *volumes = json!([]);
        }
        volumes.as_array_mut().unwrap().push(volume);
    }

    /// Gives a GPU to every container that asks for one, as device plugin and NVIDIA runtime do together.
    pub fn gpu(mut self, script: &str) -> Self {
        let script_file = self.folder.path().join("gpu.json");
        fs::write(&script_file, script).unwrap();
        fs::set_permissions(self.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let files = [
            (
                "libcuda",
                docker::fake_driver().join("libcuda.so"),
                format!("{LIBRARY_FOLDER}/libcuda.so.1"),
            ),
            (
                "libnvidia-ml",
                docker::fake_driver().join("libnvidia_ml.so"),
                format!("{LIBRARY_FOLDER}/libnvidia-ml.so.1"),
            ),
            ("gpu-script", script_file, "/gpu.json".to_string()),
        ];
        for (_, container) in self.containers() {
            let asks = !container["resources"]["limits"]["nvidia.com/gpu"].is_null();
            let shown = container["env"].as_array().into_iter().flatten();
            let shown = shown
                .into_iter()
                .any(|one| one["name"] == "NVIDIA_VISIBLE_DEVICES");
            if !asks && !shown {
                continue;
            }
            for (name, _, at) in &files {
                add_mount(container, name, at, true);
            }
            add_variable(container, "FAKE_GPU_SCRIPT", "/gpu.json");
        }
        for (name, file, _) in &files {
            self.add_file(name, file);
        }
        self
    }

    /// Sets a variable in every container.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        for (_, container) in self.containers() {
            add_variable(container, name, value);
        }
        self
    }

    /// `podman kube play`, and whether the pod came up.
    #[track_caller]
    pub fn start(self) -> Pod {
        let store = store();
        let file = self.folder.path().join("manifest.yaml");
        // A list of documents, each of them JSON, is YAML.
        let mut out = fs::File::create(&file).unwrap();
        for document in &self.documents {
            writeln!(out, "---\n{document:#}").unwrap();
        }
        let mut command = store.command();
        command.args(["kube", "play", "--network", "none"]).arg(&file);
        let names = NAMES.read().unwrap_or_else(PoisonError::into_inner);
        let output = command.output().unwrap();
        drop(names);
        Pod {
            name: self.name,
            folder: self.folder,
            output,
        }
    }
}

fn add_mount(container: &mut Value, name: &str, at: &str, read_only: bool) {
    let mounts = &mut container["volumeMounts"];
    if mounts.is_null() {
        *mounts = json!([]);
    }
    let mount = json!({"name": name, "mountPath": at, "readOnly": read_only});
    mounts.as_array_mut().unwrap().push(mount);
}

fn add_variable(container: &mut Value, name: &str, value: &str) {
    let env = &mut container["env"];
    if env.is_null() {
        *env = json!([]);
    }
    env.as_array_mut()
        .unwrap()
        .push(json!({"name": name, "value": value}));
}

/// A pod that was played; it goes with this value.
pub struct Pod {
    name: String,
    folder: tempfile::TempDir,
    output: Output,
}

impl Pod {
    /// It came up.
    #[track_caller]
    pub fn is_up(&self) {
        assert!(self.output.status.success(), "{}", self.story());
    }

    /// Its init container's failure kept it from coming up.
    #[track_caller]
    pub fn is_not_up(&self) {
        assert!(!self.output.status.success(), "{}", self.story());
    }

    /// podman's name of a container, which for a Deployment depends on the release: `NAME-pod-0-check` in 4.3.
    fn container(&self, name: &str) -> String {
        let names = outcome(store().command().args(["ps", "--all", "--format", "{{.Names}}"]));
        let names = names.unwrap_or_else(|error| panic!("{error}"));
        let (start, end) = (format!("{}-", self.name), format!("-{name}"));
        let mut names = names
            .lines()
            .filter(|one| one.starts_with(&start) && one.ends_with(&end));
        names.next().unwrap_or("(no such container)").to_string()
    }

    /// What podman said, and what the containers did.
    fn story(&self) -> String {
        let said = [self.output.stdout.as_slice(), &self.output.stderr].concat();
        let pods = outcome(store().command().args(["ps", "--all"])).unwrap_or_default();
        let mut story = format!("{}\n{pods}", String::from_utf8_lossy(&said));
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension() == Some(OsStr::new("termination")) {
                let name = path.file_stem().unwrap().to_string_lossy().into_owned();
                story += &format!("== {name}: {:?}\n{}\n", self.message(&name), self.logs(&name));
            }
        }
        story
    }

    /// The termination message of a container.
    pub fn message(&self, container: &str) -> String {
        fs::read_to_string(self.folder.path().join(format!("{container}.termination"))).unwrap()
    }

    /// stdout and stderr of a container.
    pub fn logs(&self, container: &str) -> String {
        let output = store()
            .command()
            .args(["logs", &self.container(container)])
            .output()
            .unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// What `podman inspect` says of the state of a container, such as `Status`, `ExitCode`, `StartedAt`.
    #[track_caller]
    pub fn state(&self, container: &str, what: &str) -> String {
        let format = format!("{{{{.State.{what}}}}}");
        let inspected =
            outcome(
                store()
                    .command()
                    .args(["inspect", "--format", &format, &self.container(container)]),
            );
        inspected
            .unwrap_or_else(|error| panic!("{error}\n{}", self.story()))
            .trim_end()
            .to_string()
    }

    /// Waits until a container has ended; its exit code.
    #[track_caller]
    pub fn wait(&self, container: &str) -> String {
        let waited = outcome(store().command().args(["wait", &self.container(container)]));
        waited
            .unwrap_or_else(|error| panic!("{error}\n{}", self.story()))
            .trim_end()
            .to_string()
    }

    /// Runs a command in a container, again until it succeeds: the service needs its time to come up. What it printed.
    #[track_caller]
    pub fn exec_when_up(&self, container: &str, words: &[&str]) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            match outcome(
                store()
                    .command()
                    .arg("exec")
                    .arg(self.container(container))
                    .args(words),
            ) {
                Ok(printed) => return printed,
                Err(error) if Instant::now() > until => panic!("{error}\n{}", self.story()),
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Runs a command in a container: its exit status, stdout and stderr.
    pub fn exec(&self, container: &str, words: &[&str]) -> (Option<i32>, String) {
        let mut command = store().command();
        let output = command
            .arg("exec")
            .arg(self.container(container))
            .args(words)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Kills a container and starts it again, as the kubelet does with one that crashed.
    #[track_caller]
    pub fn crash(&self, container: &str) {
        let name = self.container(container);
        outcome(store().command().args(["kill", "--signal", "KILL", &name]))
            .unwrap_or_else(|error| panic!("{error}"));
        self.wait(container);
        // Behind the last of its containers podman stops what holds the pod together, and starts nothing meanwhile.
        let until = Instant::now() + PATIENCE;
        while let Err(error) = outcome(store().command().args(["start", &name])) {
            assert!(Instant::now() < until, "{error}\n{}", self.story());
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// `podman stop`, which like the kubelet sends SIGTERM first: its exit code.
    #[track_caller]
    pub fn stop(&self, container: &str) -> String {
        let stopped = outcome(
            store()
                .command()
                .args(["stop", "--time", "10", &self.container(container)]),
        );
        stopped.unwrap_or_else(|error| panic!("{error}\n{}", self.story()));
        self.state(container, "ExitCode")
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // Not `kube down`, which gives each service ten seconds to end.
        let pods =
            outcome(store().command().args(["pod", "ps", "--format", "{{.Name}}"])).unwrap_or_default();
        let own = |name: &&str| *name == self.name || name.starts_with(&format!("{}-", self.name));
        for pod in pods.lines().filter(own) {
            let _ = outcome(
                store()
                    .command()
                    .args(["pod", "rm", "--force", "--time", "0", pod]),
            );
        }
    }
}
