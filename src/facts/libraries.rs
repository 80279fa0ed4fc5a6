//! The libraries that are asked for their versions: one row each.
//!
//! What differs between them is in the row, and read from it by all who need it: the helper and who starts it, the facts,
//! the search for copies, the checks, reports and `stack capture`. The calls themselves, with their types, are the helper's
//! (src/bin/cuda-helper/foreign).

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::CudaVersion;
use super::read::{FromJson, ReadError, object};

/// What is particular to a library.
#[derive(Debug)]
pub struct Row {
    /// how arguments of the helper, facts and reports call it; its finding is called `WORD-version`
    pub word: &'static str,
    /// the beginning of its files' names
    pub stem: &'static str,
    /// how people call it, before a version
    pub title: &'static str,
    /// its key below `cuda` in a manifest, if it has one
    pub rule: Option<&'static str>,
    /// NVIDIA's wheel without its CUDA tag
    pub wheel: &'static str,
    /// the package whose metadata pins that wheel: what a library without a key is held against
    pub pinned_by: Option<&'static str>,
    /// the beginning of its sub-libraries' names, one of which gives the answer
    pub sublibraries: Option<&'static str>,
    /// major versions whose SONAME ends in more than the number: it held a minor version up to CUDA 11, which froze at the
    /// first one that kept its ABI
    pub sonames: &'static [(u16, &'static str)],
}

macro_rules! libraries {
    ($($(#[doc = $doc:literal])* $variant:ident { $($field:ident: $value:expr,)* })*) => {
        /// A library that CUDA programs load and that states its version.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum LibraryKind { $($(#[doc = $doc])* $variant,)* }

        impl LibraryKind {
            /// Every one, in the order in which they are asked and judged.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// What is particular to it.
            pub fn row(self) -> &'static Row {
                match self { $(Self::$variant => &Row { $($field: $value,)* },)* }
            }
        }
    };
}

// Sources of the SONAMEs: CUDA C++ Best Practices Guide, "CUDA Compatibility and Upgrades"; NVRTC User Guide, "Versioning
// Scheme".
libraries! {
    /// libcudart: `cudaRuntimeGetVersion`
    Cudart {
        word: "cudart",
        stem: "libcudart",
        title: "CUDA runtime",
        rule: Some("runtime"),
        wheel: "nvidia-cuda-runtime",
        pinned_by: None,
        sublibraries: None,
        sonames: &[(10, "10.2"), (11, "11.0")],
    }
    /// libnvrtc: `nvrtcVersion`
    Nvrtc {
        word: "nvrtc",
        stem: "libnvrtc",
        title: "CUDA nvrtc",
        rule: Some("nvrtc"),
        wheel: "nvidia-cuda-nvrtc",
        pinned_by: None,
        sublibraries: None,
        sonames: &[(10, "10.2"), (11, "11.2")],
    }
    /// libcudnn: `cudnnGetVersion`. It is a shim, and aborts the process where it finds none of the sub-library that answers:
    /// so it comes last.
    Cudnn {
        word: "cudnn",
        stem: "libcudnn",
        title: "cuDNN",
        rule: None,
        wheel: "nvidia-cudnn",
        pinned_by: Some("torch"),
        sublibraries: Some("libcudnn_"),
        sonames: &[],
    }
}

impl LibraryKind {
    /// Which library a file's name says that it is: `libcudart.so.12`, auditwheel's `libcudart-8774224f.so.12.4.127` and
    /// torchvision's `libcudart.41118559.so.12`, but not `libnvrtc-builtins` nor `libcudart_static.a`.
    pub fn of_file(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| {
            let rest = name.strip_prefix(kind.row().stem).unwrap_or_default();
            let is_other = rest.starts_with("-builtins") || !rest.starts_with(['.', '-']);
            let version = rest.split_once(".so").map(|(_, version)| version);
            !is_other && version.is_some_and(|version| version.is_empty() || version.starts_with('.'))
        })
    }

    /// Its SONAME in a major version of CUDA.
    pub fn soname(self, major: u16) -> String {
        let row = self.row();
        match row.sonames.iter().find(|(of, _)| *of == major) {
            Some((_, version)) => format!("{}.so.{version}", row.stem),
            None => format!("{}.so.{major}", row.stem),
        }
    }

    /// The release of a number that `cudnnGetVersion` returns: 90100 is 9.1.0, and up to cuDNN 8 8902 is 8.9.2. `None` for a
    /// number that no release has.
    ///
    /// Source: cudnn_version.h, `CUDNN_VERSION`.
    pub fn cudnn_release(number: usize) -> Option<String> {
        let major = match number {
            1_000..10_000 => number / 1_000,
            90_000..1_000_000 => number / 10_000,
            _ => return None,
        };
        let (minor, patch) = (number % 1_000 / 100, number % 100);
        let minor = if major < 9 { minor } else { number % 10_000 / 100 };
        Some(format!("{major}.{minor}.{patch}"))
    }

    /// The argument by which the helper is asked for a copy: `cudart=PATH`.
    pub fn argument(self, path: &[u8]) -> Vec<u8> {
        [self.row().word.as_bytes(), b"=", path].concat()
    }

    /// The kind and the path of such an argument.
    pub fn of_argument(argument: &[u8]) -> Option<(Self, &[u8])> {
        let path = |kind: &Self| {
            argument
                .strip_prefix(kind.row().word.as_bytes())?
                .strip_prefix(b"=")
        };
        Self::ALL
            .iter()
            .find_map(|kind| path(kind).map(|path| (*kind, path)))
    }
}

