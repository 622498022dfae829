//! The audit log: who did what, where, with which credential, and how it went.
//!
//! Pure: makes lines and chains them. Each line is one JSON object with its keys in alphabetical order, and holds the
//! SHA-256 of the line before, so that nothing can be changed or taken out unseen. A line never holds a secret, output, a
//! script's text or a command line. The engine stores it in the transaction of what it tells of; `docs/access.md`
//! describes the format.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::access::Caller;
use crate::authority::hex;
use crate::clock::UnixMillis;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    TaskSubmitted,
    TaskCancelRequested,
    TaskAssigned,
    TaskFinished,
    TaskLateResult,
    BatchSubmitted,
    BatchCancelled,
    CredentialStored,
    CredentialDeleted,
    CredentialRejected,
    SecretUsed,
    SecretStored,
    SecretDeleted,
    SecretManagerStored,
    SecretManagerDeleted,
    AgentEnrolled,
    AgentRenewed,
    AgentDrained,
    AgentRevoked,
    JoinTokenCreated,
    JoinTokenRevoked,
    UserCreated,
    UserDisabled,
    UserEnabled,
    UserTokenIssued,
    UserTokenRevoked,
    AccessRefused,
    AuditExported,
    MasterKeyReplaced,
}

impl Action {
    #[cfg(test)]
    const ALL: [Self; 29] = [
        Self::TaskSubmitted,
        Self::TaskCancelRequested,
        Self::TaskAssigned,
        Self::TaskFinished,
        Self::TaskLateResult,
        Self::BatchSubmitted,
        Self::BatchCancelled,
        Self::CredentialStored,
        Self::CredentialDeleted,
        Self::CredentialRejected,
        Self::SecretUsed,
        Self::SecretStored,
        Self::SecretDeleted,
        Self::SecretManagerStored,
        Self::SecretManagerDeleted,
        Self::AgentEnrolled,
        Self::AgentRenewed,
        Self::AgentDrained,
        Self::AgentRevoked,
        Self::JoinTokenCreated,
        Self::JoinTokenRevoked,
        Self::UserCreated,
        Self::UserDisabled,
        Self::UserEnabled,
        Self::UserTokenIssued,
        Self::UserTokenRevoked,
        Self::AccessRefused,
        Self::AuditExported,
        Self::MasterKeyReplaced,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::TaskSubmitted => "task.submitted",
            Self::TaskCancelRequested => "task.cancel_requested",
            Self::TaskAssigned => "task.assigned",
            Self::TaskFinished => "task.finished",
            Self::TaskLateResult => "task.late_result",
            Self::BatchSubmitted => "batch.submitted",
            Self::BatchCancelled => "batch.cancelled",
            Self::CredentialStored => "credential.stored",
            Self::CredentialDeleted => "credential.deleted",
            Self::CredentialRejected => "credential.rejected",
            Self::SecretUsed => "secret.used",
            Self::SecretStored => "secret.stored",
            Self::SecretDeleted => "secret.deleted",
            Self::SecretManagerStored => "secret_manager.stored",
            Self::SecretManagerDeleted => "secret_manager.deleted",
            Self::AgentEnrolled => "agent.enrolled",
            Self::AgentRenewed => "agent.renewed",
            Self::AgentDrained => "agent.drained",
            Self::AgentRevoked => "agent.revoked",
            Self::JoinTokenCreated => "join_token.created",
            Self::JoinTokenRevoked => "join_token.revoked",
            Self::UserCreated => "user.created",
            Self::UserDisabled => "user.disabled",
            Self::UserEnabled => "user.enabled",
            Self::UserTokenIssued => "user_token.issued",
            Self::UserTokenRevoked => "user_token.revoked",
            Self::AccessRefused => "access.refused",
            Self::AuditExported => "audit.exported",
            Self::MasterKeyReplaced => "master_key.replaced",
        }
    }
}

