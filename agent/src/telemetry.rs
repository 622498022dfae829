//! What operators see: metrics, the HTTP endpoints `/live`, `/ready` and `/metrics`, and the set-up of logs.
//!
//! Every metric is defined here and listed in `docs/metrics.md`. Labels come from small fixed sets; no host, user, task
//! or secret ever becomes one. Called by every module that counts something; set up by `app` and `cli`.

mod bounded;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use lictor_kerberos::ErrorKind;
use lictor_kms::Kms;
use lictor_proto::v1::{HandBackReason, TaskState};
use lictor_telemetry::{Figures, Format, Options, StartError, Telemetry, Traces};
use lictor_winrm::pool::{Pool, PoolStatistics};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admission::Closed;
use crate::bootstrap;
use crate::config::{Log, LogFormat};
use bounded::Bounded;

/// Figures about the agent.
#[derive(Debug)]
pub(crate) struct Metrics {
    link_sessions: Counter,
    link_failures: Counter,
    slots: Gauge<u64, AtomicU64>,
    slots_used: Gauge<u64, AtomicU64>,
    tasks_finished: Family<Outcome, Counter>,
    tasks_handed_back: Family<Reason, Counter>,
    task_duration: Histogram,
    output_produced: Counter,
    kerberos_tickets: Family<Outcome, Counter>,
    secrets_opened: Family<Opened, Counter>,
    /// About data keys.
    kms: OnceLock<Kms>,
    journal_commits: Counter,
    journal_commit_duration: Histogram,
    spilled: Gauge<u64, AtomicU64>,
    admission_closed: Family<Reason, Gauge<u64, AtomicU64>>,
    /// When the tasks under way were accepted.
    under_way: Mutex<(u64, BTreeMap<u64, Instant>)>,
    policy_outdated: AtomicBool,
    journal_failures: Counter,
    journal_broken: AtomicBool,
    version_mismatch: AtomicBool,
    connected: AtomicBool,
    draining: AtomicBool,
    /// When this began, and when the certificate ends; 0 without one.
    started: SystemTime,
    certificate_end: AtomicU64,
    /// How the bootstrap script went: whether it failed, its seconds, its failed commands.
    bootstrap: OnceLock<(bool, u64, u64)>,
    bootstrap_processes: AtomicU64,
    /// About exported spans.
    traces: OnceLock<Arc<Figures>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Opened {
    source: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            link_sessions: Counter::default(),
            link_failures: Counter::default(),
            slots: Gauge::default(),
            slots_used: Gauge::default(),
            tasks_finished: Family::default(),
            tasks_handed_back: Family::default(),
            task_duration: Histogram::new(TASK_SECONDS),
            output_produced: Counter::default(),
            kerberos_tickets: Family::default(),
            secrets_opened: Family::default(),
            kms: OnceLock::new(),
            journal_commits: Counter::default(),
            journal_commit_duration: Histogram::new(COMMIT_SECONDS),
            spilled: Gauge::default(),
            admission_closed: Family::default(),
            under_way: Mutex::default(),
            policy_outdated: AtomicBool::new(false),
            journal_failures: Counter::default(),
            journal_broken: AtomicBool::new(false),
            version_mismatch: AtomicBool::new(false),
            connected: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            started: SystemTime::now(),
            certificate_end: AtomicU64::new(0),
            bootstrap: OnceLock::new(),
            bootstrap_processes: AtomicU64::new(0),
            traces: OnceLock::new(),
        }
    }
}

impl Metrics {
    /// Whether the agent may receive work.
    pub(crate) fn is_ready(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
            && !self.draining.load(Ordering::Relaxed)
            && !self.journal_broken.load(Ordering::Relaxed)
            && !self.version_mismatch.load(Ordering::Relaxed)
    }

    /// The control plane's version is too far from the agent's, or is not. True when that is news.
    pub(crate) fn version_mismatch(&self, mismatch: bool) -> bool {
        self.version_mismatch.swap(mismatch, Ordering::Relaxed) != mismatch
    }

    /// The certificate that the agent shows from now on ends then.
    pub(crate) fn certificate_ends(&self, end: SystemTime) {
        self.certificate_end.store(unix_seconds(end), Ordering::Relaxed);
    }

    /// The journal cannot be written, or can again.
    pub(crate) fn journal_broken(&self, broken: bool) {
        self.journal_broken.store(broken, Ordering::Relaxed);
    }

    /// A commit failed.
    pub(crate) fn journal_failed(&self) {
        self.journal_failures.inc();
    }

