//! Facts from JSON, as the helper, the smoke and receipts write them.
//!
//! What serde derives for reading is some 3 KB of code a type, and there are many types here: a tenth of what the whole
//! program may weigh. So writing is serde's, and reading is a table of fields over [`serde_json::Value`]. Unknown
//! fields are left aside; a field that is absent is an error unless its type can be empty. That what is written is read
//! back is tested type by type.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// Why a value could not be made: the field and what was wrong with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadError(String);

impl ReadError {
    /// An error with this sentence.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }

    fn within(self, field: &str) -> Self {
        // `image: python: ...` reads as a path.
        Self(format!("{field}: {}", self.0))
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ReadError {}

/// What can be read from JSON.
pub trait FromJson: Sized {
    /// Makes one from a value.
    ///
    /// # Errors
    /// What is not this type.
    fn from_json(value: Value) -> Result<Self, ReadError>;

    /// What an absent field stands for, where that is allowed.
    fn absent() -> Option<Self> {
        None
    }
}

/// Reads a value from JSON text.
///
/// # Errors
/// Where the text is no JSON, with its place; or which field is not what it must be.
pub fn from_json<T: FromJson>(text: &[u8]) -> Result<T, ReadError> {
    T::from_json(value_of(text).map_err(|e| ReadError::new(e.to_string()))?)
}

/// A value from JSON text in which no object has a key twice.
///
/// # Errors
/// Where it is no JSON, or which key it is, with the place.
pub fn value_of(text: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(text).map(|Strict(value)| value)
}

/// A value in which no object has a key twice. Which of the two counts would be the reader's choice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            let Strict(value) = fields.next_value()?;
            if all.contains_key(&name) {
                return Err(A::Error::custom(format_args!("`{name}` twice")));
            }
            all.insert(name, value);
        }
        Ok(Value::Object(all))
    }
}

/// The fields of an object.
pub struct Fields(Map<String, Value>);

impl Fields {
    /// The fields of `value`.
    ///
    /// # Errors
    /// Where it is no object.
    pub fn of(value: Value) -> Result<Self, ReadError> {
        match value {
            Value::Object(map) => Ok(Self(map)),
            _ => Err(ReadError::new("expected an object")),
        }
    }

    /// Takes a field out.
    ///
    /// # Errors
    /// Where it is absent and must not be, or is not this type.
    pub fn take<T: FromJson>(&mut self, name: &str) -> Result<T, ReadError> {
        match self.raw(name) {
            Some(value) => T::from_json(value).map_err(|e| e.within(name)),
            None => T::absent().ok_or_else(|| ReadError::new(format!("missing field `{name}`"))),
        }
    }

    /// The same for a field that may be absent though its type cannot be empty.
    ///
    /// # Errors
    /// Where it is not this type.
    pub fn take_or_default<T: FromJson + Default>(&mut self, name: &str) -> Result<T, ReadError> {
        match self.raw(name) {
            Some(value) => T::from_json(value).map_err(|e| e.within(name)),
            None => Ok(T::default()),
        }
    }

    // One copy of it for all types.
    #[inline(never)]
    fn raw(&mut self, name: &str) -> Option<Value> {
        self.0.swap_remove(name)
    }

    /// What is left, as a value again: for the fields of a flattened type.
    pub fn rest(self) -> Value {
        Value::Object(self.0)
    }

    /// The only field, as serde writes an enum's variant with content.
    ///
    /// # Errors
    /// Where there is none, or more than one.
    pub fn variant(self) -> Result<(String, Value), ReadError> {
        let mut all = self.0.into_iter();
        match (all.next(), all.next()) {
            (Some(only), None) => Ok(only),
            _ => Err(ReadError::new("expected an object with one key")),
        }
    }
}

fn unexpected(what: &str) -> ReadError {
    ReadError::new(format!("expected {what}"))
}

impl FromJson for String {
    fn from_json(value: Value) -> Result<Self, ReadError> {
        match value {
            Value::String(text) => Ok(text),
            _ => Err(unexpected("a string")),
        }
    }
}

impl FromJson for bool {
    fn from_json(value: Value) -> Result<Self, ReadError> {
        value.as_bool().ok_or_else(|| unexpected("true or false"))
    }
}

impl FromJson for f64 {
    fn from_json(value: Value) -> Result<Self, ReadError> {
        value.as_f64().ok_or_else(|| unexpected("a number"))
    }
}

impl FromJson for u64 {
    fn from_json(value: Value) -> Result<Self, ReadError> {
        value
            .as_u64()
            .ok_or_else(|| unexpected("a whole number of 0 or more"))
    }
}

impl FromJson for i64 {
    fn from_json(value: Value) -> Result<Self, ReadError> {
        value.as_i64().ok_or_else(|| unexpected("a whole number"))
    }
}

macro_rules! narrower {
    ($($type:ty, $wide:ty;)*) => {$(
        impl FromJson for $type {
            fn from_json(value: Value) -> Result<Self, ReadError> {
                <$type>::try_from(<$wide>::from_json(value)?).map_err(|_| unexpected("a smaller number"))
            }
        }
    )*};
}
narrower! { u32, u64; usize, u64; i32, i64; }

