//! A disk that is full: what is to be written there is missed, and nothing else.

use crate::support::needs::{Need, USER_NAMESPACES};
use crate::support::run::{ENTRYPOINT, Run, World};

/// A file system of one page that is full.
const FULL: &str = "mkdir -p full; mount -t tmpfs -o size=4k none full; head -c 4096 /dev/zero >full/it
    echo x >full/more 2>/dev/null && exit 97; rm -f full/more";

fn on_a_full_disk(world: &World, prepare: &str, words: &[&str]) -> Run {
    Need::UserNamespace.demand();
    let mut command = world.command("unshare");
    command.args(USER_NAMESPACES);
    command.args([
        "sh",
        "-c",
        &format!("{FULL}\n{prepare}\nexec \"$@\""),
        "sh",
        ENTRYPOINT,
    ]);
    Run::of(world.with_gpu(command.args(words), "{}"))
}

#[test]
fn report_receipt_and_termination_message_are_missed_and_the_service_starts() {
    let world = World::new();
    let outputs = [
        "--stack",
        "stack.json",
        "--report",
        "full/report.json",
        "--receipt",
        "full/receipt.json",
        "--termination-log",
        "full/termination",
    ];
    let words = [&["run"][..], &outputs, &["--", "echo", "started"]].concat();
    let run = on_a_full_disk(&world, "", &words);
    run.exits(0)
        .prints("started\n")
        .says("NVIDIA H200")
        .says("cannot write the report to full/report.json: No space left on device")
        .says("full/receipt.json");
    // A failure keeps its code.
    let words = [
        &["run"][..],
        &outputs,
        &["--archs", "7.5", "--", "echo", "started"],
    ]
    .concat();
    let run = on_a_full_disk(&world, "", &words);
    run.exits(83)
        .prints("")
        .says("arch-unsupported")
        .says("cannot write the termination message to full/termination: No space left on device");
}

#[test]
fn a_helper_that_does_not_fit_goes_to_the_next_folder() {
    let world = World::new();
    Need::MemfdNoexec.demand();
    let forbid = "echo 2 >/proc/sys/vm/memfd_noexec; export TMPDIR=full";
    let words = [
        "run",
        "--stack",
        "stack.json",
        "--",
        "sh",
        "-c",
        "ls -A full; echo started",
    ];
    let run = on_a_full_disk(&world, forbid, &words);
    // No half of it is left either.
    run.exits(0).prints("it\nstarted\n").says("NVIDIA H200");
}

#[test]
fn a_standard_output_that_takes_nothing_is_told() {
    let world = World::new();
    let mut command = world.command("sh");
    command.args([
        "-c",
        "\"$@\" >/dev/full",
        "sh",
        ENTRYPOINT,
        "check",
        "--stack",
        "stack.json",
        "--gpu",
        "off",
    ]);
    Run::of(&mut command).exits(74).says("cannot write to stdout");
}
