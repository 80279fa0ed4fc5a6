//! Which Python is looked at: each place that names one has a package that only it has.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::image::{Checked, Image, entrypoint, environment};
use crate::support::needs::Need;
use crate::support::run::copy_program;
use crate::support::scene::base_python;

/// Several environments in one folder, each with the package `marker` in a version of its own.
struct Places {
    image: Image,
}

impl Places {
    fn new() -> Self {
        let places = Self {
            image: Image::empty(),
        };
        // What every interpreter is in the end: a program, which the check must never run.
        let program = places.path("base/bin/python3.11");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::create_dir_all(places.path("base/lib/python3.11")).unwrap();
        copy_program("/bin/false", &program);
        places
    }

    fn path(&self, name: &str) -> PathBuf {
        self.image.root().join(name)
    }

    /// An environment with an interpreter, where `marker` is version `version`.
    fn environment(&self, name: &str, version: &str) -> PathBuf {
        let folder = self.path(name);
        environment(&folder);
        self.marker(&folder.join("lib/python3.11/site-packages"), version);
        fs::create_dir(folder.join("bin")).unwrap();
        symlink(self.path("base/bin/python3.11"), folder.join("bin/python3.11")).unwrap();
        symlink("python3.11", folder.join("bin/python3")).unwrap();
        symlink("python3", folder.join("bin/python")).unwrap();
        folder
    }

    fn marker(&self, site: &Path, version: &str) {
        let folder = site.join(format!("marker-{version}.dist-info"));
        fs::create_dir_all(&folder).unwrap();
        let metadata = format!("Metadata-Version: 2.1\nName: marker\nVersion: {version}\n");
        fs::write(folder.join("METADATA"), metadata).unwrap();
    }

    /// A script that pip would write for an entry point.
    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn check(&self, change: impl FnOnce(&mut Command)) -> Checked {
        let manifest = json!({"schema": 1, "name": "test", "packages": {"marker": "*"}});
        let mut command = entrypoint();
        command.args(["check", "--stage", "image", "--stack"]);
        command
            .arg(self.image.manifest(&manifest))
            .env("PATH", "/nowhere");
        change(&mut command);
        self.image.run_check(command)
    }

    /// Checks that the environment whose marker is `version` was found, and by what.
    #[track_caller]
    fn finds(&self, version: &str, by: &str, change: impl FnOnce(&mut Command)) -> Checked {
        let checked = self.check(change);
        checked.is(0, &[]).says(&format!("✓ marker is {version}\n"));
        let python = &checked.report["facts"]["image"]["python"];
        assert_eq!(python["found_by"], by, "{}", checked.table);
        checked
    }
}

#[test]
fn the_option_wins_over_everything() {
    let places = Places::new();
    let (a, b) = (places.environment("a", "1"), places.environment("b", "2"));
    for given in [
        a.clone(),
        a.join("bin/python"),
        a.join("bin/python3.11"),
        "a".into(),
        "a/bin/python3".into(),
    ] {
        // The service's own is told.
        let checked = places.check(|command| {
            command.arg("--python").arg(&given).env("VIRTUAL_ENV", &b);
            command.arg("--").arg(b.join("bin/python"));
        });
        checked
            .is(0, &["python-unknown info"])
            .says("✓ marker is 1\n")
            .says("the service command starts b/bin/python, ");
        assert_eq!(checked.report["facts"]["image"]["python"]["found_by"], "--python");
        places.finds("1", "--python", |command| {
            command
                .env("CUDA_ENTRYPOINT_PYTHON", &given)
                .env("VIRTUAL_ENV", &b);
        });
    }
}

/// What was asked for by name is not replaced by something else.
#[test]
fn an_option_that_leads_nowhere_is_an_error() {
    let places = Places::new();
    let other = places.environment("b", "2");
    let checked = places.check(|command| {
        command
            .args(["--python", "/nowhere/python"])
            .env("VIRTUAL_ENV", &other);
    });
    assert_eq!(checked.exit, 81, "{}", checked.table);
    checked
        .says("[python-missing]")
        .says("Looked at: --python: /nowhere/python: No such file or directory");
}

/// `/bin/ls` lies beside the system's Python, and is none.
#[test]
fn an_option_that_names_some_other_program_is_an_error() {
    let places = Places::new();
    let other = places.path("base/bin/ls");
    copy_program("/bin/false", &other);
    let checked = places.check(|command| {
        command.arg("--python").arg(&other);
    });
    assert_eq!(checked.exit, 81, "{}", checked.table);
    checked
        .says("[python-missing]")
        .says("ls is not called python, and no virtual environment is its own");
}

