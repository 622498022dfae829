//! One task for many hosts: so many at once, stopped in time, tried again where that is allowed, and told in one table.

use std::net::TcpListener;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{Agent, PASSWORD, Stack, Windows, WindowsOptions, eventually};
use serde_json::Value;

use crate::PATIENCE;

/// So many hosts, and two agents for them.
fn scene(hosts: usize) -> Result<(Stack, Vec<Agent>, Vec<Windows>)> {
    let stack = Stack::start(&[])?;
    stack.credential("ntlm", PASSWORD, &["--auth", "negotiate", "--scheme", "http"])?;
    let agents = ["agent-1", "agent-2"].map(|name| stack.agent(name, &[("LICTOR_AGENT_SLOTS", "4")]));
    let options = WindowsOptions { tls: false, arguments: &["--auth", "ntlm,negotiate"], ..WindowsOptions::default() };
    let windows = (0..hosts).map(|index| stack.windows(&format!("win-{index}"), &options)).collect::<Result<_>>()?;
    Ok((stack, agents.into_iter().collect::<Result<_>>()?, windows))
}

/// `127.0.0.1` with each host's port.
fn addresses(windows: &[Windows]) -> Vec<String> {
    windows.iter().map(|windows| format!("127.0.0.1:{}", windows.port)).collect()
}

/// An address where nobody listens.
fn nobody() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

fn hosts_file(stack: &Stack, hosts: &[String]) -> Result<String> {
    let path = stack.directory().join("hosts");
    std::fs::write(&path, format!("# all of them\n\n{}\n", hosts.join("\n")))?;
    Ok(path.to_str().context("the path is UTF-8")?.to_owned())
}

