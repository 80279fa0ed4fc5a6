//! CUDA's libraries that a library opens itself, by names that stand in it.
//!
//! Nothing in the dynamic section tells of them: `libctranslate2.so` asks for `dlopen` and has the text `libcublas.so.12` in
//! `.rodata`. Which of the names are ever opened cannot be told from the file, so that only libraries count without which a
//! kernel's results are hardly to be had; NCCL, CUPTI and NVML are optional wherever they are opened by name.

use std::path::Path;

use crate::discover::bytes::{RandomFile, Reader, Source};
use crate::discover::elf;
use crate::discover::reading;

/// How the names begin that count.
const STEMS: [&str; 7] = [
    "libcublas",
    "libcudart",
    "libcudnn",
    "libcufft",
    "libcurand",
    "libcusolver",
    "libcusparse",
];
/// Most of `.rodata` that is read, in bytes. The one of ctranslate2 4.8 has 1.3 MB.
const MAX_TEXT: u64 = 32 << 20;
/// Bytes that are read at once.
const PIECE: usize = 64 << 10;
/// Longest name that counts, in bytes, its ends included: a piece overlaps the next one by as much.
const MAX_NAME: usize = 64;

/// The names in a library, each once and in order, as far as it can be read.
pub fn names(path: &Path) -> Vec<String> {
    let _going = reading::begin(path);
    let mut found = Vec::new();
    // What was read before a part that cannot be read counts.
    let _ = read(path, &mut found);
    crate::order::sort(&mut found);
    found.dedup();
    found
}

fn read(path: &Path, found: &mut Vec<String>) -> Option<()> {
    let file = RandomFile::open(path).ok()?;
    let mut reader = Reader::new(&file);
    let elf = elf::open_own(&mut reader).ok()?;
    let mut buffer = vec![0; PIECE];
    for index in 0..elf.section_count() {
        let section = elf.section(&mut reader, index).ok()?;
        if !elf.name_starts_with(&mut reader, &section, b".rodata\0").ok()? {
            continue;
        }
        let size = section.size.min(MAX_TEXT);
        let mut at = 0;
        while at < size {
            let length = usize::try_from(size - at).ok()?.min(PIECE);
            let piece = buffer.get_mut(..length)?;
            file.read_at(section.offset.checked_add(at)?, piece).ok()?;
            texts(piece, found);
            at += length as u64;
            if length == PIECE {
                at -= MAX_NAME as u64;
            }
        }
    }
    Some(())
}

/// Texts that are a library's name and nothing else: `libcublas.so.12`, and not `libcublas.so` or a message with it.
fn texts(bytes: &[u8], found: &mut Vec<String>) {
    let mut texts = bytes.split(|&byte| byte == 0).peekable();
    while let Some(text) = texts.next() {
        // The last one goes on in the next piece.
        if texts.peek().is_some() && text.len() < MAX_NAME - 2 && text.starts_with(b"lib") {
            found.extend(
                std::str::from_utf8(text)
                    .ok()
                    .filter(|text| is_name(text))
                    .map(str::to_string),
            );
        }
    }
}

fn is_name(text: &str) -> bool {
    let Some((stem, version)) = text.split_once(".so.") else {
        return false;
    };
    let is_word = stem.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
    is_word
        && STEMS.iter().any(|known| stem.starts_with(known))
        && version.starts_with(|c: char| c.is_ascii_digit())
        && version.bytes().all(|c| c.is_ascii_digit() || c == b'.')
}

/// `libcudnn` of `libcudnn.so.9`: of several releases that a library names one is enough.
pub fn stem(name: &str) -> &str {
    name.split_once(".so").map_or(name, |(stem, _)| stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole_texts() {
        let mut found = Vec::new();
        texts(
            b"libcublas.so.12\0cannot open libcudnn.so.9\0libcudnn_ops.so.9.1\0libcublas.so\0libnccl.so.2\0libcuda.so.1\0\
              libcufft.so.x\0liborg.so.1\0libcurand.so.10",
            &mut found,
        );
        assert_eq!(found, ["libcublas.so.12", "libcudnn_ops.so.9.1"]);
        assert_eq!(stem("libcudnn.so.9"), "libcudnn");
    }

    #[test]
    fn a_name_on_the_edge_of_a_piece_is_found() {
        use crate::discover::testing::{Part, elf};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.so");
        for before in [0, 1, PIECE - 20, PIECE - 2, PIECE, 3 * PIECE - 200] {
            let mut text = vec![b'x'; before];
            text.extend_from_slice(b"\0libcublas.so.12\0");
            text.extend(vec![b'y'; 2 * PIECE]);
            let parts = [Part(".rodata", object::elf::SHT_PROGBITS, 0, text)];
            std::fs::write(&path, elf(object::elf::EM_X86_64, &parts)).unwrap();
            assert_eq!(names(&path), ["libcublas.so.12"], "{before}");
        }
        std::fs::write(&path, b"\x7fELF").unwrap();
        assert!(names(&path).is_empty());
    }
}
