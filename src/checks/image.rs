//! Is this image the stack that it claims to be?

use std::collections::BTreeMap;

use pep440_rs::Version;

use crate::arch::ArchList;
use crate::check::{Code, Finding};
use crate::facts::{Distribution, Facts, ImageFacts, Python};
use crate::stack::{PackageRule, Stack};

mod cuda_tag;
mod duplicates;
mod editable;
mod extensions;
mod incomplete;
mod kernels;
mod libraries;
mod loaded;
mod named_files;
mod numpy;
mod on_the_cpu;
mod owners;
mod packages;
mod python;
mod remedy;
mod requires;
mod surroundings;
mod torch_tag;
mod unread;

pub(super) use cuda_tag::without_cuda;

#[cfg(test)]
mod fixtures;

/// Judges what the image's files and libraries say. Findings come in a fixed order: Python, its packages, files,
/// libraries, kernels. A part that the manifest leaves out is not judged; `archs` is the list in force.
pub fn judge(stack: &Stack, archs: Option<&ArchList>, facts: &Facts) -> Vec<Finding> {
    let scene = ImageContext::new(stack, &facts.image);
    let mut findings: Vec<Finding> = unread::judge(&scene);
    findings.extend(python::presence(&scene));
    findings.extend(python::of_service(&scene));
    findings.extend(python::version(&scene));
    if scene.has_folders() {
        findings.extend(python::tags(&scene));
        findings.extend(packages::archives(&scene));
        findings.extend(packages::judge(&scene));
        findings.extend(incomplete::judge(&scene));
        findings.extend(owners::without_shared(&scene, cuda_tag::judge(&scene)));
        findings.extend(torch_tag::judge(&scene));
        findings.extend(duplicates::judge(&scene));
        findings.extend(owners::judge(&scene));
        findings.extend(requires::judge(&scene));
        findings.extend(numpy::judge(&scene));
        findings.extend(editable::judge(&scene));
        findings.extend(named_files::judge(&scene));
    } else {
        findings.extend(python::skipped(&scene));
    }
    findings.extend(named_files::programs(&scene));
    let is_unknown = facts.image.python.undetermined.is_some();
    let of_libraries = libraries::judge(&scene).into_iter().chain(loaded::judge(&scene));
    // What was not looked for in the service's environment is not missing.
    findings.extend(of_libraries.filter(|f| !is_unknown || !f.problem || f.code == Code::LoaderMissing));
    if scene.has_folders() {
        findings.extend(extensions::judge(&scene));
    }
    findings.extend(named_files::libraries(&scene));
    if let Some(archs) = archs.filter(|_| scene.has_folders() || !facts.image.named_libraries.is_empty()) {
        findings.extend(kernels::judge(&scene, archs));
    }
    findings.extend(super::floor::of_image(stack, archs, facts));
    remedy::fit(&scene, &mut findings);
    without_pip(&scene, &mut findings);
    findings.extend(surroundings::judge(&scene));
    // These remedies hold over builds of conda's and NVIDIA's as well: they only add NVIDIA's wheels.
    findings.extend(on_the_cpu::judge(&scene));
    name_python(&mut findings, &facts.image.python);
    findings
}

/// An image of a program has no Python that wheels could be installed for.
fn without_pip(scene: &ImageContext<'_>, findings: &mut [Finding]) {
    if scene.has_folders() || scene.image.named_libraries.is_empty() {
        return;
    }
    for finding in findings
        .iter_mut()
        .filter(|finding| finding.hint.contains("pip install"))
    {
        let hint = "Base the image on NVIDIA's runtime image of that CUDA, or copy the library into it; where the program is linked to \
                    it statically, leave its version out of the manifest's `cuda`.";
        *finding = finding.clone().hint(hint);
    }
}

/// Says of each package's problem in which Python it was seen: there may be several in an image.
fn name_python(findings: &mut [Finding], python: &Python) {
    let Some(judged) = python.judged() else { return };
    for finding in findings.iter_mut() {
        if finding.problem && finding.code.name().starts_with("package-") {
            let observed = format!("{} (Python: {judged})", finding.observed);
            *finding = finding.clone().observed(observed);
        }
    }
}

/// The stack, the facts, and what an import would find.
struct ImageContext<'a> {
    stack: &'a Stack,
    image: &'a ImageFacts,
    /// by normalised name, the distribution in the first folder of `sys.path` that has one
    installed: BTreeMap<&'a str, &'a Distribution>,
}

