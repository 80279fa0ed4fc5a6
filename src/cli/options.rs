//! The options of `run` and `check`, each in one row. Flags, variables, settings, defaults, help and error messages
//! follow from the row, and the table of docker/reference.md (`make docs`).
//!
//! `device_timeout: Deadline = Duration::from_secs(60), "DURATION", "…";` is the flag `--device-timeout`, the variable
//! `CUDA_ENTRYPOINT_DEVICE_TIMEOUT` and the field [`Config::device_timeout`]. [`Deadline`] is its kind: what it may be,
//! and what it becomes. Behind the default stand the name of its value and its help, one line or more.

use std::time::Duration;

use tracing::level_filters::LevelFilter;

use crate::check::Overrides;

use super::kind::{
    Archs, Codes, Deadline, FilePath, Init, Kind, Level, Quiet, ReportPath, Span, StackChoice, StackSource,
    TerminationLog, choice, read_or,
};
use super::setting::{Setting, SettingError};
use super::smoke::SmokeChoice;
use super::table::{OptionSpec, flag_of, options};

choice! {
    /// Whether a failure keeps the service from starting.
    Mode {
        Enforce "enforce" "do not start the service when a check fails";
        Warn "warn" "report what fails, start the service anyway";
        Off "off" "start the service at once, read nothing (break-glass)";
    }
}

choice! {
    /// What the driver and the GPUs are needed for.
    Gpu {
        Required "required" "a missing driver or GPU is a failure";
        Optional "optional" "a missing driver or GPU is a warning";
        Off "off" "do not call the driver";
    }
}

choice! {
    /// How the smoke runs.
    SmokeMode {
        Separate "separate" "in a process of its own";
        Handoff "handoff" "in the service's own process, which must be Python; implies --init";
        Native "native" "without Python: each GPU computes, and the driver loads the image's kernels";
        Off "off" "not at all";
    }
}

choice! {
    /// Which of the visible GPUs the smoke runs on.
    SmokeDevices {
        First "first" "the first visible device";
        All "all" "every visible device; always the case with --receipt";
    }
}

choice! {
    /// Who reads the output.
    Format {
        Human "human" "text for people";
        Json "json" "JSON in place of a table on stdout, one object per line on stderr";
    }
}

options! {
    "startup" {
        mode: Mode = Mode::Enforce, "MODE", "";
        init: Init = None, "TARGET", "stay as PID 1 instead of exec: forward signals, reap orphaned processes";
        wait: Span = Duration::ZERO, "DURATION", "how long to retry a failure that may be temporary";
    }
    "requirements" {
        stack: StackSource = StackChoice::Default, "FILE",
            "manifest of the stack; none: run the checks that need no manifest\n\
             (default: /etc/cuda-entrypoint/stack.json if it exists, else the embedded one)";
        archs: Archs = None, "LIST",
            "compute capabilities to support, as in TORCH_CUDA_ARCH_LIST: 7.5;8.0;9.0+PTX\n\
             (default: the manifest's list)";
        gpu: Gpu = Gpu::Required, "POLICY", "";
        allow: Codes, "CODE", "report a finding as information; repeatable, or a comma-separated list";
        warn: Codes, "CODE", "report a finding as a warning";
        deny: Codes, "CODE", "report a finding as a failure";
    }
    "smoke" {
        smoke: SmokeChoice = SmokeChoice::default(), "MODE",
            "native and native=all can precede one of separate and handoff: native,handoff";
        smoke_devices: SmokeDevices = SmokeDevices::First, "WHICH", "";
        smoke_timeout: Deadline = Duration::from_secs(300), "DURATION", "deadline for each process of the smoke test";
    }
    "environment" {
        python: FilePath = None, "PATH",
            "interpreter, or folder of its environment\n\
             (default: the service command's own, else from VIRTUAL_ENV, CONDA_PREFIX or PATH)";
        device_timeout: Deadline = Duration::from_secs(60), "DURATION",
            "deadline for each call into CUDA or NVML; ten times that for all of them";
        helper_path: FilePath = None, "FILE", "run this copy of the helper, where memory files cannot be executed";
    }
    "output" {
        format: Format = Format::Human, "FORMAT", "";
        quiet: Quiet = false, "WHETHER", "";
        report: ReportPath = None, "FILE", "write the JSON report to this file; - is --format json (check only)";
        termination_log: TerminationLog = TerminationLog::Default, "FILE",
            "write the verdict to this file, at most 4096 bytes\n(default: /dev/termination-log if it exists)";
        receipt: FilePath = None, "FILE", "record passed checks in this file, and skip them at later starts";
        log: Level = LevelFilter::INFO, "LEVEL", "least severe level to log";
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn flags_are_unique_and_documented() {
        let flags: BTreeSet<&str> = OPTIONS.iter().map(|o| o.flag).collect();
        assert_eq!(flags.len(), OPTIONS.len());
        for option in OPTIONS {
            let is_explained = |words: &[crate::cli::kind::Word]| words.iter().all(|w| !w.help.is_empty());
            assert!(
                !option.help.is_empty() || is_explained(option.words),
                "{}",
                option.flag
            );
            let default = (option.default)();
            let is_word = option.words.is_empty() || option.words.iter().any(|w| w.name == default);
            assert!(is_word, "{}: {default}", option.flag);
        }
    }

    /// Its sentences may say more than the help; what can be written must be the same.
    #[test]
    fn the_reference_has_each_option_with_its_words_and_default() {
        let rows: Vec<(&str, &str)> = include_str!("../../docker/reference.md")
            .lines()
            .filter(|line| line.starts_with("| `--"))
            .filter_map(|line| line.trim_start_matches("| ").split_once(" | "))
            .collect();
        for option in OPTIONS {
            let usage = format!("`{}`", option.usage());
            let row = rows.iter().find(|(options, _)| options.contains(&usage));
            let Some((_, values)) = row else {
                panic!("docker/reference.md has no row for {usage}");
            };
            let default = (option.default)();
            let marked = match (option.words, default.as_str()) {
                (_, "") => String::new(),
                ([], default) => format!("(`{default}`)"),
                (_, default) => format!("`{default}` (default)"),
            };
            assert!(
                values.contains(&marked),
                "docker/reference.md, {usage}: no {marked}: {values}"
            );
            for word in option.words {
                let word = format!("`{}`", word.name);
                assert!(
                    values.contains(&word),
                    "docker/reference.md, {usage}: no {word}: {values}"
                );
            }
        }
        let written: usize = rows
            .iter()
            .map(|(options, _)| options.matches("`--").count())
            .sum();
        assert_eq!(
            written,
            OPTIONS.len(),
            "docker/reference.md has a row of an option that is not there"
        );
    }
}
