//! What a simulated host is like: its addresses, users, authentication schemes and limits.
//!
//! The defaults are those of a Windows Server 2016 that nobody has tuned. Nothing here changes after the start;
//! the quotas are where they begin.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::configuration::Configuration;
use crate::fault::Style;

/// Everything that [`Winsim::start`](crate::Winsim::start) needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where WinRM listens. Port 0 takes a free one. Default 127.0.0.1:0.
    pub listen: SocketAddr,
    /// Where the statistics are served, without authentication. Default 127.0.0.1:0.
    pub admin_listen: SocketAddr,
    /// Certificate and key: with them the listener speaks HTTPS, without them HTTP. Default none.
    pub tls: Option<Tls>,
    /// The versions of TLS that are taken, from the oldest to the newest. Default 1.2 to 1.3.
    pub tls_versions: (TlsVersion, TlsVersion),
    /// The accounts of this host. Default none: nobody can log on with a password.
    pub users: Vec<User>,
    /// The host's keys, and whose tickets it takes. With them `Negotiate` takes Kerberos too. Default none.
    pub kerberos: Option<Kerberos>,
    /// The authentication schemes that are offered. Default `Negotiate` alone, as on Windows.
    pub schemes: Vec<Scheme>,
    /// `AllowUnencrypted` of the service: plain bodies over HTTP are served. Default false.
    pub allow_unencrypted: bool,
    /// `CbtHardeningLevel` of the service. Default [`ChannelBindings::Relaxed`].
    pub channel_bindings: ChannelBindings,
    /// The computer name: in NTLM challenges, faults, `hostname` and `COMPUTERNAME`. Default `WINSIM`.
    pub hostname: String,
    /// `MaxShellsPerUser`. Default 30.
    pub max_shells_per_user: usize,
    /// `MaxConcurrentOperationsPerUser`. A command counts until its shell is deleted, as on Windows. Default 1500.
    pub max_operations_per_user: usize,
    /// `MaxProcessesPerShell`: commands of a shell that run at the same time. Default 25.
    pub max_processes_per_shell: usize,
    /// `MaxConcurrentUsers`: users that have a shell. Default 10.
    pub max_concurrent_users: usize,
    /// `MaxConnections`: more wait until one is closed. Default 300.
    pub max_connections: usize,
    /// `MaxBatchItems`: items in one answer to Enumerate or Pull. Default 32,000.
    pub max_batch_items: usize,
    /// How faults are written. Default in WSManFault, unsigned.
    pub fault_style: Style,
    /// `MaxEnvelopeSizekb` in bytes: of requests and of responses. Default 500 KiB.
    pub max_envelope_size: usize,
    /// `MaxTimeoutms`: a longer OperationTimeout is cut to this. Default 60 s.
    pub max_operation_timeout: Duration,
    /// The shortest IdleTimeOut that a shell may ask for. Default 60 s.
    pub min_idle_timeout: Duration,
    /// `Done` and the exit code never come in the same response as output. Default false.
    pub done_alone: bool,
    /// Accounts that can log on but may not use WinRM: every operation on shells is answered with fault 5.
    pub denied_users: Vec<String>,
    /// Accounts that may use shells and are no administrators: reading the configuration is answered with fault 5.
    pub standard_users: Vec<String>,
    /// What the configuration tells otherwise than these options. Default nothing.
    pub configuration: Configuration,
    /// How PowerShell is set up.
    pub powershell: PowerShell,
}

