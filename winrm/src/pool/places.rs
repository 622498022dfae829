//! The pool's book of places: who may open how many sessions, who waits, and which sessions are idle.
//!
//! Every session holds a [`Slot`] from before it is opened until its shell is gone from the host, so that bounds hold
//! towards the host too. Waiting is first come, first served per bound. Nothing here does I/O or awaits; no session or
//! slot is dropped while the book is locked, because their drop locks it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::verdicts::Digest;
use super::{PoolSettings, lock};
use crate::connection::Connection;
use crate::session::Session;
use crate::target::{AuthKind, Endpoint, MessageEncryption, ShellProperties, Target, TlsPolicy};

/// Everything that decides whether two callers may share a session.
///
/// INVARIANT: another password, user or property is another key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    endpoint: Endpoint,
    username: String,
    credential: Digest,
    auth: AuthKind,
    tls: TlsPolicy,
    message_encryption: MessageEncryption,
    send_channel_bindings: bool,
    allow_basic_over_http: bool,
    shell: ShellProperties,
}

impl Key {
    pub(super) fn new(target: &Target, credential: Digest) -> Self {
        Self {
            endpoint: target.endpoint.clone(),
            username: target.credential.username.clone(),
            credential,
            auth: target.auth,
            tls: target.tls.clone(),
            message_encryption: target.message_encryption,
            send_channel_bindings: target.send_channel_bindings,
            allow_basic_over_http: target.allow_basic_over_http,
            shell: target.shell.clone(),
        }
    }

    pub(super) fn user(&self) -> User {
        User { host: self.endpoint.authority(), name: self.username.to_lowercase() }
    }
}

/// Whose quota on which host a shell counts towards.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct User {
    /// With its port: behind one name and several forwarded ports there are several hosts.
    host: String,
    name: String,
}

impl User {
    pub(super) fn of(target: &Target) -> Self {
        Self { host: target.endpoint.authority(), name: target.credential.username.to_lowercase() }
    }
}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}", self.name, self.host)
    }
}

/// A session with its place.
#[derive(Debug)]
pub(super) struct Pooled {
    pub(super) session: Session,
    pub(super) key: Arc<Key>,
    pub(super) slot: Slot,
}

/// The right to have a session. Dropping it lets the next one in.
#[derive(Debug)]
pub(super) struct Slot {
    places: Arc<Places>,
    user: User,
    closing: bool,
}

/// What a waiting caller gets.
#[derive(Debug)]
pub(super) enum Grant {
    /// An idle session.
    Idle(Box<Pooled>),
    /// The right to open one.
    New(Slot),
}

/// The book.
#[derive(Debug)]
pub(super) struct Places {
    settings: PoolSettings,
    book: Mutex<Book>,
    /// Wakes whoever deletes doomed sessions.
    doom: Notify,
}

#[derive(Debug, Default)]
struct Book {
    closed: bool,
    idle: HashMap<Arc<Key>, Vec<Idle>>,
    /// Sessions that are being made ready for their next use.
    returning: HashMap<Arc<Key>, usize>,
    users: HashMap<User, Count>,
    all: Count,
    waiters: VecDeque<Waiter>,
    next_waiter: u64,
    /// Sessions that had to make room, or came back too late: to be deleted in the background. They keep their slots.
    doomed: Vec<Pooled>,
}

/// Slots taken, and those of them that will be free soon.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    taken: usize,
    closing: usize,
}

#[derive(Debug)]
struct Idle {
    pooled: Pooled,
    since: Instant,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    key: Arc<Key>,
    user: User,
    grant: oneshot::Sender<Grant>,
}

/// A place in the queue. Dropping it leaves the queue; a grant that came meanwhile goes to the next one.
#[derive(Debug)]
pub(super) struct Ticket {
    places: Arc<Places>,
    id: u64,
    pub(super) grant: oneshot::Receiver<Grant>,
}

type Grants = Vec<(oneshot::Sender<Grant>, Grant)>;

impl Places {
    pub(super) fn new(settings: PoolSettings) -> Self {
        Self { settings, book: Mutex::default(), doom: Notify::new() }
    }

    /// Queues up. Nothing when the pool is closed.
    pub(super) fn queue(self: &Arc<Self>, key: &Arc<Key>) -> Option<Ticket> {
        let (sender, grant) = oneshot::channel();
        let (id, grants) = {
            let mut book = lock(&self.book);
            if book.closed {
                return None;
            }
            let id = book.next_waiter;
            book.next_waiter += 1;
            book.waiters.push_back(Waiter { id, key: Arc::clone(key), user: key.user(), grant: sender });
            (id, self.serve(&mut book))
        };
        let ticket = Ticket { places: Arc::clone(self), id, grant };
        self.hand_out(grants);
        Some(ticket)
    }

