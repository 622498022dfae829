//! The one writer: takes commands in groups, lets the ledger decide, stores the outcome in one transaction, and only
//! then answers and sends.
//!
//! INVARIANT: nothing that an agent or a user was told is lost by a crash. While the disk is full, nothing is accepted. A
//! database that cannot be used for another reason stops the control plane; agents and their commands go on and
//! reconnect.

mod access;
mod assignments;
mod batches;
mod command;
mod credentials;
mod deliveries;
mod fetching;
mod fleet;
mod housekeeping;
mod keys;
mod kms_access;
mod managers;
mod sealing;
mod secrets;
mod space;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use lictor_proto::v1::{AgentEvent, Goodbye, GoodbyeReason, ServerEvent, agent_event};
use serde_json::json;
use sqlx::Connection as _;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::access::{Caller, Directory};
use crate::audit::{Action, Actor, Chain, Event};
use crate::authority::Authority;
use crate::clock::Now;
use crate::dispatch::{
    Assign, HeldFacts, Ledger, Outcome, Outgoing, ProtocolError, SessionId, Settings, check_hello, goodbye,
};
use crate::failure;
use crate::metrics::Metrics;
use crate::oidc::Issuer;
use crate::outbox::Outbox;
use crate::platform;
use crate::store::tasks::NewTask;
use crate::store::{self, StoreError, Writer};
use crate::telemetry;
use crate::validate;
use crate::vault::Vault;
use crate::watchers::Watchers;

use access::audited_spec;
pub(crate) use access::{NewToken, NewUser, open_chain};
pub(crate) use command::{Command, EngineHandle, Refusal, Reply};
use deliveries::Named;
use fetching::Fetching;
use housekeeping::Housekeeping;
use keys::Keeping;
use sealing::Sealing;

pub(crate) use credentials::NewCredential;
use credentials::scope_of;
pub(crate) use fleet::NewJoinToken;
pub(crate) use housekeeping::Retention;
pub(crate) use secrets::{NewSecret, used_by};
pub(crate) use space::load_ledger;

/// What the engine works with.
pub(crate) struct Parts {
    pub(crate) writer: Writer,
    pub(crate) ledger: Ledger,
    pub(crate) authority: Arc<Authority>,
    pub(crate) vault: Vault,
    pub(crate) watchers: Arc<Watchers>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) agent_certificate_lifetime: Duration,
    pub(crate) settings: Settings,
    pub(crate) retention: Retention,
    pub(crate) users: Arc<Directory>,
    /// Makes the tokens that AWS takes.
    pub(crate) issuer: Arc<Issuer>,
    /// The end of the audit log.
    pub(crate) chain: Chain,
    /// Told the number of its newest entry.
    pub(crate) audited: watch::Sender<u64>,
    /// Where AWS KMS is asked on behalf of the control plane itself. Full: assignments wait, and what else is asked for fails.
    pub(crate) platform: mpsc::Sender<platform::Request>,
}

/// The engine; [`Engine::run`] is its life.
pub(crate) struct Engine {
    parts: Parts,
    commands: mpsc::Receiver<Command>,
    sessions: HashMap<SessionId, Arc<Outbox>>,
    in_transaction: bool,
    /// What is to be sent, said and woken once the transaction has been committed.
    outgoing: Vec<(SessionId, Ready)>,
    replies: Vec<Box<dyn FnOnce() + Send>>,
    touched: BTreeSet<String>,
    housekeeping: Housekeeping,
    keys: Keeping,
    full: Arc<AtomicBool>,
    /// Users or tokens were changed in this transaction.
    users_changed: bool,
    /// Number of the newest entry of the audit log, once it is committed.
    audited: Option<u64>,
    fetching: Fetching,
    sealing: Sealing,
}

/// Ready to be sent.
enum Ready {
    Event(Box<ServerEvent>),
    Close(Goodbye),
}

