//! A run and its receipt: what is taken from it, and what is put into it.
//!
//! The receipt is read first, in a thread of its own. Its image part goes to the thread that would read the image, and
//! is held there against the files. Its device part waits for NVML, which is asked alone; libcuda is asked only where
//! that does not fit. The smoke waits for both.

use std::path::PathBuf;
use std::sync::Arc;

use super::survey::Discovered;
use super::thread::{Awaited, in_thread};
use super::{Run, Task};
use crate::check::{Finding, Findings, Stage};
use crate::cli::config::{Gpu, SmokeMode};
use crate::facts::smoke::SmokeEnd;
use crate::facts::{Facts, HelperEnd, ImageFacts, Python, SmokeFacts};
use crate::process::launch;
use crate::process::supervisor::Supervisor;
use crate::receipt::device::{DeviceBasis, DevicePart, Recognised};
use crate::receipt::file;
use crate::receipt::image::ImagePart;
use crate::receipt::keep::{Established, WriteOutcome, WriteRequest};
use crate::receipt::key::{self, KeyKind, Texts};
use crate::receipt::own::UserCommands;
use crate::receipt::{Now, Part, ReceiptSummary, Written};
use crate::smoke;
use crate::stack::SmokeEntry;

/// The receipt of a run.
pub(super) struct Receipts {
    path: PathBuf,
    now: Now,
    reading: Option<Awaited<Opened>>,
    /// the image part, until the image's thread has it
    image: Option<ImagePart>,
    /// what names the image's state, once its part was recognised
    state: Option<String>,
    /// the device part, until NVML has answered
    device: Option<DevicePart>,
    recognised: Option<Recognised>,
    /// it is not known yet whether the smoke has to run
    smoke_is_open: bool,
    writing: Option<Awaited<WriteOutcome>>,
    was_written: bool,
    account: ReceiptSummary,
}

/// What was read.
struct Opened {
    image: Option<ImagePart>,
    device: Option<DevicePart>,
    /// what is told of it
    refused: Vec<(Option<Part>, Vec<String>)>,
    exists: bool,
}

/// An image part that may save reading the image.
#[derive(Clone)]
pub(super) struct Candidate {
    part: Arc<ImagePart>,
    in_force: Texts,
    now: Now,
    /// where a smoke may rest on it
    own: Option<UserCommands>,
}

impl Candidate {
    /// What keeps its facts from being true, as far as the files tell.
    pub(super) fn changes(&self, python: &Python) -> Vec<String> {
        self.part.changes(self.in_force.clone(), python, &self.now)
    }

    /// The facts that it holds, with those that were found out anew.
    pub(super) fn take(&self, found: &Discovered) -> Result<(ImageFacts, Provenance), Vec<String>> {
        let facts = self.part.fill(found.facts.clone(), &found.asked)?;
        let proof = Provenance {
            written: self.part.written.clone(),
            state: self
                .own
                .as_ref()
                .map(|own| own.state(&self.part.key.digest(), &facts)),
        };
        Ok((facts, proof))
    }
}

/// Of an image part whose facts were taken.
pub(super) struct Provenance {
    written: Written,
    /// names the state of the image and of what the smoke runs
    state: Option<String>,
}

fn in_force(of: KeyKind, task: &Task<'_>) -> Texts {
    key::in_force(of, task.stack, task.archs, &task.config.overrides, task.env)
}

fn own(task: &Task<'_>) -> UserCommands {
    UserCommands::of(task.stack, launch::lookup(task.env, "PATH"))
}

fn passed(findings: Option<&Findings>) -> bool {
    findings.is_some_and(|all| !all.failed())
}

/// Whether every entry of the smoke went through, and none was only put up with.
fn is_complete(task: &Task<'_>, facts: &Facts, findings: &[Finding]) -> bool {
    if findings.iter().any(|f| f.stage == Stage::Smoke && f.problem) {
        return false;
    }
    facts
        .smoke
        .as_ref()
        .is_some_and(|smoke| is_proof(task, smoke).is_ok())
}

