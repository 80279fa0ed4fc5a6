//! Files of a Python environment, and the command that starts it.

/// METADATA, PKG-INFO, WHEEL and requires.txt.
pub mod metadata {
    use std::io::{self, Read};

    use cuda_entrypoint::discover::wheels::{egg_requirements, headers_of, tags, take_metadata};
    use cuda_entrypoint::facts::Distribution;

    use super::super::input::{Input, is_printable};

    /// A file of which a read returns as little as it likes.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let step = self.1.min(buffer.len());
            self.0.read(&mut buffer[..step])
        }
    }

    pub fn run(bytes: &[u8]) {
        let mut input = Input::new(bytes);
        let step = usize::from(input.u8()) * 8 + 1;
        let file = input.rest();
        let text = headers_of(file).unwrap();
        assert_eq!(headers_of(Slow(file, step)).unwrap(), text, "in steps of {step}");
        let mut dist = Distribution::default();
        take_metadata(&mut dist, &text);
        let all = [
            tags(&text),
            egg_requirements(&String::from_utf8_lossy(file)),
            dist.requires,
        ]
        .concat();
        for value in all.iter().chain([&dist.name, &dist.version]) {
            is_printable(value);
            // A lower-case letter may be several of an upper-case one's.
            assert!(value.chars().count() <= 3001);
        }
        assert!(all.len() <= 6000);
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        let first = |text: &[u8]| [&[7], text].concat();
        vec![
            first(include_bytes!("../../fixtures/debian-12/dist-packages/PyYAML-6.0.dist-info/METADATA")),
            first(include_bytes!("../../fixtures/debian-12/dist-packages/PyYAML-6.0.dist-info/WHEEL")),
            first(include_bytes!("../../fixtures/debian-12/dist-packages/cryptography.egg-info/requires.txt")),
            first(
                b"Metadata-Version: 2.1\nName: spconv_cu124\r\nVersion: 2.3.8\nRequires-Dist: a>=1,\n\t<2; extra == 'x'\n\
                  Requires-Dist: b; python_version < '3.9' or sys_platform != 'linux'\nTag: cp311-cp311-linux\n\nName: no",
            ),
            first(b"a\n\n[x]\nb\n[:python_version < \"3\"]\nc>=1\n[d:e]\nf\n"),
        ]
    }
}

/// `Requires-Dist` lines.
pub mod requirement {
    use cuda_entrypoint::discover::requirement::{MarkerEnvironment, Requirement};
    use cuda_entrypoint::discover::wheels::may_apply;

    use super::super::input::is_printable;

    pub fn run(bytes: &[u8]) {
        let Ok(line) = std::str::from_utf8(bytes) else {
            return;
        };
        let line = line.lines().next().unwrap_or_default();
        let kept = may_apply(line);
        let requirement: Requirement = match line.parse() {
            Ok(requirement) => requirement,
            Err(error) => return is_printable(&format!("{error}")),
        };
        let unknown = requirement.applies(&MarkerEnvironment::of(None));
        assert_eq!(kept, unknown != Some(false), "{line}");
        for version in ["3.8", "3.11.7", "3.14.0"] {
            let known = requirement.applies(&MarkerEnvironment::of(Some(version)));
            // Who knows more says nothing else.
            assert!(unknown.is_none() || known == unknown, "{line} with {version}");
        }
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        [
            "cumm-cu124[a,b] (<0.8.0,>=0.7.11)",
            r#"triton==3.1.0; platform_system == "Linux" and platform_machine == "x86_64" and python_version < "3.13""#,
            "x @ https://a/b;c?d ; sys_platform == 'win32'",
            r#"a; extra != "x" and (os_name == "nt" or os.name == 'posix')"#,
            "b>=1,<2; python_full_version not in '3.8.1' and extra == 'test'",
            "c~=1.4.2,!=1.4.5,===2+local; implementation_name=='cpython'or platform_release>'5'",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    }
}

/// `version.py`.
pub mod version_file {
    use cuda_entrypoint::discover::wheels::assigned_text;

    use super::super::input::is_printable;

    pub fn run(bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        for name in ["__version__", "cuda"] {
            if let Some(value) = assigned_text(&text, name) {
                is_printable(&value);
                assert!(!value.is_empty() && value.chars().count() <= 1001);
            }
        }
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        [
            "from typing import Optional\n\n__all__ = ['__version__', 'debug', 'cuda']\n__version__ = '2.5.0+cu124'\n\
             debug = False\ncuda: Optional[str] = '12.4'\ngit_version = 'abc'\nhip: Optional[str] = None\n",
            "__version__ = \"2.2.0\" # comment\ncuda=None\n",
            "__version__ == '1'\n__version__ : str=\"1\\n\"; x\ncuda = 'a' 'b'\n",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    }
}

/// RECORD.
pub mod record {
    use cuda_entrypoint::discover::record::parse;

