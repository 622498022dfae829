//! The login: once, by the manager that the connection's tickets come from as well, and what ticket came of it.

use std::time::{SystemTime, UNIX_EPOCH};

use krb5::Credentials;
use lictor_kerberos::keytab::{Keytab, enctype_name};
use lictor_kerberos::trace::Trace;
use lictor_kerberos::{CredentialSource, Error, ErrorKind, Identity, Kerberos, Request};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::{Duration, Instant, timeout_at};

use super::{FILES, Login};
use crate::catalogue;
use crate::check::Check;
use crate::finding::Finding;
use crate::step::{Proof, Steps};

/// Several key versions of a keytab, each with a patient KDC, fit into it.
const LOGIN: Duration = Duration::from_secs(25);
/// With less left, in seconds, a ticket ends before much can be done with it.
const SHORT: i64 = 600;
/// Keys of a keytab that are shown.
const MOST_KEYS: usize = 12;

/// Whether tickets are there already.
pub(super) fn needs_no_kdc(identity: &Identity) -> bool {
    matches!(identity.source, CredentialSource::Cache(_))
}

/// With `delegate` the ticket is asked for as a forwardable one at once: otherwise whoever delegates would log in again.
pub(super) async fn look(
    manager: &Kerberos,
    identity: &Identity,
    delegate: bool,
    deadline: Instant,
    steps: &mut Steps<'_>,
) -> Login {
    let source = source(identity, deadline).await;
    if Instant::now() >= deadline {
        steps.unknown(Check::Login, "no time was left");
        return Login::Failed { refused: false };
    }
    let request = Request { delegate, deadline: deadline.min(Instant::now() + LOGIN), trace: Trace::off() };
    let held = manager.held(identity);
    match manager.check(identity, request).await {
        Ok(ticket) => {
            let now = unix_now();
            // A renewed one says when the user was proved, too. Both times are by the KDC's clock.
            let kept = held.is_some_and(|held| held.authtime == ticket.authtime);
            let since = if kept { format!("held since the login at {}: ", at(ticket.authtime)) } else { String::new() };
            let detail = format!("{source}{since}{}", describe(&ticket));
            steps.proved(if kept || needs_no_kdc(identity) {
                Proof::Before(at(ticket.authtime))
            } else {
                Proof::Taken
            });
            let undelegable = Kerberos::may_delegate(identity, &ticket).err().filter(|_| delegate);
            if let Some(error) = undelegable {
                steps.warn(Check::Login, detail, Some(Finding::from(&error)));
            } else if ticket.endtime.saturating_sub(now) < SHORT {
                let message = format!("the ticket of {} ends in {} s", ticket.client, (ticket.endtime - now).max(0));
                steps.warn(Check::Login, detail, Some(catalogue::TICKET_SHORT.found(message, "")));
            } else {
                steps.passed(Check::Login, detail);
            }
            Login::Done(ticket)
        }
        Err(error) => {
            let (detail, refused) = (source.trim_end_matches("; "), may_have_counted(&error));
            if refused {
                steps.failed(Check::Login, detail, Finding::from(&error));
            } else {
                super::told(Check::Login, detail, &error, steps);
            }
            Login::Failed { refused }
        }
    }
}

/// Whether the proof was sent, or may have been: then it is not sent again. What is certain is only what never gets that far.
fn may_have_counted(error: &Error) -> bool {
    let before = [
        "kerberos.cache_expired",
        "kerberos.cache_kind",
        "kerberos.cache_no_tgt",
        "kerberos.cache_principal",
        "kerberos.cache_unreadable",
        "kerberos.keytab_principal",
        "kerberos.keytab_unreadable",
        "kerberos.principal_invalid",
        "kerberos.principal_unknown",
        "kerberos.wrong_realm",
    ];
    // Whoever gives up waiting does not end the login: its answer may be on the way.
    let unknown = error.code() == "kerberos.deadline";
    unknown || error.kind() != ErrorKind::Unavailable && !before.contains(&error.code())
}

/// `klist` in one line.
pub(super) fn describe(ticket: &Credentials) -> String {
    let mut text = format!(
        "{} for {}, valid from {}",
        ticket.server,
        ticket.client,
        at(ticket.starttime.unwrap_or(ticket.authtime))
    );
    text.push_str(&format!(" to {}", at(ticket.endtime)));
    if let Some(until) = ticket.renew_till {
        text.push_str(&format!(", renewable until {}", at(until)));
    }
    let (letters, words) = flags(ticket.flags);
    text.push_str(&format!(
        ", flags {letters} ({}), session key {}, encrypted with {}",
        words.join(", "),
        enctype(ticket.session_key.enctype()),
        enctype(ticket.ticket_enctype)
    ));
    text
}

