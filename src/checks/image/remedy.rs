//! Next steps that fit the image: the wheel that brings a library, and what takes the place of `pip install` in a conda
//! environment and over the torch of NVIDIA's own images.

use pep440_rs::Version;

use super::{ImageContext, accepts, loaded};
use crate::check::{Code, Finding};
use crate::discover::requirement::{MarkerEnvironment, Requirement};
use crate::facts::Distribution;
use crate::nvidia::NvidiaWheel;
use crate::order;
use crate::packages::untagged;
use crate::stack::CudaRule;

/// The major version of the CUDA that the image is for: the manifest's, else that of torch's build, else that of the
/// libraries that its modules need.
fn cuda_major(scene: &ImageContext<'_>) -> Option<u16> {
    let manifests = scene.stack.cuda.runtime.as_ref().and_then(|rule| rule.major());
    let torchs = || {
        let torch = scene.installed.get("torch")?;
        torch.module_cuda.as_ref()?.split('.').next()?.parse().ok()
    };
    let needed = || {
        let mut names = scene.image.loaded.iter().map(|object| object.name.as_str());
        names.find_map(|name| NvidiaWheel::of_library(name)?.cuda_of(name))
    };
    manifests.or_else(torchs).or_else(needed)
}

/// The major version of the CUDA that a package is for: that in its name, else that of the libraries that it needs, else
/// that of the wheels that it requires.
pub fn cuda_of(scene: &ImageContext<'_>, package: &str) -> Option<u16> {
    let said = |name: &str| NvidiaWheel::of_library(name)?.cuda_of(name);
    let dist = || scene.installed.get(package);
    let opened = || {
        let extensions = scene.image.extensions.iter().flat_map(|all| &all.unresolved);
        let mut own = extensions.filter(|extension| extension.package.as_deref() == Some(package));
        own.find_map(|extension| {
            extension
                .missing
                .iter()
                .chain(&extension.unopened)
                .find_map(|name| said(name))
        })
    };
    let loaded = || {
        let mut own = scene
            .image
            .loaded
            .iter()
            .filter(|object| loaded::owner(scene, object) == Some(package));
        own.find_map(|object| said(&object.name))
    };
    let required = || {
        let dist = dist()?;
        dist.requires.iter().chain(&dist.cuda_extras).find_map(|line| {
            let requirement: Requirement = line.parse().ok()?;
            let row = NvidiaWheel::of_distribution(&requirement.name)?;
            tag_of(&requirement.name).or_else(|| row.is_toolkits().then_some(13))
        })
    };
    tag_of(package).or_else(opened).or_else(loaded).or_else(required)
}

/// 12 of `cupy-cuda12x`, `spconv-cu124` and `nvidia-cublas-cu12`.
fn tag_of(package: &str) -> Option<u16> {
    untagged(package)?;
    let (_, tag) = package.rsplit_once('-')?;
    let digits = tag.trim_start_matches("cuda").trim_start_matches("cu");
    digits.get(..2)?.parse().ok()
}

/// What an installed package requires of this distribution: `nvidia-nccl-cu12==2.21.5`.
fn pin(scene: &ImageContext<'_>, name: &str) -> Option<String> {
    // What torch asks for comes first: others are built for its libraries.
    let others = scene.installed.values().filter(|dist| dist.name != "torch");
    let all = scene.installed.get("torch").into_iter().chain(others);
    let mut lines = all.flat_map(|dist| &dist.requires);
    lines.find_map(|line| {
        let requirement: Requirement = line.strip_prefix(name).and_then(|_| line.parse().ok())?;
        let is_pin = requirement.name == name && !requirement.specifiers.is_empty();
        is_pin.then(|| format!("{name}{}", requirement.specifiers))
    })
}

/// NVIDIA's wheel of a library that a package needs, by its SONAME, and the CUDA that it is of.
fn name_of_wheel(scene: &ImageContext<'_>, package: Option<&str>, soname: &str) -> Option<(String, u16)> {
    let row = NvidiaWheel::of_library(soname)?;
    let packages = || cuda_of(scene, package?);
    let cuda = row
        .cuda_of(soname)
        .or_else(packages)
        .or_else(|| cuda_major(scene))?;
    let cuda = row.nearest(soname, cuda);
    Some((row.name(cuda)?, cuda))
}

