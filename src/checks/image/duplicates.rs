//! `package-duplicate`: two of what an import can only have one of.

use std::collections::BTreeMap;
use std::path::Path;

use pep440_rs::Version;

use super::{ImageContext, accepts, cuda_tag, listed, owners};
use crate::check::{Code, Finding};
use crate::facts::Distribution;
use crate::packages;
use crate::text::{counted, verb};

pub fn judge(scene: &ImageContext<'_>) -> Vec<Finding> {
    if scene.stack.packages.is_empty() {
        return Vec::new();
    }
    let mut findings = same_name(scene);
    findings.extend(same_import(scene));
    findings.extend(overtaken(scene));
    if findings.is_empty() {
        let count = scene.installed.len();
        findings.push(
            Finding::pass(Code::PackageDuplicate, "packages")
                .observed(counted(count, "distribution"))
                .required("one distribution for each name")
                .message(match count {
                    1 => "the one distribution is installed once".to_string(),
                    _ => format!("each of {count} distributions is installed once"),
                }),
        );
    }
    findings.extend(hidden(scene));
    findings
}

fn folder(dist: &Distribution) -> &Path {
    Path::new(&dist.path).parent().unwrap_or(Path::new(""))
}

/// Whether records state one version: then they are of one installation. Debian leaves an egg's record beside a wheel's
/// in python3-cryptography, furo and sublist3r.
fn agree(dists: &[&Distribution]) -> bool {
    let same = |a: &Distribution, b: &Distribution| match (a.version.parse(), b.version.parse()) {
        (Ok(a), Ok(b)) => Version::eq(&a, &b),
        _ => a.version == b.version && !a.version.is_empty(),
    };
    dists.windows(2).all(|pair| matches!(pair, [a, b] if same(a, b)))
}

/// Two metadata folders of one name in one folder: pip upgrades, uninstalls and reads one of them by chance.
fn same_name(scene: &ImageContext<'_>) -> Vec<Finding> {
    let mut by_place: BTreeMap<(&str, &Path), Vec<&Distribution>> = BTreeMap::new();
    for dist in &scene.image.distributions {
        by_place.entry((&dist.name, folder(dist))).or_default().push(dist);
    }
    by_place
        .into_iter()
        .filter(|(_, dists)| dists.len() > 1 && !agree(dists))
        .map(|((name, folder), dists)| {
            let versions: Vec<String> = dists.iter().map(|d| d.version.clone()).collect();
            let paths: Vec<String> = dists.iter().map(|d| d.path.clone()).collect();
            let versions = listed(&versions, 8);
            let in_place = owners::version_in_place(scene, name);
            let there = in_place.map_or_else(String::new, |version| format!("; its libraries are those of {version}"));
            // The one that the manifest asks for, else the one whose files are there, else the newest.
            let newest = dists.iter().max_by_key(|d| d.version.parse::<Version>().ok());
            let wanted = dists.iter().find(|d| scene.rule(name).is_some_and(|rule| rule.specifiers.is_some() && accepts(rule, d)));
            let keep = wanted.map(|d| d.version.as_str()).or(in_place);
            let keep = keep.or(newest.map(|d| d.version.as_str())).unwrap_or_default();
            // pip removes one record each time.
            let removal = vec![format!("pip uninstall -y {name}"); dists.len()].join(" && ");
            Finding::problem(Code::PackageDuplicate, name)
                .observed(listed(&paths, 8))
                .required("one metadata folder for each name")
                .message(format!("{name} is installed {} times in {}: {versions}{there}", dists.len(), folder.display()))
                .hint(format!(
                    "In the Dockerfile: {removal} && pip install --no-deps '{name}=={keep}'. Do not copy one site-packages \
                     over another."
                ))
        })
        .collect()
}

