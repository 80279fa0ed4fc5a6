//! Builds the glibc helper and hands its bytes to the entrypoint to embed.
//!
//! `CUDA_ENTRYPOINT_HELPER_BIN` names a helper that is built already: `make build` sets it to one with the symbol
//! floor GLIBC_2.17. Without it a plain `cargo build` builds a helper for this machine's own glibc.

// A build script reports by panicking: cargo shows the message and stops.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// What the two binaries are made of.
const SOURCES: [&str; 3] = ["src", "Cargo.toml", "Cargo.lock"];

fn main() {
    println!("cargo::rerun-if-env-changed=CUDA_ENTRYPOINT_HELPER_BIN");
    for input in SOURCES {
        println!("cargo::rerun-if-changed={input}");
    }
    if env::var_os("CARGO_FEATURE_ENTRYPOINT").is_none() {
        return; // this is the helper's own build
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let helper = match env::var_os("CUDA_ENTRYPOINT_HELPER_BIN") {
        Some(path) => PathBuf::from(path),
        None => build_helper(&out),
    };
    println!("cargo::rerun-if-changed={}", helper.display());
    let bytes =
        fs::read(&helper).unwrap_or_else(|e| panic!("cannot read the helper {}: {e}", helper.display()));
    println!("cargo::rustc-env=CUDA_ENTRYPOINT_BUILD={:016x}", build_id(&bytes));
    const HIGHEST: lz4::block::CompressionMode = lz4::block::CompressionMode::HIGHCOMPRESSION(12);
    // The fuzzers are built without a helper, and at this level the packer crashes on an empty text.
    let helper = match bytes.is_empty() {
        true => Vec::new(),
        false => lz4::block::compress(&bytes, Some(HIGHEST), false).expect("the helper can be packed"),
    };
    keep(&bytes, &helper, &out.join("cuda-helper.lz4"));
    const BEST: i32 = 22;
    let texts = texts();
    let packed = zstd::bulk::compress(&texts, BEST).expect("the texts can be packed");
    keep(&texts, &packed, &out.join("texts.zst"));
}

/// A number that another build has only by chance: over the names and contents of all sources, and the helper's bytes.
/// It says whose facts a receipt holds. Two builds of the same sources have the same number, and so have copies.
fn build_id(helper: &[u8]) -> u64 {
    let mut files: Vec<PathBuf> = Vec::new();
    let mut paths: Vec<PathBuf> = SOURCES.iter().map(PathBuf::from).collect();
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            let entries =
                fs::read_dir(&path).unwrap_or_else(|e| panic!("cannot list {}: {e}", path.display()));
            paths.extend(entries.map(|entry| entry.expect("readable").path()));
        } else {
            files.push(path);
        }
    }
    files.sort();
    let read =
        |path: &PathBuf| fs::read(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
    // FNV-1a, <http://www.isthe.com/chongo/tech/comp/fnv/>; the length keeps what is in one file from being in the next.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut take = |bytes: &[u8]| {
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    };
    for file in &files {
        take(file.as_os_str().as_encoded_bytes());
        take(&read(file));
    }
    take(helper);
    hash
}

/// The pages of `explain`, the smoke's Python and the JSON Schemas: each a NUL byte, its file's name, another, and its content.
fn texts() -> Vec<u8> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for (folder, kind) in [
        ("src/check/explain", "md"),
        ("src/smoke", "py"),
        ("src/report", "schema.json"),
        ("src/stack", "schema.json"),
    ] {
        println!("cargo::rerun-if-changed={folder}");
        let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("cannot read {folder}: {e}"));
        let found = entries.map(|entry| entry.expect("readable").path());
        let is_kind = |path: &PathBuf| path.to_string_lossy().ends_with(&format!(".{kind}"));
        paths.extend(found.filter(is_kind));
    }
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        let name = path.file_name().expect("a file has a name");
        all.push(0);
        all.extend(name.as_encoded_bytes());
        all.push(0);
        let text =
            fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
        all.extend(match path.extension() {
            Some(ending) if ending == "py" => without_comments(&text).into_bytes(),
            _ => text.into_bytes(),
        });
    }
    all
}

/// A Python program without the lines that are comments alone, but for the first. Each line keeps its number, which
/// tracebacks show.
fn without_comments(text: &str) -> String {
    let is_comment = |line: &str| line.trim_start().starts_with('#');
    let lines = text.lines().enumerate();
    let kept = lines.map(|(number, line)| if number > 0 && is_comment(line) { "" } else { line });
    kept.map(|line| format!("{line}\n")).collect()
}

/// Writes what `src/packed.rs` unpacks: the plain length in four bytes, then the packed form.
fn keep(plain: &[u8], packed: &[u8], to: &Path) {
    let length = u32::try_from(plain.len()).expect("less than 4 GiB").to_le_bytes();
    fs::write(to, [&length, packed].concat())
        .unwrap_or_else(|e| panic!("cannot write {}: {e}", to.display()));
}

/// Runs a second cargo in a target folder of its own: the first one holds the lock of the usual folder.
fn build_helper(out: &Path) -> PathBuf {
    let target_dir = out.join("helper-target");
    // A stand-in for the shared libgcc that takes the static one: an image with glibc alone has no libgcc_s.so.1, and
    // a helper that needed it would find no loader to blame but the wrong one.
    let gcc = out.join("static-libgcc");
    fs::create_dir_all(&gcc).expect("cannot make a folder in OUT_DIR");
    fs::write(gcc.join("libgcc_s.so"), "INPUT(-lgcc_eh -lgcc)\n").expect("cannot write to OUT_DIR");
    let cargo = env::var_os("CARGO").expect("cargo sets CARGO");
    let triple = env::var("TARGET").expect("cargo sets TARGET");
    let mut command = Command::new(cargo);
    // What cargo told this script is not true of the helper: an inherited CARGO_FEATURE_ENTRYPOINT would make the
    // helper's own run of this script start a helper build in turn, without end.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_FEATURE_")
            || name.starts_with("CARGO_CFG_")
            || name.starts_with("CARGO_PKG_")
        {
            command.env_remove(&*name);
        }
    }
    let status = command
        .args([
            "build",
            "--quiet",
            "--profile",
            "helper",
            "--no-default-features",
            "--features",
            "helper",
        ])
        .args(["--bin", "cuda-helper", "--target", &triple, "--target-dir"])
        .arg(&target_dir)
        // Replaces the flags of .cargo/config.toml: the helper is the one part that must not be static.
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            format!("-Ctarget-feature=-crt-static\x1f-Lnative={}", gcc.display()),
        )
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .status()
        .expect("cannot start cargo for the helper");
    assert!(status.success(), "building cuda-helper failed: {status}");
    target_dir.join(triple).join("helper").join("cuda-helper")
}
