//! The conditions of `NVIDIA_REQUIRE_*`: `cuda>=12.4 brand=tesla,driver>=535,driver<536`.
//!
//! Source: NVIDIA Container Toolkit, "Specialized Configurations with Docker", Constraints; where that is silent, what
//! nvidia-container-cli (its `--require`) and the toolkit's runtime do: blanks separate alternatives, commas join
//! conditions that hold together, empty ones count for nothing, keys do not mind case, versions are numbers and dots
//! and compare number by number. NVIDIA's two evaluations differ on a key that neither knows: one refuses the
//! container, the other passes it over. Here it is kept, for the judge to say that it cannot be told.

use std::cmp::Ordering;
use std::fmt;

/// Variables of this prefix hold conditions.
pub const PREFIX: &str = "NVIDIA_REQUIRE_";

/// What a condition compares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    /// the newest CUDA that the driver serves
    Cuda,
    /// the driver's release
    Driver,
    /// a GPU's compute capability
    Arch,
    /// a GPU's product line
    Brand,
    /// none of these
    Unknown,
}

impl Key {
    fn of(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "cuda" => Self::Cuda,
            "driver" => Self::Driver,
            "arch" => Self::Arch,
            "brand" => Self::Brand,
            _ => Self::Unknown,
        }
    }
}

/// How it compares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
}

impl Operator {
    fn of(text: &str) -> Option<Self> {
        Some(match text {
            "=" => Self::Equal,
            "!=" => Self::NotEqual,
            "<" => Self::Less,
            "<=" => Self::AtMost,
            ">" => Self::Greater,
            ">=" => Self::AtLeast,
            _ => return None,
        })
    }

    /// Whether `left OPERATOR right` holds where `left` compares to `right` so.
    pub fn accepts(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::AtMost => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::AtLeast => ordering.is_ge(),
        }
    }
}

/// Numbers between dots; what is missing at the end counts as zero, so that 12.4 is 12.4.0.
#[derive(Clone, Debug)]
pub struct Version(Vec<u64>);

impl Version {
    /// `None` where there is anything but numbers and single dots between them.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| part.parse().ok()).flatten()
        };
        text.split('.').map(number).collect::<Option<_>>().map(Self)
    }

    /// The first two numbers.
    pub fn major_minor(&self) -> (u64, u64) {
        let part = |at| self.0.get(at).copied().unwrap_or(0);
        (part(0), part(1))
    }

    /// The order of two versions.
    pub fn compare(&self, other: &Self) -> Ordering {
        let part = |version: &Self, at| version.0.get(at).copied().unwrap_or(0);
        let length = self.0.len().max(other.0.len());
        let mut parts = (0..length).map(|at| part(self, at).cmp(&part(other, at)));
        parts.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }
}

/// `driver>=535`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    /// what is compared
    pub key: Key,
    /// how
    pub operator: Operator,
    /// with what; a [`Version`] for all keys but [`Key::Brand`] and [`Key::Unknown`]
    pub value: String,
    /// as written, cut where it is endless
    pub text: String,
}

/// Conditions that hold together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alternative(pub Vec<Condition>);

/// As written, but for what would fill a terminal.
impl fmt::Display for Alternative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, condition) in self.0.iter().take(MOST_SHOWN).enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{}", condition.text)?;
        }
        f.write_str(if self.0.len() > MOST_SHOWN { ",…" } else { "" })
    }
}

/// Conditions of one alternative that are shown; real ones have three.
pub const MOST_SHOWN: usize = 6;

/// A value that is no list of conditions.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("character {at}: {message}")]
pub struct Mistake {
    /// where the condition begins that is none, in characters from 1
    pub at: usize,
    /// what is wrong with it
    pub message: String,
}

