use super::*;
use crate::discover::testing::{Entry, container, cubin, cubin_of, group};

const EMPTY_PTX: &str = "\n.version 8.4\n.target sm_90\n.address_size 64\n";
const PTX: &str = "\n.version 8.4\n.target sm_90\n.address_size 64\n.visible .entry k(){ret;}\n";

fn scan_bytes(bytes: &[u8], linkage: Linkage) -> Result<Fatbins, FatbinError> {
    scan(&mut Reader::new(&bytes), 0, bytes.len() as u64, linkage)
}

fn loadable(bytes: &[u8]) -> Fatbins {
    scan_bytes(bytes, Linkage::Loadable).unwrap()
}

fn texts(targets: &BTreeMap<Target, u64>) -> Vec<String> {
    targets
        .iter()
        .map(|(target, n)| format!("{target}×{n}"))
        .collect()
}

fn isa(found: &Fatbins) -> String {
    let texts: Vec<String> = found
        .ptx_isa()
        .iter()
        .map(|isa| format!("{}@{}×{}", isa.arch, isa.version, isa.fatbins))
        .collect();
    texts.join(" ")
}

fn device(major: u8, minor: u8) -> ComputeCapability {
    ComputeCapability { major, minor }
}

fn error_of(bytes: &[u8]) -> String {
    scan_bytes(bytes, Linkage::Loadable).unwrap_err().to_string()
}

/// Lays the `count` low bytes of `number` over `bytes` at `at`.
fn put(mut bytes: Vec<u8>, at: usize, number: u64, count: usize) -> Vec<u8> {
    bytes[at..at + count].copy_from_slice(&number.to_le_bytes()[..count]);
    bytes
}

#[test]
fn a_fat_binary_without_kernels_counts_and_lacks_nothing() {
    let empty = container(&[Entry::sass(52, false), Entry::ptx(52, EMPTY_PTX)]);
    let full = container(&[Entry::sass(75, true), Entry::sass(90, true), Entry::ptx(90, PTX)]);
    let found = loadable(&[empty, full].concat());
    assert_eq!((found.count, found.with_kernels, found.unread), (2, 1, 0));
    assert_eq!(texts(&found.sass()), ["7.5×1", "9.0×1"]);
    assert_eq!(texts(&found.ptx()), ["9.0×1"]);
    assert_eq!(found.entries.values().sum::<u64>(), 5);
    assert_eq!(found.served(device(7, 5)), Served { sass: 1, ptx: 0 });
    assert_eq!(found.served(device(8, 0)), Served { sass: 0, ptx: 0 });
    assert_eq!(found.served(device(10, 0)), Served { sass: 0, ptx: 1 });
}

#[test]
fn ptx_alone_is_looked_into() {
    assert_eq!(loadable(&container(&[Entry::ptx(80, PTX)])).with_kernels, 1);
    assert_eq!(loadable(&container(&[Entry::ptx(80, EMPTY_PTX)])).with_kernels, 0);
    let functions = EMPTY_PTX.to_string() + ".func f(){ret;}";
    assert_eq!(
        loadable(&container(&[Entry::ptx(80, &functions)])).with_kernels,
        1
    );
    // a long text of data may have its code further down
    let long = EMPTY_PTX.to_string() + &"// data\n".repeat(1000);
    let found = loadable(&container(&[Entry::ptx(80, &long)]));
    assert_eq!((found.with_kernels, found.unread), (1, 1));
}

