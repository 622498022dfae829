//! What hosts and domains said about credentials: a wrong password is tried once, never in a loop, for accounts lock out.
//!
//! The first use of a credential in an account's domain (or on a host, for its local accounts) is single-flight: others wait
//! for its verdict. A rejection is remembered and answers later attempts without sending anything. When a credential that
//! was accepted before is rejected by a host, that host is not asked again, and the next attempt elsewhere is
//! single-flight once more: either the host is an exception or the password has changed.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::lock;
use crate::error::{Error, ErrorKind, Stage};
use crate::target::{Credential, Target};

/// Remembers verdicts. Holds digests, no credentials.
#[derive(Debug)]
pub(super) struct Verdicts {
    /// So that digests say nothing outside of this process.
    salt: [u8; 16],
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    realms: HashMap<Digest, Verdict>,
    rejected_by_host: HashSet<Digest>,
}

#[derive(Debug)]
enum Verdict {
    /// Somebody is trying; the sender goes when the verdict is known.
    Pending(watch::Receiver<()>),
    Accepted,
    Rejected,
}

pub(super) type Digest = [u8; 32];

/// Credentials remembered at most, per kind of memory.
const MOST: usize = 20_000;

/// Permission to try a credential. Dropped without a verdict, it lets the next one try.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    verdicts: &'a Verdicts,
    realm: Digest,
    host: Digest,
    /// Present when others wait for this verdict.
    leads: Option<watch::Sender<()>>,
}

impl Verdicts {
    pub(super) fn new() -> Self {
        Self { salt: rand::random(), state: Mutex::default() }
    }

    /// The digest of a credential, for pool keys.
    pub(super) fn digest(&self, credential: &Credential) -> Digest {
        self.hash(&[&credential.username, credential.password.expose()])
    }

    /// Waits until the credential may be tried.
    pub(super) async fn enter(&self, target: &Target, deadline: Instant) -> Result<Attempt<'_>, Error> {
        let username = &target.credential.username;
        let (realm, host) = self.memory_of(target);
        loop {
            let mut pending = {
                let mut state = lock(&self.state);
                if state.rejected_by_host.contains(&host) {
                    return Err(rejected_before(username));
                }
                match state.realms.get(&realm) {
                    Some(Verdict::Rejected) => return Err(rejected_before(username)),
                    Some(Verdict::Accepted) => return Ok(Attempt { verdicts: self, realm, host, leads: None }),
                    Some(Verdict::Pending(pending)) => pending.clone(),
                    None => {
                        let (leads, pending) = watch::channel(());
                        state.make_room();
                        state.realms.insert(realm, Verdict::Pending(pending));
                        return Ok(Attempt { verdicts: self, realm, host, leads: Some(leads) });
                    }
                }
            };
            // The sender never sends; it goes away.
            if timeout_at(deadline, pending.changed()).await.is_err() {
                return Err(Error::new(Stage::Authenticate, ErrorKind::DeadlinePassed).unsent());
            }
        }
    }

    /// A host rejected a credential that it had accepted before.
    pub(super) fn rejected_later(&self, target: &Target) {
        let (realm, host) = self.memory_of(target);
        lock(&self.state).reject(realm, host, false);
    }

    /// Under which digests the verdicts of the account's realm and of the host are remembered.
    fn memory_of(&self, target: &Target) -> (Digest, Digest) {
        let host = target.endpoint.host();
        let password = target.credential.password.expose();
        // Names of accounts are compared without case.
        let account = target.credential.username.to_lowercase();
        let realm = self.hash(&["realm", realm_of(&account, host), &account, password]);
        (realm, self.hash(&["host", host, &account, password]))
    }

    fn hash(&self, parts: &[&str]) -> Digest {
        let mut hash = Sha256::new_with_prefix(self.salt);
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

impl Attempt<'_> {
    /// The credential is right.
    pub(super) fn accepted(self) {
        if self.leads.is_some() {
            lock(&self.verdicts.state).realms.insert(self.realm, Verdict::Accepted);
        }
    }

    /// The host or the domain rejected the credential.
    pub(super) fn rejected(self) {
        lock(&self.verdicts.state).reject(self.realm, self.host, self.leads.is_some());
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.leads.is_some() {
            let mut state = lock(&self.verdicts.state);
            if matches!(state.realms.get(&self.realm), Some(Verdict::Pending(_))) {
                state.realms.remove(&self.realm);
            }
        }
    }
}

