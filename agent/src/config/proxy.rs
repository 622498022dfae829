//! The HTTP proxy between agent and control plane: where it is, and what does not go through it.
//!
//! Pure, but for what the environment says. The password is no part of it; it travels beside, in a type that zeroes
//! itself. Called by the loader; used by `enrol`.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use lictor_settings::{Form, Reader};
use lictor_winrm::target::{Network, Secret};
use zeroize::Zeroizing;

/// The proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Proxy {
    /// HTTP proxy on the way to the control plane, or `none`; see [through a proxy](#through-a-proxy). Default: what the
    /// environment names.
    #[cfg_attr(test, schemars(rename = "url", with = "String"))]
    pub(crate) address: ProxyAddress,
    /// User name for the proxy (Basic).
    pub(crate) username: Option<String>,
    /// File that holds its password. Read for each connection. Example: `/etc/lictor/proxy/password`.
    pub(crate) password_file: Option<PathBuf>,
    /// PEM certificates of the authorities that an https proxy's certificate is checked against. Default: the
    /// system's bundle. Example: `/etc/lictor/proxy/ca.pem`.
    pub(crate) ca_file: Option<PathBuf>,
    /// What does not go through the proxy: names with everything below them, addresses, blocks (`10.0.0.0/8`), each
    /// perhaps with `:port`, and `*`. Default: that of `NO_PROXY`. Range: at most 1000.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub(crate) no_proxy: Vec<Exception>,
}

/// Where a proxy listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProxyAddress {
    /// Spoken to over TLS.
    pub(crate) https: bool,
    /// Without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// One entry of `no_proxy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exception {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    All,
    /// This name and everything below it.
    Below(String),
    Network(Network),
}

impl Proxy {
    /// Whether a connection to `host` goes through it.
    pub(crate) fn serves(&self, host: &str, port: u16) -> bool {
        !self.no_proxy.iter().any(|exception| exception.covers(host, port))
    }
}

impl ProxyAddress {
    /// Host and port, with IPv6 addresses in brackets.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.https { "https" } else { "http" }, self.authority())
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hosts {
            Hosts::All => f.write_str("*")?,
            Hosts::Below(name) => f.write_str(name)?,
            Hosts::Network(network) => match network.to_string() {
                text if text.contains(':') && self.port.is_some() => write!(f, "[{text}]")?,
                text => f.write_str(&text)?,
            },
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Exception {
    fn covers(&self, host: &str, port: u16) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let here = match (&self.hosts, host.parse::<IpAddr>()) {
            (Hosts::All, _) => true,
            (Hosts::Network(network), Ok(address)) => network.contains(address),
            (Hosts::Below(name), Err(_)) => {
                host.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            (Hosts::Network(_), Err(_)) | (Hosts::Below(_), Ok(_)) => false,
        };
        here && self.port.is_none_or(|only| only == port)
    }

    /// `corp.example`, `.corp.example`, `*.corp.example`, `10.0.0.0/8`, `[::1]`, `*`, each perhaps with `:port`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "*" {
            return Ok(Self { hosts: Hosts::All, port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            // An IPv6 address without brackets has no port.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, Some(port.parse::<u16>().map_err(|_| "has a port that is none".to_owned())?))
            }
            _ => (text, None),
        };
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if Network::is_meant(bare) {
            let network = bare.parse().map_err(|error: lictor_winrm::target::NetworkError| error.to_string())?;
            return Ok(Self { hosts: Hosts::Network(network), port });
        }
        let name = bare.trim_start_matches("*.").trim_start_matches('.').trim_end_matches('.').to_ascii_lowercase();
        let sound = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
        if name.is_empty() || !sound {
            return Err("is not a host name, an address, a block such as 10.0.0.0/8 or *".into());
        }
        Ok(Self { hosts: Hosts::Below(name), port })
    }
}

/// What the environment says about proxies, under the names of others.
#[derive(Debug, Default)]
pub(super) struct Foreign {
    /// `HTTPS_PROXY` or `https_proxy`; may hold a password.
    url: Option<Zeroizing<String>>,
    no_proxy: Option<String>,
    /// The delegate's, whether the platform is reached through the proxy.
    manager: Option<String>,
    /// The delegate's.
    scheme: Option<String>,
    host: Option<String>,
    port: Option<String>,
    user: Option<String>,
    password: Option<Zeroizing<String>>,
}

impl Foreign {
    /// Takes a variable that is meant for here.
    pub(super) fn takes(&mut self, name: &str, value: &str) -> bool {
        let place = match name {
            "HTTPS_PROXY" | "https_proxy" => {
                self.url = Some(Zeroizing::new(value.trim().to_owned())).filter(|url| !url.is_empty());
                return true;
            }
            "PROXY_PASSWORD" => {
                self.password = Some(Zeroizing::new(value.to_owned())).filter(|password| !password.is_empty());
                return true;
            }
            "NO_PROXY" | "no_proxy" => &mut self.no_proxy,
            "PROXY_SCHEME" => &mut self.scheme,
            "PROXY_HOST" => &mut self.host,
            "PROXY_PORT" => &mut self.port,
            "PROXY_USER" => &mut self.user,
            "PROXY_MANAGER" => &mut self.manager,
            _ => return false,
        };
        *place = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        true
    }

