//! How much one caller may ask at the same time: calls of an agent, and followers of tasks and batches over all
//! users.
//!
//! A caller beyond its bound is told at once; nobody waits, and nobody else is slowed. Called by the services.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

/// Counts the calls under way.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    agents: Arc<Mutex<HashMap<String, usize>>>,
    followers: Arc<Semaphore>,
}

/// An agent's call under way.
#[derive(Debug)]
pub(super) struct Call {
    calls: Calls,
    agent_id: String,
}

impl Calls {
    pub(crate) fn new() -> Self {
        Self { agents: Arc::default(), followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)) }
    }

    /// Notes a call of an agent until what this returns is dropped.
    pub(super) fn of_agent(&self, agent_id: &str) -> Result<Call, Status> {
        let mut agents = self.lock();
        let under_way = agents.entry(agent_id.to_owned()).or_default();
        if *under_way >= MAX_CALLS {
            return Err(Status::resource_exhausted(format!(
                "this agent has {MAX_CALLS} calls under way; a session or a poll and a report are enough"
            )));
        }
        *under_way += 1;
        Ok(Call { calls: self.clone(), agent_id: agent_id.to_owned() })
    }

    /// Notes a follower of a task or a batch until what this returns is dropped.
    pub(super) fn follower(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.followers).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!(
                "{MAX_FOLLOWERS} followers of tasks and batches are connected; try again later"
            ))
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        // Nothing in here panics while it holds the lock.
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut agents = self.calls.lock();
        if let Some(under_way) = agents.get_mut(&self.agent_id) {
            *under_way = under_way.saturating_sub(1);
            if *under_way == 0 {
                agents.remove(&self.agent_id);
            }
        }
    }
}

/// A session or a poll, a report, and sessions of connections that died and were not found out yet.
const MAX_CALLS: usize = 16;
/// Each holds up to about half a MiB of what its reader has not taken.
const MAX_FOLLOWERS: usize = 512;

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn one_agents_calls_are_bounded_and_anothers_are_not_touched() {
        let calls = Calls::new();
        let mut held: Vec<Call> = (0..MAX_CALLS).map(|_| calls.of_agent("a").unwrap()).collect();
        assert_eq!(calls.of_agent("a").unwrap_err().code(), Code::ResourceExhausted);
        let _other = calls.of_agent("b").unwrap();
        held.pop();
        held.push(calls.of_agent("a").unwrap());
        drop(held);
        assert_eq!(calls.lock().len(), 1);
    }

    #[test]
    fn followers_are_bounded_in_all() {
        let calls = Calls::new();
        let mut held: Vec<_> = (0..MAX_FOLLOWERS).map(|_| calls.follower().unwrap()).collect();
        assert_eq!(calls.follower().unwrap_err().code(), Code::ResourceExhausted);
        held.pop();
        drop(calls.follower().unwrap());
    }
}
