//! Too little memory: what the reader is told.

use crate::support::run::Run;
use crate::support::scene::Scene;

const GREEDY: &str = r#"{"import torch": {"allocate": 4000000000}}"#;

/// Too small for the imports, at whatever moment that shows.
#[test]
fn whatever_the_limit_on_memory_it_is_the_containers() {
    let scene = Scene::acting(r#"{"import spconv": {"allocate": 300000000}}"#);
    let python = scene.python();
    for smoke in ["separate", "handoff"] {
        for kibibytes in [16_000, 18_000, 24_000, 60_000, 200_000] {
            let mut command = scene.world.command("sh");
            let inner = scene.command("run", &["--gpu", "off", "--smoke", smoke]);
            let limit = format!("ulimit -v {kibibytes}; exec \"$0\" \"$@\"");
            command.args(["-c", &limit]);
            command.arg(inner.get_program()).args(inner.get_args());
            command.envs(inner.get_envs().filter_map(|(k, v)| Some((k, v?))));
            let run = Run::of(command.args(["--", &python, "-c", "print('started')"]));
            run.exits(82)
                .prints("")
                .says("smoke-device")
                .says("raise the container's memory limit")
                .does_not_say("Traceback");
            scene.world.assert_nothing_left();
        }
    }
}

#[test]
fn an_address_space_that_is_too_small_is_the_containers() {
    let scene = Scene::acting(GREEDY);
    let mut command = scene.world.command("sh");
    let inner = scene.command("run", &[]);
    command.args(["-c", "ulimit -v 2000000; exec \"$0\" \"$@\""]);
    command.arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(k, v)| Some((k, v?))));
    let run = Run::of(command.args(["--", "echo", "started"]));
    run.exits(82)
        .prints("")
        .says("MemoryError")
        .says("memory limit")
        .says("smoke-device");
    scene.world.assert_nothing_left();
}
