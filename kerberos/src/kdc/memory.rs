//! What is known about KDCs from asking them before: where they are, which one answered last, which ones did not.
//!
//! It changes nothing but the order in which KDCs are asked and how often DNS is; forgetting any of it is harmless. So it is
//! bounded by forgetting. Realms are names that callers bring, and must not fill the memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Kdc;

/// How long a KDC that did not answer is asked after all others.
const DEAD: Duration = Duration::from_secs(60);
/// How long an answer of DNS is good. The crate's resolver does not tell how long the answer itself says.
const FOUND: Duration = Duration::from_secs(60);
/// How long DNS is not asked again after it had no answer.
const NOT_FOUND: Duration = Duration::from_secs(5);
/// Entries of each kind.
const MOST: usize = 1_000;

#[derive(Debug, Default)]
pub(super) struct Memory {
    /// KDCs of a realm by DNS, or what DNS said instead.
    realms: HashMap<String, (Result<Vec<Kdc>, String>, Instant)>,
    /// Addresses of a host.
    hosts: HashMap<String, (Vec<IpAddr>, Instant)>,
    /// The KDC of a realm that answered last.
    good: HashMap<String, SocketAddr>,
    /// KDCs that did not answer, and when.
    dead: HashMap<SocketAddr, Instant>,
    /// Hosts without an address, and when that was seen.
    nameless: HashMap<String, Instant>,
}

impl Memory {
    /// What DNS said of a realm, while that is good.
    pub(super) fn realm(&self, realm: &str, now: Instant) -> Option<Result<Vec<Kdc>, String>> {
        let (answer, at) = self.realms.get(realm)?;
        let good_for = if answer.is_ok() { FOUND } else { NOT_FOUND };
        (now.saturating_duration_since(*at) < good_for).then(|| answer.clone())
    }

    /// Remembers what DNS said. An answer that is missing does not take the place of one that was there.
    pub(super) fn located(
        &mut self,
        realm: &str,
        answer: Result<Vec<Kdc>, String>,
        now: Instant,
    ) -> Result<Vec<Kdc>, String> {
        let answer = match (answer, self.realms.remove(realm)) {
            (Err(_), Some((Ok(earlier), _))) => Ok(earlier),
            (answer, _) => answer,
        };
        insert(&mut self.realms, realm.to_owned(), (answer.clone(), now));
        answer
    }

    /// Realms whose KDCs DNS has given, for tickets that lead through them.
    pub(super) fn located_realms(&self) -> impl Iterator<Item = (&String, &Vec<Kdc>)> {
        self.realms.iter().filter_map(|(realm, (answer, _))| Some((realm, answer.as_ref().ok()?)))
    }

    /// The addresses of a host, while they are good.
    pub(super) fn host(&self, host: &str, now: Instant) -> Option<&[IpAddr]> {
        let (addresses, at) = self.hosts.get(host)?;
        (now.saturating_duration_since(*at) < FOUND).then_some(addresses)
    }

    pub(super) fn resolved(&mut self, host: &str, addresses: Vec<IpAddr>, now: Instant) {
        self.nameless.remove(host);
        insert(&mut self.hosts, host.to_owned(), (addresses, now));
    }

    pub(super) fn unresolved(&mut self, host: &str, now: Instant) {
        self.hosts.remove(host);
        insert(&mut self.nameless, host.to_owned(), now);
    }

    /// Whether the host had no address lately.
    pub(super) fn is_nameless(&self, host: &str, now: Instant) -> bool {
        self.nameless.get(host).is_some_and(|at| now.saturating_duration_since(*at) < DEAD)
    }

    /// A KDC answered, whatever it said.
    pub(super) fn answered(&mut self, realm: &str, kdc: SocketAddr) {
        self.dead.remove(&kdc);
        insert(&mut self.good, realm.to_owned(), kdc);
    }

    /// A KDC did not answer.
    pub(super) fn failed(&mut self, realm: &str, kdc: SocketAddr, now: Instant) {
        if self.good.get(realm) == Some(&kdc) {
            self.good.remove(realm);
        }
        insert(&mut self.dead, kdc, now);
    }

    /// Whether a KDC did not answer lately.
    pub(super) fn is_dead(&self, kdc: SocketAddr, now: Instant) -> bool {
        self.dead.get(&kdc).is_some_and(|at| now.saturating_duration_since(*at) < DEAD)
    }

    /// Whether this is the KDC of the realm that answered last.
    pub(super) fn is_good(&self, realm: &str, kdc: SocketAddr) -> bool {
        self.good.get(realm) == Some(&kdc)
    }

