//! The agents' side of the ledger: what each event of a session does.
//!
//! An assignment is fenced by (task, epoch, agent): only its holder moves a task. Everything is safe to repeat.

use std::collections::{BTreeSet, HashMap, VecDeque};

use lictor_proto::v1::{
    AgentEvent, Drain, EndAck, GoodbyeReason, HandBack, HandBackReason, Heartbeat, HeartbeatAck, HeldState, HeldTask,
    Hello, OutputAck, OutputChunk, OutputStream, OutputVariableState, Resume, ResumeDecision, TaskRef, TaskResult,
    TaskState, Welcome, agent_event, server_event,
};
use lictor_proto::version::Contract;
use lictor_proto::{MAX_OUTPUT_CHUNK_BYTES, PROTOCOL_VERSION};
use prost::Message as _;

use super::agent::{Link, SessionId};
use super::routing::{self, MAX_REASON_BYTES, clipped};
use super::secrets::Errand;
use super::task::{Append, Evidence, Phase};
use super::{Assign, Ledger, Outgoing, event, goodbye};
use crate::clock::Now;
use crate::failure::{self, Vanished};
use crate::validate;

/// An agent broke the contract; the text says how.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the agent broke the contract: {0}")]
pub(crate) struct ProtocolError(pub(crate) String);

/// What the database knows of an assignment that is not live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeldFact {
    /// Given to this agent, and its result is stored.
    ResultStored,
    /// Given to this agent, and ended without a result of it.
    NoResult,
}

/// By task and epoch; what is missing was never assigned to this agent.
pub(crate) type HeldFacts = HashMap<(String, u64), HeldFact>;

/// Processes of an agent that were replaced, the latest ones.
#[derive(Debug, Default)]
pub(super) struct Former(VecDeque<String>);

impl Former {
    fn note(&mut self, instance: String) {
        if self.0.len() >= MAX_FORMER {
            self.0.pop_front();
        }
        self.0.push_back(instance);
    }
}

impl Ledger {
    /// A session opens: the agent says who it is and what it still holds.
    pub(crate) fn hello(
        &mut self,
        agent_id: &str,
        session: SessionId,
        hello: &Hello,
        facts: &HeldFacts,
        now: Now,
    ) -> Result<(), ProtocolError> {
        check_hello(hello)?;
        if self.is_replaced(agent_id, session, hello) || self.is_overtaken(agent_id, session) {
            return Ok(());
        }
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return Err(ProtocolError("the agent is not enrolled".into()));
        };
        if let Some(old) = agent.link.take() {
            let goodbye = goodbye(GoodbyeReason::Superseded, "a newer session of this agent took over");
            self.outcome.outgoing.push((old.session, Outgoing::Close(goodbye)));
        }
        if agent.instance_id != hello.instance_id {
            agent.drain_reason = None;
            let former = std::mem::take(&mut agent.instance_id);
            self.former_processes.entry(agent_id.to_owned()).or_default().note(former);
        }
        self.newest_sessions.insert(agent_id.to_owned(), session);
        let journal_lost = std::mem::take(&mut agent.journal_lost);
        agent.instance_id.clone_from(&hello.instance_id);
        agent.version.clone_from(&hello.version);
        agent.own_tags.clone_from(&hello.tags);
        agent.slots = hello.slots;
        agent.capabilities.clone_from(&hello.capabilities);
        agent.degraded.clone_from(&hello.degraded);
        agent.kerberos_principals.clone_from(&hello.kerberos_principals);
        agent.last_seen_at = Some(now.wall);
        let mismatch = Contract::check(&hello.contract).err();
        let (draining, held) = (hello.draining, BTreeSet::new());
        agent.link = Some(Link { session, draining, credit: 0, spent: 0, held, mismatch });
        let drain_reason = agent.drain_reason.clone();
        self.outcome.changed_agents.insert(agent_id.to_owned());

