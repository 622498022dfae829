//! Rolling updates under load: agents and control plane are replaced one after the other, as Kubernetes does it, while tasks
//! flow in. Every task is carried out once, and heard of.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use anyhow::{Result, ensure};
use lictor_tests::{Agent, PASSWORD, Stack, Windows, WindowsOptions, eventually};
use serde_json::Value;

use crate::{FINAL, PATIENCE};

/// Two hosts, and a credential for both.
fn scene() -> Result<(Stack, [Windows; 2])> {
    let stack = Stack::start(&[])?;
    stack.credential("ntlm", PASSWORD, &["--auth", "negotiate", "--scheme", "http"])?;
    let options = WindowsOptions { tls: false, arguments: &["--auth", "ntlm,negotiate"], ..WindowsOptions::default() };
    let windows = [stack.windows("win-a", &options)?, stack.windows("win-b", &options)?];
    Ok((stack, windows))
}

/// Submits one piece of work after the other until told to stop; the control plane may be away meanwhile.
struct Feeder<'a> {
    stack: &'a RwLock<Stack>,
    windows: &'a [Windows; 2],
    stop: &'a AtomicBool,
}

impl Feeder<'_> {
    /// Returns every mark, and on how many hosts it must be found once.
    fn run(&self) -> Result<Vec<(String, usize)>> {
        let mut submitted = Vec::new();
        for number in 0_usize.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let mark = format!("m{number}");
            // Most are short; some outlast the replacement of an agent, none its grace.
            let work = match number % 5 {
                0 => "sim.exe lines 20 300",
                1 => "sim.exe bytes 200000",
                2 => "sim.exe sleep 1500",
                _ => "sim.exe lines 3 50",
            };
            let hosts = if number % 3 == 0 { 2 } else { 1 };
            self.submit(number, &mark, &format!("sim.exe mark {mark}&& {work}"), hosts)?;
            submitted.push((mark, hosts));
        }
        Ok(submitted)
    }

    /// Until it is taken. The key keeps from being taken twice what was taken when the answer got lost.
    fn submit(&self, number: usize, mark: &str, command: &str, hosts: usize) -> Result<()> {
        let ports = [&self.windows[number % 2].port, &self.windows[(number + 1) % 2].port];
        let both = format!("127.0.0.1:{},127.0.0.1:{}", ports[0], ports[1]);
        let target: &[&str] =
            if hosts == 2 { &["--hosts", &both] } else { &["--host", "127.0.0.1", "--port", ports[0]] };
        let what = ["--credential", "ntlm", "--idempotency-key", mark, "--", command];
        let arguments = [&["task", "submit"], target, &what].concat();
        eventually("the submission is taken", PATIENCE, || {
            let stack = self.stack.read().map_err(|_| anyhow::anyhow!("the test has failed"))?;
            let output = stack.lictor(&arguments)?;
            ensure!(output.code == 0, "{}", output.stderr);
            Ok(())
        })
    }
}

/// With a start script, as pods of delegates have one.
const ENVIRONMENT: &[(&str, &str)] = &[("LICTOR_AGENT_SLOTS", "4"), ("INIT_SCRIPT", "export ROLLED=yes\n")];

fn agent(stack: &RwLock<Stack>, name: &str) -> Result<Agent> {
    stack.read().unwrap_or_else(PoisonError::into_inner).agent(name, ENVIRONMENT)
}

/// SIGTERM, and the next process once it has ended.
fn replace_control_plane(stack: &RwLock<Stack>) -> Result<()> {
    stack.read().unwrap_or_else(PoisonError::into_inner).control_plane.process.terminate()?;
    let mut stack = stack.write().unwrap_or_else(PoisonError::into_inner);
    ensure!(stack.control_plane.process.wait(PATIENCE)?.success());
    stack.control_plane.restart()
}

/// What every update must leave behind.
fn judge(stack: &Stack, windows: &[Windows; 2], submitted: &[(String, usize)]) -> Result<()> {
    let expected: usize = submitted.iter().map(|(_, hosts)| hosts).sum();
    let tasks = eventually("every task has ended", PATIENCE * 2, || {
        let list = stack.lictor_json(&["task", "list", "--limit", "1000"])?;
        let tasks = list["tasks"].as_array().cloned().unwrap_or_default();
        let ended = |task: &&Value| FINAL.contains(&task["state"].as_str().unwrap_or_default());
        ensure!(tasks.iter().filter(ended).count() == tasks.len());
        Ok(tasks)
    })?;
    assert_eq!(tasks.len(), expected, "submitted and not there, or there twice");
    for task in &tasks {
        assert_eq!(task["state"], "succeeded", "{task:#}");
    }
    let marks = [windows[0].statistics()?, windows[1].statistics()?];
    for (mark, hosts) in submitted {
        let found: Vec<u64> = marks.iter().filter_map(|statistics| statistics["marks"][mark].as_u64()).collect();
        assert_eq!(found, vec![1; *hosts], "{mark} was carried out on its hosts so often");
    }
    for windows in windows {
        assert_eq!(windows.count("/commands/running")?, 0);
    }
    Ok(())
}

