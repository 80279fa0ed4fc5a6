//! Findings as data: what was judged, how it came out, and whose turn it is.
//!
//! A check returns findings; [`Overrides`] is the one place where `--allow`, `--warn` and `--deny` change them; and
//! [`Outcome::of`] is the one place where they become a verdict and an exit code.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;

mod catalogue;
pub use catalogue::{Code, explain};

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
    /// a problem, whose weight `--allow`, `--warn` and `--deny` may change; not a pass, skip or plain information
    #[serde(skip)]
    pub problem: bool,
    /// trying again may help (a driver that is still starting): what `--wait` waits for
    #[serde(skip)]
    pub can_mend: bool,
}

impl Finding {
    fn new(code: Code, status: Status, subject: impl Into<String>) -> Self {
        Self {
            code,
            stage: code.stage(),
            status,
            subject: subject.into(),
            observed: String::new(),
            required: String::new(),
            message: String::new(),
            hint: String::new(),
            problem: false,
            can_mend: false,
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

    /// Sets what was seen.
    pub fn observed(mut self, text: impl Into<String>) -> Self {
        self.observed = text.into();
        self
    }

    /// Sets what had to be seen.
    pub fn required(mut self, text: impl Into<String>) -> Self {
        self.required = text.into();
        self
    }

    /// Sets the sentence.
    pub fn message(mut self, text: impl Into<String>) -> Self {
        self.message = text.into();
        self
    }

    /// Sets the next step.
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        self.hint = text.into();
        self
    }

    /// Says that trying again may help.
    pub fn can_mend(mut self) -> Self {
        self.can_mend = true;
        self
    }
}

/// What `--allow`, `--warn` and `--deny` say, one severity a code.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Overrides(pub BTreeMap<Code, Severity>);

impl Overrides {
    /// Applies them; only problems change.
    pub fn apply(&self, findings: &mut [Finding]) {
        for finding in findings.iter_mut().filter(|f| f.problem) {
            if let Some(&severity) = self.0.get(&finding.code) {
                finding.status = severity.into();
            }
        }
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
            .filter(|f| f.status == Status::Fail)
            .min_by_key(|f| (f.stage, f.code.exit_code() == TIMEOUT_EXIT));
        let verdict = match decisive {
            Some(_) => Verdict::Fail,
            None if findings.iter().any(|f| f.status == Status::Warn) => Verdict::Warn,
            None => Verdict::Pass,
        };
        Self {
            verdict,
            exit_code: decisive.map_or(0, |f| f.code.exit_code()),
            decisive,
        }
    }
}

/// A deadline passed: ranked behind a definite failure of the same stage.
const TIMEOUT_EXIT: u8 = 85;

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
        let mut findings = vec![
            Finding::problem(Code::ShmSmall, "/dev/shm"),
            Finding::info(Code::ShmSmall, "/dev/shm"),
            Finding::problem(Code::CudartVersion, "x"),
            Finding::pass(Code::CudartVersion, "y"),
        ];
        overrides.apply(&mut findings);
        let statuses: Vec<_> = findings.iter().map(|f| f.status).collect();
        assert_eq!(statuses, [Status::Fail, Status::Info, Status::Warn, Status::Pass]);
    }

    #[test]
    fn codes_are_one_to_one_and_found_by_name() {
        for code in Code::all() {
            assert_eq!(code.name().parse::<Code>().unwrap(), code);
            assert!(
                code.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
                "{code}"
            );
            assert!([81, 82, 83, 84, 85].contains(&code.exit_code()), "{code}");
        }
        let names: std::collections::BTreeSet<_> = Code::all().map(Code::name).collect();
        assert_eq!(names.len(), Code::all().count());
        assert_eq!(
            "driver-mising".parse::<Code>().unwrap_err().nearest,
            Some("driver-missing")
        );
    }
}
