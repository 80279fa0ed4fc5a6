//! The smoke of a run: when it may begin, how it ended, and what is told of it.

use std::ffi::{CString, OsString};

use crate::check::{Code, Finding, Findings, Stage, Status};
use crate::cli::config::{Gpu, SmokeMode};
use crate::facts::SmokeFacts;
use crate::facts::smoke::SmokeEnd;
use crate::process::launch;
use crate::process::supervisor::{Ended, JobId, Supervisor};
use crate::report::SmokeReport;
use crate::smoke::{GpuDecision, Started, handoff};
use crate::stack::{NATIVE, SmokeEntry};
use crate::{checks, smoke};

use super::survey::with_query;
use super::{Gathered, Run, Task};

/// Why the smoke cannot be handed off to this service; `None` where it can.
pub fn handoff_hindrance(service: &[OsString], env: &[CString]) -> Option<String> {
    let env = launch::to_os_pairs(env).collect();
    with_query(None, service, &env, |query| query.hindrance())
}

/// Why no kernel is run, with the device stage's first problem where there is one.
pub(super) fn no_gpu(why: Option<&Finding>) -> String {
    why.map_or("no usable GPU".to_string(), |f| {
        format!("no usable GPU ({})", f.code)
    })
}

/// What a container is limited in, which keeps no GPU from being used.
const OF_LIMITS: [Code; 4] = [
    Code::ShmSmall,
    Code::MemlockLow,
    Code::NvmlMissing,
    Code::NvmlDiffers,
];

/// Why there is no smoke.
pub(super) fn smoke_skipped(smoke: SmokeMode, findings: &Findings) -> String {
    match (smoke, findings.failures().next()) {
        (SmokeMode::Off, _) => "--smoke off".to_string(),
        (_, Some(finding)) => format!("the {} stage failed", finding.stage.name()),
        (_, None) => "it was not asked for".to_string(),
    }
}

/// The entries of the smoke that is asked for.
pub(super) fn names<'a>(task: &Task<'a>) -> Vec<&'a str> {
    let entries = task.stack.smoke.iter().map(SmokeEntry::name);
    let is_listed = entries.clone().any(|name| name == NATIVE);
    let native = smoke::native_extent(task.stack, task.config).filter(|_| !is_listed);
    native.map(|_| NATIVE).into_iter().chain(entries).collect()
}

/// Those of them that need a GPU.
fn names_on_gpu<'a>(task: &Task<'a>) -> Vec<&'a str> {
    let native = smoke::native_extent(task.stack, task.config).map(|_| NATIVE);
    let is_alone = task.config.smoke.mode == SmokeMode::Native;
    let others = task
        .stack
        .smoke
        .iter()
        .filter(|entry| !is_alone && entry.needs_gpu());
    let others = others.map(SmokeEntry::name).filter(|name| *name != NATIVE);
    native.into_iter().chain(others).collect()
}

/// Whether anything of it was.
fn was_run(facts: &SmokeFacts) -> bool {
    let is_run = |end: &SmokeEnd| !matches!(end, SmokeEnd::NotRun { .. });
    facts.native.as_ref().is_some_and(|native| is_run(&native.end))
        || facts.runs().any(|run| is_run(&run.end))
        || facts.commands.iter().any(|command| is_run(&command.end))
}

/// The report's `smoke` key.
pub fn smoke_report(task: &Task<'_>, gathered: &Gathered) -> SmokeReport {
    let of_smoke = || gathered.findings.iter().filter(|f| f.stage == Stage::Smoke);
    let native = smoke::native_extent(task.stack, task.config).filter(|_| task.smoke != SmokeMode::Off);
    let (status, reason) = if task.stack.smoke.is_empty() && native.is_none() {
        let why = match task.stack.as_found {
            true => "--stack none has no smoke",
            false => "the manifest has no smoke",
        };
        ("not-run", why.to_string())
    } else if let Some(finding) = gathered.findings.worst_of(Stage::Smoke) {
        // Also under an override: what is only tolerated has not passed.
        ("failed", finding.message.clone())
    } else if gathered.facts.smoke.as_ref().is_some_and(was_run) {
        ("passed", String::new())
    } else {
        (
            "not-run",
            of_smoke()
                .find(|f| f.status == Status::Skip)
                .map_or_else(String::new, |f| f.message.clone()),
        )
    };
    SmokeReport {
        mode: gathered.smoke,
        native,
        status,
        reason,
    }
}

