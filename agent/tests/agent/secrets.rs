//! Secrets that come beside assignments, and tasks about secret managers.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lictor_agent::app;
use lictor_agent::shutdown::Shutdown;
use lictor_proto::sealing::{Binding, seal};
use lictor_proto::v1::{
    Assignment, AuthKind, AwsMachineRole, ConnectionTest, Failure, HandBackReason, KmsAccess, KmsAccessKey,
    KmsMaterial, RungOutcome, SealSecret, SealedSecret, SecretDelivery, SecretKind, SecretManagerTest, SecretMaterial,
    ShellSettings, TaskRef, TaskResult, TaskSpec, TaskState, agent_event, kms_access, secret_material, server_event,
    task_spec,
};
use secret_material::Material;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::behaviour::{Agent, assignment, closed_port, end, loaded, silent_host};
use crate::control_plane::{ControlPlane, LIMIT, Session};

const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

/// An agent with files and variables that may be secrets, under this policy.
fn start(control_plane: &ControlPlane, directory: &Path, policy: &str) -> Agent {
    let mut loaded = loaded(control_plane.address, &directory.join("state"), Some(control_plane.token(None)));
    let file = directory.join("policy.toml");
    std::fs::write(&file, policy).unwrap();
    loaded.config.policy_file = Some(file);
    loaded.config.secrets.directories = vec![directory.join("secrets")];
    std::fs::create_dir(directory.join("secrets")).unwrap();
    let shutdown = Shutdown::default();
    Agent { running: tokio::spawn(app::run(loaded, None, shutdown.clone())), shutdown }
}

fn seal_to(control_plane: &ControlPlane, binding: (&str, u64, &str, u64), value: &[u8]) -> SealedSecret {
    let (task_id, epoch, credential, credential_version) = binding;
    let enrolled = control_plane.shared.enrolled.lock().unwrap();
    let key = &enrolled.as_ref().unwrap().sealing_key;
    seal(key, &Binding { agent_id: "agent-1", task_id, epoch, credential, credential_version }, value).unwrap()
}

/// Version 1 of a secret for the first assignment of a task.
fn delivery(control_plane: &ControlPlane, task_id: &str, identifier: &str, material: Material) -> SecretDelivery {
    let bytes = prost::Message::encode_to_vec(&SecretMaterial { material: Some(material) });
    let sealed = seal_to(control_plane, (task_id, 1, &format!("secret:{identifier}"), 1), &bytes);
    SecretDelivery { identifier: identifier.into(), version: 1, sealed: Some(sealed) }
}

fn access(endpoint: &str) -> KmsAccess {
    KmsAccess {
        manager: "aws".into(),
        key: KEY.into(),
        region: "eu-central-1".into(),
        endpoint: endpoint.into(),
        sts_endpoint: endpoint.into(),
        credentials: Some(kms_access::Credentials::MachineRole(AwsMachineRole {})),
    }
}

/// The same by the access key of a user.
fn access_of_user(endpoint: &str, id: &str) -> KmsAccess {
    let key = KmsAccessKey { access_key_id: id.into(), secret_access_key: "Mark3r".repeat(6) };
    KmsAccess { credentials: Some(kms_access::Credentials::AccessKey(key)), ..access(endpoint) }
}

fn way(access: KmsAccess) -> Material {
    Material::Kms(KmsMaterial { record: None, access: Some(access) })
}

/// A task without target and credential.
fn errand(id: &str, kind: task_spec::Kind, deliveries: Vec<SecretDelivery>) -> Assignment {
    Assignment {
        task: Some(TaskRef { task_id: id.into(), epoch: 1 }),
        spec: Some(TaskSpec { kind: Some(kind), ..TaskSpec::default() }),
        deliveries,
        ..Assignment::default()
    }
}

fn manager_test() -> task_spec::Kind {
    task_spec::Kind::SecretManagerTest(SecretManagerTest { manager: "aws".into() })
}

/// A writing of version 2 of the secret `web`, whose value was sealed for what the binding says.
fn writing(control_plane: &ControlPlane, binding: (&str, u64, &str, u64), value: &[u8]) -> task_spec::Kind {
    task_spec::Kind::SealSecret(SealSecret {
        manager: "aws".into(),
        identifier: "web".into(),
        version: 2,
        scope: String::new(),
        kind: SecretKind::Text.into(),
        value: Some(seal_to(control_plane, binding, value)),
        seal_id: "writing-1".into(),
    })
}

