//! Decompression of what is in memory as a whole: short payloads of a fat binary, and what this binary carries packed.

mod zstd;

pub use zstd::zstd;

/// An LZ4 block that unpacks to exactly `size` bytes; `None` for anything else.
pub fn lz4(packed: &[u8], size: usize) -> Option<Vec<u8>> {
    let plain = lz4_flex::block::decompress(packed, size).ok()?;
    (plain.len() == size).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n.version 8.4\n.target sm_52\n.address_size 64\n\n\n\n\0";
    /// nvcc 12.4's for an empty source file
    const LZ4: &[u8] = b"<\n//\x03\x00\xf0\"\n.version 8.4\n.target sm_52\n.address_size 64\n\n\n\n\x00";

    #[test]
    fn lz4_of_nvcc() {
        let text = lz4(LZ4, 68).unwrap();
        assert_eq!(text.len(), 68);
        assert!(
            TEXT.ends_with(&text[22..]),
            "{:?}",
            String::from_utf8_lossy(&text)
        );
        for size in [0, 67, 69, 4096] {
            assert_eq!(lz4(LZ4, size), None, "{size}");
        }
        for cut in 0..LZ4.len() {
            assert_eq!(lz4(&LZ4[..cut], 68), None, "cut to {cut}");
        }
    }

    #[test]
    fn lz4_repeats_and_refuses() {
        // one literal, then a match of 4 + 15 + 1 bytes one back
        assert_eq!(
            lz4(b"\x1fx\x01\x00\x01\x10y", 22).unwrap(),
            b"xxxxxxxxxxxxxxxxxxxxxy"
        );
        assert_eq!(
            lz4(b"\x1fx\x00\x00\x01\x10y", 22),
            None,
            "a match that starts at itself"
        );
        assert_eq!(
            lz4(b"\x1fx\x02\x00\x01\x10y", 22),
            None,
            "a match before the start"
        );
        assert_eq!(lz4(b"", 0), None);
    }
}
