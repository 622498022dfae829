//! One failure of each kind that the control plane itself makes, with example names: what documentation is made of. A test in
//! `lictor-tests` finds a code that has none.

use std::time::Duration;

use lictor_proto::v1::{Candidate, Failure};

use super::{
    Vanished, bad_record, batch_threshold, cancelled, credential_deleted, credential_rejected, credential_unusable,
    manager_refused, manager_unusable, no_agent, restored, secret_deleted, secret_not_fetched, secret_refused,
    secret_superseded, secret_unusable, secrets_too_large, too_many_assignments, unreadable, vanished,
};

/// One failure of each kind that the control plane itself makes. Those that agents report pass through it untouched.
#[must_use]
pub fn catalogue() -> Vec<Failure> {
    let candidate = Candidate {
        agent_name: "pod-7".into(),
        code: "tags".into(),
        reason: "it lacks the tag windows".into(),
        ..Candidate::default()
    };
    let mut all = vec![
        no_agent(Duration::from_secs(300), &[candidate]),
        too_many_assignments(5),
        cancelled(),
        batch_threshold("3 of 3 tasks failed"),
        credential_rejected("deploy", 2),
        credential_deleted("deploy"),
        credential_unusable("deploy", "it does not decrypt"),
        unreadable("it does not decrypt"),
        restored(),
        secret_deleted("deploy-password"),
        secret_unusable("deploy-password", "it does not decrypt"),
        secrets_too_large(9 << 20, 8 << 20),
        secret_not_fetched("corp-kms", 30),
        secret_superseded("deploy-password", 3),
        secret_refused("deploy-password", "there is no secret manager named \"corp-kms\""),
        bad_record("deploy-password", "its encryption context names another secret"),
        manager_unusable("corp-kms", "there is no secret aws-secret-key"),
        manager_refused(
            "corp-kms",
            "its endpoint https://kms.corp.example is not AWS's own, and is not in the setting oidc.endpoints",
        ),
    ];
    let whys = [
        Vanished::LeaseExpired,
        Vanished::Forgotten,
        Vanished::JournalLost,
        Vanished::Revoked,
        Vanished::HandedBackAfterStart,
        Vanished::NoOutcome,
    ];
    all.extend(whys.map(|why| vanished(why, "pod-7")));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_says_where_and_why() {
        for failure in catalogue() {
            for text in [&failure.stage, &failure.code, &failure.message, &failure.cause] {
                assert!(!text.is_empty(), "{failure:?}");
            }
            // Whoever cancelled knows what to do.
            assert!(!failure.remedy.is_empty() || failure.code == "task.cancelled", "{failure:?}");
        }
    }
}
