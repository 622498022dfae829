//! Kerberos against real KDCs, acceptors and clients that others wrote. One binary, a module for each theme.

#![expect(clippy::unwrap_used, reason = "what is exempt in tests should be so in the functions that they share")]

mod acceptors;
mod clients;
mod direct;
mod doctor;
mod harness;
mod kdcs;
mod keytabs;
mod load;
mod manager;
mod samba;
