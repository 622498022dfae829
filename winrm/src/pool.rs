//! The session pool: sessions across callers.
//!
//! A session is one authenticated connection and one remote shell. Callers that agree in everything that matters (host,
//! user, password, properties) share sessions one after the other, never at a time, within bounds per (host, user) and in
//! all. What ends sessions - the final Signal, deleting shells, retiring idle ones - happens in tasks that the pool owns.
//! It starts a command at most once, and tries a wrong password at most once. Called by agents and the command line.

mod attach;
mod background;
mod key;
mod lease;
mod orphans;
mod places;
mod running;
#[cfg(test)]
pub(crate) mod tests;
mod verdicts;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::configuration::{self, Configuration};
use crate::connection::ConnectionDetails;
use crate::error::{Error, ErrorKind, Stage};
use crate::failure::{self, Next};
use crate::fault::Operation;
use crate::probe::{Owner, Ran, Report, Rung, probe_running_of};
use crate::session::Session;
use crate::shell::Invocation;
use crate::target::Target;
use background::Inner;
use key::{Key, User};
use places::{Grant, Pooled};

pub(crate) use verdicts::{Attempt, Verdicts, settle};

pub use lease::{Lease, Ledger, Patience};
pub use running::{Running, Stopped};

/// Bounds of a pool.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// Most sessions in all.
    pub max_sessions: usize,
    /// Most shells per (host, user). Windows allows 30 by default over all clients; when a host gives less, the pool asks
    /// for less.
    pub max_shells_per_user: usize,
    /// Most shells per host, over all users.
    pub max_shells_per_host: usize,
    /// How long an idle connection is kept. HTTP.sys closes at 120 s.
    pub connection_idle: Duration,
    /// How long an idle shell is kept before it is deleted.
    pub shell_idle: Duration,
    /// Who holds the shells, across restarts: shells that an earlier process of the same owner left behind on a host are
    /// deleted when the host is used again. Nothing: nobody looks for them. Letters, digits, `-`, `_` and `.` count.
    pub owner: Option<String>,
    /// Commands per shell before it is replaced.
    pub commands_per_shell: u32,
    /// Commands that the shells of one user on one host may have taken together. Windows counts 1,500 operations per user
    /// over all clients, and gives a shell's share back only when the shell is deleted: before this many are reached, shells
    /// are replaced earlier than after [`commands_per_shell`](Self::commands_per_shell).
    pub commands_per_user: u32,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            max_sessions: 1000,
            max_shells_per_user: 10,
            max_shells_per_host: 30,
            connection_idle: Duration::from_secs(60),
            shell_idle: Duration::from_secs(60),
            owner: None,
            commands_per_shell: 200,
            commands_per_user: 1000,
        }
    }
}

/// Sessions across callers. Cloning gives another handle to the same pool.
///
/// Close it with [`Pool::close`]: when the last handle is merely dropped, connections close, but shells stay on their hosts
/// until their idle timeout.
#[derive(Debug, Clone)]
pub struct Pool(Arc<Inner>);

impl Pool {
    /// An empty pool. Leasing from it needs a Tokio runtime.
    #[must_use]
    pub fn new(settings: PoolSettings) -> Self {
        Self(Arc::new(Inner::new(settings)))
    }

    /// Lends a session with an open shell on `target`, waiting for a place when a bound is reached.
    ///
    /// # Errors
    /// [`Error`] of the stage that failed; at `deadline` the wait ends with code `pool.timeout`.
    pub async fn lease(&self, target: &Target, deadline: Instant) -> Result<Lease, Error> {
        let inner = &self.0;
        inner.watch();
        let key = Arc::new(Key::new(target, &inner.verdicts));
        let mut queue = Queue::new(inner, &key, deadline);
        loop {
            let pooled = match queue.wait(target).await? {
                Grant::Idle(mut pooled) => {
                    pooled.session.adopt(target);
                    *pooled
                }
                Grant::New(slot) => {
                    let key = Arc::clone(&key);
                    Pooled { session: Session::new(target.clone(), inner.names.prefix()), key, slot }
                }
            };
            match Lease::open(Arc::clone(inner), pooled, deadline).await {
                Err(error) if failure::next(Operation::Create, &error) == Next::BackOff => queue.put_off(error).await?,
                outcome => return outcome,
            }
        }
    }

