//! The image stage of a run: the files, the loader, the libraries.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::check::accept::stale;
use crate::check::{Code, Finding, Findings};
use crate::cli::config::{Gpu, SmokeMode};
use crate::discover::loader::explain;
use crate::discover::{libraries, loader};
use crate::facts::{HelperEnd, HelperRun, ImageFacts, LoaderEnd, LoaderRun, RefusedObject};
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
        self.other_files.clear();
        self.fallback = None;
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
        let loader = &mut self.facts.image.loader;
        match asked {
            loader::Asked::Nothing => loader.end = LoaderEnd::NotRun,
            loader::Asked::Refused(reason) => loader.end = LoaderEnd::NotAsked { reason },
            loader::Asked::Broken(refused) => {
                loader.end = LoaderEnd::Listed;
                loader.refused = refused;
            }
            loader::Asked::NoLoader(detail) => {
                loader.end = LoaderEnd::NotAsked {
                    reason: detail.clone(),
                };
                let end = HelperEnd::LoaderMissing { detail };
                self.facts.image.helper.add(HelperRun { end, ms: 0.0 });
            }
            loader::Asked::Run(mut request) => {
                self.other_files = std::mem::take(&mut request.others);
                loader.notes.append(&mut request.notes);
                loader.refused.append(&mut request.refused);
                self.start_loader(supervisor, request);
            }
        }
    }

    /// One run of the loader. What cannot be started is noted, and the next is tried.
    fn start_loader(&mut self, supervisor: &mut Supervisor, request: loader::Request) {
        let mut next = Some(request);
        while let Some(request) = next {
            let (path, argv, envp) = (request.path(), request.argv(), request.envp(self.task.env));
            let start = Start {
                program: Program::Path(&path),
                argv: &argv,
                envp: &envp,
                time: self.task.config.device_timeout,
            };
            match supervisor.start(&start) {
                Ok(id) => {
                    self.trace = Some((id, request));
                    return;
                }
                Err(error) => {
                    let reason = format!("{} could not be started: {error}", path.to_string_lossy());
                    self.facts.image.loader.add(LoaderRun {
                        end: LoaderEnd::Failed { reason },
                        ..LoaderRun::default()
                    });
                }
            }
            next = self.next_file();
        }
    }

    fn next_file(&mut self) -> Option<loader::Request> {
        (!self.other_files.is_empty()).then(|| self.other_files.remove(0))
    }

    /// Takes the loader's list, and has it explained in a thread: that opens every file of it.
    pub(super) fn listed(&mut self, supervisor: &mut Supervisor, ended: &Ended) {
        let Some((_, mut request)) = self.trace.take() else {
            return;
        };
        let mut listing = loader::parse(&ended.stdout, &ended.stderr);
        for object in &mut listing.objects {
            object.path.take_if(|path| is_hidden(Path::new(path)));
        }
        let mut end = loader_end(ended, &listing, self.task.config.device_timeout);
        // What a library misses may be loaded by the program that opens it.
        let is_short = listing.lacks() || end != LoaderEnd::Listed;
        let mut hosts = std::mem::take(&mut request.hosts);
        if is_short && !hosts.is_empty() {
            let mut host = hosts.remove(0);
            host.hosts = hosts;
            if self.fallback.is_none() && end == LoaderEnd::Listed {
                self.fallback = Some((listing, request));
            }
            return self.start_loader(supervisor, host);
        }
        if let Some(first) = self.fallback.take().filter(|_| is_short) {
            (listing, request) = first;
            end = LoaderEnd::Listed;
        }
        let mut run = LoaderRun {
            end,
            modules: match &request.about {
                Some(about) => vec![about.clone()],
                None => request.modules.clone(),
            },
            missing_versions: listing.missing_versions.clone(),
            refused: loader::refusals(&listing),
            ms: ended.elapsed.as_secs_f64() * 1000.0,
            ..LoaderRun::default()
        };
        // A file that ends the loader is the image's fault, and hides nothing of the others.
        if let (LoaderEnd::Failed { reason }, Some(about)) = (&run.end, &request.about) {
            run.refused.push(RefusedObject {
                path: about.clone(),
                reason: format!("the loader gives no list: {reason}"),
            });
            run.end = LoaderEnd::Listed;
        } else if run.end == LoaderEnd::Listed {
            let grounds = explain::Grounds {
                program: request.program,
                modules: request.modules,
                site_packages: self.facts.image.python.site_packages.clone(),
                library_path: launch::lookup(self.task.env, "LD_LIBRARY_PATH")
                    .map(|v| v.to_string_lossy().into_owned()),
                conf: PathBuf::from(explain::CONF),
            };
            let known = self.facts.image.libraries.clone();
            let work = move || explain::explain(&listing, &grounds, &known);
            self.explained = Some(in_thread(supervisor, "loader", work));
            self.explained_file = request.about;
        }
        self.facts.image.loader.add(run);
        if self.explained.is_none()
            && let Some(next) = self.next_file()
        {
            self.start_loader(supervisor, next);
        }
    }

    pub(super) fn loader_explained(&mut self, supervisor: &mut Supervisor) {
        let Some(mut explained) = self.explained.as_ref().and_then(Awaited::take) else {
            return;
        };
        self.explained = None;
        for object in &mut explained.objects {
            object.program.clone_from(&self.explained_file);
        }
        let loader = &mut self.facts.image.loader;
        loader.stubs.extend(explained.stubs);
        loader.stubs.dedup();
        loader.searched.extend(explained.searched);
        self.facts.image.loaded.extend(explained.objects);
        self.runtimes.extend(explained.runtimes);
        if let Some(next) = self.next_file() {
            self.start_loader(supervisor, next);
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
