//! Diagnoses through control plane and agent: what is well, what is wrong, and that looking harms nobody.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{Direction, PASSWORD, Proxy, Stack, USER, Windows, WindowsOptions, eventually};
use serde_json::Value;

use crate::{FINAL, PATIENCE, basic_host, ntlm_host};

/// What a host that is reached through a session must be able to do.
const LADDER: &[&str] = &["resolve", "connect", "identify", "authenticate", "open_shell", "run", "close"];

fn diagnose(stack: &Stack, arguments: &[&str]) -> Result<Value> {
    let task_id = stack.submit(&[&["--diagnose"], arguments].concat())?;
    stack.task_in(&task_id, FINAL, PATIENCE)
}

fn rung<'a>(task: &'a Value, stage: &str) -> Result<&'a Value> {
    let rungs = task["result"]["rungs"].as_array().context("rungs")?;
    rungs.iter().find(|rung| rung["stage"] == stage).with_context(|| format!("no {stage} in {task:#}"))
}

fn outcomes(task: &Value, wanted: &str) -> Result<Vec<String>> {
    let rungs = task["result"]["rungs"].as_array().context("rungs")?;
    let of = rungs.iter().filter(|rung| rung["outcome"] == wanted).filter_map(|rung| rung["stage"].as_str());
    Ok(of.map(str::to_owned).collect())
}

fn left_alone(windows: &Windows) -> Result<()> {
    eventually("nothing is left on the host", PATIENCE, || {
        ensure!(windows.count("/shells/open")? == 0 && windows.count("/commands/running")? == 0);
        Ok(())
    })
}

#[test]
fn a_healthy_host_passes_and_nothing_is_left_on_it() -> Result<()> {
    let stack = Stack::start(&[])?;
    let _agent = stack.agent("agent-1", &[])?;
    let hosts = [(ntlm_host(&stack)?, "ntlm"), (basic_host(&stack)?, "basic")];
    for (windows, credential) in &hosts {
        let task = diagnose(&stack, &["--host", "localhost", "--credential", credential])?;
        ensure!(task["state"] == "succeeded", "{task:#}");
        ensure!(task["kind"] == "diagnosis" && task["idempotent"] == true, "{task:#}");
        ensure!(outcomes(&task, "failed")?.is_empty() && task["result"]["error"].is_null(), "{task:#}");
        for stage in LADDER {
            ensure!(
                ["passed", "warning"].iter().any(|held| rung(&task, stage).is_ok_and(|r| r["outcome"] == *held)),
                "{stage}: {task:#}"
            );
        }
        left_alone(windows)?;
        ensure!(windows.count("/violation_count")? == 0, "{:#}", windows.statistics()?);
        // As people see it, and as one of many.
        let task_id = task["task_id"].as_str().context("task_id")?;
        for command in ["show", "watch"] {
            let shown = stack.lictor(&["task", command, task_id])?;
            ensure!(shown.code == 0 && shown.text().contains("open_shell"), "{}{}", shown.text(), shown.stderr);
        }
    }
    let ports = [&hosts[0].0.port, &stack.windows("win-c", &WindowsOptions::default())?.port]
        .map(|port| format!("127.0.0.1:{port}"));
    let hosts = ports.join(",");
    let many = ["task", "submit", "--diagnose", "--watch", "--hosts", &hosts, "--credential", "ntlm"];
    let output = stack.lictor(&many)?;
    // The second host went away as soon as it had a port.
    ensure!(output.code == 136, "{}{}", output.text(), output.stderr);
    ensure!(output.text().contains(" passed") && output.text().contains("[connect."), "{}", output.text());
    Ok(())
}

