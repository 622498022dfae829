//! What is looked at, in the order in which it is: each thing stands on those before it.

use std::fmt;

/// Something that is looked at. Names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Check {
    /// `krb5.conf` is there and can be read, and what in it is doubtful.
    Krb5Conf,
    /// The realm of the user: written as it should be, known here.
    Realm,
    /// Where the KDCs of the realm are.
    KdcNames,
    /// The KDCs answer over UDP.
    KdcUdp,
    /// The KDCs answer over TCP.
    KdcTcp,
    /// This machine's clock beside that of the KDC, by the KDC's own answer.
    Clock,
    /// The user is known to the realm.
    Principal,
    /// The password or key is taken: a ticket-granting ticket.
    Login,
    /// The host's name: a full one, no address.
    HostName,
    /// The addresses of the name.
    Resolve,
    /// The name of the address, beside `rdns` of `krb5.conf`.
    Reverse,
    /// The KDC gives a ticket for the service principal name of the host.
    Service,
    /// The port takes connections.
    Connect,
    /// Versions of TLS.
    Tls,
    /// The certificate.
    Certificate,
    /// HTTP.sys answers there: 404 to a bare GET.
    Http,
    /// WS-Management answers Identify.
    Identify,
    /// Kinds of authentication that the host offers.
    Offered,
    /// The host takes the user.
    Authenticate,
    /// The user may open a shell.
    OpenShell,
    /// A command runs.
    Run,
    /// Nothing of the user's profile gets into the output of scripts.
    Profile,
    /// The shell was deleted.
    Close,
}

impl Check {
    /// All of them, in order.
    pub const ALL: [Self; 23] = [
        Self::Krb5Conf,
        Self::Realm,
        Self::KdcNames,
        Self::KdcUdp,
        Self::KdcTcp,
        Self::Clock,
        Self::Principal,
        Self::Login,
        Self::HostName,
        Self::Resolve,
        Self::Reverse,
        Self::Service,
        Self::Connect,
        Self::Tls,
        Self::Certificate,
        Self::Http,
        Self::Identify,
        Self::Offered,
        Self::Authenticate,
        Self::OpenShell,
        Self::Run,
        Self::Profile,
        Self::Close,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Krb5Conf => "krb5_conf",
            Self::Realm => "realm",
            Self::KdcNames => "kdc_names",
            Self::KdcUdp => "kdc_udp",
            Self::KdcTcp => "kdc_tcp",
            Self::Clock => "clock",
            Self::Principal => "principal",
            Self::Login => "login",
            Self::HostName => "host_name",
            Self::Resolve => "resolve",
            Self::Reverse => "reverse",
            Self::Service => "service",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Certificate => "certificate",
            Self::Http => "http",
            Self::Identify => "identify",
            Self::Offered => "offered",
            Self::Authenticate => "authenticate",
            Self::OpenShell => "open_shell",
            Self::Run => "run",
            Self::Profile => "profile",
            Self::Close => "close",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_check_in_order() {
        let page = include_str!("../../docs/doctor.md");
        let table = page.split("## Steps").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or_default();
        let first_cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" |"));
        let named: Vec<&str> = first_cells
            .flat_map(|(cell, _)| cell.split([' ', '`']).filter(|word| !word.is_empty()).collect::<Vec<_>>())
            .collect();
        assert_eq!(named, Check::ALL.map(Check::as_str));
        assert!(Check::ALL.is_sorted());
    }
}
