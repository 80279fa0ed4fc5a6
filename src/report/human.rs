//! Reports for people: grouped by stage, one mark a line, then what was seen and asked for, then the next step.

use std::fmt::Write as _;

use super::{Report, headline, milliseconds, sanitize, says};
use crate::check::{Code, Finding, Stage, Status, Verdict};
use crate::config::Mode;
use crate::receipt::Account;

/// Whether to colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Colour {
    /// ANSI escapes
    Yes,
    /// plain text
    No,
}

impl Colour {
    /// Colour only for a terminal, and never against <https://no-color.org>.
    pub fn for_terminal(
        is_terminal: bool,
        no_color: Option<&std::ffi::OsStr>,
        term: Option<&std::ffi::OsStr>,
    ) -> Self {
        let unwanted = no_color.is_some_and(|v| !v.is_empty()) || term.is_some_and(|t| t == "dumb");
        if is_terminal && !unwanted {
            Self::Yes
        } else {
            Self::No
        }
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::Yes => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::No => text.to_string(),
        }
    }
}

fn mark(status: Status, colour: Colour) -> String {
    let (code, sign) = match status {
        Status::Pass => ("32", "✓"),
        Status::Fail => ("31", "✗"),
        Status::Warn => ("33", "!"),
        Status::Info => ("36", "i"),
        Status::Skip => ("2", "-"),
        Status::Unknown => ("33", "?"),
    };
    colour.paint(code, sign)
}

/// The table of `check`: every finding, then the verdict.
pub fn table(report: &Report<'_>, colour: Colour) -> String {
    let all: Vec<&Finding> = report.findings.iter().collect();
    let mut text = findings(&all, site(report), colour);
    if let Some(receipt) = report.receipt {
        let _ = writeln!(text, "{}", sanitize(&receipt.line()));
    }
    let _ = writeln!(text, "{}", verdict_line(report, colour));
    text
}

/// Findings grouped by stage, in the order in which the stages count. Where something holds, the environment's own
/// folder `site` is left out of paths: the line about Python names it.
fn findings(all: &[&Finding], site: Option<&str>, colour: Colour) -> String {
    let mut text = String::new();
    for stage in [Stage::Image, Stage::Device, Stage::Arch, Stage::Smoke] {
        let of_stage = || all.iter().filter(|f| f.stage == stage);
        if of_stage().next().is_none() {
            continue;
        }
        let name = stage.name();
        let _ = writeln!(text, "{}\n{}", colour.paint("1", name), "-".repeat(name.len()));
        for finding in of_stage() {
            text.push_str(&lines(finding, site, colour));
        }
        text.push('\n');
    }
    text
}

/// One finding. What holds takes one line, and one for each path where there are several; what does not hold, as many
/// as it needs. Nothing is said twice: the subject and what was seen are left out where the sentence names them.
fn lines(finding: &Finding, site: Option<&str>, colour: Colour) -> String {
    let mut text = String::new();
    let mark = mark(finding.status, colour);
    let head = headline(finding);
    let seen = Some(&finding.observed).filter(|seen| !seen.is_empty());
    match finding.status {
        Status::Pass | Status::Skip | Status::Unknown => {
            let short = |text: &str| sanitize(&below(text, site));
            if let Some((sentence, paths)) = paths_at_end(&head, &finding.observed) {
                let _ = writeln!(text, "{mark} {}", short(sentence));
                for path in paths {
                    let _ = writeln!(text, "    {}", short(path));
                }
                return text;
            }
            let head = short(&head);
            let seen = seen.map(|seen| short(seen)).filter(|seen| !says(&head, seen));
            let seen = seen.map_or_else(String::new, |seen| format!(" ({seen})"));
            let _ = writeln!(text, "{mark} {head}{seen}");
        }
        Status::Fail | Status::Warn | Status::Info => {
            let _ = writeln!(text, "{mark} {} [{}]", sanitize(&head), finding.code);
            for (label, value) in [
                // Always, though the sentence may hold it: a report is read by people who look for this line.
                ("observed", seen),
                ("required", Some(&finding.required)),
                ("hint", Some(&finding.hint)),
            ] {
                if let Some(value) = value.filter(|value| !value.is_empty()) {
                    let _ = writeln!(text, "    {:<10}{}", format!("{label}:"), sanitize(value));
                }
            }
        }
    }
    text
}

