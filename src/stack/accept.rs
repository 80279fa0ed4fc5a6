//! Findings that a manifest accepts, by package or by library, each with a reason.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::error::{Problem, quoted};
use super::json::{Object, Text, object};
use super::packages::{check_name, normalize_name};
use crate::check::Code;
use crate::check::accept::{Accept, Subject};

/// Longest reason and name of a library, in bytes.
const MAX_TEXT: usize = 500;

/// The codes that an entry can name, as JSON strings for the schema.
pub(super) fn codes() -> String {
    let codes = Code::all().filter(|code| !code.accepted_by().is_empty());
    let names: Vec<String> = codes.map(|code| format!("\"{code}\"")).collect();
    names.join(", ")
}

/// The manifest's `accept`.
pub(super) struct AcceptSeed;

impl<'de> DeserializeSeed<'de> for AcceptSeed {
    type Value = Vec<Accept>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for AcceptSeed {
    type Value = Vec<Accept>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects with the keys code, package or library, and reason")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        let mut seen = BTreeSet::new();
        while let Some(entry) = seq.next_element_seed(EntrySeed(&mut seen))? {
            entries.push(entry);
        }
        Ok(entries)
    }
}

struct EntrySeed<'a>(&'a mut BTreeSet<(Code, Subject)>);

impl<'de> DeserializeSeed<'de> for EntrySeed<'_> {
    type Value = Accept;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Accept, D::Error> {
        let entry = object::<Form>().deserialize(deserializer)?;
        match self.0.insert((entry.code, entry.subject.clone())) {
            true => Ok(entry),
            false => Err(D::Error::custom(Problem::value(
                format!(
                    "{} of {} is accepted twice",
                    entry.code,
                    quoted(entry.subject.name())
                ),
                "remove one of the two entries",
            ))),
        }
    }
}

/// `{"code": …, "package": …, "reason": …}`.
#[derive(Default)]
pub(super) struct Form {
    code: Option<Code>,
    package: Option<String>,
    library: Option<String>,
    reason: Option<String>,
}

impl Object for Form {
    type Output = Accept;
    const KEYS: &'static [&'static str] = &["code", "package", "library", "reason"];
    const EXPECTING: &'static str = "an object with the keys code, package or library, and reason";

    fn set<'de, A: MapAccess<'de>>(&mut self, key: &'static str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "code" => {
                self.code = Some(map.next_value_seed(Text {
                    expecting: "the code of a finding as a string",
                    parse: parse_code,
                })?);
            }
            "package" => {
                self.package = Some(map.next_value_seed(Text {
                    expecting: "the name of a package as a string",
                    parse: |name: &str| check_name(name).map(|()| normalize_name(name)),
                })?);
            }
            "library" => {
                self.library = Some(map.next_value_seed(Text {
                    expecting: "the file name of a library as a string, such as \"libnccl.so.2\"",
                    parse: |text: &str| check_text(text, "name the library's file, such as \"libnccl.so.2\""),
                })?);
            }
            _ => {
                self.reason = Some(map.next_value_seed(Text {
                    expecting: "the reason as a string",
                    parse: |text: &str| check_text(text, "say why, such as \"pair tested on an H100\""),
                })?);
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Accept, Problem> {
        let missing = |key: &str, hint: &str| Problem::value(format!("the key `{key}` is missing"), hint);
        let code = self
            .code
            .ok_or_else(|| missing("code", "name the finding, such as \"requires-dist\""))?;
        let subject = match (self.package, self.library) {
            (Some(package), None) => Subject::Package(package),
            (None, Some(library)) => Subject::Library(library),
            (None, None) => {
                return Err(Problem::value(
                    format!("nothing says what {code} is accepted for"),
                    format!("add the key {}", either(code)),
                ));
            }
            (Some(_), Some(_)) => {
                return Err(Problem::value(
                    "the entry names a package and a library",
                    "write an entry for each of the two",
                ));
            }
        };
        if !code.accepted_by().contains(&subject.key()) {
            return Err(Problem::value(
                format!("{code} is not accepted by {}", subject.key()),
                format!("name what it is about with {}", either(code)),
            ));
        }
        let reason = self.reason.ok_or_else(|| {
            missing(
                "reason",
                "say why, such as \"pair tested on an H100\"; the report shows it",
            )
        })?;
        Ok(Accept {
            code,
            subject,
            reason,
        })
    }
}

/// The keys by which a code is accepted, for people.
fn either(code: Code) -> String {
    let keys: Vec<String> = code.accepted_by().iter().map(|key| format!("`{key}`")).collect();
    keys.join(" or ")
}

