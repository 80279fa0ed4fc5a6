//! The Python packages that are known here: one row each, with everything that is particular to the package.
//!
//! A property is what somebody found in the package's own sources, or it is [`Known::Unchecked`]: then nothing is assumed,
//! and whoever finds out fills the row in. How an entry of the smoke imports and computes is in src/smoke/smoke.py
//! and src/smoke/frameworks.py.

use Known::{Is, No, Unchecked};

/// A property of a package.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known<T> {
    /// the package has it
    Is(T),
    /// the package does not have it
    No,
    /// not looked up: treated as [`Known::No`]
    Unchecked,
}

impl<T: Copy> Known<T> {
    /// What is known to be there.
    pub fn get(self) -> Option<T> {
        match self {
            Is(value) => Some(value),
            No | Unchecked => None,
        }
    }
}

/// The property alone, without a value.
const YES: Known<()> = Is(());

/// A compiled module below site-packages: its folder, and its name without `.so` or `.cpython-311-x86_64-linux-gnu.so`.
pub type Module = (&'static str, &'static str);

/// One package.
#[derive(Debug)]
pub struct Package {
    /// its distribution, normalised and without a CUDA tag: `spconv` stands for `spconv-cu124` as well
    pub name: &'static str,
    /// other distributions that install the same module
    pub others: &'static [&'static str],
    /// the module's folder in site-packages
    pub folder: &'static str,
    /// the file that states the build's own version, `2.5.0+cu124` where the metadata says `2.5.0`
    pub version_file: Known<&'static str>,
    /// compiled modules that need CUDA's libraries, in the order of their import: the loader is asked about them
    pub modules: Known<&'static [Module]>,
    /// the package that it imports before its own modules
    pub imports_first: Known<&'static str>,
    /// a source build without nvcc is for the CPU alone and does not say so
    pub silent_cpu_build: Known<()>,
    /// the name without a CUDA tag is a build of its own, for the CPU
    pub untagged_build: Known<()>,
    /// pccm compiles it at import where the package looks editable, unless this variable is `1`
    pub pccm: Known<&'static str>,
    /// belongs to a CUDA stack even where no library of it holds CUDA code
    pub family: bool,
    /// its entry of the smoke
    pub smoke: Known<Proof>,
    /// other distributions that hold its CUDA code
    pub kernels_in: &'static [&'static str],
}

/// An entry of the smoke.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proof {
    /// its name in manifests
    pub entry: &'static str,
    /// which process of the smoke it runs in
    pub process: Process,
}

/// The processes of the smoke.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Process {
    /// that of torch, with all that is built on torch: src/smoke/smoke.py
    OfTorch,
    /// one for this entry: src/smoke/frameworks.py
    Own,
}

const fn of_torch(entry: &'static str) -> Known<Proof> {
    let process = Process::OfTorch;
    Is(Proof { entry, process })
}

const fn of_its_own(entry: &'static str) -> Known<Proof> {
    let process = Process::Own;
    Is(Proof { entry, process })
}

/// A package with an entry of the smoke of which little else is known.
const FRAMEWORK: Package = Package {
    name: "",
    others: &[],
    folder: "",
    version_file: Unchecked,
    modules: Unchecked,
    imports_first: No,
    silent_cpu_build: Unchecked,
    untagged_build: No,
    pccm: No,
    family: false,
    smoke: No,
    kernels_in: &[],
};

