//! What is said, to whom: [`human`] for a terminal, [`json`] for programs, [`termination`] for whoever reads why a
//! container ended.

use std::time::Duration;

use crate::check::{Finding, Outcome};
use crate::config::Mode;
use crate::facts::Facts;
use crate::receipt::Account;

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
    pub receipt: Option<&'a Account>,
    /// how the smoke was to run and why it did or did not
    pub smoke: SmokeReport,
    /// what took how long
    pub timing: Vec<(&'static str, Duration)>,
}

/// The report's `smoke` key.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct SmokeReport {
    /// `separate`, `handoff` or `off`
    pub mode: crate::config::SmokeMode,
    /// `passed`, `failed` or `not-run`
    pub status: &'static str,
    /// why it failed or was not run
    pub reason: String,
}

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

/// Takes what could steer a terminal or reorder a line out of text that came from files and libraries: control
/// characters (C0, DEL, C1), line separators and bidirectional overrides become `\u{…}`.
pub fn sanitize(text: &str) -> String {
    // Nearly all text is plain ASCII, and there is a lot of it in the facts.
    if text.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return text.to_string();
    }
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) {
            clean.extend(c.escape_unicode());
        } else {
            clean.push(c);
        }
    }
    clean
}

/// Control characters, line separators, and what turns the direction of writing. All are in the basic plane.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{feff}'
        )
        || ('\u{202a}'..='\u{202e}').contains(&c)
        || ('\u{2066}'..='\u{2069}').contains(&c)
}

/// Milliseconds with the precision that a person reads: `0.4 ms`, `153 ms`, `9.6 s`.
pub fn milliseconds(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1000.0;
    if ms < 10.0 {
        format!("{ms:.1} ms")
    } else if ms < 10_000.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{:.1} s", ms / 1000.0)
    }
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

    #[test]
    fn nothing_that_steers_a_terminal_gets_through() {
        assert_eq!(sanitize("plain — ünïcödé ✓"), "plain — ünïcödé ✓");
        let nasty = "a\x1b[31mred\nline\r\x07\u{7f}\u{9b}2J\u{202e}gnp";
        let clean = sanitize(nasty);
        assert!(clean.starts_with("a\\u{1b}[31mred\\u{a}line"), "{clean}");
        assert!(!clean.chars().any(|c| c.is_control() || c == '\u{202e}'));
    }
}
