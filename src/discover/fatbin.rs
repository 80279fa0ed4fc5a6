//! NVIDIA's fat binaries: which code, for which architectures, lies in a section of CUDA code.
//!
//! NVIDIA documents no format; what is here was read off the output of nvcc 12.4 and 13 with cuobjdump beside it.
//! All numbers are little-endian. Containers follow one another, each at a multiple of 8:
//!
//! | container at | size | what |
//! | --- | --- | --- |
//! | 0 | 4 | magic `0xBA55ED50` |
//! | 4 | 2 | version, 1 |
//! | 6 | 2 | header size, 16 |
//! | 8 | 8 | size of the entries behind the header |
//!
//! | entry at | size | what |
//! | --- | --- | --- |
//! | 0 | 2 | kind: 1 PTX, 2 cubin, 8 LTO intermediate code, 256 a group (`nvcc --concat`) |
//! | 4 | 4 | header size, 64 and more: names and options follow |
//! | 8 | 8 | payload size, padded to 8; the payload follows the header |
//! | 16 | 4 | size of a compressed payload without its padding |
//! | 20 | 4 | offset of the options in this header, or 0 |
//! | 24, 26 | 2, 2 | PTX: minor and major version of its ISA, as its text says in `.version`; cubin: others |
//! | 28 | 4 | architecture, such as 90 for 9.0 |
//! | 32, 36 | 4, 4 | offset and length of the source file's name in this header, or 0 |
//! | 40 | 8 | flags, see [`flags`] |
//! | 56 | 8 | size of the payload once decompressed, or 0 |
//!
//! A group compresses several entries together and lists them in its own header: at 64 their number and the size of
//! the list (4 bytes each), then one entry header each, with the offset in the decompressed payload at 4 in place of
//! the header size.
//!
//! The version of a PTX text was compared with the text's own words in the output of nvcc 11.8 to 13.5, of clang and of
//! `fatbinary` on texts written by hand, plain and compressed in each mode: fatbinary reads it from the text. So no text
//! is ever unpacked for it.

use std::collections::{BTreeMap, BTreeSet};

use object::elf;

use super::bytes::{BytesError, MAX_BYTES, Reader};
use super::elf::{Elf, ElfError};
use crate::facts::ComputeCapability;

use crate::facts::PtxVersion;
use crate::facts::kernels::PtxIsa;
pub use crate::facts::kernels::{Code, CodeKind, Served, Target, Variant};
use crate::unpack;

/// Flags of an entry, as far as they are known.
pub mod flags {
    /// the payload is an LZ4 block (CUDA 12 and earlier)
    pub const LZ4: u64 = 0x2000;
    /// the payload is a Zstandard frame (CUDA 13; `--compress-mode` of CUDA 12.8)
    pub const ZSTD: u64 = 0x8000;
    pub use crate::facts::kernels::{ARCH_SPECIFIC, FAMILY_SPECIFIC};
}

const MAGIC: [u8; 4] = 0xBA55_ED50_u32.to_le_bytes();
const CONTAINER_HEADER: u64 = 16;
const ENTRY_HEADER: u64 = 64;
const KIND_PTX: u16 = 1;
const KIND_CUBIN: u16 = 2;
const KIND_GROUP: u16 = 256;

/// Most containers of one section. libtorch_cuda.so has 340, spconv 606.
const MAX_CONTAINERS: u64 = 100_000;
/// Most entries of one section, those of groups included.
const MAX_ENTRIES: u64 = 250_000;
/// Most bytes of zero between two containers: linkers align the objects' sections.
const MAX_PADDING: u64 = 4096;
/// Compressed PTX of up to this many bytes is looked into. A text without any code has 56 to 70 bytes.
const SMALL_PTX: u64 = 2048;
/// Compressed cubins of up to this many bytes are looked into. One without kernels has 600 to 2,300 bytes.
const SMALL_CUBIN: u64 = 4096;
/// Groups of up to this many bytes are: a cubin without kernels for each of eight architectures.
const SMALL_GROUP: u64 = 8 * SMALL_CUBIN;

