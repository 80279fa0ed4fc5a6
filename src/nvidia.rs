//! NVIDIA's libraries: which wheel of PyPI and which package of conda-forge brings a file. A hint names what exists.
//!
//! Up to CUDA 12 a wheel's name ends in its CUDA (`nvidia-cublas-cu12`). Since CUDA 13 those of the toolkit have no suffix
//! (`nvidia-cublas`), and `nvidia-cublas-cu13` is a stub of version 0.0.1; cuDNN, NCCL, NVSHMEM and cuSPARSELt keep it,
//! and `nvidia-cudnn` without one is a fake package. Looked up on PyPI.

/// One wheel.
#[derive(Debug, PartialEq, Eq)]
pub struct NvidiaWheel {
    /// the beginnings of its libraries' names
    stems: &'static [&'static str],
    /// its name without a CUDA tag
    pub wheel: &'static str,
    /// it has a CUDA tag for CUDA 13 as well
    is_tagged: bool,
    /// it has no CUDA tag for any CUDA
    is_plain: bool,
    /// the runtime images of CUDA have its libraries as well
    pub in_images: bool,
    /// the oldest CUDA that it is there for
    since: u16,
    /// what conda-forge calls it; empty where it does not have it
    pub conda: &'static str,
    /// numbers of its SONAMEs, each with the CUDA that it says
    sonames: &'static [(u16, u16)],
    /// numbers of its SONAMEs that several CUDAs have, each with the first and the last of them
    shared: &'static [(u16, u16, u16)],
}

const TOOLKIT: NvidiaWheel = NvidiaWheel {
    stems: &[],
    wheel: "",
    is_tagged: false,
    is_plain: false,
    in_images: true,
    since: 11,
    conda: "",
    sonames: &[],
    shared: &[],
};
const SAME: &[(u16, u16)] = &[(11, 11), (12, 12), (13, 13)];

// What begins like another one comes before it.
static WHEELS: &[NvidiaWheel] = &[
    NvidiaWheel {
        stems: &["libcudart"],
        wheel: "nvidia-cuda-runtime",
        conda: "cuda-cudart",
        sonames: SAME,
        ..TOOLKIT
    },
    NvidiaWheel {
        stems: &["libnvrtc"],
        wheel: "nvidia-cuda-nvrtc",
        conda: "cuda-nvrtc",
        sonames: SAME,
        ..TOOLKIT
    },
    NvidiaWheel {
        stems: &["libcublas", "libnvblas"],
        wheel: "nvidia-cublas",
        conda: "libcublas",
        sonames: SAME,
        ..TOOLKIT
    },
    NvidiaWheel {
        stems: &["libcufft"],
        wheel: "nvidia-cufft",
        conda: "libcufft",
        sonames: &[(10, 11), (11, 12), (12, 13)],
        ..TOOLKIT
    },
    NvidiaWheel {
        stems: &["libcurand"],
        wheel: "nvidia-curand",
        conda: "libcurand",
        ..TOOLKIT
    },
    NvidiaWheel {
        stems: &["libcusolver"],
        wheel: "nvidia-cusolver",
        conda: "libcusolver",
        sonames: &[(12, 13)],
        shared: &[(11, 11, 12)],
        ..TOOLKIT
    },
    NvidiaWheel {
        stems: &["libcusparseLt"],
        wheel: "nvidia-cusparselt",
        is_tagged: true,
        since: 12,
        conda: "cusparselt",
        ..TOOLKIT
    },
    NvidiaWheel {
        stems: &["libcusparse"],
        wheel: "nvidia-cusparse",
        conda: "libcusparse",
        sonames: &[(11, 11)],
        shared: &[(12, 12, 13)],
        ..TOOLKIT
    },
    NvidiaWheel {
        stems: &["libnvJitLink"],
        wheel: "nvidia-nvjitlink",
        since: 12,
        conda: "libnvjitlink",
        sonames: SAME,
        ..TOOLKIT
    },
    NvidiaWheel {
        stems: &["libcufile"],
        wheel: "nvidia-cufile",
        since: 12,
        conda: "libcufile",
        ..TOOLKIT
    },
    NvidiaWheel {
        stems: &["libcupti", "libnvperf"],
        wheel: "nvidia-cuda-cupti",
        conda: "cuda-cupti",
        sonames: SAME,
        ..TOOLKIT
    },
    NvidiaWheel {
        stems: &["libnvToolsExt", "libnvtx"],
        wheel: "nvidia-nvtx",
        conda: "cuda-nvtx",
        ..TOOLKIT
    },
    NvidiaWheel {
        stems: &["libcudnn"],
        wheel: "nvidia-cudnn",
        is_tagged: true,
        conda: "cudnn",
        ..TOOLKIT
    },
    NvidiaWheel {
        stems: &["libnccl"],
        wheel: "nvidia-nccl",
        is_tagged: true,
        conda: "nccl",
        ..TOOLKIT
    },
    NvidiaWheel {
        stems: &["libnvshmem"],
        wheel: "nvidia-nvshmem",
        is_tagged: true,
        conda: "libnvshmem3",
        ..TOOLKIT
    },
    NvidiaWheel {
        stems: &["libnvjpeg."],
        wheel: "nvidia-nvjpeg",
        conda: "libnvjpeg",
        sonames: SAME,
        ..TOOLKIT
    },
    NvidiaWheel {
        stems: &["libnpp"],
        wheel: "nvidia-npp",
        conda: "libnpp",
        sonames: SAME,
        ..TOOLKIT
    },
    NvidiaWheel {
        stems: &["libcudss"],
        wheel: "nvidia-cudss",
        is_tagged: true,
        in_images: false,
        since: 12,
        conda: "libcudss",
        ..TOOLKIT
    },
    // cuQuantum and cuTENSOR are not called nvidia-*.
    NvidiaWheel {
        stems: &["libcutensornet"],
        wheel: "cutensornet",
        is_tagged: true,
        in_images: false,
        conda: "cutensornet",
        ..TOOLKIT
    },
    NvidiaWheel {
        stems: &["libcutensor"],
        wheel: "cutensor",
        is_tagged: true,
        in_images: false,
        conda: "cutensor",
        ..TOOLKIT
    },
    NvidiaWheel {
        stems: &["libcustatevec"],
        wheel: "custatevec",
        is_tagged: true,
        in_images: false,
        conda: "custatevec",
        ..TOOLKIT
    },
    // The wheels of TensorRT 8 have no CUDA in their names.
    NvidiaWheel {
        stems: &[
            "libnvinfer.so.8",
            "libnvinfer_plugin.so.8",
            "libnvonnxparser.so.8",
            "libnvparsers.so",
        ],
        wheel: "tensorrt",
        is_plain: true,
        in_images: false,
        ..TOOLKIT
    },
    NvidiaWheel {
        stems: &["libnvinfer", "libnvonnxparser"],
        wheel: "tensorrt",
        is_tagged: true,
        in_images: false,
        ..TOOLKIT
    },
];

