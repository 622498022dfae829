//! A command that runs: its output, its input and its end.
//!
//! Requests are under way on their own, so that waiting for them can be interrupted and resumed: a caller may look away in
//! the middle of a Receive. While a Receive holds the session's connection, Send and Signal take a second one, opened when
//! it is needed. Nothing here is sent twice unless the retry law ([`crate::failure`]) allows it.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::Exchanges;
use super::lease::{Lease, trouble_error};
use super::verdicts::settle;
use crate::connection::Connection;
use crate::error::{Error, ErrorKind, Stage};
use crate::failure::{self, Next, Pauses};
use crate::fault::{Meaning, Operation};
use crate::session::{Returned, UnderWay};
use crate::shell::{Event, Execution, Turn};
use crate::wsman::{Response, Signal};

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
    /// Under way over the session's connection.
    main: Option<Exchange>,
    /// A Send under way over a second connection.
    side: Option<Exchange>,
    /// The second connection, when nothing is under way over it.
    second: Option<Connection>,
    /// A second connection could not be opened: input waits until the first one is free.
    alone: bool,
    /// When input that the host did not take is tried again.
    input_pause: Option<Instant>,
    /// When the host, which puts requests off, is asked again.
    pause: Option<Instant>,
    pauses: Pauses,
}

/// A request under way, and what it asked for.
struct Exchange {
    turn: Turn,
    answer: UnderWay,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
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

impl<'a> Running<'a> {
    pub(super) fn new(lease: &'a mut Lease, execution: Execution, critical_from: u32) -> Self {
        let mut running = Self {
            lease,
            execution,
            critical_from,
            critical: None,
            unheard: 0,
            main: None,
            side: None,
            second: None,
            alone: false,
            input_pause: None,
            pause: None,
            pauses: Pauses::default(),
        };
        running.note_end();
        running
    }

