use super::*;
use crate::check::Status;
use crate::facts::ComputeCapability;

fn device(ordinal: i32, name: &str, capability: Option<(u8, u8)>) -> Device {
    Device {
        ordinal,
        name: name.into(),
        capability: capability.map(|(major, minor)| ComputeCapability { major, minor }),
        ..Device::default()
    }
}

fn judged(list: &str, devices: Vec<Device>) -> Vec<Finding> {
    let mut facts = Facts::default();
    facts.device.devices = devices;
    judge(&Stack::default(), Some(&list.parse().unwrap()), &facts)
}

#[test]
fn each_kind_of_service_has_its_finding() {
    for (list, capability, code, status) in [
        ("8.0;9.0", (9, 0), Code::ArchUnsupported, Status::Pass),
        ("9.0a", (9, 0), Code::ArchUnsupported, Status::Pass),
        ("8.6", (8, 7), Code::ArchUnsupported, Status::Fail),
        ("8.6", (8, 9), Code::ArchUnlisted, Status::Warn),
        ("8.0+PTX", (10, 0), Code::ArchUnlisted, Status::Warn),
        ("8.6", (8, 0), Code::ArchUnsupported, Status::Fail),
        ("9.0", (10, 0), Code::ArchUnsupported, Status::Fail),
        ("9.0a+PTX", (10, 0), Code::ArchUnsupported, Status::Fail),
        ("Hopper", (12, 0), Code::ArchUnlisted, Status::Warn),
    ] {
        let findings = judged(list, vec![device(0, "X", Some(capability))]);
        assert_eq!(findings.len(), 1);
        let finding = &findings[0];
        assert_eq!(
            (finding.code, finding.status),
            (code, status),
            "{list} {capability:?}"
        );
        assert_eq!(
            finding.observed,
            format!("compute capability {}.{}", capability.0, capability.1)
        );
        assert_eq!(finding.required, list.parse::<ArchList>().unwrap().to_string());
        assert_eq!(finding.hint.is_empty(), status == Status::Pass);
        assert_eq!(finding.code.exit_code().code(), 83);
    }
}

/// A GPU that the image's frameworks cannot use is worth a warning: the service would be slow, and without an error.
#[test]
fn builds_for_the_cpu_beside_a_gpu_are_a_warning() {
    let dist = |name: &str, version: &str| Distribution {
        name: name.into(),
        version: version.into(),
        ..Distribution::default()
    };
    let torch = |cuda: Option<&str>| Distribution {
        module_version: Some("2.5.0+cpu".into()),
        module_cuda: cuda.map(String::from),
        ..dist("torch", "2.5.0")
    };
    let with = |distributions: Vec<Distribution>, change: &dyn Fn(&mut Facts)| {
        let mut facts = Facts::default();
        facts.device.devices = vec![device(0, "X", Some((9, 0)))];
        facts.image.distributions = distributions;
        change(&mut facts);
        judge(&Stack::default(), None, &facts)
    };
    let both = || vec![torch(None), dist("jaxlib", "0.10.2"), dist("numpy", "2.0")];
    let found = with(both(), &|_| {});
    assert_eq!((found.len(), found[0].status), (1, Status::Warn));
    assert!(
        found[0]
            .message
            .starts_with("torch 2.5.0+cpu, jaxlib 0.10.2 are built for the CPU"),
        "{}",
        found[0].message
    );
    let loaded = |facts: &mut Facts| {
        facts.image.kernels.push(ModuleKernels {
            fatbins: 1,
            ..ModuleKernels::default()
        });
    };
    assert_eq!(with(both(), &loaded), []);
    assert_eq!(with(both(), &|facts| facts.image.python.conda = true), []);
    assert_eq!(with(both(), &|facts| facts.device.devices.clear()), []);
    for fine in [
        vec![torch(Some("12.4"))],
        vec![dist("jaxlib", "0.10.2"), dist("jax-cuda12-plugin", "0.10.2")],
        vec![dist("onnxruntime", "1.2"), dist("onnxruntime-gpu", "1.2")],
        vec![dist("numpy", "2.0")],
    ] {
        assert_eq!(with(fine, &|_| {}), []);
    }
}

#[test]
fn what_the_driver_did_not_tell_is_unknown() {
    let findings = judged("9.0", vec![device(0, "", None)]);
    assert_eq!(findings[0].status, Status::Unknown);
    assert_eq!(findings[0].subject, "GPU 0");
    assert!(!findings[0].problem);
}

#[test]
fn no_list_and_no_device_have_no_finding() {
    assert_eq!(judged("9.0", Vec::new()), []);
    let mut facts = Facts::default();
    facts.device.devices = vec![device(0, "X", Some((3, 0)))];
    assert_eq!(judge(&Stack::default(), None, &facts), []);
}

#[test]
fn gpus_of_a_kind_share_a_finding() {
    let cc = Some((9, 0));
    let findings = judged(
        "8.0",
        vec![
            device(0, "A", cc),
            device(1, "B", cc),
            device(2, "A", cc),
            device(3, "A", cc),
            device(4, "A", Some((8, 0))),
            device(5, "A", cc),
        ],
    );
    let subjects: Vec<&str> = findings.iter().map(|f| f.subject.as_str()).collect();
    assert_eq!(subjects, ["GPUs 0, 2-3, 5 A", "GPU 1 B", "GPU 4 A"]);
}

#[test]
fn numbers_are_shown_as_runs() {
    for (ordinals, shown) in [
        (&[0][..], "GPU 0"),
        (&[0, 1], "GPUs 0-1"),
        (&[0, 2], "GPUs 0, 2"),
        (&[3, 1, 2], "GPUs 3, 1-2"),
        (&[i32::MAX, i32::MIN], "GPUs 2147483647, -2147483648"),
    ] {
        assert_eq!(numbered(ordinals), shown);
    }
}

mod kernels;
