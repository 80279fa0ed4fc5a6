//! Compute capability of the visible GPUs against the list of architectures. Pure.

use crate::arch::{ArchList, Service};
use crate::check::{Code, Finding};
use crate::facts::{Device, Facts};

/// One finding for each kind of GPU, in the order of their first device; none where the list is not given or no device
/// is visible.
pub fn judge(archs: Option<&ArchList>, facts: &Facts) -> Vec<Finding> {
    let Some(archs) = archs else { return Vec::new() };
    let mut kinds: Vec<(&Device, Vec<i32>)> = Vec::new();
    for device in &facts.device.devices {
        let same = |known: &&Device| (&known.name, known.capability) == (&device.name, device.capability);
        match kinds.iter_mut().find(|(known, _)| same(known)) {
            Some((_, ordinals)) => ordinals.push(device.ordinal),
            None => kinds.push((device, vec![device.ordinal])),
        }
    }
    kinds
        .into_iter()
        .map(|(device, ordinals)| judge_kind(archs, device, &ordinals))
        .collect()
}

/// `GPU 0`, `GPUs 0-7`, `GPUs 0, 2-3`
fn numbered(ordinals: &[i32]) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for &ordinal in ordinals {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(ordinal) => *last = ordinal,
            _ => runs.push((ordinal, ordinal)),
        }
    }
    let shown: Vec<String> = runs
        .into_iter()
        .map(|(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        })
        .collect();
    let noun = if ordinals.len() == 1 { "GPU" } else { "GPUs" };
    format!("{noun} {}", shown.join(", "))
}

fn judge_kind(archs: &ArchList, device: &Device, ordinals: &[i32]) -> Finding {
    let subject = format!("{} {}", numbered(ordinals), device.name);
    let subject = subject.trim_end();
    let required = archs.to_string();
    let Some(capability) = device.capability else {
        return Finding::unknown(Code::ArchUnsupported, subject)
            .required(required)
            .message("the driver did not tell this GPU's compute capability");
    };
    let observed = format!("compute capability {capability}");
    let finding = match archs.serves(capability) {
        Service::Listed => {
            Finding::pass(Code::ArchUnsupported, subject).message("this compute capability is on the list")
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
                "schedule it onto a node whose GPU one of {required} serves (node label nvidia.com/gpu.compute.major), or build the image for {capability}"
            )),
    };
    finding.observed(observed).required(required)
}

#[cfg(test)]
mod tests;
