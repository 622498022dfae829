//! Why a value could not be sealed or opened, in words that help: what happened, a stable code, the cause or what it may be, what to
//! do about it, and the text that users of Harness know.
//!
//! The sentences stand in `sentences`, one function for each thing that goes wrong; `classify` decides which of them an answer of AWS
//! stands for. Nothing here ever holds a value, a key or a token; texts that AWS sent are bounded and on one line.

pub(crate) mod classify;
pub(crate) mod examples;
pub(crate) mod sentences;

use std::fmt;
use std::sync::Arc;

/// How far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Before anything was sent.
    Settings,
    /// Who to be.
    Identity,
    /// Making a data key, or encrypting.
    Write,
    /// Opening a data key, or decrypting.
    Read,
}

impl Stage {
    /// Its stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Identity => "identity",
            Self::Write => "write",
            Self::Read => "read",
        }
    }
}

/// What a failure means for whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The settings of the secret manager are wrong: nothing was sent.
    Settings,
    /// AWS was not told, or did not believe, who is asking.
    Identity,
    /// AWS knows who is asking and does not permit it.
    Denied,
    /// The KMS key cannot be used as it is.
    Key,
    /// The record or the value is not what it should be.
    Record,
    /// Throttled, out of service or out of reach: the same may work later.
    Passing,
    /// Something else; the text says what.
    Other,
}

/// What a failure may be due to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// Stable code such as `kms.suspect_external_id`.
    pub code: &'static str,
    /// The cause in one sentence, and what speaks for it.
    pub cause: String,
    /// What to do about it, or how to find out.
    pub remedy: String,
}

/// A failure. Cheap to clone: one flight serves many callers, and so does its failure.
#[derive(Clone)]
pub struct Error(Arc<Detail>);

#[derive(Clone)]
pub(crate) struct Detail {
    pub(crate) stage: Stage,
    pub(crate) kind: Kind,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) cause: String,
    pub(crate) remedy: String,
    pub(crate) legacy: Option<&'static str>,
    pub(crate) suspects: Vec<Suspect>,
}

impl Error {
    pub(crate) fn new(detail: Detail) -> Self {
        Self(Arc::new(detail))
    }

    /// With what it may be, the most likely first.
    pub(crate) fn with_suspects(self, suspects: Vec<Suspect>) -> Self {
        Self::new(Detail { suspects, ..Arc::unwrap_or_clone(self.0) })
    }

    /// The first of several mistakes, which tells of the others, too.
    pub(crate) fn with_others(&self, others: &[Self]) -> Self {
        let mut detail = (*self.0).clone();
        for other in others {
            detail.cause.push_str(" Also: ");
            detail.cause.push_str(&other.0.cause);
        }
        Self::new(detail)
    }

    /// The same, but that it may be another answer in a moment.
    pub(crate) fn passing_if(self, passing: bool) -> Self {
        if !passing {
            return self;
        }
        Self::new(Detail { kind: Kind::Passing, ..Arc::unwrap_or_clone(self.0) })
    }

    /// How far it came.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.0.stage
    }

    /// What the failure means for whoever asked.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// A stable name of what happened, `kms.…`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// Why it happened, as far as that is known, with what AWS said.
    #[must_use]
    pub fn cause(&self) -> &str {
        &self.0.cause
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &str {
        &self.0.remedy
    }

    /// The text that Harness shows for the same thing.
    #[must_use]
    pub fn legacy_text(&self) -> Option<&str> {
        self.0.legacy
    }

    /// What it may be, the most likely first, where AWS does not tell.
    #[must_use]
    pub fn suspects(&self) -> Vec<Suspect> {
        self.0.suspects.clone()
    }

    /// True when the same may work later, without anybody doing anything.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.0.kind == Kind::Passing
    }

    /// True when asking again at once would get the same answer.
    pub(crate) fn is_denial(&self) -> bool {
        matches!(self.0.kind, Kind::Identity | Kind::Denied | Kind::Key | Kind::Record)
    }
}

/// One failure of each kind that this crate tells, with example names.
#[must_use]
pub fn catalogue() -> Vec<Error> {
    examples::all()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("stage", &self.0.stage)
            .field("kind", &self.0.kind)
            .field("code", &self.0.code)
            .field("message", &self.0.message)
            .field("cause", &self.0.cause)
            .finish_non_exhaustive()
    }
}

impl std::error::Error for Error {}
