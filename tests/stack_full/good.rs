//! The environment as it is published.

use super::copy::{Copy, manifest};

/// The pair that pip refuses is what was tested, so that the manifest pins it; nothing else is to be said.
pub const USUAL: [&str; 1] = ["requires-dist warn"];

/// What may differ from one machine to the next: folders, the interpreter's patch release, the time.
fn words(table: &str) -> String {
    let (table, verdict) = table.trim_end().rsplit_once('\n').unwrap();
    let (verdict, _time) = verdict.rsplit_once(", ").unwrap();
    let version = table.split_once("Python is ").unwrap().1;
    let version = version.split_once('\n').unwrap().0;
    assert!(version.starts_with("3.11."), "{version}");
    let table = table.replace(&format!("Python is {version}"), "Python is 3.11.0");
    format!("{table}\n{verdict}, 35 ms\n")
}

#[test]
fn the_published_stack_passes_with_the_one_warning_that_is_true_of_it() {
    let checked = Copy::new().check(&manifest());
    checked.is(0, &USUAL);
    assert_eq!(checked.report["verdict"], "warn");
    insta::assert_snapshot!(words(&checked.table));
}

#[test]
fn a_captured_manifest_passes_as_it_is() {
    let copy = Copy::new();
    let captured = copy.captured();
    copy.check(&captured).is(0, &USUAL);
    // What PyPI's own metadata does not say.
    assert_eq!(captured["packages"]["torch"], "==2.5.0+cu124");
    assert_eq!(captured["archs"], "7.0;7.5;8.0;8.6;8.9;9.0");
}
