//! `package-torch-tag`: the torch and the C++ ABI that a wheel's own version names.
//!
//! `torch_scatter 2.1.2+pt26cu124`, `flash_attn 2.7.4.post1+cu12torch2.6cxx11abiTRUE`, `natten 0.17.3+torch250cu124`. A C++
//! extension of torch works with one minor release of it, and with one ABI.

use std::fmt;

use pep440_rs::Version;

use super::{ImageContext, listed, shown_version};
use crate::check::{Code, Finding};
use crate::facts::Distribution;

/// PyG's, which its own index has for every torch.
const PYG: [&str; 5] = [
    "torch-scatter",
    "torch-sparse",
    "torch-cluster",
    "torch-spline-conv",
    "pyg-lib",
];
/// Those whose wheels lie beside their releases on GitHub.
const GITHUB: [(&str, &str); 3] = [
    ("flash-attn", "Dao-AILab/flash-attention"),
    ("causal-conv1d", "Dao-AILab/causal-conv1d"),
    ("mamba-ssm", "state-spaces/mamba"),
];

/// What a version names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Tag {
    /// major and minor of torch; two where digits alone can be read in two ways: 210 is 2.10 and 2.1.0
    torch: Vec<(u64, u64)>,
    /// the C++11 ABI of libstdc++, or the one before it
    cxx11_abi: Option<bool>,
}

impl Tag {
    fn of(version: &str) -> Option<Self> {
        let local = version.split_once('+')?.1.to_ascii_lowercase();
        let tag = Self {
            torch: find(&local).map_or_else(Vec::new, |(_, digits)| releases(digits)),
            cxx11_abi: find_abi(&local).map(|(_, abi)| abi),
        };
        (tag != Self::default()).then_some(tag)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = Vec::new();
        parts.extend(
            self.torch
                .first()
                .map(|(major, minor)| format!("torch {major}.{minor}")),
        );
        parts.extend(self.cxx11_abi.map(|abi| called(abi).to_string()));
        f.write_str(&parts.join(" and "))
    }
}

fn called(abi: bool) -> &'static str {
    match abi {
        true => "the C++11 ABI (cxx11abiTRUE)",
        false => "the C++ ABI before C++11 (cxx11abiFALSE)",
    }
}

/// Where the number of torch stands in a local version, and the number: behind `torch` or `pt`.
fn find(local: &str) -> Option<(usize, &str)> {
    ["torch", "pt"].into_iter().find_map(|word| {
        local.match_indices(word).find_map(|(at, _)| {
            let starts = !local.get(..at)?.ends_with(|c: char| c.is_ascii_alphabetic());
            let rest = local.get(at + word.len()..)?;
            let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'));
            let number = rest.get(..end.unwrap_or(rest.len()))?.trim_end_matches('.');
            (starts && !releases(number).is_empty()).then_some((at + word.len(), number))
        })
    })
}

/// `2.6`, `2.6.0`, `26`, `113`, `250`, `2100`.
fn releases(number: &str) -> Vec<(u64, u64)> {
    let release = |major: &str, minor: &str| Some((major.parse().ok()?, minor.parse().ok()?));
    let found = if let Some((major, rest)) = number.split_once('.') {
        vec![release(major, rest.split('.').next().unwrap_or_default())]
    } else {
        let minor = |end: usize| release(number.get(..1)?, number.get(1..end)?);
        match number.len() {
            2 => vec![minor(2)],
            3 => vec![minor(3), minor(2)],
            4 => vec![minor(3)],
            _ => Vec::new(),
        }
    };
    // No torch has a minor release of 40: 240 is 2.4.0.
    let is_one = |&(major, minor): &(u64, u64)| (1..10).contains(&major) && minor < 40;
    found.into_iter().flatten().filter(is_one).collect()
}

/// Where `cxx11abi…` has its value, and the value.
fn find_abi(local: &str) -> Option<(&str, bool)> {
    let (_, value) = local.split_once("cxx11abi")?;
    [("true", true), ("false", false), ("1", true), ("0", false)]
        .into_iter()
        .find(|(text, _)| value.starts_with(text))
}

