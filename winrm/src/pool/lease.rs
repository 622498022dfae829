//! Sessions that are lent, and the commands that run in them.
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
use uuid::Uuid;

use super::background::{Inner, settle};
use super::places::Pooled;
use super::{ConnectionInfo, Exchanges};
use crate::error::{Error, ErrorKind, Stage};
use crate::session::{Session, fault_error};
use crate::shell::{Event, Execution, Invocation, Trouble, Turn};
use crate::wsman::{Response, Signal};

/// Pauses before each attempt to reach a host again whose connection broke while a command ran.
const REATTACH_PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(4)];
/// How often in a row a command is received again without hearing anything of it.
const REATTACH_LIMIT: u32 = 3;
/// How long a host may take to confirm that a command was stopped, beside the grace.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// A lent session. Dropping it gives the session back, or ends it when its state is in doubt; the clean-up runs in the
/// background.
#[derive(Debug)]
pub struct Lease {
    inner: Arc<Inner>,
    /// Present until the lease is dropped.
    pooled: Option<Pooled>,
    runtime: Handle,
    reused: bool,
    counted: bool,
    /// The session's exchanges before this lease.
    before: u32,
    /// A command that may run on the host while nobody follows it.
    in_doubt: Option<Uuid>,
}

impl Lease {
    fn of(inner: Arc<Inner>, pooled: Option<Pooled>, runtime: Handle) -> Self {
        let before = pooled.as_ref().map_or(0, |pooled| pooled.session.exchanges());
        Self { inner, pooled, runtime, reused: false, counted: false, before, in_doubt: None }
    }

    pub(super) async fn open(inner: Arc<Inner>, pooled: Pooled, deadline: Instant) -> Result<Self, Error> {
        let mut lease = Self::of(inner, Some(pooled), Handle::current());
        lease.reused = lease.is_ready();
        lease.open_session(deadline).await?;
        let inner = Arc::clone(&lease.inner);
        inner.figures.leased.fetch_add(1, Ordering::Relaxed);
        inner.figures.leases.fetch_add(1, Ordering::Relaxed);
        inner.figures.warm.fetch_add(u64::from(lease.reused), Ordering::Relaxed);
        lease.counted = true;
        Ok(lease)
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
        self.inner.spawn(task, &self.runtime);
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

    /// Sends Command, and the standard input if there is any. `command_id` is ours, so that an ambiguous failure can still
    /// be signalled; journal it before calling.
    ///
    /// # Errors
    /// [`Error`]; `may_have_started` tells whether the host may have taken the command. A shell that proves to be gone is
    /// replaced once, when the command surely did not start.
    pub async fn start(&mut self, invocation: &Invocation, command_id: Uuid) -> Result<Running<'_>, Error> {
        if self.in_doubt.is_some() {
            return Err(Error::new(Stage::Run, ErrorKind::SessionInDoubt).unsent());
        }
        self.make_ready().await?;
        let budget = self.session()?.send_budget();
        let mut execution = Execution::new(invocation, command_id, budget);
        let critical_from = self.send_command(invocation, &mut execution).await?;
        let mut running = Running { lease: self, execution, critical_from, critical: None, unheard: 0 };
        while matches!(running.execution.turn(), Turn::Send { .. }) {
            running.step().await?;
        }
        Ok(running)
    }

