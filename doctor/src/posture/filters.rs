//! IPv4Filter and IPv6Filter ([MS-WSMV] 2.2.4.36): which addresses listeners may use.
//!
//! [MS-WSMV]: https://learn.microsoft.com/en-us/openspecs/windows_protocols/ms-wsmv/

use std::net::{Ipv4Addr, Ipv6Addr};

/// What a filter lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Every address.
    All,
    /// Some ranges, and how many.
    Some(usize),
    /// No address.
    None,
    /// Nobody knows.
    Unreadable,
}

/// Ranges of one filter at most; Windows bounds the text long before.
const MAX_RANGES: usize = 4096;

pub(super) fn ipv4(filter: &str) -> Scope {
    let address = |text: &str| text.parse::<Ipv4Addr>().ok().map(|address| u128::from(address.to_bits()));
    scope(filter, u128::from(u32::MAX), address)
}

pub(super) fn ipv6(filter: &str) -> Scope {
    scope(filter, u128::MAX, |text: &str| text.parse::<Ipv6Addr>().ok().map(Ipv6Addr::to_bits))
}

fn scope(filter: &str, last: u128, address: impl Fn(&str) -> Option<u128>) -> Scope {
    match filter.trim() {
        "" => return Scope::None,
        "*" => return Scope::All,
        _ => {}
    }
    let mut ranges = Vec::new();
    for range in filter.split(',').map(str::trim) {
        let ends =
            range.split_once('-').and_then(|(first, last)| Some((address(first.trim())?, address(last.trim())?)));
        match ends {
            Some((first, last)) if first <= last && ranges.len() < MAX_RANGES => ranges.push((first, last)),
            _ => return Scope::Unreadable,
        }
    }
    let count = ranges.len();
    ranges.sort_unstable();
    // Up to where every address is let through.
    let mut covered: Option<u128> = None;
    for (first, end) in ranges {
        let next = covered.map_or(Some(0), |covered| covered.checked_add(1));
        if next.is_some_and(|next| first > next) {
            return Scope::Some(count);
        }
        covered = Some(covered.map_or(end, |covered| covered.max(end)));
    }
    if covered == Some(last) { Scope::All } else { Scope::Some(count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_some_none_and_nobody_knows() {
        assert_eq!((ipv4("*"), ipv6(" * ")), (Scope::All, Scope::All));
        assert_eq!((ipv4(""), ipv6("  ")), (Scope::None, Scope::None));
        assert_eq!(ipv4("192.0.2.1-192.0.2.9,198.51.100.1 - 198.51.100.1"), Scope::Some(2));
        assert_eq!(
            ipv6("3FFE:FFFF:7654:FEDA:1245:BA98:0000:0000-3FFE:FFFF:7654:FEDA:1245:BA98:3210:4562"),
            Scope::Some(1)
        );
        for odd in ["192.0.2.1", "192.0.2.9-192.0.2.1", "192.0.2.0/24", "a-b", ",", "*-*", "192.0.2.1-"] {
            assert_eq!(ipv4(odd), Scope::Unreadable, "{odd:?}");
        }
        assert_eq!(ipv4("::1-::2"), Scope::Unreadable);
    }

    #[test]
    fn ranges_that_leave_nothing_out_are_all() {
        assert_eq!(ipv4("0.0.0.0-255.255.255.255"), Scope::All);
        assert_eq!(ipv4("128.0.0.0-255.255.255.255,0.0.0.0-127.255.255.255"), Scope::All);
        assert_eq!(ipv4("0.0.0.0-127.255.255.255,128.0.0.1-255.255.255.255"), Scope::Some(2));
        assert_eq!(ipv4("0.0.0.1-255.255.255.255"), Scope::Some(1));
        assert_eq!(ipv6("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), Scope::All);
    }
}
