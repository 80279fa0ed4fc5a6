//! What a manifest wants to see run.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer};

use super::error::{Problem, quoted};
use super::json::{Flag, Object, Text, Texts, read_object};
use super::names::check_label;
use crate::facts::native::NativeExtent;
use crate::packages::{PACKAGES, Process, Proof};
use crate::text::sanitize;

/// A smoke that comes with this program: by the name of its package.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Builtin(Proof);

impl Builtin {
    /// Every one, in the order of the documentation.
    pub fn all() -> impl Iterator<Item = Self> {
        PACKAGES
            .iter()
            .filter_map(|package| package.smoke.get())
            .map(Self)
    }

    /// As manifests and reports write it.
    pub fn name(self) -> &'static str {
        self.0.entry
    }

    /// Whether a process of the smoke runs this entry and no other.
    pub fn is_alone(self) -> bool {
        self.0.process == Process::Own
    }

    /// By which name the facts have its process: torch's has none.
    pub fn framework(self) -> &'static str {
        if self.is_alone() { self.name() } else { "" }
    }

    fn parse(text: &str) -> Result<Self, Problem> {
        if let Some(found) = Self::all().find(|b| b.name() == text) {
            return Ok(found);
        }
        let names: Vec<&str> = Self::all().map(Self::name).chain([NATIVE, NATIVE_ALL]).collect();
        let hint = match crate::nearest(text, names.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!(
                "there are {}; a command of your own is an object with name and argv",
                names.join(", ")
            ),
        };
        Err(Problem::value(
            format!("no built-in smoke test is called {}", quoted(text)),
            hint,
        ))
    }
}

/// The native proof's name, in manifests and reports.
pub const NATIVE: &str = "native";
/// The same that loads every kernel.
pub const NATIVE_ALL: &str = "native=all";

/// One entry of a manifest's `smoke`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SmokeEntry {
    /// comes with this program and needs a GPU
    Builtin(Builtin),
    /// the native proof, which comes before all others wherever it stands
    Native(NativeExtent),
    /// a command of the manifest's author
    Command {
        /// how reports call it; no other entry has this name
        name: String,
        /// the program and its arguments, run without a shell; never empty
        argv: Vec<String>,
        /// its own deadline; `None` leaves it to the smoke's
        timeout: Option<Duration>,
        /// whether it is skipped where no GPU is used
        gpu: bool,
    },
}

/// Whether a command's first word names an interpreter of Python: `python3`, `/opt/venv/bin/python3.11`.
pub fn is_interpreter(program: &str) -> bool {
    let name = program.rsplit('/').next();
    name.is_some_and(|name| name.starts_with("python"))
}

impl SmokeEntry {
    /// How reports call it.
    pub fn name(&self) -> &str {
        match self {
            Self::Builtin(builtin) => builtin.name(),
            Self::Native(_) => NATIVE,
            Self::Command { name, .. } => name,
        }
    }

    /// Whether a Python runs it.
    pub fn needs_python(&self) -> bool {
        match self {
            Self::Builtin(_) => true,
            Self::Native(_) => false,
            Self::Command { argv, .. } => argv.first().is_some_and(|program| is_interpreter(program)),
        }
    }

    /// Whether it is skipped where no GPU is used.
    pub fn needs_gpu(&self) -> bool {
        match self {
            Self::Builtin(_) | Self::Native(_) => true,
            Self::Command { gpu, .. } => *gpu,
        }
    }
}

impl Serialize for SmokeEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Command<'a> {
            name: &'a str,
            argv: &'a [String],
            #[serde(skip_serializing_if = "Option::is_none")]
            timeout: Option<String>,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            gpu: bool,
        }
        match self {
            Self::Builtin(builtin) => serializer.serialize_str(builtin.name()),
            Self::Native(NativeExtent::Sample) => serializer.serialize_str(NATIVE),
            Self::Native(NativeExtent::All) => serializer.serialize_str(NATIVE_ALL),
            Self::Command {
                name,
                argv,
                timeout,
                gpu,
            } => Command {
                name,
                argv,
                timeout: timeout.map(write_duration),
                gpu: *gpu,
            }
            .serialize(serializer),
        }
    }
}

/// A duration as manifests write it; the parser reads it back as the same one.
pub(super) fn write_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// The manifest's `smoke`.
pub(super) struct SmokeSeed;

impl<'de> DeserializeSeed<'de> for SmokeSeed {
    type Value = Vec<SmokeEntry>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for SmokeSeed {
    type Value = Vec<SmokeEntry>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of smokes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        let mut names = BTreeSet::new();
        while let Some(entry) = seq.next_element_seed(EntrySeed { names: &mut names })? {
            entries.push(entry);
        }
        Ok(entries)
    }
}

struct EntrySeed<'a> {
    names: &'a mut BTreeSet<String>,
}

