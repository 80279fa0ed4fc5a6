//! Which symbols a library in front lacks, of those that its users need from the wheel's own copy.
//!
//! Python loads extensions with RTLD_NOW, so that one undefined symbol makes the import fail. Names are compared without
//! their versions: an older CUDA library has the same version names (`libnvJitLink.so.12`), and a version that is missing
//! altogether is reported by the loader itself. Weak references may stay undefined.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use object::LittleEndian as Le;
use object::elf::{SHN_UNDEF, SHT_DYNSYM, SHT_STRTAB, STB_GLOBAL, Sym64};
use object::pod;

use crate::discover::bytes::{RandomFile, Reader, Source};
use crate::discover::{elf, files, reading};
use crate::facts::ShadowedCopy;
use crate::text::one_line;

/// Most bytes of a table that is read. torch 2.5's libtorch_cuda has 11 MB of dynamic strings.
const MAX_TABLE: u64 = 64 << 20;
/// Longest name that is kept, in characters.
const MAX_NAME: usize = 200;
/// Largest `torch/__init__.py` that is read. torch 2.15's has 130 KB.
const MAX_SOURCE: usize = 1 << 20;

/// The dynamic symbols of a file and their names.
#[derive(Default)]
struct Symbols {
    table: Vec<u8>,
    strings: Vec<u8>,
}

impl Symbols {
    /// Empty where they cannot be read: nothing is claimed about such a file.
    fn read(path: &Path) -> Self {
        let _going = reading::begin(path);
        Self::try_read(path).unwrap_or_default()
    }

    fn try_read(path: &Path) -> Option<Self> {
        let file = RandomFile::open(path).ok()?;
        let mut reader = Reader::new(&file);
        let elf = elf::open_own(&mut reader).ok()?;
        let mut found = Self::default();
        for index in 0..elf.section_count() {
            let section = elf.section(&mut reader, index).ok()?;
            let into = match section.kind {
                SHT_DYNSYM => &mut found.table,
                SHT_STRTAB if elf.name_starts_with(&mut reader, &section, b".dynstr\0").ok()? => {
                    &mut found.strings
                }
                _ => continue,
            };
            // The section lies in the file, so that its size is no invention.
            *into = vec![0; usize::try_from(section.size.min(MAX_TABLE)).ok()?];
            file.read_at(section.offset, into).ok()?;
        }
        Some(found)
    }

    /// The names that the file exports, or those that others must define for it.
    fn each<'s>(&'s self, exported: bool, take: &mut dyn FnMut(&'s str)) {
        let symbols = pod::slice_from_all_bytes::<Sym64<Le>>(whole(&self.table)).unwrap_or_default();
        for symbol in symbols {
            let (is_defined, binding) = (symbol.st_shndx.get(Le) != SHN_UNDEF, symbol.st_info >> 4);
            if is_defined != exported || binding < STB_GLOBAL || (!exported && binding != STB_GLOBAL) {
                continue;
            }
            let at = symbol.st_name.get(Le) as usize;
            let name = self
                .strings
                .get(at..)
                .and_then(|rest| rest.split(|&b| b == 0).next());
            if let Some(name) = name.and_then(|name| std::str::from_utf8(name).ok()) {
                take(name);
            }
        }
    }
}

/// The table without a last entry that is cut.
fn whole(table: &[u8]) -> &[u8] {
    let len = table.len() - table.len() % size_of::<Sym64<Le>>();
    table.get(..len).unwrap_or_default()
}

/// States what `front`, which would be mapped, lacks of `copy`. `users` need the library; whatever one of `mapped`
/// exports is not missing.
pub fn compare(copy: &mut ShadowedCopy, front: &Path, users: &[&Path], mapped: &[&Path]) {
    let (own, other) = (Symbols::read(Path::new(&copy.path)), Symbols::read(front));
    // A file without symbols was not read, or is not a library.
    let mut is_read = false;
    let mut lacking: BTreeSet<&str> = BTreeSet::new();
    own.each(true, &mut |name| {
        lacking.insert(name);
    });
    other.each(true, &mut |name| {
        is_read = true;
        lacking.remove(name);
    });
    if !is_read || lacking.is_empty() {
        return;
    }
    let mut missing: BTreeMap<String, String> = BTreeMap::new();
    for user in users {
        Symbols::read(user).each(false, &mut |name| {
            if lacking.contains(name) && !missing.contains_key(name) {
                missing.insert(name.to_string(), user.to_string_lossy().into_owned());
            }
        });
    }
    for path in mapped {
        if !missing.is_empty() {
            Symbols::read(path).each(true, &mut |name| {
                missing.remove(name);
            });
        }
    }
    copy.missing_count = missing.len();
    if let Some((symbol, user)) = missing.pop_first() {
        copy.missing_symbol = Some(one_line(&symbol, MAX_NAME));
        copy.missing_for = Some(user);
    }
}