    /// Whether it says anything of what this setting is about.
    pub(super) fn covers(&self, key: &str) -> bool {
        match key {
            "proxy.no_proxy" => self.no_proxy.is_some(),
            _ => key.starts_with("proxy.") && (self.url.is_some() || self.host.is_some()),
        }
    }

    /// Whether the delegate's proxy is there, but not for the control plane.
    pub(super) fn switched_off(&self) -> bool {
        self.host.is_some() && self.manager.as_deref().and_then(super::delegate::parse_flag) == Some(false)
    }
}

/// The proxy, if there is one, and its password when that did not come by a file. Credentials come from where the
/// address came from: those of one proxy are not for another.
pub(super) fn read(reader: &mut Reader, mut foreign: Foreign) -> (Option<Proxy>, Option<Secret>) {
    if foreign.switched_off() {
        foreign.host = None;
    }
    let url = reader.optional("proxy.url", URL_FORM, |text| {
        if text == "none" {
            return Ok(None);
        }
        let (address, user) = parse_url(text)?;
        if user.is_some() {
            return Err("must not hold a user name or password; use proxy.username and proxy.password_file".into());
        }
        Ok(Some(address))
    });
    let username = reader.optional("proxy.username", USERNAME_FORM, parse_username);
    let password_file = reader.optional_path("proxy.password_file");
    let ca_file = reader.optional_path("proxy.ca_file");
    let no_proxy = reader.optional_list("proxy.no_proxy", MAX_EXCEPTIONS, EXCEPTION_FORM, Exception::parse);
    if no_proxy.is_none() && foreign.no_proxy.is_some() {
        reader.came_from("proxy.no_proxy", "NO_PROXY");
    }
    let no_proxy = no_proxy.unwrap_or_else(|| {
        // Written for other programs: what this one does not understand does not keep it from starting.
        let texts = foreign.no_proxy.iter().flat_map(|list| list.split([',', ' ']));
        texts.filter_map(|text| Exception::parse(text).ok()).take(MAX_EXCEPTIONS).collect()
    });
    let mut password_source = "";
    let (address, user) = match (url, foreign.host, foreign.url) {
        (Some(None), ..) => return (None, None),
        (Some(Some(address)), ..) => (address, username.map(|username| (username, None))),
        (None, Some(host), _) => {
            let scheme = foreign.scheme.as_deref().unwrap_or("http");
            let port = foreign.port.map(|port| format!(":{port}")).unwrap_or_default();
            let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
            match parse_url(&format!("{scheme}://{host}{port}")) {
                Ok((address, None)) => {
                    reader.came_from("proxy.url", "PROXY_HOST");
                    let user = foreign.user.as_deref().map(parse_username).transpose();
                    let user = user.unwrap_or_else(|problem| {
                        reader.mistake("PROXY_USER", &problem);
                        None
                    });
                    if username.is_none() && user.is_some() {
                        reader.came_from("proxy.username", "PROXY_USER");
                    }
                    password_source = "PROXY_PASSWORD";
                    (address, username.or(user).map(|user| (user, foreign.password)))
                }
                Ok(_) => {
                    reader.mistake("PROXY_HOST", "must be a host name or an address");
                    return (None, None);
                }
                Err(problem) => {
                    reader.mistake("PROXY_SCHEME, PROXY_HOST, PROXY_PORT", &problem);
                    return (None, None);
                }
            }
        }
        (None, None, Some(url)) => match parse_url(&url) {
            Ok((address, user)) => {
                reader.came_from("proxy.url", "HTTPS_PROXY");
                if username.is_none() && user.is_some() {
                    reader.came_from("proxy.username", "HTTPS_PROXY");
                }
                password_source = "HTTPS_PROXY";
                (address, username.map(|username| (username, None)).or(user))
            }
            Err(problem) => {
                // Not the value, which may hold a password.
                reader.mistake("HTTPS_PROXY", &problem);
                return (None, None);
            }
        },
        (None, None, None) => {
            let lonely = username.is_some() || password_file.is_some() || ca_file.is_some();
            if lonely {
                reader.mistake("proxy.url", "is required when other settings of the proxy are given");
            }
            return (None, None);
        }
    };
    if user.is_none() && password_file.is_some() {
        reader.mistake("proxy.username", "is required with proxy.password_file");
    }
    let (username, password) = user.unzip();
    let password = password.flatten().filter(|_| password_file.is_none());
    if password.is_some() {
        reader.came_from(PASSWORD, password_source);
    }
    let password = password.map(|password| Secret::new(password.as_str().to_owned()));
    (Some(Proxy { address, username, password_file, ca_file, no_proxy }), password)
}

type User = (String, Option<Zeroizing<String>>);

fn parse_url(text: &str) -> Result<(ProxyAddress, Option<User>), String> {
    const NO_URL: &str = "is not a URL such as http://proxy.corp.example:3128";
    // Programs take the address without its scheme, too.
    let full = Zeroizing::new(if text.contains("://") { text.to_owned() } else { format!("http://{text}") });
    let url = url::Url::parse(&full).map_err(|_| NO_URL.to_owned())?;
    let https = match url.scheme() {
        "http" => false,
        "https" => true,
        _ => return Err("must start with http:// or https://".into()),
    };
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err("must have no path, query or fragment".into());
    }
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(NO_URL)?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = url.port_or_known_default().ok_or(NO_URL)?;
    let decoded =
        |text: &str| percent_decoded(text).ok_or_else(|| "holds a user or password that is not UTF-8".to_owned());
    let user = match (url.username(), url.password()) {
        ("", None) => None,
        (user, password) => {
            let user = parse_username(&decoded(user)?)?;
            Some((user, password.map(decoded).transpose()?.map(Zeroizing::new)))
        }
    };
    Ok((ProxyAddress { https, host, port }, user))
}

