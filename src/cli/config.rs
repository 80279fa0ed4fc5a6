//! Settings as values. All of them are parsed, and contradictions found, before any check begins.

use tracing::level_filters::LevelFilter;

use crate::check::{Code, Overrides, Severity};
use crate::process::init::SignalTarget;

use super::kind::{Codes, read};
use super::options::OPTION;
use super::setting::{Origin, Setting};

pub use super::kind::{ReportTarget, StackChoice, TerminationLog};
pub use super::options::{Config, Format, Gpu, Mode, Settings, SmokeDevices, SmokeMode};
pub use super::setting::SettingError;
pub use super::smoke::SmokeChoice;

/// The mode alone, wrong values of it left to [`Config::from_settings`]: `off` must work whatever else is broken.
pub fn is_off(settings: &Settings) -> bool {
    settings.mode() == Ok(Mode::Off)
}

/// The mode alone, as [`is_off`] takes it.
pub fn is_warn(settings: &Settings) -> bool {
    settings.mode() == Ok(Mode::Warn)
}

/// `--init`, whatever else is wrong; an invalid value counts as none.
pub fn init_or_exec(settings: &Settings) -> Option<SignalTarget> {
    settings.init().unwrap_or_default()
}

/// How to log, whatever else is wrong; an invalid value counts as the default.
pub fn logging(settings: &Settings) -> (LevelFilter, Format) {
    let default = Config::default();
    (
        settings.log().unwrap_or(default.log),
        settings.format().unwrap_or(default.format),
    )
}

/// `--report -` of `check` is `--format json`, unless that says something else.
pub(super) fn report_on_stdout_is_a_format(settings: &mut Settings) {
    if matches!(settings.report(), Ok(Some(ReportTarget::Stdout))) {
        let origin = Origin::Flag(OPTION.report.flag);
        let value = "json".into();
        settings.format.insert(0, Setting { value, origin });
    }
}

/// `--format`, for a command that takes no more than it.
///
/// # Errors
/// As [`Config::from_settings`], for this setting alone.
pub fn format(settings: &Settings) -> Result<Format, SettingError> {
    settings.format()
}

/// What `stack show` needs: the manifest and how it is printed.
///
/// # Errors
/// As [`Config::from_settings`], for these two settings alone.
pub fn shown_stack(settings: &Settings) -> Result<(StackChoice, Format), SettingError> {
    Ok((settings.stack()?, format(settings)?))
}

/// The mode as it was written, for who wonders where `off` comes from.
pub fn origin_of_mode(settings: &Settings) -> Option<&Origin> {
    settings.mode.last().map(|mode| &mode.origin)
}

/// Where a verdict goes, whatever else is wrong.
pub fn termination_log(settings: &Settings) -> TerminationLog {
    settings.termination_log().unwrap_or(TerminationLog::Default)
}

impl Default for SmokeMode {
    fn default() -> Self {
        SmokeChoice::default().mode
    }
}

impl Config {
    /// Parses every setting.
    ///
    /// # Errors
    /// The first that is invalid.
    pub fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        let mut config = settings.values()?;
        // A receipt counts wherever any of the proven GPUs is visible, so that none of them may be left out.
        if config.receipt.is_some() {
            config.smoke_devices = SmokeDevices::All;
        }
        config.overrides = overrides(settings)?;
        Ok(config)
    }
}