#[test]
fn a_wrong_password_is_tried_once_however_many_look() -> Result<()> {
    let stack = Stack::start(&[])?;
    let _agent = stack.agent("agent-1", &[])?;
    let windows = ntlm_host(&stack)?;
    stack.credential(
        "wrong",
        "not the password",
        &["--auth", "negotiate", "--scheme", "http", "--port", &windows.port],
    )?;
    windows.reset()?;
    let submit = || stack.submit(&["--diagnose", "--host", "127.0.0.1", "--credential", "wrong"]);
    let tasks: Vec<String> = (0..8).map(|_| submit()).collect::<Result<_>>()?;
    let mut looked = 0;
    for task_id in &tasks {
        let task = stack.task_in(task_id, FINAL, PATIENCE)?;
        let code = task["result"]["error"]["code"].as_str().unwrap_or_default();
        ensure!(code.contains("rejected"), "{task:#}");
        if task["state"] == "failed" {
            // Whoever did not log in has looked at all that needs no login.
            ensure!(rung(&task, "authenticate")?["outcome"] != "passed", "{task:#}");
            looked += 1;
        }
    }
    ensure!(looked > 0 && windows.failed_logons()? == 1, "{looked} looked: {:#}", windows.statistics()?);
    left_alone(&windows)
}

#[test]
fn what_is_wrong_is_named_with_its_code_cause_and_remedy() -> Result<()> {
    let stack = Stack::start(&[])?;
    let _agent = stack.agent("agent-1", &[])?;
    let arguments = ["--auth", "ntlm,negotiate", "--deny-user", USER];
    let windows =
        stack.windows("win-a", &WindowsOptions { tls: false, arguments: &arguments, ..WindowsOptions::default() })?;
    stack.credential("ntlm", PASSWORD, &["--auth", "negotiate", "--scheme", "http", "--port", &windows.port])?;
    let denied = diagnose(&stack, &["--host", "127.0.0.1", "--credential", "ntlm"])?;
    ensure!(denied["state"] == "failed", "{denied:#}");
    ensure!(rung(&denied, "authenticate")?["outcome"] == "passed", "{denied:#}");
    ensure!(rung(&denied, "open_shell")?["outcome"] == "failed", "{denied:#}");
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let refused = diagnose(&stack, &["--host", "127.0.0.1", "--port", &port, "--credential", "ntlm"])?;
    ensure!(refused["state"] == "failed", "{refused:#}");
    ensure!(rung(&refused, "connect")?["outcome"] == "failed", "{refused:#}");
    ensure!(rung(&refused, "open_shell")?["outcome"] == "skipped", "{refused:#}");
    for (task, stage, exit) in [(&denied, "open_shell", 126), (&refused, "connect", 122)] {
        let error = &task["result"]["error"];
        ensure!(error["stage"] == stage, "{task:#}");
        for part in ["code", "cause", "remedy", "message"] {
            ensure!(error[part].as_str().is_some_and(|text| !text.is_empty()), "{part} of {task:#}");
        }
        let watch = stack.lictor(&["task", "watch", task["task_id"].as_str().context("task_id")?])?;
        ensure!(watch.code == exit, "{}: {}", watch.code, watch.stderr);
    }
    left_alone(&windows)
}

#[test]
fn a_posture_check_tells_row_by_row_and_leaves_the_host_alone() -> Result<()> {
    let stack = Stack::start(&[])?;
    let _agent = stack.agent("agent-1", &[])?;
    let windows = ntlm_host(&stack)?;
    for without_script in [true, false] {
        let flag: &[&str] = if without_script { &["--without-script"] } else { &[] };
        let submit = [&["--posture", "--host", "127.0.0.1", "--credential", "ntlm"], flag].concat();
        let task_id = stack.submit(&submit)?;
        let task = stack.task_in(&task_id, FINAL, PATIENCE)?;
        ensure!(task["state"] == "succeeded" && task["kind"] == "posture", "{task:#}");
        ensure!(task["without_script"] == without_script && task["idempotent"] == true, "{task:#}");
        let rows = task["result"]["posture_rows"].as_array().context("posture_rows")?;
        ensure!(rows.len() > 5, "{task:#}");
        // It is spoken to over http.
        ensure!(rows.iter().any(|row| row["verdict"] == "fail"), "{task:#}");
        for row in rows {
            ensure!(["pass", "fail", "unknown"].iter().any(|verdict| row["verdict"] == *verdict), "{row:#}");
            ensure!(row["check"].as_str().is_some_and(|check| !check.is_empty()), "{row:#}");
        }
        let shown = stack.lictor(&["task", "show", &task_id])?;
        ensure!(shown.text().contains(" pass, ") && shown.text().contains("VERDICT"), "{}", shown.text());
    }
    left_alone(&windows)?;
    stack.credential("wrong", "not the password", &["--auth", "ntlm", "--scheme", "http", "--port", &windows.port])?;
    windows.reset()?;
    let task_id = stack.submit(&["--posture", "--host", "127.0.0.1", "--credential", "wrong"])?;
    let task = stack.task_in(&task_id, FINAL, PATIENCE)?;
    ensure!(task["state"] == "failed" && task["result"]["error"]["code"] == "auth.rejected", "{task:#}");
    ensure!(windows.failed_logons()? == 1, "{:#}", windows.statistics()?);
    Ok(())
}

