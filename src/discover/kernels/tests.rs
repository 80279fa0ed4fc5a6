use std::fs;
use std::os::unix::fs::symlink;

use object::elf::{EM_AARCH64, EM_X86_64};

use super::*;
use crate::discover::testing::{Entry, Part, code, container, elf as elf_file, library};

fn scan_bytes(bytes: &[u8]) -> Result<KernelTable, Reason> {
    scan_source(&bytes)
}

fn error_of(bytes: &[u8]) -> String {
    scan_bytes(bytes).unwrap_err().to_string()
}

fn with_kernel() -> Vec<u8> {
    library(&[container(&[Entry::sass(80, true), Entry::packed_ptx(80)])])
}

fn paths(scanned: &Scanned) -> Vec<String> {
    let name = |t: &KernelTable| t.path.file_name().unwrap().to_string_lossy().into_owned();
    scanned.tables.iter().map(name).collect()
}

#[test]
fn the_sections_of_cuda_code_are_found() {
    let loadable = [
        container(&[Entry::sass(80, true)]),
        container(&[Entry::sass(80, false)]),
    ];
    let relocatable = [container(&[Entry::packed_sass(80), Entry::packed_ptx(90)])];
    let bytes = elf_file(
        EM_X86_64,
        &[
            Part(".text", 1, 6, vec![0x90; 100]),
            code(".nv_fatbin", &loadable),
            code(".nv_fatbin.not", &[vec![1, 2, 3]]),
            code("__nv_relfatbin", &relocatable),
            Part(".nv_fatbi", 1, 2, vec![9; 9]),
        ],
    );
    let table = scan_bytes(&bytes).unwrap();
    let devices = [(8, 9), (9, 0)].map(|(major, minor)| ComputeCapability { major, minor });
    insta::assert_json_snapshot!(table.counts(&devices));
}

#[test]
fn a_library_without_cuda_code_is_an_empty_table() {
    let plain = elf_file(EM_X86_64, &[Part(".text", 1, 6, vec![0x90; 16])]);
    assert!(!scan_bytes(&plain).unwrap().has_cuda_code());
    // a file of debug symbols: the header of the section, and its bytes elsewhere
    let mut debug = Part(".nv_fatbin", SHT_NOBITS, 2, vec![]);
    debug.3 = vec![1; 64];
    assert!(
        !scan_bytes(&elf_file(EM_X86_64, &[debug]))
            .unwrap()
            .has_cuda_code()
    );
}

#[test]
fn what_is_no_library_of_this_machine_says_so() {
    let good = with_kernel();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    for (bytes, wrong) in [
        (b"/* GNU ld script */".to_vec(), "not an ELF file"),
        (vec![], "not an ELF file"),
        (
            b"\x7fEL".to_vec(),
            "an ELF header that does not lie in the file at offset 0x0",
        ),
        (good[..40].to_vec(), "an ELF header that does not lie in the file"),
        (with(4, 1), "class 1"),
        (with(5, 2), "byte order 2"),
        (
            elf_file(EM_AARCH64, &[]),
            "machine 183 (AArch64); ELF64 little-endian for x86-64",
        ),
    ] {
        let error = error_of(&bytes);
        assert!(error.contains(wrong), "{error}");
    }
    let mut stripped = good;
    stripped[40..48].fill(0);
    stripped[60..64].fill(0);
    assert!(error_of(&stripped).contains("whether it contains CUDA code is unknown"));
}

#[test]
fn every_truncation_and_every_flipped_byte_returns() {
    let bytes = elf_file(
        EM_X86_64,
        &[
            code(
                ".nv_fatbin",
                &[
                    container(&[Entry::sass(80, true), Entry::packed_ptx(80)]),
                    crate::discover::testing::group(&[Entry::sass(75, true), Entry::sass(90, true)], 64),
                ],
            ),
            code("__nv_relfatbin", &[container(&[Entry::packed_sass(80)])]),
        ],
    );
    assert_eq!(scan_bytes(&bytes).unwrap().loadable.count, 2);
    for cut in 0..bytes.len() {
        // The section headers are at the end: without them nothing else is read.
        assert!(scan_bytes(&bytes[..cut]).is_err(), "cut to {cut}");
    }
    for at in 0..bytes.len() {
        for pattern in [0xff, 0x01, 0x80] {
            let mut flipped = bytes.clone();
            flipped[at] ^= pattern;
            let _ = scan_bytes(&flipped);
            let _ = elf::dynamic(&flipped.as_slice());
        }
    }
}

