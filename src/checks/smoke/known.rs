//! Failures of the smoke that have a name: the text that gives them away, whose fault they are, and the next step.
//!
//! torch and the extensions say CUDA's own sentences, often without the number: [`cuda_errors::said`] knows them.

use super::symbols;
use crate::check::Code;
use crate::cuda_errors::{self, Party};
use crate::facts::ImageFacts;
use crate::process::limits::ResourceLimit;

/// What a failure turned out to be.
pub struct Cause {
    /// the finding's code
    pub code: Code,
    /// what it is, in a few words
    pub means: String,
    /// what to do
    pub hint: String,
    /// whether it may pass by itself: what the device stage waits for as well
    pub retryable: bool,
}

/// One known failure.
struct Known {
    /// in lower case; the first row of which one is contained counts
    texts: &'static [&'static str],
    /// only where the step's own code is this one
    only: Option<Code>,
    code: Code,
    means: &'static str,
    hint: &'static str,
    retryable: bool,
}

/// The container's or the device's fault.
const OPERATORS: Known = Known {
    texts: &[],
    only: None,
    code: Code::SmokeDevice,
    means: "",
    hint: "",
    retryable: false,
};

/// The software's fault, seen while kernels ran.
const FORWARD: Known = Known {
    code: Code::SmokeForward,
    ..OPERATORS
};

const MEMORY_HINT: &str = "raise the container's memory limit (docker run --memory, resources.limits.memory, ulimit -v): importing torch or another framework takes some 2 GiB; dmesg on the node names the process that the OOM killer ended";
const SHM_HINT: &str = "give the container more shared memory: docker run --shm-size 8g or --ipc=host; on Kubernetes, mount an emptyDir with medium: Memory at /dev/shm";
const NO_MEMORY: &str = "the container's own memory is used up, not the GPU's";

