//! Data keys in clear, for a while: bounded in number and time, zeroed when they go, asked for once however many want one.
//!
//! A request runs as a task of its own, so that whoever gives up waiting takes it from nobody. A failure goes to all who waited and
//! is forgotten, but for denials, which stand for a moment. Nothing here knows KMS.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::envelope::DataKey;
use crate::error::{Error, Stage, sentences};

/// What names a data key: a digest of who asks, the wrapped key and its context.
pub(crate) type Name = [u8; 32];
type Answer = Result<Arc<DataKey>, Error>;

/// The cache. Requests on their way end when it is dropped.
pub(crate) struct DataKeys {
    state: Arc<Mutex<State>>,
    most: usize,
    lifetime: Duration,
}

#[derive(Default)]
struct State {
    entries: HashMap<Name, Entry>,
    tasks: JoinSet<()>,
    uses: u64,
    /// Somebody waits for the next entry to end.
    swept: bool,
}

enum Entry {
    Ready { key: Arc<DataKey>, until: Instant, used: u64 },
    Flight(watch::Receiver<Option<Answer>>),
    Refused { error: Error, until: Instant },
}

impl fmt::Debug for DataKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKeys").field("most", &self.most).field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

impl DataKeys {
    pub(crate) fn new(most: usize, lifetime: Duration) -> Self {
        Self { state: Arc::default(), most, lifetime }
    }

    /// The key of that name, and whether it, or the request for it, was there already. `fetch` makes the request; it has its own
    /// deadline, and so has the wait for it.
    pub(crate) async fn get<F>(
        &self,
        name: Name,
        deadline: Instant,
        fetch: impl FnOnce() -> F,
    ) -> (bool, Result<Arc<DataKey>, Error>)
    where
        F: Future<Output = Result<DataKey, Error>> + Send + 'static,
    {
        let (shared, mut flight) = {
            let mut state = lock(&self.state);
            state.uses += 1;
            let (now, used_now) = (Instant::now(), state.uses);
            match state.entries.get_mut(&name) {
                Some(Entry::Ready { key, until, used }) if *until > now => {
                    *used = used_now;
                    return (true, Ok(Arc::clone(key)));
                }
                Some(Entry::Refused { error, until }) if *until > now => return (true, Err(error.clone())),
                // One that has no sender any more and left no answer has broken off.
                Some(Entry::Flight(flight)) if flight.has_changed().is_ok() => (true, flight.clone()),
                _ => (false, self.start(&mut state, name, fetch())),
            }
        };
        let answer = match timeout_at(deadline, flight.wait_for(Option::is_some)).await {
            Err(_) => Err(sentences::deadline(Stage::Read)),
            Ok(answer) => {
                answer.ok().and_then(|answer| answer.clone()).unwrap_or_else(|| Err(sentences::stopped(Stage::Read)))
            }
        };
        (shared, answer)
    }

    fn start(
        &self,
        state: &mut State,
        name: Name,
        fetch: impl Future<Output = Result<DataKey, Error>> + Send + 'static,
    ) -> watch::Receiver<Option<Answer>> {
        let (told, flight) = watch::channel(None);
        state.entries.insert(name, Entry::Flight(flight.clone()));
        while state.tasks.try_join_next().is_some() {}
        let (weak, most, lifetime) = (Arc::downgrade(&self.state), self.most, self.lifetime);
        state.tasks.spawn(async move {
            let answer = fetch.await.map(Arc::new);
            if let Some(state) = weak.upgrade() {
                settle(&state, name, &answer, most, lifetime);
            }
            // Nobody may be waiting any more.
            let _ = told.send(Some(answer));
        });
        flight
    }
}

fn settle(shared: &Arc<Mutex<State>>, name: Name, answer: &Answer, most: usize, lifetime: Duration) {
    let mut state = lock(shared);
    let now = Instant::now();
    match answer {
        Ok(key) if most > 0 && !lifetime.is_zero() => {
            state.purge(now);
            state.make_room(most);
            let used = state.uses;
            state.entries.insert(name, Entry::Ready { key: Arc::clone(key), until: now + lifetime, used });
        }
        Err(error) if error.is_denial() => {
            state.purge(now);
            state.entries.insert(name, Entry::Refused { error: error.clone(), until: now + PAUSE });
        }
        _ => {
            state.entries.remove(&name);
        }
    }
    if !state.swept && state.next_end().is_some() {
        state.swept = true;
        state.tasks.spawn(sweep(Arc::downgrade(shared)));
    }
}

/// Zeroes keys when their time is over, whether anybody asks or not.
async fn sweep(weak: Weak<Mutex<State>>) {
    loop {
        let next = {
            let Some(state) = weak.upgrade() else { return };
            let mut state = lock(&state);
            state.purge(Instant::now());
            let next = state.next_end();
            state.swept = next.is_some();
            next
        };
        match next {
            Some(next) => sleep_until(next).await,
            None => return,
        }
    }
}

impl State {
    fn purge(&mut self, now: Instant) {
        self.entries.retain(|_, entry| match entry {
            Entry::Ready { until, .. } | Entry::Refused { until, .. } => *until > now,
            Entry::Flight(_) => true,
        });
    }