/// The source of torch that is read where a copy is compared, if torch is among the modules.
pub fn torch_source(modules: &[String]) -> Option<PathBuf> {
    let mut sites = modules
        .iter()
        .filter_map(|module| module.split_once("/torch/lib/"));
    Some(Path::new(sites.next()?.0).join("torch/__init__.py"))
}

/// Whether torch maps this copy by its path before anything else needs the library, so that the one in front is not used.
///
/// Source: `_load_global_deps` in torch/__init__.py. Since 2.6 it does so for libnvrtc and libnvJitLink, later for all of
/// NVIDIA's wheels; before it, only after an error.
pub fn torch_preloads(modules: &[String], name: &str, copy: &str) -> bool {
    let Some(path) = torch_source(modules).filter(|_| copy.contains("/nvidia/")) else {
        return false;
    };
    let source = files::read_text(&path, MAX_SOURCE).unwrap_or_default();
    let stem = name.split_once(".so").map_or(name, |(stem, _)| stem);
    let quoted = format!("\"{stem}.so.");
    source.lines().any(|line| {
        let Some(call) = line.trim_start().strip_prefix("_preload_cuda_") else {
            return false;
        };
        let is_of_all = call.starts_with("deps(required=False)") || call.starts_with("deps()");
        call.contains(&quoted) || (is_of_all && source.contains(&quoted))
    })
}

/// Whether torch's source names a library at all: what the loader does not find, it looks for by these names in all of
/// `sys.path`.
pub fn torch_names(modules: &[String], name: &str) -> bool {
    let source = torch_source(modules).and_then(|path| files::read_text(&path, MAX_SOURCE).ok());
    let stem = name.split_once(".so").map_or(name, |(stem, _)| stem);
    source.is_some_and(|source| source.contains(&format!("\"{stem}.so.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_torch_maps_itself_is_read_from_its_source() {
        let site = tempfile::tempdir().unwrap();
        let torch = site.path().join("torch");
        std::fs::create_dir_all(torch.join("lib")).unwrap();
        let modules = [torch.join("lib/libtorch_python.so").to_str().unwrap().to_string()];
        let copy = "/sp/nvidia/nvjitlink/lib/libnvJitLink.so.12";
        let table = "cuda_libs = {\n  \"nccl\": \"libnccl.so.*[0-9]\",\n}\n";
        let one = "  _preload_cuda_deps(\"nvjitlink\", \"libnvJitLink.so.*[0-9]\")\n";
        let error = "  _preload_cuda_deps(lib_folder, lib_name)\n";
        for (source, nvjitlink, nccl) in [
            (String::new(), false, false),
            (format!("{table}{error}"), false, false),
            (format!("{table}{one}{error}"), true, false),
            (format!("{table}  _preload_cuda_deps(err)\n"), false, false),
            (
                format!("{table}  _preload_cuda_deps(required=False)\n"),
                false,
                true,
            ),
        ] {
            std::fs::write(torch.join("__init__.py"), &source).unwrap();
            assert_eq!(
                torch_preloads(&modules, "libnvJitLink.so.12", copy),
                nvjitlink,
                "{source}"
            );
            assert_eq!(torch_preloads(&modules, "libnccl.so.2", copy), nccl, "{source}");
            assert!(
                !torch_preloads(&modules, "libnvJitLink.so.12", "/sp/torch/lib/x"),
                "{source}"
            );
        }
        assert!(!torch_preloads(&["/sp/m.so".into()], "libnccl.so.2", copy));
    }

    #[test]
    fn files_that_are_not_libraries_lack_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("libx.so.1");
        std::fs::write(&text, "INPUT(libx.so)").unwrap();
        let mut copy = ShadowedCopy {
            path: "/proc/self/exe".into(),
            ..ShadowedCopy::default()
        };
        compare(&mut copy, &text, &[&text], &[]);
        assert_eq!((copy.missing_count, copy.missing_symbol), (0, None));
    }

    #[test]
    fn damaged_tables_end_where_their_bytes_end() {
        let symbols = Symbols {
            table: vec![0x10; 24 * 2 + 5],
            strings: b"\0name\0".to_vec(),
        };
        symbols.each(true, &mut |name| panic!("{name}"));
        symbols.each(false, &mut |name| panic!("{name}"));
    }
}
