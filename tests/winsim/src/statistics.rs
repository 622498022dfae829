//! What the simulated host has seen, for tests to assert on.
//!
//! Bounded: lists keep their newest entries, maps their first ones. Counting never fails and never waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// Everything that is counted since the start or the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// TCP connections.
    pub connections: Connections,
    /// Handshakes and logons.
    pub authentication: AuthenticationCounts,
    /// Requests by operation (`Identify`, `Create`, `Command`, `Send`, `Receive`, `Signal`, `Delete`, `Get`, `Enumerate`, `Pull`,
    /// `Release`), faults included.
    pub operations: BTreeMap<String, u64>,
    /// Faults by their decimal code.
    pub faults: BTreeMap<String, u64>,
    /// Shells.
    pub shells: ShellCounts,
    /// Commands.
    pub commands: CommandCounts,
    /// Signals by the last part of their code: `terminate`, `ctrl_c`, `ctrl_break`.
    pub signals: BTreeMap<String, u64>,
    /// How often `sim.exe mark NAME` was run, by name: which tasks were carried out how often, whatever restarted meanwhile.
    pub marks: BTreeMap<String, u64>,
    /// How many requests were against the protocol.
    pub violation_count: u64,
    /// The newest 200 of them, in words.
    pub violations: VecDeque<String>,
    /// The newest 1000 exchanges.
    pub exchanges: VecDeque<Exchange>,
}

/// TCP connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// Accepted so far. Failed TLS handshakes count.
    pub opened: u64,
    /// Open now.
    pub open: u64,
    /// Closed by the host because nobody asked anything for 120 s.
    pub closed_idle: u64,
    /// Ended by a restart of the machine or the service.
    pub cut: u64,
}

/// Handshakes and logons.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthenticationCounts {
    /// Exchanges that carried no operation because of authentication: every 401, and the empty request that ends a handshake.
    pub legs: u64,
    /// NTLM and Kerberos handshakes that ended well.
    pub handshakes: u64,
    /// Those of them that were Kerberos.
    pub kerberos: u64,
    /// Those of Kerberos that came with a ticket to act in the client's name.
    pub delegated: u64,
    /// Requests with valid Basic credentials.
    pub basic: u64,
    /// Kerberos tickets that were no good, by the name of the error: `KRB_AP_ERR_MODIFIED` and so on.
    pub refused_tickets: BTreeMap<String, u64>,
    /// Refused logons by the name that was sent. Of a Kerberos ticket that was good it is the principal.
    pub failed_logons: BTreeMap<String, u64>,
}

/// Shells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShellCounts {
    /// Created.
    pub opened: u64,
    /// Open now.
    pub open: u64,
    /// Deleted by their users.
    pub deleted: u64,
    /// Removed after their IdleTimeOut.
    pub expired: u64,
    /// Gone with a restart of the machine or the service.
    pub lost: u64,
}

/// Commands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandCounts {
    /// Started.
    pub started: u64,
    /// Whose process runs now.
    pub running: u64,
    /// How often the most requested CommandId was asked to be started. More than 1 is a double start.
    pub most_requests_per_id: u64,
    /// The most output that waited for a client in any process, in bytes.
    pub largest_backlog: u64,
}

/// One HTTP exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// Counted from 1 since the start of the host.
    pub number: u64,
    /// The connection, counted from 1.
    pub connection: u64,
    /// The operation, `Authenticate` for a leg, `Refused` for what was no operation at all.
    pub operation: String,
    /// Whether the request body was sealed.
    pub sealed: bool,
    /// Whose request it was, when that was known.
    pub user: Option<String>,
    /// The HTTP status of the answer.
    pub status: u16,
    /// The code of the fault in the answer.
    pub fault: Option<u32>,
}

const MAX_VIOLATIONS: usize = 200;
const MAX_EXCHANGES: usize = 1000;
/// Of names of users and of CommandIds. Later ones are not told apart.
const MAX_KEYS: usize = 100_000;

/// The counters of a host.
#[derive(Default)]
pub(crate) struct Recorder(Mutex<Recorded>);

#[derive(Default)]
struct Recorded {
    statistics: Statistics,
    exchanges: u64,
    command_ids: BTreeMap<String, u64>,
}

impl Recorder {
    /// What was counted. `commands.running` and `marks` are the host's to say.
    pub(crate) fn snapshot(&self) -> Statistics {
        self.lock().statistics.clone()
    }

    /// Forgets everything but what is open now.
    pub(crate) fn reset(&self) {
        let mut recorded = self.lock();
        let old = std::mem::take(&mut recorded.statistics);
        recorded.statistics.connections.open = old.connections.open;
        recorded.statistics.shells.open = old.shells.open;
        recorded.command_ids.clear();
    }

    /// Counts something.
    pub(crate) fn count(&self, count: impl FnOnce(&mut Statistics)) {
        count(&mut self.lock().statistics);
    }

    pub(crate) fn violation(&self, text: String) {
        tracing::debug!(violation = %text, "Request against the protocol");
        let statistics = &mut self.lock().statistics;
        statistics.violation_count += 1;
        push(&mut statistics.violations, text, MAX_VIOLATIONS);
    }

    pub(crate) fn failed_logon(&self, user: &str) {
        tracing::debug!(user, "Logon refused");
        increment(&mut self.lock().statistics.authentication.failed_logons, user);
    }

    pub(crate) fn refused_ticket(&self, error: &str) {
        tracing::debug!(error, "Kerberos ticket refused");
        increment(&mut self.lock().statistics.authentication.refused_tickets, error);
    }

    /// Counts that a client asked to start a command.
    pub(crate) fn command_requested(&self, shell: &str, command: &str) {
        let recorded = &mut *self.lock();
        let times = increment(&mut recorded.command_ids, &format!("{shell}/{command}"));
        let most = &mut recorded.statistics.commands.most_requests_per_id;
        *most = (*most).max(times);
    }

    pub(crate) fn exchange(&self, mut exchange: Exchange) {
        let recorded = &mut *self.lock();
        recorded.exchanges += 1;
        exchange.number = recorded.exchanges;
        let statistics = &mut recorded.statistics;
        match exchange.operation.as_str() {
            "Authenticate" => statistics.authentication.legs += 1,
            "Refused" => {}
            operation => {
                increment(&mut statistics.operations, operation);
            }
        }
        if let Some(code) = exchange.fault {
            increment(&mut statistics.faults, &code.to_string());
        }
        push(&mut statistics.exchanges, exchange, MAX_EXCHANGES);
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        // Counters stay whole whoever panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds one and returns the sum.
pub(crate) fn increment(map: &mut BTreeMap<String, u64>, key: &str) -> u64 {
    if let Some(count) = map.get_mut(key) {
        *count += 1;
        return *count;
    }
    if map.len() < MAX_KEYS {
        map.insert(key.to_owned(), 1);
    }
    1
}

fn push<T>(list: &mut VecDeque<T>, item: T, limit: usize) {
    if list.len() == limit {
        list.pop_front();
    }
    list.push_back(item);
}
