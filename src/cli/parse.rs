//! The command line and the variables as they were written. [`super::config`] parses the values.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use lexopt::Arg;

use crate::nearest;

use super::commands::{COMMANDS, Command, CommandSpec, Request, Words};
use super::config;
use super::options::{OPTIONS, Settings};
use super::setting::{Origin, Setting, SettingError};
use super::table::OptionSpec;
use super::variables::from_variables;

/// The command line and the variables together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invocation {
    /// what was asked for
    pub command: Command,
    /// flags and variables
    pub settings: Settings,
    /// variables that look like a misspelt one of ours, with what was probably meant
    pub near_misses: Vec<(String, String)>,
}

/// An invalid command line: exit 64.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct UsageError {
    /// what was wrong
    pub message: String,
    /// what to write instead
    pub hint: String,
}

impl UsageError {
    pub(super) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: hint.into(),
        }
    }

    pub(super) fn unknown_command(name: &OsStr) -> Self {
        let name = name.to_string_lossy();
        let hint = match nearest(&name, COMMANDS.iter().map(CommandSpec::first)) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!(
                "to start a service: cuda-entrypoint run -- {name} …; cuda-entrypoint --help lists the commands"
            ),
        };
        Self::new(format!("unknown command `{name}`"), hint)
    }

    fn unexpected(word: &OsStr) -> Self {
        let word = word.to_string_lossy();
        Self::new(format!("unexpected argument `{word}`"), "cuda-entrypoint --help")
    }

    fn unknown_option(flag: &str, forms: &[&CommandSpec]) -> Self {
        let known = forms.iter().flat_map(|form| form.flags()).chain(["help"]);
        let hint = match (nearest(flag, known), forms.first()) {
            (Some(meant), _) => format!("did you mean --{meant}?"),
            (None, Some(form)) => format!(
                "cuda-entrypoint {} --help lists its options{}",
                form.first(),
                former_entrypoint(forms, &format!("--{flag}"))
            ),
            (None, None) => "cuda-entrypoint --help".to_string(),
        };
        Self::new(format!("unknown option --{flag}"), hint)
    }
}

impl From<SettingError> for UsageError {
    fn from(error: SettingError) -> Self {
        Self::new(error.message, error.hint)
    }
}

