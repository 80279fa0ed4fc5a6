//! Completions for shells and the manual page, made from the tables of commands and options.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use cuda_entrypoint::check::Code;
use cuda_entrypoint::cli::commands::{COMMANDS, CommandSpec};
use cuda_entrypoint::cli::kind::Word;
use cuda_entrypoint::cli::table::PREFIX;
use cuda_entrypoint::exit_code;

use crate::support::folders::root;

/// One flag of a command.
struct Flag {
    name: &'static str,
    /// what its value is called; empty for none
    value: &'static str,
    /// it may stand without its value, which then follows `=`
    bare: bool,
    help: String,
    words: &'static [Word],
    variable: String,
    default: String,
}

/// The flags of a command, its own first.
fn flags(command: &CommandSpec) -> Vec<Flag> {
    let own = command.own.iter().map(|option| Flag {
        name: option.flag,
        value: option.value,
        bare: option.value.is_empty(),
        help: option.help.to_string(),
        words: option.words,
        variable: String::new(),
        default: option.default.to_string(),
    });
    let shared = command.options.iter().map(|option| Flag {
        name: option.flag,
        value: option.value,
        bare: option.bare.is_some(),
        help: option.help.to_string(),
        words: option.words,
        variable: format!("{PREFIX}{}", option.variable()),
        default: (option.default)(),
    });
    own.chain(shared).collect()
}

/// The first line of its help, else its words.
fn summary(flag: &Flag) -> String {
    match flag.help.lines().next() {
        Some(line) if !line.is_empty() => line.to_string(),
        _ => flag
            .words
            .iter()
            .map(|word| word.name)
            .collect::<Vec<_>>()
            .join(", "),
    }
}

fn names(words: &[Word]) -> String {
    words.iter().map(|word| word.name).collect::<Vec<_>>().join(" ")
}

/// Whether a value of this kind is a path.
fn is_path(flag: &Flag) -> bool {
    matches!(flag.value, "FILE" | "PATH" | "DIR")
}

/// Whether it is a finding's code.
fn is_code(flag: &Flag) -> bool {
    flag.value == "CODE"
}

fn codes() -> String {
    Code::all().map(Code::name).collect::<Vec<_>>().join(" ")
}

/// The first form of each command: `stack show` and not `stack capture`.
fn first_forms() -> Vec<&'static CommandSpec> {
    let mut forms: Vec<&CommandSpec> = COMMANDS.iter().collect();
    forms.dedup_by_key(|command| command.first());
    forms
}

/// The first words of all commands, each once.
fn first_words() -> Vec<&'static str> {
    first_forms().iter().map(|command| command.first()).collect()
}

/// The second words of the forms of a command.
fn second_words(first: &str) -> Vec<&'static str> {
    COMMANDS
        .iter()
        .filter(|c| c.first() == first)
        .filter_map(CommandSpec::second)
        .collect()
}

/// What follows `schema`.
const SCHEMAS: &str = "stack report";

pub fn pages() -> BTreeMap<String, String> {
    [
        ("docker/completions/cuda-entrypoint.bash", bash()),
        ("docker/completions/_cuda-entrypoint", zsh()),
        ("docker/completions/cuda-entrypoint.fish", fish()),
        ("docker/cuda-entrypoint.1", manual()),
    ]
    .into_iter()
    .map(|(name, text)| (name.to_string(), text))
    .collect()
}

/// What bash offers for the last of these words.
fn offered(words: &[&str]) -> Vec<String> {
    let script = root().join("docker/completions/cuda-entrypoint.bash");
    let list: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    let program = format!(
        "source {}; COMP_WORDS=({}); COMP_CWORD={}; _cuda_entrypoint; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        quoted(script.to_str().unwrap()),
        list.join(" "),
        words.len() - 1
    );
    let output = Command::new("bash")
        .args(["-c", &program])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_string)
        .collect()
}

