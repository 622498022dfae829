//! What to connect to, as whom and how: everything that decides which sessions may be shared.
//!
//! Pure values; nothing here does I/O.

mod networks;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::Ipv6Addr;
#[cfg(feature = "client")]
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

pub use networks::{Network, NetworkError, Networks};

#[cfg(feature = "client")]
use crate::auth::kerberos::TicketSource;

/// Everything that decides whether two callers may share a session: pool keys are made from it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where the host listens.
    pub endpoint: Endpoint,
    /// How to authenticate.
    pub auth: AuthKind,
    /// As whom.
    pub credential: Credential,
    /// How the host's certificate is checked.
    pub tls: TlsPolicy,
    /// When messages are sealed.
    pub message_encryption: MessageEncryption,
    /// Send TLS channel bindings when authenticating over https.
    pub send_channel_bindings: bool,
    /// Allow Basic over plain http.
    pub allow_basic_over_http: bool,
    /// How Kerberos names the host, and what it may do with the user's tickets.
    pub kerberos: KerberosOptions,
    /// Properties of the shell.
    pub shell: ShellProperties,
    /// Waits.
    pub timeouts: Timeouts,
}

/// Where a host listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    scheme: Scheme,
    host: String,
    port: u16,
    path: String,
    /// Part of the endpoint, so that sessions that were opened under other rules are not shared.
    networks: Networks,
}

impl Endpoint {
    /// Checks its parts. `port` defaults to 5985 (http) or 5986 (https), `path` to `/wsman`. IPv6 addresses are given
    /// without brackets (brackets are accepted and removed).
    ///
    /// # Errors
    /// [`EndpointError`] when the host is empty, too long or holds characters that no name or address has, or the path
    /// does not start with `/` or holds characters that a URL path must not have.
    pub fn new(scheme: Scheme, host: &str, port: Option<u16>, path: Option<&str>) -> Result<Self, EndpointError> {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_address = |text: &str| text.parse::<Ipv6Addr>().is_ok();
        let valid = match bare {
            Some(inner) => is_address(inner),
            None => is_address(host) || is_host_name(host),
        };
        if !valid {
            return Err(EndpointError::Host(host.to_owned()));
        }
        let path = path.unwrap_or("/wsman");
        if !is_url_path(path) {
            return Err(EndpointError::Path(path.to_owned()));
        }
        let port = port.unwrap_or(match scheme {
            Scheme::Http => 5985,
            Scheme::Https => 5986,
        });
        // Names are compared without case, so that `HOST` and `host` share sessions and bounds.
        let host = bare.unwrap_or(host).to_ascii_lowercase();
        Ok(Self { scheme, host, port, path: path.to_owned(), networks: Networks::default() })
    }
    /// The same endpoint, to be reached at permitted addresses only: those that its name resolves to are checked each
    /// time a connection is opened.
    #[must_use]
    pub fn within(self, networks: Networks) -> Self {
        Self { networks, ..self }
    }
    /// Where it may be reached.
    #[must_use]
    pub fn networks(&self) -> &Networks {
        &self.networks
    }
    /// Scheme.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }
    /// Host name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }
    /// TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
    /// Host and port, with IPv6 addresses in brackets: what the `Host` header holds and messages name.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
    /// URL path.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// The URL, with IPv6 addresses in brackets.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

/// IPv4 addresses pass as names. Underscores are no part of host names, but Windows hosts have them.
fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        })
}

fn is_url_path(text: &str) -> bool {
    text.len() <= 1024
        && text.starts_with('/')
        && text.bytes().all(|byte| {
            byte.is_ascii_graphic()
                && !matches!(byte, b'?' | b'#' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
        })
}

/// Why parts do not make an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The host is not a name or address.
    #[error("{0:?} is not a host name or an IP address")]
    Host(String),
    /// The path is not a URL path.
    #[error("{0:?} is not a URL path: it must start with '/' and hold no spaces, '?' or '#'")]
    Path(String),
}

/// Transport schemes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

/// Authentication kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthKind {
    /// HTTP Basic (RFC 7617, UTF-8).
    Basic,
    /// NTLM tokens without SPNEGO, in the `Negotiate` scheme.
    Ntlm,
    /// SPNEGO (RFC 4178). The mechanism inside is Kerberos for a credential of tickets, else NTLM; NTLM also when no ticket
    /// can be had and there is a password, but never after a rejection.
    Negotiate,
    /// Kerberos and nothing else: inside SPNEGO when the host offers `Negotiate`, else in the scheme `Kerberos`.
    Kerberos,
}

/// How Kerberos names the host, and what the host gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct KerberosOptions {
    /// The service of the SPN. Nothing: `HTTP`, then `WSMAN`, then `HOST`, whichever the KDC knows first.
    pub spn_service: Option<String>,
    /// The host of the SPN. Nothing: the endpoint's host.
    pub spn_host: Option<String>,
    /// Forward the user's ticket-granting ticket to the host, which can then act as the user elsewhere.
    pub delegate: bool,
}

/// As whom to authenticate, and what proves it.
#[derive(Debug, Clone)]
pub struct Credential {
    username: String,
    proof: Proof,
}

#[derive(Debug, Clone)]
enum Proof {
    Password(Secret),
    #[cfg(feature = "client")]
    Tickets {
        source: Arc<dyn TicketSource>,
        password: Option<Secret>,
    },
}

