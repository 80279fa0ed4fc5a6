//! Device nodes that do not open. Pure.

use nix::errno::Errno;

use super::concerns_us;
use crate::check::{Code, Finding, Severity};
use crate::cli::config::Gpu;
use crate::facts::{DeviceNode, Facts};

/// A finding for each node that CUDA needs here and that does not open. Where libcuda itself was asked and shows its
/// devices, it opened what it needs, and nothing is said.
pub fn judge(gpu: Gpu, facts: &Facts, alone: bool) -> Vec<Finding> {
    let device = &facts.device;
    let driver_is_well = device
        .driver
        .as_ref()
        .is_some_and(|driver| driver.error.is_none());
    if driver_is_well && !device.devices.is_empty() && !alone {
        return Vec::new();
    }
    // Where a GPU is optional and none can be used, this is why, and no more of a problem than that.
    let severity = match gpu {
        Gpu::Optional if !alone => Severity::Warn,
        _ => Code::GpuNotReady.severity(),
    };
    let mut findings = Vec::new();
    let closed = device.opened.iter().filter_map(|node| Some((node, node.errno?)));
    for (node, errno) in closed.filter(|(node, _)| is_needed(node, facts, alone)) {
        let errno = Errno::from_raw(errno);
        let (message, hint, retryable) = meaning(errno);
        let finding = Finding::problem_as(Code::GpuNotReady, severity, node.path.clone())
            .observed(format!("open: {errno}"))
            .required("a node that opens for reading and writing")
            .message(format!("{} cannot be opened: {message}", node.path))
            .hint(hint);
        findings.push(if retryable { finding.retryable() } else { finding });
    }
    findings
}

/// The nodes that all GPUs share, and those of GPUs that are ours. Nodes of other containers' GPUs are often there too.
fn is_needed(node: &DeviceNode, facts: &Facts, alone: bool) -> bool {
    let number = node
        .path
        .rsplit('/')
        .next()
        .and_then(|name| name.strip_prefix("nvidia"));
    let Some(number) = number.and_then(|number| number.parse::<u32>().ok()) else {
        return true;
    };
    let mut gpus = facts.device.nvml_devices.iter();
    gpus.any(|gpu| gpu.minor == Some(number) && concerns_us(gpu, facts, alone))
}

/// What it usually is, what to do, and whether waiting may help.
fn meaning(errno: Errno) -> (&'static str, &'static str, bool) {
    match errno {
        Errno::EPERM => (
            "the container's device cgroup does not allow it",
            "recreate the container with its GPUs (docker run --gpus all, or the device plugin); `systemctl \
             daemon-reload` on the host takes them from running ones, which CDI keeps from happening",
            false,
        ),
        Errno::EACCES => (
            "this user may not",
            "run as a user or with a group that may (ls -l on the node shows which), or let everybody: \
             nvidia-modprobe and the option NVreg_DeviceFileMode set it",
            false,
        ),
        Errno::ENXIO | Errno::ENODEV | Errno::ENOENT => (
            "no kernel driver stands behind it",
            "on the host: nvidia-smi, then nvidia-modprobe -c 0 -u; --wait waits for a driver that is being installed",
            true,
        ),
        _ => (
            "the driver refused",
            "run nvidia-smi on the host and look for NVRM and Xid lines in dmesg",
            true,
        ),
    }
}