/// Every known package; those with an entry of the smoke in the order of the documentation.
pub static PACKAGES: &[Package] = &[
    Package {
        name: "torch",
        others: &[],
        folder: "torch",
        version_file: Is("torch/version.py"),
        // torch/__init__.py, `_load_global_deps`: its global dependencies come before anything else.
        modules: Is(&[
            ("torch/lib", "libtorch_global_deps"),
            ("torch/lib", "libtorch_python"),
            ("torch", "_C"),
        ]),
        imports_first: No,
        // Its version says +cpu.
        silent_cpu_build: No,
        untagged_build: No,
        pccm: No,
        family: true,
        smoke: of_torch("torch"),
        kernels_in: &[],
    },
    Package {
        name: "cumm",
        others: &[],
        folder: "cumm",
        version_file: No,
        modules: Is(&[("cumm", "core_cc")]),
        imports_first: No,
        silent_cpu_build: Unchecked,
        untagged_build: YES,
        pccm: Is("CUMM_DISABLE_JIT"),
        family: true,
        smoke: No,
        kernels_in: &[],
    },
    Package {
        name: "spconv",
        others: &[],
        folder: "spconv",
        version_file: No,
        modules: Is(&[("spconv", "core_cc")]),
        imports_first: Is("cumm"),
        silent_cpu_build: Unchecked,
        untagged_build: YES,
        pccm: Is("SPCONV_DISABLE_JIT"),
        family: true,
        smoke: of_torch("spconv"),
        kernels_in: &[],
    },
    Package {
        name: "torchvision",
        others: &[],
        folder: "torchvision",
        version_file: Is("torchvision/version.py"),
        modules: Is(&[("torchvision", "_C")]),
        imports_first: No,
        silent_cpu_build: Unchecked,
        untagged_build: No,
        pccm: No,
        family: true,
        smoke: of_torch("torchvision"),
        kernels_in: &[],
    },
    Package {
        name: "torch-scatter",
        others: &[],
        folder: "torch_scatter",
        version_file: No,
        // One of three that need the same libraries.
        modules: Is(&[("torch_scatter", "_scatter_cuda")]),
        imports_first: No,
        silent_cpu_build: YES,
        untagged_build: No,
        pccm: No,
        family: true,
        smoke: of_torch("torch-scatter"),
        kernels_in: &[],
    },
    Package {
        name: "mmcv",
        others: &["mmcv-full", "mmcv-lite"],
        folder: "mmcv",
        version_file: Is("mmcv/version.py"),
        modules: Is(&[("mmcv", "_ext")]),
        imports_first: No,
        silent_cpu_build: YES,
        untagged_build: No,
        pccm: No,
        family: true,
        smoke: of_torch("mmcv"),
        kernels_in: &[],
    },
    Package {
        name: "flash-attn",
        others: &[],
        folder: "flash_attn",
        // The metadata of its wheels names the CUDA of the build.
        version_file: No,
        // Beside the package, for this very interpreter.
        modules: Is(&[("", "flash_attn_2_cuda")]),
        imports_first: No,
        // Without nvcc its build fails.
        silent_cpu_build: No,
        untagged_build: No,
        pccm: No,
        family: true,
        smoke: of_torch("flash-attn"),
        kernels_in: &[],
    },
    Package {
        name: "triton",
        others: &[],
        folder: "triton",
        version_file: No,
        modules: Unchecked,
        imports_first: No,
        silent_cpu_build: No,
        untagged_build: No,
        pccm: No,
        family: true,
        smoke: of_torch("triton"),
        kernels_in: &[],
    },
    Package {
        name: "xformers",
        folder: "xformers",
        version_file: Is("xformers/version.py"),
        smoke: of_torch("xformers"),
        ..FRAMEWORK
    },
    Package {
        name: "bitsandbytes",
        folder: "bitsandbytes",
        smoke: of_torch("bitsandbytes"),
        ..FRAMEWORK
    },
    Package {
        name: "jax",
        folder: "jax",
        smoke: of_its_own("jax"),
        kernels_in: &[
            "jax-cuda12-plugin",
            "jax-cuda12-pjrt",
            "jax-cuda13-plugin",
            "jax-cuda13-pjrt",
        ],
        ..FRAMEWORK
    },
    Package {
        name: "cupy",
        folder: "cupy",
        smoke: of_its_own("cupy"),
        ..FRAMEWORK
    },
    Package {
        name: "tensorflow",
        folder: "tensorflow",
        smoke: of_its_own("tensorflow"),
        ..FRAMEWORK
    },
    Package {
        name: "onnxruntime-gpu",
        others: &[],
        folder: "onnxruntime",
        version_file: No,
        // Loaded with the first session that asks for CUDA; where that fails, onnxruntime goes on with the CPU.
        modules: Is(&[("onnxruntime/capi", "libonnxruntime_providers_cuda")]),
        imports_first: No,
        silent_cpu_build: No,
        untagged_build: No,
        pccm: No,
        family: true,
        smoke: of_its_own("onnxruntime"),
        kernels_in: &[],
    },
    Package {
        name: "torch-sparse",
        others: &[],
        folder: "torch_sparse",
        version_file: No,
        // Of ten that need the same libraries; before 0.6.13 they had no `_cuda` in their names.
        modules: Is(&[("torch_sparse", "_spmm_cuda")]),
        // By `torch.ops.load_library`, before any other import of its own.
        imports_first: No,
        silent_cpu_build: YES,
        untagged_build: No,
        pccm: No,
        family: true,
        smoke: No,
        kernels_in: &[],
    },
    Package {
        name: "torch-cluster",
        others: &[],
        folder: "torch_cluster",
        version_file: No,
        modules: Is(&[("torch_cluster", "_radius_cuda")]),
        imports_first: No,
        silent_cpu_build: YES,
        untagged_build: No,
        pccm: No,
        family: true,
        smoke: No,
        kernels_in: &[],
    },
    Package {
        name: "torch-spline-conv",
        others: &[],
        folder: "torch_spline_conv",
        version_file: No,
        modules: Is(&[("torch_spline_conv", "_basis_cuda")]),
        imports_first: No,
        silent_cpu_build: YES,
        untagged_build: No,
        pccm: No,
        family: true,
        smoke: No,
        kernels_in: &[],
    },
    Package {
        name: "torchaudio",
        others: &[],
        folder: "torchaudio",
        version_file: Is("torchaudio/version.py"),
        modules: Unchecked,
        imports_first: No,
        silent_cpu_build: Unchecked,
        untagged_build: No,
        pccm: No,
        family: true,
        smoke: No,
        kernels_in: &[],
    },
    Package {
        name: "torchtext",
        others: &[],
        folder: "torchtext",
        version_file: Is("torchtext/version.py"),
        modules: No,
        imports_first: No,
        silent_cpu_build: No,
        untagged_build: No,
        pccm: No,
        family: true,
        smoke: No,
        kernels_in: &[],
    },
    Package {
        name: "mmdet3d",
        others: &[],
        folder: "mmdet3d",
        version_file: Is("mmdet3d/version.py"),
        modules: Unchecked,
        imports_first: No,
        silent_cpu_build: Unchecked,
        untagged_build: No,
        pccm: No,
        family: false,
        smoke: No,
        kernels_in: &[],
    },
];