async fn handed_back(session: &mut Session, task: Assignment) -> (HandBackReason, Failure) {
    session.send(server_event::Event::Assignment(task)).await;
    session
        .until(|event| match event {
            agent_event::Event::HandBack(hand_back) => {
                Some((hand_back.reason(), hand_back.failure.unwrap_or_default()))
            }
            agent_event::Event::End(end) => panic!("it ended: {:?}", end.result),
            _ => None,
        })
        .await
}

async fn ended(session: &mut Session, task: Assignment) -> TaskResult {
    session.send(server_event::Event::Assignment(task)).await;
    end(session).await
}

/// A test of the connection with Basic over http, by a credential whose password comes as `material`.
fn with_password(control_plane: &ControlPlane, id: &str, host: &TcpListener, material: Material) -> Assignment {
    let mut task = assignment(control_plane, id, host.local_addr().unwrap());
    let spec = task.spec.as_mut().unwrap();
    spec.kind = Some(task_spec::Kind::ConnectionTest(ConnectionTest {}));
    let connection = spec.target.as_mut().unwrap().connection.as_mut().unwrap();
    connection.auth = AuthKind::Basic.into();
    connection.allow_basic_over_http = Some(true);
    task.secret = None;
    task.identity.as_mut().unwrap().secret = "web-password".into();
    task.deliveries = vec![delivery(control_plane, id, "web-password", material)];
    task
}

/// The password that the next client proves itself with, who is turned away.
async fn password(host: &TcpListener) -> String {
    let attempt = async {
        let mut clients = JoinSet::new();
        loop {
            // A client may keep one connection while it tries another.
            tokio::select! {
                accepted = host.accept() => {
                    clients.spawn(proof(accepted.unwrap().0));
                }
                Some(ended) = clients.join_next() => if let Some(password) = ended.unwrap() {
                    return password;
                },
            }
        }
    };
    timeout(LIMIT, attempt).await.expect("nobody proves himself")
}

/// The password of the first request on a connection that has one; requests without are refused.
async fn proof(mut stream: TcpStream) -> Option<String> {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let length = stream.read(&mut piece).await.ok()?;
        request.extend_from_slice(&piece[..length]);
        let text = String::from_utf8_lossy(&request).to_lowercase();
        if let Some(at) = text.find("authorization: basic ") {
            let rest = String::from_utf8_lossy(&request[at + "authorization: basic ".len()..]).into_owned();
            if let Some((proof, _)) = rest.split_once("\r\n") {
                let proof = String::from_utf8(STANDARD.decode(proof).unwrap()).unwrap();
                return Some(proof.split_once(':').unwrap().1.to_owned());
            }
        }
        if length == 0 {
            return None;
        }
        if text.contains("\r\n\r\n") {
            let refusal =
                "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"WSMAN\"\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(refusal.as_bytes()).await.ok()?;
            request.clear();
        }
    }
}

#[tokio::test]
async fn a_password_comes_from_where_its_delivery_says() {
    let directory = tempfile::tempdir().unwrap();
    let mut control_plane = ControlPlane::start().await;
    let agent = start(&control_plane, directory.path(), "secrets.sources = true\n");
    let (mut session, hello) = control_plane.welcomed(0).await;
    for capability in ["task_secrets", "aws_kms", "secret_sources"] {
        assert!(hello.capabilities.iter().any(|known| known == capability), "{capability}");
    }
    let host = silent_host().await;
    let file = directory.path().join("secrets/web");
    let source = || Material::Source(format!("file:{}", file.display()));
    for (id, material, expected) in [
        ("t1", Material::Value("Pa55-Marker".into()), "Pa55-Marker"),
        ("t2", source(), "of a file"),
        // A mounted file that changes is found.
        ("t3", source(), "of another"),
    ] {
        std::fs::write(&file, format!("{expected}\n")).unwrap();
        let task = with_password(&control_plane, id, &host, material);
        session.send(server_event::Event::Assignment(task)).await;
        assert_eq!(password(&host).await, expected);
        end(&mut session).await;
    }
    agent.running.abort();
}