impl Default for Options {
    fn default() -> Self {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            listen: loopback,
            admin_listen: loopback,
            tls: None,
            tls_versions: (TlsVersion::Tls1_2, TlsVersion::Tls1_3),
            users: Vec::new(),
            kerberos: None,
            schemes: vec![Scheme::Negotiate],
            allow_unencrypted: false,
            channel_bindings: ChannelBindings::Relaxed,
            hostname: "WINSIM".to_owned(),
            max_shells_per_user: 30,
            max_operations_per_user: 1500,
            max_processes_per_shell: 25,
            max_concurrent_users: 10,
            max_connections: 300,
            max_batch_items: 32_000,
            fault_style: Style::default(),
            max_envelope_size: 500 * 1024,
            max_operation_timeout: Duration::from_secs(60),
            min_idle_timeout: Duration::from_secs(60),
            done_alone: false,
            denied_users: Vec::new(),
            standard_users: Vec::new(),
            configuration: Configuration::default(),
            powershell: PowerShell::default(),
        }
    }
}

impl Options {
    /// The quotas at the start.
    pub(crate) fn quotas(&self) -> Quotas {
        Quotas {
            max_shells_per_user: self.max_shells_per_user,
            max_processes_per_shell: self.max_processes_per_shell,
            max_operations_per_user: self.max_operations_per_user,
            max_concurrent_users: self.max_concurrent_users,
            max_connections: self.max_connections,
            max_batch_items: self.max_batch_items,
        }
    }
}

/// The quotas that hold at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quotas {
    /// `MaxShellsPerUser`.
    pub max_shells_per_user: usize,
    /// `MaxProcessesPerShell`: commands of a shell that run at the same time.
    pub max_processes_per_shell: usize,
    /// `MaxConcurrentOperationsPerUser`: commands that were started in shells that are still there.
    pub max_operations_per_user: usize,
    /// `MaxConcurrentUsers`: users that have a shell.
    pub max_concurrent_users: usize,
    /// `MaxConnections`: more wait until one is closed.
    pub max_connections: usize,
    /// `MaxBatchItems`: items in one answer to Enumerate or Pull.
    pub max_batch_items: usize,
}

/// The server certificate with its chain, and the private key, both PEM.
#[derive(Clone)]
pub struct Tls {
    /// The certificate, followed by its intermediates.
    pub certificate: Vec<u8>,
    /// The private key, not encrypted.
    pub key: Vec<u8>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Tls { key: [redacted], .. }")
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum TlsVersion {
    /// The only one that Windows Server 2008 knows.
    #[value(name = "1.0")]
    Tls1_0,
    /// 1.1.
    #[value(name = "1.1")]
    Tls1_1,
    /// 1.2.
    #[value(name = "1.2")]
    Tls1_2,
    /// 1.3, from Windows Server 2022 on.
    #[value(name = "1.3")]
    Tls1_3,
}

/// How PowerShell is set up on a host.
#[derive(Clone, Debug)]
pub struct PowerShell {
    /// The profile script of every user: it runs before each script, unless `-NoProfile` is given. Default none.
    pub profile: String,
    /// The language mode. In another one than `FullLanguage`, methods of .NET cannot be called, so that nothing runs that is
    /// carried by them. Default `FullLanguage`.
    pub language_mode: String,
}

impl Default for PowerShell {
    fn default() -> Self {
        Self { profile: String::new(), language_mode: "FullLanguage".to_owned() }
    }
}

/// One account.
#[derive(Clone)]
pub struct User {
    name: String,
    password: String,
}

impl User {
    /// An account by its full name: `CORP\alice`, `alice@corp.example` or, for a local one, `alice`.
    #[must_use]
    pub fn new(name: impl Into<String>, password: impl Into<String>) -> Self {
        Self { name: name.into(), password: password.into() }
    }

    /// The full name, as configured.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// Whether `name` in `domain`, as a client spells them, means this account on the host `hostname`.
    pub(crate) fn answers_to(&self, domain: &str, name: &str, hostname: &str) -> bool {
        let same = |a: &str, b: &str| a.to_lowercase() == b.to_lowercase();
        match self.name.split_once('\\') {
            Some((own_domain, own_name)) => same(own_domain, domain) && same(own_name, name),
            None => same(&self.name, name) && (domain.is_empty() || domain == "." || same(domain, hostname)),
        }
    }
}

impl fmt::Debug for User {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("User").field("name", &self.name).field("password", &"[redacted]").finish()
    }
}

