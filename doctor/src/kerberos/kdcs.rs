//! The KDCs of a realm: their names, whether they answer over UDP and over TCP, and what time it is there.
//!
//! All of them are asked side by side, each over each transport alone, by a real AS-REQ that proves nothing.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr};

use krb5::Principal;
use lictor_kerberos::config::{Configuration, Kdc};
use lictor_kerberos::enquire::{self, ENCTYPES, Reply, Transport};
use lictor_kerberos::kdc::{Attempt, Directory, Failure};
use lictor_kerberos::trace::Trace;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, timeout_at};

use crate::catalogue;
use crate::check::Check;
use crate::finding::Finding;
use crate::step::Steps;

/// For finding the KDCs in DNS.
const LOCATING: Duration = Duration::from_secs(6);
/// For the addresses of all names together.
const RESOLVING: Duration = Duration::from_secs(4);
/// For all answers together. A datagram is sent a second time after one second.
const ANSWERING: Duration = Duration::from_millis(2_500);
/// KDCs that are looked at, and addresses of each: a domain's name can stand for dozens of domain controllers.
const MOST_KDCS: usize = 8;
const MOST_ADDRESSES: usize = 4;

/// What Kerberos allows, and from where on it is told: KDCs tell times in whole seconds, and answers take their time.
const SKEW: i64 = 300;
const DRIFT: i64 = 60;

/// KDC_ERR_SKEW (RFC 4120 7.5.9).
const SKEW_CODE: i32 = 37;

/// A KDC that answered.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) address: SocketAddr,
    pub(super) transport: Transport,
    pub(super) reply: Reply,
}

/// One address of a KDC and what came of asking there.
#[derive(Debug)]
pub(super) struct Asked {
    name: String,
    address: SocketAddr,
    /// Nothing when it is not to be asked over UDP.
    udp: Option<io::Result<Reply>>,
    tcp: io::Result<Reply>,
}

/// Every KDC that answers, in the order in which they would be asked. Empty when none does.
pub(super) async fn look(
    directory: &Directory,
    configuration: &Configuration,
    realm: &str,
    principal: &Principal,
    deadline: Instant,
    steps: &mut Steps<'_>,
) -> Vec<Answer> {
    if Instant::now() >= deadline {
        for check in [Check::KdcNames, Check::KdcUdp, Check::KdcTcp, Check::Clock] {
            steps.unknown(check, "no time was left");
        }
        return Vec::new();
    }
    let located = directory.kdcs(realm, &Trace::off(), deadline.min(Instant::now() + LOCATING)).await;
    let kdcs = match located {
        Ok(kdcs) => kdcs,
        Err(failure) => {
            let error = enquire::unanswered(&failure, principal);
            super::told(Check::KdcNames, "", &error, steps);
            for check in [Check::KdcUdp, Check::KdcTcp, Check::Clock] {
                steps.skipped(check, "no KDC is known");
            }
            return Vec::new();
        }
    };
    let places = names(&kdcs, configuration.asks_dns(realm), deadline, steps).await;
    if places.is_empty() {
        for check in [Check::KdcUdp, Check::KdcTcp, Check::Clock] {
            steps.skipped(check, "no KDC has an address");
        }
        return Vec::new();
    }
    let asked = ask(places, principal, deadline).await;
    udp(&asked, principal, steps);
    tcp(&asked, principal, steps);
    let mut answers: Vec<Answer> = Vec::new();
    for one in &asked {
        let both = [(Transport::Udp, one.udp.as_ref()), (Transport::Tcp, Some(&one.tcp))];
        // One answer of each: that over UDP unless it says that it would be too long.
        let readable = |reply: &&Reply| reply.code != Some(52);
        let found = both.into_iter().find_map(|(transport, reply)| {
            let reply = reply?.as_ref().ok().filter(readable)?;
            Some(Answer { address: one.address, transport, reply: reply.clone() })
        });
        answers.extend(found);
    }
    clock(&answers, principal, deadline, steps).await;
    answers
}

