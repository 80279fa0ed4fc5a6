use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;
use crate::facts::{Device, DriverAnswer};
use crate::receipt::Written;
use crate::receipt::device::DeviceKey;
use crate::receipt::image::{CachedFacts, ImageKey};

fn image(at: u64) -> ImagePart {
    ImagePart {
        written: Written { at },
        key: ImageKey::default(),
        facts: CachedFacts::default(),
    }
}

fn device(at: u64) -> DevicePart {
    DevicePart {
        written: Written { at },
        key: DeviceKey::default(),
        driver: DriverAnswer::default(),
        devices: vec![Device::default()],
        smoke: None,
    }
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("receipt.json");
    (dir, path)
}

/// Names in the folder: nothing but the receipt may be left there.
fn names(dir: &tempfile::TempDir) -> Vec<String> {
    let entries = fs::read_dir(dir.path()).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn parts_are_added_and_replaced_one_by_one() {
    let (dir, path) = place();
    assert_eq!(read(&path), Ok(None));
    write(&path, None, Some(device(1))).unwrap();
    write(&path, Some(image(2)), None).unwrap();
    let both = read(&path).unwrap().unwrap();
    assert_eq!((both.image.unwrap(), both.device.unwrap()), (image(2), device(1)));
    write(&path, None, Some(device(3))).unwrap();
    let both = read(&path).unwrap().unwrap();
    assert_eq!((both.image.unwrap(), both.device.unwrap()), (image(2), device(3)));
    assert_eq!(names(&dir), ["receipt.json"]);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
}

#[test]
fn what_cannot_be_believed_is_replaced_and_not_kept() {
    for bad in ["{", r#"{"schema": 1, "build": "other", "image": 7}"#] {
        let (_dir, path) = place();
        fs::write(&path, bad).unwrap();
        write(&path, None, Some(device(1))).unwrap();
        let read = read(&path).unwrap().unwrap();
        assert_eq!((read.image, read.device), (None, Some(device(1))));
    }
    // Somebody else could have put the image part there.
    let (_dir, path) = place();
    write(&path, Some(image(1)), None).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    write(&path, None, Some(device(2))).unwrap();
    let found = read(&path).unwrap().unwrap();
    assert_eq!((found.image, found.device), (None, Some(device(2))));
}

#[test]
fn a_key_twice_is_refused_wherever_it_stands() {
    let (_dir, path) = place();
    write(&path, Some(image(1)), Some(device(1))).unwrap();
    let good = String::from_utf8(fs::read(&path).unwrap()).unwrap();
    for (once, twice) in [
        (r#""schema":1"#, r#""schema":1,"schema":1"#),
        (r#""at":1"#, r#""at":9,"at":1"#),
        (
            r#""device_count":null"#,
            r#""device_count":null,"device_count":2"#,
        ),
        (r#""driver":"#, r#""driver":{},"driver":"#),
    ] {
        let text = good.replacen(once, twice, 1);
        if text != good {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(
                error.starts_with("damaged: `") && error.contains("` twice at line 1"),
                "{error}"
            );
        }
    }
    assert!(parse(good.as_bytes()).is_ok());
}

#[test]
fn every_bad_receipt_is_refused_with_a_reason() {
    let (_dir, path) = place();
    write(&path, Some(image(1)), Some(device(1))).unwrap();
    let good = fs::read(&path).unwrap();
    for length in 0..good.len() {
        let error = parse(&good[..length]).expect_err("truncated");
        assert!(
            error.starts_with("damaged: ") && error.contains("line 1 column"),
            "{error}"
        );
    }
    // Any byte: it may read as another value, but never as a panic.
    for at in 0..good.len() {
        for byte in [0, b'"', b'{', b'9', 0xff] {
            let mut bad = good.clone();
            bad[at] = byte;
            let _ = parse(&bad);
        }
    }
    let head = format!(r#""schema": 1, "build": "{BUILD}""#);
    let deep = format!(r#"{{{head}, "image": {}"#, "[".repeat(200_000));
    let nested = format!(
        r#"{{{head}, "image": {}{}}}"#,
        r#"{"facts":"#.repeat(300),
        "}".repeat(300)
    );
    for (text, part) in [
        (String::new(), "damaged: "),
        ("\0\0\0\0".to_string(), "line 1 column 1"),
        (format!("{{{head}}}\0"), "trailing characters at line 1 column"),
        ("[]".to_string(), "damaged: "),
        ("null".to_string(), "damaged: "),
        ("{}".to_string(), "missing field `schema`"),
        (r#"{"schema": 1}"#.to_string(), "missing field `build`"),
        (
            format!(r#"{{"schema": 2, "build": "{BUILD}", "image": "of the future"}}"#),
            "of schema 2, and this is 1",
        ),
        (
            r#"{"schema": 1, "build": "0.0.1+0", "image": "of the past"}"#.to_string(),
            "cuda-entrypoint was \"0.0.1+0\" and is \"",
        ),
        (
            r#"{"schema": "1", "build": ""}"#.to_string(),
            "damaged: schema: expected a whole number of 0 or more",
        ),
        (
            r#"{"schema": -1, "build": ""}"#.to_string(),
            "damaged: schema: expected a whole number of 0 or more",
        ),
        (
            format!("{{{head}, \"image\": []}}"),
            "damaged: image: expected an object",
        ),
        (
            format!("{{{head}, \"image\": {{}}}}"),
            "damaged: image: missing field `written`",
        ),
        (
            format!("{{{head}, \"device\": 1e400}}"),
            "damaged: number out of range at line 1 column",
        ),
        (deep, "recursion limit exceeded at line 1 column"),
        (nested, "recursion limit exceeded at line 1 column"),
    ] {
        let error = parse(text.as_bytes()).expect_err(part);
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(parse(b"\xff\xfe{\"schema\": 1}").is_err());
    assert_eq!(
        parse(format!("{{{head}, \"more\": [1]}}").as_bytes())
            .unwrap()
            .image,
        None
    );
}

#[test]
fn a_link_is_neither_followed_nor_replaced() {
    let (dir, path) = place();
    let target = dir.path().join("target");
    fs::write(&target, "precious").unwrap();
    symlink(&target, &path).unwrap();
    let error = write(&path, Some(image(1)), None).unwrap_err();
    assert!(error.message.contains("not a regular file"), "{error:?}");
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    assert!(path.is_symlink());
    assert_eq!(names(&dir), ["receipt.json", "target"]);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(write(&path, Some(image(1)), None).is_err());
    assert_eq!(names(&dir), ["receipt.json", "target"]);
}

#[test]
fn a_place_that_cannot_be_written_is_told_with_what_to_do() {
    let (dir, path) = place();
    for (path, part, hint) in [
        (
            dir.path().join("no/such/receipt"),
            "No such file",
            "make its folder",
        ),
        (PathBuf::from("/proc/receipt.json"), "", ""),
        (PathBuf::from("/"), "", ""),
        (PathBuf::from("/dev/full/x"), "Not a directory", "make its folder"),
    ] {
        let error = write(&path, Some(image(1)), None).expect_err(part);
        assert!(
            error.message.contains(part) && error.hint.contains(hint),
            "{error:?}"
        );
        assert!(!error.hint.is_empty());
    }
    let mut huge = image(1);
    huge.facts.loader.notes = vec!["x".repeat(1 << 20); 5];
    let error = write(&path, Some(huge), None).unwrap_err();
    assert!(error.message.contains("more than the 4194304"), "{error:?}");
    assert_eq!(names(&dir), [""; 0]);
}
