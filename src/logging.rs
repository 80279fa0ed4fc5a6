//! Logs on stderr: lines for people, or one JSON object a line.
//!
//! A layer of our own on tracing-subscriber's: its `fmt` and `json` features would bring spans, their registry and a third
//! writer of JSON, which nothing here uses.

use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::cli::config::Format;
use crate::report::progress;
use crate::text::sanitize;

static JSON: AtomicBool = AtomicBool::new(false);

/// Whether everything on stderr is a JSON object a line.
pub fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// Starts logging; a second call changes nothing.
pub fn start(level: LevelFilter, format: Format) {
    let is_json = format == Format::Json;
    let subscriber = NoSpans.with(level).with(Lines { is_json });
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        JSON.store(is_json, Ordering::Relaxed);
    }
}

/// What the layers stand on. This program has events alone.
struct NoSpans;

impl Subscriber for NoSpans {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Writes each event as one line.
struct Lines {
    is_json: bool,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = *event.metadata().level();
        let line = match self.is_json {
            true => fields.into_json(level, SystemTime::now()),
            false => fields.as_text(level),
        };
        progress::clear();
        // A stderr that is closed or full must not become a panic.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

/// An event's fields, of which `message` is the text for people.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    /// `cuda-entrypoint: warning: …`: no time and no target, since log collectors add both. The other fields are for
    /// machines.
    fn as_text(&self, level: Level) -> String {
        let level = match level {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            Level::INFO => "",
            Level::DEBUG => "debug: ",
            Level::TRACE => "trace: ",
        };
        let message = self.0.get("message").and_then(Value::as_str).unwrap_or_default();
        format!("cuda-entrypoint: {level}{message}\n")
    }

    /// An object with the time in RFC 3339 and the level in front.
    fn into_json(self, level: Level, time: SystemTime) -> String {
        let mut object = Map::new();
        let time = humantime::format_rfc3339_micros(time).to_string();
        object.insert("timestamp".to_string(), Value::String(time));
        object.insert("level".to_string(), Value::String(level.to_string()));
        object.extend(self.0);
        format!("{}\n", Value::Object(object))
    }

    /// Text may be foreign: it becomes harmless here, not where it is logged.
    fn keep_text(&mut self, field: &Field, text: &str) {
        self.keep(field, sanitize(text));
    }

    fn keep(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_string(), value.into());
    }
}

impl Visit for Fields {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.keep(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.keep(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.keep(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.keep_text(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.keep_text(field, &format!("{value:?}"));
    }
}
