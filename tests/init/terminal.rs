//! With a terminal: its foreground, its signals, and job control.

use std::fs;

use super::{supervised, ways};
use crate::support::probe::counter;
use crate::support::pty::Session;
use crate::support::run::{ENTRYPOINT, World, eventually};

/// Process group and the terminal's foreground group, of /proc/PID/stat as it is shown.
fn groups(stat: &str) -> (String, String) {
    let after = stat.rsplit(") ").next().unwrap();
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    (fields[2].to_string(), fields[5].to_string())
}

#[test]
fn the_service_is_the_foreground_of_the_terminal() {
    for (way, started) in ways() {
        let world = World::new();
        let mut session = Session::start(&mut started(&world, &[], &["cat", "/proc/self/stat"]));
        assert_eq!(session.exit_code(), Some(0), "{way}: {}", session.screen());
        session.shows("(cat) R");
        let screen = session.screen();
        let (own, foreground) = groups(screen.lines().find(|l| l.contains("(cat)")).unwrap());
        assert_eq!(own, foreground, "{way}: {screen}");
    }
}

#[test]
fn keys_and_the_window_tell_the_service_once() {
    for (way, started) in ways() {
        let world = World::new();
        let mut session = Session::start(&mut started(&world, &[], &[counter().to_str().unwrap()]));
        session.shows("ready");
        for (key, line) in [("\u{3}", "got 2"), ("\u{1c}", "got 3"), ("\u{1a}", "got 20")] {
            session.types(key);
            session.shows(line);
        }
        session.resize(50);
        session.shows("got 28");
        let entrypoint = entrypoint_of(&session);
        super::kill_term(entrypoint);
        assert_eq!(session.exit_code(), Some(7), "{way}");
        let screen = session.screen();
        for line in ["got 2\r", "got 3\r", "got 20\r", "got 28\r", "got 15\r"] {
            assert_eq!(screen.matches(line).count(), 1, "{way}: {screen}");
        }
    }
}

fn entrypoint_of(session: &Session) -> u32 {
    let pid = session.child.id();
    match fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim() {
        "unshare" => super::children(pid)[0],
        _ => pid,
    }
}

#[test]
fn control_z_hangs_nobody_who_has_no_shell() {
    for (way, started) in ways() {
        let world = World::new();
        let service = ["sh", "-c", "echo ready; read line; echo got $line; exit 4"];
        let mut session = Session::start(&mut started(&world, &[], &service));
        session.shows("ready");
        for _ in 0..3 {
            session.types("\u{1a}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        session.types("a word\n");
        session.shows("got a word");
        assert_eq!(session.exit_code(), Some(4), "{way}: {}", session.screen());
    }
}

/// Whether the terminal's foreground is no longer its session's leader, a shell.
fn service_has_terminal(session: &Session) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", session.child.id())).unwrap();
    let (shell, foreground) = groups(&stat);
    let foreground: u32 = foreground.parse().unwrap();
    let comm = fs::read_to_string(format!("/proc/{foreground}/comm")).unwrap_or_default();
    shell != foreground.to_string() && comm.trim() == "sh"
}

#[test]
fn control_z_returns_to_the_shell_and_fg_to_the_service() {
    let world = World::new();
    let mut bash = world.command("bash");
    bash.args(["--norc", "--noprofile", "--noediting", "-i"])
        .env("PS1", "prompt> ")
        .env("ENTRY", ENTRYPOINT);
    let mut session = Session::start(&mut bash);
    session.shows("prompt> ");
    session.types(
        "\"$ENTRY\" run --init --mode off -- sh -c 'echo rea''dy; read line; echo got-$line; exit 4'\n",
    );
    session.shows("ready");
    for round in 1..=3 {
        session.types("\u{1a}");
        assert!(
            eventually(|| session.screen().matches("Stopped").count() >= round),
            "{}",
            session.screen()
        );
        session.types(&format!("echo shell-$((40 + {round}))\n"));
        session.shows(&format!("shell-4{round}"));
        session.types("fg\n");
        // A key that is pressed before it is the foreground would be the shell's.
        assert!(
            eventually(|| service_has_terminal(&session)),
            "{}",
            session.screen()
        );
    }
    session.types("a-word\n");
    session.shows("got-a-word");
    session.types("echo code-$?\n");
    session.shows("code-4");
    // In the background it neither takes the terminal nor ends.
    session.types("\"$ENTRY\" run --init --mode off -- sh -c 'read line; echo heard-$line' &\n");
    assert!(eventually(
        || session.screen().contains("mode is off") && session.screen().matches("Stopped").count() >= 3
    ));
    session.types("echo still-$((50 + 1))\n");
    session.shows("still-51");
    session.types("fg\n");
    assert!(
        eventually(|| service_has_terminal(&session)),
        "{}",
        session.screen()
    );
    session.types("b-word\n");
    session.shows("heard-b-word");
    // Of a job that runs no signal tells that it is in the foreground now.
    session.types("\"$ENTRY\" run --init --mode off -- sh -c 'echo u''p; until [ -e go ]; do sleep 0.02; done; read line; echo then-$line' &\n");
    session.shows("up");
    session.types("fg\n");
    assert!(
        eventually(|| session.screen().matches("until [ -e go ]").count() == 2),
        "{}",
        session.screen()
    );
    world.write("go", "");
    session.types("c-word\n");
    session.shows("then-c-word");
    session.types("exit 3\n");
    assert_eq!(session.exit_code(), Some(3), "{}", session.screen());
    world.assert_nothing_left();
}

#[test]
fn a_script_around_it_reads_on_from_the_terminal() {
    let world = World::new();
    let mut shell = world.command("sh");
    let script = "\"$ENTRY\" run --init --mode off -- sh -c 'read line; echo first-$line'; read line; echo second-$line";
    let mut session = Session::start(shell.args(["-c", script]).env("ENTRY", ENTRYPOINT));
    session.shows("mode is off");
    session.types("a\n");
    session.shows("first-a");
    session.types("b\n");
    session.shows("second-b");
    assert_eq!(session.exit_code(), Some(0), "{}", session.screen());
}

/// The kernel tells the leader of the session, which in a container is PID 1.
#[test]
fn a_terminal_that_hangs_up_tells_the_service_once() {
    let world = World::new();
    let told = world.path("told");
    let mut command = supervised(&world, &[], &[counter().to_str().unwrap()]);
    command
        .stdout(fs::File::create(&told).unwrap())
        .stderr(std::process::Stdio::null());
    let session = Session::start_unread(&mut command);
    let read = || fs::read_to_string(&told).unwrap();
    assert!(eventually(|| read().contains("ready")));
    let mut child = session.hang_up();
    assert!(eventually(|| read().contains("got 1\n")), "{}", read());
    super::kill_term(child.id());
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert_eq!(read().matches("got 1\n").count(), 1, "{}", read());
}

#[test]
fn without_a_terminal_there_is_none_to_give() {
    let world = World::new();
    let run = crate::support::run::Run::of(&mut supervised(&world, &[], &["cat", "/proc/self/stat"]));
    let (own, foreground) = groups(run.text());
    assert_ne!(own, foreground);
}