/// Rows of the container and the device first: what is their fault is never the image's. CUDA's own errors are in
/// [`cuda_errors`], and are looked for in front of all of these.
static KNOWN: &[Known] = &[
    Known {
        texts: &["in static tls block"],
        code: Code::SmokeImport,
        means: "a library that needs memory of each thread was loaded too late for it",
        hint: "import the package that brings it before torch, or name the library in LD_PRELOAD",
        ..OPERATORS
    },
    Known {
        texts: &["too many open files"],
        means: "the limit on open files is reached",
        hint: "raise it: docker run --ulimit nofile=65536, or `ulimit -n`",
        ..OPERATORS
    },
    Known {
        texts: &[
            "can't start new thread",
            "pthread_create failed",
            "thread creation failed",
            "errno 11] resource temporarily unavailable",
            "fork: retry: resource temporarily unavailable",
        ],
        means: "no thread or process can be made",
        hint: "raise the limit on processes: docker run --pids-limit, podPidsLimit of the kubelet, or `ulimit -u`; OMP_NUM_THREADS=4 needs fewer of them",
        ..OPERATORS
    },
    Known {
        texts: &[
            "unable to mmap",
            "unable to open shared memory object",
            "unable to allocate shared memory",
            "unable to resize file </torch_",
            "unable to write to file </torch_",
            "out of shared memory",
            "shared memory limit",
            "insufficient shared memory",
            "shared memory segment",
            "dev/shm",
        ],
        means: "the container's shared memory (/dev/shm) is full or too small",
        hint: SHM_HINT,
        ..OPERATORS
    },
    Known {
        texts: &["no space left on device", "disk quota exceeded"],
        means: "a file system that is written to is full: /dev/shm, /tmp or where caches are",
        hint: "`df` in the container shows which: free or enlarge it (docker run --shm-size, --tmpfs /tmp; ephemeral-storage on Kubernetes)",
        ..OPERATORS
    },
    Known {
        texts: &[
            "input/output error",
            "stale file handle",
            "transport endpoint is not connected",
        ],
        means: "the storage behind a file fails",
        hint: "look at the disk, the network or the image store behind it (dmesg, the logs of kubelet or containerd), then start again, or on another node",
        retryable: true,
        ..OPERATORS
    },
    Known {
        texts: &["read-only file system"],
        means: "a folder for compiled kernels cannot be written",
        hint: "name one that can: TRITON_CACHE_DIR, CUPY_CACHE_DIR, XDG_CACHE_HOME, or mount a tmpfs or an emptyDir there (explain cache-unwritable)",
        ..OPERATORS
    },
    Known {
        texts: &["file too large", "file size limit exceeded"],
        means: "a file would become larger than the limit on the size of files allows",
        hint: ResourceLimit::FileSize.hint(),
        ..OPERATORS
    },
    Known {
        texts: &[
            "\nmemoryerror",
            " memoryerror",
            "arraymemoryerror",
            // Of Python itself, while it starts: "Out of memory and PyExc_MemoryError is not initialized yet".
            "_pyerr_nomemory",
            "cannot allocate memory",
            "can't allocate memory",
            "defaultcpuallocator: not enough memory",
            "std::bad_alloc",
            "memory allocation failed",
            "memory allocation of",
            "memory allocation still failed",
            "llvm error: out of memory",
            "libgomp: out of memory",
        ],
        means: NO_MEMORY,
        hint: MEMORY_HINT,
        ..OPERATORS
    },
    Known {
        texts: &["failed to map segment from shared object"],
        means: "a library cannot be mapped: there is no memory left for it, or its file system is mounted with noexec",
        hint: "raise the container's memory limit (docker run --memory, resources.limits.memory, ulimit -v); if there is enough, mount that file system without noexec",
        ..OPERATORS
    },
    Known {
        texts: &[
            "out of memory",
            "cudaerrormemoryallocation",
            "status_alloc_failed",
            "device_allocation_failed",
            "cufft_alloc_failed",
            "status_insufficient_resources",
        ],
        means: "the GPU's memory is taken (CUDA error 2)",
        hint: "nvidia-smi on the node lists the processes that hold it: end those that should not run, or give each service its own GPU; where GPUs are shared and full on purpose, --smoke off",
        retryable: true,
        ..OPERATORS
    },
    Known {
        texts: &[
            "cublas_status_not_initialized",
            "cusolver_status_not_initialized",
            "cusparse_status_not_initialized",
        ],
        means: "a CUDA library cannot be started on this GPU, as where its memory is taken",
        hint: "nvidia-smi on the node lists the processes that hold it; if memory is free, look for Xid lines in dmesg, then see what the image stage says of this library",
        retryable: true,
        ..OPERATORS
    },
    Known {
        texts: &["found no nvidia driver"],
        means: "there is no driver",
        hint: "cuda-entrypoint check --stage device says what is missing",
        ..OPERATORS
    },
    Known {
        texts: &["no kernel image is available", "cudaerrornokernelimagefordevice"],
        means: "a library has no code for this GPU (CUDA error 209)",
        hint: "cuda-entrypoint kernels --archs X.Y FOLDER shows which one; install or build it for this architecture (explain kernels-unusable)",
        ..FORWARD
    },
    Known {
        texts: &["this build of onnxruntime has no cudaexecutionprovider"],
        means: "the installed onnxruntime is its build for the CPU",
        hint: "in the image, pip uninstall --yes onnxruntime, then pip install --force-reinstall onnxruntime-gpu: both install the same module, and the last one wins",
        ..FORWARD
    },
    Known {
        texts: &["unknown backend: 'gpu' requested", "unknown backend gpu"],
        means: "JAX has no CUDA plug-in that works",
        hint: "in the image, pip install 'jax[cuda12]' or 'jax[cuda13]'; --log debug shows why a plug-in that is installed was refused, and JAX_PLATFORMS must not exclude cuda",
        ..FORWARD
    },
    Known {
        texts: &[
            "cannot dlopen some gpu libraries",
            "tensorflow sees no cuda device",
        ],
        means: "TensorFlow uses no GPU",
        hint: "in the image, pip install 'tensorflow[and-cuda]'; cuda-entrypoint check --stage image names the library that it does not find (explain library-missing)",
        ..FORWARD
    },
    Known {
        texts: &["but source was compiled with"],
        means: "the installed cuDNN is older than the one that the framework was built with",
        hint: "--log debug shows both releases: install nvidia-cudnn-cu12 or nvidia-cudnn-cu13 of the newer one",
        ..FORWARD
    },
    Known {
        texts: &["xformers can't load c++/cuda extensions"],
        means: "xformers was built for another torch, CUDA or Python",
        hint: "install the xformers release that was built for this torch (--log debug shows which one it was built for)",
        ..FORWARD
    },
    Known {
        texts: &[
            "configured cuda binary not found",
            "bitsandbytes was compiled without gpu support",
            "cuda setup failed despite",
        ],
        means: "bitsandbytes has no library for the CUDA of this torch",
        hint: "install a bitsandbytes release with a library for torch's CUDA (libbitsandbytes_cuda124.so for 12.4), or name one that it has with BNB_CUDA_VERSION",
        ..FORWARD
    },
    Known {
        texts: &["failed to find c compiler"],
        means: "Triton compiles with a C compiler, and the image has none",
        hint: "in the image, apt-get install gcc libc6-dev, or name a compiler with CC (explain compiler-missing)",
        ..FORWARD
    },
    Known {
        texts: &["python.h: no such file"],
        means: "Triton compiles an extension, and Python's headers are missing",
        hint: "in the image, apt-get install python3-dev, or use a Python that brings its headers",
        ..FORWARD
    },
    Known {
        texts: &[
            "cuda_fp16.h\"",
            "cuda_runtime.h\"",
            "failed to find cuda headers",
            "failed to auto-detect cuda root directory",
        ],
        means: "NVRTC does not find CUDA's headers",
        hint: "in the image, install NVIDIA's wheel of the runtime for this CUDA (nvidia-cuda-runtime-cu12, nvidia-cuda-runtime), which brings them, or set CUDA_PATH to a toolkit",
        ..FORWARD
    },
    Known {
        texts: &["only supports ampere gpus or newer"],
        means: "flash-attn does not support this GPU: it needs compute capability 8.0 or newer",
        hint: "run this image on GPUs of compute capability 8.0 or newer, or leave flash-attn out of the manifest's smoke where the service does without it",
        ..FORWARD
    },
    Known {
        texts: &[
            "tensorview/core/all.h",
            "cannot open source file \"tensorview",
            "could not open source file",
        ],
        means: "spconv compiles a kernel and cumm's headers are not found",
        hint: "install cumm 0.8 or newer, which brings its headers, and fix what makes it compile (explain jit-at-runtime)",
        ..FORWARD
    },
    Known {
        texts: &["can't find suitable algorithm", "can't find suitable algo"],
        means: "spconv has no kernel for this data type or size on this GPU",
        hint: "use float16 or float32 and sizes that are prebuilt, or install the spconv that was built for this GPU",
        ..FORWARD
    },
    Known {
        texts: &["could not convert default argument"],
        only: None,
        code: Code::SmokeImport,
        means: "cumm and spconv are not of one build, so that spconv does not know cumm's types",
        hint: "install the pair that belongs together: spconv-cuXXX first, then cumm-cuXXX of the same CUDA, one build of each (explain package-duplicate)",
        retryable: false,
    },
    Known {
        texts: &[
            "not compiled with cuda",
            "torch not compiled with cuda enabled",
            "compiled without cuda",
            "not implemented on the gpu",
        ],
        means: "this build has no CUDA code",
        hint: "install its CUDA build: built from source it needs nvcc and FORCE_CUDA=1, and becomes CPU-only in silence without them",
        ..FORWARD
    },
    Known {
        texts: &[
            "_array_api not found",
            "numpy.core.multiarray failed to import",
            "numpy is not available",
            "module compiled against abi version",
        ],
        only: Some(Code::SmokeImport),
        code: Code::SmokeImport,
        means: "an extension built for numpy 1 runs with numpy 2",
        hint: "in the image, pip install 'numpy<2', or install a release built for numpy 2, such as torch 2.3.0 or newer (explain numpy-abi)",
        retryable: false,
    },
    Known {
        texts: &["cannot open shared object file"],
        only: Some(Code::SmokeImport),
        code: Code::SmokeImport,
        means: "a shared library is missing",
        hint: "cuda-entrypoint check --stage image names it and who needs it (explain library-missing)",
        retryable: false,
    },
    Known {
        texts: &["no module named"],
        only: Some(Code::SmokeImport),
        code: Code::SmokeImport,
        means: "a package is not installed for this Python",
        hint: "install it in the image; cuda-entrypoint check --stage image says which Python and folders were looked at",
        retryable: false,
    },
];

