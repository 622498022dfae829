//! Secrets under AWS KMS: who to be there, data keys, and a test that tells the truth.
//!
//! A value is encrypted with a data key of its own, which KMS makes and encrypts under a KMS key together with a context of scope,
//! name and version. Used by the agent and the control plane. It must never log or keep a value in clear, nor a data key beyond the
//! bounds of its cache.
//!
//! Programs that log must cap the targets `aws_*`, `hyper` and `hyper_util` at `info`: below that the SDK shows requests, and with
//! them tokens.

mod access;
pub mod arn;
mod cache;
mod client;
mod context;
pub mod envelope;
mod error;
mod identity;
mod kms;
mod ladder;

pub use access::{Access, Setting};
pub use context::Context;
pub use error::{Error, Kind, Stage, Suspect, catalogue};
pub use identity::Environment;
pub use kms::{Figures, Kms, Settings};
pub use ladder::{Outcome, Report, Step};
