//! How soon it is noticed that somebody has died, with the settings as they are by default.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lictor_tests::{Proxy, Stack, eventually};

use crate::{FINAL, PATIENCE, ntlm_host};

/// A lease, and five seconds for everything else.
const NOTICED: Duration = Duration::from_secs(35);

/// `docs/operations.md` quotes the times that this prints.
#[test]
fn a_dead_agent_is_noticed_however_it_died() -> Result<()> {
    let stack = Stack::start(&[])?;
    let windows = ntlm_host(&stack)?;
    let server: SocketAddr = stack.control_plane.address.parse()?;
    let deaths = ["kill -9", "SIGSTOP", "black hole"];
    let mut agents = Vec::new();
    for (index, death) in deaths.into_iter().enumerate() {
        let name = format!("agent-{index}");
        let link = Proxy::start(server)?;
        let address = format!("https://{}", link.address());
        let environment = [("LICTOR_AGENT_CONTROL_PLANE", address.as_str()), ("LICTOR_AGENT_TAGS", name.as_str())];
        let agent = stack.agent(&name, &environment)?;
        let host = ["--host", "127.0.0.1", "--credential", "ntlm", "--tag", &name];
        let task = stack.submit(&[&host[..], &["--", "sim.exe", "sleep", "600000"]].concat())?;
        stack.task_in(&task, &["running"], PATIENCE)?;
        agents.push((death, name, agent, link, task));
    }
    let mut times: Vec<(Instant, Option<Duration>, Option<Duration>)> = Vec::new();
    for (death, _, agent, link, _) in &mut agents {
        match *death {
            "kill -9" => agent.process.kill()?,
            "SIGSTOP" => signal("-STOP", agent.process.pid())?,
            _ => link.black_hole(true),
        }
        times.push((Instant::now(), None, None));
    }
    eventually("all three are noticed", NOTICED + PATIENCE, || {
        let list = stack.lictor_json(&["agent", "list"])?;
        let list = list.as_array().or_else(|| list["agents"].as_array()).context("agents")?;
        for ((_, name, _, _, task), (died, offline, lost)) in agents.iter().zip(&mut times) {
            let gone = list.iter().any(|agent| agent["name"] == name.as_str() && agent["state"] == "offline");
            if gone {
                offline.get_or_insert_with(|| died.elapsed());
            }
            if lost.is_none() && stack.task(task)?["state"] == "lost" {
                *lost = Some(died.elapsed());
            }
        }
        anyhow::ensure!(times.iter().all(|(_, offline, lost)| offline.is_some() && lost.is_some()), "{times:?}");
        Ok(())
    })?;
    for ((death, ..), (_, offline, lost)) in agents.iter().zip(&times) {
        let (offline, lost) = (offline.context("offline")?, lost.context("lost")?);
        println!("{death}: the agent is offline after {offline:.1?}, its task is lost after {lost:.1?}");
        anyhow::ensure!(offline.max(lost) <= NOTICED, "{death}: {offline:?}, {lost:?}");
    }
    // Whoever comes back takes up its tasks: nothing was lost by the silence.
    let (mut killed, mut back) = (None, Vec::new());
    for (death, _, mut agent, link, task) in agents {
        match death {
            "kill -9" => killed = Some((agent.restart(), agent, task)),
            "SIGSTOP" => {
                signal("-CONT", agent.process.pid())?;
                back.push((agent, link, task));
            }
            _ => {
                link.heal();
                back.push((agent, link, task));
            }
        }
    }
    for (_, _, task) in &back {
        stack.task_in(task, &["running"], PATIENCE)?;
        stack.lictor(&["task", "cancel", task])?;
        stack.task_in(task, &["cancelled"], PATIENCE)?;
    }
    let (restarted, _agent, task) = killed.context("one was killed")?;
    restarted?;
    stack.lictor(&["task", "cancel", &task])?;
    stack.task_in(&task, FINAL, PATIENCE)?;
    eventually("no command goes on", PATIENCE, || {
        anyhow::ensure!(windows.count("/commands/running")? <= 1, "{:#}", windows.shells()?);
        Ok(())
    })
}

fn signal(signal: &str, pid: u32) -> Result<()> {
    let status = Command::new("kill").args([signal, &pid.to_string()]).status()?;
    anyhow::ensure!(status.success(), "kill {signal} {pid} failed");
    Ok(())
}
