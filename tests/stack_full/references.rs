//! The smoke's arithmetic with real torch and spconv: the references against plain loops, spconv's own convolution on the
//! CPU, and that each kind of wrong kernel is told from a right one.

use crate::support::folders;
use crate::support::run::{Run, World};

#[test]
fn the_references_are_right() {
    let python = super::copy::environment().join("bin/python");
    let world = World::new();
    let mut command = world.command(python);
    command
        .arg(folders::root().join("tests/smoke_script/references.py"))
        .arg(folders::root().join("src/smoke/smoke.py"))
        .envs([("SPCONV_DISABLE_JIT", "1"), ("CUMM_DISABLE_JIT", "1")])
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let run = Run::of(&mut command);
    run.exits(0);
    assert!(run.text().ends_with("all of it holds\n"), "{}", run.text());
}