#[test]
fn a_folder_shows_each_library_with_cuda_code_once() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("torch/lib")).unwrap();
    fs::write(at("torch/lib/libb.so"), with_kernel()).unwrap();
    fs::write(at("torch/lib/liba.so.12.4"), with_kernel()).unwrap();
    fs::write(at("torch/core_cc.cpython-311-x86_64-linux-gnu.so"), with_kernel()).unwrap();
    fs::write(at("torch/lib/libplain.so"), elf_file(EM_X86_64, &[])).unwrap();
    fs::write(at("torch/lib/libc.so"), "GROUP ( libc.so.6 )").unwrap();
    fs::write(at("torch/lib/libarm.so"), elf_file(EM_AARCH64, &[])).unwrap();
    fs::write(at("torch/lib/notes.txt"), with_kernel()).unwrap();
    fs::write(at("torch/lib/libcut.so"), &with_kernel()[..200]).unwrap();
    fs::hard_link(at("torch/lib/libb.so"), at("torch/lib/libhard.so")).unwrap();
    symlink("libb.so", at("torch/lib/libsoft.so")).unwrap();
    symlink("..", at("torch/lib/up")).unwrap();
    symlink("nowhere", at("torch/lib/libgone.so")).unwrap();
    nix::unistd::mkfifo(&at("torch/libfifo.so"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(at("torch/libfolder.so")).unwrap();

    let scanned = scan_all(&[dir.path().to_path_buf()], &Reading::default());
    let names = [
        "core_cc.cpython-311-x86_64-linux-gnu.so",
        "liba.so.12.4",
        "libb.so",
    ];
    assert_eq!(paths(&scanned), names);
    let errors: Vec<_> = scanned.errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("libcut.so: damaged ELF file"), "{errors:?}");
    assert!(
        errors[0].ends_with("; install the package that brought it again"),
        "{errors:?}"
    );

    // the same twice, and through a link that was named
    symlink("torch", at("link")).unwrap();
    let twice = scan_all(
        &[at("torch"), at("link"), at("torch/lib/libsoft.so")],
        &Reading::default(),
    );
    assert_eq!(paths(&twice), names);
}

#[test]
fn what_is_named_is_shown_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("plain"), elf_file(EM_X86_64, &[])).unwrap();
    fs::write(at("text.so"), "text").unwrap();
    nix::unistd::mkfifo(&at("fifo.so"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let scanned = scan_all(
        &["plain", "text.so", "fifo.so", "absent.so"].map(at),
        &Reading::default(),
    );
    assert_eq!(paths(&scanned), ["plain"]);
    assert!(!scanned.tables[0].has_cuda_code());
    let errors: Vec<_> = scanned.errors.iter().map(|e| e.reason.to_string()).collect();
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(errors[0].contains("not an ELF file"), "{errors:?}");
    assert!(errors[1].contains("not a regular file"), "{errors:?}");
    assert!(errors[2].contains("No such file"), "{errors:?}");
}

#[test]
fn a_folder_deeper_than_any_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = dir.path().to_path_buf();
    for _ in 0..=MAX_DEPTH {
        folder.push("d");
    }
    fs::create_dir_all(&folder).unwrap();
    fs::write(dir.path().join("lib.so"), with_kernel()).unwrap();
    let scanned = scan_all(&[dir.path().to_path_buf()], &Reading::default());
    assert_eq!(paths(&scanned), ["lib.so"]);
    assert_eq!(scanned.errors.len(), 1);
    assert!(
        scanned.errors[0]
            .to_string()
            .contains("more than 64 folders inside one another")
    );
}

