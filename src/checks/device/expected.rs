//! The GPUs that the manifest expects: how many, and how much of their memory is free. Pure.

use super::{differs, kinds, visibility};
use crate::check::{Code, Finding, Severity};
use crate::facts::{Device, Facts, MemoryHolder, MemoryState};
use crate::stack::{Stack, write_size};
use crate::text::counted;

/// Most holders that are named.
const MOST: usize = 3;

/// Nothing where CUDA shows no GPU: that has its own finding.
pub fn judge(stack: &Stack, facts: &Facts) -> Vec<Finding> {
    let counted = count(stack, facts);
    // Which GPUs are hidden is part of the hint there.
    let is_told = counted.as_ref().is_some_and(|finding| finding.problem);
    let hidden = named_in_vain(facts).filter(|_| !is_told);
    let mut findings: Vec<Finding> = counted.into_iter().chain(hidden).collect();
    if let Some(required) = stack.limits.gpu_memory_free {
        findings.extend(memory(required, facts));
    }
    findings
}

fn count(stack: &Stack, facts: &Facts) -> Option<Finding> {
    let rule = stack.gpus?;
    let device = &facts.device;
    let driver = device.driver.as_ref()?;
    let count = driver.device_count.and_then(|count| u32::try_from(count).ok());
    let count = count.filter(|count| *count > 0 && driver.error.is_none())?;
    let shown = kinds(&device.devices);
    if rule.accepts(count) {
        return Some(
            Finding::pass(Code::GpuCount, "GPUs")
                .observed(shown)
                .required(rule.words())
                .message("CUDA shows as many GPUs as the manifest asks for"),
        );
    }
    let least = rule.least();
    let is_less = count < least;
    let in_nvml = device.nvml.as_ref().and_then(|nvml| nvml.device_count);
    let of_nvml = match in_nvml {
        Some(all) => format!("; NVML sees {}", counted(all, "GPU")),
        None => String::new(),
    };
    let lists = facts.environment.contains_key("CUDA_VISIBLE_DEVICES");
    let is_instance = |device: &Device| {
        let uuid = device.uuid.as_deref().unwrap_or_default();
        uuid.starts_with("MIG-")
    };
    let ask = format!("`docker run --gpus {least}`, `resources.limits.\"nvidia.com/gpu\": {least}`");
    let hint = if !is_less {
        "list the GPUs to use in CUDA_VISIBLE_DEVICES, or give the container fewer (`docker run --gpus '\"device=0,1\"'`)".to_string()
    } else if device.devices.iter().any(is_instance) {
        format!(
            "CUDA enumerates one MIG instance in a process: give the container whole GPUs ({ask}), or start a process for each instance"
        )
    } else if lists && in_nvml.is_some_and(|all| all >= least) {
        "CUDA_VISIBLE_DEVICES hides GPUs of this container: unset it, or list more; after its first invalid entry the rest is ignored".to_string()
    } else if in_nvml.is_some_and(|all| all > count) {
        "NVML sees GPUs that CUDA does not: compare `nvidia-smi -L` in the container and on the host, and give the container the device node of each GPU".to_string()
    } else {
        format!("give the container more GPUs ({ask}), or lower `gpus` in the manifest")
    };
    let message = if is_less {
        "CUDA shows fewer GPUs than the manifest asks for"
    } else {
        "CUDA shows more GPUs than the manifest accepts"
    };
    Some(
        Finding::problem(Code::GpuCount, "GPUs")
            .observed(format!("{count}: {shown}; {}{of_nvml}", visibility(facts)))
            .required(format!("{} (gpus in the manifest)", rule.words()))
            .message(message)
            .hint(hint),
    )
}

/// An entry of CUDA_VISIBLE_DEVICES that names no GPU, so that the ones behind it are hidden.
///
/// Source: CUDA C++ Programming Guide, "CUDA Environment Variables". An entry that is there twice leaves no device at all.
fn named_in_vain(facts: &Facts) -> Option<Finding> {
    let list = facts.environment.get("CUDA_VISIBLE_DEVICES")?;
    let entries: Vec<&str> = list
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .collect();
    let driver = facts.device.driver.as_ref()?;
    let count = usize::try_from(driver.device_count?).ok()?;
    // -1 ends the list on purpose.
    let wanted = entries.iter().take_while(|entry| **entry != "-1").count();
    // Of several MIG instances CUDA shows one, whichever are named.
    if count == 0 || wanted <= count || entries.iter().any(|entry| entry.starts_with("MIG-")) {
        return None;
    }
    let first = entries.get(count)?;
    Some(
        Finding::problem_as(Code::GpuCount, Severity::Warn, "CUDA_VISIBLE_DEVICES")
            .observed(format!("CUDA_VISIBLE_DEVICES={list}; CUDA shows {count}"))
            .required(format!("{wanted} GPUs, as the list has entries"))
            .message(format!(
                "CUDA_VISIBLE_DEVICES has {wanted} entries and CUDA shows {count}: {first} names no GPU of this container, and what \
                 stands behind it is ignored"
            ))
            .hint("unset CUDA_VISIBLE_DEVICES, or list GPUs of this container alone: they are numbered from 0, whatever their numbers on the node"),
    )
}

