use super::*;
use crate::check::Status;
use serde_json::json;

/// The value of an image, as `docker inspect` shows it.
macro_rules! image {
    ($name:literal) => {
        include_str!(concat!("../../../tests/fixtures/require/valid/", $name, ".txt"))
    };
}
const CUDA_12_4: &str = image!("nvidia-cuda-12.4.1");
const CUDA_13_0: &str = image!("nvidia-cuda-13.0.2");

/// A machine with one GPU: the driver's CUDA and release, capability and brand. An empty text is a fact that is
/// missing.
fn machine(cuda: &str, release: &str, arch: &str, brand: &str) -> Facts {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_string());
    let gpu =
        json!({"ordinal": 0, "name": "NVIDIA L4", "capability": given(arch), "pci_bus_id": "0000:3b:00.0"});
    let nvml_gpu = json!({"index": 0, "pci_bus_id": "0000:3b:00.0", "brand": given(brand)});
    let device = json!({
        "driver": {"path": "/usr/lib/libcuda.so.1", "api_version": given(cuda), "device_count": 1},
        "devices": [gpu],
        "helper": {"end": "done"},
        "nvml": {"driver_release": given(release), "device_count": 1},
        "nvml_devices": [nvml_gpu],
        "nvml_helper": {"end": "done"}
    });
    Facts {
        device: crate::facts::read::FromJson::from_json(device).unwrap(),
        ..Facts::default()
    }
}

fn with(facts: &Facts, variables: &[(&str, &str)]) -> Facts {
    let mut facts = facts.clone();
    let variables = variables.iter().map(|(n, v)| (n.to_string(), v.to_string()));
    facts.environment.extend(variables);
    facts
}

/// What `value` of NVIDIA_REQUIRE_CUDA comes to.
#[track_caller]
fn one(facts: &Facts, value: &str) -> Finding {
    let mut findings = judge(Gpu::Required, &with(facts, &[("NVIDIA_REQUIRE_CUDA", value)]));
    assert_eq!(findings.len(), 1, "{findings:#?}");
    let finding = findings.remove(0);
    assert_eq!(finding.code, Code::RequireCuda);
    assert_eq!(finding.problem, finding.status == Status::Fail);
    finding
}

#[test]
fn real_images_are_judged_as_nvidias_runtime_judges_them() {
    use Status::{Fail, Pass};
    for (image, cuda, release, arch, brand, status) in [
        // new enough
        (CUDA_12_4, "12.4", "550.54.15", "8.9", "nvidia", Pass),
        (CUDA_12_4, "13.0", "580.159.04", "9.0", "nvidia", Pass),
        (CUDA_12_4, "12.4", "550.54.15", "8.9", "geforce", Pass),
        // older, of a branch that compat libraries serve on this brand
        (CUDA_12_4, "12.2", "535.104.05", "8.9", "nvidia", Pass),
        (CUDA_12_4, "11.4", "470.57.02", "7.5", "tesla", Pass),
        (CUDA_12_4, "12.2", "535", "8.9", "titanrtx", Pass),
        // of another branch
        (CUDA_12_4, "12.3", "545.23.08", "8.9", "nvidia", Fail),
        (CUDA_12_4, "11.8", "520.61.05", "7.5", "tesla", Fail),
        // of another brand
        (CUDA_12_4, "12.2", "535.104.05", "7.5", "nvs", Fail),
        (CUDA_13_0, "12.4", "550.54.15", "8.9", "nvidia", Pass),
        (CUDA_13_0, "12.4", "550.54.15", "8.9", "geforce", Fail),
        (CUDA_13_0, "12.4", "550.54.15", "8.9", "vcs", Pass),
        (CUDA_13_0, "12.6", "560.35.03", "8.9", "nvidia", Fail),
        // before NVML had names for brands
        (image!("nvidia-cuda-10.1"), "10.0", "410.48", "7.0", "tesla", Pass),
        (
            image!("nvidia-cuda-10.1"),
            "10.0",
            "410.48",
            "6.1",
            "geforce",
            Fail,
        ),
        (
            image!("nvidia-cuda-12.4.1-arm64"),
            "12.2",
            "535.104.05",
            "9.0",
            "nvidia",
            Fail,
        ),
        (image!("own"), "12.4", "550.54.15", "8.0", "nvidia", Pass),
        (image!("own"), "12.4", "550.40.7", "8.0", "nvidia", Fail),
        (image!("own"), "12.4", "550.54.15", "7.5", "nvidia", Fail),
        (image!("own"), "12.4", "550.54.15", "8.6", "GeForce", Fail),
    ] {
        let finding = one(&machine(cuda, release, arch, brand), image);
        assert_eq!(
            finding.status, status,
            "{cuda} {release} {arch} {brand}: {finding:#?}"
        );
    }
}

