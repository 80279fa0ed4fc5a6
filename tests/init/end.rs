//! How it ends: exit codes, deaths, orphans, and what the service leaves behind.

use std::fs;
use std::process::Stdio;

use nix::sys::signal::Signal;

use super::{Talk, supervised, ways};
use crate::support::needs::Need;
use crate::support::probe::{counter, orphans};
use crate::support::run::{Run, Running, World, children, eventually, kill, state};

#[test]
fn every_exit_code_is_passed_on() {
    for (way, started) in ways() {
        let world = World::new();
        for code in 0..=255 {
            let script = format!("exit {code}");
            let run = Run::of(&mut started(&world, &[], &["sh", "-c", &script]));
            assert_eq!(run.code(), Some(code), "{way}: {}", run.stderr);
        }
    }
}

#[test]
fn death_by_every_signal_is_128_and_its_number() {
    // Those whose default is another than to end the process are left out.
    let deadly = (1..=64).filter(|n| ![17, 18, 19, 20, 21, 22, 23, 28].contains(n));
    for (way, started) in ways() {
        let world = World::new();
        for number in deadly.clone() {
            let script = format!("ulimit -c 0; kill -{number} $$; exit 99");
            let run = Run::of(&mut started(&world, &[], &["sh", "-c", &script]));
            assert_eq!(run.code(), Some(128 + number), "{way}: {}", run.stderr);
        }
    }
}

#[test]
fn ten_thousand_orphans_are_reaped() {
    for (way, started) in ways() {
        let world = World::new();
        let mut command = started(&world, &[], &[orphans().to_str().unwrap(), "10000"]);
        let mut talk = Talk::start_as_is(command.stdin(Stdio::piped()).stderr(Stdio::null()));
        assert_eq!(talk.line(), "done", "{way}");
        let entrypoint = talk.entrypoint();
        assert!(
            eventually(|| children(entrypoint).len() == 1),
            "{way}: {} children",
            children(entrypoint).len()
        );
        drop(talk.child.stdin.take());
        assert_eq!(talk.end(), (Vec::new(), Some(0)), "{way}");
    }
}

#[test]
fn an_orphan_becomes_its_child_and_is_reaped() {
    for (way, started) in ways() {
        let world = World::new();
        // A daemon that a shell has left behind; it says who its parent is once that is no shell.
        let daemon = "(setsid sh -c 'parent() { cut -d\" \" -f4 /proc/$$/stat; }; \
                        while [ \"$(cat /proc/$(parent)/comm)\" = sh ]; do sleep 0.01; done; parent; echo $$' & ) ; sleep 100";
        let mut talk = Talk::start(&mut started(&world, &[], &["sh", "-c", daemon]));
        let (parent, orphan) = (talk.line(), talk.line());
        let entrypoint = talk.entrypoint();
        match way {
            "PID 1" => assert_eq!(parent, "1"),
            _ => {
                assert_eq!(parent, entrypoint.to_string());
                let orphan = orphan.parse().unwrap();
                assert!(eventually(|| state(orphan).is_none()), "{:?}", state(orphan));
            }
        }
        assert!(eventually(|| children(entrypoint).len() == 1));
        kill(entrypoint, Signal::SIGTERM);
        assert_eq!(talk.end().1, Some(143), "{way}");
        world.assert_nothing_left();
    }
}

/// The counter tells each signal that it takes, and waits a moment for another; it starts nothing that could be told in
/// its stead, as the `sleep` of a shell that waits is.
#[test]
fn what_the_service_leaves_is_told_to_end_once() {
    for (way, started) in ways() {
        let world = World::new();
        // Some in the service's group, some in sessions of their own.
        let leave = "for n in 1 2 3 4 5 6 7 8; do \"$0\" >group.$n & setsid \"$0\" >own.$n & done; \
                     until [ \"$(cat group.* own.* | grep -c ready)\" = 16 ]; do sleep 0.02; done; exit 5";
        let service = ["sh", "-c", leave, counter().to_str().unwrap()];
        let run = Run::of(&mut started(&world, &[], &service));
        assert_eq!(run.code(), Some(5), "{way}: {}", run.stderr);
        for name in (1..=8).flat_map(|n| [format!("group.{n}"), format!("own.{n}")]) {
            // SIGCONT follows, so that what was stopped hears of it.
            let told = world.read(&name).unwrap().replace("got 18\n", "");
            assert_eq!(told, "ready\ngot 15\n", "{way}: {name}");
        }
        world.assert_nothing_left();
    }
}