    pub fn run(bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let record = parse(&text);
        assert!(record.libraries.len() + record.packages.len() <= text.len() / 3);
        for library in &record.libraries {
            assert!(library.contains(".so") && !library.ends_with('/'), "{library:?}");
        }
        for package in &record.packages {
            assert!(
                !package.is_empty() && !package.contains(['/', '.', '\n']),
                "{package:?}"
            );
        }
        assert!(record.has_packages || record.packages.is_empty());
        // What a line says does not depend on those before it, unless a quote is open.
        if !text.contains('"') {
            let each = text.split('\n').map(parse);
            let libraries: Vec<_> = each.clone().flat_map(|r| r.libraries).collect();
            let packages: Vec<_> = each.flat_map(|r| r.packages).collect();
            assert_eq!((libraries, packages), (record.libraries, record.packages));
        }
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        [
            "../../../bin/torchrun,sha256=x,213\ntorch/__init__.py,sha256=x,90412\n\
             torch/_C.cpython-311-x86_64-linux-gnu.so,sha256=x,37913\ntorch/lib/libcudnn.so.9,sha256=x,1\n\
             nvidia/__init__.py,sha256=x,0\ntorch-2.5.0.dist-info/RECORD,,\n",
            "\"a,b.so\",sha256=x,1\r\n\"a\"\"b.so.1.2\",\"sha256=x\",\"1\"\n\"x/__init__.py\",h,\"0\"\n\"open\nc.so",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    }
}

/// `.pth` files.
pub mod pth {
    use cuda_entrypoint::discover::python::parse_pth;

    pub fn run(bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let pth = parse_pth(&text);
        assert!(pth.folders.len() + pth.code_lines <= text.lines().count().min(10_000));
        for folder in pth.folders {
            assert!(!folder.is_empty() && !folder.contains('\n') && !folder.starts_with("import "));
            assert_eq!(folder.trim_end(), folder);
        }
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        [
            "import os; exec('x')\n../src\n# comment\n\n/opt/packages \nimport\tsys\n",
            "\u{feff}import distutils-precedence\r\n./a\r\n",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    }
}

/// pyvenv.cfg, patchlevel.h, .python-version and the names of folders and programs.
pub mod environment_files {
    use cuda_entrypoint::discover::editable;
    use cuda_entrypoint::discover::python::{
        PyVersion, is_python_name, named_versions, parse_config, parse_patchlevel, version_of_name,
    };

    pub fn run(bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let config = parse_config(&text);
        for version in [
            config.version,
            parse_patchlevel(&text),
            PyVersion::parse(&text),
            version_of_name(&text),
        ]
        .into_iter()
        .flatten()
        {
            assert_eq!(PyVersion::parse(&version.to_string()), Some(version));
        }
        for version in named_versions(&text) {
            assert!(!version.is_empty() && !version.contains(['/', '\n', '#']));
        }
        let _ = is_python_name(&text);
        // No folder at all has no trap.
        assert!(editable::traps(&[]).is_empty());
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        [
            "home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11.2\n",
            "home=/usr/bin\nimplementation = CPython\nversion_info = 3.12.1.final.0\nInclude-System-Site-Packages = TRUE\n",
            "#define PY_MAJOR_VERSION 3\n#define PY_VERSION             \"3.11.7\"\n",
            "3.11.7\n# comment\n3.12 # other\nsystem\n",
            "python3.13t",
            "3.13.0rc1",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    }
}

/// The service's command, and the first lines of a script.
pub mod command_line {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use std::path::Path;

    use cuda_entrypoint::discover::python::{
        Environment, PythonQuery, exec_of_text, first_shell_word, interpreter_of_exec, isolation,
        unwrap_wrappers,
    };

    use super::super::input::{join, parts};

    pub fn run(bytes: &[u8]) {
        let words: Vec<OsString> = parts(bytes).map(|w| OsString::from_vec(w.to_vec())).collect();
        let mut env = Environment::default();
        let behind = unwrap_wrappers(&words, &mut env);
        assert!(words.is_empty() || !behind.is_empty());
        let found = isolation(&behind);
        // -I is the only one that sets both.
        let _ = (
            found.ignores_environment,
            found.no_user_site,
            found.no_site,
            found.working_folder,
        );
        let text = String::from_utf8_lossy(bytes);
        if let Some(word) = first_shell_word(&text) {
            assert!(!word.is_empty());
        }
        if let Some(path) = interpreter_of_exec(&text, "/opt/venv/bin") {
            assert!(!path.is_empty());
        }
        // A shell's line, which is followed without running it.
        let command = ["sh", "-c", &text].map(OsString::from);
        let query = PythonQuery {
            explicit: None,
            command: &command,
            env: &env,
            cwd: Path::new("/nowhere"),
            usual_places: &[],
        };
        let python = query.find();
        assert!(python.tried.iter().all(|why| !why.contains(char::is_control)));
        if let Some(argv) = exec_of_text(&text, &words) {
            assert!(!argv.is_empty() && text.contains("exec"));
        }
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        let all: &[&[&str]] = &[
            &["tini", "-g", "--", "python", "-I", "-m", "x"],
            &[
                "env",
                "-i",
                "-u",
                "A",
                "B=1",
                "nice",
                "-n",
                "10",
                "sh",
                "-ec",
                "X=1 exec python3 -Es -c pass",
            ],
            &[
                "env", "-S", "B=1", "timeout", "-k", "5", "60", "python", "-W", "ignore", "-Xdev", "-P",
                "x.py",
            ],
            &[
                "set -eu\n# Starts it.\ncd /app && export A=\"$B\"; exec -a x python3 \\\n -m svc \"$@\" 2>&1\n",
            ],
            &[" '/opt/a b/python3' \"$0\" \"$@\""],
            &[" \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'python3' \"$0\" \"$@\""],
        ];
        let bytes = |words: &&[&str]| join(&words.iter().map(|w| w.as_bytes()).collect::<Vec<_>>());
        all.iter().map(bytes).collect()
    }
}
