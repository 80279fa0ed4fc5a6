//! The table of `stack show`.

use super::limits::write_size;
use super::packages::write_specifiers;
use super::smoke::write_duration;
use super::{SmokeEntry, Stack};
use crate::text::sanitize;

/// The stack as a person reads it: one part a line, in the manifest's order, and what is not checked as well.
/// `source` says where it came from. Plain text without control characters, ends with a newline.
pub fn table(stack: &Stack, source: &str) -> String {
    let mut out = Table(String::new());
    out.part("name", [stack.name.clone()]);
    out.part("source", [source.to_string()]);
    if stack.as_found {
        out.part("archs", stack.archs.iter().map(ToString::to_string));
        for part in ["cuda", "python", "packages"] {
            out.part(part, ["checked for consistency only".to_string()]);
        }
        return out.0;
    }
    let cuda = stack
        .cuda
        .entries()
        .filter_map(|(name, rule)| Some((name.to_string(), rule?.to_string())));
    out.part("cuda", columns(cuda));
    out.part("archs", stack.archs.iter().map(ToString::to_string));
    out.part(
        "env",
        stack.env.iter().map(|(name, value)| format!("{name}={value}")),
    );
    out.part("python", stack.python.iter().map(write_specifiers));
    let packages = stack.packages.iter().map(|rule| {
        let optional = if rule.optional { " (optional)" } else { "" };
        (rule.name.clone(), format!("{}{optional}", rule.version()))
    });
    out.part("packages", columns(packages));
    out.part("files", stack.files.iter().cloned());
    out.part("libraries", stack.libraries.iter().cloned());
    out.part("smoke", columns(stack.smoke.iter().map(smoke)));
    // As with `accept`, nothing is asked for where it is left out.
    if let Some(gpus) = stack.gpus {
        out.part("gpus", [gpus.to_string()]);
    }
    let shm = stack
        .limits
        .shm
        .map(|bytes| ("shm".to_string(), format!(">={}", write_size(bytes))));
    let memlock = stack.limits.memlock.map(|limit| {
        let at_least = if limit == super::Memlock::Unlimited {
            ""
        } else {
            ">="
        };
        ("memlock".to_string(), format!("{at_least}{limit}"))
    });
    let free = stack.limits.gpu_memory_free;
    let free = free.map(|bytes| ("gpu_memory_free".to_string(), format!(">={}", write_size(bytes))));
    out.part("limits", columns(shm.into_iter().chain(memlock).chain(free)));
    // Unlike the other parts, it asks for nothing where it is left out.
    if !stack.accept.is_empty() {
        let accepted = stack.accept.iter().map(|entry| {
            let of = format!("{} of {}", entry.code, entry.subject.name());
            (of, entry.reason.clone())
        });
        out.part("accept", columns(accepted));
    }
    out.0
}

fn smoke(entry: &SmokeEntry) -> (String, String) {
    let what = match entry {
        SmokeEntry::Builtin(_) | SmokeEntry::Native(_) => "built in".to_string(),
        SmokeEntry::Command {
            argv, timeout, gpu, ..
        } => {
            let mut notes = Vec::new();
            notes.extend(timeout.map(|t| format!("within {}", write_duration(t))));
            notes.extend(gpu.then(|| "needs a GPU".to_string()));
            let words: Vec<String> = argv.iter().map(|word| quote(word)).collect();
            match notes.is_empty() {
                true => words.join(" "),
                false => format!("{} ({})", words.join(" "), notes.join(", ")),
            }
        }
    };
    (entry.name().to_string(), what)
}

/// A word as a shell would need it, so that a command can be copied.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// Pairs as lines whose second halves line up.
fn columns(pairs: impl IntoIterator<Item = (String, String)>) -> Vec<String> {
    let pairs: Vec<(String, String)> = pairs.into_iter().collect();
    let width = pairs
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or(0);
    pairs
        .into_iter()
        .map(|(name, value)| format!("{name:width$}  {value}"))
        .collect()
}

struct Table(String);

impl Table {
    fn part(&mut self, name: &str, lines: impl IntoIterator<Item = String>) {
        let mut lines = lines.into_iter().peekable();
        if lines.peek().is_none() {
            self.line(name, "not checked");
        }
        for (index, line) in lines.enumerate() {
            self.line(if index == 0 { name } else { "" }, &line);
        }
    }

    /// A value may hold line breaks and escapes for a terminal (an argument of `python -c`): they are shown.
    fn line(&mut self, name: &str, text: &str) {
        let safe = sanitize(text);
        self.0.push_str(&format!("{name:<9}  {safe}\n"));
    }
}
