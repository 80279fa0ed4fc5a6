//! The hand-off with Pythons of other versions than the tests' own: `CUDA_ENTRYPOINT_TEST_PYTHONS` lists them, else those count
//! that are on `PATH` or pyenv's.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::support::needs::Need;
use crate::support::run::World;
use crate::support::scene::{Scene, version};

use super::{HANDED, ONLY_STARTS};

/// The oldest that can be handed off.
const OLDEST: (u32, u32) = (3, 8);
const LIST: &str = "CUDA_ENTRYPOINT_TEST_PYTHONS";

type Found = ((u32, u32), PathBuf);

/// All that answer, by version, the tests' own apart.
fn others() -> &'static [Found] {
    static OTHERS: OnceLock<Vec<Found>> = OnceLock::new();
    OTHERS.get_or_init(|| {
        let candidates: Vec<PathBuf> = match env::var_os(LIST) {
            Some(list) => env::split_paths(&list).collect(),
            None => of_pyenv().chain(on_path()).collect(),
        };
        let mut found: Vec<Found> = candidates
            .iter()
            .filter(|path| path.is_absolute())
            .filter_map(|path| Some((asked(path)?, path.clone())))
            .filter(|((major, minor), _)| format!("{major}.{minor}") != version())
            .collect();
        found.sort();
        found.dedup_by_key(|(version, _)| *version);
        found
    })
}

fn asked(python: &Path) -> Option<(u32, u32)> {
    let world = World::new();
    let ask = "import sys; print('%d.%d' % sys.version_info[:2])";
    let output = world.command(python).args(["-c", ask]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Those of pyenv, whose shims are on `PATH`: `versions/3.9.18/bin/python`.
fn of_pyenv() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let shims: Vec<PathBuf> = env::split_paths(&path)
        .filter(|folder| folder.ends_with("shims"))
        .collect();
    let versions = shims
        .into_iter()
        .filter_map(|shims| shims.with_file_name("versions").read_dir().ok());
    versions
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin/python"))
}

fn on_path() -> impl Iterator<Item = PathBuf> {
    let names: Vec<String> = std::iter::once("python2.7".to_string())
        .chain((6..30).map(|minor| format!("python3.{minor}")))
        .collect();
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    folders.into_iter().flat_map(move |folder| {
        let paths: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
        paths.into_iter().filter(|path| path.is_file())
    })
}

/// What a service sees, and that nothing starts unproven: the same tests once more, with other Pythons. All of them with all
/// that were listed; otherwise with the newest, and a part of them with the oldest.
#[test]
fn other_versions_are_handed_off_as_the_tests_own() {
    let mut pythons: Vec<&Found> = others()
        .iter()
        .filter(|(version, _)| *version >= OLDEST)
        .collect();
    if pythons.is_empty() {
        Need::Pythons.lacking("there is no other Python from 3.8 on");
    }
    let are_listed = env::var_os(LIST).is_some();
    if pythons.len() > 2 && !are_listed {
        pythons.drain(1..pythons.len() - 1);
    }
    let filters = [
        "handoff::a_service",
        "handoff::kinds::none_starts",
        "handoff::kinds::all_start",
    ];
    for (number, (version, python)) in pythons.iter().enumerate() {
        let count = match are_listed {
            true => 3,
            false => 1 + usize::from(number + 1 == pythons.len()),
        };
        for filter in &filters[..count] {
            let output = Command::new(env::current_exe().unwrap())
                .arg(filter)
                .env("CUDA_ENTRYPOINT_TEST_PYTHON", python)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            tell!(
                "{version:?} {filter}: {}",
                text.lines().last().unwrap_or_default()
            );
            assert!(output.status.success(), "{version:?} {filter}: {text}");
            assert!(
                text.contains("test result: ok.") && !text.contains(" 0 passed"),
                "{filter}: {text}"
            );
        }
    }
}

/// One that is too old says so itself.
#[test]
fn a_python_that_is_too_old_is_told_by_its_own_word() {
    let too_old: Vec<&Found> = others().iter().filter(|(version, _)| *version < OLDEST).collect();
    if too_old.is_empty() {
        Need::Pythons.lacking("there is no Python before 3.8");
    }
    for ((major, minor), python) in too_old {
        let scene = Scene::new();
        let service = [python.to_str().unwrap(), "-c", ONLY_STARTS];
        let ran = scene.run_service(&[&HANDED[..], &["--python", "env"]].concat(), &service);
        let said = String::from_utf8_lossy(&ran.output.stderr).into_owned();
        let told = format!("Python {major}.{minor} is older than 3.8");
        assert!(said.contains(&told), "{}: {said}", python.display());
        assert_eq!(
            (ran.exit(), ran.output.stdout.as_slice()),
            (0, &b"started\n"[..]),
            "{ran}"
        );
        scene.world.assert_nothing_left();
    }
}
