//! HTTP: who answers a bare request, and which kinds of authentication the service offers.

use std::net::SocketAddr;
use std::time::SystemTime;

use lictor_winrm::Target;
use lictor_winrm::probe::survey::{self, Greeting, HttpAnswer, Question, Wire};
use lictor_winrm::target::{AuthKind, Scheme};
use tokio::time::Instant;

use super::Seen;
use crate::catalogue::{Entry, host as catalogue};
use crate::check::Check;
use crate::step::Steps;

/// Kerberos takes no more.
pub(super) const MOST_SKEW: i64 = 5 * 60;

fn wire(target: &Target) -> Wire {
    match target.endpoint.scheme() {
        Scheme::Http => Wire::Plain,
        Scheme::Https => Wire::Tls,
    }
}

/// `404, Microsoft-HTTPAPI/2.0`.
pub(super) fn shown(answer: &HttpAnswer) -> String {
    match &answer.server {
        Some(server) => format!("{}, {server}", answer.status),
        None => answer.status.to_string(),
    }
}

/// `GET /`. Whether HTTP is spoken.
pub(super) async fn root(
    target: &Target,
    address: SocketAddr,
    deadline: Instant,
    seen: &mut Seen,
    steps: &mut Steps<'_>,
) -> bool {
    let endpoint = &target.endpoint;
    let port = address.port();
    let greeting = match survey::ask(endpoint, address, wire(target), Question::Root, deadline).await {
        Ok(greeting) => greeting,
        Err(error) => {
            steps.unknown(Check::Http, error.to_string());
            return true;
        }
    };
    // What speaks TLS closes the connection, sends an alert, or as some web servers do answers 400 in plain HTTP.
    let maybe_tls = match &greeting {
        Greeting::Tls | Greeting::Closed => true,
        Greeting::Http(answer) => answer.status == 400 && !answer.is_http_sys(),
        _ => false,
    };
    if maybe_tls && endpoint.scheme() == Scheme::Http {
        let tls = survey::ask(endpoint, address, Wire::Tls, Question::Root, deadline).await;
        if greeting == Greeting::Tls || tls.is_ok() {
            let behind = match tls {
                Ok(Greeting::Http(answer)) => format!(", and behind it HTTP: {}", shown(&answer)),
                _ => String::new(),
            };
            let message = format!("port {port} speaks TLS{behind}");
            steps.failed(Check::Http, "", catalogue::HTTP_ON_TLS.found(message, ""));
            return false;
        }
    }
    let (entry, message) = match greeting {
        Greeting::Http(answer) => {
            judge(&answer, seen, steps);
            return true;
        }
        Greeting::Tls => (catalogue::OTHER_PROTOCOL, format!("port {port} speaks TLS within TLS")),
        Greeting::Other(line) => (catalogue::OTHER_PROTOCOL, format!("port {port} says {line:?}")),
        Greeting::Closed => (catalogue::HTTP_CLOSED, format!("port {port} closed the connection without an answer")),
        Greeting::Silence => (catalogue::HTTP_SILENT, format!("port {port} did not answer GET / in time")),
    };
    steps.failed(Check::Http, "", entry.found(message, ""));
    false
}

