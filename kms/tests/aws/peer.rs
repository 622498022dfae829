//! The emulators as processes, and ways to them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lictor_kms::{Access, Context, Environment, Kms, Settings};
use lictor_proto::v1::{AwsAssumeRole, AwsMachineRole, KmsAccess, KmsAccessKey, KmsWebIdentity, kms_access};
use serde_json::{Value, json};
use tokio::time::Instant;
use zeroize::Zeroizing;

pub(crate) const VALUE: &[u8] = b"Marker-5 \x00\xff is binary";

/// One emulator, ended with the test.
pub(crate) struct Peer {
    process: Child,
    port: u16,
}

impl Peer {
    /// Nothing, when there is no interpreter and none is required.
    pub(crate) fn start(kind: &str, options: &[&str]) -> Option<Self> {
        let Some(python) = std::env::var_os("LICTOR_PEERS_PYTHON") else {
            let required = std::env::var("LICTOR_PEERS").is_ok_and(|value| value == "required");
            assert!(!required, "LICTOR_PEERS=required, and LICTOR_PEERS_PYTHON names no interpreter with moto");
            println!("did not run: LICTOR_PEERS_PYTHON names no interpreter with moto and ministack");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("port");
        let process = Command::new(&python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/peers/aws/aws.py"))
            .args([kind, "--port-file"])
            .arg(&file)
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("failed to start {}: {error}", python.display()));
        let mut peer = Self { process, port: 0 };
        let end = std::time::Instant::now() + Duration::from_secs(120);
        while peer.port == 0 {
            assert!(std::time::Instant::now() < end, "{kind} does not start");
            assert!(peer.process.try_wait().unwrap().is_none(), "{kind} ended");
            std::thread::sleep(Duration::from_millis(50));
            peer.port = std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        }
        Some(peer)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn order(&self, name: &str, arguments: &Value) -> Value {
        let body = arguments.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let length = body.len();
        write!(
            stream,
            "POST /_lictor/{name} HTTP/1.0\r\nHost: peer\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 "), "{name}: {answer}");
        serde_json::from_str(body).unwrap()
    }

    /// A count of the metadata service.
    pub(crate) fn calls_of(&self, what: &str) -> u64 {
        self.order("calls", &json!({}))["calls"][what].as_u64().unwrap_or(0)
    }

    /// How often an action was called since the last reset.
    pub(crate) fn calls(&self, action: &str) -> u64 {
        self.order("calls", &json!({}))["calls"][action]["calls"].as_u64().unwrap_or(0)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An emulator with its keys, users and roles.
pub(crate) struct World {
    pub(crate) peer: Peer,
    pub(crate) made: Value,
}

impl World {
    pub(crate) fn start(kind: &str) -> Option<Self> {
        Self::start_with(kind, &json!({}))
    }

    pub(crate) fn start_with(kind: &str, arguments: &Value) -> Option<Self> {
        let peer = Peer::start(kind, &[])?;
        let made = peer.order("world", arguments);
        peer.order("reset", &json!({}));
        Some(Self { peer, made })
    }

    pub(crate) fn text(&self, pointer: &str) -> String {
        self.made
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("{pointer}: {}", self.made))
            .to_owned()
    }

    pub(crate) fn role(&self, name: &str) -> String {
        self.text(&format!("/roles/{name}"))
    }

    fn wire(&self, credentials: kms_access::Credentials) -> KmsAccess {
        KmsAccess {
            manager: "corp".to_owned(),
            key: self.text("/key"),
            region: String::new(),
            endpoint: self.peer.url(),
            sts_endpoint: self.peer.url(),
            credentials: Some(credentials),
        }
    }

    fn parsed(&self, credentials: kms_access::Credentials) -> Access {
        Access::parse(self.wire(credentials)).unwrap()
    }

    pub(crate) fn user(&self, name: &str) -> Access {
        self.user_of(name, &self.text("/key"))
    }

    pub(crate) fn user_of(&self, name: &str, key: &str) -> Access {
        let access_key = KmsAccessKey {
            access_key_id: self.text(&format!("/users/{name}/access_key_id")),
            secret_access_key: self.text(&format!("/users/{name}/secret_access_key")),
        };
        let wire = self.wire(kms_access::Credentials::AccessKey(access_key));
        Access::parse(KmsAccess { key: key.to_owned(), region: self.text("/region"), ..wire }).unwrap()
    }

    /// A user who asks for KMS at another endpoint.
    pub(crate) fn user_at(&self, endpoint: &str) -> Access {
        let access_key = KmsAccessKey {
            access_key_id: self.text("/users/full/access_key_id"),
            secret_access_key: self.text("/users/full/secret_access_key"),
        };
        let wire = self.wire(kms_access::Credentials::AccessKey(access_key));
        Access::parse(KmsAccess { endpoint: endpoint.to_owned(), ..wire }).unwrap()
    }

    pub(crate) fn user_with(&self, id: &str, secret: &str) -> Access {
        let key = KmsAccessKey { access_key_id: id.to_owned(), secret_access_key: secret.to_owned() };
        self.parsed(kms_access::Credentials::AccessKey(key))
    }

    pub(crate) fn machine(&self) -> Access {
        self.parsed(kms_access::Credentials::MachineRole(AwsMachineRole {}))
    }

    pub(crate) fn assume(&self, role: &str, external_id: &str, seconds: i64) -> Access {
        self.parsed(kms_access::Credentials::AssumeRole(AwsAssumeRole {
            role_arn: role.to_owned(),
            external_id: external_id.to_owned(),
            duration: Some(prost_types::Duration { seconds, nanos: 0 }),
        }))
    }

    pub(crate) fn oidc(&self, role: &str, token: &str) -> Access {
        self.parsed(kms_access::Credentials::WebIdentity(KmsWebIdentity {
            role_arn: role.to_owned(),
            token: token.to_owned(),
            duration: None,
        }))
    }

    /// The environment of a machine whose variables are a user's access key.
    pub(crate) fn environment(&self, user: &str) -> Settings {
        environment(&[
            ("AWS_ACCESS_KEY_ID", &self.text(&format!("/users/{user}/access_key_id"))),
            ("AWS_SECRET_ACCESS_KEY", &self.text(&format!("/users/{user}/secret_access_key"))),
        ])
    }
}

pub(crate) fn environment(variables: &[(&str, &str)]) -> Settings {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), Zeroizing::new((*value).to_owned()));
    Settings { environment: Environment::Given(variables.iter().map(own).collect()), ..Settings::default() }
}

pub(crate) fn kms() -> Kms {
    Kms::new(environment(&[("AWS_EC2_METADATA_DISABLED", "true")]))
}

pub(crate) fn context() -> Context {
    Context::new("platform/production", "web", 1)
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}
