//! What only means something as files: a Python environment's folder, and libraries that lead to each other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

thread_local! {
    /// Below TMPDIR, which should be memory.
    static ROOT: TempDir = tempfile::tempdir().expect("a folder can be made");
    /// What was written last.
    static WRITTEN: RefCell<BTreeMap<PathBuf, Vec<u8>>> = RefCell::default();
}

fn root() -> PathBuf {
    ROOT.with(|root| root.path().to_path_buf())
}

/// Writes a file, unless it says that already: it is mostly one of many that changes.
fn write(path: &Path, content: &[u8]) {
    let known =
        |written: &BTreeMap<PathBuf, Vec<u8>>| written.get(path).is_some_and(|known| known == content);
    if WRITTEN.with_borrow(known) {
        return;
    }
    if fs::write(path, content).is_err() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    WRITTEN.with_borrow_mut(|written| written.insert(path.to_path_buf(), content.to_vec()));
}

/// An environment with a distribution, an egg, a `.pth` and a script.
pub mod folder {
    use std::ffi::OsString;

    use cuda_entrypoint::discover::python::{Environment, PythonQuery};
    use cuda_entrypoint::discover::{editable, modules, wheels};
    use cuda_entrypoint::facts::ModuleKernels;

    use super::super::input::{is_printable, join, parts};
    use super::{Path, PermissionsExt, fs, root, write};

    const SITE: &str = "venv/lib/python3.11/site-packages";
    const FILES: [&str; 9] = [
        "venv/pyvenv.cfg",
        "venv/bin/service",
        "venv/lib/python3.11/site-packages/a.pth",
        "venv/lib/python3.11/site-packages/torch-2.5.0.dist-info/METADATA",
        "venv/lib/python3.11/site-packages/torch-2.5.0.dist-info/WHEEL",
        "venv/lib/python3.11/site-packages/torch/version.py",
        "venv/lib/python3.11/site-packages/x-1-py3.11.egg-info/PKG-INFO",
        "venv/lib/python3.11/site-packages/x-1-py3.11.egg-info/requires.txt",
        "venv/lib/python3.11/site-packages/torch-2.5.0.dist-info/top_level.txt",
    ];

    fn lay_out(root: &Path, bytes: &[u8]) {
        let python = root.join("venv/bin/python3");
        if !python.exists() {
            for (path, content) in [(&python, &b"\x7fELF"[..]), (&root.join("venv/bin/service"), b"")] {
                write(path, content);
                fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
            }
            fs::create_dir_all(root.join("src/y.egg-info")).unwrap();
        }
        let mut contents = parts(bytes);
        for path in FILES {
            write(&root.join(path), contents.next().unwrap_or_default());
        }
    }

    pub fn run(bytes: &[u8]) {
        let root = root();
        lay_out(&root, bytes);
        let command = [OsString::from(root.join("venv/bin/service"))];
        let env: Environment = [("PATH", root.join("venv/bin"))].into_iter().collect();
        let query = PythonQuery {
            explicit: None,
            command: &command,
            env: &env,
            cwd: &root,
            usual_places: &[],
        };
        let python = query.find();
        let _ = query.hindrance();
        // What the service names and cannot be used is not replaced by the one on PATH.
        assert!(
            python.interpreter.is_some() || !python.tried.is_empty(),
            "PATH has one: {python:?}"
        );
        python
            .notes
            .iter()
            .chain(&python.tried)
            .for_each(|text| is_printable(text));
        assert!(python.site_packages.len() <= 512);
        // Others are this machine's.
        let own: Vec<String> = python
            .site_packages
            .into_iter()
            .filter(|folder| Path::new(folder).starts_with(&root))
            .collect();
        let found = wheels::distributions(&own);
        if own.iter().any(|folder| folder.ends_with(SITE)) {
            assert!(found.len() >= 2, "{found:?}");
        }
        for dist in &found {
            let texts = dist
                .requires
                .iter()
                .chain(&dist.tags)
                .chain(&dist.module_version)
                .chain(&dist.module_cuda);
            texts
                .chain([&dist.name, &dist.version])
                .for_each(|text| is_printable(text));
        }
        assert!(editable::traps(&own).is_empty());
        let path = format!("{}/{SITE}/pointops_cuda.so", root.display());
        let mut kernels = [ModuleKernels {
            path,
            ..ModuleKernels::default()
        }];
        modules::attribute(&mut kernels, None, &own, &found);
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        vec![
            join(&[
                b"home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11.2\n",
                b"#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'python3' \"$0\" \"$@\"\n",
                b"../../../../src\n./torch\nimport os\n",
                b"Name: torch\nVersion: 2.5.0\nRequires-Dist: sympy==1.13.1; python_version >= \"3.9\"\n\n",
                b"Tag: cp311-cp311-linux_x86_64\n",
                b"__version__ = '2.5.0+cu124'\ncuda: Optional[str] = '12.4'\n",
                b"Name: x\nVersion: 1\n",
                b"a>=1\n[b]\nc\n",
                b"pointops_cuda\ntorch\n",
            ]),
            join(&[b"", b"#!/usr/bin/env -S X=1 python3 -I\n", b"."]),
        ]
    }
}

