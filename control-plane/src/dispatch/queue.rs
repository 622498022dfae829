//! Waiting tasks, in an order that is fair and cheap to find.
//!
//! Pure. Every batch, and every user's single tasks, have a lane of their own; lanes take turns. Within a lane the oldest
//! task that can go goes first. Tasks of a lane that ask the same of agents share a shelf, and on it those for one host
//! share a line: what holds one of them back holds back all, so nobody looks at them one by one. A line whose host is
//! busy leaves the shelf's order until the host has room again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::routing::Route;
use super::task::LiveTask;
use crate::clock::UnixMillis;

/// Who takes turns with whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Lane {
    /// Single tasks of one user.
    Single(Arc<str>),
    /// One batch.
    Batch(Arc<str>),
}

/// What tasks ask of agents and of the credential; all on one shelf ask the same.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Shape {
    pub(super) route: Route,
    pub(super) credential: String,
    /// Agents that gave it back.
    refused: Vec<String>,
}

/// Waiting tasks.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lanes: HashMap<Lane, LaneEntry>,
    /// Lanes by their next turn: the one that waited longest comes first.
    turns: BTreeMap<u64, Lane>,
    next_turn: u64,
    /// Lines that wait for a busy host.
    blocked: HashMap<Arc<str>, HashSet<(Lane, Arc<Shape>)>>,
    /// Since when each task waits.
    since: BTreeSet<(UnixMillis, i64)>,
    /// Lanes, shelves and lines looked at so far: tests bound the work by it.
    looks: u64,
}

#[derive(Debug)]
struct LaneEntry {
    turn: u64,
    shelves: HashMap<Arc<Shape>, Shelf>,
    /// Shelves by their oldest task that is not held back by its host.
    heads: BTreeMap<i64, Arc<Shape>>,
}

#[derive(Debug, Default)]
struct Shelf {
    lines: HashMap<Arc<str>, BTreeMap<i64, Arc<str>>>,
    /// Lines by their oldest task, without those whose host is busy.
    ready: BTreeMap<i64, Arc<str>>,
}

/// What became of a lane's turn.
pub(super) enum Pick<A> {
    /// This task can go, by this decision.
    Task(String, A),
    /// None can go now.
    Nothing,
}

impl Queue {
    /// Since when the task waits that has waited longest.
    pub(super) fn oldest(&self) -> Option<UnixMillis> {
        self.since.first().map(|(since, _)| *since)
    }

    #[cfg(test)]
    pub(super) fn looks(&self) -> u64 {
        self.looks
    }

