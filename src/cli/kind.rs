//! The kinds of value that an option can have. A kind parses text, and lists the words that it accepts.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use crate::arch::ArchList;
use crate::check::Code;
use crate::nearest;
use crate::process::init::SignalTarget;

use super::setting::{Setting, SettingError};

/// How the text of a setting becomes a value.
pub trait Kind {
    /// what it becomes
    type Value;
    /// the words that are accepted; empty where they cannot be listed
    const WORDS: &'static [Word] = &[];
    /// what the flag without a value stands for; none where it requires one
    const BARE: Option<&'static str> = None;

    /// The value of this text.
    ///
    /// # Errors
    /// The text is not of this kind.
    fn parse(text: &OsStr) -> Result<Self::Value, Wrong>;

    /// A default, as it would be written; empty for one that cannot be.
    fn show(_: &Self::Value) -> String {
        String::new()
    }
}

/// A word that a value may be.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    /// as it is written
    pub name: &'static str,
    /// what it does; empty where the word says it
    pub help: &'static str,
}

/// Why a text is not a value of its kind.
#[derive(Debug)]
pub struct Wrong {
    /// follows "invalid value `x` for --mode"
    reason: String,
    hint: String,
}

impl Wrong {
    pub(super) fn new(reason: impl std::fmt::Display, hint: impl Into<String>) -> Self {
        Self {
            reason: format!(": {reason}"),
            hint: hint.into(),
        }
    }

    /// For a text that is none of `words`.
    pub(super) fn word(text: &OsStr, words: &[Word]) -> Self {
        let hint = nearest(&text.to_string_lossy(), words.iter().map(|w| w.name)).map_or_else(
            || "use one of these, or omit it for the default".to_string(),
            |word| format!("did you mean `{word}`?"),
        );
        let reason = format!(" (expected {})", any_of(words));
        Self { reason, hint }
    }
}

