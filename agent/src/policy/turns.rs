//! Tasks that work on hosts, counted: over all, and per host. One that is beyond the policy's bounds waits for its turn.
//!
//! A bound that is lowered stops nobody. Called by `sessions`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::Policy;
use super::names::Host;

/// Who works where.
#[derive(Debug)]
pub(super) struct Turns {
    policy: watch::Receiver<Arc<Policy>>,
    working: Mutex<Working>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Working {
    all: u32,
    hosts: HashMap<String, u32>,
}

/// A place among those that work on hosts; dropping it lets another one work.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    host: String,
}

impl Turns {
    pub(super) fn new(policy: watch::Receiver<Arc<Policy>>) -> Self {
        Self { policy, working: Mutex::default(), freed: Notify::new() }
    }

    /// Waits for a turn on `host`, in no fixed order. Dropping the future gives up.
    pub(super) async fn next(self: &Arc<Self>, host: &str) -> Turn {
        let host = match Host::parse(host) {
            Some(Host::Address(address)) => address.to_string(),
            Some(Host::Name(name)) => name,
            None => host.to_ascii_lowercase(),
        };
        let mut policy = self.policy.clone();
        loop {
            // Made before looking, so that a turn that is given back meanwhile is not missed.
            let freed = self.freed.notified();
            let current = Arc::clone(&policy.borrow_and_update());
            if self.take(&current, &host) {
                return Turn { turns: Arc::clone(self), host };
            }
            tokio::select! {
                () = freed => {}
                // Without its sender the policy stays as it is.
                Ok(()) = policy.changed() => {}
            }
        }
    }

    fn take(&self, policy: &Policy, host: &str) -> bool {
        let mut working = self.lock();
        let here = working.hosts.get(host).copied().unwrap_or(0);
        let room = policy.concurrent().is_none_or(|most| working.all < most)
            && policy.concurrent_per_host().is_none_or(|most| here < most);
        if room {
            working.all += 1;
            working.hosts.insert(host.to_owned(), here + 1);
        }
        room
    }

    fn lock(&self) -> MutexGuard<'_, Working> {
        // Nothing in here panics while it holds the lock.
        self.working.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        {
            let mut working = self.turns.lock();
            working.all = working.all.saturating_sub(1);
            match working.hosts.get_mut(&self.host) {
                Some(here) if *here > 1 => *here -= 1,
                _ => {
                    working.hosts.remove(&self.host);
                }
            }
        }
        self.turns.freed.notify_waiters();
    }
}
