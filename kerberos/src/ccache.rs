//! Reading credential caches that others fill (`kinit`): `FILE:` and `DIR:`, within bounds, without changing anything.
//!
//! The `krb5` crate reads the format; where the file is, how large it may be and what becomes of its bytes is said here. Unlike MIT's
//! library and the crate, a missing directory or `primary` file is not made: whoever uses a cache must not create one.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use krb5::CCache;
use zeroize::Zeroizing;

use crate::error::{Error, catalogue};

/// Largest cache that is read. A ticket with the groups of a large domain takes some ten thousand bytes.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Longest name of the primary cache of a directory.
const MAX_PRIMARY: u64 = 4096;

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    path: PathBuf,
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

/// Reads the cache of this name unless its file is still that of `known`. Blocks.
pub(crate) fn read(name: &str, known: Option<&Stamp>) -> Result<Option<(CCache, Stamp)>, Error> {
    let failed = |error: &io::Error| {
        catalogue::cache_unreadable(name, error.kind() == io::ErrorKind::NotFound, &error.to_string())
    };
    let path = path(name)?.map_err(|error| failed(&error))?;
    let stamp = stamp(&path).map_err(|error| failed(&error))?;
    if known == Some(&stamp) {
        return Ok(None);
    }
    let bytes = bytes(&path, MAX_BYTES).map_err(|error| failed(&error))?;
    decode(&bytes).map(|cache| Some((cache, stamp))).map_err(|why| catalogue::cache_unreadable(name, false, &why))
}

/// What a cache holds, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The file.
    pub path: PathBuf,
    /// Whose tickets.
    pub principal: String,
    /// How many.
    pub tickets: usize,
    /// When the ticket-granting ticket ends, and until when it can be renewed, in seconds since 1970; none when there is none.
    pub granting: Option<(u32, u32)>,
}

/// Says what the cache of this name holds. Blocks.
///
/// # Errors
/// When it cannot be read.
#[doc(hidden)]
pub fn contents(name: &str) -> Result<Contents, Error> {
    let Some((cache, stamp)) = read(name, None)? else {
        return Err(catalogue::cache_unreadable(name, true, "it is not there"));
    };
    let real = || cache.entries.iter().filter(|entry| !entry.is_config() && !entry.is_removed());
    let granting = real().filter(|entry| entry.server.components.first().is_some_and(|first| first == "krbtgt"));
    Ok(Contents {
        path: stamp.path,
        principal: cache.principal.to_string(),
        tickets: real().count(),
        granting: granting.map(|entry| (entry.endtime, entry.renew_till)).max(),
    })
}

/// Reads the bytes of a cache file.
///
/// # Errors
/// When they are not those of a cache.
#[doc(hidden)]
pub fn decode(bytes: &[u8]) -> Result<CCache, String> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err("it is too large for a credential cache".to_owned());
    }
    CCache::decode(bytes).map_err(|why| format!("it is not a credential cache: {why}"))
}

/// The file that a name means.
fn path(name: &str) -> Result<io::Result<PathBuf>, Error> {
    let expanded = krb5::ccache::expand_tokens(name)
        .map_err(|error| catalogue::cache_unreadable(name, false, &error.to_string()))?;
    let (kind, rest) = match expanded.split_once(':') {
        Some((kind, rest)) if !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_alphabetic()) => (kind, rest),
        _ => ("FILE", expanded.as_str()),
    };
    if rest.is_empty() {
        return Err(catalogue::cache_unreadable(name, false, "its path is empty"));
    }
    match kind {
        "FILE" => Ok(Ok(rest.into())),
        "DIR" => match rest.strip_prefix(':') {
            Some(member) => Ok(Ok(member.into())),
            None => Ok(primary(Path::new(rest))),
        },
        _ => Err(catalogue::cache_kind(name)),
    }
}

/// The cache of a collection that is in use: its `primary` file names it.
fn primary(directory: &Path) -> io::Result<PathBuf> {
    let name = match bytes(&directory.join("primary"), MAX_PRIMARY) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).lines().next().unwrap_or_default().to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => "tkt".to_owned(),
        Err(error) => return Err(error),
    };
    if !name.starts_with("tkt") || name.contains(['/', '\\']) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its file `primary` names no cache"));
    }
    Ok(directory.join(name))
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path)?;
    // A pipe would be waited for without end.
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    let modified = metadata.modified().ok();
    Ok(Stamp { path: path.to_owned(), modified, length: metadata.len(), inode: metadata.ino() })
}

