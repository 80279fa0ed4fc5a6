//! docker/Dockerfile.gpu on Debian and with PyPI's packages: CUDA's libraries, spconv and cumm, torch left out for its
//! size. tests/docker/full.sh builds it with torch.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::{HEALTHY, fails_with_81, field};
use crate::support::docker::{Base, BuildFailure, Content, Image, Run, Volume, pip_image};

/// Base images without Docker Hub, and nothing that has to be compiled or fetched from elsewhere.
const LIGHT: [&str; 8] = [
    "BUILD_PACKAGES=",
    "RUNTIME_PACKAGES=",
    "TORCH=none",
    "GEOMETRIC=none",
    "SCATTER=none",
    "MMCV=none",
    "PYG_LINKS=/requirements",
    "MMCV_LINKS=/requirements",
];

fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What Dockerfile.gpu copies, and a manifest as `stack.json`.
fn context(stack: &str) -> TempDir {
    let context = tempfile::tempdir().unwrap();
    let requirements = context.path().join("docker/requirements");
    fs::create_dir_all(&requirements).unwrap();
    for entry in fs::read_dir(tree().join("docker/requirements")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), requirements.join(entry.file_name())).unwrap();
    }
    fs::write(context.path().join("stack.json"), stack).unwrap();
    let dockerfile = fs::read_to_string(tree().join("docker/Dockerfile.gpu")).unwrap();
    fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
    context
}

fn build(context: &TempDir, arguments: &[&str]) -> Result<Image, BuildFailure> {
    let (pip, debian, entrypoint) = (pip_image(), Base::Debian12.image(), Base::Scratch.image());
    let bases = [
        format!("BUILD_BASE={}", pip.name()),
        format!("RUNTIME_BASE={}", debian.name()),
        format!("ENTRYPOINT_IMAGE={}", entrypoint.name()),
        "STACK=stack.json".to_string(),
    ];
    let arguments = bases
        .iter()
        .map(String::as_str)
        .chain(LIGHT)
        .chain(arguments.iter().copied());
    let options: Vec<&str> = arguments.flat_map(|argument| ["--build-arg", argument]).collect();
    Image::build_folder(context.path(), &options)
}

/// The service image with the demo's manifest. The janitor removes it.
pub fn light() -> &'static Image {
    static LIGHT: OnceLock<Image> = OnceLock::new();
    LIGHT.get_or_init(|| {
        let stack = fs::read_to_string(tree().join("tests/demo/stack.json")).unwrap();
        build(&context(&stack), &[]).unwrap_or_else(|failure| panic!("{}", failure.text))
    })
}

fn python(run: Run, program: &str) -> Run {
    run.words(["python", "-c", program])
}

/// Where the operator stands: no GPU, no GPU and none needed, a GPU.
#[test]
fn it_serves_where_there_is_a_gpu_or_none_is_needed() {
    let served = |run: Run| python(run, "print('served')");
    served(Run::of(light()))
        .finish()
        .expect(82)
        .says(&["driver-missing", "docker run --gpus all"]);
    let optional = served(Run::of(light()).env("CUDA_ENTRYPOINT_GPU", "optional")).finish();
    assert_eq!(optional.expect(0).says(&["driver-missing"]).stdout, "served\n");

    let with_gpu = served(Run::of(light()).driver(HEALTHY)).finish().expect(0);
    assert_eq!(with_gpu.stdout, "served\n");
    let ok = with_gpu.stderr.lines().last().unwrap();
    for each in [
        "cuda-entrypoint: ok: CUDA runtime 12.4, ",
        "NVIDIA H200 (9.0)",
        "stack demo-cu124 (…/stack.json)",
        "exec /opt/venv/bin/python",
    ] {
        assert!(ok.contains(each), "no {each:?} in {with_gpu:#?}");
    }
}

