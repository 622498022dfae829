//! The host behind the protocol: its shells and commands, and what each operation does with them.
//!
//! Called by the HTTP layer with requests whose header is in order and whose user is known. Deals with no bytes of HTTP.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::conditions::Conditions;
use crate::configuration::{CONFIG, Configuration, LISTENER, MAPPING};
use crate::envelope::{self, Operation, Request};
use crate::fault::Fault;
use crate::keys::Keys;
use crate::lines::Lines;
use crate::options::Options;
use crate::process::Stream;
use crate::programs::Machine;
use crate::statistics::{Recorder, Statistics};

mod checks;
mod commands;
mod configuration;
mod listing;
mod shell;
mod shells;

use self::listing::Listing;
use self::shell::Shell;

const SHELL: &str = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell";
const SHELL_CMD: &str = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/cmd";
/// The IdleTimeOut of a shell that asks for none.
const IDLE_TIMEOUT: Duration = Duration::from_secs(7200);

/// One simulated host.
pub(crate) struct Host {
    pub(crate) options: Arc<Options>,
    pub(crate) recorder: Recorder,
    pub(crate) clock: Clock,
    pub(crate) lines: Arc<Lines>,
    pub(crate) conditions: Conditions,
    /// The host's keys, when it knows Kerberos.
    pub(crate) keys: Option<Keys>,
    /// Whether the listener listens, once there is one.
    pub(crate) listening: watch::Sender<Option<bool>>,
    pub(crate) machine: Arc<Machine>,
    configuration: Mutex<Configuration>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    shells: HashMap<String, Shell>,
    listings: BTreeMap<String, Listing>,
}

/// Who asks, and from where.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) user: String,
    pub(crate) client: String,
}

/// One open shell, as the administration listener shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShellInfo {
    /// Its ShellId.
    pub id: String,
    /// The name that its creator gave it.
    pub name: Option<String>,
    /// Who created it.
    pub owner: String,
    /// The address it was created from.
    pub client: String,
    /// Its commands that nobody has signalled yet: CommandId, command line, and whether it still runs.
    pub commands: Vec<CommandInfo>,
}

/// One command of a shell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandInfo {
    /// Its CommandId.
    pub id: String,
    /// Command and arguments, joined.
    pub line: String,
    /// Whether the process has not ended.
    pub running: bool,
}

impl Host {
    pub(crate) fn new(options: Arc<Options>) -> Self {
        let machine = Arc::new(Machine::new(&options.hostname, options.powershell.clone()));
        let clock = Clock::default();
        let lines = Arc::new(Lines::new(clock.clone()));
        let conditions = Conditions::new(&options, clock.now());
        let configuration = Mutex::new(options.configuration.clone());
        let keys = options.kerberos.as_ref().map(|kerberos| Keys::new(&kerberos.keytab));
        Self {
            options,
            recorder: Recorder::default(),
            clock,
            lines,
            conditions,
            keys,
            listening: watch::Sender::new(None),
            machine,
            configuration,
            state: Mutex::default(),
        }
    }

