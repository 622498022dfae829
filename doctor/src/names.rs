//! The host's name: whether it is one that Kerberos can use, its addresses, and what the addresses are called.
//!
//! By the means of the system (getaddrinfo, getnameinfo), because MIT's library and Ansible ask the same way: DNS, `/etc/hosts` and
//! search domains count as they do for them. Those means wait as long as the system's settings say; nobody waits for them longer
//! than here.

use std::net::IpAddr;

use dns_lookup::{AddrInfoHints, getaddrinfo, lookup_addr};
use lictor_kerberos::config::Configuration;
use lictor_winrm::{Error, ErrorKind, Stage, Target};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, timeout_at};

use crate::catalogue;
use crate::check::Check;
use crate::finding::Finding;
use crate::step::Steps;

/// For the addresses of the name, and for the names of the addresses.
const FORWARD: Duration = Duration::from_secs(5);
const REVERSE: Duration = Duration::from_secs(4);
/// Addresses whose names are asked for, and that are shown.
const MOST_REVERSED: usize = 4;
const MOST_ADDRESSES: usize = 16;
const NO_TIME: &str = "no time was left";
/// AI_CANONNAME of POSIX's getaddrinfo; the same number in glibc, musl and the BSDs.
const AI_CANONNAME: i32 = 2;
/// SOCK_STREAM, so that each address comes once.
const SOCK_STREAM: i32 = 1;

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    addresses: Vec<IpAddr>,
    /// The name at the end of aliases and search domains.
    canonical: Option<String>,
}

/// Why it leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    NoAddress,
    Late,
}

/// What krb5.conf tells MIT's library to do with names of hosts; this program does none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Canonical {
    forward: bool,
    reverse: bool,
}

/// Looks at the name of the target, if there is one. `configuration` is there when Kerberos comes into it.
pub(crate) async fn look(
    target: Option<&Target>,
    configuration: Option<&Configuration>,
    deadline: Instant,
    steps: &mut Steps<'_>,
) {
    let Some(target) = target else { return };
    let host = target.endpoint.host().trim_end_matches('.').to_owned();
    // With a name of its own for tickets, the name that is connected to does not matter to Kerberos.
    let spn_host = target.kerberos.spn_host.as_deref();
    let rules = configuration.map(canonical);
    let ruled = rules.filter(|_| spn_host.is_none());
    let found = forward(&host, deadline.min(Instant::now() + FORWARD)).await;
    judge_name(&host, found.as_ref().ok(), configuration.is_some(), spn_host, steps);
    if found == Err(Lost::Late) && Instant::now() >= deadline {
        // The examination is late, and not the name server.
        steps.unknown(Check::Resolve, NO_TIME);
        return steps.unknown(Check::Reverse, NO_TIME);
    }
    judge_addresses(&host, &found, ruled, steps);
    let Ok(found) = found else {
        return steps.skipped(Check::Reverse, "the name has no address");
    };
    if configuration.is_none() {
        return steps.skipped(Check::Reverse, "only Kerberos asks for it");
    }
    if Instant::now() >= deadline {
        return steps.unknown(Check::Reverse, NO_TIME);
    }
    let names = reverse(&found.addresses, deadline.min(Instant::now() + REVERSE)).await;
    judge_names(&host, &names, ruled, steps);
}

fn canonical(configuration: &Configuration) -> Canonical {
    let get = |name: &str| configuration.krb5().get(&["libdefaults", name]).map(str::to_ascii_lowercase);
    let is = |value: Option<&str>, words: &[&str]| value.is_some_and(|value| words.contains(&value));
    let no = ["n", "no", "false", "nil", "f", "0", "off"];
    let forward = get("dns_canonicalize_hostname");
    // `fallback` asks under the name as it is first.
    let forward = !is(forward.as_deref(), &no) && forward.as_deref() != Some("fallback");
    Canonical { forward, reverse: forward && !is(get("rdns").as_deref(), &no) }
}

async fn forward(host: &str, limit: Instant) -> Result<Found, Lost> {
    // A lookup that is answered at once would be heard even then.
    if Instant::now() >= limit {
        return Err(Lost::Late);
    }
    let asked = host.to_owned();
    let lookup = tokio::task::spawn_blocking(move || {
        let hints = AddrInfoHints { flags: AI_CANONNAME, socktype: SOCK_STREAM, ..AddrInfoHints::default() };
        let answers = getaddrinfo(Some(&asked), None, Some(hints)).ok()?;
        let mut found = Found { addresses: Vec::new(), canonical: None };
        for answer in answers.flatten().take(64) {
            let address = answer.sockaddr.ip();
            if !found.addresses.contains(&address) && found.addresses.len() < MOST_ADDRESSES {
                found.addresses.push(address);
            }
            if found.canonical.is_none() {
                found.canonical = answer.canonname.map(|name| tidy(&name));
            }
        }
        (!found.addresses.is_empty()).then_some(found)
    });
    match timeout_at(limit, lookup).await {
        Ok(Ok(Some(found))) => Ok(found),
        // Also when the answer held a name that is no text.
        Ok(_) => Err(Lost::NoAddress),
        Err(_) => Err(Lost::Late),
    }
}