#[test]
fn bash_offers_commands_options_and_their_words() {
    assert_eq!(offered(&["cuda-entrypoint", "ch"]), ["check"]);
    assert_eq!(
        offered(&["cuda-entrypoint", "check", "--mode", ""]),
        ["enforce", "warn", "off"]
    );
    assert_eq!(offered(&["cuda-entrypoint", "check", "--rep"]), ["--report"]);
    assert_eq!(
        offered(&["cuda-entrypoint", "explain", "driver-mi"]),
        ["driver-missing", "driver-minor-compat"]
    );
    assert_eq!(
        offered(&["cuda-entrypoint", "check", "--warn", "shm"]),
        ["shm-small"]
    );
    assert_eq!(offered(&["cuda-entrypoint", "stack", "ca"]), ["capture"]);
    assert_eq!(
        offered(&["cuda-entrypoint", "check", "--stack", "Cargo.t"]),
        ["Cargo.toml"]
    );
    assert!(offered(&["cuda-entrypoint", "run", "--", "tru"]).contains(&"true".to_string()));
}

const WRITTEN: &str = "written by `make docs` from the tables of commands and options";

fn bash() -> String {
    let mut text = format!(
        "# shellcheck shell=bash\n# Completion of cuda-entrypoint for bash, {WRITTEN}.\n\n\
         _cuda_entrypoint() {{\n  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} command=${{COMP_WORDS[1]:-}}\n\
         \x20 local index words=''\n\
         \x20 if ((COMP_CWORD == 1)); then\n    mapfile -t COMPREPLY < <(compgen -W '{} --help --version' -- \"$word\")\n    return\n  fi\n\
         \x20 for ((index = 2; index < COMP_CWORD; index++)); do\n\
         \x20   if [[ ${{COMP_WORDS[index]}} == -- ]]; then\n      # What follows is the service's command.\n\
         \x20     mapfile -t COMPREPLY < <(compgen -c -- \"$word\"; compgen -f -- \"$word\")\n      return\n    fi\n  done\n",
        first_words().join(" ")
    );
    text += "  case $before in\n";
    for (flag, words) in flags_with_words() {
        let _ = writeln!(text, "    --{flag}) words='{words}' ;;");
    }
    text += "    --allow | --warn | --deny) words=$(_cuda_entrypoint_codes) ;;\n";
    let paths: Vec<String> = flags_that(is_path)
        .iter()
        .map(|flag| format!("--{flag}"))
        .collect();
    let _ = write!(
        text,
        "    {})\n      mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n      return\n      ;;\n  esac\n",
        paths.join(" | ")
    );
    text += "  if [[ -n $words ]]; then\n    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n    return\n  fi\n";
    text += "  case $command in\n";
    for first in first_words() {
        let forms: Vec<&CommandSpec> = COMMANDS.iter().filter(|c| c.first() == first).collect();
        let mut words: Vec<String> = second_words(first).iter().map(ToString::to_string).collect();
        for form in forms {
            for flag in flags(form) {
                let word = format!("--{}", flag.name);
                if !words.contains(&word) {
                    words.push(word);
                }
            }
        }
        match first {
            "explain" => text += "    explain) words=$(_cuda_entrypoint_codes) ;;\n",
            "schema" => {
                let _ = writeln!(text, "    schema) words='{SCHEMAS}' ;;");
            }
            _ => {
                let _ = writeln!(text, "    {first}) words='{} --help' ;;", words.join(" ").trim());
            }
        }
    }
    text += "  esac\n  mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n\
             \x20 if [[ $command == kernels || $command == install ]] && [[ $word != -* ]]; then\n\
             \x20   mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n  fi\n}\n\n";
    let _ = write!(text, "_cuda_entrypoint_codes() {{\n  echo '{}'\n}}\n\n", codes());
    text + "complete -o filenames -F _cuda_entrypoint cuda-entrypoint\n"
}

/// Each flag with the words that its value may be, once.
fn flags_with_words() -> BTreeMap<&'static str, String> {
    let all = COMMANDS.iter().flat_map(flags);
    all.filter(|flag| !flag.words.is_empty() && !flag.bare)
        .map(|flag| (flag.name, names(flag.words)))
        .collect()
}