impl NvidiaWheel {
    /// The wheel that brings a library, by its file's name or SONAME.
    pub fn of_library(name: &str) -> Option<&'static Self> {
        let brings = |row: &&NvidiaWheel| row.stems.iter().any(|stem| name.starts_with(stem));
        WHEELS.iter().find(brings)
    }

    /// The row of a wheel, with a CUDA tag or without.
    pub fn of_distribution(name: &str) -> Option<&'static Self> {
        let base = crate::packages::untagged(name).unwrap_or(name);
        WHEELS.iter().find(|row| row.wheel == base)
    }

    /// The wheel's name for a major version of CUDA; `None` where there is no such wheel.
    pub fn name(&self, cuda: u16) -> Option<String> {
        match cuda {
            _ if self.is_plain => Some(self.wheel.to_string()),
            ..11 => None,
            _ if cuda < self.since => None,
            13.. if !self.is_tagged => Some(self.wheel.to_string()),
            _ => Some(format!("{}-cu{cuda}", self.wheel)),
        }
    }

    /// Part of the CUDA toolkit; the others are released by themselves, and packages go without most of them.
    pub fn is_toolkits(&self) -> bool {
        !self.is_tagged && !self.is_plain
    }

    /// The name by which `cuda-toolkit[…]` brings it.
    pub fn extra_of_toolkit(&self) -> &'static str {
        match self.wheel {
            "nvidia-cuda-runtime" => "cudart",
            other => other
                .strip_prefix("nvidia-")
                .map_or(other, |part| part.strip_prefix("cuda-").unwrap_or(part)),
        }
    }

    /// The row that an extra of `cuda-toolkit` brings.
    pub fn of_extra(name: &str) -> Option<&'static Self> {
        let mut toolkits = WHEELS.iter().filter(|row| row.is_toolkits());
        toolkits.find(|row| row.extra_of_toolkit() == name)
    }

    /// What its wheel requires, by the wheels' names without a CUDA tag.
    pub fn requires(&self) -> &'static [&'static str] {
        match self.wheel {
            "nvidia-cudnn" => &["nvidia-cublas"],
            "nvidia-cusolver" => &["nvidia-cublas", "nvidia-cusparse", "nvidia-nvjitlink"],
            "nvidia-cufft" | "nvidia-cusparse" => &["nvidia-nvjitlink"],
            _ => &[],
        }
    }

    /// The nearest CUDA to this one that has a library of this SONAME: there is no libcusolver.so.11 for CUDA 13.
    pub fn nearest(&self, soname: &str, cuda: u16) -> u16 {
        let number = number_of(soname);
        let mut shared = self.shared.iter();
        let row = shared.find(|(of, _, _)| Some(*of) == number);
        row.map_or(cuda, |(_, first, last)| cuda.clamp(*first, *last))
    }

    /// The CUDA that a SONAME says: `libcufft.so.11` is CUDA 12's. `None` where several have it.
    pub fn cuda_of(&self, soname: &str) -> Option<u16> {
        let number = number_of(soname)?;
        let row = self.sonames.iter().find(|(of, _)| *of == number)?;
        Some(row.1)
    }
}

