//! What is said: on standard error, on standard output, to the report file and the termination log.

use std::io::{ErrorKind, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use cuda_entrypoint::check::{Finding, Stage, Status, Verdict};
use cuda_entrypoint::cli::Settings;
use cuda_entrypoint::config::{Config, Format, ReportTarget, TerminationLog};
use cuda_entrypoint::crew::Crew;
use cuda_entrypoint::report::human::Colour;
use cuda_entrypoint::report::{Report, headline, human, json, progress, sanitize, termination};
use cuda_entrypoint::signal::Number;
use cuda_entrypoint::{config, logging};

use super::exit::EX_IOERR;

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

pub fn ended_by(signal: Number, mut crew: Crew, log: &TerminationLog) -> u8 {
    crew.terminate(signal);
    // A second signal has done all it can. Left pending it would end us here, before a word is said.
    while crew.pending_signal().is_some() {}
    drop(crew);
    let exit = signal.exit_code();
    let message = format!("ended by {signal} during the checks");
    complain(&message, "");
    termination::write(log, &termination_text(exit, "signal", &message, ""));
    exit
}

pub fn write_report_file(config: &Config, report: &Report<'_>) {
    let Some(ReportTarget::File(path)) = &config.report else {
        return;
    };
    if let Err(error) = write_bounded(path, json::document(report).as_bytes()) {
        tracing::warn!("cannot write the report to {}: {error}", path.display());
    }
}

/// Writes a file without ever waiting for a reader: what FIFO or full pipe the name leads to does not hold up a start.
pub fn write_bounded(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    let mut file = options
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY)
        .open(path)?;
    file.write_all(bytes)
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
        let text = sanitize(&format!("{}: {}{hint}", finding.code, headline(finding)));
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
    tracing::info!(
        verdict,
        stack = sanitize(report.stack_name),
        "ok: {}",
        human::success(report, service)
    );
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

/// Writes to stdout; 0, or the exit code of a failed write. A reader that went away (`| head`) is no failure.
pub fn print(text: &str) -> u8 {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => 0,
        Err(error) => write_failed(&error),
    }
}

pub fn write_failed(error: &std::io::Error) -> u8 {
    if error.kind() == ErrorKind::BrokenPipe {
        return 0;
    }
    complain(&format!("cannot write to stdout: {error}"), "");
    EX_IOERR
}

pub fn start_logging(settings: &Settings) {
    let (level, format) = config::logging(settings);
    logging::start(level, format);
}

/// An error on stderr, with the next step.
pub fn complain(message: &str, hint: &str) {
    if logging::is_json() {
        tracing::error!(hint = sanitize(hint), "{}", sanitize(message));
        return;
    }
    let mut text = format!("cuda-entrypoint: {}\n", sanitize(message));
    if !hint.is_empty() {
        text.push_str(&format!("  hint: {}\n", sanitize(hint)));
    }
    to_stderr(&text);
}

/// What is done in spite of an error or a mode that looks at nothing.
pub fn say(message: &str) {
    if logging::is_json() {
        tracing::warn!("{message}");
        return;
    }
    to_stderr(&format!("cuda-entrypoint: {message}\n"));
}

/// One write; a stderr that is closed changes nothing.
pub fn to_stderr(text: &str) {
    progress::clear();
    let _ = std::io::stderr().write_all(text.as_bytes());
}
