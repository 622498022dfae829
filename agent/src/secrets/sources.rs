//! Secrets that are on the agent: files under permitted directories, and variables that it was started with.
//!
//! A task names them, so nothing outside of the permitted directories is even looked at, and no link leads out of them. A file is
//! read each time it is used, so that a mounted one that changes is found. Values are never copied about. Called by `secrets`.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use lictor_winrm::target::Secret;
use rustix::fs::OFlags;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use crate::config::secrets::{VARIABLE_PREFIX, is_variable};

/// What of the agent's may be used.
#[derive(Debug)]
pub(super) struct Sources {
    directories: Arc<[PathBuf]>,
    variables: BTreeMap<String, Secret>,
    /// A file system that hangs takes so many threads, and no more.
    reading: Arc<Semaphore>,
}

/// Where on the agent a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    File(PathBuf),
    Variable(String),
}

/// Why a value is not to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// It is no source.
    #[error(
        "{0:?} is no source: it must be `file:` and an absolute path, or `env:` and the name of a variable {prefix}<name>",
        prefix = VARIABLE_PREFIX
    )]
    Form(String),
    /// The settings do not permit it.
    #[error("{} is in none of the directories of this agent for secrets (secrets.directories)", path.display())]
    NotPermitted {
        /// The file.
        path: PathBuf,
    },
    /// It is not there.
    #[error("{what} is not on this agent")]
    Missing {
        /// The file or variable.
        what: String,
    },
    /// A file leads elsewhere, or is none.
    #[error("{} {problem}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// It cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// How it failed.
        source: std::io::Error,
    },
}

impl Source {
    pub(super) fn parse(text: &str) -> Result<Self, SourceError> {
        let form = || SourceError::Form(text.chars().take(MAX_SHOWN).collect());
        if text.len() > MAX_SOURCE || text.chars().any(char::is_control) {
            return Err(form());
        }
        if let Some(path) = text.strip_prefix("file:") {
            let path = Path::new(path);
            let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
            return if path.is_absolute() && plain { Ok(Self::File(path.to_owned())) } else { Err(form()) };
        }
        match text.strip_prefix("env:") {
            Some(name) if is_variable(name) => Ok(Self::Variable(name.to_owned())),
            _ => Err(form()),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Variable(name) => write!(f, "env:{name}"),
        }
    }
}

impl Sources {
    pub(super) fn new(directories: Vec<PathBuf>, variables: BTreeMap<String, Secret>) -> Self {
        Self { directories: directories.into(), variables, reading: Arc::new(Semaphore::new(READERS)) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.directories.is_empty() && self.variables.is_empty()
    }

    /// The value, as it is there.
    pub(super) async fn read(&self, source: Source, deadline: Instant) -> Result<Zeroizing<Vec<u8>>, SourceError> {
        let path = match source {
            Source::Variable(name) => {
                let value = self.variables.get(&name);
                let value = value.ok_or_else(|| SourceError::Missing { what: format!("the variable {name}") })?;
                return Ok(Zeroizing::new(value.expose().as_bytes().to_vec()));
            }
            Source::File(path) => path,
        };
        let deadline = deadline.min(Instant::now() + READ_LIMIT);
        let hangs = || SourceError::Unfit { path: path.clone(), problem: "could not be read in time" };
        let reading = timeout_at(deadline, Arc::clone(&self.reading).acquire_owned());
        let Ok(Ok(permit)) = reading.await else { return Err(hangs()) };
        let directories = Arc::clone(&self.directories);
        let read = tokio::task::spawn_blocking({
            let path = path.clone();
            move || {
                let read = read(&directories, &path);
                drop(permit);
                read
            }
        });
        timeout_at(deadline, read).await.ok().and_then(Result::ok).unwrap_or_else(|| Err(hangs()))
    }
}

/// Waits for the disk.
fn read(directories: &[PathBuf], path: &Path) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    // Nothing is looked at where nothing may be: who asks would learn what there is.
    let Some(directory) =
        directories.iter().find(|directory| path.starts_with(directory) && path != directory.as_path())
    else {
        return Err(SourceError::NotPermitted { path: path.to_owned() });
    };
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
            SourceError::Missing { what: format!("the file {}", path.display()) }
        }
        _ => SourceError::Read { path: path.to_owned(), source },
    };
    let unfit = |problem| SourceError::Unfit { path: path.to_owned(), problem };
    let directory = directory.canonicalize().map_err(failed)?;
    // Kubernetes' mounted files are links within their directory.
    let real = path.canonicalize().map_err(failed)?;
    if !real.starts_with(&directory) {
        return Err(unfit("leads out of the directory for secrets"));
    }
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or_default();
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(&real);
    let file = opened.map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(unfit("is no regular file"));
    }
    // A directory on the way may have been replaced by a link since.
    let held = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(failed)?;
    if !held.starts_with(&directory) {
        return Err(unfit("leads out of the directory for secrets"));
    }
    // Never reallocated, which would leave copies behind.
    let mut read = Zeroizing::new(Vec::with_capacity(MAX_VALUE + 2));
    file.take(MAX_VALUE as u64 + 1).read_to_end(&mut read).map_err(failed)?;
    match read.len() {
        0 => Err(unfit("is empty")),
        length if length > MAX_VALUE => Err(unfit("has more than 256 KiB")),
        _ => Ok(Zeroizing::new(read.to_vec())),
    }
}