/// Why a section could not be read as fat binaries.
#[derive(Debug, thiserror::Error)]
pub enum FatbinError {
    /// the structure contradicts itself
    #[error("damaged CUDA code: {what} at offset {offset:#x}")]
    Malformed {
        /// what is wrong
        what: &'static str,
        /// from the start of the file, in bytes
        offset: u64,
    },
    /// newer than this program
    #[error("CUDA code in version {version} of its format at offset {offset:#x}; version 1 is known")]
    Version {
        /// as the container says
        version: u16,
        /// from the start of the file, in bytes
        offset: u64,
    },
    /// a cubin that is not in order
    #[error("damaged CUDA code: the cubin at offset {offset:#x}: {source}")]
    Cubin {
        /// from the start of the file, in bytes
        offset: u64,
        /// what is wrong with it
        source: ElfError,
    },
    /// the file ends too early, or cannot be read
    #[error("damaged or unreadable CUDA code: {0}")]
    Bytes(#[from] BytesError),
}

fn malformed(what: &'static str, offset: u64) -> FatbinError {
    FatbinError::Malformed { what, offset }
}

/// What the fat binaries of one section carry, counted per fat binary.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fatbins {
    /// how many there are
    pub count: u64,
    /// how many hold kernels, those of `unread` included
    pub with_kernels: u64,
    /// how many are counted as holding kernels because all that could hold them is compressed and long: not looked into
    pub unread: u64,
    /// all PTX texts and cubins, those without kernels included: what `cuobjdump --list-elf --list-ptx` counts
    pub entries: BTreeMap<Code, u64>,
    /// entries that are neither PTX nor a cubin, such as LTO intermediate code (8), by their kind
    pub other_kinds: BTreeMap<u16, u64>,
    /// distinct sets of code of the fat binaries that hold kernels, and how many have each
    sets: BTreeMap<BTreeSet<Held>, u64>,
}

/// Code of one fat binary, with what a driver must know to compile it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Held {
    code: Code,
    /// of PTX, where its header tells
    isa: Option<PtxVersion>,
}

impl Fatbins {
    /// Fat binaries with kernels that have SASS for each architecture.
    pub fn sass(&self) -> BTreeMap<Target, u64> {
        self.targets(CodeKind::Sass)
    }

    /// Fat binaries with kernels that have PTX for each architecture.
    pub fn ptx(&self) -> BTreeMap<Target, u64> {
        self.targets(CodeKind::Ptx)
    }

    fn targets(&self, kind: CodeKind) -> BTreeMap<Target, u64> {
        let mut found = BTreeMap::new();
        for (set, count) in &self.sets {
            let mut last = None;
            for held in set.iter().filter(|held| held.code.kind == kind) {
                // In order, so that texts of two versions for one architecture are neighbours.
                if last.replace(held.code.target) != Some(held.code.target) {
                    *found.entry(held.code.target).or_default() += count;
                }
            }
        }
        found
    }

    /// Fat binaries with kernels in PTX for each architecture, by the version of its ISA.
    pub fn ptx_isa(&self) -> Vec<PtxIsa> {
        let mut found: Vec<PtxIsa> = Vec::new();
        for (set, &fatbins) in &self.sets {
            for (arch, version) in set.iter().filter_map(|held| Some((held.code.target, held.isa?))) {
                let place = found.binary_search_by(|isa| (isa.arch, isa.version).cmp(&(arch, version)));
                match place.map(|at| found.get_mut(at)) {
                    Ok(Some(isa)) => isa.fatbins += fatbins,
                    Ok(None) => {}
                    Err(at) => found.insert(
                        at,
                        PtxIsa {
                            arch,
                            version,
                            fatbins,
                        },
                    ),
                }
            }
        }
        found
    }

    /// The version that a driver must compile to make use of every fat binary that only has PTX for this device.
    pub fn needed_isa(&self, device: ComputeCapability) -> Option<PtxVersion> {
        let runs = |held: &&Held| held.code.runs_on(device);
        self.sets
            .keys()
            .filter(|set| {
                set.iter()
                    .filter(runs)
                    .all(|held| held.code.kind == CodeKind::Ptx)
            })
            .filter_map(|set| set.iter().filter(runs).map(|held| held.isa).min().flatten())
            .max()
    }

    /// How many of those with kernels a device of this capability can use. The rest cannot be used by it.
    pub fn served(&self, device: ComputeCapability) -> Served {
        let mut served = Served::default();
        for (set, count) in &self.sets {
            let by = |kind| {
                set.iter()
                    .any(|held| held.code.kind == kind && held.code.runs_on(device))
            };
            if by(CodeKind::Sass) {
                served.sass += count;
            } else if by(CodeKind::Ptx) {
                served.ptx += count;
            }
        }
        served
    }