/// What pip is asked for, to have one of NVIDIA's libraries for a package, by its SONAME; with the CUDA that it is of.
fn wheel_of(scene: &ImageContext<'_>, package: Option<&str>, soname: &str) -> Option<(String, u16)> {
    let (name, cuda) = name_of_wheel(scene, package, soname)?;
    let installed = scene.installed.get(name.as_str());
    let installed = installed.map(|dist| format!("{name}=={}", dist.version));
    let wheel = installed.or_else(|| pin(scene, &name)).unwrap_or_else(|| {
        // The wheels' versions begin with the number of the SONAME, but for the oldest interfaces.
        let number = soname
            .split_once(".so.")
            .and_then(|(_, rest)| rest.split('.').next());
        match number.and_then(|number| number.parse::<u16>().ok()) {
            Some(number @ 2..) => format!("{name}=={number}.*"),
            _ => name,
        }
    });
    Some((wheel, cuda))
}

/// What to do where an installed library, by its SONAME, does not define what a package asks it for.
pub fn of_provider(scene: &ImageContext<'_>, package: &str, soname: &str) -> String {
    let again = || of_library(scene, Some(package), soname).unwrap_or_default();
    let name = name_of_wheel(scene, Some(package), soname).map(|(name, _)| name);
    let dist = name.as_deref().and_then(|name| scene.installed.get(name));
    let Some(Distribution {
        name,
        version: installed,
        ..
    }) = dist
    else {
        return again();
    };
    let pinned = pin(scene, name);
    let requirement: Option<Requirement> = pinned.as_deref().and_then(|line| line.parse().ok());
    let version: Option<Version> = installed.parse().ok();
    let fits = requirement
        .zip(version)
        .is_none_or(|(wanted, version)| wanted.specifiers.contains(&version));
    match pinned {
        Some(pinned) if !fits => {
            format!("In the Dockerfile: pip install --force-reinstall --no-deps '{pinned}'.")
        }
        // What pins it asks it for nothing else: its files are not those of its metadata.
        _ if package == "torch" => again(),
        Some(_) => format!(
            "Install the release of {package} that is built for {name} {installed}, which other packages pin, or accept the \
             finding if the service does without."
        ),
        None => format!("Install a newer {name}, or the release of {package} that is built for {installed}."),
    }
}

/// How to install the wheel that brings one of NVIDIA's libraries, by its SONAME, for the package that needs it.
pub fn of_library(scene: &ImageContext<'_>, package: Option<&str>, soname: &str) -> Option<String> {
    wheel_of(scene, package, soname).map(|_| of_libraries(scene, package, &[soname]))
}

/// The extras of a package that bring wheels with these libraries, as pip is asked for them, `cupy-cuda12x[ctk]`, and
/// whether they bring all.
fn by_extras(scene: &ImageContext<'_>, package: &str, sonames: &[&str]) -> Option<(String, bool)> {
    // conda's packages have no extras.
    let dist = scene
        .installed
        .get(package)
        .filter(|_| !scene.image.python.conda)?;
    let lines: Vec<Requirement> = dist
        .cuda_extras
        .iter()
        .filter_map(|line| line.parse().ok())
        .collect();
    let plain = MarkerEnvironment::of(scene.image.python.version.as_deref());
    let brings = |extra: &str, row: &NvidiaWheel| {
        let under = MarkerEnvironment {
            extra: extra.to_string(),
            ..plain.clone()
        };
        lines
            .iter()
            .filter(|line| line.applies(&under) == Some(true))
            .any(|line| {
                let parts: Vec<&NvidiaWheel> = match line.name.as_str() {
                    "cuda-toolkit" => line
                        .extras
                        .iter()
                        .filter_map(|part| NvidiaWheel::of_extra(part))
                        .collect(),
                    name => NvidiaWheel::of_distribution(name).into_iter().collect(),
                };
                let is_it =
                    |part: &&NvidiaWheel| part.wheel == row.wheel || part.requires().contains(&row.wheel);
                parts.iter().any(is_it)
            })
    };
    let mut open: Vec<&NvidiaWheel> = sonames
        .iter()
        .filter_map(|name| NvidiaWheel::of_library(name))
        .collect();
    let mut chosen: Vec<&str> = Vec::new();
    for extra in dist.cuda_extras.iter().filter_map(|line| extra_of(line)) {
        let before = open.len();
        open.retain(|row| !brings(extra, row));
        if open.len() < before {
            chosen.push(extra);
        }
    }
    (!chosen.is_empty()).then(|| (format!("'{package}[{}]'", chosen.join(",")), open.is_empty()))
}

