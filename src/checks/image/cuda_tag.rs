//! `package-cuda-tag`: what installed builds say of the CUDA that they are for.
//!
//! The tag is in the name (`spconv-cu124`, `nvidia-cublas-cu12`, `cupy-cuda12x`), in the local part of the version
//! (`2.5.0+cu124`, `2.1.2+pt25cu124`, `2.7.0+cu12torch2.5`), or in the module's own version file.

use std::fmt;

use super::{ImageContext, listed, remedy, requires, torch_tag};
use crate::check::{Code, Finding, Severity};
use crate::facts::{CudaVersion, Distribution};
use crate::packages;
use crate::stack::CudaRule;
use crate::text::{counted, verb};

/// What a build is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Build {
    /// `cu124`
    Cuda(CudaVersion),
    /// `cu12`: any 12.x
    CudaMajor(u16),
    /// `+cpu`
    Cpu,
    /// `+rocm6.1`
    Rocm,
    /// `+xpu`
    Xpu,
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cuda(version) => write!(f, "CUDA {version}"),
            Self::CudaMajor(major) => write!(f, "CUDA {major}"),
            Self::Cpu => f.write_str("the CPU"),
            Self::Rocm => f.write_str("AMD's ROCm"),
            Self::Xpu => f.write_str("Intel's GPUs"),
        }
    }
}

impl Build {
    fn fits(self, rule: &CudaRule) -> bool {
        match self {
            Self::Cuda(version) => rule.matches(version),
            Self::CudaMajor(major) => (0..=20).any(|minor| rule.matches(CudaVersion { major, minor })),
            Self::Cpu | Self::Rocm | Self::Xpu => false,
        }
    }

    fn agrees(self, other: Self) -> bool {
        match (self, other) {
            (Self::Cuda(version), Self::CudaMajor(major)) | (Self::CudaMajor(major), Self::Cuda(version)) => {
                version.major == major
            }
            (a, b) => a == b,
        }
    }
}

/// A tag and where it stands.
struct Tag {
    build: Build,
    source: String,
}

pub fn judge(scene: &ImageContext<'_>) -> Vec<Finding> {
    let Some(rule) = &scene.stack.cuda.runtime else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let (mut good, mut others) = (Vec::new(), Vec::new());
    for dist in scene.installed.values() {
        let tags = tags(dist);
        match tags.iter().find(|tag| !tag.build.fits(rule)) {
            Some(wrong) if !mixes(dist) && is_for_another(&tags) => {
                others.push((*dist, wrong.build));
            }
            Some(wrong) => findings.push(mismatch(scene, rule, dist, &tags, wrong)),
            None if tags.is_empty() => {}
            None => good.push(format!(
                "{} {}",
                dist.name,
                dist.module_version.as_ref().unwrap_or(&dist.version)
            )),
        }
    }
    findings.extend(self_contained(rule, &others));
    if !good.is_empty() {
        let names = listed(&good, 40);
        findings.push(
            Finding::pass(Code::PackageCudaTag, "packages")
                .observed(names)
                .required(format!("CUDA {rule}"))
                .message(format!(
                    "{} {} built for CUDA {rule}",
                    counted(good.len(), "package"),
                    verb(good.len(), "is", "are")
                )),
        );
    }
    findings
}

/// Whether a package's libraries come into one process with torch's CUDA: torch itself, what belongs to its family, and
/// what requires it. Others bring the CUDA that they need, under names that no library of another major version has.
pub fn mixes(dist: &Distribution) -> bool {
    let requires_torch = |line: &String| {
        let name = line.trim_start().get(..5);
        let is_end = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || "-_.".contains(c));
        name.is_some_and(|name| name.eq_ignore_ascii_case("torch"))
            && line.trim_start().get(5..).is_some_and(is_end)
    };
    packages::of(&dist.name).is_some_and(|package| package.family)
        || dist.name.starts_with("torch")
        // Its core library is loaded by transformer-engine-torch.
        || dist.name.starts_with("transformer-engine")
        || torch_tag::is_there(dist)
        || dist.requires.iter().any(requires_torch)
}

