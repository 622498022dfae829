//! The subscriber of a program: lines to standard error, whose level can be changed, and the layer for traces, if there is a
//! collector.

use std::sync::Arc;
use std::{fmt, io};

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt as _, FilterFn, Targets};
use tracing_subscriber::layer::{Filter, Layer, SubscriberExt as _};
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::context::TRACER;
use crate::export::{Export, Figures, Queue};
use crate::settings::Traces;

/// Formats of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What a program tells, and where.
#[derive(Debug)]
pub struct Options {
    /// How lines look.
    pub format: Format,
    /// A level, or a filter such as `info,lictor_agent::link=debug`.
    pub filter: String,
    /// The most that some targets and everything below them may say, whatever the filter.
    pub caps: Vec<(&'static str, Level)>,
    /// Where traces go.
    pub traces: Traces,
    /// The program's version.
    pub version: &'static str,
}

/// Why logs cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The filter is none.
    #[error("the log filter cannot be used: {0}")]
    Filter(String),
    /// There are some already.
    #[error("logs are set up already")]
    Subscriber(#[from] TryInitError),
}

/// What is told, from now on and until the end.
#[derive(Debug)]
pub struct Telemetry {
    levels: Levels,
    figures: Arc<Figures>,
    provider: Option<SdkTracerProvider>,
    queue: Option<Queue>,
    export: Option<Export>,
}

/// Changes the level of what is logged. Cloneable.
#[derive(Clone)]
pub struct Levels {
    handle: reload::Handle<Chosen, Registry>,
    configured: String,
    caps: Arc<[(&'static str, Level)]>,
}

impl fmt::Debug for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Levels").field("configured", &self.configured).finish_non_exhaustive()
    }
}

type Chosen = Box<dyn Filter<Registry> + Send + Sync>;

/// Logs from now on, and lets spans wait to be exported if there is a collector. Needs no runtime.
///
/// # Errors
/// [`StartError`], above all when the process has a subscriber already.
pub fn start(options: Options) -> Result<Telemetry, StartError> {
    let Options { format, filter, caps, traces, version } = options;
    let caps: Arc<[(&'static str, Level)]> = caps.into();
    let (chosen, handle) = reload::Layer::new(chosen(&filter, &caps).map_err(StartError::Filter)?);
    let levels = Levels { handle, configured: filter, caps };
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines = match format {
        Format::Text => lines.with_ansi(false).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    let registry = tracing_subscriber::registry().with(lines.with_filter(chosen));
    let figures = Arc::new(Figures::default());
    if traces.settings.otlp_endpoint.is_none() {
        registry.try_init()?;
        return Ok(Telemetry { levels, figures, provider: None, queue: None, export: None });
    }
    let resource = resource(&traces, version);
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(traces.settings.sample_ratio)));
    let (intake, queue) = Queue::new(traces, resource, Arc::clone(&figures));
    let provider = SdkTracerProvider::builder()
        .with_sampler(sampler)
        .with_max_attributes_per_span(MAX_ATTRIBUTES)
        .with_span_processor(intake)
        .build();
    let tracer = provider.tracer("lictor");
    let layer = tracing_opentelemetry::layer()
        .with_tracer(tracer.clone())
        // Where in the code, and on which thread, is of no use to operators.
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(FilterFn::new(is_exported).with_max_level_hint(LevelFilter::DEBUG));
    registry.with(layer).try_init()?;
    // Only now: what is not subscribed to has no context to be handed on.
    let _first = TRACER.set(tracer);
    Ok(Telemetry { levels, figures, provider: Some(provider), queue: Some(queue), export: None })
}

impl Telemetry {
    /// The handle to the level.
    #[must_use]
    pub fn levels(&self) -> Levels {
        self.levels.clone()
    }

    /// Figures for metrics.
    #[must_use]
    pub fn figures(&self) -> Arc<Figures> {
        Arc::clone(&self.figures)
    }

    /// Begins to export spans, if any are. Needs a runtime.
    pub fn export(&mut self) {
        self.export = self.queue.take().map(Queue::start);
    }

    /// Exports what still waits, for a short while.
    pub async fn finish(&mut self) {
        if let Some(export) = self.export.take() {
            export.finish().await;
        }
        if let Some(provider) = self.provider.take() {
            // Nothing is left to be done about a failure: it only closes the intake.
            let _ = provider.shutdown();
        }
    }
}

impl Levels {
    /// Logs by this filter from now on. The caps hold all the same.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        let chosen = chosen(filter, &self.caps)?;
        self.handle.reload(chosen).map_err(|error| error.to_string())
    }

    /// The filter of the settings.
    #[must_use]
    pub fn configured(&self) -> &str {
        &self.configured
    }
}

/// INVARIANT: the caps are part of every filter.
fn chosen(filter: &str, caps: &[(&'static str, Level)]) -> Result<Chosen, String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    let caps = Targets::new().with_default(Level::TRACE).with_targets(caps.iter().copied());
    Ok(Box::new(filter.and(caps)))
}

/// Spans of our own alone: what libraries put into theirs is not known. No events: they hold words of others.
fn is_exported(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && *metadata.level() <= Level::DEBUG && metadata.target().starts_with("lictor_")
}

fn resource(traces: &Traces, version: &'static str) -> Resource {
    let given = traces.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Resource::builder_empty()
        .with_attributes(given)
        .with_attribute(KeyValue::new("service.version", version))
        .with_service_name(traces.settings.service_name.clone())
        .build()
}

/// A level that changes nothing that anybody sees, and what keeps its handle alive.
#[cfg(test)]
pub(crate) fn levels_for_tests(filter: &str) -> (Levels, impl tracing::Subscriber) {
    let caps: Arc<[(&'static str, Level)]> = Arc::new([]);
    let (chosen, handle) = reload::Layer::new(chosen(filter, &caps).unwrap());
    let lines = tracing_subscriber::fmt::layer().with_writer(io::sink).with_filter(chosen);
    (Levels { handle, configured: filter.into(), caps }, tracing_subscriber::registry().with(lines))
}

/// The most that the crates of the AWS SDK may say, for [`Options::caps`]. At debug and trace they show requests and answers whole,
/// with tokens, data keys and values; at info they tell of each session. All of their names begin like this.
pub const AWS: &[(&str, Level)] = &[("aws_", Level::WARN)];
/// Of one span; ours have fewer.
const MAX_ATTRIBUTES: u32 = 32;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    #[test]
    fn caps_hold_at_every_level_that_is_chosen_later() {
        let caps: Arc<[_]> = Arc::new([("sspi", Level::WARN), ("h2", Level::INFO)]);
        let (filter, handle) = reload::Layer::new(chosen("info", &caps).unwrap());
        let sink = Sink::default();
        let writer = sink.clone();
        let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter));
        let levels = Levels { handle, configured: "info".into(), caps };
        tracing::subscriber::with_default(subscriber, || {
            let say = || {
                tracing::debug!(target: "lictor_agent::link", "ours");
                tracing::debug!(target: "sspi::ntlm", "Mark3r");
                tracing::info!(target: "sspi", "Mark3r");
                tracing::debug!(target: "h2::codec", "Mark3r");
                sink.take()
            };
            assert_eq!(say(), "");
            for filter in ["trace", "debug", "sspi=trace,h2=trace,debug", "sspi::ntlm=debug,debug"] {
                levels.set(filter).unwrap();
                let said = say();
                assert!(said.contains("ours") && !said.contains("Mark3r"), "{filter}: {said}");
            }
            levels.set(levels.configured()).unwrap();
            assert_eq!(say(), "");
            assert!(levels.set("no such=level=at all").is_err());
        });
    }

    #[test]
    fn crates_of_the_aws_sdk_show_no_bodies_at_any_level() {
        let sink = Sink::default();
        let caps: Arc<[_]> = AWS.into();
        for filter in ["trace", "aws_smithy_runtime=trace", "aws_smithy_runtime::client=trace,aws_sdk_kms=debug,info"] {
            let writer = sink.clone();
            let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
            let lines = lines.with_filter(chosen(filter, &caps).unwrap());
            tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
                tracing::trace!(target: "aws_smithy_runtime::client::orchestrator", "Mark3r");
                tracing::debug!(target: "aws_smithy_http_client::client", "Mark3r");
                tracing::debug!(target: "aws_sdk_kms::operation::decrypt", "Mark3r");
                tracing::debug!(target: "aws_sdk_sts", "Mark3r");
                tracing::info!(target: "aws_config::sts::assume_role", "Mark3r");
                tracing::info!(target: "aws_smithy_runtime::client::identity::cache::lazy", "Mark3r");
                let _span = tracing::debug_span!(target: "aws_runtime::auth", "Mark3r").entered();
                tracing::error!(target: "aws_smithy_runtime::client", "trouble");
            });
            let said = sink.take();
            assert!(said.contains("trouble") && !said.contains("Mark3r"), "{filter}: {said}");
        }
    }

    #[test]
    fn only_spans_of_our_own_are_exported() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let counted = Arc::clone(&seen);
        let filter = FilterFn::new(move |metadata| {
            counted.lock().unwrap().push((metadata.target().to_owned(), is_exported(metadata)));
            true
        });
        let lines = tracing_subscriber::fmt::layer().with_writer(io::sink).with_filter(filter);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            let _ours = tracing::debug_span!(target: "lictor_winrm::session", "exchange").entered();
            let _theirs = tracing::debug_span!(target: "h2::proto", "frame", headers = "Mark3r").entered();
            let _fine = tracing::trace_span!(target: "lictor_winrm::session", "fine").entered();
            tracing::info!(target: "lictor_agent", "an event");
        });
        let seen = seen.lock().unwrap();
        let exported: Vec<&str> =
            seen.iter().filter(|(_, exported)| *exported).map(|(target, _)| target.as_str()).collect();
        assert_eq!(exported, ["lictor_winrm::session"]);
        assert!(seen.iter().any(|(target, _)| target == "h2::proto"), "{seen:?}");
    }
}
