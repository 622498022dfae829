//! Scripts that hang, fork, flood, fail, kill, are empty, long or no text.

use anyhow::{Result, ensure};
use lictor_tests::eventually;

use super::{Bench, descendants, environment, says};
use crate::PATIENCE;

const SECOND: (&str, &str) = ("LICTOR_AGENT_BOOTSTRAP__TIMEOUT", "1s");

#[test]
fn one_that_hangs_is_stopped_with_all_that_it_began() -> Result<()> {
    let bench = Bench::new()?;
    // One that leaves the session, one that does not listen, and the script itself.
    let script = "setsid sleep 1000 &\n(trap '' TERM; exec sleep 1000) &\nexport LATE=1\nsleep 1000\n";
    let agent = bench.run(script, &[SECOND])?;
    let degraded = bench.degraded()?;
    ensure!(degraded.contains("took too long and was stopped after"), "{degraded}");
    assert_eq!(descendants(agent.process.pid()), Vec::<u32>::new(), "{}", agent.process.log());
    Ok(())
}

#[test]
fn the_agent_that_is_asked_to_stop_stops_the_script() -> Result<()> {
    let bench = Bench::new()?;
    let mut agent = bench.begin("echo begun\nsleep 1000 & sleep 1000\n", &[])?;
    says(&agent, "begun")?;
    let children = descendants(agent.process.pid());
    ensure!(children.len() >= 3, "{children:?}");
    agent.process.terminate()?;
    assert_eq!(agent.process.wait(PATIENCE)?.code(), Some(0), "{}", agent.process.log());
    for child in children {
        let status = std::fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
        ensure!(status.is_empty() || status.contains("Z (zombie)"), "{child} lives: {status}");
    }
    ensure!(agent.process.log().contains("Stopped"), "{}", agent.process.log());
    Ok(())
}

#[test]
fn what_one_leaves_running_is_named_and_ends_with_the_agent() -> Result<()> {
    let bench = Bench::new()?;
    let gate = bench.gate()?;
    let script = format!(
        "PASSWORD=Mark3r-of-children\nfor n in 1 2 3; do sleep 1000 & done\n(setsid sleep 1000 &)\n\
         ( {} echo \"late $PASSWORD\" ) &\nexit 3\n",
        gate.wait().trim().to_owned() + ";"
    );
    let mut agent = bench.run(&script, &[])?;
    let degraded = bench.degraded()?;
    ensure!(degraded.contains("exit status 3") && degraded.contains("it left 5 running: bash, sleep"), "{degraded}");
    let (_, metrics) = agent.get("/metrics")?;
    ensure!(metrics.contains("agent_bootstrap_left_processes 5"), "{metrics}");
    // They are heard, and masked, for as long as they live, and then taken in.
    gate.open()?;
    says(&agent, "late ***")?;
    eventually("one is gone, and no zombie", PATIENCE, || {
        let (_, metrics) = agent.get("/metrics")?;
        ensure!(metrics.contains("agent_bootstrap_left_processes 4"), "{metrics}");
        let children = std::fs::read_dir("/proc")?
            .flatten()
            .filter_map(|entry| std::fs::read_to_string(entry.path().join("status")).ok());
        let own = format!("PPid:\t{}\n", agent.process.pid());
        ensure!(!children.into_iter().any(|status| status.contains(&own) && status.contains("Z (zombie)")), "a zombie");
        Ok(())
    })?;
    let children = descendants(agent.process.pid());
    assert_eq!(children.len(), 4);
    agent.process.terminate()?;
    assert_eq!(agent.process.wait(PATIENCE)?.code(), Some(0), "{}", agent.process.log());
    for child in children {
        ensure!(!std::path::Path::new(&format!("/proc/{child}/exe")).exists(), "{child} lives on");
    }
    ensure!(!agent.process.log().contains("Mark3r"), "{}", agent.process.log());
    Ok(())
}

#[test]
fn a_flood_is_cut_with_a_mark() -> Result<()> {
    let bench = Bench::new()?;
    let script = "yes | head -c 30000000\nhead -c 30000000 /dev/zero | tr '\\0' x\necho last >&2\nexport OK=1\n";
    let agent = bench.run(script, &[])?;
    let log = agent.process.log();
    ensure!(log.contains("prints too much") && log.contains("that was not logged"), "{}", log.len());
    // The marks of each line are longer than `y`.
    ensure!(log.len() < 12_000_000, "{}", log.len());
    assert_eq!(environment(agent.process.pid())?.get("OK").map(String::as_str), Some("1"));
    assert_eq!(bench.degraded()?, "");
    Ok(())
}