/// Answer of one dlopened runtime library. `index` counts the libraries of the request.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct LibraryAnswer {
    /// position in the request, from 0
    pub index: usize,
    /// the file that the loader mapped, where it can be told
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// the version that the library itself returned
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<CudaVersion>,
    /// dlopen's or dlsym's message, or the error that the version call returned
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// the number of the error that the version call returned
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<i32>,
    /// the same of a library whose versions are not CUDA's: `9.1.0`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// the file of the sub-library that gave the answer
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sublibrary: Option<String>,
    /// nvrtc only: the architectures that it can compile for, such as 90
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nvrtc_archs: Vec<i32>,
}

impl LibraryAnswer {
    /// Its version, as reports write it; `None` where it stated none.
    pub fn stated(&self) -> Option<String> {
        let version = self.version.map(|version| version.to_string());
        version.or_else(|| self.release.clone())
    }

    /// Whether it could not tell its version for want of a driver: `cudaErrorStubLibrary` or
    /// `cudaErrorInsufficientDriver`. libcudart of CUDA 11 needs one for this, that of CUDA 12 does not.
    ///
    /// Source: <https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html>.
    pub fn wants_driver(&self) -> bool {
        matches!(self.error_code, Some(34 | 35))
    }
}

object!(LibraryAnswer {
    index,
    path,
    version,
    error,
    error_code,
    release,
    sublibrary,
    nvrtc_archs
});

/// By its word.
impl Serialize for LibraryKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.row().word)
    }
}

impl FromJson for LibraryKind {
    fn from_json(value: Value) -> Result<Self, ReadError> {
        let found = Self::ALL
            .iter()
            .find(|kind| value.as_str() == Some(kind.row().word));
        found
            .copied()
            .ok_or_else(|| ReadError::new("expected the word of a library"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_copies() {
        for (name, kind) in [
            ("libcudart.so", Some(LibraryKind::Cudart)),
            ("libcudart.so.12", Some(LibraryKind::Cudart)),
            ("libcudart.so.11.0", Some(LibraryKind::Cudart)),
            ("libcudart-8774224f.so.12.4.127", Some(LibraryKind::Cudart)),
            ("libcudart.41118559.so.12", Some(LibraryKind::Cudart)),
            ("libnvrtc-6d168ef8.so.12.4.127", Some(LibraryKind::Nvrtc)),
            ("libnvrtc.alt.so.12", Some(LibraryKind::Nvrtc)),
            ("libnvrtc-builtins.so.12.4", None),
            ("libnvrtc-builtins-4425561a.so.12.4.127", None),
            ("libcudart_static.a", None),
            ("libcudart.so_old", None),
            ("libcudart", None),
            ("libcuda.so.1", None),
            ("libcudnn.so.9", Some(LibraryKind::Cudnn)),
            ("libcudnn_graph.so.9", None),
            ("", None),
        ] {
            assert_eq!(LibraryKind::of_file(name), kind, "{name}");
        }
    }

    #[test]
    fn sonames_of_every_major() {
        let names = |major| [LibraryKind::Cudart, LibraryKind::Nvrtc].map(|kind| kind.soname(major));
        assert_eq!(names(10), ["libcudart.so.10.2", "libnvrtc.so.10.2"]);
        assert_eq!(names(11), ["libcudart.so.11.0", "libnvrtc.so.11.2"]);
        assert_eq!(names(12), ["libcudart.so.12", "libnvrtc.so.12"]);
        assert_eq!(names(13), ["libcudart.so.13", "libnvrtc.so.13"]);
    }

    #[test]
    fn releases_of_cudnn() {
        for (number, release) in [
            (90_100, Some("9.1.0")),
            (91_002, Some("9.10.2")),
            (8_907, Some("8.9.7")),
            (7_605, Some("7.6.5")),
            (0, None),
            (12_040, None),
            (usize::MAX, None),
        ] {
            assert_eq!(LibraryKind::cudnn_release(number).as_deref(), release, "{number}");
        }
    }

    #[test]
    fn each_kind_comes_back_from_its_words() {
        for &kind in LibraryKind::ALL {
            let argument = kind.argument(b"/a=b/\xff");
            assert_eq!(
                LibraryKind::of_argument(&argument),
                Some((kind, &b"/a=b/\xff"[..]))
            );
            let value = serde_json::to_value(kind).unwrap();
            assert_eq!(LibraryKind::from_json(value).unwrap(), kind);
        }
        for other in [&b"cudart"[..], b"cudart-x=/a", b"=/a", b"driver=/a"] {
            assert_eq!(LibraryKind::of_argument(other), None);
        }
        assert!(LibraryKind::from_json("driver".into()).is_err());
    }
}
