//! What the KDC says of the user before anything is proved: known, usable, with which keys.

use krb5::Principal;
use lictor_kerberos::enquire::{self, Reply, Salted};
use lictor_kerberos::keytab::enctype_name;
use lictor_kerberos::{Error, ErrorKind};
use tokio::time::{Duration, Instant};

use super::kdcs::Answer;
use crate::catalogue;
use crate::check::Check;
use crate::finding::Finding;
use crate::step::Steps;

/// For one further question.
const ANSWER: Duration = Duration::from_millis(2_500);

// RFC 4120 7.5.9.
const CLIENT_UNKNOWN: i32 = 6;
const SERVICE_UNKNOWN: i32 = 7;
const ENCTYPE: i32 = 14;
const PREAUTH_REQUIRED: i32 = 25;
const UNAVAILABLE: i32 = 29;
const WRONG_REALM: i32 = 68;

/// RFC 4757: what an account has whose password is older than the domain's AES keys. DES goes by the same answer.
const RC4: i32 = 23;

/// What a login would come to.
pub(super) enum Account {
    /// Nothing speaks against it.
    Usable,
    /// Nothing would come of it. `refused`: because of the account, which must be left alone.
    Refused { refused: bool },
}

/// `answers` are for the first of `principals`; the later ones are tried when the KDC does not know it, as a login does.
pub(super) async fn look(
    answers: &[Answer],
    principals: &[Principal],
    deadline: Instant,
    steps: &mut Steps<'_>,
) -> Account {
    // One that is not available says so to whatever it is asked.
    let able = answers.iter().find(|answer| answer.reply.code != Some(UNAVAILABLE)).or(answers.first());
    let (Some(answer), Some(first)) = (able, principals.first()) else {
        steps.skipped(Check::Principal, "no KDC answers");
        return Account::Usable;
    };
    let mut reply = answer.reply.clone();
    let mut principal = first;
    for other in principals.iter().skip(1) {
        if !matches!(reply.code, Some(CLIENT_UNKNOWN | WRONG_REALM)) {
            break;
        }
        if other.realm != first.realm {
            // Another realm has other KDCs; the login will ask them.
            steps.unknown(Check::Principal, format!("{} does not know {first}; {other} is tried next", first.realm));
            return Account::Usable;
        }
        let limit = deadline.min(Instant::now() + ANSWER);
        match enquire::ask(&answer.address.to_string(), other, limit).await {
            Ok(second) if !matches!(second.code, Some(CLIENT_UNKNOWN | WRONG_REALM)) => {
                (reply, principal) = (second, other);
            }
            Ok(_) => {}
            Err(error) => {
                steps.unknown(Check::Principal, format!("the KDC did not answer about {other}: {error}"));
                return Account::Usable;
            }
        }
    }
    if names_no_aes(&reply) {
        if has_rc4(answer, principal, deadline).await {
            let message = format!("the KDC has only RC4 keys of {}", shown(principal));
            steps.failed(Check::Principal, "", catalogue::RC4_ONLY.found(message, ""));
            return Account::Refused { refused: false };
        }
        if !reply.offered.iter().any(|kind| way(*kind).is_some()) {
            // MIT's KDC says that it wants pre-authentication, and offers none.
            reply.code = Some(ENCTYPE);
        }
    }
    if reply.code == Some(SERVICE_UNKNOWN) {
        let message = format!("the KDC {} does not serve {}", answer.address, principal.realm);
        steps.failed(Check::Principal, "", catalogue::OTHER_REALM.found(message, ""));
        return Account::Refused { refused: false };
    }
    match enquire::refusal(&reply, principal) {
        Some(error) => refused(&error, steps),
        None => {
            known(principal, &reply, steps);
            Account::Usable
        }
    }
}

fn refused(error: &Error, steps: &mut Steps<'_>) -> Account {
    let mut finding = Finding::from(error);
    if error.code() == "kerberos.principal_unknown" {
        // MIT's KDC says the same of every user of a realm that it does not serve.
        finding.suspects.push(catalogue::OTHER_REALM.suspected());
    }
    steps.failed(Check::Principal, "", finding);
    Account::Refused { refused: error.kind() == ErrorKind::Rejected }
}

fn known(principal: &Principal, reply: &Reply, steps: &mut Steps<'_>) {
    let mut detail = format!("{} is known", shown(principal));
    let ways: Vec<&str> = reply.offered.iter().filter_map(|kind| way(*kind)).collect();
    if !ways.is_empty() {
        detail.push_str(&format!("; may log in by {}", ways.join(", ")));
    }
    if !reply.keys.is_empty() {
        let keys: Vec<String> = reply.keys.iter().map(key).collect();
        detail.push_str(&format!("; keys: {}", keys.join(", ")));
    }
    if reply.code.is_none() {
        let message = format!("the KDC asks {} for no pre-authentication", shown(principal));
        steps.warn(Check::Principal, detail, Some(catalogue::NO_PREAUTHENTICATION.found(message, "")));
    } else {
        steps.passed(Check::Principal, detail);
    }
}

/// Whether no key of a type that was asked about is to be seen: the KDC says that there is none, or wants one and names none.
fn names_no_aes(reply: &Reply) -> bool {
    let named = reply.keys.iter().any(|key| enquire::ENCTYPES.contains(&key.enctype));
    !named && (matches!(reply.code, Some(ENCTYPE | PREAUTH_REQUIRED)) || !reply.keys.is_empty())
}

/// Whether the KDC names a key of RC4 when that is asked about as well: then it is why it names none of AES.
async fn has_rc4(answer: &Answer, principal: &Principal, deadline: Instant) -> bool {
    let limit = deadline.min(Instant::now() + ANSWER);
    let kdc = answer.address.to_string();
    // With AES for the session, which RC4 alone would leave without a key.
    let [first, second, ..] = enquire::ENCTYPES;
    let again = enquire::over(answer.transport, &kdc, principal, &[first, second, RC4], limit).await;
    again.is_ok_and(|again| again.code.is_none() || again.keys.iter().any(|key| key.enctype == RC4))
}

fn key(key: &Salted) -> String {
    let name = enctype_name(key.enctype).map_or_else(|| format!("enctype {}", key.enctype), str::to_owned);
    let salt = key.salt.as_deref().and_then(|salt| std::str::from_utf8(salt).ok());
    match salt.filter(|salt| !salt.is_empty() && !salt.contains(char::is_control)) {
        Some(salt) => format!("{name} with the salt {salt}"),
        None => name,
    }
}

/// Kinds of pre-authentication data by which a user proves something (RFC 4120 7.2.1, RFC 6113, RFC 4556, RFC 6560, RFC 9588).
fn way(kind: i64) -> Option<&'static str> {
    Some(match kind {
        2 => "encrypted timestamp",
        16 => "certificate (PKINIT)",
        138 => "encrypted challenge",
        141 => "one-time password",
        151 => "SPAKE",
        _ => return None,
    })
}

/// A user principal name without the realm that is asked.
fn shown(principal: &Principal) -> String {
    match principal.components.as_slice() {
        [name] if name.contains('@') => format!("{name} (a user principal name in {})", principal.realm),
        _ => principal.to_string(),
    }
}
