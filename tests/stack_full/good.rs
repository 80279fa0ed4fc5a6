//! The environment as it is published.

use super::copy::{Copy, manifest};

/// The pair that pip refuses is what was tested, and the manifest accepts it; nothing else is to be said.
pub const USUAL: [&str; 1] = ["requires-dist info"];

/// What may differ from one machine to the next: folders, the interpreter's patch release, the time.
fn words(table: &str) -> String {
    let (table, verdict) = table.trim_end().rsplit_once('\n').unwrap();
    let (verdict, _time) = verdict.rsplit_once(", ").unwrap();
    let version = table.split_once("Python is ").unwrap().1;
    let version = version.split_once('\n').unwrap().0;
    assert!(version.starts_with("3.11."), "{version}");
    let table = table.replace(&format!("Python is {version}"), "Python is 3.11.0");
    // Which compiler there is.
    let lines = table
        .lines()
        .map(|line| match line.split_once(" has a C compiler (") {
            Some((triton, _)) => format!("{triton} has a C compiler (cc)\n"),
            None => format!("{line}\n"),
        });
    format!("{}{verdict}, 35 ms\n", lines.collect::<String>())
}

#[test]
fn the_published_stack_passes_with_the_one_exception_that_the_manifest_makes() {
    let checked = Copy::new().check(&manifest());
    checked.is(0, &USUAL);
    assert_eq!(checked.report["verdict"], "pass");
    insta::assert_snapshot!(words(&checked.table));
}

#[test]
fn a_captured_manifest_passes_once_it_accepts_the_pair() {
    let copy = Copy::new();
    let mut captured = copy.captured();
    copy.check(&captured).is(81, &["requires-dist fail"]);
    captured["accept"] = manifest()["accept"].clone();
    copy.check(&captured).is(0, &USUAL);
    // As pip can install it.
    assert_eq!(captured["packages"]["torch"], "==2.5.0");
    assert_eq!(captured["archs"], "5.0;5.2;6.0;6.1;7.0;7.5;8.0;8.6;8.9;9.0");
}