/// As `klist -f` writes them, in its order (RFC 4120 2.1 to 2.9).
fn flags(flags: u32) -> (String, Vec<&'static str>) {
    const ALL: [(u32, char, &str); 14] = [
        (1, 'F', "forwardable"),
        (2, 'f', "forwarded"),
        (3, 'P', "proxiable"),
        (4, 'p', "proxy"),
        (5, 'D', "may be postdated"),
        (6, 'd', "postdated"),
        (7, 'i', "invalid"),
        (8, 'R', "renewable"),
        (9, 'I', "initial"),
        (11, 'H', "hardware authenticated"),
        (10, 'A', "pre-authenticated"),
        (12, 'T', "transit checked"),
        (13, 'O', "ok as delegate"),
        (16, 'a', "anonymous"),
    ];
    let set = ALL.iter().filter(|(bit, ..)| flags & (1 << (31 - bit)) != 0);
    (set.clone().map(|(_, letter, _)| *letter).collect(), set.map(|(.., word)| *word).collect())
}

pub(super) fn enctype(number: i32) -> String {
    enctype_name(number).map_or_else(|| format!("enctype {number}"), str::to_owned)
}

pub(super) fn at(unix: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(unix).ok().and_then(|time| time.format(&Rfc3339).ok());
    time.unwrap_or_else(|| unix.to_string())
}

fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// What the user logs in with, without anything that proves it.
async fn source(identity: &Identity, deadline: Instant) -> String {
    let bytes = match &identity.source {
        CredentialSource::Password(_) => return String::new(),
        CredentialSource::Cache(name) => return format!("from the credential cache {name}; "),
        CredentialSource::Keytab(bytes) => Some(bytes.clone()),
        CredentialSource::KeytabFile(path) => {
            let path = path.clone();
            let reading = tokio::task::spawn_blocking(move || Keytab::read_bytes(&path).ok());
            match timeout_at(deadline.min(Instant::now() + FILES), reading).await {
                Ok(Ok(bytes)) => bytes,
                _ => None,
            }
        }
    };
    // What is wrong with it is said by the login.
    let Some(keytab) = bytes.and_then(|bytes| Keytab::parse(&bytes).ok()) else { return String::new() };
    let mut shown: Vec<String> = keytab
        .entries()
        .iter()
        .take(MOST_KEYS)
        .map(|entry| {
            let unusable = if entry.is_usable() { "" } else { ", which is not used" };
            format!("{} version {} ({}{unusable})", entry.principal, entry.kvno, entry.enctype_text())
        })
        .collect();
    if keytab.entries().len() > MOST_KEYS {
        shown.push(format!("{} more", keytab.entries().len() - MOST_KEYS));
    }
    format!("the keytab holds {}; ", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lictor_kerberos::config::{Declared, Realm, Source, Watch};

    use super::*;

    async fn error(kdc: &str, limit: Duration) -> Error {
        let realm = Realm { kdc: vec![kdc.to_owned()], ..Realm::default() };
        let realms = [("CORP.EXAMPLE".to_owned(), realm)].into();
        let declared = Declared { realms, dns_lookup_kdc: Some(false), ..Declared::default() };
        let manager = Kerberos::new(Arc::new(Watch::start(Source::Declared(declared), None).unwrap()));
        let source = CredentialSource::Password("Secret-1".to_owned().into());
        let alice = Identity { principal: "alice@CORP.EXAMPLE".to_owned(), realm: None, source, fresh: false };
        let request = Request { delegate: false, deadline: Instant::now() + limit, trace: Trace::off() };
        manager.check(&alice, request).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_login_that_nobody_waits_for_any_more_may_still_be_judged() {
        // It takes connections and says nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let late = error(&format!("tcp/{}", silent.local_addr().unwrap()), Duration::from_millis(50)).await;
        assert_eq!((late.code(), late.kind()), ("kerberos.deadline", ErrorKind::Unavailable));
        assert!(may_have_counted(&late));
        let dead = error("tcp/127.0.0.1:1", Duration::from_secs(60)).await;
        assert_eq!(dead.code(), "kerberos.kdc_unreachable");
        assert!(!may_have_counted(&dead));
    }

    #[test]
    fn flags_are_those_of_klist() {
        // What kinit -f -r 7d gets of an account with pre-authentication.
        assert_eq!(flags(0x40e1_0000).0, "FRIA");
        assert_eq!(flags(1 << (31 - 13)).1, ["ok as delegate"]);
        assert_eq!(flags(0).0, "");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(at(1_678_897_613), "2023-03-15T16:26:53Z");
        assert_eq!(at(i64::MAX), i64::MAX.to_string());
    }
}
