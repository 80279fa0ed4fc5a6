//! The command line as it was written: flags and variables, raw. [`crate::config`] makes sense of it.
//!
//! One table, [`OPTIONS`], is the source of the flags, their `CUDA_ENTRYPOINT_…` variables, the help text and the
//! near-miss warnings, so that they cannot drift apart.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use lexopt::{Arg, ValueExt};

use crate::nearest;

/// Prefix of every variable.
pub const PREFIX: &str = "CUDA_ENTRYPOINT_";

/// An option of `run` and `check`.
#[derive(Debug)]
pub struct OptionSpec {
    /// flag without its dashes; the variable is [`PREFIX`] and this in upper case with `_`
    pub flag: &'static str,
    /// what the value is called in the help; empty for a flag that needs none
    pub value: &'static str,
    /// heading in the help
    pub group: &'static str,
    /// help, one line or more
    pub help: &'static str,
    /// default as shown; empty for none
    pub default: &'static str,
}

impl OptionSpec {
    /// The variable without [`PREFIX`], such as `DEVICE_TIMEOUT`.
    pub fn variable(&self) -> String {
        self.flag.to_ascii_uppercase().replace('-', "_")
    }
}

macro_rules! options {
    ($($group:literal: { $($flag:literal $value:literal $default:literal $help:literal;)* })*) => {
        /// All options, in the order of the help.
        pub const OPTIONS: &[OptionSpec] = &[$($(
            OptionSpec { flag: $flag, value: $value, group: $group, default: $default, help: $help },
        )*)*];
    };
}

options! {
    "What happens": {
        "mode" "MODE" "enforce" "enforce: a failure keeps the service from starting\nwarn: check, report, start the service anyway\noff: start at once, read nothing (break-glass)";
        "init" "" "" "stay as PID 1 instead of exec: pass signals on, reap orphans\n--init=group: signals to the service's whole process group; --init=off: exec";
        "wait" "DURATION" "0s" "keep trying for this long while what failed can mend itself";
    }
    "What must be true": {
        "stack" "FILE" "" "manifest of the stack (default: /etc/cuda-entrypoint/stack.json, else the embedded one)";
        "archs" "LIST" "" "compute capabilities to support, as in TORCH_CUDA_ARCH_LIST: 7.5;8.0;9.0+PTX\n(default: the manifest's)";
        "gpu" "POLICY" "required" "required: no driver or no GPU is a failure\noptional: it is a warning\noff: nothing is asked of the driver";
        "allow" "CODE" "" "make a finding information only; repeatable, or a comma list";
        "warn" "CODE" "" "make a finding a warning";
        "deny" "CODE" "" "make a finding a failure";
    }
    "The smoke": {
        "smoke" "MODE" "separate" "separate: in a process of its own\nhandoff: in the service's own, which must be Python\noff: not at all";
        "smoke-devices" "WHICH" "first" "first or all visible devices; always all with a receipt";
        "smoke-timeout" "DURATION" "300s" "deadline of the smoke";
    }
    "Where to look": {
        "python" "PATH" "" "interpreter or environment folder\n(default: the service command's own, VIRTUAL_ENV, CONDA_PREFIX, PATH)";
        "device-timeout" "DURATION" "60s" "deadline of everything that is asked of CUDA libraries and the driver";
        "helper-path" "FILE" "" "run this copy of the helper, where a memory file may not be executed";
    }
    "What is said": {
        "format" "FORMAT" "human" "human\njson: one object a line on stderr, and check prints its report as JSON";
        "report" "FILE" "" "write the JSON report here; - is stdout, for check";
        "termination-log" "FILE" "" "write the verdict here, at most 4096 bytes\n(default: /dev/termination-log if it exists)";
        "receipt" "FILE" "" "where passes are recorded and recognised";
        "log" "LEVEL" "info" "error, warn, info, debug or trace";
    }
}

