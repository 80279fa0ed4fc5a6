//! Lists of architectures in the syntax of `TORCH_CUDA_ARCH_LIST`, and which devices such a list serves.
//!
//! Source of the syntax and of the names: `_get_cuda_arch_flags` in PyTorch's `torch/utils/cpp_extension.py`
//! (blanks and semicolons separate, commas do not). PyTorch knows a closed set of numbers; here every capability
//! from 2.0 to 99.9 is accepted, since a list may be older or newer than this program. Names are expanded when they
//! are read, so a list always prints as numbers.
//!
//! Source of the compatibility rule: CUDA Programming Guide, "Compute Capabilities", and the NVCC manual, "GPU
//! Compilation": a cubin for X.y runs on X.z with z ≥ y, PTX for X.y is compiled by the driver for anything ≥ X.y.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::facts::ComputeCapability;
use crate::order;

/// Code that is tied closer to its architecture than the plain rule says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Variant {
    /// `9.0a`: runs on exactly 9.0 and is not forward compatible, neither as SASS nor as PTX
    ArchSpecific,
    /// `10.0f`: runs within its family, which is the same major and no lower minor, as SASS and as PTX
    FamilySpecific,
}

/// One architecture of a list: code for it, and perhaps PTX as well.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Arch {
    /// 9.0 of `9.0a+PTX`
    pub capability: ComputeCapability,
    /// `a` of `9.0a+PTX`
    pub variant: Option<Variant>,
    /// whether PTX is there too
    pub ptx: bool,
}

impl Arch {
    /// Whether its SASS runs on a device of capability `cc`.
    fn sass_runs_on(self, cc: ComputeCapability) -> bool {
        match self.variant {
            Some(Variant::ArchSpecific) => self.capability == cc,
            None | Some(Variant::FamilySpecific) => cc.takes_sass_of(self.capability),
        }
    }

    /// Whether the driver may compile its PTX for a device of capability `cc`.
    fn ptx_compiles_for(self, cc: ComputeCapability) -> bool {
        self.ptx
            && match self.variant {
                None => self.capability <= cc,
                Some(_) => self.sass_runs_on(cc),
            }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.capability)?;
        f.write_str(match self.variant {
            Some(Variant::ArchSpecific) => "a",
            Some(Variant::FamilySpecific) => "f",
            None => "",
        })?;
        f.write_str(if self.ptx { "+PTX" } else { "" })
    }
}

/// How a list serves a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Service {
    /// the list names this very capability
    Listed,
    /// code for a lower minor version of the same major one runs unchanged
    BinaryCompatible {
        /// the closest such entry
        by: Arch,
    },
    /// only PTX is left: the driver compiles it, at the first launch and slowly
    ByPtx {
        /// the closest such entry
        by: Arch,
    },
    /// nothing in the list runs there
    No,
}

/// Architectures in ascending order, each once, at least one.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct ArchList(Vec<Arch>);

impl ArchList {
    /// The entries in ascending order.
    pub fn iter(&self) -> std::slice::Iter<'_, Arch> {
        self.0.iter()
    }

    /// How the list serves a device of capability `cc`: a listed capability beats binary compatibility (highest
    /// minor first), which beats PTX (newest first).
    pub fn serves(&self, cc: ComputeCapability) -> Service {
        if self.0.iter().any(|a| a.capability == cc) {
            return Service::Listed;
        }
        // The list is sorted, so the last match is the closest one.
        let last = |runs: &dyn Fn(Arch) -> bool| self.0.iter().rev().copied().find(|a| runs(*a));
        if let Some(by) = last(&|a| a.sass_runs_on(cc)) {
            return Service::BinaryCompatible { by };
        }
        match last(&|a| a.ptx_compiles_for(cc)) {
            Some(by) => Service::ByPtx { by },
            None => Service::No,
        }
    }
}

impl<'a> IntoIterator for &'a ArchList {
    type Item = &'a Arch;
    type IntoIter = std::slice::Iter<'a, Arch>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for ArchList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, arch) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(";")?;
            }
            write!(f, "{arch}")?;
        }
        Ok(())
    }
}

