//! Becoming the service: what it is started with, whatever the entrypoint itself was started with, and what is said
//! when it cannot be started.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::support::needs::Need;
use crate::support::probe::{Told, launcher, probe, probe_without_loader, shown};
use crate::support::run::{ENTRYPOINT, RUN, Run, Running, World};

/// What happens before the service starts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    /// no helper
    NoGpu,
    /// helpers ask a driver that works
    Helpers,
    /// helpers ask a driver that leaves daemons behind
    Daemons,
    /// a helper crashes
    Crash,
    /// nothing
    Off,
    /// an option that there is not, under mode off
    OffWithBadUsage,
    /// a manifest that cannot be read, under mode warn
    WarnWithBadManifest,
    /// a setting that makes no sense, under mode warn
    WarnWithBadSetting,
}

use Before::*;

const ALL: [Before; 8] = [
    NoGpu,
    Helpers,
    Daemons,
    Crash,
    Off,
    OffWithBadUsage,
    WarnWithBadManifest,
    WarnWithBadSetting,
];

impl Before {
    fn options(self) -> &'static [&'static str] {
        match self {
            NoGpu => &["--gpu", "off"],
            Helpers | Daemons => &["--gpu", "required"],
            Crash => &["--mode", "warn"],
            Off => &["--mode", "off"],
            OffWithBadUsage => &["--mode", "off", "--no-such-option"],
            WarnWithBadManifest => &["--mode", "warn", "--stack", "broken.json"],
            WarnWithBadSetting => &["--mode", "warn", "--wait", "soon"],
        }
    }

    fn driver(self) -> &'static str {
        match self {
            Daemons => {
                r#"{"calls": {"cuInit": {"fork_daemon": true}, "nvmlInit_v2": {"fork_daemon": true}}}"#
            }
            Crash => r#"{"calls": {"cuInit": {"signal": 11}}}"#,
            _ => "{}",
        }
    }

    /// Whether it comes as far as the manifest's variables.
    fn reads_the_manifest(self) -> bool {
        matches!(self, NoGpu | Helpers | Daemons | Crash)
    }

    /// What is said, so that a test can tell that it did happen.
    fn sentence(self) -> &'static str {
        match self {
            NoGpu => "nothing to prove",
            Helpers | Daemons => "NVIDIA H200",
            Crash => "helper-crashed",
            Off => "mode is off",
            OffWithBadUsage => "unknown option --no-such-option",
            WarnWithBadManifest => "broken.json",
            WarnWithBadSetting => "--wait",
        }
    }
}

/// The launcher with these options, the entrypoint, and `service` behind it.
fn behind(world: &World, how: &[&str], before: Before, service: &[OsString]) -> Command {
    world.write("broken.json", "{");
    let mut command = world.command(launcher());
    command.args(how).arg("--").arg(ENTRYPOINT);
    command.args(["run", "--stack", "stack.json", "--termination-log", "termination"]);
    command.args(before.options()).arg("--").args(service);
    world.with_gpu(&mut command, before.driver());
    command
}

fn only_probe() -> Vec<OsString> {
    vec![probe().into()]
}

/// What the probe is started with behind the entrypoint.
#[track_caller]
fn told(world: &World, how: &[&str], before: Before) -> Told {
    let run = Run::of(&mut behind(world, how, before, &only_probe()));
    run.exits(0).says(before.sentence());
    Told::parse(run.text())
}

/// What it is started with when nothing stands before it.
fn told_without_us(world: &World, how: &[&str]) -> Told {
    let mut command = world.command(launcher());
    command.args(how).arg("--").arg(probe());
    world.with_gpu(&mut command, "{}");
    let run = Run::of(&mut command);
    run.exits(0);
    Told::parse(run.text())
}

/// Takes out what differs from start to start, and what the test runner may have left to its children.
fn comparable(mut told: Told) -> Told {
    told.ignored.clear();
    told.pid = 0;
    told.group = (0, told.group.1);
    for (_, target) in &mut told.fds {
        if target.starts_with("pipe:") {
            *target = "pipe".to_string();
        }
    }
    told
}

#[test]
fn the_service_cannot_tell_that_anything_ran_before_it() {
    for before in ALL {
        let world = World::new();
        let mut expected = comparable(told_without_us(&world, &[]));
        assert_eq!(expected.numbers(), [0, 1, 2]);
        if before.reads_the_manifest() {
            expected.env.push("T_JIT=1".to_string());
        }
        assert_eq!(comparable(told(&world, &[], before)), expected, "{before:?}");
        world.assert_nothing_left();
    }
}

