//! From spans that have ended to a collector.
//!
//! INVARIANT: ending a span never waits. What ends goes into a bounded queue, and is dropped and counted when that is full; one
//! task empties it. A collector that cannot be reached costs its own memory's bound and nothing else. Called by `logs`.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use opentelemetry::Context;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request};

use crate::settings::{MAX_HEADERS_FILE, Traces, parse_headers};

/// Figures about exported spans, for metrics.
#[derive(Debug, Default)]
pub struct Figures {
    exported: AtomicU64,
    dropped: AtomicU64,
    failures: AtomicU64,
}

impl Figures {
    /// Spans that the collector took.
    #[must_use]
    pub fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }

    /// Spans that were lost: the queue was full, the collector refused them, or there was no more time at the end.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Attempts to export that failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    fn drop_spans(&self, spans: usize) {
        self.dropped.fetch_add(spans as u64, Ordering::Relaxed);
    }
}

/// Takes spans that have ended.
#[derive(Debug)]
pub(crate) struct Intake {
    /// Full: what ends is dropped.
    spans: mpsc::Sender<SpanData>,
    figures: Arc<Figures>,
    closed: AtomicBool,
}

impl SpanProcessor for Intake {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        if self.closed.load(Ordering::Relaxed) || self.spans.try_send(span).is_err() {
            self.figures.drop_spans(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.closed.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// What is exported from, before there is a runtime to do it in.
#[derive(Debug)]
pub(crate) struct Queue {
    spans: mpsc::Receiver<SpanData>,
    figures: Arc<Figures>,
    resource: Resource,
    traces: Traces,
}

impl Queue {
    pub(crate) fn new(traces: Traces, resource: Resource, figures: Arc<Figures>) -> (Intake, Self) {
        let (sender, spans) = mpsc::channel(QUEUE);
        let intake = Intake { spans: sender, figures: Arc::clone(&figures), closed: AtomicBool::new(false) };
        (intake, Self { spans, figures, resource, traces })
    }

    /// Begins to export. Needs a runtime.
    pub(crate) fn start(self) -> Export {
        let stop = CancellationToken::new();
        let figures = Arc::clone(&self.figures);
        let task = AbortOnDropHandle::new(tokio::spawn(Exporter::run(self, stop.clone())));
        Export { stop, task, figures }
    }
}

/// The task that exports.
#[derive(Debug)]
pub(crate) struct Export {
    stop: CancellationToken,
    task: AbortOnDropHandle<usize>,
    figures: Arc<Figures>,
}

impl Export {
    /// Exports what waits, for a short while, and ends.
    pub(crate) async fn finish(self) {
        self.stop.cancel();
        match timeout(FLUSH, self.task).await {
            Ok(Ok(0)) => {}
            Ok(Ok(left)) => tracing::debug!(left, "Some spans could not be exported any more"),
            // The queue is at most as long as this; how many there were is known to nobody.
            Ok(Err(_)) | Err(_) => {
                self.figures.failures.fetch_add(1, Ordering::Relaxed);
                tracing::debug!("Exporting spans took too long at the end and was broken off");
            }
        }
    }
}

struct Exporter {
    client: TraceServiceClient<Channel>,
    headers: HeaderSource,
    resource: ResourceAttributesWithSchema,
    figures: Arc<Figures>,
    /// Whether the last attempt failed: the log says so once, not each time.
    failing: bool,
}

impl Exporter {
    /// Exports until `stop`, then what is left. Returns how many spans were not.
    async fn run(queue: Queue, stop: CancellationToken) -> usize {
        let Queue { mut spans, figures, resource, traces } = queue;
        let channel = match channel(&traces).await {
            Ok(channel) => channel,
            Err(error) => {
                tracing::error!(error, "Traces cannot be exported");
                spans.close();
                let mut lost = 0;
                while spans.recv().await.is_some() {
                    figures.drop_spans(1);
                    lost += 1;
                }
                return lost;
            }
        };
        let client = TraceServiceClient::new(channel).send_compressed(CompressionEncoding::Gzip);
        let mut exporter =
            Self { client, headers: HeaderSource::new(traces), resource: (&resource).into(), figures, failing: false };
        let mut left = 0;
        loop {
            let mut batch = Vec::with_capacity(BATCH);
            let more = tokio::select! {
                more = spans.recv_many(&mut batch, BATCH) => more,
                // Nothing more is taken; what waits still comes.
                () = stop.cancelled(), if !spans.is_closed() => {
                    spans.close();
                    continue;
                }
            };
            if more == 0 {
                return left;
            }
            let gathered = Instant::now() + LINGER;
            while batch.len() < BATCH && !spans.is_closed() {
                let room = BATCH - batch.len();
                tokio::select! {
                    () = tokio::time::sleep_until(gathered) => break,
                    () = stop.cancelled() => spans.close(),
                    more = spans.recv_many(&mut batch, room) => if more == 0 { break },
                }
            }
            left += exporter.export(batch, &stop).await;
        }
    }

    /// Exports one batch, trying again as long as that makes sense. Returns how many of its spans were lost.
    async fn export(&mut self, batch: Vec<SpanData>, stop: &CancellationToken) -> usize {
        let spans = batch.len();
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let mut pause = FIRST_PAUSE;
        loop {
            let code = match self.attempt(resource_spans.clone()).await {
                Ok(rejected) => {
                    let rejected = usize::try_from(rejected).unwrap_or(0).min(spans);
                    self.figures.exported.fetch_add((spans - rejected) as u64, Ordering::Relaxed);
                    self.figures.drop_spans(rejected);
                    if std::mem::take(&mut self.failing) {
                        tracing::info!("The collector takes traces again");
                    }
                    return rejected;
                }
                Err(code) => code,
            };
            self.figures.failures.fetch_add(1, Ordering::Relaxed);
            if !std::mem::replace(&mut self.failing, true) {
                // Its own words may repeat what was sent.
                tracing::warn!(code = ?code, "The collector does not take traces; they wait, and are dropped when too many do");
            }
            if !is_transient(code) || stop.is_cancelled() {
                self.figures.drop_spans(spans);
                return spans;
            }
            // Once stopped there is one more attempt.
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => {}
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// How many spans were rejected.
    async fn attempt(
        &mut self,
        resource_spans: Vec<opentelemetry_proto::tonic::trace::v1::ResourceSpans>,
    ) -> Result<i64, Code> {
        let mut request = Request::new(ExportTraceServiceRequest { resource_spans });
        *request.metadata_mut() = self.headers.current().await;
        match timeout(ATTEMPT, self.client.export(request)).await {
            Ok(Ok(answer)) => {
                Ok(answer.into_inner().partial_success.map_or(0, |partial| partial.rejected_spans.max(0)))
            }
            Ok(Err(status)) => Err(status.code()),
            Err(_) => Err(Code::DeadlineExceeded),
        }
    }
}

/// As the specification of OTLP over gRPC lists them; and a collector that wants another key may get it by way of the file.
fn is_transient(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
            | Code::ResourceExhausted
            | Code::Unauthenticated
            // What tonic calls a connection that broke.
            | Code::Unknown
    )
}

/// A channel that connects when it is first used, and again whenever it must.
async fn channel(traces: &Traces) -> Result<Channel, String> {
    let address = traces.settings.otlp_endpoint.clone().unwrap_or_default();
    let endpoint = Endpoint::from_shared(address.clone()).map_err(|_| "the collector's address is none".to_owned())?;
    let mut endpoint = endpoint.connect_timeout(CONNECT).timeout(ATTEMPT);
    if address.starts_with("https://") {
        let tls = match traces.settings.otlp_ca_file.clone() {
            Some(path) => {
                let read = tokio::task::spawn_blocking({
                    let path = path.clone();
                    move || read_ca(&path)
                });
                let failed = |error: &dyn std::fmt::Display| format!("failed to read {}: {error}", path.display());
                let read = timeout(ATTEMPT, read).await.map_err(|_| failed(&"it took too long"))?;
                let pem = read.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            }
            None => ClientTlsConfig::new().with_native_roots(),
        };
        endpoint =
            endpoint.tls_config(tls).map_err(|error| format!("the collector's TLS cannot be set up: {error}"))?;
    }
    Ok(endpoint.connect_lazy())
}

fn read_ca(path: &Path) -> io::Result<Vec<u8>> {
    let mut pem = Vec::new();
    open_regular(path)?.take(MAX_CA_FILE).read_to_end(&mut pem)?;
    Ok(pem)
}

/// INVARIANT: nothing but a regular file is opened. What opens a pipe waits until somebody writes into it.
fn open_regular(path: &Path) -> io::Result<File> {
    let regular =
        |details: &Metadata| details.is_file().then_some(()).ok_or_else(|| io::Error::other("no regular file"));
    regular(&std::fs::metadata(path)?)?;
    let opened = File::open(path)?;
    regular(&opened.metadata()?)?;
    Ok(opened)
}

/// When a file was written, and how long it is.
type FileState = (SystemTime, u64);
/// What is in a file, when it is another than the one that is known.
type Looked = Result<Option<(FileState, MetadataMap)>, String>;

/// Headers for the collector: out of the environment, or of a file that is read again when it changes.
struct HeaderSource {
    file: Option<PathBuf>,
    read: Option<FileState>,
    /// When the file is looked at again.
    due: Instant,
    /// The look at it that has not ended: on a mount that hangs, none ever does.
    looking: Option<JoinHandle<Looked>>,
    headers: MetadataMap,
}

impl HeaderSource {
    fn new(traces: Traces) -> Self {
        let headers = match traces.headers.text().map(parse_headers) {
            Some(Ok(headers)) => metadata(&headers),
            Some(Err(error)) => {
                tracing::warn!(error, "The headers for the collector in the environment cannot be used");
                MetadataMap::new()
            }
            None => MetadataMap::new(),
        };
        Self { file: traces.settings.otlp_headers_file, read: None, due: Instant::now(), looking: None, headers }
    }

    async fn current(&mut self) -> MetadataMap {
        if let Some(file) = self.file.clone().filter(|_| Instant::now() >= self.due) {
            self.due = Instant::now() + LOOK;
            let known = self.read;
            // One at a time: each that hangs keeps a thread.
            let looking = self.looking.get_or_insert_with(|| tokio::task::spawn_blocking(move || look(&file, known)));
            let looked = timeout(PATIENCE, &mut *looking).await;
            if looked.is_ok() {
                self.looking = None;
            }
            match looked {
                Ok(Ok(Ok(Some((read, headers))))) => (self.read, self.headers) = (Some(read), headers),
                Ok(Ok(Ok(None))) => {}
                Ok(Ok(Err(error))) => tracing::warn!(error, "The file of headers for the collector cannot be used"),
                Ok(Err(error)) => tracing::warn!(error = %error, "The file of headers for the collector was not read"),
                Err(_) => tracing::warn!("Reading the file of headers for the collector takes too long"),
            }
        }
        self.headers.clone()
    }
}

/// What is in the file, when it is another than the one that is known.
fn look(file: &Path, known: Option<FileState>) -> Looked {
    let failed = |error: io::Error| format!("{}: {error}", file.display());
    let opened = open_regular(file).map_err(failed)?;
    let details = opened.metadata().map_err(failed)?;
    let state = (details.modified().map_err(failed)?, details.len());
    if known == Some(state) {
        return Ok(None);
    }
    // At once, so that no copies stay behind where it grew.
    let room = usize::try_from(MAX_HEADERS_FILE).unwrap_or(usize::MAX);
    let mut text = zeroize::Zeroizing::new(String::with_capacity(room));
    opened.take(MAX_HEADERS_FILE).read_to_string(&mut text).map_err(failed)?;
    let headers = parse_headers(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(Some((state, metadata(&headers))))
}

fn metadata(headers: &[(String, zeroize::Zeroizing<String>)]) -> MetadataMap {
    let mut map = MetadataMap::new();
    for (name, value) in headers {
        let key = MetadataKey::from_bytes(name.as_bytes());
        if let (Ok(key), Ok(mut value)) = (key, MetadataValue::try_from(value.as_str())) {
            // Libraries then print it nowhere. Their copies are beyond our reach.
            value.set_sensitive(true);
            map.insert(key, value);
        }
    }
    map
}

/// Spans that wait: some 150 tasks' worth, and about 2 MiB.
const QUEUE: usize = 2048;
/// Spans in one request.
const BATCH: usize = 256;
/// How long a request waits for more spans.
const LINGER: Duration = Duration::from_millis(500);
const CONNECT: Duration = Duration::from_secs(5);
/// For one request, its connection included.
const ATTEMPT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// Between looks at the file of headers. Kubernetes takes about a minute to renew mounted secrets.
const LOOK: Duration = Duration::from_secs(10);
/// For one look. Shorter than what is left at the end, so that spans still go with the headers that are known.
const PATIENCE: Duration = Duration::from_secs(1);
/// Every authority that a system knows is far less.
const MAX_CA_FILE: u64 = 4 * 1024 * 1024;
/// For what waits when the program ends.
const FLUSH: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;
    use crate::Settings;

    fn tracing_into(queue: usize, endpoint: &str) -> (SdkTracerProvider, Queue, Arc<Figures>) {
        let figures = Arc::new(Figures::default());
        let (sender, spans) = mpsc::channel(queue);
        let intake = Intake { spans: sender, figures: Arc::clone(&figures), closed: AtomicBool::new(false) };
        let traces = Traces {
            settings: Settings { otlp_endpoint: Some(endpoint.into()), ..Settings::off("test") },
            ..Traces::off()
        };
        let resource = Resource::builder_empty().build();
        let provider = SdkTracerProvider::builder().with_span_processor(intake).build();
        (provider, Queue { spans, figures: Arc::clone(&figures), resource, traces }, figures)
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (provider, queue, figures) = tracing_into(3, "http://127.0.0.1:1");
        let tracer = provider.tracer("test");
        for _ in 0..10 {
            tracer.start("span").end();
        }
        assert_eq!(figures.dropped(), 7);
        drop(queue);
        tracer.start("span").end();
        assert_eq!(figures.dropped(), 8, "nobody exports any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_is_away_holds_up_the_end_no_longer_than_agreed() {
        // Nothing can be listening on it, and no packet leaves the machine.
        let (provider, queue, figures) = tracing_into(8, "http://127.0.0.1:0");
        let export = queue.start();
        let tracer = provider.tracer("test");
        for _ in 0..4 {
            tracer.start("span").end();
        }
        let begun = Instant::now();
        export.finish().await;
        assert!(begun.elapsed() <= FLUSH + Duration::from_secs(1), "{:?}", begun.elapsed());
        assert_eq!(figures.exported(), 0);
        assert!(figures.failures() > 0);
        tracer.start("late").end();
        assert!(figures.dropped() > 0);
    }

    #[test]
    fn headers_are_read_again_only_when_the_file_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("headers");
        std::fs::write(&file, "api-key: Mark3r-1\n").unwrap();
        let (state, headers) = look(&file, None).unwrap().unwrap();
        assert_eq!(headers.get("api-key").unwrap().to_str().unwrap(), "Mark3r-1");
        assert!(!format!("{headers:?}").contains("Mark3r"), "{headers:?}");
        assert!(look(&file, Some(state)).unwrap().is_none());
        std::fs::write(&file, "api-key: Mark3r-two\n").unwrap();
        assert!(look(&file, Some(state)).unwrap().is_some());
        std::fs::write(&file, "Mark3r").unwrap();
        assert!(!look(&file, Some(state)).unwrap_err().contains("Mark3r"));
    }

    #[test]
    fn only_regular_files_are_opened() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        // Opened, it would wait for a writer for ever.
        assert!(look(&pipe, None).unwrap_err().ends_with("no regular file"));
        assert!(read_ca(&pipe).is_err());
        assert!(read_ca(directory.path()).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_cannot_be_read_to_the_end_stops_no_export_and_costs_one_thread() {
        let settings = Settings { otlp_headers_file: Some("/nowhere".into()), ..Settings::off("test") };
        let mut source = HeaderSource::new(Traces { settings, ..Traces::off() });
        source.headers = metadata(&parse_headers("api-key: known").unwrap());
        let (sender, receiver) = tokio::sync::oneshot::channel();
        source.looking = Some(tokio::spawn(async { receiver.await.unwrap() }));
        for _ in 0..3 {
            let begun = Instant::now();
            assert_eq!(source.current().await.get("api-key").unwrap(), "known");
            assert_eq!(begun.elapsed(), PATIENCE);
            // Not looked at again before it is due.
            assert_eq!(source.current().await.len(), 1);
            assert_eq!(begun.elapsed(), PATIENCE);
            tokio::time::advance(LOOK).await;
        }
        // The same look still counts once it ends.
        let headers = metadata(&parse_headers("api-key: new").unwrap());
        sender.send(Ok(Some(((SystemTime::UNIX_EPOCH, 1), headers)))).unwrap();
        assert_eq!(source.current().await.get("api-key").unwrap(), "new");
        assert!(source.looking.is_none());
    }
}
