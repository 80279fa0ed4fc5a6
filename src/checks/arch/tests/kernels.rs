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
    facts.image.python.site_packages = vec!["/sp".into()];
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
    assert_eq!(finding.code.exit_code().code(), 83);
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
    assert_eq!(findings[0].message, "1 package holds code that runs here");
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

/// Libraries of one package, by the file's name.
fn package(libraries: &[(&str, &[&str], &[&str])]) -> Vec<ModuleKernels> {
    let library = |(file, sass, ptx): &(&str, &[&str], &[&str])| ModuleKernels {
        path: format!("/sp/spconv/{file}"),
        ..module(Some("spconv-cu124"), sass, ptx)
    };
    libraries.iter().map(library).collect()
}

fn told(findings: &[Finding]) -> Vec<(Status, &str)> {
    findings.iter().map(|f| (f.status, f.message.as_str())).collect()
}

#[test]
fn what_single_libraries_lack_is_one_note() {
    let modules = package(&[
        ("_C.so", &["8.0", "9.0"], &[]),
        ("_fa3.so", &["9.0a"], &[]),
        ("_qutlass.so", &["10.0f"], &[]),
    ]);
    let findings = kernels(vec![device(0, 8, 6), device(1, 9, 0)], modules);
    assert_eq!(
        told(&findings),
        [
            (Status::Pass, "1 package holds code that runs here"),
            (
                Status::Info,
                "2 of 3 libraries have no code that runs on 8.6: _fa3.so (9.0a), _qutlass.so \
                 (10.0f); 1 of 3 libraries has no code that runs on 9.0: _qutlass.so (10.0f)"
            ),
        ]
    );
    assert_eq!(findings[1].subject, "spconv-cu124");
    assert!(!findings[1].problem);
}

#[test]
fn a_package_of_which_nothing_runs_is_one_failure() {
    let modules = package(&[
        ("_C.so", &["8.0"], &[]),
        ("sub/_D.so", &["8.0"], &[]),
        ("_fa3.so", &["9.0a"], &[]),
    ]);
    let findings = kernels(vec![device(0, 10, 0)], modules);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0].status, Status::Fail);
    assert_eq!(
        findings[0].observed,
        "spconv-cu124: SASS 8.0 9.0a, no PTX in 9 fatbins with kernels of 12 in 3 libraries"
    );
    assert!(
        findings[0].hint.contains("`cuda-entrypoint kernels /sp/spconv`"),
        "{}",
        findings[0].hint
    );
}

#[test]
fn the_greater_part_of_a_package_is_worth_a_warning() {
    let modules = package(&[
        ("_C.so", &["8.0"], &[]),
        ("_D.so", &["8.0"], &[]),
        ("_helper.so", &["8.0", "9.0"], &[]),
    ]);
    let findings = kernels(vec![device(0, 9, 0)], modules);
    assert_eq!(findings.len(), 2, "{findings:#?}");
    let warning = &findings[1];
    assert_eq!((warning.status, warning.problem), (Status::Warn, true));
    assert!(
        warning.message.contains(
            "2 of 3 libraries have no code that runs on 9.0, the greater part of its kernels: _C.so"
        ),
        "{}",
        warning.message
    );
    assert!(
        warning.hint.contains("install a build of spconv-cu124"),
        "{}",
        warning.hint
    );
}

#[test]
fn operators_for_other_gpus_are_a_note() {
    let modules = package(&[("_C_90a.so", &["9.0a"], &[]), ("_C_mx.so", &["10.0"], &[])]);
    let findings = kernels(vec![device(0, 8, 6)], modules);
    assert_eq!(
        told(&findings),
        [(
            Status::Info,
            "no library has code that runs on 8.6, and each is for newer GPUs alone: _C_90a.so \
             (9.0a), _C_mx.so (10.0)"
        )]
    );
}

#[test]
fn each_library_of_torch_is_needed() {
    let stack = Stack {
        packages: vec![PackageRule::new("torch", None)],
        ..Stack::default()
    };
    let mut facts = Facts::default();
    facts.image.python.site_packages = vec!["/sp".into()];
    facts.device.devices = vec![device(0, 10, 0)];
    let library = |file: &str, sass: &[&str]| ModuleKernels {
        path: format!("/sp/torch/lib/{file}"),
        ..module(Some("torch"), sass, &[])
    };
    facts.image.kernels = vec![
        library("libtorch_cuda.so", &["9.0", "10.0"]),
        library("libtorch_cuda_linalg.so", &["9.0"]),
    ];
    let findings = judge(&stack, None, &facts);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0].status, Status::Fail);
    assert!(
        findings[0]
            .message
            .starts_with("torch (torch/lib/libtorch_cuda_linalg.so) has no kernels"),
        "{}",
        findings[0].message
    );
}

#[test]
fn ptx_that_the_driver_does_not_compile_serves_nothing() {
    let stack = Stack {
        packages: vec![PackageRule::new("Spconv_cu124", None)],
        ..Stack::default()
    };
    let isa = crate::facts::from_json(br#"[{"arch": "9.0", "version": "8.7", "fatbins": 3}]"#).unwrap();
    let mut facts = Facts::default();
    facts.device.devices = vec![device(0, 10, 0)];
    facts.image.kernels = vec![ModuleKernels {
        ptx_isa: isa,
        ..module(Some("spconv-cu124"), &["9.0"], &["9.0"])
    }];
    let mut judged = |driver: Option<(u16, u16)>| {
        facts.device.driver = Some(crate::facts::DriverAnswer {
            api_version: driver.map(|(major, minor)| CudaVersion { major, minor }),
            ..crate::facts::DriverAnswer::default()
        });
        judge(&stack, None, &facts).remove(0)
    };
    for newer in [None, Some((12, 8)), Some((13, 0)), Some((14, 0))] {
        let finding = judged(newer);
        assert_eq!(finding.status, Status::Pass, "{newer:?}: {finding:?}");
        assert!(finding.message.contains("by PTX alone"), "{}", finding.message);
    }
    for older in [(12, 4), (12, 7), (11, 8)] {
        assert_eq!(judged(Some(older)).status, Status::Fail, "{older:?}");
    }
    let finding = judged(Some((12, 4)));
    assert_eq!(finding.code.exit_code().code(), 83);
    assert_eq!(
        finding.message,
        "spconv-cu124 (ops.so) has PTX alone for this GPU, of version 8.7 (CUDA 12.8); this driver (CUDA 12.4) \
         compiles up to 8.4: its first kernel would fail with error 222, unsupported PTX version"
    );
    assert_eq!(
        finding.observed,
        "spconv-cu124 (ops.so): SASS 9.0, PTX 9.0 (ISA 8.7) in 3 fatbins with kernels of 4"
    );
    assert!(
        finding
            .hint
            .starts_with("Update the node's driver to release 570.26 or newer for CUDA 12.8, or schedule"),
        "{}",
        finding.hint
    );
    // On a GPU that the SASS serves the PTX is of no account.
    facts.device.devices = vec![device(0, 9, 0)];
    assert_eq!(judge(&stack, None, &facts)[0].status, Status::Pass);
}
