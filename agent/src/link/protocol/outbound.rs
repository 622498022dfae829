//! What goes to the control plane, and in which order: events first, output when no event is due.

use std::time::Instant;

use lictor_proto::v1::{
    Accepted, AgentEvent, Credit, HandBack, HandBackReason, Heartbeat, OutputChunk, Started, TaskEnd, TaskOutput,
    agent_event,
};
use lictor_proto::version::Contract;

use super::{Entry, MOST_UNDER_WAY, OutputWanted, PIECE, Phase, Protocol, Session, Stage};
use crate::tasks::output::Piece;
use crate::tasks::{Command, TaskKey};

impl Session {
    /// Whether more than Hello may go.
    fn may_speak(&self) -> bool {
        match self.phase {
            Phase::AwaitingWelcome => self.eager,
            Phase::Open { .. } => true,
            Phase::Over => false,
        }
    }
}

/// A reason in words that the control plane knows.
fn known(reason: HandBackReason, theirs: Contract) -> HandBackReason {
    match reason {
        // To one that does not know the word it would be no reason at all, which ends the session.
        HandBackReason::Passing if theirs < Contract { major: 0, minor: 2 } => HandBackReason::Unable,
        reason => reason,
    }
}

impl Protocol {
    /// The next event for the control plane, everything but output. Goes before output, always.
    pub(crate) fn next_event(&mut self, now: Instant, resident_bytes: impl FnOnce() -> u64) -> Option<AgentEvent> {
        let session = self.session.as_mut()?;
        let event = match session.queue.pop_front() {
            Some(event) => event,
            None if !session.may_speak() => return None,
            None => self
                .task_event(now)
                .or_else(|| self.credit_event())
                .or_else(|| self.heartbeat_event(now, resident_bytes))?,
        };
        Some(AgentEvent { event: Some(event) })
    }

    fn task_event(&mut self, now: Instant) -> Option<agent_event::Event> {
        let theirs = self.theirs;
        let session = self.session.as_mut()?;
        for (key, entry) in &mut self.tasks {
            let Some(told) = entry.told.as_mut() else { continue };
            let task = Some(key.to_wire());
            match &entry.stage {
                Stage::HandedBack(reason, failure) => {
                    if told.handed_back.is_none() {
                        told.handed_back = Some(session.heartbeat.sequence);
                        // Its answer is the receipt.
                        session.heartbeat.next = session.heartbeat.next.min(now);
                        let (reason, failure) = (known(*reason, theirs).into(), Some((**failure).clone()));
                        return Some(agent_event::Event::HandBack(HandBack { task, reason, failure }));
                    }
                }
                Stage::Assigned => {}
                _ if !told.accepted => {
                    told.accepted = true;
                    return Some(agent_event::Event::Accepted(Accepted { task }));
                }
                Stage::Accepted => {}
                _ if entry.started && !told.started => {
                    told.started = true;
                    return Some(agent_event::Event::Started(Started { task }));
                }
                Stage::Started => {}
                Stage::Ended(result) => {
                    if told.end.is_none() && (entry.full || told.sent >= entry.produced) {
                        told.end = Some(now);
                        let mut result = (**result).clone();
                        result.output_bytes = result.output_bytes.max(entry.produced);
                        result.output_gap |= entry.gap;
                        result.output_truncated |= entry.full;
                        return Some(agent_event::Event::End(TaskEnd { task, result: Some(result) }));
                    }
                }
            }
        }
        None
    }

    fn credit_event(&mut self) -> Option<agent_event::Event> {
        if self.draining.is_some() || self.is_closed() || !self.judged {
            return None;
        }
        let session = self.session.as_mut()?;
        let used = self.assigned.saturating_sub(self.settled);
        let slots = self.room.most.map_or(self.about.slots, |most| self.about.slots.min(most));
        let total = session.received + u64::from(slots).saturating_sub(used);
        (total > session.credit).then(|| {
            session.credit = total;
            agent_event::Event::Credit(Credit { total })
        })
    }

    fn heartbeat_event(&mut self, now: Instant, resident_bytes: impl FnOnce() -> u64) -> Option<agent_event::Event> {
        let session = self.session.as_mut()?;
        if now < session.heartbeat.next {
            return None;
        }
        session.heartbeat.next = now + session.heartbeat.interval;
        session.heartbeat.sequence += 1;
        let held = self.tasks.iter().filter(|(_, entry)| matches!(entry.stage, Stage::Accepted | Stage::Started));
        let used = self.assigned.saturating_sub(self.settled);
        Some(agent_event::Event::Heartbeat(Heartbeat {
            sequence: session.heartbeat.sequence,
            held: held.map(|(key, _)| key.to_wire()).collect(),
            slots_used: u32::try_from(used).unwrap_or(u32::MAX),
            resident_bytes: resident_bytes(),
        }))
    }

    /// Output that may be sent now, the tasks taking turns. The caller reads it and calls [`Self::output_read`].
    pub(crate) fn next_output(&mut self) -> Option<OutputWanted> {
        let window = self.session.as_ref().filter(|session| session.may_speak())?.window;
        let under_way: u64 =
            self.tasks.values().filter_map(|entry| Some(entry.told.as_ref()?.sent.saturating_sub(entry.acked))).sum();
        let room = MOST_UNDER_WAY.checked_sub(under_way).filter(|room| *room > 0)?;
        let wanted = |(key, entry): (&TaskKey, &Entry)| {
            let told = entry.told.as_ref()?;
            // News of output may overtake the news of the start.
            let due = told.started && !entry.full && told.sent < entry.produced;
            let open = (entry.acked + window).saturating_sub(told.sent).min(room).min(PIECE);
            (due && open > 0).then(|| OutputWanted {
                key: key.clone(),
                offset: told.sent,
                most: usize::try_from(open).unwrap_or(usize::MAX),
            })
        };
        let after = self.turn.clone();
        let later = self.tasks.iter().filter(|(key, _)| after.as_ref().is_none_or(|turn| *key > turn)).find_map(wanted);
        let found = later.or_else(|| self.tasks.iter().find_map(wanted))?;
        self.turn = Some(found.key.clone());
        Some(found)
    }

    /// What was read for an [`OutputWanted`]: the event to send. Nothing read means that it is lost, and is skipped.
    pub(crate) fn output_read(&mut self, wanted: &OutputWanted, piece: Option<Piece>) -> Option<AgentEvent> {
        let entry = self.tasks.get_mut(&wanted.key)?;
        let told = entry.told.as_mut()?;
        let Some(piece) = piece.filter(|piece| piece.offset <= told.sent) else {
            // What the control plane stores has no holes: it takes nothing behind one, and would end every session over it.
            entry.gap = true;
            entry.full = true;
            let (key, offset) = (wanted.key.clone(), entry.acked);
            self.commands.push_back(Command::OutputAcked { key, offset, full: true });
            return None;
        };
        told.sent = piece.offset + piece.data.len() as u64;
        let chunk = OutputChunk { offset: piece.offset, stream: piece.stream.into(), data: piece.data };
        let output = TaskOutput { task: Some(wanted.key.to_wire()), chunk: Some(chunk) };
        Some(AgentEvent { event: Some(agent_event::Event::Output(output)) })
    }
}
