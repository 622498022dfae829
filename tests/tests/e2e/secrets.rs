//! Secrets and secret managers as users meet them: written through agents, used by tasks, counted at emulators of AWS that others
//! wrote.

mod crowds;
mod failures;
mod kinds;
mod marker;
mod routing;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{Agent, Aws, Output, PASSWORD, Stack, USER, Windows, WindowsOptions, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{FINAL, PATIENCE};

/// An installation, and AWS with keys, users and roles.
struct Scene {
    aws: Aws,
    world: Value,
    stack: Stack,
    /// What the tests hand over; set aside, so that a search need not know these files.
    own: TempDir,
}

impl Scene {
    /// Nothing where emulators are missing and not required.
    fn start(kind: &str) -> Result<Option<Self>> {
        Self::start_with(kind, &json!({}), |_| Vec::new())
    }

    /// With arguments of the world, and variables of the control plane, which may name the emulator.
    fn start_with(
        kind: &str,
        arguments: &Value,
        variables: impl FnOnce(&Aws) -> Vec<(&'static str, String)>,
    ) -> Result<Option<Self>> {
        let Some(aws) = Aws::start(kind, &[])? else { return Ok(None) };
        let world = aws.order("world", arguments)?;
        aws.reset()?;
        let variables = variables(&aws);
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let stack = Stack::start(&variables)?;
        let own = tempfile::tempdir()?;
        // Without this, agents call nobody but AWS.
        std::fs::write(own.path().join("policy.toml"), "[secrets]\nkms_endpoints = [\"http://127.0.0.1:*\"]\n")?;
        Ok(Some(Self { aws, world, stack, own }))
    }

    /// A text of the world's, by JSON pointer.
    fn made(&self, pointer: &str) -> Result<&str> {
        self.world.pointer(pointer).and_then(Value::as_str).with_context(|| format!("{pointer} in {}", self.world))
    }

    /// An agent that may call the emulators. It is nobody there by its own machine, unless `variables` say otherwise.
    fn agent(&self, name: &str, variables: &[(&str, &str)]) -> Result<Agent> {
        let policy = text(&self.own.path().join("policy.toml"))?;
        let own = [("LICTOR_AGENT_POLICY_FILE", policy.as_str()), ("AWS_EC2_METADATA_DISABLED", "true")];
        self.stack.agent(name, &[&own[..], variables].concat())
    }

    /// The same, being a user of the world's by its variables.
    fn agent_of(&self, name: &str, user: &str) -> Result<Agent> {
        let id = self.made(&format!("/users/{user}/access_key_id"))?;
        let secret = self.made(&format!("/users/{user}/secret_access_key"))?;
        self.agent(name, &[("AWS_ACCESS_KEY_ID", id), ("AWS_SECRET_ACCESS_KEY", secret)])
    }

    /// A host for NTLM. Unlike with `ntlm_host`, no credential has its password.
    fn host(&self, name: &str) -> Result<Windows> {
        let options = WindowsOptions { arguments: &["--auth", "ntlm,negotiate"], ..WindowsOptions::default() };
        self.stack.windows(name, &options)
    }

    /// `lictor`, which must succeed.
    fn lictor(&self, arguments: &[&str]) -> Result<Output> {
        let output = self.stack.lictor(arguments)?;
        ensure!(output.code == 0, "{arguments:?}: {} {}", output.text(), output.stderr);
        Ok(output)
    }

    /// `lictor`, which must fail; what it says of that.
    fn refused(&self, arguments: &[&str]) -> Result<String> {
        let output = self.stack.lictor(arguments)?;
        ensure!(output.code != 0, "{arguments:?}: {}", output.text());
        Ok(output.stderr)
    }

    /// A file with `value`.
    fn file(&self, name: &str, value: &[u8]) -> Result<String> {
        let file = self.own.path().join(name);
        std::fs::write(&file, value)?;
        text(&file)
    }

    /// Stores a secret.
    fn put(&self, identifier: &str, value: &[u8], arguments: &[&str]) -> Result<Output> {
        let file = self.file(identifier, value)?;
        self.lictor(&[&["secret", "put", identifier, "--value-file", &file], arguments].concat())
    }

    /// Stores a secret manager for the world's key, with what says who uses it.
    fn manager(&self, identifier: &str, arguments: &[&str]) -> Result<()> {
        let url = self.aws.url();
        let put = ["secret-manager", "put", identifier, "aws-kms", "--key", self.made("/alias_arn")?];
        self.lictor(&[&put[..], &["--endpoint", &url, "--sts-endpoint", &url], arguments].concat())?;
        Ok(())
    }

    /// The same with the access key of a user, whose secret half is in the built-in store.
    fn manager_of(&self, identifier: &str, user: &str) -> Result<()> {
        let secret = format!("aws-{user}");
        let value = self.made(&format!("/users/{user}/secret_access_key"))?.as_bytes();
        self.put(&secret, value, &[])?;
        let id = self.made(&format!("/users/{user}/access_key_id"))?;
        self.manager(identifier, &["--access-key-id", id, "--secret-access-key-secret", &secret])
    }

    /// Tests a secret manager; the task as it ended.
    fn tested(&self, identifier: &str) -> Result<Value> {
        let output = self.stack.lictor(&["--output", "json", "secret-manager", "test", identifier])?;
        let text = output.text();
        let last = text.lines().last().with_context(|| format!("no event: {}", output.stderr))?;
        let event: Value = serde_json::from_str(last)?;
        let task = &event["task"];
        ensure!((task["state"] == "succeeded") == (output.code == 0), "exit code {}: {task:#}", output.code);
        Ok(task.clone())
    }

    /// Stores a credential for [`USER`] whose password is a secret.
    fn credential(&self, name: &str, secret: &str, windows: &Windows) -> Result<()> {
        let put = ["credential", "put", name, "--user", USER, "--secret", secret, "--auth", "negotiate"];
        self.lictor(&[&put[..], &["--scheme", "http", "--port", &windows.port]].concat())?;
        Ok(())
    }

    /// [`PASSWORD`] as the secret and the credential `web`, kept by `manager`.
    fn web(&self, manager: &str, windows: &Windows) -> Result<()> {
        self.put("web-password", PASSWORD.as_bytes(), &["--manager", manager])?;
        self.credential("web", "web-password", windows)
    }

    /// Runs a task to its end.
    fn task(&self, credential: &str, arguments: &[&str]) -> Result<Value> {
        let submit = ["--host", "127.0.0.1", "--credential", credential];
        let task_id = self.stack.submit(&[&submit[..], arguments].concat())?;
        self.stack.task_in(&task_id, FINAL, PATIENCE)
    }

    /// A command that must succeed; by whom it was run.
    fn runs(&self, credential: &str, arguments: &[&str]) -> Result<String> {
        let task = self.task(credential, &[arguments, &["--", "hostname"]].concat())?;
        ensure!(task["state"] == "succeeded", "{task:#}");
        Ok(task["agent_name"].as_str().context("agent_name")?.to_owned())
    }

    /// A task that cannot begin while KMS fails as `words` say, which is mended meanwhile. It must succeed.
    fn waits_for_kms(&self, credential: &str, words: &str) -> Result<()> {
        let waiting = self.stack.submit(&["--host", "127.0.0.1", "--credential", credential, "--", "hostname"])?;
        eventually("the task waits for KMS", PATIENCE, || {
            let task = self.stack.task(&waiting)?;
            let candidate = &task["candidates"][0];
            ensure!(candidate["code"] == "retry_pause", "{task:#}");
            ensure!(candidate["reason"].as_str().is_some_and(|reason| reason.contains(words)), "{task:#}");
            Ok(())
        })?;
        self.aws.rules(&[])?;
        let task = self.stack.task_in(&waiting, FINAL, PATIENCE)?;
        ensure!(task["state"] == "succeeded", "{task:#}");
        Ok(())
    }
}

fn text(path: &Path) -> Result<String> {
    Ok(path.to_str().context("UTF-8")?.to_owned())
}

/// What came of each side of a secret manager.
fn outcomes(task: &Value) -> Vec<(&str, &str)> {
    let rungs = task["result"]["rungs"].as_array().map(Vec::as_slice).unwrap_or_default();
    rungs
        .iter()
        .map(|rung| (rung["stage"].as_str().unwrap_or_default(), rung["outcome"].as_str().unwrap_or_default()))
        .collect()
}

/// What was found out about who it is.
fn identity(task: &Value) -> &str {
    task["result"]["rungs"][0]["detail"].as_str().unwrap_or_default()
}

/// All three sides are as they should be.
const PASSED: [(&str, &str); 3] = [("identity", "passed"), ("write", "passed"), ("read", "passed")];

/// Nobody there.
const NOBODY: [(&str, &str); 3] = [("identity", "failed"), ("write", "skipped"), ("read", "skipped")];
