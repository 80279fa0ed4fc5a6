//! The device part: the driver's answers and the GPUs that were proven, good on this boot of this machine for a day.
//!
//! What is cheap is asked anew at each start: NVML shows which GPUs are there and how they are, and the driver's nodes
//! are opened. What takes long, cuInit and the smoke, is taken from the receipt.
//!
//! [`key`] takes the facts apart without leaving out a field, so that a new one does not compile before it is said whether
//! it is kept, and what it rests on; `tests/receipt/basis.rs` has a change for each of them.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::key::{NAME_FILES, Texts, changed, differences, each};
use super::{Now, Written};
use crate::discover::loader::{DRIVER, search};
use crate::discover::sample::{ABSENT, stamp};
use crate::facts::read::object;
use crate::facts::smoke::SmokeFacts;
use crate::facts::{Device, DeviceFacts, DriverAnswer, HelperEnd, NvmlDevice};
use crate::order;

/// How long a proof counts, in seconds.
const MAX_AGE: u64 = 24 * 60 * 60;
/// `NVML_ERROR_NO_PERMISSION`: a GPU of another container
const NO_PERMISSION: i32 = 4;

/// The device part of a receipt.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct DevicePart {
    /// when
    pub written: Written,
    /// what has to be the same
    pub key: DeviceKey,
    /// what libcuda said
    pub driver: DriverAnswer,
    /// the devices that CUDA showed
    pub devices: Vec<Device>,
    /// the smoke that passed on all of them
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smoke: Option<SmokePart>,
}

/// What the device part rests on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct DeviceKey {
    /// manifest, list, severities, variables
    pub in_force: Texts,
    /// the kernel's name of this boot
    pub boot: String,
    /// the driver's release, as NVML tells it
    pub release: String,
    /// the files that the loader and the driver take
    pub basis: DeviceBasis,
    /// UUIDs of all GPUs, or MIG instances, that NVML showed, sorted
    pub shown: Vec<String>,
    /// nodes of the driver that opened
    pub nodes: Vec<String>,
}

/// The files that a program which uses the driver gets, wherever they are told.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct DeviceBasis {
    /// every libcuda.so.1 that the loader may take, in its order: path, tab, stamp
    pub libcuda: Vec<String>,
    /// by its path, a file that a variable or ld.so.preload has loaded as well
    pub loaded: Texts,
}

/// A smoke that passed.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SmokePart {
    /// when
    pub written: Written,
    /// the image's [`super::image::ImageKey::digest`], with [`super::own::UserCommands::state`]
    pub image: String,
    /// options of the interpreter that it ran with
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// what it saw
    pub facts: SmokeFacts,
}

object!(DevicePart {
    written,
    key,
    driver,
    devices,
    smoke
});
object!(DeviceKey {
    in_force,
    boot,
    release,
    basis,
    shown,
    nodes
});
object!(DeviceBasis { libcuda, loaded });
object!(SmokePart {
    written,
    image,
    options,
    facts
});

/// What of a receipt's device part holds for the GPUs that are here.
#[derive(Clone, PartialEq, Debug)]
pub struct Recognised {
    /// as [`DevicePart::written`]
    pub written: Written,
    /// libcuda's answers, for these devices
    pub driver: DriverAnswer,
    /// those of the proven devices that are here, renumbered
    pub devices: Vec<Device>,
    /// the smoke of these devices
    pub smoke: Option<SmokePart>,
}

