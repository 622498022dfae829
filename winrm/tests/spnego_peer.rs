//! Our authentication and sealing, judged by pyspnego and pypsrp: see `tests/peers/spnego/README.md`.
//!
//! Needs a Python interpreter with those packages in `LICTOR_PEERS_PYTHON`. Without one these tests do nothing but say so,
//! unless `LICTOR_PEERS` is `required`: then they fail.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "what is exempt in tests should be so in the functions that they share"
)]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use lictor_winrm::connection::Connection;
use lictor_winrm::error::{Error, Stage};
use lictor_winrm::target::{
    AuthKind, Credential, Endpoint, KerberosOptions, MessageEncryption, Scheme, Secret, ShellProperties, Target,
    Timeouts, TlsPolicy,
};
use serde_json::Value;
use tokio::time::Instant;

const READ: Duration = Duration::from_secs(20);
const BOTH: [(AuthKind, &str); 2] = [(AuthKind::Ntlm, "ntlm"), (AuthKind::Negotiate, "negotiate")];

#[tokio::test]
async fn sealed_messages_of_all_sizes_pass_in_both_directions() {
    let Some(peer) = Peer::start() else { return };
    for (auth, path) in BOTH {
        let mut connection = open(&peer.http(auth, &format!("/{path}/sealed"))).await.unwrap();
        let evidence = peer.evidence();
        assert_eq!(
            (&evidence["mechanism"], &evidence["mic"], &evidence["tokens"]),
            (&path.into(), &true.into(), &2.into())
        );
        assert!(connection.info().sealed);
        let sizes = [0, 1, 15, 16, 17, 4095, 150 * 1024, 2 * 1024 * 1024];
        for size in sizes {
            let message = Bytes::from((0..size).map(|at| (at * 31 % 251) as u8).collect::<Vec<_>>());
            let answer = connection.exchange(message.clone(), READ).await.unwrap();
            assert_eq!((answer.status, answer.body.len()), (200, size));
            assert_eq!(answer.body, message);
        }
        // A message that holds the framing's own text is a message like any other.
        let nasty = Bytes::from_static(
            b"--Encrypted Boundary\r\n\tContent-Type: application/octet-stream\r\n--Encrypted Boundary--\r\n",
        );
        assert_eq!(connection.exchange(nasty.clone(), READ).await.unwrap().body, nasty);
        assert_eq!(connection.exchange(Bytes::from_static(b"misbehave:exchange"), READ).await.unwrap().status, 200);
        // Two legs, and nothing is authenticated again: the acceptor would tell.
        assert_eq!(connection.exchanges() as usize, 2 + sizes.len() + 2);
        assert!(connection.is_usable());
        assert!(peer.is_quiet());
    }
}

#[tokio::test]
async fn user_names_and_passwords_of_all_kinds() {
    let Some(peer) = Peer::start() else { return };
    for (auth, path) in BOTH {
        for (user, password, principal) in [
            ("CORP\\alice", "Secret-1", "CORP\\alice"),
            ("corp\\ALICE", "Secret-1", "corp\\ALICE"),
            ("KÖLN\\jürgen", "пароль-ß€😀", "KÖLN\\jürgen"),
            ("bob@corp.example", "Secret-2", "bob@corp.example"),
            ("carol", "Secret-3", "carol"),
        ] {
            let mut target = peer.http(auth, &format!("/{path}/sealed"));
            target.credential = credential(user, password);
            let mut connection = open(&target).await.unwrap_or_else(|error| panic!("{user}: {}", error.report()));
            assert_eq!(peer.evidence()["user"].as_str().unwrap().to_lowercase(), principal.to_lowercase());
            assert_eq!(connection.exchange(Bytes::from_static(b"x"), READ).await.unwrap().body, "x");
        }
    }
}

#[tokio::test]
async fn a_wrong_password_or_user_is_a_rejection() {
    let Some(peer) = Peer::start() else { return };
    for (auth, path) in BOTH {
        for (user, password) in [("CORP\\alice", "Secret-2"), ("CORP\\nobody", "Secret-1"), ("CORP\\alice", "")] {
            let mut target = peer.http(auth, &format!("/{path}"));
            target.credential = credential(user, password);
            let error = open(&target).await.unwrap_err();
            assert!(error.credential_rejected(), "{}", error.report());
            assert_eq!((error.stage(), error.code()), (Stage::Authenticate, "auth.rejected"));
        }
    }
    assert!(peer.is_quiet());
}

