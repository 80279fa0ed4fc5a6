//! Where the service's process is kept within bounds: privileges of a file, a limit on processes, and how long it may take
//! before its proof.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::time::Instant;

use serde_json::json;

use crate::support::needs::Need;
use crate::support::run::{ENTRYPOINT, Run, eventually};
use crate::support::sandbox;
use crate::support::scene::{Scene, base_python};

use super::{HANDED, ONLY_STARTS, as_pid_1, under};

const FAILS: &str = r#"{"forward float32": {"difference": 0.5}}"#;
const SEPARATELY: &str = "no hand-off, in a process of its own instead";

/// The entrypoint for another user, who may read and search whatever root may: a Python may lie in root's home.
fn for_another_user(
    scene: &Scene,
    user: u32,
    before: &[&str],
    options: &[&str],
    service: &[&str],
) -> Command {
    fs::set_permissions(scene.world.path(""), fs::Permissions::from_mode(0o777)).unwrap();
    let user = user.to_string();
    let setpriv = ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"];
    let capabilities: &[&str] = match may_read_all() {
        true => &[
            "--inh-caps",
            "+dac_read_search",
            "--ambient-caps",
            "+dac_read_search",
            ENTRYPOINT,
        ],
        false => &[ENTRYPOINT],
    };
    let inner = scene.command("run", options);
    let words: Vec<&str> = before
        .iter()
        .chain(&setpriv)
        .chain(capabilities)
        .copied()
        .collect();
    let mut command = scene.world.command(words[0]);
    command
        .args(&words[1..])
        .args(inner.get_args())
        .arg("--")
        .args(service);
    scene.equip(&mut command);
    command
}

/// Whether this process has CAP_DAC_READ_SEARCH, the capability of number 2, which a container's root need not have.
fn may_read_all() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let set = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap();
    u64::from_str_radix(set.trim(), 16).unwrap() & (1 << 2) != 0
}

/// CAP_NET_RAW, which Docker gives to containers, and what a Python in root's home is read with, where there is that.
fn file_capabilities() -> u64 {
    1 << 13 | if may_read_all() { 1 << 2 } else { 0 }
}

/// Under a tracer the kernel grants a file's privileges to nobody.
#[test]
fn a_file_with_privileges_of_its_own_has_them() {
    Need::Root.demand();
    let show = "import os; print(os.getuid(), os.geteuid(), *[l.split()[1] for l in open('/proc/self/status') if l.startswith('CapEff')])";
    type Grant = fn(&std::path::Path);
    let grants: [(&str, Grant); 2] = [
        ("set-user-ID", |python| {
            fs::set_permissions(python, fs::Permissions::from_mode(0o4755)).unwrap();
        }),
        ("capabilities", |python| {
            // struct vfs_cap_data of linux/capability.h, revision 2 and effective, with these of the permitted.
            let set = "import os, struct, sys; os.setxattr(sys.argv[1], 'security.capability', struct.pack('<5I', 0x2000001, int(sys.argv[2]), 0, 0, 0))";
            let status = Command::new(base_python())
                .args(["-c", set])
                .arg(python)
                .arg(file_capabilities().to_string())
                .status();
            assert!(status.unwrap().success());
        }),
    ];
    // What of them the command shows, and what the last exec alone does.
    let ways: [&[&str]; 3] = [
        &["{dir}/env/bin/python3", "-c", show],
        &["nice", "{dir}/env/bin/python3", "-c", show],
        &["sh", "-c", "PATH={dir}/env/bin; exec python3 -c \"$0\"", show],
    ];
    for (name, grant) in grants {
        for refuse in [None, Some(sandbox::no_ptrace as fn())] {
            for (number, way) in ways.iter().enumerate() {
                // With a filter in force nothing gains privileges (no_new_privs).
                if refuse.is_some() && number == 0 {
                    continue;
                }
                let scene = Scene::new();
                let python = scene.world.path("env/bin/python3");
                fs::remove_file(&python).unwrap();
                scene.world.copy(base_python(), "env/bin/python3");
                grant(&python);
                let dir = scene.world.path("").display().to_string();
                let service: Vec<String> = way
                    .iter()
                    .map(|word| word.replace("{dir}", dir.trim_end_matches('/')))
                    .collect();
                let service: Vec<&str> = service.iter().map(String::as_str).collect();
                let run = |options: &[&str]| {
                    let command = for_another_user(&scene, 54_330, &[], options, &service);
                    Run::of(&mut match refuse {
                        Some(refuse) => under(command, refuse),
                        None => command,
                    })
                };
                let without = run(&["--smoke", "off"]);
                let with = run(&HANDED);
                tell!("{name}, {way:?}: {}", with.stderr);
                with.exits(0)
                    .prints(without.text())
                    .says("spconv forward OK")
                    .says(SEPARATELY);
                if refuse.is_none() {
                    let gained = match name {
                        "capabilities" => format!("{:016x}", file_capabilities()),
                        _ => "54330 0 ".to_string(),
                    };
                    assert!(with.text().contains(&gained), "{name}: {}", with.text());
                    with.says("is executed with privileges of its own");
                }
                scene.world.assert_nothing_left();
            }
        }
    }
}

