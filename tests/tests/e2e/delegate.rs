//! An existing `delegate.yaml` becomes a working agent after its INIT_SCRIPT, which can be replaced without being run.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{Output, PASSWORD, Process, Stack, WindowsOptions, binary};
use serde::Deserialize as _;
use serde_yaml_ng::Value;

use crate::{FINAL, PATIENCE};

const MANIFEST: &str = include_str!("delegate.yaml");
/// Stands in the manifest's INIT_SCRIPT.
const MARKER: &str = "Script-Marker-5c1d";

/// The manifest for a control plane, with files in `directory`.
fn manifest(server: &str, token: &str, authority: &Path, directory: &Path) -> String {
    MANIFEST
        .replace("@MANAGER@", server)
        .replace("@TOKEN@", token)
        .replace("@AUTHORITY@", &authority.display().to_string())
        .replace("@DIRECTORY@", &directory.display().to_string())
}

/// The environment that the container `delegate` of a manifest gets from Kubernetes.
fn environment(manifest: &str) -> Result<BTreeMap<String, String>> {
    let documents: Vec<Value> =
        serde_yaml_ng::Deserializer::from_str(manifest).map(Value::deserialize).collect::<Result<_, _>>()?;
    let of_kind = |kind: &'static str| documents.iter().filter(move |document| document["kind"] == kind);
    let deployment = of_kind("Deployment").next().context("no Deployment")?;
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    ensure!(container["name"] == "delegate", "{container:?}");
    let text = |value: &Value| value.as_str().map(str::to_owned).context("not a text");
    let mut environment = BTreeMap::new();
    for source in container["envFrom"].as_sequence().context("envFrom")? {
        let name = &source["secretRef"]["name"];
        let secret = of_kind("Secret").find(|secret| secret["metadata"]["name"] == *name).context("no such Secret")?;
        for (key, value) in secret["stringData"].as_mapping().context("stringData")? {
            environment.insert(text(key)?, text(value)?);
        }
    }
    for variable in container["env"].as_sequence().context("env")? {
        let value = match variable.get("value") {
            Some(value) => text(value)?,
            None => {
                ensure!(variable["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.namespace", "{variable:?}");
                text(&deployment["metadata"]["namespace"])?
            }
        };
        environment.insert(text(&variable["name"])?, value);
    }
    Ok(environment)
}

#[test]
fn a_delegate_yaml_becomes_a_working_agent() -> Result<()> {
    let stack = Stack::start(&[])?;
    let directory = stack.directory().join("pod");
    std::fs::create_dir(&directory)?;
    let server = format!("https://{}", stack.control_plane.address);
    let token = stack.join_token(&["--max-uses", "0"])?;
    let environment = environment(&manifest(&server, &token, &stack.certificates.ca, &directory))?;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let name = match host.trim() {
        host if host.starts_with("winrm-delegate-") => host.to_owned(),
        host => format!("winrm-delegate-{host}"),
    };

    let ready_file = directory.join("ready");
    let mut command = Command::new(binary("lictor-agent")?);
    command.arg("run").arg("--ready-file").arg(&ready_file).current_dir(&directory).env_clear().envs(&environment);
    // Here is no pod with an address of its own: a free port of the loopback takes the place of 3460 on all addresses, which
    // is what `check-config` shows below.
    command.env("LICTOR_AGENT_HTTP_LISTEN", "127.0.0.1:0");
    let mut agent = Process::start("delegate", &mut command, &directory.join("log"))?;
    let ready = agent.ready(&ready_file)?;
    // Where the manifest's probes ask.
    let address = ready["http_address"].as_str().context("no address")?;
    let (status, _) = lictor_tests::get(address, "/api/health")?;
    ensure!(status == 200, "{status}");
    let (status, metrics) = lictor_tests::get(address, "/api/metrics")?;
    ensure!(status == 200 && metrics.contains("agent_slots"), "{status} {metrics}");

    let agents = stack.lictor_json(&["agent", "list"])?;
    let shown = &agents["agents"][0];
    ensure!(shown["name"] == name && shown["slots"] == 3 && shown["scope"] == "default/web", "{agents:#}");

    // Over HTTPS: the host's authority is known by ADDITIONAL_CERTS_PATH alone.
    let options = WindowsOptions { tls: true, arguments: &["--auth", "ntlm,negotiate"], ..WindowsOptions::default() };
    let windows = stack.windows("win-a", &options)?;
    stack.credential("web", PASSWORD, &["--auth", "negotiate", "--scheme", "https", "--port", &windows.port])?;
    let target = ["--host", "localhost", "--credential", "web", "--tag", "winrm-delegate", "--tag", "site-a"];
    let test = stack.submit(&[&["--test"], &target[..]].concat())?;
    let task = stack.task_in(&test, FINAL, PATIENCE)?;
    ensure!(task["state"] == "succeeded", "{task:#}");
    let run = stack.lictor(&[&["task", "submit", "--watch"], &target[..], &["--", "whoami"]].concat())?;
    ensure!(run.code == 0 && run.text().to_lowercase().contains(r"corp\alice"), "{}\n{}", run.text(), run.stderr);

    let log = agent.log();
    let ignored: Vec<&str> = log.lines().filter(|line| line.contains("do nothing here")).collect();
    ensure!(ignored.len() == 1, "{ignored:?}");
    for name in
        ["JAVA_OPTS", "ACCOUNT_ID", "DEPLOY_MODE", "NEXT_GEN", "LOG_STREAMING_SERVICE_URL", "DELEGATE_NAMESPACE"]
    {
        ensure!(ignored[0].contains(&format!("{name}: ")), "{name} is missing in {}", ignored[0]);
    }
    ensure!(log.contains("its path means nothing here"), "{log}");
    ensure!(!log.contains(MARKER) && !log.contains(&token), "a secret is in the log");
    // The script ran: what it wrote and exported is there, and its secrets and those of the pod are not.
    ensure!(
        log.contains("microdnf: command not found") && log.contains("(INIT_SCRIPT) ended with exit status 1"),
        "{log}"
    );
    let inside = String::from_utf8_lossy(&std::fs::read(format!("/proc/{}/environ", agent.pid()))?).into_owned();
    ensure!(inside.contains(&format!("KRB5_CONFIG={}", directory.join("krb5.conf").display())), "{inside}");
    ensure!(!inside.contains(MARKER) && !inside.contains(&token), "a secret is in the environment");
    agent.terminate()?;
    ensure!(agent.wait(PATIENCE)?.success(), "{}", agent.log());
    Ok(())
}

#[test]
fn check_config_tells_what_becomes_of_a_delegate_yaml() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let token = format!("lictor-join.i.{}.{}", "A".repeat(43), "B".repeat(42) + "A");
    let given =
        environment(&manifest("https://cp.corp.example:7443", &token, Path::new("/nowhere"), directory.path()))?;
    let run = |more: &[(&str, &str)], arguments: &[&str]| {
        let mut command = Command::new(binary("lictor-agent")?);
        command.arg("check-config").args(arguments).current_dir(directory.path()).env_clear().envs(&given);
        Output::of(command.envs(more.iter().copied()), PATIENCE)
    };
    let output = run(&[], &[])?;
    let text = output.text();
    ensure!(output.code == 0, "{text}\n{}", output.stderr);
    let row = |key: &str| text.lines().find(|line| line.split_whitespace().next() == Some(key)).unwrap_or_default();
    for (key, value, from) in [
        ("control_plane", "https://cp.corp.example:7443", "MANAGER_HOST_AND_PORT"),
        ("slots", "3", "DELEGATE_TASK_CAPACITY"),
        ("scope", "default/web", "DELEGATE_ORG_IDENTIFIER, DELEGATE_PROJECT_IDENTIFIER"),
        ("drain_grace", "1m", "default"),
        // Where the manifest's probes ask.
        ("http_listen", "0.0.0.0:3460", ""),
        ("join", "set, not shown", "DELEGATE_TOKEN"),
        ("JAVA_OPTS:", "there is no Java here", ""),
        ("ADDITIONAL_CERTS_PATH:", "is not there", ""),
    ] {
        ensure!(row(key).contains(value) && row(key).ends_with(from), "{key} in:\n{text}");
    }
    let json = run(&[("LICTOR_AGENT_SLOTS", "5")], &["--output", "json"])?;
    let shown = json.json()?;
    ensure!(shown["valid"] == true, "{shown:#}");
    let settings = shown["settings"].as_array().context("settings")?;
    let slots = settings.iter().find(|setting| setting["key"] == "slots").context("slots")?;
    ensure!(slots["value"] == "5" && slots["source"] == "LICTOR_AGENT_SLOTS", "{slots}");
    let wrong = run(&[("DELEGATE_TOKEN", "0b1c2d3e4f"), ("DELEGATE_TASK_CAPACITY", "0")], &["--output", "json"])?;
    let shown = wrong.json()?;
    ensure!(wrong.code == 64 && shown["mistakes"].as_array().is_some_and(|all| all.len() == 2), "{shown:#}");
    for output in [&output, &json, &wrong] {
        let all = format!("{}{}", output.text(), output.stderr);
        ensure!(
            !all.contains(MARKER) && !all.contains(&token) && !all.contains("0b1c2d3e4f"),
            "a secret is shown: {all}"
        );
    }
    ensure!(std::fs::read_dir(directory.path())?.next().is_none(), "it wrote something");
    Ok(())
}

