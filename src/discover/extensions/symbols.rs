//! The dynamic symbols of a library: those that it needs by their names, and those that it defines by their hashes.
//!
//! libtorch_cpu.so 2.5 has 6.1 MB of names and a hash table of 0.5 MB (`readelf -SW`), so that what a library defines is told
//! by the table alone. It holds 31 bits of each name's hash: beside its 85,000 symbols, a name that is not among them is taken
//! for defined once in 25,000 times. A library without that section is read symbol by symbol.
//!
//! Source: the section `.gnu.hash` as binutils writes it and elf/dl-lookup.c of glibc reads it.

use std::path::Path;

use object::LittleEndian as Le;
use object::elf::{GnuHashHeader, SHN_UNDEF, SHT_DYNSYM, SHT_GNU_HASH, STB_GLOBAL, STB_LOCAL, Sym64};
use object::pod;

use crate::discover::bytes::{RandomFile, Reader, Source};
use crate::discover::elf::{self, Section};
use crate::discover::reading;

/// Largest hash table that is read, in bytes. The one of libtorch_cpu.so 2.5 has 0.5 MB.
const MAX_TABLE: u64 = 32 << 20;
/// Most symbols of a file: libtorch_cpu.so 2.5 has 85,000.
const MAX_SYMBOLS: u64 = 4 << 20;
/// Symbols, and bytes of names, that are read at once.
const PIECE: usize = 64 << 10;
/// Longest name of a symbol, in bytes. C++ templates have some of a few thousand.
const MAX_NAME: usize = 16 << 10;
const ENTRY: usize = size_of::<Sym64<Le>>();

/// Which symbols a library defines.
pub struct Exports(Table);

enum Table {
    /// the section `.gnu.hash`
    Gnu(Vec<u8>),
    /// the hashes of its symbols, in order, where it has no such section: libnvJitLink.so.12 has `.hash` alone
    Listed(Vec<u32>),
    /// it cannot be told: then it may define any
    Unknown,
}

impl Exports {
    pub fn read(path: &Path) -> Self {
        let _going = reading::begin(path);
        let gnu = read_table(path).filter(|table| GnuHash::of(table).is_some());
        let listed = || Some(Table::Listed(defined(path)?));
        let table = gnu.map(Table::Gnu).or_else(listed);
        Self(table.unwrap_or(Table::Unknown))
    }

    /// Whether it defines the symbol with this hash; `None` where it has no table.
    pub fn has(&self, hash: u32) -> Option<bool> {
        match &self.0 {
            Table::Gnu(table) => Some(GnuHash::of(table)?.find(hash).is_some()),
            Table::Listed(hashes) => Some(hashes.binary_search(&hash).is_ok()),
            Table::Unknown => None,
        }
    }
}

fn read_table(path: &Path) -> Option<Vec<u8>> {
    let file = RandomFile::open(path).ok()?;
    let section = section(&file, SHT_GNU_HASH)?;
    let mut table = vec![0; usize::try_from(section.size.min(MAX_TABLE)).ok()?];
    file.read_at(section.offset, &mut table).ok()?;
    Some(table)
}

/// The first section of a type.
fn section(file: &RandomFile, kind: u32) -> Option<Section> {
    let mut reader = Reader::new(file);
    let elf = elf::open_own(&mut reader).ok()?;
    (0..elf.section_count()).find_map(|index| {
        let section = elf.section(&mut reader, index).ok()?;
        (section.kind == kind).then_some(section)
    })
}

/// What a symbol's name is found by.
pub fn hash(name: &str) -> u32 {
    name.bytes().fold(5381_u32, |hash, byte| {
        hash.wrapping_mul(33).wrapping_add(u32::from(byte))
    })
}

/// The parts of a `.gnu.hash` section.
struct GnuHash<'d> {
    /// symbols before this one are in no chain
    first: usize,
    shift: u32,
    bloom: &'d [object::U64<Le>],
    buckets: &'d [object::U32<Le>],
    chains: &'d [object::U32<Le>],
}

impl<'d> GnuHash<'d> {
    fn of(table: &'d [u8]) -> Option<Self> {
        let (header, rest) = pod::from_bytes::<GnuHashHeader<Le>>(table).ok()?;
        let count = |value: u32| usize::try_from(value).ok();
        let (bloom, rest) = pod::slice_from_bytes(rest, count(header.bloom_count.get(Le))?).ok()?;
        let (buckets, rest) = pod::slice_from_bytes(rest, count(header.bucket_count.get(Le))?).ok()?;
        let whole = rest.get(..rest.len() - rest.len() % size_of::<u32>())?;
        Some(Self {
            first: count(header.symbol_base.get(Le))?,
            shift: header.bloom_shift.get(Le),
            bloom,
            buckets,
            chains: pod::slice_from_all_bytes(whole).ok()?,
        })
    }

    fn find(&self, hash: u32) -> Option<()> {
        let wide = usize::try_from(hash).ok()?;
        let word = self
            .bloom
            .get((wide / 64).checked_rem(self.bloom.len())?)?
            .get(Le);
        let bit = |value: u32| 1_u64 << (value % 64);
        let mask = bit(hash) | bit(hash.checked_shr(self.shift).unwrap_or(0));
        if word & mask != mask {
            return None;
        }
        let bucket = self.buckets.get(wide.checked_rem(self.buckets.len())?)?.get(Le);
        let start = usize::try_from(bucket).ok()?.checked_sub(self.first)?;
        for chain in self.chains.get(start..)? {
            let value = chain.get(Le);
            if value | 1 == hash | 1 {
                return Some(());
            }
            if value & 1 == 1 {
                break;
            }
        }
        None
    }
}

