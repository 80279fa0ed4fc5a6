use std::collections::BTreeMap;

use super::super::fixtures::*;
use super::*;
use crate::check::Status;
use crate::facts::kernels::{Served, Target};

const SITE: &str = "/opt/venv/lib/python3.11/site-packages";

fn targets(text: &str, count: u64) -> BTreeMap<Target, u64> {
    let read = |word: &str| crate::facts::read::FromJson::from_json(serde_json::Value::from(word)).unwrap();
    text.split_whitespace().map(|word| (read(word), count)).collect()
}

fn module(path: &str, package: Option<&str>, sass: &str, ptx: &str) -> ModuleKernels {
    ModuleKernels {
        path: format!("{SITE}/{path}"),
        package: package.map(Into::into),
        fatbins: 12,
        with_kernels: 10,
        sass: targets(sass, 10),
        ptx: targets(ptx, 10),
        ..ModuleKernels::default()
    }
}

fn spconv(sass: &str, ptx: &str) -> ModuleKernels {
    module(
        "spconv/core_cc.cpython-311-x86_64-linux-gnu.so",
        Some("spconv-cu124"),
        sass,
        ptx,
    )
}

fn judged(archs: &str, modules: Vec<ModuleKernels>) -> Vec<Finding> {
    let archs: ArchList = archs.parse().unwrap();
    let facts = image(|i| i.kernels = modules);
    let findings = super::super::judge(&stack(), Some(&archs), &facts);
    let ours = |f: &Finding| matches!(f.code, Code::KernelsMissing | Code::KernelsPtxOnly);
    findings.into_iter().filter(ours).collect()
}

/// The one finding that is no pass.
fn problem(archs: &str, module: ModuleKernels) -> Finding {
    let mut findings = judged(archs, vec![module]);
    findings.retain(|f| f.status != Status::Pass);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    findings.remove(0)
}

#[test]
fn every_architecture_served_by_sass_is_one_pass_with_counts() {
    let mut torch = module("torch/lib/libtorch_cuda.so", Some("torch"), "7.0 8.0 8.6 9.0", "");
    let cc = |major, minor| ComputeCapability { major, minor };
    torch.served.insert(cc(7, 5), Served { sass: 3, ptx: 1 });
    torch.served.insert(cc(9, 0), Served { sass: 10, ptx: 0 });
    let findings = judged(
        "7.5;8.0;8.6;8.9;9.0",
        vec![spconv("7.5 8.0 8.6 8.9 9.0", "9.0"), torch],
    );
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(
        (findings[0].code, findings[0].status),
        (Code::KernelsMissing, Status::Pass)
    );
    assert_eq!(
        findings[0].observed,
        "spconv/core_cc.cpython-311-x86_64-linux-gnu.so: 10 of 12 fatbins with kernels, \
         torch/lib/libtorch_cuda.so: 10 of 12 fatbins with kernels (7.5 in 4)"
    );
    assert!(
        findings[0]
            .message
            .starts_with("2 packages support every listed architecture, by 2 libraries with 20 fatbins"),
        "{}",
        findings[0].message
    );
}

#[test]
fn a_missing_architecture_fails_for_the_manifest_s_packages_and_warns_for_others() {
    for (package, status) in [
        (Some("spconv-cu124"), Status::Fail),
        (Some("pointops"), Status::Warn),
        (None, Status::Warn),
    ] {
        let finding = problem("8.0;9.0", module("x/ops.so", package, "8.0 8.6", ""));
        assert_eq!(
            (finding.code, finding.status),
            (Code::KernelsMissing, status),
            "{package:?}"
        );
        assert!(finding.problem);
        assert!(
            finding.message.contains("no kernels for 9.0:"),
            "{}",
            finding.message
        );
        assert_eq!(finding.subject, "x/ops.so");
        assert_eq!(finding.required, "8.0;9.0");
        assert_eq!(
            finding.observed,
            "SASS 8.0 8.6, no PTX in 10 fatbins with kernels of 12"
        );
        assert!(
            finding.hint.contains("_CUDA_ARCH_LIST=\"8.0;9.0\""),
            "{}",
            finding.hint
        );
    }
}

#[test]
fn ptx_alone_is_a_warning_unless_the_list_says_that_it_is_meant() {
    let finding = problem("9.0;10.0", spconv("9.0", "9.0"));
    assert_eq!(
        (finding.code, finding.status),
        (Code::KernelsPtxOnly, Status::Warn)
    );
    // What pccm compiles reads another variable than torch's extensions.
    let hint = &finding.hint;
    assert!(
        hint.contains("CUMM_CUDA_ARCH_LIST=\"9.0;10.0\"") && !hint.contains("TORCH"),
        "{hint}"
    );
    assert!(
        finding.message.contains("supports 10.0 by PTX alone"),
        "{}",
        finding.message
    );
    let finding = problem("9.0;10.0+PTX", spconv("9.0", "9.0"));
    assert_eq!(
        (finding.code, finding.status, finding.problem),
        (Code::KernelsPtxOnly, Status::Info, false)
    );
    // PTX is not compiled for what is older.
    let finding = problem("8.0", spconv("9.0", "9.0"));
    assert_eq!(
        (finding.code, finding.status),
        (Code::KernelsMissing, Status::Fail)
    );
}

