//! Every user and token in memory, so that a call of a stranger costs no look into the database.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{PoisonError, RwLock};

use subtle::ConstantTimeEq as _;
use tokio::sync::{Notify, watch};

use super::{Caller, Role, hash_token, token_id};
use crate::clock::UnixMillis;
use crate::store::access::{TokenRecord, UserRecord};

/// The users and their tokens as they were last committed.
#[derive(Debug)]
pub(crate) struct Directory {
    tokens: RwLock<HashMap<String, Entry>>,
    /// Counts the changes; whoever serves a long call looks again after each.
    changes: watch::Sender<u64>,
    /// A token was used that had not been for a while.
    pub(crate) fresh: Notify,
}

#[derive(Debug)]
struct Entry {
    hash: [u8; 32],
    user: String,
    role: Role,
    scope: String,
    disabled: bool,
    revoked: bool,
    expires_at: Option<UnixMillis>,
    last_used: AtomicI64,
    /// The use that was last handed out to be stored.
    noted: AtomicI64,
}

/// Why a token lets nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoEntry {
    /// It is nobody's.
    Unknown,
    Expired,
    Revoked,
    /// Its user is disabled.
    Disabled,
}

impl Directory {
    pub(crate) fn new(users: &[UserRecord], tokens: Vec<TokenRecord>) -> Self {
        Self { tokens: RwLock::new(entries(users, tokens)), changes: watch::Sender::new(0), fresh: Notify::new() }
    }

    /// Takes up what was committed.
    pub(crate) fn replace(&self, users: &[UserRecord], tokens: Vec<TokenRecord>) {
        let new = entries(users, tokens);
        {
            let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
            for (id, entry) in &new {
                if let Some(old) = tokens.get(id) {
                    entry.last_used.fetch_max(old.last_used.load(Ordering::Relaxed), Ordering::Relaxed);
                    entry.noted.fetch_max(old.noted.load(Ordering::Relaxed), Ordering::Relaxed);
                }
            }
            *tokens = new;
        }
        self.changes.send_modify(|count| *count += 1);
    }

    /// Whose token this is. The record is found by the beginning of the hash, which is public; the whole hash is compared
    /// in a time that does not depend on where two differ. Only who holds the secret learns more than "unknown".
    pub(crate) fn sign_in(&self, token: &str, source: &str, now: UnixMillis) -> Result<Caller, NoEntry> {
        let hash = hash_token(token);
        let id = token_id(&hash);
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        let entry = tokens.get(&id).filter(|entry| bool::from(entry.hash.ct_eq(&hash))).ok_or(NoEntry::Unknown)?;
        entry.standing(now)?;
        entry.last_used.fetch_max(now.0, Ordering::Relaxed);
        if entry.is_fresh() {
            self.fresh.notify_one();
        }
        Ok(Caller {
            user: entry.user.clone(),
            token_id: id,
            role: entry.role,
            scope: entry.scope.clone(),
            source: source.to_owned(),
        })
    }

    /// Whether a caller would still be let in.
    pub(crate) fn stands(&self, caller: &Caller, now: UnixMillis) -> bool {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        tokens.get(&caller.token_id).is_some_and(|entry| entry.standing(now).is_ok())
    }

    /// Tells of every change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Tokens whose use is to be stored, and when it was: each about every ten minutes.
    pub(crate) fn used(&self) -> Vec<(String, UnixMillis)> {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        let fresh = tokens.iter().filter(|(_, entry)| entry.is_fresh());
        fresh
            .map(|(id, entry)| {
                let at = entry.last_used.load(Ordering::Relaxed);
                entry.noted.store(at, Ordering::Relaxed);
                (id.clone(), UnixMillis(at))
            })
            .collect()
    }
}

impl Entry {
    fn is_fresh(&self) -> bool {
        self.last_used.load(Ordering::Relaxed) - self.noted.load(Ordering::Relaxed) >= COARSE_MS
    }

    fn standing(&self, now: UnixMillis) -> Result<(), NoEntry> {
        if self.revoked {
            Err(NoEntry::Revoked)
        } else if self.disabled {
            Err(NoEntry::Disabled)
        } else if self.expires_at.is_some_and(|at| at <= now) {
            Err(NoEntry::Expired)
        } else {
            Ok(())
        }
    }
}