#[test]
fn what_does_not_end_is_killed() {
    for (way, started) in ways() {
        let world = World::new();
        let leave = "setsid sh -c 'trap \"\" TERM HUP; echo ready >left; exec sleep 600' & setsid sh -c 'kill -STOP $$' & \
                     while [ ! -s left ]; do sleep 0.02; done; exit 6";
        let run = Run::of(&mut started(&world, &[], &["sh", "-c", leave]));
        assert_eq!(run.code(), Some(6), "{way}: {}", run.stderr);
        world.assert_nothing_left();
    }
}

#[test]
fn a_second_signal_cuts_the_grace_short() {
    let world = World::new();
    let leave = "setsid sh -c 'trap \"\" TERM HUP; echo ready; exec sleep 600' & sleep 0.3; exit 6";
    let mut talk = Talk::start(&mut supervised(&world, &[], &["sh", "-c", leave]));
    assert_eq!(talk.line(), "ready");
    let entrypoint = talk.entrypoint();
    // Once the service is gone.
    let gone = || !children(entrypoint).iter().any(|pid| comm(*pid) == "sh");
    assert!(eventually(gone));
    kill(entrypoint, Signal::SIGTERM);
    assert_eq!(talk.end().1, Some(6));
    world.assert_nothing_left();
}

fn comm(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().to_string()
}

#[test]
fn whoever_kills_it_kills_the_service() {
    for (_, started) in ways() {
        let world = World::new();
        let mut talk = Talk::start(&mut started(
            &world,
            &[],
            &["sh", "-c", "echo ready; sleep 600; :"],
        ));
        assert_eq!(talk.line(), "ready");
        let entrypoint = talk.entrypoint();
        let service = children(entrypoint)[0];
        kill(entrypoint, Signal::SIGKILL);
        assert!(eventually(|| state(service).is_none_or(|s| s == 'Z')));
        let _ = talk.child.wait();
        world.kill_survivors(); // its sleep, which nobody has told
    }
}

/// The kernel's rule (PR_SET_PDEATHSIG in prctl(2)): who changes its user is no longer told that its parent has died.
#[test]
fn a_service_that_changes_its_user_outlives_it() {
    Need::Root.demand();
    let world = World::new();
    let service = "setpriv --reuid 54323 --clear-groups sh -c 'echo ready; sleep 600; :'";
    let mut talk = Talk::start(&mut supervised(
        &world,
        &[],
        &["sh", "-c", &format!("exec {service}")],
    ));
    assert_eq!(talk.line(), "ready");
    let entrypoint = talk.entrypoint();
    let service = children(entrypoint)[0];
    kill(entrypoint, Signal::SIGKILL);
    let _ = talk.child.wait();
    // A SIGKILL would have reached it before the entrypoint's own end could be waited for.
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(state(service).is_some_and(|s| s != 'Z'));
    world.kill_survivors();
}

/// Background jobs of a shell that then becomes the entrypoint.
#[test]
fn who_was_here_before_is_reaped_and_not_ended() {
    let world = World::new();
    let mut command = world.command("sh");
    let script = "sleep 0.1 & setsid sleep 99.5 >/dev/null 2>&1 & exec \"$@\"";
    command.args(["-c", script, "sh", super::ENTRYPOINT]);
    command.args(["run", "--init", "--mode", "off", "--", "sleep", "0.6"]);
    let running = Running::start(&mut command);
    let entrypoint = running.pid();
    // The short one has ended; the long one and the service are there.
    assert!(eventually(|| children(entrypoint).len() == 3));
    assert!(
        eventually(|| children(entrypoint).len() == 2),
        "{:?}",
        children(entrypoint)
    );
    running.finish().exits(0);
    assert_eq!(world.survivors(&[]).len(), 1, "{:?}", world.survivors(&[]));
    world.kill_survivors();
}
