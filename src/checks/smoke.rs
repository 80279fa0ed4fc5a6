//! The smoke judged: which step failed, and whether that is the software's fault or the device's. Pure.

mod known;
pub mod native;
mod symbols;
mod versions;

use crate::check::{Code, Finding};
use crate::checks::device::signal_name;
use crate::facts::smoke::{
    SmokeCommand, SmokeEnd, SmokeFacts, SmokeFailed, SmokeFailure, SmokeOutcome, SmokeResult, SmokeRun,
};
use crate::facts::{Distribution, ImageFacts};
use crate::packages;
use crate::process::limits::ResourceLimit;
use crate::report::headline;
use crate::smoke::{self, decode};
use crate::stack::Stack;
use crate::text::{counted, milliseconds};
use known::Cause;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// All findings of the smoke; `image` says where libraries were found, as far as that is known.
pub fn judge(stack: &Stack, facts: &SmokeFacts, image: &ImageFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let builtins = smoke::builtins(stack);
    for run in facts.runs() {
        let names: Vec<&str> = builtins
            .iter()
            .filter(|builtin| builtin.framework() == run.framework)
            .map(|builtin| builtin.name())
            .collect();
        if names.is_empty() {
            continue;
        }
        let mut of_run: Vec<Finding> = names.iter().flat_map(|name| entry(name, run, image)).collect();
        of_run.extend(ending(run, &names, &of_run, image));
        findings.extend(of_run);
        if names.contains(&"spconv") {
            findings.extend(jit(stack, run));
        }
    }
    findings.extend(facts.commands.iter().map(|own| command(own, image)));
    findings
}

/// What it imported held against what is installed.
pub fn imported(facts: &SmokeFacts, installed: &[Distribution]) -> Vec<Finding> {
    versions::judge(facts, installed)
}

/// A finding of the smoke that did not run, for whatever reason.
pub fn skipped(names: Vec<&str>, reason: &str) -> Vec<Finding> {
    skip(names, reason).into_iter().collect()
}

/// The same for the entries that come with this program alone: the manifest's own commands were run.
pub fn builtins_skipped(stack: &Stack, reason: &str) -> Option<Finding> {
    let names = smoke::builtins(stack).iter().map(|b| b.name()).collect();
    skip(names, reason)
}

fn skip(names: Vec<&str>, reason: &str) -> Option<Finding> {
    (!names.is_empty())
        .then(|| Finding::skip(Code::SmokeForward, names.join(", ")).message(format!("not run: {reason}")))
}

/// That nothing could be proven on a GPU, where one is required and no other stage says so. `names` are the entries that need
/// one; `why` is what that stage would have said first.
pub fn without_gpu(names: &[&str], why: Option<&Finding>) -> Option<Finding> {
    if names.is_empty() {
        return None;
    }
    let seen = why.map_or_else(
        || "no device".to_string(),
        |f| format!("{} ({})", headline(f), f.code),
    );
    Some(
        Finding::problem(Code::SmokeDevice, names.join(", "))
            .observed(seen)
            .required("a GPU to run the kernels on (--gpu required)")
            .message("nothing was run on a GPU: there is no usable GPU")
            .hint("cuda-entrypoint check --stage device says why; with --gpu optional, the built-in entries only import their packages, and commands with \"gpu\": true are skipped"),
    )
    .map(|finding| match why {
        Some(why) if why.retryable => finding.retryable(),
        _ => finding,
    })
}

