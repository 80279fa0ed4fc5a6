//! `--init` in Docker: as PID 1 of a container, with a terminal, and behind Docker's own init.

use std::process::Command;

use crate::support::docker::{Base, Run};
use crate::support::pty::Session;

const ENTRY: &str = "/cuda-entrypoint run --mode off --init --";

fn container(script: &str) -> Run {
    let words: Vec<&str> = ENTRY.split(' ').chain(["sh", "-c", script]).collect();
    Run::of(Base::Busybox.image()).words(words)
}

#[test]
fn it_is_pid_1_and_passes_on_exit_code_and_signals() {
    let ended = container("cat /proc/1/comm; echo $PPID; exit 7")
        .finish()
        .expect(7);
    assert_eq!(ended.stdout, "cuda-entrypoint\n1\n");
    // An unprivileged user may do the same.
    let nobody =
        container("cat /proc/1/comm; exit 8").options(["--user", "65534:65534", "--cap-drop", "ALL"]);
    assert_eq!(nobody.finish().expect(8).stdout, "cuda-entrypoint\n");
    let stopped = container("trap 'echo told; exit 9' TERM; sleep 600 & wait").start();
    stopped.wait_for("sleep");
    let stopped = stopped.stop();
    stopped.code_is(9);
    assert_eq!(stopped.stdout, "told\n");
    let quit = container("trap 'echo told; exit 10' QUIT; sleep 600 & wait").start();
    quit.wait_for("sleep");
    let quit = quit.kill("QUIT");
    quit.code_is(10);
    assert_eq!(quit.stdout, "told\n");
}

#[test]
fn behind_dockers_own_init_it_is_a_subreaper() {
    let behind = container("cat /proc/1/comm /proc/$PPID/comm; exit 7").options(["--init"]);
    let ended = behind.finish().expect(7);
    assert!(ended.stdout.ends_with("cuda-entrypoint\n"), "{ended:?}");
    assert!(!ended.stdout.starts_with("cuda-entrypoint\n"), "{ended:?}");
}

/// What a person meets under `docker run -it`.
#[test]
fn under_a_terminal_keys_reach_the_service_and_hang_nobody() {
    let mut command = Command::new("docker");
    let label = format!("cuda-entrypoint-test={}", std::process::id());
    command.args([
        "run",
        "--rm",
        "-it",
        "--label",
        &label,
        Base::Busybox.image().name(),
    ]);
    command.args(ENTRY.split(' '));
    command.args([
        "sh",
        "-c",
        "trap 'echo interrupted' INT; echo ready; read line; read line; echo got-$line; exit 5",
    ]);
    let mut session = Session::start(&mut command);
    session.shows("ready");
    session.types("\u{1a}");
    std::thread::sleep(std::time::Duration::from_millis(200));
    session.types("\u{3}");
    session.shows("interrupted");
    session.types("one\n");
    session.types("two\n");
    session.shows("got-");
    assert_eq!(session.exit_code(), Some(5), "{}", session.screen());
    assert_eq!(
        session.screen().matches("interrupted").count(),
        1,
        "{}",
        session.screen()
    );
}
