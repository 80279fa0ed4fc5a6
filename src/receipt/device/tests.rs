use serde_json::json;

use super::*;
use crate::facts::read::{FromJson, from_json};
use crate::facts::smoke::{SmokeDevice, SmokeOutcome, SmokePassed, SmokeResult, SmokeRun, SmokeStep};

const A: &str = "GPU-aaaaaaaa-0000-4000-8000-000000000000";
const B: &str = "GPU-bbbbbbbb-0000-4000-8000-000000000000";
const C: &str = "GPU-cccccccc-0000-4000-8000-000000000000";

/// GPUs as NVML and CUDA see them, with their nodes.
fn machine(uuids: &[&str]) -> DeviceFacts {
    let pci = |uuid: &str| format!("0000:{}:00.0", &uuid[4..6]);
    let minor = |uuid: &str| u32::from(uuid.as_bytes()[4] - b'a');
    let devices = uuids.iter().enumerate().map(|(ordinal, uuid)| {
        json!({"ordinal": ordinal, "name": "H200", "uuid": uuid, "pci_bus_id": pci(uuid), "compute_mode": 0})
    });
    let gpus = uuids.iter().enumerate().map(|(index, uuid)| {
        json!({"index": index, "uuid": uuid, "pci_bus_id": pci(uuid), "minor": minor(uuid), "mig_enabled": false,
            "compute_mode": 0})
    });
    let shared = ["/dev/nvidiactl", "/dev/nvidia-uvm"].map(|path| json!({"path": path}));
    let nodes = uuids
        .iter()
        .map(|uuid| json!({"path": format!("/dev/nvidia{}", minor(uuid))}));
    FromJson::from_json(json!({
        "driver": {"path": "/usr/lib/libcuda.so.1", "api_version": "13.0", "device_count": uuids.len()},
        "devices": devices.collect::<Vec<_>>(),
        "helper": {"end": "done"},
        "nvml": {"driver_release": "580.1", "device_count": uuids.len()},
        "nvml_devices": gpus.collect::<Vec<_>>(),
        "opened": shared.into_iter().chain(nodes).collect::<Vec<_>>(),
        "nvml_helper": {"end": "done"}
    }))
    .unwrap()
}

fn now() -> Now {
    Now {
        at: 1_000_000,
        boot: Some("boot-1".into()),
    }
}

/// Where the loader finds libcuda.
fn basis() -> DeviceBasis {
    DeviceBasis {
        libcuda: vec!["/usr/lib/libcuda.so.1\t1 1".into()],
        loaded: [("/etc/ld.so.preload".to_string(), "absent".to_string())].into(),
    }
}

fn in_force(list: Option<&str>) -> Texts {
    let variable = list.map(|list| ("CUDA_VISIBLE_DEVICES".to_string(), list.to_string()));
    variable.into_iter().collect()
}

fn step(name: &str, device: Option<u32>) -> SmokeResult {
    SmokeResult {
        step: SmokeStep {
            entry: "torch".into(),
            step: name.into(),
            device,
        },
        outcome: SmokeOutcome::Passed(SmokePassed::default()),
    }
}

fn smoke(devices: u32) -> SmokePart {
    let on = |ordinal| SmokeDevice {
        ordinal,
        name: format!("was {ordinal}"),
        uuid: String::new(),
    };
    let steps = [step("import torch", None)].into_iter();
    SmokePart {
        written: now().written(),
        image: "i".into(),
        options: Vec::new(),
        facts: SmokeFacts {
            builtin: SmokeRun {
                devices: (0..devices).map(on).collect(),
                steps: steps
                    .chain((0..devices).map(|d| step("forward", Some(d))))
                    .collect(),
                ..SmokeRun::default()
            },
            ..SmokeFacts::default()
        },
    }
}

fn part(uuids: &[&str], list: Option<&str>) -> DevicePart {
    let found = machine(uuids);
    DevicePart {
        written: now().written(),
        key: key(in_force(list), &now(), &found, basis()).unwrap(),
        driver: found.driver.clone().unwrap(),
        smoke: Some(smoke(u32::try_from(uuids.len()).unwrap())),
        devices: found.devices,
    }
}

