//! What `lictor-agent doctor` says of the place where an agent works, each by its code. Nothing of it needs a control plane.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{Kdc, KdcOptions, Output, binary};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// The codes of what is not well, when the doctor is started by `shell`, which ends in `"$@"`.
fn codes(shell: &str, state: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Result<Vec<String>> {
    let mut command = Command::new("sh");
    command
        .args(["-c", shell, "sh"])
        .arg(binary("lictor-agent")?)
        .args(["doctor", "--output", "json"])
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("KRB5_CONFIG", "/nowhere/krb5.conf")
        .env("LICTOR_AGENT_CONTROL_PLANE", "https://127.0.0.1:1")
        .env("LICTOR_AGENT_NAME", "agent-1")
        .env("LICTOR_AGENT_STATE_DIR", state)
        .envs(environment.iter().copied());
    let output = Output::of(&mut command, PATIENCE)?;
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| output.stderr.clone())?;
    let checks = report["checks"].as_array().context("checks")?;
    let codes = checks.iter().filter_map(|check| check["finding"]["code"].as_str());
    Ok(codes.map(str::to_owned).collect())
}

fn has(codes: &[String], code: &str) -> Result<()> {
    ensure!(codes.iter().any(|found| found == code), "no {code} among {codes:?}");
    Ok(())
}

/// As MIT writes it: one key of `alice`.
fn keytab(enctype: u8, length: usize) -> Vec<u8> {
    let counted = |text: &str| [&[0, text.len() as u8], text.as_bytes()].concat();
    let mut entry = vec![0, 1];
    entry.extend(counted("CORP.EXAMPLE"));
    entry.extend(counted("alice"));
    // Name type, time, version.
    entry.extend([0, 0, 0, 1, 0x60, 0, 0, 0, 1]);
    entry.extend([0, enctype, 0, length as u8]);
    entry.extend(vec![7; length]);
    [&[5, 2, 0, 0, 0, entry.len() as u8][..], &entry].concat()
}

#[test]
fn what_is_wrong_where_an_agent_works_has_its_code() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let state = directory.path().join("state");
    fs::create_dir(&state)?;
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700))?;
    let plain = "exec \"$@\"";
    has(&codes(plain, &state, &[("LICTOR_AGENT_SLOTS", "0")], &[])?, "agent.configuration")?;
    has(&codes(plain, &state, &[], &["--host", "web 1"])?, "agent.no_host")?;
    has(&codes("ulimit -n 80; exec \"$@\"", &state, &[], &[])?, "agent.open_files")?;
    fs::write(state.join("journal.redb.damaged-1700000000"), "")?;
    has(&codes(plain, &state, &[], &[])?, "agent.journal_damaged")?;

    // A volume of 8 MiB.
    let small = "exec unshare --user --map-root-user --mount \
                 sh -c 'mount -t tmpfs -o size=8m,mode=0700 none \"$LICTOR_AGENT_STATE_DIR\" && exec \"$@\"' sh \"$@\"";
    has(&codes(small, &state, &[], &[])?, "agent.state_space")?;
    Ok(())
}

#[test]
fn keytabs_and_caches_of_no_use_have_their_codes() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let state = directory.path().join("state");
    let plain = "exec \"$@\"";
    let krb5_conf = directory.path().join("krb5.conf");
    fs::write(&krb5_conf, "[libdefaults]\n dns_lookup_kdc = false\n")?;
    let krb5_conf = krb5_conf.display().to_string();
    let file = directory.path().join("some.keytab");
    for (enctype, length, mode, code) in
        [(23, 16, 0o600, "agent.keytab_old_keys"), (18, 32, 0o644, "agent.keytab_open")]
    {
        fs::write(&file, keytab(enctype, length))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
        let listed = file.display().to_string();
        let environment =
            [("LICTOR_AGENT_KERBEROS__KRB5_CONF", krb5_conf.as_str()), ("LICTOR_AGENT_KERBEROS__KEYTABS", &listed)];
        has(&codes(plain, &state, &environment, &[])?, code)?;
    }

    // A cache that is not there, and one whose ticket a KDC gave that lives in the past.
    let kdc = Kdc::start_with("CORP.EXAMPLE", KdcOptions { clock_offset: -172_800, ..KdcOptions::default() })?;
    kdc.add_password("alice", "Secret-1", &[])?;
    let ended = format!("FILE:{}", kdc.path("ended.ccache").display());
    kdc.kinit(&kdc.principal("alice"), "Secret-1", &ended, &[])?;
    for (cache, code) in [("FILE:/nowhere/krb5cc", "kerberos.cache_unreadable"), (ended.as_str(), "agent.cache_ended")]
    {
        let environment =
            [("LICTOR_AGENT_KERBEROS__KRB5_CONF", krb5_conf.as_str()), ("LICTOR_AGENT_KERBEROS__CACHES", cache)];
        has(&codes(plain, &state, &environment, &[])?, code)?;
    }
    Ok(())
}