    /// The link has its Welcome, or lost its session.
    pub(crate) fn connected(&self, connected: bool) {
        if connected {
            self.link_sessions.inc();
        }
        self.connected.store(connected, Ordering::Relaxed);
    }

    /// Whether the link has its Welcome.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// A connection or session failed.
    pub(crate) fn link_failed(&self) {
        self.link_failures.inc();
    }

    /// The agent takes nothing new.
    pub(crate) fn draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// What keeps the agent from asking for more work.
    pub(crate) fn admission_closed(&self, closed: Closed) {
        for (reason, closed) in [("memory", closed.memory), ("cpu", closed.cpu), ("memory_stall", closed.stall)] {
            self.admission_closed.get_or_create(&Reason { reason }).set(u64::from(closed));
        }
    }

    /// A task was accepted; it is under way until what is returned is dropped.
    pub(crate) fn task_under_way(self: &Arc<Self>) -> UnderWay {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.0 += 1;
        let number = under_way.0;
        under_way.1.insert(number, Instant::now());
        UnderWay { metrics: Arc::clone(self), number }
    }

    fn oldest_task_age(&self) -> Duration {
        let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.1.values().next().map(Instant::elapsed).unwrap_or_default()
    }

    /// Slots that are asked for tasks now.
    fn slots_free(&self) -> u64 {
        let closed = ["memory", "cpu", "memory_stall"].into_iter();
        let closed = closed.map(|reason| self.admission_closed.get_or_create(&Reason { reason }).get()).max();
        if closed.unwrap_or(0) > 0 || !self.is_ready() {
            return 0;
        }
        self.slots.get().saturating_sub(self.slots_used.get())
    }

    /// Whether the policy in force is older than its file, because the file cannot be used.
    pub(crate) fn policy_outdated(&self, outdated: bool) {
        self.policy_outdated.store(outdated, Ordering::Relaxed);
    }

    /// Whether it is.
    pub(crate) fn is_policy_outdated(&self) -> bool {
        self.policy_outdated.load(Ordering::Relaxed)
    }

    /// How many slots there are.
    pub(crate) fn slots(&self, slots: u32) {
        self.slots.set(u64::from(slots));
    }

    /// How many are in use.
    pub(crate) fn slots_used(&self, used: usize) {
        self.slots_used.set(used as u64);
    }

    /// A task ended.
    pub(crate) fn task_finished(&self, outcome: TaskState, took: Duration) {
        let outcome = match outcome {
            TaskState::Succeeded => "succeeded",
            TaskState::Failed => "failed",
            TaskState::Cancelled => "cancelled",
            TaskState::TimedOut => "timed_out",
            _ => "unknown",
        };
        self.tasks_finished.get_or_create(&Outcome { outcome }).inc();
        self.task_duration.observe(took.as_secs_f64());
    }

    /// A task was handed back.
    pub(crate) fn task_handed_back(&self, reason: HandBackReason) {
        let reason = match reason {
            HandBackReason::Draining => "draining",
            HandBackReason::Policy => "policy",
            HandBackReason::Invalid => "invalid",
            HandBackReason::Restarted => "restarted",
            HandBackReason::Passing => "passing",
            HandBackReason::Unable | HandBackReason::Unspecified => "unable",
        };
        self.tasks_handed_back.get_or_create(&Reason { reason }).inc();
    }

    /// How the bootstrap script went.
    pub(crate) fn bootstrapped(&self, outcome: &bootstrap::Outcome) {
        let figures = (outcome.failed(), outcome.took.as_secs(), outcome.failed_commands);
        // It runs once.
        let _known = self.bootstrap.set(figures);
    }

    /// How many processes that it left running there are.
    pub(crate) fn bootstrap_processes(&self, left: usize) {
        self.bootstrap_processes.store(left as u64, Ordering::Relaxed);
    }

    /// Where the figures about exported spans are.
    pub(crate) fn traces(&self, figures: Arc<Figures>) {
        // They are told of once.
        let _known = self.traces.set(figures);
    }

    /// A session asked for a ticket.
    pub(crate) fn kerberos_ticket(&self, got: Result<(), ErrorKind>) {
        let outcome = match got {
            Ok(()) => "issued",
            Err(ErrorKind::Rejected) => "rejected",
            Err(ErrorKind::ServiceUnknown) => "service_unknown",
            Err(ErrorKind::Unavailable) => "unavailable",
            Err(ErrorKind::Other) => "other",
        };
        self.kerberos_tickets.get_or_create(&Outcome { outcome }).inc();
    }

