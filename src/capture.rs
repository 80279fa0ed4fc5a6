//! `stack capture`: a manifest made from the environment that is there, for an image that works to be kept as it is.
//!
//! Pure: the facts come from the same reading that `check --stage image` does, with a manifest that asks for every
//! version ([`probe`]). What it writes has to start on every GPU on which the image runs, and must not accept what the
//! packages themselves refuse: [`contradictions`] finds what a manifest would hide.

use std::collections::BTreeMap;
use std::ffi::CString;

use pep440_rs::{Version, VersionSpecifiers};

use crate::arch::ArchList;
use crate::check::{Code, Finding, Findings, Overrides, Status};
use crate::checks::{floor, image};
use crate::facts::{Distribution, Facts, ImageFacts};
use crate::order;
use crate::packages as known;
use crate::process::launch;
use crate::stack::{CudaRules, PackageRule, Stack, StackError};
use crate::text::one_line;

mod archs;
mod contradictions;
mod cuda;
mod packages;
mod smoke;

/// The name of a captured stack, where none is given.
pub const NAME: &str = "captured";

/// What `cuda-entrypoint schema stack` prints, in a file beside the manifest: editors look there.
const SCHEMA: &str = "./stack.schema.json";

/// A manifest that accepts every version of what capturing looks at, and the architectures to count.
///
/// # Errors
/// None in a tested build.
pub fn probe() -> Result<Stack, StackError> {
    let archs = archs::KNOWN;
    Stack::parse(&format!(
        r#"{{"schema": 1, "name": "{NAME}", "cuda": {{"runtime": "*", "nvrtc": "*"}}, "archs": "{archs}"}}"#
    ))
}

/// What a capture takes beside the facts.
pub struct Given<'a> {
    /// how verdicts are to call the stack
    pub name: &'a str,
    /// the environment
    pub variables: &'a BTreeMap<String, String>,
    /// the modules by which a distribution with kernels is imported
    pub imports: &'a dyn Fn(&Distribution) -> Vec<String>,
}

/// What was made of an environment.
#[derive(Clone, PartialEq, Debug)]
pub struct Captured {
    /// the manifest
    pub stack: Stack,
    /// what was left out of it, and why; a sentence each
    notes: Vec<String>,
}

impl Captured {
    /// What was left out, and why; a sentence each, without control characters.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        self.notes.iter().map(|note| one_line(note, 1_000))
    }

    /// The manifest as it is written.
    ///
    /// # Errors
    /// None for what [`manifest`] makes.
    pub fn document(&self) -> Result<String, serde_json::Error> {
        let mut document = serde_json::Map::new();
        document.insert("$schema".to_string(), SCHEMA.into());
        if let serde_json::Value::Object(stack) = serde_json::to_value(&self.stack)? {
            document.extend(stack);
        }
        Ok(format!("{:#}\n", serde_json::Value::Object(document)))
    }
}

/// Makes a manifest of the facts that were gathered with [`probe`].
///
/// # Errors
/// A sentence and a hint, where there is nothing of CUDA to capture.
pub fn manifest(facts: &Facts, given: &Given<'_>) -> Result<Captured, (String, String)> {
    let image = &facts.image;
    let mut notes = Vec::new();
    let cuda = cuda::rules(image, &mut notes);
    if !is_for_cuda(image, &cuda) {
        return Err(nothing(image, &notes));
    }
    let packages = packages::rules(image, &mut notes);
    notes.extend(packages::of_others(image));
    let libraries = libraries(image, &mut notes);
    // A program that stands for itself needs no Python, whatever else is in the image.
    let needs_python = libraries.is_empty() || !packages.is_empty();
    let python = needs_python.then(|| python(image, &mut notes)).flatten();
    let stack = Stack {
        name: given.name.to_string(),
        cuda,
        archs: archs::list(image, &mut notes),
        env: jit_variables(image, given.variables),
        python,
        packages,
        libraries,
        smoke: smoke::entries(image, given.imports, &mut notes),
        ..Stack::default()
    };
    Ok(Captured { stack, notes })
}

