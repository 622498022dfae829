//! The host under examination: connections to it, shells on it, and the certainty that none of them stays.
//!
//! INVARIANT: a shell is written down, by a name of this run, before it is asked for, and struck out only when the host has
//! confirmed its end: [`Lab::sweep`] deletes the rest, [`Lab::close`] looks into the host's own list. A credential that was
//! rejected once is never tried again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bytes::Bytes;
use lictor_winrm::Target;
use lictor_winrm::connection::Connection;
use lictor_winrm::error::Error;
use lictor_winrm::fault::{Meaning, Operation};
use lictor_winrm::shell::OutputStream;
use lictor_winrm::target::ShellProperties;
use lictor_winrm::wsman::{self, CommandRef, Listing, Requests, Response, Signal, State};
use uuid::Uuid;

use crate::envelope::Custom;
use crate::reply::Reply;

/// OperationTimeout of ordinary requests.
const OPERATION: Duration = Duration::from_secs(20);
/// How much longer than its OperationTimeout an answer may take.
const GRACE: Duration = Duration::from_secs(15);
/// Output of one command that is kept.
const MAX_OUTPUT: usize = 8 * 1024 * 1024;
/// How long a command may take to end once its input could not be sent.
const AFTERMATH: Duration = Duration::from_secs(10);
/// Times that the host's list is read to be sure.
const LISTINGS: usize = 4;

/// One host.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) target: Target,
    pub(crate) requests: Requests,
    session: Uuid,
    /// Names of all shells of this run begin so.
    prefix: String,
    made: Mutex<Vec<Made>>,
    spare: tokio::sync::Mutex<Option<Line>>,
    rejected: AtomicBool,
    /// What must not stand in the report, and what stands there instead.
    names: Mutex<Vec<(String, &'static str)>>,
}

/// A shell that may exist.
#[derive(Debug, Clone)]
struct Made {
    name: String,
    id: Option<String>,
}

/// A shell on the host.
#[derive(Debug, Clone)]
pub(crate) struct Shell {
    pub(crate) id: String,
    pub(crate) name: String,
}

/// One authenticated connection.
#[derive(Debug)]
pub(crate) struct Line(pub(crate) Connection);

/// One connection and one shell.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) line: Line,
    pub(crate) shell: Shell,
}

/// How a command ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ended {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) exit_code: i32,
    /// As the host wrote it.
    pub(crate) exit_text: String,
    /// Answers with output or state.
    pub(crate) receives: u32,
    /// Done came together with output.
    pub(crate) done_with_output: bool,
    /// Times that nothing came before OperationTimeout.
    pub(crate) timeouts: u32,
}

impl Lab {
    pub(crate) fn new(target: Target) -> Self {
        let session = Uuid::new_v4();
        let requests = Requests::new(target.endpoint.to_string(), session, OPERATION);
        // Of the form and length that the product gives its shells.
        let prefix = format!("lictor:verify:{}:", session.simple());
        let (made, spare, names) = (Mutex::default(), tokio::sync::Mutex::default(), Mutex::default());
        Self { target, requests, session, prefix, made, spare, rejected: AtomicBool::new(false), names }
    }

    /// A new authenticated connection.
    pub(crate) async fn connect(&self) -> Result<Line> {
        self.connect_as(&self.target).await
    }

    pub(crate) async fn connect_as(&self, target: &Target) -> Result<Line> {
        ensure!(!self.is_rejected(), "the host has rejected the credential before; it is not tried again");
        let deadline = tokio::time::Instant::now() + Duration::from_secs(45);
        match Connection::open(target, deadline).await {
            Ok(connection) => Ok(Line(connection)),
            Err(error) => {
                if error.credential_rejected() {
                    self.rejected.store(true, Ordering::Relaxed);
                }
                Err(failure(&error))
            }
        }
    }

