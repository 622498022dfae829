//! Lictor's agent: enrols with a control plane, takes tasks over one link, and runs them on Windows hosts.
//!
//! `app` wires everything; inside, `app -> link -> tasks -> sessions -> secrets`, and nothing points back. This library
//! exists for the `lictor-agent` program and for tests.

mod admission;
pub mod app;
mod authorities;
mod bootstrap;
mod check;
pub mod cli;
pub mod config;
mod doctor;
mod enrol;
mod failure;
mod kerberos;
mod link;
pub mod migrate;
mod ownership;
mod policy;
mod process;
mod secrets;
mod sessions;
pub mod shutdown;
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub mod simulation;
mod tasks;
mod telemetry;

pub use failure::{ExitCode, catalogue};
