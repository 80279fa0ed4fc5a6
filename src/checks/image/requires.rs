//! `requires-dist`: what installed metadata says of the versions of other installed packages.
//!
//! The manifest's packages are asked for all that they require, with what stands behind the extras that they ask for, as in
//! torch -> cuda-toolkit[cublas] -> nvidia-cublas. Of the other packages it only counts what they ask of the manifest's.

use std::collections::{BTreeSet, VecDeque};

use pep440_rs::{Operator, Version, VersionSpecifier, VersionSpecifiers};

use super::{ImageContext, accepts, listed, shown_version, stated_versions};
use crate::check::{Code, Finding, Severity, Status, accept};
use crate::discover::requirement::{MarkerEnvironment, Requirement, normalize_name};
use crate::facts::Distribution;
use crate::packages;

/// Most packages on the way to a requirement: a longer way is not followed.
const MAX_WAY: usize = 32;

pub fn judge(scene: &ImageContext<'_>) -> Vec<Finding> {
    let environment = MarkerEnvironment::of(scene.image.python.version.as_deref());
    let mut walk = Walk {
        scene,
        environment,
        followed: BTreeSet::new(),
    };
    let ours: Vec<&Distribution> = scene
        .stack
        .packages
        .iter()
        .filter_map(|rule| scene.installed.get(rule.normalized.as_str()).copied())
        .collect();
    let mut findings: Vec<Finding> = ours.iter().flat_map(|dist| walk.package(dist, None)).collect();
    // Extras that only a package outside of the manifest asks for.
    for dist in ours {
        let mut behind: Vec<Finding> = Vec::new();
        for extra in &dist.extras {
            behind.extend(walk.package(dist, Some(extra)));
        }
        findings.extend(
            behind
                .into_iter()
                .filter(|finding| finding.status != Status::Pass),
        );
    }
    let others = scene
        .installed
        .values()
        .filter(|dist| scene.rule(&dist.name).is_none());
    findings.extend(others.flat_map(|dist| walk.other(dist)));
    findings
}

/// A requirement that counts, and how it came about.
struct Link<'a> {
    /// the distribution whose metadata has the line
    dist: &'a Distribution,
    line: &'a str,
    requirement: Requirement,
    /// `torch 2.15.0 -> cuda-toolkit[cublas]`; empty where the package itself requires it
    chain: String,
    /// the distributions on the way
    parties: Vec<&'a str>,
}

struct Walk<'a> {
    scene: &'a ImageContext<'a>,
    environment: MarkerEnvironment,
    /// distributions and extras whose requirements are judged, so that circles end
    followed: BTreeSet<(&'a str, String)>,
}

