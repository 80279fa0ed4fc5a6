//! The part of `run` in which the service's own Python is the smoke's.

use std::ffi::CString;
use std::time::{Duration, SystemTime};

use cuda_entrypoint::check::{Outcome, Verdict};
use cuda_entrypoint::config::{Config, SmokeMode};
use cuda_entrypoint::crew::Crew;
use cuda_entrypoint::facts::Facts;
use cuda_entrypoint::pipeline::{Gathered, Task};
use cuda_entrypoint::receipt::Part;
use cuda_entrypoint::report::sanitize;
use cuda_entrypoint::signal::Number;
use cuda_entrypoint::smoke::handoff::{self, Came, Order, Resumed, State};
use cuda_entrypoint::stack::Stack;
use cuda_entrypoint::{checks, pipeline, smoke};

use super::session::Session;

impl Session<'_> {
    /// How the smoke can be run for this service.
    pub fn smoke_mode(&self, config: &Config, stack: &Stack, env: &[CString]) -> SmokeMode {
        if config.smoke != SmokeMode::Handoff {
            return config.smoke;
        }
        if smoke::builtins(stack).is_empty() {
            // Commands of the manifest's own run by themselves in any case.
            return SmokeMode::Separate;
        }
        match pipeline::handoff_hindrance(self.service, env) {
            None => SmokeMode::Handoff,
            Some(why) => {
                tracing::info!(
                    "smoke: no hand-off, in a process of its own instead: {}",
                    sanitize(&why)
                );
                SmokeMode::Separate
            }
        }
    }

    /// Makes the service's own Python run the smoke, where that is how it is to run and nothing has failed by now.
    pub fn hand_off(
        &self,
        task: &Task<'_>,
        crew: &mut Crew,
        mut gathered: Gathered,
    ) -> Result<Gathered, Number> {
        let failed = Outcome::of(&gathered.findings).verdict == Verdict::Fail && task.plan.stop_early;
        let is_proven = gathered.receipt.as_ref().is_some_and(|r| r.has_used(Part::Smoke));
        if task.smoke != SmokeMode::Handoff || failed || is_proven {
            return Ok(gathered);
        }
        if let Some(why) = pipeline::nothing_to_hand_off(task, &gathered) {
            gathered
                .findings
                .extend(checks::smoke::builtins_skipped(task.stack, &why));
            return Ok(gathered);
        }
        let builtins = smoke::builtins(task.stack);
        let order = Order {
            builtins: &builtins,
            devices: task.config.smoke_devices,
            timeout: task.config.smoke_timeout,
            env: task.env,
            argv: &handoff::own_argv(),
            environ: self.environ,
            becomes_us: task.config.init.is_none(),
        };
        let state = State {
            facts: gathered.facts.clone(),
            receipt: gathered.receipt.clone(),
            timing_ms: handoff::timing_ms(&gathered.timing),
            began_ms: handoff::unix_ms(SystemTime::now() - self.started.elapsed()),
        };
        match handoff::prepare(&order, &state) {
            Ok(prepared) => {
                let names: Vec<&str> = builtins.iter().map(|b| b.name()).collect();
                tracing::info!(
                    "smoke: {} in the service's own Python (CUDA_ENTRYPOINT_SMOKE=off skips it)",
                    names.join(", ")
                );
                gathered.handoff = Some(prepared);
                Ok(gathered)
            }
            Err(why) => {
                let receipt = gathered.receipt.take();
                let smoked = self.smoke_here(task, crew, gathered.facts, &why);
                smoked.map(|gathered| Gathered { receipt, ..gathered })
            }
        }
    }

    pub fn smoke_here(
        &self,
        task: &Task<'_>,
        crew: &mut Crew,
        facts: Facts,
        why: &str,
    ) -> Result<Gathered, Number> {
        tracing::info!(
            "smoke: no hand-off, in a process of its own instead: {}",
            sanitize(why)
        );
        pipeline::smoke_here(task, crew, facts)
    }

    /// The second run of a hand-off: takes what the first one found out and what the service's Python saw.
    pub fn resume(&self, task: &Task<'_>, crew: &mut Crew, resumed: Resumed) -> Result<Gathered, Number> {
        let Resumed { mut state, came } = resumed;
        let began = SystemTime::UNIX_EPOCH + Duration::from_millis(state.began_ms);
        let before = began
            .elapsed()
            .unwrap_or_default()
            .saturating_sub(self.started.elapsed());
        let mut facts = std::mem::take(&mut state.facts);
        let mut gathered = match came {
            Came::Refused(why) => self.smoke_here(task, crew, facts, &why)?,
            Came::Proven(run) => {
                let known = facts.clone();
                facts.smoke.get_or_insert_default().builtin = *run;
                let judged = pipeline::judge(task, facts, vec![("smoke", self.started.elapsed())]);
                if pipeline::is_worth_waiting(task, &judged.findings) {
                    // Those imports are over; what fails now is tried again from the start.
                    self.smoke_here(task, crew, known, "what failed may mend itself")?
                } else {
                    judged
                }
            }
        };
        let since = gathered
            .timing
            .into_iter()
            .map(|(name, time)| (name, before + time));
        gathered.timing = state.timing().chain(since).collect();
        gathered.before = before;
        gathered.receipt = state.receipt;
        Ok(gathered)
    }
}
