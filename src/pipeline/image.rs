//! The image stage of a run: the files, the loader, the libraries.

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use crate::check::Finding;
use crate::config::Gpu;
use crate::crew::{Crew, Ended, Exit, Start};
use crate::discover::loader::explain;
use crate::discover::{libraries, loader};
use crate::facts::{HelperEnd, ImageFacts, LoaderEnd, LoaderRun};
use crate::helper::Request;
use crate::sys::Program;
use crate::{checks, helper, launch};

use super::survey::Survey;
use super::thread::{Awaited, in_thread};
use super::{Run, Task};

/// How a run of the loader ended.
pub(super) fn loader_end(ended: &Ended, listing: &loader::Listing, deadline: Duration) -> LoaderEnd {
    let reason = match ended.exit {
        // A library that is damaged ends the list, with a complaint that is kept.
        Exit::Code(_) if !listing.objects.is_empty() => return LoaderEnd::Listed,
        Exit::Code(code) => match helper::last_lines(&ended.stderr) {
            said if said.is_empty() => format!("it listed nothing and exited with status {code}"),
            said => said,
        },
        Exit::Signal(signal) => format!("signal {signal} ended it"),
        Exit::TimedOut { .. } => format!("it gave no answer within {} s", deadline.as_secs()),
        Exit::Flooded => "it wrote more than 8 MiB".to_string(),
        Exit::Cancelled => "it was cancelled".to_string(),
    };
    LoaderEnd::Failed { reason }
}