/// Where a setting was written; a wrong flag is the caller's, a wrong variable the deployment's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// `--mode`
    Flag(&'static str),
    /// `CUDA_ENTRYPOINT_MODE`
    Variable(String),
}

impl Origin {
    /// 64 where the caller wrote a flag, 78 where a deployment set a variable.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Flag(_) => 64,
            Self::Variable(_) => 78,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// One setting as written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// its value; `on` for a flag without one
    pub value: OsString,
    /// where it was written
    pub origin: Origin,
}

/// All settings as written: what a flag says comes after what a variable says, so that the last one counts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings(pub BTreeMap<&'static str, Vec<Setting>>);

impl Settings {
    /// The setting that counts.
    pub fn get(&self, flag: &str) -> Option<&Setting> {
        self.0.get(flag).and_then(|all| all.last())
    }
}

/// Stages that `check --stage` knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StageChoice {
    /// files of the image
    Image,
    /// driver, GPUs and architecture
    Device,
    /// the smoke alone
    Smoke,
    /// everything
    All,
    /// NVML and the device nodes, not CUDA
    Health,
}

/// What was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// check, then become the service
    Run {
        /// the service's argv; empty when none was given
        service: Vec<OsString>,
    },
    /// check, print, exit
    Check {
        /// which stage
        stage: StageChoice,
        /// a service command after `--`, to find its interpreter
        service: Vec<OsString>,
    },
    /// architectures in libraries
    Kernels {
        /// `--archs`
        archs: Option<OsString>,
        /// `--json`
        json: bool,
        /// files and folders
        paths: Vec<OsString>,
    },
    /// the page of a finding, or the list
    Explain(Option<String>),
    /// the manifest in force
    StackShow {
        /// `--json`
        json: bool,
    },
    /// a manifest made from this environment
    StackCapture {
        /// a service command after `--`, to find its interpreter
        service: Vec<OsString>,
    },
    /// a JSON Schema
    Schema(SchemaOf),
    /// this binary and its helper as files
    Install(OsString),
    /// help for a command, or for the whole
    Help(Option<&'static str>),
    /// name and version
    Version,
}

/// Which schema.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SchemaOf {
    /// of the manifest
    Stack,
    /// of the report
    Report,
}

/// The command line and the variables together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invocation {
    /// what was asked for
    pub command: Command,
    /// with which settings
    pub settings: Settings,
    /// variables that look like a misspelt one of ours, with what was probably meant
    pub near_misses: Vec<(String, String)>,
}

/// A command line that makes no sense: exit 64.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct UsageError {
    /// what was wrong
    pub message: String,
    /// what to write instead
    pub hint: String,
}

impl UsageError {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: hint.into(),
        }
    }
}

/// Commands by name.
const COMMANDS: [&str; 8] = [
    "run", "check", "kernels", "explain", "stack", "schema", "install", "help",
];

/// Reads arguments (without argv\[0\]) and variables.
///
/// # Errors
/// [`UsageError`] for what is not in the grammar; values are judged later, by [`crate::config`].
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Invocation, UsageError> {
    let (mut settings, near_misses) = from_variables(variables);
    let mut parser = lexopt::Parser::from_args(args);
    let command = match next(&mut parser)? {
        None => {
            return Err(UsageError::new(
                "no command was given",
                "cuda-entrypoint --help lists them",
            ));
        }
        Some(Arg::Short('h') | Arg::Long("help")) => Command::Help(None),
        Some(Arg::Short('V') | Arg::Long("version")) => Command::Version,
        Some(Arg::Value(name)) => match name.to_str().unwrap_or_default() {
            "run" => run(&mut parser, &mut settings)?,
            "check" => check(&mut parser, &mut settings)?,
            "kernels" => kernels(&mut parser)?,
            "explain" => explain(&mut parser)?,
            "stack" => stack(&mut parser, &mut settings)?,
            "schema" => schema(&mut parser)?,
            "install" => install(&mut parser)?,
            "help" => help(&mut parser)?,
            _ => return Err(unknown_command(&name)),
        },
        Some(Arg::Long(flag)) if OPTIONS.iter().any(|o| o.flag == flag) => {
            let hint = format!("cuda-entrypoint run --{flag} … -- COMMAND");
            return Err(UsageError::new(
                format!("--{flag} stands before the command"),
                hint,
            ));
        }
        Some(other) => return Err(unexpected(&other, &[])),
    };
    Ok(Invocation {
        command,
        settings,
        near_misses,
    })
}

