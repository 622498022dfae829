//! Tickets by key, each fetched by one flight for all who want it, and fetched again before it ends.
//!
//! INVARIANT: a flight is a task of its own. Whoever waits for it may be cancelled; the flight goes on for the others, and its result is
//! kept. A ticket that is still good is handed out whether or not the next one can be had.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use krb5::Credentials;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, timeout_at};

use crate::error::{Error, ErrorKind, catalogue};

pub(super) type Outcome = Result<Arc<Credentials>, Error>;

/// After which part of its life a ticket is fetched anew, in hundredths: a random one of these, so that the tickets of many who
/// began together are not fetched together.
const REFRESH: std::ops::Range<i64> = 70..85;

/// A ticket with less than this left is handed out only when no other can be had: the host must still take it when it arrives.
const MARGIN: i64 = 30;

/// How long it is remembered that a service is unknown. The next task asks again soon enough after somebody registered it.
const UNKNOWN: Duration = Duration::from_secs(30);

/// The flights under way. Dropping it ends them.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<JoinSet<()>>);

impl Flights {
    pub(super) fn spawn(&self, flight: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while set.try_join_next().is_some() {}
        set.spawn(flight);
    }
}

/// Tickets by key.
pub(super) struct Shelf<K> {
    slots: Mutex<HashMap<K, Slot>>,
    bound: usize,
}

#[derive(Default)]
struct Slot {
    held: Option<Held>,
    flight: Option<watch::Receiver<Option<Outcome>>>,
    /// Says which flight may put its result here.
    number: u64,
    /// No flight is begun before then, unless somebody would have nothing at all.
    wait_until: Option<Instant>,
    /// A failure that is answered again without asking.
    failed: Option<(Instant, Error)>,
    used: u64,
}

/// A ticket and when to do something about it, in seconds since 1970.
#[derive(Clone)]
struct Held {
    ticket: Arc<Credentials>,
    refresh_at: i64,
}

/// What to do for somebody who wants a ticket.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// Hand out what is there.
    Use,
    /// Hand out what is there and fetch the next one meanwhile.
    UseAndFetch,
    /// Fetch one; if that fails, what is there is still good.
    FetchElseUse,
    /// Fetch one.
    Fetch,
}

fn plan(held: Option<&Held>, now: i64) -> Plan {
    match held {
        None => Plan::Fetch,
        Some(held) if now < held.refresh_at => Plan::Use,
        Some(held) => match held.ticket.endtime.saturating_sub(now) {
            ..=0 => Plan::Fetch,
            1..=MARGIN if held.refresh_at < held.ticket.endtime - MARGIN => Plan::FetchElseUse,
            _ => Plan::UseAndFetch,
        },
    }
}

