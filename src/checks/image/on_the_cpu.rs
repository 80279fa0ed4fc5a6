//! `library-missing`, `package-cuda-tag`: packages that go on with the CPU, and without an error, where what brings their CUDA
//! is not installed.

use super::{ImageContext, remedy};
use crate::check::{Code, Finding, Severity};
use crate::facts::Distribution;
use crate::nvidia::NvidiaWheel;
use crate::packages;

pub fn judge(scene: &ImageContext<'_>) -> Vec<Finding> {
    let installed = scene.installed.values();
    let mut findings: Vec<Finding> = installed.filter_map(|dist| unopened(scene, dist)).collect();
    findings.extend(jax(scene));
    findings
}

/// Libraries that a package opens by dlopen, and that are not there.
fn unopened(scene: &ImageContext<'_>, dist: &Distribution) -> Option<Finding> {
    let Distribution { name, version, .. } = dist;
    let first = dist.unopened.first()?;
    let extra = packages::opener(name)?.extra;
    let list = dist.unopened.join(", ");
    let sonames: Vec<&str> = dist.unopened.iter().map(String::as_str).collect();
    // pip takes a wheel whose files are gone for installed.
    let is_installed = |soname: &&str| {
        let wheel = NvidiaWheel::of_library(soname);
        let cuda = dist
            .unopened
            .iter()
            .find_map(|name| NvidiaWheel::of_library(name)?.cuda_of(name));
        let name = wheel.zip(cuda).and_then(|(wheel, cuda)| wheel.name(cuda));
        name.is_some_and(|name| scene.installed.contains_key(name.as_str()))
    };
    let folders = dist.unopened_in.join(":");
    let (place, hint) = match (folders.as_str(), sonames.iter().any(is_installed)) {
        ("", true) => (String::new(), remedy::of_libraries(scene, Some(name), &sonames)),
        ("", false) => {
            let hint = format!(
                "In the Dockerfile: pip install '{name}[{extra}]=={version}', or base the image on a runtime image of the \
                 CUDA and cuDNN that have these libraries."
            );
            (String::new(), hint)
        }
        (folders, _) => (
            format!(" though the image has it in {folders}: {name} does not search there"),
            format!(
                "In the Dockerfile: ENV LD_LIBRARY_PATH={folders}, or install a release of {name} whose RUNPATH leads there."
            ),
        ),
    };
    Some(
        Finding::problem(Code::LibraryMissing, first)
            .with(&dist.unopened)
            .with([name])
            .observed(format!("not found: {list}"))
            .required(format!(
                "the libraries that {name} {version} opens, in NVIDIA's wheels beside it or where the loader looks"
            ))
            .message(format!(
                "{name} {version} runs on the CPU without an error: it opens CUDA's libraries itself and does not find \
                 {list}{place}"
            ))
            .hint(hint),
    )
}

