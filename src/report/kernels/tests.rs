use super::*;
use crate::discover::fatbin::Served;
use crate::facts::ComputeCapability;

fn targets(pairs: &[(&str, u64)]) -> BTreeMap<Target, u64> {
    let read = |text: &str| crate::facts::from_json(format!("{text:?}").as_bytes()).unwrap();
    pairs.iter().map(|&(text, n)| (read(text), n)).collect()
}

fn served(rows: &[(u8, u8, u64, u64)]) -> BTreeMap<ComputeCapability, Served> {
    let row = |&(major, minor, sass, ptx)| (ComputeCapability { major, minor }, Served { sass, ptx });
    rows.iter().map(row).collect()
}

fn isa(arch: &str, versions: &[(&str, u64)]) -> Vec<PtxIsa> {
    let read = |(version, fatbins): &(&str, u64)| {
        let json = serde_json::json!({"arch": arch, "version": version, "fatbins": fatbins});
        crate::facts::from_json(json.to_string().as_bytes()).unwrap()
    };
    versions.iter().map(read).collect()
}

fn report() -> KernelsReport {
    let spconv = FileCounts {
        path: "spconv/core_cc.so".into(),
        fatbins: 606,
        with_kernels: 363,
        sass: targets(&[("5.0", 85), ("7.5", 363), ("9.0", 363), ("9.0a", 1)]),
        ptx: targets(&[("9.0", 363)]),
        ptx_isa: isa("9.0", &[("8.4", 360), ("8.7", 3)]),
        served: served(&[(7, 0, 0, 0), (7, 5, 363, 0), (10, 0, 0, 363)]),
        ..FileCounts::default()
    };
    let torch = FileCounts {
        path: "libtorch\u{1b}[31m\u{9b}\u{202e}\u{2028}.so".into(),
        fatbins: 340,
        with_kernels: 340,
        compressed: 340,
        sass: targets(&[("8.0", 340)]),
        served: served(&[(8, 9, 340, 0)]),
        other_kinds: [(8, 2), (64, 1)].into(),
        relocatable: Some(RelocatableCounts {
            fatbins: 2,
            sass: targets(&[("8.0", 1)]),
            ptx: targets(&[("9.0", 2)]),
            ptx_isa: isa("9.0", &[("9.0", 2)]),
            served: served(&[(8, 0, 1, 0), (9, 0, 0, 2)]),
        }),
        ..FileCounts::default()
    };
    let plain = FileCounts {
        path: "libplain.so".into(),
        ..FileCounts::default()
    };
    let empty = FileCounts {
        path: "cumm/core_cc.so".into(),
        fatbins: 1,
        served: served(&[(8, 0, 0, 0)]),
        ..FileCounts::default()
    };
    KernelsReport {
        files: vec![spconv, torch, plain, empty],
        errors: vec![ScanError {
            path: "cut.so".into(),
            message: "cut.so: damaged".into(),
        }],
    }
}

#[test]
fn people_see_a_table() {
    let mut out = Vec::new();
    human(&report(), &mut out).unwrap();
    insta::assert_snapshot!(String::from_utf8(out).unwrap());
}

#[test]
fn programs_see_json_that_reads_back() {
    let mut out = Vec::new();
    json(&report(), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let read: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read, serde_json::to_value(report()).unwrap());
    assert!(text.chars().all(|c| c == '\n' || !steers(c)));
    insta::assert_snapshot!(text);
}

#[test]
fn nothing_found_is_said() {
    let mut out = Vec::new();
    human(&KernelsReport::default(), &mut out).unwrap();
    assert_eq!(out, b"no library with CUDA code\n");
}

/// Whether the published schema takes a document.
fn is_described(document: &serde_json::Value) -> bool {
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    compiler.add_resource("schema.json", schema).unwrap();
    let index = compiler.compile("schema.json", &mut schemas).unwrap();
    schemas.validate(document, index).is_ok()
}

#[test]
fn the_schema_describes_what_is_printed() {
    let printed = serde_json::to_value(report()).unwrap();
    assert!(is_described(&printed));
    assert!(is_described(
        &serde_json::to_value(KernelsReport::default()).unwrap()
    ));
    let mut other = printed.clone();
    other["files"][0]["fatbins"] = "606".into();
    assert!(!is_described(&other));
    // Every field has its place there: of each kind of object, those that the report has.
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    let file = &schema["properties"]["files"]["items"]["properties"];
    let relocatable = &file["relocatable"]["properties"];
    let keys =
        |value: &serde_json::Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    for one in printed["files"].as_array().unwrap() {
        assert!(keys(one).iter().all(|key| file.get(key).is_some()), "{one}");
    }
    for key in keys(&printed["files"][1]["relocatable"]) {
        assert!(relocatable.get(&key).is_some(), "{key}");
    }
    for key in keys(&printed).iter().chain(&keys(&printed["errors"][0])) {
        assert!(schema.to_string().contains(&format!("\"{key}\":")), "{key}");
    }
}