impl Credential {
    /// `DOMAIN\user`, `user@domain` or a bare local name, and its password.
    #[must_use]
    pub fn password(username: impl Into<String>, password: Secret) -> Self {
        Self { username: username.into(), proof: Proof::Password(password) }
    }
    /// A user whose tickets come from `source`. With a `password`, NTLM can take over when no ticket can be had.
    #[cfg(feature = "client")]
    #[must_use]
    pub fn tickets(username: impl Into<String>, source: Arc<dyn TicketSource>, password: Option<Secret>) -> Self {
        Self { username: username.into(), proof: Proof::Tickets { source, password } }
    }
    /// Who it is.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.username
    }
    /// The password, if there is one.
    #[must_use]
    pub fn secret(&self) -> Option<&Secret> {
        match &self.proof {
            Proof::Password(password) => Some(password),
            #[cfg(feature = "client")]
            Proof::Tickets { password, .. } => password.as_ref(),
        }
    }
    /// Where its tickets come from, if it has any.
    #[cfg(feature = "client")]
    #[must_use]
    pub fn source(&self) -> Option<&dyn TicketSource> {
        match &self.proof {
            Proof::Password(_) => None,
            Proof::Tickets { source, .. } => Some(&**source),
        }
    }
}

/// A secret text: zeroed on drop, printed as `[redacted]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
    /// Lends the text. Keep the borrow short.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Hash for Secret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// How the host's certificate is checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TlsPolicy {
    /// PEM certificates of trusted authorities. Nothing: the system's roots, and what the process trusts beside them.
    pub ca_pem: Option<String>,
    /// Do not check the certificate at all. Warned about on each connection.
    pub skip_certificate_check: bool,
}

/// When messages are sealed ([MS-WSMV] 2.2.9.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum MessageEncryption {
    /// Over http when the authentication can seal; Basic over http stays plain and must be allowed explicitly.
    #[default]
    Auto,
    /// Over https too. Refused with Basic.
    Always,
    /// Never.
    Never,
}

/// Properties of a remote shell ([MS-WSMV] 2.2.4.37).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ShellProperties {
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Environment variables whose values are secrets. None may be above as well.
    pub secret_environment: BTreeMap<String, Secret>,
    /// Working directory. Nothing: the user's profile directory.
    pub working_directory: Option<String>,
    /// WINRS_NOPROFILE: do not load the Windows user profile.
    pub no_profile: bool,
    /// WINRS_CODEPAGE. 65001 is UTF-8.
    pub code_page: u32,
    /// How long the host keeps an idle shell. At least 1 min.
    pub idle_timeout: Duration,
}

impl Default for ShellProperties {
    fn default() -> Self {
        Self {
            environment: BTreeMap::new(),
            secret_environment: BTreeMap::new(),
            working_directory: None,
            no_profile: false,
            code_page: 65001,
            idle_timeout: Duration::from_secs(2 * 60 * 60),
        }
    }
}

/// Waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// For name resolution, TCP and TLS together.
    pub connect: Duration,
    /// OperationTimeout of each message: bounds one exchange, not the command. At most 60 s.
    pub operation: Duration,
    /// For an HTTP answer; must exceed `operation`.
    pub read: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), operation: Duration::from_secs(20), read: Duration::from_secs(30) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_take_names_and_addresses() {
        let url =
            |scheme, host, port, path| Endpoint::new(scheme, host, port, path).map(|endpoint| endpoint.to_string());
        assert_eq!(
            url(Scheme::Http, "Win01.corp.example", None, None).unwrap(),
            "http://win01.corp.example:5985/wsman"
        );
        assert_eq!(url(Scheme::Https, "10.0.0.7", Some(443), Some("/x")).unwrap(), "https://10.0.0.7:443/x");
        assert_eq!(url(Scheme::Https, "2001:db8::7", None, None).unwrap(), "https://[2001:db8::7]:5986/wsman");
        assert_eq!(url(Scheme::Https, "[::1]", None, None).unwrap(), "https://[::1]:5986/wsman");
        assert_eq!(url(Scheme::Http, "web_01", None, None).unwrap(), "http://web_01:5985/wsman");
    }

    #[test]
    fn endpoints_refuse_what_is_none() {
        for host in ["", " ", "a b", "host:5985", "http://h", "h/x", "[h]", "a..b", "-a", "h\r\nx", "user@h", "ö"] {
            assert_eq!(
                Endpoint::new(Scheme::Http, host, None, None),
                Err(EndpointError::Host(host.to_owned())),
                "{host:?}"
            );
        }
        assert!(Endpoint::new(Scheme::Http, &"a".repeat(64), None, None).is_err());
        for path in ["", "wsman", "/a b", "/a?b", "/a#b", "/a\r\n"] {
            assert_eq!(Endpoint::new(Scheme::Http, "h", None, Some(path)), Err(EndpointError::Path(path.to_owned())));
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let credential = Credential::password("u", Secret::new("hunter2".into()));
        assert!(!format!("{credential:?}").contains("hunter2"));
        let shell = ShellProperties {
            secret_environment: BTreeMap::from([("TOKEN".into(), Secret::new("hunter2".into()))]),
            ..ShellProperties::default()
        };
        let shown = format!("{shell:?}");
        assert!(shown.contains("TOKEN") && !shown.contains("hunter2"), "{shown}");
    }
}
