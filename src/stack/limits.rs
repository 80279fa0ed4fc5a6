//! Which limits of the container and of its GPUs a manifest insists on.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde::{Serialize, Serializer};

use super::error::{Problem, quoted};
use super::json::Object;

/// The part `limits` of a manifest; what is `None` is reported and never fails.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LimitRules {
    /// the least size of /dev/shm in bytes
    pub shm: Option<u64>,
    /// the least RLIMIT_MEMLOCK
    pub memlock: Option<Memlock>,
    /// the least memory that must be free on each GPU, in bytes
    pub gpu_memory_free: Option<u64>,
}

impl LimitRules {
    /// Whether nothing is insisted on.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How much memory a process must be able to lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memlock {
    /// no limit at all
    Unlimited,
    /// at least so many bytes
    Bytes(u64),
}

impl fmt::Display for Memlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("unlimited"),
            Self::Bytes(bytes) => f.write_str(&write_size(*bytes)),
        }
    }
}

impl Serialize for LimitRules {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Written {
            #[serde(skip_serializing_if = "Option::is_none")]
            shm: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            memlock: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            gpu_memory_free: Option<String>,
        }
        Written {
            shm: self.shm.map(write_size),
            memlock: self.memlock.map(|m| m.to_string()),
            gpu_memory_free: self.gpu_memory_free.map(write_size),
        }
        .serialize(serializer)
    }
}

/// Units by size, the largest first. `Ki`, `Mi` and so on, as Kubernetes writes them, are read too.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

/// A size as manifests write it: in the largest unit that divides it.
pub fn write_size(bytes: u64) -> String {
    let divides = |(_, unit): &&(&str, u64)| bytes > 0 && bytes.is_multiple_of(*unit);
    match UNITS.iter().find(divides) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

/// `1GiB`, `64MiB`, `1GB`, `512Mi`, `65536`.
fn parse_size(text: &str) -> Result<u64, Problem> {
    let expected = "write a whole number with a unit, such as \"1GiB\", \"64MiB\" or \"1GB\"";
    let trimmed = text.trim();
    let refuse = |hint: &str| Err(Problem::value(format!("{} is not a size", quoted(text)), hint));
    let end = trimmed
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(trimmed.len());
    let Some((digits, unit)) = trimmed.split_at_checked(end) else {
        return refuse(expected);
    };
    let unit = unit.trim_start();
    let named = |name: &str| {
        let kubernetes = name.strip_suffix('B').filter(|short| short.ends_with('i'));
        name.eq_ignore_ascii_case(unit) || kubernetes == Some(unit)
    };
    let factor = match UNITS.iter().find(|(name, _)| named(name)) {
        Some((_, factor)) => *factor,
        None if unit.is_empty() => 1,
        None if ["k", "m", "g", "t"].contains(&unit.to_ascii_lowercase().as_str()) => {
            return refuse(&format!(
                "some tools take a bare `{unit}` for powers of two and others for powers of ten; write `{0}iB` or `{0}B`",
                unit.to_ascii_uppercase()
            ));
        }
        None => return refuse(expected),
    };
    let Ok(number) = digits.parse::<u64>() else {
        return refuse(expected);
    };
    match number.checked_mul(factor) {
        Some(bytes) => check_bytes(bytes),
        None => refuse("it is more than a machine can have"),
    }
}

fn check_bytes(bytes: u64) -> Result<u64, Problem> {
    match bytes {
        0 => Err(Problem::value(
            "a limit of zero asks for nothing",
            "leave the key out, or write a size such as \"1GiB\"",
        )),
        _ => Ok(bytes),
    }
}

/// A size, or `unlimited` where that makes sense.
struct SizeSeed {
    unlimited: bool,
}

impl<'de> DeserializeSeed<'de> for SizeSeed {
    type Value = Memlock;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Memlock, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for SizeSeed {
    type Value = Memlock;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"1GiB\", or a whole number of bytes")?;
        f.write_str(if self.unlimited { ", or \"unlimited\"" } else { "" })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Memlock, E> {
        if self.unlimited && text.trim() == "unlimited" {
            return Ok(Memlock::Unlimited);
        }
        parse_size(text).map(Memlock::Bytes).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<Memlock, E> {
        check_bytes(bytes).map(Memlock::Bytes).map_err(E::custom)
    }
}

impl Object for LimitRules {
    type Output = Self;
    const KEYS: &'static [&'static str] = &["shm", "memlock", "gpu_memory_free"];
    const EXPECTING: &'static str = "an object with the keys shm, memlock and gpu_memory_free";

    fn set<'de, A: MapAccess<'de>>(&mut self, key: &'static str, map: &mut A) -> Result<(), A::Error> {
        let unlimited = key == "memlock";
        let limit = map.next_value_seed(SizeSeed { unlimited })?;
        match (key, limit) {
            ("memlock", limit) => self.memlock = Some(limit),
            ("gpu_memory_free", Memlock::Bytes(bytes)) => self.gpu_memory_free = Some(bytes),
            (_, Memlock::Bytes(bytes)) => self.shm = Some(bytes),
            (_, Memlock::Unlimited) => {} // the seed refuses it for everything but memlock
        }
        Ok(())
    }

    fn finish(self) -> Result<Self, Problem> {
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes, written) in [
            ("1GiB", 1 << 30, "1GiB"),
            ("64MiB", 64 << 20, "64MiB"),
            ("1024MiB", 1 << 30, "1GiB"),
            ("1GB", 1_000_000_000, "1GB"),
            ("1 gib", 1 << 30, "1GiB"),
            ("512Mi", 512 << 20, "512MiB"),
            ("100kB", 100_000, "100KB"),
            ("2TB", 2_000_000_000_000, "2TB"),
            ("65536", 65_536, "64KiB"),
            ("7", 7, "7B"),
            ("18446744073709551615", u64::MAX, "18446744073709551615B"),
        ] {
            let parsed = parse_size(text).unwrap_or_else(|e| panic!("{text}: {}", e.sentence()));
            assert_eq!(parsed, bytes, "{text}");
            assert_eq!(write_size(bytes), written, "{text}");
            assert_eq!(parse_size(written).unwrap(), bytes, "{written}");
        }
    }

    #[test]
    fn what_is_no_size_says_why() {
        let lines: Vec<String> = [
            "",
            "GiB",
            "1.5GiB",
            "1g",
            "64m",
            "-1",
            "0",
            "0GiB",
            "1GiBs",
            "1XB",
            "unlimited",
            "99999999TiB",
            "99999999999999999999",
            "１GiB",
            "1\u{1b}B",
        ]
        .iter()
        .map(|text| match parse_size(text) {
            Ok(bytes) => panic!("{text:?} was taken for {bytes}"),
            Err(problem) => format!("{text:?}: {}", problem.sentence()),
        })
        .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
