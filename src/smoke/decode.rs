//! The smoke's protocol, read: lines become facts. Pure.

use std::time::Duration;

use crate::facts;
use crate::facts::smoke::{SmokeEnd, SmokeLine, SmokeOutcome, SmokeResult, SmokeRun};
use crate::process::supervisor::{Ended, Exit};

/// Longest line that the script has reason to write: a message of 4 KiB, escaped, and six frames.
const LINE_LIMIT: usize = 64 << 10;
/// Of standard error, what a person reads.
const SAID_LINES: usize = 12;

/// What a run said and how its process ended, as facts.
pub fn conclude(ended: &Ended, deadline: Duration) -> SmokeRun {
    let (mut run, done) = decode(&ended.stdout);
    run.ms = ended.elapsed.as_secs_f64() * 1000.0;
    run.said = last_lines(&crash_shortened(&String::from_utf8_lossy(&ended.stderr)));
    let end = match ended.exit {
        // It had said all it had to say; how a CUDA process takes its leave is no part of the smoke.
        _ if done && run.end == SmokeEnd::Done => SmokeEnd::Done,
        Exit::Signal(signal) => SmokeEnd::Crashed { signal },
        Exit::TimedOut { reaped } => SmokeEnd::TimedOut {
            after_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
            killed: reaped,
        },
        Exit::OutputLimit => SmokeEnd::Garbled {
            detail: "it wrote more than 8 MiB".to_string(),
        },
        Exit::Cancelled => SmokeEnd::NotRun {
            reason: "it was cancelled".to_string(),
        },
        Exit::Code(code) => match run.end {
            SmokeEnd::Garbled { detail } => SmokeEnd::Garbled { detail },
            _ => SmokeEnd::Exited { code },
        },
    };
    SmokeRun { end, ..run }
}

/// Decodes the protocol; says whether the last line was [`SmokeLine::Done`]. The run's `end` is [`SmokeEnd::Done`], or
/// [`SmokeEnd::Garbled`] from the first line on that makes no sense.
pub fn decode(stdout: &[u8]) -> (SmokeRun, bool) {
    let mut run = SmokeRun {
        end: SmokeEnd::Done,
        ..SmokeRun::default()
    };
    let mut done = false;
    for (index, line) in stdout.split_inclusive(|&b| b == b'\n').enumerate() {
        let number = index + 1;
        let taken = match line.strip_suffix(b"\n") {
            None => Err(format!("line {number} is cut off after {} bytes", line.len())),
            Some(_) if done => Err(format!("line {number} comes after the last one")),
            Some(line) if line.len() > LINE_LIMIT => Err(format!("line {number} has {} bytes", line.len())),
            Some(line) => match facts::from_json(line) {
                Ok(line) => take(&mut run, &mut done, line).map_err(|why| format!("line {number}: {why}")),
                Err(error) => Err(format!("line {number} does not match the protocol: {error}")),
            },
        };
        if let Err(detail) = taken {
            run.end = SmokeEnd::Garbled { detail };
            break;
        }
    }
    (run, done)
}

fn take(run: &mut SmokeRun, done: &mut bool, line: SmokeLine) -> Result<(), &'static str> {
    let outcome = match line {
        SmokeLine::Begin(step) => {
            run.steps.push(SmokeResult {
                step,
                outcome: SmokeOutcome::Unfinished,
            });
            return Ok(());
        }
        SmokeLine::Passed(passed) => SmokeOutcome::Passed(passed),
        SmokeLine::Failed(failed) => SmokeOutcome::Failed(failed),
        SmokeLine::Python(python) => {
            run.python = Some(python);
            return Ok(());
        }
        SmokeLine::Skipped(skipped) => {
            run.skipped.push(skipped);
            return Ok(());
        }
        SmokeLine::Module(module) => {
            run.modules.push(module);
            return Ok(());
        }
        SmokeLine::Device(device) => {
            run.devices.push(device);
            return Ok(());
        }
        SmokeLine::Jit(jit) => {
            run.jit = Some(jit);
            return Ok(());
        }
        SmokeLine::Ready => return Ok(()),
        SmokeLine::Done => {
            *done = true;
            return Ok(());
        }
    };
    match run.steps.last_mut() {
        Some(last) if last.outcome == SmokeOutcome::Unfinished => {
            last.outcome = outcome;
            Ok(())
        }
        _ => Err("the end of a step that did not begin"),
    }
}

