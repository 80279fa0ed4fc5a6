//! Manifests as files: every one under `valid` parses and comes back as it went, every one under `invalid` fails with
//! the error in the snapshot, and the published JSON Schema agrees. A new file is picked up by being there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use boon::{Compiler, SchemaIndex, Schemas};
use cuda_entrypoint::stack::{Builtin, EMBEDDED_JSON, Stack, StackError, schema};
use serde_json::Value;

/// Names and contents of a folder's manifests, by name.
fn fixtures(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/stack")
        .join(folder);
    let mut found: Vec<(String, Vec<u8>)> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            assert_eq!(
                path.extension().and_then(|e| e.to_str()),
                Some("json"),
                "{path:?}"
            );
            let name = path.file_stem().unwrap().to_str().unwrap().to_string();
            (name, fs::read(&path).unwrap())
        })
        .collect();
    found.sort();
    found
}

/// The manifests of docker/examples, by their folder's name.
fn examples() -> Vec<(String, Vec<u8>)> {
    let folders = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/examples")).unwrap();
    let folders = folders
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir());
    let mut found: Vec<(String, Vec<u8>)> = folders
        .map(|folder| {
            let name = folder.file_name().unwrap().to_str().unwrap().to_string();
            (name, fs::read(folder.join("stack.json")).unwrap())
        })
        .collect();
    found.sort();
    found
}

/// Each has its folder's name, a row in the list, and a Dockerfile that copies, checks and becomes the service.
#[test]
fn each_example_is_whole() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/examples");
    let list = fs::read_to_string(folder.join("README.md")).unwrap();
    let all = examples();
    assert!(all.len() >= 9);
    for (name, bytes) in all {
        assert_eq!(Stack::parse_bytes(&bytes).unwrap().name, name);
        assert!(
            list.contains(&format!("| [{name}]({name}) |")),
            "{name} is not in the list"
        );
        let dockerfile = fs::read_to_string(folder.join(&name).join("Dockerfile")).unwrap();
        let mut lines = dockerfile.lines();
        for line in [
            "COPY --from=cuda-entrypoint /cuda-entrypoint /usr/local/bin/cuda-entrypoint",
            "COPY stack.json /etc/cuda-entrypoint/stack.json",
            "cuda-entrypoint check --stage image",
            "ENTRYPOINT [\"cuda-entrypoint\", \"run\", \"--\"]",
            "CMD [\"",
        ] {
            assert!(
                lines.any(|text| text.contains(line)),
                "{name}: no {line} in its place"
            );
        }
    }
}

/// The schema, compiled by a validator that knows nothing of this project.
struct Schema {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Schema {
    fn compile() -> Self {
        let mut schemas = Schemas::new();
        let mut compiler = Compiler::new();
        compiler
            .add_resource("stack.json", serde_json::from_str(&schema()).unwrap())
            .unwrap();
        let index = compiler
            .compile("stack.json", &mut schemas)
            .unwrap_or_else(|e| panic!("{e:#}"));
        Self { schemas, index }
    }

    fn check(&self, manifest: &Value) -> Result<(), String> {
        self.schemas
            .validate(manifest, self.index)
            .map_err(|e| format!("{e:#}"))
    }
}

fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes)
}

#[test]
fn valid_manifests_come_back_as_they_went() {
    let fixtures = fixtures("valid");
    assert!(fixtures.len() >= 8);
    let embedded = ("embedded".to_string(), EMBEDDED_JSON.as_bytes().to_vec());
    for (name, bytes) in fixtures.into_iter().chain([embedded]).chain(examples()) {
        let stack = Stack::parse_bytes(&bytes).unwrap_or_else(|e| panic!("{name} {e:#}"));
        for written in [
            serde_json::to_string(&stack).unwrap(),
            serde_json::to_string_pretty(&stack).unwrap(),
        ] {
            let again = Stack::parse(&written).unwrap_or_else(|e| panic!("{name} {e:#}\n{written}"));
            assert_eq!(again, stack, "{name}\n{written}");
        }
    }
}

