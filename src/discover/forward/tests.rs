use super::*;
use crate::discover::testing::{Part, elf};
use object::elf::{EM_AARCH64, EM_X86_64, SHT_PROGBITS};
use std::fs;
use std::os::unix::fs::symlink;

/// What cuda-compat of release 590.44.01 says.
const TEXT: &str = r#"{"format":1,"CUDA version":"13.1","driver":[535,550,570,575,580,590],"device":[1,2,7,8,9,10,11,12,13,14]}"#;

/// As NVIDIA's linker lays it out: header, owner with its NUL, text, each filled up to four bytes.
fn section(owner: &str, text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in [owner.len() as u32 + 1, text.len() as u32, 0] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(owner.bytes().chain([0]));
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(text);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn with_section(name: &str, kind: u32, bytes: Vec<u8>) -> Vec<u8> {
    let build_id = section("GNU", &[7; 20]);
    elf(
        EM_X86_64,
        &[
            Part(".note.gnu.build-id", SHT_NOTE, 2, build_id),
            Part(name, kind, 2, bytes),
        ],
    )
}

fn library(text: &[u8]) -> Vec<u8> {
    let bytes = section("NVIDIA Corporation", text);
    with_section(".note.cuda.fwd_compatibility", SHT_NOTE, bytes)
}

fn read(file: &[u8]) -> Result<Option<Note>, String> {
    note(&file).map_err(|e| e.to_string())
}

#[test]
fn a_note_says_whom_it_serves() {
    let found = read(&library(TEXT.as_bytes())).unwrap().unwrap();
    assert_eq!(found.cuda, Some(CudaVersion { major: 13, minor: 1 }));
    assert_eq!(found.drivers, [535, 550, 570, 575, 580, 590]);
    assert_eq!(found.devices, [1, 2, 7, 8, 9, 10, 11, 12, 13, 14]);
    // Jetson's names neither, and is shorter than it says.
    let short = r#"{"format":1,"CUDA version":"13.2"}"#;
    let mut bytes = section("NVIDIA Corporation", short.as_bytes());
    bytes[4..8].copy_from_slice(&(short.len() as u32 + 7).to_le_bytes());
    bytes.extend([0; 3]);
    let found = read(&with_section(".note.cuda.fwd_compatibility", SHT_NOTE, bytes));
    let found = found.unwrap().unwrap();
    assert_eq!((found.drivers, found.devices), (vec![], vec![]));
}

#[test]
fn what_has_none_has_none() {
    let bytes = || section("NVIDIA Corporation", TEXT.as_bytes());
    for (name, kind, bytes) in [
        (".note.cuda.other", SHT_NOTE, bytes()),
        (".note.cuda.fwd_compatibility.x", SHT_NOTE, bytes()),
        (".note.cuda.fwd_compatibility", SHT_PROGBITS, bytes()),
        (
            ".note.cuda.fwd_compatibility",
            SHT_NOTE,
            section("GNU", TEXT.as_bytes()),
        ),
        (".note.cuda.fwd_compatibility", SHT_NOTE, section("", b"")),
    ] {
        assert_eq!(read(&with_section(name, kind, bytes)), Ok(None), "{name} {kind}");
    }
    assert!(read(b"no library").unwrap_err().contains("not an ELF file"));
    let arm = elf(EM_AARCH64, &[]);
    assert!(read(&arm).unwrap_err().contains("AArch64"));
}

#[test]
fn each_invalid_note_is_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/discover/forward/invalid");
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(files.len() >= 15);
    for file in files {
        let error = read(&library(&fs::read(&file).unwrap())).unwrap_err();
        assert!(
            error.contains("a note on forward compatibility"),
            "{}: {error}",
            file.display()
        );
    }
}