    /// Does what a request asks for and returns the envelope of the answer.
    pub(crate) async fn perform(&self, request: &Request, caller: &Caller) -> Result<Vec<u8>, Fault> {
        self.sweep();
        for violation in &request.tolerated {
            self.recorder.violation(format!("{}: {violation}", request.operation.name()));
        }
        if self.options.denied_users.iter().any(|user| user.eq_ignore_ascii_case(&caller.user)) {
            return Err(Fault::access_denied());
        }
        let ordered = self.conditions.take_fault(request.operation.name());
        if let Some((fault, false)) = ordered {
            return Err(fault);
        }
        let body = match (request.resource.as_str(), request.operation) {
            (CONFIG | LISTENER | MAPPING, _) if self.is_standard(caller) => return Err(Fault::access_denied()),
            (CONFIG, Operation::Get) => self.config(request)?,
            (LISTENER, Operation::Get) => self.listener(request)?,
            (SHELL | LISTENER | MAPPING, Operation::Enumerate) => self.enumerate(request, caller)?,
            (SHELL | LISTENER | MAPPING, Operation::Pull) => self.pull(request, caller)?,
            (SHELL | LISTENER | MAPPING, Operation::Release) => self.release(request, caller)?,
            (SHELL_CMD, Operation::Create) => self.create(request, caller)?,
            (SHELL_CMD | SHELL, Operation::Get) => self.get(request, caller)?,
            (SHELL_CMD | SHELL, Operation::Delete) => self.delete(request, caller)?,
            (SHELL_CMD | SHELL, Operation::Command) => self.command(request, caller)?,
            (SHELL_CMD | SHELL, Operation::Send) => self.send(request, caller).await?,
            (SHELL_CMD | SHELL, Operation::Receive) => self.receive(request, caller).await?,
            (SHELL_CMD | SHELL, Operation::Signal) => self.signal(request, caller)?,
            (SHELL_CMD | SHELL | CONFIG | LISTENER | MAPPING, _) => {
                return Err(self.against(request, Fault::action_not_supported(), "wrong resource"));
            }
            _ => return Err(Fault::resource_not_found(&request.resource)),
        };
        if let Some((fault, true)) = ordered {
            return Err(fault);
        }
        let action = format!("{}Response", request.action);
        Ok(envelope::response(&action, Some(&request.message_id), &body))
    }

    /// All open shells.
    pub(crate) fn shells(&self) -> Vec<ShellInfo> {
        let state = self.lock();
        let mut shells: Vec<ShellInfo> = state
            .shells
            .values()
            .map(|shell| ShellInfo {
                id: shell.id.clone(),
                name: shell.name.clone(),
                owner: shell.owner.clone(),
                client: shell.client.clone(),
                commands: shell
                    .commands
                    .iter()
                    .map(|(id, command)| CommandInfo {
                        id: id.clone(),
                        line: command.line.clone(),
                        running: command.process.is_running(),
                    })
                    .collect(),
            })
            .collect();
        shells.sort_by(|one, other| one.id.cmp(&other.id));
        shells
    }

    /// What was counted, and what runs now.
    pub(crate) fn statistics(&self) -> Statistics {
        let mut statistics = self.recorder.snapshot();
        let state = self.lock();
        let commands = state.shells.values().flat_map(|shell| shell.commands.values());
        statistics.commands.running = commands.filter(|command| command.process.is_running()).count() as u64;
        statistics.marks = self.machine.marks();
        statistics
    }

    /// Sets every counter to zero.
    pub(crate) fn reset(&self) {
        self.recorder.reset();
        self.machine.forget_marks();
    }

    /// Removes shells that nobody has used for their IdleTimeOut.
    pub(crate) fn sweep(&self) {
        let mut state = self.lock();
        let before = state.shells.len();
        state.shells.retain(|_, shell| self.clock.since(shell.active) < shell.idle_timeout);
        let expired = (before - state.shells.len()) as u64;
        drop(state);
        if expired > 0 {
            self.recorder.count(|statistics| {
                statistics.shells.expired += expired;
                statistics.shells.open = statistics.shells.open.saturating_sub(expired);
            });
        }
    }

    /// Forgets every shell with its commands and every listing, as the end of the service does. What was written to disk stays.
    pub(crate) fn forget(&self) {
        let state = std::mem::take(&mut *self.lock());
        self.recorder.count(|statistics| {
            statistics.shells.lost += state.shells.len() as u64;
            statistics.shells.open = 0;
        });
        drop(state);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock leaves a shell half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn shell(&mut self, id: &str, caller: &Caller, now: Instant) -> Result<&mut Shell, Fault> {
        let shell = self.shells.get_mut(id).ok_or_else(|| Fault::shell_not_found(id))?;
        if shell.owner != caller.user {
            return Err(Fault::other_owner());
        }
        shell.active = now;
        Ok(shell)
    }
}

/// The names of output streams, at least one.
fn streams(names: &str) -> Option<Vec<Stream>> {
    let streams = names
        .split_whitespace()
        .map(|name| match name {
            "stdout" => Some(Stream::Stdout),
            "stderr" => Some(Stream::Stderr),
            _ => None,
        })
        .collect::<Option<Vec<_>>>()?;
    (!streams.is_empty()).then_some(streams)
}

#[cfg(test)]
mod tests;
