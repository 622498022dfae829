//! Blocks of addresses, and which of them a target may be reached at.
//!
//! Pure. Addresses of IPv4 that are written as IPv6 (`::ffff:10.0.0.1`) count as what they are, so that no rule is
//! avoided by another spelling.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A block of addresses: `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no block of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// No address before the slash.
    #[error("is not an IP address or a block such as 10.0.0.0/8")]
    Address,
    /// No length behind the slash.
    #[error("has no prefix length between 0 and {most}")]
    Prefix {
        /// The longest for this kind of address.
        most: u8,
    },
    /// An address of a host within the block was written instead of the block's.
    #[error("has bits behind its prefix; did you mean {0}?")]
    HostBits(Network),
}

impl Network {
    /// Whether it holds `address`.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address.to_canonical(), self.prefix) == Some(self.address)
    }

    /// Whether the whole of `text` has the shape of an address or a block, sound or not.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.contains(['/', ':']) || text.parse::<IpAddr>().is_ok()
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let address = written.to_canonical();
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            Some(digits) if digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                let written_as_ipv6 = if written == address { 0 } else { 96 };
                digits
                    .parse::<u8>()
                    .ok()
                    .and_then(|prefix| prefix.checked_sub(written_as_ipv6))
                    .filter(|prefix| *prefix <= most)
                    .ok_or(NetworkError::Prefix { most })?
            }
            Some(_) => return Err(NetworkError::Prefix { most }),
        };
        let block = masked(address, prefix).ok_or(NetworkError::Prefix { most })?;
        let network = Self { address: block, prefix };
        if block == address { Ok(network) } else { Err(NetworkError::HostBits(network)) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The address with everything behind `prefix` cleared. Nothing: the prefix is too long.
fn masked(address: IpAddr, prefix: u8) -> Option<IpAddr> {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32_u32.checked_sub(prefix)?).unwrap_or(0);
            Some(IpAddr::V4((address.to_bits() & mask).into()))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128_u32.checked_sub(prefix)?).unwrap_or(0);
            Some(IpAddr::V6((address.to_bits() & mask).into()))
        }
    }
}

/// Which addresses a target may be reached at. The default allows every one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Networks {
    /// Only these. Nothing: all.
    pub allow: Option<Vec<Network>>,
    /// Never these, allowed or not.
    pub deny: Vec<Network>,
}

impl Networks {
    /// Whether a connection to `address` may be opened.
    #[must_use]
    pub fn permit(&self, address: IpAddr) -> bool {
        let allowed = self.allow.as_ref().is_none_or(|allow| allow.iter().any(|network| network.contains(address)));
        allowed && !self.deny.iter().any(|network| network.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn blocks_hold_their_addresses_and_no_others() {
        for (block, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::/0", "::1", "10.0.0.1"),
            ("192.168.4.0/23", "192.168.5.255", "192.168.6.0"),
            ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.1"),
        ] {
            let network = network(block);
            assert!(network.contains(inside.parse().unwrap()), "{block} {inside}");
            assert!(!network.contains(outside.parse().unwrap()), "{block} {outside}");
        }
    }

    #[test]
    fn an_address_of_ipv4_written_as_ipv6_is_the_same_address() {
        assert!(network("10.0.0.0/8").contains("::ffff:10.0.0.1".parse().unwrap()));
        assert_eq!(network("::ffff:10.0.0.1").to_string(), "10.0.0.1/32");
    }

    #[test]
    fn what_is_no_block_is_refused() {
        assert_eq!("10.0.0.1/8".parse::<Network>(), Err(NetworkError::HostBits(network("10.0.0.0/8"))));
        for text in ["", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "::/129", "::ffff:10.0.0.0/95"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        for text in ["host", "10.0.0", "1.2.3.4.5/8", "[::1]"] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError::Address), "{text}");
        }
    }

    #[test]
    fn what_is_denied_stays_denied() {
        let networks = Networks { allow: Some(vec![network("10.0.0.0/8")]), deny: vec![network("10.0.0.0/24")] };
        for (address, permitted) in
            [("10.1.0.1", true), ("10.0.0.1", false), ("::ffff:10.0.0.1", false), ("8.8.8.8", false)]
        {
            assert_eq!(networks.permit(address.parse().unwrap()), permitted, "{address}");
        }
        assert!(Networks::default().permit("8.8.8.8".parse().unwrap()));
    }
}
