//! `compiler-missing`, `cache-unwritable`, `user-unknown`, `variable-mismatch`: what compiling a kernel at run time needs.
//!
//! triton comes with every torch, and most services never compile. So what it lacks is a warning only where the manifest names
//! triton or a package that compiles, or where a variable says what is wanted.

use pep440_rs::Version;

use super::ImageContext;
use crate::check::{Code, Finding, Severity};
use crate::facts::surroundings::{Surroundings, UnwritableCache, WrongVariable};

/// Packages that compile kernels with triton in normal use.
const COMPILES: [&str; 8] = [
    "triton",
    "vllm",
    "sglang",
    "unsloth",
    "liger-kernel",
    "flash-linear-attention",
    "gptqmodel",
    "cut-cross-entropy",
];
/// The first torch whose inductor does without a user's name: pytorch/pytorch#184208.
const NEEDS_NO_NAME: &str = "2.13";

pub fn judge(scene: &ImageContext<'_>) -> Vec<Finding> {
    let Some(found) = &scene.image.surroundings else {
        return Vec::new();
    };
    if scene.stack.packages.is_empty() {
        return Vec::new();
    }
    let compiles = COMPILES.iter().find(|name| scene.rule(name).is_some());
    let severity = match compiles {
        Some(_) => Severity::Warn,
        None => Severity::Info,
    };
    let mut findings: Vec<Finding> = compiler(scene, found, severity).into_iter().collect();
    for cache in &found.caches {
        findings.push(unwritable(
            cache,
            if cache.named { Severity::Warn } else { severity },
        ));
    }
    findings.extend(nameless(scene, found));
    findings.extend(found.variables.iter().map(wrong));
    findings
}

fn compiler(scene: &ImageContext<'_>, found: &Surroundings, severity: Severity) -> Option<Finding> {
    let triton = scene.installed.get("triton")?;
    let who = format!("triton {}", triton.version);
    let effect = "the first kernel that triton or torch.compile compiles ends in an error";
    let code = Code::CompilerMissing;
    Some(match (&found.compiler, &found.absent_cc, &found.absent_header) {
        (None, Some(cc), _) => Finding::problem_as(code, severity, "triton")
            .observed(format!("CC={cc}, which is not there"))
            .required("a C compiler at CC, or no CC")
            .message(format!("{who} starts the C compiler that CC names, and {cc} is not there: {effect}"))
            .hint("Remove CC from the image's ENV, or let it name an installed compiler."),
        (None, None, _) => Finding::problem_as(code, severity, "triton")
            .observed("no CC, and neither gcc nor clang on PATH")
            .required("a C compiler, for the launcher of each kernel")
            .message(format!("{who} finds no C compiler: {effect}"))
            .hint("In the Dockerfile: apt-get install -y --no-install-recommends gcc libc6-dev. A service that compiles nothing at run time needs none."),
        (Some(compiler), _, Some(header)) => Finding::problem_as(code, severity, "triton")
            .observed(format!("{header} is not there"))
            .required("Python.h of this interpreter")
            .message(format!("{who} compiles with {compiler}, which does not find {header}: {effect}"))
            .hint("In the Dockerfile: install the headers of this Python (apt-get install -y python3-dev), or set CPATH to their folder."),
        (Some(compiler), _, None) => Finding::pass(code, "triton")
            .observed(compiler)
            .required("a C compiler")
            .message(format!("{who} has a C compiler")),
    })
}

fn unwritable(cache: &UnwritableCache, severity: Severity) -> Finding {
    let UnwritableCache {
        of,
        path,
        variable,
        reason,
        ..
    } = cache;
    let effect = match of.as_str() {
        "CUDA" => "CUDA compiles PTX anew at each start",
        _ => "the first kernel that it compiles ends in an error",
    };
    Finding::problem_as(Code::CacheUnwritable, severity, of.as_str())
        .observed(reason.as_str())
        .required("a folder that this user may write")
        .message(format!(
            "{of} keeps what it compiles in {path}, which cannot be written: {effect}"
        ))
        .hint(format!(
            "Set {variable} to a folder that this user may write, such as one on an emptyDir or a tmpfs."
        ))
}

