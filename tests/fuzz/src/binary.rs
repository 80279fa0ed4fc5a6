//! Binary formats: ELF, fat binaries, ld.so.cache.

use std::io;

use cuda_entrypoint::discover::bytes::Source;

use super::input::Input;
use super::testing::{Entry, Part, container, elf, group, library};

/// A file that is shorter than the file system said, or that cannot be read in the middle.
struct Lying<'a> {
    bytes: &'a [u8],
    size: u64,
}

impl Source for Lying<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.bytes.read_at(offset, buffer)
    }
}

/// Overwrites numbers here and there.
fn patch(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    const NUMBERS: [u64; 12] = [
        0,
        1,
        8,
        15,
        63,
        64,
        65,
        0xffff,
        0x7fff_ffff,
        0xffff_ffff,
        u64::MAX - 79,
        u64::MAX,
    ];
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        let (at, how) = (usize::from(input.u16()), input.u8());
        let at = at % bytes.len().max(1);
        let width = [1, 2, 4, 8][usize::from(how % 4)];
        let number = match how / 4 % 4 {
            0 => NUMBERS[usize::from(input.u8()) % NUMBERS.len()],
            1 => (bytes.len() as u64).wrapping_sub(input.u8().into()),
            2 => input.u8().into(),
            _ => input.u64(),
        };
        match bytes.get_mut(at..at + width) {
            Some(field) if how < 250 => field.copy_from_slice(&number.to_le_bytes()[..width]),
            Some(_) => bytes.truncate(at),
            None => bytes.extend(&number.to_le_bytes()[..width]),
        }
    }
}

/// Libraries of a few forms.
fn forms() -> Vec<Vec<u8>> {
    vec![
        library(&[container(&[
            Entry::sass(80, true),
            Entry::sass(90, false),
            Entry::ptx(90, ".version 8.4 .entry k"),
        ])]),
        library(&[
            container(&[Entry::packed_sass(100), Entry::packed_ptx(75)]),
            container(&[]),
        ]),
        library(&[group(
            &[
                Entry::sass(75, true),
                Entry {
                    name: "a.cu",
                    options: "-O3",
                    ..Entry::ptx(90, "")
                },
            ],
            64,
        )]),
        library(&[container(&[
            Entry {
                kind: 8,
                ..Entry::packed_sass(90)
            },
            Entry::sass(90, true).with(0x10_0000),
        ])]),
    ]
}

/// A library as the loader sees it: an interpreter, a segment with strings, a dynamic section.
pub fn dynamic_elf(entries: &[(u64, &str)]) -> Vec<u8> {
    const ADDRESS: u64 = 0x40_0000;
    let interpreter = b"/lib64/ld-linux-x86-64.so.2\0";
    let mut strings = vec![0];
    let mut table = vec![(5, ADDRESS)];
    for (tag, text) in entries {
        table.push((*tag, strings.len() as u64));
        strings.extend(text.bytes().chain([0]));
    }
    table.push((10, strings.len() as u64));
    table.push((0, 0));
    let interpreter_at = 64 + 3 * 56;
    let strings_at = interpreter_at + interpreter.len();
    let dynamic_at = strings_at + strings.len();
    let mut bytes = vec![0; 64];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[16] = 3;
    bytes[18] = 62;
    bytes[32] = 64;
    bytes[54] = 56;
    bytes[56] = 3;
    for (kind, at, address, size) in [
        (3u32, interpreter_at, 0, interpreter.len()),
        (1, strings_at, ADDRESS, strings.len()),
        (2, dynamic_at, 0, table.len() * 16),
    ] {
        bytes.extend(kind.to_le_bytes());
        bytes.extend([0; 4]);
        for number in [at as u64, address, 0, size as u64, size as u64, 8] {
            bytes.extend(number.to_le_bytes());
        }
    }
    bytes.extend(interpreter);
    bytes.extend(&strings);
    for (tag, value) in table {
        bytes.extend(u64::to_le_bytes(tag));
        bytes.extend(value.to_le_bytes());
    }
    bytes
}

fn with_dynamic_section() -> Vec<u8> {
    dynamic_elf(&[
        (1, "libcudart.so.12"),
        (1, "libc.so.6"),
        (14, "libme.so"),
        (15, "$ORIGIN/../lib"),
        (29, "/opt/lib"),
    ])
}