/// Whether a smoke has proven what is asked for. One that has proven more has, too.
///
/// # Errors
/// What it has not.
fn is_proof(task: &Task<'_>, smoke: &SmokeFacts) -> Result<(), String> {
    if let Some(wanted) = smoke::native_extent(task.stack, task.config) {
        match &smoke.native {
            Some(run) if run.passed() && run.extent >= wanted => {}
            Some(run) if run.passed() => {
                return Err(
                    "its native smoke test loaded a sample of the kernels, and all are asked for".to_string(),
                );
            }
            _ => return Err("it holds no native smoke test".to_string()),
        }
    }
    if task.config.smoke.mode == SmokeMode::Native {
        return Ok(());
    }
    let mut entries = smoke::builtins(task.stack).into_iter();
    let builtins = entries.all(|entry| {
        let run = smoke.run(entry.framework());
        run.is_some_and(|run| run.end == SmokeEnd::Done)
    });
    let own = |entry: &&SmokeEntry| matches!(entry, SmokeEntry::Command { .. });
    let commands = smoke.commands.len() == task.stack.smoke.iter().filter(own).count()
        && smoke.commands.iter().all(|command| command.end == SmokeEnd::Done);
    match builtins && commands {
        true => Ok(()),
        false => Err("it holds the native smoke test alone".to_string()),
    }
}

