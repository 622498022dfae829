//! TLS: which versions the host takes, and what its certificate is worth.

use std::net::SocketAddr;

use lictor_winrm::Target;
use lictor_winrm::probe::survey::{
    self, AskError, Certificate, Greeting, Problem, ProblemKind, Question, TlsVersion, Versions, Wire,
};
use tokio::time::Instant;

use super::Seen;
use super::http::shown;
use crate::catalogue::{Entry, host as catalogue};
use crate::check::Check;
use crate::step::Steps;

/// A certificate that ends sooner is warned about.
const SOON_DAYS: i64 = 30;

/// Whether there is TLS of any version.
pub(super) async fn versions(
    target: &Target,
    address: SocketAddr,
    deadline: Instant,
    seen: &mut Seen,
    steps: &mut Steps<'_>,
) -> bool {
    let found = survey::versions(&target.endpoint, address, deadline).await;
    let port = address.port();
    if found.no_tls {
        let plain = survey::ask(&target.endpoint, address, Wire::Plain, Question::Root, deadline).await;
        let (entry, message) = match plain {
            Ok(Greeting::Http(answer)) => {
                (catalogue::PLAIN_HTTP, format!("port {port} answers plain HTTP: {}", shown(&answer)))
            }
            Ok(Greeting::Other(line)) if !line.is_empty() => (catalogue::NO_TLS, format!("port {port} says {line:?}")),
            _ => (catalogue::NO_TLS, format!("what port {port} answers is no TLS")),
        };
        steps.failed(Check::Tls, "", entry.found(message, ""));
        return false;
    }
    if found.takes(TlsVersion::Tls1_2) || found.takes(TlsVersion::Tls1_3) {
        steps.passed(Check::Tls, told(&found));
        return true;
    }
    if !found.taken.is_empty() {
        seen.stop = Some("the host takes no version of TLS that is used here");
        let message = format!("the host takes {} only", told(&found));
        steps.failed(Check::Tls, "", catalogue::TLS_TOO_OLD.found(message, ""));
        return true;
    }
    let entry = if found.refused.is_empty() { catalogue::TLS_SILENT } else { catalogue::TLS_REFUSED };
    let message = match &found.reason {
        Some(reason) => format!("no TLS handshake on port {port} comes to its end: {reason}"),
        None => format!("port {port} does not answer a TLS handshake"),
    };
    steps.failed(Check::Tls, "", entry.found(message, ""));
    false
}

/// `TLS 1.2, 1.3 (TLS_AES_256_GCM_SHA384)`: the suite of the newest.
fn told(found: &Versions) -> String {
    let versions: Vec<String> = found.taken.iter().map(|(version, _)| version.to_string()).collect();
    let suite = found.taken.last().map(|(_, suite)| format!(" ({suite})")).unwrap_or_default();
    let mut text = format!("TLS {}{suite}", versions.join(", "));
    if !found.unknown.is_empty() {
        let unknown: Vec<String> = found.unknown.iter().map(ToString::to_string).collect();
        text.push_str(&format!("; {} could not be tried", unknown.join(", ")));
    }
    text
}

pub(super) async fn certificate(
    target: &Target,
    address: SocketAddr,
    deadline: Instant,
    seen: &mut Seen,
    steps: &mut Steps<'_>,
) {
    if let Some(pem) = &target.tls.ca_pem
        && survey::authorities(pem).is_empty()
    {
        seen.stop = Some("the authorities that were given are of no use");
        let message = "the authorities that were given cannot be read";
        return steps.failed(Check::Certificate, "", catalogue::CA_UNUSABLE.found(message, ""));
    }
    let held = match survey::certificate(target, address, deadline).await {
        Ok(held) => held,
        Err(AskError::TooLong) => return steps.unknown(Check::Certificate, "the host did not show it in time"),
        Err(error) => {
            seen.stop.get_or_insert("the certificate was not seen");
            return steps.failed(Check::Certificate, "", catalogue::NO_CERTIFICATE.found(error.to_string(), ""));
        }
    };
    judge(target, &held, seen, steps);
    seen.certificate = Some(held);
}

