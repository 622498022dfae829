//! AWS KMS as the control plane itself uses it: for secret managers with OpenID Connect and the connectivity `platform`.
//!
//! The engine asks and goes on; what comes of it reaches it as a command. Nothing here reads the database or decides who may have a value. It must never be
//! anybody by the identity of the machine that it runs on, log a value or keep one: values in clear live in the cache of `lictor-kms`,
//! which is bounded in size and time, and in what is handed to the engine.

#![expect(dead_code, reason = "nothing asks yet")]

use std::fmt;

use lictor_proto::v1::{Failure, KmsAccess, KmsRecord, TaskResult};
use zeroize::Zeroizing;

/// One thing to be done at KMS.
pub(crate) struct Request {
    /// What the asker knows it by; it comes back with the answer.
    pub(crate) ticket: u64,
    /// Whom to ask, and who to be: a web identity whose token is for the control plane itself.
    pub(crate) access: KmsAccess,
    /// What the value belongs to; KMS binds it to that.
    pub(crate) place: Place,
    /// What is to be done.
    pub(crate) work: Work,
}

/// A version of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// Its scope; empty for the whole account.
    pub(crate) scope: String,
    /// Its identifier.
    pub(crate) identifier: String,
    /// Its version.
    pub(crate) version: u64,
}

/// What is to be done.
pub(crate) enum Work {
    /// Decrypt what is stored.
    Open(KmsRecord),
    /// Encrypt a new value.
    Seal(Zeroizing<Vec<u8>>),
    /// Try the manager. The place counts with a record only: one that is stored, for managers that may read alone.
    Test(Option<KmsRecord>),
}

/// What came of a request.
pub(crate) struct Fetched {
    /// That of the request.
    pub(crate) ticket: u64,
    /// Why not, in the words that end a task.
    pub(crate) outcome: Result<Done, Box<Failure>>,
}

/// What was done.
pub(crate) enum Done {
    /// The value, decrypted.
    Value(Zeroizing<Vec<u8>>),
    /// The value, encrypted.
    Record(KmsRecord),
    /// The test as the result of its task; it may have failed.
    Tested(Box<TaskResult>),
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("ticket", &self.ticket).field("place", &self.place).finish_non_exhaustive()
    }
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}
