//! The connection-test ladder: resolve, connect, TLS, Identify, authenticate, open a shell, run a command, close.
//!
//! Each rung is timed and says what it found; the first one that does not hold ends the climb. It works on connections of
//! its own, beside any pool, and tries the credential once. [`survey`] looks at what needs no credential. Called by agents,
//! the command line and the doctor.

pub mod survey;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;
use uuid::Uuid;

use crate::connection::{self, Candidate, Connection, TlsInfo};
use crate::error::{Error, ErrorKind, Stage};
use crate::pool::{Attempt, ConnectionInfo, Verdicts, settle};
use crate::session::{Session, fault_error, soap_error};
use crate::shell::{Event, Execution, Invocation, OutputStream, Trouble, Turn};
use crate::target::{AuthKind, Target};
use crate::wsman::{IDENTIFY, Response, Signal, parse};

/// What the ladder runs. It is there on every Windows, answers at once and changes nothing.
const COMMAND: &str = "hostname";
/// IdleTimeOut of the ladder's shell: if it cannot be deleted, the host does so soon. The least that Windows 2008 R2 takes.
const SHELL_IDLE: Duration = Duration::from_secs(15 * 60);
/// How long the shell may take to be deleted, beyond the deadline too.
const CLEANUP: Duration = Duration::from_secs(15);
/// Bytes of each stream of a command that are kept.
const MOST_OUTPUT: usize = 64 * 1024;
/// Bytes of the ladder's command that are shown.
const MOST_SHOWN: usize = 256;

/// One rung of the ladder.
#[derive(Debug)]
pub struct Rung {
    /// Which.
    pub stage: Stage,
    /// How it went.
    pub outcome: RungOutcome,
    /// How long it took.
    pub elapsed: Duration,
    /// What was found.
    pub detail: String,
}

/// How a rung went.
#[derive(Debug)]
pub enum RungOutcome {
    /// It holds.
    Passed,
    /// It holds; `detail` warns.
    Warning,
    /// It does not hold.
    Failed(Error),
    /// Not tried.
    Skipped,
}

/// A command that was run besides, in the ladder's shell.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code.
    pub exit_code: i32,
    /// Its standard output, the first 64 KiB.
    pub stdout: Vec<u8>,
    /// Its error stream, the first 64 KiB.
    pub stderr: Vec<u8>,
    /// From Command to the end.
    pub elapsed: Duration,
}

/// What the ladder found.
#[derive(Debug)]
pub struct Report {
    /// Every rung, in order.
    pub rungs: Vec<Rung>,
    /// The connection, when it got that far.
    pub connection: Option<ConnectionInfo>,
}

impl Report {
    /// The first rung that failed.
    #[must_use]
    pub fn failure(&self) -> Option<&Error> {
        self.rungs.iter().find_map(|rung| match &rung.outcome {
            RungOutcome::Failed(error) => Some(error),
            _ => None,
        })
    }
}

/// Climbs the ladder on connections of its own (no pool), calling `on_rung` after each rung. Leaves no shell behind: when
/// this future is dropped half-way, the shell is deleted in the background. Dropped while the shell is being created, it
/// leaves it to the host, which deletes it a quarter of an hour later.
pub async fn probe(target: &Target, deadline: Instant, on_rung: impl FnMut(&Rung)) -> Report {
    probe_running_of(target, Owner::nobody(), &[], Duration::ZERO, deadline, on_rung).await.0
}

/// The same, and runs `further` commands in the ladder's shell before it is closed, one after the other. Each may take
/// `each`; the first that does not end in time, or fails to run, ends them. What became of them changes no rung.
pub async fn probe_running(
    target: &Target,
    further: &[Invocation],
    each: Duration,
    deadline: Instant,
    on_rung: impl FnMut(&Rung),
) -> (Report, Vec<Result<Ran, Error>>) {
    probe_running_of(target, Owner::nobody(), further, each, deadline, on_rung).await
}

/// On whose behalf the ladder is climbed.
#[derive(Debug)]
pub(crate) struct Owner<'a> {
    /// What the name of its shell begins with.
    pub(crate) naming: Arc<str>,
    /// Where what is known of credentials is asked for, and told. They are held up from the logon to the host's word on it,
    /// and not by a host that is silent before, nor by what is run afterwards.
    pub(crate) verdicts: Option<&'a Verdicts>,
}

impl Owner<'_> {
    fn nobody() -> Self {
        Self { naming: NAMING.into(), verdicts: None }
    }
}

/// The same on behalf of `owner`.
pub(crate) async fn probe_running_of(
    target: &Target,
    owner: Owner<'_>,
    further: &[Invocation],
    each: Duration,
    deadline: Instant,
    on_rung: impl FnMut(&Rung),
) -> (Report, Vec<Result<Ran, Error>>) {
    let mut further = Further { invocations: further, each, ran: Vec::new() };
    let report = go(target, owner, &mut further, deadline, on_rung).await;
    (report, further.ran)
}

