//! The stack manifest: what must be true.
//!
//! A manifest is a JSON object of at most 1 MiB. `schema` and `name` are required, a part that is left out is not
//! checked, and everything that makes no sense is an error with its line, column and path: a manifest with a slip in
//! it would otherwise pass images that it should stop. `src/stack/stack.schema.json` says the same to editors.

use std::collections::{BTreeMap, BTreeSet};

use pep440_rs::VersionSpecifiers;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::arch::ArchList;
use crate::check::accept::Accept;

mod accept;
mod error;
mod gpus;
mod json;
mod limits;
mod names;
mod packages;
mod position;
mod show;
mod smoke;
mod version;

use error::Problem;
use json::{Object, Text, Texts, object};

pub use error::StackError;
pub use gpus::GpuRule;
pub use limits::{LimitRules, Memlock, write_size};
pub use names::check_name;
pub use packages::{PackageRule, normalize_name};
pub use show::table;
pub use smoke::{Builtin, NATIVE, SmokeEntry, is_interpreter};
pub use version::{CudaRule, CudaRules};

/// The stack that is checked where no manifest is given.
pub const EMBEDDED_JSON: &str = include_str!("stack/pointcept-cu124.json");

/// The JSON Schema (draft 2020-12) of a manifest. The names of the smokes come from their table.
pub fn schema() -> String {
    let names = Builtin::all().map(Builtin::name);
    let smokes: Vec<String> = names
        .chain([smoke::NATIVE, smoke::NATIVE_ALL])
        .map(|name| format!("\"{name}\""))
        .collect();
    crate::packed::schema("stack")
        .replace("\"@smokes\"", &smokes.join(", "))
        .replace("\"@accepted\"", &accept::codes())
}

/// The largest manifest in bytes. Read no more than one byte beyond it: a longer text is refused unread.
pub const MAX_BYTES: usize = 1 << 20;

/// The one version of the format so far.
const SCHEMA: u64 = 1;

/// A parsed manifest.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Stack {
    /// how verdicts call it: one word of ASCII
    pub name: String,
    /// versions of the CUDA runtime libraries and of the driver
    pub cuda: CudaRules,
    /// architectures that the image must serve
    pub archs: Option<ArchList>,
    /// variables for the smoke and the service
    pub env: BTreeMap<String, String>,
    /// versions of the interpreter
    pub python: Option<VersionSpecifiers>,
    /// distributions, in the manifest's order
    pub packages: Vec<PackageRule>,
    /// files relative to site-packages
    pub files: Vec<String>,
    /// libraries and programs with kernels outside of Python, absolute paths with patterns
    pub libraries: Vec<String>,
    /// what to run, in order
    pub smoke: Vec<SmokeEntry>,
    /// how many GPUs CUDA must show
    pub gpus: Option<GpuRule>,
    /// limits of the container that must hold
    pub limits: LimitRules,
    /// findings that are accepted, each for a package or a library
    pub accept: Vec<Accept>,
    /// there is no manifest: what is there is held against itself ([`Stack::none`])
    pub as_found: bool,
}

/// How `--stack` asks for no manifest, and what verdicts call that.
pub const NONE: &str = "none";

impl Stack {
    /// No manifest. What is read and asked is all that any manifest could ask for; what it is judged by is made of what was
    /// found ([`crate::capture::as_found`]).
    pub fn none() -> Self {
        Self {
            name: NONE.to_string(),
            cuda: CudaRules {
                runtime: Some(CudaRule::any()),
                nvrtc: Some(CudaRule::any()),
                driver: None,
            },
            as_found: true,
            ..Self::default()
        }
    }

    /// Whether its smoke has entries that a Python runs.
    pub fn has_python_smoke(&self) -> bool {
        self.smoke.iter().any(SmokeEntry::needs_python)
    }