fn memory(required: u64, facts: &Facts) -> Vec<Finding> {
    let asked = format!(
        "at least {} free (gpu_memory_free {})",
        mib(required),
        write_size(required)
    );
    let mut findings = Vec::new();
    let mut enough = Vec::new();
    for device in &facts.device.devices {
        let subject = format!("GPU {} {}", device.ordinal, device.name);
        let finding = match state(device, facts) {
            Some(state) if state.free >= required => {
                enough.push((subject, state.free));
                continue;
            }
            Some(state) if state.total < required => Finding::problem(Code::GpuMemory, subject)
                .observed(format!("{} in all", mib(state.total)))
                .message("this GPU has less memory than the manifest asks for")
                .hint("schedule onto a node with a larger GPU (the label nvidia.com/gpu.memory names its size), or lower limits.gpu_memory_free in the manifest"),
            Some(state) => Finding::problem(Code::GpuMemory, subject)
                .observed(format!(
                    "{} free of {}{}",
                    mib(state.free),
                    mib(state.total),
                    held(&state.holders)
                ))
                .message("less memory of this GPU is free than the manifest asks for")
                .hint("end the processes that hold it (nvidia-smi on the node lists them), or schedule onto a GPU that is not shared; --wait waits until enough is free")
                .retryable(),
            None => Finding::problem_as(Code::GpuMemory, Severity::Warn, subject)
                .observed("not known: NVML does not say how much is free")
                .message("it is not known whether this GPU has the free memory that the manifest asks for")
                .hint("let NVIDIA_DRIVER_CAPABILITIES contain `utility`, and look at nvidia-smi in the container; a GPU that shares the machine's memory reports none of its own: leave limits.gpu_memory_free out for it"),
        };
        findings.push(finding.required(asked.clone()));
    }
    let least = enough.iter().map(|(_, free)| *free).min();
    if let (Some(least), Some((first, _))) = (least, enough.first()) {
        let (subject, observed) = match enough.len() {
            1 => (first.clone(), format!("{} free", mib(least))),
            count => (format!("{count} GPUs"), format!("{} free or more", mib(least))),
        };
        findings.push(
            Finding::pass(Code::GpuMemory, subject)
                .observed(observed)
                .required(asked)
                .message("enough memory is free"),
        );
    }
    findings
}

/// What NVML says of the memory of a device of CUDA's.
fn state<'a>(device: &Device, facts: &'a Facts) -> Option<&'a MemoryState> {
    let mut gpus = facts.device.nvml_devices.iter();
    let gpu = gpus.find(|gpu| differs::is_of(device, gpu))?;
    let mut states = gpu.memory_now.iter();
    match gpu.memory_now.as_slice() {
        [only] if gpu.mig_enabled != Some(true) => Some(only),
        _ => states.find(|state| device.uuid.as_ref() == Some(&state.uuid)),
    }
}

