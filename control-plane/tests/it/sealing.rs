//! Values that only agents may have: prepared, sealed to one of them, stored as what it makes of them; and tests of secret managers.

use lictor_proto::sealing::{Binding, seal};
use lictor_proto::v1::*;
use tonic::{Code, Status};

use crate::access::sign_up;
use crate::deliveries::{KEY_ARN, VALUE, connect, opened, put, put_manager};
use crate::support::{User, *};

async fn prepare(user: &mut User, identifier: &str) -> Result<PrepareSecretResponse, Status> {
    let request = PrepareSecretRequest { identifier: identifier.into(), manager: "corp".into(), scope: String::new() };
    Ok(user.secrets.prepare_secret(request).await?.into_inner())
}

/// As a client seals it.
fn sealed(prepared: &PrepareSecretResponse, identifier: &str, value: &[u8]) -> SealedValue {
    let binding = Binding {
        agent_id: &prepared.agent_id,
        task_id: &prepared.seal_id,
        epoch: 0,
        credential: identifier,
        credential_version: prepared.version,
    };
    let value = seal(&prepared.sealing_key, &binding, value).unwrap();
    SealedValue { seal_id: prepared.seal_id.clone(), value: Some(value) }
}

/// Puts the value; the call waits in the background, for its agent is this test.
fn put_sealed(user: &User, identifier: &str, sealed: SealedValue) -> tokio::task::JoinHandle<Result<Secret, Status>> {
    let mut secrets = user.secrets.clone();
    let secret = Secret { description: "kept beside the value".into(), ..secret(identifier) };
    tokio::spawn(async move {
        let request = PutSecretRequest { secret: Some(secret), value: None, sealed: Some(sealed) };
        Ok(secrets.put_secret(request).await?.into_inner().secret.unwrap())
    })
}

/// The value as the agent sees it, and what an honest one makes of it.
fn wrap(agent: &AgentPeer, assignment: &Assignment) -> (Vec<u8>, KmsRecord) {
    let Some(task_spec::Kind::SealSecret(seal)) = assignment.spec.as_ref().and_then(|spec| spec.kind.clone()) else {
        panic!("another kind of task");
    };
    let binding = Binding {
        agent_id: &agent.id,
        task_id: &seal.seal_id,
        epoch: 0,
        credential: &seal.identifier,
        credential_version: seal.version,
    };
    let value = agent.sealing_key.open(seal.value.as_ref().unwrap(), &binding).unwrap();
    let scope = if seal.scope.is_empty() { "/" } else { &seal.scope };
    let version = seal.version.to_string();
    let context = [("lictor:scope", scope), ("lictor:secret", &seal.identifier), ("lictor:version", &version)];
    let record = KmsRecord {
        key_arn: KEY_ARN.into(),
        wrapped_key: vec![1; 184],
        nonce: vec![2; 12],
        ciphertext: vec![3; value.len() + 16],
        context: context.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    };
    (value.to_vec(), record)
}

fn made(record: KmsRecord) -> TaskResult {
    TaskResult { sealed_record: Some(record), ..succeeded(0) }
}