/// `enforce, warn or off`
pub(super) fn any_of(words: &[Word]) -> String {
    let names: Vec<&str> = words.iter().map(|w| w.name).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// The value of one setting.
pub(super) fn read<K: Kind>(setting: &Setting) -> Result<K::Value, SettingError> {
    K::parse(&setting.value).map_err(|wrong| setting.invalid(&wrong.reason, wrong.hint))
}

/// The value of the setting that counts, or the default.
pub(super) fn read_or<K: Kind>(
    settings: &[Setting],
    default: impl FnOnce() -> K::Value,
) -> Result<K::Value, SettingError> {
    settings.last().map_or_else(|| Ok(default()), read::<K>)
}

/// An enum of which each variant is a word: `Variant "word" "what it does";`.
macro_rules! choice {
    ($(#[$attribute:meta])* $name:ident { $($variant:ident $word:literal $help:literal;)* }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name {
            $(#[doc = $help] $variant,)*
        }

        impl $name {
            /// The word for it, with what it does.
            pub const fn word(self) -> $crate::cli::kind::Word {
                match self {
                    $(Self::$variant => $crate::cli::kind::Word { name: $word, help: $help },)*
                }
            }

            /// The word for it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl $crate::cli::kind::Kind for $name {
            type Value = Self;
            const WORDS: &'static [$crate::cli::kind::Word] =
                &[$($crate::cli::kind::Word { name: $word, help: $help }),*];

            fn parse(text: &std::ffi::OsStr) -> Result<Self, $crate::cli::kind::Wrong> {
                match text.to_str() {
                    $(Some($word) => Ok(Self::$variant),)*
                    _ => Err($crate::cli::kind::Wrong::word(text, Self::WORDS)),
                }
            }

            fn show(value: &Self) -> String {
                value.name().to_string()
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }
    };
}
pub(super) use choice;

/// A duration, zero included.
#[derive(Debug)]
pub struct Span;

impl Kind for Span {
    type Value = Duration;

    fn parse(text: &OsStr) -> Result<Duration, Wrong> {
        const HINT: &str = "use a number with a unit: 500ms, 90s, 5m or 1h30m";
        let given = text.to_string_lossy();
        let parsed = humantime::parse_duration(&given).map_err(|error| {
            let bare = !given.is_empty() && given.bytes().all(|b| b.is_ascii_digit());
            let meant = format!("did you mean {given}s?");
            Wrong::new(error, if bare { &meant } else { HINT })
        })?;
        // A deadline further off than this cannot be told from none, and would overflow a clock.
        if parsed > Duration::from_secs(365 * 24 * 3600) {
            return Err(Wrong::new("longer than a year", HINT));
        }
        Ok(parsed)
    }

    fn show(value: &Duration) -> String {
        format!("{}s", value.as_secs())
    }
}

/// A duration after which something has failed.
#[derive(Debug)]
pub struct Deadline;

impl Kind for Deadline {
    type Value = Duration;

    fn parse(text: &OsStr) -> Result<Duration, Wrong> {
        let parsed = Span::parse(text)?;
        if parsed.is_zero() {
            let reason = "a deadline of 0 would expire at once";
            return Err(Wrong::new(reason, "use the longest acceptable time, such as 60s"));
        }
        Ok(parsed)
    }

    fn show(value: &Duration) -> String {
        Span::show(value)
    }
}

/// The path of a file or a directory, or none.
#[derive(Debug)]
pub struct FilePath;

impl Kind for FilePath {
    type Value = Option<PathBuf>;

    fn parse(text: &OsStr) -> Result<Option<PathBuf>, Wrong> {
        if text.is_empty() {
            return Err(Wrong::new("the path is empty", "name a path, or omit it"));
        }
        Ok(Some(PathBuf::from(text)))
    }
}

/// Which manifest is in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StackChoice {
    /// the image's own where there is one, else the embedded one
    Default,
    /// none: what is there is held against itself
    None,
    /// this file
    File(PathBuf),
}

/// The path of a manifest, or `none`; a file by that name is `./none`.
#[derive(Debug)]
pub struct StackSource;

impl Kind for StackSource {
    type Value = StackChoice;

    fn parse(text: &OsStr) -> Result<StackChoice, Wrong> {
        if text == crate::stack::NONE {
            return Ok(StackChoice::None);
        }
        Ok(FilePath::parse(text)?.map_or(StackChoice::Default, StackChoice::File))
    }
}

/// Where the JSON report goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReportTarget {
    /// standard output, for `check`
    Stdout,
    /// a file
    File(PathBuf),
}

impl ReportTarget {
    /// Whether it is standard output, by whichever of its names.
    pub fn is_stdout(&self) -> bool {
        const NAMES: [&str; 4] = [
            "/dev/stdout",
            "/dev/fd/1",
            "/proc/self/fd/1",
            "/proc/thread-self/fd/1",
        ];
        match self {
            Self::Stdout => true,
            Self::File(path) => NAMES.iter().any(|name| path == std::path::Path::new(name)),
        }
    }
}

/// The path of the report, or `-`.
#[derive(Debug)]
pub struct ReportPath;

impl Kind for ReportPath {
    type Value = Option<ReportTarget>;

    fn parse(text: &OsStr) -> Result<Option<ReportTarget>, Wrong> {
        if text == "-" {
            return Ok(Some(ReportTarget::Stdout));
        }
        Ok(FilePath::parse(text)?.map(ReportTarget::File))
    }
}

/// Where the verdict goes as a termination message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TerminationLog {
    /// /dev/termination-log, if it exists
    Default,
    /// as given; created where it does not exist
    File(PathBuf),
}

impl Kind for TerminationLog {
    type Value = Self;

    fn parse(text: &OsStr) -> Result<Self, Wrong> {
        Ok(FilePath::parse(text)?.map_or(Self::Default, Self::File))
    }
}

/// A list of architectures, or none.
#[derive(Debug)]
pub struct Archs;

impl Kind for Archs {
    type Value = Option<ArchList>;

    fn parse(text: &OsStr) -> Result<Option<ArchList>, Wrong> {
        ArchList::from_str(&text.to_string_lossy())
            .map(Some)
            .map_err(|error| Wrong::new(error, "use a list such as 7.5;8.0;8.6;8.9;9.0"))
    }
}

/// The name of a stack, as manifests may have it.
#[derive(Debug)]
pub struct StackName;

impl Kind for StackName {
    type Value = String;