/// `; PID 4242 holds 100000 MiB, PID 17 holds 3 MiB and 2 more`
fn held(holders: &[MemoryHolder]) -> String {
    if holders.is_empty() {
        return String::new();
    }
    let named = holders.iter().take(MOST).map(|holder| match holder.bytes {
        Some(bytes) => format!("PID {} holds {}", holder.pid, mib(bytes)),
        None => format!("PID {} holds some", holder.pid),
    });
    let named: Vec<String> = named.collect();
    let more = match holders.len().saturating_sub(MOST) {
        0 => String::new(),
        more => format!(" and {}", counted(more, "more process")),
    };
    format!("; {}{more}", named.join(", "))
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::facts;
    use super::*;
    use crate::check::Status;

    fn expecting(part: Value) -> Stack {
        let mut manifest = json!({"schema": 1, "name": "t"});
        for (key, value) in part.as_object().unwrap() {
            manifest[key] = value.clone();
        }
        Stack::parse(&manifest.to_string()).unwrap()
    }

    /// So many GPUs, by CUDA and by NVML.
    fn gpus(cuda: i32, nvml: u32) -> Value {
        let devices: Vec<Value> = (0..cuda)
            .map(|n| json!({"ordinal": n, "name": "NVIDIA L4", "uuid": format!("GPU-{n}")}))
            .collect();
        json!({"driver": {"device_count": cuda}, "devices": devices, "nvml": {"device_count": nvml}, "nvml_devices": []})
    }

    fn counted(rule: &str, device: Value, environment: Value) -> Option<Finding> {
        count(&expecting(json!({"gpus": rule})), &facts(device, environment))
    }

    #[test]
    fn an_entry_that_names_no_gpu_hides_those_behind_it() {
        for (list, cuda, told) in [
            ("0,1,2,3", 1, Some("1 names no GPU")),
            ("0,GPU-x,1", 1, Some("GPU-x names no GPU")),
            ("0,1", 2, None),
            ("0", 8, None),
            ("0,-1,5", 1, None),
            ("0,,", 1, None),
            ("MIG-a,MIG-b", 1, None),
            ("7", 0, None),
        ] {
            let facts = facts(gpus(cuda, 8), json!({"CUDA_VISIBLE_DEVICES": list}));
            let finding = named_in_vain(&facts);
            let message = finding.as_ref().map(|f| (f.status, f.message.clone()));
            assert_eq!(message.is_some(), told.is_some(), "{list}: {message:?}");
            if let (Some((status, message)), Some(told)) = (message, told) {
                assert!(
                    status == Status::Warn && message.contains(told),
                    "{list}: {message}"
                );
            }
        }
        assert_eq!(named_in_vain(&facts(gpus(1, 1), json!({}))), None);
    }

    #[test]
    fn gpus_are_counted_as_cuda_shows_them() {
        for (rule, count) in [("1", 1), ("1", 8), (">=2", 2), ("==8", 8), (">=2,<=4", 4)] {
            let finding = counted(rule, gpus(count, 8), json!({})).unwrap();
            assert_eq!(finding.status, Status::Pass, "{rule} {count}: {finding:#?}");
        }
        let pinned = json!({"CUDA_VISIBLE_DEVICES": "0"});
        for (rule, cuda, nvml, environment, observed, required, hint) in [
            (
                "8",
                4,
                4,
                json!({}),
                "4: 4 × NVIDIA L4",
                "at least 8 GPUs (gpus",
                "--gpus 8",
            ),
            (
                ">=2",
                1,
                1,
                json!({}),
                "; NVML sees 1 GPU",
                "at least 2 GPUs",
                "\"nvidia.com/gpu\": 2",
            ),
            (
                "2",
                1,
                2,
                pinned.clone(),
                "CUDA_VISIBLE_DEVICES=0; ",
                "at least 2",
                "unset it, or list more",
            ),
            (
                "2",
                1,
                1,
                pinned,
                "NVML sees 1 GPU",
                "at least 2",
                "give the container more",
            ),
            (
                "2",
                1,
                2,
                json!({}),
                "NVML sees 2 GPUs",
                "at least 2",
                "NVML sees GPUs that CUDA does not",
            ),
            (
                "==1",
                2,
                2,
                json!({}),
                "2: 2 × NVIDIA L4",
                "exactly 1 GPU (gpus",
                "list the GPUs to use",
            ),
        ] {
            let finding = counted(rule, gpus(cuda, nvml), environment).unwrap();
            assert_eq!(
                (finding.status, finding.retryable),
                (Status::Fail, false),
                "{rule}"
            );
            assert!(finding.observed.contains(observed), "{}", finding.observed);
            assert!(finding.required.contains(required), "{}", finding.required);
            assert!(finding.hint.contains(hint), "{}", finding.hint);
        }
        let mut instance = gpus(1, 1);
        instance["devices"][0]["uuid"] = json!("MIG-1");
        let finding = counted("2", instance, json!({})).unwrap();
        assert!(finding.hint.contains("one MIG instance"), "{}", finding.hint);
    }

    #[test]
    fn where_no_gpu_is_shown_another_finding_says_it() {
        let error = json!({"call": "cuInit", "code": 999, "name": "", "description": ""});
        for device in [
            gpus(0, 0),
            json!({"driver": {"error": error}, "devices": []}),
            json!({"driver": null, "devices": []}),
        ] {
            let facts = facts(device.clone(), json!({}));
            let stack = expecting(json!({"gpus": 2, "limits": {"gpu_memory_free": "1GiB"}}));
            assert_eq!(judge(&stack, &facts), [], "{device}");
        }
        assert_eq!(judge(&expecting(json!({})), &facts(gpus(1, 1), json!({}))), []);
    }

    const GIB: u64 = 1 << 30;

    fn remembered(device: Value, required: u64) -> Vec<Finding> {
        memory(required, &facts(device, json!({})))
    }

    fn gpu(free: u64, more: Value) -> Value {
        let mut gpu = json!({"index": 0, "uuid": "GPU-0", "memory_now": [{"uuid": "GPU-0", "total": 24 * GIB, "free": free}]});
        for (key, value) in more.as_object().unwrap() {
            gpu[key] = value.clone();
        }
        let mut all = gpus(1, 1);
        all["nvml_devices"] = json!([gpu]);
        all
    }

    #[test]
    fn free_memory_is_held_against_the_limit() {
        for free in [20 * GIB, 24 * GIB] {
            let findings = remembered(gpu(free, json!({})), 20 * GIB);
            assert_eq!((findings.len(), findings[0].status), (1, Status::Pass));
        }
        let holders =
            json!([{"pid": 7, "bytes": 5 * GIB}, {"pid": 8}, {"pid": 9, "bytes": 3 << 20}, {"pid": 10}]);
        let state = json!([{"uuid": "GPU-0", "total": 24 * GIB, "free": 20 * GIB - 1, "holders": holders}]);
        let findings = remembered(gpu(0, json!({"memory_now": state})), 20 * GIB);
        let [finding] = findings.as_slice() else {
            panic!("{findings:#?}")
        };
        assert_eq!((finding.status, finding.retryable), (Status::Fail, true));
        assert_eq!(
            finding.observed,
            "20479 MiB free of 24576 MiB; PID 7 holds 5120 MiB, PID 8 holds some, PID 9 holds 3 MiB and 1 more process"
        );
        assert_eq!(
            finding.required,
            "at least 20480 MiB free (gpu_memory_free 20GiB)"
        );
        // What is not there does not become free.
        let small = remembered(gpu(24 * GIB, json!({})), 25 * GIB);
        assert_eq!((small[0].status, small[0].retryable), (Status::Fail, false));
        assert_eq!(small[0].observed, "24576 MiB in all");
    }

    #[test]
    fn an_instance_has_memory_of_its_own() {
        let states = json!([{"uuid": "MIG-1", "total": 10 * GIB, "free": GIB}, {"uuid": "MIG-2", "total": 10 * GIB, "free": 9 * GIB}]);
        let more = json!({"mig_enabled": true, "mig_uuids": ["MIG-1", "MIG-2"], "memory_now": states});
        for (uuid, status) in [
            ("MIG-1", Status::Fail),
            ("MIG-2", Status::Pass),
            ("MIG-3", Status::Warn),
        ] {
            let mut all = gpu(0, more.clone());
            all["devices"][0]["uuid"] = json!(uuid);
            all["devices"][0]["pci_bus_id"] = json!("0000:01:00.0");
            all["nvml_devices"][0]["pci_bus_id"] = json!("0000:01:00.0");
            let findings = remembered(all, 8 * GIB);
            assert_eq!((findings.len(), findings[0].status), (1, status), "{uuid}");
        }
    }

    #[test]
    fn what_nvml_does_not_say_is_a_warning() {
        for device in [
            gpus(1, 1),
            gpu(0, json!({"memory_now": []})),
            gpu(0, json!({"uuid": "GPU-x"})),
        ] {
            let findings = remembered(device, GIB);
            assert_eq!((findings.len(), findings[0].status), (1, Status::Warn));
            assert!(findings[0].problem);
        }
    }

    #[test]
    fn each_gpu_counts() {
        let mut all = gpus(3, 3);
        let gpus = [30, 10, 40].iter().enumerate().map(|(n, free)| {
            let uuid = format!("GPU-{n}");
            json!({"index": n, "uuid": uuid, "memory_now": [{"uuid": uuid, "total": 80 * GIB, "free": free * GIB}]})
        });
        all["nvml_devices"] = gpus.collect();
        let findings = remembered(all, 20 * GIB);
        let said: Vec<_> = findings
            .iter()
            .map(|f| (f.status, f.subject.as_str(), f.observed.as_str()))
            .collect();
        assert_eq!(
            said,
            [
                (Status::Fail, "GPU 1 NVIDIA L4", "10240 MiB free of 81920 MiB"),
                (Status::Pass, "2 GPUs", "30720 MiB free or more"),
            ]
        );
    }
}
