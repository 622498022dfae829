//! The gRPC services: they check who calls and what is asked, and hand the rest to the engine or the readers.
//!
//! No decision about tasks or agents is made here.

mod access;
mod agents;
mod batches;
mod calls;
mod credentials;
mod door;
mod fleet;
mod follower;
mod gate;
mod permissions;
mod sealing;
mod secrets;
mod shown;
mod tasks;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lictor_proto::v1::access_service_server::AccessServiceServer;
use lictor_proto::v1::agent_service_server::AgentServiceServer;
use lictor_proto::v1::batch_service_server::BatchServiceServer;
use lictor_proto::v1::credential_service_server::CredentialServiceServer;
use lictor_proto::v1::fleet_service_server::FleetServiceServer;
use lictor_proto::v1::secret_service_server::SecretServiceServer;
use lictor_proto::v1::task_service_server::TaskServiceServer;
use lictor_proto::{MAX_MESSAGE_BYTES, MAX_REPORT_BYTES};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::service::Routes;
use tracing::error;

use crate::access::{Directory, Guard};
use crate::authority::Authority;
use crate::dispatch::SessionId;
use crate::engine::{EngineHandle, Refusal};
use crate::metrics::Metrics;
use crate::store::{Readers, StoreError};
use crate::validate::Violations;
use crate::watchers::Watchers;

pub(crate) use calls::Calls;
use door::Door;
use gate::Gate;

/// What the services share.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) engine: EngineHandle,
    pub(crate) readers: Readers,
    pub(crate) watchers: Arc<Watchers>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) users: Arc<Directory>,
    pub(crate) guard: Arc<Guard>,
    pub(crate) metrics: Arc<Metrics>,
    /// Number of the newest entry of the audit log.
    pub(crate) audited: watch::Receiver<u64>,
    pub(crate) sessions: Arc<AtomicU64>,
    pub(crate) calls: Calls,
    /// Owns what outlives a call: readers of sessions.
    pub(crate) tracker: TaskTracker,
    pub(crate) stop: CancellationToken,
    /// How long an agent may say nothing before its session ends.
    pub(crate) silence: Duration,
}

impl Api {
    fn next_session(&self) -> SessionId {
        self.sessions.fetch_add(1, Ordering::Relaxed)
    }

    /// All services; users' behind their bearer token, agents' behind their certificate.
    pub(crate) fn routes(self) -> Routes {
        let agents = AgentServiceServer::new(self.clone())
            .max_decoding_message_size(MAX_REPORT_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let (users, guard) = (Arc::clone(&self.users), Arc::clone(&self.guard));
        let door = Door { users, guard, metrics: Arc::clone(&self.metrics) };
        let tasks = TaskServiceServer::new(self.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let batches = BatchServiceServer::new(self.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let fleet = FleetServiceServer::new(self.clone()).max_decoding_message_size(MAX_REPORT_BYTES);
        let credentials = CredentialServiceServer::new(self.clone()).max_decoding_message_size(MAX_REPORT_BYTES);
        let secrets = SecretServiceServer::new(self.clone()).max_decoding_message_size(MAX_REPORT_BYTES);
        let access = AccessServiceServer::new(self).max_decoding_message_size(MAX_REPORT_BYTES);
        // A service of users' without the door before it would be open to everybody.
        Routes::new(Gate::new(agents))
            .add_service(door.before(tasks))
            .add_service(door.before(batches))
            .add_service(door.before(fleet))
            .add_service(door.before(credentials))
            .add_service(door.before(secrets))
            .add_service(door.before(access))
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::NotFound(_) => Self::not_found(text),
            Refusal::Unauthenticated(_) => Self::unauthenticated(text),
            Refusal::Denied(_) => Self::permission_denied(text),
            Refusal::Taken(_) => Self::already_exists(text),
            Refusal::Impossible(_) => Self::failed_precondition(text),
            Refusal::Invalid(_) => Self::invalid_argument(text),
            Refusal::Exhausted(_) => Self::resource_exhausted(text),
            Refusal::Unavailable(_) => Self::unavailable(text),
            Refusal::Internal(_) => Self::internal(text),
            Refusal::Stopping => Self::unavailable(text),
        }
    }
}

impl From<Violations> for Status {
    fn from(violations: Violations) -> Self {
        Self::invalid_argument(violations.to_string())
    }
}

/// The details are for our log, not for the caller.
impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        error!(error = %crate::app::chain(&error), "Database could not be read");
        Self::internal("the control plane's database could not be read; its log says why")
    }
}

/// Where the page goes on, from a page token.
fn parse_page_token<T: std::str::FromStr>(token: &str) -> Result<Option<T>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    token.parse().map(Some).map_err(|_| Status::invalid_argument("page_token: not one of this control plane's"))
}

/// The page size asked for, within its bounds.
fn page_size(wanted: u32, default: u32, most: u32) -> u32 {
    if wanted == 0 { default } else { wanted.min(most) }
}

/// As many as fit into one page and one message, and whether there are more. One always fits.
fn page<T: prost::Message>(all: impl IntoIterator<Item = T>, size: u32) -> (Vec<T>, bool) {
    let (mut page, mut bytes) = (Vec::new(), 0);
    for item in all {
        bytes += item.encoded_len();
        if page.len() >= size as usize || (bytes > PAGE_BYTES && !page.is_empty()) {
            return (page, true);
        }
        page.push(item);
    }
    (page, false)
}

/// Well below the message limit, so that one large item more still fits.
const PAGE_BYTES: usize = MAX_MESSAGE_BYTES / 2;

#[cfg(test)]
mod tests {
    use lictor_proto::v1::Agent;

    use super::*;

    #[test]
    fn a_page_is_bounded_in_items_and_in_bytes() {
        let agents = |count: usize, bytes: usize| {
            std::iter::repeat_n(Agent { description: "x".repeat(bytes), ..Agent::default() }, count)
        };
        assert_eq!(page(agents(3, 1), 3).0.len(), 3);
        assert!(!page(agents(3, 1), 3).1);
        assert_eq!((page(agents(4, 1), 3).0.len(), page(agents(4, 1), 3).1), (3, true));
        let (large, more) = page(agents(10, PAGE_BYTES / 4), 100);
        assert_eq!((large.len(), more), (3, true));
        assert_eq!(page(agents(2, PAGE_BYTES * 2), 100).0.len(), 1);
    }
}
