//! The audit log: complete, chained, append-only, without secrets.

use lictor_proto::v1::*;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::support::*;

fn parsed(entries: &[String]) -> Vec<Value> {
    entries.iter().map(|entry| serde_json::from_str(entry).unwrap()).collect()
}

/// Every line holds the hash of the one before, and none is missing.
fn check_chain(entries: &[String]) {
    let mut previous = "0".repeat(64);
    for (index, (text, entry)) in entries.iter().zip(parsed(entries)).enumerate() {
        assert_eq!(entry["seq"], index + 1, "{text}");
        assert_eq!(entry["previous"], previous, "{text}");
        previous = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    }
}

#[tokio::test]
async fn the_log_tells_the_whole_story_without_secrets() {
    let (server, mut user, agent) = scene(&[]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 2).await;
    let script = Script { text: "echo marker-script".into(), language: 1, ..Script::default() };
    let task = user.submit(TaskSpec { kind: Some(task_spec::Kind::Script(script)), ..command() }).await;
    let assignment = link.assignment().await.task.unwrap();
    link.started(&assignment).await;
    link.output(&assignment, 0, &b"marker-output"[..]).await;
    link.end(&assignment, succeeded(13)).await;
    user.until(&task.task_id, TaskState::Succeeded).await;
    let (token, text) = user.issue("admin", None).await.unwrap();
    let revoke = RevokeUserTokenRequest { token_id: token.token_id.clone() };
    user.access.revoke_user_token(revoke).await.unwrap();
    user.credentials.delete_credential(DeleteCredentialRequest { name: "web".into() }).await.unwrap();
    let drain = DrainAgentRequest { agent: "a1".into(), reason: "a \"reason\"\nof two lines".into() };
    user.fleet.drain_agent(drain).await.unwrap();
    let revoke = RevokeAgentRequest { agent: "a1".into(), reason: String::new() };
    user.fleet.revoke_agent(revoke).await.unwrap();

    let entries = user.audit().await;
    check_chain(&entries);
    let all = parsed(&entries);
    let told: Vec<&str> = all.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(
        told,
        [
            "user.created",
            "user_token.issued",
            "credential.stored",
            "join_token.created",
            "agent.enrolled",
            "task.submitted",
            "task.assigned",
            "task.finished",
            "user_token.issued",
            "user_token.revoked",
            "credential.deleted",
            "agent.drained",
            "agent.revoked",
            "audit.exported",
        ]
    );
    let submitted = &all[5];
    assert_eq!(submitted["actor"]["name"], "admin");
    assert_eq!(submitted["actor"]["source"], "127.0.0.1");
    assert_eq!(submitted["object"]["id"], task.task_id);
    assert_eq!(submitted["details"]["host"], "web1.corp.example");
    let assigned = &all[6];
    assert_eq!(assigned["details"]["agent_id"], agent.id);
    assert_eq!(assigned["details"]["credential"], "web");
    assert_eq!(assigned["details"]["credential_version"], 1);
    assert_eq!(assigned["details"]["username"], "CORP\\alice");
    assert_eq!(all[7]["outcome"], "succeeded");
    assert_eq!(all[7]["actor"]["agent_id"], agent.id);
    assert_eq!(all[11]["details"]["reason"], "a \"reason\"of two lines");
    let log = entries.join("\n");
    let admin_token = std::fs::read_to_string(server.state_dir().join("admin-token")).unwrap();
    for secret in [PASSWORD, "marker-script", "marker-output", text.as_str(), admin_token.as_str()] {
        assert!(!log.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn the_chain_goes_on_after_a_restart_and_a_crash() {
    let (server, mut user, _agent) = scene(&[]).await;
    user.submit(command()).await;
    let before = user.audit().await;
    let server = server.restart().await;
    server.user().await.submit(command()).await;
    let server = server.crash_and_restart().await;
    let after = server.user().await.audit().await;
    check_chain(&after);
    assert_eq!(after[..before.len()], before);
    assert!(after.len() > before.len() + 1);
}

#[tokio::test]
async fn the_database_refuses_to_change_the_log() {
    let (server, mut user, _agent) = scene(&[]).await;
    let before = user.audit().await;
    let path = server.state_dir().join("control-plane.db");
    let mut database = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    for statement in [
        "UPDATE audit SET line = '{}' WHERE seq = 1",
        "DELETE FROM audit WHERE seq = 1",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit (seq, at, line) VALUES (1, 0, '{}')",
        "INSERT INTO audit (seq, at, line) VALUES (1000, 0, '{}')",
        "INSERT INTO audit (seq, at, line) VALUES (0, 0, '{}')",
        "UPDATE OR REPLACE audit SET seq = 2 WHERE seq = 1",
    ] {
        let error = sqlx::query(statement).execute(&mut database).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{statement}: {error}");
    }
    database.close().await.unwrap();
    assert_eq!(user.audit().await[..before.len()], before);
}

#[tokio::test]
async fn an_export_follows_and_is_bounded_by_time() {
    let (server, mut user, _agent) = scene(&[]).await;
    let mut other = server.user().await;
    let now = prost_types::Timestamp::from(std::time::SystemTime::now());
    let earlier =
        ExportAuditRequest { to: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }), ..Default::default() };
    let mut stream = user.access.export_audit(earlier).await.unwrap().into_inner();
    assert!(within(stream.message()).await.unwrap().is_none());
    let request = ExportAuditRequest { from: Some(now), follow: true, ..Default::default() };
    let mut stream = user.access.export_audit(request).await.unwrap().into_inner();
    let first = within(stream.message()).await.unwrap().unwrap().entries;
    assert!(first.iter().all(|entry| entry.contains("audit.exported")), "{first:?}");
    let task = other.submit(command()).await;
    let next = within(stream.message()).await.unwrap().unwrap().entries;
    assert!(next[0].contains("task.submitted") && next[0].contains(&task.task_id), "{next:?}");
    other.cancel(&task.task_id).await;
    let mut rest = Vec::new();
    while rest.len() < 2 {
        rest.extend(within(stream.message()).await.unwrap().unwrap().entries);
    }
    assert!(rest[0].contains("task.cancel_requested") && rest[0].contains("enough"), "{rest:?}");
    assert!(rest[1].contains("task.finished") && rest[1].contains("\"cancelled\""), "{rest:?}");
}
