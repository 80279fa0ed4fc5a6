//! Runs of the binary on a machine that the fake driver acts out.
//!
//! A [`Machine`] is a folder with a manifest and, where there is a driver, a script. [`Machine::prove`] is the usual
//! way: it asks `check` and `run` alike and holds their answers against each other.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{env, fs};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{fakes, surroundings};

/// Nothing to do for the image stage.
pub const MANIFEST: &str =
    r#"{"schema": 1, "name": "t", "cuda": {"driver": ">=12.4"}, "archs": "7.5;8.0;8.6;8.9;9.0"}"#;

/// Says that it runs; the process table shows it by this argument.
pub const SERVICE: [&str; 3] = ["sh", "-c", "echo started"];

/// A machine to run on.
pub struct Machine {
    dir: TempDir,
    driver: Option<PathBuf>,
    env: Vec<(String, String)>,
    sandbox: Option<fn()>,
    binary: PathBuf,
}

impl Machine {
    /// With the fake driver and this script; `{dir}` in it becomes the machine's folder.
    pub fn new(script: &str) -> Self {
        let machine = Self::without_driver();
        let script = script.replace("{dir}", machine.dir.path().to_str().unwrap());
        fs::write(machine.path("script.json"), script).unwrap();
        Self {
            driver: Some(fakes::fake_driver_dir().to_path_buf()),
            ..machine
        }
    }

