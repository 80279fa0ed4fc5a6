//! The table and the JSON of `cuda-entrypoint kernels`.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io::{self, Write};

use serde::Serialize;

use crate::discover::fatbin::Target;
use crate::discover::kernels::{FileCounts, RelocatableCounts};
use crate::facts::PtxVersion;
use crate::facts::kernels::PtxIsa;
use crate::packed;
use crate::text::{sanitize, steers};

/// What `--json` prints.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct KernelsReport {
    /// files with CUDA code, and those that were named themselves
    pub files: Vec<FileCounts>,
    /// what could not be read
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ScanError>,
}

/// A file or folder that could not be read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ScanError {
    /// the file or folder
    pub path: String,
    /// what is wrong with it and what to do
    pub message: String,
}

/// The JSON Schema of what [`json`] writes.
pub fn schema() -> String {
    packed::schema("kernels")
}

/// Writes the report as JSON, ended by a newline.
///
/// # Errors
/// Those of `out`.
pub fn json(report: &KernelsReport, out: &mut dyn Write) -> io::Result<()> {
    // serde_json leaves DEL, C1 controls and direction marks as they are; they can only be inside of strings.
    let mut text = String::new();
    for c in format!("{:#}", serde_json::to_value(report)?).chars() {
        if c != '\n' && steers(c) {
            text.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            text.push(c);
        }
    }
    writeln!(out, "{text}")
}

/// Writes the report as a table for people. The errors are not in it: they belong to standard error.
///
/// # Errors
/// Those of `out`.
pub fn human(report: &KernelsReport, out: &mut dyn Write) -> io::Result<()> {
    for (index, file) in report.files.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        human_file(file, out)?;
    }
    if report.files.is_empty() && report.errors.is_empty() {
        writeln!(out, "no library with CUDA code")?;
    }
    Ok(())
}

fn human_file(file: &FileCounts, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", sanitize(&file.path))?;
    if file.fatbins == 0 && file.relocatable.is_none() {
        return writeln!(out, "  no CUDA code");
    }
    write!(
        out,
        "  fatbins  {}, {} with kernels",
        file.fatbins, file.with_kernels
    )?;
    if file.compressed > 0 {
        let which = if file.compressed == file.with_kernels {
            "all".to_string()
        } else {
            file.compressed.to_string()
        };
        write!(
            out,
            " ({which} compressed and long: counted without being looked into)"
        )?;
    }
    writeln!(out)?;
    if file.with_kernels > 0 {
        writeln!(out, "  SASS     {}", Targets(&file.sass, file.with_kernels))?;
        writeln!(out, "  PTX      {}", Targets(&file.ptx, file.with_kernels))?;
        human_isa("  ", &file.ptx_isa, out)?;
    }
    if !file.other_kinds.is_empty() {
        let kinds: Vec<_> = file
            .other_kinds
            .iter()
            .map(|(&kind, n)| other_kind(kind, *n))
            .collect();
        writeln!(out, "  other    {}", kinds.join(", "))?;
    }
    if file.with_kernels > 0 && !file.served.is_empty() {
        human_served(file, out)?;
    }
    if let Some(relocatable) = &file.relocatable {
        human_relocatable(relocatable, out)?;
    }
    Ok(())
}

/// `8.4 (CUDA 12.4), 8.7 (CUDA 12.8)`: which drivers compile the PTX.
fn human_isa(indent: &str, isa: &[PtxIsa], out: &mut dyn Write) -> io::Result<()> {
    let mut versions = Vec::new();
    for isa in isa {
        if let Err(at) = versions.binary_search(&isa.version) {
            versions.insert(at, isa.version);
        }
    }
    if versions.is_empty() {
        return Ok(());
    }
    let versions: Vec<String> = versions.into_iter().map(PtxVersion::with_cuda).collect();
    writeln!(out, "{indent}PTX ISA  {}", versions.join(", "))
}

fn human_served(file: &FileCounts, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "  {:>6}  {:>8}  {:>8}  {:>13}",
        "arch", "SASS", "PTX only", "not supported"
    )?;
    for (device, served) in &file.served {
        let rest = file
            .with_kernels
            .saturating_sub(served.sass)
            .saturating_sub(served.ptx);
        let device = device.to_string();
        writeln!(
            out,
            "  {device:>6}  {:>8}  {:>8}  {rest:>13}",
            served.sass, served.ptx
        )?;
    }
    Ok(())
}

fn other_kind(kind: u16, count: u64) -> String {
    match kind {
        8 => format!("LTO intermediate code in {count}"),
        _ => format!("code of unknown kind {kind} in {count}"),
    }
}

fn human_relocatable(parts: &RelocatableCounts, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "  relocatable device code, linked when built or by the driver at load time"
    )?;
    writeln!(out, "    fatbins  {}", parts.fatbins)?;
    writeln!(out, "    SASS     {}", Targets(&parts.sass, parts.fatbins))?;
    writeln!(out, "    PTX      {}", Targets(&parts.ptx, parts.fatbins))?;
    human_isa("    ", &parts.ptx_isa, out)?;
    let linkable: Vec<_> = parts
        .served
        .iter()
        .filter(|(_, served)| served.sass + served.ptx == parts.fatbins)
        .map(|(device, _)| device.to_string())
        .collect();
    if !parts.served.is_empty() {
        let linkable = if linkable.is_empty() {
            "none".to_string()
        } else {
            linkable.join(" ")
        };
        writeln!(out, "    every part supports  {linkable}")?;
    }
    Ok(())
}

/// `6.0 7.0 9.0 in all, 5.0 in 85`: architectures with the same count share it, the greatest count first.
struct Targets<'a>(&'a BTreeMap<Target, u64>, u64);

impl Display for Targets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let mut by_count: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for (target, count) in self.0 {
            by_count.entry(*count).or_default().push(target.to_string());
        }
        for (index, (count, targets)) in by_count.iter().rev().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{} in ", targets.join(" "))?;
            if *count == self.1 {
                f.write_str("all")?;
            } else {
                write!(f, "{count}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
