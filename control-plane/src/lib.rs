//! Lictor's reference control plane: takes tasks from users, gives them to agents under leases, keeps output and
//! results.
//!
//! The way in is [`ControlPlane`]: open the state, bind the ports, run. State is an embedded SQLite database in one
//! directory, beside the control plane's own certificate authority. Used by the binary and by end-to-end tests.

mod access;
mod api;
mod app;
mod audit;
mod authority;
mod check;
pub mod cli;
mod clock;
pub mod config;
mod connection;
mod dispatch;
mod engine;
mod enrolment;
mod failure;
mod files;
mod http;
mod listener;
mod managers;
mod master_keys;
mod metrics;
mod oidc;
mod outbox;
mod platform;
mod process;
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub mod simulation;
mod store;
mod telemetry;
mod validate;
mod vault;
mod watchers;

pub use app::{ControlPlane, Error};
pub use config::Config;
pub use failure::catalogue;
