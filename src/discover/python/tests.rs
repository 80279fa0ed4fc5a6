//! Synthetic images in temporary folders: each test lays out what a real one has.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::*;

pub(super) struct Image {
    dir: tempfile::TempDir,
    pub(super) env: std::cell::RefCell<Environment>,
}

impl Image {
    pub(super) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            env: Default::default(),
        }
    }
    pub(super) fn root(&self) -> &Path {
        self.dir.path()
    }
    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }
    pub(super) fn file(&self, path: &str, text: &str) -> &Self {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text.replace("ROOT", self.root().to_str().unwrap())).unwrap();
        self
    }
    pub(super) fn program(&self, path: &str, text: &str) -> &Self {
        self.file(path, text);
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(0o755)).unwrap();
        self
    }
    pub(super) fn elf(&self, path: &str) -> &Self {
        self.program(path, "\x7fELF")
    }
    pub(super) fn link(&self, path: &str, to: &str) -> &Self {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(to.replace("ROOT", self.root().to_str().unwrap()), path).unwrap();
        self
    }
    pub(super) fn dir(&self, path: &str) -> &Self {
        fs::create_dir_all(self.at(path)).unwrap();
        self
    }
    pub(super) fn set(&self, name: &str, value: &str) -> &Self {
        self.env
            .borrow_mut()
            .set(name, value.replace("ROOT", self.root().to_str().unwrap()));
        self
    }
    /// `python:3.11` images: everything below /usr/local.
    pub(super) fn official(&self) -> &Self {
        self.elf("usr/local/bin/python3.11")
            .link("usr/local/bin/python3", "python3.11")
            .link("usr/local/bin/python", "python3")
            .file("usr/local/lib/python3.11/os.py", "")
            .dir("usr/local/lib/python3.11/site-packages")
            .file(
                "usr/local/include/python3.11/patchlevel.h",
                "#define PY_VERSION \t \"3.11.9\"\n",
            )
    }
    /// Debian 12 with python3-pip.
    pub(super) fn debian(&self) -> &Self {
        self.elf("usr/bin/python3.11")
            .link("usr/bin/python3", "python3.11")
            .link("bin", "usr/bin")
            .file("usr/lib/python3.11/os.py", "")
            .dir("usr/lib/python3/dist-packages")
            .dir("usr/local/lib/python3.11/dist-packages")
    }
    pub(super) fn venv(&self, folder: &str, home: &str, more: &str) -> &Self {
        self.link(&format!("{folder}/bin/python3"), &format!("ROOT/{home}/python3"))
            .link(&format!("{folder}/bin/python"), "python3")
            .file(
                &format!("{folder}/pyvenv.cfg"),
                &format!("home = ROOT/{home}\n{more}\nversion = 3.11.4\n"),
            )
            .dir(&format!("{folder}/lib/python3.11/site-packages"))
            .link(&format!("{folder}/lib64"), "lib")
    }
    /// The Python of a command whose words are given; no usual places are looked at.
    pub(super) fn python_of(&self, argv: &[&str]) -> Python {
        let root = self.root().to_str().unwrap();
        let command: Vec<OsString> = argv.iter().map(|a| a.replace("ROOT", root).into()).collect();
        PythonQuery {
            explicit: None,
            command: &command,
            env: &self.env.borrow(),
            cwd: &self.at("work"),
            usual_places: &[],
        }
        .find()
    }
    pub(super) fn find(&self, explicit: Option<&str>, command: &str) -> Python {
        let root = self.root().to_str().unwrap();
        let command: Vec<OsString> = command
            .replace("ROOT", root)
            .split_whitespace()
            .map(OsString::from)
            .collect();
        let explicit = explicit.map(|e| PathBuf::from(e.replace("ROOT", root)));
        let mut python = PythonQuery {
            explicit: explicit.as_deref(),
            command: &command,
            env: &self.env.borrow(),
            cwd: &self.at("work"),
            usual_places: &[
                self.at("opt/venv/bin"),
                self.at("usr/local/bin"),
                self.at("usr/bin"),
            ],
        }
        .find();
        // Paths as they would be if the temporary folder were the root.
        let strip = |text: &mut String| *text = text.replace(root, "");
        python
            .interpreter
            .iter_mut()
            .chain(python.prefix.iter_mut())
            .for_each(strip);
        python
            .site_packages
            .iter_mut()
            .chain(&mut python.tried)
            .chain(&mut python.notes)
            .for_each(strip);
        python
    }
}

