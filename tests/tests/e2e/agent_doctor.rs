//! `lictor-agent doctor` where an agent works: it sees what is there, and disturbs nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{Kdc, Output, PASSWORD, Stack, Windows, WindowsOptions, binary};
use serde_json::Value;

use crate::{FINAL, PATIENCE, ntlm_host};

/// The doctor of an agent whose state is in `state`.
fn doctor(server: &str, state: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary("lictor-agent")?);
    command
        .arg("doctor")
        .args(arguments)
        .env_remove("HTTPS_PROXY")
        .env_remove("https_proxy")
        // Not what the machine of the tests has.
        .env("KRB5_CONFIG", "/nowhere/krb5.conf")
        .env_remove("KRB5CCNAME")
        .env("LICTOR_AGENT_CONTROL_PLANE", server)
        .env("LICTOR_AGENT_NAME", "agent-1")
        .env("LICTOR_AGENT_STATE_DIR", state)
        .env("LICTOR_AGENT_ADMISSION__MEMORY_PERCENT", "off")
        .envs(environment.iter().copied());
    Output::of(&mut command, PATIENCE)
}

/// What it found, by area and check: outcome, and code if any.
fn findings(server: &str, state: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Result<(i32, Findings)> {
    let output = doctor(server, state, environment, &[&["--output", "json"], arguments].concat())?;
    let report: Value = output.json().with_context(|| output.stderr.clone())?;
    let checks = report["checks"].as_array().context("checks")?.clone();
    let failed = checks.iter().filter(|check| check["outcome"] == "failed").count();
    ensure!(report["failed"] == failed, "{report:#}");
    for check in checks.iter().filter(|check| check["outcome"] == "failed") {
        for part in ["code", "message", "cause", "remedy"] {
            ensure!(check["finding"][part].as_str().is_some_and(|text| !text.is_empty()), "{part} of {check:#}");
        }
    }
    Ok((output.code, Findings(checks)))
}

#[derive(Debug)]
struct Findings(Vec<Value>);

impl Findings {
    fn of(&self, area: &str, check: &str) -> Vec<(&str, &str)> {
        let found = self.0.iter().filter(|found| found["area"] == area && found["check"] == check);
        found
            .map(|found| (found["outcome"].as_str().unwrap_or(""), found["finding"]["code"].as_str().unwrap_or("")))
            .collect()
    }

    fn is(&self, area: &str, check: &str, outcome: &str, code: &str) -> Result<()> {
        ensure!(self.of(area, check).contains(&(outcome, code)), "no {area} {check} {outcome} {code} in {:#?}", self.0);
        Ok(())
    }

    fn detail(&self, area: &str, check: &str) -> String {
        let found = self.0.iter().filter(|found| found["area"] == area && found["check"] == check);
        found.filter_map(|found| found["detail"].as_str()).collect::<Vec<_>>().join("; ")
    }
}

/// Names, sizes, modes and times of everything in a directory.
fn snapshot(directory: &Path) -> Result<BTreeMap<String, String>> {
    use std::os::unix::fs::MetadataExt as _;
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        // The journal is the agent's to write at any time.
        let is_journal = entry.file_name() == "journal.redb";
        let time = if is_journal { (0, 0) } else { (metadata.mtime(), metadata.mtime_nsec()) };
        let size = if is_journal { 0 } else { metadata.len() };
        let state = format!("{:o} {size} {} {time:?}", metadata.mode(), metadata.ino());
        all.insert(entry.file_name().to_string_lossy().into_owned(), state);
    }
    Ok(all)
}

