//! Keytabs: files with the long-term keys of principals, in the format of MIT Kerberos (0x0502).
//!
//! A strict reader: a file that is not just what the format says is refused, with the place and the reason, where MIT and the
//! `krb5` crate pass over what they cannot read and then miss a key. Files are written whole or not at all, and for their owner
//! only. Keys are zeroed on drop, and no error, log line or `Debug` output ever shows one. Used by the credential manager, the agent (which
//! announces the principals it holds keys of) and `lictor keytab`.

mod create;
mod enctype;
mod file;
mod format;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::PathBuf;

use krb5::Principal;
use krb5::acceptor::{EncType, ServiceKey};
use zeroize::Zeroizing;

pub use self::create::{Recipe, default_salt, parse_principal, principal_text};
pub use self::enctype::{CREATED_ENCTYPES, enctype_name, parse_enctype};
pub use self::file::Existing;

/// The keys of a keytab, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keytab {
    entries: Vec<Entry>,
}

/// One key of one principal.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The principal as `name@REALM`, written as MIT writes it: `/`, `@`, `\` and control characters inside a part are escaped.
    pub principal: String,
    /// The realm.
    pub realm: String,
    /// The parts of the name: `HTTP` and `host` for `HTTP/host@REALM`.
    pub components: Vec<String>,
    /// The type of the name (RFC 4120 6.2).
    pub name_type: i32,
    /// The key version number; tools that do not ask the KDC write any.
    pub kvno: u32,
    /// The encryption type (RFC 3961 8). May be one that we cannot use.
    pub enctype: i32,
    /// When the key was written, in seconds since 1970. Some tools write 0.
    pub timestamp: u32,
    key: Zeroizing<Vec<u8>>,
}

/// What adding a key did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is new.
    New,
    /// The same key was there before.
    Same,
    /// Another key of the same principal, version and encryption type was there before, and is gone.
    Replaced,
}

/// Why there is no keytab.
#[derive(Debug, thiserror::Error)]
pub enum KeytabError {
    /// The bytes are not a keytab.
    #[error("not a keytab: at byte {offset}: {what}")]
    Malformed {
        /// Where, counted from 0.
        offset: usize,
        /// What is wrong there.
        what: String,
    },
    /// The bytes are something else that can be named.
    #[error("not a keytab that can be used: {0}")]
    Unusable(&'static str),
    /// Larger than any real keytab.
    #[error("a keytab of more than {MAX_BYTES} bytes or {MAX_ENTRIES} keys is not taken")]
    TooLarge,
    /// The file cannot be read.
    #[error("failed to read the keytab {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written. What was there before is unchanged.
    #[error("failed to write the keytab {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file was read but is not a keytab.
    #[error("the file {path} cannot be used")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<KeytabError>,
    },
    /// A file is there, and replacing it was not asked for.
    #[error("the file {0} exists")]
    Exists(PathBuf),
    /// The text is no principal.
    #[error("`{text}` is not a principal: {why}")]
    Principal {
        /// The text.
        text: String,
        /// Why not.
        why: &'static str,
    },
    /// The text is no encryption type, or one that we make no keys for.
    #[error("no keys of encryption type `{text}` are made: {why}")]
    Enctype {
        /// The text.
        text: String,
        /// Why not.
        why: &'static str,
    },
    /// The key cannot be derived from the password.
    #[error("failed to derive the key from the password: {0}")]
    Derive(String),
}

