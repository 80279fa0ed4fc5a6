use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::facts::read::from_json;
use crate::facts::{Distribution, LibraryKind, NamedFile, RefusedObject, ShadowedCopy};

/// An environment with a file of every kind that facts rest on, and its facts.
struct World(tempfile::TempDir);

const FILES: [&str; 13] = [
    "bin/python3.11",
    "pyvenv.cfg",
    "site/torch-1.dist-info/METADATA",
    "site/torch-1.dist-info/RECORD",
    "site/torch/version.py",
    "site/cumm/__init__.py",
    "site/cumm/core_cc.so",
    "site/cumm/a.h",
    "site/plain/__init__.py",
    "site/nvidia/lib/libcudart.so.12",
    "site/torch/lib/libtorch.so",
    "libs/libz.so.1",
    "driver/libcuda.so.1",
];

/// Those of them that what is kept rests on.
const COUNTED: [&str; 5] = [
    "bin/python3.11",
    "site/cumm/core_cc.so",
    "site/nvidia/lib/libcudart.so.12",
    "site/torch/lib/libtorch.so",
    "libs/libz.so.1",
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

    fn facts(&self) -> CachedFacts {
        let loaded = |name: &str, path: Option<&str>, by| LoadedObject {
            name: name.into(),
            path: path.map(|path| self.text(path)),
            found_by: by,
            ..LoadedObject::default()
        };
        let runtime = self.text("site/nvidia/lib/libcudart.so.12");
        let by_rpath = FoundBy::Rpath {
            of: self.text("site/torch/_C.so"),
            folder: self.text("site/torch/lib"),
        };
        CachedFacts {
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
                loaded("libtorch.so", Some("site/torch/lib/libtorch.so"), Some(by_rpath)),
                loaded("libz.so.1", Some("libs/libz.so.1"), None),
                loaded("libc.so.6", None, Some(FoundBy::System)),
                loaded("libcuda.so.1", Some("driver/libcuda.so.1"), Some(FoundBy::System)),
            ],
            loader: LoaderRun {
                searched: vec![self.text("rpath")],
                refused: vec![RefusedObject {
                    path: self.text("libs/librefused.so"),
                    reason: "file too short".into(),
                }],
                ..LoaderRun::default()
            },
            kernels: vec![ModuleKernels {
                path: self.text("site/cumm/core_cc.so"),
                ..ModuleKernels::default()
            }],
            ..CachedFacts::default()
        }
    }

    fn in_force(&self) -> Texts {
        let path = format!("{}:{}", self.text("libs"), self.text("none"));
        [
            ("the manifest".to_string(), "s".to_string()),
            ("LD_LIBRARY_PATH".to_string(), path),
        ]
        .into()
    }

    fn part(&self) -> ImagePart {
        let facts = self.facts();
        let python = self.python("bin/python");
        ImagePart {
            written: Written::default(),
            key: ImageKey::of(self.in_force(), asked(&[], &Asked::Nothing, &[]), &facts, &python).unwrap(),
            facts,
        }
    }

    /// What a start after `change` says of a part that was written before it.
    fn after(&self, change: impl FnOnce(&Self)) -> Vec<String> {
        let part = self.part();
        change(self);
        let said = part.changes(self.in_force(), &self.python("bin/python3"), &NOW);
        let root = format!("{}/", self.0.path().display());
        said.into_iter().map(|text| text.replace(&root, "")).collect()
    }
}

const NOW: Now = Now {
    at: 1_000_000,
    boot: None,
};

#[test]
fn the_facts_come_back_among_those_that_were_found_anew() {
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
    assert_eq!(read.changes(world.in_force(), &found, &NOW), [""; 0]);
    let fresh = ImageFacts {
        python: found,
        distributions: vec![Distribution {
            name: "cumm".into(),
            path: world.text("site/cumm-1.dist-info"),
            ..Distribution::default()
        }],
        files: vec![NamedFile {
            name: "cumm/a.h".into(),
            path: None,
        }],
        ..ImageFacts::default()
    };
    let facts = read.fill(fresh.clone(), &Asked::Nothing).unwrap();
    // Which distribution brought a library is told by the names of now.
    assert_eq!(facts.kernels[0].package.as_deref(), Some("cumm"));
    assert_eq!(
        (&facts.python, &facts.distributions, &facts.files),
        (&fresh.python, &fresh.distributions, &fresh.files)
    );
    assert_eq!(
        (facts.libraries, facts.loaded),
        (part.facts.libraries, part.facts.loaded)
    );
}

