//! Reports for people: grouped by stage, one mark a line, then what was seen and asked for, then the next step.

use std::fmt::Write as _;

use super::{Report, headline, judged_by, of_another_image, says};
use crate::check::{Code, Finding, Stage, Status, Verdict};
use crate::cli::config::Mode;
use crate::cuda_errors::is_forward;
use crate::order;
use crate::receipt::ReceiptSummary;
use crate::text::{counted, milliseconds, number_of, sanitize, verb, with_short_paths, without_middle};

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

/// The table of `check`: every finding, or with `quiet` what failed and what is warned of; then the totals and the
/// verdict.
pub fn table(report: &Report<'_>, quiet: bool, colour: Colour) -> String {
    let is_shown = |f: &&Finding| !quiet || matches!(f.status, Status::Fail | Status::Warn);
    let shown: Vec<&Finding> = report.findings.iter().filter(is_shown).collect();
    let mut text = first_line(report);
    text.push_str(&findings(&shown, site(report), colour));
    if let Some(receipt) = report.receipt.filter(|_| !quiet) {
        let _ = writeln!(text, "{}", sanitize(&receipt.line()));
    }
    text.push_str(&totals(report.findings));
    let _ = writeln!(text, "{}", verdict_line(report, colour));
    text
}

/// That the manifest is not the image's, before everything that follows from it.
fn first_line(report: &Report<'_>) -> String {
    let line = of_another_image(report);
    line.map_or_else(String::new, |line| {
        format!("cuda-entrypoint: {}\n\n", sanitize(&line))
    })
}

/// `12 passed, 1 failed, 2 warnings`, a line; nothing where nothing was judged.
fn totals(findings: &[Finding]) -> String {
    let count = |status| findings.iter().filter(|f| f.status == status).count();
    let warnings = count(Status::Warn);
    let parts: Vec<String> = [
        (count(Status::Pass), "passed"),
        (count(Status::Fail), "failed"),
        (warnings, number_of(&warnings, "warning").as_str()),
        (count(Status::Info), "for information"),
        (count(Status::Skip), "skipped"),
        (count(Status::Unknown), "unknown"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, name)| format!("{count} {name}"))
    .collect();
    match parts.is_empty() {
        true => String::new(),
        false => format!("{}\n", parts.join(", ")),
    }
}

/// The longest line of a terminal that is filled; a wider one is hard to read.
const WIDEST: usize = 160;
/// A terminal that is narrower is not written for.
const NARROWEST: usize = 20;

/// The columns that text for a terminal may take: those of `COLUMNS`, else those that the terminal tells. Nothing where
/// the stream is no terminal: a log keeps one finding a line.
pub fn columns(terminal: Option<usize>, variable: Option<&std::ffi::OsStr>) -> Option<usize> {
    let told = terminal?;
    let wanted = variable
        .and_then(|v| v.to_str()?.parse().ok())
        .filter(|&columns| columns > 0);
    Some(wanted.unwrap_or(told).clamp(NARROWEST, WIDEST))
}

/// Text in lines of at most this many columns, the rest of each below its own beginning. A word, such as a path, stays
/// whole, so that it can be copied.
pub fn wrapped(text: &str, columns: Option<usize>) -> String {
    let Some(columns) = columns else {
        return text.to_string();
    };
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        if width(line) <= columns {
            let _ = write!(out, "{line}{end}");
            continue;
        }
        let indent = hanging(line);
        let mut used = 0;
        for (at, word) in line.split(' ').enumerate() {
            let length = width(word);
            if at > 0 && used > indent && used + 1 + length > columns {
                let _ = write!(out, "\n{:indent$}", "");
                used = indent;
            } else if at > 0 {
                out.push(' ');
                used += 1;
            }
            out.push_str(word);
            used += length;
        }
        out.push_str(end);
    }
    out
}

/// How far the second line of a text is indented: to what is said of a finding, or behind its mark.
fn hanging(line: &str) -> usize {
    let lead = line.len() - line.trim_start_matches(' ').len();
    let labels = ["observed:", "required:", "hint:"];
    let rest = line.get(lead..).unwrap_or_default();
    match lead {
        0 => 2,
        _ if labels.iter().any(|label| rest.starts_with(label)) => lead + 10,
        _ => lead,
    }
}

