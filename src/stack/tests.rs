use serde_json::{Value, json};

use super::*;

/// A manifest with `part` in it.
fn with(key: &str, part: Value) -> String {
    let mut manifest = json!({"schema": 1, "name": "test"});
    manifest[key] = part;
    manifest.to_string()
}

fn error(text: &str) -> StackError {
    match Stack::parse(text) {
        Ok(stack) => panic!("{text} was taken for {stack:?}"),
        Err(error) => error,
    }
}

#[test]
fn the_embedded_stack_is_the_documented_one() {
    let stack = Stack::embedded().unwrap();
    assert_eq!(stack.name, "pointcept-cu124");
    assert_eq!(stack.archs.as_ref().unwrap().to_string(), "7.5;8.0;8.6;8.9;9.0");
    assert_eq!(stack.packages.len(), 12);
    assert_eq!(stack.packages[0].name, "torch");
    assert_eq!(stack.env["SPCONV_DISABLE_JIT"], "1");
    let smoke: Vec<&str> = stack.smoke.iter().map(SmokeEntry::name).collect();
    assert_eq!(smoke, ["torch", "spconv", "torchvision", "torch-scatter", "mmcv"]);
    assert!(
        stack
            .smoke
            .iter()
            .all(|entry| matches!(entry, SmokeEntry::Builtin(_)))
    );
    assert!(stack.limits.is_empty());
    let accepted: Vec<&str> = stack.accept.iter().map(|entry| entry.subject.name()).collect();
    assert_eq!(accepted, ["cumm-cu124"]);
}

