//! Emulators of AWS on loopback, and metadata services of machines; both count who asks. See `tests/peers/aws/README.md`.
//!
//! Each is a process that ends with its standard input, however this process ends.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::eventually;

/// One of them. Dropping it ends it.
#[derive(Debug)]
pub struct Aws {
    child: Child,
    port: u16,
}

impl Aws {
    /// Starts `kind` with `options`. None when there is no interpreter for it and `LICTOR_PEERS` is not `required`; that is printed.
    ///
    /// # Errors
    /// When it does not come up, or when it cannot be had although it is required.
    pub fn start(kind: &str, options: &[&str]) -> Result<Option<Self>> {
        let Some(python) = std::env::var_os("LICTOR_PEERS_PYTHON") else {
            if std::env::var("LICTOR_PEERS").as_deref() == Ok("required") {
                bail!("LICTOR_PEERS=required, and LICTOR_PEERS_PYTHON names no interpreter with moto and ministack");
            }
            #[expect(clippy::print_stdout, reason = "whoever reads a test's output must see that it did nothing")]
            {
                println!("did not run: LICTOR_PEERS_PYTHON names no interpreter with moto and ministack");
            }
            return Ok(None);
        };
        let directory = tempfile::Builder::new().prefix("lictor-aws-").tempdir()?;
        let file = directory.path().join("port");
        let child = Command::new(&python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/aws/aws.py"))
            .args([kind, "--port-file"])
            .arg(&file)
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("failed to start {}", Path::new(&python).display()))?;
        let mut aws = Self { child, port: 0 };
        let port = eventually(&format!("{kind} listens"), START, || match aws.child.try_wait()? {
            Some(status) => Ok(Err(status)),
            None => Ok(Ok(std::fs::read_to_string(&file)?.trim().parse::<u16>()?)),
        })?;
        match port {
            Ok(port) => aws.port = port,
            Err(status) => bail!("{kind} ended with {status} before it listened"),
        }
        Ok(Some(aws))
    }

    /// Where it is asked.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Gives an order; its answer.
    ///
    /// # Errors
    /// When it is not carried out.
    pub fn order(&self, name: &str, arguments: &Value) -> Result<Value> {
        let body = arguments.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let length = body.len();
        write!(stream, "POST /_lictor/{name} HTTP/1.0\r\nHost: peer\r\nContent-Length: {length}\r\n\r\n{body}")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP header")?;
        if head.split(' ').nth(1) != Some("200") {
            bail!("the order {name} was answered by {answer}");
        }
        Ok(serde_json::from_str(body)?)
    }

    /// How often an action such as `kms:Decrypt` was asked for since the last `reset`; of metadata, how often a part of it.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn calls(&self, action: &str) -> Result<u64> {
        let answer = self.order("calls", &json!({}))?;
        let count = &answer["calls"][action];
        Ok(count.as_u64().or_else(|| count["calls"].as_u64()).unwrap_or(0))
    }

    /// Has what comes from now on meet `rules`, in place of those before.
    ///
    /// # Errors
    /// When they are none.
    pub fn rules(&self, rules: &[Value]) -> Result<()> {
        self.order("rules", &json!({ "rules": rules }))?;
        Ok(())
    }

    /// Forgets counts and rules, and which sessions have expired.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn reset(&self) -> Result<()> {
        self.order("reset", &json!({}))?;
        Ok(())
    }
}

impl Drop for Aws {
    fn drop(&mut self) {
        // Its own children end with it, also when it is killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Long enough for an emulator on a busy machine: it imports much.
const START: Duration = Duration::from_secs(120);
