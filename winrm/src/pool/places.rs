//! The pool's book of places: who may open how many sessions, who waits, and which sessions are idle.
//!
//! Every session holds a [`Slot`] from before it is opened until its shell is gone from the host, so that bounds hold
//! towards the host too. Waiting is first come, first served per bound. Nothing here does I/O or awaits; no session or
//! slot is dropped while the book is locked, because their drop locks it.
//!
//! Windows counts commands per user over all shells, and gives a shell's share back only when it is deleted
//! ([MS-WSMV] 3.1.4.14, product behaviour). Slots count them, and say when a shell is better replaced: shells with their
//! part of the budget go as soon as half of it is spent, so that what all shells hold never exceeds it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::key::{Key, User};
use super::{PoolSettings, lock};
use crate::connection::Connection;
use crate::failure::Pauses;
use crate::session::Session;

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
    /// Commands that the shell has taken: its share of the user's quota.
    commands: u32,
    /// The shell is deleted after its next command, whatever that is.
    last: bool,
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
    users: HashMap<User, UserCount>,
    hosts: HashMap<Arc<str>, Count>,
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

/// What is counted of one user of one host.
#[derive(Debug, Default)]
struct UserCount {
    slots: Count,
    /// Commands that live shells have taken.
    commands: u32,
    /// Present when the host did not give as many shells as the settings allow.
    cap: Option<Cap>,
    /// Until when the host, which put the last attempt off, is left alone.
    rest: Option<Instant>,
    pauses: Pauses,
}

impl UserCount {
    fn rests(&self) -> bool {
        self.rest.is_some_and(|until| Instant::now() < until)
    }
}

/// A bound that a host taught us.
#[derive(Debug, Clone, Copy)]
struct Cap {
    shells: usize,
    since: Instant,
}

/// How long it is remembered that a host put something off.
const FORGET: Duration = Duration::from_secs(60);
/// How long until one more shell is tried than a host gave the last time.
const CAP_GROWS: Duration = Duration::from_secs(30);

impl Cap {
    fn shells(self) -> usize {
        let grown = self.since.elapsed().as_secs() / CAP_GROWS.as_secs();
        self.shells.saturating_add(usize::try_from(grown).unwrap_or(usize::MAX))
    }
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
    /// The place in the queue.
    pub(super) id: u64,
    pub(super) grant: oneshot::Receiver<Grant>,
}

impl Ticket {
    /// Whether the grant is there already.
    pub(super) fn is_granted(&self) -> bool {
        !self.grant.is_empty()
    }
}

type Grants = Vec<(oneshot::Sender<Grant>, Grant)>;

impl Places {
    pub(super) fn new(settings: PoolSettings) -> Self {
        Self { settings, book: Mutex::default(), doom: Notify::new() }
    }

    /// Queues up, in the place that `seniority` gives when it was asked for before. Nothing when the pool is closed.
    pub(super) fn queue(self: &Arc<Self>, key: &Arc<Key>, seniority: Option<u64>) -> Option<Ticket> {
        let (sender, grant) = oneshot::channel();
        let (id, grants) = {
            let mut book = lock(&self.book);
            if book.closed {
                return None;
            }
            let id = seniority.unwrap_or(book.next_waiter);
            book.next_waiter = book.next_waiter.max(id + 1);
            let position = book.waiters.partition_point(|waiter| waiter.id < id);
            let waiter = Waiter { id, key: Arc::clone(key), user: key.user(), grant: sender };
            book.waiters.insert(position, waiter);
            (id, self.serve(&mut book))
        };
        let ticket = Ticket { places: Arc::clone(self), id, grant };
        self.hand_out(grants);
        Some(ticket)
    }

