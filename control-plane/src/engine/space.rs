//! What the engine does when the disk is full: it takes back the turn, says no to everybody, and waits.
//!
//! INVARIANT: nothing of a turn that could not be stored was told to anybody. Agents are sent away and keep what they
//! hold; leases stand still, because everything is taken up anew from the database once it can be written, as after a
//! restart. Errors of other kinds still stop the control plane.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lictor_proto::v1::GoodbyeReason;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::access::open_chain;
use super::keys::Keeping;
use super::{Command, Engine, Refusal};
use crate::clock::Now;
use crate::dispatch::{Ledger, Settings, goodbye};
use crate::store::{self, StoreError, Writer, retention};
use crate::vault::Vault;

use super::deliveries::known_secrets;

/// Takes up what the database holds.
pub(crate) async fn load_ledger(
    writer: &mut Writer,
    vault: &Vault,
    settings: Settings,
    now: Now,
) -> Result<Ledger, StoreError> {
    let agents = store::fleet::agents(writer).await?;
    let tasks = store::tasks::live(writer).await?;
    let batches = store::batches::live(writer).await?;
    let mut credentials = HashMap::new();
    for (name, state, key_id) in store::credentials::states(writer).await? {
        // Without a key's id the secret is not the credential's own.
        if !key_id.is_empty() && !vault.keyring().has(&key_id) {
            warn!(credential = name, key_id, "Credential was stored with another master key and cannot be used");
        }
        credentials.insert(name, state);
    }
    // Tasks do not wait while the control plane is off or its clock jumps: the calendar stood where it was written last.
    let stored = retention::calendar(writer).await?;
    let now = Now { wall: stored.map_or(now.wall, |stored| stored.min(now.wall)), ..now };
    let mut ledger = Ledger::new(settings, agents, tasks, batches, credentials, now);
    ledger.know(known_secrets(writer).await?);
    Ok(ledger)
}

impl Engine {
    /// The turn failed for want of space. Returns once there is some, or when the control plane is to stop.
    pub(super) async fn wait_for_space(
        &mut self,
        failed: StoreError,
        stop: &CancellationToken,
    ) -> Result<(), StoreError> {
        error!(error = %crate::app::chain(&failed), "The disk is full: nothing is accepted until there is space");
        self.parts.metrics.storage_full(true);
        self.full.store(true, Ordering::Release);
        self.take_back().await?;
        // Not a sleep of each round: callers that try again and again must not put the look off for ever.
        let mut looks = tokio::time::interval_at(tokio::time::Instant::now() + PROBE_PAUSE, PROBE_PAUSE);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                _ = looks.tick() => match self.probe().await {
                    Ok(()) => break,
                    Err(error) if error.is_out_of_space() => self.roll_back().await,
                    Err(error) => return Err(error),
                },
                command = self.commands.recv() => match command {
                    Some(command) => self.refuse(command),
                    None => return Ok(()),
                },
            }
        }
        self.take_back().await?;
        self.full.store(false, Ordering::Release);
        self.parts.metrics.storage_full(false);
        info!("There is space again: tasks and agents are taken");
        Ok(())
    }

    /// Forgets what was not stored and everything that was to be said of it.
    async fn take_back(&mut self) -> Result<(), StoreError> {
        self.roll_back().await;
        self.outgoing.clear();
        // Whoever waits for an answer learns from the flag why there is none.
        self.replies.clear();
        self.touched.clear();
        self.fetching.forget_parked();
        (self.users_changed, self.audited) = (false, None);
        // Records that were on their way to another master key are where they were.
        self.keys = Keeping::new(Now::read());
        self.parts.chain = open_chain(&mut self.parts.writer).await?;
        for (_, outbox) in self.sessions.drain() {
            outbox.close(goodbye(GoodbyeReason::Shutdown, FULL));
        }
        let now = Now::read();
        let parts = &mut self.parts;
        parts.ledger = load_ledger(&mut parts.writer, &parts.vault, parts.settings, now).await?;
        self.resume_housekeeping(now).await?;
        self.forget_unstored_sealings();
        self.resume_tests(now).await
    }

    async fn roll_back(&mut self) {
        self.in_transaction = false;
        // Fails when SQLite has rolled back by itself.
        let _ = sqlx::query("ROLLBACK").execute(&mut *self.parts.writer).await;
    }

    /// Removes what retention lets go, which may be what makes room, and tries to write.
    async fn probe(&mut self) -> Result<(), StoreError> {
        let now = Now::read();
        self.housekeeping.next = now.instant;
        self.keep_house(now).await?;
        retention::try_room(self.database().await?).await?;
        self.in_transaction = false;
        sqlx::query("COMMIT").execute(&mut *self.parts.writer).await?;
        Ok(())
    }

    pub(super) fn refuse(&mut self, command: Command) {
        fn no<T>(reply: super::Reply<T>) {
            // A caller that has gone away needs no answer.
            let _ = reply.send(Err(Refusal::Exhausted(FULL.into())));
        }
        match command {
            Command::Candidates { task_id, reply } => {
                let _ = reply.send(Ok(self.parts.ledger.candidates(&task_id)));
            }
            Command::Agents { reply } => {
                let _ = reply.send(Ok(self.parts.ledger.agent_views()));
            }
            Command::Submit { reply, .. } | Command::SubmitBatch { reply, .. } => no(reply),
            Command::PrepareSecret { reply, .. } => no(reply),
            Command::PutSealed { reply, .. } => no(reply),
            Command::TestManager { reply, .. } => no(reply),
            // Who waited for it is told by its end, or is taken up anew.
            Command::Fetched(fetched) => self.fetching.drop_answer(fetched.ticket),
            Command::WhoAmI { reply, .. } => no(reply),
            Command::CreateUser { reply, .. } | Command::SetUser { reply, .. } => no(reply),
            Command::IssueToken { reply, .. } | Command::RevokeToken { reply, .. } => no(reply),
            Command::NoteExport { reply, .. } => no(reply),
            // It is in the metrics and the log.
            Command::NoteAccess { .. } => {}
            Command::Cancel { reply, .. }
            | Command::CancelBatch { reply, .. }
            | Command::DeleteCredential { reply, .. } => no(reply),
            Command::DrainAgent { reply, .. } | Command::RevokeAgent { reply, .. } => no(reply),
            Command::CreateJoinToken { reply, .. } | Command::RevokeJoinToken { reply, .. } => no(reply),
            Command::Enroll { reply, .. } => no(reply),
            Command::Renew { reply, .. } => no(reply),
            Command::PutCredential { reply, .. } => no(reply),
            Command::PutSecret { reply, .. } => no(reply),
            Command::PutSecretManager { reply, .. } => no(reply),
            Command::DeleteSecret { reply, .. }
            | Command::DeleteSecretManager { reply, .. }
            | Command::ReplaceKeys { reply, .. } => no(reply),
            Command::Open { outbox, .. } => outbox.close(goodbye(GoodbyeReason::Shutdown, FULL)),
            Command::Report { reply, outbox, .. } => {
                outbox.end();
                no(reply);
            }
            Command::Events { .. } | Command::Closed { .. } => {}
        }
    }
}

/// What callers are told.
pub(super) const FULL: &str = "the control plane's disk is full and nothing can be stored; free space for its state \
                               directory, or lower retention.output_bytes, and try again";
const PROBE_PAUSE: Duration = Duration::from_secs(2);
