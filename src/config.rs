//! Settings made sense of: every value parsed, every contradiction found, before anything is looked at.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use crate::arch::ArchList;
use crate::check::{Code, Overrides, Severity};
use crate::cli::{Origin, Setting, Settings};
use crate::init::Whom;
use crate::nearest;

/// Whether a failure keeps the service from starting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// it does
    Enforce,
    /// it is reported, and the service starts
    Warn,
    /// nothing is looked at
    Off,
}

/// What is asked of the driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gpu {
    /// a driver and a GPU must be there
    Required,
    /// without one there is a warning
    Optional,
    /// nothing
    Off,
}

/// How the smoke runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SmokeMode {
    /// in a process of its own
    #[default]
    Separate,
    /// in the service's own process
    Handoff,
    /// not at all
    Off,
}

/// Which of the visible GPUs the smoke runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SmokeDevices {
    /// the first
    First,
    /// each of them
    All,
}

/// How people are spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// lines for people
    Human,
    /// one JSON object a line
    Json,
}

/// Where the JSON report goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReportTarget {
    /// standard output, for `check`
    Stdout,
    /// a file
    File(PathBuf),
}

/// Where the verdict goes for whoever reads termination messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TerminationLog {
    /// /dev/termination-log, if it exists
    Default,
    /// as given; made where it does not exist
    File(PathBuf),
}

/// All settings of `run` and `check`.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// whether failures count
    pub mode: Mode,
    /// `--stack`
    pub stack: Option<PathBuf>,
    /// what is asked of the driver
    pub gpu: Gpu,
    /// how the smoke runs
    pub smoke: SmokeMode,
    /// where it runs
    pub smoke_devices: SmokeDevices,
    /// deadline of the smoke, from when the stages before it are over
    pub smoke_timeout: Duration,
    /// `--archs`, before which the manifest's stands back
    pub archs: Option<ArchList>,
    /// `--python`
    pub python: Option<PathBuf>,
    /// how long to keep trying
    pub wait: Duration,
    /// deadline of the helper's runs
    pub device_timeout: Duration,
    /// `--report`
    pub report: Option<ReportTarget>,
    /// people or machines
    pub format: Format,
    /// where the verdict goes
    pub termination_log: TerminationLog,
    /// severities of single findings
    pub overrides: Overrides,
    /// `--init`, and to whom signals go; `None` becomes the service
    pub init: Option<Whom>,
    /// `--helper-path`
    pub helper_path: Option<PathBuf>,
    /// `--receipt`
    pub receipt: Option<PathBuf>,
    /// how much is logged
    pub log: LevelFilter,
}

/// A value that makes no sense. A flag's is exit 64, a variable's 78.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{origin}: {message}")]
pub struct SettingError {
    /// where it was written
    pub origin: Origin,
    /// what was wrong with it
    pub message: String,
    /// what to write instead
    pub hint: String,
}

impl SettingError {
    /// As [`Origin::exit_code`].
    pub fn exit_code(&self) -> u8 {
        self.origin.exit_code()
    }
}

fn wrong(setting: &Setting, message: impl Into<String>, hint: impl Into<String>) -> SettingError {
    SettingError {
        origin: setting.origin.clone(),
        message: message.into(),
        hint: hint.into(),
    }
}

/// The mode alone, wrong values of it left to [`Config::from_settings`]: `off` must work whatever else is broken.
pub fn is_off(settings: &Settings) -> bool {
    settings.get("mode").is_some_and(|s| s.value == "off")
}

/// The mode alone, as [`is_off`] takes it.
pub fn is_warn(settings: &Settings) -> bool {
    settings.get("mode").is_some_and(|s| s.value == "warn")
}

/// `--init`, whatever else is wrong; what makes no sense here is taken for its absence.
pub fn init_or_exec(settings: &Settings) -> Option<Whom> {
    init(settings).unwrap_or(None)
}

fn init(settings: &Settings) -> Result<Option<Whom>, SettingError> {
    let Some(setting) = settings.get("init") else {
        return Ok(None);
    };
    let given = setting.value.to_string_lossy();
    match given.to_ascii_lowercase().as_str() {
        "0" | "false" | "no" | "off" => Ok(None),
        "1" | "true" | "yes" | "on" | "service" => Ok(Some(Whom::Service)),
        "group" => Ok(Some(Whom::Group)),
        _ => Err(wrong(
            setting,
            format!("`{given}` is none of off, on, group, service"),
            "on and service pass signals on to the service alone, group to its whole process group",
        )),
    }
}