    /// Parses a manifest. A byte order mark in front is skipped.
    ///
    /// # Errors
    /// Everything that is not a manifest of this version, at its place.
    pub fn parse(text: &str) -> Result<Self, StackError> {
        if text.len() > MAX_BYTES {
            return Err(too_long());
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim().is_empty() {
            return Err(StackError::of_document(
                "the manifest is empty",
                "`cuda-entrypoint stack show` prints one to start from",
            ));
        }
        let mut json = serde_json::Deserializer::from_str(text);
        let Parsed(stack) = serde_path_to_error::deserialize(&mut json)
            .map_err(|e| other_format(text).unwrap_or_else(|| error::from_serde(text, e)))?;
        match json.end() {
            Ok(()) => Ok(stack),
            // Behind the object there is no path any more: an empty one.
            Err(e) => {
                let track = serde_path_to_error::Track::new();
                Err(error::from_serde(
                    text,
                    serde_path_to_error::Error::new(track.path(), e),
                ))
            }
        }
    }

    /// Parses the bytes of a file.
    ///
    /// # Errors
    /// As [`Stack::parse`], and text that is not UTF-8, at its first bad byte.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, StackError> {
        if bytes.len() > MAX_BYTES {
            return Err(too_long());
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::parse(text),
            Err(e) => {
                let good = bytes.get(..e.valid_up_to()).unwrap_or_default();
                let (line, column) = position::line_and_column(&String::from_utf8_lossy(good), good.len());
                Err(StackError {
                    line,
                    column,
                    ..StackError::of_document("the manifest is not UTF-8", "save it as UTF-8")
                })
            }
        }
    }

    /// The stack that comes with this program.
    ///
    /// # Errors
    /// None in a tested build.
    pub fn embedded() -> Result<Self, StackError> {
        Self::parse(EMBEDDED_JSON)
    }
}

fn too_long() -> StackError {
    StackError::of_document(
        format!("the manifest is longer than {MAX_BYTES} bytes"),
        "name a stack manifest, which is a page of JSON",
    )
}

/// A manifest while it is read.
#[derive(Default)]
struct Manifest {
    schema: bool,
    name: Option<String>,
    cuda: CudaRules,
    archs: Option<ArchList>,
    env: BTreeMap<String, String>,
    python: Option<VersionSpecifiers>,
    packages: Vec<PackageRule>,
    files: Vec<String>,
    libraries: Vec<String>,
    smoke: Vec<SmokeEntry>,
    gpus: Option<GpuRule>,
    limits: LimitRules,
    accept: Vec<Accept>,
}

impl Object for Manifest {
    type Output = Stack;
    const KEYS: &'static [&'static str] = &[
        "$schema",
        "schema",
        "name",
        "cuda",
        "archs",
        "env",
        "python",
        "packages",
        "files",
        "libraries",
        "smoke",
        "gpus",
        "limits",
        "accept",
    ];
    const EXPECTING: &'static str = "a stack manifest, which is an object";

    fn set<'de, A: MapAccess<'de>>(&mut self, key: &'static str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "schema" => {
                map.next_value_seed(SchemaSeed)?;
                self.schema = true;
            }
            "name" => {
                self.name = Some(map.next_value_seed(Text {
                    expecting: "a name as a string",
                    parse: names::check_label,
                })?);
            }
            "cuda" => self.cuda = map.next_value_seed(object::<CudaRules>())?,
            "archs" => {
                self.archs = Some(map.next_value_seed(Text {
                    expecting: "a list of architectures as a string, such as \"8.0;9.0\"",
                    parse: |text: &str| text.parse().map_err(|e| Problem::value(format!("{e}"), "")),
                })?);
            }
            "env" => self.env = map.next_value_seed(names::EnvSeed)?,
            "python" => {
                self.python = Some(map.next_value_seed(Text {
                    expecting: "versions as a string, such as \">=3.9,<3.13\"",
                    parse: packages::parse_python,
                })?);
            }
            "packages" => self.packages = map.next_value_seed(packages::PackagesSeed)?,
            "files" => {
                let mut seen = BTreeSet::new();
                self.files = map.next_value_seed(Texts {
                    expecting: "an array of file names",
                    parse: |_, name: &str| names::check_file(&mut seen, name),
                })?;
            }
            "libraries" => {
                let mut seen = BTreeSet::new();
                self.libraries = map.next_value_seed(Texts {
                    expecting: "an array of absolute paths, such as [\"/opt/app/lib/*.so\"]",
                    parse: |_, pattern: &str| names::check_library(&mut seen, pattern),
                })?;
            }
            "smoke" => self.smoke = map.next_value_seed(smoke::SmokeSeed)?,
            "gpus" => self.gpus = Some(map.next_value_seed(gpus::GpuRuleSeed)?),
            "limits" => self.limits = map.next_value_seed(object::<LimitRules>())?,
            "accept" => self.accept = map.next_value_seed(accept::AcceptSeed)?,
            // `$schema` is for editors.
            _ => {
                map.next_value_seed(Text {
                    expecting: "the schema's address as a string",
                    parse: |_: &str| Ok(()),
                })?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Stack, Problem> {
        if !self.schema {
            return Err(Problem::value(
                "the key `schema` is missing",
                format!("add \"schema\": {SCHEMA}, the version of the manifest's format"),
            ));
        }
        let Some(name) = self.name else {
            return Err(Problem::value(
                "the key `name` is missing",
                "add a name, such as \"name\": \"my-stack\"; verdicts call the stack by it",
            ));
        };
        Ok(Stack {
            name,
            cuda: self.cuda,
            archs: self.archs,
            env: self.env,
            python: self.python,
            packages: self.packages,
            files: self.files,
            libraries: self.libraries,
            smoke: self.smoke,
            gpus: self.gpus,
            limits: self.limits,
            accept: self.accept,
            as_found: false,
        })
    }
}

