//! What proves the user: keys and their types, keytabs, caches, and the names in them.

use super::{Login, With, clean, detail};
use crate::enquire::Reply;
use crate::error::{Error, ErrorKind};

pub(super) const ENCTYPES_HELP: &str = "AES keys exist only since the account's last password change in a domain of level 2008 or later. \
                             Set msDS-SupportedEncryptionTypes of the account to 24 (AES128 and AES256)";

pub(super) fn login_enctype(login: &Login, enquiry: Option<&Reply>) -> Error {
    let Login { principal, realm, with } = login;
    let offers = enquiry.filter(|reply| !reply.keys.is_empty()).map_or_else(String::new, |reply| {
        let names: Vec<String> = reply.keys.iter().map(|key| enctype_text(key.enctype)).collect();
        format!(" The KDC offers: {}.", names.join(", "))
    });
    let keytab =
        if *with == With::Keytab { " Or the keytab lacks the type that the KDC wants: make it again." } else { "" };
    detail(
        ErrorKind::Other,
        "kerberos.enctype",
        format!("{realm} has no key of {principal} of a type that both sides use"),
        format!(
            "The account has no AES keys (RC4 only), or krb5.conf allows none of those it has. RC4 is broken and not \
             supported here.{offers}"
        ),
        format!(
            "{ENCTYPES_HELP}: Set-ADUser NAME -KerberosEncryptionType AES128,AES256, then change the password. See also \
             permitted_enctypes and default_tkt_enctypes in krb5.conf.{keytab}"
        ),
        Some("KDC has no support for encryption type while getting initial credentials".to_owned()),
    )
}

pub(super) fn no_usable_key(login: &Login, why: &str) -> Error {
    match login.with {
        With::Keytab => keytab_enctype(login),
        With::Password | With::Cache => detail(
            ErrorKind::Other,
            "kerberos.enctype",
            format!("{} has no key of {} of a type that both sides use", login.realm, login.principal),
            format!("{}. The account may be limited to RC4, which is broken and not supported here.", clean(why)),
            format!(
                "{ENCTYPES_HELP}: Set-ADUser NAME -KerberosEncryptionType AES128,AES256, then change the password. See \
                 also permitted_enctypes and default_tkt_enctypes in krb5.conf."
            ),
            Some("KDC has no support for encryption type while getting initial credentials".to_owned()),
        ),
    }
}

fn keytab_enctype(login: &Login) -> Error {
    let principal = &login.principal;
    detail(
        ErrorKind::Other,
        "kerberos.keytab_enctype",
        format!("the keytab has no key of {principal} that can be used"),
        "Its keys are of types that are not supported here (RC4, DES), or that krb5.conf does not allow.",
        "Make the keytab again with AES keys: `lictor keytab create`, or `ktpass /crypto AES256-SHA1`. `lictor keytab list` \
         shows what it holds.",
        Some(format!("Keytab contains no suitable keys for {principal} while getting initial credentials")),
    )
}

pub(crate) fn keytab_unreadable(keytab: &str, why: &str) -> Error {
    detail(
        ErrorKind::Other,
        "kerberos.keytab_unreadable",
        format!("the keytab {keytab} cannot be read"),
        clean(why),
        "Check the path, its permissions and that it is a keytab (`lictor keytab list`). In Kubernetes mount the secret as a \
         directory, and let the agent's user read it.",
        Some(format!("Key table file '{keytab}' not found while getting initial credentials")),
    )
}

pub(crate) fn keytab_principal(wanted: &str, held: &[&str]) -> Error {
    let some: Vec<String> = held.iter().take(10).map(|name| clean(name)).collect();
    let held = match (some.len(), held.len()) {
        (0, _) => "It holds no key.".to_owned(),
        (some_count, all) if some_count < all => format!("It holds {} and {} more.", some.join(", "), all - some_count),
        _ => format!("It holds {}.", some.join(", ")),
    };
    let message = if wanted.is_empty() {
        "the keytab does not say which principal to use".to_owned()
    } else {
        format!("the keytab has no key of {wanted}")
    };
    detail(
        ErrorKind::Other,
        "kerberos.keytab_principal",
        message,
        held,
        "Name one of these as the user, or make a keytab for the user with `lictor keytab create`.",
        Some(format!("Keytab contains no suitable keys for {wanted} while getting initial credentials")),
    )
}

pub(crate) fn cache_kind(name: &str) -> Error {
    detail(
        ErrorKind::Other,
        "kerberos.cache_kind",
        format!("credential caches such as {} are not supported", clean(name)),
        "Only FILE: and DIR: caches can be read.",
        "Write the tickets to a file: kinit -c FILE:/path/to/cache.",
        None,
    )
}

pub(crate) fn cache_unreadable(name: &str, missing: bool, why: &str) -> Error {
    let path = name.split_once(':').map_or(name, |(_, path)| path);
    detail(
        ErrorKind::Other,
        "kerberos.cache_unreadable",
        format!("the credential cache {} cannot be read", clean(name)),
        clean(why),
        "Fill it with `kinit -c NAME`, let this program's user read it, or give a password or keytab, so that tickets are \
         got without a cache.",
        missing.then(|| format!("No credentials cache found (filename: {path})")),
    )
}

pub(crate) fn cache_principal(name: &str, wanted: &str, held: &str) -> Error {
    detail(
        ErrorKind::Other,
        "kerberos.cache_principal",
        format!("the credential cache {} is not that of {}", clean(name), clean(wanted)),
        format!("It holds the tickets of {}.", clean(held)),
        "Name that user, or fill the cache for the wanted one with `kinit`.",
        Some(format!("Can't find client principal {wanted} in cache collection")),
    )
}

pub(crate) fn cache_no_tgt(name: &str, principal: &str, expired: bool) -> Error {
    let (code, what, legacy) = if expired {
        ("kerberos.cache_expired", "has expired", "Ticket expired")
    } else {
        ("kerberos.cache_no_tgt", "is missing", "Matching credential not found")
    };
    detail(
        ErrorKind::Other,
        code,
        format!("the ticket-granting ticket of {} in the credential cache {} {what}", clean(principal), clean(name)),
        "Tickets of a cache are used as they are; this program does not log in for it.",
        "Run `kinit` again (or have it renewed), or give a password or keytab, so that tickets are got and renewed without \
         a cache.",
        Some(legacy.to_owned()),
    )
}

pub(crate) fn realm_unknown(principal: &str) -> Error {
    detail(
        ErrorKind::Unavailable,
        "kerberos.realm_unknown",
        format!("there is no realm to log {} in to", clean(principal)),
        "The name says none that krb5.conf or DNS could know, and krb5.conf has no default_realm.",
        "Write user@REALM, give the realm, or set default_realm in krb5.conf.",
        Some(format!("Configuration file does not specify default realm when parsing name {}", clean(principal))),
    )
}

pub(crate) fn principal_invalid(principal: &str, why: &str) -> Error {
    detail(
        ErrorKind::Other,
        "kerberos.principal_invalid",
        format!("{} is no principal", clean(principal)),
        clean(why),
        "Write user@REALM, or user with a default realm. DOMAIN\\user is a name for NTLM; Kerberos needs the realm.",
        Some(format!("Malformed representation of principal when parsing name {}", clean(principal))),
    )
}

fn enctype_text(enctype: i32) -> String {
    crate::keytab::enctype_name(enctype).map_or_else(|| format!("enctype {enctype}"), str::to_owned)
}