fn summary(python: &Python) -> (Option<&str>, Option<&str>, Option<&str>, Option<&str>) {
    (
        python.found_by.as_deref(),
        python.interpreter.as_deref(),
        python.prefix.as_deref(),
        python.version.as_deref(),
    )
}

#[test]
fn an_official_python_image() {
    let image = Image::new();
    image.official().set("PATH", "ROOT/usr/local/bin:ROOT/usr/bin");
    let python = image.find(None, "");
    let expected = (
        Some("PATH"),
        Some("/usr/local/bin/python3"),
        Some("/usr/local"),
        Some("3.11.9"),
    );
    assert_eq!(summary(&python), expected);
    assert_eq!(python.site_packages, ["/usr/local/lib/python3.11/site-packages"]);
}

#[test]
fn debian_has_dist_packages_and_its_bin_may_be_a_link() {
    let image = Image::new();
    image.debian().set("PATH", "ROOT/bin");
    let python = image.find(None, "");
    assert_eq!(
        summary(&python),
        (Some("PATH"), Some("/bin/python3"), Some("/usr"), Some("3.11"))
    );
    let expected = [
        "/usr/local/lib/python3.11/dist-packages",
        "/usr/lib/python3/dist-packages",
    ];
    assert_eq!(python.site_packages, expected);
}

#[test]
fn an_interpreter_from_source_beside_debians_does_not_see_dist_packages() {
    let image = Image::new();
    image
        .debian()
        .official()
        .set("PATH", "ROOT/usr/local/bin:ROOT/usr/bin");
    assert_eq!(
        image.find(None, "").site_packages,
        ["/usr/local/lib/python3.11/site-packages"]
    );
}

#[test]
fn fedora_searches_local_and_lib64_first() {
    let image = Image::new();
    image
        .elf("usr/bin/python3.12")
        .link("usr/bin/python3", "python3.12")
        .file("usr/lib64/python3.12/os.py", "")
        .dir("usr/lib64/python3.12/site-packages")
        .dir("usr/lib/python3.12/site-packages")
        .dir("usr/local/lib/python3.12/site-packages")
        .set("PATH", "ROOT/usr/bin");
    let python = image.find(None, "");
    let expected = [
        "/usr/local/lib/python3.12/site-packages",
        "/usr/lib64/python3.12/site-packages",
        "/usr/lib/python3.12/site-packages",
    ];
    assert_eq!(python.site_packages, expected);
    assert_eq!(python.version.as_deref(), Some("3.12"));
}

#[test]
fn a_virtual_environment_shares_nothing_unless_it_says_so() {
    let image = Image::new();
    image
        .debian()
        .venv("opt/venv", "bin", "include-system-site-packages = false");
    image
        .dir("root/.local/lib/python3.11/site-packages")
        .set("HOME", "ROOT/root");
    image.set("VIRTUAL_ENV", "ROOT/opt/venv");
    let python = image.find(None, "");
    let expected = (
        Some("VIRTUAL_ENV"),
        Some("/opt/venv/bin/python3"),
        Some("/opt/venv"),
        Some("3.11.4"),
    );
    assert_eq!(summary(&python), expected);
    assert_eq!(python.site_packages, ["/opt/venv/lib/python3.11/site-packages"]);

    image.file(
        "opt/venv/pyvenv.cfg",
        "home = ROOT/bin\ninclude-system-site-packages = true\n",
    );
    let python = image.find(None, "");
    let expected = [
        "/opt/venv/lib/python3.11/site-packages",
        "/root/.local/lib/python3.11/site-packages",
        "/usr/local/lib/python3.11/dist-packages",
        "/usr/lib/python3/dist-packages",
    ];
    assert_eq!(python.site_packages, expected);
}

#[test]
fn the_version_of_the_day_it_was_made_does_not_outlive_an_upgrade() {
    let image = Image::new();
    image.official().venv("v", "usr/local/bin", "");
    image.set("VIRTUAL_ENV", "ROOT/v");
    assert_eq!(image.find(None, "").version.as_deref(), Some("3.11.9"));
}

