//! One step of an examination, and the book in which steps are written down while they are taken.

use std::time::Duration;

use tokio::time::Instant;

use crate::check::Check;
use crate::finding::Finding;

/// One thing that was looked at.
#[derive(Debug, Clone)]
pub struct Step {
    /// Which.
    pub check: Check,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took.
    pub elapsed: Duration,
    /// What was found, for people; may be empty.
    pub detail: String,
    /// What is wrong or doubtful.
    pub finding: Option<Finding>,
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in order.
    Passed,
    /// It works; something about it is doubtful.
    Warning,
    /// It does not work.
    Failed,
    /// It could not be found out.
    Unknown,
    /// Not looked at: it does not apply, or something before does not work.
    Skipped,
}

/// Writes steps down and tells of each at once.
pub(crate) struct Steps<'a> {
    taken: Vec<Step>,
    tell: &'a mut (dyn FnMut(&Step) + Send),
    since: Instant,
    proof: Proof,
    ntlm: bool,
}

/// What the KDC was shown of what proves the user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Proof {
    /// Nothing that it took.
    #[default]
    None,
    /// It took the proof during this examination.
    Taken,
    /// It took it, or another one, at this time: a ticket is held from then.
    Before(String),
}

impl<'a> Steps<'a> {
    pub(crate) fn new(tell: &'a mut (dyn FnMut(&Step) + Send)) -> Self {
        Self { taken: Vec::new(), tell, since: Instant::now(), proof: Proof::None, ntlm: false }
    }

    /// Says that the logon goes by NTLM when there is no ticket to be had.
    pub(crate) fn falls_back(&mut self, ntlm: bool) {
        self.ntlm = ntlm;
    }

    /// There is no ticket to be had, and nobody refused one. That is a failure unless the logon goes by NTLM then.
    pub(crate) fn without_ticket(&mut self, check: Check, detail: impl Into<String>, mut finding: Finding) {
        if !self.ntlm {
            return self.failed(check, detail, finding);
        }
        finding.cause.push_str(" Without a ticket `negotiate` with a password logs on by NTLM.");
        self.warn(check, detail, Some(finding));
    }

    pub(crate) fn proved(&mut self, proof: Proof) {
        self.proof = proof;
    }

    pub(crate) fn proof(&self) -> &Proof {
        &self.proof
    }

    pub(crate) fn passed(&mut self, check: Check, detail: impl Into<String>) {
        self.add(check, Outcome::Passed, detail.into(), None);
    }

    pub(crate) fn warn(&mut self, check: Check, detail: impl Into<String>, finding: Option<Finding>) {
        self.add(check, Outcome::Warning, detail.into(), finding);
    }

    pub(crate) fn failed(&mut self, check: Check, detail: impl Into<String>, finding: Finding) {
        self.add(check, Outcome::Failed, detail.into(), Some(finding));
    }

    pub(crate) fn unknown(&mut self, check: Check, why: impl Into<String>) {
        self.add(check, Outcome::Unknown, why.into(), None);
    }

    pub(crate) fn skipped(&mut self, check: Check, why: impl Into<String>) {
        self.add(check, Outcome::Skipped, why.into(), None);
    }

    /// Whether something was looked at already, with this outcome.
    pub(crate) fn has(&self, check: Check, outcome: Outcome) -> bool {
        self.taken.iter().any(|step| (step.check, step.outcome) == (check, outcome))
    }

    /// The time counts from the step before.
    fn add(&mut self, check: Check, outcome: Outcome, detail: String, finding: Option<Finding>) {
        let elapsed = if outcome == Outcome::Skipped { Duration::ZERO } else { self.since.elapsed() };
        self.add_timed(check, outcome, elapsed, detail, finding);
    }

    /// The time is known.
    pub(crate) fn add_timed(
        &mut self,
        check: Check,
        outcome: Outcome,
        elapsed: Duration,
        detail: String,
        finding: Option<Finding>,
    ) {
        self.since = Instant::now();
        let step = Step { check, outcome, elapsed, detail, finding };
        (self.tell)(&step);
        self.taken.push(step);
    }

    pub(crate) fn finish(self) -> Vec<Step> {
        self.taken
    }
}