fn events(text: &str) -> Result<Vec<Value>> {
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Most tasks of a batch that were with agents at once, by the records of the tasks.
fn most_at_once(stack: &Stack, batch_id: &str) -> Result<usize> {
    let tasks = stack.lictor_json(&["task", "list", "--limit", "1000", "--batch", batch_id])?;
    let mut moments = Vec::new();
    for task in tasks["tasks"].as_array().context("tasks")? {
        if let (Some(from), Some(to)) = (task["assigned_at"].as_str(), task["finished_at"].as_str()) {
            moments.extend([(from.to_owned(), 1), (to.to_owned(), -1)]);
        }
    }
    // Ends come before starts of the same moment: the end is what made room.
    moments.sort();
    let (mut now, mut most) = (0_i64, 0);
    for (_, change) in moments {
        now += change;
        most = most.max(now);
    }
    Ok(usize::try_from(most)?)
}

#[test]
fn many_hosts_two_at_a_time_to_one_table() -> Result<()> {
    let (stack, _agents, windows) = scene(6)?;
    let mut hosts = addresses(&windows);
    hosts.insert(2, nobody()?);
    let file = hosts_file(&stack, &hosts)?;
    let common = ["task", "submit", "--hosts-file", &file, "--credential", "ntlm", "--concurrency", "2"];
    let batch_id =
        stack.lictor(&[&common[..], &["--", "sim.exe", "lines", "3", "100"]].concat())?.text().trim().to_owned();
    let output_dir = stack.directory().join("outputs");
    let output_dir = output_dir.to_str().context("the path is UTF-8")?;
    let watch = stack.lictor_streaming(&["batch", "watch", &batch_id, "--output-dir", output_dir])?;
    // What the hosts themselves see, all along.
    eventually("the batch is finished", PATIENCE, || {
        let running: u64 = windows.iter().map(|windows| windows.count("/commands/running")).sum::<Result<u64>>()?;
        assert!(running <= 2, "{running} commands at once");
        ensure!(stack.lictor_json(&["batch", "show", &batch_id])?["state"] == "finished");
        Ok(())
    })?;
    let (table, code) = watch.finish(PATIENCE)?;
    assert_eq!(code, 136, "{table:?}");
    assert_eq!(table.len(), 8, "{table:?}");
    for (row, host) in table.iter().skip(1).zip(&hosts) {
        let expected = if host == &hosts[2] { "failed" } else { "succeeded" };
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!((cells[0], cells[1]), (host.as_str(), expected), "in the order of the file: {table:?}");
        let says = if host == &hosts[2] { "[connect." } else { "line 1" };
        assert!(row.contains(says), "{row}");
    }
    assert_eq!(most_at_once(&stack, &batch_id)?, 2);
    for windows in &windows {
        assert_eq!(windows.count("/operations/Command")?, 1);
        let name = format!("127.0.0.1_{}.out", windows.port);
        let text = std::fs::read_to_string(stack.directory().join("outputs").join(name))?;
        assert_eq!(text.lines().map(str::trim_end).collect::<Vec<_>>(), ["line 1", "line 2", "line 3"]);
    }
    let seen = stack.lictor(&["--output", "json", "batch", "watch", &batch_id])?;
    let events = events(&seen.text())?;
    assert_eq!((seen.code, events.len()), (136, 8));
    let summary = &events[7];
    assert_eq!((&summary["event"], &summary["batch"]["tasks"]["succeeded"]), (&"summary".into(), &6.into()));
    assert!(events[..7].iter().any(|event| event["task"]["first_line"] == "line 1"), "{events:#?}");

    let good = stack.lictor(
        &[
            &["task", "submit", "--hosts", &addresses(&windows).join(","), "--credential", "ntlm"],
            &["--watch", "--", "hostname"][..],
        ]
        .concat(),
    )?;
    assert_eq!((good.code, good.text().lines().count()), (0, 7), "{}", good.stderr);
    Ok(())
}

#[test]
fn too_many_failures_stop_what_has_not_started() -> Result<()> {
    let (stack, _agents, windows) = scene(3)?;
    let mut hosts = vec![nobody()?, nobody()?];
    hosts.extend(addresses(&windows));
    let file = hosts_file(&stack, &hosts)?;
    let limits = ["--concurrency", "1", "--max-failures", "1", "--watch"];
    let submit = ["--output", "json", "task", "submit", "--hosts-file", &file, "--credential", "ntlm"];
    let output = stack.lictor(&[&submit[..], &limits, &["--", "hostname"]].concat())?;
    assert_eq!(output.code, 136, "{}", output.stderr);
    let events = events(&output.text())?;
    let summary = &events.last().context("a summary")?["batch"];
    assert_eq!(summary["stop"]["code"], "batch.threshold", "{summary:#}");
    assert_eq!((&summary["tasks"]["failed"], &summary["tasks"]["cancelled"]), (&2.into(), &3.into()));
    let cancelled = events.iter().find(|event| event["task"]["state"] == "cancelled").context("cancelled")?;
    assert_eq!(cancelled["task"]["error"]["code"], "batch.threshold");
    for windows in &windows {
        assert_eq!(windows.count("/connections/opened")?, 0, "nothing was started");
    }
    Ok(())
}

#[test]
fn only_what_is_declared_idempotent_is_tried_again() -> Result<()> {
    let (stack, _agents, windows) = scene(2)?;
    let hosts = addresses(&windows).join(",");
    let submit = ["--output", "json", "task", "submit", "--hosts", &hosts, "--credential", "ntlm", "--retries", "1"];
    let command = ["--watch", "--", "sim.exe", "exit", "3"];
    let refused = stack.lictor(&[&submit[..], &command].concat())?;
    assert_eq!(refused.code, 133);
    assert!(refused.stderr.contains("idempotent"), "{}", refused.stderr);
    let output = stack.lictor(&[&submit[..], &["--idempotent"], &command].concat())?;
    assert_eq!(output.code, 136, "{}", output.stderr);
    let events = events(&output.text())?;
    assert_eq!(events.len(), 3);
    for event in &events[..2] {
        assert_eq!((&event["task"]["epoch"], &event["task"]["exit_code"]), (&2.into(), &3.into()), "{event:#}");
    }
    for windows in &windows {
        assert_eq!(windows.count("/operations/Command")?, 2);
    }
    // A wrong password is tried once by each agent at the most, however many tries are left.
    stack.credential("wrong", "Not-The-Password", &["--auth", "negotiate", "--scheme", "http"])?;
    let hosts = addresses(&windows[..1]).join(",");
    let submit = ["task", "submit", "--hosts", &hosts, "--credential", "wrong", "--retries", "5", "--idempotent"];
    assert_eq!(stack.lictor(&[&submit[..], &["--watch", "--", "hostname"]].concat())?.code, 136);
    assert_eq!(windows[0].failed_logons()?, 1);
    Ok(())
}

#[test]
fn a_batch_goes_on_when_the_control_plane_was_killed() -> Result<()> {
    let (mut stack, _agents, windows) = scene(4)?;
    let file = hosts_file(&stack, &addresses(&windows))?;
    let submit = ["task", "submit", "--hosts-file", &file, "--credential", "ntlm", "--concurrency", "2"];
    let watch = stack.lictor_streaming(&[&submit[..], &["--watch", "--", "sim.exe", "lines", "10", "100"]].concat())?;
    eventually("two commands run", PATIENCE, || {
        ensure!(windows.iter().map(|windows| windows.count("/commands/running")).sum::<Result<u64>>()? == 2);
        Ok(())
    })?;
    stack.control_plane.kill()?;
    stack.control_plane.restart()?;
    let (table, code) = watch.finish(PATIENCE * 2)?;
    assert_eq!((code, table.len()), (0, 5), "{table:?}");
    let batches = stack.lictor_json(&["batch", "list"])?;
    let batch_id = batches["batches"][0]["batch_id"].as_str().context("batch_id")?;
    assert_eq!(most_at_once(&stack, batch_id)?, 2);
    for windows in &windows {
        assert_eq!(windows.count("/operations/Command")?, 1);
    }
    Ok(())
}

#[test]
fn ten_thousand_hosts_are_queued_listed_and_cancelled() -> Result<()> {
    let stack = Stack::start(&[])?;
    stack.credential("ntlm", PASSWORD, &[])?;
    let process = &stack.control_plane.process;
    let hosts: Vec<String> = (0..10_000).map(|index| format!("web{index}.corp.example")).collect();
    let file = hosts_file(&stack, &hosts)?;
    let before = process.memory_kib("VmRSS")?;
    let start = Instant::now();
    let submitted =
        stack.lictor(&["task", "submit", "--hosts-file", &file, "--credential", "ntlm", "--", "hostname"])?;
    let (took, after) = (start.elapsed(), process.memory_kib("VmRSS")?);
    assert_eq!(submitted.code, 0, "{}", submitted.stderr);
    let batch_id = submitted.text().trim().to_owned();
    let shown = stack.lictor_json(&["batch", "show", &batch_id])?;
    assert_eq!(shown["tasks"]["waiting"], 10_000, "{shown:#}");
    let listed = stack.lictor_json(&["task", "list", "--batch", &batch_id, "--limit", "10100"])?;
    assert_eq!(listed["tasks"].as_array().context("tasks")?.len(), 10_000);
    let start = Instant::now();
    assert_eq!(stack.lictor(&["batch", "cancel", &batch_id])?.code, 0);
    let seen = stack.lictor(&["--output", "json", "batch", "watch", &batch_id])?;
    let cancelled = start.elapsed();
    assert_eq!((seen.code, seen.text().lines().count()), (136, 10_001));
    let peak = process.memory_kib("VmHWM")?;
    eprintln!(
        "10,000 hosts: submitted in {took:.2?}, {} KiB more resident; cancelled and told in {cancelled:.2?}; peak {peak} KiB",
        after.saturating_sub(before)
    );
    Ok(())
}