/// The failures of the image that no manifest can allow, and those that this one would hide: then its versions are
/// changed, so that it does not. `probed` are the findings under [`probe`].
pub fn contradictions(
    captured: &mut Captured,
    probed: &[Finding],
    overrides: &Overrides,
    facts: &Facts,
) -> Vec<Finding> {
    contradictions::find(captured, probed, overrides, facts)
}

/// The warnings of the image stage under the manifest.
pub fn warnings(captured: &Captured, overrides: &Overrides, facts: &Facts) -> Vec<Finding> {
    let stack = &captured.stack;
    let findings = image::judge(stack, stack.archs.as_ref(), facts);
    let findings = Findings::under(overrides, &stack.accept, findings);
    let is_warning = |finding: &&Finding| finding.problem && finding.status == Status::Warn;
    findings.iter().filter(is_warning).cloned().collect()
}

/// What `--stack none` judges by: the packages and the CUDA that are there, in any version, and the variables of the JIT that
/// the service's environment sets.
pub fn as_found(facts: &Facts, env: &[CString]) -> Stack {
    let image = &facts.image;
    let set = known::compiled_by_pccm().filter_map(|(_, name)| {
        let value = launch::lookup(env, name)?.to_str()?;
        Some((name.to_string(), value.to_string()))
    });
    let mut notes = Vec::new();
    let loose = |rule: PackageRule| PackageRule {
        specifiers: None,
        ..rule
    };
    let rules = packages::rules(image, &mut notes);
    let stack = Stack {
        cuda: CudaRules {
            // `driver-floor` says which driver the packages need.
            driver: None,
            runtime: cuda::runtime_as_found(image),
            ..cuda::rules(image, &mut notes)
        },
        env: order::map(set),
        packages: rules.into_iter().map(loose).collect(),
        ..Stack::none()
    };
    let mut captured = Captured { stack, notes };
    contradictions::leave_out_self_contained(&mut captured, facts);
    captured.stack
}

/// The findings of an image by [`as_found`].
pub fn judge_as_found(archs: Option<&ArchList>, facts: &Facts, env: &[CString]) -> Vec<Finding> {
    let stack = as_found(facts, env);
    let mut found = contradictions::as_found(&stack, archs, facts);
    // Silence would look like a pass.
    let is_told = |f: &Finding| matches!(f.code, Code::PythonMissing | Code::PythonUnknown);
    if stack.packages.is_empty() && !found.iter().any(is_told) {
        let message = match facts.image.python.judged() {
            Some(python) => format!("no package of a CUDA stack is installed in {python}"),
            None => "there is no Python, so there are no packages to judge".to_string(),
        };
        found.push(Finding::skip(Code::PackageMissing, "packages").message(message));
    }
    found
}

/// Whether a distribution belongs to a CUDA stack by its name alone.
pub fn belongs(name: &str) -> bool {
    packages::belongs(name)
}

/// The entry of the manifest that would accept a finding; none where no entry can.
pub fn exception(finding: &Finding, facts: &Facts) -> Option<String> {
    contradictions::exception(finding, &facts.image)
}

/// The service's program and the libraries beside it that hold CUDA code.
fn libraries(image: &ImageFacts, notes: &mut Vec<String>) -> Vec<String> {
    let named = |pattern: &String| {
        let files = image
            .named_libraries
            .iter()
            .filter(|named| named.pattern == *pattern);
        let mut files = files.flat_map(|named| &named.paths);
        files.any(|path| {
            image
                .kernels
                .iter()
                .any(|module| module.named && module.path == *path)
        })
    };
    let all = image.named_libraries.iter().map(|named| &named.pattern);
    let found: Vec<String> = all
        .enumerate()
        .filter(|(at, pattern)| *at == 0 || named(pattern))
        .map(|(_, pattern)| pattern.clone())
        .collect();
    if !found.is_empty() {
        notes.push(
            "libraries are the service's program and what lies in its folder and in the lib beside it: add what it loads from \
             elsewhere"
                .to_string(),
        );
    }
    found
}

