//! Waits between attempts: doubling, jittered, and reset only by a session that was of use for a while, so that a
//! control plane that accepts and drops is not hammered. Called by the link.

use std::time::Duration;

use rand::Rng as _;

#[derive(Debug)]
pub(super) struct Backoff {
    ceiling: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { ceiling: FIRST }
    }

    /// The next wait: between half the ceiling and the ceiling, so that a thousand agents do not come back as one.
    pub(super) fn next(&mut self) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = (ceiling * 2).min(LONGEST);
        jittered(ceiling)
    }

    /// The longest wait.
    pub(super) fn longest(&mut self) -> Duration {
        self.ceiling = LONGEST;
        jittered(LONGEST)
    }

    /// A session was open for this long.
    pub(super) fn was_useful(&mut self, open: Duration) {
        if open >= USEFUL {
            self.ceiling = FIRST;
        }
    }
}

fn jittered(ceiling: Duration) -> Duration {
    rand::rng().random_range(ceiling / 2..=ceiling)
}

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// Shorter sessions may be part of the trouble.
const USEFUL: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_bound_and_is_reset_only_by_use() {
        let mut backoff = Backoff::new();
        let mut ceiling = FIRST;
        for _ in 0..20 {
            let wait = backoff.next();
            assert!(wait >= ceiling / 2 && wait <= ceiling, "{wait:?} for {ceiling:?}");
            ceiling = (ceiling * 2).min(LONGEST);
        }
        backoff.was_useful(Duration::from_secs(29));
        assert!(backoff.next() >= LONGEST / 2);
        backoff.was_useful(USEFUL);
        assert!(backoff.next() <= FIRST);
        assert!(backoff.longest() >= LONGEST / 2);
    }
}
