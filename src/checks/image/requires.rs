//! `requires-dist`: what the installed metadata of the manifest's packages says of the other installed versions.

use super::{Scene, accepts, clean, listed, pins, shown_version, stated_versions};
use crate::check::{Code, Finding, Severity};
use crate::discover::requirement::{MarkerEnvironment, Requirement};
use crate::facts::Distribution;

pub fn judge(scene: &Scene<'_>) -> Vec<Finding> {
    let environment = MarkerEnvironment::of(scene.image.python.version.as_deref());
    scene
        .stack
        .packages
        .iter()
        .filter_map(|rule| scene.installed.get(rule.normalized.as_str()))
        .flat_map(|dist| one(scene, dist, &environment))
        .collect()
}

fn one(scene: &Scene<'_>, dist: &Distribution, environment: &MarkerEnvironment) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut met = Vec::new();
    let mut missing = Vec::new();
    for line in &dist.requires {
        let requirement: Requirement = match line.parse() {
            Ok(requirement) => requirement,
            Err(e) => {
                findings.push(unknown(dist, line, &e.to_string()));
                continue;
            }
        };
        match requirement.applies(environment) {
            Some(false) => {}
            None => findings.push(unknown(dist, line, "its marker asks for what files do not tell")),
            Some(true) => match scene.installed.get(requirement.name.as_str()) {
                None => missing.push(requirement),
                Some(other) => match refused(scene, dist, other, line, &requirement) {
                    Some(finding) => findings.push(finding),
                    None => met.push(requirement.name),
                },
            },
        }
    }
    // Whoever leaves out one package on purpose often leaves out ten: said once.
    findings.extend(absent(dist, &missing));
    if findings.is_empty() && !met.is_empty() {
        findings.push(
            Finding::pass(Code::RequiresDist, dist.name.clone())
                .observed(clean(&listed(&met, 20)))
                .required("the versions that its metadata asks for")
                .message(format!(
                    "{} finds all {} packages that it requires",
                    dist.name,
                    met.len()
                )),
        );
    }
    findings
}

fn unknown(dist: &Distribution, line: &str, why: &str) -> Finding {
    Finding::unknown(Code::RequiresDist, dist.name.clone())
        .observed(clean(line))
        .required("a requirement that can be judged")
        .message(clean(&format!(
            "a requirement of {} is not judged, since {why}: {line}",
            dist.name
        )))
}

fn shown(requirement: &Requirement) -> String {
    format!("{}{}", requirement.name, requirement.specifiers)
}

fn absent(dist: &Distribution, missing: &[Requirement]) -> Option<Finding> {
    let requirements: Vec<String> = missing.iter().map(shown).collect();
    let list = listed(&requirements, 20);
    let message = match requirements.as_slice() {
        [] => return None,
        [one] => format!("{} requires {one}, which is not installed", dist.name),
        many => format!(
            "{} requires {} packages that are not installed: {list}",
            dist.name,
            many.len()
        ),
    };
    let names: Vec<String> = missing.iter().map(|r| r.name.clone()).collect();
    let (verb, them) = if names.len() == 1 {
        ("is", "it")
    } else {
        ("are", "them")
    };
    let quoted: Vec<String> = requirements.iter().map(|r| format!("'{r}'")).collect();
    let finding = Finding::problem_as(Code::RequiresDist, Severity::Warn, dist.name.clone())
        .observed(clean(&format!("{} {verb} not installed", listed(&names, 20))))
        .required(clean(&list))
        .message(clean(&message))
        .hint(clean(&format!(
            "Install {them} if {} uses {them} here: pip install {}.",
            dist.name,
            quoted.join(" ")
        )));
    Some(finding)
}