    /// Climbs the connection ladder, see [`probe`](crate::probe::probe()), beside the pool's sessions. Its shell bears the
    /// owner's name: what a killed process leaves behind is found and deleted like the rest.
    pub async fn probe(&self, target: &Target, deadline: Instant, on_rung: impl FnMut(&Rung)) -> Report {
        let owner = Owner { naming: self.0.names.prefix(), verdicts: None };
        probe_running_of(target, owner, &[], Duration::ZERO, deadline, on_rung).await.0
    }

    /// The same, and runs further commands in its shell, see [`probe_running`](crate::probe::probe_running()). The credential is
    /// tried as one of the pool's: not when it is known to be wrong, an account's first use is one attempt, whoever makes it,
    /// and others learn at once what came of it.
    pub async fn probe_running(
        &self,
        target: &Target,
        further: &[Invocation],
        each: Duration,
        deadline: Instant,
        on_rung: impl FnMut(&Rung),
    ) -> (Report, Vec<Result<Ran, Error>>) {
        let owner = Owner { naming: self.0.names.prefix(), verdicts: Some(&self.0.verdicts) };
        probe_running_of(target, owner, further, each, deadline, on_rung).await
    }

    /// Reads the configuration of a host, over a connection beside the pool's sessions. The credential is tried as one of the
    /// pool's.
    ///
    /// # Errors
    /// [`Error`] of the stage that failed, when the host could not be talked to. What the host refuses to tell is none.
    pub async fn configuration(&self, target: &Target, deadline: Instant) -> Result<Configuration, Error> {
        let (connection, attempt) = self.0.connect(target, deadline).await?;
        configuration::read(connection, target, deadline, |first| settle(attempt, first)).await
    }

    /// Whether the credential of `target` may be tried.
    ///
    /// # Errors
    /// When it is known to be wrong.
    pub fn check(&self, target: &Target) -> Result<(), Error> {
        self.0.verdicts.check(target)
    }

    /// Figures for metrics.
    #[must_use]
    pub fn statistics(&self) -> PoolStatistics {
        let figures = &self.0.figures;
        let (idle, waiting) = self.0.places.figures();
        PoolStatistics {
            leased: figures.leased.load(Ordering::Relaxed),
            idle,
            waiting,
            leases_total: figures.leases.load(Ordering::Relaxed),
            warm_total: figures.warm.load(Ordering::Relaxed),
            connections_total: figures.connections.load(Ordering::Relaxed),
            shells_created_total: figures.shells_created.load(Ordering::Relaxed),
            shells_deleted_total: figures.shells_deleted.load(Ordering::Relaxed),
            orphans_deleted_total: figures.orphans_deleted.load(Ordering::Relaxed),
            waits_total: figures.waits.load(Ordering::Relaxed),
            backoffs_total: figures.backoffs.load(Ordering::Relaxed),
        }
    }

    /// Ends every idle session and waits for background clean-up: shells are deleted on their hosts. At `deadline` it
    /// gives up. Returns how many shells are not known to be gone, those of sessions still lent included.
    pub async fn close(&self, deadline: Instant) -> usize {
        self.0.places.close();
        self.0.drain(deadline).await;
        self.0.figures.shells_open.load(Ordering::Relaxed)
    }
}

/// A caller's way to a place, as often as a host puts it off.
struct Queue<'a> {
    inner: &'a Arc<Inner>,
    key: &'a Arc<Key>,
    deadline: Instant,
    /// The place in the queue, kept between attempts.
    seniority: Option<u64>,
    /// How the host put the last attempt off.
    put_off: Option<Error>,
}