    /// A secret was wanted: where it was to come from, and what came of it.
    pub(crate) fn secret_opened(&self, source: &'static str, outcome: &'static str) {
        self.secrets_opened.get_or_create(&Opened { source, outcome }).inc();
    }

    /// Where the figures about data keys are.
    pub(crate) fn kms(&self, kms: Kms) {
        // They are told of once.
        let _known = self.kms.set(kms);
    }

    /// Output came from a host.
    pub(crate) fn output_produced(&self, bytes: usize) {
        self.output_produced.inc_by(bytes as u64);
    }

    /// Output in files.
    pub(crate) fn spilled(&self, bytes: u64) {
        self.spilled.set(bytes);
    }

    /// The journal was synced.
    pub(crate) fn journal_committed(&self, took: Duration) {
        self.journal_commits.inc();
        self.journal_commit_duration.observe(took.as_secs_f64());
    }

    fn register(self: &Arc<Self>, pool: Pool) -> Registry {
        let mut registry = Registry::default();
        registry.register(
            "agent_link_sessions",
            "Sessions with the control plane that were welcomed",
            self.link_sessions.clone(),
        );
        registry.register(
            "agent_link_failures",
            "Connections and sessions with the control plane that failed",
            self.link_failures.clone(),
        );
        registry.register("agent_slots_tasks", "Most tasks at once", self.slots.clone());
        registry.register("agent_slots_used_tasks", "Tasks that hold a slot", self.slots_used.clone());
        registry.register("agent_tasks_finished", "Tasks that ended, by outcome", self.tasks_finished.clone());
        registry.register(
            "agent_tasks_handed_back",
            "Tasks that were given back, by reason",
            self.tasks_handed_back.clone(),
        );
        registry.register_with_unit(
            "agent_task_duration",
            "From acceptance to the result",
            Unit::Seconds,
            self.task_duration.clone(),
        );
        registry.register_with_unit(
            "agent_output_produced",
            "Output received from hosts",
            Unit::Bytes,
            self.output_produced.clone(),
        );
        registry.register_with_unit(
            "agent_output_spilled",
            "Unacknowledged output in files",
            Unit::Bytes,
            self.spilled.clone(),
        );
        registry.register(
            "agent_kerberos_tickets",
            "Tickets for services that sessions asked for, by outcome",
            self.kerberos_tickets.clone(),
        );
        registry.register(
            "agent_secrets_opened",
            "Secrets that came beside assignments and were wanted, by where they come from and outcome",
            self.secrets_opened.clone(),
        );
        registry.register(
            "agent_journal_failures",
            "Commits of the journal that failed",
            self.journal_failures.clone(),
        );
        registry.register("agent_journal_commits", "Commits of the journal", self.journal_commits.clone());
        registry.register_with_unit(
            "agent_journal_commit_duration",
            "How long a commit took",
            Unit::Seconds,
            self.journal_commit_duration.clone(),
        );
        registry.register(
            "agent_admission_closed",
            "1 while the agent asks for no more work, by reason",
            self.admission_closed.clone(),
        );
        registry.register("agent_build", "The program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register_collector(Box::new(OnScrape { metrics: Arc::clone(self), pool }));
        registry
    }
}

/// A task under way.
#[derive(Debug)]
pub(crate) struct UnderWay {
    metrics: Arc<Metrics>,
    number: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut under_way = self.metrics.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.1.remove(&self.number);
    }
}

/// Figures that are asked for at each scrape.
#[derive(Debug)]
struct OnScrape {
    metrics: Arc<Metrics>,
    pool: Pool,
}

