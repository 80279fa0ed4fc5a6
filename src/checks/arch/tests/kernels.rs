use std::collections::BTreeMap;

use super::super::*;
use crate::check::Status;
use crate::facts::kernels::Target;
use crate::stack::PackageRule;

fn device(ordinal: i32, major: u8, minor: u8) -> Device {
    Device {
        ordinal,
        name: "NVIDIA Test".into(),
        capability: Some(ComputeCapability { major, minor }),
        ..Device::default()
    }
}

fn module(package: Option<&str>, sass: &[&str], ptx: &[&str]) -> ModuleKernels {
    let targets = |texts: &[&str]| -> BTreeMap<Target, u64> {
        let read =
            |text: &&str| crate::facts::read::FromJson::from_json(serde_json::Value::from(*text)).unwrap();
        texts.iter().map(|text| (read(text), 3)).collect()
    };
    ModuleKernels {
        path: "/sp/x/ops.so".into(),
        package: package.map(Into::into),
        fatbins: 4,
        with_kernels: 3,
        sass: targets(sass),
        ptx: targets(ptx),
        ..ModuleKernels::default()
    }
}

fn kernels(devices: Vec<Device>, modules: Vec<ModuleKernels>) -> Vec<Finding> {
    let stack = Stack {
        packages: vec![PackageRule::new("Spconv_cu124", None)],
        ..Stack::default()
    };
    let mut facts = Facts::default();
    facts.device.devices = devices;
    facts.image.kernels = modules;
    judge(&stack, None, &facts)
}

#[test]
fn each_device_that_can_run_nothing_is_a_failure() {
    let devices = vec![device(0, 9, 0), device(1, 10, 0)];
    let findings = kernels(devices, vec![module(Some("spconv-cu124"), &["8.0", "9.0"], &[])]);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    let finding = &findings[0];
    assert_eq!(
        (finding.code, finding.status),
        (Code::KernelsUnusable, Status::Fail)
    );
    assert_eq!(finding.code.exit_code(), 83);
    assert_eq!(finding.subject, "GPU 1 NVIDIA Test");
    assert_eq!(
        finding.observed,
        "spconv-cu124 (ops.so): SASS 8.0 9.0, no PTX in 3 fatbins with kernels of 4"
    );
    assert_eq!(finding.required, "code for compute capability 10.0");
    assert!(finding.hint.contains("/sp/x/ops.so"), "{}", finding.hint);
}

#[test]
fn what_runs_is_one_pass_and_ptx_is_a_note() {
    let devices = || vec![device(0, 8, 9), device(1, 9, 0)];
    let findings = kernels(
        devices(),
        vec![module(Some("spconv-cu124"), &["8.0", "9.0"], &[])],
    );
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(
        (findings[0].code, findings[0].status),
        (Code::KernelsUnusable, Status::Pass)
    );
    assert_eq!(findings[0].message, "1 library holds code that runs here");
    let findings = kernels(devices(), vec![module(Some("spconv-cu124"), &["8.0"], &["8.0"])]);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0].status, Status::Pass);
    assert!(
        findings[0].message.contains("spconv-cu124 (ops.so) for 9.0"),
        "{}",
        findings[0].message
    );
}

#[test]
fn variants_run_on_their_own_architecture_alone() {
    let findings = kernels(
        vec![device(0, 9, 0)],
        vec![module(Some("spconv-cu124"), &["9.0a"], &[])],
    );
    assert_eq!(findings[0].status, Status::Pass);
    let findings = kernels(
        vec![device(0, 10, 3)],
        vec![module(Some("spconv-cu124"), &["10.0a"], &[])],
    );
    assert_eq!(findings[0].status, Status::Fail);
}

#[test]
fn others_and_what_holds_no_kernels_are_not_judged() {
    let old = |package| module(package, &["7.0"], &[]);
    let none = ModuleKernels {
        with_kernels: 0,
        ..module(Some("spconv-cu124"), &[], &[])
    };
    let vendor = ModuleKernels {
        vendor: true,
        ..old(Some("spconv-cu124"))
    };
    let damaged = ModuleKernels {
        error: Some("damaged".into()),
        ..old(Some("spconv-cu124"))
    };
    for modules in [
        vec![old(Some("pointops"))],
        vec![old(None)],
        vec![none],
        vec![vendor],
        vec![damaged],
        vec![],
    ] {
        assert_eq!(kernels(vec![device(0, 9, 0)], modules.clone()), [], "{modules:?}");
    }
    let unknown = Device {
        capability: None,
        ..device(0, 9, 0)
    };
    assert_eq!(kernels(vec![unknown], vec![old(Some("spconv-cu124"))]), []);
    assert_eq!(kernels(vec![], vec![old(Some("spconv-cu124"))]), []);
}
