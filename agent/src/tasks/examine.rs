//! Diagnoses and posture checks: the doctor examines the task's host and the way to it, or how well it is hardened.
//!
//! It only looks, so the start is told and not journalled: a process that begins anew gives the task back as one that did not
//! start. The credential is tried once, and not at all when it is known to be wrong. Called by `execute`.

use std::time::Duration;

use lictor_doctor::{Finding, Outcome, Step, examine_unproved, posture};
use lictor_proto::v1::{Failure, PostureRow, PostureVerdict, Rung, RungOutcome, Suspect, TaskState};
use tokio::time::{Instant, timeout_at};

use super::Event;
use super::execute::{Report, Run, SLACK, stop, unstarted_stop, wire_duration};
use crate::failure::{self, StopCause, Verdict};
use crate::policy::Turn;

impl Run<'_> {
    /// Examines the host. What was found until the deadline, or until it was stopped, stays in the report.
    pub(super) async fn diagnose(&mut self, report: &mut Report) -> Result<TaskState, Verdict> {
        let access = self.whole_access(report).await?;
        let _turn = self.turn().await?;
        let (begun, deadline, sessions) = (Instant::now(), self.deadline(), &self.worker.sessions);
        let until = deadline.min(begun + LONGEST);
        // Then nobody logs in: neither to the host nor to a KDC.
        let known_wrong = sessions.check(&access.target).err();
        let subject = sessions.subject(access);
        let mut rungs = Vec::new();
        let examine = async {
            let tell = |step: &Step| rungs.push(rung(step));
            match known_wrong {
                None => sessions.examine(&subject, until, tell).await,
                Some(_) => examine_unproved(&subject, until, tell).await,
            }
        };
        let examined = tokio::select! {
            biased;
            // It cleans up after itself when it is dropped.
            cause = stop(&mut self.orders) => Err(cause),
            examined = timeout_at(until + SLACK, examine) => examined.map_err(|_| StopCause::Deadline),
        };
        report.run = Some(begun.elapsed());
        let late = Instant::now() >= deadline;
        let failed = rungs.iter().find(|rung| rung.outcome() == RungOutcome::Failed).cloned();
        let cut_short = examined.as_ref().err().map(|cause| interrupted(cause, &rungs, late));
        report.rungs = rungs;
        if let Some(verdict) = cut_short {
            return Err(verdict);
        }
        report.connection = examined.ok().and_then(|examined| examined.connection);
        if let Some(error) = known_wrong {
            return Err(failure::ladder(&error, late));
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
        let looked = tokio::select! {
            biased;
            cause = stop(&mut self.orders) => return Err(failure::stopped_before_start(&cause)),
            looked = timeout_at(until + SLACK, sessions.posture(&target, posture::Options { script }, until)) => looked,
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

/// How an examination ends that was stopped half-way. A drained agent gives the task back, unless the credential has been
/// refused: what it gives back tells nobody so, and the next agent would send it again.
fn interrupted(cause: &StopCause, rungs: &[Rung], late: bool) -> Verdict {
    let rejected = rungs.iter().find(|rung| {
        let code = rung.failure.as_ref().map(|failure| failure.code.as_str());
        rung.outcome() == RungOutcome::Failed && code.is_some_and(failure::rejects_credential)
    });
    match (cause, rejected) {
        (StopCause::Drained, Some(rung)) => failure::examined(rung.clone(), late),
        _ => failure::stopped_before_start(cause),
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

    use lictor_doctor::Check;

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

    #[test]
    fn a_refusal_that_is_known_is_not_given_back() {
        let rung = |outcome: RungOutcome, code: &str| Rung {
            stage: "authenticate".into(),
            outcome: outcome.into(),
            failure: Some(Failure { code: code.into(), ..Failure::default() }),
            ..Rung::default()
        };
        let refused = [rung(RungOutcome::Warning, "x.y"), rung(RungOutcome::Failed, "auth.rejected")];
        let Verdict::End(state, failure) = interrupted(&StopCause::Drained, &refused, false) else {
            panic!("it is given back")
        };
        assert_eq!((state, failure.code.as_str()), (TaskState::Failed, "auth.rejected"));
        for rungs in
            [&[rung(RungOutcome::Failed, "tls.failed")][..], &[rung(RungOutcome::Warning, "auth.rejected")], &[]]
        {
            assert!(matches!(interrupted(&StopCause::Drained, rungs, false), Verdict::HandBack(..)));
        }
        // The rungs go with the result.
        let ended = interrupted(&StopCause::Deadline, &refused, true);
        assert!(matches!(ended, Verdict::End(TaskState::TimedOut, _)));
    }
}
