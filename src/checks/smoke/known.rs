//! Failures of the smoke that have a name: the text that gives them away, whose fault they are, and the next step.
//!
//! torch and the extensions say CUDA's own sentences (CUDA Runtime API, "Error handling", `cudaGetErrorString`), often
//! without the number, so the sentences are what is looked for.

use crate::check::Code;

/// One known failure.
pub struct Known {
    /// in lower case; the first row of which one is contained counts
    texts: &'static [&'static str],
    /// only where the step's own code is this one
    only: Option<Code>,
    /// the finding's code
    pub code: Code,
    /// what it is, in a few words
    pub means: &'static str,
    /// what to do
    pub hint: &'static str,
    /// whether it may pass by itself: what the device stage waits for as well
    pub can_mend: bool,
}

const MEMORY_HINT: &str = "raise the container's memory limit (docker run --memory, resources.limits.memory, ulimit -v): importing torch and spconv takes some 2 GiB; dmesg on the node names who was killed by oom-kill";

/// Rows of the device first: what is the device's fault is never the image's.
static KNOWN: &[Known] = &[
    Known {
        texts: &[
            "out of memory",
            "cudaerrormemoryallocation",
            "cublas_status_alloc_failed",
        ],
        only: None,
        code: Code::SmokeDevice,
        means: "the GPU's memory is taken (CUDA error 2)",
        hint: "nvidia-smi on the node shows who has it: end what should not be there, or give each service a GPU of its own; where GPUs are shared and full on purpose, --smoke off",
        can_mend: true,
    },
    Known {
        texts: &[
            "devices are busy or unavailable",
            "device(s) is/are busy",
            "cudaerrordevicesunavailable",
        ],
        only: None,
        code: Code::SmokeDevice,
        means: "the GPU is taken (CUDA error 46)",
        hint: "it is in exclusive mode and somebody has it: end that process, use MPS, or nvidia-smi -i N -c DEFAULT on the node",
        can_mend: true,
    },
    Known {
        texts: &[
            "uncorrectable ecc",
            "cudaerroreccuncorrectable",
            "uncorrectable nvlink",
        ],
        only: None,
        code: Code::SmokeDevice,
        means: "the GPU reports a hardware error (CUDA error 214 or 220)",
        hint: "drain the node and reset the GPU: nvidia-smi -q -d ECC,ROW_REMAPPER and dmesg tell more (explain gpu-unhealthy)",
        can_mend: false,
    },
    Known {
        texts: &["system not yet initialized", "cudaerrorsystemnotready"],
        only: None,
        code: Code::SmokeDevice,
        means: "the NVSwitch fabric is not ready (CUDA error 802)",
        hint: "start nvidia-fabricmanager on the node, of the driver's own version; --wait 5m lets a booting node finish",
        can_mend: true,
    },
    Known {
        texts: &[
            "unsupported display driver",
            "cudaerrorsystemdrivermismatch",
            "forward compatibility was attempted",
        ],
        only: None,
        code: Code::SmokeDevice,
        means: "libcuda and the kernel's driver do not fit (CUDA error 803 or 804)",
        hint: "take the compat folder out of LD_LIBRARY_PATH and recreate the container",
        can_mend: false,
    },
    Known {
        texts: &[
            "no cuda-capable device",
            "no cuda gpus are available",
            "cudaerrornodevice",
        ],
        only: None,
        code: Code::SmokeDevice,
        means: "no GPU can be used from here",
        hint: "cuda-entrypoint check --stage device says why",
        can_mend: true,
    },
    Known {
        texts: &[
            "found no nvidia driver",
            "driver version is insufficient",
            "nvidia driver on your system is too old",
        ],
        only: None,
        code: Code::SmokeDevice,
        means: "there is no driver, or it is too old for this torch",
        hint: "cuda-entrypoint check --stage device says which",
        can_mend: false,
    },
    Known {
        texts: &[
            "memoryerror",
            "cannot allocate memory",
            "can't allocate memory",
            "std::bad_alloc",
        ],
        only: None,
        code: Code::SmokeDevice,
        means: "the container's own memory is used up, not the GPU's",
        hint: MEMORY_HINT,
        can_mend: false,
    },
    Known {
        texts: &[
            "cuda error: unknown error",
            "cuda unknown error",
            "cudaerrorunknown",
            "cuda error: initialization error",
        ],
        only: None,
        code: Code::SmokeDevice,
        means: "the driver is in a broken state (CUDA error 999 or 3)",
        hint: "nvidia-modprobe -c 0 -u on the node, and look for Xid in dmesg; recreate the container",
        can_mend: true,
    },
    Known {
        texts: &["no kernel image is available", "cudaerrornokernelimagefordevice"],
        only: None,
        code: Code::SmokeForward,
        means: "a library has no code for this GPU (CUDA error 209)",
        hint: "cuda-entrypoint kernels --archs X.Y FOLDER shows which one; install or build it for this architecture (explain kernels-unusable)",
        can_mend: false,
    },
    Known {
        texts: &[
            "unsupported toolchain",
            "cudaerrorunsupportedptxversion",
            "unsupported .version",
        ],
        only: None,
        code: Code::SmokeForward,
        means: "PTX of a newer CUDA than the driver knows (CUDA error 222)",
        hint: "update the node's driver, or install code that is compiled for this GPU (explain driver-minor-compat)",
        can_mend: false,
    },
    Known {
        texts: &[
            "tensorview/core/all.h",
            "cannot open source file \"tensorview",
            "could not open source file",
        ],
        only: None,
        code: Code::SmokeForward,
        means: "spconv compiles a kernel and cumm's headers are not found",
        hint: "install cumm 0.8 or newer, which brings its headers, and mend why it compiles at all (explain jit-at-runtime)",
        can_mend: false,
    },
    Known {
        texts: &["can't find suitable algorithm", "can't find suitable algo"],
        only: None,
        code: Code::SmokeForward,
        means: "spconv has no kernel for this data type or size on this GPU",
        hint: "use float16 or float32 and sizes that are prebuilt, or install the spconv that was built for this GPU",
        can_mend: false,
    },
    Known {
        texts: &["could not convert default argument"],
        only: None,
        code: Code::SmokeImport,
        means: "cumm and spconv are not of one build, so that spconv does not know cumm's types",
        hint: "install the pair that belongs together: spconv-cuXXX first, then cumm-cuXXX of the same CUDA, one build of each (explain package-duplicate)",
        can_mend: false,
    },
    Known {
        texts: &[
            "not compiled with cuda",
            "torch not compiled with cuda enabled",
            "compiled without cuda",
            "not implemented on the gpu",
        ],
        only: None,
        code: Code::SmokeForward,
        means: "this build has no CUDA code",
        hint: "install its CUDA build: built from source it needs nvcc and FORCE_CUDA=1, and becomes CPU-only in silence without them",
        can_mend: false,
    },
    Known {
        texts: &["_array_api not found", "numpy.core.multiarray failed to import"],
        only: Some(Code::SmokeImport),
        code: Code::SmokeImport,
        means: "an extension built for numpy 1 runs with numpy 2",
        hint: "pin numpy<2 in the image, or install the extension's newer build",
        can_mend: false,
    },
    Known {
        texts: &["undefined symbol"],
        only: Some(Code::SmokeImport),
        code: Code::SmokeImport,
        means: "an extension was built against another torch",
        hint: "rebuild it for this torch, or install the wheel that names it",
        can_mend: false,
    },
    Known {
        texts: &["cannot open shared object file"],
        only: Some(Code::SmokeImport),
        code: Code::SmokeImport,
        means: "a shared library is missing",
        hint: "cuda-entrypoint check --stage image names it and who needs it (explain library-missing)",
        can_mend: false,
    },
    Known {
        texts: &["no module named"],
        only: Some(Code::SmokeImport),
        code: Code::SmokeImport,
        means: "a package is not installed for this Python",
        hint: "install it in the image; cuda-entrypoint check --stage image says which Python and folders were looked at",
        can_mend: false,
    },
];