/// With a note on forward compatibility.
fn with_note() -> Vec<u8> {
    let text = br#"{"format":1,"CUDA version":"13.1","driver":[535,590],"device":[1,2]}"#;
    let mut bytes = [19, text.len() as u32, 0].map(u32::to_le_bytes).concat();
    bytes.extend(b"NVIDIA Corporation\0\0");
    bytes.extend(text);
    elf(62, &[Part(".note.cuda.fwd_compatibility", 7, 2, bytes)])
}

/// A section of CUDA code.
pub mod fatbin {
    use cuda_entrypoint::discover::bytes::{Reader, Source};
    use cuda_entrypoint::discover::fatbin::{Fatbins, Linkage, scan};
    use cuda_entrypoint::facts::ComputeCapability;

    use super::super::testing::{Entry, container, group};
    use super::Lying;

    /// The sums that hold for everything that can be counted.
    pub fn adds_up(found: &Fatbins) {
        assert!(found.unread <= found.with_kernels && found.with_kernels <= found.count);
        for count in found.sass().values().chain(found.ptx().values()) {
            assert!((1..=found.with_kernels).contains(count));
        }
        for major in 1..=13 {
            for minor in [0, 6] {
                let served = found.served(ComputeCapability { major, minor });
                assert!(served.sass + served.ptx <= found.with_kernels);
            }
        }
        for isa in found.ptx_isa() {
            assert!((1..=found.ptx()[&isa.arch]).contains(&isa.fatbins));
        }
        let mut twice = found.clone();
        twice.add(found);
        assert_eq!(twice.count, 2 * found.count);
    }

    pub fn run(bytes: &[u8]) {
        let Some((&how, section)) = bytes.split_first() else {
            return;
        };
        let linkage = if how & 1 == 0 {
            Linkage::Loadable
        } else {
            Linkage::Relocatable
        };
        let size = section.len() as u64;
        let lying = Lying {
            bytes: section,
            size: size + u64::from(how >> 1) * 64,
        };
        let source: &dyn Source = if how & 2 == 0 { &section } else { &lying };
        let mut reader = Reader::new(source);
        let from = u64::from(how >> 4).min(size);
        match scan(&mut reader, from, source.size() - from, linkage) {
            Ok(found) => adds_up(&found),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        // Headers cost what they are, with what lies around them, whatever they say.
        assert!(
            reader.fetched() <= 4096 + 2048 * size.div_ceil(8) * 4,
            "{} of {size}",
            reader.fetched()
        );
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        let mut all: Vec<Vec<u8>> = [
            &include_bytes!("../../fixtures/kernels/nvcc-13.5/compressed.nv_fatbin")[..],
            include_bytes!("../../fixtures/kernels/nvcc-13.5/groups.nv_fatbin"),
            include_bytes!("../../fixtures/kernels/nvcc-13.5/groups-with-names.nv_fatbin"),
            include_bytes!("../../fixtures/kernels/nvcc-13.5/no-kernels.nv_fatbin"),
            include_bytes!("../../fixtures/kernels/nvcc-13.5/linked.nv_fatbin"),
            include_bytes!("../../fixtures/kernels/nvcc-13.5/uncompressed.nv_fatbin"),
        ]
        .map(|section| [&[0], section].concat())
        .to_vec();
        let relocatable = include_bytes!("../../fixtures/kernels/nvcc-13.5/relocatable.nv_relfatbin");
        all.push([&[1][..], relocatable].concat());
        let built = container(&[
            Entry::sass(80, true),
            Entry::ptx(90, ".version"),
            Entry::packed_ptx(90).plain(68),
        ]);
        all.push([&[2][..], &built].concat());
        all.push(
            [
                &[0][..],
                &group(&[Entry::sass(75, true), Entry::ptx(90, "")], 64),
                &built,
            ]
            .concat(),
        );
        all
    }
}

/// Well-formed sections of whatever entries, then with numbers overwritten.
pub mod fatbin_built {
    use cuda_entrypoint::discover::bytes::Reader;
    use cuda_entrypoint::discover::fatbin::{Linkage, scan};

    use super::super::input::Input;
    use super::super::testing::{Entry, container, cubin_of, group};
    use super::fatbin::adds_up;
    use super::patch;