impl Collector for OnScrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        encode_gauge(
            &mut encoder,
            "agent_ready_state",
            "1 while the agent may receive work",
            u64::from(self.metrics.is_ready()),
        )?;
        encode_gauge(
            &mut encoder,
            "agent_slots_free",
            "Slots that tasks are asked for now: none while draining, not connected, or admission is closed",
            self.metrics.slots_free(),
        )?;
        encode_gauge(
            &mut encoder,
            "agent_oldest_task_age_seconds",
            "Since the oldest task under way was accepted; 0 without one",
            self.metrics.oldest_task_age().as_secs(),
        )?;
        encode_gauge(
            &mut encoder,
            "agent_policy_outdated_state",
            "1 while the policy's file cannot be used and an older version is in force",
            u64::from(self.metrics.is_policy_outdated()),
        )?;
        let (failed, seconds, commands) = self.metrics.bootstrap.get().copied().unwrap_or_default();
        let help = "1 when the bootstrap script failed";
        encode_gauge(&mut encoder, "agent_bootstrap_failed_state", help, u64::from(failed))?;
        let help = "How long the bootstrap script took";
        encode_gauge(&mut encoder, "agent_bootstrap_duration_seconds", help, seconds)?;
        let help = "Commands of the bootstrap script that failed";
        encode_gauge(&mut encoder, "agent_bootstrap_failed_commands", help, commands)?;
        let help = "Processes that the bootstrap script left running";
        let left = self.metrics.bootstrap_processes.load(Ordering::Relaxed);
        encode_gauge(&mut encoder, "agent_bootstrap_left_processes", help, left)?;
        let traces = self.metrics.traces.get().map(Arc::as_ref);
        let figure = |of: fn(&Figures) -> u64| traces.map(of).unwrap_or_default();
        let help = "Spans that the collector took";
        encode_counter(&mut encoder, "agent_trace_spans_exported", help, figure(Figures::exported))?;
        let help = "Spans that were lost on the way to the collector";
        encode_counter(&mut encoder, "agent_trace_spans_dropped", help, figure(Figures::dropped))?;
        let help = "Attempts to export spans that failed";
        encode_counter(&mut encoder, "agent_trace_export_failures", help, figure(Figures::failures))?;
        let kms = self.metrics.kms.get().map(Kms::figures).unwrap_or_default();
        let help = "Data keys that AWS KMS decrypted";
        encode_counter(&mut encoder, "agent_kms_decrypts", help, kms.decrypts)?;
        let help = "Data keys that AWS KMS made";
        encode_counter(&mut encoder, "agent_kms_data_keys_generated", help, kms.generated)?;
        let help = "Data keys that were in memory, or on their way there for somebody else";
        encode_counter(&mut encoder, "agent_kms_cache_hits", help, kms.cache_hits)?;
        let help = "Calls of AWS that were made again";
        encode_counter(&mut encoder, "agent_kms_retries", help, kms.retries)?;
        let help = "When the certificate that the agent shows ends, in seconds since 1970; 0 without one";
        let end = self.metrics.certificate_end.load(Ordering::Relaxed);
        encode_gauge(&mut encoder, "agent_certificate_expiry_timestamp_seconds", help, end)?;
        let help = "When the program started, after its bootstrap script, in seconds since 1970";
        encode_gauge(&mut encoder, "agent_process_start_time_seconds", help, unix_seconds(self.metrics.started))?;
        encode_gauge(&mut encoder, "agent_process_resident_bytes", "Resident memory of the process", resident_bytes())?;
        encode_pool(&mut encoder, self.pool.statistics())
    }
}

fn encode_pool(encoder: &mut DescriptorEncoder<'_>, pool: PoolStatistics) -> Result<(), std::fmt::Error> {
    encode_gauge(encoder, "agent_pool_leased_sessions", "Sessions lent to tasks", pool.leased as u64)?;
    encode_gauge(encoder, "agent_pool_idle_sessions", "Sessions kept warm", pool.idle as u64)?;
    encode_gauge(encoder, "agent_pool_waiting_tasks", "Tasks that wait for a session", pool.waiting as u64)?;
    encode_counter(encoder, "agent_pool_leases", "Leases given", pool.leases_total)?;
    encode_counter(encoder, "agent_pool_warm_leases", "Leases that found a warm session", pool.warm_total)?;
    encode_counter(encoder, "agent_pool_waits", "Leases that had to wait for a place", pool.waits_total)?;
    encode_counter(encoder, "agent_pool_backoffs", "Times that a host put something off", pool.backoffs_total)?;
    encode_counter(encoder, "agent_pool_connections", "Connections opened", pool.connections_total)?;
    encode_counter(encoder, "agent_pool_shells_created", "Shells created", pool.shells_created_total)?;
    encode_counter(encoder, "agent_pool_shells_deleted", "Shells deleted", pool.shells_deleted_total)?;
    let orphans = "Shells deleted that a killed agent had left behind";
    encode_counter(encoder, "agent_pool_orphans_deleted", orphans, pool.orphans_deleted_total)
}

fn encode_gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> Result<(), std::fmt::Error> {
    let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

fn encode_counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> Result<(), std::fmt::Error> {
    let counter = ConstCounter::new(value);
    counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Resident memory of this process; 0 where the system does not tell.
pub(crate) fn resident_bytes() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        })
        .map_or(0, |kilobytes| kilobytes * 1024)
}

