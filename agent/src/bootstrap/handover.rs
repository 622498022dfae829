//! What one stage of the start hands to the next, which is the same process by another name: everything that must not
//! be in an environment or on a command line, through a file in memory that has no name.
//!
//! The file is the next stage's standard input, which the agent has no other use for. It is read once, emptied and
//! closed for good. It must never take anything else for such a file, and its contents never reach a disk or a log.
//! Called by `bootstrap`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::io::{Errno, pread};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::outcome::Outcome;
use crate::process;

/// What the next stage gets.
#[derive(Serialize, Deserialize, Default)]
pub(super) struct Handover {
    /// Secret variables.
    pub(super) secrets: Vec<(String, String)>,
    /// The script that is still to run, in base64, and where it came from.
    pub(super) script: Option<(String, String)>,
    /// How many files the pod's processes may have open, before this one raised it.
    pub(super) open_files: Option<u64>,
    /// Settings that the script exported.
    pub(super) beneath: Vec<(String, String)>,
    /// How it went.
    pub(super) outcome: Option<Outcome>,
    /// Processes that are not the script's, and when they began.
    pub(super) strangers: Vec<(i32, u64)>,
    /// The script's output, which what it left running still has: numbers of inherited descriptors.
    pub(super) streams: Vec<(String, i32)>,
    /// What is masked in it.
    pub(super) masked: Vec<String>,
}

impl Drop for Handover {
    fn drop(&mut self) {
        self.secrets.iter_mut().chain(&mut self.beneath).for_each(|(_, value)| value.zeroize());
        self.masked.zeroize();
        if let Some((script, _)) = &mut self.script {
            script.zeroize();
        }
    }
}

/// Takes what an earlier stage left, if there was one.
pub(super) fn take() -> io::Result<Option<Handover>> {
    let stdin = io::stdin();
    let file = stdin.as_fd();
    // Only files in memory have seals.
    if fcntl_get_seals(file).is_err() {
        return Ok(None);
    }
    let size = usize::try_from(fstat(file)?.st_size).unwrap_or(usize::MAX);
    if size > MAX_BYTES {
        return Ok(None);
    }
    let mut bytes = Zeroizing::new(vec![0; size]);
    let mut read = 0;
    while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match pread(file, rest, read as u64)? {
            0 => break,
            count => read += count,
        }
    }
    let Some(body) = bytes.strip_prefix(MAGIC) else { return Ok(None) };
    let handover = serde_json::from_slice(body).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // Whoever looks at this descriptor later finds nothing, and can put nothing there.
    ftruncate(file, 0)?;
    fcntl_add_seals(file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
    Ok(Some(handover))
}

/// Goes on as the same program with the same arguments, in another environment. Returns only when that fails.
pub(super) fn go_on(handover: &Handover, environment: &[(OsString, OsString)]) -> io::Error {
    let file = match write(handover) {
        Ok(file) => file,
        Err(error) => return error,
    };
    let mut arguments = std::env::args_os();
    let mut command = Command::new(program());
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
    // Until the next stage listens: it ends what the script left running.
    if handover.outcome.is_some() {
        process::hold_signals();
    }
    command.stdin(Stdio::from(file)).exec()
}

fn write(handover: &Handover) -> io::Result<OwnedFd> {
    let mut body = Zeroizing::new(Vec::with_capacity(MAX_BYTES));
    serde_json::to_writer(&mut *body, handover)?;
    if body.len() + MAGIC.len() > MAX_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut file = memory("lictor-start")?;
    file.write_all(MAGIC)?;
    file.write_all(&body)?;
    file.rewind()?;
    Ok(file.into())
}

/// A file that is nowhere but in memory.
pub(super) fn memory(name: &str) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Some systems allow no other (vm.memfd_noexec = 2); kernels before 6.3 know no such thing.
    let created = match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create(name, flags),
        created => created,
    };
    Ok(File::from(created?))
}

/// This very program. By its path when that is still the same file, because the kernel names the process after it.
pub(super) fn program() -> PathBuf {
    use std::os::unix::fs::MetadataExt as _;
    let running = PathBuf::from("/proc/self/exe");
    let same = |path: &PathBuf| {
        let (one, other) = (path.metadata().ok()?, running.metadata().ok()?);
        Some((one.dev(), one.ino()) == (other.dev(), other.ino()))
    };
    std::env::current_exe().ok().filter(|path| same(path) == Some(true)).unwrap_or(running)
}

const MAGIC: &[u8] = b"lictor-handover-1\n";
/// A script in base64, and an environment.
const MAX_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_memory_can_never_be_run() {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = memory("test").unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0, "{mode:o}");
    }

    #[test]
    fn what_is_written_is_read_in_the_same_form() {
        let mut handover = Handover::default();
        handover.secrets.push(("A".into(), "b".into()));
        handover.open_files = Some(7);
        let file = write(&handover).unwrap();
        let mut bytes = vec![0; 1000];
        let length = pread(&file, &mut bytes, 0).unwrap();
        let read: Handover = serde_json::from_slice(bytes[..length].strip_prefix(MAGIC).unwrap()).unwrap();
        assert_eq!((read.secrets[0].1.as_str(), read.open_files), ("b", Some(7)));
    }
}
