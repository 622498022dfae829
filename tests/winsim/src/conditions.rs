//! What is wrong with the host at the moment: it refuses connections, answers 503, is slow, or gives faults that a test ordered.
//!
//! Pure state: moments come from outside, nothing waits here. The listener, the HTTP layer and the host ask; orders change it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::fault::{Fault, Style};
use crate::options::{Options, Quotas};

/// How long something lasts: `30s` on the host's clock, or `until-ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Lasting {
    /// This long on the host's clock.
    For(Duration),
    /// Until the host is told to be ready.
    UntilReady,
}

impl Default for Lasting {
    fn default() -> Self {
        Self::For(Duration::ZERO)
    }
}

impl fmt::Display for Lasting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For(time) => humantime::format_duration(*time).fmt(formatter),
            Self::UntilReady => formatter.write_str("until-ready"),
        }
    }
}

impl From<Lasting> for String {
    fn from(lasting: Lasting) -> Self {
        lasting.to_string()
    }
}

impl FromStr for Lasting {
    type Err = humantime::DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "until-ready" { Ok(Self::UntilReady) } else { humantime::parse_duration(text).map(Self::For) }
    }
}

impl TryFrom<String> for Lasting {
    type Error = humantime::DurationError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Whether anybody is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// Serves.
    Up,
    /// Nobody listens: connections are refused.
    Refusing,
    /// HTTP.sys listens and answers 503 to everything.
    Unavailable,
}

/// Answers that take their time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Slow {
    /// Delays on the host's clock by operation as in the statistics; `*` stands for all that are not named. The operation is done
    /// before the delay, its answer comes after it.
    pub delays: BTreeMap<String, Delay>,
    /// Bodies come in pieces.
    pub trickle: Option<Trickle>,
}

/// A time on the host's clock, such as `500ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Delay(#[serde(with = "humantime_serde")] pub Duration);

/// The pieces of a slow body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trickle {
    /// Bytes in each piece; 0 counts as 1.
    pub bytes: usize,
    /// The time before each piece, on the host's clock.
    pub every: Delay,
}

/// A fault that is given instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderedFault {
    /// The operation that it answers, as in the statistics.
    pub operation: String,
    /// Its code.
    pub code: u32,
    /// How many times. Default once.
    #[serde(default = "once")]
    pub times: u32,
    /// The operation is done all the same. Default false.
    #[serde(default)]
    pub done: bool,
    /// How it is written; the host's own way when nothing is said.
    #[serde(default)]
    pub style: Option<Style>,
}

fn once() -> u32 {
    1
}

/// Quotas to change; the others stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuotaChange {
    /// `MaxShellsPerUser`.
    pub max_shells_per_user: Option<usize>,
    /// `MaxProcessesPerShell`.
    pub max_processes_per_shell: Option<usize>,
    /// `MaxConcurrentOperationsPerUser`.
    pub max_operations_per_user: Option<usize>,
    /// `MaxConcurrentUsers`.
    pub max_concurrent_users: Option<usize>,
    /// `MaxConnections`.
    pub max_connections: Option<usize>,
    /// `MaxBatchItems`.
    pub max_batch_items: Option<usize>,
}

/// The conditions of one host.
pub(crate) struct Conditions {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

struct State {
    /// A restart is under way: nobody answers.
    restarting: bool,
    /// Connections are refused until then; `None` is until told.
    refusing: Option<Instant>,
    /// 503 from the end of the refusal on.
    unavailable: Lasting,
    unavailable_requests: u32,
    slow: Slow,
    faults: Vec<OrderedFault>,
    style: Style,
    quotas: Quotas,
}

/// Ordered faults that wait. More are not kept.
const MAX_FAULTS: usize = 1000;

impl Conditions {
    pub(crate) fn new(options: &Options, now: Instant) -> Self {
        let state = State {
            restarting: false,
            refusing: Some(now),
            unavailable: Lasting::default(),
            unavailable_requests: 0,
            slow: Slow::default(),
            faults: Vec::new(),
            style: options.fault_style,
            quotas: options.quotas(),
        };
        Self { state: Mutex::new(state), changed: watch::Sender::new(()) }
    }

    /// Starts an outage: refusal from now on, 503 after it.
    pub(crate) fn go_down(&self, now: Instant, refuse: Lasting, unavailable: Lasting) {
        self.change(|state| {
            state.refusing = match refuse {
                Lasting::For(time) => Some(now.checked_add(time).unwrap_or(now)),
                Lasting::UntilReady => None,
            };
            state.unavailable = unavailable;
        });
    }

    /// From the first to the last moment of a restart nobody answers, not even with 503.
    pub(crate) fn set_restarting(&self, restarting: bool) {
        self.change(|state| state.restarting = restarting);
    }

    pub(crate) fn restarting(&self) -> bool {
        self.lock().restarting
    }

    /// Ends every outage.
    pub(crate) fn come_up(&self, now: Instant) {
        self.change(|state| {
            state.refusing = Some(now);
            state.unavailable = Lasting::default();
            state.unavailable_requests = 0;
        });
    }