/// Columns of a text without its colours.
fn width(text: &str) -> usize {
    let mut in_escape = false;
    text.chars()
        .filter(|&c| {
            let is_part = in_escape || c == '\x1b';
            in_escape = is_part && c != 'm';
            !is_part
        })
        .count()
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

/// The most characters of what holds, behind its mark: two lines of a terminal.
const PASS_LINE: usize = 158;

/// One finding. What holds takes one line, and one for each path where there are several; what does not hold, as many
/// as it needs. Nothing is said twice: the subject and what was seen are left out where the sentence names them.
fn lines(finding: &Finding, site: Option<&str>, colour: Colour) -> String {
    let mut text = String::new();
    let mark = mark(finding.status, colour);
    let head = headline(finding);
    let seen = Some(&finding.observed).filter(|seen| !seen.is_empty());
    match finding.status {
        Status::Pass | Status::Skip | Status::Unknown => {
            let short = |text: &str| below(text, site);
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
            let line = format!("{head}{seen}");
            // What holds is read in passing, and the report has all of it; but which Python is judged has to be seen.
            let may_cut = finding.status == Status::Pass && finding.code != Code::PythonMissing;
            let line = match may_cut {
                true => with_short_paths(&line, PASS_LINE),
                false => line,
            };
            let line = match may_cut && line.chars().count() > PASS_LINE {
                true => without_middle(&with_short_paths(&head, PASS_LINE), PASS_LINE),
                false => line,
            };
            let _ = writeln!(text, "{mark} {line}");
        }
        Status::Fail | Status::Warn | Status::Info => {
            let _ = writeln!(text, "{mark} {head} [{}]", finding.code);
            for (label, value) in [
                // Always, though the sentence may hold it: a report is read by people who look for this line.
                ("observed", seen),
                ("required", Some(&finding.required)),
                ("accepted", Some(&finding.accepted)),
                ("hint", Some(&finding.hint)),
            ] {
                if let Some(value) = value.filter(|value| !value.is_empty()) {
                    let _ = writeln!(text, "    {:<10}{}", format!("{label}:"), value);
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

/// How long all of it took.
fn total(report: &Report<'_>) -> String {
    let mut timing = report.timing.iter();
    let total = timing.find(|(name, _)| *name == "total");
    total.map(|(_, d)| milliseconds(*d)).unwrap_or_default()
}

fn verdict_line(report: &Report<'_>, colour: Colour) -> String {
    let total = total(report);
    let tail = format!("{}, {total}", sanitize(&judged_by(report, report.stack_source)));
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
            format!("{word}: {code} ({end}); for details, run: cuda-entrypoint explain {code}; {tail}")
        }
        (Verdict::Warn, _) => {
            let warnings = counted(warnings, "warning");
            format!("{}: {warnings}; {tail}", colour.paint("33", "pass"))
        }
        _ => format!("{}: {tail}", colour.paint("32", "pass")),
    }
}

/// What `run` says on stderr when the service does not start, or starts in spite of a failure: what failed, then the
/// other findings that are problems, then the verdict.
pub fn failure(report: &Report<'_>, service: &str, colour: Colour) -> String {
    let of = |statuses: &[Status]| -> Vec<&Finding> {
        let all = report.findings.iter();
        all.filter(|f| statuses.contains(&f.status)).collect()
    };
    let (failed, others) = (of(&[Status::Fail]), of(&[Status::Warn, Status::Unknown]));
    let python = judged(report).map_or_else(String::new, |python| format!(" (Python: {python})"));
    let service = format!("{}{python}", sanitize(service));
    let mut text = match (report.mode, report.outcome.decisive) {
        (Mode::Warn, Some(finding)) => {
            format!(
                "cuda-entrypoint: {}: starting {service} anyway (mode warn)\n\n",
                finding.code
            )
        }
        (_, Some(finding)) => format!("cuda-entrypoint: {}: not starting {service}\n\n", finding.code),
        (_, None) => String::new(),
    };
    text.insert_str(0, &first_line(report));
    text.push_str(&findings(&failed, site(report), colour));
    text.push_str(&findings(&others, site(report), colour));
    text.push_str(&totals(report.findings));
    let _ = writeln!(text, "{}", verdict_line(report, colour));
    text
}

/// The Python that was judged.
fn judged(report: &Report<'_>) -> Option<String> {
    report.facts.image.python.judged().map(sanitize)
}

/// The most characters of the line of a start that went through, behind the program's name: two lines of a terminal.
const TWO_LINES: usize = 160 - "cuda-entrypoint: ok: ".len();
/// The most characters of one of its parts, where there is no room for all and the part becomes shorter by its paths.
const PART: usize = 48;

/// The one line of a start that went through: what was proven, by which manifest, how long it took, what comes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Success {
    /// as much as two lines of a terminal hold; the report has the rest
    pub line: String,
    /// everything
    pub details: String,
}

/// How much a part of the line matters where there is no room for all: the least goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    Library,
    Python,
    Driver,
    Proof,
    Gpu,
    /// What was not proven now has to be said.
    Receipt,
    Warning,
}

/// Makes it.
pub fn success(report: &Report<'_>, service: &str) -> Success {
    let proven = proven(report);
    let total = total(report);
    let line = |proven: &[(Weight, String)], source: &str, service: &str| {
        let parts: Vec<&str> = proven.iter().map(|(_, text)| text.as_str()).collect();
        let parts = if parts.is_empty() {
            "nothing to prove".to_string()
        } else {
            parts.join(", ")
        };
        sanitize(&format!(
            "{parts}; {}; {total}; exec {service}",
            judged_by(report, source)
        ))
    };
    let details = line(&proven, report.stack_source, service);
    if details.chars().count() <= TWO_LINES {
        return Success {
            line: details.clone(),
            details,
        };
    }
    // The path of a manifest may be long, and its name says nearly as much.
    let source = match report.stack_source.rsplit_once('/') {
        Some((_, name)) => format!("…/{name}"),
        None => report.stack_source.to_string(),
    };
    // A path with blanks does not look like one.
    let service = without_middle(&with_short_paths(service, PART), PART);
    let proven: Vec<(Weight, String)> = proven
        .into_iter()
        .map(|(weight, text)| (weight, with_short_paths(&text, PART)))
        .collect();
    // What matters most first; of what is left out, the report has all.
    let mut order: Vec<usize> = (0..proven.len()).collect();
    crate::order::sort_by_key(&mut order, |&at| {
        proven.get(at).map(|(weight, _)| std::cmp::Reverse(*weight))
    });
    let mut kept: Vec<usize> = Vec::new();
    let chosen = |kept: &[usize]| -> Vec<(Weight, String)> {
        let all = proven.iter().enumerate();
        all.filter(|(at, _)| kept.contains(at))
            .map(|(_, part)| part.clone())
            .collect()
    };
    for at in order {
        kept.push(at);
        if kept.len() > 1 && line(&chosen(&kept), &source, &service).chars().count() > TWO_LINES {
            kept.pop();
        }
    }
    let line = line(&chosen(&kept), &source, &service);
    Success { line, details }
}

/// What was proven, in the order of the line.
fn proven(report: &Report<'_>) -> Vec<(Weight, String)> {
    let facts = report.facts;
    let mut proven = Vec::new();
    let asked: Vec<_> = facts
        .image
        .libraries
        .iter()
        .filter_map(|l| Some((l.kind, l.answer.as_ref()?.stated()?)))
        .collect();
    for kind in crate::facts::LibraryKind::ALL {
        let of_kind = asked.iter().filter(|(k, _)| *k == *kind);
        let versions = order::set(of_kind.map(|(_, version)| version.as_str()));
        if !versions.is_empty() {
            let versions = Vec::from_iter(versions).join(" and ");
            proven.push((Weight::Library, format!("{} {versions}", kind.row().title)));
        }
    }
    if let Some(version) = facts.device.driver.as_ref().and_then(|d| d.api_version) {
        let nvml = facts.device.nvml.as_ref();
        let release = nvml.and_then(|n| n.driver_release.as_deref());
        let text = release.map_or_else(
            || format!("driver for CUDA {version}"),
            |r| {
                let by = match is_forward(version, r) {
                    true => " by forward compatibility",
                    false => "",
                };
                format!("driver {r} for CUDA {version}{by}")
            },
        );
        proven.push((Weight::Driver, text));
    }
    proven.extend(gpus(facts).into_iter().map(|gpu| (Weight::Gpu, gpu)));
    let smoked = |f: &&Finding| f.code == Code::SmokeForward && f.status == Status::Pass;
    let smoked = report.findings.iter().filter(smoked).map(|f| f.message.clone());
    proven.extend(smoked.map(|text| (Weight::Proof, text)));
    if let Some(run) = facts
        .smoke
        .as_ref()
        .and_then(|smoke| smoke.native.as_ref())
        .filter(|run| run.passed())
    {
        let loaded: u64 = run.loads.iter().map(|load| load.loaded).sum();
        let text = match loaded {
            0 => "GPU computes".to_string(),
            _ => format!(
                "GPU computes, {} {}",
                counted(loaded, "fatbin"),
                verb(usize::try_from(loaded).unwrap_or(usize::MAX), "loads", "load")
            ),
        };
        proven.push((Weight::Proof, text));
    }
    let receipt = report.receipt.and_then(ReceiptSummary::proven);
    proven.extend(receipt.map(|text| (Weight::Receipt, text)));
    proven.extend(judged(report).map(|python| (Weight::Python, format!("Python {python}"))));
    let warnings = report
        .findings
        .iter()
        .filter(|f| f.status == Status::Warn)
        .count();
    if warnings > 0 {
        proven.push((Weight::Warning, counted(warnings, "warning")));
    }
    proven
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
        let long = Finding::pass(Code::PackageVersion, "torch").message("torch is 2.5.0");
        assert_eq!(
            plain(long.clone().observed("x".repeat(200))),
            "✓ torch is 2.5.0\n"
        );
        let line = plain(long.message("y ".repeat(200)));
        assert!(line.chars().count() == 161 && line.contains('…'), "{line}");
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
    fn lines_fill_a_terminal_and_nothing_else() {
        let text = "✗ torch is not installed [package-missing]\n    hint:     Install it in the image, with pip.\n/a/path/that/is/longer/than/the/line x\n";
        assert_eq!(wrapped(text, None), text);
        assert_eq!(wrapped(text, Some(200)), text);
        assert_eq!(
            wrapped(text, Some(30)),
            "✗ torch is not installed\n  [package-missing]\n    hint:     Install it in\n              the image, with\n              pip.\n\
             /a/path/that/is/longer/than/the/line\n  x\n"
        );
        assert_eq!(
            wrapped("\x1b[31mfail\x1b[0m: a bbbbbbbbbbbbb", Some(22)),
            "\x1b[31mfail\x1b[0m: a bbbbbbbbbbbbb"
        );
        assert_eq!(columns(None, Some("40".as_ref())), None);
        assert_eq!(columns(Some(100), Some("40".as_ref())), Some(40));
        for variable in ["", "0", "x", "-1"] {
            assert_eq!(
                columns(Some(100), Some(variable.as_ref())),
                Some(100),
                "{variable}"
            );
        }
        assert_eq!(columns(Some(1), None), Some(NARROWEST));
        assert_eq!(columns(Some(1000), None), Some(WIDEST));
    }

    #[test]
    fn the_totals_name_what_there_is() {
        assert_eq!(totals(&[]), "");
        let pass = Finding::pass(Code::PackageVersion, "a");
        let warn = Finding::problem(Code::KernelsPtxOnly, "b");
        let fail = Finding::problem(Code::PackageMissing, "c");
        assert_eq!(
            totals(&[pass.clone(), pass, warn, fail]),
            "2 passed, 1 failed, 1 warning\n"
        );
    }

    #[test]
    fn no_subject_and_no_message_leave_no_colon() {
        assert_eq!(plain(Finding::skip(Code::SmokeImport, "")), "- \n");
        assert_eq!(plain(Finding::skip(Code::SmokeImport, "a")), "- a\n");
        assert_eq!(plain(Finding::skip(Code::SmokeImport, "").message("m")), "- m\n");
    }
}