    /// Adds another section's, or another file's.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.with_kernels += other.with_kernels;
        self.unread += other.unread;
        for (code, count) in &other.entries {
            *self.entries.entry(*code).or_default() += count;
        }
        for (kind, count) in &other.other_kinds {
            *self.other_kinds.entry(*kind).or_default() += count;
        }
        for (set, count) in &other.sets {
            *self.sets.entry(set.clone()).or_default() += count;
        }
    }
}

/// A fat binary with kernels, and where it lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// of its container, in the file
    pub offset: u64,
    /// with the container's header, in bytes
    pub size: u64,
    /// some of its SASS is compressed
    pub packed: bool,
    set: BTreeSet<Held>,
}

impl Place {
    /// What a device of this capability has of it, with a driver that compiles PTX up to `newest`; `None` where it has
    /// nothing.
    pub fn usable(&self, device: ComputeCapability, newest: Option<PtxVersion>) -> Option<CodeKind> {
        let runs = |held: &&Held| held.code.runs_on(device);
        let compiles = |held: &Held| match (held.isa, newest) {
            (Some(isa), Some(newest)) => isa <= newest,
            _ => true,
        };
        let found = self.set.iter().filter(runs);
        let kinds = found.filter(|held| held.code.kind == CodeKind::Sass || compiles(held));
        // SASS comes first: the driver prefers it.
        kinds.map(|held| held.code.kind).min()
    }
}

/// What a section is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Linkage {
    /// `.nv_fatbin`: the runtime loads each fat binary by itself
    Loadable,
    /// `__nv_relfatbin`: parts that the device linker, or the driver at load time, links together. Whether one part
    /// holds a kernel says nothing, so none is looked into and all count.
    Relocatable,
}

/// Counts the fat binaries in the `size` bytes at `offset`.
///
/// # Errors
/// See [`FatbinError`].
pub fn scan(
    reader: &mut Reader<'_>,
    offset: u64,
    size: u64,
    linkage: Linkage,
) -> Result<Fatbins, FatbinError> {
    scan_with(reader, offset, size, linkage, None)
}

/// The same, with the place of each fat binary that holds kernels.
///
/// # Errors
/// As [`scan`].
pub fn places(reader: &mut Reader<'_>, offset: u64, size: u64) -> Result<Vec<Place>, FatbinError> {
    let mut found = Vec::new();
    scan_with(reader, offset, size, Linkage::Loadable, Some(&mut found))?;
    Ok(found)
}

fn scan_with(
    reader: &mut Reader<'_>,
    offset: u64,
    size: u64,
    linkage: Linkage,
    places: Option<&mut Vec<Place>>,
) -> Result<Fatbins, FatbinError> {
    let end = offset
        .checked_add(size)
        .ok_or_else(|| malformed("a section without end", offset))?;
    let mut scan = Scan {
        reader,
        linkage,
        entries: 0,
        found: Fatbins::default(),
        places,
    };
    let mut at = offset;
    let mut padding = 0;
    // Every turn advances by 8 bytes at least.
    while end.saturating_sub(at) >= CONTAINER_HEADER {
        let word: [u8; 8] = scan.reader.pod::<[u8; 8]>(at)?;
        if word == [0; 8] {
            padding += 8;
            if padding > MAX_PADDING {
                return Err(malformed(
                    "more than 4,096 bytes of zero between two fat binaries",
                    at,
                ));
            }
            at += 8;
            continue;
        }
        padding = 0;
        let next = scan.container(at, end)?;
        let unaligned = (next - offset) % 8;
        at = if unaligned == 0 {
            next
        } else {
            next.saturating_add(8 - unaligned)
        };
    }
    scan.reader.expect_header_alone(false);
    // What is shorter than a header can only be padding.
    let rest = end.saturating_sub(at);
    if rest > 0 && scan.reader.up_to(at, end)?.iter().any(|&b| b != 0) {
        return Err(malformed("bytes behind the last fat binary", at));
    }
    Ok(scan.found)
}

/// Whether code holds kernels, as far as it says so without being decompressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kernels {
    Yes,
    No,
    Unread,
}

/// The part of an entry's header that counts, in a container or in a group's list.
struct Entry {
    kind: u16,
    header_size: u64,
    payload_size: u64,
    packed_size: u64,
    plain_size: u64,
    isa: PtxVersion,
    arch: u32,
    flags: u64,
    options: u64,
    name: u64,
    name_length: u64,
}

