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

/// A copy of libcuda in a folder of forward compatibility, or such a folder without any.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Compat {
    /// the folder, links followed
    pub folder: String,
    /// the file, links followed; `None` where the folder holds none
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// its release, by its name: `580.65.06`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// the CUDA that it serves, as it says in its ELF note; older releases, such as 550, have none
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cuda: Option<CudaVersion>,
    /// the branches of the kernel's driver over which it works, likewise: 535 of 535.104.05
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drivers: Vec<u32>,
    /// the product lines on which it works, likewise
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<u32>,
    /// it is the libcuda that was asked
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mapped: bool,
}

impl Compat {
    /// Whether its note names other branches than this one.
    pub fn refuses_driver(&self, branch: u32) -> bool {
        !self.drivers.is_empty() && !self.drivers.contains(&branch)
    }

    /// Whether its note names other product lines than this one; one that nobody knows is not refused.
    ///
    /// NVIDIA does not say how the note numbers them. They are taken for NVML's numbers: the notes of releases 575 and 590
    /// then name the lines of data centres and workstations and leave out GeForce and Titan, as CUDA Compatibility,
    /// "Forward Compatibility", has it.
    pub fn refuses_brand(&self, brand: &str) -> bool {
        let number = BRANDS.iter().zip(0..).find(|(name, _)| **name == brand);
        let number = number.map_or(0, |(_, number)| number);
        number > 0 && !self.devices.is_empty() && !self.devices.contains(&number)
    }
}

object!(Compat { folder, path, release, cuda, drivers, devices; or_default mapped });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_a_note_serves() {
        let note = Compat {
            drivers: vec![535, 550],
            devices: vec![1, 2, 7, 8, 9, 10, 11, 12, 13, 14],
            ..Compat::default()
        };
        assert!(!note.refuses_driver(535) && note.refuses_driver(560));
        for brand in ["tesla", "nvidia", "quadrortx", "unknown", "other"] {
            assert!(!note.refuses_brand(brand), "{brand}");
        }
        for brand in ["geforce", "geforcertx", "titan"] {
            assert!(note.refuses_brand(brand), "{brand}");
        }
        let none = Compat::default();
        assert!(!none.refuses_driver(535) && !none.refuses_brand("geforce"));
    }
}
