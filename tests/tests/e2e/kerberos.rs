//! Kerberos through control plane and agents, with a real KDC: passwords, keytabs, caches, routing, refusals, and no secret
//! anywhere.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{Agent, Kdc, PASSWORD, Stack, Windows, WindowsOptions};
use serde_json::Value;

use crate::{FINAL, PATIENCE};

/// Whose keys the simulated hosts have.
const HOST: &str = "web1.corp.example";

/// A domain with the user `alice`, whose password is [`PASSWORD`], a host, and a control plane.
struct Domain {
    kdc: Kdc,
    stack: Stack,
    windows: Windows,
}

impl Domain {
    fn start() -> Result<Self> {
        let kdc = Kdc::start("CORP.EXAMPLE")?;
        kdc.add_password("alice", PASSWORD, &[])?;
        kdc.add_random(&format!("HTTP/{HOST}"), &[])?;
        kdc.map_host(HOST, kdc.realm())?;
        let keytab = kdc.path("host.keytab");
        kdc.keytab(&[&format!("HTTP/{HOST}")], &keytab)?;
        let stack = Stack::start(&[])?;
        let everybody = format!(r"*@{}=CORP\*", kdc.realm());
        let options = WindowsOptions { keytab: Some(&keytab), principals: &[&everybody], ..WindowsOptions::default() };
        let windows = stack.windows("win-a", &options)?;
        Ok(Self { kdc, stack, windows })
    }

    fn agent(&self, name: &str, more: &[(&str, &str)]) -> Result<Agent> {
        let krb5_conf = self.kdc.krb5_conf().display().to_string();
        let own = [("LICTOR_AGENT_KERBEROS__KRB5_CONF", krb5_conf.as_str())];
        self.stack.agent(name, &[&own[..], more].concat())
    }

    /// Stores a credential for `user`, with how to reach the host.
    fn credential(&self, name: &str, user: &str, arguments: &[&str]) -> Result<()> {
        let port = &self.windows.port;
        let put = ["credential", "put", name, "--user", user, "--scheme", "http", "--port", port, "--spn-host", HOST];
        let output = self.stack.lictor(&[&put, arguments].concat())?;
        ensure!(output.code == 0, "{}", output.stderr);
        Ok(())
    }

    /// A file with a password, where the search for secrets does not look.
    fn password(&self, password: &str) -> Result<String> {
        let path = self.kdc.path("password");
        std::fs::write(&path, password)?;
        text(&path)
    }

    /// A keytab with a key of `alice`.
    fn keytab(&self) -> Result<PathBuf> {
        let path = self.kdc.path("alice.keytab");
        self.kdc.keytab(&["alice"], &path)?;
        Ok(path)
    }

    fn task(&self, credential: &str, arguments: &[&str]) -> Result<Value> {
        let submit = ["--host", "localhost", "--credential", credential];
        let task_id = self.stack.submit(&[&submit[..], arguments].concat())?;
        self.stack.task_in(&task_id, FINAL, PATIENCE)
    }

    /// A command that shows who it runs as, and what was written to standard error.
    fn whoami(&self, credential: &str, arguments: &[&str]) -> Result<(Value, String)> {
        let task = self.task(credential, &[arguments, &["--", "whoami"]].concat())?;
        let task_id = task["task_id"].as_str().context("task_id")?;
        let output = self.stack.lictor(&["task", "watch", task_id])?;
        ensure!(task["state"] == "succeeded", "{task:#}\n{}", output.stderr);
        ensure!(output.text().to_lowercase().contains(r"corp\alice"), "{}", output.text());
        Ok((task, output.stderr))
    }
}

fn text(path: &Path) -> Result<String> {
    Ok(path.to_str().context("UTF-8")?.to_owned())
}

fn failure(task: &Value) -> &Value {
    &task["result"]["error"]
}