impl Entry {
    fn read(reader: &mut Reader<'_>, at: u64) -> Result<Self, FatbinError> {
        let raw: [u8; ENTRY_HEADER as usize] = reader.pod::<[u8; ENTRY_HEADER as usize]>(at)?;
        Ok(Self {
            kind: u16_at(&raw, 0),
            header_size: u32_at(&raw, 4).into(),
            payload_size: u64_at(&raw, 8),
            packed_size: u32_at(&raw, 16).into(),
            plain_size: u64_at(&raw, 56),
            isa: PtxVersion {
                major: u16_at(&raw, 26),
                minor: u16_at(&raw, 24),
            },
            arch: u32_at(&raw, 28),
            flags: u64_at(&raw, 40),
            options: u32_at(&raw, 20).into(),
            name: u32_at(&raw, 32).into(),
            name_length: u32_at(&raw, 36).into(),
        })
    }

    /// Length of the header at `at` with the name and the options that it announces, each ended by a NUL and padded
    /// to 8. A group's list does not state it.
    fn extent(&self, reader: &mut Reader<'_>, at: u64) -> Result<u64, FatbinError> {
        let mut extent = ENTRY_HEADER;
        if self.name != 0 {
            extent = extent.max(self.name + round_up_8(self.name_length + 1));
        }
        if self.options != 0 {
            let length = reader.pod::<[u8; 4]>(at.saturating_add(self.options + 4))?;
            let length = u64::from(u32::from_le_bytes(length));
            extent = extent.max(self.options + 8 + round_up_8(length + 1));
        }
        Ok(extent)
    }

    fn compressed(&self) -> bool {
        self.flags & (flags::LZ4 | flags::ZSTD) != 0 || self.packed_size != 0 || self.plain_size != 0
    }

    /// Whether its payload is long enough to be left as it is, compressed.
    fn stays_packed(&self) -> bool {
        let (most_plain, most_packed) = match self.kind {
            KIND_PTX => (SMALL_PTX, MAX_BYTES as u64),
            KIND_GROUP => (SMALL_GROUP, MAX_BYTES as u64),
            _ => (SMALL_CUBIN, MAX_BYTES as u64),
        };
        self.plain_size > most_plain || self.packed_length() > most_packed
    }

    /// Of a compressed payload.
    fn packed_length(&self) -> u64 {
        match self.packed_size {
            0 => self.payload_size,
            size => size.min(self.payload_size),
        }
    }
}

struct Scan<'r, 's> {
    reader: &'r mut Reader<'s>,
    linkage: Linkage,
    entries: u64,
    found: Fatbins,
    places: Option<&'r mut Vec<Place>>,
}

/// What one container has told so far.
#[derive(Default)]
struct Container {
    set: BTreeSet<Held>,
    seen: bool,
    unread: bool,
    packed: bool,
}

impl Container {
    fn add(&mut self, held: Held, kernels: Kernels) {
        match kernels {
            Kernels::Yes => self.seen = true,
            Kernels::Unread => self.unread = true,
            Kernels::No => return,
        }
        self.set.insert(held);
    }
}

impl Scan<'_, '_> {
    /// Reads the container at `at` and returns where it ends, which is behind `at` and at most `end`.
    fn container(&mut self, at: u64, end: u64) -> Result<u64, FatbinError> {
        let header = self.reader.pod::<[u8; CONTAINER_HEADER as usize]>(at)?;
        if !header.starts_with(&MAGIC) {
            return Err(malformed("no fat binary", at));
        }
        let version = u16_at(&header, 4);
        if version != 1 {
            return Err(FatbinError::Version { version, offset: at });
        }
        let header_size = u64::from(u16_at(&header, 6));
        if header_size < CONTAINER_HEADER {
            return Err(malformed(
                "a fat binary whose header is shorter than 16 bytes",
                at,
            ));
        }
        let first = at.saturating_add(header_size);
        let last = first
            .checked_add(u64_at(&header, 8))
            .filter(|&last| last <= end)
            .ok_or_else(|| malformed("a fat binary that is longer than its section", at))?;
        self.found.count += 1;
        if self.found.count > MAX_CONTAINERS {
            return Err(malformed("more than 100,000 fat binaries", at));
        }
        let mut container = Container::default();
        let mut entry = first;
        while entry < last {
            entry = self.entry(entry, last, &mut container)?;
        }
        if container.seen || container.unread {
            self.found.with_kernels += 1;
            self.found.unread += u64::from(!container.seen);
            if let Some(places) = &mut self.places {
                places.push(Place {
                    offset: at,
                    size: last - at,
                    packed: container.packed,
                    set: container.set.clone(),
                });
            }
            *self.found.sets.entry(container.set).or_default() += 1;
        }
        Ok(last)
    }

