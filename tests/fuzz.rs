//! Every fuzz target over the inputs that are kept for it: tests/fuzz/README.md.

#[path = "fuzz/src/lib.rs"]
#[allow(dead_code, unused_macros)]
mod fuzz;

use std::path::Path;

#[test]
fn kept_inputs_pass() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    for target in fuzz::TARGETS {
        let kept = fuzz::kept(target, &folder);
        assert!(!kept.is_empty(), "{}", target.name);
        for (name, input) in kept {
            // A panic names the place; this names the input.
            println!("{}: {name}", target.name);
            (target.run)(&input);
        }
    }
}
