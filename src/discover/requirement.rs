//! `Requires-Dist` lines: a name, extras, version specifiers and an environment marker.
//!
//! Source: PyPA specifications, "Dependency specifiers" (PEP 508) and "Core metadata". What is not needed to judge an
//! installed environment, such as the URL of `name @ url`, is read over.

use std::borrow::Cow;
use std::str::FromStr;

use crate::facts::{Distribution, WheelVariant};
use crate::processor::OWN;
use crate::text::one_line;
use pep440_rs::{Version, VersionSpecifier, VersionSpecifiers};

/// Deepest nesting of parentheses in a marker that is followed.
const MAX_DEPTH: usize = 32;
/// Most extras that one requirement asks for.
const MAX_EXTRAS: usize = 100;

/// A name as PEP 503 compares it: lower case, runs of `-`, `_` and `.` as one `-`.
pub fn normalize_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.trim().chars() {
        match c {
            '-' | '_' | '.' => {
                if !out.ends_with('-') {
                    out.push('-');
                }
            }
            _ => out.extend(c.to_lowercase()),
        }
    }
    out
}

/// One parsed requirement.
#[derive(Clone, PartialEq, Debug)]
pub struct Requirement {
    /// normalised name (PEP 503)
    pub name: String,
    /// the extras of it that are asked for, normalised (PEP 685)
    pub extras: Vec<String>,
    /// the versions that it takes; empty takes all
    pub specifiers: VersionSpecifiers,
    marker: Option<Marker>,
}

impl Requirement {
    /// Whether it counts in this environment. `None` when its marker asks for something that is not known.
    pub fn applies(&self, environment: &MarkerEnvironment) -> Option<bool> {
        self.marker
            .as_ref()
            .map_or(Some(true), |m| m.evaluate(environment))
    }
}

/// A line that is no requirement.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum RequirementError {
    /// it does not start with a name
    #[error("it does not start with a package's name")]
    Name,
    /// its brackets of extras are not closed
    #[error("the brackets of its extras are not closed")]
    Extras,
    /// its versions are not PEP 440
    #[error("`{0}` is not a PEP 440 version specifier")]
    Specifiers(String),
    /// its marker is not PEP 508
    #[error("`{0}` is not an environment marker")]
    Marker(String),
}

impl FromStr for Requirement {
    type Err = RequirementError;

    fn from_str(line: &str) -> Result<Self, RequirementError> {
        let line = line.trim();
        let end = line
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
            .unwrap_or(line.len());
        let (name, mut rest) = line.split_at(end);
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(RequirementError::Name);
        }
        rest = rest.trim_start();
        let mut extras = Vec::new();
        if let Some(list) = rest.strip_prefix('[') {
            let (list, behind) = list.split_once(']').ok_or(RequirementError::Extras)?;
            let named = list
                .split(',')
                .map(normalize_name)
                .filter(|extra| !extra.is_empty());
            extras.extend(named.take(MAX_EXTRAS));
            rest = behind.trim_start();
        }
        let (versions, marker) = if rest.starts_with('@') {
            // A URL may hold a semicolon; only one after a blank starts the marker.
            (
                "",
                rest.find(" ;")
                    .and_then(|at| rest.get(at..))
                    .and_then(|m| m.split_once(';'))
                    .map(|m| m.1),
            )
        } else {
            match rest.split_once(';') {
                Some((versions, marker)) => (versions, Some(marker)),
                None => (rest, None),
            }
        };
        Ok(Self {
            name: normalize_name(name),
            extras,
            specifiers: parse_specifiers(versions)?,
            marker: marker.map(Marker::parse).transpose()?,
        })
    }
}

/// `>=1.0,<2`, or the same in parentheses as older metadata has it.
fn parse_specifiers(text: &str) -> Result<VersionSpecifiers, RequirementError> {
    let text = text.trim();
    let inner = text
        .strip_prefix('(')
        .and_then(|t| t.strip_suffix(')'))
        .unwrap_or(text);
    // A comma at the end is allowed by `packaging`, and seen in the wild.
    let inner = inner.trim().trim_end_matches(',').trim_end();
    inner
        .parse()
        .map_err(|_| RequirementError::Specifiers(one_line(text, 80)))
}

/// What markers are compared with. `None`: not known from files alone.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct MarkerEnvironment {
    /// `3.11`
    pub python_version: Option<String>,
    /// `3.11.7`
    pub python_full_version: Option<String>,
    /// the extra of the distribution that is looked at; empty for none
    pub extra: String,
    /// the variant of its wheel
    pub variant: Option<WheelVariant>,
}

