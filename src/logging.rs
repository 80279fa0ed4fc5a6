//! Logs on stderr: lines for people, or one JSON object a line.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::Format;
use crate::report::progress;

static JSON: AtomicBool = AtomicBool::new(false);

/// Whether everything on stderr is a JSON object a line.
pub fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// Starts logging; a second call changes nothing.
pub fn start(level: LevelFilter, format: Format) {
    // A stderr that is closed must not become a panic, so its errors are nobody's.
    let builder = tracing_subscriber::fmt()
        .with_writer(|| {
            progress::clear();
            std::io::stderr()
        })
        .with_max_level(level)
        .log_internal_errors(false);
    let started = match format {
        Format::Human => builder.with_ansi(false).event_format(Plain).try_init(),
        Format::Json => builder.json().flatten_event(true).with_target(false).try_init(),
    };
    if started.is_ok() {
        JSON.store(format == Format::Json, Ordering::Relaxed);
    }
}

/// `cuda-entrypoint: warning: …`: no time and no target, since whoever collects the logs adds both.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            Level::INFO => "",
            Level::DEBUG => "debug: ",
            Level::TRACE => "trace: ",
        };
        write!(writer, "cuda-entrypoint: {level}")?;
        let mut message = Message(String::new());
        event.record(&mut message);
        writeln!(writer, "{}", crate::report::sanitize(&message.0))
    }
}

/// The message alone; fields are for machines.
struct Message(String);

impl tracing::field::Visit for Message {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