#[test]
fn sizes_that_lie_are_refused_and_never_followed() {
    let good = section("NVIDIA Corporation", TEXT.as_bytes());
    let name = ".note.cuda.fwd_compatibility";
    for size in [20, 21, 1000, u32::MAX - 12, u32::MAX - 3, u32::MAX] {
        let mut bytes = good.clone();
        bytes[..4].copy_from_slice(&size.to_le_bytes());
        // A name that goes on is another owner's.
        let said = read(&with_section(name, SHT_NOTE, bytes));
        assert!(
            said == Ok(None) || said.unwrap_err().contains("does not lie in its section"),
            "{size}"
        );
    }
    for size in [u32::MAX, 5000] {
        let mut bytes = good.clone();
        bytes[4..8].copy_from_slice(&size.to_le_bytes());
        assert!(
            read(&with_section(name, SHT_NOTE, bytes)).unwrap().is_some(),
            "{size}"
        );
    }
    for cut in 0..good.len() {
        let said = read(&with_section(name, SHT_NOTE, good[..cut].to_vec()));
        assert!(said.is_err() || cut + 3 >= good.len(), "{cut}: {said:?}");
    }
    // More than a note can have is not read.
    let long = section("NVIDIA Corporation", &[b' '; 10_000]);
    assert!(read(&with_section(name, SHT_NOTE, long)).is_err());
    let whole = library(TEXT.as_bytes());
    for cut in 0..whole.len() {
        assert!(note(&&whole[..cut]).is_err(), "{cut}");
    }
}

#[test]
fn folders_with_what_they_hold() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let put = |path: &str, bytes: &[u8]| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    put(
        "local/cuda-13.1/compat/libcuda.so.590.44.01",
        &library(TEXT.as_bytes()),
    );
    put(
        "local/cuda-13.1/compat/libnvidia-ptxjitcompiler.so.590.44.01",
        b"",
    );
    for link in ["libcuda.so", "libcuda.so.1"] {
        symlink(
            "libcuda.so.590.44.01",
            root.join("local/cuda-13.1/compat").join(link),
        )
        .unwrap();
    }
    symlink("cuda-13.1", root.join("local/cuda")).unwrap();
    fs::create_dir_all(root.join("local/cuda-12.4/compat")).unwrap();
    put("local/cuda-12.9/compat/lib.real/libcuda.so.1", &library(b"{}"));
    put("local/cudnn/compat/libcuda.so.1", b"");
    // Whose links lead to a file that is known, and one that is for something else.
    fs::create_dir_all(root.join("links/cuda/compat")).unwrap();
    symlink(
        root.join("env/cuda-compat/libcuda.so.1"),
        root.join("links/cuda/compat/libcuda.so.1"),
    )
    .unwrap();
    fs::create_dir_all(root.join("other/compat")).unwrap();
    put("env/cuda-compat/libcuda.so.1", b"text");
    put("driver/libcuda.so.1", b"");
    let library_path = format!(
        "{0}/driver:{0}/env/cuda-compat:{0}/absent/cuda/compat:{0}/links/cuda/compat:{0}/other/compat",
        root.display()
    );
    let mapped = root.join("local/cuda/compat/libcuda.so.1");
    let found = look_in(&root.join("local"), Some(&library_path), Some(&mapped));
    let shown: Vec<String> = found
        .iter()
        .map(|one| {
            let name = one
                .path
                .as_deref()
                .and_then(|path| path.strip_prefix(one.folder.as_str()));
            let cuda = one.cuda.map_or(String::new(), |cuda| format!(" CUDA {cuda}"));
            let release = one.release.as_deref().unwrap_or("-");
            let mapped = if one.mapped { " mapped" } else { "" };
            let folder = Path::new(&one.folder).strip_prefix(&root).unwrap();
            format!(
                "{}: {} {release}{cuda}{mapped}",
                folder.display(),
                name.unwrap_or("-")
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "env/cuda-compat: /libcuda.so.1 -",
            "local/cuda-13.1/compat: /libcuda.so.590.44.01 590.44.01 CUDA 13.1 mapped",
            "local/cuda-12.4/compat: - -",
            "local/cuda-12.9/compat/lib.real: /libcuda.so.1 -",
        ]
    );
}