    fn entry(input: &mut Input<'_>) -> Entry {
        let how = input.u8();
        let number = input.u8();
        Entry {
            kind: [1, 2, 8, 16][usize::from(how & 3)],
            arch: [50, 75, 80, 90, 100, 121, u32::from(number), 0][usize::from(number & 7)],
            isa: [(0, 0), (8, 4), (9, u16::from(number))][usize::from(how >> 3) % 3],
            flags: [0x11, 0x2011, 0x8011, 0x10_0011, 0x20_0011][usize::from(how >> 2) % 5],
            payload: match how >> 5 {
                0 => cubin_of(true, number.into()),
                1 => cubin_of(false, number.into()),
                2 => b"\n.version 8.4\n.target sm_52\n.visible .entry k() { ret; }\n".to_vec(),
                _ => input.bytes().to_vec(),
            },
            packed: if how & 4 == 0 { 0 } else { number.into() },
            plain: if how & 8 == 0 { 0 } else { u64::from(number) * 16 },
            name: ["", "a.cu", "b"][usize::from(number % 3)],
            options: ["", "-O3", "-v -g"][usize::from(how % 3)],
        }
    }

    pub fn run(bytes: &[u8]) {
        let mut input = Input::new(bytes);
        let (containers, linkage) = (input.u8() % 5, input.u8());
        let linkage = if linkage & 1 == 0 {
            Linkage::Loadable
        } else {
            Linkage::Relocatable
        };
        let (mut section, mut count) = (Vec::new(), 0);
        for _ in 0..containers {
            let how = input.u8();
            let entries: Vec<Entry> = (0..how % 5).map(|_| entry(&mut input)).collect();
            count += entries.len() as u64;
            section.extend(if how & 0x80 == 0 {
                container(&entries)
            } else {
                group(&entries, u64::from(how & 0x70))
            });
            section.resize(section.len() + usize::from(how >> 4) * 8, 0);
        }
        let scan = |section: &[u8]| scan(&mut Reader::new(&section), 0, section.len() as u64, linkage);
        if let Ok(found) = scan(&section) {
            adds_up(&found);
            assert_eq!(found.count, u64::from(containers));
            let counted = found
                .entries
                .values()
                .chain(found.other_kinds.values())
                .sum::<u64>();
            assert_eq!(counted, count);
        }
        patch(&mut section, &mut input);
        if let Ok(found) = scan(&section) {
            adds_up(&found);
        }
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        vec![
            vec![2, 0, 3, 1, 2, 33, 3, 66, 4, 2, 0x82, 1, 3, 2, 4],
            vec![1, 1, 1, 0x41, 3, 9, 0, 0, 0, 1],
            (0..120).collect(),
        ]
    }
}

/// LZ4 blocks and Zstandard frames.
pub mod unpack {
    use cuda_entrypoint::unpack::{lz4, zstd};

    use super::super::input::Input;

    pub fn run(bytes: &[u8]) {
        let mut input = Input::new(bytes);
        let size = usize::from(input.u16());
        let packed = input.rest();
        for plain in [lz4(packed, size), zstd(packed, size)].into_iter().flatten() {
            assert_eq!(plain.len(), size);
        }
        // What a packer that finds nothing to pack makes of it.
        let mut block = vec![(packed.len().min(15) as u8) << 4];
        if let Some(more) = packed.len().checked_sub(15) {
            block.resize(1 + more / 255, 255);
            block.push((more % 255) as u8);
        }
        block.extend(packed);
        assert_eq!(lz4(&block, packed.len()).as_deref(), Some(packed));
        if let Ok(length) = u8::try_from(packed.len()) {
            let header = u32::from(length) << 3 | 1;
            let mut frame = b"\x28\xb5\x2f\xfd\x20".to_vec();
            frame.push(length);
            frame.extend(&header.to_le_bytes()[..3]);
            frame.extend(packed);
            assert_eq!(zstd(&frame, packed.len()).as_deref(), Some(packed));
        }
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        vec![
            [
                &[68, 0][..],
                b"<\n//\x03\x00\xf0\"\n.version 8.4\n.target sm_52\n.address_size 64\n\n\n\n\x00",
            ]
            .concat(),
            [&[22, 0][..], b"\x1fx\x01\x00\x01\x10y"].concat(),
            [&[56, 0][..], b"\x28\xb5\x2f\xfd\x20\x38\xc1\x01\x00", &[b'p'; 56]].concat(),
            [
                &1700_u16.to_le_bytes()[..],
                include_bytes!("../../fixtures/kernels/zstd/blocks.zst"),
            ]
            .concat(),
        ]
    }
}

/// Whole files.
pub mod elf {
    use cuda_entrypoint::discover::bytes::Source;
    use cuda_entrypoint::discover::elf::dynamic;
    use cuda_entrypoint::discover::forward::note;
    use cuda_entrypoint::discover::kernels::{cuda_sections, scan_source};
    use cuda_entrypoint::facts::ComputeCapability;
    use cuda_entrypoint::report::kernels::{KernelsReport, human, json};