    fn parse(text: &OsStr) -> Result<String, Wrong> {
        let text = text.to_string_lossy();
        match crate::stack::check_name(&text) {
            Ok(()) => Ok(text.into_owned()),
            Err(hint) => Err(Wrong::new("not a valid name", hint)),
        }
    }
}

/// Findings, separated by commas or blanks.
#[derive(Debug)]
pub struct Codes;

impl Kind for Codes {
    type Value = Vec<Code>;

    fn parse(text: &OsStr) -> Result<Vec<Code>, Wrong> {
        text.to_string_lossy()
            .split([',', ' '])
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(|name| {
                name.parse::<Code>()
                    .map_err(|e| Wrong::new(e, "cuda-entrypoint explain lists the findings"))
            })
            .collect::<Result<Vec<Code>, Wrong>>()
            .and_then(|codes| match codes.is_empty() && !text.is_empty() {
                true => Err(Wrong::new(
                    "no finding is named",
                    "cuda-entrypoint explain lists the findings",
                )),
                false => Ok(codes),
            })
    }
}

/// Whether `check` leaves out what holds.
#[derive(Debug)]
pub struct Quiet;

impl Kind for Quiet {
    type Value = bool;
    const BARE: Option<&'static str> = Some("on");
    const WORDS: &'static [Word] = &[
        Word {
            name: "off",
            help: "print every finding",
        },
        Word {
            name: "on",
            help: "failures, warnings and totals only (check only); also --quiet without a value",
        },
    ];

    /// Variables are set to yes and no as well.
    fn parse(text: &OsStr) -> Result<bool, Wrong> {
        match text.to_string_lossy().to_ascii_lowercase().as_str() {
            "0" | "false" | "no" | "off" => Ok(false),
            "1" | "true" | "yes" | "on" => Ok(true),
            _ => Err(Wrong::word(text, Self::WORDS)),
        }
    }

    fn show(value: &bool) -> String {
        if *value { "on" } else { "off" }.to_string()
    }
}

/// Whether to stay as PID 1, and where signals go then.
#[derive(Debug)]
pub struct Init;

impl Kind for Init {
    type Value = Option<SignalTarget>;
    const BARE: Option<&'static str> = Some("on");
    const WORDS: &'static [Word] = &[
        Word {
            name: "off",
            help: "exec the service",
        },
        Word {
            name: "on",
            help: "forward signals to the service only; also --init without a value",
        },
        Word {
            name: "service",
            help: "the same as on",
        },
        Word {
            name: "group",
            help: "forward signals to the service's process group",
        },
    ];

    /// Variables are set to yes and no as well.
    fn parse(text: &OsStr) -> Result<Option<SignalTarget>, Wrong> {
        match text.to_string_lossy().to_ascii_lowercase().as_str() {
            "0" | "false" | "no" | "off" => Ok(None),
            "1" | "true" | "yes" | "on" | "service" => Ok(Some(SignalTarget::Service)),
            "group" => Ok(Some(SignalTarget::Group)),
            _ => Err(Wrong::word(text, Self::WORDS)),
        }
    }

    fn show(value: &Option<SignalTarget>) -> String {
        let word = match value {
            None => "off",
            Some(SignalTarget::Service) => "on",
            Some(SignalTarget::Group) => "group",
        };
        word.to_string()
    }
}

/// A log level.
#[derive(Debug)]
pub struct Level;

impl Kind for Level {
    type Value = LevelFilter;
    const WORDS: &'static [Word] = &[
        Word {
            name: "error",
            help: "",
        },
        Word {
            name: "warn",
            help: "",
        },
        Word {
            name: "info",
            help: "",
        },
        Word {
            name: "debug",
            help: "",
        },
        Word {
            name: "trace",
            help: "",
        },
    ];

    /// These words alone: a filter's own parser also accepts numbers and capitals.
    fn parse(text: &OsStr) -> Result<LevelFilter, Wrong> {
        let known = Self::WORDS.iter().find(|word| word.name == text);
        let level = known.and_then(|word| word.name.parse().ok());
        level.ok_or_else(|| Wrong::word(text, Self::WORDS))
    }

    fn show(value: &LevelFilter) -> String {
        value.to_string()
    }
}