        let resume = hello.held.iter().filter_map(|held| self.resume(agent_id, session, held, facts, now)).collect();
        self.settle_what_is_missing(agent_id, hello, journal_lost, now);
        self.welcome(session, resume, now);
        if let Some(reason) = drain_reason {
            self.send(session, server_event::Event::Drain(Drain { reason }));
        }
        Ok(())
    }

    /// Sends the session of a process away that a newer one has replaced. What a killed process had under way may arrive
    /// behind the first words of the next one: it would take the link over, and put output where the next one's belongs.
    fn is_replaced(&mut self, agent_id: &str, session: SessionId, hello: &Hello) -> bool {
        let former = self.former_processes.get(agent_id);
        let replaced = former.is_some_and(|former| former.0.contains(&hello.instance_id));
        if replaced {
            let goodbye = goodbye(GoodbyeReason::Superseded, "a newer process of this agent has taken over");
            self.outcome.outgoing.push((session, Outgoing::Close(goodbye)));
        }
        replaced
    }

    /// Sends a session away that began before the agent's newest one, and whose first words come only now. They say what a
    /// process held before it lost that connection or died. Were they believed, the newest session would end; and a process
    /// that is dead and was never heard of before would shut its successor out, as one that was replaced. The session is all
    /// that ends: numbers tell the order in which calls arrived, not which process is the later one, and the one that is
    /// alive comes back.
    fn is_overtaken(&mut self, agent_id: &str, session: SessionId) -> bool {
        let overtaken = self.newest_sessions.get(agent_id).is_some_and(|newest| session < *newest);
        if overtaken {
            let goodbye = goodbye(GoodbyeReason::Superseded, "a newer session of this agent was there first");
            self.outcome.outgoing.push((session, Outgoing::Close(goodbye)));
        }
        overtaken
    }

    /// Decides about one assignment that the agent still holds.
    fn resume(
        &mut self,
        agent_id: &str,
        session: SessionId,
        held: &HeldTask,
        facts: &HeldFacts,
        now: Now,
    ) -> Option<Resume> {
        let reference = held.task.clone()?;
        let state = held.state();
        if self.touch(agent_id, &reference, now) {
            self.note_progress(&reference, state != HeldState::Accepted, now);
            let task = self.tasks.get(&reference.task_id)?;
            let resume = Resume {
                task: Some(reference.clone()),
                decision: ResumeDecision::Continue.into(),
                output_acked: task.received,
                cancel_requested: task.cancel.is_some(),
                assignment: None,
            };
            if held.wants_assignment {
                self.reseal(agent_id, session, &reference);
            }
            if let Some(link) = self.agents.get_mut(agent_id).and_then(|agent| agent.link.as_mut()) {
                link.held.insert(reference.task_id);
            }
            return Some(resume);
        }
        let live = self.tasks.contains_key(&reference.task_id);
        let fact = facts.get(&(reference.task_id.clone(), reference.epoch));
        let decision = match (fact, state) {
            (Some(HeldFact::ResultStored), _) => ResumeDecision::Forget,
            // Its result no longer decides anything, but it is evidence worth having.
            (Some(HeldFact::NoResult), HeldState::Ended) => ResumeDecision::Continue,
            (Some(HeldFact::NoResult), _) => ResumeDecision::Stale,
            (None, _) if live => ResumeDecision::Stale,
            (None, _) => ResumeDecision::Forget,
        };
        // To end its command on the host it needs the secret again. What was never given to it is not given now.
        if held.wants_assignment && decision == ResumeDecision::Stale && fact.is_some() {
            self.reseal(agent_id, session, &reference);
        }
        let (task, decision) = (Some(reference), decision.into());
        Some(Resume { task, decision, output_acked: 0, cancel_requested: false, assignment: None })
    }

    /// The agent lost the secret of an assignment that it was given, and is to get it again.
    fn reseal(&mut self, agent_id: &str, session: SessionId, reference: &TaskRef) {
        let mut credential_version = 0;
        if let Some(task) = self.tasks.get_mut(&reference.task_id).filter(|task| task.epoch == reference.epoch)
            && let Some(credential) = self.credentials.get(&task.credential)
        {
            // What a host says about it from now on, it says about this version.
            if task.credential_version != credential.version {
                task.credential_version = credential.version;
                self.outcome.changed_tasks.insert(reference.task_id.clone());
            }
            credential_version = credential.version;
        }
        let assign = Assign {
            agent_id: agent_id.to_owned(),
            task_id: reference.task_id.clone(),
            epoch: reference.epoch,
            credential_version,
            lease: self.settings.lease,
        };
        self.outcome.resealed.push((session, assign));
    }

    /// What the ledger gave to the agent and the agent does not hold has not arrived, or is lost.
    fn settle_what_is_missing(&mut self, agent_id: &str, hello: &Hello, journal_lost: bool, now: Now) {
        let held: BTreeSet<(&str, u64)> =
            hello.held.iter().filter_map(|h| h.task.as_ref()).map(|r| (r.task_id.as_str(), r.epoch)).collect();
        let why = if journal_lost { Vanished::JournalLost } else { Vanished::Forgotten };
        for task_id in self.held_by(agent_id) {
            let missing = self.tasks.get(&task_id).is_some_and(|task| !held.contains(&(task_id.as_str(), task.epoch)));
            if missing {
                self.vanish(&task_id, why, now);
            }
        }
    }

    /// One event behind Hello. Events of a session that is not the agent's newest change nothing.
    pub(crate) fn agent_event(
        &mut self,
        agent_id: &str,
        session: SessionId,
        event: AgentEvent,
        now: Now,
    ) -> Result<(), ProtocolError> {
        let current = self.agents.get(agent_id).and_then(|agent| agent.link.as_ref());
        if current.is_none_or(|link| link.session != session) {
            return Ok(());
        }
        self.take_event(agent_id, session, event, now)
    }

    /// Events handed over beside the link, by Report. The link, if there is one, goes on; answers go to `session`.
    pub(crate) fn report(
        &mut self,
        agent_id: &str,
        session: SessionId,
        hello: &Hello,
        facts: &HeldFacts,
        events: Vec<AgentEvent>,
        now: Now,
    ) -> Result<(), ProtocolError> {
        check_hello(hello)?;
        if self.is_replaced(agent_id, session, hello) {
            return Ok(());
        }
        // What the agent does not name may be on its way to it in the answer to a Poll: that is for Poll to settle.
        let resume = hello.held.iter().filter_map(|held| self.resume(agent_id, session, held, facts, now)).collect();
        self.welcome(session, resume, now);
        events.into_iter().try_for_each(|event| self.take_event(agent_id, session, event, now))
    }

    fn welcome(&mut self, session: SessionId, resume: Vec<Resume>, now: Now) {
        let welcome = Welcome {
            session_id: format!("{session:016x}"),
            heartbeat_interval: prost_types::Duration::try_from(self.settings.heartbeat_interval).ok(),
            lease: prost_types::Duration::try_from(self.settings.lease).ok(),
            output_window: OUTPUT_WINDOW,
            resume,
            time: Some(now.wall.timestamp()),
            contract: Contract::OURS.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        self.send(session, server_event::Event::Welcome(welcome));
    }

    fn take_event(
        &mut self,
        agent_id: &str,
        session: SessionId,
        event: AgentEvent,
        now: Now,
    ) -> Result<(), ProtocolError> {
        let Some(agent) = self.agents.get_mut(agent_id) else { return Ok(()) };
        agent.last_seen_at = Some(now.wall);
        match event.event {
            // Something of a newer version, which it must not say in a way that anything depends on.
            None => Ok(()),
            Some(agent_event::Event::Hello(_)) => Err(ProtocolError("a second Hello in one session".into())),
            Some(agent_event::Event::Credit(credit)) => {
                if let Some(link) = &mut agent.link {
                    link.credit = link.credit.max(credit.total);
                }
                Ok(())
            }
            Some(agent_event::Event::Draining(_)) => {
                if let Some(link) = &mut agent.link {
                    link.draining = true;
                }
                Ok(())
            }
            Some(agent_event::Event::Accepted(accepted)) => {
                let reference = required(accepted.task)?;
                if self.touch(agent_id, &reference, now) {
                    self.note_progress(&reference, false, now);
                }
                Ok(())
            }
            Some(agent_event::Event::Started(started)) => {
                let reference = required(started.task)?;
                if self.touch(agent_id, &reference, now) {
                    self.note_progress(&reference, true, now);
                }
                Ok(())
            }
            Some(agent_event::Event::HandBack(hand_back)) => self.hand_back(agent_id, hand_back, now),
            Some(agent_event::Event::Output(output)) => {
                let reference = required(output.task)?;
                let chunk = output.chunk.ok_or_else(|| ProtocolError("output without a chunk".into()))?;
                self.output(agent_id, session, &reference, chunk, now)
            }
            Some(agent_event::Event::End(end)) => {
                let reference = required(end.task)?;
                let result = end.result.ok_or_else(|| ProtocolError("an end without a result".into()))?;
                self.end(agent_id, session, reference, result, now);
                Ok(())
            }
            Some(agent_event::Event::Heartbeat(heartbeat)) => {
                self.heartbeat(agent_id, session, heartbeat, now);
                Ok(())
            }
        }
    }

    /// True when the agent holds this very assignment; its lease is renewed, and a lost task is found again.
    fn touch(&mut self, agent_id: &str, reference: &TaskRef, now: Now) -> bool {
        let lease_end = self.lease_end(now);
        let Some(task) = self.tasks.get_mut(&reference.task_id) else { return false };
        if task.phase == Phase::Queued || task.epoch != reference.epoch || task.agent_id.as_deref() != Some(agent_id) {
            return false;
        }
        if task.phase == Phase::Lost {
            task.phase = Phase::Held;
            self.outcome.changed_tasks.insert(reference.task_id.clone());
        }
        self.set_deadline(&reference.task_id, Some(lease_end));
        true
    }

    /// INVARIANT: what an agent is known to have accepted or started is stored, so that no crash makes it look untouched
    /// and has it given out again.
    fn note_progress(&mut self, reference: &TaskRef, started: bool, now: Now) {
        let Some(task) = self.tasks.get_mut(&reference.task_id) else { return };
        if !task.accepted || (started && !task.started) {
            task.accepted = true;
            if started && !task.started {
                task.started = true;
                task.started_at = Some(now.wall);
                task.hitch = None;
            }
            self.outcome.changed_tasks.insert(reference.task_id.clone());
        }
    }

    fn hand_back(&mut self, agent_id: &str, hand_back: HandBack, now: Now) -> Result<(), ProtocolError> {
        let reason = hand_back.reason();
        let reference = required(hand_back.task)?;
        if !self.touch(agent_id, &reference, now) {
            return Ok(());
        }
        let Some(task) = self.tasks.get_mut(&reference.task_id) else { return Ok(()) };
        if task.started {
            if task.route.only_looks() {
                // An agent that restarted or drains gives it back, whether it had begun or not.
                self.vanish(&reference.task_id, Vanished::HandedBackAfterStart, now);
            } else {
                self.finish_unknown(&reference.task_id, Vanished::HandedBackAfterStart, now);
            }
            return Ok(());
        }
        if task.cancel.is_some() {
            let result = failure::result(TaskState::Cancelled, None);
            self.finish(&reference.task_id, result, Vec::new(), false, now);
            return Ok(());
        }
        if reason != HandBackReason::Passing {
            // It was something else this time.
            task.hitch = None;
        }
        match reason {
            HandBackReason::Invalid => {
                let result = failure::result(TaskState::Rejected, hand_back.failure);
                self.finish(&reference.task_id, bounded(result), Vec::new(), false, now);
            }
            // A reason that this version does not know is one of that agent at least.
            HandBackReason::Unable | HandBackReason::Policy | HandBackReason::Unspecified => {
                let words = hand_back.failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default();
                let words = if words.is_empty() { "no reason given".to_owned() } else { words };
                task.handed_back.insert(agent_id.to_owned(), clipped(words, MAX_REASON_BYTES));
                let Some(task) = self.tasks.get(&reference.task_id) else { return Ok(()) };
                // A policy stays as it is; nobody is to wait for it to change.
                let credential = self.credentials.get(&task.credential);
                let none_can =
                    || self.agents.values().all(|agent| routing::never(agent, task, credential, &self.secrets));
                if reason == HandBackReason::Policy && none_can() {
                    let candidates = self.candidates_of(task);
                    let result = failure::result(TaskState::Rejected, hand_back.failure);
                    self.finish(&reference.task_id, bounded(result), candidates, false, now);
                } else {
                    self.enqueue(&reference.task_id, now);
                }
            }
            HandBackReason::Draining => {
                if let Some(link) = self.agents.get_mut(agent_id).and_then(|agent| agent.link.as_mut()) {
                    link.draining = true;
                }
                self.enqueue(&reference.task_id, now);
            }
            HandBackReason::Restarted => self.enqueue(&reference.task_id, now),
            HandBackReason::Passing => {
                let failure = bounded(failure::result(TaskState::Rejected, hand_back.failure)).failure;
                self.hitched(&reference.task_id, Some(agent_id), failure.unwrap_or_default(), now);
            }
        }
        Ok(())
    }

    fn output(
        &mut self,
        agent_id: &str,
        session: SessionId,
        reference: &TaskRef,
        chunk: OutputChunk,
        now: Now,
    ) -> Result<(), ProtocolError> {
        if chunk.data.len() > MAX_OUTPUT_CHUNK_BYTES {
            return Err(ProtocolError(format!(
                "a chunk of {} bytes; the most is {MAX_OUTPUT_CHUNK_BYTES}",
                chunk.data.len()
            )));
        }
        let stream = chunk.stream();
        let end = chunk.offset.saturating_add(chunk.data.len() as u64);
        if !self.touch(agent_id, reference, now) {
            // Nobody wants it any more. Unsaid, it would fill the agent's windows for good, and the late result, which comes
            // behind it, would never be sent.
            let ack = OutputAck { task: Some(reference.clone()), offset: end, full: true };
            self.acks.insert((session, reference.task_id.clone(), reference.epoch), ack);
            return Ok(());
        }
        self.note_progress(reference, true, now);
        let limit = self.settings.output_limit;
        let Some(task) = self.tasks.get_mut(&reference.task_id) else { return Ok(()) };
        if end > task.received {
            let full = task.output_bytes >= limit;
            if chunk.offset > task.received && !full {
                return Err(ProtocolError(format!(
                    "output of task {} goes on at {}, but {} was acknowledged at most",
                    reference.task_id, chunk.offset, task.received
                )));
            }
            if stream == OutputStream::Unspecified {
                // Of a stream that only a newer version knows. There is no place for it in the log: it is counted, and told as
                // missing once the task ends. Refused, it would be sent again for ever, and everything behind it wait.
                self.outcome.changed_tasks.insert(reference.task_id.clone());
            } else if !full {
                // What came before is stored already.
                let known = usize::try_from(task.received - chunk.offset).unwrap_or(usize::MAX);
                let fresh = chunk.data.slice(known..);
                let room = usize::try_from(limit - task.output_bytes).unwrap_or(usize::MAX);
                let data = fresh.slice(..fresh.len().min(room));
                let start = task.output_bytes;
                task.output_bytes += data.len() as u64;
                let append = Append { seq: task.seq, task_id: task.task_id.clone(), start, stream, data };
                self.outcome.appends.push(append);
                self.outcome.changed_tasks.insert(reference.task_id.clone());
            }
            task.received = end;
        }
        let ack = OutputAck { task: Some(reference.clone()), offset: task.received, full: task.output_bytes >= limit };
        self.acks.insert((session, reference.task_id.clone(), reference.epoch), ack);
        Ok(())
    }

    fn end(&mut self, agent_id: &str, session: SessionId, reference: TaskRef, mut result: TaskResult, now: Now) {
        let ack = server_event::Event::EndAck(EndAck { task: Some(reference.clone()) });
        // What makes a result smaller takes the rungs that say so.
        let rejects_credential = failure::rejects_credential(&result);
        // It has a bound of its own, and is for nobody but the task that asked for it.
        let sealed = result.sealed_record.take();
        let mut result = bounded(result);
        if !self.touch(agent_id, &reference, now) {
            self.outcome.evidence.push(Evidence {
                task: reference,
                agent_id: agent_id.to_owned(),
                result,
                at: now.wall,
            });
            self.send(session, ack);
            return;
        }
        let task_id = reference.task_id.clone();
        if is_final(result.outcome()) {
            if let Some(task) = self.tasks.get(&task_id) {
                let stored = task.output_bytes.saturating_sub(task.output_base);
                // Below the bound nothing is cut: what is missing was passed over.
                let gap = stored < task.received && task.output_bytes < self.settings.output_limit;
                result.output_gap |= gap;
                let kept = if gap { task.received } else { stored };
                result.output_truncated |= kept < result.output_bytes.max(task.received);
                if matches!(task.route.errand, Some(Errand::Seal { .. })) {
                    result.sealed_record = sealed.filter(|record| record.encoded_len() <= MAX_RECORD_BYTES);
                }
                if rejects_credential {
                    let (name, version) = (task.credential.clone(), task.credential_version);
                    self.credential_rejected(&name, version, now);
                }
            }
            // A wrong password is tried once, never in a loop.
            if !rejects_credential && self.is_tried_again(&task_id, &result) {
                self.try_again_later(&task_id, result, now);
            } else {
                self.finish(&task_id, result, Vec::new(), true, now);
            }
        } else {
            self.finish_unknown(&task_id, Vanished::NoOutcome, now);
        }
        self.send(session, ack);
    }

    fn heartbeat(&mut self, agent_id: &str, session: SessionId, heartbeat: Heartbeat, now: Now) {
        if let Some(agent) = self.agents.get_mut(agent_id) {
            agent.slots_used = heartbeat.slots_used;
            agent.resident_bytes = heartbeat.resident_bytes;
        }
        let mut stale = Vec::new();
        for reference in heartbeat.held {
            if !self.touch(agent_id, &reference, now) {
                stale.push(reference);
            }
        }
        let ack = HeartbeatAck { sequence: heartbeat.sequence, stale };
        self.outcome.outgoing.push((session, Outgoing::Event(event(server_event::Event::HeartbeatAck(ack)))));
    }
}

