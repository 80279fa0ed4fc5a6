//! Receipts: what an earlier start proved, so that this one need not prove it again.
//!
//! Facts are kept, and never a verdict: they are judged anew at each start, with everything that is asked anew beside
//! them. A receipt has two parts, each of which is recognised or refused alone. The [`image`] part spares reading the
//! libraries and asking them; it does not age, and can come with the image. The [`device`] part spares cuInit and, where
//! it holds one, the smoke; it counts for a day on one boot of one machine.
//!
//! [`trust`] says whose word counts, [`file`] reads and writes.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::discover::files;
use crate::facts::read::{object, words};

pub mod device;
pub mod file;
pub mod image;
pub mod keep;
pub mod key;
pub mod own;
pub mod trust;

/// Names this build: its version, and what its sources and its helper come to. A copy of the binary is the same one.
pub const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), "+", env!("CUDA_ENTRYPOINT_BUILD"));

/// When a part was written.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Written {
    /// seconds since 1970
    pub at: u64,
}

/// This moment, as parts of receipts are held against it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// seconds since 1970
    pub at: u64,
    /// the kernel's name of this boot; `None` where /proc does not tell it
    pub boot: Option<String>,
}

impl Now {
    /// Asks the clock, and /proc for `boot_id` (random(4)).
    pub fn look() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let boot = files::read_text(std::path::Path::new("/proc/sys/kernel/random/boot_id"), 128).ok();
        Self {
            at: since.map_or(0, |since| since.as_secs()),
            boot: boot
                .map(|text| text.trim().to_string())
                .filter(|text| !text.is_empty()),
        }
    }

    /// What is written now.
    pub fn written(&self) -> Written {
        Written { at: self.at }
    }
}

object!(Written { at });

/// How far in the future a proof may lie, in seconds: clocks are set now and then.
const SKEW: u64 = 60;

impl Written {
    /// Says that the clock was set back since, or that it never showed this time.
    pub fn in_the_future(&self, now: u64) -> Option<String> {
        let ahead = self.at.saturating_sub(now);
        (ahead > SKEW).then(|| format!("written {ahead} s in the future: the clock was set back"))
    }
}

/// A part of a receipt. The smoke lies in the device part, and counts only together with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// files and libraries
    Image,
    /// driver and GPUs
    Device,
    /// the smoke on them
    Smoke,
}

impl Part {
    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Device => "GPUs",
            Self::Smoke => "smoke",
        }
    }
}

words!(Part { "image" Image, "device" Device, "smoke" Smoke });

/// A part whose facts were taken over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Used {
    /// which
    pub part: Part,
    /// how old it was, in seconds
    pub age_s: u64,
}

/// A part, or the whole file, that was not believed or did not fit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Refused {
    /// which; `None` for the whole file
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// why, in words
    pub reason: String,
}

/// What became of a receipt: the report's `receipt` key.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct ReceiptSummary {
    /// its path
    pub file: String,
    /// what was taken from it
    pub used: Vec<Used>,
    /// what was not, and why
    pub refused: Vec<Refused>,
    /// what was written to it
    pub written: Vec<Part>,
    /// why something that was proven was not written
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_written: Option<String>,
}

object!(Used { part, age_s });
object!(Refused { part, reason });
object!(ReceiptSummary {
    file,
    used,
    refused,
    written,
    not_written
});

/// Reasons that are shown of one refusal; the rest is a number.
const MOST_REASONS: usize = 3;

impl ReceiptSummary {
    /// Whether a part's facts were taken from it.
    pub fn has_used(&self, part: Part) -> bool {
        self.used.iter().any(|used| used.part == part)
    }

    /// Notes that a part was taken over.
    pub fn used(&mut self, part: Part, written: &Written, now: &Now) {
        // In the order of the parts, whichever was recognised first.
        let place = self.used.iter().filter(|used| used.part < part).count();
        let age_s = now.at.saturating_sub(written.at);
        self.used.insert(place, Used { part, age_s });
    }

