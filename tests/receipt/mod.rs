//! Receipts through the binary: what a second start takes over, and every change that keeps it from doing so.

mod basis;
mod files;
mod gpus;
mod libraries;

use std::path::Path;

use serde_json::Value;

/// Names of the parts that were taken from a receipt.
fn used(report: &Value) -> Vec<&str> {
    let used = report["receipt"]["used"].as_array();
    let used = used.unwrap_or_else(|| panic!("no receipt in {report:#}"));
    used.iter().map(|one| one["part"].as_str().unwrap()).collect()
}

/// Names of the parts that were put into it.
fn written(report: &Value) -> Vec<&str> {
    let written = report["receipt"]["written"].as_array().unwrap();
    written.iter().map(|one| one.as_str().unwrap()).collect()
}

/// `PART: REASON` of all that was not taken; `file` for the whole.
fn refused(report: &Value) -> Vec<String> {
    let refused = report["receipt"]["refused"].as_array().unwrap();
    let one = |one: &Value| {
        let part = one["part"].as_str().unwrap_or("file");
        format!("{part}: {}", one["reason"].as_str().unwrap())
    };
    refused.iter().map(one).collect()
}

/// A receipt as JSON, changed and put back.
fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut receipt: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut receipt);
    std::fs::write(path, receipt.to_string()).unwrap();
}
