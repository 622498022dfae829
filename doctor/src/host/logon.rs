//! Identify, and the one authenticated connection: logon, shell, command, profile.

use std::time::Duration;

use lictor_winrm::pool::{ConnectionInfo, Pool};
use lictor_winrm::probe::{self, Identified, Rung, RungOutcome};
use lictor_winrm::target::Scheme;
use lictor_winrm::{Error, Stage, Target};
use tokio::time::Instant;

use super::{Seen, by, profile, suspects};
use crate::check::Check;
use crate::finding::Finding;
use crate::step::{Outcome, Steps};

/// Starting PowerShell takes seconds on a busy host.
const EACH: Duration = Duration::from_secs(30);

pub(super) async fn identify(target: &Target, deadline: Instant, seen: &mut Seen, steps: &mut Steps<'_>) {
    if seen.stop.is_some() && target.endpoint.scheme() == Scheme::Https {
        return steps.skipped(Check::Identify, "it is asked over a connection that can be trusted");
    }
    match probe::identify(target, by(target, deadline)).await {
        Ok(Identified::As { vendor, version }) => steps.passed(Check::Identify, format!("{vendor}, {version}")),
        Ok(Identified::Withheld) => {
            // Windows does so with some settings; nothing is wrong.
            steps.passed(Check::Identify, "the host does not identify itself before authentication");
        }
        // Settings that contradict each other: told when they are needed.
        Err(error) if error.stage() == Stage::Authenticate => {
            steps.skipped(Check::Identify, "the settings cannot be used");
        }
        Err(error) => {
            seen.stop.get_or_insert("what answers is no WinRM service");
            steps.failed(Check::Identify, "", Finding::from(&error));
        }
    }
}

/// Climbs from the logon on.
pub(super) async fn climb(
    target: &Target,
    pool: Option<&Pool>,
    deadline: Instant,
    seen: &Seen,
    steps: &mut Steps<'_>,
) -> Option<ConnectionInfo> {
    let scripts = profile::scripts();
    let mut climb = Climb { target, seen, failed: false, close: None };
    let tell = |rung: &Rung| climb.rung(rung, steps);
    let (report, ran) = match pool {
        Some(pool) => pool.probe_running(target, &scripts, EACH, deadline, tell).await,
        None => probe::probe_running(target, &scripts, EACH, deadline, tell).await,
    };
    let took = profile::judge(&ran, climb.failed, steps);
    if let Some((outcome, elapsed, detail, finding)) = climb.close {
        steps.add_timed(Check::Close, outcome, elapsed.saturating_sub(took), detail, finding);
    }
    report.connection
}

type Told = (Outcome, Duration, String, Option<Finding>);

struct Climb<'a> {
    target: &'a Target,
    seen: &'a Seen,
    failed: bool,
    /// Told after the profile, which is looked at before.
    close: Option<Told>,
}

impl Climb<'_> {
    fn rung(&mut self, rung: &Rung, steps: &mut Steps<'_>) {
        let check = match rung.stage {
            // What was looked at before; if it does not hold any more, the logon suffers.
            Stage::Resolve | Stage::Connect | Stage::Tls | Stage::Identify => match &rung.outcome {
                RungOutcome::Failed(_) => Check::Authenticate,
                _ => return,
            },
            Stage::Authenticate if self.failed => return,
            Stage::Authenticate => Check::Authenticate,
            Stage::OpenShell => Check::OpenShell,
            Stage::Run => Check::Run,
            Stage::Close => Check::Close,
            Stage::Receive => return,
        };
        let detail = rung.detail.clone();
        let (outcome, finding) = match &rung.outcome {
            RungOutcome::Passed => (Outcome::Passed, None),
            RungOutcome::Warning => (Outcome::Warning, None),
            RungOutcome::Skipped => (Outcome::Skipped, None),
            RungOutcome::Failed(error) => {
                self.failed = true;
                (Outcome::Failed, Some(self.finding(error, steps)))
            }
        };
        if check == Check::Close {
            self.close = Some((outcome, rung.elapsed, detail, finding));
        } else {
            steps.add_timed(check, outcome, rung.elapsed, detail, finding);
        }
    }

    fn finding(&self, error: &Error, steps: &Steps<'_>) -> Finding {
        let mut finding = Finding::from(error);
        finding.suspects = suspects::of(error, self.target, self.seen, steps);
        finding
    }
}