#[test]
fn a_password_a_keytab_and_a_cache_all_give_tickets() -> Result<()> {
    let domain = Domain::start()?;
    let cache = format!("FILE:{}", domain.kdc.path("alice.cache").display());
    let keytab = domain.keytab()?;
    let keytabs = [("LICTOR_AGENT_KERBEROS__KEYTABS", keytab.to_str().context("UTF-8")?)];
    let _agent = domain.agent("agent-1", &[&keytabs[..], &[("LICTOR_AGENT_KERBEROS__CACHES", &cache)]].concat())?;
    let alice = domain.kdc.principal("alice");

    // A user of the realm that the agent knows: SPNEGO turns out to be Kerberos.
    domain.credential("upn", &alice, &["--password-file", &domain.password(PASSWORD)?])?;
    let (task, stderr) = domain.whoami("upn", &[])?;
    ensure!(task["result"]["connection"]["auth"].as_str().is_some_and(|auth| auth.contains("kerberos")), "{task:#}");
    ensure!(task["result"]["connection"]["sealed"] == true, "{task:#}");
    ensure!(!stderr.contains("Getting"), "nobody asked for a trace: {stderr}");
    // Another session needs no other ticket.
    let before = (domain.kdc.as_exchanges(), domain.kdc.tgs_exchanges());
    domain.whoami("upn", &["--env", "OTHER=shell"])?;
    ensure!((domain.kdc.as_exchanges(), domain.kdc.tgs_exchanges()) == before, "{}", domain.kdc.log());

    // A keytab that the control plane keeps, with a trace into the output.
    domain.credential("keytab", &alice, &["--auth", "kerberos", "--keytab", &text(&keytab)?])?;
    let (task, stderr) = domain.whoami("keytab", &["--kerberos-trace"])?;
    ensure!(stderr.contains(&format!("Getting initial credentials for {alice}")), "{stderr}");
    ensure!(stderr.contains(&format!("HTTP/{HOST}")), "{stderr}");
    ensure!(task["result"]["output_gap"] == false, "{task:#}");

    // New tickets each time a session is opened.
    let before = domain.kdc.as_exchanges();
    for shell in ["A=1", "A=2"] {
        domain.whoami("keytab", &["--fresh-tickets", "--env", shell])?;
    }
    ensure!(domain.kdc.as_exchanges() == before + 2, "{}", domain.kdc.log());

    // What is on the agent: a keytab, and what somebody's kinit left.
    domain.credential("own", &alice, &["--auth", "kerberos", "--keytab-on-agent"])?;
    domain.whoami("own", &[])?;
    domain.kdc.kinit(&alice, PASSWORD, &cache, &[])?;
    domain.credential("cache", &alice, &["--auth", "kerberos", "--ccache-on-agent", &cache])?;
    let before = domain.kdc.as_exchanges();
    domain.whoami("cache", &[])?;
    ensure!(domain.kdc.as_exchanges() == before, "the ticket was there: {}", domain.kdc.log());

    let listed = domain.stack.lictor_json(&["credential", "list"])?;
    let kinds: Vec<&str> = listed["credentials"]
        .as_array()
        .context("credentials")?
        .iter()
        .filter_map(|credential| credential["secret_kind"].as_str())
        .collect();
    assert_eq!(kinds, ["ccache_on_agent", "keytab", "keytab_on_agent", "password"]);
    Ok(())
}

#[test]
fn a_task_goes_to_the_agent_whose_keytab_has_the_key() -> Result<()> {
    let domain = Domain::start()?;
    let keytab = domain.keytab()?;
    let directory = keytab.parent().context("a directory")?.join("keytabs");
    std::fs::create_dir(&directory)?;
    std::fs::copy(&keytab, directory.join("alice.keytab"))?;
    let _without = domain.agent("agent-1", &[])?;
    let alice = domain.kdc.principal("alice");
    domain.credential("own", &alice, &["--auth", "kerberos", "--keytab-on-agent"])?;
    let arguments = ["--host", "localhost", "--credential", "own", "--", "whoami"];
    let task_id = domain.stack.submit(&arguments)?;
    let waiting = domain.stack.task(&task_id)?;
    let candidates = waiting["candidates"].as_array().context("candidates")?;
    ensure!(candidates.len() == 1 && candidates[0]["code"] == "missing_keytab", "{waiting:#}");

    let directory = text(&directory)?;
    let _with = domain.agent("agent-2", &[("LICTOR_AGENT_KERBEROS__KEYTABS", directory.as_str())])?;
    let task = domain.stack.task_in(&task_id, FINAL, PATIENCE)?;
    ensure!(task["state"] == "succeeded" && task["agent_name"] == "agent-2", "{task:#}");
    let agents = domain.stack.lictor_json(&["agent", "list"])?;
    assert_eq!(agents["agents"][1]["kerberos_principals"][0], alice.as_str());

    // A file that no agent permits is opened for nobody.
    domain.credential("other", &alice, &["--auth", "kerberos", "--keytab-on-agent", "/etc/shadow"])?;
    let task = domain.task("other", &["--queue-timeout", "2s", "--", "whoami"])?;
    assert_eq!(task["state"], "rejected", "{task:#}");
    ensure!(task.to_string().contains("kerberos.keytabs"), "{task:#}");
    Ok(())
}

#[test]
fn a_keytab_that_was_refused_is_good_again_when_it_is_replaced() -> Result<()> {
    let domain = Domain::start()?;
    let old = domain.keytab()?;
    let directory = old.parent().context("a directory")?.join("keytabs");
    std::fs::create_dir(&directory)?;
    let held = directory.join("alice.keytab");
    std::fs::copy(&old, &held)?;
    domain.kdc.change_password("alice", "An0ther-password")?;
    let _agent = domain.agent("agent-1", &[("LICTOR_AGENT_KERBEROS__KEYTABS", text(&directory)?.as_str())])?;
    domain.credential("own", &domain.kdc.principal("alice"), &["--auth", "kerberos", "--keytab-on-agent"])?;
    for _ in 0..3 {
        let task = domain.task("own", &["--test"])?;
        assert_eq!(failure(&task)["code"], "kerberos.keytab_rejected", "{task:#}");
    }
    assert_eq!(domain.kdc.logged(&["AS_REQ", "PREAUTH_FAILED"]), 1, "{}", domain.kdc.log());
    let new = domain.kdc.path("new.keytab");
    domain.kdc.keytab(&["alice"], &new)?;
    std::fs::copy(&new, directory.join("alice.keytab.new"))?;
    std::fs::rename(directory.join("alice.keytab.new"), &held)?;
    domain.whoami("own", &[])?;
    Ok(())
}

