//! The image stage of a run: the files, the loader, the libraries.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::check::accept::stale;
use crate::check::{Code, Finding, Findings};
use crate::cli::config::{Gpu, SmokeMode};
use crate::discover::loader::explain;
use crate::discover::{libraries, loader};
use crate::facts::{HelperEnd, ImageFacts, LoaderEnd, LoaderRun};
use crate::helper::Request;
use crate::hidden::is_hidden;
use crate::process::launch;
use crate::process::supervisor::{Ended, Exit, Start, Supervisor};
use crate::smoke::{Smoke, handoff};
use crate::sys::Program;
use crate::{capture, checks, helper, smoke, sys};

use super::survey::{Discovered, Survey, Told};
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
        Exit::OutputLimit => "it wrote more than 8 MiB".to_string(),
        Exit::Cancelled => "it was cancelled".to_string(),
    };
    LoaderEnd::Failed { reason }
}

impl Run<'_> {
    /// Whether something about the image is still to come, but for the kernels.
    pub(super) fn image_is_open(&self) -> bool {
        self.image.is_some()
            || !self.libraries.is_empty()
            || self.postponed.iter().any(|r| matches!(r, Request::Libraries(_)))
            || self.trace.is_some()
            || self.explained.is_some()
    }

    /// Reads the image's files in a thread of its own: a file system that hangs must not make us deaf to signals.
    pub(super) fn start_image(&mut self, supervisor: &Supervisor) {
        let offer = self.offer();
        let Task {
            config, plan, archs, ..
        } = *self.task;
        // What can run on the visible devices is the libraries' matter too.
        let judges_devices = plan.device && config.gpu != Gpu::Off;
        if !plan.image && !judges_devices && self.smoke.is_none() {
            return;
        }
        let loads_kernels = smoke::native_extent(self.task.stack, config).is_some() && self.smoke.is_some();
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
            kernels: judges_devices
                || loads_kernels
                || (plan.image
                    && (archs.is_some()
                        || self.keeps()
                        || self.task.stack.as_found
                        || !self.task.stack.libraries.is_empty()
                        || !self.task.stack.packages.is_empty())),
            // The image stage judges that there is one, wherever the smoke is to run.
            smoke: self.smoke.as_ref().is_some_and(Smoke::needs_python)
                || ((plan.image || self.keeps()) && self.task.stack.has_python_smoke()),
            programs: !matches!(config.smoke.mode, SmokeMode::Off | SmokeMode::Native),
            offer,
            reading: self.reading.clone(),
        };
        if !survey.reads() {
            // There is nothing to read, and a thread costs more than all the rest of such a start.
            survey.make(&image_sender, kernels_sender, &|| ());
            return;
        }
        let here_and_now = survey.clone();
        let (to_image, to_kernels) = (image_sender.clone(), kernels_sender.clone());
        let spawned = supervisor.waker().and_then(|waker| {
            sys::thread("image").spawn(move || {
                survey.make(&to_image, to_kernels, &|| waker.wake());
            })
        });
        if spawned.is_err() {
            // No thread to be had.
            here_and_now.make(&image_sender, kernels_sender, &|| ());
        }
    }

    /// When to read the image again, under `--wait`: where storage failed, and all else that seems to be wrong may come of
    /// that.
    pub(super) fn try_storage_again(&mut self, findings: &Findings) -> Option<Instant> {
        let unread = findings.of(&[Code::StorageFault, Code::FileUnreadable]);
        self.retry_at(&unread)
    }

    /// Reads the image once more, and begins with what rests on it anew.
    pub(super) fn read_image_again(&mut self, supervisor: &mut Supervisor) {
        self.facts.image = ImageFacts::default();
        self.located = None;
        self.native_libraries = None;
        self.runtimes.clear();
        self.other_programs.clear();
        self.other_program = None;
        // The architecture was judged by its libraries.
        self.device_findings = None;
        self.timing
            .retain(|(name, _)| !matches!(*name, "image_files" | "kernels" | "device"));
        if self.smoke.is_some() {
            self.cancel_smoke(supervisor);
            if self.mode == SmokeMode::Handoff {
                self.mode = SmokeMode::Separate;
                handoff::say_why_not("the image is read again");
            }
            self.smoke = super::new_smoke(self.task);
        }
        self.start_image(supervisor);
    }

    /// Takes what was read of the image meanwhile.
    pub(super) fn image_discovered(&mut self, supervisor: &mut Supervisor) {
        match self.kernels.as_ref().map(mpsc::Receiver::try_recv) {
            None | Some(Err(mpsc::TryRecvError::Empty)) => {}
            Some(found) => {
                self.kernels = None;
                let found = found.unwrap_or_default();
                self.facts.image.kernels = found.kernels;
                self.facts.image.extensions = found.extensions;
                self.timing.push(("kernels", self.started.elapsed()));
            }
        }
        while let Some(Ok(told)) = self.image.as_ref().map(mpsc::Receiver::try_recv) {
            match told {
                Told::All(found) => self.take_image(supervisor, found, false),
                Told::Libraries(python, libraries) => {
                    self.facts.image.python = python;
                    self.facts.image.libraries = libraries;
                    self.ask_libraries(supervisor);
                }
                Told::Loader(asked) => self.ask_loader(supervisor, asked),
                Told::Rest(found) => self.take_image(supervisor, found, true),
            }
        }
    }

    fn take_image(&mut self, supervisor: &mut Supervisor, found: Discovered, is_asked: bool) {
        self.image = None;
        let known = std::mem::take(&mut self.facts.image);
        self.facts.image = ImageFacts {
            kernels: known.kernels,
            extensions: known.extensions,
            ..found.facts
        };
        if is_asked {
            // They may have answered by now.
            self.facts.image.libraries = known.libraries;
            self.facts.image.helper = known.helper;
            self.facts.image.loader = known.loader;
            self.facts.image.loaded = known.loaded;
        }
        self.timing.push(("image_files", self.started.elapsed()));
        let is_taken = self.took_image(found.taken);
        if !self.may_know_smoke() {
            self.start_smoke(supervisor);
        }
        if !is_taken && !is_asked {
            self.ask_libraries(supervisor);
            self.ask_loader(supervisor, found.asked);
        }
    }

    fn ask_libraries(&mut self, supervisor: &mut Supervisor) {
        self.ask_libraries_from(supervisor, 0);
    }

    fn ask_libraries_from(&mut self, supervisor: &mut Supervisor, first: usize) {
        for request in Request::libraries(&self.facts.image.libraries, first) {
            self.start_helper(supervisor, request);
        }
    }

    fn ask_loader(&mut self, supervisor: &mut Supervisor, asked: loader::Asked) {
        let time = self.task.config.device_timeout;
        self.facts.image.loader.end = match asked {
            loader::Asked::Nothing => LoaderEnd::NotRun,
            loader::Asked::Refused(reason) => LoaderEnd::NotAsked { reason },
            loader::Asked::Run(mut request) => {
                self.other_programs = std::mem::take(&mut request.others);
                let (path, argv, envp) = (request.path(), request.argv(), request.envp(self.task.env));
                self.facts.image.loader.modules.clone_from(&request.modules);
                self.facts.image.loader.notes.clone_from(&request.notes);
                let start = Start {
                    program: Program::Path(&path),
                    argv: &argv,
                    envp: &envp,
                    time,
                };
                match supervisor.start(&start) {
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
    pub(super) fn listed(&mut self, supervisor: &mut Supervisor, ended: &Ended) {
        let Some((_, request)) = self.trace.take() else {
            return;
        };
        let mut listing = loader::parse(&ended.stdout, &ended.stderr);
        for object in &mut listing.objects {
            object.path.take_if(|path| is_hidden(Path::new(path)));
        }
        let run = LoaderRun {
            end: loader_end(ended, &listing, self.task.config.device_timeout),
            modules: request.modules,
            missing_versions: listing.missing_versions.clone(),
            refused: loader::refusals(&listing),
            stubs: Vec::new(),
            searched: Vec::new(),
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
                conf: PathBuf::from(explain::CONF),
            };
            let known = self.facts.image.libraries.clone();
            let work = move || explain::explain(&listing, &grounds, &known);
            self.explained = Some(in_thread(supervisor, "loader", work));
        }
        match self.other_program {
            Some(_) => self.facts.image.loader.add(run),
            None => self.facts.image.loader = run,
        }
        if self.explained.is_none() {
            self.ask_loader_of_next(supervisor);
        }
    }

    pub(super) fn loader_explained(&mut self, supervisor: &mut Supervisor) {
        let Some(mut explained) = self.explained.as_ref().and_then(Awaited::take) else {
            return;
        };
        self.explained = None;
        for object in &mut explained.objects {
            object.program.clone_from(&self.other_program);
        }
        let loader = &mut self.facts.image.loader;
        loader.stubs.extend(explained.stubs);
        loader.searched.extend(explained.searched);
        loader.stubs.dedup();
        self.facts.image.loaded.extend(explained.objects);
        self.runtimes.extend(explained.runtimes);
        self.ask_loader_of_next(supervisor);
    }

    /// Asks the loader about the next program that has a run to itself.
    fn ask_loader_of_next(&mut self, supervisor: &mut Supervisor) {
        while let Some(next) = loader::Request::next(&mut self.other_programs) {
            let request = match next {
                Ok(request) => request,
                Err(why) => {
                    self.facts.image.loader.notes.push(why);
                    continue;
                }
            };
            let (path, argv, envp) = (request.path(), request.argv(), request.envp(self.task.env));
            let start = Start {
                program: Program::Path(&path),
                argv: &argv,
                envp: &envp,
                time: self.task.config.device_timeout,
            };
            match supervisor.start(&start) {
                Ok(id) => {
                    self.other_program = request.modules.first().cloned();
                    self.trace = Some((id, request));
                    return;
                }
                Err(error) => {
                    let program = request.program.display();
                    self.facts
                        .image
                        .loader
                        .notes
                        .push(format!("{program}: the loader could not be started: {error}"));
                }
            }
        }
    }

    /// Once the loader and the libraries have answered, asks the copies that only the loader knew. There are none in
    /// an image whose wheels bring what they need, so nobody waits for a second run there.
    pub(super) fn ask_more_libraries(&mut self, supervisor: &mut Supervisor) {
        if self.runtimes.is_empty() || self.image_is_open() {
            return;
        }
        let known = self.facts.image.libraries.len();
        let wanted = libraries::Wanted::by(self.task.stack);
        let runtimes = std::mem::take(&mut self.runtimes);
        explain::adopt(&mut self.facts.image.libraries, &runtimes, &wanted);
        if matches!(self.facts.image.helper.end, HelperEnd::Done | HelperEnd::NotRun) {
            self.ask_libraries_from(supervisor, known);
        }
    }

    pub(super) fn judged_image(&self) -> Findings {
        let findings = match self.task.stack.as_found {
            true => capture::judge_as_found(self.task.archs, &self.facts, self.task.env),
            false => checks::image::judge(self.task.stack, self.task.archs, &self.facts),
        };
        let accepted = &self.task.stack.accept;
        let mut findings = Findings::under(&self.task.config.overrides, accepted, findings);
        // Without a Python there is nothing that an entry could have been about.
        if !self.facts.image.python.site_packages.is_empty() {
            let stale: Vec<Finding> = stale(accepted, &findings).collect();
            findings.note(stale);
        }
        findings
    }
}
