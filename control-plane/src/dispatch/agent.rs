//! What the ledger knows of one agent, and its link while it is connected.

use std::collections::BTreeSet;

use lictor_proto::v1::{Agent, AgentState};
use lictor_proto::version::Mismatch;

use crate::clock::UnixMillis;

/// One connection of an agent, told apart from its earlier ones.
pub(crate) type SessionId = u64;

/// An agent.
#[derive(Debug, Clone)]
pub(crate) struct AgentEntry {
    pub(crate) agent_id: String,
    pub(crate) name: String,
    /// Tags it announced itself.
    pub(crate) own_tags: Vec<String>,
    /// Tags its join token gave it.
    pub(crate) token_tags: Vec<String>,
    pub(crate) scope: String,
    pub(crate) version: String,
    pub(crate) description: String,
    pub(crate) sealing_key: Vec<u8>,
    pub(crate) slots: u32,
    pub(crate) capabilities: Vec<String>,
    pub(crate) enrolled_at: UnixMillis,
    pub(crate) last_seen_at: Option<UnixMillis>,
    pub(crate) certificate_not_after: UnixMillis,
    /// Present once an operator asked it to drain.
    pub(crate) drain_reason: Option<String>,
    /// Present once it was revoked: when and why.
    pub(crate) revoked: Option<(UnixMillis, String)>,
    /// It enrolled anew; what it held before is gone.
    pub(crate) journal_lost: bool,
    /// Which process of it spoke last; a drain ends with the process it was asked of.
    pub(crate) instance_id: String,
    pub(crate) degraded: Vec<String>,
    /// Of the last Hello; not stored, because only a connected agent's count.
    pub(crate) kerberos_principals: Vec<String>,
    pub(crate) slots_used: u32,
    pub(crate) resident_bytes: u64,
    pub(crate) link: Option<Link>,
}

/// A connected agent's side of the conversation.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) session: SessionId,
    /// It says that it takes nothing new.
    pub(crate) draining: bool,
    /// Assignments it has been willing to take since Hello.
    pub(crate) credit: u64,
    /// Assignments sent since Hello.
    pub(crate) spent: u64,
    /// Assignments that it holds now, as far as the ledger knows.
    pub(crate) held: BTreeSet<String>,
    /// Its version is too far from ours: it may finish what it holds, and gets nothing.
    pub(crate) mismatch: Option<Mismatch>,
}

impl Link {
    /// How many assignments it would take now.
    pub(crate) fn free(&self) -> u64 {
        let room = MAX_HELD.saturating_sub(self.held.len() as u64);
        self.credit.saturating_sub(self.spent).min(room)
    }
}

impl AgentEntry {
    pub(crate) fn has_tag(&self, tag: &str) -> bool {
        self.own_tags.iter().chain(&self.token_tags).any(|own| own == tag)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.drain_reason.is_some() || self.link.as_ref().is_some_and(|link| link.draining)
    }

    /// Why its version keeps it from new tasks, and what to do about it.
    pub(crate) fn mismatch(&self) -> Option<String> {
        let mismatch = self.link.as_ref()?.mismatch?;
        Some(format!("{mismatch}; {}", mismatch.remedy("the control plane", "the agent")))
    }

    /// The agent as users see it.
    pub(crate) fn view(&self) -> Agent {
        let state = if self.revoked.is_some() {
            AgentState::Revoked
        } else if self.link.is_none() {
            AgentState::Offline
        } else if self.is_draining() {
            AgentState::Draining
        } else {
            AgentState::Online
        };
        let tags: BTreeSet<&String> = self.own_tags.iter().chain(&self.token_tags).collect();
        Agent {
            agent_id: self.agent_id.clone(),
            name: self.name.clone(),
            tags: tags.into_iter().cloned().collect(),
            scope: self.scope.clone(),
            state: state.into(),
            version: self.version.clone(),
            slots: self.slots,
            slots_used: self.slots_used,
            enrolled_at: Some(self.enrolled_at.timestamp()),
            last_seen_at: self.last_seen_at.map(UnixMillis::timestamp),
            certificate_not_after: Some(self.certificate_not_after.timestamp()),
            degraded: self.degraded.iter().cloned().chain(self.mismatch()).collect(),
            resident_bytes: self.resident_bytes,
            description: self.description.clone(),
            capabilities: self.capabilities.clone(),
            kerberos_principals: self.kerberos_principals.clone(),
        }
    }
}

/// Most assignments one agent may hold, whatever credit it grants: bounds what is queued towards it.
const MAX_HELD: u64 = 1024;