/// Reads arguments (without argv\[0\]) and variables.
///
/// # Errors
/// [`UsageError`] for what is not in the grammar; values are judged later, by [`super::config`].
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Invocation, UsageError> {
    let (settings, near_misses) = from_variables(variables);
    let mut parser = lexopt::Parser::from_args(args);
    let (command, settings) = match next(&mut parser)? {
        None => {
            return Err(UsageError::new(
                "no command was given",
                "cuda-entrypoint --help lists them",
            ));
        }
        Some(Arg::Short('h') | Arg::Long("help")) => (Command::Help(None), settings),
        Some(Arg::Short('V') | Arg::Long("version")) => (Command::Version, settings),
        // As docker, kubectl and git have it, beside the option.
        Some(Arg::Value(name)) if name == "version" => match next(&mut parser)? {
            None => (Command::Version, settings),
            Some(_) => {
                return Err(UsageError::new(
                    "version takes no arguments",
                    "cuda-entrypoint version",
                ));
            }
        },
        Some(Arg::Value(name)) => command(&name, &mut parser, settings)?,
        Some(Arg::Long(flag)) => {
            let Some(option) = OPTIONS.iter().find(|option| option.flag == flag) else {
                return Err(UsageError::unknown_option(flag, &[]));
            };
            return Err(UsageError::new(
                format!("--{flag} must come after the command"),
                format!("cuda-entrypoint run {} -- COMMAND", option.usage()),
            ));
        }
        Some(Arg::Short(flag)) => return Err(unknown_short(flag, &[])),
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

fn unknown_short(flag: char, forms: &[&CommandSpec]) -> UsageError {
    let more = former_entrypoint(forms, &format!("-{flag}"));
    UsageError::new(
        format!("unknown option -{flag}"),
        format!("cuda-entrypoint --help{more}"),
    )
}

/// `ENTRYPOINT ["cuda-entrypoint", "run"]` in the place of one that named a program: CMD has its options alone.
fn former_entrypoint(forms: &[&CommandSpec], flag: &str) -> String {
    match forms.first().map(|form| (form.first(), form.words)) {
        Some((name @ "run", Words::Service)) => format!(
            "; if {flag} is the service's, put its program before it (was the image's former ENTRYPOINT lost?): cuda-entrypoint {name} -- PROGRAM {flag}"
        ),
        _ => String::new(),
    }
}

/// Reads what follows the first word of a command.
fn command(
    name: &OsStr,
    parser: &mut lexopt::Parser,
    settings: Settings,
) -> Result<(Command, Settings), UsageError> {
    let forms: Vec<&'static CommandSpec> = COMMANDS.iter().filter(|c| c.first() == name).collect();
    let Some(&first) = forms.first() else {
        return Err(UsageError::unknown_command(name));
    };
    let mut request = Request {
        settings,
        ..Request::default()
    };
    // Options may come before the second word of a name.
    let mut chosen = first.second().is_none().then_some(first);
    // Of a command with several forms, a word that names none.
    let mut other: Option<OsString> = None;
    let mut flags = Vec::new();
    loop {
        match next(parser)? {
            None => break,
            Some(Arg::Short('h') | Arg::Long("help")) => {
                return Ok((Command::Help(Some(first.first())), request.settings));
            }
            Some(Arg::Short(flag)) => return Err(unknown_short(flag, &forms)),
            Some(Arg::Long(flag)) => {
                let flag = flag.to_string();
                flags.push(take_option(&flag, &forms, parser, &mut request)?);
            }
            Some(Arg::Value(word)) => match chosen.map(|form| form.words) {
                None => match forms.iter().find(|form| form.second().is_some_and(|s| word == s)) {
                    Some(form) if other.is_none() => chosen = Some(form),
                    // A --help behind it is still answered.
                    _ => drop(other.get_or_insert(word)),
                },
                // The first plain word begins the command, so that a forgotten `--` does no harm.
                Some(Words::Service) => {
                    request.words = rest(word, parser)?;
                    break;
                }
                Some(Words::Any) => request.words.push(word),
                Some(Words::One) if request.words.is_empty() => request.words.push(word),
                Some(Words::One | Words::None) => return Err(UsageError::unexpected(&word)),
            },
        }
    }
    let Some(form) = chosen else {
        return Err(incomplete(&forms, other.as_deref()));
    };
    if let Some(flag) = flags
        .iter()
        .find(|flag| !form.flags().any(|known| known == **flag))
    {
        return Err(UsageError::new(
            format!("--{flag} is not an option of `{}`", form.name),
            format!("cuda-entrypoint {} --help", form.first()),
        ));
    }
    let mut settings = std::mem::take(&mut request.settings);
    let command = (form.read)(request)?;
    if matches!(command, Command::Check { .. }) {
        config::report_on_stdout_is_a_format(&mut settings);
    }
    Ok((command, settings))
}

/// For a command of which the second word is missing or unknown.
fn incomplete(forms: &[&CommandSpec], other: Option<&OsStr>) -> UsageError {
    let name = forms.first().map_or("", |form| form.first());
    let seconds: Vec<String> = forms
        .iter()
        .filter_map(|form| form.second())
        .map(|second| format!("`{second}`"))
        .collect();
    let given = other.map(OsStr::to_string_lossy);
    let meant = given
        .as_deref()
        .and_then(|word| nearest(word, forms.iter().filter_map(|form| form.second())));
    let instead = given
        .as_deref()
        .map_or(String::new(), |word| format!(", not `{word}`"));
    UsageError::new(
        format!("`{name}` requires {}{instead}", seconds.join(" or ")),
        match meant {
            Some(meant) => format!("did you mean `{name} {meant}`?"),
            None => format!("cuda-entrypoint {name} --help"),
        },
    )
}

/// Takes an option of one of the forms, and returns its flag.
fn take_option(
    flag: &str,
    forms: &[&'static CommandSpec],
    parser: &mut lexopt::Parser,
    request: &mut Request,
) -> Result<&'static str, UsageError> {
    let mut shared = forms.iter().flat_map(|form| form.options);
    let mut own = forms.iter().flat_map(|form| form.own);
    if let Some(option) = shared.find(|option| option.flag == flag) {
        let value = match option.bare {
            Some(bare) => parser.optional_value().unwrap_or_else(|| OsString::from(bare)),
            None => value_of(&option.usage(), parser)?,
        };
        let origin = Origin::Flag(option.flag);
        (option.slot)(&mut request.settings).push(Setting { value, origin });
        Ok(option.flag)
    } else if let Some(option) = own.find(|option| option.flag == flag) {
        let value = match option.value {
            "" => OsString::new(),
            _ => value_of(&option.usage(), parser)?,
        };
        let origin = Origin::Flag(option.flag);
        (option.take)(request, Setting { value, origin })?;
        Ok(option.flag)
    } else {
        Err(UsageError::unknown_option(flag, forms))
    }
}

/// The value of an option that requires one.
fn value_of(usage: &str, parser: &mut lexopt::Parser) -> Result<OsString, UsageError> {
    parser.value().map_err(|_| {
        let flag = usage.split(' ').next().unwrap_or_default();
        UsageError::new(format!("{flag} requires a value"), format!("use {usage}"))
    })
}

/// Everything from `first` on is the service's, options included.
fn rest(first: OsString, parser: &mut lexopt::Parser) -> Result<Vec<OsString>, UsageError> {
    let others = parser
        .raw_args()
        .map_err(|e| UsageError::new(e.to_string(), "put -- before the command"))?;
    Ok(std::iter::once(first).chain(others).collect())
}

/// The settings of a command line that is invalid as a whole: the break-glass, the format and the termination log must
/// not depend on the rest being right. Ends at `--`; unknown words are skipped.
pub fn salvage(args: &[OsString], variables: impl IntoIterator<Item = (OsString, OsString)>) -> Settings {
    let (mut settings, _) = from_variables(variables);
    let mut words = args.iter().take_while(|word| *word != "--").peekable();
    while let Some(word) = words.next() {
        let Some((spec, value)) = flag_and_value(word) else {
            continue;
        };
        let value = match value {
            Some(value) => value.to_os_string(),
            None => match (spec.bare, words.peek()) {
                (Some(bare), _) => OsString::from(bare),
                (None, Some(next)) => OsString::from(next),
                (None, None) => continue,
            },
        };
        let origin = Origin::Flag(spec.flag);
        (spec.slot)(&mut settings).push(Setting { value, origin });
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(args: &str, variables: &[(&str, &str)]) -> Result<Invocation, UsageError> {
        let variables = variables
            .iter()
            .map(|(n, v)| (OsString::from(n), OsString::from(v)));
        let words = args.split_whitespace().map(|word| word.replace("''", ""));
        parse(words.map(OsString::from), variables)
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
            assert_eq!(parsed.settings.gpu.last().unwrap().value, "off");
        }
    }

    #[test]
    fn capture_takes_a_service_to_find_its_interpreter() {
        let parsed = parse_words("stack capture --python /opt/venv -- python --archs 9.0", &[]).unwrap();
        let Command::StackCapture { service, .. } = parsed.command else {
            panic!("{parsed:?}")
        };
        assert_eq!(service, ["python", "--archs", "9.0"]);
        assert_eq!(parsed.settings.python.last().unwrap().value, "/opt/venv");
        // A variable that another command reads is no mistake.
        let archs = [("CUDA_ENTRYPOINT_ARCHS", "9.0")];
        assert!(parse_words("stack capture", &archs).is_ok());
    }

    #[test]
    fn a_flag_beats_its_variable_and_an_empty_variable_is_none() {
        let set = [("CUDA_ENTRYPOINT_MODE", "warn"), ("CUDA_ENTRYPOINT_GPU", "")];
        let parsed = parse_words("run --mode off x", &set).unwrap();
        assert_eq!(parsed.settings.mode.last().unwrap().value, "off");
        assert_eq!(parsed.settings.gpu, []);
        let parsed = parse_words("run x", &set).unwrap();
        let mode = parsed.settings.mode.last().unwrap();
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
                ("CUDA_ENTRYPOINT_STAGE", "image"),
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
                "CUDA_ENTRYPOINT_MODES CUDA_ENTRYPOINT_MODE",
                "CUDA_ENTRYPOINT_STAGE the option --stage of check, which has no variable"
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
            ("run --gpu", "--gpu requires a value", "--gpu POLICY"),
            ("--gpu off run x", "after the command", "run --gpu"),
            ("check --stage images", "`images`", ""),
            ("kernels", "no file", "PATH"),
            ("stack", "`show` or `capture`", ""),
            (
                "stack capture --archs 9.0",
                "--archs is not an option of",
                "--help",
            ),
            ("stack show --python x", "--python is not an option of", "--help"),
            ("stack show x", "`x`", ""),
            ("stack x show", "`show` or `capture`", ""),
            (
                "stack shw",
                "`show` or `capture`, not `shw`",
                "did you mean `stack show`?",
            ),
            ("kernels ''", "a path is empty", "PATH"),
            ("schema reports", "`stack`, `report` or `kernels`", ""),
            ("run -x", "-x", ""),
            (
                "run -m serve",
                "unknown option -m",
                "former ENTRYPOINT lost?): cuda-entrypoint run -- PROGRAM -m",
            ),
            (
                "run --tensor-parallel-size 8",
                "unknown option --tensor-parallel-size",
                "put its program before it",
            ),
            (
                "run --modes warn",
                "unknown option --modes",
                "did you mean --mode?",
            ),
            ("-m serve", "unknown option -m", "cuda-entrypoint --help"),
        ] {
            let error = parse_words(line, &[]).expect_err(line);
            assert!(error.message.contains(message), "{line}: {error}");
            assert!(error.hint.contains(hint), "{line}: {}", error.hint);
        }
    }
}