fn required(reference: Option<TaskRef>) -> Result<TaskRef, ProtocolError> {
    reference.ok_or_else(|| ProtocolError("an event about no task".into()))
}

/// What a Hello must hold to. Checked before anything is looked up for it, too.
pub(crate) fn check_hello(hello: &Hello) -> Result<(), ProtocolError> {
    if hello.protocol != PROTOCOL_VERSION {
        return Err(ProtocolError(format!(
            "it speaks version {} of the contract, this control plane version {PROTOCOL_VERSION}",
            hello.protocol
        )));
    }
    if hello.held.len() > MAX_NAMED_TASKS {
        return Err(ProtocolError(format!(
            "a Hello that names {} assignments; the most is {MAX_NAMED_TASKS}",
            hello.held.len()
        )));
    }
    let texts = hello.capabilities.iter().chain(&hello.degraded).chain([&hello.version, &hello.instance_id]);
    if hello.instance_id.is_empty()
        || !validate::are_tags(&hello.tags)
        || hello.capabilities.len() + hello.degraded.len() > 200
        || texts.into_iter().any(|text| text.len() > 1000)
        || hello.kerberos_principals.len() > MAX_PRINCIPALS
        || hello.kerberos_principals.iter().any(|principal| principal.len() > 1000)
    {
        return Err(ProtocolError("a Hello without an instance id, or beyond the bounds of its texts".into()));
    }
    Ok(())
}