/// The contract's bound on a file's value.
const MAX_VALUE: usize = 256 * 1024;
/// A path has 4096 bytes at most.
const MAX_SOURCE: usize = 4096 + 8;
/// Characters of a source that is none.
const MAX_SHOWN: usize = 200;
const READERS: usize = 8;
/// A disk that takes longer hangs.
const READ_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn problem(result: Result<Zeroizing<Vec<u8>>, SourceError>) -> String {
        match result {
            Ok(_) => "read".into(),
            Err(SourceError::Form(_)) => "form".into(),
            Err(SourceError::NotPermitted { .. }) => "not permitted".into(),
            Err(SourceError::Missing { .. }) => "missing".into(),
            Err(SourceError::Unfit { problem, .. }) => problem.into(),
            Err(SourceError::Read { .. }) => "unreadable".into(),
        }
    }

    #[test]
    fn nothing_but_a_plain_path_or_a_secret_variable_is_a_source() {
        assert_eq!(Source::parse("file:/a/b c").unwrap(), Source::File("/a/b c".into()));
        assert_eq!(Source::parse("env:LICTOR_SECRET_a_1").unwrap(), Source::Variable("LICTOR_SECRET_a_1".into()));
        for text in [
            "",
            "/a",
            "file:",
            "file:a",
            "file:/a/../b",
            "file:/..",
            "file:/a\nb",
            "file:/a\0b",
            "env:HOME",
            "env:LICTOR_SECRET_",
            "env:LICTOR_SECRET_A=B",
            "env:LICTOR_AGENT_JOIN_TOKEN",
            "env: LICTOR_SECRET_A",
            "ENV:LICTOR_SECRET_A",
        ] {
            assert!(matches!(Source::parse(text), Err(SourceError::Form(_))), "{text:?}");
        }
        assert!(Source::parse(&format!("file:/{}", "a".repeat(5000))).is_err());
    }

    #[test]
    fn only_regular_files_within_the_directories_are_read() {
        let top = tempfile::tempdir().unwrap();
        let inside = top.path().join("inside");
        std::fs::create_dir_all(inside.join("..data-1/deep")).unwrap();
        std::fs::write(top.path().join("outside"), "outside").unwrap();
        std::fs::write(inside.join("..data-1/web"), "web").unwrap();
        // As Kubernetes mounts a Secret.
        symlink("..data-1", inside.join("..data")).unwrap();
        symlink("..data/web", inside.join("web")).unwrap();
        symlink("../outside", inside.join("out")).unwrap();
        symlink(top.path(), inside.join("up")).unwrap();
        symlink("/proc/self/environ", inside.join("environ")).unwrap();
        symlink("round", inside.join("round")).unwrap();
        let fifo = inside.join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::write(inside.join("empty"), "").unwrap();
        std::fs::write(inside.join("most"), vec![b'x'; MAX_VALUE]).unwrap();
        std::fs::write(inside.join("more"), vec![b'x'; MAX_VALUE + 1]).unwrap();
        let directories = [top.path().join("none"), inside.clone()];
        let out = "leads out of the directory for secrets";
        for (name, expected) in [
            ("web", "read"),
            ("..data/web", "read"),
            ("most", "read"),
            ("more", "has more than 256 KiB"),
            ("empty", "is empty"),
            ("..data", "is no regular file"),
            ("fifo", "is no regular file"),
            ("out", out),
            ("up/outside", out),
            ("environ", out),
            ("round", "unreadable"),
            ("missing", "missing"),
            ("web/deeper", "missing"),
            ("", "not permitted"),
        ] {
            assert_eq!(problem(read(&directories, &inside.join(name))), expected, "{name}");
        }
        for path in ["/proc/self/environ", "/etc/passwd", "/nowhere/at/all"] {
            assert_eq!(problem(read(&directories, Path::new(path))), "not permitted", "{path}");
        }
        // Its name begins alike.
        assert_eq!(problem(read(&directories, &top.path().join("inside-not"))), "not permitted");
        assert_eq!(problem(read(&directories, &top.path().join("none/x"))), "missing");
        assert_eq!(problem(read(&[], &inside.join("web"))), "not permitted");
        let locked = inside.join("locked");
        std::fs::write(&locked, "x").unwrap();
        std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o000)).unwrap();
        // Root reads it all the same.
        let expected = if rustix::process::geteuid().is_root() { "read" } else { "unreadable" };
        assert_eq!(problem(read(&directories, &locked)), expected);
    }

    #[tokio::test]
    async fn a_disk_that_hangs_does_not_hold_a_task_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("web"), "x").unwrap();
        let sources = Sources::new(vec![directory.path().to_owned()], BTreeMap::new());
        let held = Arc::clone(&sources.reading).acquire_many_owned(u32::try_from(READERS).unwrap()).await.unwrap();
        let source = || Source::File(directory.path().join("web"));
        let soon = Instant::now() + std::time::Duration::from_millis(20);
        assert_eq!(problem(sources.read(source(), soon).await), "could not be read in time");
        drop(held);
        assert_eq!(problem(sources.read(source(), Instant::now() + READ_LIMIT).await), "read");
    }
}
