//! One login: from a password or keytab to a ticket-granting ticket, or an error that says why not.
//!
//! INVARIANT: a password that the KDC refused is never sent again, and a keytab with at most [`MAX_VERSIONS`] of its key versions: accounts
//! lock out. What was refused is remembered by the content of the credential, until it is forgotten or replaced.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use krb5::acceptor::ServiceKey;
use krb5::{AsyncKdcClient, ClientError, Credentials, Principal};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::time::{Duration, Instant, timeout_at};
use zeroize::Zeroizing;

use super::identity::{CredentialSource, Identity};
use super::names;
use super::shelf::{Outcome, unix_now};
use crate::config::{Configuration, Watch};
use crate::enquire::{self, Reply};
use crate::error::catalogue::{self, Asked, Login, With};
use crate::error::{Error, ErrorKind};
use crate::kdc::{Directory, Failure};
use crate::keytab::Keytab;
use crate::trace::Trace;

/// How many key versions of a keytab are tried: the newest, and two that may be meant instead. (A replica of the KDC may not know the
/// newest key yet; ktutil writes whatever version it is told, and versions wrap at 256.) Active Directory does not count an attempt
/// with one of the last two passwords, and common lockout thresholds are five attempts or more.
const MAX_VERSIONS: usize = 3;

/// Logins and ticket requests under way at once; more wait for their turn. Deriving a key from a password takes processor time.
const AT_ONCE: usize = 32;

/// How long one flight may take, whoever waits for it.
pub(super) const FLIGHT: Duration = Duration::from_secs(30);

/// How long it is remembered that an account may not log in (locked, disabled, expired). Asking again does not count as an
/// attempt as far as is known, so this is only to spare the KDC.
const BRIEFLY: Duration = Duration::from_secs(30);

/// Entries of each memory. Beyond that everything about the least recent half goes.
const MAX_MEMORY: usize = 10_000;

// TicketFlags, RFC 4120 5.3, and those TGS errors that say that the ticket-granting ticket is of no use to this KDC.
const FORWARDABLE: u32 = 1 << 30;
const TICKET_ERRORS: [i32; 6] = [20, 31, 32, 33, 41, 45];
const CLIENT_UNKNOWN: i32 = 6;
const POLICY: i32 = 12;
const BAD_OPTION: i32 = 13;
const ENCTYPE: i32 = 14;
const REVOKED: i32 = 18;
const KEY_EXPIRED: i32 = 23;
const PREAUTH_FAILED: i32 = 24;
const SKEW: i32 = 37;
const WRONG_REALM: i32 = 68;

/// All that a login needs, shared by the flights.
#[derive(Debug)]
pub(super) struct Dialogue {
    pub(super) config: Arc<Watch>,
    pub(super) directory: Directory,
    turns: Semaphore,
    memory: Mutex<Memory>,
    /// By login: one at a time, so that those who keep nothing, and those who keep a ticket beside them, do not all try what the KDC
    /// just refused.
    gates: Mutex<HashMap<[u8; 32], Arc<tokio::sync::Mutex<()>>>>,
}

#[derive(Debug, Default)]
struct Memory {
    /// By login: what was refused, and until when that is believed.
    refused: HashMap<[u8; 32], Refused>,
    /// By content of a keytab: the version whose key was accepted last.
    accepted: HashMap<[u8; 32], u32>,
    /// Logins of identities that somebody wants to delegate: their ticket-granting tickets are asked for as forwardable.
    delegated: HashSet<[u8; 32]>,
}

#[derive(Debug, Clone)]
struct Refused {
    version: [u8; 32],
    error: Error,
    until: Option<Instant>,
}

/// What proves an identity, as it is now.
enum Material {
    Password(Zeroizing<String>),
    Keytab { keytab: Arc<Keytab>, version: [u8; 32] },
}

impl Dialogue {
    pub(super) fn new(config: Arc<Watch>) -> Self {
        let directory = Directory::new(config.clone());
        Self { config, directory, turns: Semaphore::new(AT_ONCE), memory: Mutex::default(), gates: Mutex::default() }
    }