impl Serialize for ArchList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ArchList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// PyTorch's names for architectures. A combined name stands for one chip, so it is looked up before a suffix is cut.
const NAMES: [(&str, &str); 14] = [
    ("Kepler", "3.5+PTX"),
    ("Kepler+Tesla", "3.7"),
    ("Maxwell", "5.0;5.2+PTX"),
    ("Maxwell+Tegra", "5.3"),
    ("Pascal", "6.0;6.1+PTX"),
    ("Volta", "7.0+PTX"),
    ("Volta+Tegra", "7.2"),
    ("Turing", "7.5+PTX"),
    ("Ampere", "8.0;8.6+PTX"),
    ("Ampere+Tegra", "8.7"),
    ("Ada", "8.9+PTX"),
    ("Hopper", "9.0+PTX"),
    ("Blackwell", "10.0;10.3;12.0;12.1+PTX"),
    ("Blackwell+Tegra", "11.0"),
];

/// Why a text is no list of architectures.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ArchListError {
    /// nothing but separators
    #[error("the list of architectures is empty; name at least one, such as `8.0;9.0`")]
    Empty,
    /// one item makes no sense
    #[error("item {position} of the list of architectures is `{}`: {advice}", shown(.item))]
    Item {
        /// as written, at most 40 characters of it
        item: String,
        /// counted from 1
        position: usize,
        /// what was meant, or what is expected
        advice: String,
    },
}

/// Keeps what a terminal would interpret out of a message.
fn shown(item: &str) -> String {
    item.escape_debug().to_string()
}

impl FromStr for ArchList {
    type Err = ArchListError;

    fn from_str(text: &str) -> Result<Self, ArchListError> {
        let mut archs: Vec<Arch> = Vec::new();
        let items = text
            .split(|c: char| c == ';' || c.is_ascii_whitespace())
            .filter(|i| !i.is_empty());
        for (index, item) in items.enumerate() {
            let found = expand(item).ok_or_else(|| ArchListError::Item {
                item: item.chars().take(40).collect(),
                position: index + 1,
                advice: advice(item),
            })?;
            archs.extend(found);
        }
        if archs.is_empty() {
            return Err(ArchListError::Empty);
        }
        // `9.0;9.0+PTX` is one architecture with PTX.
        order::sort(&mut archs);
        archs.dedup_by(|later, kept| {
            let same = (later.capability, later.variant) == (kept.capability, kept.variant);
            kept.ptx |= same && later.ptx;
            same
        });
        Ok(Self(archs))
    }
}

/// The architectures of one item: a number, a name, either with `+PTX`.
fn expand(item: &str) -> Option<Vec<Arch>> {
    if let Some(archs) = named(item) {
        return Some(archs);
    }
    let (base, ptx) = match item
        .len()
        .checked_sub("+PTX".len())
        .and_then(|at| item.split_at_checked(at))
    {
        Some((base, suffix)) if suffix.eq_ignore_ascii_case("+PTX") => (base, true),
        _ => (item, false),
    };
    let mut archs = named(base).or_else(|| number(base).map(|arch| vec![arch]))?;
    if let Some(last) = archs.last_mut() {
        last.ptx |= ptx;
    }
    Some(archs)
}

fn named(item: &str) -> Option<Vec<Arch>> {
    let (_, list) = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(item))?;
    list.split(';')
        .map(|one| {
            let base = one.strip_suffix("+PTX");
            number(base.unwrap_or(one)).map(|arch| Arch {
                ptx: base.is_some(),
                ..arch
            })
        })
        .collect()
}