fn parse_code(text: &str) -> Result<Code, Problem> {
    let code: Code = text.parse().map_err(|_| {
        let nearest = crate::nearest(text, Code::all().map(Code::name));
        let hint = match nearest {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "`cuda-entrypoint explain` lists the codes".to_string(),
        };
        Problem::value(format!("no finding is called {}", quoted(text)), hint)
    })?;
    if code.accepted_by().is_empty() {
        let hint = match code {
            Code::PackageMissing => "write \"optional\": true for the package instead".to_string(),
            Code::FileMissing => "remove the file from `files` instead".to_string(),
            Code::PythonVersion => {
                "change `python` in the manifest, or give --allow python-version".to_string()
            }
            _ => format!("give --allow {code} or --warn {code} where the container is started"),
        };
        return Err(Problem::value(
            format!("{code} cannot be accepted: it is not about one package or library of the image"),
            hint,
        ));
    }
    Ok(code)
}

fn check_text(text: &str, hint: &str) -> Result<String, Problem> {
    if text.trim().is_empty() {
        return Err(Problem::value("the text is empty", hint));
    }
    if text.len() > MAX_TEXT {
        return Err(Problem::value(
            format!("the text is longer than {MAX_TEXT} bytes"),
            "shorten it",
        ));
    }
    Ok(text.trim().to_string())
}

/// Writes entries as the objects that they were read from.
pub(super) struct Entries<'a>(pub(super) &'a [Accept]);

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Entry))
    }
}

struct Entry<'a>(&'a Accept);

impl Serialize for Entry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("code", self.0.code.name())?;
        map.serialize_entry(self.0.subject.key(), self.0.subject.name())?;
        map.serialize_entry("reason", &self.0.reason)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Stack;
    use serde_json::{Value, json};

    fn parse(accept: Value) -> Result<Stack, String> {
        let manifest = json!({"schema": 1, "name": "test", "accept": accept}).to_string();
        Stack::parse(&manifest).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn entries_are_read_and_written() {
        let accept = json!([
            {"code": "requires-dist", "package": "cumm-cu124", "reason": "pair tested"},
            {"code": "library-shadowed", "library": "libnccl.so.2", "reason": "the newer one"},
            {"code": "requires-dist", "package": "numpy", "reason": "é"},
        ]);
        let stack = parse(accept.clone()).unwrap();
        assert_eq!(stack.accept.len(), 3);
        assert_eq!(serde_json::to_value(&stack).unwrap()["accept"], accept);
        let named = json!([{"code": "requires-dist", "package": "Cumm_CU124", "reason": "x"}]);
        assert_eq!(parse(named).unwrap().accept[0].subject.name(), "cumm-cu124");
        assert!(parse(json!([])).unwrap().accept.is_empty());
    }

    #[test]
    fn what_makes_no_sense_says_why() {
        let one = |entry: Value| json!([entry]);
        let twice = json!({"code": "requires-dist", "package": "a", "reason": "x"});
        let lines: Vec<String> = [
            json!({}),
            one(json!("requires-dist")),
            one(json!({})),
            one(json!({"code": "requires-dit", "package": "a", "reason": "x"})),
            one(json!({"code": "zzz", "package": "a", "reason": "x"})),
            one(json!({"code": "driver-missing", "package": "a", "reason": "x"})),
            one(json!({"code": "smoke-timeout", "package": "a", "reason": "x"})),
            one(json!({"code": "package-missing", "package": "a", "reason": "x"})),
            one(json!({"code": "file-missing", "package": "a", "reason": "x"})),
            one(json!({"code": "requires-dist", "reason": "x"})),
            one(json!({"code": "requires-dist", "package": "a"})),
            one(json!({"code": "requires-dist", "package": "a", "reason": " "})),
            one(json!({"code": "requires-dist", "package": "a", "reason": "x".repeat(501)})),
            one(json!({"code": "requires-dist", "package": "a b", "reason": "x"})),
            one(json!({"code": "requires-dist", "library": "liba.so", "reason": "x"})),
            one(json!({"code": "library-shadowed", "package": "a", "reason": "x"})),
            one(json!({"code": "requires-dist", "package": "a", "library": "b", "reason": "x"})),
            one(json!({"code": "requires-dist", "package": "a", "reson": "x"})),
            json!([twice, {"code": "requires-dist", "package": "A", "reason": "y"}]),
        ]
        .into_iter()
        .map(|accept| parse(accept).unwrap_err())
        .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
