//! Enrolment, the session, duplicates, cuts, restarts, cancellation, draining.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lictor_agent::config::{self, Loaded};
use lictor_agent::shutdown::Shutdown;
use lictor_agent::{ExitCode, app};
use lictor_proto::sealing::{Binding, seal};
use lictor_proto::token::JoinToken;
use lictor_proto::v1::{
    Assignment, Cancel, Command, ConnectionSettings, CredentialIdentity, Drain, EndAck, Goodbye, GoodbyeReason,
    HandBackReason, HeldState, Scheme, Target, TaskRef, TaskSpec, TaskState, agent_event, server_event, task_spec,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::Status;

use crate::control_plane::{ControlPlane, LIMIT, Session};

pub(crate) struct Agent {
    pub(crate) running: JoinHandle<Result<(), app::AppError>>,
    pub(crate) shutdown: Shutdown,
}

impl Agent {
    pub(crate) fn start(address: SocketAddr, state_dir: &Path, token: Option<JoinToken>) -> Self {
        let file = state_dir.with_extension("ready");
        let shutdown = Shutdown::default();
        let loaded = loaded(address, state_dir, token);
        Self { running: tokio::spawn(app::run(loaded, Some(file), shutdown.clone())), shutdown }
    }

    async fn ended(self) -> Result<(), ExitCode> {
        let ended = timeout(LIMIT, self.running).await.expect("the agent does not end").unwrap();
        ended.map_err(|error| error.exit_code())
    }

    /// Leaves it as kill -9 would: what it has on disk at this moment is copied to a new state directory.
    pub(crate) fn crash(self, state_dir: &Path) -> tempfile::TempDir {
        let left = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(state_dir).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_file() {
                std::fs::copy(entry.path(), left.path().join(entry.file_name())).unwrap();
            }
        }
        self.running.abort();
        left
    }
}

pub(crate) fn loaded(address: SocketAddr, state_dir: &Path, token: Option<JoinToken>) -> Loaded {
    let environment = [
        ("LICTOR_AGENT_CONTROL_PLANE", format!("https://localhost:{}", address.port())),
        ("LICTOR_AGENT_STATE_DIR", state_dir.display().to_string()),
        ("LICTOR_AGENT_HTTP_LISTEN", "127.0.0.1:0".to_owned()),
        ("LICTOR_AGENT_NAME", "agent".to_owned()),
        ("LICTOR_AGENT_TAGS", "a,b".to_owned()),
        ("LICTOR_AGENT_SLOTS", "2".to_owned()),
        ("LICTOR_AGENT_DRAIN_GRACE", "5s".to_owned()),
    ];
    let mut loaded = config::load(None, environment.map(|(name, value)| (name.to_owned(), value))).unwrap();
    loaded.join_token = token;
    loaded
}

/// A command for the host at `address`, sealed for the agent.
pub(crate) fn assignment(control_plane: &ControlPlane, id: &str, address: SocketAddr) -> Assignment {
    let enrolled = control_plane.shared.enrolled.lock().unwrap();
    let key = &enrolled.as_ref().unwrap().sealing_key;
    let binding = Binding { agent_id: "agent-1", task_id: id, epoch: 1, credential: "c", credential_version: 1 };
    let connection = ConnectionSettings {
        scheme: Scheme::Http.into(),
        port: address.port().into(),
        ..ConnectionSettings::default()
    };
    Assignment {
        task: Some(TaskRef { task_id: id.into(), epoch: 1 }),
        spec: Some(TaskSpec {
            target: Some(Target { host: address.ip().to_string(), connection: Some(connection) }),
            kind: Some(task_spec::Kind::Command(Command { command_line: "whoami".into(), ..Command::default() })),
            ..TaskSpec::default()
        }),
        identity: Some(CredentialIdentity {
            name: "c".into(),
            version: 1,
            username: r"CORP\alice".into(),
            ..CredentialIdentity::default()
        }),
        secret: Some(seal(key, &binding, b"Pa55-Marker").unwrap()),
        ..Assignment::default()
    }
}

/// An address where nothing listens. No other test uses it: a port of 127.0.0.1 that is free now is another's a moment later.
pub(crate) async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.83.0.2:0").await.unwrap().local_addr().unwrap()
}

/// A host that accepts connections and says nothing.
pub(crate) async fn silent_host() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

pub(crate) async fn accepted(session: &mut Session) -> String {
    session
        .until(|event| match event {
            agent_event::Event::Accepted(accepted) => Some(accepted.task.unwrap().task_id),
            _ => None,
        })
        .await
}