#[tokio::test]
async fn channel_bindings_right_wrong_and_missing() {
    let Some(peer) = Peer::start() else { return };
    for (auth, path) in BOTH {
        for kind in ["rsa-sha256", "ecdsa-sha384", "rsa-pss-sha512"] {
            let target = peer.https(auth, kind, &format!("/{path}/bound"));
            let mut connection = open(&target).await.unwrap_or_else(|error| panic!("{kind}: {}", error.report()));
            assert_eq!(peer.evidence()["bindings"], true);
            assert!(!connection.info().sealed);
            assert_eq!(connection.exchange(Bytes::from_static(b"plain"), READ).await.unwrap().body, "plain");
            let tls = connection.info().tls.clone().unwrap();
            assert!(tls.subject.contains(kind) && tls.to_string().starts_with("TLSv1."), "{tls:?}");
        }

        let mut target = peer.https(auth, "rsa-sha256", &format!("/{path}/mitm"));
        assert!(open(&target).await.unwrap_err().credential_rejected());

        target = peer.https(auth, "rsa-sha256", &format!("/{path}/bound"));
        target.send_channel_bindings = false;
        assert!(open(&target).await.unwrap_err().credential_rejected());

        target = peer.https(auth, "rsa-sha256", &format!("/{path}"));
        target.send_channel_bindings = false;
        open(&target).await.unwrap();
        assert_eq!(peer.evidence()["bindings"], false);
    }
}

#[tokio::test]
async fn https_seals_when_asked_to() {
    let Some(peer) = Peer::start() else { return };
    for (auth, path) in BOTH {
        let mut target = peer.https(auth, "rsa-sha256", &format!("/{path}/bound/sealed"));
        target.message_encryption = MessageEncryption::Always;
        let mut connection = open(&target).await.unwrap();
        assert!(connection.info().sealed);
        let message = Bytes::from(vec![b'm'; 400_000]);
        assert_eq!(connection.exchange(message.clone(), READ).await.unwrap().body, message);
    }
}

#[tokio::test]
async fn http_without_sealing_only_by_request() {
    let Some(peer) = Peer::start() else { return };
    let mut target = peer.http(AuthKind::Ntlm, "/ntlm");
    target.message_encryption = MessageEncryption::Never;
    let mut connection = open(&target).await.unwrap();
    assert!(!connection.info().sealed);
    assert_eq!(connection.info().warnings.len(), 1);
    assert_eq!(connection.exchange(Bytes::from_static(b"<a/>"), READ).await.unwrap().body, "<a/>");
}

#[tokio::test]
async fn bad_answers_end_a_sealed_connection() {
    let Some(peer) = Peer::start() else { return };
    for (auth, path) in BOTH {
        for (order, code) in [
            ("truncate", "seal.truncated"),
            ("plain", "seal.plain_answer"),
            ("plain500", "seal.plain_answer"),
            ("empty400", "seal.plain_answer"),
            ("length", "seal.length"),
            ("malformed", "seal.malformed"),
            ("corrupt", "seal.decrypt"),
            ("replay", "seal.decrypt"),
            ("close", "connection.closed"),
            ("unauthorized", "auth.lost"),
        ] {
            let mut connection = open(&peer.http(auth, &format!("/{path}/sealed"))).await.unwrap();
            // As long as the order itself, so that a replayed answer differs in nothing but its place.
            let usual = Bytes::from(vec![b'u'; order.len() + 10]);
            connection.exchange(usual.clone(), READ).await.unwrap();
            let error = connection.exchange(Bytes::from(format!("misbehave:{order}")), READ).await.unwrap_err();
            assert_eq!(error.code(), code, "{order}: {}", error.report());
            assert!(!error.is_unsent() && !error.credential_rejected());
            assert!(!connection.is_usable());
            let count = connection.exchanges();
            let after = connection.exchange(usual, READ).await.unwrap_err();
            assert_eq!((after.code(), after.is_unsent()), ("connection.unusable", true));
            assert_eq!(connection.exchanges(), count);
        }
    }
}

#[tokio::test]
async fn silence_and_cancellation_end_a_connection() {
    let Some(peer) = Peer::start() else { return };
    let silent = || Bytes::from_static(b"misbehave:silent");
    let mut connection = open(&peer.http(AuthKind::Negotiate, "/negotiate/sealed")).await.unwrap();
    let error = connection.exchange(silent(), Duration::from_millis(200)).await.unwrap_err();
    assert_eq!((error.code(), error.is_unsent()), ("timeout.read", false));
    assert!(!connection.is_usable());

    let mut connection = open(&peer.http(AuthKind::Negotiate, "/negotiate/sealed")).await.unwrap();
    let dropped = tokio::time::timeout(Duration::from_millis(200), connection.exchange(silent(), READ)).await;
    assert!(dropped.is_err());
    assert!(!connection.is_usable());
}

#[tokio::test]
async fn an_untrusted_certificate_is_refused_and_skipped_only_by_request() {
    let Some(peer) = Peer::start() else { return };
    let mut target = peer.https(AuthKind::Ntlm, "rsa-sha256", "/ntlm");
    target.tls.ca_pem = None;
    let error = open(&target).await.unwrap_err();
    assert_eq!((error.stage(), error.code()), (Stage::Tls, "tls.untrusted"));
    target.tls.skip_certificate_check = true;
    let connection = open(&target).await.unwrap();
    assert_eq!(connection.info().warnings.len(), 1, "{:?}", connection.info());
}

