//! How the bootstrap script went, in figures and in words. Holds no text of the script's own. Made by `stage`, told by
//! the log, the metrics and the control plane.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Where the script came from: the name of a variable or setting.
    pub(crate) origin: String,
    /// How it ended.
    pub(crate) end: End,
    /// How long it took.
    pub(crate) took: Duration,
    /// Commands of the script itself that failed, as bash's ERR trap counts them.
    pub(crate) failed_commands: u64,
    /// The line of the first of them.
    pub(crate) first_failed_line: Option<u64>,
    /// Processes that it left running: how many, and the names of some.
    pub(crate) background: (usize, Vec<String>),
    /// It killed the process that looked after it.
    pub(crate) orphaned: bool,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    /// By itself.
    Exited(i32),
    /// By a signal.
    Signalled(i32),
    /// It took too long and was stopped.
    TimedOut,
    /// It was never begun.
    NotStarted(String),
}

impl Outcome {
    /// Whether the policy has something to decide.
    pub(crate) fn failed(&self) -> bool {
        self.end != End::Exited(0)
    }

    /// The same words as the log's, within what the contract lets one text have.
    pub(crate) fn summary(&self) -> String {
        let mut text = self.to_string();
        text.truncate(text.floor_char_boundary(MAX_SUMMARY));
        text
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the bootstrap script ({}) ", self.origin)?;
        let took = humantime::format_duration(Duration::from_secs(self.took.as_secs()));
        match &self.end {
            End::Exited(status) => write!(f, "ended with exit status {status} after {took}")?,
            End::Signalled(signal) => write!(f, "was ended by signal {signal} after {took}")?,
            End::TimedOut => write!(f, "took too long and was stopped after {took}")?,
            End::NotStarted(reason) => write!(f, "could not be run: {reason}")?,
        }
        if let Some(line) = self.first_failed_line {
            write!(f, "; {} of its commands failed, the first at line {line}", self.failed_commands.max(1))?;
        }
        if self.orphaned {
            f.write_str("; it killed its parent process, so that nothing it exported is known")?;
        }
        let (count, names) = &self.background;
        if *count > 0 {
            write!(f, "; it left {count} running: {}", names.join(", "))?;
        }
        Ok(())
    }
}

/// The control plane takes 1000 bytes.
const MAX_SUMMARY: usize = 900;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_in_words() {
        let mut outcome = Outcome {
            origin: "INIT_SCRIPT".into(),
            end: End::Exited(1),
            took: Duration::from_millis(3400),
            failed_commands: 2,
            first_failed_line: Some(7),
            background: (1, vec!["sleep".into()]),
            orphaned: false,
        };
        assert_eq!(
            outcome.to_string(),
            "the bootstrap script (INIT_SCRIPT) ended with exit status 1 after 3s; 2 of its commands failed, the first at line 7; it \
             left 1 running: sleep"
        );
        assert!(outcome.failed());
        outcome.background = (2000, vec!["\u{fffd}".repeat(15); 60]);
        assert!((890..=900).contains(&outcome.summary().len()));
        outcome.end = End::Exited(0);
        assert!(!outcome.failed(), "as a script without errexit has it");
    }
}
