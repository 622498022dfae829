//! The state directory and the identity in it, looked at without touching either. An agent may run on them.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{Access, access, statvfs};

use super::report::Book;
use super::{advice, on_disk, size, span};
use crate::config::Loaded;
use crate::enrol::{EnrolError, Identity, Store, TokenSource};
use crate::failure::chain;

/// Returns the identity, when there is a usable one.
pub(super) async fn look(loaded: &Loaded, book: &mut Book) -> Option<Identity> {
    let path = loaded.config.state_dir.clone();
    let tokens = TokenSource { value: loaded.join_token.clone(), file: loaded.config.join_token_file.clone() };
    let mut aside = book.aside();
    let looked = on_disk(move || {
        let mut found = None;
        if directory(&path, &mut aside) {
            journal(&path, &mut aside);
            found = identity(&path, &tokens, SystemTime::now(), &mut aside);
        }
        (found, aside)
    });
    match looked.await {
        Ok((found, aside)) => {
            book.adopt(aside);
            found
        }
        Err(why) => {
            book.unknown("directory", format!("{}: {why}", loaded.config.state_dir.display()));
            None
        }
    }
}

/// False: there is no point in looking into it.
fn directory(path: &Path, book: &mut Book) -> bool {
    let shown = path.display();
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let above = path.ancestors().skip(1).find(|above| above.as_os_str().is_empty() || above.exists());
            let above = above.filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
            return match access(above, Access::WRITE_OK | Access::EXEC_OK) {
                Ok(()) => {
                    book.passed("directory", format!("{shown} is not there yet; the agent makes it when it starts"));
                    true
                }
                Err(error) => {
                    let message = format!("{shown} is not there, and cannot be made in {}: {error}", above.display());
                    book.failed("directory", "", advice::STATE_UNUSABLE.about(message));
                    false
                }
            };
        }
        Err(error) => {
            book.failed("directory", "", advice::STATE_UNUSABLE.about(format!("failed to look at {shown}: {error}")));
            return false;
        }
    };
    if !metadata.is_dir() {
        book.failed("directory", "", advice::STATE_UNUSABLE.about(format!("{shown} is no directory")));
        return false;
    }
    let mode = metadata.permissions().mode() & 0o777;
    if let Err(error) = access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        let uid = rustix::process::geteuid().as_raw();
        let message =
            format!("{shown} (mode {mode:04o}, of user {}) cannot be used by user {uid}: {error}", metadata.uid());
        book.failed("directory", "", advice::STATE_UNUSABLE.about(message));
        return false;
    }
    if mode & 0o077 == 0 {
        book.passed("directory", format!("{shown}, mode {mode:04o}"));
    } else {
        book.warn("directory", "", advice::STATE_OPEN.about(format!("{shown} has mode {mode:04o}")));
    }
    space(path, book);
    true
}

fn space(path: &Path, book: &mut Book) {
    let free = match statvfs(path) {
        Ok(free) => free,
        Err(error) => return book.unknown("space", format!("the file system does not say: {error}")),
    };
    let bytes = free.f_bavail.saturating_mul(free.f_frsize);
    // Some file systems count no files, and say 0 of 0.
    let files = if free.f_files == 0 { u64::MAX } else { free.f_favail };
    let text = match files {
        u64::MAX => format!("{} free", size(bytes)),
        files => format!("{} and {files} files free", size(bytes)),
    };
    if bytes < LEAST_SPACE || files < LEAST_FILES {
        book.failed("space", "", advice::STATE_SPACE.about(text));
    } else if bytes < LITTLE_SPACE {
        book.warn("space", "", advice::STATE_SPACE.about(text));
    } else {
        book.passed("space", text);
    }
}

/// Without opening it: an agent that starts at the same moment must find it free.
pub(super) fn journal(directory: &Path, book: &mut Book) {
    let names = std::fs::read_dir(directory).into_iter().flatten().take(MOST_NAMES).flatten();
    let mut aside: Vec<String> = names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("journal.redb.damaged-"))
        .collect();
    aside.sort();
    let detail = match std::fs::metadata(directory.join("journal.redb")) {
        Err(_) => "there is none yet".to_owned(),
        Ok(metadata) => {
            let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
            let user = match holder(&locks, metadata.ino()) {
                Some(Some(pid)) => format!("in use by an agent, process {pid}"),
                Some(None) => "in use by an agent".to_owned(),
                None => "no agent seen that uses it".to_owned(),
            };
            format!("{}; {user}", size(metadata.len()))
        }
    };
    if aside.is_empty() {
        book.passed("journal", detail);
    } else {
        book.warn("journal", detail, advice::JOURNAL_DAMAGED.about(format!("set aside: {}", aside.join(", "))));
    }
}

