//! Facts of ELF64 little-endian files, read by their headers: sections by name, and what the loader goes by.
//!
//! Source of the format: elf(5) and the System V gABI, chapters 4 and 5. A cubin is such a file too, of machine
//! EM_CUDA, inside another one: so every offset here counts from a base.

use std::fmt;
use std::path::Path;

use object::LittleEndian as Le;
use object::elf;

use crate::processor::OWN;

use super::bytes::{BytesError, MAX_BYTES, RandomFile, Reader, Source};

/// Most section headers of one file. A cubin has four or five a kernel, a shared library about forty.
const MAX_SECTIONS: u64 = 1 << 20;
/// Most program headers: what fits e_phnum without its escape value PN_XNUM.
const MAX_SEGMENTS: u64 = 0xfffe;
/// Most entries of a dynamic section.
const MAX_DYNAMIC: u64 = 1 << 16;
/// Most names that are taken from one. libtorch_cuda.so has 15 DT_NEEDED.
const MAX_NAMES: usize = 1024;

const OUTSIDE_SECTIONS: &str = "a section header table that does not lie in the file";
const OUTSIDE_SECTION: &str = "a section that does not lie in the file";
const OUTSIDE_SEGMENTS: &str = "a program header table that does not lie in the file";
const OUTSIDE_SEGMENT: &str = "a segment that does not lie in the file";

/// Why a file could not be read as ELF.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// something else: a linker script, a text, an archive
    #[error("it is not an ELF file")]
    NotElf,
    /// an ELF file for other machines
    #[error("it is an ELF file for something else: {0}; ELF64 little-endian for {1} is read here")]
    Foreign(ForeignElf, &'static str),
    /// without section headers nobody can tell whether there is CUDA code
    #[error("its section headers were stripped, so whether it contains CUDA code is unknown")]
    NoSectionTable,
    /// a header that contradicts the file
    #[error("damaged ELF file: {what} at offset {offset:#x}")]
    Malformed {
        /// what is wrong
        what: &'static str,
        /// where it is said, from the start of the file, in bytes
        offset: u64,
    },
    /// the file ends too early, or cannot be read
    #[error("damaged or unreadable ELF file: {0}")]
    Bytes(#[from] BytesError),
}

/// In what way an ELF file is another machine's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForeignElf {
    /// e_ident\[EI_CLASS\]
    Class(u8),
    /// e_ident\[EI_DATA\]
    ByteOrder(u8),
    /// e_machine
    Machine(u16),
}

impl fmt::Display for ForeignElf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class(class) => write!(f, "class {class}"),
            Self::ByteOrder(order) => write!(f, "byte order {order}"),
            Self::Machine(machine) => match machine_name(*machine) {
                Some(name) => write!(f, "machine {machine} ({name})"),
                None => write!(f, "machine {machine}"),
            },
        }
    }
}

/// The machines that wheels and CUDA come for, or that a copied folder may hold.
fn machine_name(machine: u16) -> Option<&'static str> {
    Some(match machine {
        elf::EM_386 => "x86",
        elf::EM_PPC64 => "PowerPC64",
        elf::EM_S390 => "s390x",
        elf::EM_ARM => "Arm",
        elf::EM_X86_64 => "x86-64",
        elf::EM_AARCH64 => "AArch64",
        elf::EM_RISCV => "RISC-V",
        _ => return None,
    })
}

fn malformed(what: &'static str, offset: u64) -> ElfError {
    ElfError::Malformed { what, offset }
}

/// An ELF file, or one that lies inside another file.
#[derive(Clone, Copy, Debug)]
pub struct Elf {
    base: u64,
    len: u64,
    sections_at: u64,
    sections: u64,
    names_at: u64,
    names_end: u64,
    segments_at: u64,
    segments: u64,
    /// ET_EXEC: at fixed addresses, as no shared library is
    executable: bool,
}

/// One section header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Section {
    name: u32,
    /// sh_type, an SHT_* number
    pub kind: u32,
    /// sh_flags, SHF_* bits
    pub flags: u64,
    /// where its bytes start, from the start of the whole file
    pub offset: u64,
    /// length in bytes; all of them lie in the file, unless `kind` is SHT_NOBITS
    pub size: u64,
}

