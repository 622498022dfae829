//! What the control plane does at KMS itself, against emulators of AWS that others wrote: see `tests/peers/aws/README.md`.

use std::path::Path;
use std::process::{Child, Command as Process, Stdio};

use lictor_proto::v1::{AwsAssumeRole, AwsMachineRole, KmsAccessKey, KmsWebIdentity};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::clock::Now;
use crate::config::{Endpoint, IssuerUrl, MasterKeySource, Oidc};
use crate::oidc::{Holder, Subject};
use crate::vault::Vault;

const ISSUER: &str = "https://lictor.corp.example";
const REGION: &str = "eu-central-1";
const ROLE: &str = "arn:aws:iam::111122223333:role/lictor";
const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const VALUE: &[u8] = b"Tr0ub4dor&3-marker";
/// The emulators take seconds to start.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running emulator; ends with its standard input.
struct Aws {
    child: Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl Aws {
    async fn start(kind: &str) -> Option<Self> {
        let Some(python) = std::env::var_os("LICTOR_PEERS_PYTHON") else {
            let required = std::env::var("LICTOR_PEERS").is_ok_and(|value| value == "required");
            assert!(!required, "LICTOR_PEERS=required, and LICTOR_PEERS_PYTHON names no interpreter with {kind}");
            println!("did not run: LICTOR_PEERS_PYTHON names no interpreter with {kind}");
            return None;
        };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/peers/aws/aws.py");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("port");
        let child = Process::new(python)
            .args([Path::new(script), Path::new(kind), Path::new("--port-file"), &file])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let port = timeout(PATIENCE, async {
            loop {
                match std::fs::read_to_string(&file) {
                    Ok(port) => break port,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
        let address = format!("127.0.0.1:{}", port.await.unwrap().trim());
        Some(Self { child, address, _dir: dir })
    }

    async fn order(&self, name: &str, arguments: Value) -> Value {
        let body = arguments.to_string();
        let length = body.len();
        let request = format!(
            "POST /_lictor/{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let mut socket = TcpStream::connect(&self.address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.0 200"), "{answer}");
        serde_json::from_str(body).unwrap()
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Aws {
    fn drop(&mut self) {
        // It takes its children with it.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A platform whose issuer sends tokens to this endpoint too.
fn platform(endpoint: &str) -> Platform {
    let dir = tempfile::tempdir().unwrap();
    let vault = Vault::open(&MasterKeySource::StateDir, dir.path()).unwrap();
    let endpoints = vec![Endpoint::parse(endpoint).unwrap()];
    let settings = Oidc { issuer: Some(IssuerUrl::parse(ISSUER).unwrap()), endpoints };
    let issuer = Issuer::open(&settings, dir.path(), vault.task_keys(), Now::read().wall).unwrap();
    Platform::new(Arc::new(issuer))
}

impl Platform {
    fn access(&self, endpoint: &str, key: &str, role_arn: &str, manager: &str) -> KmsAccess {
        let subject = Subject { scope: "platform", manager, sts_endpoint: endpoint, holder: Holder::ControlPlane };
        let token = self.issuer.token(&subject, Now::read().wall).unwrap().to_string();
        KmsAccess {
            manager: manager.into(),
            key: key.into(),
            region: REGION.into(),
            endpoint: endpoint.into(),
            sts_endpoint: endpoint.into(),
            credentials: Some(Credentials::WebIdentity(KmsWebIdentity {
                role_arn: role_arn.into(),
                token,
                duration: None,
            })),
        }
    }

    async fn ask(&self, access: &KmsAccess, version: u64, work: Work) -> Result<Done, Failure> {
        let request = Request { ticket: 7, access: access.clone(), place: place(version), work };
        let fetched = self.carry_out(request).await;
        assert_eq!(fetched.ticket, 7);
        fetched.outcome.map_err(|unfetched| unfetched.failure)
    }
}

fn place(version: u64) -> Place {
    Place { scope: "platform".into(), identifier: "web-password".into(), version }
}

fn seal() -> Work {
    Work::Seal(Zeroizing::new(VALUE.to_vec()))
}

async fn emulator(kind: &str) -> Option<(Aws, Value)> {
    let aws = Aws::start(kind).await?;
    let subject = "scope:platform:secret-manager:corp";
    let world = json!({ "region": REGION, "issuer": ISSUER, "subject": subject });
    let world = aws.order("world", world).await;
    Some((aws, world))
}

fn called(calls: &Value, action: &str) -> u64 {
    calls["calls"][action]["calls"].as_u64().unwrap_or_default()
}

async fn a_value_goes_there_and_back(kind: &str) {
    let Some((aws, world)) = emulator(kind).await else { return };
    let platform = platform(&aws.url());
    let role = world["roles"]["oidc"].as_str().unwrap();
    let access = platform.access(&aws.url(), world["key"].as_str().unwrap(), role, "corp");
    aws.order("reset", json!({})).await;

    let Done::Record(record) = platform.ask(&access, 3, seal()).await.unwrap() else { panic!("no record") };
    assert!(!record.ciphertext.windows(VALUE.len()).any(|window| window == VALUE));
    let Done::Value(value) = platform.ask(&access, 3, Work::Open(record.clone())).await.unwrap() else {
        panic!("no value")
    };
    assert_eq!(value.as_slice(), VALUE);
    // Another version's place.
    let failure = platform.ask(&access, 4, Work::Open(record.clone())).await.unwrap_err();
    assert!(failure.code.starts_with("kms.") && failure.stage == "secret", "{failure:?}");
    let Done::Tested(result) = platform.ask(&access, 3, Work::Test(Some(record.clone()))).await.unwrap() else {
        panic!("no result")
    };
    let rungs: Vec<(&str, RungOutcome)> =
        result.rungs.iter().map(|rung| (rung.stage.as_str(), rung.outcome())).collect();
    assert_eq!(result.outcome(), TaskState::Succeeded, "{result:?}");
    assert_eq!(rungs, ["identity", "write", "read"].map(|stage| (stage, RungOutcome::Passed)));

    // A crowd has one data key, and all of it one session.
    let mut crowd = JoinSet::new();
    for _ in 0..100 {
        let (platform, access, record) = (platform.clone(), access.clone(), record.clone());
        crowd.spawn(async move { platform.ask(&access, 3, Work::Open(record)).await });
    }
    while let Some(answer) = crowd.join_next().await {
        assert!(matches!(answer.unwrap().unwrap(), Done::Value(value) if value.as_slice() == VALUE));
    }
    let calls = aws.order("calls", json!({})).await;
    assert_eq!(called(&calls, "sts:AssumeRoleWithWebIdentity"), 1, "{calls}");
    // The first Open, and those of the test.
    assert!(called(&calls, "kms:Decrypt") <= 4, "{calls}");

    let damaged = KmsRecord { ciphertext: record.ciphertext.iter().map(|byte| byte ^ 1).collect(), ..record };
    let failure = platform.ask(&access, 3, Work::Open(damaged)).await.unwrap_err();
    assert!(failure.code.starts_with("kms.") && !failure.remedy.is_empty(), "{failure:?}");
}

#[tokio::test]
async fn moto_takes_our_tokens_and_a_value_goes_there_and_back() {
    a_value_goes_there_and_back("moto").await;
}

#[tokio::test]
async fn ministack_takes_our_tokens_and_a_value_goes_there_and_back() {
    a_value_goes_there_and_back("ministack").await;
}

/// ministack holds trust policies; moto takes every token.
#[tokio::test]
async fn a_role_that_trusts_another_subject_is_not_had() {
    let Some((aws, world)) = emulator("ministack").await else { return };
    let platform = platform(&aws.url());
    let role = world["roles"]["oidc"].as_str().unwrap();
    let access = platform.access(&aws.url(), world["key"].as_str().unwrap(), role, "other");
    let failure = platform.ask(&access, 1, seal()).await.unwrap_err();
    assert!(failure.code.starts_with("kms."), "{failure:?}");
    assert!(!failure.cause.is_empty() && !failure.remedy.is_empty(), "{failure:?}");
    let Done::Tested(result) = platform.ask(&access, 1, Work::Test(None)).await.unwrap() else { panic!("no result") };
    assert_eq!((result.outcome(), result.rungs[0].outcome()), (TaskState::Failed, RungOutcome::Failed));
    assert_eq!(result.failure, result.rungs[0].failure);
    let token = match access.credentials {
        Some(Credentials::WebIdentity(identity)) => identity.token,
        _ => unreachable!(),
    };
    assert!(!format!("{failure:?}{result:?}").contains(&token));
}

#[tokio::test]
async fn the_control_plane_is_nobody_but_by_its_own_tokens() {
    // Whoever is asked is told of.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let platform = platform(&endpoint);
    let good = platform.access(&endpoint, KEY, ROLE, "corp");
    let key = KmsAccessKey { access_key_id: "a".into(), secret_access_key: "s".into() };
    let assume = AwsAssumeRole { role_arn: ROLE.into(), ..AwsAssumeRole::default() };
    for credentials in [
        None,
        Some(Credentials::MachineRole(AwsMachineRole {})),
        Some(Credentials::AccessKey(key)),
        Some(Credentials::AssumeRole(assume)),
    ] {
        let access = KmsAccess { credentials, ..good.clone() };
        assert_eq!(platform.ask(&access, 1, seal()).await.unwrap_err().code, "secret_manager.refused");
    }
    for (kms, sts) in [("https://kms.example", ""), ("", "https://sts.example"), ("http://127.0.0.1:1", "")] {
        let access = KmsAccess { endpoint: kms.into(), sts_endpoint: sts.into(), ..good.clone() };
        let failure = platform.ask(&access, 1, seal()).await.unwrap_err();
        assert_eq!(failure.code, "secret_manager.refused");
        assert!(failure.message.contains("oidc.endpoints"), "{failure:?}");
    }
    let off = Platform::new(Arc::new(Issuer::off()));
    assert_eq!(off.ask(&good, 1, seal()).await.unwrap_err().code, "secret_manager.refused");
    // And what does not parse is told in the words of lictor-kms.
    let failure = platform.ask(&KmsAccess { key: "no key".into(), ..good }, 1, seal()).await.unwrap_err();
    assert!(failure.code.starts_with("kms."), "{failure:?}");
    assert!(timeout(Duration::from_millis(1), listener.accept()).await.is_err(), "nobody was asked");
}

#[tokio::test(start_paused = true)]
async fn an_aws_that_says_nothing_is_not_waited_for_for_long() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let silent = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            open.push(socket);
        }
    });
    let platform = platform(&endpoint);
    let access = platform.access(&endpoint, KEY, ROLE, "corp");
    let before = Instant::now();
    let failure = platform.ask(&access, 1, seal()).await.unwrap_err();
    assert!(before.elapsed() <= LONGEST + SPARE, "{:?}", before.elapsed());
    assert!(!failure.code.is_empty() && !failure.remedy.is_empty(), "{failure:?}");
    silent.abort();
}

#[tokio::test]
async fn everything_that_is_asked_is_answered_and_a_full_queue_says_so() {
    let (requests, waiting) = Platform::queue();
    let (engine, mut commands) = EngineHandle::for_tests();
    let stop = CancellationToken::new();
    let running = tokio::spawn(Platform::new(Arc::new(Issuer::off())).run(waiting, engine, stop.clone()));
    let request = |ticket| Request { ticket, access: KmsAccess::default(), place: place(1), work: seal() };
    for ticket in 0..1000 {
        requests.send(request(ticket)).await.unwrap();
    }
    let mut tickets: Vec<u64> = Vec::new();
    while tickets.len() < 1000 {
        let Some(Command::Fetched(fetched)) = timeout(PATIENCE, commands.recv()).await.unwrap() else { panic!() };
        assert_eq!(fetched.outcome.err().unwrap().failure.code, "secret_manager.refused");
        tickets.push(fetched.ticket);
    }
    tickets.sort_unstable();
    assert!(tickets.iter().copied().eq(0..1000));
    stop.cancel();
    timeout(PATIENCE, running).await.unwrap().unwrap();
    assert!(requests.try_send(request(1)).is_err(), "nobody takes it any more");

    let (requests, waiting) = Platform::queue();
    let taken = (0..).take_while(|ticket| requests.try_send(request(*ticket)).is_ok()).count();
    assert_eq!(taken, MAX_WAITING);
    drop((requests, waiting));
}

#[test]
fn a_debug_view_shows_neither_values_nor_tokens() {
    let platform = platform("https://kms.example");
    let access = platform.access("", KEY, ROLE, "corp");
    let Some(Credentials::WebIdentity(identity)) = &access.credentials else { panic!() };
    let token = identity.token.clone();
    let text = format!("{:?}", Request { ticket: 1, access, place: place(1), work: seal() });
    assert!(text.contains("web-password") && !text.contains(&token) && !text.contains("Tr0ub"), "{text}");
    let fetched = Fetched { ticket: 1, outcome: Ok(Done::Value(Zeroizing::new(VALUE.to_vec()))) };
    assert_eq!(format!("{fetched:?}"), "Fetched { ticket: 1, .. }");
}
