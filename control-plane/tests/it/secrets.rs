//! Credentials: sealed to one agent for one assignment, encrypted at rest, not tried again once rejected.

use std::path::Path;
use std::sync::{Arc, Mutex};

use lictor_proto::sealing::{Binding, SealingKey};
use lictor_proto::v1::*;
use tonic::Code;

use crate::support::*;

#[tokio::test]
async fn a_sealed_secret_opens_only_with_the_agents_key_and_binding() {
    let (server, mut user, agent) = scene(&[]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    user.submit(command()).await;
    let assignment = link.assignment().await;
    let (task, secret) = (assignment.task.unwrap(), assignment.secret.unwrap());
    let binding = Binding {
        agent_id: &agent.id,
        task_id: &task.task_id,
        epoch: task.epoch,
        credential: "web",
        credential_version: assignment.identity.unwrap().version,
    };
    assert_eq!(agent.sealing_key.open(&secret, &binding).unwrap().as_slice(), PASSWORD.as_bytes());
    assert!(SealingKey::generate().open(&secret, &binding).is_err());
    assert!(agent.sealing_key.open(&secret, &Binding { epoch: 2, ..binding }).is_err());
}

/// Collects everything that is logged, at every level, libraries included.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_is_in_the_log_at_any_level() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let (server, mut user, agent) = scene(&[]).await;
    let (_, join_token) = user.token(CreateJoinTokenRequest::default()).await;
    enroll(&server, &join_token, "a2", &[]).await.unwrap();
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    let task = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    link.end(&reference, succeeded(0)).await;
    let admin = std::fs::read_to_string(server.state_dir().join("admin-token")).unwrap();
    let key = std::fs::read_to_string(server.state_dir().join("master-key")).unwrap();
    server.stop().await;
    let bytes = log.0.lock().unwrap().clone();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains(&task.task_id) && text.contains("TRACE"), "the search finds what is there");
    for secret in [PASSWORD, &admin, &key, join_token.split('.').nth(2).unwrap()] {
        if let Some(line) = text.lines().find(|line| line.contains(secret)) {
            panic!("a secret is in the log: {}", line.replace(secret, "[it]"));
        }
    }
}

#[tokio::test]
async fn no_secret_is_in_any_file_in_clear() {
    let (server, mut user, agent) = scene(&[]).await;
    let (join_token, text) = user.token(CreateJoinTokenRequest::default()).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    user.submit(command()).await;
    link.assignment().await;
    let join_secret = text.split('.').nth(2).unwrap().to_owned();
    let admin = std::fs::read_to_string(server.state_dir().join("admin-token")).unwrap();
    search(server.state_dir(), PASSWORD);
    search(server.state_dir(), &join_secret);
    search(server.state_dir(), &admin);
    assert!(on_disk(server.state_dir(), &join_token.token_id), "the search finds what is there");
}

