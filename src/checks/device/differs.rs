//! Whether CUDA and NVML show the same GPUs. Pure.
//!
//! NVML may well show more: `CUDA_VISIBLE_DEVICES` and a container's device cgroup restrict CUDA alone, and with MIG it
//! shows GPUs where CUDA shows instances.

use crate::check::{Code, Finding};
use crate::facts::{Device, Facts, HelperEnd, NvmlDevice};

/// Most differences that are named.
const MOST: usize = 4;

/// Whether a device of CUDA's is this GPU, or an instance of it.
pub fn is_of(device: &Device, gpu: &NvmlDevice) -> bool {
    let uuid = device.uuid.as_ref();
    uuid.is_some_and(|uuid| gpu.uuid.as_ref() == Some(uuid) || gpu.mig_uuids.contains(uuid))
        || (device.pci_bus_id.is_some() && device.pci_bus_id == gpu.pci_bus_id)
}

/// A finding where they differ; nothing where either of them did not tell all that it shows.
pub fn judge(facts: &Facts) -> Option<Finding> {
    let device = &facts.device;
    let (devices, gpus) = (&device.devices, &device.nvml_devices);
    let nvml = device.nvml.as_ref()?;
    let has_told_all = nvml.error.is_none()
        && nvml.load_error.is_none()
        && device.nvml_helper.end == HelperEnd::Done
        && nvml
            .device_count
            .is_some_and(|count| usize::try_from(count) == Ok(gpus.len()));
    if !has_told_all || !device.has_usable() {
        return None;
    }
    let mut differences = Vec::new();
    for device in devices {
        match gpus.iter().find(|gpu| is_of(device, gpu)) {
            Some(gpu) => differences.extend(difference(device, gpu)),
            None if gpus.iter().all(|gpu| is_comparable(device, gpu)) => {
                differences.push(format!("NVML does not show CUDA's {}", of_cuda(device)));
            }
            None => {}
        }
    }
    for gpu in gpus.iter().filter(|gpu| ought_to_be_shown(gpu, facts)) {
        if devices
            .iter()
            .all(|device| is_comparable(device, gpu) && !is_of(device, gpu))
        {
            differences.push(format!("CUDA does not show NVML's {}", of_nvml(gpu)));
        }
    }
    // A warning of a start shows the sentence alone.
    let message = format!(
        "NVML and CUDA do not show the same GPUs, so a fault that NVML knows of may be overlooked: {}",
        differences.first()?
    );
    let more = differences.len().saturating_sub(MOST);
    differences.truncate(MOST);
    if more > 0 {
        differences.push(format!("{more} more"));
    }
    let observed = format!(
        "{}; CUDA shows {}, NVML {}",
        differences.join("; "),
        devices.len(),
        gpus.len()
    );
    Some(
        Finding::problem(Code::NvmlDiffers, "NVML")
            .observed(observed)
            .required("the same GPUs from CUDA and from NVML")
            .message(message)
            .hint("compare `nvidia-smi -L` in the container and on the host; take any libnvidia-ml.so.1 or libcuda.so.1 that is not the host driver's out of the image and out of LD_LIBRARY_PATH, and recreate the container"),
    )
}

fn is_instance(device: &Device, gpu: &NvmlDevice) -> bool {
    gpu.mig_enabled == Some(true) || device.uuid.as_ref().is_some_and(|uuid| uuid.starts_with("MIG-"))
}

/// Whether both say something by which the two can be told apart.
fn is_comparable(device: &Device, gpu: &NvmlDevice) -> bool {
    (device.pci_bus_id.is_some() && gpu.pci_bus_id.is_some())
        || (!is_instance(device, gpu) && device.uuid.is_some() && gpu.uuid.is_some())
}