#[test]
fn beside_an_agent_that_works_it_finds_all_well_and_changes_nothing() -> Result<()> {
    let stack = Stack::start(&[])?;
    let agent = stack.agent("agent-1", &[])?;
    let windows = ntlm_host(&stack)?;
    let server = format!("https://{}", stack.control_plane.address);
    let before = snapshot(&agent.state)?;
    let (code, found) = findings(&server, &agent.state, &[], &[])?;
    ensure!(code == 0, "{found:#?}");
    for (area, check) in [
        ("configuration", "settings"),
        ("state", "directory"),
        ("state", "journal"),
        ("state", "identity"),
        ("state", "certificate"),
        ("state", "clock"),
        ("control plane", "resolve"),
        ("control plane", "connect"),
        ("control plane", "tls"),
    ] {
        found.is(area, check, "passed", "")?;
    }
    ensure!(found.detail("state", "journal").contains("in use by an agent"), "{found:#?}");
    ensure!(snapshot(&agent.state)? == before, "{before:#?} {:#?}", snapshot(&agent.state)?);
    // The agent's session stands, and it works.
    ensure!(!agent.process.log().contains("took over"), "{}", agent.process.log());
    let task_id = stack.submit(&["--host", "127.0.0.1", "--credential", "ntlm", "--", "hostname"])?;
    ensure!(stack.task_in(&task_id, FINAL, PATIENCE)?["state"] == "succeeded");
    // For people; and a host without anybody logging in.
    windows.reset()?;
    let host = ["--host", "127.0.0.1", "--http", "--port", &windows.port];
    let output = doctor(&server, &agent.state, &[], &host)?;
    ensure!(output.code == 0, "{}{}", output.text(), output.stderr);
    ensure!(output.text().contains("host 127.0.0.1") && output.text().contains("0 failed"), "{}", output.text());
    ensure!(!output.text().contains('\u{1b}'), "{}", output.text());
    ensure!(windows.failed_logons()? == 0 && windows.count("/shells/opened")? == 0, "{:#}", windows.statistics()?);
    Ok(())
}