/// A code's flag beats its variable; of two flags on one code the last counts within one severity, and the milder
/// never hides a `--deny`: the order of evaluation is allow, warn, deny.
fn overrides(settings: &Settings) -> Result<Overrides, SettingError> {
    let mut overrides = Overrides::default();
    for from_flags in [false, true] {
        for (all, severity) in [
            (&settings.allow, Severity::Info),
            (&settings.warn, Severity::Warn),
            (&settings.deny, Severity::Fail),
        ] {
            let is_wanted = |setting: &&Setting| matches!(setting.origin, Origin::Flag(_)) == from_flags;
            for setting in all.iter().filter(is_wanted) {
                let codes: Vec<Code> = read::<Codes>(setting)?;
                overrides.0.extend(codes.into_iter().map(|code| (code, severity)));
            }
        }
    }
    Ok(overrides)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::time::Duration;

    use super::*;
    use crate::cli::options::OPTIONS;

    fn config(line: &str, variables: &[(&str, &str)]) -> Result<Config, SettingError> {
        let variables = variables
            .iter()
            .map(|(n, v)| (OsString::from(n), OsString::from(v)));
        let words = format!("run {line} -- x");
        let parsed = crate::cli::parse(words.split_whitespace().map(OsString::from), variables).unwrap();
        Config::from_settings(&parsed.settings)
    }

    #[test]
    fn defaults_are_those_of_the_help() {
        let config = config("", &[]).unwrap();
        assert_eq!(
            (config.mode, config.gpu, config.smoke.mode),
            (Mode::Enforce, Gpu::Required, SmokeMode::Separate)
        );
        assert_eq!(
            (config.wait, config.device_timeout),
            (Duration::ZERO, Duration::from_secs(60))
        );
        assert_eq!(config, Config::default());
        for option in OPTIONS {
            let default = (option.default)();
            if !default.is_empty() {
                let line = format!("--{}={default}", option.flag);
                assert_eq!(super::tests::config(&line, &[]).unwrap(), config, "{line}");
            }
        }
    }

    #[test]
    fn wrong_values_say_whose_they_are() {
        for (line, variables, code, part) in [
            ("--mode of", &[][..], 64, "did you mean `off`?"),
            ("--mode OFF", &[][..], 64, "did you mean `off`?"),
            (
                "",
                &[("CUDA_ENTRYPOINT_MODE", "enforced")][..],
                78,
                "did you mean `enforce`?",
            ),
            ("--wait 60", &[], 64, "did you mean 60s?"),
            ("--wait soon", &[], 64, "500ms"),
            ("--device-timeout 0s", &[], 64, "would expire at once"),
            ("--device-timeout 2000000years", &[], 64, ""),
            ("--archs 7,5", &[], 64, ""),
            ("--allow cudart-verison", &[], 64, "explain lists"),
            (
                "",
                &[("CUDA_ENTRYPOINT_DENY", "shm-small, nonsense")],
                78,
                "explain lists",
            ),
            ("--init=5", &[], 64, "expected off, on, service or group"),
            (
                "",
                &[("CUDA_ENTRYPOINT_INIT", "maybe")],
                78,
                "CUDA_ENTRYPOINT_INIT",
            ),
            ("--receipt=", &[], 64, "or omit it"),
            ("--stack=", &[], 64, "or omit it"),
        ] {
            let error = config(line, variables).expect_err(line);
            assert_eq!(error.exit_code(), code, "{line}: {error}");
            assert!(
                format!("{error} {}", error.hint).contains(part),
                "{line}: {error} / {}",
                error.hint
            );
        }
    }

    #[test]
    fn init_is_a_flag_that_may_say_to_whom_signals_go() {
        let service = Some(SignalTarget::Service);
        for (line, variable, expected) in [
            ("", "", None),
            ("", "0", None),
            ("", "False", None),
            ("", "1", service),
            ("", "TRUE", service),
            ("", "group", Some(SignalTarget::Group)),
            ("--init", "", service),
            ("--init", "off", service),
            ("--init=off", "1", None),
            ("--init=service", "", service),
            ("--init=group", "1", Some(SignalTarget::Group)),
        ] {
            let variables = [("CUDA_ENTRYPOINT_INIT", variable)];
            assert_eq!(
                config(line, &variables).unwrap().init,
                expected,
                "{line} {variable}"
            );
        }
        // A word after it begins the command.
        let words = ["run", "--init", "service"].map(OsString::from);
        let parsed = crate::cli::parse(words, []).unwrap();
        let service = vec![OsString::from("service")];
        assert_eq!(parsed.command, crate::cli::Command::Run { service });
    }

    #[test]
    fn flags_override_variables_code_by_code() {
        let set = [
            ("CUDA_ENTRYPOINT_ALLOW", "shm-small,gpu-missing"),
            ("CUDA_ENTRYPOINT_DENY", "memlock-low"),
        ];
        let overrides = config("--deny shm-small --warn memlock-low", &set)
            .unwrap()
            .overrides
            .0;
        assert_eq!(overrides.get(&Code::ShmSmall), Some(&Severity::Fail));
        assert_eq!(overrides.get(&Code::GpuMissing), Some(&Severity::Info));
        assert_eq!(overrides.get(&Code::MemlockLow), Some(&Severity::Warn));
    }
}
