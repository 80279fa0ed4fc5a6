//! A zip file of stored members: what Python imports from where no folder can be written.
//!
//! Source: PKWARE's APPNOTE.TXT, 4.3: local file headers, central directory, end of central directory record.

/// A zip archive of these files, uncompressed, in this order. Names are ASCII; all of it must stay below 4 GiB.
pub fn stored(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = Vec::new();
    let mut directory = Vec::new();
    for (name, content) in members {
        let offset = length(zip.len());
        // What both headers share: version 2.0, no flags, stored, midnight of 1 January 1980, checksum, sizes, name.
        let mut shared = vec![20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
        shared.extend(crc32(content).to_le_bytes());
        shared.extend(length(content.len()));
        shared.extend(length(content.len()));
        shared.extend(short(name.len()));
        shared.extend([0, 0]); // no extra field
        zip.extend(b"PK\x03\x04");
        zip.extend(&shared);
        zip.extend(name.as_bytes());
        zip.extend(*content);
        directory.extend(b"PK\x01\x02");
        directory.extend([20, 0]); // made by version 2.0
        directory.extend(&shared);
        directory.extend([0; 10]); // no comment, disk 0, no attributes
        directory.extend(offset);
        directory.extend(name.as_bytes());
    }
    let count = short(members.len());
    let (start, size) = (length(zip.len()), length(directory.len()));
    zip.extend(directory);
    zip.extend(b"PK\x05\x06\0\0\0\0");
    zip.extend(count);
    zip.extend(count);
    zip.extend(size);
    zip.extend(start);
    zip.extend([0, 0]); // no comment
    zip
}

fn length(n: usize) -> [u8; 4] {
    u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes()
}

fn short(n: usize) -> [u8; 2] {
    u16::try_from(n).unwrap_or(u16::MAX).to_le_bytes()
}

/// CRC-32 as zip has it (ISO 3309), a bit at a time: some 40 KiB take well under a millisecond.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_the_standards() {
        assert_eq!(crc32(b""), 0);
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn python_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.zip");
        let long = "x = 1\n".repeat(9000);
        std::fs::write(
            &path,
            stored(&[
                ("one.py", b"value = 'one'\n"),
                ("two.py", long.as_bytes()),
                ("three.py", b""),
            ]),
        )
        .unwrap();
        let program = "import sys, zipfile\n\
            z = zipfile.ZipFile(sys.argv[1])\n\
            assert z.testzip() is None and z.namelist() == ['one.py', 'two.py', 'three.py'], z.namelist()\n\
            sys.path.insert(0, sys.argv[1])\n\
            import one, two, three\n\
            assert one.value == 'one' and two.x == 1\n";
        let status = std::process::Command::new("python3")
            .args(["-c", program])
            .arg(&path)
            .status()
            .unwrap();
        assert!(status.success());
    }
}