/// The step that a process is in that has written this much.
pub fn step(stdout: &[u8]) -> Option<String> {
    let last = |line: &[u8]| match facts::from_json(line) {
        Ok(SmokeLine::Begin(step)) => Some(step.step),
        _ => None,
    };
    stdout.rsplit(|&b| b == b'\n').find_map(last)
}

/// How faulthandler begins (Python library reference, "faulthandler").
pub const FATAL: &str = "Fatal Python error: ";
/// Of its frames, the innermost ones that are no import system's.
const FRAMES: usize = 6;

/// What a process said, of which nothing but the thread that crashed is kept from a report of faulthandler: that one
/// lists all threads, each from the innermost call outwards, so that its last lines are those that say least.
fn crash_shortened(text: &str) -> String {
    let Some(at) = text.rfind(FATAL) else {
        return text.to_string();
    };
    let (before, report) = text.split_at(at);
    let head = report.lines().next().unwrap_or_default();
    let frames = report
        .lines()
        .skip_while(|l| !l.starts_with("Current thread "))
        .skip(1)
        .take_while(|l| l.starts_with("  File "))
        .filter(|l| !l.contains("<frozen importlib"))
        .take(FRAMES);
    let mut short = format!("{before}{head}");
    for frame in frames {
        short.push('\n');
        short.push_str(frame);
    }
    short
}