/// What the recognising start knows: NVML alone was asked.
fn seen(uuids: &[&str]) -> DeviceFacts {
    DeviceFacts {
        driver: None,
        devices: Vec::new(),
        helper: crate::facts::HelperRun::default(),
        ..machine(uuids)
    }
}

#[track_caller]
fn refused(part: &DevicePart, seen: &DeviceFacts) -> String {
    part.recognise(seen).expect_err("recognised").join("; ")
}

#[test]
fn the_same_machine_is_recognised() {
    let part = part(&[A, B], None);
    let text = serde_json::to_string(&part).unwrap();
    assert_eq!(from_json::<DevicePart>(text.as_bytes()).unwrap(), part);
    part.may_hold(&in_force(None), &now(), &basis()).unwrap();
    let known = part.recognise(&seen(&[A, B])).unwrap();
    assert_eq!(
        (known.driver, known.devices),
        (part.driver.clone(), part.devices.clone())
    );
    assert_eq!(known.smoke, part.smoke);
}

#[test]
fn fewer_gpus_are_proven_and_renumbered() {
    let part = part(&[A, B, C], None);
    let known = part.recognise(&seen(&[C, A])).unwrap();
    let uuids: Vec<_> = known
        .devices
        .iter()
        .map(|d| (d.ordinal, d.uuid.as_deref().unwrap()))
        .collect();
    assert_eq!(uuids, [(0, A), (1, C)]);
    assert_eq!(known.driver.device_count, Some(2));
    let smoke = known.smoke.unwrap().facts.builtin;
    let devices: Vec<_> = smoke
        .devices
        .iter()
        .map(|d| (d.ordinal, d.name.as_str()))
        .collect();
    assert_eq!(devices, [(0, "was 0"), (1, "was 2")]);
    let steps: Vec<_> = smoke.steps.iter().map(|s| s.step.device).collect();
    assert_eq!(steps, [None, Some(0), Some(1)]);
}

#[test]
fn a_gpu_that_was_not_proven_is_refused_by_name() {
    assert_eq!(
        refused(&part(&[A], None), &seen(&[A, B])),
        format!("{B} was not proven")
    );
    assert_eq!(
        refused(&part(&[A], None), &seen(&[B])),
        format!("{B} was not proven")
    );
    assert_eq!(refused(&part(&[A], None), &seen(&[])), "NVML shows no GPU");
}

#[test]
fn a_list_of_numbers_means_other_gpus_once_one_is_gone() {
    // Two are there, CUDA shows the second.
    let mut part = part(&[A, B], Some("1"));
    part.devices.remove(0);
    part.devices[0].ordinal = 0;
    assert_eq!(part.recognise(&seen(&[A, B])).unwrap().devices, part.devices);
    let error = refused(&part, &seen(&[B]));
    assert_eq!(
        error,
        format!("{A} is gone, and what CUDA_VISIBLE_DEVICES=1 means may be another GPU now")
    );
    assert_eq!(refused(&part, &seen(&[A])), format!("{A} was not proven"));
}

#[test]
fn mig_instances_stand_for_their_gpu() {
    let instances = |uuids: &[&str]| {
        let mut found = machine(&[A]);
        found.nvml_devices[0].mig_enabled = Some(true);
        found.nvml_devices[0].mig_instances = u32::try_from(uuids.len()).ok();
        found.nvml_devices[0].mig_uuids = uuids.iter().map(ToString::to_string).collect();
        found
    };
    // CUDA shows the first of them alone.
    let mut both = instances(&["MIG-1", "MIG-2"]);
    both.devices[0].uuid = Some("MIG-1".into());
    let part = DevicePart {
        key: key(in_force(None), &now(), &both, basis()).unwrap(),
        devices: both.devices.clone(),
        ..part(&[A], None)
    };
    assert_eq!(
        part.recognise(&instances(&["MIG-1", "MIG-2"])).unwrap().devices,
        part.devices
    );
    assert_eq!(part.recognise(&instances(&["MIG-1"])).unwrap().devices.len(), 1);
    assert_eq!(refused(&part, &instances(&["MIG-2"])), "MIG-2 was not proven");
    assert_eq!(refused(&part, &seen(&[A])), format!("{A} was not proven"));
    assert_eq!(refused(&part, &instances(&[])), "NVML shows no GPU");
    let mut untold = instances(&["MIG-1"]);
    untold.nvml_devices[0].mig_instances = Some(2);
    assert_eq!(refused(&part, &untold), "NVML does not report the UUID of GPU 0");
}

