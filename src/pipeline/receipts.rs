//! A run and its receipt: what is taken from it, and what is put into it.
//!
//! The receipt is read first, in a thread of its own. Its image part goes to the thread that would read the image, and
//! is held there against the files. Its device part waits for NVML, which is asked alone; libcuda is asked only where
//! that does not fit. The smoke waits for both.

use std::path::PathBuf;
use std::sync::Arc;

use crate::signal::Number;

use super::thread::{Awaited, in_thread};
use super::{Gathered, Run, Task};
use crate::check::{Finding, Stage, Status};
use crate::config::{Gpu, SmokeMode};
use crate::crew::{Crew, Event};
use crate::facts::smoke::SmokeEnd;
use crate::facts::{Facts, ImageFacts, Python};
use crate::launch;
use crate::receipt::device::{self, DevicePart, Recognised};
use crate::receipt::file;
use crate::receipt::image::ImagePart;
use crate::receipt::keep::{Found, Keep, Kept};
use crate::receipt::key::{self, Of, Texts};
use crate::receipt::own::Own;
use crate::receipt::{Account, Now, Part, Written};
use crate::smoke;

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
    writing: Option<Awaited<Kept>>,
    was_written: bool,
    account: Account,
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
pub(super) struct Offer {
    part: Arc<ImagePart>,
    in_force: Texts,
    own: Own,
}

impl Offer {
    /// The facts that it holds; or what keeps them from being true.
    pub(super) fn take(&self, python: &Python) -> Result<(ImageFacts, Proof), Vec<String>> {
        let facts = self.part.recognise(self.in_force.clone(), python)?;
        let proof = Proof {
            written: self.part.written.clone(),
            state: self.own.state(&self.part.key.digest()),
        };
        Ok((facts, proof))
    }
}

/// Of an image part whose facts were taken.
pub(super) struct Proof {
    written: Written,
    /// names the state of the image and of what the smoke's own commands run
    state: String,
}

fn in_force(of: Of, task: &Task<'_>) -> Texts {
    key::in_force(of, task.stack, task.archs, &task.config.overrides, task.env)
}

fn own(task: &Task<'_>) -> Own {
    Own::of(task.stack, launch::lookup(task.env, "PATH"))
}

fn passed(findings: Option<&Vec<Finding>>) -> bool {
    findings.is_some_and(|all| all.iter().all(|f| f.status != Status::Fail))
}

/// Whether every entry of the smoke went through, and none was only put up with.
fn is_complete(task: &Task<'_>, facts: &Facts, findings: &[Finding]) -> bool {
    if findings.iter().any(|f| f.stage == Stage::Smoke && f.problem) {
        return false;
    }
    let Some(smoke) = &facts.smoke else { return false };
    let builtins = smoke.builtin.end == SmokeEnd::Done || smoke::builtins(task.stack).is_empty();
    builtins && smoke.commands.iter().all(|command| command.end == SmokeEnd::Done)
}