impl Run<'_> {
    /// Has the receipt read, where there is to be one: what comes then waits for it.
    pub(super) fn open_receipt(&mut self, supervisor: &Supervisor) -> bool {
        let plan = self.task.plan;
        let Some(path) = self
            .task
            .config
            .receipt
            .clone()
            .filter(|_| plan.image || plan.device)
        else {
            return false;
        };
        let now = Now::look();
        let in_force = in_force(KeyKind::Device, self.task);
        let reading = {
            let (path, now) = (path.clone(), now.clone());
            in_thread(supervisor, "receipt", move || open(&path, &in_force, &now))
        };
        self.receipt = Some(Receipts {
            account: ReceiptSummary {
                file: path.display().to_string(),
                ..ReceiptSummary::default()
            },
            path,
            now,
            reading: Some(reading),
            image: None,
            state: None,
            device: None,
            recognised: None,
            smoke_is_open: false,
            writing: None,
            was_written: false,
        });
        true
    }

    /// Begins with the checks once the receipt was read; says whether that is over.
    pub(super) fn receipt_is_read(&mut self, supervisor: &mut Supervisor) -> bool {
        let Some(receipt) = &mut self.receipt else {
            return true;
        };
        let Some(reading) = &receipt.reading else {
            return true;
        };
        let Some(opened) = reading.take() else {
            return false;
        };
        receipt.reading = None;
        if !opened.exists {
            tracing::info!("receipt: {} is not there yet", receipt.account.file);
        }
        for (part, reasons) in &opened.refused {
            // Nobody asked for what is left out.
            let is_asked = match part {
                Some(Part::Device | Part::Smoke) => self.task.plan.device && self.task.config.gpu != Gpu::Off,
                _ => true,
            };
            if is_asked {
                receipt.account.refused(*part, reasons);
            }
        }
        receipt.image = opened.image;
        if self.task.plan.device && self.task.config.gpu != Gpu::Off {
            receipt.device = opened.device;
        }
        let wants_smoke = self.task.plan.smoke && self.task.smoke != SmokeMode::Off;
        let has_smoke = receipt.device.as_ref().is_some_and(|part| part.smoke.is_some());
        receipt.smoke_is_open = wants_smoke && has_smoke;
        self.begin_checks(supervisor);
        true
    }

    /// Whether a part of the receipt is still to be read or written.
    pub(super) fn receipt_is_open(&self) -> bool {
        let is_open = |r: &Receipts| r.reading.is_some() || r.writing.is_some();
        self.receipt.as_ref().is_some_and(is_open)
    }

    /// Whether the libraries have answered before.
    pub(super) fn may_know_image(&self) -> bool {
        self.receipt.as_ref().is_some_and(|r| r.image.is_some())
    }

    /// The image part, for the thread that reads the image.
    pub(super) fn offer(&mut self) -> Option<Candidate> {
        let receipt = self.receipt.as_mut()?;
        let part = receipt.image.take()?;
        Some(Candidate {
            part: Arc::new(part),
            in_force: in_force(KeyKind::Image, self.task),
            now: receipt.now.clone(),
            own: receipt.smoke_is_open.then(|| own(self.task)),
        })
    }

    /// Whether what is found out is kept, and so has to be complete.
    pub(super) fn keeps(&self) -> bool {
        self.receipt.is_some()
    }

    /// Notes what came of the image part; says whether its facts were taken.
    pub(super) fn took_image(&mut self, taken: Option<Result<Provenance, Vec<String>>>) -> bool {
        let (Some(receipt), Some(taken)) = (&mut self.receipt, taken) else {
            return false;
        };
        match taken {
            Ok(proof) => {
                receipt.account.used(Part::Image, &proof.written, &receipt.now);
                receipt.state = proof.state;
                true
            }
            Err(reasons) => {
                receipt.account.refused(Some(Part::Image), &reasons);
                false
            }
        }
    }

    /// Whether NVML alone is to be asked at first.
    pub(super) fn may_know_devices(&self) -> bool {
        self.receipt.as_ref().is_some_and(|r| r.device.is_some())
    }

    /// A failure of the image makes all of it pointless.
    pub(super) fn forget_devices(&mut self) {
        if let Some(receipt) = &mut self.receipt {
            receipt.device = None;
            receipt.smoke_is_open = false;
        }
    }

    /// Whether the smoke waits for word whether it has to run.
    pub(super) fn may_know_smoke(&self) -> bool {
        self.receipt.as_ref().is_some_and(|r| r.smoke_is_open)
    }

    /// Holds the device part against what NVML says, and asks libcuda where it does not fit.
    pub(super) fn recognise_devices(&mut self, supervisor: &mut Supervisor) {
        if self.nvml_is_open() {
            return;
        }
        let Some(receipt) = &mut self.receipt else { return };
        let Some(part) = receipt.device.take() else { return };
        match part.recognise(&self.facts.device) {
            Ok(known) => {
                self.facts.device.driver = Some(known.driver.clone());
                self.facts.device.devices.clone_from(&known.devices);
                receipt.account.used(Part::Device, &known.written, &receipt.now);
                receipt.recognised = Some(known);
            }
            Err(reasons) => {
                receipt.account.refused(Some(Part::Device), &reasons);
                // Who has hung once is not asked again.
                self.nvml_went_ahead =
                    matches!(self.facts.device.nvml_helper.end, HelperEnd::TimedOut { .. });
                self.start_device(supervisor);
            }
        }
    }

    /// Takes the smoke's facts from the receipt once both of what they rest on are known, or lets it run.
    pub(super) fn recognise_smoke(&mut self, supervisor: &mut Supervisor) {
        let Some(receipt) = &mut self.receipt else { return };
        if !receipt.smoke_is_open || receipt.device.is_some() || self.image.is_some() {
            return;
        }
        receipt.smoke_is_open = false;
        let Some(smoke) = receipt.recognised.as_mut().and_then(|known| known.smoke.take()) else {
            self.hand_off(supervisor);
            return self.start_smoke(supervisor);
        };
        let options = &self.facts.image.python.options;
        let holds = smoke
            .holds(receipt.state.as_deref(), options, receipt.now.at)
            .and_then(|()| is_proof(self.task, &smoke.facts));
        match holds {
            Ok(()) => {
                receipt.account.used(Part::Smoke, &smoke.written, &receipt.now);
                self.smoke = None;
                self.smoke_findings = Some(self.judged_smoke(&smoke.facts));
                self.facts.smoke = Some(smoke.facts);
                self.timing.push(("smoke", self.started.elapsed()));
            }
            Err(reason) => {
                receipt.account.refused(Some(Part::Smoke), &[reason]);
                self.hand_off(supervisor);
                self.start_smoke(supervisor);
            }
        }
    }

    /// Begins to write what passed and is not in the receipt; says whether there is anything to wait for.
    pub(super) fn write_receipt(&mut self, supervisor: &Supervisor) -> bool {
        let Task { plan, config, .. } = *self.task;
        let Some(receipt) = self.receipt.as_mut().filter(|r| !r.was_written) else {
            return false;
        };
        receipt.was_written = true;
        let was_used = |part| receipt.account.has_used(part);
        let image_is_new = plan.image && !was_used(Part::Image) && passed(self.image_findings.as_ref());
        let has_devices = plan.device && config.gpu != Gpu::Off && self.facts.device.has_usable();
        let has_devices = has_devices && passed(self.device_findings.as_ref());
        let device_is_new = has_devices && !was_used(Part::Device);
        let has_smoke = has_devices
            && !was_used(Part::Smoke)
            && (self.smoke_findings.as_ref()).is_some_and(|all| is_complete(self.task, &self.facts, all));
        if !(image_is_new || device_is_new || has_smoke) {
            return false;
        }
        let keep = keep(
            self.task,
            &self.facts,
            image_is_new,
            has_devices.then_some(device_is_new),
            has_smoke,
        );
        let keep = WriteRequest {
            path: receipt.path.clone(),
            now: receipt.now.clone(),
            ..keep
        };
        receipt.writing = Some(in_thread(supervisor, "receipt", move || keep.save()));
        true
    }

    /// Notes what was written.
    pub(super) fn receipt_written(&mut self) {
        let Some(receipt) = &mut self.receipt else { return };
        let Some(kept) = receipt.writing.as_ref().and_then(Awaited::take) else {
            return;
        };
        receipt.writing = None;
        note(&mut receipt.account, kept);
    }

    /// What became of it.
    pub(super) fn account(&mut self) -> Option<ReceiptSummary> {
        self.receipt.take().map(|receipt| receipt.account)
    }
}

