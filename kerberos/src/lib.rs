//! Kerberos for long-running programs: settings, keytabs, credential caches, the dialogue with the KDC, and tickets that are
//! shared by all who act as one principal.
//!
//! Used by the agent and the command line. It yields tickets of the `krb5` crate and knows neither WinRM nor agents. It never
//! writes a key, a password or a ticket to a log, an error or a file that the user did not name.

#[doc(hidden)]
pub mod ccache;
pub mod config;
mod credentials;
pub mod enquire;
mod error;
pub mod kdc;
pub mod keytab;
pub mod trace;

pub use self::credentials::{CredentialSource, Identity, Kerberos, Request, Service, ServiceTicket};
pub use self::error::{Error, ErrorKind, catalogue};
