//! Credentials for Kerberos: keytabs as secrets, keytabs and caches on agents, and who gets tasks with them.

use lictor_proto::sealing::Binding;
use lictor_proto::v1::*;
use tonic::Code;

use crate::access::sign_up;
use crate::support::*;

/// As one begins; the rest is a word that occurs nowhere else.
const KEYTAB: &[u8] = b"\x05\x02Mark3r-keytab";

fn credential(name: &str, kind: CredentialSecretKind) -> Credential {
    Credential {
        name: name.into(),
        username: "svc-web@CORP.EXAMPLE".into(),
        connection: Some(ConnectionSettings { auth: AuthKind::Kerberos.into(), ..ConnectionSettings::default() }),
        secret_kind: kind.into(),
        ..Credential::default()
    }
}

fn task(credential: &str) -> TaskSpec {
    TaskSpec { credential: credential.into(), ..command() }
}

fn with_auth(credential: &str, auth: AuthKind) -> TaskSpec {
    let mut spec = task(credential);
    spec.target.get_or_insert_default().connection.get_or_insert_default().set_auth(auth);
    spec
}

#[tokio::test]
async fn a_keytab_is_a_secret_like_a_password() {
    let (server, mut user, agent) = scene(&[]).await;
    let stored = user.put_keytab(credential("svc", CredentialSecretKind::Unspecified), KEYTAB).await.unwrap();
    assert_eq!((stored.version, stored.secret_kind()), (1, CredentialSecretKind::Keytab));
    let mut link = agent.connect_with_keytabs(&server, &[]).await;
    user.submit(task("svc")).await;
    let assignment = link.assignment().await;
    let (task_ref, identity) = (assignment.task.unwrap(), assignment.identity.unwrap());
    assert_eq!(identity.secret_kind(), CredentialSecretKind::Keytab);
    let binding = Binding {
        agent_id: &agent.id,
        task_id: &task_ref.task_id,
        epoch: task_ref.epoch,
        credential: "svc",
        credential_version: 1,
    };
    assert_eq!(agent.sealing_key.open(&assignment.secret.unwrap(), &binding).unwrap().as_slice(), KEYTAB);
    for entry in std::fs::read_dir(server.state_dir()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"Mark3r"));
    }
    // Kept, replaced by the same, by another, by a password: versions count changes of what proves the user.
    let kept = user.put(credential("svc", CredentialSecretKind::Unspecified), None).await.unwrap();
    assert_eq!((kept.version, kept.secret_kind()), (1, CredentialSecretKind::Keytab));
    assert_eq!(user.put_keytab(kept.clone(), KEYTAB).await.unwrap().version, 1);
    assert_eq!(user.put_keytab(kept, b"\x05\x02new").await.unwrap().version, 2);
    let with_password = user.put(credential("svc", CredentialSecretKind::Unspecified), Some("p")).await.unwrap();
    assert_eq!((with_password.version, with_password.secret_kind()), (3, CredentialSecretKind::Password));
    let mut other_realm = credential("svc", CredentialSecretKind::Unspecified);
    let kerberos = KerberosSettings { realm: "OTHER.EXAMPLE".into(), ..KerberosSettings::default() };
    other_realm.connection.as_mut().unwrap().kerberos = Some(kerberos);
    assert_eq!(user.put(other_realm, None).await.unwrap().version, 4, "in another realm it is another user");
}

#[tokio::test]
async fn what_only_kerberos_can_use_is_not_for_other_ways() {
    let (_server, mut user, _agent) = scene(&[]).await;
    user.put_keytab(credential("svc", CredentialSecretKind::Unspecified), KEYTAB).await.unwrap();
    for auth in [AuthKind::Basic, AuthKind::Ntlm] {
        let mut wrong = credential("svc", CredentialSecretKind::Unspecified);
        wrong.connection.as_mut().unwrap().set_auth(auth);
        let status = user.put_keytab(wrong.clone(), KEYTAB).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        // The keytab that is kept counts as well.
        let status = user.put(wrong, None).await.unwrap_err();
        assert!(status.message().contains("connection.auth"), "{status:?}");
        let request = SubmitTaskRequest { spec: Some(with_auth("svc", auth)), idempotency_key: String::new() };
        let status = user.tasks.submit_task(request).await.unwrap_err();
        assert!(status.message().contains("holds no password"), "{status:?}");
    }
}

#[tokio::test]
async fn what_agents_hold_is_for_administrators_of_everything() {
    let (server, mut admin, _agent) = scene(&[]).await;
    let mut of_team = sign_up(&server, &mut admin, "team-admin", Role::Admin, "team").await;
    for kind in [CredentialSecretKind::KeytabOnAgent, CredentialSecretKind::CacheOnAgent] {
        let status = of_team.put(credential("svc", kind), None).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
        let theirs = Credential { scope: "team".into(), ..credential("svc", kind) };
        assert_eq!(admin.put(theirs, None).await.unwrap().secret_kind(), kind);
    }
}