#[test]
fn the_least_manifest_checks_nothing() {
    let stack = Stack::parse(r#"{"schema": 1, "name": "least"}"#).unwrap();
    assert!(stack.cuda.is_empty() && stack.limits.is_empty());
    assert!(stack.archs.is_none() && stack.python.is_none());
    assert!(
        stack.env.is_empty() && stack.packages.is_empty() && stack.files.is_empty() && stack.smoke.is_empty()
    );
    assert_eq!(
        serde_json::to_string(&stack).unwrap(),
        r#"{"schema":1,"name":"least"}"#
    );
}

#[test]
fn a_byte_order_mark_is_skipped_and_shifts_no_column() {
    assert!(Stack::parse(&format!("\u{feff}{EMBEDDED_JSON}")).is_ok());
    let plain = error(r#"{"schema": 2}"#);
    assert_eq!(error("\u{feff}{\"schema\": 2}"), plain);
    assert_eq!((plain.line, plain.column), (1, 12));
}

#[test]
fn too_much_is_refused_unread() {
    let long = format!("{}{}", " ".repeat(MAX_BYTES), EMBEDDED_JSON);
    assert!(error(&long).message.contains("longer than 1048576 bytes"));
    let exact = format!("{}{EMBEDDED_JSON}", " ".repeat(MAX_BYTES - EMBEDDED_JSON.len()));
    assert!(Stack::parse(&exact).is_ok());
    let mut bytes = long.into_bytes();
    bytes[7] = 0xff;
    let error = Stack::parse_bytes(&bytes).unwrap_err();
    assert!(error.message.contains("longer than"), "{error}");
}

#[test]
fn what_is_not_utf8_is_found() {
    let error = Stack::parse_bytes(b"{\n  \"name\": \"\xc3\xa9\xff\"}").unwrap_err();
    assert_eq!((error.line, error.column), (2, 13));
    assert!(error.message.contains("UTF-8"));
    assert!(Stack::parse_bytes(EMBEDDED_JSON.as_bytes()).is_ok());
}

#[test]
fn of_a_key_given_twice_the_second_one_is_shown() {
    let twice = "{\n\"schema\": 1,\n\"name\": \"a\",\n\"name\": \"b\"}";
    assert_eq!(
        error(twice).to_string(),
        "at line 4, column 1 (name): the key `name` is given twice"
    );
    let escaped = "{\"schema\": 1, \"name\": \"a\", \"env\": {\"A\": \"1\",\n \"\\u0041\": \"2\"}}";
    assert_eq!(
        error(escaped).to_string(),
        "at line 2, column 2 (env.A): the key `A` is given twice"
    );
}

#[test]
fn messages_are_short_and_hold_no_control_characters() {
    let nasty = format!("\u{1b}[31m\u{1f}\u{202e}\n{}", "x".repeat(100_000));
    let mut texts: Vec<String> = Manifest::KEYS.iter().map(|key| with(key, json!(nasty))).collect();
    texts
        .extend(["env", "packages", "cuda", "limits"].map(|key| with(key, json!({(nasty.as_str()): nasty}))));
    texts.extend(["files", "smoke"].map(|key| with(key, json!([nasty]))));
    texts.push(with("env", json!({"A": {(nasty.as_str()): 1}})));
    texts.push(with(
        "smoke",
        json!([{"name": "a", "argv": ["a"], "timeout": nasty}]),
    ));
    texts.push(with("packages", json!({"a": format!("=={nasty}")})));
    texts.push(with("cuda", json!({"runtime": format!(">={nasty}")})));
    texts.push(with(&nasty, json!(1)));
    texts.push(nasty.clone());
    let mut refused = 0;
    for text in texts {
        let Err(error) = Stack::parse(&text) else { continue };
        refused += 1;
        let shown = format!("{error:#}");
        assert!(shown.chars().count() < 800, "{shown}");
        assert!(
            !shown.chars().any(|c| c.is_control() || c == '\u{202e}'),
            "{shown:?}"
        );
    }
    // `$schema` may be any text.
    assert_eq!(refused, Manifest::KEYS.len() - 1 + 4 + 2 + 4 + 2);
}

/// As many entries as fit: looking for equal names must not be quadratic, or this test would not come back.
#[test]
fn a_full_megabyte_is_read() {
    let files: Vec<String> = (0..100_000).map(|n| format!("{n:x}")).collect();
    assert_eq!(
        Stack::parse(&with("files", json!(files))).unwrap().files.len(),
        100_000
    );
    let smoke: Vec<Value> = (0..25_000)
        .map(|n| json!({"name": format!("{n:x}"), "argv": ["a"]}))
        .collect();
    assert_eq!(
        Stack::parse(&with("smoke", json!(smoke))).unwrap().smoke.len(),
        25_000
    );
    let env: BTreeMap<String, &str> = (0..70_000).map(|n| (format!("A{n:x}"), "")).collect();
    assert_eq!(Stack::parse(&with("env", json!(env))).unwrap().env.len(), 70_000);
    let packages: BTreeMap<String, &str> = (0..60_000).map(|n| (format!("a{n:x}"), "*")).collect();
    assert_eq!(
        Stack::parse(&with("packages", json!(packages)))
            .unwrap()
            .packages
            .len(),
        60_000
    );
}

#[test]
fn another_format_is_told_wherever_its_number_stands() {
    let error = error("{\"weather\": {\"name\": 1},\n \"schema\": 2}");
    assert_eq!((error.line, error.column, error.path.as_str()), (2, 12, "schema"));
    assert!(error.message.contains("format 2"), "{error}");
}

/// A manifest cut off or with one byte changed is refused at a place inside it, or still is a manifest; nothing
/// panics. Every byte is tried.
#[test]
fn damage_is_reported_at_a_place_inside() {
    let text = include_str!("../../tests/fixtures/stack/valid/everything.json");
    let check = |damaged: &[u8]| {
        let Err(e) = Stack::parse_bytes(damaged) else {
            return;
        };
        let shown = String::from_utf8_lossy(damaged);
        let line = shown.split('\n').nth(e.line.checked_sub(1).unwrap());
        let line = line.unwrap_or_else(|| panic!("no such line: {e:?}\n{shown}"));
        let last = line.chars().count() + 1;
        assert!((1..=last).contains(&e.column), "no such column: {e:?}\n{shown}");
        assert!(!e.message.is_empty());
    };
    for at in 0..text.len() {
        check(&text.as_bytes()[..at]);
        for byte in *b"\"{}[],:\\0x\n \xff" {
            let mut damaged = text.as_bytes().to_vec();
            damaged[at] = byte;
            check(&damaged);
        }
    }
}

/// The objects of the schema and of the parser, by their place in the schema.
fn objects() -> [(&'static str, &'static [&'static str]); 6] {
    [
        ("", Manifest::KEYS),
        ("/properties/cuda", CudaRules::KEYS),
        (
            "/properties/packages/additionalProperties/oneOf/1",
            packages::LongForm::KEYS,
        ),
        ("/properties/smoke/items/oneOf/1", smoke::CommandForm::KEYS),
        ("/properties/limits", LimitRules::KEYS),
        ("/properties/accept/items", accept::Form::KEYS),
    ]
}

#[test]
fn the_schema_names_what_the_parser_knows() {
    let schema: Value = serde_json::from_str(&schema()).unwrap();
    for (place, keys) in objects() {
        let object = schema
            .pointer(place)
            .unwrap_or_else(|| panic!("no {place} in the schema"));
        assert_eq!(object["additionalProperties"], json!(false), "{place}");
        let mut named: Vec<&str> = object["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let mut known = keys.to_vec();
        named.sort_unstable();
        known.sort_unstable();
        assert_eq!(named, known, "{place}");
    }
    let natives = ["native", "native=all"];
    let builtins: Vec<&str> = Builtin::all().map(Builtin::name).chain(natives).collect();
    for place in ["0/enum", "1/properties/name/not/enum"] {
        let listed = schema
            .pointer(&format!("/properties/smoke/items/oneOf/{place}"))
            .unwrap();
        assert_eq!(*listed, json!(builtins), "{place}");
    }
    assert_eq!(
        count_closed(&schema),
        objects().len(),
        "an object of the schema is not in the list"
    );
}

/// How many objects of a schema allow no other keys than their own.
fn count_closed(schema: &Value) -> usize {
    let below: usize = match schema {
        Value::Object(map) => map.values().map(count_closed).sum(),
        Value::Array(items) => items.iter().map(count_closed).sum(),
        _ => 0,
    };
    below + usize::from(schema.get("additionalProperties") == Some(&json!(false)))
}

/// Each known key is read: a value of a type that none of them accepts is refused there.
#[test]
fn every_known_key_is_read() {
    for (place, keys) in objects() {
        for key in keys {
            let wrong = json!({(*key): 1.5});
            let text = match place {
                "" => with(key, json!(1.5)),
                "/properties/cuda" => with("cuda", wrong),
                "/properties/limits" => with("limits", wrong),
                "/properties/smoke/items/oneOf/1" => with("smoke", json!([wrong])),
                "/properties/accept/items" => with("accept", json!([wrong])),
                _ => with("packages", json!({"a": wrong})),
            };
            let error = error(&text);
            assert!(error.path.ends_with(key), "{place} {key}: {error}");
            assert!(error.message.contains("floating point"), "{place} {key}: {error}");
        }
    }
}

#[test]
fn the_table_shows_every_part() {
    let everything = include_str!("../../tests/fixtures/stack/valid/everything.json");
    let stack = Stack::parse(everything).unwrap();
    insta::assert_snapshot!(table(&stack, "/etc/cuda-entrypoint/stack.json"));
}

#[test]
fn the_table_says_what_is_not_checked() {
    let stack = Stack::parse(r#"{"schema": 1, "name": "least"}"#).unwrap();
    insta::assert_snapshot!(table(&stack, "--stack \u{1b}[31m"));
}