    /// A ticket-granting ticket: `held` renewed if that can be done, else by logging in. `digest` is that of the login.
    pub(super) async fn ticket_granting(
        &self,
        identity: &Identity,
        digest: [u8; 32],
        held: Option<Arc<Credentials>>,
        trace: &Trace,
    ) -> Outcome {
        let gate = {
            let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
            // Only those that somebody holds are of use.
            gates.retain(|_, gate| Arc::strong_count(gate) > 1);
            gates.entry(digest).or_default().clone()
        };
        let Ok(_alone) = timeout_at(Instant::now() + FLIGHT, gate.lock()).await else {
            return Err(catalogue::waited_too_long());
        };
        let deadline = Instant::now() + FLIGHT;
        let Ok(Ok(_turn)) = timeout_at(deadline, self.turns.acquire()).await else {
            return Err(catalogue::waited_too_long());
        };
        let mut material = Material::load(&identity.source, deadline).await?;
        if let Some(error) = self.refused(&digest, &material.version()) {
            trace.line(format_args!("Not asking again: {error}"));
            return Err(error);
        }
        if let Some(held) = held
            && held.can_renew_at(unix_now())
            && (!self.is_delegated(&digest) || held.flags & FORWARDABLE != 0)
            && let Some(renewed) = self.renewed(&held, trace, deadline).await?
        {
            return Ok(renewed);
        }
        loop {
            match self.log_in(identity, &digest, &material, trace, deadline).await {
                Err(error) if error.kind() == ErrorKind::Rejected => {
                    // The keytab may have been replaced while this one was tried; only that is tried as well.
                    let version = material.version();
                    if let Ok(now) = Material::load(&identity.source, deadline).await
                        && now.version() != version
                        && self.refused(&digest, &now.version()).is_none()
                    {
                        self.refuse(digest, version, &error);
                        material = now;
                        continue;
                    }
                    self.refuse(digest, version, &error);
                    return Err(error);
                }
                Err(error) if error.code() == catalogue::UNJUDGED => {
                    self.refuse(digest, material.version(), &error);
                    return Err(error);
                }
                other => return other,
            }
        }
    }

    /// Nothing when it is better to log in anew.
    async fn renewed(
        &self,
        held: &Arc<Credentials>,
        trace: &Trace,
        deadline: Instant,
    ) -> Result<Option<Arc<Credentials>>, Error> {
        let realm = ticket_realm(held);
        trace.line(format_args!("Renewing the ticket-granting ticket of {}", held.client));
        let ticket = held.clone();
        let renew = move |client: AsyncKdcClient| {
            let ticket = ticket.clone();
            async move { client.renew(&ticket).await }
        };
        match self.directory.with_client(realm, trace, deadline, renew).await {
            Ok(renewed) => {
                let life = |ticket: &Credentials| ticket.endtime - ticket.starttime.unwrap_or(ticket.authtime);
                // Near the end of its renewable life a ticket comes back with little left.
                Ok((life(&renewed) * 2 >= life(held)).then(|| Arc::new(renewed)))
            }
            Err(Failure::Kdc(error)) => {
                trace.line(format_args!("Not renewed: {error}"));
                Ok(None)
            }
            Err(failure) => {
                let login = login(held.client.to_string(), realm, With::Password);
                Err(catalogue::of(&failure, &login, Asked::Login, None))
            }
        }
    }