    use super::super::input::lines_are_clean;
    use super::{Lying, fatbin, forms, with_dynamic_section, with_note};

    pub fn check(source: &dyn Source) {
        match scan_source(source) {
            Ok(table) => {
                fatbin::adds_up(&table.loadable);
                fatbin::adds_up(&table.relocatable);
                cuda_sections(source).unwrap();
                let devices = [(7, 5), (9, 0)].map(|(major, minor)| ComputeCapability { major, minor });
                let report = KernelsReport {
                    files: vec![table.counts(&devices)],
                    errors: Vec::new(),
                };
                let mut text = Vec::new();
                json(&report, &mut text).unwrap();
                human(&report, &mut text).unwrap();
                lines_are_clean(std::str::from_utf8(&text).unwrap());
            }
            Err(reason) => assert!(!reason.to_string().is_empty()),
        }
        match dynamic(source) {
            Ok(found) => {
                let texts = found
                    .needed
                    .iter()
                    .chain(&found.soname)
                    .chain(&found.rpath)
                    .chain(&found.runpath);
                // U+FFFD is three bytes for one.
                assert!(
                    texts
                        .chain(&found.interpreter)
                        .all(|text| text.len() < 3 * 4096 && !text.contains('\0'))
                );
                assert!(found.needed.len() <= 1024);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        match note(source) {
            Ok(None) => {}
            Ok(Some(found)) => assert!(found.drivers.len().max(found.devices.len()) <= 256),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }

    pub fn run(bytes: &[u8]) {
        check(&bytes);
        let size = bytes.len() as u64 + 4096;
        check(&Lying { bytes, size });
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        let mut all = forms();
        all.push(with_dynamic_section());
        all.push(with_note());
        all
    }
}

/// Good files with numbers overwritten.
pub mod elf_patched {
    use super::super::input::Input;
    use super::{elf, forms, patch, with_dynamic_section};

    pub fn run(bytes: &[u8]) {
        static FILES: std::sync::LazyLock<Vec<Vec<u8>>> = std::sync::LazyLock::new(|| {
            let mut all = forms();
            all.push(with_dynamic_section());
            all
        });
        let mut input = Input::new(bytes);
        let mut file = FILES[usize::from(input.u8()) % FILES.len()].clone();
        patch(&mut file, &mut input);
        elf::check(&file.as_slice());
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        (0..5)
            .map(|form| vec![form, 40, 0, 3, 0, form, 60, 0, 2, 1])
            .collect()
    }
}

/// ld.so.cache.
pub mod ld_cache {
    use cuda_entrypoint::discover::ld_cache::each;

    pub fn run(bytes: &[u8]) {
        let mut count = 0;
        each(bytes, &mut |name, path| {
            count += 1;
            assert!(!name.contains('\0') && !path.contains('\0'));
            assert!(name.len() < 4096 && path.len() < 4096);
        });
        assert!(count * 24 <= bytes.len());
    }

    pub fn seeds() -> Vec<Vec<u8>> {
        let entries = [
            (0x0303_u32, "libz.so.1", "/lib/libz.so.1"),
            (3, "libc.so.6", "/lib32/libc.so.6"),
        ];
        let (mut table, mut strings) = (Vec::new(), Vec::new());
        for (flags, name, path) in entries {
            table.extend(flags.to_le_bytes());
            for text in [name, path] {
                table.extend((48 + 24 * entries.len() as u32 + strings.len() as u32).to_le_bytes());
                strings.extend(text.bytes().chain([0]));
            }
            table.extend([0; 12]);
        }
        let mut body = b"glibc-ld.so.cache1.1".to_vec();
        body.extend((entries.len() as u32).to_le_bytes());
        body.extend((strings.len() as u32).to_le_bytes());
        body.resize(48, 0);
        body.extend(table);
        body.extend(strings);
        let mut old = b"ld.so-1.7.0\0\x01\0\0\0".to_vec();
        old.resize(32, 0xff);
        old.extend(&body);
        vec![body, old]
    }
}