#[tokio::test]
async fn what_tasks_hold_is_in_no_file_in_clear() {
    const MARKERS: [&str; 5] =
        ["Mark3r-script", "Mark3r-environment", "Mark3r-stdin", "Mark3r-output", "Mark3r-result"];
    let (server, mut user, agent) = scene(&[]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 2).await;
    let shell = || ShellSettings {
        environment: [("TOKEN".to_owned(), MARKERS[1].to_owned())].into(),
        ..ShellSettings::default()
    };
    let script = Script { text: MARKERS[0].into(), shell: Some(shell()), ..Script::default() };
    let with_stdin = Command {
        command_line: "more".into(),
        stdin: MARKERS[2].as_bytes().to_vec().into(),
        shell: Some(shell()),
        ..Command::default()
    };
    let mut watched = Vec::new();
    for kind in [task_spec::Kind::Script(script), task_spec::Kind::Command(with_stdin)] {
        let task = user.submit(TaskSpec { kind: Some(kind.clone()), ..command() }).await;
        let assignment = link.assignment().await;
        assert_eq!(assignment.spec.unwrap().kind.map(|kind| format!("{kind:?}").contains("Mark3r-env")), Some(true));
        let reference = assignment.task.unwrap();
        link.started(&reference).await;
        link.output(&reference, 0, MARKERS[3]).await;
        link.acked(&reference, MARKERS[3].len() as u64).await;
        let failure = Failure { message: MARKERS[4].into(), ..Failure::default() };
        let result = TaskResult { failure: Some(failure), ..succeeded(MARKERS[3].len() as u64) };
        link.end(&reference, result).await;
        let stored = user.until(&task.task_id, TaskState::Succeeded).await;
        assert_eq!(stored.result.unwrap().failure.unwrap().message, MARKERS[4]);
        watched.push(task.task_id);
    }
    for marker in MARKERS {
        search(server.state_dir(), marker);
    }
    let server = server.restart().await;
    for marker in MARKERS {
        search(server.state_dir(), marker);
    }
    let mut user = server.user().await;
    for task_id in watched {
        let (output, task) = collect(user.watch(&task_id, 0).await).await;
        assert_eq!(output, MARKERS[3].as_bytes());
        assert!(format!("{:?}", task.spec).contains(MARKERS[1]));
    }
}