#[tokio::test]
async fn what_does_not_come_or_is_not_there_is_handed_back_by_its_code() {
    let directory = tempfile::tempdir().unwrap();
    let mut control_plane = ControlPlane::start().await;
    let agent = start(&control_plane, directory.path(), "secrets.kms_keys = [\"*\"]\n");
    let (mut session, _) = control_plane.welcomed(0).await;
    let host = silent_host().await;
    use HandBackReason::{Invalid, Policy, Unable};
    let value = || Material::Value(b"x".to_vec());
    type Change<'c> = &'c dyn Fn(&mut Assignment);
    let environment = |task: &mut Assignment, plain: &[(&str, &str)], secret: &[(&str, &str)]| {
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let shell =
            ShellSettings { environment: pairs(plain), secret_environment: pairs(secret), ..ShellSettings::default() };
        let command =
            lictor_proto::v1::Command { command_line: "set".into(), shell: Some(shell), ..Default::default() };
        task.spec.as_mut().unwrap().kind = Some(task_spec::Kind::Command(command));
    };
    let source = |text: &str| Material::Source(text.to_owned());
    let secrets = directory.path().join("secrets");
    let missing = format!("file:{}", secrets.join("none").display());
    let unfit = format!("file:{}", secrets.join("directory").display());
    std::fs::create_dir(secrets.join("directory")).unwrap();
    let cases: [(&str, HandBackReason, Material, Change<'_>); 15] = [
        ("agent.invalid_task", Invalid, value(), &|task| task.deliveries.clear()),
        ("agent.invalid_task", Invalid, value(), &|task| task.deliveries[0].identifier = "other".into()),
        ("agent.invalid_task", Invalid, value(), &|task| {
            let again = task.deliveries[0].clone();
            task.deliveries.push(again);
        }),
        ("agent.invalid_task", Invalid, value(), &|task| {
            environment(task, &[], &[("TOKEN", "not-there")]);
        }),
        ("agent.invalid_task", Invalid, value(), &|task| {
            environment(task, &[("Token", "x")], &[("TOKEN", "web-password")]);
        }),
        ("agent.invalid_task", Invalid, value(), &|task| {
            let connection = task.spec.as_mut().unwrap().target.as_mut().unwrap().connection.as_mut().unwrap();
            connection.ca_secret = "not-there".into();
        }),
        ("secret.unsealable", Unable, value(), &|task| task.deliveries[0].version = 2),
        ("secret.not_text", Invalid, Material::Value(vec![0xff]), &|_| {}),
        ("secret.empty", Invalid, Material::Value(Vec::new()), &|_| {}),
        ("secret.too_long", Invalid, Material::Value(vec![b'x'; 40_000]), &|task| {
            environment(task, &[], &[("TOKEN", "web-password")]);
        }),
        ("secret.malformed", Invalid, source("env:HOME"), &|_| {}),
        ("secret.source_not_permitted", Unable, source("file:/etc/passwd"), &|_| {}),
        ("secret.source_missing", Unable, source(&missing), &|_| {}),
        ("secret.source_missing", Unable, source("env:LICTOR_SECRET_NONE"), &|_| {}),
        ("secret.source_unreadable", Unable, source(&unfit), &|_| {}),
    ];
    for (number, (code, reason, material, change)) in cases.into_iter().enumerate() {
        let mut task = with_password(&control_plane, &format!("t{number}"), &host, material);
        change(&mut task);
        let (given, failure) = handed_back(&mut session, task).await;
        assert_eq!((failure.code.as_str(), given), (code, reason), "{failure:?}");
        assert!(!failure.cause.is_empty() && !failure.remedy.is_empty(), "{failure:?}");
    }
    let elsewhere = with_password(&control_plane, "t-way", &host, way(access("http://127.0.0.1:1")));
    let (_, failure) = handed_back(&mut session, elsewhere).await;
    assert_eq!(failure.code, "secret.malformed", "the way to a manager is no secret: {failure:?}");
    let test = errand(
        "t-test",
        manager_test(),
        vec![delivery(&control_plane, "t-test", "manager:aws", way(access("http://127.0.0.1:1")))],
    );
    let (given, failure) = handed_back(&mut session, test).await;
    assert_eq!((failure.code.as_str(), given), ("policy.kms_endpoint", Policy), "{failure:?}");
    agent.running.abort();
}

#[tokio::test]
async fn errands_are_held_to_the_policy_and_need_no_host() {
    let directory = tempfile::tempdir().unwrap();
    let mut control_plane = ControlPlane::start().await;
    let rules = format!("secrets.kms_keys = [\"{KEY}\"]\nsecrets.kms_endpoints = [\"http://127.83.0.2:*\"]\n");
    let agent = start(&control_plane, directory.path(), &format!("{rules}tasks.kinds = [\"secret_manager_test\"]\n"));
    let (mut session, _) = control_plane.welcomed(0).await;
    let nowhere = closed_port().await;
    let endpoint = format!("http://{nowhere}");
    let seal = writing(&control_plane, ("writing-1", 0, "web", 2), b"Pa55-Marker");
    let key = |id: &str| delivery(&control_plane, id, "manager:aws", way(access(&endpoint)));
    let task = errand("t1", seal, vec![key("t1")]);
    let (reason, failure) = handed_back(&mut session, task).await;
    assert_eq!((failure.code.as_str(), reason), ("policy.task_kind", HandBackReason::Policy), "{failure:?}");

    let (reason, failure) = handed_back(&mut session, errand("t2", manager_test(), Vec::new())).await;
    assert_eq!((failure.code.as_str(), reason), ("agent.invalid_task", HandBackReason::Invalid), "{failure:?}");
    assert_eq!(failure.message, "the assignment does not bring secret manager:aws");

    // Where nobody answers, the test itself says so, rung by rung.
    let user = access_of_user(&endpoint, &"A".repeat(20));
    let task = errand("t3", manager_test(), vec![delivery(&control_plane, "t3", "manager:aws", way(user))]);
    let result = ended(&mut session, task).await;
    assert_eq!(result.outcome(), TaskState::Failed);
    assert_eq!(result.rungs.first().map(|rung| rung.stage.as_str()), Some("identity"), "{result:?}");
    let failure = result.failure.unwrap();
    assert!(failure.code.starts_with("kms.") && !failure.remedy.is_empty(), "{failure:?}");
    assert!(!format!("{failure:?}{:?}", result.rungs).contains("Mark3r"));
    agent.running.abort();
}

/// AWS as far as these tests go: everybody has a name and may decrypt what belongs to `web`, and only one may encrypt.
async fn aws(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            while !is_complete(&request) {
                match stream.read(&mut piece).await {
                    Ok(length @ 1..) => request.extend_from_slice(&piece[..length]),
                    _ => return,
                }
            }
            let (status, body) = answer(&String::from_utf8_lossy(&request));
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            // Who does not wait for the answer does not want it.
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        });
    }
}

