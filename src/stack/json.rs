//! The shapes of JSON that a manifest is made of, as serde seeds whose errors say what was found and what is meant.
//!
//! Derived implementations would accept the same documents, but their errors name neither the nearest key nor the
//! way out, and untagged enums lose the position.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::error::{Problem, quoted};

/// A string that `parse` turns into a `T`; also for keys.
pub(super) struct Text<F> {
    pub(super) expecting: &'static str,
    pub(super) parse: F,
}

impl<'de, T, F: FnOnce(&str) -> Result<T, Problem>> DeserializeSeed<'de> for Text<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<T, F: FnOnce(&str) -> Result<T, Problem>> Visitor<'_> for Text<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(E::custom)
    }
}

/// An array of strings; `parse` also gets the index.
pub(super) struct Texts<F> {
    pub(super) expecting: &'static str,
    pub(super) parse: F,
}

impl<'de, F: FnMut(usize, &str) -> Result<String, Problem>> DeserializeSeed<'de> for Texts<F> {
    type Value = Vec<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<String>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(usize, &str) -> Result<String, Problem>> Visitor<'de> for Texts<F> {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Vec<String>, A::Error> {
        let mut items = Vec::new();
        loop {
            let next = seq.next_element_seed(Text {
                expecting: "a string",
                parse: |text: &str| (self.parse)(items.len(), text),
            })?;
            match next {
                Some(item) => items.push(item),
                None => return Ok(items),
            }
        }
    }
}

/// An object with a fixed set of keys, read into `Self` key by key.
pub(super) trait Object: Default {
    /// What the object becomes.
    type Output;
    /// Every key that it may have.
    const KEYS: &'static [&'static str];
    /// What it is, for "expected …".
    const EXPECTING: &'static str;

    /// Reads the value of `key`, which is one of [`Object::KEYS`] and comes once.
    fn set<'de, A: MapAccess<'de>>(&mut self, key: &'static str, map: &mut A) -> Result<(), A::Error>;

    /// Judges the whole once all keys are read.
    fn finish(self) -> Result<Self::Output, Problem>;
}

/// The seed of an [`Object`].
pub(super) struct ObjectSeed<T>(PhantomData<T>);

/// Reads a `T` from an object.
pub(super) fn object<T: Object>() -> ObjectSeed<T> {
    ObjectSeed(PhantomData)
}

impl<'de, T: Object> DeserializeSeed<'de> for ObjectSeed<T> {
    type Value = T::Output;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T::Output, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Object> Visitor<'de> for ObjectSeed<T> {
    type Value = T::Output;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTING)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T::Output, A::Error> {
        read_object::<T, A>(map)
    }
}

/// The body of [`ObjectSeed`], for visitors that accept something else as well.
pub(super) fn read_object<'de, T: Object, A: MapAccess<'de>>(mut map: A) -> Result<T::Output, A::Error> {
    let mut value = T::default();
    let mut seen: Vec<&'static str> = Vec::new();
    loop {
        let next = map.next_key_seed(Text {
            expecting: "a key",
            parse: |text: &str| known_key(text, T::KEYS, &seen),
        })?;
        let Some(key) = next else { break };
        seen.push(key);
        value.set(key, &mut map)?;
    }
    value.finish().map_err(A::Error::custom)
}

fn known_key(text: &str, known: &[&'static str], seen: &[&'static str]) -> Result<&'static str, Problem> {
    let Some(&key) = known.iter().find(|k| **k == text) else {
        let hint = match crate::nearest(text, known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("known here: {}", known.join(", ")),
        };
        return Err(Problem::key(format!("unknown key {}", quoted(text)), hint));
    };
    match seen.contains(&key) {
        true => Err(twice(text)),
        false => Ok(key),
    }
}

/// A key that the object already has. JSON leaves open which one counts, and readers differ.
pub(super) fn twice(key: &str) -> Problem {
    Problem::key(
        format!("the key {} is given twice", quoted(key)),
        "remove one of the two",
    )
}

/// The value of a flag.
pub(super) struct Flag(pub(super) &'static str);

impl<'de> DeserializeSeed<'de> for Flag {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_bool(self)
    }
}

impl Visitor<'_> for Flag {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
        Ok(value)
    }
}
