//! A model of an agent: the real link protocol over a model of the engine, its journal and the commands on the hosts.
//!
//! A crash keeps the journal and nothing else. It follows `agent/src/tasks/engine.rs` step by step, but does work only when
//! told to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use lictor_agent::simulation::{Link, News, Order};
use lictor_proto::v1::{
    AgentEvent, Failure, HandBackReason, PostureRow, PostureVerdict, Rung, RungOutcome, Suspect, TaskRef, TaskResult,
    TaskState,
};

/// An assignment.
pub(crate) type Key = (String, u64);

pub(crate) fn key(task: &TaskRef) -> Key {
    (task.task_id.clone(), task.epoch)
}

fn wire((task_id, epoch): &Key) -> TaskRef {
    TaskRef { task_id: task_id.clone(), epoch: *epoch }
}

/// The byte of a task's output at an offset: different for every assignment.
pub(crate) fn byte((task_id, epoch): &Key, offset: u64) -> u8 {
    let task = task_id.bytes().fold(0_u64, |sum, byte| sum * 31 + u64::from(byte));
    ((task * 7 + epoch * 101 + offset * 13 + offset / 251) % 251) as u8
}

/// What happened on the hosts: it outlives every process.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    /// How often each assignment's command was started.
    pub(crate) starts: BTreeMap<Key, u32>,
    /// Commands that ended well, and how much output they had made.
    pub(crate) finished: BTreeMap<Key, u64>,
}

#[derive(Debug, Clone)]
enum Record {
    Accepted,
    Started,
    Ended(Box<TaskResult>, Log),
}

/// Output that the control plane has not stored.
#[derive(Debug, Clone, Default)]
struct Log {
    base: u64,
    bytes: Vec<u8>,
}

impl Log {
    fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    fn acknowledge(&mut self, offset: u64) {
        let gone = offset.saturating_sub(self.base).min(self.bytes.len() as u64);
        self.bytes.drain(..gone as usize);
        self.base += gone;
    }
}

#[derive(Debug)]
enum Phase {
    /// An earlier process started it; its command goes on.
    Interrupted,
    Waiting,
    Running,
    Ended(Box<TaskResult>),
    HandedBack(HandBackReason),
}

impl Phase {
    fn is_active(&self) -> bool {
        matches!(self, Self::Waiting | Self::Running)
    }
}

#[derive(Debug)]
struct Held {
    phase: Phase,
    log: Log,
    /// Some of its output may have died with an earlier process.
    gap: bool,
    stop: bool,
    forget: bool,
    acknowledged: bool,
}

/// The process: gone with a crash.
struct Process {
    link: Link,
    orders: VecDeque<Order>,
    news: VecDeque<News>,
    grown: BTreeSet<Key>,
    held: BTreeMap<Key, Held>,
    /// Refused: only the link knows of them.
    refused: BTreeSet<Key>,
    acknowledged: BTreeSet<Key>,
    removals: Vec<Key>,
    settled: u64,
    draining: bool,
    idle_told: bool,
}

/// The agent.
pub(crate) struct Agent {
    pub(crate) name: String,
    pub(crate) slots: u32,
    process: Option<Process>,
    journal: BTreeMap<Key, Record>,
    instances: u32,
}

impl Agent {
    pub(crate) fn new(name: &str, slots: u32) -> Self {
        let mut agent = Self { name: name.into(), slots, process: None, journal: BTreeMap::new(), instances: 0 };
        agent.start();
        agent
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.process.is_some()
    }

