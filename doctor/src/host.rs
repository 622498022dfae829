//! The host: port, HTTP, TLS, WS-Management, authentication, shell.

use lictor_winrm::Stage;
use lictor_winrm::pool::{ConnectionInfo, Pool};
use lictor_winrm::probe::{Rung, RungOutcome, probe};
use tokio::time::Instant;

use crate::check::Check;
use crate::examine::Subject;
use crate::finding::Finding;
use crate::step::{Outcome, Steps};

/// Returns the connection, when there was one. With `refused` the credential is not tried.
pub(crate) async fn look(
    subject: &Subject,
    pool: Option<&Pool>,
    refused: bool,
    deadline: Instant,
    steps: &mut Steps<'_>,
) -> Option<ConnectionInfo> {
    let target = subject.target.as_ref()?;
    if refused {
        steps.skipped(Check::Authenticate, "the KDC refused the credential; it is not tried again");
        return None;
    }
    let tell = |rung: &Rung| note(rung, steps);
    let report = match pool {
        Some(pool) => pool.probe(target, deadline, tell).await,
        None => probe(target, deadline, tell).await,
    };
    report.connection
}

fn note(rung: &Rung, steps: &mut Steps<'_>) {
    let Some(check) = check(rung.stage) else { return };
    let outcome = match &rung.outcome {
        RungOutcome::Failed(_) => Outcome::Failed,
        _ => Outcome::Passed,
    };
    // The name was looked up before, and more thoroughly; only what is news here is told.
    if check == Check::Resolve && (steps.has(check, outcome) || steps.has(check, Outcome::Warning)) {
        return;
    }
    match &rung.outcome {
        RungOutcome::Passed => steps.passed(check, &rung.detail),
        RungOutcome::Warning => steps.warn(check, &rung.detail, None),
        RungOutcome::Failed(error) => steps.failed(check, &rung.detail, Finding::from(error)),
        RungOutcome::Skipped => steps.skipped(check, &rung.detail),
    }
}

fn check(stage: Stage) -> Option<Check> {
    Some(match stage {
        Stage::Resolve => Check::Resolve,
        Stage::Connect => Check::Connect,
        Stage::Tls => Check::Tls,
        Stage::Identify => Check::Identify,
        Stage::Authenticate => Check::Authenticate,
        Stage::OpenShell => Check::OpenShell,
        Stage::Run => Check::Run,
        Stage::Close => Check::Close,
        Stage::Receive => return None,
    })
}
