//! `/etc/ld.so.cache`: where the loader looks for a name that no RPATH and no variable leads to.
//!
//! Source: glibc, `sysdeps/generic/dl-cache.h`. Either of two headers begins the file, and all offsets of strings count
//! from the second one:
//!
//! ```text
//! "ld.so-1.7.0\0"  u32 entries, entries of 12 bytes, padding to 8       until glibc 2.32, and only before the next
//! "glibc-ld.so.cache1.1"  u32 entries, u32 bytes of strings, 20 bytes   48 bytes in all
//!     i32 flags, u32 name, u32 path, u32 -, u64 hwcap                   24 bytes each
//! ```

use crate::processor::OWN;

const OLD: &[u8] = b"ld.so-1.7.0\0";
const NEW: &[u8] = b"glibc-ld.so.cache1.1";
const OLD_ENTRY: usize = 12;
const HEADER: usize = 48;
const ENTRY: usize = 24;
/// Largest cache that is read, in bytes. A desktop's has 200 KiB.
pub const MAX_BYTES: usize = 8 << 20;

/// Calls with each name and path that the cache has for this machine, in its order. What makes no sense is passed over,
/// as the loader does.
pub fn each(cache: &[u8], take: &mut dyn FnMut(&str, &str)) {
    let Some(body) = new_format(cache) else { return };
    let count = number(body, NEW.len()).unwrap_or(0);
    for index in 0..count {
        let Some(entry) = index.checked_mul(ENTRY).and_then(|at| at.checked_add(HEADER)) else {
            return;
        };
        // The table ends where the file does, whatever its header says.
        let (Some(flags), Some(name), Some(path)) = (
            number(body, entry),
            number(body, entry + 4),
            number(body, entry + 8),
        ) else {
            return;
        };
        if u32::try_from(flags) == Ok(OWN.cache_flags)
            && let (Some(name), Some(path)) = (text(body, name), text(body, path))
        {
            take(name, path);
        }
    }
}

fn new_format(cache: &[u8]) -> Option<&[u8]> {
    let start = if cache.starts_with(OLD) {
        let table = number(cache, OLD.len())?.checked_mul(OLD_ENTRY)?;
        table.checked_add(OLD.len() + 4)?.checked_next_multiple_of(8)?
    } else {
        0
    };
    cache.get(start..).filter(|body| body.starts_with(NEW))
}

/// A little-endian u32.
fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    usize::try_from(u32::from_le_bytes(four.try_into().ok()?)).ok()
}

/// The string that begins here, up to its NUL.
fn text(bytes: &[u8], at: usize) -> Option<&str> {
    let rest = bytes.get(at..)?;
    let end = rest.iter().take(4096).position(|&b| b == 0)?;
    std::str::from_utf8(rest.get(..end)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache as ldconfig writes it, with the old header in front or without.
    fn cache(entries: &[(u32, &str, &str)], with_old: bool) -> Vec<u8> {
        let mut strings = Vec::new();
        let mut table = Vec::new();
        let from = HEADER + ENTRY * entries.len();
        let mut put = |text: &str| {
            let at = (from + strings.len()) as u32;
            strings.extend(text.bytes().chain([0]));
            at.to_le_bytes()
        };
        for (flags, name, path) in entries {
            table.extend(flags.to_le_bytes());
            table.extend(put(name));
            table.extend(put(path));
            table.extend([0; 12]);
        }
        let mut body = NEW.to_vec();
        body.extend((entries.len() as u32).to_le_bytes());
        body.extend((strings.len() as u32).to_le_bytes());
        body.resize(HEADER, 0);
        body.extend(table);
        body.extend(strings);
        let mut file = Vec::new();
        if with_old {
            file.extend(OLD);
            file.extend(3u32.to_le_bytes());
            file.extend([0xff; 3 * OLD_ENTRY]);
            file.resize(file.len().next_multiple_of(8), 0);
        }
        file.extend(body);
        file
    }

    fn paths(cache: &[u8], wanted: &str) -> Vec<String> {
        let mut found = Vec::new();
        each(cache, &mut |name, path| {
            if name == wanted {
                found.push(path.to_string());
            }
        });
        found
    }

    const ENTRIES: [(u32, &str, &str); 5] = [
        (0x0303, "libz.so.1", "/lib/glibc-hwcaps/x86-64-v3/libz.so.1"),
        (0x0303, "libz.so.1", "/lib/libz.so.1"),
        (0x0003, "libz.so.1", "/lib32/libz.so.1"),
        (0x0303, "libc.so.6", "/lib/libc.so.6"),
        (0x0303, "libother.so", "/lib/libother.so"),
    ];

    #[test]
    fn names_are_found_in_both_forms_and_only_for_this_machine() {
        for with_old in [false, true] {
            let cache = cache(&ENTRIES, with_old);
            let libz = ["/lib/glibc-hwcaps/x86-64-v3/libz.so.1", "/lib/libz.so.1"];
            assert_eq!(paths(&cache, "libz.so.1"), libz);
            assert_eq!(paths(&cache, "libc.so.6"), ["/lib/libc.so.6"]);
            assert_eq!(paths(&cache, "libgone.so"), [""; 0]);
        }
    }

    #[test]
    fn what_ldconfig_wrote_here_is_read() {
        let Ok(cache) = std::fs::read("/etc/ld.so.cache") else {
            return;
        };
        let first = &paths(&cache, "libc.so.6")[0];
        assert!(
            first.ends_with("/libc.so.6") && std::path::Path::new(first).exists(),
            "{first}"
        );
    }

    #[test]
    fn damage_is_passed_over() {
        let whole = cache(&ENTRIES, true);
        for length in 0..whole.len() {
            let _ = paths(&whole[..length], "libz.so.1");
        }
        for at in 0..whole.len() {
            for value in [0, 0x7f, 0xff] {
                let mut bad = whole.clone();
                bad[at] = value;
                let _ = paths(&bad, "libz.so.1");
            }
        }
        for bad in [
            &b""[..],
            b"ld.so-1.7.0\0\xff\xff\xff\xff",
            b"glibc-ld.so.cache1.1\xff\xff\xff\xff",
            b"ELF",
        ] {
            assert!(paths(bad, "libz.so.1").is_empty());
        }
        // A name without an end.
        let mut open = cache(&[(0x0303, "a", "/b")], false);
        open.pop();
        assert!(paths(&open, "a").is_empty());
    }
}