/// The names that others must define for a library; `None` where they cannot be read.
pub fn undefined(path: &Path) -> Option<Vec<String>> {
    let _going = reading::begin(path);
    names(path, &|symbol| {
        symbol.st_shndx.get(Le) == SHN_UNDEF && symbol.st_info >> 4 == STB_GLOBAL
    })
}

/// The hashes of the names that it defines for others, in order; `None` where it states none.
fn defined(path: &Path) -> Option<Vec<u32>> {
    let names = names(path, &|symbol| {
        symbol.st_shndx.get(Le) != SHN_UNDEF && symbol.st_info >> 4 != STB_LOCAL
    })?;
    let mut hashes: Vec<u32> = names.iter().map(|name| hash(name)).collect();
    crate::order::sort(&mut hashes);
    Some(hashes).filter(|hashes| !hashes.is_empty())
}

/// The names of the dynamic symbols that are `wanted`; `None` where they cannot be read.
fn names(path: &Path, wanted: &dyn Fn(&Sym64<Le>) -> bool) -> Option<Vec<String>> {
    let file = RandomFile::open(path).ok()?;
    let mut reader = Reader::new(&file);
    let elf = elf::open_own(&mut reader).ok()?;
    let (mut symbols, mut strings) = (None, None);
    for index in 0..elf.section_count() {
        let section = elf.section(&mut reader, index).ok()?;
        if section.kind == SHT_DYNSYM {
            symbols = Some(section);
        } else if section.kind == object::elf::SHT_STRTAB
            && elf.name_starts_with(&mut reader, &section, b".dynstr\0").ok()?
        {
            strings = Some(section);
        }
    }
    let mut names = offsets(&file, symbols?, wanted)?;
    crate::order::sort(&mut names);
    names.dedup();
    names_at(&file, strings?, &names)
}

/// Where the names of the `wanted` symbols begin.
fn offsets(file: &RandomFile, section: Section, wanted: &dyn Fn(&Sym64<Le>) -> bool) -> Option<Vec<u32>> {
    let mut found = Vec::new();
    let size = section.size.min(MAX_SYMBOLS * ENTRY as u64);
    let mut buffer = vec![0_u8; PIECE - PIECE % ENTRY];
    let mut at = 0;
    while at + (ENTRY as u64) <= size {
        let left = usize::try_from(size - at).ok()?;
        let length = left.min(buffer.len());
        let piece = buffer.get_mut(..length - length % ENTRY)?;
        file.read_at(section.offset.checked_add(at)?, piece).ok()?;
        for symbol in pod::slice_from_all_bytes::<Sym64<Le>>(piece).ok()? {
            if wanted(symbol) {
                found.push(symbol.st_name.get(Le));
            }
        }
        at += piece.len() as u64;
    }
    Some(found)
}

/// The names at these places of the strings, which are in order: each part of the strings is read once.
fn names_at(file: &RandomFile, strings: Section, offsets: &[u32]) -> Option<Vec<String>> {
    let mut found = Vec::with_capacity(offsets.len());
    let mut buffer: Vec<u8> = Vec::new();
    let mut start = 0_u64;
    for &offset in offsets {
        let offset = u64::from(offset);
        let name = |buffer: &[u8], start: u64| {
            let at = usize::try_from(offset.checked_sub(start)?).ok()?;
            let rest = buffer.get(at..)?;
            let end = rest.iter().position(|&byte| byte == 0)?;
            std::str::from_utf8(rest.get(..end)?).ok().map(str::to_string)
        };
        if let Some(name) = name(&buffer, start) {
            found.push(name);
            continue;
        }
        let left = strings.size.checked_sub(offset)?;
        buffer.resize(usize::try_from(left).ok()?.min(PIECE.max(MAX_NAME)), 0);
        file.read_at(strings.offset.checked_add(offset)?, &mut buffer)
            .ok()?;
        start = offset;
        // A name that is no text, or has no end, is left out.
        found.extend(name(&buffer, start));
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_of_this_machine_defines_what_it_defines() {
        let libc = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/libc.so.6",
            "/usr/lib/libc.so.6",
        ];
        let libc = libc.iter().map(Path::new).find(|path| path.is_file()).unwrap();
        let exports = Exports::read(libc);
        for (name, is) in [
            ("malloc", true),
            ("printf", true),
            ("ncclCommInitAll", false),
            ("", false),
        ] {
            assert_eq!(exports.has(hash(name)), Some(is), "{name}");
        }
        // Of the loader's.
        assert!(
            undefined(libc)
                .unwrap()
                .iter()
                .any(|name| name.starts_with("__tls_get_addr") || name.starts_with("_dl_"))
        );
    }

    #[test]
    fn what_is_no_library_tells_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libx.so");
        for bytes in [&b""[..], b"\x7fELF", b"INPUT(libx.so)"] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(Exports::read(&path).has(hash("malloc")), None);
            assert_eq!(undefined(&path), None);
        }
        assert_eq!(Exports::read(folder.path()).has(hash("malloc")), None);
    }

    #[test]
    fn damaged_tables_end_where_their_bytes_end() {
        for bytes in [
            vec![0; 15],
            vec![0; 16],
            vec![0xff; 64],
            [
                [1_u8, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0xff, 0, 0, 0].as_slice(),
                &[0xff; 12],
            ]
            .concat(),
            [
                [1_u8, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0].as_slice(),
                &[0xff; 8],
                &[1, 0, 0, 0],
            ]
            .concat(),
        ] {
            let found = GnuHash::of(&bytes).is_some_and(|table| table.find(hash("malloc")).is_some());
            assert!(!found, "{bytes:?}");
        }
    }
}