#[test]
fn what_nvml_does_not_say_is_not_recognised() {
    let part = part(&[A], None);
    let error =
        |code| FromJson::from_json(json!({"call": "c", "code": code, "name": "", "description": ""})).ok();
    let mut all: Vec<(DeviceFacts, &str)> = Vec::new();
    let mut add = |change: &dyn Fn(&mut DeviceFacts), said| {
        let mut found = seen(&[A]);
        change(&mut found);
        all.push((found, said));
    };
    add(
        &|f| f.nvml_helper.end = HelperEnd::NotRun,
        "its process did not go through",
    );
    add(&|f| f.nvml = None, "no answer");
    add(
        &|f| f.nvml.as_mut().unwrap().load_error = Some("no such file".into()),
        "no such file",
    );
    add(&|f| f.nvml.as_mut().unwrap().error = error(999), "c returned 999");
    add(&|f| f.nvml.as_mut().unwrap().driver_release = None, "no release");
    add(
        &|f| f.nvml.as_mut().unwrap().driver_release = Some("580.2".into()),
        r#"the driver was "580.1" and is "580.2""#,
    );
    add(
        &|f| f.nvml_devices[0].uuid = None,
        "does not report the UUID of GPU 0",
    );
    add(&|f| f.nvml_devices[0].error = error(15), ""); // a sick GPU: judged with all the rest
    for (found, said) in all {
        match part.recognise(&found) {
            Ok(_) => assert_eq!(said, ""),
            Err(why) => assert!(
                !said.is_empty() && why.join("; ").contains(said),
                "{said}: {why:?}"
            ),
        }
    }
    // Another container's GPU, whose handle is refused, is none of ours.
    let mut shared = seen(&[A, B]);
    shared.nvml_devices[1] = NvmlDevice {
        index: 1,
        error: error(4),
        ..NvmlDevice::default()
    };
    assert_eq!(part.recognise(&shared).unwrap().devices.len(), 1);
}

#[test]
fn nodes_that_opened_have_to_open_where_they_are_needed() {
    let part = part(&[A, B], None);
    for path in ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0"] {
        let mut closed = seen(&[A, B]);
        closed.opened.iter_mut().find(|n| n.path == path).unwrap().errno = Some(1);
        assert_eq!(
            refused(&part, &closed),
            format!("{path} does not open: EPERM: Operation not permitted")
        );
        let mut gone = seen(&[A, B]);
        gone.opened.retain(|n| n.path != path);
        assert_eq!(refused(&part, &gone), format!("{path} is gone"));
    }
    // With its GPU the node may go, and one that never opened was never needed.
    assert!(part.recognise(&seen(&[A])).is_ok());
    let mut closed = machine(&[A]);
    closed.opened[1].errno = Some(13);
    let part = DevicePart {
        key: key(in_force(None), &now(), &closed, basis()).unwrap(),
        ..part
    };
    assert!(
        part.recognise(&DeviceFacts {
            driver: None,
            devices: Vec::new(),
            ..closed
        })
        .is_ok()
    );
}

#[test]
fn the_compute_mode_is_the_present_one() {
    let mut prohibited = seen(&[A]);
    prohibited.nvml_devices[0].compute_mode = Some(2);
    assert_eq!(
        part(&[A], None).recognise(&prohibited).unwrap().devices[0].compute_mode,
        Some(2)
    );
}

