//! The files of a configuration: read within bounds, and remembered with what tells whether they have changed.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::profile::MAX_FILE;

/// Names in one directory. `/etc/krb5.conf.d` has two or three.
const MAX_NAMES: usize = 1_000;

/// A file that was written less than this ago can be written once more without its times changing, as far as the clock of a file
/// system goes.
const SETTLED: Duration = Duration::from_secs(2);

/// What was looked at while one configuration was read.
#[derive(Debug, Default)]
pub(super) struct Disk {
    seen: Vec<(PathBuf, Option<Stamp>)>,
    /// Something was written so lately that its stamp does not tell whether it changes.
    unsettled: bool,
    files: Vec<PathBuf>,
}

/// What changes when a file is written or replaced, or a name in a directory appears or goes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Disk {
    /// The content of a file of a bounded size. Nothing but a file is opened: a pipe would wait.
    pub(super) fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let metadata = self.look(path)?;
        if !metadata.is_file() {
            return Err(io::Error::other("this is not a file"));
        }
        let mut content = Vec::new();
        File::open(path)?.take(MAX_FILE as u64 + 1).read_to_end(&mut content)?;
        if content.len() > MAX_FILE {
            return Err(io::Error::other(format!("this is longer than {MAX_FILE} bytes")));
        }
        self.files.push(path.to_path_buf());
        Ok(content)
    }

    /// Whether any file was read.
    pub(super) fn has_read(&self) -> bool {
        !self.files.is_empty()
    }

    /// The files that were read, in order.
    pub(super) fn read_files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The files of a directory that `includedir` reads, in order.
    pub(super) fn list(&mut self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.look(directory)?;
        let mut names = Vec::new();
        for (index, entry) in fs::read_dir(directory)?.enumerate() {
            if index >= MAX_NAMES {
                return Err(io::Error::other(format!("more than {MAX_NAMES} names are in it")));
            }
            // MIT's library does not read names that are not ASCII either.
            names.extend(entry?.file_name().into_string().ok().filter(|name| is_read(name)));
        }
        names.sort();
        Ok(names.into_iter().map(|name| directory.join(name)).collect())
    }

    /// Whether anything that was looked at is no longer as it was, or cannot be told.
    pub(super) fn has_changed(&self) -> bool {
        self.unsettled
            || self.seen.iter().any(|(path, stamp)| fs::metadata(path).ok().map(|found| Stamp::of(&found)) != *stamp)
    }

    /// The files and directories that were looked at, whether they were there or not.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.seen.iter().map(|(path, _)| path.as_path())
    }

    /// Whether this is a directory, as an entry of `KRB5_CONFIG` may be.
    pub(super) fn is_directory(&mut self, path: &Path) -> bool {
        self.look(path).is_ok_and(|metadata| metadata.is_dir())
    }

    fn look(&mut self, path: &Path) -> io::Result<Metadata> {
        let metadata = fs::metadata(path);
        let stamp = metadata.as_ref().ok().map(Stamp::of);
        if let Some(stamp) = &stamp {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let lately = i64::try_from(now.saturating_sub(SETTLED.as_secs())).unwrap_or(i64::MAX);
            self.unsettled |= stamp.modified.0 >= lately || stamp.changed.0 >= lately;
        }
        if !self.seen.iter().any(|(seen, _)| seen == path) {
            self.seen.push((path.to_path_buf(), stamp));
        }
        metadata
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Names that MIT's library reads from a directory: letters, digits, dashes and underscores only, or ending in `.conf`; none that
/// are hidden, as the `..data` of a ConfigMap is.
fn is_read(name: &str) -> bool {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    !name.starts_with('.') && (plain || name.ends_with(".conf"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_directory_gives() {
        for name in ["corp", "10-corp_example", "corp.example.conf", "a.conf"] {
            assert!(is_read(name), "{name}");
        }
        for name in [".conf", ".corp.conf", "..data", "corp.conf~", "corp.conf.rpmnew", "corp.txt", "corp example"] {
            assert!(!is_read(name), "{name}");
        }
    }
}
