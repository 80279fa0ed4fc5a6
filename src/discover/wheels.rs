//! The distributions in site-packages, from their metadata's headers.
//!
//! Sources: PyPA specifications "Recording installed projects", "Core metadata", "Binary distribution format";
//! setuptools' documentation of egg-info. RECORD, which may list ten thousand
//! files, is read by [`super::installed`], for the stack's own packages.

use std::borrow::Cow;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::files;
use super::requirement::{MarkerEnvironment, Requirement, normalize_name};
use super::unread;
use crate::facts::{Distribution, WheelVariant};
use crate::order;
use crate::packages;
use crate::text::one_line;

/// Most bytes of metadata headers that are read. torch's are 6 KiB; a description may follow for megabytes.
const MAX_HEADERS: usize = 256 << 10;
/// Most `Requires-Dist` or `Tag` lines of one distribution that are kept.
const MAX_LINES: usize = 2_000;
/// Most lines of one distribution that bring NVIDIA's wheels with an extra: jax-cuda12-plugin has twelve.
const MAX_CUDA_LINES: usize = 64;
/// Longest header value that is kept, in characters.
const MAX_VALUE: usize = 1_000;

/// Every distribution in these folders: in the folders' order, then by name, then by path.
pub fn distributions(site_packages: &[String]) -> Vec<Distribution> {
    let mut all = Vec::new();
    for folder in site_packages {
        let mut here = in_folder(Path::new(folder));
        order::sort_by(&mut here, |a, b| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
        all.append(&mut here);
    }
    all
}

fn in_folder(folder: &Path) -> Vec<Distribution> {
    let Ok(entries) = files::list(folder) else {
        return Vec::new();
    };
    entries
        .iter()
        .filter_map(|entry| {
            let name = entry.text()?;
            // pip renames what it is about to remove to `~name`, and what an interrupted run left is not installed.
            if name.starts_with('~') {
                return None;
            }
            let path = folder.join(name);
            if let Some(stem) = name.strip_suffix(".dist-info") {
                entry.may_be_dir().then(|| dist_info(&path, stem))
            } else if let Some(stem) = name.strip_suffix(".egg-info") {
                Some(egg_info(&path, stem, entry.may_be_dir()))
            } else if name.eq_ignore_ascii_case("egg-info") && entry.may_be_dir() {
                // An egg is a folder of `sys.path` of its own, and carries its metadata inside.
                let stem = folder.file_name().and_then(|n| n.to_str()).unwrap_or_default();
                Some(egg_info(&path, stem.strip_suffix(".egg").unwrap_or(stem), true))
            } else {
                None
            }
        })
        .collect()
}

fn dist_info(path: &Path, stem: &str) -> Distribution {
    let mut dist = described(path, &path.join("METADATA"), stem);
    if dist.requires.iter().any(|line| line.contains("variant_")) {
        dist.variant = variant(path);
    }
    match read_headers(&path.join("WHEEL")) {
        Ok(text) => dist.tags = tags(&text),
        // Not every installer writes one: conda packages and editable installs may have none.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => dist
            .problems
            .push(format!("{}: {e}", path.join("WHEEL").display())),
    }
    add_module_version(&mut dist);
    dist
}

fn egg_info(path: &Path, stem: &str, is_dir: bool) -> Distribution {
    let metadata = if is_dir {
        path.join("PKG-INFO")
    } else {
        path.to_path_buf()
    };
    let mut dist = described(path, &metadata, stem);
    if is_dir
        && dist.requires.is_empty()
        && let Ok(text) = files::read_text(&path.join("requires.txt"), files::SMALL_FILE)
    {
        dist.requires = egg_requirements(&text);
    }
    add_module_version(&mut dist);
    dist
}

/// Name, version and requirements from the metadata; name and version from the folder's name where it is silent.
fn described(path: &Path, metadata: &Path, stem: &str) -> Distribution {
    let mut dist = Distribution {
        path: path.to_string_lossy().into_owned(),
        ..Distribution::default()
    };
    match read_headers(metadata) {
        Ok(text) => {
            take_metadata(&mut dist, &text);
            if dist.name.is_empty() || dist.version.is_empty() {
                dist.problems
                    .push(format!("{}: no Name or no Version", metadata.display()));
            }
        }
        Err(e) => dist.problems.push(format!("{}: {e}", metadata.display())),
    }
    // name-version.dist-info; an egg has -py3.11 and perhaps a platform behind it.
    let mut parts = stem.split('-');
    let (name, version) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if dist.name.is_empty() {
        dist.name = normalize_name(&one_line(name, MAX_VALUE));
    }
    if dist.version.is_empty() {
        dist.version = one_line(version, MAX_VALUE);
    }
    dist
}

/// Takes name, version and requirements from the headers of a METADATA or PKG-INFO.
pub fn take_metadata(dist: &mut Distribution, text: &str) {
    for (key, value) in headers(text) {
        if key.eq_ignore_ascii_case("name") && dist.name.is_empty() {
            dist.name = normalize_name(&one_line(&value, MAX_VALUE));
        } else if key.eq_ignore_ascii_case("version") && dist.version.is_empty() {
            dist.version = one_line(&value, MAX_VALUE);
        } else if key.eq_ignore_ascii_case("requires-dist")
            && dist.requires.len() < MAX_LINES
            && may_apply(&value)
        {
            dist.requires.push(one_line(&value, MAX_VALUE));
        } else if key.eq_ignore_ascii_case("requires-dist")
            && dist.cuda_extras.len() < MAX_CUDA_LINES
            && is_nvidias(&value)
            && !is_nvidias(&dist.name)
            && value.contains("extra")
        {
            dist.cuda_extras.push(one_line(&value, MAX_VALUE));
        }
    }
}

/// A wheel of NVIDIA's, or the package whose extras bring them.
fn is_nvidias(requirement: &str) -> bool {
    let starts = |start: &&str| {
        let head = requirement.get(..start.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(start))
    };
    ["nvidia-", "nvidia_", "cuda-toolkit"].iter().any(starts)
}

/// The requirements of a `.dist-info` that stand behind an extra.
pub(super) fn lines_of_extras(dist_info: &Path) -> Vec<String> {
    let text = read_headers(&dist_info.join("METADATA")).unwrap_or_default();
    headers(&text)
        .filter(|(key, value)| key.eq_ignore_ascii_case("requires-dist") && value.contains("extra"))
        .take(MAX_LINES)
        .map(|(_, value)| one_line(&value, MAX_VALUE))
        .collect()
}

/// The variant that a wheel was built as: the one label in its `variant.json` (PEP 825). `None` where the file makes no
/// sense.
pub(super) fn variant(dist_info: &Path) -> Option<WheelVariant> {
    let text = match files::read_text(&dist_info.join("variant.json"), files::SMALL_FILE) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Some(WheelVariant::default()),
        Err(_) => return None,
    };
    let file: Value = serde_json::from_str(&text).ok()?;
    let variants = file.get("variants")?.as_object()?;
    let (label, namespaces) = variants.iter().next().filter(|_| variants.len() == 1)?;
    let mut properties = Vec::new();
    for (namespace, features) in namespaces.as_object()? {
        for (feature, values) in features.as_object()? {
            for value in values.as_array()? {
                let property = format!("{namespace} :: {feature} :: {}", value.as_str()?);
                properties.push(one_line(&property, MAX_VALUE));
            }
        }
    }
    Some(WheelVariant {
        label: one_line(label, MAX_VALUE),
        properties,
    })
}

