//! Libraries of forward compatibility: a libcuda that is newer than the kernel's driver, and over which drivers it works.

use serde::Serialize;

use super::CudaVersion;
use super::read::object;

/// Product lines as `NVIDIA_REQUIRE_CUDA` names them, by their numbers in nvml.h (`nvmlBrandType_t`).
pub const BRANDS: [&str; 17] = [
    "unknown",
    "quadro",
    "tesla",
    "nvs",
    "grid",
    "geforce",
    "titan",
    "vapps",
    "vpc",
    "vcs",
    "vws",
    "cloudgaming",
    "quadrortx",
    "nvidiartx",
    "nvidia",
    "geforcertx",
    "titanrtx",
];

/// A folder for libraries of forward compatibility.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct CompatFolder {
    /// links followed
    pub path: String,
    /// the copies of libcuda in it
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub libraries: Vec<CompatLibrary>,
}

/// A copy of libcuda in such a folder.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct CompatLibrary {
    /// the file, links followed
    pub path: String,
    /// its release, by its name: `580.65.06`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// what it says of itself; older releases, such as 550, say nothing
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<ForwardNote>,
    /// why that could not be read
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// it is the libcuda that was asked
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mapped: bool,
}

/// The ELF note `.note.cuda.fwd_compatibility`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct ForwardNote {
    /// the CUDA that it serves
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cuda: Option<CudaVersion>,
    /// the branches of the kernel's driver over which it works: 535 of 535.104.05
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drivers: Vec<u32>,
    /// the product lines on which it works
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<u32>,
}

impl ForwardNote {
    /// Whether it works over drivers of this branch; `None` where it names none.
    pub fn serves_driver(&self, branch: u32) -> Option<bool> {
        (!self.drivers.is_empty()).then(|| self.drivers.contains(&branch))
    }

    /// Whether it works on GPUs of this product line; `None` where it names none, or nobody knows the line.
    ///
    /// NVIDIA does not say how the note numbers them. They are taken for NVML's numbers: the notes of releases 575 and 590
    /// then name the lines of data centres and workstations and leave out GeForce and Titan, as CUDA Compatibility,
    /// "Forward Compatibility Support Across Driver Branches", has it.
    pub fn serves_brand(&self, brand: &str) -> Option<bool> {
        let number = BRANDS
            .iter()
            .position(|name| *name == brand)
            .filter(|at| *at > 0)?;
        let number = u32::try_from(number).ok()?;
        (!self.devices.is_empty()).then(|| self.devices.contains(&number))
    }
}

object!(CompatFolder { path, libraries });
object!(CompatLibrary { path, release, note, problem; or_default mapped });
object!(ForwardNote {
    cuda,
    drivers,
    devices
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_a_note_serves() {
        let note = ForwardNote {
            cuda: None,
            drivers: vec![535, 550],
            devices: vec![1, 2, 7, 8, 9, 10, 11, 12, 13, 14],
        };
        assert_eq!(
            (note.serves_driver(535), note.serves_driver(560)),
            (Some(true), Some(false))
        );
        for brand in ["tesla", "nvidia", "quadrortx"] {
            assert_eq!(note.serves_brand(brand), Some(true), "{brand}");
        }
        for brand in ["geforce", "geforcertx", "titan"] {
            assert_eq!(note.serves_brand(brand), Some(false), "{brand}");
        }
        assert_eq!(
            (note.serves_brand("unknown"), note.serves_brand("other")),
            (None, None)
        );
        let none = ForwardNote::default();
        assert_eq!(
            (none.serves_driver(535), none.serves_brand("geforce")),
            (None, None)
        );
    }
}