/// Stores a secret through the agent.
async fn store(user: &mut User, agent: &AgentPeer, link: &mut Link, identifier: &str) -> Secret {
    let prepared = prepare(user, identifier).await.unwrap();
    let call = put_sealed(user, identifier, sealed(&prepared, identifier, VALUE.as_bytes()));
    let assignment = link.assignment().await;
    let (_, record) = wrap(agent, &assignment);
    link.end(&assignment.task.unwrap(), made(record)).await;
    within(call).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_value_is_stored_as_its_agent_encrypts_it() {
    let (server, mut user, agent) = scene(&[]).await;
    put_manager(&mut user, |_| {}).await;
    let mut link = connect(&agent, &server, "i1").await;
    let prepared = prepare(&mut user, "db").await.unwrap();
    assert!(prepared.must_seal && prepared.agent_id == agent.id && prepared.version == 1, "{prepared:?}");
    assert_eq!(prepared.sealing_key, agent.sealing_key.public_bytes());
    let call = put_sealed(&user, "db", sealed(&prepared, "db", VALUE.as_bytes()));
    let assignment = link.assignment().await;
    assert_eq!((assignment.secret.is_some(), assignment.identity.is_some()), (false, false));
    let secret_material::Material::Kms(way) = opened(&agent, &assignment, "manager:corp") else { panic!("no way") };
    let access = way.access.unwrap();
    assert_eq!((way.record, access.region.as_str(), access.key.as_str()), (None, "eu-central-1", KEY_ARN));
    let Some(kms_access::Credentials::AccessKey(key)) = access.credentials else { panic!("another identity") };
    assert_eq!(key.secret_access_key, "Mark3r-access-key");
    let (value, record) = wrap(&agent, &assignment);
    assert_eq!(value, VALUE.as_bytes());
    let reference = assignment.task.unwrap();
    link.end(&reference, made(record.clone())).await;
    let stored = within(call).await.unwrap().unwrap();
    assert_eq!((stored.version, stored.manager.as_str(), stored.key_id.as_str()), (1, "corp", KEY_ARN));
    assert_eq!(stored.description, "kept beside the value");
    // The task shows neither.
    let task = user.task(&reference.task_id).await;
    assert_eq!((task.state(), task.result.unwrap().sealed_record), (TaskState::Succeeded, None));
    let Some(task_spec::Kind::SealSecret(seal)) = task.spec.unwrap().kind else { panic!("another kind") };
    assert_eq!((seal.identifier.as_str(), seal.value), ("db", None));
    // A task that needs it gets the record, as it was made, and the way.
    let credential =
        Credential { name: "by-name".into(), username: "u".into(), secret: "db".into(), ..Credential::default() };
    user.put(credential, None).await.unwrap();
    user.submit(TaskSpec { credential: "by-name".into(), ..command() }).await;
    let assignment = link.assignment().await;
    assert_eq!(assignment.identity.as_ref().unwrap().secret, "db");
    let secret_material::Material::Kms(kms) = opened(&agent, &assignment, "db") else { panic!("no record") };
    assert_eq!(kms.record, Some(record));
    assert!(kms.access.is_some());
    let audit = user.audit().await.join("\n");
    assert!(audit.contains("\"why\":[\"manager\"]") && !audit.contains("Mark3r"), "{audit}");
}

#[tokio::test]
async fn a_new_version_is_the_next_tasks_and_clears_a_rejection() {
    let (server, mut user, agent) = scene(&[]).await;
    put_manager(&mut user, |_| {}).await;
    let mut link = connect(&agent, &server, "i1").await;
    store(&mut user, &agent, &mut link, "db").await;
    let credential =
        Credential { name: "by-name".into(), username: "u".into(), secret: "db".into(), ..Credential::default() };
    user.put(credential, None).await.unwrap();
    let spec = || TaskSpec { credential: "by-name".into(), ..command() };
    user.submit(spec()).await;
    let reference = link.assignment().await.task.unwrap();
    let failure = Failure { stage: "authenticate".into(), code: "auth.rejected".into(), ..Failure::default() };
    let result = TaskResult { outcome: TaskState::Failed.into(), failure: Some(failure), ..TaskResult::default() };
    link.end(&reference, result).await;
    assert_eq!(user.submit(spec()).await.state(), TaskState::Rejected);
    link.send(agent_event::Event::Credit(Credit { total: 20 })).await;
    assert_eq!(store(&mut user, &agent, &mut link, "db").await.version, 2);
    user.submit(spec()).await;
    let assignment = link.assignment().await;
    assert_eq!((assignment.identity.unwrap().version, assignment.deliveries[0].version), (2, 2));
}

#[tokio::test]
async fn what_a_lying_agent_makes_of_a_value_is_not_stored() {
    let (server, mut user, agent) = scene(&[]).await;
    put_manager(&mut user, |_| {}).await;
    let mut link = connect(&agent, &server, "i1").await;
    link.send(agent_event::Event::Credit(Credit { total: 20 })).await;
    let lies: [fn(KmsRecord) -> Option<KmsRecord>; 6] = [
        |_| None,
        |mut record| {
            record.context.insert("lictor:secret".into(), "other".into());
            Some(record)
        },
        |mut record| {
            record.context.insert("lictor:version".into(), "2".into());
            Some(record)
        },
        |mut record| {
            record.context.remove("lictor:scope");
            Some(record)
        },
        |record| Some(KmsRecord { ciphertext: vec![0; 3 << 20], ..record }),
        |record| Some(KmsRecord { nonce: Vec::new(), ..record }),
    ];
    for (index, lie) in lies.into_iter().enumerate() {
        let prepared = prepare(&mut user, "db").await.unwrap();
        let call = put_sealed(&user, "db", sealed(&prepared, "db", VALUE.as_bytes()));
        let assignment = link.assignment().await;
        let (_, record) = wrap(&agent, &assignment);
        let reference = assignment.task.unwrap();
        link.end(&reference, TaskResult { sealed_record: lie(record), ..succeeded(0) }).await;
        let status = within(call).await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{index}: {status:?}");
        assert!(status.message().contains("secret.bad_record"), "{index}: {status:?}");
        let task = user.task(&reference.task_id).await;
        assert_eq!(task.state(), TaskState::Failed, "{index}");
    }
    let status = user.secrets.get_secret(GetSecretRequest { identifier: "db".into() }).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn a_record_in_the_result_of_another_task_goes_nowhere() {
    let (server, mut user, agent) = scene(&[]).await;
    put_manager(&mut user, |_| {}).await;
    let mut link = connect(&agent, &server, "i1").await;
    let task = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    let record = KmsRecord { key_arn: KEY_ARN.into(), ..KmsRecord::default() };
    link.end(&reference, made(record)).await;
    let task = user.until(&task.task_id, TaskState::Succeeded).await;
    assert_eq!(task.result.unwrap().sealed_record, None);
    let listed = user.secrets.list_secrets(ListSecretsRequest::default()).await.unwrap().into_inner().secrets;
    assert_eq!(listed.iter().map(|secret| secret.identifier.as_str()).collect::<Vec<_>>(), ["aws-key"]);
}

#[tokio::test]
async fn a_failure_of_the_agent_is_the_answer() {
    let (server, mut user, agent) = scene(&[]).await;
    put_manager(&mut user, |_| {}).await;
    let mut link = connect(&agent, &server, "i1").await;
    let prepared = prepare(&mut user, "db").await.unwrap();
    let call = put_sealed(&user, "db", sealed(&prepared, "db", VALUE.as_bytes()));
    let reference = link.assignment().await.task.unwrap();
    let failure = Failure {
        stage: "write".into(),
        code: "kms.denied".into(),
        message: "GenerateDataKey was denied".into(),
        remedy: "Allow it.".into(),
        ..Failure::default()
    };
    let result = TaskResult { outcome: TaskState::Failed.into(), failure: Some(failure), ..TaskResult::default() };
    link.end(&reference, result).await;
    let status = within(call).await.unwrap().unwrap_err();
    assert_eq!(status.message(), "kms.denied: GenerateDataKey was denied. Allow it.");
}

#[tokio::test]
async fn a_seal_id_is_good_once_and_for_what_it_was_given_for() {
    let (server, mut user, agent) = scene(&[]).await;
    put_manager(&mut user, |_| {}).await;
    let mut link = connect(&agent, &server, "i1").await;
    let prepared = prepare(&mut user, "db").await.unwrap();
    // Another user's is nobody's, and stays what it is.
    let other = sign_up(&server, &mut user, "other", Role::Admin, "").await;
    let value = || sealed(&prepared, "db", VALUE.as_bytes());
    let status = within(put_sealed(&other, "db", value())).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    let call = put_sealed(&user, "db", value());
    let assignment = link.assignment().await;
    let status = within(put_sealed(&user, "db", value())).await.unwrap().unwrap_err();
    assert!(status.message().contains("prepare again"), "{status:?}");
    let (_, record) = wrap(&agent, &assignment);
    link.end(&assignment.task.unwrap(), made(record)).await;
    within(call).await.unwrap().unwrap();
    for (identifier, change) in [
        ("dc", (|_: &mut SealedValue| {}) as fn(&mut SealedValue)),
        ("db", |value| value.seal_id.push('x')),
        ("db", |value| value.value = None),
        ("db", |value| value.value.as_mut().unwrap().ciphertext.clear()),
        ("db", |value| value.value.as_mut().unwrap().ciphertext = vec![0; (64 << 10) + 17]),
    ] {
        let prepared = prepare(&mut user, "db").await.unwrap();
        let mut value = sealed(&prepared, "db", VALUE.as_bytes());
        change(&mut value);
        let status = within(put_sealed(&user, identifier, value)).await.unwrap().unwrap_err();
        assert!(matches!(status.code(), Code::FailedPrecondition | Code::InvalidArgument), "{status:?}");
    }
}

#[tokio::test]
async fn of_two_who_write_at_once_the_later_is_told() {
    let (server, mut user, agent) = scene(&[]).await;
    put_manager(&mut user, |_| {}).await;
    let mut link = connect(&agent, &server, "i1").await;
    let (first, second) = (prepare(&mut user, "db").await.unwrap(), prepare(&mut user, "db").await.unwrap());
    let calls = [&first, &second].map(|prepared| put_sealed(&user, "db", sealed(prepared, "db", VALUE.as_bytes())));
    let mut done = Vec::new();
    for _ in 0..2 {
        let assignment = link.assignment().await;
        let (_, record) = wrap(&agent, &assignment);
        done.push((assignment.task.unwrap(), record));
    }
    for (reference, record) in done {
        link.end(&reference, made(record)).await;
    }
    let mut outcomes = Vec::new();
    for call in calls {
        outcomes.push(within(call).await.unwrap().map_err(|status| status.message().to_owned()));
    }
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    let refused = outcomes.into_iter().find_map(Result::err).unwrap();
    assert!(refused.contains("secret.superseded"), "{refused}");
}

#[tokio::test]
async fn a_value_is_stored_though_nobody_waits_and_the_control_plane_was_started_anew() {
    let (server, mut user, agent) = scene(&[]).await;
    put_manager(&mut user, |_| {}).await;
    let mut link = connect(&agent, &server, "i1").await;
    let prepared = prepare(&mut user, "db").await.unwrap();
    let call = put_sealed(&user, "db", sealed(&prepared, "db", VALUE.as_bytes()));
    let assignment = link.assignment().await;
    call.abort();
    drop(link);
    let server = server.restart().await;
    let mut user = server.user().await;
    let (_, record) = wrap(&agent, &assignment);
    let reference = assignment.task.unwrap();
    let mut hello = crate::deliveries::able(&agent, "i1");
    hello.held = vec![held(&reference, HeldState::Ended)];
    let mut link = agent.connect_saying(&server, hello).await;
    link.end(&reference, made(record)).await;
    let stored = user.secrets.get_secret(GetSecretRequest { identifier: "db".into() }).await.unwrap().into_inner();
    assert_eq!(stored.secret.unwrap().version, 1);
}

#[tokio::test]
async fn without_an_agent_that_can_every_candidate_says_why() {
    let (server, mut user, agent) = scene(&[]).await;
    put_manager(&mut user, |manager| manager.agent_tags = vec!["kms".into()]).await;
    let _link = connect(&agent, &server, "i1").await;
    let status = prepare(&mut user, "db").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    for part in ["a1", "kms", "corp"] {
        assert!(status.message().contains(part), "{status:?}");
    }
    let request = TestSecretManagerRequest { identifier: "corp".into(), selector: None };
    let task = user.secrets.test_secret_manager(request).await.unwrap().into_inner().task.unwrap();
    assert_eq!(task.candidates[0].code, "secret_manager");
}

#[tokio::test]
async fn what_the_control_plane_may_see_need_not_be_sealed() {
    let (_server, mut user, _agent) = scene(&[]).await;
    for manager in ["", "built-in", "agent"] {
        let request = PrepareSecretRequest { identifier: "db".into(), manager: manager.into(), scope: String::new() };
        let prepared = user.secrets.prepare_secret(request).await.unwrap().into_inner();
        assert_eq!(prepared, PrepareSecretResponse::default());
    }
    assert_eq!(prepare(&mut user, "db").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_test_of_a_secret_manager_is_a_task_with_the_way_to_it() {
    let (server, mut user, agent) = scene(&[]).await;
    put_manager(&mut user, |_| {}).await;
    let mut link = connect(&agent, &server, "i1").await;
    link.send(agent_event::Event::Credit(Credit { total: 20 })).await;
    let test = || TestSecretManagerRequest { identifier: "corp".into(), selector: None };
    let task = user.secrets.test_secret_manager(test()).await.unwrap().into_inner().task.unwrap();
    let assignment = link.assignment().await;
    assert_eq!((assignment.secret.is_some(), assignment.identity.is_some()), (false, false));
    let names: Vec<&str> = assignment.deliveries.iter().map(|delivery| delivery.identifier.as_str()).collect();
    assert_eq!(names, ["manager:corp"]);
    let rung = |stage: &str| Rung { stage: stage.into(), outcome: RungOutcome::Passed.into(), ..Rung::default() };
    let rungs = ["identity", "write", "read"].map(rung).to_vec();
    link.end(&assignment.task.unwrap(), TaskResult { rungs: rungs.clone(), ..succeeded(0) }).await;
    let task = user.until(&task.task_id, TaskState::Succeeded).await;
    assert_eq!(task.result.unwrap().rungs, rungs);
    // Once something is kept, reading can be tested where nothing may be written.
    store(&mut user, &agent, &mut link, "db").await;
    user.secrets.test_secret_manager(test()).await.unwrap();
    let assignment = link.assignment().await;
    let names: Vec<&str> = assignment.deliveries.iter().map(|delivery| delivery.identifier.as_str()).collect();
    assert_eq!(names, ["manager:corp", "db"]);
    // Whoever has it and the way may read it.
    let used = user.audit().await.into_iter().filter(|line| line.contains("\"why\":[\"test\"]"));
    let used: Vec<String> = used.collect();
    assert!(used.len() == 1 && used[0].contains("\"db\""), "{used:?}");
}

#[tokio::test]
async fn a_secret_that_is_no_key_is_not_shown_as_one() {
    let (server, mut user, agent) = scene(&[]).await;
    put(&mut user, secret("no-key"), KEY_ARN.as_bytes()).await;
    put_manager(&mut user, |manager| {
        let Some(secret_manager::Kind::AwsKms(kms)) = &mut manager.kind else { panic!("another kind") };
        kms.key = Some(TextOrSecret { text: String::new(), secret: "no-key".into() });
        kms.region = "eu-central-1".into();
    })
    .await;
    // It was one when the manager was stored.
    put(&mut user, secret("no-key"), b"Mark3r-no-key").await;
    let link = connect(&agent, &server, "i1").await;
    link.send(agent_event::Event::Credit(Credit { total: 20 })).await;
    let test = TestSecretManagerRequest { identifier: "corp".into(), selector: None };
    let task = user.secrets.test_secret_manager(test).await.unwrap().into_inner().task.unwrap();
    let task = user.until(&task.task_id, TaskState::Rejected).await;
    let failure = task.result.as_ref().unwrap().failure.as_ref().unwrap();
    assert_eq!(failure.code, "secret_manager.unusable");
    assert!(failure.message.contains("the secret no-key holds no ARN"), "{failure:?}");
    assert!(!format!("{task:?}").contains("Mark3r"), "{task:?}");
}

#[tokio::test]
async fn tests_of_secret_managers_are_for_those_who_see_them() {
    let (server, mut user, _agent) = scene(&[]).await;
    put_manager(&mut user, |_| {}).await;
    let mut other = sign_up(&server, &mut user, "other", Role::Operator, "other").await;
    for (identifier, code) in
        [("corp", Code::NotFound), ("nothing", Code::NotFound), ("built-in", Code::FailedPrecondition)]
    {
        let request = TestSecretManagerRequest { identifier: identifier.into(), selector: None };
        let status = other.secrets.test_secret_manager(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
    }
    // Nor can such a task be submitted.
    for kind in [
        task_spec::Kind::SecretManagerTest(SecretManagerTest { manager: "corp".into() }),
        task_spec::Kind::SealSecret(SealSecret::default()),
    ] {
        let spec = TaskSpec { kind: Some(kind), ..command() };
        let request = SubmitTaskRequest { spec: Some(spec), idempotency_key: String::new() };
        assert_eq!(user.tasks.submit_task(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_secret_of_the_store_is_not_moved_by_sealing_unseen() {
    let (server, mut user, agent) = scene(&[]).await;
    put_manager(&mut user, |_| {}).await;
    put(&mut user, secret("db"), b"old").await;
    let mut link = connect(&agent, &server, "i1").await;
    let prepared = prepare(&mut user, "db").await.unwrap();
    assert_eq!(prepared.version, 2);
    let call = put_sealed(&user, "db", sealed(&prepared, "db", VALUE.as_bytes()));
    let assignment = link.assignment().await;
    // Changed while the agent works.
    put(&mut user, secret("db"), b"new").await;
    let (_, record) = wrap(&agent, &assignment);
    link.end(&assignment.task.unwrap(), made(record)).await;
    let status = within(call).await.unwrap().unwrap_err();
    assert!(status.message().contains("secret.superseded"), "{status:?}");
    let stored = user.secrets.get_secret(GetSecretRequest { identifier: "db".into() }).await.unwrap().into_inner();
    let stored = stored.secret.unwrap();
    assert_eq!((stored.version, stored.manager.as_str()), (2, "built-in"));
}