impl Engine {
    /// An engine and the handle to it.
    pub(crate) fn new(parts: Parts) -> (Self, EngineHandle) {
        // Full: callers wait.
        let (sender, commands) = mpsc::channel(MAX_WAITING_COMMANDS);
        let engine = Self {
            parts,
            commands,
            sessions: HashMap::new(),
            in_transaction: false,
            outgoing: Vec::new(),
            replies: Vec::new(),
            touched: BTreeSet::new(),
            housekeeping: Housekeeping::new(Now::read()),
            keys: Keeping::new(Now::read()),
            full: Arc::default(),
            users_changed: false,
            audited: None,
            fetching: Fetching::default(),
            sealing: Sealing::default(),
        };
        let full = Arc::clone(&engine.full);
        (engine, EngineHandle { commands: sender, full })
    }

    /// Works until `stop`, then says goodbye to every agent. An error means that the database cannot be used.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), StoreError> {
        self.resume_housekeeping(Now::read()).await?;
        self.resume_tests(Now::read()).await?;
        loop {
            let first = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                command = self.commands.recv() => match command {
                    Some(command) => Some(command),
                    None => break,
                },
                () = sleep_until(self.parts.ledger.next_deadline()) => None,
                () = sleep_until(Some(self.housekeeping.next.min(self.keys.next))) => None,
                () = sleep_until(self.fetching.next_deadline()) => None,
            };
            match self.turn(first).await {
                Err(error) if error.is_out_of_space() => self.wait_for_space(error, &stop).await?,
                done => done?,
            }
        }
        match self.finish().await {
            // What could not be stored was told to nobody.
            Err(error) if error.is_out_of_space() => {
                warn!(error = %crate::app::chain(&error), "The disk is full; the last of what came was not stored");
            }
            done => done?,
        }
        Ok(self.parts.writer.connection.close().await?)
    }

    /// Ends every task as unknown that is not final, and the engine with it. Returns how many there were.
    pub(crate) async fn settle_restored(mut self) -> Result<usize, StoreError> {
        let now = Now::read();
        self.resume_housekeeping(now).await?;
        let settled = self.parts.ledger.settle_restored(now);
        self.turn(None).await?;
        self.parts.writer.connection.close().await?;
        Ok(settled)
    }

    /// What has been handed over already is still stored.
    async fn finish(&mut self) -> Result<(), StoreError> {
        self.commands.close();
        while let Some(command) = self.commands.recv().await {
            self.turn(Some(command)).await?;
        }
        self.parts.ledger.shutdown();
        self.housekeeping.next = Instant::now();
        self.turn(None).await
    }

    /// One group of commands, one transaction.
    async fn turn(&mut self, first: Option<Command>) -> Result<(), StoreError> {
        let now = Now::read();
        let mut next = first;
        let (mut commands, mut bytes) = (0, 0);
        while let Some(command) = next {
            bytes += self.apply(command, now).await?;
            commands += 1;
            if commands >= MAX_COMMANDS_PER_TURN || bytes >= MAX_OUTPUT_PER_TURN {
                break;
            }
            next = self.commands.try_recv().ok();
        }
        self.expire_fetching(now);
        self.parts.ledger.tick(now);
        self.parts.ledger.schedule(now);
        self.persist(now).await?;
        self.keep_house(now).await?;
        self.tend_keys(now).await?;
        if self.in_transaction {
            sqlx::query("COMMIT").execute(&mut *self.parts.writer).await?;
            self.in_transaction = false;
        }
        if std::mem::take(&mut self.users_changed) {
            let (users, tokens) = store::access::all(&mut self.parts.writer).await?;
            self.parts.users.replace(&users, tokens);
        }
        self.release();
        Ok(())
    }

    /// The writer, inside this turn's transaction.
    async fn database(&mut self) -> Result<&mut Writer, StoreError> {
        if !self.in_transaction {
            sqlx::query("BEGIN IMMEDIATE").execute(&mut *self.parts.writer).await?;
            self.in_transaction = true;
        }
        Ok(&mut self.parts.writer)
    }

    fn reply<T: Send + 'static>(&mut self, reply: Reply<T>, answer: Result<T, Refusal>) {
        // A caller that has gone away needs no answer.
        self.replies.push(Box::new(move || drop(reply.send(answer))));
    }

    /// Carries out one command; returns how many bytes of output it brought.
    async fn apply(&mut self, command: Command, now: Now) -> Result<usize, StoreError> {
        match command {
            Command::Submit { task, by, reply } => {
                let answer = self.submit(*task, &by, now).await?;
                self.reply(reply, answer);
            }
            Command::Cancel { task_id, reason, by, reply } => {
                let details = json!({ "reason": reason });
                self.audit_of(&by, Action::TaskCancelRequested, ("task", &task_id), details, now).await?;
                self.parts.ledger.cancel(&task_id, &reason, now);
                self.cancel_parked(&task_id, now);
                self.reply(reply, Ok(()));
            }
            Command::SubmitBatch { batch, by, reply } => {
                let answer = self.submit_batch(*batch, &by, now).await?;
                self.reply(reply, answer);
            }
            Command::CancelBatch { batch_id, reason, by, reply } => {
                self.cancel_batch(&batch_id, &reason, &by, now).await?;
                self.reply(reply, Ok(()));
            }
            Command::Candidates { task_id, reply } => {
                let candidates = self.parts.ledger.candidates(&task_id);
                self.reply(reply, Ok(candidates));
            }
            Command::Agents { reply } => {
                let agents = self.parts.ledger.agent_views();
                self.reply(reply, Ok(agents));
            }
            Command::DrainAgent { agent, reason, by, reply } => {
                let answer = self.drain_agent(&agent, &reason, &by, now).await?;
                self.reply(reply, answer);
            }
            Command::RevokeAgent { agent, reason, by, reply } => {
                let answer = self.revoke_agent(&agent, &reason, &by, now).await?;
                self.reply(reply, answer);
            }
            Command::CreateJoinToken { token, by, reply } => {
                let view = self.create_join_token(*token, &by, now).await?;
                self.reply(reply, Ok(view));
            }
            Command::RevokeJoinToken { token_id, by, reply } => {
                let answer = self.revoke_join_token(&token_id, &by, now).await?;
                self.reply(reply, answer);
            }
            Command::Enroll { request, source, reply } => {
                let answer = self.enroll(*request, &source, now).await?;
                self.parts.metrics.enrolments(answer.is_ok());
                self.reply(reply, answer);
            }
            Command::Renew { agent_id, request, reply } => {
                let answer = self.renew(&agent_id, *request, now).await?;
                self.reply(reply, answer);
            }
            Command::PutCredential { credential, by, reply } => {
                let answer = self.put_credential(*credential, &by, now).await?;
                self.reply(reply, answer);
            }
            Command::DeleteCredential { name, by, reply } => {
                let answer = self.delete_credential(&name, &by, now).await?;
                self.reply(reply, answer);
            }
            Command::PrepareSecret { request, by, reply } => {
                let answer = self.prepare_secret(request, &by, now).await?;
                self.reply(reply, answer);
            }
            Command::PutSealed { secret, sealed, by, reply } => {
                self.put_sealed(*secret, sealed, by, reply, now).await?;
            }
            Command::TestManager { identifier, selector, by, reply } => {
                let answer = self.test_manager(&identifier, selector, &by, now).await?;
                self.reply(reply, answer);
            }
            Command::Fetched(fetched) => self.fetched(fetched, now).await?,
            Command::PutSecret { secret, by, reply } => self.put_secret(*secret, by, reply, now).await?,
            Command::DeleteSecret { identifier, by, reply } => {
                let answer = self.delete_secret(&identifier, &by, now).await?;
                self.reply(reply, answer);
            }
            Command::PutSecretManager { manager, by, reply } => {
                let answer = self.put_manager(*manager, &by, now).await?;
                self.reply(reply, answer);
            }
            Command::DeleteSecretManager { identifier, by, reply } => {
                let answer = self.delete_manager(&identifier, &by, now).await?;
                self.reply(reply, answer);
            }
            Command::ReplaceKeys { ring, reply } => {
                let answer = self.replace_keys(ring, now).await?;
                self.reply(reply, answer);
            }
            Command::WhoAmI { by, reply } => {
                let answer = self.who_am_i(&by).await?;
                self.reply(reply, answer);
            }
            Command::CreateUser { user, by, reply } => {
                let answer = self.create_user(user, &by, now).await?;
                self.reply(reply, answer);
            }
            Command::SetUser { name, enabled, by, reply } => {
                let answer = self.set_user(&name, enabled, &by, now).await?;
                self.reply(reply, answer);
            }
            Command::IssueToken { token, by, reply } => {
                let answer = self.issue_token(token, &by, now).await?;
                self.reply(reply, answer);
            }
            Command::RevokeToken { token_id, by, reply } => {
                let answer = self.revoke_token(&token_id, &by, now).await?;
                self.reply(reply, answer);
            }
            Command::NoteExport { from, to, follow, by, reply } => {
                let seq = self.note_export(from, to, follow, &by, now).await?;
                self.reply(reply, Ok(seq));
            }
            Command::NoteAccess { refused, used } => self.note_access(refused, &used, now).await?,
            Command::Open { agent_id, session, outbox, events, polling } => {
                let again = self.parts.ledger.polls(&agent_id, polling);
                if let Some(agent) = self.parts.ledger.agent(&agent_id).filter(|_| !again) {
                    info!(agent_id, agent = agent.name, session, polling, "Agent connected");
                }
                return self.open(agent_id, session, outbox, events, false, now).await;
            }
            Command::Report { agent_id, session, outbox, events, reply } => {
                let bytes = self.open(agent_id, session, outbox, events, true, now).await?;
                self.reply(reply, Ok(()));
                return Ok(bytes);
            }
            Command::Events { agent_id, session, events } => return Ok(self.events(&agent_id, session, events, now)),
            Command::Closed { agent_id, session } => {
                self.sessions.remove(&session);
                self.parts.ledger.disconnected(&agent_id, session, now);
                debug!(agent_id, session, "Session closed");
            }
        }
        Ok(0)
    }

    async fn submit(&mut self, task: NewTask, by: &Caller, now: Now) -> Result<Result<String, Refusal>, StoreError> {
        if let Some(key) = &task.idempotency_key
            && let Some(first) = store::tasks::find_by_key(self.database().await?, &task.submitted_by, key).await?
        {
            return Ok(Ok(first));
        }
        let (name, scope) = (&task.spec.credential, scope_of(&task.spec));
        if let Err(refusal) = self.may_use_credential(name, scope, by).await? {
            return Ok(Err(refusal));
        }
        if let Err(refusal) = self.fits_credential(&task.spec) {
            return Ok(Err(refusal));
        }
        if let Err(refusal) = self.may_use_secrets(Named::by([&task.spec]), by).await? {
            return Ok(Err(refusal));
        }
        if let Err(refusal) = self.has_room(1) {
            return Ok(Err(refusal));
        }
        let (task_id, details) = (task.task_id.clone(), audited_spec(&task.spec));
        let trace_id = telemetry::trace_id(task.traceparent.as_deref());
        for live in store::tasks::add(self.database().await?, vec![task], now.wall).await? {
            self.parts.ledger.submit(live, now);
        }
        self.parts.metrics.submitted(1);
        info!(task_id, trace_id, "Task submitted");
        self.audit_of(by, Action::TaskSubmitted, ("task", &task_id), details, now).await?;
        Ok(Ok(task_id))
    }

    /// Whether so many new tasks may wait.
    fn has_room(&self, tasks: usize) -> Result<(), Refusal> {
        let waiting = self.parts.ledger.waiting();
        if waiting.saturating_add(tasks) > MAX_QUEUED_TASKS {
            return Err(Refusal::Exhausted(format!(
                "{waiting} tasks are waiting, and {MAX_QUEUED_TASKS} are the most; try again later"
            )));
        }
        Ok(())
    }

    async fn open(
        &mut self,
        agent_id: String,
        session: SessionId,
        outbox: Arc<Outbox>,
        events: Vec<AgentEvent>,
        beside_the_link: bool,
        now: Now,
    ) -> Result<usize, StoreError> {
        // Revocation may have come between the check of the certificate and now.
        if self.parts.ledger.agent(&agent_id).is_none_or(|agent| agent.revoked.is_some()) {
            outbox.close(goodbye(GoodbyeReason::Revoked, "the agent was revoked"));
            return Ok(0);
        }
        self.sessions.insert(session, outbox);
        // What is decided about assignments of old is read from the database, so it must be up to date.
        self.persist(now).await?;
        let mut events = events.into_iter();
        let Some(AgentEvent { event: Some(agent_event::Event::Hello(mut hello)) }) = events.next() else {
            self.break_off(&agent_id, session, &ProtocolError("the first event is not Hello".into()), now);
            return Ok(0);
        };
        if let Err(error) = check_hello(&hello) {
            self.break_off(&agent_id, session, &error, now);
            return Ok(0);
        }
        validate::hello(&mut hello);
        let mut facts = HeldFacts::new();
        for reference in hello.held.iter().filter_map(|held| held.task.as_ref()) {
            let database = self.database().await?;
            if let Some(fact) =
                store::tasks::held_fact(database, &agent_id, &reference.task_id, reference.epoch).await?
            {
                facts.insert((reference.task_id.clone(), reference.epoch), fact);
            }
        }
        if beside_the_link {
            let events: Vec<AgentEvent> = events.collect();
            let bytes = output_bytes(&events);
            self.parts.metrics.received(bytes);
            if let Err(error) = self.parts.ledger.report(&agent_id, session, &hello, &facts, events, now) {
                self.break_off(&agent_id, session, &error, now);
            }
            return Ok(bytes);
        }
        if let Err(error) = self.parts.ledger.hello(&agent_id, session, &hello, &facts, now) {
            self.break_off(&agent_id, session, &error, now);
            return Ok(0);
        }
        Ok(self.events(&agent_id, session, events.collect(), now))
    }

    fn events(&mut self, agent_id: &str, session: SessionId, events: Vec<AgentEvent>, now: Now) -> usize {
        let bytes = output_bytes(&events);
        for event in events {
            if let Err(error) = self.parts.ledger.agent_event(agent_id, session, event, now) {
                self.break_off(agent_id, session, &error, now);
                break;
            }
        }
        self.parts.metrics.received(bytes);
        bytes
    }

    fn break_off(&mut self, agent_id: &str, session: SessionId, error: &ProtocolError, now: Now) {
        warn!(agent_id, session, error = %error, "Session ended: the agent broke the contract");
        self.parts.ledger.disconnected(agent_id, session, now);
        self.outgoing.push((session, Ready::Close(goodbye(GoodbyeReason::ProtocolError, &error.0))));
    }

    /// Writes the ledger's outcome into the transaction and makes its messages ready.
    async fn persist(&mut self, now: Now) -> Result<(), StoreError> {
        loop {
            let outcome = self.parts.ledger.take_outcome();
            if outcome.is_empty() {
                return Ok(());
            }
            self.persist_records(outcome, now).await?;
        }
    }

    async fn persist_records(&mut self, mut outcome: Outcome, now: Now) -> Result<(), StoreError> {
        for agent_id in &outcome.changed_agents {
            if let Some(agent) = self.parts.ledger.agent(agent_id).cloned() {
                store::fleet::save_agent(self.database().await?, &agent).await?;
            }
        }
        self.touched.extend(outcome.appends.iter().map(|append| append.task_id.clone()));
        if !outcome.appends.is_empty() {
            self.housekeeping.stored(outcome.appends.iter().map(|append| append.data.len() as u64).sum());
            store::tasks::append(self.database().await?, outcome.appends).await?;
        }
        for task_id in outcome.changed_tasks {
            if let Some(task) = self.parts.ledger.task(&task_id).cloned() {
                store::tasks::save(self.database().await?, &task).await?;
            }
            self.touched.insert(task_id);
        }
        for finished in &mut outcome.finished {
            self.sealing_ends(finished, now).await?;
            store::tasks::finish(self.database().await?, finished).await?;
            let state = finished.result.outcome();
            self.parts.metrics.finished(state);
            info!(
                task_id = finished.task.task_id,
                epoch = finished.task.epoch,
                state = state.as_str_name(),
                code = finished.result.failure.as_ref().map(|failure| failure.code.as_str()),
                "Task finished"
            );
            self.touched.insert(finished.task.task_id.clone());
            self.audit_finished(finished, now).await?;
        }
        self.persist_batches(&outcome.tried, &outcome.batches, now).await?;
        for evidence in &outcome.evidence {
            if store::tasks::add_evidence(self.database().await?, evidence).await? {
                warn!(
                    task_id = evidence.task.task_id,
                    epoch = evidence.task.epoch,
                    agent_id = evidence.agent_id,
                    "Result came too late and was kept as evidence"
                );
                let state = evidence.result.outcome().as_str_name();
                let event = Event {
                    action: Action::TaskLateResult,
                    actor: Actor::Agent(&evidence.agent_id),
                    object: ("task", &evidence.task.task_id),
                    outcome: "ok",
                    details: json!({ "epoch": evidence.task.epoch, "state": state }),
                };
                self.audit(&event, now).await?;
                // Too late for its task, but what it says about the password still holds.
                let (task_id, epoch) = (&evidence.task.task_id, evidence.task.epoch);
                if failure::rejects_credential(&evidence.result)
                    && let Some((name, version)) =
                        store::tasks::assigned_credential(self.database().await?, task_id, epoch).await?
                {
                    self.parts.ledger.credential_rejected(&name, version, now);
                }
            }
        }
        for (name, version) in &outcome.rejected_credentials {
            store::credentials::mark_rejected(self.database().await?, name, *version, now.wall).await?;
            warn!(credential = name, version, "Credential was rejected by a host and is not handed out again");
            let event = Event {
                action: Action::CredentialRejected,
                actor: Actor::ControlPlane,
                object: ("credential", name),
                outcome: "ok",
                details: json!({ "version": version }),
            };
            self.audit(&event, now).await?;
        }
        for (session, outgoing) in outcome.outgoing {
            match outgoing {
                Outgoing::Event(mut event) => {
                    let resealed = outcome.resealed.iter().filter(|(other, _)| *other == session);
                    let resealed: Vec<&Assign> = resealed.map(|(_, assign)| assign).collect();
                    self.give_again(&mut event, &resealed, now).await?;
                    self.outgoing.push((session, Ready::Event(event)));
                }
                Outgoing::Close(goodbye) => self.outgoing.push((session, Ready::Close(goodbye))),
                Outgoing::Assign(assign) => self.hand_out(session, assign, now).await?,
            }
        }
        Ok(())
    }

    /// Everything is on disk: send, answer and wake.
    fn release(&mut self) {
        for (session, ready) in std::mem::take(&mut self.outgoing) {
            let Some(outbox) = self.sessions.get(&session) else { continue };
            match ready {
                Ready::Event(event) => {
                    if !outbox.push(*event) {
                        warn!(session, "Session ended: the agent does not read");
                    }
                }
                Ready::Close(goodbye) => {
                    outbox.close(goodbye);
                    self.sessions.remove(&session);
                }
            }
        }
        if let Some(seq) = self.audited.take() {
            self.parts.audited.send_replace(seq);
        }
        for reply in std::mem::take(&mut self.replies) {
            reply();
        }
        for task_id in std::mem::take(&mut self.touched) {
            self.parts.watchers.wake(&task_id);
        }
        self.parts.metrics.state(&self.parts.ledger.backlog(), self.parts.ledger.connected_agents());
    }
}

fn output_bytes(events: &[AgentEvent]) -> usize {
    let chunk_bytes = |event: &AgentEvent| match &event.event {
        Some(agent_event::Event::Output(output)) => output.chunk.as_ref().map_or(0, |chunk| chunk.data.len()),
        _ => 0,
    };
    events.iter().map(chunk_bytes).sum()
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

const MAX_WAITING_COMMANDS: usize = 256;
const MAX_COMMANDS_PER_TURN: usize = 256;
/// Bounds how long a heartbeat can wait behind output, and the memory that one transaction takes.
const MAX_OUTPUT_PER_TURN: usize = 8 << 20;
/// The ledger keeps about 1 KiB for each.
const MAX_QUEUED_TASKS: usize = 100_000;
