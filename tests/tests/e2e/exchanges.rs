//! What a command costs, counted at the host.

use anyhow::{Context as _, Result};
use lictor_tests::{Stack, eventually};

use crate::{FINAL, PATIENCE, basic_host, ntlm_host};

#[test]
fn a_warm_command_is_one_command_and_one_receive() -> Result<()> {
    let stack = Stack::start(&[])?;
    let _agent = stack.agent("agent-1", &[])?;
    let hosts = [(ntlm_host(&stack)?, "ntlm"), (basic_host(&stack)?, "basic")];
    for (windows, credential) in &hosts {
        let run = || -> Result<serde_json::Value> {
            let task_id = stack.submit(&["--host", "127.0.0.1", "--credential", credential, "--", "hostname"])?;
            let task = stack.task_in(&task_id, FINAL, PATIENCE)?;
            assert_eq!(task["state"], "succeeded", "{task:#}");
            Ok(task)
        };
        let cold = run()?;
        assert_eq!(cold["result"]["connection"]["reused"], false);
        let signalled = |count: u64| {
            eventually("the command is signalled", PATIENCE, || {
                anyhow::ensure!(windows.count("/operations/Signal")? == count, "{:#}", windows.statistics()?);
                Ok(())
            })
        };
        signalled(1)?;
        // Once per host and user, an agent looks whether a killed predecessor left shells behind.
        eventually("the agent looks for orphans", PATIENCE, || {
            anyhow::ensure!(windows.count("/operations/Enumerate")? == 1, "{:#}", windows.statistics()?);
            Ok(())
        })?;
        windows.reset()?;
        let warm = run()?;
        assert_eq!(warm["result"]["connection"]["reused"], true);
        assert_eq!(warm["result"]["exchanges"]["critical"], 2);
        signalled(1)?;
        let statistics = windows.statistics()?;
        let log = statistics["exchanges"].as_array().context("exchanges")?;
        let operations: Vec<_> = log.iter().filter_map(|exchange| exchange["operation"].as_str()).collect();
        assert_eq!(operations, ["Command", "Receive", "Signal"], "{statistics:#}");
        assert_eq!(statistics["authentication"]["legs"], 0, "{statistics:#}");
        assert_eq!(statistics["connections"]["opened"], 0, "{statistics:#}");
        assert_eq!(windows.count("/violation_count")?, 0, "{statistics:#}");
    }
    Ok(())
}

#[test]
fn after_a_thousand_mixed_commands_no_shell_is_open() -> Result<()> {
    let stack = Stack::start(&[])?;
    let mut agent = stack.agent("agent-1", &[])?;
    let windows = ntlm_host(&stack)?;
    // The direct command line drives the larger part through one pool, the agent the rest.
    let password = stack.directory().join("password-ntlm").display().to_string();
    let direct = ["winrm", "run", "--host", "127.0.0.1", "--scheme", "http", "--port", &windows.port, "--user"];
    let options = ["--password-file", &password, "--auth", "negotiate", "--concurrency", "8", "--output", "json"];
    for command in [["hostname"].as_slice(), &["echo", "hi"], &["exit", "/b", "3"], &["sim.exe", "bytes", "100000"]] {
        let arguments = [&direct[..], &[lictor_tests::USER], &options, &["--repeat", "200", "--"], command].concat();
        let output = stack.lictor(&arguments)?;
        assert_eq!(output.code, if command[0] == "exit" { 3 } else { 0 }, "{}", output.stderr);
    }
    let script = stack.directory().join("script.ps1");
    std::fs::write(&script, "Write-Output 'from a script'\nexit 7\n")?;
    let file = ["--file", script.to_str().context("UTF-8")?, "--repeat", "112"];
    let output =
        stack.lictor(&[&["winrm", "script"], &direct[2..], &[lictor_tests::USER], &options, &file].concat())?;
    assert_eq!(output.code, 7, "{}", output.stderr);
    // Stopped in the middle, on the host.
    let slow = ["--repeat", "8", "--timeout", "3s", "--", "sim.exe", "sleep", "600000"];
    let output = stack.lictor(&[&direct[..], &[lictor_tests::USER], &options, &slow].concat())?;
    assert_eq!(output.code, 124, "{}", output.stderr);
    let tasks: Vec<String> = (0..80)
        .map(|n| {
            let code = (n % 3).to_string();
            stack.submit(&["--host", "127.0.0.1", "--credential", "ntlm", "--", "exit", "/b", &code])
        })
        .collect::<Result<_>>()?;
    for task_id in tasks {
        stack.task_in(&task_id, &["succeeded", "failed"], PATIENCE)?;
    }
    agent.process.terminate()?;
    assert_eq!(agent.process.wait(PATIENCE)?.code(), Some(0));
    let statistics = windows.statistics()?;
    assert_eq!(windows.count("/operations/Command")?, 1000, "{statistics:#}");
    assert_eq!(windows.count("/shells/open")?, 0, "{statistics:#}");
    assert_eq!(windows.count("/commands/most_requests_per_id")?, 1, "{statistics:#}");
    assert_eq!(windows.count("/violation_count")?, 0, "{statistics:#}");
    Ok(())
}
