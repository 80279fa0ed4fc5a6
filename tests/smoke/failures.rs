//! Every way in which a smoke fails: whose fault it is, and what the reader is told.

use std::fmt::Write as _;
use std::fs;

use serde_json::json;

use crate::support::device::Checked;
use crate::support::scene::Scene;

/// A failure: what the packages act out, the exit code, the finding's code, and parts of what it observed, says and
/// advises.
struct Failure {
    name: &'static str,
    script: &'static str,
    options: &'static [&'static str],
    exit: i32,
    code: &'static str,
    observed: &'static str,
    message: &'static str,
    hint: &'static str,
}

const fn failure(name: &'static str, script: &'static str) -> Failure {
    Failure {
        name,
        script,
        options: &[],
        exit: 84,
        code: "smoke-forward",
        observed: "",
        message: "",
        hint: "",
    }
}

const FAILURES: &[Failure] = &[
    Failure {
        code: "smoke-import",
        observed: "ImportError: /v/spconv/core_cc.so: undefined symbol: _ZN3c105ErrorC2E",
        message: "spconv: import spconv.pytorch raised an error: an extension was built against another torch",
        hint: "rebuild it for this torch",
        ..failure(
            "an extension of another torch",
            r#"{"import spconv": {"raise": "ImportError", "message": "/v/spconv/core_cc.so: undefined symbol: _ZN3c105ErrorC2E"}}"#,
        )
    },
    Failure {
        code: "smoke-import",
        observed: "SystemExit: 3",
        message: "torch: import torch raised an error",
        ..failure("sys.exit in an import", r#"{"import torch": {"exit": 3}}"#)
    },
    Failure {
        code: "smoke-import",
        observed: "exit status 0 in import torch",
        message: "the process of the smoke test exited in import torch",
        hint: "do the same by hand",
        ..failure("os._exit in an import", r#"{"import torch": {"leave": 0}}"#)
    },
    Failure {
        observed: "SIGFPE in forward float32 on GPU 0",
        message: "a division by zero",
        hint: "built for this GPU",
        ..failure("SIGFPE", r#"{"forward float32": {"raise_signal": 8}}"#)
    },
    Failure {
        code: "smoke-import",
        observed: "/fake_script.py\", line ",
        message: "was ended by SIGSEGV in import spconv.pytorch",
        ..failure(
            "SIGSEGV in an import",
            r#"{"import spconv": {"raise_signal": 11}}"#,
        )
    },
    Failure {
        observed: "SIGSEGV in matmul float16 on GPU 0",
        message: "was ended by SIGSEGV in matmul float16 on GPU 0",
        ..failure(
            "SIGSEGV in a kernel's launch",
            r#"{"matmul float16": {"raise_signal": 11}}"#,
        )
    },
    Failure {
        exit: 82,
        code: "smoke-device",
        observed: "SIGKILL in import torch",
        message: "most likely for its memory",
        hint: "raise the container's memory limit",
        ..failure("SIGKILL", r#"{"import torch": {"raise_signal": 9}}"#)
    },
    Failure {
        observed: "RuntimeError: CUDA error: no kernel image is available for execution on the device",
        message: "torch: matmul float32 on GPU 0 failed: a library has no code for this GPU",
        hint: "cuda-entrypoint kernels",
        ..failure(
            "no kernel image",
            r#"{"matmul float32": {"raise": "RuntimeError", "message": "CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors might be asynchronously reported"}}"#,
        )
    },
    Failure {
        exit: 82,
        code: "smoke-device",
        observed: "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        message: "the GPU's memory is taken",
        hint: "nvidia-smi",
        ..failure(
            "out of memory",
            r#"{"matmul float32": {"raise": "torch.OutOfMemoryError", "message": "CUDA out of memory. Tried to allocate 2.00 GiB"}}"#,
        )
    },
    Failure {
        exit: 82,
        code: "smoke-device",
        observed: "uncorrectable ECC error encountered",
        message: "an uncorrectable ECC error was met (CUDA error 214)",
        hint: "drain the node",
        ..failure(
            "ECC",
            r#"{"forward float16": {"raise": "RuntimeError", "message": "CUDA error: uncorrectable ECC error encountered"}}"#,
        )
    },
    Failure {
        exit: 82,
        code: "smoke-device",
        observed: "Error 802: system not yet initialized",
        message: "torch: init failed: the NVSwitch fabric is not up",
        hint: "nvidia-fabricmanager",
        ..failure(
            "802",
            r#"{"init": {"raise": "RuntimeError", "message": "Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling NumCudaDevices() that might have already set an error? Error 802: system not yet initialized"}}"#,
        )
    },
    Failure {
        exit: 82,
        code: "smoke-device",
        observed: "CUDA unknown error",
        message: "/dev/nvidia-uvm is missing, or the driver is wedged (CUDA error 999)",
        hint: "nvidia-modprobe",
        ..failure(
            "999",
            r#"{"init": {"raise": "RuntimeError", "message": "CUDA unknown error - this may be due to an incorrectly set up environment, e.g. changing env variable CUDA_VISIBLE_DEVICES after program start. Setting the available devices to be zero."}}"#,
        )
    },
    Failure {
        exit: 82,
        code: "smoke-device",
        observed: "RuntimeError: CUDA driver initialization failed",
        message: "the driver could not be initialised",
        hint: "reload the driver or reboot the node",
        ..failure(
            "3",
            r#"{"init": {"raise": "RuntimeError", "message": "CUDA driver initialization failed, you might not have a CUDA gpu."}}"#,
        )
    },
    Failure {
        exit: 82,
        code: "smoke-device",
        observed: "invalid device ordinal",
        message: "a device number is out of range (CUDA error 101)",
        hint: "correct CUDA_VISIBLE_DEVICES",
        ..failure(
            "101",
            r#"{"init": {"raise": "RuntimeError", "message": "CUDA error: invalid device ordinal\nGPU device may be out of range, do you have enough GPUs?"}}"#,
        )
    },
    Failure {
        exit: 82,
        code: "smoke-device",
        observed: "MPS client failed to connect",
        message: "the MPS control daemon cannot be reached (CUDA error 805)",
        hint: "start nvidia-cuda-mps-control",
        ..failure(
            "805",
            r#"{"init": {"raise": "RuntimeError", "message": "CUDA error: MPS client failed to connect to the MPS control daemon or the MPS server"}}"#,
        )
    },
    Failure {
        exit: 82,
        code: "smoke-device",
        observed: "GPU fabric is not ready",
        message: "is still being set up (CUDA error 919)",
        hint: "--wait 5m",
        ..failure(
            "919",
            r#"{"matmul float32": {"raise": "RuntimeError", "message": "CUDA error: GPU fabric is not ready within the probe wait budget; application may retry (see CUDA_FABRIC_INIT_TIMEOUT_MS)"}}"#,
        )
    },
    Failure {
        exit: 82,
        code: "smoke-device",
        observed: "GPU is lost",
        message: "a GPU fell off the bus (NVML error 15)",
        hint: "look for Xid 79",
        ..failure(
            "a GPU that is lost",
            r#"{"init": {"raise": "RuntimeError", "message": "Unable to determine the device handle for GPU0000:01:00.0: GPU is lost.  Reboot the system to recover this GPU"}}"#,
        )
    },
    Failure {
        exit: 82,
        code: "smoke-device",
        observed: "No space left on device (28)",
        message: "the container's shared memory (/dev/shm) is full or too small",
        hint: "--shm-size",
        ..failure(
            "a full /dev/shm",
            r#"{"import spconv": {"raise": "RuntimeError", "message": "unable to write to file </torch_739_144252761_4>: No space left on device (28)"}}"#,
        )
    },
    Failure {
        exit: 82,
        code: "smoke-device",
        observed: "SIGBUS in forward float32 on GPU 0",
        message: "a page of a mapped file cannot be had",
        hint: "--shm-size",
        ..failure("SIGBUS", r#"{"forward float32": {"raise_signal": 7}}"#)
    },
    Failure {
        exit: 82,
        code: "smoke-device",
        observed: "SIGXCPU in forward float32 on GPU 0",
        message: "more processor time than its limit allows",
        hint: "ulimit -t",
        ..failure("SIGXCPU", r#"{"forward float32": {"raise_signal": 24}}"#)
    },
    Failure {
        observed: "an illegal memory access was encountered",
        message: "spconv: forward float32 on GPU 0 failed",
        hint: "compare the builds",
        ..failure(
            "an illegal memory access",
            r#"{"forward float32": {"raise": "RuntimeError", "message": "CUDA error: an illegal memory access was encountered"}}"#,
        )
    },
    Failure {
        code: "smoke-import",
        observed: "undefined symbol: ncclCommWindowRegister",
        message: "torch: import torch raised an error: libtorch_cuda.so needs ncclCommWindowRegister, and the loader finds another libnccl",
        hint: "another copy of libnccl",
        ..failure(
            "another NCCL",
            r#"{"import torch": {"raise": "ImportError", "message": "/v/torch/lib/libtorch_cuda.so: undefined symbol: ncclCommWindowRegister"}}"#,
        )
    },
    Failure {
        code: "smoke-wrong",
        observed: "the largest difference is 5.00e-1 of the reference's largest value",
        message: "spconv: forward float32 on GPU 0 gives a wrong result",
        hint: "try another GPU of this kind",
        ..failure("a wrong result", r#"{"forward float32": {"difference": 0.5}}"#)
    },
    Failure {
        code: "smoke-wrong",
        observed: "7 of 1000 values are not finite",
        message: "torch: matmul float16 on GPU 0 gives a wrong result",
        ..failure("NaN", r#"{"matmul float16": {"not_finite": 7}}"#)
    },
    Failure {
        code: "jit-at-runtime",
        observed: "2 calls of NVRTC: a, b",
        message: "spconv compiled kernels while it ran",
        hint: "SPCONV_DISABLE_JIT does not stop this",
        ..failure("NVRTC", r#"{"forward float32": {"nvrtc": ["a", "b"]}}"#)
    },
    Failure {
        exit: 85,
        code: "smoke-timeout",
        options: &["--smoke-timeout", "2s"],
        observed: "no end in import spconv.pytorch after 2000 ms",
        message: "spconv: the smoke test hangs in import spconv.pytorch",
        hint: "CUDA_ENTRYPOINT_SMOKE_TIMEOUT",
        ..failure("a hang in an import", r#"{"import spconv": {"hang": "sleep"}}"#)
    },
    Failure {
        exit: 85,
        code: "smoke-timeout",
        options: &["--smoke-timeout", "2s"],
        observed: "no end in forward float32 on GPU 0 after 2000 ms",
        message: "spconv: the smoke test hangs in forward float32 on GPU 0",
        ..failure(
            "a hang with the interpreter's lock held",
            r#"{"forward float32": {"hang": "hold"}}"#,
        )
    },
    Failure {
        code: "smoke-import",
        observed: "exit status 1 in import torch; its last line: a library has closed the descriptor",
        message: "the process of the smoke test exited",
        ..failure("its channel closed", r#"{"import torch": {"close": 3}}"#)
    },
    Failure {
        code: "smoke-import",
        observed: "does not match the protocol",
        message: "the smoke's answer makes no sense in import torch",
        hint: "descriptors that are not its own",
        ..failure(
            "a library that writes to its channel",
            r#"{"import torch": {"write": [3, "Hello, world\n"]}}"#,
        )
    },
    Failure {
        observed: "cut off",
        message: "makes no sense",
        ..failure(
            "half a line on its channel",
            r#"{"forward float32": {"write": [3, "{\"half"], "leave": 0}}"#,
        )
    },
];

#[test]
fn every_failure_says_whose_it_is_what_was_seen_and_what_to_do() {
    let mut told = String::new();
    for failure in FAILURES {
        let name = failure.name;
        tell!("{name}");
        let scene = Scene::acting(failure.script);
        let (found, ran) = scene.prove_both(failure.exit, failure.options);
        let parts = [failure.observed, "", failure.message, failure.hint];
        found.says(failure.code, "fail", parts);
        assert_eq!(found.codes("fail"), [failure.code], "{name}: {found}");
        // Who reads why the container ended: the code, the sentence, the hint.
        let words = scene.last_words();
        let line = format!("{} (exit {}): ", failure.code, failure.exit);
        assert!(words.starts_with(&line), "{name}: {words}");
        assert!(
            words.contains("\nhint: ") && words.contains("\nobserved: "),
            "{name}: {words}"
        );
        let complaint = complaint(&scene, &ran);
        let _ = writeln!(told, "==== {name}\n{complaint}");
        assert_eq!(found.report["smoke"]["status"], "failed", "{name}");
    }
    insta::assert_snapshot!(told);
    // Nothing is hidden from who asks.
    let scene = Scene::acting(r#"{"import torch": {"print": "\u001b[31mred", "exit": 1}}"#);
    let said = complaint(&scene, &scene.run(&["--log", "debug"]));
    assert!(
        said.contains("smoke: its Python said: \\u{1b}[31mred\n"),
        "{said}"
    );
}

/// What `run` writes to standard error.
fn complaint(scene: &Scene, ran: &Checked) -> String {
    let text = scene.readable(&String::from_utf8_lossy(&ran.output.stderr));
    // The fakes' own lines.
    let lines = text
        .split('\n')
        .map(|line| match line.split_once("fake_script.py") {
            Some((before, _)) => format!("{before}fake_script.py …"),
            None => line.to_string(),
        });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_package_that_is_not_installed_is_named() {
    let scene = Scene::new().smoke(json!(["torch", "torchvision"]));
    fs::remove_dir_all(scene.site().join("torchvision")).unwrap();
    let found = scene.prove(84, &[]);
    let parts = [
        "ModuleNotFoundError: No module named 'torchvision'",
        "",
        "torchvision: import torchvision raised an error: a package is not installed for this Python",
        "install it in the image",
    ];
    found.says("smoke-import", "fail", parts);
    // Torch is proven all the same.
    assert!(passes(&found).contains(&"torch OK".to_string()), "{found}");
}

/// What the smoke's passes say.
fn passes(found: &Checked) -> Vec<String> {
    let of_smoke = |f: &&&serde_json::Value| f["stage"] == "smoke" && f["status"] == "pass";
    let all = found.findings();
    all.iter()
        .filter(of_smoke)
        .map(|f| f["message"].as_str().unwrap().to_string())
        .collect()
}

#[test]
fn compiling_at_run_time_is_told_where_nobody_forbade_it() {
    let scene = Scene::acting(r#"{"forward float32": {"nvrtc": ["a"]}}"#);
    for env in [
        json!({}),
        json!({"SPCONV_DISABLE_JIT": "1"}),
        json!({"SPCONV_DISABLE_JIT": "1", "CUMM_DISABLE_JIT": "true"}),
    ] {
        let scene = Scene::acting(r#"{"forward float32": {"nvrtc": ["a"]}}"#)
            .manifest(json!({"schema": 1, "name": "t", "smoke": ["spconv"], "env": env}));
        let found = scene.prove(0, &[]);
        found.says(
            "jit-at-runtime",
            "info",
            ["1 call of NVRTC: a", "", "compiled", ""],
        );
    }
    // The container's variables are not the manifest's word.
    let scene = scene
        .manifest(json!({"schema": 1, "name": "t", "smoke": ["spconv"]}))
        .var("SPCONV_DISABLE_JIT", "1")
        .var("CUMM_DISABLE_JIT", "1");
    scene
        .prove(0, &[])
        .says("jit-at-runtime", "info", ["", "", "", ""]);
}

#[test]
fn what_packages_print_is_kept_short_and_hides_nothing() {
    let scene = Scene::acting(
        r#"{"import torch": {"print": "\"done\"", "flood": 20000000}, "forward float32": {"flood": 20000000}}"#,
    );
    let found = scene.prove(0, &[]);
    let said = found.report["facts"]["smoke"]["builtin"]["said"]
        .as_str()
        .unwrap();
    assert!(said.len() <= 16 << 10, "{}", said.len());
    assert_eq!(passes(&found).len(), 3, "{found}");
    // On its own channel a flood is the end.
    let scene = Scene::acting(r#"{"import torch": {"write": [3, "0123456789\n", 1000000]}}"#);
    let found = scene.prove(84, &[]);
    found.says(
        "smoke-import",
        "fail",
        [
            "it wrote more than 8 MiB",
            "",
            "makes no sense in import torch",
            "",
        ],
    );
}

#[test]
fn a_daemon_that_a_package_leaves_is_gone_before_the_service_starts() {
    for daemon in ["group", "setsid"] {
        for place in ["import torch", "forward float32"] {
            let scene = Scene::acting(&format!(r#"{{"{place}": {{"daemon": "{daemon}"}}}}"#));
            // Every process that the scene's mark is on, but for the service itself.
            let script = "for p in /proc/[0-9]*; do \
                            [ $p = /proc/$$ ] || ! grep -qazFx \"TEST_WORLD=$TEST_WORLD\" $p/environ || cat $p/comm; \
                          done 2>/dev/null";
            let ran = scene.run_service(&[], &["sh", "-c", script]);
            assert_eq!(ran.exit(), 0, "{ran}");
            assert_eq!(
                String::from_utf8_lossy(&ran.output.stdout),
                "",
                "{daemon} {place}: {ran}"
            );
            scene.world.assert_nothing_left();
        }
    }
}

#[test]
fn of_an_exception_the_first_line_that_says_something_is_shown() {
    let long = "long ".repeat(700);
    let cases = [
        // numpy's begins like this.
        (
            r"\n\nIMPORTANT: read this\n\nand more".to_string(),
            "ImportError: IMPORTANT: read this (/",
        ),
        (String::new(), "ImportError (/"),
        (r"\n \n".to_string(), "ImportError (/"),
        (long, "ImportError: long long long"),
    ];
    for (message, observed) in cases {
        let scene = Scene::acting(&format!(
            r#"{{"import spconv": {{"raise": "ImportError", "message": "{message}"}}}}"#
        ));
        let found = scene.prove(84, &[]);
        let seen = found.problem("smoke-import")["observed"].as_str().unwrap();
        assert!(seen.starts_with(observed) && seen.len() < 1000, "{seen}");
        assert!(seen.contains("/fake_script.py:"), "{seen}");
        assert!(scene.last_words().len() <= 4096);
    }
}