/// Threads count as well: this process, its threads, the helper, the service, its proof.
#[test]
fn however_few_processes_there_may_be_nothing_starts_unproven() {
    Need::Root.demand();
    let mut handed = Vec::new();
    for limit in 1..=12 {
        let nproc = format!("--nproc={limit}:{limit}");
        for script in ["{}", FAILS] {
            let scene = Scene::acting(script);
            let python = scene.python();
            let service = [&python, "-c", ONLY_STARTS];
            // A number of processes is a user's, wherever they run.
            let command =
                &mut for_another_user(&scene, 54_340 + limit, &["prlimit", &nproc], &HANDED, &service);
            let run = Run::of(command);
            tell!("{limit}, {script}: {}", run.stderr);
            assert!(!run.stderr.contains("Traceback"), "{limit}: {}", run.stderr);
            match run.code() {
                Some(0) => {
                    assert_eq!(script, "{}", "{limit}: {}", run.stderr);
                    run.prints("started\n").says("spconv forward OK");
                    if !run.stderr.contains(SEPARATELY) {
                        handed.push(limit);
                    }
                }
                Some(84) if script == FAILS => {
                    run.prints("").says("smoke-wrong");
                }
                // Without a second process there is neither a helper nor a service.
                Some(82) if limit < 3 => {
                    run.prints("").says("raise the limit on processes");
                }
                other => panic!("{limit}: {other:?}: {}", run.stderr),
            }
            scene.world.assert_nothing_left();
        }
    }
    assert!(handed.contains(&12), "{handed:?}");
}

/// What runs before the first import has a bound.
#[test]
fn code_that_does_not_return_is_ended() {
    let waits = "import early";
    for (name, code) in [
        ("sleeps", "import time\nif HANDED: time.sleep(600)\n"),
        ("loops", "while HANDED: pass\n"),
        (
            "ignores signals",
            "import signal, time\nif HANDED:\n    for n in range(1, 32):\n        if n not in (9, 19): signal.signal(n, signal.SIG_IGN)\n    time.sleep(600)\n",
        ),
    ] {
        let scene = Scene::acting(FAILS);
        let handed = "HANDED = b'PYTHONPATH=/proc/' in open('/proc/self/environ', 'rb').read()\n";
        fs::write(scene.site().join("early.py"), format!("{handed}{code}")).unwrap();
        fs::write(scene.site().join("early.pth"), format!("{waits}\n")).unwrap();
        let began = Instant::now();
        let python = scene.python();
        let ran = scene.run_service(&HANDED, &[&python, "-c", ONLY_STARTS]);
        let said = String::from_utf8_lossy(&ran.output.stderr).into_owned();
        assert_eq!(
            (ran.exit(), ran.codes("fail")),
            (84, vec!["smoke-wrong"]),
            "{name}: {ran}"
        );
        assert!(ran.output.stdout.is_empty(), "{name}: {ran}");
        assert!(
            said.contains("such as a .pth file, took more than 10 s"),
            "{name}: {said}"
        );
        assert!(began.elapsed().as_secs() < 40, "{name}: {:?}", began.elapsed());
        assert_eq!(ran.report["smoke"]["mode"], json!("separate"));
        scene.world.assert_nothing_left();
    }
}

/// As PID 1 what such code leaves behind is no child of the service's, and is found by what it was given.
#[test]
fn as_pid_1_what_a_refused_start_leaves_behind_goes_with_it() {
    Need::PidNamespace.demand();
    let scene = Scene::new();
    let code = "import os, sys, time\n\
                if b'PYTHONPATH=/proc/' in open('/proc/self/environ', 'rb').read():\n    \
                if os.fork() == 0:\n        os.setsid()\n        time.sleep(600)\n    \
                sys.modules['sitecustomize'] = sys\n";
    fs::write(scene.site().join("early.py"), code).unwrap();
    fs::write(scene.site().join("early.pth"), "import early\n").unwrap();
    let count = "import os; print(len([p for p in os.listdir('/proc') if p.isdigit()]))";
    let python = scene.python();
    let run = Run::of(as_pid_1(&scene, &HANDED).args(["--", &python, "-c", count]));
    run.exits(0).prints("2\n").says("begins before sitecustomize");
    scene.world.assert_nothing_left();
}

/// Under `--wait` the image is read again where the storage failed, and its Python may be another one then.
#[test]
fn an_image_that_is_read_again_is_smoked_separately() {
    for (script, exit) in [("{}", 0), (FAILS, 84)] {
        let scene = Scene::acting(script).manifest(json!({
            "schema": 1, "name": "t", "packages": {"ext": "==1.0"}, "smoke": ["torch", "spconv"]
        }));
        let folder = scene.site().join("ext-1.0.dist-info");
        fs::create_dir(&folder).unwrap();
        // Memory that is not mapped gives EIO.
        symlink("/proc/self/mem", folder.join("METADATA")).unwrap();
        fs::write(
            folder.join("aside"),
            "Metadata-Version: 2.1\nName: ext\nVersion: 1.0\n",
        )
        .unwrap();
        let inner = scene.command("run", &[&HANDED[..], &["--wait", "60s"]].concat());
        let mut command = scene.world.command("sh");
        command
            .args(["-c", "exec \"$@\" 2>said", "sh", ENTRYPOINT])
            .args(inner.get_args());
        let python = scene.python();
        scene.equip(command.args(["--", &python, "-c", ONLY_STARTS]));
        let run = std::thread::scope(|scope| {
            let running = scope.spawn(|| Run::of(&mut command));
            let waits = || {
                scene
                    .world
                    .read("said")
                    .is_some_and(|said| said.contains("waiting up to"))
            };
            assert!(eventually(waits));
            fs::rename(folder.join("aside"), folder.join("METADATA")).unwrap();
            running.join().unwrap()
        });
        let said = scene.world.read("said").unwrap();
        assert_eq!(run.code(), Some(exit), "{said}");
        run.prints(if exit == 0 { "started\n" } else { "" });
        assert!(
            said.contains(&format!("{SEPARATELY}: the image is read again")),
            "{said}"
        );
        assert_eq!(
            said.matches("spconv forward OK").count(),
            usize::from(exit == 0),
            "{said}"
        );
        scene.world.assert_nothing_left();
    }
}
