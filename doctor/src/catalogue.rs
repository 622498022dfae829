//! Every code that the examination gives besides those of `lictor-winrm` and `lictor-kerberos`: what it means and what to do.
//!
//! One table, so that documents can be made of it and no code means two things. What was seen in one case is said by the
//! finding's message, and after the cause. Texts here are for everybody: they never name a host, user or secret.

pub(crate) mod host;

use std::sync::LazyLock;

use crate::check::Check;
use crate::finding::{Finding, Suspect};

/// What a code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The stable code.
    pub code: &'static str,
    /// The check that gives it, by its name.
    pub stage: &'static str,
    /// The likely cause in one sentence or two.
    pub cause: &'static str,
    /// What to do.
    pub remedy: &'static str,
    /// The text that users of older tools know.
    pub legacy: Option<&'static str>,
}

/// All of them, by what is looked at.
#[must_use]
pub fn catalogue() -> &'static [Entry] {
    static ALL: LazyLock<Vec<Entry>> = LazyLock::new(|| [CATALOGUE, host::ALL].concat());
    &ALL
}

impl Entry {
    /// A finding: `message` says what happened here; `seen`, when it is not empty, what speaks for the cause.
    pub(crate) fn found(&self, message: impl Into<String>, seen: &str) -> Finding {
        let cause = if seen.is_empty() { self.cause.to_owned() } else { format!("{} {seen}", self.cause) };
        Finding {
            code: self.code.into(),
            message: message.into(),
            cause,
            remedy: self.remedy.to_owned(),
            legacy_text: self.legacy.map(str::to_owned),
            suspects: Vec::new(),
        }
    }

    /// The same as something that it may be.
    pub(crate) fn suspected(&self) -> Suspect {
        self.suspected_by("")
    }

    /// The same; `seen`, when it is not empty, is what speaks for it.
    pub(crate) fn suspected_by(&self, seen: &str) -> Suspect {
        let cause = if seen.is_empty() { self.cause.to_owned() } else { format!("{} {seen}", self.cause) };
        Suspect { code: self.code, cause, remedy: self.remedy.to_owned() }
    }
}

pub(crate) const KRB5_CONF_UNUSABLE: Entry = Entry {
    code: "kerberos.configuration",
    stage: Check::Krb5Conf.as_str(),
    cause: "The Kerberos settings have mistakes, or a file that they name cannot be read.",
    remedy: "Correct what is named, with its file and line; docs/krb5-conf.md says what counts. In Kubernetes, mount the \
             whole ConfigMap as a directory and point KRB5_CONFIG to the file in it.",
    legacy: Some("Improper format of Kerberos configuration file"),
};

pub(crate) const KRB5_CONF_MISSING: Entry = Entry {
    code: "kerberos.krb5_conf_missing",
    stage: Check::Krb5Conf.as_str(),
    cause: "There is no krb5.conf at the place where it is looked for (KRB5_CONFIG, else /etc/krb5.conf). Then the \
            realm must be written with the user, and only DNS can say where its KDCs are.",
    remedy: "Mount or write a krb5.conf, set KRB5_CONFIG to where it is, or declare the realms in the settings of the agent.",
    legacy: Some("Can't open/find Kerberos configuration file"),
};

pub(crate) const KRB5_CONF_DOUBTFUL: Entry = Entry {
    code: "kerberos.krb5_conf_doubtful",
    stage: Check::Krb5Conf.as_str(),
    cause: "Something in krb5.conf probably means something else than its author thinks, or has no effect.",
    remedy: "Look at each place that is named; docs/krb5-conf.md says what counts here and what MIT's tools make of it.",
    legacy: None,
};

pub(crate) const KRB5_CONF_ENCTYPES: Entry = Entry {
    code: "kerberos.krb5_conf_enctypes",
    stage: Check::Krb5Conf.as_str(),
    cause: "krb5.conf allows none of the encryption types that Active Directory has AES keys of \
            (aes256-cts-hmac-sha1-96, aes128-cts-hmac-sha1-96).",
    remedy: "Remove permitted_enctypes, default_tkt_enctypes and default_tgs_enctypes from [libdefaults], or add these two.",
    legacy: Some("KDC has no support for encryption type"),
};

pub(crate) const DEFAULT_REALM_MISSING: Entry = Entry {
    code: "kerberos.default_realm_missing",
    stage: Check::Realm.as_str(),
    cause: "krb5.conf has no default_realm, and no user names a realm that could be looked at.",
    remedy: "Set default_realm in [libdefaults], or always write user@REALM.",
    legacy: Some("Configuration file does not specify default realm"),
};

pub(crate) const REALM_CASE: Entry = Entry {
    code: "kerberos.realm_case",
    stage: Check::Realm.as_str(),
    cause: "Realms are case-sensitive, and those of Active Directory are upper case. MIT's tools and Ansible take the \
            name to the letter and find no KDC for it; here it is taken for a realm that is known, if there is one.",
    remedy: "Write the realm in upper case: in the user's name, in default_realm, in [realms] and on the right side of \
             [domain_realm].",
    legacy: Some("Cannot find KDC for realm"),
};

