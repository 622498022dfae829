//! Each failure that the agent itself makes, by its code.

use std::path::Path;

use lictor_agent::app;
use lictor_agent::shutdown::Shutdown;
use lictor_proto::sealing::{Binding, seal};
use lictor_proto::v1::{
    Assignment, AuthKind, Cancel, CredentialSecretKind, Drain, Failure, HandBackReason, SealedSecret, TaskRef,
    agent_event, server_event,
};

use crate::behaviour::{Agent, accepted, assignment, closed_port, end, loaded, silent_host};
use crate::control_plane::{ControlPlane, Session};

/// An agent that knows the realm CORP.EXAMPLE, whose KDC is not there, and holds no keytab.
fn start(control_plane: &ControlPlane, directory: &Path) -> Agent {
    let krb5_conf = directory.join("krb5.conf");
    let text = "[libdefaults]\n dns_lookup_kdc = false\n[realms]\n CORP.EXAMPLE = {\n  kdc = 127.0.0.1:1\n }\n";
    std::fs::write(&krb5_conf, text).unwrap();
    let mut loaded = loaded(control_plane.address, &directory.join("state"), Some(control_plane.token(None)));
    loaded.config.kerberos.krb5_conf = Some(krb5_conf);
    let shutdown = Shutdown::default();
    Agent { running: tokio::spawn(app::run(loaded, None, shutdown.clone())), shutdown }
}

async fn handed_back(session: &mut Session) -> (HandBackReason, Failure) {
    session
        .until(|event| match event {
            agent_event::Event::HandBack(hand_back) => {
                Some((hand_back.reason(), hand_back.failure.unwrap_or_default()))
            }
            _ => None,
        })
        .await
}

/// With Kerberos, and with a secret of this kind at this place of the agent.
fn with_kerberos(mut task: Assignment, username: &str, kind: CredentialSecretKind, path: &str) -> Assignment {
    let target = task.spec.as_mut().unwrap().target.as_mut().unwrap();
    // There is no ticket for an address.
    target.host = "localhost".into();
    target.connection.as_mut().unwrap().auth = AuthKind::Kerberos.into();
    let identity = task.identity.as_mut().unwrap();
    identity.username = username.into();
    identity.secret_kind = kind.into();
    identity.agent_path = path.into();
    if kind != CredentialSecretKind::Password {
        task.secret = None;
    }
    task
}

/// A secret for the agent and this assignment.
fn sealed(control_plane: &ControlPlane, id: &str, epoch: u64, secret: &[u8]) -> SealedSecret {
    let enrolled = control_plane.shared.enrolled.lock().unwrap();
    let key = &enrolled.as_ref().unwrap().sealing_key;
    let binding = Binding { agent_id: "agent-1", task_id: id, epoch, credential: "c", credential_version: 1 };
    seal(key, &binding, secret).unwrap()
}