impl Keytab {
    /// Reads the bytes of a keytab file.
    pub fn parse(data: &[u8]) -> Result<Self, KeytabError> {
        format::read(data).map(|entries| Self { entries })
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, KeytabError> {
        format::write(&self.entries)
    }

    /// The keys, in the order of the file.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The principals, each once, in the order of the file.
    pub fn principals(&self) -> Vec<&str> {
        let mut principals: Vec<&str> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for entry in &self.entries {
            if seen.insert(entry.principal.as_str()) {
                principals.push(&entry.principal);
            }
        }
        principals
    }

    /// The key versions held for a principal with keys that we can use, newest first.
    pub fn kvnos(&self, principal: &str) -> Vec<u32> {
        let of_principal = |entry: &&Entry| entry.principal == principal && entry.usable().is_some();
        let mut kvnos: Vec<u32> = self.entries.iter().filter(of_principal).map(|entry| entry.kvno).collect();
        kvnos.sort_unstable_by(|a, b| b.cmp(a));
        kvnos.dedup();
        kvnos
    }

    /// The keys of one principal, of all versions or of one.
    #[must_use]
    pub fn only(&self, principal: &str, kvno: Option<u32>) -> Self {
        let wanted = |entry: &&Entry| entry.principal == principal && kvno.is_none_or(|kvno| entry.kvno == kvno);
        Self { entries: self.entries.iter().filter(wanted).cloned().collect() }
    }

    /// For the `krb5` crate: the keys of encryption types that it knows. Its copies are not zeroed on drop, so keep it no longer than
    /// needed. Of several versions of a principal it tries the highest only; see [`Self::only`].
    pub fn to_krb5(&self) -> krb5::Keytab {
        let key = |entry: &Entry| {
            let enctype = entry.usable()?;
            Some(ServiceKey::new(entry.components.join("/"), &entry.realm, entry.kvno, enctype, entry.key.to_vec()))
        };
        krb5::Keytab::from_keys(self.entries.iter().filter_map(key).collect())
    }

    /// The key of the same principal, version and encryption type as another.
    pub fn find(&self, like: &Entry) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.is_like(like))
    }

    /// Adds a key. Other versions stay: tickets made with them are still around.
    pub fn add(&mut self, entry: Entry) -> Added {
        let Some(there) = self.entries.iter_mut().find(|there| there.is_like(&entry)) else {
            self.entries.push(entry);
            return Added::New;
        };
        if there.key == entry.key {
            return Added::Same;
        }
        *there = entry;
        Added::Replaced
    }
}

impl Entry {
    /// The name, for the `krb5` crate.
    pub fn name(&self) -> Principal {
        Principal::new(self.name_type, self.components.iter().map(String::as_str), self.realm.as_str())
    }

    /// Whether it is the same key, whatever its time and name type.
    pub fn is_same_key(&self, other: &Self) -> bool {
        self.is_like(other) && self.key == other.key
    }

    /// The name of the encryption type, or its number.
    pub fn enctype_text(&self) -> String {
        enctype_name(self.enctype).map_or_else(|| format!("enctype {}", self.enctype), str::to_owned)
    }

    /// Whether we can log in with a key of this encryption type. RC4 and DES keys are kept, and not used.
    pub fn is_usable(&self) -> bool {
        self.usable().is_some()
    }

    fn usable(&self) -> Option<EncType> {
        EncType::from_i32(self.enctype)
    }

    fn is_like(&self, other: &Self) -> bool {
        (self.kvno, self.enctype, &self.realm, &self.components)
            == (other.kvno, other.enctype, &other.realm, &other.components)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("principal", &self.principal)
            .field("kvno", &self.kvno)
            .field("enctype", &self.enctype)
            .field("timestamp", &self.timestamp)
            .field("key", &"[redacted]")
            .finish_non_exhaustive()
    }
}

/// `name@REALM` as MIT writes it.
fn display(components: &[String], realm: &str) -> String {
    fn escape(part: &str, text: &mut String) {
        for c in part.chars() {
            match c {
                '/' | '@' | '\\' => text.extend(['\\', c]),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '\u{8}' => text.push_str("\\b"),
                '\0' => text.push_str("\\0"),
                _ => text.push(c),
            }
        }
    }
    let mut text = String::new();
    for (index, component) in components.iter().enumerate() {
        if index > 0 {
            text.push('/');
        }
        escape(component, &mut text);
    }
    text.push('@');
    escape(realm, &mut text);
    text
}

/// Largest keytab that is read or written. Real ones have a few hundred bytes per principal.
pub const MAX_BYTES: usize = 1024 * 1024;

/// Most keys of a keytab.
pub const MAX_ENTRIES: usize = 8192;

/// Most parts of a name; no real one has more than four.
const MAX_COMPONENTS: usize = 16;
