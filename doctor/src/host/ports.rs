//! The port that was asked for, and beside it the usual ones of WinRM, where that is allowed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lictor_winrm::probe::survey::{Listening, listens};
use lictor_winrm::{ErrorKind, Target, connection};
use tokio::time::Instant;

use crate::catalogue::host as catalogue;
use crate::check::Check;
use crate::finding::{Finding, Suspect};
use crate::step::Steps;

const USUAL: [u16; 2] = [5985, 5986];
/// How long a usual port may be silent: it only serves as a hint.
const HINT: Duration = Duration::from_secs(3);

pub(super) async fn connect(
    target: &Target,
    hints: bool,
    addresses: &[SocketAddr],
    deadline: Instant,
    steps: &mut Steps<'_>,
) -> Option<SocketAddr> {
    let dialled = connection::dial(&target.endpoint, addresses, deadline).await;
    let peer = dialled.as_ref().ok().map(connection::Socket::peer);
    let ip = peer.or(addresses.first().copied()).map(|address| address.ip())?;
    let others = if hints { others(ip, target.endpoint.port()).await } else { Vec::new() };
    match dialled {
        Ok(socket) => {
            let mut detail = socket.peer().to_string();
            for (port, listening) in &others {
                detail.push_str(
                    match listening {
                        Listening::Yes => "; PORT listens too",
                        _ => "; PORT does not listen",
                    }
                    .replace("PORT", &port.to_string())
                    .as_str(),
                );
            }
            steps.passed(Check::Connect, detail);
            Some(socket.peer())
        }
        Err(error) => {
            let mut finding = Finding::from(&error);
            finding.suspects = suspects(error.kind(), hints, &others);
            let told: Vec<String> = others
                .iter()
                .map(|(port, listening)| match listening {
                    Listening::Yes => format!("{port} listens"),
                    Listening::Refused => format!("{port} is refused as well"),
                    Listening::Silent => format!("{port} does not answer either"),
                    Listening::Unreachable => format!("{port} cannot be reached either"),
                })
                .collect();
            steps.failed(Check::Connect, told.join(", "), finding);
            None
        }
    }
}

/// The usual ports besides `port`, asked at the same time.
async fn others(ip: IpAddr, port: u16) -> Vec<(u16, Listening)> {
    // Time of its own: where the port itself was silent to the end, the hint is wanted most.
    let until = Instant::now() + HINT;
    let ask = |usual: u16| async move {
        if usual == port { None } else { Some((usual, listens(SocketAddr::new(ip, usual), until).await)) }
    };
    let (http, https) = tokio::join!(ask(USUAL[0]), ask(USUAL[1]));
    http.into_iter().chain(https).collect()
}

fn suspects(kind: &ErrorKind, hints: bool, others: &[(u16, Listening)]) -> Vec<Suspect> {
    let listens = |port| others.contains(&(port, Listening::Yes));
    let mut found = Vec::new();
    if listens(5985) {
        found.push(catalogue::ONLY_HTTP.suspected());
    }
    if listens(5986) {
        found.push(catalogue::ONLY_HTTPS.suspected());
    }
    if found.is_empty() {
        match kind {
            // It says that none of the usual ones listens.
            ErrorKind::ConnectRefused { .. } if hints => found.push(catalogue::NOT_ENABLED.suspected()),
            ErrorKind::ConnectTimeout { .. } => found.push(catalogue::FIREWALL.suspected()),
            _ => {}
        }
    }
    found
}