#[tokio::test]
async fn under_another_master_key_live_tasks_stop_the_start_and_final_ones_are_shown_without_their_content() {
    let (server, mut user, agent) = scene(&[]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    let done = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    link.end(&reference, succeeded(0)).await;
    user.until(&done.task_id, TaskState::Succeeded).await;
    let key = server.state_dir().join("master-key");
    let kept = std::fs::read(&key).unwrap();
    let state_dir = server.state_dir().to_owned();
    let lose_key = || std::fs::write(&key, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
    lose_key();
    let server = server.restart().await;
    let mut user = server.user().await;
    let task = user.task(&done.task_id).await;
    assert_eq!((task.state(), task.spec), (TaskState::Succeeded, None));
    assert_eq!(task.result.unwrap().failure.unwrap().code, "task.unreadable");
    std::fs::write(&key, &kept).unwrap();
    let server = server.restart().await;
    let mut user = server.user().await;
    assert!(user.task(&done.task_id).await.spec.is_some());
    user.submit(command()).await;
    lose_key();
    let dir = server.stop_and_keep().await;
    let environment = [
        ("LICTOR_CONTROL_PLANE_STATE_DIR", state_dir.to_str().unwrap()),
        ("LICTOR_CONTROL_PLANE_LISTEN", "127.0.0.1:0"),
        ("LICTOR_CONTROL_PLANE_HTTP_LISTEN", "127.0.0.1:0"),
    ];
    let environment = environment.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let config = lictor_control_plane::Config::load(None, &environment).unwrap();
    let error = lictor_control_plane::ControlPlane::start(&config).await.err().unwrap();
    assert!(error.chain().contains("encrypted with master key"), "{}", error.chain());
    drop(dir);
}

fn search(dir: &Path, needle: &str) {
    assert!(!on_disk(dir, needle), "a secret is on disk in clear");
}

#[tokio::test]
async fn versions_count_changes_of_the_secret_only() {
    let (_server, mut user, _agent) = scene(&[]).await;
    let credential = |description: &str| Credential {
        name: "web".into(),
        username: "alice".into(),
        domain: "CORP".into(),
        description: description.into(),
        ..Credential::default()
    };
    assert_eq!(user.put(credential("same password"), Some(PASSWORD)).await.unwrap().version, 1);
    assert_eq!(user.put(credential("kept password"), None).await.unwrap().version, 1);
    assert_eq!(user.put(credential("new password"), Some("other")).await.unwrap().version, 2);
    let listed = user.credentials.list_credentials(ListCredentialsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.credentials[0].description, "new password");
    // Deleted and made again: the version goes on, and without a password there is nothing to keep.
    user.credentials.delete_credential(DeleteCredentialRequest { name: "web".into() }).await.unwrap();
    let status = user.credentials.delete_credential(DeleteCredentialRequest { name: "web".into() }).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(user.put(credential(""), None).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(user.put(credential(""), Some(PASSWORD)).await.unwrap().version, 3);
}

#[tokio::test]
async fn a_rejected_version_is_not_handed_out_until_the_secret_changes() {
    let (server, mut user, agent) = scene(&[]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    let first = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    let waiting = user.submit(command()).await;
    link.started(&reference).await;
    let failure = Failure { stage: "authenticate".into(), code: "auth.rejected".into(), ..Failure::default() };
    let result = TaskResult { outcome: TaskState::Failed.into(), failure: Some(failure), ..TaskResult::default() };
    link.end(&reference, result).await;
    user.until(&first.task_id, TaskState::Failed).await;
    let rejected = user.until(&waiting.task_id, TaskState::Rejected).await;
    let failure = rejected.result.unwrap().failure.unwrap();
    assert_eq!(failure.code, "credential.rejected");
    assert!(failure.remedy.contains("lictor credential put web"), "{failure:?}");
    let listed = user.credentials.list_credentials(ListCredentialsRequest::default()).await.unwrap().into_inner();
    assert!(listed.credentials[0].rejected_at.is_some());
    // It stays so over a restart, and for the same password again.
    drop(link);
    let server = server.restart().await;
    let mut user = server.user().await;
    assert!(user.put_credential("web").await.rejected_at.is_some());
    assert_eq!(user.submit(command()).await.state(), TaskState::Rejected);

    let credential =
        Credential { name: "web".into(), username: "alice".into(), domain: "CORP".into(), ..Credential::default() };
    let changed = user.put(credential, Some("right")).await.unwrap();
    assert_eq!((changed.version, changed.rejected_at), (2, None));
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    user.submit(command()).await;
    assert_eq!(link.assignment().await.identity.unwrap().version, 2);
}

#[tokio::test]
async fn a_rejection_that_comes_too_late_for_its_task_still_counts() {
    let (server, mut user, agent) =
        scene(&[("LEASE", "1s"), ("HEARTBEAT_INTERVAL", "200ms"), ("LOST_WAIT", "0s")]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    let task = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    link.started(&reference).await;
    user.until(&task.task_id, TaskState::Unknown).await;
    let failure = Failure { stage: "authenticate".into(), code: "auth.rejected".into(), ..Failure::default() };
    let result = TaskResult { outcome: TaskState::Failed.into(), failure: Some(failure), ..TaskResult::default() };
    let (mut link, _) = agent.connect(&server, "i1", vec![held(&reference, HeldState::Ended)], 1).await;
    link.end(&reference, result).await;
    assert_eq!(user.submit(command()).await.state(), TaskState::Rejected);
}

#[tokio::test]
async fn deleting_a_credential_rejects_what_waits_for_it() {
    let (_server, mut user, _agent) = scene(&[]).await;
    let task = user.submit(command()).await;
    user.credentials.delete_credential(DeleteCredentialRequest { name: "web".into() }).await.unwrap();
    let rejected = user.until(&task.task_id, TaskState::Rejected).await;
    assert_eq!(rejected.result.unwrap().failure.unwrap().code, "credential.deleted");
}

#[tokio::test]
async fn testing_a_credential_is_a_connection_test() {
    let (server, mut user, agent) = scene(&[]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    let request = TestCredentialRequest {
        name: "web".into(),
        target: Some(Target { host: "web1".into(), connection: None }),
        selector: None,
    };
    let task = user.credentials.test_credential(request).await.unwrap().into_inner().task.unwrap();
    let assignment = link.assignment().await;
    assert_eq!(assignment.task.unwrap().task_id, task.task_id);
    assert!(matches!(assignment.spec.unwrap().kind, Some(task_spec::Kind::ConnectionTest(_))));
}
