//! What the pool does off everybody's critical path: opening connections, ending commands, deleting shells, retiring idle
//! sessions. Every task is owned by the pool, bounded in time, and at most one per session.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;
use uuid::Uuid;

use super::key::User;
use super::orphans::Names;
use super::places::{Places, Pooled};
use super::verdicts::{Attempt, Verdicts, settle};
use super::{PoolSettings, lock};
use crate::connection::{Candidate, Connection};
use crate::error::{Error, ErrorKind, Stage};
use crate::failure::{self, Next};
use crate::fault::{Class, Operation};
use crate::session::Session;
use crate::target::{AuthKind, Target};
use crate::wsman::Signal;

/// How long cleaning up one session may take, attempts and pauses included.
const CLEANUP: Duration = Duration::from_secs(60);
/// Pauses before each attempt to delete a shell. A host that cannot be reached for longer deletes it by IdleTimeOut.
/// The second one follows at once: the first may only have met a connection that had died.
const PAUSES: [Duration; 4] = [Duration::ZERO, Duration::ZERO, Duration::from_secs(1), Duration::from_secs(5)];
/// How long the final Signal of a command may hold a session back from its next use.
const SIGNAL: Duration = Duration::from_secs(10);

/// What all handles of a pool share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) settings: PoolSettings,
    pub(super) places: Arc<Places>,
    pub(super) verdicts: Verdicts,
    pub(super) names: Names,
    pub(super) figures: Figures,
    tasks: Mutex<JoinSet<()>>,
    /// Held while sessions move from the book to tasks that delete them.
    retiring: Mutex<()>,
    reaper: OnceLock<AbortOnDropHandle<()>>,
}

/// Counters.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) leased: AtomicUsize,
    pub(super) leases: AtomicU64,
    pub(super) warm: AtomicU64,
    pub(super) connections: AtomicU64,
    pub(super) shells_created: AtomicU64,
    pub(super) shells_deleted: AtomicU64,
    pub(super) orphans_deleted: AtomicU64,
    pub(super) waits: AtomicU64,
    pub(super) backoffs: AtomicU64,
    /// Shells that are not known to be gone.
    pub(super) shells_open: AtomicUsize,
}

impl Inner {
    pub(super) fn new(settings: PoolSettings) -> Self {
        Self {
            places: Arc::new(Places::new(settings.clone())),
            names: Names::new(settings.owner.as_deref()),
            settings,
            verdicts: Verdicts::new(),
            figures: Figures::default(),
            tasks: Mutex::default(),
            retiring: Mutex::default(),
            reaper: OnceLock::new(),
        }
    }

    /// Opens a connection, unless the credential is known to be wrong. The attempt is returned as long as nobody knows
    /// what the host thinks of the credential: Basic is judged with the first request.
    pub(super) async fn connect(
        &self,
        target: &Target,
        deadline: Instant,
    ) -> Result<(Connection, Option<Attempt<'_>>), Error> {
        self.verdicts.check(target)?;
        // A host that does not answer must not hold up others that wait for the verdict on the same credential.
        let candidate = Candidate::reach(target, deadline).await?;
        let attempt = self.verdicts.enter(target, deadline).await?;
        self.figures.connections.fetch_add(1, Ordering::Relaxed);
        let mut authenticated = candidate.authenticate(target, deadline).await;
        // A ticket outlives the key that it is sealed for when the host's account gets another password. The source has been
        // told to give a newer one; the host took no request yet.
        if authenticated.as_ref().is_err_and(Error::wants_newer_ticket) {
            authenticated = Candidate::reach(target, deadline).await?.authenticate(target, deadline).await;
        }
        let attempt = attempt.logon(target.auth, &authenticated);
        authenticated.map(|connection| (connection, attempt))
    }

