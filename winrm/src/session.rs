//! A session: one connection and the remote shell that it works on.
//!
//! Turns operations into exchanges and answers into values or errors of the right stage. It decides nothing about
//! retries: whether something may be repeated is for the pool and the probe, which call this, to say. The shell may outlive
//! its connection, and the connection its shell.

mod configuration;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::connection::Connection;
use crate::error::{Error, ErrorKind, Stage};
use crate::fault::{Fault, Meaning, Operation};
use crate::shell::Turn;
use crate::soap::{SoapError, Unsendable};
use crate::spans;
use crate::target::Target;
use crate::wsman::{CommandRef, ListedShell, Listing, Requests, Response, Signal, parse};

/// Answers that a listing of shells may take.
const MAX_PAGES: usize = 8;

/// One connection and one shell, either of which may be missing.
#[derive(Debug)]
pub(crate) struct Session {
    target: Target,
    requests: Requests,
    connection: Option<Connection>,
    shell: Option<Shell>,
    /// What names of shells begin with.
    naming: Arc<str>,
    /// Name of a shell that was asked for and may exist, though the host's answer never came.
    unconfirmed: Option<String>,
    /// Exchanges of connections that are gone.
    carried: u32,
    /// Exchanges of the connection that was taken out with a request.
    taken_out: u32,
    /// Rejections that the pool had heard of when the credential was last found to be allowed, and one; 0: never.
    allowed: AtomicU64,
}

/// A request under way on a connection of its own. It can be waited for in pieces. An error says that there is no connection
/// to send it over; nothing was written.
pub(crate) type UnderWay = Pin<Box<dyn Future<Output = Result<Returned, Error>> + Send>>;

/// What comes back of a request under way.
#[derive(Debug)]
pub(crate) struct Returned {
    /// To be given back to the session; usable or not.
    pub(crate) connection: Connection,
    /// The answer to the request.
    pub(crate) result: Result<Response, Error>,
}

/// A remote shell.
#[derive(Debug, Clone)]
pub(crate) struct Shell {
    pub(crate) id: String,
    /// A command that ended and is still to be signalled ([MS-WSMV] 3.1.4.14).
    pub(crate) ended: Option<Uuid>,
}