impl MarkerEnvironment {
    /// The environment of an interpreter of this version, `3.11` or `3.11.7`, on this processor's Linux.
    pub fn of(version: Option<&str>) -> Self {
        let Some(version) = version else {
            return Self::default();
        };
        let mut parts = version.splitn(3, '.');
        let (major, minor, micro) = (parts.next(), parts.next(), parts.next());
        Self {
            python_version: major.zip(minor).map(|(a, b)| format!("{a}.{b}")),
            python_full_version: micro.map(|_| version.to_string()),
            ..Self::default()
        }
    }

    /// The same for the requirements of one distribution.
    pub fn within(&self, dist: &Distribution) -> Self {
        Self {
            variant: dist.variant.clone(),
            ..self.clone()
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        // The dotted names are those of PEP 345, which PEP 508 keeps.
        match name {
            "python_version" => self.python_version.as_deref(),
            "python_full_version" | "implementation_version" => self.python_full_version.as_deref(),
            "os_name" | "os.name" => Some("posix"),
            "sys_platform" | "sys.platform" => Some("linux"),
            "platform_system" => Some("Linux"),
            "platform_machine" | "platform.machine" => Some(OWN.machine),
            "platform_python_implementation" | "platform.python_implementation" | "python_implementation" => {
                Some("CPython")
            }
            "implementation_name" => Some("cpython"),
            "extra" => Some(&self.extra),
            "variant_label" => self.variant.as_ref().map(|variant| variant.label.as_str()),
            _ => None,
        }
    }
}

/// A marker as a tree, of which only parentheses make a level: a line may have any number of `or`s, and what walks a
/// tree takes stack for each level.
#[derive(Clone, PartialEq, Debug)]
enum Marker {
    And(Vec<Marker>),
    Or(Vec<Marker>),
    Compare(Operand, Comparison, Operand),
}

#[derive(Clone, PartialEq, Debug)]
enum Operand {
    Variable(String),
    Literal(String),
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Comparison {
    Operator(&'static str),
    In,
    NotIn,
}

impl Marker {
    fn parse(text: &str) -> Result<Self, RequirementError> {
        let error = || RequirementError::Marker(one_line(text.trim(), 80));
        let tokens = tokens(text).ok_or_else(error)?;
        let mut parser = Parser {
            tokens: &tokens,
            at: 0,
        };
        let marker = parser.any(0).ok_or_else(error)?;
        if parser.at == tokens.len() {
            Ok(marker)
        } else {
            Err(error())
        }
    }

    /// Kleene's three values: what is not known does not matter where the other side decides.
    fn evaluate(&self, environment: &MarkerEnvironment) -> Option<bool> {
        match self {
            Self::And(parts) => decided(parts, false, environment),
            Self::Or(parts) => decided(parts, true, environment),
            Self::Compare(left, comparison, right) => {
                if let Operand::Variable(set) = right
                    && let Some(depth) = VARIANT_SETS.iter().position(|name| name == set)
                {
                    return among_properties(left.value(environment)?, *comparison, depth + 1, environment);
                }
                let is = |names: &[&str]| {
                    let named =
                        |o: &Operand| matches!(o, Operand::Variable(name) if names.contains(&name.as_str()));
                    named(left) || named(right)
                };
                let (is_extra, is_text) = (is(&["extra"]), is(&["extra", "variant_label"]));
                let (left, right) = (left.value(environment)?, right.value(environment)?);
                let (mut left, mut right) = (Cow::Borrowed(left), Cow::Borrowed(right));
                if is_extra {
                    // PEP 685
                    left = normalize_name(&left).into();
                    right = normalize_name(&right).into();
                }
                let (left, right) = (left.as_ref(), right.as_ref());
                match comparison {
                    Comparison::In => Some(right.contains(left)),
                    Comparison::NotIn => Some(!right.contains(left)),
                    Comparison::Operator(operator) if is_text => compare_text(left, operator, right),
                    Comparison::Operator(operator) => compare_versions(left, operator, right)
                        .or_else(|| compare_text(left, operator, right)),
                }
            }
        }
    }
}

/// The sets of PEP 825: the first, the first two, and all three parts of `namespace :: feature :: value`.
const VARIANT_SETS: [&str; 3] = ["variant_namespaces", "variant_features", "variant_properties"];

/// `'nvidia :: cuda' in variant_features`; sets have no other comparison.
fn among_properties(
    wanted: &str,
    comparison: Comparison,
    depth: usize,
    environment: &MarkerEnvironment,
) -> Option<bool> {
    let wanted: Vec<&str> = wanted.split("::").map(str::trim).collect();
    let mut properties = environment.variant.as_ref()?.properties.iter();
    let is_there = wanted.len() == depth
        && properties.any(|property| {
            property
                .split("::")
                .map(str::trim)
                .take(depth)
                .eq(wanted.iter().copied())
        });
    match comparison {
        Comparison::In => Some(is_there),
        Comparison::NotIn => Some(!is_there),
        Comparison::Operator(_) => None,
    }
}

/// One part that is `decisive` decides; else all have to be known.
fn decided(parts: &[Marker], decisive: bool, environment: &MarkerEnvironment) -> Option<bool> {
    let mut all = Some(!decisive);
    for part in parts {
        match part.evaluate(environment) {
            Some(value) if value == decisive => return Some(decisive),
            Some(_) => {}
            None => all = None,
        }
    }
    all
}

impl Operand {
    fn value<'a>(&'a self, environment: &'a MarkerEnvironment) -> Option<&'a str> {
        match self {
            Self::Literal(text) => Some(text),
            Self::Variable(name) => environment.get(name),
        }
    }
}

/// PEP 508: as versions where the right side makes a valid specifier with the operator.
fn compare_versions(left: &str, operator: &str, right: &str) -> Option<bool> {
    let version = Version::from_str(left).ok()?;
    let specifier = VersionSpecifier::from_str(&format!("{operator}{right}")).ok()?;
    Some(specifier.contains(&version))
}

/// Else as text; orders of texts are not defined.
fn compare_text(left: &str, operator: &str, right: &str) -> Option<bool> {
    match operator {
        "==" | "===" => Some(left == right),
        "!=" => Some(left != right),
        _ => None,
    }
}

#[derive(Clone, PartialEq, Debug)]
enum Token<'a> {
    Open,
    Close,
    Word(&'a str),
    Text(Cow<'a, str>),
    Operator(&'static str),
}

/// The longest first, so that `===` is not read as `==`.
const OPERATORS: [&str; 8] = ["===", "==", "!=", "<=", ">=", "~=", "<", ">"];

fn tokens(text: &str) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let used = match first {
            '(' | ')' => {
                tokens.push(if first == '(' { Token::Open } else { Token::Close });
                1
            }
            '\'' | '"' => {
                let literal = rest.get(1..)?.split_once(first)?.0;
                tokens.push(Token::Text(literal.into()));
                literal.len() + 2
            }
            _ => {
                if let Some(operator) = OPERATORS.into_iter().find(|o| rest.starts_with(o)) {
                    tokens.push(Token::Operator(operator));
                    operator.len()
                } else {
                    let end = rest
                        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.')))
                        .unwrap_or(rest.len());
                    let word = rest.get(..end).filter(|w| !w.is_empty())?;
                    tokens.push(Token::Word(word));
                    end
                }
            }
        };
        rest = rest.get(used..)?.trim_start();
    }
    Some(tokens)
}

struct Parser<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
}

impl Parser<'_> {
    fn take(&mut self, wanted: &Token<'_>) -> bool {
        let found = self.tokens.get(self.at) == Some(wanted);
        self.at += usize::from(found);
        found
    }

