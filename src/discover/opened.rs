//! CUDA's libraries that a package opens by dlopen: no object names them, so that the loader's list does not have them.
//!
//! Which releases it opens is in its metadata, behind the extra that brings them as wheels: `nvidia-cudnn-cu12<10.0,>=9.3;
//! extra == "and-cuda"` is libcudnn.so.9. The RUNPATH of the library that calls dlopen leads to these wheels beside it
//! (`nvidia/*/lib`), and any other copy is where the loader looks for every program.

use std::path::{Path, PathBuf};

use pep440_rs::Operator;

use super::bytes::RandomFile;
use super::loader::search;
use super::requirement::{MarkerEnvironment, Requirement};
use super::{elf, files, wheels};
use crate::facts::{Distribution, LibraryKind, Python};
use crate::packages::{self, Opener, untagged};

/// States which libraries the named distributions would open in vain.
pub fn look(found: &mut [Distribution], names: &[&str], python: &Python, library_path: Option<&str>) {
    for dist in found.iter_mut() {
        let opener = packages::opener(&dist.name).filter(|opener| opener.is_meant(names));
        let site = Path::new(&dist.path).parent();
        if let (Some(opener), Some(site)) = (opener, site)
            && !is_for_cpu(opener, site)
        {
            let wheels = folders(site, python);
            let looked_into = runpath(opener, site);
            let looked_into = looked_into.as_ref().unwrap_or(&wheels);
            let is_in = |folders: &[PathBuf], soname: &str| folders.iter().any(|f| f.join(soname).is_file());
            dist.unopened = wanted(opener, dist, python);
            dist.unopened.retain(|soname| {
                !is_in(looked_into, soname) && search::candidates(soname, library_path).is_empty()
            });
            let names = dist.unopened.iter();
            let places = names.filter_map(|name| wheels.iter().find(|f| f.join(name).is_file()));
            for folder in places.map(|folder| folder.to_string_lossy().into_owned()) {
                if !dist.unopened_in.contains(&folder) {
                    dist.unopened_in.push(folder);
                }
            }
        }
    }
}

/// A build without CUDA has the same metadata.
fn is_for_cpu(opener: &Opener, site: &Path) -> bool {
    let Some((file, text)) = opener.cpu_build.get() else {
        return false;
    };
    files::read_text(&site.join(file), files::SMALL_FILE).is_ok_and(|build| build.contains(text))
}

/// The folders that the loader searches for what is opened; `None` where the library that opens it cannot be read.
fn runpath(opener: &Opener, site: &Path) -> Option<Vec<PathBuf>> {
    let caller = site.join(opener.caller.get()?);
    let file = RandomFile::open(&caller).ok()?;
    let dynamic = elf::dynamic(&file).ok()?;
    let list = dynamic.runpath.or(dynamic.rpath).unwrap_or_default();
    Some(search::of_object(&list, caller.parent()?))
}

/// The folders of NVIDIA's wheels, and that of a conda environment's libraries.
fn folders(site: &Path, python: &Python) -> Vec<PathBuf> {
    let nvidia = site.join("nvidia");
    let wheels = files::list(&nvidia).unwrap_or_default().into_iter();
    let prefix = python.prefix.iter().filter(|_| python.conda);
    wheels
        .map(|entry| nvidia.join(entry.name).join("lib"))
        .chain(prefix.map(|prefix| Path::new(prefix).join("lib")))
        .collect()
}

/// The SONAMEs that its metadata leads to.
fn wanted(opener: &Opener, dist: &Distribution, python: &Python) -> Vec<String> {
    let under = MarkerEnvironment {
        extra: opener.extra.to_string(),
        ..MarkerEnvironment::of(python.version.as_deref())
    };
    let lines = wheels::lines_of_extras(Path::new(&dist.path));
    let parsed = lines.iter().filter_map(|line| line.parse::<Requirement>().ok());
    let wheels: Vec<Requirement> = parsed.filter(|r| r.applies(&under) == Some(true)).collect();
    let each = opener.opens.iter();
    each.filter_map(|(wheel, stem)| {
        let is_it = |r: &&Requirement| untagged(&r.name).unwrap_or(&r.name) == *wheel;
        soname(stem, wheels.iter().find(is_it)?)
    })
    .collect()
}

