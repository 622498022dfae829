//! The host's service: its name, the account that holds it, and the way to its realm.

use super::keys::ENCTYPES_HELP;
use super::{Asked, Login, asked_text, clean, detail};
use crate::error::{Error, ErrorKind};

pub(super) fn service_unknown(login: &Login, service: &str) -> Error {
    let (name, realm) = service.rsplit_once('@').unwrap_or((service, ""));
    let (class, host) = name.split_once('/').unwrap_or((name, ""));
    let account = host.split('.').next().unwrap_or(host);
    let r#where = if realm.is_empty() { "the KDC".to_owned() } else { realm.to_owned() };
    // The KDC of the user's realm answers the same when it knows no way to the other realm.
    let trust = if realm.is_empty() || realm == login.realm {
        String::new()
    } else {
        format!(" Or no path of trust leads from {} to {realm}, which is where the host is looked for.", login.realm)
    };
    detail(
        ErrorKind::ServiceUnknown,
        "kerberos.service_unknown",
        format!("{} knows no service {name}", r#where),
        format!(
            "The host's name is not the one that it has in the domain (an alias, a short name, another domain), or its service \
             principal name is not registered.{trust}"
        ),
        format!(
            "Use the host's full name as the domain knows it. Look what it has: setspn -L {account}. A computer's HOST \
             name covers HTTP and WSMAN; else register: setspn -S {class}/{host} {account}. A host of another domain \
             needs [domain_realm] in krb5.conf or a trust with referrals."
        ),
        Some("Server not found in Kerberos database".to_owned()),
    )
}

pub(super) fn service_duplicate(service: &str) -> Error {
    let name = service.split('@').next().unwrap_or(service);
    detail(
        ErrorKind::Other,
        "kerberos.service_duplicate",
        format!("the service {name} is registered for several accounts"),
        "With two accounts of one service principal name the KDC cannot choose a key.",
        format!("Find them with `setspn -Q {name}` (all: `setspn -X`) and remove the wrong one with `setspn -D`."),
        Some("Principal not unique".to_owned()),
    )
}

pub(super) fn service_of_user(service: &str) -> Error {
    let name = service.split('@').next().unwrap_or(service);
    detail(
        ErrorKind::Other,
        "kerberos.service_of_user",
        format!("the service {name} belongs to an account that is no service"),
        "The service principal name stands on an account that may only be talked to as a user.",
        format!("Find it with `setspn -Q {name}` and register the name for the host's computer account instead."),
        None,
    )
}

pub(super) fn service_enctype(service: &str) -> Error {
    let name = service.split('@').next().unwrap_or(service);
    detail(
        ErrorKind::Other,
        "kerberos.service_enctype",
        format!("the KDC has no AES key for the service {name}"),
        "The account is limited to RC4 or DES, or has no AES keys yet. RC4 is broken and not supported here.",
        format!(
            "{ENCTYPES_HELP}: Set-ADComputer NAME -KerberosEncryptionType AES128,AES256 (or Set-ADUser), then have the \
             password changed (a computer: Reset-ComputerMachinePassword)."
        ),
        Some("KDC has no support for encryption type".to_owned()),
    )
}

pub(crate) fn ip_address(host: &str) -> Error {
    detail(
        ErrorKind::Unavailable,
        "kerberos.ip_address",
        format!("Kerberos cannot be used with the address {}", clean(host)),
        "Tickets are made for a host's name; there is none for an address.",
        "Use the host's full name (FQDN) as the domain knows it, or say the name with --spn-host.",
        Some("Server not found in Kerberos database".to_owned()),
    )
}

pub(crate) fn service_invalid(name: &str) -> Error {
    detail(
        ErrorKind::Other,
        "kerberos.service_invalid",
        format!("{} is no name of a service", clean(name)),
        "A service is a class and a host's name, without blanks and slashes.",
        "Check the host's name and the overrides of the service principal name.",
        None,
    )
}

pub(crate) fn delegation_not_trusted(service: &str) -> Error {
    let name = service.split('@').next().unwrap_or(service);
    detail(
        ErrorKind::Other,
        "kerberos.delegation_not_trusted",
        format!("the domain does not trust {name} with delegated tickets"),
        "The ticket for the host is not marked ok-as-delegate, and krb5.conf has enforce_ok_as_delegate = true.",
        "Trust the computer for delegation (Set-ADComputer NAME -TrustedForDelegation $true; MIT: modprinc \
         +ok_as_delegate), or do without delegation.",
        None,
    )
}

pub(super) fn cross_realm(login: &Login, asked: Asked<'_>, why: &str) -> Error {
    detail(
        ErrorKind::Other,
        "kerberos.cross_realm",
        format!("no path of trust leads from {} to {}", login.realm, asked_text(login, asked)),
        clean(why),
        "Say the host's realm in [domain_realm] of krb5.conf, and check that the realms trust each other ([capaths] for \
         trusts that are no hierarchy).",
        None,
    )
}
