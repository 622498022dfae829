//! A password in the script, the join token and other secrets are nowhere to be found afterwards.

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{Agent, eventually};

use super::{Bench, descendants, environment};
use crate::PATIENCE;
use crate::secrecy::search_for;

const MARKER: &str = "Mark3r'in $cript";

#[test]
fn a_password_in_the_script_is_nowhere_afterwards() -> Result<()> {
    let bench = Bench::new()?;
    let own = tempfile::tempdir()?;
    let seen = own.path().join("seen");
    // Printed in every way that comes to mind, exported, and left to children.
    let script = format!(
        r#"set -x
PW="Mark3r'in \$cript"
export ALSO="$PW" NOTE="it is $PW"
echo "$PW" | kinit alice@CORP.EXAMPLE
printf '%q\n' "$PW"; declare -p PW ALSO; env; set | head -n 200; echo "$PW" >&2
echo -n "$PW" | base64
set -v
echo "$LOGIN" | kinit bob
nosuch "$PW"
[ x = "$PW"
set +v
tr '\0' '\n' < /proc/$PPID/environ > '{seen}'
tr '\0' '\n' < /proc/self/environ >> '{seen}'
for pid in $(sed -n 's/^PPid:\t//p' /proc/$PPID/status); do tr '\0' '\n' < /proc/$pid/environ; done >> '{seen}'
sleep 1000 &
(setsid sleep 1000 &)
fi "Mark3r'in \$cript"
"#,
        seen = seen.display()
    );
    let token = bench.stack.join_token(&[])?;
    let variables = [
        ("INIT_SCRIPT", script.as_str()),
        ("LICTOR_AGENT_LOG__LEVEL", "trace"),
        ("LICTOR_AGENT_JOIN_TOKEN", &token),
        ("LOGIN", "Mark3r-of-the-pod"),
        ("DELEGATE_TOKEN", "Mark3r-token"),
        ("PROXY_PASSWORD", "Mark3r-proxy"),
        ("HTTPS_PROXY", "http://alice:Mark3r-url@127.0.0.1:9"),
        ("NO_PROXY", "*"),
    ];
    // The one token is in the environment only.
    let mut agent = Agent::spawn(&bench.stack, "agent-1", "", &variables)?;
    agent.wait_connected()?;
    let part = token.rsplit('.').nth(1).context("a token")?;
    let pid = agent.process.pid();
    let children = descendants(pid);
    assert_eq!(children.len(), 2, "{}", agent.process.log());
    for process in children.into_iter().chain([pid]) {
        for file in ["cmdline", "environ"] {
            let text = String::from_utf8_lossy(&std::fs::read(format!("/proc/{process}/{file}"))?).into_owned();
            // What the script exported is its children's own.
            let mine = process == pid || file == "cmdline";
            ensure!(!mine || !text.contains("Mark3r"), "{file} of {process}: {text}");
            for secret in [part, "Mark3r-token", "Mark3r-proxy", "Mark3r-url", "INIT_SCRIPT="] {
                ensure!(!text.contains(secret), "{secret} in {file} of {process}: {text}");
            }
        }
    }
    assert_eq!(environment(pid)?.get("HTTPS_PROXY").map(String::as_str), Some("http://127.0.0.1:9"));
    let seen = std::fs::read_to_string(&seen)?;
    ensure!(seen.contains("LICTOR_AGENT_NAME=agent-1"), "{seen}");
    for secret in [part, "Mark3r-token", "Mark3r-proxy", "Mark3r-url"] {
        ensure!(!seen.contains(secret), "the script saw {secret}: {seen}");
    }
    let log = agent.process.log();
    ensure!(log.contains("***"), "{log}");
    for file in std::fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let target = std::fs::read_link(file.path()).unwrap_or_default();
        if target.to_string_lossy().contains("memfd") {
            assert_eq!(std::fs::read(file.path())?, b"", "{}", target.display());
        }
    }
    for when in ["while it runs", "afterwards"] {
        search_for(&bench.stack, when, &[MARKER.as_bytes(), b"Mark3r", b"Mark3r-of-the-pod", part.as_bytes()])?;
        if when == "while it runs" {
            agent.process.terminate()?;
            agent.process.wait(PATIENCE)?;
        }
    }
    Ok(())
}

#[test]
fn a_join_token_in_the_environment_leaves_it_even_without_a_script() -> Result<()> {
    let bench = Bench::new()?;
    let token = bench.stack.join_token(&[])?;
    let mut agent = Agent::spawn(&bench.stack, "agent-1", "", &[("LICTOR_AGENT_JOIN_TOKEN", &token)])?;
    agent.wait_connected()?;
    let environment = environment(agent.process.pid())?;
    ensure!(environment.contains_key("LICTOR_AGENT_NAME"), "{environment:?}");
    ensure!(!environment.contains_key("LICTOR_AGENT_JOIN_TOKEN"), "{environment:?}");
    // By its own name, and with its own arguments.
    let name = std::fs::read_to_string(format!("/proc/{}/comm", agent.process.pid()))?;
    assert_eq!(name.trim(), "lictor-agent");
    eventually("it is ready", PATIENCE, || {
        ensure!(agent.get("/ready")?.0 == 200);
        Ok(())
    })
}
