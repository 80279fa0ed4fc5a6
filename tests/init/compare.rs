//! The same cases through `--init`, tini and catatonit, side by side. Prints a table; tests/init/compare.sh runs it with
//! the binary that ships. Only our own column is asserted elsewhere: here is what the others do.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::probe::{counter, launcher, orphans};
use crate::support::pty::Session;
use crate::support::run::{ENTRYPOINT, World, children, kill, kill_by_number};

/// One of the three, a subreaper where it is not PID 1.
struct Init {
    name: &'static str,
    argv: Vec<String>,
}

fn inits() -> Vec<Init> {
    let ours = env::var("COMPARE_ENTRYPOINT").unwrap_or(ENTRYPOINT.to_string());
    let words = |line: &str| line.split(' ').map(str::to_string).collect();
    let all = [
        ("--init", words(&format!("{ours} run --init --mode off --"))),
        ("tini -s", words("/usr/bin/tini -s --")),
        ("catatonit", words("/usr/bin/catatonit --")),
    ];
    let there = |argv: &Vec<String>| fs::exists(&argv[0]).unwrap();
    all.into_iter()
        .filter(|(_, argv)| there(argv))
        .map(|(name, argv)| Init { name, argv })
        .collect()
}

impl Init {
    fn start(&self, world: &World, service: &[&str]) -> Command {
        let mut command = world.command(&self.argv[0]);
        command.args(&self.argv[1..]).args(service);
        command
    }

    fn as_pid_1(&self, world: &World, service: &[&str]) -> Command {
        let mut command = world.command("unshare");
        command.args(["--fork", "--pid", "--mount-proc", "--kill-child"]);
        command.args(&self.argv).args(service);
        command
    }
}

/// Lines of a child, each waited for only so long.
struct Said(Receiver<String>);

impl Said {
    fn by(command: &mut Command) -> (Child, Self) {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, receiver) = channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        (child, Self(receiver))
    }

    fn line(&self, patience_ms: u64) -> Option<String> {
        self.0.recv_timeout(Duration::from_millis(patience_ms)).ok()
    }
}

fn code(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    output
        .status
        .code()
        .map_or(output.status.to_string(), |code| code.to_string())
}

fn numbers(all: &[i32]) -> String {
    if all.is_empty() {
        return "none".to_string();
    }
    all.iter().map(i32::to_string).collect::<Vec<_>>().join(" ")
}

fn within(seconds: u64, holds: impl Fn() -> bool) -> bool {
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        if holds() {
            return true;
        }
        thread::sleep(Duration::from_millis(5));
    }
    false
}