fn next<'a>(parser: &'a mut lexopt::Parser) -> Result<Option<Arg<'a>>, UsageError> {
    parser
        .next()
        .map_err(|e| UsageError::new(e.to_string(), "cuda-entrypoint --help"))
}

fn unknown_command(name: &OsStr) -> UsageError {
    let name = name.to_string_lossy();
    let hint = match nearest(&name, COMMANDS) {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!(
            "to start a service: cuda-entrypoint run -- {name} …; cuda-entrypoint --help lists the commands"
        ),
    };
    UsageError::new(format!("`{name}` is no command of cuda-entrypoint"), hint)
}

fn unexpected(arg: &Arg<'_>, known: &[&'static str]) -> UsageError {
    match arg {
        Arg::Long(flag) => {
            let hint = nearest(flag, known.iter().copied()).map_or_else(
                || "cuda-entrypoint COMMAND --help lists the options of a command".to_string(),
                |k| format!("did you mean --{k}?"),
            );
            UsageError::new(format!("there is no option --{flag}"), hint)
        }
        Arg::Short(flag) => UsageError::new(format!("there is no option -{flag}"), "cuda-entrypoint --help"),
        Arg::Value(value) => UsageError::new(
            format!("unexpected argument `{}`", value.to_string_lossy()),
            "cuda-entrypoint --help",
        ),
    }
}