async fn hand_back(session: &mut Session) -> HandBackReason {
    session
        .until(|event| match event {
            agent_event::Event::HandBack(hand_back) => Some(hand_back.reason()),
            _ => None,
        })
        .await
}

pub(crate) async fn end(session: &mut Session) -> lictor_proto::v1::TaskResult {
    session
        .until(|event| match event {
            agent_event::Event::End(end) => end.result,
            _ => None,
        })
        .await
}

async fn http_get(address: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Waits for a file that is written by renaming.
async fn ready_file(state_dir: &Path) -> serde_json::Value {
    timeout(LIMIT, async {
        loop {
            if let Ok(text) = std::fs::read_to_string(state_dir.with_extension("ready")) {
                return serde_json::from_str(&text).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("no ready file")
}

#[tokio::test]
async fn enrols_once_connects_and_drains() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let mut control_plane = ControlPlane::start().await;
    let agent = Agent::start(control_plane.address, &state, Some(control_plane.token(None)));
    let (mut session, hello) = control_plane.welcomed(0).await;
    assert!(session.authenticated);
    assert_eq!(
        (hello.slots, hello.tags.as_slice(), hello.protocol),
        (2, ["a".to_owned(), "b".to_owned()].as_slice(), 1)
    );
    let enrolled = control_plane.shared.enrolled.lock().unwrap().clone().unwrap();
    assert_eq!((enrolled.name.as_str(), enrolled.sealing_key.len()), ("agent", 32));
    let ready = ready_file(&state).await;
    assert_eq!(ready["agent_id"], "agent-1");
    let http = ready["http_address"].as_str().unwrap();
    assert!(http_get(http, "/live").await.starts_with("HTTP/1.1 200"));
    assert!(http_get(http, "/ready").await.starts_with("HTTP/1.1 200"));
    assert!(http_get(http, "/metrics").await.contains("agent_link_sessions_total 1"));

    agent.shutdown.request();
    session.closed().await;
    agent.ended().await.unwrap();

    // The identity is kept: no token, no second enrolment.
    let agent = Agent::start(control_plane.address, &state, None);
    let (mut session, _) = control_plane.welcomed(0).await;
    agent.shutdown.request();
    session.closed().await;
    agent.ended().await.unwrap();
    assert_eq!(control_plane.shared.enrolments.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_wrong_pin_ends_before_the_token_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let control_plane = ControlPlane::start().await;
    let agent = Agent::start(control_plane.address, directory.path(), Some(control_plane.token(Some([1; 32]))));
    assert_eq!(agent.ended().await, Err(ExitCode::Pin));
    assert_eq!(control_plane.shared.enrolments.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_refused_or_missing_token_has_its_own_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let control_plane = ControlPlane::start().await;
    *control_plane.shared.refusal.lock().unwrap() = Some(Status::unauthenticated("the join token t is revoked"));
    let agent = Agent::start(control_plane.address, directory.path(), Some(control_plane.token(None)));
    let error = timeout(LIMIT, agent.running).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::Enrolment);
    assert_eq!(error.to_string(), "the control plane refused the join token: the join token t is revoked");
    let agent = Agent::start(control_plane.address, directory.path(), None);
    assert_eq!(agent.ended().await, Err(ExitCode::Enrolment));
}

#[tokio::test]
async fn an_unavailable_control_plane_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let mut control_plane = ControlPlane::start().await;
    *control_plane.shared.refusal.lock().unwrap() = Some(Status::unavailable("starting"));
    let agent = Agent::start(control_plane.address, directory.path(), Some(control_plane.token(None)));
    timeout(LIMIT, async {
        while control_plane.shared.enrolments.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    *control_plane.shared.refusal.lock().unwrap() = None;
    let (mut session, _) = control_plane.welcomed(0).await;
    // An answer may have been lost: with the same keys it is the same enrolment, and does not spend the token again.
    let attempts = control_plane.shared.attempts.lock().unwrap().clone();
    assert!(attempts.len() >= 2 && attempts.iter().all(|keys| *keys == attempts[0]), "{attempts:?}");
    agent.shutdown.request();
    session.closed().await;
    agent.ended().await.unwrap();
}

#[tokio::test]
async fn the_certificate_is_renewed_before_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let mut control_plane = ControlPlane::start().await;
    *control_plane.shared.lifetime.lock().unwrap() = Duration::from_secs(3);
    let agent = Agent::start(control_plane.address, directory.path(), Some(control_plane.token(None)));
    let (mut session, _) = control_plane.welcomed(0).await;
    let keep = tokio::spawn(async move { session.closed().await });
    timeout(LIMIT, async {
        while control_plane.shared.renewals.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    agent.shutdown.request();
    keep.await.unwrap();
    agent.ended().await.unwrap();
    assert_eq!(control_plane.shared.renewals.load(Ordering::SeqCst), 1);
    assert_eq!(control_plane.shared.enrolments.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_ended_certificate_is_replaced_by_token() {
    let directory = tempfile::tempdir().unwrap();
    let mut control_plane = ControlPlane::start().await;
    *control_plane.shared.lifetime.lock().unwrap() = Duration::ZERO;
    let agent = Agent::start(control_plane.address, directory.path(), Some(control_plane.token(None)));
    control_plane.welcomed(0).await.0.cut().await;
    *control_plane.shared.lifetime.lock().unwrap() = Duration::from_secs(3600);
    let (mut session, _) = control_plane.welcomed(0).await;
    assert_eq!(control_plane.shared.enrolments.load(Ordering::SeqCst), 2);
    agent.shutdown.request();
    session.closed().await;
    agent.ended().await.unwrap();
}

#[tokio::test]
async fn an_end_is_repeated_over_cuts_and_restarts_until_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let mut control_plane = ControlPlane::start().await;
    let agent = Agent::start(control_plane.address, directory.path(), Some(control_plane.token(None)));
    let (mut session, _) = control_plane.welcomed(0).await;
    let task = assignment(&control_plane, "t1", closed_port().await);
    session.send(server_event::Event::Assignment(task.clone())).await;
    assert_eq!(accepted(&mut session).await, "t1");
    let first = end(&mut session).await;
    assert_eq!(first.outcome(), TaskState::Failed);
    let failure = first.failure.clone().unwrap();
    assert_eq!((failure.stage.as_str(), failure.may_have_started), ("connect", false));

    // A duplicate is answered, not run.
    session.send(server_event::Event::Assignment(task.clone())).await;
    assert_eq!(end(&mut session).await, first);

    session.cut().await;
    let (mut session, hello) = control_plane.welcomed(0).await;
    assert_eq!(hello.held[0].state(), HeldState::Ended);
    assert_eq!(end(&mut session).await, first);
    drop(session);

    let left = agent.crash(directory.path());
    let agent = Agent::start(control_plane.address, left.path(), None);
    let (mut session, hello) = control_plane.welcomed(0).await;
    assert_eq!(hello.held[0].state(), HeldState::Ended);
    assert_eq!(end(&mut session).await, first);
    session.send(server_event::Event::EndAck(EndAck { task: task.task.clone() })).await;
    session.cut().await;
    let (mut session, hello) = control_plane.welcomed(0).await;
    assert!(hello.held.is_empty());
    agent.shutdown.request();
    session.closed().await;
    agent.ended().await.unwrap();
}

#[tokio::test]
async fn what_was_only_accepted_goes_back_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let host = silent_host().await;
    let mut control_plane = ControlPlane::start().await;
    let agent = Agent::start(control_plane.address, directory.path(), Some(control_plane.token(None)));
    let (mut session, _) = control_plane.welcomed(0).await;
    let task = assignment(&control_plane, "t1", host.local_addr().unwrap());
    session.send(server_event::Event::Assignment(task)).await;
    accepted(&mut session).await;
    let left = agent.crash(directory.path());
    drop(session);
    let agent = Agent::start(control_plane.address, left.path(), None);
    let (mut session, hello) = control_plane.welcomed(0).await;
    assert_eq!(hello.held[0].state(), HeldState::Accepted);
    assert_eq!(hand_back(&mut session).await, HandBackReason::Restarted);
    agent.shutdown.request();
    session.closed().await;
    agent.ended().await.unwrap();
}

#[tokio::test]
async fn a_drain_hands_back_what_has_not_started() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let host = silent_host().await;
    let mut control_plane = ControlPlane::start().await;
    let agent = Agent::start(control_plane.address, &state, Some(control_plane.token(None)));
    let (mut session, _) = control_plane.welcomed(0).await;
    let http = ready_file(&state).await["http_address"].as_str().unwrap().to_owned();
    let task = assignment(&control_plane, "t1", host.local_addr().unwrap());
    session.send(server_event::Event::Assignment(task)).await;
    accepted(&mut session).await;
    session.send(server_event::Event::Drain(Drain { reason: "upgrade".into() })).await;
    let reason = session
        .until(|event| match event {
            agent_event::Event::Draining(draining) => Some(draining.reason),
            _ => None,
        })
        .await;
    assert_eq!(reason, "upgrade");
    assert!(http_get(&http, "/ready").await.contains("503"));
    assert_eq!(hand_back(&mut session).await, HandBackReason::Draining);
    session.closed().await;
    agent.ended().await.unwrap();
}

#[tokio::test]
async fn cancelling_before_the_start_is_a_cancelled_end() {
    let directory = tempfile::tempdir().unwrap();
    let host = silent_host().await;
    let mut control_plane = ControlPlane::start().await;
    let agent = Agent::start(control_plane.address, directory.path(), Some(control_plane.token(None)));
    let (mut session, _) = control_plane.welcomed(0).await;
    let task = assignment(&control_plane, "t1", host.local_addr().unwrap());
    session.send(server_event::Event::Assignment(task.clone())).await;
    accepted(&mut session).await;
    let cancel = Cancel { task: task.task.clone(), reason: "changed my mind".into() };
    session.send(server_event::Event::Cancel(cancel)).await;
    let result = end(&mut session).await;
    assert_eq!(result.outcome(), TaskState::Cancelled);
    assert_eq!(result.failure.unwrap().message, "cancelled: changed my mind");
    agent.running.abort();
}

#[tokio::test]
async fn an_assignment_that_makes_no_sense_goes_back_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut control_plane = ControlPlane::start().await;
    let agent = Agent::start(control_plane.address, directory.path(), Some(control_plane.token(None)));
    let (mut session, _) = control_plane.welcomed(0).await;
    let mut task = assignment(&control_plane, "t1", closed_port().await);
    task.spec.as_mut().unwrap().target = None;
    session.send(server_event::Event::Assignment(task)).await;
    assert_eq!(hand_back(&mut session).await, HandBackReason::Invalid);
    // Sealed for another task.
    let mut task = assignment(&control_plane, "t2", closed_port().await);
    task.task = Some(TaskRef { task_id: "t3".into(), epoch: 1 });
    session.send(server_event::Event::Assignment(task)).await;
    assert_eq!(hand_back(&mut session).await, HandBackReason::Unable);
    agent.running.abort();
}

#[tokio::test]
async fn a_revoked_agent_stops_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let mut control_plane = ControlPlane::start().await;
    let agent = Agent::start(control_plane.address, directory.path(), Some(control_plane.token(None)));
    let (mut session, _) = control_plane.welcomed(0).await;
    let goodbye = Goodbye { reason: GoodbyeReason::Revoked.into(), detail: "stolen".into() };
    session.send(server_event::Event::Goodbye(goodbye)).await;
    assert_eq!(agent.ended().await, Err(ExitCode::Revoked));
}

#[tokio::test]
async fn a_second_request_stops_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut control_plane = ControlPlane::start().await;
    let agent = Agent::start(control_plane.address, directory.path(), Some(control_plane.token(None)));
    let (mut session, _) = control_plane.welcomed(0).await;
    agent.shutdown.request();
    agent.shutdown.request();
    session.closed().await;
    assert_eq!(agent.ended().await, Err(ExitCode::Interrupted));
}

#[tokio::test]
async fn an_agent_that_never_connected_drains_too() {
    let directory = tempfile::tempdir().unwrap();
    let control_plane = ControlPlane::start().await;
    let agent = Agent::start(closed_port().await, directory.path(), Some(control_plane.token(None)));
    agent.shutdown.request();
    agent.ended().await.unwrap();
}

#[tokio::test]
async fn no_secret_reaches_the_state_directory() {
    let directory = tempfile::tempdir().unwrap();
    let mut control_plane = ControlPlane::start().await;
    let token = control_plane.token(None);
    let secret = token.to_text();
    let agent = Agent::start(control_plane.address, directory.path(), Some(token));
    let (mut session, _) = control_plane.welcomed(0).await;
    let task = assignment(&control_plane, "t1", closed_port().await);
    session.send(server_event::Event::Assignment(task)).await;
    end(&mut session).await;
    let mut files = 0;
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            files += 1;
            let bytes = std::fs::read(&path).unwrap();
            for marker in [&b"Pa55-Marker"[..], secret.as_bytes()] {
                assert!(!bytes.windows(marker.len()).any(|window| window == marker), "{}", path.display());
            }
        }
    }
    assert!(files >= 2);
    agent.running.abort();
}
