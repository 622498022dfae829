//! The KDCs: found, reached, in time, and at the same time of day.

use super::{Asked, Login, UNJUDGED, detail};
use crate::enquire::Reply;
use crate::error::{Error, ErrorKind};

pub(super) fn skew(login: &Login, enquiry: Option<&Reply>) -> Error {
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

pub(super) fn no_kdc(realm: &str, looked_at: &str) -> Error {
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

pub(super) fn unreachable(realm: &str, attempts: &str, asked: Asked<'_>) -> Error {
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

pub(super) fn unjudged(realm: &str, attempt: &str) -> Error {
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

pub(super) fn deadline(realm: &str) -> Error {
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

fn seconds_text(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min {} s", seconds / 60, seconds % 60),
        7200..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} days", seconds / 86_400),
    }
}