/// The tags in the headers of a WHEEL.
pub fn tags(text: &str) -> Vec<String> {
    headers(text)
        .filter(|(key, _)| key.eq_ignore_ascii_case("tag"))
        .take(MAX_LINES)
        .map(|(_, value)| one_line(&value, MAX_VALUE))
        .collect()
}

/// Takes the interpreter out of tags that name another CPython than this one, where RECORD lists no extension module that
/// rests on it: decord 0.6.0 is tagged `cp36-cp36m`, and has one library that Python opens by ctypes.
pub fn without_stale_tags(distributions: &mut [Distribution], version: Option<&str>) {
    let Some(minor) = version.and_then(|version| version.strip_prefix("3.")?.split('.').next()) else {
        return;
    };
    let this = format!("cp3{minor}");
    let is_of_another = |tag: &String| {
        let mut parts = tag.split('-');
        let (Some(interpreters), Some(abi)) = (parts.next(), parts.next()) else {
            return false;
        };
        interpreters
            .split('.')
            .all(|name| name.starts_with("cp3") && name != this)
            && abi.starts_with("cp3")
    };
    for dist in distributions {
        if dist.tags.is_empty() || !dist.tags.iter().all(is_of_another) {
            continue;
        }
        let record = super::installed::record_text(Path::new(&dist.path));
        let mut files = record.lines().filter_map(|line| line.split(',').next());
        if record.is_empty() || files.any(is_extension) {
            continue;
        }
        for tag in &mut dist.tags {
            if let Some(platform) = tag.split('-').nth(2) {
                *tag = format!("py3-none-{platform}");
            }
        }
    }
}

