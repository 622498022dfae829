//! Bad settings are reported all at once, before anything starts.

use std::process::Command;

use anyhow::{Context as _, Result};
use lictor_tests::{Output, binary};
use serde_json::Value;

use crate::PATIENCE;

#[test]
fn every_mistake_in_an_agents_settings_is_named_at_once() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("agent.toml");
    std::fs::write(
        &file,
        "control_plane = \"ftp://nowhere\"\nslots = 0\ncolour = \"red\"\nhttp_listen = \"nonsense\"\n\
         drain_grace = \"soon\"\n",
    )?;
    for verb in ["check-config", "run"] {
        let mut command = Command::new(binary("lictor-agent")?);
        command.arg(verb).arg("--config").arg(&file).current_dir(directory.path());
        let output = Output::of(&mut command, PATIENCE)?;
        assert_ne!(output.code, 0);
        let text = format!("{}{}", output.text(), output.stderr);
        for word in ["control_plane", "slots", "colour", "http_listen", "drain_grace"] {
            assert!(text.contains(word), "{verb} does not name {word}:\n{text}");
        }
    }
    Ok(())
}

#[test]
fn every_mistake_in_a_control_planes_settings_is_named_at_once() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut command = Command::new(binary("lictor-control-plane")?);
    command
        .arg("run")
        .current_dir(directory.path())
        .env("LICTOR_CONTROL_PLANE_LISTEN", "nonsense")
        .env("LICTOR_CONTROL_PLANE_LEASE", "soon")
        .env("LICTOR_CONTROL_PLANE_COLOUR", "red")
        .env("LICTOR_MASTER_KEY", "too short");
    let output = Output::of(&mut command, PATIENCE)?;
    assert_ne!(output.code, 0);
    let text = format!("{}{}", output.text(), output.stderr).to_lowercase();
    for word in ["listen", "lease", "colour", "master_key"] {
        assert!(text.contains(word), "{word} is not named:\n{text}");
    }
    assert!(!text.contains("too short"), "the key's value is printed:\n{text}");
    Ok(())
}

#[test]
fn both_programs_tell_every_setting_and_where_it_came_from() -> Result<()> {
    let directory = tempfile::tempdir()?;
    for (program, prefix, base) in [
        ("lictor-agent", "LICTOR_AGENT_", "control_plane: https://lictor.example\n"),
        ("lictor-control-plane", "LICTOR_CONTROL_PLANE_", "names: [lictor.example]\n"),
    ] {
        let file = directory.path().join(format!("{program}.yaml"));
        std::fs::write(&file, format!("{base}log: {{ format: json }}\n"))?;
        let run = |more: &[&str], good: bool| {
            let mut command = Command::new(binary(program)?);
            command.arg("check-config").arg("--config").arg(&file).args(more).current_dir(directory.path()).env_clear();
            // Outside of the range.
            command.env(format!("{prefix}HTTP_LISTEN"), if good { "127.0.0.1:1" } else { "nonsense" });
            command.env("LICTOR_MASTER_KEY", "NzNhMzA4Y2U1MTBmNGI5M2I0NWU0ZDE4Nzk1ZmZmMDA=");
            let output = Output::of(&mut command, PATIENCE)?;
            assert_eq!(output.code == 0, good, "{}{}", output.text(), output.stderr);
            assert!(!format!("{}{}", output.text(), output.stderr).contains("NzNhMz"), "the key is shown");
            anyhow::Ok(output)
        };
        let checked: Value = serde_json::from_str(&run(&["--output", "json"], true)?.text())?;
        assert_eq!(checked["valid"], Value::Bool(true));
        let source = |key: &str| {
            let settings = checked["settings"].as_array().into_iter().flatten();
            let found = settings.into_iter().find(|setting| setting["key"] == key).context(key.to_owned())?;
            anyhow::Ok(found["source"].as_str().unwrap_or_default().to_owned())
        };
        assert_eq!(source("log.format")?, file.display().to_string());
        assert_eq!(source("http_listen")?, format!("{prefix}HTTP_LISTEN"));
        assert_eq!(source("state_dir")?, "default");
        if program == "lictor-control-plane" {
            assert_eq!(source("master key")?, "LICTOR_MASTER_KEY");
        }
        let text = run(&[], true)?.text();
        assert!(text.contains("log.format") && text.contains("The configuration is valid"), "{text}");

        let bad: Value = serde_json::from_str(&run(&["--output", "json"], false)?.text())?;
        assert_eq!(bad["valid"], Value::Bool(false));
        assert!(bad["mistakes"][0].as_str().is_some_and(|text| text.starts_with("http_listen: ")), "{bad}");
    }
    Ok(())
}

#[test]
fn both_programs_print_their_schema_and_an_example_that_they_take() -> Result<()> {
    let directory = tempfile::tempdir()?;
    for program in ["lictor-agent", "lictor-control-plane"] {
        let print = |what: &str| {
            let output = Output::of(Command::new(binary(program)?).arg(what), PATIENCE)?;
            assert_eq!(output.code, 0, "{}", output.stderr);
            anyhow::Ok(output.text())
        };
        let schema: Value = serde_json::from_str(&print("schema")?)?;
        assert_eq!(schema["additionalProperties"], Value::Bool(false));
        let file = directory.path().join("example.yaml");
        std::fs::write(&file, print("example")?)?;
        let mut command = Command::new(binary(program)?);
        command.args(["check-config", "--config"]).arg(&file).current_dir(directory.path()).env_clear();
        let output = Output::of(&mut command, PATIENCE)?;
        assert_eq!(output.code, 0, "{}", output.stderr);
    }
    Ok(())
}