#[test]
fn a_list_with_variants_asks_for_capabilities() {
    for archs in ["9.0a", "9.0;9.0a", "9.0a+PTX", "9.0+PTX"] {
        let findings = judged(archs, vec![spconv("9.0", "")]);
        assert!(
            findings.iter().all(|f| f.status == Status::Pass),
            "{archs}: {findings:#?}"
        );
        let findings = judged(archs, vec![spconv("9.0a", "")]);
        assert!(
            findings.iter().all(|f| f.status == Status::Pass),
            "{archs}: {findings:#?}"
        );
    }
    let finding = problem("9.0;9.0a;10.3", spconv("9.0a 10.0a", ""));
    assert!(
        finding.message.contains("no kernels for 10.3:"),
        "{}",
        finding.message
    );
}

#[test]
fn both_problems_of_one_library_are_two_findings() {
    let findings = judged("7.5;9.0;10.0", vec![spconv("9.0", "9.0")]);
    let codes: Vec<_> = findings.iter().map(|f| (f.code, f.status)).collect();
    assert_eq!(
        codes,
        [
            (Code::KernelsMissing, Status::Fail),
            (Code::KernelsPtxOnly, Status::Warn)
        ]
    );
}

#[test]
fn a_damaged_library_is_said_with_its_place() {
    for (package, status) in [
        (Some("spconv-cu124"), Status::Fail),
        (Some("pointops"), Status::Warn),
        (None, Status::Warn),
    ] {
        let damaged = ModuleKernels {
            error: Some("damaged CUDA code: no fat binary at offset 0x40".into()),
            ..module("x/ops.so", package, "", "")
        };
        let finding = problem("9.0", damaged);
        assert_eq!((finding.code, finding.status), (Code::KernelsMissing, status));
        assert!(finding.message.contains("at offset 0x40"), "{}", finding.message);
    }
}

#[test]
fn what_holds_no_kernels_or_is_nvidia_s_lacks_nothing() {
    let empty = ModuleKernels {
        with_kernels: 0,
        ..module("cumm/core_cc.so", Some("cumm-cu124"), "", "")
    };
    let cublas = ModuleKernels {
        vendor: true,
        ..module(
            "nvidia/cublas/lib/libcublas.so.12",
            Some("nvidia-cublas-cu12"),
            "",
            "",
        )
    };
    let findings = judged("9.0", vec![empty, cublas]);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0].status, Status::Skip);
}

#[test]
fn a_build_for_the_cpu_alone_is_told() {
    let library = |path: &str, package: &str, fatbins: u64| ModuleKernels {
        fatbins,
        with_kernels: fatbins,
        sass: targets(if fatbins > 0 { "9.0" } else { "" }, fatbins),
        ..module(path, Some(package), "", "")
    };
    let cpu = library("torch_scatter/_scatter_cpu.so", "torch-scatter", 0);
    let finding = problem("9.0", cpu.clone());
    assert_eq!(
        (finding.code, finding.status),
        (Code::KernelsMissing, Status::Fail)
    );
    assert!(
        finding.message.contains("built for the CPU alone"),
        "{}",
        finding.message
    );
    assert!(finding.hint.contains("FORCE_CUDA=1"), "{}", finding.hint);
    let cuda = library("torch_scatter/_scatter_cuda.so", "torch-scatter", 1);
    assert!(
        judged("9.0", vec![cpu, cuda])
            .iter()
            .all(|f| f.status == Status::Pass)
    );
    // Not in this manifest: it may be meant for the CPU.
    let other = library("torch_sparse/_spmm_cpu.so", "torch-sparse", 0);
    assert!(judged("9.0", vec![other]).iter().all(|f| !f.problem));
}

#[test]
fn without_a_list_nothing_is_judged() {
    let facts = image(|i| i.kernels = vec![spconv("7.5", "")]);
    let findings = super::super::judge(&stack(), None, &facts);
    assert!(
        findings.iter().all(|f| f.code != Code::KernelsMissing),
        "{findings:#?}"
    );
}

#[test]
fn a_hostile_name_does_not_reach_a_terminal() {
    let finding = problem("9.0", module("x\u{1b}[31m/ops.so", Some("bad\u{7}"), "8.0", ""));
    for text in [
        &finding.subject,
        &finding.message,
        &finding.hint,
        &finding.observed,
    ] {
        assert!(!text.contains(char::is_control), "{text:?}");
        assert!(!text.is_empty());
    }
}

fn package(libraries: &[(&str, &str, u64)]) -> Vec<ModuleKernels> {
    let library = |(file, sass, count): &(&str, &str, u64)| ModuleKernels {
        with_kernels: *count,
        sass: targets(sass, *count),
        ..module(&format!("spconv/{file}"), Some("spconv-cu124"), "", "")
    };
    libraries.iter().map(library).collect()
}

