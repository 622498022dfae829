//! Many tasks with one secret: AWS is asked once, and a new version disturbs nobody.

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{PASSWORD, USER, Windows, eventually};
use serde_json::json;

use super::Scene;
use crate::PATIENCE;

/// So many hosts; a batch has each of them once.
const HOSTS: usize = 10;

/// Hosts, and the credential `web` for all of them under the secret manager `corp`.
fn hosts(scene: &Scene) -> Result<(Vec<Windows>, String)> {
    let windows = (0..HOSTS).map(|index| scene.host(&format!("win-{index}"))).collect::<Result<Vec<_>>>()?;
    scene.manager_of("corp", "full")?;
    scene.put("web-password", PASSWORD.as_bytes(), &["--manager", "corp"])?;
    let put = ["credential", "put", "web", "--user", USER, "--secret", "web-password"];
    scene.lictor(&[&put[..], &["--auth", "negotiate", "--scheme", "http"]].concat())?;
    let addresses: Vec<String> = windows.iter().map(|windows| format!("127.0.0.1:{}", windows.port)).collect();
    Ok((windows, addresses.join(",")))
}

/// Submits a task for each host.
fn batch(scene: &Scene, hosts: &str, arguments: &[&str]) -> Result<String> {
    let submit = ["task", "submit", "--hosts", hosts, "--credential", "web"];
    Ok(scene.lictor(&[&submit[..], arguments].concat())?.text().trim().to_owned())
}

fn is_finished(scene: &Scene, batch_id: &str) -> Result<bool> {
    Ok(scene.stack.lictor_json(&["batch", "show", batch_id])?["state"] == "finished")
}

/// How many tasks of the batches succeeded, once all have ended.
fn succeeded(scene: &Scene, batches: &[String]) -> Result<u64> {
    let mut sum = 0;
    for batch_id in batches {
        eventually(&format!("batch {batch_id} is finished"), PATIENCE, || {
            ensure!(is_finished(scene, batch_id)?);
            Ok(())
        })?;
        let batch = scene.stack.lictor_json(&["batch", "show", batch_id])?;
        sum += batch["tasks"]["succeeded"].as_u64().with_context(|| format!("{batch:#}"))?;
    }
    Ok(sum)
}

#[test]
fn a_thousand_tasks_with_one_credential_make_one_decrypt_per_agent() -> Result<()> {
    let Some(scene) = Scene::start("moto")? else { return Ok(()) };
    let one = [("LICTOR_AGENT_TAGS", "one"), ("LICTOR_AGENT_SLOTS", "20"), ("LICTOR_AGENT_LOG__LEVEL", "info")];
    let first = scene.agent("agent-1", &one)?;
    let (windows, hosts) = hosts(&scene)?;
    scene.aws.reset()?;
    // Long enough for a crowd to gather.
    scene.aws.rules(&[json!({"action": "kms:Decrypt", "do": "delay", "seconds": 1})])?;
    let hostname = ["--concurrency", "10", "--", "hostname"];
    let batches = (0..100).map(|_| batch(&scene, &hosts, &hostname)).collect::<Result<Vec<_>>>()?;
    assert_eq!(succeeded(&scene, &batches)?, 1000);
    assert_eq!(scene.aws.calls("kms:Decrypt")?, 1);
    let (_, metrics) = first.get("/metrics")?;
    ensure!(metrics.contains("\nagent_kms_decrypts_total 1\n"), "{metrics}");

    // What one agent knows no other does.
    let two = [("LICTOR_AGENT_TAGS", "two"), ("LICTOR_AGENT_SLOTS", "20")];
    let _second = scene.agent("agent-2", &two)?;
    let elsewhere = ["--tag", "two", "--concurrency", "10", "--", "hostname"];
    let batches = (0..3).map(|_| batch(&scene, &hosts, &elsewhere)).collect::<Result<Vec<_>>>()?;
    assert_eq!(succeeded(&scene, &batches)?, 30);
    assert_eq!(scene.aws.calls("kms:Decrypt")?, 2);
    let started: u64 = windows.iter().map(|windows| windows.count("/commands/started")).sum::<Result<u64>>()?;
    assert_eq!(started, 1030);
    let failed: u64 = windows.iter().map(Windows::failed_logons).sum::<Result<u64>>()?;
    assert_eq!(failed, 0);
    Ok(())
}

#[test]
fn new_versions_of_a_secret_under_load_fail_no_task() -> Result<()> {
    let Some(scene) = Scene::start("moto")? else { return Ok(()) };
    let _agent = scene.agent("agent-1", &[("LICTOR_AGENT_SLOTS", "8")])?;
    let (windows, hosts) = hosts(&scene)?;
    let sleep = ["--concurrency", "1", "--", "sim.exe", "sleep", "200"];
    let batches = (0..20).map(|_| batch(&scene, &hosts, &sleep)).collect::<Result<Vec<_>>>()?;
    let last = batches.last().context("a batch")?;
    let mut versions = 1;
    // Eight at once, a fifth of a second each: they take five seconds at least.
    while !is_finished(&scene, last)? {
        scene.put("web-password", PASSWORD.as_bytes(), &["--manager", "corp"])?;
        versions += 1;
    }
    assert_eq!(succeeded(&scene, &batches)?, 200);
    ensure!(versions >= 3, "only {versions} versions were made");
    let shown = scene.stack.lictor_json(&["secret", "show", "web-password"])?;
    assert_eq!(shown["version"], versions, "{shown:#}");
    // A data key for each version that was used, and no more.
    let decrypts = scene.aws.calls("kms:Decrypt")?;
    ensure!((2..=versions).contains(&decrypts), "{decrypts} for {versions} versions");
    let failed: u64 = windows.iter().map(Windows::failed_logons).sum::<Result<u64>>()?;
    assert_eq!(failed, 0);
    Ok(())
}
