//! Which transport the link uses next: the stream, or polls where networks cut streams.
//!
//! Pure: told how attempts ended, and when. A stream that broke before it was of use counts against streams; several in
//! a row make the link poll. It tries a stream again now and then, and stays with it when it lasts. Called by the link.

use std::time::{Duration, Instant};

use crate::config::Transport;

/// How the link is to talk to the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// One long stream each way.
    Stream,
    /// One call after the other.
    Poll,
}

/// How an attempt with a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// It broke, or never came about on a connection that did, after being of use for so long.
    Broken(Duration),
    /// Somebody ended it in order, or there was no connection: says nothing about streams.
    Other,
}

/// The choice.
#[derive(Debug)]
pub(super) struct Choice {
    setting: Transport,
    /// Streams that broke in a row.
    broken: u32,
    polling: Option<Polling>,
}

/// Since streams broke.
#[derive(Debug)]
struct Polling {
    next_trial: Instant,
    /// The longest wait before the trial after that.
    ceiling: Duration,
    /// A stream is being tried.
    trial: bool,
}

impl Choice {
    pub(super) fn new(setting: Transport) -> Self {
        Self { setting, broken: 0, polling: None }
    }

    /// What to use now.
    pub(super) fn mode(&mut self, now: Instant) -> Mode {
        match (self.setting, &mut self.polling) {
            (Transport::Stream, _) | (Transport::Auto, None) => Mode::Stream,
            (Transport::Poll, _) => Mode::Poll,
            (Transport::Auto, Some(polling)) => {
                polling.trial = now >= polling.next_trial;
                if polling.trial { Mode::Stream } else { Mode::Poll }
            }
        }
    }

    /// When polling is to be interrupted for trying a stream.
    pub(super) fn next_trial(&self) -> Option<Instant> {
        match self.setting {
            Transport::Auto => self.polling.as_ref().map(|polling| polling.next_trial),
            Transport::Stream | Transport::Poll => None,
        }
    }

    /// An attempt with a stream ended. `jitter`, from 0 to 1, spreads the trials of many agents. True when this made the
    /// link turn to polling.
    pub(super) fn stream_ended(&mut self, end: StreamEnd, now: Instant, jitter: f64) -> bool {
        if self.setting != Transport::Auto {
            return false;
        }
        let lasted = matches!(end, StreamEnd::Broken(useful) if useful >= USEFUL);
        match (&mut self.polling, end) {
            _ if lasted => {
                (self.broken, self.polling) = (0, None);
                false
            }
            (Some(polling), end) if polling.trial => {
                polling.trial = false;
                // Nothing was learnt when there was no connection; then the next trial need not be later than this one.
                if matches!(end, StreamEnd::Broken(_)) {
                    polling.ceiling = (polling.ceiling * 2).min(LONGEST_TRIAL);
                }
                polling.next_trial = now + jittered(polling.ceiling, jitter);
                false
            }
            (Some(_), _) | (None, StreamEnd::Other) => false,
            (None, StreamEnd::Broken(_)) => {
                self.broken += 1;
                if self.broken < CUTS {
                    return false;
                }
                let next_trial = now + jittered(FIRST_TRIAL, jitter);
                self.polling = Some(Polling { next_trial, ceiling: FIRST_TRIAL, trial: false });
                self.broken = 0;
                true
            }
        }
    }

    /// An open stream has been of use for so long. True when this ended a time of polling.
    pub(super) fn stream_lasts(&mut self, useful: Duration) -> bool {
        if useful < USEFUL {
            return false;
        }
        self.broken = 0;
        self.polling.take().is_some()
    }
}

/// How long a poll waits for news.
#[derive(Debug)]
pub(super) struct Pace {
    most: Duration,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { most: IDLE_WAIT }
    }

    /// For the next poll. `busy`: tasks are under way, whose news must not wait behind it.
    pub(super) fn wait(&self, busy: bool) -> Duration {
        if busy { self.most.min(BUSY_WAIT) } else { self.most }
    }

    /// A poll that was to wait for so long was cut: the network lets calls live for less.
    pub(super) fn cut(&mut self, wait: Duration) {
        self.most = (wait / 2).max(LEAST_WAIT);
    }

    /// A poll that was to wait for so long was answered.
    pub(super) fn answered(&mut self, wait: Duration) {
        if wait >= self.most {
            self.most = (self.most * 2).min(IDLE_WAIT);
        }
    }
}

