//! What is read of the image's files, in a thread of its own.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};

use nix::errno::Errno;

use crate::discover::modules::Scanned;
use crate::discover::reading::Reading;
use crate::discover::{
    editable, extras, forward, installed, libraries, loader, modules, named_files, named_libraries, opened,
    python, surroundings, threads, torch_abi, unread, wheels,
};
use crate::facts::{ComputeCapability, ImageFacts, Library, NamedLibraries, Python, Unread};
use crate::stack::Stack;
use crate::{capture, sys};

use super::receipts::{Candidate, Provenance};

/// What the image's thread sends.
pub(super) enum Told {
    /// all of it
    All(Discovered),
    /// the libraries that can be asked while the rest is read
    Libraries(Python, Vec<Library>),
    /// the loader likewise, after that
    Loader(loader::Asked),
    /// all of it after these
    Rest(Discovered),
}

/// What the image's files tell, and how its loader is to be asked.
#[derive(Default)]
pub(super) struct Discovered {
    pub(super) facts: ImageFacts,
    pub(super) asked: loader::Asked,
    /// what came of the receipt's image part, if there was one
    pub(super) taken: Option<Result<Provenance, Vec<String>>>,
}

/// What other programs are to be asked: it rests on the Python alone.
struct Questions {
    of_loader: loader::Asked,
    libraries: Vec<Library>,
    /// what could not be read for either
    unread: [Vec<Unread>; 2],
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
    /// the programs of the manifest's own commands are looked for
    pub(super) programs: bool,
    /// a receipt's image part
    pub(super) offer: Option<Candidate>,
    pub(super) reading: Reading,
}

impl Survey {
    /// Sends what was found and wakes: the kernels last, and first what other programs are to be asked, which takes them as
    /// long as all the rest.
    pub(super) fn make(
        self,
        to_image: &mpsc::Sender<Told>,
        to_kernels: mpsc::Sender<Scanned>,
        wake: &dyn Fn(),
    ) {
        let (named, mut of_named) = unread::collect(|| named_libraries::find(&self.libraries()));
        let (python, mut unread) = unread::collect(|| self.python());
        unread.append(&mut of_named);
        unread.retain(|unread| !may_not(unread.errno));
        let mut refused = None;
        let mut read = None;
        if let Some(offer) = &self.offer {
            let (mut found, changes) = self.read_and_hold(offer, python.clone(), &named);
            found.facts.unread.append(&mut unread);
            let taken = match changes {
                changes if changes.is_empty() => offer.take(&found),
                changes => Err(changes),
            };
            match taken {
                Ok((facts, proof)) => {
                    self.pass_on(facts, proof, to_image, &to_kernels);
                    drop(to_kernels);
                    return wake();
                }
                Err(reasons) => refused = Some(Err(reasons)),
            }
            read = Some(found);
        }
        let Some(python) = python else {
            let nothing = Discovered {
                taken: refused,
                ..Discovered::default()
            };
            let _ = to_image.send(Told::All(nothing));
            drop(to_kernels);
            return wake();
        };
        // A receipt that holds saves asking.
        let is_told = self.everything && self.offer.is_none();
        let questions = is_told.then(|| {
            let tell = |told| {
                let _ = to_image.send(told);
                wake();
            };
            self.questions(&python, &named, &tell)
        });
        let site = python.site_packages.clone();
        let listed = self.listed.clone().unwrap_or_default();
        let scan = {
            let (python, reading, everything) = (python.clone(), self.reading.clone(), self.everything);
            let library_path = self
                .env
                .get("LD_LIBRARY_PATH")
                .map(|path| path.to_string_lossy().into_owned());
            let named = named_libraries::paths(&named);
            move || {
                modules::scan(
                    &python,
                    &named,
                    &listed,
                    &reading,
                    everything,
                    library_path.as_deref(),
                )
            }
        };
        let scanning = self.kernels.then(|| sys::thread("kernels").spawn(scan.clone()));
        let read = read.unwrap_or_else(|| self.read(python, &named, self.everything, questions));
        let mut found = self.reduced(read);
        found.facts.unread.append(&mut unread);
        found.taken = refused;
        let distributions = if self.kernels {
            found.facts.distributions.clone()
        } else {
            Vec::new()
        };
        let _ = to_image.send(if is_told {
            Told::Rest(found)
        } else {
            Told::All(found)
        });
        wake();
        if let Some(scanning) = scanning {
            let found = scanning.ok().and_then(|thread| thread.join().ok());
            let mut found = found.unwrap_or_else(scan);
            modules::attribute(
                &mut found.kernels,
                found.extensions.as_mut(),
                &site,
                &distributions,
            );
            let _ = to_kernels.send(found);
        }
        drop(to_kernels);
        wake();
    }

