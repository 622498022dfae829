//! The sentences: one function for each thing that goes wrong, in files by what they are about. Here is decided which of them an
//! answer of a KDC stands for.

mod account;
pub(super) mod examples;
mod kdc;
mod keys;
mod service;

pub(crate) use self::account::ticket_not_forwardable;
pub(crate) use self::kdc::{stopped, waited_too_long};
pub(crate) use self::keys::{
    cache_kind, cache_no_tgt, cache_principal, cache_unreadable, keytab_principal, keytab_unreadable,
    principal_invalid, realm_unknown,
};
pub(crate) use self::service::{delegation_not_trusted, ip_address, service_invalid};

use self::account::{
    Status, account, not_forwardable, password_expired, policy, principal_unknown, rejected, revoked, wrong_realm,
};
use self::kdc::{deadline, no_kdc, skew, unjudged, unreachable};
use self::keys::{login_enctype, no_usable_key};
use self::service::{cross_realm, service_duplicate, service_enctype, service_of_user, service_unknown};
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
        (SERVICE_UNKNOWN, Asked::Service(service)) => service_unknown(login, service),
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