/// `libcudnn.so.9` of `nvidia-cudnn-cu12<10.0,>=9.3`: the wheels' versions begin with the number of the SONAME.
fn soname(stem: &str, requirement: &Requirement) -> Option<String> {
    let least = requirement.specifiers.iter().find(|specifier| {
        matches!(
            specifier.operator(),
            Operator::GreaterThanEqual | Operator::Equal | Operator::EqualStar | Operator::TildeEqual
        )
    })?;
    let major = u16::try_from(*least.version().release().first()?).ok()?;
    let kind = LibraryKind::of_file(&format!("{stem}.so"));
    Some(kind.map_or_else(|| format!("{stem}.so.{major}"), |kind| kind.soname(major)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const EXTRA: &str = "Requires-Dist: nvidia-cuda-runtime-cu12<13.0,>=12.5.82; extra == \"and-cuda\"\n\
        Requires-Dist: nvidia-cuda-nvcc-cu12<13.0,>=12.5.82; extra == \"and-cuda\"\n\
        Requires-Dist: nvidia-cudnn-cu12<10.0,>=9.3.0.75; extra == \"and-cuda\"\n\
        Requires-Dist: nvidia-cufft-cu12<12.0,>=11.2.3.61; extra == \"and-cuda\"\n\
        Requires-Dist: nvidia-cublas-cu12<13.0,>=12.5.3.2; extra == \"other\"\n";

    fn site(metadata: &str, others: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let head = "Metadata-Version: 2.4\nName: tensorflow\nVersion: 2.21.0\n";
        let own = (
            "tensorflow-2.21.0.dist-info/METADATA",
            format!("{head}{metadata}\n"),
        );
        let others = others.iter().map(|(path, text)| (*path, text.to_string()));
        for (path, text) in others.chain([own]) {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn unopened(site: &Path, names: &[&str], python: &Python, library_path: Option<&str>) -> Vec<String> {
        let mut found = wheels::distributions(&[site.to_str().unwrap().to_string()]);
        look(&mut found, names, python, library_path);
        found.swap_remove(0).unopened
    }

    #[test]
    fn what_the_extra_would_bring_is_looked_for() {
        let alone = site(EXTRA, &[]);
        let of = |names: &[&str]| unopened(alone.path(), names, &Python::default(), None);
        assert_eq!(
            of(&["tensorflow"]),
            ["libcudart.so.12", "libcufft.so.11", "libcudnn.so.9"]
        );
        assert_eq!(of(&["torch"]), [""; 0]);
        // Before CUDA 12 the SONAME had more than the major version.
        let old = "Requires-Dist: nvidia-cuda-runtime-cu11==11.8.89; extra == \"and-cuda\"\n";
        let old = site(old, &[]);
        assert_eq!(
            unopened(old.path(), &["tensorflow"], &Python::default(), None),
            ["libcudart.so.11.0"]
        );
        let without = site("", &[]);
        assert_eq!(
            unopened(without.path(), &["tensorflow"], &Python::default(), None),
            [""; 0]
        );
    }

    #[test]
    fn it_may_lie_in_wheels_on_the_path_or_in_condas_folder() {
        let wheels = site(
            EXTRA,
            &[
                ("nvidia/cuda_runtime/lib/libcudart.so.12", ""),
                ("nvidia/cu12/lib/libcudnn.so.9", ""),
            ],
        );
        let of = |python: &Python, path: Option<&str>| unopened(wheels.path(), &["tensorflow"], python, path);
        assert_eq!(of(&Python::default(), None), ["libcufft.so.11"]);
        let other = tempfile::tempdir().unwrap();
        fs::create_dir(other.path().join("lib")).unwrap();
        fs::write(other.path().join("lib/libcufft.so.11"), "").unwrap();
        let folder = other.path().join("lib");
        assert_eq!(of(&Python::default(), folder.to_str()), [""; 0]);
        let mut python = Python {
            prefix: Some(other.path().to_str().unwrap().into()),
            ..Python::default()
        };
        assert_eq!(of(&python, None), ["libcufft.so.11"]);
        python.conda = true;
        assert_eq!(of(&python, None), [""; 0]);
    }

    #[test]
    fn jaxs_plugin_counts_where_the_manifest_names_jax() {
        let dir = tempfile::tempdir().unwrap();
        let info = dir.path().join("jax_cuda12_plugin-0.6.2.dist-info");
        fs::create_dir(&info).unwrap();
        let requires = "Requires-Dist: nvidia-cublas-cu12>=12.1.3.1; extra == \"with-cuda\"\n\
            Requires-Dist: nvidia-cudnn-cu12<10.0,>=9.8; extra == \"with-cuda\"\n";
        let text = format!("Metadata-Version: 2.4\nName: jax-cuda12-plugin\nVersion: 0.6.2\n{requires}\n");
        fs::write(info.join("METADATA"), text).unwrap();
        for (names, count) in [
            (&["jax"][..], 2),
            (&["jaxlib"], 2),
            (&["jax-cuda12-plugin"], 2),
            (&["torch"], 0),
        ] {
            let found = unopened(dir.path(), names, &Python::default(), None);
            assert_eq!(found.len(), count, "{names:?}: {found:?}");
        }
    }

    #[test]
    fn a_build_for_the_cpu_opens_nothing() {
        let path = "tensorflow/python/platform/build_info.py";
        for (build, count) in [("False", 0), ("True", 3)] {
            let text = format!("build_info = OrderedDict([('is_cuda_build', {build})])\n");
            let site = site(EXTRA, &[(path, &text)]);
            let found = unopened(site.path(), &["tensorflow"], &Python::default(), None);
            assert_eq!(found.len(), count, "{build}");
        }
    }
}
