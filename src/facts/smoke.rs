//! What a smoke saw: the protocol that `smoke.py` writes, one JSON value a line, and what is kept of it.

use serde::Serialize;
use serde_json::Value;

use super::native::NativeRun;
use super::read::{Fields, FromJson, ReadError, lines, object, tagged, words};

/// Everything that is known of a smoke.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct SmokeFacts {
    /// the native proof, where one was asked for
    #[serde(skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeRun>,
    /// the entries of torch and of what is built on it: one Python process for all of them
    pub builtin: SmokeRun,
    /// those of the other frameworks: one process for each
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub frameworks: Vec<SmokeRun>,
    /// the manifest's own commands, in its order
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<SmokeCommand>,
}

/// A Python process and what it said.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct SmokeRun {
    /// the entry that it is for; empty where it is torch's
    #[serde(skip_serializing_if = "String::is_empty")]
    pub framework: String,
    /// how it ended
    #[serde(flatten)]
    pub end: SmokeEnd,
    /// who ran it
    #[serde(skip_serializing_if = "Option::is_none")]
    pub python: Option<SmokePython>,
    /// what it imported
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<SmokeModule>,
    /// which devices it used
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<SmokeDevice>,
    /// what it did, in this order
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<SmokeResult>,
    /// what it left out
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<SmokeSkipped>,
    /// whether spconv compiled anything; `None` where no forward pass of it ran to its end
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jit: Option<SmokeJit>,
    /// the last lines of its standard error
    #[serde(skip_serializing_if = "String::is_empty")]
    pub said: String,
    /// from the spawn to its reaping, in milliseconds
    pub ms: f64,
}

/// One of the manifest's own commands.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct SmokeCommand {
    /// as the manifest calls it
    pub name: String,
    /// how it ended
    #[serde(flatten)]
    pub end: SmokeEnd,
    /// the last lines of its output
    #[serde(skip_serializing_if = "String::is_empty")]
    pub said: String,
    /// from the spawn to its reaping, in milliseconds
    pub ms: f64,
}

/// How a process of the smoke ended.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "end")]
pub enum SmokeEnd {
    /// it was not to run
    NotRun {
        /// why
        reason: String,
    },
    /// it went through; a command with exit status 0
    Done,
    /// it could not be started
    NotStarted {
        /// why
        detail: String,
    },
    /// it exited early, or a command with another status than 0
    Exited {
        /// exit status
        code: i32,
    },
    /// a signal ended it
    Crashed {
        /// signal number
        signal: i32,
    },
    /// it wrote something that is not the protocol
    Garbled {
        /// what was wrong, with the line's number
        detail: String,
    },
    /// the deadline passed
    TimedOut {
        /// the deadline in milliseconds
        after_ms: u64,
        /// false where the process could not be killed in time and was left behind
        killed: bool,
    },
}

impl Default for SmokeEnd {
    fn default() -> Self {
        Self::NotRun {
            reason: String::new(),
        }
    }
}

/// A step and how it came out.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SmokeResult {
    /// which step
    #[serde(flatten)]
    pub step: SmokeStep,
    /// how
    #[serde(flatten)]
    pub outcome: SmokeOutcome,
}

/// How a step came out.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum SmokeOutcome {
    /// well
    Passed(SmokePassed),
    /// not well
    Failed(SmokeFailed),
    /// the process ended in it
    Unfinished,
}

/// One line of the smoke's protocol. The order is: [`SmokeLine::Python`], imports, [`SmokeLine::Ready`], then what needs
/// the GPU, [`SmokeLine::Done`]. A [`SmokeLine::Begin`] is followed by the step's own result, or by nothing where the
/// process crashed, hung or was ended in it.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SmokeLine {
    /// who runs it, before anything is imported
    Python(SmokePython),
    /// written before each step, so that a crash or a hang has a name
    Begin(SmokeStep),
    /// the step that began last went well
    Passed(SmokePassed),
    /// the step that began last did not
    Failed(SmokeFailed),
    /// what was not run
    Skipped(SmokeSkipped),
    /// a module that was imported, and its version
    Module(SmokeModule),
    /// the imports are over, and the next line of standard input is waited for
    Ready,
    /// a device that the steps ran on, as the framework sees it
    Device(SmokeDevice),
    /// how often spconv called NVRTC
    Jit(SmokeJit),
    /// the last line of a run that went through, whatever its steps came to
    Done,
}

/// The interpreter that runs a smoke.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct SmokePython {
    /// `3.11.7`
    pub version: String,
    /// `sys.executable`
    pub executable: String,
}