impl<'a> Queue<'a> {
    fn new(inner: &'a Arc<Inner>, key: &'a Arc<Key>, deadline: Instant) -> Self {
        Self { inner, key, deadline, seniority: None, put_off: None }
    }

    async fn wait(&mut self, target: &Target) -> Result<Grant, Error> {
        let closed = || Error::new(Stage::Connect, ErrorKind::PoolClosed).unsent();
        let places = &self.inner.places;
        let mut ticket = places.queue(self.key, self.seniority).ok_or_else(closed)?;
        if self.seniority.replace(ticket.id).is_none() && !ticket.is_granted() {
            self.inner.figures.waits.fetch_add(1, Ordering::Relaxed);
        }
        if !ticket.is_granted()
            && let Some(until) = places.rests(&self.key.user())
        {
            match timeout_at(until.min(self.deadline), &mut ticket.grant).await {
                Ok(grant) => return grant.map_err(|_| closed()),
                Err(_) => places.grow(),
            }
        }
        match timeout_at(self.deadline, &mut ticket.grant).await {
            Ok(grant) => grant.map_err(|_| closed()),
            Err(_) => Err(match self.put_off.take() {
                Some(error) => error,
                None => {
                    let detail = places.bound(&User::of(target));
                    Error::new(Stage::Connect, ErrorKind::PoolTimeout { detail }).unsent()
                }
            }),
        }
    }

    /// The host put the attempt off with `error`, which is what the caller gets when time is up.
    async fn put_off(&mut self, error: Error) -> Result<(), Error> {
        if Instant::now() >= self.deadline {
            return Err(error);
        }
        self.inner.backed_off();
        let user = self.key.user();
        self.inner.places.put_off(&user);
        // A service that is starting has no use for an idle shell of ours either.
        if error.fault().is_none()
            && let Some(until) = self.inner.places.rests(&user)
        {
            sleep_until(until.min(self.deadline)).await;
        }
        self.put_off = Some(error);
        Ok(())
    }
}

/// A lock whose holder panicked is taken all the same: every change under it is complete in itself.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Figures for metrics. Counters since the pool was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolStatistics {
    /// Sessions lent at the moment.
    pub leased: usize,
    /// Sessions idle at the moment.
    pub idle: usize,
    /// Callers waiting at the moment.
    pub waiting: usize,
    /// Leases given.
    pub leases_total: u64,
    /// Leases that found a warm session: handshakes saved.
    pub warm_total: u64,
    /// Connections opened.
    pub connections_total: u64,
    /// Shells created.
    pub shells_created_total: u64,
    /// Shells deleted.
    pub shells_deleted_total: u64,
    /// Shells deleted that an earlier process had left behind.
    pub orphans_deleted_total: u64,
    /// Leases that had to wait for a place.
    pub waits_total: u64,
    /// Times that a host put something off, for reasons of quota or because its service was starting.
    pub backoffs_total: u64,
}

/// What connection is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// `basic`, `ntlm` or `negotiate`.
    pub auth: &'static str,
    /// Messages are sealed.
    pub sealed: bool,
    /// The session was open already.
    pub reused: bool,
    /// TLS version and cipher suite.
    pub tls: Option<String>,
    /// Warnings, such as an unchecked certificate.
    pub warnings: Vec<String>,
}

/// HTTP exchanges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exchanges {
    /// From sending Command to the result being known, both included.
    pub critical: u32,
    /// All for this lease so far: authentication legs, Create and so on included.
    pub total: u32,
}

impl ConnectionInfo {
    pub(crate) fn new(details: &ConnectionDetails, reused: bool) -> Self {
        Self {
            auth: details.auth,
            sealed: details.sealed,
            reused,
            tls: details.tls.as_ref().map(ToString::to_string),
            warnings: details.warnings.clone(),
        }
    }
}