impl Opened {
    fn nothing() -> Self {
        Self {
            image: None,
            device: None,
            refused: Vec::new(),
            exists: false,
        }
    }
}

/// Reads the file, and holds the device part against everything that can be told without the driver.
fn open(path: &std::path::Path, in_force: &Texts, now: &Now) -> Opened {
    let receipt = match file::read(path) {
        Ok(Some(receipt)) => receipt,
        Ok(None) => return Opened::nothing(),
        Err(reason) => {
            return Opened {
                refused: vec![(None, vec![reason])],
                exists: true,
                ..Opened::nothing()
            };
        }
    };
    let mut opened = Opened {
        image: receipt.image,
        exists: true,
        ..Opened::nothing()
    };
    if let Some(part) = receipt.device {
        let basis = DeviceBasis::look(in_force);
        match part.may_hold(in_force, now, &basis) {
            Ok(()) => opened.device = Some(part),
            Err(reasons) => opened.refused.push((Some(Part::Device), reasons)),
        }
    }
    opened
}

fn keep(
    task: &Task<'_>,
    facts: &Facts,
    image_is_new: bool,
    device_is_new: Option<bool>,
    has_smoke: bool,
) -> WriteRequest {
    let smoke = facts.smoke.clone().filter(|_| has_smoke);
    WriteRequest {
        path: task.config.receipt.clone().unwrap_or_default(),
        now: Now::look(),
        image: Established {
            in_force: in_force(KeyKind::Image, task),
            facts: facts.image.clone(),
            is_new: image_is_new,
        },
        device: device_is_new.map(|is_new| Established {
            in_force: in_force(KeyKind::Device, task),
            facts: facts.device.clone(),
            is_new,
        }),
        smoke: smoke.map(|smoke| (smoke, facts.image.python.options.clone())),
        own: own(task),
        stack: task.stack.clone(),
    }
}

fn note(account: &mut ReceiptSummary, kept: WriteOutcome) {
    let mut why = kept.left_out;
    if let Some(problem) = kept.problem {
        // A receipt that came with the image is meant to stay as it is, and every start would say so.
        if problem.is_read_only && !account.used.is_empty() {
            tracing::debug!(
                "receipt: {} cannot be added to: {}",
                account.file,
                problem.message
            );
        } else {
            let (file, message, hint) = (&account.file, &problem.message, problem.hint);
            tracing::warn!("receipt: {file} cannot be written: {message}; {hint}");
        }
        why.push(problem.message);
    }
    for reason in &why {
        tracing::debug!("receipt: left out: {reason}");
    }
    for part in kept.written {
        account.written.push(part);
    }
    if !why.is_empty() {
        account.not_written = Some(why.join("; "));
    }
}
