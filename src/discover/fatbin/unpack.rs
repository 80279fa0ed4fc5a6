//! Just enough decompression to see that a short PTX text holds no code. Nothing else is ever decompressed.

/// An LZ4 block that unpacks to exactly `size` bytes; `None` for anything else.
///
/// Source: LZ4 Block Format Description (lz4_Block_format.md of the LZ4 project).
pub fn lz4(packed: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(size);
    let mut input = packed;
    loop {
        let token = usize::from(take(&mut input)?);
        let literals = length(&mut input, token >> 4)?;
        let (copied, rest) = input.split_at_checked(literals)?;
        if out.len() + copied.len() > size {
            return None;
        }
        out.extend_from_slice(copied);
        input = rest;
        if input.is_empty() {
            return (out.len() == size).then_some(out); // the last sequence ends with its literals
        }
        let back = usize::from(u16::from_le_bytes([take(&mut input)?, take(&mut input)?]));
        let count = length(&mut input, token & 15)?.checked_add(4)?;
        if back == 0 || back > out.len() || count > size - out.len() {
            return None;
        }
        // Byte by byte: a match may overlap what it produces.
        for _ in 0..count {
            let byte = *out.get(out.len() - back)?;
            out.push(byte);
        }
    }
}

/// A length of which 4 bits are known: 15 means that bytes follow, the last of which is below 255.
fn length(input: &mut &[u8], nibble: usize) -> Option<usize> {
    let mut length = nibble;
    if nibble == 15 {
        loop {
            let byte = take(input)?;
            length = length.checked_add(byte.into())?;
            if byte != 255 {
                break;
            }
        }
    }
    Some(length)
}

/// A Zstandard frame of `size` bytes in one block that is stored as it is, which is how text of a few dozen bytes
/// comes out; `None` for anything else.
///
/// Source: RFC 8878, sections 3.1.1.1 and 3.1.1.2.
pub fn zstd_stored(packed: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut input = packed.strip_prefix(&0xFD2F_B528_u32.to_le_bytes())?;
    // A single segment, no checksum, no dictionary: the size of the content follows, in 1 or 2 bytes.
    let content = match take(&mut input)? {
        0x20 => usize::from(take(&mut input)?),
        0x60 => usize::from(u16::from_le_bytes([take(&mut input)?, take(&mut input)?])) + 256,
        _ => return None,
    };
    let block = u32::from_le_bytes([take(&mut input)?, take(&mut input)?, take(&mut input)?, 0]);
    let (last, kind, length) = (block & 1, block >> 1 & 3, usize::try_from(block >> 3).ok()?);
    if last != 1 || kind != 0 || length != content || content != size {
        return None;
    }
    input.get(..length).map(<[u8]>::to_vec)
}

fn take(input: &mut &[u8]) -> Option<u8> {
    let (first, rest) = input.split_first()?;
    *input = rest;
    Some(*first)
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

    #[test]
    fn zstd_stored_of_nvcc() {
        // nvcc 13's for an empty source file: 56 bytes
        let text = [b'p'; 56];
        let mut frame = b"\x28\xb5\x2f\xfd\x20\x38\xc1\x01\x00".to_vec();
        frame.extend(text);
        assert_eq!(zstd_stored(&frame, 56).unwrap(), text);
        assert_eq!(zstd_stored(&frame, 57), None);
        for cut in 0..frame.len() {
            assert_eq!(zstd_stored(&frame[..cut], 56), None, "cut to {cut}");
        }
        let mut compressed = frame;
        compressed[6] |= 4;
        assert_eq!(zstd_stored(&compressed, 56), None);
    }
}
