//! The doctor against hosts with one thing wrong each: simulated hosts, TLS servers of OpenSSL, and peers that are no hosts at
//! all. Each cause must be found by its code, and a credential be sent once at most.

#![expect(clippy::unwrap_used, reason = "what is exempt in tests should be so in the functions that they share")]

mod certificates;
mod command;
mod hosts;
mod judges;
mod logons;
mod ports;
mod servers;
mod tls;
