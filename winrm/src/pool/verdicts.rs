//! What hosts and domains said about credentials: a wrong password is tried once, never in a loop, for accounts lock out.
//!
//! The first use of a credential in an account's domain (or on a host, for its local accounts) is single-flight: others wait
//! for its verdict. So is the first use after a while: the password may have been changed. Not so with Kerberos alone, where
//! the password goes to no host. A rejection is remembered and answers later attempts without sending anything. When a
//! credential that was accepted before is rejected by a host, that host is not asked again, and the next attempt elsewhere is
//! single-flight once more: either the host is an exception or the password has changed.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::lock;
use crate::error::{Error, ErrorKind, Stage};
use crate::session::Session;
use crate::target::{AuthKind, Credential, ShellProperties, Target};

/// Remembers verdicts. Holds digests, no credentials.
#[derive(Debug)]
pub(crate) struct Verdicts {
    /// So that digests say nothing outside of this process.
    salt: [u8; 16],
    state: Mutex<State>,
    /// Rejections so far: while there is no new one, nobody who was allowed needs to ask again.
    rejections: AtomicU64,
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
    /// Accepted, the last time at this instant.
    Accepted(Instant),
    Rejected,
}

pub(super) type Digest = [u8; 32];

/// Credentials remembered at most, per kind of memory.
const MOST: usize = 20_000;
/// How long an acceptance lets others try side by side. A credential that is used all the time is never held up; of one that
/// was changed meanwhile, a hundred tasks at a time make one attempt.
const FRESH: Duration = Duration::from_secs(60);

/// Permission to try a credential. Dropped without a verdict, it lets the next one try.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    verdicts: &'a Verdicts,
    realm: Digest,
    host: Digest,
    /// Present when others wait for this verdict.
    leads: Option<watch::Sender<()>>,
    /// When the credential was accepted before.
    before: Option<Instant>,
}

impl Verdicts {
    pub(super) fn new() -> Self {
        Self { salt: rand::random(), state: Mutex::default(), rejections: AtomicU64::new(0) }
    }

    /// The digest of a credential, for pool keys.
    pub(super) fn digest(&self, credential: &Credential) -> Digest {
        let Proof { tickets, password } = Proof::of(credential);
        self.hash(&[credential.username().as_bytes(), tickets.as_slice(), password])
    }

    /// The digest of a shell's secret variables, for pool keys.
    pub(super) fn secrets_digest(&self, shell: &ShellProperties) -> Digest {
        let parts = shell.secret_environment.iter();
        let parts: Vec<&[u8]> = parts.flat_map(|(name, value)| [name.as_bytes(), value.expose().as_bytes()]).collect();
        self.hash(&parts)
    }

    /// Fails when the credential is known to be wrong.
    pub(super) fn check(&self, target: &Target) -> Result<(), Error> {
        let (realm, host) = self.memory_of(target);
        let state = lock(&self.state);
        if state.rejected_by_host.contains(&host) || matches!(state.realms.get(&realm), Some(Verdict::Rejected)) {
            return Err(rejected_before(target.credential.username()));
        }
        Ok(())
    }

    /// Like [`Verdicts::check`], for a session that asks before each request. Digests are made only when somebody was
    /// rejected since it asked the last time.
    pub(super) fn check_session(&self, session: &Session) -> Result<(), Error> {
        // Read first: a rejection that comes while we look is looked for the next time.
        let rejections = self.rejections.load(Ordering::Acquire);
        if session.allowed_until() != Some(rejections) {
            self.check(session.target())?;
            session.allow_until(rejections);
        }
        Ok(())
    }

