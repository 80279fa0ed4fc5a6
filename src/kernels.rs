//! The `kernels` subcommand.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::PathBuf;

use crate::discover::kernels::{KernelTable, Scanned, scan_all};
use crate::discover::reading::Reading;
use crate::exit_code::ExitCode;
use crate::facts::ComputeCapability;
use crate::report::kernels::{KernelsReport, ScanError, human, json as write_json};
use crate::report::progress;
use crate::text::sanitize;
use crate::text::{counted, verb};

/// Scans `paths` and prints what they carry on `out`, with what serves each of `devices`; what could not be read is
/// said on `err`, a line each, and how many files of other kinds were passed over in one more. `watched`: somebody at a terminal sees what is being read, if it takes long. Returns the exit code: 0, or 81 where something could not be read.
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
        writeln!(err, "{}", sanitize(&error.message))?;
    }
    if let Some(line) = empty(&scanned.empty) {
        writeln!(err, "{}", sanitize(&line))?;
    }
    if let Some(line) = unread(&scanned) {
        writeln!(err, "{line}")?;
    }
    Ok(if report.errors.is_empty() {
        0
    } else {
        // Unreadable or damaged files are the image's fault.
        ExitCode::Image.code()
    })
}

/// Libraries without content, of which the first is named.
fn empty(paths: &[PathBuf]) -> Option<String> {
    let first = paths.first()?.display();
    Some(format!(
        "{} {} empty (0 bytes), such as {first}: check how it was copied into the image",
        counted(paths.len(), "library"),
        verb(paths.len(), "is", "are")
    ))
}

/// What was passed over in folders, so that silence is not taken for "no CUDA code".
fn unread(scanned: &Scanned) -> Option<String> {
    let count: usize = scanned.unread.values().map(HashSet::len).sum();
    let kinds: Vec<String> = scanned
        .unread
        .iter()
        .map(|(kind, files)| format!("{kind} {}", files.len()))
        .collect();
    let files = match count {
        0 => return None,
        _ => format!(
            "{} that may hold CUDA code {} not read",
            counted(count, "file"),
            verb(count, "was", "were")
        ),
    };
    Some(format!(
        "{files} ({}): in a folder only *.so and *.so.* are",
        kinds.join(", ")
    ))
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

    fn run_in(folder: &std::path::Path, json: bool) -> (u8, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(&[folder.to_path_buf()], &[], json, false, &mut out, &mut err).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (code, text(out), text(err))
    }

    #[test]
    fn a_library_that_a_folder_has_by_a_link_alone_is_read() {
        let (outside, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let target = outside.path().join("built");
        std::fs::write(&target, library(&[container(&[Entry::sass(80, true)])])).unwrap();
        for name in ["libone.so", "libone.so.1"] {
            std::os::unix::fs::symlink(&target, dir.path().join(name)).unwrap();
        }
        let (code, out, err) = run_in(dir.path(), false);
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.contains("libone.so\n  fatbins  1, 1 with kernels"), "{out}");
        assert_eq!(out.matches("fatbins").count(), 1, "one file is read once: {out}");
    }

    #[test]
    fn an_empty_library_of_a_folder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("libtorch.so"), "").unwrap();
        let (code, _, err) = run_in(dir.path(), false);
        assert_eq!(code, 0);
        assert!(err.starts_with("1 library is empty (0 bytes), such as "), "{err}");
        assert!(err.contains("libtorch.so"), "{err}");
    }

    #[test]
    fn files_that_a_folder_is_not_searched_for_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "x.a",
            "y.a",
            "z.fatbin",
            "k.cubin",
            "k.ptx",
            "o.o",
            "notes.txt",
            "m.py",
        ] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let (code, out, err) = run_in(dir.path(), false);
        assert_eq!((code, out.as_str()), (0, "no library with CUDA code\n"));
        assert_eq!(
            err,
            "6 files that may hold CUDA code were not read (.a 2, .cubin 1, .fatbin 1, .o 1, .ptx 1): in a folder only \
             *.so and *.so.* are\n"
        );
        let (code, out, _) = run_in(dir.path(), true);
        assert_eq!((code, out.as_str()), (0, "{\n  \"files\": []\n}\n"));
        std::fs::remove_file(dir.path().join("y.a")).unwrap();
        for name in ["z.fatbin", "k.cubin", "k.ptx", "o.o"] {
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }
        let one = run_in(dir.path(), false).2;
        assert!(
            one.starts_with("1 file that may hold CUDA code was not read (.a 1): "),
            "{one}"
        );
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
