//! winsim: a simulated Windows host that speaks WinRM, for tests and demonstrations.
//!
//! It is built from the protocol's specifications and from recordings of real hosts, not from Lictor's client, so that the two
//! can judge each other. It is strict: what Windows refuses is refused with the same fault or status, and every request against
//! the protocol is counted with its reason. It runs nothing on the real machine: cmd, PowerShell and their programs are small
//! deterministic imitations.
//!
//! ```no_run
//! # async fn example() -> Result<(), winsim::StartError> {
//! let users = vec![winsim::User::new("CORP\\alice", "secret")];
//! let host = winsim::Winsim::start(winsim::Options { users, ..Default::default() }).await?;
//! println!("http://{}/wsman", host.address());
//! assert_eq!(host.statistics().shells.open, 0);
//! host.stop().await;
//! # Ok(())
//! # }
//! ```

mod answer_body;
mod authentication;
mod clock;
mod conditions;
mod configuration;
mod control;
mod envelope;
mod fault;
mod host;
mod http;
mod keys;
mod lines;
mod options;
mod process;
mod programs;
mod server;
mod soap;
mod statistics;

pub use conditions::{Delay, Lasting, OrderedFault, QuotaChange, Service, Slow, Trickle};
pub use configuration::{Configuration, Listener, Mapping};
pub use control::{Condition, Order, Reboot, RestartService};
pub use fault::{Form, Style};
pub use host::{CommandInfo, ShellInfo};
pub use lines::{Cut, DropAt, Expiry};
pub use options::{
    ChannelBindings, Kerberos, Logon, Numbering, Options, PowerShell, Quotas, Scheme, Tls, TlsVersion, User,
};
pub use programs::CannedScript;
pub use server::{Handle, StartError, Winsim};
pub use statistics::{AuthenticationCounts, CommandCounts, Connections, Exchange, ShellCounts, Statistics};
