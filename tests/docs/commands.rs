//! The commands of README.md and the guides, run as they stand, in the order of their page. Lines below a command are in what it
//! says.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::support::cuda;
use crate::support::fakes::fake_driver_dir;
use crate::support::folders::{root, scratch};
use crate::support::image::{environment, real_stack};
use crate::support::run::ENTRYPOINT;
use crate::without_manifest;

/// The pages that people follow. docker/kubernetes is held by tests/kubernetes and tests/docker.
pub const PAGES: [&str; 6] = [
    "README.md",
    "docker/guide.md",
    "docker/reference.md",
    "docker/faq.md",
    "docker/findings/README.md",
    "docker/examples/README.md",
];

/// What cannot be run beside the other tests, by the beginning of the command, and why.
const ELSEWHERE: [(&str, &str); 16] = [
    (
        "sha256sum --check --ignore-missing SHA256SUMS",
        "needs a release; tests/release.rs does the same",
    ),
    (
        "ssh-keygen -Y verify ",
        "needs a release and the key of its maker; tests/release.rs does the same",
    ),
    ("skopeo copy ", "needs a registry"),
    (
        "make demo ",
        "builds the release binary; .ci/run runs it on a fresh machine",
    ),
    (
        "make test ",
        "is this test's own caller; .ci/run runs it on fresh machines",
    ),
    (
        "docker run --rm --gpus all --volume \"$PWD/dist",
        "needs Docker with a real GPU",
    ),
    (
        "docker run --rm --volume \"$PWD/dist",
        "needs Docker and an image of the reader's; tests/docker does the same",
    ),
    (
        "docker build -t cuda-entrypoint ",
        "needs Docker and a base image with Rust; tests/docker builds it",
    ),
    (
        "docker build -t point-cloud-service:cu124 ",
        "fetches 8 GB; make test-stack builds it",
    ),
    (
        "docker run --rm --gpus all point-cloud",
        "needs Docker with a real GPU",
    ),
    (
        "docker run --rm --gpus all --shm-size 1g ",
        "needs Docker with a real GPU",
    ),
    (
        "docker compose -f docker/compose.yaml up",
        "needs Docker with a real GPU",
    ),
    (
        "kubectl apply -k docker/kubernetes",
        "needs a cluster; tests/kubernetes validates what is applied",
    ),
    ("podman run --rm --device ", "needs podman with a real GPU"),
    (
        "docker build -t my-service ",
        "needs Docker and fetches 2.5 GB; make test-field-images builds it",
    ),
    ("export PATH=", "is set for all of them"),
];

/// The beginnings of commands that are to fail, and with what.
const EXITS: [(&str, i32); 3] = [
    (
        "dist/cuda-entrypoint check --stage image --stack none --archs '8.0;9.0' --python target/demo/faiss",
        81,
    ),
    (
        "dist/cuda-entrypoint check --stage image --stack none --python target/demo/torchvision",
        81,
    ),
    (
        "FAKE_GPU_SCRIPT=target/demo/old-driver.json LD_LIBRARY_PATH=target/fakes/lib dist/cuda-entrypoint run ",
        82,
    ),
];

/// A command of a page, and what is shown of its output.
struct Example {
    command: String,
    output: Vec<String>,
}

/// The commands in the blocks of a page that are marked as a console.
fn examples(page: &str) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        match (inside, line.strip_prefix("$ "), found.last_mut()) {
            (false, ..) => inside = line == "```console",
            _ if line == "```" => inside = false,
            (true, Some(command), _) => found.push(Example {
                command: command.to_string(),
                output: Vec::new(),
            }),
            (true, None, Some(last)) => last.output.push(line.to_string()),
            (true, None, None) => panic!("a block that begins with no command: {line}"),
        }
    }
    found
}

fn elsewhere(command: &str) -> Option<&'static str> {
    let is_it = |(start, _): &&(&str, &'static str)| command.starts_with(start);
    ELSEWHERE.iter().find(is_it).map(|(start, _)| *start)
}