/// What `text` gives away, for a step whose own code is `own`.
pub fn find(text: &str, own: Code, image: &ImageFacts) -> Option<Cause> {
    if let Some((whose, number, meaning)) = cuda_errors::said(text) {
        return Some(Cause {
            code: match meaning.party {
                Party::Image => own,
                Party::Operator => Code::SmokeDevice,
            },
            means: format!("{} ({whose} error {number})", meaning.cause),
            hint: match meaning.hint {
                "" => "cuda-entrypoint check --stage device says why".to_string(),
                hint => hint.to_string(),
            },
            retryable: meaning.retryable,
        });
    }
    // What is at the beginning of a line is looked for behind a line's end.
    let lower = format!("\n{}", text.to_lowercase());
    KNOWN
        .iter()
        .filter(|known| known.only.is_none_or(|only| only == own))
        .find(|known| known.texts.iter().any(|t| lower.contains(t)))
        .map(Cause::from)
        .or_else(|| symbols::find(text, own, image))
}

impl From<&Known> for Cause {
    fn from(known: &Known) -> Self {
        Self {
            code: known.code,
            means: known.means.to_string(),
            hint: known.hint.to_string(),
            retryable: known.retryable,
        }
    }
}

/// Whether the message says no more than that another library has met an error, which is told elsewhere.
pub fn is_wrapper(text: &str) -> bool {
    let text = text.to_lowercase();
    [
        "unhandled cuda error",
        "unhandled system error",
        "dataloader worker",
    ]
    .iter()
    .any(|words| text.contains(words))
}