/// The first row that `text` gives away, for a step whose own code is `own`.
pub fn find(text: &str, own: Code) -> Option<&'static Known> {
    let text = text.to_lowercase();
    KNOWN
        .iter()
        .filter(|known| known.only.is_none_or(|only| only == own))
        .find(|known| known.texts.iter().any(|t| text.contains(t)))
}

static FLOATING_POINT: Known = Known {
    texts: &[],
    only: None,
    code: Code::SmokeForward,
    means: "a division by zero in an extension, as spconv makes it where it has no kernel for this GPU",
    hint: "install the spconv that was built for this GPU (cuda-entrypoint kernels shows which architectures it carries)",
    can_mend: false,
};
static KILLED: Known = Known {
    texts: &[],
    only: None,
    code: Code::SmokeDevice,
    means: "the kernel or the container runtime killed it, most likely for its memory",
    hint: MEMORY_HINT,
    can_mend: false,
};

/// What a signal gives away by itself; `said` may name it better.
pub fn signal(number: i32, said: &str) -> Option<&'static Known> {
    use nix::sys::signal::Signal;
    if find(said, Code::SmokeForward).is_some() {
        return None;
    }
    match Signal::try_from(number) {
        Ok(Signal::SIGFPE) => Some(&FLOATING_POINT),
        Ok(Signal::SIGKILL) => Some(&KILLED),
        _ => None,
    }
}
