//! Receipts of the shipped binary in Docker: baked into an image, and shared by containers.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::OnceLock;

use crate::support::docker;
use crate::support::docker::{Base, Content, Image, Run};

const STACK: &str = r#"{
  "schema": 1, "name": "docker-receipt", "cuda": {"driver": ">=12.4"}, "archs": "9.0", "python": ">=3.9",
  "packages": {"cumm-cu124": "*"},
  "smoke": [{"name": "own", "argv": ["sh", "-c", "true"], "gpu": true}]
}"#;
const SITE: &str = "usr/lib/python3/dist-packages";
const BAKED: &str = "/etc/cuda-entrypoint/receipt.json";

/// Debian with Python, a module for the loader to look at, and a receipt that the build wrote.
fn baked() -> &'static Image {
    static MADE: OnceLock<&Image> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let (source, module) = (folder.path().join("m.c"), folder.path().join("m.so"));
        fs::write(
            &source,
            "double cos(double); double f(double x) { return cos(x); }",
        )
        .unwrap();
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-o"])
            .arg(&module)
            .arg(&source)
            .arg("-lm");
        assert!(compiler.status().unwrap().success());
        let metadata = "Metadata-Version: 2.1\nName: cumm-cu124\nVersion: 0.8.2\n";
        let at = |name: &str| format!("root/{SITE}/{name}");
        let core = at("cumm/core_cc.cpython-311-x86_64-linux-gnu.so");
        let (init, info) = (at("cumm/__init__.py"), at("cumm_cu124-0.8.2.dist-info/METADATA"));
        let dockerfile = format!(
            "FROM {}\n\
             COPY root /\n\
             ENV CUDA_ENTRYPOINT_RECEIPT={BAKED}\n\
             RUN cuda-entrypoint check --stage image\n\
             ENTRYPOINT [\"cuda-entrypoint\", \"run\", \"--\"]\n\
             CMD [\"python3\", \"-c\", \"print('served')\"]\n",
            Base::Debian12.image().name()
        );
        let context = [
            (
                "root/usr/local/bin/cuda-entrypoint",
                Content::File(docker::binary()),
            ),
            ("root/etc/cuda-entrypoint/stack.json", Content::text(STACK)),
            (core.as_str(), Content::File(module)),
            (init.as_str(), Content::text("")),
            (info.as_str(), Content::text(metadata)),
        ];
        // The janitor removes it.
        Box::leak(Box::new(Image::build(&dockerfile, &context).unwrap()))
    })
}

#[test]
fn what_the_build_proved_counts_when_the_image_is_run() {
    for options in [
        &[][..],
        &["--user", "65534"],
        &["--read-only"],
        &["--user", "65534", "--cap-drop", "ALL"],
    ] {
        let served = Run::of(baked())
            .options(options.iter().copied())
            .driver("{}")
            .finish()
            .expect(0);
        let served = served.says(&["smoke: own", "own OK, image as proven "]);
        assert_eq!(served.stdout, "served\n", "{options:?}");
        assert!(
            !served.stderr.contains("warning"),
            "{options:?}: {}",
            served.stderr
        );
    }
    // As the NVIDIA runtime does before the container starts.
    let script = format!(
        "ldconfig && cuda-entrypoint check --stage image --receipt {BAKED} && ls -l /etc/ld.so.cache"
    );
    let run = Run::of(baked()).options(["--entrypoint", "sh"]).driver("{}");
    let checked = run.words(["-c", &script]).finish().expect(0);
    assert!(checked.stdout.contains("image as proven "), "{}", checked.stdout);
}

#[test]
fn what_an_image_adds_to_another_is_seen() {
    let name = baked().name();
    for (step, said) in [
        (
            format!("RUN echo >>/{SITE}/cumm/core_cc.cpython-311-x86_64-linux-gnu.so"),
            "linux-gnu.so changed (size ",
        ),
        (
            "ENV LD_LIBRARY_PATH=/opt/lib".to_string(),
            "LD_LIBRARY_PATH was unset and is \"/opt/lib\"",
        ),
    ] {
        let derived = Image::build(&format!("FROM {name}\n{step}\n"), &[]).unwrap();
        let run = Run::of(&derived)
            .options(["--entrypoint", "cuda-entrypoint"])
            .driver("{}");
        let checked = run.command("check --gpu off").finish().expect(0);
        checked.says(&["receipt: image not taken from it: ", said]);
    }
    // What is installed is asked anew at each start.
    let step = format!("RUN mkdir /{SITE}/more-1.0.dist-info");
    let derived = Image::build(&format!("FROM {name}\n{step}\n"), &[]).unwrap();
    let run = Run::of(&derived)
        .options(["--entrypoint", "cuda-entrypoint"])
        .driver("{}");
    let checked = run.command("check --gpu off").finish().expect(0);
    for said in ["the metadata of more cannot be judged", "image as proven "] {
        assert!(checked.stdout.contains(said), "no {said:?} in {checked:#?}");
    }
    // What does not touch it leaves it in force.
    let derived = Image::build(&format!("FROM {name}\nRUN echo >/opt/notes\nENV PORT=80\n"), &[]).unwrap();
    Run::of(&derived)
        .driver("{}")
        .finish()
        .expect(0)
        .says(&["image as proven "]);
}

/// As a pod's containers share an emptyDir: the first as root, the second as another user.
#[test]
fn the_first_container_pays_for_the_second() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let volume = format!("{}:/proof", folder.path().display());
    let options = [
        "--volume",
        &volume,
        "--env",
        "CUDA_ENTRYPOINT_RECEIPT=/proof/receipt.json",
    ];
    let init = Run::of(baked())
        .options(options)
        .options(["--entrypoint", "cuda-entrypoint"]);
    let init = init
        .driver("{}")
        .command("check -- python3")
        .finish()
        .expect(0)
        .says(&["smoke: own"]);
    assert!(
        init.stdout.contains("image, GPUs and smoke written"),
        "{}",
        init.stdout
    );
    for user in ["0", "65534"] {
        let main = Run::of(baked()).options(options).options(["--user", user]);
        let main = main.env("NVIDIA_VISIBLE_DEVICES", "GPU-1").driver("{}");
        let main = main
            .finish()
            .expect(0)
            .says(&["image, GPUs and smoke as proven "]);
        assert!(!main.stderr.contains("smoke: own"), "{}", main.stderr);
        assert_eq!(main.stdout, "served\n");
    }
    let other = Run::of(baked())
        .options(options)
        .driver(r#"{"devices": [{"uuid": "GPU-00000009-0000-4000-8000-000000000000"}]}"#);
    let why = "GPUs not taken from it: GPU-00000009-0000-4000-8000-000000000000 was not proven";
    other.finish().expect(0).says(&[why, "smoke: own"]);
}