type Case = (&'static str, fn(&Init, &World) -> String);

const CASES: &[Case] = &[
    ("exit codes 0 to 255 that differ", |init, world| {
        let wrong = (0..=255).filter(|n| {
            let script = format!("exit {n}");
            code(init.as_pid_1(world, &["sh", "-c", &script])) != n.to_string()
        });
        numbers(&wrong.collect::<Vec<_>>())
    }),
    ("deaths by signal that are not 128+N", |init, world| {
        let deadly = (1..=64).filter(|n| ![17, 18, 19, 20, 21, 22, 23, 28].contains(n));
        let wrong = deadly.filter(|n| {
            let script = format!("ulimit -c 0; kill -{n} $$");
            code(init.as_pid_1(world, &["sh", "-c", &script])) != (128 + n).to_string()
        });
        numbers(&wrong.collect::<Vec<_>>())
    }),
    ("as PID 1: signals that do not arrive once", |init, world| {
        let (mut child, said) = Said::by(&mut init.as_pid_1(world, &[counter().to_str().unwrap()]));
        said.line(5000).unwrap();
        let pid = children(child.id())[0];
        let mut wrong = Vec::new();
        for number in (1..=64).filter(|n| ![9, 15, 17, 19].contains(n)) {
            kill_by_number(pid, number);
            if said.line(200).as_deref() != Some(&format!("got {number}")) || said.line(5).is_some() {
                wrong.push(number);
            }
        }
        kill(pid, Signal::SIGTERM);
        let _ = child.wait();
        numbers(&wrong)
    }),
    ("10,000 orphans: zombies left", |init, world| {
        let mut command = init.as_pid_1(world, &[orphans().to_str().unwrap(), "10000"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        within(5, || !children(child.id()).is_empty());
        let pid = children(child.id())[0];
        within(60, || {
            let service = children(pid)[0];
            let wait = fs::read_to_string(format!("/proc/{service}/wchan")).unwrap_or_default();
            started.elapsed() > Duration::from_secs(3) && wait.contains("pipe")
        });
        thread::sleep(Duration::from_millis(200));
        let left = children(pid).len() - 1;
        drop(child.stdin.take());
        let _ = child.wait();
        left.to_string()
    }),
    (
        "the service's SigBlk, SigIgn, started with all blocked and ignored",
        |init, world| {
            let mut command = world.command(launcher());
            command
                .args(["--block", "--ignore", "--"])
                .args(&init.argv)
                .args(["cat", "/proc/self/status"]);
            let (mut child, said) = Said::by(&mut command);
            let text = std::iter::from_fn(|| said.line(1000))
                .collect::<Vec<_>>()
                .join("\n");
            let ended = within(2, || world.survivors(&[]).is_empty());
            world.kill_survivors();
            let _ = child.wait();
            let field = |name: &str| {
                let line = text.lines().find(|l| l.starts_with(name)).unwrap_or("? ?");
                let value = line.split_ascii_whitespace().nth(1).unwrap_or("?");
                value.trim_start_matches('0').to_string()
            };
            let shown = |value: String| if value.is_empty() { "0".to_string() } else { value };
            let hangs = if ended { "" } else { "; never ends" };
            format!("{}, {}{hangs}", shown(field("SigBlk:")), shown(field("SigIgn:")))
        },
    ),
    ("on a terminal: the service is its foreground", |init, world| {
        let mut session = Session::start(&mut init.start(world, &["cat", "/proc/self/stat"]));
        session.exit_code();
        thread::sleep(Duration::from_millis(100));
        let screen = session.screen();
        let stat = screen.lines().find(|l| l.contains("(cat)")).unwrap_or_default();
        let fields: Vec<&str> = stat
            .rsplit(") ")
            .next()
            .unwrap()
            .split_ascii_whitespace()
            .collect();
        yes(fields.get(2) == fields.get(5))
    }),
    (
        "Ctrl-Z without a shell around it: the service goes on",
        |init, world| {
            let service = ["sh", "-c", "echo ready; read line; echo got-$line"];
            let mut session = Session::start(&mut init.start(world, &service));
            session.shows("ready");
            session.types("\u{1a}");
            thread::sleep(Duration::from_millis(100));
            session.types("word\n");
            let on = within(2, || session.screen().contains("got-word"));
            world.kill_survivors();
            let _ = session.child.wait();
            yes(on)
        },
    ),
    ("Ctrl-Z in a shell: the shell is back", |init, world| {
        let mut bash = world.command("bash");
        bash.args(["--norc", "--noprofile", "--noediting", "-i"])
            .env("PS1", "> ");
        let mut session = Session::start(&mut bash);
        session.types(&format!(
            "{} sh -c 'echo rea''dy; read line'\n",
            init.argv.join(" ")
        ));
        session.shows("ready");
        session.types("\u{1a}");
        thread::sleep(Duration::from_millis(300));
        session.types("echo $((40 + 2))\n");
        let back = within(2, || session.screen().contains("\n42"));
        world.kill_survivors();
        let _ = session.child.wait();
        yes(back)
    }),
    ("not PID 1: an orphan becomes its child", |init, world| {
        let daemon = "(setsid sleep 30 >/dev/null 2>&1 &); sleep 0.3; echo ready; sleep 30";
        let (mut child, said) = Said::by(&mut init.start(world, &["sh", "-c", daemon]));
        said.line(5000).unwrap();
        let adopted = children(child.id()).len() == 2;
        world.kill_survivors();
        let _ = child.wait();
        yes(adopted)
    }),
    (
        "not PID 1: what the service left behind at its end",
        |init, world| {
            let leave = "setsid sleep 30 >/dev/null 2>&1 & sleep 0.2; exit 0";
            code(init.start(world, &["sh", "-c", leave]));
            let left = if world.survivors(&[]).is_empty() {
                "ended"
            } else {
                "runs on"
            };
            world.kill_survivors();
            left.to_string()
        },
    ),
    (
        "PID 1: what the service left is told to end (SIGTERM)",
        |init, world| {
            let _ = fs::remove_file(world.path("told"));
            let leave = "setsid sh -c 'trap \"echo yes >told; exit\" TERM; echo; while :; do sleep 0.02; done' & sleep 0.3; exit 0";
            code(init.as_pid_1(world, &["sh", "-c", leave]));
            world
                .read("told")
                .map_or("no, killed".to_string(), |_| "yes".to_string())
        },
    ),
    ("not PID 1: SIGKILL to it ends the service", |init, world| {
        let (mut child, said) = Said::by(&mut init.start(world, &["sh", "-c", "echo ready; exec sleep 30"]));
        said.line(5000).unwrap();
        kill(child.id(), Signal::SIGKILL);
        let _ = child.wait();
        let ended = within(1, || world.survivors(&[]).is_empty());
        world.kill_survivors();
        yes(ended)
    }),
    (
        "exit code: no such command; not executable; script without #!",
        |init, world| {
            world.write("plain", "#!/bin/sh\n");
            world.program("script", "exit 9\n");
            let codes = ["./nowhere", "./plain", "./script"].map(|name| code(init.start(world, &[name])));
            codes.join("; ")
        },
    ),
    (
        "memory while it waits: VmRSS, of which its own (RssAnon)",
        |init, world| {
            let (mut child, said) =
                Said::by(&mut init.as_pid_1(world, &["sh", "-c", "echo ready; exec sleep 30"]));
            said.line(5000).unwrap();
            thread::sleep(Duration::from_millis(50));
            let pid = children(child.id())[0];
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let field = |name: &str| {
                let line = status.lines().find(|l| l.starts_with(name)).unwrap();
                line.split_once(':').unwrap().1.trim().to_string()
            };
            let memory = format!("{}, {}", field("VmRSS:"), field("RssAnon:"));
            kill(pid, Signal::SIGTERM);
            let _ = child.wait();
            memory
        },
    ),
];

fn yes(holds: bool) -> String {
    if holds { "yes" } else { "no" }.to_string()
}

/// Median milliseconds of starting and ending `true` behind each, and behind none, taken in turns.
fn times(inits: &[Init], world: &World) -> Vec<f64> {
    let mut all: Vec<Vec<f64>> = vec![Vec::new(); inits.len() + 1];
    for _ in 0..200 {
        for (at, times) in all.iter_mut().enumerate() {
            let mut command = match inits.get(at) {
                Some(init) => init.start(world, &["/bin/true"]),
                None => world.command("/bin/true"),
            };
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let since = Instant::now();
            assert!(command.status().unwrap().success());
            times.push(since.elapsed().as_secs_f64() * 1000.0);
        }
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    all.iter_mut().map(median).collect()
}

#[test]
#[ignore = "a table for people: tests/init/compare.sh"]
fn compare() {
    let inits = inits();
    let mut table = String::from("| case |");
    for init in &inits {
        let _ = write!(table, " `{}` |", init.name);
    }
    table.push_str("\n| --- |");
    table.push_str(&" --- |".repeat(inits.len()));
    table.push('\n');
    for (name, case) in CASES {
        let _ = write!(table, "| {name} |");
        for init in &inits {
            let world = World::new();
            let _ = write!(table, " {} |", case(init, &world));
        }
        table.push('\n');
    }
    let world = World::new();
    let times = times(&inits, &world);
    table.push_str("| start and end of `true`, median of 200, ms more than without |");
    for time in &times[..inits.len()] {
        let _ = write!(table, " {:.2} |", time - times[inits.len()]);
    }
    tell!("\n{table}");
}
