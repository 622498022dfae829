//! Values that the control plane never has: they are in no file, log, journal, process table or core of it.

use std::io::{BufRead as _, Read as _, Seek as _, SeekFrom};

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{Kdc, PASSWORD, Process, WindowsOptions};
use serde_json::json;

use super::{Scene, text};
use crate::secrecy::{processes_that_show, search_for};
use crate::{FINAL, PATIENCE};

const TOKEN: &str = "Mark3r-in-secret-environment";
const HOST: &str = "web1.corp.example";

/// Lets the control plane's memory be read as a core has it; its own guard is tested elsewhere.
const READABLE: [(&str, &str); 2] = [("LICTOR_CORE_DUMPS", "allow"), ("LICTOR_CONTROL_PLANE_LOG__LEVEL", "trace")];

fn readable() -> Vec<(&'static str, String)> {
    READABLE.map(|(name, value)| (name, value.to_owned())).to_vec()
}

/// How often each of `needles` is in what the process has in memory, which is what a core would have.
fn in_memory(process: &Process, needles: &[&[u8]]) -> Result<Vec<usize>> {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", process.pid()))?;
    let mut memory = std::fs::File::open(format!("/proc/{}/mem", process.pid()))?;
    let mut found = vec![0; needles.len()];
    let mut searched = 0;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (Some(range), Some(rights)) = (fields.next(), fields.next()) else { continue };
        // The kernel's own pages belong to nobody.
        if !rights.starts_with('r') || line.ends_with("[vvar]") || line.ends_with("[vsyscall]") {
            continue;
        }
        let (from, to) = range.split_once('-').context("a range")?;
        let (from, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        let mut bytes = vec![0; usize::try_from(to - from)?];
        // Mappings come and go while it runs.
        if memory.seek(SeekFrom::Start(from)).is_err() || memory.read_exact(&mut bytes).is_err() {
            continue;
        }
        searched += bytes.len();
        for (count, needle) in found.iter_mut().zip(needles) {
            *count += occurrences(&bytes, needle);
        }
    }
    ensure!(searched > 4 * 1024 * 1024, "only {searched} bytes were searched");
    Ok(found)
}

/// By the standard library's search for a byte, which is fast in builds without optimisation as well.
fn occurrences(mut bytes: &[u8], needle: &[u8]) -> usize {
    let Some((first, rest)) = needle.split_first() else { return 0 };
    let mut found = 0;
    while bytes.skip_until(*first).is_ok_and(|skipped| skipped > 0) {
        found += usize::from(bytes.starts_with(rest));
    }
    found
}

/// Fails when one of `secrets` is in the control plane's memory, as it is or in UTF-16.
fn search_memory(scene: &Scene, when: &str, secrets: &[&[u8]]) -> Result<()> {
    let wide: Vec<Vec<u8>> = secrets
        .iter()
        .filter_map(|secret| std::str::from_utf8(secret).ok())
        .map(|text| text.encode_utf16().flat_map(u16::to_le_bytes).collect())
        .collect();
    // What is certainly there shows that the search finds.
    let known = text(&scene.stack.control_plane.state)?;
    let mut needles = vec![known.as_bytes()];
    needles.extend(secrets);
    needles.extend(wide.iter().map(Vec::as_slice));
    let found = in_memory(&scene.stack.control_plane.process, &needles)?;
    ensure!(found[0] > 0, "the search finds nothing at all");
    ensure!(found[1..].iter().all(|count| *count == 0), "{when}: in the control plane's memory: {found:?}");
    Ok(())
}

#[test]
fn the_search_of_memory_counts_what_is_there() {
    assert_eq!(occurrences(b"xabcabcab", b"abc"), 2);
    assert_eq!(occurrences(b"aab", b"ab"), 1);
    assert_eq!((occurrences(b"", b"a"), occurrences(b"a", b"a"), occurrences(b"ab", b"abc")), (0, 1, 0));
}

#[test]
fn values_under_kms_are_nowhere_but_in_the_agents_memory() -> Result<()> {
    let Some(mut scene) = Scene::start_with("ministack", &json!({}), |_| readable())? else { return Ok(()) };
    let _agent = scene.agent("agent-1", &[("LICTOR_AGENT_LOG__LEVEL", "trace")])?;
    let windows = scene.host("win-a")?;
    scene.manager_of("corp", "full")?;
    scene.web("corp", &windows)?;
    scene.put("token", TOKEN.as_bytes(), &["--manager", "corp"])?;
    // The whole of it, and what is left of it where something cuts at the first letter beyond ASCII.
    let secrets = [PASSWORD.as_bytes(), b"Pa55-Marker", TOKEN.as_bytes()];
    search_memory(&scene, "once they were stored", &secrets)?;

    let with = ["--host", "127.0.0.1", "--credential", "web", "--secret-env", "TOKEN=token"];
    let running = scene.stack.submit(&[&with[..], &["--", "sim.exe", "sleep", "2000"]].concat())?;
    let queued = scene.stack.submit(&[&with[..], &["--tag", "nowhere", "--", "hostname"]].concat())?;
    scene.stack.task_in(&running, &["running"], PATIENCE)?;
    assert_eq!(processes_that_show(&["Pa55-Marker", TOKEN])?, Vec::<String>::new());
    search_for(&scene.stack, "while a task runs", &secrets)?;
    search_memory(&scene, "while a task runs", &secrets)?;
    let printed = scene.stack.submit(&[&with[..], &["--", "cmd /c echo [%TOKEN%]"]].concat())?;
    for task_id in [&running, &printed] {
        let task = scene.stack.task_in(task_id, FINAL, PATIENCE)?;
        assert_eq!(task["state"], "succeeded", "{task:#}");
    }
    assert_eq!(scene.lictor(&["task", "watch", &printed])?.text().trim(), "[***]");
    // A failure on the way quotes nothing either.
    scene.aws.rules(&[json!({"action": "kms:Decrypt", "do": "answer", "status": 200, "body": "{}"})])?;
    scene.web("corp", &windows)?;
    let task = scene.task("web", &["--queue-timeout", "2s", "--", "hostname"])?;
    assert_ne!(task["state"], "succeeded", "{task:#}");
    search_for(&scene.stack, "afterwards", &secrets)?;
    search_memory(&scene, "afterwards", &secrets)?;

    scene.stack.control_plane.kill()?;
    search_for(&scene.stack, "as a crash leaves it", &secrets)?;
    scene.stack.control_plane.restart()?;
    assert_eq!(scene.stack.task(&queued)?["state"], "queued");
    search_for(&scene.stack, "after a restart", &secrets)?;
    search_memory(&scene, "after a restart", &secrets)?;
    Ok(())
}