    /// Starts the process, which takes up what the journal holds.
    pub(crate) fn start(&mut self) {
        self.instances += 1;
        let (mut held, mut restored) = (BTreeMap::new(), Vec::new());
        for (key, record) in &self.journal {
            let (phase, log) = match record {
                Record::Ended(result, log) => {
                    restored.push(News::Ended(wire(key), result.clone()));
                    (Phase::Ended(result.clone()), log.clone())
                }
                Record::Started => {
                    restored.push(News::Interrupted(wire(key)));
                    (Phase::Interrupted, Log::default())
                }
                Record::Accepted => {
                    restored.push(News::HandedBack(wire(key), HandBackReason::Restarted));
                    (Phase::HandedBack(HandBackReason::Restarted), Log::default())
                }
            };
            let gap = matches!(phase, Phase::Interrupted);
            held.insert(key.clone(), Held { phase, log, gap, stop: false, forget: false, acknowledged: false });
        }
        self.process = Some(Process {
            link: Link::new(&format!("{}-{}", self.name, self.instances), self.slots, &restored),
            orders: VecDeque::new(),
            news: VecDeque::new(),
            grown: BTreeSet::new(),
            held,
            refused: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            removals: Vec::new(),
            settled: 0,
            draining: false,
            idle_told: false,
        });
    }

    /// kill -9. Returns the assignments whose fate nobody can know any more, and those whose commands go on.
    pub(crate) fn kill(&mut self) -> (Vec<Key>, Vec<Key>) {
        let Some(process) = self.process.take() else { return (Vec::new(), Vec::new()) };
        let on_the_way = process.orders.iter().filter_map(|order| match order {
            Order::Assign(task) => Some(key(task)),
            _ => None,
        });
        let lost = on_the_way.chain(process.refused).collect();
        let running = process.held.iter().filter(|(_, held)| matches!(held.phase, Phase::Running | Phase::Interrupted));
        (lost, running.map(|(key, _)| key.clone()).collect())
    }