#[test]
fn a_link_to_a_virtual_environments_python_is_not_in_it() {
    let image = Image::new();
    image
        .official()
        .venv("opt/venv", "usr/local/bin", "")
        .link("links/bin/python3", "ROOT/opt/venv/bin/python3");
    image.set("PATH", "ROOT/links/bin");
    assert_eq!(image.find(None, "").prefix.as_deref(), Some("/usr/local"));
}

#[test]
fn conda() {
    let image = Image::new();
    image
        .elf("opt/conda/envs/x/bin/python3.10")
        .link("opt/conda/envs/x/bin/python", "python3.10")
        .dir("opt/conda/envs/x/conda-meta")
        .file("opt/conda/envs/x/lib/python3.10/os.py", "")
        .dir("opt/conda/envs/x/lib/python3.10/site-packages")
        .link("opt/conda/envs/x/lib/python3.1", "python3.10")
        .set("CONDA_PREFIX", "ROOT/opt/conda/envs/x");
    let python = image.find(None, "");
    let expected = (
        Some("CONDA_PREFIX"),
        Some("/opt/conda/envs/x/bin/python"),
        Some("/opt/conda/envs/x"),
        Some("3.10"),
    );
    assert_eq!(summary(&python), expected);
    assert_eq!(
        python.site_packages,
        ["/opt/conda/envs/x/lib/python3.10/site-packages"]
    );
}

#[test]
fn the_service_commands_own_interpreter_comes_first() {
    let image = Image::new();
    image.official().venv(
        "opt/venv",
        "usr/local/bin",
        "include-system-site-packages = false",
    );
    image
        .set("PATH", "ROOT/usr/local/bin")
        .set("CONDA_PREFIX", "ROOT/usr/local");
    let venv = "/opt/venv";
    image.program("opt/venv/bin/serve", "#!ROOT/opt/venv/bin/python3\nimport sys\n");
    image.program(
        "opt/venv/bin/long",
        "#!/bin/sh\n'''exec' ROOT/opt/venv/bin/python3 \"$0\" \"$@\"\n' '''\n",
    );
    image.program("work/app.py", "#!/usr/bin/env -S A=1 python3 -I\n");
    image.program("work/run.sh", "#!/bin/sh\nexec python3 app.py\n");
    image.elf("work/server");
    for (command, prefix) in [
        ("ROOT/opt/venv/bin/python app.py", venv),
        ("../opt/venv/bin/python app.py", venv),
        ("tini -- ROOT/opt/venv/bin/serve --port 1", venv),
        ("ROOT/opt/venv/bin/long", venv),
        ("env PATH=ROOT/opt/venv/bin python app.py", venv),
        ("./app.py", "/usr/local"),
        ("./run.sh", "/usr/local"),
        ("python3.11 -m x", "/usr/local"),
    ] {
        let python = image.find(None, command);
        assert_eq!(
            python.found_by.as_deref(),
            Some("the service command"),
            "{command} {python:?}"
        );
        assert_eq!(python.prefix.as_deref(), Some(prefix), "{command}");
    }
    for command in ["./server", "nowhere", "ROOT/gone/python", "./folder"] {
        let python = image.find(None, command);
        assert_eq!(python.found_by.as_deref(), Some("CONDA_PREFIX"), "{command}");
        assert!(
            python.tried[0].starts_with("the service command: "),
            "{command} {:?}",
            python.tried
        );
    }
}