    /// KDCs in the order to ask them: the one that answered last, then those nothing speaks against, in their own order, then
    /// those that did not answer lately.
    pub(super) fn ordered(&self, realm: &str, kdcs: &[Kdc], now: Instant) -> Vec<Kdc> {
        let mut ordered = kdcs.to_vec();
        ordered.sort_by_key(|kdc| {
            let mut addresses = self.addresses(kdc).peekable();
            if addresses.peek().is_none() {
                return if self.is_nameless(&kdc.host, now) { 2 } else { 1 };
            }
            let addresses: Vec<SocketAddr> = addresses.collect();
            if addresses.iter().any(|address| self.is_good(realm, *address)) {
                0
            } else if addresses.iter().all(|address| self.is_dead(*address, now)) {
                2
            } else {
                1
            }
        });
        ordered
    }

    /// The addresses that a KDC had when it was last looked up.
    fn addresses(&self, kdc: &Kdc) -> impl Iterator<Item = SocketAddr> {
        let literal = kdc.host.parse::<IpAddr>().ok();
        let known = self.hosts.get(&kdc.host).map(|(addresses, _)| addresses.as_slice()).unwrap_or_default();
        let port = kdc.port;
        literal.into_iter().chain(known.iter().copied()).map(move |address| SocketAddr::new(address, port))
    }
}

/// Inserts, after forgetting everything of this kind when there is too much of it.
fn insert<K: Eq + Hash, V>(map: &mut HashMap<K, V>, key: K, value: V) {
    if map.len() >= MOST && !map.contains_key(&key) {
        map.clear();
    }
    map.insert(key, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    const REALM: &str = "CORP.EXAMPLE";

    fn kdc(host: &str) -> Kdc {
        Kdc { host: host.to_owned(), port: 88, tcp_only: false }
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 88))
    }

    fn order(memory: &Memory, kdcs: &[Kdc], now: Instant) -> String {
        memory.ordered(REALM, kdcs, now).iter().map(|kdc| kdc.host.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_last_good_one_is_first_and_dead_ones_are_last_for_a_while() {
        let now = Instant::now();
        let mut memory = Memory::default();
        let kdcs = [kdc("a"), kdc("192.0.2.2"), kdc("c"), kdc("d")];
        assert_eq!(order(&memory, &kdcs, now), "a 192.0.2.2 c d");
        memory.resolved("a", vec![address(1).ip()], now);
        memory.failed(REALM, address(1), now);
        assert_eq!(order(&memory, &kdcs, now), "192.0.2.2 c d a");
        memory.resolved("c", vec![address(9).ip(), address(3).ip()], now);
        memory.answered(REALM, address(3));
        assert_eq!(order(&memory, &kdcs, now), "c 192.0.2.2 d a");
        // Another realm knows nothing of this.
        assert_eq!(memory.ordered("OTHER.EXAMPLE", &kdcs, now)[0].host, "192.0.2.2");
        memory.unresolved("d", now);
        assert_eq!(order(&memory, &kdcs, now), "c 192.0.2.2 a d");
        memory.failed(REALM, address(2), now);
        // All are asked in their own order again after a while, but the good one stays first: nobody pays for trying the others.
        let later = now + DEAD;
        assert_eq!(order(&memory, &kdcs, later), "c a 192.0.2.2 d");
        memory.failed(REALM, address(3), later);
        assert_eq!(order(&memory, &kdcs, later), "a 192.0.2.2 c d");
    }

    #[test]
    fn what_dns_said_is_good_for_a_while() {
        let now = Instant::now();
        let mut memory = Memory::default();
        assert_eq!(memory.realm(REALM, now), None);
        assert_eq!(memory.located(REALM, Err("none".to_owned()), now), Err("none".to_owned()));
        assert_eq!(memory.realm(REALM, now), Some(Err("none".to_owned())));
        assert_eq!(memory.realm(REALM, now + NOT_FOUND), None);
        assert_eq!(memory.located(REALM, Ok(vec![kdc("a")]), now), Ok(vec![kdc("a")]));
        assert_eq!(memory.realm(REALM, now + FOUND), None);
        // DNS fails: what it said before is better than nothing.
        let later = now + FOUND;
        assert_eq!(memory.located(REALM, Err("silent".to_owned()), later), Ok(vec![kdc("a")]));
        assert_eq!(memory.realm(REALM, later), Some(Ok(vec![kdc("a")])));
    }

    #[test]
    fn the_memory_is_bounded() {
        let now = Instant::now();
        let mut memory = Memory::default();
        for number in 0..3 * MOST {
            let _ = memory.located(&format!("R{number}"), Ok(Vec::new()), now);
            memory.unresolved(&format!("h{number}"), now);
        }
        assert!(memory.realms.len() <= MOST && memory.nameless.len() <= MOST);
    }
}