#[test]
fn what_fails_says_what_was_seen_and_what_to_do() {
    let finding = one(&machine("12.3", "545.23.08", "8.9", "nvidia"), CUDA_12_4);
    assert_eq!(finding.subject, "NVIDIA_REQUIRE_CUDA");
    assert_eq!(
        finding.observed,
        "cuda 12.3, driver 545.23.08, arch 8.9, brand nvidia (GPU 0 NVIDIA L4)"
    );
    assert_eq!(finding.required, "cuda>=12.4, or one of 30 other alternatives");
    assert_eq!(
        finding.message,
        "the image is not made for this machine: `cuda>=12.4` does not hold"
    );
    assert!(
        finding
            .hint
            .starts_with("update the node's driver to release 550.54.14 or newer"),
        "{}",
        finding.hint
    );
    assert!(
        finding
            .hint
            .contains("NVIDIA_DISABLE_REQUIRE=1 or --allow require-cuda"),
        "{}",
        finding.hint
    );
    // The alternative that misses least, and of it what it misses.
    let finding = one(
        &machine("12.3", "545.23.08", "8.9", "geforce"),
        "cuda>=13.0,arch>=10.0 brand=tesla,driver>=535",
    );
    assert_eq!(
        finding.message,
        "the image is not made for this machine: `brand=tesla` of `brand=tesla,driver>=535` does not hold"
    );
    assert_eq!(
        finding.required,
        "brand=tesla,driver>=535, or another alternative"
    );
    assert!(
        finding
            .hint
            .starts_with("move the workload to a node that meets it"),
        "{}",
        finding.hint
    );
    let finding = one(
        &machine("12.3", "545.23.08", "8.9", "nvidia"),
        "cuda>=13.0,driver>=580.65.06",
    );
    assert!(
        finding
            .message
            .ends_with("`cuda>=13.0` and `driver>=580.65.06` do not hold"),
        "{}",
        finding.message
    );
    assert!(
        finding
            .hint
            .starts_with("update the node's driver to release 580.65.06"),
        "{}",
        finding.hint
    );
    let finding = one(&machine("12.3", "545.23.08", "8.9", "nvidia"), "driver<545");
    assert!(finding.hint.starts_with("move the workload"), "{}", finding.hint);
    let finding = one(&machine("12.3", "545.23.08", "8.9", "nvidia"), "cuda>=99.9");
    assert!(
        finding.hint.contains("nvidia-smi shows such a CUDA"),
        "{}",
        finding.hint
    );
}

