//! The KDCs of a realm: where they are, in which order they are asked, and how long each may take.
//!
//! The `krb5` crate asks all KDCs of a list for every message, each time from the top. Here a [`Directory`] hands it one KDC at a
//! time, knows which one answered last and which ones do not answer, and so lets a KDC that is down or silent cost less than three
//! seconds once and nothing after that. It moves on to the next KDC only when one gave no answer: an answer, such as "wrong
//! password", is final, because asking the next KDC would be another attempt and accounts lock out.

mod events;
mod memory;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use krb5::client::Transport;
use krb5::dns::{self, Resolver};
use krb5::{AsyncKdcClient, ClientError};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use self::events::traced;
use self::memory::Memory;
use crate::config::{Configuration, Kdc, RealmError, Watch};
use crate::trace::Trace;

/// How long a KDC may take for one answer at first. The crate asks over UDP, over TCP, and twice more over UDP, each for this long,
/// so a silent KDC costs four times this.
const QUICK: Duration = Duration::from_millis(700);
/// How long it may take when no KDC answered as quickly as that: it may be under load, or far away.
const PATIENT: Duration = Duration::from_secs(5);
/// All that patience together.
const PATIENCE: Duration = Duration::from_secs(10);
/// For the addresses of one KDC's name.
const RESOLVING: Duration = Duration::from_secs(2);
/// For the KDCs of one realm in DNS, which takes up to three questions.
const LOCATING: Duration = Duration::from_secs(5);
/// For one server and one question of those.
const QUESTION: Duration = Duration::from_secs(1);
/// Threads that wait for DNS at once.
const LOOKUPS: usize = 4;
/// Addresses of one name, and KDCs of one realm, that are asked. A domain's name can stand for dozens of domain controllers.
const MAX_ADDRESSES: usize = 16;
const MAX_KDCS: usize = 64;

/// "The service is not available" (RFC 4120 7.5.9): the KDC did nothing, and says that another one should be asked.
const KDC_ERR_SVC_UNAVAILABLE: i32 = 29;

/// Where KDCs are and how they are. Clones share what they know.
#[derive(Debug, Clone)]
pub struct Directory {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    watch: Arc<Watch>,
    /// The name servers to ask; those of `/etc/resolv.conf` when there are none.
    resolver: Option<Resolver>,
    memory: Mutex<Memory>,
    lookups: Arc<Semaphore>,
}

/// One KDC that was asked in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its name, and its address when the name has one: `dc1.corp.example (192.0.2.1:88)`.
    pub kdc: String,
    /// How it was asked: `udp and tcp` or `tcp`; `dns` when its name has no address.
    pub transport: &'static str,
    /// What came of it.
    pub why: String,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over {}: {}", self.kdc, self.transport, self.why)
    }
}

/// Why nothing came of asking a realm's KDCs.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There are KDCs, and none of them answered.
    #[error("no KDC of {realm} answered ({})", list(.attempts))]
    Unreachable {
        /// The realm, which can be another one than was asked for when tickets lead through it.
        realm: String,
        /// Every KDC that was asked, in order.
        attempts: Vec<Attempt>,
    },
    /// Nothing says where the realm's KDCs are.
    #[error("no KDC of {realm} is known ({})", .looked_at.join("; "))]
    NotFound {
        /// The realm.
        realm: String,
        /// Where was looked, and what was there.
        looked_at: Vec<String>,
    },
    /// The name is no realm, or could be several.
    #[error(transparent)]
    Realm(#[from] RealmError),
    /// A KDC answered, but not with what was asked for; or the dialogue failed on our side.
    #[error(transparent)]
    Kdc(ClientError),
    /// The caller's time was over before any KDC was given up.
    #[error("no KDC answered before the deadline")]
    Deadline,
    /// A KDC that lives took a login and did not say what it thinks of it, which may count as an attempt.
    #[error("the KDC of {realm} took the login and did not answer ({attempt})")]
    Unjudged {
        /// The realm.
        realm: String,
        /// The KDC.
        attempt: Attempt,
    },
}