impl State {
    fn reject(&mut self, realm: Digest, host: Digest, first: bool) {
        self.make_room();
        self.rejected_by_host.insert(host);
        if first {
            self.realms.insert(realm, Verdict::Rejected);
        } else if matches!(self.realms.get(&realm), Some(Verdict::Accepted)) {
            self.realms.remove(&realm);
        }
    }

    /// Forgetting an acceptance costs a wait, forgetting a rejection one attempt.
    fn make_room(&mut self) {
        if self.realms.len() >= MOST {
            self.realms.retain(|_, verdict| !matches!(verdict, Verdict::Accepted));
        }
        if self.realms.len() >= MOST {
            self.realms.retain(|_, verdict| matches!(verdict, Verdict::Pending(_)));
        }
        if self.rejected_by_host.len() >= MOST {
            self.rejected_by_host.clear();
        }
    }
}

/// Where an account is kept: its domain, or the host for local accounts.
fn realm_of<'a>(account: &'a str, host: &'a str) -> &'a str {
    let domain = match account.split_once('\\') {
        Some((domain, _)) => domain,
        None => account.rsplit_once('@').map_or("", |(_, domain)| domain),
    };
    if domain.is_empty() || domain == "." { host } else { domain }
}

fn rejected_before(user: &str) -> Error {
    Error::new(Stage::Authenticate, ErrorKind::AuthRejectedBefore { user: user.to_owned() }).unsent()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pool::tests::target;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejection_is_remembered_for_the_domain() {
        let verdicts = Verdicts::new();
        let (first, second) = (target("one", r"CORP\alice", "wrong"), target("two", r"corp\Alice", "wrong"));
        verdicts.enter(&first, soon()).await.unwrap().rejected();
        for target in [&first, &second] {
            let error = verdicts.enter(target, soon()).await.unwrap_err();
            assert_eq!(error.code(), "auth.rejected_before");
            assert!(error.credential_rejected() && error.is_unsent());
        }
        // Another password, or a local account of another host, is another matter.
        verdicts.enter(&target("one", r"CORP\alice", "right"), soon()).await.unwrap().accepted();
        verdicts.enter(&target("one", "alice", "wrong"), soon()).await.unwrap().rejected();
        verdicts.enter(&target("two", "alice", "wrong"), soon()).await.unwrap().accepted();
    }

    #[tokio::test(start_paused = true)]
    async fn others_wait_for_the_first_verdict() {
        let verdicts = Verdicts::new();
        let target = target("one", "alice", "x");
        let leader = verdicts.enter(&target, soon()).await.unwrap();
        let error = verdicts.enter(&target, soon()).await.unwrap_err();
        assert_eq!(error.code(), "timeout.deadline");
        let (attempt, ()) = tokio::join!(verdicts.enter(&target, soon()), async { leader.accepted() });
        attempt.unwrap().accepted();
        // Once accepted, attempts run side by side.
        let (a, b) = tokio::join!(verdicts.enter(&target, soon()), verdicts.enter(&target, soon()));
        assert!(a.is_ok() && b.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_without_verdict_lets_the_next_one_try() {
        let verdicts = Verdicts::new();
        let target = target("one", "alice", "x");
        let leader = verdicts.enter(&target, soon()).await.unwrap();
        let (attempt, ()) = tokio::join!(verdicts.enter(&target, soon()), async { drop(leader) });
        assert!(attempt.unwrap().leads.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejection_after_an_acceptance_makes_the_next_attempt_single_flight() {
        let verdicts = Verdicts::new();
        let (one, two) = (target("one", r"CORP\alice", "x"), target("two", r"CORP\alice", "x"));
        verdicts.enter(&one, soon()).await.unwrap().accepted();
        verdicts.enter(&one, soon()).await.unwrap().rejected();
        assert!(verdicts.enter(&one, soon()).await.is_err());
        let next = verdicts.enter(&two, soon()).await.unwrap();
        assert!(next.leads.is_some());
        next.rejected();
        assert!(verdicts.enter(&target("three", r"CORP\alice", "x"), soon()).await.is_err());
    }
}
