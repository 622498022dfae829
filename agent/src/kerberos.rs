//! The agent's Kerberos: its configuration, the manager that gets tickets, and the keytabs and caches that tasks may use.
//!
//! A task names keytabs and caches by their paths; what the settings do not list is not opened for it, whatever the control
//! plane says. It must never show a key or a password. Made by `app`, used by `sessions`, asked by the link for what to announce.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lictor_kerberos::config::{ConfigError, Configuration, Source, Watch};
use lictor_kerberos::keytab::Keytab;
use lictor_kerberos::{Identity, Kerberos as Manager};

use crate::config;
use crate::failure::chain;

/// Kerberos as this agent has it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Kerberos(Arc<Inner>);

struct Inner {
    /// Nothing: there is no usable configuration.
    ready: Option<Ready>,
    source: Source,
    keytabs: Vec<PathBuf>,
    caches: Vec<String>,
    /// By name of the credential.
    used: Mutex<HashMap<String, Used>>,
}

/// The newest version of a credential that was used, and the digests of what it was used for.
type Used = (u64, Vec<[u8; 32]>);

struct Ready {
    manager: Manager,
    watch: Arc<Watch>,
}

/// Why there is no Kerberos, though the settings ask for it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Configuration(#[from] ConfigError),
    /// Reading it broke off.
    #[error("reading the configuration of Kerberos broke off")]
    Interrupted(#[source] tokio::task::JoinError),
}

/// Why a task cannot use something that is on the agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    /// No configuration.
    #[error("this agent has no usable configuration of Kerberos")]
    Off,
    /// The settings do not list it.
    #[error("{path} is not among the keytabs of this agent (kerberos.keytabs)")]
    Keytab {
        /// What the task names.
        path: String,
    },
    /// None holds a key.
    #[error("none of the keytabs of this agent (kerberos.keytabs) holds a key of {principal}")]
    NoKey {
        /// Whose.
        principal: String,
    },
    /// The settings do not list it.
    #[error("{cache} is not among the credential caches that tasks may use on this agent (kerberos.caches)")]
    Cache {
        /// What the task names.
        cache: String,
    },
    /// No realm.
    #[error("{username} names no realm that this agent knows, and there is no default realm")]
    Realm {
        /// The user.
        username: String,
    },
}

