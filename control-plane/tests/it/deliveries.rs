//! Secrets of assignments: what an agent is given of each, for which scope, and which agents.

use lictor_proto::sealing::Binding;
use lictor_proto::v1::*;
use prost::Message as _;
use tonic::Code;

use crate::access::sign_up;
use crate::support::{User, *};

pub(crate) const VALUE: &str = "Mark3r-value";
pub(crate) const KEY_ARN: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

/// What an agent must be able to do for every kind of secret.
pub(crate) async fn connect(agent: &AgentPeer, server: &Server, instance: &str) -> Link {
    agent.connect_saying(server, able(agent, instance)).await
}

pub(crate) fn able(agent: &AgentPeer, instance: &str) -> Hello {
    let mut hello = agent.hello(instance, Vec::new());
    hello.capabilities.extend(["aws_kms", "secret_sources", "task_secrets"].map(String::from));
    hello
}

/// A secret of the built-in store.
pub(crate) async fn put(user: &mut User, secret: Secret, value: &[u8]) -> Secret {
    user.put_secret(secret, Some(value)).await.unwrap()
}

/// The manager `corp`: an access key, whose secret part is the secret `aws-key`.
pub(crate) async fn put_manager(user: &mut User, change: impl FnOnce(&mut SecretManager)) -> SecretManager {
    put(user, secret("aws-key"), b"Mark3r-access-key").await;
    let mut manager = kms_manager("corp", "aws-key");
    change(&mut manager);
    user.put_manager(manager).await.unwrap()
}

/// What a delivery holds.
pub(crate) fn opened(agent: &AgentPeer, assignment: &Assignment, identifier: &str) -> secret_material::Material {
    let task = assignment.task.as_ref().unwrap();
    let delivery = assignment.deliveries.iter().find(|delivery| delivery.identifier == identifier).unwrap();
    let name = format!("secret:{identifier}");
    let binding = Binding {
        agent_id: &agent.id,
        task_id: &task.task_id,
        epoch: task.epoch,
        credential: &name,
        credential_version: delivery.version,
    };
    let plain = agent.sealing_key.open(delivery.sealed.as_ref().unwrap(), &binding).unwrap();
    SecretMaterial::decode(plain.as_slice()).unwrap().material.unwrap()
}

fn with_secrets(environment: &[(&str, &str)], authority: &str) -> TaskSpec {
    let environment = environment.iter().map(|(name, secret)| ((*name).to_owned(), (*secret).to_owned())).collect();
    let shell = ShellSettings { secret_environment: environment, ..ShellSettings::default() };
    let connection = ConnectionSettings { ca_secret: authority.into(), ..ConnectionSettings::default() };
    TaskSpec {
        target: Some(Target { host: "web1.corp.example".into(), connection: Some(connection) }),
        kind: Some(task_spec::Kind::Command(Command {
            command_line: "hostname".into(),
            shell: Some(shell),
            ..Command::default()
        })),
        ..command()
    }
}

async fn refused(user: &mut User, spec: TaskSpec) -> tonic::Status {
    let request = SubmitTaskRequest { spec: Some(spec), idempotency_key: String::new() };
    user.tasks.submit_task(request).await.unwrap_err()
}

#[tokio::test]
async fn a_credential_may_have_its_password_from_the_store_with_any_agent() {
    let (server, mut user, agent) = scene(&[]).await;
    put(&mut user, secret("web-password"), VALUE.as_bytes()).await;
    let credential = Credential {
        name: "by-name".into(),
        username: "svc-web".into(),
        secret: "web-password".into(),
        ..Credential::default()
    };
    user.put(credential, None).await.unwrap();
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    user.submit(TaskSpec { credential: "by-name".into(), ..command() }).await;
    let assignment = link.assignment().await;
    let (task, identity) = (assignment.task.unwrap(), assignment.identity.unwrap());
    assert_eq!((identity.secret.as_str(), assignment.deliveries.len()), ("", 0));
    let binding = Binding {
        agent_id: &agent.id,
        task_id: &task.task_id,
        epoch: task.epoch,
        credential: "by-name",
        credential_version: identity.version,
    };
    let password = agent.sealing_key.open(&assignment.secret.unwrap(), &binding).unwrap();
    assert_eq!(password.as_slice(), VALUE.as_bytes());
    let used: Vec<String> = user.audit().await.into_iter().filter(|line| line.contains("\"secret.used\"")).collect();
    assert_eq!(used.len(), 1, "{used:?}");
    for part in ["\"web-password\"", "\"why\":[\"credential\"]", &task.task_id, &agent.id, "\"version\":1"] {
        assert!(used[0].contains(part), "{part} is not in {}", used[0]);
    }
}

