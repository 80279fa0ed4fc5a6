//! What the binary carries in packed form, each with its plain length in four bytes in front.
//!
//! The helper is an LZ4 block: nearly every start unpacks it, in 0.4 ms where the decoder of Zstandard takes 2.8 ms and the
//! binary has 42 KB less. The pages of `explain`, the smoke's Python and the JSON Schemas are one Zstandard frame.

use std::sync::OnceLock;

use crate::unpack::{lz4, zstd};

static HELPER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cuda-helper.lz4"));
static TEXTS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/texts.zst"));

/// Empty where the binary was damaged so that this cannot be unpacked any more: every reader treats that as "not there".
fn unpacked(packed: &[u8], unpack: fn(&[u8], usize) -> Option<Vec<u8>>) -> Vec<u8> {
    let whole = packed.split_first_chunk().and_then(|(length, packed)| {
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        unpack(packed, length)
    });
    whole.unwrap_or_default()
}

/// The helper's bytes, an ELF file; unpacked at the first call.
pub fn helper() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| unpacked(HELPER, lz4))
}

/// What src/check/explain/NAME.md holds, if there is such a page.
pub fn page(name: &str) -> Option<String> {
    Some(part(&format!("{name}.md"))).filter(|page| !page.is_empty())
}

/// A file by its name; empty where there is none.
fn part(name: &str) -> String {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let text = String::from_utf8_lossy(BYTES.get_or_init(|| unpacked(TEXTS, zstd)));
    let mut parts = text.split('\0').skip(1);
    while let (Some(known), Some(content)) = (parts.next(), parts.next()) {
        if known == name {
            return content.to_string();
        }
    }
    String::new()
}

/// The program that the image's Python runs as the smoke: `src/smoke/smoke.py`.
pub fn smoke_script() -> String {
    part("smoke.py")
}

/// The same for a framework that brings CUDA of its own, with `src/smoke/frameworks.py` in front.
pub fn framework_script() -> String {
    part("frameworks.py") + &smoke_script()
}

/// A Python program of src/smoke, by its file name.
pub fn python(name: &str) -> String {
    part(name)
}

/// The JSON Schema of a `report`, a `stack` or the `kernels`.
pub fn schema(of: &str) -> String {
    part(&format!("{of}.schema.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helper_is_a_dynamic_elf() {
        assert_eq!(helper().get(..4), Some(&b"\x7fELF"[..]));
        let needle = format!("{}\0", crate::processor::OWN.loader);
        assert!(helper().windows(needle.len()).any(|w| w == needle.as_bytes()));
    }

    #[test]
    fn texts_are_found_by_their_name() {
        assert!(page("driver-missing").unwrap().starts_with("No `libcuda.so.1`"));
        assert_eq!(page("driver"), None);
        assert!(smoke_script().starts_with("# "));
    }
}