    pub(super) fn insert(&mut self, task: &LiveTask) {
        let (lane, shape) = place(task);
        let entry = self.lanes.entry(lane.clone()).or_insert_with(|| {
            // Behind those that wait already; each of them goes once at most before it.
            let turn = self.next_turn;
            self.next_turn += 1;
            self.turns.insert(turn, lane.clone());
            LaneEntry { turn, shelves: HashMap::new(), heads: BTreeMap::new() }
        });
        let shape = match entry.shelves.get_key_value(&shape) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::new(shape),
        };
        let held_back = self.blocked.get(&task.claim.host).is_some_and(|lines| lines.contains(&(lane, shape.clone())));
        entry.change(&shape, |shelf| {
            let line = shelf.lines.entry(Arc::clone(&task.claim.host)).or_default();
            let before = line.first_key_value().map(|(seq, _)| *seq);
            line.insert(task.seq, Arc::from(task.task_id.as_str()));
            if !held_back && before.is_none_or(|before| task.seq < before) {
                before.map(|before| shelf.ready.remove(&before));
                shelf.ready.insert(task.seq, Arc::clone(&task.claim.host));
            }
        });
        self.since.insert((task.queued_at, task.seq));
    }

    /// Takes a task out. Nothing happens when it does not wait.
    pub(super) fn remove(&mut self, task: &LiveTask) {
        if !self.since.remove(&(task.queued_at, task.seq)) {
            return;
        }
        let (lane, shape) = place(task);
        let Some(entry) = self.lanes.get_mut(&lane) else { return };
        let Some((shape, _)) = entry.shelves.get_key_value(&shape) else { return };
        let shape = Arc::clone(shape);
        let mut line_gone = false;
        entry.change(&shape, |shelf| {
            let Some(line) = shelf.lines.get_mut(&task.claim.host) else { return };
            line.remove(&task.seq);
            let next = line.first_key_value().map(|(seq, _)| *seq);
            if let Some(host) = shelf.ready.remove(&task.seq)
                && let Some(next) = next
            {
                shelf.ready.insert(next, host);
            }
            line_gone = next.is_none();
            if line_gone {
                shelf.lines.remove(&task.claim.host);
            }
        });
        if entry.shelves.is_empty() {
            self.turns.remove(&entry.turn);
            self.lanes.remove(&lane);
        }
        if line_gone && let Some(lines) = self.blocked.get_mut(&task.claim.host) {
            lines.remove(&(lane, shape));
            if lines.is_empty() {
                self.blocked.remove(&task.claim.host);
            }
        }
    }

    /// The lane whose turn it is, counted from `turn` on.
    pub(super) fn lane_from(&mut self, turn: u64) -> Option<(u64, Lane)> {
        self.looks += 1;
        self.turns.range(turn..).next().map(|(turn, lane)| (*turn, lane.clone()))
    }

    /// The lane has had its turn.
    pub(super) fn turn_taken(&mut self, task: &LiveTask) {
        let lane = lane_of(task);
        if let Some(entry) = self.lanes.get_mut(&lane) {
            self.turns.remove(&entry.turn);
            entry.turn = self.next_turn;
            self.turns.insert(entry.turn, lane);
            self.next_turn += 1;
        }
    }

    /// The oldest task of a lane that can go. `busy` tells whether a host has no room; `decide` finds an agent for a
    /// shelf by any of its tasks.
    pub(super) fn pick<A>(
        &mut self,
        lane: &Lane,
        busy: impl Fn(&str) -> bool,
        mut decide: impl FnMut(&Arc<Shape>, &str) -> Option<A>,
    ) -> Pick<A> {
        let Some(entry) = self.lanes.get_mut(lane) else { return Pick::Nothing };
        let mut from = i64::MIN;
        while let Some((head, shape)) = entry.heads.range(from..).next().map(|(head, shape)| (*head, shape.clone())) {
            self.looks += 1;
            from = head.saturating_add(1);
            let Some(task_id) = entry.task(&shape, head) else { continue };
            let Some(decision) = decide(&shape, &task_id) else { continue };
            let mut found = None;
            let (looks, blocked) = (&mut self.looks, &mut self.blocked);
            entry.change(&shape, |shelf| {
                while let Some((seq, host)) = shelf.ready.first_key_value().map(|(seq, host)| (*seq, host.clone())) {
                    *looks += 1;
                    if busy(&host) {
                        shelf.ready.remove(&seq);
                        blocked.entry(host).or_default().insert((lane.clone(), shape.clone()));
                        continue;
                    }
                    found = shelf.lines.get(&host).and_then(|line| line.get(&seq)).cloned();
                    break;
                }
            });
            if let Some(task_id) = found {
                return Pick::Task(task_id.to_string(), decision);
            }
        }
        Pick::Nothing
    }

    /// A host has room again.
    pub(super) fn host_has_room(&mut self, host: &str) {
        let Some((host, lines)) = self.blocked.remove_entry(host) else { return };
        for (lane, shape) in lines {
            self.looks += 1;
            let Some(entry) = self.lanes.get_mut(&lane) else { continue };
            entry.change(&shape, |shelf| {
                if let Some((seq, _)) = shelf.lines.get(&host).and_then(|line| line.first_key_value()) {
                    shelf.ready.insert(*seq, Arc::clone(&host));
                }
            });
        }
    }

    /// Some of the waiting tasks of a batch.
    pub(super) fn some_of_batch(&self, batch_id: &Arc<str>, most: usize) -> Vec<String> {
        let Some(entry) = self.lanes.get(&Lane::Batch(Arc::clone(batch_id))) else { return Vec::new() };
        let lines = entry.shelves.values().flat_map(|shelf| shelf.lines.values());
        lines.flat_map(BTreeMap::values).take(most).map(|id| id.to_string()).collect()
    }

    /// Every line's place in its shelf, for tests: the indexes agree with each other.
    #[cfg(test)]
    pub(super) fn check(&self) {
        assert_eq!(self.lanes.len(), self.turns.len());
        let mut tasks = 0;
        for (lane, entry) in &self.lanes {
            assert_eq!(self.turns.get(&entry.turn), Some(lane));
            let heads: BTreeMap<i64, Arc<Shape>> = entry
                .shelves
                .iter()
                .filter_map(|(shape, shelf)| Some((*shelf.ready.first_key_value()?.0, shape.clone())))
                .collect();
            assert_eq!(heads, entry.heads);
            for (shape, shelf) in &entry.shelves {
                assert!(!shelf.lines.is_empty());
                for (host, line) in &shelf.lines {
                    tasks += line.len();
                    let (head, _) = line.first_key_value().unwrap();
                    let ready = shelf.ready.get(head) == Some(host);
                    let place = (lane.clone(), shape.clone());
                    let blocked = self.blocked.get(host).is_some_and(|lines| lines.contains(&place));
                    assert!(ready != blocked, "{host} is either ready or held back");
                }
                assert!(shelf.ready.len() <= shelf.lines.len());
            }
        }
        assert_eq!(tasks, self.since.len());
    }
}

impl LaneEntry {
    /// Changes a shelf and keeps its place among the lane's shelves.
    fn change(&mut self, shape: &Arc<Shape>, change: impl FnOnce(&mut Shelf)) {
        let shelf = self.shelves.entry(Arc::clone(shape)).or_default();
        let before = shelf.ready.first_key_value().map(|(seq, _)| *seq);
        change(shelf);
        let after = shelf.ready.first_key_value().map(|(seq, _)| *seq);
        if shelf.lines.is_empty() {
            self.shelves.remove(shape);
        }
        if before != after {
            before.map(|before| self.heads.remove(&before));
            after.map(|after| self.heads.insert(after, Arc::clone(shape)));
        }
    }

    fn task(&self, shape: &Arc<Shape>, seq: i64) -> Option<Arc<str>> {
        let shelf = self.shelves.get(shape)?;
        shelf.lines.get(shelf.ready.get(&seq)?)?.get(&seq).cloned()
    }
}

fn lane_of(task: &LiveTask) -> Lane {
    match &task.claim.batch {
        Some(batch) => Lane::Batch(Arc::clone(batch)),
        None => Lane::Single(Arc::clone(&task.claim.submitter)),
    }
}

/// Where a task waits. It must not change while it does.
fn place(task: &LiveTask) -> (Lane, Shape) {
    let mut refused: Vec<String> = task.handed_back.keys().cloned().collect();
    // Most never meet one.
    if let Some(hitch) = &task.hitch {
        refused.extend(hitch.agents.iter().cloned());
    }
    let shape = Shape { route: task.route.clone(), credential: task.credential.clone(), refused };
    (lane_of(task), shape)
}
