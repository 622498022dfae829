//! One search for a KDC that answers: one address after the other, each with little patience first and more at the end.
//!
//! INVARIANT: with `proof` nothing is sent twice: over TCP only, and a KDC that took the connection and fell silent is the last one that is
//! asked. Used by the [`Directory`] alone.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use krb5::{AsyncKdcClient, ClientError};
use tokio::time::{Instant, timeout_at};

use super::events::traced;
use super::{Attempt, Directory, Failure, MAX_ADDRESSES, name_servers};
use crate::config::{Configuration, Kdc};
use crate::trace::Trace;

/// How long a KDC may take for one answer at first. The crate asks over UDP, over TCP, and twice more over UDP, each for this long,
/// so a silent KDC costs four times this.
pub(super) const QUICK: Duration = Duration::from_millis(700);
/// How long it may take when no KDC answered as quickly as that: it may be under load, or far away.
const PATIENT: Duration = Duration::from_secs(5);
/// All that patience together.
const PATIENCE: Duration = Duration::from_secs(10);
/// For the addresses of one KDC's name.
const RESOLVING: Duration = Duration::from_secs(2);
/// "The service is not available" (RFC 4120 7.5.9): the KDC did nothing, and says that another one should be asked.
pub(super) const KDC_ERR_SVC_UNAVAILABLE: i32 = 29;

impl Directory {
    /// Runs `dialogue` until a KDC answers; see [`Directory::with_client`] and [`Directory::with_proof`].
    pub(super) async fn search<T, F>(
        &self,
        realm: &str,
        trace: &Trace,
        deadline: Instant,
        proof: Option<&mut bool>,
        dialogue: impl Fn(AsyncKdcClient) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let configuration = self.configuration(deadline).await?;
        let asked = realm;
        let realm = configuration.realm(asked)?;
        if realm != asked {
            trace.line(format_args!("Realm {asked} is taken for {realm}"));
        }
        let kdcs = self.located(&configuration, &realm, trace, deadline).await?;
        let mut search = Search {
            directory: self,
            configuration: &configuration,
            realm: &realm,
            trace,
            deadline,
            proof,
            attempts: Vec::new(),
            silent: Vec::new(),
        };
        let mut dead = Vec::new();
        for kdc in &kdcs {
            if self.memory().is_nameless(&kdc.host, Instant::now()) {
                dead.push((kdc, None));
                continue;
            }
            for address in search.addresses(kdc).await {
                if self.memory().is_dead(address, Instant::now()) {
                    dead.push((kdc, Some(address)));
                } else if let Some(end) = search.attempt(kdc, address, QUICK, &dialogue).await {
                    return end;
                }
            }
        }
        for (kdc, address) in dead {
            let addresses = match address {
                Some(address) => vec![address],
                None => search.addresses(kdc).await,
            };
            for address in addresses {
                if let Some(end) = search.attempt(kdc, address, QUICK, &dialogue).await {
                    return end;
                }
            }
        }
        search.deadline = deadline.min(Instant::now() + PATIENCE);
        for (kdc, address) in std::mem::take(&mut search.silent) {
            trace.line(format_args!("Waiting longer for {kdc_name}", kdc_name = name(&kdc, address)));
            if let Some(end) = search.attempt(&kdc, address, PATIENT, &dialogue).await {
                return end;
            }
        }
        Err(Failure::Unreachable { attempts: search.attempts, realm })
    }
}

/// The dialogue with the KDCs of one realm, one after the other.
struct Search<'a> {
    directory: &'a Directory,
    configuration: &'a Configuration,
    realm: &'a str,
    trace: &'a Trace,
    deadline: Instant,
    /// Present when a password or key is proved: nothing must be sent twice, which over UDP it would be. Becomes true when a KDC took
    /// a connection, and so perhaps the proof.
    proof: Option<&'a mut bool>,
    attempts: Vec<Attempt>,
    /// KDCs that might only be slow.
    silent: Vec<(Kdc, SocketAddr)>,
}