fn nameless(scene: &ImageContext<'_>, found: &Surroundings) -> Option<Finding> {
    let uid = found.nameless_user?;
    let torch = scene.installed.get("torch")?;
    let version: Version = torch.version.parse().ok()?;
    let first: Version = NEEDS_NO_NAME.parse().ok()?;
    if version.release() >= first.release() {
        return None;
    }
    Some(
        Finding::problem_as(Code::UserUnknown, Severity::Warn, "torch")
            .observed(format!("uid {uid}, without an entry in /etc/passwd; USER and LOGNAME are unset"))
            .required("a name for the user")
            .message(format!(
                "torch {} names inductor's cache by the user, and uid {uid} has no name: torch.compile, and what imports it, ends \
                 in \"getpwuid(): uid not found\"",
                torch.version
            ))
            .hint("Set USER in the image's ENV or in `env:` of the pod (any name), or add the user in the Dockerfile: useradd."),
    )
}

fn wrong(variable: &WrongVariable) -> Finding {
    let WrongVariable { name, value, problem } = variable;
    Finding::problem_as(Code::VariableMismatch, Severity::Warn, name.as_str())
        .observed(format!("{name}: {value}"))
        .required("a value that leads somewhere, or none")
        .message(format!("{name} has {value}: {problem}"))
        .hint(format!(
            "Correct {name}, or remove it from the image's ENV or from `env:` of the pod."
        ))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::*;
    use super::*;
    use crate::check::Status;

    fn judged(packages: &[(&str, &str)], named: &[&str], surroundings: Surroundings) -> Vec<Finding> {
        let facts = image(|image| {
            image.distributions = packages
                .iter()
                .map(|(name, version)| dist(name, version))
                .collect();
            image.surroundings = Some(surroundings);
        });
        let mut stack = stack();
        stack.packages.extend(named.iter().map(|name| rule(name, "*")));
        judge(&ImageContext::new(&stack, &facts.image))
    }

    #[test]
    fn a_warning_where_the_manifest_names_what_compiles() {
        let installed = [("torch", "2.5.0"), ("triton", "3.1.0")];
        for (named, status) in [
            (&["triton"][..], Status::Warn),
            (&["vllm"], Status::Warn),
            (&[], Status::Info),
        ] {
            let findings = judged(&installed, named, Surroundings::default());
            assert_eq!(
                (findings[0].code, findings[0].status),
                (Code::CompilerMissing, status),
                "{named:?}"
            );
        }
        assert_eq!(judged(&[("torch", "2.5.0")], &[], Surroundings::default()), []);
    }

    #[test]
    fn a_user_without_a_name_counts_before_torch_2_13() {
        for (version, count) in [("2.5.0", 1), ("2.12.1+cu130", 1), ("2.13.0", 0), ("2.15.0", 0)] {
            let nameless = Surroundings {
                nameless_user: Some(955),
                ..Surroundings::default()
            };
            assert_eq!(
                judged(&[("torch", version)], &[], nameless).len(),
                count,
                "{version}"
            );
        }
    }

    #[test]
    fn the_words_of_every_problem() {
        let installed = [("torch", "2.5.0"), ("triton", "3.1.0")];
        let cache = |of: &str, variable: &str, named| UnwritableCache {
            of: of.into(),
            path: "/proc/nope".into(),
            variable: variable.into(),
            named,
            reason: "/proc is the kernel's, and takes no files".into(),
        };
        let all = [
            Surroundings {
                caches: vec![
                    cache("triton", "TRITON_CACHE_DIR", true),
                    cache("inductor", "TORCHINDUCTOR_CACHE_DIR", false),
                    cache("CUDA", "CUDA_CACHE_PATH", true),
                ],
                nameless_user: Some(955),
                ..Surroundings::default()
            },
            Surroundings {
                absent_cc: Some("icx".into()),
                variables: vec![WrongVariable {
                    name: "LD_PRELOAD".into(),
                    value: "libtcmalloc.so.4".into(),
                    problem: "the loader does not find it, and leaves it out of every program".into(),
                }],
                ..Surroundings::default()
            },
            Surroundings {
                compiler: Some("/usr/bin/gcc".into()),
                absent_header: Some("/usr/include/python3.11/Python.h".into()),
                ..Surroundings::default()
            },
        ];
        let mut page = String::new();
        for found in all {
            page += &words_of(&judged(&installed, &["triton"], found));
        }
        insta::assert_snapshot!(page);
    }
}
