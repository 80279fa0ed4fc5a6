//! Signals through the entrypoint: each once, none lost, to whom they are meant.

use std::fs;

use nix::sys::signal::Signal;

use super::{Talk, supervised, ways};
use crate::support::probe::counter;
use crate::support::run::{World, children, eventually, kill, kill_by_number};

/// All that can be caught, but for SIGCHLD, which is the entrypoint's own, and SIGTERM, which ends the counter.
fn catchable() -> impl Iterator<Item = i32> {
    (1..=64).filter(|n| ![9, 15, 17, 19].contains(n))
}

#[test]
fn each_signal_reaches_the_service_once() {
    for (way, started) in ways() {
        for option in ["--init=group", "--init=on"] {
            let world = World::new();
            let mut talk = Talk::start(&mut started(&world, &[option], &[counter().to_str().unwrap()]));
            assert_eq!(talk.line(), "ready");
            let entrypoint = talk.entrypoint();
            for number in catchable() {
                kill_by_number(entrypoint, number);
                assert_eq!(talk.line(), format!("got {number}"), "{way} {option}");
            }
            kill(entrypoint, Signal::SIGTERM);
            let (rest, code) = talk.end();
            assert_eq!(
                (rest, code),
                (vec!["got 15".to_string()], Some(7)),
                "{way} {option}"
            );
            world.assert_nothing_left();
        }
    }
}

#[test]
fn a_burst_of_signals_is_not_lost() {
    let world = World::new();
    let mut talk = Talk::start(&mut supervised(&world, &[], &[counter().to_str().unwrap()]));
    assert_eq!(talk.line(), "ready");
    // Real-time signals queue: as many arrive as were sent. The others are counted once or more.
    for _ in 0..50 {
        for number in [34, 50, 64] {
            kill_by_number(talk.entrypoint(), number);
        }
        kill(talk.entrypoint(), Signal::SIGUSR1);
    }
    let mut queued = 0;
    let mut others = 0;
    while queued < 150 {
        match talk.line().as_str() {
            "got 34" | "got 50" | "got 64" => queued += 1,
            "got 10" => others += 1,
            other => panic!("{other}"),
        }
    }
    assert!(others <= 50, "{others}");
    kill(talk.entrypoint(), Signal::SIGTERM);
    let (rest, code) = talk.end();
    assert_eq!(code, Some(7));
    assert!(others + rest.iter().filter(|l| *l == "got 10").count() >= 1);
    assert!(!rest.iter().any(|l| l == "got 34" || l == "got 64"), "{rest:?}");
}

#[test]
fn the_group_gets_what_the_service_gets_unless_it_is_meant_for_it_alone() {
    for (way, started) in ways() {
        for (option, shared) in [("--init=group", true), ("--init", false)] {
            let world = World::new();
            let service = [counter().to_str().unwrap(), "pair"];
            let mut talk = Talk::start(&mut started(&world, &[option], &service));
            assert_eq!(talk.line(), "ready");
            let entrypoint = talk.entrypoint();
            let numbers = [1, 2, 3, 10, 12, 28, 40];
            for number in numbers {
                kill_by_number(entrypoint, number);
                let mut told = vec![talk.line()];
                let mut expected = vec![format!("got {number}")];
                if shared {
                    told.push(talk.line());
                    told.sort();
                    expected.insert(0, format!("child got {number}"));
                }
                assert_eq!(told, expected, "{way} {option}");
            }
            // These two are a word to the service in any case.
            for number in [21, 22] {
                kill_by_number(entrypoint, number);
                assert_eq!(talk.line(), format!("got {number}"), "{way} {option}");
            }
            kill(entrypoint, Signal::SIGTERM);
            let (rest, code) = talk.end();
            assert_eq!(code, Some(7), "{way} {option}: {rest:?}");
            // What the service was told at last, not what its child was told then.
            assert!(rest.contains(&"got 15".to_string()), "{rest:?}");
        }
    }
}

/// Context switches that a process made of its own accord: each is a wait.
fn waits(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("voluntary_ctxt_switches"));
    line.unwrap().to_string()
}

#[test]
fn it_sleeps_while_nothing_happens() {
    let world = World::new();
    let mut talk = Talk::start(&mut supervised(&world, &[], &[counter().to_str().unwrap()]));
    assert_eq!(talk.line(), "ready");
    let entrypoint = talk.entrypoint();
    let state = format!("/proc/{entrypoint}/stat");
    assert!(eventually(|| fs::read_to_string(&state)
        .unwrap()
        .contains(") S ")));
    let before = waits(entrypoint);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(waits(entrypoint), before);
    // One process, one thread.
    assert_eq!(
        fs::read_dir(format!("/proc/{entrypoint}/task")).unwrap().count(),
        1
    );
    kill(entrypoint, Signal::SIGTERM);
    assert_eq!(talk.end().1, Some(7));
}

#[test]
fn a_service_that_somebody_stopped_is_left_stopped() {
    let world = World::new();
    let mut talk = Talk::start(&mut supervised(&world, &[], &[counter().to_str().unwrap()]));
    assert_eq!(talk.line(), "ready");
    let (entrypoint, service) = (talk.entrypoint(), children(talk.entrypoint())[0]);
    let state = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(") ").next().unwrap().chars().next().unwrap()
    };
    kill(service, Signal::SIGSTOP);
    assert!(eventually(|| state(service) == 'T'));
    // The entrypoint has seen that, and does not stop with it.
    kill(entrypoint, Signal::SIGUSR1);
    assert!(eventually(|| state(entrypoint) == 'S'));
    assert_eq!(state(service), 'T');
    kill(service, Signal::SIGCONT);
    let mut told = [talk.line(), talk.line()];
    told.sort();
    assert_eq!(told, ["got 10", "got 18"]);
    kill(entrypoint, Signal::SIGTERM);
    assert_eq!(talk.end().1, Some(7));
}