fn jittered(ceiling: Duration, jitter: f64) -> Duration {
    ceiling.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// Streams that break in a row before the link polls: one may be chance, two a restart.
const CUTS: u32 = 3;
/// A stream that was of use for so long is no part of the trouble.
pub(super) const USEFUL: Duration = Duration::from_secs(30);
/// Before a stream is tried again. A trial costs a second or so of polling.
const FIRST_TRIAL: Duration = Duration::from_secs(20);
const LONGEST_TRIAL: Duration = Duration::from_secs(600);
/// Proxies commonly end calls after a minute without a byte.
const IDLE_WAIT: Duration = Duration::from_secs(30);
/// What a task has to tell waits for at most so long.
const BUSY_WAIT: Duration = Duration::from_secs(1);
const LEAST_WAIT: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    const CUT: StreamEnd = StreamEnd::Broken(Duration::from_secs(1));

    #[test]
    fn three_short_streams_in_a_row_make_it_poll_and_one_that_lasts_ends_that() {
        let mut now = Instant::now();
        let mut choice = Choice::new(Transport::Auto);
        assert_eq!(choice.mode(now), Mode::Stream);
        // One that lasts, or ends in order, is no cut.
        assert!(!choice.stream_ended(CUT, now, 0.0));
        assert!(!choice.stream_ended(CUT, now, 0.0));
        assert!(!choice.stream_ended(StreamEnd::Broken(USEFUL), now, 0.0));
        assert!(!choice.stream_ended(CUT, now, 0.0));
        assert!(!choice.stream_ended(CUT, now, 0.0));
        assert!(!choice.stream_ended(StreamEnd::Other, now, 0.0));
        assert_eq!((choice.mode(now), choice.next_trial()), (Mode::Stream, None));
        assert!(choice.stream_ended(CUT, now, 0.0));

        let mut waits = Vec::new();
        for _ in 0..8 {
            assert_eq!(choice.mode(now), Mode::Poll);
            let trial = choice.next_trial().unwrap();
            waits.push((trial - now).as_secs());
            now = trial;
            assert_eq!(choice.mode(now), Mode::Stream, "a trial");
            assert!(!choice.stream_lasts(Duration::from_secs(29)));
            assert!(!choice.stream_ended(CUT, now, 0.0), "it polls already");
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300, 300]);
        now = choice.next_trial().unwrap();
        assert_eq!(choice.mode(now), Mode::Stream);
        assert!(choice.stream_lasts(USEFUL));
        assert_eq!(choice.next_trial(), None);
        // Afterwards it takes three cuts again.
        assert!(!choice.stream_ended(CUT, now, 0.0));
        assert_eq!(choice.mode(now), Mode::Stream);
    }

    #[test]
    fn a_trial_without_a_connection_is_no_judgement_on_streams() {
        let mut now = Instant::now();
        let mut choice = Choice::new(Transport::Auto);
        for _ in 0..3 {
            choice.stream_ended(CUT, now, 1.0);
        }
        for _ in 0..5 {
            let trial = choice.next_trial().unwrap();
            assert_eq!(trial - now, FIRST_TRIAL);
            now = trial;
            assert_eq!(choice.mode(now), Mode::Stream);
            choice.stream_ended(StreamEnd::Other, now, 1.0);
            assert_eq!(choice.mode(now), Mode::Poll);
        }
    }

    #[test]
    fn a_setting_is_a_setting() {
        let now = Instant::now();
        for (setting, mode) in [(Transport::Stream, Mode::Stream), (Transport::Poll, Mode::Poll)] {
            let mut choice = Choice::new(setting);
            for _ in 0..5 {
                assert!(!choice.stream_ended(CUT, now, 0.5));
                assert_eq!((choice.mode(now), choice.next_trial()), (mode, None));
            }
        }
    }

    #[test]
    fn polls_wait_no_longer_than_the_network_lets_them() {
        let mut pace = Pace::new();
        assert_eq!((pace.wait(false), pace.wait(true)), (IDLE_WAIT, BUSY_WAIT));
        for _ in 0..10 {
            let wait = pace.wait(false);
            pace.cut(wait);
        }
        assert_eq!((pace.wait(false), pace.wait(true)), (LEAST_WAIT, LEAST_WAIT));
        // What was not waited for proves nothing.
        pace.answered(Duration::ZERO);
        assert_eq!(pace.wait(false), LEAST_WAIT);
        for _ in 0..10 {
            let wait = pace.wait(false);
            pace.answered(wait);
        }
        assert_eq!(pace.wait(false), IDLE_WAIT);
    }
}