/// Who did it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Actor<'a> {
    User(&'a Caller),
    Agent(&'a str),
    /// Whoever held this join token, from this address.
    JoinToken {
        token_id: &'a str,
        source: &'a str,
    },
    /// Somebody on the control plane's own machine.
    Machine,
    /// The control plane by itself.
    ControlPlane,
    /// Nobody known.
    Strangers,
}

impl Actor<'_> {
    fn json(self) -> Value {
        match self {
            Self::User(caller) => json!({
                "kind": "user", "name": caller.user, "token_id": caller.token_id, "source": caller.source,
            }),
            Self::Agent(agent_id) => json!({ "kind": "agent", "agent_id": agent_id }),
            Self::JoinToken { token_id, source } => {
                json!({ "kind": "join_token", "token_id": token_id, "source": source })
            }
            Self::Machine => json!({ "kind": "machine" }),
            Self::ControlPlane => json!({ "kind": "control_plane" }),
            Self::Strangers => json!({ "kind": "strangers" }),
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub(crate) struct Event<'a> {
    pub(crate) action: Action,
    pub(crate) actor: Actor<'a>,
    /// Kind and identifier of what it was done to.
    pub(crate) object: (&'static str, &'a str),
    /// `ok`, or in one word what else came of it.
    pub(crate) outcome: &'a str,
    /// More, depending on the action: an object.
    pub(crate) details: Value,
}

/// The end of the log: what the next line goes on from.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    seq: u64,
    last: String,
}

impl Chain {
    /// Goes on behind the last line; from the beginning when there is none.
    pub(crate) fn after(last: Option<(u64, &str)>) -> Self {
        match last {
            Some((seq, line)) => Self { seq, last: digest(line) },
            None => Self { seq: 0, last: hex(&[0; 32]) },
        }
    }

    /// What the next line will hold of the one before.
    #[cfg(test)]
    pub(crate) fn last(&self) -> &str {
        &self.last
    }

    /// The next line and its number.
    pub(crate) fn next(&mut self, event: &Event<'_>, at: UnixMillis) -> (u64, String) {
        self.seq += 1;
        let mut line = Map::new();
        line.insert("action".into(), event.action.name().into());
        line.insert("actor".into(), event.actor.json());
        line.insert("at".into(), rfc3339(at).into());
        line.insert("details".into(), without_nothing(event.details.clone()));
        line.insert("object".into(), json!({ "kind": event.object.0, "id": event.object.1 }));
        line.insert("outcome".into(), event.outcome.into());
        line.insert("previous".into(), self.last.as_str().into());
        line.insert("seq".into(), self.seq.into());
        // JSON escapes control characters, so this is one line whatever is in it.
        let line = Value::Object(line).to_string();
        self.last = digest(&line);
        (self.seq, line)
    }
}

/// Leaves out what is empty, so that a line says only what there is.
fn without_nothing(details: Value) -> Value {
    let Value::Object(details) = details else { return json!({}) };
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    Value::Object(details.into_iter().filter(|(_, value)| !empty(value)).collect())
}

fn digest(line: &str) -> String {
    hex(&Sha256::digest(line.as_bytes()))
}

fn rfc3339(at: UnixMillis) -> String {
    // Three digits of a second, always: texts of equal length sort like the times.
    let text = OffsetDateTime::from_unix_timestamp(at.0.div_euclid(1000)).ok().and_then(|t| t.format(&Rfc3339).ok());
    let text = text.unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned());
    format!("{}.{:03}Z", text.trim_end_matches('Z'), at.0.rem_euclid(1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;

    fn caller() -> Caller {
        Caller {
            user: "ann".into(),
            token_id: "0123456789abcdef".into(),
            role: Role::Operator,
            scope: String::new(),
            source: "192.0.2.1".into(),
        }
    }

    #[test]
    fn lines_are_stable_and_chained() {
        let caller = caller();
        let mut chain = Chain::after(None);
        let event = Event {
            action: Action::TaskSubmitted,
            actor: Actor::User(&caller),
            object: ("task", "t1"),
            outcome: "ok",
            details: json!({ "host": "win\n1", "scope": "", "credential": "web" }),
        };
        let (seq, first) = chain.next(&event, UnixMillis(1_700_000_000_123));
        assert_eq!(seq, 1);
        assert_eq!(
            first,
            "{\"action\":\"task.submitted\",\"actor\":{\"kind\":\"user\",\"name\":\"ann\",\"source\":\"192.0.2.1\",\
             \"token_id\":\"0123456789abcdef\"},\"at\":\"2023-11-14T22:13:20.123Z\",\
             \"details\":{\"credential\":\"web\",\"host\":\"win\\n1\"},\"object\":{\"id\":\"t1\",\"kind\":\"task\"},\
             \"outcome\":\"ok\",\"previous\":\"0000000000000000000000000000000000000000000000000000000000000000\",\
             \"seq\":1}"
        );
        let (seq, second) = chain.next(&event, UnixMillis(1_700_000_000_000));
        assert_eq!(seq, 2);
        let second: Value = serde_json::from_str(&second).unwrap();
        assert_eq!(second["previous"], digest(&first));
        assert_eq!(second["at"], "2023-11-14T22:13:20.000Z");
        // After a restart the chain goes on from the last line.
        let mut again = Chain::after(Some((1, &first)));
        assert_eq!(again.next(&event, UnixMillis(1_700_000_000_000)).1, second.to_string());
    }

    #[test]
    fn the_page_lists_every_action() {
        let page = include_str!("../../docs/access.md");
        for action in Action::ALL {
            assert!(page.contains(&format!("| `{}` |", action.name())), "{} is missing", action.name());
        }
    }
}
