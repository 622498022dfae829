//! The KDCs of a realm: where they are, in which order they are asked, and how long each may take.
//!
//! The `krb5` crate asks all KDCs of a list for every message, each time from the top. Here a [`Directory`] hands it one KDC at a
//! time, knows which one answered last and which ones do not answer, and so lets a KDC that is down or silent cost less than three
//! seconds once and nothing after that. It moves on to the next KDC only when one gave no answer: an answer, such as "wrong
//! password", is final, because asking the next KDC would be another attempt and accounts lock out.

mod events;
mod memory;
mod search;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use krb5::client::Transport;
use krb5::dns::{self, Resolver};
use krb5::{AsyncKdcClient, ClientError};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use self::memory::Memory;
use crate::config::{Configuration, Kdc, RealmError, Watch};
use crate::trace::Trace;

/// For the KDCs of one realm in DNS, which takes up to three questions.
const LOCATING: Duration = Duration::from_secs(5);
/// For one server and one question of those.
const QUESTION: Duration = Duration::from_secs(1);
/// Threads that wait for DNS at once.
const LOOKUPS: usize = 4;
/// Addresses of one name, and KDCs of one realm, that are asked. A domain's name can stand for dozens of domain controllers.
const MAX_ADDRESSES: usize = 16;
const MAX_KDCS: usize = 64;

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

/// The name servers to ask, within our bounds. Reads a file.
fn name_servers(given: Option<Resolver>) -> io::Result<Resolver> {
    let mut resolver = given.map_or_else(Resolver::system, Ok)?;
    resolver.timeout = resolver.timeout.min(QUESTION);
    resolver.attempts = resolver.attempts.min(2);
    Ok(resolver)
}

/// A KDC as the crate found it in DNS, `host:port`. The names there end in a dot, which not every way to look names up knows.
fn from_dns((address, transport): &(String, Transport)) -> Option<Kdc> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    let port = port.parse().ok()?;
    (!host.is_empty()).then(|| Kdc { host: host.to_owned(), port, tcp_only: *transport == Transport::Tcp })
}

#[cfg(test)]
mod tests;