    pub(crate) fn service(&self, now: Instant) -> Service {
        let state = self.lock();
        let up = match (state.refusing, state.unavailable) {
            (None, _) => return Service::Refusing,
            (Some(until), _) if now < until => return Service::Refusing,
            (Some(_), Lasting::UntilReady) => return Service::Unavailable,
            (Some(until), Lasting::For(time)) => until.checked_add(time).unwrap_or(until),
        };
        if now < up { Service::Unavailable } else { Service::Up }
    }

    /// The end of the refusal, when it has one.
    pub(crate) fn refusing_until(&self) -> Option<Instant> {
        self.lock().refusing
    }

    /// The next `requests` are answered with 503.
    pub(crate) fn answer_unavailable(&self, requests: u32) {
        self.change(|state| state.unavailable_requests = requests);
    }

    /// Whether this request is answered with 503.
    pub(crate) fn take_unavailable(&self, now: Instant) -> bool {
        if self.service(now) != Service::Up {
            return true;
        }
        let mut state = self.lock();
        let counted = state.unavailable_requests > 0;
        state.unavailable_requests = state.unavailable_requests.saturating_sub(1);
        counted
    }

    pub(crate) fn set_slow(&self, slow: Slow) {
        self.change(|state| state.slow = slow);
    }

    /// How long the answer to an operation waits.
    pub(crate) fn delay(&self, operation: &str) -> Duration {
        let state = self.lock();
        state.slow.delays.get(operation).or_else(|| state.slow.delays.get("*")).map_or(Duration::ZERO, |delay| delay.0)
    }

    pub(crate) fn trickle(&self) -> Option<Trickle> {
        self.lock().slow.trickle
    }

    pub(crate) fn order_fault(&self, fault: OrderedFault) {
        self.change(|state| {
            if fault.times > 0 && state.faults.len() < MAX_FAULTS {
                state.faults.push(fault);
            }
        });
    }

    /// The fault that was ordered for this request, and whether the operation is done all the same.
    pub(crate) fn take_fault(&self, operation: &str) -> Option<(Fault, bool)> {
        let mut state = self.lock();
        let index = state.faults.iter().position(|fault| fault.operation == operation)?;
        let ordered = state.faults.get_mut(index)?;
        ordered.times -= 1;
        let taken = (Fault::ordered(ordered.code, ordered.style), ordered.done);
        if ordered.times == 0 {
            state.faults.remove(index);
        }
        Some(taken)
    }

    pub(crate) fn set_style(&self, style: Style) {
        self.change(|state| state.style = style);
    }

    /// How faults are written.
    pub(crate) fn style(&self) -> Style {
        self.lock().style
    }

    pub(crate) fn quotas(&self) -> Quotas {
        self.lock().quotas
    }

    pub(crate) fn change_quotas(&self, change: QuotaChange) {
        self.change(|state| {
            let quotas = &mut state.quotas;
            for (quota, wanted) in [
                (&mut quotas.max_shells_per_user, change.max_shells_per_user),
                (&mut quotas.max_processes_per_shell, change.max_processes_per_shell),
                (&mut quotas.max_operations_per_user, change.max_operations_per_user),
                (&mut quotas.max_concurrent_users, change.max_concurrent_users),
                (&mut quotas.max_connections, change.max_connections),
                (&mut quotas.max_batch_items, change.max_batch_items),
            ] {
                *quota = wanted.unwrap_or(*quota);
            }
        });
    }

    /// Tells of every change.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_refusal_and_then_503() {
        let now = Instant::now();
        let conditions = Conditions::new(&Options::default(), now);
        let at = |seconds| conditions.service(now + Duration::from_secs(seconds));
        assert_eq!(at(0), Service::Up);
        conditions.go_down(now, Lasting::For(Duration::from_secs(10)), Lasting::For(Duration::from_secs(5)));
        assert_eq!(
            [at(0), at(9), at(10), at(14), at(15)],
            [Service::Refusing, Service::Refusing, Service::Unavailable, Service::Unavailable, Service::Up]
        );
        conditions.go_down(now, Lasting::UntilReady, Lasting::UntilReady);
        assert_eq!(at(1_000_000), Service::Refusing);
        conditions.come_up(now);
        assert_eq!(at(0), Service::Up);
        conditions.answer_unavailable(1);
        assert_eq!([conditions.take_unavailable(now), conditions.take_unavailable(now)], [true, false]);
    }

    #[test]
    fn lasting_is_text() {
        assert_eq!("until-ready".parse::<Lasting>().ok(), Some(Lasting::UntilReady));
        assert_eq!("1m 30s".parse::<Lasting>().ok(), Some(Lasting::For(Duration::from_secs(90))));
        assert!("30".parse::<Lasting>().is_err());
        assert_eq!(Lasting::For(Duration::from_secs(90)).to_string(), "1m 30s");
    }
}
