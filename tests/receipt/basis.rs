//! What facts rest on: each of it is changed, and the receipt is refused, or the new verdict is given in spite of it.
//!
//! [`FACTS`] names every fact of the published schema with the changes that show it, so that a new fact has a line here or
//! the first test fails.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{edit, refused, used, written};
use crate::support::device::Machine;
use crate::support::fakes;
use crate::support::needs::Need;
use crate::support::run::{ENTRYPOINT, Run, World, copy_program};
use crate::support::scene::{base_python, version};
use crate::support::surroundings;
use crate::support::testing::{Entry, container, library};

/// By fact, the changes of what it rests on.
const FACTS: &[(&str, &[&str])] = &[
    // Which Python is found out anew, and compared.
    ("image.python.interpreter", &["another interpreter"]),
    ("image.python.prefix", &["another environment"]),
    ("image.python.conda", FOUND_ANEW),
    ("image.python.version", &["another environment"]),
    ("image.python.site_packages", &["a folder of packages more"]),
    ("image.python.working_folder", &["a module in the working folder"]),
    ("image.python.script_folder", &["a module beside the script"]),
    ("image.python.found_by", FOUND_ANEW),
    ("image.python.options", &["an option of the interpreter"]),
    ("image.python.archives", &["a zip file on sys.path"]),
    ("image.python.notes", &["a line of code in a .pth"]),
    ("image.python.undetermined", FOUND_ANEW),
    ("image.python.closed_folder", FOUND_ANEW),
    ("image.python.broken_home", FOUND_ANEW),
    ("image.python.of_service", FOUND_ANEW),
    ("image.python.tried", FOUND_ANEW),
    // Distributions are read anew.
    ("image.distributions.name", &["a second distribution"]),
    ("image.distributions.version", &["another version"]),
    ("image.distributions.path", &["a second distribution"]),
    (
        "image.distributions.module_version",
        &["the module's own version"],
    ),
    ("image.distributions.module_cuda", &["the module's own CUDA"]),
    ("image.distributions.tags", &["a tag for another Python"]),
    ("image.distributions.cxx11_abi", &["the C++ ABI of torch"]),
    ("image.distributions.requires", &["a requirement"]),
    ("image.distributions.extras", &["a requirement behind an extra"]),
    (
        "image.distributions.cuda_extras",
        &["a library that a package opens itself"],
    ),
    ("image.distributions.variant", &["the variant of a wheel"]),
    ("image.distributions.problems", &["another version"]),
    ("image.distributions.missing", &["a recorded file that is gone"]),
    (
        "image.distributions.missing_count",
        &["a recorded file that is gone"],
    ),
    (
        "image.distributions.hidden_by",
        &[
            "a module beside the script",
            "a module in the working folder",
            "a module in a folder of PYTHONPATH",
            "a package in a folder of PYTHONPATH that was a namespace",
        ],
    ),
    (
        "image.distributions.unopened",
        &["a library that a package opens itself"],
    ),
    (
        "image.distributions.unopened_in",
        &["a library that a package opens itself, in a wheel that it does not search"],
    ),
    ("image.owned.path", &["a second owner of a library"]),
    ("image.owned.size", &["a second owner of a library"]),
    ("image.owned.owners", &["a second owner of a library"]),
    ("image.files.name", &["another manifest"]),
    ("image.files.path", &["a named file that is gone"]),
    ("image.programs.name", &["another manifest"]),
    ("image.programs.path", &["a program of a command that is gone"]),
    ("image.editable.package", &["a leftover of an editable build"]),
    ("image.editable.path", &["a leftover of an editable build"]),
    ("image.editable.kind", &["a leftover of an editable build"]),
    // Copies of the runtime are listed anew, their answers are kept.
    ("image.libraries.kind", &["a copy of the runtime more"]),
    ("image.libraries.path", &["a copy of the runtime more"]),
    ("image.libraries.origin", &["a copy of the runtime more"]),
    (
        "image.libraries.answer",
        &[
            "a library of another size",
            "a library of the same size and time",
            "a library that another user may not read",
        ],
    ),
    ("image.helper.end", &["a library of the same size and time"]),
    // The loader's list is kept.
    ("image.loaded.name", &["a module that needs another library"]),
    (
        "image.loaded.path",
        &[
            "a library in front, by LD_LIBRARY_PATH",
            "a library in front, for a better processor",
            "a library in front, in a folder of a RUNPATH",
            "LD_LIBRARY_PATH",
            "ld.so.cache",
            "a default folder",
            "ld.so.preload",
        ],
    ),
    ("image.loaded.real", &["a library of the same size and time"]),
    ("image.loaded.needed_by", &["a module that needs another library"]),
    (
        "image.loaded.found_by",
        &["a library in front, by LD_LIBRARY_PATH"],
    ),
    (
        "image.loaded.shadowed",
        &["a library in front, by LD_LIBRARY_PATH"],
    ),
    ("image.loader.end", &["another interpreter"]),
    ("image.loader.modules", &["a module of the stack more"]),
    (
        "image.loader.missing_versions",
        &["a module that needs another library"],
    ),
    ("image.loader.refused", &["a library of another size"]),
    ("image.loader.stubs", &["a stub of the driver"]),
    (
        "image.loader.searched",
        &["a library in front, in a folder of a RUNPATH"],
    ),
    ("image.loader.notes", &["a module of the stack more"]),
    ("image.loader.ms", NO_VERDICT),
    // Libraries with CUDA code: which there are, and what is in each.
    (
        "image.kernels.path",
        &[
            "a CUDA library in a folder that had some",
            "a CUDA library in a folder that had none",
            "a CUDA library with the times of its folder",
            "a CUDA library beside the packages",
            "a folder of packages more",
        ],
    ),
    ("image.kernels.package", &["a second distribution"]),
    (
        "image.kernels.vendor",
        &["a CUDA library in a folder that had none"],
    ),
    ("image.kernels.fatbins", &["CUDA code of the same size and time"]),
    (
        "image.kernels.with_kernels",
        &["CUDA code of the same size and time"],
    ),
    ("image.kernels.sass", &["CUDA code of the same size and time"]),
    ("image.kernels.ptx", &["CUDA code of the same size and time"]),
    ("image.kernels.ptx_isa", &["CUDA code of the same size and time"]),
    ("image.kernels.served", &["another list"]),
    (
        "image.kernels.error",
        &["CUDA code that another user may not read"],
    ),
    (
        "image.kernels.errno",
        &["CUDA code that another user may not read"],
    ),
    // Libraries that ask torch or CUDA for symbols, and what they find.
    (
        "image.extensions.libraries",
        &["an extension more", "an extension of the same size and time"],
    ),
    (
        "image.extensions.unresolved",
        &[
            "an extension of the same size and time",
            "a library that an extension asks",
        ],
    ),
    (
        "image.extensions.unread",
        &["an extension of the same size and time"],
    ),
    (
        "image.extensions.dependents",
        &[
            "an extension of the same size and time",
            "a library that an extension asks",
        ],
    ),
    (
        "image.extensions.sought",
        &["a library in front, by LD_LIBRARY_PATH, that an extension asks"],
    ),
    ("image.extensions.outside", &["a library that an extension asks"]),
    (
        "image.extensions.builtins",
        &["a CUDA library in a folder that had none", "LD_LIBRARY_PATH"],
    ),
    ("image.surroundings", FOUND_ANEW),
    // No receipt is written of a run that met one.
    ("image.unread", NOT_KEPT),
    ("image.compat", FOUND_ANEW),
    // The driver's answers and the GPUs are kept for a day.
    (
        "device.driver.path",
        &[
            "a libcuda in front",
            "a libcuda in front, for a better processor",
            "a libcuda in its place",
        ],
    ),
    ("device.driver.load_error", NOT_KEPT),
    (
        "device.driver.api_version",
        &["a libcuda in its place", "another release"],
    ),
    ("device.driver.device_count", &["another GPU"]),
    ("device.driver.error", NOT_KEPT),
    ("device.devices.ordinal", &["CUDA_DEVICE_ORDER"]),
    ("device.devices.name", &["another GPU"]),
    ("device.devices.uuid", &["another GPU"]),
    ("device.devices.capability", &["another GPU"]),
    ("device.devices.memory", &["another GPU"]),
    ("device.devices.pci_bus_id", &["another GPU"]),
    ("device.devices.compute_mode", &["a mode that prohibits"]),
    ("device.devices.error", NOT_KEPT),
    ("device.helper.end", NOT_KEPT),
    // NVML is asked at each start, and the nodes are opened: tests/receipt/gpus.rs.
    ("device.nvml.path", FOUND_ANEW),
    ("device.nvml.load_error", FOUND_ANEW),
    ("device.nvml.driver_release", &["another release"]),
    ("device.nvml.api_version", FOUND_ANEW),
    ("device.nvml.device_count", FOUND_ANEW),
    ("device.nvml.error", FOUND_ANEW),
    ("device.nvml_devices", &["a mode that prohibits", "another GPU"]),
    ("device.opened", FOUND_ANEW),
    ("device.nvml_helper.end", FOUND_ANEW),
    ("device.driver_elsewhere", NOT_KEPT),
    ("device.nodes", NOT_KEPT),
    ("device.compat", NOT_KEPT),
];