impl Kerberos {
    /// Reads the configuration, and writes what the settings declare to `rendered` for MIT's programs.
    ///
    /// # Errors
    /// Only when the settings say something about Kerberos. Without that it is merely not there.
    pub(crate) async fn start(settings: &config::Kerberos, rendered: PathBuf) -> Result<Self, StartError> {
        let source = settings.source();
        let declared = matches!(source, Source::Declared(_));
        let started = tokio::task::spawn_blocking({
            let (source, rendered) = (source.clone(), declared.then(|| rendered.clone()));
            move || Watch::start(source, rendered)
        });
        let ready = match started.await.map_err(StartError::Interrupted)? {
            Ok(watch) => {
                let watch = Arc::new(watch);
                warn(&watch.current());
                if declared {
                    tracing::info!(file = %rendered.display(), "Wrote krb5.conf; name it in KRB5_CONFIG for kinit and lictor");
                }
                Some(Ready { manager: Manager::new(Arc::clone(&watch)), watch })
            }
            Err(error) if settings.is_given() => return Err(error.into()),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "The configuration of Kerberos cannot be used, so tasks cannot use Kerberos");
                None
            }
        };
        let (keytabs, caches) = (settings.keytabs.clone(), settings.caches.clone());
        Ok(Self(Arc::new(Inner { ready, source, keytabs, caches, used: Mutex::default() })))
    }

    /// Where its configuration is.
    pub(crate) fn source(&self) -> Source {
        self.0.source.clone()
    }

    /// Whether tasks can use it.
    pub(crate) fn is_ready(&self) -> bool {
        self.0.ready.is_some()
    }

    /// Who gets tickets.
    pub(crate) fn manager(&self) -> Result<&Manager, Unusable> {
        self.0.ready.as_ref().map(|ready| &ready.manager).ok_or(Unusable::Off)
    }

    /// Principals whose keys the keytabs hold, each once. Reads the files.
    pub(crate) async fn principals(&self) -> Vec<String> {
        if !self.is_ready() {
            return Vec::new();
        }
        let held = self.scan().await;
        let principals: BTreeSet<String> = held.into_iter().flat_map(|(_, keytab)| principals(&keytab)).collect();
        if principals.len() > MAX_PRINCIPALS {
            tracing::warn!(found = principals.len(), "The keytabs hold more principals than can be announced");
        }
        principals.into_iter().take(MAX_PRINCIPALS).collect()
    }

    /// The keytab for `identity`: the one at `path`, or any that holds a key of the user.
    pub(crate) async fn keytab(&self, path: Option<&Path>, who: (&str, Option<&str>)) -> Result<PathBuf, Unusable> {
        if let Some(path) = path {
            let listed = self.0.keytabs.iter().any(|listed| listed == path || path.parent() == Some(listed));
            // Not `..` and kin, which lead out of the listed directory.
            let plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
            let keytab = || path.display().to_string();
            return if listed && plain { Ok(path.to_owned()) } else { Err(Unusable::Keytab { path: keytab() }) };
        }
        let held = self.scan().await;
        let found = held.into_iter().find(|(_, keytab)| principals(keytab).iter().any(|held| is_of(held, who)));
        found.map(|(path, _)| path).ok_or_else(|| Unusable::NoKey { principal: full_name(who) })
    }

    /// The credential cache that a task may use.
    pub(crate) fn cache(&self, name: Option<&str>) -> Result<String, Unusable> {
        let default = default_cache();
        match name {
            None => Ok(default),
            Some(name) => {
                let mut permitted = self.0.caches.iter().chain([&default]);
                let found = permitted.any(|permitted| bare(permitted) == bare(name));
                if found { Ok(name.to_owned()) } else { Err(Unusable::Cache { cache: name.to_owned() }) }
            }
        }
    }

    /// The user and the realm that a user name stands for. `realm` is what the task says. With a password the KDC can be asked
    /// whom a name of another form stands for; `by_key` means that there are only keys of a certain name.
    pub(crate) fn principal(
        &self,
        username: &str,
        realm: Option<&str>,
        by_key: bool,
    ) -> Result<(String, String), Unusable> {
        let ready = self.0.ready.as_ref().ok_or(Unusable::Off)?;
        let configuration = ready.watch.current();
        let default = configuration.default_realm();
        let unknown = || Unusable::Realm { username: username.to_owned() };
        let (user, said) = match (username.rsplit_once('@'), username.split_once('\\')) {
            // With a realm beside it, what stands behind the `@` is part of a name that the KDC resolves.
            (Some(_), _) if realm.is_some() && !by_key => (username, None),
            (Some((user, said)), _) => (user, Some(said.to_owned())),
            (None, Some((_, user))) if realm.is_some() => (user, None),
            (None, Some((domain, user))) => (user, Some(domain_realm(&configuration, domain).ok_or_else(unknown)?)),
            (None, None) => (username, None),
        };
        // Tasks can override the realm. What answers for one that only DNS knows may be anybody's, and gets a proof of the password.
        if let Some(realm) = realm
            && !configuration.realm(realm).is_ok_and(|realm| is_named(&configuration, &realm))
        {
            return Err(unknown());
        }
        let realm = realm.map(str::to_owned).or(said).or_else(|| default.map(Into::into)).ok_or_else(unknown)?;
        Ok((user.to_owned(), realm))
    }

    /// Whether a user is of a realm that is known here, as the task says or a name such as `alice@CORP.EXAMPLE`.
    pub(crate) fn serves(&self, username: &str, realm: Option<&str>) -> bool {
        let said = realm.or_else(|| username.rsplit_once('@').map(|(_, realm)| realm));
        let (Some(said), Some(ready)) = (said, &self.0.ready) else { return false };
        let configuration = ready.watch.current();
        let Ok(realm) = configuration.realm(said) else { return false };
        // Not every realm that DNS may know: each user name with an `@` would begin with a search for its KDCs.
        is_named(&configuration, &realm) && configuration.defines(&realm)
    }

    /// Notes what a credential's version is used for, and forgets the tickets of the versions before it.
    pub(crate) fn used(&self, credential: &str, version: u64, identity: &Identity) {
        let Ok(manager) = self.manager() else { return };
        let mut used = self.0.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= MAX_REMEMBERED && !used.contains_key(credential) {
            // What is not remembered is merely kept until its tickets end.
            return;
        }
        let digest = identity.login_digest();
        let (known, digests) = used.entry(credential.to_owned()).or_insert((version, Vec::new()));
        // A task that was assigned before the change may come behind one that was assigned after it.
        if version < *known {
            return;
        }
        if version > *known {
            for old in std::mem::take(digests).into_iter().filter(|old| *old != digest) {
                manager.forget_digest(old);
            }
            *known = version;
        }
        if digests.len() < MAX_IDENTITIES && !digests.contains(&digest) {
            digests.push(digest);
        }
    }

    async fn scan(&self) -> Vec<(PathBuf, Keytab)> {
        let listed = self.0.keytabs.clone();
        tokio::task::spawn_blocking(move || scan(&listed)).await.unwrap_or_else(|error| {
            tracing::warn!(error = %error, "Reading the keytabs broke off");
            Vec::new()
        })
    }
}

