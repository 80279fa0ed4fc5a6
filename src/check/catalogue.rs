//! The catalogue of findings: one row a code. `explain` prints the page beside it, src/check/explain/CODE.md.

use super::{Severity, Stage};

/// Declares the codes with their page, so that a code without a page does not compile.
macro_rules! catalogue {
    ($($(#[doc = $doc:literal])* $variant:ident $name:literal $stage:ident $severity:ident $exit:literal;)*) => {
        /// The name of a kind of finding. Names are stable: they are only ever added within a major version.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
        pub enum Code { $($(#[doc = $doc])* $variant,)* }

        impl Code {
            /// All codes, in the order of their stages.
            pub fn all() -> impl Iterator<Item = Code> {
                [$(Code::$variant),*].into_iter()
            }

            /// The kebab-case name that people and scripts use.
            pub fn name(self) -> &'static str {
                match self { $(Code::$variant => $name,)* }
            }

            /// The stage that it belongs to.
            pub fn stage(self) -> Stage {
                match self { $(Code::$variant => Stage::$stage,)* }
            }

            /// What it weighs when it fails and nothing else is said.
            pub fn severity(self) -> Severity {
                match self { $(Code::$variant => Severity::$severity,)* }
            }

            /// The exit code when it fails: who must act.
            pub fn exit_code(self) -> u8 {
                match self { $(Code::$variant => $exit,)* }
            }

            /// One line on when it fails.
            pub fn summary(self) -> &'static str {
                match self { $(Code::$variant => concat!($($doc),*).trim_ascii(),)* }
            }
        }

        /// The page of `explain CODE`: what it means, why it matters, how to mend it. Markdown.
        pub fn explain(code: Code) -> &'static str {
            match code { $(Code::$variant => include_str!(concat!("explain/", $name, ".md")),)* }
        }
    };
}

catalogue! {
    /// packages, files or a Python smoke are asked for and no interpreter or site-packages is found
    PythonMissing "python-missing" Image Fail 81;
    /// the interpreter is not the version that the manifest asks for, or wheels are for another interpreter
    PythonVersion "python-version" Image Fail 81;
    /// a package of the manifest is not installed
    PackageMissing "package-missing" Image Fail 81;
    /// a package is installed in another version than the manifest's
    PackageVersion "package-version" Image Fail 81;
    /// a package is built for another CUDA
    PackageCudaTag "package-cuda-tag" Image Fail 81;
    /// two builds of one import name, or two dist-infos of one name
    PackageDuplicate "package-duplicate" Image Fail 81;
    /// installed metadata refuses an installed version
    RequiresDist "requires-dist" Image Fail 81;
    /// a file beside spconv or cumm makes them believe that they are editable, so that an import compiles C++
    EditableTrap "editable-trap" Image Fail 81;
    /// a file that the manifest names is not there
    FileMissing "file-missing" Image Fail 81;
    /// a copy of libcudart is not the manifest's CUDA
    CudartVersion "cudart-version" Image Fail 81;
    /// a copy of libnvrtc is not the manifest's CUDA
    NvrtcVersion "nvrtc-version" Image Fail 81;
    /// a library that the stack needs is found nowhere
    LibraryMissing "library-missing" Image Fail 81;
    /// LD_LIBRARY_PATH or the search order picks another copy of a library than the wheel's
    LibraryShadowed "library-shadowed" Image Warn 81;
    /// the toolkit's stub libcuda.so would be loaded instead of the driver
    StubDriver "stub-driver" Image Fail 81;
    /// a listed architecture is served by no kernel of a CUDA extension
    KernelsMissing "kernels-missing" Image Fail 81;
    /// a listed architecture is served by PTX alone, which is compiled at first launch
    KernelsPtxOnly "kernels-ptx-only" Image Warn 81;
    /// no glibc loader, or too old a glibc: no CUDA library can run here
    LoaderMissing "loader-missing" Image Fail 81;
    /// the image's NVIDIA_REQUIRE_* conditions do not hold on this machine
    RequireCuda "require-cuda" Device Fail 82;
    /// no libcuda.so.1: the container has no NVIDIA driver
    DriverMissing "driver-missing" Device Fail 82;
    /// the driver serves no CUDA as new as the manifest's
    DriverTooOld "driver-too-old" Device Fail 82;
    /// the driver is older than the manifest's CUDA, of the same major version: it runs, without PTX JIT
    DriverMinorCompat "driver-minor-compat" Device Warn 82;
    /// the driver sees no GPU
    GpuMissing "gpu-missing" Device Fail 82;
    /// the driver or a GPU answers with an error
    GpuNotReady "gpu-not-ready" Device Fail 82;
    /// a GPU reports a hardware fault or a setting that forbids compute
    GpuUnhealthy "gpu-unhealthy" Device Fail 82;
    /// NVML is missing or unusable, so health and the driver release are not known
    NvmlMissing "nvml-missing" Device Info 82;
    /// /dev/shm is small: data loaders with workers die with a bus error
    ShmSmall "shm-small" Device Info 82;
    /// the limit on locked memory is low: pinned memory and RDMA may fail
    MemlockLow "memlock-low" Device Info 82;
    /// the process that loads the CUDA libraries ended before its answer
    HelperCrashed "helper-crashed" Device Fail 82;
    /// the process that loads the CUDA libraries did not answer in time
    HelperTimeout "helper-timeout" Device Fail 85;
    /// a visible GPU's compute capability is not served by the list
    ArchUnsupported "arch-unsupported" Arch Fail 83;
    /// a visible GPU's compute capability is served by the list without being on it
    ArchUnlisted "arch-unlisted" Arch Warn 83;
    /// a module has no code that this very GPU can run
    KernelsUnusable "kernels-unusable" Arch Fail 83;
    /// a package could not be imported
    SmokeImport "smoke-import" Smoke Fail 84;
    /// a kernel failed
    SmokeForward "smoke-forward" Smoke Fail 84;
    /// a kernel's result differs from the reference
    SmokeWrong "smoke-wrong" Smoke Fail 84;
    /// the smoke failed for a reason of the device: out of memory, busy, ECC, fabric
    SmokeDevice "smoke-device" Smoke Fail 82;
    /// spconv compiled a kernel at run time although JIT is to be off
    JitAtRuntime "jit-at-runtime" Smoke Fail 84;
    /// the smoke did not finish in time
    SmokeTimeout "smoke-timeout" Smoke Fail 85;
}