    /// Whether the host has rejected the credential: then nothing more can be found out.
    pub(crate) fn is_rejected(&self) -> bool {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Whether a shell of this run may exist.
    pub(crate) fn may_have_shells(&self) -> bool {
        !self.made().is_empty()
    }

    /// A connection and an ordinary shell.
    pub(crate) async fn bench(&self) -> Result<Bench> {
        self.bench_with(&properties()).await
    }

    pub(crate) async fn bench_with(&self, properties: &ShellProperties) -> Result<Bench> {
        let mut line = self.connect().await?;
        let (shell, _) = self.create(&mut line, properties).await?;
        Ok(Bench { line, shell })
    }

    /// Creates a shell with the product's own request.
    pub(crate) async fn create(&self, line: &mut Line, properties: &ShellProperties) -> Result<(Shell, Reply)> {
        let id = Uuid::new_v4();
        let name = self.note_intent();
        let bytes = self.requests.create(id, &name, properties)?;
        let reply = line.ask(self, id, bytes, OPERATION).await?;
        let brief = reply.brief();
        self.note_answer(name, &reply).map(|shell| (shell, reply)).ok_or_else(|| anyhow!("Create: {brief}"))
    }

    /// Creates a shell with another request, made for the name that it is given.
    pub(crate) async fn create_with(
        &self,
        line: &mut Line,
        request: impl FnOnce(&str) -> Custom,
    ) -> Result<(Option<Shell>, Reply)> {
        let name = self.note_intent();
        let reply = self.ask(line, &request(&name)).await?;
        Ok((self.note_answer(name, &reply), reply))
    }

    pub(crate) async fn ask(&self, line: &mut Line, request: &Custom) -> Result<Reply> {
        let id = Uuid::new_v4();
        let bytes = request.bytes(&self.target.endpoint.to_string(), self.session, id);
        line.ask(self, id, bytes, request.timeout()).await
    }

    /// Deletes a shell; it counts as gone when the host says so.
    pub(crate) async fn delete(&self, line: &mut Line, shell: &str) -> Result<Reply> {
        let id = Uuid::new_v4();
        let reply = line.ask(self, id, self.requests.delete(id, shell)?, OPERATION).await?;
        let gone = match &reply.response {
            Response::Empty | Response::Other(_) => true,
            Response::Fault(fault) => fault.meaning(Operation::Delete) == Meaning::AlreadyGone,
            _ => false,
        };
        if gone {
            self.made().retain(|made| made.id.as_deref() != Some(shell));
        }
        Ok(reply)
    }

    /// The host's list of this user's shells.
    pub(crate) async fn list(&self, line: &mut Line) -> Result<Reply> {
        let id = Uuid::new_v4();
        line.ask(self, id, self.requests.list(id, Listing::Shells)?, OPERATION).await
    }

    /// Deletes what checks have left.
    pub(crate) async fn sweep(&self) -> Result<()> {
        if self.made().is_empty() {
            return Ok(());
        }
        let mut spare = self.spare.lock().await;
        let mut line = match spare.take().filter(|line| line.0.is_usable()) {
            Some(line) => line,
            None => self.connect().await?,
        };
        let known: Vec<String> = self.made().iter().filter_map(|made| made.id.clone()).collect();
        for shell in known {
            self.delete(&mut line, &shell).await?;
        }
        if !self.made().is_empty() {
            self.delete_listed(&mut line).await?;
        }
        *spare = Some(line);
        Ok(())
    }

    /// Deletes all shells of this run, those too whose creation was never confirmed, and counts what is left.
    pub(crate) async fn close(&self) -> Result<usize> {
        // A connection that broke in the middle of it says nothing about the shells: one more is tried.
        if self.sweep().await.is_err() {
            self.sweep().await?;
        }
        let mut line = self.connect().await?;
        self.delete_listed(&mut line).await
    }

    /// Deletes shells of this run that the host lists. How many are left; an error when that cannot be said.
    async fn delete_listed(&self, line: &mut Line) -> Result<usize> {
        let mut left = 0;
        for _ in 0..LISTINGS {
            let listing = self.list(line).await?;
            let Response::Listed(listed) = &listing.response else {
                // Without a list there is still what the host has said to each Delete.
                ensure!(
                    self.made().is_empty(),
                    "shells may be left, and the host does not list them: {}",
                    listing.brief()
                );
                return Ok(0);
            };
            let named = |name: &Option<String>| name.as_deref().is_some_and(|name| name.starts_with(&self.prefix));
            let ours = listed.shells.iter().filter(|shell| named(&shell.name)).map(|shell| shell.shell_id.clone());
            let ours: Vec<String> = ours.collect();
            left = ours.len();
            for shell in ours {
                self.delete(line, &shell).await?;
            }
            if left == 0 {
                let unconfirmed = self.made().iter().any(|made| made.id.is_none());
                if !unconfirmed {
                    return Ok(0);
                }
                // A Create whose answer was not waited for may still be at work.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        if left == 0 {
            // What was asked for and never came.
            self.made().retain(|made| made.id.is_some());
        }
        Ok(left)
    }

    fn note_intent(&self) -> String {
        let name = format!("{}{}", self.prefix, Uuid::new_v4().simple());
        self.made().push(Made { name: name.clone(), id: None });
        name
    }

    fn note_answer(&self, name: String, reply: &Reply) -> Option<Shell> {
        let mut made = self.made();
        match &reply.response {
            Response::Created(created) => {
                let id = created.shell_id.clone();
                made.iter_mut().filter(|made| made.name == name).for_each(|made| made.id = Some(id.clone()));
                Some(Shell { id, name })
            }
            Response::Fault(fault) if fault.meaning(Operation::Create) != Meaning::Ambiguous => {
                made.retain(|made| made.name != name);
                None
            }
            _ => None,
        }
    }

    fn made(&self) -> MutexGuard<'_, Vec<Made>> {
        // A list of names is whole whoever panics.
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a text of the host or its user out of the report.
    pub(crate) fn hide(&self, text: &str, instead: &'static str) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let text = text.trim();
        if !text.is_empty() && text.len() <= 256 && names.len() < 256 && !names.iter().any(|(name, _)| name == text) {
            names.push((text.to_owned(), instead));
        }
    }

    pub(crate) fn hidden(&self) -> Vec<(String, &'static str)> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    // ------------------------------------------------------------------------------------------------ commands

    /// Starts a command under an identifier of our choice.
    pub(crate) async fn start(&self, line: &mut Line, shell: &str, command: &str, input: bool) -> Result<Uuid> {
        let command_id = Uuid::new_v4();
        let reply = self.command(line, shell, command_id, command, input).await?;
        match &reply.response {
            Response::CommandStarted(_) => Ok(command_id),
            _ => bail!("Command: {}", reply.brief()),
        }
    }

    pub(crate) async fn command(
        &self,
        line: &mut Line,
        shell: &str,
        command_id: Uuid,
        command: &str,
        input: bool,
    ) -> Result<Reply> {
        let id = Uuid::new_v4();
        let bytes = self.requests.command(id, CommandRef { shell_id: shell, command_id }, command, input)?;
        line.ask(self, id, bytes, OPERATION).await
    }

    pub(crate) async fn send(
        &self,
        line: &mut Line,
        shell: &str,
        command_id: Uuid,
        data: &[u8],
        end: bool,
        patience: Duration,
    ) -> Result<Reply> {
        let id = Uuid::new_v4();
        let bytes = self.requests.send(id, CommandRef { shell_id: shell, command_id }, data, end, patience)?;
        line.ask(self, id, bytes, patience).await
    }

    /// Sends all of the input, as the product does: a timeout means taken, busy means later.
    pub(crate) async fn feed(&self, line: &mut Line, shell: &str, command_id: Uuid, input: &[u8]) -> Result<u32> {
        let (mut rest, mut sends) = (input, 0);
        loop {
            let (piece, later) = rest.split_at(rest.len().min(self.requests.send_budget()));
            let reply = self.send(line, shell, command_id, piece, later.is_empty(), Duration::from_secs(5)).await?;
            sends += 1;
            match (&reply.response, reply.fault().map(|fault| fault.meaning(Operation::Send))) {
                (Response::Sent, _) | (_, Some(Meaning::Accepted)) => rest = later,
                (_, Some(Meaning::InputBusy)) => tokio::time::sleep(Duration::from_secs(1)).await,
                _ => bail!("Send: {}", reply.brief()),
            }
            if rest.is_empty() {
                return Ok(sends);
            }
        }
    }

    pub(crate) async fn receive(
        &self,
        line: &mut Line,
        shell: &str,
        command_id: Uuid,
        patience: Duration,
    ) -> Result<Reply> {
        let id = Uuid::new_v4();
        let bytes = self.requests.receive(id, CommandRef { shell_id: shell, command_id }, patience)?;
        line.ask(self, id, bytes, patience).await
    }

    /// Receives to the end.
    pub(crate) async fn collect(&self, line: &mut Line, shell: &str, command_id: Uuid) -> Result<Ended> {
        let mut ended = Ended::default();
        loop {
            let reply = self.receive(line, shell, command_id, OPERATION).await?;
            if self.take(&reply, &mut ended)? {
                return Ok(ended);
            }
        }
    }

    /// Adds one answer to Receive; true at the end.
    pub(crate) fn take(&self, reply: &Reply, ended: &mut Ended) -> Result<bool> {
        let received = match &reply.response {
            Response::Received(received) => received,
            Response::Fault(fault) if fault.meaning(Operation::Receive) == Meaning::PollAgain => {
                ended.timeouts += 1;
                return Ok(false);
            }
            _ => bail!("Receive: {}", reply.brief()),
        };
        ended.receives += 1;
        for (stream, data) in &received.output {
            let kept = match stream {
                OutputStream::Stdout => &mut ended.stdout,
                OutputStream::Stderr => &mut ended.stderr,
            };
            ensure!(kept.len() + data.len() <= MAX_OUTPUT, "more output than a check may have");
            kept.extend_from_slice(data);
        }
        if received.state != Some(State::Done) {
            return Ok(false);
        }
        ended.done_with_output = !received.output.is_empty();
        ended.exit_text = reply.element("ExitCode").unwrap_or_default();
        ended.exit_code = received.exit_code.context("Done without an exit code")?;
        Ok(true)
    }

    pub(crate) async fn signal(&self, line: &mut Line, shell: &str, command_id: Uuid, signal: Signal) -> Result<Reply> {
        let id = Uuid::new_v4();
        let bytes = self.requests.signal(id, CommandRef { shell_id: shell, command_id }, signal)?;
        line.ask(self, id, bytes, OPERATION).await
    }

    /// Sends all of the input on one connection and receives to the end on another. How many Sends it took.
    ///
    /// A command that ends early is no error: what it did not read is not sent.
    pub(crate) async fn run_apart(
        &self,
        bench: &mut Bench,
        other: &mut Line,
        command: &str,
        input: &[u8],
    ) -> Result<(Ended, u32)> {
        let shell = bench.shell.id.clone();
        let id = self.start(&mut bench.line, &shell, command, true).await?;
        let (ended, sends) = {
            let feeding = self.feed(other, &shell, id, input);
            let collecting = self.collect(&mut bench.line, &shell, id);
            tokio::pin!(feeding, collecting);
            tokio::select! {
                ended = &mut collecting => (ended?, 0),
                sent = &mut feeding => match sent {
                    Ok(sends) => (collecting.await?, sends),
                    Err(error) => match tokio::time::timeout(AFTERMATH, collecting).await {
                        Ok(Ok(ended)) => (ended, 0),
                        _ => return Err(error),
                    },
                },
            }
        };
        self.signal(&mut bench.line, &shell, id, Signal::Terminate).await?;
        Ok((ended, sends))
    }

    /// Runs a command to its end and signals it, all on one connection. For small inputs.
    pub(crate) async fn run(&self, bench: &mut Bench, command: &str, input: Option<&[u8]>) -> Result<Ended> {
        let Bench { line, shell } = bench;
        let id = self.start(line, &shell.id, command, input.is_some()).await?;
        if let Some(input) = input {
            self.feed(line, &shell.id, id, input).await?;
        }
        let ended = self.collect(line, &shell.id, id).await?;
        self.signal(line, &shell.id, id, Signal::Terminate).await?;
        Ok(ended)
    }
}

impl Line {
    /// One exchange. The answer must parse, and relate to the request.
    async fn ask(&mut self, lab: &Lab, id: Uuid, envelope: Vec<u8>, timeout: Duration) -> Result<Reply> {
        let begin = Instant::now();
        let answer = self.0.exchange(Bytes::from(envelope), timeout + GRACE).await.map_err(|error| {
            if error.credential_rejected() {
                lab.rejected.store(true, Ordering::Relaxed);
            }
            failure(&error)
        })?;
        let elapsed = begin.elapsed();
        let response = wsman::parse(&answer.body, Some(id)).context("the answer could not be read")?;
        if let Response::Fault(fault) = &response
            && let Some(machine) = &fault.machine
        {
            lab.hide(machine, "<host>");
        }
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        Ok(Reply { status: answer.status, text, response, elapsed })
    }
}

/// What shells of checks are like unless a check is about that: as in the product, but for a shorter idle timeout.
pub(crate) fn properties() -> ShellProperties {
    ShellProperties { idle_timeout: Duration::from_secs(15 * 60), ..ShellProperties::default() }
}

/// An error of the product, in words.
pub(crate) fn failure(error: &Error) -> anyhow::Error {
    anyhow!("{} [{} at {}]", error.report(), error.code(), error.stage())
}
