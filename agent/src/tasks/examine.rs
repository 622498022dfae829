//! Diagnoses and posture checks: the doctor examines the task's host and the way to it, or how well it is hardened.
//!
//! It only looks, so the start is told and not journalled: a process that begins anew gives the task back as one that did not
//! start. The credential is tried once, and not at all when it is known to be wrong. Called by `execute`.

use std::time::Duration;

use lictor_doctor::{Check, Finding, Outcome, Report as Examined, Step, Subject, examine_unproved, posture};
use lictor_proto::v1::{Failure, PostureRow, PostureVerdict, Rung, RungOutcome, Suspect, TaskState};
use lictor_winrm::Error as WinrmError;
use lictor_winrm::pool::Trial;
use tokio::time::{Instant, timeout_at};

use super::Event;
use super::execute::{Report, Run, SLACK, stop, unstarted_stop, wire_duration};
use crate::failure::{self, StopCause, Verdict};
use crate::policy::Turn;
use crate::sessions::Sessions;

impl Run<'_> {
    /// Examines the host. What was found until the deadline, or until it was stopped, stays in the report.
    pub(super) async fn diagnose(&mut self, report: &mut Report) -> Result<TaskState, Verdict> {
        let access = self.whole_access(report).await?;
        let _turn = self.turn().await?;
        let (begun, deadline, sessions) = (Instant::now(), self.deadline(), &self.worker.sessions);
        let until = deadline.min(begun + LONGEST);
        let subject = sessions.subject(access);
        let mut rungs = Vec::new();
        let examined = tokio::select! {
            biased;
            // It cleans up after itself when it is dropped, and a drained agent gives the task back.
            cause = stop(&mut self.orders) => Err(cause),
            examined = timeout_at(until + SLACK, carefully(sessions, &subject, until, &mut rungs)) => {
                examined.map_err(|_| StopCause::Deadline)
            }
        };
        report.run = Some(begun.elapsed());
        let failed = rungs.iter().find(|rung| rung.outcome() == RungOutcome::Failed).cloned();
        report.rungs = rungs;
        let late = Instant::now() >= deadline;
        match examined {
            Err(cause) => return Err(failure::stopped_before_start(&cause)),
            Ok((examined, not_tried)) => {
                report.connection = examined.connection;
                if let Some(error) = not_tried {
                    return Err(failure::ladder(&error, late));
                }
            }
        }
        match failed {
            None => Ok(TaskState::Succeeded),
            Some(rung) => Err(failure::examined(rung, late)),
        }
    }

    /// Looks how well the host is hardened. It succeeds when it could look, whatever it found.
    pub(super) async fn check_posture(&mut self, script: bool, report: &mut Report) -> Result<TaskState, Verdict> {
        let target = self.access(report).await?;
        let _turn = self.turn().await?;
        let (begun, deadline, sessions) = (Instant::now(), self.deadline(), &self.worker.sessions);
        let until = deadline.min(begun + LONGEST);
        let look = async {
            let trial = sessions.trial(&target, until).await?;
            let found = posture::inspect(&target, posture::Options { script }, until).await;
            match &found {
                Ok(_) => trial.accepted(),
                Err(error) if failure::rejects_credential(error.code()) => trial.rejected(),
                Err(_) => {}
            }
            found
        };
        let looked = tokio::select! {
            biased;
            cause = stop(&mut self.orders) => return Err(failure::stopped_before_start(&cause)),
            looked = timeout_at(until + SLACK, look) => looked,
        };
        report.run = Some(begun.elapsed());
        match looked {
            Err(_) => Err(failure::stopped_before_start(&StopCause::Deadline)),
            Ok(Err(error)) => Err(failure::ladder(&error, Instant::now() >= deadline)),
            Ok(Ok(found)) => {
                report.posture_rows = found.rows.iter().take(MAX_ROWS).map(row).collect();
                Ok(TaskState::Succeeded)
            }
        }
    }

    /// Waits until the policy lets one more task work on the host, then tells that this one has started.
    async fn turn(&mut self) -> Result<Turn, Verdict> {
        let (deadline, sessions) = (self.deadline(), &self.worker.sessions);
        let turn = tokio::select! {
            biased;
            cause = unstarted_stop(&mut self.orders) => return Err(failure::stopped_before_start(&cause)),
            turn = timeout_at(deadline, sessions.turn(&self.task.plan)) => turn,
        };
        let Ok(turn) = turn else { return Err(failure::stopped_before_start(&StopCause::Deadline)) };
        self.worker.tell(Event::Started(self.task.key.clone())).await;
        Ok(turn)
    }
}

/// Examines without logging in when the credential is known to be wrong, which is the second part of the answer.
async fn carefully(
    sessions: &Sessions,
    subject: &Subject,
    until: Instant,
    rungs: &mut Vec<Rung>,
) -> (Examined, Option<WinrmError>) {
    let trial = match &subject.target {
        Some(target) => sessions.trial(target, until).await.map(Some),
        None => Ok(None),
    };
    let tell = |step: &Step| rungs.push(rung(step));
    match trial {
        Ok(trial) => {
            let examined = sessions.examine(subject, until, tell).await;
            if let Some(trial) = trial {
                judge(trial, &examined);
            }
            (examined, None)
        }
        Err(error) => (examine_unproved(subject, until, tell).await, Some(error)),
    }
}