    /// Whether it has drained to its end.
    pub(crate) fn is_flushed(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.link.is_flushed())
    }

    /// Whether it holds nothing, in memory and on disk.
    pub(crate) fn is_empty(&self) -> bool {
        self.journal.is_empty() && self.process.as_ref().is_none_or(|process| process.held.is_empty())
    }

    pub(crate) fn is_running(&self, task: &Key) -> bool {
        let held = self.process.as_ref().and_then(|process| process.held.get(task));
        held.is_some_and(|held| matches!(held.phase, Phase::Running | Phase::Interrupted))
    }

    pub(crate) fn link(&mut self) -> Option<&mut Link> {
        self.process.as_mut().map(|process| &mut process.link)
    }

    /// The link reads what the engine says and hands on what it is to do.
    pub(crate) fn pump(&mut self) {
        let Some(process) = self.process.as_mut() else { return };
        for news in process.news.drain(..) {
            process.link.news(&news);
        }
        for key in std::mem::take(&mut process.grown) {
            if let Some(held) = process.held.get(&key) {
                process.link.produced(&wire(&key), held.log.end());
            }
        }
        while let Some(order) = process.link.next_order() {
            process.orders.push_back(order);
        }
    }

    /// What the link wants to send now.
    pub(crate) fn sends(&mut self, now: Instant) -> Vec<AgentEvent> {
        let Some(Process { link, held, .. }) = self.process.as_mut() else { return Vec::new() };
        let mut read = |task: &TaskRef, offset: u64, most: usize| {
            let log = &held.get(&key(task))?.log;
            let from = offset.saturating_sub(log.base) as usize;
            let bytes = log.bytes.get(from..).filter(|bytes| !bytes.is_empty())?;
            Some((offset.max(log.base), Bytes::copy_from_slice(&bytes[..bytes.len().min(most).min(PIECE)])))
        };
        std::iter::from_fn(|| link.next_event(now, &mut read)).collect()
    }

    /// The engine carries out what it was told.
    pub(crate) fn obey(&mut self) {
        while let Some(order) = self.process.as_mut().and_then(|process| process.orders.pop_front()) {
            self.order(order);
        }
        let Some(process) = self.process.as_mut() else { return };
        for key in process.removals.drain(..) {
            self.journal.remove(&key);
        }
        let active =
            process.held.values().any(|held| held.phase.is_active() || matches!(held.phase, Phase::Interrupted));
        if process.draining && !active && !process.idle_told {
            process.idle_told = true;
            process.news.push_back(News::Idle);
        }
    }

    fn order(&mut self, order: Order) {
        let Some(process) = self.process.as_mut() else { return };
        match order {
            Order::Assign(task) => self.assign(key(&task)),
            Order::Cancel(task) => {
                if let Some(held) = process.held.get_mut(&key(&task)) {
                    held.stop = true;
                }
            }
            Order::Resume { task, given, output_acked, stale } => self.resume(&key(&task), given, output_acked, stale),
            Order::Stale(task) => self.forget(&key(&task), true),
            Order::Forget(task) => self.forget(&key(&task), false),
            Order::OutputAcked(task, offset, _) => {
                if let Some(held) = process.held.get_mut(&key(&task)) {
                    held.log.acknowledge(offset);
                }
            }
            Order::EndAcked(task) | Order::HandBackDelivered(task) => {
                let key = key(&task);
                process.refused.remove(&key);
                match process.held.get_mut(&key) {
                    Some(held) if held.phase.is_active() => held.acknowledged = true,
                    Some(held) if matches!(held.phase, Phase::Interrupted) => {}
                    _ => self.remove(&key),
                }
            }
            Order::Drain => {
                if !std::mem::replace(&mut process.draining, true) {
                    process.news.push_back(News::Draining);
                }
            }
        }
    }

    fn assign(&mut self, key: Key) {
        let Some(process) = self.process.as_mut() else { return };
        if process.acknowledged.contains(&key) {
            return self.settle();
        }
        if let Some(held) = process.held.get(&key) {
            let task = wire(&key);
            process.news.push_back(match &held.phase {
                Phase::Interrupted => News::Interrupted(task.clone()),
                Phase::Waiting | Phase::Running => News::Accepted(task.clone()),
                Phase::Ended(result) => News::Ended(task.clone(), result.clone()),
                Phase::HandedBack(reason) => News::HandedBack(task.clone(), *reason),
            });
            if matches!(held.phase, Phase::Running) {
                process.news.push_back(News::Started(task));
            }
            return self.settle();
        }
        let others: Vec<Key> = process.held.keys().filter(|other| other.0 == key.0).cloned().collect();
        if process.draining || others.iter().any(|other| other.1 > key.1) {
            let reason = if process.draining { HandBackReason::Draining } else { HandBackReason::Unable };
            process.news.push_back(News::HandedBack(wire(&key), reason));
            process.refused.insert(key);
            return self.settle();
        }
        for older in others {
            self.forget(&older, true);
        }
        let Some(process) = self.process.as_mut() else { return };
        self.journal.insert(key.clone(), Record::Accepted);
        process.news.push_back(News::Accepted(wire(&key)));
        let (phase, log) = (Phase::Waiting, Log::default());
        process.held.insert(key, Held { phase, log, gap: false, stop: false, forget: false, acknowledged: false });
    }

    fn resume(&mut self, key: &Key, given: bool, output_acked: u64, stale: bool) {
        let Some(held) = self.process.as_mut().and_then(|process| process.held.get_mut(key)) else { return };
        if !matches!(held.phase, Phase::Interrupted) {
            return;
        }
        held.log.base = output_acked;
        held.forget |= stale;
        held.stop |= stale;
        if given {
            held.phase = Phase::Running;
        } else if stale {
            self.remove(key);
        } else {
            let mut result = ended(TaskState::Unknown, output_acked);
            result.output_gap = true;
            self.left(key, Phase::Ended(result));
        }
    }

    fn forget(&mut self, key: &Key, stop: bool) {
        let Some(held) = self.process.as_mut().and_then(|process| process.held.get_mut(key)) else { return };
        held.forget = true;
        held.stop |= stop;
        held.log.acknowledge(u64::MAX);
        if !held.phase.is_active() {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: &Key) {
        let Some(process) = self.process.as_mut() else { return };
        let Some(held) = process.held.remove(key) else { return };
        if !matches!(held.phase, Phase::HandedBack(_)) {
            process.acknowledged.insert(key.clone());
        }
        process.removals.push(key.clone());
        if matches!(held.phase, Phase::Interrupted) {
            self.settle();
        }
    }

    fn settle(&mut self) {
        let Some(process) = self.process.as_mut() else { return };
        process.settled += 1;
        process.news.push_back(News::Settled(process.settled));
    }

    /// Assignments that something can be done for, in order.
    pub(crate) fn active(&self) -> Vec<Key> {
        let held = self.process.iter().flat_map(|process| &process.held);
        held.filter(|(_, held)| held.phase.is_active()).map(|(key, _)| key.clone()).collect()
    }

    /// A waiting task takes its next step. True when its command was started by that.
    pub(crate) fn begin(&mut self, key: &Key, hosts: &mut Hosts) -> bool {
        let Some(process) = self.process.as_mut() else { return false };
        let Some(held) = process.held.get_mut(key).filter(|held| matches!(held.phase, Phase::Waiting)) else {
            return false;
        };
        if held.stop {
            self.left(key, Phase::Ended(ended(TaskState::Cancelled, 0)));
            return false;
        }
        if process.draining {
            self.left(key, Phase::HandedBack(HandBackReason::Draining));
            return false;
        }
        held.phase = Phase::Running;
        self.journal.insert(key.clone(), Record::Started);
        process.news.push_back(News::Started(wire(key)));
        *hosts.starts.entry(key.clone()).or_default() += 1;
        true
    }

    /// A running task makes output.
    pub(crate) fn produce(&mut self, key: &Key, count: u64) {
        let Some(process) = self.process.as_mut() else { return };
        let Some(held) = process.held.get_mut(key).filter(|held| matches!(held.phase, Phase::Running)) else { return };
        let end = held.log.end();
        held.log.bytes.extend((end..end + count).map(|offset| byte(key, offset)));
        process.grown.insert(key.clone());
    }

    /// A running task comes to its end.
    pub(crate) fn finish(&mut self, key: &Key, hosts: &mut Hosts) {
        let Some(process) = self.process.as_mut() else { return };
        let Some(held) = process.held.get(key).filter(|held| matches!(held.phase, Phase::Running)) else { return };
        let bytes = held.log.end();
        let state = if held.stop { TaskState::Cancelled } else { TaskState::Succeeded };
        if state == TaskState::Succeeded {
            hosts.finished.insert(key.clone(), bytes);
        }
        let mut result = ended(state, bytes);
        result.output_gap = held.gap;
        self.left(key, Phase::Ended(result));
    }

    fn left(&mut self, key: &Key, phase: Phase) {
        let Some(process) = self.process.as_mut() else { return };
        let Some(held) = process.held.get_mut(key) else { return };
        if !held.forget {
            match &phase {
                Phase::Ended(result) => {
                    self.journal.insert(key.clone(), Record::Ended(result.clone(), held.log.clone()));
                    process.news.push_back(News::Ended(wire(key), result.clone()));
                }
                Phase::HandedBack(reason) => process.news.push_back(News::HandedBack(wire(key), *reason)),
                Phase::Interrupted | Phase::Waiting | Phase::Running => {}
            }
        }
        held.phase = phase;
        if held.acknowledged || held.forget {
            self.remove(key);
        }
        self.settle();
    }
}

fn ended(state: TaskState, output_bytes: u64) -> Box<TaskResult> {
    // As much as a result can hold, of the newest version too: what the other side does not know must not matter.
    let suspects = vec![Suspect { code: "auth.suspect_local_account".into(), ..Suspect::default() }];
    let failure = Failure { code: "command.exit_code".into(), suspects, ..Failure::default() };
    let rung = Rung { outcome: RungOutcome::Unknown.into(), failure: Some(failure.clone()), ..Rung::default() };
    let row = PostureRow { verdict: PostureVerdict::Unknown.into(), ..PostureRow::default() };
    Box::new(TaskResult {
        outcome: state.into(),
        output_bytes,
        failure: Some(failure),
        rungs: vec![rung],
        posture_rows: vec![row],
        ..TaskResult::default()
    })
}

/// Small, so that a little output is several events.
const PIECE: usize = 40;
