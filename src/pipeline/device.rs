//! The device stage of a run: the helper that asks libcuda and NVML, and what it said.

use crate::check::{Code, Findings, Severity};
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use crate::cli::config::Gpu;
use crate::discover::{forward, machine};
use crate::facts::{DeviceFacts, HelperEnd, HelperLine, HelperRun, NvmlAnswer};
use crate::helper::Request;
use crate::process::launch;
use crate::process::limits::ResourceLimit;
use crate::process::supervisor::{JobId, Supervisor};
use crate::{capture, checks, sys};

use super::{Run, Task};

/// How long each call of NVML may take once CUDA has answered. Both wait for the same GPUs to be initialised.
const NVML_GRACE: Duration = Duration::from_secs(5);
/// How long each may take where a receipt waits for it; then CUDA is asked. Without persistence mode nvmlInit initialises
/// every GPU, at one to two seconds each.
const NVML_BEFORE_CUDA: Duration = Duration::from_secs(20);

/// Most processes that ask NVML at once: no machine has more GPUs.
const MOST_PARTS: usize = 16;

impl Run<'_> {
    pub(super) fn start_device(&mut self, supervisor: &mut Supervisor) {
        let plan = self.task.plan;
        // The smoke has to know whether there is a GPU, though nobody judges it.
        let asks_driver = plan.device || self.smoke.is_some();
        if self.task.config.gpu == Gpu::Off || !(asks_driver || plan.health) {
            return;
        }
        let nvml_went_ahead = std::mem::take(&mut self.nvml_went_ahead);
        if !nvml_went_ahead {
            self.facts.device = DeviceFacts::default();
            self.nodes = machine::device_nodes();
        }
        let may_be_known = self.may_know_devices();
        if asks_driver && !may_be_known {
            let native = self.smoke.as_mut().is_some_and(|smoke| smoke.native().is_some());
            self.start_helper(supervisor, Request::Driver { native });
        }
        // Without a process for libcuda there is none for NVML either; one finding says it.
        let wants_nvml = plan.health || (plan.device && (may_be_known || self.driver_is_open()));
        let unstarted = matches!(
            self.facts.device.nvml_helper.end,
            HelperEnd::NotStarted { .. } | HelperEnd::LoaderMissing { .. }
        );
        if unstarted && !wants_nvml {
            self.facts.device.nvml_helper = HelperRun::default();
        }
        if wants_nvml && !nvml_went_ahead {
            self.start_nvml(supervisor);
        }
    }

    /// Asks NVML: of memory only what the manifest asks for. A probe runs beside the service, which holds it.
    ///
    /// Each GPU takes some 11 ms, and NVML locks out its other threads, so that each has a process of its own.
    pub(super) fn start_nvml(&mut self, supervisor: &mut Supervisor) {
        let Task { stack, plan, .. } = *self.task;
        let free = stack.limits.gpu_memory_free.filter(|_| plan.device);
        let gpus = self.nodes.iter().filter(|path| machine::is_gpu(path)).count();
        let parts = gpus.min(sys::processors()).clamp(1, MOST_PARTS);
        for part in 0..parts {
            self.start_helper(supervisor, Request::Nvml { free, part, parts });
        }
    }

    /// Starts a run of the helper. One that finds no room beside those that will end waits until one of them has.
    pub(super) fn start_helper(&mut self, supervisor: &mut Supervisor, request: Request) {
        match self
            .helper
            .start(supervisor, &request, self.task.config.device_timeout)
        {
            Ok(started) => match request {
                Request::Driver { .. } => {
                    self.driver = Some(started.id);
                    self.attach_native(started);
                }
                Request::Nvml { .. } => self.nvml.push(started.id),
                Request::Libraries(copies) => {
                    let positions = copies.iter().map(|copy| copy.position).collect();
                    self.libraries.push((started.id, positions));
                }
            },
            Err(HelperEnd::NotStarted { detail }) if self.may_find_room(supervisor, &detail) => {
                tracing::debug!("a helper waits for another to end: {detail}");
                self.postponed.push(request);
            }
            Err(end) => {
                let run = HelperRun { end, ms: 0.0 };
                match request {
                    Request::Driver { .. } => self.facts.device.helper = run,
                    Request::Nvml { .. } => self.facts.device.nvml_helper.add(run),
                    Request::Libraries(_) => self.facts.image.helper.add(run),
                }
            }
        }
    }

    /// Whether what is short may be there once a child has ended that waits for nobody.
    pub(super) fn may_find_room(&mut self, supervisor: &mut Supervisor, detail: &str) -> bool {
        if !ResourceLimit::told_by(detail).is_some_and(ResourceLimit::is_passing) {
            return false;
        }
        self.any_child_running()
            || self
                .smoke
                .as_mut()
                .is_some_and(|smoke| smoke.give_way(supervisor, detail))
    }

    pub(super) fn any_child_running(&self) -> bool {
        self.driver.is_some() || !self.nvml.is_empty() || !self.libraries.is_empty() || self.trace.is_some()
    }

    pub(super) fn start_postponed(&mut self, supervisor: &mut Supervisor) {
        for request in std::mem::take(&mut self.postponed) {
            self.start_helper(supervisor, request);
        }
        if std::mem::take(&mut self.smoke_is_postponed) {
            self.start_smoke(supervisor);
        }
    }

    pub(super) fn driver_is_open(&self) -> bool {
        let is_postponed = |request: &Request| matches!(request, Request::Driver { .. });
        self.driver.is_some() || self.postponed.iter().any(is_postponed)
    }

    pub(super) fn nvml_is_open(&self) -> bool {
        let is_postponed = |request: &Request| matches!(request, Request::Nvml { .. });
        !self.nvml.is_empty() || self.postponed.iter().any(is_postponed)
    }

    /// Takes the answers of a helper run.
    pub(super) fn absorb(&mut self, id: JobId, run: HelperRun, lines: Vec<HelperLine>) {
        let job = Some(id);
        let mut positions = Vec::new();
        if let Some(at) = self.libraries.iter().position(|(asked, _)| *asked == id) {
            (_, positions) = self.libraries.swap_remove(at);
            self.facts.image.helper.add(run);
        } else if job == self.driver {
            self.driver = None;
            self.facts.device.helper = run;
        } else if let Some(at) = self.nvml.iter().position(|asked| *asked == id) {
            self.nvml.swap_remove(at);
            self.facts.device.nvml_helper.add(run);
        }
        for line in lines {
            match line {
                HelperLine::Library(mut answer) => {
                    let Some(position) = positions.get(answer.index) else {
                        continue;
                    };
                    answer.index = *position;
                    if let Some(library) = self.facts.image.libraries.get_mut(*position) {
                        library.answer = Some(answer);
                    }
                }
                HelperLine::Driver(answer) => self.facts.device.driver = Some(answer),
                HelperLine::Device(device) => self.facts.device.devices.push(device),
                HelperLine::Nvml(answer) => {
                    let known = &mut self.facts.device.nvml;
                    let is_well = |known: &NvmlAnswer| known.load_error.is_none() && known.error.is_none();
                    if known.as_ref().is_none_or(is_well) {
                        *known = Some(answer);
                    }
                }
                HelperLine::NvmlDevice(device) => {
                    // Once more, with who holds its memory.
                    let known = &mut self.facts.device.nvml_devices;
                    known.retain(|other| other.index != device.index);
                    let place = known.partition_point(|other| other.index < device.index);
                    known.insert(place, device);
                }
                HelperLine::Node(node) if !self.nodes.contains(&node.path) => {}
                HelperLine::Node(node) => self.facts.device.opened.push(node),
                // Of the native proof, which takes its lines itself.
                HelperLine::NativeDevice(_) | HelperLine::NativeLoad(_) => {}
                HelperLine::Step(_) | HelperLine::Ready | HelperLine::Done => {}
            }
        }
    }

    /// NVML that hangs does not hold a start for which CUDA is enough.
    fn hurry_nvml(&self, supervisor: &mut Supervisor) {
        // Who denies it wants NVML's answer.
        if self.task.config.overrides.0.get(&Code::HelperTimeout) == Some(&Severity::Fail) {
            return;
        }
        if self.facts.device.helper.end == HelperEnd::Done && self.facts.device.has_usable() {
            self.nvml
                .iter()
                .for_each(|nvml| supervisor.hurry(*nvml, NVML_GRACE));
        } else if self.may_know_devices() {
            self.nvml
                .iter()
                .for_each(|nvml| supervisor.hurry(*nvml, NVML_BEFORE_CUDA));
        }
    }

    pub(super) fn settle_device(&mut self, supervisor: &mut Supervisor) {
        self.hurry_nvml(supervisor);
        let plan = self.task.plan;
        // The architecture is judged by the kernels as well, and the driver by what the libraries and the loader say.
        if self.device_findings.is_some()
            || (plan.device && (self.image_is_open() || self.kernels.is_some()))
            || self.driver_is_open()
            || self.nvml_is_open()
            || self.retry_at.is_some()
            || self.image_again_at.is_some()
        {
            return;
        }
        if plan.device || plan.health {
            self.judge_device();
        }
        if plan.stop_early && self.device_findings.as_ref().is_some_and(Findings::failed) {
            self.cancel_smoke(supervisor);
        }
    }

    pub(super) fn judge_device(&mut self) {
        let Task { config, plan, .. } = *self.task;
        // What tells a GPU that is hidden from one that is not there, and a library likewise.
        let device = &mut self.facts.device;
        if config.gpu != Gpu::Off && device.devices.is_empty() {
            device.nodes.clone_from(&self.nodes);
        }
        let has_no_driver = device.driver.as_ref().is_none_or(|d| d.load_error.is_some());
        let has_no_nvml = device.nvml.as_ref().is_some_and(|n| n.load_error.is_some());
        device.driver_elsewhere = [
            ("libcuda.so.1", plan.device && has_no_driver),
            ("libnvidia-ml.so.1", has_no_nvml),
        ]
        .into_iter()
        .filter(|(_, is_missing)| *is_missing && config.gpu != Gpu::Off)
        .flat_map(|(name, _)| machine::driver_copies(name, launch::lookup(self.task.env, "LD_LIBRARY_PATH")))
        .collect();
        // A libcuda that has just answered, so that no file system on the way to it hangs. What a receipt knows needs no more.
        if plan.device && device.helper.end == HelperEnd::Done {
            let mapped = device.driver.as_ref().and_then(|driver| driver.path.as_deref());
            let library_path = launch::lookup(self.task.env, "LD_LIBRARY_PATH").and_then(OsStr::to_str);
            device.compat = forward::look(library_path, mapped.map(Path::new));
        }
        let findings = self.judged_device();
        let image_failed = self.image_findings.as_ref().is_some_and(Findings::failed);
        if !(image_failed && plan.stop_early) {
            self.retry_at = self.retry_at(&findings);
            if self.retry_at.is_some() {
                return;
            }
        }
        self.timing.push(("device", self.started.elapsed()));
        self.device_findings = Some(findings);
    }

    pub(super) fn judged_device(&self) -> Findings {
        let Task {
            config,
            stack,
            archs,
            plan,
            ..
        } = *self.task;
        let findings = if plan.health {
            checks::device::judge_health(config.gpu, &self.facts)
        } else {
            let as_found = stack
                .as_found
                .then(|| capture::as_found(&self.facts, self.task.env));
            let stack = as_found.as_ref().unwrap_or(stack);
            let mut all = checks::device::judge(stack, config.gpu, &self.facts);
            all.extend(checks::require::judge(config.gpu, &self.facts));
            all.extend(checks::limits::judge(stack, &self.facts));
            if config.gpu != Gpu::Off {
                all.extend(checks::arch::judge(stack, archs, &self.facts));
            }
            all
        };
        Findings::under(&config.overrides, &stack.accept, findings)
    }
}
