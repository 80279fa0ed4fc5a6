//! How many GPUs a manifest asks for.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, Visitor};
use serde::{Serialize, Serializer};

use super::error::{Problem, quoted};
use crate::text::counted;

/// A condition on the number of GPUs: `8` and `>=8` are at least eight, `==8` is eight and no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GpuRule {
    least: u32,
    most: Option<u32>,
}

/// No driver shows more devices (`CUDA_VISIBLE_DEVICES` and the helper stop there as well).
const MOST_GPUS: u32 = 1024;

/// Signs of a comparison; one that another begins with comes behind it.
const SIGNS: [&str; 6] = [">=", "<=", "==", ">", "<", "="];

const EXPECTED: &str = "write a whole number such as 8, or a condition such as \">=2\" or \"==8\"";

impl GpuRule {
    /// Whether so many are accepted.
    pub fn accepts(self, count: u32) -> bool {
        count >= self.least && self.most.is_none_or(|most| count <= most)
    }

    /// The least number that is accepted.
    pub fn least(self) -> u32 {
        self.least
    }

    /// `at least 2 GPUs`.
    pub fn words(self) -> String {
        match self {
            Self { least, most: None } => format!("at least {}", counted(least, "GPU")),
            Self {
                least,
                most: Some(most),
            } if least == most => format!("exactly {}", counted(least, "GPU")),
            Self {
                least,
                most: Some(most),
            } => format!("{least} to {most} GPUs"),
        }
    }

    fn at_least(count: u64) -> Result<Self, Problem> {
        match u32::try_from(count) {
            Ok(0) => Err(Problem::value(
                "zero GPUs ask for nothing",
                "leave the key out, or write a number of GPUs such as 1; --gpu off is for a service without a GPU",
            )),
            Ok(least @ ..=MOST_GPUS) => Ok(Self { least, most: None }),
            _ => Err(too_many(&count.to_string())),
        }
    }

    /// `>=2`, `>=2,<=8`, `==8`, `8`.
    fn parse(text: &str) -> Result<Self, Problem> {
        let no_condition = || {
            Problem::value(
                format!("{} is not a number of GPUs or a condition on it", quoted(text)),
                EXPECTED,
            )
        };
        let (mut least, mut most) = (0, None::<u32>);
        for part in text.split(',').map(str::trim) {
            let sign = SIGNS.into_iter().find(|sign| part.starts_with(sign));
            let digits = part.strip_prefix(sign.unwrap_or_default()).unwrap_or(part).trim();
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(no_condition());
            }
            let number = digits.parse().ok().filter(|number| *number <= MOST_GPUS);
            let number = number.ok_or_else(|| too_many(digits))?;
            // A count has no place between two numbers.
            let (from, to) = match sign {
                Some("==" | "=") => (number, Some(number)),
                Some(">") => (number + 1, None),
                Some("<=") => (0, Some(number)),
                Some("<") => (0, Some(number.checked_sub(1).ok_or_else(|| met_by_none(text))?)),
                _ => (number, None),
            };
            least = least.max(from);
            most = match (most, to) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        match most {
            None => Self::at_least(u64::from(least)),
            // Without a GPU there is `gpu-missing`.
            Some(most) if most < least.max(1) => Err(met_by_none(text)),
            Some(_) => Ok(Self {
                least: least.max(1),
                most,
            }),
        }
    }
}

fn too_many(number: &str) -> Problem {
    Problem::value(
        format!("{} GPUs are more than a driver shows", quoted(number)),
        format!("write at most {MOST_GPUS}"),
    )
}

fn met_by_none(text: &str) -> Problem {
    Problem::value(
        format!("no number of GPUs from 1 on meets {}", quoted(text)),
        EXPECTED,
    )
}

/// As a manifest writes it.
impl fmt::Display for GpuRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { least, most } = self;
        match most {
            None => write!(f, ">={least}"),
            Some(most) if most == least => write!(f, "=={least}"),
            Some(most) => write!(f, ">={least},<={most}"),
        }
    }
}

impl Serialize for GpuRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.most {
            None => serializer.serialize_u32(self.least),
            Some(_) => serializer.collect_str(self),
        }
    }
}

/// A number or a condition.
pub(super) struct GpuRuleSeed;

impl<'de> DeserializeSeed<'de> for GpuRuleSeed {
    type Value = GpuRule;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<GpuRule, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for GpuRuleSeed {
    type Value = GpuRule;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of GPUs such as 8, or a condition such as \">=2\"")
    }

    fn visit_u64<E: Error>(self, count: u64) -> Result<GpuRule, E> {
        GpuRule::at_least(count).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, count: i64) -> Result<GpuRule, E> {
        Err(E::custom(Problem::value(
            format!("{count} is not a number of GPUs"),
            EXPECTED,
        )))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<GpuRule, E> {
        GpuRule::parse(text).map_err(E::custom)
    }
}

#[cfg(test)]
impl std::str::FromStr for GpuRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|problem| problem.sentence())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_and_written() {
        for (text, accepted, refused, written, words) in [
            ("8", &[8, 9, 16][..], &[0, 7][..], ">=8", "at least 8 GPUs"),
            (">=2", &[2, 3], &[1], ">=2", "at least 2 GPUs"),
            (" >= 2 ", &[2], &[1], ">=2", "at least 2 GPUs"),
            ("1", &[1, 2], &[0], ">=1", "at least 1 GPU"),
            (">1", &[2], &[1], ">=2", "at least 2 GPUs"),
            ("==8", &[8], &[7, 9], "==8", "exactly 8 GPUs"),
            ("=1", &[1], &[0, 2], "==1", "exactly 1 GPU"),
            (">=2,<=8", &[2, 8], &[1, 9], ">=2,<=8", "2 to 8 GPUs"),
            ("<4", &[1, 3], &[0, 4], ">=1,<=3", "1 to 3 GPUs"),
            ("<=1", &[1], &[0, 2], "==1", "exactly 1 GPU"),
            (">=1, >=3, <9, <=6", &[3, 6], &[2, 7], ">=3,<=6", "3 to 6 GPUs"),
            ("1024", &[1024], &[1023], ">=1024", "at least 1024 GPUs"),
        ] {
            let rule: GpuRule = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert!(accepted.iter().all(|count| rule.accepts(*count)), "{text}");
            assert!(!refused.iter().any(|count| rule.accepts(*count)), "{text}");
            assert_eq!(
                (rule.to_string().as_str(), rule.words().as_str()),
                (written, words)
            );
            assert_eq!(written.parse(), Ok(rule), "{text}");
        }
    }

    #[test]
    fn what_is_no_condition_says_why() {
        let lines: Vec<String> = [
            "",
            " ",
            "eight",
            "-1",
            "1.5",
            "8x",
            "> = 2",
            "!=2",
            "~2",
            ">=",
            ">=2,",
            ",",
            "all",
            "0",
            ">=0",
            "<1",
            "<0",
            "<=0",
            "==0",
            ">=4,<=2",
            "==1,==2",
            "1025",
            "99999999999999999999",
            "８",
            "1\u{1b}",
        ]
        .iter()
        .map(|text| match text.parse::<GpuRule>() {
            Ok(rule) => panic!("{text:?} was taken for {rule}"),
            Err(sentence) => format!("{text:?}: {sentence}"),
        })
        .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