impl Elf {
    /// Reads the header of the ELF file in the `len` bytes from `base`; `machine` is an EM_* number.
    ///
    /// # Errors
    /// See [`ElfError`]; a file without section headers is none yet.
    pub fn open(
        reader: &mut Reader<'_>,
        base: u64,
        len: u64,
        machine: u16,
        machine_name: &'static str,
    ) -> Result<Self, ElfError> {
        let magic = reader.up_to(base, base.saturating_add(len.min(4)))?;
        if magic.is_empty() || !elf::ELFMAG.starts_with(magic) {
            return Err(ElfError::NotElf);
        }
        if len < size_of::<elf::FileHeader64<Le>>() as u64 {
            return Err(malformed("an ELF header that does not lie in the file", base));
        }
        let header: elf::FileHeader64<Le> = reader.pod(base)?;
        let foreign = |how| Err(ElfError::Foreign(how, machine_name));
        if header.e_ident.class != elf::ELFCLASS64 {
            return foreign(ForeignElf::Class(header.e_ident.class));
        }
        if header.e_ident.data != elf::ELFDATA2LSB {
            return foreign(ForeignElf::ByteOrder(header.e_ident.data));
        }
        if header.e_machine.get(Le) != machine {
            return foreign(ForeignElf::Machine(header.e_machine.get(Le)));
        }
        let mut found = Self {
            base,
            len,
            sections_at: header.e_shoff.get(Le),
            sections: header.e_shnum.get(Le).into(),
            names_at: 0,
            names_end: 0,
            segments_at: header.e_phoff.get(Le),
            segments: header.e_phnum.get(Le).into(),
            executable: header.e_type.get(Le) == elf::ET_EXEC,
        };
        found.section_table(reader, &header)?;
        found.segment_table(&header)?;
        Ok(found)
    }

    fn section_table(
        &mut self,
        reader: &mut Reader<'_>,
        header: &elf::FileHeader64<Le>,
    ) -> Result<(), ElfError> {
        const ENTRY: u64 = size_of::<elf::SectionHeader64<Le>>() as u64;
        if self.sections_at == 0 {
            self.sections = 0;
            return Ok(());
        }
        let table = self.base.saturating_add(self.sections_at);
        let mut names_index: u64 = header.e_shstrndx.get(Le).into();
        // Numbers that do not fit the header are in section 0 (gABI, "Extended Section Header Numbering"). It is read
        // in any case: the reader then holds the table from its start.
        self.inside(self.sections_at, ENTRY, OUTSIDE_SECTIONS)?;
        let zero: elf::SectionHeader64<Le> = reader.pod(table)?;
        if self.sections == 0 {
            self.sections = zero.sh_size.get(Le);
        }
        if names_index == u64::from(elf::SHN_XINDEX) {
            names_index = zero.sh_link.get(Le).into();
        }
        if self.sections == 0 {
            return Ok(());
        }
        if u64::from(header.e_shentsize.get(Le)) != ENTRY {
            return Err(malformed(
                "section headers of another size than 64 bytes",
                self.base,
            ));
        }
        if self.sections > MAX_SECTIONS {
            return Err(malformed("more than 1,048,576 section headers", table));
        }
        self.inside(
            self.sections_at,
            self.sections.saturating_mul(ENTRY),
            OUTSIDE_SECTIONS,
        )?;
        if names_index >= self.sections {
            return Err(malformed(
                "section names in a section that does not exist",
                self.base,
            ));
        }
        let names = self.section(reader, names_index)?;
        if names.kind == elf::SHT_NOBITS {
            return Err(malformed("section names without bytes", table));
        }
        self.names_at = names.offset;
        self.names_end = names.offset.saturating_add(names.size);
        Ok(())
    }

    fn segment_table(&mut self, header: &elf::FileHeader64<Le>) -> Result<(), ElfError> {
        const ENTRY: u64 = size_of::<elf::ProgramHeader64<Le>>() as u64;
        if self.segments_at == 0 || self.segments == 0 {
            self.segments = 0;
            return Ok(());
        }
        if u64::from(header.e_phentsize.get(Le)) != ENTRY {
            return Err(malformed(
                "program headers of another size than 56 bytes",
                self.base,
            ));
        }
        if self.segments > MAX_SEGMENTS {
            return Err(malformed("more than 65,534 program headers", self.base));
        }
        self.inside(
            self.segments_at,
            self.segments.saturating_mul(ENTRY),
            OUTSIDE_SEGMENTS,
        )
    }

