//! RECORD: the files that an installer put there for one distribution. Pure.
//!
//! Sources: PyPA specification "Recording installed projects" (PEP 376, PEP 627); RFC 4180 for its quotes. A line is
//! `path,hash,size`, the path relative to the folder that holds the dist-info.

use std::borrow::Cow;

/// Top-level folders that packages carry by accident, and that nobody imports.
const NOT_IMPORTED: [&str; 6] = ["tests", "test", "docs", "doc", "examples", "benchmarks"];

/// Most libraries, and most packages, that are taken: each one is looked for. torch has forty.
const MAX_FILES: usize = 20_000;

/// What of a RECORD counts: files without which something certainly breaks.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record<'a> {
    /// shared libraries
    pub libraries: Vec<Cow<'a, str>>,
    /// of each library the hash and the size in bytes, as written: `sha256=…,132696`; empty where there are none
    pub contents: Vec<&'a str>,
    /// top-level packages, by import name, whose `__init__.py` is not empty. An empty one may go: an import takes the
    /// folder all the same, and pip takes `nvidia/__init__.py` along with any one of NVIDIA's wheels.
    pub packages: Vec<Cow<'a, str>>,
    /// there are top-level packages, empty ones among them
    pub has_packages: bool,
}

/// Reads a RECORD. A line that makes no sense is left out.
pub fn parse(text: &str) -> Record<'_> {
    let mut record = Record::default();
    let mut rest = text;
    while !rest.is_empty() {
        let (path, line);
        if rest.starts_with('"') {
            // Of a quoted path that never ends nothing is left.
            let (quoted, after) = quoted(rest);
            path = Cow::Owned(quoted);
            (line, rest) = after.split_once('\n').unwrap_or((after, ""));
        } else {
            (line, rest) = rest.split_once('\n').unwrap_or((rest, ""));
            let end = line.find(',').unwrap_or(line.len());
            path = Cow::Borrowed(line.get(..end).unwrap_or_default().trim_end_matches('\r'));
        }
        if !may_count(&path) {
            continue;
        }
        if is_library(&path) {
            if record.libraries.len() < MAX_FILES {
                record.libraries.push(path);
                record.contents.push(contents(line));
            }
        } else if let Some(package) = package(&path) {
            record.has_packages = true;
            let size = line.trim_end().rsplit(',').next().unwrap_or_default();
            if size.trim_matches('"') != "0" && record.packages.len() < MAX_FILES {
                record.packages.push(match path {
                    Cow::Borrowed(path) => Cow::Borrowed(path.get(..package).unwrap_or_default()),
                    Cow::Owned(path) => Cow::Owned(path.get(..package).unwrap_or_default().to_string()),
                });
            }
        }
    }
    record
}

/// The hash and the size at the end of a line.
fn contents(line: &str) -> &str {
    let line = line.trim_end();
    let size = line.rfind(',').unwrap_or_default();
    let hash = line.get(..size).and_then(|before| before.rfind(','));
    hash.and_then(|comma| line.get(comma + 1..)).unwrap_or_default()
}

/// The size that [`Record::contents`] holds.
pub fn size(contents: &str) -> Option<u64> {
    contents.rsplit_once(',')?.1.trim_matches('"').parse().ok()
}

/// A first field in quotes, and what is behind it.
fn quoted(text: &str) -> (String, &str) {
    // A quote inside is written twice.
    let mut path = String::new();
    let mut rest = text.get(1..).unwrap_or_default();
    while let Some((part, after)) = rest.split_once('"') {
        path.push_str(part);
        let Some(more) = after.strip_prefix('"') else {
            return (path, after);
        };
        path.push('"');
        rest = more;
    }
    // It never ends: this line is lost, and the next one is read.
    let end = text.find('\n').unwrap_or(text.len());
    (String::new(), text.get(end..).unwrap_or_default())
}

/// By its last bytes: most of torch's 13,000 lines are headers and sources, and a search in each of them takes its time.
fn may_count(path: &str) -> bool {
    matches!(
        path.as_bytes(),
        [.., b'.', b's', b'o'] | [.., b'0'..=b'9'] | [.., b'_', b'.', b'p', b'y']
    )
}

