//! Copies of the full environment whose files are hard links, made in a blink and changed without changing the original.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::image::{Checked, entrypoint};

/// The environment that `tests/stack_full/environment.sh` names.
pub fn environment() -> PathBuf {
    let named = std::env::var_os("CUDA_ENTRYPOINT_TORCH_ENV");
    named
        .map(PathBuf::from)
        .expect("CUDA_ENTRYPOINT_TORCH_ENV names no environment: run `make test-stack`, which makes one")
}

/// What the embedded manifest asks of an image, but for the packages that PyPI has no CUDA build of, and the smoke.
pub fn manifest() -> Value {
    let embedded = concat!(env!("CARGO_MANIFEST_DIR"), "/src/stack/pointcept-cu124.json");
    let mut stack: Value = serde_json::from_slice(&fs::read(embedded).unwrap()).unwrap();
    let packages = stack["packages"].as_object_mut().unwrap();
    for absent in ["torch-scatter", "torch-geometric", "mmcv"] {
        packages.remove(absent).expect("the embedded manifest has it");
    }
    stack.as_object_mut().unwrap().remove("smoke");
    stack
}

/// The same without the variables that keep spconv and cumm from compiling.
pub fn manifest_without_variables() -> Value {
    let mut stack = manifest();
    stack["env"] = json!({});
    stack
}

/// An environment of one's own.
pub struct Copy {
    dir: TempDir,
}

impl Copy {
    pub fn new() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let copy = Self { dir };
        let status = Command::new("cp")
            .arg("-al")
            .arg(environment())
            .arg(copy.env())
            .status();
        assert!(status.unwrap().success());
        copy
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// The environment's folder.
    pub fn env(&self) -> PathBuf {
        self.root().join("env")
    }

    pub fn site(&self) -> PathBuf {
        self.env().join("lib/python3.11/site-packages")
    }

    /// Removes a file or a folder below site-packages, which must be there.
    pub fn remove(&self, name: &str) {
        let path = self.site().join(name);
        match path.is_dir() {
            true => fs::remove_dir_all(path),
            false => fs::remove_file(path),
        }
        .unwrap();
    }

    /// Writes a file below site-packages anew: one that is there is a link to the original's.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.site().join(name);
        let _ = fs::remove_file(&path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// The copy's own pip, which removes a file before it writes another in its place.
    pub fn pip(&self, arguments: &[&str]) {
        let mut command = Command::new(self.env().join("bin/python"));
        command.args(["-m", "pip", "--disable-pip-version-check", "--quiet"]);
        command.args(arguments);
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Installs a published wheel over what is there.
    pub fn install(&self, wheel: &Path) {
        self.pip(&["install", "--no-deps", "--no-index", wheel.to_str().unwrap()]);
    }

    /// Code under the copy's interpreter: whether it ends well, and its standard output or its last complaint.
    pub fn python(&self, code: &str, library_path: &Path) -> Result<String, String> {
        let mut command = Command::new(self.env().join("bin/python"));
        command.args(["-c", code]).env("LD_LIBRARY_PATH", library_path);
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_string();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)
                .lines()
                .last()
                .unwrap_or_default()
                .to_string()),
        }
    }

    /// `check --stage image` against a manifest.
    pub fn check(&self, manifest: &Value) -> Checked {
        self.check_with(manifest, Path::new(""))
    }

    /// The same with an LD_LIBRARY_PATH.
    pub fn check_with(&self, manifest: &Value, library_path: &Path) -> Checked {
        let file = |name: &str| self.root().join(name);
        fs::write(file("stack.json"), manifest.to_string()).unwrap();
        let mut command = entrypoint();
        command.args(["check", "--stage", "image", "--stack"]);
        command.arg(file("stack.json")).arg("--python").arg(self.env());
        command.arg("--report").arg(file("report.json"));
        command.arg("--termination-log").arg(file("termination"));
        if !library_path.as_os_str().is_empty() {
            command.env("LD_LIBRARY_PATH", library_path);
        }
        let output = command.output().unwrap();
        Checked::of(output, &file("report.json"), &file("termination"), self.root())
    }

    /// What `stack capture` prints, where the pair that pip refuses is accepted.
    pub fn captured(&self) -> Value {
        let output = entrypoint()
            .args(["stack", "capture", "--python"])
            .arg(self.env())
            .args(["--warn", "requires-dist"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}
