//! Which CUDA versions a manifest accepts.

use std::fmt;

use semver::{Op, Version, VersionReq};
use serde::de::MapAccess;
use serde::{Serialize, Serializer};

use super::error::{Problem, quoted};
use super::json::{Object, Text};
use crate::facts::{CudaVersion, LibraryKind};

/// The part `cuda` of a manifest; what is `None` is not checked.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct CudaRules {
    /// every copy of libcudart, as `cudaRuntimeGetVersion` answers
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<CudaRule>,
    /// every copy of libnvrtc, as `nvrtcVersion` answers
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvrtc: Option<CudaRule>,
    /// the driver API, as `cuDriverGetVersion` answers and nvidia-smi prints under "CUDA Version" or "CUDA UMD Version"
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<CudaRule>,
}

impl CudaRules {
    /// Its keys with their rules, in the manifest's order.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, Option<&CudaRule>)> {
        let rules = [&self.runtime, &self.nvrtc, &self.driver];
        Self::KEYS.iter().copied().zip(rules.map(Option::as_ref))
    }

    /// The rule for a library; `None` where its copies are not checked.
    pub fn of(&self, kind: LibraryKind) -> Option<&CudaRule> {
        let key = kind.row().rule?;
        self.entries().find(|(known, _)| *known == key)?.1
    }

    /// Whether nothing is checked.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A requirement on a CUDA version: `12.4` is exactly that; everything else is a Cargo-style requirement, such as
/// `>=12.4`, `>=12.4, <13`, `~12.4`, `12.*` or `*`.
///
/// Versions have two parts: the libraries and the driver report no patch level.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CudaRule {
    written: String,
    requirement: VersionReq,
}

/// For the facts and rules that tests write down.
#[cfg(test)]
impl std::str::FromStr for CudaRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse("runtime", text).map_err(|problem| format!("{problem:?}"))
    }
}

/// No CUDA release is near this; driver releases (550.54.14) and the API's numbers (12040) are beyond it.
const MAJOR_LIMIT: u64 = 100;

impl CudaRule {
    /// This version and no other.
    pub fn exactly(version: CudaVersion) -> Self {
        Self::of(&[(Op::Exact, "", version)])
    }

    /// Every version.
    pub fn any() -> Self {
        Self {
            written: "*".to_string(),
            requirement: VersionReq::STAR,
        }
    }

    /// This version and every later one.
    pub fn at_least(version: CudaVersion) -> Self {
        Self::of(&[(Op::GreaterEq, ">=", version)])
    }

    /// Both of these versions and those between them.
    pub fn between(oldest: CudaVersion, newest: CudaVersion) -> Self {
        Self::of(&[(Op::GreaterEq, ">=", oldest), (Op::LessEq, "<=", newest)])
    }

    fn of(parts: &[(Op, &str, CudaVersion)]) -> Self {
        let comparator = |&(op, _, version): &(Op, &str, CudaVersion)| semver::Comparator {
            op,
            major: version.major.into(),
            minor: Some(version.minor.into()),
            patch: None,
            pre: semver::Prerelease::EMPTY,
        };
        let written: Vec<String> = parts
            .iter()
            .map(|(_, sign, version)| format!("{sign}{version}"))
            .collect();
        Self {
            written: written.join(", "),
            requirement: VersionReq {
                comparators: parts.iter().map(comparator).collect(),
            },
        }
    }

    /// Whether the requirement accepts `version`.
    pub fn matches(&self, version: CudaVersion) -> bool {
        accepts(&self.requirement, version.major.into(), version.minor.into())
    }

    /// The major version that the requirement's first comparator names; `None` for `*`.
    pub fn major(&self) -> Option<u16> {
        let first = self.requirement.comparators.first()?;
        u16::try_from(first.major).ok()
    }

    fn parse(key: &str, text: &str) -> Result<Self, Problem> {
        let written = text.trim();
        if written.is_empty() {
            return Err(Problem::value(
                "the version is empty",
                "write one such as \"12.4\", or leave the key out",
            ));
        }
        // semver would take a bare version for "compatible with", which is not what people mean by CUDA 12.4.
        let bare = written.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let requirement = match bare {
            true => VersionReq::parse(&format!("={written}")),
            false => VersionReq::parse(written),
        };
        let requirement = requirement.map_err(|error| {
            Problem::value(
                format!("{} is not a valid CUDA version requirement: {error}", quoted(written)),
                "write \"12.4\" for exactly that, or comparisons separated by commas, such as \">=12.4, <13\"",
            )
        })?;
        for part in &requirement.comparators {
            if part.major >= MAJOR_LIMIT {
                return Err(beyond(key, written));
            }
            if part.patch.is_some() {
                return Err(Problem::value(
                    format!("{} has more than two parts", quoted(written)),
                    "the libraries and the driver report MAJOR.MINOR alone, so leave the third part out",
                ));
            }
        }
        let rule = Self {
            written: written.to_string(),
            requirement,
        };
        match rule.satisfiable() {
            true => Ok(rule),
            false => Err(Problem::value(
                format!("no CUDA version meets {}", quoted(written)),
                "the comparisons exclude each other; change one",
            )),
        }
    }

    /// Whether any version is accepted.
    fn satisfiable(&self) -> bool {
        self.lowest().is_some()
    }