impl<'de> DeserializeSeed<'de> for EntrySeed<'_> {
    type Value = SmokeEntry;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<SmokeEntry, D::Error> {
        let entry = deserializer.deserialize_any(EntryVisitor)?;
        match self.names.insert(entry.name().to_string()) {
            true => Ok(entry),
            false => Err(D::Error::custom(Problem::value(
                format!("two smoke tests are called {}", quoted(entry.name())),
                "remove or rename one of the two",
            ))),
        }
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = SmokeEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a built-in smoke as a string, or an object with name and argv")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<SmokeEntry, E> {
        match text {
            NATIVE => Ok(SmokeEntry::Native(NativeExtent::Sample)),
            NATIVE_ALL => Ok(SmokeEntry::Native(NativeExtent::All)),
            _ => Builtin::parse(text).map(SmokeEntry::Builtin).map_err(E::custom),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SmokeEntry, A::Error> {
        read_object::<CommandForm, A>(map)
    }
}

/// `{"name": …, "argv": […], "timeout": "60s", "gpu": true}`.
#[derive(Default)]
pub(super) struct CommandForm {
    name: Option<String>,
    argv: Option<Vec<String>>,
    timeout: Option<Duration>,
    gpu: bool,
}

impl Object for CommandForm {
    type Output = SmokeEntry;
    const KEYS: &'static [&'static str] = &["name", "argv", "timeout", "gpu"];
    const EXPECTING: &'static str = "an object with the keys name and argv, and perhaps timeout and gpu";

    fn set<'de, A: MapAccess<'de>>(&mut self, key: &'static str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "name" => {
                self.name = Some(map.next_value_seed(Text {
                    expecting: "a name as a string",
                    parse: check_own_name,
                })?);
            }
            "argv" => {
                self.argv = Some(map.next_value_seed(Texts {
                    expecting: "an array of strings, such as [\"python\", \"-m\", \"selftest\"]",
                    parse: |index: usize, word: &str| check_word(index == 0, word),
                })?);
            }
            "timeout" => {
                self.timeout = Some(map.next_value_seed(Text {
                    expecting: "a duration as a string, such as \"60s\"",
                    parse: parse_timeout,
                })?);
            }
            _ => self.gpu = map.next_value_seed(Flag("true or false"))?,
        }
        Ok(())
    }

    fn finish(self) -> Result<SmokeEntry, Problem> {
        let missing = |key: &str| {
            Problem::value(
                format!("the key `{key}` is missing"),
                "a command needs at least name and argv",
            )
        };
        let name = self.name.ok_or_else(|| missing("name"))?;
        let argv = self.argv.ok_or_else(|| missing("argv"))?;
        if argv.is_empty() {
            return Err(Problem::value(
                "`argv` is empty",
                "its first element is the program to run",
            ));
        }
        Ok(SmokeEntry::Command {
            name,
            argv,
            timeout: self.timeout,
            gpu: self.gpu,
        })
    }
}

/// Names that no command may have: a report that says `torch OK` has to mean the entry that comes with this program. The
/// entries that came later are not among them, since an older manifest may have a command of that name.
const RESERVED: [&str; 8] = [
    "torch",
    "spconv",
    "torchvision",
    "torch-scatter",
    "mmcv",
    "flash-attn",
    NATIVE,
    NATIVE_ALL,
];

fn check_own_name(text: &str) -> Result<String, Problem> {
    let name = check_label(text)?;
    match RESERVED.contains(&name.as_str()) {
        false => Ok(name),
        true => Err(Problem::value(
            format!("{} is the name of a built-in smoke test", quoted(&name)),
            "give the command a name of its own, or write the name alone, as a string, for the built-in one",
        )),
    }
}

fn check_word(first: bool, word: &str) -> Result<String, Problem> {
    if word.contains('\0') {
        return Err(Problem::value(
            "an argument cannot hold a NUL character",
            "remove the \\u0000",
        ));
    }
    if first && word.is_empty() {
        return Err(Problem::value(
            "the program's name is empty",
            "the first element is the program to run",
        ));
    }
    Ok(word.to_string())
}

/// A deadline of more than a day is a slip of the unit, and sums of times must stay within the clock's range.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

fn parse_timeout(text: &str) -> Result<Duration, Problem> {
    let shape = "write a number and a unit, such as \"60s\", \"5m\" or \"1m 30s\"";
    match humantime::parse_duration(text.trim()) {
        Err(error) => {
            let reason = match error {
                humantime::DurationError::Empty => "it is empty".to_string(),
                humantime::DurationError::UnknownUnit { unit, .. } if !unit.is_empty() => {
                    format!("no unit is called {}", quoted(&unit))
                }
                humantime::DurationError::UnknownUnit { .. } => "it has no unit".to_string(),
                other => sanitize(&other.to_string()),
            };
            Err(Problem::value(
                format!("{} is not a duration: {reason}", quoted(text)),
                shape,
            ))
        }
        Ok(Duration::ZERO) => Err(Problem::value(
            "a deadline of zero leaves no time to run",
            "leave `timeout` out to use the smoke's own deadline",
        )),
        Ok(duration) if duration > LONGEST => Err(Problem::value(
            format!("a deadline of {} is longer than a day", quoted(text)),
            shape,
        )),
        Ok(duration) => Ok(duration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_come_back_as_they_went() {
        for text in ["60s", "5m", "1m 30s", "1500ms", "24h", "1ns"] {
            let parsed = parse_timeout(text).unwrap_or_else(|e| panic!("{text}: {}", e.sentence()));
            assert_eq!(parse_timeout(&write_duration(parsed)).unwrap(), parsed, "{text}");
        }
    }

    #[test]
    fn durations_that_cannot_be_deadlines_are_refused() {
        let lines: Vec<String> = [
            "",
            "60",
            "0s",
            "-5s",
            "25h",
            "1e3s",
            "99999999999999999999s",
            "5 parsecs",
            "\u{1b}s",
        ]
        .iter()
        .map(|text| match parse_timeout(text) {
            Ok(duration) => panic!("{text:?} was taken for {duration:?}"),
            Err(problem) => format!("{text:?}: {}", problem.sentence()),
        })
        .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