impl<'a> Walk<'a> {
    /// All that a package of the manifest requires, or all that one of its extras does if that is not judged yet.
    fn package(&mut self, root: &'a Distribution, extra: Option<&String>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let (mut met, mut missing, mut missing_behind) = (Vec::new(), Vec::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for link in self.links(root, extra, &mut findings) {
            // Three extras of cuda-toolkit ask for one nvjitlink.
            if !link.chain.is_empty() && !seen.insert(shown(&link.requirement)) {
                continue;
            }
            match self.scene.installed.get(link.requirement.name.as_str()) {
                None if link.chain.is_empty() => missing.push(link),
                None => missing_behind.push(link),
                Some(other) => match refused(self.scene, root, other, &link) {
                    Some(finding) => findings.push(finding),
                    None => met.push(link.requirement.name),
                },
            }
        }
        // An image that leaves out one package on purpose often leaves out ten: one finding for all of them. What the
        // manifest accepts is a finding of its own.
        let (accepted, missing): (Vec<_>, Vec<_>) =
            missing.into_iter().partition(|link| self.is_accepted(link));
        let absent = |links: &[Link<'_>]| absent(root, Severity::Warn, links);
        findings.extend(accepted.chunks(1).chain([missing.as_slice()]).filter_map(absent));
        // Nothing installs what stands behind an extra but the package that asks for the extra.
        let absent = |links: &[Link<'_>]| self::absent(root, Code::RequiresDist.severity(), links);
        findings.extend(missing_behind.chunks(1).filter_map(absent));
        if findings.is_empty() && !met.is_empty() {
            findings.push(
                Finding::pass(Code::RequiresDist, root.name.clone())
                    .observed(listed(&met, 20))
                    .required("the versions that its metadata asks for")
                    .message(match met.len() {
                        1 => format!("{} finds the package that it requires", root.name),
                        all => format!("{} finds all {all} packages that it requires", root.name),
                    }),
            );
        }
        findings
    }

    /// What a package that the manifest does not name requires of those that it names.
    fn other(&self, dist: &'a Distribution) -> Vec<Finding> {
        let asks_for_ours = |line: &&String| {
            let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
            let name = line.get(..end.unwrap_or(line.len())).unwrap_or_default();
            self.scene.rule(&normalize_name(name)).is_some()
        };
        let environment = self.environment.within(dist);
        let links = dist.requires.iter().filter(asks_for_ours).filter_map(|line| {
            let requirement: Requirement = line.parse().ok()?;
            let applies = |extra: &str| requirement.applies(&under(&environment, extra)) == Some(true);
            let counts = applies("") || dist.extras.iter().any(|extra| applies(extra));
            counts.then(|| Link {
                dist,
                line,
                requirement: requirement.clone(),
                chain: String::new(),
                parties: Vec::new(),
            })
        });
        links
            .filter_map(|link| {
                let other = self.scene.installed.get(link.requirement.name.as_str())?;
                let mut finding = refused(self.scene, dist, other, &link)?;
                // An extension for another torch cannot be loaded; another numpy is a matter of the package's taste.
                if !packages::of(&other.name).is_some_and(|package| package.family) {
                    finding.status = Severity::Warn.into();
                }
                Some(finding)
            })
            .collect()
    }

    /// The requirements of a package that count here, and those behind the extras that it asks for.
    fn links(
        &mut self,
        root: &'a Distribution,
        extra: Option<&String>,
        findings: &mut Vec<Finding>,
    ) -> Vec<Link<'a>> {
        let mut links: Vec<Link<'a>> = Vec::new();
        let mut open = VecDeque::new();
        match extra {
            None => open.push_back((root, String::new(), String::new(), Vec::new())),
            Some(extra) if self.followed.insert((&root.name, extra.clone())) => {
                let asking = self
                    .scene
                    .installed
                    .values()
                    .find(|dist| asks(dist, &root.name, extra));
                let asking =
                    asking.map_or_else(String::new, |dist| format!("{} {} -> ", dist.name, dist.version));
                let chain = format!("{asking}{}[{extra}]", root.name);
                open.push_back((root, extra.clone(), chain, Vec::new()));
            }
            Some(_) => {}
        }
        while let Some((dist, extra, chain, parties)) = open.pop_front() {
            let plain = self.environment.within(dist);
            let environment = under(&plain, &extra);
            for line in &dist.requires {
                let requirement: Requirement = match line.parse() {
                    Ok(requirement) => requirement,
                    Err(e) if extra.is_empty() => {
                        findings.push(unknown(dist, line, &e.to_string()));
                        continue;
                    }
                    Err(_) => continue,
                };
                match requirement.applies(&environment) {
                    // What counts without the extra is judged by itself.
                    Some(true) if !extra.is_empty() && requirement.applies(&plain) == Some(true) => continue,
                    Some(true) => {}
                    Some(false) => continue,
                    None => {
                        let why = "its marker depends on a value that no file gives";
                        findings.push(unknown(dist, line, why));
                        continue;
                    }
                }
                if let Some(&target) = self.scene.installed.get(requirement.name.as_str())
                    && parties.len() < MAX_WAY
                {
                    let from = match chain.as_str() {
                        "" => format!("{} {}", root.name, root.version),
                        chain => chain.to_string(),
                    };
                    for extra in requirement
                        .extras
                        .iter()
                        .filter(|extra| target.extras.contains(extra))
                    {
                        if self.followed.insert((&target.name, extra.clone())) {
                            let mut parties = parties.clone();
                            parties.push(target.name.as_str());
                            let chain = format!("{from} -> {}[{extra}]", target.name);
                            open.push_back((target, extra.clone(), chain, parties));
                        }
                    }
                }
                links.push(Link {
                    dist,
                    line,
                    requirement,
                    chain: chain.clone(),
                    parties: parties.clone(),
                });
            }
        }
        links
    }

