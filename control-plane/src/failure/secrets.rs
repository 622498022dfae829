//! Failures of what keeps secrets from agents, and of what agents make of them.

use lictor_proto::v1::Failure;

/// A secret was deleted while the task waited.
pub(crate) fn secret_deleted(identifier: &str) -> Failure {
    Failure {
        stage: STAGE.into(),
        code: "secret.deleted".into(),
        message: format!("the secret {identifier} was deleted while the task waited for an agent"),
        cause: "Somebody deleted the secret.".into(),
        remedy: "Store the secret again, or name another one, then submit the task again.".into(),
        ..Failure::default()
    }
}

/// A secret cannot be handed over.
pub(crate) fn secret_unusable(identifier: &str, reason: &str) -> Failure {
    Failure {
        stage: STAGE.into(),
        code: "secret.unusable".into(),
        message: format!("the secret {identifier} could not be handed to the agent: {reason}"),
        cause: "The secret was moved to another scope or changed its kind, or what is stored of it does not decrypt with the \
                control plane's master keys."
            .into(),
        remedy: format!(
            "Look at the secret with `lictor secret show {identifier}`; start the control plane with the master key that it was \
             stored with, or store it again with `lictor secret put {identifier}`."
        ),
        ..Failure::default()
    }
}

/// The way to a secret manager cannot be handed over.
pub(crate) fn manager_unusable(identifier: &str, reason: &str) -> Failure {
    Failure {
        stage: STAGE.into(),
        code: "secret_manager.unusable".into(),
        message: format!("the secret manager {identifier} cannot be used: {reason}"),
        cause: "A secret that it authenticates with is gone, or not in the built-in store, or does not decrypt; or the control \
                plane's settings issue no token for it, or not for its endpoint; or the secret manager itself was deleted."
            .into(),
        remedy: format!(
            "Look at the secret manager with `lictor secret-manager show {identifier}`, put right what it refers to, and try it \
             with `lictor secret-manager test {identifier}`."
        ),
        ..Failure::default()
    }
}

/// The control plane itself may not use the secret manager.
pub(crate) fn manager_refused(identifier: &str, reason: &str) -> Failure {
    Failure {
        stage: STAGE.into(),
        code: "secret_manager.refused".into(),
        message: format!("the control plane does not use the secret manager {identifier}: {reason}"),
        cause: "The secret manager asks for more than the control plane's settings permit.".into(),
        remedy: "Let it use OpenID Connect, and put endpoints that are not AWS's own into the setting oidc.endpoints; or let agents \
                 use it, with the connectivity `agent`."
            .into(),
        ..Failure::default()
    }
}

/// More secrets than one task may have.
pub(crate) fn secrets_too_large(bytes: usize, most: usize) -> Failure {
    Failure {
        stage: STAGE.into(),
        code: "secret.too_large".into(),
        message: format!("the task's secrets take {bytes} bytes together, and {most} are the most"),
        cause: "The task names many large secrets.".into(),
        remedy: "Name fewer secrets in one task.".into(),
        ..Failure::default()
    }
}

/// The control plane, which reaches a secret manager itself, got no answer in time.
pub(crate) fn secret_not_fetched(manager: &str, seconds: u64) -> Failure {
    Failure {
        stage: STAGE.into(),
        code: "secret.not_fetched".into(),
        message: format!("the secret manager {manager} did not answer within {seconds} s"),
        cause: "The network between the control plane and AWS is slow or down, or AWS throttles.".into(),
        remedy: format!(
            "Look with `lictor secret-manager test {manager}` what keeps it. Tasks wait for it while they may; submit those again that were rejected."
        ),
        ..Failure::default()
    }
}

/// An agent sealed a value, and another version was stored meanwhile.
pub(crate) fn secret_superseded(identifier: &str, version: u64) -> Failure {
    Failure {
        stage: STAGE.into(),
        code: "secret.superseded".into(),
        message: format!("version {version} of the secret {identifier} was not stored: it was changed meanwhile"),
        cause: "Somebody else stored, moved or deleted the secret at the same time.".into(),
        remedy: format!(
            "Look at it with `lictor secret show {identifier}`, and store yours again if it is still to be."
        ),
        ..Failure::default()
    }
}

/// What was sealed is not taken any more.
pub(crate) fn secret_refused(identifier: &str, reason: &str) -> Failure {
    Failure {
        stage: STAGE.into(),
        code: "secret.refused".into(),
        message: format!("the secret {identifier} was not stored: {reason}"),
        cause: "The secret or its secret manager was changed while the value was encrypted.".into(),
        remedy: format!("Look at it with `lictor secret show {identifier}`, and store yours again."),
        ..Failure::default()
    }
}

/// An agent answered with something else than what it was to seal.
pub(crate) fn bad_record(identifier: &str, reason: &str) -> Failure {
    Failure {
        stage: STAGE.into(),
        code: "secret.bad_record".into(),
        message: format!("what the agent made of the secret {identifier} was not stored: {reason}"),
        cause: "The agent has a defect, or is not what it says it is.".into(),
        remedy: "Look at the agent and its version; store the secret again, through another agent if need be.".into(),
        ..Failure::default()
    }
}

const STAGE: &str = "control_plane";