/// Commands that are run besides, and what became of them.
struct Further<'a> {
    invocations: &'a [Invocation],
    each: Duration,
    ran: Vec<Result<Ran, Error>>,
}

async fn go(
    target: &Target,
    owner: Owner<'_>,
    further: &mut Further<'_>,
    deadline: Instant,
    on_rung: impl FnMut(&Rung),
) -> Report {
    let mut ladder = Ladder { rungs: Vec::with_capacity(STAGES.len()), on_rung, since: Instant::now() };
    let mut connection = None;
    let mut failure = climb(target, owner, further, deadline, &mut ladder, &mut connection).await.err();
    // The rung that does not hold is the one after the last that does, whatever stage its failure names: a host may reject
    // a credential late.
    while let Some(&stage) = STAGES.get(ladder.rungs.len()) {
        ladder.rung(stage, failure.take().map_or(RungOutcome::Skipped, RungOutcome::Failed), String::new());
    }
    Report { rungs: ladder.rungs, connection }
}

const STAGES: [Stage; 8] = [
    Stage::Resolve,
    Stage::Connect,
    Stage::Tls,
    Stage::Identify,
    Stage::Authenticate,
    Stage::OpenShell,
    Stage::Run,
    Stage::Close,
];

struct Ladder<F> {
    rungs: Vec<Rung>,
    on_rung: F,
    since: Instant,
}

impl<F: FnMut(&Rung)> Ladder<F> {
    fn passed(&mut self, stage: Stage, detail: String) {
        self.rung(stage, RungOutcome::Passed, detail);
    }

    /// Adds a rung that took from the one before to now.
    fn rung(&mut self, stage: Stage, outcome: RungOutcome, detail: String) {
        let now = Instant::now();
        let elapsed = match outcome {
            RungOutcome::Skipped => Duration::ZERO,
            _ => now - self.since,
        };
        self.since = now;
        let rung = Rung { stage, outcome, elapsed, detail };
        (self.on_rung)(&rung);
        self.rungs.push(rung);
    }
}

/// Adds the rungs that hold; the failure belongs to the one after them.
async fn climb<F: FnMut(&Rung)>(
    target: &Target,
    owner: Owner<'_>,
    further: &mut Further<'_>,
    deadline: Instant,
    ladder: &mut Ladder<F>,
    found: &mut Option<ConnectionInfo>,
) -> Result<(), Error> {
    let candidate = reach(target, deadline, ladder).await?;
    let candidate = identified(candidate, target, deadline, ladder).await?;
    let (connection, attempt) = log_in(candidate, target, owner.verdicts, deadline).await?;
    let details = connection.info().clone();
    *found = Some(ConnectionInfo::new(&details, false));
    let how = if details.sealed { "messages are sealed" } else { "messages are not sealed" };
    let authenticated = |ladder: &mut Ladder<F>| {
        let who = match &details.kerberos {
            Some(ticket) => format!("{} as {} for {}", details.auth, ticket.client, ticket.service),
            None if details.auth == "negotiate" => format!("negotiate (NTLM) as {}", target.credential.username()),
            None => format!("{} as {}", details.auth, target.credential.username()),
        };
        // What is doubtful about TLS was said on its own rung.
        let about_tls = details.tls.as_ref().and_then(TlsInfo::warning);
        let warnings: Vec<&str> = details
            .warnings
            .iter()
            .filter(|warning| Some(*warning) != about_tls.as_ref())
            .map(String::as_str)
            .collect();
        if warnings.is_empty() {
            ladder.passed(Stage::Authenticate, format!("{who}; {how}"));
        } else {
            ladder.rung(Stage::Authenticate, RungOutcome::Warning, format!("{who}; {}", warnings.join("; ")));
        }
    };
    // Basic is judged with the first request.
    let judged_late = target.auth == AuthKind::Basic;
    if !judged_late {
        authenticated(ladder);
    }
    let mut target = target.clone();
    target.shell.idle_timeout = target.shell.idle_timeout.min(SHELL_IDLE);
    let command_id = Uuid::new_v4();
    let mut opened = Opened { session: Some(Session::new(target, owner.naming)), command_id };
    let Some(session) = &mut opened.session else { return Ok(()) };
    session.connect(connection);
    let created = session.create(deadline).await;
    settle(attempt, &created);
    match created {
        // A fault comes from behind the authentication; of other failures nobody knows.
        Err(error) if judged_late && error.fault().is_none() => return Err(error.at(Stage::Authenticate)),
        created => {
            if judged_late {
                authenticated(ladder);
            }
            created?;
        }
    }
    let shell_id = session.shell().map(|shell| shell.id.clone()).unwrap_or_default();
    ladder.passed(Stage::OpenShell, format!("shell {shell_id}"));

    let hostname = Invocation { command_line: COMMAND.to_owned(), stdin: None, streamed: false };
    let failed = match run(session, command_id, &hostname, deadline).await {
        Ok(ran) => {
            let text = String::from_utf8_lossy(ran.stdout.get(..MOST_SHOWN).unwrap_or(&ran.stdout)).trim().to_owned();
            if ran.exit_code == 0 {
                ladder.passed(Stage::Run, format!("{COMMAND} answered {text:?}"));
            } else {
                let detail = format!("{COMMAND} ended with exit code {} and answered {text:?}", ran.exit_code);
                ladder.rung(Stage::Run, RungOutcome::Warning, detail);
            }
            None
        }
        Err(error) => Some(error.at(Stage::Run)),
    };
    let mut last_id = command_id;
    if failed.is_none() {
        for invocation in further.invocations {
            if let Err(error) = session.signal(last_id, Signal::Terminate, Instant::now() + CLEANUP).await {
                further.ran.push(Err(error));
                break;
            }
            last_id = Uuid::new_v4();
            opened.command_id = last_id;
            let by = deadline.min(Instant::now() + further.each);
            let ran = run(session, last_id, invocation, by).await;
            let ended = ran.is_err();
            further.ran.push(ran);
            if ended {
                break;
            }
        }
    }
    // Also after a failure, and when the deadline has passed: the shell must go. A credential that was rejected is not used
    // again for it.
    let broken = failed.as_ref().or(further.ran.iter().find_map(|ran| ran.as_ref().err()));
    let reconnect = broken.is_some_and(|error| !error.credential_rejected());
    let closed = close(session, last_id, reconnect).await;
    opened.session = None;
    if let Some(error) = failed {
        if let Err(error) = closed {
            tracing::warn!(shell_id, error = %error.report(), "Failed to delete the shell of a connection test");
        }
        return Err(error);
    }
    closed?;
    ladder.passed(Stage::Close, "command signalled, shell deleted".to_owned());
    Ok(())
}