#[tokio::test]
async fn what_cannot_be_done_is_handed_back_by_its_code() {
    let directory = tempfile::tempdir().unwrap();
    let mut control_plane = ControlPlane::start().await;
    let agent = start(&control_plane, directory.path());
    let (mut session, _) = control_plane.welcomed(0).await;
    let host = closed_port().await;
    let alice = "alice@CORP.EXAMPLE";
    use CredentialSecretKind as Kind;
    use HandBackReason::{Invalid, Unable};
    type Change = fn(Assignment) -> Assignment;
    let cases: [(&str, HandBackReason, Change); 7] = [
        ("agent.invalid_task", Invalid, |mut task| {
            task.spec.as_mut().unwrap().target = None;
            task
        }),
        // Of a newer control plane, with a kind that is not known here.
        ("agent.unsupported", Unable, |mut task| {
            task.spec.as_mut().unwrap().kind = None;
            task
        }),
        // Sealed for another task.
        ("secret.unsealable", Unable, |mut task| {
            task.identity.as_mut().unwrap().version = 2;
            task
        }),
        ("kerberos.keytab_not_permitted", Unable, |task| {
            with_kerberos(task, "alice@CORP.EXAMPLE", Kind::KeytabOnAgent, "/etc/krb5.keytab")
        }),
        ("kerberos.no_key", Unable, |task| with_kerberos(task, "alice@CORP.EXAMPLE", Kind::KeytabOnAgent, "")),
        ("kerberos.cache_not_permitted", Unable, |task| {
            with_kerberos(task, "alice@CORP.EXAMPLE", Kind::CacheOnAgent, "FILE:/etc/passwd")
        }),
        ("kerberos.no_realm", Unable, |task| with_kerberos(task, r"OTHER\alice", Kind::Password, "")),
    ];
    for (number, (code, reason, change)) in cases.into_iter().enumerate() {
        let task = change(assignment(&control_plane, &format!("t{number}"), host));
        session.send(server_event::Event::Assignment(task)).await;
        let (given, failure) = handed_back(&mut session).await;
        assert_eq!((failure.code.as_str(), given), (code, reason), "{failure:?}");
        assert!(!failure.cause.is_empty() && !failure.remedy.is_empty(), "{failure:?}");
    }
    let mut task = assignment(&control_plane, "t-bytes", host);
    task.secret = Some(sealed(&control_plane, "t-bytes", 1, &[0xff, 0xfe]));
    session.send(server_event::Event::Assignment(task)).await;
    let (given, failure) = handed_back(&mut session).await;
    assert_eq!((failure.code.as_str(), given), ("secret.not_text", Invalid), "{failure:?}");
    // Kerberos itself: the realm is known, its KDC is not there.
    let silent = silent_host().await;
    let task =
        with_kerberos(assignment(&control_plane, "t-kdc", silent.local_addr().unwrap()), alice, Kind::Password, "");
    session.send(server_event::Event::Assignment(task)).await;
    let failure = end(&mut session).await.failure.unwrap();
    assert_eq!(failure.code, "kerberos.kdc_unreachable", "{failure:?}");
    agent.running.abort();
}

#[tokio::test]
async fn what_becomes_of_tasks_that_were_held_is_told_by_its_code() {
    let directory = tempfile::tempdir().unwrap();
    let host = silent_host().await;
    let address = host.local_addr().unwrap();
    let mut control_plane = ControlPlane::start().await;
    let agent = start(&control_plane, directory.path());
    let (mut session, _) = control_plane.welcomed(0).await;

    // The older assignment comes after the newer one.
    let older = assignment(&control_plane, "t1", address);
    let mut newer = older.clone();
    newer.task = Some(TaskRef { task_id: "t1".into(), epoch: 2 });
    newer.secret = Some(sealed(&control_plane, "t1", 2, b"Pa55-Marker"));
    session.send(server_event::Event::Assignment(newer.clone())).await;
    session.send(server_event::Event::Assignment(older)).await;
    let failure = session
        .until(|event| match event {
            agent_event::Event::HandBack(back) if back.task.as_ref().is_some_and(|task| task.epoch == 1) => {
                back.failure
            }
            _ => None,
        })
        .await;
    assert_eq!(failure.code, "agent.stale_assignment", "{failure:?}");

    let cancelled = assignment(&control_plane, "t2", address);
    session.send(server_event::Event::Assignment(cancelled.clone())).await;
    accepted(&mut session).await;
    let cancel = Cancel { task: cancelled.task.clone(), reason: "changed my mind".into() };
    session.send(server_event::Event::Cancel(cancel)).await;
    let failure = end(&mut session).await.failure.unwrap();
    assert_eq!(failure.code, "agent.cancelled", "{failure:?}");

    let waiting = assignment(&control_plane, "t3", address);
    session.send(server_event::Event::Assignment(waiting)).await;
    accepted(&mut session).await;
    session.send(server_event::Event::Drain(Drain { reason: "upgrade".into() })).await;
    let (reason, failure) = handed_back(&mut session).await;
    assert_eq!((failure.code.as_str(), reason), ("agent.draining", HandBackReason::Draining), "{failure:?}");
    agent.running.abort();
}

#[tokio::test]
async fn a_restart_before_the_start_is_told_by_its_code() {
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
    let (mut session, _) = control_plane.welcomed(0).await;
    let (reason, failure) = handed_back(&mut session).await;
    assert_eq!((failure.code.as_str(), reason), ("agent.restarted", HandBackReason::Restarted), "{failure:?}");
    agent.running.abort();
}
