//! What is read of the image's files, in a thread of its own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use crate::discover::reading::Reading;
use crate::discover::{editable, installed, libraries, loader, modules, named_files, python, wheels};
use crate::facts::{ComputeCapability, ImageFacts, ModuleKernels, Python};
use crate::stack::Stack;

use super::receipts::{Offer, Proof};

/// What the image's files tell, and how its loader is to be asked.
pub(super) struct Discovered {
    pub(super) facts: ImageFacts,
    pub(super) asked: loader::Asked,
    /// what came of the receipt's image part, if there was one
    pub(super) taken: Option<Result<Proof, Vec<String>>>,
}

/// Reading of the image's files.
#[derive(Clone)]
pub(super) struct Survey {
    pub(super) stack: Stack,
    /// `--python`
    pub(super) explicit: Option<PathBuf>,
    pub(super) service: Vec<OsString>,
    pub(super) env: python::Environment,
    /// the capabilities of the list in force
    pub(super) listed: Option<Vec<ComputeCapability>>,
    /// all that the image stage judges; otherwise what the kernels need alone
    pub(super) everything: bool,
    /// the CUDA code of the libraries
    pub(super) kernels: bool,
    /// a smoke wants a Python
    pub(super) smoke: bool,
    /// a receipt's image part
    pub(super) offer: Option<Offer>,
    pub(super) reading: Reading,
}

impl Survey {
    /// Sends what was found and wakes: the kernels last, so that the libraries can be asked meanwhile.
    pub(super) fn make(
        self,
        to_image: &mpsc::Sender<Discovered>,
        to_kernels: mpsc::Sender<Vec<ModuleKernels>>,
        wake: &dyn Fn(),
    ) {
        let python = self.python();
        let offer = self.offer.as_ref();
        let taken = offer.map(|offer| offer.take(&python.clone().unwrap_or_default()));
        let refused = match taken {
            Some(Ok((facts, taken))) => {
                self.pass_on(facts, taken, to_image, &to_kernels);
                drop(to_kernels);
                return wake();
            }
            Some(Err(reasons)) => Some(Err(reasons)),
            None => None,
        };
        let Some(python) = python else {
            let nothing = Discovered {
                facts: ImageFacts::default(),
                asked: loader::Asked::Nothing,
                taken: refused,
            };
            let _ = to_image.send(nothing);
            drop(to_kernels);
            return wake();
        };
        let site = python.site_packages.clone();
        let listed = self.listed.clone().unwrap_or_default();
        let scan = {
            let (site, reading) = (site.clone(), self.reading.clone());
            move || modules::find(&site, &listed, &reading)
        };
        let scanning = self
            .kernels
            .then(|| std::thread::Builder::new().spawn(scan.clone()));
        let mut found = self.read(python);
        found.taken = refused;
        let distributions = if self.kernels {
            found.facts.distributions.clone()
        } else {
            Vec::new()
        };
        let _ = to_image.send(found);
        wake();
        if let Some(scanning) = scanning {
            let found = scanning.ok().and_then(|thread| thread.join().ok());
            let mut found = found.unwrap_or_else(scan);
            modules::attribute(&mut found, &site, &distributions);
            let _ = to_kernels.send(found);
        }
        drop(to_kernels);
        wake();
    }

    /// Sends what a receipt holds, as far as it would have been read.
    pub(super) fn pass_on(
        &self,
        mut facts: ImageFacts,
        taken: Proof,
        to_image: &mpsc::Sender<Discovered>,
        to_kernels: &mpsc::Sender<Vec<ModuleKernels>>,
    ) {
        let kernels = std::mem::take(&mut facts.kernels);
        if !self.everything {
            facts = ImageFacts {
                distributions: facts.distributions,
                python: facts.python,
                ..ImageFacts::default()
            };
        }
        let _ = to_image.send(Discovered {
            facts,
            asked: loader::Asked::Nothing,
            taken: Some(Ok(taken)),
        });
        if self.kernels {
            let _ = to_kernels.send(kernels);
        }
    }

    /// The interpreter; `None` where nothing asks for one.
    pub(super) fn python(&self) -> Option<Python> {
        if !self.asks_for_python() {
            return None;
        }
        Some(with_query(
            self.explicit.as_deref(),
            &self.service,
            &self.env,
            |query| query.find(),
        ))
    }

    pub(super) fn asks_for_python(&self) -> bool {
        let stack = &self.stack;
        !stack.packages.is_empty()
            || !stack.files.is_empty()
            || stack.python.is_some()
            || !libraries::Wanted::by(&stack.cuda).is_empty()
            || self.explicit.is_some()
            || self.smoke
            // Where the smoke is not to run now, the image stage still tells whether it could.
            || (self.everything && !stack.smoke.is_empty())
    }

    pub(super) fn read(&self, python: Python) -> Discovered {
        let site = &python.site_packages;
        if let Some(first) = site.first() {
            self.reading.at(Path::new(first));
        }
        let mut distributions = wheels::distributions(site);
        if !self.everything {
            return Discovered {
                facts: ImageFacts {
                    distributions,
                    python,
                    ..ImageFacts::default()
                },
                asked: loader::Asked::Nothing,
                taken: None,
            };
        }
        let names: Vec<&str> = self
            .stack
            .packages
            .iter()
            .map(|rule| rule.normalized.as_str())
            .collect();
        let script = python.script_folder.as_ref().map(PathBuf::from);
        let here = script.or_else(|| std::env::current_dir().ok().filter(|_| python.working_folder));
        installed::inspect(&mut distributions, &names, &python, here.as_deref());
        let wanted = libraries::Wanted::by(&self.stack.cuda);
        let places = libraries::Places {
            site_packages: site,
            prefix: python.prefix.as_deref().map(Path::new),
            toolkits: Path::new("/usr/local"),
        };
        let asked = loader::ask(&self.stack, &python);
        let facts = ImageFacts {
            distributions,
            files: named_files::find(site, &self.stack.files),
            editable: editable::traps(site),
            libraries: libraries::runtime_copies(&places, &wanted),
            python,
            ..ImageFacts::default()
        };
        Discovered {
            facts,
            asked,
            taken: None,
        }
    }
}

pub(super) fn with_query<T>(
    explicit: Option<&Path>,
    command: &[OsString],
    env: &python::Environment,
    ask: impl Fn(&python::PythonQuery<'_>) -> T,
) -> T {
    let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let usual_places = python::USUAL_PLACES.map(PathBuf::from);
    ask(&python::PythonQuery {
        explicit,
        command,
        env,
        cwd: &cwd,
        usual_places: &usual_places,
    })
}