#[test]
fn a_wrong_password_is_tried_once_by_all_agents_together() -> Result<()> {
    let domain = Domain::start()?;
    let _agents = [domain.agent("agent-1", &[])?, domain.agent("agent-2", &[])?];
    let alice = domain.kdc.principal("alice");
    domain.credential("wrong", &alice, &["--auth", "kerberos", "--password-file", &domain.password("Wr0ng")?])?;
    let first = domain.task("wrong", &["--test"])?;
    assert_eq!(failure(&first)["code"], "kerberos.password_rejected", "{first:#}");
    assert_eq!(failure(&first)["stage"], "authenticate", "{first:#}");
    for text in ["message", "cause", "remedy", "legacy_text"] {
        ensure!(failure(&first)[text].as_str().is_some_and(|text| !text.is_empty()), "{text} in {first:#}");
    }
    for _ in 0..4 {
        let task = domain.task("wrong", &["--test"])?;
        assert_eq!(failure(&task)["code"], "credential.rejected", "{task:#}");
    }
    assert_eq!(domain.kdc.logged(&["AS_REQ", "PREAUTH_FAILED"]), 1, "{}", domain.kdc.log());
    // The right one is another version, and good at once.
    domain.credential("wrong", &alice, &["--auth", "kerberos", "--password-file", &domain.password(PASSWORD)?])?;
    domain.whoami("wrong", &[])?;
    Ok(())
}

#[test]
fn a_service_that_the_domain_does_not_know_is_named() -> Result<()> {
    let domain = Domain::start()?;
    let _agent = domain.agent("agent-1", &[])?;
    let alice = domain.kdc.principal("alice");
    domain.credential("upn", &alice, &["--auth", "kerberos", "--password-file", &domain.password(PASSWORD)?])?;
    let task = domain.task("upn", &["--spn-host", "nobody.corp.example", "--test"])?;
    assert_eq!(failure(&task)["code"], "kerberos.service_unknown", "{task:#}");
    ensure!(failure(&task).to_string().contains("nobody.corp.example"), "{task:#}");
    // Nothing was wrong with the credential.
    domain.whoami("upn", &[])?;
    Ok(())
}

#[test]
fn settings_declare_a_realm_for_everybody_in_the_container() -> Result<()> {
    let domain = Domain::start()?;
    let file = domain.kdc.path("agent.toml");
    let (realm, port) = (domain.kdc.realm(), domain.kdc.port());
    std::fs::write(
        &file,
        format!(
            "[kerberos]\ndns_lookup_kdc = false\nrdns = false\ndefault_realm = \"{realm}\"\n\
             [kerberos.realms.\"{realm}\"]\nkdc = [\"127.0.0.1:{port}\"]\n\
             [kerberos.domain_realm]\n\"{HOST}\" = \"{realm}\"\n"
        ),
    )?;
    let agent = domain.stack.agent_with_config("agent-1", &file)?;
    let rendered = std::fs::read_to_string(agent.state.join("krb5.conf"))?;
    ensure!(rendered.contains(realm) && rendered.contains(&port.to_string()), "{rendered}");
    let file = domain.password(PASSWORD)?;
    domain.credential("bare", "alice", &["--auth", "kerberos", "--password-file", &file])?;
    domain.whoami("bare", &[])?;
    Ok(())
}

#[test]
fn passwords_and_keys_of_kerberos_are_in_no_log_and_no_state() -> Result<()> {
    let mut domain = Domain::start()?;
    let keytab = domain.keytab()?;
    let keytabs = [("LICTOR_AGENT_KERBEROS__KEYTABS", keytab.to_str().context("UTF-8")?)];
    let _agent = domain.agent("agent-1", &[&keytabs[..], &[("LICTOR_AGENT_LOG__LEVEL", "trace")]].concat())?;
    let alice = domain.kdc.principal("alice");
    domain.credential("upn", &alice, &["--auth", "kerberos", "--password-file", &domain.password(PASSWORD)?])?;
    domain.credential("keytab", &alice, &["--auth", "kerberos", "--keytab", &text(&keytab)?])?;
    domain.credential("own", &alice, &["--auth", "kerberos", "--keytab-on-agent"])?;
    for credential in ["upn", "keytab", "own"] {
        domain.whoami(credential, &["--kerberos-trace", "--env", &format!("A={credential}")])?;
    }
    // The last key of the file, which ends with it or with a key version of four bytes.
    let bytes = std::fs::read(&keytab)?;
    let end = bytes.len() - 4;
    let key = bytes.get(end - 16..end).context("a key")?;
    crate::secrecy::search_for(&domain.stack, "while it runs", &[PASSWORD.as_bytes(), key])?;
    domain.stack.control_plane.kill()?;
    crate::secrecy::search_for(&domain.stack, "as a crash leaves it", &[PASSWORD.as_bytes(), key])?;
    Ok(())
}