#[test]
fn what_is_broken_is_named_and_a_join_token_stays_unspent() -> Result<()> {
    let stack = Stack::start(&[])?;
    let server = format!("https://{}", stack.control_plane.address);
    let directory = stack.directory();
    let token = stack.join_token(&[])?;
    let file = directory.join("one-use.token");
    std::fs::write(&file, &token)?;
    let token_file = file.to_str().context("UTF-8")?;
    let empty = directory.join("empty");
    std::fs::create_dir(&empty)?;

    // Not enrolled: with a token, without one, with one that is none.
    let with_token = [("LICTOR_AGENT_JOIN_TOKEN_FILE", token_file)];
    for _ in 0..2 {
        let (code, found) = findings(&server, &empty, &with_token, &[])?;
        ensure!(code == 0, "{found:#?}");
        found.is("control plane", "tls", "passed", "")?;
    }
    let (code, found) = findings(&server, &empty, &[], &[])?;
    ensure!(code == 72, "{found:#?}");
    found.is("state", "identity", "failed", "agent.not_enrolled")?;
    ensure!(std::fs::read_dir(&empty)?.next().is_none(), "the doctor made something");
    let absent = directory.join("absent");
    let (code, _) = findings(&server, &absent, &with_token, &[])?;
    ensure!(code == 0 && !absent.exists());

    // A token of another control plane, nobody who listens, no such name.
    let other = Stack::start(&[])?;
    let elsewhere = format!("https://{}", other.control_plane.address);
    let (code, found) = findings(&elsewhere, &empty, &with_token, &[])?;
    ensure!(code == 72, "{found:#?}");
    found.is("control plane", "tls", "failed", "control_plane.pin")?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let (_, found) = findings(&format!("https://127.0.0.1:{port}"), &empty, &with_token, &[])?;
    found.is("control plane", "connect", "failed", "control_plane.connect")?;
    let (_, found) = findings("https://nowhere.invalid:7443", &empty, &with_token, &[])?;
    found.is("control plane", "resolve", "failed", "control_plane.resolve")?;
    let proxy = format!("http://127.0.0.1:{port}");
    let by_proxy = [with_token[0], ("LICTOR_AGENT_PROXY__URL", proxy.as_str())];
    let (_, found) = findings(&server, &empty, &by_proxy, &[])?;
    found.is("control plane", "proxy", "failed", "proxy.unreachable")?;
    let listening = std::net::TcpListener::bind("127.0.0.1:0")?;
    let proxy = format!("https://{}", listening.local_addr()?);
    let by_file = [
        with_token[0],
        ("LICTOR_AGENT_PROXY__URL", proxy.as_str()),
        ("LICTOR_AGENT_PROXY__CA_FILE", "/nowhere/proxy-ca.pem"),
    ];
    let (_, found) = findings(&server, &empty, &by_file, &[])?;
    found.is("control plane", "proxy", "failed", "proxy.file")?;

    // Every mistake, files that are not what they should be, and a directory that is none.
    let policy = directory.join("policy.toml");
    std::fs::write(&policy, "colour = \"red\"\n")?;
    let broken = [
        with_token[0],
        ("LICTOR_AGENT_POLICY_FILE", policy.to_str().context("UTF-8")?),
        ("LICTOR_AGENT_KERBEROS__KEYTABS", "/nowhere/svc.keytab"),
        ("LICTOR_AGENT_KERBEROS__KRB5_CONF", "/nowhere/krb5.conf"),
    ];
    let (code, found) = findings(&server, &empty, &broken, &[])?;
    ensure!(code == 72, "{found:#?}");
    found.is("configuration", "policy", "failed", "agent.policy_file")?;
    found.is("kerberos", "krb5_conf", "failed", "kerberos.configuration")?;
    found.is("kerberos", "keytab", "failed", "agent.keytab_unusable")?;
    let (_, found) = findings(&server, &file, &with_token, &[])?;
    found.is("state", "directory", "failed", "agent.state_unusable")?;
    let mistaken = [("LICTOR_AGENT_SLOTS", "0"), ("LICTOR_AGENT_COLOUR", "red")];
    let (code, found) = findings("ftp://nowhere", &empty, &mistaken, &[])?;
    ensure!(code == 64 && found.of("configuration", "settings").len() == 3, "{found:#?}");
    found.is("configuration", "settings", "failed", "agent.configuration")?;
    let (code, found) = findings(&server, &empty, &with_token, &["--host", "no host"])?;
    ensure!(code == 72, "{found:#?}");
    found.is("host no host", "host_name", "failed", "agent.no_host")?;
    let group = directory.join("cgroup");
    std::fs::create_dir(&group)?;
    for (name, text) in [("cgroup.controllers", "memory"), ("memory.max", "50000000"), ("memory.current", "1000")] {
        std::fs::write(group.join(name), text)?;
    }
    let little = [with_token[0], ("LICTOR_AGENT_ADMISSION__CGROUP_ROOT", group.to_str().context("UTF-8")?)];
    let (code, found) = findings(&server, &empty, &little, &[])?;
    ensure!(code == 0, "{found:#?}");
    found.is("limits", "memory", "warning", "agent.memory")?;

    // After all that the token, which is good for one enrolment, is still good.
    let mut agent = lictor_tests::Agent::spawn(&stack, "agent-1", &token, &[])?;
    agent.wait_connected()?;
    agent.process.kill()?;
    // Whom it does not know as its control plane.
    let (_, found) = findings(&elsewhere, &agent.state, &[], &[])?;
    found.is("control plane", "tls", "failed", "control_plane.tls")?;
    // What the state of an agent that does not run says.
    let (_, found) = findings(&server, &agent.state, &[], &[])?;
    ensure!(!found.detail("state", "journal").contains("in use"), "{found:#?}");
    let identity = agent.state.join("identity.json");
    let mut document: Value = serde_json::from_slice(&std::fs::read(&identity)?)?;
    document["not_after_unix"] = 1_000_000_000.into();
    std::fs::write(&identity, document.to_string())?;
    let (code, found) = findings(&server, &agent.state, &[], &[])?;
    ensure!(code == 72, "{found:#?}");
    found.is("state", "certificate", "failed", "agent.certificate_ended")?;
    let marker = document["private_key_pem"].as_str().context("key")?.lines().nth(1).context("key")?.to_owned();
    std::fs::write(&identity, format!("{{\"private_key_pem\": \"{marker}\""))?;
    let output = doctor(&server, &agent.state, &[], &[])?;
    ensure!(output.code == 72 && output.text().contains("[agent.identity]"), "{}", output.text());
    ensure!(!output.text().contains(&marker) && !output.stderr.contains(&marker), "the key is shown");
    Ok(())
}