#[test]
fn no_task_is_lost_while_agents_and_control_plane_are_replaced_under_load() -> Result<()> {
    let (stack, windows) = scene()?;
    let stack = RwLock::new(stack);
    let stop = AtomicBool::new(false);
    let feeder = Feeder { stack: &stack, windows: &windows, stop: &stop };
    let submitted = std::thread::scope(|scope| {
        let mut old = vec![agent(&stack, "pod-1")?, agent(&stack, "pod-2")?];
        let feeding = scope.spawn(|| feeder.run());
        let rolled = (|| {
            // A Deployment: the successor is ready before its predecessor is asked to go. Nobody waits for the latter.
            let mut new = Vec::new();
            for (index, old) in old.iter().enumerate() {
                new.push(agent(&stack, &format!("pod-{}", index + 3))?);
                old.process.terminate()?;
                if index == 0 {
                    replace_control_plane(&stack)?;
                }
            }
            for old in &mut old {
                assert_eq!(old.process.wait(PATIENCE)?.code(), Some(0));
            }
            // A StatefulSet: in place, on the state that the predecessor left.
            for agent in &mut new {
                agent.process.terminate()?;
                assert_eq!(agent.process.wait(PATIENCE)?.code(), Some(0));
                agent.restart()?;
                agent.wait_connected()?;
            }
            replace_control_plane(&stack)?;
            for agent in &mut new {
                eventually("the agent is back", PATIENCE, || {
                    ensure!(agent.get("/ready")?.0 == 200);
                    Ok(())
                })?;
            }
            anyhow::Ok(new)
        })();
        stop.store(true, Ordering::Relaxed);
        let submitted = feeding.join().expect("the feeder does not panic")?;
        let agents = rolled?;
        assert!(submitted.len() >= 20, "not much of a load: {}", submitted.len());
        judge(&stack.read().expect("the feeder is gone"), &windows, &submitted)?;
        drop(agents);
        anyhow::Ok(submitted)
    })?;
    // All of it under the one administrator, none of it given up.
    let stack = stack.into_inner()?;
    let list = stack.lictor_json(&["task", "list", "--state", "unknown"])?;
    assert_eq!(list["tasks"].as_array().map(Vec::len), Some(0), "of {}: {list:#}", submitted.len());
    Ok(())
}

/// `terminationGracePeriodSeconds` is over before the drain is: what runs goes on on its host, and the successor on the same
/// state follows it to its real end. What had not started goes to somebody else.
#[test]
fn an_agent_that_is_killed_in_its_drain_leaves_its_tasks_to_its_successor() -> Result<()> {
    let (stack, windows) = scene()?;
    let mut agent = stack.agent("pod-1", &[("LICTOR_AGENT_SLOTS", "2"), ("LICTOR_AGENT_DRAIN_GRACE", "10m")])?;
    let submit = |mark: &str, work: &str| {
        let command = format!("sim.exe mark {mark}&& {work}");
        let host = ["task", "submit", "--host", "127.0.0.1", "--port", &windows[0].port, "--credential", "ntlm", "--"];
        let task = stack.lictor_json(&[&host[..], &[&command]].concat())?;
        anyhow::Ok(task["task_id"].as_str().unwrap_or_default().to_owned())
    };
    let long = [submit("long-1", "sim.exe lines 60 200")?, submit("long-2", "sim.exe lines 60 200")?];
    eventually("both run", PATIENCE, || {
        ensure!(windows[0].count("/commands/running")? == 2);
        Ok(())
    })?;
    // No slot is free for it.
    let waiting = submit("waits", "sim.exe lines 1 1")?;
    agent.process.terminate()?;
    eventually("the agent drains", PATIENCE, || {
        ensure!(stack.lictor_json(&["agent", "list"])?["agents"][0]["state"] == "draining");
        Ok(())
    })?;
    agent.process.kill()?;
    agent.restart()?;
    for task_id in &long {
        let task = stack.task_in(task_id, FINAL, PATIENCE)?;
        assert_eq!((&task["state"], &task["result"]["exit_code"]), (&"succeeded".into(), &0.into()), "{task:#}");
        // What the killed process had read and not yet handed over is missing, and the result says so.
        assert_eq!(task["result"]["output_gap"], true, "{task:#}");
    }
    assert_eq!(stack.task_in(&waiting, FINAL, PATIENCE)?["state"], "succeeded");
    let marks = &windows[0].statistics()?["marks"];
    for mark in ["long-1", "long-2", "waits"] {
        assert_eq!(marks[mark], 1, "{marks:#}");
    }
    Ok(())
}

/// A task that outlasts `drain_grace` is ended on its host, with a result that says why; a successor has nothing to do with it.
#[test]
fn a_task_longer_than_the_grace_ends_with_its_reason_and_the_others_go_on() -> Result<()> {
    let (stack, windows) = scene()?;
    let submit = |mark: &str, work: &str| {
        let command = format!("sim.exe mark {mark}&& {work}");
        let host = ["task", "submit", "--host", "127.0.0.1", "--port", &windows[0].port, "--credential", "ntlm", "--"];
        let task = stack.lictor_json(&[&host[..], &[&command]].concat())?;
        anyhow::Ok(task["task_id"].as_str().unwrap_or_default().to_owned())
    };
    let mut old = stack.agent("pod-1", &[("LICTOR_AGENT_SLOTS", "1"), ("LICTOR_AGENT_DRAIN_GRACE", "1s")])?;
    let long = submit("long", "sim.exe sleep 600000")?;
    eventually("it runs", PATIENCE, || {
        ensure!(windows[0].count("/commands/running")? == 1);
        Ok(())
    })?;
    let next = submit("next", "sim.exe lines 1 1")?;
    let _new = stack.agent("pod-2", &[])?;
    old.process.terminate()?;
    let task = stack.task_in(&long, FINAL, PATIENCE)?;
    assert_eq!((&task["state"], &task["result"]["error"]["code"]), (&"cancelled".into(), &"agent.drained".into()));
    assert_eq!(stack.task_in(&next, FINAL, PATIENCE)?["state"], "succeeded");
    assert_eq!(old.process.wait(PATIENCE)?.code(), Some(0));
    let marks = &windows[0].statistics()?["marks"];
    assert_eq!((&marks["long"], &marks["next"]), (&1.into(), &1.into()), "{marks:#}");
    assert_eq!(windows[0].count("/commands/running")?, 0);
    Ok(())
}
