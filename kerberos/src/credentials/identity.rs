//! Who logs in, with what, and which service a ticket is for.

use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Who logs in and with what.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `user`, `user@REALM`, `service/host@REALM` or a user principal name of Active Directory. With a cache, or a keytab of one
    /// principal, it may be empty: then it is the one in there.
    pub principal: String,
    /// The realm to log in to, when it is not the one that the principal names or the default realm. Given together with
    /// `user@suffix` whose suffix is something else, the whole is a user principal name (a UPN with a suffix of its own).
    pub realm: Option<String>,
    /// What proves it.
    pub source: CredentialSource,
    /// A new ticket-granting ticket for every service ticket, and nothing kept.
    pub fresh: bool,
}

/// What proves who somebody is.
#[derive(Clone)]
pub enum CredentialSource {
    /// A password.
    Password(Zeroizing<String>),
    /// A keytab on this machine. That it has changed is noticed whenever a login is due.
    KeytabFile(PathBuf),
    /// The bytes of a keytab.
    Keytab(Zeroizing<Vec<u8>>),
    /// A credential cache that somebody else fills (`FILE:path`, `DIR:path`, or a bare path): its tickets are used, and never a
    /// ticket-granting ticket asked for.
    Cache(String),
}

impl Identity {
    /// Tells identities apart: another principal, password, keytab or policy is another digest. It means nothing outside this
    /// process, so that it does not help to guess the password.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.digest_of(self.fresh)
    }

    /// The same for identities that log in as the same user with the same proof, whether or not they keep their tickets: what a KDC says of
    /// the one holds for the other.
    #[must_use]
    pub fn login_digest(&self) -> [u8; 32] {
        self.digest_of(false)
    }

    fn digest_of(&self, fresh: bool) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(process_key());
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part(self.principal.as_bytes());
        part(&[u8::from(self.realm.is_some()), u8::from(fresh)]);
        part(self.realm.as_deref().unwrap_or_default().as_bytes());
        match &self.source {
            CredentialSource::Password(password) => {
                part(b"password");
                part(password.as_bytes());
            }
            CredentialSource::KeytabFile(path) => {
                part(b"keytab file");
                part(path.as_os_str().as_encoded_bytes());
            }
            CredentialSource::Keytab(bytes) => {
                part(b"keytab");
                part(bytes);
            }
            CredentialSource::Cache(name) => {
                part(b"cache");
                part(name.as_bytes());
            }
        }
        hash.finalize().into()
    }
}

impl fmt::Debug for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password(_) => f.write_str("Password([redacted])"),
            Self::KeytabFile(path) => f.debug_tuple("KeytabFile").field(path).finish(),
            Self::Keytab(_) => f.write_str("Keytab([redacted])"),
            Self::Cache(name) => f.debug_tuple("Cache").field(name).finish(),
        }
    }
}

/// Random, the same for the life of this process.
fn process_key() -> &'static [u8; 32] {
    static KEY: OnceLock<[u8; 32]> = OnceLock::new();
    KEY.get_or_init(|| {
        let mut key = [0; 32];
        // Without randomness the digests are as good for telling identities apart, which is what they are for.
        let _ = getrandom::fill(&mut key);
        key
    })
}

/// The service that a ticket is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Service {
    /// Its class, such as `HTTP`.
    pub service: String,
    /// The host's name; not an address.
    pub host: String,
    /// The host's realm. Without one, krb5.conf's `[domain_realm]` says, else the KDC.
    pub realm: Option<String>,
}

impl Service {
    /// A service of which only class and host are known.
    #[must_use]
    pub fn new(service: impl Into<String>, host: impl Into<String>) -> Self {
        Self { service: service.into(), host: host.into(), realm: None }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.host)?;
        self.realm.as_ref().map_or(Ok(()), |realm| write!(f, "@{realm}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_in_anything_differs_in_its_digest() {
        let identity = |principal: &str, realm: Option<&str>, source, fresh| Identity {
            principal: principal.to_owned(),
            realm: realm.map(str::to_owned),
            source,
            fresh,
        };
        let password = |text: &str| CredentialSource::Password(text.to_owned().into());
        let all = [
            identity("alice", None, password("x"), false),
            identity("alice", None, password("x"), true),
            identity("alice", None, password("y"), false),
            identity("alic", None, password("ex"), false),
            identity("alice", Some(""), password("x"), false),
            identity("alice", Some("R"), password("x"), false),
            identity("alice", None, CredentialSource::Keytab(b"x".to_vec().into()), false),
            identity("alice", None, CredentialSource::KeytabFile("x".into()), false),
            identity("alice", None, CredentialSource::Cache("x".to_owned()), false),
        ];
        for (at, one) in all.iter().enumerate() {
            assert_eq!(one.digest(), one.clone().digest());
            assert!(all[..at].iter().all(|other| other.digest() != one.digest()), "{one:?}");
            // The first two log in alike.
            let alike = |other: &Identity| other.login_digest() == one.login_digest();
            assert_eq!(all[..at].iter().any(alike), at == 1, "{one:?}");
        }
    }

    #[test]
    fn what_proves_it_is_not_shown() {
        for source in [
            CredentialSource::Password("Marker".to_owned().into()),
            CredentialSource::Keytab(b"Marker".to_vec().into()),
        ] {
            let identity = Identity { principal: "alice".to_owned(), realm: None, source, fresh: false };
            assert!(!format!("{identity:?}").contains("Marker"));
        }
    }
}
