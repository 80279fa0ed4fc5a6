//! What is wrong with a manifest, and where.

use std::fmt;

use serde_path_to_error::{Path, Segment};

use super::position::{self, Target};
use crate::text::{clip, one_line};

/// Why a text is no manifest. `{}` is `at line 3, column 5 (packages.torch): …`; `{:#}` adds the hint.
///
/// The line and the column point at the key or the value that is wrong, not behind it. All three texts are free of
/// control characters and short, whatever the manifest holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StackError {
    /// from 1
    pub line: usize,
    /// in characters, from 1
    pub column: usize,
    /// where in the document, such as `packages.torch` or `smoke[5].argv[0]`; empty for the document itself
    pub path: String,
    /// what was found and what was expected
    pub message: String,
    /// what to do next; empty where the message says it all
    pub hint: String,
}

impl fmt::Display for StackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at line {}, column {}", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, " ({})", self.path)?;
        }
        write!(f, ": {}", self.message)?;
        if f.alternate() && !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for StackError {}

impl StackError {
    /// An error of the document as a whole.
    pub(super) fn of_document(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            line: 1,
            column: 1,
            path: String::new(),
            message: message.into(),
            hint: hint.into(),
        }
    }
}

/// A semantic error on its way through serde, which carries text alone.
#[derive(Debug)]
pub(super) struct Problem {
    target: Target,
    message: String,
    hint: String,
}

/// Separates the parts of a [`Problem`] in serde's text. Quoted input never holds it: see [`quoted`].
const SEPARATOR: char = '\u{1f}';

impl Problem {
    /// The value at the current path is wrong.
    pub(super) fn value(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            target: Target::Value,
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// The key that ends the current path is wrong.
    pub(super) fn key(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            target: Target::Key,
            ..Self::value(message, hint)
        }
    }

    /// The message with its hint.
    #[cfg(test)]
    pub(super) fn sentence(&self) -> String {
        match self.hint.as_str() {
            "" => self.message.clone(),
            hint => format!("{}; {hint}", self.message),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = match self.target {
            Target::Key => 'k',
            Target::Value => 'v',
        };
        // The last separator keeps serde_json from taking the end of a message for a position of its own.
        let Self { message, hint, .. } = self;
        write!(
            f,
            "{SEPARATOR}{target}{SEPARATOR}{message}{SEPARATOR}{hint}{SEPARATOR}"
        )
    }
}

/// Text of the manifest as it may stand in a message: printable, at most 60 characters, in backticks.
pub(super) fn quoted(text: &str) -> String {
    format!("`{}`", one_line(text, 60))
}

/// Turns serde's error into ours. `text` is what was parsed.
pub(super) fn from_serde(text: &str, error: serde_path_to_error::Error<serde_json::Error>) -> StackError {
    let path = error.path().clone();
    let inner = error.into_inner();
    let behind = position::offset(text, inner.line(), inner.column());
    let written = inner.to_string();
    let plain = strip_position(&written, &inner);
    let parts: Vec<&str> = plain.split(SEPARATOR).collect();
    let (target, message, hint) = match parts.as_slice() {
        ["", target, message, hint, ..] => {
            let target = if *target == "k" {
                Target::Key
            } else {
                Target::Value
            };
            (target, (*message).to_string(), (*hint).to_string())
        }
        _ if inner.is_data() => {
            let (message, hint) = of_type(plain);
            (Target::Value, message, hint)
        }
        _ => {
            let (message, hint) = of_syntax(text, plain, behind);
            return at(text, behind.saturating_sub(1), &path, message, hint);
        }
    };
    let offset = position::locate(text, &path, behind, target).unwrap_or(behind.saturating_sub(1));
    at(text, offset, &path, message, hint)
}

/// An error at a byte offset.
fn at(
    text: &str,
    offset: usize,
    path: &Path,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> StackError {
    let (line, column) = position::line_and_column(text, offset);
    StackError {
        line,
        column,
        path: display_path(path),
        message: message.into(),
        hint: hint.into(),
    }
}

/// serde_json ends its text with the position that it also gives as numbers.
fn strip_position<'a>(written: &'a str, error: &serde_json::Error) -> &'a str {
    let suffix = format!(" at line {} column {}", error.line(), error.column());
    written.strip_suffix(&suffix).unwrap_or(written)
}

/// `invalid type: integer `5`, expected a string`, in the words of JSON.
fn of_type(plain: &str) -> (String, String) {
    let parts = plain
        .strip_prefix("invalid type: ")
        .and_then(|rest| rest.rsplit_once(", expected "));
    let Some((found, expected)) = parts else {
        return (clip(plain, 300), String::new());
    };
    let found = match found {
        "map" => "an object".to_string(),
        "sequence" => "an array".to_string(),
        other => clip(other, 80),
    };
    let hint = match found.split(' ').next() {
        Some("null") => "leave the key out instead",
        Some("integer" | "floating" | "boolean") if expected.contains("string") => {
            "put the value in double quotes"
        }
        _ => "",
    };
    (format!("expected {expected}, found {found}"), hint.to_string())
}

/// What people write who have other formats in mind. `behind` is the offset after the offending byte.
fn of_syntax(text: &str, plain: &str, behind: usize) -> (String, String) {
    let message = format!("not JSON: {}", clip(plain, 200));
    let hint = match text.as_bytes().get(behind.saturating_sub(1)) {
        Some(b'/' | b'#') => "JSON has no comments",
        Some(b'\'') => "JSON strings stand in double quotes",
        _ if plain.starts_with("trailing comma") => "remove the comma before the closing bracket",
        _ if plain.starts_with("EOF") => "the file is cut off, or a bracket or quote is never closed",
        _ if plain.starts_with("trailing characters") => "a manifest is one JSON object",
        _ => "",
    };
    (message, hint.to_string())
}

fn display_path(path: &Path) -> String {
    let mut out = String::new();
    for segment in path {
        let key = match segment {
            Segment::Seq { index } => {
                out.push_str(&format!("[{index}]"));
                continue;
            }
            Segment::Map { key } | Segment::Enum { variant: key } => key,
            Segment::Unknown => continue, // the key itself is no JSON string
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_$".contains(&b);
        if !key.is_empty() && key.len() <= 60 && key.bytes().all(plain) {
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(key);
        } else {
            out.push_str(&format!("[\"{}\"]", one_line(key, 60)));
        }
    }
    out
}
