//! INIT_SCRIPT with the real agent: what it hands over, what becomes of it when it misbehaves, and that its secrets
//! stay secret.

mod delegate;
mod nasty;
mod secrets;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{Agent, Output, Stack, binary, eventually};

use crate::PATIENCE;

/// A control plane, and where agents with scripts are started.
struct Bench {
    stack: Stack,
}

impl Bench {
    fn new() -> Result<Self> {
        Ok(Self { stack: Stack::start(&[])? })
    }

    /// Starts an agent with a script, and waits for nothing.
    fn begin(&self, script: &str, more: &[(&str, &str)]) -> Result<Agent> {
        let token = self.stack.join_token(&[])?;
        // Of an agent before this one.
        let _none = std::fs::remove_file(self.stack.directory().join("agent-1.ready"));
        Agent::spawn(&self.stack, "agent-1", &token, &[&[("INIT_SCRIPT", script)], more].concat())
    }

    /// The same, until it is connected.
    fn run(&self, script: &str, more: &[(&str, &str)]) -> Result<Agent> {
        let mut agent = self.begin(script, more)?;
        agent.wait_connected()?;
        Ok(agent)
    }

    /// What `lictor agent list` shows as impaired.
    fn degraded(&self) -> Result<String> {
        let list = self.stack.lictor_json(&["agent", "list"])?;
        let agent = &list["agents"][0];
        let texts = agent["degraded"].as_array().with_context(|| format!("{list:#}"))?;
        let texts: Vec<&str> = texts.iter().filter_map(|text| text.as_str()).collect();
        Ok(texts.join("; "))
    }

    /// A pipe with a name: a script that reads it waits until the test writes.
    fn gate(&self) -> Result<Gate> {
        let path = self.stack.directory().join("gate");
        ensure!(Command::new("mkfifo").arg(&path).status()?.success(), "mkfifo");
        Ok(Gate { path })
    }
}

struct Gate {
    path: PathBuf,
}

impl Gate {
    /// Reads a line from the gate, in a script.
    fn wait(&self) -> String {
        format!("read -r opened < '{}'\n", self.path.display())
    }

    /// Lets one reader go on.
    fn open(&self) -> Result<()> {
        Ok(std::fs::write(&self.path, "go\n")?)
    }
}

/// The environment that the kernel shows of a process.
fn environment(pid: u32) -> Result<BTreeMap<String, String>> {
    let bytes = std::fs::read(format!("/proc/{pid}/environ"))?;
    let entries = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let pairs =
        entries.filter_map(|entry| entry.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())));
    Ok(pairs.collect())
}

/// Descendants of a process that are no zombies.
fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut waiting = vec![pid];
    while let Some(parent) = waiting.pop() {
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
            let field = |name: &str| {
                status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
            };
            if field("PPid:") == parent.to_string() && !field("State:").starts_with('Z') {
                found.push(pid);
                waiting.push(pid);
            }
        }
    }
    found
}

/// Waits until a log says something.
fn says(agent: &Agent, text: &str) -> Result<()> {
    eventually(&format!("the log says {text:?}"), PATIENCE, || {
        let log = agent.process.log();
        ensure!(log.contains(text), "{log}");
        Ok(())
    })
}

#[test]
fn while_it_runs_the_agent_is_live_but_not_ready() -> Result<()> {
    let bench = Bench::new()?;
    let gate = bench.gate()?;
    let mut agent = bench.begin(&gate.wait(), &[])?;
    let (status, reason) = eventually("the endpoints answer", PATIENCE, || agent.get_early("/ready"))?;
    assert_eq!((status, reason.as_str()), (503, "the bootstrap script is running\n"));
    assert_eq!(agent.get_early("/live")?.0, 200);
    // Where a delegate's probes ask, which would otherwise kill the container over a script that takes its time.
    assert_eq!(agent.get_early("/api/health")?, (200, "live\n".to_owned()));
    for path in ["/metrics", "/api/metrics"] {
        assert_eq!(agent.get_early(path)?, (200, "# EOF\n".to_owned()), "{path}");
    }
    let list = bench.stack.lictor_json(&["agent", "list"])?;
    assert_eq!(list["agents"].as_array().map(Vec::len), Some(0), "not connected: {list:#}");
    gate.open()?;
    agent.wait_connected()?;
    eventually("it is ready", PATIENCE, || {
        let ready = agent.get("/ready")?;
        ensure!(ready.0 == 200, "{ready:?}");
        Ok(())
    })?;
    assert_eq!(bench.degraded()?, "");
    Ok(())
}