/// The addresses of each, by the system's own means.
async fn names(kdcs: &[Kdc], from_dns: bool, deadline: Instant, steps: &mut Steps<'_>) -> Vec<(Kdc, SocketAddr)> {
    let limit = deadline.min(Instant::now() + RESOLVING);
    let mut lookups = JoinSet::new();
    for (at, kdc) in kdcs.iter().take(MOST_KDCS).enumerate() {
        let (host, port) = (kdc.host.clone(), kdc.port);
        lookups.spawn(async move { (at, resolve(&host, port, limit).await) });
    }
    let mut found: Vec<Result<Vec<SocketAddr>, String>> = Vec::new();
    found.resize_with(kdcs.len().min(MOST_KDCS), || Err("looking it up failed".to_owned()));
    while let Some(Ok((at, addresses))) = lookups.join_next().await {
        if let Some(slot) = found.get_mut(at) {
            *slot = addresses;
        }
    }
    let mut detail = String::from(if from_dns { "by DNS: " } else { "by krb5.conf: " });
    let mut places = Vec::new();
    let mut nameless = Vec::new();
    for (at, (kdc, addresses)) in kdcs.iter().zip(&found).enumerate() {
        let separator = if at == 0 { "" } else { "; " };
        match addresses {
            Ok(addresses) => {
                let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
                let _ = write!(detail, "{separator}{} ({})", kdc.address(), shown.join(", "));
                places.extend(addresses.iter().take(MOST_ADDRESSES).map(|address| (kdc.clone(), *address)));
            }
            Err(why) => {
                let _ = write!(detail, "{separator}{} (no address)", kdc.address());
                nameless.push(format!("{}: {why}", kdc.host));
            }
        }
    }
    if kdcs.len() > MOST_KDCS {
        let _ = write!(detail, "; {} more were not looked at", kdcs.len() - MOST_KDCS);
    }
    if nameless.is_empty() {
        steps.passed(Check::KdcNames, detail);
        return places;
    }
    let message = if places.is_empty() {
        "no KDC's name has an address".to_owned()
    } else {
        format!("{} of {} KDCs have names without an address", nameless.len(), found.len())
    };
    let finding = catalogue::KDC_UNRESOLVED.found(message, &format!("{}.", nameless.join("; ")));
    if places.is_empty() {
        steps.without_ticket(Check::KdcNames, detail, finding);
    } else {
        steps.warn(Check::KdcNames, detail, Some(finding));
    }
    places
}

async fn resolve(host: &str, port: u16, limit: Instant) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    match timeout_at(limit, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(found)) => {
            let mut addresses: Vec<SocketAddr> = Vec::new();
            for address in found {
                if !addresses.contains(&address) && addresses.len() < 16 {
                    addresses.push(address);
                }
            }
            if addresses.is_empty() { Err("the name has no address".to_owned()) } else { Ok(addresses) }
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the name server gave no answer in time".to_owned()),
    }
}

async fn ask(places: Vec<(Kdc, SocketAddr)>, principal: &Principal, deadline: Instant) -> Vec<Asked> {
    let limit = deadline.min(Instant::now() + ANSWERING);
    let silent = || io::Error::from(io::ErrorKind::TimedOut);
    let mut asked: Vec<Asked> = Vec::new();
    let mut questions = JoinSet::new();
    for (at, (kdc, address)) in places.into_iter().enumerate() {
        let transports: &[Transport] = if kdc.tcp_only { &[Transport::Tcp] } else { &[Transport::Udp, Transport::Tcp] };
        for transport in transports.iter().copied() {
            let principal = principal.clone();
            questions.spawn(async move {
                let reply = enquire::over(transport, &address.to_string(), &principal, &ENCTYPES, limit).await;
                (at, transport, reply)
            });
        }
        let udp = (!kdc.tcp_only).then(|| Err(silent()));
        asked.push(Asked { name: kdc.host, address, udp, tcp: Err(silent()) });
    }
    while let Some(ended) = questions.join_next().await {
        let Ok((at, transport, reply)) = ended else { continue };
        match (asked.get_mut(at), transport) {
            (Some(one), Transport::Udp) => one.udp = Some(reply),
            (Some(one), Transport::Tcp) => one.tcp = reply,
            (None, _) => {}
        }
    }
    asked
}

