//! Who and what is let in: tokens, credentials, selectors; and that secrets stay secret.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lictor_tests::{Agent, PASSWORD, Stack};

use crate::{FINAL, PATIENCE, ntlm_host};

#[test]
fn expired_revoked_and_malformed_join_tokens_are_refused_by_name() -> Result<()> {
    let stack = Stack::start(&[])?;
    let expired = stack.join_token(&["--lifetime", "1s"])?;
    let revoked = stack.join_token(&[])?;
    let id = revoked.split('.').nth(1).context("token id")?;
    let output = stack.lictor(&["token", "revoke", id])?;
    assert_eq!(output.code, 0, "{}", output.stderr);
    let stranger = Stack::start(&[])?.join_token(&[])?;
    std::thread::sleep(Duration::from_millis(1200));
    let cases = [
        ("expired", expired.as_str(), "expired"),
        ("revoked", revoked.as_str(), "revoked"),
        ("malformed", "not-a-token", "join token"),
        ("stranger", stranger.as_str(), "pin"),
    ];
    for (name, token, word) in cases {
        let mut agent = Agent::spawn(&stack, name, token, &[])?;
        let status = agent.process.wait(PATIENCE)?;
        assert!(!status.success(), "{name}");
        let log = agent.process.log();
        assert!(log.contains(word), "{name} does not say {word:?}:\n{log}");
        assert!(!log.contains(token.rsplit('.').nth(1).unwrap_or("-")) || token == "not-a-token", "{name}:\n{log}");
    }
    let list = stack.lictor_json(&["agent", "list"])?;
    assert_eq!(list["agents"].as_array().map(Vec::len), Some(0), "{list:#}");
    Ok(())
}

#[test]
fn a_revoked_agent_is_out_for_good() -> Result<()> {
    let stack = Stack::start(&[])?;
    let mut agent = stack.agent("agent-1", &[])?;
    let output = stack.lictor(&["agent", "revoke", "agent-1"])?;
    assert_eq!(output.code, 0, "{}", output.stderr);
    let status = agent.process.wait(PATIENCE)?;
    assert!(!status.success());
    assert!(agent.process.log().contains("revoked"), "{}", agent.process.log());
    Ok(())
}

#[test]
fn unknown_credentials_and_selectors_without_an_agent_are_explained() -> Result<()> {
    let stack = Stack::start(&[])?;
    let _one = stack.agent("agent-1", &[("LICTOR_AGENT_TAGS", "linux,site-a")])?;
    let _two = stack.agent("agent-2", &[("LICTOR_AGENT_TAGS", "site-b")])?;
    let _windows = ntlm_host(&stack)?;
    let output = stack.lictor(&["task", "submit", "--host", "h", "--credential", "nobody", "--", "hostname"])?;
    assert_ne!(output.code, 0);
    assert!(output.stderr.contains("nobody"), "{}", output.stderr);

    let task_id = stack.submit(&[
        "--host",
        "127.0.0.1",
        "--credential",
        "ntlm",
        "--tag",
        "site-a",
        "--tag",
        "gpu",
        "--queue-timeout",
        "1s",
        "--",
        "hostname",
    ])?;
    let task = stack.task_in(&task_id, FINAL, PATIENCE)?;
    assert_eq!(task["state"], "rejected", "{task:#}");
    let candidates = task["candidates"].as_array().context("candidates")?;
    assert_eq!(candidates.len(), 2, "{task:#}");
    for candidate in candidates {
        assert_eq!(candidate["code"], "missing_tag", "{task:#}");
        assert!(candidate["reason"].as_str().is_some_and(|reason| reason.contains("gpu")), "{task:#}");
    }
    let shown = stack.lictor(&["task", "show", &task_id])?.text();
    assert!(shown.contains("agent-1") && shown.contains("agent-2") && shown.contains("gpu"), "{shown}");
    Ok(())
}

#[test]
fn users_need_the_right_token_and_the_right_authority() -> Result<()> {
    let stack = Stack::start(&[])?;
    let wrong = stack.directory().join("wrong-token");
    std::fs::write(&wrong, "lictor-user.nobody.AAAA")?;
    let output = stack.lictor(&["task", "list", "--token-file", wrong.to_str().context("UTF-8")?])?;
    assert_eq!(output.code, 132, "{}", output.stderr);
    assert!(output.stderr.contains("token"), "{}", output.stderr);
    let other = stack.certificates.ca.display().to_string();
    let output = stack.lictor(&["task", "list", "--ca", &other])?;
    assert_eq!(output.code, 131, "{}", output.stderr);
    assert!(output.stderr.to_lowercase().contains("certificate"), "{}", output.stderr);
    Ok(())
}

#[test]
fn the_password_is_in_no_log_state_file_or_process_table() -> Result<()> {
    let stack = Stack::start(&[("LICTOR_CONTROL_PLANE_LOG__LEVEL", "trace")])?;
    let agent = stack.agent("agent-1", &[("LICTOR_AGENT_LOG__LEVEL", "trace")])?;
    let _windows = ntlm_host(&stack)?;
    let task_id = stack.submit(&["--host", "127.0.0.1", "--credential", "ntlm", "--", "sim.exe", "sleep", "1500"])?;
    stack.task_in(&task_id, &["running"], PATIENCE)?;
    for process in [&agent.process, &stack.control_plane.process] {
        for file in ["cmdline", "environ"] {
            let bytes = std::fs::read(format!("/proc/{}/{file}", process.pid()))?;
            assert!(!holds_password(&bytes), "{file} of {}", process.pid());
        }
    }
    let task = stack.task_in(&task_id, FINAL, PATIENCE)?;
    assert_eq!(task["state"], "succeeded", "{task:#}");
    let mut searched = 0;
    let mut found = Vec::new();
    search(stack.directory(), &mut |path, bytes| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // The files that the test itself wrote to hand the password over.
        if name.starts_with("password-") || name == "host-password" {
            return;
        }
        searched += 1;
        if holds_password(bytes) {
            found.push(path.display().to_string());
        }
    })?;
    assert!(searched > 5, "only {searched} files were searched");
    assert!(found.is_empty(), "the password is in {found:?}");
    Ok(())
}

fn holds_password(bytes: &[u8]) -> bool {
    let utf16: Vec<u8> = PASSWORD.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let hex: String = PASSWORD.bytes().map(|byte| format!("{byte:02x}")).collect();
    let ascii_part = b"Pa55-Marker";
    let spaced: String = ascii_part.iter().map(|byte| format!("{byte}, ")).collect();
    [ascii_part.as_slice(), &utf16, hex.as_bytes(), spaced.as_bytes()]
        .iter()
        .any(|needle| bytes.windows(needle.len()).any(|window| window == *needle))
}

fn search(directory: &Path, visit: &mut dyn FnMut(&Path, &[u8])) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            search(&path, visit)?;
        } else if path.is_file() {
            visit(&path, &std::fs::read(&path)?);
        }
    }
    Ok(())
}