#[test]
fn what_is_asked_has_to_be_the_same() {
    let world = World::new();
    let part = world.part();
    let copy = Library {
        kind: LibraryKind::Nvrtc,
        path: "/new/libnvrtc.so.12".into(),
        origin: LibraryOrigin::Toolkit,
        answer: None,
    };
    let fresh = ImageFacts {
        libraries: vec![copy],
        ..ImageFacts::default()
    };
    let said = part.fill(fresh, &Asked::Nothing).unwrap_err();
    assert_eq!(
        said,
        [r#"the list of CUDA libraries was "" and is "Nvrtc Toolkit /new/libnvrtc.so.12""#]
    );
    let said = part
        .fill(ImageFacts::default(), &Asked::Refused("a static Python".into()))
        .unwrap_err();
    assert_eq!(
        said,
        [r#"the list of the stack's modules was "" and is "a static Python""#]
    );
}

#[test]
fn every_file_counts_by_its_size_second_and_content() {
    for file in COUNTED {
        let world = World::new();
        let said = world.after(|w| w.write(file, "123456"));
        assert_eq!(said, [format!("{file} changed (size 5, now 6)")]);
        let said = world.after(|w| w.set_time(file, 1_700_000_001_300));
        let times = "written at 1700000000, now 1700000001, in seconds since 1970";
        assert_eq!(said, [format!("{file} changed ({times})")]);
        // As it is in images that have one time for all of their files.
        let world = World::new();
        let said = world.after(|w| w.write(file, "1234_"));
        assert_eq!(
            said,
            [format!(
                "{file} changed (its content; size and time are the same)"
            )]
        );
        // What an image layer drops.
        let world = World::new();
        assert_eq!(world.after(|w| w.set_time(file, 1_700_000_000_999)), [""; 0]);
    }
    for file in FILES.into_iter().filter(|file| !COUNTED.contains(file)) {
        let said = World::new().after(|w| w.write(file, "longer than it was"));
        assert_eq!(said, [""; 0], "{file} is read anew, or the device part's");
    }
}

#[test]
fn what_comes_and_goes_is_named() {
    for (name, said) in [
        ("site/new/__init__.py", "site/new is new"),
        ("site/new.so", "site/new.so is new"),
        (
            "site/cumm/build/lib.so",
            "site/cumm: libraries or folders in it came, went or changed",
        ),
        (
            "conda-meta/python-3.11.json",
            "conda-meta/python-3.11.json is new",
        ),
        // The loader would take this copy, now or once LD_LIBRARY_PATH leads there.
        ("libs/libtorch.so", "libs/libtorch.so is new"),
        ("none/libz.so.1", "none/libz.so.1 is new"),
        ("rpath/libz.so.1", "rpath/libz.so.1 is new"),
        (
            "libs/glibc-hwcaps/x86-64-v3/libz.so.1",
            "libs/glibc-hwcaps/x86-64-v3/libz.so.1 is new",
        ),
        ("rpath/tls/x86_64/libz.so.1", "rpath/tls/x86_64/libz.so.1 is new"),
        // Beside CUDA code there may come more, and where there was none.
        (
            "site/cumm/more.so",
            "site/cumm: libraries or folders in it came, went or changed",
        ),
        (
            "site/plain/more.so",
            "site/plain: libraries or folders in it came, went or changed",
        ),
        ("libs/librefused.so", "libs/librefused.so is new"),
    ] {
        let world = World::new();
        assert_eq!(world.after(|w| w.write(name, ""))[0], said);
    }
    let said = World::new().after(|w| fs::remove_file(w.path("site/cumm/core_cc.so")).unwrap());
    assert_eq!(said, ["site/cumm/core_cc.so is gone"]);
    for name in [
        "site/__pycache__/six.pyc",
        "site/cumm/__pycache__/six.pyc",
        "libs/libother.so",
        "other/x",
        "site/cumm/b.h",
        "site/new.dist-info/METADATA",
    ] {
        assert_eq!(World::new().after(|w| w.write(name, "")), [""; 0], "{name}");
    }
}

#[test]
fn what_this_user_may_not_read_is_told() {
    if nix::unistd::geteuid().is_root() {
        return; // tests/receipt/basis.rs does it as another user
    }
    let shut = |name: &'static str| {
        move |w: &World| fs::set_permissions(w.path(name), fs::Permissions::from_mode(0o000)).unwrap()
    };
    let said = World::new().after(shut("site/cumm/core_cc.so"));
    assert_eq!(
        said,
        ["site/cumm/core_cc.so cannot be read: Permission denied (os error 13)"]
    );
}

#[test]
fn another_python_or_environment_is_told_before_any_file() {
    let world = World::new();
    let part = world.part();
    world.write("site/cumm/core_cc.so", "changed as well");
    let mut other = world.in_force();
    other.insert("PYTHONPATH".into(), "/p".into());
    let said = part.changes(other, &world.python("bin/python"), &NOW);
    assert_eq!(said, ["PYTHONPATH was unset and is \"/p\""]);
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
        let said = part.changes(world.in_force(), &found, &NOW);
        assert_eq!(said.len(), 1, "{said:?}");
        let (_, now) = said[0].split_once("\" and is \"").unwrap();
        assert!(
            said[0].starts_with("Python was \"") && now.contains(shown),
            "{said:?}"
        );
    }
    let early = Now { at: 0, ..NOW };
    let late = ImagePart {
        written: Written { at: 61 },
        ..part
    };
    let said = late.changes(world.in_force(), &world.python("bin/python"), &early);
    assert_eq!(said[0], "written 61 s in the future: the clock was set back");
}