/// The names of the flags of which this holds, each once.
fn flags_that(holds: impl Fn(&Flag) -> bool) -> Vec<&'static str> {
    let mut found: Vec<&str> = COMMANDS
        .iter()
        .flat_map(flags)
        .filter(|flag| holds(flag))
        .map(|flag| flag.name)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// In single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn zsh() -> String {
    let mut text =
        format!("#compdef cuda-entrypoint\n# Completion of cuda-entrypoint for zsh, {WRITTEN}.\n\n");
    let _ = writeln!(text, "local -a codes=({})\n\n_cuda_entrypoint() {{", codes());
    text += "  local -a commands=(\n";
    for command in first_forms() {
        let _ = writeln!(
            text,
            "    {}",
            quoted(&format!("{}:{}", command.first(), command.summary))
        );
    }
    text += "  )\n  if ((CURRENT == 2)); then\n    _describe command commands\n    return\n  fi\n  case ${words[2]} in\n";
    for first in first_words() {
        let _ = writeln!(text, "    {first})");
        text += "      _arguments \\\n";
        let mut known = Vec::new();
        for command in COMMANDS.iter().filter(|c| c.first() == first) {
            for flag in flags(command) {
                if known.contains(&flag.name) {
                    continue;
                }
                known.push(flag.name);
                let help = summary(&flag).replace(['[', ']', ':'], " ");
                let value = match () {
                    () if flag.value.is_empty() => String::new(),
                    () if is_code(&flag) => ":code:($codes)".to_string(),
                    () if !flag.words.is_empty() => format!(":{}:({})", flag.value, names(flag.words)),
                    () if is_path(&flag) => format!(":{}:_files", flag.value),
                    () => format!(":{}:", flag.value),
                };
                let equals = match (flag.value.is_empty(), flag.bare) {
                    (true, _) => "",
                    (false, true) => "=-",
                    (false, false) => "=",
                };
                let value = if equals == "=-" {
                    format!(":{value}")
                } else {
                    value
                };
                let spec = format!("--{}{equals}[{help}]{value}", flag.name);
                // `$codes` is to be expanded.
                let spec = match is_code(&flag) {
                    true => format!("\"{}\"", spec.replace('"', "\\\"")),
                    false => quoted(&spec),
                };
                let _ = writeln!(text, "        {spec} \\");
            }
        }
        let rest = match first {
            "explain" => "\"2:code:($codes)\"".to_string(),
            "schema" => format!("'2:schema:({SCHEMAS})'"),
            "run" | "check" => "'1: :' \\\n        '*:::command:_normal'".to_string(),
            "kernels" | "install" => "'1: :' \\\n        '*:path:_files'".to_string(),
            _ => format!("'2:form:({})'", second_words(first).join(" ")),
        };
        let _ = writeln!(text, "        {rest}\n      ;;");
    }
    text + "  esac\n}\n\n_cuda_entrypoint \"$@\"\n"
}

fn fish() -> String {
    let mut text = format!("# Completion of cuda-entrypoint for fish, {WRITTEN}.\n\n");
    let _ = writeln!(text, "set -l commands {}", first_words().join(" "));
    let _ = writeln!(text, "set -l codes {}\n", codes());
    text += "complete -c cuda-entrypoint -f\n";
    for command in first_forms() {
        let _ = writeln!(
            text,
            "complete -c cuda-entrypoint -n \"not __fish_seen_subcommand_from $commands\" -a {} -d {}",
            command.first(),
            quoted(command.summary).replace(r"'\''", r"\'")
        );
    }
    for first in first_words() {
        let when = format!("-n '__fish_seen_subcommand_from {first}'");
        let words = match first {
            "explain" => "\"$codes\"".to_string(),
            "schema" => format!("'{SCHEMAS}'"),
            "kernels" | "install" => String::new(),
            _ => match second_words(first).join(" ") {
                forms if forms.is_empty() => String::new(),
                forms => format!("'{forms}'"),
            },
        };
        if matches!(first, "kernels" | "install" | "run" | "check") {
            let _ = writeln!(text, "complete -c cuda-entrypoint {when} -F");
        } else if !words.is_empty() {
            let _ = writeln!(text, "complete -c cuda-entrypoint {when} -a {words}");
        }
        let mut known = Vec::new();
        for command in COMMANDS.iter().filter(|c| c.first() == first) {
            for flag in flags(command) {
                if known.contains(&flag.name) {
                    continue;
                }
                known.push(flag.name);
                let value = match () {
                    () if flag.value.is_empty() => String::new(),
                    // One that may stand alone takes its value behind `=`.
                    () if flag.bare => format!(" -a '{}'", names(flag.words)),
                    () if is_code(&flag) => " -x -a \"$codes\"".to_string(),
                    () if !flag.words.is_empty() => format!(" -x -a '{}'", names(flag.words)),
                    () if is_path(&flag) => " -r -F".to_string(),
                    () => " -x".to_string(),
                };
                let _ = writeln!(
                    text,
                    "complete -c cuda-entrypoint {when} -l {}{value} -d {}",
                    flag.name,
                    quoted(&summary(&flag)).replace(r"'\''", r"\'")
                );
            }
        }
    }
    text
}

