//! Settings under the names that a Harness delegate has for them, so that a deployment's variables go on working. Each
//! counts only where the agent's own setting is not given. Called by the loader.

use super::proxy::Foreign;
use super::reader::Reader;

/// What was found in the environment.
#[derive(Debug, Default)]
pub(super) struct Delegate {
    poll: Option<String>,
    /// About proxies, also under the names that many programs share.
    pub(super) proxy: Foreign,
}

impl Delegate {
    /// Takes a variable that is meant for here.
    pub(super) fn takes(&mut self, name: &str, value: &str) -> bool {
        let place = match name {
            "POLL_FOR_TASKS" => &mut self.poll,
            _ => return self.proxy.takes(name, value),
        };
        *place = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        true
    }

    /// Sets what is not set.
    pub(super) fn apply(&mut self, reader: &mut Reader) {
        match self.poll.as_deref() {
            Some("true") => reader.set_default("transport", "poll"),
            None | Some("false") => {}
            Some(_) => reader.mistake("POLL_FOR_TASKS", "must be true or false"),
        }
    }
}