fn is_final(state: TaskState) -> bool {
    matches!(
        state,
        TaskState::Succeeded
            | TaskState::Failed
            | TaskState::Cancelled
            | TaskState::TimedOut
            | TaskState::Rejected
            | TaskState::Unknown
    )
}

/// Keeps a result small enough to be stored and to travel with its task in one message.
pub(super) fn bounded(mut result: TaskResult) -> TaskResult {
    if result.encoded_len() > MAX_RESULT_BYTES {
        result.rungs.clear();
        result.posture_rows.clear();
        result.stderr_records_truncated |= !result.stderr_records.is_empty();
        result.stderr_records.clear();
        for variable in &mut result.output_variables {
            variable.value.clear();
            variable.set_state(OutputVariableState::Unusable);
        }
        result.output_variables.retain(|variable| variable.name.len() <= MAX_TEXT_BYTES);
        result.output_variables.truncate(MAX_VARIABLES);
        if let Some(connection) = &mut result.connection {
            connection.warnings.clear();
            for text in [&mut connection.auth, &mut connection.tls] {
                *text = clipped(std::mem::take(text), MAX_TEXT_BYTES);
            }
        }
        if let Some(failure) = &mut result.failure {
            failure.suspects.clear();
            for text in [
                &mut failure.stage,
                &mut failure.code,
                &mut failure.message,
                &mut failure.cause,
                &mut failure.remedy,
                &mut failure.legacy_text,
            ] {
                *text = clipped(std::mem::take(text), MAX_TEXT_BYTES);
            }
        }
    }
    result
}

/// Enough to keep a connection of 100 ms round trip busy at 40 MiB/s; times the slots, it bounds what is under way.
const OUTPUT_WINDOW: u64 = 4 << 20;
/// Far above what an agent can hold; each one named costs a look into the database.
pub(super) const MAX_NAMED_TASKS: usize = 10_000;
/// A file of 256 KiB, encrypted, and what belongs to it.
const MAX_RECORD_BYTES: usize = 288 << 10;
const MAX_RESULT_BYTES: usize = 256 << 10;
/// Processes that are remembered after they were replaced. What they had under way is gone long before so many have followed.
const MAX_FORMER: usize = 8;
/// Principals that one agent may announce; the contract says so.
const MAX_PRINCIPALS: usize = 1000;
/// As many as can be asked for.
const MAX_VARIABLES: usize = 64;
const MAX_TEXT_BYTES: usize = 4 << 10;