impl fmt::Debug for Kerberos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { keytabs, caches, .. } = &*self.0;
        let mut shown = f.debug_struct("Kerberos");
        shown.field("ready", &self.is_ready()).field("keytabs", keytabs).field("caches", caches).finish()
    }
}

/// Every readable keytab among the files and directories, in order of their names.
fn scan(listed: &[PathBuf]) -> Vec<(PathBuf, Keytab)> {
    let read = keytab_files(listed).into_iter().filter_map(|file| {
        let read = file.and_then(|path| match Keytab::read(&path) {
            Ok(keytab) => Ok((path, keytab)),
            Err(error) => Err(chain(&error)),
        });
        read.map_err(|error| tracing::warn!(error, "A keytab cannot be used")).ok()
    });
    read.collect()
}

/// The files that the settings list, and those in the directories that they list, in order of their names; or why a directory
/// cannot be looked into.
pub(crate) fn keytab_files(listed: &[PathBuf]) -> Vec<Result<PathBuf, String>> {
    let mut files = Vec::new();
    for path in listed {
        if !path.is_dir() {
            files.push(Ok(path.clone()));
            continue;
        }
        match std::fs::read_dir(path) {
            Ok(entries) => {
                let entries = entries.take(MAX_FILES).filter_map(|entry| Some(entry.ok()?.path()));
                // Kubernetes keeps the real files of a volume in directories whose names begin with two dots.
                let mut found: Vec<PathBuf> = entries.filter(|path| path.is_file() && !is_hidden(path)).collect();
                found.sort();
                files.extend(found.into_iter().map(Ok));
            }
            Err(error) => files.push(Err(format!("failed to look into {}: {error}", path.display()))),
        }
    }
    files.truncate(MAX_FILES);
    files
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Those that a Hello may carry.
fn principals(keytab: &Keytab) -> Vec<String> {
    let named = keytab.principals().into_iter().filter(|principal| principal.len() <= MAX_PRINCIPAL_BYTES);
    named.map(str::to_owned).collect()
}

/// Whether a keytab's principal is the user, compared as Active Directory does.
fn is_of(held: &str, (user, realm): (&str, Option<&str>)) -> bool {
    let (name, its_realm) = held.rsplit_once('@').unwrap_or((held, ""));
    name.eq_ignore_ascii_case(user) && realm.is_none_or(|realm| its_realm.eq_ignore_ascii_case(realm))
}

fn full_name((user, realm): (&str, Option<&str>)) -> String {
    realm.map_or_else(|| user.to_owned(), |realm| format!("{user}@{realm}"))
}

/// The settings name the realm, in its right case: it is the default one, or they list its KDCs.
fn is_named(configuration: &Configuration, realm: &str) -> bool {
    configuration.default_realm().into_iter().chain(configuration.realms_with_kdcs()).any(|named| named == realm)
}

/// The realm of a domain, when it is one or is known by its first label, as NetBIOS names mostly are.
fn domain_realm(configuration: &Configuration, domain: &str) -> Option<String> {
    let default = configuration.default_realm();
    let by_label =
        default.filter(|realm| realm.split('.').next().is_some_and(|label| label.eq_ignore_ascii_case(domain)));
    if configuration.defines(domain) && domain.contains('.') {
        return configuration.realm(domain).ok();
    }
    by_label.map(str::to_owned)
}

/// What MIT's programs use when nobody says otherwise.
pub(crate) fn default_cache() -> String {
    let named = std::env::var("KRB5CCNAME").ok().filter(|name| !name.is_empty());
    named.unwrap_or_else(|| format!("FILE:/tmp/krb5cc_{}", rustix::process::geteuid().as_raw()))
}

fn bare(cache: &str) -> &str {
    cache.strip_prefix("FILE:").unwrap_or(cache)
}

fn warn(configuration: &Configuration) {
    for warning in configuration.warnings() {
        tracing::warn!(%warning, "The configuration of Kerberos is doubtful");
    }
}

/// The contract's bound, and that of one principal's name.
const MAX_PRINCIPALS: usize = 1000;
const MAX_PRINCIPAL_BYTES: usize = 1000;
/// Files of one agent that are looked at.
const MAX_FILES: usize = 1000;
/// Credentials whose versions are remembered, and identities of each.
const MAX_REMEMBERED: usize = 10_000;
const MAX_IDENTITIES: usize = 16;

#[cfg(test)]
mod tests;