    async fn log_in(
        &self,
        identity: &Identity,
        digest: &[u8; 32],
        material: &Material,
        trace: &Trace,
        deadline: Instant,
    ) -> Outcome {
        let config = self.config.fresh().await;
        let principals = material.principals(identity, &config)?;
        let forwardable = self.is_delegated(digest);
        let mut first = None;
        for (at, principal) in principals.iter().enumerate() {
            trace.line(format_args!("Getting initial credentials for {principal}"));
            // Finds out which KDC lives, by a question that proves nothing: the login itself goes to one, and once.
            let mut result = match enquire::of_realm(&self.directory, principal, trace, deadline).await {
                Ok(_) => self.attempt(principal, material, forwardable, trace, deadline).await,
                Err(failure) => Err(failure),
            };
            if let Err(Failure::Kdc(error)) = &result
                && forwardable
                && matches!(error.kdc_code(), Some(POLICY | BAD_OPTION))
            {
                // The account may not be delegated. That is for those to hear who want to delegate it, and for nobody else.
                trace.line(format_args!("Not with a forwardable ticket: {error}"));
                result = self.attempt(principal, material, false, trace, deadline).await;
            }
            let failure = match result {
                Ok(ticket) => {
                    trace.line(format_args!("Received the ticket-granting ticket of {}", ticket.client));
                    return Ok(Arc::new(ticket));
                }
                Err(failure) => failure,
            };
            let elsewhere = match &failure {
                Failure::Kdc(error) => matches!(error.kdc_code(), Some(CLIENT_UNKNOWN | WRONG_REALM)),
                Failure::NotFound { .. } => true,
                _ => false,
            };
            if elsewhere && at + 1 < principals.len() {
                first.get_or_insert((principal, failure));
                continue;
            }
            // Of several names the first is the one that people mean.
            let (principal, failure) =
                if elsewhere { first.unwrap_or((principal, failure)) } else { (principal, failure) };
            return Err(self.explain(&failure, principal, material.with(), trace, deadline).await);
        }
        Err(catalogue::principal_invalid(&identity.principal, "It names nobody."))
    }

    async fn attempt(
        &self,
        principal: &Principal,
        material: &Material,
        forwardable: bool,
        trace: &Trace,
        deadline: Instant,
    ) -> Result<Credentials, Failure> {
        match material {
            Material::Password(password) => {
                self.with_password(principal, password.clone(), forwardable, trace, deadline).await
            }
            Material::Keytab { keytab, version } => {
                self.with_keytab(principal, keytab, version, forwardable, trace, deadline).await
            }
        }
    }

    async fn with_password(
        &self,
        principal: &Principal,
        password: Zeroizing<String>,
        forwardable: bool,
        trace: &Trace,
        deadline: Instant,
    ) -> Result<Credentials, Failure> {
        let (directory, trace, realm) = (self.directory.clone(), trace.clone(), principal.realm.clone());
        let principal = principal.clone();
        // Making a key of a password takes tens of milliseconds: not on a thread that others wait for.
        let runtime = tokio::runtime::Handle::current();
        let work = tokio::task::spawn_blocking(move || {
            runtime.block_on(async move {
                let work = |client: AsyncKdcClient| {
                    let (principal, password) = (principal.clone(), password.clone());
                    async move { with_flags(client, forwardable).login_with_password(&principal, &password).await }
                };
                directory.with_proof(&realm, &trace, deadline, work).await
            })
        });
        work.await.unwrap_or(Err(Failure::Deadline))
    }

