//! The recipes of docker/adoption.md, each on a small image with an ENTRYPOINT of that shape.

use super::{HEALTHY, field};
use crate::support::cuda;
use crate::support::docker::{Base, Content, Image, Run};
use crate::support::probe;

const PAGE: &str = include_str!("../../docker/adoption.md");

/// The Dockerfile in a section, on another image below and with the binary from the tests' own.
fn recipe(section: &str, below: &Image) -> Image {
    let heading = format!("\n## {section}\n");
    let (_, text) = PAGE
        .split_once(&heading)
        .unwrap_or_else(|| panic!("no section {section}"));
    let text = text.split("\n## ").next().unwrap();
    let (_, dockerfile) = text.split_once("```dockerfile\n").unwrap();
    let (dockerfile, _) = dockerfile.split_once("```").unwrap();
    let from = dockerfile.lines().next().unwrap();
    assert!(from.starts_with("FROM "), "{from}");
    let dockerfile = dockerfile
        .replace(from, &format!("FROM {}", below.name()))
        .replace(
            "--from=cuda-entrypoint",
            &format!("--from={}", Base::Scratch.image().name()),
        );
    Image::build(&dockerfile, &[]).unwrap_or_else(|failure| panic!("{section}: {}", failure.text))
}

/// An image with programs in it, and CUDA's runtime as a wheel of the Python at `packages`, if there is one.
fn below(programs: &[(&str, Content)], packages: Option<&str>, steps: &str) -> Image {
    let mut context: Vec<(String, Content)> = Vec::new();
    let mut modes = String::new();
    for (path, content) in programs {
        context.push((format!("root{path}"), content.clone()));
        modes += &format!(" {path}");
    }
    if let Some(packages) = packages {
        let at = |path: &str| format!("root{packages}/{path}");
        context.push((
            at("nvidia/cuda_runtime/lib/libcudart.so.12"),
            Content::File(cuda::cudart("12.4")),
        ));
        context.push((
            at("nvidia_cuda_runtime_cu12-12.4.127.dist-info/METADATA"),
            Content::text("Metadata-Version: 2.1\nName: nvidia-cuda-runtime-cu12\nVersion: 12.4.127\n"),
        ));
    }
    let dockerfile = format!(
        "FROM {}\nCOPY root /\nRUN chmod 755{modes}\n{steps}\n",
        Base::Debian12.image().name()
    );
    let context: Vec<(&str, Content)> = context
        .iter()
        .map(|(path, content)| (path.as_str(), content.clone()))
        .collect();
    Image::build(&dockerfile, &context).unwrap_or_else(|failure| panic!("{}", failure.text))
}

/// A server that says how it was started, and what it is: a program, as the manifests of the page name it in `libraries`.
fn server() -> Content {
    Content::File(probe::server().to_path_buf())
}

/// It prints a banner, prepares the environment, and becomes its arguments.
const NGC: &str = "#!/bin/bash\necho '== a banner =='\nfor each in /opt/nvidia/entrypoint.d/*.sh; do source \"$each\"; done\n\
                   exec \"$@\"\n";
const ENTRYPOINT_D: &str = "export VARIABLE=prepared\n";

/// Arguments reach the server, checks come before it, and a check is one command in both ways.
#[track_caller]
fn works(image: &Image, arguments: &str, expected: &str) {
    let served = Run::of(image).driver(HEALTHY).command(arguments).finish();
    let served = served.expect(0).says(&["ok: ", "NVIDIA H200"]);
    assert!(served.stdout.contains(expected), "no {expected:?} in {served:#?}");

    let refused = Run::of(image)
        .command(arguments)
        .finish()
        .expect(82)
        .says(&["driver-missing"]);
    assert!(!refused.stdout.contains(expected), "{refused:#?}");

    for driver in [true, false] {
        let run = || match driver {
            true => Run::of(image).driver(HEALTHY),
            false => Run::of(image),
        };
        let code = if driver { 0 } else { 82 };
        let appended = run().command("cuda-entrypoint check").finish().expect(code);
        let replaced = run()
            .options(["--entrypoint", "cuda-entrypoint"])
            .command("check")
            .finish()
            .expect(code);
        for check in [appended, replaced] {
            let says = if driver { "NVIDIA H200" } else { "[driver-missing]" };
            assert!(check.stdout.contains(says), "{check:#?}");
            assert!(!check.stdout.contains(expected), "{check:#?}");
        }
    }
}