    /// With a script of tests/fixtures/device.
    pub fn fixture(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/device");
        let file = folder.join(name).with_extension("json");
        Self::new(&fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())))
    }

    /// Whose `function` does `behaviour` and which is healthy otherwise.
    pub fn where_call(function: &str, behaviour: &str) -> Self {
        Self::new(&format!(r#"{{"calls": {{"{function}": {behaviour}}}}}"#))
    }

    /// Without any driver of the tests.
    pub fn without_driver() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("stack.json"), MANIFEST).unwrap();
        Self {
            dir,
            driver: None,
            env: Vec::new(),
            sandbox: None,
            binary: env!("CARGO_BIN_EXE_cuda-entrypoint").into(),
        }
    }

    /// A file of this machine's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the loader finds libcuda.so.1 and libnvidia-ml.so.1, in place of the fakes.
    pub fn driver(mut self, folder: impl Into<PathBuf>) -> Self {
        self.driver = Some(folder.into());
        self
    }

    /// A driver's folder in which this file stands for libcuda.so.1, beside the healthy NVML.
    pub fn libcuda(self, contents: &[u8]) -> Self {
        let folder = self.path("driver");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("libcuda.so.1"), contents).unwrap();
        let nvml = fakes::fake_driver_dir().join("libnvidia-ml.so.1");
        fs::copy(nvml, folder.join("libnvidia-ml.so.1")).unwrap();
        self.driver(folder)
    }

    /// The same for libnvidia-ml.so.1, beside the healthy libcuda.
    pub fn nvml(self, contents: &[u8]) -> Self {
        let folder = self.path("driver");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("libnvidia-ml.so.1"), contents).unwrap();
        let libcuda = fakes::fake_driver_dir().join("libcuda.so.1");
        fs::copy(libcuda, folder.join("libcuda.so.1")).unwrap();
        self.driver(folder)
    }

    /// A variable of the container.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Another manifest than [`MANIFEST`].
    pub fn manifest(self, text: &str) -> Self {
        fs::write(self.path("stack.json"), text).unwrap();
        self
    }

    /// What the process does to itself before it becomes the binary; see `sandbox`.
    pub fn sandbox(mut self, confine: fn()) -> Self {
        self.sandbox = Some(confine);
        self
    }

    /// In place of the binary that was built for the tests.
    pub fn binary(mut self, binary: impl Into<PathBuf>) -> Self {
        self.binary = binary.into();
        self
    }

    /// The binary with `command`, this machine's files and `options`, and nothing of our own environment.
    pub fn command(&self, command: &str, options: &[&str]) -> Command {
        let mut binary = Command::new(&self.binary);
        self.equip(&mut binary);
        binary.arg(command);
        binary.arg("--stack").arg(self.path("stack.json"));
        binary.arg("--termination-log").arg(self.path("termination-log"));
        binary.args(options);
        binary
    }

    /// Gives a command this machine's environment and confinement.
    #[allow(unsafe_code)] // between fork and exec: the sandboxes make system calls alone
    pub fn equip(&self, command: &mut Command) {
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            let ours = ["CUDA_", "NVIDIA_", "LD_", "FAKE_GPU_", "NO_COLOR", "TERM"];
            if ours.iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        surroundings::keep(command);
        if let Some(folder) = &self.driver {
            command.env("LD_LIBRARY_PATH", folder);
            if self.path("script.json").exists() {
                command.env("FAKE_GPU_SCRIPT", self.path("script.json"));
            }
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        // A receipt counts the code below it, and other tests build some below the repository.
        command.current_dir(self.path(""));
        if let Some(confine) = self.sandbox {
            // SAFETY: the sandboxes allocate nothing and take no lock.
            unsafe {
                command.pre_exec(move || {
                    confine();
                    Ok(())
                });
            }
        }
    }

    /// `check` with its JSON report.
    pub fn check(&self, options: &[&str]) -> Checked {
        let options = [&["--report", "-"], options].concat();
        let output = self.command("check", &options).output().unwrap();
        Checked::of(output, None)
    }

    /// `check` as a person reads it.
    pub fn table(&self, options: &[&str]) -> String {
        let output = self.command("check", options).output().unwrap();
        self.readable(&output.stdout)
    }

    /// `run` of [`SERVICE`], with the report in a file.
    pub fn run(&self, options: &[&str]) -> Checked {
        let file = self.path("report.json");
        let _ = fs::remove_file(&file);
        let mut command = self.command("run", &["--report"]);
        let output = command
            .arg(&file)
            .args(options)
            .arg("--")
            .args(SERVICE)
            .output()
            .unwrap();
        Checked::of(output, fs::read_to_string(&file).ok())
    }

    /// What `run` writes to standard error, as a person reads it.
    pub fn complaint(&self, options: &[&str]) -> String {
        self.readable(&self.run(options).output.stderr)
    }

    /// Text without what differs from run to run and from machine to machine.
    fn readable(&self, bytes: &[u8]) -> String {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let fakes = fs::canonicalize(fakes::fake_driver_dir()).unwrap();
        let mut lines: Vec<String> = Vec::new();
        for line in text.lines() {
            let line = without_information(line)
                .replace(self.dir.path().to_str().unwrap(), "[machine]")
                .replace(fakes.to_str().unwrap(), "[driver]")
                .replace(fakes::fake_driver_dir().to_str().unwrap(), "[driver]")
                // In a line that is full, a path has its end alone.
                .replace("…/fakes/lib", "[driver]")
                .replace("/usr/bin/sh", "/bin/sh");
            // The verdict ends in the time that it took.
            let time = |word: &str| word.trim_end_matches(';').parse::<f64>().is_ok();
            let words: Vec<&str> = line.split(' ').collect();
            let after = |at: usize| {
                words
                    .get(at + 1)
                    .is_some_and(|unit| matches!(unit.trim_end_matches(';'), "ms" | "s"))
            };
            let verdict = line.contains("stack t (");
            let shown = words.iter().enumerate().map(|(at, word)| {
                if verdict && time(word) && after(at) {
                    "[n]"
                } else {
                    *word
                }
            });
            lines.push(shown.collect::<Vec<_>>().join(" "));
        }
        lines.join("\n")
    }

    /// Proves one verdict: `check` and `run` exit with `exit`, agree on every finding, and the service starts if and only
    /// if that is 0. Returns what `check` found, for a look at single findings.
    #[track_caller]
    pub fn prove(&self, exit: i32, options: &[&str]) -> Checked {
        let staged = [&["--stage", "device"], options].concat();
        let checked = self.check(&staged);
        let ran = self.run(options);
        assert_eq!(checked.exit(), exit, "check: {checked}");
        assert_eq!(ran.exit(), exit, "run: {ran}");
        let started = String::from_utf8_lossy(&ran.output.stdout).into_owned();
        assert_eq!(started, if exit == 0 { "started\n" } else { "" }, "{ran}");
        assert_eq!(checked.findings(), ran.findings());
        assert_eq!(checked.report["exit_code"], exit);
        checked
    }
}

