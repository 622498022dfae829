//! Much output: complete, and without filling the agent's memory.

use std::fmt::Write as _;

use anyhow::Result;
use lictor_tests::{Output, Stack, binary};
use sha2::{Digest as _, Sha256};

use crate::{PATIENCE, ntlm_host};

const BYTES: usize = 200 * 1024 * 1024;
const AGENT_MEMORY_KIB: u64 = 64 * 1024;

#[test]
fn two_hundred_mebibytes_stream_through_complete_and_the_agent_stays_small() -> Result<()> {
    let stack = Stack::start(&[])?;
    let agent = stack.agent("agent-1", &[])?;
    let _windows = ntlm_host(&stack)?;
    let bytes = BYTES.to_string();
    let task_id = stack.submit(&["--host", "127.0.0.1", "--credential", "ntlm", "--", "sim.exe", "bytes", &bytes])?;
    let mut watch = std::process::Command::new(binary("lictor")?);
    watch
        .env("LICTOR_SERVER", format!("https://{}", stack.control_plane.address))
        .env("LICTOR_TOKEN_FILE", stack.control_plane.state.join("admin-token"))
        .env("LICTOR_CA", stack.control_plane.state.join("ca.pem"))
        .args(["task", "watch", &task_id]);
    let output = Output::of(&mut watch, PATIENCE * 10)?;
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(output.stdout.len(), BYTES);
    assert_eq!(Sha256::digest(&output.stdout), expected(BYTES));
    let task = stack.task(&task_id)?;
    assert_eq!(task["state"], "succeeded", "{task:#}");
    assert_eq!(task["result"]["output_truncated"], false, "{task:#}");
    let peak = agent.process.memory_kib("VmHWM")?;
    assert!(peak <= AGENT_MEMORY_KIB, "the agent's memory peaked at {peak} KiB");
    Ok(())
}

/// Digest of what `sim.exe bytes` prints: 64-byte lines, each its number in 63 digits.
fn expected(bytes: usize) -> sha2::digest::Output<Sha256> {
    let mut digest = Sha256::new();
    let mut line = String::new();
    let mut left = bytes;
    for number in 0.. {
        if left == 0 {
            break;
        }
        line.clear();
        let _ = writeln!(line, "{number:063}");
        let take = left.min(line.len());
        digest.update(&line.as_bytes()[..take]);
        left -= take;
    }
    digest.finalize()
}
