//! Bad settings are reported all at once, before anything starts.

use std::process::Command;

use anyhow::Result;
use lictor_tests::{Output, binary};

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
