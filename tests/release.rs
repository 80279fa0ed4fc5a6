//! What `make release` packs: whole, the same each time, and with the sums that it states. The binaries are stand-ins, since
//! nothing here runs them.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::folders::root;
use crate::support::run::{Run, World};

const FILES: [&str; 5] = [
    "SHA256SUMS",
    "cuda-entrypoint-9.8.7-aarch64.tar.gz",
    "cuda-entrypoint-9.8.7-oci.tar",
    "cuda-entrypoint-9.8.7-x86_64.tar.gz",
    "cuda-entrypoint-9.8.7.cdx.json",
];

fn packed(world: &World, out: &str) -> Vec<(String, Vec<u8>)> {
    let [intel, arm] = ["x86_64", "aarch64"].map(|name| world.write(name, format!("a program for {name}")));
    let terms = world.write("terms", "You may.");
    let mut command = Command::new(root().join("tests/release/package.py"));
    command.args([
        "--version",
        "9.8.7",
        "--commit",
        "abcdef0",
        "--time",
        "1700000000",
    ]);
    command.arg("--out").arg(world.path(out));
    command.args(["--binary".into(), format!("x86_64={}", intel.display())]);
    command.args(["--binary".into(), format!("aarch64={}", arm.display())]);
    let library = format!("aarch64:glibc:2.36:LGPL-2.1-or-later={}", terms.display());
    command.args(["--library", &library, "--source", "https://example.com/x"]);
    Run::of(&mut command).exits(0);
    FILES
        .map(|name| (name.to_string(), fs::read(world.path(out).join(name)).unwrap()))
        .to_vec()
}

fn unpacked(archive: &Path, into: &Path) {
    fs::create_dir_all(into).unwrap();
    let done = Command::new("tar")
        .arg("-xf")
        .arg(archive)
        .arg("-C")
        .arg(into)
        .status()
        .unwrap();
    assert!(done.success());
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_release_is_whole_and_the_same_each_time() {
    let world = World::new();
    let first = packed(&world, "first");
    assert_eq!(fs::read_dir(world.path("first")).unwrap().count(), FILES.len());
    assert!(first == packed(&world, "second"), "two runs, other bytes");
    let mut sums = Command::new("sha256sum");
    sums.args(["--check", "--strict", "SHA256SUMS"])
        .current_dir(world.path("first"));
    Run::of(&mut sums).exits(0);

    for processor in ["x86_64", "aarch64"] {
        let name = format!("cuda-entrypoint-9.8.7-{processor}");
        unpacked(
            &world.path(format!("first/{name}.tar.gz")),
            &world.path("archives"),
        );
        let folder = world.path("archives").join(&name);
        let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
        assert_eq!(read("cuda-entrypoint"), format!("a program for {processor}"));
        let terms = read("THIRD-PARTY.txt");
        for part in [
            "nix 0.",
            "serde_json 1.",
            "libloading 0.",
            "Permission is hereby granted",
        ] {
            assert!(terms.contains(part), "{part}");
        }
        // What only builds or tests is in no binary.
        for part in ["boon 0.", "zstd 0.", "serde_derive 1."] {
            assert!(!terms.contains(part), "{part}");
        }
        assert_eq!(terms.contains("glibc 2.36"), processor == "aarch64");
        assert!(read("RELINKING.txt").contains("Lesser General Public License"));
        for file in [
            "LICENSE-MIT",
            "LICENSE-APACHE",
            "CHANGELOG.md",
            "cuda-entrypoint.1",
            "completions/_cuda-entrypoint",
        ] {
            assert!(!read(file).is_empty(), "{file}");
        }
    }
}

#[test]
fn the_image_is_for_both_processors_and_every_digest_is_that_of_its_blob() {
    let world = World::new();
    packed(&world, "out");
    let layout = world.path("layout");
    unpacked(&world.path("out").join(FILES[2]), &layout);
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap();
        let path = layout.join("blobs").join(digest.replace(':', "/"));
        let length = fs::metadata(&path).unwrap().len();
        assert_eq!(descriptor["size"], length);
        let said = Command::new("sha256sum").arg(&path).output().unwrap();
        let sum = String::from_utf8(said.stdout).unwrap();
        assert_eq!(format!("sha256:{}", &sum[..64]), digest);
        path
    };
    let index = json(&blob(&json(&layout.join("index.json"))["manifests"][0]));
    let mut architectures = Vec::new();
    for descriptor in index["manifests"].as_array().unwrap() {
        let manifest = json(&blob(descriptor));
        let config = json(&blob(&manifest["config"]));
        assert_eq!(config["architecture"], descriptor["platform"]["architecture"]);
        assert_eq!(
            config["config"]["Entrypoint"],
            serde_json::json!(["/cuda-entrypoint"])
        );
        for labels in [&config["config"]["Labels"], &manifest["annotations"]] {
            assert_eq!(labels["org.opencontainers.image.version"], "9.8.7");
            assert_eq!(labels["org.opencontainers.image.revision"], "abcdef0");
            assert_eq!(labels["org.opencontainers.image.source"], "https://example.com/x");
            assert_eq!(labels["org.opencontainers.image.created"], "2023-11-14T22:13:20Z");
        }
        let layer = blob(&manifest["layers"][0]);
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        let architecture = config["architecture"].as_str().unwrap().to_string();
        let files = world.path(&architecture);
        unpacked(&layer, &files);
        let program = fs::read_to_string(files.join("cuda-entrypoint")).unwrap();
        assert_eq!(program.contains("x86_64"), architecture == "amd64");
        architectures.push(architecture);
    }
    assert_eq!(architectures, ["amd64", "arm64"]);
}

