//! What the binary carries in packed form: the helper, the pages of `explain` and the smoke's Python. Each is an LZ4
//! block with its length in front.

use std::sync::OnceLock;

static HELPER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cuda-helper.lz4"));
static TEXTS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/texts.lz4"));

fn unpack(packed: &[u8]) -> Vec<u8> {
    // Empty where the binary was damaged so that this is no block any more: every reader treats that as "not there".
    lz4_flex::block::decompress_size_prepended(packed).unwrap_or_default()
}

/// The helper's bytes, an ELF file; unpacked at the first call.
pub fn helper() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| unpack(HELPER))
}

/// The page of `explain NAME`, if there is one.
pub fn page(name: &str) -> Option<String> {
    Some(part(&format!("{name}.md"))).filter(|page| !page.is_empty())
}

/// A file by its name; empty where there is none.
fn part(name: &str) -> String {
    let all = unpack(TEXTS);
    let text = String::from_utf8_lossy(&all);
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

/// The `sitecustomize` of the hand-off: `src/smoke/handoff.py`.
pub fn handoff_script() -> String {
    part("handoff.py")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helper_is_a_dynamic_elf() {
        assert_eq!(helper().get(..4), Some(&b"\x7fELF"[..]));
        let needle = b"/lib64/ld-linux-x86-64.so.2\0";
        assert!(helper().windows(needle.len()).any(|w| w == needle));
    }

    #[test]
    fn texts_are_found_by_their_name() {
        assert!(page("driver-missing").unwrap().starts_with("# driver-missing\n"));
        assert_eq!(page("driver"), None);
        assert!(smoke_script().starts_with("# "));
    }
}
