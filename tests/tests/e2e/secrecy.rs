//! A secret handed over in any way is found in no log, file, process table or core.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use lictor_tests::{PASSWORD, Process, Stack, binary, eventually};

use crate::{FINAL, PATIENCE, ntlm_host};

const SCRIPT: &str = "Mark3r-in-script";
const ENVIRONMENT: &str = "Mark3r-in-environment";
const INPUT: &str = "Mark3r-in-input";
const PASSWORD_PART: &str = "Pa55-Marker";

#[test]
fn secrets_of_tasks_and_credentials_are_in_no_log_state_file_or_process_table() -> Result<()> {
    let mut stack = Stack::start(&[("LICTOR_CONTROL_PLANE_LOG__LEVEL", "trace")])?;
    let agent = stack.agent("agent-1", &[("LICTOR_AGENT_LOG__LEVEL", "trace")])?;
    let _windows = ntlm_host(&stack)?;
    // Set aside, so that the search need not know which of these files the test itself wrote.
    let own = tempfile::tempdir()?;
    let script = own.path().join("script.ps1");
    std::fs::write(&script, format!("$secret = '{SCRIPT}'\nStart-Sleep -Seconds 2\nWrite-Output $secret.Length\n"))?;
    let input = own.path().join("input");
    std::fs::write(&input, INPUT)?;
    let (script, input) = (script.to_str().context("UTF-8")?, input.to_str().context("UTF-8")?);
    let variable = format!("SECRET={ENVIRONMENT}");
    let target = ["--host", "127.0.0.1", "--credential", "ntlm", "--env", &variable];
    let scripted = stack.submit(&[&target[..], &["--script", script]].concat())?;
    let fed = stack.submit(&[&target[..], &["--stdin", input, "--", "sim.exe", "sleep", "1000"]].concat())?;
    let queued = stack.submit(&[&target[..], &["--tag", "nowhere", "--script", script]].concat())?;
    stack.task_in(&scripted, &["running"], PATIENCE)?;
    assert_eq!(processes_that_show(&[SCRIPT, INPUT, ENVIRONMENT, PASSWORD_PART])?, Vec::<String>::new());
    search(&stack, "while it runs")?;
    for task_id in [&scripted, &fed] {
        let task = stack.task_in(task_id, FINAL, PATIENCE)?;
        assert_eq!(task["state"], "succeeded", "{task:#}");
    }
    search(&stack, "afterwards")?;
    stack.control_plane.kill()?;
    search(&stack, "with the write-ahead log as a crash leaves it")?;
    stack.control_plane.restart()?;
    assert_eq!(stack.task(&queued)?["state"], "queued");
    search(&stack, "after a restart")?;
    drop(agent);
    Ok(())
}

/// Command lines and environments of everything that runs, but for the shells and runners above this test.
pub(crate) fn processes_that_show(markers: &[&str]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        for file in ["cmdline", "environ"] {
            // Processes come and go, and some are not ours to read.
            let Ok(bytes) = std::fs::read(path.join(file)) else { continue };
            if markers.iter().any(|marker| holds(&bytes, marker)) {
                found.push(format!("{}/{file}", path.display()));
            }
        }
    }
    Ok(found)
}

fn search(stack: &Stack, when: &str) -> Result<()> {
    search_for(stack, when, &[SCRIPT, ENVIRONMENT, INPUT, PASSWORD_PART].map(str::as_bytes))
}

/// Fails when one of the secrets is in any file that the installation has written.
pub(crate) fn search_for(stack: &Stack, when: &str, secrets: &[&[u8]]) -> Result<()> {
    let mut searched = 0;
    let mut found = Vec::new();
    visit(stack.directory(), &mut |path, bytes| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // The files that hand the password over, and the Windows host's own log.
        if name.starts_with("password-") || name == "host-password" || name.starts_with("win-") {
            return;
        }
        searched += 1;
        for (index, secret) in secrets.iter().enumerate() {
            if holds_bytes(bytes, secret) {
                found.push(format!("secret {index} in {}", path.display()));
            }
        }
    })?;
    assert!(searched > 5, "only {searched} files were searched");
    assert!(found.is_empty(), "{when}: {found:#?}");
    Ok(())
}

/// In the forms in which it may have been written: text, UTF-16, base64 at any alignment, hexadecimal, lists of bytes.
fn holds(bytes: &[u8], marker: &str) -> bool {
    holds_bytes(bytes, marker.as_bytes())
}