#[test]
fn boot_age_clock_libcuda_and_variables_each_refuse() {
    let part = part(&[A], None);
    let libcuda = |lines: &[&str]| DeviceBasis {
        libcuda: lines.iter().map(ToString::to_string).collect(),
        ..basis()
    };
    let preload = DeviceBasis {
        loaded: [("/etc/ld.so.preload".to_string(), "9 1 a".to_string())].into(),
        ..basis()
    };
    let at = |at| Now { at, ..now() };
    for (in_force, now, basis, said) in [
        (in_force(None), now(), basis(), ""),
        (in_force(None), at(1_000_000 + 86_400), basis(), ""),
        (in_force(None), at(1_000_000 + 86_401), basis(), "24 h old"),
        (in_force(None), at(1_000_000 - 60), basis(), ""),
        (in_force(None), at(1_000_000 - 61), basis(), "61 s in the future"),
        (in_force(None), at(0), basis(), "in the future"),
        (
            in_force(None),
            Now {
                boot: Some("boot-2".into()),
                ..now()
            },
            basis(),
            "written for another boot",
        ),
        (
            in_force(None),
            Now { boot: None, ..now() },
            basis(),
            "boot_id is not there",
        ),
        (
            in_force(None),
            now(),
            libcuda(&["/usr/lib/libcuda.so.1\t1 2"]),
            "/usr/lib/libcuda.so.1 is another file now",
        ),
        (
            in_force(Some("0")),
            now(),
            basis(),
            r#"CUDA_VISIBLE_DEVICES was unset and is "0""#,
        ),
        (
            in_force(None),
            now(),
            libcuda(&["/compat/libcuda.so.1\t7 7", "/usr/lib/libcuda.so.1\t1 1"]),
            "/compat/libcuda.so.1 lies in the place of /usr/lib/libcuda.so.1",
        ),
        (in_force(None), now(), libcuda(&[]), "none lies in the place of"),
        (
            in_force(None),
            now(),
            preload,
            r#"/etc/ld.so.preload was "absent" and is "9 1 a""#,
        ),
    ] {
        match part.may_hold(&in_force, &now, &basis) {
            Ok(()) => assert_eq!(said, ""),
            Err(why) => {
                assert_eq!(why.len(), 1, "{why:?}");
                assert!(!said.is_empty() && why[0].contains(said), "{said}: {why:?}");
            }
        }
    }
    let smoke = part.smoke.unwrap();
    for (image, options, at, said) in [
        (Some("i"), vec![], 1_000_000, ""),
        (Some("j"), vec![], 1_000_000, "another state of the image"),
        (None, vec![], 1_000_000, "another state of the image"),
        (
            Some("i"),
            vec!["-I".to_string()],
            1_000_000,
            r#"options was none and is "-I""#,
        ),
        (Some("i"), vec![], 2_000_000, "277 h old"),
    ] {
        let error = smoke.holds(image, &options, at).err().unwrap_or_default();
        assert_eq!(error.is_empty(), said.is_empty(), "{error}");
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn what_cannot_be_recognised_later_is_not_written() {
    let good = machine(&[A]);
    assert!(key(in_force(None), &now(), &good, basis()).is_ok());
    let boot = Now { boot: None, ..now() };
    assert!(
        key(in_force(None), &boot, &good, basis())
            .unwrap_err()
            .contains("boot_id")
    );
    let mut nameless = good.clone();
    nameless.devices[0].uuid = None;
    assert!(
        key(in_force(None), &now(), &nameless, basis())
            .unwrap_err()
            .contains("UUID of GPU 0")
    );
    let mut led = good.clone();
    led.driver.as_mut().unwrap().path = Some("/opt/libcuda.so.1".into());
    let error = key(in_force(None), &now(), &led, basis()).unwrap_err();
    assert_eq!(error, "what leads the loader to /opt/libcuda.so.1 is not known");
    let mut blind = good;
    blind.nvml = None;
    assert!(
        key(in_force(None), &now(), &blind, basis())
            .unwrap_err()
            .contains("NVML does not list")
    );
}

#[test]
fn a_libcuda_in_a_folder_with_a_blank_is_known() {
    let basis = DeviceBasis {
        libcuda: vec!["/a b/libcuda.so.1\t1 1".into()],
        ..DeviceBasis::default()
    };
    assert!(basis.knows(Path::new("/a b/libcuda.so.1")));
    assert!(!basis.knows(Path::new("/a")));
}
