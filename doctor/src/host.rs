//! The host: port, TLS, certificate, HTTP, WS-Management, authentication, shell, profile.
//!
//! First what needs no credential, each look on a connection of its own; then one authenticated connection, with which the
//! ladder of `lictor-winrm` is climbed. The credential is not sent when something before says that it would be in vain or
//! harm: a refusal of the KDC, a certificate that is not accepted, a kind that is not offered, something that is no WinRM.

mod http;
mod logon;
mod ports;
mod profile;
mod suspects;
mod tls;

use std::net::SocketAddr;

use lictor_winrm::connection;
use lictor_winrm::pool::{ConnectionInfo, Pool};
use lictor_winrm::probe::survey::Certificate;
use lictor_winrm::target::Scheme;
use lictor_winrm::{Error, ErrorKind, Stage, Target};
use tokio::time::Instant;

use crate::check::Check;
use crate::examine::Subject;
use crate::finding::Finding;
use crate::step::{Outcome, Steps};

/// What was seen of a host on the way: what later findings are explained by.
#[derive(Debug, Default)]
struct Seen {
    certificate: Option<Certificate>,
    /// By how many seconds the host's clock is ahead of ours.
    ahead: Option<i64>,
    /// Somebody else than HTTP.sys answered, in these words.
    other_server: Option<String>,
    /// Why the credential is not to be sent.
    stop: Option<&'static str>,
}

/// Returns the connection, when there was one. With a reason why it is `kept_back`, the credential is not tried.
pub(crate) async fn look(
    subject: &Subject,
    pool: Option<&Pool>,
    kept_back: Option<&'static str>,
    deadline: Instant,
    steps: &mut Steps<'_>,
) -> Option<ConnectionInfo> {
    let target = subject.target.as_ref()?;
    let mut seen = Seen::default();
    let Some(address) = reach(target, subject.usual_ports, deadline, steps).await else {
        skip_from(Check::Tls, "the host was not reached", steps);
        return None;
    };
    if target.endpoint.scheme() == Scheme::Https {
        if !tls::versions(target, address, by(target, deadline), &mut seen, steps).await {
            skip_from(Check::Certificate, "there is no TLS", steps);
            return None;
        }
        tls::certificate(target, address, by(target, deadline), &mut seen, steps).await;
    } else {
        steps.skipped(Check::Tls, "plain http");
        steps.skipped(Check::Certificate, "plain http");
    }
    if !http::root(target, address, by(target, deadline), &mut seen, steps).await {
        skip_from(Check::Identify, "what answers speaks no HTTP", steps);
        return None;
    }
    logon::identify(target, deadline, &mut seen, steps).await;
    http::offered(target, address, by(target, deadline), &mut seen, steps).await;
    if let Some(why) = kept_back.or(seen.stop) {
        skip_from(Check::Authenticate, why, steps);
        return None;
    }
    logon::climb(target, pool, deadline, &seen, steps).await
}

/// Looks the name up, unless that was done, and connects.
async fn reach(target: &Target, hints: bool, deadline: Instant, steps: &mut Steps<'_>) -> Option<SocketAddr> {
    let resolved = connection::resolve(&target.endpoint, by(target, deadline)).await;
    if Instant::now() >= deadline {
        // What became of the name was told before. A failure all the same: a host that was not reached cannot be used.
        steps.failed(Check::Connect, "", Finding::from(&Error::new(Stage::Connect, ErrorKind::DeadlinePassed)));
        return None;
    }
    let addresses = match resolved {
        Ok(addresses) => addresses,
        Err(error) => {
            if !steps.has(Check::Resolve, Outcome::Failed) {
                steps.failed(Check::Resolve, "", Finding::from(&error));
            }
            steps.skipped(Check::Connect, "the name has no address");
            return None;
        }
    };
    if !steps.has(Check::Resolve, Outcome::Passed) && !steps.has(Check::Resolve, Outcome::Warning) {
        let listed: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
        steps.passed(Check::Resolve, listed.join(", "));
    }
    ports::connect(target, hints, &addresses, by(target, deadline), steps).await
}

/// Until when one look may take.
fn by(target: &Target, deadline: Instant) -> Instant {
    deadline.min(Instant::now() + target.timeouts.connect)
}

/// Everything from `first` on is not looked at.
fn skip_from(first: Check, why: &str, steps: &mut Steps<'_>) {
    for check in HOST.into_iter().skip_while(|check| *check != first) {
        steps.skipped(check, why);
    }
}

/// In order.
const HOST: [Check; 10] = [
    Check::Tls,
    Check::Certificate,
    Check::Http,
    Check::Identify,
    Check::Offered,
    Check::Authenticate,
    Check::OpenShell,
    Check::Run,
    Check::Profile,
    Check::Close,
];
