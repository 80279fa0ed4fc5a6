//! The catalogue of findings: one row a code, with its stage, its severity by default, its exit code and, where the
//! severity depends on something, on what. src/check/explain/CODE.md says more.

use super::{Severity, Stage};
use crate::exit_code::ExitCode;

/// Declares the codes.
macro_rules! catalogue {
    ($($(#[doc = $doc:literal])* $variant:ident $name:literal $stage:ident $severity:ident $exit:ident $($unless:literal)?;)*) => {
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

            /// When it weighs something else by default; empty where it never does.
            pub fn exception(self) -> &'static str {
                match self { $(Code::$variant => concat!($($unless)?),)* }
            }

            /// The exit code when it fails: who must act.
            pub fn exit_code(self) -> ExitCode {
                match self { $(Code::$variant => ExitCode::$exit,)* }
            }

            /// One line on when it fails.
            pub fn summary(self) -> &'static str {
                match self { $(Code::$variant => concat!($($doc),*).trim_ascii(),)* }
            }
        }
    };
}

catalogue! {
    /// a file of the image could not be read because the storage behind it failed, or may not execute it
    StorageFault "storage-fault" Image Fail Node;
    /// a file or folder of the image cannot be read by this user
    FileUnreadable "file-unreadable" Image Fail Image;
    /// packages, files or a smoke test in Python are asked for and no interpreter or site-packages is found
    PythonMissing "python-missing" Image Fail Image;
    /// the service command starts a Python that cannot be determined, so that its packages are not judged
    PythonUnknown "python-unknown" Image Warn Image;
    /// the interpreter is not the version that the manifest asks for, or wheels are for a different interpreter or platform
    PythonVersion "python-version" Image Fail Image;
    /// a package of the manifest is not installed
    PackageMissing "package-missing" Image Fail Image;
    /// a package is installed in another version than the manifest's
    PackageVersion "package-version" Image Fail Image;
    /// libraries or modules that a package's RECORD lists are missing, or its metadata says nothing
    PackageIncomplete "package-incomplete" Image Fail Image;
    /// a package is built for a different CUDA version
    PackageCudaTag "package-cuda-tag" Image Fail Image "info for a package that brings its own CUDA and shares no process with torch";
    /// a package is built for a different torch, or for a different C++ ABI than torch's
    PackageTorchTag "package-torch-tag" Image Fail Image;
    /// two builds of one import name, two dist-infos of one name, or an earlier folder with a package's name
    PackageDuplicate "package-duplicate" Image Fail Image;
    /// two distributions install one library, and the copy that is there is not the required one
    FileOwner "file-owner" Image Fail Image "warn if nothing of the stack uses it, or its owner cannot be determined";
    /// a package is built for numpy 1 and numpy 2 is installed
    NumpyAbi "numpy-abi" Image Fail Image "warn for packages that the manifest does not name";
    /// installed metadata refuses an installed version
    RequiresDist "requires-dist" Image Fail Image "warn if the dependency is absent and no extra asks for it";
    /// a file beside spconv or cumm makes them believe that they are editable, so that an import compiles C++
    EditableTrap "editable-trap" Image Fail Image "warn if the manifest sets both JIT variables";
    /// a file that the manifest names, or the program of a command in its smoke test, does not exist
    FileMissing "file-missing" Image Fail Image;
    /// a copy of libcudart is not the manifest's CUDA
    CudartVersion "cudart-version" Image Fail Image;
    /// a copy of libnvrtc is not the manifest's CUDA
    NvrtcVersion "nvrtc-version" Image Fail Image;
    /// libcudnn or its sub-library is not the release that torch or the manifest pins
    CudnnVersion "cudnn-version" Image Fail Image;
    /// a library that the stack needs is not found
    LibraryMissing "library-missing" Image Fail Image "warn or info for an optional part, and for packages that the manifest does not name";
    /// LD_LIBRARY_PATH or the search order picks another copy of a library than the wheel's
    LibraryShadowed "library-shadowed" Image Warn Image "fail if that copy lacks a symbol that is needed";
    /// a library asks torch, another framework or CUDA for a symbol that no installed copy of it defines
    UndefinedSymbol "undefined-symbol" Image Fail Image "warn for packages that the manifest does not name, where other libraries of theirs can be loaded, and for libraries of which a package has one for each torch";
    /// the toolkit's stub libcuda.so would be loaded instead of the driver
    StubDriver "stub-driver" Image Fail Image "info if it would not be loaded";
    /// a CUDA extension has no kernel for a listed architecture
    KernelsMissing "kernels-missing" Image Fail Image "warn for packages that the manifest does not name";
    /// a CUDA extension supports a listed architecture only by PTX, which is compiled at first launch
    KernelsPtxOnly "kernels-ptx-only" Image Warn Image;
    /// triton finds no C compiler, or no Python.h, for what it compiles at run time
    CompilerMissing "compiler-missing" Image Warn Image "info where the manifest names no package that compiles";
    /// a folder for compiled kernels cannot be written by this user
    CacheUnwritable "cache-unwritable" Image Warn Image "info for a default folder where the manifest names no package that compiles";
    /// the user has no name, which torch's inductor asks for
    UserUnknown "user-unknown" Image Warn Image;
    /// a variable names something that does not exist, or has a value that the software refuses
    VariableMismatch "variable-mismatch" Image Warn Image;
    /// no glibc loader, or too old a glibc: no CUDA library can run here
    LoaderMissing "loader-missing" Image Fail Image;
    /// the image's NVIDIA_REQUIRE_* conditions do not hold on this machine
    RequireCuda "require-cuda" Device Fail Node "warn under `--gpu optional` where no GPU is visible";
    /// no libcuda.so.1: the container has no NVIDIA driver
    DriverMissing "driver-missing" Device Fail Node;
    /// the driver does not support a CUDA as new as the manifest's
    DriverTooOld "driver-too-old" Device Fail Node;
    /// the driver is older than the manifest's CUDA, of the same major version: it runs, without PTX JIT
    DriverMinorCompat "driver-minor-compat" Device Warn Node;
    /// the driver does not support a CUDA as new as torch's or libcudart's, though the manifest accepts it
    DriverFloor "driver-floor" Device Fail Node "warn at build where NVIDIA_REQUIRE_CUDA admits such drivers, and for a second libcudart";
    /// the driver sees no GPU
    GpuMissing "gpu-missing" Device Fail Node;
    /// CUDA shows fewer GPUs than the manifest's `gpus`, or more than it accepts
    GpuCount "gpu-count" Device Fail Node "warn where only CUDA_VISIBLE_DEVICES has entries that name no GPU";
    /// a GPU has less free memory than the manifest's `limits.gpu_memory_free`
    GpuMemory "gpu-memory" Device Fail Node "warn where NVML does not say how much is free";
    /// the driver or a GPU answers with an error
    GpuNotReady "gpu-not-ready" Device Fail Node;
    /// a GPU reports a hardware fault or a setting that forbids compute
    GpuUnhealthy "gpu-unhealthy" Device Fail Node;
    /// NVML is missing or unusable, so health and the driver release are not known
    NvmlMissing "nvml-missing" Device Info Node;
    /// CUDA and NVML do not show the same GPUs
    NvmlDiffers "nvml-differs" Device Warn Node;
    /// /dev/shm is small: data loaders with workers die with a bus error
    ShmSmall "shm-small" Device Info Node "fail under the manifest's `limits`";
    /// the limit on locked memory is low: pinned memory and RDMA may fail
    MemlockLow "memlock-low" Device Info Node "fail under the manifest's `limits`";
    /// the process that loads the CUDA libraries ended before its answer
    HelperCrashed "helper-crashed" Device Fail Node;
    /// the process that loads the CUDA libraries did not answer in time
    HelperTimeout "helper-timeout" Device Fail Deadline;
    /// a visible GPU's compute capability is not supported by the list
    ArchUnsupported "arch-unsupported" Arch Fail NodeType;
    /// a visible GPU's compute capability is supported by the list without being on it
    ArchUnlisted "arch-unlisted" Arch Warn NodeType;
    /// a package has no code that this GPU can run
    KernelsUnusable "kernels-unusable" Arch Fail NodeType;
    /// a package could not be imported
    SmokeImport "smoke-import" Smoke Fail Smoke;
    /// a kernel failed
    SmokeForward "smoke-forward" Smoke Fail Smoke;
    /// a kernel's result differs from the reference
    SmokeWrong "smoke-wrong" Smoke Fail Smoke;
    /// the smoke test failed for a reason of the device: out of memory, busy, ECC, fabric
    SmokeDevice "smoke-device" Smoke Fail Node;
    /// the driver refuses a kernel of the image: damaged, for a different architecture, or in newer PTX
    KernelLoad "kernel-load" Smoke Fail Image "exit code 83 where the architecture or the PTX is the reason, 82 where the device is";
    /// spconv compiled a kernel at run time although JIT is to be off
    JitAtRuntime "jit-at-runtime" Smoke Fail Smoke;
    /// the smoke test did not finish in time
    SmokeTimeout "smoke-timeout" Smoke Fail Deadline;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of symptoms names codes that there are.
    #[test]
    fn the_readme_names_findings_that_exist() {
        let readme = include_str!("../../README.md");
        let (_, rest) = readme.split_once("\n## Symptoms\n").unwrap();
        let table = rest.split("\n## ").next().unwrap();
        let rows = table
            .lines()
            .filter_map(|line| line.strip_suffix(" |")?.rsplit_once(" | "));
        let mut count = 0;
        for (_, cell) in rows.filter(|(symptom, _)| !symptom.ends_with("symptom")) {
            let names = cell.split('`').skip(1).step_by(2);
            for name in names.filter(|name| *name != "LD_LIBRARY_PATH" && *name != "---") {
                assert!(
                    Code::all().any(|code| code.name() == name),
                    "{name} is no finding"
                );
                count += 1;
            }
        }
        assert!(count >= 20, "{count}");
    }
}