#[test]
fn short_compressed_ptx_is_looked_into() {
    // nvcc 12.4's for an empty source file, LZ4, and nvcc 13's, a stored Zstandard block
    let lz4 = Entry {
        payload: b"<\n//\x03\x00\xf0\"\n.version 8.4\n.target sm_52\n.address_size 64\n\n\n\n\x00".to_vec(),
        packed: 57,
        plain: 68,
        ..Entry::ptx(52, "").with(flags::LZ4)
    };
    let mut frame = b"\x28\xb5\x2f\xfd\x20\x38\xc1\x01\x00".to_vec();
    frame.resize(9 + 56, b'\n');
    let zstd = Entry {
        payload: frame,
        packed: 65,
        plain: 56,
        ..Entry::ptx(80, "").with(flags::ZSTD)
    };
    for entry in [lz4, zstd] {
        assert_eq!(loadable(&container(std::slice::from_ref(&entry))).with_kernels, 0);
        // what does not unpack is not guessed at
        let broken = Entry { plain: 67, ..entry };
        let found = loadable(&container(&[broken]));
        assert_eq!((found.with_kernels, found.unread), (1, 1));
    }
}

#[test]
fn short_compressed_cubins_are_looked_into() {
    // As an LZ4 block of literals alone, and as a Zstandard frame of one stored block.
    let lz4 = |plain: &[u8]| {
        let more = plain.len() - 15;
        let mut block = vec![0xF0];
        block.resize(1 + more / 255, 255);
        block.push((more % 255) as u8);
        [&block, plain].concat()
    };
    let zstd = |plain: &[u8]| {
        let mut frame = b"\x28\xb5\x2f\xfd\x60".to_vec();
        frame.extend((plain.len() as u16 - 256).to_le_bytes());
        frame.extend(&((plain.len() as u32) << 3 | 1).to_le_bytes()[..3]);
        [&frame, plain].concat()
    };
    let entry = |flag, payload: Vec<u8>, plain: usize| Entry {
        packed: payload.len() as u32,
        plain: plain as u64,
        payload,
        ..Entry::sass(80, true).with(flag)
    };
    for kernel in [true, false] {
        let cubin = cubin(kernel);
        for (flag, payload) in [(flags::LZ4, lz4(&cubin)), (flags::ZSTD, zstd(&cubin))] {
            let found = loadable(&container(&[entry(flag, payload.clone(), cubin.len())]));
            assert_eq!(
                (found.with_kernels, found.unread),
                (u64::from(kernel), 0),
                "{flag:#x}"
            );
            // What does not unpack, or is no cubin, is not guessed at.
            let found = loadable(&container(&[entry(flag, payload, cubin.len() + 1)]));
            assert_eq!((found.with_kernels, found.unread), (1, 1), "{flag:#x}");
        }
    }
    let found = loadable(&container(&[entry(flags::ZSTD, zstd(&[7; 300]), 300)]));
    assert_eq!((found.with_kernels, found.unread), (1, 1));
    // A long one is not unpacked.
    let long = cubin_of(false, 3900);
    let found = loadable(&container(&[entry(flags::LZ4, lz4(&long), long.len())]));
    assert_eq!((found.with_kernels, found.unread), (1, 1));
}

#[test]
fn ptx_tells_its_version() {
    let text = |version: &str| PTX.replace("8.4", version);
    let entries = |ptx: Entry| container(&[Entry::sass(80, true), ptx]);
    let found = loadable(
        &[
            entries(Entry::ptx(90, PTX)),
            entries(Entry::ptx(90, &text("8.7"))),
            entries(Entry::packed_ptx(90).isa(8, 4)),
            entries(Entry::packed_ptx(120).isa(9, 0)),
            // a tool that does not write it there
            entries(Entry::packed_ptx(120)),
        ]
        .concat(),
    );
    assert_eq!(isa(&found), "9.0@8.4×2 9.0@8.7×1 12.0@9.0×1");
    assert_eq!(texts(&found.ptx()), ["9.0×3", "12.0×2"]);
    // Each fat binary counts once for an architecture, whatever versions of PTX it has for it.
    let twice = container(&[Entry::ptx(90, PTX), Entry::ptx(90, &text("8.7"))]);
    assert_eq!(texts(&loadable(&twice).ptx()), ["9.0×1"]);
}