    /// `and` binds closer than `or`.
    fn any(&mut self, depth: usize) -> Option<Marker> {
        self.list("or", Marker::Or, |parser| parser.all(depth))
    }

    fn all(&mut self, depth: usize) -> Option<Marker> {
        self.list("and", Marker::And, |parser| parser.one(depth))
    }

    fn list(
        &mut self,
        word: &str,
        joined: impl Fn(Vec<Marker>) -> Marker,
        part: impl Fn(&mut Self) -> Option<Marker>,
    ) -> Option<Marker> {
        let first = part(self)?;
        let mut parts = vec![first];
        while self.take(&Token::Word(word)) {
            parts.push(part(self)?);
        }
        match parts.len() {
            1 => parts.pop(),
            _ => Some(joined(parts)),
        }
    }

    fn one(&mut self, depth: usize) -> Option<Marker> {
        if depth > MAX_DEPTH {
            return None;
        }
        if self.take(&Token::Open) {
            let inner = self.any(depth + 1)?;
            return self.take(&Token::Close).then_some(inner);
        }
        let left = self.operand()?;
        let comparison = self.comparison()?;
        Some(Marker::Compare(left, comparison, self.operand()?))
    }

    fn operand(&mut self) -> Option<Operand> {
        let operand = match self.tokens.get(self.at)? {
            Token::Word("and" | "or" | "in" | "not") => return None,
            Token::Word(word) => Operand::Variable((*word).to_string()),
            Token::Text(text) => Operand::Literal(text.clone().into_owned()),
            _ => return None,
        };
        self.at += 1;
        Some(operand)
    }

