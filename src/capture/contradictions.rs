//! What is wrong with an image whatever its manifest says, and what a manifest of it must not hide.
//!
//! A captured manifest states what is there. Where that makes a check pass which fails by what the packages themselves
//! require, the image is not right, and the manifest would hide it.

use super::Captured;
use crate::arch::ArchList;
use crate::check::{Code, Finding, Findings, Overrides, accept};
use crate::checks::{floor, image};
use crate::facts::{CudaVersion, Facts, ImageFacts, Library, LibraryOrigin};
use crate::packages;
use crate::stack::{CudaRule, PackageRule, Stack};

/// The failures, of which `probed` were found before there was a manifest. Changes the manifest where it would hide one:
/// a version that would have it pass becomes `*`. A package for another CUDA that is judged by its name in the manifest
/// alone is left out.
pub(super) fn find(
    captured: &mut Captured,
    probed: &[Finding],
    overrides: &Overrides,
    facts: &Facts,
) -> Vec<Finding> {
    let failures = |stack: &Stack| -> Vec<Finding> {
        let findings = image::judge(stack, stack.archs.as_ref(), facts);
        Findings::under(overrides, &stack.accept, findings)
            .failures()
            .cloned()
            .collect()
    };
    leave_out_self_contained(captured, facts);
    let mut found = failures(&unpinned(&captured.stack));
    loosen(captured, found.len(), &|stack| failures(stack).len());
    let mut add = |findings: Vec<Finding>| {
        for finding in findings {
            let same = |f: &Finding| (f.code, &f.subject) == (finding.code, &finding.subject);
            if !found.iter().any(same) {
                found.push(finding);
            }
        }
    };
    add(failures(&captured.stack));
    let of_tags = Findings::under(overrides, &[], tags(&captured.stack, facts));
    add(of_tags.failures().cloned().collect());
    let own = Findings::under(overrides, &[], cpu_build(&facts.image).into_iter().collect());
    add(own.failures().cloned().collect());
    // A library that is damaged states no version, so that the manifest has no rule that it fails.
    add(probed.iter().filter(|f| is_of_library(f)).cloned().collect());
    found
}

fn is_of_library(finding: &Finding) -> bool {
    matches!(
        finding.code,
        Code::CudartVersion | Code::NvrtcVersion | Code::CudnnVersion
    ) && finding.failed()
}

/// What `--stack none` finds in an image: everything under a manifest that asks for what is there in any version, and what
/// such a manifest hides. The stack is the one that a machine is to be held against.
pub(super) fn as_found(stack: &Stack, archs: Option<&ArchList>, facts: &Facts) -> Vec<Finding> {
    let mut found = image::judge(stack, archs, facts);
    // It fails in both ways, and is mended once.
    let mut hidden = tags(stack, facts);
    hidden.extend(cpu_build(&facts.image).filter(|_| super::is_for_cuda(&facts.image, &stack.cuda)));
    let states_nothing = |copy: &Library| {
        copy.origin == LibraryOrigin::Wheel && copy.answer.as_ref().is_some_and(|a| a.version.is_none())
    };
    if facts.image.libraries.iter().any(states_nothing) {
        hidden.extend(
            image::judge(&Stack::none(), None, facts)
                .into_iter()
                .filter(is_of_library),
        );
    }
    for finding in hidden {
        let same = |f: &Finding| f.problem && (f.code, &f.subject) == (finding.code, &finding.subject);
        if !found.iter().any(same) {
            found.push(finding);
        }
    }
    found
}

/// Most packages that are tried one by one, each with a judgement of the whole image. vllm's environment has forty.
const MAX_TRIED: usize = 300;

fn unpinned(stack: &Stack) -> Stack {
    let loose = |rule: &PackageRule| PackageRule {
        specifiers: None,
        ..rule.clone()
    };
    Stack {
        packages: stack.packages.iter().map(loose).collect(),
        ..stack.clone()
    }
}

