//! Small files that must appear whole: keys, tokens, the ready file.
//!
//! Each is written beside its place and renamed, so that no reader ever sees half of it. Beside them, the lock that
//! keeps a second process out of the state directory. Blocking; called at start, and by commands beside it.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::Path;

/// Writes a file that only its owner may read.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    write(path, content, 0o600, None)
}

/// Writes a file that everybody may read.
pub(crate) fn write_public(path: &Path, content: &[u8]) -> io::Result<()> {
    write(path, content, 0o644, None)
}

/// Writes a file that only the owner of the one before may read, and its group if that alone could, too: whoever runs this may be somebody else. The
/// one before is open here. Fails when another file has taken the place of that one.
pub(crate) fn replace_private(path: &Path, content: &[u8], before: &fs::File) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let (there, opened) = (fs::metadata(&path)?, before.metadata()?);
    if (there.dev(), there.ino()) != (opened.dev(), opened.ino()) {
        return Err(io::Error::other("somebody else has just changed it"));
    }
    write(&path, content, 0o600, Some(&opened))
}

/// Takes a file's lock; the kernel gives it back when the process ends, however it ends. Nothing when another process
/// has it.
pub(crate) fn lock(path: &Path) -> io::Result<Option<fs::File>> {
    let file = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

fn write(path: &Path, content: &[u8], mode: u32, owner: Option<&fs::Metadata>) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    // A leftover of a crash could have other permissions.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    if let Some(owner) = owner {
        let mine = file.metadata()?;
        if (mine.uid(), mine.gid()) != (owner.uid(), owner.gid()) {
            fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
        }
        // A key of root's that a service reads by its group must not be taken away from it. One that everybody could read was made
        // so by nobody's intention.
        if owner.mode() & 0o047 == 0o040 {
            file.set_permissions(fs::Permissions::from_mode(mode | 0o040))?;
        }
    }
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    // Until the directory is on disk, a power cut can take the new name away again, and a key with it.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_replaced_is_read_by_those_who_could() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        for (before, after) in [(0o600, 0o600), (0o640, 0o640), (0o644, 0o600), (0o660, 0o640)] {
            fs::write(&path, "old").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(before)).unwrap();
            replace_private(&path, b"new", &fs::File::open(&path).unwrap()).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, after, "{before:o}");
            assert_eq!(fs::read(&path).unwrap(), b"new");
        }
    }
}
