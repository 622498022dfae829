//! Which agent gets work for the sake of a secret, and what on agents is one.

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{PASSWORD, WindowsOptions};
use serde_json::{Value, json};

use super::{PASSED, Scene, outcomes, text};

/// Name, code and reason of each agent that was looked at.
fn candidates(task: &Value) -> Result<Vec<(&str, &str, &str)>> {
    let candidates = task["candidates"].as_array().context("candidates")?;
    Ok(candidates
        .iter()
        .map(|candidate| {
            let [name, code, reason] = ["agent_name", "code", "reason"].map(|field| candidate[field].as_str());
            (name.unwrap_or_default(), code.unwrap_or_default(), reason.unwrap_or_default())
        })
        .collect())
}

#[test]
fn delegate_selectors_say_which_agents_use_a_secret_manager() -> Result<()> {
    let Some(scene) = Scene::start("ministack")? else { return Ok(()) };
    let _bystander = scene.agent("agent-1", &[("LICTOR_AGENT_TAGS", "linux")])?;
    let id = scene.made("/users/full/access_key_id")?;
    let secret = scene.made("/users/full/secret_access_key")?;
    let being = [("AWS_ACCESS_KEY_ID", id), ("AWS_SECRET_ACCESS_KEY", secret), ("LICTOR_AGENT_TAGS", "linux,site-b")];
    let windows = scene.host("win-a")?;
    scene.manager("corp", &["--machine-role", "--agent-tag", "site-b"])?;

    // Nobody has the tag.
    let file = scene.file("web-password", PASSWORD.as_bytes())?;
    let said = scene.refused(&["secret", "put", "web-password", "--value-file", &file, "--manager", "corp"])?;
    ensure!(said.contains("agent-1: it lacks the tag(s) site-b, which the secret manager corp asks for"), "{said}");
    scene.refused(&["secret", "show", "web-password"])?;

    let mut chosen = scene.agent("agent-2", &being)?;
    let task = scene.tested("corp")?;
    assert_eq!((outcomes(&task), &task["agent_name"]), (PASSED.to_vec(), &json!("agent-2")), "{task:#}");
    let output = scene.put("web-password", PASSWORD.as_bytes(), &["--manager", "corp"])?;
    ensure!(output.stderr.contains("sealed to the agent agent-2"), "{}", output.stderr);
    scene.credential("web", "web-password", &windows)?;
    for _ in 0..4 {
        assert_eq!(scene.runs("web", &["--tag", "linux"])?, "agent-2");
    }

    chosen.process.kill()?;
    let task = scene.task("web", &["--queue-timeout", "1s", "--", "hostname"])?;
    assert_eq!(task["state"], "rejected", "{task:#}");
    let looked_at = candidates(&task)?;
    assert_eq!((looked_at.len(), looked_at[0].0, looked_at[0].1), (2, "agent-1", "secret_manager"), "{task:#}");
    ensure!(looked_at[0].2.contains("site-b") && looked_at[0].2.contains("corp"), "{task:#}");
    assert_eq!(looked_at[1].0, "agent-2", "{task:#}");
    let shown = scene.lictor(&["task", "show", task["task_id"].as_str().context("task_id")?])?.text();
    ensure!(shown.contains("agent-1") && shown.contains("secret_manager") && shown.contains("site-b"), "{shown}");
    Ok(())
}

