//! The link by polls: asked for, and taken up by the agent itself where connections are cut.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{Agent, Stack, eventually};

use crate::{FINAL, PATIENCE, ntlm_host};

/// Lines of the agent's log that say that it connected, by transport.
fn connected(agent: &Agent, transport: &str) -> usize {
    let log = agent.process.log();
    log.lines().filter(|line| line.contains(" Connected ") && line.contains(&format!("\"{transport}\""))).count()
}

#[test]
fn an_agent_that_is_told_to_poll_runs_and_cancels_tasks() -> Result<()> {
    let stack = Stack::start(&[])?;
    let agent = stack.agent("agent-1", &[("POLL_FOR_TASKS", "true")])?;
    let windows = ntlm_host(&stack)?;
    let submit =
        |command: &[&str]| stack.submit(&[&["--host", "127.0.0.1", "--credential", "ntlm", "--"], command].concat());
    let hello = submit(&["echo", "hello-by-poll"])?;
    assert_eq!(stack.task_in(&hello, FINAL, PATIENCE)?["state"], "succeeded");
    let (lines, code) = stack.lictor_streaming(&["task", "watch", &hello])?.finish(PATIENCE)?;
    assert_eq!((lines.join("\n").trim(), code), ("hello-by-poll", 0));
    // More output than one request carries.
    let large = submit(&["sim.exe", "bytes", "5000000"])?;
    let task = stack.task_in(&large, FINAL, PATIENCE)?;
    assert_eq!((&task["state"], &task["output_bytes"]), (&"succeeded".into(), &5_000_000.into()), "{task:#}");

    let long = submit(&["sim.exe", "sleep", "600000"])?;
    eventually("it runs", PATIENCE, || {
        ensure!(windows.count("/commands/running")? == 1);
        Ok(())
    })?;
    // Between polls nothing flaps: whenever one looks, the agent is there.
    for _ in 0..20 {
        assert_eq!(stack.lictor_json(&["agent", "list"])?["agents"][0]["state"], "online");
        assert_eq!(agent.get("/ready")?.0, 200);
    }
    assert_eq!(stack.lictor(&["task", "cancel", &long])?.code, 0);
    stack.task_in(&long, &["cancelled"], PATIENCE)?;
    assert_eq!(windows.count("/commands/running")?, 0);

    assert_eq!((connected(&agent, "poll"), connected(&agent, "stream")), (1, 0));
    let log = stack.control_plane.process.log();
    assert_eq!(log.matches("Agent connected").count(), 1, "once, not per poll");
    Ok(())
}

#[test]
fn an_agent_whose_connections_are_cut_polls_until_they_last_again() -> Result<()> {
    let stack = Stack::start(&[])?;
    let network = Network::start(&stack.control_plane.address)?;
    let server = format!("https://{}", network.address);
    let agent = stack.agent("agent-1", &[("LICTOR_AGENT_CONTROL_PLANE", &server)])?;
    let windows = ntlm_host(&stack)?;
    let run = || -> Result<()> {
        let task = stack.submit(&["--host", "127.0.0.1", "--credential", "ntlm", "--", "hostname"])?;
        let task = stack.task_in(&task, FINAL, PATIENCE)?;
        ensure!(task["state"] == "succeeded", "{task:#}");
        Ok(())
    };
    run()?;
    network.cut(true);
    eventually("the agent polls", PATIENCE, || {
        ensure!(agent.process.log().contains("polling instead"));
        Ok(())
    })?;
    for _ in 0..3 {
        run()?;
    }
    network.cut(false);
    let streams = connected(&agent, "stream");
    eventually("the agent is back on a stream that lasts", PATIENCE * 3, || {
        ensure!(agent.process.log().contains("polling is over") && connected(&agent, "stream") > streams);
        Ok(())
    })?;
    run()?;
    let statistics = windows.statistics()?;
    assert_eq!(statistics["commands"]["started"], 5, "{statistics:#}");
    assert_eq!(statistics["commands"]["most_requests_per_id"], 1, "{statistics:#}");
    Ok(())
}

/// A network between agent and control plane that may cut every connection after a second.
struct Network {
    address: String,
    cutting: Arc<AtomicBool>,
}

impl Network {
    fn start(upstream: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let cutting = Arc::new(AtomicBool::new(false));
        let (upstream, cut) = (upstream.to_owned(), Arc::clone(&cutting));
        // It ends with the process of the test.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (upstream, cut) = (upstream.clone(), Arc::clone(&cut));
                thread::spawn(move || relay(&client, &upstream, &cut));
            }
        });
        Ok(Self { address, cutting })
    }

    fn cut(&self, cutting: bool) {
        self.cutting.store(cutting, Ordering::SeqCst);
    }
}

fn relay(client: &TcpStream, upstream: &str, cutting: &AtomicBool) -> Result<()> {
    let server = TcpStream::connect(upstream).context("the control plane is not there")?;
    let pump = |mut from: TcpStream, mut to: TcpStream| {
        thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        })
    };
    let there = pump(client.try_clone()?, server.try_clone()?);
    let back = pump(server.try_clone()?, client.try_clone()?);
    while !there.is_finished() {
        thread::sleep(Duration::from_secs(1));
        if cutting.load(Ordering::SeqCst) {
            let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
        }
    }
    let _ = (there.join(), back.join());
    Ok(())
}
