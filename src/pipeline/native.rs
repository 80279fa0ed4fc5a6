//! The native proof of a run: its process, which is the one that asks the driver, and its plan.

use std::path::Path;

use super::Run;
use super::thread::{Awaited, in_thread};
use crate::checks::kernels::{self, Served};
use crate::cli::config::SmokeDevices;
use crate::discover::kernels::places;
use crate::facts::{ComputeCapability, HelperEnd, HelperLine, HelperRun, PtxVersion};
use crate::helper::{self, Request, Started};
use crate::order;
use crate::process::supervisor::Supervisor;
use crate::smoke;
use crate::smoke::native::Planned;
use crate::smoke::native::plan::{Located, Target, plan};
use crate::stack::Stack;

impl Run<'_> {
    fn wants_native(&mut self) -> bool {
        self.smoke.as_mut().is_some_and(|smoke| smoke.native().is_some())
    }

    pub(super) fn attach_native(&mut self, started: Started) {
        if let Some(native) = self.smoke.as_mut().and_then(|smoke| smoke.native()) {
            native.attach(started);
        }
    }

    /// Hears the process that asks the driver, looks for the kernels, and starts a process where the plan has none.
    pub(super) fn attend_native(&mut self, supervisor: &mut Supervisor) {
        // Waited for in any case: a thread that is left would run on behind the checks.
        if let Some(located) = self.located.as_ref().and_then(Awaited::take) {
            self.located = None;
            self.native_libraries = Some(located);
        }
        if !self.wants_native() {
            return;
        }
        self.locate(supervisor);
        let Some(native) = self.smoke.as_mut().and_then(|smoke| smoke.native()) else {
            return;
        };
        if let Some(id) = native.asking() {
            let decoded = helper::decode(supervisor.output(id));
            let is_ready = |line: &HelperLine| *line == HelperLine::Ready;
            if decoded.lines.iter().any(is_ready) {
                native.ready(supervisor);
                if self.driver == Some(id) {
                    let run = HelperRun {
                        end: HelperEnd::Done,
                        ms: supervisor.age(id).as_secs_f64() * 1000.0,
                    };
                    self.absorb(id, run, decoded.lines);
                }
            }
        } else if native.wants_process() {
            let time = self.task.config.device_timeout;
            match self
                .helper
                .start(supervisor, &Request::Driver { native: true }, time)
            {
                Ok(started) => native.attach(started),
                Err(end) => native.cannot_start(detail_of(end)),
            }
            let env = self.task.env;
            if let Some(smoke) = &mut self.smoke {
                smoke.settle_native(supervisor, env);
            }
        }
    }

    /// Has a thread look for where the kernels lie, once it is known which libraries have any.
    fn locate(&mut self, supervisor: &Supervisor) {
        let is_asked = self.kernels.is_none() && self.begun && !self.may_know_smoke();
        if is_asked && self.located.is_none() && self.native_libraries.is_none() {
            self.begin_to_locate(supervisor);
        }
    }

    fn begin_to_locate(&mut self, supervisor: &Supervisor) {
        let all = &self.facts.image.kernels;
        let packages = kernels::packages(all, &self.facts.image.python.site_packages);
        let whole = packages
            .iter()
            .flat_map(|package| package.modules.iter().copied());
        // Nobody can tell what a damaged one holds.
        let damaged = all
            .iter()
            .filter(|module| !module.vendor && module.error.is_some());
        let mut libraries: Vec<(String, Option<String>)> = whole
            .chain(damaged)
            // A name that is not UTF-8 cannot be handed over.
            .filter(|module| !module.path.contains('\u{fffd}'))
            .filter(|module| module.named || is_ours(self.task.stack, module.package.as_deref()))
            .map(|module| (module.path.clone(), module.package.clone()))
            .collect();
        order::sort(&mut libraries);
        self.located = Some(in_thread(supervisor, "places", move || {
            let find = |(path, package): &(String, Option<String>)| {
                let found = places(Path::new(path));
                Located {
                    path: path.clone(),
                    package: package.clone(),
                    unread: found.as_ref().err().map(|error| error.reason.to_string()),
                    places: found.unwrap_or_default(),
                }
            };
            libraries.iter().map(find).collect()
        }));
    }

    /// What the native proof is to do; `None` until it is known where the kernels lie.
    pub(super) fn native_plan(&mut self) -> Option<Planned> {
        if !self.wants_native() {
            return Some(Planned::default());
        }
        let located = self.native_libraries.as_ref()?;
        let facts = &self.facts;
        let mut devices: Vec<Target> = facts
            .device
            .devices
            .iter()
            .filter(|device| device.error.is_none())
            .map(|device| Target {
                ordinal: device.ordinal,
                capability: device.capability,
            })
            .collect();
        if self.task.config.smoke_devices == SmokeDevices::First {
            devices.truncate(1);
        }
        let driver = facts.device.driver.as_ref().and_then(|driver| driver.api_version);
        let newest = driver.and_then(PtxVersion::newest_of);
        let packages = kernels::packages(&facts.image.kernels, &facts.image.python.site_packages);
        // Of a package without anything for the device the driver is to say so once.
        let tried = |device: ComputeCapability, path: &str| {
            packages.iter().any(|package| {
                package.modules.first().is_some_and(|module| module.path == path)
                    && matches!(package.on(device, newest), Served::No { .. })
            })
        };
        let extent = smoke::native_extent(self.task.stack, self.task.config)?;
        Some(plan(located, &devices, newest, extent, &tried))
    }
}

/// Whether a package's kernels are loaded: those of the manifest's, or of all where there is none.
fn is_ours(stack: &Stack, name: Option<&str>) -> bool {
    let is_named = |name: &str| stack.packages.iter().any(|rule| rule.normalized == name);
    stack.as_found || name.is_some_and(is_named)
}

fn detail_of(end: HelperEnd) -> String {
    match end {
        HelperEnd::LoaderMissing { detail } | HelperEnd::NotStarted { detail } => detail,
        other => format!("{other:?}"),
    }
}
