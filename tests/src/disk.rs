//! A small disk of its own for an agent's state: it can be read-only, and work again.
//!
//! A tmpfs in a mount namespace that a sleeping process keeps; nothing of it is seen outside, and it ends with that process.
//! Needs the rights to mount.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::eventually;
use crate::process::Process;

/// The disk.
#[derive(Debug)]
pub struct Disk {
    process: Process,
    mounted_at: PathBuf,
}

impl Disk {
    /// Of this size, at a directory that is made. Nothing: this process may not mount.
    ///
    /// # Errors
    /// When it may, and it does not work.
    pub fn mount(at: &Path, size: &str) -> Result<Option<Self>> {
        let may = Command::new("unshare").args(["--mount", "true"]).output();
        if !may.is_ok_and(|output| output.status.success()) {
            return Ok(None);
        }
        std::fs::create_dir_all(at)?;
        let script = r#"mount -t tmpfs -o "size=$1,mode=0700" tmpfs "$2" && touch "$2/.mounted" && exec sleep 600"#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh", size]).arg(at);
        let process = Process::start("disk", &mut command, &at.with_extension("disk.log"))?;
        let disk = Self { process, mounted_at: at.to_owned() };
        eventually("the disk is mounted", std::time::Duration::from_secs(20), || {
            disk.inside().join(".mounted").metadata().context("not mounted yet")
        })?;
        Ok(Some(disk))
    }

    /// What a command must be preceded by to see it.
    #[must_use]
    pub fn entrance(&self) -> Vec<String> {
        ["nsenter", "--mount", "--target", &self.process.pid().to_string(), "--"].map(str::to_owned).to_vec()
    }

    /// The same directory, as it is seen from outside.
    #[must_use]
    pub fn inside(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.process.pid()));
        root.join(self.mounted_at.strip_prefix("/").unwrap_or(&self.mounted_at))
    }

    /// Makes it read-only, or writable again.
    ///
    /// # Errors
    /// When that fails.
    pub fn remount(&self, how: &str) -> Result<()> {
        let entrance = self.entrance();
        let output = Command::new(&entrance[0])
            .args(&entrance[1..])
            .args(["mount", "-o", &format!("remount,{how}")])
            .arg(&self.mounted_at)
            .output()?;
        if !output.status.success() {
            bail!("remount,{how}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}
