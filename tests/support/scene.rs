//! Runs of the binary with a smoke: the machine is the fake driver's, the Python is real, its packages are acted out
//! (tests/fakes/python).
//!
//! A [`Scene`] is a folder with a manifest, a virtual environment and two scripts. [`Scene::prove`] is the usual way: it
//! asks `check` and `run` alike and holds their answers against each other.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::support::device::Checked;
use crate::support::run::{Run, World};

/// Says that it runs.
pub const SERVICE: [&str; 3] = ["sh", "-c", "echo started"];

/// A folder, a driver, an environment with packages, and a manifest with a smoke.
pub struct Scene {
    pub world: World,
    vars: Vec<(String, String)>,
    driver: Option<String>,
    torch: Option<String>,
}

impl Scene {
    /// All is well: one H200, and `torch` and `spconv` that work.
    pub fn new() -> Self {
        let scene = Self {
            world: World::new(),
            vars: Vec::new(),
            driver: Some("{}".into()),
            torch: None,
        };
        scene.install("env");
        scene.smoke(json!(["torch", "spconv"]))
    }

    /// The same with packages that act out this script; `{dir}` in it becomes this scene's folder.
    pub fn acting(script: &str) -> Self {
        Self::new().torch(script)
    }

    /// Another script for the packages.
    pub fn torch(mut self, script: &str) -> Self {
        self.torch = Some(self.placed(script));
        self
    }

    /// Another script for the driver.
    pub fn driver(mut self, script: &str) -> Self {
        self.driver = Some(self.placed(script));
        self
    }

    /// No driver at all.
    pub fn without_driver(mut self) -> Self {
        self.driver = None;
        self
    }

    /// A variable of the container.
    pub fn var(mut self, name: &str, value: &str) -> Self {
        self.vars.push((name.into(), self.placed(value)));
        self
    }

    /// The usual manifest with this list of entries.
    pub fn smoke(self, entries: Value) -> Self {
        let manifest = json!({
            "schema": 1, "name": "t", "cuda": {"driver": ">=12.4"}, "smoke": entries,
            "env": {"SPCONV_DISABLE_JIT": "1", "CUMM_DISABLE_JIT": "1"}
        });
        self.manifest(manifest)
    }

    /// Another manifest.
    pub fn manifest(self, manifest: Value) -> Self {
        self.world.write("stack.json", manifest.to_string());
        self
    }

    fn placed(&self, text: &str) -> String {
        text.replace(
            "{dir}",
            self.world.path("").to_str().unwrap().trim_end_matches('/'),
        )
    }

    /// A virtual environment in this folder with all of the packages; returns its `site-packages`.
    pub fn install(&self, name: &str) -> PathBuf {
        let python = base_python();
        let home = python.parent().unwrap().to_str().unwrap();
        let version = version();
        let site = self
            .world
            .path(format!("{name}/lib/python{version}/site-packages"));
        fs::create_dir_all(site.parent().unwrap()).unwrap();
        fs::create_dir(self.world.path(format!("{name}/bin"))).unwrap();
        self.world.write(
            &format!("{name}/pyvenv.cfg"),
            format!("home = {home}\ninclude-system-site-packages = false\nversion = {version}.0\n"),
        );
        for program in ["python", "python3"] {
            symlink(python, self.world.path(format!("{name}/bin/{program}"))).unwrap();
        }
        let fakes = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fakes/python");
        let status = Command::new("cp").arg("-r").arg(fakes).arg(&site).status();
        assert!(status.unwrap().success());
        site
    }

    /// The frameworks that are proven in processes of their own, with kernels that compute: `kernels` is Python that may
    /// put other ones into `chosen` (tests/fakes/numeric/device_kernels.py).
    pub fn frameworks(self, kernels: &str) -> Self {
        let fakes = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fakes/numeric");
        let site = self.site();
        for name in [
            "cupy",
            "device_kernels",
            "jax",
            "nested",
            "numpy",
            "onnxruntime",
            "rounding",
            "tensorflow",
        ] {
            let file = format!("{name}.py");
            fs::copy(fakes.join(&file), site.join(&file)).unwrap();
        }
        let file = site.join("device_kernels.py");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(file, format!("{text}\n{kernels}\n")).unwrap();
        self
    }

    /// Where the packages are.
    pub fn site(&self) -> PathBuf {
        self.world
            .path(format!("env/lib/python{}/site-packages", version()))
    }

    /// The interpreter of the environment.
    pub fn python(&self) -> String {
        self.world.path("env/bin/python").to_str().unwrap().to_string()
    }

