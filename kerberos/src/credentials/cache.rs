//! Credential caches that others fill, as the source of an identity. Read again when their file changes; never written.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use krb5::ccache::{Entry, same_principal};
use krb5::{CCache, Credentials, Principal};

use super::identity::Service;
use super::shelf::{Outcome, unix_now};
use crate::ccache::{self, Stamp};
use crate::error::{Error, catalogue};

/// Caches remembered at once.
const MAX_CACHES: usize = 1_000;
/// A ticket with less left than this many seconds is not handed out.
const MARGIN: i64 = 30;

/// The caches in use, by identity.
#[derive(Debug, Default)]
pub(super) struct Caches(Mutex<HashMap<[u8; 32], Arc<Opened>>>);

/// A cache as it was when its file was last read.
#[derive(Debug)]
pub(super) struct Opened {
    name: String,
    stamp: Stamp,
    cache: CCache,
    /// Services that did not take the ticket in here.
    refused: Mutex<HashSet<(String, String)>>,
}

impl Caches {
    /// The cache of this name, which must be that of `wanted`. With an empty `wanted` it is that of whoever it was first.
    pub(super) async fn open(
        &self,
        digest: [u8; 32],
        name: &str,
        wanted: &str,
        realm: Option<&str>,
    ) -> Result<Arc<Opened>, Error> {
        let known = self.lock().get(&digest).cloned();
        let stamp = known.as_ref().map(|known| known.stamp.clone());
        let task = {
            let name = name.to_owned();
            move || ccache::read(&name, stamp.as_ref())
        };
        let read = tokio::task::spawn_blocking(task).await.unwrap_or_else(|_| Err(catalogue::stopped()))?;
        let Some((cache, stamp)) = read else { return known.ok_or_else(catalogue::stopped) };
        let held = cache.principal.to_string();
        let first = known.map(|known| known.cache.principal.to_string());
        let wanted = if wanted.is_empty() { first.as_deref().unwrap_or(&held) } else { wanted };
        if !is_meant(wanted, realm, &cache.principal) {
            return Err(catalogue::cache_principal(name, wanted, &held));
        }
        let opened = Arc::new(Opened { name: name.to_owned(), stamp, cache, refused: Mutex::default() });
        let mut caches = self.lock();
        if caches.len() >= MAX_CACHES
            && !caches.contains_key(&digest)
            && let Some(some) = caches.keys().next().copied()
        {
            caches.remove(&some);
        }
        caches.insert(digest, opened.clone());
        Ok(opened)
    }

    pub(super) fn forget(&self, digest: &[u8; 32]) {
        self.lock().remove(digest);
    }

    /// The ticket in the cache's file is not handed out again for this service.
    pub(super) fn refuse(&self, digest: &[u8; 32], service: &Service) {
        if let Some(opened) = self.lock().get(digest) {
            let mut refused = opened.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.insert((service.service.clone(), service.host.to_lowercase()));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Arc<Opened>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a cache's principal is the one that somebody named. Case does not tell names apart in Active Directory.
fn is_meant(wanted: &str, realm: Option<&str>, held: &Principal) -> bool {
    let name = held.name().to_lowercase();
    let wanted = wanted.to_lowercase();
    let same = wanted == name || wanted == format!("{name}@{}", held.realm.to_lowercase());
    same && realm.is_none_or(|realm| realm.is_empty() || realm.eq_ignore_ascii_case(&held.realm))
}

impl Opened {
    /// Whose tickets it holds.
    pub(super) fn client(&self) -> String {
        self.cache.principal.to_string()
    }

    /// The same as a principal.
    pub(super) fn principal(&self) -> &Principal {
        &self.cache.principal
    }

    /// Its ticket-granting ticket.
    pub(super) fn granting(&self) -> Outcome {
        match self.cache.tgt(unix_now()) {
            Some(ticket) => Ok(Arc::new(ticket)),
            None => {
                let expired = self.cache.tgt(0).is_some();
                Err(catalogue::cache_no_tgt(&self.name, &self.client(), expired))
            }
        }
    }

    /// The ticket for a service that somebody else got already.
    pub(super) fn service(&self, service: &Principal) -> Option<Arc<Credentials>> {
        if let [class, host] = service.components.as_slice() {
            let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            if refused.contains(&(class.clone(), host.clone())) {
                return None;
            }
        }
        let now = unix_now();
        let same = |server: &Principal| {
            let realm = service.realm.is_empty() || server.realm.is_empty() || server.realm == service.realm;
            realm && server.components == service.components
        };
        self.cache
            .entries
            .iter()
            .filter(|entry| !entry.is_skey && same(&entry.server))
            .filter_map(Entry::credentials)
            .filter(|ticket| {
                same_principal(&ticket.client, &self.cache.principal) && ticket.endtime.saturating_sub(now) > MARGIN
            })
            .max_by_key(|ticket| ticket.endtime)
            .map(Arc::new)
    }
}