/// What the two say differently of one GPU.
fn difference(device: &Device, gpu: &NvmlDevice) -> Option<String> {
    if is_instance(device, gpu) {
        return None;
    }
    let (of_device, of_gpu) = (
        device.capability.map(|c| c.to_string()),
        gpu.capability.map(|c| c.to_string()),
    );
    let name = Some(device.name.clone()).filter(|name| !name.is_empty());
    let pairs = [
        ("UUID", &device.uuid, &gpu.uuid, same as fn(&str, &str) -> bool),
        ("PCI address", &device.pci_bus_id, &gpu.pci_bus_id, same_place),
        ("name", &name, &gpu.name, same_name),
        ("compute capability", &of_device, &of_gpu, same),
    ];
    let differing = pairs.into_iter().filter_map(|(what, one, other, are_same)| {
        let (one, other) = (one.as_deref()?, other.as_deref()?);
        (!are_same(one, other)).then(|| format!("{what} {one} by CUDA and {other} by NVML"))
    });
    let differing: Vec<String> = differing.collect();
    (!differing.is_empty()).then(|| format!("GPU {} has {}", device.ordinal, differing.join(", ")))
}

fn same(one: &str, other: &str) -> bool {
    one == other
}

/// The domain has 16 bits in some answers and 32 in others.
fn same_place(one: &str, other: &str) -> bool {
    let within_domain = |address: &str| address.split_once(':').map(|(_, rest)| rest.to_string());
    within_domain(one) == within_domain(other)
}

/// Names begin with NVIDIA since driver 470, and a libcuda for forward compatibility is newer than the driver.
fn same_name(one: &str, other: &str) -> bool {
    let bare = |name: &str| name.trim().trim_start_matches("NVIDIA ").to_ascii_lowercase();
    bare(one) == bare(other)
}

/// Whether nothing that is known keeps CUDA from showing it: no variable, no MIG, and its
/// node opens.
fn ought_to_be_shown(gpu: &NvmlDevice, facts: &Facts) -> bool {
    let device = &facts.device;
    let node = gpu.minor.map(|minor| format!("/dev/nvidia{minor}"));
    let is_set = |name| facts.environment.contains_key(name);
    // A server of MPS shows its clients what it was shown itself.
    !is_set("CUDA_VISIBLE_DEVICES")
        && !is_set("CUDA_MPS_PIPE_DIRECTORY")
        && gpu.error.is_none()
        && device
            .nvml_devices
            .iter()
            .all(|gpu| gpu.mig_enabled != Some(true))
        && node.is_some_and(|node| {
            let mut opened = device.opened.iter();
            opened.any(|opened| opened.path == node && opened.errno.is_none())
        })
}

fn of_cuda(device: &Device) -> String {
    let capability = device.capability.map(|c| c.to_string());
    described(
        &format!("GPU {} {}", device.ordinal, device.name),
        [&device.uuid, &device.pci_bus_id, &capability],
    )
}

fn of_nvml(gpu: &NvmlDevice) -> String {
    let capability = gpu.capability.map(|c| c.to_string());
    described(
        &format!("GPU {} {}", gpu.index, gpu.name.as_deref().unwrap_or_default()),
        [&gpu.uuid, &gpu.pci_bus_id, &capability],
    )
}

