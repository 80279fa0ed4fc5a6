//! Tiny ELF files and fat binaries, built byte by byte for the tests.

use object::elf::{EM_CUDA, EM_X86_64, SHF_EXECINSTR, SHT_PROGBITS, SHT_STRTAB};

/// A section of a built ELF file: name, SHT_* number, SHF_* flags, bytes.
pub struct Part<'a>(pub &'a str, pub u32, pub u64, pub Vec<u8>);

/// An ELF64 file. Its section header table lies at an odd offset, as nvcc's do.
pub fn elf(machine: u16, parts: &[Part<'_>]) -> Vec<u8> {
    let mut names = b"\0.shstrtab\0".to_vec();
    let mut file = vec![0; 64];
    let mut headers = vec![0; 64]; // section 0
    for Part(name, kind, flags, bytes) in parts {
        while !file.len().is_multiple_of(8) {
            file.push(0);
        }
        headers.extend(section(names.len(), *kind, *flags, file.len(), bytes.len()));
        names.extend(name.as_bytes());
        names.push(0);
        file.extend(bytes);
    }
    headers.extend(section(1, SHT_STRTAB, 0, file.len(), names.len()));
    file.extend(names);
    if file.len().is_multiple_of(2) {
        file.push(0);
    }
    let table = file.len();
    file.extend(headers);
    file[..4].copy_from_slice(b"\x7fELF");
    file[4..7].copy_from_slice(&[2, 1, 1]); // 64 bits, little-endian, version 1
    file[16..18].copy_from_slice(&3u16.to_le_bytes());
    file[18..20].copy_from_slice(&machine.to_le_bytes());
    file[40..48].copy_from_slice(&(table as u64).to_le_bytes());
    file[58..60].copy_from_slice(&64u16.to_le_bytes());
    file[60..62].copy_from_slice(&(parts.len() as u16 + 2).to_le_bytes());
    file[62..64].copy_from_slice(&(parts.len() as u16 + 1).to_le_bytes());
    file
}

fn section(name: usize, kind: u32, flags: u64, offset: usize, size: usize) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend((name as u32).to_le_bytes());
    header.extend(kind.to_le_bytes());
    for number in [flags, 0, offset as u64, size as u64, 0, 1, 0] {
        header.extend(number.to_le_bytes());
    }
    header
}

/// A cubin, with a kernel or without.
pub fn cubin(kernel: bool) -> Vec<u8> {
    cubin_of(kernel, 64)
}

/// A cubin whose code or data has `size` bytes.
pub fn cubin_of(kernel: bool, size: usize) -> Vec<u8> {
    let info = Part(".nv.info", 0x7000_0000, 0, vec![0; 24]);
    let body = if kernel {
        Part(
            ".text.k",
            SHT_PROGBITS,
            u64::from(SHF_EXECINSTR) | 2,
            vec![0x90; size],
        )
    } else {
        Part(".nv.global.init", SHT_PROGBITS, 3, vec![1; size])
    };
    elf(EM_CUDA, &[info, body])
}

/// One entry of a fat binary.
#[derive(Clone, Default)]
pub struct Entry {
    pub kind: u16,
    pub arch: u32,
    /// of PTX, its version: 8 and 4
    pub isa: (u16, u16),
    pub flags: u64,
    pub payload: Vec<u8>,
    pub packed: u32,
    pub plain: u64,
    pub name: &'static str,
    pub options: &'static str,
}

impl Entry {
    pub fn sass(arch: u32, kernel: bool) -> Self {
        Self {
            kind: 2,
            arch,
            flags: 0x11,
            payload: cubin(kernel),
            ..Self::default()
        }
    }

    pub fn packed_sass(arch: u32) -> Self {
        Self {
            flags: 0x8011,
            payload: vec![0xAB; 40],
            packed: 39,
            plain: 1000,
            ..Self::sass(arch, true)
        }
    }

    pub fn ptx(arch: u32, text: &str) -> Self {
        Self {
            kind: 1,
            arch,
            isa: stated(text).unwrap_or_default(),
            flags: 0x11,
            payload: text.as_bytes().to_vec(),
            options: "-v",
            ..Self::default()
        }
    }

    pub fn packed_ptx(arch: u32) -> Self {
        Self {
            kind: 1,
            ..Self::packed_sass(arch)
        }
        .plain(5000)
    }