fn all_flags(extra: &[&'static str]) -> Vec<&'static str> {
    OPTIONS
        .iter()
        .map(|o| o.flag)
        .chain(extra.iter().copied())
        .chain(["help"])
        .collect()
}

/// Takes a flag of the table; `false` when it is none.
fn take_option(flag: &str, parser: &mut lexopt::Parser, settings: &mut Settings) -> Result<bool, UsageError> {
    let Some(spec) = OPTIONS.iter().find(|o| o.flag == flag) else {
        return Ok(false);
    };
    let value = if spec.value.is_empty() {
        parser.optional_value().unwrap_or_else(|| OsString::from("on"))
    } else {
        value_of(spec.flag, parser)?
    };
    settings.0.entry(spec.flag).or_default().push(Setting {
        value,
        origin: Origin::Flag(spec.flag),
    });
    Ok(true)
}

fn value_of(flag: &str, parser: &mut lexopt::Parser) -> Result<OsString, UsageError> {
    parser
        .value()
        .map_err(|_| UsageError::new(format!("--{flag} needs a value"), format!("--{flag}=VALUE")))
}

/// Everything from `first` on is the service's, options included.
fn rest(first: Option<OsString>, parser: &mut lexopt::Parser) -> Result<Vec<OsString>, UsageError> {
    let others = parser
        .raw_args()
        .map_err(|e| UsageError::new(e.to_string(), "put -- before the command"))?;
    Ok(first.into_iter().chain(others).collect())
}

fn run(parser: &mut lexopt::Parser, settings: &mut Settings) -> Result<Command, UsageError> {
    loop {
        match next(parser)? {
            None => return Ok(Command::Run { service: Vec::new() }),
            Some(Arg::Short('h') | Arg::Long("help")) => return Ok(Command::Help(Some("run"))),
            // The first plain word begins the command, so that a forgotten `--` does no harm.
            Some(Arg::Value(word)) => {
                return Ok(Command::Run {
                    service: rest(Some(word), parser)?,
                });
            }
            Some(Arg::Long(flag)) => {
                let flag = flag.to_string();
                if !take_option(&flag, parser, settings)? {
                    return Err(unexpected(&Arg::Long(&flag), &all_flags(&[])));
                }
            }
            Some(other) => return Err(unexpected(&other, &[])),
        }
    }
}

fn check(parser: &mut lexopt::Parser, settings: &mut Settings) -> Result<Command, UsageError> {
    let mut stage = StageChoice::All;
    loop {
        match next(parser)? {
            None => {
                return Ok(Command::Check {
                    stage,
                    service: Vec::new(),
                });
            }
            Some(Arg::Short('h') | Arg::Long("help")) => return Ok(Command::Help(Some("check"))),
            Some(Arg::Value(word)) => {
                return Ok(Command::Check {
                    stage,
                    service: rest(Some(word), parser)?,
                });
            }
            Some(Arg::Long("stage")) => {
                let value = value_of("stage", parser)?;
                stage = stage_named(&value.to_string_lossy())?;
            }
            Some(Arg::Long("json")) => {
                let json = Setting {
                    value: "json".into(),
                    origin: Origin::Flag("format"),
                };
                settings.0.entry("format").or_default().push(json);
            }
            Some(Arg::Long(flag)) => {
                let flag = flag.to_string();
                if !take_option(&flag, parser, settings)? {
                    return Err(unexpected(&Arg::Long(&flag), &all_flags(&["stage", "json"])));
                }
            }
            Some(other) => return Err(unexpected(&other, &[])),
        }
    }
}

fn stage_named(name: &str) -> Result<StageChoice, UsageError> {
    Ok(match name {
        "image" => StageChoice::Image,
        "device" => StageChoice::Device,
        "smoke" => StageChoice::Smoke,
        "all" => StageChoice::All,
        "health" => StageChoice::Health,
        _ => {
            let message = format!("--stage `{name}` is none of image, device, smoke, all, health");
            return Err(UsageError::new(
                message,
                "cuda-entrypoint check --help says what each looks at",
            ));
        }
    })
}

fn kernels(parser: &mut lexopt::Parser) -> Result<Command, UsageError> {
    let (mut archs, mut json, mut paths) = (None, false, Vec::new());
    loop {
        match next(parser)? {
            None if paths.is_empty() => {
                return Err(UsageError::new(
                    "no file or folder was given",
                    "cuda-entrypoint kernels [--archs LIST] PATH…",
                ));
            }
            None => return Ok(Command::Kernels { archs, json, paths }),
            Some(Arg::Short('h') | Arg::Long("help")) => return Ok(Command::Help(Some("kernels"))),
            Some(Arg::Long("json")) => json = true,
            Some(Arg::Long("archs")) => archs = Some(value_of("archs", parser)?),
            Some(Arg::Value(path)) => paths.push(path),
            Some(other) => return Err(unexpected(&other, &["archs", "json", "help"])),
        }
    }
}

fn explain(parser: &mut lexopt::Parser) -> Result<Command, UsageError> {
    let mut code = None;
    loop {
        match next(parser)? {
            None => return Ok(Command::Explain(code)),
            Some(Arg::Short('h') | Arg::Long("help")) => return Ok(Command::Help(Some("explain"))),
            Some(Arg::Value(value)) if code.is_none() => code = Some(value.to_string_lossy().into_owned()),
            Some(other) => return Err(unexpected(&other, &["help"])),
        }
    }
}

/// Options of `stack show` and of `stack capture`.
const SHOW_OPTIONS: [&str; 2] = ["stack", "archs"];
const CAPTURE_OPTIONS: [&str; 3] = ["python", "device-timeout", "helper-path"];

fn stack(parser: &mut lexopt::Parser, settings: &mut Settings) -> Result<Command, UsageError> {
    let (mut verb, mut json, mut service) = (None, false, Vec::new());
    loop {
        match next(parser)? {
            None => break,
            Some(Arg::Short('h') | Arg::Long("help")) => return Ok(Command::Help(Some("stack"))),
            Some(Arg::Long("json")) => json = true,
            Some(Arg::Value(word)) if verb.is_none() => verb = Some(word.string().unwrap_or_default()),
            Some(Arg::Value(word)) if verb.as_deref() == Some("capture") => {
                service = rest(Some(word), parser)?;
                break;
            }
            Some(Arg::Long(flag))
                if ["log", "format"].contains(&flag)
                    || SHOW_OPTIONS.contains(&flag)
                    || CAPTURE_OPTIONS.contains(&flag) =>
            {
                let flag = flag.to_string();
                take_option(&flag, parser, settings)?;
            }
            Some(other) => {
                let known = [
                    "stack",
                    "archs",
                    "python",
                    "device-timeout",
                    "helper-path",
                    "json",
                    "help",
                ];
                return Err(unexpected(&other, &known));
            }
        }
    }
    let (command, foreign): (Command, &[&str]) = match verb.as_deref() {
        Some("show") => (Command::StackShow { json }, &CAPTURE_OPTIONS),
        // What it prints is JSON in any case.
        Some("capture") => (Command::StackCapture { service }, &SHOW_OPTIONS),
        _ => {
            return Err(UsageError::new(
                "`stack` needs `show` or `capture`",
                "cuda-entrypoint stack show, or cuda-entrypoint stack capture > stack.json",
            ));
        }
    };
    let given = |flag: &&&str| matches!(settings.get(flag), Some(s) if matches!(s.origin, Origin::Flag(_)));
    match foreign.iter().find(given) {
        Some(flag) => {
            let verb = verb.unwrap_or_default();
            Err(UsageError::new(
                format!("--{flag} has no meaning for `stack {verb}`"),
                "cuda-entrypoint stack --help",
            ))
        }
        None => Ok(command),
    }
}

fn schema(parser: &mut lexopt::Parser) -> Result<Command, UsageError> {
    let mut which = None;
    loop {
        match next(parser)? {
            None => break,
            Some(Arg::Short('h') | Arg::Long("help")) => return Ok(Command::Help(Some("schema"))),
            Some(Arg::Value(word)) if which.is_none() => which = Some(word.string().unwrap_or_default()),
            Some(other) => return Err(unexpected(&other, &["help"])),
        }
    }
    match which.as_deref() {
        Some("stack") => Ok(Command::Schema(SchemaOf::Stack)),
        Some("report") => Ok(Command::Schema(SchemaOf::Report)),
        _ => Err(UsageError::new(
            "`schema` needs `stack` or `report`",
            "cuda-entrypoint schema stack",
        )),
    }
}

fn install(parser: &mut lexopt::Parser) -> Result<Command, UsageError> {
    let mut dir = None;
    loop {
        match next(parser)? {
            None => break,
            Some(Arg::Short('h') | Arg::Long("help")) => return Ok(Command::Help(Some("install"))),
            Some(Arg::Value(path)) if dir.is_none() => dir = Some(path),
            Some(other) => return Err(unexpected(&other, &["help"])),
        }
    }
    dir.map(Command::Install)
        .ok_or_else(|| UsageError::new("`install` needs a folder", "cuda-entrypoint install DIR"))
}

fn help(parser: &mut lexopt::Parser) -> Result<Command, UsageError> {
    match next(parser)? {
        Some(Arg::Value(word)) => {
            let word = word.to_string_lossy().into_owned();
            let known = COMMANDS.into_iter().find(|c| *c == word);
            known
                .map(|c| Command::Help(Some(c)))
                .ok_or_else(|| unknown_command(OsStr::new(&word)))
        }
        _ => Ok(Command::Help(None)),
    }
}

/// What can be told of the settings of a command line that makes no sense as a whole: the break-glass, the format and
/// the termination log must not depend on the rest being right. Ends at `--`; unknown words are passed over.
pub fn salvage(args: &[OsString], variables: impl IntoIterator<Item = (OsString, OsString)>) -> Settings {
    let (mut settings, _) = from_variables(variables);
    let mut words = args.iter().take_while(|word| *word != "--").peekable();
    while let Some(word) = words.next() {
        let Some((spec, value)) = flag_and_value(word) else {
            continue;
        };
        let value = match value {
            Some(value) => value.to_os_string(),
            None if spec.value.is_empty() => OsString::from("on"),
            None => match words.peek() {
                Some(next) => OsString::from(next),
                None => continue,
            },
        };
        let origin = Origin::Flag(spec.flag);
        settings
            .0
            .entry(spec.flag)
            .or_default()
            .push(Setting { value, origin });
    }
    settings
}

/// `--flag=value` or `--flag` of the table.
fn flag_and_value(word: &OsStr) -> Option<(&'static OptionSpec, Option<&OsStr>)> {
    let flag = word.as_bytes().strip_prefix(b"--")?;
    let (name, value) = match flag.iter().position(|byte| *byte == b'=') {
        Some(at) => (flag.get(..at)?, flag.get(at + 1..).map(OsStr::from_bytes)),
        None => (flag, None),
    };
    let spec = OPTIONS.iter().find(|o| o.flag.as_bytes() == name)?;
    Some((spec, value))
}

/// Settings from `CUDA_ENTRYPOINT_…`. An empty value is as good as none: compose files and charts make such.
fn from_variables(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> (Settings, Vec<(String, String)>) {
    let mut settings = Settings::default();
    let mut near_misses = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str() else { continue };
        let Some(short) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if let Some(spec) = OPTIONS.iter().find(|o| o.variable() == short) {
            // Of a name that stands twice the first counts, as getenv(3) has it.
            let seen = settings.0.contains_key(spec.flag);
            if !value.is_empty() && !seen {
                let setting = Setting {
                    value,
                    origin: Origin::Variable(name.to_string()),
                };
                settings.0.entry(spec.flag).or_default().push(setting);
            }
        } else if let Some(meant) = near_miss(short) {
            near_misses.push((name.to_string(), format!("{PREFIX}{meant}")));
        }
    }
    near_misses.sort();
    (settings, near_misses)
}

/// The variable that a misspelt one was probably meant to be. Kubernetes makes `…_SERVICE_HOST`, `…_PORT` and
/// `…_PORT_80_TCP…` for a service of our name; those are nobody's mistake.
fn near_miss(short: &str) -> Option<String> {
    if short == "PORT" || short.starts_with("PORT_") || short.starts_with("SERVICE_") {
        return None;
    }
    OPTIONS
        .iter()
        .map(OptionSpec::variable)
        .map(|known| (strsim::damerau_levenshtein(short, &known), known))
        .filter(|(distance, known)| *distance <= if known.len() <= 4 { 1 } else { 2 })
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(args: &str, variables: &[(&str, &str)]) -> Result<Invocation, UsageError> {
        let variables = variables
            .iter()
            .map(|(n, v)| (OsString::from(n), OsString::from(v)));
        parse(args.split_whitespace().map(OsString::from), variables)
    }

    #[test]
    fn everything_after_the_command_is_the_service_s() {
        for line in [
            "run --gpu off -- python -m svc --mode=x -- -h",
            "run --gpu=off python -m svc --mode=x -- -h",
        ] {
            let parsed = parse_words(line, &[]).unwrap();
            let Command::Run { service } = parsed.command else {
                panic!("{line}")
            };
            assert_eq!(service, ["python", "-m", "svc", "--mode=x", "--", "-h"], "{line}");
            assert_eq!(parsed.settings.get("gpu").unwrap().value, "off");
        }
    }

    #[test]
    fn capture_takes_a_service_to_find_its_interpreter() {
        let parsed = parse_words("stack capture --python /opt/venv -- python --archs 9.0", &[]).unwrap();
        let Command::StackCapture { service } = parsed.command else {
            panic!("{parsed:?}")
        };
        assert_eq!(service, ["python", "--archs", "9.0"]);
        assert_eq!(parsed.settings.get("python").unwrap().value, "/opt/venv");
        // A variable that another command reads is no mistake.
        let archs = [("CUDA_ENTRYPOINT_ARCHS", "9.0")];
        assert!(parse_words("stack capture", &archs).is_ok());
    }

    #[test]
    fn a_flag_beats_its_variable_and_an_empty_variable_is_none() {
        let set = [("CUDA_ENTRYPOINT_MODE", "warn"), ("CUDA_ENTRYPOINT_GPU", "")];
        let parsed = parse_words("run --mode off x", &set).unwrap();
        assert_eq!(parsed.settings.get("mode").unwrap().value, "off");
        assert_eq!(parsed.settings.get("gpu"), None);
        let parsed = parse_words("run x", &set).unwrap();
        let mode = parsed.settings.get("mode").unwrap();
        assert_eq!(
            (mode.value.as_os_str(), mode.origin.to_string()),
            (OsStr::new("warn"), "CUDA_ENTRYPOINT_MODE".into())
        );
    }

    #[test]
    fn near_misses_are_named_and_service_links_are_not() {
        let parsed = parse_words(
            "run x",
            &[
                ("CUDA_ENTRYPOINT_MODES", "off"),
                ("CUDA_ENTRYPOINT_ARCH", "9.0"),
                ("CUDA_ENTRYPOINT_PORT", "tcp://10.0.0.1:80"),
                ("CUDA_ENTRYPOINT_PORT_80_TCP_ADDR", "10.0.0.1"),
                ("CUDA_ENTRYPOINT_SERVICE_HOST", "10.0.0.1"),
                ("CUDA_ENTRYPOINT_SOMETHING_ELSE", "1"),
            ],
        )
        .unwrap();
        let names: Vec<_> = parsed
            .near_misses
            .iter()
            .map(|(a, b)| format!("{a} {b}"))
            .collect();
        assert_eq!(
            names,
            [
                "CUDA_ENTRYPOINT_ARCH CUDA_ENTRYPOINT_ARCHS",
                "CUDA_ENTRYPOINT_MODES CUDA_ENTRYPOINT_MODE"
            ]
        );
    }

    #[test]
    fn what_is_not_in_the_grammar_is_refused_with_what_was_meant() {
        for (line, message, hint) in [
            ("", "no command", "--help"),
            ("rum -- x", "`rum`", "`run`"),
            ("python app.py", "`python`", "cuda-entrypoint run -- python"),
            ("run --mod off -- x", "--mod", "--mode"),
            ("run --gpu", "--gpu needs a value", ""),
            ("--gpu off run x", "before the command", "run --gpu"),
            ("check --stage images", "`images`", ""),
            ("kernels", "no file", "PATH"),
            ("stack", "`show` or `capture`", ""),
            ("stack capture --archs 9.0", "--archs has no meaning", "--help"),
            ("stack show --python x", "--python has no meaning", "--help"),
            ("stack show x", "`x`", ""),
            ("schema reports", "`stack` or `report`", ""),
            ("run -x", "-x", ""),
        ] {
            let error = parse_words(line, &[]).expect_err(line);
            assert!(error.message.contains(message), "{line}: {error}");
            assert!(error.hint.contains(hint), "{line}: {}", error.hint);
        }
    }

    #[test]
    fn flags_are_unique_and_documented() {
        let flags: std::collections::BTreeSet<_> = OPTIONS.iter().map(|o| o.flag).collect();
        assert_eq!(flags.len(), OPTIONS.len());
        assert!(OPTIONS.iter().all(|o| !o.help.is_empty() && !o.group.is_empty()));
    }
}
