//! Sessions that are lent, and how a command is started in one: at most once.
//!
//! INVARIANT: whenever a future of these types is dropped half-way, what is left says so: a command that may run marks the
//! lease as in doubt before anything is sent and clears the mark when its end is known. Dropping a lease in doubt ends its
//! session in the background.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use uuid::Uuid;

use super::ConnectionInfo;
use super::background::Inner;
use super::key::User;
use super::places::Pooled;
use super::running::Running;
use crate::error::{Error, ErrorKind, Stage};
use crate::failure::{self, Next, Pauses};
use crate::fault::{Class, Meaning, Operation};
use crate::session::{Session, fault_error};
use crate::shell::{Execution, Invocation, Trouble, Turn};
use crate::wsman::{Response, Signal};

/// A lent session. Dropping it gives the session back, or ends it when its state is in doubt; the clean-up runs in the
/// background.
#[derive(Debug)]
pub struct Lease {
    pub(super) inner: Arc<Inner>,
    /// Present until the lease is dropped.
    pub(super) pooled: Option<Pooled>,
    runtime: Handle,
    pub(super) reused: bool,
    counted: bool,
    /// The session's exchanges before this lease.
    pub(super) before: u32,
    /// A command that may run on the host while nobody follows it.
    pub(super) in_doubt: Option<Uuid>,
}

impl Lease {
    pub(super) fn of(inner: Arc<Inner>, pooled: Option<Pooled>, runtime: Handle) -> Self {
        let before = pooled.as_ref().map_or(0, |pooled| pooled.session.exchanges());
        Self { inner, pooled, runtime, reused: false, counted: false, before, in_doubt: None }
    }

    pub(super) async fn open(inner: Arc<Inner>, pooled: Pooled, deadline: Instant) -> Result<Self, Error> {
        let mut lease = Self::of(inner, Some(pooled), Handle::current());
        lease.reused = lease.is_ready();
        lease.open_session(deadline).await?;
        lease.count();
        Ok(lease)
    }

    pub(super) fn count(&mut self) {
        let figures = &self.inner.figures;
        figures.leased.fetch_add(1, Ordering::Relaxed);
        figures.leases.fetch_add(1, Ordering::Relaxed);
        figures.warm.fetch_add(u64::from(self.reused), Ordering::Relaxed);
        self.counted = true;
    }

    fn is_ready(&self) -> bool {
        self.pooled.as_ref().is_some_and(|pooled| pooled.session.is_connected() && pooled.session.shell().is_some())
    }

    /// Gives the session what it lacks, in a task of the pool: a caller that goes away, or whose deadline passes, neither
    /// leaves a credential without its verdict nor a shell that nobody knows. The session then goes back to the pool.
    async fn open_session(&mut self, deadline: Instant) -> Result<(), Error> {
        let inner = Arc::clone(&self.inner);
        if self.is_ready() {
            return inner.allowed(self.session()?);
        }
        let (sender, opened) = oneshot::channel();
        let (creating, create_begins) = oneshot::channel();
        let mut creating = Some(creating);
        let mut guard = Self::of(Arc::clone(&self.inner), self.pooled.take(), self.runtime.clone());
        let task = async move {
            let result = match guard.session() {
                Ok(session) => inner.open(session, deadline, &mut creating).await,
                Err(error) => Err(error),
            };
            // Sent or not: whoever drops the guard gives the session back.
            drop(sender.send((guard, result)));
        };
        self.inner.spawn(task.in_current_span(), &self.runtime);
        // Until then the task itself keeps to the deadline, and names the stage that failed.
        let _ = create_begins.await;
        match timeout_at(deadline, opened).await {
            Ok(Ok((mut guard, result))) => {
                self.pooled = guard.pooled.take();
                result
            }
            Ok(Err(_)) => Err(Error::new(Stage::Connect, ErrorKind::PoolClosed).unsent()),
            Err(_) => Err(Error::new(Stage::OpenShell, ErrorKind::DeadlinePassed)),
        }
    }

