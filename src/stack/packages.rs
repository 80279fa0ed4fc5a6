//! Which Python distributions a manifest wants, in which versions.

use std::collections::BTreeMap;
use std::fmt;

use pep440_rs::{Operator, Version, VersionSpecifier, VersionSpecifiers};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::error::{Problem, quoted};
use super::json::{Flag, Object, Text, read_object, twice};
use crate::text::sanitize;

/// One distribution that must be installed.
#[derive(Clone, PartialEq, Debug)]
pub struct PackageRule {
    /// as the manifest writes it
    pub name: String,
    /// the form in which names compare; see [`normalize_name`]
    pub normalized: String,
    /// accepted versions (PEP 440); `None` accepts every one
    pub specifiers: Option<VersionSpecifiers>,
    /// whether it may be absent; where it is present, its version counts
    pub optional: bool,
}

impl PackageRule {
    /// A rule that asks for `specifiers` of the distribution `name`.
    pub fn new(name: impl Into<String>, specifiers: Option<VersionSpecifiers>) -> Self {
        let name = name.into();
        Self {
            normalized: normalize_name(&name),
            name,
            specifiers,
            optional: false,
        }
    }

    /// The accepted versions as the manifest writes them, `*` for every one.
    pub fn version(&self) -> String {
        match &self.specifiers {
            Some(specifiers) => write_specifiers(specifiers),
            None => "*".to_string(),
        }
    }
}

/// The form of a distribution's name that PEP 503 compares: lower case, and every run of `-`, `_` and `.` is one `-`.
pub fn normalize_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if out.ends_with('-') => {}
            '-' | '_' | '.' => out.push('-'),
            _ => out.push(c.to_ascii_lowercase()),
        }
    }
    out
}

/// Specifiers as manifests write them, without blanks.
pub(super) fn write_specifiers(specifiers: &VersionSpecifiers) -> String {
    let parts: Vec<String> = specifiers.iter().map(ToString::to_string).collect();
    parts.join(",")
}

/// Parses PEP 440 specifiers. The crate's own error draws a picture of several lines; this one is a sentence.
fn parse_specifiers(text: &str) -> Result<VersionSpecifiers, Problem> {
    if text.trim().is_empty() {
        return Err(Problem::value(
            "the version is empty",
            "write \"*\" for every version, or \"==1.2.3\"",
        ));
    }
    let parts: Result<Vec<VersionSpecifier>, Problem> = text.split(',').map(parse_specifier).collect();
    Ok(parts?.into_iter().collect())
}

fn parse_specifier(text: &str) -> Result<VersionSpecifier, Problem> {
    let part = text.trim();
    part.parse::<VersionSpecifier>().map_err(|error| {
        if part.is_empty() {
            return Problem::value(
                "a version specifier is missing beside a comma",
                "remove the comma, or write what it separates",
            );
        }
        let has_operator = part.starts_with(['=', '!', '<', '>', '~']);
        let reason = match has_operator {
            true => sanitize(&error.to_string()),
            false => "it does not start with a comparison operator".to_string(),
        };
        let mut message = format!("{} is not a PEP 440 version specifier", quoted(part));
        if reason.len() <= 160 {
            message = format!("{message}: {reason}");
        }
        Problem::value(message, specifier_hint(part))
    })
}

/// What was probably meant.
fn specifier_hint(part: &str) -> String {
    let bare = part.trim_start_matches(['=', '~']).trim_start();
    if bare == "*" {
        return "write \"*\" for every version".to_string();
    }
    let operator = match part.chars().next() {
        Some('~') => "~=",
        Some('=' | '0'..='9' | 'v') => "==",
        _ => "",
    };
    let meant = format!("{operator}{bare}");
    if !operator.is_empty() && meant != part && meant.parse::<VersionSpecifier>().is_ok() {
        return format!("did you mean {}?", quoted(&meant));
    }
    if part.contains(char::is_whitespace) {
        return "separate specifiers by commas, such as \">=1.2,<2\"".to_string();
    }
    match part.contains('+') {
        true => "only == and != can name a local version such as +cu124".to_string(),
        false => "the operators are ==, !=, <=, >=, <, >, ~= and ===".to_string(),
    }
}

