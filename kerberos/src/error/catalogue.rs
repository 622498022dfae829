//! The sentences: one function for each thing that goes wrong.

use super::{Detail, Error, ErrorKind};
use crate::enquire::Reply;
use crate::kdc::Failure;

/// Whose login or ticket it was, as far as the sentences need to know.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    /// The principal asked for.
    pub(crate) principal: String,
    pub(crate) realm: String,
    pub(crate) with: With,
}

/// What proved it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum With {
    Password,
    Keytab,
    Cache,
}

/// What the KDC was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asked<'a> {
    /// A ticket-granting ticket.
    Login,
    /// A ticket for a service, `HTTP/host@REALM`.
    Service(&'a str),
    /// A ticket-granting ticket for the host to act with.
    Forwarded,
}

/// Code of a login that a KDC took and did not judge.
pub(crate) const UNJUDGED: &str = "kerberos.unjudged";

// RFC 4120 7.5.9, as far as they have sentences of their own.
const NAME_EXPIRED: i32 = 1;
const CLIENT_UNKNOWN: i32 = 6;
const SERVICE_UNKNOWN: i32 = 7;
const NOT_UNIQUE: i32 = 8;
const POLICY: i32 = 12;
const BAD_OPTION: i32 = 13;
const ENCTYPE: i32 = 14;
const REVOKED: i32 = 18;
const KEY_EXPIRED: i32 = 23;
const PREAUTH_FAILED: i32 = 24;
const USER_TO_USER: i32 = 27;
const INTEGRITY: i32 = 31;
const SKEW: i32 = 37;
const WRONG_REALM: i32 = 68;

/// What a failed exchange with a KDC means.
pub(crate) fn of(failure: &Failure, login: &Login, asked: Asked<'_>, enquiry: Option<&Reply>) -> Error {
    match failure {
        Failure::NotFound { realm, looked_at } => no_kdc(realm, &clean(&looked_at.join("; "))),
        Failure::Realm(error) => principal_invalid(&login.principal, &error.to_string()),
        Failure::Unreachable { realm, attempts } => unreachable(realm, &attempts_text(attempts), asked),
        Failure::Deadline => deadline(&login.realm),
        Failure::Unjudged { realm, attempt } => unjudged(realm, &clean(&attempt.to_string())),
        Failure::Kdc(error) => of_client(error, login, asked, enquiry),
    }
}

fn of_client(error: &krb5::ClientError, login: &Login, asked: Asked<'_>, enquiry: Option<&Reply>) -> Error {
    use krb5::ClientError as E;
    match error {
        E::Kdc { code, text } => of_code(*code, text.as_deref(), login, asked, enquiry),
        E::Unreachable { realm, last } => unreachable(realm, &clean(&last.to_string()), asked),
        // Without pre-authentication the KDC never sees the key: that it is wrong shows when its answer cannot be read.
        E::Crypto(_) if matches!(asked, Asked::Login) => rejected(login, enquiry),
        E::NoKey(why) => no_usable_key(login, why),
        E::Referral(why) => cross_realm(login, asked, why),
        E::Config(why) => no_kdc(&login.realm, &clean(&why.to_string())),
        E::Protocol(why) if why.contains("skew") => skew(login, enquiry),
        other => detail(
            ErrorKind::Other,
            "kerberos.kdc_answer",
            format!("the answer of the KDC of {} cannot be used", login.realm),
            clean(&other.to_string()),
            "Ask the KDC with `kinit` from this machine. If that works, report this with the trace of the login.",
            None,
        ),
    }
}