    /// Whether the manifest accepts that it is absent.
    fn is_accepted(&self, link: &Link<'_>) -> bool {
        let mut entries = self.scene.stack.accept.iter();
        entries.any(|entry| entry.code == Code::RequiresDist && entry.subject.name() == link.requirement.name)
    }
}

/// Whether a distribution asks for an extra of another one.
fn asks(dist: &Distribution, name: &str, extra: &String) -> bool {
    let mut lines = dist.requires.iter().filter(|line| line.contains('['));
    lines.any(|line| {
        let requirement = line.parse::<Requirement>();
        requirement.is_ok_and(|r| r.name == name && r.extras.contains(extra))
    })
}

fn under(environment: &MarkerEnvironment, extra: &str) -> MarkerEnvironment {
    MarkerEnvironment {
        extra: extra.to_string(),
        ..environment.clone()
    }
}

fn unknown(dist: &Distribution, line: &str, why: &str) -> Finding {
    Finding::unknown(Code::RequiresDist, dist.name.clone())
        .observed(line)
        .required("a requirement that can be judged")
        .message(format!(
            "a requirement of {} is not judged, since {why}: {line}",
            dist.name
        ))
}

fn shown(requirement: &Requirement) -> String {
    format!("{}{}", requirement.name, requirement.specifiers)
}

impl Link<'_> {
    /// ` (torch 2.15.0 -> cuda-toolkit[cublas] -> nvidia-cublas==13.4.1.3.*)`
    fn way(&self) -> String {
        match self.chain.as_str() {
            "" => String::new(),
            chain => format!(" ({chain} -> {})", shown(&self.requirement)),
        }
    }
}