impl<T: FromJson> FromJson for Option<T> {
    fn from_json(value: Value) -> Result<Self, ReadError> {
        match value {
            Value::Null => Ok(None),
            value => T::from_json(value).map(Some),
        }
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: FromJson> FromJson for Vec<T> {
    fn from_json(value: Value) -> Result<Self, ReadError> {
        match value {
            Value::Array(items) => items.into_iter().map(T::from_json).collect(),
            _ => Err(unexpected("an array")),
        }
    }

    fn absent() -> Option<Self> {
        Some(Vec::new())
    }
}

impl<K: FromJson + Ord, V: FromJson> FromJson for BTreeMap<K, V> {
    fn from_json(value: Value) -> Result<Self, ReadError> {
        let fields = Fields::of(value)?;
        let mut map = Self::new();
        for (key, value) in fields.0 {
            map.insert(K::from_json(Value::String(key))?, V::from_json(value)?);
        }
        Ok(map)
    }

    fn absent() -> Option<Self> {
        Some(Self::new())
    }
}

/// A struct by its fields: `object!(Type { a, b; or_default c; flat d })`. Fields behind `or_default` may be absent
/// though their types cannot be empty; `flat` is a tagged enum whose fields lie among the struct's own.
macro_rules! object {
    ($type:ident { $($field:ident),* $(; or_default $($lenient:ident),*)? $(; flat $flat:ident)? }) => {
        impl $crate::facts::read::FromJson for $type {
            fn from_json(value: serde_json::Value) -> Result<Self, $crate::facts::read::ReadError> {
                #[allow(unused_mut)]
                let mut fields = $crate::facts::read::Fields::of(value)?;
                Ok(Self {
                    $($field: fields.take(stringify!($field))?,)*
                    $($($lenient: fields.take_or_default(stringify!($lenient))?,)*)?
                    $($flat: $crate::facts::read::FromJson::from_json(fields.rest())?,)?
                })
            }
        }
    };
}

/// An enum without fields, by its words.
macro_rules! words {
    ($type:ident { $($word:literal $variant:ident),* }) => {
        impl $crate::facts::read::FromJson for $type {
            fn from_json(value: serde_json::Value) -> Result<Self, $crate::facts::read::ReadError> {
                match value.as_str() {
                    $(Some($word) => Ok(Self::$variant),)*
                    _ => Err($crate::facts::read::ReadError::new(concat!("expected one of:" $(, " ", $word)*))),
                }
            }
        }
    };
}

/// An enum whose variant is named by one of its own fields.
macro_rules! tagged {
    ($type:ident by $tag:literal { $($word:literal $variant:ident { $($field:ident),* }),* }) => {
        impl $crate::facts::read::FromJson for $type {
            fn from_json(value: serde_json::Value) -> Result<Self, $crate::facts::read::ReadError> {
                let mut fields = $crate::facts::read::Fields::of(value)?;
                let tag: String = fields.take($tag)?;
                match tag.as_str() {
                    $($word => Ok(Self::$variant { $($field: fields.take(stringify!($field))?,)* }),)*
                    _ => Err($crate::facts::read::ReadError::new(concat!($tag, ": expected one of:" $(, " ", $word)*))),
                }
            }
        }
    };
}

/// An enum that serde tags from outside: `{"word": content}`, or `"word"` for the variants behind the semicolon.
macro_rules! lines {
    ($type:ident { $($word:literal $variant:ident),* $(; $($bare_word:literal $bare:ident),*)? }) => {
        impl $crate::facts::read::FromJson for $type {
            fn from_json(value: serde_json::Value) -> Result<Self, $crate::facts::read::ReadError> {
                match value.as_str() {
                    $($(Some($bare_word) => return Ok(Self::$bare),)*)?
                    Some(_) => return Err($crate::facts::read::ReadError::new("an unknown word")),
                    None => {}
                }
                let (word, content) = $crate::facts::read::Fields::of(value)?.variant()?;
                match word.as_str() {
                    $($word => $crate::facts::read::FromJson::from_json(content).map(Self::$variant),)*
                    _ => Err($crate::facts::read::ReadError::new(format!("an unknown key `{word}`"))),
                }
            }
        }
    };
}

pub(crate) use {lines, object, tagged, words};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Facts, HelperLine, HelperRun};

    #[test]
    fn what_is_missing_or_wrong_is_named_by_its_path() {
        for (text, part) in [
            (r#"{"image": 5}"#, "image: expected an object"),
            (r#"{}"#, "missing field `image`"),
            (
                r#"{"image": {"python": {"version": 3}}}"#,
                "image: python: version: expected a string",
            ),
            ("[]", "expected an object"),
            ("{\"a\"", "line 1 column"),
            ("", "line 1 column 0"),
        ] {
            let error = from_json::<Facts>(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        for (text, part) in [
            ("\"hello\"", "unknown word"),
            (r#"{"surprise": 1}"#, "unknown key `surprise`"),
            (r#"{"step": "a", "library": 1}"#, "one key"),
            (r#"{"step": 1}"#, "expected a string"),
            (r#"{"library": {"index": -1}}"#, "0 or more"),
            (
                r#"{"device": {"ordinal": 99999999999, "name": ""}}"#,
                "smaller number",
            ),
            (
                r#"{"device": {"ordinal": 0, "name": "", "capability": "9"}}"#,
                "MAJOR.MINOR",
            ),
        ] {
            let error = from_json::<HelperLine>(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let error = from_json::<HelperRun>(br#"{"end": "lost"}"#)
            .unwrap_err()
            .to_string();
        assert!(error.contains("expected one of: not-run done"), "{error}");
    }
}
