//! Compute capability of the visible GPUs against the list of architectures. Pure.

use crate::arch::{ArchList, Service};
use crate::check::{Code, Finding};
use crate::facts::{Device, Facts};

/// One finding a device; none where the list is not given or no device is visible.
pub fn judge(archs: Option<&ArchList>, facts: &Facts) -> Vec<Finding> {
    let Some(archs) = archs else { return Vec::new() };
    facts
        .device
        .devices
        .iter()
        .map(|device| judge_device(archs, device))
        .collect()
}

fn judge_device(archs: &ArchList, device: &Device) -> Finding {
    let subject = format!("GPU {} {}", device.ordinal, device.name);
    let required = archs.to_string();
    let Some(capability) = device.capability else {
        return Finding::unknown(Code::ArchUnsupported, subject)
            .required(required)
            .message("the driver did not tell this GPU's compute capability");
    };
    let observed = format!("compute capability {capability}");
    let finding = match archs.serves(capability) {
        Service::Listed => {
            Finding::pass(Code::ArchUnsupported, subject).message("its compute capability is on the list")
        }
        Service::BinaryCompatible { by } => Finding::problem(Code::ArchUnlisted, subject)
            .message(format!("{capability} is not on the list; code for {by} runs on it (same major version, not newer)"))
            .hint(format!("add {capability} to archs if this GPU is meant to be supported")),
        Service::ByPtx { by } => Finding::problem(Code::ArchUnlisted, subject)
            .message(format!("{capability} is not on the list; the driver compiles the PTX of {by} for it at first launch"))
            .hint(format!("build the extensions for {capability} and add it to archs")),
        Service::No => Finding::problem(Code::ArchUnsupported, subject)
            .message(format!("this image is not built for compute capability {capability}"))
            .hint(format!(
                "schedule it onto a node with a GPU of {required} (node label nvidia.com/gpu.compute.major), or build the image for {capability}"
            )),
    };
    finding.observed(observed).required(required)
}
