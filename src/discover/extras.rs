//! Which extras are in use, and what they require.
//!
//! Nothing in an environment records the extras of an installation, but `cuda-toolkit[cublas]` in the metadata of torch
//! says that the requirements of cuda-toolkit under `extra == "cublas"` count. They are followed from one distribution to the
//! next. Extras that no distribution asks for remain unknown, and their requirements are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::requirement::{MarkerEnvironment, Requirement};
use super::wheels;
use crate::facts::Distribution;
use crate::order;

/// Most pairs of distributions and extras that are followed. vllm's environment has 22.
const MAX_ACTIVE: usize = 500;
/// Most lines that are looked at for them, so that hostile metadata costs no time. vllm's environment has 1,000.
const MAX_LINES: usize = 20_000;

/// Adds to each distribution the extras that others require of it, and their requirements.
pub fn activate(found: &mut [Distribution], python: Option<&str>) {
    let environment = MarkerEnvironment::of(python);
    let mut first: BTreeMap<String, usize> = BTreeMap::new();
    for (at, dist) in found.iter().enumerate() {
        first.entry(dist.name.clone()).or_insert(at);
    }
    let mut open: Vec<(usize, String)> = Vec::new();
    for &at in first.values() {
        let asking = found.get(at).into_iter().flat_map(|dist| &dist.requires);
        open.extend(asking.flat_map(|line| asked(line, &first)));
    }
    // Eleven extras of cuda-toolkit ask for its hundred lines: each is parsed once.
    let mut metadata: BTreeMap<usize, Vec<(String, Requirement)>> = BTreeMap::new();
    let mut active = BTreeSet::new();
    let mut lines_left = MAX_LINES;
    while let Some((at, extra)) = open.pop() {
        if active.len() >= MAX_ACTIVE || !active.insert((at, extra.clone())) {
            continue;
        }
        let Some(dist) = found.get_mut(at) else { continue };
        let lines = metadata
            .entry(at)
            .or_insert_with(|| parsed(wheels::lines_of_extras(Path::new(&dist.path))));
        match lines_left.checked_sub(lines.len() + dist.requires.len()) {
            Some(left) => lines_left = left,
            None => continue,
        }
        if dist.variant.is_none() && lines.iter().any(|(line, _)| line.contains("variant_")) {
            dist.variant = wheels::variant(Path::new(&dist.path));
        }
        let under = MarkerEnvironment {
            extra: extra.clone(),
            ..environment.within(dist)
        };
        for (line, requirement) in lines.iter() {
            if requirement.applies(&under) != Some(false) && !dist.requires.contains(line) {
                open.extend(places(requirement, &first));
                dist.requires.push(line.clone());
            }
        }
        dist.extras.push(extra);
    }
    for dist in found.iter_mut() {
        order::sort(&mut dist.extras);
    }
}

/// The extras that a line asks for, with the places of their distributions.
fn asked(line: &str, first: &BTreeMap<String, usize>) -> Vec<(usize, String)> {
    // Most lines have none, and need no parsing.
    let versions = line.split(';').next().unwrap_or_default();
    if !versions.contains('[') {
        return Vec::new();
    }
    let requirement = line.parse::<Requirement>();
    requirement.map_or_else(|_| Vec::new(), |requirement| places(&requirement, first))
}

fn places(requirement: &Requirement, first: &BTreeMap<String, usize>) -> Vec<(usize, String)> {
    match first.get(&requirement.name) {
        Some(&at) => requirement
            .extras
            .iter()
            .map(|extra| (at, extra.clone()))
            .collect(),
        None => Vec::new(),
    }
}

/// The lines that are requirements.
fn parsed(lines: Vec<String>) -> Vec<(String, Requirement)> {
    let pairs = lines.into_iter().map(|line| {
        let requirement = line.parse();
        (line, requirement)
    });
    pairs
        .filter_map(|(line, requirement)| Some((line, requirement.ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Site(tempfile::TempDir);

    impl Site {
        fn new(all: &[(&str, &[&str])]) -> Self {
            let site = Self(tempfile::tempdir().unwrap());
            for (name, lines) in all {
                let folder = site.0.path().join(format!("{name}-1.dist-info"));
                fs::create_dir_all(&folder).unwrap();
                let requires: String = lines.iter().map(|l| format!("Requires-Dist: {l}\n")).collect();
                fs::write(
                    folder.join("METADATA"),
                    format!("Name: {name}\nVersion: 1\n{requires}\n"),
                )
                .unwrap();
            }
            site
        }

        fn found(&self) -> BTreeMap<String, Distribution> {
            let mut found = wheels::distributions(&[self.0.path().to_str().unwrap().to_string()]);
            activate(&mut found, Some("3.11.7"));
            found.into_iter().map(|dist| (dist.name.clone(), dist)).collect()
        }
    }

    #[test]
    fn what_is_asked_for_counts_and_nothing_else() {
        let found = Site::new(&[
            ("torch", &["cuda-toolkit[cublas,Cu_Dart]==13.2; sys_platform == 'linux'"]),
            (
                "cuda_toolkit",
                &[
                    "nvidia-cublas==13.*; sys_platform == 'linux' and extra == 'cublas'",
                    "nvidia-runtime; extra == 'cu-dart' and (sys_platform == 'linux' or sys_platform == 'win32')",
                    "nvidia-cufft; extra == 'cufft'",
                    "nvidia-win; extra == 'cublas' and sys_platform == 'win32'",
                    "plain",
                ],
            ),
        ])
        .found();
        let toolkit = &found["cuda-toolkit"];
        assert_eq!(toolkit.extras, ["cu-dart", "cublas"]);
        let names: Vec<&str> = toolkit
            .requires
            .iter()
            .map(|l| l.split([';', '=']).next().unwrap())
            .collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(
            names.contains(&"nvidia-cublas") && names.contains(&"nvidia-runtime") && names.contains(&"plain")
        );
    }

    #[test]
    fn extras_lead_on_and_circles_end() {
        let found = Site::new(&[
            ("a", &["b[x]"]),
            (
                "b",
                &["b[y,z]; extra == 'x'", "c[w]; extra == 'y'", "d; extra == 'z'"],
            ),
            ("c", &["b[x]; extra == 'w'", "a[none]; extra == 'w'"]),
        ])
        .found();
        assert_eq!(found["b"].extras, ["x", "y", "z"]);
        assert_eq!(found["c"].extras, ["w"]);
        assert_eq!(found["a"].extras, ["none"]);
        assert_eq!(found["a"].requires, ["b[x]"]);
        assert_eq!(found["b"].requires.len(), 3);
    }

    #[test]
    fn hostile_metadata_is_bounded() {
        let extras: Vec<String> = (0..5_000)
            .map(|n| format!("b[{}]", "x,".repeat(50) + &n.to_string()))
            .collect();
        let lines: Vec<&str> = extras.iter().map(String::as_str).collect();
        let found = Site::new(&[("a", &lines), ("b", &["b[x]; extra == 'x'"])]).found();
        assert!(found["b"].extras.len() <= MAX_ACTIVE);
    }
}
