//! The commands, each form of one in one row. Parser, overview, help and suggestions follow from the row.

use std::ffi::{OsStr, OsString};

use crate::arch::ArchList;

use super::kind::{Archs, Kind, StackName, Word, choice, read};
use super::options::{OPTION, OPTIONS, Settings};
use super::parse::UsageError;
use super::setting::{Origin, Setting};
use super::table::OptionSpec;

choice! {
    /// What `check --stage` looks at.
    StageChoice {
        Image "image" "the image's files, without a GPU: for the end of a Dockerfile";
        Device "device" "driver, GPUs and their architecture";
        Smoke "smoke" "the manifest's smoke test, and nothing else";
        All "all" "image, device and smoke";
        Health "health" "NVML and the driver's device nodes, without CUDA: for exec probes";
    }
}

choice! {
    /// Which schema to print.
    SchemaOf {
        Stack "stack" "the manifest";
        Report "report" "the report";
        Kernels "kernels" "what kernels prints as JSON";
    }
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
        archs: Option<ArchList>,
        /// files and folders
        paths: Vec<OsString>,
    },
    /// the page of a finding, or the list
    Explain(Option<String>),
    /// the manifest in force
    StackShow,
    /// a manifest made from this environment
    StackCapture {
        /// `--name`
        name: Option<String>,
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

/// A command, or one form of a command that has several.
#[derive(Debug)]
pub struct CommandSpec {
    /// one word, or two for a form
    pub name: &'static str,
    /// the words that it takes, as a usage line has them
    pub usage: &'static str,
    /// what it does, in the overview
    pub summary: &'static str,
    /// what it does, in its own help
    pub help: &'static str,
    /// the options that it shares with others
    pub options: &'static [&'static OptionSpec],
    /// the options of its own
    pub own: &'static [OwnOption],
    /// how many words it takes
    pub(super) words: Words,
    /// whether it starts processes, which want supervision
    pub(super) supervised: bool,
    /// what the words and options come to
    pub(super) read: fn(Request) -> Result<Command, UsageError>,
}

impl CommandSpec {
    /// The first word of its name.
    pub fn first(&self) -> &'static str {
        self.name.split_once(' ').map_or(self.name, |(first, _)| first)
    }

    /// The second word of its name, which tells the forms of one command apart.
    pub fn second(&self) -> Option<&'static str> {
        self.name.split_once(' ').map(|(_, second)| second)
    }

    /// The flags that it takes.
    pub(super) fn flags(&self) -> impl Iterator<Item = &'static str> {
        let shared = self.options.iter().map(|option| option.flag);
        shared.chain(self.own.iter().map(|option| option.flag))
    }
}

/// How many words a command takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Words {
    /// a service: the first word ends the options
    Service,
    None,
    /// at most one
    One,
    /// any number
    Any,
}

/// An option of one command alone. It has no variable.
#[derive(Debug)]
pub struct OwnOption {
    /// flag without its dashes
    pub flag: &'static str,
    /// what its value is called in the help; empty for none
    pub value: &'static str,
    /// what it does; empty where the words say it
    pub help: &'static str,
    /// the words that its value may be; empty where they cannot be listed
    pub words: &'static [Word],
    /// default as it would be written; empty for none
    pub default: &'static str,
    /// keeps it
    pub(super) take: fn(&mut Request, Setting) -> Result<(), UsageError>,
}

impl OwnOption {
    /// As a usage line has it: `--stage STAGE`, `--json`.
    pub fn usage(&self) -> String {
        format!("--{} {}", self.flag, self.value).trim_end().to_string()
    }
}

/// A command line as it is read.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) settings: Settings,
    pub(super) words: Vec<OsString>,
    pub(super) stage: Option<StageChoice>,
    pub(super) archs: Option<ArchList>,
    pub(super) name: Option<String>,
}

const JSON: OwnOption = OwnOption {
    flag: "json",
    value: "",
    help: "the same as --format json",
    words: &[],
    default: "",
    take: |request, _| {
        let (value, origin) = ("json".into(), Origin::Flag(OPTION.format.flag));
        request.settings.format.push(Setting { value, origin });
        Ok(())
    },
};

const CAPTURE_JSON: OwnOption = OwnOption {
    help: "no effect: the manifest is always JSON",
    take: |_, _| Ok(()),
    ..JSON
};