impl<'a> ImageContext<'a> {
    fn new(stack: &'a Stack, image: &'a ImageFacts) -> Self {
        let mut installed = BTreeMap::new();
        for dist in &image.distributions {
            installed.entry(dist.name.as_str()).or_insert(dist);
        }
        Self {
            stack,
            image,
            installed,
        }
    }

    fn has_folders(&self) -> bool {
        !self.image.python.site_packages.is_empty()
    }

    fn rule(&self, name: &str) -> Option<&'a PackageRule> {
        self.stack.packages.iter().find(|rule| rule.normalized == name)
    }
}

/// The versions that a distribution states: its metadata's, and its module's own where that is another.
fn stated_versions(dist: &Distribution) -> impl Iterator<Item = Version> {
    std::iter::once(&dist.version)
        .chain(&dist.module_version)
        .filter_map(|text| text.parse().ok())
}

/// Whether any stated version is one that the rule takes.
fn accepts(rule: &PackageRule, dist: &Distribution) -> bool {
    match &rule.specifiers {
        None => true,
        Some(specifiers) => stated_versions(dist).any(|v| specifiers.contains(&v)),
    }
}

/// The version as a person would say it: the metadata's, and what the module adds to it.
fn shown_version(dist: &Distribution) -> String {
    match &dist.module_version {
        Some(module) if *module != dist.version => {
            format!("{} ({module} in its own version.py)", dist.version)
        }
        _ if dist.version.is_empty() => "of unknown version".into(),
        _ => dist.version.clone(),
    }
}

/// Items as a list for people, the first `most` of them.
pub(super) fn listed(items: &[String], most: usize) -> String {
    let shown = items
        .iter()
        .take(most)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    match items.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::*;
    use super::*;
    use crate::check::{Code, Status};

    #[test]
    fn a_good_image_passes_with_what_was_seen() {
        let mut findings = judge(&stack(), None, &facts());
        let floor = findings.pop_if(|f| f.code == Code::DriverFloor);
        assert_eq!(floor.map(|f| f.status), Some(Status::Info));
        assert!(findings.iter().all(|f| f.status == Status::Pass), "{findings:#?}");
        let codes: std::collections::BTreeSet<_> = findings.iter().map(|f| f.code).collect();
        for code in [
            Code::PythonMissing,
            Code::PythonVersion,
            Code::PackageVersion,
            Code::PackageMissing,
            Code::PackageCudaTag,
            Code::PackageDuplicate,
            Code::RequiresDist,
            Code::EditableTrap,
            Code::FileMissing,
            Code::CudartVersion,
            Code::NvrtcVersion,
            Code::LoaderMissing,
        ] {
            assert!(codes.contains(&code), "{code} is not reported");
        }
        for finding in &findings {
            assert!(
                !finding.message.is_empty() && !finding.observed.is_empty(),
                "{finding:?}"
            );
        }
    }

    #[test]
    fn an_empty_manifest_asks_nothing() {
        assert_eq!(judge(&Stack::default(), None, &facts()), []);
        assert_eq!(judge(&Stack::default(), None, &Facts::default()), []);
    }

    #[test]
    fn every_problem_says_what_was_seen_what_was_wanted_and_what_to_do() {
        for (name, facts) in broken() {
            let findings = judge(&stack(), None, &facts);
            let problems: Vec<_> = findings.iter().filter(|f| f.problem).collect();
            assert!(!problems.is_empty(), "{name}");
            for f in problems {
                for (what, text) in [
                    ("observed", &f.observed),
                    ("required", &f.required),
                    ("message", &f.message),
                    ("hint", &f.hint),
                ] {
                    assert!(!text.is_empty(), "{name}: {what} of {f:?}");
                    assert!(!text.contains(char::is_control), "{name}: {what} of {f:?}");
                }
            }
        }
    }

    #[test]
    fn the_words_of_every_problem() {
        let mut page = String::new();
        for (name, facts) in broken() {
            page += &format!("== {name}\n");
            let mut findings = judge(&stack(), None, &facts);
            findings.retain(|f| f.status != Status::Pass);
            page += &words_of(&findings);
        }
        insta::assert_snapshot!(page);
    }

    #[test]
    fn the_order_is_the_same_every_time() {
        for (name, facts) in broken() {
            assert_eq!(
                judge(&stack(), None, &facts),
                judge(&stack(), None, &facts),
                "{name}"
            );
        }
    }
}