#[test]
fn what_it_exports_is_the_agents_environment_under_the_pods_own() -> Result<()> {
    let bench = Bench::new()?;
    let script = "export KRB5CCNAME=FILE:/nowhere/cache TZ=UTC OWN=script\nexport PATH=\"$PATH:/opt/added\"\n\
                  export LICTOR_AGENT_SLOTS=3 LICTOR_AGENT_DESCRIPTION=script\nNOT_EXPORTED=1\nexport MULTI=$'a\\nb'\n";
    let agent = bench.run(script, &[("OWN", "pod"), ("LICTOR_AGENT_DESCRIPTION", "pod")])?;
    let environment = environment(agent.process.pid())?;
    let shown = |name: &str| environment.get(name).map(String::as_str);
    assert_eq!(shown("KRB5CCNAME"), Some("FILE:/nowhere/cache"));
    assert_eq!(shown("TZ"), Some("UTC"));
    assert_eq!(shown("OWN"), Some("pod"));
    assert_eq!(shown("MULTI"), Some("a\nb"));
    assert_eq!(shown("NOT_EXPORTED"), None);
    assert_eq!(shown("INIT_SCRIPT"), None);
    ensure!(shown("PATH").is_some_and(|path| path.ends_with(":/opt/added")), "{environment:?}");
    let list = bench.stack.lictor_json(&["agent", "list"])?;
    assert_eq!(list["agents"][0]["slots"], 3, "{list:#}");
    assert_eq!(list["agents"][0]["description"], "pod", "{list:#}");
    says(&agent, "names=\"LICTOR_AGENT_DESCRIPTION, OWN\"")
}

#[test]
fn a_script_that_fails_is_shown_and_with_policy_fail_ends_the_agent() -> Result<()> {
    let bench = Bench::new()?;
    let mut agent = bench.begin("true\nnosuch-command\nexit 1\n", &[("LICTOR_AGENT_BOOTSTRAP__POLICY", "fail")])?;
    assert_eq!(agent.process.wait(PATIENCE)?.code(), Some(70), "{}", agent.process.log());
    let list = bench.stack.lictor_json(&["agent", "list"])?;
    assert_eq!(list["agents"].as_array().map(Vec::len), Some(0), "never connected: {list:#}");
    drop(agent);
    let agent = bench.run("true\nnosuch-command\nexit 1\n", &[])?;
    let degraded = bench.degraded()?;
    ensure!(degraded.contains("(INIT_SCRIPT) ended with exit status 1"), "{degraded}");
    ensure!(degraded.contains("1 of its commands failed, the first at line 2"), "{degraded}");
    let shown = bench.stack.lictor(&["agent", "list"])?.text();
    ensure!(shown.contains("exit status 1"), "{shown}");
    let (_, metrics) = agent.get("/metrics")?;
    for line in ["agent_bootstrap_failed_state 1", "agent_bootstrap_failed_commands 1"] {
        ensure!(metrics.lines().any(|found| found == line), "{line} is missing in {metrics}");
    }
    Ok(())
}

#[test]
fn two_scripts_are_refused_before_anything_runs() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let trace = directory.path().join("trace");
    let script = format!("touch '{}'", trace.display());
    for verb in ["run", "check-config"] {
        let mut command = Command::new(binary("lictor-agent")?);
        command
            .arg(verb)
            .current_dir(directory.path())
            .env("LICTOR_AGENT_CONTROL_PLANE", "https://127.0.0.1:1")
            .env("INIT_SCRIPT", &script)
            .env("HARNESS_INIT_SCRIPT_PATH", "/etc/hosts");
        let output = Output::of(&mut command, PATIENCE)?;
        assert_eq!(output.code, 64, "{}", output.stderr);
        ensure!(output.stderr.contains("INIT_SCRIPT and HARNESS_INIT_SCRIPT_PATH"), "{}", output.stderr);
    }
    ensure!(!trace.exists(), "it ran");
    Ok(())
}

#[test]
fn the_declared_configuration_of_kerberos_is_the_scripts_own() -> Result<()> {
    let bench = Bench::new()?;
    let file = bench.stack.directory().join("agent.toml");
    std::fs::write(
        &file,
        "[bootstrap]\nscript_file = \"script.sh\"\n[kerberos]\ndefault_realm = \"CORP.EXAMPLE\"\n\
         [kerberos.realms.\"CORP.EXAMPLE\"]\nkdc = [\"127.0.0.1:88\"]\n",
    )?;
    let script = bench.stack.directory().join("script.sh");
    std::fs::write(&script, "echo \"conf: $(grep default_realm \"$KRB5_CONFIG\")\"\n")?;
    let text = std::fs::read_to_string(&file)?.replace("script.sh", script.to_str().context("UTF-8")?);
    std::fs::write(&file, text)?;
    let agent = bench.stack.agent_with_config("agent-1", &file)?;
    let log = agent.process.log();
    ensure!(log.contains("conf:") && log.contains("CORP.EXAMPLE"), "{log}");
    let rendered = agent.state.join("krb5.conf").display().to_string();
    assert_eq!(environment(agent.process.pid())?.get("KRB5_CONFIG"), Some(&rendered));
    Ok(())
}
