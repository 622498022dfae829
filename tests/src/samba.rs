//! An Active Directory domain of the test's own: Samba in namespaces, reached by its KDC on loopback. See
//! `tests/peers/samba/README.md`, which also says what each account is.
//!
//! It comes up in ten seconds or so of two cores' work, so that tests share one. It ends with its standard input,
//! however this process ends.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A running domain. Dropping it ends it, and nothing of it stays.
#[derive(Debug)]
pub struct Samba {
    child: Child,
    facts: Facts,
    requests: Mutex<Option<(ChildStdin, Receiver<String>)>>,
    directory: TempDir,
}

#[derive(Debug, Deserialize)]
struct Facts {
    realm: String,
    dns: String,
    domain: String,
    pid: u32,
    accounts: HashMap<String, String>,
    keytabs: HashMap<String, PathBuf>,
}

/// What has come to the KDC so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Carried {
    /// Connections.
    pub tcp: u64,
    /// Datagrams.
    pub udp: u64,
}

impl Samba {
    /// Starts a domain. None when this machine cannot have one and `LICTOR_PEERS` is not `required`; that is printed.
    ///
    /// # Errors
    /// When it does not come up, or when it cannot be had although it is required. Its log is in the error.
    pub fn start() -> Result<Option<Self>> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/samba/dc.py");
        let directory = tempfile::Builder::new().prefix("lictor-samba-").tempdir()?;
        let log = directory.path().join("log");
        let mut child = Command::new(&program)
            .arg("--directory")
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("failed to start {}: is Debian's python3 installed?", program.display()))?;
        let stdin = child.stdin.take().context("the domain has no standard input")?;
        let stdout = child.stdout.take().context("the domain has no standard output")?;
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { break };
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let Ok(line) = answers.recv_timeout(START) else {
            let _ = child.kill();
            let status = child.wait()?;
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            if status.code() == Some(UNAVAILABLE) && std::env::var("LICTOR_PEERS").as_deref() != Ok("required") {
                #[expect(clippy::print_stdout, reason = "whoever reads a test's output must see that it did nothing")]
                {
                    println!("NOT RUN: {}", log.trim());
                }
                return Ok(None);
            }
            bail!("the Samba domain ended with {status}, or was not ready after {START:?}:\n{log}");
        };
        let facts = serde_json::from_str(&line).with_context(|| format!("the domain says of itself: {line}"))?;
        Ok(Some(Self { child, facts, requests: Mutex::new(Some((stdin, answers))), directory }))
    }

    /// Its realm.
    #[must_use]
    pub fn realm(&self) -> &str {
        &self.facts.realm
    }

    /// Its DNS name: the realm in lower case.
    #[must_use]
    pub fn dns(&self) -> &str {
        &self.facts.dns
    }

    /// Its short name, as in `CORP\alice`.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.facts.domain
    }

    /// `name@REALM`.
    #[must_use]
    pub fn principal(&self, name: &str) -> String {
        format!("{name}@{}", self.facts.realm)
    }

    /// `name.dns-name-of-the-domain`.
    #[must_use]
    pub fn host(&self, name: &str) -> String {
        format!("{name}.{}", self.facts.dns)
    }

    /// The krb5.conf of clients.
    #[must_use]
    pub fn krb5_conf(&self) -> PathBuf {
        self.directory.path().join("krb5.conf")
    }

    /// A path in the directory that ends with the domain.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The password that an account was made with.
    ///
    /// # Errors
    /// When there is no such account.
    pub fn password(&self, account: &str) -> Result<&str> {
        let password = self.facts.accounts.get(account).with_context(|| format!("there is no account {account}"))?;
        Ok(password)
    }

    /// A keytab, by the account or service that it was exported for.
    ///
    /// # Errors
    /// When there is no such keytab.
    pub fn keytab(&self, name: &str) -> Result<&Path> {
        Ok(self.facts.keytabs.get(name).with_context(|| format!("there is no keytab of {name}"))?)
    }

    /// An attribute of an account, read by LDAP.
    ///
    /// # Errors
    /// When the domain does not answer or has no such account.
    pub fn attribute(&self, account: &str, attribute: &str) -> Result<Option<String>> {
        let answer = self.request(&json!({ "get": account, "attributes": [attribute] }))?;
        Ok(answer[attribute].as_str().map(str::to_owned))
    }

    /// Sets a password as an administrator does: the account's keys are new, and so is their version.
    ///
    /// # Errors
    /// When the domain does not answer or refuses.
    pub fn set_password(&self, account: &str, password: &str) -> Result<()> {
        self.request(&json!({ "password": account, "to": password })).map(drop)
    }

    /// What has come to the KDC so far.
    ///
    /// # Errors
    /// When the domain does not answer.
    pub fn carried(&self) -> Result<Carried> {
        Ok(serde_json::from_value(self.request(&json!({}))?)?)
    }

    /// A program to be run on the domain controller, as root.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.facts.pid.to_string()).args(["--all", "--", program]);
        command
    }

    fn request(&self, request: &Value) -> Result<Value> {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let (stdin, answers) = requests.as_mut().context("the domain has been stopped")?;
        writeln!(stdin, "{request}")?;
        let line = answers.recv_timeout(ANSWER).with_context(|| format!("the domain did not answer {request}"))?;
        let answer: Value = serde_json::from_str(&line)?;
        if let Some(error) = answer["error"].as_str() {
            bail!("the domain answered {request}: {error}");
        }
        Ok(answer)
    }
}

impl Drop for Samba {
    fn drop(&mut self) {
        // The end of its standard input is the end of the domain.
        drop(self.requests.lock().unwrap_or_else(PoisonError::into_inner).take());
        let end = Instant::now() + STOP;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        // Should it still run: `unshare --kill-child` takes it along.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Far more than it takes; on two cores that seven others use it was a minute.
const START: Duration = Duration::from_secs(240);
const ANSWER: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(10);
/// How `dc.py` ends when Samba is not installed or the machine allows no namespaces.
const UNAVAILABLE: i32 = 3;