fn absent(dist: &Distribution, severity: Severity, missing: &[Link<'_>]) -> Option<Finding> {
    let requirements: Vec<String> = missing.iter().map(|link| shown(&link.requirement)).collect();
    let list = listed(&requirements, 20);
    let message = match requirements.as_slice() {
        [] => return None,
        [one] => {
            let way: String = missing.iter().map(Link::way).collect();
            format!("{} requires {one}, which is not installed{way}", dist.name)
        }
        many => format!(
            "{} requires {} packages that are not installed: {list}",
            dist.name,
            many.len()
        ),
    };
    let names: Vec<String> = missing.iter().map(|link| link.requirement.name.clone()).collect();
    let (verb, them) = if names.len() == 1 {
        ("is", "it")
    } else {
        ("are", "them")
    };
    let quoted: Vec<String> = requirements.iter().map(|r| format!("'{r}'")).collect();
    let command = format!("pip install {}", quoted.join(" "));
    let hint = match severity {
        Severity::Fail => format!("In the Dockerfile: {command}."),
        _ => format!("Install {them} if {} uses {them} here: {command}.", dist.name),
    };
    let finding = Finding::problem_as(Code::RequiresDist, severity, dist.name.clone())
        .with(&names)
        .observed(format!("{} {verb} not installed", listed(&names, 20)))
        .required(list)
        .message(message)
        .hint(hint);
    Some(finding)
}

fn refused(
    scene: &ImageContext<'_>,
    root: &Distribution,
    other: &Distribution,
    link: &Link<'_>,
) -> Option<Finding> {
    let requirement = &link.requirement;
    let name = requirement.name.as_str();
    let shown = shown(requirement);
    // NVIDIA's containers hold torch 2.6.0a0+ecf3bae40a.nv25.1, which is what others mean by 2.6.
    let released = |version: &Version| {
        let release = Version::new(version.release());
        version.any_prerelease() && requirement.specifiers.contains(&release)
    };
    let takes = |version: Version| requirement.specifiers.contains(&version) || released(&version);
    if stated_versions(other).any(takes) || requirement.specifiers.is_empty() {
        return None;
    }
    let version = shown_version(other);
    Some(
        Finding::problem(Code::RequiresDist, root.name.clone())
            .with(link.parties.iter().copied().chain([root.name.as_str(), name]))
            .observed(format!("{name} {version}"))
            .required(match link.chain.as_str() {
                "" => link.line,
                // Behind an extra, the line is all marker.
                _ => &shown,
            })
            .message(format!(
                "{} {} requires {shown}, and {name} is {version}{}",
                root.name,
                root.version,
                link.way()
            ))
            .hint(remedy(scene, link.dist, name, requirement)),
    )
}

/// Which of the two packages has to change: never torch, which others are built for, else the one that the manifest leaves
/// open. What is said of one package fits what the manifest and all other packages ask of it, so that hints agree.
fn remedy(scene: &ImageContext<'_>, dist: &Distribution, name: &str, requirement: &Requirement) -> String {
    let excepted = if name == "torch" { &dist.name } else { name };
    let entry = accept::written(Code::RequiresDist, "package", excepted, "…");
    format!(
        "{} Or accept the pair, if it was tested, in the manifest: {entry}.",
        change(scene, dist, name, requirement)
    )
}

fn change(scene: &ImageContext<'_>, dist: &Distribution, name: &str, requirement: &Requirement) -> String {
    let installed = scene.installed.get(name);
    let rule = scene.rule(name);
    let is_refused = rule
        .zip(installed)
        .is_some_and(|(rule, other)| !accepts(rule, other));
    let own_rule = scene.rule(&dist.name).filter(|rule| accepts(rule, dist));
    let is_pinned = own_rule.is_some_and(|rule| rule.specifiers.is_some());
    let follow = |name: &str| match is_pinned {
        true => format!(", and let the manifest ask for that {name}"),
        false => String::new(),
    };
    if let Some(asked) = rule
        .and_then(|rule| rule.specifiers.as_ref())
        .filter(|_| is_refused)
    {
        // `package-version` says the same of it.
        return match have_one([asked, &requirement.specifiers]) {
            true => format!("In the Dockerfile: pip install '{name}{asked}'."),
            false => {
                let wanted = format!("{name}{asked}");
                of_release(dist, &wanted, "the manifest's", name, &follow(&dist.name))
            }
        };
    }
    let is_torch = name == "torch";
    let stays = is_torch || (rule.is_some() && !is_pinned && dist.name != "torch");
    if let Some(other) = installed.filter(|_| stays) {
        let release = other.version.split('+').next().unwrap_or_default();
        let wanted = format!("{name}=={release}");
        return of_release(dist, &wanted, "this", name, &follow(&dist.name));
    }
    let asking = asking(scene, name);
    match have_one(asking.iter().map(|(_, specifiers)| specifiers)) {
        true => format!(
            "In the Dockerfile: pip install '{name}{}'{}.",
            narrowest(asking.iter().map(|(_, specifiers)| specifiers)),
            match rule {
                Some(_) => follow(name),
                None => String::new(),
            }
        ),
        false => {
            let each = asking.iter().filter(|(_, specifiers)| !specifiers.is_empty());
            let each: Vec<String> = each
                .map(|(dist, specifiers)| {
                    format!("{} {} asks for {name}{specifiers}", dist.name, dist.version)
                })
                .collect();
            format!(
                "Install releases that agree on {name}: no release of it fits all of them ({}).",
                listed(&each, 8)
            )
        }
    }
}

fn of_release(dist: &Distribution, wanted: &str, whose: &str, name: &str, follow: &str) -> String {
    format!(
        "In the Dockerfile: pip install {} '{wanted}', which finds the release of {} for {whose} {name}{follow}.",
        dist.name, dist.name
    )
}

/// How to install the release of a package for the installed torch, where its metadata refuses that one.
pub fn for_this_torch(scene: &ImageContext<'_>, dist: &Distribution) -> Option<String> {
    let torch = scene.installed.get("torch")?;
    let environment = MarkerEnvironment::of(scene.image.python.version.as_deref()).within(dist);
    let mut lines = dist.requires.iter();
    let requirement = lines.find_map(|line| {
        let requirement: Requirement = line.strip_prefix("torch").and_then(|_| line.parse().ok())?;
        (requirement.name == "torch" && requirement.applies(&environment) == Some(true))
            .then_some(requirement)
    })?;
    let takes = |version: Version| requirement.specifiers.contains(&version);
    let is_refused = !requirement.specifiers.is_empty() && !stated_versions(torch).any(takes);
    is_refused.then(|| change(scene, dist, "torch", &requirement))
}

/// What installed packages ask of a distribution.
fn asking<'a>(scene: &ImageContext<'a>, name: &str) -> Vec<(&'a Distribution, VersionSpecifiers)> {
    let environment = MarkerEnvironment::of(scene.image.python.version.as_deref());
    let mut all = Vec::new();
    for dist in scene.installed.values() {
        let plain = environment.within(dist);
        for line in &dist.requires {
            let Ok(requirement) = line.parse::<Requirement>() else {
                continue;
            };
            let applies = |extra: &str| requirement.applies(&under(&plain, extra)) == Some(true);
            if requirement.name == name
                && !requirement.specifiers.is_empty()
                && (applies("") || dist.extras.iter().any(|extra| applies(extra)))
            {
                all.push((*dist, requirement.specifiers));
            }
        }
    }
    all
}