fn entries(users: &[UserRecord], tokens: Vec<TokenRecord>) -> HashMap<String, Entry> {
    let users: HashMap<&str, &UserRecord> = users.iter().map(|user| (user.name.as_str(), user)).collect();
    tokens
        .into_iter()
        .filter_map(|token| {
            let user = users.get(token.user.as_str())?;
            let entry = Entry {
                hash: token.hash,
                user: token.user,
                role: user.role,
                scope: user.scope.clone(),
                disabled: user.disabled_at.is_some(),
                revoked: token.revoked_at.is_some(),
                expires_at: token.expires_at,
                last_used: AtomicI64::new(token.last_used_at.map_or(0, |at| at.0)),
                noted: AtomicI64::new(token.last_used_at.map_or(0, |at| at.0)),
            };
            Some((token.token_id, entry))
        })
        .collect()
}

/// Storing each use would make every call of a user a write.
const COARSE_MS: i64 = 600_000;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn user(name: &str) -> UserRecord {
        UserRecord {
            name: name.into(),
            role: Role::Viewer,
            scope: "team".into(),
            description: String::new(),
            created_at: UnixMillis(0),
            disabled_at: None,
        }
    }

    fn token(user: &str, text: &str) -> TokenRecord {
        let hash = hash_token(text);
        TokenRecord {
            token_id: token_id(&hash),
            user: user.into(),
            hash,
            description: String::new(),
            created_at: UnixMillis(0),
            expires_at: None,
            last_used_at: None,
            revoked_at: None,
        }
    }

    #[test]
    fn only_tokens_that_stand_let_in() {
        let disabled = UserRecord { disabled_at: Some(NOW), ..user("gone") };
        let directory = Directory::new(
            &[user("ann"), disabled],
            vec![
                token("ann", "good"),
                TokenRecord { expires_at: Some(NOW), ..token("ann", "old") },
                TokenRecord { revoked_at: Some(UnixMillis(1)), ..token("ann", "revoked") },
                token("gone", "disabled"),
                token("nobody", "orphan"),
            ],
        );
        let caller = directory.sign_in("good", "::1", NOW).unwrap();
        assert_eq!((caller.user.as_str(), caller.scope.as_str(), caller.role), ("ann", "team", Role::Viewer));
        for (text, why) in [
            ("old", NoEntry::Expired),
            ("revoked", NoEntry::Revoked),
            ("disabled", NoEntry::Disabled),
            ("orphan", NoEntry::Unknown),
            ("goof", NoEntry::Unknown),
            ("", NoEntry::Unknown),
        ] {
            assert_eq!(directory.sign_in(text, "::1", NOW), Err(why), "{text}");
        }
        assert_eq!(directory.used().len(), 1, "only what let somebody in was used");
        directory.sign_in("good", "::1", UnixMillis(NOW.0 + COARSE_MS - 1)).unwrap();
        assert!(directory.used().is_empty(), "not each use is stored");
        directory.sign_in("good", "::1", UnixMillis(NOW.0 + COARSE_MS)).unwrap();
        assert_eq!(directory.used().len(), 1);
    }

    #[test]
    fn a_record_with_the_same_beginning_of_the_hash_is_another_token() {
        let mut twin = token("ann", "good");
        twin.hash[31] ^= 1;
        let directory = Directory::new(&[user("ann")], vec![twin]);
        assert_eq!(directory.sign_in("good", "::1", NOW), Err(NoEntry::Unknown));
    }

    #[test]
    fn who_is_inside_is_told_of_changes() {
        let directory = Directory::new(&[user("ann")], vec![token("ann", "good")]);
        let caller = directory.sign_in("good", "::1", NOW).unwrap();
        let changes = directory.subscribe();
        assert!(directory.stands(&caller, NOW));
        directory.replace(&[UserRecord { disabled_at: Some(NOW), ..user("ann") }], vec![token("ann", "good")]);
        assert!(changes.has_changed().unwrap());
        assert!(!directory.stands(&caller, NOW));
        assert_eq!(directory.used().len(), 1, "when it was used is not forgotten by a change");
    }
}