    /// Gives a command this scene's machine and packages.
    pub fn equip<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .env("VIRTUAL_ENV", self.world.path("env"))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        if let Some(script) = &self.driver {
            self.world.with_gpu(command, script);
        }
        if let Some(script) = &self.torch {
            command.env("FAKE_TORCH_SCRIPT", script);
        }
        command.envs(self.vars.iter().map(|(name, value)| (name, value)))
    }

    /// The binary with this scene's files and `options`.
    pub fn command(&self, verb: &str, options: &[&str]) -> Command {
        let mut command = self.world.entrypoint([verb, "--stack", "stack.json"]);
        command
            .arg("--termination-log")
            .arg(self.world.path("termination"))
            .args(options);
        self.equip(&mut command);
        command
    }

    /// `check` with its JSON report.
    pub fn check(&self, options: &[&str]) -> Checked {
        let mut command = self.command("check", &[&["--report", "-"], options].concat());
        Checked::of(command.output().unwrap(), None)
    }

    /// `check` as a person reads it.
    pub fn table(&self, options: &[&str]) -> String {
        let run = Run::of(&mut self.command("check", options));
        self.readable(run.text())
    }

    /// `run` of [`SERVICE`], with its report.
    pub fn run(&self, options: &[&str]) -> Checked {
        self.run_service(options, &SERVICE)
    }

    /// `run` of another service.
    pub fn run_service(&self, options: &[&str], service: &[&str]) -> Checked {
        let file = self.world.path("report.json");
        let _ = fs::remove_file(&file);
        let mut command = self.command("run", &["--report", "report.json"]);
        command.args(options).arg("--").args(service);
        command.stdin(std::process::Stdio::null());
        let output = command.output().unwrap();
        Checked::of(output, fs::read_to_string(&file).ok())
    }

    /// Proves one verdict: `check` and `run` exit with `exit`, agree on every finding, the service starts if and only if
    /// that is 0, and nothing is left running. Returns what `check` found.
    #[track_caller]
    pub fn prove(&self, exit: i32, options: &[&str]) -> Checked {
        self.prove_both(exit, options).0
    }

    /// The same, and what `run` found.
    #[track_caller]
    pub fn prove_both(&self, exit: i32, options: &[&str]) -> (Checked, Checked) {
        // What is said of Python depends on the service.
        let checked = self.check(&[options, &["--"], &SERVICE].concat());
        assert_eq!(checked.exit(), exit, "check: {checked}");
        self.world.assert_nothing_left();
        let ran = self.run(options);
        assert_eq!(ran.exit(), exit, "run: {ran}");
        self.world.assert_nothing_left();
        let started = String::from_utf8_lossy(&ran.output.stdout).into_owned();
        assert_eq!(started, if exit == 0 { "started\n" } else { "" }, "{ran}");
        let timeless = |found: &Checked| -> Vec<String> {
            let all = found.findings().into_iter();
            let texts = |finding: &Value| {
                let fields = finding.as_object().unwrap().values();
                fields
                    .map(|v| v.as_str().unwrap().to_string())
                    .collect::<Vec<_>>()
                    .join("\n")
            };
            all.map(|finding| self.readable(&texts(finding))).collect()
        };
        assert_eq!(timeless(&checked), timeless(&ran));
        assert_eq!(checked.report["exit_code"], exit);
        (checked, ran)
    }

    /// The termination message of the last run.
    #[track_caller]
    pub fn last_words(&self) -> String {
        self.world.read("termination").expect("no termination message")
    }

    /// Text without what differs from run to run and from machine to machine.
    pub fn readable(&self, text: &str) -> String {
        let lines = text.split('\n').map(super::device::without_information);
        let text = lines.collect::<Vec<_>>().join("\n");
        let text = text
            .replace(self.placed("{dir}").as_str(), "[dir]")
            .replace(&format!("python{}", version()), "python3.X")
            .replace("/usr/bin/sh", "/bin/sh");
        let lines = text.split('\n').map(|line| {
            // Where in smoke.py a call was is told to whom it matters, and changes with every edit of it.
            let line = line
                .split_once("File \"<string>\", line ")
                .map_or(line, |(before, _)| before);
            let words: Vec<&str> = line.split(' ').collect();
            let shown = words.iter().enumerate().map(|(at, word)| {
                let number = word.trim_start_matches('(');
                let unit = words
                    .get(at + 1)
                    .map_or("", |unit| unit.trim_end_matches([')', ',', ';']));
                if number.parse::<f64>().is_ok() && matches!(unit, "ms" | "s") {
                    word.replace(number, "[n]")
                } else {
                    (*word).to_string()
                }
            });
            shown.collect::<Vec<_>>().join(" ")
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// The Python behind whatever wrapper `python3` is, as `python3 -V` finds it on the tests' own `PATH`; or the one that
/// `CUDA_ENTRYPOINT_TEST_PYTHON` names.
pub fn base_python() -> &'static Path {
    &python().0
}

/// Its version as its folders have it, such as `3.11`.
pub fn version() -> &'static str {
    &python().1
}

fn python() -> &'static (PathBuf, String) {
    static PYTHON: OnceLock<(PathBuf, String)> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let world = World::new();
        let ask = "import os, sys; print(os.path.realpath(sys._base_executable)); print('%d.%d' % sys.version_info[:2])";
        let given = std::env::var_os("CUDA_ENTRYPOINT_TEST_PYTHON");
        let python = given.unwrap_or_else(|| "python3".into());
        let run = Run::of(world.command(python).args(["-I", "-c", ask]));
        run.exits(0);
        let mut lines = run.text().lines().map(str::to_string);
        (lines.next().unwrap().into(), lines.next().unwrap())
    })
}