    /// Gives `session` what it lacks: a connection by `deadline`, a shell even after it, because Create may have been
    /// taken. `creating` is dropped when that begins.
    pub(super) async fn open(
        &self,
        session: &mut Session,
        deadline: Instant,
        creating: &mut Option<oneshot::Sender<()>>,
    ) -> Result<(), Error> {
        let was_connected = session.is_connected();
        let mut attempt = None;
        if !was_connected {
            attempt = self.reconnect(session, deadline).await?;
        }
        if session.shell().is_some() {
            return Ok(());
        }
        *creating = None;
        let mut created = self.create(session, deadline).await;
        // An idle connection that the host closed: nothing was written, so nothing is repeated.
        if was_connected && matches!(&created, Err(error) if error.is_unsent()) {
            attempt = self.reconnect(session, deadline).await?;
            created = self.create(session, deadline).await;
        }
        settle(attempt, &created);
        created
    }

    /// Basic is judged with each request: what was rejected meanwhile is not sent again.
    pub(super) fn allowed(&self, session: &Session) -> Result<(), Error> {
        match session.target().auth {
            AuthKind::Basic => self.verdicts.check_session(session),
            AuthKind::Ntlm | AuthKind::Negotiate | AuthKind::Kerberos => Ok(()),
        }
    }

