//! Findings as data: what was judged, how it came out, and whose turn it is.
//!
//! A check returns findings; [`Findings`] is the one place where `--allow`, `--warn` and `--deny` change them and where
//! the run asks whether any failed; and [`Outcome::of`] is the one place where they become a verdict and an exit code.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::Serialize;

use crate::exit_code::ExitCode;
use crate::order;
use crate::text::one_line;
use accept::Accept;

pub mod accept;
mod alike;
mod catalogue;
mod explain;
pub use catalogue::Code;
pub use explain::explain;

/// The stages in the order in which their failures count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// files of the image
    Image,
    /// driver and GPUs
    Device,
    /// compute capability against the list and the kernels
    Arch,
    /// the smoke
    Smoke,
}

impl Stage {
    /// As the report and the table write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Device => "device",
            Self::Arch => "arch",
            Self::Smoke => "smoke",
        }
    }
}

/// How much a problem weighs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// said, and nothing more
    Info,
    /// said loudly; the service starts
    Warn,
    /// the service does not start
    Fail,
}

impl Severity {
    /// As a person reads it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// How one check came out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// it holds
    Pass,
    /// it does not hold, and the service must not start
    Fail,
    /// it does not hold, and the service starts
    Warn,
    /// worth knowing
    Info,
    /// not looked at, for the reason in the message
    Skip,
    /// looked at without an answer, for the reason in the message
    Unknown,
}

impl From<Severity> for Status {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Info => Self::Info,
            Severity::Warn => Self::Warn,
            Severity::Fail => Self::Fail,
        }
    }
}

/// One judged thing.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Finding {
    /// which check
    pub code: Code,
    /// its stage
    pub stage: Stage,
    /// how it came out, after overrides
    pub status: Status,
    /// what was judged: a package, a library, a device; empty where the code says it all
    pub subject: String,
    /// what was seen
    pub observed: String,
    /// what had to be seen
    pub required: String,
    /// one sentence
    pub message: String,
    /// what to do next, for the person who can do it; empty where nothing is to be done
    pub hint: String,
    /// why the manifest accepts it; empty where it does not
    #[serde(skip_serializing_if = "String::is_empty")]
    pub accepted: String,
    /// the packages and libraries by which the manifest may accept it; the subject alone where there are none
    #[serde(skip)]
    pub parties: Vec<String>,
    /// a problem, whose weight `--allow`, `--warn` and `--deny` may change; not a pass, skip or plain information
    #[serde(skip)]
    pub problem: bool,
    /// trying again may help (a driver that is still starting): what `--wait` waits for
    #[serde(skip)]
    pub retryable: bool,
    /// who must act, where that is not the party of its code: the exit code of a run that it decides
    #[serde(skip)]
    pub exit: Option<ExitCode>,
}

impl Finding {
    fn new(code: Code, status: Status, subject: impl Into<String>) -> Self {
        Self {
            code,
            stage: code.stage(),
            status,
            subject: harmless(subject),
            observed: String::new(),
            required: String::new(),
            message: String::new(),
            hint: String::new(),
            accepted: String::new(),
            parties: Vec::new(),
            problem: false,
            retryable: false,
            exit: None,
        }
    }

    /// The check holds for `subject`.
    pub fn pass(code: Code, subject: impl Into<String>) -> Self {
        Self::new(code, Status::Pass, subject)
    }

    /// The check fails with the code's default severity.
    pub fn problem(code: Code, subject: impl Into<String>) -> Self {
        Self::problem_as(code, code.severity(), subject)
    }

    /// The check fails with another severity than the code's default, for a reason that the catalogue states.
    pub fn problem_as(code: Code, severity: Severity, subject: impl Into<String>) -> Self {
        Self {
            problem: true,
            ..Self::new(code, severity.into(), subject)
        }
    }

    /// Worth knowing, and not a problem: no override touches it.
    pub fn info(code: Code, subject: impl Into<String>) -> Self {
        Self::new(code, Status::Info, subject)
    }

    /// Not looked at; say why in the message.
    pub fn skip(code: Code, subject: impl Into<String>) -> Self {
        Self::new(code, Status::Skip, subject)
    }