    fn count_entry(&mut self, at: u64) -> Result<(), FatbinError> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(malformed("more than 250,000 entries", at));
        }
        Ok(())
    }

    /// Reads the entry at `at` and returns where it ends, which is behind `at` and at most `end`.
    fn entry(&mut self, at: u64, end: u64, container: &mut Container) -> Result<u64, FatbinError> {
        self.count_entry(at)?;
        if end - at < ENTRY_HEADER {
            return Err(malformed(
                "an entry's header that is longer than its fat binary",
                at,
            ));
        }
        let entry = Entry::read(self.reader, at)?;
        // Neighbours are of one kind. Nothing is read behind the header of compressed code, and the next header lies
        // far away.
        self.reader.expect_header_alone(
            entry.compressed() && entry.kind == KIND_CUBIN && (container.seen || entry.stays_packed()),
        );
        if entry.header_size < ENTRY_HEADER {
            return Err(malformed("an entry whose header is shorter than 64 bytes", at));
        }
        container.packed |= entry.compressed() && entry.kind != KIND_PTX;
        let payload = at.saturating_add(entry.header_size);
        let next = payload
            .checked_add(entry.payload_size)
            .filter(|&next| next <= end)
            .ok_or_else(|| malformed("an entry that is longer than its fat binary", at))?;
        if entry.kind == KIND_GROUP {
            self.group(at, &entry, container)?;
        } else {
            let kernels = match container.seen && entry.kind == KIND_CUBIN && entry.compressed() {
                // Of one source: what has kernels for one architecture has some for the next. This saves the time.
                true => Kernels::Unread,
                false => self.kernels(&entry, payload)?,
            };
            self.take(&entry, at, kernels, container)?;
        }
        Ok(next)
    }

    fn take(
        &mut self,
        entry: &Entry,
        at: u64,
        kernels: Kernels,
        container: &mut Container,
    ) -> Result<(), FatbinError> {
        let kind = match entry.kind {
            KIND_PTX => CodeKind::Ptx,
            KIND_CUBIN => CodeKind::Sass,
            other => {
                *self.found.other_kinds.entry(other).or_default() += 1;
                return Ok(());
            }
        };
        let target = Target::from_entry(entry.arch, entry.flags)
            .ok_or_else(|| malformed("an entry for no known architecture", at))?;
        let code = Code { kind, target };
        *self.found.entries.entry(code).or_default() += 1;
        let told = kind == CodeKind::Ptx && entry.isa.major > 0;
        let isa = told.then_some(entry.isa);
        container.add(Held { code, isa }, kernels);
        Ok(())
    }

    /// The entries of a group: their payloads are compressed together, so that they are looked into where all of them
    /// are short, or none is.
    fn group(&mut self, at: u64, group: &Entry, container: &mut Container) -> Result<(), FatbinError> {
        let list = at.saturating_add(ENTRY_HEADER);
        let head = self.reader.pod::<[u8; 8]>(list)?;
        let count = u32_at(&head, 0);
        let mut entry_at = list.saturating_add(8);
        let end = list
            .checked_add(u32_at(&head, 4).into())
            .filter(|&end| end - at <= group.header_size)
            .ok_or_else(|| malformed("a group's list that is longer than its header", at))?;
        let plain = match self.linkage {
            Linkage::Loadable => self.unpacked(group, at.saturating_add(group.header_size))?,
            Linkage::Relocatable => None,
        };
        for _ in 0..count {
            self.count_entry(entry_at)?;
            if end.saturating_sub(entry_at) < ENTRY_HEADER {
                return Err(malformed(
                    "a group's entry that is longer than its list",
                    entry_at,
                ));
            }
            let entry = Entry::read(self.reader, entry_at)?;
            // `header_size` is where an offset lies here: see the format at the top.
            let last = entry.header_size.checked_add(entry.payload_size);
            if last.is_none_or(|last| last > group.plain_size) {
                return Err(malformed(
                    "a group's entry that does not lie in its payload",
                    entry_at,
                ));
            }
            let kernels = match (self.linkage, &plain) {
                (Linkage::Relocatable, _) => Kernels::Yes,
                (Linkage::Loadable, None) => Kernels::Unread,
                (Linkage::Loadable, Some(plain)) => {
                    let part = slice(plain, entry.header_size, entry.payload_size);
                    kernels_in(entry.kind, part)
                }
            };
            self.take(&entry, entry_at, kernels, container)?;
            entry_at = entry_at.saturating_add(entry.extent(self.reader, entry_at)?);
        }
        // Whoever misread a list would not end where it ends.
        if entry_at != end {
            return Err(malformed(
                "a group's list that does not end with its last entry",
                entry_at,
            ));
        }
        Ok(())
    }

    fn kernels(&mut self, entry: &Entry, payload: u64) -> Result<Kernels, FatbinError> {
        match (self.linkage, entry.kind) {
            (Linkage::Relocatable, _) => Ok(Kernels::Yes),
            (_, KIND_CUBIN | KIND_PTX) if entry.compressed() => {
                let plain = self.unpacked(entry, payload)?;
                Ok(plain.map_or(Kernels::Unread, |plain| kernels_in(entry.kind, &plain)))
            }
            (_, KIND_CUBIN) => {
                let wrong = |source| FatbinError::Cubin {
                    offset: payload,
                    source,
                };
                cubin_kernels(self.reader, payload, entry.payload_size).map_err(wrong)
            }
            (_, KIND_PTX) => {
                let end = payload.saturating_add(entry.payload_size);
                let head = self.reader.up_to(payload, end)?;
                Ok(match (holds_code(head), entry.payload_size > MAX_BYTES as u64) {
                    (true, _) => Kernels::Yes,
                    (false, true) => Kernels::Unread,
                    (false, false) => Kernels::No,
                })
            }
            _ => Ok(Kernels::Unread),
        }
    }

    /// The payload at `at` without its compression, where it is short. `None` as well where it does not unpack.
    fn unpacked(&mut self, entry: &Entry, at: u64) -> Result<Option<Vec<u8>>, FatbinError> {
        if entry.stays_packed() {
            return Ok(None);
        }
        let packed = self.reader.up_to(at, at.saturating_add(entry.packed_length()))?;
        let size = usize::try_from(entry.plain_size).unwrap_or(0);
        Ok(match entry.flags & flags::LZ4 {
            0 => unpack::zstd(packed, size),
            _ => unpack::lz4(packed, size),
        })
    }
}