#[test]
fn the_init_script_of_a_delegate_yaml_is_replaced_without_being_run() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let given = environment(&manifest("https://cp", "t", Path::new("/nowhere"), directory.path()))?;
    let script = directory.path().join("script");
    std::fs::write(&script, &given["INIT_SCRIPT"])?;
    let mut command = Command::new(binary("lictor-agent")?);
    let output = Output::of(command.arg("migrate-init-script").arg(&script).stdin(Stdio::null()), PATIENCE)?;
    let text = output.text();
    ensure!(output.code == 0, "{}", output.stderr);
    for expected in [
        "default_realm = \"CORP.EXAMPLE\"",
        "[kerberos.realms.\"CORP.EXAMPLE\"]",
        "kdc = [\"127.0.0.1:9\"]",
        "lictor credential put alice --user 'alice@CORP.EXAMPLE' --auth kerberos --password-file FILE",
    ] {
        ensure!(text.contains(expected), "{expected:?} is missing in:\n{text}");
    }
    ensure!(!text.contains(MARKER), "the password is shown:\n{text}");
    ensure!(std::fs::read_dir(directory.path())?.count() == 1, "the script was run");

    // The settings are settings.
    let settings = text.split("--config\n").nth(1).and_then(|rest| rest.split("\n##").next()).context("settings")?;
    let file = directory.path().join("agent.toml");
    std::fs::write(&file, format!("control_plane = \"https://cp\"\n{settings}"))?;
    let mut command = Command::new(binary("lictor-agent")?);
    let checked = Output::of(command.arg("check-config").arg("--config").arg(&file), PATIENCE)?;
    ensure!(checked.code == 0 && checked.text().contains("CORP.EXAMPLE (127.0.0.1:9)"), "{}", checked.stderr);
    Ok(())
}