#[test]
fn what_cannot_be_told_is_unknown_unless_the_rest_decides() {
    use Status::{Fail, Pass, Unknown};
    let no_nvml = |cuda| machine(cuda, "", "8.9", "");
    for (facts, value, status) in [
        (no_nvml("12.4"), CUDA_12_4, Pass),
        (no_nvml("12.3"), CUDA_12_4, Unknown),
        (no_nvml("12.3"), "cuda>=12.4", Fail),
        (no_nvml("12.3"), "cuda>=12.4,driver>=550", Fail),
        (no_nvml("12.3"), "driver>=550", Unknown),
        (no_nvml("12.3"), "driver>=550 arch>=8.0", Pass),
        (no_nvml("12.3"), "brand=tesla arch>=9.0", Unknown),
        (no_nvml("12.3"), "brand=tesla,arch>=9.0", Fail),
        (machine("", "535.1", "8.9", "nvidia"), "cuda>=12.4", Unknown),
        (machine("12.3", "535.1", "", "nvidia"), "arch>=8.0", Unknown),
        (
            machine("12.3", "535-grid", "8.0", "nvidia"),
            "driver>=535",
            Unknown,
        ),
        // a key that neither of NVIDIA's evaluations knows
        (no_nvml("12.3"), "vendor=x", Unknown),
        (no_nvml("12.3"), "vendor=x,cuda>=12.3", Unknown),
        (no_nvml("12.3"), "vendor=x,cuda>=12.4", Fail),
        (no_nvml("12.3"), "vendor=x cuda>=12.3", Pass),
    ] {
        let finding = one(&facts, value);
        assert_eq!(finding.status, status, "{value}: {finding:#?}");
    }
    let finding = one(&no_nvml("12.3"), CUDA_12_4);
    assert_eq!(
        finding.message,
        "cannot determine whether this machine meets the image's condition: the GPU's brand is not known; the driver's release is not known"
    );
    assert!(finding.hint.contains("contain `utility`"), "{}", finding.hint);
    let finding = one(&no_nvml("12.3"), "vendor=x");
    assert!(
        finding
            .message
            .ends_with("`vendor=x` compares none of cuda, driver, arch and brand")
    );
}

#[test]
fn every_visible_gpu_has_to_meet_it() {
    let mut facts = machine("12.4", "550.54.15", "9.0", "nvidia");
    let mut second = facts.device.devices[0].clone();
    second.ordinal = 1;
    second.name = "NVIDIA T400".into();
    second.capability = Some(ComputeCapability { major: 7, minor: 5 });
    second.pci_bus_id = Some("0000:5e:00.0".into());
    facts.device.devices.push(second);
    let mut second = facts.device.nvml_devices[0].clone();
    second.pci_bus_id = Some("0000:5e:00.0".into());
    second.brand = Some("nvidiartx".into());
    // In NVML's order, which is another one.
    facts.device.nvml_devices.insert(0, second);
    assert_eq!(one(&facts, "arch>=7.5").status, Status::Pass);
    let finding = one(&facts, "arch>=8.0");
    assert_eq!(finding.status, Status::Fail);
    assert!(
        finding
            .observed
            .ends_with("arch 7.5, brand nvidiartx (GPU 1 NVIDIA T400)"),
        "{}",
        finding.observed
    );
    // Each by another alternative.
    assert_eq!(one(&facts, "brand=nvidia brand=nvidiartx").status, Status::Pass);
    assert_eq!(one(&facts, "brand!=nvidiartx").status, Status::Fail);
    // Without a visible one the driver alone is judged.
    facts.device.devices.clear();
    assert_eq!(one(&facts, "arch>=8.0").status, Status::Unknown);
    let finding = one(&facts, "cuda>=13.0");
    assert_eq!(
        (finding.status, finding.observed.as_str()),
        (Status::Fail, "cuda 12.4, driver 550.54.15")
    );
    let facts = with(&facts, &[("NVIDIA_REQUIRE_CUDA", "cuda>=13.0")]);
    let findings = judge(Gpu::Optional, &facts);
    assert_eq!((findings[0].status, findings[0].problem), (Status::Warn, true));
}

#[test]
fn every_variable_counts_but_jetpacks() {
    let facts = with(
        &machine("12.4", "550.54.15", "9.0", "nvidia"),
        &[
            ("NVIDIA_REQUIRE_CUDA", "cuda>=12.4"),
            ("NVIDIA_REQUIRE_ARCH", "arch>=10.0"),
            ("NVIDIA_REQUIRE_EMPTY", " "),
            ("NVIDIA_REQUIRE_COMMA", ","),
            ("NVIDIA_REQUIRE_JETPACK", "csv-mounts=all"),
            ("NVIDIA_REQUIRE_JETPACK_HOST_MOUNTS", "base-only"),
            ("CUDA_VERSION", "13.0"),
        ],
    );
    let findings = judge(Gpu::Required, &facts);
    let said: Vec<_> = findings.iter().map(|f| (f.subject.as_str(), f.status)).collect();
    assert_eq!(
        said,
        [
            ("NVIDIA_REQUIRE_ARCH", Status::Fail),
            ("NVIDIA_REQUIRE_CUDA", Status::Pass)
        ]
    );
    assert_eq!(judge(Gpu::Required, &machine("12.4", "550", "9.0", "nvidia")), []);
}