    /// Waits until the credential may be tried.
    pub(crate) async fn enter(&self, target: &Target, deadline: Instant) -> Result<Attempt<'_>, Error> {
        let (realm, host) = self.memory_of(target);
        if target.auth == AuthKind::Kerberos {
            // No host ever sees the password. The source of tickets proves it to the KDC, once for all who wait, and a KDC that is
            // silent holds up those who need it side by side and not one after the other.
            self.check(target)?;
            return Ok(Attempt { verdicts: self, realm, host, leads: None, before: None });
        }
        loop {
            self.check(target)?;
            let mut pending = {
                let mut state = lock(&self.state);
                let before = match state.realms.get(&realm) {
                    // Rejected since the check.
                    Some(Verdict::Rejected) => continue,
                    Some(Verdict::Pending(pending)) => Err(pending.clone()),
                    Some(Verdict::Accepted(at)) if at.elapsed() < FRESH => {
                        return Ok(Attempt { verdicts: self, realm, host, leads: None, before: Some(*at) });
                    }
                    Some(Verdict::Accepted(at)) => Ok(Some(*at)),
                    None => Ok(None),
                };
                match before {
                    Err(pending) => pending,
                    Ok(before) => {
                        let (leads, pending) = watch::channel(());
                        state.make_room();
                        state.realms.insert(realm, Verdict::Pending(pending));
                        return Ok(Attempt { verdicts: self, realm, host, leads: Some(leads), before });
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
        let mut state = lock(&self.state);
        state.reject_by_host(host);
        if matches!(state.realms.get(&realm), Some(Verdict::Accepted(_))) {
            state.realms.remove(&realm);
        }
        self.rejections.fetch_add(1, Ordering::Release);
    }

    /// Under which digests the verdicts of the account's realm and of the host are remembered.
    fn memory_of(&self, target: &Target) -> (Digest, Digest) {
        let host = target.endpoint.host();
        let Proof { tickets, password } = Proof::of(&target.credential);
        // Names of accounts are compared without case.
        let account = target.credential.username().to_lowercase();
        // Tickets come from the domain, whatever the form of the name.
        let realm = if tickets.is_empty() { realm_of(&account, host) } else { "" };
        let realm = self.hash(&[b"realm", realm.as_bytes(), account.as_bytes(), tickets.as_slice(), password]);
        (realm, self.hash(&[b"host", host.as_bytes(), account.as_bytes(), tickets.as_slice(), password]))
    }

    fn hash(&self, parts: &[&[u8]]) -> Digest {
        let mut hash = Sha256::new_with_prefix(self.salt);
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

/// What tells one proof of the same user from another.
struct Proof<'a> {
    /// The identity behind a source of tickets; empty for a password alone.
    tickets: Vec<u8>,
    password: &'a [u8],
}

impl<'a> Proof<'a> {
    fn of(credential: &'a Credential) -> Self {
        let tickets = credential.source().map(|source| source.identity().to_vec()).unwrap_or_default();
        Self { tickets, password: credential.secret().map_or(&[], |password| password.expose().as_bytes()) }
    }
}

impl<'a> Attempt<'a> {
    /// What came of a logon. The attempt is returned as long as nobody knows what the host thinks of the credential: Basic is
    /// judged with the first request, see [`settle`].
    pub(crate) fn logon<T>(self, auth: AuthKind, result: &Result<T, Error>) -> Option<Attempt<'a>> {
        match result {
            Ok(_) if auth == AuthKind::Basic => return Some(self),
            Ok(_) => self.accepted(),
            // What a KDC refused is remembered by the source of tickets, which knows when the keytab was replaced or the account
            // unlocked: here it would stand for ever.
            Err(error) if matches!(error.kind(), ErrorKind::Ticket(_)) => {}
            Err(error) if error.credential_rejected() => self.rejected(),
            // The KDC took the credential; what this host has against the user holds up nobody elsewhere.
            Err(error)
                if matches!(error.kind(), ErrorKind::TicketRefused { .. } | ErrorKind::TicketTooLarge { .. }) =>
            {
                self.accepted();
            }
            Err(_) => {}
        }
        None
    }

    /// The credential is right.
    pub(super) fn accepted(mut self) {
        let mut state = lock(&self.verdicts.state);
        // Without the lead, a verdict of somebody else's meanwhile stands.
        if self.leads.is_some() || matches!(state.realms.get(&self.realm), Some(Verdict::Accepted(_))) {
            state.realms.insert(self.realm, Verdict::Accepted(Instant::now()));
        }
        self.leads = None;
    }

    /// The host or the domain rejected the credential.
    pub(super) fn rejected(mut self) {
        let mut state = lock(&self.verdicts.state);
        state.reject_by_host(self.host);
        if self.leads.is_some() && self.before.is_none() {
            state.realms.insert(self.realm, Verdict::Rejected);
        } else if self.leads.is_some() || matches!(state.realms.get(&self.realm), Some(Verdict::Accepted(_))) {
            state.realms.remove(&self.realm);
        }
        self.verdicts.rejections.fetch_add(1, Ordering::Release);
        self.leads = None;
    }
}

/// Passes on what the host said about a credential that was judged with the first request.
pub(crate) fn settle<T>(attempt: Option<Attempt<'_>>, result: &Result<T, Error>) {
    if let Some(attempt) = attempt {
        match result {
            Ok(_) => attempt.accepted(),
            Err(error) if error.credential_rejected() => attempt.rejected(),
            // A fault comes from behind the authentication.
            Err(error) if error.fault().is_some() => attempt.accepted(),
            Err(_) => {}
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.leads.is_some() {
            let mut state = lock(&self.verdicts.state);
            match self.before {
                Some(at) => state.realms.insert(self.realm, Verdict::Accepted(at)),
                None => state.realms.remove(&self.realm),
            };
        }
    }
}

impl State {
    fn reject_by_host(&mut self, host: Digest) {
        self.make_room();
        self.rejected_by_host.insert(host);
    }

    /// Forgetting an acceptance costs a wait, forgetting a rejection one attempt.
    fn make_room(&mut self) {
        if self.realms.len() >= MOST {
            self.realms.retain(|_, verdict| !matches!(verdict, Verdict::Accepted(_)));
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
    async fn tickets_are_told_apart_by_their_identity_and_rejected_for_all_hosts() {
        use crate::auth::kerberos::minted::Source;
        let verdicts = Verdicts::new();
        let with = |host: &str, identity: u8| {
            let mut target = target(host, "alice", "x");
            let source = Source { identity, ..Source::default() };
            target.credential = Credential::tickets("alice", std::sync::Arc::new(source), None);
            target
        };
        verdicts.enter(&with("one", 1), soon()).await.unwrap().rejected();
        // A bare name is the domain's, for its tickets are.
        assert!(verdicts.enter(&with("two", 1), soon()).await.is_err());
        verdicts.enter(&with("two", 2), soon()).await.unwrap().accepted();
        verdicts.enter(&target("two", "alice", "x"), soon()).await.unwrap().accepted();
        let digest = |identity| verdicts.digest(&with("one", identity).credential);
        assert!(digest(1) == digest(1) && digest(1) != digest(2));
    }

    #[tokio::test(start_paused = true)]
    async fn kerberos_is_judged_by_the_source_of_tickets_and_nobody_waits() {
        let verdicts = Verdicts::new();
        let mut target = target("one", "alice@CORP.EXAMPLE", "x");
        target.auth = AuthKind::Kerberos;
        let (first, second) = (verdicts.enter(&target, soon()).await, verdicts.enter(&target, soon()).await);
        assert!(first.is_ok() && second.is_ok());
        // What a host has against the user is remembered all the same.
        first.unwrap().rejected();
        assert!(verdicts.enter(&target, soon()).await.is_err());
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

    #[tokio::test(start_paused = true)]
    async fn an_old_acceptance_is_made_sure_of_by_one() {
        let verdicts = Verdicts::new();
        let hosts = ["one", "two", "three"].map(|host| target(host, r"CORP\alice", "x"));
        verdicts.enter(&hosts[0], soon()).await.unwrap().accepted();
        tokio::time::advance(FRESH / 2).await;
        // Use keeps it fresh.
        let side_by_side = verdicts.enter(&hosts[1], soon()).await.unwrap();
        assert!(side_by_side.leads.is_none());
        side_by_side.accepted();
        tokio::time::advance(FRESH / 2).await;
        assert!(verdicts.enter(&hosts[2], soon()).await.unwrap().leads.is_none());
        tokio::time::advance(FRESH).await;
        let leader = verdicts.enter(&hosts[0], soon()).await.unwrap();
        assert!(leader.leads.is_some());
        let (second, ()) = tokio::join!(verdicts.enter(&hosts[1], soon()), async { drop(leader) });
        // Without a verdict the next one leads; rejected by one host, the credential may still be right elsewhere.
        second.unwrap().rejected();
        assert!(verdicts.enter(&hosts[1], soon()).await.is_err());
        verdicts.enter(&hosts[2], soon()).await.unwrap().rejected();
        assert!(verdicts.enter(&hosts[0], soon()).await.is_err());
    }
}
