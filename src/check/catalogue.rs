//! The catalogue of findings: one row a code. `explain` prints the page beside it, src/check/explain/CODE.md.

use super::{Severity, Stage};

/// Declares the codes.
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
        pub fn explain(code: Code) -> String {
            // A test sees to it that every code has a page.
            crate::packed::page(code.name()).unwrap_or_else(|| format!("# {code}\n\n{}\n", code.summary()))
        }
    };
}

catalogue! {
    /// packages, files or a Python smoke are asked for and no interpreter or site-packages is found
    PythonMissing "python-missing" Image Fail 81;
    /// the interpreter is not the version that the manifest asks for, or wheels are for another interpreter or platform
    PythonVersion "python-version" Image Fail 81;
    /// a package of the manifest is not installed
    PackageMissing "package-missing" Image Fail 81;
    /// a package is installed in another version than the manifest's
    PackageVersion "package-version" Image Fail 81;
    /// libraries or modules that a package's RECORD lists are not there
    PackageIncomplete "package-incomplete" Image Fail 81;
    /// a package is built for another CUDA
    PackageCudaTag "package-cuda-tag" Image Fail 81;
    /// two builds of one import name, two dist-infos of one name, or an earlier folder with a package's name
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A page is found by its heading, agrees with the row above, fits a terminal, and says all that a person needs.
    #[test]
    fn every_page_agrees_with_its_row() {
        for code in Code::all() {
            let page = explain(code);
            assert!(
                page.starts_with(&format!("# {}\n\n", code.name())),
                "{code}: heading"
            );
            let facts = page
                .lines()
                .find(|line| line.starts_with("Stage: "))
                .unwrap_or_else(|| panic!("{code}: no line `Stage: ...`"));
            let paragraph = page
                .split("\n\n")
                .find(|p| p.starts_with("Stage: "))
                .unwrap()
                .replace('\n', " ");
            let severity = format!("{:?}", code.severity()).to_lowercase();
            assert!(
                facts.starts_with(&format!("Stage: {}. Default: {severity}", code.stage().name())),
                "{code}: {facts}"
            );
            assert!(
                paragraph.contains(&format!(" Exit code: {} (", code.exit_code())),
                "{code}: {paragraph}"
            );
            for part in [
                "**Why it matters.**",
                "**What was compared.**",
                "**How to mend it.**",
                "**If it is wrong.**",
            ] {
                assert_eq!(page.matches(part).count(), 1, "{code}: {part}");
            }
            assert!(
                page.contains(&format!("--allow {code}")) || page.contains(&format!("--deny {code}")),
                "{code}"
            );
            assert!(
                (15..=42).contains(&page.lines().count()),
                "{code}: {} lines",
                page.lines().count()
            );
            for line in page.lines() {
                assert!(line.chars().count() <= 100, "{code}: {line}");
            }
            assert_eq!(
                page.matches("```").count() % 2,
                0,
                "{code}: a fence is not closed"
            );
        }
    }

    /// `explain OTHER` and names in backquotes lead somewhere.
    #[test]
    fn pages_name_codes_that_exist() {
        for code in Code::all() {
            for rest in explain(code).split("`explain ").skip(1) {
                let name = rest.split('`').next().unwrap();
                assert!(name.parse::<Code>().is_ok(), "{code}: explain {name}");
            }
            for option in ["--allow ", "--warn ", "--deny "] {
                for rest in explain(code).split(option).skip(1) {
                    assert!(rest.starts_with(code.name()), "{code}: {option}{rest:.30}");
                }
            }
        }
    }
}
