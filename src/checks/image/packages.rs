//! `package-missing` and `package-version`.

use pep440_rs::Version;

use super::{ImageContext, accepts, shown_version};
use crate::check::{Code, Finding};
use crate::facts::Distribution;
use crate::nvidia::NvidiaWheel;
use crate::stack::PackageRule;

pub fn judge(scene: &ImageContext<'_>) -> Vec<Finding> {
    let elsewhere = elsewhere(scene);
    scene
        .stack
        .packages
        .iter()
        .map(|rule| match scene.installed.get(rule.normalized.as_str()) {
            Some(dist) => installed(rule, dist),
            None => missing(scene, rule, elsewhere.as_deref()),
        })
        .collect()
}

/// The next step where (nearly) nothing of the manifest is here, as in another Python than the service's: to install it all
/// would be wrong.
fn elsewhere(scene: &ImageContext<'_>) -> Option<String> {
    let python = &scene.image.python;
    let rules = || scene.stack.packages.iter().filter(|rule| !rule.optional);
    let here = |rule: &&PackageRule| {
        scene.installed.contains_key(rule.normalized.as_str()) || sibling(scene, rule).is_some()
    };
    let (count, here) = (rules().count(), rules().filter(here).count());
    let few = match here {
        0 if count > 1 => "None".to_string(),
        1 if count >= 4 => "Only 1".to_string(),
        _ => return None,
    };
    let found_by = python.found_by.as_deref()?;
    Some(format!(
        "{few} of the manifest's {count} packages is installed in {} (found by {found_by}). If the service uses another \
         Python, set CUDA_ENTRYPOINT_PYTHON to it or put its bin directory first on PATH; otherwise install them.",
        python.judged()?
    ))
}

/// The package for another CUDA.
fn sibling<'a>(scene: &ImageContext<'a>, rule: &PackageRule) -> Option<&'a Distribution> {
    let base = super::cuda_tag::without_cuda(&rule.normalized);
    let mut installed = scene.installed.values().copied();
    installed.find(|d| {
        base.is_some() && super::cuda_tag::without_cuda(&d.name) == base || Some(&d.name) == base.as_ref()
    })
}

/// Zip files and eggs that Python imports from.
pub fn archives(scene: &ImageContext<'_>) -> Option<Finding> {
    let archives = &scene.image.python.archives;
    let asks = !scene.stack.packages.is_empty() || !scene.stack.files.is_empty();
    (asks && !archives.is_empty()).then(|| {
        let shown = super::listed(archives, 4);
        Finding::info(Code::PackageMissing, "sys.path")
            .observed(shown.clone())
            .message(format!(
                "zip files and eggs are not looked into: what {shown} holds counts as not installed, and what it hides \
                 is not seen"
            ))
    })
}

/// What pip would be asked for.
fn wanted(rule: &PackageRule) -> String {
    match &rule.specifiers {
        Some(specifiers) => format!("{}{specifiers}", rule.name),
        None => rule.name.clone(),
    }
}

fn required(rule: &PackageRule) -> String {
    rule.specifiers
        .as_ref()
        .map_or_else(|| "any version".into(), ToString::to_string)
}

fn missing(scene: &ImageContext<'_>, rule: &PackageRule, elsewhere: Option<&str>) -> Finding {
    let subject = rule.normalized.clone();
    if rule.optional {
        return Finding::skip(Code::PackageMissing, subject)
            .observed("not installed")
            .required(required(rule))
            .message(format!("{} is optional and not installed", rule.name));
    }
    let sibling = sibling(scene, rule);
    let (observed, instead) = match sibling {
        Some(d) => (
            format!("{} {}", d.name, d.version),
            format!("; {} {} is installed instead", d.name, d.version),
        ),
        None => ("not installed".into(), String::new()),
    };
    let removal = sibling.map_or_else(String::new, |d| format!("pip uninstall {}, then ", d.name));
    let unseen = match scene.image.python.archives.as_slice() {
        [] => String::new(),
        archives => format!(
            " in a folder of sys.path; zip files and eggs are not looked into ({})",
            super::listed(archives, 4)
        ),
    };
    Finding::problem(Code::PackageMissing, subject)
        .observed(observed)
        .required(required(rule))
        .message(format!("{} is not installed{unseen}{instead}", rule.name))
        .hint(elsewhere.map_or_else(
            || {
                format!(
                    "In the Dockerfile: {removal}pip install '{}'. Or write \"optional\": true for it in the manifest.",
                    wanted(rule)
                )
            },
            str::to_string,
        ))
}