    /// The final Signal of a command before this one, and whatever an earlier failure left missing.
    async fn make_ready(&mut self) -> Result<(), Error> {
        let inner = Arc::clone(&self.inner);
        let session = self.session()?;
        let deadline = Instant::now() + session.target().timeouts.connect + session.target().timeouts.read;
        if let Some(ended) = session.shell().and_then(|shell| shell.ended) {
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
        self.open_session(deadline).await
    }

    /// Sends Command until the host has taken it, which is once: it is sent again only when the host surely has not taken
    /// it. Returns the session's exchanges before the one that counted.
    async fn send_command(&mut self, invocation: &Invocation, execution: &mut Execution) -> Result<u32, Error> {
        let command_id = execution.command_id();
        let inner = Arc::clone(&self.inner);
        let (mut reconnected, mut replaced) = (false, false);
        loop {
            let session = self.session()?;
            let deadline = Instant::now() + session.target().timeouts.connect + session.target().timeouts.read;
            let from = session.exchanges();
            self.in_doubt = Some(command_id);
            let session = self.session()?;
            let result = session.command(command_id, &invocation.command_line, invocation.stdin.is_some()).await;
            let response = match inner.heard(session, result) {
                Ok(response) => response,
                Err(error) if error.is_unsent() && !session.is_connected() && !reconnected => {
                    self.in_doubt = None;
                    self.reused = false;
                    reconnected = true;
                    // A credential that is judged with the first request was accepted when the shell was created.
                    drop(inner.reconnect(self.session()?, deadline).await?);
                    continue;
                }
                Err(error) => return Err(self.failed_to_start(error)),
            };
            if let Some(shell) = session.shell_mut() {
                shell.commands = shell.commands.saturating_add(1);
            }
            match execution.answer(response) {
                Ok(()) => return Ok(from),
                Err(Trouble::NeedsNewShell(_)) if !replaced => {
                    self.in_doubt = None;
                    self.reused = false;
                    replaced = true;
                    self.replace_shell(deadline).await?;
                    execution.restart();
                }
                Err(Trouble::NeedsNewShell(fault) | Trouble::NotStarted(fault)) => {
                    self.in_doubt = None;
                    return Err(fault_error(Stage::Run, fault));
                }
                Err(trouble) => return Err(trouble_error(Stage::Run, trouble)),
            }
        }
    }

    /// Deletes the shell, which gives back its share of the host's quota, and takes another one.
    async fn replace_shell(&mut self, deadline: Instant) -> Result<(), Error> {
        let inner = Arc::clone(&self.inner);
        let session = self.session()?;
        if let Err(error) = inner.delete(session, deadline).await {
            tracing::debug!(error = %error.report(), "Failed to delete a shell that is of no more use");
            session.forget_shell();
        }
        self.open_session(deadline).await
    }

    /// The host rejected the request before it could look at it, or may have taken it.
    fn failed_to_start(&mut self, error: Error) -> Error {
        if error.credential_rejected() || error.is_unsent() {
            self.in_doubt = None;
            return error;
        }
        error.after_start()
    }

    fn session(&mut self) -> Result<&mut Session, Error> {
        match &mut self.pooled {
            Some(pooled) => Ok(&mut pooled.session),
            None => Err(Error::new(Stage::Run, ErrorKind::SessionInDoubt).unsent()),
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

/// A command that runs. Dropping it before its end ends the session; the command is signalled and the shell deleted in
/// the background, over a new connection when the old one cannot be used.
#[derive(Debug)]
pub struct Running<'a> {
    lease: &'a mut Lease,
    execution: Execution,
    critical_from: u32,
    /// Known when the command is done.
    critical: Option<u32>,
    /// Connections in a row that broke without an answer.
    unheard: u32,
}

impl Running<'_> {
    /// Waits for output or the end. Not calling it stops receiving: the host then holds the command's output back.
    ///
    /// Dropping the future before it is ready leaves the connection in doubt: afterwards only [`Running::stop`] and drop
    /// are of use.
    ///
    /// # Errors
    /// [`Error`] of stage `receive`; the command may have run on.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.execution.event() {
                return Ok(event);
            }
            if self.execution.turn() == Turn::Finished {
                return Err(Error::new(Stage::Receive, ErrorKind::SessionInDoubt).after_start());
            }
            self.step().await?;
        }
    }

    /// Stops the command: ctrl_c, `grace`, terminate, then deletes the shell. Says what the host confirmed. Also right
    /// after a dropped [`Running::next`].
    pub async fn stop(mut self, grace: Duration) -> Stopped {
        self.execution.abandon_input();
        match self.end(grace).await {
            Ok(exit_code) => {
                self.lease.in_doubt = None;
                Stopped::Confirmed { exit_code }
            }
            Err(error) => Stopped::Unconfirmed(error.at(Stage::Close).after_start()),
        }
    }

    /// Exchanges so far.
    #[must_use]
    pub fn exchanges(&self) -> Exchanges {
        let now = self.lease.pooled.as_ref().map_or(0, |pooled| pooled.session.exchanges());
        Exchanges {
            critical: self.critical.unwrap_or_else(|| now.saturating_sub(self.critical_from)),
            total: now.saturating_sub(self.lease.before),
        }
    }

    /// One exchange.
    async fn step(&mut self) -> Result<(), Error> {
        let turn = self.execution.turn();
        let command_id = self.execution.command_id();
        let stage = if matches!(turn, Turn::Receive { .. }) { Stage::Receive } else { Stage::Run };
        let inner = Arc::clone(&self.lease.inner);
        let session = self.lease.session()?;
        inner.allowed(session).map_err(Error::after_start)?;
        let result = session.turn(command_id, &turn).await;
        let response = match inner.heard(session, result) {
            Ok(response) => response,
            Err(error) if matches!(turn, Turn::Receive { .. }) && is_lost(&error) => return self.reattach(error).await,
            Err(error) => return Err(error.after_start()),
        };
        self.unheard = 0;
        self.execution.answer(response).map_err(|trouble| trouble_error(stage, trouble))?;
        if self.execution.turn() == Turn::Finished {
            self.finished();
        }
        Ok(())
    }

    fn finished(&mut self) {
        self.critical = Some(self.exchanges().critical);
        self.lease.in_doubt = None;
        if let Ok(session) = self.lease.session()
            && let Some(shell) = session.shell_mut()
        {
            shell.ended = Some(self.execution.command_id());
        }
    }

    /// The socket died, not the shell: the command is received again over another connection. What the lost answer held
    /// is lost.
    async fn reattach(&mut self, lost: Error) -> Result<(), Error> {
        self.unheard += 1;
        if self.unheard > REATTACH_LIMIT {
            return Err(lost.after_start());
        }
        // A request that was never written cannot have taken output with it.
        if !lost.is_unsent() {
            self.execution.lost_answer();
        }
        tracing::debug!(error = %lost.report(), "Connection lost while receiving, attaching to the command again");
        let inner = Arc::clone(&self.lease.inner);
        self.lease.reused = false;
        let mut failure = lost;
        for pause in REATTACH_PAUSES {
            sleep(pause).await;
            let session = self.lease.session()?;
            let deadline = Instant::now() + session.target().timeouts.connect + session.target().timeouts.read;
            match inner.reconnect(session, deadline).await {
                // Receive is sent next. Basic was accepted when the shell was created.
                Ok(_) => return Ok(()),
                Err(error) if error.credential_rejected() => return Err(error.after_start()),
                Err(error) => failure = error,
            }
        }
        Err(failure.at(Stage::Receive).after_start())
    }

    async fn end(&mut self, grace: Duration) -> Result<Option<i32>, Error> {
        let inner = Arc::clone(&self.lease.inner);
        let command_id = self.execution.command_id();
        let deadline = Instant::now() + grace + STOP_PATIENCE;
        let session = self.lease.session()?;
        let attempt = if session.is_connected() { None } else { inner.reconnect(session, deadline).await? };
        let interrupted = inner.signal(session, command_id, Signal::CtrlC, deadline).await;
        settle(attempt, &interrupted);
        interrupted?;
        let mut exit_code = self.exit_code_until(Instant::now() + grace).await;
        let session = self.lease.session()?;
        if !session.is_connected() {
            drop(inner.reconnect(session, deadline).await?);
        }
        inner.signal(session, command_id, Signal::Terminate, deadline).await?;
        if exit_code.is_none() {
            exit_code = self.exit_code_until(Instant::now() + Duration::from_secs(1)).await;
            let session = self.lease.session()?;
            if !session.is_connected() {
                drop(inner.reconnect(session, deadline).await?);
            }
        }
        inner.delete(self.lease.session()?, deadline).await?;
        Ok(exit_code)
    }

    /// Receives until the command tells its exit code, or ends in another way, or `until`. Output is no longer wanted.
    async fn exit_code_until(&mut self, until: Instant) -> Option<i32> {
        let command_id = self.execution.command_id();
        loop {
            while let Some(event) = self.execution.event() {
                if let Event::Done { exit_code, .. } = event {
                    return Some(exit_code);
                }
            }
            let patience = until.saturating_duration_since(Instant::now());
            if patience.is_zero() || !matches!(self.execution.turn(), Turn::Receive { .. }) {
                return None;
            }
            let turn = Turn::Receive { patience };
            let response: Response = self.lease.session().ok()?.turn(command_id, &turn).await.ok()?;
            self.execution.answer(response).ok()?;
        }
    }
}

/// How stopping a command went.
#[derive(Debug)]
pub enum Stopped {
    /// The host confirmed: the command is gone. Its exit code, if it told one.
    Confirmed {
        /// Exit code that the host told.
        exit_code: Option<i32>,
    },
    /// The host could not be reached, or did not confirm in time.
    Unconfirmed(Error),
}

/// Whether an answer got lost together with its connection, while the shell may live on.
fn is_lost(error: &Error) -> bool {
    error.is_unsent()
        || matches!(
            error.kind(),
            ErrorKind::ConnectionClosed
                | ErrorKind::ConnectionUnusable
                | ErrorKind::HttpProtocol { .. }
                | ErrorKind::ReadTimeout { .. }
                | ErrorKind::AuthLost
        )
}

fn trouble_error(stage: Stage, trouble: Trouble) -> Error {
    match trouble {
        Trouble::NeedsNewShell(fault) | Trouble::NotStarted(fault) => fault_error(stage, fault),
        Trouble::MayHaveStarted(fault) => fault_error(stage, fault).after_start(),
        Trouble::Unexpected(detail) => Error::new(stage, ErrorKind::SoapMalformed { detail }).after_start(),
    }
}
