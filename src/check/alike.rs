//! One remedy is said once: findings of one code with the same next step become one.

use super::{Finding, Stage, harmless};

/// How many subjects the sentence names; what was seen of all of them is kept.
const NAMED: usize = 3;

/// Joins problems of the image that have the same code, weight and next step, each into the first of its kind.
pub fn joined(findings: Vec<Finding>) -> Vec<Finding> {
    let mut all: Vec<(Finding, Vec<Finding>)> = Vec::with_capacity(findings.len());
    for finding in findings {
        let is_alike = |(first, _): &&mut (Finding, Vec<Finding>)| {
            first.problem
                && finding.problem
                && first.stage == Stage::Image
                && !first.hint.is_empty()
                && (first.code, first.status) == (finding.code, finding.status)
                && first.hint == finding.hint
        };
        match all.iter_mut().find(is_alike) {
            Some((_, more)) => more.push(finding),
            None => all.push((finding, Vec::new())),
        }
    }
    all.into_iter().map(|(first, more)| join(first, &more)).collect()
}

fn join(mut first: Finding, more: &[Finding]) -> Finding {
    if more.is_empty() {
        return first;
    }
    let name = |finding: &Finding| finding.subject.rsplit('/').next().unwrap_or_default().to_string();
    let names: Vec<String> = more.iter().take(NAMED).map(name).collect();
    let rest = match more.len().saturating_sub(NAMED) {
        0 => String::new(),
        rest => format!(" and {rest} more"),
    };
    first.message = harmless(format!(
        "{}; the same holds for {}{rest}",
        first.message,
        names.join(", ")
    ));
    let seen = |finding: &Finding| match finding.observed.contains(&finding.subject) {
        true => finding.observed.clone(),
        false => format!("{}: {}", finding.subject, finding.observed),
    };
    let observed: Vec<String> = std::iter::once(&first).chain(more).map(seen).collect();
    first.observed = harmless(observed.join("; "));
    for finding in more {
        if !first.required.contains(&finding.required) {
            first.required = harmless(format!("{}; {}", first.required, finding.required));
        }
    }
    first.retryable |= more.iter().any(|finding| finding.retryable);
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Code, Severity};

    fn missing(name: &str, hint: &str) -> Finding {
        Finding::problem(Code::LibraryMissing, format!("/sp/{name}"))
            .observed("not found")
            .required("a file")
            .message(format!("{name} is missing"))
            .hint(hint)
    }

    #[test]
    fn one_remedy_is_said_once() {
        let findings = joined(
            (0..6)
                .map(|n| missing(&format!("lib{n}.so"), "install x"))
                .collect(),
        );
        assert_eq!(findings.len(), 1);
        assert_eq!(
            findings[0].message,
            "lib0.so is missing; the same holds for lib1.so, lib2.so, lib3.so and 2 more"
        );
        assert!(
            findings[0].observed.ends_with("; /sp/lib5.so: not found"),
            "{}",
            findings[0].observed
        );
        assert_eq!(findings[0].required, "a file");
    }

    #[test]
    fn what_differs_stays_apart() {
        let warned = Finding {
            status: Severity::Warn.into(),
            ..missing("c.so", "install x")
        };
        let findings = vec![
            missing("a.so", "install x"),
            missing("b.so", "install y"),
            warned,
            missing("d.so", ""),
            missing("e.so", ""),
            Finding::pass(Code::LibraryMissing, "f.so").hint("install x"),
            Finding::problem(Code::GpuUnhealthy, "0").hint("x"),
            Finding::problem(Code::GpuUnhealthy, "1").hint("x"),
        ];
        assert_eq!(joined(findings.clone()), findings);
    }
}
