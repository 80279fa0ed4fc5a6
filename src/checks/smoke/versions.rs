//! Whether what the smoke imported is what is installed. Pure.

use std::str::FromStr;

use pep440_rs::Version;

use crate::check::{Code, Finding};
use crate::checks::image::without_cuda;
use crate::facts::Distribution;
use crate::facts::smoke::{SmokeFacts, SmokeModule};
use crate::packages;

/// A finding for each module that states another version than its distribution. Whose distribution is not known is not
/// judged, and neither is who states none.
pub fn judge(facts: &SmokeFacts, installed: &[Distribution]) -> Vec<Finding> {
    let modules = facts.runs().flat_map(|run| &run.modules);
    modules.filter_map(|module| another(module, installed)).collect()
}

fn another(module: &SmokeModule, installed: &[Distribution]) -> Option<Finding> {
    if module.version.is_empty() {
        return None;
    }
    let dists: Vec<&Distribution> = installed.iter().filter(|d| brings(d, &module.name)).collect();
    // The first folder with it is the one whose metadata Python reads too.
    let dist = dists.first()?;
    if dists.iter().any(|dist| states(dist, &module.version)) {
        return None;
    }
    let (name, version) = (&module.name, &module.version);
    let path = match module.path.as_str() {
        "" => "an unknown file",
        path => path,
    };
    Some(
        Finding::problem(Code::SmokeImport, name.clone())
            .observed(format!("{name} {version} from {path}"))
            .required(format!("{} {}, as in {}", dist.name, dist.version, dist.path))
            .message(format!(
                "Python imports {name} {version} from {path}, not the installed {}",
                dist.version
            ))
            .hint(format!(
                "take the folder of the other {name} out of PYTHONPATH and the working folder, or install {} anew if \
                 both are one folder: files of two versions were laid over each other",
                dist.name
            )),
    )
}

/// Whether a distribution is a build of what is imported by this name.
fn brings(dist: &Distribution, module: &str) -> bool {
    let name = module.replace('_', "-");
    dist.name == name
        || without_cuda(&dist.name).is_some_and(|base| base == name)
        || packages::of(&dist.name).is_some_and(|package| package.folder == module)
}

/// Whether the metadata or the module's own version file states this version. One without a local part (`+cu124`)
/// leaves open which build it is.
fn states(dist: &Distribution, said: &str) -> bool {
    let is_said = |text: &str| match (Version::from_str(said), Version::from_str(text)) {
        (Ok(said), Ok(version)) if said.local().is_empty() || version.local().is_empty() => {
            said.without_local() == version.without_local()
        }
        (Ok(said), Ok(version)) => said == version,
        _ => said == text,
    };
    // The version file tells builds apart where the metadata does not. Where there is nothing to compare with, nothing
    // is another.
    match &dist.module_version {
        Some(own) => is_said(own) || said == dist.version,
        None => dist.version.is_empty() || is_said(&dist.version),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Status;
    use crate::facts::smoke::SmokeRun;

    fn dist(name: &str, version: &str, own: Option<&str>) -> Distribution {
        Distribution {
            name: name.into(),
            version: version.into(),
            path: format!("/sp/{name}-{version}.dist-info"),
            module_version: own.map(String::from),
            ..Distribution::default()
        }
    }

    fn of(name: &str, version: &str, installed: &[Distribution]) -> Vec<Finding> {
        let module = SmokeModule {
            name: name.into(),
            version: version.into(),
            path: format!("/app/{name}/__init__.py"),
        };
        let builtin = SmokeRun {
            modules: vec![module],
            ..SmokeRun::default()
        };
        let facts = SmokeFacts {
            builtin,
            ..SmokeFacts::default()
        };
        judge(&facts, installed)
    }

    #[test]
    fn builds_as_they_are_met() {
        for (name, said, package, version, own) in [
            ("torch", "2.5.0+cu124", "torch", "2.5.0", Some("2.5.0+cu124")),
            (
                "torch",
                "2.5.0+cu124",
                "torch",
                "2.5.0+cu124",
                Some("2.5.0+cu124"),
            ),
            ("torch", "2.5.0", "torch", "2.5.0+cu124", None),
            ("torch", "2.5.0+cu124", "torch", "2.5.0", None),
            // NVIDIA's containers, and a version file that cannot be read without running it
            (
                "torch",
                "2.5.0a0+872d972e41.nv24.08",
                "torch",
                "2.5.0a0+872d972e41.nv24.8",
                None,
            ),
            (
                "torchvision",
                "0.20.0+cu124",
                "torchvision",
                "0.20.0",
                Some("0.20.0+cu124"),
            ),
            ("cumm", "0.8.2", "cumm-cu124", "0.8.2", None),
            ("spconv", "2.3.8", "spconv-cu124", "2.3.8", None),
            ("spconv", "2.3.8", "spconv", "2.3.8", None),
            ("torch_scatter", "2.1.2", "torch-scatter", "2.1.2+pt25cu124", None),
            (
                "torch_scatter",
                "2.1.2+pt25cu124",
                "torch-scatter",
                "2.1.2+pt25cu124",
                None,
            ),
            ("mmcv", "2.2.0", "mmcv", "2.2.0", Some("2.2.0")),
            ("mmcv", "1.7.2", "mmcv-full", "1.7.2", None),
            ("x", "git-abc", "x", "git-abc", None),
            ("x", "1.0", "x", "1", None),
            // nothing is known of it
            ("torch", "2.1.0", "numpy", "2.5.0", None),
            ("torch", "2.1.0", "torch", "", None),
            ("torch", "2.1.0", "torch-scatter", "2.5.0", None),
            ("mmcv._ext", "1", "mmcv", "2.2.0", None),
            ("torch", "", "torch", "2.5.0", None),
        ] {
            let found = of(name, said, &[dist(package, version, own)]);
            assert_eq!(found, [], "{name} {said}, {package} {version} {own:?}");
        }
    }

    #[test]
    fn another_version_than_the_installed_one() {
        for (name, said, package, version, own) in [
            ("torch", "2.1.0", "torch", "2.5.0", Some("2.5.0+cu124")),
            ("torch", "2.1.0+cu124", "torch", "2.5.0", None),
            ("torch", "2.5.0+cu121", "torch", "2.5.0", Some("2.5.0+cu124")),
            ("torch", "2.5.0+cu121", "torch", "2.5.0+cu124", None),
            ("torch", "unknown", "torch", "2.5.0", None),
            ("cumm", "0.7.11", "cumm-cu124", "0.8.2", None),
            ("torch_scatter", "2.1.1", "torch-scatter", "2.1.2+pt25cu124", None),
        ] {
            let found = of(name, said, &[dist(package, version, own)]);
            assert_eq!(found.len(), 1, "{name} {said}, {package} {version} {own:?}");
            assert_eq!(
                (found[0].code, found[0].status),
                (Code::SmokeImport, Status::Fail)
            );
        }
        let found = of("torch", "2.1.0", &[dist("torch", "2.5.0", None)]);
        assert_eq!(
            found[0].message,
            "Python imports torch 2.1.0 from /app/torch/__init__.py, not the installed 2.5.0"
        );
        assert_eq!(found[0].required, "torch 2.5.0, as in /sp/torch-2.5.0.dist-info");
    }

    #[test]
    fn any_of_several_distributions_may_have_brought_it() {
        let two = [
            dist("spconv-cu121", "2.3.6", None),
            dist("spconv-cu124", "2.3.8", None),
        ];
        assert_eq!(of("spconv", "2.3.8", &two), []);
        assert_eq!(of("spconv", "2.3.7", &two).len(), 1);
    }
}