/// Whether Python would import a file as an extension module. A `libx.so` is a library that something opens.
fn is_extension(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.ends_with(".so") && (!name.starts_with("lib") || name.contains(".cpython-"))
}

/// Whether a requirement can count here whatever the version of Python: nine in ten are for an extra or for Windows,
/// and would only swell the facts. What cannot be parsed is kept, so that it is judged in the open.
pub fn may_apply(line: &str) -> bool {
    let Some((versions, marker)) = line.split_once(';') else {
        return true;
    };
    // A URL may hold a semicolon and whatever looks like a marker, and so may brackets.
    let is_plain = !versions.contains('@') && versions.contains('[') == versions.contains(']');
    if is_plain && is_for_an_extra(marker) {
        return false;
    }
    let parse = |line: &str| line.parse::<Requirement>().ok();
    parse(line).is_none_or(|r| r.applies(&MarkerEnvironment::of(None)) != Some(false))
}

/// `extra == 'test'`, alone or with more that must hold as well: seen without parsing, since most lines of a large
/// environment are of this form.
fn is_for_an_extra(marker: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    let is_text = |value: &str| {
        value.starts_with(['\'', '"']) && !value.starts_with("''") && !value.starts_with("\"\"")
    };
    // Without an `or`, one part that does not hold decides.
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if marker.split(|c| !is_letter(c)).any(|word| word == "or") {
        return false;
    }
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in marker.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '\'' | '"') => quote = Some(c),
            None if c == 'e' && !is_word(before) => {
                let rest = marker.get(at..).and_then(|rest| rest.strip_prefix("extra"));
                let value = rest.and_then(|rest| rest.trim_start().strip_prefix("=="));
                if value.is_some_and(|value| is_text(value.trim_start())) {
                    return true;
                }
            }
            None => {}
        }
        before = c;
    }
    false
}

/// The file up to the empty line that ends its headers, at most [`MAX_HEADERS`] bytes.
fn read_headers(path: &Path) -> std::io::Result<String> {
    let _going = super::reading::begin(path);
    unread::noted(path, headers_of(files::open_regular(path)?))
}

/// The same of what is open already.
///
/// # Errors
/// Those of reading.
pub fn headers_of(mut file: impl Read) -> std::io::Result<String> {
    const CHUNK: usize = 8 << 10;
    let mut bytes = Vec::new();
    let mut chunk = [0; CHUNK];
    loop {
        // One call of read for the usual file: a `read_to_end` would make three.
        let before = bytes.len();
        let read = match file.read(&mut chunk) {
            Ok(read) => read,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        bytes.extend_from_slice(chunk.get(..read).unwrap_or_default());
        // The end may straddle two chunks: \n\r | \n
        let from = before.saturating_sub(2);
        if let Some(end) = bytes.get(from..).and_then(end_of_headers) {
            bytes.truncate((from + end).min(MAX_HEADERS));
            break;
        }
        // An end at the limit shows in the two bytes behind it.
        if read == 0 || bytes.len() >= MAX_HEADERS + 3 {
            bytes.truncate(MAX_HEADERS);
            break;
        }
    }
    Ok(files::lossy(bytes))
}

/// Where the line before an empty one ends.
fn end_of_headers(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + bytes.get(from..)?.iter().position(|&b| b == b'\n')?;
        match bytes.get(at + 1..)? {
            [b'\n', ..] | [b'\r', b'\n', ..] => return Some(at),
            _ => from = at + 1,
        }
    }
}

/// Headers as RFC 5322 has them: `Key: value`, continued on lines that start with a blank.
fn headers(text: &str) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
    let mut lines = text.lines().peekable();
    std::iter::from_fn(move || {
        loop {
            let line = lines.next()?;
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            if key.is_empty() || key.bytes().any(|b| b.is_ascii_whitespace()) {
                continue;
            }
            let mut value = Cow::Borrowed(value.trim());
            while let Some(more) = lines.next_if(|l| l.starts_with([' ', '\t'])) {
                if value.len() <= MAX_VALUE {
                    let folded = value.to_mut();
                    folded.push(' ');
                    folded.push_str(more.trim());
                }
            }
            return Some((key, value));
        }
    })
}