    /// Looked at without an answer; say why in the message.
    pub fn unknown(code: Code, subject: impl Into<String>) -> Self {
        Self::new(code, Status::Unknown, subject)
    }

    /// Sets what was judged.
    pub fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject = harmless(subject);
        self
    }

    /// Sets what was seen.
    pub fn observed(mut self, text: impl Into<String>) -> Self {
        self.observed = harmless(text);
        self
    }

    /// Sets what had to be seen.
    pub fn required(mut self, text: impl Into<String>) -> Self {
        self.required = harmless(text);
        self
    }

    /// Sets the sentence.
    pub fn message(mut self, text: impl Into<String>) -> Self {
        self.message = harmless(text);
        self
    }

    /// Sets the next step.
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        self.hint = harmless(text);
        self
    }

    /// Names packages or libraries that it is about, the subject among them if it is one.
    pub fn with(mut self, parties: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.parties.extend(parties.into_iter().map(harmless));
        self
    }

    /// The service must not start because of it.
    pub fn failed(&self) -> bool {
        self.status == Status::Fail
    }

    /// Says who must act, where that depends on more than the code.
    pub fn ends_with(mut self, exit: ExitCode) -> Self {
        self.exit = Some(exit);
        self
    }

    /// The exit code of a run that it decides.
    pub fn exit_code(&self) -> ExitCode {
        self.exit.unwrap_or(self.code.exit_code())
    }

    /// Says that trying again may help.
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }
}

/// The most characters of one text of a finding: a library's error message has no limit of its own.
const LONGEST: usize = 4_000;

/// Paths, names and messages of libraries may hold anything: what a finding holds can be printed as it is.
fn harmless(text: impl Into<String>) -> String {
    one_line(&text.into(), LONGEST)
}

/// What `--allow`, `--warn` and `--deny` say, one severity a code.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Overrides(pub BTreeMap<Code, Severity>);

/// Findings with the overrides applied: their statuses are final.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// What checks returned, under what the manifest accepts and these overrides; only problems change, and those that have
    /// one remedy become one.
    ///
    /// What is accepted is information. `--allow` and `--warn` make findings weigh less and leave it at that; `--deny` is
    /// for those who take no exceptions.
    pub fn under(overrides: &Overrides, accepted: &[Accept], mut findings: Vec<Finding>) -> Self {
        accept::apply(accepted, &mut findings);
        for finding in findings.iter_mut().filter(|f| f.problem) {
            let severity = overrides.0.get(&finding.code).copied();
            if finding.accepted.is_empty() {
                finding.status = severity.map_or(finding.status, Status::from);
            } else if severity == Some(Severity::Fail) {
                finding.status = Status::Fail;
                finding.message += "; the manifest accepts it, and --deny overrules the manifest";
            } else {
                // There is nothing to do.
                finding.hint.clear();
            }
        }
        Self(alike::joined(findings))
    }

    /// Adds findings that are no problems, such as those of a stage that was skipped: no override concerns them.
    pub fn note(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.0.extend(findings);
    }

    /// Adds another stage's.
    pub fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Brings them into the order of their stages.
    pub fn sort(&mut self) {
        order::sort_by_key(&mut self.0, |f| f.stage);
    }

    /// Those of these kinds.
    pub fn of(&self, codes: &[Code]) -> Self {
        let wanted = self.iter().filter(|f| codes.contains(&f.code));
        Self(wanted.cloned().collect())
    }

    /// Whether any failed.
    pub fn failed(&self) -> bool {
        self.iter().any(Finding::failed)
    }

    /// Those that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Finding> {
        self.iter().filter(|f| f.failed())
    }

    /// The problem of a stage that weighs most under the overrides, the first of several.
    pub fn worst_of(&self, stage: Stage) -> Option<&Finding> {
        let problems = self.iter().filter(|f| f.stage == stage && f.problem);
        problems.min_by_key(|f| match f.status {
            Status::Fail => 0,
            Status::Warn => 1,
            _ => 2,
        })
    }
}

impl Deref for Findings {
    type Target = [Finding];

    fn deref(&self) -> &[Finding] {
        &self.0
    }
}

/// The verdict of a whole run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// nothing failed and nothing was warned of
    Pass,
    /// nothing failed
    Warn,
    /// something failed
    Fail,
}

