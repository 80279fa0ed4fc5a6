//! The driver's device nodes: whether this process may open them.
//!
//! NVML opens /dev/nvidiactl and the GPUs' nodes but never /dev/nvidia-uvm, without which cuInit fails; and what it
//! opened once says nothing of what a device cgroup allows now. Source of the names: NVIDIA's nvidia-modprobe,
//! `nvidia_get_file_path` and its like.

use std::fs::{self, OpenOptions};
use std::path::Path;

use cuda_entrypoint::facts::{DeviceNode, HelperLine};
use cuda_entrypoint::hidden::is_hidden;

use crate::arguments::Part;
use crate::foreign::driver::MOST_DEVICES;
use crate::output::Output;

/// Opens each node of this part that exists as CUDA does, and closes it at once. The nodes that are no GPU's belong to the
/// first part.
pub fn open(out: &Output, dev: &Path, part: Part) {
    let is_ours = |name: &String| part.has(rank(name).map_or(0, |rank| rank.saturating_sub(2)));
    for name in names(dev).into_iter().filter(is_ours) {
        let path = dev.join(name);
        if is_hidden(&path) {
            continue;
        }
        out.step(format!("open {}", path.display()));
        // The standard library adds O_CLOEXEC.
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        out.line(&HelperLine::Node(DeviceNode {
            path: path.to_string_lossy().into_owned(),
            errno: opened.err().map(|error| error.raw_os_error().unwrap_or(0)),
        }));
    }
}

/// `nvidiactl`, `nvidia-uvm`, then `nvidia0` and its like by number.
fn names(dev: &Path) -> Vec<String> {
    let entries = fs::read_dir(dev).into_iter().flatten().flatten();
    let mut all: Vec<(u32, String)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some((rank(&name)?, name))
        })
        .collect();
    all.sort();
    all.truncate(MOST_DEVICES.unsigned_abs() as usize);
    all.into_iter().map(|(_, name)| name).collect()
}

/// The place of a node in the order; `None` for what is no node that CUDA opens.
fn rank(name: &str) -> Option<u32> {
    match name.strip_prefix("nvidia")? {
        "ctl" => Some(0),
        "-uvm" => Some(1),
        number if number.bytes().all(|b| b.is_ascii_digit()) => number.parse::<u32>().ok()?.checked_add(2),
        _ => None,
    }
}
