//! The test of a way to KMS: whose identity, may it write, may it read. Each is told by itself, since an agent may be allowed to
//! decrypt only.

use std::time::Duration;

use lictor_proto::v1::KmsRecord;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use crate::access::{Access, Credentials};
use crate::context::Context;
use crate::error::sentences::{self, Action};
use crate::error::{Error, Kind, Stage};
use crate::kms::{Calls, Generated, Kms, check};

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Passed,
    /// Not as it should be, and good enough.
    Warning,
    /// It cannot work so.
    Failed,
    /// Not looked at; the detail says why.
    Skipped,
}

/// One step of the test.
#[derive(Debug, Clone)]
pub struct Step {
    /// `Identity`, `Write` or `Read`.
    pub stage: Stage,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took.
    pub elapsed: Duration,
    /// What was seen, in a sentence.
    pub detail: String,
    /// What was wrong, unless it passed or was skipped.
    pub error: Option<Error>,
}

/// All steps.
#[derive(Debug, Clone)]
pub struct Report {
    /// In order: identity, write, read.
    pub steps: Vec<Step>,
}

impl Report {
    /// True when no step failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.steps.iter().all(|step| step.outcome != Outcome::Failed)
    }
}

impl Kms {
    /// Tests a way to KMS. Each step is told when it is done.
    pub async fn test(&self, access: &Access, deadline: Instant, told: impl FnMut(&Step) + Send) -> Report {
        self.test_with(access, None, deadline, told).await
    }

    /// The same, with a stored record to read for those who may not write.
    pub async fn test_with(
        &self,
        access: &Access,
        stored: Option<(&KmsRecord, &Context)>,
        deadline: Instant,
        mut told: impl FnMut(&Step) + Send,
    ) -> Report {
        let mut steps = Vec::new();
        let mut tell = |step: Step| {
            told(&step);
            steps.push(step);
        };
        let calls = self.calls();
        let identity = identity(calls, access, deadline).await;
        let known = identity.outcome != Outcome::Failed;
        tell(identity);
        if !known {
            for stage in [Stage::Write, Stage::Read] {
                tell(skipped(stage, "Without an identity there is nothing to try."));
            }
            return Report { steps };
        }

        let (mut write, generated) = write(calls, access, deadline).await;
        let read = match (&generated, stored) {
            (Some(generated), _) => read_own(calls, access, generated, deadline).await,
            (None, Some((record, context))) => read_stored(calls, access, record, context, deadline).await,
            (None, None) => skipped(
                Stage::Read,
                "There is nothing to decrypt: this identity writes nothing, and no secret of this secret manager was given.",
            ),
        };
        // Whoever may decrypt only can do what agents are for.
        if write.outcome == Outcome::Failed
            && matches!(read.outcome, Outcome::Passed | Outcome::Warning)
            && write.error.as_ref().is_some_and(|error| error.kind() == Kind::Denied)
        {
            write.outcome = Outcome::Warning;
            write.detail =
                "This identity may read and not write: secrets must be written through another agent.".to_owned();
        }
        tell(write);
        tell(read);
        Report { steps }
    }
}

async fn identity(calls: &Calls, access: &Access, deadline: Instant) -> Step {
    let began = Instant::now();
    let asked =
        calls.call(access, Action::CallerIdentity, deadline, |session| session.sts.get_caller_identity().send()).await;
    match asked {
        Ok(whose) => {
            let session = calls.identities.session(access, deadline).await;
            let source = session.map_or_else(|_| String::new(), |session| format!(", by {}", session.source));
            let mut detail = format!(
                "{} in account {}, user id {}{source}",
                whose.arn().unwrap_or("?"),
                whose.account().unwrap_or("?"),
                whose.user_id().unwrap_or("?"),
            );
            if matches!(access.credentials, Credentials::AssumeRole { .. })
                && let Ok(base) = calls.identities.base(access, deadline).await
                && let Ok(Ok(base)) = timeout_at(deadline, base.sts.get_caller_identity().send()).await
            {
                detail.push_str(&format!(" as {}", base.arn().unwrap_or("?")));
            }
            detail.push('.');
            step(Stage::Identity, Outcome::Passed, began, sentences::clean(&detail), None)
        }
        Err(error) => {
            // KMS may be in reach where STS is not, and may take what STS did not say anything about.
            let fatal = error.kind() == Kind::Identity || calls.identities.session(access, deadline).await.is_err();
            let outcome = if fatal { Outcome::Failed } else { Outcome::Warning };
            let detail = if fatal {
                "AWS does not say who this is."
            } else {
                "STS does not say who this is; KMS is asked all the same."
            };
            step(Stage::Identity, outcome, began, detail, Some(error))
        }
    }
}