fn judge(answer: &HttpAnswer, seen: &mut Seen, steps: &mut Steps<'_>) {
    seen.ahead = answer.date.map(ahead);
    let detail = match seen.ahead {
        Some(ahead) if ahead.abs() > 1 => format!("GET / answers {}; its clock is {}", shown(answer), skew(ahead)),
        _ => format!("GET / answers {}", shown(answer)),
    };
    let entry: Option<Entry> = match answer {
        answer if is_proxy(answer) => Some(catalogue::PROXY),
        HttpAnswer { status: 301 | 302 | 303 | 307 | 308, .. } => Some(catalogue::REDIRECT),
        answer if !answer.is_http_sys() => Some(catalogue::OTHER_SERVER),
        HttpAnswer { status: 503, .. } => Some(catalogue::HTTP_SYS_UNAVAILABLE),
        _ => None,
    };
    if entry.is_some() && !answer.is_http_sys() {
        seen.other_server = Some(shown(answer));
    }
    if let Some(entry) = entry {
        let to = answer.location.as_deref().map(|to| format!(" and leads to {to}")).unwrap_or_default();
        let via = answer.via.as_deref().map(|via| format!(" through {via}")).unwrap_or_default();
        let message = format!("GET / was answered with {}{to}{via}", shown(answer));
        return steps.warn(Check::Http, detail, Some(entry.found(message, "")));
    }
    match seen.ahead {
        Some(ahead) if ahead.abs() > MOST_SKEW => {
            let message = format!("the clock of the host is {} ours", skew(ahead));
            steps.warn(Check::Http, detail, Some(catalogue::HOST_CLOCK.found(message, "")));
        }
        _ => steps.passed(Check::Http, detail),
    }
}

fn is_proxy(answer: &HttpAnswer) -> bool {
    answer.via.is_some() || matches!(answer.status, 407 | 502 | 504)
}

/// In whole seconds, as `Date` has no more.
fn ahead(theirs: SystemTime) -> i64 {
    let seconds = |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match theirs.duration_since(SystemTime::now()) {
        Ok(ahead) => seconds(ahead),
        Err(behind) => -seconds(behind.duration()),
    }
}

pub(super) fn skew(ahead: i64) -> String {
    format!("{} s {}", ahead.unsigned_abs(), if ahead < 0 { "behind" } else { "ahead of" })
}

/// An empty POST without a credential.
pub(super) async fn offered(
    target: &Target,
    address: SocketAddr,
    deadline: Instant,
    seen: &mut Seen,
    steps: &mut Steps<'_>,
) {
    let path = target.endpoint.path();
    let answer = match survey::ask(&target.endpoint, address, wire(target), Question::Service, deadline).await {
        Ok(Greeting::Http(answer)) => answer,
        Ok(_) => {
            seen.stop.get_or_insert("the service does not answer");
            let message = format!("POST {path} was not answered");
            return steps.failed(Check::Offered, "", catalogue::OFFERED_NOTHING.found(message, ""));
        }
        Err(error) => return steps.unknown(Check::Offered, error.to_string()),
    };
    if answer.status != 401 || answer.offered.is_empty() {
        let entry = match answer.status {
            _ if is_proxy(&answer) => catalogue::PROXY,
            404 => catalogue::WRONG_PATH,
            403 => catalogue::FORBIDDEN,
            503 => catalogue::OFFERED_UNAVAILABLE,
            _ => catalogue::OFFERED_NOTHING,
        };
        seen.stop.get_or_insert("the service does not ask for a credential");
        let message = format!("POST {path} was answered with {}", shown(&answer));
        return steps.failed(Check::Offered, "", entry.found(message, ""));
    }
    let detail = answer.offered.join(", ");
    let (there, missing) = match target.auth {
        AuthKind::Basic => (answer.offers("Basic"), catalogue::BASIC_MISSING),
        AuthKind::Ntlm | AuthKind::Negotiate => (answer.offers("Negotiate"), catalogue::NEGOTIATE_MISSING),
        AuthKind::Kerberos => (answer.offers("Negotiate") || answer.offers("Kerberos"), catalogue::KERBEROS_MISSING),
    };
    if !there {
        seen.stop.get_or_insert("the host does not offer the kind that was asked for");
        let message = format!("the host offers {detail}");
        return steps.failed(Check::Offered, detail, missing.found(message, ""));
    }
    if answer.offers("Basic") && target.endpoint.scheme() == Scheme::Http {
        let message = "the host offers Basic over plain http";
        return steps.warn(Check::Offered, detail, Some(catalogue::BASIC_OVER_HTTP.found(message, "")));
    }
    steps.passed(Check::Offered, detail);
}
