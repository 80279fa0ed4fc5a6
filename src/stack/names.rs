//! Names in a manifest: of the stack, of variables, of files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component, Path};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

use super::error::{Problem, quoted};
use super::json::{Text, twice};

/// The name of a stack or of a smoke. It stands in one-line verdicts, so it is one short word.
pub(super) fn check_label(text: &str) -> Result<String, Problem> {
    let starts = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let word = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
    if starts && text.len() <= 100 && text.bytes().all(word) {
        return Ok(text.to_string());
    }
    Err(Problem::value(
        format!("{} is not a valid name", quoted(text)),
        A_NAME,
    ))
}

const A_NAME: &str =
    "a name is at most 100 ASCII letters, digits, `.`, `_`, `+` and `-`, and starts with a letter or a digit";

/// Whether a manifest may have this name.
///
/// # Errors
/// What a name is.
pub fn check_name(text: &str) -> Result<(), &'static str> {
    check_label(text).map(|_| ()).map_err(|_| A_NAME)
}

/// What our own settings start with. A manifest cannot set them: they are read before the manifest is.
pub(super) const OWN_PREFIX: &str = "CUDA_ENTRYPOINT_";

fn check_variable(name: &str) -> Result<(), Problem> {
    if name.starts_with(OWN_PREFIX) {
        return Err(Problem::key(
            format!(
                "{} is a setting of cuda-entrypoint, which is read before the manifest",
                quoted(name)
            ),
            "set it in the image (ENV) or in the container's environment",
        ));
    }
    let starts = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if starts && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Ok(());
    }
    Err(Problem::key(
        format!("{} is not a valid environment variable name", quoted(name)),
        "a name is made of ASCII letters, digits and `_`, and starts with no digit",
    ))
}

/// Most bytes of `NAME=VALUE` with the NUL at its end: `MAX_ARG_STRLEN` of execve(2), 32 pages.
const LONGEST_VARIABLE: usize = 32 * 4096;

fn check_value(name: &str, value: &str) -> Result<String, Problem> {
    if value.contains('\0') {
        return Err(Problem::value(
            "the value of a variable cannot hold a NUL character",
            "remove the \\u0000",
        ));
    }
    let bytes = name.len() + 1 + value.len() + 1;
    if bytes > LONGEST_VARIABLE {
        return Err(Problem::value(
            format!(
                "{name} has {bytes} bytes, and no program can be started with a variable of more than {LONGEST_VARIABLE}"
            ),
            "shorten it, or have the service read a file",
        ));
    }
    Ok(value.to_string())
}

/// The manifest's `env`.
pub(super) struct EnvSeed;

impl<'de> DeserializeSeed<'de> for EnvSeed {
    type Value = BTreeMap<String, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EnvSeed {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of variables and their values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut env = BTreeMap::new();
        loop {
            let next = map.next_key_seed(Text {
                expecting: "the name of a variable",
                parse: |name: &str| {
                    check_variable(name)?;
                    match env.contains_key(name) {
                        true => Err(twice(name)),
                        false => Ok(name.to_string()),
                    }
                },
            })?;
            let Some(name) = next else { return Ok(env) };
            let value = map.next_value_seed(Text {
                expecting: "a string",
                parse: |value: &str| check_value(&name, value),
            })?;
            env.insert(name, value);
        }
    }
}

/// A file relative to site-packages. It must not lead out of it: the file is reported, and the report may travel.
pub(super) fn check_file(seen: &mut BTreeSet<String>, text: &str) -> Result<String, Problem> {
    let refuse = |reason: &str, hint: &str| Err(Problem::value(format!("{} {reason}", quoted(text)), hint));
    let relative = "name it relative to site-packages, such as \"cumm/include/tensorview/core/all.h\"";
    if text.is_empty() {
        return refuse("names no file", relative);
    }
    if text.chars().any(char::is_control) {
        return refuse("holds a control character", "remove it");
    }
    for component in Path::new(text).components() {
        match component {
            Component::Normal(_) => {}
            Component::ParentDir => return refuse("leads out of site-packages", "name it without `..`"),
            Component::CurDir => return refuse("starts with `.`", relative),
            Component::RootDir | Component::Prefix(_) => return refuse("is an absolute path", relative),
        }
    }
    if !seen.insert(text.to_string()) {
        return refuse("is listed twice", "remove one of the two");
    }
    Ok(text.to_string())
}

/// A library or program by its absolute path, in which `*`, `?` and `[…]` stand for parts of one name.
pub(super) fn check_library(seen: &mut BTreeSet<String>, text: &str) -> Result<String, Problem> {
    let refuse = |reason: &str, hint: &str| Err(Problem::value(format!("{} {reason}", quoted(text)), hint));
    let absolute = "name it by its absolute path, such as \"/opt/app/lib/*.so\"";
    if text.chars().any(char::is_control) {
        return refuse("holds a control character", "remove it");
    }
    if !text.starts_with('/') {
        return refuse("is not an absolute path", absolute);
    }
    if text.split('/').any(|part| part == "..") {
        return refuse("holds `..`", absolute);
    }
    if text.contains("**") {
        return refuse(
            "searches folders inside folders",
            "name each folder: `*` stands for a part of one name",
        );
    }
    if let Err(error) = glob::Pattern::new(text) {
        return refuse(
            &format!("is not a pattern: {}", error.msg),
            "write `[*]` for a `*` that is part of the name",
        );
    }
    if !seen.insert(text.to_string()) {
        return refuse("is listed twice", "remove one of the two");
    }
    Ok(text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_no_longer_than_a_program_can_be_given() {
        let of = |length: usize| check_value("LONG", &"x".repeat(length));
        let longest = LONGEST_VARIABLE - "LONG=".len() - 1;
        assert!(of(longest).is_ok());
        assert!(of(longest + 1).is_err());
    }

    #[test]
    fn labels_are_short_words() {
        for good in ["a", "pointcept-cu124", "7.x_+-", &"a".repeat(100)] {
            assert!(check_label(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a b", "é", "a\n", ".a", &"a".repeat(101)] {
            assert!(check_label(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn variables_are_those_of_a_shell() {
        for good in ["A", "_a1", "SPCONV_DISABLE_JIT", "LD_PRELOAD", "CUDA_ENTRYPOINT"] {
            assert!(check_variable(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "1A",
            "A=B",
            "A B",
            "A\0",
            "é",
            "A-B",
            "CUDA_ENTRYPOINT_MODE",
            "CUDA_ENTRYPOINT_",
        ] {
            assert!(check_variable(bad).is_err(), "{bad:?}");
        }
        assert!(check_value("A", "a\0b").is_err());
        assert_eq!(check_value("A", "").unwrap(), "");
    }

    #[test]
    fn files_stay_inside() {
        for good in ["a", "a/b.h", "a/..b/c", "a b"] {
            assert!(check_file(&mut BTreeSet::new(), good).is_ok(), "{good}");
        }
        for bad in [
            "", "/a", "../a", "a/../b", "./a", ".", "..", "a/..", "a\nb", "a\0",
        ] {
            assert!(check_file(&mut BTreeSet::new(), bad).is_err(), "{bad:?}");
        }
        assert!(check_file(&mut BTreeSet::from(["a".to_string()]), "a").is_err());
    }
}