/// Found out at each start before a receipt is looked at.
const FOUND_ANEW: &[&str] = &["-found anew"];
/// Only where something failed, and that is never kept.
const NOT_KEPT: &[&str] = &["-not kept"];
/// Nothing is judged by it.
const NO_VERDICT: &[&str] = &["-no verdict"];

/// What a start after a change does.
enum Then {
    /// It names this and checks in full.
    Refuses(&'static str),
    /// It takes the image part, and finds this all the same.
    Finds(&'static str),
    /// It takes the image part, and says this.
    Notes(&'static str),
}
use Then::{Finds, Notes, Refuses};

struct Change {
    name: &'static str,
    make: fn(&Stage, &mut Command),
    then: Then,
}

/// An environment in which there is something of everything that facts rest on.
struct Stage {
    root: TempDir,
}

impl Stage {
    fn new() -> Self {
        let stage = Self {
            root: tempfile::tempdir().unwrap(),
        };
        let python = base_python();
        for name in ["venv", "other"] {
            let config = format!(
                "home = {}\ninclude-system-site-packages = false\nversion = {}\n",
                python.parent().unwrap().display(),
                version()
            );
            stage.write(&format!("{name}/pyvenv.cfg"), &config);
            fs::create_dir_all(stage.path(&format!("{name}/bin"))).unwrap();
            symlink(python, stage.path(&format!("{name}/bin/python3"))).unwrap();
            fs::create_dir_all(stage.path(&format!("{name}/lib/python{}/site-packages", version()))).unwrap();
        }
        stage.cudart("nvidia/cuda_runtime/lib/libcudart.so.12", 12040);
        stage.distribution(
            "nvidia-cuda-runtime-cu12",
            "12.4.127",
            "nvidia/cuda_runtime/lib/libcudart.so.12,,\n",
        );
        // One library by LD_LIBRARY_PATH and one by a RUNPATH out of site-packages.
        for name in ["later", "outer"] {
            stage.cc(
                &stage.path(&format!("{name}/lib{name}.so.1")),
                &format!("int {name}(void) {{ return 1; }}"),
                &[&format!("-Wl,-soname,lib{name}.so.1")],
            );
        }
        stage.module("int module(void) { return 1; }", &["later", "outer"]);
        stage.distribution(
            "torchvision",
            "1.0",
            "torchvision/__init__.py,,1\ntorchvision/_C.so,,\n",
        );
        stage.write_site("torchvision/__init__.py", "#");
        stage.distribution("ext", "1.0", "ext/__init__.py,,1\n");
        stage.write_site("ext/__init__.py", "#");
        stage.write_site("ext/a.h", "");
        stage.cuda_code("ext/kernels.so", 90);
        stage.nccl("later", "ncclA");
        stage.extension("ncclA");
        stage.distribution("mmcv", "1.0", "mmcv/__init__.py,,1\n");
        stage.write_site("mmcv/__init__.py", "#");
        stage.distribution("tensorflow", "1.0", "");
        stage.write_site("mmcv/version.py", "__version__ = '1.0'\n");
        stage.write_site("plain/__init__.py", "");
        stage.write_site("bare/__init__.py", "");
        stage.write_site("code.pth", "# nothing\n");
        stage.write("front/ns/x", "");
        for folder in ["early", "app", "front/ext"] {
            fs::create_dir_all(stage.path(folder)).unwrap();
        }
        stage.write("app/main.py", "");
        stage.manifest("9.0");
        // As in an image with SOURCE_DATE_EPOCH.
        let one_time = Command::new("find")
            .arg(stage.root.path())
            .args([
                "!",
                "-type",
                "l",
                "-exec",
                "touch",
                "-d",
                "@1000000000",
                "{}",
                "+",
            ])
            .status();
        assert!(one_time.unwrap().success());
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn site(&self, name: &str) -> PathBuf {
        self.path(&format!("venv/lib/python{}/site-packages/{name}", version()))
    }

    fn write(&self, name: &str, text: &str) {
        self.put(&self.path(name), text.as_bytes());
    }

    fn write_site(&self, name: &str, text: &str) {
        self.put(&self.site(name), text.as_bytes());
    }

    /// A file, with the time that all files have.
    fn put(&self, path: &Path, bytes: &[u8]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(path);
        fs::write(path, bytes).unwrap();
        age(path);
    }

    fn cc(&self, out: &Path, source: &str, arguments: &[&str]) {
        fs::create_dir_all(out.parent().unwrap()).unwrap();
        let file = self.path("source.c");
        fs::write(&file, source).unwrap();
        let _ = fs::remove_file(out);
        let mut command = Command::new("cc");
        command
            .args(["-shared", "-fPIC", "-o"])
            .arg(out)
            .arg(&file)
            .args(arguments);
        assert!(command.status().unwrap().success(), "{command:?}");
        fs::remove_file(file).unwrap();
        age(out);
    }

    fn cudart(&self, name: &str, version: u32) {
        let source = format!("int cudaRuntimeGetVersion(int *v) {{ *v = {version}; return 0; }}");
        self.cc(&self.site(name), &source, &["-Wl,-soname,libcudart.so.12"]);
    }

    /// The module of torchvision, which needs these.
    fn module(&self, source: &str, needs: &[&str]) {
        let libraries: Vec<String> = needs
            .iter()
            .map(|name| self.path(&format!("{name}/lib{name}.so.1")).display().to_string())
            .collect();
        let runpath = format!(
            "-Wl,--enable-new-dtags,-rpath,$ORIGIN/../nvidia/cuda_runtime/lib:{0}/inner:{0}/outer",
            self.root.path().display()
        );
        let cudart = self
            .site("nvidia/cuda_runtime/lib/libcudart.so.12")
            .display()
            .to_string();
        let mut arguments = vec!["-Wl,--no-as-needed", &cudart, &runpath];
        arguments.extend(libraries.iter().map(String::as_str));
        self.cc(&self.site("torchvision/_C.so"), source, &arguments);
    }

    /// libnccl with one function, outside of site-packages.
    fn nccl(&self, folder: &str, function: &str) {
        self.cc(
            &self.path(&format!("{folder}/libnccl.so.2")),
            &format!("int {function}(void) {{ return 1; }}"),
            &["-Wl,-soname,libnccl.so.2"],
        );
    }

    /// A library that asks libnccl for a function.
    fn extension(&self, function: &str) {
        let source = format!("int {function}(void); void *asked = {function};");
        let nccl = self.path("later/libnccl.so.2").display().to_string();
        self.cc(
            &self.site("plain/asks.so"),
            &source,
            &["-Wl,--no-as-needed,--unresolved-symbols=ignore-all", &nccl],
        );
    }

    fn distribution(&self, name: &str, release: &str, record: &str) {
        let folder = format!("{}-{release}.dist-info", name.replace('-', "_"));
        self.write_site(
            &format!("{folder}/METADATA"),
            &format!("Name: {name}\nVersion: {release}\nRequires-Dist: ext\n"),
        );
        self.write_site(&format!("{folder}/WHEEL"), "Tag: py3-none-any\n");
        self.write_site(&format!("{folder}/RECORD"), record);
    }

    fn cuda_code(&self, name: &str, arch: u32) {
        self.put(
            &self.site(name),
            &library(&[container(&[Entry::sass(arch, true)])]),
        );
    }

    fn manifest(&self, archs: &str) {
        let text = json!({
            "schema": 1, "name": "t", "cuda": {"runtime": "12.4"}, "archs": archs, "python": ">=3.8", "files": ["ext/a.h"],
            "packages": {"ext": "==1.0", "torchvision": "*", "mmcv": "==1.0", "nvidia-cuda-runtime-cu12": "*",
                "tensorflow": "*"},
            "smoke": [{"name": "own", "argv": [self.path("selftest")]}]
        });
        self.write("selftest", "#!/bin/sh\n");
        fs::set_permissions(self.path("selftest"), fs::Permissions::from_mode(0o755)).unwrap();
        self.write("stack.json", &text.to_string());
    }

    /// `check` of the image for `python SCRIPT`, changed by `make`.
    fn check(
        &self,
        make: impl FnOnce(&Self, &mut Command),
        service: &[&str],
    ) -> (Option<i32>, Value, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cuda-entrypoint"));
        surroundings::keep(command.env_clear()).current_dir(self.path("app"));
        command
            .env("PATH", "/usr/bin:/bin")
            .env(
                "LD_LIBRARY_PATH",
                format!("{0}/early:{0}/later", self.root.path().display()),
            )
            .env("PYTHONPATH", self.path("front"))
            .args([
                "check",
                "--stage",
                "image",
                "--report",
                "-",
                "--termination-log",
                "/dev/null",
                "--stack",
            ])
            .arg(self.path("stack.json"))
            .arg("--receipt")
            .arg(self.path("receipt.json"));
        make(self, &mut command);
        if !service.is_empty() {
            command.arg("--").arg(self.path("venv/bin/python3")).args(service);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
        (output.status.code(), report, said)
    }
}

fn age(path: &Path) {
    let time = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::open(path).unwrap().set_modified(time).unwrap();
}

fn env(name: &str, value: impl AsRef<std::ffi::OsStr>) -> impl FnOnce(&mut Command) {
    move |command| {
        command.env(name, value);
    }
}

/// As another user, after the mode of a file was changed.
fn as_user(stage: &Stage, command: &mut Command, shut: &str) {
    fs::set_permissions(stage.root.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(stage.site(shut), Permissions::from_mode(0o600)).unwrap();
    command.uid(1000).gid(1000);
}

/// Behind a shell that changes what is mounted.
fn mounted(command: &mut Command, script: &str) {
    let mut inner: Vec<std::ffi::OsString> = vec![command.get_program().into()];
    inner.extend(command.get_args().map(Into::into));
    let mut outer = Command::new("unshare");
    outer
        .args(["-m", "sh", "-c", &format!("{script}\nexec \"$@\""), "sh"])
        .args(inner);
    surroundings::keep(outer.env_clear()).current_dir(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs() {
        outer.env(name, value.unwrap());
    }
    *command = outer;
}

/// A copy of /etc in its place, in which ldconfig and others may write.
const OWN_ETC: &str =
    "set -e; mkdir -p /tmp; mount -t tmpfs none /mnt; cp -a /etc /mnt/etc; mount --bind /mnt/etc /etc";

#[rustfmt::skip]
const IMAGE: &[Change] = &[
    Change { name: "another interpreter", then: Refuses("Python was "), make: |s, _| {
        // Another file under the name, links followed.
        fs::remove_file(s.path("venv/bin/python3")).unwrap();
        fs::copy(base_python(), s.path("venv/bin/python3")).unwrap();
    } },
    Change { name: "another environment", then: Refuses("Python was "), make: |s, c| {
        c.arg("--python").arg(s.path("other/bin/python3"));
    } },
    Change { name: "a folder of packages more", then: Refuses("Python was "), make: |s, _| {
        s.write("more/x.py", "");
        s.write_site("more.pth", s.path("more").to_str().unwrap());
    } },
    Change { name: "a module in the working folder", then: Finds("package-duplicate"), make: |s, _| {
        s.write("app/ext.py", "");
    } },
    Change { name: "a module beside the script", then: Finds("package-duplicate"), make: |s, _| {
        s.write("app/mmcv/__init__.py", "");
    } },
    Change { name: "a module in a folder of PYTHONPATH", then: Finds("package-duplicate"), make: |s, _| {
        s.write("front/ext.py", "");
    } },
    Change { name: "a package in a folder of PYTHONPATH that was a namespace", then: Finds("package-duplicate"), make: |s, _| {
        s.write("front/ext/__init__.py", "");
    } },
    Change { name: "a zip file on sys.path", then: Finds("package-missing"), make: |s, _| {
        s.write("more.zip", "PK\x03\x04");
        s.write_site("zip.pth", s.path("more.zip").to_str().unwrap());
    } },
    Change { name: "a line of code in a .pth", then: Notes("code.pth"), make: |s, _| {
        s.write_site("code.pth", "import os\n");
    } },
    Change { name: "a second distribution", then: Finds("package-duplicate"), make: |s, _| {
        s.distribution("ext", "2.0", "");
    } },
    Change { name: "another version", then: Finds("package-version"), make: |s, _| {
        s.write_site("ext-1.0.dist-info/METADATA", "Name: ext\nVersion: 2.0\nRequires-Dist: ext\n");
    } },
    Change { name: "the module's own version", then: Finds("package-version"), make: |s, _| {
        s.write_site("mmcv/version.py", "__version__ = '2.0'\n");
    } },
    Change { name: "the module's own CUDA", then: Finds("package-cuda-tag"), make: |s, _| {
        s.write_site("mmcv/version.py", "__version__ = '1.0'\ncuda = '11.8'\n");
    } },
    Change { name: "a tag for another Python", then: Finds("python-version"), make: |s, _| {
        s.write_site("ext-1.0.dist-info/WHEEL", "Tag: cp27-cp27m-linux_x86_64\n");
    } },
    Change { name: "a requirement", then: Finds("requires-dist"), make: |s, _| {
        s.write_site("ext-1.0.dist-info/METADATA", "Name: ext\nVersion: 1.0\nRequires-Dist: gone\n");
    } },
    Change { name: "a requirement behind an extra", then: Finds("requires-dist"), make: |s, _| {
        let requires = "Requires-Dist: ext[x]\nRequires-Dist: gone; extra == 'x'\n";
        s.write_site("ext-1.0.dist-info/METADATA", &format!("Name: ext\nVersion: 1.0\n{requires}"));
    } },
    Change { name: "the variant of a wheel", then: Finds("requires-dist"), make: |s, _| {
        let requires = "Requires-Dist: gone; 'nvidia' in variant_namespaces\n";
        s.write_site("ext-1.0.dist-info/METADATA", &format!("Name: ext\nVersion: 1.0\n{requires}"));
        s.write_site("ext-1.0.dist-info/variant.json", r#"{"variants": {"cu12": {"nvidia": {"sm": ["90"]}}}}"#);
    } },
    Change { name: "a library that a package opens itself", then: Finds("library-missing"), make: |s, _| {
        let requires = "Requires-Dist: nvidia-cudnn-cu12>=97; extra == 'and-cuda'\n"; // which no machine has
        s.write_site("tensorflow-1.0.dist-info/METADATA", &format!("Name: tensorflow\nVersion: 1.0\n{requires}"));
    } },
    Change { name: "a library that a package opens itself, in a wheel that it does not search", then: Refuses("tensorflow is new"), make: |s, _| {
        let requires = "Requires-Dist: nvidia-cudnn-cu12>=97; extra == 'and-cuda'\n";
        s.write_site("tensorflow-1.0.dist-info/METADATA", &format!("Name: tensorflow\nVersion: 1.0\n{requires}"));
        s.write_site("nvidia/cudnn/lib/libcudnn.so.97", "");
        s.write_site("tensorflow/__init__.py", "");
        s.cc(&s.site("tensorflow/libtensorflow_framework.so.2"), "int x;", &["-Wl,-rpath,$ORIGIN"]);
    } },
    Change { name: "the C++ ABI of torch", then: Refuses("torch is new"), make: |s, _| {
        s.write_site("torch-2.5.0.dist-info/METADATA", "Name: torch\nVersion: 2.5.0\n");
        let tagged = "Name: ext\nVersion: 1.0+cu12torch2.5cxx11abiTRUE\n";
        s.write_site("ext-1.0.dist-info/METADATA", tagged);
        fs::create_dir_all(s.site("torch/lib")).unwrap();
        let source = "void f(void) __asm__(\"_ZN3c105ErrorC2ENS_14SourceLocationESs\"); void f(void) {}";
        s.cc(&s.site("torch/lib/libc10.so"), source, &[]);
    } },
    Change { name: "a recorded file that is gone", then: Finds("package-incomplete"), make: |s, _| {
        fs::remove_file(s.site("ext/__init__.py")).unwrap();
        age(&s.site("ext"));
    } },
    Change { name: "a second owner of a library", then: Finds("file-owner"), make: |s, _| {
        s.distribution("nvidia-cuda-runtime-cu13", "13.0", "nvidia/cuda_runtime/lib/libcudart.so.12,sha256=x,1\n");
    } },
    Change { name: "a named file that is gone", then: Finds("file-missing"), make: |s, _| {
        fs::remove_file(s.site("ext/a.h")).unwrap();
        age(&s.site("ext"));
    } },
    Change { name: "a program of a command that is gone", then: Finds("file-missing"), make: |s, _| {
        fs::remove_file(s.path("selftest")).unwrap();
    } },
    Change { name: "a leftover of an editable build", then: Refuses("spconv is new"), make: |s, _| {
        s.write_site("spconv/__init__.py", "");
        s.write_site("spconv/build/x", "");
    } },
    Change { name: "another manifest", then: Refuses("the manifest is another"), make: |s, _| s.manifest("9.0;8.0") },
    Change { name: "another list", then: Refuses("archs was "), make: |_, c| { c.args(["--archs", "8.0"]); } },
    Change { name: "a copy of the runtime more", then: Refuses("the list of CUDA libraries was "), make: |s, _| {
        s.write("venv/conda-meta/x", "");
        fs::copy(s.site("nvidia/cuda_runtime/lib/libcudart.so.12"), s.path("venv/lib/libcudart.so.12")).unwrap();
        edit(&s.path("receipt.json"), |r| {
            let folder = s.path("venv/conda-meta");
            r["image"]["key"]["folders"][folder.to_str().unwrap()] = json!("x/");
        });
    } },
    Change { name: "a library of another size", then: Refuses("libouter.so.1 changed (size "), make: |s, _| {
        let path = s.path("outer/libouter.so.1");
        let bytes = [fs::read(&path).unwrap(), vec![0]].concat();
        s.put(&path, &bytes);
    } },
    Change { name: "a library of the same size and time", then: Refuses("changed (its content; size and time"), make: |s, _| {
        s.cudart("nvidia/cuda_runtime/lib/libcudart.so.12", 12060);
    } },
    Change { name: "CUDA code of the same size and time", then: Refuses("kernels.so changed (its content;"), make: |s, _| {
        s.cuda_code("ext/kernels.so", 80);
    } },
    Change { name: "a module that needs another library", then: Refuses("torchvision/_C.so changed"), make: |s, _| {
        s.module("int module(void) { return 2; }", &["later"]);
    } },
    Change { name: "a module of the stack more", then: Refuses("the list of the stack's modules was "), make: |s, _| {
        fs::copy(s.path("outer/libouter.so.1"), s.site("mmcv/_ext.so")).unwrap();
        age(&s.site("mmcv"));
    } },
    Change { name: "a library in front, by LD_LIBRARY_PATH", then: Refuses("early/liblater.so.1 is new"), make: |s, _| {
        fs::copy(s.path("outer/libouter.so.1"), s.path("early/liblater.so.1")).unwrap();
    } },
    Change { name: "a library in front, for a better processor", then: Refuses("x86-64-v2/liblater.so.1 is new"), make: |s, _| {
        s.write("later/glibc-hwcaps/x86-64-v2/liblater.so.1", "");
    } },
    Change { name: "a library in front, in a folder of a RUNPATH", then: Refuses("inner/libouter.so.1 is new"), make: |s, _| {
        s.write("inner/libouter.so.1", "");
    } },
    Change { name: "LD_LIBRARY_PATH", then: Refuses("LD_LIBRARY_PATH was "), make: |s, c| env("LD_LIBRARY_PATH", s.path("later"))(c) },
    Change { name: "a stub of the driver", then: Refuses("stubs/libcuda.so.1"), make: |s, c| {
        s.write("early/stubs/libcuda.so.1", "");
        // The variable has to be what it was.
        let folder = format!("{0}/early/stubs:{0}/early:{0}/later", s.root.path().display());
        edit(&s.path("receipt.json"), |r| r["image"]["key"]["in_force"]["LD_LIBRARY_PATH"] = json!(folder));
        env("LD_LIBRARY_PATH", folder)(c);
    } },
    Change { name: "an extension more", then: Refuses("plain: libraries or folders in it"), make: |s, _| {
        fs::copy(s.site("plain/asks.so"), s.site("plain/more.so")).unwrap();
    } },
    Change { name: "an extension of the same size and time", then: Refuses("asks.so changed (its content;"), make: |s, _| {
        s.extension("ncclB");
    } },
    Change { name: "a library that an extension asks", then: Refuses("libnccl.so.2 changed (its content;"), make: |s, _| {
        s.nccl("later", "ncclB");
    } },
    Change { name: "a library in front, by LD_LIBRARY_PATH, that an extension asks", then: Refuses("early/libnccl.so.2 is new"), make: |s, _| {
        s.nccl("early", "ncclB");
    } },
    Change { name: "a CUDA library in a folder that had some", then: Refuses("ext: libraries or folders in it"), make: |s, _| {
        s.cuda_code("ext/more.so", 80);
    } },
    Change { name: "a CUDA library in a folder that had none", then: Refuses("bare: libraries or folders in it"), make: |s, _| {
        s.cuda_code("bare/deep.so", 80);
    } },
    Change { name: "a CUDA library with the times of its folder", then: Refuses("ext: libraries or folders in it"), make: |s, _| {
        s.cuda_code("ext/more.so", 80);
        age(&s.site("ext"));
    } },
    Change { name: "a CUDA library beside the packages", then: Refuses("alone.so is new"), make: |s, _| {
        s.cuda_code("alone.so", 80);
        age(&s.site(""));
    } },
];

/// These need root, or another /etc.
#[rustfmt::skip]
const IMAGE_AS_ROOT: &[Change] = &[
    Change { name: "a library that another user may not read", then: Refuses("cannot be read: Permission denied"), make: |s, c| {
        as_user(s, c, "nvidia/cuda_runtime/lib/libcudart.so.12");
    } },
    Change { name: "CUDA code that another user may not read", then: Refuses("cannot be read: Permission denied"), make: |s, c| {
        as_user(s, c, "ext/kernels.so");
    } },
    Change { name: "ld.so.cache", then: Refuses("in ld.so.cache was"), make: |s, c| {
        let folder = s.path("system");
        fs::create_dir(&folder).unwrap();
        let libc = "find /lib/x86_64-linux-gnu/ -maxdepth 1 -name libc.so.6";
        mounted(c, &format!(
            "{OWN_ETC}; cp $({libc}) {0}/; echo {0} >/mnt/00.conf; cat /etc/ld.so.conf >>/mnt/00.conf; /sbin/ldconfig -f /mnt/00.conf",
            folder.display()
        ));
    } },
    Change { name: "a default folder", then: Refuses("libc.so.6"), make: |_, c| {
        // Without the cache the default folders decide.
        mounted(c, &format!("{OWN_ETC}; rm /etc/ld.so.cache"));
    } },
    Change { name: "ld.so.preload", then: Refuses("/etc/ld.so.preload is new"), make: |s, c| {
        mounted(c, &format!("{OWN_ETC}; echo {} >/etc/ld.so.preload", s.path("outer/libouter.so.1").display()));
    } },
];

/// Holds a list of changes against one environment, which is put back after each.
fn hold(changes: &[Change], service: &[&str]) {
    let stage = Stage::new();
    let (exit, report, said) = stage.check(|_, _| {}, service);
    let failed: Vec<&Value> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|f| f["status"] == "fail")
        .collect();
    assert_eq!(
        (exit, written(&report)),
        (Some(0), vec!["image"]),
        "{said}{failed:#?}"
    );
    assert_eq!(used(&stage.check(|_, _| {}, service).1), ["image"]);
    let aside = tempfile::tempdir().unwrap();
    let copy = |from: &Path, to: &Path| {
        let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status();
        assert!(status.unwrap().success());
    };
    copy(stage.root.path(), aside.path());
    for Change { name, make, then } in changes {
        let (exit, report, said) = stage.check(make, service);
        let problems = || -> Vec<&str> {
            let all = report["findings"].as_array().unwrap().iter();
            all.filter(|f| f["status"] != "pass")
                .map(|f| f["code"].as_str().unwrap())
                .collect()
        };
        match then {
            Refuses(why) => {
                let reasons = refused(&report);
                assert!(
                    reasons.len() == 1 && reasons[0].contains(why),
                    "{name}: {reasons:?} {exit:?} {said}"
                );
                assert_eq!(used(&report), [""; 0], "{name}");
            }
            Finds(code) => {
                assert_eq!(used(&report), ["image"], "{name}: {said}");
                assert!(problems().contains(code), "{name}: {:?}", problems());
            }
            Notes(text) => {
                assert_eq!(used(&report), ["image"], "{name}: {said}");
                let notes = report["facts"]["image"]["python"]["notes"].to_string();
                assert!(notes.contains(text), "{name}: {notes}");
            }
        }
        let empty = Command::new("find")
            .arg(stage.root.path())
            .args(["-mindepth", "1", "-delete"])
            .status();
        assert!(empty.unwrap().success());
        copy(aside.path(), stage.root.path());
        assert_eq!(
            used(&stage.check(|_, _| {}, service).1),
            ["image"],
            "after {name}"
        );
    }
}

#[test]
fn every_fact_of_the_schema_has_a_change_that_shows_it() {
    let world = World::new();
    let run = Run::of(&mut world.entrypoint(["schema", "report"]));
    let schema: Value = serde_json::from_str(run.exits(0).text()).unwrap();
    let resolved = |node: &Value| match node["$ref"].as_str() {
        Some(path) => schema.pointer(path.trim_start_matches('#')).unwrap().clone(),
        None => node.clone(),
    };
    let mut all = BTreeSet::new();
    for part in ["image", "device"] {
        let facts = schema["properties"]["facts"]["properties"][part]["properties"]
            .as_object()
            .unwrap();
        for (name, node) in facts {
            let node = resolved(node);
            let node = if node["type"] == "array" {
                resolved(&node["items"])
            } else {
                node
            };
            match node["properties"].as_object() {
                Some(fields) => all.extend(fields.keys().map(|field| format!("{part}.{name}.{field}"))),
                None => drop(all.insert(format!("{part}.{name}"))),
            }
        }
    }
    let is_told = |fact: &String| {
        FACTS
            .iter()
            .any(|(known, _)| fact == known || fact.starts_with(&format!("{known}.")))
    };
    // How a run of the helper went is told in more words than its end.
    let is_explained = |fact: &String| {
        let run = fact.rsplit_once('.').map_or("", |(run, _)| run);
        run.ends_with("helper") || *fact == "image.loader.reason"
    };
    let untold: Vec<_> = all
        .iter()
        .filter(|fact| !is_told(fact) && !is_explained(fact))
        .collect();
    assert!(
        untold.is_empty(),
        "no change in tests/receipt/basis.rs shows what these rest on: {untold:?}"
    );
    let gone: Vec<_> = FACTS
        .iter()
        .filter(|(known, _)| !all.iter().any(|fact| fact.starts_with(known)))
        .collect();
    assert!(gone.is_empty(), "no facts of the schema: {gone:?}");
    let known: BTreeSet<&str> = IMAGE
        .iter()
        .chain(IMAGE_AS_ROOT)
        .map(|change| change.name)
        .collect();
    let known: BTreeSet<&str> = known
        .into_iter()
        .chain(DEVICE.iter().map(|(name, ..)| *name))
        .chain(OTHERS)
        .collect();
    for (fact, changes) in FACTS {
        for change in changes.iter().filter(|change| !change.starts_with('-')) {
            assert!(known.contains(change), "{fact}: there is no change {change:?}");
        }
    }
}

/// Changes that tests of their own make.
const OTHERS: [&str; 2] = ["an option of the interpreter", "a mode that prohibits"];

#[test]
fn a_changed_image_is_refused_or_judged_anew() {
    hold(IMAGE, &["main.py"]);
}

#[test]
fn a_changed_system_or_user_is_refused() {
    Need::Root.demand();
    Need::MountNamespace.demand();
    hold(IMAGE_AS_ROOT, &["-m", "svc"]);
}

#[test]
fn what_is_baked_without_a_service_is_judged_where_the_service_starts() {
    let stage = Stage::new();
    let python = |stage: &Stage, command: &mut Command| {
        command.arg("--python").arg(stage.path("venv/bin/python3"));
    };
    let (exit, report, said) = stage.check(python, &[]);
    assert_eq!((exit, written(&report)), (Some(0), vec!["image"]), "{said}");
    stage.write("app/ext.py", "");
    // Whoever starts elsewhere does not see it.
    for (service, finds) in [
        (&["main.py"][..], true),
        (&["-m", "svc"], true),
        (&["/elsewhere/main.py"], false),
    ] {
        let (exit, report, said) = stage.check(|_, _| {}, service);
        assert_eq!(used(&report), ["image"], "{service:?}: {said}");
        assert_eq!(exit, Some(if finds { 81 } else { 0 }), "{service:?}: {said}");
    }
    // PYTHONPATH is not read, which is another list of folders.
    let (_, report, _) = stage.check(|_, _| {}, &["-I", "main.py"]);
    assert!(
        refused(&report)[0].contains("Python was"),
        "{:?}",
        refused(&report)
    );
}

/// A name, what is changed of a machine and its command, and what is said; nothing where the start goes on by its receipt.
type DeviceChange = (&'static str, fn(&Machine, &mut Command), &'static str);

/// A driver behind an empty folder, and a smoke.
fn machine() -> Machine {
    let machine =
        Machine::new(r#"{"devices": [{"uuid": "GPU-00000001-0000-4000-8000-000000000000", "minor": 1}]}"#);
    let manifest = r#"{"schema": 1, "name": "t", "cuda": {"driver": ">=12.4"}, "archs": "9.0",
        "smoke": [{"name": "own", "argv": ["true"], "gpu": true}]}"#;
    for folder in ["front", "driver"] {
        fs::create_dir(machine.path(folder)).unwrap();
    }
    for name in ["libcuda.so.1", "libnvidia-ml.so.1"] {
        fs::copy(
            fakes::fake_driver_dir().join(name),
            machine.path("driver").join(name),
        )
        .unwrap();
    }
    fs::write(machine.path("tool.so"), "1").unwrap();
    let list = format!(
        "{}:{}",
        machine.path("front").display(),
        machine.path("driver").display()
    );
    machine.manifest(manifest).env("LD_LIBRARY_PATH", &list)
}

fn copy_driver(machine: &Machine, to: &str) {
    let to = machine.path(to);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(fakes::fake_driver_dir().join("libcuda.so.1"), to).unwrap();
}

fn script(machine: &Machine, text: &str) {
    fs::write(machine.path("script.json"), text).unwrap();
}

#[rustfmt::skip]
const DEVICE: &[DeviceChange] = &[
    ("nothing", |_, _| {}, ""),
    ("a libcuda in front", |m, _| copy_driver(m, "front/libcuda.so.1"), "front/libcuda.so.1 lies in the place of"),
    ("a libcuda in front, for a better processor", |m, _| copy_driver(m, "driver/glibc-hwcaps/x86-64-v2/libcuda.so.1"),
        "x86-64-v2/libcuda.so.1 lies in the place of"),
    ("a libcuda in its place", |m, _| {
        // With the size and time that it had.
        let path = m.path("driver/libcuda.so.1");
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        bytes[4000] ^= 1;
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        File::open(&path).unwrap().set_modified(time).unwrap();
    }, "driver/libcuda.so.1 is another file now"),
    ("another release", |m, _| script(m, r#"{"driver_release": "590.1",
        "devices": [{"uuid": "GPU-00000001-0000-4000-8000-000000000000", "minor": 1}]}"#), "the driver was "),
    ("another GPU", |m, _| script(m, r#"{"devices": [{"uuid": "GPU-00000002-0000-4000-8000-000000000000", "minor": 1}]}"#),
        "GPU-00000002-0000-4000-8000-000000000000 was not proven"),
    ("CUDA_DEVICE_ORDER", |_, c| env("CUDA_DEVICE_ORDER", "PCI_BUS_ID")(c), "CUDA_DEVICE_ORDER was unset"),
    ("CUDA_VISIBLE_DEVICES", |_, c| env("CUDA_VISIBLE_DEVICES", "0")(c), "CUDA_VISIBLE_DEVICES was unset"),
    ("MPS", |_, c| env("CUDA_MPS_PIPE_DIRECTORY", "/mps")(c), "CUDA_MPS_PIPE_DIRECTORY was unset"),
    ("MPS's share", |_, c| env("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "10")(c), "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE was unset"),
    ("an injected tool", |m, c| env("CUDA_INJECTION64_PATH", m.path("tool.so"))(c), "CUDA_INJECTION64_PATH was unset"),
    ("an allocator", |_, c| env("PYTORCH_CUDA_ALLOC_CONF", "backend:cudaMallocAsync")(c), "PYTORCH_CUDA_ALLOC_CONF was unset"),
    ("a preloaded library", |m, c| env("LD_PRELOAD", m.path("driver/libcuda.so.1"))(c), "LD_PRELOAD was unset"),
    ("lazy loading", |_, c| env("CUDA_MODULE_LOADING", "EAGER")(c), "CUDA_MODULE_LOADING was unset"),
    ("another's variable", |_, c| env("CUDA_API_TOKEN", "pa55-w0rd")(c), ""),
];

#[test]
fn a_changed_driver_or_machine_is_refused() {
    for (name, make, why) in DEVICE {
        let machine = machine();
        let run = |make: &dyn Fn(&Machine, &mut Command)| -> Value {
            let report = machine.path("report.json");
            let _ = fs::remove_file(&report);
            let mut command = machine.command(
                "run",
                &["--receipt", machine.path("r.json").to_str().unwrap(), "--report"],
            );
            command.arg(&report);
            make(&machine, &mut command);
            let output = command.args(["--", "true"]).output().unwrap();
            let text =
                fs::read(&report).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
            serde_json::from_slice(&text).unwrap()
        };
        let first = run(&|_, _| {});
        assert_eq!(
            written(&first),
            ["image", "device", "smoke"],
            "{name}: {:#}",
            first["receipt"]
        );
        let second = run(make);
        if why.is_empty() {
            assert_eq!(used(&second), ["image", "device", "smoke"], "{name}");
            continue;
        }
        let reasons = refused(&second);
        assert!(
            reasons
                .iter()
                .any(|r| r.starts_with("device: ") && r.contains(why)),
            "{name}: {reasons:?}"
        );
        assert!(!used(&second).contains(&"device"), "{name}");
        let text = fs::read_to_string(machine.path("r.json")).unwrap();
        assert!(!text.contains("pa55-w0rd"), "{name}: {text}");
    }
}

#[test]
fn a_mode_that_prohibits_is_asked_anew() {
    // The table above shows refusals; this one is a verdict.
    let machine = machine();
    let file = machine.path("r.json");
    let options = ["--receipt", file.to_str().unwrap()];
    assert_eq!(machine.run(&options).exit(), 0);
    script(
        &machine,
        r#"{"devices": [{"uuid": "GPU-00000001-0000-4000-8000-000000000000", "minor": 1, "compute_mode": 2}]}"#,
    );
    let checked = machine.run(&options);
    assert_eq!(checked.exit(), 82, "{checked}");
    assert_eq!(used(&checked.report)[..2], ["image", "device"]);
}

#[test]
fn a_smoke_counts_for_another_user_who_may_read_the_same() {
    Need::Root.demand();
    let machine = machine();
    fs::set_permissions(machine.path(""), Permissions::from_mode(0o777)).unwrap();
    let binary = machine.path("cuda-entrypoint");
    copy_program(ENTRYPOINT, &binary);
    let machine = machine.binary(&binary).env("PATH", "/usr/bin:/bin");
    let run = |uid: u32| -> Value {
        let report = machine.path(&format!("report-{uid}.json"));
        let mut command = machine.command(
            "run",
            &["--receipt", machine.path("r.json").to_str().unwrap(), "--report"],
        );
        command.arg(&report).args(["--", "true"]).uid(uid).gid(uid);
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&fs::read(&report).unwrap()).unwrap()
    };
    assert_eq!(written(&run(0)), ["image", "device", "smoke"]);
    let report = run(1000);
    assert_eq!(
        used(&report),
        ["image", "device", "smoke"],
        "{:?}",
        refused(&report)
    );
}

#[test]
fn a_code_line_or_a_reinstalled_package_ends_a_smokes_proof() {
    use crate::support::scene::Scene;
    type Change = (&'static str, fn(&Scene));
    let changes: [Change; 5] = [
        ("a code line", |s| {
            fs::write(s.site().join("x.pth"), "import os\n").unwrap()
        }),
        ("sitecustomize", |s| {
            fs::write(s.site().join("sitecustomize.py"), "").unwrap()
        }),
        ("a name", |s| fs::write(s.site().join("new.py"), "").unwrap()),
        ("metadata", |s| {
            let folder = s.site().join("torch-9.dist-info");
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("METADATA"), "Name: torch\nVersion: 9\n").unwrap();
        }),
        ("a namespace", |s| fs::create_dir(s.site().join("new")).unwrap()),
    ];
    for (name, change) in changes {
        let scene = Scene::new();
        let file = scene.world.path("receipt.json");
        let options = ["--receipt", file.to_str().unwrap()];
        let first = scene.run(&options);
        assert_eq!(written(&first.report), ["image", "device", "smoke"], "{first}");
        assert_eq!(used(&scene.run(&options).report), ["image", "device", "smoke"]);
        change(&scene);
        let report = scene.run(&options).report;
        assert!(
            !used(&report).contains(&"smoke"),
            "{name}: {:#}",
            report["receipt"]
        );
    }
}

#[test]
fn duplicate_keys_and_times_in_the_future_are_refused() {
    let stage = Stage::new();
    let service = ["main.py"];
    assert_eq!(written(&stage.check(|_, _| {}, &service).1), ["image"]);
    let path = stage.path("receipt.json");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        good.replacen("\"driver\":\"\"", "\"driver\":\"\",\"driver\":\"\"", 1),
    )
    .unwrap();
    let reasons = refused(&stage.check(|_, _| {}, &service).1);
    assert!(reasons[0].contains("damaged: `driver` twice"), "{reasons:?}");
    fs::write(&path, &good).unwrap();
    edit(&path, |r| r["image"]["written"]["at"] = json!(4_000_000_000_u64));
    let reasons = refused(&stage.check(|_, _| {}, &service).1);
    assert!(
        reasons[0].contains("s in the future: the clock was set back"),
        "{reasons:?}"
    );
}