/// Whether a distribution's version names a torch that it is for.
pub fn is_there(dist: &Distribution) -> bool {
    Tag::of(&dist.version).is_some()
}

/// The torch that is installed.
struct Torch<'a> {
    dist: &'a Distribution,
    release: (u64, u64),
}

pub fn judge(scene: &ImageContext<'_>) -> Vec<Finding> {
    let Some(torch) = installed(scene).filter(|_| !scene.stack.packages.is_empty()) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let (mut good, mut open) = (Vec::new(), Vec::new());
    for dist in scene.installed.values().filter(|dist| dist.name != "torch") {
        let texts = [Some(&dist.version), dist.module_version.as_ref()];
        let Some(tag) = texts.into_iter().flatten().find_map(|text| Tag::of(text)) else {
            continue;
        };
        let fits = tag.torch.is_empty() || tag.torch.contains(&torch.release);
        let abi = torch.dist.cxx11_abi;
        let abi_fits = tag
            .cxx11_abi
            .is_none_or(|wanted| abi.is_none_or(|abi| abi == wanted));
        let shown = format!("{} {}", dist.name, dist.version);
        if !fits || !abi_fits {
            findings.push(mismatch(scene, &torch, dist, &tag));
        } else if tag.cxx11_abi.is_some() && abi.is_none() {
            open.push(shown);
        } else {
            good.push(shown);
        }
    }
    let (major, minor) = torch.release;
    if !good.is_empty() {
        let message = match good.len() {
            1 => format!("1 package is built for torch {major}.{minor}"),
            several => format!("{several} packages are built for torch {major}.{minor}"),
        };
        findings.push(
            Finding::pass(Code::PackageTorchTag, "packages")
                .observed(listed(&good, 40))
                .required(required(&torch))
                .message(message),
        );
    }
    if !open.is_empty() {
        let names = listed(&open, 40);
        findings.push(
            Finding::unknown(Code::PackageTorchTag, "torch")
                .observed(&names)
                .required("torch's C++ ABI")
                .message(format!(
                    "torch/lib/libc10.so does not tell its C++ ABI, which these are built for: {names}"
                )),
        );
    }
    findings
}

fn installed<'a>(scene: &ImageContext<'a>) -> Option<Torch<'a>> {
    let dist = *scene.installed.get("torch")?;
    let stated = dist.module_version.as_ref().unwrap_or(&dist.version);
    let version: Version = stated.parse().ok()?;
    let release = (*version.release().first()?, *version.release().get(1)?);
    Some(Torch { dist, release })
}

fn required(torch: &Torch<'_>) -> String {
    let tag = Tag {
        torch: vec![torch.release],
        cxx11_abi: torch.dist.cxx11_abi,
    };
    tag.to_string()
}

fn mismatch(scene: &ImageContext<'_>, torch: &Torch<'_>, dist: &Distribution, tag: &Tag) -> Finding {
    let abi = match (tag.cxx11_abi, torch.dist.cxx11_abi) {
        (Some(_), Some(abi)) => format!(", with {}", called(abi)),
        _ => String::new(),
    };
    Finding::problem(Code::PackageTorchTag, dist.name.clone())
        .observed(format!("{tag} (version {})", dist.version))
        .required(required(torch))
        .message(format!(
            "{} {} is built for {tag}, and torch is {}{abi}",
            dist.name,
            dist.version,
            shown_version(torch.dist)
        ))
        .hint(remedy(scene, torch, dist))
}

/// The torch that is installed, as a person would say it, and how to have a package built for it.
pub fn build_for_torch(scene: &ImageContext<'_>, name: &str) -> Option<(String, String)> {
    let torch = installed(scene)?;
    let shown = shown_version(torch.dist);
    let (major, minor) = torch.release;
    // <https://github.com/pytorch/vision#installation>, <https://docs.pytorch.org/audio/main/installation.html>
    let pair = match name {
        "torchvision" if major == 2 => Some(format!("0.{}", minor + 15)),
        "torchaudio" if major == 2 => Some(format!("{major}.{minor}")),
        _ => None,
    };
    let hint = match (pair, scene.installed.get(name)) {
        (Some(release), _) => {
            format!("In the Dockerfile: pip install --force-reinstall --no-deps '{name}=={release}.*'.")
        }
        (None, Some(dist)) => remedy(scene, &torch, dist),
        (None, None) => {
            format!(
                "Build {name} beside this torch in a devel image, or install its wheel for torch {major}.{minor}."
            )
        }
    };
    Some((shown, hint))
}