#[test]
fn library_names() {
    for (name, library) in [
        ("libtorch_cuda.so", true),
        ("libcudart-8774224f.so.12.4.127", true),
        ("core_cc.cpython-311-x86_64-linux-gnu.so", true),
        ("libfoo.sofa", false),
        ("so", false),
        (".so", true),
        ("ld.so.conf", true),
        ("x.solution", false),
    ] {
        assert_eq!(is_library(OsStr::new(name)), library, "{name}");
    }
}

/// Mutated small files: whatever they say, scanning returns, and what it returns adds up. `FUZZ_ROUNDS` sets how many.
#[test]
fn mutated_files_return() {
    let rounds = std::env::var("FUZZ_ROUNDS").map_or(20_000, |r| r.parse().expect("FUZZ_ROUNDS is a number"));
    let seeds = seeds();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let (mut read, mut refused) = (0_u64, 0_u64);
    for _ in 0..rounds {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(4) {
            mutate(&mut bytes, &mut random);
        }
        match scan_bytes(&bytes) {
            Ok(table) => {
                read += 1;
                for fatbins in [&table.loadable, &table.relocatable] {
                    assert!(fatbins.with_kernels <= fatbins.count && fatbins.unread <= fatbins.with_kernels);
                    for major in [7, 8, 9, 10] {
                        let served = fatbins.served(ComputeCapability { major, minor: 0 });
                        assert!(served.sass + served.ptx <= fatbins.with_kernels);
                    }
                }
                serde_json::to_string(&table.counts(&[])).unwrap();
            }
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().is_empty());
            }
        }
        let _ = elf::dynamic(&bytes.as_slice());
    }
    // A mutation that breaks everything, or nothing, would test nothing.
    assert!(
        read > rounds / 20 && refused > rounds / 20,
        "{read} read, {refused} refused"
    );
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![
        with_kernel(),
        library(&[
            container(&[Entry::sass(52, false), Entry::ptx(52, ".version 8.4")]),
            container(&[
                Entry::sass(80, true),
                Entry::sass(90, true),
                Entry::packed_sass(100),
            ]),
        ]),
        library(&[crate::discover::testing::group(
            &[Entry::sass(75, true), Entry::ptx(90, "")],
            64,
        )]),
        elf_file(
            EM_X86_64,
            &[code("__nv_relfatbin", &[container(&[Entry::packed_sass(80)])])],
        ),
    ];
    for file in [
        "no-kernels.nv_fatbin",
        "groups-with-names.nv_fatbin",
        "uncompressed.nv_fatbin",
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/kernels/nvcc-13.5")
            .join(file);
        seeds.push(library(&[fs::read(path).unwrap()]));
    }
    seeds
}

/// xorshift64*: the same files in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end.max(1)
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    const NUMBERS: [u64; 12] = [
        0,
        1,
        2,
        8,
        15,
        63,
        64,
        0xffff,
        0x7fff_ffff,
        0xffff_ffff,
        u64::MAX,
        u64::MAX - 79,
    ];
    let at = random.below(bytes.len());
    match random.below(6) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.next() as u8,
        2 | 3 => {
            // a field, where fields lie
            let at = at & !3;
            let width = [2, 4, 8][random.below(3)];
            let number = match random.below(3) {
                0 => bytes.len() as u64 - random.below(64) as u64,
                _ => NUMBERS[random.below(NUMBERS.len())],
            };
            if let Some(field) = bytes.get_mut(at..at + width) {
                field.copy_from_slice(&number.to_le_bytes()[..width]);
            }
        }
        4 if bytes.len() > 64 => {
            let from = random.below(bytes.len() - 64);
            let to = random.below(bytes.len() - 64);
            bytes.copy_within(from..from + 64, to);
        }
        _ => bytes.truncate(bytes.len() - random.below(16).min(bytes.len() - 1)),
    }
}

#[test]
fn what_is_gone_by_now_is_nothing_that_could_not_be_read() {
    let errno = |number: i32| Reason::Io(std::io::Error::from_raw_os_error(number)).errno();
    assert_eq!([errno(2), errno(20)], [None, None]);
    assert_eq!([errno(5), errno(13), errno(116)], [Some(5), Some(13), Some(116)]);
}