#[test]
fn parts_are_linked_by_a_driver_that_compiles_each_of_them() {
    let part = |entries: &[Entry]| container(entries);
    let parts = [
        part(&[Entry::sass(80, true), Entry::packed_ptx(90).isa(8, 4)]),
        part(&[Entry::packed_ptx(80).isa(8, 5), Entry::packed_ptx(90).isa(8, 7)]),
    ];
    let found = scan_bytes(&parts.concat(), Linkage::Relocatable).unwrap();
    let version = |device| found.needed_isa(device).map(|isa| isa.to_string());
    // 9.0: the second part's older text will do.
    assert_eq!(version(device(9, 0)).as_deref(), Some("8.5"));
    assert_eq!(version(device(8, 0)).as_deref(), Some("8.5"));
    assert_eq!(version(device(7, 5)), None);
}

#[test]
fn compressed_cubins_count_and_are_told_apart() {
    let packed = container(&[
        Entry::packed_sass(80),
        Entry::packed_sass(90),
        Entry::packed_ptx(90),
    ]);
    let mixed = container(&[Entry::sass(80, true), Entry::packed_ptx(90)]);
    let found = loadable(&[packed, mixed].concat());
    assert_eq!((found.count, found.with_kernels, found.unread), (2, 2, 1));
    assert_eq!(texts(&found.sass()), ["8.0×2", "9.0×1"]);
    assert_eq!(texts(&found.ptx()), ["9.0×2"]);
}

#[test]
fn a_cubin_without_kernels_serves_nothing_beside_one_with() {
    let found = loadable(&container(&[Entry::sass(75, false), Entry::sass(90, true)]));
    assert_eq!(texts(&found.sass()), ["9.0×1"]);
    assert_eq!(found.served(device(7, 5)), Served::default());
}

#[test]
fn variants_are_told_apart() {
    let entries = [
        Entry::sass(90, true),
        Entry::sass(90, true).with(flags::ARCH_SPECIFIC),
        Entry::sass(100, true).with(flags::FAMILY_SPECIFIC | 0x100_0000),
        Entry::ptx(120, PTX).with(flags::FAMILY_SPECIFIC),
    ];
    let found = loadable(&container(&entries));
    assert_eq!(texts(&found.sass()), ["9.0×1", "9.0a×1", "10.0f×1"]);
    assert_eq!(texts(&found.ptx()), ["12.0f×1"]);
    assert_eq!(found.served(device(10, 3)), Served { sass: 1, ptx: 0 });
    assert_eq!(found.served(device(12, 1)), Served { sass: 0, ptx: 1 });
}

#[test]
fn a_group_lists_what_it_holds() {
    let mut entries = vec![
        Entry::sass(75, true),
        Entry::sass(90, true).with(flags::ARCH_SPECIFIC),
        Entry::ptx(90, PTX),
    ];
    entries[1].name = "a_name_of_26_characters.cu";
    entries[2].name = "seven.c";
    entries[2].options = "--compile-only  ";
    let bytes = group(&entries, 512);
    let found = loadable(&bytes);
    assert_eq!((found.count, found.with_kernels, found.unread), (1, 1, 1));
    assert_eq!(texts(&found.sass()), ["7.5×1", "9.0a×1"]);
    assert_eq!(texts(&found.ptx()), ["9.0×1"]);

    // the list starts at 16 + 64
    for (at, number, count, wrong) in [
        (80, 4, 4, "a group's entry that is longer than its list"),
        (80, 2, 4, "a group's list that does not end with its last entry"),
        (
            80,
            u64::from(u32::MAX),
            4,
            "a group's entry that is longer than its list",
        ),
        (
            84,
            u64::from(u32::MAX),
            4,
            "a group's list that is longer than its header",
        ),
        (84, 0, 4, "a group's entry that is longer than its list"),
        (
            96,
            u64::MAX,
            8,
            "a group's entry that does not lie in its payload",
        ),
        (
            92,
            0xffff_ffff,
            4,
            "a group's entry that does not lie in its payload",
        ),
    ] {
        let error = error_of(&put(bytes.clone(), at, number, count));
        assert!(error.contains(wrong), "{at}: {error}");
    }
}