/// What came out for one entry; nothing where the process ended before its turn.
fn entry(name: &str, run: &SmokeRun, image: &ImageFacts) -> Vec<Finding> {
    let steps: Vec<&SmokeResult> = run.steps.iter().filter(|s| s.step.entry == name).collect();
    let mut findings: Vec<Finding> = steps
        .iter()
        .filter_map(|step| problem(step, run, image))
        .collect();
    let skipped = run.skipped.iter().find(|s| s.entry == name);
    let all_passed = !steps.is_empty() && steps.iter().all(|s| matches!(s.outcome, SmokeOutcome::Passed(_)));
    let used_gpu = steps.iter().any(|s| s.step.device.is_some());
    if all_passed && used_gpu {
        findings.push(passed(name, &steps, run));
    } else if all_passed {
        findings.push(
            Finding::pass(Code::SmokeImport, name)
                .observed(milliseconds(total(&steps)))
                .message(format!("{name} imports{}", version(name, run))),
        );
    }
    if findings.iter().any(Finding::failed) {
        return findings;
    }
    let not_run = if all_passed { "not run on a GPU" } else { "not run" };
    let unfinished = steps.iter().any(|s| s.outcome == SmokeOutcome::Unfinished);
    let reason = match skipped {
        Some(skipped) => Some(skipped.reason.as_str()),
        None if used_gpu || unfinished => None,
        None => ended_early(run),
    };
    if let Some(reason) = reason {
        findings.push(Finding::skip(Code::SmokeForward, name).message(format!("{not_run}: {reason}")));
    }
    findings
}

/// Why what has no word about it was not run: the process was gone by then.
fn ended_early(run: &SmokeRun) -> Option<&'static str> {
    match run.end {
        SmokeEnd::Done | SmokeEnd::NotRun { .. } | SmokeEnd::NotStarted { .. } => None,
        _ => Some("the process of the smoke test had ended"),
    }
}

fn passed(name: &str, steps: &[&SmokeResult], run: &SmokeRun) -> Finding {
    let mut said = None;
    let mut differences: Vec<(&str, f64)> = Vec::new();
    for step in steps {
        if let SmokeOutcome::Passed(passed) = &step.outcome {
            if !passed.says.is_empty() {
                said = Some(passed.says.clone());
            }
            if let (Some(difference), true) = (passed.difference, passed.difference.is_some_and(|d| d > 0.0))
            {
                // The worst of all devices.
                let what = step.step.step.rsplit(' ').next().unwrap_or_default();
                match differences.iter_mut().find(|(name, _)| *name == what) {
                    Some((_, worst)) => *worst = worst.max(difference),
                    None => differences.push((what, difference)),
                }
            }
        }
    }
    let within = |(what, worst): &(&str, f64)| format!("{what} within {worst:.1e}");
    let mut observed: Vec<String> = differences.iter().map(within).collect();
    let devices: Vec<&str> = run.devices.iter().map(|d| d.name.as_str()).collect();
    match devices.as_slice() {
        [] | [""] => {}
        [one] => observed.push(format!("on {one}")),
        all => observed.push(format!("on {} GPUs", all.len())),
    }
    observed.push(milliseconds(total(steps)));
    Finding::pass(Code::SmokeForward, name)
        .observed(observed.join(", "))
        .message(said.unwrap_or_else(|| format!("{name} OK")))
}

fn total(steps: &[&SmokeResult]) -> Duration {
    let ms: f64 = steps
        .iter()
        .map(|s| match &s.outcome {
            SmokeOutcome::Passed(p) => p.ms,
            SmokeOutcome::Failed(f) => f.ms,
            SmokeOutcome::Unfinished => 0.0,
        })
        .sum();
    Duration::try_from_secs_f64(ms / 1000.0).unwrap_or_default()
}

fn version(name: &str, run: &SmokeRun) -> String {
    let module = name.replace('-', "_");
    run.modules
        .iter()
        .find(|m| m.name == module && !m.version.is_empty())
        .map_or_else(String::new, |m| format!(" ({})", m.version))
}

fn is_import(step: &SmokeResult) -> bool {
    step.step.step.starts_with("import ")
}

/// Where a step was, for a sentence: `forward float16 on GPU 0`.
fn place(step: &SmokeResult) -> String {
    match step.step.device {
        Some(device) => format!("{} on GPU {device}", step.step.step),
        None => step.step.step.clone(),
    }
}