impl Run<'_> {
    /// Starts the service at once where its own Python is to run the smoke.
    pub(super) fn hand_off(&mut self, supervisor: &mut Supervisor) {
        let task = self.task;
        if let (Some(smoke), Some(program), SmokeMode::Handoff) = (&mut self.smoke, task.program, self.mode) {
            smoke.hand_off(supervisor, program, task.service, task.env);
        }
    }

    pub(super) fn start_smoke(&mut self, supervisor: &mut Supervisor) {
        let may_wait = self.any_child_running();
        if let Some(smoke) = &mut self.smoke {
            let (python, env) = (&self.facts.image.python, self.task.env);
            self.smoke_is_postponed = smoke.start(supervisor, python, env, may_wait) == Started::Deferred;
        }
    }

    pub(super) fn smoke_ended(&mut self, supervisor: &mut Supervisor, id: JobId, ended: &Ended) -> bool {
        let env = self.task.env;
        self.smoke
            .as_mut()
            .is_some_and(|smoke| smoke.ended(supervisor, env, id, ended))
    }

    pub(super) fn cancel_smoke(&mut self, supervisor: &mut Supervisor) {
        self.smoke_again_at = None;
        if let Some(smoke) = self.smoke.take() {
            smoke.cancel(supervisor);
        }
    }

    /// Hears a service that is to prove the GPU, and starts a process in its stead where it cannot.
    fn attend_handoff(&mut self, supervisor: &mut Supervisor) {
        let image_is_known = self.image.is_none() && self.begun;
        let Some(smoke) = &mut self.smoke else { return };
        let python = image_is_known.then_some(&self.facts.image.python);
        smoke.handle_event(supervisor, self.task.env, python);
        if smoke.falls_back() {
            self.mode = SmokeMode::Separate;
            if image_is_known && !self.may_know_smoke() {
                self.start_smoke(supervisor);
            }
        }
    }

    /// Gives the smoke its word once the driver has answered, and judges it once it is over.
    pub(super) fn settle_smoke(&mut self, supervisor: &mut Supervisor) {
        self.attend_handoff(supervisor);
        let word = self.word();
        let Some(smoke) = &mut self.smoke else { return };
        // Commands of the manifest may name the Python that is judged.
        if let Some(word) = word.filter(|_| smoke.awaits_decision() && self.image.is_none()) {
            // Where the kernels lie is told by a thread that is still looking.
            let Some(planned) = self.native_plan() else { return };
            if let Some(smoke) = &mut self.smoke {
                smoke.tell(supervisor, &self.facts.image.python, self.task.env, word, planned);
            }
            self.attend_native(supervisor);
        }
        let Some(smoke) = &self.smoke else { return };
        if smoke.is_open() {
            return;
        }
        let Some(mut smoke) = self.smoke.take() else {
            return;
        };
        self.service = smoke.take_handoff();
        let facts = smoke.into_facts();
        let findings = self.judged_smoke(&facts);
        self.facts.smoke = Some(facts);
        self.smoke_again_at = self.retry_at(&findings);
        if self.smoke_again_at.is_some() && self.mode == SmokeMode::Handoff {
            // What those imports have seen is over.
            self.mode = SmokeMode::Separate;
            handoff::say_why_not("the failure may be temporary");
            if let Some(service) = self.service.take() {
                supervisor.cancel(service.job());
            }
        }
        if self.smoke_again_at.is_none() {
            self.timing.push(("smoke", self.started.elapsed()));
            self.smoke_findings = Some(findings);
        }
    }

    /// Whether the smoke may use GPUs; `None` until that is known.
    pub(super) fn word(&self) -> Option<GpuDecision> {
        if self.task.config.gpu == Gpu::Off {
            return Some(GpuDecision::NoGpu("--gpu off".to_string()));
        }
        let plan = self.task.plan;
        // An image that is found to be another one has no business on a GPU.
        let image_is_judged = self.image_findings.is_some() || !plan.image;
        let device_is_judged = self.device_findings.is_some() || !plan.device;
        if !(image_is_judged && device_is_judged) || self.driver_is_open() || self.retry_at.is_some() {
            return None;
        }
        if self.facts.device.has_usable() {
            let alone = smoke::first_alone(self.task.config.smoke_devices, &self.facts.device);
            let count = self.facts.device.devices.len();
            return Some(GpuDecision::Go { alone, count });
        }
        Some(GpuDecision::NoGpu(no_gpu(self.why_no_gpu().as_ref())))
    }

    /// The device stage's first problem, also where that stage is not to be told of.
    pub(super) fn why_no_gpu(&self) -> Option<Finding> {
        let mut findings = match &self.device_findings {
            Some(findings) => findings.to_vec(),
            None => checks::device::judge(self.task.stack, self.task.config.gpu, &self.facts),
        };
        let at = findings
            .iter()
            .position(|f| f.stage == Stage::Device && f.problem && !OF_LIMITS.contains(&f.code))?;
        Some(findings.swap_remove(at))
    }

    pub(super) fn judged_smoke(&self, facts: &SmokeFacts) -> Findings {
        let native = facts.native.as_ref();
        let mut findings = native.map_or_else(Vec::new, |run| {
            checks::smoke::native::judge(run, &self.facts.device)
        });
        findings.extend(checks::smoke::judge(self.task.stack, facts, &self.facts.image));
        findings.extend(checks::smoke::imported(facts, &self.facts.image.distributions));
        // Where the device stage is judged, it is the one to say so.
        let is_told = self.device_findings.as_ref().is_some_and(Findings::failed);
        let required = self.task.config.gpu == Gpu::Required && !is_told;
        if required && !self.facts.device.has_usable() {
            let why = self.why_no_gpu();
            findings.extend(checks::smoke::without_gpu(&names_on_gpu(self.task), why.as_ref()));
        }
        Findings::under(&self.task.config.overrides, &self.task.stack.accept, findings)
    }
}