fn installed(rule: &PackageRule, dist: &Distribution) -> Finding {
    let shown = shown_version(dist);
    let subject = rule.normalized.clone();
    let problem = |message: String, hint: String| {
        Finding::problem(Code::PackageVersion, subject.clone())
            .message(message)
            .hint(hint)
    };
    // What a wheel of NVIDIA's requires is there, in the release that others pin.
    let alone = match NvidiaWheel::of_distribution(&rule.normalized) {
        Some(_) => " --no-deps",
        None => "",
    };
    let reinstall = format!(
        "In the Dockerfile: pip install --force-reinstall{alone} '{}'.",
        wanted(rule)
    );
    let finding = if let Some((metadata, module)) = torn(dist) {
        // Whatever the rule takes, half of this installation is something else.
        problem(
            format!(
                "{}'s metadata says {metadata}, and its own version.py says {module}",
                rule.name
            ),
            format!("One installation was copied over another. {reinstall}"),
        )
    } else if accepts(rule, dist) {
        let code = if rule.specifiers.is_some() {
            Code::PackageVersion
        } else {
            Code::PackageMissing
        };
        Finding::pass(code, subject.clone()).message(format!("{} is {shown}", rule.name))
    } else if dist.version.is_empty() {
        problem(
            format!(
                "{} is installed without a version in its metadata ({})",
                rule.name, dist.path
            ),
            reinstall,
        )
    } else {
        problem(
            format!(
                "{} is {shown}, and the manifest asks for {}",
                rule.name,
                required(rule)
            ),
            format!(
                "{reinstall} Or correct the manifest, if {} is what was tested.",
                dist.version
            ),
        )
    };
    let observed = shown;
    finding.observed(observed).required(required(rule))
}

