//! CUDA code in files: for which architectures it is, and which devices run it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::read::{FromJson, ReadError, object};
use super::{ComputeCapability, CudaVersion};

/// Flag of a fat binary's entry: the `a` variant, this very architecture only.
pub const ARCH_SPECIFIC: u64 = 0x10_0000;
/// Flag of a fat binary's entry: the `f` variant, this architecture's family only.
pub const FAMILY_SPECIFIC: u64 = 0x20_0000;

/// How much of what an architecture offers the code was compiled for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Variant {
    /// no suffix: what later architectures offer as well
    Plain,
    /// `a`: what this very architecture offers
    ArchSpecific,
    /// `f`: what this architecture's family offers
    FamilySpecific,
}

/// An architecture that code is for: `9.0`, `9.0a`, `10.0f`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Target {
    /// 9.0
    pub capability: ComputeCapability,
    /// its suffix
    pub variant: Variant,
}

/// What form the code has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum CodeKind {
    /// a cubin: what the device runs
    Sass,
    /// text that the driver compiles
    Ptx,
}

/// One form of code for one architecture.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Code {
    /// its form
    pub kind: CodeKind,
    /// what it is for
    pub target: Target,
}

/// A version of the PTX ISA, such as 8.4: what a PTX text says in its `.version`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct PtxVersion {
    /// 8 of 8.4
    pub major: u16,
    /// 4 of 8.4
    pub minor: u16,
}

impl PtxVersion {
    /// The newest that a driver of this CUDA version compiles; `None` for a version that no release has, or that is
    /// too old to matter.
    ///
    /// Source: PTX ISA, "Release Notes", table "PTX Release History"
    /// (<https://docs.nvidia.com/cuda/parallel-thread-execution/#release-notes-ptx-release-history>): CUDA 11.0 came
    /// with 7.0, 12.0 with 8.0, 13.0 with 9.0, and each minor release since with the next one; but 12.6 kept 12.5's,
    /// so that 12.7 to 12.9 are one behind. A later major version is expected to go on like that.
    pub fn newest_of(driver: CudaVersion) -> Option<Self> {
        let behind = u16::from(driver.major == 12 && driver.minor > 5);
        (driver.major >= 11).then(|| Self {
            major: driver.major.saturating_sub(4),
            minor: driver.minor.saturating_sub(behind),
        })
    }

    /// The first CUDA release whose driver compiles it: the same table, read the other way.
    pub fn first_cuda(self) -> Option<CudaVersion> {
        let behind = u16::from(self.major == 8 && self.minor > 5);
        (self.major >= 7).then(|| CudaVersion {
            major: self.major.saturating_add(4),
            minor: self.minor.saturating_add(behind),
        })
    }

    /// `8.7 (CUDA 12.8)`: with the release that brought it.
    pub fn with_cuda(self) -> String {
        match self.first_cuda() {
            Some(cuda) => format!("{self} (CUDA {cuda})"),
            None => self.to_string(),
        }
    }
}

impl Target {
    /// From a fat binary's entry: 90 and the flags. `None` for a number that no architecture has, or for flags that
    /// exclude one another.
    pub fn from_entry(arch: u32, entry_flags: u64) -> Option<Self> {
        let specific = entry_flags & ARCH_SPECIFIC != 0;
        let family = entry_flags & FAMILY_SPECIFIC != 0;
        let variant = match (specific, family) {
            (false, false) => Variant::Plain,
            (true, false) => Variant::ArchSpecific,
            (false, true) => Variant::FamilySpecific,
            (true, true) => return None,
        };
        // 1.0 was the first; the last digit is the minor version, as in sm_121 for 12.1.
        let major = u8::try_from(arch / 10).ok().filter(|&major| major > 0)?;
        let minor = u8::try_from(arch % 10).ok()?;
        Some(Self {
            capability: ComputeCapability { major, minor },
            variant,
        })
    }
}