/// The number 1.
struct SchemaSeed;

impl SchemaSeed {
    fn unknown<E: Error>(number: impl std::fmt::Display) -> E {
        E::custom(Problem::value(
            format!("this manifest has format {number}, and this program reads format {SCHEMA}"),
            "use a release of cuda-entrypoint that reads it, or write the manifest in format 1",
        ))
    }
}

impl<'de> DeserializeSeed<'de> for SchemaSeed {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for SchemaSeed {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the number {SCHEMA}")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        match number {
            SCHEMA => Ok(()),
            other => Err(Self::unknown(other)),
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        Err(Self::unknown(number))
    }
}

/// The error of a manifest in another format, wherever its `schema` stands: an unknown key in front of it is not what
/// is wrong with such a manifest.
fn other_format(text: &str) -> Option<StackError> {
    struct Format;

    impl<'de> Deserialize<'de> for Format {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_map(Self)
        }
    }

    impl<'de> Visitor<'de> for Format {
        type Value = Self;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
            while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                match &*key {
                    "schema" => map.next_value_seed(SchemaSeed)?,
                    _ => drop(map.next_value::<IgnoredAny>()?),
                }
            }
            Ok(self)
        }
    }

    let mut json = serde_json::Deserializer::from_str(text);
    let error = serde_path_to_error::deserialize::<_, Format>(&mut json).err()?;
    (error.inner().is_data() && error.path().to_string() == "schema").then(|| error::from_serde(text, error))
}

/// What serde reads. `Stack` itself is not `Deserialize`: serde's errors are for [`error::from_serde`] alone.
struct Parsed(Stack);

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        object::<Manifest>().deserialize(deserializer).map(Self)
    }
}

/// The manifest's own form, so that what is written can be read again; parts that check nothing are left out.
impl Serialize for Stack {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("schema", &SCHEMA)?;
        map.serialize_entry("name", &self.name)?;
        if self.as_found {
            // Its rules are those of what is read; there is nothing to write down.
            return map.end();
        }
        if !self.cuda.is_empty() {
            map.serialize_entry("cuda", &self.cuda)?;
        }
        if let Some(archs) = &self.archs {
            map.serialize_entry("archs", archs)?;
        }
        if !self.env.is_empty() {
            map.serialize_entry("env", &self.env)?;
        }
        if let Some(python) = &self.python {
            map.serialize_entry("python", &packages::write_specifiers(python))?;
        }
        if !self.packages.is_empty() {
            map.serialize_entry("packages", &packages::Packages(&self.packages))?;
        }
        if !self.files.is_empty() {
            map.serialize_entry("files", &self.files)?;
        }
        if !self.libraries.is_empty() {
            map.serialize_entry("libraries", &self.libraries)?;
        }
        if !self.smoke.is_empty() {
            map.serialize_entry("smoke", &self.smoke)?;
        }
        if let Some(gpus) = &self.gpus {
            map.serialize_entry("gpus", gpus)?;
        }
        if !self.limits.is_empty() {
            map.serialize_entry("limits", &self.limits)?;
        }
        if !self.accept.is_empty() {
            map.serialize_entry("accept", &accept::Entries(&self.accept))?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests;