/// `ctk` of `…; extra == "ctk"`.
fn extra_of(line: &str) -> Option<&str> {
    let (_, rest) = line.rsplit_once("extra")?;
    rest.split(['"', '\'']).nth(1)
}

/// How to install the wheels that bring NVIDIA's libraries of these SONAMEs, for the package that needs them.
pub fn of_libraries(scene: &ImageContext<'_>, package: Option<&str>, sonames: &[&str]) -> String {
    let wheels: Vec<(String, u16)> = sonames
        .iter()
        .filter_map(|name| wheel_of(scene, package, name))
        .collect();
    let mut quoted: Vec<String> = wheels.iter().map(|(wheel, _)| format!("'{wheel}'")).collect();
    order::sort(&mut quoted);
    quoted.dedup();
    let quoted = quoted.join(" ");
    // pip takes a wheel whose files are gone for installed.
    let is_installed = |wheel: &str| {
        let name = wheel.split(['=', '<', '>', '~', '!']).next().unwrap_or_default();
        scene.installed.contains_key(name)
    };
    let in_images = |name: &&str| NvidiaWheel::of_library(name).is_none_or(|row| row.in_images);
    match wheels.first() {
        Some((_, cuda)) if !wheels.iter().any(|(wheel, _)| is_installed(wheel)) => {
            let quoted = match package.and_then(|package| by_extras(scene, package, sonames)) {
                Some((extras, true)) => format!("{extras}, or the wheels alone: pip install {quoted}"),
                Some((extras, false)) => format!("{extras} {quoted}"),
                None => quoted,
            };
            match sonames.iter().all(in_images) {
                true => format!(
                    "In the Dockerfile: pip install {quoted}, or base the image on a runtime image of CUDA {cuda}."
                ),
                false => format!("In the Dockerfile: pip install {quoted}."),
            }
        }
        _ => format!("In the Dockerfile: pip install --force-reinstall --no-deps {quoted}."),
    }
}

/// How to install the wheel whose version is CUDA's own, such as libcudart's, and to remove it for another CUDA.
pub fn of_wheel(scene: &ImageContext<'_>, wheel: &str, rule: &CudaRule) -> String {
    let row = NvidiaWheel::of_distribution(wheel);
    let Some(name) = row.zip(rule.major()).and_then(|(row, cuda)| row.name(cuda)) else {
        return format!("Base the image on a runtime image of CUDA {rule}.");
    };
    let written = rule.to_string();
    let is_plain = written.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let version = match (is_plain, written.split('.').count()) {
        (true, ..=2) => format!("=={written}.*"),
        (true, _) => format!("=={written}"),
        (false, _) => written.replace(' ', ""),
    };
    let others: Vec<&str> = scene
        .installed
        .keys()
        .copied()
        .filter(|other| *other != name && untagged(other).unwrap_or(other) == wheel)
        .collect();
    let removal = match others.as_slice() {
        [] => String::new(),
        others => format!("pip uninstall -y {} && ", others.join(" ")),
    };
    format!("In the Dockerfile: {removal}pip install --force-reinstall --no-deps '{name}{version}'.")
}

/// What PyTorch's index has a build of for each CUDA, <https://pytorch.org/get-started/locally/>.
const OF_PYTORCHS_INDEX: [&str; 5] = ["torch", "torchaudio", "torchao", "torchvision", "xformers"];

