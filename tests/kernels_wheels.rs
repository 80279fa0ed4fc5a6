//! What the libraries of published wheels carry, against cuobjdump's count of the same files.
//!
//! spconv's and cumm's always; torch's are up to 900 MB, so they are compared where a folder has them unpacked:
//! `KERNELS_WHEELS=FOLDER cargo test --test kernels_wheels`. Each fixture in tests/fixtures/kernels/wheels whose library
//! lies below the folder is compared.
#![cfg(feature = "entrypoint")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::image;
use cuda_entrypoint::discover::fatbin::CodeKind;
use cuda_entrypoint::discover::kernels::{KernelTable, scan_all};
use cuda_entrypoint::discover::reading::Reading;
use cuda_entrypoint::facts::ComputeCapability;
use serde_json::{Value, json};

#[derive(serde::Deserialize)]
struct Fixture {
    /// what `cuobjdump --list-elf` and `--list-ptx` list, by architecture
    cuobjdump: BTreeMap<String, BTreeMap<String, u64>>,
    /// as `cuda-entrypoint kernels --json` shows the file
    file: Value,
}

impl Fixture {
    fn path(&self) -> &str {
        self.file["path"].as_str().unwrap()
    }
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
fn published_libraries_read_as_cuobjdump_lists_them() {
    let mut folders = vec![image::real_stack().to_path_buf()];
    folders.extend(std::env::var_os("KERNELS_WHEELS").map(PathBuf::from));
    let scanned = scan_all(&folders, &Reading::default());
    assert!(scanned.errors.is_empty(), "{:?}", scanned.errors);
    let devices = DEVICES.map(|(major, minor)| ComputeCapability { major, minor });
    let mut compared = 0;
    for fixture in fixtures() {
        let Some(table) = scanned.tables.iter().find(|t| t.path.ends_with(fixture.path())) else {
            continue;
        };
        let mut file = table.counts(&devices);
        file.path = fixture.path().to_string();
        assert_eq!(serde_json::to_value(&file).unwrap(), fixture.file);
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
    assert!(compared >= 2, "spconv's and cumm's libraries are not both there");
    tell!("{compared} libraries compared");
}

/// The numbers that the project relies on, so that a fixture made anew cannot drift unseen.
#[test]
fn the_fixtures_say_what_is_known() {
    let fixtures = fixtures();
    let of = |name: &str| &fixtures.iter().find(|f| f.path().contains(name)).unwrap().file;
    let spconv = of("spconv");
    assert_eq!(
        (&spconv["fatbins"], &spconv["with_kernels"]),
        (&json!(606), &json!(363))
    );
    let torch = of("libtorch_cuda.so");
    // 35 are of host code alone, compressed.
    for (key, count) in [("fatbins", 340), ("with_kernels", 305), ("compressed", 304)] {
        assert_eq!(torch[key], json!(count), "{key}");
    }
    let linalg = of("libtorch_cuda_linalg.so");
    assert!(
        linalg["sass"]
            .as_object()
            .unwrap()
            .keys()
            .all(|target| target != "7.5")
    );
    assert_eq!(
        (&of("cumm")["fatbins"], &of("cumm")["with_kernels"]),
        (&json!(1), &json!(0))
    );
}