/// A sentence that ends in a list of paths, which is what was seen: the sentence and the paths.
fn paths_at_end<'a>(head: &'a str, observed: &'a str) -> Option<(&'a str, Vec<&'a str>)> {
    let sentence = head.strip_suffix(observed)?.strip_suffix(": ")?;
    let paths: Vec<&str> = observed.split(", ").collect();
    (paths.len() > 1 && paths.iter().all(|path| path.starts_with('/'))).then_some((sentence, paths))
}

/// Text whose paths start below `site`.
fn below(text: &str, site: Option<&str>) -> String {
    match site {
        Some(site) if site.len() > 1 => text.replace(&format!("{}/", site.trim_end_matches('/')), ""),
        _ => text.to_string(),
    }
}

/// The folder that an import looks into first.
fn site<'a>(report: &Report<'a>) -> Option<&'a str> {
    report
        .facts
        .image
        .python
        .site_packages
        .first()
        .map(String::as_str)
}

fn verdict_line(report: &Report<'_>, colour: Colour) -> String {
    let total = report
        .timing
        .iter()
        .find(|(name, _)| *name == "total")
        .map(|(_, d)| milliseconds(*d))
        .unwrap_or_default();
    let tail = format!(
        "stack {} ({}), {total}",
        sanitize(report.stack_name),
        sanitize(report.stack_source)
    );
    let warnings = report
        .findings
        .iter()
        .filter(|f| f.status == Status::Warn)
        .count();
    match (report.outcome.verdict, report.outcome.decisive) {
        (Verdict::Fail, Some(finding)) => {
            let word = colour.paint("31", "fail");
            let code = finding.code;
            let end = if report.mode == Mode::Warn {
                format!("would exit {}; mode is warn", report.outcome.exit_code)
            } else {
                format!("exit {}", report.outcome.exit_code)
            };
            format!("{word}: {code} ({end}); cuda-entrypoint explain {code} says more; {tail}")
        }
        (Verdict::Warn, _) => {
            let plural = if warnings == 1 { "" } else { "s" };
            format!(
                "{}: {warnings} warning{plural}; {tail}",
                colour.paint("33", "pass")
            )
        }
        _ => format!("{}: {tail}", colour.paint("32", "pass")),
    }
}

/// What `run` says on stderr when the service does not start, or starts in spite of a failure: the findings that are
/// problems, then the verdict.
pub fn failure(report: &Report<'_>, service: &str, colour: Colour) -> String {
    let problems: Vec<&Finding> = report
        .findings
        .iter()
        .filter(|f| matches!(f.status, Status::Fail | Status::Warn | Status::Unknown))
        .collect();
    let service = sanitize(service);
    let mut text = match (report.mode, report.outcome.decisive) {
        (Mode::Warn, Some(finding)) => {
            format!(
                "cuda-entrypoint: {}: starting {service} all the same, mode is warn\n\n",
                finding.code
            )
        }
        (_, Some(finding)) => format!("cuda-entrypoint: {}: not starting {service}\n\n", finding.code),
        (_, None) => String::new(),
    };
    text.push_str(&findings(&problems, site(report), colour));
    let _ = writeln!(text, "{}", verdict_line(report, colour));
    text
}

/// The one line of a start that went through: what was proven, by which manifest, how long it took, what comes.
pub fn success(report: &Report<'_>, service: &str) -> String {
    let facts = report.facts;
    let mut proven = Vec::new();
    let asked: Vec<_> = facts
        .image
        .libraries
        .iter()
        .filter_map(|l| Some((l.kind, l.answer.as_ref()?.version?)))
        .collect();
    for (kind, name) in [
        (crate::facts::LibraryKind::Cudart, "runtime"),
        (crate::facts::LibraryKind::Nvrtc, "nvrtc"),
    ] {
        let versions: std::collections::BTreeSet<String> = asked
            .iter()
            .filter(|(k, _)| *k == kind)
            .map(|(_, v)| v.to_string())
            .collect();
        if !versions.is_empty() {
            proven.push(format!(
                "CUDA {name} {}",
                versions.into_iter().collect::<Vec<_>>().join(" and ")
            ));
        }
    }
    if let Some(version) = facts.device.driver.as_ref().and_then(|d| d.api_version) {
        let release = facts
            .device
            .nvml
            .as_ref()
            .and_then(|n| n.driver_release.as_deref());
        proven.push(release.map_or_else(
            || format!("driver for CUDA {version}"),
            |r| format!("driver {r} for CUDA {version}"),
        ));
    }
    proven.extend(gpus(facts));
    let smoked = |f: &&Finding| f.code == Code::SmokeForward && f.status == Status::Pass;
    proven.extend(report.findings.iter().filter(smoked).map(|f| f.message.clone()));
    proven.extend(report.receipt.and_then(Account::proven));
    let warnings = report
        .findings
        .iter()
        .filter(|f| f.status == Status::Warn)
        .count();
    if warnings > 0 {
        proven.push(format!(
            "{warnings} warning{}",
            if warnings == 1 { "" } else { "s" }
        ));
    }
    if proven.is_empty() {
        proven.push("nothing to prove".to_string());
    }
    let total = report
        .timing
        .iter()
        .find(|(name, _)| *name == "total")
        .map(|(_, d)| milliseconds(*d))
        .unwrap_or_default();
    sanitize(&format!(
        "{}; stack {} ({}); {total}; exec {service}",
        proven.join(", "),
        report.stack_name,
        report.stack_source
    ))
}

