//! Keytab files: read within bounds, written whole or not at all, and never readable for all.
//!
//! These calls block; on an async thread they belong into `spawn_blocking`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Keytab, KeytabError, MAX_BYTES};

/// What happens to a file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and nothing is written.
    Keep,
    /// It is replaced.
    Replace,
}

impl Keytab {
    /// Reads a keytab file.
    pub fn read(path: &Path) -> Result<Self, KeytabError> {
        Self::parse(&Self::read_bytes(path)?)
            .map_err(|error| KeytabError::File { path: path.to_owned(), source: Box::new(error) })
    }

    /// Reads a file that may be a keytab, within the bound of one.
    pub fn read_bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeytabError> {
        let failed = |source| KeytabError::Read { path: path.to_owned(), source };
        match contents(path).map_err(failed)? {
            Some(data) => Ok(data),
            None => Err(KeytabError::File { path: path.to_owned(), source: Box::new(KeytabError::TooLarge) }),
        }
    }

    /// Writes the file: as a whole, by a new file that takes the place of the old one, mode 0600. A file that is replaced keeps its
    /// owner and what its group may do.
    pub fn write(&self, path: &Path, existing: Existing) -> Result<(), KeytabError> {
        let data = self.to_bytes()?;
        replace(path, &data, existing).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => KeytabError::Exists(path.to_owned()),
            _ => KeytabError::Write { path: path.to_owned(), source },
        })
    }
}

/// All bytes, or nothing when there are too many.
fn contents(path: &Path) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    // Opening a pipe waits for somebody who writes into it. What a shell hands over (`<(command)`) is one that is written.
    if fs::metadata(path)?.file_type().is_fifo() && !path.starts_with("/dev/fd") && !path.starts_with("/proc") {
        return Err(io::Error::other("it is a pipe"));
    }
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
    }
    // One byte more than there should be, to see the end; read into one piece, so that no copy of a key is left behind by growing.
    let expected = if metadata.is_file() { usize::try_from(metadata.len()).unwrap_or(usize::MAX) } else { MAX_BYTES };
    if expected > MAX_BYTES {
        return Ok(None);
    }
    let mut data = Zeroizing::new(vec![0; expected + 1]);
    let mut filled = 0;
    while let Some(free) = data.get_mut(filled..).filter(|free| !free.is_empty()) {
        match file.read(free) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if filled > MAX_BYTES {
        return Ok(None);
    }
    if filled > expected {
        return Err(io::Error::other("it grew while it was read"));
    }
    data.truncate(filled);
    Ok(Some(data))
}

fn replace(path: &Path, data: &[u8], existing: Existing) -> io::Result<()> {
    // Behind a symbolic link the file itself is replaced, not the link.
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    let before = match fs::metadata(&target) {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if let Some(before) = &before {
        if existing == Existing::Keep {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !before.is_file() {
            return Err(io::Error::other("it is not an ordinary file"));
        }
    }
    let (new, mut file) = beside(&target)?;
    file.write_all(data)?;
    if let Some(before) = &before {
        let own = file.metadata()?;
        if (before.uid(), before.gid()) != (own.uid(), own.gid()) {
            fchown(&file, Some(before.uid()), Some(before.gid()))?;
        }
        file.set_permissions(fs::Permissions::from_mode(0o600 | (before.permissions().mode() & 0o060)))?;
    }
    file.sync_all()?;
    match existing {
        Existing::Replace => fs::rename(&new.0, &target)?,
        // A link is made only where nothing is, also when something came in between.
        Existing::Keep => match fs::hard_link(&new.0, &target) {
            // Not every file system has links: an empty file takes the place first.
            Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) => {
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target)?;
                fs::rename(&new.0, &target)?;
            }
            linked => linked?,
        },
    }
    drop(new);
    // The name is on disk when the directory is. Not every file system takes this.
    if let Some(directory) = directory(&target)
        && let Ok(directory) = File::open(directory)
    {
        let _ = directory.sync_all();
    }
    Ok(())
}

/// A new file in the directory of another, for its owner only.
fn beside(target: &Path) -> io::Result<(Temporary, File)> {
    let name = target.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is no file name"))?;
    for attempt in 0..ATTEMPTS {
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{attempt}", std::process::id()));
        let path = target.with_file_name(hidden);
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => return Ok((Temporary(path), file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("files of earlier attempts are in the way"))
}

fn directory(target: &Path) -> Option<&Path> {
    target.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

/// Removes the file on drop, unless it has got its final name by then.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// How many names are tried for the new file.
const ATTEMPTS: u32 = 100;