/// What the system calls each address, as far as that is known in time.
async fn reverse(addresses: &[IpAddr], limit: Instant) -> Vec<(IpAddr, Result<String, Lost>)> {
    let mut names: Vec<(IpAddr, Result<String, Lost>)> =
        addresses.iter().take(MOST_REVERSED).map(|address| (*address, Err(Lost::Late))).collect();
    if Instant::now() >= limit {
        return names;
    }
    let mut lookups = JoinSet::new();
    for (at, (address, _)) in names.iter().enumerate() {
        let address = *address;
        lookups.spawn_blocking(move || (at, lookup_addr(&address).map(|name| tidy(&name))));
    }
    while let Ok(Some(ended)) = timeout_at(limit, lookups.join_next()).await {
        if let Ok((at, name)) = ended
            && let Some((_, slot)) = names.get_mut(at)
        {
            *slot = name.map_err(|_| Lost::NoAddress);
        }
    }
    names
}

/// Of one form, bounded, without anything that is no name.
fn tidy(name: &str) -> String {
    name.trim_end_matches('.')
        .chars()
        .filter(|letter| !letter.is_control())
        .take(255)
        .collect::<String>()
        .to_lowercase()
}

fn judge_name(host: &str, found: Option<&Found>, kerberos: bool, spn_host: Option<&str>, steps: &mut Steps<'_>) {
    let canonical = found.and_then(|found| found.canonical.as_deref());
    if let Some(name) = spn_host.filter(|_| kerberos) {
        return steps.passed(Check::HostName, format!("{host}; tickets are asked for under the name {name}"));
    }
    if host.parse::<IpAddr>().is_ok() {
        if kerberos {
            let message = format!("Kerberos needs the name of the host, and {host} is an address");
            return steps.without_ticket(Check::HostName, "", catalogue::HOST_IS_ADDRESS.found(message, ""));
        }
        return steps.passed(Check::HostName, format!("{host}, an address"));
    }
    if host.contains('.') {
        return steps.passed(Check::HostName, host);
    }
    let full = canonical.filter(|name| is_full_name_of(name, host));
    let detail = full.map_or_else(|| host.to_owned(), |name| format!("{host}; its full name is {name}"));
    if kerberos {
        let message = format!("{host} is no full name");
        steps.warn(Check::HostName, detail, Some(catalogue::SHORT_NAME.found(message, "")));
    } else {
        steps.passed(Check::HostName, detail);
    }
}

fn judge_addresses(host: &str, found: &Result<Found, Lost>, rules: Option<Canonical>, steps: &mut Steps<'_>) {
    let found = match found {
        Ok(found) => found,
        Err(lost) => {
            let host = host.to_owned();
            let kind = match lost {
                Lost::NoAddress => ErrorKind::ResolveFailed { host },
                Lost::Late => ErrorKind::ResolveTimeout { host },
            };
            return steps.failed(Check::Resolve, "", Finding::from(&Error::new(Stage::Resolve, kind)));
        }
    };
    let addresses: Vec<String> = found.addresses.iter().map(ToString::to_string).collect();
    let mut detail = addresses.join(", ");
    let alias = found.canonical.as_deref().filter(|name| {
        *name != host
            && !is_full_name_of(name, host)
            && name.parse::<IpAddr>().is_err()
            && host.parse::<IpAddr>().is_err()
    });
    let Some(name) = alias else { return steps.passed(Check::Resolve, detail) };
    detail.push_str(&format!("; {host} is an alias of {name}"));
    match rules {
        Some(rules) => {
            let message = format!("{host} is an alias of {name}");
            let seen = if rules.forward {
                format!("Here they would ask for HTTP/{name}.")
            } else {
                "With the krb5.conf here they ask under the name as it is written.".to_owned()
            };
            steps.warn(Check::Resolve, detail, Some(catalogue::ALIAS.found(message, &seen)));
        }
        None => steps.passed(Check::Resolve, detail),
    }
}

fn judge_names(host: &str, names: &[(IpAddr, Result<String, Lost>)], rules: Option<Canonical>, steps: &mut Steps<'_>) {
    let told: Vec<String> = names
        .iter()
        .map(|(address, name)| match name {
            Ok(name) => format!("{address} is {name}"),
            Err(Lost::NoAddress) => format!("{address} has no name"),
            Err(Lost::Late) => format!("{address}: no answer in time"),
        })
        .collect();
    let mut detail = told.join("; ");
    if names.iter().all(|(_, name)| *name == Err(Lost::Late)) {
        return steps.unknown(Check::Reverse, detail);
    }
    let other = names.iter().find_map(|(address, name)| {
        let name = name.as_ref().ok()?;
        (name != host && !is_full_name_of(name, host) && host.parse::<IpAddr>().is_err()).then_some((address, name))
    });
    match (other, rules) {
        (Some((address, name)), Some(Canonical { reverse: true, .. })) => {
            let message = format!("{address}, the address of {host}, is called {name}");
            let seen = format!("Here they would ask for HTTP/{name} instead of HTTP/{host}.");
            steps.warn(Check::Reverse, detail, Some(catalogue::REVERSE_MISMATCH.found(message, &seen)));
        }
        (Some(_), _) => {
            detail.push_str("; nobody asks for tickets by that name");
            steps.passed(Check::Reverse, detail);
        }
        (None, _) => steps.passed(Check::Reverse, detail),
    }
}

/// `web1.corp.example` of `web1`.
fn is_full_name_of(name: &str, host: &str) -> bool {
    !host.contains('.') && name.strip_prefix(host).is_some_and(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests;