impl Search<'_> {
    /// The addresses of a KDC, the one that answered last first.
    async fn addresses(&mut self, kdc: &Kdc) -> Vec<SocketAddr> {
        let now = Instant::now();
        let known = match kdc.host.parse::<IpAddr>() {
            Ok(address) => Some(vec![address]),
            Err(_) => self.directory.memory().host(&kdc.host, now).map(<[IpAddr]>::to_vec),
        };
        let found = match known {
            Some(known) => known,
            None => match self.resolve(&kdc.host, kdc.port).await {
                Ok(found) => {
                    self.directory.memory().resolved(&kdc.host, found.clone(), now);
                    found
                }
                Err(why) => {
                    self.directory.memory().unresolved(&kdc.host, now);
                    self.failed(kdc.address(), "dns", why);
                    return Vec::new();
                }
            },
        };
        let memory = self.directory.memory();
        let mut addresses: Vec<SocketAddr> = found.into_iter().map(|ip| SocketAddr::new(ip, kdc.port)).collect();
        addresses.sort_by_key(|address| !memory.is_good(self.realm, *address));
        addresses
    }

    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<IpAddr>, String> {
        self.trace.line(format_args!("Resolving hostname {host}"));
        let limit = self.deadline.min(Instant::now() + RESOLVING);
        match timeout_at(limit, tokio::net::lookup_host((host, port))).await {
            Ok(Ok(addresses)) => {
                let mut found: Vec<IpAddr> = Vec::new();
                for address in addresses {
                    if !found.contains(&address.ip()) && found.len() < MAX_ADDRESSES {
                        found.push(address.ip());
                    }
                }
                if found.is_empty() { Err("the name has no address".to_owned()) } else { Ok(found) }
            }
            Ok(Err(error)) => Err(format!("the name has no address: {error}")),
            Err(_) => Err("the name server gave no answer in time".to_owned()),
        }
    }

    /// Asks one KDC. Nothing when the next one is to be asked.
    async fn attempt<T, F>(
        &mut self,
        kdc: &Kdc,
        address: SocketAddr,
        patience: Duration,
        dialogue: &impl Fn(AsyncKdcClient) -> F,
    ) -> Option<Result<T, Failure>>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let realm = self.realm;
        let tcp_only = kdc.tcp_only || self.proof.is_some();
        let transport = if tcp_only { "tcp" } else { "udp and tcp" };
        let patience = if self.proof.is_some() { PATIENT } else { patience };
        let client = match self.client(kdc, address, patience).await {
            Ok(client) => client,
            Err(error) => return Some(Err(Failure::Kdc(error.into()))),
        };
        if tcp_only {
            self.trace.line(format_args!("Sending request to {realm}: stream {address} (tcp only)"));
        } else {
            self.trace.line(format_args!(
                "Sending request to {realm}: dgram {address}, or stream {address} where that fails"
            ));
        }
        let result = timeout_at(self.deadline, traced(self.trace, dialogue(client))).await;
        let now = Instant::now();
        let error = match result {
            Ok(Ok(value)) => {
                self.trace.line(format_args!("Received answer from {address}"));
                self.directory.memory().answered(realm, address);
                return Some(Ok(value));
            }
            Ok(Err(error)) => error,
            Err(_) => {
                self.trace.line(format_args!("No answer from {address} before the deadline"));
                let first = self.attempts.is_empty();
                self.failed(name(kdc, address), transport, "no answer before the deadline".to_owned());
                self.directory.memory().failed(realm, address, now);
                if self.proof.is_some() {
                    return Some(Err(self.unjudged()));
                }
                return Some(Err(if first { Failure::Deadline } else { self.unreachable(realm.to_owned()) }));
            }
        };
        match error {
            ClientError::Unreachable { realm: silent, last } if silent == *realm => {
                self.directory.memory().failed(realm, address, now);
                if is_silence(&last) && patience < PATIENT {
                    self.silent.push((kdc.clone(), address));
                }
                self.failed(name(kdc, address), transport, in_words(&last));
                // Whoever took the connection and gave no answer may have counted the attempt all the same.
                if self.proof.is_some() && !is_unconnected(&last) { Some(Err(self.unjudged())) } else { None }
            }
            ClientError::Kdc { code: KDC_ERR_SVC_UNAVAILABLE, text } => {
                self.trace
                    .line(format_args!("Received error from KDC: {}", shown(KDC_ERR_SVC_UNAVAILABLE, text.as_deref())));
                self.directory.memory().failed(realm, address, now);
                self.failed(name(kdc, address), transport, "the KDC says that it is not available".to_owned());
                if let Some(met) = &mut self.proof {
                    **met = true;
                }
                None
            }
            ClientError::Unreachable { realm: other, last } => {
                // This KDC answered; those of a realm that the tickets lead to did not.
                self.directory.memory().answered(realm, address);
                self.trace.line(format_args!("No answer from the KDCs of {other}: {last}"));
                if is_silence(&last) && patience < PATIENT {
                    return Box::pin(self.attempt(kdc, address, PATIENT, dialogue)).await;
                }
                let kdcs = self.others(&other).join(", ");
                let kdc = if kdcs.is_empty() { "those that DNS gives".to_owned() } else { kdcs };
                let attempts = vec![Attempt { kdc, transport: "udp and tcp", why: in_words(&last) }];
                Some(Err(Failure::Unreachable { realm: other, attempts }))
            }
            ClientError::Config(krb5::ConfigError::NoKdcFound { realm: other, dns }) => {
                self.directory.memory().answered(realm, address);
                self.trace.line(format_args!("Cannot find KDC for realm \"{other}\""));
                let dns = if dns { "DNS has no records of its KDCs" } else { "dns_lookup_kdc is off" };
                let looked_at = vec!["[realms] lists no kdc".to_owned(), dns.to_owned()];
                Some(Err(Failure::NotFound { realm: other, looked_at }))
            }
            error => {
                self.directory.memory().answered(realm, address);
                match &error {
                    ClientError::Kdc { code, text } => {
                        self.trace.line(format_args!("Received error from KDC: {}", shown(*code, text.as_deref())));
                    }
                    other => self.trace.line(format_args!("Received answer from {address}, but: {other}")),
                }
                Some(Err(Failure::Kdc(error)))
            }
        }
    }

    /// A client that knows one KDC of this realm, and all KDCs of others.
    async fn client(
        &self,
        kdc: &Kdc,
        address: SocketAddr,
        patience: Duration,
    ) -> Result<AsyncKdcClient, krb5::ConfigError> {
        let mut kdcs = vec![(self.realm.to_owned(), vec![address.to_string()])];
        let located: Vec<String> = self.directory.memory().located_realms().map(|(realm, _)| realm.clone()).collect();
        let listed = self.configuration.realms_with_kdcs().map(str::to_owned);
        for other in listed.chain(located) {
            if !kdcs.iter().any(|(known, _)| *known == other) {
                let others = self.others(&other);
                kdcs.push((other, others));
            }
        }
        let configuration = self.configuration.with_kdcs(&kdcs)?;
        // For realms that nobody knows yet, which the crate looks up by itself.
        let resolver = self.directory.shared.resolver.clone();
        let client = match tokio::task::spawn_blocking(|| name_servers(resolver)).await {
            Ok(Ok(resolver)) => {
                AsyncKdcClient::from_config_with_resolver(&configuration, self.realm, &resolver).await?
            }
            _ => AsyncKdcClient::from_config(&configuration, self.realm).await?,
        };
        Ok(AsyncKdcClient::new(
            client.into_client().with_timeout(patience).with_udp(!kdc.tcp_only && self.proof.is_none()),
        ))
    }

    /// The KDCs of another realm in our order, as far as they are known.
    fn others(&self, realm: &str) -> Vec<String> {
        let memory = self.directory.memory();
        let listed = self.configuration.kdcs(realm);
        let kdcs = if listed.is_empty() {
            memory.located_realms().find(|(located, _)| *located == realm).map(|(_, kdcs)| kdcs.as_slice())
        } else {
            Some(listed)
        };
        let ordered = memory.ordered(realm, kdcs.unwrap_or_default(), Instant::now());
        ordered.iter().map(Kdc::address).collect()
    }

    /// For the KDC that was asked last.
    fn unjudged(&mut self) -> Failure {
        match self.attempts.pop() {
            Some(attempt) => Failure::Unjudged { realm: self.realm.to_owned(), attempt },
            None => Failure::Deadline,
        }
    }

    fn failed(&mut self, kdc: String, transport: &'static str, why: String) {
        // A KDC that is asked a second time, with more patience, is one KDC.
        self.attempts.retain(|attempt| attempt.kdc != kdc);
        self.attempts.push(Attempt { kdc, transport, why });
    }

    fn unreachable(&mut self, realm: String) -> Failure {
        Failure::Unreachable { realm, attempts: std::mem::take(&mut self.attempts) }
    }
}