fn statuses(findings: &[Finding]) -> Vec<(Code, Status)> {
    findings.iter().map(|f| (f.code, f.status)).collect()
}

#[test]
fn what_single_libraries_lack_is_one_note() {
    let modules = package(&[
        ("_C.so", "7.5 8.0 9.0 10.0", 20),
        ("_fa2.so", "8.0 9.0 10.0", 10),
        ("_fa3.so", "9.0a", 90),
        ("_qutlass.so", "10.0f", 5),
    ]);
    let findings = judged("7.5;8.0;9.0;10.0", modules);
    assert_eq!(
        statuses(&findings),
        [
            (Code::KernelsMissing, Status::Pass),
            (Code::KernelsMissing, Status::Info)
        ]
    );
    assert_eq!(
        findings[0].message,
        "1 package supports every listed architecture, by 4 libraries with 125 fatbins of kernels"
    );
    assert_eq!(findings[1].subject, "spconv-cu124");
    assert_eq!(
        findings[1].message,
        "single libraries of spconv-cu124 do not support every listed architecture; not supported are 7.5 by _fa2.so (8.0 \
         9.0 10.0); 7.5, 8.0, 10.0 by _fa3.so (9.0a); 7.5, 8.0, 9.0 by _qutlass.so (10.0f)"
    );
}

#[test]
fn what_nothing_of_a_package_serves_is_one_finding() {
    let modules = package(&[
        ("_C.so", "8.0", 2),
        ("_D.so", "8.0 8.6", 2),
        ("_fa3.so", "9.0a", 5),
    ]);
    let findings = judged("7.5;8.0;9.0;10.0", modules);
    assert_eq!(
        statuses(&findings),
        [
            (Code::KernelsMissing, Status::Fail),
            (Code::KernelsMissing, Status::Info)
        ]
    );
    assert_eq!(
        findings[0].message,
        "spconv-cu124 has no kernels for 7.5, 10.0: none of its 3 libraries can run there: _C.so (8.0), _D.so (8.0 \
         8.6), _fa3.so (9.0a)"
    );
}

#[test]
fn the_greater_part_of_a_package_is_worth_a_warning() {
    let modules = package(&[("_C.so", "8.0", 6), ("_helper.so", "8.0 9.0", 2)]);
    let findings = judged("8.0;9.0", modules.clone());
    assert_eq!(statuses(&findings), [(Code::KernelsMissing, Status::Warn)]);
    assert!(
        findings[0]
            .message
            .ends_with("9.0 by _C.so (8.0); for 9.0, that is the greater part of its kernels"),
        "{}",
        findings[0].message
    );
    assert!(
        findings[0]
            .hint
            .contains("Install a build of spconv-cu124 that has kernels for 9.0"),
        "{}",
        findings[0].hint
    );
    // Of what the manifest does not name it is worth a note.
    let others = modules.into_iter().map(|module| ModuleKernels {
        package: Some("pointops".into()),
        ..module
    });
    let findings = judged("8.0;9.0", others.collect());
    assert_eq!(
        statuses(&findings),
        [
            (Code::KernelsMissing, Status::Pass),
            (Code::KernelsMissing, Status::Info)
        ]
    );
}

#[test]
fn operators_for_single_gpus_serve_no_list_and_lack_nothing() {
    let findings = judged(
        "8.6;9.0",
        package(&[("_90a.so", "9.0a", 6), ("_mx.so", "10.0", 2)]),
    );
    assert_eq!(statuses(&findings), [(Code::KernelsMissing, Status::Info)]);
    assert!(
        findings[0].message.contains("8.6, 9.0 by _mx.so (10.0)"),
        "{}",
        findings[0].message
    );
}

#[test]
fn ptx_alone_says_which_drivers_compile_it() {
    let mut library = spconv("9.0", "8.0 9.0");
    library.ptx_isa =
        crate::facts::from_json(br#"[{"arch": "8.0", "version": "8.7", "fatbins": 10}, {"arch": "9.0", "version": "8.8", "fatbins": 4},
            {"arch": "9.0", "version": "9.0", "fatbins": 6}]"#).unwrap();
    let finding = problem("9.0;10.0", library.clone());
    assert_eq!(
        finding.message,
        "spconv-cu124 (spconv/core_cc.cpython-311-x86_64-linux-gnu.so) supports 10.0 by PTX alone, of version 8.7: the \
         driver compiles each kernel at its first use, and only a driver for CUDA 12.8 or newer can"
    );
    assert!(
        finding.observed.contains("PTX 8.0 9.0 (ISA 8.7 8.8 9.0)"),
        "{}",
        finding.observed
    );
    let meant = problem("9.0;10.0+PTX", library.clone());
    assert!(
        meant.message.contains("by PTX alone, of version 8.7, as +PTX"),
        "{}",
        meant.message
    );
    // Where a text does not tell, no driver is named.
    library.ptx_isa.clear();
    let finding = problem("9.0;10.0", library);
    assert!(
        finding
            .message
            .ends_with("only a driver at least as new as the compiler can"),
        "{}",
        finding.message
    );
}