/// Builds of one package for several CUDAs share their import name, so the files of whichever came last are there.
fn same_import(scene: &ImageContext<'_>) -> Vec<Finding> {
    let mut builds: BTreeMap<String, Vec<&Distribution>> = BTreeMap::new();
    for dist in scene.installed.values() {
        // NVIDIA's wheels of two majors lie in one namespace on purpose; package-cuda-tag judges them.
        if dist.name.starts_with("nvidia-") {
            continue;
        }
        let untagged = || {
            packages::of(&dist.name)
                .filter(|package| package.untagged_build.get().is_some())
                .map(|package| package.name.to_string())
        };
        if let Some(base) = cuda_tag::without_cuda(&dist.name).or_else(untagged) {
            builds.entry(base).or_default().push(dist);
        }
    }
    builds
        .into_iter()
        .filter(|(_, dists)| dists.len() > 1)
        .map(|(base, dists)| {
            let names: Vec<String> = dists
                .iter()
                .map(|d| format!("{} {}", d.name, d.version))
                .collect();
            let names = listed(&names, 8);
            let all: Vec<&str> = dists.iter().map(|d| d.name.as_str()).collect();
            // The one that the manifest names, else the newest.
            let named = dists.iter().find(|d| scene.rule(&d.name).is_some());
            let keep = named.or_else(|| dists.iter().max_by_key(|d| d.version.parse::<Version>().ok()));
            let keep = keep.map_or_else(String::new, |d| format!("{}=={}", d.name, d.version));
            Finding::problem(Code::PackageDuplicate, base.clone())
                .with(all.iter().copied().chain([base.as_str()]))
                .observed(&names)
                .required(format!("one build of {base}"))
                .message(format!(
                    "several builds of {base} are installed over each other: {names}"
                ))
                .hint(format!(
                    "In the Dockerfile: pip uninstall -y {} && pip install --no-deps '{keep}'.",
                    all.join(" ")
                ))
        })
        .collect()
}

/// A folder that Python looks into first has the import name of one of the manifest's packages, without being its
/// installation: what is judged everywhere else here is not what is imported.
fn overtaken(scene: &ImageContext<'_>) -> Vec<Finding> {
    let ours = scene.stack.packages.iter();
    let installed = ours.filter_map(|rule| scene.installed.get(rule.normalized.as_str()));
    installed
        .filter(|dist| !dist.hidden_by.is_empty())
        .map(|dist| {
            let winner = listed(&dist.hidden_by, 3);
            let folder = folder(dist).display();
            Finding::problem(Code::PackageDuplicate, dist.name.clone())
                .observed(winner.clone())
                .required(format!("{} as installed in {folder}", dist.name))
                .message(format!(
                    "Python imports {winner}, which hides {} {} in {folder}",
                    dist.name, dist.version
                ))
                .hint(
                    "Take its folder out of PYTHONPATH (or start the service in another folder), or remove or rename \
                     the file: the folder that comes first wins.",
                )
        })
        .collect()
}