fn judge(target: &Target, held: &Certificate, seen: &mut Seen, steps: &mut Steps<'_>) {
    let detail = described(held);
    let mut problems: Vec<&Problem> = held.problems.iter().collect();
    problems.sort_by_key(|problem| RANK.iter().position(|kind| *kind == problem.kind));
    if let Some((first, rest)) = problems.split_first() {
        let (entry, mut message) = of_problem(target, held, first);
        if !rest.is_empty() {
            let also: Vec<&str> = rest.iter().map(|problem| problem.detail.as_str()).collect();
            message.push_str(&format!("; also: {}", also.join("; ")));
        }
        let finding = entry.found(message, "");
        if target.tls.skip_certificate_check {
            return steps.warn(Check::Certificate, format!("{detail}; not checked by request"), Some(finding));
        }
        seen.stop.get_or_insert("the certificate of the host is not accepted");
        return steps.failed(Check::Certificate, detail, finding);
    }
    let doubt = if held.weak_key {
        Some(catalogue::WEAK_KEY.found(format!("the key of the certificate is {}", held.key), ""))
    } else if held.weak_signature && !held.self_signed {
        Some(catalogue::WEAK_SIGNATURE.found(format!("the certificate was signed with {}", held.signature), ""))
    } else if held.days_left < SOON_DAYS {
        Some(catalogue::EXPIRES_SOON.found(format!("the certificate ends in {} days", held.days_left), ""))
    } else {
        None
    };
    match doubt {
        Some(doubt) => steps.warn(Check::Certificate, detail, Some(doubt)),
        None => steps.passed(Check::Certificate, detail),
    }
}

fn of_problem(target: &Target, held: &Certificate, problem: &Problem) -> (Entry, String) {
    let host = target.endpoint.host();
    let of = &problem.subject;
    match problem.kind {
        ProblemKind::Expired => {
            (catalogue::EXPIRED, format!("the certificate of {of} has ended; the host's: {}", held.not_after))
        }
        ProblemKind::NotYetValid => (
            catalogue::NOT_YET_VALID,
            format!("the certificate of {of} has not begun; the host's: {}", held.not_before),
        ),
        ProblemKind::Name if held.names.is_empty() => {
            (catalogue::NAME, format!("the certificate names {} and not {host}", held.subject))
        }
        ProblemKind::Name => {
            (catalogue::NAME, format!("the certificate is for {} and not for {host}", held.names.join(", ")))
        }
        ProblemKind::SelfSigned if target.tls.ca_pem.is_none() => {
            (catalogue::SELF_SIGNED, format!("{} issued its certificate itself", held.subject))
        }
        ProblemKind::SelfSigned | ProblemKind::Untrusted => match &target.tls.ca_pem {
            Some(pem) => {
                let given = survey::authorities(pem).join("; ");
                let message =
                    format!("the certificate was issued by {}, and the given authorities are {given}", held.issuer);
                (catalogue::CA_MISMATCH, message)
            }
            None => (catalogue::UNTRUSTED, format!("{} is not trusted here", held.issuer)),
        },
        ProblemKind::Purpose => (catalogue::PURPOSE, format!("the certificate of {of} is not for servers")),
        ProblemKind::WeakKey => {
            (catalogue::WEAK_KEY, format!("the key of {of} is too weak; the host's is {}", held.key))
        }
        ProblemKind::WeakSignature => (
            catalogue::WEAK_SIGNATURE,
            format!("the certificate of {of} was signed too weakly; the host's with {}", held.signature),
        ),
        ProblemKind::Other => (catalogue::NOT_ACCEPTED, format!("the certificate of {of}: {}", problem.detail)),
    }
}

/// What is told first when there is more than one: what is surely wrong before what may be a matter of settings.
const RANK: [ProblemKind; 9] = [
    ProblemKind::Expired,
    ProblemKind::NotYetValid,
    ProblemKind::Name,
    ProblemKind::SelfSigned,
    ProblemKind::Untrusted,
    ProblemKind::WeakKey,
    ProblemKind::WeakSignature,
    ProblemKind::Purpose,
    ProblemKind::Other,
];

fn described(held: &Certificate) -> String {
    let names = if held.names.is_empty() { String::new() } else { format!("; for {}", held.names.join(", ")) };
    format!(
        "{}, issued by {}{names}; {} to {}; {}, {}",
        held.subject, held.issuer, held.not_before, held.not_after, held.key, held.signature
    )
}