impl Session {
    /// `naming` is what the names of its shells begin with.
    pub(crate) fn new(target: Target, naming: Arc<str>) -> Self {
        let requests = Requests::new(target.endpoint.to_string(), new_id(), target.timeouts.operation);
        Self {
            target,
            requests,
            connection: None,
            shell: None,
            naming,
            unconfirmed: None,
            carried: 0,
            taken_out: 0,
            allowed: AtomicU64::new(0),
        }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Takes over what may differ between callers that share a session.
    pub(crate) fn adopt(&mut self, target: &Target) {
        self.target.timeouts = target.timeouts;
        self.requests.set_operation_timeout(target.timeouts.operation);
    }

    /// Up to which count of rejections the credential is known to be allowed.
    pub(crate) fn allowed_until(&self) -> Option<u64> {
        self.allowed.load(Ordering::Relaxed).checked_sub(1)
    }

    /// The credential is allowed, all of these rejections considered.
    pub(crate) fn allow_until(&self, rejections: u64) {
        self.allowed.store(rejections.saturating_add(1), Ordering::Relaxed);
    }

    pub(crate) fn connection(&self) -> Option<&Connection> {
        self.connection.as_ref()
    }

    /// Whether an exchange can be tried on the connection.
    pub(crate) fn is_connected(&self) -> bool {
        self.connection.as_ref().is_some_and(Connection::is_usable)
    }

    pub(crate) fn connect(&mut self, connection: Connection) {
        drop(self.disconnect());
        self.connection = Some(connection);
    }

    /// Gives up the connection; the shell lives on.
    pub(crate) fn disconnect(&mut self) -> Option<Connection> {
        let connection = self.connection.take();
        self.carried = self.carried.saturating_add(connection.as_ref().map_or(0, Connection::exchanges));
        connection
    }

    pub(crate) fn shell(&self) -> Option<&Shell> {
        self.shell.as_ref()
    }

    pub(crate) fn shell_mut(&mut self) -> Option<&mut Shell> {
        self.shell.as_mut()
    }

    /// Forgets the shell: it is gone, or of no use and not ours to delete.
    pub(crate) fn forget_shell(&mut self) -> Option<Shell> {
        self.shell.take()
    }

    /// HTTP exchanges of this session in all, one under way not included.
    pub(crate) fn exchanges(&self) -> u32 {
        let current = self.connection.as_ref().map_or(0, Connection::exchanges);
        self.carried.saturating_add(self.taken_out).saturating_add(current)
    }

    /// Counts the exchanges of a connection that served this session and is gone.
    pub(crate) fn account(&mut self, connection: &Connection) {
        self.carried = self.carried.saturating_add(connection.exchanges());
    }

    /// Takes the connection out, and asks over it for what the command machine wants next: Send or Receive.
    pub(crate) fn take_out(&mut self, command_id: Uuid, turn: &Turn) -> Result<UnderWay, Error> {
        let request = self.request(command_id, turn)?;
        let Some(connection) = self.connection.take() else {
            return Err(Error::new(request.stage, ErrorKind::ConnectionClosed).unsent());
        };
        // One that was taken out before is gone.
        self.carried = self.carried.saturating_add(std::mem::replace(&mut self.taken_out, connection.exchanges()));
        Ok(Box::pin(async move { Ok(request.over(connection).await) }))
    }

    /// Gives back what [`Session::take_out`] took, or a connection that was opened in its place. One that is of no use any
    /// more, or that the session has no use for, is closed.
    pub(crate) fn put_back(&mut self, connection: Connection) {
        self.taken_out = 0;
        if self.is_connected() || !connection.is_usable() {
            self.account(&connection);
        } else {
            self.connect(connection);
        }
    }

    /// Creates a shell.
    pub(crate) async fn create(&mut self, deadline: Instant) -> Result<(), Error> {
        let id = new_id();
        let name = format!("{}{}", self.naming, id.simple());
        let envelope =
            self.requests.create(id, &name, &self.target.shell).map_err(|error| unsendable(Stage::OpenShell, error))?;
        self.unconfirmed = Some(name);
        let answer = self.call(Stage::OpenShell, "Create", id, envelope, self.wait(deadline)).await;
        let ambiguous = match &answer {
            Ok(Response::Created(_)) => false,
            Ok(Response::Fault(fault)) => fault.meaning(Operation::Create) == Meaning::Ambiguous,
            Ok(_) => true,
            Err(error) => !error.is_unsent() && !error.credential_rejected(),
        };
        if !ambiguous {
            self.unconfirmed = None;
        }
        match answer? {
            Response::Created(created) => {
                self.shell = Some(Shell { id: created.shell_id, ended: None });
                Ok(())
            }
            Response::Fault(fault) => Err(fault_error(Stage::OpenShell, fault)),
            other => Err(self.unexpected(Stage::OpenShell, &other)),
        }
    }

    /// Works on a shell that is there already.
    pub(crate) fn attach(&mut self, shell_id: &str) {
        self.shell = Some(Shell { id: shell_id.to_owned(), ended: None });
    }

    /// Whether a shell may exist whose identifier nobody knows.
    pub(crate) fn is_unconfirmed(&self) -> bool {
        self.unconfirmed.is_some()
    }

    /// Deletes the shell that may exist without our knowing its identifier, if it does.
    pub(crate) async fn delete_unconfirmed(&mut self, deadline: Instant) -> Result<(), Error> {
        if let Some(name) = self.unconfirmed.clone() {
            for shell in self.list_shells(deadline).await? {
                if shell.name.as_deref() == Some(&*name) {
                    self.delete_shell(&shell.shell_id, deadline).await?;
                }
            }
            self.unconfirmed = None;
        }
        Ok(())
    }

    /// The shells on the host that the user may see.
    pub(crate) async fn list_shells(&mut self, deadline: Instant) -> Result<Vec<ListedShell>, Error> {
        let mut shells = Vec::new();
        let mut id = new_id();
        let mut envelope = self.requests.list(id, Listing::Shells).map_err(|error| unsendable(Stage::Close, error))?;
        let mut operation = "Enumerate";
        for _ in 0..MAX_PAGES {
            let listed = match self.call(Stage::Close, operation, id, envelope, self.wait(deadline)).await? {
                Response::Listed(listed) => listed,
                Response::Fault(fault) => return Err(fault_error(Stage::Close, fault)),
                other => return Err(self.unexpected(Stage::Close, &other)),
            };
            shells.extend(listed.shells);
            let Some(context) = listed.more else { break };
            operation = "Pull";
            id = new_id();
            envelope = self
                .requests
                .list_more(id, Listing::Shells, &context)
                .map_err(|error| unsendable(Stage::Close, error))?;
        }
        Ok(shells)
    }

    /// Sends Command once.
    pub(crate) async fn command(&mut self, command_id: Uuid, line: &str, input: bool) -> Result<Response, Error> {
        let id = new_id();
        let shell_id = self.shell_id(Stage::Run)?;
        let command = CommandRef { shell_id: &shell_id, command_id };
        let envelope =
            self.requests.command(id, command, line, input).map_err(|error| unsendable(Stage::Run, error))?;
        let wait = Wait { limit: self.target.timeouts.read, by_deadline: false };
        self.call(Stage::Run, "Command", id, envelope, wait).await
    }

    /// Sends what the command machine asks for next, Command and the end apart.
    pub(crate) async fn turn(&mut self, command_id: Uuid, turn: &Turn) -> Result<Response, Error> {
        let request = self.request(command_id, turn)?;
        self.call(request.stage, request.operation, request.id, request.envelope, request.wait).await
    }

    /// The request for what the command machine asks for next, to be sent over any connection of the same user.
    pub(crate) fn request(&mut self, command_id: Uuid, turn: &Turn) -> Result<Prepared, Error> {
        let (id, stage) = (new_id(), stage_of(turn));
        let shell_id = self.shell_id(stage)?;
        let command = CommandRef { shell_id: &shell_id, command_id };
        let (operation, envelope, patience) = match turn {
            Turn::Send { data, end, patience } => {
                ("Send", self.requests.send(id, command, data, *end, *patience), *patience)
            }
            Turn::Receive { patience } => ("Receive", self.requests.receive(id, command, *patience), *patience),
            Turn::Command | Turn::Finished => return Err(Error::new(stage, ErrorKind::SessionInDoubt).unsent()),
        };
        let envelope = envelope.map_err(|error| unsendable(stage, error))?;
        // What the read timeout exceeds the operation timeout by is for the way there and back.
        let timeouts = self.target.timeouts;
        let limit = timeouts.read.saturating_sub(timeouts.operation).saturating_add(patience).min(timeouts.read);
        Ok(Prepared { stage, operation, id, envelope, wait: Wait { limit, by_deadline: false } })
    }

    /// Signals a command. A command that is gone already is a success.
    pub(crate) async fn signal(&mut self, command_id: Uuid, signal: Signal, deadline: Instant) -> Result<(), Error> {
        let id = new_id();
        let shell_id = self.shell_id(Stage::Close)?;
        let command = CommandRef { shell_id: &shell_id, command_id };
        let envelope = self.requests.signal(id, command, signal).map_err(|error| unsendable(Stage::Close, error))?;
        match self.call(Stage::Close, "Signal", id, envelope, self.wait(deadline)).await? {
            Response::Signalled => Ok(()),
            Response::Fault(fault) if fault.meaning(Operation::Signal) == Meaning::AlreadyGone => Ok(()),
            Response::Fault(fault) => Err(fault_error(Stage::Close, fault)),
            other => Err(self.unexpected(Stage::Close, &other)),
        }
    }

    /// Deletes the shell and everything in it. A shell that is gone already is a success.
    pub(crate) async fn delete(&mut self, deadline: Instant) -> Result<(), Error> {
        let shell_id = self.shell_id(Stage::Close)?;
        self.delete_shell(&shell_id, deadline).await?;
        self.shell = None;
        Ok(())
    }

    /// Deletes any shell of the user. One that is gone already is a success.
    pub(crate) async fn delete_shell(&mut self, shell_id: &str, deadline: Instant) -> Result<(), Error> {
        let id = new_id();
        let envelope = self.requests.delete(id, shell_id).map_err(|error| unsendable(Stage::Close, error))?;
        match self.call(Stage::Close, "Delete", id, envelope, self.wait(deadline)).await? {
            Response::Empty => Ok(()),
            Response::Fault(fault) if fault.meaning(Operation::Delete) == Meaning::AlreadyGone => Ok(()),
            Response::Fault(fault) => Err(fault_error(Stage::Close, fault)),
            other => Err(self.unexpected(Stage::Close, &other)),
        }
    }

    /// Bytes of input that one Send can carry.
    pub(crate) fn send_budget(&self) -> usize {
        self.requests.send_budget()
    }

    async fn call(
        &mut self,
        stage: Stage,
        operation: &'static str,
        id: Uuid,
        envelope: Vec<u8>,
        wait: Wait,
    ) -> Result<Response, Error> {
        let Some(connection) = &mut self.connection else {
            return Err(Error::new(stage, ErrorKind::ConnectionClosed).unsent());
        };
        exchange(connection, Prepared { stage, operation, id, envelope, wait }).await
    }

    fn unexpected(&mut self, stage: Stage, response: &Response) -> Error {
        drop(self.disconnect());
        let detail = format!("an answer to something else: {}", response.name());
        Error::new(stage, ErrorKind::SoapMalformed { detail })
    }

    fn shell_id(&self, stage: Stage) -> Result<String, Error> {
        match &self.shell {
            Some(shell) => Ok(shell.id.clone()),
            None => Err(Error::new(stage, ErrorKind::SessionInDoubt).unsent()),
        }
    }

    /// Until when a new connection and one exchange over it may take.
    pub(crate) fn soon(&self) -> Instant {
        Instant::now() + self.target.timeouts.connect + self.target.timeouts.read
    }

    fn wait(&self, deadline: Instant) -> Wait {
        let left = deadline.saturating_duration_since(Instant::now());
        let read = self.target.timeouts.read;
        Wait { limit: left.min(read), by_deadline: left < read }
    }
}

/// A request that is ready to be sent.
#[derive(Debug)]
pub(crate) struct Prepared {
    stage: Stage,
    /// As [MS-WSMV] calls it.
    operation: &'static str,
    id: Uuid,
    envelope: Vec<u8>,
    wait: Wait,
}

impl Prepared {
    /// Sends it over `connection`.
    pub(crate) async fn over(self, mut connection: Connection) -> Returned {
        let result = exchange(&mut connection, self).await;
        Returned { connection, result }
    }
}

async fn exchange(connection: &mut Connection, request: Prepared) -> Result<Response, Error> {
    let span = spans::exchange(request.operation);
    let result = exchange_once(connection, request).instrument(span.clone()).await;
    spans::note_end(&span, &result);
    result
}

async fn exchange_once(connection: &mut Connection, request: Prepared) -> Result<Response, Error> {
    let Prepared { stage, id, envelope, wait, .. } = request;
    let answer = match connection.exchange(Bytes::from(envelope), wait.limit).await {
        Ok(answer) => answer,
        Err(error) if wait.by_deadline && matches!(error.kind(), ErrorKind::ReadTimeout { .. }) => {
            return Err(Error::new(stage, ErrorKind::DeadlinePassed));
        }
        Err(error) => return Err(error.at(stage)),
    };
    let response = parse(&answer.body, Some(id));
    if response.is_err() {
        // Whoever answers like this cannot be trusted with the next request.
        connection.close();
    }
    response.map_err(|error| soap_error(stage, error))
}

fn stage_of(turn: &Turn) -> Stage {
    if matches!(turn, Turn::Receive { .. }) { Stage::Receive } else { Stage::Run }
}

/// A random identifier. Unlike [`Uuid::new_v4`] it costs no system call each time.
fn new_id() -> Uuid {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid()
}

/// How long an answer may take, and whether that is the caller's deadline.
#[derive(Debug)]
struct Wait {
    limit: Duration,
    by_deadline: bool,
}

pub(crate) fn fault_error(stage: Stage, fault: Fault) -> Error {
    Error::new(stage, ErrorKind::Fault(fault))
}

pub(crate) fn soap_error(stage: Stage, error: SoapError) -> Error {
    let kind = match error {
        SoapError::TooLarge { limit } => ErrorKind::AnswerTooLarge { limit },
        SoapError::WrongRelatesTo { found } => ErrorKind::WrongRelatesTo { found },
        other => ErrorKind::SoapMalformed { detail: other.to_string() },
    };
    Error::new(stage, kind)
}

fn unsendable(stage: Stage, error: Unsendable) -> Error {
    Error::new(stage, ErrorKind::RequestUnsendable { detail: error.to_string() }).unsent()
}
