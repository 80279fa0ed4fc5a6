//! `CUDA_ENTRYPOINT_…`: the options as variables.

use std::collections::BTreeSet;
use std::ffi::OsString;

use crate::nearest;
use crate::order;

use super::commands::{COMMANDS, OwnOption};
use super::options::{OPTIONS, Settings};
use super::setting::{Origin, Setting};
use super::table::PREFIX;

/// Settings from `CUDA_ENTRYPOINT_…`. An empty value is as good as none: compose files and charts make such.
pub(super) fn from_variables(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> (Settings, Vec<(String, String)>) {
    let mut settings = Settings::default();
    let mut near_misses = Vec::new();
    let mut seen = BTreeSet::new();
    for (name, value) in variables {
        let Some(name) = name.to_str() else { continue };
        let Some(short) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if let Some(spec) = OPTIONS.iter().find(|o| o.variable() == short) {
            // Of a name that stands twice the first counts, as getenv(3) has it.
            if !value.is_empty() && seen.insert(spec.flag) {
                (spec.slot)(&mut settings).push(Setting {
                    value,
                    origin: Origin::Variable(name.to_string()),
                });
            }
        } else if let Some(meant) = near_miss(short) {
            near_misses.push((name.to_string(), meant));
        }
    }
    order::sort(&mut near_misses);
    (settings, near_misses)
}

/// The variable that a misspelt one was probably meant to be. Kubernetes makes `…_SERVICE_HOST`, `…_PORT` and
/// `…_PORT_80_TCP…` for a service of our name; those are no mistakes.
fn near_miss(short: &str) -> Option<String> {
    if short == "PORT" || short.starts_with("PORT_") || short.starts_with("SERVICE_") {
        return None;
    }
    // An option of one command has no variable; it is not a misspelt one of another.
    let is_own = |option: &&OwnOption| option.flag.to_ascii_uppercase() == short && option.flag != "json";
    let mut commands = COMMANDS.iter();
    if let Some((command, option)) = commands.find_map(|c| Some((c, c.own.iter().find(is_own)?))) {
        return Some(format!(
            "the option --{} of {}, which has no variable",
            option.flag, command.name
        ));
    }
    let known: Vec<String> = OPTIONS.iter().map(|option| option.variable()).collect();
    nearest(short, known.iter().map(String::as_str)).map(|meant| format!("{PREFIX}{meant}"))
}