    /// The keys not used for longest go.
    fn make_room(&mut self, most: usize) {
        loop {
            let ready = self.entries.iter().filter_map(|(name, entry)| match entry {
                Entry::Ready { used, .. } => Some((*used, *name)),
                _ => None,
            });
            let (count, oldest) = ready.fold((0, None), |(count, oldest), next| {
                (count + 1, Some(oldest.map_or(next, |oldest: (u64, Name)| oldest.min(next))))
            });
            match oldest {
                Some((_, name)) if count >= most => self.entries.remove(&name),
                _ => return,
            };
        }
    }

    fn next_end(&self) -> Option<Instant> {
        self.entries
            .values()
            .filter_map(|entry| match entry {
                Entry::Ready { until, .. } | Entry::Refused { until, .. } => Some(*until),
                Entry::Flight(_) => None,
            })
            .min()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a denial stands, so that a crowd does not hammer KMS.
const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use zeroize::Zeroizing;

    use super::*;

    const LIFETIME: Duration = Duration::from_secs(300);

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    struct Source(Arc<AtomicUsize>);

    impl Source {
        fn new() -> Self {
            Self(Arc::default())
        }

        fn asked(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }

        fn give(
            &self,
            answer: Result<u8, Error>,
        ) -> impl FnOnce() -> std::pin::Pin<Box<dyn Future<Output = Result<DataKey, Error>> + Send>> + use<> {
            let asked = Arc::clone(&self.0);
            move || {
                Box::pin(async move {
                    asked.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    answer.map(|byte| Zeroizing::new([byte; 32]))
                })
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_makes_one_request() {
        let (keys, source) = (Arc::new(DataKeys::new(10, LIFETIME)), Source::new());
        let mut crowd = JoinSet::new();
        for _ in 0..1000 {
            let (keys, fetch) = (Arc::clone(&keys), source.give(Ok(7)));
            crowd.spawn(async move { keys.get([1; 32], far(), fetch).await.1.map(|key| key[0]) });
        }
        let answers = crowd.join_all().await;
        assert!(answers.into_iter().all(|answer| answer.unwrap() == 7));
        assert_eq!(source.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn keys_end_without_being_asked_for() {
        let (keys, source) = (DataKeys::new(10, LIFETIME), Source::new());
        let weak = Arc::downgrade(&keys.get([1; 32], far(), source.give(Ok(7))).await.1.unwrap());
        tokio::time::sleep(LIFETIME - Duration::from_secs(1)).await;
        assert!(weak.upgrade().is_some());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(weak.upgrade().is_none() && lock(&keys.state).entries.is_empty());
        assert!(!lock(&keys.state).swept);
        keys.get([1; 32], far(), source.give(Ok(8))).await.1.unwrap();
        assert_eq!(source.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_key_not_used_for_longest_goes() {
        let (keys, source) = (DataKeys::new(2, LIFETIME), Source::new());
        for name in [1, 2, 1, 3] {
            keys.get([name; 32], far(), source.give(Ok(name))).await.1.unwrap();
        }
        assert_eq!(source.asked(), 3);
        let (shared, _) = keys.get([1; 32], far(), source.give(Ok(1))).await;
        assert!(shared);
        let (shared, _) = keys.get([2; 32], far(), source.give(Ok(2))).await;
        assert!(!shared);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_takes_it_from_nobody() {
        let (keys, source) = (Arc::new(DataKeys::new(10, LIFETIME)), Source::new());
        let short = keys.get([1; 32], Instant::now() + Duration::from_millis(1), source.give(Ok(7))).await;
        assert_eq!(short.1.unwrap_err().code(), "kms.deadline");
        let (shared, key) = keys.get([1; 32], far(), source.give(Ok(8))).await;
        assert!(shared);
        assert_eq!(key.unwrap()[0], 7);
        assert_eq!(source.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_forgotten_but_for_denials() {
        let (keys, source) = (DataKeys::new(10, LIFETIME), Source::new());
        let passing = sentences::throttled(sentences::Action::Decrypt, None);
        assert!(keys.get([1; 32], far(), source.give(Err(passing))).await.1.is_err());
        assert_eq!(keys.get([1; 32], far(), source.give(Ok(7))).await.1.unwrap()[0], 7);
        let denial = sentences::tampered();
        for _ in 0..5 {
            assert!(keys.get([2; 32], far(), source.give(Err(denial.clone()))).await.1.is_err());
        }
        assert_eq!(source.asked(), 3);
        tokio::time::sleep(PAUSE * 2).await;
        assert_eq!(keys.get([2; 32], far(), source.give(Ok(9))).await.1.unwrap()[0], 9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_breaks_off_blocks_nobody() {
        let (keys, source) = (DataKeys::new(10, LIFETIME), Source::new());
        let broken = keys.get([1; 32], far(), || async { panic!("broken") }).await;
        assert_eq!(broken.1.unwrap_err().code(), "kms.stopped");
        assert_eq!(keys.get([1; 32], far(), source.give(Ok(7))).await.1.unwrap()[0], 7);
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_the_cache_ends_its_requests() {
        let (keys, source) = (DataKeys::new(10, LIFETIME), Source::new());
        let asked = Arc::downgrade(&source.0);
        let _ = keys.get([1; 32], Instant::now() + Duration::from_millis(1), source.give(Ok(7))).await;
        drop((keys, source));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(asked.upgrade().is_none());
    }
}
