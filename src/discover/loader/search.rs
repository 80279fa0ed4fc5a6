//! Where the loader looks for a name, in its order, as far as the files themselves can tell.
//!
//! Source: ld.so(8), "DESCRIPTION" and "Hardware capabilities". What of these folders this processor is good enough for is
//! the loader's to say: every place counts where there is something.

use std::path::{Path, PathBuf};

use crate::discover::{files, ld_cache};
use crate::processor::OWN;

/// ldconfig's list.
const CACHE: &str = "/etc/ld.so.cache";
/// Libraries that every program gets, by their paths.
pub const PRELOAD: &str = "/etc/ld.so.preload";
/// How deep folders for better processors lie inside one another: `tls/haswell/avx512_1/x86_64`.
const DEEPEST: usize = 4;

/// The folders of a list such as LD_LIBRARY_PATH. An empty entry is the working folder; `$LIB` is one of two.
pub fn listed(list: &str) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in list.split([':', ';']).filter(|_| !list.is_empty()) {
        if entry.is_empty() {
            all.push(PathBuf::from("."));
        } else if entry.contains('$') {
            for lib in OWN.lib {
                let entry = entry.replace("${LIB}", lib).replace("$LIB", lib);
                all.push(PathBuf::from(entry));
            }
        } else {
            all.push(PathBuf::from(entry));
        }
    }
    all
}

/// The folders of a DT_RPATH or DT_RUNPATH; `origin` is the folder of the object that has it.
pub fn of_object(list: &str, origin: &Path) -> Vec<PathBuf> {
    let origin = origin.to_string_lossy();
    let entries = list.split(':').filter(|entry| !entry.is_empty());
    entries
        .map(|entry| PathBuf::from(entry.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin)))
        .collect()
}

/// A folder, and those for better processors in it.
pub fn with_better(folder: &Path) -> Vec<PathBuf> {
    let mut all = vec![folder.to_path_buf()];
    let below = |folder: &Path, names: &[&str]| -> Vec<PathBuf> {
        let paths = names.iter().map(|name| folder.join(name));
        paths.filter(|path| path.is_dir()).collect()
    };
    let mut here = all.clone();
    for _ in 0..DEEPEST {
        here = here.iter().flat_map(|folder| below(folder, OWN.better)).collect();
        for folder in here.iter().filter(|folder| folder.ends_with("glibc-hwcaps")) {
            for entry in files::list(folder).unwrap_or_default() {
                all.push(folder.join(entry.name));
            }
        }
        all.extend(here.iter().cloned());
        if here.is_empty() {
            break;
        }
    }
    all
}

/// Whether a folder or file is for better processors.
pub fn is_better(path: &Path) -> bool {
    path.components()
        .any(|part| OWN.better.iter().any(|better| part.as_os_str() == *better))
}

/// The level of this processor.
///
/// Source: System V psABI for x86-64, "Micro-Architecture Levels".
#[cfg(target_arch = "x86_64")]
pub fn level() -> &'static str {
    use std::arch::is_x86_feature_detected as has;
    if !(has!("sse4.2") && has!("ssse3") && has!("popcnt")) {
        "x86-64"
    } else if !(has!("avx2") && has!("bmi2") && has!("fma") && has!("f16c") && has!("lzcnt") && has!("movbe"))
    {
        "x86-64-v2"
    } else if !(has!("avx512f")
        && has!("avx512bw")
        && has!("avx512cd")
        && has!("avx512dq")
        && has!("avx512vl"))
    {
        "x86-64-v3"
    } else {
        "x86-64-v4"
    }
}

/// What of this processor the loader goes by: `atomics`, for which glibc before 2.37 has a folder.
#[cfg(target_arch = "aarch64")]
pub fn level() -> &'static str {
    match std::arch::is_aarch64_feature_detected!("lse") {
        true => "aarch64 with atomics",
        false => "aarch64",
    }
}

/// Calls with each name and path of ld.so.cache.
pub fn cache(take: &mut dyn FnMut(&str, &str)) {
    let cache = files::read_head(Path::new(CACHE), ld_cache::MAX_BYTES);
    ld_cache::each(&cache.map(|(bytes, _)| bytes).unwrap_or_default(), take);
}

/// Where a name may lie that ld.so.cache does not have.
pub fn default_places(name: &str) -> impl Iterator<Item = PathBuf> {
    OWN.default.iter().map(move |folder| Path::new(folder).join(name))
}

/// The files that a program without a search path of its own may get under a name, in the loader's order.
pub fn candidates(name: &str, library_path: Option<&str>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in listed(library_path.unwrap_or_default()) {
        found.extend(with_better(&folder).into_iter().map(|folder| folder.join(name)));
    }
    cache(&mut |known, path| {
        if known == name {
            found.push(PathBuf::from(path));
        }
    });
    found.extend(default_places(name));
    // A folder has many names, and a file counts where it comes first.
    let mut seen: Vec<PathBuf> = Vec::new();
    found.retain(|path| {
        let real = path.canonicalize().ok().filter(|real| !seen.contains(real));
        let is_new = real.is_some();
        seen.extend(real);
        is_new
    });
    found
}

/// The files that /etc/ld.so.preload names.
pub fn preloaded() -> Vec<PathBuf> {
    let text = files::read_text(Path::new(PRELOAD), files::SMALL_FILE).unwrap_or_default();
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    let words = lines.flat_map(|line| line.split([' ', '\t', ':']));
    words
        .filter(|word| word.contains('/'))
        .map(PathBuf::from)
        .collect()
}

/// What stands in the driver's place: the first libcuda that a program may get, where it lies in a folder of stubs or of
/// forward compatibility. Any other one comes with the container, and its image does not know it.
pub fn in_drivers_place(library_path: Option<&str>) -> Option<PathBuf> {
    let first = candidates(super::DRIVER, library_path).into_iter().next()?;
    let lies_aside = |path: &Path| {
        let parent = path.parent().and_then(Path::file_name);
        parent.is_some_and(|name| name == "stubs" || name == "compat")
    };
    (lies_aside(&first) || first.canonicalize().is_ok_and(|real| lies_aside(&real))).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_list_has_the_working_folder_where_it_is_empty() {
        let paths = |list| -> Vec<String> {
            let folders = listed(list).into_iter();
            folders.map(|p| p.to_str().unwrap().to_string()).collect()
        };
        assert_eq!(paths(""), [""; 0]);
        assert_eq!(paths("/a:/b;/c"), ["/a", "/b", "/c"]);
        assert_eq!(paths("/a:"), ["/a", "."]);
        assert_eq!(
            paths("/x/$LIB"),
            ["/x/lib/x86_64-linux-gnu", "/x/lib64", "/x/lib"]
        );
    }

    #[test]
    fn folders_for_better_processors_come_along() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        put("a/libx.so.1");
        put("a/glibc-hwcaps/x86-64-v3/libx.so.1");
        put("a/tls/haswell/x86_64/libx.so.1");
        put("b/other");
        let list = format!("{0}/none:{0}/b:{0}/a", dir.path().display());
        let mut found: Vec<_> = candidates("libx.so.1", Some(&list))
            .into_iter()
            .map(|path| {
                path.strip_prefix(dir.path())
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_string()
            })
            .collect();
        assert_eq!(found[0], "a/libx.so.1");
        found.sort();
        assert_eq!(
            found,
            [
                "a/glibc-hwcaps/x86-64-v3/libx.so.1",
                "a/libx.so.1",
                "a/tls/haswell/x86_64/libx.so.1"
            ]
        );
    }
}
