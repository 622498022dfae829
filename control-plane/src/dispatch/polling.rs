//! Agents that poll: between two polls they are not connected, and yet not gone.
//!
//! Changes nothing about assignments, whose leases are what counts; it is about what people are told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use lictor_proto::v1::{Agent, AgentState, Candidate};

use super::Ledger;
use super::agent::AgentEntry;

/// Who polls, and until when the next poll of those that do not wait in one is expected.
#[derive(Debug, Default)]
pub(super) struct Polling {
    agents: BTreeSet<String>,
    resting: BTreeMap<String, Instant>,
}

impl Polling {
    /// A session of `agent_id` is over.
    pub(super) fn rest(&mut self, agent_id: &str, until: Instant) {
        if self.agents.contains(agent_id) {
            self.resting.insert(agent_id.to_owned(), until);
        }
    }

    /// Those that did not come back in time.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<String> {
        let gone: Vec<String> = self.resting.extract_if(.., |_, until| *until <= now).map(|(id, _)| id).collect();
        for agent_id in &gone {
            self.agents.remove(agent_id);
        }
        gone
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.resting.values().min().copied()
    }

    /// The agent as users see it.
    pub(super) fn view(&self, agent: &AgentEntry) -> Agent {
        let mut view = agent.view();
        if view.state() == AgentState::Offline && self.resting.contains_key(&agent.agent_id) {
            view.set_state(if agent.drain_reason.is_some() { AgentState::Draining } else { AgentState::Online });
        }
        view
    }

    /// The candidate, if need be with the right reason.
    pub(super) fn candidate(&self, candidate: Candidate) -> Candidate {
        if candidate.code != "offline" || !self.resting.contains_key(&candidate.agent_id) {
            return candidate;
        }
        Candidate { code: "between_polls".into(), reason: "it is between two polls".into(), ..candidate }
    }
}

impl Ledger {
    /// A session of this agent is about to open: a poll, or a stream. True for a poll that follows another one.
    pub(crate) fn polls(&mut self, agent_id: &str, polling: bool) -> bool {
        self.polling.resting.remove(agent_id);
        if polling {
            !self.polling.agents.insert(agent_id.to_owned())
        } else {
            self.polling.agents.remove(agent_id);
            false
        }
    }

    /// Whether the agent polls, and is expected back.
    pub(crate) fn is_between_polls(&self, agent_id: &str) -> bool {
        self.polling.resting.contains_key(agent_id)
    }
}