    /// Whether `size` bytes at `offset` of this ELF file lie in it.
    fn inside(&self, offset: u64, size: u64, what: &'static str) -> Result<(), ElfError> {
        match offset.checked_add(size) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(malformed(what, self.base.saturating_add(offset))),
        }
    }

    /// How many section headers there are; 0 where they were stripped.
    pub fn section_count(&self) -> u64 {
        self.sections
    }

    /// The section header at `index`, below [`Self::section_count`].
    ///
    /// # Errors
    /// See [`ElfError`].
    pub fn section(&self, reader: &mut Reader<'_>, index: u64) -> Result<Section, ElfError> {
        let entry = size_of::<elf::SectionHeader64<Le>>() as u64;
        let at = index
            .checked_mul(entry)
            .and_then(|o| self.base.checked_add(self.sections_at)?.checked_add(o))
            .filter(|_| index < self.sections)
            .ok_or_else(|| malformed("a section that does not exist", self.base))?;
        let header: elf::SectionHeader64<Le> = reader.pod(at)?;
        let section = Section {
            name: header.sh_name.get(Le),
            kind: header.sh_type.get(Le),
            flags: header.sh_flags.get(Le),
            offset: self.base.saturating_add(header.sh_offset.get(Le)),
            size: header.sh_size.get(Le),
        };
        if section.kind != elf::SHT_NOBITS && section.kind != elf::SHT_NULL {
            self.inside(header.sh_offset.get(Le), section.size, OUTSIDE_SECTION)?;
        }
        Ok(section)
    }

    /// Whether a section's name starts with `prefix`; a NUL in `prefix` stands for the name's end.
    ///
    /// # Errors
    /// See [`ElfError`].
    pub fn name_starts_with(
        &self,
        reader: &mut Reader<'_>,
        section: &Section,
        prefix: &[u8],
    ) -> Result<bool, ElfError> {
        let at = self.names_at.saturating_add(section.name.into());
        if at >= self.names_end {
            return Err(malformed("a section's name outside of the section names", at));
        }
        let end = at.saturating_add(prefix.len() as u64).min(self.names_end);
        Ok(reader.up_to(at, end)? == prefix)
    }

    fn segment(&self, reader: &mut Reader<'_>, index: u64) -> Result<elf::ProgramHeader64<Le>, ElfError> {
        let entry = size_of::<elf::ProgramHeader64<Le>>() as u64;
        let at = self.base.saturating_add(self.segments_at);
        Ok(reader.pod(at.saturating_add(index.saturating_mul(entry)))?)
    }

    /// What the loader goes by: interpreter and dynamic section. A static file has none of them.
    ///
    /// # Errors
    /// See [`ElfError`].
    pub fn dynamic(&self, reader: &mut Reader<'_>) -> Result<Dynamic, ElfError> {
        let mut found = Dynamic::default();
        let mut table = None;
        let mut loads = Vec::new();
        for index in 0..self.segments {
            let segment = self.segment(reader, index)?;
            let (offset, size) = (segment.p_offset.get(Le), segment.p_filesz.get(Le));
            match segment.p_type.get(Le) {
                elf::PT_INTERP => {
                    self.inside(offset, size, OUTSIDE_SEGMENT)?;
                    found.interpreter = Some(self.string(reader, offset, offset.saturating_add(size))?);
                }
                elf::PT_DYNAMIC => {
                    self.inside(offset, size, OUTSIDE_SEGMENT)?;
                    table = Some((offset, size));
                }
                elf::PT_LOAD => loads.push((segment.p_vaddr.get(Le), offset, size)),
                _ => {}
            }
        }
        if let Some((offset, size)) = table {
            self.dynamic_table(reader, offset, size, &loads, &mut found)?;
        }
        Ok(found)
    }

    fn dynamic_table(
        &self,
        reader: &mut Reader<'_>,
        offset: u64,
        size: u64,
        loads: &[(u64, u64, u64)],
        found: &mut Dynamic,
    ) -> Result<(), ElfError> {
        const ENTRY: u64 = size_of::<elf::Dyn64<Le>>() as u64;
        let mut names = Vec::new();
        let (mut strings_at, mut strings_size) = (None, u64::MAX);
        for index in 0..(size / ENTRY).min(MAX_DYNAMIC) {
            let at = self
                .base
                .saturating_add(offset)
                .saturating_add(index.saturating_mul(ENTRY));
            let entry: elf::Dyn64<Le> = reader.pod(at)?;
            let value = entry.d_val.get(Le);
            match entry.d_tag.get(Le) {
                elf::DT_NULL => break,
                elf::DT_STRTAB => strings_at = Some(value),
                elf::DT_STRSZ => strings_size = value,
                elf::DT_FLAGS_1 => found.flags_1 = value,
                tag @ (elf::DT_NEEDED | elf::DT_SONAME | elf::DT_RPATH | elf::DT_RUNPATH) => {
                    if names.len() == MAX_NAMES {
                        return Err(malformed("more than 1,024 names in the dynamic section", at));
                    }
                    names.push((tag, value));
                }
                _ => {}
            }
        }
        if names.is_empty() {
            return Ok(());
        }
        let at = self.base.saturating_add(offset);
        let address = strings_at.ok_or_else(|| malformed("a dynamic section without strings", at))?;
        // DT_STRTAB is an address: the segment that holds it says where it is in the file.
        let (strings, left) = loads
            .iter()
            .find_map(|&(vaddr, file_offset, size)| {
                let into = address.checked_sub(vaddr).filter(|&into| into < size)?;
                Some((file_offset.checked_add(into)?, size - into))
            })
            .ok_or_else(|| malformed("dynamic strings at an address that no segment holds", at))?;
        let end = strings.saturating_add(strings_size.min(left));
        for (tag, name) in names {
            let text = self.string(reader, strings.saturating_add(name), end)?;
            match tag {
                elf::DT_NEEDED => found.needed.push(text),
                elf::DT_SONAME => found.soname = Some(text),
                elf::DT_RPATH => found.rpath = Some(text),
                _ => found.runpath = Some(text),
            }
        }
        Ok(())
    }

    /// The string at `offset` of this ELF file, up to its NUL; it must end before `end`.
    fn string(&self, reader: &mut Reader<'_>, offset: u64, end: u64) -> Result<String, ElfError> {
        let at = self.base.saturating_add(offset);
        let end = end.min(self.len);
        if offset >= end {
            return Err(malformed("a string that does not lie in the file", at));
        }
        let bytes = reader.up_to(at, self.base.saturating_add(end))?;
        let text = bytes.split(|&b| b == 0).next().unwrap_or_default();
        // PATH_MAX and the window are both 4096 bytes: nothing that the loader could open is longer.
        if text.len() == bytes.len() && bytes.len() == MAX_BYTES {
            return Err(malformed("a string of more than 4,095 bytes", at));
        }
        Ok(String::from_utf8_lossy(text).into_owned())
    }
}

