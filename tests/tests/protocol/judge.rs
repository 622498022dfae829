//! What must hold of everything that happened, once it has come to rest.

use lictor_control_plane::simulation::Ending;
use lictor_proto::v1::TaskState;

use crate::agent::{Key, byte};
use crate::world::{World, lost_after};

impl World {
    /// Judges everything.
    ///
    /// # Errors
    /// What does not hold.
    pub(crate) fn judge(&self) -> Result<(), String> {
        if let Some(breach) = self.breaches.first() {
            return Err(breach.clone());
        }
        if let Some(error) = self.control_plane.errors().first() {
            return Err(format!("the control plane says that an agent broke the contract: {error}"));
        }
        for (key, starts) in &self.hosts.starts {
            if *starts > 1 {
                return Err(format!("{key:?} was started {starts} times"));
            }
        }
        for (id, idempotent) in &self.tasks {
            let starts: Vec<&Key> = self.hosts.starts.keys().filter(|key| key.0 == *id).collect();
            if !idempotent && starts.len() > 1 {
                return Err(format!("{id} is not idempotent, and was started as {starts:?}"));
            }
            if self.diagnoses.contains(id) && self.nobody_can_diagnose() && self.control_plane.is_live(id) {
                continue;
            }
            let ending = match self.control_plane.endings(id) {
                [ending] if !self.control_plane.is_live(id) => ending,
                other => return Err(format!("{} has {} ends", self.control_plane.describe(id), other.len())),
            };
            self.judge_ending(id, ending)?;
        }
        for (index, agent) in self.agents.iter().enumerate() {
            if self.revoked.contains(&index) {
                continue;
            }
            if !agent.is_empty() {
                return Err(format!("{} still holds assignments", agent.name));
            }
            let free = self.control_plane.free(&agent.name);
            if free != Some(agent.slots.into()) {
                return Err(format!("{} has told of {free:?} free slots of {}", agent.name, agent.slots));
            }
        }
        Ok(())
    }

    fn judge_ending(&self, id: &str, ending: &Ending) -> Result<(), String> {
        let key = (id.to_owned(), ending.epoch);
        let allowed = match ending.state {
            TaskState::Succeeded => self.hosts.finished.contains_key(&key),
            TaskState::Cancelled => self.cancelled.contains(id),
            TaskState::Unknown => {
                // An earlier attempt counts, too: it may have been carried out.
                let mut heard = (1..=ending.epoch).map(|epoch| self.heard.get(&(id.to_owned(), epoch)));
                // Not at all: it was stored, and the control plane died before it sent it.
                heard.any(|at| at.is_none_or(|at| ending.at - at >= lost_after()))
                    || self.lost.iter().any(|lost| lost.0 == *id)
            }
            _ => false,
        };
        if !allowed {
            return Err(format!("nothing that happened explains {id}: {ending:?}"));
        }
        let mut stored = Vec::new();
        for (start, data) in self.control_plane.output(id) {
            if start != stored.len() as u64 {
                return Err(format!("output of {id} goes on at {start} after {}", stored.len()));
            }
            stored.extend_from_slice(&data);
        }
        let own = &stored[usize::try_from(ending.output_base).unwrap_or(usize::MAX).min(stored.len())..];
        let result = &ending.result;
        if ending.state == TaskState::Succeeded && !result.output_gap {
            let made = self.hosts.finished[&key];
            let whole = own.len() as u64 == made || (result.output_truncated && (own.len() as u64) < made);
            let right = own.iter().enumerate().all(|(at, found)| *found == byte(&key, at as u64));
            if !whole || !right {
                return Err(format!("{id} made {made} bytes, {} are stored, right: {right}; {ending:?}", own.len()));
            }
        }
        // Nobody's agent lost output here but by dying. Beyond the bound it may call it a gap: it was told that those bytes were
        // taken, and the control plane forgets with a restart how many it counted and did not store.
        let mut broken_off = self.lost.iter().chain(&self.interrupted);
        if result.output_gap && !result.output_truncated && !broken_off.any(|broken_off| broken_off.0 == *id) {
            return Err(format!("the output of {id} has a gap: {ending:?}"));
        }
        Ok(())
    }
}