fn of_code(code: i32, text: Option<&str>, login: &Login, asked: Asked<'_>, enquiry: Option<&Reply>) -> Error {
    match (code, asked) {
        (CLIENT_UNKNOWN, _) => principal_unknown(login),
        (PREAUTH_FAILED | INTEGRITY, Asked::Login) => rejected(login, enquiry),
        (REVOKED, _) => revoked(login, enquiry),
        (KEY_EXPIRED, _) => password_expired(login, enquiry),
        (NAME_EXPIRED, _) => account(login, &Status::EXPIRED),
        (SKEW, _) => skew(login, enquiry),
        (ENCTYPE, Asked::Login) => login_enctype(login, enquiry),
        (ENCTYPE, Asked::Service(service)) => service_enctype(service),
        (SERVICE_UNKNOWN, Asked::Service(service)) => service_unknown(service),
        (NOT_UNIQUE, Asked::Service(service)) => service_duplicate(service),
        (USER_TO_USER, Asked::Service(service)) => service_of_user(service),
        (POLICY | BAD_OPTION, Asked::Forwarded) => not_forwardable(login),
        (POLICY, _) => policy(login, asked),
        (WRONG_REALM, _) => wrong_realm(login),
        _ => detail(
            ErrorKind::Other,
            "kerberos.kdc_error",
            format!(
                "the KDC of {} refuses {}: error {code} ({})",
                login.realm,
                asked_text(login, asked),
                krb5::client::kdc_error_name(code)
            ),
            text.map_or_else(
                || "The KDC says no more than this number.".to_owned(),
                |text| format!("The KDC says: {}", clean(text)),
            ),
            "Look the number up in RFC 4120, section 7.5.9, and look into the log of the KDC.",
            None,
        ),
    }
}

fn principal_unknown(login: &Login) -> Error {
    let Login { principal, realm, .. } = login;
    detail(
        ErrorKind::Other,
        "kerberos.principal_unknown",
        format!("{realm} does not know the user {principal}"),
        "The name is misspelt, the account is in another domain, or the name is only a user principal name whose suffix \
         is not the realm. Nothing was said about the password.",
        format!(
            "Use the logon name (sAMAccountName) as user@{realm}, or give the user principal name together with the \
             realm. In Active Directory: Get-ADUser -Filter \"UserPrincipalName -eq '{principal}'\""
        ),
        Some(format!("Client '{principal}' not found in Kerberos database while getting initial credentials")),
    )
}

fn rejected(login: &Login, enquiry: Option<&Reply>) -> Error {
    let Login { principal, realm, with } = login;
    match with {
        With::Password => detail(
            ErrorKind::Rejected,
            "kerberos.password_rejected",
            format!("{realm} does not accept the password of {principal}"),
            "The password is wrong or was changed. It was tried once and is not tried again, because accounts lock out.",
            "Store the right password as a new version of the credential.",
            Some("Password incorrect while getting initial credentials".to_owned()),
        ),
        With::Keytab | With::Cache => {
            let salt = enquiry.and_then(Reply::salt_text).map_or_else(String::new, |salt| {
                format!(
                    " The KDC's salt is `{salt}`: a key made of the password with any other, be it by case, is wrong."
                )
            });
            detail(
                ErrorKind::Rejected,
                "kerberos.keytab_rejected",
                format!("{realm} accepts none of the keytab's keys of {principal}"),
                format!(
                    "The password was changed since the keytab was made, the keytab was made of a wrong password, or with \
                     a wrong salt (often the user's name in another case).{salt}"
                ),
                "Make the keytab again: `lictor keytab create` asks the KDC for the salt. A keytab that was replaced is \
                 noticed without a restart.",
                Some("Preauthentication failed while getting initial credentials".to_owned()),
            )
        }
    }
}

/// What Active Directory says beside "revoked": [MS-ERREF] 2.3.1.
struct Status {
    code: &'static str,
    what: &'static str,
    remedy: &'static str,
}

impl Status {
    const EXPIRED: Self = Self {
        code: "kerberos.account_expired",
        what: "has expired",
        remedy: "Extend the account: Set-ADAccountExpiration, or Clear-ADAccountExpiration.",
    };
    const UNKNOWN: Self = Self {
        code: "kerberos.account_revoked",
        what: "is locked, disabled, expired, or outside its logon hours",
        remedy: "Look at the account: Get-ADUser NAME -Properties LockedOut,Enabled,AccountExpirationDate,LogonHours. Then \
                 Unlock-ADAccount or Enable-ADAccount. What locks an account is most often an old password kept somewhere.",
    };

