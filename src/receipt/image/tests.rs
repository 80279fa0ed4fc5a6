use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::facts::read::from_json;
use crate::facts::{Distribution, Library, LibraryAnswer, LibraryKind, LoaderRun, ModuleKernels, NamedFile};

/// An environment with a file of every kind that facts rest on, and its facts.
struct World(tempfile::TempDir);

const FILES: [&str; 15] = [
    "bin/python3.11",
    "pyvenv.cfg",
    "site/torch-1.dist-info/METADATA",
    "site/torch-1.dist-info/RECORD",
    "site/torch-1.dist-info/WHEEL",
    "site/torch/version.py",
    "site/old.egg-info",
    "site/cumm/__init__.py",
    "site/cumm/core_cc.so",
    "site/cumm/a.h",
    "site/nvidia/lib/libcudart.so.12",
    "site/torch/lib/libtorch.so",
    "libs/libz.so.1",
    "front/torch.py",
    "driver/libcuda.so.1",
];

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        for file in FILES {
            world.write(file, "12345");
        }
        symlink("python3.11", world.path("bin/python")).unwrap();
        symlink("python3.11", world.path("bin/python3")).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_string()
    }

    /// With a time of last change that has a fraction, as files outside of image layers have.
    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        self.set_time(name, 1_700_000_000_300);
    }

    fn set_time(&self, name: &str, ms: u64) {
        let file = fs::File::options().write(true).open(self.path(name)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_millis(ms)).unwrap();
    }

    fn python(&self, name: &str) -> Python {
        Python {
            interpreter: Some(self.text(name)),
            prefix: Some(self.text("")),
            version: Some("3.11.7".into()),
            site_packages: vec![self.text("site")],
            ..Python::default()
        }
    }

    fn facts(&self) -> ImageFacts {
        let dist = |name: &str, path: &str| Distribution {
            name: name.into(),
            version: "1".into(),
            path: self.text(path),
            ..Distribution::default()
        };
        let loaded = |name: &str, path: Option<&str>, by| LoadedObject {
            name: name.into(),
            path: path.map(|path| self.text(path)),
            found_by: by,
            ..LoadedObject::default()
        };
        let runtime = self.text("site/nvidia/lib/libcudart.so.12");
        ImageFacts {
            python: self.python("bin/python"),
            distributions: vec![
                Distribution {
                    missing: vec!["torch/lib/gone.so".into()],
                    missing_count: 1,
                    hidden_by: vec![self.text("front/torch.py")],
                    ..dist("torch", "site/torch-1.dist-info")
                },
                dist("old", "site/old.egg-info"),
            ],
            files: vec![
                NamedFile {
                    name: "cumm/a.h".into(),
                    path: Some(self.text("site/cumm/a.h")),
                },
                NamedFile {
                    name: "gone.h".into(),
                    path: None,
                },
            ],
            libraries: vec![Library {
                kind: LibraryKind::Cudart,
                path: "libcudart.so.12".into(),
                origin: LibraryOrigin::Loader,
                answer: Some(LibraryAnswer {
                    path: Some(runtime),
                    ..LibraryAnswer::default()
                }),
            }],
            loaded: vec![
                loaded("libtorch.so", Some("site/torch/lib/libtorch.so"), None),
                loaded("libz.so.1", Some("libs/libz.so.1"), None),
                loaded("libc.so.6", None, Some(FoundBy::System)),
                loaded("libcuda.so.1", Some("driver/libcuda.so.1"), Some(FoundBy::System)),
            ],
            kernels: vec![ModuleKernels {
                path: self.text("site/cumm/core_cc.so"),
                ..ModuleKernels::default()
            }],
            ..ImageFacts::default()
        }
    }

    fn in_force(&self) -> Texts {
        let path = format!(":{}:{}", self.text("libs"), self.text("none"));
        [
            ("the manifest".to_string(), "s".to_string()),
            ("LD_LIBRARY_PATH".to_string(), path),
        ]
        .into()
    }

    fn part(&self) -> ImagePart {
        let facts = self.facts();
        ImagePart {
            written: Written::default(),
            key: ImageKey::of(self.in_force(), &facts),
            facts,
        }
    }

    /// What a start after `change` says of a part that was written before it.
    fn after(&self, change: impl FnOnce(&Self)) -> Vec<String> {
        let part = self.part();
        change(self);
        let said = part
            .recognise(self.in_force(), &self.python("bin/python3"))
            .err()
            .unwrap_or_default();
        let root = format!("{}/", self.0.path().display());
        said.into_iter().map(|text| text.replace(&root, "")).collect()
    }
}

