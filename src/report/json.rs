//! The report as JSON. Its fields are a contract: within a major version they are only ever added.

use serde_json::{Map, Value, json};

use super::Report;
use crate::check::Code;
use crate::exit_code::ExitCode;
use crate::facts::LibraryKind;
use crate::order;
use crate::packed;
use crate::text::sanitize;
use crate::version::{self, VERSION};

/// `schema` of the report.
pub const SCHEMA: u32 = 1;

/// The JSON Schema of the report. The words of the libraries come from their table, the exit codes from the catalogue.
pub fn schema() -> String {
    let words: Vec<String> = LibraryKind::ALL
        .iter()
        .map(|kind| format!("\"{}\"", kind.row().word))
        .collect();
    let codes = order::set(Code::all().map(Code::exit_code).chain([ExitCode::Passed]));
    let numbers: Vec<String> = codes.into_iter().map(|exit| exit.code().to_string()).collect();
    packed::schema("report")
        .replace("\"@libraries\"", &words.join(", "))
        .replace("\"@exit-codes\"", &numbers.join(", "))
}

/// The whole report.
pub fn value(report: &Report<'_>) -> Value {
    let timing: Map<String, Value> = report
        .timing
        .iter()
        .map(|(name, d)| (name.to_string(), json!(rounded(d.as_secs_f64() * 1000.0))))
        .collect();
    let mut value = json!({
        "schema": SCHEMA,
        "version": VERSION,
        "verdict": report.outcome.verdict,
        "exit_code": report.outcome.exit_code,
        "mode": report.mode,
        "stack": {"name": report.stack_name, "source": report.stack_source},
        "facts": report.facts,
        "findings": report.findings,
        "smoke": report.smoke,
        "timing_ms": timing,
    });
    if let (Some(commit), Some(entries)) = (version::commit(), value.as_object_mut()) {
        entries.insert("commit".to_string(), json!(commit));
    }
    if let (Some(receipt), Some(entries)) = (report.receipt, value.as_object_mut()) {
        entries.insert("receipt".to_string(), json!(receipt));
    }
    sanitize_strings(&mut value);
    value
}

/// The report as a file or standard output gets it: indented, with a line end.
pub fn document(report: &Report<'_>) -> String {
    let value = value(report);
    format!("{value:#}\n")
}

/// Microseconds are what a clock of the kernel tells.
fn rounded(ms: f64) -> f64 {
    (ms * 1000.0).round() / 1000.0
}

/// JSON escapes C0 alone; a terminal that shows the report would still obey the rest.
fn sanitize_strings(value: &mut Value) {
    match value {
        Value::String(text) => {
            let clean = sanitize(text);
            if clean != *text {
                *text = clean;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(sanitize_strings),
        Value::Object(entries) => {
            entries.values_mut().for_each(sanitize_strings);
            // Most keys are ours, but names of variables are somebody else's.
            if entries.keys().any(|key| sanitize(key) != *key) {
                let all = std::mem::take(entries).into_iter();
                *entries = all.map(|(key, value)| (sanitize(&key), value)).collect();
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_as_values_are() {
        let mut value = json!({"a": [{"NVIDIA_REQUIRE_\u{9b}2J": "x\u{7f}"}, "\u{202e}"], "b": 1});
        sanitize_strings(&mut value);
        assert_eq!(
            value,
            json!({"a": [{"NVIDIA_REQUIRE_\\u{9b}2J": "x\\u{7f}"}, "\\u{202e}"], "b": 1})
        );
    }
}