impl DevicePart {
    /// Whether it is worth asking NVML: everything that can be told without the driver is the same.
    ///
    /// # Errors
    /// What is not.
    pub fn may_hold(&self, in_force: &Texts, now: &Now, basis: &DeviceBasis) -> Result<(), Vec<String>> {
        let mut wrong = differences(&self.key.in_force, in_force);
        match &now.boot {
            Some(boot) if *boot == self.key.boot => {}
            Some(_) => wrong.push("written for another boot".to_string()),
            None => {
                wrong.push("the boot ID is unknown: /proc/sys/kernel/random/boot_id is not there".to_string())
            }
        }
        wrong.extend(age_problem(&self.written, now.at));
        wrong.extend(self.key.basis.differences(basis));
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// What holds for the GPUs that NVML shows now.
    ///
    /// # Errors
    /// Why nothing does.
    pub fn recognise(&self, now: &DeviceFacts) -> Result<Recognised, Vec<String>> {
        let mut wrong = Vec::new();
        let release = release(now)?;
        if release != self.key.release {
            wrong.push(changed("the driver", Some(&self.key.release), Some(&release), ""));
        }
        let shown = shown(&now.nvml_devices)?;
        if shown.is_empty() {
            wrong.push("NVML shows no GPU".to_string());
        }
        wrong.extend(self.node_problems(now));
        let proven = |uuid: &String| self.devices.iter().any(|d| d.uuid.as_ref() == Some(uuid));
        // The same GPUs under the same variables look the same to CUDA. Of others it is known where it shows them all.
        if shown != self.key.shown {
            if let Some(uuid) = shown.iter().find(|uuid| !proven(uuid)) {
                wrong.push(format!("{uuid} was not proven"));
            } else if let Some(list) = self.key.in_force.get("CUDA_VISIBLE_DEVICES") {
                let gone = self.key.shown.iter().find(|uuid| !shown.contains(*uuid));
                let gone = gone.map_or("", String::as_str);
                wrong.push(format!(
                    "{gone} is gone, and what CUDA_VISIBLE_DEVICES={list} means may be another GPU now"
                ));
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let same = shown == self.key.shown;
        let here = |device: &&Device| same || device.uuid.as_ref().is_some_and(|uuid| shown.contains(uuid));
        Ok(self.only(here, now))
    }

    /// Nodes that opened when this was written, and do not open now although a GPU that is here needs them.
    fn node_problems(&self, now: &DeviceFacts) -> Vec<String> {
        let minors: Vec<u32> = now.nvml_devices.iter().filter_map(|gpu| gpu.minor).collect();
        let needed = |path: &&String| {
            let number = path
                .strip_prefix("/dev/nvidia")
                .and_then(|n| n.parse::<u32>().ok());
            number.is_none_or(|number| minors.contains(&number))
        };
        let problem = |path: &String| match now.opened.iter().find(|node| node.path == *path) {
            None => Some(format!("{path} is gone")),
            Some(node) => {
                let errno = nix::errno::Errno::from_raw(node.errno?);
                Some(format!("{path} does not open: {errno}"))
            }
        };
        self.key.nodes.iter().filter(needed).filter_map(problem).collect()
    }

    fn only(&self, here: impl Fn(&&Device) -> bool, now: &DeviceFacts) -> Recognised {
        let mut devices: Vec<Device> = self.devices.iter().filter(here).cloned().collect();
        // What they were, in the order of what they are.
        let mut ordinals: Vec<i32> = Vec::new();
        for (number, device) in devices.iter_mut().enumerate() {
            let number = i32::try_from(number).unwrap_or(i32::MAX);
            ordinals.push(device.ordinal);
            device.ordinal = number;
            // It can be set at any time, and NVML has the same numbers for it.
            let seen = now
                .nvml_devices
                .iter()
                .find(|gpu| gpu.pci_bus_id == device.pci_bus_id);
            let mode = seen.and_then(|gpu| i32::try_from(gpu.compute_mode?).ok());
            device.compute_mode = mode.or(device.compute_mode);
        }
        Recognised {
            written: self.written.clone(),
            driver: DriverAnswer {
                device_count: i32::try_from(devices.len()).ok(),
                ..self.driver.clone()
            },
            devices,
            smoke: self.smoke.clone().map(|smoke| SmokePart {
                facts: renumbered(smoke.facts, &ordinals),
                ..smoke
            }),
        }
    }
}

impl DeviceBasis {
    /// Looks for them. Not for the main thread: a file system may hang.
    pub fn look(in_force: &Texts) -> Self {
        let library_path = in_force.get("LD_LIBRARY_PATH").map(String::as_str);
        let line = |path: &PathBuf| format!("{}\t{}", path.display(), stamp(path));
        let named = NAME_FILES.iter().filter_map(|name| in_force.get(*name));
        let named = named
            .flat_map(|list| list.split([':', ' ']))
            .filter(|word| word.contains('/'));
        let mut loaded: Vec<PathBuf> = named.map(PathBuf::from).collect();
        loaded.push(PathBuf::from(search::PRELOAD));
        loaded.extend(search::preloaded());
        Self {
            libcuda: search::candidates(DRIVER, library_path)
                .iter()
                .map(line)
                .collect(),
            loaded: order::map(
                loaded
                    .iter()
                    .map(|path| (path.display().to_string(), stamp(path))),
            ),
        }
    }

    fn differences(&self, now: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let path = |line: Option<&String>| {
            line.and_then(|line| line.split('\t').next())
                .unwrap_or("none")
                .to_string()
        };
        let mut pairs = (0..self.libcuda.len().max(now.libcuda.len()))
            .map(|at| (self.libcuda.get(at), now.libcuda.get(at)));
        if let Some((was, is)) = pairs.find(|(was, is)| was != is) {
            let (was, is) = (path(was), path(is));
            found.push(match was == is {
                true => format!("{was} is another file now"),
                false => format!("where the loader looks for {DRIVER}, {is} lies in the place of {was}"),
            });
        }
        each(&self.loaded, &now.loaded, &mut |path, was, is| {
            found.push(changed(path, was, is, ABSENT));
        });
        found
    }

    /// Whether the libcuda that was mapped is one of those: what led the loader elsewhere is not known, and a later start
    /// could not tell that it leads there still.
    fn knows(&self, mapped: &Path) -> bool {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let mut paths = self.libcuda.iter().filter_map(|line| line.split('\t').next());
        paths.any(|path| real(Path::new(path)) == real(mapped))
    }
}

impl SmokePart {
    /// Whether it says something of this image under this interpreter. Whose smoke it was does not count: the image's key
    /// has whether this user may read the libraries, and [`super::own::UserCommands::state`] has read the code as this user.
    ///
    /// # Errors
    /// Why it does not.
    pub fn holds(&self, image: Option<&str>, options: &[String], now: u64) -> Result<(), String> {
        if let Some(problem) = age_problem(&self.written, now) {
            return Err(problem);
        }
        if image != Some(self.image.as_str()) {
            return Err("it ran in another state of the image or of the service's code".to_string());
        }
        if self.options != options {
            let shown = |all: &[String]| Some(all.join(" ")).filter(|all| !all.is_empty());
            let (was, is) = (shown(&self.options), shown(options));
            return Err(changed(
                "the interpreter's options",
                was.as_deref(),
                is.as_deref(),
                "none",
            ));
        }
        Ok(())
    }
}

/// The key for what was found out in full.
///
/// # Errors
/// Why it cannot be told by a later start whether it is the same machine.
pub fn key(in_force: Texts, now: &Now, found: &DeviceFacts, basis: DeviceBasis) -> Result<DeviceKey, String> {
    let DeviceFacts {
        // Kept: libcuda's answers, for this boot, release, libcuda, and for these GPUs.
        driver,
        devices,
        // Asked at each start.
        nvml: _,
        nvml_devices,
        opened,
        nvml_helper: _,
        // How it ended shows in the answers; the rest only explains why there are none.
        helper: _,
        driver_elsewhere: _,
        nodes: _,
        // Found out at each start.
        compat: _,
    } = found;
    let boot = now
        .boot
        .clone()
        .ok_or("/proc/sys/kernel/random/boot_id cannot be read")?;
    let first = |all: Vec<String>| all.into_iter().next().unwrap_or_default();
    for device in devices {
        let Device {
            ordinal,
            // The GPU's own, or asked of NVML as well.
            name: _,
            uuid,
            capability: _,
            memory: _,
            pci_bus_id: _,
            compute_mode: _,
            error: _, // nothing failed
        } = device;
        if uuid.is_none() {
            return Err(format!("the driver does not report the UUID of GPU {ordinal}"));
        }
    }
    if let Some(driver) = driver {
        let DriverAnswer {
            path,
            load_error: _, // nothing failed
            error: _,
            // Libcuda's own.
            api_version: _,
            device_count: _,
        } = driver;
        if let Some(path) = path.as_deref().filter(|path| !basis.knows(Path::new(path))) {
            return Err(format!("what leads the loader to {path} is not known"));
        }
    }
    Ok(DeviceKey {
        in_force,
        boot,
        release: release(found).map_err(first)?,
        basis,
        shown: shown(nvml_devices).map_err(first)?,
        nodes: opened
            .iter()
            .filter(|n| n.errno.is_none())
            .map(|n| n.path.clone())
            .collect(),
    })
}

fn age_problem(written: &Written, now: u64) -> Option<String> {
    let age = now.saturating_sub(written.at);
    if age > MAX_AGE {
        return Some(format!(
            "{} h old, and a GPU's proof counts for {} h",
            age / 3600,
            MAX_AGE / 3600
        ));
    }
    written.in_the_future(now)
}

/// NVML's word for the driver's release.
fn release(found: &DeviceFacts) -> Result<String, Vec<String>> {
    let missing = |why: String| vec![format!("NVML does not list its GPUs: {why}")];
    if found.nvml_helper.end != HelperEnd::Done {
        return Err(missing("its process did not go through".to_string()));
    }
    let Some(nvml) = &found.nvml else {
        return Err(missing("no answer".to_string()));
    };
    if let Some(error) = &nvml.load_error {
        return Err(missing(error.clone()));
    }
    if let Some(error) = &nvml.error {
        return Err(missing(error.to_string()));
    }
    nvml.driver_release
        .clone()
        .ok_or_else(|| missing("no release".to_string()))
}

/// UUIDs of what CUDA may show: MIG instances stand for their GPU.
fn shown(gpus: &[NvmlDevice]) -> Result<Vec<String>, Vec<String>> {
    let mut all = Vec::new();
    for gpu in gpus {
        let other_containers =
            gpu.uuid.is_none() && gpu.error.as_ref().is_some_and(|e| e.code == NO_PERMISSION);
        if other_containers {
            continue;
        }
        let uuids = match gpu.mig_enabled {
            Some(true) => gpu.mig_uuids.clone(),
            _ => gpu.uuid.iter().cloned().collect(),
        };
        let expected = match gpu.mig_enabled {
            Some(true) => gpu.mig_instances.and_then(|n| usize::try_from(n).ok()),
            _ => Some(1),
        };
        if expected != Some(uuids.len()) {
            return Err(vec![format!(
                "NVML does not report the UUID of GPU {}",
                gpu.index
            )]);
        }
        all.extend(uuids);
    }
    order::sort(&mut all);
    Ok(all)
}

/// What a smoke saw of the devices that are still there, under their present numbers: the places of `ordinals`.
fn renumbered(mut facts: SmokeFacts, ordinals: &[i32]) -> SmokeFacts {
    let renumber = |ordinal: &mut u32| {
        let place = ordinals
            .iter()
            .position(|&known| u32::try_from(known) == Ok(*ordinal));
        *ordinal = place
            .and_then(|place| u32::try_from(place).ok())
            .unwrap_or_default();
        place.is_some()
    };
    for run in std::iter::once(&mut facts.builtin).chain(&mut facts.frameworks) {
        run.devices.retain_mut(|device| renumber(&mut device.ordinal));
        run.steps
            .retain_mut(|result| result.step.device.as_mut().is_none_or(renumber));
    }
    if let Some(native) = &mut facts.native {
        let renumber = |ordinal: &mut i32| {
            let place = ordinals.iter().position(|known| known == ordinal);
            *ordinal = place
                .and_then(|place| i32::try_from(place).ok())
                .unwrap_or_default();
            place.is_some()
        };
        native.devices.retain_mut(|device| renumber(&mut device.ordinal));
        native.loads.retain_mut(|load| renumber(&mut load.ordinal));
    }
    facts
}

#[cfg(test)]
mod tests;