/// jaxlib without its plug-in, where the manifest is for CUDA. Releases up to 0.4.20 and conda-forge's have CUDA in jaxlib.
fn jax(scene: &ImageContext<'_>) -> Option<Finding> {
    let cuda = scene.stack.cuda.runtime.as_ref()?;
    let jaxlib = scene.installed.get("jaxlib")?;
    let is_named = ["jax", "jaxlib"].iter().any(|name| scene.rule(name).is_some());
    let mut kernels = scene.image.kernels.iter();
    if !is_named
        || scene.image.python.conda
        || jaxlib.version.contains('+')
        || scene.installed.keys().any(|name| packages::is_jax_plugin(name))
        || kernels.any(|module| module.package.as_deref() == Some("jaxlib"))
    {
        return None;
    }
    let version = &jaxlib.version;
    let extra = format!("cuda{}", cuda.major().unwrap_or(12));
    let pin = scene.installed.get("jax").map(|jax| format!("=={}", jax.version));
    Some(
        Finding::problem_as(Code::PackageCudaTag, Severity::Warn, "jaxlib")
            .observed(format!("jaxlib {version} without a plug-in for CUDA"))
            .required(format!("CUDA {cuda}"))
            .message(format!(
                "jax runs on the CPU without an error: jaxlib {version} is there without a plug-in for CUDA"
            ))
            .hint(format!(
                "If jax is to use the GPU, in the Dockerfile: pip install 'jax[{extra}]{}'.",
                pin.unwrap_or_default()
            )),
    )
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::*;
    use super::*;
    use crate::check::Status;
    use crate::facts::ImageFacts;
    use crate::stack::Stack;

    fn judged(names: &[&str], change: impl FnOnce(&mut ImageFacts)) -> Vec<Finding> {
        let facts = image(change);
        let mut stack = stack();
        stack.packages = names.iter().map(|name| rule(name, "*")).collect();
        judge(&ImageContext::new(&stack, &facts.image))
    }

    fn tensorflow() -> Distribution {
        Distribution {
            unopened: vec!["libcudart.so.12".into(), "libcudnn.so.9".into()],
            ..dist("tensorflow", "2.21.0")
        }
    }

    #[test]
    fn tensorflow_without_cuda_fails_with_the_extra_that_brings_it() {
        let findings = judged(&["tensorflow"], |i| i.distributions = vec![tensorflow()]);
        let [finding] = findings.as_slice() else {
            panic!("{findings:?}")
        };
        assert_eq!(
            (finding.code, finding.status, finding.subject.as_str()),
            (Code::LibraryMissing, Status::Fail, "libcudart.so.12")
        );
        assert!(finding.message.ends_with("libcudart.so.12, libcudnn.so.9"));
        let hint = "In the Dockerfile: pip install 'tensorflow[and-cuda]==2.21.0', or";
        assert!(finding.hint.starts_with(hint), "{}", finding.hint);
        assert_eq!(
            judged(&["tensorflow"], |i| i.distributions.push(dist("tensorflow", "2"))),
            []
        );
    }

    /// As tensorflow 2.21.0, whose RUNPATH leads to every wheel but one.
    #[test]
    fn a_wheel_that_is_not_searched_is_named_with_the_variable_that_leads_there() {
        let cusolver = Distribution {
            unopened: vec!["libcusolver.so.11".into()],
            unopened_in: vec!["/sp/nvidia/cusolver/lib".into()],
            ..dist("tensorflow", "2.21.0")
        };
        let findings = judged(&["tensorflow"], |i| {
            i.distributions = vec![cusolver, dist("nvidia-cusolver-cu12", "11.7.5.82")];
        });
        assert_eq!(
            findings[0].message,
            "tensorflow 2.21.0 runs on the CPU without an error: it opens CUDA's libraries itself and does not find \
             libcusolver.so.11 though the image has it in /sp/nvidia/cusolver/lib: tensorflow does not search there"
        );
        let hint = "In the Dockerfile: ENV LD_LIBRARY_PATH=/sp/nvidia/cusolver/lib, or";
        assert!(findings[0].hint.starts_with(hint), "{}", findings[0].hint);
    }

    /// Its metadata is there, so that pip would do nothing.
    #[test]
    fn a_wheel_without_its_files_is_installed_anew() {
        let findings = judged(&["tensorflow"], |i| {
            i.distributions = vec![tensorflow(), dist("nvidia-cudnn-cu12", "9.28.0.42")];
        });
        let hint = "pip install --force-reinstall --no-deps 'nvidia-cuda-runtime-cu12==12.*' 'nvidia-cudnn-cu12==9.28.0.42'";
        assert!(findings[0].hint.contains(hint), "{}", findings[0].hint);
    }

    #[test]
    fn jax_without_its_plugin_is_a_warning_where_the_manifest_is_for_cuda() {
        let both = || vec![dist("jax", "0.10.2"), dist("jaxlib", "0.10.2")];
        let findings = judged(&["jax"], |i| i.distributions = both());
        assert_eq!(of(&findings, Code::PackageCudaTag), [(Status::Warn, "jaxlib")]);
        assert!(findings[0].hint.ends_with("pip install 'jax[cuda12]==0.10.2'."));
        for name in ["jax-cuda12-plugin", "jax-rocm60-plugin"] {
            let with = |i: &mut ImageFacts| {
                i.distributions = both();
                i.distributions.push(dist(name, "0.10.2"));
            };
            assert_eq!(judged(&["jax"], with), [], "{name}");
        }
        assert_eq!(judged(&["torch"], |i| i.distributions = both()), []);
        let old = |i: &mut ImageFacts| i.distributions = vec![dist("jaxlib", "0.4.7+cuda12.cudnn88")];
        assert_eq!(judged(&["jaxlib"], old), []);
        let facts = image(|i| i.distributions = both());
        let without_cuda = Stack {
            packages: vec![rule("jax", "*")],
            ..Stack::default()
        };
        assert_eq!(judge(&ImageContext::new(&without_cuda, &facts.image)), []);
    }
}