/// How to log, whatever else is wrong; what makes no sense here is taken for the default.
pub fn logging(settings: &Settings) -> (LevelFilter, Format) {
    (
        choice(settings, "log", LEVELS).unwrap_or(LevelFilter::INFO),
        choice(settings, "format", FORMATS).unwrap_or(Format::Human),
    )
}

/// What `stack show` needs: the manifest's path and whether it is printed as JSON.
///
/// # Errors
/// As [`Config::from_settings`], for these two settings alone.
pub fn shown_stack(settings: &Settings) -> Result<(Option<PathBuf>, Format), SettingError> {
    Ok((path(settings, "stack")?, choice(settings, "format", FORMATS)?))
}

/// Where a verdict goes, whatever else is wrong.
pub fn termination_log(settings: &Settings) -> TerminationLog {
    match path(settings, "termination-log") {
        Ok(Some(path)) => TerminationLog::File(path),
        Ok(None) | Err(_) => TerminationLog::Default,
    }
}

const FORMATS: &[(&str, Format)] = &[("human", Format::Human), ("json", Format::Json)];

const LEVELS: &[(&str, LevelFilter)] = &[
    ("info", LevelFilter::INFO),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

impl Config {
    /// Parses every setting.
    ///
    /// # Errors
    /// The first that makes no sense.
    pub fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        Ok(Self {
            mode: choice(
                settings,
                "mode",
                &[
                    ("enforce", Mode::Enforce),
                    ("warn", Mode::Warn),
                    ("off", Mode::Off),
                ],
            )?,
            stack: path(settings, "stack")?,
            gpu: choice(
                settings,
                "gpu",
                &[
                    ("required", Gpu::Required),
                    ("optional", Gpu::Optional),
                    ("off", Gpu::Off),
                ],
            )?,
            smoke: choice(
                settings,
                "smoke",
                &[
                    ("separate", SmokeMode::Separate),
                    ("handoff", SmokeMode::Handoff),
                    ("off", SmokeMode::Off),
                ],
            )?,
            smoke_devices: smoke_devices(settings)?,
            smoke_timeout: deadline(settings, "smoke-timeout", Duration::from_secs(300))?,
            archs: archs(settings)?,
            python: path(settings, "python")?,
            wait: duration(settings, "wait", Duration::ZERO)?,
            device_timeout: deadline(settings, "device-timeout", Duration::from_secs(60))?,
            report: path(settings, "report")?.map(|p| {
                if p.as_os_str() == "-" {
                    ReportTarget::Stdout
                } else {
                    ReportTarget::File(p)
                }
            }),
            format: choice(settings, "format", FORMATS)?,
            termination_log: path(settings, "termination-log")?
                .map_or(TerminationLog::Default, TerminationLog::File),
            overrides: overrides(settings)?,
            init: init(settings)?,
            helper_path: path(settings, "helper-path")?,
            receipt: path(settings, "receipt")?,
            log: choice(settings, "log", LEVELS)?,
        })
    }
}

/// A receipt counts wherever any of the proven GPUs is visible, so that none of them may be left out.
fn smoke_devices(settings: &Settings) -> Result<SmokeDevices, SettingError> {
    let words = [("first", SmokeDevices::First), ("all", SmokeDevices::All)];
    let chosen = choice(settings, "smoke-devices", &words)?;
    let has_receipt = settings.get("receipt").is_some();
    Ok(if has_receipt { SmokeDevices::All } else { chosen })
}

/// One of a few words; the first is the default.
fn choice<T: Copy>(settings: &Settings, flag: &str, words: &[(&str, T)]) -> Result<T, SettingError> {
    let Some(setting) = settings.get(flag) else {
        return words.first().map(|w| w.1).ok_or_else(|| SettingError {
            origin: Origin::Variable(flag.to_string()),
            message: "no value is known".to_string(),
            hint: String::new(),
        });
    };
    let given = setting.value.to_string_lossy();
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == given) {
        return Ok(*value);
    }
    let all: Vec<&str> = words.iter().map(|w| w.0).collect();
    let default = all.first().copied().unwrap_or_default();
    let hint = nearest(&given.to_lowercase(), all.iter().copied()).map_or_else(
        || format!("write one of these, or leave it out for {default}"),
        |word| format!("did you mean `{word}`?"),
    );
    Err(wrong(
        setting,
        format!("`{given}` is none of {}", all.join(", ")),
        hint,
    ))
}

fn path(settings: &Settings, flag: &str) -> Result<Option<PathBuf>, SettingError> {
    match settings.get(flag) {
        Some(setting) if setting.value.is_empty() => {
            Err(wrong(setting, "the path is empty", "leave it out for none"))
        }
        Some(setting) => Ok(Some(PathBuf::from(&setting.value))),
        None => Ok(None),
    }
}