/// Packages that use numpy's C API, with the first release whose wheels are built for numpy 2; older ones fail beside it.
///
/// Their extensions say it: built for numpy 1 they hold "module compiled against ABI version" alone, built for numpy 2 also
/// "module was compiled against NumPy C-API version". Looked up in the wheels of these releases and of the ones before.
pub static BUILT_FOR_NUMPY_2: &[(&str, &str)] = &[
    ("torch", "2.3.0"),
    ("onnxruntime", "1.19.0"),
    ("onnxruntime-gpu", "1.19.0"),
    ("opencv-python", "4.10.0.84"),
    ("opencv-python-headless", "4.10.0.84"),
    ("opencv-contrib-python", "4.10.0.84"),
    ("opencv-contrib-python-headless", "4.10.0.84"),
    ("scikit-learn", "1.4.2"),
    ("pandas", "2.2.2"),
    ("scipy", "1.13.0"),
    ("h5py", "3.11.0"),
    ("numba", "0.60.0"),
    ("pyarrow", "16.0.0"),
    ("faiss-cpu", "1.9.0"),
];

/// Whether a distribution brings JAX its CUDA or ROCm: `jax-cuda12-plugin`.
pub fn is_jax_plugin(name: &str) -> bool {
    name.starts_with("jax-") && name.contains("-plugin")
}

/// A package that opens CUDA's libraries by dlopen, and goes on with the CPU where one is missing.
#[derive(Debug)]
pub struct Opener {
    /// its distribution
    pub name: &'static str,
    /// its extra that requires NVIDIA's wheels, and so says which releases it opens
    pub extra: &'static str,
    /// a manifest that names one of these means it as well
    pub part_of: &'static [&'static str],
    /// its file that describes the build, and what stands in it where that is for the CPU alone
    pub cpu_build: Known<(&'static str, &'static str)>,
    /// its library that calls dlopen: the loader looks into the RUNPATH of this one, and of no other
    pub caller: Known<&'static str>,
    /// without any of these it does not use a GPU: NVIDIA's wheel without its CUDA tag, and the beginning of the SONAME
    pub opens: &'static [(&'static str, &'static str)],
}

/// What JAX asks of each plug-in before it uses a GPU: jax/_src/xla_bridge.py and jax_plugins/xla_cuda12/__init__.py,
/// "Unable to load cuSPARSE. Is it installed?".
const OF_JAX: &[(&str, &str)] = &[
    ("nvidia-cublas", "libcublas"),
    ("nvidia-cuda-cupti", "libcupti"),
    ("nvidia-cudnn", "libcudnn"),
    ("nvidia-cufft", "libcufft"),
    ("nvidia-cusolver", "libcusolver"),
    ("nvidia-cusparse", "libcusparse"),
];

const fn jax_plugin(name: &'static str) -> Opener {
    Opener {
        name,
        extra: "with-cuda",
        part_of: &["jax", "jaxlib"],
        cpu_build: No,
        caller: No,
        opens: OF_JAX,
    }
}

/// Those of which it is known.
pub static OPENERS: &[Opener] = &[
    // tsl/platform/default/dso_loader.cc, `MaybeTryDlopenGPULibraries`: "Cannot dlopen some GPU libraries. Skipping
    // registering GPU devices" with the first one that is missing.
    Opener {
        name: "tensorflow",
        extra: "and-cuda",
        part_of: &[],
        cpu_build: Is((
            "tensorflow/python/platform/build_info.py",
            "('is_cuda_build', False)",
        )),
        // That of 2.21.0 leads to every wheel but cuSOLVER's.
        caller: Is("tensorflow/libtensorflow_framework.so.2"),
        opens: &[
            ("nvidia-cuda-runtime", "libcudart"),
            ("nvidia-cublas", "libcublas"),
            ("nvidia-cufft", "libcufft"),
            ("nvidia-cusolver", "libcusolver"),
            ("nvidia-cusparse", "libcusparse"),
            ("nvidia-cudnn", "libcudnn"),
        ],
    },
    jax_plugin("jax-cuda12-plugin"),
    jax_plugin("jax-cuda13-plugin"),
];