/// What the loader goes by. Text is as the file has it, U+FFFD where it is not UTF-8; it may hold control characters.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Dynamic {
    /// PT_INTERP
    pub interpreter: Option<String>,
    /// DT_NEEDED, in their order
    pub needed: Vec<String>,
    /// DT_SONAME
    pub soname: Option<String>,
    /// DT_RPATH, colons and `$ORIGIN` unexpanded
    pub rpath: Option<String>,
    /// DT_RUNPATH, colons and `$ORIGIN` unexpanded
    pub runpath: Option<String>,
    /// DT_FLAGS_1
    pub flags_1: u64,
}

/// Opens `source` as an ELF file of this machine.
///
/// # Errors
/// See [`ElfError`].
pub fn open_own(reader: &mut Reader<'_>) -> Result<Elf, ElfError> {
    let size = reader.size();
    Elf::open(reader, 0, size, OWN.elf, OWN.name)
}

/// What an ELF file of this machine is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// a program that the loader starts
    Program,
    /// a program that starts by itself, and needs no library
    Static,
    /// a shared library
    Library,
}

/// Which kind a file is; `None` for one that is no ELF file of this machine.
pub fn kind(path: &Path) -> Option<Kind> {
    /// `DF_1_PIE` of `DT_FLAGS_1`: what is linked with -static-pie has it, and no interpreter.
    const PIE: u64 = 0x0800_0000;
    let file = RandomFile::open(path).ok()?;
    let mut reader = Reader::new(&file);
    let elf = open_own(&mut reader).ok()?;
    // What the loader refuses is told by it.
    let Ok(dynamic) = elf.dynamic(&mut reader) else {
        return Some(Kind::Library);
    };
    let is_program = elf.executable || dynamic.flags_1 & PIE != 0;
    Some(match (dynamic.interpreter, is_program) {
        (Some(_), _) => Kind::Program,
        (None, true) => Kind::Static,
        (None, false) => Kind::Library,
    })
}