#[test]
fn files_and_variables_of_an_agent_are_secrets_where_its_settings_say() -> Result<()> {
    let Some(scene) = Scene::start("moto")? else { return Ok(()) };
    let mounted = scene.own.path().join("mounted");
    std::fs::create_dir(&mounted)?;
    std::fs::write(mounted.join("web"), format!("{PASSWORD}\n"))?;
    let mounted = text(&mounted)?;
    // Of a user of this test's own: while the agent starts, others may look at its environment for the common password.
    let bob = "B0b-Mark3r-3";
    let bobs = scene.file("bob", bob.as_bytes())?;
    let arguments = ["--auth", "ntlm,negotiate", "--user", r"CORP\bob", "--password-file", &bobs];
    let options = WindowsOptions { arguments: &arguments, ..WindowsOptions::default() };
    let windows = scene.stack.windows("win-a", &options)?;
    let _without = scene.agent("agent-1", &[])?;
    let with = [("LICTOR_AGENT_SECRETS__DIRECTORIES", mounted.as_str()), ("LICTOR_SECRET_web", bob)];
    let agent = scene.agent("agent-2", &with)?;
    let environ = std::fs::read(format!("/proc/{}/environ", agent.process.pid()))?;
    ensure!(!environ.windows(bob.len()).any(|part| part == bob.as_bytes()), "it is still in its environment");

    let source = |identifier: &str, source: &str| scene.lictor(&["secret", "put", identifier, "--source", source]);
    source("mounted", &format!("file:{mounted}/web"))?;
    source("variable", "env:LICTOR_SECRET_web")?;
    scene.credential("mounted", "mounted", &windows)?;
    assert_eq!(scene.runs("mounted", &[])?, "agent-2");
    let put = ["credential", "put", "variable", "--user", r"CORP\bob", "--secret", "variable", "--auth", "negotiate"];
    scene.lictor(&[&put[..], &["--scheme", "http", "--port", &windows.port]].concat())?;
    assert_eq!(scene.runs("variable", &[])?, "agent-2");

    for (identifier, place, words) in [
        ("gone", format!("file:{mounted}/none"), "is not on this agent"),
        ("outside", format!("file:{}", scene.file("outside", b"0utside")?), "secrets.directories"),
        ("unset", "env:LICTOR_SECRET_none".to_owned(), "is not on this agent"),
    ] {
        source(identifier, &place)?;
        scene.credential(identifier, identifier, &windows)?;
        let task = scene.task(identifier, &["--queue-timeout", "1s", "--", "hostname"])?;
        assert_eq!(task["state"], "rejected", "{task:#}");
        let looked_at = candidates(&task)?;
        assert_eq!(looked_at[0].1, "missing_capability", "{task:#}");
        ensure!(looked_at[1].1 == "handed_back" && looked_at[1].2.contains(words), "{task:#}");
    }
    for place in ["file:relative", "env:HOME", "/etc/shadow", "file:/etc/../shadow"] {
        scene.refused(&["secret", "put", "bad", "--source", place])?;
    }
    assert_eq!(windows.failed_logons()?, 0);
    Ok(())
}

#[test]
fn what_a_secret_manager_authenticates_with_is_kept_in_the_built_in_store() -> Result<()> {
    let Some(scene) = Scene::start("moto")? else { return Ok(()) };
    let _agent = scene.agent("agent-1", &[])?;
    scene.manager_of("corp", "full")?;
    scene.put("key", b"wr0ng-place", &["--manager", "corp"])?;
    let url = scene.aws.url();
    let put = |identifier: &str| {
        let key = scene.made("/key")?;
        let put = ["secret-manager", "put", identifier, "aws-kms", "--key", key, "--endpoint", &url];
        let with = ["--access-key-id", "AKIAIOSFODNN7EXAMPLE", "--secret-access-key-secret", "key"];
        scene.refused(&[&put[..], &with].concat())
    };
    let said = put("other")?;
    ensure!(said.contains("secret-manager other -> secret key -> secret-manager corp"), "{said}");
    let said = put("corp")?;
    ensure!(said.contains("secret-manager corp -> secret key -> secret-manager corp"), "{said}");
    ensure!(said.contains("nothing in a circle can be opened first"), "{said}");
    // Nor does its own key move under it.
    let file = scene.file("aws-full", b"wr0ng-place")?;
    let said = scene.refused(&["secret", "put", "aws-full", "--value-file", &file, "--manager", "corp"])?;
    ensure!(said.contains("secret-manager corp"), "{said}");
    let said = scene.refused(&["secret-manager", "delete", "corp"])?;
    ensure!(said.contains("keeps secret key"), "{said}");
    assert_eq!(outcomes(&scene.tested("corp")?), PASSED);
    Ok(())
}