/// A step that failed; one that was never finished is judged with the process's end.
fn problem(step: &SmokeResult, run: &SmokeRun, image: &ImageFacts) -> Option<Finding> {
    let SmokeOutcome::Failed(failed) = &step.outcome else {
        return None;
    };
    let place = place(step);
    let entry = step.step.entry.as_str();
    if failed.kind == SmokeFailure::Wrong {
        return Some(wrong(entry, &place, failed));
    }
    let text = format!("{}: {}", failed.error, failed.message);
    let own = if is_import(step) || failed.kind == SmokeFailure::Import {
        Code::SmokeImport
    } else {
        Code::SmokeForward
    };
    // What is on standard error may be a warning of something else.
    let is_its = |cause: &Cause| cause.code == own || known::is_wrapper(&text);
    let found = known::find(&text, own, image).or_else(|| known::find(&run.said, own, image).filter(is_its));
    // numpy's advice begins with two empty lines.
    let first_line = failed.message.lines().map(str::trim).find(|l| !l.is_empty());
    let mut observed = match first_line {
        Some(line) => format!("{}: {}", failed.error, beginning(line)),
        None => failed.error.clone(),
    };
    // The script's own frames say what the step's name says.
    if let Some(frame) = failed.frames.iter().rfind(|f| !f.starts_with('<')) {
        observed.push_str(&format!(" ({frame})"));
    }
    let verb = if own == Code::SmokeImport {
        "raised an error"
    } else {
        "failed"
    };
    Some(with_known(
        found,
        own,
        entry,
        observed,
        "the step without an exception",
        format!("{entry}: {place} {verb}"),
        fallback_hint(own),
    ))
}

/// More of one line is a wall that nobody reads; the facts have all of it.
const LINE: usize = 500;

fn beginning(line: &str) -> String {
    match line.char_indices().nth(LINE) {
        Some((at, _)) => format!("{}…", line.get(..at).unwrap_or_default().trim_end()),
        None => line.to_string(),
    }
}

fn ending_of(text: &str) -> String {
    let from = text.char_indices().rev().nth(2 * LINE);
    match from {
        Some((at, _)) => format!("…{}", text.get(at..).unwrap_or_default().trim_start()),
        None => text.to_string(),
    }
}

fn wrong(entry: &str, place: &str, failed: &SmokeFailed) -> Finding {
    let observed = match failed.difference {
        Some(difference) => {
            format!("the largest difference is {difference:.2e} of the reference's largest value")
        }
        None => failed.message.clone(),
    };
    let required = match failed.tolerance {
        Some(tolerance) => format!("at most {tolerance:.0e} of it, and no value that is not finite"),
        None => "the reference's result".to_string(),
    };
    Finding::problem(Code::SmokeWrong, entry)
        .observed(observed)
        .required(required)
        .message(format!("{entry}: {place} gives a wrong result"))
        .hint("try another GPU of this kind: if only one is wrong, drain it; if all are, the package was built for other releases of its framework or of the CUDA libraries")
}

fn fallback_hint(code: Code) -> &'static str {
    match code {
        Code::SmokeImport => {
            "try the same import with the image's Python (docker run --entrypoint python IMAGE -c 'import …') and fix the package that it names"
        }
        _ => {
            "run it again with CUDA_LAUNCH_BLOCKING=1 and --log debug, and compare the builds of the framework and of the packages built on it"
        }
    }
}

/// The finding by what the failure turned out to be, or by the step's own code.
fn with_known(
    found: Option<Cause>,
    own: Code,
    subject: &str,
    observed: String,
    required: &str,
    message: String,
    hint: &str,
) -> Finding {
    let retryable = found.as_ref().is_some_and(|cause| cause.retryable);
    let (code, message, hint) = match found {
        Some(cause) => (cause.code, format!("{message}: {}", cause.means), cause.hint),
        None => (own, message, hint.to_string()),
    };
    let finding = Finding::problem(code, subject)
        .observed(observed)
        .required(required)
        .message(message)
        .hint(hint);
    if retryable { finding.retryable() } else { finding }
}

/// A process that could not be made is neither the image's nor the software's fault.
fn no_room(subject: &str, detail: &str) -> Finding {
    Finding::problem(Code::SmokeDevice, subject)
        .observed(detail)
        .required("room for one more process")
        .message("the container's limits leave no room for the process of the smoke test")
        .hint(ResourceLimit::told_by(detail).map_or("", ResourceLimit::hint))
}