/// The HTTP endpoints, bound but not served yet.
#[derive(Debug)]
pub(crate) struct Endpoints {
    listener: TcpListener,
    address: SocketAddr,
}

impl Endpoints {
    /// Binds `address`.
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// The address that was bound.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`.
    pub(crate) async fn serve(self, metrics: Arc<Metrics>, pool: Pool, stop: CancellationToken) -> io::Result<()> {
        let registry = Arc::new(metrics.register(pool));
        let router = Router::new()
            .route("/live", get(|| async { "live\n" }))
            // Where the probes and scrapes of a Harness delegate ask.
            .route("/api/health", get(|| async { "live\n" }))
            .route("/api/metrics", get(exposition))
            .route("/ready", get(ready))
            .route("/metrics", get(exposition))
            .with_state((metrics, registry));
        let listener = Bounded::new(self.listener);
        axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
    }
}

impl Endpoints {
    /// Serves before there is an agent, until dropped: it is alive, and not ready for this reason.
    pub(crate) async fn serve_before(self, reason: &'static str) -> io::Result<()> {
        let router = Router::new()
            .route("/live", get(|| async { "live\n" }))
            .route("/api/health", get(|| async { "live\n" }))
            .route("/ready", get(move || async move { (StatusCode::SERVICE_UNAVAILABLE, reason) }))
            // Whoever scrapes finds the agent up and, as yet, nothing measured.
            .route("/metrics", get(nothing_measured))
            .route("/api/metrics", get(nothing_measured));
        axum::serve(Bounded::new(self.listener), router).await
    }
}

async fn nothing_measured() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, EXPOSITION)], "# EOF\n")
}

type Shared = State<(Arc<Metrics>, Arc<Registry>)>;

async fn ready(State((metrics, _)): Shared) -> impl IntoResponse {
    if metrics.is_ready() {
        (StatusCode::OK, "ready\n")
    } else if metrics.draining.load(Ordering::Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else if metrics.journal_broken.load(Ordering::Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "the journal cannot be written\n")
    } else if metrics.version_mismatch.load(Ordering::Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "the control plane's version is too far from this agent's\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not connected to the control plane\n")
    }
}

async fn exposition(State((_, registry)): Shared) -> impl IntoResponse {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => (StatusCode::OK, [(header::CONTENT_TYPE, EXPOSITION)], text),
        Err(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], "encoding failed\n".into())
        }
    }
}

/// Sends logs to standard error from now on, and spans where `traces` says.
pub(crate) fn start_logs(log: &Log, traces: Traces) -> Result<Telemetry, StartError> {
    lictor_telemetry::start(Options {
        format: match log.format {
            LogFormat::Text => Format::Text,
            LogFormat::Json => Format::Json,
        },
        filter: log.level.to_string().to_lowercase(),
        caps: caps(),
        traces,
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// The most that some libraries may say. A target stands for everything below it too.
fn caps() -> Vec<(&'static str, tracing::Level)> {
    let plaintext = lictor_winrm::QUIET_TARGETS.iter().map(|target| (*target, tracing::Level::WARN));
    let capped = CAPPED.iter().map(|target| (*target, tracing::Level::INFO));
    plaintext.chain(capped).chain(lictor_telemetry::AWS.iter().copied()).collect()
}

/// Libraries that may show headers, and with them Basic credentials and tokens of AWS, at debug or trace. `krb5` shows no keys in
/// the version in use; what a later one shows is not for our logs.
const CAPPED: &[&str] = &[
    "krb5",
    "hyper",
    "hyper_util",
    "h2",
    "tower",
    "tonic",
    "rustls",
    "aws_config",
    "aws_credential_types",
    "aws_runtime",
    "aws_sdk_kms",
    "aws_sdk_sts",
    "aws_sigv4",
    "aws_smithy_http",
    "aws_smithy_http_client",
    "aws_smithy_json",
    "aws_smithy_query",
    "aws_smithy_runtime",
    "aws_smithy_runtime_api",
    "aws_smithy_types",
    "aws_smithy_xml",
];

const EXPOSITION: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// From a warm one-liner to a day.
const TASK_SECONDS: [f64; 12] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0, 600.0, 3600.0, 21600.0];
/// From a good SSD to a disk in trouble.
const COMMIT_SECONDS: [f64; 8] = [0.0005, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0];