    /// The lowest version that is accepted. The versions between two bounds start at a bound, so these are enough.
    pub fn lowest(&self) -> Option<CudaVersion> {
        let bounds = self.requirement.comparators.iter().flat_map(|c| {
            let minor = c.minor.unwrap_or(0);
            [
                (c.major, minor),
                (c.major, minor.saturating_add(1)),
                (c.major.saturating_add(1), 0),
            ]
        });
        std::iter::once((0, 0))
            .chain(bounds)
            .filter(|(major, minor)| accepts(&self.requirement, *major, *minor))
            .filter_map(|(major, minor)| {
                Some(CudaVersion {
                    major: major.try_into().ok()?,
                    minor: minor.try_into().ok()?,
                })
            })
            .min()
    }
}

fn accepts(requirement: &VersionReq, major: u64, minor: u64) -> bool {
    requirement.matches(&Version::new(major, minor, 0))
}

fn beyond(key: &str, written: &str) -> Problem {
    match key {
        "driver" => Problem::value(
            format!(
                "{} looks like a driver release; `driver` is the version of the driver API, which nvidia-smi prints \
                 as \"CUDA Version\" or \"CUDA UMD Version\"",
                quoted(written)
            ),
            "write the CUDA version that the driver has to support, such as \">=12.4\"",
        ),
        _ => Problem::value(
            format!("{} is not a CUDA version", quoted(written)),
            "write MAJOR.MINOR, such as \"12.4\"",
        ),
    }
}

impl fmt::Display for CudaRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl Serialize for CudaRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.written)
    }
}

impl Object for CudaRules {
    type Output = Self;
    const KEYS: &'static [&'static str] = &["runtime", "nvrtc", "driver"];
    const EXPECTING: &'static str = "an object with the keys runtime, nvrtc and driver";

    fn set<'de, A: MapAccess<'de>>(&mut self, key: &'static str, map: &mut A) -> Result<(), A::Error> {
        let rule = map.next_value_seed(Text {
            expecting: "a version as a string, such as \"12.4\" or \">=12.4\"",
            parse: |text: &str| CudaRule::parse(key, text),
        })?;
        match key {
            "runtime" => self.runtime = Some(rule),
            "nvrtc" => self.nvrtc = Some(rule),
            _ => self.driver = Some(rule),
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

    fn rule(text: &str) -> CudaRule {
        CudaRule::parse("runtime", text).unwrap_or_else(|e| panic!("{text}: {}", e.sentence()))
    }

    fn version(major: u16, minor: u16) -> CudaVersion {
        CudaVersion { major, minor }
    }

    #[test]
    fn a_bare_version_is_exact() {
        let exact = rule("12.4");
        assert!(exact.matches(version(12, 4)));
        for other in [version(12, 3), version(12, 5), version(13, 4), version(11, 4)] {
            assert!(!exact.matches(other), "{other}");
        }
        assert_eq!(exact, CudaRule::exactly(version(12, 4)));
        assert!(rule("12").matches(version(12, 9)) && !rule("12").matches(version(13, 0)));
        let between = CudaRule::between(version(12, 4), version(12, 9));
        assert_eq!(rule(&between.to_string()), between);
        assert!(between.matches(version(12, 4)) && between.matches(version(12, 9)));
        assert!(!between.matches(version(12, 3)) && !between.matches(version(12, 10)));
    }

    #[test]
    fn comparisons_are_those_of_cargo() {
        for (text, accepted, refused) in [
            (">=12.4", version(13, 0), version(12, 3)),
            (">=12.4, <13", version(12, 9), version(13, 0)),
            (">12.4", version(12, 5), version(12, 4)),
            ("<=12.4", version(12, 4), version(12, 5)),
            ("~12.4", version(12, 4), version(12, 5)),
            ("^12.4", version(12, 9), version(13, 0)),
            ("12.*", version(12, 0), version(11, 8)),
            ("=12.4", version(12, 4), version(12, 5)),
        ] {
            assert!(rule(text).matches(accepted), "{text} {accepted}");
            assert!(!rule(text).matches(refused), "{text} {refused}");
            assert_eq!(rule(text).to_string(), text);
        }
    }

    #[test]
    fn the_major_version_is_the_first_comparators() {
        assert_eq!(rule("12.4").major(), Some(12));
        assert_eq!(rule(">=11.8, <13").major(), Some(11));
        assert_eq!(rule("*").major(), None);
        assert!(rule("*").matches(version(9, 2)));
    }

    #[test]
    fn requirements_that_nothing_meets_are_found() {
        for text in [
            ">=13, <12",
            ">12.4, <12.5",
            "=12.4, =12.5",
            "<0.0",
            ">=12.4, <12.4",
        ] {
            assert!(CudaRule::parse("runtime", text).is_err(), "{text}");
        }
        for text in [
            "<13",
            ">=12.4, <12.5",
            "<=12.4, >=12.4",
            ">12, <14",
            ">=99",
            "^12.4, <12.6",
        ] {
            rule(text);
        }
    }

    #[test]
    fn errors_say_what_is_meant() {
        let errors: Vec<String> = [
            ("runtime", ""),
            ("runtime", "12.4.127"),
            ("runtime", ">=12.4.1"),
            ("runtime", "==12.4"),
            ("runtime", ">=12.4 <13"),
            ("runtime", "cu124"),
            ("runtime", "12040"),
            ("runtime", "12."),
            ("runtime", "99999999999999999999"),
            ("driver", ">=550"),
            ("driver", "550.54.14"),
            ("driver", ">=12.4, <600"),
            ("driver", ">=13, <12"),
        ]
        .iter()
        .map(|(key, text)| match CudaRule::parse(key, text) {
            Ok(rule) => panic!("{text:?} was taken for {rule}"),
            Err(problem) => format!("{key} {text:?}: {}", problem.sentence()),
        })
        .collect();
        insta::assert_snapshot!(errors.join("\n"));
    }
}