impl Run<'_> {
    /// Whether something about the image is still to come, but for the kernels.
    pub(super) fn image_is_open(&self) -> bool {
        self.image.is_some()
            || self.libraries.is_some()
            || self.postponed.iter().any(|r| matches!(r, Request::Libraries(_)))
            || self.trace.is_some()
            || self.explained.is_some()
            || self.more_libraries.is_some()
    }

    /// Reads the image's files in a thread of its own: a file system that hangs must not make us deaf to signals.
    pub(super) fn start_image(&mut self, crew: &Crew) {
        let offer = self.offer();
        let Task {
            config, plan, archs, ..
        } = *self.task;
        // What can run on the visible devices is the libraries' matter too.
        let judges_devices = plan.device && config.gpu != Gpu::Off;
        if !plan.image && !judges_devices && self.smoke.is_none() {
            return;
        }
        let (image_sender, image) = mpsc::channel();
        let (kernels_sender, kernels) = mpsc::channel();
        self.image = Some(image);
        self.kernels = Some(kernels);
        let survey = Survey {
            stack: self.task.stack.clone(),
            explicit: config.python.clone(),
            service: self.task.service.to_vec(),
            env: launch::to_os_pairs(self.task.env).collect(),
            listed: archs.map(|list| list.iter().map(|a| a.capability).collect()),
            everything: plan.image,
            kernels: judges_devices || (plan.image && (archs.is_some() || self.keeps())),
            // The image stage judges that there is one, wherever the smoke is to run.
            smoke: self.smoke.is_some()
                || ((plan.image || self.keeps()) && !self.task.stack.smoke.is_empty()),
            offer,
            reading: self.reading.clone(),
        };
        if !survey.asks_for_python() {
            // There is nothing to read, and a thread costs more than all the rest of such a start.
            survey.make(&image_sender, kernels_sender, &|| ());
            return;
        }
        let here_and_now = survey.clone();
        let (to_image, to_kernels) = (image_sender.clone(), kernels_sender.clone());
        let spawned = crew.waker().and_then(|waker| {
            std::thread::Builder::new().name("image".into()).spawn(move || {
                survey.make(&to_image, to_kernels, &|| waker.wake());
            })
        });
        if spawned.is_err() {
            // No thread to be had.
            here_and_now.make(&image_sender, kernels_sender, &|| ());
        }
    }

    /// Takes what was read of the image meanwhile.
    pub(super) fn image_discovered(&mut self, crew: &mut Crew) {
        match self.kernels.as_ref().map(mpsc::Receiver::try_recv) {
            None | Some(Err(mpsc::TryRecvError::Empty)) => {}
            Some(found) => {
                self.kernels = None;
                self.facts.image.kernels = found.unwrap_or_default();
                self.timing.push(("kernels", self.started.elapsed()));
            }
        }
        let Some(Ok(discovered)) = self.image.as_ref().map(mpsc::Receiver::try_recv) else {
            return;
        };
        self.image = None;
        self.facts.image = ImageFacts {
            kernels: std::mem::take(&mut self.facts.image.kernels),
            ..discovered.facts
        };
        self.timing.push(("image_files", self.started.elapsed()));
        let is_taken = self.took_image(discovered.taken);
        if !self.may_know_smoke() {
            self.start_smoke(crew);
        }
        if is_taken {
            return;
        }
        let time = self.task.config.device_timeout;
        if !self.facts.image.libraries.is_empty() {
            let request = Request::libraries(&self.facts.image.libraries);
            self.start_helper(crew, request);
        }
        self.facts.image.loader.end = match discovered.asked {
            loader::Asked::Nothing => LoaderEnd::NotRun,
            loader::Asked::Refused(reason) => LoaderEnd::NotAsked { reason },
            loader::Asked::Run(request) => {
                let (path, argv, envp) = (request.path(), request.argv(), request.envp(self.task.env));
                self.facts.image.loader.modules.clone_from(&request.modules);
                self.facts.image.loader.notes.clone_from(&request.notes);
                let start = Start {
                    program: Program::Path(&path),
                    argv: &argv,
                    envp: &envp,
                    time,
                };
                match crew.start(&start) {
                    Ok(id) => {
                        self.trace = Some((id, request));
                        LoaderEnd::NotRun
                    }
                    Err(error) => LoaderEnd::Failed {
                        reason: format!("{} could not be started: {error}", path.to_string_lossy()),
                    },
                }
            }
        };
    }

    /// Takes the loader's list, and has it explained in a thread: that opens every file of it.
    pub(super) fn listed(&mut self, crew: &Crew, ended: &Ended) {
        let Some((_, request)) = self.trace.take() else {
            return;
        };
        let listing = loader::parse(&ended.stdout, &ended.stderr);
        let run = LoaderRun {
            end: loader_end(ended, &listing, self.task.config.device_timeout),
            modules: request.modules,
            missing_versions: listing.missing_versions.clone(),
            refused: loader::refusals(&listing),
            stubs: Vec::new(),
            notes: request.notes,
            ms: ended.elapsed.as_secs_f64() * 1000.0,
        };
        if run.end == LoaderEnd::Listed {
            let grounds = explain::Grounds {
                program: request.program,
                modules: run.modules.clone(),
                site_packages: self.facts.image.python.site_packages.clone(),
                library_path: launch::lookup(self.task.env, "LD_LIBRARY_PATH")
                    .map(|v| v.to_string_lossy().into_owned()),
                conf: PathBuf::from("/etc/ld.so.conf"),
            };
            let known = self.facts.image.libraries.clone();
            let work = move || explain::explain(&listing, &grounds, &known);
            self.explained = Some(in_thread(crew, "loader", work));
        }
        self.facts.image.loader = run;
    }

    pub(super) fn loader_explained(&mut self) {
        if let Some(explained) = self.explained.as_ref().and_then(Awaited::take) {
            self.explained = None;
            self.facts.image.loaded = explained.objects;
            self.facts.image.loader.stubs = explained.stubs;
            self.runtimes = explained.runtimes;
        }
    }

    /// Once the loader and the libraries have answered, asks the copies that only the loader knew. There are none in
    /// an image whose wheels bring what they need, so nobody waits for a second run there.
    pub(super) fn ask_more_libraries(&mut self, crew: &mut Crew) {
        if self.runtimes.is_empty() || self.image_is_open() {
            return;
        }
        let known = self.facts.image.libraries.len();
        let wanted = libraries::Wanted::by(&self.task.stack.cuda);
        let runtimes = std::mem::take(&mut self.runtimes);
        explain::adopt(&mut self.facts.image.libraries, &runtimes, &wanted);
        let new = self.facts.image.libraries.get(known..).unwrap_or_default();
        if new.is_empty() || !matches!(self.facts.image.helper.end, HelperEnd::Done | HelperEnd::NotRun) {
            return;
        }
        match self
            .helper
            .start(crew, &Request::libraries(new), self.task.config.device_timeout)
        {
            Ok(id) => self.more_libraries = Some((id, known)),
            Err(end) => self.facts.image.helper.end = end,
        }
    }

    pub(super) fn judged_image(&self) -> Vec<Finding> {
        let mut findings = checks::image::judge(self.task.stack, self.task.archs, &self.facts);
        self.task.config.overrides.apply(&mut findings);
        findings
    }
}
