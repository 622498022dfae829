//! The doctor: examines a Windows host and everything on the way to it, and says what is wrong, why, and what to do.
//!
//! It joins `lictor-winrm` and `lictor-kerberos`, which do not know each other, and is used by the agent and by the command
//! line. A credential is tried at most once in an examination, and not at all where something before has refused it. It
//! never changes anything on a host or a KDC, and what it tells never holds a secret.

mod catalogue;
mod check;
mod examine;
mod finding;
mod host;
mod kerberos;
mod names;
pub mod posture;
mod step;

pub use self::catalogue::{Entry, catalogue};
pub use self::check::Check;
pub use self::examine::{KerberosSubject, Report, Subject, examine, examine_in, examine_unproved};
pub use self::finding::{Finding, Suspect};
pub use self::step::{Outcome, Step};