async fn write(calls: &Calls, access: &Access, deadline: Instant) -> (Step, Option<Generated>) {
    let began = Instant::now();
    let context = right();
    let generated = match calls.generate(access, &context, deadline).await {
        Ok(generated) => generated,
        Err(error) => {
            let detail = format!("{} failed.", Action::GenerateDataKey.name());
            return (step(Stage::Write, Outcome::Failed, began, detail, Some(error)), None);
        }
    };
    let marker = Zeroizing::new(rand::random::<[u8; 32]>());
    let written = match calls.encrypt(access, &context, &*marker, deadline).await {
        Ok(_) => {
            let detail = format!("GenerateDataKey and Encrypt pass with {}.", generated.key_arn);
            step(Stage::Write, Outcome::Passed, began, detail, None)
        }
        Err(error) => {
            let detail = "GenerateDataKey passes, which is all that writing secrets needs; Encrypt fails.";
            step(Stage::Write, Outcome::Warning, began, detail, Some(error))
        }
    };
    (written, Some(generated))
}

async fn read_own(calls: &Calls, access: &Access, generated: &Generated, deadline: Instant) -> Step {
    let began = Instant::now();
    let (arn, wrapped) = (&generated.key_arn, &generated.wrapped);
    match calls.decrypt(access, arn, wrapped.clone(), &right(), deadline).await {
        Err(error) => step(Stage::Read, Outcome::Failed, began, "Decrypt failed.", Some(error)),
        Ok(key) if *key != *generated.key => {
            step(Stage::Read, Outcome::Failed, began, "Decrypt gave something else.", Some(sentences::mismatch()))
        }
        Ok(_) => wrong_context(calls, access, arn, wrapped, began, deadline).await,
    }
}

async fn read_stored(calls: &Calls, access: &Access, record: &KmsRecord, context: &Context, deadline: Instant) -> Step {
    let began = Instant::now();
    let opened = match check(access, record, context) {
        Ok(()) => calls.decrypt(access, &record.key_arn, record.wrapped_key.clone(), context, deadline).await,
        Err(error) => Err(error),
    };
    match opened.and_then(|key| crate::envelope::decrypt(&key, record, context)) {
        Err(error) => step(Stage::Read, Outcome::Failed, began, "A stored secret cannot be opened.", Some(error)),
        Ok(_) => wrong_context(calls, access, &record.key_arn, &record.wrapped_key, began, deadline).await,
    }
}

/// KMS must refuse a wrong context: else moving a record in the database would go unseen.
async fn wrong_context(
    calls: &Calls,
    access: &Access,
    arn: &str,
    wrapped: &[u8],
    began: Instant,
    deadline: Instant,
) -> Step {
    match calls.decrypt(access, arn, wrapped.to_vec(), &wrong(), deadline).await {
        Ok(_) => {
            let error = Some(sentences::context_not_checked());
            step(Stage::Read, Outcome::Failed, began, "Decrypt passes with a wrong context, too.", error)
        }
        // Refused by KMS itself, or by a policy with a condition on the context.
        Err(error) if matches!(error.kind(), Kind::Record | Kind::Denied) => {
            let detail = "Decrypt gives back what was encrypted, and is refused with a wrong context.";
            step(Stage::Read, Outcome::Passed, began, detail, None)
        }
        Err(error) => {
            let detail =
                "Decrypt gives back what was encrypted; whether a wrong context is refused was not to be seen.";
            step(Stage::Read, Outcome::Warning, began, detail, Some(error))
        }
    }
}

/// Secrets have versions from 1, so this is none of them; the keys are theirs, so that conditions of policies fit.
fn right() -> Context {
    Context::new("", "test", 0)
}

fn wrong() -> Context {
    Context::new("", "wrong", 0)
}

fn step(stage: Stage, outcome: Outcome, began: Instant, detail: impl Into<String>, error: Option<Error>) -> Step {
    Step { stage, outcome, elapsed: began.elapsed(), detail: detail.into(), error }
}

fn skipped(stage: Stage, why: &str) -> Step {
    Step { stage, outcome: Outcome::Skipped, elapsed: Duration::ZERO, detail: why.to_owned(), error: None }
}

#[cfg(test)]
pub(crate) mod tests {
    use lictor_proto::v1::{AwsMachineRole, KmsAccess, kms_access};

    use super::*;

    pub(crate) fn machine() -> Access {
        Access::parse(KmsAccess {
            key: "arn:aws:kms:eu-central-1:111122223333:alias/lictor".to_owned(),
            credentials: Some(kms_access::Credentials::MachineRole(AwsMachineRole {})),
            ..KmsAccess::default()
        })
        .unwrap()
    }

    #[test]
    fn a_report_passes_unless_a_step_failed() {
        let report = |outcome| Report { steps: vec![step(Stage::Read, outcome, Instant::now(), "", None)] };
        assert!(report(Outcome::Warning).passed() && report(Outcome::Skipped).passed());
        assert!(!report(Outcome::Failed).passed());
    }
}
