//! What is said, to whom: [`human`] for a terminal, [`json`] for programs, [`termination`] for whoever reads why a
//! container ended.

use std::time::Duration;

use crate::check::{Code, Finding, Outcome};
use crate::cli::config::Mode;
use crate::facts::Facts;
use crate::receipt::ReceiptSummary;
use crate::stack::NONE;

pub mod human;
pub mod json;
pub mod kernels;
pub mod progress;
pub mod termination;

/// A whole run, as every form of report shows it.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// enforce or warn
    pub mode: Mode,
    /// the manifest's name
    pub stack_name: &'a str,
    /// where the manifest came from
    pub stack_source: &'a str,
    /// what was found out
    pub facts: &'a Facts,
    /// how it was judged, in the order of the stages
    pub findings: &'a [Finding],
    /// what that comes to
    pub outcome: Outcome<'a>,
    /// what became of the receipt, where one was named
    pub receipt: Option<&'a ReceiptSummary>,
    /// how the smoke was to run and why it did or did not
    pub smoke: SmokeReport,
    /// what took how long
    pub timing: Vec<(&'static str, Duration)>,
}

/// The report's `smoke` key.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct SmokeReport {
    /// `separate`, `handoff`, `native` or `off`
    pub mode: crate::cli::config::SmokeMode,
    /// how far the native proof goes, where it is asked for
    #[serde(skip_serializing_if = "Option::is_none")]
    pub native: Option<crate::facts::native::NativeExtent>,
    /// `passed`, `failed` or `not-run`
    pub status: &'static str,
    /// why it failed or was not run
    pub reason: String,
}

/// The source of the manifest that the program itself brings.
pub const EMBEDDED: &str = "embedded";

/// What a finding says in one line: its subject and its sentence, or the sentence alone where that names the subject.
pub fn headline(finding: &Finding) -> String {
    // Two packages are one subject where one file is a trap for both.
    let named = finding
        .subject
        .split(", ")
        .all(|part| says(&finding.message, part));
    if finding.subject.is_empty() || named {
        finding.message.clone()
    } else if finding.message.is_empty() {
        finding.subject.clone()
    } else {
        format!("{}: {}", finding.subject, finding.message)
    }
}

/// What comes first where the embedded manifest judged an image that is plainly another one: it lacks several of the
/// manifest's packages, has a torch of another release or CUDA, or no Python at all. What else fails there is no news.
pub fn of_another_image(report: &Report<'_>) -> Option<String> {
    let release = |version: &str| {
        let version = version.trim_start_matches('=');
        let mut numbers = version.split(['.', '+', ' ']).map(String::from);
        (numbers.next(), numbers.next())
    };
    let failures = || report.findings.iter().filter(|finding| finding.failed());
    // Several that have one next step are one finding.
    let missing = failures()
        .filter(|f| f.code == Code::PackageMissing)
        .map(|f| f.observed.matches("not installed").count());
    let is_other = missing.sum::<usize>() > 1
        || failures()
            .filter(|finding| finding.subject == "torch")
            .any(|torch| match torch.code {
                Code::PackageVersion => release(&torch.observed) != release(&torch.required),
                code => code == Code::PackageCudaTag,
            });
    let has_no_python = failures().any(|finding| finding.code == Code::PythonMissing)
        && report.facts.image.python.site_packages.is_empty();
    (report.stack_source == EMBEDDED && (is_other || has_no_python)).then(|| {
        format!(
            "this image has no manifest and is not {}, the embedded one; `cuda-entrypoint stack capture` writes a manifest \
             of it, `--stack none` checks it without one",
            report.stack_name
        )
    })
}

/// By what was judged, in a line: the manifest's name and place, or that there was none. `source` is the place as shown.
pub fn judged_by(report: &Report<'_>, source: &str) -> String {
    match report.stack_source == NONE {
        true => "no manifest".to_string(),
        false => format!("stack {} ({source})", report.stack_name),
    }
}

/// Whether `text` holds `part` as words of its own: `torch is 2.5.0` says `torch`, `torchvision is 0.20` does not.
pub fn says(text: &str, part: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
    text.match_indices(part).any(|(at, _)| {
        let before = text.get(..at).and_then(|t| t.chars().next_back());
        let after = text.get(at + part.len()..).unwrap_or_default();
        // `2` is not said by `2.3.8`, but the full stop or colon that ends a sentence is none of it.
        let mut after = after.chars();
        let goes_on = match after.next() {
            Some('.') => after.next().is_some_and(joins),
            next => next.is_some_and(joins),
        };
        !goes_on && !before.is_some_and(|c| joins(c) || c == '.')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_said_whole() {
        for (text, part, said) in [
            ("torch is 2.5.0", "torch", true),
            ("torchvision is 0.20.0", "torch", false),
            ("cumm-cu124 is 0.8.2", "cumm", false),
            ("0.12 of 2.3.8", "2", false),
            ("it has 2.", "2", true),
            ("/a/libcudart.so.12 is CUDA 12.4", "libcudart", false),
            ("cannot load libcudart: gone", "libcudart", true),
            ("/a/b makes it so", "/a/b", true),
            ("", "x", false),
        ] {
            assert_eq!(says(text, part), said, "{part} in {text}");
        }
    }
}
