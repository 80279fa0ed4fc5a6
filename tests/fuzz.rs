//! Every fuzz target over its seeds and the inputs that are kept for it: tests/fuzz/README.md.

#[path = "fuzz/src/lib.rs"]
#[allow(dead_code, unused_macros)]
mod fuzz;

use std::fs;
use std::path::Path;

/// The inputs in a folder, by name; none where there is no such folder.
fn inputs(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut all: Vec<(String, Vec<u8>)> = entries
        .map(|entry| entry.expect("the folder is listed").path())
        .map(|path| {
            (
                path.display().to_string(),
                fs::read(&path).expect("the input is read"),
            )
        })
        .collect();
    all.sort();
    all
}

#[test]
fn kept_inputs_pass() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    for target in fuzz::TARGETS {
        let mut all: Vec<(String, Vec<u8>)> = (target.seeds)()
            .into_iter()
            .enumerate()
            .map(|(number, seed)| (format!("{}: seed {number}", target.name), seed))
            .collect();
        assert!(!all.is_empty(), "{}", target.name);
        for kind in ["corpus", "found"] {
            all.extend(inputs(&root.join(kind).join(target.name)));
        }
        for (name, input) in all {
            // A panic names the place; this names the input.
            println!("{name}");
            (target.run)(&input);
        }
    }
}
