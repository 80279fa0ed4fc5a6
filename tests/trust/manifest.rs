//! A manifest that another user may write is named. It is the file that counts, not what leads to it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use crate::support::needs::Need;
use crate::support::run::{Run, World};

const WORDS: &str = "users other than uid";

/// `run`, `check` and `stack show` with the manifest at this path of the world.
fn all_three(world: &World, path: &str) -> [Run; 3] {
    let stack = ["--stack", path];
    [
        Run::of(&mut world.run(&stack, &["echo", "started"])),
        Run::of(&mut world.check(&stack)),
        Run::of(world.entrypoint(["stack", "show"]).args(stack)),
    ]
}

#[track_caller]
fn is_named(world: &World, path: &str, why: &str) {
    let [run, check, show] = all_three(world, path);
    run.exits(0).prints("started\n");
    for run in [run, check, show] {
        run.exits(0).says(why).says(WORDS).says("chown root, chmod 644");
        assert_eq!(run.stderr.matches(WORDS).count(), 1, "{}", run.stderr);
    }
}

#[track_caller]
fn passes(world: &World, path: &str) {
    for run in all_three(world, path) {
        run.exits(0).does_not_say(WORDS);
    }
}

fn set_mode(world: &World, path: &str, mode: u32) {
    fs::set_permissions(world.path(path), Permissions::from_mode(mode)).unwrap();
}

#[test]
fn one_that_others_may_write_is_named() {
    let world = World::new();
    for (mode, shown) in [(0o664, "mode 664"), (0o646, "mode 646"), (0o777, "mode 777")] {
        set_mode(&world, "stack.json", mode);
        is_named(&world, "stack.json", shown);
    }
    // Its folder may be anybody's, as an emptyDir is.
    set_mode(&world, "", 0o777);
    for mode in [0o644, 0o600, 0o444, 0o755] {
        set_mode(&world, "stack.json", mode);
        passes(&world, "stack.json");
    }
}

#[test]
fn one_of_another_user_is_named() {
    Need::Root.demand();
    let world = World::new();
    chown(world.path("stack.json"), Some(1000), Some(1000)).unwrap();
    set_mode(&world, "stack.json", 0o644);
    is_named(&world, "stack.json", "owned by uid 1000, mode 644");
    // Root's is everybody's, whatever its group.
    chown(world.path("stack.json"), Some(0), Some(1000)).unwrap();
    passes(&world, "stack.json");
}

#[test]
fn what_a_config_map_mounts_is_no_cause_for_words() {
    let world = World::new();
    fs::create_dir(world.path("map")).unwrap();
    set_mode(&world, "map", 0o777);
    let file = "map/..2026_01_01/stack.json";
    world.write(file, r#"{"schema": 1, "name": "t"}"#);
    symlink("..2026_01_01", world.path("map/..data")).unwrap();
    symlink("..data/stack.json", world.path("map/stack.json")).unwrap();
    // As the kubelet makes it, with defaultMode, and with an fsGroup that may read it.
    for mode in [0o644, 0o444, 0o640] {
        set_mode(&world, file, mode);
        passes(&world, "map/stack.json");
    }
    // An fsGroup that may write, as on a persistent volume.
    set_mode(&world, file, 0o660);
    is_named(&world, "map/stack.json", "mode 660");
}

#[test]
fn json_says_it_as_an_object_and_modes_say_it_too() {
    let world = World::new();
    set_mode(&world, "stack.json", 0o666);
    let run = Run::of(&mut world.run(&["--format", "json"], &["true"]));
    run.exits(0);
    let named = run
        .log()
        .into_iter()
        .filter(|line| line.to_string().contains(WORDS));
    let levels: Vec<String> = named.map(|line| line["level"].to_string()).collect();
    assert_eq!(levels.len(), 1, "{}", run.stderr);
    assert!(levels[0].to_lowercase().contains("warn"), "{levels:?}");
    Run::of(&mut world.run(&["--mode", "warn"], &["true"]))
        .exits(0)
        .says(WORDS);
    // Nothing is read, so that there is nothing to doubt.
    Run::of(&mut world.run(&["--mode", "off"], &["true"]))
        .exits(0)
        .does_not_say(WORDS);
}