    async fn with_keytab(
        &self,
        principal: &Principal,
        keytab: &Keytab,
        version: &[u8; 32],
        forwardable: bool,
        trace: &Trace,
        deadline: Instant,
    ) -> Result<Credentials, Failure> {
        let name = held_name(principal, keytab);
        let accepted = self.memory().accepted.get(version).copied();
        let mut failed = Failure::Kdc(ClientError::NoKey(format!("no usable key of {principal}")));
        for kvno in versions(keytab, &name, accepted) {
            trace.line(format_args!("Trying the keys of {principal} of version {kvno}"));
            let keys = Arc::new(in_realm(&keytab.only(&name, Some(kvno)), &principal.realm));
            let principal = principal.clone();
            let realm = principal.realm.clone();
            let work = move |client: AsyncKdcClient| {
                let (principal, keys) = (principal.clone(), keys.clone());
                async move { with_flags(client, forwardable).login_with_keytab(&principal, &keys).await }
            };
            match self.directory.with_proof(&realm, trace, deadline, work).await {
                Ok(ticket) => {
                    self.memory().accept(*version, kvno);
                    return Ok(ticket);
                }
                // Another version may have the right key, or a key of the right type.
                Err(Failure::Kdc(error)) if is_wrong_key(&error) => {
                    trace.line(format_args!("The KDC does not take them: {error}"));
                    // That a key was wrong says more than that one had the wrong type.
                    if !matches!(&failed, Failure::Kdc(error) if error.kdc_code() == Some(PREAUTH_FAILED)) {
                        failed = Failure::Kdc(error);
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(failed)
    }

    /// The error of a failed login. Some refusals say more when they are asked about.
    async fn explain(
        &self,
        failure: &Failure,
        principal: &Principal,
        with: With,
        trace: &Trace,
        deadline: Instant,
    ) -> Error {
        let code = match failure {
            Failure::Kdc(error) => error.kdc_code(),
            _ => None,
        };
        let worth = match code {
            Some(REVOKED | KEY_EXPIRED | SKEW | ENCTYPE) => true,
            Some(PREAUTH_FAILED) => with == With::Keytab,
            Some(_) => false,
            None => matches!(
                failure,
                Failure::Kdc(ClientError::Crypto(_) | ClientError::Protocol(_) | ClientError::NoKey(_))
            ),
        };
        let enquiry = if worth { self.enquire(principal, trace, deadline).await } else { None };
        let login = login(display(principal), &principal.realm, with);
        let error = catalogue::of(failure, &login, Asked::Login, enquiry.as_ref());
        trace.line(format_args!("Login failed: {error} ({})", error.code()));
        error
    }

    async fn enquire(&self, principal: &Principal, trace: &Trace, deadline: Instant) -> Option<Reply> {
        enquire::of_realm(&self.directory, principal, trace, deadline).await.ok()
    }

    /// A ticket for `service`, which may have the empty realm.
    pub(super) async fn service(
        &self,
        granting: &Arc<Credentials>,
        service: &Principal,
        with: With,
        trace: &Trace,
    ) -> Outcome {
        let work = {
            let (granting, service) = (granting.clone(), service.clone());
            move |client: AsyncKdcClient| {
                let (granting, service) = (granting.clone(), service.clone());
                async move { client.service_ticket(&granting, &service).await }
            }
        };
        let name = display(service);
        trace.line(format_args!("Getting credentials {} -> {name}", granting.client));
        let ticket = self.exchange(granting, Asked::Service(&name), with, trace, work).await?;
        trace.line(format_args!("Received credentials for {name}"));
        Ok(ticket)
    }

    /// A ticket-granting ticket for a host to act with.
    pub(super) async fn forwarded(
        &self,
        granting: &Arc<Credentials>,
        enctype: i32,
        with: With,
        trace: &Trace,
    ) -> Outcome {
        if granting.flags & FORWARDABLE == 0 {
            let login = login(granting.client.to_string(), ticket_realm(granting), with);
            return Err(catalogue::ticket_not_forwardable(&login));
        }
        let work = {
            let granting = granting.clone();
            move |client: AsyncKdcClient| {
                let granting = granting.clone();
                async move { client.forwarded_tgt(&granting, Some(enctype)).await }
            }
        };
        trace.line(format_args!("Getting a forwarded ticket-granting ticket of {}", granting.client));
        self.exchange(granting, Asked::Forwarded, with, trace, work).await
    }

    async fn exchange<F>(
        &self,
        granting: &Arc<Credentials>,
        asked: Asked<'_>,
        with: With,
        trace: &Trace,
        work: impl Fn(AsyncKdcClient) -> F + Send + Sync,
    ) -> Outcome
    where
        F: Future<Output = Result<Credentials, ClientError>> + Send,
    {
        let deadline = Instant::now() + FLIGHT;
        let Ok(Ok(_turn)) = timeout_at(deadline, self.turns.acquire()).await else {
            return Err(catalogue::waited_too_long());
        };
        let realm = ticket_realm(granting);
        match self.directory.with_client(realm, trace, deadline, work).await {
            Ok(ticket) => Ok(Arc::new(ticket)),
            Err(failure) => {
                let code = match &failure {
                    Failure::Kdc(error) => error.kdc_code(),
                    _ => None,
                };
                let enquiry = match code {
                    Some(REVOKED | SKEW) => self.enquire(&granting.client, trace, deadline).await,
                    _ => None,
                };
                let login = login(granting.client.to_string(), realm, with);
                let error = catalogue::of(&failure, &login, asked, enquiry.as_ref());
                trace.line(format_args!("No ticket: {error} ({})", error.code()));
                if code.is_some_and(|code| TICKET_ERRORS.contains(&code)) {
                    return Err(error.of_ticket());
                }
                Err(error)
            }
        }
    }

    /// As whom an identity logs in, by what it is now.
    pub(super) async fn principals(&self, identity: &Identity, deadline: Instant) -> Result<Vec<Principal>, Error> {
        let config = self.config.fresh().await;
        Material::load(&identity.source, deadline).await?.principals(identity, &config)
    }

    /// From now on the tickets of this identity are asked for as forwardable. True when that is new.
    pub(super) fn delegate(&self, digest: [u8; 32]) -> bool {
        let mut memory = self.memory();
        if memory.delegated.len() >= MAX_MEMORY {
            memory.delegated.clear();
        }
        memory.delegated.insert(digest)
    }

    fn is_delegated(&self, digest: &[u8; 32]) -> bool {
        self.memory().delegated.contains(digest)
    }

    fn refused(&self, digest: &[u8; 32], version: &[u8; 32]) -> Option<Error> {
        let memory = self.memory();
        let refused = memory.refused.get(digest)?;
        let stands = refused.version == *version && refused.until.is_none_or(|until| Instant::now() < until);
        stands.then(|| refused.error.clone())
    }

    fn refuse(&self, digest: [u8; 32], version: [u8; 32], error: &Error) {
        let until = match error.code() {
            "kerberos.password_rejected" | "kerberos.keytab_rejected" => None,
            _ => Some(Instant::now() + BRIEFLY),
        };
        let mut memory = self.memory();
        if memory.refused.len() >= MAX_MEMORY {
            // What was believed only for a while goes first; a refused password goes only when all are that.
            memory.refused.retain(|_, refused| refused.until.is_none());
            if memory.refused.len() >= MAX_MEMORY
                && let Some(some) = memory.refused.keys().next().copied()
            {
                memory.refused.remove(&some);
            }
        }
        memory.refused.insert(digest, Refused { version, error: error.clone(), until });
    }

    pub(super) fn forget(&self, digest: &[u8; 32]) {
        let mut memory = self.memory();
        memory.refused.remove(digest);
        memory.delegated.remove(digest);
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn accept(&mut self, version: [u8; 32], kvno: u32) {
        if self.accepted.len() >= MAX_MEMORY {
            self.accepted.clear();
        }
        self.accepted.insert(version, kvno);
    }
}

impl Material {
    async fn load(source: &CredentialSource, deadline: Instant) -> Result<Self, Error> {
        match source {
            CredentialSource::Password(password) => Ok(Self::Password(password.clone())),
            CredentialSource::Keytab(bytes) => Self::of_bytes(bytes, "of this credential"),
            CredentialSource::KeytabFile(path) => {
                let name = path.display().to_string();
                let path = path.clone();
                // A file on a mount that hangs keeps its thread, but nobody's turn.
                match timeout_at(deadline, tokio::task::spawn_blocking(move || Self::of_file(&path))).await {
                    Ok(read) => read.unwrap_or_else(|_| Err(catalogue::stopped())),
                    Err(_) => Err(catalogue::keytab_unreadable(&name, "reading it takes too long")),
                }
            }
            CredentialSource::Cache(name) => Err(catalogue::cache_kind(name)),
        }
    }

    fn of_file(path: &Path) -> Result<Self, Error> {
        let bytes = Keytab::read_bytes(path)
            .map_err(|error| catalogue::keytab_unreadable(&path.display().to_string(), &chain(&error)))?;
        Self::of_bytes(&bytes, &path.display().to_string())
    }

    fn of_bytes(bytes: &[u8], name: &str) -> Result<Self, Error> {
        let keytab = Keytab::parse(bytes).map_err(|error| catalogue::keytab_unreadable(name, &chain(&error)))?;
        Ok(Self::Keytab { keytab: Arc::new(keytab), version: Sha256::digest(bytes).into() })
    }

    /// Tells one content from another of the same identity. A password's identity is its content.
    fn version(&self) -> [u8; 32] {
        match self {
            Self::Password(_) => [0; 32],
            Self::Keytab { version, .. } => *version,
        }
    }

    fn with(&self) -> With {
        match self {
            Self::Password(_) => With::Password,
            Self::Keytab { .. } => With::Keytab,
        }
    }

    fn principals(&self, identity: &Identity, config: &Configuration) -> Result<Vec<Principal>, Error> {
        match self {
            Self::Password(_) => names::of_user(&identity.principal, identity.realm.as_deref(), config),
            Self::Keytab { keytab, .. } => {
                names::of_keytab(&identity.principal, identity.realm.as_deref(), keytab, config).map(|name| vec![name])
            }
        }
    }
}

/// The name of a principal in a keytab, where the realm may be written in another case.
fn held_name(principal: &Principal, keytab: &Keytab) -> String {
    let same = |entry: &&crate::keytab::Entry| {
        entry.components == principal.components && entry.realm.eq_ignore_ascii_case(&principal.realm)
    };
    keytab.entries().iter().find(same).map(|entry| entry.principal.clone()).unwrap_or_default()
}

/// The versions to try: the one that was accepted before, the highest, then those that were written last.
fn versions(keytab: &Keytab, principal: &str, accepted: Option<u32>) -> Vec<u32> {
    let mut rest = keytab.kvnos(principal);
    let mut order = Vec::new();
    if let Some(accepted) = accepted.filter(|accepted| rest.contains(accepted)) {
        order.push(accepted);
    }
    order.extend(rest.first().copied());
    let written = |kvno: u32| {
        let of = keytab.entries().iter().filter(|entry| entry.principal == principal && entry.kvno == kvno);
        of.map(|entry| entry.timestamp).max()
    };
    rest.sort_by_key(|kvno| std::cmp::Reverse((written(*kvno), *kvno)));
    order.extend(rest);
    let mut seen = HashSet::new();
    order.retain(|kvno| seen.insert(*kvno));
    order.truncate(MAX_VERSIONS);
    order
}

/// For the `krb5` crate, which compares realms to the letter.
fn in_realm(keytab: &Keytab, realm: &str) -> krb5::Keytab {
    let keys = keytab.to_krb5();
    let keys =
        keys.keys().iter().map(|key| ServiceKey::new(&key.principal, realm, key.kvno, key.enctype, key.key.as_slice()));
    krb5::Keytab::from_keys(keys.collect())
}

fn is_wrong_key(error: &ClientError) -> bool {
    match error {
        ClientError::Kdc { code, .. } => matches!(*code, PREAUTH_FAILED | ENCTYPE),
        // An answer that was not read with this key, or a key of a type that krb5.conf does not allow.
        ClientError::Crypto(_) | ClientError::NoKey(_) => true,
        _ => false,
    }
}

fn with_flags(client: AsyncKdcClient, forwardable: bool) -> AsyncKdcClient {
    if forwardable { AsyncKdcClient::new(client.into_client().with_forwardable(true)) } else { client }
}

/// The realm whose KDC takes a ticket-granting ticket.
pub(super) fn ticket_realm(granting: &Credentials) -> &str {
    granting.server.components.get(1).map_or(granting.server.realm.as_str(), String::as_str)
}

pub(super) fn login(principal: String, realm: &str, with: With) -> Login {
    Login { principal, realm: realm.to_owned(), with }
}

/// A user principal name without the realm that it was asked of, anything else as usual.
fn display(principal: &Principal) -> String {
    match principal.components.as_slice() {
        [name] if name.contains('@') => name.clone(),
        _ if principal.realm.is_empty() => principal.name(),
        _ => principal.to_string(),
    }
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