/// requires.txt: requirements, then `[extra]` or `[extra:marker]` sections; those of an extra do not count.
pub fn egg_requirements(text: &str) -> Vec<String> {
    let mut marker = Some(String::new());
    let mut found = Vec::new();
    for line in text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        if let Some(section) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            marker = section
                .split_once(':')
                .and_then(|(extra, marker)| extra.is_empty().then(|| format!(" ; {marker}")));
        } else if let (Some(marker), true) = (&marker, found.len() < MAX_LINES) {
            found.push(one_line(&format!("{line}{marker}"), MAX_VALUE));
        }
    }
    found
}

/// The names that `top_level.txt` lists, without blanks around them; none where there is no such file.
pub fn top_level(dist: &Distribution) -> Vec<String> {
    let path = Path::new(&dist.path).join("top_level.txt");
    let text = files::read_text(&path, files::SMALL_FILE).unwrap_or_default();
    text.lines().map(|line| line.trim().to_string()).collect()
}

/// The file in which a distribution's module states its own version, whether it is there or not.
pub fn version_file(dist: &Distribution) -> Option<PathBuf> {
    let file = packages::of(&dist.name)?.version_file.get()?;
    Some(Path::new(&dist.path).parent()?.join(file))
}

fn add_module_version(dist: &mut Distribution) {
    let Some(path) = version_file(dist) else { return };
    match files::read_text(&path, files::SMALL_FILE) {
        Ok(text) => {
            dist.module_version = assigned_text(&text, "__version__");
            dist.module_cuda = assigned_text(&text, "cuda");
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => dist.problems.push(format!("{}: {e}", path.display())),
    }
}

/// The text that a module's top level assigns to `name`, by its last assignment: `name = '1'`, `name: str = "1"`.
/// Anything but one plain string (`None`, a call, an escape) counts as no text.
pub fn assigned_text(source: &str, name: &str) -> Option<String> {
    let mut values = source.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?.trim_start();
        match rest.strip_prefix(':') {
            Some(annotated) => annotated.split_once('=').map(|(_, value)| value),
            None => rest.strip_prefix('=').filter(|value| !value.starts_with('=')),
        }
    });
    plain_string(values.next_back()?.trim())
}