    /// Which bound `user` waits at.
    pub(super) fn bound(&self, user: &User) -> String {
        let book = lock(&self.book);
        let taken = book.users.get(user).map_or(0, |count| count.taken);
        if taken >= self.settings.max_shells_per_user {
            format!("all {taken} sessions of {user} are in use")
        } else {
            format!("all {} sessions are in use", book.all.taken)
        }
    }

    /// Marks that a session of `key` is being made ready for its next use: callers wait for it rather than open another.
    pub(super) fn returning(&self, key: &Arc<Key>) {
        *lock(&self.book).returning.entry(Arc::clone(key)).or_default() += 1;
    }

    /// Ends what [`Places::returning`] began, without a session.
    pub(super) fn will_not_return(self: &Arc<Self>, key: &Arc<Key>) {
        let grants = {
            let mut book = lock(&self.book);
            book.no_longer_returning(key);
            self.serve(&mut book)
        };
        self.hand_out(grants);
    }

    /// Takes back a session that is ready for its next use; `returning` when that was announced.
    pub(super) fn put(self: &Arc<Self>, pooled: Pooled, returning: bool) {
        let grants = {
            let mut book = lock(&self.book);
            if returning {
                book.no_longer_returning(&pooled.key);
            }
            if book.closed {
                book.doom(pooled);
            } else {
                let key = Arc::clone(&pooled.key);
                book.idle.entry(key).or_default().push(Idle { pooled, since: Instant::now() });
            }
            self.serve(&mut book)
        };
        self.hand_out(grants);
    }

    /// Waits until [`Places::due`] has something to give before its time.
    pub(super) async fn doomed(&self) {
        self.doom.notified().await;
    }

    /// Sessions whose shell is to be deleted, and connections that are to be closed.
    pub(super) fn due(&self, now: Instant) -> (Vec<Pooled>, Vec<Connection>) {
        let mut book = lock(&self.book);
        let mut connections = Vec::new();
        let mut expired = Vec::new();
        book.idle.retain(|_, sessions| {
            // Oldest first, because sessions are appended.
            let due = sessions.partition_point(|idle| now.duration_since(idle.since) >= self.settings.shell_idle);
            expired.extend(sessions.drain(..due).map(|idle| idle.pooled));
            for idle in sessions.iter_mut() {
                if now.duration_since(idle.since) >= self.settings.connection_idle {
                    connections.extend(idle.pooled.session.disconnect());
                }
            }
            !sessions.is_empty()
        });
        for pooled in expired {
            book.doom(pooled);
        }
        (std::mem::take(&mut book.doomed), connections)
    }

    /// Dooms all idle sessions of `user`.
    pub(super) fn evict(&self, user: &User) {
        let mut book = lock(&self.book);
        while let Some(pooled) = book.oldest(Some(user)) {
            book.doom(pooled);
        }
        self.doom.notify_one();
    }

    /// Lets nobody in any more, sends the waiting away, and dooms all idle sessions.
    pub(super) fn close(&self) {
        let mut book = lock(&self.book);
        book.closed = true;
        book.waiters.clear();
        while let Some(pooled) = book.oldest(None) {
            book.doom(pooled);
        }
        self.doom.notify_one();
    }

    /// Takes all sessions out, to be dropped: the pool was dropped without being closed.
    pub(super) fn clear(&self) -> Vec<Pooled> {
        self.close();
        std::mem::take(&mut lock(&self.book).doomed)
    }

    pub(super) fn is_closed(&self) -> bool {
        lock(&self.book).closed
    }

    /// Sessions that are idle, and callers that wait.
    pub(super) fn figures(&self) -> (usize, usize) {
        let book = lock(&self.book);
        (book.idle.values().map(Vec::len).sum(), book.waiters.len())
    }

