//! The host's clock: real time, and beside it what a test has moved it forward by hand.
//!
//! Everything in winsim that waits or counts time uses it: shells, connections, operations, and the programs that sleep. It never
//! goes backward. A jump wakes whoever waits for a moment inside it; what starts waiting after the jump waits anew.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The clock of one host. Clones are the same clock.
#[derive(Clone, Debug)]
pub(crate) struct Clock(Arc<watch::Sender<Duration>>);

/// How far it can be moved in all, and the longest wait: nothing in the protocol is longer.
const FAR: Duration = Duration::from_secs(10 * 365 * 86_400);

impl Default for Clock {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Duration::ZERO)))
    }
}

impl Clock {
    pub(crate) fn now(&self) -> Instant {
        Instant::now() + self.advanced()
    }

    /// The time since a moment of this clock.
    pub(crate) fn since(&self, moment: Instant) -> Duration {
        self.now().saturating_duration_since(moment)
    }

    /// What was added by hand so far.
    pub(crate) fn advanced(&self) -> Duration {
        *self.0.borrow()
    }

    /// Moves the clock forward.
    pub(crate) fn advance(&self, by: Duration) {
        self.0.send_modify(|advanced| *advanced = advanced.saturating_add(by).min(FAR));
    }

    pub(crate) async fn sleep(&self, time: Duration) {
        self.sleep_until(self.now() + time.min(FAR)).await;
    }

    pub(crate) async fn sleep_until(&self, moment: Instant) {
        let mut advanced = self.0.subscribe();
        loop {
            let left = moment.saturating_duration_since(Instant::now() + *advanced.borrow_and_update());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                // The sender lives as long as `self` does.
                _ = advanced.changed() => {}
            }
        }
    }

    /// What `future` comes to, or `None` when it takes longer than `time`.
    pub(crate) async fn timeout<F: Future>(&self, time: Duration, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.sleep(time) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_jump_wakes_those_who_wait_for_less_and_not_those_who_wait_for_more() {
        let clock = Clock::default();
        let (short, long) = (clock.clone(), clock.clone());
        let short = tokio::spawn(async move { short.sleep(Duration::from_secs(100)).await });
        let long =
            tokio::spawn(async move { long.timeout(Duration::from_secs(10_000), std::future::pending::<()>()).await });
        tokio::task::yield_now().await;
        let before = clock.now();
        clock.advance(Duration::from_secs(200));
        short.await.expect("woken");
        assert!(clock.since(before) >= Duration::from_secs(200) && clock.advanced() == Duration::from_secs(200));
        assert!(!long.is_finished());
        clock.advance(Duration::from_secs(9_800));
        assert_eq!(long.await.expect("woken"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn real_time_counts_too() {
        let clock = Clock::default();
        let before = clock.now();
        clock.advance(Duration::from_secs(1));
        clock.sleep(Duration::from_secs(3)).await;
        assert_eq!(clock.since(before), Duration::from_secs(4));
        assert_eq!(clock.timeout(Duration::from_secs(1), async { 7 }).await, Some(7));
        clock.advance(Duration::MAX);
        assert_eq!(clock.advanced(), FAR);
    }
}