/// Reads one variable's value: the alternatives, none of which is empty. No alternative at all is no condition.
///
/// # Errors
/// The first condition that is none, with its place.
pub fn parse(text: &str) -> Result<Vec<Alternative>, Mistake> {
    let mut alternatives = Vec::new();
    let mut conditions = Vec::new();
    let (mut at, mut begin) = (0, 0);
    let mut word = String::new();
    // A blank behind the end closes what is open there.
    for c in text.chars().chain([' ']) {
        at += 1;
        if c != ',' && !c.is_whitespace() {
            if word.is_empty() {
                begin = at;
            }
            word.push(c);
            continue;
        }
        if !word.is_empty() {
            conditions.push(condition(&word).map_err(|message| Mistake { at: begin, message })?);
            word.clear();
        }
        if c != ',' && !conditions.is_empty() {
            alternatives.push(Alternative(std::mem::take(&mut conditions)));
        }
    }
    Ok(alternatives)
}

/// More of a condition than this only fills a terminal.
const SHOWN: usize = 60;

fn condition(text: &str) -> Result<Condition, String> {
    let shown = match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_string(),
    };
    let of_operator = |c: char| matches!(c, '<' | '>' | '=' | '!');
    let Some(name_end) = text.find(of_operator) else {
        return Err(format!(
            "`{shown}` has no operator (=, !=, <, <=, >, >=); blanks separate alternatives, so none may stand within a condition"
        ));
    };
    let (name, rest) = text.split_at(name_end);
    let (sign, value) = rest.split_at(rest.find(|c| !of_operator(c)).unwrap_or(rest.len()));
    if name.is_empty() {
        return Err(format!(
            "`{shown}` begins with its operator: cuda, driver, arch or brand is missing"
        ));
    }
    if !name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
    {
        return Err(format!(
            "`{shown}` begins with what is not a valid name; cuda, driver, arch and brand are known"
        ));
    }
    let Some(operator) = Operator::of(sign) else {
        return Err(format!("`{sign}` in `{shown}` is not one of =, !=, <, <=, >, >="));
    };
    if value.is_empty() {
        return Err(format!("`{shown}` compares with nothing"));
    }
    let key = Key::of(name);
    match key {
        Key::Brand if !matches!(operator, Operator::Equal | Operator::NotEqual) => {
            return Err(format!(
                "`{shown}` puts brands in an order: only = and != compare them"
            ));
        }
        Key::Cuda | Key::Driver | Key::Arch if Version::parse(value).is_none() => {
            return Err(format!(
                "`{shown}` compares with something other than a version such as 12.4"
            ));
        }
        _ => {}
    }
    Ok(Condition {
        key,
        operator,
        value: value.to_string(),
        text: shown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Vec<String> {
        parse(text).unwrap().iter().map(Alternative::to_string).collect()
    }

    #[test]
    fn blanks_are_or_and_commas_are_and() {
        let parsed = parse("cuda>=12.4 brand=tesla,driver>=470,driver<471").unwrap();
        assert_eq!(parsed.len(), 2);
        assert_eq!(
            parsed[1].0[1],
            Condition {
                key: Key::Driver,
                operator: Operator::AtLeast,
                value: "470".into(),
                text: "driver>=470".into()
            }
        );
        assert_eq!(
            written("  cuda>=12.4 ,,arch>=7.0,\tCUDA<13\n"),
            ["cuda>=12.4", "arch>=7.0", "CUDA<13"]
        );
        assert_eq!(written(",driver!=5,,arch=9.0,"), ["driver!=5,arch=9.0"]);
        for nothing in ["", " ", ",", " , ,"] {
            assert_eq!(parse(nothing), Ok(Vec::new()), "{nothing:?}");
        }
        assert_eq!(parse("vendor=3").unwrap()[0].0[0].key, Key::Unknown);
    }

    #[test]
    fn versions_compare_number_by_number() {
        let compare = |a: &str, b: &str| Version::parse(a).unwrap().compare(&Version::parse(b).unwrap());
        for (a, b, order) in [
            ("12.4", "12.4.0", Ordering::Equal),
            ("12.10", "12.9", Ordering::Greater),
            ("470.57.02", "470", Ordering::Greater),
            ("470.57.02", "471", Ordering::Less),
            ("470.057.2", "470.57.02", Ordering::Equal),
            ("9", "10.0", Ordering::Less),
        ] {
            assert_eq!(compare(a, b), order, "{a} {b}");
            assert_eq!(compare(b, a), order.reverse(), "{b} {a}");
        }
        for wrong in [
            "",
            ".",
            "12.",
            ".4",
            "12..4",
            "v12",
            "12.4-1",
            "+1",
            "99999999999999999999",
        ] {
            assert!(Version::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn operators_accept_what_they_say() {
        use Ordering::{Equal, Greater, Less};
        for (sign, accepted) in [
            ("=", &[Equal][..]),
            ("!=", &[Less, Greater]),
            ("<", &[Less]),
            ("<=", &[Less, Equal]),
            (">", &[Greater]),
            (">=", &[Greater, Equal]),
        ] {
            for order in [Less, Equal, Greater] {
                let operator = Operator::of(sign).unwrap();
                assert_eq!(
                    operator.accepts(order),
                    accepted.contains(&order),
                    "{sign} {order:?}"
                );
            }
        }
    }

    #[test]
    fn long_conditions_are_cut_when_they_are_shown() {
        let long = format!("cuda>={}", "9".repeat(100_000));
        let mistake = parse(&format!("arch>=7.0 {long}")).unwrap_err();
        assert_eq!(mistake.at, 11);
        assert!(mistake.message.len() < 200, "{}", mistake.message.len());
        assert!(parse(&"é".repeat(5000)).unwrap_err().message.len() < 400);
    }

    /// Whatever a variable holds, each condition that is read comes from it, and each mistake points into it.
    #[test]
    fn no_text_confuses_it() {
        const PARTS: [&str; 14] = [
            "cuda", "driver", "brand", "=", ">=", "<", "!", "12.4", ".", ",", " ", "\t", "é", "x",
        ];
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 16
        };
        for _ in 0..20_000 {
            let length = next() % 12;
            let text: String = (0..length)
                .map(|_| PARTS[next() as usize % PARTS.len()])
                .collect();
            match parse(&text) {
                Ok(alternatives) => {
                    assert!(alternatives.iter().all(|one| !one.0.is_empty()), "{text:?}");
                    let mut conditions = alternatives.iter().flat_map(|one| &one.0);
                    assert!(conditions.all(|c| text.contains(&c.text)), "{text:?}");
                }
                Err(mistake) => assert!(
                    (1..=text.chars().count()).contains(&mistake.at),
                    "{text:?}: {mistake}"
                ),
            }
        }
    }

    fn fixtures(kind: &str) -> Vec<(String, String)> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/require");
        let mut all: Vec<(String, String)> = std::fs::read_dir(folder.join(kind))
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_stem().unwrap().to_str().unwrap().to_string();
                (name, std::fs::read_to_string(&path).unwrap())
            })
            .collect();
        all.sort();
        all
    }

    #[test]
    fn values_of_real_images_are_read() {
        let counts: Vec<(String, usize)> = fixtures("valid")
            .into_iter()
            .map(|(name, text)| (name, parse(&text).unwrap().len()))
            .collect();
        let counts: Vec<(&str, usize)> = counts.iter().map(|(n, c)| (n.as_str(), *c)).collect();
        assert_eq!(
            counts,
            [
                ("nvidia-cuda-10.1", 4),
                ("nvidia-cuda-12.4.1", 31),
                ("nvidia-cuda-12.4.1-arm64", 1),
                ("nvidia-cuda-13.0.2", 61),
                ("own", 1)
            ]
        );
    }

    #[test]
    fn what_is_no_condition_is_told_with_its_place() {
        let fixtures = fixtures("invalid");
        assert!(fixtures.len() >= 15);
        let errors: Vec<String> = fixtures
            .iter()
            .map(|(name, text)| match parse(text) {
                Ok(read) => panic!("{name} was read as {read:?}"),
                Err(mistake) => {
                    let here: String = text.chars().skip(mistake.at - 1).take(12).collect();
                    format!("{name}: {mistake}\n  here: {}", here.trim_end().escape_debug())
                }
            })
            .collect();
        insta::assert_snapshot!(errors.join("\n\n").replace('\x1b', "\\e"));
    }
}
