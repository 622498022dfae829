//! A real MIT KDC on loopback: its own realm, its own port, its own database in a directory that goes away with it.
//!
//! It is started by `krb5kdc`, filled by `kadmin.local` and ended by its own process id. Every instance has a realm and a
//! port that no other has: several `krb5kdc` on one port share it silently and mix their answers, so that a port is held by
//! a lock file for as long as the KDC lives.

use std::fmt::Write as _;
use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::{Process, eventually};

/// What a KDC should be like.
#[derive(Debug, Clone)]
pub struct KdcOptions {
    /// Key types of new principals, as `supported_enctypes` names them.
    pub enctypes: String,
    /// Longest life of a ticket, such as `10h`.
    pub max_life: String,
    /// Longest life of a renewable ticket; `0` allows none.
    pub max_renewable_life: String,
    /// New principals must pre-authenticate.
    pub preauth: bool,
    /// How far the KDC's clock is ahead of ours, in seconds.
    pub clock_offset: i64,
    /// Further lines of `[libdefaults]` in the krb5.conf of clients.
    pub libdefaults: Vec<String>,
    /// Further lines of the realm in kdc.conf.
    pub realm_settings: Vec<String>,
}

impl Default for KdcOptions {
    fn default() -> Self {
        Self {
            enctypes: "aes256-cts-hmac-sha1-96:normal aes128-cts-hmac-sha1-96:normal \
                       aes256-cts-hmac-sha384-192:normal aes128-cts-hmac-sha256-128:normal"
                .to_owned(),
            max_life: "10h".to_owned(),
            max_renewable_life: "7d".to_owned(),
            preauth: true,
            clock_offset: 0,
            libdefaults: Vec::new(),
            realm_settings: Vec::new(),
        }
    }
}

/// A running (or stopped) KDC. Dropping it kills it and removes all that it wrote.
#[derive(Debug)]
pub struct Kdc {
    process: Option<Process>,
    realm: String,
    port: Port,
    options: KdcOptions,
    /// What the krb5.conf of clients says besides this realm.
    known: Mutex<Known>,
    directory: TempDir,
}

#[derive(Debug, Default)]
struct Known {
    realms: Vec<(String, u16)>,
    hosts: Vec<(String, String)>,
}

impl Kdc {
    /// Starts a KDC whose realm is unique and ends in `suffix`, such as `CORP.EXAMPLE`.
    ///
    /// # Errors
    /// When the MIT programs are missing or the KDC does not come up.
    pub fn start(suffix: &str) -> Result<Self> {
        Self::start_with(suffix, KdcOptions::default())
    }

