//! Refused sign-ins: limited per source, counted, and summed up for the audit log.
//!
//! A right token passes whatever its neighbours behind the same address do: a token of 256 random bits cannot be guessed,
//! so the limit is there against load and noise, and must not let one stranger behind a proxy lock everybody out.
//! Memory is bounded whoever calls from wherever.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Refusals so far.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    state: Mutex<State>,
    /// Something waits to be summed up.
    pub(crate) pending: Notify,
}

#[derive(Debug, Default)]
struct State {
    buckets: HashMap<IpAddr, Bucket>,
    /// Shared by all sources that have no bucket of their own when there is no room for more.
    overflow: Option<Bucket>,
    summary: Summary,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Failures that may still be answered in full.
    left: f64,
    at: Instant,
}

/// Why a call was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Refused {
    /// It carried no bearer token.
    Missing,
    /// The token is nobody's.
    Unknown,
    Expired,
    Revoked,
    /// The token's user is disabled.
    Disabled,
    /// The user's role is too low.
    Denied,
    /// An enrolment with a join token that does not count.
    Enrolment,
    /// An agent's certificate that does not count.
    Certificate,
}

impl Refused {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Disabled => "disabled",
            Self::Denied => "denied",
            Self::Enrolment => "enrolment",
            Self::Certificate => "certificate",
        }
    }
}

/// What was refused since the last summary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) reasons: BTreeMap<&'static str, u64>,
    /// The first sources, and how often each.
    pub(crate) sources: BTreeMap<String, u64>,
    /// Refusals of further sources.
    pub(crate) others: u64,
    /// The first users or agents whose token or certificate was known but did not count.
    pub(crate) names: BTreeMap<String, u64>,
}

impl Guard {
    /// Notes a refusal. False when this source has had so many that it gets no full answer and no log line any more.
    pub(crate) fn refuse(&self, source: Option<IpAddr>, why: Refused, name: Option<&str>, now: Instant) -> bool {
        let source = source.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), network);
        let mut state = self.lock();
        state.summary.add(source, why, name);
        let within = state.take(source, now);
        drop(state);
        self.pending.notify_one();
        within
    }

    /// What was refused since the last time.
    pub(crate) fn take(&self) -> Option<Summary> {
        let summary = std::mem::take(&mut self.lock().summary);
        (!summary.reasons.is_empty()).then_some(summary)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, source: IpAddr, now: Instant) -> bool {
        if !self.buckets.contains_key(&source) && self.buckets.len() >= MAX_SOURCES {
            self.buckets.retain(|_, bucket| bucket.filled(now) < BURST);
        }
        let full = Bucket { left: BURST, at: now };
        let room = self.buckets.len() < MAX_SOURCES;
        let bucket = match self.buckets.get_mut(&source) {
            Some(bucket) => bucket,
            None if room => self.buckets.entry(source).or_insert(full),
            None => self.overflow.get_or_insert(full),
        };
        let left = bucket.filled(now);
        let within = left >= 1.0;
        *bucket = Bucket { left: if within { left - 1.0 } else { left }, at: now };
        within
    }
}

impl Bucket {
    fn filled(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + passed / REFILL.as_secs_f64()).min(BURST)
    }
}

impl Summary {
    fn add(&mut self, source: IpAddr, why: Refused, name: Option<&str>) {
        *self.reasons.entry(why.name()).or_default() += 1;
        if !count(&mut self.sources, &source.to_string()) {
            self.others += 1;
        }
        if let Some(name) = name {
            count(&mut self.names, name);
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.reasons.values().sum()
    }
}

/// Counts, unless that would make the list longer than a summary's may be.
fn count(counts: &mut BTreeMap<String, u64>, key: &str) -> bool {
    if let Some(count) = counts.get_mut(key) {
        *count += 1;
    } else if counts.len() < MAX_NAMED {
        counts.insert(key.to_owned(), 1);
    } else {
        return false;
    }
    true
}

/// One customer of IPv6 has at least 2^64 addresses.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let mut segments = address.segments();
            segments[4..].fill(0);
            IpAddr::V6(segments.into())
        }
        v4 => v4,
    }
}

/// Failures in a row that are answered in full.
const BURST: f64 = 10.0;
/// How soon one more is.
const REFILL: Duration = Duration::from_secs(6);
/// About 200 KiB.
const MAX_SOURCES: usize = 4096;
/// Bounds an entry of the audit log.
const MAX_NAMED: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(guard: &Guard, source: &str, now: Instant) -> bool {
        guard.refuse(source.parse().ok(), Refused::Unknown, None, now)
    }

    #[test]
    fn a_source_is_limited_and_recovers_and_others_are_not() {
        let (guard, start) = (Guard::default(), Instant::now());
        assert_eq!((0..50).filter(|_| refuse(&guard, "192.0.2.1", start)).count(), 10);
        assert!(refuse(&guard, "192.0.2.2", start));
        assert!(!refuse(&guard, "192.0.2.1", start + REFILL / 2));
        assert!(refuse(&guard, "192.0.2.1", start + REFILL));
        assert!(!refuse(&guard, "192.0.2.1", start + REFILL));
        assert_eq!((0..50).filter(|_| refuse(&guard, "192.0.2.1", start + REFILL * 100)).count(), 10);
    }

    #[test]
    fn neighbours_in_one_network_of_ipv6_are_one_source() {
        let (guard, start) = (Guard::default(), Instant::now());
        let let_through = (0..50).filter(|n| refuse(&guard, &format!("2001:db8::{n:x}"), start)).count();
        assert_eq!(let_through, 10);
        assert!(refuse(&guard, "2001:db8:0:1::1", start));
        assert_eq!((0..50).filter(|_| refuse(&guard, "::ffff:192.0.2.1", start)).count(), 10);
        assert!(!refuse(&guard, "192.0.2.1", start), "the same source in the other notation");
    }

    #[test]
    fn memory_is_bounded_whoever_calls() {
        let (guard, start) = (Guard::default(), Instant::now());
        let sources = |n: u32| std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string();
        for n in 0..20_000 {
            refuse(&guard, &sources(n), start);
        }
        assert_eq!(guard.lock().buckets.len(), MAX_SOURCES);
        assert!(!refuse(&guard, &sources(30_000), start), "sources without room share one bucket");
        let summary = guard.take().unwrap();
        assert_eq!((summary.total(), summary.sources.len(), summary.others), (20_001, MAX_NAMED, 20_001 - 16));
        assert_eq!(guard.take(), None);
        // Those that have recovered make room.
        assert!(refuse(&guard, &sources(30_000), start + REFILL * 10));
        assert_eq!(guard.lock().buckets.len(), 1);
    }
}