#[tokio::test]
async fn a_rejected_password_from_the_store_is_handed_out_again_once_the_secret_changes() {
    let (server, mut user, agent) = scene(&[]).await;
    put(&mut user, secret("web-password"), b"wrong").await;
    let credential = Credential {
        name: "by-name".into(),
        username: "u".into(),
        secret: "web-password".into(),
        ..Credential::default()
    };
    user.put(credential, None).await.unwrap();
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 4).await;
    let spec = || TaskSpec { credential: "by-name".into(), ..command() };
    user.submit(spec()).await;
    let reference = link.assignment().await.task.unwrap();
    let failure = Failure { stage: "authenticate".into(), code: "auth.rejected".into(), ..Failure::default() };
    let result = TaskResult { outcome: TaskState::Failed.into(), failure: Some(failure), ..TaskResult::default() };
    link.end(&reference, result).await;
    assert_eq!(user.submit(spec()).await.state(), TaskState::Rejected);
    put(&mut user, secret("web-password"), b"right").await;
    user.submit(spec()).await;
    assert_eq!(link.assignment().await.identity.unwrap().version, 2);
}

#[tokio::test]
async fn a_rejected_password_on_agents_is_used_again_once_its_place_is_named_again() {
    let (server, mut user, agent) = scene(&[]).await;
    let mounted = |source: &str| Secret { manager: "agent".into(), source: source.into(), ..secret("mounted") };
    let source = "env:LICTOR_SECRET_WEB";
    user.put_secret(mounted(source), None).await.unwrap();
    let credential =
        Credential { name: "by-name".into(), username: "u".into(), secret: "mounted".into(), ..Credential::default() };
    user.put(credential, None).await.unwrap();
    let mut link = connect(&agent, &server, "i1").await;
    let spec = || TaskSpec { credential: "by-name".into(), ..command() };
    user.submit(spec()).await;
    let reference = link.assignment().await.task.unwrap();
    let failure = Failure { stage: "authenticate".into(), code: "auth.rejected".into(), ..Failure::default() };
    let result = TaskResult { outcome: TaskState::Failed.into(), failure: Some(failure), ..TaskResult::default() };
    link.end(&reference, result).await;
    assert_eq!(user.submit(spec()).await.state(), TaskState::Rejected);
    // Another description says nothing of the value.
    assert_eq!(user.put_secret(mounted(""), None).await.unwrap().version, 1);
    assert_eq!(user.submit(spec()).await.state(), TaskState::Rejected);
    assert_eq!(user.put_secret(mounted(source), None).await.unwrap().version, 2);
    user.submit(spec()).await;
    assert_eq!(link.assignment().await.identity.unwrap().version, 2);
    // Once is enough.
    assert_eq!(user.put_secret(mounted(source), None).await.unwrap().version, 2);
}

#[tokio::test]
async fn secrets_of_the_shell_and_of_the_connection_are_delivered_each_once() {
    let (server, mut user, agent) = scene(&[]).await;
    put(&mut user, secret("token"), VALUE.as_bytes()).await;
    put(&mut user, Secret { kind: SecretKind::File.into(), ..secret("authority") }, b"-----BEGIN").await;
    let mut link = connect(&agent, &server, "i1").await;
    user.submit(with_secrets(&[("A", "token"), ("B", "token")], "authority")).await;
    let assignment = link.assignment().await;
    let mut names: Vec<&str> = assignment.deliveries.iter().map(|delivery| delivery.identifier.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["authority", "token"]);
    assert_eq!(opened(&agent, &assignment, "token"), secret_material::Material::Value(VALUE.into()));
    assert_eq!(opened(&agent, &assignment, "authority"), secret_material::Material::Value(b"-----BEGIN".to_vec()));
    // What was there before secrets had names is there still.
    assert!(assignment.secret.is_some());
    let text = format!("{assignment:?}");
    assert!(!text.contains("Mark3r"), "the value is in the message in clear");
}