pub(crate) const REALM_UNDEFINED: Entry = Entry {
    code: "kerberos.realm_undefined",
    stage: Check::Realm.as_str(),
    cause: "krb5.conf lists no KDC of this realm, and dns_lookup_kdc does not let DNS be asked. The realm is misspelt, or \
            its section is missing.",
    remedy: "Add the realm with its KDCs to [realms], or set dns_lookup_kdc = true where DNS has the records of the domain.",
    legacy: Some("Cannot find KDC for realm"),
};

pub(crate) const KDC_UNRESOLVED: Entry = Entry {
    code: "dns.kdc_unresolved",
    stage: Check::KdcNames.as_str(),
    cause: "The name of a KDC has no address here: it is misspelt in krb5.conf, or this machine asks name servers that do \
            not know the domain.",
    remedy: "Correct the name, or let this machine ask the domain's name servers (in Kubernetes: dnsConfig or hostAliases; \
             as a makeshift, /etc/hosts).",
    legacy: Some("Cannot resolve network address for KDC in requested realm"),
};

pub(crate) const UDP_BLOCKED: Entry = Entry {
    code: "kerberos.udp_blocked",
    stage: Check::KdcUdp.as_str(),
    cause: "The KDC answers over TCP and not over UDP: a firewall lets only TCP through. It works, but every first question \
            waits for an answer that never comes.",
    remedy: "Open UDP port 88 to the domain controllers, or spare the wait: udp_preference_limit = 1 in [libdefaults] for \
             MIT's tools, kdc = tcp/NAME for this program.",
    legacy: None,
};

pub(crate) const TCP_BLOCKED: Entry = Entry {
    code: "kerberos.tcp_blocked",
    stage: Check::KdcTcp.as_str(),
    cause: "The KDC answers over UDP and not over TCP: a firewall lets only UDP through. Small tickets work; those of users \
            in many groups do not fit into a datagram and fail.",
    remedy: "Open TCP port 88 to the domain controllers.",
    legacy: Some("Cannot contact any KDC for realm"),
};

pub(crate) const KDC_DEAD: Entry = Entry {
    code: "kerberos.kdc_dead",
    stage: Check::KdcTcp.as_str(),
    cause: "One KDC of several answers neither over UDP nor over TCP: it is switched off, renamed, or behind a firewall. \
            Others answer, so logins work, more slowly whenever it is asked first.",
    remedy: "Take it out of krb5.conf, or let this machine reach its port 88. With KDCs from DNS: the records of a domain \
             controller that is gone were not removed, or its site is not reachable from here.",
    legacy: None,
};

pub(crate) const NOT_A_KDC: Entry = Entry {
    code: "kerberos.not_a_kdc",
    stage: Check::KdcTcp.as_str(),
    cause: "What listens there speaks something else than Kerberos: another service has the port, or a proxy stands between.",
    remedy: "Check the KDC's name and port in krb5.conf.",
    legacy: None,
};

pub(crate) const CLOCK_DRIFT: Entry = Entry {
    code: "kerberos.clock_drift",
    stage: Check::Clock.as_str(),
    cause: "This machine's clock and the KDC's go apart. Kerberos refuses more than five minutes, and hosts compare their own \
            clocks with ours as well.",
    remedy: "Synchronise the clock of the machine that this runs on (for a container: of its node) with the time source of \
             the domain controllers before it gets worse.",
    legacy: None,
};

pub(crate) const CLOCKS_DISAGREE: Entry = Entry {
    code: "kerberos.clocks_disagree",
    stage: Check::Clock.as_str(),
    cause: "The KDCs of the realm tell different times. Whether a login works depends on which of them is asked.",
    remedy: "Synchronise the domain controllers: w32tm /monitor shows their offsets.",
    legacy: None,
};

pub(crate) const OTHER_REALM: Entry = Entry {
    code: "kerberos.kdc_of_other_realm",
    stage: Check::Principal.as_str(),
    cause: "The KDC has no keys for a realm of this name: it serves another one. krb5.conf names the wrong KDC, or the \
            realm is misspelt.",
    remedy: "Compare the realm with the domain's DNS name in upper case, and the KDCs in [realms] with the domain's \
             controllers.",
    legacy: Some("Server not found in Kerberos database while getting initial credentials"),
};

pub(crate) const NO_PREAUTHENTICATION: Entry = Entry {
    code: "kerberos.no_preauthentication",
    stage: Check::Principal.as_str(),
    cause: "The KDC gives a ticket of this user to anybody who asks; who has it can guess the password without being noticed.",
    remedy: "Clear `Do not require Kerberos preauthentication` of the account (MIT: modprinc +requires_preauth), and change \
             the password.",
    legacy: None,
};

