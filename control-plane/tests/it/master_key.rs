//! Master keys replaced while everything runs: by the program's own command, under load, with lists that are wrong, after a crash.

use std::path::Path;
use std::process::Command as Program;

use lictor_proto::v1::*;
use rustix::process::{Signal, getpid, kill_process};
use tokio::time::sleep;

use crate::support::*;

/// Runs the program on the state, with the settings that matter here.
fn run(state_dir: &Path, arguments: &[&str]) -> String {
    let output = Program::new(env!("CARGO_BIN_EXE_lictor-control-plane"))
        .args(arguments)
        .env("LICTOR_CONTROL_PLANE_STATE_DIR", state_dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The server looks at the file now.
fn hang_up() {
    kill_process(getpid(), Signal::HUP).unwrap();
}

/// Waits until the metrics hold this line.
async fn until_metric(server: &Server, line: &str) {
    let mut last = String::new();
    let shown = tokio::time::timeout(DEADLINE, async {
        loop {
            last = get(server, "/metrics").await;
            if last.lines().any(|found| found == line) {
                return;
            }
            sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    assert!(shown.await.is_ok(), "{line} in {last}");
}

async fn until_all_moved(server: &Server, current: u64) {
    until_metric(server, &format!("control_plane_master_key_records{{key=\"current\"}} {current}")).await;
    until_metric(server, "control_plane_master_key_records{key=\"replaced\"} 0").await;
    until_metric(server, "control_plane_master_key_records{key=\"missing\"} 0").await;
}

/// The ids of the keys in their order, as `master-key-status` shows them, with what it says of each.
fn status(state_dir: &Path) -> Vec<serde_json::Value> {
    serde_json::from_str(&run(state_dir, &["master-key-status", "--output", "json"])).unwrap()
}

#[tokio::test]
async fn a_key_is_replaced_under_load_and_nobody_notices() {
    let (server, mut user, agent) = scene(&[]).await;
    for number in 0..150 {
        user.put_secret(secret(&format!("s{number}")), Some(b"before")).await.unwrap();
        user.put_credential(&format!("c{number}")).await;
    }
    until_metric(&server, "control_plane_master_key_refused_state 0").await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1000).await;
    let before = user.submit(command()).await;
    let first = link.assignment().await;
    let state_dir = server.state_dir().to_owned();
    let mut other = server.user().await;
    // Tasks are handed out and secrets are stored all the while.
    let load = tokio::spawn(async move {
        for number in 0..60 {
            let task = other.submit(command()).await;
            let assignment = link.assignment().await;
            assert!(assignment.secret.is_some(), "{task:?}");
            link.end(&assignment.task.unwrap(), succeeded(0)).await;
            let stored = other.put_secret(secret(&format!("s{number}")), Some(b"after")).await.unwrap();
            assert_eq!(stored.version, 2);
        }
        (link, other)
    });
    for _ in 0..3 {
        run(&state_dir, &["rotate-master-key"]);
        hang_up();
        sleep(std::time::Duration::from_millis(50)).await;
    }
    let (mut link, _) = load.await.unwrap();
    link.end(&first.task.unwrap(), succeeded(0)).await;
    hang_up();
    // 151 credentials, 210 versions.
    let keys = status(&state_dir);
    assert_eq!(keys.len(), 4);
    let server = server.restart().await;
    until_all_moved(&server, 361).await;
    let mut user = server.user().await;
    assert_eq!(user.until(&before.task_id, TaskState::Succeeded).await.spec.unwrap().credential, "web");
    let keys = status(server.state_dir());
    assert_eq!((&keys[0]["credentials"], &keys[0]["secret_versions"]), (&151.into(), &210.into()), "{keys:?}");
    assert_eq!(keys[0]["state"], "current");
    // What the tasks hold is under the first key still.
    assert!(keys[3]["needed"] == true && keys[3]["tasks"].as_u64() > Some(0), "{keys:?}");
    let text = run(server.state_dir(), &["master-key-status"]);
    assert!(text.contains("still needed") && text.contains("encrypts everything new"), "{text}");
    let audit = user.audit().await;
    assert!(audit.iter().any(|line| line.contains("master_key.replaced")));
}

#[tokio::test]
async fn a_key_that_is_still_needed_is_not_given_up() {
    let (server, mut user, agent) = scene(&[]).await;
    user.put_secret(secret("s"), Some(b"value")).await.unwrap();
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 10).await;
    let task = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    link.end(&reference, succeeded(0)).await;
    let file = server.state_dir().join("master-key");
    let old = std::fs::read_to_string(&file).unwrap();
    // Another key alone: everything is under the one that is missing.
    std::fs::remove_file(&file).unwrap();
    hang_up();
    until_metric(&server, "control_plane_master_key_refused_state 1").await;
    std::fs::write(&file, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
    hang_up();
    std::fs::write(&file, "nonsense").unwrap();
    hang_up();
    user.put_secret(secret("s"), Some(b"another")).await.unwrap();
    assert!(user.task(&task.task_id).await.spec.is_some());
    std::fs::write(&file, &old).unwrap();
    hang_up();
    until_metric(&server, "control_plane_master_key_refused_state 0").await;
    // Behind a new one it is only needed for the task.
    run(server.state_dir(), &["rotate-master-key"]);
    let both = std::fs::read_to_string(&file).unwrap();
    assert!(both.ends_with(&old) && both.len() > old.len());
    hang_up();
    until_all_moved(&server, 3).await;
    until_current(&server, &status(server.state_dir())[0]).await;
    let new = both.lines().next().unwrap();
    std::fs::write(&file, new).unwrap();
    hang_up();
    until_metric(&server, "control_plane_master_key_refused_state 1").await;
    assert!(user.task(&task.task_id).await.spec.is_some(), "the key from before stays in use");
    // In the wrong order they all open, and the records go back.
    std::fs::write(&file, format!("{old}\n{new}\n")).unwrap();
    hang_up();
    until_metric(&server, "control_plane_master_key_refused_state 0").await;
    until_current(&server, &status(server.state_dir())[0]).await;
    let server = server.restart().await;
    let mut user = server.user().await;
    assert!(user.task(&task.task_id).await.spec.is_some());
    assert_eq!(user.put_secret(secret("s"), Some(b"another")).await.unwrap().version, 2, "it opens, and is the same");
}

/// Waits until everything is under the key.
async fn until_current(server: &Server, key: &serde_json::Value) {
    assert_eq!(key["state"], "current");
    within(async {
        loop {
            let keys = status(server.state_dir());
            let elsewhere = keys.iter().filter(|other| other["key_id"] != key["key_id"]);
            if elsewhere
                .map(|key| key["credentials"].as_u64().unwrap() + key["secret_versions"].as_u64().unwrap())
                .sum::<u64>()
                == 0
            {
                return;
            }
            sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_that_nothing_is_under_may_go() {
    let server = Server::start(&[]).await;
    let mut user = server.user().await;
    user.put_secret(secret("s"), Some(b"value")).await.unwrap();
    let file = server.state_dir().join("master-key");
    run(server.state_dir(), &["rotate-master-key"]);
    hang_up();
    until_current(&server, &status(server.state_dir())[0]).await;
    assert!(run(server.state_dir(), &["master-key-status"]).contains("may be taken off the list"));
    let both = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, both.lines().next().unwrap()).unwrap();
    let server = server.restart().await;
    let mut user = server.user().await;
    assert_eq!(user.put_secret(secret("s"), Some(b"value")).await.unwrap().version, 1, "it opens, and is the same");
    let keys = status(server.state_dir());
    assert_eq!(keys.len(), 1, "{keys:?}");
}