impl Code {
    /// Whether a device of this capability can run it.
    ///
    /// CUDA C++ Programming Guide, "Binary Compatibility": a cubin for X.y runs on X.z with z ≥ y. "PTX
    /// Compatibility": PTX for X.y is compiled for any capability from X.y on. "Feature set compiler targets": code
    /// for X.ya runs on X.y alone, code for X.yf on the devices of its family: those of the same major version from
    /// X.y on (nvcc 13.5 takes compute_100f to sm_100, sm_103 and sm_107, compute_120f to sm_120 and sm_121). The
    /// exception: [`ComputeCapability::takes_sass_of`].
    pub fn runs_on(&self, device: ComputeCapability) -> bool {
        let own = self.target.capability;
        match (self.target.variant, self.kind) {
            (Variant::ArchSpecific, _) => device == own,
            (Variant::FamilySpecific, _) | (Variant::Plain, CodeKind::Sass) => device.takes_sass_of(own),
            (Variant::Plain, CodeKind::Ptx) => device >= own,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = match self.variant {
            Variant::Plain => "",
            Variant::ArchSpecific => "a",
            Variant::FamilySpecific => "f",
        };
        write!(f, "{}{suffix}", self.capability)
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromJson for Target {
    fn from_json(value: Value) -> Result<Self, ReadError> {
        let text = String::from_json(value)?;
        let (number, variant) = match (text.strip_suffix('a'), text.strip_suffix('f')) {
            (Some(number), _) => (number, Variant::ArchSpecific),
            (_, Some(number)) => (number, Variant::FamilySpecific),
            _ => (text.as_str(), Variant::Plain),
        };
        match ComputeCapability::from_json(Value::from(number)) {
            Ok(capability) => Ok(Self { capability, variant }),
            Err(_) => Err(ReadError::new(format!(
                "expected an architecture, found {text:?}"
            ))),
        }
    }
}

/// How many of the fat binaries with kernels serve one architecture.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Served {
    /// by SASS: code that the device runs as it is
    pub sass: u64,
    /// by PTX and no SASS: the driver compiles it when it is first used
    pub ptx: u64,
}

/// How many fat binaries have PTX for one architecture in one version of the PTX ISA.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct PtxIsa {
    /// what it is for
    pub arch: Target,
    /// the version
    pub version: PtxVersion,
    /// how many
    pub fatbins: u64,
}

/// A library in site-packages that holds CUDA code, or that may and could not be read.
///
/// All numbers count fat binaries. Relocatable device code (`nvcc -rdc=true`) that was never linked counts where there
/// is no other: as much of it as the driver could link into one program.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct ModuleKernels {
    /// the file; U+FFFD where its name is not UTF-8
    pub path: String,
    /// normalised name (PEP 503) of the distribution that brought it, where its folder's name tells
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// NVIDIA's own (cuBLAS, cuDNN, NCCL): its fat binaries are for single architectures on purpose, so that it is
    /// listed, and neither counted nor judged
    #[serde(skip_serializing_if = "is_false")]
    pub vendor: bool,
    /// the manifest's `libraries` name it, so that it is needed by itself
    #[serde(skip_serializing_if = "is_false")]
    pub named: bool,
    /// fat binaries
    pub fatbins: u64,
    /// how many of them hold kernels
    pub with_kernels: u64,
    /// with kernels in SASS, by architecture
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sass: BTreeMap<Target, u64>,
    /// with kernels in PTX, by architecture
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ptx: BTreeMap<Target, u64>,
    /// of those in PTX, the versions of the PTX ISA that the texts are written in, by architecture and version; those
    /// that do not tell are in none
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ptx_isa: Vec<PtxIsa>,
    /// by listed capability, how many of those with kernels serve it
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub served: BTreeMap<ComputeCapability, Served>,
    /// why it could not be read, with the place
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// the same as errno(3) numbers it, where it was an error of the system
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
}

impl ModuleKernels {
    /// What the best served kernels have for a device of this capability, whatever driver there is; `None` where no
    /// fat binary with kernels serves it.
    pub fn serves(&self, device: ComputeCapability) -> Option<CodeKind> {
        self.serves_with(device, None).ok()
    }

    /// The same where the driver compiles PTX up to the version `newest`. The error is the oldest PTX for the device
    /// where it is too new; `None` where there is no code for the device at all.
    ///
    /// # Errors
    /// No fat binary with kernels serves the device.
    pub fn serves_with(
        &self,
        device: ComputeCapability,
        newest: Option<PtxVersion>,
    ) -> Result<CodeKind, Option<PtxVersion>> {
        let runs = |kind, target| Code { kind, target }.runs_on(device);
        if self.sass.keys().any(|&target| runs(CodeKind::Sass, target)) {
            return Ok(CodeKind::Sass);
        }
        let mut oldest: Option<PtxVersion> = None;
        for (&target, &count) in self
            .ptx
            .iter()
            .filter(|(target, _)| runs(CodeKind::Ptx, **target))
        {
            let (mut told, mut first) = (0, None);
            for isa in self.ptx_isa.iter().filter(|isa| isa.arch == target) {
                told += isa.fatbins;
                first = first.or(Some(isa.version));
            }
            match (first, newest) {
                // Some of unknown version may be of any.
                (Some(first), Some(newest)) if first > newest && told >= count => {
                    oldest = Some(oldest.map_or(first, |oldest| oldest.min(first)));
                }
                _ => return Ok(CodeKind::Ptx),
            }
        }
        Err(oldest)
    }

    /// The oldest PTX for a device of this capability that no SASS serves, where every text tells its version.
    pub fn oldest_ptx(&self, device: ComputeCapability) -> Option<PtxVersion> {
        let none = PtxVersion { major: 0, minor: 0 };
        self.serves_with(device, Some(none)).err().flatten()
    }
}

// serde hands over a reference
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(flag: &bool) -> bool {
    !*flag
}

