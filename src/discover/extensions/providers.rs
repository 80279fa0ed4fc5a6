//! Whose a symbol is, by its name.

/// A framework, or a library of CUDA's.
#[derive(Debug)]
pub struct Provider {
    /// as it is called: the framework, or the stem of the library's name
    pub name: &'static str,
    /// the framework's folder in site-packages: whatever its libraries define counts. A library of CUDA's has none.
    pub folder: Option<&'static str>,
    /// how the names of its libraries begin
    libraries: &'static [&'static str],
    /// its C++ namespaces, as a mangled name has them
    namespaces: &'static [&'static str],
    /// how its C symbols begin; an upper case letter, a digit or an underscore follows
    prefixes: &'static [&'static str],
}

const fn cuda(
    name: &'static str,
    libraries: &'static [&'static str],
    prefixes: &'static [&'static str],
) -> Provider {
    Provider {
        name,
        folder: None,
        libraries,
        namespaces: &[],
        prefixes,
    }
}

/// The namespaces are those of the frameworks' headers for extensions. NVIDIA's prefixes are the ones that the references of
/// its libraries promise; `__cuda…` and `__nvJitLink…` stand in code that nvcc writes and in the libraries themselves.
static PROVIDERS: [Provider; 20] = [
    Provider {
        name: "torch",
        folder: Some("torch"),
        libraries: &["libtorch", "libc10"],
        namespaces: &["2at", "3c10", "5torch", "6caffe2"],
        // The stable interface for C, and Python's.
        prefixes: &["aoti_torch", "THP"],
    },
    Provider {
        name: "tensorflow",
        folder: Some("tensorflow"),
        libraries: &["libtensorflow_framework", "libtensorflow_cc"],
        namespaces: &["10tensorflow", "3tsl"],
        prefixes: &["TF"],
    },
    Provider {
        name: "paddle",
        folder: Some("paddle"),
        libraries: &["libpaddle", "libphi"],
        namespaces: &["6paddle", "3phi"],
        prefixes: &[],
    },
    cuda("libcudart", &["libcudart"], &["cuda", "__cuda"]),
    cuda("libcublas", &["libcublas"], &["cublas", "cublasLt"]),
    cuda("libcudnn", &["libcudnn"], &["cudnn"]),
    cuda("libcufft", &["libcufft"], &["cufft"]),
    cuda("libcurand", &["libcurand"], &["curand"]),
    cuda("libcusolver", &["libcusolver"], &["cusolver"]),
    cuda("libcusparse", &["libcusparse"], &["cusparse"]),
    cuda("libnccl", &["libnccl"], &["nccl", "pnccl"]),
    cuda("libnvrtc", &["libnvrtc"], &["nvrtc"]),
    cuda("libnvJitLink", &["libnvJitLink"], &["nvJitLink", "__nvJitLink"]),
    cuda("libcupti", &["libcupti"], &["cupti"]),
    // Of these it only counts whether they are there.
    cuda("libnvinfer", &["libnvinfer"], &[]),
    cuda("libcutensor", &["libcutensor"], &[]),
    cuda("libcudss", &["libcudss"], &[]),
    cuda("libnvshmem", &["libnvshmem"], &[]),
    cuda("libnvjpeg", &["libnvjpeg"], &[]),
    cuda("libnpp", &["libnpp"], &[]),
];

impl Provider {
    /// Whether it is this library.
    pub fn is_library(&self, soname: &str) -> bool {
        self.libraries.iter().any(|start| soname.starts_with(start))
    }
}

/// Whether a folder in site-packages is a framework's.
pub fn is_framework(folder: &str) -> bool {
    PROVIDERS.iter().any(|provider| provider.folder == Some(folder))
}

/// Whether a library is some provider's.
pub fn is_provided(soname: &str) -> bool {
    PROVIDERS.iter().any(|provider| provider.is_library(soname))
}

