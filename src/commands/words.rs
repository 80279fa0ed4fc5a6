//! What is said: on standard error, on standard output, to the report file and the termination log.

use std::io::{ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use cuda_entrypoint::check::{Finding, Stage, Status, Verdict};
use cuda_entrypoint::cli::Settings;
use cuda_entrypoint::cli::config::{self, Config, Format, ReportTarget, TerminationLog};
use cuda_entrypoint::exit_code::ExitCode;
use cuda_entrypoint::process::limits::ResourceLimit;
use cuda_entrypoint::process::supervisor::Supervisor;
use cuda_entrypoint::report::human::Colour;
use cuda_entrypoint::report::progress::USUAL_COLUMNS;
use cuda_entrypoint::report::{Report, headline, human, json, progress, termination};
use cuda_entrypoint::signal::Number;
use cuda_entrypoint::text::sanitize;
use cuda_entrypoint::{draft, logging, sys};

pub fn termination_text(exit: u8, kind: &str, message: &str, hint: &str) -> String {
    sanitize_lines(&format!("{kind} (exit {exit}): {message}"), hint)
}

pub fn sanitize_lines(message: &str, hint: &str) -> String {
    let message = sanitize(message);
    if hint.is_empty() {
        message
    } else {
        format!("{message}\nhint: {}", sanitize(hint))
    }
}

/// How many seconds are left to say which signal has ended the checks: a reader may stand still.
const WORDS_PATIENCE: u32 = 2;

pub fn ended_by(signal: Number, mut supervisor: Supervisor, log: &TerminationLog) -> u8 {
    supervisor.terminate(signal);
    // A second signal has done all it can, and must not end us before the first one is told.
    sys::keep_to(signal, WORDS_PATIENCE);
    supervisor.release();
    let exit = signal.exit_code();
    let message = format!("ended by {signal} during the checks");
    // Who has sent it is not told; but where there is a limit, it most likely was the kernel.
    let has_limit = matches!(getrlimit(Resource::RLIMIT_CPU), Ok((soft, _)) if soft != RLIM_INFINITY);
    let hint = match signal.0 {
        libc::SIGXCPU if has_limit => ResourceLimit::CpuTime.hint(),
        _ => "",
    };
    complain(&message, hint);
    termination::write(log, &termination_text(exit, "signal", &message, hint));
    exit
}

pub fn write_report_file(config: &Config, report: &Report<'_>) {
    let Some(ReportTarget::File(path)) = &config.report else {
        return;
    };
    if let Err(error) = draft::write(path, json::document(report).as_bytes()) {
        let hint = match error.kind() {
            ErrorKind::NotFound => "; create its folder first",
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                "; name a file in a folder that this user may write, such as a mounted volume or /tmp"
            }
            _ => "",
        };
        let error = ResourceLimit::explained(&error);
        tracing::warn!("cannot write the report to {}: {error}{hint}", path.display());
    }
}

/// What does not keep the service from starting. Of an image that is known from a receipt it was said when that was
/// written, and would be said at every start for ever: the number of warnings has to do, and `check` tells.
pub fn say_warnings(findings: &[Finding], image_is_known: bool) {
    for finding in findings {
        let level = match finding.status {
            Status::Warn if image_is_known && finding.stage == Stage::Image => tracing::Level::DEBUG,
            Status::Warn => tracing::Level::WARN,
            // Nobody knows, which is no warning: none is counted.
            Status::Unknown => tracing::Level::INFO,
            _ => continue,
        };
        let hint = if finding.hint.is_empty() {
            String::new()
        } else {
            format!("; {}", finding.hint)
        };
        let text = format!("{}: {}{hint}", finding.code, headline(finding));
        let code = finding.code.name();
        match level {
            tracing::Level::DEBUG => tracing::debug!(code, "{text}"),
            tracing::Level::INFO => tracing::info!(code, "{text}"),
            _ => tracing::warn!(code, "{text}"),
        }
    }
}

pub fn say_success(report: &Report<'_>, service: &str) {
    let verdict = if report.outcome.verdict == Verdict::Warn {
        "warn"
    } else {
        "pass"
    };
    let success = human::success(report, service);
    if success.details != success.line {
        tracing::debug!("{}", success.details);
    }
    let python = report.facts.image.python.judged().unwrap_or_default();
    tracing::info!(verdict, stack = report.stack_name, python, "ok: {}", success.line);
}

/// Text in lines that fit this stream, if it is a terminal.
pub fn fitted(text: &str, stream: &(impl IsTerminal + AsFd)) -> String {
    let terminal = stream
        .is_terminal()
        .then(|| sys::terminal_columns(stream.as_fd()).unwrap_or(USUAL_COLUMNS));
    human::wrapped(
        text,
        human::columns(terminal, std::env::var_os("COLUMNS").as_deref()),
    )
}

pub fn colour_of(stream: &impl IsTerminal) -> Colour {
    let variable = |name| std::env::var_os(name);
    Colour::for_terminal(
        stream.is_terminal(),
        variable("NO_COLOR").as_deref(),
        variable("TERM").as_deref(),
    )
}

/// Whether somebody is at a terminal, to be told what takes long.
pub fn is_watched(config: &Config) -> bool {
    config.format == Format::Human
        && config.log >= tracing::level_filters::LevelFilter::INFO
        && colour_of(&std::io::stderr()) == Colour::Yes
}

/// An error where standard output was closed from the beginning: nothing that is written arrives anywhere.
pub fn open_stdout() -> std::io::Result<std::io::StdoutLock<'static>> {
    match sys::stdout_was_closed() {
        true => Err(Errno::EBADF.into()),
        false => Ok(std::io::stdout().lock()),
    }
}

/// Writes to stdout; 0, or the exit code of a failed write. A reader that went away (`| head`) is no failure.
pub fn print(text: &str) -> u8 {
    let written = open_stdout().and_then(|mut out| {
        out.write_all(text.as_bytes())?;
        out.flush()
    });
    match written {
        Ok(()) => 0,
        Err(error) => write_failed(&error),
    }
}

pub fn write_failed(error: &std::io::Error) -> u8 {
    if error.kind() == ErrorKind::BrokenPipe {
        return 0;
    }
    complain(
        &format!("cannot write to stdout: {}", ResourceLimit::explained(error)),
        "",
    );
    ExitCode::Output.code()
}

pub fn start_logging(settings: &Settings) {
    let (level, format) = config::logging(settings);
    logging::start(level, format);
}

/// An error on stderr, with the next step.
pub fn complain(message: &str, hint: &str) {
    if logging::is_json() {
        tracing::error!(hint, "{message}");
        return;
    }
    tell(message, hint);
}

/// What does not keep anything from being done.
pub fn warn(message: &str, hint: &str) {
    if logging::is_json() {
        tracing::warn!(hint, "{message}");
        return;
    }
    tell(&format!("warning: {message}"), hint);
}

fn tell(message: &str, hint: &str) {
    let mut text = format!("cuda-entrypoint: {}\n", sanitize(message));
    if !hint.is_empty() {
        text.push_str(&format!("  hint: {}\n", sanitize(hint)));
    }
    to_stderr(&fitted(&text, &std::io::stderr()));
}

/// What is done in spite of an error or a mode that looks at nothing.
pub fn say(message: &str) {
    if logging::is_json() {
        tracing::warn!("{message}");
        return;
    }
    to_stderr(&format!("cuda-entrypoint: {}\n", sanitize(message)));
}

/// One write; a stderr that is closed changes nothing.
pub fn to_stderr(text: &str) {
    progress::clear();
    let _ = std::io::stderr().write_all(text.as_bytes());
}