static FLOATING_POINT: Known = Known {
    code: Code::SmokeForward,
    means: "a division by zero in an extension, as spconv makes it where it has no kernel for this GPU",
    hint: "install the spconv that was built for this GPU (cuda-entrypoint kernels shows which architectures it carries)",
    ..OPERATORS
};
static KILLED: Known = Known {
    means: "the kernel or the container runtime killed it, most likely for its memory",
    hint: MEMORY_HINT,
    ..OPERATORS
};
static BUS: Known = Known {
    means: "a page of a mapped file cannot be had: /dev/shm is full, or the storage behind a library fails",
    hint: "`df /dev/shm` in the container, and docker run --shm-size or an emptyDir with medium: Memory; else look at the node's disk and image store (dmesg)",
    ..OPERATORS
};
static FILE_SIZE: Known = Known {
    means: "it wrote a file larger than the limit on the size of files allows",
    hint: ResourceLimit::FileSize.hint(),
    ..OPERATORS
};
static CPU_TIME: Known = Known {
    means: "it used more processor time than its limit allows",
    hint: ResourceLimit::CpuTime.hint(),
    ..OPERATORS
};

/// What a signal gives away by itself; `said` may name it better.
pub fn signal(number: i32, said: &str, own: Code, image: &ImageFacts) -> Option<Cause> {
    use nix::sys::signal::Signal;
    if let Some(found) = find(said, own, image) {
        return Some(found);
    }
    let known = match Signal::try_from(number) {
        Ok(Signal::SIGFPE) => &FLOATING_POINT,
        Ok(Signal::SIGKILL) => &KILLED,
        Ok(Signal::SIGBUS) => &BUS,
        Ok(Signal::SIGXFSZ) => &FILE_SIZE,
        Ok(Signal::SIGXCPU) => &CPU_TIME,
        _ => return None,
    };
    Some(known.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sentences as the packages' sources have them.
    #[test]
    fn what_packages_say_is_known() {
        for (said, code, means) in [
            (
                "RuntimeError: FlashAttention only supports Ampere GPUs or newer.",
                Code::SmokeForward,
                "compute capability 8.0",
            ),
            (
                "RuntimeError: Unknown backend: 'gpu' requested, but no platforms that are instances of gpu are present. Platforms present are: cpu",
                Code::SmokeForward,
                "CUDA plug-in",
            ),
            (
                "ImportError: this build of onnxruntime has no CUDAExecutionProvider",
                Code::SmokeForward,
                "build for the CPU",
            ),
            (
                "W gpu_device.cc:2342] Cannot dlopen some GPU libraries. Please make sure the missing libraries mentioned above are installed properly",
                Code::SmokeForward,
                "TensorFlow uses no GPU",
            ),
            (
                "E cuda_dnn.cc:522] Loaded runtime CuDNN library: 9.1.0 but source was compiled with: 9.3.0.",
                Code::SmokeForward,
                "cuDNN is older",
            ),
            (
                "WARNING[XFORMERS]: xFormers can't load C++/CUDA extensions. xFormers was built for:",
                Code::SmokeForward,
                "another torch",
            ),
            (
                "RuntimeError: Configured CUDA binary not found at /sp/bitsandbytes/libbitsandbytes_cuda131.so",
                Code::SmokeForward,
                "bitsandbytes has no library",
            ),
            (
                "RuntimeError: Failed to find C compiler. Please specify via CC environment variable or set triton.knobs.build.impl.",
                Code::SmokeForward,
                "C compiler",
            ),
            (
                "/tmp/x/cuda_fp16.cu(3): catastrophic error: cannot open source file \"cuda_fp16.h\"",
                Code::SmokeForward,
                "CUDA's headers",
            ),
            (
                "OSError: [Errno 30] Read-only file system: '/root/.triton'",
                Code::SmokeDevice,
                "cannot be written",
            ),
        ] {
            let known = find(said, Code::SmokeForward, &ImageFacts::default()).unwrap();
            assert_eq!(known.code, code, "{said}");
            assert!(known.means.contains(means), "{}", known.means);
        }
    }
}