fn described(name: &str, known: [&Option<String>; 3]) -> String {
    let known: Vec<&str> = known.into_iter().flatten().map(String::as_str).collect();
    format!("{} ({})", name.trim_end(), known.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::facts;
    use super::*;
    use crate::check::Status;

    fn cuda(ordinal: i32, uuid: &str, bus: &str) -> Value {
        json!({"ordinal": ordinal, "name": "NVIDIA H200", "capability": "9.0", "uuid": uuid, "pci_bus_id": format!("0000:{bus}:00.0")})
    }

    fn nvml(index: u32, uuid: &str, bus: &str) -> Value {
        json!({"index": index, "name": "NVIDIA H200", "capability": "9.0", "uuid": uuid, "minor": index,
               "pci_bus_id": format!("0000:{bus}:00.0")})
    }

    /// What is observed; empty where nothing is said.
    fn said(devices: Value, gpus: Value, more: Value, environment: Value) -> String {
        let count = gpus.as_array().unwrap().len();
        let mut all = json!({"devices": devices, "nvml_devices": gpus, "nvml": {"device_count": count}});
        for (key, value) in more.as_object().unwrap() {
            all[key] = value.clone();
        }
        let Some(finding) = judge(&facts(all, environment)) else {
            return String::new();
        };
        assert_eq!((finding.code, finding.status), (Code::NvmlDiffers, Status::Warn));
        assert!(!finding.retryable && finding.problem);
        finding.observed
    }

    fn with(mut value: Value, key: &str, to: Value) -> Value {
        value[key] = to;
        value
    }

    #[test]
    fn healthy_machines_are_silent() {
        let opened = json!({"opened": [{"path": "/dev/nvidia0"}, {"path": "/dev/nvidia1"}]});
        let two = json!([nvml(0, "GPU-a", "3b"), nvml(1, "GPU-b", "5e")]);
        let none = json!({});
        for (devices, gpus, more, environment) in [
            (
                json!([cuda(0, "GPU-a", "3b"), cuda(1, "GPU-b", "5e")]),
                two.clone(),
                opened.clone(),
                none.clone(),
            ),
            // CUDA counts the fastest first.
            (
                json!([cuda(0, "GPU-b", "5e"), cuda(1, "GPU-a", "3b")]),
                two.clone(),
                opened.clone(),
                none.clone(),
            ),
            // A variable, or MPS, shows CUDA fewer.
            (
                json!([cuda(0, "GPU-b", "5e")]),
                two.clone(),
                opened.clone(),
                json!({"CUDA_VISIBLE_DEVICES": "1"}),
            ),
            (
                json!([cuda(0, "GPU-b", "5e")]),
                two.clone(),
                opened.clone(),
                json!({"CUDA_VISIBLE_DEVICES": "GPU-b"}),
            ),
            (
                json!([cuda(0, "GPU-b", "5e")]),
                two.clone(),
                opened.clone(),
                json!({"CUDA_MPS_PIPE_DIRECTORY": "/mps"}),
            ),
            // The other one's node is not in the container, or its cgroup forbids it.
            (
                json!([cuda(0, "GPU-a", "3b")]),
                two.clone(),
                json!({"opened": [{"path": "/dev/nvidia0"}]}),
                none.clone(),
            ),
            (
                json!([cuda(0, "GPU-a", "3b")]),
                two,
                json!({"opened": [{"path": "/dev/nvidia0"}, {"path": "/dev/nvidia1", "errno": 1}]}),
                none.clone(),
            ),
            // Of another container's GPU NVML refuses everything.
            (
                json!([cuda(0, "GPU-a", "3b")]),
                json!([nvml(0, "GPU-a", "3b"), {"index": 1, "error": {"call": "nvmlDeviceGetHandleByIndex_v2", "code": 4, "name": "", "description": ""}}]),
                opened.clone(),
                none.clone(),
            ),
            // An instance has its GPU's address and a name and a UUID of its own; the other GPU is not shown beside it.
            (
                json!([with(
                    cuda(0, "MIG-1", "3b"),
                    "name",
                    json!("NVIDIA H200 MIG 1g.18gb")
                )]),
                json!([
                    with(nvml(0, "GPU-a", "3b"), "mig_enabled", json!(true)),
                    nvml(1, "GPU-b", "5e")
                ]),
                opened.clone(),
                none.clone(),
            ),
            // An NVML of WSL2 or a shim that lacks functions.
            (
                json!([cuda(0, "GPU-a", "3b")]),
                json!([{"index": 0}]),
                none.clone(),
                none.clone(),
            ),
            (
                json!([cuda(0, "GPU-a", "3b")]),
                json!([{"index": 0, "uuid": "GPU-a"}]),
                none.clone(),
                none.clone(),
            ),
            (
                json!([cuda(0, "GPU-a", "3b")]),
                json!([{"index": 0, "pci_bus_id": "0000:3b:00.0"}]),
                none.clone(),
                none.clone(),
            ),
            // An older NVML beside a libcuda for forward compatibility; domains of 16 and 32 bits.
            (
                json!([cuda(0, "GPU-a", "3b")]),
                json!([with(
                    with(nvml(0, "GPU-a", "3b"), "name", json!("H200")),
                    "pci_bus_id",
                    json!("10000:3b:00.0")
                )]),
                none.clone(),
                none.clone(),
            ),
        ] {
            assert_eq!(said(devices.clone(), gpus, more, environment), "", "{devices}");
        }
    }

    #[test]
    fn every_difference_is_named_from_both_sides() {
        let one = || json!([cuda(0, "GPU-a", "3b")]);
        let gpu = |key: &str, to: Value| json!([with(nvml(0, "GPU-a", "3b"), key, to)]);
        for (gpus, part) in [
            (
                json!([nvml(0, "GPU-x", "99")]),
                "NVML does not show CUDA's GPU 0 NVIDIA H200 (GPU-a, 0000:3b:00.0, 9.0)",
            ),
            (json!([]), "NVML does not show CUDA's GPU 0"),
            (json!([]), "; CUDA shows 1, NVML 0"),
            (
                gpu("uuid", json!("GPU-x")),
                "GPU 0 has UUID GPU-a by CUDA and GPU-x by NVML",
            ),
            (
                gpu("pci_bus_id", json!("0000:99:00.0")),
                "GPU 0 has PCI address 0000:3b:00.0 by CUDA and 0000:99:00.0 by NVML",
            ),
            (
                gpu("name", json!("Tesla T4")),
                "GPU 0 has name NVIDIA H200 by CUDA and Tesla T4 by NVML",
            ),
            (
                gpu("capability", json!("7.5")),
                "GPU 0 has compute capability 9.0 by CUDA and 7.5 by NVML",
            ),
        ] {
            let said = said(one(), gpus, json!({}), json!({}));
            assert!(said.contains(part), "{said}");
        }
        let two = json!([nvml(0, "GPU-a", "3b"), nvml(1, "GPU-b", "5e")]);
        let opened = json!({"opened": [{"path": "/dev/nvidia0"}, {"path": "/dev/nvidia1"}]});
        let fewer = said(one(), two, opened, json!({}));
        assert!(
            fewer.starts_with(
                "CUDA does not show NVML's GPU 1 NVIDIA H200 (GPU-b, 0000:5e:00.0, 9.0); CUDA shows 1, NVML 2"
            ),
            "{fewer}"
        );
        // Eight that are others are not eight lines.
        let many: Vec<Value> = (0..8)
            .map(|n| cuda(n, &format!("GPU-{n}"), &format!("1{n}")))
            .collect();
        let said = said(json!(many), json!([nvml(0, "GPU-a", "3b")]), json!({}), json!({}));
        assert_eq!(said.matches("NVML does not show").count(), MOST, "{said}");
        assert!(said.contains("; 4 more; CUDA shows 8, NVML 1"), "{said}");
    }

    #[test]
    fn who_has_not_told_all_is_not_held_against_the_other() {
        let (devices, gpus) = (json!([cuda(0, "GPU-a", "3b")]), json!([nvml(0, "GPU-x", "99")]));
        let error = json!({"call": "cuDeviceGetName", "code": 999, "name": "", "description": ""});
        for more in [
            json!({"nvml": {"device_count": 2}}),
            json!({"nvml": {"device_count": 1, "error": error}}),
            json!({"nvml": null}),
            json!({"nvml_helper": {"end": "crashed", "signal": 11, "step": "x"}}),
            json!({"devices": [with(devices[0].clone(), "error", error.clone())]}),
            json!({"devices": []}),
        ] {
            assert_eq!(
                said(devices.clone(), gpus.clone(), more.clone(), json!({})),
                "",
                "{more}"
            );
        }
        assert_ne!(said(devices, gpus, json!({}), json!({})), "");
    }
}