#[tokio::test]
async fn a_secret_that_is_on_agents_is_named_and_not_sent() {
    let (server, mut user, agent) = scene(&[]).await;
    let source = Secret { manager: "agent".into(), source: "env:LICTOR_SECRET_WEB".into(), ..secret("mounted") };
    let request = PutSecretRequest { secret: Some(source), value: None, sealed: None };
    user.secrets.put_secret(request).await.unwrap();
    let credential =
        Credential { name: "by-name".into(), username: "u".into(), secret: "mounted".into(), ..Credential::default() };
    user.put(credential, None).await.unwrap();
    let (_old, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    let task = user.submit(TaskSpec { credential: "by-name".into(), ..command() }).await;
    let candidate = &user.task(&task.task_id).await.candidates[0];
    assert_eq!(candidate.code, "missing_capability");
    assert!(candidate.reason.contains("secret_sources"), "{candidate:?}");
    let mut link = connect(&agent, &server, "i2").await;
    let assignment = link.assignment().await;
    assert_eq!(assignment.identity.as_ref().unwrap().secret, "mounted");
    assert_eq!(assignment.secret, None);
    let source = secret_material::Material::Source("env:LICTOR_SECRET_WEB".into());
    assert_eq!(opened(&agent, &assignment, "mounted"), source);
}

#[tokio::test]
async fn secrets_that_are_not_there_or_not_for_the_task_are_refused_by_name() {
    let (server, mut user, _agent) = scene(&[]).await;
    put(&mut user, Secret { scope: "team".into(), ..secret("theirs") }, b"x").await;
    put(&mut user, Secret { kind: SecretKind::File.into(), ..secret("file") }, b"\0\x01").await;
    for (spec, code, text) in [
        (with_secrets(&[("A", "nothing")], ""), Code::NotFound, "there is no secret \"nothing\""),
        (with_secrets(&[], "nothing"), Code::NotFound, "ca_secret"),
        (with_secrets(&[("A", "theirs")], ""), Code::InvalidArgument, "scope \"team\""),
        (with_secrets(&[("A", "file")], ""), Code::InvalidArgument, "file is a file"),
        (with_secrets(&[("A", "a b")], ""), Code::InvalidArgument, "secret_environment"),
        (with_secrets(&[("A", "file"), ("a", "file")], ""), Code::InvalidArgument, "each variable once"),
    ] {
        let status = refused(&mut user, spec).await;
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(text), "{status:?}");
    }
    // Who does not see it learns nothing of it.
    let mut other = sign_up(&server, &mut user, "other", Role::Operator, "other").await;
    user.put(Credential { name: "all".into(), username: "u".into(), ..Credential::default() }, Some(PASSWORD))
        .await
        .unwrap();
    let status =
        refused(&mut other, TaskSpec { credential: "all".into(), ..with_secrets(&[("A", "theirs")], "") }).await;
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
}

#[tokio::test]
async fn a_secret_that_went_elsewhere_or_away_meanwhile_ends_the_task() {
    let (server, mut user, agent) = scene(&[]).await;
    for name in ["gone", "moved"] {
        put(&mut user, secret(name), b"x").await;
    }
    let deleted = user.submit(with_secrets(&[("A", "gone")], "")).await;
    let moved = user.submit(with_secrets(&[("A", "moved")], "")).await;
    user.secrets.delete_secret(DeleteSecretRequest { identifier: "gone".into() }).await.unwrap();
    put(&mut user, Secret { scope: "team".into(), ..secret("moved") }, b"x").await;
    let mut link = connect(&agent, &server, "i1").await;
    for (task, code) in [(deleted, "secret.deleted"), (moved, "secret.unusable")] {
        let task = user.until(&task.task_id, TaskState::Rejected).await;
        assert_eq!(task.result.unwrap().failure.unwrap().code, code);
    }
    // Its credit was given back.
    for _ in 0..4 {
        user.submit(command()).await;
        link.assignment().await;
    }
}

