//! Help texts, made from the tables of [`super::commands`] and [`super::options`].

use std::fmt::Write as _;

use crate::check::{Code, Stage};
use crate::exit_code::{self, ExitCode};

use super::commands::{COMMANDS, CommandSpec};
use super::kind::{Word, any_of};
use super::options::OPTIONS;
use super::table::PREFIX;

/// `--help`
pub fn overview() -> String {
    let entry = |command: &CommandSpec| (usage(command), vec![command.summary.to_string()]);
    let commands = ("commands".to_string(), COMMANDS.iter().map(entry).collect());
    format!(
        "\
cuda-entrypoint {version}
Proves that a CUDA image, its driver and its GPU fit together, then becomes the service.

usage: cuda-entrypoint COMMAND
{commands}
in a Dockerfile:
  RUN cuda-entrypoint check --stage image
  ENTRYPOINT [\"cuda-entrypoint\", \"run\", \"--\"]

{exits}
break-glass: {PREFIX}MODE=warn reports and starts the service anyway, {PREFIX}MODE=off reads nothing.
",
        version = crate::version::VERSION,
        commands = columns(&[commands]),
        exits = exit_code::table(),
    )
}

/// `--help` of one command, by the first word of its name.
pub fn command(name: &str) -> String {
    let forms: Vec<&CommandSpec> = COMMANDS.iter().filter(|c| c.first() == name).collect();
    let mut text = String::new();
    for (index, form) in forms.iter().enumerate() {
        let label = if index == 0 { "usage:" } else { "" };
        let _ = writeln!(text, "{label:<6} cuda-entrypoint {}", usage(form));
    }
    for form in &forms {
        let _ = write!(text, "\n{}", form.help);
    }
    let sections: Vec<Section> = forms
        .iter()
        .flat_map(|form| {
            let heading = form
                .second()
                .map_or("options".to_string(), |s| format!("options of {s}"));
            options(form, &heading)
        })
        .collect();
    text.push_str(&columns(&sections));
    if forms.iter().any(|form| takes_all(form)) {
        let _ = write!(text, "\n{}", exit_code::table());
    }
    text
}

/// A command with the words that it takes.
fn usage(command: &CommandSpec) -> String {
    let options = match command.flags().next() {
        Some(_) => " [OPTIONS]",
        None => "",
    };
    format!("{}{options} {}", command.name, command.usage)
        .trim_end()
        .to_string()
}

/// What stands to the left, and the lines to the right of it.
type Entry = (String, Vec<String>);

/// Entries below a heading.
type Section = (String, Vec<Entry>);

/// The options of a command: its own, then the shared ones; the groups stand where it takes all of these.
fn options(command: &CommandSpec, heading: &str) -> Vec<Section> {
    let own = command.own.iter();
    let own = own.map(|o| (o.usage(), right(o.help, o.words, o.default)));
    let mut sections: Vec<Section> = vec![(heading.to_string(), own.collect())];
    for option in command.options {
        let heading = if takes_all(command) { option.group } else { heading };
        if sections.last().is_some_and(|(last, _)| last != heading) {
            sections.push((heading.to_string(), Vec::new()));
        }
        if let Some((_, entries)) = sections.last_mut() {
            let lines = right(option.help, option.words, &(option.default)());
            entries.push((option.usage(), lines));
        }
    }
    sections
}

/// As those commands do that run checks.
fn takes_all(command: &CommandSpec) -> bool {
    command.options.len() == OPTIONS.len()
}

/// Two columns, as wide in all sections.
fn columns(sections: &[Section]) -> String {
    let mut text = String::new();
    let entries = || sections.iter().flat_map(|(_, entries)| entries);
    let width = entries().map(|(left, _)| left.len()).max().unwrap_or(0);
    for (heading, entries) in sections.iter().filter(|(_, entries)| !entries.is_empty()) {
        let _ = writeln!(text, "\n{heading}:");
        for (left, lines) in entries {
            for (index, line) in lines.iter().enumerate() {
                let left = if index == 0 { left.as_str() } else { "" };
                let _ = writeln!(text, "  {left:<width$}  {line}");
            }
        }
    }
    text
}

/// What stands beside an option: its help, the words that it accepts, its default.
fn right(help: &str, words: &[Word], default: &str) -> Vec<String> {
    let mut lines: Vec<String> = help.lines().map(str::to_string).collect();
    // Either each word says what it does, or all of them speak for themselves.
    if words.iter().any(|word| !word.help.is_empty()) {
        for word in words {
            let mark = if word.name == default { " (default)" } else { "" };
            lines.push(format!("{}: {}{mark}", word.name, word.help));
        }
    } else if let Some(last) = lines.last_mut() {
        if !words.is_empty() {
            let _ = write!(last, ": {}", any_of(words));
        }
        if !default.is_empty() {
            let _ = write!(last, " (default: {default})");
        }
    }
    lines
}

/// `explain` without a code.
pub fn findings() -> String {
    listed(&|_| true)
}

/// `explain` with an exit code: what it means, who acts, and the findings that end with it.
pub fn findings_of(exit: ExitCode) -> String {
    let mut text = format!("exit code {}: {}\n", exit.code(), exit.meaning());
    if !exit.who().is_empty() {
        let _ = writeln!(text, "who acts: {}", exit.who());
    }
    let ends_here = |code: Code| code.exit_code() == exit;
    if Code::all().any(ends_here) {
        text.push('\n');
        text.push_str(&listed(&ends_here));
    }
    text
}

fn listed(is_wanted: &dyn Fn(Code) -> bool) -> String {
    let mut text = String::new();
    let width = Code::all().map(|c| c.name().len()).max().unwrap_or(0);
    for stage in [Stage::Image, Stage::Device, Stage::Arch, Stage::Smoke] {
        let codes: Vec<Code> = Code::all()
            .filter(|&c| c.stage() == stage && is_wanted(c))
            .collect();
        if codes.is_empty() {
            continue;
        }
        let _ = writeln!(text, "{}", stage.name());
        for code in codes {
            let _ = writeln!(
                text,
                "  {:<width$}  {:<4}  {}  {}",
                code.name(),
                code.severity().name(),
                code.exit_code().code(),
                code.summary(),
            );
        }
        text.push('\n');
    }
    text.push_str(
        "For details, run: cuda-entrypoint explain CODE. --allow, --warn and --deny CODE change the severity.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows themselves are in one place; what can go wrong here is their order and their columns.
    #[test]
    fn the_list_of_findings_is_the_catalogue_by_stages() {
        let list = findings();
        let stages: Vec<&str> = list
            .lines()
            .filter(|line| !line.contains(' ') && !line.is_empty())
            .collect();
        assert_eq!(stages, ["image", "device", "arch", "smoke"]);
        let rows: Vec<&str> = list.lines().filter(|line| line.starts_with("  ")).collect();
        assert_eq!(rows.len(), Code::all().count());
        let column = rows[0].find("fail").unwrap();
        for (row, code) in rows.iter().zip(Code::all()) {
            assert_eq!(row[..column].trim(), code.name());
            let words = format!(
                "{:<4}  {}  {}",
                code.severity().name(),
                code.exit_code().code(),
                code.summary()
            );
            assert_eq!(row[column..], words);
        }
    }
}
