//! Commands that an earlier process of this agent started: followed to their end, or ended.
//!
//! INVARIANT: nothing here starts a command. What cannot be followed is Unknown, and says why. The output counts as
//! incomplete: nobody can tell which of its pieces died with the process. Called through `execute`.

use std::sync::Arc;

use lictor_proto::v1::TaskState;
use lictor_winrm::mask::Patterns;
use lictor_winrm::output::{Refinement, Refiner};
use lictor_winrm::pool::{self, Lease, Patience, Stopped};
use lictor_winrm::target::Secret;
use lictor_winrm::{Error as WinrmError, ErrorKind, Stage};
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::execute::{Report, Run, STOP_GRACE, STOP_LIMIT, stop};
use super::journal::Record;
use super::spans;
use super::task::Followed;
use crate::failure::{self, StopCause, Verdict};
use crate::sessions::Access;

impl Run<'_> {
    /// Follows the command to its end. Never hands back.
    pub(super) async fn follow(&mut self, followed: &Followed, report: &mut Report) -> Result<TaskState, Verdict> {
        report.output_gap = true;
        let host = followed.start.host.as_str();
        let verdict = self.follow_anyhow(followed, report).await;
        report.output_gap = true;
        match verdict {
            Err(Verdict::HandBack(_, failure)) => {
                let (state, failure) = failure::not_followed(host, &followed.start.command_id, &failure.message);
                Err(Verdict::End(state, failure))
            }
            verdict => verdict,
        }
    }

    async fn follow_anyhow(&mut self, followed: &Followed, report: &mut Report) -> Result<TaskState, Verdict> {
        let start = &followed.start;
        let host = start.host.as_str();
        let Some(place) = start.place() else {
            return Err(lost(start, "the journal does not say where its command runs"));
        };
        // Before anything is received that goes where the offsets say.
        let record = Record::Started(Box::new(start.clone()));
        if let Err(error) = self.worker.journal.put(&self.task.key, &record).await {
            tracing::warn!(error = %failure::chain(&error), "How output goes on after a restart is not journalled");
        }
        self.log.announce();
        // The command runs, whatever keeps the agent from it: such an end is no more than unknown.
        let access = self.whole_access(report).await.map_err(|verdict| lost(start, &words(verdict)))?;
        let Access { target, masks, .. } = access;
        let secrets = Arc::new(Patterns::new(target.credential.secret().into_iter().chain(&masks).map(Secret::expose)));
        drop(masks);
        // A place is waited for longer than others wait, for the command holds what they wait for as well.
        let until = followed.deadline.max(Instant::now() + PATIENCE);
        let (plan, sessions) = (&self.task.plan, &self.worker.sessions);
        let attach = async {
            let turn = sessions.turn(plan).await;
            (turn, sessions.attach(target, place, until).await)
        };
        let (leased, ordered) = self.unless_stopped(attach.instrument(spans::lease())).await;
        let (_turn, mut lease) = match leased {
            Some((turn, Ok(lease))) => (turn, lease),
            Some((_, Err(error))) => return Err(failure::not_followed_on_host(host, &error)),
            None => return Err(lost(start, "no place for a session was free while it was to be stopped")),
        };
        report.lease = Some(self.accepted.elapsed());
        let begun = Instant::now();
        let refinement = Refinement { raw_stderr: followed.raw_stderr, outputs: followed.outputs.clone(), secrets };
        let mut refiner = Refiner::resumed(refinement);
        let verdict = match self.found(&mut lease, ordered).await {
            Ok((running, _)) if !start.input_sent => Err(cut(host, running).await),
            Ok((running, ordered)) => {
                tracing::info!(
                    host,
                    command_id = start.command_id,
                    "Following a command of the process before this one"
                );
                self.attend(running, ordered, &mut refiner, report).instrument(spans::run()).await
            }
            Err((error, ordered)) => Err(match ordered {
                Some(cause) => failure::not_stopped(&cause, &error),
                None => failure::not_followed_on_host(host, &error),
            }),
        };
        let verdict = self.refined(refiner, self.deadline(), verdict, report).await;
        report.run = Some(begun.elapsed());
        report.connection = Some(lease.connection());
        report.session = Some(lease);
        verdict
    }

    /// Finds the command. A host that cannot be reached is tried for a while; an order to stop ends that.
    async fn found<'l>(
        &mut self,
        lease: &'l mut Lease,
        ordered: Option<StopCause>,
    ) -> Result<(pool::Running<'l>, Option<StopCause>), (WinrmError, Option<StopCause>)> {
        let given_up = CancellationToken::new();
        let patience = Patience { until: Instant::now() + PATIENCE, given_up: given_up.clone() };
        let follow = lease.follow(patience);
        tokio::pin!(follow);
        let (found, ordered) = match ordered {
            Some(cause) => {
                given_up.cancel();
                (follow.await, Some(cause))
            }
            None => tokio::select! {
                biased;
                cause = stop(&mut self.orders) => {
                    given_up.cancel();
                    (follow.await, Some(cause))
                }
                found = &mut follow => (found, None),
            },
        };
        match found {
            Ok(running) => Ok((running, ordered)),
            Err(error) => Err((error, ordered)),
        }
    }

    /// Waits for `work`; once the task is to be stopped not for long. Says what ordered that.
    async fn unless_stopped<T>(&mut self, work: impl Future<Output = T>) -> (Option<T>, Option<StopCause>) {
        tokio::pin!(work);
        let cause = tokio::select! {
            biased;
            done = &mut work => return (Some(done), None),
            cause = stop(&mut self.orders) => cause,
        };
        let until = Instant::now() + STOP_LIMIT;
        tokio::select! {
            biased;
            done = &mut work => (Some(done), Some(cause)),
            () = sleep_until(until) => (None, Some(cause)),
        }
    }
}

/// Ends a command of whose input the rest died with the process.
async fn cut(host: &str, running: pool::Running<'_>) -> Verdict {
    match timeout(STOP_LIMIT, running.stop(STOP_GRACE)).await {
        Ok(Stopped::Confirmed { .. }) => failure::input_cut(host, Ok(())),
        Ok(Stopped::Unconfirmed(error)) => failure::input_cut(host, Err(&error)),
        Err(_) => failure::input_cut(host, Err(&WinrmError::new(Stage::Close, ErrorKind::DeadlinePassed))),
    }
}

fn words(verdict: Verdict) -> String {
    match verdict {
        Verdict::End(_, failure) | Verdict::HandBack(_, failure) => failure.message,
    }
}

fn lost(start: &super::journal::Start, why: &str) -> Verdict {
    let (state, failure) = failure::not_followed(&start.host, &start.command_id, why);
    Verdict::End(state, failure)
}

/// How long a host is tried that cannot be reached. A machine that starts anew takes about as long.
const PATIENCE: Duration = Duration::from_secs(120);