/// The node that the image is not for, by the list that it was built with.
#[test]
fn its_architectures_are_those_of_the_build() {
    let gpu = |cc: &str| {
        let script = format!(r#"{{"devices": [{{"name": "A GPU", "cc": "{cc}"}}]}}"#);
        python(Run::of(light()).driver(&script), "print('served')").finish()
    };
    gpu("7.0").expect(83).says(&["arch-unsupported", "A GPU", "7.5"]);
    gpu("7.5").expect(0);
    gpu("10.0").expect(83).says(&["arch-unsupported", "9.0"]);
}

#[test]
fn the_service_finds_its_environment() {
    assert_eq!(light().inspect("{{.Config.User}}"), "10001:10001");
    assert_eq!(
        light().inspect("{{json .Config.Entrypoint}}"),
        r#"["cuda-entrypoint","run","--"]"#
    );
    // Installed by this Python and no other, spconv's own cumm replaced, no compiler at import.
    let program = "
import os, sys
from importlib.metadata import version
print(os.getuid(), sys.prefix, version('cumm-cu124'), version('spconv-cu124'))
print(os.environ['SPCONV_DISABLE_JIT'], os.environ['CUMM_DISABLE_JIT'], os.environ['TORCH_CUDA_ARCH_LIST'])
import cumm
print(cumm.__version__)
";
    let run = python(Run::of(light()).env("CUDA_ENTRYPOINT_GPU", "off"), program);
    let run = run.finish().expect(0);
    assert_eq!(
        run.stdout, "10001 /opt/venv 0.8.2 2.3.8\n1 1 7.5;8.0;8.6;8.9;9.0\n0.8.2\n",
        "{run:#?}"
    );
    // Without a command, Python: a container that is started to see whether it starts ends well.
    Run::of(light()).driver(HEALTHY).finish().expect(0);
}

/// The build leaves a receipt of the image, and a volume keeps one of the GPUs, as docker/compose.yaml has it.
#[test]
fn receipts_come_with_the_image_and_stay_in_a_volume() {
    let served = |run: Run| python(run.driver(HEALTHY), "print('served')").finish().expect(0);
    let plain = served(Run::of(light()));
    assert!(plain.stderr.contains(" image as proven "), "{plain:#?}");

    let volume = Volume::new();
    let mount = format!("{}:/var/cache/cuda-entrypoint", volume.name());
    let kept = || {
        let run = Run::of(light()).options([
            "--read-only",
            "--tmpfs",
            "/tmp",
            "--cap-drop",
            "ALL",
            "--volume",
            &mount,
        ]);
        served(run.env(
            "CUDA_ENTRYPOINT_RECEIPT",
            "/var/cache/cuda-entrypoint/receipt.json",
        ))
    };
    let first = kept();
    assert!(!first.stderr.contains("as proven"), "{first:#?}");
    let second = kept();
    assert!(
        second.stderr.contains(" image and GPUs as proven "),
        "{second:#?}"
    );
}

/// All of the confinement at once, and 64 MiB for the checks of 700 MB of libraries.
#[test]
fn the_checks_fit_into_a_confined_container() {
    let run = Run::of(light()).driver(HEALTHY).options([
        "--read-only",
        "--user",
        "65534",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        "--pids-limit",
        "8",
        "--memory",
        "64m",
        "--memory-swap",
        "64m",
    ]);
    let run = run.command("cat /proc/self/status").finish().expect(0);
    for (name, value) in [
        ("CapEff", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        assert_eq!(field(&run.stdout, name), value, "{run:#?}");
    }
}

/// One package from the time before the migration, in an otherwise empty environment.
#[test]
fn a_broken_requirement_fails_the_build() {
    let stack = r#"{
      "schema": 1, "name": "t", "cuda": {"runtime": "12.4"}, "packages": {"nvidia-cuda-runtime-cu12": "==12.4.127"}
    }"#;
    let context = context(stack);
    fs::write(
        context.path().join("docker/requirements/cuda.txt"),
        "nvidia-cuda-runtime-cu12==12.1.105\n",
    )
    .unwrap();
    let words = [
        "package-version",
        "nvidia-cuda-runtime-cu12",
        "12.1.105",
        "12.4.127",
        "cudart-version",
        "returned a non-zero code: 81",
    ];
    fails_with_81(build(&context, &["SPCONV=none", "CUMM=none"]), &words);
}

/// The three lines of the README, in an image that somebody else has built.
#[test]
fn an_existing_image_takes_three_lines() {
    let dockerfile = format!(
        "FROM {}\n\
         COPY --from={} /cuda-entrypoint /usr/local/bin/\n\
         COPY stack.json /etc/cuda-entrypoint/\n\
         ENTRYPOINT [\"cuda-entrypoint\", \"run\", \"--\"]\n\
         CMD [\"echo\", \"served\"]\n",
        Base::Debian12.image().name(),
        Base::Scratch.image().name()
    );
    let image = Image::build(&dockerfile, &[("stack.json", Content::text(super::STACK))]).unwrap();
    let run = Run::of(&image).driver(HEALTHY).finish().expect(0);
    assert_eq!(run.says(&["docker-test", "NVIDIA H200"]).stdout, "served\n");
}