    /// Remembers a credential that the host does not take any more.
    pub(super) fn heard<T>(&self, session: &Session, result: Result<T, Error>) -> Result<T, Error> {
        if result.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::AuthRejected { .. })) {
            self.verdicts.rejected_later(session.target());
        }
        result
    }

    /// Signals a command.
    pub(super) async fn signal(
        &self,
        session: &mut Session,
        command: Uuid,
        signal: Signal,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.allowed(session)?;
        let result = session.signal(command, signal, deadline).await;
        self.heard(session, result)
    }

    /// Gives `session` a new connection.
    pub(super) async fn reconnect(
        &self,
        session: &mut Session,
        deadline: Instant,
    ) -> Result<Option<Attempt<'_>>, Error> {
        drop(session.disconnect());
        let (connection, attempt) = self.connect(session.target(), deadline).await?;
        session.connect(connection);
        Ok(attempt)
    }

    /// Creates a shell. When the user has too many on the host, fewer are asked for from now on, and idle ones of ours go.
    async fn create(&self, session: &mut Session, deadline: Instant) -> Result<(), Error> {
        let by = deadline.max(Instant::now() + session.target().timeouts.read);
        let created = session.create(by).await;
        match &created {
            Ok(()) => {
                self.figures.shells_created.fetch_add(1, Ordering::Relaxed);
                self.figures.shells_open.fetch_add(1, Ordering::Relaxed);
                self.places.opened(&User::of(session.target()));
            }
            Err(error) if failure::next(Operation::Create, error) == Next::BackOff => {
                if error.fault().is_some_and(|fault| fault.class() == Class::QuotaShells) {
                    let user = User::of(session.target());
                    self.places.refused(&user);
                    self.places.evict(&user);
                }
                // Without a connection the session is of no use to anybody, and its place is free for the next attempt.
                drop(session.disconnect());
            }
            Err(_) => {}
        }
        created
    }

    /// Counts a wait because a host puts something off.
    pub(super) fn backed_off(&self) {
        self.figures.backoffs.fetch_add(1, Ordering::Relaxed);
    }

    /// Deletes the shell of `session`, if it has one.
    pub(super) async fn delete(&self, session: &mut Session, deadline: Instant) -> Result<(), Error> {
        if session.shell().is_some() {
            self.allowed(session)?;
            let result = session.delete(deadline).await;
            self.heard(session, result)?;
            self.figures.shells_deleted.fetch_add(1, Ordering::Relaxed);
            self.shell_gone();
        }
        Ok(())
    }

    /// A shell that an earlier process created is ours from now on.
    pub(super) fn shell_taken_over(&self) {
        self.figures.shells_open.fetch_add(1, Ordering::Relaxed);
    }

    /// The host says that a shell is no more.
    pub(super) fn shell_gone(&self) {
        // INVARIANT: called once per shell that was counted when it was created.
        self.figures.shells_open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Starts the task that retires idle sessions, once.
    pub(super) fn watch(self: &Arc<Self>) {
        self.reaper.get_or_init(|| {
            let shortest = self.settings.connection_idle.min(self.settings.shell_idle);
            let tick = (shortest / 8).clamp(Duration::from_millis(10), Duration::from_secs(5));
            let (weak, places) = (Arc::downgrade(self), Arc::clone(&self.places));
            AbortOnDropHandle::new(tokio::spawn(reap(weak, places, tick)))
        });
    }

    /// Deletes what is due for it, in the background.
    pub(super) fn retire(self: &Arc<Self>, runtime: &Handle) {
        self.places.grow();
        // INVARIANT: what is taken out of the book is a task before anybody else looks. Whoever closes the pool would else
        // find neither, between the two, and leave a shell behind.
        let _retiring = lock(&self.retiring);
        let (doomed, connections) = self.places.due(Instant::now());
        drop(connections);
        for pooled in doomed {
            self.dispose(pooled, None, runtime);
        }
    }

    /// Makes a session ready for its next use: the final Signal, then back to the idle ones.
    pub(super) fn give_back(self: &Arc<Self>, mut pooled: Pooled, runtime: &Handle) {
        let ended = pooled.session.shell_mut().and_then(|shell| shell.ended.take());
        let spent = pooled.session.shell().is_some() && pooled.slot.is_spent();
        if self.places.is_closed() || pooled.session.is_unconfirmed() {
            return self.dispose(pooled, ended, runtime);
        }
        let user = User::of(pooled.session.target());
        let sweep = pooled.session.is_connected() && self.names.to_be_swept(user);
        if ended.is_none() && !spent && !sweep {
            if pooled.session.shell().is_some() || pooled.session.is_connected() {
                self.places.put(pooled, false);
            }
            return;
        }
        self.places.returning(&pooled.key);
        let returning = Returning { inner: Arc::clone(self), pooled: Some(pooled), ended, runtime: runtime.clone() };
        // A part of what the session was lent for.
        self.spawn(returning.run(spent, sweep).in_current_span(), runtime);
    }

    /// Ends a session: signals its command, if one may run, and deletes its shell, over a new connection when needed.
    pub(super) fn dispose(self: &Arc<Self>, mut pooled: Pooled, command: Option<Uuid>, runtime: &Handle) {
        if pooled.session.shell().is_none() && !pooled.session.is_unconfirmed() {
            return;
        }
        pooled.slot.begin_closing();
        let inner = Arc::clone(self);
        self.spawn(async move { inner.clean_up(pooled, command).await }.in_current_span(), runtime);
    }

    async fn clean_up(&self, mut pooled: Pooled, command: Option<Uuid>) {
        let deadline = Instant::now() + CLEANUP;
        let mut failure = None;
        for pause in PAUSES {
            sleep(pause).await;
            match timeout_at(deadline, self.end(&mut pooled.session, command, deadline)).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => {
                    drop(pooled.session.disconnect());
                    let hopeless = error.credential_rejected();
                    failure = Some(error);
                    if hopeless {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        let error = failure.unwrap_or_else(|| Error::new(Stage::Close, ErrorKind::DeadlinePassed));
        let shell_id = pooled.session.shell().map(|shell| shell.id.as_str());
        tracing::warn!(
            host = pooled.session.target().endpoint.host(),
            shell_id,
            error = %error.report(),
            "Failed to delete a remote shell; the host ends it when its idle timeout passes"
        );
    }

    async fn end(&self, session: &mut Session, command: Option<Uuid>, deadline: Instant) -> Result<(), Error> {
        let attempt = if session.is_connected() { None } else { self.reconnect(session, deadline).await? };
        let result = async {
            if let Some(command) = command {
                self.signal(session, command, Signal::Terminate, deadline).await?;
            }
            self.delete(session, deadline).await?;
            session.delete_unconfirmed(deadline).await
        }
        .await;
        settle(attempt, &result);
        result
    }

    /// Deletes shells of the session's user that an earlier process of our owner left behind.
    async fn sweep(&self, session: &mut Session, deadline: Instant) -> Result<(), Error> {
        let user = User::of(session.target());
        for shell in session.list_shells(deadline).await? {
            if self.names.is_orphan(&shell, &user) {
                session.delete_shell(&shell.shell_id, deadline).await?;
                self.figures.orphans_deleted.fetch_add(1, Ordering::Relaxed);
                tracing::info!(
                    host = session.target().endpoint.host(),
                    shell_id = shell.shell_id,
                    "Deleted a remote shell that an earlier process left behind"
                );
            }
        }
        Ok(())
    }

    /// Runs `task` as one of the pool's own.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static, runtime: &Handle) {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, runtime);
    }

    /// Waits until no task of the background is left. At `deadline` the rest is aborted.
    pub(super) async fn drain(self: &Arc<Self>, deadline: Instant) {
        loop {
            self.retire(&Handle::current());
            let mut tasks = std::mem::take(&mut *lock(&self.tasks));
            if tasks.is_empty() {
                return;
            }
            while let Ok(Some(_)) = timeout_at(deadline, tasks.join_next()).await {}
            if !tasks.is_empty() {
                return;
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Sessions hold the book through their slots, and the book holds idle sessions.
        drop(self.places.clear());
    }
}

/// A session on its way back. Dropped in between, it is ended instead, and those who wait for it learn so.
struct Returning {
    inner: Arc<Inner>,
    pooled: Option<Pooled>,
    ended: Option<Uuid>,
    runtime: Handle,
}

impl Returning {
    async fn run(mut self, spent: bool, sweep: bool) {
        let Some(pooled) = &mut self.pooled else { return };
        let deadline = Instant::now() + SIGNAL;
        let session = &mut pooled.session;
        let mut result = Ok(());
        if let Some(ended) = self.ended
            // Deleting the shell ends the command as well.
            && !spent
        {
            result = self.inner.signal(session, ended, Signal::Terminate, deadline).await;
        }
        if spent && result.is_ok() {
            result = self.inner.delete(session, deadline).await;
            if result.is_ok() {
                pooled.slot.refund();
            }
        }
        if sweep
            && result.is_ok()
            && let Err(error) = self.inner.sweep(session, deadline).await
        {
            // Listing may need rights that running commands does not.
            tracing::debug!(error = %error.report(), "Failed to look for shells that were left behind");
            if !session.is_connected() {
                self.inner.names.not_swept(&User::of(session.target()));
            }
        }
        match result {
            Ok(()) => {
                if let Some(pooled) = self.pooled.take() {
                    self.inner.places.put(pooled, true);
                }
            }
            Err(error) => {
                tracing::debug!(error = %error.report(), "Session is ended, because its command could not be")
            }
        }
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        if let Some(pooled) = self.pooled.take() {
            self.inner.places.will_not_return(&pooled.key);
            self.inner.dispose(pooled, self.ended, &self.runtime);
        }
    }
}

async fn reap(pool: Weak<Inner>, places: Arc<Places>, tick: Duration) {
    loop {
        tokio::select! {
            () = places.doomed() => {}
            () = sleep(tick) => {}
        }
        match pool.upgrade() {
            Some(inner) => inner.retire(&Handle::current()),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::pool::Pool;
    use crate::simulated::{Host, PASSWORD};

    /// The task that retires idle sessions runs beside whoever closes the pool. Here two of the workers wait for the lock.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn closing_waits_for_shells_that_somebody_else_is_about_to_delete() {
        let soon = || Instant::now() + Duration::from_secs(10);
        let host = Host::in_memory();
        let pool = Pool::new(PoolSettings::default());
        drop(pool.lease(&host.target(PASSWORD), soon()).await.unwrap());
        let (inner, runtime) = (Arc::clone(&pool.0), Handle::current());
        let (half_way, is_half_way) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        let retiring = std::thread::spawn(move || {
            let _retiring = lock(&inner.retiring);
            inner.places.close();
            let (doomed, _) = inner.places.due(Instant::now());
            half_way.send(doomed.len()).unwrap();
            may_go_on.recv().unwrap();
            doomed.into_iter().for_each(|pooled| inner.dispose(pooled, None, &runtime));
        });
        assert_eq!(is_half_way.recv().unwrap(), 1);
        let mut closing = tokio::spawn(async move { pool.close(soon()).await });
        // Finding nothing to do would take it no time.
        let closed = tokio::time::timeout(Duration::from_millis(100), &mut closing).await;
        assert!(closed.is_err(), "{closed:?}");
        go_on.send(()).unwrap();
        assert_eq!(closing.await.unwrap(), 0);
        retiring.join().unwrap();
    }
}