#[test]
fn an_agents_policy_counts_for_looking_too() -> Result<()> {
    let stack = Stack::start(&[])?;
    let file = stack.directory().join("policy.toml");
    std::fs::write(&file, "[tasks]\nkinds = [\"command\", \"connection_test\"]\n")?;
    let agent = stack.agent("strict", &[("LICTOR_AGENT_POLICY_FILE", &file.display().to_string())])?;
    let windows = ntlm_host(&stack)?;
    windows.reset()?;
    let task = diagnose(&stack, &["--host", "127.0.0.1", "--credential", "ntlm"])?;
    ensure!(task["state"] == "rejected", "{task:#}");
    ensure!(task["result"]["error"]["code"] == "policy.task_kind", "{task:#}");
    drop(agent);
    // A name whose address is not allowed shows when it is resolved; nothing is connected to.
    std::fs::write(&file, "[hosts]\nallow = [\"10.0.0.0/8\"]\n")?;
    let _agent = stack.agent("other", &[("LICTOR_AGENT_POLICY_FILE", &file.display().to_string())])?;
    let before = windows.count("/connections/opened")?;
    let task = diagnose(&stack, &["--host", "localhost", "--credential", "ntlm"])?;
    ensure!(task["state"] == "failed" && task["result"]["error"]["code"] == "resolve.forbidden", "{task:#}");
    ensure!(windows.count("/connections/opened")? == before, "{:#}", windows.statistics()?);
    Ok(())
}

#[test]
fn an_agent_that_dies_or_drains_while_it_looks_leaves_nothing_unknown() -> Result<()> {
    let stack = Stack::start(&[])?;
    let mut agent = stack.agent("agent-1", &[])?;
    let windows = ntlm_host(&stack)?;
    let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], windows.port.parse()?)))?;
    let port = proxy.address().port().to_string();
    proxy.stall(Direction::Down, true);
    let task_id = stack.submit(&["--diagnose", "--host", "127.0.0.1", "--port", &port, "--credential", "ntlm"])?;
    stack.task_in(&task_id, &["running"], PATIENCE)?;
    eventually("it looks", PATIENCE, || {
        ensure!(proxy.accepted() > 0);
        Ok(())
    })?;
    agent.process.kill()?;
    agent.restart()?;
    stack.task_in(&task_id, &["running"], PATIENCE)?;
    // The agent of before may have been the one that was seen running; its successor has another assignment.
    eventually("it is given out again", PATIENCE, || {
        let task = stack.task(&task_id)?;
        ensure!(task["epoch"].as_u64().is_some_and(|epoch| epoch >= 2) && task["state"] == "running", "{task:#}");
        Ok(())
    })?;
    let cancelled = stack.lictor(&["task", "cancel", &task_id])?;
    ensure!(cancelled.code == 0, "{}", cancelled.stderr);
    let task = stack.task_in(&task_id, FINAL, PATIENCE)?;
    ensure!(task["state"] == "cancelled", "{task:#}");
    proxy.heal();
    left_alone(&windows)
}