/// `2 × NVIDIA H200 (9.0)`, one entry for each kind of GPU.
fn gpus(facts: &crate::facts::Facts) -> Vec<String> {
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for device in &facts.device.devices {
        let capability = device
            .capability
            .map_or_else(|| "?".to_string(), |c| c.to_string());
        let kind = format!("{} ({capability})", device.name);
        match kinds.iter_mut().find(|(k, _)| *k == kind) {
            Some((_, count)) => *count += 1,
            None => kinds.push((kind, 1)),
        }
    }
    kinds
        .into_iter()
        .map(|(kind, count)| {
            if count == 1 {
                kind
            } else {
                format!("{count} × {kind}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Code;

    const SITE: Option<&str> = Some("/v/lib/python3.11/site-packages");

    fn plain(finding: Finding) -> String {
        lines(&finding, SITE, Colour::No)
    }

    #[test]
    fn nothing_is_said_twice() {
        let pass = Finding::pass(Code::PackageVersion, "torch")
            .observed("2.5.0")
            .message("torch is 2.5.0");
        assert_eq!(plain(pass), "✓ torch is 2.5.0\n");
        let pass = Finding::pass(Code::PythonVersion, "wheels")
            .observed("61 wheels")
            .message("all fit");
        assert_eq!(plain(pass), "✓ wheels: all fit (61 wheels)\n");
        let fail = Finding::problem(Code::PackageMissing, "torch")
            .observed("not installed")
            .required("any version")
            .message("torch is not installed")
            .hint("Install it.");
        assert_eq!(
            plain(fail.clone()),
            "✗ torch is not installed [package-missing]\n    observed: not installed\n    required: any version\n    \
             hint:     Install it.\n"
        );
        assert_eq!(
            plain(fail.observed("torch-cpu 2.5.0")),
            "✗ torch is not installed [package-missing]\n    observed: torch-cpu 2.5.0\n    required: any version\n    \
             hint:     Install it.\n"
        );
    }

    #[test]
    fn paths_stand_one_below_the_other() {
        let paths = "/v/lib/python3.11/site-packages/nvidia/lib/libcudart.so.12, /opt/libcudart.so.12";
        let pass = Finding::pass(Code::CudartVersion, "libcudart")
            .observed(paths)
            .message(format!("2 copies are CUDA 12.4: {paths}"));
        assert_eq!(
            plain(pass),
            "✓ libcudart: 2 copies are CUDA 12.4\n    nvidia/lib/libcudart.so.12\n    /opt/libcudart.so.12\n"
        );
        // Whoever has to mend a file needs all of its name.
        let path = "/v/lib/python3.11/site-packages/nvidia/lib/libcudart.so.12";
        let fail = Finding::problem(Code::CudartVersion, path)
            .observed("CUDA 12.1")
            .message(format!("{path} says that it is CUDA 12.1"));
        assert_eq!(
            plain(fail),
            format!("✗ {path} says that it is CUDA 12.1 [cudart-version]\n    observed: CUDA 12.1\n")
        );
    }

    #[test]
    fn no_subject_and_no_message_leave_no_colon() {
        assert_eq!(plain(Finding::skip(Code::SmokeImport, "")), "- \n");
        assert_eq!(plain(Finding::skip(Code::SmokeImport, "a")), "- a\n");
        assert_eq!(plain(Finding::skip(Code::SmokeImport, "").message("m")), "- m\n");
    }
}