impl Asked {
    fn answers_udp(&self) -> bool {
        matches!(self.udp, Some(Ok(_)))
    }

    fn is_dead(&self) -> bool {
        !self.answers_udp() && self.tcp.is_err()
    }

    /// `dc1.corp.example (192.0.2.1:88)`, or just the address.
    fn shown(&self) -> String {
        if self.name.parse::<IpAddr>().is_ok() {
            self.address.to_string()
        } else {
            format!("{} ({})", self.name, self.address)
        }
    }

    fn attempts(&self) -> impl Iterator<Item = Attempt> + '_ {
        let udp = self.udp.as_ref().map(|reply| ("udp", reply));
        udp.into_iter().chain([("tcp", &self.tcp)]).filter_map(|(transport, reply)| {
            let why = in_words(reply.as_ref().err()?);
            Some(Attempt { kdc: self.shown(), transport, why })
        })
    }
}

fn udp(asked: &[Asked], principal: &Principal, steps: &mut Steps<'_>) {
    let over_udp: Vec<(&Asked, &io::Result<Reply>)> =
        asked.iter().filter_map(|one| Some((one, one.udp.as_ref()?))).collect();
    if over_udp.is_empty() {
        return steps.skipped(Check::KdcUdp, "the KDCs are listed as tcp/ and never asked over UDP");
    }
    let detail = over_udp.iter().map(|(one, reply)| heard(one, reply)).collect::<Vec<_>>().join("; ");
    let blocked: Vec<String> =
        over_udp.iter().filter(|(one, reply)| reply.is_err() && one.tcp.is_ok()).map(|(one, _)| one.shown()).collect();
    if blocked.is_empty() {
        return rest(Check::KdcUdp, asked, detail, principal, steps);
    }
    let message = format!("{} answers over TCP and not over UDP", blocked.join(", "));
    steps.warn(Check::KdcUdp, detail, Some(catalogue::UDP_BLOCKED.found(message, "")));
}

fn tcp(asked: &[Asked], principal: &Principal, steps: &mut Steps<'_>) {
    let detail = asked.iter().map(|one| heard(one, &one.tcp)).collect::<Vec<_>>().join("; ");
    let blocked: Vec<String> =
        asked.iter().filter(|one| one.answers_udp() && one.tcp.is_err()).map(Asked::shown).collect();
    if blocked.is_empty() {
        return rest(Check::KdcTcp, asked, detail, principal, steps);
    }
    let message = format!("{} answers over UDP and not over TCP", blocked.join(", "));
    steps.warn(Check::KdcTcp, detail, Some(catalogue::TCP_BLOCKED.found(message, "")));
}

/// What does not depend on the transport.
fn rest(check: Check, asked: &[Asked], detail: String, principal: &Principal, steps: &mut Steps<'_>) {
    let dead: Vec<&Asked> = asked.iter().filter(|one| one.is_dead()).collect();
    if dead.is_empty() {
        return steps.passed(check, detail);
    }
    let attempts: Vec<Attempt> = dead.iter().flat_map(|one| one.attempts()).collect();
    if dead.len() < asked.len() {
        let names: Vec<String> = dead.iter().map(|one| one.shown()).collect();
        let message = format!("{} of {} KDCs do not answer: {}", dead.len(), asked.len(), names.join(", "));
        return steps.warn(check, detail, Some(catalogue::KDC_DEAD.found(message, "")));
    }
    let strange = |reply: &io::Result<Reply>| matches!(reply, Err(error) if error.kind() == io::ErrorKind::InvalidData);
    if dead.iter().any(|one| strange(&one.tcp) || one.udp.as_ref().is_some_and(strange)) {
        let said: Vec<String> = attempts.iter().map(ToString::to_string).collect();
        let message = format!("nothing that is asked for {} is a KDC", principal.realm);
        let finding = catalogue::NOT_A_KDC.found(message, &format!("{}.", said.join("; ")));
        return steps.without_ticket(check, detail, finding);
    }
    let failure = Failure::Unreachable { realm: principal.realm.clone(), attempts };
    super::told(check, detail, &enquire::unanswered(&failure, principal), steps);
}