    fn of(status: u32) -> Option<Self> {
        let (code, what, remedy) = match status {
            0xC000_0234 => (
                "kerberos.account_locked",
                "is locked out",
                "Find what tries a wrong password (event 4740 on the domain controller), then Unlock-ADAccount.",
            ),
            0xC000_0072 => ("kerberos.account_disabled", "is disabled", "Enable the account: Enable-ADAccount."),
            0xC000_0193 => return Some(Self::EXPIRED),
            0xC000_006F => {
                ("kerberos.logon_hours", "may not log on at this hour", "Change the account's logon hours, or wait.")
            }
            0xC000_0070 => (
                "kerberos.workstation",
                "may not log on from this machine",
                "Remove the account's list of workstations (Log On To), or add this machine.",
            ),
            0xC000_0413 => (
                "kerberos.authentication_policy",
                "is kept from logging on by an authentication policy or selective authentication",
                "Grant `Allowed to Authenticate`, or change the policy.",
            ),
            _ => return None,
        };
        Some(Self { code, what, remedy })
    }
}

fn revoked(login: &Login, enquiry: Option<&Reply>) -> Error {
    account(login, &enquiry.and_then(|reply| Status::of(reply.status?)).unwrap_or(Status::UNKNOWN))
}

fn account(login: &Login, status: &Status) -> Error {
    let Login { principal, realm, .. } = login;
    detail(
        ErrorKind::Rejected,
        status.code,
        format!("{realm} lets {principal} get no ticket: the account {}", status.what),
        "That is what the KDC says of the account; the password or key need not be wrong.",
        status.remedy,
        Some(if status.code == Status::EXPIRED.code {
            "Client's entry in database has expired while getting initial credentials".to_owned()
        } else {
            "Client's credentials have been revoked while getting initial credentials".to_owned()
        }),
    )
}

fn password_expired(login: &Login, enquiry: Option<&Reply>) -> Error {
    let Login { principal, realm, .. } = login;
    // Active Directory says which of the two; MIT's KDC does not.
    let (code, what) = match enquiry.and_then(|reply| reply.status) {
        Some(0xC000_0224) => ("kerberos.password_must_change", "must be changed before the first logon"),
        _ => ("kerberos.password_expired", "has expired or must be changed"),
    };
    detail(
        ErrorKind::Rejected,
        code,
        format!("{realm} gives {principal} no ticket: the password {what}"),
        "The password reached its age limit, or `must change password at next logon` is set.",
        "Change the password and store the new one (or make the keytab again). For service accounts clear the flag: \
         Set-ADUser NAME -ChangePasswordAtLogon $false.",
        Some("Password has expired while getting initial credentials".to_owned()),
    )
}

fn skew(login: &Login, enquiry: Option<&Reply>) -> Error {
    let realm = &login.realm;
    let measured = enquiry.and_then(|reply| reply.ahead).map_or_else(
        || "How far could not be measured.".to_owned(),
        |ahead| {
            let direction = if ahead > 0 { "behind" } else { "ahead of" };
            format!("This machine's clock is {} {direction} the KDC's.", seconds_text(ahead.unsigned_abs()))
        },
    );
    detail(
        ErrorKind::Other,
        "kerberos.clock_skew",
        format!("the clocks of this machine and of the KDC of {realm} differ too much"),
        format!("{measured} Kerberos allows 5 minutes."),
        "Synchronise the clock of the machine that this runs on (for a container: of its node), or that of the domain \
         controller. Both should follow the same time source.",
        Some("Clock skew too great while getting initial credentials".to_owned()),
    )
}

