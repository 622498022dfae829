//! What waits to be sent to one session: control first, then acknowledgements, each only in its newest form.
//!
//! The engine puts events in after they are stored, the session's stream takes them out. Bounded: acknowledgements
//! coalesce, and a session that lets too much control pile up is closed rather than waited for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lictor_proto::v1::{Goodbye, HeartbeatAck, OutputAck, ServerEvent, server_event};
use prost::Message as _;
use tokio::sync::Notify;

/// The events that wait for one session.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    control: VecDeque<ServerEvent>,
    heartbeat: Option<HeartbeatAck>,
    acks: BTreeMap<(String, u64), OutputAck>,
    closed: bool,
}

impl Outbox {
    /// Adds an event. False when the session does not read and was closed for it.
    pub(crate) fn push(&self, event: ServerEvent) -> bool {
        let fits = {
            let mut waiting = self.lock();
            if waiting.closed {
                return true;
            }
            match event.event {
                Some(server_event::Event::OutputAck(ack)) => {
                    let key = ack.task.as_ref().map(|task| (task.task_id.clone(), task.epoch)).unwrap_or_default();
                    waiting.acks.insert(key, ack);
                }
                Some(server_event::Event::HeartbeatAck(ack)) => waiting.heartbeat = Some(ack),
                _ => waiting.control.push_back(event),
            }
            let fits = waiting.control.len() <= MAX_CONTROL && waiting.acks.len() <= MAX_CONTROL;
            waiting.closed |= !fits;
            fits
        };
        self.wake.notify_one();
        fits
    }

    /// Ends the session behind a last event.
    pub(crate) fn close(&self, goodbye: Goodbye) {
        {
            let mut waiting = self.lock();
            if !waiting.closed {
                waiting.control.push_back(ServerEvent { event: Some(server_event::Event::Goodbye(goodbye)) });
                waiting.closed = true;
            }
        }
        self.wake.notify_one();
    }

    /// Ends the session without a word: its connection is gone.
    pub(crate) fn end(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// Waits for events and takes as many as one message should carry. Nothing once closed and empty.
    pub(crate) async fn next(&self) -> Option<Vec<ServerEvent>> {
        loop {
            let (events, closed) = self.take();
            if !events.is_empty() {
                return Some(events);
            }
            if closed {
                return None;
            }
            self.wake.notified().await;
        }
    }

    /// Takes what is there, and says whether more can come.
    pub(crate) fn take(&self) -> (Vec<ServerEvent>, bool) {
        let mut waiting = self.lock();
        let mut events = Vec::new();
        let mut bytes = 0;
        // First on every session, also when a heartbeat came with the same message as Hello.
        if let Some(ServerEvent { event: Some(server_event::Event::Welcome(_)) }) = waiting.control.front() {
            events.extend(waiting.control.pop_front());
        }
        if let Some(ack) = waiting.heartbeat.take() {
            events.push(ServerEvent { event: Some(server_event::Event::HeartbeatAck(ack)) });
        }
        while bytes < MESSAGE_BYTES {
            let Some(event) = waiting.control.pop_front() else { break };
            bytes += event.encoded_len();
            events.push(event);
        }
        if waiting.control.is_empty() {
            let acks = std::mem::take(&mut waiting.acks);
            events
                .extend(acks.into_values().map(|ack| ServerEvent { event: Some(server_event::Event::OutputAck(ack)) }));
        }
        (events, waiting.closed && waiting.control.is_empty())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in here panics while it holds the lock; the queues are whole in any case.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Far above what credit lets pile up.
const MAX_CONTROL: usize = 8192;
/// A message ends behind the event that passes this; the largest assignment still fits under the message limit.
const MESSAGE_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use lictor_proto::v1::{Cancel, Drain, GoodbyeReason, TaskRef};

    use super::*;
    use crate::dispatch::goodbye;

    fn ack(task: &str, offset: u64) -> ServerEvent {
        let task = Some(TaskRef { task_id: task.into(), epoch: 1 });
        ServerEvent { event: Some(server_event::Event::OutputAck(OutputAck { task, offset, full: false })) }
    }

    fn control() -> ServerEvent {
        ServerEvent { event: Some(server_event::Event::Drain(Drain::default())) }
    }

    #[tokio::test]
    async fn acknowledgements_coalesce_and_control_overtakes_them() {
        let outbox = Outbox::default();
        for offset in 1..1000 {
            assert!(outbox.push(ack("a", offset)));
        }
        assert!(outbox.push(control()));
        let events = outbox.next().await.unwrap();
        assert_eq!(events, [control(), ack("a", 999)]);
    }

    #[tokio::test]
    async fn a_welcome_goes_before_everything() {
        let outbox = Outbox::default();
        let event = |event| ServerEvent { event: Some(event) };
        let welcome = event(server_event::Event::Welcome(lictor_proto::v1::Welcome::default()));
        let receipt = event(server_event::Event::HeartbeatAck(HeartbeatAck::default()));
        for event in [&welcome, &receipt, &control()] {
            assert!(outbox.push(event.clone()));
        }
        assert_eq!(outbox.next().await.unwrap(), [welcome, receipt, control()]);
    }

    #[tokio::test]
    async fn a_closed_outbox_still_delivers_its_last_words() {
        let outbox = Outbox::default();
        outbox.push(control());
        outbox.close(goodbye(GoodbyeReason::Shutdown, "bye"));
        outbox.push(control());
        assert_eq!(outbox.next().await.unwrap().len(), 2);
        assert!(outbox.next().await.is_none());
    }

    #[tokio::test]
    async fn a_session_that_does_not_read_is_closed() {
        let outbox = Outbox::default();
        let event = ServerEvent { event: Some(server_event::Event::Cancel(Cancel::default())) };
        assert_eq!((0..MAX_CONTROL + 2).position(|_| !outbox.push(event.clone())), Some(MAX_CONTROL));
    }
}