    /// Which bound `user` waits at.
    pub(super) fn bound(&self, user: &User) -> String {
        let book = lock(&self.book);
        let taken = book.users.get(user).map_or(0, |count| count.slots.taken);
        let of_host = book.hosts.get(&user.host).map_or(0, |count| count.taken);
        if taken >= self.limit(&book, user) {
            let given = if taken < self.settings.max_shells_per_user { ", and the host gives no more" } else { "" };
            format!("all {taken} sessions of {user} are in use{given}")
        } else if of_host >= self.settings.max_shells_per_host {
            format!("all {of_host} sessions on {} are in use", user.host)
        } else {
            format!("all {} sessions are in use", book.all.taken)
        }
    }

    /// Shells that `user` may have.
    fn limit(&self, book: &Book, user: &User) -> usize {
        let cap = book.users.get(user).and_then(|count| count.cap).map_or(usize::MAX, Cap::shells);
        self.settings.max_shells_per_user.min(cap)
    }

    /// A host refused `user` another shell: no more are asked for than there are, for a while.
    pub(super) fn refused(&self, user: &User) {
        let mut book = lock(&self.book);
        let limit = self.limit(&book, user);
        if let Some(count) = book.users.get_mut(user) {
            // The one that was refused holds a slot as well. One may always try.
            let shells = count.slots.taken.saturating_sub(1).clamp(1, limit.max(1));
            count.cap = Some(Cap { shells, since: Instant::now() });
        }
    }

    /// A host put off to open a session for `user`: it is left alone for a while, by everybody who waits.
    pub(super) fn put_off(&self, user: &User) {
        let mut book = lock(&self.book);
        let count = book.users.entry(user.clone()).or_default();
        // Attempts that were under way together are one.
        if !count.rests() {
            count.rest = Some(Instant::now() + count.pauses.next());
        }
    }

    /// Until when the host is left alone that put something off for `user`.
    pub(super) fn rests(&self, user: &User) -> Option<Instant> {
        lock(&self.book).users.get(user).and_then(|count| count.rest)
    }

    /// A host opened a session for `user`.
    pub(super) fn opened(self: &Arc<Self>, user: &User) {
        let rested = match lock(&self.book).users.get_mut(user) {
            Some(count) if count.rest.is_some() => {
                (count.rest, count.pauses) = (None, Pauses::default());
                true
            }
            _ => false,
        };
        if rested {
            self.grow();
        }
    }

    /// Lets those in whose bound has grown, or whose host was left alone for long enough.
    pub(super) fn grow(self: &Arc<Self>) {
        let grants = {
            let mut book = lock(&self.book);
            let most = self.settings.max_shells_per_user;
            book.users.retain(|_, count| {
                count.cap = count.cap.filter(|cap| cap.shells() < most);
                count.slots.taken > 0 || count.cap.is_some() || count.rest.is_some_and(|until| until.elapsed() < FORGET)
            });
            if book.waiters.is_empty() { Grants::new() } else { self.serve(&mut book) }
        };
        self.hand_out(grants);
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
        while let Some(pooled) = book.oldest(Within::User(user)) {
            book.doom(pooled);
        }
        self.doom.notify_one();
    }

