//! Pages that are written by `make docs`, and are what the tables of the code say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use cuda_entrypoint::check::{Code, Stage, explain};
use cuda_entrypoint::cli::OPTIONS;
use cuda_entrypoint::cli::table::{OptionSpec, PREFIX};
use cuda_entrypoint::exit_code;

use super::completions;
use crate::support::folders::root;

/// Set by `make docs`.
const WRITE: &str = "WRITE_DOCS";

/// Folders in which every file is generated.
const WHOLE: [&str; 2] = ["docker/findings", "docker/completions"];

const REFERENCE: &str = "docker/reference.md";

#[test]
fn what_is_generated_is_what_the_tables_say() {
    let mut wrong = Vec::new();
    let write = std::env::var_os(WRITE).is_some();
    for (name, text) in pages() {
        let path = root().join(&name);
        if fs::read_to_string(&path).ok().as_ref() == Some(&text) {
            continue;
        }
        if write {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
        } else {
            wrong.push(name);
        }
    }
    let known: BTreeSet<String> = pages().into_keys().collect();
    for folder in WHOLE {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap());
            if !known.contains(&name) && write {
                fs::remove_file(root().join(name)).unwrap();
            } else if !known.contains(&name) {
                wrong.push(name);
            }
        }
    }
    assert!(wrong.is_empty(), "not as `make docs` writes them: {wrong:?}");
}

/// Every page, by its path.
fn pages() -> BTreeMap<String, String> {
    let mut pages = BTreeMap::new();
    for code in Code::all() {
        pages.insert(format!("docker/findings/{code}.md"), explain(code));
    }
    pages.insert(
        "docker/findings/README.md".to_string(),
        format!(
            "# Findings\n\nEach thing that cuda-entrypoint checks has a code. `cuda-entrypoint explain CODE` prints the pages \
             that this\nlist leads to.\n\n{}",
            findings("")
        ),
    );
    let reference = fs::read_to_string(root().join(REFERENCE)).unwrap();
    let reference = section(&reference, "options", &options());
    let reference = section(&reference, "exit codes", &exits());
    pages.insert(
        REFERENCE.to_string(),
        section(&reference, "findings", &findings("findings/")),
    );
    pages.extend(completions::pages());
    pages
}

/// A page with what stands between the marks of a section replaced.
fn section(page: &str, name: &str, text: &str) -> String {
    let (begin, end) = (
        format!("<!-- {name}: begin (make docs) -->\n"),
        format!("<!-- {name}: end -->"),
    );
    let (before, rest) = page
        .split_once(&begin)
        .unwrap_or_else(|| panic!("{REFERENCE} has no {begin}"));
    let (_, after) = rest
        .split_once(&end)
        .unwrap_or_else(|| panic!("{REFERENCE} has no {end}"));
    format!("{before}{begin}\n{text}\n{end}{after}")
}

/// The table of options, a group after the other.
fn options() -> String {
    let mut text = String::new();
    let mut group = "";
    for option in OPTIONS {
        if option.group != group {
            group = option.group;
            let gap = if text.is_empty() { "" } else { "\n" };
            let _ = write!(
                text,
                "{gap}**{group}**\n\n| option | variable | values (default) |\n| --- | --- | --- |\n"
            );
        }
        let _ = writeln!(
            text,
            "| `{}` | `{PREFIX}{}` | {} |",
            option.usage(),
            option.variable(),
            values(option)
        );
    }
    text
}

/// What a value may be, in one cell.
fn values(option: &OptionSpec) -> String {
    let default = (option.default)();
    let help = cell(option.help);
    if option.words.is_empty() {
        return match default.as_str() {
            "" => help,
            default => format!("{help} (`{default}`)"),
        };
    }
    let words = option.words.iter().map(|word| {
        let mark = if word.name == default { " (default)" } else { "" };
        match word.help {
            "" => format!("`{}`{mark}", word.name),
            help => format!("`{}`{mark}: {help}", word.name),
        }
    });
    let apart = if option.words.iter().any(|word| !word.help.is_empty()) {
        "; "
    } else {
        ", "
    };
    let words = words.collect::<Vec<_>>().join(apart);
    match help.as_str() {
        "" => words,
        help => format!("{help}: {words}"),
    }
}

/// Text that is one cell of a table.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

fn exits() -> String {
    let mut text = "| code | meaning | who acts |\n| --- | --- | --- |\n".to_string();
    for [code, meaning, who] in exit_code::rows() {
        text += &format!("| {code} | {meaning} | {who} |\n").replace("  |", " |");
    }
    text
}

/// The catalogue, a stage after the other. `folder` leads to the pages.
fn findings(folder: &str) -> String {
    let mut text = String::new();
    for stage in [Stage::Image, Stage::Device, Stage::Arch, Stage::Smoke] {
        let gap = if text.is_empty() { "" } else { "\n" };
        let _ = write!(
            text,
            "{gap}**{}**\n\n| code | default | exit code | when |\n| --- | --- | --- | --- |\n",
            stage.name()
        );
        for code in Code::all().filter(|code| code.stage() == stage) {
            let exception = match code.exception() {
                "" => String::new(),
                exception => format!("; {exception}"),
            };
            let _ = writeln!(
                text,
                "| [{code}]({folder}{code}.md) | {}{} | {} | {} |",
                code.severity().name(),
                cell(&exception),
                code.exit_code().code(),
                cell(code.summary())
            );
        }
    }
    text
}

/// What links lead to is there: files beside the page, and headings in it.
#[test]
fn links_between_pages_lead_somewhere() {
    let mut wrong = Vec::new();
    for page in super::commands::PAGES {
        let text = fs::read_to_string(root().join(page)).unwrap();
        let folder = Path::new(page).parent().unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") || link.contains(' ') {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                root().join(page)
            } else {
                root().join(folder).join(file)
            };
            let has_anchor = || {
                let text = fs::read_to_string(&target).unwrap_or_default();
                text.lines()
                    .filter(|line| line.starts_with('#'))
                    .any(|line| heading(line) == anchor)
            };
            if !target.exists() || (!anchor.is_empty() && !has_anchor()) {
                wrong.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The anchor that a heading gets: lower case, blanks as hyphens, no punctuation.
fn heading(line: &str) -> String {
    let text = line.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// Quick to read: the rest is in docker/.
#[test]
fn the_readme_is_short() {
    let lines = fs::read_to_string(root().join("README.md"))
        .unwrap()
        .lines()
        .count();
    assert!(lines <= 150, "README.md has {lines} lines");
}