fn duration(settings: &Settings, flag: &str, default: Duration) -> Result<Duration, SettingError> {
    let Some(setting) = settings.get(flag) else {
        return Ok(default);
    };
    let given = setting.value.to_string_lossy();
    let parsed = humantime::parse_duration(&given).map_err(|error| {
        let bare = !given.is_empty() && given.bytes().all(|b| b.is_ascii_digit());
        let hint = if bare {
            format!("did you mean {given}s?")
        } else {
            "write 500ms, 90s, 5m or 1h30m".to_string()
        };
        wrong(setting, format!("`{given}` is no duration: {error}"), hint)
    })?;
    // A deadline further off than this cannot be told from none, and would overflow a clock.
    if parsed > Duration::from_secs(365 * 24 * 3600) {
        return Err(wrong(
            setting,
            format!("`{given}` is longer than a year"),
            "write 500ms, 90s, 5m or 1h30m",
        ));
    }
    Ok(parsed)
}

fn deadline(settings: &Settings, flag: &str, default: Duration) -> Result<Duration, SettingError> {
    let parsed = duration(settings, flag, default)?;
    match settings.get(flag) {
        Some(setting) if parsed.is_zero() => Err(wrong(
            setting,
            "a deadline of nothing always passes",
            "write how long it may take, such as 60s",
        )),
        _ => Ok(parsed),
    }
}

fn archs(settings: &Settings) -> Result<Option<ArchList>, SettingError> {
    let Some(setting) = settings.get("archs") else {
        return Ok(None);
    };
    let given = setting.value.to_string_lossy();
    ArchList::from_str(&given)
        .map(Some)
        .map_err(|error| wrong(setting, error.to_string(), "such as 7.5;8.0;8.6;8.9;9.0"))
}

/// A code's flag beats its variable; of two flags on one code the last counts within one severity, and the milder
/// never hides a `--deny`: the order of evaluation is allow, warn, deny.
fn overrides(settings: &Settings) -> Result<Overrides, SettingError> {
    let mut overrides = Overrides::default();
    for from_flags in [false, true] {
        for (flag, severity) in [
            ("allow", Severity::Info),
            ("warn", Severity::Warn),
            ("deny", Severity::Fail),
        ] {
            let all = settings.0.get(flag).map(Vec::as_slice).unwrap_or_default();
            for setting in all
                .iter()
                .filter(|s| matches!(s.origin, Origin::Flag(_)) == from_flags)
            {
                for code in codes(setting)? {
                    overrides.0.insert(code, severity);
                }
            }
        }
    }
    Ok(overrides)
}

fn codes(setting: &Setting) -> Result<Vec<Code>, SettingError> {
    let list: &OsString = &setting.value;
    list.to_string_lossy()
        .split([',', ' '])
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| {
            name.parse::<Code>().map_err(|e| {
                wrong(
                    setting,
                    e.to_string(),
                    "cuda-entrypoint explain lists the findings",
                )
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (config.mode, config.gpu, config.smoke),
            (Mode::Enforce, Gpu::Required, SmokeMode::Separate)
        );
        assert_eq!(
            (config.wait, config.device_timeout),
            (Duration::ZERO, Duration::from_secs(60))
        );
        for option in crate::cli::OPTIONS.iter().filter(|o| !o.default.is_empty()) {
            let line = format!("--{} {}", option.flag, option.default);
            assert_eq!(super::tests::config(&line, &[]).unwrap(), config, "{line}");
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
            ("--device-timeout 0s", &[], 64, "such as 60s"),
            ("--device-timeout 2000000years", &[], 64, ""),
            ("--archs 7,5", &[], 64, ""),
            ("--allow cudart-verison", &[], 64, "explain lists"),
            (
                "",
                &[("CUDA_ENTRYPOINT_DENY", "shm-small, nonsense")],
                78,
                "explain lists",
            ),
            ("--init=5", &[], 64, "none of off, on, group, service"),
            ("", &[("CUDA_ENTRYPOINT_INIT", "maybe")], 78, "service alone"),
            ("--receipt=", &[], 64, "leave it out"),
            ("--stack=", &[], 64, "leave it out"),
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
        let service = Some(Whom::Service);
        for (line, variable, expected) in [
            ("", "", None),
            ("", "0", None),
            ("", "False", None),
            ("", "1", service),
            ("", "TRUE", service),
            ("", "group", Some(Whom::Group)),
            ("--init", "", service),
            ("--init", "off", service),
            ("--init=off", "1", None),
            ("--init=service", "", service),
            ("--init=group", "1", Some(Whom::Group)),
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