/// `libX.so`, `libX.so.12.4`: one that something loads. Libraries of tests and stubs for linkers are not missed.
fn is_library(path: &str) -> bool {
    let Some((before, behind)) = path.rsplit_once(".so") else {
        return false;
    };
    let is_version = behind
        .strip_prefix('.')
        .is_some_and(|numbers| numbers.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
    if !behind.is_empty() && !is_version {
        return false;
    }
    let (folders, name) = before.rsplit_once('/').unwrap_or(("", before));
    let is_aside = |folder: &str| matches!(folder, "tests" | "test" | "testing" | "stubs");
    let stem = name.split('.').next().unwrap_or_default();
    !name.is_empty()
        && !folders.split('/').any(is_aside)
        && !stem.ends_with("_test")
        && !stem.ends_with("_tests")
}

/// How long the name is in `NAME/__init__.py`.
fn package(path: &str) -> Option<usize> {
    let name = path.strip_suffix("/__init__.py")?;
    let is_name = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || !b.is_ascii());
    (is_name && !NOT_IMPORTED.contains(&name)).then_some(name.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn libraries(text: &str) -> Vec<Cow<'_, str>> {
        parse(text).libraries
    }

    #[test]
    fn libraries_and_packages_as_pip_records_them() {
        let record = parse(
            "../../../bin/torchrun,sha256=x,213\ntorch-2.5.0.dist-info/RECORD,,\ntorch/__init__.py,sha256=x,90412\n\
             torch/_C.cpython-311-x86_64-linux-gnu.so,sha256=x,37913\ntorch/lib/libcudnn.so.9,sha256=x,1\n\
             torch/nn/__init__.py,sha256=x,3\ntorch/version.py,sha256=x,5\nfunctorch/__init__.py,sha256=x,9\n\
             torch/include/a.h,sha256=x,1\nnvidia/__init__.py,sha256=x,0\nother/__init__.py,,\n",
        );
        assert_eq!(
            record.libraries,
            [
                "torch/_C.cpython-311-x86_64-linux-gnu.so",
                "torch/lib/libcudnn.so.9"
            ]
        );
        assert_eq!(record.contents, ["sha256=x,37913", "sha256=x,1"]);
        assert_eq!(record.packages, ["torch", "functorch", "other"]);
        assert!(record.has_packages);
        let empty = parse("nvidia/__init__.py,sha256=x,0\n");
        assert!(empty.packages.is_empty() && empty.has_packages);
    }

    #[test]
    fn what_nothing_loads_is_not_missed() {
        for (path, counts) in [
            ("x/libnvrtc-builtins.so.12.4", true),
            ("x.so", true),
            ("torchvision.libs/libcudart.41118559.so.12", true),
            ("../../../lib/libmkl_rt.so.2", true),
            ("x/lib.so.py", false),
            ("x/libx.so.debug", false),
            ("x/some.sort", false),
            ("x/.so", false),
            ("numpy/_core/_umath_tests.cpython-311-x86_64-linux-gnu.so", false),
            ("scipy/tests/x.so", false),
            ("torch/lib/libjitbackend_test.so", false),
            ("triton/lib/stubs/libcuda.so", false),
            ("x/so", false),
        ] {
            assert_eq!(is_library(path), counts, "{path}");
        }
        for (path, name) in [
            ("torch/__init__.py", true),
            ("tests/__init__.py", false),
            ("x-1.dist-info/__init__.py", false),
            ("torch/nn/__init__.py", false),
            ("/__init__.py", false),
            ("__init__.py", false),
            ("../__init__.py", false),
        ] {
            assert_eq!(package(path).is_some(), name, "{path}");
        }
    }

    #[test]
    fn quotes_commas_and_line_ends() {
        assert_eq!(
            libraries("\"a,b.so\",sha256=x,1\r\nc.so,x,1\r\n"),
            ["a,b.so", "c.so"]
        );
        assert_eq!(
            libraries("\"a\"\"b.so\",\"sha256=x\",\"1\"\nc.so"),
            ["a\"b.so", "c.so"]
        );
        assert_eq!(libraries("\"a\nb.so\",,\nc.so\r\n"), ["a\nb.so", "c.so"]);
        assert_eq!(
            parse("\"x/__init__.py\",\"h\",\"0\"\ny/__init__.py,h,0\r\n").packages,
            [""; 0]
        );
    }

    #[test]
    fn sizes_of_libraries() {
        for (line, expected) in [
            ("a.so,sha256=x,12", Some(12)),
            ("\"a,b.so\",\"sha256=x\",\"12\"\r\n", Some(12)),
            ("a.so,,", None),
            ("a.so,,12", Some(12)),
            ("a.so,12", None),
            ("a.so", None),
            ("a.so,sha256=x,-1", None),
            ("a.so,sha256=x,99999999999999999999999", None),
        ] {
            assert_eq!(
                parse(line).contents.first().and_then(|c| size(c)),
                expected,
                "{line}"
            );
        }
    }

    #[test]
    fn no_more_is_taken_than_can_be_looked_for() {
        let text = "a.so\nb/__init__.py\n".repeat(MAX_FILES + 1);
        let record = parse(&text);
        assert_eq!(
            (record.libraries.len(), record.packages.len()),
            (MAX_FILES, MAX_FILES)
        );
    }

    #[test]
    fn damage_costs_its_own_line() {
        assert_eq!(libraries(""), [""; 0]);
        assert_eq!(libraries("\n\n,\n,,,\n\r\na.so"), ["a.so"]);
        assert_eq!(libraries("\"a.so,x,1\nb.so,x,1\n"), ["b.so"]);
        assert_eq!(libraries("a.so"), ["a.so"]);
        assert_eq!(libraries("\"\"\"\"\"\n\"\nb.so"), ["b.so"]);
        assert_eq!(libraries("\u{fffd}\u{e9}.so,\u{e9}\n"), ["\u{fffd}\u{e9}.so"]);
    }
}
