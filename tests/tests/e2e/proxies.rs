//! The agent behind an HTTP proxy that others wrote: see `tests/peers/connect-proxy/README.md`.

#![expect(clippy::print_stdout, reason = "that a test did not run is to be seen")]

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{Agent, Process, Stack, eventually};

use crate::{FINAL, PATIENCE, ntlm_host};

/// The proxy's password; a word that occurs nowhere else.
const PASSWORD: &str = "Pr0xy-Marker-4711";

/// The interpreter, or nothing when the test may be left out.
fn python() -> Option<PathBuf> {
    let python = std::env::var_os("LICTOR_PEERS_PYTHON").map(PathBuf::from);
    if python.is_none() {
        let required = std::env::var("LICTOR_PEERS").is_ok_and(|value| value == "required");
        assert!(!required, "LICTOR_PEERS is required, but LICTOR_PEERS_PYTHON names no interpreter with proxy.py");
        println!("did not run: LICTOR_PEERS_PYTHON is not set");
    }
    python
}

struct Peer {
    port: u16,
    process: Process,
}

impl Peer {
    fn start(stack: &Stack, name: &str, arguments: &[&str]) -> Result<Option<Self>> {
        let Some(python) = python() else { return Ok(None) };
        let file = stack.directory().join(format!("{name}.port"));
        let mut command = Command::new(python);
        command.args([
            "-m",
            "proxy",
            "--hostname",
            "127.0.0.1",
            "--port",
            "0",
            "--num-workers",
            "1",
            "--num-acceptors",
            "1",
        ]);
        command.arg("--port-file").arg(&file).args(arguments).env("HOME", stack.directory());
        let process = Process::start(name, &mut command, &stack.directory().join(format!("{name}.log")))?;
        let port = eventually("the proxy listens", PATIENCE, || {
            let text = std::fs::read_to_string(&file).with_context(|| process.log())?;
            Ok(text.trim().parse()?)
        })?;
        Ok(Some(Self { port, process }))
    }
}

impl Peer {
    /// Ends it and its workers, which are processes of their own.
    fn end(&mut self) -> Result<()> {
        self.process.terminate()?;
        self.process.wait(PATIENCE).map(drop)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn runs_tasks(stack: &Stack) -> Result<()> {
    let windows = ntlm_host(stack)?;
    let task = stack.submit(&["--host", "127.0.0.1", "--credential", "ntlm", "--", "hostname"])?;
    let task = stack.task_in(&task, FINAL, PATIENCE)?;
    ensure!(task["state"] == "succeeded" && windows.count("/commands/started")? == 1, "{task:#}");
    Ok(())
}

/// Waits for the agent to say what is wrong.
fn complains(agent: &Agent, code: &str) -> Result<()> {
    eventually(code, PATIENCE, || {
        let log = agent.process.log();
        let line = log.lines().find(|line| line.contains(&format!("code=\"{code}\""))).with_context(|| log.clone())?;
        ensure!(line.contains("stage=\"proxy\"") && line.contains("cause=") && line.contains("remedy="), "{line}");
        Ok(())
    })
}

#[test]
fn the_link_goes_through_a_proxy_with_authentication() -> Result<()> {
    let stack = Stack::start(&[])?;
    let credentials = format!("lictor:{PASSWORD}");
    let Some(peer) = Peer::start(&stack, "proxy", &["--basic-auth", &credentials])? else { return Ok(()) };
    let port = peer.port.to_string();
    let token = stack.join_token(&[])?;
    let stranger = [("PROXY_HOST", "127.0.0.1"), ("PROXY_PORT", port.as_str())];
    let nobody = Agent::spawn(&stack, "nobody", &token, &stranger)?;
    complains(&nobody, "proxy.authentication")?;
    let wrong = [stranger[0], stranger[1], ("PROXY_USER", "lictor"), ("PROXY_PASSWORD", "Wr0ng-Marker-4712")];
    let wrong = Agent::spawn(&stack, "wrong", &token, &wrong)?;
    complains(&wrong, "proxy.authentication")?;
    drop((nobody, wrong));

    let known = [stranger[0], stranger[1], ("PROXY_USER", "lictor"), ("PROXY_PASSWORD", PASSWORD)];
    let agent = stack.agent("agent-1", &[&known[..], &[("LICTOR_AGENT_LOG__LEVEL", "trace")]].concat())?;
    runs_tasks(&stack)?;
    let file = stack.directory().join("proxy-password");
    std::fs::write(&file, format!("{PASSWORD}\n"))?;
    let url = format!("http://127.0.0.1:{port}");
    let file = file.display().to_string();
    let settings = [
        ("LICTOR_AGENT_PROXY__URL", url.as_str()),
        ("LICTOR_AGENT_PROXY__USERNAME", "lictor"),
        ("LICTOR_AGENT_PROXY__PASSWORD_FILE", &file),
    ];
    let second = stack.agent("agent-2", &settings)?;
    for agent in [&agent, &second] {
        let log = agent.process.log();
        assert!(!log.contains(PASSWORD) && !log.contains("Proxy-Authorization"), "the password is in the log");
    }
    for name in ["wrong.log", "nobody.log"] {
        let log = std::fs::read_to_string(stack.directory().join(name))?;
        assert!(!log.contains("Wr0ng-Marker"), "{log}");
    }
    Ok(())
}

#[test]
fn the_link_goes_through_a_proxy_that_speaks_tls() -> Result<()> {
    let stack = Stack::start(&[])?;
    let certificate = stack.certificates.certificate.display().to_string();
    let key = stack.certificates.key.display().to_string();
    let arguments = ["--cert-file", &certificate, "--key-file", &key];
    let Some(peer) = Peer::start(&stack, "proxy", &arguments)? else { return Ok(()) };
    let url = format!("https://localhost:{}", peer.port);
    let token = stack.join_token(&[])?;
    let untrusting = Agent::spawn(&stack, "untrusting", &token, &[("HTTPS_PROXY", &url)])?;
    complains(&untrusting, "proxy.tls")?;
    drop(untrusting);
    let ca = stack.certificates.ca.display().to_string();
    let _agent = stack.agent("agent-1", &[("HTTPS_PROXY", &url), ("LICTOR_AGENT_PROXY__CA_FILE", &ca)])?;
    runs_tasks(&stack)
}

#[test]
fn what_is_excepted_goes_straight() -> Result<()> {
    let stack = Stack::start(&[])?;
    let Some(mut peer) = Peer::start(&stack, "proxy", &[])? else { return Ok(()) };
    let url = format!("http://127.0.0.1:{}", peer.port);
    let agent = stack.agent("through", &[("https_proxy", &url)])?;
    let straight = stack.agent("straight", &[("https_proxy", &url), ("NO_PROXY", "example.com,127.0.0.0/8")])?;
    // Only the one that goes through it notices its end.
    peer.end()?;
    complains(&agent, "proxy.unreachable")?;
    assert!(!straight.process.log().contains("is not available"));
    assert_eq!(straight.get("/ready")?.0, 200);
    Ok(())
}