#[test]
fn an_old_image_asks_by_its_cuda_version() {
    let facts = machine("12.4", "550.54.15", "9.0", "nvidia");
    for (value, status) in [
        ("12.4.1", Some(Status::Pass)),
        ("12.5.0", Some(Status::Fail)),
        ("v12.5", Some(Status::Fail)),
        ("12", Some(Status::Pass)),
        ("cu124", None),
        ("", None),
    ] {
        for require in [None, Some("")] {
            let mut facts = with(&facts, &[("CUDA_VERSION", value)]);
            if let Some(require) = require {
                facts = with(&facts, &[("NVIDIA_REQUIRE_CUDA", require)]);
            }
            let findings = judge(Gpu::Required, &facts);
            assert_eq!(
                findings.first().map(|f| f.status),
                status,
                "{value}: {findings:#?}"
            );
        }
    }
    let findings = judge(Gpu::Required, &with(&facts, &[("CUDA_VERSION", "12.5.0")]));
    assert_eq!(findings[0].subject, "CUDA_VERSION");
    assert_eq!(
        findings[0].required,
        "cuda>=12.5, since the image sets CUDA_VERSION and no NVIDIA_REQUIRE_CUDA"
    );
}

#[test]
fn it_is_skipped_with_the_reason() {
    let facts = with(
        &machine("12.3", "545.23.08", "8.9", "nvidia"),
        &[("NVIDIA_REQUIRE_CUDA", CUDA_12_4)],
    );
    let skipped = |gpu, facts: &Facts| {
        let findings = judge(gpu, facts);
        assert_eq!(
            (findings.len(), findings[0].status),
            (1, Status::Skip),
            "{findings:#?}"
        );
        findings[0].message.clone()
    };
    assert!(skipped(Gpu::Off, &facts).contains("--gpu off"));
    for value in ["1", "t", "T", "true", "True", "TRUE"] {
        let reason = skipped(Gpu::Required, &with(&facts, &[("NVIDIA_DISABLE_REQUIRE", value)]));
        assert_eq!(reason, format!("not looked at: NVIDIA_DISABLE_REQUIRE={value}"));
    }
    for value in ["", "0", "f", "false", "False", "yes", "on", "tRUE", " 1"] {
        let findings = judge(Gpu::Required, &with(&facts, &[("NVIDIA_DISABLE_REQUIRE", value)]));
        assert_eq!(findings[0].status, Status::Fail, "{value:?}");
    }
    let mut without = facts.clone();
    without.device.driver = None;
    assert!(skipped(Gpu::Required, &without).contains("no driver"));
    let mut without = facts;
    without.device.driver.as_mut().unwrap().load_error = Some("no such file".into());
    assert!(skipped(Gpu::Optional, &without).contains("no driver"));
}

#[test]
fn a_value_that_cannot_be_read_is_told_with_its_place() {
    let finding = one(
        &machine("12.4", "550.54.15", "9.0", "nvidia"),
        "cuda>=12.4 brand==tesla",
    );
    assert_eq!(finding.status, Status::Fail);
    assert!(
        finding
            .observed
            .starts_with("character 12: `==` in `brand==tesla`"),
        "{}",
        finding.observed
    );
    assert!(
        finding.hint.starts_with("correct NVIDIA_REQUIRE_CUDA"),
        "{}",
        finding.hint
    );
}

#[test]
fn both_names_of_a_virtual_gpus_brand_are_known() {
    let facts = machine("12.4", "550.54.15", "9.0", "cloudgaming");
    for (value, status) in [
        ("brand=cloudgaming", Status::Pass),
        ("brand=NvidiaCloudGaming", Status::Pass),
        ("brand=nvidia", Status::Fail),
        ("brand=nvidiartx", Status::Fail),
        ("brand=nvidi\u{e9}", Status::Fail),
    ] {
        assert_eq!(one(&facts, value).status, status, "{value}");
    }
}