/// The wheel for this torch, from where the package's wheels are.
fn remedy(scene: &ImageContext<'_>, torch: &Torch<'_>, dist: &Distribution) -> String {
    let name = &dist.name;
    let (public, local) = dist.version.split_once('+').unwrap_or((&dist.version, ""));
    let (major, minor) = torch.release;
    // A manifest that pins the tag has to follow.
    let follow = match scene.rule(name).is_some_and(|rule| rule.version().contains('+')) {
        true => format!(", and let the manifest ask for that build of {name}"),
        false => String::new(),
    };
    let build = format!(
        "pip install --force-reinstall --no-deps --no-build-isolation --no-cache-dir --no-binary {name} {name}=={public}"
    );
    if PYG.contains(&name.as_str()) {
        let cuda = torch.dist.module_cuda.as_ref().map_or_else(
            || "cpu".to_string(),
            |cuda| format!("cu{}", cuda.split('.').take(2).collect::<String>()),
        );
        return format!(
            "In the Dockerfile: pip install --force-reinstall --no-deps {name}=={public} -f \
             https://data.pyg.org/whl/torch-{major}.{minor}.0+{cuda}.html{follow}. If there is no such page, build it beside \
             this torch in a devel image: {build}."
        );
    }
    let wanted = rewritten(local, torch);
    let github = GITHUB.iter().find(|(known, _)| known == name);
    let python = dist.tags.first().and_then(|tag| tag.rsplit_once('-'));
    if local.is_empty() {
        return format!(
            "Install the release of {name} that is built for torch {major}.{minor}{follow}, or build it beside this torch in a \
             devel image: {build}."
        );
    }
    match (github, python) {
        (Some((_, repository)), Some((python, _))) => format!(
            "In the Dockerfile: pip install --force-reinstall --no-deps https://github.com/{repository}/releases/download/\
             v{public}/{}-{public}+{wanted}-{python}-linux_x86_64.whl{follow}. If that release has no such wheel, build it \
             beside this torch in a devel image: {build}.",
            name.replace('-', "_")
        ),
        _ => format!(
            "Install the wheel of {name} whose version ends in +{wanted}{follow}, or build it beside this torch in a devel \
             image: {build}."
        ),
    }
}