impl Run<'_> {
    /// Has the receipt read, where there is to be one: what comes then waits for it.
    pub(super) fn open_receipt(&mut self, crew: &Crew) -> bool {
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
        let in_force = in_force(Of::Device, self.task);
        let reading = {
            let (path, now) = (path.clone(), now.clone());
            in_thread(crew, "receipt", move || open(&path, &in_force, &now))
        };
        self.receipt = Some(Receipts {
            account: Account {
                file: path.display().to_string(),
                ..Account::default()
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
    pub(super) fn receipt_is_read(&mut self, crew: &mut Crew) -> bool {
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
        self.begin_checks(crew);
        true
    }

    /// Whether a part of the receipt is still to be read or written.
    pub(super) fn receipt_is_open(&self) -> bool {
        let is_open = |r: &Receipts| r.reading.is_some() || r.writing.is_some();
        self.receipt.as_ref().is_some_and(is_open)
    }

    /// The image part, for the thread that reads the image.
    pub(super) fn offer(&mut self) -> Option<Offer> {
        let part = self.receipt.as_mut()?.image.take()?;
        Some(Offer {
            part: Arc::new(part),
            in_force: in_force(Of::Image, self.task),
            own: own(self.task),
        })
    }

    /// Whether what is found out is kept, and so has to be complete.
    pub(super) fn keeps(&self) -> bool {
        self.receipt.is_some()
    }

    /// Notes what came of the image part; says whether its facts were taken.
    pub(super) fn took_image(&mut self, taken: Option<Result<Proof, Vec<String>>>) -> bool {
        let (Some(receipt), Some(taken)) = (&mut self.receipt, taken) else {
            return false;
        };
        match taken {
            Ok(proof) => {
                receipt.account.used(Part::Image, &proof.written, &receipt.now);
                receipt.state = Some(proof.state);
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
    pub(super) fn recognise_devices(&mut self, crew: &mut Crew) {
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
                self.start_device(crew);
            }
        }
    }

    /// Takes the smoke's facts from the receipt once both of what they rest on are known, or lets it run.
    pub(super) fn recognise_smoke(&mut self, crew: &mut Crew) {
        let Some(receipt) = &mut self.receipt else { return };
        if !receipt.smoke_is_open || receipt.device.is_some() || self.image.is_some() {
            return;
        }
        receipt.smoke_is_open = false;
        let Some(smoke) = receipt.recognised.as_mut().and_then(|known| known.smoke.take()) else {
            return self.start_smoke(crew);
        };
        let options = &self.facts.image.python.options;
        match smoke.holds(receipt.state.as_deref(), options, receipt.now.at) {
            Ok(()) => {
                receipt.account.used(Part::Smoke, &smoke.written, &receipt.now);
                self.smoke = None;
                self.smoke_findings = Some(self.judged_smoke(&smoke.facts));
                self.facts.smoke = Some(smoke.facts);
                self.timing.push(("smoke", self.started.elapsed()));
            }
            Err(reason) => {
                receipt.account.refused(Some(Part::Smoke), &[reason]);
                self.start_smoke(crew);
            }
        }
    }

    /// Begins to write what passed and is not in the receipt; says whether there is anything to wait for.
    pub(super) fn write_receipt(&mut self, crew: &Crew) -> bool {
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
        let keep = Keep {
            path: receipt.path.clone(),
            now: receipt.now.clone(),
            ..keep
        };
        receipt.writing = Some(in_thread(crew, "receipt", move || keep.save()));
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
    pub(super) fn account(&mut self) -> Option<Account> {
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
        let libcuda = device::libcuda(Some(&part.driver));
        match part.may_hold(in_force, now, &libcuda) {
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
) -> Keep {
    let smoke = facts.smoke.clone().filter(|_| has_smoke);
    Keep {
        path: task.config.receipt.clone().unwrap_or_default(),
        now: Now::look(),
        image: Found {
            in_force: in_force(Of::Image, task),
            facts: facts.image.clone(),
            is_new: image_is_new,
        },
        device: device_is_new.map(|is_new| Found {
            in_force: in_force(Of::Device, task),
            facts: facts.device.clone(),
            is_new,
        }),
        smoke: smoke.map(|smoke| (smoke, facts.image.python.options.clone())),
        own: own(task),
    }
}

fn note(account: &mut Account, kept: Kept) {
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
        // A hand-off's smoke is added to a device part that was written just before.
        if !account.written.contains(&part) {
            account.written.push(part);
        }
    }
    if !why.is_empty() {
        account.not_written = Some(why.join("; "));
    }
}

/// Adds a smoke to the receipt that did not run in a gathering: one that was handed off.
///
/// # Errors
/// The signal that came meanwhile; the children are still to be dismissed.
pub fn keep_smoke(task: &Task<'_>, crew: &mut Crew, mut gathered: Gathered) -> Result<Gathered, Number> {
    let Some(account) = gathered.receipt.as_mut().filter(|_| gathered.handoff.is_none()) else {
        return Ok(gathered);
    };
    let is_known = |part| account.has_used(part) || account.written.contains(&part);
    let failed = gathered
        .findings
        .iter()
        .any(|f| f.status == Status::Fail && f.stage != Stage::Image);
    let is_proven = is_complete(task, &gathered.facts, &gathered.findings)
        && gathered.facts.device.has_usable()
        && !failed;
    if is_known(Part::Smoke) || !is_known(Part::Device) || !is_proven {
        return Ok(gathered);
    }
    let keep = keep(task, &gathered.facts, false, Some(false), true);
    let writing = in_thread(crew, "receipt", move || keep.save());
    loop {
        if let Some(kept) = writing.take() {
            note(account, kept);
            return Ok(gathered);
        }
        if let Event::Signal(signal) = crew.next(None) {
            return Err(signal);
        }
    }
}