fn bytes(path: &Path, most: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len().min(most);
    // Room for all at once, so that no copy of a session key is left behind by growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or(0).saturating_add(64 * 1024)));
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large"));
    }
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::enquire::der;

    /// The bytes of a cache of `alice@CORP.EXAMPLE` with her ticket-granting ticket, which ends at `endtime`.
    pub(crate) fn sample(endtime: u32) -> Vec<u8> {
        let data = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
        let principal = |components: &[&str]| {
            let mut out = [1_u32.to_be_bytes(), u32::try_from(components.len()).unwrap().to_be_bytes()].concat();
            out.extend(data(b"CORP.EXAMPLE"));
            components.iter().for_each(|component| out.extend(data(component.as_bytes())));
            out
        };
        let encrypted = der::of(
            der::SEQUENCE,
            &[
                der::of(der::context(0), &[der::integer(18)]),
                der::of(der::context(2), &[der::value(der::OCTET_STRING, b"sealed")]),
            ],
        );
        let name = der::of(
            der::SEQUENCE,
            &[der::of(der::context(0), &[der::integer(2)]), der::of(der::context(1), &[der::of(der::SEQUENCE, &[])])],
        );
        let ticket = der::of(
            der::application(1),
            &[der::of(
                der::SEQUENCE,
                &[
                    der::of(der::context(0), &[der::integer(5)]),
                    der::of(der::context(1), &[der::value(der::GENERAL_STRING, b"CORP.EXAMPLE")]),
                    der::of(der::context(2), &[name]),
                    der::of(der::context(3), &[encrypted]),
                ],
            )],
        );
        let mut out = vec![5, 4, 0, 0];
        out.extend(principal(&["alice"]));
        out.extend(principal(&["alice"]));
        out.extend(principal(&["krbtgt", "CORP.EXAMPLE"]));
        out.extend(18_u16.to_be_bytes());
        out.extend(data(&[7; 32]));
        for time in [1, 1, endtime, 0] {
            out.extend(time.to_be_bytes());
        }
        out.push(0);
        out.extend(0x4000_0000_u32.to_be_bytes());
        out.extend([0; 8]);
        out.extend(data(&ticket));
        out.extend(data(b""));
        out
    }

    #[test]
    fn names_of_caches_are_those_of_mit() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| path(name).unwrap().unwrap();
        let root = directory.path().display();
        assert_eq!(at("/tmp/x"), Path::new("/tmp/x"));
        assert_eq!(at("FILE:/tmp/x"), Path::new("/tmp/x"));
        assert_eq!(at("FILE:/tmp/a:b"), Path::new("/tmp/a:b"));
        assert_eq!(at("DIR::/tmp/d/tkt1"), Path::new("/tmp/d/tkt1"));
        assert_eq!(at(&format!("DIR:{root}")), directory.path().join("tkt"));
        std::fs::write(directory.path().join("primary"), "tktABC\n").unwrap();
        assert_eq!(at(&format!("DIR:{root}")), directory.path().join("tktABC"));
        for bad in ["../x\n", "tkt/../../x\n", "other\n"] {
            std::fs::write(directory.path().join("primary"), bad).unwrap();
            assert!(path(&format!("DIR:{root}")).unwrap().is_err(), "{bad}");
        }
        for bad in ["", "FILE:", "DIR:", "%{nonsense}"] {
            assert_eq!(path(bad).unwrap_err().code(), "kerberos.cache_unreadable", "{bad}");
        }
        for bad in ["KCM:", "KEYRING:persistent:0", "API:x", "MEMORY:x"] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_is_read_again_only_when_it_has_changed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cache");
        let name = file.display().to_string();
        std::fs::write(&file, sample(2)).unwrap();
        let (cache, stamp) = read(&name, None).unwrap().unwrap();
        assert_eq!(cache.principal.to_string(), "alice@CORP.EXAMPLE");
        assert!(read(&name, Some(&stamp)).unwrap().is_none());
        let next = directory.path().join("next");
        std::fs::write(&next, sample(3)).unwrap();
        std::fs::rename(&next, &file).unwrap();
        assert!(read(&name, Some(&stamp)).unwrap().is_some());
        // A directory is no cache, and what is too large is not read.
        assert!(read(&directory.path().display().to_string(), None).is_err());
        File::create(&file).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert_eq!(read(&name, None).unwrap_err().code(), "kerberos.cache_unreadable");
    }
}