/// Whether the tags agree that it is for CUDA at all, and for one version of it.
fn is_for_another(tags: &[Tag]) -> bool {
    let is_cuda = |tag: &Tag| matches!(tag.build, Build::Cuda(_) | Build::CudaMajor(_));
    let first = tags.first();
    tags.iter()
        .all(|tag| is_cuda(tag) && first.is_none_or(|first| first.build.agrees(tag.build)))
}

fn self_contained(rule: &CudaRule, others: &[(&Distribution, Build)]) -> Option<Finding> {
    let shown: Vec<String> = others
        .iter()
        .map(|(dist, build)| format!("{} {} for {build}", dist.name, dist.version))
        .collect();
    let list = listed(&shown, 40);
    let (subject, message) = match others {
        [] => return None,
        [(dist, build)] => (
            dist.name.as_str(),
            format!(
                "{} {} is built for {build}, and brings what it needs of it beside CUDA {rule}",
                dist.name, dist.version
            ),
        ),
        several => (
            "packages",
            format!(
                "{} packages are built for another CUDA than {rule}, and bring what they need of it: {list}",
                several.len()
            ),
        ),
    };
    Some(
        Finding::info(Code::PackageCudaTag, subject)
            .observed(list)
            .required(format!("CUDA {rule}, for packages that share torch's process"))
            .message(message),
    )
}

fn mismatch(
    scene: &ImageContext<'_>,
    rule: &CudaRule,
    dist: &Distribution,
    tags: &[Tag],
    wrong: &Tag,
) -> Finding {
    let ours = scene.rule(&dist.name).is_some();
    // A package that the manifest does not name may be meant for the CPU; one for another CUDA brings its libraries.
    let severity = if wrong.build == Build::Cpu && !ours {
        Severity::Warn
    } else {
        Code::PackageCudaTag.severity()
    };
    let contradiction = tags.iter().find(|tag| !tag.build.agrees(wrong.build));
    let version = dist.module_version.as_ref().unwrap_or(&dist.version);
    let message = match (contradiction, wrong.build) {
        (Some(other), _) => format!(
            "{} contradicts itself: {} says {}, {} says {}",
            dist.name, other.source, other.build, wrong.source, wrong.build
        ),
        (None, Build::Cpu) => format!(
            "{} {version} is the CPU build: it cannot use a GPU at all",
            dist.name
        ),
        (None, build) => format!(
            "{} {version} is built for {build} ({}), and {} CUDA {rule}",
            dist.name,
            wrong.source,
            match scene.stack.as_found {
                true => "what it is installed beside is for",
                false => "the manifest's runtime is",
            }
        ),
    };
    let hint = match (contradiction, &dist.name) {
        (Some(_), name) => format!(
            "One build was copied over another: pip uninstall {name} until none is left, then install once."
        ),
        (None, name) => match without_cuda(name) {
            Some(base) => {
                format!("Run pip uninstall {name}, then install the build of {base} for CUDA {rule}.")
            }
            // A build of this release for this CUDA need not exist, and would be one for another torch.
            None => requires::for_this_torch(scene, dist)
                .or_else(|| remedy::of_pytorchs_index(name, version, rule))
                .unwrap_or_else(|| {
                    format!(
                        "Install the build of {name} for CUDA {rule}: from the package index of that CUDA, which its \
                         documentation names, or from source beside that toolkit."
                    )
                }),
        },
    };
    let observed: Vec<String> = tags
        .iter()
        .map(|t| format!("{} ({})", t.build, t.source))
        .collect();
    Finding::problem_as(Code::PackageCudaTag, severity, dist.name.clone())
        .observed(observed.join(", "))
        .required(format!("CUDA {rule}"))
        .message(message)
        .hint(hint)
}