/// What the names of the ladder's shells begin with when they belong to nobody.
const NAMING: &str = "lictor:test:";

/// Resolve, connect, TLS.
async fn reach<F: FnMut(&Rung)>(
    target: &Target,
    deadline: Instant,
    ladder: &mut Ladder<F>,
) -> Result<Candidate, Error> {
    let by = deadline.min(Instant::now() + target.timeouts.connect);
    let addresses = connection::resolve(&target.endpoint, by).await?;
    let listed: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    ladder.passed(Stage::Resolve, listed.join(", "));
    let socket = connection::dial(&target.endpoint, &addresses, by).await?;
    ladder.passed(Stage::Connect, socket.peer().to_string());
    let transport = socket.secure(target, by).await?;
    match transport.tls() {
        None => ladder.rung(Stage::Tls, RungOutcome::Skipped, "plain http".to_owned()),
        Some(tls) => {
            let certificate = format!(
                "{tls}; certificate of {}, issued by {}, valid until {}",
                tls.subject, tls.issuer, tls.not_after
            );
            match &tls.unchecked {
                None => ladder.passed(Stage::Tls, certificate),
                Some(verdict) => {
                    ladder.rung(Stage::Tls, RungOutcome::Warning, format!("{certificate}; not checked: {verdict}"));
                }
            }
        }
    }
    transport.start(target).await
}

/// What a host answers Identify with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identified {
    /// Who it is.
    As {
        /// Who made it.
        vendor: String,
        /// Which version.
        version: String,
    },
    /// It does not say before authentication.
    Withheld,
}

/// Asks the host who it is, without a credential, on a connection of its own that is checked as every other.
///
/// # Errors
/// [`Error`] of the stage that failed.
pub async fn identify(target: &Target, deadline: Instant) -> Result<Identified, Error> {
    let mut candidate = Candidate::reach(target, deadline).await?;
    who_is(&mut candidate, target, deadline).await
}

async fn who_is(candidate: &mut Candidate, target: &Target, deadline: Instant) -> Result<Identified, Error> {
    let left = deadline.saturating_duration_since(Instant::now());
    match candidate.identify(Bytes::from_static(IDENTIFY.as_bytes()), target.timeouts.read.min(left)).await {
        Ok(answer) => match parse(&answer.body, None).map_err(|error| soap_error(Stage::Identify, error))? {
            Response::Identified(identity) => Ok(Identified::As { vendor: identity.vendor, version: identity.version }),
            Response::Fault(fault) => Err(fault_error(Stage::Identify, fault)),
            other => {
                let detail = format!("{} to Identify", other.name());
                Err(Error::new(Stage::Identify, ErrorKind::SoapMalformed { detail }))
            }
        },
        Err(error) if matches!(error.kind(), ErrorKind::HttpStatus { status: 401 }) => Ok(Identified::Withheld),
        Err(error) => Err(error),
    }
}