    /// Serves whoever can be served, first come first.
    fn serve(self: &Arc<Self>, book: &mut Book) -> Grants {
        let mut grants = Grants::new();
        let mut queue = std::mem::take(&mut book.waiters);
        // Of those that stay: how many wait for a session that is being made ready, and at which bound.
        let mut expecting: HashMap<Arc<Key>, usize> = HashMap::new();
        let mut blocked_users: HashMap<User, usize> = HashMap::new();
        let mut blocked = 0;
        while let Some(waiter) = queue.pop_front() {
            if waiter.grant.is_closed() {
                continue;
            }
            if let Some(pooled) = book.take(&waiter.key) {
                grants.push((waiter.grant, Grant::Idle(Box::new(pooled))));
                continue;
            }
            let expected = expecting.entry(Arc::clone(&waiter.key)).or_default();
            if *expected < book.returning.get(&waiter.key).copied().unwrap_or_default() {
                *expected += 1;
                book.waiters.push_back(waiter);
                continue;
            }
            let user = book.users.get(&waiter.user).copied().unwrap_or_default();
            if user.taken >= self.settings.max_shells_per_user {
                let ahead = blocked_users.entry(waiter.user.clone()).or_default();
                if *ahead >= user.closing
                    && let Some(victim) = book.oldest(Some(&waiter.user))
                {
                    book.doom(victim);
                }
                *ahead += 1;
                book.waiters.push_back(waiter);
            } else if book.all.taken >= self.settings.max_sessions {
                if blocked >= book.all.closing
                    && let Some(victim) = book.oldest(None)
                {
                    book.doom(victim);
                }
                blocked += 1;
                book.waiters.push_back(waiter);
            } else {
                book.all.taken += 1;
                book.users.entry(waiter.user.clone()).or_default().taken += 1;
                let slot = Slot { places: Arc::clone(self), user: waiter.user, closing: false };
                grants.push((waiter.grant, Grant::New(slot)));
            }
        }
        if !book.doomed.is_empty() {
            self.doom.notify_one();
        }
        grants
    }

    /// Hands the grants out. What nobody takes any more goes back into the book.
    fn hand_out(self: &Arc<Self>, grants: Grants) {
        for (sender, grant) in grants {
            if let Err(grant) = sender.send(grant) {
                self.give_back(grant);
            }
        }
    }

    fn give_back(self: &Arc<Self>, grant: Grant) {
        match grant {
            Grant::Idle(pooled) => self.put(*pooled, false),
            Grant::New(slot) => drop(slot),
        }
    }
}

impl Book {
    fn no_longer_returning(&mut self, key: &Arc<Key>) {
        if let Some(count) = self.returning.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.returning.remove(key);
            }
        }
    }

    /// The one that was used last: its connection is the least likely to be closed, and others may grow old.
    fn take(&mut self, key: &Arc<Key>) -> Option<Pooled> {
        let sessions = self.idle.get_mut(key)?;
        let taken = sessions.pop();
        if sessions.is_empty() {
            self.idle.remove(key);
        }
        taken.map(|idle| idle.pooled)
    }

    fn oldest(&mut self, user: Option<&User>) -> Option<Pooled> {
        let (key, _) = self
            .idle
            .iter()
            .filter(|(key, _)| user.is_none_or(|user| key.user() == *user))
            .filter_map(|(key, sessions)| Some((Arc::clone(key), sessions.first()?.since)))
            .min_by_key(|(_, since)| *since)?;
        let sessions = self.idle.get_mut(&key)?;
        let oldest = sessions.remove(0);
        if sessions.is_empty() {
            self.idle.remove(&key);
        }
        Some(oldest.pooled)
    }

    fn doom(&mut self, mut pooled: Pooled) {
        if !pooled.slot.closing {
            pooled.slot.closing = true;
            self.all.closing += 1;
            self.users.entry(pooled.slot.user.clone()).or_default().closing += 1;
        }
        self.doomed.push(pooled);
    }
}

impl Slot {
    /// Marks that this place will be free soon.
    pub(super) fn begin_closing(&mut self) {
        if !self.closing {
            self.closing = true;
            let mut book = lock(&self.places.book);
            book.all.closing += 1;
            book.users.entry(self.user.clone()).or_default().closing += 1;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let grants = {
            let mut book = lock(&self.places.book);
            let closing = usize::from(self.closing);
            book.all.taken -= 1;
            book.all.closing -= closing;
            if let Some(count) = book.users.get_mut(&self.user) {
                count.taken -= 1;
                count.closing -= closing;
                if count.taken == 0 {
                    book.users.remove(&self.user);
                }
            }
            self.places.serve(&mut book)
        };
        self.places.hand_out(grants);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let left = {
            let mut book = lock(&self.places.book);
            let position = book.waiters.iter().position(|waiter| waiter.id == self.id);
            position.and_then(|position| book.waiters.remove(position))
        };
        drop(left);
        self.grant.close();
        if let Ok(grant) = self.grant.try_recv() {
            self.places.give_back(grant);
        }
    }
}