/// The local version of the same build for this torch.
fn rewritten(local: &str, torch: &Torch<'_>) -> String {
    let (major, minor) = torch.release;
    let mut text = local.to_string();
    if let Some((at, number)) = find(&local.to_ascii_lowercase()) {
        let number_now = match (number.split('.').count(), number.len()) {
            (1, 4) => format!("{major}{minor}0"),
            (1, 3) if releases(number).len() == 1 => format!("{major}{minor}0"),
            (1, _) => format!("{major}{minor}"),
            (2, _) => format!("{major}.{minor}"),
            _ => format!("{major}.{minor}.0"),
        };
        text.replace_range(at..at + number.len(), &number_now);
    }
    let lower = text.to_ascii_lowercase();
    if let (Some((word, _)), Some(abi), Some(at)) = (
        find_abi(&lower),
        torch.dist.cxx11_abi,
        lower.find("cxx11abi").map(|at| at + "cxx11abi".len()),
    ) {
        let now = match (word.len() > 1, abi) {
            (true, true) => "TRUE",
            (true, false) => "FALSE",
            (false, true) => "1",
            (false, false) => "0",
        };
        text.replace_range(at..at + word.len(), now);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::*;
    use super::*;
    use crate::check::Status;
    use crate::stack::Stack;

    #[test]
    fn tags_in_versions() {
        for (version, torch, abi) in [
            ("2.1.2+pt26cu124", &[(2, 6)][..], None),
            ("1.6.3+pt113cu117", &[(1, 13), (1, 1)], None),
            ("2.1.2+pt210cu128", &[(2, 10), (2, 1)], None),
            ("2.7.4.post1+cu12torch2.6cxx11abiTRUE", &[(2, 6)], Some(true)),
            ("2.6.3+cu123torch2.4cxx11abifalse", &[(2, 4)], Some(false)),
            ("0.17.3+torch250cu124", &[(2, 5)], None),
            ("0.21.1+torch2100cu128", &[(2, 10)], None),
            ("0.6+18f6958pt2.5.0cu124", &[(2, 5)], None),
            ("2.2.0+cu128torch2.8.0.post3", &[(2, 8)], None),
            ("0.2.8+cu121.torch2.4.0", &[(2, 4)], None),
            ("1.0+cxx11abi1", &[], Some(true)),
            ("1.0+cxx11abi0", &[], Some(false)),
        ] {
            let tag = Tag::of(version).unwrap_or_else(|| panic!("{version}"));
            assert_eq!((tag.torch.as_slice(), tag.cxx11_abi), (torch, abi), "{version}");
        }
        for version in [
            "2.5.0",
            "2.5.0+cu124",
            "2.5.0+cpu.cxx11.abi",
            "1.0+pt",
            "1.0+pt2",
            "1.0+torch",
            "1.0+script26",
            "1.0+pt99999",
            "1.0+torch.",
            "1.0+é",
            "1.0+cxx11abi",
            "1.0+pt00",
        ] {
            assert_eq!(Tag::of(version), None, "{version}");
        }
    }

    fn with(abi: Option<bool>, dists: Vec<Distribution>) -> Vec<Finding> {
        let torch = Distribution {
            module_version: Some("2.5.0+cu124".into()),
            module_cuda: Some("12.4".into()),
            cxx11_abi: abi,
            ..dist("torch", "2.5.0")
        };
        let stack = Stack {
            packages: vec![rule("torch", "*"), rule("torch-cluster", "==1.6.3+pt26cu124")],
            ..Stack::default()
        };
        let all = [torch].into_iter().chain(dists).collect();
        let facts = image(|i| i.distributions = all);
        judge(&ImageContext::new(&stack, &facts.image))
    }

    #[test]
    fn the_torch_that_is_there_decides() {
        for (version, abi, status) in [
            ("2.1.2+pt25cu124", None, Some(Status::Pass)),
            ("2.1.2+pt26cu124", None, Some(Status::Fail)),
            ("2.1.2+pt24cu124", Some(true), Some(Status::Fail)),
            ("2.7+cu12torch2.5cxx11abiFALSE", Some(false), Some(Status::Pass)),
            ("2.7+cu12torch2.5cxx11abiTRUE", Some(false), Some(Status::Fail)),
            ("2.7+cu12torch2.5cxx11abiTRUE", None, Some(Status::Unknown)),
            ("2.7+cu12torch2.6cxx11abiTRUE", None, Some(Status::Fail)),
            ("2.7", Some(true), None),
        ] {
            let findings = with(abi, vec![dist("ext", version)]);
            assert_eq!(findings.first().map(|f| f.status), status, "{version} {abi:?}");
            assert!(findings.len() < 2, "{findings:?}");
        }
        let facts = image(|i| i.distributions = vec![dist("ext", "1+pt26")]);
        assert_eq!(judge(&ImageContext::new(&stack(), &facts.image)), []);
    }

    #[test]
    fn hints_name_the_wheel() {
        let flash = Distribution {
            tags: vec!["cp311-cp311-linux_x86_64".into()],
            ..dist("flash-attn", "2.7.4.post1+cu12torch2.6cxx11abiTRUE")
        };
        let dists = vec![
            flash,
            dist("natten", "0.17.3+torch260cu124"),
            dist("torch-cluster", "1.6.3+pt26cu124"),
            dist("torch-scatter", "2.1.2+pt26cu124"),
        ];
        let page: Vec<String> = with(Some(false), dists)
            .iter()
            .map(|f| {
                format!(
                    "{}\n  observed: {}\n  required: {}\n  hint: {}",
                    f.message, f.observed, f.required, f.hint
                )
            })
            .collect();
        insta::assert_snapshot!(page.join("\n"));
    }
}