/// What a run of the binary came to.
pub struct Checked {
    /// as the process ended
    pub output: Output,
    /// the JSON report; null where there is none
    pub report: Value,
}

impl Checked {
    /// With the report of `run`, or without one that of `check`, which is on its standard output.
    pub fn of(output: Output, report: Option<String>) -> Self {
        let text = report.unwrap_or_else(|| String::from_utf8_lossy(&output.stdout).into_owned());
        Self {
            report: serde_json::from_str(&text).unwrap_or(Value::Null),
            output,
        }
    }

    /// The exit code; 128 + N for a signal.
    pub fn exit(&self) -> i32 {
        let status = self.output.status;
        status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }

    /// All findings but those on the limits of the machine that runs the tests.
    pub fn findings(&self) -> Vec<&Value> {
        let all = self.report["findings"].as_array();
        let all = all.unwrap_or_else(|| panic!("no report: {self}"));
        all.iter()
            .filter(|f| f["code"] != "shm-small" && f["code"] != "memlock-low")
            .collect()
    }

    /// The one finding with this code that is no pass; what was left out counts where nothing else does.
    #[track_caller]
    pub fn problem(&self, code: &str) -> &Value {
        let mut found: Vec<_> = self
            .findings()
            .into_iter()
            .filter(|f| f["code"] == code && f["status"] != "pass")
            .collect();
        if found.iter().any(|f| f["status"] != "skip") {
            found.retain(|f| f["status"] != "skip");
        }
        assert_eq!(found.len(), 1, "{code}: {self}");
        found[0]
    }

    /// Codes of the findings with this status.
    pub fn codes(&self, status: &str) -> Vec<&str> {
        let of_status = self.findings().into_iter().filter(|f| f["status"] == status);
        of_status.map(|f| f["code"].as_str().unwrap()).collect()
    }

    /// Holds the one problem of this code against a status and against parts of what it says, in the order of
    /// [`FIELDS`].
    #[track_caller]
    pub fn says(&self, code: &str, status: &str, parts: [&str; 4]) -> &Self {
        let finding = self.problem(code);
        assert_eq!(finding["status"], status, "{finding:#}");
        for (field, part) in FIELDS.iter().zip(parts) {
            let text = finding[field].as_str().unwrap();
            assert!(
                !text.is_empty() || part.is_empty(),
                "{field} is empty: {finding:#}"
            );
            assert!(text.contains(part), "{field} lacks {part:?}: {finding:#}");
        }
        self
    }
}

/// What [`Checked::says`] looks at.
pub const FIELDS: [&str; 4] = ["observed", "required", "message", "hint"];

impl std::fmt::Display for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let findings = &self.report["findings"];
        let (out, err) = (text(&self.output.stdout), text(&self.output.stderr));
        write!(
            f,
            "{}\n{findings:#}\nstdout: {out}\nstderr: {err}",
            self.output.status
        )
    }
}

/// A line of totals without what is for information: that counts the machine's own limits.
pub fn without_information(line: &str) -> String {
    let is_count = |part: &&str| {
        part.split_once(' ')
            .is_some_and(|(count, _)| count.parse::<u64>().is_ok())
    };
    let parts: Vec<&str> = line.split(", ").collect();
    match parts.iter().all(is_count) {
        true => {
            let kept = parts.iter().filter(|part| !part.ends_with(" for information"));
            kept.copied().collect::<Vec<_>>().join(", ")
        }
        false => line.to_string(),
    }
}