    /// Notes why a part was not taken over, and says so.
    pub fn refused(&mut self, part: Option<Part>, reasons: &[String]) {
        let mut reason = reasons
            .iter()
            .take(MOST_REASONS)
            .cloned()
            .collect::<Vec<_>>()
            .join("; ");
        if let Some(more) = reasons.len().checked_sub(MOST_REASONS).filter(|more| *more > 0) {
            reason.push_str(&format!("; and {more} more"));
        }
        match part {
            Some(part) => tracing::info!("receipt: {} not taken from it: {reason}", part.name()),
            None => tracing::info!("receipt: {} is not used: {reason}", self.file),
        }
        let place = self.refused.iter().filter(|refused| refused.part < part).count();
        self.refused.insert(place, Refused { part, reason });
    }

    /// `image as proven 3 min ago, GPUs and smoke as proven 40 s ago`; `None` where nothing was taken.
    pub fn proven(&self) -> Option<String> {
        let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
        for used in &self.used {
            let ago = ago(used.age_s);
            match groups.iter_mut().find(|(known, _)| *known == ago) {
                Some((_, parts)) => parts.push(used.part.name()),
                None => groups.push((ago, vec![used.part.name()])),
            }
        }
        let shown = groups
            .iter()
            .map(|(ago, parts)| format!("{} as proven {ago}", and(parts)));
        let text = shown.collect::<Vec<_>>().join(", ");
        (!text.is_empty()).then_some(text)
    }

    /// What became of it in one line, for the table of `check`.
    pub fn line(&self) -> String {
        let mut parts: Vec<String> = self.proven().into_iter().collect();
        if !self.written.is_empty() {
            let names: Vec<&str> = self.written.iter().map(|part| part.name()).collect();
            parts.push(format!("{} written", and(&names)));
        }
        parts.extend(self.not_written.iter().map(|why| format!("not written: {why}")));
        if parts.is_empty() {
            parts.push("nothing taken from it, nothing to write".to_string());
        }
        format!("receipt {}: {}", self.file, parts.join("; "))
    }
}

fn and(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_string(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// `40 s ago`, `3 min ago`, `5 h ago`, `12 days ago`
fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7_200 => format!("{} min ago", seconds / 60),
        7_200..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_as_people_do() {
        for (seconds, text) in [
            (0, "0 s ago"),
            (119, "119 s ago"),
            (120, "2 min ago"),
            (7_199, "119 min ago"),
            (7_200, "2 h ago"),
            (172_799, "47 h ago"),
            (172_800, "2 days ago"),
            (u64::MAX, "213503982334601 days ago"),
        ] {
            assert_eq!(ago(seconds), text);
        }
    }

    #[test]
    fn what_became_of_it_is_one_line() {
        let now = Now {
            at: 1_000_000,
            boot: None,
        };
        let mut account = ReceiptSummary {
            file: "/r".into(),
            ..ReceiptSummary::default()
        };
        assert_eq!(
            account.line(),
            "receipt /r: nothing taken from it, nothing to write"
        );
        account.used(Part::Device, &Written { at: 999_700 }, &now);
        account.used(Part::Image, &Written { at: 0 }, &now);
        account.used(Part::Smoke, &Written { at: 999_700 }, &now);
        let proven = "image as proven 11 days ago, GPUs and smoke as proven 5 min ago";
        assert_eq!(account.proven().as_deref(), Some(proven));
        account.written.extend([Part::Image, Part::Device, Part::Smoke]);
        account.not_written = Some("no space".into());
        assert_eq!(
            account.line(),
            format!("receipt /r: {proven}; image, GPUs and smoke written; not written: no space")
        );
        let reasons = ["a", "b", "c", "d", "e"].map(String::from);
        account.refused(None, &reasons);
        account.refused(Some(Part::Image), &reasons[..3]);
        let said: Vec<&str> = account.refused.iter().map(|r| r.reason.as_str()).collect();
        assert_eq!(said, ["a; b; c; and 2 more", "a; b; c"]);
    }

    #[test]
    fn this_boot_has_a_name() {
        let now = Now::look();
        assert!(now.at > 1_700_000_000);
        assert_eq!(now.boot, Now::look().boot);
        assert_eq!(now.boot.map(|boot| boot.len()), Some(36));
    }
}