object!(Served { sass, ptx });
object!(PtxIsa {
    arch,
    version,
    fatbins
});
object!(ModuleKernels { path, package, fatbins, with_kernels, sass, ptx, ptx_isa, served, error,
    errno; or_default vendor, named });

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(kind: CodeKind, arch: u32, entry_flags: u64, major: u8, minor: u8) -> bool {
        let target = Target::from_entry(arch, entry_flags).unwrap();
        Code { kind, target }.runs_on(ComputeCapability { major, minor })
    }

    #[test]
    fn the_rule_of_binary_and_ptx_compatibility() {
        use CodeKind::{Ptx, Sass};
        let (a, f) = (ARCH_SPECIFIC, FAMILY_SPECIFIC);
        for (kind, arch, entry_flags, yes, no) in [
            (
                Sass,
                80,
                0,
                &[(8, 0), (8, 6), (8, 9)][..],
                &[(7, 5), (9, 0), (10, 0)][..],
            ),
            (Sass, 86, 0, &[(8, 6), (8, 9)], &[(8, 0), (9, 0)]),
            (Sass, 70, 0, &[(7, 0), (7, 5)], &[(6, 1), (7, 2), (8, 0)]),
            // Orin, whose code is its own, and which runs no other's.
            (Sass, 87, 0, &[(8, 7)], &[(8, 6), (8, 9)]),
            (Sass, 80, 0, &[(8, 9)], &[(8, 7)]),
            (Ptx, 80, 0, &[(8, 7), (11, 0)], &[(7, 2)]),
            (Sass, 90, a, &[(9, 0)], &[(8, 9), (9, 1), (10, 0)]),
            (Sass, 100, f, &[(10, 0), (10, 3)], &[(9, 0), (11, 0), (12, 0)]),
            (Sass, 103, f, &[(10, 3)], &[(10, 0), (12, 0)]),
            (Ptx, 90, 0, &[(9, 0), (10, 0), (12, 1)], &[(8, 9), (7, 5)]),
            (Ptx, 90, a, &[(9, 0)], &[(10, 0), (8, 9)]),
            (Ptx, 120, f, &[(12, 0), (12, 1)], &[(10, 0), (13, 0)]),
        ] {
            for &(major, minor) in yes {
                assert!(
                    runs(kind, arch, entry_flags, major, minor),
                    "{kind:?} {arch} on {major}.{minor}"
                );
            }
            for &(major, minor) in no {
                assert!(
                    !runs(kind, arch, entry_flags, major, minor),
                    "{kind:?} {arch} on {major}.{minor}"
                );
            }
        }
    }

    /// The table of the PTX ISA's release notes.
    #[test]
    fn each_release_of_cuda_has_its_ptx() {
        let version =
            |text: &str| -> CudaVersion { crate::facts::from_json(format!("{text:?}").as_bytes()).unwrap() };
        for (cuda, ptx) in [
            ("11.0", "7.0"),
            ("11.8", "7.8"),
            ("12.0", "8.0"),
            ("12.1", "8.1"),
            ("12.4", "8.4"),
            ("12.5", "8.5"),
            ("12.7", "8.6"),
            ("12.8", "8.7"),
            ("12.9", "8.8"),
            ("13.0", "9.0"),
            ("13.1", "9.1"),
            ("13.5", "9.5"),
        ] {
            let newest = PtxVersion::newest_of(version(cuda)).unwrap();
            assert_eq!(newest.to_string(), ptx, "{cuda}");
            assert_eq!(newest.first_cuda(), Some(version(cuda)), "{ptx}");
            assert_eq!(newest.with_cuda(), format!("{ptx} (CUDA {cuda})"));
        }
        // 12.6 brought none of its own.
        assert_eq!(PtxVersion::newest_of(version("12.6")).unwrap().to_string(), "8.5");
        assert_eq!(PtxVersion::newest_of(version("10.2")), None);
        let old = PtxVersion { major: 6, minor: 5 };
        assert_eq!((old.first_cuda(), old.with_cuda()), (None, "6.5".into()));
    }

    #[test]
    fn targets_read_and_write_as_text_in_their_order() {
        let targets = [(75, 0), (90, 0), (90, 0x10_2011), (100, 0x20_0000), (121, 0x8011)];
        let texts = targets.map(|(arch, f)| Target::from_entry(arch, f).unwrap().to_string());
        assert_eq!(texts, ["7.5", "9.0", "9.0a", "10.0f", "12.1"]);
        for (text, (arch, f)) in texts.iter().zip(targets) {
            let json = serde_json::to_string(text).unwrap();
            let read: Target = crate::facts::from_json(json.as_bytes()).unwrap();
            assert_eq!(read, Target::from_entry(arch, f).unwrap());
        }
        assert!(targets.is_sorted_by_key(|&(arch, f)| Target::from_entry(arch, f)));
        for wrong in ["", "9", "9.0b", "a", "9.0aa", "-9.0", "9.0fa"] {
            assert!(
                crate::facts::from_json::<Target>(format!("{wrong:?}").as_bytes()).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn numbers_and_flags_without_meaning_are_no_target() {
        for (arch, entry_flags) in [(0, 0), (9, 0), (2560, 0), (u32::MAX, 0), (90, 0x30_0000)] {
            assert_eq!(
                Target::from_entry(arch, entry_flags),
                None,
                "{arch} {entry_flags:#x}"
            );
        }
    }
}