#[test]
fn the_bill_of_materials_names_what_is_linked() {
    let world = World::new();
    packed(&world, "out");
    let bill = json(&world.path("out").join(FILES[4]));
    assert_eq!(bill["bomFormat"], "CycloneDX");
    assert_eq!(bill["metadata"]["component"]["version"], "9.8.7");
    let components = bill["components"].as_array().unwrap();
    let named = |name: &str| components.iter().find(|component| component["name"] == name);
    for name in ["nix", "object", "libloading", "serde_core", "semver"] {
        let component = named(name).unwrap();
        assert_eq!(
            component["hashes"][0]["content"].as_str().unwrap().len(),
            64,
            "{name}"
        );
        assert!(
            component["purl"]
                .as_str()
                .unwrap()
                .starts_with(&format!("pkg:cargo/{name}@"))
        );
    }
    assert_eq!(named("glibc").unwrap()["version"], "2.36");
    for name in [
        "boon",
        "insta",
        "zstd-sys",
        "syn",
        "cuda-entrypoint-test-attribute",
    ] {
        assert!(named(name).is_none(), "{name}");
    }
    // Each end of an arrow is there.
    let references: Vec<&Value> = components.iter().map(|component| &component["bom-ref"]).collect();
    for dependency in bill["dependencies"].as_array().unwrap() {
        for to in dependency["dependsOn"].as_array().unwrap() {
            assert!(references.contains(&to), "{to}");
        }
    }
}

/// As docker/guide.md says.
#[test]
fn the_sums_are_verified_by_the_key_that_signed_them() {
    let world = World::new();
    packed(&world, "out");
    let run = |arguments: &[&str], input: &str| {
        let mut command = Command::new("ssh-keygen");
        command.args(arguments).current_dir(world.path("out"));
        command.stdin(fs::File::open(world.path("out").join(input)).unwrap());
        command.output()
    };
    let Ok(made) = run(&["-q", "-t", "ed25519", "-N", "", "-f", "key"], "SHA256SUMS") else {
        return; // no OpenSSH on this machine
    };
    assert!(made.status.success());
    let public = fs::read_to_string(world.path("out/key.pub")).unwrap();
    world.write("out/allowed_signers", format!("release {public}"));
    let sign = [
        "-q",
        "-Y",
        "sign",
        "-n",
        "cuda-entrypoint",
        "-f",
        "key",
        "SHA256SUMS",
    ];
    assert!(run(&sign, "SHA256SUMS").unwrap().status.success());
    let verify = "-Y verify -f allowed_signers -I release -n cuda-entrypoint -s SHA256SUMS.sig";
    let verify: Vec<&str> = verify.split(' ').collect();
    assert!(run(&verify, "SHA256SUMS").unwrap().status.success());
    world.write("out/changed", "another sum");
    assert!(!run(&verify, "changed").unwrap().status.success());
}

#[test]
fn a_key_that_is_not_there_ends_a_release_before_it_begins() {
    let mut command = Command::new(root().join("tests/release/release.sh"));
    let run = Run::of(command.env("RELEASE_KEY", "/nowhere"));
    run.exits(1)
        .says("RELEASE_KEY names no file that can be read: /nowhere");
}