/// The last lines of what a process said, as one text with line ends; empty lines left out.
fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim_end)
        .filter(|l| !l.is_empty())
        .collect();
    let from = lines.len().saturating_sub(SAID_LINES);
    lines.get(from..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::smoke::SmokeFailure;
    use crate::process::supervisor::Deadline;

    const GOOD: &str = r#"{"python":{"version":"3.11.2","executable":"/usr/bin/python3"}}
{"begin":{"entry":"torch","step":"import torch"}}
{"passed":{"ms":3100.5}}
{"module":{"name":"torch","version":"2.5.0+cu124","path":"/t.py"}}
"ready"
{"device":{"ordinal":0,"name":"NVIDIA H200","uuid":"GPU-1"}}
{"begin":{"entry":"torch","step":"matmul float32","device":0}}
{"failed":{"ms":2,"kind":"wrong","message":"far off","difference":3.5,"tolerance":0.1}}
{"skipped":{"entry":"spconv","reason":"torch failed"}}
{"jit":{"calls":0}}
"done"
"#;

    fn ended(exit: Exit, stdout: &str) -> Ended {
        Ended {
            exit,
            stdout: stdout.as_bytes().to_vec(),
            stderr: b"one\n\n  two  \n".to_vec(),
            elapsed: Duration::from_millis(5),
            deadline: Deadline::default(),
        }
    }

    fn run(exit: Exit, stdout: &str) -> SmokeRun {
        conclude(&ended(exit, stdout), Duration::from_secs(300))
    }

    #[test]
    fn a_whole_run_is_taken_down() {
        let run = run(Exit::Code(0), GOOD);
        assert_eq!(run.end, SmokeEnd::Done);
        assert_eq!(run.said, "one\n  two");
        assert_eq!(run.steps.len(), 2);
        assert!(matches!(&run.steps[0].outcome, SmokeOutcome::Passed(p) if p.ms == 3100.5));
        assert!(matches!(
            &run.steps[1].outcome,
            SmokeOutcome::Failed(f) if f.kind == SmokeFailure::Wrong && f.difference == Some(3.5)
        ));
        assert_eq!(run.steps[1].step.device, Some(0));
        assert_eq!(run.jit.unwrap().calls, Some(0));
        // What a receipt keeps is what came.
        let text = serde_json::to_string(&run.steps).unwrap();
        assert_eq!(
            facts::from_json::<Vec<SmokeResult>>(text.as_bytes()).unwrap(),
            run.steps
        );
    }

    #[test]
    fn of_a_crash_the_innermost_calls_are_kept() {
        let frames: Vec<String> = (0..20)
            .map(|n| format!("  File \"/site/{n}.py\", line {n} in f{n}\n"))
            .collect();
        let report = format!(
            "chatter\nFatal Python error: Segmentation fault\n\nThread 0x0001 (most recent call first):\n  File \"/other.py\", \
             line 1 in wait\n\nCurrent thread 0x0002 (most recent call first):\n{}  File \"<frozen importlib._bootstrap>\", \
             line 9 in _load\n{}\nExtension modules: numpy.core (total: 1)\n",
            frames[..2].concat(),
            frames[2..].concat()
        );
        let ended = Ended {
            stderr: report.into_bytes(),
            ..ended(Exit::Signal(11), "")
        };
        let kept: Vec<String> = frames[..6].iter().map(|f| f.trim_end().to_string()).collect();
        assert_eq!(
            conclude(&ended, Duration::ZERO).said,
            format!(
                "chatter\nFatal Python error: Segmentation fault\n{}",
                kept.join("\n")
            )
        );
        // A thread that is not Python's has no frames.
        for short in [
            "Fatal Python error: Aborted",
            "Fatal Python error: Aborted\n\nCurrent",
        ] {
            assert_eq!(crash_shortened(short), "Fatal Python error: Aborted");
        }
    }

    #[test]
    fn a_crash_after_the_last_word_is_none() {
        assert_eq!(run(Exit::Signal(11), GOOD).end, SmokeEnd::Done);
        assert_eq!(run(Exit::Code(1), GOOD).end, SmokeEnd::Done);
    }

    #[test]
    fn a_step_without_an_end_names_where_it_was() {
        let head: String = GOOD.lines().take(2).map(|l| format!("{l}\n")).collect();
        for (exit, end) in [
            (Exit::Signal(8), SmokeEnd::Crashed { signal: 8 }),
            (Exit::Code(0), SmokeEnd::Exited { code: 0 }),
            (
                Exit::TimedOut { reaped: true },
                SmokeEnd::TimedOut {
                    after_ms: 300_000,
                    killed: true,
                },
            ),
        ] {
            let run = run(exit, &head);
            assert_eq!(run.end, end);
            assert_eq!(run.steps.last().unwrap().outcome, SmokeOutcome::Unfinished);
        }
        assert_eq!(step(head.as_bytes()).as_deref(), Some("import torch"));
        assert_eq!(step(GOOD.as_bytes()).as_deref(), Some("matmul float32"));
        assert_eq!(step(b""), None);
    }

    #[test]
    fn nonsense_has_its_line() {
        for (text, part) in [
            ("hello\n", "line 1 does not match the protocol"),
            ("\"ready\"", "line 1 is cut off"),
            ("\"done\"\n\"ready\"\n", "line 2 comes after"),
            ("{\"passed\":{\"ms\":1}}\n", "line 1: the end of a step"),
            (
                "{\"begin\":{\"entry\":1,\"step\":\"\"}}\n",
                "line 1 does not match",
            ),
            ("\u{0}\n", "line 1"),
        ] {
            match run(Exit::Code(0), text).end {
                SmokeEnd::Garbled { detail } => assert!(detail.contains(part), "{text}: {detail}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        let long = format!(
            "{{\"skipped\":{{\"entry\":\"a\",\"reason\":\"{}\"}}}}\n",
            "x".repeat(LINE_LIMIT)
        );
        assert!(matches!(run(Exit::Code(0), &long).end, SmokeEnd::Garbled { .. }));
    }
}