/// Everything is recorded, at the finest level, but for the targets that binaries must cap.
#[tokio::test]
async fn no_secret_and_no_message_text_is_logged() {
    use tracing_subscriber::filter::LevelFilter;
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::{Layer as _, filter::Targets};

    let Some(peer) = Peer::start() else { return };
    let log = Log::default();
    let writer = log.clone();
    let quiet = lictor_winrm::QUIET_TARGETS.iter().map(|target| (*target, LevelFilter::WARN));
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(move || writer.clone())
        .with_filter(Targets::new().with_default(LevelFilter::TRACE).with_targets(quiet));
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    tracing::trace!("Recording");

    for (auth, path) in BOTH {
        let mut target = peer.http(auth, &format!("/{path}/sealed"));
        let mut connection = open(&target).await.unwrap();
        connection.exchange(Bytes::from_static(b"marker-in-a-message"), READ).await.unwrap();
        let error = connection.exchange(Bytes::from_static(b"misbehave:plain"), READ).await.unwrap_err();
        tracing::warn!(error = %error.report(), debug = ?error, ?connection, ?target, "Expected failure");
        target.credential = credential("CORP\\alice", "Wrong-Secret-1");
        tracing::warn!(error = %open(&target).await.unwrap_err().report(), "Expected failure");
    }

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("Recording") && text.contains("Expected failure"));
    let in_hex = |secret: &str| secret.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    for secret in ["Secret-1", "marker-in-a-message", "misbehave"] {
        assert!(!text.contains(secret), "{secret}");
        assert!(!text.to_lowercase().contains(&in_hex(secret)), "{secret} in hexadecimal");
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(data);
        Ok(data.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn open(target: &Target) -> Result<Connection, Error> {
    Connection::open(target, Instant::now() + Duration::from_secs(30)).await
}

fn credential(user: &str, password: &str) -> Credential {
    Credential::password(user, Secret::new(password.into()))
}

/// The acceptor, which ends with this value.
struct Peer {
    process: Child,
    lines: Receiver<String>,
    http: u16,
    https: HashMap<String, u16>,
    ca: String,
    _users: tempfile::NamedTempFile,
}

impl Peer {
    /// Nothing, when there is no interpreter and none is required.
    fn start() -> Option<Self> {
        let Some(python) = std::env::var_os("LICTOR_PEERS_PYTHON") else {
            let required = std::env::var("LICTOR_PEERS").is_ok_and(|value| value == "required");
            assert!(
                !required,
                "LICTOR_PEERS=required, and LICTOR_PEERS_PYTHON names no interpreter with pyspnego and pypsrp"
            );
            println!("did not run: LICTOR_PEERS_PYTHON names no interpreter with pyspnego and pypsrp");
            return None;
        };
        let mut users = tempfile::NamedTempFile::new().unwrap();
        users
            .write_all(
                "CORP:alice:Secret-1\nKÖLN:jürgen:пароль-ß€😀\n:bob@corp.example:Secret-2\n:carol:Secret-3\n"
                    .as_bytes(),
            )
            .unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/peers/spnego/acceptor.py");
        let mut process = Command::new(&python)
            .arg(script)
            .arg("--user-file")
            .arg(users.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("failed to start {}: {error}", python.display()));
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let ready = lines.recv_timeout(Duration::from_secs(60)).expect("the acceptor says that it is ready");
        let ready: Value = serde_json::from_str(&ready).unwrap();
        let https = ready["https"].as_object().unwrap().iter();
        Some(Self {
            http: ready["http"].as_u64().unwrap().try_into().unwrap(),
            https: https.map(|(kind, port)| (kind.clone(), port.as_u64().unwrap().try_into().unwrap())).collect(),
            ca: ready["ca"].as_str().unwrap().to_owned(),
            process,
            lines,
            _users: users,
        })
    }

    /// What the acceptor tells of the next authenticated connection.
    fn evidence(&self) -> Value {
        let line = self.lines.recv_timeout(Duration::from_secs(20)).expect("the acceptor tells of a connection");
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["event"], "authenticated", "{value}");
        value
    }

    /// Nothing more was told.
    fn is_quiet(&self) -> bool {
        self.lines.try_recv().is_err()
    }

    fn http(&self, auth: AuthKind, path: &str) -> Target {
        target(Endpoint::new(Scheme::Http, "127.0.0.1", Some(self.http), Some(path)).unwrap(), auth)
    }

    fn https(&self, auth: AuthKind, kind: &str, path: &str) -> Target {
        let endpoint = Endpoint::new(Scheme::Https, "localhost", Some(self.https[kind]), Some(path)).unwrap();
        let mut target = target(endpoint, auth);
        target.tls.ca_pem = Some(self.ca.clone());
        target
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn target(endpoint: Endpoint, auth: AuthKind) -> Target {
    Target {
        endpoint,
        auth,
        credential: credential("CORP\\alice", "Secret-1"),
        tls: TlsPolicy::default(),
        message_encryption: MessageEncryption::Auto,
        send_channel_bindings: true,
        allow_basic_over_http: false,
        kerberos: KerberosOptions::default(),
        shell: ShellProperties::default(),
        timeouts: Timeouts::default(),
    }
}