/// [`Elf::dynamic`] of a whole file.
///
/// # Errors
/// See [`ElfError`].
pub fn dynamic(source: &dyn Source) -> Result<Dynamic, ElfError> {
    let mut reader = Reader::new(source);
    open_own(&mut reader)?.dynamic(&mut reader)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERPRETER: &str = "/lib64/ld-linux-x86-64.so.2\0";
    const STRINGS: &str = "\0libcudart.so.12\0libc.so.6\0libme.so\0$ORIGIN/../lib\0/opt/lib\0";
    /// where the strings are mapped: not where they lie
    const ADDRESS: u64 = 0x40_0000;

    /// An ELF file with program headers: PT_INTERP, PT_LOAD of the strings, PT_DYNAMIC.
    fn file(entries: &[(i64, u64)]) -> Vec<u8> {
        let interpreter_at = 64 + 3 * 56;
        let strings_at = interpreter_at + INTERPRETER.len();
        let dynamic_at = strings_at + STRINGS.len();
        let mut bytes = vec![0; 64];
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        bytes[18] = 62;
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 3;
        for (kind, at, address, size) in [
            (3u32, interpreter_at, 0, INTERPRETER.len()),
            (1, strings_at, ADDRESS, STRINGS.len()),
            (2, dynamic_at, 0, entries.len() * 16),
        ] {
            bytes.extend(kind.to_le_bytes());
            bytes.extend([0; 4]);
            for number in [at as u64, address, 0, size as u64, size as u64, 1] {
                bytes.extend(number.to_le_bytes());
            }
        }
        bytes.extend(INTERPRETER.as_bytes());
        bytes.extend(STRINGS.as_bytes());
        for (tag, value) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        bytes
    }

    fn all() -> Vec<(i64, u64)> {
        vec![
            (1, 1),
            (1, 17),
            (14, 27),
            (15, 36),
            (29, 51),
            (5, ADDRESS),
            (10, STRINGS.len() as u64),
            (0, 0),
        ]
    }

    fn error_of(bytes: &[u8]) -> String {
        dynamic(&bytes).unwrap_err().to_string()
    }

    #[test]
    fn what_the_loader_goes_by() {
        let found = dynamic(&file(&all()).as_slice()).unwrap();
        let expected = Dynamic {
            flags_1: 0,
            interpreter: Some("/lib64/ld-linux-x86-64.so.2".into()),
            needed: vec!["libcudart.so.12".into(), "libc.so.6".into()],
            soname: Some("libme.so".into()),
            rpath: Some("$ORIGIN/../lib".into()),
            runpath: Some("/opt/lib".into()),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn nothing_is_read_behind_the_end_mark() {
        let mut entries = all();
        entries.push((1, u64::MAX));
        assert_eq!(dynamic(&file(&entries).as_slice()).unwrap().needed.len(), 2);
    }

    #[test]
    fn a_static_file_has_none() {
        let mut bytes = file(&all());
        bytes[56] = 0;
        assert_eq!(dynamic(&bytes.as_slice()).unwrap(), Dynamic::default());
    }

    #[test]
    fn dynamic_sections_that_lie_are_errors() {
        let size = STRINGS.len() as u64;
        for (entries, wrong) in [
            (vec![(1, 1)], "without strings"),
            (vec![(1, 1), (5, ADDRESS - 1)], "an address that no segment holds"),
            (
                vec![(1, 1), (5, ADDRESS + size)],
                "an address that no segment holds",
            ),
            (
                vec![(1, size), (5, ADDRESS)],
                "a string that does not lie in the file",
            ),
            (
                vec![(1, u64::MAX), (5, ADDRESS)],
                "a string that does not lie in the file",
            ),
            (
                vec![(1, 3), (5, ADDRESS), (10, 3)],
                "a string that does not lie in the file",
            ),
            (vec![(1, 1); 1025], "more than 1,024 names"),
        ] {
            let error = error_of(&file(&entries));
            assert!(error.contains(wrong), "{error}");
        }
        let mut long = file(&all());
        long[64 + 2 * 56 + 32..][..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(error_of(&long).contains("a segment that does not lie in the file"));
        let mut many = file(&all());
        many[56..58].copy_from_slice(&0xffffu16.to_le_bytes());
        assert!(error_of(&many).contains("more than 65,534 program headers"));
    }

    #[test]
    fn a_string_without_end_is_refused() {
        let mut bytes = file(&[(1, 0), (5, ADDRESS)]);
        let at = 64 + 56;
        let strings = bytes.len() as u64;
        bytes.resize(bytes.len() + 5000, b'x');
        bytes[at + 8..at + 16].copy_from_slice(&strings.to_le_bytes());
        bytes[at + 32..at + 40].copy_from_slice(&5000u64.to_le_bytes());
        assert!(error_of(&bytes).contains("a string of more than 4,095 bytes"));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = file(&all());
        for cut in 0..bytes.len() {
            assert!(dynamic(&&bytes[..cut]).is_err(), "cut to {cut}");
        }
    }
}
