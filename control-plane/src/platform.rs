//! AWS KMS as the control plane itself uses it: for secret managers with OpenID Connect and the connectivity `platform`.
//!
//! The engine asks by a bounded queue and goes on; what comes of it reaches it as [`Command::Fetched`], always, and within
//! [`LONGEST`] of the moment that its turn comes. Nothing here reads the database or decides who may have a value. It must never be
//! anybody by the identity of the machine that it runs on, log a value or keep one: values in clear live in the cache of `lictor-kms`,
//! which is bounded in size and time, and in what is handed to the engine.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use lictor_kms::{Access, Context, Kms};
use lictor_proto::v1::kms_access::Credentials;
use lictor_proto::v1::{Failure, KmsAccess, KmsRecord, Rung, RungOutcome, Suspect, TaskResult, TaskState};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::engine::{Command, EngineHandle};
use crate::failure;
use crate::oidc::Issuer;

/// Does what the engine asks for. Cloneable.
#[derive(Clone)]
pub(crate) struct Platform {
    kms: Kms,
    issuer: Arc<Issuer>,
}

/// One thing to be done at KMS.
pub(crate) struct Request {
    /// What the asker knows it by; it comes back with the answer.
    pub(crate) ticket: u64,
    /// Whom to ask, and who to be: a web identity whose token is for the control plane itself.
    pub(crate) access: KmsAccess,
    /// What the value belongs to; KMS binds it to that.
    pub(crate) place: Place,
    /// What is to be done.
    pub(crate) work: Work,
}

/// A version of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// Its scope; empty for the whole account.
    pub(crate) scope: String,
    /// Its identifier.
    pub(crate) identifier: String,
    /// Its version.
    pub(crate) version: u64,
}

/// What is to be done.
pub(crate) enum Work {
    /// Decrypt what is stored.
    Open(KmsRecord),
    /// Encrypt a new value.
    Seal(Zeroizing<Vec<u8>>),
    /// Try the manager. The place counts with a record only: one that is stored, for managers that may read alone.
    Test(Option<KmsRecord>),
}

/// What came of a request.
pub(crate) struct Fetched {
    /// That of the request.
    pub(crate) ticket: u64,
    /// What it was, or why not.
    pub(crate) outcome: Result<Done, Box<Unfetched>>,
}

/// Why nothing came of a request.
#[derive(Debug, Clone)]
pub(crate) struct Unfetched {
    /// In the words that end a task.
    pub(crate) failure: Failure,
    /// It may pass: AWS was out of reach, overloaded or late.
    pub(crate) passing: bool,
}

/// What was done.
pub(crate) enum Done {
    /// The value, decrypted.
    Value(Zeroizing<Vec<u8>>),
    /// The value, encrypted.
    Record(KmsRecord),
    /// The test as the result of its task; it may have failed.
    Tested(Box<TaskResult>),
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("ticket", &self.ticket).field("place", &self.place).finish_non_exhaustive()
    }
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value(_) => "Value",
            Self::Record(_) => "Record",
            Self::Tested(_) => "Tested",
        })
    }
}

impl Unfetched {
    /// What lasts: asking again would get the same answer.
    pub(crate) fn lasting(failure: Failure) -> Self {
        Self { failure, passing: false }
    }

    /// What passes.
    pub(crate) fn passing(failure: Failure) -> Self {
        Self { failure, passing: true }
    }

    fn late(manager: &str) -> Self {
        Self::passing(failure::secret_not_fetched(manager, LONGEST.as_secs()))
    }
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

impl Platform {
    /// One that asks whom `issuer` permits.
    pub(crate) fn new(issuer: Arc<Issuer>) -> Self {
        let settings = lictor_kms::Settings { session_name: "control-plane".into(), ..lictor_kms::Settings::default() };
        Self { kms: Kms::new(settings), issuer }
    }

    /// The way to ask, and what [`Platform::run`] takes the questions from.
    pub(crate) fn queue() -> (mpsc::Sender<Request>, mpsc::Receiver<Request>) {
        // Full: the engine tries again later.
        mpsc::channel(MAX_WAITING)
    }

    /// Does what is asked for and tells `engine`, until `stop` or until nobody can ask any more.
    pub(crate) async fn run(
        self,
        mut requests: mpsc::Receiver<Request>,
        engine: EngineHandle,
        stop: CancellationToken,
    ) {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut work = JoinSet::new();
        loop {
            // The place first: what waits, waits in the queue.
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await.ok()?;
                requests.recv().await.map(|request| (place, request))
            };
            let next = tokio::select! {
                () = stop.cancelled() => return,
                next = next => next,
            };
            let Some((place, request)) = next else { return };
            let (platform, engine) = (self.clone(), engine.clone());
            work.spawn(async move {
                let ticket = request.ticket;
                let identifier = request.place.identifier.clone();
                // An answer is owed in any case: what is asked for is asked for once, and everybody waits for that.
                let fetched = AssertUnwindSafe(platform.carry_out(request)).catch_unwind().await;
                let broke = || Unfetched::lasting(failure::secret_unusable(&identifier, BROKE));
                let fetched = fetched.unwrap_or_else(|_| Fetched { ticket, outcome: Err(Box::new(broke())) });
                drop(place);
                // An engine that has stopped waits for nothing.
                let _ = engine.tell(Command::Fetched(fetched)).await;
            });
            // They end by themselves; what they leave is taken away.
            while work.try_join_next().is_some() {}
        }
    }