/// Identify. A host that closes the connection afterwards is connected to again.
async fn identified<F: FnMut(&Rung)>(
    mut candidate: Candidate,
    target: &Target,
    deadline: Instant,
    ladder: &mut Ladder<F>,
) -> Result<Candidate, Error> {
    match who_is(&mut candidate, target, deadline).await? {
        Identified::As { vendor, version } => ladder.passed(Stage::Identify, format!("{vendor}, {version}")),
        Identified::Withheld => {
            let detail = "the host does not identify itself before authentication".to_owned();
            ladder.rung(Stage::Identify, RungOutcome::Warning, detail);
        }
    }
    if candidate.is_usable() {
        return Ok(candidate);
    }
    Candidate::reach(target, deadline).await.map_err(|error| error.at(Stage::Authenticate))
}

/// Returns the attempt when it takes the first request to know what the host thinks of the credential.
async fn log_in<'a>(
    candidate: Candidate,
    target: &Target,
    verdicts: Option<&'a Verdicts>,
    deadline: Instant,
) -> Result<(Connection, Option<Attempt<'a>>), Error> {
    let attempt = match verdicts {
        Some(verdicts) => Some(verdicts.enter(target, deadline).await?),
        None => None,
    };
    let authenticated = candidate.authenticate(target, deadline).await;
    let attempt = attempt.and_then(|attempt| attempt.logon(target.auth, &authenticated));
    Ok((authenticated.map_err(|error| error.at(Stage::Authenticate))?, attempt))
}

/// Runs one command to its end.
async fn run(
    session: &mut Session,
    command_id: Uuid,
    invocation: &Invocation,
    deadline: Instant,
) -> Result<Ran, Error> {
    let ran = timeout_at(deadline, follow(session, command_id, invocation)).await;
    ran.unwrap_or_else(|_| Err(Error::new(Stage::Run, ErrorKind::DeadlinePassed)))
}

async fn follow(session: &mut Session, command_id: Uuid, invocation: &Invocation) -> Result<Ran, Error> {
    let since = Instant::now();
    let mut execution = Execution::new(invocation, command_id, session.send_budget());
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        while let Some(event) = execution.event() {
            match event {
                Event::Output { stream, data } => {
                    let kept = if stream == OutputStream::Stdout { &mut stdout } else { &mut stderr };
                    let room = MOST_OUTPUT - kept.len();
                    kept.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
                }
                Event::Done { exit_code, .. } => {
                    return Ok(Ran { exit_code, stdout, stderr, elapsed: since.elapsed() });
                }
            }
        }
        let turn = execution.turn();
        let response = match &turn {
            Turn::Command => session.command(command_id, &invocation.command_line, invocation.stdin.is_some()).await?,
            turn => session.turn(command_id, turn).await?,
        };
        execution.answer(&turn, response).map_err(|trouble| match trouble {
            Trouble::Fault(fault) => fault_error(Stage::Run, fault),
            Trouble::Unexpected(detail) => Error::new(Stage::Run, ErrorKind::SoapMalformed { detail }),
        })?;
    }
}

/// A session whose shell goes also when the climb is dropped half-way.
struct Opened {
    session: Option<Session>,
    command_id: Uuid,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let Some(mut session) = self.session.take().filter(|session| session.shell().is_some()) else { return };
        let command_id = self.command_id;
        // Nobody is left who could own this task; it ends by itself within the time for clean-up.
        if let Ok(runtime) = Handle::try_current() {
            let closing = async move {
                if let Err(error) = close(&mut session, command_id, true).await {
                    tracing::warn!(error = %error.report(), "Failed to delete the shell of an abandoned connection test");
                }
            };
            runtime.spawn(closing.in_current_span());
        }
    }
}

/// Signals the command and deletes the shell, over another connection when a failure ended the first one.
async fn close(session: &mut Session, command_id: Uuid, reconnect: bool) -> Result<(), Error> {
    let deadline = Instant::now() + CLEANUP;
    if reconnect && !session.is_connected() {
        session.connect(Connection::open(session.target(), deadline).await.map_err(|error| error.at(Stage::Close))?);
    }
    if let Err(error) = session.signal(command_id, Signal::Terminate, deadline).await {
        // Deleting the shell ends the command as well.
        tracing::debug!(error = %error.report(), "Failed to signal the command of a connection test");
    }
    session.delete(deadline).await
}

#[cfg(test)]
mod tests;