    fn comparison(&mut self) -> Option<Comparison> {
        if let Some(Token::Operator(operator)) = self.tokens.get(self.at) {
            self.at += 1;
            return Some(Comparison::Operator(operator));
        }
        let negated = self.take(&Token::Word("not"));
        self.take(&Token::Word("in")).then_some(if negated {
            Comparison::NotIn
        } else {
            Comparison::In
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applies(line: &str) -> Option<bool> {
        let requirement: Requirement = line.parse().unwrap_or_else(|e| panic!("{line}: {e}"));
        requirement.applies(&MarkerEnvironment::of(Some("3.11.7")))
    }

    #[test]
    fn names_compare_as_pep_503_says() {
        for name in [
            "friendly-bard",
            "Friendly-Bard",
            "FRIENDLY._-bard",
            " friendly__bard ",
        ] {
            assert_eq!(normalize_name(name), "friendly-bard");
        }
        assert_eq!(normalize_name("İ"), "i\u{307}");
    }

    #[test]
    fn versions_in_all_spellings() {
        for line in [
            "cumm-cu124<0.8.0,>=0.7.11",
            "cumm_cu124 (<0.8.0,>=0.7.11)",
            "cumm-cu124 [a,b] >= 0.7.11, < 0.8.0,",
            "cumm.cu124<0.8.0,>=0.7.11 ; python_version >= '3'",
        ] {
            let requirement: Requirement = line.parse().unwrap();
            assert_eq!(requirement.name, "cumm-cu124", "{line}");
            for (version, taken) in [("0.7.11", true), ("0.8.2", false), ("0.7.2", false)] {
                let version = Version::from_str(version).unwrap();
                assert_eq!(
                    requirement.specifiers.contains(&version),
                    taken,
                    "{line} {version}"
                );
            }
        }
        let url: Requirement = "x @ https://a/b;c?d ; sys_platform == 'win32'".parse().unwrap();
        assert!(url.specifiers.is_empty());
        assert_eq!(url.applies(&MarkerEnvironment::default()), Some(false));
    }

    /// A thread has two megabytes of stack, and whoever starts an image has nothing to do with who wrote this.
    #[test]
    fn a_marker_without_end_takes_no_stack() {
        for (word, expected) in [("or", Some(true)), ("and", Some(false))] {
            let line = format!(
                "x; {}os_name == 'posix'",
                format!("os_name == 'nt' {word} ").repeat(100_000)
            );
            assert_eq!(applies(&line), expected, "{word}");
        }
    }

    #[test]
    fn markers_of_real_wheels() {
        for (line, expected) in [
            (r#"contextvars; python_version == "3.6""#, Some(false)),
            (
                r#"nvidia-nccl-cu12==2.21.5; platform_system == "Linux" and platform_machine == "x86_64""#,
                Some(true),
            ),
            (
                r#"triton==3.1.0; platform_system == "Linux" and platform_machine == "x86_64" and python_version < "3.13""#,
                Some(true),
            ),
            (r#"setuptools; python_version >= "3.12""#, Some(false)),
            (r#"opt-einsum>=3.3; extra == "opt-einsum""#, Some(false)),
            (
                r#"a; extra != "x" and (os_name == "nt" or os.name == 'posix')"#,
                Some(true),
            ),
            (r#"a; sys_platform in "linux darwin""#, Some(true)),
            (r#"a; "linux" not in sys_platform"#, Some(false)),
            (r#"a; "3.8" <= python_version"#, Some(true)),
            // 3.11 is newer than 3.9, which a comparison of texts gets wrong.
            (r#"a; python_version > "3.9""#, Some(true)),
            (r#"a; python_version ~= "3.8""#, Some(true)),
            (r#"a; python_full_version < "3.11.8""#, Some(true)),
            (r#"a; implementation_name == "pypy""#, Some(false)),
            (r#"a; platform_release >= "5""#, None),
            (
                r#"a; platform_release >= "5" and sys_platform == "win32""#,
                Some(false),
            ),
            (
                r#"a; platform_release >= "5" or sys_platform == "linux""#,
                Some(true),
            ),
            (
                r#"a; sys_platform == "win32" and os_name == "x" or os_name == "posix""#,
                Some(true),
            ),
        ] {
            assert_eq!(applies(line), expected, "{line}");
        }
    }

    #[test]
    fn extras_are_read_and_compared_normalised() {
        let requirement: Requirement = "cuda-toolkit[Cu_Blas, cudart,]==13.2; os_name == 'posix'"
            .parse()
            .unwrap();
        assert_eq!(requirement.extras, ["cu-blas", "cudart"]);
        for (line, extra, expected) in [
            ("a; extra == 'Cu_Blas'", "cu-blas", true),
            ("a; extra == 'cu.blas'", "cu-blas", true),
            ("a; 'cudart' == extra", "cu-blas", false),
            ("a; extra != 'cudart'", "cu-blas", true),
            (
                "a; extra == 'x' or (sys_platform == 'linux' and extra == 'y')",
                "y",
                true,
            ),
            ("a; extra == '1.0'", "1.00", false),
        ] {
            let environment = MarkerEnvironment {
                extra: extra.into(),
                ..MarkerEnvironment::of(Some("3.11.7"))
            };
            let requirement: Requirement = line.parse().unwrap();
            assert_eq!(requirement.applies(&environment), Some(expected), "{line}");
        }
    }

    #[test]
    fn variants_are_those_of_pep_825() {
        let variant = |label: &str, properties: &[&str]| {
            Some(WheelVariant {
                label: label.into(),
                properties: properties.iter().map(ToString::to_string).collect(),
            })
        };
        let cuda = variant(
            "cu13",
            &["nvidia :: cuda_version_lower_bound :: 13.0", "gpu::cuda::13"],
        );
        for (marker, variant, expected) in [
            ("'nvidia' in variant_namespaces", &cuda, Some(true)),
            ("'amd' not in variant_namespaces", &cuda, Some(true)),
            ("'gpu :: cuda' in variant_features", &cuda, Some(true)),
            ("'gpu' in variant_features", &cuda, Some(false)),
            ("'gpu :: cuda :: 13' in variant_properties", &cuda, Some(true)),
            ("'gpu :: cuda :: 12' in variant_properties", &cuda, Some(false)),
            ("variant_label == 'cu13'", &cuda, Some(true)),
            ("variant_label == ''", &cuda, Some(false)),
            ("variant_label == ''", &variant("", &[]), Some(true)),
            ("'nvidia' in variant_namespaces", &variant("", &[]), Some(false)),
            ("variant_namespaces == 'nvidia'", &cuda, None),
            ("variant_namespaces in 'nvidia'", &cuda, None),
            ("'nvidia' in variant_namespaces", &None, None),
            ("variant_label == 'cu13'", &None, None),
        ] {
            let environment = MarkerEnvironment {
                variant: variant.clone(),
                ..MarkerEnvironment::default()
            };
            let requirement: Requirement = format!("a; {marker}").parse().unwrap();
            assert_eq!(
                requirement.applies(&environment),
                expected,
                "{marker} {variant:?}"
            );
        }
    }

    #[test]
    fn an_unknown_interpreter_leaves_its_markers_open() {
        let requirement: Requirement = "a; python_version < '3.12'".parse().unwrap();
        assert_eq!(requirement.applies(&MarkerEnvironment::of(None)), None);
        let full: Requirement = "a; python_full_version < '3.12.1'".parse().unwrap();
        assert_eq!(full.applies(&MarkerEnvironment::of(Some("3.11"))), None);
    }

    #[test]
    fn what_is_no_requirement_is_an_error() {
        let deep = format!("a; {}os_name == 'x'{}", "(".repeat(10_000), ")".repeat(10_000));
        for line in [
            "",
            "  ",
            ">=1",
            "-a",
            "a[b",
            "a>=",
            "a >> 1",
            "a;",
            "a; os_name",
            "a; os_name ==",
            "a; os_name == 'x",
            "a; os_name = 'x'",
            "a; (os_name == 'x'",
            "a; os_name == 'x')",
            "a; os_name == 'x' and",
            "a; and os_name == 'x'",
            "a; os_name not 'x'",
            "a; os_name == 'x' 'y'",
            "a; os_name ? 'é'",
            deep.as_str(),
        ] {
            assert!(line.parse::<Requirement>().is_err(), "{line:.40}");
        }
    }
}