/// Who locks the file of this number, by the kernel's list. In a container the list may name nobody, or nobody in particular.
pub(super) fn holder(locks: &str, inode: u64) -> Option<Option<u32>> {
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (kind, pid, file) = (words.next()?, words.nth(2)?, words.next()?);
        let is_it = kind != "->" && file.rsplit(':').next()?.parse() == Ok(inode);
        is_it.then(|| pid.parse().ok().filter(|pid| *pid > 0))
    })
}

/// By `now`, which may be wrong.
pub(super) fn identity(directory: &Path, tokens: &TokenSource, now: SystemTime, book: &mut Book) -> Option<Identity> {
    let store = Store::look(directory);
    let identity = match store.load() {
        Ok(Some(identity)) => identity,
        Ok(None) => {
            not_enrolled(tokens, book);
            return None;
        }
        Err(error) => {
            book.failed("identity", "", advice::IDENTITY.about(chain(&error)));
            return None;
        }
    };
    let mode = std::fs::metadata(store.path()).map_or(0o600, |metadata| metadata.permissions().mode() & 0o777);
    if mode & 0o077 == 0 {
        book.passed("identity", format!("agent {}", identity.agent_id));
    } else {
        let message = format!("{} has mode {mode:04o}", store.path().display());
        book.warn("identity", format!("agent {}", identity.agent_id), advice::STATE_OPEN.about(message));
    }
    let until = |at: SystemTime| at.duration_since(now).ok().map(|left| span(left.as_secs()));
    let since = |at: SystemTime| now.duration_since(at).map_or(0, |past| past.as_secs());
    match until(identity.not_after) {
        None => {
            let message = format!("it ended {} ago", span(since(identity.not_after)));
            book.failed("certificate", "", advice::CERTIFICATE_ENDED.about(message));
        }
        Some(left) => match now.duration_since(identity.renewal_due() + PATIENCE) {
            Ok(_) => {
                let message = format!("its renewal was due {} ago", span(since(identity.renewal_due())));
                book.warn("certificate", format!("ends in {left}"), advice::CERTIFICATE_DUE.about(message));
            }
            Err(_) => book.passed("certificate", format!("ends in {left}")),
        },
    }
    match identity.issued.duration_since(now + PATIENCE) {
        Ok(ahead) => {
            let message = format!("the certificate was issued {} from now", span((ahead + PATIENCE).as_secs()));
            book.failed("clock", "", advice::CLOCK.about(message));
        }
        Err(_) => book.passed("clock", "not before the certificate; a KDC can say more"),
    }
    Some(identity)
}

/// A token is looked at, and stays unspent.
fn not_enrolled(tokens: &TokenSource, book: &mut Book) {
    if tokens.is_empty() {
        let message = "there is no identity, and no join token to get one with";
        return book.failed("identity", "", advice::NOT_ENROLLED.about(message));
    }
    match tokens.read() {
        Ok(_) => {
            let whence = if tokens.value.is_some() { "the environment" } else { "its file" };
            book.passed("identity", format!("none yet; there is a join token in {whence} to enrol with"));
        }
        Err(EnrolError::NoToken) => {
            book.failed("identity", "", advice::NOT_ENROLLED.about("there is no identity and no join token"));
        }
        Err(error) => book.failed("identity", "", advice::JOIN_TOKEN.about(chain(&error))),
    }
}

/// Below this an agent may not even write down that a task ended.
const LEAST_SPACE: u64 = 16 << 20;
const LEAST_FILES: u64 = 100;
/// A GiB of output may wait for the control plane.
const LITTLE_SPACE: u64 = 1 << 30;
const MOST_NAMES: usize = 100_000;
/// A renewal is tried again after failures, and clocks are set.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
