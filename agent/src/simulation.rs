//! A window onto the link's protocol for property tests that drive it against the control plane's side.
//!
//! Behind a feature that no shipped program enables. It must decide nothing: it only translates what is private here into
//! what the contract already names. Used by `lictor-tests`.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use lictor_proto::v1::{AgentEvent, HandBackReason, OutputStream, ServerEvent, TaskRef, TaskResult};

use crate::link::protocol::{About, OutputWanted, Protocol, SessionEnd};
use crate::tasks::output::{Limits, Piece, Shelf};
use crate::tasks::{Command, Event, Resumption, TaskKey};

/// The agent's side of the contract.
#[derive(Debug)]
pub struct Link {
    protocol: Protocol,
    shelf: Arc<Shelf>,
}

/// What the link asks of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Take this assignment.
    Assign(TaskRef),
    /// Stop it.
    Cancel(TaskRef),
    /// What the control plane decided about an assignment that an earlier process started.
    Resume {
        /// Which.
        task: TaskRef,
        /// The assignment came along, so that its command can be followed.
        given: bool,
        /// Output before this offset is stored.
        output_acked: u64,
        /// End it on its host.
        stale: bool,
    },
    /// Stop it and forget it.
    Stale(TaskRef),
    /// Let it end and forget it.
    Forget(TaskRef),
    /// Output before the offset is stored; `full` when no more is wanted.
    OutputAcked(TaskRef, u64, bool),
    /// Its end is stored.
    EndAcked(TaskRef),
    /// Its hand-back has arrived.
    HandBackDelivered(TaskRef),
    /// Take nothing new and come to an end.
    Drain,
}

/// What the engine tells the link.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// It is journalled.
    Accepted(TaskRef),
    /// An earlier process started it.
    Interrupted(TaskRef),
    /// Its start is journalled.
    Started(TaskRef),
    /// Its end is journalled.
    Ended(TaskRef, Box<TaskResult>),
    /// It is given back.
    HandedBack(TaskRef, HandBackReason),
    /// So many slots were freed since the start.
    Settled(u64),
    /// Nothing new is taken from now on.
    Draining,
    /// Nothing runs any more.
    Idle,
}

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Over {
    /// The control plane said so.
    Goodbye,
    /// The control plane broke the contract.
    Violation(String),
    /// The control plane is silent.
    Silence,
}

impl Link {
    /// The link of a process that has just started and found `restored` in its journal.
    #[must_use]
    pub fn new(instance_id: &str, slots: u32, restored: &[News]) -> Self {
        let shelf = Shelf::new(std::env::temp_dir(), Limits::for_slots(slots));
        let about = About {
            instance_id: instance_id.into(),
            tags: Vec::new(),
            slots,
            degraded: Vec::new(),
            kerberos: false,
            further: Vec::new(),
            principals: Vec::new(),
        };
        let events: Vec<Event> = restored.iter().filter_map(|news| event(&shelf, news)).collect();
        Self { protocol: Protocol::new(about, &events), shelf }
    }

    /// A connection is there.
    pub fn connected(&mut self, now: Instant) {
        self.protocol.connected(now);
    }

    /// The connection is gone.
    pub fn disconnected(&mut self, now: Instant) {
        self.protocol.disconnected(now);
    }

    /// Whether everything is drained and delivered.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.protocol.is_flushed()
    }

    /// SIGTERM.
    pub fn drain(&mut self) {
        self.protocol.drain("stopping");
    }

    /// The engine says something.
    pub fn news(&mut self, news: &News) {
        if let Some(event) = event(&self.shelf, news) {
            self.protocol.engine(&event);
        }
    }

    /// A task has made output up to `end`.
    pub fn produced(&mut self, task: &TaskRef, end: u64) {
        if let Some(key) = TaskKey::parse(Some(task.clone())) {
            self.protocol.produced(&key, end);
        }
    }

    /// The control plane says something.
    ///
    /// # Errors
    /// When the session is over.
    pub fn server(&mut self, event: ServerEvent, now: Instant) -> Result<(), Over> {
        self.protocol.server(event, now).map_err(over)
    }

    /// Time has passed.
    ///
    /// # Errors
    /// When the session is over.
    pub fn tick(&mut self, now: Instant) -> Result<(), Over> {
        self.protocol.tick(now).map_err(over)
    }

    /// When it wants to be asked again at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.protocol.deadline()
    }

    /// The next order for the engine.
    pub fn next_order(&mut self) -> Option<Order> {
        Some(match self.protocol.next_command()? {
            Command::Assign(assignment) => Order::Assign(assignment.task.unwrap_or_default()),
            Command::Cancel { key, .. } => Order::Cancel(key.to_wire()),
            Command::Resume(resumption) => {
                let Resumption { key, assignment, output_acked, stale } = *resumption;
                Order::Resume { task: key.to_wire(), given: assignment.is_some(), output_acked, stale }
            }
            Command::Stale(key) => Order::Stale(key.to_wire()),
            Command::Forget(key) => Order::Forget(key.to_wire()),
            Command::OutputAcked { key, offset, full } => Order::OutputAcked(key.to_wire(), offset, full),
            Command::EndAcked(key) => Order::EndAcked(key.to_wire()),
            Command::HandBackDelivered(key) => Order::HandBackDelivered(key.to_wire()),
            Command::Drain(_) => Order::Drain,
        })
    }

    /// The next event for the control plane; output, which `read` gives from an offset on, only when no other is due.
    pub fn next_event(
        &mut self,
        now: Instant,
        mut read: impl FnMut(&TaskRef, u64, usize) -> Option<(u64, Bytes)>,
    ) -> Option<AgentEvent> {
        loop {
            if let Some(event) = self.protocol.next_event(now, || 0) {
                return Some(event);
            }
            let wanted: OutputWanted = self.protocol.next_output()?;
            let piece = read(&wanted.key.to_wire(), wanted.offset, wanted.most);
            let piece = piece.map(|(offset, data)| Piece { offset, stream: OutputStream::Stdout, data });
            if let Some(event) = self.protocol.output_read(&wanted, piece) {
                return Some(event);
            }
        }
    }
}

fn event(shelf: &Arc<Shelf>, news: &News) -> Option<Event> {
    let key = |task: &TaskRef| TaskKey::parse(Some(task.clone()));
    Some(match news {
        News::Accepted(task) => Event::Accepted { key: key(task)?, log: shelf.log(&key(task)?) },
        News::Interrupted(task) => Event::Interrupted { key: key(task)?, log: shelf.log(&key(task)?) },
        News::Started(task) => Event::Started(key(task)?),
        News::Ended(task, result) => {
            Event::Ended { key: key(task)?, result: result.clone(), log: shelf.log(&key(task)?) }
        }
        News::HandedBack(task, reason) => {
            Event::HandedBack { key: key(task)?, reason: *reason, failure: Box::default() }
        }
        News::Settled(slots) => Event::Settled(*slots),
        News::Draining => Event::Draining("draining".into()),
        News::Idle => Event::Idle,
    })
}

fn over(end: SessionEnd) -> Over {
    match end {
        SessionEnd::Goodbye { .. } => Over::Goodbye,
        SessionEnd::Violation(what) => Over::Violation(what.to_owned()),
        SessionEnd::Silence(_) | SessionEnd::Afresh => Over::Silence,
    }
}