pub(crate) const RC4_ONLY: Entry = Entry {
    code: "kerberos.rc4_only",
    stage: Check::Principal.as_str(),
    cause: "The KDC has only RC4 (or DES) keys of this user, which are broken and not supported here: the account is limited \
            to them, or its password is older than the domain's AES keys.",
    remedy: "Set msDS-SupportedEncryptionTypes of the account to 24 (Set-ADUser NAME -KerberosEncryptionType AES128,AES256), \
             then change the password.",
    legacy: Some("KDC has no support for encryption type while getting initial credentials"),
};

pub(crate) const TICKET_SHORT: Entry = Entry {
    code: "kerberos.ticket_short",
    stage: Check::Login.as_str(),
    cause: "The ticket-granting ticket ends soon. One from a credential cache is used as it is; this program does not log in \
            for it.",
    remedy: "Renew the cache (kinit -R, or kinit again) and have that done regularly, or give a password or keytab. When a \
             login gives so short a ticket: look at ticket_lifetime and at the KDC's policy.",
    legacy: None,
};

pub(crate) const TICKET_RC4: Entry = Entry {
    code: "kerberos.ticket_rc4",
    stage: Check::Service.as_str(),
    cause: "The KDC encrypts the ticket with RC4, because the service's account says nothing of AES. It works as long as the \
            domain lets RC4 be used, which Windows is giving up.",
    remedy: "Set msDS-SupportedEncryptionTypes of the account to 24 (Set-ADComputer NAME -KerberosEncryptionType \
             AES128,AES256) and have its password changed.",
    legacy: None,
};

pub(crate) const HOST_REALM: Entry = Entry {
    code: "kerberos.host_realm",
    stage: Check::Service.as_str(),
    cause: "[domain_realm] of krb5.conf maps the host to a realm that does not know it, while the user's own realm does.",
    remedy: "Correct the mapping, or remove it: without one the user's KDC says where the host lives.",
    legacy: Some("Server not found in Kerberos database"),
};

pub(crate) const HOST_IS_ADDRESS: Entry = Entry {
    code: "kerberos.host_is_address",
    stage: Check::HostName.as_str(),
    cause: "Domains register services under host names; there is no ticket for an address.",
    remedy: "Address the host by its fully qualified domain name (FQDN), or give the name to ask for (--spn-host).",
    legacy: Some("Server not found in Kerberos database"),
};

pub(crate) const SHORT_NAME: Entry = Entry {
    code: "dns.short_name",
    stage: Check::HostName.as_str(),
    cause: "The host is addressed by a name without its domain. Such names lead elsewhere when search domains change, match \
            nothing in [domain_realm], and are not in certificates.",
    remedy: "Address the host by its fully qualified domain name (FQDN).",
    legacy: None,
};

pub(crate) const ALIAS: Entry = Entry {
    code: "dns.alias",
    stage: Check::Resolve.as_str(),
    cause: "DNS has this name as an alias of another one. The ticket is asked for under the name as it is written, for which \
            the domain may know no service; MIT's tools and Ansible ask under the other one unless \
            dns_canonicalize_hostname = false.",
    remedy: "Address the host by its own name, register the alias (setspn -S HTTP/ALIAS COMPUTER), or say the name to ask \
             for (--spn-host).",
    legacy: Some("Server not found in Kerberos database"),
};

pub(crate) const REVERSE_MISMATCH: Entry = Entry {
    code: "dns.reverse_mismatch",
    stage: Check::Reverse.as_str(),
    cause: "The address of the host leads back to another name. This program does not look at that. MIT's tools and Ansible \
            do with rdns = true, which is their default: they ask for a ticket under that other name.",
    remedy: "Set rdns = false in [libdefaults] of krb5.conf, or correct the PTR record.",
    legacy: Some("Server not found in Kerberos database"),
};

const CATALOGUE: &[Entry] = &[
    KRB5_CONF_UNUSABLE,
    KRB5_CONF_MISSING,
    KRB5_CONF_DOUBTFUL,
    KRB5_CONF_ENCTYPES,
    DEFAULT_REALM_MISSING,
    REALM_CASE,
    REALM_UNDEFINED,
    KDC_UNRESOLVED,
    UDP_BLOCKED,
    TCP_BLOCKED,
    KDC_DEAD,
    NOT_A_KDC,
    CLOCK_DRIFT,
    CLOCKS_DISAGREE,
    OTHER_REALM,
    NO_PREAUTHENTICATION,
    RC4_ONLY,
    TICKET_SHORT,
    TICKET_RC4,
    HOST_REALM,
    HOST_IS_ADDRESS,
    SHORT_NAME,
    ALIAS,
    REVERSE_MISMATCH,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_stands_once_and_says_what_to_do() {
        for (at, entry) in catalogue().iter().enumerate() {
            assert!(catalogue()[..at].iter().all(|other| other.code != entry.code), "{}", entry.code);
            assert!(entry.code.contains('.') && entry.cause.ends_with('.') && entry.remedy.ends_with('.'), "{entry:?}");
        }
    }
}