/// Two versions that cannot both be true: PyPI's torch has `2.5.0` in its metadata and `2.5.0+cu124` in its module,
/// so releases have to differ. Builds that differ are `package-cuda-tag`'s to judge.
fn torn(dist: &Distribution) -> Option<(Version, Version)> {
    let metadata: Version = dist.version.parse().ok()?;
    let module: Version = dist.module_version.as_ref()?.parse().ok()?;
    (metadata.clone().without_local() != module.clone().without_local()).then_some((metadata, module))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::*;
    use super::*;
    use crate::check::Status;
    use crate::stack::Stack;

    fn one(rule: PackageRule, dists: Vec<Distribution>) -> Finding {
        let stack = Stack {
            packages: vec![rule],
            ..Stack::default()
        };
        let facts = image(|i| i.distributions = dists);
        let mut findings = judge(&ImageContext::new(&stack, &facts.image));
        assert_eq!(findings.len(), 1);
        findings.remove(0)
    }

    #[test]
    fn either_version_of_torch_satisfies() {
        let pypi = Distribution {
            module_version: Some("2.5.0+cu124".into()),
            ..dist("torch", "2.5.0")
        };
        let local = Distribution {
            module_version: Some("2.5.0+cu124".into()),
            ..dist("torch", "2.5.0+cu124")
        };
        for torch in [pypi, local] {
            for (specifiers, status) in [
                ("==2.5.0+cu124", Status::Pass),
                ("==2.5.0", Status::Pass),
                (">=2.4,<2.6", Status::Pass),
                ("==2.5.*", Status::Pass),
                ("==2.5.0+cu121", Status::Fail),
                ("==2.5.1", Status::Fail),
                (">2.5.0", Status::Fail),
            ] {
                assert_eq!(
                    one(rule("torch", specifiers), vec![torch.clone()]).status,
                    status,
                    "{specifiers}"
                );
            }
        }
    }

    #[test]
    fn versions_that_cannot_both_be_true_are_named() {
        let torch = Distribution {
            module_version: Some("2.4.1+cu124".into()),
            ..dist("torch", "2.5.0+cu124")
        };
        for specifiers in ["==2.5.0+cu124", "==2.4.1+cu124", "*"] {
            let finding = one(rule("torch", specifiers), vec![torch.clone()]);
            assert_eq!(
                (finding.code, finding.status),
                (Code::PackageVersion, Status::Fail)
            );
            assert!(finding.message.contains("2.5.0+cu124") && finding.message.contains("2.4.1+cu124"));
        }
    }

    #[test]
    fn another_version_says_both() {
        let finding = one(rule("mmcv", "==2.2.0"), vec![dist("mmcv", "2.1.0")]);
        assert_eq!(
            (finding.code, finding.status),
            (Code::PackageVersion, Status::Fail)
        );
        assert_eq!(
            (finding.observed.as_str(), finding.required.as_str()),
            ("2.1.0", "==2.2.0")
        );
        assert!(finding.hint.contains("'mmcv==2.2.0'"), "{}", finding.hint);
    }

    #[test]
    fn versions_that_are_none() {
        for version in ["", "unknown", "1.0-junk-2"] {
            let finding = one(rule("x", ">=1"), vec![dist("x", version)]);
            assert_eq!(
                (finding.code, finding.status),
                (Code::PackageVersion, Status::Fail),
                "{version}"
            );
            assert_eq!(
                one(rule("x", "*"), vec![dist("x", version)]).status,
                Status::Pass,
                "{version}"
            );
        }
    }

    #[test]
    fn names_compare_normalised_and_the_first_folder_wins() {
        let dists = vec![dist("torch-scatter", "2.1.2"), dist("torch-scatter", "1.0")];
        let finding = one(rule("Torch_Scatter", "==2.1.2"), dists);
        assert_eq!(
            (finding.status, finding.subject.as_str()),
            (Status::Pass, "torch-scatter")
        );
    }

    #[test]
    fn missing_ones() {
        let finding = one(rule("mmcv", "==2.2.0"), vec![]);
        assert_eq!(
            (finding.code, finding.status),
            (Code::PackageMissing, Status::Fail)
        );
        let optional = PackageRule {
            optional: true,
            ..rule("mmcv", "==2.2.0")
        };
        assert_eq!(one(optional.clone(), vec![]).status, Status::Skip);
        assert_eq!(one(optional, vec![dist("mmcv", "2.1.0")]).status, Status::Fail);
    }

    #[test]
    fn a_build_for_another_cuda_is_named_instead() {
        for other in ["spconv-cu121", "spconv"] {
            let finding = one(rule("spconv-cu124", "==2.3.8"), vec![dist(other, "2.3.6")]);
            assert!(
                finding
                    .message
                    .contains(&format!("{other} 2.3.6 is installed instead")),
                "{}",
                finding.message
            );
            assert!(
                finding.hint.contains(&format!("pip uninstall {other}")),
                "{}",
                finding.hint
            );
        }
        let finding = one(rule("mmcv", "*"), vec![dist("spconv", "2.3.6")]);
        assert_eq!(finding.observed, "not installed");
    }

    /// pip would bring the other wheels that it pins along with one of NVIDIA's.
    #[test]
    fn a_wheel_of_nvidias_is_replaced_alone() {
        let hint = |name| one(rule(name, "==9.1.0"), vec![dist(name, "9.3.0")]).hint;
        assert!(
            hint("nvidia-cudnn-cu12").starts_with(
                "In the Dockerfile: pip install --force-reinstall --no-deps 'nvidia-cudnn-cu12==9.1.0'."
            ),
            "{}",
            hint("nvidia-cudnn-cu12")
        );
        assert!(hint("mmcv").contains("--force-reinstall 'mmcv==9.1.0'"));
    }

    #[test]
    fn another_python_than_the_services_is_said_once() {
        let hints = |names: &[&str], installed: &[&str]| {
            let stack = Stack {
                packages: names.iter().map(|name| rule(name, "*")).collect(),
                ..Stack::default()
            };
            let facts = image(|i| i.distributions = installed.iter().map(|name| dist(name, "1")).collect());
            let findings = judge(&ImageContext::new(&stack, &facts.image));
            let mut hints: Vec<String> = findings.into_iter().map(|finding| finding.hint).collect();
            hints.retain(|hint| !hint.is_empty());
            hints.dedup();
            hints
        };
        let all = ["torch", "cumm-cu124", "spconv-cu124", "mmcv"];
        assert_eq!(
            hints(&all, &["pip"]),
            [
                "None of the manifest's 4 packages is installed in /opt/venv/bin/python3 (found by PATH). If the service uses \
              another Python, set CUDA_ENTRYPOINT_PYTHON to it or put its bin directory first on PATH; otherwise install \
              them."
            ]
        );
        let nearly = hints(&all, &["mmcv"]);
        assert_eq!(nearly.len(), 1);
        assert!(
            nearly[0].starts_with("Only 1 of the manifest's 4 packages is installed in "),
            "{nearly:?}"
        );
        assert_eq!(hints(&all, &["mmcv", "torch"]).len(), 2);
        // Each has a step of its own where something of it is there.
        assert_eq!(hints(&all, &["cumm-cu118", "mmcv"]).len(), 3);
        assert!(hints(&all[..1], &[])[0].contains("pip install 'torch'"));
    }
}
