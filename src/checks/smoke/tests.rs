use super::*;
use crate::facts::smoke::{SmokeDevice, SmokeJit, SmokePassed, SmokeSkipped, SmokeStep};

fn stack(smoke: &str, env: &str) -> Stack {
    let text = format!(r#"{{"schema": 1, "name": "t", "env": {env}, "smoke": {smoke}}}"#);
    Stack::parse_bytes(text.as_bytes()).unwrap()
}

const JIT_OFF: &str = r#"{"SPCONV_DISABLE_JIT": "1", "CUMM_DISABLE_JIT": "1"}"#;

fn step(entry: &str, name: &str, device: Option<u32>, outcome: SmokeOutcome) -> SmokeResult {
    SmokeResult {
        step: SmokeStep {
            entry: entry.into(),
            step: name.into(),
            device,
        },
        outcome,
    }
}

fn passed(says: &str) -> SmokeOutcome {
    SmokeOutcome::Passed(SmokePassed {
        ms: 10.0,
        difference: Some(2.9e-4),
        tolerance: Some(2e-2),
        says: says.into(),
    })
}

fn failed(error: &str, message: &str) -> SmokeOutcome {
    SmokeOutcome::Failed(SmokeFailed {
        ms: 1.0,
        error: error.into(),
        message: message.into(),
        ..SmokeFailed::default()
    })
}

/// torch and spconv on one GPU, the last step of spconv as given.
fn run(last: SmokeOutcome, end: SmokeEnd) -> SmokeFacts {
    SmokeFacts {
        builtin: SmokeRun {
            end,
            steps: vec![
                step("torch", "import torch", None, passed("")),
                step("spconv", "import spconv.pytorch", None, passed("")),
                step("torch", "matmul float32", Some(0), passed("")),
                step("spconv", "forward float32", Some(0), last),
            ],
            devices: vec![SmokeDevice {
                ordinal: 0,
                name: "NVIDIA H200".into(),
                uuid: "GPU-1".into(),
            }],
            jit: Some(SmokeJit {
                calls: Some(0),
                kernels: vec![],
            }),
            ..SmokeRun::default()
        },
        commands: vec![],
    }
}

fn failures(facts: &SmokeFacts) -> Vec<(Code, String)> {
    judge(&stack(r#"["torch", "spconv"]"#, JIT_OFF), facts)
        .into_iter()
        .filter(|f| f.status == Status::Fail)
        .map(|f| {
            assert!(
                !f.hint.is_empty() && !f.observed.is_empty() && !f.required.is_empty(),
                "{f:?}"
            );
            (f.code, f.message)
        })
        .collect()
}

#[test]
fn what_went_well_says_so() {
    let facts = run(passed("spconv forward OK"), SmokeEnd::Done);
    let findings = judge(&stack(r#"["torch", "spconv"]"#, JIT_OFF), &facts);
    let said: Vec<(Code, Status, &str)> = findings
        .iter()
        .map(|f| (f.code, f.status, f.message.as_str()))
        .collect();
    assert_eq!(
        said,
        [
            (Code::SmokeForward, Status::Pass, "torch OK"),
            (Code::SmokeForward, Status::Pass, "spconv forward OK"),
            (
                Code::JitAtRuntime,
                Status::Pass,
                "spconv ran its prebuilt kernels: NVRTC was never called"
            ),
        ]
    );
    assert!(
        findings[1]
            .observed
            .contains("float32 within 2.9e-4, on NVIDIA H200")
    );
}

#[test]
fn whose_fault_a_failed_kernel_is() {
    for (error, message, code) in [
        (
            "torch.OutOfMemoryError",
            "CUDA out of memory. Tried to allocate 20.00 MiB.",
            Code::SmokeDevice,
        ),
        ("RuntimeError", "CUDA error: out of memory", Code::SmokeDevice),
        (
            "RuntimeError",
            "CUDA error: all CUDA-capable devices are busy or unavailable",
            Code::SmokeDevice,
        ),
        (
            "RuntimeError",
            "CUDA error: uncorrectable ECC error encountered",
            Code::SmokeDevice,
        ),
        (
            "RuntimeError",
            "Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized",
            Code::SmokeDevice,
        ),
        (
            "RuntimeError",
            "CUDA unknown error - this may be due to an incorrectly set up environment",
            Code::SmokeDevice,
        ),
        ("RuntimeError", "No CUDA GPUs are available", Code::SmokeDevice),
        (
            "RuntimeError",
            "CUDA error: no kernel image is available for execution on the device",
            Code::SmokeForward,
        ),
        (
            "RuntimeError",
            "the provided PTX was compiled with an unsupported toolchain.",
            Code::SmokeForward,
        ),
        (
            "RuntimeError",
            "/tmp/x.cu(1): error: could not open source file \"tensorview/core/all.h\"",
            Code::SmokeForward,
        ),
        (
            "AssertionError",
            "can't find suitable algorithm for 0",
            Code::SmokeForward,
        ),
        (
            "AssertionError",
            "Torch not compiled with CUDA enabled",
            Code::SmokeForward,
        ),
        (
            "RuntimeError",
            "CUDA error: an illegal memory access was encountered",
            Code::SmokeForward,
        ),
        ("KeyError", "torch.bfloat16", Code::SmokeForward),
    ] {
        let found = failures(&run(failed(error, message), SmokeEnd::Done));
        assert_eq!(found.len(), 1, "{message}: {found:?}");
        assert_eq!(found[0].0, code, "{message}");
    }
}

#[test]
fn a_device_that_is_busy_may_mend_itself_and_a_broken_one_does_not() {
    for (message, can_mend) in [
        ("CUDA error: out of memory", true),
        ("Error 802: system not yet initialized", true),
        ("No CUDA GPUs are available", true),
        ("CUDA error: uncorrectable ECC error encountered", false),
        ("The NVIDIA driver on your system is too old", false),
        ("DefaultCPUAllocator: can't allocate memory", false),
        ("forward compatibility was attempted on non supported HW", false),
    ] {
        let facts = run(failed("RuntimeError", message), SmokeEnd::Done);
        let findings = judge(&stack(r#"["torch", "spconv"]"#, JIT_OFF), &facts);
        let failed = findings.iter().find(|f| f.status == Status::Fail).unwrap();
        assert_eq!(
            (failed.code, failed.can_mend),
            (Code::SmokeDevice, can_mend),
            "{message}"
        );
    }
}

#[test]
fn a_wrong_result_shows_how_wrong() {
    let wrong = |difference| {
        SmokeOutcome::Failed(SmokeFailed {
            kind: SmokeFailure::Wrong,
            message: "the result is not finite".into(),
            difference,
            tolerance: Some(2e-2),
            ..SmokeFailed::default()
        })
    };
    let stack = stack(r#"["torch", "spconv"]"#, JIT_OFF);
    for (difference, part) in [(Some(0.5), "5.00e-1"), (None, "not finite")] {
        let findings = judge(&stack, &run(wrong(difference), SmokeEnd::Done));
        let finding = findings.iter().find(|f| f.status == Status::Fail).unwrap();
        assert_eq!(finding.code, Code::SmokeWrong);
        assert!(finding.observed.contains(part), "{}", finding.observed);
    }
}

#[test]
fn imports_have_their_own_code() {
    for (error, message) in [
        ("ModuleNotFoundError", "No module named 'spconv'"),
        (
            "ImportError",
            "libcudart.so.12: cannot open shared object file: No such file or directory",
        ),
        (
            "TypeError",
            "could not convert default argument 'timer: tensorview::CUDAKernelTimer' of method",
        ),
        ("SystemExit", "1"),
    ] {
        let mut facts = run(passed(""), SmokeEnd::Done);
        facts.builtin.steps = vec![
            step("torch", "import torch", None, passed("")),
            step("spconv", "import spconv.pytorch", None, failed(error, message)),
        ];
        facts.builtin.skipped = vec![SmokeSkipped {
            entry: "torch".into(),
            reason: "--gpu off".into(),
        }];
        facts.builtin.jit = None;
        let found = failures(&facts);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, Code::SmokeImport, "{message}");
    }
}

#[test]
fn how_the_process_ended_is_judged_by_where_it_was() {
    for (end, code, part) in [
        (
            SmokeEnd::Crashed { signal: 8 },
            Code::SmokeForward,
            "SIGFPE in forward float32 on GPU 0",
        ),
        (
            SmokeEnd::Crashed { signal: 11 },
            Code::SmokeForward,
            "SIGSEGV in forward",
        ),
        (SmokeEnd::Crashed { signal: 9 }, Code::SmokeDevice, "memory"),
        (
            SmokeEnd::Exited { code: 0 },
            Code::SmokeForward,
            "exited in forward",
        ),
        (
            SmokeEnd::Garbled {
                detail: "line 4".into(),
            },
            Code::SmokeForward,
            "no sense in forward",
        ),
        (
            SmokeEnd::TimedOut {
                after_ms: 300_000,
                killed: true,
            },
            Code::SmokeTimeout,
            "hangs in forward",
        ),
    ] {
        let found = failures(&run(SmokeOutcome::Unfinished, end.clone()));
        assert_eq!(found.len(), 1, "{end:?}: {found:?}");
        assert_eq!(found[0].0, code, "{end:?}");
        assert!(found[0].1.contains(part), "{end:?}: {}", found[0].1);
    }
    let nothing = SmokeFacts {
        builtin: SmokeRun {
            end: SmokeEnd::Crashed { signal: 11 },
            ..SmokeRun::default()
        },
        commands: vec![],
    };
    let found = failures(&nothing);
    assert_eq!(found[0].0, Code::SmokeImport);
    assert!(found[0].1.contains("before its first step"));
}

#[test]
fn compiling_fails_where_the_manifest_turns_it_off() {
    let mut facts = run(passed("spconv forward OK"), SmokeEnd::Done);
    facts.builtin.jit = Some(SmokeJit {
        calls: Some(2),
        kernels: vec!["Turing_f32".into()],
    });
    for (env, status) in [
        (JIT_OFF, Status::Fail),
        (r#"{"SPCONV_DISABLE_JIT": "1"}"#, Status::Info),
        ("{}", Status::Info),
    ] {
        let findings = judge(&stack(r#"["spconv"]"#, env), &facts);
        let jit = findings.iter().find(|f| f.code == Code::JitAtRuntime).unwrap();
        assert_eq!(jit.status, status, "{env}");
        assert!(jit.observed.contains("2 calls") && jit.observed.contains("Turing_f32"));
    }
    facts.builtin.jit = Some(SmokeJit::default());
    let findings = judge(&stack(r#"["spconv"]"#, JIT_OFF), &facts);
    assert!(
        findings
            .iter()
            .any(|f| f.code == Code::JitAtRuntime && f.status == Status::Unknown)
    );
}

#[test]
fn own_commands_speak_for_themselves() {
    let command = |end, said: &str| SmokeFacts {
        commands: vec![SmokeCommand {
            name: "model".into(),
            end,
            said: said.into(),
            ms: 5.0,
        }],
        ..SmokeFacts::default()
    };
    let stack = stack(r#"[{"name": "model", "argv": ["x"]}]"#, "{}");
    for (end, said, code, status) in [
        (SmokeEnd::Done, "", Code::SmokeForward, Status::Pass),
        (
            SmokeEnd::NotRun {
                reason: "--gpu off".into(),
            },
            "",
            Code::SmokeForward,
            Status::Skip,
        ),
        (
            SmokeEnd::Exited { code: 3 },
            "assertion",
            Code::SmokeForward,
            Status::Fail,
        ),
        (
            SmokeEnd::Exited { code: 1 },
            "CUDA error: out of memory",
            Code::SmokeDevice,
            Status::Fail,
        ),
        (
            SmokeEnd::Crashed { signal: 11 },
            "",
            Code::SmokeForward,
            Status::Fail,
        ),
        (
            SmokeEnd::NotStarted {
                detail: "x: not found".into(),
            },
            "",
            Code::SmokeForward,
            Status::Fail,
        ),
        (
            SmokeEnd::TimedOut {
                after_ms: 60_000,
                killed: true,
            },
            "",
            Code::SmokeTimeout,
            Status::Fail,
        ),
    ] {
        let findings = judge(&stack, &command(end.clone(), said));
        assert_eq!(findings.len(), 1, "{end:?}");
        assert_eq!((findings[0].code, findings[0].status), (code, status), "{end:?}");
    }
}

#[test]
fn what_was_not_reached_is_told_apart_from_what_failed() {
    let crashed = run(SmokeOutcome::Unfinished, SmokeEnd::Crashed { signal: 11 });
    let findings = judge(&stack(r#"["torch", "spconv", "mmcv"]"#, JIT_OFF), &crashed);
    let skipped: Vec<&str> = findings
        .iter()
        .filter(|f| f.status == Status::Skip)
        .map(|f| f.subject.as_str())
        .collect();
    assert_eq!(skipped, ["mmcv"]);
    // Imported, and no more.
    let mut imported = crashed;
    imported.builtin.steps.truncate(2);
    imported
        .builtin
        .steps
        .push(step("torch", "init", None, SmokeOutcome::Unfinished));
    let findings = judge(&stack(r#"["torch", "spconv"]"#, JIT_OFF), &imported);
    let said: Vec<(Status, &str)> = findings.iter().map(|f| (f.status, f.message.as_str())).collect();
    assert!(said.contains(&(Status::Pass, "spconv imports")), "{said:?}");
    assert!(
        said.contains(&(Status::Skip, "not run on a GPU: the smoke's process had ended")),
        "{said:?}"
    );
}

#[test]
fn the_worst_of_all_devices_is_shown() {
    let mut facts = run(passed("spconv forward OK"), SmokeEnd::Done);
    let worse = SmokeOutcome::Passed(SmokePassed {
        difference: Some(7e-3),
        ..SmokePassed::default()
    });
    facts
        .builtin
        .steps
        .push(step("spconv", "forward float32", Some(1), worse));
    facts.builtin.devices.push(SmokeDevice::default());
    let findings = judge(&stack(r#"["spconv"]"#, JIT_OFF), &facts);
    assert!(
        findings[0].observed.contains("float32 within 7.0e-3, on 2 GPUs"),
        "{}",
        findings[0].observed
    );
}

#[test]
fn without_a_gpu_nothing_was_proven_where_one_is_needed() {
    for (smoke, names) in [
        (
            r#"["torch", {"name": "model", "argv": ["x"], "gpu": true}]"#,
            Some("torch, model"),
        ),
        (r#"[{"name": "model", "argv": ["x"]}]"#, None),
        ("[]", None),
    ] {
        let found = without_gpu(&stack(smoke, "{}"), None);
        assert_eq!(found.as_ref().map(|f| f.subject.as_str()), names, "{smoke}");
        assert!(found.is_none_or(|f| f.code == Code::SmokeDevice && !f.hint.is_empty()));
    }
    let why = Finding::problem(Code::GpuMissing, "").message("no device is visible");
    let found = without_gpu(&stack(r#"["torch"]"#, "{}"), Some(&why)).unwrap();
    assert_eq!(found.observed, "no device is visible (gpu-missing)");
}

#[test]
fn of_a_crash_the_innermost_call_is_shown() {
    let mut facts = run(SmokeOutcome::Unfinished, SmokeEnd::Crashed { signal: 11 });
    for (said, shown) in [
        (
            "chatter\nFatal Python error: Aborted\n  File \"/a.py\", line 3 in f\n  File \"/b.py\", line 4 in g",
            "GPU 0; its innermost call: File \"/a.py\", line 3 in f",
        ),
        (
            "chatter\nFatal Python error: Aborted",
            "GPU 0; its last line: Fatal Python error: Aborted",
        ),
        ("", "GPU 0"),
    ] {
        facts.builtin.said = said.into();
        let findings = judge(&stack(r#"["spconv"]"#, JIT_OFF), &facts);
        let failed = findings.iter().find(|f| f.status == Status::Fail).unwrap();
        assert!(failed.observed.ends_with(shown), "{}", failed.observed);
    }
}