/// The options of GNU's env, and where they end: what stands behind its command is the command's own.
#[test]
fn env_has_options_up_to_its_command() {
    let words = |line: &str| -> Vec<OsString> { line.split('|').map(OsString::from).collect() };
    for (line, command) in [
        ("env|python|svc.py|-S|x", "python|svc.py|-S|x"),
        ("env|A=1|python|-u|svc.py", "python|-u|svc.py"),
        ("env|python|-S|svc.py", "python|-S|svc.py"),
        ("env|-S|python -u|svc.py", "python|-u|svc.py"),
        ("env|-S|A=1 python -u|svc.py", "python|-u|svc.py"),
        ("env|-Spython -u|svc.py", "python|-u|svc.py"),
        ("env|-iS|A=1 python|svc.py", "python|svc.py"),
        ("env|-vS|python|svc.py", "python|svc.py"),
        ("env|-S|-u HOME python|svc.py", "python|svc.py"),
        ("env|--split-string=python -u|svc.py", "python|-u|svc.py"),
        ("env|--split-string|python -u|svc.py", "python|-u|svc.py"),
        ("env|-i|python|x", "python|x"),
        ("env|-|python|x", "python|x"),
        ("env|-u|HOME|-uUSER|--unset=A|python|x", "python|x"),
        ("env|-C|/app|--chdir=/app|-a|name|python|x", "python|x"),
        ("env|--block-signal|--default-signal=PIPE|python|x", "python|x"),
        ("env|--|python|--|-S", "python|--|-S"),
        // There is no command.
        ("env|-S", "env|-S"),
        ("env|-u", "env|-u"),
    ] {
        let unwrapped = command::unwrap_wrappers(&words(line), &mut Environment::default());
        let expected = words(command);
        assert_eq!(unwrapped, expected, "{line}");
    }
    let mut env: Environment = [("A", "1"), ("PATH", "/bin"), ("HOME", "/h")]
        .into_iter()
        .collect();
    command::unwrap_wrappers(&words("env|-u|A|--unset=HOME|B=2|python"), &mut env);
    assert_eq!((env.get("A"), env.get("HOME")), (None, None));
    assert_eq!(env.get("B"), Some("2".as_ref()));
    command::unwrap_wrappers(&words("env|-i|C=3|python"), &mut env);
    assert_eq!(env.get("B"), None);
    assert_eq!(env.get("PATH"), Some("/bin:/usr/bin".as_ref()));
    assert_eq!(env.get("C"), Some("3".as_ref()));
}

#[test]
fn a_service_command_that_does_not_tell_its_python_says_why() {
    let image = Image::new();
    image.official().set("PATH", "ROOT/usr/local/bin:ROOT/bin");
    image
        .elf("bin/bash")
        .elf("usr/local/bin/hatch")
        .program("work/serve", "#!ROOT/gone/bin/python3\nimport sys\n");
    for (argv, is_unknown, why) in [
        (
            &["bash", "-c", "cd /x && exec tv/bin/python x"][..],
            true,
            "`bash -c`: tv/bin/python is not found",
        ),
        (
            &["bash", "-c", "source tv/bin/activate; python x"],
            true,
            "`bash -c`: ROOT/work/tv/bin/activate does not exist",
        ),
        (
            &["tini", "--", "ROOT/bin/bash", "-c", "\"$PYTHON\" x"],
            true,
            "`bash -c`: the value of \"$PYTHON\" is unknown",
        ),
        (
            &["env", "A=1", "bash", "-c", "exec ./svc"],
            false,
            "`bash -c` starts no Python that can be seen",
        ),
        (
            &["hatch", "run", "serve"],
            true,
            "`hatch` chooses what it starts by its own configuration",
        ),
        (
            &["./serve"],
            false,
            "ROOT/work/serve wants ROOT/gone/bin/python3, which is not found",
        ),
    ] {
        let root = image.root().to_str().unwrap();
        let python = image.python_of(argv);
        let by = (!is_unknown).then_some("PATH");
        assert_eq!(python.found_by.as_deref(), by, "{argv:?}");
        let why = why.replace("ROOT", root);
        assert_eq!(python.tried, [format!("the service command: {why}")], "{argv:?}");
        assert_eq!(python.undetermined, is_unknown.then_some(why), "{argv:?}");
        assert!(!is_unknown || python.site_packages.is_empty(), "{argv:?}");
    }
}

/// What the service would not start with is not judged in its place.
#[test]
fn a_broken_interpreter_of_the_service_is_not_replaced() {
    let image = Image::new();
    image.official().set("PATH", "ROOT/usr/local/bin");
    image.link("work/.venv/bin/python", "/gone/python3.11");
    let python = image.find(None, ".venv/bin/python app.py");
    assert_eq!(summary(&python), (None, None, None, None));
    let why = "the service command: /work/.venv/bin/python is a symbolic link to /gone/python3.11, which is not there";
    assert_eq!(python.tried, [why]);
}