#[test]
fn invalid_manifests_say_where_and_why() {
    let fixtures = fixtures("invalid");
    assert!(fixtures.len() >= 30);
    let errors: Vec<String> = fixtures
        .iter()
        .map(|(name, bytes)| match Stack::parse_bytes(bytes) {
            Ok(stack) => panic!("{name} was taken for {stack:?}"),
            Err(error) => render(name, bytes, &error),
        })
        .collect();
    // One more built-in smoke is no other error.
    let smokes: Vec<&str> = Builtin::all().map(Builtin::name).collect();
    let errors = errors.join("\n\n").replace(&smokes.join(", "), "{smokes}");
    insta::assert_snapshot!(errors);
}

/// The error as a person would read it, with the text that it points at.
fn render(name: &str, bytes: &[u8], error: &StackError) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().nth(error.line - 1).unwrap_or_default();
    let rest: String = line.chars().skip(error.column - 1).take(24).collect();
    let hint = match error.hint.as_str() {
        "" => String::new(),
        hint => format!("\n  hint: {hint}"),
    };
    format!("{name}.json {error}{hint}\n  here: {rest}")
}

#[test]
fn the_schema_accepts_what_the_parser_accepts() {
    let schema = Schema::compile();
    let embedded = ("embedded".to_string(), EMBEDDED_JSON.as_bytes().to_vec());
    for (name, bytes) in fixtures("valid").into_iter().chain([embedded]) {
        let manifest: Value = serde_json::from_slice(without_mark(&bytes)).unwrap();
        schema.check(&manifest).unwrap_or_else(|e| panic!("{name} {e}"));
        let written = serde_json::to_value(Stack::parse_bytes(&bytes).unwrap()).unwrap();
        schema
            .check(&written)
            .unwrap_or_else(|e| panic!("{name}, as written back: {e}"));
    }
}

/// What JSON Schema cannot say, or what a JSON parser loses before a validator sees it. Everything else that the
/// parser refuses, an editor with the schema must underline.
const BEYOND_THE_SCHEMA: [&str; 19] = [
    // names of architectures, in any case
    "archs-all",
    "archs-name-near",
    "archs-native",
    // arithmetic
    "cuda-impossible",
    "gpus-met-by-none",
    "limits-shm-huge",
    "smoke-timeout-long",
    "smoke-timeout-zero",
    // the grammar of PEP 440
    "packages-local-range",
    "python-minor",
    // by what each code's subject is named
    "accept-other-subject",
    // names that must differ
    "accept-twice",
    "packages-two-spellings",
    "smoke-two-names",
    // the second of two equal keys
    "cuda-key-twice",
    "env-twice",
    "key-twice",
    "packages-long-twice",
    "packages-twice",
];

#[test]
fn the_schema_refuses_what_the_parser_refuses() {
    let schema = Schema::compile();
    let mut accepted = BTreeSet::new();
    let mut refused = 0;
    for (name, bytes) in fixtures("invalid") {
        // What is not JSON never gets to a validator.
        let Ok(manifest) = serde_json::from_slice::<Value>(&bytes) else {
            continue;
        };
        match schema.check(&manifest) {
            Ok(()) => drop(accepted.insert(name)),
            Err(_) => refused += 1,
        }
    }
    assert!(refused >= 30, "{refused}");
    let expected: BTreeSet<String> = BEYOND_THE_SCHEMA.iter().map(ToString::to_string).collect();
    assert_eq!(accepted, expected);
}

#[test]
fn the_examples_of_the_schema_are_valid_themselves() {
    let schema = Schema::compile();
    let document: Value = serde_json::from_str(&cuda_entrypoint::stack::schema()).unwrap();
    let mut tried = 0;
    for (key, part) in document["properties"].as_object().unwrap() {
        for example in part["examples"].as_array().into_iter().flatten() {
            let mut manifest = serde_json::json!({"schema": 1, "name": "example"});
            manifest[key] = example.clone();
            schema.check(&manifest).unwrap_or_else(|e| panic!("{key} {e}"));
            Stack::parse(&manifest.to_string()).unwrap_or_else(|e| panic!("{key} {e:#}"));
            tried += 1;
        }
    }
    assert!(tried >= 8, "{tried}");
}