#[test]
fn the_facts_come_back_with_the_interpreter_as_it_is_called_now() {
    let world = World::new();
    let part = world.part();
    let text = serde_json::to_string(&part).unwrap();
    let read: ImagePart = from_json(text.as_bytes()).unwrap();
    assert_eq!(read, part);
    let found = Python {
        found_by: Some("the service command".into()),
        options: vec!["-I".into()],
        ..world.python("bin/python3")
    };
    let facts = read.recognise(world.in_force(), &found).unwrap();
    assert_eq!(facts.python, found);
    assert_eq!(
        ImageFacts {
            python: part.facts.python.clone(),
            ..facts
        },
        part.facts
    );
}

#[test]
fn what_a_package_lacked_may_come_back() {
    let world = World::new();
    assert_eq!(
        world.after(|w| w.write("site/torch/lib/gone.so", "12345")),
        ["site/torch/lib/gone.so is new"]
    );
}

#[test]
fn every_file_counts_by_its_size_and_second() {
    for file in FILES.into_iter().filter(|file| !file.starts_with("driver/")) {
        let real = if file == "bin/python3.11" {
            "bin/python3.11"
        } else {
            file
        };
        let world = World::new();
        let said = world.after(|w| w.write(file, "123456"));
        assert_eq!(said, [format!("{real} changed (size 5, now 6)")]);
        let said = world.after(|w| w.set_time(file, 1_700_000_001_300));
        let times = "written at 1700000000, now 1700000001, in seconds since 1970";
        assert_eq!(said, [format!("{real} changed ({times})")]);
        // What an image layer drops.
        let world = World::new();
        assert_eq!(world.after(|w| w.set_time(file, 1_700_000_000_999)), [""; 0]);
    }
    let world = World::new();
    assert_eq!(
        world.after(|w| w.write("driver/libcuda.so.1", "another driver")),
        [""; 0]
    );
}

#[test]
fn what_comes_and_goes_is_named() {
    for (name, said) in [
        ("site/.gitignore", "site/.gitignore is new"),
        ("site/setup.py", "site/setup.py is new"),
        ("site/new-2.dist-info/METADATA", "site/new-2.dist-info is new"),
        ("site/cumm/build/lib.so", "site/cumm/build is new"),
        (
            "conda-meta/python-3.11.json",
            "conda-meta/python-3.11.json is new",
        ),
        // The loader would take this copy, now or once LD_LIBRARY_PATH leads there.
        ("libs/libtorch.so", "libs/libtorch.so is new"),
        // Beside CUDA code there may come more.
        ("site/cumm/more.so", "site/cumm/more.so is new"),
        ("none/libz.so.1", "none/libz.so.1 is new"),
    ] {
        assert_eq!(World::new().after(|w| w.write(name, "")), [said]);
    }
    // Once, although it counts among the names of its folder and as the file that it is.
    assert_eq!(
        World::new().after(|w| w.write("site/gone.h", "")),
        ["site/gone.h is new"]
    );
    let said = World::new().after(|w| fs::remove_file(w.path("site/cumm/core_cc.so")).unwrap());
    assert_eq!(said, ["site/cumm/core_cc.so is gone"]);
    let said = World::new().after(|w| fs::remove_dir_all(w.path("site/torch-1.dist-info")).unwrap());
    assert_eq!(said.last().unwrap(), "site/torch-1.dist-info is gone");
    let said = World::new().after(|w| {
        fs::remove_file(w.path("site/cumm/a.h")).unwrap();
        fs::create_dir(w.path("site/cumm/a.h")).unwrap();
    });
    assert_eq!(said, ["site/cumm/a.h is something else now"]);
    for name in [
        "site/__pycache__/six.pyc",
        "libs/libother.so",
        "other/x",
        "site/cumm/b.h",
    ] {
        assert_eq!(World::new().after(|w| w.write(name, "")), [""; 0], "{name}");
    }
}