fn is_complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    body.len() >= length.unwrap_or(0)
}

fn answer(request: &str) -> (&'static str, String) {
    let refusal = |kind: &str| ("400 Bad Request", format!("{{\"__type\":\"{kind}\",\"message\":\"no\"}}"));
    let (key, wrapped) = (STANDARD.encode([7; 32]), STANDARD.encode(b"wrapped"));
    if request.contains("Action=GetCallerIdentity") {
        let whose = "<Arn>arn:aws:iam::111122223333:user/u</Arn><UserId>u</UserId><Account>111122223333</Account>";
        let result = format!("<GetCallerIdentityResult>{whose}</GetCallerIdentityResult>");
        let namespace = "https://sts.amazonaws.com/doc/2011-06-15/";
        let answer = format!("<GetCallerIdentityResponse xmlns=\"{namespace}\">{result}</GetCallerIdentityResponse>");
        ("200 OK", answer)
    } else if request.contains("TrentService.GenerateDataKey") && request.contains(WRITER) {
        let answer = format!("{{\"KeyId\":\"{KEY}\",\"Plaintext\":\"{key}\",\"CiphertextBlob\":\"{wrapped}\"}}");
        ("200 OK", answer)
    } else if request.contains("TrentService.Decrypt") && request.contains(r#""lictor:secret":"web""#) {
        ("200 OK", format!("{{\"KeyId\":\"{KEY}\",\"Plaintext\":\"{key}\"}}"))
    } else if request.contains("TrentService.Decrypt") {
        refusal("InvalidCiphertextException")
    } else {
        refusal("AccessDeniedException")
    }
}

/// Id of the access key that may encrypt.
const WRITER: &str = "WRITER0000000000";

