//! What the binary carries in packed form (zlib, RFC 1950): the helper and the pages of `explain`.

use std::sync::OnceLock;

static HELPER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cuda-helper.z"));
static PAGES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pages.z"));

/// Far more than either has; what is packed here is our own, so the limit never bites.
const LIMIT: usize = 16 << 20;

fn unpack(packed: &[u8]) -> Vec<u8> {
    // Empty where the binary was damaged on its way: every reader treats that as "not there".
    miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(packed, LIMIT).unwrap_or_default()
}

/// The helper's bytes, an ELF file; unpacked at the first call.
pub fn helper() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| unpack(HELPER))
}

/// The page that begins with `# NAME`, if there is one.
pub fn page(name: &str) -> Option<String> {
    let all = unpack(PAGES);
    let text = String::from_utf8_lossy(&all);
    let heading = format!("# {name}\n");
    text.split('\0')
        .find(|page| page.starts_with(&heading))
        .map(str::to_string)
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
    fn pages_are_found_by_their_heading() {
        assert!(page("driver-missing").unwrap().contains("driver"));
        assert_eq!(page("driver"), None);
    }
}
