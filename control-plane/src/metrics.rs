//! Every metric of the control plane, in one place, listed in `docs/metrics.md`. Labels come from small fixed sets.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use lictor_proto::v1::TaskState;
use lictor_telemetry::Figures;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::access::Refused;
use crate::clock::{Now, UnixMillis};
use crate::dispatch::Backlog;

/// The control plane's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    submitted: Counter,
    finished: Family<StateLabel, Counter>,
    queued: Gauge,
    assigned: Gauge,
    live: Family<StateLabel, Gauge>,
    oldest_waiting: Gauge,
    /// Since when the task waits that has waited longest, in Unix milliseconds; 0 for none. Its age is counted when
    /// somebody asks: it grows while nothing happens.
    oldest_since: AtomicI64,
    free_slots: Gauge,
    connected: Gauge,
    incompatible: Gauge,
    started: Gauge,
    authority_end: Gauge,
    output_bytes: Counter,
    enrolments: Family<OutcomeLabel, Counter>,
    secrets_fetched: Family<OutcomeLabel, Counter>,
    refused: Family<ReasonLabel, Counter>,
    audited: Counter,
    database_bytes: Gauge,
    kept_bytes: Gauge,
    removed_bytes: Counter,
    removed_tasks: Counter,
    storage_full: Gauge,
    storage_failures: Counter,
    connections_open: Gauge,
    connections_refused: Family<ReasonLabel, Counter>,
    under_keys: Family<KeyLabel, Gauge>,
    keys_refused: Gauge,
    traces: Traces,
}

/// Figures about exported spans, asked for at each scrape.
#[derive(Debug, Clone, Default)]
struct Traces(Arc<OnceLock<Arc<Figures>>>);

impl Collector for Traces {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let figure = |of: fn(&Figures) -> u64| self.0.get().map(|figures| of(figures)).unwrap_or_default();
        for (name, help, value) in [
            ("trace_spans_exported", "Spans that the collector took", figure(Figures::exported)),
            ("trace_spans_dropped", "Spans that were lost on the way to the collector", figure(Figures::dropped)),
            ("trace_export_failures", "Attempts to export spans that failed", figure(Figures::failures)),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}

/// Why a connection was refused or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turned {
    /// There are too many.
    Total,
    /// There are too many from its address.
    Source,
    /// Its TLS handshake failed.
    Handshake,
    /// It said nothing.
    Silent,
    /// It took nothing.
    Stuck,
}

impl Turned {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Source => "source",
            Self::Handshake => "handshake",
            Self::Silent => "silent",
            Self::Stuck => "stuck",
        }
    }
}

/// Where the master key of a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyState {
    /// It is the first one in the list.
    Current,
    /// It is another one in the list.
    Replaced,
    /// It is not in the list.
    Missing,
}

