//! How tasks, agents, tokens, credentials, secrets and users look: as JSON for scripts and as text for eyes.
//!
//! The JSON is ours and stable: names of the wire contract, states as words, times in RFC 3339, durations in
//! milliseconds. It is not the contract's own JSON mapping, which changes with the contract.

mod access;
mod batch;
mod fleet;
mod looks;
mod secret;
mod task;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub(super) use access::{IdentityView, UserTokenView, UserView, user_table, user_token_table};
pub(super) use batch::{BatchView, batch_page, batch_table};
pub(super) use fleet::{AgentView, CredentialView, TokenView, agent_table, credential_table, token_table};
pub(super) use looks::{posture_text, summary};
pub(super) use secret::{ManagerView, SecretPage, SecretView, manager_page, manager_table, secret_page, secret_table};
pub(super) use task::{TaskView, state_name, task_page, task_table};

/// RFC 3339 with milliseconds, in UTC. Times that no calendar holds are left out.
fn time(timestamp: Option<prost_types::Timestamp>) -> Option<String> {
    let timestamp = timestamp?;
    let nanos = u32::try_from(timestamp.nanos).ok()?;
    OffsetDateTime::from_unix_timestamp(timestamp.seconds)
        .ok()?
        .replace_nanosecond(nanos / 1_000_000 * 1_000_000)
        .ok()?
        .format(&Rfc3339)
        .ok()
}

/// Milliseconds with three digits after the point.
#[expect(clippy::cast_precision_loss, reason = "durations of tasks are far below 2^53 ms")]
fn milliseconds(duration: prost_types::Duration) -> f64 {
    (duration.seconds as f64).mul_add(1000.0, (f64::from(duration.nanos) / 1000.0).round() / 1000.0)
}

/// A text cut to what a table can take.
pub(super) fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_outside_every_calendar_are_left_out() {
        assert_eq!(time(Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 })), None);
        assert_eq!(time(Some(prost_types::Timestamp { seconds: 0, nanos: -1 })), None);
    }
}