/// How the process itself ended, where that says more than its steps did.
fn ending(run: &SmokeRun, names: &[&str], so_far: &[Finding], image: &ImageFacts) -> Option<Finding> {
    let last = run.steps.last().filter(|s| s.outcome == SmokeOutcome::Unfinished);
    let place = last.map_or_else(
        || match run.steps.last() {
            Some(step) => format!("after {}", self::place(step)),
            None => "before its first step".to_string(),
        },
        |step| format!("in {}", self::place(step)),
    );
    // A package that writes into the protocol may begin a step of nobody's.
    let named = last
        .map(|s| s.step.entry.clone())
        .filter(|entry| !entry.is_empty());
    let subject = named.unwrap_or_else(|| names.join(", "));
    // An import that never ended is an import's failure.
    let own = match run.steps.last() {
        Some(step) if !is_import(step) => Code::SmokeForward,
        _ => Code::SmokeImport,
    };
    let said = last_words(&run.said);
    Some(match &run.end {
        SmokeEnd::Done => return None,
        SmokeEnd::NotRun { reason } if reason.is_empty() => return None,
        SmokeEnd::NotRun { reason } => {
            Finding::skip(Code::SmokeForward, subject).message(format!("not run: {reason}"))
        }
        // What the image stage says of Python says it better.
        SmokeEnd::NotStarted { detail } if ResourceLimit::told_by(detail).is_some() => no_room(&subject, detail),
        SmokeEnd::NotStarted { detail } => Finding::problem(Code::SmokeImport, subject)
            .observed(detail.clone())
            .required("the image's own Python, to import the stack")
            .message("the Python of the smoke test could not be started")
            .hint("name the interpreter with --python, or skip the smoke with --smoke off"),
        SmokeEnd::TimedOut { after_ms, killed } => timed_out(&subject, &place, *after_ms, *killed, &said),
        SmokeEnd::Crashed { signal } => {
            let name = signal_name(*signal);
            let found = known::signal(*signal, &run.said, own, image);
            with_known(
                found,
                own,
                &subject,
                format!("{name} {place}{said}"),
                "the process of the smoke test goes through",
                format!("the process of the smoke test was ended by {name} {place}"),
                "a package that was built for another release of its framework is the usual reason; --log debug shows all that the smoke said, the Python frames among it",
            )
        }
        SmokeEnd::Exited { code } => {
            if so_far.iter().any(Finding::failed) {
                return None;
            }
            with_known(
                known::find(&run.said, own, image),
                own,
                &subject,
                format!("exit status {code} {place}{said}"),
                "the process of the smoke test goes through",
                format!("the process of the smoke test exited {place}"),
                "something that it calls ends the interpreter (os._exit, exit in a library, a sitecustomize): do the same by hand, or see all that it said with --log debug",
            )
        }
        SmokeEnd::Garbled { detail } => Finding::problem(own, subject)
            .observed(format!("{detail}{said}"))
            .required("the smoke's own lines alone on its channel")
            .message(format!("the smoke's answer makes no sense {place}"))
            .hint("a library writes to descriptors that are not its own: find it by importing one package after the other by hand"),
    })
}

/// What of a process's last lines says most: for a crash, faulthandler's innermost frame.
fn last_words(said: &str) -> String {
    let mut lines = said.lines();
    let frame = lines
        .by_ref()
        .find(|line| line.starts_with(decode::FATAL))
        .and_then(|_| lines.next());
    match (frame, said.lines().last()) {
        (Some(frame), _) => format!("; its innermost call: {}", beginning(frame.trim())),
        (None, Some(line)) => format!("; its last line: {}", beginning(line.trim())),
        (None, None) => String::new(),
    }
}