#[tokio::test]
async fn a_kept_secret_is_not_lost_to_another_mode() {
    let (_server, mut user, _agent) = scene(&[]).await;
    let put = |mode: KinitMode| {
        let mut changed = credential("svc", CredentialSecretKind::Unspecified);
        let kerberos = KerberosSettings { kinit_mode: mode.into(), ..KerberosSettings::default() };
        changed.connection.as_mut().unwrap().kerberos = Some(kerberos);
        changed
    };
    user.put_keytab(put(KinitMode::Managed), KEYTAB).await.unwrap();
    let status = user.put(put(KinitMode::Manual), None).await.unwrap_err();
    assert!(status.message().contains("kinit_mode"), "{status:?}");
    let with_path = Credential { agent_path: "/etc/x".into(), ..put(KinitMode::Managed) };
    assert_eq!(user.put(with_path, None).await.unwrap_err().code(), Code::InvalidArgument);
    let kept = user.put(put(KinitMode::Managed), None).await.unwrap();
    assert_eq!((kept.version, kept.secret_kind()), (1, CredentialSecretKind::Keytab));
    // Of a new one it says where the ticket is.
    let new = Credential { name: "new".into(), ..put(KinitMode::Manual) };
    assert_eq!(user.put(new, None).await.unwrap().secret_kind(), CredentialSecretKind::CacheOnAgent);
    assert!(user.put(Credential { name: "new".into(), ..put(KinitMode::Managed) }, None).await.is_err());
}

#[tokio::test]
async fn tasks_go_to_the_agent_that_holds_a_key_of_the_user() {
    let (server, mut user, agent) = scene(&[]).await;
    let (_, token) = user.token(CreateJoinTokenRequest::default()).await;
    let holder = enroll(&server, &token, "a2", &[]).await.unwrap();
    let (_, token) = user.token(CreateJoinTokenRequest::default()).await;
    let old = enroll(&server, &token, "a3", &[]).await.unwrap();
    user.put(credential("svc", CredentialSecretKind::KeytabOnAgent), None).await.unwrap();
    let _without = agent.connect_with_keytabs(&server, &["other@CORP.EXAMPLE"]).await;
    let (_too_old, _) = old.connect(&server, "i1", Vec::new(), 4).await;

    let submitted = user.submit(task("svc")).await;
    let waiting = user.task(&submitted.task_id).await;
    let mut reasons: Vec<(String, String)> =
        waiting.candidates.iter().map(|candidate| (candidate.agent_name.clone(), candidate.code.clone())).collect();
    reasons.sort();
    let expected = [("a1", "missing_keytab"), ("a2", "offline"), ("a3", "missing_capability")];
    assert_eq!(reasons, expected.map(|(name, code)| (name.to_owned(), code.to_owned())));
    let lacking = waiting.candidates.iter().find(|candidate| candidate.code == "missing_keytab").unwrap();
    assert!(lacking.reason.contains("svc-web@CORP.EXAMPLE"), "{}", lacking.reason);

    let mut link = holder.connect_with_keytabs(&server, &["HTTP/x@CORP.EXAMPLE", "svc-web@CORP.EXAMPLE"]).await;
    let assignment = link.assignment().await;
    assert_eq!(assignment.task.unwrap().task_id, submitted.task_id);
    assert!(assignment.secret.is_none(), "the control plane knows none");
    assert_eq!(assignment.identity.unwrap().secret_kind(), CredentialSecretKind::KeytabOnAgent);
}

#[tokio::test]
async fn a_rejection_by_the_kdc_holds_the_version_back() {
    let (server, mut user, agent) = scene(&[]).await;
    user.put_keytab(credential("svc", CredentialSecretKind::Unspecified), KEYTAB).await.unwrap();
    let mut link = agent.connect_with_keytabs(&server, &[]).await;
    for (code, state) in
        [("kerberos.kdc_unreachable", TaskState::Failed), ("kerberos.keytab_rejected", TaskState::Rejected)]
    {
        let submitted = user.submit(task("svc")).await;
        let reference = link.assignment().await.task.unwrap();
        link.started(&reference).await;
        let failure = Failure { stage: "authenticate".into(), code: code.into(), ..Failure::default() };
        let result = TaskResult { outcome: TaskState::Failed.into(), failure: Some(failure), ..TaskResult::default() };
        link.end(&reference, result).await;
        user.until(&submitted.task_id, TaskState::Failed).await;
        let next = user.submit(task("svc")).await;
        if state == TaskState::Rejected {
            user.until(&next.task_id, TaskState::Rejected).await;
        } else {
            let reference = link.assignment().await.task.unwrap();
            link.started(&reference).await;
            link.end(&reference, succeeded(0)).await;
            user.until(&next.task_id, TaskState::Succeeded).await;
        }
    }
}

#[tokio::test]
async fn what_is_on_an_agent_is_not_held_back_for_all() {
    let (server, mut user, agent) = scene(&[]).await;
    user.put(credential("svc", CredentialSecretKind::CacheOnAgent), None).await.unwrap();
    let mut link = agent.connect_with_keytabs(&server, &[]).await;
    for _ in 0..2 {
        let submitted = user.submit(task("svc")).await;
        let reference = link.assignment().await.task.unwrap();
        link.started(&reference).await;
        let failure = Failure { code: "kerberos.keytab_rejected".into(), ..Failure::default() };
        let result = TaskResult { outcome: TaskState::Failed.into(), failure: Some(failure), ..TaskResult::default() };
        link.end(&reference, result).await;
        user.until(&submitted.task_id, TaskState::Failed).await;
    }
}