fn holds_bytes(bytes: &[u8], marker: &[u8]) -> bool {
    use base64::Engine as _;
    let text = std::str::from_utf8(marker).unwrap_or_default();
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let hex: String = marker.iter().map(|byte| format!("{byte:02x}")).collect();
    let list: String = marker.iter().map(|byte| format!("{byte}, ")).collect();
    let mut needles = vec![marker.to_vec(), hex.into_bytes(), list.trim_end_matches(", ").into()];
    for plain in [marker, &utf16].into_iter().filter(|plain| !plain.is_empty()) {
        for skip in 0..3 {
            // Whole groups of three bytes look the same wherever they stand.
            let whole = &plain[skip..];
            let whole = &whole[..whole.len() / 3 * 3];
            needles.push(base64::engine::general_purpose::STANDARD.encode(whole).into_bytes());
        }
    }
    if !utf16.is_empty() {
        needles.push(utf16);
    }
    needles.iter().any(|needle| bytes.windows(needle.len()).any(|window| window == needle.as_slice()))
}

fn visit(directory: &Path, look: &mut dyn FnMut(&Path, &[u8])) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            visit(&path, look)?;
        } else if path.is_file() {
            look(&path, &std::fs::read(&path)?);
        }
    }
    Ok(())
}

#[test]
fn the_search_finds_what_is_there() {
    use base64::Engine as _;
    let utf16: Vec<u8> = SCRIPT.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes).into_bytes();
    for text in [format!("x{SCRIPT}"), format!("{:?}", SCRIPT.as_bytes()), SCRIPT.to_owned()] {
        assert!(holds(text.as_bytes(), SCRIPT), "{text}");
        assert!(holds(&base64(text.as_bytes()), SCRIPT) || text.starts_with('['), "{text}");
    }
    assert!(holds(&utf16, SCRIPT) && holds(&base64(&utf16), SCRIPT));
    assert!(!holds(PASSWORD.as_bytes(), SCRIPT));
}

#[test]
fn neither_program_leaves_a_core_unless_it_is_told_to() -> Result<()> {
    for (name, directory) in [("lictor-control-plane", tempfile::tempdir()?), ("lictor-agent", tempfile::tempdir()?)] {
        for allowed in [false, true] {
            let log = directory.path().join("log");
            // As an operator would who wants cores: no bound from outside.
            let mut command = Command::new("/bin/sh");
            command
                .args(["-c", "ulimit -c unlimited 2>/dev/null; exec \"$0\" run"])
                .arg(binary(name)?)
                .current_dir(directory.path())
                .env("LICTOR_CONTROL_PLANE_LISTEN", "127.0.0.1:0")
                .env("LICTOR_CONTROL_PLANE_HTTP_LISTEN", "127.0.0.1:0")
                .env("LICTOR_AGENT_HTTP_LISTEN", "127.0.0.1:0")
                .env("LICTOR_AGENT_CONTROL_PLANE", "https://127.0.0.1:1")
                .env("LICTOR_AGENT_JOIN_TOKEN", join_token())
                .env("LICTOR_CORE_DUMPS", if allowed { "allow" } else { "" })
                .process_group(0);
            let mut process = Process::start(name, &mut command, &log)?;
            let word = if name == "lictor-agent" { "Starting" } else { "Control plane ready" };
            eventually("it runs", PATIENCE, || {
                anyhow::ensure!(process.log().contains(word), "{}", process.log());
                Ok(())
            })?;
            let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.pid()))?;
            let cores = limits.lines().find(|line| line.starts_with("Max core file size")).context("no such limit")?;
            let forbidden = cores.split_whitespace().nth(4) == Some("0");
            process.signal("ABRT")?;
            let status = process.wait(PATIENCE)?;
            assert_eq!(status.signal(), Some(6), "{status}\n{}", process.log());
            if allowed {
                // Where the machine itself forbids cores, there is nothing to compare with.
                assert_eq!(status.core_dumped(), !forbidden, "{name}: {cores}");
            } else {
                assert!(forbidden, "{name}: {cores}");
                assert!(!status.core_dumped(), "{name} left a core");
                let files: Vec<_> = std::fs::read_dir(directory.path())?.filter_map(Result::ok).collect();
                let core = files.iter().find(|file| file.file_name().to_string_lossy().starts_with("core"));
                assert!(core.is_none(), "{core:?}");
            }
            std::fs::remove_file(&log)?;
        }
    }
    Ok(())
}

/// A well-formed token of a control plane that is not there.
fn join_token() -> String {
    let part = |length: usize| "A".repeat(length);
    format!("lictor-join.{}.{}.{}", uuid::Uuid::nil(), part(43), part(43))
}