    /// The connection that is used.
    #[must_use]
    pub fn connection(&self) -> ConnectionInfo {
        let connection = self.pooled.as_ref().and_then(|pooled| pooled.session.connection());
        match connection {
            Some(connection) => ConnectionInfo::new(connection.info(), self.reused),
            None => ConnectionInfo { auth: "", sealed: false, reused: self.reused, tls: None, warnings: Vec::new() },
        }
    }

    /// The remote shell.
    #[must_use]
    pub fn shell_id(&self) -> &str {
        self.pooled.as_ref().and_then(|pooled| pooled.session.shell()).map_or("", |shell| shell.id.as_str())
    }

    /// Sends Command. Input, if there is any, is sent while the command is followed. `command_id` is ours, so that an
    /// ambiguous failure can still be signalled; journal it before calling.
    ///
    /// When the answer to Command gets lost, the host is asked whether it has the command, and if so it is followed. What a
    /// host puts off for reasons of quota is tried again for a minute.
    ///
    /// # Errors
    /// [`Error`]; `may_have_started` tells whether the host may have taken the command. A shell that proves to be gone is
    /// replaced, when the command surely did not start.
    pub async fn start(&mut self, invocation: &Invocation, command_id: Uuid) -> Result<Running<'_>, Error> {
        let patience = Patience { until: Instant::now() + failure::PATIENCE, given_up: CancellationToken::new() };
        self.start_patiently(invocation, command_id, patience, &mut ()).await
    }

    /// Like [`Lease::start`], for a caller with its own idea of how long to wait for a host that puts it off, and one that
    /// notes down which shell a command goes to: `ledger` is asked before Command is sent, and again when that shell had to
    /// be replaced. An exchange under way is not cut short: with its answer goes the knowledge of whether the command started.
    ///
    /// # Errors
    /// As of [`Lease::start`]. Once patience is at its end, what the host said the last time. When `ledger` says no, code
    /// `pool.not_noted`; the command surely did not start.
    pub async fn start_patiently(
        &mut self,
        invocation: &Invocation,
        command_id: Uuid,
        patience: Patience,
        ledger: &mut impl Ledger,
    ) -> Result<Running<'_>, Error> {
        if self.in_doubt.is_some() {
            return Err(Error::new(Stage::Run, ErrorKind::SessionInDoubt).unsent());
        }
        let mut patience = Waiting::new(patience);
        self.make_ready(&mut patience).await?;
        let budget = self.session()?.send_budget();
        let mut execution = Execution::new(invocation, command_id, budget);
        let critical_from = self.send_command(invocation, &mut execution, &mut patience, ledger).await?;
        Ok(Running::new(self, execution, critical_from))
    }

    /// The final Signal of a command before this one, another shell for one that is spent, and whatever an earlier failure
    /// left missing.
    async fn make_ready(&mut self, patience: &mut Waiting) -> Result<(), Error> {
        let inner = Arc::clone(&self.inner);
        let spent = self.pooled.as_ref().is_some_and(|pooled| pooled.slot.is_spent());
        let session = self.session()?;
        let deadline = session.soon();
        if spent && session.shell().is_some() {
            // It ends the command before this one as well.
            self.give_up_shell().await?;
        } else if let Some(ended) = session.shell().and_then(|shell| shell.ended) {
            match inner.signal(session, ended, Signal::Terminate, deadline).await {
                Err(error) if error.fault().is_none() => {
                    // It stays noted, and is signalled when the session is given back.
                    tracing::debug!(error = %error.report(), "Failed to signal a command that has ended");
                }
                _ => {
                    if let Some(shell) = session.shell_mut() {
                        shell.ended = None;
                    }
                }
            }
        }
        self.reused &= self.is_ready();
        self.open_patiently(patience).await
    }

    /// Sends Command until the host has taken it, which is once: it is sent again only when the host surely has not taken
    /// it. Returns the session's exchanges before the one that counted.
    async fn send_command(
        &mut self,
        invocation: &Invocation,
        execution: &mut Execution,
        patience: &mut Waiting,
        ledger: &mut impl Ledger,
    ) -> Result<u32, Error> {
        let command_id = execution.command_id();
        let inner = Arc::clone(&self.inner);
        let (mut reconnected, mut replaced) = (false, 0);
        let mut noted = String::new();
        loop {
            if self.shell_id() != noted {
                self.shell_id().clone_into(&mut noted);
                if !ledger.note(&noted).await {
                    return Err(Error::new(Stage::Run, ErrorKind::NotNoted).unsent());
                }
            }
            let from = self.session()?.exchanges();
            self.in_doubt = Some(command_id);
            if let Some(pooled) = &mut self.pooled {
                pooled.slot.charge();
            }
            let session = self.session()?;
            let result = session.command(command_id, &invocation.command_line, invocation.has_input()).await;
            let error = match inner.heard(session, result) {
                Ok(Response::Fault(fault)) => fault_error(Stage::Run, fault),
                Ok(response) => match execution.answer(&Turn::Command, response) {
                    Ok(()) => return Ok(from),
                    Err(trouble) => return Err(trouble_error(Stage::Run, trouble)),
                },
                Err(error) => error,
            };
            let next = failure::next(Operation::Command, &error);
            match next {
                Next::Ask => {
                    self.ask(execution, error).await?;
                    return Ok(from);
                }
                Next::Unknown => return Err(error.after_start()),
                Next::Again | Next::NewShell | Next::BackOff | Next::Fail => self.in_doubt = None,
            }
            self.reused = false;
            match next {
                Next::Again if !reconnected => {
                    reconnected = true;
                    self.reconnect_patiently(patience).await?;
                }
                Next::NewShell => {
                    let full = error.fault().is_some_and(|fault| fault.class() == Class::QuotaOperations);
                    replaced += 1;
                    if full {
                        // Idle shells hold a share of the user's quota as well.
                        inner.places.evict(&User::of(self.session()?.target()));
                    }
                    let again = if full && replaced > 1 {
                        // Whoever else fills the quota may give something back.
                        patience.wait(&inner).await
                    } else {
                        replaced < REPLACEMENTS && !patience.is_over()
                    };
                    if !again {
                        return Err(error);
                    }
                    self.give_up_shell().await?;
                    self.open_patiently(patience).await?;
                }
                Next::BackOff if patience.wait(&inner).await => {}
                _ => return Err(error),
            }
            execution.restart();
        }
    }

    /// The answer to Command is lost: asks the host whether it has the command, by receiving from it. What the host does not
    /// know, it may have known before it was started anew: then nobody can tell any more.
    async fn ask(&mut self, execution: &mut Execution, lost: Error) -> Result<(), Error> {
        let inner = Arc::clone(&self.inner);
        tracing::debug!(error = %lost.report(), "Answer to a command lost, asking the host whether it has it");
        self.reused = false;
        let session = self.session()?;
        let unknown = |lost: Error, why: String| Err(lost.with_source(Unresolved(why)).after_start());
        if !session.is_connected()
            && let Err(error) = inner.reconnect(session, session.soon()).await
        {
            return unknown(lost, error.report().to_string());
        }
        let turn = Turn::Receive { patience: ASK_PATIENCE };
        let result = session.turn(execution.command_id(), &turn).await;
        match inner.heard(session, result) {
            Ok(Response::Fault(fault)) if fault.meaning(Operation::Receive) != Meaning::PollAgain => {
                unknown(lost, fault.to_string())
            }
            Ok(response) => {
                execution.found();
                execution.answer(&turn, response).map_err(|trouble| trouble_error(Stage::Receive, trouble))
            }
            Err(error) => unknown(lost, error.report().to_string()),
        }
    }

    /// Deletes the shell, which gives back its share of the host's quota. A shell that the host does not let us delete is
    /// forgotten; one that cannot be told to go stays with the session, and is deleted when that ends.
    async fn give_up_shell(&mut self) -> Result<(), Error> {
        let inner = Arc::clone(&self.inner);
        let Some(pooled) = &mut self.pooled else { return Ok(()) };
        let mut reconnected = false;
        loop {
            let deadline = pooled.session.soon();
            let Err(error) = inner.delete(&mut pooled.session, deadline).await else { break };
            if error.fault().is_some() {
                tracing::debug!(error = %error.report(), "Failed to delete a shell that is of no more use");
                pooled.session.forget_shell();
                break;
            }
            if reconnected || failure::next(Operation::Delete, &error) != Next::Again {
                return Err(error);
            }
            reconnected = true;
            // A credential that is judged with the first request was accepted when the shell was created.
            drop(inner.reconnect(&mut pooled.session, deadline).await?);
        }
        pooled.slot.refund();
        Ok(())
    }

    /// Gives the session another connection, even if the host puts it off for a while.
    async fn reconnect_patiently(&mut self, patience: &mut Waiting) -> Result<(), Error> {
        let inner = Arc::clone(&self.inner);
        loop {
            let session = self.session()?;
            let error = match inner.reconnect(session, session.soon()).await {
                // A credential that is judged with the first request was accepted when the shell was created.
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if failure::next(Operation::Create, &error) != Next::BackOff || !patience.wait(&inner).await {
                return Err(error);
            }
        }
    }

    /// Gives the session what it lacks, even if the host puts it off for a while.
    async fn open_patiently(&mut self, patience: &mut Waiting) -> Result<(), Error> {
        let inner = Arc::clone(&self.inner);
        loop {
            let deadline = self.session()?.soon();
            let error = match self.open_session(deadline).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if failure::next(Operation::Create, &error) != Next::BackOff || !patience.wait(&inner).await {
                return Err(error);
            }
        }
    }

    pub(super) fn session(&mut self) -> Result<&mut Session, Error> {
        match &mut self.pooled {
            Some(pooled) => Ok(&mut pooled.session),
            None => Err(Error::new(Stage::Run, ErrorKind::SessionInDoubt).unsent()),
        }
    }
}