fn plain_string(value: &str) -> Option<String> {
    let quote = value.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let (text, rest) = value.get(1..)?.split_once(quote)?;
    let rest = rest.trim_start();
    (!text.is_empty() && !text.contains('\\') && (rest.is_empty() || rest.starts_with(['#', ';'])))
        .then(|| one_line(text, MAX_VALUE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Site(tempfile::TempDir);

    impl Site {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }
        fn file(&self, path: &str, text: impl AsRef<[u8]>) -> &Self {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }
        fn found(&self) -> Vec<Distribution> {
            distributions(&[self.0.path().to_str().unwrap().to_string()])
        }
        fn only(&self) -> Distribution {
            let found = self.found();
            assert_eq!(found.len(), 1, "{found:?}");
            found.into_iter().next().unwrap()
        }
    }

    #[test]
    fn a_stale_tag_of_a_wheel_without_extensions_counts_for_its_platform_alone() {
        const TAG: &str = "cp36-cp36m-manylinux2010_x86_64";
        for (record, tag, version, expected) in [
            (
                "decord/libdecord.so,sha256=x,1\ndecord/__init__.py,,\n",
                TAG,
                "3.11.7",
                "py3-none-manylinux2010_x86_64",
            ),
            ("x/_C.so,sha256=x,1\n", TAG, "3.11.7", TAG),
            ("x/a.cpython-36m-x86_64-linux-gnu.so,,\n", TAG, "3.11.7", TAG),
            ("", TAG, "3.11.7", TAG),
            ("x/__init__.py,,\n", TAG, "3.6.9", TAG),
            ("x/__init__.py,,\n", "py2-none-any", "3.11", "py2-none-any"),
        ] {
            let site = Site::new();
            site.file("x-1.dist-info/METADATA", "Name: x\nVersion: 1\n")
                .file("x-1.dist-info/WHEEL", format!("Tag: {tag}\n"))
                .file("x-1.dist-info/RECORD", record);
            let mut found = site.found();
            without_stale_tags(&mut found, Some(version));
            assert_eq!(found[0].tags, [expected], "{record} {version}");
        }
    }

    #[test]
    fn lines_of_extras_that_bring_cuda_are_kept() {
        let of_ctk = "cuda-toolkit[cublas,cudart]==12.*; extra == \"ctk\"";
        let lines = |name: &str| {
            let site = Site::new();
            let text = format!(
                "Name: {name}\nVersion: 1\nRequires-Dist: numpy\nProvides-Extra: ctk\nRequires-Dist: {of_ctk}\n\
                 Requires-Dist: nvidia-nccl-cu12\nRequires-Dist: scipy; extra == \"all\"\n\n"
            );
            site.file("x-1.dist-info/METADATA", text);
            site.only().cuda_extras
        };
        assert_eq!(lines("cupy-cuda12x"), [of_ctk]);
        assert_eq!(lines("nvidia-cublas"), [""; 0]);
        assert_eq!(lines("cuda-toolkit"), [""; 0]);
    }

    #[test]
    fn a_wheel_as_pip_installs_it() {
        let site = Site::new();
        site.file(
            "spconv_cu124-2.3.8.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: spconv_cu124\nVersion: 2.3.8\nClassifier: A :: B\n\
             Requires-Dist: pccm>=0.4.16\nRequires-Dist: cumm-cu124<0.8.0,>=0.7.11\n\nName: not-a-header\n",
        )
        .file(
            "spconv_cu124-2.3.8.dist-info/WHEEL",
            "Wheel-Version: 1.0\nTag: cp311-cp311-manylinux_2_28_x86_64\n",
        );
        let dist = site.only();
        assert_eq!(
            (dist.name.as_str(), dist.version.as_str()),
            ("spconv-cu124", "2.3.8")
        );
        assert_eq!(dist.tags, ["cp311-cp311-manylinux_2_28_x86_64"]);
        assert_eq!(dist.requires, ["pccm>=0.4.16", "cumm-cu124<0.8.0,>=0.7.11"]);
        assert_eq!(dist.problems, [""; 0]);
    }

    #[test]
    fn folded_headers_and_carriage_returns() {
        let site = Site::new();
        site.file(
            "x-1.dist-info/METADATA",
            "Name: x\r\nVersion: 1\r\nRequires-Dist: a>=1,\r\n\t<2\r\nLicense: many\r\n  lines: here\r\n\r\nVersion: 9",
        );
        let dist = site.only();
        assert_eq!(dist.requires, ["a>=1, <2"]);
        assert_eq!(dist.version, "1");
    }

    #[test]
    fn requirements_that_never_count_are_left_out() {
        let site = Site::new();
        site.file(
            "x-1.dist-info/METADATA",
            "Name: x\nVersion: 1\nRequires-Dist: a; extra == 'test'\nRequires-Dist: b; python_version < '3.9'\n\
             Requires-Dist: c; sys_platform == 'win32'\nRequires-Dist: d\nRequires-Dist: e; what is this\n",
        );
        assert_eq!(
            site.only().requires,
            ["b; python_version < '3.9'", "d", "e; what is this"]
        );
    }

    #[test]
    fn a_variant_is_read_where_a_requirement_depends_on_it() {
        let metadata = "Name: x\nVersion: 1\nRequires-Dist: a; 'nvidia' in variant_namespaces\n";
        let with = |variant: Option<&str>| {
            let site = Site::new();
            site.file("x-1.dist-info/METADATA", metadata);
            if let Some(text) = variant {
                site.file("x-1.dist-info/variant.json", text);
            }
            site.only().variant
        };
        let read = with(Some(
            r#"{"default-priorities": {"namespace": ["nvidia"]},
                "variants": {"cu13": {"nvidia": {"sm": ["90", "100"]}, "x86_64": {"level": ["v3"]}}}}"#,
        ))
        .unwrap();
        assert_eq!(read.label, "cu13");
        assert_eq!(
            read.properties,
            [
                "nvidia :: sm :: 90",
                "nvidia :: sm :: 100",
                "x86_64 :: level :: v3"
            ],
            "{read:?}"
        );
        assert_eq!(with(None), Some(WheelVariant::default()));
        assert_eq!(with(Some(r#"{"variants": {"null": {}}}"#)).unwrap().label, "null");
        for broken in [
            "",
            "[]",
            "{}",
            r#"{"variants": {}}"#,
            r#"{"variants": {"a": {}, "b": {}}}"#,
        ] {
            assert_eq!(with(Some(broken)), None, "{broken}");
        }
        let site = Site::new();
        site.file(
            "y-1.dist-info/METADATA",
            "Name: y\nVersion: 1\nRequires-Dist: a\n",
        );
        assert_eq!(site.only().variant, None);
    }

    #[test]
    fn an_extra_is_seen_without_the_parser_and_means_what_the_parser_says() {
        for (marker, seen) in [
            (" extra == 'test'", true),
            ("extra==\"test\"", true),
            (" python_version < '3.9' and extra == 'test'", true),
            (" (extra == 'test') and sys_platform == 'linux'", true),
            (" extra == 'tensor'", true),
            (" extra == 'or'", false),
            (" (extra == 'test')or(sys_platform == 'linux')", false),
            (" extra == 'test' or sys_platform == 'linux'", false),
            (" extra == ''", false),
            (" extra != 'test'", false),
            (" 'test' == extra", false),
            (" platform_release == 'extra'", false),
            (" platform_release == 'extra == \"test\"'", false),
            (" platform_extra == 'test'", false),
            (" os.extra == 'test'", false),
            (" extra != 'a' and extra == 'test'", true),
            (" sys_platform == 'linux'", false),
            ("", false),
        ] {
            assert_eq!(is_for_an_extra(marker), seen, "{marker}");
            if seen {
                let requirement: Requirement = format!("x;{marker}").parse().unwrap();
                assert_eq!(
                    requirement.applies(&MarkerEnvironment::of(None)),
                    Some(false),
                    "{marker}"
                );
            }
        }
    }

    #[test]
    fn how_much_a_read_returns_changes_nothing() {
        for length in MAX_HEADERS - 3..MAX_HEADERS + 3 {
            let mut file = vec![b'x'; length];
            file.extend(b"\n\nbody");
            let whole = headers_of(file.as_slice()).unwrap();
            assert_eq!(whole.len(), length.min(MAX_HEADERS));
            for cut in MAX_HEADERS - 8..(MAX_HEADERS + 8).min(file.len()) {
                let (first, then) = file.split_at(cut);
                assert!(
                    headers_of(first.chain(then)).unwrap() == whole,
                    "{length} cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn urls_and_extras_are_no_markers() {
        for (line, kept) in [
            ("x @ https://a/b;extra == 'c' ; sys_platform == 'linux'", true),
            ("x @ https://a/b ; extra == 'c'", false),
            ("x[a;extra == 'c']", true),
            ("x[a];extra == 'c'", false),
            ("x ; extra == 'c'", false),
        ] {
            assert_eq!(may_apply(line), kept, "{line}");
        }
    }

    #[test]
    fn the_end_of_the_headers_is_seen_across_chunks() {
        for pad in 8_100..8_200 {
            let site = Site::new();
            for end in ["\n", "\r\n"] {
                let summary = "s".repeat(pad);
                let text = format!("Name: x\nVersion: 1\nSummary: {summary}{end}{end}Requires-Dist: body\n");
                site.file("x-1.dist-info/METADATA", text);
                assert_eq!(site.only().requires, [""; 0], "{pad} {end:?}");
            }
        }
    }

    #[test]
    fn torch_states_its_build_in_its_own_file() {
        let site = Site::new();
        site.file("torch-2.5.0.dist-info/METADATA", "Name: torch\nVersion: 2.5.0\n").file(
            "torch/version.py",
            "from typing import Optional\n\n__all__ = ['__version__', 'cuda']\n__version__ = '2.5.0+cu124'\n\
             debug = False\ncuda: Optional[str] = '12.4'\ngit_version = 'abc'\nhip: Optional[str] = None\n",
        );
        let dist = site.only();
        assert_eq!(dist.module_version.as_deref(), Some("2.5.0+cu124"));
        assert_eq!(dist.module_cuda.as_deref(), Some("12.4"));
    }

    #[test]
    fn only_plain_assignments_of_the_top_level_count() {
        for (source, expected) in [
            ("__version__ = '1.2'", Some("1.2")),
            ("__version__ = \"1.2\"  # pin", Some("1.2")),
            ("__version__='1'\n__version__='2'", Some("2")),
            ("__version__: str = '1.2'", Some("1.2")),
            ("__version__ = None", None),
            ("__version__ = '1'\n__version__ = read()", None),
            ("__version__ == '1.2'", None),
            ("    __version__ = '1.2'", None),
            ("__version__ = '1' + x", None),
            ("__version__ = '1\\x00'", None),
            ("__version_info__ = '1.2'", None),
            ("__version__ = '1.2", None),
            ("__version__ = ''", None),
            ("__version__ = \u{e9}", None),
            ("", None),
        ] {
            assert_eq!(
                assigned_text(source, "__version__").as_deref(),
                expected,
                "{source}"
            );
        }
    }

    #[test]
    fn eggs_of_all_shapes() {
        let site = Site::new();
        site.file(
            "PyJWT-2.6.0.egg-info",
            "Metadata-Version: 2.1\nName: PyJWT\nVersion: 2.6.0\n",
        )
        .file(
            "pointops-1.0-py3.11.egg-info/PKG-INFO",
            "Name: pointops\nVersion: 1.0\n",
        )
        .file(
            "pointops-1.0-py3.11.egg-info/requires.txt",
            "torch>=2\n\n[:python_version < \"3.12\"]\nolder\n\n[test]\npytest\n\n[test:os_name=='nt']\nx\n",
        )
        .file("EGG-INFO/PKG-INFO", "Name: Inside.Egg\nVersion: 3\n");
        let found = site.found();
        let names: Vec<_> = found
            .iter()
            .map(|d| (d.name.as_str(), d.version.as_str()))
            .collect();
        assert_eq!(
            names,
            [("inside-egg", "3"), ("pointops", "1.0"), ("pyjwt", "2.6.0")]
        );
        assert_eq!(
            found[1].requires,
            ["torch>=2", "older ; python_version < \"3.12\""]
        );
    }

    #[test]
    fn what_pip_left_half_removed_is_not_installed() {
        let site = Site::new();
        site.file("~orch-2.4.0.dist-info/METADATA", "Name: torch\nVersion: 2.4.0\n");
        site.file("note.dist-info", "a file");
        assert_eq!(site.found(), []);
    }

    #[test]
    fn hostile_metadata_is_a_problem_and_not_an_end() {
        let site = Site::new();
        site.file("bin-1.0.dist-info/METADATA", [0u8, 255, 254, 10].repeat(1000));
        site.file("folder-2.0.dist-info/METADATA/x", "");
        site.file("none-3.0.dist-info/RECORD", "");
        site.file(
            "escape-4.dist-info/METADATA",
            "Name: a\u{1b}[2Jb\nVersion: 1\u{7}\n",
        );
        site.file("torch-5.dist-info/METADATA", "Name: torch\nVersion: 5\n")
            .file("torch/version.py/x", "");
        let dir = site.0.path();
        fs::create_dir(dir.join("fifo-6.dist-info")).unwrap();
        nix::unistd::mkfifo(
            &dir.join("fifo-6.dist-info/METADATA"),
            nix::sys::stat::Mode::S_IRWXU,
        )
        .unwrap();
        std::os::unix::fs::symlink("loop-7.dist-info", dir.join("loop-7.dist-info")).unwrap();
        use std::os::unix::ffi::OsStrExt;
        fs::create_dir(dir.join(std::ffi::OsStr::from_bytes(b"\xff-8.dist-info"))).unwrap();
        let found = site.found();
        let seen: Vec<_> = found
            .iter()
            .map(|d| (d.name.as_str(), d.version.as_str(), d.problems.len()))
            .collect();
        let expected = [
            (r"a\u{1b}[2jb", r"1\u{7}", 0),
            ("bin", "1.0", 1),
            ("fifo", "6", 1),
            ("folder", "2.0", 1),
            ("loop", "7", 2),
            ("none", "3.0", 1),
            ("torch", "5", 1),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_hundred_megabytes_of_metadata_are_not_read() {
        let site = Site::new();
        site.file("big-1.dist-info/METADATA", "Name: big\nVersion: 1\n");
        let path = site.0.path().join("big-1.dist-info/METADATA");
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(100 << 20)
            .unwrap();
        assert_eq!(read_headers(&path).unwrap().len(), MAX_HEADERS);
        assert_eq!(site.only().name, "big");
    }
}