fn parse_username(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(':') || text.chars().any(char::is_control) {
        return Err("is not a user name for a proxy: it is empty, or holds a colon or control characters".into());
    }
    Ok(text.to_owned())
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// Where the password came from is noted under this name, which is no setting.
pub(super) const PASSWORD: &str = "proxy password";
const URL_FORM: Form = Form::Written {
    pattern: "^(none|([Hh][Tt][Tt][Pp][Ss]?://)?[^/?#@]+/?)$",
    words: "`http://host:port`, `https://host:port`, `none`",
    example: "http://proxy.corp.example:3128",
};
const USERNAME_FORM: Form = Form::Written { pattern: "^[^:]+$", words: "no colon", example: "svc-proxy" };
const EXCEPTION_FORM: Form = Form::Written {
    pattern: "^[^ /]+(/[0-9]+(:[0-9]+)?)?$",
    words: "names, addresses, blocks, `*`",
    example: ".corp.example",
};
const MAX_EXCEPTIONS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_names_blocks_and_ports() {
        for (text, host, port, expected) in [
            ("*", "h", 1, true),
            ("corp.example", "corp.example", 1, true),
            (".corp.example", "corp.example", 1, true),
            ("*.corp.example", "A.Corp.Example.", 1, true),
            ("corp.example", "evilcorp.example", 1, false),
            ("corp.example", "corp.example.evil", 1, false),
            ("corp.example:7443", "a.corp.example", 7443, true),
            ("corp.example:7443", "a.corp.example", 7444, false),
            ("10.0.0.0/8", "10.1.2.3", 1, true),
            ("10.0.0.0/8", "::ffff:10.1.2.3", 1, true),
            ("10.0.0.0/8", "11.0.0.1", 1, false),
            ("10.0.0.1:8", "10.0.0.1", 8, true),
            ("10.0.0.1:8", "10.0.0.1", 9, false),
            ("::1", "::1", 1, true),
            ("[::1]:8", "::1", 8, true),
            ("[::1]:8", "::1", 9, false),
            ("10.0.0.1", "x10.0.0.1", 1, false),
        ] {
            assert_eq!(Exception::parse(text).unwrap().covers(host, port), expected, "{text} {host} {port}");
        }
        for text in ["", "http://h/", "10.0.0.0/33", "a b", "h:x", "10.0.0.1/8"] {
            assert!(Exception::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_and_their_users() {
        let parsed = |text| parse_url(text).map(|(address, user)| (address.https, address.authority(), user));
        assert_eq!(parsed("http://p:3128"), Ok((false, "p:3128".into(), None)));
        assert_eq!(parsed("p:3128"), Ok((false, "p:3128".into(), None)));
        assert_eq!(parsed("https://[::1]/"), Ok((true, "[::1]:443".into(), None)));
        let user = ("a b".to_owned(), Some(Zeroizing::new("p:w@ü".to_owned())));
        assert_eq!(parsed("http://a%20b:p%3Aw%40%C3%BC@p:1"), Ok((false, "p:1".into(), Some(user))));
        for text in [
            "socks5://p:1",
            "http://",
            "http://p/x",
            "http://p?x",
            "http://u:%ff@p",
            "http://a%3Ab:c@p",
            "http://%0a@p",
        ] {
            let problem = parse_url(text).unwrap_err();
            assert!(!problem.contains("%ff"), "{problem}");
        }
    }
}
