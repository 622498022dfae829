//! The checks: what each expects, where that comes from, and how it is found out.
//!
//! A check says "differs" only for what it has seen. Whatever kept it from seeing is "could not tell".

mod commands;
mod input;
mod limits;
mod output;
mod powershell;
mod shells;
mod signals;
mod transport;

use std::pin::Pin;
use std::time::Duration;

use anyhow::Result;

use crate::lab::Lab;
use crate::reply::clip;

/// What a check found.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub(crate) outcome: Outcome,
    pub(crate) evidence: Vec<String>,
}

/// How it compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    AsExpected,
    Differs,
    CouldNotTell,
    Skipped,
}

impl Outcome {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::AsExpected => "as expected",
            Self::Differs => "differs",
            Self::CouldNotTell => "could not tell",
            Self::Skipped => "skipped",
        }
    }
}

impl Finding {
    pub(crate) fn judge(as_expected: bool, evidence: impl IntoIterator<Item = String>) -> Self {
        Self::new(if as_expected { Outcome::AsExpected } else { Outcome::Differs }, evidence)
    }

    pub(crate) fn unknown(evidence: impl IntoIterator<Item = String>) -> Self {
        Self::new(Outcome::CouldNotTell, evidence)
    }

    pub(crate) fn skipped(reason: &str) -> Self {
        Self::new(Outcome::Skipped, [reason.to_owned()])
    }

    fn new(outcome: Outcome, evidence: impl IntoIterator<Item = String>) -> Self {
        let evidence = evidence.into_iter().take(MAX_EVIDENCE).map(|line| clip(&line, MAX_LINE)).collect();
        Self { outcome, evidence }
    }
}

/// When a check is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Always,
    /// It uses quotas up that other sessions of the user share.
    WithQuotas,
    /// It waits for minutes.
    WithIdle,
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<Finding>> + Send + 'a>>;

/// One check.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) expected: &'static str,
    /// Where the expectation comes from: a section of the specification, of the wire notes ("notes"), or a file of this project.
    pub(crate) source: &'static str,
    pub(crate) when: When,
    pub(crate) run: for<'a> fn(&'a Lab) -> Running<'a>,
}

/// `check!(when, "name", "expected", "source", function)`.
macro_rules! check {
    ($when:ident, $name:literal, $expected:expr, $source:literal, $function:path) => {
        $crate::checks::Check {
            name: $name,
            expected: $expected,
            source: $source,
            when: $crate::checks::When::$when,
            run: |lab| Box::pin($function(lab)),
        }
    };
}
use check;

/// All checks, in the order in which they are made.
pub(crate) fn all() -> Vec<Check> {
    [
        transport::checks(),
        shells::checks(),
        commands::checks(),
        output::checks(),
        input::checks(),
        signals::checks(),
        powershell::checks(),
        limits::checks(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The longest that one check may take.
pub(crate) fn patience(when: When) -> Duration {
    Duration::from_secs(match when {
        When::Always => 120,
        When::WithIdle => 300,
        When::WithQuotas => 1800,
    })
}

const MAX_EVIDENCE: usize = 16;
const MAX_LINE: usize = 700;
