//! The smoke of a run: when it may begin, how it ended, and what is told of it.

use std::ffi::{CString, OsString};

use crate::check::{Finding, Stage, Status};
use crate::config::{Gpu, SmokeMode};
use crate::crew::{Crew, Ended, JobId};
use crate::facts::SmokeFacts;
use crate::report::SmokeReport;
use crate::smoke::{Started, Word};
use crate::{checks, launch, smoke};

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

/// Why there is nothing that a hand-off could prove; `None` where there is a GPU.
pub fn nothing_to_hand_off(task: &Task<'_>, gathered: &Gathered) -> Option<String> {
    if gathered.facts.device.has_usable() {
        return None;
    }
    let of_device = |f: &&Finding| f.stage == Stage::Device && f.problem;
    Some(match task.config.gpu {
        Gpu::Off => "--gpu off".to_string(),
        _ => no_gpu(gathered.findings.iter().find(of_device)),
    })
}

/// Why there is no smoke.
pub(super) fn smoke_skipped(smoke: SmokeMode, findings: &[Finding]) -> String {
    let failed = findings.iter().find(|f| f.status == Status::Fail);
    match (smoke, failed) {
        (SmokeMode::Off, _) => "--smoke off".to_string(),
        (_, Some(finding)) => format!("the {} stage failed", finding.stage.name()),
        (_, None) => "it was not asked for".to_string(),
    }
}

/// The report's `smoke` key.
pub fn smoke_report(task: &Task<'_>, gathered: &Gathered) -> SmokeReport {
    let of_smoke = || gathered.findings.iter().filter(|f| f.stage == Stage::Smoke);
    // Worst first; what somebody decided to put up with has not passed either.
    let problem = of_smoke().filter(|f| f.problem).min_by_key(|f| match f.status {
        Status::Fail => 0,
        Status::Warn => 1,
        _ => 2,
    });
    let (status, reason) = if task.stack.smoke.is_empty() {
        ("not-run", "the manifest has no smoke".to_string())
    } else if let Some(finding) = problem {
        ("failed", finding.message.clone())
    } else if gathered.facts.smoke.is_some() {
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
        status,
        reason,
    }
}

impl Run<'_> {
    pub(super) fn start_smoke(&mut self, crew: &mut Crew) {
        let may_wait = self.somebody_ends();
        if let Some(smoke) = &mut self.smoke {
            let (python, env) = (&self.facts.image.python, self.task.env);
            self.smoke_is_postponed = smoke.start(crew, python, env, may_wait) == Started::WhenThereIsRoom;
        }
    }

    pub(super) fn smoke_ended(&mut self, crew: &mut Crew, id: JobId, ended: &Ended) -> bool {
        let env = self.task.env;
        self.smoke
            .as_mut()
            .is_some_and(|smoke| smoke.ended(crew, env, id, ended))
    }

    pub(super) fn cancel_smoke(&mut self, crew: &mut Crew) {
        self.smoke_again_at = None;
        if let Some(smoke) = self.smoke.take() {
            smoke.cancel(crew);
        }
    }

    /// Gives the smoke its word once the driver has answered, and judges it once it is over.
    pub(super) fn settle_smoke(&mut self, crew: &mut Crew) {
        let word = self.word();
        let Some(smoke) = &mut self.smoke else { return };
        if let Some(word) = word.filter(|_| smoke.wants_word()) {
            smoke.tell(crew, self.task.env, word);
        }
        if smoke.is_open() {
            return;
        }
        let Some(smoke) = self.smoke.take() else { return };
        let facts = smoke.into_facts();
        let findings = self.judged_smoke(&facts);
        self.facts.smoke = Some(facts);
        self.smoke_again_at = self.try_again(&findings);
        if self.smoke_again_at.is_none() {
            self.timing.push(("smoke", self.started.elapsed()));
            self.smoke_findings = Some(findings);
        }
    }

    /// Whether the smoke may use GPUs; `None` until that is known.
    pub(super) fn word(&self) -> Option<Word> {
        if self.task.config.gpu == Gpu::Off {
            return Some(Word::NoGpu("--gpu off".to_string()));
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
            return Some(Word::Go { alone });
        }
        Some(Word::NoGpu(no_gpu(self.why_no_gpu().as_ref())))
    }

    /// The device stage's first problem, also where that stage is not to be told of.
    pub(super) fn why_no_gpu(&self) -> Option<Finding> {
        let mut findings = match &self.device_findings {
            Some(findings) => findings.clone(),
            None => checks::device::judge(self.task.stack, self.task.config.gpu, &self.facts),
        };
        let at = findings
            .iter()
            .position(|f| f.stage == Stage::Device && f.problem)?;
        Some(findings.swap_remove(at))
    }

    pub(super) fn judged_smoke(&self, facts: &SmokeFacts) -> Vec<Finding> {
        let mut findings = checks::smoke::judge(self.task.stack, facts);
        findings.extend(checks::smoke::imported(facts, &self.facts.image.distributions));
        // Where the device stage is judged, it is the one to say so.
        let required = self.task.config.gpu == Gpu::Required && !self.task.plan.device;
        if required && !self.facts.device.has_usable() {
            let why = self.why_no_gpu();
            findings.extend(checks::smoke::without_gpu(self.task.stack, why.as_ref()));
        }
        self.task.config.overrides.apply(&mut findings);
        findings
    }
}
