//! Whose files the agent takes for its own, and how it keeps others away from them.
//!
//! What lies in the state directory decides whom the agent obeys and what it runs again, so it must not be what a stranger
//! put there. But a volume may be somebody else's who lets us in by our group (`fsGroup`), and its files those of a user
//! that an earlier pod ran as. So: what we or root own counts; what others own counts only where not everybody may write.
//! Called by whoever opens something in the state directory.

use std::fs::{Metadata, Permissions};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::process::geteuid;

/// Refuses what a stranger may have put there: `found` in a directory that everybody may write to, if `open`.
pub(crate) fn check(found: &Metadata, open: bool) -> Result<()> {
    if !open || is_trusted(found.uid(), geteuid().as_raw()) {
        return Ok(());
    }
    let problem = format!(
        "it belongs to user {}, where everybody may write; give it to the agent's user or take the others' right to \
         write (chmod o-w), or set another state_dir",
        found.uid()
    );
    Err(Error::new(ErrorKind::PermissionDenied, problem))
}

/// Whether everybody may write.
pub(crate) fn is_open(found: &Metadata) -> bool {
    found.mode() & 0o002 != 0
}

/// Takes other people's rights away. False where the owner is another, whose decision they are.
pub(crate) fn narrow(path: &Path, found: &Metadata, mode: u32) -> Result<bool> {
    if found.mode() & 0o077 == 0 {
        return Ok(true);
    }
    match std::fs::set_permissions(path, Permissions::from_mode(mode)) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied && found.uid() != geteuid().as_raw() => Ok(false),
        narrowed => narrowed.map(|()| true),
    }
}

fn is_trusted(owner: u32, us: u32) -> bool {
    owner == us || owner == 0
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Runs `what` as a user of the group 0 that is neither root nor `STRANGER`, in the eyes of file systems.
    pub(crate) fn as_another_user<T: Send>(what: impl FnOnce() -> T + Send) -> T {
        let run = || {
            // Of this thread alone.
            nix::unistd::setfsuid(nix::unistd::Uid::from_raw(STRANGER + 1));
            what()
        };
        std::thread::scope(|scope| scope.spawn(run).join().unwrap())
    }

    /// Gives a file or directory away. For root, as whom all tests run.
    pub(crate) fn give_away(path: &Path, mode: u32) {
        std::os::unix::fs::lchown(path, Some(STRANGER), Some(0)).expect("tests of owners run as root");
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    pub(crate) const STRANGER: u32 = 54_321;

    #[test]
    fn rights_of_others_are_taken_away_where_that_is_ours_to_do() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "x").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o660)).unwrap();
        let look = || std::fs::metadata(&path).unwrap();
        assert!(narrow(&path, &look(), 0o600).unwrap());
        assert_eq!(look().mode() & 0o777, 0o600);
        give_away(&path, 0o660);
        assert!(!as_another_user(|| narrow(&path, &look(), 0o600)).unwrap());
        assert_eq!(look().mode() & 0o777, 0o660);
        assert!(check(&look(), false).is_ok());
        assert!(check(&look(), true).unwrap_err().to_string().contains("user 54321"));
    }

    #[test]
    fn only_we_and_root_are_trusted_where_everybody_may_write() {
        assert!(is_trusted(7, 7) && is_trusted(0, 7) && !is_trusted(8, 7) && !is_trusted(8, 0));
    }
}