fn no_kdc(realm: &str, looked_at: &str) -> Error {
    let example = krb5_conf_example(realm);
    detail(
        ErrorKind::Unavailable,
        "kerberos.no_kdc",
        format!("there is no KDC to be found for the realm {realm}"),
        format!("Looked at: {looked_at}. Realms are written in upper case, and the names must be the same everywhere."),
        format!(
            "Name the KDCs in krb5.conf ({example}), or have DNS answer for _kerberos._udp.{}.",
            realm.to_lowercase()
        ),
        Some(format!("Cannot find KDC for realm \"{realm}\" while getting initial credentials")),
    )
}

fn krb5_conf_example(realm: &str) -> String {
    format!("[realms] {realm} = {{ kdc = dc1.{} }}", realm.to_lowercase())
}

fn unreachable(realm: &str, attempts: &str, asked: Asked<'_>) -> Error {
    let suffix = if matches!(asked, Asked::Login) { " while getting initial credentials" } else { "" };
    detail(
        ErrorKind::Unavailable,
        "kerberos.kdc_unreachable",
        format!("no KDC of {realm} answers"),
        format!("Tried: {attempts}"),
        "Let this machine reach TCP and UDP port 88 of the domain controllers (network policy, firewall, security group), \
         and check their names and addresses in krb5.conf or DNS.",
        Some(format!("Cannot contact any KDC for realm '{realm}'{suffix}")),
    )
}

fn unjudged(realm: &str, attempt: &str) -> Error {
    detail(
        // Not one for which another mechanism may send the password once more.
        ErrorKind::Other,
        UNJUDGED,
        format!("the KDC of {realm} took the login and did not answer"),
        format!(
            "It answered another question before. {attempt}. It may be waiting for another domain controller to judge the password."
        ),
        "Try again in a minute, but not often: the attempt may have counted, and accounts lock out. Look at the log of the domain \
         controller.",
        Some(format!("Cannot contact any KDC for realm '{realm}' while getting initial credentials")),
    )
}

fn deadline(realm: &str) -> Error {
    detail(
        ErrorKind::Unavailable,
        "kerberos.deadline",
        format!("the KDC of {realm} did not answer in time"),
        "The KDCs are slow or do not answer, or many logins wait for them.",
        "Check that port 88 of the domain controllers is reachable (TCP and UDP), and allow more time.",
        Some(format!("Cannot contact any KDC for realm '{realm}' while getting initial credentials")),
    )
}

/// The manager ended while somebody waited.
pub(crate) fn stopped() -> Error {
    detail(
        ErrorKind::Other,
        "kerberos.stopped",
        "the request for a ticket was given up",
        "The program is ending.",
        "Run it again.",
        None,
    )
}

/// A waiter's own time is over; the login may still succeed for others.
pub(crate) fn waited_too_long() -> Error {
    detail(
        ErrorKind::Unavailable,
        "kerberos.deadline",
        "no ticket came in time",
        "The KDCs are slow or do not answer, or many logins wait for them.",
        "Check that port 88 of the domain controllers is reachable (TCP and UDP), and allow more time.",
        None,
    )
}