fn tags(dist: &Distribution) -> Vec<Tag> {
    let mut tags = Vec::new();
    let mut add = |build: Option<Build>, source: &str| {
        tags.extend(build.map(|build| Tag {
            build,
            source: source.to_string(),
        }));
    };
    add(dist.name.split('-').find_map(of_segment), "its name");
    add(
        of_version(&dist.version),
        &format!("version {} in its metadata", dist.version),
    );
    if let Some(module) = &dist.module_version {
        add(
            of_version(module),
            &format!("version {module} in its own version.py"),
        );
    }
    if let Some(cuda) = &dist.module_cuda {
        let exact = cuda.parse().ok().map(Build::Cuda);
        add(exact, &format!("cuda = '{cuda}' in its own version.py"));
    }
    tags
}

/// `cu124`, `cu12`, `cuda12x` as a whole part of a name.
fn of_segment(segment: &str) -> Option<Build> {
    if let Some(digits) = segment.strip_prefix("cuda") {
        // `cupy-cuda12x`, `nvidia-dali-cuda120`, `jax-cuda12-plugin`: these promise a major version alone.
        let digits = digits.strip_suffix('x').unwrap_or(digits);
        let all = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        return digits
            .get(..2)
            .filter(|_| all)
            .and_then(|d| d.parse().ok())
            .map(Build::CudaMajor);
    }
    of_digits(segment.strip_prefix("cu")?)
}

/// `124` is 12.4, `92` is 9.2, and `12` is any 12.
fn of_digits(digits: &str) -> Option<Build> {
    let number: u16 = digits
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| digits.parse().ok())??;
    let exact = |number: u16| {
        Build::Cuda(CudaVersion {
            major: number / 10,
            minor: number % 10,
        })
    };
    match digits.len() {
        3 => Some(exact(number)),
        // No CUDA beyond 9.2 was ever written without its own major in two digits.
        2 if number >= 70 => Some(exact(number)),
        2 if number >= 10 => Some(Build::CudaMajor(number)),
        _ => None,
    }
}

/// The tag in a version's local part, wherever other builders put theirs: `+cu124`, `+pt25cu124`, `+cu12torch2.5`.
fn of_version(version: &str) -> Option<Build> {
    let local = version.split_once('+')?.1.to_ascii_lowercase();
    let cuda = local.match_indices("cu").find_map(|(at, _)| {
        let starts = !local.get(..at)?.ends_with(|c: char| c.is_ascii_alphabetic());
        let rest = local.get(at + 2..)?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        of_digits(rest.get(..end)?).filter(|_| starts)
    });
    let part = |wanted: &str| {
        local.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| {
            part.strip_suffix(wanted)
                .is_some_and(|head| head.is_empty() || head.ends_with(|c: char| c.is_ascii_digit()))
        })
    };
    cuda.or_else(|| local.contains("rocm").then_some(Build::Rocm))
        .or_else(|| part("cpu").then_some(Build::Cpu))
        .or_else(|| part("xpu").then_some(Build::Xpu))
}