fn timed_out(subject: &str, place: &str, after_ms: u64, killed: bool, said: &str) -> Finding {
    let left = if killed {
        ""
    } else {
        "; it sits in the kernel and could not be killed"
    };
    let time = milliseconds(Duration::from_millis(after_ms));
    Finding::problem(Code::SmokeTimeout, subject)
        .observed(format!("no end {place} after {time}{left}{said}"))
        .required("an end within --smoke-timeout, or the command's own timeout")
        .message(format!("{subject}: the smoke test hangs {place}"))
        .hint("slow storage or few CPUs need a longer CUDA_ENTRYPOINT_SMOKE_TIMEOUT; a GPU that hangs shows NVRM and Xid lines in dmesg on the node")
}

fn jit(stack: &Stack, run: &SmokeRun) -> Option<Finding> {
    let jit = run.jit.as_ref()?;
    // By these variables the manifest says that nothing is to be compiled.
    let is_off = packages::compiled_by_pccm().all(|(_, name)| stack.env.get(name).is_some_and(|v| v == "1"));
    let calls = match jit.calls {
        None => {
            return Some(
                Finding::unknown(Code::JitAtRuntime, "spconv")
                    .message("this spconv has no function by which a compilation could be seen"),
            );
        }
        Some(0) => {
            return Some(
                Finding::pass(Code::JitAtRuntime, "spconv")
                    .message("spconv ran its prebuilt kernels: NVRTC was never called"),
            );
        }
        Some(calls) => calls,
    };
    let observed = format!(
        "{} of NVRTC{}",
        counted(calls, "call"),
        if jit.kernels.is_empty() {
            String::new()
        } else {
            format!(": {}", jit.kernels.join(", "))
        }
    );
    let finding = if is_off {
        Finding::problem(Code::JitAtRuntime, "spconv")
    } else {
        Finding::info(Code::JitAtRuntime, "spconv")
    };
    Some(
        finding
            .observed(observed)
            .required("prebuilt kernels alone: the manifest turns JIT off")
            .message("spconv compiled kernels while it ran")
            .hint("install the spconv that was built for this CUDA and this GPU, or use data types and kernel sizes that are prebuilt; SPCONV_DISABLE_JIT does not stop this (explain jit-at-runtime)"),
    )
}

/// One of the manifest's own commands.
fn command(command: &SmokeCommand, image: &ImageFacts) -> Finding {
    let name = command.name.as_str();
    let said = match command.said.is_empty() {
        true => String::new(),
        false => format!(": {}", ending_of(&command.said)),
    };
    let failed = |found: Option<Cause>, observed: String| {
        with_known(
            found.or_else(|| known::find(&command.said, Code::SmokeForward, image)),
            Code::SmokeForward,
            name,
            observed,
            "exit status 0",
            format!("{name}: the manifest's own command failed"),
            "run the command by hand in the container; its output names the fault, which is in the service",
        )
    };
    match &command.end {
        SmokeEnd::Done => Finding::pass(Code::SmokeForward, name)
            .observed(milliseconds(
                Duration::try_from_secs_f64(command.ms / 1000.0).unwrap_or_default(),
            ))
            .message(format!("{name} OK")),
        SmokeEnd::NotRun { reason } => {
            Finding::skip(Code::SmokeForward, name).message(format!("not run: {reason}"))
        }
        SmokeEnd::NotStarted { detail } if ResourceLimit::told_by(detail).is_some() => no_room(name, detail),
        SmokeEnd::NotStarted { detail } => Finding::problem(Code::SmokeForward, name)
            .observed(detail.clone())
            .required("a command that can be started")
            .message(format!("{name}: the manifest's own command cannot be started"))
            .hint("correct its argv in the manifest, or put the program into the image"),
        // As a shell has it where a signal ended what it ran.
        SmokeEnd::Exited { code } => failed(
            known::signal(*code - 128, &command.said, Code::SmokeForward, image),
            format!("exit status {code}{said}"),
        ),
        SmokeEnd::Crashed { signal } => failed(
            known::signal(*signal, &command.said, Code::SmokeForward, image),
            format!("{}{said}", signal_name(*signal)),
        ),
        SmokeEnd::Garbled { detail } => failed(None, format!("{detail}{said}")),
        SmokeEnd::TimedOut { after_ms, killed } => {
            timed_out(name, "in its command", *after_ms, *killed, &said)
        }
    }
}
