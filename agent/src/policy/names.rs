//! Hosts and rules about hosts, in one form: lower case, no final dot, names of other scripts as the DNS has them,
//! addresses as addresses. Pure.

use std::net::IpAddr;

use lictor_winrm::target::{Endpoint, Network, Scheme};

use super::canonical;

/// The host of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    Name(String),
    Address(IpAddr),
}

impl Host {
    /// Nothing: the system may read the name as an address, though it is not written as one (`127.1`, `0x7f000001`).
    pub(super) fn parse(host: &str) -> Option<Self> {
        let host = host.strip_suffix('.').unwrap_or(host);
        if let Ok(address) = host.parse::<IpAddr>() {
            return Some(Self::Address(canonical(address)));
        }
        (!ends_in_a_number(host)).then(|| Self::Name(host.to_ascii_lowercase()))
    }
}

/// What a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HostRule {
    /// Every host.
    Any,
    /// This name.
    Name(String),
    /// Every name below this one, the dot in front included.
    Suffix(String),
    /// Addresses.
    Network(Network),
}

impl HostRule {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(rest) = text.strip_prefix("*.") {
            return Err(format!("is no rule about hosts; names below another are written .{rest}"));
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if Network::is_meant(bare) {
            return bare
                .parse()
                .map(Self::Network)
                .map_err(|error: lictor_winrm::target::NetworkError| error.to_string());
        }
        match text.strip_prefix('.') {
            Some(rest) => Ok(Self::Suffix(format!(".{}", name(rest)?))),
            None => Ok(Self::Name(name(text)?)),
        }
    }
}

/// A name as the endpoints of tasks have it.
fn name(text: &str) -> Result<String, String> {
    const NO_NAME: &str =
        "is not a host name, an IP address, a block such as 10.0.0.0/8 or a suffix such as .corp.example";
    // Percent signs would be decoded, which nobody who writes a rule expects.
    if text.contains(['%', '*']) {
        return Err(NO_NAME.into());
    }
    let ascii = match url::Host::parse(text) {
        Ok(url::Host::Domain(name)) => name,
        Ok(url::Host::Ipv4(address)) => return Err(format!("is another spelling of an address; write {address}")),
        Ok(url::Host::Ipv6(_)) | Err(_) => return Err(NO_NAME.into()),
    };
    let ascii = ascii.strip_suffix('.').unwrap_or(&ascii);
    match Endpoint::new(Scheme::Https, ascii, None, None) {
        Ok(endpoint) if !ends_in_a_number(ascii) => Ok(endpoint.host().to_owned()),
        // No task could ever name it.
        _ => Err(NO_NAME.into()),
    }
}

/// Whether the last label is one that the system's resolver reads as part of an address.
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    digits(last) || hexadecimal.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