/// `9.0`, `9.0a`, `10.0f`. The minor version is one digit: nvcc's `sm_103` would be ambiguous otherwise.
fn number(text: &str) -> Option<Arch> {
    let (digits, variant) = match text.strip_suffix('a') {
        Some(digits) => (digits, Some(Variant::ArchSpecific)),
        None => match text.strip_suffix('f') {
            Some(digits) => (digits, Some(Variant::FamilySpecific)),
            None => (text, None),
        },
    };
    let (major, minor) = digits.split_once('.')?;
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !(1..=2).contains(&major.len()) || minor.len() != 1 || !all_digits(major) || !all_digits(minor) {
        return None;
    }
    let capability = ComputeCapability {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    };
    let no_leading_zero = !major.starts_with('0');
    (no_leading_zero && capability.major >= 2).then_some(Arch {
        capability,
        variant,
        ptx: false,
    })
}

/// What to write instead of an item that makes no sense.
fn advice(item: &str) -> String {
    const EXPECTED: &str =
        "expected a compute capability such as `9.0`, `9.0a` or `9.0+PTX`, or a name such as `Hopper`";
    if item.contains(',') {
        return "commas do not separate architectures, semicolons and blanks do".to_string();
    }
    match item.to_ascii_lowercase().as_str() {
        "native" | "auto" => {
            return "that means the GPU of the machine that compiles, and here nothing is compiled; name the \
                    architectures that the image is built for"
                .to_string();
        }
        "all" | "all-major" | "common" => {
            return "which architectures that means depends on the toolkit's version; name the ones that the image \
                    is built for"
                .to_string();
        }
        _ => {}
    }
    if let Some(meant) = undotted(item) {
        return format!("a compute capability is written with a point; did you mean `{meant}`?");
    }
    match crate::nearest(item, NAMES.iter().map(|(name, _)| *name)) {
        Some(name) => format!("no architecture is called that; did you mean `{name}`?"),
        None => EXPECTED.to_string(),
    }
}

