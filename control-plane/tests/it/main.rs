//! The control plane in process, over real TLS on loopback, with clients that speak as users and as agents.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests, helpers included, fail by panicking"
)]

mod access;
mod audit;
mod batches;
mod deliveries;
mod delivery;
mod enrolment;
mod examinations;
mod impostors;
mod injection;
mod keeping;
mod kerberos;
mod leases;
mod link;
mod master_key;
mod oidc;
mod sealing;
mod secrets;
mod support;
mod users;
mod vaulted;
