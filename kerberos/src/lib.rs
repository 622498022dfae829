//! Kerberos for long-running programs: settings, keytabs, credential caches, the dialogue with the KDC, and tickets that are
//! shared by all who act as one principal.
//!
//! Used by the agent and the command line. It yields tickets of the `krb5` crate and knows neither WinRM nor agents. It never
//! writes a key, a password or a ticket to a log, an error or a file that the user did not name.

pub mod config;
pub mod kdc;
pub mod keytab;
pub mod trace;
