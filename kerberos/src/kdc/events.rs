//! What the `krb5` crate says of its dialogue while it goes on, for a trace.
//!
//! The crate tells only its log which message went over what, that an answer was too big for UDP, how it pre-authenticates and
//! where it was referred. While a traced dialogue runs, its events are taken from that log, in words like those of MIT's library.
//! Everything still goes to the log that was there before. Only events of the client and of DNS are taken: they hold addresses,
//! principals, numbers of encryption types and errors, and never bytes of a message.

use std::fmt::{self, Write as _};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::dispatcher::{self, Dispatch};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::trace::Trace;

/// Lines of one step of the dialogue that are kept.
const MAX_LINES: usize = 100;
/// Bytes of one field.
const MAX_FIELD: usize = 500;

/// Runs a dialogue with the crate, its events going to the trace as well.
pub(super) async fn traced<F: Future>(trace: &Trace, dialogue: F) -> F::Output {
    if !trace.is_on() {
        return dialogue.await;
    }
    let lines = Arc::new(Mutex::new(Vec::new()));
    let before = dispatcher::get_default(Dispatch::clone);
    let listener = Dispatch::new(Listener { before, lines: Arc::clone(&lines) });
    let mut dialogue = pin!(dialogue);
    poll_fn(|context| {
        let poll = dispatcher::with_default(&listener, || dialogue.as_mut().poll(context));
        // Not from within the event: what the reader of the trace logs itself would be lost there.
        for line in std::mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner)) {
            trace.line(line);
        }
        poll
    })
    .await
}

struct Listener {
    before: Dispatch,
    lines: Arc<Mutex<Vec<String>>>,
}

/// Whether an event is one of those that we listen to.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    metadata.is_event()
        && *metadata.level() <= Level::DEBUG
        && (target == "krb5::client" || target.starts_with("krb5::client::") || target == "krb5::dns")
}

impl Subscriber for Listener {
    fn register_callsite(&self, _metadata: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_ours(metadata) || self.before.enabled(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn event(&self, event: &Event<'_>) {
        if self.before.enabled(event.metadata()) {
            self.before.event(event);
        }
        if is_ours(event.metadata()) {
            let mut said = Said::default();
            event.record(&mut said);
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() < MAX_LINES {
                lines.push(said.line());
            }
        }
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.before.new_span(span)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.before.record(span, values);
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        self.before.record_follows_from(span, follows);
    }

    fn enter(&self, span: &Id) {
        self.before.enter(span);
    }

    fn exit(&self, span: &Id) {
        self.before.exit(span);
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.before.clone_span(id)
    }

    fn try_close(&self, id: Id) -> bool {
        self.before.try_close(id)
    }
}

/// The words of an event and its fields.
#[derive(Default)]
struct Said {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = format!("{value:?}");
        let mut end = MAX_FIELD.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        if field.name() == "message" {
            self.message = text;
        } else {
            self.fields.push((field.name(), text));
        }
    }
}

impl Said {
    fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    fn line(&self) -> String {
        match self.message.as_str() {
            "KDC did not answer" => {
                let socket = if self.field("transport") == "Udp" { "dgram" } else { "stream" };
                format!("No answer from {socket} {}: {}", self.field("kdc"), self.field("error"))
            }
            "KDC reply too big for UDP; retrying over TCP" => {
                format!("Request or response is too big for UDP; sending request to {} (tcp only)", self.field("realm"))
            }
            message => {
                let mut line = message.to_owned();
                for (name, value) in &self.fields {
                    // Writing to a string does not fail.
                    let _ = write!(line, ", {name} {value}");
                }
                line
            }
        }
    }
}