#[test]
fn dispositions_and_mask_are_the_defaults_whatever_was_inherited() {
    for how in [&["--block"][..], &["--ignore"], &["--block", "--ignore"]] {
        let world = World::new();
        let inherited = told_without_us(&world, how);
        assert_ne!(
            (inherited.blocked, inherited.ignored.len()),
            (0, 0),
            "the launcher does nothing"
        );
        for before in ALL {
            let told = told(&world, how, before);
            let state = (told.blocked, told.ignored, told.caught);
            assert_eq!(state, (0, Vec::new(), Vec::new()), "{how:?} {before:?}");
        }
    }
}

#[test]
fn proc_shows_default_signals_too() {
    // The same as the probe sees it, by the file that people look at; cat sets nothing up for itself.
    let world = World::new();
    let run = Run::of(&mut world.run(&[], &["cat", "/proc/self/status"]));
    let field = |name: &str| {
        let line = run.text().lines().find(|l| l.starts_with(name)).unwrap();
        u64::from_str_radix(line.split_ascii_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    for name in ["SigBlk:", "SigIgn:", "SigCgt:", "SigPnd:"] {
        assert_eq!(field(name), 0, "{name}");
    }
}

#[test]
fn a_subreaper_flag_is_left_as_it_was() {
    let world = World::new();
    for before in ALL {
        assert_eq!(told(&world, &[], before).subreaper, 0, "{before:?}");
        assert_eq!(told(&world, &["--subreaper"], before).subreaper, 1, "{before:?}");
    }
}

#[test]
fn descriptors_that_were_given_are_passed_on() {
    let world = World::new();
    let file = world.write("given", "x").display().to_string();
    for before in ALL {
        // Numbers that we would take ourselves, and one far away.
        let how = ["--open", "3", &file, "--open", "7", &file, "--open", "500", &file];
        let told = told(&world, &how, before);
        assert_eq!(told.numbers(), [0, 1, 2, 3, 7, 500], "{before:?}");
        let given: Vec<&str> = told.fds[3..].iter().map(|(_, target)| target.as_str()).collect();
        assert_eq!(given, [&file; 3], "{before:?}");
    }
}

#[test]
fn standard_streams_that_are_closed_do_not_stop_it() {
    let world = World::new();
    for before in ALL {
        let mut command = behind(
            &world,
            &["--close", "0", "--close", "2"],
            before,
            &[OsString::from("echo"), "x".into()],
        );
        Run::of(&mut command).exits(0).prints("x\n");
    }
}

/// Which of the three are open, into a file.
const OPEN_STREAMS: &str = "exec 9>told; for n in 0 1 2; do [ ! -e /proc/$$/fd/$n ] || echo $n >&9; done";

#[test]
fn a_closed_stream_stays_closed_for_the_service() {
    let world = World::new();
    for before in ALL {
        for closed in ["0", "1", "2", "01", "12", "012"] {
            let numbers: Vec<String> = closed.chars().map(String::from).collect();
            let how: Vec<&str> = numbers.iter().flat_map(|n| ["--close", n.as_str()]).collect();
            let service = ["/bin/sh", "-c", OPEN_STREAMS].map(OsString::from);
            Run::of(&mut behind(&world, &how, before, &service)).exits(0);
            let open: String = "012".chars().filter(|n| !closed.contains(*n)).collect();
            let told = world.read("told").unwrap().replace('\n', "");
            assert_eq!(told, open, "{before:?} {closed}");
        }
    }
}

#[test]
fn arguments_arrive_byte_for_byte() {
    let world = World::new();
    let odd = [
        OsString::new(),
        "--".into(),
        "--mode=off".into(),
        "-h".into(),
        " two  words\n".into(),
        OsString::from_vec(b"\xff\xfe\x80=".to_vec()),
        "$(id) * ~ 'q'".into(),
        "--".into(),
        OsString::new(),
    ];
    for before in ALL {
        // By PATH: argv[0] stays the word that was written.
        let name: OsString = probe().file_name().unwrap().into();
        let service: Vec<OsString> = [name].into_iter().chain(odd.clone()).collect();
        let mut command = behind(&world, &[], before, &service);
        command.env("PATH", probe().parent().unwrap());
        let run = Run::of(&mut command);
        run.exits(0);
        let expected: Vec<String> = service.into_iter().map(|word| shown(&word.into_vec())).collect();
        assert_eq!(Told::parse(run.text()).argv, expected, "{before:?}");
    }
}

#[test]
fn the_environment_keeps_its_order_duplicates_and_oddities() {
    let given = [
        &b"Z=last letter first"[..],
        b"TWICE=1",
        b"no equals sign",
        b"T_JIT=0",
        b"TWICE=2",
        b"=starts with it",
        b"",
        b"BYTES=\xff\x80\n",
        b"T_JITTER=mine",
        b"T_JIT=also",
        b"EMPTY=",
        b"A=B=C",
    ];
    let world = World::new();
    let mut strings = given.join(&b"\0"[..]);
    strings.push(0);
    let file = world.write("environment", strings).display().to_string();
    for before in [NoGpu, Crash, Off, OffWithBadUsage, WarnWithBadManifest] {
        let run = Run::of(&mut behind(&world, &["--env", &file], before, &only_probe()));
        run.exits(0);
        let told = Told::parse(run.text());
        let mut expected: Vec<String> = given.iter().map(|variable| shown(variable)).collect();
        if before.reads_the_manifest() {
            // In the place of the first, and once.
            expected[3] = "T_JIT=1".to_string();
            expected.remove(9);
        }
        assert_eq!(told.env, expected, "{before:?}");
    }
}

#[test]
fn a_variable_that_the_manifest_changes_is_named_without_its_values() {
    let world = World::new();
    let mut command = world.run(&[], &["sh", "-c", "echo $T_JIT"]);
    let run = Run::of(command.env("T_JIT", "secret"));
    run.exits(0).prints("1\n");
    run.says("T_JIT was set to another value").does_not_say("secret");
    let mut command = world.run(&[], &["true"]);
    Run::of(command.env("T_JIT", "1")).exits(0).does_not_say("T_JIT");
}

#[test]
fn it_is_the_same_process() {
    for before in ALL {
        let world = World::new();
        let running = Running::start(&mut behind(&world, &[], before, &only_probe()));
        let pid = running.pid();
        let told = Told::parse(running.finish().text());
        assert_eq!((told.pid, told.ppid), (pid, std::process::id()), "{before:?}");
    }
}

#[test]
fn children_from_before_are_the_services_to_wait_for() {
    for before in ALL {
        let world = World::new();
        // One is a zombie from the start, one ends while the service runs.
        let how = ["--child", "7", "--zombie", "3"];
        let mut command = behind(&world, &how, before, &only_probe());
        let run = Run::of(command.env("PROBE", "wait"));
        run.exits(0);
        let mut waited = Told::parse(run.text()).waited;
        waited.sort_unstable();
        assert_eq!(waited, [3, 7], "{before:?}");
        // Where there were children before, an orphan may be theirs, so that none is killed.
        world.kill_survivors();
    }
}

#[test]
fn a_shell_may_have_children_and_become_us() {
    let world = World::new();
    let script = format!(
        "(exit 9) & sleep 0.2 & exec '{ENTRYPOINT}' run --stack stack.json --gpu off -- \
         sh -c 'wait; echo only own children: $?'"
    );
    let mut command = world.command("sh");
    Run::of(command.args(["-c", &script]))
        .exits(0)
        .prints("only own children: 0\n");
}

#[test]
fn a_crash_is_seen_where_the_parent_ignored_sigchld() {
    // The kernel then reaps children by itself and keeps no status.
    let world = World::new();
    let run = Run::of(&mut behind(&world, &["--ignore-child"], Crash, &only_probe()));
    run.exits(0).says("SIGSEGV in cuInit");
    let run = Run::of(&mut behind(&world, &["--ignore-child"], Helpers, &only_probe()));
    run.exits(0).says("NVIDIA H200");
}

// How it ends

#[test]
fn the_exit_code_is_the_services() {
    let world = World::new();
    for code in [0, 1, 2, 42, 64, 70, 78, 82, 126, 127, 128, 143, 255] {
        let service = format!("exit {code}");
        Run::of(&mut world.run(&[], &["sh", "-c", &service])).exits(code);
    }
}

#[test]
fn a_signal_that_ends_the_service_is_seen_as_one() {
    let world = World::new();
    for signal in [1, 2, 6, 9, 11, 13, 15] {
        let service = format!("kill -{signal} $$");
        let run = Run::of(&mut world.run(&[], &["sh", "-c", &service]));
        assert_eq!((run.code(), run.signal()), (None, Some(signal)));
    }
}

/// A command that cannot be started says why, in our words, and in the termination log as well.
#[track_caller]
fn refused(world: &World, command: &mut Command, code: i32, parts: &[&str]) {
    let _ = fs::remove_file(world.path("termination"));
    let run = Run::of(command);
    run.exits(code).prints("");
    let log = world.read("termination").unwrap_or_default();
    for part in parts {
        run.says(part);
        assert!(log.contains(part), "no {part:?} in {log:?}");
    }
    assert!(log.starts_with(&format!("service (exit {code}): ")), "{log:?}");
}

#[test]
fn what_is_not_there_is_127() {
    let world = World::new();
    let names = |service: &str| world.run(&[], &[service]);
    let not_on_path = ["`no-such-command`", "PATH", crate::support::run::PATH];
    refused(&world, &mut names("no-such-command"), 127, &not_on_path);
    let option = ["`--port`", "former ENTRYPOINT lost", "\"PROGRAM\""];
    refused(&world, &mut names("--port"), 127, &option);
    for path in ["/no/such/file", "./no-such-file", "stack.json/x"] {
        refused(&world, &mut names(path), 127, &[path, "does not exist"]);
    }
    refused(&world, &mut names(""), 127, &["empty string"]);
    let dangling = world.path("dangling");
    std::os::unix::fs::symlink("/no/such/file", &dangling).unwrap();
    refused(&world, &mut names("./dangling"), 127, &["does not exist"]);

    world.program("shebang", "#!/no/such/interpreter -x\n");
    let parts = ["shebang", "/no/such/interpreter", "first line"];
    refused(&world, &mut names("./shebang"), 127, &parts);
    world.program("windows", "#!/bin/sh\r\necho no\r\n");
    refused(
        &world,
        &mut names("./windows"),
        127,
        &["`/bin/sh`", "Windows line ends"],
    );
    world.copy(probe_without_loader(), "loaderless");
    refused(&world, &mut names("./loaderless"), 127, &["loader", "C library"]);
}

#[test]
fn what_cannot_be_executed_is_126() {
    let world = World::new();
    let names = |service: &str| world.run(&[], &[service]);
    fs::create_dir(world.path("folder")).unwrap();
    refused(&world, &mut names("./folder"), 126, &["folder"]);
    refused(&world, &mut names("/"), 126, &["folder"]);
    world.write("plain", "#!/bin/sh\n");
    refused(
        &world,
        &mut names("./plain"),
        126,
        &["may not be executed", "chmod"],
    );
    world.program("empty", "");
    refused(&world, &mut names("./empty"), 126, &["empty or damaged"]);
    world.program("noise", [0, 1, 2, 3]);
    refused(&world, &mut names("./noise"), 126, &["exec format", "damaged"]);
    let mut elf = fs::read(probe()).unwrap();
    elf[18..20].copy_from_slice(&75u16.to_le_bytes()); // e_machine: a VAX
    world.program("vax", &elf);
    refused(&world, &mut names("./vax"), 126, &["processor", "linux/amd64"]);
    world.program("cut", &fs::read(probe()).unwrap()[..40]);
    refused(&world, &mut names("./cut"), 126, &["exec format"]);
    world.fifo("fifo");
    refused(&world, &mut names("./fifo"), 126, &["fifo"]);
}

#[test]
fn what_may_not_be_executed_hides_nothing_further_along_path() {
    let world = World::new();
    world.write("first/tool", "#!/bin/sh\necho first\n");
    world.program("second/tool", "#!/bin/sh\necho second\n");
    let mut command = world.run(&[], &["tool"]);
    command.env(
        "PATH",
        format!(
            "{}:{}",
            world.path("first").display(),
            world.path("second").display()
        ),
    );
    Run::of(&mut command).exits(0).prints("second\n");
    let mut command = world.run(&[], &["tool"]);
    command.env("PATH", world.path("first"));
    refused(&world, &mut command, 126, &["first/tool"]);
    // As a shell does: without PATH the usual folders, an empty element is the current one.
    Run::of(world.run(&[], &["true"]).env_remove("PATH")).exits(0);
    let mut command = world.run(&[], &["tool"]);
    Run::of(command.env("PATH", ":/nowhere").current_dir(world.path("second"))).exits(78);
    let mut command = world.run(&["--stack", "../stack.json"], &["tool"]);
    Run::of(command.env("PATH", ":/nowhere").current_dir(world.path("second")))
        .exits(0)
        .prints("second\n");
}

#[test]
fn a_script_without_a_shebang_runs_in_the_shell() {
    let world = World::new();
    world.program("script", "printf '%s|' \"$0\" \"$@\"\n");
    let mut command = world.run(&[], &["./script", "a", "", "b c"]);
    Run::of(&mut command).exits(0).prints("./script|a||b c|");
}

#[test]
fn a_script_is_never_run_by_another_interpreter_than_the_one_it_names() {
    let world = World::new();
    let names = |service: &str| world.run(&[], &[service]);
    let garbage = world.program("garbage", [0, 1, 2, 3]);
    world.program("script", format!("#!{}\necho run by sh\n", garbage.display()));
    let parts = ["script", "garbage", "not an executable for this machine"];
    refused(&world, &mut names("./script"), 126, &parts);
    let plain = world.write("plain", "#!/bin/sh\n");
    world.program("denied", format!("#!{}\necho run by sh\n", plain.display()));
    let parts = ["denied", "names the interpreter", "plain", "may not be executed"];
    refused(&world, &mut names("./denied"), 126, &parts);
    // A shebang that names nothing is none.
    world.program("nameless", "#! \necho \"$1\"\n");
    Run::of(&mut world.run(&[], &["./nameless", "a"]))
        .exits(0)
        .prints("a\n");
}

#[test]
fn an_environment_too_large_for_the_service_is_126_and_says_how_large() {
    let world = World::new();
    let mut command = world.crowded();
    command.args(RUN).args(["--gpu", "off", "--", "true"]);
    refused(
        &world,
        &mut command,
        126,
        &["too large", "bytes", "enableServiceLinks"],
    );
}

#[test]
fn a_mount_that_forbids_execution_is_126() {
    Need::MountNamespace.demand();
    let world = World::new();
    world.program("tool", "#!/bin/sh\n");
    fs::create_dir(world.path("mounted")).unwrap();
    let script = "mount -t tmpfs -o noexec none mounted && cp tool mounted && exec \"$@\"";
    let mut command = world.command("unshare");
    command.args(["-m", "sh", "-ec", script, "sh", ENTRYPOINT, "run", "--gpu", "off"]);
    command.args([
        "--stack",
        "stack.json",
        "--termination-log",
        "termination",
        "--",
        "mounted/tool",
    ]);
    refused(&world, &mut command, 126, &["mounted/tool", "noexec"]);
}

#[test]
fn an_image_with_nothing_in_it_starts_its_service() {
    Need::Root.demand();
    // No /proc, no /dev, no loader, no shell.
    let world = World::new();
    world.copy(ENTRYPOINT.as_ref(), "root/entrypoint");
    world.copy(probe(), "root/probe");
    world.write("root/stack.json", crate::support::run::TINY);
    world.program("root/script", "echo no shell here\n");
    let within = |options: &[&str], service: &[&str]| {
        let mut command = world.command(launcher());
        command.args([
            "--",
            "/usr/sbin/chroot",
            "root",
            "/entrypoint",
            "run",
            "--stack",
            "/stack.json",
            "--termination-log",
            "/termination",
        ]);
        command.args(options).arg("--").args(service);
        command
    };
    for options in [&["--gpu", "off"][..], &["--mode", "warn"], &["--mode", "off"]] {
        let run = Run::of(&mut within(options, &["/probe"]));
        run.exits(0);
        let told = Told::parse(run.text());
        assert_eq!(told.numbers(), [0, 1, 2], "{options:?}");
        assert_eq!((told.child, told.subreaper), (None, 0), "{options:?}");
    }
    Run::of(&mut within(&["--gpu", "required"], &["/probe"]))
        .exits(81)
        .says("loader-missing")
        .says("glibc");
    let run = Run::of(&mut within(&["--gpu", "off"], &["/script"]));
    run.exits(127).says("/script").says("/bin/sh");
}

#[test]
fn a_program_that_its_user_may_not_execute_is_126() {
    Need::Root.demand();
    let world = World::new();
    let root_only = world.program("tool", "#!/bin/sh\n");
    fs::set_permissions(&root_only, PermissionsExt::from_mode(0o700)).unwrap();
    world.copy(ENTRYPOINT.as_ref(), "entrypoint");
    for path in ["", "stack.json", "entrypoint"] {
        fs::set_permissions(world.path(path), PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut command = world.command("setpriv");
    command.args([OsStr::new("--reuid=65534"), world.path("entrypoint").as_os_str()]);
    command.args(["run", "--gpu", "off", "--stack", "stack.json", "--", "./tool"]);
    Run::of(&mut command).exits(126).says("uid 65534");
}

#[test]
fn without_descriptors_to_work_with_the_fault_is_named() {
    let world = World::new();
    let few = |mode: &str| {
        let mut command = world.command(launcher());
        command.args(["--files", "5", "--", ENTRYPOINT, "run", "--mode", mode]);
        command.args([
            "--stack",
            "stack.json",
            "--termination-log",
            "termination",
            "--",
            "echo",
            "x",
        ]);
        Run::of(&mut command)
    };
    few("enforce").exits(70).says("descriptors").prints("");
    assert!(world.read("termination").unwrap().contains("descriptors"));
    // Warn starts the service whatever happens, and off asks for nothing.
    few("warn").exits(0).says("descriptors").prints("x\n");
    few("off").exits(0).prints("x\n");
}