/// The assignment as the agent gets it that restarts while the task runs.
async fn once_more(agent: &AgentPeer, server: &Server, reference: &TaskRef, instance: &str) -> (Link, Assignment) {
    let wants = HeldTask { wants_assignment: true, ..held(reference, HeldState::Running) };
    let hello = Hello { held: vec![wants], ..able(agent, instance) };
    let mut link = agent.open(server, vec![agent_event::Event::Hello(hello)]).await.unwrap();
    let Some(server_event::Event::Welcome(welcome)) = link.next().await else { panic!("no Welcome") };
    (link, welcome.resume[0].assignment.clone().unwrap())
}

fn delivered(assignment: &Assignment) -> Vec<(&str, u64)> {
    let deliveries = assignment.deliveries.iter().map(|delivery| (delivery.identifier.as_str(), delivery.version));
    let mut delivered: Vec<_> = deliveries.collect();
    delivered.sort_unstable();
    delivered
}

#[tokio::test]
async fn an_agent_that_restarts_gets_what_it_connects_with_and_what_it_masks_by() {
    let (server, mut user, agent) = scene(&[]).await;
    put(&mut user, secret("token"), VALUE.as_bytes()).await;
    put(&mut user, secret("authority"), b"pem").await;
    let mut link = connect(&agent, &server, "i1").await;
    user.submit(with_secrets(&[("A", "token")], "authority")).await;
    let reference = link.assignment().await.task.unwrap();
    link.started(&reference).await;
    link.heartbeat(1, vec![reference.clone()]).await;
    drop(link);
    // The command has the values that there were when it began; a connection is made with what there is now.
    put(&mut user, secret("token"), b"another").await;
    put(&mut user, secret("authority"), b"new pem").await;
    let (link, assignment) = once_more(&agent, &server, &reference, "i2").await;
    assert_eq!(delivered(&assignment), [("authority", 2), ("token", 1)]);
    assert_eq!(opened(&agent, &assignment, "authority"), secret_material::Material::Value(b"new pem".to_vec()));
    assert_eq!(opened(&agent, &assignment, "token"), secret_material::Material::Value(VALUE.into()));
    let Some(task_spec::Kind::Command(command)) = assignment.spec.unwrap().kind else { panic!("no command") };
    assert!(command.shell.unwrap_or_default().secret_environment.is_empty());
    drop(link);
    // Nothing of it is kept in memory alone.
    let server = server.crash_and_restart().await;
    let mut user = server.user().await;
    let (link, assignment) = once_more(&agent, &server, &reference, "i3").await;
    assert_eq!(opened(&agent, &assignment, "token"), secret_material::Material::Value(VALUE.into()));
    drop(link);
    // Of a version that is gone nothing can be said, least of all the value of another one.
    for version in 3..=11 {
        put(&mut user, secret("token"), format!("value {version}").as_bytes()).await;
    }
    let (_link, assignment) = once_more(&agent, &server, &reference, "i4").await;
    assert_eq!(delivered(&assignment), [("authority", 2)]);
}

#[tokio::test]
async fn no_value_of_a_secret_is_in_any_file_in_clear() {
    let (server, mut user, agent) = scene(&[]).await;
    put(&mut user, secret("token"), VALUE.as_bytes()).await;
    put_manager(&mut user, |_| {}).await;
    let mut link = connect(&agent, &server, "i1").await;
    user.submit(with_secrets(&[("A", "token")], "")).await;
    link.assignment().await;
    let request = TestSecretManagerRequest { identifier: "corp".into(), selector: None };
    user.secrets.test_secret_manager(request).await.unwrap();
    link.assignment().await;
    for entry in std::fs::read_dir(server.state_dir()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"Mark3r"));
    }
}