/// The manifest's `python`: versions of the interpreter.
pub(super) fn parse_python(text: &str) -> Result<VersionSpecifiers, Problem> {
    if text.trim() == "*" {
        return Err(Problem::value(
            "`*` asks nothing of the interpreter",
            "leave `python` out, or write a range such as \">=3.9,<3.13\"",
        ));
    }
    if let Ok(version) = text.trim().parse::<Version>() {
        let any_patch = if version.release().len() < 3 { ".*" } else { "" };
        return Err(Problem::value(
            format!("{} does not start with a comparison operator", quoted(text)),
            format!("did you mean `=={version}{any_patch}`?"),
        ));
    }
    let specifiers = parse_specifiers(text)?;
    // PEP 440 pads with zeros: ==3.11 is 3.11.0 and never the 3.11.7 that is installed.
    let unpatched =
        |s: &&VersionSpecifier| *s.operator() == Operator::Equal && s.version().release().len() < 3;
    match specifiers.iter().find(unpatched) {
        Some(trap) => Err(Problem::value(
            format!("`{trap}` means the one release {}.0", trap.version()),
            format!("did you mean `{trap}.*`?"),
        )),
        None => Ok(specifiers),
    }
}

fn parse_version(text: &str) -> Result<Option<VersionSpecifiers>, Problem> {
    match text.trim() {
        "*" => Ok(None),
        _ => parse_specifiers(text).map(Some),
    }
}

/// Letters, digits and, inside, `-`, `_` and `.`. Source: PyPA, "Names and normalization".
pub(super) fn check_name(name: &str) -> Result<(), Problem> {
    let alphanumeric = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if alphanumeric(name.bytes().next()) && alphanumeric(name.bytes().last()) && name.bytes().all(inner) {
        return Ok(());
    }
    let hint = match name.find(['[', '=', '<', '>', '~', '!', ' ']) {
        Some(at) if at > 0 => "the key is the name alone, without extras or versions",
        _ => "a name is made of ASCII letters and digits with `-`, `_` and `.` between them",
    };
    Err(Problem::key(
        format!("{} is not a valid Python distribution name", quoted(name)),
        hint,
    ))
}

/// The manifest's `packages`: names to rules, in the manifest's order.
pub(super) struct PackagesSeed;

impl<'de> DeserializeSeed<'de> for PackagesSeed {
    type Value = Vec<PackageRule>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for PackagesSeed {
    type Value = Vec<PackageRule>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of package names and versions")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut rules: Vec<PackageRule> = Vec::new();
        let mut spellings: BTreeMap<String, String> = BTreeMap::new();
        loop {
            let next = map.next_key_seed(Text {
                expecting: "a package name",
                parse: |name: &str| {
                    check_name(name)?;
                    match spellings.get(&normalize_name(name)) {
                        None => Ok(name.to_string()),
                        Some(earlier) if earlier == name => Err(twice(name)),
                        Some(earlier) => Err(Problem::key(
                            format!("{} and {} are one package", quoted(earlier), quoted(name)),
                            "remove one of the two; case, `-`, `_` and `.` do not distinguish packages",
                        )),
                    }
                },
            })?;
            let Some(name) = next else { return Ok(rules) };
            let (specifiers, optional) = map.next_value_seed(VersionSeed)?;
            let rule = PackageRule {
                optional,
                ..PackageRule::new(name, specifiers)
            };
            spellings.insert(rule.normalized.clone(), rule.name.clone());
            rules.push(rule);
        }
    }
}

/// A version, or the long form with `optional`.
struct VersionSeed;

impl<'de> DeserializeSeed<'de> for VersionSeed {
    type Value = (Option<VersionSpecifiers>, bool);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for VersionSeed {
    type Value = (Option<VersionSpecifiers>, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a version as a string, such as \"==1.2.3\" or \"*\", or an object with version and optional",
        )
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        parse_version(text)
            .map(|specifiers| (specifiers, false))
            .map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        read_object::<LongForm, A>(map)
    }
}