    /// Starts a KDC that is like `options`.
    ///
    /// # Errors
    /// When the MIT programs are missing or the KDC does not come up.
    pub fn start_with(suffix: &str, options: KdcOptions) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("lictor-kdc-").tempdir()?;
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let realm = format!("T{}.{suffix}", unique[..8].to_uppercase());
        let mut kdc =
            Self { process: None, realm, port: Port::reserve()?, options, known: Mutex::default(), directory };
        kdc.write_krb5_conf()?;
        kdc.write_kdc_conf()?;
        run(kdc.command("kdb5_util").args(["-r", &kdc.realm, "create", "-s", "-P", "master"]), None)?;
        kdc.restart()?;
        Ok(kdc)
    }

    /// Its realm.
    #[must_use]
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// `name@REALM`.
    #[must_use]
    pub fn principal(&self, name: &str) -> String {
        format!("{name}@{}", self.realm)
    }

    /// Its port on 127.0.0.1, UDP and TCP.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number
    }

    /// The krb5.conf of clients.
    #[must_use]
    pub fn krb5_conf(&self) -> PathBuf {
        self.path("krb5.conf")
    }

    /// A path in its directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A program that sees only this realm's files; its credential cache is a file in the KDC's directory.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        // Debian keeps the servers' programs where ordinary users do not look.
        let administrators = Path::new("/usr/sbin").join(program);
        let mut command = if administrators.is_file() { Command::new(administrators) } else { Command::new(program) };
        command
            .env("KRB5_CONFIG", self.krb5_conf())
            .env("KRB5_KDC_PROFILE", self.path("kdc.conf"))
            .env("KRB5CCNAME", format!("FILE:{}", self.path("default.ccache").display()))
            .env("KRB5RCACHENAME", "none:")
            .env("LC_ALL", "C.UTF-8")
            .env_remove("KRB5_KTNAME")
            .env_remove("KRB5_CLIENT_KTNAME")
            .env_remove("KRB5_TRACE");
        command
    }

    /// Adds a principal with a password. `flags` are those of `addprinc`, such as `+requires_preauth`, `-allow_tix`
    /// (disabled), `+needchange`, `-expire yesterday`, `-pwexpire yesterday`, `+ok_as_delegate`.
    ///
    /// # Errors
    /// When kadmin.local refuses it.
    pub fn add_password(&self, name: &str, password: &str, flags: &[&str]) -> Result<()> {
        self.kadmin(&[&format!("addprinc {} -pw {} {}", self.flags(flags), quoted(password), quoted(name))])
    }

    /// Adds a principal with random keys, as services have them.
    ///
    /// # Errors
    /// When kadmin.local refuses it.
    pub fn add_random(&self, name: &str, flags: &[&str]) -> Result<()> {
        self.kadmin(&[&format!("addprinc {} -randkey {}", self.flags(flags), quoted(name))])
    }

    /// Changes attributes of a principal, by the flags of `modprinc`.
    ///
    /// # Errors
    /// When kadmin.local refuses it.
    pub fn modify(&self, name: &str, flags: &[&str]) -> Result<()> {
        self.kadmin(&[&format!("modprinc {} {}", flags.join(" "), quoted(name))])
    }

    /// Gives a principal another password, and with that keys of the next kvno.
    ///
    /// # Errors
    /// When kadmin.local refuses it.
    pub fn change_password(&self, name: &str, password: &str) -> Result<()> {
        self.kadmin(&[&format!("cpw -pw {} {}", quoted(password), quoted(name))])
    }

    /// Gives a principal new random keys of the next kvno; with `keep_old` the KDC still takes the ones before.
    ///
    /// # Errors
    /// When kadmin.local refuses it.
    pub fn change_keys(&self, name: &str, keep_old: bool) -> Result<()> {
        let keep = if keep_old { "-keepold" } else { "" };
        self.kadmin(&[&format!("cpw -randkey {keep} {}", quoted(name))])
    }

    /// Removes a principal.
    ///
    /// # Errors
    /// When kadmin.local refuses it.
    pub fn delete(&self, name: &str) -> Result<()> {
        self.kadmin(&[&format!("delprinc -force {}", quoted(name))])
    }

    /// Adds the present keys of principals to a keytab (`ktadd -norandkey`).
    ///
    /// # Errors
    /// When kadmin.local refuses it.
    pub fn keytab(&self, names: &[&str], path: &Path) -> Result<()> {
        let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
        self.kadmin(&[&format!("ktadd -norandkey -k {} {}", path.display(), names.join(" "))])
    }

    /// Runs commands of kadmin.local, one after the other in one process.
    ///
    /// # Errors
    /// When one of them fails; what it printed is in the error.
    pub fn kadmin(&self, commands: &[&str]) -> Result<()> {
        let input = format!("{}\nquit\n", commands.join("\n"));
        let printed = run(self.command("kadmin.local").args(["-r", &self.realm]), Some(&input))?;
        // It goes on after an error and ends with 0: its messages have the form of com_err.
        if let Some(line) = printed.lines().find(|line| line.contains(" while ") || line.contains("Usage:")) {
            bail!("kadmin.local: {line}\n{printed}");
        }
        Ok(())
    }

    /// Gets a ticket-granting ticket into `cache` (`FILE:...`, `DIR:...`) as people do; `arguments` are those of `kinit`.
    ///
    /// # Errors
    /// When kinit fails; its message is in the error.
    pub fn kinit(&self, principal: &str, password: &str, cache: &str, arguments: &[&str]) -> Result<()> {
        let mut command = self.command("kinit");
        command.env("KRB5CCNAME", cache).args(arguments).arg(principal);
        run(&mut command, Some(&format!("{password}\n"))).map(drop)
    }

    /// What `klist` says of a cache.
    ///
    /// # Errors
    /// When klist fails; its message is in the error.
    pub fn klist(&self, cache: &str, arguments: &[&str]) -> Result<String> {
        run(self.command("klist").args(arguments).arg(cache), None)
    }

    /// Lets two realms trust each other, and their clients find both. For referrals both must be restarted.
    ///
    /// # Errors
    /// When kadmin.local refuses it.
    pub fn trust(&self, other: &Self) -> Result<()> {
        for kdc in [self, other] {
            kdc.kadmin(&[
                &format!("addprinc -pw trust-secret krbtgt/{}@{}", other.realm, self.realm),
                &format!("addprinc -pw trust-secret krbtgt/{}@{}", self.realm, other.realm),
            ])?;
        }
        self.knows(other)?;
        other.knows(self)
    }

    /// Lets this realm's krb5.conf name another KDC.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn knows(&self, other: &Self) -> Result<()> {
        self.known().realms.push((other.realm.clone(), other.port()));
        self.write_krb5_conf()
    }

    /// Says in krb5.conf that a host, or with a leading dot a domain, belongs to `realm`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn map_host(&self, host: &str, realm: &str) -> Result<()> {
        self.known().hosts.push((host.to_owned(), realm.to_owned()));
        self.write_krb5_conf()
    }

    /// The KDC's log of requests, one line each.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(self.path("kdc.log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// How many lines of the log hold all these words.
    #[must_use]
    pub fn logged(&self, words: &[&str]) -> usize {
        self.log().lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    }

    /// Ticket-granting tickets issued.
    #[must_use]
    pub fn as_exchanges(&self) -> usize {
        self.logged(&["AS_REQ", "ISSUE:"])
    }

    /// Service tickets issued (renewed, forwarded and cross-realm ones among them).
    #[must_use]
    pub fn tgs_exchanges(&self) -> usize {
        self.logged(&["TGS_REQ", "ISSUE:"])
    }

    /// Kills the KDC: its port is closed.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Stops the KDC (SIGSTOP): its port takes requests and no answer comes. [`Self::resume`] lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> Result<()> {
        self.process.as_ref().context("the KDC does not run")?.signal("STOP")
    }

    /// Ends [`Self::pause`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Result<()> {
        self.process.as_ref().context("the KDC does not run")?.signal("CONT")
    }

    /// Sets how far the KDC's clock is ahead of ours, in seconds, and restarts it.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn set_clock(&mut self, offset: i64) -> Result<()> {
        self.options.clock_offset = offset;
        self.restart()
    }

    /// Starts the KDC again, on the same port and with the same database.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        let before = self.logged(&["commencing operation"]);
        let mut command = self.command("krb5kdc");
        command.args(["-n", "-r", &self.realm, "-P"]).arg(self.path("kdc.pid"));
        if self.options.clock_offset != 0 {
            command
                .env("LD_PRELOAD", libfaketime()?)
                .env("FAKETIME", format!("{:+}s", self.options.clock_offset))
                .env("FAKETIME_DONT_RESET", "1");
        }
        let mut process = Process::start("krb5kdc", &mut command, &self.path("krb5kdc.out"))?;
        eventually("the KDC answers", Duration::from_secs(20), || {
            if let Some(status) = process.ended()? {
                // Nothing to wait for; the caller sees the same log.
                bail!("krb5kdc ended with {status}: {}\n{}", process.log(), self.log());
            }
            if self.logged(&["commencing operation"]) > before { Ok(()) } else { bail!("not yet: {}", process.log()) }
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Flags given to `addprinc` take the place of the realm's defaults, so that those have to be said again.
    fn flags(&self, flags: &[&str]) -> String {
        let preauth = if self.options.preauth { "+requires_preauth" } else { "-requires_preauth" };
        format!("{preauth} {}", flags.join(" "))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_krb5_conf(&self) -> Result<()> {
        let known = self.known();
        let mut text = format!(
            "[libdefaults]\n  default_realm = {}\n  dns_lookup_kdc = false\n  dns_lookup_realm = false\n  rdns = false\n  \
             dns_canonicalize_hostname = false\n",
            self.realm
        );
        for line in &self.options.libdefaults {
            writeln!(text, "  {line}")?;
        }
        text.push_str("[realms]\n");
        for (realm, port) in std::iter::once(&(self.realm.clone(), self.port())).chain(&known.realms) {
            writeln!(text, "  {realm} = {{\n    kdc = 127.0.0.1:{port}\n  }}")?;
        }
        text.push_str("[domain_realm]\n");
        let own = self.realm.to_lowercase();
        // What is said first wins: hosts that were mapped by hand come before the defaults.
        for (host, realm) in &known.hosts {
            writeln!(text, "  {host} = {realm}")?;
        }
        for host in ["localhost", &own, &format!(".{own}")] {
            writeln!(text, "  {host} = {}", self.realm)?;
        }
        // By a rename: who reads it meanwhile sees the old file or the new one.
        let new = self.path("krb5.conf.new");
        std::fs::write(&new, text)?;
        Ok(std::fs::rename(new, self.krb5_conf())?)
    }

    fn write_kdc_conf(&self) -> Result<()> {
        let KdcOptions { enctypes, max_life, max_renewable_life, preauth, realm_settings, .. } = &self.options;
        let directory = self.directory.path().display();
        let port = self.port();
        let preauth = if *preauth { "+preauth" } else { "-preauth" };
        let text = format!(
            "[kdcdefaults]\n  kdc_listen = 127.0.0.1:{port}\n  kdc_tcp_listen = 127.0.0.1:{port}\n\
             [realms]\n  {realm} = {{\n    database_name = {directory}/principal\n    key_stash_file = {directory}/stash\n    \
             acl_file = {directory}/kadm5.acl\n    max_life = {max_life}\n    max_renewable_life = {max_renewable_life}\n    \
             supported_enctypes = {enctypes}\n    default_principal_flags = {preauth}\n    {settings}\n  }}\n\
             [logging]\n  kdc = FILE:{directory}/kdc.log\n  admin_server = FILE:{directory}/kadmin.log\n  \
             default = FILE:{directory}/default.log\n",
            realm = self.realm,
            settings = realm_settings.join("\n    "),
        );
        Ok(std::fs::write(self.path("kdc.conf"), text)?)
    }
}

/// A port of 127.0.0.1 that is ours, for UDP and TCP, until this is dropped.
#[derive(Debug)]
struct Port {
    number: u16,
    path: PathBuf,
    _lock: File,
}

impl Port {
    /// Below the range that the system gives to clients, so that no connection of anybody takes it meanwhile.
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;

    fn reserve() -> Result<Self> {
        for _ in 0..200 {
            let random = u16::from_le_bytes(uuid::Uuid::new_v4().into_bytes()[..2].try_into()?);
            let number = Self::FIRST + random % Self::COUNT;
            let path = std::env::temp_dir().join(format!("lictor-kdc-{number}.lock"));
            let Ok(lock) = File::options().create(true).truncate(false).write(true).open(&path) else { continue };
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(error).context("failed to lock a port"),
            }
            // Whoever held it before may have removed the file between our opening and our locking it.
            let still = std::fs::metadata(&path).is_ok_and(|on_disk| {
                lock.metadata().is_ok_and(|held| (held.dev(), held.ino()) == (on_disk.dev(), on_disk.ino()))
            });
            let free =
                TcpListener::bind(("127.0.0.1", number)).is_ok() && UdpSocket::bind(("127.0.0.1", number)).is_ok();
            if still && free {
                return Ok(Self { number, path, _lock: lock });
            }
        }
        bail!("no free port for a KDC")
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The library that lets a program see another time.
fn libfaketime() -> Result<PathBuf> {
    std::fs::read_dir("/usr/lib")?
        .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketime.so.1")))
        .find(|path| path.is_file())
        .context("libfaketime is missing: scripts/test installs it")
}

/// For kadmin.local, which knows double quotes only.
fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// Runs a program with `input` as its standard input and gives what it printed.
fn run(command: &mut Command, input: Option<&str>) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to start {name}: scripts/test installs it"))?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    // It may end without reading; then its exit code tells.
    let _ = stdin.write_all(input.unwrap_or_default().as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("{name} ended with {}: {}", output.status, printed.trim());
    }
    Ok(printed)
}