/// Replaces by `*` each version that hides a failure.
fn loosen(captured: &mut Captured, wanted: usize, failures: &dyn Fn(&Stack) -> usize) {
    let mut now = failures(&captured.stack);
    let mut loosened: Vec<String> = Vec::new();
    for index in 0..captured.stack.packages.len().min(MAX_TRIED) {
        if now >= wanted {
            break;
        }
        let mut without = captured.stack.clone();
        let Some(rule) = without.packages.get_mut(index) else {
            break;
        };
        rule.specifiers = None;
        let then = failures(&without);
        if then > now {
            loosened.extend(without.packages.get(index).map(|rule| rule.name.clone()));
            now = then;
            captured.stack = without;
        }
    }
    if now < wanted {
        // No single one does it.
        captured.stack = unpinned(&captured.stack);
        loosened = vec!["every package".to_string()];
    }
    for name in loosened {
        captured.notes.push(format!(
            "{name} is not pinned: its exact version would hide that another package refuses it"
        ));
    }
}

/// Packages for another CUDA that bring their own libraries do not belong to the stack, so the manifest does not name them.
pub(super) fn leave_out_self_contained(captured: &mut Captured, facts: &Facts) {
    let tags = |stack: &Stack| -> Vec<Finding> {
        let findings = image::judge(stack, None, facts);
        let wrong = |f: &Finding| f.code == Code::PackageCudaTag && f.problem;
        findings.into_iter().filter(wrong).collect()
    };
    for finding in tags(&captured.stack).into_iter().take(MAX_TRIED) {
        let mut without = captured.stack.clone();
        without.packages.retain(|rule| rule.normalized != finding.subject);
        if without.packages.len() < captured.stack.packages.len()
            && tags(&without).iter().all(|f| f.subject != finding.subject)
        {
            captured.stack = without;
            captured.notes.push(format!(
                "{} is left out: it is for another CUDA and brings its own libraries",
                finding.subject
            ));
        }
    }
}

/// What the tags of packages without CUDA in their names say, where copies of libcudart are of several major versions and
/// torch's decides. A package with it in its name (`faiss-gpu-cu12`) is what the other copies are for.
fn tags(stack: &Stack, facts: &Facts) -> Vec<Finding> {
    let (None, Some(cuda)) = (&stack.cuda.runtime, floor::of_torch(&facts.image)) else {
        return Vec::new();
    };
    let mut stack = Stack {
        packages: stack.packages.clone(),
        ..Stack::default()
    };
    let of_major = |minor| CudaVersion { minor, ..cuda };
    stack.cuda.runtime = Some(CudaRule::between(of_major(0), of_major(99)));
    let mut findings = image::judge(&stack, None, facts);
    findings
        .retain(|f| f.problem && f.code == Code::PackageCudaTag && !super::packages::is_of_cuda(&f.subject));
    findings
}

/// torch without CUDA.
fn cpu_build(image: &ImageFacts) -> Option<Finding> {
    let version = floor::cpu_torch(image)?;
    Some(
        Finding::problem(Code::PackageCudaTag, "torch")
            .observed(format!("no CUDA in {}", packages::of("torch")?.version_file.get()?))
            .required("a build of torch for CUDA")
            .message(format!(
                "torch {version} is not built for CUDA, in an image with packages for CUDA"
            ))
            .hint(format!(
                "In the Dockerfile: pip install --force-reinstall torch=={}, without the --index-url of the CPU builds: \
                 PyPI's build is for CUDA.",
                version.split('+').next().unwrap_or_default()
            )),
    )
}

/// The entry of the manifest's `accept` that accepts a finding; none where it is not about a package or a library.
pub(super) fn exception(finding: &Finding, image: &ImageFacts) -> Option<String> {
    let keys = finding.code.accepted_by();
    let is_package = |name: &str| image.distributions.iter().any(|dist| dist.name == name);
    // The subject of a requirement is the package that states it; what it refuses comes first in what was observed.
    let refused = finding.observed.split(' ').next().unwrap_or_default();
    let (key, value) = match finding.code {
        // It must not hide that a library is nowhere.
        Code::LibraryMissing => {
            let mut parties = finding.parties.iter();
            ("package", parties.find(|party| is_package(party))?.as_str())
        }
        Code::RequiresDist if is_package(refused) => ("package", refused),
        _ if keys.contains(&"package") && is_package(&finding.subject) => {
            ("package", finding.subject.as_str())
        }
        _ if keys.contains(&"library") => ("library", finding.subject.as_str()),
        _ => return None,
    };
    Some(accept::written(finding.code, key, value, "why it works here"))
}

#[cfg(test)]
mod tests;