/// `{"version": "==2.2.0", "optional": true}`.
#[derive(Default)]
pub(super) struct LongForm {
    specifiers: Option<VersionSpecifiers>,
    optional: bool,
}

impl Object for LongForm {
    type Output = (Option<VersionSpecifiers>, bool);
    const KEYS: &'static [&'static str] = &["version", "optional"];
    const EXPECTING: &'static str = "an object with the keys version and optional";

    fn set<'de, A: MapAccess<'de>>(&mut self, key: &'static str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "version" => {
                self.specifiers = map.next_value_seed(Text {
                    expecting: "a version as a string, such as \"==1.2.3\" or \"*\"",
                    parse: parse_version,
                })?;
            }
            _ => self.optional = map.next_value_seed(Flag("true or false"))?,
        }
        Ok(())
    }

    fn finish(self) -> Result<Self::Output, Problem> {
        Ok((self.specifiers, self.optional))
    }
}

/// Writes rules as the object that they were read from.
pub(super) struct Packages<'a>(pub(super) &'a [PackageRule]);

impl Serialize for Packages<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Long {
            version: String,
            optional: bool,
        }
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for rule in self.0 {
            let version = rule.version();
            match rule.optional {
                false => map.serialize_entry(&rule.name, &version)?,
                true => map.serialize_entry(
                    &rule.name,
                    &Long {
                        version,
                        optional: true,
                    },
                )?,
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_compare_as_pep_503_says() {
        for (name, normalized) in [
            ("Torch_Scatter", "torch-scatter"),
            ("zope.interface", "zope-interface"),
            ("a-_.b", "a-b"),
            ("spconv-cu124", "spconv-cu124"),
        ] {
            assert_eq!(normalize_name(name), normalized);
        }
    }

    #[test]
    fn names_that_no_index_accepts_are_refused() {
        for name in ["torch", "a", "A.b_c-1", "7zip"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in [
            "",
            "-a",
            "a-",
            ".",
            "torch[cuda]",
            "torch==2",
            "a b",
            "é",
            "a\0b",
            "a/b",
        ] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn specifiers_are_those_of_pep_440() {
        let accepts = |spec: &str, version: &str| {
            let parsed = parse_specifiers(spec).unwrap_or_else(|e| panic!("{spec}: {}", e.sentence()));
            parsed.contains(&version.parse().unwrap())
        };
        assert!(accepts("==2.5.0+cu124", "2.5.0+cu124"));
        assert!(!accepts("==2.5.0+cu124", "2.5.0+cu121"));
        assert!(accepts("==2.5.0", "2.5.0+cu124"));
        assert!(accepts("==12.4.5.8", "12.4.5.8"));
        assert!(accepts(" >=1.2 , <2 ", "1.9") && !accepts(">=1.2,<2", "2.0"));
        assert!(accepts("==2.1.2+pt25cu124", "2.1.2+pt25cu124"));
    }

    #[test]
    fn errors_name_what_was_meant() {
        let specifiers = [
            "",
            " ",
            "2.5.0",
            "=2.5.0",
            "~2.5",
            "^2.5",
            ">=1.2 <2",
            ">=1.2,",
            ">=2.5+cu124",
            "latest",
            "==",
            "==*",
            "≥1.2",
            "==1.\u{1b}[31m",
            "=== 1",
        ]
        .iter()
        .map(|text| match parse_specifiers(text) {
            Ok(found) => format!("{text:?} is {}", write_specifiers(&found)),
            Err(problem) => format!("{text:?}: {}", problem.sentence()),
        });
        let python = ["*", "3.11", "==3.11", "==3.11.*", "==3.11.7", ">=3.9,<3.13"]
            .iter()
            .map(|text| match parse_python(text) {
                Ok(found) => format!("python {text:?} is {}", write_specifiers(&found)),
                Err(problem) => format!("python {text:?}: {}", problem.sentence()),
            });
        let lines: Vec<String> = specifiers.chain(python).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