fn is_for_cuda(image: &ImageFacts, cuda: &CudaRules) -> bool {
    let is_of_cuda = |dist: &Distribution| dist.module_cuda.is_some() || packages::is_of_cuda(&dist.name);
    [&cuda.runtime, &cuda.nvrtc, &cuda.driver]
        .iter()
        .any(|rule| rule.is_some())
        || image
            .kernels
            .iter()
            .any(|module| module.fatbins > 0 || module.error.is_some())
        || image.distributions.iter().any(is_of_cuda)
}

fn nothing(image: &ImageFacts, notes: &[String]) -> (String, String) {
    let python = &image.python;
    let place = match (&python.prefix, &python.interpreter) {
        (Some(place), _) | (None, Some(place)) => format!(" in {place}"),
        (None, None) => String::new(),
    };
    let mut message = format!("no CUDA packages were found{place}");
    let mut install = "";
    if python.site_packages.is_empty() {
        message.push_str(": no Python environment was found");
    } else if let Some(version) = floor::torch(image).and_then(|torch| torch.module_version.as_ref()) {
        message.push_str(&format!(": torch {version} is not built for CUDA"));
        install = "install torch's build for CUDA (pip install --force-reinstall torch, without the --index-url of the \
                   CPU builds), or ";
    } else if let Some(jaxlib) = image.distributions.iter().find(|dist| dist.name == "jaxlib") {
        message.push_str(&format!(
            ": jaxlib {} is there without a plug-in for CUDA",
            jaxlib.version
        ));
        install = "install it (pip install 'jax[cuda12]' or 'jax[cuda13]'), or ";
    } else {
        // Why a version is left out is why there is nothing.
        for note in notes.iter().filter(|note| !note.contains(" is left out")) {
            message.push_str("; ");
            message.push_str(note);
        }
    }
    let mut hint = format!(
        "{install}name the environment: cuda-entrypoint stack capture --python PATH, or the service's command after --, if it or a \
         library beside it holds CUDA code; what lies elsewhere goes into `libraries` of a manifest written by hand"
    );
    if python.site_packages.is_empty() && !python.tried.is_empty() {
        hint.push_str(&format!(". Looked at: {}", python.tried.join("; ")));
    }
    (one_line(&message, 1_000), one_line(&hint, 2_000))
}

/// `>=3.11,<3.12` of 3.11.7. A version asks for an interpreter as well, so that without one there is none.
fn python(image: &ImageFacts, notes: &mut Vec<String>) -> Option<VersionSpecifiers> {
    let python = &image.python;
    let stated = python.interpreter.as_ref().and(python.version.as_deref());
    let parsed = stated.and_then(|text| {
        let version: Version = text.parse().ok()?;
        let (&major, &minor) = (version.release().first()?, version.release().get(1)?);
        format!(">={major}.{minor},<{major}.{}", minor.checked_add(1)?)
            .parse()
            .ok()
    });
    if parsed.is_none() && !python.site_packages.is_empty() {
        notes.push("python is left out: there is no interpreter, or no file gives its version".to_string());
    }
    parsed
}

/// Both variables where spconv or cumm is there, since without them an import may compile; else what is set.
fn jit_variables(image: &ImageFacts, variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let compiles =
        |dist: &Distribution| known::of(&dist.name).is_some_and(|package| package.pccm.get().is_some());
    let needed = image.distributions.iter().any(compiles);
    order::map(known::compiled_by_pccm().filter_map(|(_, name)| {
        let value = match needed {
            true => "1".to_string(),
            false => variables.get(name)?.clone(),
        };
        Some((name.to_string(), value))
    }))
}

#[cfg(test)]
mod tests;