fn list(attempts: &[Attempt]) -> String {
    attempts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Directory {
    /// Finds KDCs as the configuration says, which it follows.
    pub fn new(watch: Arc<Watch>) -> Self {
        Self::build(watch, None)
    }

    /// Asks these name servers for KDCs instead of those of `/etc/resolv.conf`.
    pub fn with_resolver(watch: Arc<Watch>, resolver: Resolver) -> Self {
        Self::build(watch, Some(resolver))
    }

    fn build(watch: Arc<Watch>, resolver: Option<Resolver>) -> Self {
        let lookups = Arc::new(Semaphore::new(LOOKUPS));
        Self { shared: Arc::new(Shared { watch, resolver, memory: Mutex::default(), lookups }) }
    }

    /// The configuration that it follows.
    pub fn watch(&self) -> &Arc<Watch> {
        &self.shared.watch
    }

    /// The KDCs of a realm, in the order in which they would be asked now. DNS is asked when the configuration lists none.
    ///
    /// # Errors
    ///
    /// [`Failure::NotFound`], [`Failure::Realm`] or [`Failure::Deadline`].
    pub async fn kdcs(&self, realm: &str, trace: &Trace, deadline: Instant) -> Result<Vec<Kdc>, Failure> {
        let configuration = self.configuration(deadline).await?;
        let realm = configuration.realm(realm)?;
        self.located(&configuration, &realm, trace, deadline).await
    }

    /// Runs `dialogue` with a client for one KDC of the realm after the other until one answers. The client finds KDCs of other
    /// realms too, should tickets lead there, in our order. `dialogue` is run again only when a KDC gave no answer, so it holds
    /// at most one login, and nothing else that must not happen twice.
    ///
    /// # Errors
    ///
    /// See [`Failure`]. By `deadline` this is over, whatever happens.
    pub async fn with_client<T, F>(
        &self,
        realm: &str,
        trace: &Trace,
        deadline: Instant,
        dialogue: impl Fn(AsyncKdcClient) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        self.search(realm, trace, deadline, None, dialogue).await
    }

    /// The same for a dialogue that proves a password or key: nothing is sent twice, and a KDC that falls silent is the last one
    /// that is asked. Which KDC lives should be known by then, from asking something that does no harm.
    ///
    /// # Errors
    ///
    /// See [`Failure`].
    pub async fn with_proof<T, F>(
        &self,
        realm: &str,
        trace: &Trace,
        deadline: Instant,
        dialogue: impl Fn(AsyncKdcClient) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let mut met = false;
        match self.search(realm, trace, deadline, Some(&mut met), &dialogue).await {
            // None of them takes TCP connections, so that none of them was sent anything.
            Err(Failure::Unreachable { .. }) if !met => self.search(realm, trace, deadline, None, dialogue).await,
            end => end,
        }
    }

    async fn search<T, F>(
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

    async fn configuration(&self, deadline: Instant) -> Result<Arc<Configuration>, Failure> {
        timeout_at(deadline, self.shared.watch.fresh()).await.map_err(|_| Failure::Deadline)
    }

    /// The KDCs of a realm in its right case.
    async fn located(
        &self,
        configuration: &Configuration,
        realm: &str,
        trace: &Trace,
        deadline: Instant,
    ) -> Result<Vec<Kdc>, Failure> {
        let listed = configuration.kdcs(realm);
        let kdcs = if !listed.is_empty() {
            listed.to_vec()
        } else if configuration.asks_dns(realm) {
            let unknown = |said: String| Failure::NotFound {
                realm: realm.to_owned(),
                looked_at: vec!["[realms] lists no kdc".to_owned(), said],
            };
            self.in_dns(configuration, realm, trace, deadline).await?.map_err(unknown)?
        } else {
            let why = if dns::dns_lookup_kdc(configuration.krb5()) {
                "[realms] lists only what is not supported"
            } else {
                "[realms] lists no kdc, and dns_lookup_kdc is off"
            };
            trace.line(format_args!("Cannot find KDC for realm \"{realm}\": {why}"));
            return Err(Failure::NotFound { realm: realm.to_owned(), looked_at: vec![why.to_owned()] });
        };
        let mut ordered = self.memory().ordered(realm, &kdcs, Instant::now());
        ordered.truncate(MAX_KDCS);
        Ok(ordered)
    }

    /// What DNS says of the KDCs of a realm; `Err` inside when it says nothing, in words.
    async fn in_dns(
        &self,
        configuration: &Configuration,
        realm: &str,
        trace: &Trace,
        deadline: Instant,
    ) -> Result<Result<Vec<Kdc>, String>, Failure> {
        let known = || self.memory().realm(realm, Instant::now());
        if let Some(answer) = known() {
            return Ok(answer);
        }
        let limit = deadline.min(Instant::now() + LOCATING);
        let lookups = Arc::clone(&self.shared.lookups);
        let answer = timeout_at(limit, async {
            // The limit also makes those who ask for the same realm wait for the first of them.
            let Ok(permit) = lookups.acquire_owned().await else { return Err("DNS is not asked any more".to_owned()) };
            if let Some(answer) = known() {
                return answer;
            }
            trace.line(format_args!(
                "Sending DNS queries for _kerberos.{realm}. (URI), _kerberos._udp.{realm}. and _kerberos._tcp.{realm}. (SRV)"
            ));
            let (directory, realm) = (self.clone(), realm.to_owned());
            let uri = dns::dns_uri_lookup(configuration.krb5());
            let asked = tokio::task::spawn_blocking(move || {
                // This goes on when the caller has stopped waiting: it counts until then, and what it finds is remembered.
                let _permit = permit;
                let resolver = directory.shared.resolver.clone();
                let answer = match name_servers(resolver).and_then(|servers| dns::locate_kdc_servers(&servers, &realm, uri)) {
                    Ok(servers) if servers.is_empty() => Err("DNS has no records of its KDCs".to_owned()),
                    Ok(servers) => Ok(servers.iter().filter_map(from_dns).take(MAX_KDCS).collect()),
                    Err(error) => Err(format!("DNS gave no answer: {error}")),
                };
                directory.memory().located(&realm, answer, Instant::now())
            });
            asked.await.unwrap_or_else(|_| Err("DNS is not asked any more".to_owned()))
        })
        .await;
        let answer = match answer {
            Ok(answer) => answer,
            // The caller had less time than DNS may take: that says nothing about DNS.
            Err(_) if limit == deadline => return Err(Failure::Deadline),
            Err(_) => self.memory().located(realm, Err("DNS gave no answer in time".to_owned()), Instant::now()),
        };
        match &answer {
            Ok(kdcs) => {
                let names: Vec<String> = kdcs.iter().map(Kdc::address).collect();
                trace.line(format_args!("SRV answer for {realm}: {}", names.join(", ")));
            }
            Err(why) => trace.line(format_args!("Cannot find KDC for realm \"{realm}\": {why}")),
        }
        Ok(answer)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // It only speeds things up, so that whatever a panic left in it will do.
        self.shared.memory.lock().unwrap_or_else(PoisonError::into_inner)
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

/// The name servers to ask, within our bounds. Reads a file.
fn name_servers(given: Option<Resolver>) -> io::Result<Resolver> {
    let mut resolver = given.map_or_else(Resolver::system, Ok)?;
    resolver.timeout = resolver.timeout.min(QUESTION);
    resolver.attempts = resolver.attempts.min(2);
    Ok(resolver)
}

/// `dc1.corp.example (192.0.2.1:88)`, or just the address.
fn name(kdc: &Kdc, address: SocketAddr) -> String {
    if kdc.host.parse::<IpAddr>().is_ok() { address.to_string() } else { format!("{} ({address})", kdc.host) }
}

/// A KDC as the crate found it in DNS, `host:port`. The names there end in a dot, which not every way to look names up knows.
fn from_dns((address, transport): &(String, Transport)) -> Option<Kdc> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    let port = port.parse().ok()?;
    (!host.is_empty()).then(|| Kdc { host: host.to_owned(), port, tcp_only: *transport == Transport::Tcp })
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

#[cfg(test)]
mod tests;