#[test]
fn a_secret_in_a_tasks_environment_is_masked_and_named_only() -> Result<()> {
    let Some(scene) = Scene::start("moto")? else { return Ok(()) };
    let _agent = scene.agent("agent-1", &[])?;
    let windows = scene.host("win-a")?;
    scene.manager_of("corp", "full")?;
    scene.web("corp", &windows)?;
    let script =
        scene.file("script.ps1", b"$token = $env:TOKEN\nWrite-Output $token.Length\nWrite-Output \"<$token>\"\n")?;
    // Whoever keeps it.
    for manager in ["corp", "built-in"] {
        scene.put("token", TOKEN.as_bytes(), &["--manager", manager])?;
        let task = scene.task("web", &["--secret-env", "TOKEN=token", "--script", &script])?;
        assert_eq!(task["state"], "succeeded", "{task:#}");
        assert_eq!(task["secret_environment"], json!({"TOKEN": "token"}), "{task:#}");
        ensure!(!task.to_string().contains(TOKEN), "{task:#}");
        let task_id = task["task_id"].as_str().context("task_id")?;
        let output = scene.lictor(&["task", "watch", task_id])?.text();
        // The host has all of it, and shows it.
        let lines: Vec<&str> = output.lines().map(str::trim_end).collect();
        assert_eq!(lines, [TOKEN.len().to_string().as_str(), "<***>"], "{output}");
    }
    let submit = ["task", "submit", "--host", "127.0.0.1", "--credential", "web"];
    let said = scene.refused(&[&submit[..], &["--secret-env", "TOKEN=nobody", "--", "hostname"]].concat())?;
    ensure!(said.contains("there is no secret \"nobody\""), "{said}");
    Ok(())
}

#[test]
fn a_keytab_under_kms_gives_tickets_and_is_never_written() -> Result<()> {
    let Some(mut scene) = Scene::start_with("ministack", &json!({}), |_| readable())? else { return Ok(()) };
    let kdc = Kdc::start("CORP.EXAMPLE")?;
    kdc.add_random("alice", &[])?;
    kdc.add_random(&format!("HTTP/{HOST}"), &[])?;
    kdc.map_host(HOST, kdc.realm())?;
    let hosts = kdc.path("host.keytab");
    kdc.keytab(&[&format!("HTTP/{HOST}")], &hosts)?;
    let alice = kdc.path("alice.keytab");
    kdc.keytab(&["alice"], &alice)?;
    let everybody = format!(r"*@{}=CORP\*", kdc.realm());
    let options = WindowsOptions { keytab: Some(&hosts), principals: &[&everybody], ..WindowsOptions::default() };
    let windows = scene.stack.windows("win-a", &options)?;
    let krb5_conf = text(&kdc.krb5_conf())?;
    let variables = [("LICTOR_AGENT_KERBEROS__KRB5_CONF", krb5_conf.as_str()), ("LICTOR_AGENT_LOG__LEVEL", "trace")];
    let _agent = scene.agent("agent-1", &variables)?;
    scene.manager_of("corp", "full")?;
    scene.aws.reset()?;
    let put = ["secret", "put", "alice-keytab", "--kind", "file", "--manager", "corp", "--value-file"];
    let file = text(&alice)?;
    scene.lictor(&[&put[..], &[file.as_str()]].concat())?;
    let user = kdc.principal("alice");
    let put = ["credential", "put", "alice", "--user", &user, "--secret", "alice-keytab", "--auth", "kerberos"];
    let way = ["--scheme", "http", "--port", &windows.port, "--spn-host", HOST];
    scene.lictor(&[&put[..], &way].concat())?;

    for shell in ["A=1", "A=2"] {
        let submit =
            ["--host", "localhost", "--credential", "alice", "--fresh-tickets", "--env", shell, "--", "whoami"];
        let task_id = scene.stack.submit(&submit)?;
        let task = scene.stack.task_in(&task_id, FINAL, PATIENCE)?;
        assert_eq!(task["state"], "succeeded", "{task:#}");
        let output = scene.lictor(&["task", "watch", &task_id])?.text();
        ensure!(output.to_lowercase().contains(r"corp\alice"), "{output}");
    }
    assert_eq!(kdc.as_exchanges(), 2, "{}", kdc.log());
    assert_eq!(scene.aws.calls("kms:Decrypt")?, 1);

    // The last key of the file, which ends with it or with a key version of four bytes.
    let bytes = std::fs::read(&alice)?;
    let end = bytes.len() - 4;
    let key = bytes.get(end - 16..end).context("a key")?;
    search_for(&scene.stack, "while it runs", &[key])?;
    search_memory(&scene, "while it runs", &[key])?;
    scene.stack.control_plane.kill()?;
    search_for(&scene.stack, "as a crash leaves it", &[key])?;
    Ok(())
}