#[test]
fn vllm() {
    let program = "#!/usr/bin/python3\nimport os, sys\nprint('vllm', *sys.argv[1:], 'as', os.getpid())\n";
    let packages = "/usr/local/lib/python3.11/dist-packages";
    let image = below(
        &[("/usr/local/bin/vllm", Content::text(program))],
        Some(packages),
        "ENTRYPOINT [\"vllm\", \"serve\"]",
    );
    let image = recipe("vLLM", &image);
    works(
        &image,
        "some/model --port 8000",
        "vllm serve some/model --port 8000 as 1\n",
    );
}

#[test]
fn tgi() {
    let script = "#!/bin/bash\n\nldconfig 2>/dev/null || echo 'unable to refresh ld cache'\n\n\
                  source /usr/src/.venv/bin/activate\nexec text-generation-launcher $@\n";
    let image = below(
        &[
            ("/tgi-entrypoint.sh", Content::text(script)),
            ("/usr/local/bin/text-generation-launcher", server()),
        ],
        Some("/usr/src/.venv/lib/python3.11/site-packages"),
        "RUN python3 -m venv --without-pip /usr/src/.venv\nENTRYPOINT [\"/tgi-entrypoint.sh\"]\nCMD [\"--json-output\"]",
    );
    let image = recipe("TGI", &image);
    assert!(image.inspect("{{json .Config.Cmd}}").contains("--json-output"));
    works(
        &image,
        "--model-id some/model",
        "text-generation-launcher --model-id some/model VARIABLE=\n",
    );
    let shown = Run::of(&image)
        .command("cuda-entrypoint stack show")
        .finish()
        .expect(0);
    assert!(shown.stdout.contains("12.4.127"), "{shown:#?}");
}

#[test]
fn tei() {
    let image = below(
        &[("/usr/local/bin/text-embeddings-router", server())],
        None,
        "ENTRYPOINT [\"text-embeddings-router\"]\nCMD [\"--json-output\"]",
    );
    let image = recipe("TEI", &image);
    // The image is for one architecture, which is not that of every GPU.
    Run::of(&image).driver(HEALTHY).finish().expect(83).says(&["8.9"]);
    let ada = r#"{"devices": [{"name": "NVIDIA H200", "cc": "8.9"}]}"#;
    let served = Run::of(&image).driver(ada).finish().expect(0);
    assert!(
        served
            .stdout
            .contains("text-embeddings-router --json-output VARIABLE=\n"),
        "{served:#?}"
    );
    assert_eq!(field(&served.stdout, "Pid"), "1");
    let check = Run::of(&image)
        .driver(ada)
        .command("cuda-entrypoint check")
        .finish()
        .expect(0);
    assert!(check.stdout.contains("tei-89"), "{check:#?}");
}

#[test]
fn ngc_and_triton() {
    let image = |program: &str| {
        below(
            &[
                ("/opt/nvidia/nvidia_entrypoint.sh", Content::text(NGC)),
                (
                    "/opt/nvidia/entrypoint.d/10-variable.sh",
                    Content::text(ENTRYPOINT_D),
                ),
                (program, server()),
            ],
            Some("/usr/local/lib/python3.11/dist-packages"),
            "ENV PATH=/opt/tritonserver/bin:$PATH\nENTRYPOINT [\"/opt/nvidia/nvidia_entrypoint.sh\"]",
        )
    };
    let ngc = recipe("NGC", &image("/usr/local/bin/train"));
    works(&ngc, "train --epochs 1", "train --epochs 1 VARIABLE=prepared\n");
    assert!(ngc.inspect("{{json .Config.Cmd}}").contains("my_service"));

    let triton = recipe("Triton", &image("/opt/tritonserver/bin/tritonserver"));
    works(
        &triton,
        "tritonserver --model-repository=/m",
        "tritonserver --model-repository=/m VARIABLE=prepared\n",
    );
    let served = Run::of(&triton).driver(HEALTHY).finish().expect(0);
    assert!(
        served.stdout.contains("tritonserver --model-repository=/models "),
        "{served:#?}"
    );
    let banner = Run::of(&triton)
        .driver(HEALTHY)
        .command("cuda-entrypoint check --json --stage device")
        .finish()
        .expect(0);
    assert!(banner.stdout.starts_with("== a banner ==\n{"), "{banner:#?}");
}