const NAME: OwnOption = OwnOption {
    flag: "name",
    value: "NAME",
    help: "how verdicts call the stack (default: captured)",
    words: &[],
    default: "",
    take: |request, setting| {
        request.name = Some(read::<StackName>(&setting)?);
        Ok(())
    },
};

const STAGE: OwnOption = OwnOption {
    flag: "stage",
    value: "STAGE",
    help: "",
    words: StageChoice::WORDS,
    default: StageChoice::All.name(),
    take: |request, setting| {
        request.stage = Some(read::<StageChoice>(&setting)?);
        Ok(())
    },
};

const ARCHS: OwnOption = OwnOption {
    flag: "archs",
    value: "LIST",
    help: "architectures, as in TORCH_CUDA_ARCH_LIST: 7.5;8.0;9.0 (default: the embedded manifest's)",
    words: &[],
    default: "",
    take: |request, setting| {
        request.archs = read::<Archs>(&setting)?;
        Ok(())
    },
};

/// Every command, in the order of the overview.
pub static COMMANDS: &[CommandSpec] = &[
    CommandSpec {
        name: "run",
        usage: "-- COMMAND [ARG]...",
        summary: "check, then exec COMMAND",
        help: "\
Checks the image, the driver and the GPUs, runs the manifest's smoke, sets the manifest's variables, and becomes
COMMAND: the same process, with no descriptor, signal mask or child left behind. Writes to stderr only: warnings, a line
when a smoke starts, and one line on success; on failure, what failed and what to do.

Each option has a variable: --device-timeout is CUDA_ENTRYPOINT_DEVICE_TIMEOUT. A flag overrides its variable, and a
variable overrides the manifest. An empty variable counts as unset.
",
        options: OPTIONS,
        own: &[],
        words: Words::Service,
        supervised: true,
        read: |request| {
            Ok(Command::Run {
                service: request.words,
            })
        },
    },
    CommandSpec {
        name: "check",
        usage: "[-- COMMAND [ARG]...]",
        summary: "check, print the result, exit",
        help: "\
Checks, prints a table (with --format json, the report) on stdout, and exits with the code of the first stage that
failed. The stages after a failed one are checked as well. COMMAND is not run: it determines which Python the service
would use.
",
        options: OPTIONS,
        own: &[STAGE, JSON],
        words: Words::Service,
        supervised: true,
        read: |request| {
            Ok(Command::Check {
                stage: request.stage.unwrap_or(StageChoice::All),
                service: request.words,
            })
        },
    },
    CommandSpec {
        name: "kernels",
        usage: "PATH...",
        summary: "print the SASS and PTX architectures of CUDA libraries",
        help: "\
Prints which SASS and PTX architectures each CUDA library contains, and how many of its fatbins have code for each
architecture of LIST. PATH is a file, or a folder to search for shared libraries. Needs neither a GPU nor a CUDA
toolkit.
",
        options: &[&OPTION.format],
        own: &[ARCHS, JSON],
        words: Words::Any,
        supervised: false,
        read: |Request { words, archs, .. }| {
            let wrong = match words.iter().any(|word| word.is_empty()) {
                true => "a path is empty",
                false if words.is_empty() => "no file or folder was given",
                false => {
                    return Ok(Command::Kernels { archs, paths: words });
                }
            };
            Err(UsageError::new(wrong, "cuda-entrypoint kernels [OPTIONS] PATH..."))
        },
    },
    CommandSpec {
        name: "explain",
        usage: "[CODE]",
        summary: "explain a finding and how to fix it",
        help: "\
Without CODE, lists the findings. With CODE, prints what the finding means, how it is determined and how to fix it. CODE
may also be an exit code, such as 82: prints what it means, who acts, and the findings that end with it.
",
        options: &[],
        own: &[],
        words: Words::One,
        supervised: false,
        read: |request| {
            let code = request.words.first();
            Ok(Command::Explain(code.map(|c| c.to_string_lossy().into_owned())))
        },
    },
    CommandSpec {
        name: "stack show",
        usage: "",
        summary: "print the manifest in force",
        help: "\
show prints the manifest in force: that of --stack, else /etc/cuda-entrypoint/stack.json if it exists, else the embedded
one. --format json prints it as JSON, to start a manifest of your own from. Under --stack none there is no manifest.
",
        options: &[&OPTION.stack, &OPTION.archs, &OPTION.format, &OPTION.log],
        own: &[JSON],
        words: Words::None,
        supervised: false,
        read: |_| Ok(Command::StackShow),
    },
    CommandSpec {
        name: "stack capture",
        usage: "[-- COMMAND [ARG]...]",
        summary: "print a manifest of this environment",
        help: "\
capture prints a manifest of this environment: the versions that the CUDA libraries report, the architectures that
every package with kernels supports (+PTX where the driver compiles them), Python, the packages of the CUDA stack with
their exact versions, and a smoke. Omissions are reported on stderr. The Python that is inspected is that of --python,
else that of COMMAND (which is not run), else that of VIRTUAL_ENV, CONDA_PREFIX or PATH. Exits with 81 if there is no
CUDA here, or if a check fails that the manifest cannot allow, such as packages that contradict each other; --allow
and --warn accept a finding. Otherwise the manifest passes `check --stage image` here.

  cuda-entrypoint stack capture > stack.json
  cuda-entrypoint check --stage image --stack stack.json
",
        options: &[
            &OPTION.python,
            &OPTION.device_timeout,
            &OPTION.helper_path,
            &OPTION.allow,
            &OPTION.warn,
            &OPTION.deny,
            &OPTION.format,
            &OPTION.log,
        ],
        own: &[NAME, CAPTURE_JSON],
        words: Words::Service,
        supervised: true,
        read: |request| {
            Ok(Command::StackCapture {
                name: request.name,
                service: request.words,
            })
        },
    },
    CommandSpec {
        name: "schema",
        usage: "stack|report|kernels",
        summary: "print the JSON Schema of the manifest or of a JSON output",
        help: "\
Prints the JSON Schema (draft 2020-12) of the manifest (stack), of what check prints with --format json (report), or of
what kernels prints with --format json (kernels).
",
        options: &[],
        own: &[],
        words: Words::One,
        supervised: false,
        read: |request| {
            let which = request.words.first().map(|word| SchemaOf::parse(word));
            let which = which.and_then(Result::ok).ok_or_else(|| {
                UsageError::new(
                    "`schema` requires `stack`, `report` or `kernels`",
                    "cuda-entrypoint schema stack",
                )
            })?;
            Ok(Command::Schema(which))
        },
    },
    CommandSpec {
        name: "install",
        usage: "DIR",
        summary: "write this binary and its helper to a folder",
        help: "\
Writes cuda-entrypoint and cuda-helper to DIR, which is created if it does not exist: an emptyDir that is shared with a
container whose image lacks this binary, or a folder on disk for --helper-path. Prints the paths of both.
",
        options: &[],
        own: &[],
        words: Words::One,
        supervised: false,
        read: |mut request| {
            let dir = request.words.pop();
            dir.map(Command::Install)
                .ok_or_else(|| UsageError::new("`install` requires a folder", "cuda-entrypoint install DIR"))
        },
    },
    CommandSpec {
        name: "help",
        usage: "[COMMAND]",
        summary: "print the options of a command",
        help: "Prints the help of COMMAND, or without it the list of commands.\n",
        options: &[],
        own: &[],
        words: Words::Any,
        supervised: false,
        read: |request| {
            let Some(word) = request.words.first() else {
                return Ok(Command::Help(None));
            };
            let found = COMMANDS.iter().find(|command| command.first() == word);
            found
                .map(|command| Command::Help(Some(command.first())))
                .ok_or_else(|| UsageError::unknown_command(word))
        },
    },
];

/// Whether a command begins with this word.
pub fn is_command(first: &OsStr) -> bool {
    COMMANDS.iter().any(|c| c.first() == first)
}

/// Whether a command that begins with this word starts processes.
pub fn is_supervised(first: &str) -> bool {
    COMMANDS.iter().any(|c| c.supervised && c.first() == first)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn commands_are_unique_and_documented() {
        let names: BTreeSet<&str> = COMMANDS.iter().map(|c| c.name).collect();
        assert_eq!(names.len(), COMMANDS.len());
        for command in COMMANDS {
            assert!(!command.summary.is_empty(), "{}", command.name);
            assert!(command.help.ends_with('\n'), "{}", command.name);
            let flags: BTreeSet<&str> = command.flags().collect();
            assert_eq!(flags.len(), command.flags().count(), "{}", command.name);
        }
    }
}
