//! The previous version's contract, spoken by programs that know nothing else and share no code with ours: an agent against our
//! control plane, a control plane against our agent. `tests/peers/previous-contract` has both.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{Agent, Output, PASSWORD, Stack, Streaming, USER, eventually};
use serde_json::{Value, json};

use crate::{PATIENCE, ntlm_host};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The image that is the predecessor of what this is.
fn image() -> Result<PathBuf> {
    let version: Vec<&str> = env!("CARGO_PKG_VERSION").split('.').collect();
    let minor: u32 = version[1].parse()?;
    Ok(here(&format!("../proto/baseline/{}.{}.json", version[0], minor - 1)))
}

/// A script of the peer; none when its interpreter is not there and need not be.
fn peer(script: &str) -> Option<Command> {
    let Some(python) = std::env::var_os("LICTOR_PEERS_PYTHON") else {
        let required = std::env::var("LICTOR_PEERS").is_ok_and(|value| value == "required");
        assert!(
            !required,
            "LICTOR_PEERS is required, but LICTOR_PEERS_PYTHON names no interpreter with the peer's packages"
        );
        return None;
    };
    let mut command = Command::new(python);
    command.arg(here("peers/previous-contract").join(script));
    Some(command)
}

fn written(directory: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = directory.join(name);
    std::fs::write(&path, text)?;
    Ok(path)
}

#[test]
fn an_agent_of_the_previous_contract_gets_its_tasks_done() -> Result<()> {
    let Some(mut peer) = peer("agent.py") else { return Ok(()) };
    let stack = Stack::start(&[])?;
    let windows = ntlm_host(&stack)?;
    let spec = json!({
        "target": { "host": "127.0.0.1" },
        "credential": "ntlm",
        "command": { "commandLine": "hostname" },
    });
    // What only the present version knows waits for somebody who can do it, and comes to nobody else.
    let diagnosis = stack.submit(&["--host", "127.0.0.1", "--credential", "ntlm", "--diagnose"])?;
    let state = &stack.control_plane.state;
    let (directory, token) = (stack.directory(), stack.join_token(&[])?);
    peer.arg(image()?)
        .arg(&stack.control_plane.address)
        .arg(state.join("ca.pem"))
        .arg(written(directory, "token", &token)?)
        .arg(state.join("admin-token"))
        .arg(written(directory, "secret", PASSWORD)?)
        .arg(written(directory, "spec.json", &spec.to_string())?);
    let output = Output::of(&mut peer, PATIENCE * 2)?;
    ensure!(output.code == 0, "{}\n{}\n{}", output.text(), output.stderr, stack.control_plane.process.log());
    let told = output.json()?;
    for task_id in told["tasks"].as_array().context("tasks")? {
        // Our own command line sees them as the peer did.
        let task = stack.task(task_id.as_str().context("an id")?)?;
        assert_eq!((&task["state"], &task["result"]["exit_code"]), (&"succeeded".into(), &0.into()), "{task:#}");
    }
    let agents = stack.lictor_json(&["agent", "list"])?;
    assert_eq!((&agents["agents"][0]["version"], &agents["agents"][0]["degraded"]), (&"0.1.0".into(), &json!([])));
    let waits = stack.task(&diagnosis)?;
    assert_eq!((&waits["state"], &waits["epoch"]), (&"queued".into(), &0.into()), "{waits:#}");
    assert_eq!(windows.count("/operations/Command")?, 0, "the peer makes its output up");
    Ok(())
}

#[test]
fn an_agent_of_ours_serves_a_control_plane_of_the_previous_contract() -> Result<()> {
    let Some(mut peer) = peer("control_plane.py") else { return Ok(()) };
    // Of this stack the hosts and the files are wanted, and the way to start agents.
    let mut stack = Stack::start(&[])?;
    let windows = ntlm_host(&stack)?;
    let secret = written(stack.directory(), "secret", PASSWORD)?;
    peer.arg(image()?).arg(USER).arg(secret).arg(&windows.port);
    let peer = Streaming::start(&mut peer)?;
    let told: Value = serde_json::from_str(&peer.line(PATIENCE)?)?;
    let text = |value: &Value| value.as_str().map(str::to_owned).context("a text");
    let ours = std::mem::replace(&mut stack.control_plane.address, text(&told["address"])?);
    let mut agent = Agent::spawn(&stack, "agent-1", &text(&told["token"])?, &[])?;
    agent.wait_connected()?;
    let told: Value = serde_json::from_str(&peer.line(PATIENCE * 2).context(agent.process.log())?)?;
    stack.control_plane.address = ours;

    assert_eq!(told["over"], true, "{told:#}");
    let result = &told["result"];
    assert_eq!(result["outcome"], "TASK_STATE_SUCCEEDED", "{told:#}");
    // Left out by protobuf's JSON when it is zero, were it not optional.
    assert_eq!((&result["exitCode"], &result["outputGap"]), (&0.into(), &Value::Null), "{told:#}");
    let lines: Vec<String> = (1..=20).map(|n| format!("line {n}")).collect();
    assert_eq!(text(&told["output"])?.lines().collect::<Vec<_>>(), lines, "{told:#}");
    assert_eq!(windows.count("/operations/Command")?, 1);
    let hellos = told["hello"].as_array().context("hellos")?;
    assert_eq!(hellos.len(), 2, "{told:#}");
    assert_eq!(hellos[1]["held"][0]["state"], "HELD_STATE_RUNNING", "{told:#}");
    eventually("nothing is left on the host", PATIENCE, || {
        ensure!(windows.count("/commands/running")? == 0);
        Ok(())
    })
}