/// `dc1.corp.example (192.0.2.1:88)`, or just the address.
fn name(kdc: &Kdc, address: SocketAddr) -> String {
    if kdc.host.parse::<IpAddr>().is_ok() { address.to_string() } else { format!("{} ({address})", kdc.host) }
}

/// Whether there was no connection, so that nothing was sent.
fn is_unconnected(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    matches!(error.kind(), E::ConnectionRefused | E::HostUnreachable | E::NetworkUnreachable | E::AddrNotAvailable)
}

/// Whether nothing came back at all, which also a slow KDC looks like.
fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "no answer".to_owned(),
        io::ErrorKind::ConnectionRefused => "connection refused: nothing listens on this port".to_owned(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => format!("closed the connection: {error}"),
        _ => error.to_string(),
    }
}

/// An error of a KDC as MIT's traces show it: the number of its library, and its words for the most frequent ones.
fn shown(code: i32, text: Option<&str>) -> String {
    /// Where MIT's library has the errors of the protocol among its own.
    const BASE: i64 = -1_765_328_384;
    let words = match code {
        6 => "Client not found in Kerberos database",
        7 => "Server not found in Kerberos database",
        12 => "KDC policy rejects request",
        14 => "KDC has no support for encryption type",
        18 => "Client's credentials have been revoked",
        23 => "Password has expired",
        24 => "Preauthentication failed",
        25 => "Additional pre-authentication required",
        29 => "A service is not available that is required to process the request",
        31 => "Decrypt integrity check failed",
        32 => "Ticket expired",
        37 => "Clock skew too great",
        41 => "Message stream modified",
        60 => "Generic error (see e-text)",
        68 => "KDC has a different realm",
        _ => krb5::client::kdc_error_name(code),
    };
    let text = text.map(|text| format!(" ({text})")).unwrap_or_default();
    format!("{}/{words}{text}", BASE + i64::from(code))
}
