use super::*;
use crate::check::Status;
use crate::facts::smoke::{SmokeDevice, SmokeJit, SmokePassed, SmokeSkipped, SmokeStep};
use crate::facts::{FoundBy, LoadedObject};

fn stack(smoke: &str, env: &str) -> Stack {
    let text = format!(r#"{{"schema": 1, "name": "t", "env": {env}, "smoke": {smoke}}}"#);
    Stack::parse_bytes(text.as_bytes()).unwrap()
}

fn judged(stack: &Stack, facts: &SmokeFacts) -> Vec<Finding> {
    judge(stack, facts, &ImageFacts::default())
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
        native: None,
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
        ..SmokeFacts::default()
    }
}

/// What a framework's own process came to.
fn framework(name: &str, end: SmokeEnd, steps: Vec<SmokeResult>) -> SmokeRun {
    SmokeRun {
        framework: name.into(),
        end,
        steps,
        ..SmokeRun::default()
    }
}

/// A failure in one process is not told of the entries of another.
#[test]
fn each_process_is_judged_by_what_it_did() {
    let of_jax = vec![
        step("jax", "import jax", None, passed("")),
        step("jax", "matmul float32", Some(0), passed("")),
    ];
    let facts = SmokeFacts {
        frameworks: vec![
            framework("jax", SmokeEnd::Done, of_jax),
            framework("cupy", SmokeEnd::Crashed { signal: 11 }, vec![]),
        ],
        ..run(passed(""), SmokeEnd::Done)
    };
    let stack = stack(r#"["jax", "torch", "cupy", "spconv"]"#, JIT_OFF);
    let said: Vec<(String, Status)> = judged(&stack, &facts)
        .into_iter()
        .filter(|finding| finding.code != Code::JitAtRuntime)
        .map(|finding| (finding.subject, finding.status))
        .collect();
    let expected = [
        ("torch", Status::Pass),
        ("spconv", Status::Pass),
        ("jax", Status::Pass),
        ("cupy", Status::Skip),
        ("cupy", Status::Fail),
    ];
    assert_eq!(said, expected.map(|(name, status)| (name.to_string(), status)));
}

/// TensorFlow hides its GPUs where it cannot open one of CUDA's libraries: the image's fault, and no driver's.
#[test]
fn a_tensorflow_that_sees_no_gpu_is_the_images_fault() {
    let steps = vec![
        step("tensorflow", "import tensorflow", None, passed("")),
        step(
            "tensorflow",
            "init",
            None,
            failed("RuntimeError", "tensorflow sees no CUDA device"),
        ),
    ];
    let facts = SmokeFacts {
        frameworks: vec![framework("tensorflow", SmokeEnd::Done, steps)],
        ..SmokeFacts::default()
    };
    let found = judged(&stack(r#"["tensorflow"]"#, "{}"), &facts);
    let failed = found
        .iter()
        .find(|finding| finding.status == Status::Fail)
        .unwrap();
    assert_eq!(failed.code, Code::SmokeForward, "{failed:?}");
    assert!(failed.message.contains("TensorFlow uses no GPU"), "{failed:?}");
}

fn failures(facts: &SmokeFacts) -> Vec<(Code, String)> {
    judged(&stack(r#"["torch", "spconv"]"#, JIT_OFF), facts)
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
    let findings = judged(&stack(r#"["torch", "spconv"]"#, JIT_OFF), &facts);
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

/// How torch and those around it put what the operator has to solve: the words, the number of CUDA's error or a part of the
/// sentence, and whether it may pass by itself.
const OPERATORS: &[(&str, &str, bool)] = &[
    (
        "CUDA error: initialization error\nCUDA kernel errors might be asynchronously reported",
        "CUDA error 3)",
        true,
    ),
    (
        "CUDA driver initialization failed, you might not have a CUDA gpu.",
        "CUDA error 3)",
        true,
    ),
    (
        "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:77, unhandled cuda error (run with NCCL_DEBUG=INFO for details), NCCL version 2.18.3\nncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 'initialization error'",
        "CUDA error 3)",
        true,
    ),
    (
        "[CUresult.CUDA_ERROR_NOT_INITIALIZED] Call to cuCtxGetDevice results in CUDA_ERROR_NOT_INITIALIZED",
        "CUDA error 3)",
        true,
    ),
    (
        "CUDA error: CUDA driver version is insufficient for CUDA runtime version",
        "CUDA error 35)",
        false,
    ),
    (
        "The NVIDIA driver on your system is too old (found version 11040).",
        "CUDA error 35)",
        false,
    ),
    (
        "CUDA error: API call is not supported in the installed CUDA driver",
        "CUDA error 36)",
        false,
    ),
    (
        "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
        "CUDA error 46)",
        true,
    ),
    (
        "cuda runtime error (46) : all CUDA-capable devices are busy or unavailable at /pytorch/aten/src/THC/THCGeneral.cpp:51",
        "CUDA error 46)",
        true,
    ),
    (
        "cuda execution failed with error 46 CUDA-capable device(s) is/are busy or unavailable",
        "CUDA error 46)",
        true,
    ),
    (
        "CUDA error: no CUDA-capable device is detected",
        "CUDA error 100)",
        true,
    ),
    ("torch sees no CUDA device", "CUDA error 100)", true),
    (
        "CUDA error: invalid device ordinal\nGPU device may be out of range, do you have enough GPUs?",
        "CUDA error 101)",
        false,
    ),
    (
        "device >= 0 && device < num_gpus INTERNAL ASSERT FAILED at \"/pytorch/aten/src/ATen/cuda/CUDAContext.cpp\":49",
        "CUDA error 101)",
        false,
    ),
    (
        "CUDA error: uncorrectable ECC error encountered",
        "CUDA error 214)",
        false,
    ),
    (
        "CUDA error: uncorrectable NVLink error detected during the execution",
        "CUDA error 220)",
        false,
    ),
    (
        "CUDA error: Invalid access of peer GPU memory over nvlink or a hardware error",
        "CUDA error 226)",
        false,
    ),
    (
        "CUDA error: PTX JIT compiler library not found",
        "CUDA error 221)",
        false,
    ),
    (
        "CUDA error: PTX JIT compilation was disabled",
        "CUDA error 223)",
        false,
    ),
    ("CUDA_ERROR_CONTAINED", "CUDA error 226)", false),
    (
        "CUDA error: Loader version is insufficient for fatbin",
        "CUDA error 227)",
        false,
    ),
    (
        "Call to cuInit results in CUDA_ERROR_DEVICE_NOT_LICENSED",
        "CUDA error 102)",
        false,
    ),
    (
        "CUDA error: the launch timed out and was terminated",
        "CUDA error 702)",
        false,
    ),
    (
        "CUDA error: an async error has occured in external entity outside of CUDA",
        "CUDA error 911)",
        true,
    ),
    (
        "cuMemcpy failed: CUDA_ERROR_KEY_ROTATION",
        "CUDA error 916)",
        true,
    ),
    (
        "pynvml.NVMLError_OperatingSystem: GPU access blocked by the operating system",
        "NVML error 17)",
        false,
    ),
    (
        "CUDA error: OS call failed or operation not supported on this OS",
        "CUDA error 304)",
        true,
    ),
    ("CUDA error: operation not permitted", "CUDA error 800)", false),
    (
        "CUDA error: operation not supported\nCompile with `TORCH_USE_CUDA_DSA`",
        "CUDA error 801)",
        false,
    ),
    (
        "Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling NumCudaDevices() that might have already set an error? Error 802: system not yet initialized",
        "CUDA error 802)",
        true,
    ),
    (
        "NCCL error in: NCCLUtils.cpp:77, unhandled cuda error (run with NCCL_DEBUG=INFO for details), NCCL version 2.26.2\nncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 802 'system not yet initialized'",
        "CUDA error 802)",
        true,
    ),
    (
        "CUDA error: system has unsupported display driver / cuda driver combination",
        "CUDA error 803)",
        false,
    ),
    (
        "Call to cuInit results in CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
        "CUDA error 803)",
        false,
    ),
    (
        "CUDA error: forward compatibility was attempted on non supported HW",
        "CUDA error 804)",
        false,
    ),
    (
        "CUDA error: MPS client failed to connect to the MPS control daemon or the MPS server",
        "CUDA error 805)",
        true,
    ),
    (
        "CUDA error: the remote procedural call between the MPS server and the MPS client failed",
        "CUDA error 806)",
        true,
    ),
    (
        "CUDA error: MPS server is not ready to accept new MPS client requests",
        "CUDA error 807)",
        true,
    ),
    (
        "CUDA error: the hardware resources required to create MPS client have been exhausted",
        "CUDA error 808)",
        true,
    ),
    (
        "CUDA error: the hardware resources required to support device connections have been exhausted",
        "CUDA error 809)",
        true,
    ),
    (
        "Unexpected error from cudaGetDeviceCount(). Error 805: MPS client failed to connect to the MPS control daemon or the MPS server",
        "CUDA error 805)",
        true,
    ),
    (
        "CUDA error: GPU fabric is not ready within the probe wait budget; application may retry (see CUDA_FABRIC_INIT_TIMEOUT_MS)",
        "CUDA error 919)",
        true,
    ),
    ("CUDA error 919", "CUDA error 919)", true),
    ("CUDA error: unknown error", "CUDA error 999)", true),
    (
        "CUDA unknown error - this may be due to an incorrectly set up environment",
        "CUDA error 999)",
        true,
    ),
    (
        "Unable to determine the device handle for GPU0000:01:00.0: GPU is lost.  Reboot the system to recover this GPU",
        "NVML error 15)",
        false,
    ),
    ("GPU requires reset", "NVML error 16)", false),
    (
        "Failed to initialize NVML: Driver/library version mismatch",
        "NVML error 18)",
        false,
    ),
    (
        "CUDA out of memory. Tried to allocate 20.00 MiB.",
        "the GPU's memory is taken",
        true,
    ),
    ("CUDA error: out of memory", "the GPU's memory is taken", true),
    (
        "Fatal Python error: _PyErr_NoMemory: Out of memory and PyExc_MemoryError is not initialized yet",
        "the container's own memory is used up",
        false,
    ),
    (
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "the GPU's memory is taken",
        true,
    ),
    (
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "the GPU's memory is taken",
        true,
    ),
    (
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "the GPU's memory is taken",
        true,
    ),
    (
        "cuFFT error: CUFFT_ALLOC_FAILED",
        "the GPU's memory is taken",
        true,
    ),
    (
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cannot be started on this GPU",
        true,
    ),
    (
        "unable to write to file </torch_739_144252761_4>: No space left on device (28)",
        "/dev/shm",
        false,
    ),
    (
        "unable to mmap 29764 bytes from file </torch_10182_3020184674_63991>: Cannot allocate memory (12)",
        "/dev/shm",
        false,
    ),
    (
        "unable to open shared memory object </torch_12_34> in read-write mode: No space left on device (28)",
        "/dev/shm",
        false,
    ),
    (
        "unable to open shared memory object </torch_12_34> in read-write mode: Too many open files (24)",
        "open files",
        false,
    ),
    (
        "unable to allocate shared memory(shm) for file </torch_12_34>: No space left on device (28)",
        "/dev/shm",
        false,
    ),
    (
        "DataLoader worker (pid 729) is killed by signal: Bus error. It is possible that dataloader's workers are out of shared memory.",
        "/dev/shm",
        false,
    ),
    (
        "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error.\nLast error:\nError while creating shared memory segment /dev/shm/nccl-jSC3Vf (size 9637888)",
        "/dev/shm",
        false,
    ),
    (
        "[Errno 28] No space left on device: '/root/.triton/cache/x'",
        "file system",
        false,
    ),
    (
        "[Errno 5] Input/output error: '/opt/env/torch/x.py'",
        "storage",
        true,
    ),
    ("can't start new thread", "no thread or process", false),
    (
        "OpenBLAS blas_thread_init: pthread_create failed for thread 12 of 64: Resource temporarily unavailable",
        "no thread or process",
        false,
    ),
    (
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000 bytes. Error code 12 (Cannot allocate memory)",
        "the container's own memory",
        false,
    ),
    ("std::bad_alloc", "the container's own memory", false),
];

#[test]
fn what_the_operator_has_to_solve_is_not_held_against_the_image() {
    let stack = stack(r#"["torch", "spconv"]"#, JIT_OFF);
    for &(message, part, retryable) in OPERATORS {
        // By a step on the GPU, by an import, and by a command of the manifest's author.
        let on_gpu = run(failed("RuntimeError", message), SmokeEnd::Done);
        let mut import = on_gpu.clone();
        import.builtin.steps.truncate(1);
        import.builtin.steps.push(step(
            "spconv",
            "import spconv.pytorch",
            None,
            failed("ImportError", message),
        ));
        import.builtin.jit = None;
        for facts in [on_gpu, import] {
            let findings = judged(&stack, &facts);
            let failures: Vec<&Finding> = findings.iter().filter(|f| f.status == Status::Fail).collect();
            assert_eq!(failures.len(), 1, "{message}: {failures:?}");
            let failure = failures[0];
            assert_eq!(
                (failure.code, failure.retryable),
                (Code::SmokeDevice, retryable),
                "{message}: {failure:?}"
            );
            assert!(
                failure.message.contains(part) && !failure.hint.is_empty(),
                "{message}: {failure:?}"
            );
        }
    }
}

/// What is the program's own, or the image's, however it is put.
#[test]
fn what_the_software_has_done_stays_its_own() {
    for message in [
        "CUDA error: no kernel image is available for execution on the device",
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: unspecified launch failure",
        "CUDA error: too many resources requested for launch",
        "CUDA error: device-side assert triggered",
        "CUDA error: misaligned address",
        "CUDA error: an illegal instruction was encountered",
        "CUDA error: invalid configuration argument",
        "CUDA error: operation not permitted when stream is capturing",
        "CUDA error: operation not permitted on an event last recorded in a capturing stream",
        "CUDA error: operation not supported on global/shared address space",
        "CUDA error: device kernel image is invalid",
        "CUDA error: invalid device function",
        "CUDA error: initialization of the wrong kind",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`",
        "cuDNN error: CUDNN_STATUS_SUBLIBRARY_VERSION_MISMATCH",
        "[Errno 1] Operation not permitted: '/usr/local/cuda/x'",
        "the remote end closed: unknown error",
        "libgomp.so.1: cannot allocate memory in static TLS block",
    ] {
        let found = failures(&run(failed("RuntimeError", message), SmokeEnd::Done));
        assert_eq!(found.len(), 1, "{message}: {found:?}");
        assert_ne!(found[0].0, Code::SmokeDevice, "{message}: {found:?}");
    }
}

/// The image's errors that have a cause and a next step all the same.
#[test]
fn what_is_known_of_the_softwares_errors_is_said() {
    for (message, cause, hint) in [
        (
            "CUDA error: a PTX JIT compilation failed",
            "(CUDA error 218)",
            "reinstall",
        ),
        (
            "CUDA error: the provided PTX was compiled with an unsupported toolchain.",
            "(CUDA error 222)",
            "update the node's driver",
        ),
        (
            "ptxas fatal: Unsupported .version 8.7; current version is '8.4'",
            "(CUDA error 222)",
            "update the node's driver",
        ),
        (
            "CUDA error: hardware stack error",
            "(CUDA error 714)",
            "cudaLimitStackSize",
        ),
        (
            "CUDA error: an illegal instruction was encountered",
            "(CUDA error 715)",
            "architecture",
        ),
        (
            "CUDA error: invalid program counter",
            "(CUDA error 718)",
            "compute-sanitizer",
        ),
        (
            "CUDA error: tensor memory not completely freed",
            "(CUDA error 721)",
            "free its tensor memory",
        ),
    ] {
        let findings = judged(
            &stack(r#"["torch", "spconv"]"#, JIT_OFF),
            &run(failed("RuntimeError", message), SmokeEnd::Done),
        );
        let found: Vec<&Finding> = findings.iter().filter(|f| f.status == Status::Fail).collect();
        assert_eq!(found.len(), 1, "{message}: {found:?}");
        assert_eq!(found[0].code, Code::SmokeForward, "{message}: {found:?}");
        assert!(found[0].message.contains(cause), "{message}: {found:?}");
        assert!(found[0].hint.contains(hint), "{message}: {found:?}");
    }
}

#[test]
fn an_error_that_a_library_wraps_is_looked_for_in_what_was_said() {
    let message = "NCCL error in: x.cpp:1, unhandled cuda error (run with NCCL_DEBUG=INFO for details), NCCL version 2.10.3\nncclUnhandledCudaError: Call to CUDA function failed.";
    for (message, code) in [
        (message, Code::SmokeDevice),
        ("assertion failed", Code::SmokeForward),
    ] {
        let mut facts = run(failed("RuntimeError", message), SmokeEnd::Done);
        facts.builtin.said =
            "host:1:1 [0] init.cc:1 NCCL WARN Cuda failure 'system not yet initialized'".into();
        assert_eq!(failures(&facts)[0].0, code, "{message}");
    }
}

fn loaded(name: &str, path: &str, found_by: Option<FoundBy>) -> LoadedObject {
    LoadedObject {
        name: name.into(),
        path: Some(path.into()),
        found_by,
        ..LoadedObject::default()
    }
}

fn installed(name: &str, version: &str, requires: &[&str]) -> Distribution {
    Distribution {
        name: name.into(),
        version: version.into(),
        requires: requires.iter().map(|r| (*r).to_string()).collect(),
        ..Distribution::default()
    }
}

/// Another release of a library in front of the one that torch was built with: whose symbol it is, where the library was
/// found, and what to do.
#[test]
fn another_release_of_a_library_is_named_with_where_it_was_found() {
    let image = ImageFacts {
        loaded: vec![
            loaded(
                "libnvJitLink.so.12",
                "/usr/local/cuda-12.1/lib64/libnvJitLink.so.12",
                Some(FoundBy::LibraryPath {
                    folder: "/usr/local/cuda-12.1/lib64".into(),
                }),
            ),
            loaded(
                "libnccl.so.2",
                "/v/nvidia/nccl/lib/libnccl.so.2",
                Some(FoundBy::Rpath {
                    of: "/v/torch/lib/libtorch_cuda.so".into(),
                    folder: "/v/nvidia/nccl/lib".into(),
                }),
            ),
            loaded(
                "libcublasLt.so.12",
                "/usr/lib/x86_64-linux-gnu/libcublasLt.so.12",
                Some(FoundBy::System),
            ),
        ],
        distributions: vec![
            installed(
                "torch",
                "2.5.0",
                &[
                    "nvidia-nccl-cu12 (==2.21.5) ; platform_system == \"Linux\"",
                    "nvidia-cudnn-cu12==9.1.0.70; platform_system == \"Linux\"",
                ],
            ),
            installed("nvidia-nccl-cu11", "2.14.3", &[]),
            installed("nvidia-nccl-cu12", "2.21.5", &[]),
            installed("nvidia-cudnn-cu12", "8.9.2.26", &[]),
        ],
        ..ImageFacts::default()
    };
    let nothing = ImageFacts::default();
    for (image, message, means, hint) in [
        (
            &image,
            "/v/torch/lib/../../nvidia/cusparse/lib/libcusparse.so.12: undefined symbol: __nvJitLinkComplete_12_4, version libnvJitLink.so.12",
            "libcusparse.so.12 needs __nvJitLinkComplete_12_4, and the loader finds /usr/local/cuda-12.1/lib64/libnvJitLink.so.12, which is another libnvJitLink.so.12, found by LD_LIBRARY_PATH",
            "take /usr/local/cuda-12.1/lib64 out of LD_LIBRARY_PATH",
        ),
        (
            &image,
            "/usr/local/cuda-12.1/lib64/libnvJitLink.so.12: version `libnvJitLink.so.12' not found (required by /v/nvidia/cusparse/lib/libcusparse.so.12)",
            "libcusparse.so.12 needs libnvJitLink.so.12, and the loader finds /usr/local/cuda-12.1/lib64/libnvJitLink.so.12",
            "take /usr/local/cuda-12.1/lib64 out of LD_LIBRARY_PATH",
        ),
        (
            &image,
            "/v/torch/lib/libtorch_cuda.so: undefined symbol: ncclCommWindowRegister",
            "libtorch_cuda.so needs ncclCommWindowRegister, and the loader finds /v/nvidia/nccl/lib/libnccl.so.2, which is another libnccl: nvidia-nccl-cu12 and nvidia-nccl-cu11 bring the same file",
            "pip uninstall -y nvidia-nccl-cu11, then pip install --force-reinstall --no-deps 'nvidia-nccl-cu12==2.21.5'",
        ),
        (
            &image,
            "/v/torch/lib/libtorch_cuda.so: undefined symbol: cudnnGetLibConfig, version libcudnn_graph.so.9",
            "another libcudnn_graph.so.9 (nvidia-cudnn-cu12 8.9.2.26 is installed)",
            "pip install --force-reinstall --no-deps 'nvidia-cudnn-cu12==9.1.0.70'",
        ),
        (
            &image,
            "/v/nvidia/cublas/lib/libcublas.so.12: undefined symbol: cublasLtGetEnvironmentMode, version libcublasLt.so.12",
            "/usr/lib/x86_64-linux-gnu/libcublasLt.so.12, which is another libcublasLt.so.12, found by ld.so.cache",
            "/etc/ld.so.conf.d",
        ),
        (
            &nothing,
            "/v/torch/lib/libtorch_cuda.so: undefined symbol: ncclCommRegister",
            "libtorch_cuda.so needs ncclCommRegister, and the loader finds another libnccl",
            "another copy of libnccl on LD_LIBRARY_PATH",
        ),
        (
            &nothing,
            "/v/x.so: undefined symbol: cusparseLtMatmulDescSetAttribute",
            "another libcusparseLt",
            "LD_LIBRARY_PATH",
        ),
        (
            &nothing,
            "/v/x.so: undefined symbol: cufftXtSetJITCallback, version libcufft.so.11",
            "another libcufft.so.11",
            "LD_LIBRARY_PATH",
        ),
        (
            &nothing,
            "/v/x.so: undefined symbol: cudaGetDriverEntryPointByVersion, version libcudart.so.12",
            "another libcudart.so.12",
            "LD_LIBRARY_PATH",
        ),
        (
            &nothing,
            "/v/core_cc.so: undefined symbol: _ZN3c105ErrorC2E",
            "an extension was built against another torch",
            "rebuild it for this torch",
        ),
        (
            &nothing,
            "/v/x.so: undefined symbol: _PyThreadState_UncheckedGet",
            "x.so was built for another Python",
            "install the wheel for this Python",
        ),
        (
            &nothing,
            "/usr/lib/libstdc++.so.6: version `GLIBCXX_3.4.30' not found (required by /v/x.so)",
            "/usr/lib/libstdc++.so.6 has no GLIBCXX_3.4.30",
            "LD_LIBRARY_PATH",
        ),
        (
            &nothing,
            "/lib/libc.so.6: version `GLIBC_2.38' not found (required by /v/x.so)",
            "C library is older than x.so needs",
            "newer distribution",
        ),
        (
            &nothing,
            "/v/x.so: undefined symbol: iJIT_NotifyEvent",
            "no library that is loaded has iJIT_NotifyEvent, which x.so needs",
            "releases that belong together",
        ),
    ] {
        let mut facts = run(passed(""), SmokeEnd::Done);
        facts.builtin.steps = vec![step(
            "torch",
            "import torch",
            None,
            failed("ImportError", message),
        )];
        facts.builtin.jit = None;
        let findings = judge(&stack(r#"["torch"]"#, JIT_OFF), &facts, image);
        let found = findings.iter().find(|f| f.status == Status::Fail).unwrap();
        assert_eq!(found.code, Code::SmokeImport, "{message}: {found:?}");
        assert!(
            found.message.contains(means) && found.hint.contains(hint),
            "{message}: {found:#?}"
        );
    }
    // The driver's own library comes from the node.
    let facts = run(
        failed(
            "ImportError",
            "/v/x.so: undefined symbol: cuMemGetHandleForAddressRange",
        ),
        SmokeEnd::Done,
    );
    assert_eq!(failures(&facts)[0].0, Code::SmokeDevice);
}

#[test]
fn a_device_that_is_busy_may_mend_itself_and_a_broken_one_does_not() {
    for (message, retryable) in [
        ("CUDA error: out of memory", true),
        ("Error 802: system not yet initialized", true),
        ("No CUDA GPUs are available", true),
        ("CUDA error: uncorrectable ECC error encountered", false),
        ("The NVIDIA driver on your system is too old", false),
        ("DefaultCPUAllocator: can't allocate memory", false),
        ("forward compatibility was attempted on non supported HW", false),
    ] {
        let facts = run(failed("RuntimeError", message), SmokeEnd::Done);
        let findings = judged(&stack(r#"["torch", "spconv"]"#, JIT_OFF), &facts);
        let failed = findings.iter().find(|f| f.status == Status::Fail).unwrap();
        assert_eq!(
            (failed.code, failed.retryable),
            (Code::SmokeDevice, retryable),
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
        let findings = judged(&stack, &run(wrong(difference), SmokeEnd::Done));
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
        native: None,
        builtin: SmokeRun {
            end: SmokeEnd::Crashed { signal: 11 },
            ..SmokeRun::default()
        },
        ..SmokeFacts::default()
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
        let findings = judged(&stack(r#"["spconv"]"#, env), &facts);
        let jit = findings.iter().find(|f| f.code == Code::JitAtRuntime).unwrap();
        assert_eq!(jit.status, status, "{env}");
        assert!(jit.observed.contains("2 calls") && jit.observed.contains("Turing_f32"));
    }
    facts.builtin.jit = Some(SmokeJit::default());
    let findings = judged(&stack(r#"["spconv"]"#, JIT_OFF), &facts);
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
        let findings = judged(&stack, &command(end.clone(), said));
        assert_eq!(findings.len(), 1, "{end:?}");
        assert_eq!((findings[0].code, findings[0].status), (code, status), "{end:?}");
    }
}

#[test]
fn what_was_not_reached_is_told_apart_from_what_failed() {
    let crashed = run(SmokeOutcome::Unfinished, SmokeEnd::Crashed { signal: 11 });
    let findings = judged(&stack(r#"["torch", "spconv", "mmcv"]"#, JIT_OFF), &crashed);
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
    let findings = judged(&stack(r#"["torch", "spconv"]"#, JIT_OFF), &imported);
    let said: Vec<(Status, &str)> = findings.iter().map(|f| (f.status, f.message.as_str())).collect();
    assert!(said.contains(&(Status::Pass, "spconv imports")), "{said:?}");
    assert!(
        said.contains(&(
            Status::Skip,
            "not run on a GPU: the process of the smoke test had ended"
        )),
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
    let findings = judged(&stack(r#"["spconv"]"#, JIT_OFF), &facts);
    assert!(
        findings[0].observed.contains("float32 within 7.0e-3, on 2 GPUs"),
        "{}",
        findings[0].observed
    );
}

#[test]
fn without_a_gpu_nothing_was_proven_where_one_is_needed() {
    assert_eq!(without_gpu(&[], None), None);
    let found = without_gpu(&["torch", "model"], None).unwrap();
    assert_eq!(
        (found.subject.as_str(), found.code),
        ("torch, model", Code::SmokeDevice)
    );
    assert!(!found.hint.is_empty());
    let why = Finding::problem(Code::GpuMissing, "").message("no device is visible");
    let found = without_gpu(&["torch"], Some(&why)).unwrap();
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
        let findings = judged(&stack(r#"["spconv"]"#, JIT_OFF), &facts);
        let failed = findings.iter().find(|f| f.status == Status::Fail).unwrap();
        assert!(failed.observed.ends_with(shown), "{}", failed.observed);
    }
}
