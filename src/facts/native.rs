//! The native proof: what the helper is to do on each device, and what it saw.
//!
//! The helper that has answered for the driver says [`HelperLine::Ready`](super::HelperLine::Ready) and waits for one line of
//! standard input, a [`NativePlan`]. Without one it ends.

use serde::Serialize;

use super::read::{object, words};
use super::smoke::SmokeEnd;
use super::{CallError, ComputeCapability};

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct NativePlan {
    /// devices of one compute capability each
    pub groups: Vec<PlannedGroup>,
}

/// Devices that can use the same code.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct PlannedGroup {
    /// CUDA ordinals
    pub devices: Vec<i32>,
    /// whose fat binaries the driver is to load on each
    pub libraries: Vec<PlannedLibrary>,
}

/// Fat binaries of one library.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct PlannedLibrary {
    /// the file
    pub path: String,
    /// where they lie in it: offset and size of the first, offset and size of the second, and so on; in bytes
    pub fatbins: Vec<u64>,
}

/// How many of a library's fat binaries the driver loads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NativeExtent {
    /// some of those that cost much, evenly spread
    #[default]
    Sample,
    /// every one that the device can use
    All,
}

/// What the proof came to.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct NativeRun {
    /// how the process ended
    #[serde(flatten)]
    pub end: SmokeEnd,
    /// how many fat binaries were to be loaded
    pub extent: NativeExtent,
    /// the call that it was in when it ended early
    #[serde(skip_serializing_if = "String::is_empty")]
    pub step: String,
    /// the kernel of this program, by device
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<NativeDevice>,
    /// the libraries
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub libraries: Vec<NativeLibrary>,
    /// what the driver said of them, by device
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub loads: Vec<NativeLoad>,
    /// the last lines of its standard error
    #[serde(skip_serializing_if = "String::is_empty")]
    pub said: String,
    /// from the word to go on to its end, in milliseconds
    pub ms: f64,
}

/// A library whose kernels are to be loaded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct NativeLibrary {
    /// the file
    pub path: String,
    /// the distribution that brought it, normalised (PEP 503)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// of the devices that load it
    pub capability: ComputeCapability,
    /// fat binaries with kernels that the devices can use
    pub usable: u64,
    /// how many of them were loaded on each device; where none is usable, how many were tried all the same
    pub chosen: u64,
    /// of those chosen, the ones that the driver has to compile from PTX
    #[serde(skip_serializing_if = "is_zero")]
    pub ptx: u64,
    /// why its fat binaries could not be found, with the place; then none is loaded
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How a device ran the kernel of this program.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct NativeDevice {
    /// CUDA ordinal
    pub ordinal: i32,
    /// the call that failed
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<CallError>,
    /// what it computed instead of the expected result
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrong: Option<WrongResult>,
    /// for the primary context, in milliseconds
    pub context_ms: f64,
    /// for the driver's compilation of the kernel, in milliseconds
    pub compile_ms: f64,
    /// for the copies and the kernel's two runs, in milliseconds
    pub compute_ms: f64,
}

/// A result that is not the expected one.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct WrongResult {
    /// values that differ
    pub wrong: u64,
    /// of so many
    pub values: u64,
    /// the place of the first that differs
    pub first: u64,
    /// its value
    pub observed: u32,
    /// the value that it must have
    pub expected: u32,
}

/// How a device took a library's fat binaries.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct NativeLoad {
    /// CUDA ordinal
    pub ordinal: i32,
    /// place among the libraries of all groups, in the plan's order
    pub library: usize,
    /// fat binaries that were loaded
    pub loaded: u64,
    /// kernels in them; none where the driver is too old to list them (before CUDA 12.4)
    pub kernels: u64,
    /// fat binaries that were refused
    #[serde(skip_serializing_if = "is_zero")]
    pub refused: u64,
    /// the first of those, with the driver's error
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<Refusal>,
    /// why the file could not be mapped
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
    /// in milliseconds
    pub ms: f64,
}

/// A fat binary that the driver refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Refusal {
    /// where it lies in the file, in bytes
    pub offset: u64,
    /// what the driver said
    pub error: CallError,
}

/// CUDA_ERROR_JIT_COMPILER_NOT_FOUND and CUDA_ERROR_JIT_COMPILATION_DISABLED: the kernel of this program cannot be compiled, which
/// says nothing of kernels that are.
pub const WITHOUT_COMPILER: [i32; 2] = [221, 223];

impl NativeDevice {
    /// Whether the device may take the image's kernels.
    pub fn takes_kernels(&self) -> bool {
        let may_be = |error: &CallError| WITHOUT_COMPILER.contains(&error.code);
        self.wrong.is_none() && self.error.as_ref().is_none_or(may_be)
    }
}

impl NativeRun {
    /// Whether everything went through and was as it must be.
    pub fn passed(&self) -> bool {
        self.end == SmokeEnd::Done
            && self.devices.iter().all(NativeDevice::takes_kernels)
            && self.libraries.iter().all(|l| l.unread.is_none())
            && self.loads.iter().all(|l| l.refused == 0 && l.unread.is_none())
    }
}

object!(NativePlan { groups });
object!(PlannedGroup { devices, libraries });
object!(PlannedLibrary { path, fatbins });
words!(NativeExtent { "sample" Sample, "all" All });
object!(NativeRun { extent, devices, libraries, loads; or_default step, said, ms; flat end });
object!(NativeLibrary { path, package, capability, usable, chosen, unread; or_default ptx });
object!(NativeDevice {
    ordinal,
    error,
    wrong,
    context_ms,
    compile_ms,
    compute_ms
});
object!(WrongResult {
    wrong,
    values,
    first,
    observed,
    expected
});
object!(NativeLoad { ordinal, library, loaded, kernels, refusals, unread, ms; or_default refused });
object!(Refusal { offset, error });