impl KeyState {
    fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Replaced => "replaced",
            Self::Missing => "missing",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeyLabel {
    key: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("control_plane");
        let metrics = Self {
            submitted: Counter::default(),
            finished: Family::default(),
            queued: Gauge::default(),
            assigned: Gauge::default(),
            live: Family::default(),
            oldest_waiting: Gauge::default(),
            oldest_since: AtomicI64::new(0),
            free_slots: Gauge::default(),
            connected: Gauge::default(),
            incompatible: Gauge::default(),
            started: Gauge::default(),
            authority_end: Gauge::default(),
            output_bytes: Counter::default(),
            enrolments: Family::default(),
            secrets_fetched: Family::default(),
            database_bytes: Gauge::default(),
            kept_bytes: Gauge::default(),
            removed_bytes: Counter::default(),
            removed_tasks: Counter::default(),
            storage_full: Gauge::default(),
            storage_failures: Counter::default(),
            connections_open: Gauge::default(),
            connections_refused: Family::default(),
            under_keys: Family::default(),
            keys_refused: Gauge::default(),
            refused: Family::default(),
            audited: Counter::default(),
            registry: Registry::default(),
            traces: Traces::default(),
        };
        registry.register_collector(Box::new(metrics.traces.clone()));
        registry.register("tasks_submitted", "Tasks accepted", metrics.submitted.clone());
        registry.register("tasks_finished", "Tasks that became final, by state", metrics.finished.clone());
        registry.register("tasks_queued", "Tasks that wait for an agent", metrics.queued.clone());
        registry.register("tasks_assigned", "Tasks given to agents and not final", metrics.assigned.clone());
        registry.register("tasks_live", "Tasks that are not final, by state", metrics.live.clone());
        registry.register_with_unit(
            "tasks_oldest_waiting",
            "Age of the task that has waited longest for an agent",
            Unit::Seconds,
            metrics.oldest_waiting.clone(),
        );
        registry.register("slots_free", "Tasks that connected agents would take now", metrics.free_slots.clone());
        registry.register("agents_connected", "Agents with an open session", metrics.connected.clone());
        let far = "Agents with an open session whose version is too far from the control plane's";
        registry.register("agents_incompatible", far, metrics.incompatible.clone());
        registry.register("build", "The program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let since = "When the process started, in seconds since 1970";
        registry.register_with_unit("process_start_time", since, Unit::Seconds, metrics.started.clone());
        let end = "When the certificate of the authority ends, in seconds since 1970";
        registry.register_with_unit("authority_expiry_timestamp", end, Unit::Seconds, metrics.authority_end.clone());
        registry.register("output_bytes", "Bytes of output received", metrics.output_bytes.clone());
        registry.register("enrolments", "Enrolments, by outcome", metrics.enrolments.clone());
        let fetched = metrics.secrets_fetched.clone();
        registry.register(
            "secrets_fetched",
            "Secrets that the control plane itself asked AWS KMS for, by outcome",
            fetched,
        );
        registry.register("storage_database_bytes", "Size of the database file", metrics.database_bytes.clone());
        registry.register("output_kept_bytes", "Bytes of output in the database", metrics.kept_bytes.clone());
        registry.register("output_removed_bytes", "Bytes of output removed", metrics.removed_bytes.clone());
        registry.register("tasks_removed", "Finished tasks removed", metrics.removed_tasks.clone());
        registry.register("storage_full_state", "1 while the disk is full", metrics.storage_full.clone());
        registry.register("storage_failures", "Times that the disk was full", metrics.storage_failures.clone());
        registry.register("connections_open", "Connections that are open", metrics.connections_open.clone());
        let refused = "Connections refused or ended, by reason";
        registry.register("connections_refused", refused, metrics.connections_refused.clone());
        registry.register("calls_refused", "Calls refused to users and agents, by reason", metrics.refused.clone());
        let under = "Credentials and versions of secrets, by where their master key is";
        registry.register("master_key_records", under, metrics.under_keys.clone());
        let refused = "1 while the file of master keys holds what cannot be taken";
        registry.register("master_key_refused_state", refused, metrics.keys_refused.clone());
        registry.register("audit_entries", "Entries written to the audit log", metrics.audited.clone());
        Self { registry, ..metrics }
    }

    /// Those of a process that started then, with an authority whose certificate ends at `authority_end`, in seconds since 1970.
    pub(crate) fn of(started: UnixMillis, authority_end: i64) -> Self {
        let metrics = Self::new();
        metrics.started.set(started.0 / 1000);
        metrics.authority_end.set(authority_end);
        metrics
    }

    pub(crate) fn submitted(&self, tasks: u64) {
        self.submitted.inc_by(tasks);
    }

    pub(crate) fn finished(&self, state: TaskState) {
        let state = match state {
            TaskState::Succeeded => "succeeded",
            TaskState::Failed => "failed",
            TaskState::Cancelled => "cancelled",
            TaskState::TimedOut => "timed_out",
            TaskState::Rejected => "rejected",
            _ => "unknown",
        };
        self.finished.get_or_create(&StateLabel { state }).inc();
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.output_bytes.inc_by(bytes as u64);
    }

    /// The control plane itself asked AWS KMS for a secret: `opened`, `unavailable` (it may pass) or `failed`.
    pub(crate) fn secret_fetched(&self, outcome: &'static str) {
        self.secrets_fetched.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(crate) fn enrolments(&self, accepted: bool) {
        let outcome = if accepted { "accepted" } else { "refused" };
        self.enrolments.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(crate) fn refused(&self, why: Refused) {
        self.refused.get_or_create(&ReasonLabel { reason: why.name() }).inc();
    }

    pub(crate) fn audited(&self) {
        self.audited.inc();
    }

    pub(crate) fn state(&self, backlog: &Backlog, connected: usize) {
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let held = [("assigned", backlog.assigned), ("running", backlog.running), ("lost", backlog.lost)];
        self.queued.set(gauge(backlog.queued));
        self.assigned.set(gauge(held.iter().map(|(_, count)| count).sum()));
        for (state, count) in [("queued", backlog.queued)].into_iter().chain(held) {
            self.live.get_or_create(&StateLabel { state }).set(gauge(count));
        }
        self.oldest_since.store(backlog.oldest.map_or(0, |since| since.0), Ordering::Relaxed);
        self.free_slots.set(i64::try_from(backlog.free_slots).unwrap_or(i64::MAX));
        self.connected.set(gauge(connected));
        self.incompatible.set(gauge(backlog.incompatible));
    }

    pub(crate) fn database(&self, bytes: u64, output: u64) {
        self.database_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.kept_bytes.set(i64::try_from(output).unwrap_or(i64::MAX));
    }

    pub(crate) fn output_removed(&self, bytes: u64) {
        self.removed_bytes.inc_by(bytes);
    }

    pub(crate) fn tasks_removed(&self, tasks: u64) {
        self.removed_tasks.inc_by(tasks);
    }

    pub(crate) fn storage_full(&self, full: bool) {
        if full {
            self.storage_failures.inc();
        }
        self.storage_full.set(i64::from(full));
    }

    pub(crate) fn under_keys(&self, state: KeyState, records: u64) {
        let gauge = self.under_keys.get_or_create(&KeyLabel { key: state.name() });
        gauge.set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    pub(crate) fn keys_refused(&self, refused: bool) {
        self.keys_refused.set(i64::from(refused));
    }

    pub(crate) fn connections(&self, more: i64) {
        self.connections_open.inc_by(more);
    }

    pub(crate) fn turned_away(&self, why: Turned) {
        self.connections_refused.get_or_create(&ReasonLabel { reason: why.name() }).inc();
    }

    /// Where the figures about exported spans are.
    pub(crate) fn traces(&self, figures: Arc<Figures>) {
        // They are told of once.
        let _known = self.traces.0.set(figures);
    }

    /// OpenMetrics text.
    pub(crate) fn encode(&self) -> String {
        let since = self.oldest_since.load(Ordering::Relaxed);
        let age = if since == 0 { 0 } else { Now::read().wall.0.saturating_sub(since).max(0) };
        self.oldest_waiting.set(age / 1000);
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use lictor_settings::reference::metrics::{exposed, listed};

    use super::*;

    #[test]
    fn the_page_lists_exactly_the_metrics_with_their_kinds_and_labels() {
        let metrics = Metrics::new();
        // Every value that a label can have: states of the contract by their numbers, also those that come to it.
        for state in (0..100).filter_map(|number| TaskState::try_from(number).ok()) {
            metrics.finished(state);
        }
        for accepted in [true, false] {
            metrics.enrolments(accepted);
        }
        for outcome in ["opened", "unavailable", "failed"] {
            metrics.secret_fetched(outcome);
        }
        for why in [Turned::Total, Turned::Source, Turned::Handshake, Turned::Silent, Turned::Stuck] {
            metrics.turned_away(why);
        }
        for state in [KeyState::Current, KeyState::Replaced, KeyState::Missing] {
            metrics.under_keys(state, 0);
        }
        metrics.state(&Backlog::default(), 0);
        let token = [Refused::Missing, Refused::Unknown, Refused::Expired, Refused::Revoked, Refused::Disabled];
        for why in token.into_iter().chain([Refused::Denied, Refused::Enrolment, Refused::Certificate]) {
            metrics.refused(why);
        }
        assert_eq!(exposed(&metrics.encode()), listed(include_str!("../../docs/metrics.md"), "control_plane_"));
    }
}