/// How to install this version's build for exactly one CUDA from PyTorch's index; `None` where there may be none.
pub fn of_pytorchs_index(name: &str, version: &str, rule: &CudaRule) -> Option<String> {
    let written = rule.to_string();
    let (major, minor) = written.split_once('.')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_there = OF_PYTORCHS_INDEX.contains(&name) && is_number(major) && is_number(minor);
    let public = version.split('+').next().unwrap_or_default();
    is_there.then(|| {
        format!(
            "In the Dockerfile: pip install --force-reinstall {name}=={public} --index-url \
             https://download.pytorch.org/whl/cu{major}{minor}."
        )
    })
}

/// Replaces `pip install` where it would replace builds of conda's or of NVIDIA's images.
pub fn fit(scene: &ImageContext<'_>, findings: &mut [Finding]) {
    let torch = scene.installed.get("torch");
    let is_nvidias = torch.is_some_and(|torch| is_nvidias(&torch.version));
    if !scene.image.python.conda && !is_nvidias {
        return;
    }
    for finding in findings
        .iter_mut()
        .filter(|f| f.problem && f.hint.contains("pip install"))
    {
        let wanted = requested(scene, finding);
        let hint = match is_nvidias {
            true => over_nvidias_torch(scene, finding, &wanted),
            false => into_conda(scene, finding, &wanted),
        };
        if let Some(hint) = hint {
            // What the manifest could say instead holds anywhere.
            let rest = finding.hint.find(" Or ").and_then(|at| finding.hint.get(at..));
            let rest = rest.filter(|_| !hint.contains("manifest"));
            finding.hint = format!("{hint}{}", rest.unwrap_or_default());
        }
    }
}

/// The local version of torch in the images of nvcr.io: `2.5.0a0+872d972e41.nv24.08`.
fn is_nvidias(version: &str) -> bool {
    let local = version.split_once('+').map(|(_, local)| local);
    let mut parts = local.into_iter().flat_map(|local| local.split('.'));
    parts.any(|part| {
        part.strip_prefix("nv")
            .is_some_and(|year| year.bytes().next().is_some_and(|b| b.is_ascii_digit()))
    })
}

/// What a hint has pip install: the names in quotes, else the subject.
fn requested(scene: &ImageContext<'_>, finding: &Finding) -> Vec<String> {
    let after = finding
        .hint
        .split_once("pip install")
        .map_or("", |(_, after)| after);
    let is_name = |text: &&str| text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let quoted: Vec<String> = after
        .split('\'')
        .skip(1)
        .step_by(2)
        .filter(is_name)
        .map(String::from)
        .collect();
    let is_package = scene.installed.contains_key(finding.subject.as_str());
    match quoted.is_empty() {
        true if is_package => vec![finding.subject.clone()],
        _ => quoted,
    }
}

/// A name and the version that is asked of it, without the part behind `+`, which conda does not have.
fn split(requirement: &str) -> (&str, String) {
    let end = requirement.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')));
    let (name, version) = requirement.split_at(end.unwrap_or(requirement.len()));
    let version: Vec<&str> = version
        .split(',')
        .map(|part| part.split('+').next().unwrap_or_default())
        .collect();
    (name, version.join(","))
}

