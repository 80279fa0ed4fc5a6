//! `numpy-abi`: packages whose extensions are built for numpy 1, beside numpy 2.
//!
//! An extension compiled with numpy 1 cannot run with numpy 2. torch before 2.3 imports with a warning all the same, and
//! `tensor.numpy()` raises "Numpy is not available"; its metadata does not name numpy at all.

use pep440_rs::Version;

use super::{ImageContext, accepts};
use crate::check::{Code, Finding, Severity};
use crate::packages::BUILT_FOR_NUMPY_2;

pub fn judge(scene: &ImageContext<'_>) -> Vec<Finding> {
    let Some(numpy) = scene.installed.get("numpy") else {
        return Vec::new();
    };
    let version = |text: &str| text.parse::<Version>().ok();
    let is_2 = |numpy: &Version| numpy.release().first().is_some_and(|major| *major >= 2);
    if scene.stack.packages.is_empty() || !version(&numpy.version).is_some_and(|v| is_2(&v)) {
        return Vec::new();
    }
    let pinned = scene
        .rule("numpy")
        .filter(|rule| rule.specifiers.is_some() && accepts(rule, numpy));
    let manifest = pinned.map_or_else(String::new, |rule| {
        let specifiers = rule
            .specifiers
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        format!(" The manifest asks for numpy{specifiers}: change that as well.")
    });
    let mut findings = Vec::new();
    for (name, first) in BUILT_FOR_NUMPY_2 {
        let Some(dist) = scene.installed.get(name) else {
            continue;
        };
        // Debian builds its packages for the numpy that it has.
        if dist.path.starts_with("/usr/lib/python3/") {
            continue;
        }
        // By the release alone: 2.3.0a0 is a development build of 2.3.0.
        let (Some(installed), Some(built)) = (version(&dist.version), version(first)) else {
            continue;
        };
        if installed.release() >= built.release() {
            continue;
        }
        let severity = match scene.rule(name) {
            Some(_) => Code::NumpyAbi.severity(),
            None => Severity::Warn,
        };
        let effect = match *name {
            "torch" => ": tensor.numpy() raises \"Numpy is not available\"",
            _ => ": its import fails",
        };
        findings.push(
            Finding::problem_as(Code::NumpyAbi, severity, *name)
                .observed(format!("{name} {}, numpy {}", dist.version, numpy.version))
                .required(format!("numpy before 2, or {name} {first} or newer"))
                .message(format!(
                    "{name} {} is built for numpy 1, and numpy is {}{effect}",
                    dist.version, numpy.version
                ))
                .hint(format!(
                    "In the Dockerfile: pip install 'numpy<2'; or install {name} {first} or newer.{manifest}"
                )),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::*;
    use super::*;
    use crate::check::Status;

    fn judged(name: &str, version: &str, numpy: &str) -> Vec<(Status, String)> {
        let facts = image(|i| i.distributions = vec![dist(name, version), dist("numpy", numpy)]);
        let findings = judge(&ImageContext::new(&stack(), &facts.image));
        findings.into_iter().map(|f| (f.status, f.message)).collect()
    }

    #[test]
    fn torch_that_is_built_for_numpy_1() {
        for (torch, numpy, fails) in [
            ("2.2.2", "2.2.6", true),
            ("2.2.2+cu121", "2.0.0rc1", true),
            ("2.2.2", "1.26.4", false),
            ("2.3.0", "2.2.6", false),
            ("2.3.0a0+ebedce2.nv24.03", "2.2.6", false),
            ("2.10", "2.2.6", false),
            ("no version", "2.2.6", false),
            ("2.2.2", "", false),
        ] {
            assert_eq!(
                judged("torch", torch, numpy).len(),
                usize::from(fails),
                "{torch} {numpy}"
            );
        }
        let (status, message) = judged("torch", "2.2.2", "2.2.6").remove(0);
        assert_eq!(status, Status::Fail);
        assert_eq!(
            message,
            "torch 2.2.2 is built for numpy 1, and numpy is 2.2.6: tensor.numpy() raises \"Numpy is not available\""
        );
    }

    #[test]
    fn a_package_that_the_manifest_does_not_name_is_a_warning() {
        assert_eq!(judged("onnxruntime-gpu", "1.18.1", "2.2.6")[0].0, Status::Warn);
        assert_eq!(judged("six", "1.0", "2.2.6"), []);
    }

    #[test]
    fn a_manifest_that_pins_numpy_2_is_named() {
        let mut stack = stack();
        stack.packages.push(rule("numpy", "==2.2.6"));
        let facts = image(|i| i.distributions = vec![dist("torch", "2.2.2"), dist("numpy", "2.2.6")]);
        let findings = judge(&ImageContext::new(&stack, &facts.image));
        assert!(
            findings[0].hint.ends_with("numpy==2.2.6: change that as well."),
            "{}",
            findings[0].hint
        );
    }

    #[test]
    fn debians_packages_are_built_for_its_numpy() {
        let facts = image(|i| {
            let mut scipy = dist("scipy", "1.11.4");
            scipy.path = "/usr/lib/python3/dist-packages/scipy-1.11.4.egg-info".into();
            i.distributions = vec![scipy, dist("numpy", "2.2.6")];
        });
        assert_eq!(judge(&ImageContext::new(&stack(), &facts.image)), []);
    }
}