/// What a distribution opens by dlopen.
pub fn opener(distribution: &str) -> Option<&'static Opener> {
    OPENERS.iter().find(|opener| opener.name == distribution)
}

impl Opener {
    /// Whether a manifest that names these packages means it.
    pub fn is_meant(&self, names: &[&str]) -> bool {
        let all = || std::iter::once(self.name).chain(self.part_of.iter().copied());
        names.iter().any(|name| all().any(|own| own == *name))
    }
}

impl Package {
    /// Its distributions, without CUDA tags.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.others.iter().copied())
    }
}

/// The package that a distribution's normalised name stands for, with a CUDA tag or without.
pub fn of(distribution: &str) -> Option<&'static Package> {
    let find = |name: &str| PACKAGES.iter().find(|package| package.names().any(|n| n == name));
    find(distribution).or_else(|| find(untagged(distribution)?))
}

/// The packages that pccm may compile, by their names and the variables that keep it from that.
pub fn compiled_by_pccm() -> impl Iterator<Item = (&'static str, &'static str)> {
    PACKAGES.iter().filter_map(|p| Some((p.name, p.pccm.get()?)))
}

/// The package that an entry of the smoke proves.
pub fn proven_by(entry: &str) -> Option<&'static Package> {
    let mut all = PACKAGES.iter();
    all.find(|package| package.smoke.get().is_some_and(|proof| proof.entry == entry))
}

/// `spconv` of `spconv-cu124`, `cupy` of `cupy-cuda12x`; `None` where the name has no such end.
pub fn untagged(name: &str) -> Option<&str> {
    let (stem, tag) = name.rsplit_once('-')?;
    let digits = tag.strip_prefix("cuda").or_else(|| tag.strip_prefix("cu"))?;
    let digits = digits.strip_suffix('x').unwrap_or(digits);
    (!stem.is_empty() && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then_some(stem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_name_stands_for_one_package() {
        let names: Vec<&str> = PACKAGES.iter().flat_map(Package::names).collect();
        let distinct: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(names.len(), distinct.len());
        for (distribution, package) in [
            ("torch", Some("torch")),
            ("spconv-cu124", Some("spconv")),
            ("mmcv-full", Some("mmcv")),
            ("torch-geometric", None),
            ("cupy-cuda12x", Some("cupy")),
            ("jax-cuda12-plugin", None),
        ] {
            assert_eq!(of(distribution).map(|p| p.name), package, "{distribution}");
        }
    }

    /// What a row names lies in the package, and what it imports first is known as well.
    #[test]
    fn rows_agree_with_themselves() {
        for package in PACKAGES {
            let inside = |path: &str| path.split('/').next() == Some(package.folder);
            assert!(package.version_file.get().is_none_or(inside), "{}", package.name);
            assert!(
                package
                    .imports_first
                    .get()
                    .is_none_or(|first| of(first).is_some())
            );
        }
    }

    /// An entry of the smoke has a row here and one in the Python program of its process.
    #[test]
    fn the_smoke_has_the_same_entries() {
        for (file, begin, indent, process) in [
            ("smoke.py", "\nENTRIES = {\n", "    \"", Process::OfTorch),
            ("frameworks.py", "\n    return {\n", "        \"", Process::Own),
        ] {
            let script = crate::packed::python(file);
            let (_, table) = script.split_once(begin).unwrap();
            let (table, _) = table.split_once("}\n").unwrap();
            let keys = table.lines().filter_map(|line| line.strip_prefix(indent));
            let keys: Vec<&str> = keys
                .filter_map(|rest| Some(rest.split_once("\": Entry(")?.0))
                .collect();
            let proofs = PACKAGES.iter().filter_map(|p| p.smoke.get());
            let rows: Vec<&str> = proofs.filter(|p| p.process == process).map(|p| p.entry).collect();
            assert_eq!(keys, rows);
        }
    }

    #[test]
    fn names_without_their_cuda_tag() {
        for (name, stem) in [
            ("spconv-cu124", Some("spconv")),
            ("cupy-cuda12x", Some("cupy")),
            ("nvidia-cublas-cu12", Some("nvidia-cublas")),
            ("torch", None),
            ("x-cu", None),
            ("x-custom", None),
            ("cu124", None),
            ("-cu12", None),
        ] {
            assert_eq!(untagged(name), stem, "{name}");
        }
    }
}