fn heard(one: &Asked, reply: &io::Result<Reply>) -> String {
    match reply {
        Ok(_) => format!("{} answers", one.shown()),
        Err(error) => format!("{}: {}", one.shown(), in_words(error)),
    }
}

fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "no answer".to_owned(),
        io::ErrorKind::ConnectionRefused => "refused: nothing listens on this port".to_owned(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => "closed the connection".to_owned(),
        _ => error.to_string(),
    }
}

/// By the KDCs' own answers.
async fn clock(answers: &[Answer], principal: &Principal, deadline: Instant, steps: &mut Steps<'_>) {
    let Some(first) = answers.first() else {
        return steps.skipped(Check::Clock, "no KDC answers");
    };
    let mut told: Vec<(SocketAddr, i64)> =
        answers.iter().filter_map(|answer| Some((answer.address, answer.reply.ahead?))).collect();
    if told.is_empty() {
        // A ticket, which an account without pre-authentication gets at once, does not tell the time; a refusal does.
        let nobody = Principal::new(1, [super::NOBODY], principal.realm.as_str());
        let limit = deadline.min(Instant::now() + ANSWERING);
        let asked = enquire::over(first.transport, &first.address.to_string(), &nobody, &ENCTYPES, limit).await;
        told.extend(asked.ok().and_then(|reply| reply.ahead).map(|ahead| (first.address, ahead)));
    }
    judge_clock(&told, principal, steps);
}

fn judge_clock(told: &[(SocketAddr, i64)], principal: &Principal, steps: &mut Steps<'_>) {
    let offsets = || told.iter().map(|(_, ahead)| *ahead);
    let (Some(least), Some(lowest), Some(highest)) =
        (offsets().min_by_key(|ahead| ahead.abs()), offsets().min(), offsets().max())
    else {
        return steps.unknown(Check::Clock, "the KDC does not tell its time");
    };
    let detail = match told {
        [(_, ahead)] => seconds(*ahead),
        _ => told.iter().map(|(kdc, ahead)| format!("{kdc}: {}", seconds(*ahead))).collect::<Vec<_>>().join("; "),
    };
    if least.abs() > SKEW {
        // The sentence that a refused login would come with.
        let reply = Reply { code: Some(SKEW_CODE), ahead: Some(least), ..Reply::default() };
        match enquire::refusal(&reply, principal) {
            Some(error) => steps.failed(Check::Clock, detail, Finding::from(&error)),
            None => steps.unknown(Check::Clock, detail),
        }
    } else if highest.saturating_sub(lowest) > DRIFT {
        let message = format!("the clocks of the KDCs differ by {} s", highest.saturating_sub(lowest));
        steps.warn(Check::Clock, detail, Some(catalogue::CLOCKS_DISAGREE.found(message, "")));
    } else if least.abs() > DRIFT {
        let message = format!("{}; Kerberos allows {SKEW} s", seconds(least));
        steps.warn(Check::Clock, detail, Some(catalogue::CLOCK_DRIFT.found(message, "")));
    } else {
        steps.passed(Check::Clock, detail);
    }
}

fn seconds(ahead: i64) -> String {
    match ahead {
        0 => "this machine's clock and the KDC's are the same to the second".to_owned(),
        1.. => format!("this machine's clock is {ahead} s behind the KDC's"),
        _ => format!("this machine's clock is {} s ahead of the KDC's", ahead.unsigned_abs()),
    }
}

#[cfg(test)]
mod tests;