    /// Reads the texts anew, and beside that holds what a receipt rests on against the files.
    fn read_and_hold(
        &self,
        offer: &Candidate,
        python: Option<Python>,
        named: &[NamedLibraries],
    ) -> (Discovered, Vec<String>) {
        let known = python.clone().unwrap_or_default();
        let python = Mutex::new(python);
        let (next, changes, found) = (AtomicBool::new(true), Mutex::default(), Mutex::default());
        threads::on_several(&|| {
            // Whoever comes first holds; without a second thread one does both.
            for _ in 0..2 {
                if next.swap(false, Ordering::Relaxed) {
                    set(&changes, offer.changes(&known));
                } else if let Some(python) = python.lock().ok().and_then(|mut python| python.take()) {
                    set(&found, self.read(python, named, true, None));
                }
            }
        });
        (
            found.into_inner().unwrap_or_default(),
            changes.into_inner().unwrap_or_default(),
        )
    }

    /// What is asked for of what was read.
    fn reduced(&self, found: Discovered) -> Discovered {
        if self.everything {
            return found;
        }
        Discovered {
            facts: ImageFacts {
                distributions: found.facts.distributions,
                python: found.facts.python,
                ..ImageFacts::default()
            },
            ..Discovered::default()
        }
    }

    /// Sends what a receipt holds, as far as it would have been read.
    pub(super) fn pass_on(
        &self,
        mut facts: ImageFacts,
        taken: Provenance,
        to_image: &mpsc::Sender<Told>,
        to_kernels: &mpsc::Sender<Scanned>,
    ) {
        let scanned = Scanned {
            kernels: std::mem::take(&mut facts.kernels),
            extensions: facts.extensions.take().filter(|_| self.everything),
        };
        let found = Discovered {
            facts,
            ..Discovered::default()
        };
        let _ = to_image.send(Told::All(Discovered {
            taken: Some(Ok(taken)),
            ..self.reduced(found)
        }));
        if self.kernels {
            let _ = to_kernels.send(scanned);
        }
    }

    /// The interpreter; `None` where nothing asks for one.
    pub(super) fn python(&self) -> Option<Python> {
        if !self.asks_for_python() {
            // What lies outside of Python is read all the same.
            return self.asks_for_files().then(Python::default);
        }
        Some(with_query(
            self.explicit.as_deref(),
            &self.service,
            &self.env,
            |query| query.find(),
        ))
    }

    /// The manifest's, or without one those of the service's own program.
    fn libraries(&self) -> Vec<String> {
        match self.stack.as_found && !self.service.is_empty() {
            true => named_libraries::of_service(&self.service, &self.env),
            false => self.stack.libraries.clone(),
        }
    }

    /// Whether there is anything to read.
    pub(super) fn reads(&self) -> bool {
        self.asks_for_python() || self.asks_for_files()
    }

    fn asks_for_files(&self) -> bool {
        !self.stack.libraries.is_empty() || (self.programs && !self.stack.smoke.is_empty())
    }

    fn asks_for_python(&self) -> bool {
        let stack = &self.stack;
        !stack.packages.is_empty()
            || !stack.files.is_empty()
            || stack.python.is_some()
            // Where the manifest names libraries, it says where the copies of CUDA are that count.
            || (stack.libraries.is_empty() && !libraries::Wanted::by(stack).is_empty())
            || self.explicit.is_some()
            || self.smoke
            // Where the smoke is not to run now, the image stage still tells whether it could.
            || (self.everything && stack.has_python_smoke())
    }