#[test]
fn how_one_ends_is_told_as_it_was() -> Result<()> {
    // What it says, whether what it exported is known.
    let cases = [
        ("nosuch-command\nexport OK=1\n", None, true),
        ("export OK=1\nexit 1\n", Some("ended with exit status 1 "), true),
        ("set -e\nexport OK=1\nfalse\nexport OK=2\n", Some("ended with exit status 1 "), true),
        ("export OK=1\nreturn 5\n", Some("ended with exit status 5 "), true),
        ("export OK=1\ntrap 'echo own trap' EXIT\n", None, true),
        ("export OK=1\nif true; then\n", Some("ended with exit status 2 "), true),
        ("export OK=1\nkill $PPID; kill -INT $PPID; kill -HUP $PPID\n", None, true),
        ("export OK=1\nkill -9 $PPID\nexit 4\n", Some("ended with exit status 4 "), false),
        ("export OK=1\nkill -9 $$\n", Some("was ended by signal 9 "), false),
        ("export OK=1\nkill -9 -$PPID\n", Some("was ended by signal 9 "), false),
        ("export OK=1\nexec sh -c 'exit 6'\n", Some("ended with exit status 6 "), false),
        ("export OK=1\nexec >/dev/null 2>&1 </dev/null\nfalse\n", Some("ended with exit status 1 "), true),
    ];
    let bench = Bench::new()?;
    for (script, told, known) in cases {
        let mut agent = bench.run(script, &[])?;
        let degraded = bench.degraded()?;
        ensure!(degraded.contains(told.unwrap_or("")) && degraded.is_empty() == told.is_none(), "{script}: {degraded}");
        let exported = environment(agent.process.pid())?.get("OK").cloned();
        // What kills its parent races with the parent's end for its report; whichever wins is told.
        let known =
            if script.contains("-9 $PPID") { !degraded.contains("nothing it exported is known") } else { known };
        assert_eq!(exported.as_deref(), known.then_some("1"), "{script}: {}", agent.process.log());
        agent.process.terminate()?;
        assert_eq!(agent.process.wait(PATIENCE)?.code(), Some(0), "{script}: {}", agent.process.log());
        let log = agent.process.log();
        if script.starts_with("nosuch") {
            ensure!(log.contains("INIT_SCRIPT: line 1: nosuch-command: command not found"), "{log}");
            ensure!(log.contains("1 of its commands failed, the first at line 1"), "{log}");
        }
        if script.contains("own trap") {
            ensure!(log.contains("own trap"), "{log}");
        }
        std::fs::remove_file(bench.stack.directory().join("agent-1.log"))?;
    }
    Ok(())
}

#[test]
fn an_empty_one_is_none() -> Result<()> {
    let bench = Bench::new()?;
    for script in ["", " \n\t\n"] {
        let agent = bench.run(script, &[])?;
        ensure!(!agent.process.log().contains("bootstrap script"), "{}", agent.process.log());
        assert_eq!(bench.degraded()?, "");
    }
    // Without a bash there is nothing to run it.
    let agent = bench.run("true", &[("LICTOR_AGENT_BOOTSTRAP__SHELL", "/nowhere/bash")])?;
    let degraded = bench.degraded()?;
    ensure!(degraded.contains("the bootstrap script (INIT_SCRIPT) "), "{degraded}");
    ensure!(agent.process.log().contains("/nowhere/bash cannot be run"), "{}", agent.process.log());
    Ok(())
}

#[test]
fn one_of_a_mebibyte_that_is_no_text_runs_to_its_end() -> Result<()> {
    let bench = Bench::new()?;
    let file = bench.stack.directory().join("script.sh");
    let made = bench.stack.directory().join("made");
    let mut script = b"# \xff\xfe\x80\nprintf '%s' '\xff\xe4\xc3(' > \"$MADE\"\necho '\xff shown'\n".to_vec();
    let last = b"\nexport OK=1\n";
    while script.len() < (1 << 20) - last.len() - 100 {
        script.extend_from_slice(b": '0123456789 0123456789 0123456789'\n");
    }
    script.resize((1 << 20) - last.len(), b'#');
    script.extend_from_slice(last);
    std::fs::write(&file, &script)?;
    let paths =
        [("HARNESS_INIT_SCRIPT_PATH", file.to_str().unwrap_or_default()), ("MADE", made.to_str().unwrap_or_default())];
    let agent = bench.run("", &paths)?;
    assert_eq!(environment(agent.process.pid())?.get("OK").map(String::as_str), Some("1"), "{}", agent.process.log());
    assert_eq!(std::fs::read(&made)?, b"\xff\xe4\xc3(");
    assert_eq!(bench.degraded()?, "");
    drop(agent);
    script.push(b'\n');
    std::fs::write(&file, &script)?;
    let mut agent = bench.begin("", &paths)?;
    assert_eq!(agent.process.wait(PATIENCE)?.code(), Some(64));
    ensure!(agent.process.log().contains("longer than 1 MiB"), "{}", agent.process.log());
    Ok(())
}