/// A name without its CUDA tag, which names that differ by it alone share; `None` where there is no tag.
pub fn without_cuda(name: &str) -> Option<String> {
    let tagged = |segment: &&str| of_segment(segment).is_some();
    name.split('-').any(|s| tagged(&s)).then(|| {
        name.split('-')
            .filter(|s| !tagged(s))
            .collect::<Vec<_>>()
            .join("-")
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::*;
    use super::*;
    use crate::check::Status;
    use crate::stack::Stack;

    fn cuda(major: u16, minor: u16) -> Option<Build> {
        Some(Build::Cuda(CudaVersion { major, minor }))
    }

    #[test]
    fn tags_in_names() {
        let of = |name: &str| name.split('-').find_map(of_segment);
        for (name, build) in [
            ("spconv-cu124", cuda(12, 4)),
            ("spconv-cu118", cuda(11, 8)),
            ("spconv-cu102", cuda(10, 2)),
            ("mxnet-cu92", cuda(9, 2)),
            ("nvidia-cuda-runtime-cu12", Some(Build::CudaMajor(12))),
            ("nvidia-cublas-cu13", Some(Build::CudaMajor(13))),
            ("tensorrt-cu12-libs", Some(Build::CudaMajor(12))),
            ("cupy-cuda12x", Some(Build::CudaMajor(12))),
            ("nvidia-dali-cuda120", Some(Build::CudaMajor(12))),
            ("jax-cuda12-plugin", Some(Build::CudaMajor(12))),
            ("torch", None),
            ("cu2qu", None),
            ("pycuda", None),
            ("cuda-python", None),
            ("x-cu1", None),
            ("x-cu1210", None),
            ("x-cu", None),
            ("x-cuda1", None),
            ("x-cudaxx", None),
        ] {
            assert_eq!(of(name), build, "{name}");
        }
        assert_eq!(
            without_cuda("tensorrt-cu12-libs").as_deref(),
            Some("tensorrt-libs")
        );
        assert_eq!(without_cuda("torch"), None);
    }

    #[test]
    fn tags_in_versions() {
        for (version, build) in [
            ("2.5.0+cu124", cuda(12, 4)),
            ("2.1.2+pt25cu124", cuda(12, 4)),
            ("2.1.2+pt22cu121", cuda(12, 1)),
            ("2.6.3+cu123torch2.4cxx11abifalse", cuda(12, 3)),
            (
                "2.7.0.post2+cu12torch2.5cxx11abiFALSE",
                Some(Build::CudaMajor(12)),
            ),
            ("0.6+18f6958pt2.5.0cu124", cuda(12, 4)),
            ("2.9.0+cu130", cuda(13, 0)),
            ("2.5.0+cpu", Some(Build::Cpu)),
            ("2.1.2+pt25cpu", Some(Build::Cpu)),
            ("2.5.0+cpu.cxx11.abi", Some(Build::Cpu)),
            ("2.5.0+rocm6.1", Some(Build::Rocm)),
            ("2.5.0+xpu", Some(Build::Xpu)),
            ("2.5.0", None),
            ("2.5.0a0+e000cf0ad9.nv24.10", None),
            ("1.0+computecanada", None),
            ("1.0+focu12", None),
            ("1.0+cu", None),
            ("1.0+cu12345", None),
            ("1.0+é", None),
        ] {
            assert_eq!(of_version(version), build, "{version}");
        }
    }

    fn with(dists: Vec<Distribution>) -> Vec<Finding> {
        let stack = Stack {
            packages: vec![rule("torch", "*")],
            ..stack()
        };
        judge(&ImageContext::new(
            &stack,
            &image(|i| i.distributions = dists).image,
        ))
    }

    #[test]
    fn every_installed_build_is_judged() {
        for (name, version, expected) in [
            ("spconv-cu124", "2.3.8", Status::Pass),
            ("spconv-cu121", "2.3.8", Status::Fail),
            ("spconv-cu113", "2.3.6", Status::Fail),
            ("torch-scatter", "2.1.2+pt22cu121", Status::Fail),
            ("nvidia-cublas-cu12", "12.4.5.8", Status::Pass),
            ("nvidia-cublas-cu11", "11.10.3.66", Status::Info),
            ("torch", "2.5.0+cpu", Status::Fail),
            ("pyg-lib", "0.4.0+pt25cpu", Status::Warn),
            ("torch", "2.5.0+rocm6.1", Status::Fail),
        ] {
            let findings = with(vec![dist(name, version)]);
            assert_eq!(findings.len(), 1, "{name} {version}");
            assert_eq!(findings[0].status, expected, "{name} {version}");
        }
        assert_eq!(with(vec![dist("numpy", "1.26.4")]), []);
    }

    /// torchaudio 2.11.0 has no build for CUDA 12.4, and torch 2.5.0 would not take it.
    #[test]
    fn a_package_of_another_torch_is_exchanged_for_this_ones() {
        let torchaudio = Distribution {
            requires: vec!["torch==2.11.0".into()],
            ..dist("torchaudio", "2.11.0+cu130")
        };
        let hint = |dists| {
            let findings = with(dists);
            let of_audio = findings.into_iter().find(|f| f.subject == "torchaudio");
            of_audio.unwrap().hint
        };
        assert_eq!(
            hint(vec![dist("torch", "2.5.0"), torchaudio.clone()]),
            "In the Dockerfile: pip install torchaudio 'torch==2.5.0', which finds the release of torchaudio for this torch."
        );
        let of_index = "In the Dockerfile: pip install --force-reinstall torchaudio==2.11.0 --index-url";
        assert!(hint(vec![dist("torch", "2.11.0"), torchaudio]).starts_with(of_index));
    }

    #[test]
    fn what_brings_its_own_cuda_is_information() {
        for (name, version) in [
            ("cupy-cuda11x", "13.6.0"),
            ("nvidia-dali-cuda110", "1.53.0"),
            ("faiss-gpu-cu11", "1.12.0"),
            ("tensorrt-cu13", "10.13.0"),
            ("nvidia-cutlass-dsl-libs-cu13", "4.8.0"),
            ("cuml-cu13", "25.10.0"),
        ] {
            let findings = with(vec![dist(name, version)]);
            assert_eq!(findings[0].status, Status::Info, "{name}");
            let linked = Distribution {
                requires: vec!["numpy".into(), "torch >=2".into()],
                ..dist(name, version)
            };
            assert_eq!(with(vec![linked])[0].status, Status::Fail, "{name}");
            let beside = Distribution {
                requires: vec!["torchmetrics".into(), "torch-geometric".into(), "torch.x".into()],
                ..dist(name, version)
            };
            assert_eq!(with(vec![beside])[0].status, Status::Info, "{name}");
        }
        for (name, version) in [
            ("transformer-engine-cu13", "2.0"),
            ("torchcodec", "0.1+cu130"),
            ("ext", "1.0+pt25cu130"),
            ("cumm-cu118", "0.7.11"),
        ] {
            assert_eq!(with(vec![dist(name, version)])[0].status, Status::Fail, "{name}");
        }
    }

    #[test]
    fn the_cpu_build_has_its_own_sentence() {
        let torch = Distribution {
            module_version: Some("2.5.0+cpu".into()),
            ..dist("torch", "2.5.0")
        };
        assert!(with(vec![torch])[0].message.contains("is the CPU build"));
    }

    #[test]
    fn a_module_of_another_cuda_than_its_metadata_is_a_contradiction() {
        let torch = |metadata: &str, module: &str, cuda: &str| {
            let torch = Distribution {
                module_version: Some(module.into()),
                module_cuda: Some(cuda.into()),
                ..dist("torch", metadata)
            };
            with(vec![torch]).remove(0)
        };
        assert_eq!(torch("2.5.0", "2.5.0+cu124", "12.4").status, Status::Pass);
        for (metadata, module, cuda) in [
            ("2.5.0+cu124", "2.5.0+cu121", "12.1"),
            ("2.5.0+cu121", "2.5.0+cu124", "12.4"),
            ("2.5.0", "2.5.0+cu124", "12.1"),
        ] {
            let finding = torch(metadata, module, cuda);
            assert_eq!(finding.status, Status::Fail);
            assert!(
                finding.message.contains("contradicts itself"),
                "{}",
                finding.message
            );
            assert!(
                finding.message.contains("12.4") && finding.message.contains("12.1"),
                "{}",
                finding.message
            );
        }
        let plain = torch("2.5.0", "2.5.0", "12.1");
        assert!(
            plain.message.contains("is built for CUDA 12.1"),
            "{}",
            plain.message
        );
    }

    #[test]
    fn without_a_runtime_rule_nothing_is_compared() {
        let facts = image(|i| i.distributions = vec![dist("spconv-cu113", "2.3.6")]);
        assert_eq!(judge(&ImageContext::new(&Stack::default(), &facts.image)), []);
    }
}