    async fn carry_out(&self, request: Request) -> Fetched {
        let Request { ticket, access, place, work } = request;
        let manager = access.manager.clone();
        let deadline = Instant::now() + LONGEST;
        // `lictor-kms` keeps the deadline itself; an answer is owed in any case.
        let outcome = timeout_at(deadline + SPARE, self.attempt(access, place, work, deadline)).await;
        let outcome = match outcome {
            Ok(outcome) => outcome.map_err(Box::new),
            Err(_) => Err(Box::new(Unfetched::late(&manager))),
        };
        Fetched { ticket, outcome }
    }

    async fn attempt(&self, access: KmsAccess, place: Place, work: Work, deadline: Instant) -> Result<Done, Unfetched> {
        let refused = |reason: String| Unfetched::lasting(failure::manager_refused(&access.manager, &reason));
        let (manager, permitted) = (access.manager.clone(), self.permit(&access).map_err(refused));
        // Before a refusal as well: of what is parsed nothing stays in memory.
        let parsed = Access::parse(access);
        permitted?;
        let Place { scope, identifier, version } = &place;
        let failed = |verb: &str, error: &lictor_kms::Error| {
            let failure = kms_failure("secret", &format!("failed to {verb} the secret {identifier}"), error);
            Unfetched { failure, passing: error.is_passing() }
        };
        let context = Context::new(scope, identifier, *version);
        match work {
            Work::Open(record) => {
                let access = parsed.map_err(|error| failed("decrypt", &error))?;
                let opened = self.kms.open(&access, &record, &context, deadline).await;
                opened.map(Done::Value).map_err(|error| failed("decrypt", &error))
            }
            Work::Seal(value) => {
                let access = parsed.map_err(|error| failed("encrypt", &error))?;
                let sealed = self.kms.seal(&access, &context, &value, deadline).await;
                sealed.map(Done::Record).map_err(|error| failed("encrypt", &error))
            }
            Work::Test(record) => {
                let attempted = format!("failed to use the secret manager {manager}");
                let malformed = |error: lictor_kms::Error| {
                    Unfetched::lasting(kms_failure(error.stage().as_str(), &attempted, &error))
                };
                let access = parsed.map_err(malformed)?;
                let known = record.as_ref().map(|record| (record, &context));
                let mut rungs = Vec::new();
                self.kms.test_with(&access, known, deadline, |step| rungs.push(rung(&attempted, step))).await;
                Ok(Done::Tested(Box::new(tested(rungs))))
            }
        }
    }

    /// The control plane is nobody at AWS but by its own tokens, and asks nobody whom its settings do not name: whoever writes secret
    /// managers may not lend its machine's identity, or reach what only that machine reaches.
    fn permit(&self, access: &KmsAccess) -> Result<(), String> {
        if !matches!(access.credentials, Some(Credentials::WebIdentity(_))) {
            return Err("it has no OpenID Connect, and the control plane itself has no other credentials".into());
        }
        for endpoint in [&access.endpoint, &access.sts_endpoint] {
            self.issuer.permits(endpoint).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// The result of a test: it failed if one of its steps did.
fn tested(rungs: Vec<Rung>) -> TaskResult {
    let failure = rungs.iter().find(|rung| rung.outcome() == RungOutcome::Failed).and_then(|rung| rung.failure.clone());
    let failed = rungs.is_empty() || rungs.iter().any(|rung| rung.outcome() == RungOutcome::Failed);
    let state = if failed { TaskState::Failed } else { TaskState::Succeeded };
    TaskResult { rungs, ..failure::result(state, failure) }
}

fn rung(attempted: &str, step: &lictor_kms::Step) -> Rung {
    use lictor_kms::Outcome;
    let outcome = match step.outcome {
        Outcome::Passed => RungOutcome::Passed,
        Outcome::Warning => RungOutcome::Warning,
        Outcome::Failed => RungOutcome::Failed,
        Outcome::Skipped => RungOutcome::Skipped,
    };
    let stage = step.stage.as_str();
    Rung {
        stage: stage.into(),
        outcome: outcome.into(),
        elapsed: step.elapsed.try_into().ok(),
        detail: step.detail.clone(),
        failure: step.error.as_ref().map(|error| kms_failure(stage, attempted, error)),
    }
}

/// A failure of `lictor-kms` in the words of the contract.
fn kms_failure(stage: &str, attempted: &str, error: &lictor_kms::Error) -> Failure {
    let suspects = error.suspects().into_iter();
    Failure {
        stage: stage.into(),
        code: error.code().into(),
        message: format!("{attempted}: {error}"),
        cause: error.cause().into(),
        remedy: error.remedy().into(),
        legacy_text: error.legacy_text().unwrap_or_default().into(),
        suspects: suspects
            .map(|suspect| Suspect { code: suspect.code.into(), cause: suspect.cause, remedy: suspect.remedy })
            .collect(),
        ..Failure::default()
    }
}

/// Requests that wait for a place.
const MAX_WAITING: usize = 256;
/// Requests that AWS is asked about at once. Those about one data key are one.
const AT_ONCE: usize = 32;
/// How long one may take: less than an assignment waits for it, unless leases are short.
const LONGEST: Duration = Duration::from_secs(20);
const SPARE: Duration = Duration::from_secs(2);
const BROKE: &str = "the control plane broke off while it asked AWS for it; its log has more";

#[cfg(test)]
mod tests;