/// Whether some version is taken by all: one that they name, or the one after it.
fn have_one<'s>(all: impl IntoIterator<Item = &'s VersionSpecifiers>) -> bool {
    let all: Vec<&VersionSpecifiers> = all.into_iter().collect();
    let named = all.iter().flat_map(|specifiers| specifiers.iter());
    let mut candidates = vec![Version::new([0])];
    for version in named.map(VersionSpecifier::version) {
        let next = version.release().iter().copied().chain([1]);
        candidates.extend([version.clone(), Version::new(next)]);
    }
    candidates
        .iter()
        .any(|version| all.iter().all(|specifiers| specifiers.contains(version)))
}

/// All of them, each bound once: of several lower or upper ones the narrowest.
fn narrowest<'s>(all: impl Iterator<Item = &'s VersionSpecifiers>) -> VersionSpecifiers {
    let mut kept: Vec<VersionSpecifier> = Vec::new();
    for new in all.flat_map(|specifiers| specifiers.iter()) {
        let same = kept.iter_mut().find(|old| {
            let is_bound = matches!(
                new.operator(),
                Operator::GreaterThanEqual
                    | Operator::LessThan
                    | Operator::LessThanEqual
                    | Operator::GreaterThan
            );
            old.operator() == new.operator() && (is_bound || *old == new)
        });
        let is_lower = matches!(new.operator(), Operator::GreaterThanEqual | Operator::GreaterThan);
        match same {
            Some(old) if (new.version() > old.version()) == is_lower => *old = new.clone(),
            Some(_) => {}
            None => kept.push(new.clone()),
        }
    }
    kept.into_iter().collect()
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
        judge(&ImageContext::new(&stack, &facts.image))
    }

    const CUMM: &str = "cumm-cu124<0.8.0,>=0.7.11";

    #[test]
    fn the_pair_that_pip_refuses_fails_whatever_the_manifest_pins() {
        let dists = || vec![spconv(&[CUMM]), dist("cumm-cu124", "0.8.2")];
        for cumm in ["==0.8.2", ">=0.8", "*", "==0.7.11"] {
            let findings = with(&[("spconv-cu124", "==2.3.8"), ("cumm-cu124", cumm)], dists());
            assert_eq!(
                of(&findings, Code::RequiresDist),
                [(Status::Fail, "spconv-cu124")],
                "{cumm}"
            );
            assert_eq!(findings[0].parties, ["spconv-cu124", "cumm-cu124"]);
        }
        let findings = with(&[("spconv-cu124", "==2.3.8")], dists());
        assert!(
            findings[0].message.contains("requires cumm-cu124"),
            "{}",
            findings[0].message
        );
        assert_eq!(findings[0].required, CUMM);
    }

    #[test]
    fn the_remedy_changes_what_the_manifest_leaves_open() {
        let vision = Distribution {
            requires: vec!["torch==2.6.0".into()],
            ..dist("torchvision", "0.21.0")
        };
        let dists = || vec![vision.clone(), dist("torch", "2.5.0")];
        let hint = |rules: &[(&str, &str)]| with(rules, dists())[0].hint.clone();
        let of_torch = hint(&[("torchvision", "*"), ("torch", "==2.5.0")]);
        assert!(
            of_torch.contains("pip install torchvision 'torch==2.5.0'"),
            "{of_torch}"
        );
        let of_vision = hint(&[("torchvision", "==0.21.0"), ("torch", "==2.4.0")]);
        assert!(
            of_vision.contains(
                "pip install torchvision 'torch==2.4.0', which finds the release of torchvision for the"
            ),
            "{of_vision}"
        );
        let of_vision = hint(&[("torchvision", "==0.21.0"), ("torch", ">=2.6")]);
        assert!(of_vision.contains("pip install 'torch>=2.6'."), "{of_vision}");
        let of_both = hint(&[("torchvision", "==0.21.0"), ("torch", "==2.5.0")]);
        for part in [
            "pip install torchvision 'torch==2.5.0'",
            "let the manifest ask for that torchvision",
            "\"package\": \"torchvision\"",
        ] {
            assert!(of_both.contains(part), "{of_both}");
        }
        let pair = vec![spconv(&[CUMM]), dist("cumm-cu124", "0.8.2")];
        let pinned = [("spconv-cu124", "==2.3.8"), ("cumm-cu124", "==0.8.2")];
        let of_pair = with(&pinned, pair)[0].hint.clone();
        let cumm = "'cumm-cu124>=0.7.11, <0.8.0', and let the manifest ask for that cumm-cu124";
        assert!(of_pair.contains(cumm), "{of_pair}");
    }

    /// Who follows one hint must not be sent back by the next one.
    #[test]
    fn hints_for_one_package_agree() {
        let dists = || {
            vec![
                dist("torch", "2.4.1"),
                requiring("torchvision", "0.21.0", &["torch==2.6.0"], &[]),
                requiring("torchaudio", "2.3.0", &["torch==2.3.0"], &[]),
                requiring("xformers", "0.0.28", &["torch>=2.5"], &[]),
            ]
        };
        let names = ["torch", "torchvision", "torchaudio", "xformers"];
        let loose = names.map(|name| (name, "*"));
        let mut pinned = loose;
        pinned[0].1 = "==2.5.0";
        for (rules, torch) in [(pinned, "==2.5.0"), (loose, "==2.4.1")] {
            let findings = with(&rules, dists());
            assert_eq!(findings.iter().filter(|f| f.problem).count(), 3, "{findings:?}");
            for finding in findings.iter().filter(|f| f.problem) {
                let asked = finding.hint.split('\'').nth(1).unwrap_or_default();
                assert_eq!(asked, format!("torch{torch}"), "{}", finding.hint);
            }
        }
    }

    #[test]
    fn what_all_packages_ask_for_is_asked_of_pip() {
        let hints = |c: &str| {
            let dists = vec![
                dist("x", "5.0"),
                requiring("a", "1.0", &["x>=1.2,<4"], &[]),
                requiring("b", "1.0", &["x>=1.5"], &[]),
                requiring("c", "1.0", &[c], &[]),
            ];
            let rules = [("a", "==1.0"), ("b", "==1.0"), ("c", "==1.0")];
            let findings = with(&rules, dists);
            let refused = findings.into_iter().filter(|f| f.problem);
            refused.map(|f| f.hint).collect::<Vec<_>>()
        };
        let hints_of_one = hints("x<3,!=2.0");
        assert_eq!(hints_of_one.len(), 2);
        for hint in hints_of_one {
            assert!(hint.contains("pip install 'x>=1.5, !=2.0, <3'."), "{hint}");
        }
        for hint in hints("x<1.5") {
            assert!(
                hint.starts_with("Install releases that agree on x: no release of it fits"),
                "{hint}"
            );
            assert!(hint.contains("c 1.0 asks for x<1.5"), "{hint}");
        }
    }

    /// Its CUDA libraries are what torch was built for, and not the other way round.
    #[test]
    fn torch_is_not_exchanged_for_a_library_of_its_own() {
        let findings = with(
            &[("torch", "*"), ("nvidia-nccl-cu12", "*")],
            vec![
                requiring("torch", "2.5.0", &["nvidia-nccl-cu12==2.21.5"], &[]),
                dist("nvidia-nccl-cu12", "2.20.5"),
            ],
        );
        let hint = &findings[0].hint;
        assert!(
            hint.starts_with("In the Dockerfile: pip install 'nvidia-nccl-cu12==2.21.5'."),
            "{hint}"
        );
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

    fn requiring(name: &str, version: &str, requires: &[&str], extras: &[&str]) -> Distribution {
        Distribution {
            requires: requires.iter().map(ToString::to_string).collect(),
            extras: extras.iter().map(ToString::to_string).collect(),
            ..dist(name, version)
        }
    }

    /// torch 2.15.0 from PyPI.
    fn torch_with_toolkit(others: &[(&str, &str)]) -> Vec<Distribution> {
        let torch = requiring("torch", "2.15.0", &["cuda-toolkit[cublas,cufft]==13.2.2"], &[]);
        let toolkit = requiring(
            "cuda-toolkit",
            "13.2.2",
            &[
                "nvidia-cublas==13.4.1.3.*; sys_platform == 'linux' and extra == 'cublas'",
                "nvidia-nvjitlink<14,>=13.2.86; extra == 'cublas'",
                "nvidia-nvjitlink<14,>=13.2.86; extra == 'cufft'",
                "nvidia-cufft==12.2.0.57.*; extra == 'cufft'",
            ],
            &["cublas", "cufft"],
        );
        let others = others.iter().map(|(name, version)| dist(name, version));
        [torch, toolkit].into_iter().chain(others).collect()
    }

    #[test]
    fn what_stands_behind_an_extra_is_judged_with_the_way_to_it() {
        let good = [
            ("nvidia-cublas", "13.4.1.3"),
            ("nvidia-nvjitlink", "13.2.86"),
            ("nvidia-cufft", "12.2.0.57"),
        ];
        let rules = [("torch", "*")];
        let findings = with(&rules, torch_with_toolkit(&good));
        assert_eq!(findings[0].status, Status::Pass, "{findings:?}");
        assert!(findings[0].observed.contains("nvidia-cufft"), "{findings:?}");

        let older = [("nvidia-cublas", "13.1.0.3"), good[1], good[2]];
        let findings = with(&rules, torch_with_toolkit(&older));
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].status, Status::Fail);
        assert_eq!(
            findings[0].message,
            "torch 2.15.0 requires nvidia-cublas==13.4.1.3.*, and nvidia-cublas is 13.1.0.3 (torch 2.15.0 -> \
             cuda-toolkit[cublas] -> nvidia-cublas==13.4.1.3.*)"
        );
        assert!(
            findings[0]
                .hint
                .contains("pip install 'nvidia-cublas==13.4.1.3.*'")
        );
        assert_eq!(findings[0].parties, ["cuda-toolkit", "torch", "nvidia-cublas"]);

        let findings = with(&rules, torch_with_toolkit(&good[..2]));
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].status, Status::Fail);
        assert!(
            findings[0].message.ends_with(
                "which is not installed (torch 2.15.0 -> cuda-toolkit[cufft] -> nvidia-cufft==12.2.0.57.*)"
            ),
            "{}",
            findings[0].message
        );
    }

    #[test]
    fn an_extra_that_a_package_outside_of_the_manifest_asks_for_counts() {
        let dists = vec![
            requiring("service", "1", &["jax[cuda12]"], &[]),
            requiring(
                "jax",
                "0.7",
                &["plugin[with-cuda]; extra == 'cuda12'"],
                &["cuda12"],
            ),
            requiring(
                "plugin",
                "0.7",
                &["nvidia-cublas-cu12>=12.8; extra == 'with-cuda'"],
                &["with-cuda"],
            ),
            dist("nvidia-cublas-cu12", "12.4.5.8"),
        ];
        let findings = with(&[("plugin", "*"), ("jax", "*")], dists);
        assert_eq!(of(&findings, Code::RequiresDist), [(Status::Fail, "plugin")]);
        assert!(
            findings[0]
                .message
                .ends_with("(jax 0.7 -> plugin[with-cuda] -> nvidia-cublas-cu12>=12.8)"),
            "{}",
            findings[0].message
        );
    }

    #[test]
    fn circles_of_extras_end() {
        let dists = vec![
            requiring("torch", "1", &["b[x]"], &["y"]),
            requiring(
                "b",
                "1",
                &["c[y]; extra == 'x'", "torch[y]; extra == 'x'"],
                &["x"],
            ),
            requiring("c", "1", &["b[x]; extra == 'y'", "d>2; extra == 'y'"], &["y"]),
            dist("d", "1"),
        ];
        let findings = with(&[("torch", "*")], dists);
        assert_eq!(of(&findings, Code::RequiresDist), [(Status::Fail, "torch")]);
        assert!(
            findings[0].message.contains("torch 1 -> b[x] -> c[y] -> d>2"),
            "{}",
            findings[0].message
        );
    }

    #[test]
    fn others_are_held_against_the_packages_of_the_manifest() {
        let dists = vec![
            dist("torch", "2.5.0"),
            dist("numpy", "2.0"),
            requiring("torchvision", "0.21.0", &["torch==2.6.0", "pillow>=99"], &[]),
            requiring("xformers", "0.0.29", &["torch==2.5.0", "numpy"], &[]),
            requiring("old", "1", &["numpy<2"], &[]),
            dist("pillow", "1"),
        ];
        let findings = with(&[("torch", "==2.5.0"), ("numpy", "*")], dists);
        assert_eq!(
            of(&findings, Code::RequiresDist),
            [(Status::Warn, "old"), (Status::Fail, "torchvision")]
        );
        let hint = &findings[1].hint;
        assert!(hint.contains("pip install torchvision 'torch==2.5.0'"), "{hint}");
    }

    #[test]
    fn an_accepted_absence_is_a_finding_of_its_own() {
        use crate::check::accept::{Accept, Subject};
        let stack = Stack {
            packages: vec![rule("spconv-cu124", "*")],
            accept: vec![Accept {
                code: Code::RequiresDist,
                subject: Subject::Package("fire".into()),
                reason: "not used".into(),
            }],
            ..Stack::default()
        };
        let facts: Facts = image(|i| i.distributions = vec![spconv(&["numpy", "fire", "sympy"])]);
        let findings = judge(&ImageContext::new(&stack, &facts.image));
        let parties: Vec<_> = findings.iter().map(|f| f.parties.clone()).collect();
        assert_eq!(parties, [vec!["fire"], vec!["numpy", "sympy"]]);
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
    fn a_vendor_s_build_before_the_release_counts_as_the_release() {
        let judged = |line: &str| {
            let vision = requiring("torchvision", "1", &[line], &[]);
            let torch = dist("torch", "2.6.0a0+ecf3bae40a.nv25.1");
            with(&[("torch", "*")], vec![vision, torch])
                .iter()
                .map(|f| f.status)
                .next()
        };
        for line in ["torch>=2.6", "torch==2.6.0", "torch<2.7,>=2.6.0.dev"] {
            assert_eq!(judged(line), None, "{line}");
        }
        for line in ["torch==2.5.0", "torch>=2.7", "torch<2.6"] {
            assert_eq!(judged(line), Some(Status::Fail), "{line}");
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