/// An environment for Python 3.11 with a wheel unpacked.
fn unpacked(folder: &Path, package: &str, release: &str) {
    environment(folder);
    let wheel = cuda::wheel(package, release, Some("3.11"));
    let site = folder.join("lib/python3.11/site-packages");
    let status = Command::new("python3")
        .args(["-m", "zipfile", "-e"])
        .arg(wheel)
        .arg(site)
        .status();
    assert!(status.unwrap().success());
}

/// The folder that a reader is in: the repository after `make demo`, with an environment of his own.
fn place(folder: &Path) {
    fs::create_dir_all(folder.join("bin")).unwrap();
    symlink(ENTRYPOINT, folder.join("bin/cuda-entrypoint")).unwrap();
    fs::create_dir_all(folder.join("dist")).unwrap();
    symlink(ENTRYPOINT, folder.join("dist/cuda-entrypoint")).unwrap();
    fs::create_dir_all(folder.join("target/fakes")).unwrap();
    symlink(fake_driver_dir(), folder.join("target/fakes/lib")).unwrap();
    symlink(root().join("tests"), folder.join("tests")).unwrap();
    let demo = folder.join("target/demo");
    fs::create_dir_all(&demo).unwrap();
    symlink(real_stack(), demo.join("venv")).unwrap();
    unpacked(&demo.join("faiss"), "faiss-gpu-cu12", "1.11.0");
    unpacked(&demo.join("torchvision"), "torchvision", "0.19.1");
    let torch = demo.join("torchvision/lib/python3.11/site-packages");
    fs::create_dir_all(torch.join("torch-2.5.0.dist-info")).unwrap();
    fs::create_dir_all(torch.join("torch")).unwrap();
    let metadata = "Metadata-Version: 2.1\nName: torch\nVersion: 2.5.0\n";
    fs::write(torch.join("torch-2.5.0.dist-info/METADATA"), metadata).unwrap();
    fs::write(
        torch.join("torch/version.py"),
        "__version__ = '2.5.0+cu124'\ncuda = '12.4'\n",
    )
    .unwrap();
    let gpu =
        r#"{"driver_api": 11080, "driver_release": "520.61.05", "devices": [{"name": "A100", "cc": "8.0"}]}"#;
    fs::write(demo.join("old-driver.json"), gpu).unwrap();
}

#[test]
fn every_command_of_the_pages_runs_as_it_stands() {
    let mut used = BTreeSet::new();
    let mut run = 0;
    for page in PAGES {
        let folder = scratch();
        place(folder.path());
        let image = without_manifest::image();
        fs::create_dir_all(image.env().join("bin")).unwrap();
        symlink("/usr/bin/python3", image.env().join("bin/python3")).unwrap();
        symlink(image.env(), folder.path().join(".venv")).unwrap();
        for example in examples(&fs::read_to_string(root().join(page)).unwrap()) {
            let command = &example.command;
            if let Some(start) = elsewhere(command) {
                used.insert(start);
                continue;
            }
            let path = format!("{}/bin:/usr/bin:/bin", folder.path().display());
            let output = Command::new("bash")
                .args(["-c", command])
                .current_dir(folder.path())
                .env("PATH", path)
                .env(
                    "FAKE_GPU_SCRIPT",
                    folder.path().join("target/demo/old-driver.json"),
                )
                .env("LD_LIBRARY_PATH", fake_driver_dir())
                .output()
                .unwrap();
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            let expected = EXITS
                .iter()
                .find(|(start, _)| command.starts_with(start))
                .map_or(0, |(_, exit)| *exit);
            assert_eq!(output.status.code(), Some(expected), "{page}: {command}\n{said}");
            for line in &example.output {
                assert!(
                    said.lines().any(|said| said == line),
                    "{page}: {command}: no line {line:?} in\n{said}"
                );
            }
            run += 1;
        }
    }
    assert!(run >= 9, "{run} commands were run");
    let stale: Vec<&str> = ELSEWHERE
        .iter()
        .map(|(start, _)| *start)
        .filter(|start| !used.contains(start))
        .collect();
    assert!(stale.is_empty(), "no page has these any more: {stale:?}");
}
