//! What the libraries of published wheels carry, against cuobjdump's count of the same files.
//!
//! The libraries are up to 900 MB, so the test is run by hand or by a target that has unpacked them:
//! `KERNELS_WHEELS=FOLDER cargo test --test kernels_wheels -- --ignored`. Each fixture in tests/fixtures/kernels/wheels
//! whose library lies below the folder is compared; a folder with none of them fails.
#![cfg(feature = "entrypoint")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // the helpers of a test

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cuda_entrypoint::discover::fatbin::CodeKind;
use cuda_entrypoint::discover::kernels::{FileCounts, KernelTable, scan_all};
use cuda_entrypoint::facts::ComputeCapability;

#[derive(serde::Deserialize)]
struct Fixture {
    /// what `cuobjdump --list-elf` and `--list-ptx` list, by architecture
    cuobjdump: BTreeMap<String, BTreeMap<String, u64>>,
    file: FileCounts,
}

const DEVICES: [(u8, u8); 7] = [(6, 1), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0)];

fn fixtures() -> Vec<Fixture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kernels/wheels");
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries
        .map(|path| serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap())
        .collect()
}

fn all_entries(table: &KernelTable, kind: CodeKind) -> BTreeMap<String, u64> {
    let entries = table
        .loadable
        .entries
        .iter()
        .filter(|(code, _)| code.kind == kind);
    entries
        .map(|(code, n)| (format!("sm_{}", code.target.to_string().replace('.', "")), *n))
        .collect()
}

#[test]
#[ignore = "needs the unpacked wheels: KERNELS_WHEELS=FOLDER"]
fn published_libraries_read_as_cuobjdump_lists_them() {
    let folder =
        std::env::var_os("KERNELS_WHEELS").expect("KERNELS_WHEELS names a folder of unpacked wheels");
    let scanned = scan_all(&[PathBuf::from(folder)]);
    assert!(scanned.errors.is_empty(), "{:?}", scanned.errors);
    let devices = DEVICES.map(|(major, minor)| ComputeCapability { major, minor });
    let mut compared = 0;
    for fixture in fixtures() {
        let Some(table) = scanned
            .tables
            .iter()
            .find(|t| t.path.ends_with(&fixture.file.path))
        else {
            continue;
        };
        let mut file = table.counts(&devices);
        file.path.clone_from(&fixture.file.path);
        assert_eq!(file, fixture.file);
        assert_eq!(
            all_entries(table, CodeKind::Sass),
            fixture.cuobjdump["list-elf"],
            "{}",
            file.path
        );
        assert_eq!(
            all_entries(table, CodeKind::Ptx),
            fixture.cuobjdump["list-ptx"],
            "{}",
            file.path
        );
        compared += 1;
    }
    assert!(compared > 0, "none of the libraries lies below the folder");
    println!("{compared} libraries compared");
}

/// The numbers that the project relies on, so that a fixture made anew cannot drift unseen.
#[test]
fn the_fixtures_say_what_is_known() {
    let fixtures = fixtures();
    let of = |name: &str| &fixtures.iter().find(|f| f.file.path.contains(name)).unwrap().file;
    let spconv = of("spconv");
    assert_eq!((spconv.fatbins, spconv.with_kernels), (606, 363));
    let torch = of("libtorch_cuda.so");
    assert_eq!(
        (torch.fatbins, torch.with_kernels, torch.compressed),
        (340, 340, 340)
    );
    let linalg = of("libtorch_cuda_linalg.so");
    assert!(linalg.sass.keys().all(|target| target.to_string() != "7.5"));
    assert_eq!((of("cumm").fatbins, of("cumm").with_kernels), (1, 0));
}