/// The environment that is judged may be another than the service's, which the table must not hide.
#[test]
fn a_service_command_that_starts_no_python_is_said_to() {
    let places = Places::new();
    let other = places.environment("other", "2");
    let gone = places.script("bin/serve", "#!/gone/bin/python\nimport serve\n");
    let on_path = other.join("bin");
    for (command, why) in [
        (
            &["bash", "-c", "exec ./server"][..],
            "`bash -c` starts no Python that can be seen",
        ),
        (
            &[gone.to_str().unwrap()],
            "serve wants /gone/bin/python, which is not found",
        ),
    ] {
        places
            .finds("2", "PATH", |check| {
                check.env("PATH", &on_path).arg("--").args(command);
            })
            .says("found by PATH (the service command: ")
            .says(&format!("{why}; name it with --python), packages in "));
    }
}

/// A guess would be judged in silence: another environment's packages are no evidence, for or against.
#[test]
fn a_python_that_cannot_be_determined_is_not_guessed() {
    let places = Places::new();
    let other = places.environment("other", "2");
    let on_path = other.join("bin");
    for (command, why) in [
        (
            &["bash", "-c", "cd /x && exec tv/bin/python x"][..],
            "`bash -c`: tv/bin/python is not found",
        ),
        (
            &["bash", "-c", "source tv/bin/activate; python x"],
            "tv/bin/activate does not exist",
        ),
        (
            &["hatch", "run", "serve"],
            "`hatch` chooses what it starts by its own configuration",
        ),
    ] {
        let checked = places.check(|check| {
            check.env("PATH", &on_path).arg("--").args(command);
        });
        checked
            .is(0, &["python-unknown warn", "package-missing unknown"])
            .says("the service's Python cannot be determined: ")
            .says(why)
            .says("--python or CUDA_ENTRYPOINT_PYTHON");
        let judged = checked.report["facts"]["image"]["distributions"].as_array();
        assert!(judged.is_none_or(Vec::is_empty), "{}", checked.table);
        // What is named decides.
        places.finds("2", "--python", |check| {
            check.env("PATH", &on_path).arg("--python").arg(&other);
            check.arg("--").args(command);
        });
    }
}

/// The ways in which Dockerfiles start a service.
#[test]
fn tools_and_scripts_lead_to_their_environment() {
    let places = Places::new();
    places.environment(".venv", "1");
    let other = places.environment("other", "2");
    let app = places.image.root();
    fs::write(app.join("pyproject.toml"), "[project]\nname = \"x\"\n").unwrap();
    fs::write(app.join(".venv/bin/activate"), "").unwrap();
    places.script(
        "start.sh",
        "#!/bin/sh\nset -e\n. ./.venv/bin/activate\nexec python app.py\n",
    );
    let path = format!("{}:/usr/bin:/bin", other.join("bin").display());
    for words in [
        &["uv", "run", "python", "app.py"][..],
        &["uv", "run", "--no-sync", "app.py"],
        &["sudo", "-u", "svc", ".venv/bin/python", "app.py"],
        &[
            "setpriv",
            "--reuid",
            "1",
            "--clear-groups",
            ".venv/bin/python",
            "app.py",
        ],
        &["nsys", "profile", "-o", "out", "--", ".venv/bin/python", "app.py"],
        &["env", "-S", "A='b c' .venv/bin/python app.py"],
        &["bash", "-c", "source .venv/bin/activate && python app.py"],
        &["bash", "-lc", "exec .venv/bin/python app.py"],
        &["./start.sh"],
    ] {
        places.finds("1", "the service command", |check| {
            check.env("PATH", &path).arg("--").args(words);
        });
    }
}