fn service_unknown(service: &str) -> Error {
    let (name, realm) = service.rsplit_once('@').unwrap_or((service, ""));
    let (class, host) = name.split_once('/').unwrap_or((name, ""));
    let account = host.split('.').next().unwrap_or(host);
    let r#where = if realm.is_empty() { "the KDC".to_owned() } else { realm.to_owned() };
    detail(
        ErrorKind::ServiceUnknown,
        "kerberos.service_unknown",
        format!("{} knows no service {name}", r#where),
        "The host's name is not the one that it has in the domain (an alias, a short name, another domain), or its service \
         principal name is not registered.",
        format!(
            "Use the host's full name as the domain knows it. Look what it has: setspn -L {account}. A computer's HOST \
             name covers HTTP and WSMAN; else register: setspn -S {class}/{host} {account}. A host of another domain \
             needs [domain_realm] in krb5.conf or a trust with referrals."
        ),
        Some("Server not found in Kerberos database".to_owned()),
    )
}

fn service_duplicate(service: &str) -> Error {
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

fn service_of_user(service: &str) -> Error {
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

const ENCTYPES_HELP: &str = "AES keys exist only since the account's last password change in a domain of level 2008 or later. \
                             Set msDS-SupportedEncryptionTypes of the account to 24 (AES128 and AES256)";

fn service_enctype(service: &str) -> Error {
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

fn login_enctype(login: &Login, enquiry: Option<&Reply>) -> Error {
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

fn no_usable_key(login: &Login, why: &str) -> Error {
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

pub(crate) fn keytab_enctype(login: &Login) -> Error {
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

fn not_forwardable(login: &Login) -> Error {
    let Login { principal, realm, with } = login;
    let remedy = if *with == With::Cache {
        "Fill the cache with `kinit -f`, or set forwardable = true in krb5.conf before kinit. An account that is `sensitive \
         and cannot be delegated` or in Protected Users can never delegate."
    } else {
        "In Active Directory clear `Account is sensitive and cannot be delegated`, and take the account out of Protected \
         Users; or do without delegation."
    };
    detail(
        ErrorKind::Other,
        "kerberos.not_forwardable",
        format!("{realm} lets the ticket of {principal} not be delegated"),
        "Delegation needs a forwardable ticket-granting ticket, and this account's is not.",
        remedy,
        Some("KDC can't fulfill requested option".to_owned()),
    )
}

/// The ticket-granting ticket itself says that it cannot be forwarded.
pub(crate) fn ticket_not_forwardable(login: &Login) -> Error {
    not_forwardable(login)
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

fn policy(login: &Login, asked: Asked<'_>) -> Error {
    detail(
        ErrorKind::Other,
        "kerberos.policy",
        format!("a policy of {} does not allow {}", login.realm, asked_text(login, asked)),
        "The account or the service is kept from it: logon restrictions, an authentication policy silo, or a flag of the \
         account.",
        "Look into the log of the KDC (Windows: Security, events 4768 and 4769), and change the policy or the account.",
        Some("KDC policy rejects request".to_owned()),
    )
}

fn wrong_realm(login: &Login) -> Error {
    detail(
        ErrorKind::Other,
        "kerberos.wrong_realm",
        format!("{} does not live in {}", login.principal, login.realm),
        "The KDC refers the user to another realm.",
        "Write user@REALM with the realm (domain) that the account is in, and name its KDCs in krb5.conf or DNS.",
        Some("Realm not local to KDC while getting initial credentials".to_owned()),
    )
}

fn cross_realm(login: &Login, asked: Asked<'_>, why: &str) -> Error {
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

fn asked_text(login: &Login, asked: Asked<'_>) -> String {
    match asked {
        Asked::Login => format!("the login of {}", login.principal),
        Asked::Service(service) => format!("a ticket for {service}"),
        Asked::Forwarded => format!("the delegation of {}", login.principal),
    }
}

fn attempts_text(attempts: &[crate::kdc::Attempt]) -> String {
    let texts: Vec<String> = attempts.iter().take(12).map(|attempt| clean(&attempt.to_string())).collect();
    if texts.is_empty() { "nothing".to_owned() } else { texts.join("; ") }
}

fn enctype_text(enctype: i32) -> String {
    crate::keytab::enctype_name(enctype).map_or_else(|| format!("enctype {enctype}"), str::to_owned)
}

fn seconds_text(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min {} s", seconds / 60, seconds % 60),
        7200..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A text from outside: bounded, on one line.
pub(crate) fn clean(text: &str) -> String {
    const MOST: usize = 300;
    let mut clean: String = text.chars().take(MOST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MOST).is_some() {
        clean.push('…');
    }
    clean
}

fn detail(
    kind: ErrorKind,
    code: &'static str,
    message: impl Into<String>,
    cause: impl Into<String>,
    remedy: impl Into<String>,
    legacy: Option<String>,
) -> Error {
    let (message, cause, remedy) = (message.into(), cause.into(), remedy.into());
    Error::new(Detail { kind, code, message, cause, remedy, legacy, ticket: false })
}
