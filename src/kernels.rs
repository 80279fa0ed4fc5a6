//! The `kernels` subcommand.

use std::io::{self, Write};
use std::path::PathBuf;

use crate::discover::kernels::{KernelTable, scan_all};
use crate::discover::reading::Reading;
use crate::facts::ComputeCapability;
use crate::report::kernels::{KernelsReport, Printable, ScanError, human, json as write_json};
use crate::report::progress;

/// Exit code where something could not be read or is damaged: the image's fault.
const UNREADABLE: u8 = 81;

/// Scans `paths` and prints what they carry on `out`, with what serves each of `devices`; what could not be read is
/// said on `err`, a line each. `watched`: somebody at a terminal sees what is being read, if it takes long. Returns the exit code: 0, or 81 where something could not be read.
///
/// # Errors
/// Those of `out` and `err`.
pub fn run(
    paths: &[PathBuf],
    devices: &[ComputeCapability],
    json: bool,
    watched: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<u8> {
    let reading = Reading::new(watched);
    let what = || progress::reading(&reading);
    let scanned = progress::beside(watched, what, || scan_all(paths, &reading));
    let report = KernelsReport {
        files: scanned
            .tables
            .iter()
            .map(|t: &KernelTable| t.counts(devices))
            .collect(),
        errors: scanned
            .errors
            .iter()
            .map(|error| ScanError {
                path: error.path.to_string_lossy().into_owned(),
                message: error.to_string(),
            })
            .collect(),
    };
    if json {
        write_json(&report, out)?;
    } else {
        human(&report, out)?;
    }
    for error in &report.errors {
        writeln!(err, "{}", Printable(&error.message))?;
    }
    Ok(if report.errors.is_empty() { 0 } else { UNREADABLE })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::testing::{Entry, container, library};

    fn run_on(names: &[&str], json: bool) -> (u8, String, String) {
        let dir = tempfile::tempdir().unwrap();
        let bytes = library(&[container(&[Entry::sass(80, true)])]);
        std::fs::write(dir.path().join("good.so"), &bytes).unwrap();
        std::fs::write(dir.path().join("bad\x1b.so"), &bytes[..100]).unwrap();
        let paths: Vec<_> = names.iter().map(|n| dir.path().join(n)).collect();
        let devices = [ComputeCapability { major: 8, minor: 0 }];
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(&paths, &devices, json, false, &mut out, &mut err).unwrap();
        (
            code,
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        )
    }

    #[test]
    fn a_damaged_file_is_an_error_and_the_others_are_shown() {
        let (code, out, err) = run_on(&["bad\x1b.so", "good.so"], false);
        assert_eq!(code, 81);
        assert!(out.contains("good.so\n  fatbins  1, 1 with kernels"), "{out}");
        assert_eq!(err.lines().count(), 1);
        assert!(err.contains("bad\\u{1b}.so: damaged ELF file: "), "{err}");
        assert_eq!(run_on(&[""], false).0, 81, "a folder is scanned likewise");
    }

    #[test]
    fn json_has_its_shape() {
        let (code, out, err) = run_on(&["good.so"], true);
        assert_eq!((code, err.as_str()), (0, ""));
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        let mut file = value["files"][0].clone();
        file["path"].take();
        let expected = serde_json::json!({
            "path": null, "fatbins": 1, "with_kernels": 1,
            "sass": {"8.0": 1}, "ptx": {}, "served": {"8.0": {"sass": 1, "ptx": 0}},
        });
        assert_eq!(file, expected);
        assert_eq!(value.as_object().unwrap().len(), 1);
    }
}