/// Text for troff: hyphens are hyphens, and no line begins with a request.
fn troff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let lines: Vec<String> = text
        .lines()
        .map(|line| match line.starts_with(['.', '\'']) {
            true => format!("\\&{line}"),
            false => line.to_string(),
        })
        .collect();
    lines.join("\n")
}

fn manual() -> String {
    let mut text = format!(
        ".\\\" Manual page, {WRITTEN}.\n.TH CUDA\\-ENTRYPOINT 1 \"\" \"cuda-entrypoint {}\"\n",
        env!("CARGO_PKG_VERSION")
    );
    text += ".SH NAME\ncuda\\-entrypoint \\- proves that a CUDA image, its driver and its GPU fit together, then becomes the service\n.SH SYNOPSIS\n";
    for command in COMMANDS {
        let options = if flags(command).is_empty() {
            ""
        } else {
            "[OPTIONS] "
        };
        let _ = writeln!(
            text,
            ".B cuda\\-entrypoint {}\n{}\n.br",
            command.name,
            troff(format!("{options}{}", command.usage).trim())
        );
    }
    for command in COMMANDS {
        let _ = writeln!(text, ".SH {}", command.name.to_uppercase());
        for (index, paragraph) in command.help.trim().split("\n\n").enumerate() {
            let gap = if index == 0 { "" } else { ".PP\n" };
            let example = paragraph.starts_with("  ");
            let paragraph = troff(paragraph);
            let _ = match example {
                true => writeln!(text, "{gap}.nf\n{paragraph}\n.fi"),
                false => writeln!(text, "{gap}{paragraph}"),
            };
        }
        let own = command.own.len();
        // All of them stand below.
        let shown = if command.options.len() > 15 {
            own
        } else {
            usize::MAX
        };
        for flag in flags(command).into_iter().take(shown) {
            text += &entry(&flag);
        }
    }
    text += ".SH OPTIONS OF RUN AND CHECK\n";
    if let Some(run) = COMMANDS.iter().find(|command| command.name == "run") {
        for flag in flags(run) {
            text += &entry(&flag);
        }
    }
    text += ".SH EXIT STATUS\n";
    for [code, meaning, who] in exit_code::rows() {
        let who = if who.is_empty() {
            String::new()
        } else {
            format!(" ({who})")
        };
        let _ = writeln!(text, ".TP\n.B {code}\n{}", troff(&format!("{meaning}{who}")));
    }
    text + ".SH FILES\n.TP\n.I /etc/cuda\\-entrypoint/stack.json\nthe image's own manifest\n.TP\n.I /dev/termination\\-log\nwhere the verdict goes, if it exists\n"
}

fn entry(flag: &Flag) -> String {
    let usage = match (flag.value, flag.bare) {
        ("", _) => format!("--{}", flag.name),
        (value, true) => format!("--{}[={value}]", flag.name),
        (value, false) => format!("--{} {value}", flag.name),
    };
    let mut text = format!(".TP\n.B {}\n", troff(&usage));
    let mut lines: Vec<String> = flag.help.lines().map(str::to_string).collect();
    for word in flag.words {
        let mark = if word.name == flag.default {
            " (default)"
        } else {
            ""
        };
        lines.push(match word.help {
            "" => format!("{}{mark}", word.name),
            help => format!("{}: {help}{mark}", word.name),
        });
    }
    if flag.words.is_empty() && !flag.default.is_empty() {
        lines.push(format!("(default: {})", flag.default));
    }
    if !flag.variable.is_empty() {
        lines.push(format!("Variable: {}", flag.variable));
    }
    text += &troff(&lines.join("\n")).replace('\n', "\n.br\n");
    text + "\n"
}