#[tokio::test]
async fn who_may_only_read_passes_with_a_stored_secret() {
    use RungOutcome::{Failed, Passed, Skipped, Warning};
    let directory = tempfile::tempdir().unwrap();
    let mut control_plane = ControlPlane::start().await;
    let agent = start(&control_plane, directory.path(), "secrets.kms_endpoints = [\"http://127.0.0.1:*\"]\n");
    let (mut session, _) = control_plane.welcomed(0).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let aws = tokio::spawn(aws(listener));
    let user = |id: &str| access_of_user(&endpoint, id);
    let kms = lictor_kms::Kms::new(lictor_kms::Settings::default());
    let writer = lictor_kms::Access::parse(user(WRITER)).unwrap();
    let deadline = tokio::time::Instant::now() + LIMIT;
    let context = lictor_kms::Context::new("", "web", 1);
    let record = kms.seal(&writer, &context, b"Pa55-Marker", deadline).await.unwrap();
    let stored = |identifier: &str| {
        let material = KmsMaterial { record: Some(record.clone()), access: Some(user("READER0000000000")) };
        (identifier.to_owned(), Material::Kms(material))
    };
    for (number, (stored, state, outcomes)) in [
        (None, TaskState::Failed, [Passed, Failed, Skipped]),
        (Some(stored("web")), TaskState::Succeeded, [Passed, Warning, Passed]),
        // One that says that it is another is left out.
        (Some(stored("db")), TaskState::Failed, [Passed, Failed, Skipped]),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("t{number}");
        let reader = way(user("READER0000000000"));
        let mut deliveries = vec![delivery(&control_plane, &id, "manager:aws", reader)];
        deliveries.extend(stored.map(|(identifier, material)| delivery(&control_plane, &id, &identifier, material)));
        let result = ended(&mut session, errand(&id, manager_test(), deliveries)).await;
        let found: Vec<RungOutcome> = result.rungs.iter().map(|rung| rung.outcome()).collect();
        assert_eq!((result.outcome(), found.as_slice()), (state, outcomes.as_slice()), "{result:?}");
        assert!(!format!("{result:?}").contains("Marker"), "{result:?}");
    }
    aws.abort();
    agent.running.abort();
}

#[tokio::test]
async fn a_value_that_a_user_sealed_is_checked_before_aws_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let mut control_plane = ControlPlane::start().await;
    let agent = start(&control_plane, directory.path(), "secrets.kms_endpoints = [\"http://127.83.0.2:*\"]\n");
    let (mut session, _) = control_plane.welcomed(0).await;
    let endpoint = format!("http://{}", closed_port().await);
    use HandBackReason::{Invalid, Unable};
    let long = vec![b'x'; 64 * 1024 + 1];
    for (number, (binding, value, code, reason)) in [
        // Of another writing, another version, another secret; and what an assignment would bring.
        (("writing-2", 0, "web", 2), &b"x"[..], "secret.unsealable", Unable),
        (("writing-1", 0, "web", 1), b"x", "secret.unsealable", Unable),
        (("writing-1", 0, "db", 2), b"x", "secret.unsealable", Unable),
        (("writing-1", 1, "web", 2), b"x", "secret.unsealable", Unable),
        (("writing-1", 0, "secret:web", 2), b"x", "secret.unsealable", Unable),
        (("writing-1", 0, "web", 2), b"", "secret.empty", Invalid),
        (("writing-1", 0, "web", 2), b"a\0b", "secret.not_text", Invalid),
        (("writing-1", 0, "web", 2), b"\xff", "secret.not_text", Invalid),
        (("writing-1", 0, "web", 2), &long, "secret.too_long", Invalid),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("t{number}");
        let key = delivery(&control_plane, &id, "manager:aws", way(access(&endpoint)));
        let task = errand(&id, writing(&control_plane, binding, value), vec![key]);
        let (given, failure) = handed_back(&mut session, task).await;
        assert_eq!((failure.code.as_str(), given), (code, reason), "{failure:?}");
    }
    // What is good is begun. That AWS does not answer is told whoever waits, instead of going from agent to agent.
    let key = delivery(&control_plane, "good", "manager:aws", way(access_of_user(&endpoint, &"A".repeat(20))));
    let task = errand("good", writing(&control_plane, ("writing-1", 0, "web", 2), b"x"), vec![key]);
    let result = ended(&mut session, task).await;
    let failure = result.failure.unwrap();
    assert_eq!((result.outcome, failure.code.as_str()), (TaskState::Failed.into(), "kms.unreachable"), "{failure:?}");
    agent.running.abort();
}