#[test]
fn the_cache_counts_by_where_it_leads() {
    let world = World::new();
    let key = world.part().key;
    // The runtime's name is asked of the cache as well; no such library is there.
    let names: Vec<&str> = key.cached.keys().map(String::as_str).collect();
    if Path::new("/etc/ld.so.cache").exists() {
        assert!(
            names.contains(&"libc.so.6") && !names.contains(&"libcuda.so.1"),
            "{names:?}"
        );
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
fn the_processor_counts_where_there_are_folders_for_better_ones() {
    let world = World::new();
    assert_eq!(world.part().key.processor, "");
    world.write("libs/glibc-hwcaps/x86-64-v3/libz.so.1", "");
    let mut part = world.part();
    assert!(part.key.processor.starts_with("x86-64"));
    part.key.processor = "x86-64-v9".into();
    let said = part.changes(world.in_force(), &world.python("bin/python3"), &NOW);
    assert!(
        said[0].starts_with("the processor was \"x86-64-v9\" and is "),
        "{said:?}"
    );
}

#[test]
fn a_link_counts_by_what_it_leads_to() {
    let world = World::new();
    fs::rename(world.path("libs/libz.so.1"), world.path("libs/libz.so.1.0")).unwrap();
    symlink("libz.so.1.0", world.path("libs/libz.so.1")).unwrap();
    world.write("libs/libz.so.1.1", "1234_");
    let said = world.after(|w| {
        fs::remove_file(w.path("libs/libz.so.1")).unwrap();
        symlink("libz.so.1.1", w.path("libs/libz.so.1")).unwrap();
    });
    assert_eq!(
        said,
        ["libs/libz.so.1 changed (its content; size and time are the same)"]
    );
}

#[test]
fn an_image_of_which_nothing_is_asked_has_a_key_too() {
    let none = Python::default();
    let part = ImagePart {
        written: Written::default(),
        key: ImageKey::of(
            Texts::new(),
            asked(&[], &Asked::Nothing, &[]),
            &CachedFacts::default(),
            &none,
        )
        .unwrap(),
        facts: CachedFacts::default(),
    };
    assert_eq!(part.changes(Texts::new(), &none, &NOW), [""; 0]);
    let facts = part.fill(ImageFacts::default(), &Asked::Nothing).unwrap();
    assert_eq!(facts.libraries, []);
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
        in_all: false,
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
    unread.kernels[0].errno = Some(5);
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

#[test]
fn the_source_of_torch_counts_where_a_copy_in_front_was_compared() {
    const SOURCE: &str = "site/torch/__init__.py";
    for same in [false, true] {
        let world = World::new();
        world.write(SOURCE, "12345");
        let mut facts = world.facts();
        facts.loader.modules = vec![world.text("site/torch/lib/libtorch_python.so")];
        facts.loaded[1].shadowed = vec![ShadowedCopy {
            path: world.text("site/torch/lib/libtorch.so"),
            same,
            ..ShadowedCopy::default()
        }];
        let python = world.python("bin/python");
        let part = ImagePart {
            written: Written::default(),
            key: ImageKey::of(
                world.in_force(),
                asked(&[], &Asked::Nothing, &[]),
                &facts,
                &python,
            )
            .unwrap(),
            facts,
        };
        world.write(SOURCE, "123456");
        let said = part.changes(world.in_force(), &world.python("bin/python3"), &NOW);
        assert_eq!(said.is_empty(), same, "{said:?}");
    }
}