/// Each tool's own rule for its environment.
#[test]
fn tools_that_run_commands_in_an_environment() {
    let image = Image::new();
    image.official().set("PATH", "ROOT/usr/local/bin");
    let plain = |folder: &str| {
        image.venv(folder, "usr/local/bin", "include-system-site-packages = false");
    };
    for folder in ["work/.venv", "work/.pixi/envs/default", "other/.venv", "opt/env"] {
        plain(folder);
    }
    for folder in ["opt/conda", "opt/conda/envs/svc"] {
        image
            .elf(&format!("{folder}/bin/python3.11"))
            .link(&format!("{folder}/bin/python3"), "python3.11")
            .link(&format!("{folder}/bin/python"), "python3.11")
            .file(&format!("{folder}/lib/python3.11/os.py"), "")
            .dir(&format!("{folder}/lib/python3.11/site-packages"))
            .dir(&format!("{folder}/conda-meta"));
    }
    image
        .program("opt/conda/bin/conda", "#!ROOT/opt/conda/bin/python\n")
        .program(".venv/bin/serve", "#!ROOT/work/.venv/bin/python\n")
        .file("work/pyproject.toml", "[project]\nname = \"x\"\n")
        .file("work/Pipfile", "")
        .file("other/pyproject.toml", "[project]\n")
        .file("work/alone.py", "# /// script\n# dependencies = []\n# ///\n");
    image.set("MAMBA_ROOT_PREFIX", "ROOT/opt/conda");
    let venv = Some("/work/.venv");
    let svc = Some("/opt/conda/envs/svc");
    for (command, prefix) in [
        ("uv run python app.py", venv),
        ("uv run --no-sync --extra gpu app.py", venv),
        ("uv run -- uvicorn main:app", venv),
        ("uv run bash -c python", venv),
        ("uv run --project ../other python app.py", Some("/other/.venv")),
        ("uv --directory ../other run python app.py", Some("/other/.venv")),
        ("uv run ROOT/usr/local/bin/python3 app.py", Some("/usr/local")),
        ("env UV_PROJECT_ENVIRONMENT=/nowhere uv run python", None),
        (
            "env UV_PROJECT_ENVIRONMENT=ROOT/opt/env uv run python",
            Some("/opt/env"),
        ),
        ("uv run --with numpy python app.py", None),
        ("uv run alone.py", None),
        ("uvx vllm", None),
        ("uv tool run vllm", None),
        ("rye run serve", venv),
        ("pdm run serve", venv),
        ("poetry run serve", venv),
        ("pipenv run serve", venv),
        ("env VIRTUAL_ENV=ROOT/opt/env poetry run serve", Some("/opt/env")),
        ("env VIRTUAL_ENV=ROOT/opt/env uv run python", venv),
        (
            "env VIRTUAL_ENV=ROOT/opt/env uv run --active python",
            Some("/opt/env"),
        ),
        ("pixi run serve", Some("/work/.pixi/envs/default")),
        ("pixi run -e gpu serve", None),
        ("ROOT/opt/conda/bin/conda run -n svc python app.py", svc),
        (
            "ROOT/opt/conda/bin/conda run -n base python app.py",
            Some("/opt/conda"),
        ),
        ("ROOT/opt/conda/bin/conda run -n gone python app.py", None),
        (
            "conda run -p ROOT/opt/conda/envs/svc --no-capture-output serve",
            svc,
        ),
        ("micromamba run -n svc python", svc),
        ("hatch run python app.py", None),
        ("supervisord -n", None),
        ("sudo -u svc .venv/bin/python app.py", venv),
        ("sudo -u svc python app.py", None),
        ("su svc -c .venv/bin/python", venv),
        ("launcher --opt .venv/bin/python app.py", venv),
    ] {
        let python = image.find(None, command);
        assert_eq!(python.prefix.as_deref(), prefix, "{command}: {python:?}");
        assert_eq!(python.undetermined.is_none(), prefix.is_some(), "{command}");
    }
}