/// What the findings come to.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome<'a> {
    /// pass, warn or fail
    pub verdict: Verdict,
    /// 0, or the exit code of the failure that counts
    pub exit_code: u8,
    /// the failure that counts: the first of the first stage that failed; a deadline only where nothing else failed there
    pub decisive: Option<&'a Finding>,
}

impl<'a> Outcome<'a> {
    /// Judges findings by their statuses, whatever order the threads delivered them in.
    pub fn of(findings: &'a [Finding]) -> Self {
        let decisive = findings
            .iter()
            .filter(|f| f.failed())
            // A deadline ranks behind a definite failure of the same stage.
            .min_by_key(|f| (f.stage, f.exit_code() == ExitCode::Deadline));
        let verdict = match decisive {
            Some(_) => Verdict::Fail,
            None if findings.iter().any(|f| f.status == Status::Warn) => Verdict::Warn,
            None => Verdict::Pass,
        };
        Self {
            verdict,
            exit_code: decisive.map_or(ExitCode::Passed, Finding::exit_code).code(),
            decisive,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A code that is not in the catalogue.
#[derive(Debug, thiserror::Error)]
#[error("no finding is called `{given}`{}", .nearest.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
pub struct UnknownCode {
    /// as written
    pub given: String,
    /// the closest known one, if any is close
    pub nearest: Option<&'static str>,
}

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        let wanted = text.trim();
        Code::all()
            .find(|c| c.name() == wanted)
            .ok_or_else(|| UnknownCode {
                given: wanted.to_string(),
                nearest: crate::nearest(wanted, Code::all().map(Code::name)),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_stage_counts_whatever_the_order() {
        let image = Finding::problem(Code::CudartVersion, "a");
        let device = Finding::problem(Code::DriverMissing, "b");
        let arch = Finding::problem(Code::ArchUnsupported, "c");
        for findings in [
            vec![arch.clone(), device.clone(), image.clone()],
            vec![image, arch.clone(), device.clone()],
        ] {
            assert_eq!(Outcome::of(&findings).exit_code, 81);
        }
        assert_eq!(Outcome::of(&[arch.clone(), device]).exit_code, 82);
        assert_eq!(Outcome::of(&[arch]).exit_code, 83);
    }

    #[test]
    fn a_deadline_stands_at_the_rank_of_its_stage() {
        let late = Finding::problem(Code::HelperTimeout, "");
        let arch = Finding::problem(Code::ArchUnsupported, "");
        assert_eq!(Outcome::of(&[arch, late.clone()]).exit_code, 85);
        let definite = Finding::problem(Code::DriverTooOld, "");
        assert_eq!(Outcome::of(&[late, definite]).exit_code, 82);
    }

    #[test]
    fn overrides_touch_problems_alone() {
        let overrides = Overrides(
            [
                (Code::ShmSmall, Severity::Fail),
                (Code::CudartVersion, Severity::Warn),
            ]
            .into(),
        );
        let findings = vec![
            Finding::problem(Code::ShmSmall, "/dev/shm"),
            Finding::info(Code::ShmSmall, "/dev/shm"),
            Finding::problem(Code::CudartVersion, "x"),
            Finding::pass(Code::CudartVersion, "y"),
        ];
        let findings = Findings::under(&overrides, &[], findings);
        let statuses: Vec<_> = findings.iter().map(|f| f.status).collect();
        assert_eq!(statuses, [Status::Fail, Status::Info, Status::Warn, Status::Pass]);
        assert!(findings.failed() && findings.failures().eq([&findings[0]]));
        assert!(!Findings::default().failed());
    }

    #[test]
    fn what_the_manifest_accepts_is_information_unless_it_is_denied() {
        let accept = |code, subject| Accept {
            code,
            subject,
            reason: "pair tested".into(),
        };
        let package = |name: &str| accept::Subject::Package(name.into());
        let library = |name: &str| accept::Subject::Library(name.into());
        let accepted = [
            accept(Code::RequiresDist, package("cumm-cu124")),
            accept(Code::CudartVersion, library("libcudart.so.12")),
            accept(Code::LibraryMissing, library("libnccl.so.2")),
            accept(Code::KernelsUnusable, package("xformers")),
        ];
        let findings = || {
            vec![
                Finding::problem(Code::RequiresDist, "spconv-cu124")
                    .with(["cumm-cu124"])
                    .hint("x"),
                Finding::problem(Code::RequiresDist, "spconv-cu124").with(["numpy"]),
                Finding::problem(Code::CudartVersion, "/sp/lib/libcudart.so.12"),
                Finding::problem(Code::CudartVersion, "/sp/lib/libcudart.so.12.1"),
                Finding::pass(Code::RequiresDist, "cumm-cu124"),
            ]
        };
        let statuses = |severity: Option<Severity>| {
            let overrides = Overrides(severity.map(|s| (Code::RequiresDist, s)).into_iter().collect());
            let findings = Findings::under(&overrides, &accepted, findings());
            findings.iter().map(|f| f.status).collect::<Vec<_>>()
        };
        use Status::{Fail, Info, Pass, Warn};
        assert_eq!(statuses(None), [Info, Fail, Info, Fail, Pass]);
        assert_eq!(statuses(Some(Severity::Warn)), [Info, Warn, Info, Fail, Pass]);
        assert_eq!(statuses(Some(Severity::Info)), [Info, Info, Info, Fail, Pass]);
        assert_eq!(statuses(Some(Severity::Fail)), [Fail, Fail, Info, Fail, Pass]);
        let findings = Findings::under(&Overrides::default(), &accepted, findings());
        assert_eq!(
            (findings[0].accepted.as_str(), findings[0].hint.as_str()),
            ("pair tested", "")
        );
        let stale: Vec<Finding> = accept::stale(&accepted, &findings).collect();
        assert_eq!(stale.len(), 1);
        assert_eq!((stale[0].code, stale[0].status), (Code::LibraryMissing, Info));
        assert!(stale[0].message.contains("library libnccl.so.2 matched nothing"));
    }

    #[test]
    fn the_worst_of_a_stage_is_a_problem_and_the_first_of_its_weight() {
        let overrides = Overrides([(Code::SmokeDevice, Severity::Info)].into());
        let mut findings = Findings::under(
            &overrides,
            &[],
            vec![
                Finding::problem(Code::SmokeDevice, "a"),
                Finding::problem(Code::SmokeWrong, "b"),
                Finding::problem(Code::SmokeImport, "c"),
                Finding::problem(Code::DriverMissing, "d"),
            ],
        );
        findings.note([Finding::skip(Code::PackageMissing, "e")]);
        let worst = |stage| findings.worst_of(stage).map(|f| f.subject.as_str());
        assert_eq!(worst(Stage::Smoke), Some("b"));
        assert_eq!(worst(Stage::Device), Some("d"));
        assert_eq!(worst(Stage::Image), None);
        assert_eq!(
            findings.of(&[Code::SmokeWrong, Code::FileMissing])[..],
            findings[1..2]
        );
        findings.sort();
        assert_eq!(findings[0].subject, "e");
    }

    #[test]
    fn whatever_is_put_into_a_finding_can_be_printed() {
        let foreign = "a\x1b[2J\nb\u{202e}";
        let finding = Finding::problem(Code::FileMissing, foreign)
            .observed(foreign)
            .required(foreign)
            .message(foreign)
            .hint("x".repeat(2 * LONGEST));
        let shown = r"a\u{1b}[2J\nb\u{202e}";
        let Finding {
            subject,
            observed,
            required,
            message,
            hint,
            ..
        } = &finding;
        assert_eq!([subject, observed, required, message], [shown; 4]);
        assert_eq!(finding.clone().about(foreign).subject, shown);
        assert_eq!(hint.chars().count(), LONGEST + 1);
    }

    #[test]
    fn codes_are_one_to_one_and_found_by_name() {
        for code in Code::all() {
            assert_eq!(code.name().parse::<Code>().unwrap(), code);
            assert!(
                code.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
                "{code}"
            );
        }
        let names: std::collections::BTreeSet<_> = Code::all().map(Code::name).collect();
        assert_eq!(names.len(), Code::all().count());
        assert_eq!(
            "driver-mising".parse::<Code>().unwrap_err().nearest,
            Some("driver-missing")
        );
    }
}
