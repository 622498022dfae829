//! What the engine can be asked for, the handle to ask it by, and the ways in which it refuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lictor_proto::v1::{
    Agent, AgentEvent, AgentSelector, Candidate, Credential, EnrollRequest, EnrollResponse, JoinToken,
    PrepareSecretRequest, PrepareSecretResponse, RenewIdentityRequest, RenewIdentityResponse, SealedValue, Secret,
    SecretManager,
};
use tokio::sync::{mpsc, oneshot};

use super::{NewCredential, NewJoinToken, NewSecret, NewToken, NewUser, space};
use crate::access::{Caller, Summary};
use crate::clock::UnixMillis;
use crate::dispatch::SessionId;
use crate::outbox::Outbox;
use crate::platform;
use crate::store::access::{TokenRecord, UserRecord};
use crate::store::batches::NewBatch;
use crate::store::tasks::NewTask;
use crate::vault::Keyring;

/// Why a command was refused. The text is for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Unauthenticated(String),
    #[error("{0}")]
    Denied(String),
    /// The name is somebody's already.
    #[error("{0}")]
    Taken(String),
    /// Not as things are.
    #[error("{0}")]
    Impossible(String),
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Exhausted(String),
    /// Nobody can do it now.
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Internal(String),
    /// The engine has stopped.
    #[error("the control plane is stopping")]
    Stopping,
}

/// Where the answer to a command goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// What the engine is asked to do.
pub(crate) enum Command {
    Submit {
        task: Box<NewTask>,
        by: Caller,
        reply: Reply<String>,
    },
    Cancel {
        task_id: String,
        reason: String,
        by: Caller,
        reply: Reply<()>,
    },
    SubmitBatch {
        batch: Box<NewBatch>,
        by: Caller,
        reply: Reply<String>,
    },
    CancelBatch {
        batch_id: String,
        reason: String,
        by: Caller,
        reply: Reply<()>,
    },
    Candidates {
        task_id: String,
        reply: Reply<Vec<Candidate>>,
    },
    Agents {
        reply: Reply<Vec<Agent>>,
    },
    DrainAgent {
        agent: String,
        reason: String,
        by: Caller,
        reply: Reply<Agent>,
    },
    RevokeAgent {
        agent: String,
        reason: String,
        by: Caller,
        reply: Reply<Agent>,
    },
    CreateJoinToken {
        token: Box<NewJoinToken>,
        by: Caller,
        reply: Reply<JoinToken>,
    },
    RevokeJoinToken {
        token_id: String,
        by: Caller,
        reply: Reply<JoinToken>,
    },
    Enroll {
        request: Box<EnrollRequest>,
        /// Address it came from.
        source: String,
        reply: Reply<EnrollResponse>,
    },
    Renew {
        agent_id: String,
        request: Box<RenewIdentityRequest>,
        reply: Reply<RenewIdentityResponse>,
    },
    PutCredential {
        credential: Box<NewCredential>,
        by: Caller,
        reply: Reply<Credential>,
    },
    DeleteCredential {
        name: String,
        by: Caller,
        reply: Reply<()>,
    },
    /// Chooses the agent that a secret's value is to be sealed to.
    PrepareSecret {
        request: PrepareSecretRequest,
        by: Caller,
        reply: Reply<PrepareSecretResponse>,
    },
    /// Stores a value that was sealed to an agent; the answer comes when that agent has done its part.
    PutSealed {
        secret: Box<Secret>,
        sealed: SealedValue,
        by: Caller,
        reply: Reply<Secret>,
    },
    /// Tests a secret manager; the answer is the task.
    TestManager {
        identifier: String,
        selector: AgentSelector,
        by: Caller,
        reply: Reply<String>,
    },
    /// AWS KMS has answered the control plane itself.
    Fetched(platform::Fetched),
    PutSecret {
        secret: Box<NewSecret>,
        by: Caller,
        reply: Reply<Secret>,
    },
    DeleteSecret {
        identifier: String,
        by: Caller,
        reply: Reply<()>,
    },
    PutSecretManager {
        manager: Box<SecretManager>,
        by: Caller,
        reply: Reply<SecretManager>,
    },
    DeleteSecretManager {
        identifier: String,
        by: Caller,
        reply: Reply<()>,
    },
    /// The file of master keys holds others than before.
    ReplaceKeys {
        ring: Keyring,
        reply: Reply<()>,
    },
    WhoAmI {
        by: Caller,
        reply: Reply<(UserRecord, TokenRecord)>,
    },
    CreateUser {
        user: NewUser,
        by: Caller,
        reply: Reply<UserRecord>,
    },
    /// Enables or disables a user.
    SetUser {
        name: String,
        enabled: bool,
        by: Caller,
        reply: Reply<UserRecord>,
    },
    IssueToken {
        token: NewToken,
        by: Caller,
        reply: Reply<TokenRecord>,
    },
    RevokeToken {
        token_id: String,
        by: Caller,
        reply: Reply<TokenRecord>,
    },
    /// Notes that the audit log is exported; the answer is the number of its last entry.
    NoteExport {
        from: Option<UnixMillis>,
        to: Option<UnixMillis>,
        follow: bool,
        by: Caller,
        reply: Reply<u64>,
    },
    /// What the services saw: refused calls, and when tokens were used.
    NoteAccess {
        refused: Option<Summary>,
        used: Vec<(String, UnixMillis)>,
    },
    /// A session opens; the first event is Hello.
    Open {
        agent_id: String,
        session: SessionId,
        outbox: Arc<Outbox>,
        events: Vec<AgentEvent>,
        /// It is a poll: the session is over with its answer, and another one follows.
        polling: bool,
    },
    /// Events handed over beside the link; the first one is Hello. The answer is in the outbox once this is done.
    Report {
        agent_id: String,
        session: SessionId,
        outbox: Arc<Outbox>,
        events: Vec<AgentEvent>,
        reply: Reply<()>,
    },
    /// Events of an open session.
    Events {
        agent_id: String,
        session: SessionId,
        events: Vec<AgentEvent>,
    },
    /// The connection of a session is gone.
    Closed {
        agent_id: String,
        session: SessionId,
    },
}

/// Asks the engine. Cloneable.
#[derive(Clone)]
pub(crate) struct EngineHandle {
    pub(super) commands: mpsc::Sender<Command>,
    /// Nothing can be stored.
    pub(super) full: Arc<AtomicBool>,
}

impl EngineHandle {
    /// A handle whose commands the test takes.
    #[cfg(test)]
    pub(crate) fn for_tests() -> (Self, mpsc::Receiver<Command>) {
        let (commands, taken) = mpsc::channel(1);
        (Self { commands, full: Arc::default() }, taken)
    }

    /// Sends a command that has an answer and waits for it.
    pub(crate) async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Command) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.tell(make(reply)).await?;
        answer.await.unwrap_or_else(|_| {
            Err(match self.full.load(Ordering::Acquire) {
                true => Refusal::Exhausted(space::FULL.into()),
                false => Refusal::Stopping,
            })
        })
    }

    /// Sends a command. Waits while the engine is busy: that is what slows an agent down which sends faster than the
    /// disk writes.
    pub(crate) async fn tell(&self, command: Command) -> Result<(), Refusal> {
        self.commands.send(command).await.map_err(|_| Refusal::Stopping)
    }
}