    /// Lets nobody in any more, sends the waiting away, and dooms all idle sessions.
    pub(super) fn close(&self) {
        let mut book = lock(&self.book);
        book.closed = true;
        book.waiters.clear();
        while let Some(pooled) = book.oldest(Within::All) {
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
        let mut blocked_hosts: HashMap<Arc<str>, usize> = HashMap::new();
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
            if book.users.get(&waiter.user).is_some_and(UserCount::rests) {
                book.waiters.push_back(waiter);
                continue;
            }
            let user = book.users.get(&waiter.user).map(|count| count.slots).unwrap_or_default();
            let host = book.hosts.get(&waiter.user.host).copied().unwrap_or_default();
            // Whoever waits at a bound makes the oldest idle session within it go, unless enough are going already.
            let (ahead, closing, victims) = if user.taken >= self.limit(book, &waiter.user) {
                (blocked_users.entry(waiter.user.clone()).or_default(), user.closing, Within::User(&waiter.user))
            } else if host.taken >= self.settings.max_shells_per_host {
                let ahead = blocked_hosts.entry(Arc::clone(&waiter.user.host)).or_default();
                (ahead, host.closing, Within::Host(&waiter.user.host))
            } else if book.all.taken >= self.settings.max_sessions {
                (&mut blocked, book.all.closing, Within::All)
            } else {
                book.count(&waiter.user, |count| count.taken += 1);
                let slot =
                    Slot { places: Arc::clone(self), user: waiter.user, closing: false, commands: 0, last: false };
                grants.push((waiter.grant, Grant::New(slot)));
                continue;
            };
            if *ahead >= closing
                && let Some(victim) = book.oldest(victims)
            {
                book.doom(victim);
            }
            *ahead += 1;
            book.waiters.push_back(waiter);
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

    fn oldest(&mut self, within: Within<'_>) -> Option<Pooled> {
        let (key, _) = self
            .idle
            .iter()
            .filter(|(key, _)| match within {
                Within::User(user) => key.user() == *user,
                Within::Host(host) => key.user().host == *host,
                Within::All => true,
            })
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
            self.count(&pooled.slot.user, |count| count.closing += 1);
        }
        self.doomed.push(pooled);
    }

    /// Changes all counts that a slot of `user` belongs to.
    fn count(&mut self, user: &User, change: impl Fn(&mut Count)) {
        change(&mut self.all);
        change(&mut self.users.entry(user.clone()).or_default().slots);
        change(self.hosts.entry(Arc::clone(&user.host)).or_default());
    }
}

/// Which sessions share a bound.
#[derive(Debug, Clone, Copy)]
enum Within<'a> {
    User(&'a User),
    Host(&'a Arc<str>),
    All,
}

impl Slot {
    /// Marks that this place will be free soon.
    pub(super) fn begin_closing(&mut self) {
        if !self.closing {
            self.closing = true;
            lock(&self.places.book).count(&self.user, |count| count.closing += 1);
        }
    }

    /// A command is about to be sent to the shell.
    pub(super) fn charge(&mut self) {
        self.commands += 1;
        lock(&self.places.book).users.entry(self.user.clone()).or_default().commands += 1;
    }

    /// The shell is gone, and its share of the quota is given back.
    pub(super) fn refund(&mut self) {
        if self.commands > 0 {
            self.uncharge(&mut lock(&self.places.book));
        }
        self.commands = 0;
        self.last = false;
    }

    /// The shell is to serve one command only.
    pub(super) fn serve_last(&mut self) {
        self.last = true;
    }

    fn uncharge(&self, book: &mut Book) {
        if let Some(count) = book.users.get_mut(&self.user) {
            count.commands = count.commands.saturating_sub(self.commands);
        }
    }

    /// Whether the shell has taken so many commands that it is better replaced before the next one.
    pub(super) fn is_spent(&self) -> bool {
        let settings = &self.places.settings;
        let budget = settings.commands_per_user;
        let shells = u32::try_from(settings.max_shells_per_user).unwrap_or(u32::MAX);
        let part = (budget / 2 / shells.max(1)).max(1);
        self.last
            || self.commands >= settings.commands_per_shell
            || self.commands >= part
                && lock(&self.places.book).users.get(&self.user).is_some_and(|count| count.commands >= budget / 2)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let grants = {
            let mut book = lock(&self.places.book);
            self.uncharge(&mut book);
            let closing = usize::from(self.closing);
            book.count(&self.user, |count| {
                count.taken -= 1;
                count.closing -= closing;
            });
            if book
                .users
                .get(&self.user)
                .is_some_and(|count| count.slots.taken == 0 && count.cap.is_none() && count.rest.is_none())
            {
                book.users.remove(&self.user);
            }
            if book.hosts.get(&self.user.host).is_some_and(|count| count.taken == 0) {
                book.hosts.remove(&self.user.host);
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