/// uv's own interpreters lie below the home of the user who ran it.
#[test]
fn a_folder_that_this_user_may_not_enter_is_named() {
    if nix::unistd::geteuid().is_root() {
        // Nothing is closed to root; tests/image/python.rs looks at it as another user.
        return;
    }
    let image = Image::new();
    image.elf("home/uv/bin/python3.11");
    image.link("venv/bin/python", "ROOT/home/uv/bin/python3.11");
    fs::set_permissions(image.at("home"), fs::Permissions::from_mode(0o000)).unwrap();
    let python = image.find(None, "ROOT/venv/bin/python app.py");
    fs::set_permissions(image.at("home"), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(python.closed_folder.unwrap().folder.ends_with("/home"));
}

#[test]
fn an_explicit_file_that_is_no_python_is_refused() {
    let image = Image::new();
    image
        .official()
        .elf("usr/local/bin/ls")
        .elf("usr/local/bin/pypy3")
        .link("usr/local/bin/interpreter", "python3.11")
        .program("usr/local/bin/serve", "#!ROOT/usr/local/bin/python3\n")
        .venv("venv", "usr/local/bin", "")
        .elf("venv/bin/embedded")
        .set("PATH", "ROOT/usr/local/bin");
    for given in ["ROOT/usr/local/bin/ls", "ls"] {
        let python = image.find(Some(given), "python3");
        assert_eq!(summary(&python), (None, None, None, None), "{given}");
        assert_eq!(
            python.tried,
            ["--python: /usr/local/bin/ls is not called python, and no virtual environment is its own"],
            "{given}"
        );
    }
    for (given, prefix) in [
        ("ROOT/usr/local/bin/interpreter", "/usr/local"),
        ("ROOT/usr/local/bin/serve", "/usr/local"),
        ("pypy3", "/usr/local"),
        ("ROOT/venv/bin/embedded", "/venv"),
    ] {
        let python = image.find(Some(given), "");
        assert_eq!(
            python.prefix.as_deref(),
            Some(prefix),
            "{given} {:?}",
            python.tried
        );
    }
}

#[test]
fn an_explicit_choice_is_not_replaced() {
    let image = Image::new();
    image.official().set("PATH", "ROOT/usr/local/bin");
    for given in [
        "ROOT/gone",
        "gone",
        "ROOT/usr/local/lib/python3.11/os.py",
        "ROOT/usr/local/include",
        "",
    ] {
        let python = image.find(Some(given), "python3");
        assert_eq!(summary(&python), (None, None, None, None), "{given}");
        assert_eq!(python.tried.len(), 1, "{given}");
        assert!(python.tried[0].starts_with("--python: "), "{:?}", python.tried);
    }
    for given in [
        "ROOT/usr/local",
        "python3.11",
        "../usr/local/bin/python",
        "ROOT/usr/local/bin/../bin/python",
    ] {
        assert_eq!(
            image.find(Some(given), "").prefix.as_deref(),
            Some("/usr/local"),
            "{given}"
        );
    }
}

#[test]
fn folders_without_an_interpreter() {
    let image = Image::new();
    image
        .dir("env/lib/python3.12/site-packages")
        .dir("target/x-1.dist-info");
    let python = image.find(Some("ROOT/env"), "");
    assert_eq!(
        summary(&python),
        (Some("--python"), None, Some("/env"), Some("3.12"))
    );
    assert_eq!(python.site_packages, ["/env/lib/python3.12/site-packages"]);
    let python = image.find(Some("ROOT/target"), "");
    assert_eq!(summary(&python), (Some("--python"), None, Some("/target"), None));
    assert_eq!(python.site_packages, ["/target"]);
}

#[test]
fn broken_links_and_other_wrecks_are_named_and_passed_over() {
    let image = Image::new();
    image
        .official()
        .link("a/python3", "/gone/python3.9")
        .link("b/python3", "python3")
        .file("c/python3", "\x7fELF")
        .program("d/python3", "text")
        .program("e/python3", "#!/bin/bash\nexec x")
        .program("f/python3", "#!ROOT/e/python3\n")
        .dir("g/python3")
        .set(
            "PATH",
            "ROOT/a:ROOT/b:ROOT/c:ROOT/d:ROOT/e:ROOT/f:ROOT/g::ROOT/usr/local/bin",
        );
    nix::unistd::mkfifo(&image.at("usr/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    image.link("h/python3", "ROOT/usr/fifo");
    let python = image.find(None, "");
    assert_eq!(python.interpreter.as_deref(), Some("/usr/local/bin/python3"));
    let expected = [
        "PATH: /a/python3 is a symbolic link to /gone/python3.9, which is not there",
        "PATH: /b/python3 is a symbolic link to python3, which is not there",
        "PATH: /d/python3 is neither a program nor a script",
        "PATH: /e/python3 is a shell script",
        "PATH: /f/python3 leads to /e/python3, which is a script as well",
    ];
    assert_eq!(python.tried, expected);
    assert_eq!(
        image.find(Some("ROOT/h/python3"), "").tried,
        ["--python: /h/python3 is not a file"]
    );
    assert!(image.find(Some("ROOT/c/python3"), "").tried[0].ends_with("is not executable"));
}

#[test]
fn pyenv_shims_lead_to_the_version_that_is_selected() {
    let image = Image::new();
    for version in ["3.10.13", "3.11.7", "3.11.10"] {
        let root = format!("pyenv/versions/{version}");
        let minor = &version[..4];
        image
            .elf(&format!("{root}/bin/python{minor}"))
            .link(&format!("{root}/bin/python3"), &format!("python{minor}"))
            .file(&format!("{root}/lib/python{minor}/os.py"), "")
            .dir(&format!("{root}/lib/python{minor}/site-packages"));
    }
    image
        .program("pyenv/shims/python3", "#!/usr/bin/env bash\n")
        .set("PATH", "ROOT/pyenv/shims");
    let prefix = |image: &Image| image.find(None, "").prefix;
    assert_eq!(prefix(&image), None);
    assert!(image.find(None, "").tried[0].contains("no file says which version"));
    image.file("pyenv/version", "3.10.13\n");
    assert_eq!(prefix(&image).as_deref(), Some("/pyenv/versions/3.10.13"));
    image.file("work/.python-version", "# comment\n2.7.18\n3.11\n");
    assert_eq!(prefix(&image).as_deref(), Some("/pyenv/versions/3.11.10"));
    image.set("PYENV_VERSION", "3.11.7:3.10.13");
    assert_eq!(prefix(&image).as_deref(), Some("/pyenv/versions/3.11.7"));
    image.set("PYENV_VERSION", "system");
    assert!(image.find(None, "").tried[0].contains("no version that PYENV_VERSION names has a python3"));
}

#[test]
fn pythonpath_user_site_and_what_turns_them_off() {
    let image = Image::new();
    image
        .official()
        .dir("code/a")
        .dir("work/rel")
        .dir("home/.local/lib/python3.11/site-packages")
        .dir("base/lib/python3.11/site-packages")
        .set("PATH", "ROOT/usr/local/bin")
        .set("HOME", "ROOT/home")
        .set(
            "PYTHONPATH",
            "ROOT/code/a:rel:ROOT/gone:ROOT/code/a/zip.zip:ROOT/code/../code/a",
        );
    let own = "/usr/local/lib/python3.11/site-packages";
    let user = "/home/.local/lib/python3.11/site-packages";
    let find = |image: &Image, command: &str| image.find(None, command).site_packages;
    assert_eq!(find(&image, ""), ["/code/a", "/work/rel", user, own]);
    assert_eq!(find(&image, "python3 -s x"), ["/code/a", "/work/rel", own]);
    assert_eq!(find(&image, "python3 -E x"), [user, own]);
    assert_eq!(find(&image, "python3 -I x"), [own]);
    image.set("PYTHONUSERBASE", "ROOT/base").set("PYTHONPATH", "");
    assert_eq!(find(&image, ""), ["/base/lib/python3.11/site-packages", own]);
    image.set("PYTHONNOUSERSITE", "1");
    assert_eq!(find(&image, ""), [own]);
}

#[test]
fn pythonhome_moves_the_prefix() {
    let image = Image::new();
    image
        .official()
        .dir("home/lib/python3.11/site-packages")
        .set("PATH", "ROOT/usr/local/bin");
    image.set("PYTHONHOME", "ROOT/home:ROOT/exec");
    let broken = |command| image.find(None, command).broken_home.is_some();
    assert!(broken("") && broken("python3 x") && !broken("python3 -I x"));
    image.file("home/lib/python3.11/os.py", "");
    assert!(!broken(""));
    assert_eq!(
        image.find(None, "").site_packages,
        ["/home/lib/python3.11/site-packages"]
    );
    assert_eq!(
        image.find(None, "python3 -I x").prefix.as_deref(),
        Some("/usr/local")
    );
}

#[test]
fn path_files_add_folders_and_their_code_is_noted() {
    let image = Image::new();
    let site = "usr/local/lib/python3.11/site-packages";
    image
        .official()
        .dir("src/one")
        .dir(&format!("{site}/two"))
        .dir(&format!("{site}/three"))
        .file(
            &format!("{site}/b.pth"),
            "\u{feff}# c\n\ntwo\nROOT/src/one  \nROOT/gone\nimport os; os.x()\nimport\ty\n",
        )
        .file(&format!("{site}/a.pth"), "three\n")
        .file(&format!("{site}/.hidden.pth"), "..\n")
        .file(&format!("{site}/two/inner.pth"), "ROOT/usr\n")
        .file(&format!("{site}/self.pth"), "self.pth\n.\nself.pth/x\n")
        .set("PATH", "ROOT/usr/local/bin");
    let python = image.find(None, "");
    let at = |rest: &str| format!("/{site}{rest}");
    assert_eq!(
        python.site_packages,
        [at(""), at("/three"), at("/two"), "/src/one".into()]
    );
    let note = format!(
        "{}: 2 line(s) of code are not run; folders that they add are not seen",
        at("/b.pth")
    );
    assert_eq!(python.notes, [note]);
}

#[test]
fn hostile_path_files() {
    let image = Image::new();
    let site = "usr/local/lib/python3.11/site-packages";
    image
        .official()
        .file(&format!("{site}/million.pth"), &"x\n".repeat(1_000_000))
        .file(&format!("{site}/nul.pth"), "a\0b\n\u{1b}[2J\n")
        .dir(&format!("{site}/folder.pth"))
        .set("PATH", "ROOT/usr/local/bin");
    nix::unistd::mkfifo(
        &image.at(&format!("{site}/fifo.pth")),
        nix::sys::stat::Mode::S_IRWXU,
    )
    .unwrap();
    let many: String = (0..5_000).map(|i| format!("d{i}\n")).collect();
    for i in 0..600 {
        image.dir(&format!("{site}/d{i}"));
    }
    image.file(&format!("{site}/many.pth"), &many);
    let python = image.find(None, "");
    assert_eq!(python.site_packages.len(), 512);
    assert_eq!(python.notes.len(), 3, "{:?}", python.notes);
}

#[test]
fn nothing_at_all() {
    let image = Image::new();
    let python = image.find(None, "");
    assert_eq!(summary(&python), (None, None, None, None));
    assert_eq!(
        python.tried,
        [
            "PATH: neither python3 nor python there",
            "the usual places: neither python3 nor python there"
        ]
    );
}

#[test]
fn the_usual_places_are_the_last_resort() {
    let image = Image::new();
    image.debian();
    let python = image.find(None, "");
    assert_eq!(
        summary(&python),
        (
            Some("the usual places"),
            Some("/usr/bin/python3"),
            Some("/usr"),
            Some("3.11")
        )
    );
}

#[test]
fn a_named_python_that_is_not_the_services_is_noted() {
    let image = Image::new();
    image
        .official()
        .venv("app/.venv", "usr/local/bin", "")
        .set("PATH", "ROOT/usr/local/bin");
    let of_service = |named: &str, command: &str| {
        let found = image.find(Some(named), command).of_service;
        found.map(|path| path.replace(image.root().to_str().unwrap(), ""))
    };
    let own = Some("/usr/local/bin/python3".to_string());
    assert_eq!(of_service("ROOT/app/.venv", "python3 app.py"), own);
    assert_eq!(of_service("ROOT/app/.venv/bin/python", "python3 -m app"), own);
    // The same, by another path; and what starts no Python.
    assert_eq!(
        of_service("ROOT/app/.venv", "ROOT/app/.venv/bin/python app.py"),
        None
    );
    assert_eq!(of_service("ROOT/usr/local/bin/python", "python3 app.py"), None);
    assert_eq!(of_service("ROOT/app/.venv", "ROOT/usr/bin/serve"), None);
    assert_eq!(of_service("ROOT/app/.venv", ""), None);
}