    /// Reads the texts, with what of them could not be read.
    fn read(
        &self,
        python: Python,
        named: &[NamedLibraries],
        everything: bool,
        questions: Option<Questions>,
    ) -> Discovered {
        let sites = python.site_packages.clone();
        let (mut found, mut unread) =
            unread::collect(|| self.read_texts(python, named, everything, questions));
        // A folder of another user's, such as his home, is looked into in case it is there.
        let is_named = |path: &str| {
            named
                .iter()
                .any(|named| named.paths.iter().any(|known| known == path))
        };
        let is_ours = |path: &str| is_named(path) || sites.iter().any(|site| path.starts_with(site.as_str()));
        unread.retain(|unread| !may_not(unread.errno) || is_ours(&unread.path));
        found.facts.unread = unread;
        found
    }

    /// Looks for what is to be asked, and tells it at once: the helper takes longer than the loader.
    fn questions(&self, python: &Python, named: &[NamedLibraries], tell: &dyn Fn(Told)) -> Questions {
        self.begin(python);
        let (libraries, for_libraries) = unread::collect(|| libraries::of_environment(&self.stack, python));
        tell(Told::Libraries(python.clone(), libraries.clone()));
        let (of_loader, for_loader) = unread::collect(|| loader::ask(&self.stack, python, named));
        tell(Told::Loader(of_loader.clone()));
        Questions {
            of_loader,
            libraries,
            unread: [for_loader, for_libraries],
        }
    }

    /// Notes where reading begins.
    fn begin(&self, python: &Python) {
        if let Some(first) = python.site_packages.first() {
            self.reading.at(Path::new(first));
        }
    }

    fn read_texts(
        &self,
        python: Python,
        named: &[NamedLibraries],
        everything: bool,
        questions: Option<Questions>,
    ) -> Discovered {
        let site = &python.site_packages;
        self.begin(&python);
        let mut distributions = wheels::distributions(site);
        if !everything {
            return Discovered {
                facts: ImageFacts {
                    distributions,
                    python,
                    ..ImageFacts::default()
                },
                ..Discovered::default()
            };
        }
        let found: Vec<String> = distributions
            .iter()
            .filter(|dist| self.stack.as_found && capture::belongs(&dist.name))
            .map(|dist| dist.name.clone())
            .collect();
        let rules = self.stack.packages.iter();
        let names: Vec<&str> = rules
            .map(|rule| rule.normalized.as_str())
            .chain(found.iter().map(String::as_str))
            .collect();
        wheels::without_stale_tags(&mut distributions, python.version.as_deref());
        extras::activate(&mut distributions, python.version.as_deref());
        torch_abi::state(&mut distributions);
        let script = python.script_folder.as_ref().map(PathBuf::from);
        let here = script.or_else(|| std::env::current_dir().ok().filter(|_| python.working_folder));
        let owned = installed::inspect(&mut distributions, &names, &python, here.as_deref());
        let library_path = self.env.get("LD_LIBRARY_PATH").and_then(OsStr::to_str);
        opened::look(&mut distributions, &names, &python, library_path);
        let surroundings = surroundings::look(&distributions, &python, &self.env);
        let compat = forward::look(library_path, None);
        let questions = questions.unwrap_or_else(|| self.questions(&python, named, &|_| ()));
        let [for_loader, for_libraries] = questions.unread;
        unread::note_again(for_loader);
        let files = named_files::find(site, &self.stack.files);
        let programs = match self.programs {
            true => named_files::programs(&self.stack, python.interpreter.as_deref(), self.env.get("PATH")),
            false => Vec::new(),
        };
        let editable = editable::traps(site);
        unread::note_again(for_libraries);
        let facts = ImageFacts {
            distributions,
            owned,
            files,
            named_libraries: named.to_vec(),
            programs,
            editable,
            libraries: questions.libraries,
            surroundings,
            compat,
            python,
            ..ImageFacts::default()
        };
        Discovered {
            facts,
            asked: questions.of_loader,
            taken: None,
        }
    }
}

fn set<T>(place: &Mutex<T>, value: T) {
    if let Ok(mut place) = place.lock() {
        *place = value;
    }
}

/// Whether it is only this user who may not read it.
fn may_not(errno: i32) -> bool {
    matches!(Errno::from_raw(errno), Errno::EACCES | Errno::EPERM)
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