/// One step, such as `forward float16` of spconv on the first GPU.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct SmokeStep {
    /// the manifest's entry, such as `spconv`
    pub entry: String,
    /// what is done, such as `import spconv.pytorch`
    pub step: String,
    /// the CUDA ordinal; `None` for a step without a GPU
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<u32>,
}

/// A step that went well.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct SmokePassed {
    /// how long it took, in milliseconds
    pub ms: f64,
    /// the largest difference from the reference, where there is one
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<f64>,
    /// the largest that is allowed
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
    /// the step's own sentence, such as `spconv forward OK`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub says: String,
}

/// What a failed step was about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SmokeFailure {
    /// an import raised
    Import,
    /// an operation raised
    #[default]
    Error,
    /// the result is not the reference's
    Wrong,
}

/// A step that did not go well.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct SmokeFailed {
    /// how long it took, in milliseconds
    pub ms: f64,
    /// what it was about
    pub kind: SmokeFailure,
    /// the exception's type, such as `ImportError` or `torch.OutOfMemoryError`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// the exception's text, at most 4 KiB of it
    pub message: String,
    /// the innermost calls, `file:line in function`, outermost first, at most six
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<String>,
    /// the largest difference from the reference; `None` with [`SmokeFailure::Wrong`] where the result is not finite
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<f64>,
    /// the largest that is allowed
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
}

/// An entry, or all that is left of one, that was not run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct SmokeSkipped {
    /// the manifest's entry
    pub entry: String,
    /// why
    pub reason: String,
}

/// An imported module.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct SmokeModule {
    /// import name
    pub name: String,
    /// its `__version__`; empty where it has none
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// its `__file__`; empty where it has none
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
}

/// A device that steps ran on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct SmokeDevice {
    /// the CUDA ordinal
    pub ordinal: u32,
    /// marketing name; empty where the framework does not say
    pub name: String,
    /// `GPU-…` or `MIG-…`; empty where the framework does not say, as torch before 2.5
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uuid: String,
}

/// Calls of NVRTC that spconv made while its forward passes ran.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct SmokeJit {
    /// how often `_compile_nvrtc_module` was called; `None` where this spconv has no such function to watch
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<u32>,
    /// what was compiled, at most four names
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<String>,
}

object!(SmokeFacts {
    native,
    builtin,
    frameworks,
    commands
});
object!(SmokeRun { python, modules, devices, steps, skipped, jit; or_default framework, said, ms; flat end });
object!(SmokeCommand { name; or_default said, ms; flat end });
tagged!(SmokeEnd by "end" {
    "not-run" NotRun { reason },
    "done" Done {},
    "not-started" NotStarted { detail },
    "exited" Exited { code },
    "crashed" Crashed { signal },
    "garbled" Garbled { detail },
    "timed-out" TimedOut { after_ms, killed }
});
lines!(SmokeLine { "python" Python, "begin" Begin, "passed" Passed, "failed" Failed, "skipped" Skipped, "module" Module, "device" Device, "jit" Jit; "ready" Ready, "done" Done });
object!(SmokePython { version, executable });
object!(SmokeStep { entry, step, device });
object!(SmokePassed { ms, difference, tolerance; or_default says });
words!(SmokeFailure { "import" Import, "error" Error, "wrong" Wrong });
object!(SmokeFailed { ms, kind, message, frames, difference, tolerance; or_default error });
object!(SmokeSkipped { entry, reason });
object!(SmokeModule { name; or_default version, path });
object!(SmokeDevice { ordinal, name; or_default uuid });
object!(SmokeJit { calls, kernels });

impl SmokeFacts {
    /// The processes of the entries that come with this program.
    pub fn runs(&self) -> impl Iterator<Item = &SmokeRun> {
        std::iter::once(&self.builtin).chain(&self.frameworks)
    }

    /// The process of a framework, by its entry's name; torch's has none.
    pub fn run(&self, framework: &str) -> Option<&SmokeRun> {
        self.runs().find(|run| run.framework == framework)
    }
}

impl FromJson for SmokeResult {
    fn from_json(value: Value) -> Result<Self, ReadError> {
        let mut fields = Fields::of(value)?;
        Ok(Self {
            step: SmokeStep {
                entry: fields.take("entry")?,
                step: fields.take("step")?,
                device: fields.take("device")?,
            },
            outcome: match fields.take::<String>("outcome")?.as_str() {
                "passed" => SmokeOutcome::Passed(FromJson::from_json(fields.rest())?),
                "failed" => SmokeOutcome::Failed(FromJson::from_json(fields.rest())?),
                "unfinished" => SmokeOutcome::Unfinished,
                _ => return Err(ReadError::new("outcome: expected passed, failed or unfinished")),
            },
        })
    }
}