/// What a host needs in order to take Kerberos tickets.
#[derive(Clone, Debug)]
pub struct Kerberos {
    /// Keytab with the keys of the host's service principals. It is read again whenever the file has changed.
    pub keytab: PathBuf,
    /// Who may log on. The ticket of anybody else is refused with 401 although it is good.
    pub logons: Vec<Logon>,
    /// How the host numbers its messages. Default [`Numbering::Counted`].
    pub numbering: Numbering,
}

impl Kerberos {
    /// The user that a principal logs on as.
    pub(crate) fn user(&self, principal: &str) -> Option<String> {
        self.logons.iter().find_map(|logon| logon.user(principal))
    }
}

/// The principal that may log on, and as which user: `alice@CORP.EXAMPLE=CORP\alice`. A `*` in place of the name stands for every name
/// of the realm, and in the user for the same name: `*@CORP.EXAMPLE=CORP\*`. Without user, it is the principal's own name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logon {
    principal: String,
    user: String,
}

impl FromStr for Logon {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (principal, user) = text.split_once('=').unwrap_or((text, text));
        match principal.rsplit_once('@') {
            Some((name, realm)) if !name.is_empty() && !realm.is_empty() && !user.is_empty() => {
                Ok(Self { principal: principal.to_owned(), user: user.to_owned() })
            }
            _ => Err("a principal is written NAME@REALM or NAME@REALM=USER"),
        }
    }
}

impl Logon {
    fn user(&self, principal: &str) -> Option<String> {
        if self.principal == principal {
            return Some(self.user.clone());
        }
        let name = principal.strip_suffix(self.principal.strip_prefix('*')?)?;
        Some(self.user.replacen('*', name, 1))
    }
}

/// How a host numbers the Kerberos messages that it sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Numbering {
    /// From the number in its AP-REP on, as RFC 4121 says. pypsrp, which people use against Windows, insists on it.
    #[default]
    Counted,
    /// Every one is 0, which a client of another author reports of Windows Server 2025.
    Zero,
}

/// An authentication scheme of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Scheme {
    /// `Basic`: name and password in every request. Over plain HTTP only together with `allow_unencrypted`.
    Basic,
    /// The bare `NTLM` scheme. Windows' WinRM does not offer it; IIS does.
    Ntlm,
    /// `Negotiate`: NTLM, and with a keytab Kerberos, wrapped in SPNEGO or raw.
    Negotiate,
    /// `Kerberos`, raw. A host in a domain offers it beside `Negotiate`. Needs a keytab.
    Kerberos,
}

/// What the host does about channel bindings over HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ChannelBindings {
    /// They are not looked at.
    None,
    /// Wrong ones are refused, missing ones are not.
    Relaxed,
    /// They must be there and be right.
    Strict,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_logs_on_as_the_user_that_is_named_first() {
        let logons = ["alice@R.EXAMPLE=CORP\\alice", "*@R.EXAMPLE=CORP\\*", "host/h@S.EXAMPLE"]
            .map(|text| text.parse::<Logon>().expect("valid"))
            .to_vec();
        let kerberos = Kerberos { keytab: PathBuf::new(), logons, numbering: Numbering::default() };
        let user = |principal| kerberos.user(principal);
        assert_eq!(user("alice@R.EXAMPLE").as_deref(), Some("CORP\\alice"));
        assert_eq!(user("bob@R.EXAMPLE").as_deref(), Some("CORP\\bob"));
        assert_eq!(user("host/h@S.EXAMPLE").as_deref(), Some("host/h@S.EXAMPLE"));
        assert_eq!(user("alice@S.EXAMPLE"), None);
        assert_eq!(user("alice@r.example"), None);
        for wrong in ["alice", "@R", "alice@", "alice@R="] {
            assert!(wrong.parse::<Logon>().is_err(), "{wrong}");
        }
    }
}
