//! Which C++ ABI of libstdc++ torch's libraries use.
//!
//! No text file says it for every torch. `c10::Error`, which every C++ extension of torch uses, is constructed from a
//! `std::string`, and the mangled name in libc10.so has the one of the ABI: `Ss` in PyPI's wheels up to 2.6, a type in
//! `std::__cxx11` since then.

use std::path::Path;

use super::bytes::{RandomFile, Reader};
use super::elf::{self, ElfError};
use crate::facts::Distribution;

const ERROR: &[u8] = b"_ZN3c105ErrorC2ENS_14SourceLocationE";
const NEW: &[u8] = b"NSt7__cxx1112basic_string";
const OLD: &[u8] = b"Ss";
/// Most of the dynamic strings that are read, in bytes. torch 2.15.0's are 86 KB.
const MAX_STRINGS: u64 = 1 << 20;
/// How much is looked at in one piece, and how much of it again with the next one.
const PIECE: u64 = 4096;
const OVERLAP: u64 = 128;

/// States the ABI of the installed torch where another distribution's version names one.
pub fn state(found: &mut [Distribution]) {
    let names_one = |dist: &Distribution| dist.version.to_ascii_lowercase().contains("cxx11abi");
    if !found.iter().any(names_one) {
        return;
    }
    if let Some(torch) = found.iter_mut().find(|dist| dist.name == "torch") {
        let site = Path::new(&torch.path).parent();
        torch.cxx11_abi = site.and_then(|site| of_library(&site.join("torch/lib/libc10.so")));
    }
}

/// `None` where the library is not there or says nothing.
pub fn of_library(path: &Path) -> Option<bool> {
    let _going = super::reading::begin(path);
    let file = super::unread::noted(path, RandomFile::open(path)).ok()?;
    of_elf(&mut Reader::new(&file)).ok()?
}

/// The ABI that a symbol asks for, by the `std::string` in its name.
pub fn of_symbol(symbol: &str) -> Option<bool> {
    let new = std::str::from_utf8(NEW).ok()?;
    if symbol.contains(new) {
        return Some(true);
    }
    // `Ss` may also be the middle of a name, but not its end, or what stands before a reference's other arguments.
    (symbol.ends_with("Ss") || symbol.contains("RKSs") || symbol.contains("ESs")).then_some(false)
}

fn of_elf(reader: &mut Reader<'_>) -> Result<Option<bool>, ElfError> {
    let elf = elf::open_own(reader)?;
    for index in 0..elf.section_count() {
        let section = elf.section(reader, index)?;
        if section.kind != object::elf::SHT_STRTAB || !elf.name_starts_with(reader, &section, b".dynstr\0")? {
            continue;
        }
        let end = section.offset.saturating_add(section.size.min(MAX_STRINGS));
        let mut at = section.offset;
        while at < end {
            let piece = reader.up_to(at, end.min(at.saturating_add(PIECE)))?;
            if let Some(answer) = of_strings(piece) {
                return Ok(Some(answer));
            }
            at = at.saturating_add(PIECE - OVERLAP);
        }
    }
    Ok(None)
}

fn of_strings(strings: &[u8]) -> Option<bool> {
    let mut names = strings.split(|&byte| byte == 0);
    names.find_map(|name| {
        let argument = name.strip_prefix(ERROR)?;
        if argument.starts_with(NEW) {
            Some(true)
        } else {
            argument.starts_with(OLD).then_some(false)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_error_tells_the_abi() {
        for (name, answer) in [
            ("_ZN3c105ErrorC2ENS_14SourceLocationESs", Some(false)),
            (
                "_ZN3c105ErrorC2ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE",
                Some(true),
            ),
            ("_ZN3c105ErrorC2ENS_14SourceLocationE", None),
            ("_ZN3c10", None),
            ("", None),
        ] {
            assert_eq!(of_strings(format!("x\0{name}\0y").as_bytes()), answer, "{name}");
        }
    }

    #[test]
    fn only_a_tag_has_it_looked_for() {
        let site = tempfile::tempdir().unwrap();
        let dist = |name: &str, version: &str| Distribution {
            name: name.into(),
            version: version.into(),
            path: format!("{}/{name}.dist-info", site.path().display()),
            ..Distribution::default()
        };
        std::fs::create_dir_all(site.path().join("torch/lib")).unwrap();
        std::fs::write(site.path().join("torch/lib/libc10.so"), "no ELF file").unwrap();
        let mut found = [
            dist("flash-attn", "2.7+cu12torch2.6cxx11abiTRUE"),
            dist("torch", "2.6.0"),
        ];
        state(&mut found);
        assert_eq!(found[1].cxx11_abi, None);
    }
}
