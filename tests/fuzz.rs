//! Every fuzz target over the inputs that are kept for it: tests/fuzz/README.md.

#[path = "fuzz/src/lib.rs"]
#[allow(dead_code, unused_macros, clippy::duplicate_mod)] // a crate that stands alone under libFuzzer
mod targets;

use std::path::Path;

#[test]
fn kept_inputs_pass() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    for target in targets::TARGETS {
        let kept = targets::kept(target, &folder);
        assert!(!kept.is_empty(), "{}", target.name);
        for (name, input) in kept {
            let _named = Named(target.name, &name);
            (target.run)(&input);
        }
    }
}

/// A panic names the place; this names the input.
struct Named<'a>(&'a str, &'a str);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: {}", self.0, self.1);
        }
    }
}