    /// Waits for output or the end. Not calling it stops receiving: the host then holds the command's output back.
    ///
    /// Cancel safe: a request under way stays under way, and the next call goes on waiting for it.
    ///
    /// # Errors
    /// [`Error`] of stage `receive`, or `run` when sending input failed; the command may have run on.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.execution.event() {
                return Ok(event);
            }
            if self.execution.turn() == Turn::Finished {
                return Err(Error::new(Stage::Receive, ErrorKind::SessionInDoubt).after_start());
            }
            self.begin()?;
            let wake = self.pause.into_iter().chain(self.input_pause).min();
            tokio::select! {
                biased;
                outcome = answer(&mut self.main) => self.main_answered(outcome)?,
                outcome = answer(&mut self.side) => self.side_answered(outcome)?,
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => self.wake(),
            }
        }
    }

    /// Adds input of an invocation [with streamed input](crate::Invocation::with_streamed_input); [`Running::next`] sends it.
    /// Ask [`Running::wants_input`] first: nothing else bounds it.
    pub fn feed(&mut self, data: Bytes) {
        self.execution.feed(data);
    }

    /// Ends the input: the command sees the end after what it was fed.
    pub fn end_input(&mut self) {
        self.execution.end_input();
    }

    /// Whether the command takes more input, and what it was fed before is sent but for a bounded rest.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.execution.wants_input()
    }

    /// Whether the host has taken all of the input, if there is any. What follows it needs nothing that only we have.
    #[must_use]
    pub fn has_sent_input(&self) -> bool {
        self.execution.has_sent_input()
    }

    /// Stops the command: ctrl_c, `grace`, terminate, then deletes the shell. Says what the host confirmed.
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

    /// Sends what is to be sent now and can be.
    fn begin(&mut self) -> Result<(), Error> {
        if self.main.is_none() && self.pause.is_none() {
            let turn = match self.execution.turn() {
                // One Send at a time, or pieces may change places.
                Turn::Send { .. } if self.side.is_some() => Turn::Receive { patience: Duration::MAX },
                turn => turn,
            };
            self.main = Some(self.ask(turn)?);
        }
        let Some(Exchange { turn: Turn::Receive { patience }, .. }) = self.main else { return Ok(()) };
        if self.side.is_none()
            && !self.alone
            && self.pause.is_none()
            && let Some(turn) = self.execution.input_turn()
        {
            self.side = Some(self.ask_aside(turn)?);
        }
        // A Receive that comes back as soon wakes the input itself.
        if self.execution.is_stalled() && self.input_pause.is_none() && patience > Execution::input_pause() {
            self.input_pause = Some(Instant::now() + Execution::input_pause());
        }
        Ok(())
    }

    /// A request over the session's connection. When that is lost, another one is opened: the socket died, not the shell.
    fn ask(&mut self, turn: Turn) -> Result<Exchange, Error> {
        let inner = Arc::clone(&self.lease.inner);
        let command_id = self.execution.command_id();
        let session = self.lease.session()?;
        inner.allowed(session).map_err(Error::after_start)?;
        if session.is_connected() {
            let answer = session.take_out(command_id, &turn).map_err(Error::after_start)?;
            return Ok(Exchange { turn, answer });
        }
        drop(session.disconnect());
        let (request, target) =
            (session.request(command_id, &turn).map_err(Error::after_start)?, session.target().clone());
        let patience = target.timeouts.connect + target.timeouts.read;
        self.lease.reused = false;
        let answer = Box::pin(async move {
            let mut failure = Error::new(Stage::Receive, ErrorKind::ConnectionClosed).unsent();
            for pause in REATTACH_PAUSES {
                sleep(pause).await;
                match inner.connect(&target, Instant::now() + patience).await {
                    // Basic was accepted when the shell was created.
                    Ok((connection, _)) => return Ok(request.over(connection).await),
                    Err(error) if error.credential_rejected() => return Err(error),
                    Err(error) => failure = error,
                }
            }
            Err(failure)
        });
        Ok(Exchange { turn, answer })
    }

    /// A request over the second connection.
    fn ask_aside(&mut self, turn: Turn) -> Result<Exchange, Error> {
        let inner = Arc::clone(&self.lease.inner);
        let second = self.second.take().filter(Connection::is_usable);
        let command_id = self.execution.command_id();
        let session = self.lease.session()?;
        let request = session.request(command_id, &turn).map_err(Error::after_start)?;
        let (target, deadline) = (second.is_none().then(|| session.target().clone()), session.soon());
        let answer = Box::pin(async move {
            let connection = match (second, target) {
                (Some(connection), _) => connection,
                (None, Some(target)) => inner.connect(&target, deadline).await?.0,
                (None, None) => return Err(Error::new(Stage::Run, ErrorKind::ConnectionClosed).unsent()),
            };
            Ok(request.over(connection).await)
        });
        Ok(Exchange { turn, answer })
    }

    fn main_answered(&mut self, outcome: Result<Returned, Error>) -> Result<(), Error> {
        let Some(Exchange { turn, .. }) = self.main.take() else { return Ok(()) };
        let stage = stage_of(&turn);
        let Returned { connection, result } = outcome.map_err(|error| error.at(stage).after_start())?;
        self.lease.session()?.put_back(connection);
        self.answered(&turn, result)
    }

    fn side_answered(&mut self, outcome: Result<Returned, Error>) -> Result<(), Error> {
        let Some(Exchange { turn, .. }) = self.side.take() else { return Ok(()) };
        match outcome {
            Ok(Returned { connection, result }) => {
                self.keep_second(connection)?;
                self.answered(&turn, result)
            }
            Err(error) => {
                tracing::debug!(error = %error.report(), "Failed to open a second connection, input waits for the first");
                self.alone = true;
                Ok(())
            }
        }
    }

    fn keep_second(&mut self, connection: Connection) -> Result<(), Error> {
        if connection.is_usable() {
            self.second = Some(connection);
        } else {
            self.lease.session()?.account(&connection);
        }
        Ok(())
    }

    fn answered(&mut self, turn: &Turn, result: Result<Response, Error>) -> Result<(), Error> {
        let inner = Arc::clone(&self.lease.inner);
        let operation = if matches!(turn, Turn::Send { .. }) { Operation::Send } else { Operation::Receive };
        let response = match inner.heard(self.lease.session()?, result) {
            Ok(Response::Fault(fault)) if fault.meaning(operation) == Meaning::BackOff => {
                inner.backed_off();
                self.pause = Some(Instant::now() + self.pauses.next());
                return Ok(());
            }
            Ok(response) => response,
            Err(error) => match failure::next(operation, &error) {
                Next::Again => return self.lost(operation, error),
                _ => return Err(error.after_start()),
            },
        };
        self.unheard = 0;
        self.pauses = Pauses::default();
        self.execution.answer(turn, response).map_err(|trouble| trouble_error(stage_of(turn), trouble))?;
        if !self.execution.is_stalled() {
            self.input_pause = None;
        }
        self.note_end();
        Ok(())
    }

    /// An answer got lost with its connection. What it held is lost; a request that was never written cannot have taken
    /// output with it.
    fn lost(&mut self, operation: Operation, error: Error) -> Result<(), Error> {
        self.unheard += 1;
        if self.unheard > REATTACH_LIMIT {
            return Err(error.after_start());
        }
        if operation == Operation::Receive && !error.is_unsent() {
            self.execution.lost_answer();
        }
        tracing::debug!(error = %error.report(), "Connection lost, attaching to the command again");
        Ok(())
    }

    fn wake(&mut self) {
        let now = Instant::now();
        if self.input_pause.take_if(|until| *until <= now).is_some() {
            self.execution.retry_input();
        }
        self.pause.take_if(|until| *until <= now);
    }

    fn note_end(&mut self) {
        if self.execution.turn() != Turn::Finished || self.critical.is_some() {
            return;
        }
        self.side = None;
        if let (Some(second), Ok(session)) = (self.second.take(), self.lease.session()) {
            session.account(&second);
        }
        self.critical = Some(self.exchanges().critical);
        self.lease.in_doubt = None;
        let command_id = self.execution.command_id();
        if let Ok(session) = self.lease.session()
            && let Some(shell) = session.shell_mut()
        {
            shell.ended = Some(command_id);
        }
    }

    async fn end(&mut self, grace: Duration) -> Result<Option<i32>, Error> {
        let inner = Arc::clone(&self.lease.inner);
        let deadline = Instant::now() + grace + STOP_PATIENCE;
        self.side = None;
        // A Receive is left under way: it tells the exit code. What else there is gives way to the signal.
        if !matches!(&self.main, Some(Exchange { turn: Turn::Receive { .. }, .. })) {
            self.main = None;
        }
        if let Some(second) = self.second.take() {
            self.lease.session()?.put_back(second);
        }
        self.signal(Signal::CtrlC, deadline).await?;
        let mut exit_code = self.exit_code_until(Instant::now() + grace).await;
        self.signal(Signal::Terminate, deadline).await?;
        if exit_code.is_none() {
            exit_code = self.exit_code_until(Instant::now() + EXIT_CODE).await;
        }
        let session = self.lease.session()?;
        if !session.is_connected() {
            drop(inner.reconnect(session, deadline).await?);
        }
        inner.delete(session, deadline).await?;
        if let Some(pooled) = &mut self.lease.pooled {
            pooled.slot.refund();
        }
        Ok(exit_code)
    }

    /// Signals the command, over the session's connection or, while that is taken, over a second one.
    async fn signal(&mut self, signal: Signal, deadline: Instant) -> Result<(), Error> {
        let inner = Arc::clone(&self.lease.inner);
        let command_id = self.execution.command_id();
        let session = self.lease.session()?;
        let mut connected = session.is_connected();
        loop {
            let attempt = if connected { None } else { inner.reconnect(session, deadline).await? };
            let result = inner.signal(session, command_id, signal, deadline).await;
            settle(attempt, &result);
            match result {
                Err(error) if connected && failure::next(Operation::Signal, &error) == Next::Again => connected = false,
                result => return result,
            }
        }
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
            if self.main.is_none() {
                let turn = Turn::Receive { patience };
                let answer = self.lease.session().ok()?.take_out(command_id, &turn).ok()?;
                self.main = Some(Exchange { turn, answer });
            }
            // A host that keeps to the request's own time is given a little longer, so that the connection stays of use.
            let returned = timeout_at(until + ANSWER, answer(&mut self.main)).await.ok()?;
            let turn = self.main.take()?.turn;
            let Returned { connection, result } = returned.ok()?;
            self.lease.session().ok()?.put_back(connection);
            self.execution.answer(&turn, result.ok()?).ok()?;
        }
    }
}

/// The answer to what is under way; never ready when nothing is. Cancel safe.
async fn answer(exchange: &mut Option<Exchange>) -> Result<Returned, Error> {
    match exchange {
        Some(exchange) => (&mut exchange.answer).await,
        None => pending().await,
    }
}

fn stage_of(turn: &Turn) -> Stage {
    if matches!(turn, Turn::Receive { .. }) { Stage::Receive } else { Stage::Run }
}

/// Pauses before each attempt to reach a host again whose connection broke while a command ran.
const REATTACH_PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(4)];
/// How often in a row a command is received again without hearing anything of it.
const REATTACH_LIMIT: u32 = 3;
/// How long a host may take to confirm that a command was stopped, beside the grace.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// How long a command that was terminated may take to tell its exit code.
const EXIT_CODE: Duration = Duration::from_secs(1);
/// What the way there and back may take, when only the end of a command is waited for.
const ANSWER: Duration = Duration::from_millis(500);