/// Tells the pool what the host and the domain think of the credential, so that nobody tries a wrong one again.
fn judge(trial: Trial<'_>, examined: &Examined) {
    let rejected = |step: &Step| {
        let code = step.finding.as_ref().map(|finding| finding.code.as_ref());
        step.outcome == Outcome::Failed && code.is_some_and(failure::rejects_credential)
    };
    let taken =
        |step: &Step| step.check == Check::Authenticate && matches!(step.outcome, Outcome::Passed | Outcome::Warning);
    if examined.steps.iter().any(rejected) {
        trial.rejected();
    } else if examined.steps.iter().any(taken) {
        trial.accepted();
    }
}

fn rung(step: &Step) -> Rung {
    let stage = step.check.as_str();
    tracing::debug!(stage, outcome = ?step.outcome, elapsed = ?step.elapsed, "Step taken");
    let outcome = match step.outcome {
        Outcome::Passed => RungOutcome::Passed,
        Outcome::Warning => RungOutcome::Warning,
        Outcome::Failed => RungOutcome::Failed,
        Outcome::Unknown => RungOutcome::Unknown,
        Outcome::Skipped => RungOutcome::Skipped,
    };
    Rung {
        stage: stage.into(),
        outcome: outcome.into(),
        elapsed: Some(wire_duration(step.elapsed)),
        detail: clipped(&step.detail),
        failure: step.finding.as_ref().map(|finding| told(stage, finding)),
    }
}

fn told(stage: &str, finding: &Finding) -> Failure {
    let suspects = finding.suspects.iter().take(MAX_SUSPECTS).map(|suspect| Suspect {
        code: suspect.code.into(),
        cause: clipped(&suspect.cause),
        remedy: clipped(&suspect.remedy),
    });
    Failure {
        stage: stage.into(),
        code: clipped(&finding.code),
        message: clipped(&finding.message),
        cause: clipped(&finding.cause),
        remedy: clipped(&finding.remedy),
        legacy_text: finding.legacy_text.as_deref().map(clipped).unwrap_or_default(),
        may_have_started: false,
        suspects: suspects.collect(),
    }
}

fn row(row: &posture::Row) -> PostureRow {
    let verdict = match row.verdict {
        posture::Verdict::Pass => PostureVerdict::Pass,
        posture::Verdict::Fail => PostureVerdict::Fail,
        posture::Verdict::Unknown => PostureVerdict::Unknown,
    };
    PostureRow {
        check: row.check.into(),
        verdict: verdict.into(),
        found: clipped(&row.found),
        wanted: clipped(&row.wanted),
        fix: clipped(&row.fix),
    }
}

/// Hosts and KDCs have a hand in the texts, and the control plane keeps results of 256 KiB.
fn clipped(text: &str) -> String {
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default().to_owned()
}

/// Each step has a bound of its own; this one is for all of them, where a task has an hour.
const LONGEST: Duration = Duration::from_secs(5 * 60);
const MAX_TEXT: usize = 2 << 10;
const MAX_SUSPECTS: usize = 10;
const MAX_ROWS: usize = 100;

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    #[test]
    fn a_step_becomes_a_rung_within_bounds() {
        let long = "ä".repeat(MAX_TEXT);
        let suspect = lictor_doctor::Suspect { code: "auth.suspect", cause: long.clone(), remedy: "look".into() };
        let finding = Finding {
            code: Cow::Borrowed("auth.rejected"),
            message: long.clone(),
            cause: "cause".into(),
            remedy: "remedy".into(),
            legacy_text: Some("legacy".into()),
            suspects: vec![suspect; MAX_SUSPECTS + 1],
        };
        for (outcome, expected) in [
            (Outcome::Passed, RungOutcome::Passed),
            (Outcome::Warning, RungOutcome::Warning),
            (Outcome::Failed, RungOutcome::Failed),
            (Outcome::Unknown, RungOutcome::Unknown),
            (Outcome::Skipped, RungOutcome::Skipped),
        ] {
            let step = Step {
                check: Check::Authenticate,
                outcome,
                elapsed: Duration::from_millis(5),
                detail: long.clone(),
                finding: Some(finding.clone()),
            };
            let rung = rung(&step);
            assert_eq!((rung.stage.as_str(), rung.outcome()), ("authenticate", expected));
            let failure = rung.failure.unwrap();
            assert_eq!((failure.stage.as_str(), failure.code.as_str()), ("authenticate", "auth.rejected"));
            assert_eq!((failure.legacy_text.as_str(), failure.may_have_started), ("legacy", false));
            assert_eq!(failure.suspects.len(), MAX_SUSPECTS);
            let texts = [&rung.detail, &failure.message, &failure.suspects.first().unwrap().cause];
            assert!(texts.iter().all(|text| (1..=MAX_TEXT).contains(&text.len())));
        }
    }
}
