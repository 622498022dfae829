//! WinRM client: WS-Management and the remote shells of [MS-WSMV], over HTTP and HTTPS.
//!
//! Two layers. The sans-I/O core ([`soap`], [`wsman`], [`shell`], [`fault`], [`powershell`], [`clixml`], [`mask`], [`output`],
//! [`target`], [`error`]) turns values
//! into bytes and bytes into values; it does no I/O and reads no clock, environment or random source. The `client`
//! feature adds sockets, TLS, authentication and the session pool.
//!
//! This crate knows nothing of agents, tasks or control planes.
//!
//! [MS-WSMV]: https://learn.microsoft.com/en-us/openspecs/windows_protocols/ms-wsmv/

pub mod auth;
pub mod clixml;
pub mod error;
pub mod fault;
pub mod mask;
pub mod output;
pub mod powershell;
pub mod shell;
pub mod soap;
pub mod target;
pub mod wsman;

#[cfg(feature = "client")]
pub mod certificate;
#[cfg(feature = "client")]
pub mod configuration;
#[cfg(feature = "client")]
pub mod connection;
#[cfg(feature = "client")]
mod failure;
#[cfg(feature = "client")]
pub mod pool;
#[cfg(feature = "client")]
pub mod probe;
#[cfg(feature = "client")]
mod session;
#[cfg(all(test, feature = "client"))]
mod simulated;
#[cfg(feature = "client")]
mod spans;

#[cfg(feature = "client")]
pub use auth::ntlm::QUIET_TARGETS;
pub use error::{Error, ErrorKind, Stage};
pub use shell::Invocation;
pub use target::Target;