impl Lease {
    /// Gives the session up instead of back: its shell is deleted in the background.
    pub fn end(mut self) {
        if let Some(pooled) = self.pooled.take() {
            self.inner.dispose(pooled, self.in_doubt, &self.runtime);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.counted {
            self.inner.figures.leased.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(pooled) = self.pooled.take() {
            match self.in_doubt {
                Some(command) => self.inner.dispose(pooled, Some(command), &self.runtime),
                None => self.inner.give_back(pooled, &self.runtime),
            }
        }
    }
}

/// How long a host is tried that puts off what was asked for.
#[derive(Debug, Clone)]
pub struct Patience {
    /// Until when.
    pub until: Instant,
    /// Cancelled when the caller has given up.
    pub given_up: CancellationToken,
}

/// Notes down what is about to be started, so that it can be found again by [`Pool::attach`](super::Pool::attach).
pub trait Ledger: Send {
    /// The command is about to be sent to this shell. False: it must not be.
    fn note(&mut self, shell_id: &str) -> impl Future<Output = bool> + Send;
}

/// Nobody notes anything.
impl Ledger for () {
    async fn note(&mut self, _: &str) -> bool {
        true
    }
}

pub(super) struct Waiting {
    patience: Patience,
    pauses: Pauses,
}

impl Waiting {
    pub(super) fn new(patience: Patience) -> Self {
        Self { patience, pauses: Pauses::default() }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.patience.until || self.patience.given_up.is_cancelled()
    }

    /// Waits before the next attempt. False when there is to be none.
    pub(super) async fn wait(&mut self, inner: &Inner) -> bool {
        if self.is_over() {
            return false;
        }
        inner.backed_off();
        let pause = self.pauses.next();
        tokio::select! {
            () = self.patience.given_up.cancelled() => false,
            () = sleep(pause) => !self.is_over(),
        }
    }
}

/// Why a host could not tell whether it had taken a command.
#[derive(Debug, thiserror::Error)]
#[error("whether the host took the command could not be found out: {0}")]
struct Unresolved(String);

pub(super) fn trouble_error(stage: Stage, trouble: Trouble) -> Error {
    match trouble {
        Trouble::Fault(fault) => fault_error(stage, fault),
        Trouble::Unexpected(detail) => Error::new(stage, ErrorKind::SoapMalformed { detail }),
    }
    .after_start()
}

/// How often in a row a shell that proves to be gone is replaced.
const REPLACEMENTS: u32 = 3;
/// OperationTimeout of the Receive that finds out whether a host has a command: one that runs in silence is told by it.
pub(super) const ASK_PATIENCE: Duration = Duration::from_millis(500);
