//! The helper under valgrind: it touches no memory that is not its own, whatever a driver answers, and loses none. Left
//! out, and said so, where valgrind is not installed.

use std::ffi::OsStr;
use std::fs;

use crate::support::cuda;
use crate::support::fakes;
use crate::support::needs::Need;
use crate::support::run::{Run, World};

/// No exit status of the helper's own.
const FOUND_SOMETHING: &str = "99";

/// What valgrind and the program said. Lost blocks count, those that are still pointed to do not: nothing is unloaded,
/// and the process ends by _exit.
fn watched(world: &World, program: impl AsRef<OsStr>, arguments: &[&str]) -> Run {
    let mut command = world.command("valgrind");
    command.args(["--quiet", "--leak-check=full", "--errors-for-leak-kinds=definite"]);
    command.args(["--show-leak-kinds=definite"]);
    command.arg(format!("--error-exitcode={FOUND_SOMETHING}"));
    let known = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/valgrind.supp");
    command.arg(format!("--suppressions={known}"));
    command.arg(program.as_ref()).args(arguments);
    command
        .env("LD_LIBRARY_PATH", fakes::fake_driver_dir())
        .env("FAKE_GPU_SCRIPT", world.path("gpu.json"));
    Run::of(&mut command)
}

#[track_caller]
fn is_clean(what: &str, run: &Run, last: &str) {
    assert_eq!(run.code(), Some(0), "{what}: {}", run.stderr);
    assert!(!run.stderr.contains("=="), "{what}: {}", run.stderr);
    assert!(run.text().ends_with(last), "{what}: {}", run.text());
}

/// Else what follows would hold whatever the helper did.
#[test]
fn valgrind_finds_what_is_wrong_here() {
    Need::Valgrind.demand();
    let world = World::new();
    world.write("gpu.json", "{}");
    let reads = "char *p = malloc(4); volatile int n = 8; return p[n] == 1;";
    let loses = "volatile char *p = malloc(4); p = 0; _exit(p != 0);";
    for (body, part) in [(reads, "Invalid read"), (loses, "definitely lost")] {
        let source = format!("#include <stdlib.h>\n#include <unistd.h>\nint main(void) {{ {body} }}\n");
        world.write("wrong.c", source);
        let mut cc = world.command("cc");
        assert!(
            cc.args(["-w", "-O0", "-o", "wrong", "wrong.c"])
                .status()
                .unwrap()
                .success()
        );
        let run = watched(&world, "./wrong", &[]);
        run.exits(FOUND_SOMETHING.parse().unwrap()).says(part);
    }
}

#[test]
fn whatever_a_driver_answers() {
    Need::Valgrind.demand();
    let helper = fakes::helper_binary();
    let fixture = |name: &str| {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/device");
        fs::read_to_string(folder.join(name).with_extension("json")).unwrap()
    };
    let broken = |call: &str, behaviour: &str| format!(r#"{{"calls": {{"{call}": {behaviour}}}}}"#);
    let long = format!(r#"{{"devices": [{{"name": "{}"}}]}}"#, "x".repeat(400));
    let (both, cuda, nvml) = (&["driver", "nvml"][..], &["driver"][..], &["nvml"][..]);
    let mig = r#"{"devices": [{"repeat": 2, "mig": true, "mig_instances": 3}]}"#;
    for (what, script, requests) in [
        ("a healthy one", "{}".to_string(), both),
        ("MIG", mig.to_string(), both),
        ("mixed ones", fixture("mixed"), both),
        ("sick ones", fixture("sick"), nvml),
        ("names of escapes", fixture("hostile-names"), both),
        ("a long name", long, both),
        ("fewer than none", r#"{"device_count": -1}"#.to_string(), cuda),
        ("more than there are", r#"{"device_count": 3}"#.to_string(), both),
        ("an unknown code", broken("cuInit", r#"{"returns": 12345}"#), cuda),
        ("no NVML", broken("nvmlInit_v2", r#"{"returns": 18}"#), nvml),
        (
            "a talker",
            broken("cuInit", r#"{"print": "chatter", "flood": 100000}"#),
            cuda,
        ),
    ] {
        let world = World::new();
        world.write("gpu.json", script);
        for request in requests {
            let run = watched(&world, &helper, &[request]);
            is_clean(&format!("{what}, {request}"), &run, "\"done\"\n");
        }
    }
}

#[test]
fn whatever_a_library_is() {
    Need::Valgrind.demand();
    let world = World::new();
    world.write("gpu.json", "{}");
    world.write("text.so", "no library");
    world.write("empty.so", "");
    let real = [("cudart", cuda::cudart("12.4")), ("nvrtc", cuda::nvrtc("12.4"))];
    let real = real.map(|(kind, path)| format!("{kind}={}", path.display()));
    let driver = fakes::fake_driver_dir().join("libcuda.so.1");
    let other = format!("cudart={}", driver.display());
    let mut arguments = vec![
        "libraries",
        "cudart=text.so",
        "nvrtc=./text.so",
        "cudart=./empty.so",
    ];
    arguments.extend(["cudart=libnowhere.so.12", "nvrtc=/nowhere", "nvrtc=/", &other]);
    arguments.extend(real.iter().map(String::as_str));
    let run = watched(&world, fakes::helper_binary(), &arguments);
    is_clean("libraries", &run, "\"done\"\n");
    assert_eq!(
        run.text().matches(r#""version":"12.4""#).count(),
        2,
        "{}",
        run.text()
    );
    // Usage errors end before anything is loaded.
    watched(&world, fakes::helper_binary(), &["nonsense"]).exits(64);
}