/// The providers that a library needs one of these for.
pub fn of_libraries(sonames: &[String]) -> impl Iterator<Item = &'static Provider> {
    let is_needed = |provider: &&Provider| sonames.iter().any(|name| provider.is_library(name));
    PROVIDERS.iter().filter(is_needed)
}

/// The place among `providers` of the one whose a symbol is.
pub fn of_symbol(symbol: &str, mut providers: impl Iterator<Item = &'static Provider>) -> Option<usize> {
    if symbol.starts_with("_Z") {
        let scope = scope(symbol)?;
        return providers.position(|provider| provider.namespaces.iter().any(|name| scope.starts_with(name)));
    }
    let is_prefix = |prefix: &&str| {
        let next = symbol.strip_prefix(*prefix).and_then(|rest| rest.bytes().next());
        next.is_some_and(|c| c.is_ascii_uppercase() || c == b'_' || c.is_ascii_digit())
    };
    providers.position(|provider| provider.prefixes.iter().any(is_prefix))
}

/// A mangled name from its first namespace on: `3c105ErrorC2…` of `_ZN3c105ErrorC2…`, `_ZNK3c10…` and `_ZTVN3c105ErrorE`.
///
/// Source: Itanium C++ ABI, "External Names (a.k.a. Mangling)".
fn scope(symbol: &str) -> Option<&str> {
    let rest = symbol.strip_prefix("_Z")?;
    let special = ["GV", "TV", "TI", "TS", "TT"];
    let rest = special
        .iter()
        .find_map(|word| rest.strip_prefix(word))
        .unwrap_or(rest);
    // Without it the name is in no namespace.
    Some(
        rest.strip_prefix('N')?
            .trim_start_matches(['r', 'V', 'K', 'R', 'O']),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_whose_they_are() {
        for (symbol, provider) in [
            ("_ZN3c106detail14torchCheckFailEPKcS2_jRKSs", Some("torch")),
            ("_ZNK2at10TensorBase4sizeEl", Some("torch")),
            ("_ZTVN5torch8autograd12AutogradMetaE", Some("torch")),
            ("_ZTIN3c105ErrorE", Some("torch")),
            ("aoti_torch_get_dim", Some("torch")),
            ("THPVariableClass", Some("torch")),
            (
                "_ZN10tensorflow8OpKernelC2EPNS_20OpKernelConstructionE",
                Some("tensorflow"),
            ),
            ("TF_NewStatus", Some("tensorflow")),
            ("_ZN3phi11DenseTensorC1Ev", Some("paddle")),
            ("cudaMalloc", Some("libcudart")),
            ("__cudaRegisterFatBinary", Some("libcudart")),
            ("cublasLtMatmul", Some("libcublas")),
            ("cudnnGetVersion", Some("libcudnn")),
            ("ncclCommInitRankScalable", Some("libnccl")),
            ("__nvJitLinkAddData_12_1", Some("libnvJitLink")),
            // Others', and a function of theirs that takes a tensor.
            ("_ZN4mmcv3nmsERKN2at6TensorE", None),
            ("_Z3nmsRKN2at6TensorE", None),
            ("_ZN10torchaudio4loadEv", None),
            ("_ZN14torch_tensorrt3runEv", None),
            ("_ZNSt6vectorIN2at6TensorESaIS1_EE4sizeEv", None),
            ("cudaqBuild", None),
            ("cudagraph", None),
            ("cuInit", None),
            ("ncclx", None),
            ("memcpy", None),
            ("", None),
        ] {
            let found = of_symbol(symbol, PROVIDERS.iter()).map(|at| PROVIDERS[at].name);
            assert_eq!(found, provider, "{symbol}");
        }
    }

    #[test]
    fn libraries_say_whose_they_are() {
        for (name, is) in [
            ("libtorch_python.so", true),
            ("libc10_cuda.so", true),
            ("libcudart.so.12", true),
            ("libcublasLt.so.12", true),
            ("libc.so.6", false),
            ("libcuda.so.1", false),
        ] {
            assert_eq!(is_provided(name), is, "{name}");
        }
    }
}
