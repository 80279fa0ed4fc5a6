//! The verdict for whoever reads why a container ended: Kubernetes' terminationMessagePath, at most 4,096 bytes
//! (Kubernetes: "Customizing the termination message").

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{Report, headline, judged_by, of_another_image};
use crate::check::{Status, Verdict};
use crate::cli::config::TerminationLog;
use crate::process::limits::ResourceLimit;
use crate::text::sanitize;

/// Kubernetes keeps this much of a message.
const LIMIT: usize = 4096;
/// Where Kubernetes looks unless a pod says otherwise.
const DEFAULT_PATH: &str = "/dev/termination-log";

/// Code, sentence and hint first, then the other problems.
pub fn message(report: &Report<'_>) -> String {
    let mut lines = Vec::new();
    let decisive = report.outcome.decisive;
    match (report.outcome.verdict, decisive) {
        (Verdict::Fail, Some(finding)) => {
            lines.push(format!(
                "{} (exit {}): {}",
                finding.code,
                report.outcome.exit_code,
                headline(finding)
            ));
            lines.push(format!("hint: {}", finding.hint));
            lines.push(format!(
                "observed: {}; required: {}",
                finding.observed, finding.required
            ));
            lines.extend(of_another_image(report));
        }
        (verdict, _) => {
            let word = if verdict == Verdict::Warn {
                "pass, with warnings"
            } else {
                "pass"
            };
            lines.push(format!("{word}: {}", judged_by(report, report.stack_source)));
        }
    }
    for finding in report
        .findings
        .iter()
        .filter(|f| matches!(f.status, Status::Fail | Status::Warn))
    {
        if decisive.is_some_and(|d| std::ptr::eq(d, finding)) {
            continue;
        }
        lines.push(format!("also {}: {}", finding.code, headline(finding)));
    }
    lines.iter().map(|l| sanitize(l)).collect::<Vec<_>>().join("\n")
}

/// Cuts text to [`LIMIT`] bytes at a character's end.
pub fn fit(text: &str) -> &str {
    let mut end = text.len().min(LIMIT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// Writes the verdict. A failure is logged and changes nothing: the exit code says it as well.
pub fn write(target: &TerminationLog, text: &str) {
    let (path, given) = match target {
        TerminationLog::Default => (Path::new(DEFAULT_PATH), false),
        TerminationLog::File(path) => (path.as_path(), true),
    };
    if !given && !path.exists() {
        return;
    }
    // O_NONBLOCK: a FIFO without a reader must not hold the verdict up.
    let opened = OpenOptions::new()
        .write(true)
        .truncate(true)
        .create(given)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC)
        .open(path);
    if let Err(error) = opened.and_then(|mut file| file.write_all(fit(text).as_bytes())) {
        tracing::warn!(
            "cannot write the termination message to {}: {}",
            path.display(),
            ResourceLimit::explained(&error)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_cut_at_a_character() {
        let long = "é".repeat(3000);
        assert_eq!(fit(&long).len(), 4096);
        let odd = format!("a{}", "é".repeat(3000));
        assert_eq!(fit(&odd).len(), 4095);
        assert_eq!(fit("short"), "short");
    }
}