/// A name in two folders of `sys.path` is how overlays work: the first one wins, and that is worth knowing.
fn hidden(scene: &ImageContext<'_>) -> Option<Finding> {
    let shadowed: Vec<String> = scene
        .image
        .distributions
        .iter()
        .filter_map(|dist| {
            let winner = scene.installed.get(dist.name.as_str())?;
            (folder(winner) != folder(dist)).then(|| {
                format!(
                    "{} {} in {} hides {} in {}",
                    dist.name,
                    winner.version,
                    folder(winner).display(),
                    dist.version,
                    folder(dist).display()
                )
            })
        })
        .collect();
    (!shadowed.is_empty()).then(|| {
        Finding::info(Code::PackageDuplicate, "sys.path")
            .observed(listed(&shadowed, 8))
            .required("the first folder wins")
            .message(format!(
                "{} {} hidden by another folder of sys.path",
                counted(shadowed.len(), "distribution"),
                verb(shadowed.len(), "is", "are")
            ))
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::*;
    use super::*;
    use crate::check::Status;
    use crate::stack::Stack;

    fn with(dists: Vec<Distribution>) -> Vec<Finding> {
        judge(&ImageContext::new(
            &stack(),
            &image(|i| i.distributions = dists).image,
        ))
    }

    fn at(folder: &str, dist: Distribution) -> Distribution {
        let name = format!("{folder}/{}-{}.dist-info", dist.name, dist.version);
        Distribution { path: name, ..dist }
    }

    #[test]
    fn two_metadata_folders_of_one_name() {
        let findings = with(vec![dist("torch", "2.4.0"), dist("torch", "2.5.0")]);
        assert_eq!(of(&findings, Code::PackageDuplicate), [(Status::Fail, "torch")]);
        assert!(
            findings[0].message.contains("2.4.0, 2.5.0"),
            "{}",
            findings[0].message
        );
    }

    /// Debian's python3-cryptography and sublist3r: an egg's record beside a wheel's, of one installation.
    #[test]
    fn two_records_that_say_the_same_are_one_installation() {
        let record = |version: &str, kind: &str| {
            let path = format!("/usr/lib/python3/dist-packages/cryptography{kind}");
            Distribution {
                path,
                ..dist("cryptography", version)
            }
        };
        let two = |first, second| {
            let records = [record(first, "-38.0.4.dist-info"), record(second, ".egg-info")];
            with(records.to_vec())
        };
        for (first, second) in [("38.0.4", "38.0.4"), ("38.0", "38.0.0"), ("unknown", "unknown")] {
            let findings = two(first, second);
            assert_eq!(
                of(&findings, Code::PackageDuplicate),
                [(Status::Pass, "packages")]
            );
        }
        for (first, second) in [
            ("38.0.4", "38.0.4+cu124"),
            ("38.0.4", "41.0.7"),
            ("38.0.4", ""),
            ("", ""),
        ] {
            let findings = two(first, second);
            let expected = [(Status::Fail, "cryptography")];
            assert_eq!(
                of(&findings, Code::PackageDuplicate),
                expected,
                "{first} {second}"
            );
        }
    }

    #[test]
    fn builds_that_share_an_import() {
        for names in [
            ["spconv-cu121", "spconv-cu124"],
            ["spconv", "spconv-cu124"],
            ["cupy-cuda11x", "cupy-cuda12x"],
        ] {
            let findings = with(names.map(|n| dist(n, "1")).to_vec());
            assert_eq!(findings.len(), 1, "{names:?}");
            assert_eq!(findings[0].status, Status::Fail, "{names:?}");
            assert!(names.iter().all(|n| findings[0].message.contains(n)), "{names:?}");
        }
        for names in [
            ["spconv-cu124", "cumm-cu124"],
            ["nvidia-cublas-cu11", "nvidia-cublas-cu12"],
            ["tensorrt", "tensorrt-cu12"],
            ["tensorrt-cu12", "tensorrt-cu12-libs"],
        ] {
            let findings = with(names.map(|n| dist(n, "1")).to_vec());
            assert_eq!(
                of(&findings, Code::PackageDuplicate),
                [(Status::Pass, "packages")],
                "{names:?}"
            );
        }
    }

    #[test]
    fn a_second_folder_is_information() {
        let findings = with(vec![at("/a", dist("six", "2")), at("/b", dist("six", "1"))]);
        let expected = [(Status::Pass, "packages"), (Status::Info, "sys.path")];
        assert_eq!(of(&findings, Code::PackageDuplicate), expected);
        assert_eq!(findings[1].observed, "six 2 in /a hides 1 in /b");
    }

    #[test]
    fn another_file_of_the_import_name_wins() {
        let hidden = |name: &str| {
            let facts = image(|i| dist_mut(i, name).hidden_by = vec!["/app/x/__init__.py".into()]);
            judge(&ImageContext::new(&stack(), &facts.image))
        };
        let findings = hidden("torch");
        assert_eq!(of(&findings, Code::PackageDuplicate), [(Status::Fail, "torch")]);
        assert_eq!(
            findings[0].message,
            "Python imports /app/x/__init__.py, which hides torch 2.5.0 in /opt/venv/lib/python3.11/site-packages"
        );
        let findings = hidden("numpy");
        assert_eq!(
            of(&findings, Code::PackageDuplicate),
            [(Status::Pass, "packages")]
        );
    }

    #[test]
    fn without_packages_in_the_manifest_nothing_is_judged() {
        let facts = image(|i| i.distributions = vec![dist("torch", "1"), dist("torch", "2")]);
        assert_eq!(judge(&ImageContext::new(&Stack::default(), &facts.image)), []);
    }
}