    pub fn isa(self, major: u16, minor: u16) -> Self {
        Self {
            isa: (major, minor),
            ..self
        }
    }

    pub fn plain(self, plain: u64) -> Self {
        Self { plain, ..self }
    }

    pub fn with(self, flags: u64) -> Self {
        Self {
            flags: self.flags | flags,
            ..self
        }
    }

    /// The header: the second field is its own size, or the offset in a group.
    fn header(&self, second: Option<u32>, payload_size: u64) -> Vec<u8> {
        let mut extra = Vec::new();
        let mut place = |text: &str, lead: usize| {
            let at = 64 + extra.len() as u32;
            extra.extend(vec![0; lead]);
            extra.extend(text.as_bytes());
            extra.push(0);
            extra.resize(extra.len().next_multiple_of(8), 0);
            at
        };
        let name = if self.name.is_empty() {
            0
        } else {
            place(self.name, 0)
        };
        let options = if self.options.is_empty() {
            0
        } else {
            place(self.options, 8)
        };
        if options != 0 {
            let at = options as usize - 64;
            extra[at..at + 4].copy_from_slice(&(options + 8).to_le_bytes());
            extra[at + 4..at + 8].copy_from_slice(&(self.options.len() as u32).to_le_bytes());
        }
        let mut header = Vec::new();
        header.extend(self.kind.to_le_bytes());
        header.extend(0x101u16.to_le_bytes());
        header.extend(second.unwrap_or(64 + extra.len() as u32).to_le_bytes());
        header.extend(payload_size.to_le_bytes());
        header.extend(self.packed.to_le_bytes());
        header.extend(options.to_le_bytes());
        let (major, minor) = match self.kind {
            1 => self.isa,
            _ => (1, 8),
        };
        header.extend(minor.to_le_bytes());
        header.extend(major.to_le_bytes());
        header.extend(self.arch.to_le_bytes());
        header.extend(name.to_le_bytes());
        header.extend((self.name.len() as u32).to_le_bytes());
        header.extend(self.flags.to_le_bytes());
        header.extend([0; 8]);
        header.extend(self.plain.to_le_bytes());
        header.extend(extra);
        header
    }

    pub fn bytes(&self) -> Vec<u8> {
        let payload_size = self.payload.len().next_multiple_of(8);
        let mut bytes = self.header(None, payload_size as u64);
        bytes.extend(&self.payload);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }
}

/// What a text says in `.version`, which fatbinary writes into the header.
fn stated(text: &str) -> Option<(u16, u16)> {
    let (_, rest) = text.split_once(".version ")?;
    let (major, rest) = rest.split_once('.')?;
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// A fat binary of these entries.
pub fn container(entries: &[Entry]) -> Vec<u8> {
    wrap(&entries.iter().flat_map(Entry::bytes).collect::<Vec<_>>())
}

fn wrap(body: &[u8]) -> Vec<u8> {
    let mut bytes = 0xBA55_ED50_u32.to_le_bytes().to_vec();
    bytes.extend([1, 0, 16, 0]);
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(body);
    bytes
}

/// A fat binary of one group (`nvcc --concat`), of which every entry has `size` bytes once decompressed.
pub fn group(entries: &[Entry], size: u64) -> Vec<u8> {
    let mut list = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        list.extend(entry.header(Some(index as u32 * size as u32), size));
    }
    let group = Entry {
        kind: 256,
        flags: 0x8011,
        payload: vec![0xAB; 32],
        packed: 30,
        plain: entries.len() as u64 * size,
        ..Entry::default()
    };
    let mut header = group.header(Some(72 + list.len() as u32), 32);
    header[20] = 0x40; // nvcc points to the list as if it were options
    header.extend((entries.len() as u32).to_le_bytes());
    header.extend((8 + list.len() as u32).to_le_bytes());
    header.extend(list);
    header.extend(group.payload);
    wrap(&header)
}

/// A shared library with these fat binaries in `.nv_fatbin`.
pub fn library(fatbins: &[Vec<u8>]) -> Vec<u8> {
    elf(EM_X86_64, &[code(".nv_fatbin", fatbins)])
}

/// A section of CUDA code.
pub fn code<'a>(name: &'a str, fatbins: &[Vec<u8>]) -> Part<'a> {
    Part(name, SHT_PROGBITS, 2, fatbins.concat())
}