impl<K: Eq + Hash + Clone + Send + 'static> Shelf<K> {
    pub(super) fn new(bound: usize) -> Self {
        Self { slots: Mutex::default(), bound }
    }

    /// The ticket of `key`: the one that is held, or that which `fetch` makes, for all who ask meanwhile. `fetch` is given the one that
    /// is held, and must end by itself.
    pub(super) async fn obtain<F>(
        self: &Arc<Self>,
        flights: &Weak<Flights>,
        key: &K,
        deadline: Instant,
        fetch: impl FnOnce(Option<Arc<Credentials>>) -> F,
    ) -> Outcome
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let (mut waiting, good) = {
            let mut slots = self.lock();
            self.make_room(&mut slots, key);
            let now = unix_now();
            let slot = slots.entry(key.clone()).or_default();
            slot.used = next_number();
            let ticket = slot.held.as_ref().map(|held| held.ticket.clone());
            let plan = plan(slot.held.as_ref(), now);
            match (&plan, &ticket) {
                (Plan::Use, Some(ticket)) => return Ok(ticket.clone()),
                (Plan::UseAndFetch | Plan::FetchElseUse, Some(ticket))
                    if plan == Plan::UseAndFetch && slot.running().is_some()
                        || slot.wait_until.is_some_and(|until| Instant::now() < until) =>
                {
                    return Ok(ticket.clone());
                }
                (Plan::Fetch, _) => {
                    if let Some((until, error)) = &slot.failed
                        && Instant::now() < *until
                    {
                        return Err(error.clone());
                    }
                }
                _ => {}
            }
            let running = match slot.running() {
                Some(running) => running,
                None => {
                    let Some(flights) = flights.upgrade() else { return Err(catalogue::stopped()) };
                    let (sender, receiver) = watch::channel(None);
                    slot.number = next_number();
                    slot.flight = Some(receiver.clone());
                    let (shelf, key, number) = (Arc::downgrade(self), key.clone(), slot.number);
                    let work = fetch(ticket.clone());
                    flights.spawn(async move {
                        let outcome = work.await;
                        if let Some(shelf) = shelf.upgrade() {
                            shelf.land(&key, number, &outcome);
                        }
                        sender.send_replace(Some(outcome));
                    });
                    receiver
                }
            };
            match (plan, ticket) {
                (Plan::UseAndFetch, Some(ticket)) => return Ok(ticket),
                (Plan::FetchElseUse, ticket) => (running, ticket),
                _ => (running, None),
            }
        };
        let outcome = match timeout_at(deadline, waiting.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or_else(|| Err(catalogue::stopped())),
            Ok(Err(_)) => Err(catalogue::stopped()),
            Err(_) => Err(catalogue::waited_too_long()),
        };
        match (outcome, good) {
            (Err(_), Some(good)) if good.endtime > unix_now() => Ok(good),
            (outcome, _) => outcome,
        }
    }

    /// A flight has ended: keeps its ticket, or for a while its failure.
    fn land(&self, key: &K, number: u64, outcome: &Outcome) {
        let mut slots = self.lock();
        // Forgotten meanwhile: whoever waits gets the result, and nobody else.
        let Some(slot) = slots.get_mut(key).filter(|slot| slot.number == number) else { return };
        slot.flight = None;
        match outcome {
            Ok(ticket) => {
                slot.held = Some(Held::new(ticket.clone(), unix_now(), random_percent()));
                slot.failed = None;
                slot.wait_until = None;
            }
            Err(error) => {
                if error.kind() == ErrorKind::ServiceUnknown {
                    slot.failed = Some((Instant::now() + UNKNOWN, error.clone()));
                }
                let left = slot.held.as_ref().map_or(0, |held| held.ticket.endtime.saturating_sub(unix_now()));
                slot.wait_until = Some(Instant::now() + again_after(left));
            }
        }
    }

    /// The ticket that is there, good or not.
    pub(super) fn held(&self, key: &K) -> Option<Arc<Credentials>> {
        self.lock().get(key)?.held.as_ref().map(|held| held.ticket.clone())
    }

    /// Forgets all keys of which `which` is true. Flights go on for those who wait for them, and nothing is kept of them.
    pub(super) fn forget(&self, which: impl Fn(&K) -> bool) {
        self.lock().retain(|key, _| !which(key));
    }

    /// Forgets this very ticket, which is of no use.
    pub(super) fn discard(&self, key: &K, ticket: &Arc<Credentials>) {
        if let Some(slot) = self.lock().get_mut(key) {
            slot.held.take_if(|held| Arc::ptr_eq(&held.ticket, ticket));
        }
    }

    /// Forgets the ticket of a key when `which` is true of it.
    pub(super) fn discard_if(&self, key: &K, which: impl Fn(&Credentials) -> bool) {
        if let Some(slot) = self.lock().get_mut(key) {
            slot.held.take_if(|held| which(&held.ticket));
        }
    }

    /// Says that a key is in use though its ticket is not asked for.
    pub(super) fn touch(&self, key: &K) {
        if let Some(slot) = self.lock().get_mut(key) {
            slot.used = next_number();
        }
    }

    /// When there are too many, a tenth goes: the least recently used ones.
    fn make_room(&self, slots: &mut HashMap<K, Slot>, key: &K) {
        if slots.len() < self.bound || slots.contains_key(key) {
            return;
        }
        let mut ages: Vec<u64> = slots.values().map(|slot| slot.used).collect();
        let tenth = (self.bound / 10).clamp(1, ages.len()) - 1;
        let (_, oldest, _) = ages.select_nth_unstable(tenth);
        let oldest = *oldest;
        slots.retain(|_, slot| slot.used > oldest);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> fmt::Debug for Shelf<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").finish_non_exhaustive()
    }
}

impl Slot {
    /// The flight under way, unless it ended without a result (it panicked, or its runtime did).
    fn running(&self) -> Option<watch::Receiver<Option<Outcome>>> {
        self.flight.clone().filter(|flight| flight.has_changed().is_ok())
    }
}

impl Held {
    /// A ticket that came at `now`. What counts is what is left of its life, by our clock.
    fn new(ticket: Arc<Credentials>, now: i64, percent: i64) -> Self {
        let left = ticket.endtime.saturating_sub(now).max(0);
        Self { refresh_at: now.saturating_add(left.saturating_mul(percent) / 100), ticket }
    }
}

/// How long after a failure the next try is made while a ticket that is good for `left` seconds is handed out.
fn again_after(left: i64) -> Duration {
    let most = u64::try_from(left / 8).unwrap_or(0).clamp(1, 60);
    Duration::from_millis(most * 500 + u64::from(random()) % (most * 500 + 1))
}

fn random_percent() -> i64 {
    REFRESH.start + i64::from(random()) % (REFRESH.end - REFRESH.start)
}

/// For spreading things out, not for secrets.
fn random() -> u32 {
    let mut bytes = [0; 4];
    let _ = getrandom::fill(&mut bytes);
    u32::from_le_bytes(bytes)
}

/// Rises with each call.
fn next_number() -> u64 {
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

pub(super) fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