fn into_conda(scene: &ImageContext<'_>, finding: &Finding, wanted: &[String]) -> Option<String> {
    let prefix = scene.image.python.prefix.as_deref()?;
    if let Some(hint) = rebuilt(scene, finding) {
        return Some(hint);
    }
    let mut specs: Vec<String> = Vec::new();
    let mut add = |spec: String| {
        if !specs.contains(&spec) {
            specs.push(spec);
        }
    };
    let cuda = scene.stack.cuda.runtime.as_ref().map(ToString::to_string);
    let cuda = cuda.filter(|cuda| cuda.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
    let of_cuda = || format!("cuda-version={}", cuda.as_deref().unwrap_or("12"));
    for requirement in wanted {
        let (name, version) = split(requirement);
        match (name, NvidiaWheel::of_distribution(name)) {
            (_, Some(row)) if row.conda.is_empty() => return None,
            (_, Some(row)) => {
                add(row.conda.to_string());
                add(of_cuda());
            }
            ("torch", None) => {
                add(format!("pytorch{version}"));
                if finding.code == Code::PackageCudaTag {
                    add(of_cuda());
                }
            }
            ("onnxruntime-gpu", None) => add(format!("onnxruntime{version}")),
            (name, None) if name.starts_with("cupy-cuda") => add(format!("cupy{version}")),
            // Packages with a CUDA tag are wheels' alone.
            (name, None) if untagged(name).is_some() => return None,
            (name, None) => add(format!("{name}{version}")),
        }
    }
    if specs.is_empty() {
        return None;
    }
    let is_plain = |spec: &str| !spec.contains(['<', '>', '*', '!', '|', '~', ' ']);
    let quoted = |spec: &String| match is_plain(spec) {
        true => spec.clone(),
        false => format!("'{spec}'"),
    };
    let specs: Vec<String> = specs.iter().map(quoted).collect();
    Some(format!(
        "In the Dockerfile: conda install -p {prefix} -c conda-forge {}; pip would put its own files over conda's.",
        specs.join(" ")
    ))
}

/// conda-forge's torch adds the number of its build to the version: 2.5.1.post303 is a 2.5.1.
fn rebuilt(scene: &ImageContext<'_>, finding: &Finding) -> Option<String> {
    let dist = scene.installed.get(finding.subject.as_str())?;
    let rule = scene.rule(&dist.name)?;
    let version: Version = dist.version.parse().ok()?;
    version.post()?;
    let (release, _) = dist.version.split_once(".post")?;
    let released = crate::facts::Distribution {
        version: release.to_string(),
        ..crate::facts::Distribution::default()
    };
    let is_it = finding.code == Code::PackageVersion && accepts(rule, &released);
    is_it.then(|| {
        format!(
            "{} is conda-forge's build of {release}: write \"{}\": \"=={release}.*\" in the manifest.",
            dist.version, rule.name
        )
    })
}

fn over_nvidias_torch(scene: &ImageContext<'_>, finding: &Finding, wanted: &[String]) -> Option<String> {
    let torch = scene.installed.get("torch")?;
    let is_ours = |name: &str| {
        matches!(
            name,
            "torch" | "torchvision" | "torchaudio" | "triton" | "pytorch-triton"
        ) || NvidiaWheel::of_distribution(name).is_some()
    };
    if finding.code == Code::LibraryMissing {
        return Some(format!(
            "{} belongs to NVIDIA's image, beside torch {}: find the step that removed it or took its folder from the \
             loader's path, or base the image on nvcr.io/nvidia/pytorch anew. pip would replace other parts of it.",
            finding.subject, torch.version
        ));
    }
    if wanted.iter().any(|requirement| is_ours(split(requirement).0)) || finding.subject == "torch" {
        return Some(format!(
            "torch {} and its CUDA libraries are part of NVIDIA's image, and pip would replace them: base the image on the \
             release of nvcr.io/nvidia/pytorch that has what is required, or write the versions of this one into the \
             manifest (cuda-entrypoint stack capture).",
            torch.version
        ));
    }
    if wanted.is_empty() {
        return None;
    }
    let quoted: Vec<String> = wanted
        .iter()
        .map(|requirement| format!("'{requirement}'"))
        .collect();
    Some(format!(
        "In the Dockerfile: pip install --no-deps --no-build-isolation {}, which keeps NVIDIA's torch.",
        quoted.join(" ")
    ))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::*;
    use super::*;
    use crate::facts::ImageFacts;
    use crate::stack::Stack;

    fn fitted(stack: &Stack, change: impl FnOnce(&mut ImageFacts), finding: Finding) -> String {
        let facts = image(change);
        let mut findings = vec![finding];
        fit(&ImageContext::new(stack, &facts.image), &mut findings);
        findings.remove(0).hint
    }

    fn version(subject: &str, hint: &str) -> Finding {
        Finding::problem(Code::PackageVersion, subject).hint(hint)
    }

    fn conda(i: &mut ImageFacts) {
        i.python.conda = true;
        i.python.prefix = Some("/opt/conda".into());
    }

    #[test]
    fn pytorchs_index_is_named_for_one_cuda_and_what_it_has() {
        let hint = |name, rule: &str| of_pytorchs_index(name, "2.5.0+cpu", &rule.parse().unwrap());
        assert_eq!(
            hint("torch", "12.4").unwrap(),
            "In the Dockerfile: pip install --force-reinstall torch==2.5.0 --index-url \
             https://download.pytorch.org/whl/cu124."
        );
        assert_eq!(hint("torch", ">=12.4"), None);
        assert_eq!(hint("torch", "12.*"), None);
        assert_eq!(hint("mmcv", "12.4"), None);
    }

    #[test]
    fn wheels_of_missing_libraries() {
        let hint = |soname: &str, stack: &Stack, dists| {
            let facts = image(|i| i.distributions = dists);
            of_library(&ImageContext::new(stack, &facts.image), None, soname)
        };
        let stack = stack();
        let plain = |wheel: &str, cuda: u16| {
            Some(format!(
                "In the Dockerfile: pip install '{wheel}', or base the image on a runtime image of CUDA {cuda}."
            ))
        };
        assert_eq!(
            hint("libcublasLt.so.13", &stack, vec![]),
            plain("nvidia-cublas==13.*", 13)
        );
        assert_eq!(
            hint("libcudnn.so.9", &stack, vec![]),
            plain("nvidia-cudnn-cu12==9.*", 12)
        );
        assert_eq!(
            hint("libcufile.so.0", &stack, vec![]),
            plain("nvidia-cufile-cu12", 12)
        );
        assert_eq!(hint("libfoo.so.1", &stack, vec![]), None);
        // Which no runtime image has.
        for (soname, wheel) in [
            ("libnvinfer.so.10", "tensorrt-cu12==10.*"),
            ("libnvinfer_plugin.so.8", "tensorrt==8.*"),
            ("libcutensor.so.2", "cutensor-cu12==2.*"),
        ] {
            let expected = format!("In the Dockerfile: pip install '{wheel}'.");
            assert_eq!(hint(soname, &stack, vec![]).unwrap(), expected);
        }
        assert_eq!(hint("libnccl.so.2", &Stack::default(), vec![]), None);
        let mut torch = dist("torch", "2.5.0");
        torch.requires = vec!["nvidia-nccl-cu12==2.21.5; platform_system == \"Linux\"".into()];
        assert_eq!(
            hint("libnccl.so.2", &stack, vec![torch.clone()]),
            plain("nvidia-nccl-cu12==2.21.5", 12)
        );
        assert_eq!(
            hint(
                "libnccl.so.2",
                &stack,
                vec![torch, dist("nvidia-nccl-cu12", "2.21.5")]
            )
            .unwrap(),
            "In the Dockerfile: pip install --force-reinstall --no-deps 'nvidia-nccl-cu12==2.21.5'."
        );
    }

    #[test]
    fn extras_that_bring_the_libraries_come_first() {
        let hint = |name: &str, extras: &[&str], sonames: &[&str]| {
            let facts = image(|i| {
                i.distributions = vec![Distribution {
                    cuda_extras: extras.iter().map(ToString::to_string).collect(),
                    ..dist(name, "1")
                }];
            });
            let stack = Stack::default();
            let scene = ImageContext::new(&stack, &facts.image);
            of_libraries(&scene, Some(name), sonames)
        };
        let cupy = ["cuda-toolkit[cublas,cudart,cusparse]==12.*; extra == \"ctk\""];
        assert_eq!(
            hint("cupy-cuda12x", &cupy, &["libcusparse.so.12"]),
            "In the Dockerfile: pip install 'cupy-cuda12x[ctk]', or the wheels alone: pip install \
             'nvidia-cusparse-cu12==12.*', or base the image on a runtime image of CUDA 12."
        );
        assert!(
            hint("cupy-cuda12x", &cupy, &["libcusparse.so.12", "libcurand.so.10"]).contains(
                "pip install 'cupy-cuda12x[ctk]' 'nvidia-curand-cu12==10.*' 'nvidia-cusparse-cu12==12.*',"
            ),
        );
        // cuDNN's wheel requires cuBLAS.
        let onnxruntime = [
            "nvidia-cuda-runtime~=13.0; extra == \"cuda\"",
            "nvidia-curand~=10.0; extra == 'cuda'",
            "nvidia-cudnn-cu13~=9.0; extra == \"cudnn\"",
        ];
        let install = "pip install 'onnxruntime-gpu[cuda,cudnn]', or the wheels alone: pip install 'nvidia-cublas==13.*' \
                       'nvidia-cudnn-cu13==9.*' 'nvidia-curand==10.*',";
        let found = hint(
            "onnxruntime-gpu",
            &onnxruntime,
            &["libcublas.so.13", "libcudnn.so.9", "libcurand.so.10"],
        );
        assert!(found.contains(install), "{found}");
        assert!(!hint("own", &[], &["libcublas.so.13"]).contains('['));
    }

    #[test]
    fn the_cuda_of_a_package() {
        for (name, requires, cuda) in [
            ("cupy-cuda12x", "", Some(12)),
            ("spconv-cu118", "", Some(11)),
            ("nvidia-cusolver-cu12", "", Some(12)),
            ("own", "nvidia-cudnn-cu12", Some(12)),
            ("own", "nvidia-cuda-runtime~=13.0", Some(13)),
            ("own", "numpy", None),
        ] {
            let facts = image(|i| {
                i.distributions = vec![Distribution {
                    requires: vec![requires.into()],
                    ..dist(name, "1")
                }];
            });
            let stack = Stack::default();
            let scene = ImageContext::new(&stack, &facts.image);
            assert_eq!(cuda_of(&scene, name), cuda, "{name} {requires}");
        }
    }

    #[test]
    fn conda_installs_into_its_own_environments() {
        for (hint, fits) in [
            (
                "In the Dockerfile: pip install 'torch==2.5.1+cu124'.",
                "pytorch==2.5.1",
            ),
            (
                "pip install 'nvidia-cudnn-cu12==9.1.0.70'.",
                "cudnn cuda-version=12.4",
            ),
            ("pip install 'numpy<2' 'x>=1,<2'.", "'numpy<2' 'x>=1,<2'"),
        ] {
            let expected = format!(
                "In the Dockerfile: conda install -p /opt/conda -c conda-forge {fits}; pip would put its own files over \
                 conda's."
            );
            assert_eq!(fitted(&stack(), conda, version("torch", hint)), expected);
        }
        let own = "pip install 'spconv-cu124==2.3.8'.";
        assert_eq!(fitted(&stack(), conda, version("spconv-cu124", own)), own);
        assert_eq!(fitted(&stack(), |_| (), version("torch", own)), own);
    }

    #[test]
    fn the_number_of_condas_build_is_the_manifests_matter() {
        let mut stack = stack();
        stack.packages = vec![rule("torch", "==2.5.1")];
        let change = |i: &mut ImageFacts| {
            conda(i);
            dist_mut(i, "torch").version = "2.5.1.post303".into();
        };
        let hint = fitted(
            &stack,
            change,
            version("torch", "pip install 'torch==2.5.1'. Or correct it."),
        );
        assert_eq!(
            hint,
            "2.5.1.post303 is conda-forge's build of 2.5.1: write \"torch\": \"==2.5.1.*\" in the manifest."
        );
    }

    #[test]
    fn nvidias_torch_is_not_replaced() {
        let ngc = |i: &mut ImageFacts| dist_mut(i, "torch").version = "2.5.0a0+872d972e41.nv24.08".into();
        for wanted in ["torch>=2.5.0", "nvidia-cudnn-cu12", "torchvision"] {
            let hint = fitted(&stack(), ngc, version("x", &format!("pip install '{wanted}'.")));
            assert!(!hint.contains("pip install"), "{hint}");
        }
        assert_eq!(
            fitted(&stack(), ngc, version("x", "pip install 'x==1'.")),
            "In the Dockerfile: pip install --no-deps --no-build-isolation 'x==1', which keeps NVIDIA's torch."
        );
        for (version, is) in [
            ("2.5.0+cu124", false),
            ("2.5.0a0+1.nv24.08", true),
            ("2+nvidia", false),
            ("2", false),
        ] {
            assert_eq!(is_nvidias(version), is, "{version}");
        }
    }
}