#[test]
fn relocatable_parts_count_without_kernels() {
    let parts = [
        container(&[Entry::packed_sass(80), Entry::packed_ptx(90)]),
        container(&[Entry::sass(80, false), Entry::ptx(90, EMPTY_PTX)]),
        group(&[Entry::sass(80, true), Entry::ptx(90, PTX)], 256),
    ];
    let found = scan_bytes(&parts.concat(), Linkage::Relocatable).unwrap();
    assert_eq!((found.count, found.with_kernels, found.unread), (3, 3, 0));
    assert_eq!(texts(&found.sass()), ["8.0×3"]);
    assert_eq!(found.served(device(12, 0)), Served { sass: 0, ptx: 3 });
}

#[test]
fn other_kinds_serve_nothing() {
    let lto = Entry {
        kind: 8,
        ..Entry::packed_sass(80)
    };
    let found = loadable(&container(&[lto]));
    assert_eq!((found.count, found.with_kernels), (1, 0));
    assert_eq!(found.other_kinds, [(8, 1)].into());
}

#[test]
fn padding_between_fat_binaries_is_bounded() {
    let one = container(&[Entry::sass(80, true)]);
    let spaced = |zeros: usize| [one.clone(), vec![0; zeros], one.clone()].concat();
    assert_eq!(loadable(&spaced(4096)).count, 2);
    assert!(error_of(&spaced(4104)).contains("zero"));
    assert_eq!(loadable(&[one.clone(), vec![0; 5]].concat()).count, 1);
    assert!(error_of(&[one, vec![0, 1]].concat()).contains("behind the last fat binary"));
    assert_eq!(loadable(&[]).count, 0);
}

#[test]
fn a_fat_binary_of_odd_length_is_followed_by_an_aligned_one() {
    let mut odd = container(&[Entry::sass(80, true)]);
    odd[8] += 1; // its size
    let first_header = 16 + 8;
    odd[first_header] += 1; // its entry's payload
    odd.push(0);
    odd.resize(odd.len().next_multiple_of(8), 0);
    let both = [odd, container(&[Entry::sass(80, true)])].concat();
    assert_eq!(loadable(&both).count, 2);
}

#[test]
fn lies_are_errors_that_say_where() {
    let good = container(&[Entry::sass(80, true), Entry::sass(90, true)]);
    assert_eq!(loadable(&good).with_kernels, 1);
    let cubin_at = 16 + 64;
    for (at, number, count, wrong) in [
        (0, 1, 4, "no fat binary at offset 0x0"),
        (4, 2, 2, "version 2"),
        (6, 15, 2, "shorter than 16 bytes at offset 0x0"),
        (6, 0, 2, "shorter than 16 bytes"),
        (8, u64::MAX, 8, "longer than its section at offset 0x0"),
        (8, good.len() as u64, 8, "longer than its section"),
        (8, 32, 8, "longer than its fat binary at offset 0x10"),
        (20, 63, 4, "shorter than 64 bytes at offset 0x10"),
        (20, 0, 4, "shorter than 64 bytes"),
        (20, 0xffff_ffff, 4, "longer than its fat binary at offset 0x10"),
        (24, u64::MAX, 8, "longer than its fat binary at offset 0x10"),
        (24, u64::MAX - 79, 8, "longer than its fat binary"),
        (44, 0, 4, "no known architecture at offset 0x10"),
        (44, 0x7fff_ffff, 4, "no known architecture"),
        (56, 0x30_0011, 8, "no known architecture"),
        (cubin_at, 0, 4, "the cubin at offset 0x50: it is not an ELF file"),
        (
            cubin_at + 40,
            1 << 40,
            8,
            "section header table that does not lie in the file",
        ),
        (
            cubin_at + 40,
            u64::MAX,
            8,
            "section header table that does not lie in the file",
        ),
        (cubin_at + 58, 65, 2, "another size than 64 bytes"),
        (
            cubin_at + 60,
            0xfff0,
            2,
            "section header table that does not lie in the file",
        ),
        (cubin_at + 62, 200, 2, "in a section that does not exist"),
    ] {
        let error = error_of(&put(good.clone(), at, number, count));
        assert!(error.contains(wrong), "{at}: {error}");
    }
}