/// Whether an unpacked payload holds code.
fn kernels_in(kind: u16, plain: &[u8]) -> Kernels {
    match kind {
        KIND_PTX if holds_code(plain) => Kernels::Yes,
        KIND_PTX => Kernels::No,
        // One that is damaged is not guessed at.
        KIND_CUBIN => {
            cubin_kernels(&mut Reader::new(&plain), 0, plain.len() as u64).unwrap_or(Kernels::Unread)
        }
        _ => Kernels::Unread,
    }
}

/// A cubin holds code in a section `.text.NAME` for each kernel or function.
fn cubin_kernels(reader: &mut Reader<'_>, at: u64, size: u64) -> Result<Kernels, ElfError> {
    let cubin = match Elf::open(reader, at, size, elf::EM_CUDA, "CUDA") {
        // 32-bit device code, or what a later CUDA makes of cubins
        Err(ElfError::Foreign(..)) => return Ok(Kernels::Unread),
        other => other?,
    };
    if cubin.section_count() == 0 {
        return Ok(Kernels::Unread);
    }
    for index in 0..cubin.section_count() {
        let section = cubin.section(reader, index)?;
        if section.kind == elf::SHT_PROGBITS
            && section.flags & u64::from(elf::SHF_EXECINSTR) != 0
            && cubin.name_starts_with(reader, &section, b".text.")?
        {
            return Ok(Kernels::Yes);
        }
    }
    Ok(Kernels::No)
}

/// Whether PTX text has a kernel (`.entry`) or a function (`.func`).
fn holds_code(text: &[u8]) -> bool {
    let has = |word: &[u8]| text.windows(word.len()).any(|w| w == word);
    has(b".entry") || has(b".func")
}

/// A part of a group's payload, in which the list has it lie.
fn slice(bytes: &[u8], offset: u64, length: u64) -> &[u8] {
    let range = usize::try_from(offset).ok().zip(usize::try_from(length).ok());
    range
        .and_then(|(from, length)| bytes.get(from..)?.get(..length))
        .unwrap_or_default()
}

fn round_up_8(length: u64) -> u64 {
    length.saturating_add(7) & !7
}

/// The bytes at `offset`, which every caller keeps within its fixed-size header.
fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let slice = bytes.get(offset..).and_then(|b| b.first_chunk::<N>());
    slice.copied().unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, offset))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, offset))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, offset))
}

#[cfg(test)]
mod tests;