#[test]
fn another_python_or_environment_is_told_before_any_file() {
    let world = World::new();
    let part = world.part();
    world.write("site/cumm/a.h", "changed as well");
    let mut other = world.in_force();
    other.insert("PYTHONPATH".into(), "/p".into());
    let error = part.recognise(other, &world.python("bin/python")).unwrap_err();
    assert_eq!(error, ["PYTHONPATH was unset and is \"/p\""]);
    world.write("bin/python3.12", "");
    for (found, shown) in [
        (world.python("bin/python3.12"), "bin/python3.12 "),
        (
            Python {
                version: Some("3.11.8".into()),
                ..world.python("bin/python")
            },
            " 3.11.8 ",
        ),
        (
            Python {
                site_packages: Vec::new(),
                ..world.python("bin/python")
            },
            " 3.11.7\"",
        ),
        (
            Python {
                prefix: Some("/p".into()),
                ..world.python("bin/python")
            },
            " /p ",
        ),
        (Python::default(), "\""),
    ] {
        let error = part.recognise(world.in_force(), &found).unwrap_err();
        assert_eq!(error.len(), 1, "{error:?}");
        let (_, now) = error[0].split_once("\" and is \"").unwrap();
        assert!(
            error[0].starts_with("Python was \"") && now.contains(shown),
            "{error:?}"
        );
    }
}

#[test]
fn the_cache_counts_by_where_it_leads() {
    let world = World::new();
    let key = world.part().key;
    // The runtime's name is asked of the cache as well; no such library is there.
    let names: Vec<&str> = key.cached.keys().map(String::as_str).collect();
    if Path::new("/etc/ld.so.cache").exists() {
        assert_eq!(names, ["libc.so.6"]);
    }
    assert!(!key.files.contains_key("/etc/ld.so.cache"));
    let mut now = key.clone();
    now.cached.insert("libc.so.6".into(), "/other/libc.so.6".into());
    now.cached
        .insert("libcudart.so.12".into(), "/usr/lib/libcudart.so.12".into());
    let said = key.differences(&now);
    assert!(said[0].starts_with("libc.so.6 in ld.so.cache was "), "{said:?}");
    assert_eq!(
        said[1],
        "libcudart.so.12 in ld.so.cache was absent and is \"/usr/lib/libcudart.so.12\""
    );
    assert_ne!(key.digest(), now.digest());
    assert_eq!(key.digest(), world.part().key.digest());
}

#[test]
fn an_image_of_which_nothing_is_asked_has_a_key_too() {
    let part = ImagePart {
        written: Written::default(),
        key: ImageKey::of(Texts::new(), &ImageFacts::default()),
        facts: ImageFacts::default(),
    };
    assert_eq!(
        part.recognise(Texts::new(), &Python::default()),
        Ok(ImageFacts::default())
    );
}

#[test]
fn what_the_moment_brought_is_not_kept() {
    let world = World::new();
    assert_eq!(passing_trouble(&world.facts()), None);
    let mut late = world.facts();
    late.helper.end = HelperEnd::TimedOut {
        step: "dlopen".into(),
        after_ms: 1,
        killed: true,
    };
    let mut failed = world.facts();
    failed.loader = LoaderRun {
        end: LoaderEnd::Failed {
            reason: "no answer".into(),
        },
        ..LoaderRun::default()
    };
    let mut unread = world.facts();
    unread.kernels[0].error = Some("cannot be read: Input/output error (os error 5)".into());
    for (facts, part) in [
        (late, "could be asked"),
        (failed, "no answer"),
        (unread, "os error 5"),
    ] {
        assert!(passing_trouble(&facts).unwrap().contains(part), "{part}");
    }
    let mut damaged = world.facts();
    damaged.kernels[0].error = Some("no ELF file".into());
    assert_eq!(passing_trouble(&damaged), None);
}