/// A host that takes tickets of everybody in the realm.
fn kerberos_host(stack: &Stack, kdc: &Kdc) -> Result<Windows> {
    kdc.add_random("HTTP/localhost", &[])?;
    kdc.map_host("localhost", kdc.realm())?;
    let keytab = kdc.path("host.keytab");
    kdc.keytab(&["HTTP/localhost"], &keytab)?;
    let everybody = format!(r"*@{}=CORP\*", kdc.realm());
    let principals = [everybody.as_str()];
    stack.windows(
        "win-k",
        &WindowsOptions { keytab: Some(&keytab), principals: &principals, ..WindowsOptions::default() },
    )
}

#[test]
fn kerberos_of_the_agent_is_looked_at_and_a_host_by_its_keytab() -> Result<()> {
    let mut kdc = Kdc::start("CORP.EXAMPLE")?;
    kdc.add_password("svc-web", PASSWORD, &[])?;
    let stack = Stack::start(&[])?;
    let windows = kerberos_host(&stack, &kdc)?;
    let keytab = kdc.path("svc.keytab");
    kdc.keytab(&["svc-web"], &keytab)?;
    let cache = kdc.path("svc.cache");
    let user = kdc.principal("svc-web");
    kdc.kinit(&user, PASSWORD, &format!("FILE:{}", cache.display()), &[])?;
    let text = |path: &Path| path.display().to_string();
    let (conf, keytab, cache) = (text(&kdc.krb5_conf()), text(&keytab), text(&cache));
    let environment = [
        ("LICTOR_AGENT_KERBEROS__KRB5_CONF", conf.as_str()),
        ("LICTOR_AGENT_KERBEROS__KEYTABS", keytab.as_str()),
        ("LICTOR_AGENT_KERBEROS__CACHES", cache.as_str()),
    ];
    let agent = stack.agent("agent-1", &environment)?;
    let server = format!("https://{}", stack.control_plane.address);
    let logins = kdc.as_exchanges();
    let (code, found) = findings(&server, &agent.state, &environment, &[])?;
    ensure!(code == 0, "{found:#?}");
    ensure!(found.detail("kerberos", "keytab").contains(&format!("{user} (kvno ")), "{found:#?}");
    ensure!(found.detail("kerberos", "cache").contains(&user), "{found:#?}");
    ensure!(kdc.as_exchanges() == logins, "somebody was logged in: {}", kdc.log());

    // As the user of the keytab; and as somebody of whom the agent has nothing.
    let host = ["--host", "localhost", "--http", "--port", &windows.port];
    let (code, found) = findings(&server, &agent.state, &environment, &[&host[..], &["--user", &user]].concat())?;
    ensure!(code == 0, "{found:#?}");
    for check in ["authenticate", "open_shell", "run", "close"] {
        found.is("host localhost", check, "passed", "")?;
    }
    let stranger = kdc.principal("stranger");
    let (code, found) = findings(&server, &agent.state, &environment, &[&host[..], &["--user", &stranger]].concat())?;
    ensure!(code == 72, "{found:#?}");
    found.is("host localhost", "login", "failed", "agent.nothing_held")?;

    // Everybody may read the keytab; the KDC is gone.
    std::fs::set_permissions(&keytab, std::fs::Permissions::from_mode(0o644))?;
    let (code, found) = findings(&server, &agent.state, &environment, &[])?;
    ensure!(code == 0, "{found:#?}");
    found.is("kerberos", "keytab", "warning", "agent.keytab_open")?;
    kdc.kill()?;
    let (code, found) = findings(&server, &agent.state, &environment, &[])?;
    ensure!(code == 72, "{found:#?}");
    ensure!(found.0.iter().any(|found| found["area"] == "kerberos" && found["outcome"] == "failed"), "{found:#?}");
    Ok(())
}