fn refused(
    scene: &Scene<'_>,
    dist: &Distribution,
    other: &Distribution,
    line: &str,
    requirement: &Requirement,
) -> Option<Finding> {
    let name = &requirement.name;
    let shown = shown(requirement);
    if stated_versions(other).any(|v| requirement.specifiers.contains(&v))
        || requirement.specifiers.is_empty()
    {
        return None;
    }
    let version = shown_version(other);
    let message = format!(
        "{} {} requires {shown}, and {name} is {version}",
        dist.name, dist.version
    );
    let pinned = scene.rule(name).filter(|rule| pins(rule, other));
    let finding = match pinned {
        Some(rule) => {
            let pin = rule
                .specifiers
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default();
            Finding::problem_as(Code::RequiresDist, Severity::Warn, dist.name.clone())
                .message(clean(&format!("{message}; the manifest pins {name}{pin} all the same")))
                .hint(clean(&format!(
                    "Nothing to do if the pair was tested; install {name} by itself, after {}, since pip refuses both \
                     together.",
                    dist.name
                )))
        }
        None => {
            let taken = scene.rule(name).is_some_and(|rule| accepts(rule, other));
            let pin = if taken {
                ", or pin that version exactly in the manifest if the pair was tested"
            } else {
                ""
            };
            Finding::problem(Code::RequiresDist, dist.name.clone())
                .message(clean(&message))
                .hint(clean(&format!("In the Dockerfile: pip install '{shown}'{pin}.")))
        }
    };
    Some(
        finding
            .observed(clean(&format!("{name} {version}")))
            .required(clean(line)),
    )
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::*;
    use super::*;
    use crate::check::Status;
    use crate::facts::Facts;
    use crate::stack::Stack;

    fn spconv(requires: &[&str]) -> Distribution {
        Distribution {
            requires: requires.iter().map(ToString::to_string).collect(),
            ..dist("spconv-cu124", "2.3.8")
        }
    }

    fn with(rules: &[(&str, &str)], dists: Vec<Distribution>) -> Vec<Finding> {
        let packages = rules
            .iter()
            .map(|(name, specifiers)| rule(name, specifiers))
            .collect();
        let stack = Stack {
            packages,
            ..Stack::default()
        };
        let facts: Facts = image(|i| i.distributions = dists);
        judge(&Scene::new(&stack, &facts.image))
    }

    const CUMM: &str = "cumm-cu124<0.8.0,>=0.7.11";

    #[test]
    fn the_pair_that_pip_refuses_warns_only_where_the_manifest_pins_it() {
        let dists = || vec![spconv(&[CUMM]), dist("cumm-cu124", "0.8.2")];
        for (cumm, status) in [
            ("==0.8.2", Status::Warn),
            (">=0.8", Status::Fail),
            ("*", Status::Fail),
            ("==0.7.11", Status::Fail),
        ] {
            let findings = with(&[("spconv-cu124", "==2.3.8"), ("cumm-cu124", cumm)], dists());
            assert_eq!(
                of(&findings, Code::RequiresDist),
                [(status, "spconv-cu124")],
                "{cumm}"
            );
        }
        let findings = with(&[("spconv-cu124", "==2.3.8")], dists());
        assert_eq!(findings[0].status, Status::Fail);
        assert!(
            findings[0].message.contains("requires cumm-cu124"),
            "{}",
            findings[0].message
        );
        assert_eq!(findings[0].required, CUMM);
    }

    #[test]
    fn what_holds_passes_and_what_is_absent_warns() {
        let findings = with(
            &[("spconv-cu124", "*")],
            vec![spconv(&[CUMM]), dist("cumm-cu124", "0.7.11")],
        );
        assert_eq!(findings[0].status, Status::Pass);
        let findings = with(&[("spconv-cu124", "*")], vec![spconv(&[CUMM])]);
        assert_eq!(findings[0].status, Status::Warn);
        assert_eq!(
            findings[0].message,
            "spconv-cu124 requires cumm-cu124>=0.7.11, <0.8.0, which is not installed"
        );
        let findings = with(
            &[("spconv-cu124", "*")],
            vec![spconv(&[CUMM, "numpy", "fire>=1"])],
        );
        assert_eq!(
            of(&findings, Code::RequiresDist),
            [(Status::Warn, "spconv-cu124")]
        );
        assert_eq!(
            findings[0].message,
            "spconv-cu124 requires 3 packages that are not installed: cumm-cu124>=0.7.11, <0.8.0, numpy, fire>=1"
        );
    }

    #[test]
    fn only_the_manifests_packages_are_asked() {
        assert_eq!(
            with(
                &[("torch", "*")],
                vec![spconv(&[CUMM]), dist("cumm-cu124", "0.8.2")]
            ),
            []
        );
    }

    #[test]
    fn the_local_part_is_no_obstacle() {
        let vision = |line: &str| Distribution {
            requires: vec![line.into()],
            ..dist("torchvision", "0.20.0+cu124")
        };
        let torch = Distribution {
            module_version: Some("2.5.0+cu124".into()),
            ..dist("torch", "2.5.0")
        };
        for line in ["torch==2.5.0", "torch (==2.5.0)", "torch==2.5.0+cu124"] {
            let findings = with(&[("torchvision", "*")], vec![torch.clone(), vision(line)]);
            assert_eq!(findings[0].status, Status::Pass, "{line}");
        }
    }

    #[test]
    fn markers_decide_and_what_they_do_not_know_is_unknown() {
        for (line, expected) in [
            ("gone; python_version == '3.6'", None),
            ("gone; extra == 'dev'", None),
            ("gone; sys_platform == 'linux'", Some(Status::Warn)),
            ("gone; platform_release > '5'", Some(Status::Unknown)),
            ("not a requirement!", Some(Status::Unknown)),
        ] {
            let findings = with(&[("spconv-cu124", "*")], vec![spconv(&[line])]);
            assert_eq!(findings.first().map(|f| f.status), expected, "{line}");
        }
    }

    #[test]
    fn a_version_that_is_none_does_not_satisfy() {
        let findings = with(
            &[("spconv-cu124", "*")],
            vec![spconv(&[CUMM]), dist("cumm-cu124", "junk!")],
        );
        assert_eq!(findings[0].status, Status::Fail);
        let findings = with(
            &[("spconv-cu124", "*")],
            vec![spconv(&["cumm-cu124"]), dist("cumm-cu124", "junk!")],
        );
        assert_eq!(findings[0].status, Status::Pass);
    }
}