#[test]
fn a_cubin_of_an_unknown_form_is_not_looked_into() {
    let good = container(&[Entry::sass(80, true)]);
    for (what, at, number) in [("class", 80 + 4, 1), ("machine", 80 + 18, 191)] {
        let found = loadable(&put(good.clone(), at, number, 1));
        assert_eq!((found.with_kernels, found.unread), (1, 1), "{what}");
    }
    let stripped = put(put(good.clone(), 80 + 40, 0, 8), 80 + 60, 0, 2);
    assert_eq!(loadable(&stripped).unread, 1);
}

#[test]
fn caps_hold() {
    let tiny = [&0xBA55_ED50_u32.to_le_bytes()[..], &[1, 0, 16, 0], &[0; 8]].concat();
    assert_eq!(loadable(&tiny.repeat(100_000)).count, 100_000);
    assert!(error_of(&tiny.repeat(100_001)).contains("more than 100,000 fat binaries"));
    let entry = Entry {
        kind: 8,
        ..Entry::default()
    };
    let entries = vec![entry; 250_001];
    assert!(error_of(&container(&entries)).contains("more than 250,000 entries"));
}

#[test]
fn payloads_are_not_read() {
    let big = |arch| Entry {
        payload: cubin_of(true, 1 << 20),
        ..Entry::sass(arch, true)
    };
    let bytes = container(&[big(75), big(80), big(86), big(90), Entry::packed_ptx(90)]);
    let source = bytes.as_slice();
    let mut reader = Reader::new(&source);
    let found = scan(&mut reader, 0, bytes.len() as u64, Linkage::Loadable).unwrap();
    assert_eq!(texts(&found.sass()), ["7.5×1", "8.0×1", "8.6×1", "9.0×1"]);
    assert!(
        reader.fetched() < 32 << 10,
        "{} bytes of {}",
        reader.fetched(),
        bytes.len()
    );
}

/// torch's 3,000 entries are compressed: each is one read of a header, and nothing behind it.
#[test]
fn behind_compressed_headers_nothing_is_read() {
    let big = |arch| Entry {
        payload: vec![7; 1 << 16],
        ..Entry::packed_sass(arch).plain(1 << 17)
    };
    let bytes = container(&[50, 60, 70, 75, 80, 86, 90].map(big)).repeat(10);
    let source = bytes.as_slice();
    let mut reader = Reader::new(&source);
    let found = scan(&mut reader, 0, bytes.len() as u64, Linkage::Loadable).unwrap();
    assert_eq!((found.count, found.entries.values().sum::<u64>()), (10, 70));
    // The first one is read before anybody knows.
    assert!(reader.fetched() < (70 + 20) * 128, "{}", reader.fetched());
}

#[test]
fn sums_of_sections_are_sums() {
    let one = loadable(&container(&[Entry::sass(80, true), Entry::ptx(90, PTX)]));
    let two = loadable(&container(&[Entry::packed_sass(80)]));
    let mut sum = one.clone();
    sum.add(&two);
    assert_eq!((sum.count, sum.with_kernels, sum.unread), (2, 2, 1));
    assert_eq!(texts(&sum.sass()), ["8.0×2"]);
    assert_eq!(cubin(true).len() % 2, cubin(false).len() % 2);
}

/// Real output of nvcc 13.5, beside what cuobjdump 13.5 lists of it.
mod nvcc {
    use super::*;