/// uv installs interpreters below the home of the user who runs it.
#[test]
fn an_interpreter_that_this_user_cannot_reach_is_named_with_the_folder() {
    Need::Root.demand();
    let places = Places::new();
    let home = places.environment("app", "1");
    let base = places.path("base");
    places.environment("other", "2");
    for folder in [places.image.root(), &home] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let program = places.path("entrypoint");
    copy_program(entrypoint().get_program(), &program);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let manifest = places
        .image
        .manifest(&json!({"schema": 1, "name": "test", "packages": {"marker": "*"}}));
    fs::set_permissions(&manifest, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(&base, fs::Permissions::from_mode(0o700)).unwrap();
    let python = home.join("bin/python");
    for (words, exit) in [
        (&["check", "--stage", "image"][..], 81),
        (&["run", "--gpu", "off"], 126),
    ] {
        let run = Command::new("setpriv")
            .arg("--reuid=65534")
            .arg(&program)
            .args(words)
            .arg("--stack")
            .arg(&manifest)
            .arg("--")
            .arg(&python)
            .output()
            .unwrap();
        let text = [run.stdout, run.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(run.status.code(), Some(exit), "{text}");
        assert!(
            text.contains(&format!("leads below {}, which", base.display())),
            "{text}"
        );
        assert!(text.contains("UV_PYTHON_INSTALL_DIR"), "{text}");
    }
}

#[test]
fn the_service_command_wins_over_the_variables() {
    let places = Places::new();
    let service = places.environment("service", "1");
    let other = places.environment("other", "2");
    let python = service.join("bin/python");
    let shown = python.to_str().unwrap();
    let script = places.script("service/bin/serve", &format!("#!{shown}\nimport serve\n"));
    let of_env = places.script("elsewhere/serve", "#!/usr/bin/env python3\nimport serve\n");
    let long = places.script(
        "elsewhere/long",
        &format!("#!/bin/sh\n'''exec' {shown} \"$0\" \"$@\"\n' '''\nimport serve\n"),
    );
    let commands: Vec<Vec<&str>> = vec![
        vec![shown],
        vec![shown, "-m", "serve"],
        vec!["service/bin/python3", "serve.py"],
        vec!["python", "serve.py"],
        vec![script.to_str().unwrap(), "--port", "80"],
        vec!["serve"],
        vec![of_env.to_str().unwrap()],
        vec![long.to_str().unwrap()],
        vec!["env", "A=b", shown, "serve.py"],
        vec!["/sbin/tini", "--", shown, "serve.py"],
    ];
    for words in commands {
        places.finds("1", "the service command", |command| {
            let path = format!("{}:/usr/bin:/bin", service.join("bin").display());
            command
                .env("VIRTUAL_ENV", &other)
                .env("CONDA_PREFIX", &other)
                .env("PATH", path);
            command.arg("--").args(words);
        });
    }
}

#[test]
fn then_come_virtual_env_conda_prefix_and_path() {
    let places = Places::new();
    let venv = places.environment("venv", "1");
    let conda = places.environment("conda", "2");
    let on_path = places.environment("on_path", "3");
    let path = on_path.join("bin");
    places.finds("1", "VIRTUAL_ENV", |command| {
        command
            .env("VIRTUAL_ENV", &venv)
            .env("CONDA_PREFIX", &conda)
            .env("PATH", &path);
    });
    places.finds("2", "CONDA_PREFIX", |command| {
        command.env("CONDA_PREFIX", &conda).env("PATH", &path);
    });
    places.finds("3", "PATH", |command| {
        command.env("PATH", &path);
    });
    // A service that is no Python program says nothing of Python.
    places.finds("1", "VIRTUAL_ENV", |command| {
        command.env("VIRTUAL_ENV", &venv).args(["--", "/bin/sleep", "1"]);
    });
    // An environment that is gone is passed over, and `PATH` has the next.
    places.finds("3", "PATH", |command| {
        command.env("VIRTUAL_ENV", "/nowhere").env("PATH", &path);
    });
}

#[test]
fn pythonpath_comes_first() {
    let places = Places::new();
    let venv = places.environment("venv", "1");
    let (first, second) = (places.path("first"), places.path("second"));
    places.marker(&first, "7");
    places.marker(&second, "8");
    let both = format!("{}:{}", first.display(), second.display());
    let checked = places.check(|command| {
        command.env("VIRTUAL_ENV", &venv).env("PYTHONPATH", &both);
    });
    checked.is(0, &["package-duplicate info"]).says("✓ marker is 7\n");
    // -I and -E make Python ignore it, and so do we.
    for option in ["-I", "-E"] {
        places.finds("1", "the service command", |command| {
            command.env("PYTHONPATH", &both);
            command
                .arg("--")
                .arg(venv.join("bin/python"))
                .args([option, "serve.py"]);
        });
    }
}

/// `python -m venv` of whatever Python there is here, and that Python's own opinion.
#[test]
fn a_real_virtual_environment_agrees_with_its_python() {
    let places = Places::new();
    let venv = places.path("real");
    let mut command = Command::new("python3");
    command.args(["-m", "venv", "--without-pip"]).arg(&venv);
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    assert!(status.success(), "{status}: {command:?}");
    let python = venv.join("bin/python");
    let code = "import json, platform, sys, sysconfig\n\
                print(json.dumps([sys.prefix, platform.python_version(), sysconfig.get_path('purelib')]))";
    let output = Command::new(&python).args(["-I", "-c", code]).output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    places.marker(Path::new(told[2].as_str().unwrap()), "5");
    let checked = places.finds("5", "the service command", |command| {
        command.arg("--").arg(&python).args(["-c", "pass"]);
    });
    let found = &checked.report["facts"]["image"]["python"];
    assert_eq!(found["prefix"], told[0]);
    assert_eq!(found["version"], told[1]);
    assert_eq!(found["site_packages"], json!([told[2]]));
}

#[test]
fn no_python_at_all_says_where_it_was_looked_for() {
    let places = Places::new();
    let checked = places.check(|command| {
        // The usual places of this machine must not help out: a name that no file has.
        command.env("PATH", "/nowhere").args(["--python", "python9"]);
    });
    assert_eq!(checked.exit, 81);
    checked
        .says("no Python was found, and the manifest needs one [python-missing]\n")
        .says("python9 is neither in ");
}

/// A zip with the package `marker` in it, as Python's own module writes one, behind `front`.
fn zipped(places: &Places, name: &str, front: &str) -> PathBuf {
    let path = places.path(name);
    let make = "import sys, zipfile\n\
                open(sys.argv[1], 'w').write(sys.argv[2])\n\
                with zipfile.ZipFile(sys.argv[1], 'a') as z:\n    \
                for inner in ('', 'lib/'):\n        \
                z.writestr(inner + 'marker-7.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: marker\\nVersion: 7\\n')\n";
    let status = Command::new(base_python())
        .args(["-c", make])
        .arg(&path)
        .arg(front)
        .status();
    assert!(status.unwrap().success());
    path
}

/// Python imports from them, and what they hold is no folder that could be looked at.
#[test]
fn zip_files_and_eggs_on_the_path_are_named() {
    let places = Places::new();
    let (with, without) = (places.environment("a", "1"), places.environment("b", "2"));
    let site = without.join("lib/python3.11/site-packages");
    fs::remove_dir_all(site.join("marker-2.dist-info")).unwrap();
    let zip = zipped(&places, "more.zip", "");
    let egg = zipped(&places, "b/lib/python3.11/site-packages/marker-7-py3.11.egg", "");
    let app = zipped(&places, "app", "#!/usr/bin/env python3\n");
    fs::write(places.path("text.zip"), "no zip\n").unwrap();
    type Change<'a> = &'a dyn Fn(&mut Command, &Path);
    let ways: [(&str, String, Change<'_>); 5] = [
        ("PYTHONPATH", zip.display().to_string(), &|command, _| {
            command.env("PYTHONPATH", &zip);
        }),
        (
            "a folder in it",
            format!("{}/lib", zip.display()),
            &|command, _| {
                command.env("PYTHONPATH", zip.join("lib"));
            },
        ),
        ("a .pth file", egg.display().to_string(), &|_, environment| {
            let site = environment.join("lib/python3.11/site-packages");
            fs::write(site.join("easy-install.pth"), format!("{}\n", egg.display())).unwrap();
        }),
        (
            "a zip that is executed",
            zip.display().to_string(),
            &|command, environment| {
                command.arg("--").arg(environment.join("bin/python")).arg(&zip);
            },
        ),
        (
            "one that executes itself",
            app.display().to_string(),
            &|command, environment| {
                command.env("PATH", environment.join("bin")).arg("--").arg(&app);
            },
        ),
    ];
    for (name, place, change) in ways {
        let check = |environment: &PathBuf| {
            let checked = places.check(|command| {
                command.env("VIRTUAL_ENV", environment);
                change(command, environment);
            });
            let _ = fs::remove_file(environment.join("lib/python3.11/site-packages/easy-install.pth"));
            let archives = &checked.report["facts"]["image"]["python"]["archives"];
            assert_eq!(*archives, json!([place]), "{name}");
            checked
        };
        let shown = place.replace(&format!("{}/", places.image.root().display()), "");
        let line =
            format!("zip files and eggs are not looked into: what {shown} holds counts as not installed");
        check(&with)
            .is(0, &["package-missing info"])
            .says("✓ marker is 1\n")
            .says(&line);
        let found = check(&without);
        assert_eq!(found.exit, 81, "{name}: {}", found.table);
        found.says(&line).says(&format!(
            "marker is not installed in a folder of sys.path; zip files and eggs are not looked into ({shown})"
        ));
    }
    let none = places.check(|command| {
        command
            .env("VIRTUAL_ENV", &with)
            .env("PYTHONPATH", places.path("text.zip"));
    });
    none.is(0, &[]);
    assert!(!none.table.contains("zip files"), "{}", none.table);
}