/// What nvcc and CMake write: `sm_90a`, `compute_90`, `90`.
fn undotted(item: &str) -> Option<String> {
    let rest = item
        .strip_prefix("sm_")
        .or_else(|| item.strip_prefix("compute_"))
        .unwrap_or(item);
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, suffix) = rest.split_at_checked(end)?;
    let (major, minor) = digits.split_at_checked(digits.len().checked_sub(1)?)?;
    let meant = format!("{major}.{minor}{suffix}");
    expand(&meant).map(|_| meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> ArchList {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn cc(text: &str) -> ComputeCapability {
        number(text).unwrap().capability
    }

    /// The service as one word: `listed`, `sass 8.0`, `ptx 9.0`, `no`.
    fn served(by: &str, device: &str) -> String {
        match list(by).serves(cc(device)) {
            Service::Listed => "listed".to_string(),
            Service::BinaryCompatible { by } => format!("sass {by}"),
            Service::ByPtx { by } => format!("ptx {by}"),
            Service::No => "no".to_string(),
        }
    }

    #[test]
    fn every_spelling_has_one_canonical_form() {
        for (given, canonical) in [
            ("7.5;8.0;8.6;8.9;9.0", "7.5;8.0;8.6;8.9;9.0"),
            ("9.0 8.0", "8.0;9.0"),
            (" 8.0; \t9.0 ;; ", "8.0;9.0"),
            ("9.0+PTX;7.5", "7.5;9.0+PTX"),
            ("9.0+ptx", "9.0+PTX"),
            ("9.0;9.0+PTX;9.0", "9.0+PTX"),
            ("9.0a;9.0", "9.0;9.0a"),
            ("10.0f;10.0a+PTX;10.0", "10.0;10.0a+PTX;10.0f"),
            ("12.0;9.0;10.0", "9.0;10.0;12.0"),
            ("Hopper", "9.0+PTX"),
            ("hopper", "9.0+PTX"),
            ("Hopper+PTX", "9.0+PTX"),
            ("Ampere Ada", "8.0;8.6+PTX;8.9+PTX"),
            ("Ampere+Tegra", "8.7"),
            ("Ampere+Tegra+PTX", "8.7+PTX"),
            ("Kepler+Tesla;Kepler", "3.5+PTX;3.7"),
            ("Maxwell", "5.0;5.2+PTX"),
            ("Pascal;Volta;Turing", "6.0;6.1+PTX;7.0+PTX;7.5+PTX"),
            ("Blackwell", "10.0;10.3;12.0;12.1+PTX"),
        ] {
            let parsed = list(given);
            assert_eq!(parsed.to_string(), canonical, "{given}");
            assert_eq!(list(&parsed.to_string()), parsed, "{given}");
        }
    }

    #[test]
    fn every_name_expands() {
        for (name, numbers) in NAMES {
            assert_eq!(list(name), list(numbers), "{name}");
        }
    }

    #[test]
    fn errors_name_the_item_its_position_and_the_way_out() {
        let texts = [
            "",
            " ;; ",
            "8.0;hoper",
            "8.0;75",
            "sm_90a",
            "compute_80",
            "90+PTX",
            "8.0,8.6",
            "native",
            "8.0;All",
            "Common",
            "Auto",
            "8.",
            "8",
            ".8",
            "8.00",
            "08.0",
            "1.3",
            "100.0",
            "0.75",
            "9.0b",
            "9.0A",
            "9.0af",
            "9.0+PTX+PTX",
            "+PTX",
            "+",
            "9.0+",
            "a",
            "-9.0",
            "9.0\u{1b}[31m",
            "９.０",
            "8.0;é+PTX",
        ];
        let errors: Vec<String> = texts
            .iter()
            .map(|text| match text.parse::<ArchList>() {
                Ok(list) => panic!("{text:?} was taken for {list}"),
                Err(error) => format!("{text:?}: {error}"),
            })
            .collect();
        insta::assert_snapshot!(errors.join("\n"));
    }

    #[test]
    fn a_long_item_does_not_fill_the_message() {
        let error = "x".repeat(1 << 20).parse::<ArchList>().unwrap_err().to_string();
        assert!(error.len() < 250, "{} bytes", error.len());
    }

    #[test]
    fn sass_serves_its_own_major_upwards() {
        let cu124 = "7.5;8.0;8.6;9.0";
        for (device, expected) in [
            ("7.0", "no"),
            ("7.5", "listed"),
            ("8.0", "listed"),
            ("8.6", "listed"),
            ("8.7", "no"), // Jetson Orin
            ("8.9", "sass 8.6"),
            ("9.0", "listed"),
            ("10.0", "no"),
        ] {
            assert_eq!(served(cu124, device), expected, "{device}");
        }
        assert_eq!(served("8.6", "8.0"), "no");
    }

    #[test]
    fn variants_serve_less() {
        assert_eq!(served("9.0a", "9.0"), "listed");
        assert_eq!(served("10.0a", "10.3"), "no");
        assert_eq!(served("10.0a+PTX", "10.3"), "no");
        assert_eq!(served("10.0a+PTX", "12.0"), "no");
        assert_eq!(served("10.0f", "10.3"), "sass 10.0f");
        assert_eq!(served("10.3f", "10.0"), "no");
        assert_eq!(served("10.0f+PTX", "12.0"), "no");
        assert_eq!(served("10.0;10.0a", "10.3"), "sass 10.0");
    }

    #[test]
    fn ptx_is_the_last_resort() {
        assert_eq!(served("8.0+PTX", "9.0"), "ptx 8.0+PTX");
        assert_eq!(served("7.0+PTX;8.0+PTX", "9.0"), "ptx 8.0+PTX");
        assert_eq!(served("8.0+PTX", "7.5"), "no");
        assert_eq!(served("8.0+PTX;8.6+PTX", "8.9"), "sass 8.6+PTX");
        assert_eq!(served("7.5+PTX;8.6", "8.0"), "ptx 7.5+PTX");
        assert_eq!(served("9.0+PTX", "9.0"), "listed");
    }

    #[test]
    fn json_is_the_text() {
        let parsed: ArchList = serde_json::from_str(r#""Hopper 8.0""#).unwrap();
        assert_eq!(serde_json::to_string(&parsed).unwrap(), r#""8.0;9.0+PTX""#);
        assert!(serde_json::from_str::<ArchList>(r#""9""#).is_err());
    }
}