    fn listed(listing: &str) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        // "ELF file    2: a.2.sm_90a.cubin", "PTX file    1: a.1.sm_103a.ptx"
        for line in listing.lines().filter(|l| !l.is_empty()) {
            let (_, arch) = line.rsplit_once("sm_").unwrap();
            *found.entry(arch.to_string()).or_default() += 1;
        }
        found
    }

    /// As cuobjdump names them: it writes no `f` for cubins.
    fn ours(found: &Fatbins) -> BTreeMap<String, u64> {
        let mut names = BTreeMap::new();
        for (code, count) in &found.entries {
            let target = code.target.to_string().replace('.', "");
            let name = match code.kind {
                CodeKind::Sass => format!("{}.cubin", target.trim_end_matches('f')),
                CodeKind::Ptx => format!("{target}.ptx"),
            };
            *names.entry(name).or_default() += count;
        }
        names
    }

    /// The versions in the headers are the texts' own.
    #[test]
    fn versions_of_ptx() {
        for (file, expected) in [
            ("plain", "9.0@9.5×1 10.3a@9.5×1 12.0f@9.5×1"),
            ("uncompressed", "9.0@9.5×1"),
            ("compressed", "9.0@9.5×1"),
            ("groups", "9.0@9.5×1 10.3a@9.5×1 12.0f@9.5×1"),
        ] {
            let folder =
                std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kernels/nvcc-13.5");
            let bytes = std::fs::read(folder.join(file).with_extension("nv_fatbin")).unwrap();
            assert_eq!(isa(&loadable(&bytes)), expected, "{file}");
            let text = b".version 9.5\n";
            assert_eq!(
                file == "uncompressed",
                bytes.windows(text.len()).any(|w| w == text)
            );
        }
    }

    macro_rules! sample {
        ($name:ident, $file:literal, $summary:literal) => {
            #[test]
            fn $name() {
                let path = concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/tests/fixtures/kernels/nvcc-13.5/",
                    $file
                );
                let found = loadable(&std::fs::read(format!("{path}.nv_fatbin")).unwrap());
                let listing = std::fs::read_to_string(format!("{path}.cuobjdump")).unwrap();
                assert_eq!(ours(&found), listed(&listing));
                let summary = format!(
                    "{} {} {} | {} | {}",
                    found.count,
                    found.with_kernels,
                    found.unread,
                    texts(&found.sass()).join(" "),
                    texts(&found.ptx()).join(" ")
                );
                assert_eq!(summary, $summary);
            }
        };
    }

    sample!(
        plain,
        "plain",
        "2 1 0 | 7.5×1 9.0a×1 10.0f×1 10.3a×1 12.0f×1 | 9.0×1 10.3a×1 12.0f×1"
    );
    sample!(uncompressed, "uncompressed", "2 1 0 | 7.5×1 9.0a×1 | 9.0×1");
    sample!(compressed, "compressed", "2 1 0 | 7.5×1 9.0a×1 10.3a×1 | 9.0×1");
    sample!(
        groups,
        "groups",
        "2 1 0 | 7.5×1 9.0a×1 10.0f×1 10.3a×1 12.0f×1 | 9.0×1 10.3a×1 12.0f×1"
    );
    sample!(
        groups_with_names,
        "groups-with-names",
        "2 1 0 | 7.5×1 9.0a×1 | 9.0a×1"
    );
    sample!(no_kernels, "no-kernels", "2 0 0 |  | ");
    sample!(linked, "linked", "1 1 0 | 8.0×1 | ");

    #[test]
    fn relocatable() {
        let path = "tests/fixtures/kernels/nvcc-13.5/relocatable.nv_relfatbin";
        let bytes = std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        let found = scan_bytes(&bytes, Linkage::Relocatable).unwrap();
        assert_eq!(
            (found.count, texts(&found.sass()), texts(&found.ptx())),
            (2, vec!["8.0×2".into()], vec!["9.0×2".into()])
        );
    }
}