/// The first number of a SONAME: 11 of `libcusolver.so.11`.
fn number_of(soname: &str) -> Option<u16> {
    let (_, version) = soname.split_once(".so.")?;
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As PyPI has them.
    #[test]
    fn wheels_that_exist() {
        for (library, cuda, wheel) in [
            ("libnvrtc.so.11.2", 11, Some("nvidia-cuda-nvrtc-cu11")),
            ("libnvrtc-builtins.so.12.4", 12, Some("nvidia-cuda-nvrtc-cu12")),
            ("libnvrtc.so.13", 13, Some("nvidia-cuda-nvrtc")),
            ("libcudart.so.13", 13, Some("nvidia-cuda-runtime")),
            ("libcublasLt.so.12", 12, Some("nvidia-cublas-cu12")),
            ("libcusparse.so.12", 13, Some("nvidia-cusparse")),
            ("libcusparseLt.so.0", 13, Some("nvidia-cusparselt-cu13")),
            ("libcusparseLt.so.0", 11, None),
            ("libnvJitLink.so.12", 11, None),
            ("libcudnn_graph.so.9", 13, Some("nvidia-cudnn-cu13")),
            ("libnccl.so.2", 14, Some("nvidia-nccl-cu14")),
            ("libnvinfer.so.10", 12, Some("tensorrt-cu12")),
            ("libnvinfer_plugin.so.10", 13, Some("tensorrt-cu13")),
            ("libnvonnxparser.so.10", 12, Some("tensorrt-cu12")),
            ("libnvinfer.so.8", 12, Some("tensorrt")),
            ("libnvjpeg.so.12", 12, Some("nvidia-nvjpeg-cu12")),
            ("libnppif.so.13", 13, Some("nvidia-npp")),
            ("libcutensor.so.2", 12, Some("cutensor-cu12")),
            ("libcutensornet.so.2", 12, Some("cutensornet-cu12")),
            ("libcustatevec.so.1", 13, Some("custatevec-cu13")),
            ("libcudss.so.0", 12, Some("nvidia-cudss-cu12")),
            ("libcudss.so.0", 11, None),
            ("libcudart.so.10.2", 10, None),
        ] {
            let row = NvidiaWheel::of_library(library).unwrap();
            assert_eq!(row.name(cuda).as_deref(), wheel, "{library} {cuda}");
        }
        for other in [
            "libcuda.so.1",
            "libc10.so",
            "libnvidia-ml.so.1",
            "libnvjpeg2k.so.0",
            "",
        ] {
            assert_eq!(NvidiaWheel::of_library(other), None, "{other}");
        }
    }

    #[test]
    fn the_cuda_that_a_soname_says() {
        for (soname, cuda) in [
            ("libcudart.so.11.0", Some(11)),
            ("libcublas.so.13", Some(13)),
            ("libcufft.so.11", Some(12)),
            ("libcusolver.so.11", None),
            ("libcurand.so.10", None),
            ("libcudnn.so.9", None),
            ("libcudart.so", None),
        ] {
            let row = NvidiaWheel::of_library(soname).unwrap();
            assert_eq!(row.cuda_of(soname), cuda, "{soname}");
        }
    }

    #[test]
    fn what_several_cudas_have_is_of_one_of_these() {
        for (soname, cuda, nearest) in [
            ("libcusolver.so.11", 13, 12),
            ("libcusolver.so.11", 11, 11),
            ("libcusparse.so.12", 11, 12),
            ("libcusparse.so.12", 13, 13),
            ("libcurand.so.10", 13, 13),
        ] {
            let row = NvidiaWheel::of_library(soname).unwrap();
            assert_eq!(row.nearest(soname, cuda), nearest, "{soname}");
        }
    }

    #[test]
    fn extras_of_cuda_toolkit() {
        for (library, extra) in [
            ("libcudart.so.12", "cudart"),
            ("libnvrtc.so.12", "nvrtc"),
            ("libcupti.so.12", "cupti"),
            ("libcublasLt.so.12", "cublas"),
            ("libnvJitLink.so.12", "nvjitlink"),
        ] {
            let row = NvidiaWheel::of_library(library).unwrap();
            assert_eq!(row.extra_of_toolkit(), extra, "{library}");
            assert!(row.is_toolkits());
        }
        for library in ["libnccl.so.2", "libcutensor.so.2", "libnvinfer.so.8"] {
            assert!(
                !NvidiaWheel::of_library(library).unwrap().is_toolkits(),
                "{library}"
            );
        }
    }

    #[test]
    fn rows_by_the_names_of_wheels() {
        for name in ["nvidia-cudnn-cu12", "nvidia-cublas", "nvidia-cublas-cu12"] {
            assert!(NvidiaWheel::of_distribution(name).is_some(), "{name}");
        }
        assert_eq!(NvidiaWheel::of_distribution("torch"), None);
    }

    /// The libraries that are asked for their versions name the same wheels.
    #[test]
    fn the_table_of_libraries_agrees() {
        for kind in crate::facts::LibraryKind::ALL {
            let row = NvidiaWheel::of_library(&format!("{}.so.1", kind.row().stem));
            assert_eq!(row.map(|row| row.wheel), Some(kind.row().wheel));
        }
    }
}