/// Three libraries and a loader's list of them, explained.
pub mod libraries {
    use cuda_entrypoint::discover::loader::explain::{Grounds, adopt, explain};
    use cuda_entrypoint::discover::loader::parse;

    use super::super::binary::dynamic_elf;
    use super::super::input::Input;
    use super::{root, write};

    const NAMES: [&str; 3] = ["libcudart-0123abcd.so.12", "liba.so", "libnvrtc.so.12"];

    /// A name that one of the libraries may be called by, or anything.
    fn name(input: &mut Input<'_>) -> String {
        match input.u8() % 6 {
            number @ 0..3 => NAMES[usize::from(number)].to_string(),
            3 => "libcuda.so.1".to_string(),
            _ => input.text().replace('\0', ""),
        }
    }

    fn folders(input: &mut Input<'_>) -> String {
        match input.u8() % 5 {
            0 => "$ORIGIN".to_string(),
            1 => "$ORIGIN/../site/nvidia/a/lib:/nowhere".to_string(),
            2 => "${ORIGIN}/.:$ORIGIN/../site".to_string(),
            _ => input.text().replace('\0', ""),
        }
    }

    pub fn run(bytes: &[u8]) {
        let root = root();
        let site = root.join("site");
        for copy in ["nvidia/a/lib", "x.libs"] {
            NAMES
                .iter()
                .for_each(|name| write(&site.join(copy).join(name), b""));
        }
        let mut input = Input::new(bytes);
        let mut list = String::new();
        for file in NAMES {
            let mut entries = Vec::new();
            for _ in 0..input.u8() % 5 {
                let how = input.u8();
                entries.push(match how % 6 {
                    0..3 => (1, name(&mut input)),
                    3 => (14, name(&mut input)),
                    4 => (15, folders(&mut input)),
                    _ => (29, folders(&mut input)),
                });
            }
            let entries: Vec<(u64, &str)> = entries.iter().map(|(tag, text)| (*tag, text.as_str())).collect();
            let path = site.join(file);
            write(&path, &dynamic_elf(&entries));
            let asked = name(&mut input).replace('\n', "");
            list.push_str(&match input.u8() % 4 {
                0 => format!("\t{} (0x1)\n", path.display()),
                1 => format!("\t{asked} => not found\n"),
                _ => format!("\t{asked} => {} (0x1)\n", path.display()),
            });
        }
        let listing = parse(list.as_bytes(), b"");
        write(&root.join("ld.so.conf"), input.bytes());
        let grounds = Grounds {
            program: site.join(NAMES[1]),
            modules: vec![site.join(NAMES[0]).to_string_lossy().into_owned()],
            site_packages: vec![site.to_string_lossy().into_owned()],
            library_path: Some(folders(&mut input)),
            conf: root.join("ld.so.conf"),
        };
        let explained = explain(&listing, &grounds, &[]);
        assert_eq!(explained.objects.len(), listing.objects.len());
        assert!(explained.objects.iter().all(|object| object.needed_by.len() <= 4));
        let mut known = Vec::new();
        adopt(&mut known, &explained.runtimes, &[]);
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        vec![
            vec![
                3, 0, 1, 3, 0, 4, 0, 0, 2, 2, 0, 0, 5, 1, 1, 2, 2, 0, 1, 4, 2, 2, 0,
            ],
            [
                &[1, 4, 4, 3][..],
                b"/x:",
                &[5, 2],
                b"ab",
                &[0; 12],
                b"\x14include a/*.conf\n/x\n",
            ]
            .concat(),
        ]
    }
}
