//! What users of Harness and Ansible have, through the real programs: documents become credentials that work, inventories
//! become commands that are taken.

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{PASSWORD, Stack, USER, Windows, WindowsOptions};
use serde_json::Value;

use crate::{FINAL, PATIENCE};

fn host(stack: &Stack) -> Result<Windows> {
    stack.windows(
        "win-a",
        &WindowsOptions { tls: false, arguments: &["--auth", "ntlm,negotiate"], ..WindowsOptions::default() },
    )
}

fn path(stack: &Stack, name: &str, text: &str) -> Result<String> {
    let path = stack.directory().join(name);
    std::fs::create_dir_all(path.parent().context("a parent")?)?;
    std::fs::write(&path, text)?;
    Ok(path.to_str().context("UTF-8")?.to_owned())
}

/// The user of the simulated host, as domain and name.
fn user() -> (&'static str, &'static str) {
    USER.split_once('\\').unwrap_or(("", USER))
}

fn tested(stack: &Stack, credential: &str) -> Result<Value> {
    let task_id = stack.submit(&["--host", "localhost", "--credential", credential, "--test"])?;
    stack.task_in(&task_id, FINAL, PATIENCE)
}

#[test]
fn a_document_of_harness_becomes_a_credential_that_works() -> Result<()> {
    let stack = Stack::start(&[])?;
    let _agent = stack.agent("agent-1", &[])?;
    let windows = host(&stack)?;
    let (domain, name) = user();
    let document = format!(
        "secret:\n  type: WinRmCredentials\n  name: Web servers\n  identifier: web_servers\n  tags: {{}}\n  spec:\n    port: {}\n    \
         parameters: []\n    auth:\n      type: NTLM\n      spec:\n        domain: '{domain}'\n        username: {name}\n        \
         password: account.web_password\n        useSSL: false\n        skipCertChecks: false\n        useNoProfile: true\n",
        windows.port
    );
    let document = path(&stack, "web.yaml", &document)?;

    // Without the password nothing is stored, and the message says which one is wanted.
    let output = stack.lictor(&["credential", "import", &document])?;
    ensure!(output.code == 120 && output.stderr.contains("account.web_password"), "{}", output.stderr);
    let listed = stack.lictor_json(&["credential", "list"])?;
    ensure!(listed["credentials"].as_array().is_some_and(Vec::is_empty), "{listed:#}");

    let secret = path(&stack, "secrets/web_password", &format!("{PASSWORD}\n"))?;
    let directory = stack.directory().join("secrets").to_str().context("UTF-8")?.to_owned();
    let output = stack.lictor(&["credential", "import", &document, "--password-dir", &directory])?;
    ensure!(output.code == 0, "{}", output.stderr);
    ensure!(output.text().contains("web_servers: version 1"), "{}", output.text());
    let task = tested(&stack, "web_servers")?;
    ensure!(task["state"] == "succeeded", "{task:#}");
    ensure!(task["result"]["connection"]["sealed"] == true, "{task:#}");

    // Once more, by the name of the secret, and then without it: the password stays, the rest changes.
    let named = format!("web_password={secret}");
    let output = stack.lictor(&["credential", "import", &document, "--password-file", &named])?;
    ensure!(output.code == 0, "{}", output.stderr);
    let output = stack.lictor(&["credential", "import", &document, "--keep-passwords"])?;
    ensure!(output.code == 0, "{}", output.stderr);
    let task = tested(&stack, "web_servers")?;
    ensure!(task["state"] == "succeeded", "{task:#}");

    // A name that nothing wants is a slip of the pen, not something to pass over.
    let output =
        stack.lictor(&["credential", "import", &document, "--password-file", &format!("web_pasword={secret}")])?;
    ensure!(output.code == 120 && output.stderr.contains("web_pasword"), "{}", output.stderr);
    Ok(())
}

#[test]
fn all_documents_are_checked_before_the_first_is_stored() -> Result<()> {
    let stack = Stack::start(&[])?;
    let good = "name: good\nauth: {type: Kerberos, principal: svc, realm: CORP.EXAMPLE, useSSL: true}\n";
    let bad = good.replace("good", "bad").replace("useSSL", "useSLL");
    let document = path(&stack, "both.yaml", &format!("{good}---\n{bad}"))?;
    let output = stack.lictor(&["credential", "import", &document])?;
    ensure!(output.code == 120 && output.stderr.contains("both.yaml:5: unknown field"), "{}", output.stderr);
    let listed = stack.lictor_json(&["credential", "list"])?;
    ensure!(listed["credentials"].as_array().is_some_and(Vec::is_empty), "{listed:#}");
    // A password in a document is refused, and not repeated.
    let document =
        path(&stack, "open.yaml", "name: a\nauth: {type: NTLM, username: u, password: 'M@rked one', useSSL: true}\n")?;
    let output = stack.lictor(&["credential", "import", &document])?;
    ensure!(output.code == 120 && output.stderr.contains("--password-file"), "{}", output.stderr);
    ensure!(!output.stderr.contains("M@rked"), "{}", output.stderr);
    Ok(())
}

#[test]
fn a_dry_run_of_kerberos_needs_no_control_plane() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let document = directory.path().join("kerberos.json");
    std::fs::write(
        &document,
        r#"[{"secret": {"type": "WinRmCredentials", "name": "keytab", "identifier": "keytab", "spec": {"auth": {"type": "Kerberos",
            "spec": {"principal": "svc", "realm": "CORP.EXAMPLE", "useSSL": false, "skipCertChecks": false, "useNoProfile": false,
            "tgtGenerationMethod": "KeyTabFilePath", "spec": {"keyPath": "/etc/keytabs/svc.keytab"}}}}}},
           {"secret": {"type": "WinRmCredentials", "name": "none", "identifier": "none", "spec": {"auth": {"type": "Kerberos",
            "spec": {"principal": "svc", "realm": "CORP.EXAMPLE", "useSSL": true}}}}},
           {"secret": {"type": "WinRmCredentials", "name": "password", "identifier": "password", "spec": {"port": 8443, "auth":
            {"type": "Kerberos", "spec": {"principal": "svc", "realm": "CORP.EXAMPLE", "useSSL": true, "tgtGenerationMethod": "Password",
            "spec": {"password": "account.kerberos"}}}}}}]"#,
    )?;
    let lictor = |arguments: &[&str]| {
        let mut command = std::process::Command::new(lictor_tests::binary("lictor")?);
        command.args(arguments).env_remove("LICTOR_SERVER");
        lictor_tests::Output::of(&mut command, PATIENCE)
    };
    let document = document.to_str().context("UTF-8")?;
    let output = lictor(&["--output", "json", "credential", "import", document, "--dry-run"])?;
    ensure!(output.code == 0, "{}", output.stderr);
    let shown = output.json()?;
    let credentials = shown["credentials"].as_array().context("credentials")?;
    let summary: Vec<String> = credentials
        .iter()
        .map(|credential| {
            let connection = &credential["connection"];
            format!(
                "{} {} {} {} {} {}",
                credential["name"],
                credential["username"],
                connection["auth"],
                connection["port"],
                credential["secret_kind"],
                credential["secret_found"]
            )
        })
        .collect();
    let expected = [
        r#""keytab" "svc@CORP.EXAMPLE" "kerberos" 5985 "keytab_on_agent" true"#,
        r#""none" "svc@CORP.EXAMPLE" "kerberos" 5986 "ccache_on_agent" true"#,
        r#""password" "svc@CORP.EXAMPLE" "kerberos" 8443 "password" false"#,
    ];
    ensure!(summary == expected, "{shown:#}");
    ensure!(credentials[0]["agent_path"] == "/etc/keytabs/svc.keytab", "{shown:#}");
    let output = lictor(&["credential", "import", document, "--dry-run"])?;
    ensure!(
        output.code == 0 && output.text().contains("wanted: account.kerberos"),
        "{}{}",
        output.text(),
        output.stderr
    );
    ensure!(output.stderr.contains("kinit") && output.stderr.contains("kerberos.keytabs"), "{}", output.stderr);
    Ok(())
}

#[test]
fn an_inventory_becomes_a_credential_and_a_batch() -> Result<()> {
    let stack = Stack::start(&[])?;
    let _agent = stack.agent("agent-1", &[])?;
    let windows = host(&stack)?;
    let inventory = format!(
        "[web]\nweb1 ansible_host=localhost\nweb2 ansible_host=127.0.0.1\nlinux ansible_connection=ssh\n[web:vars]\nansible_connection=winrm\n\
         ansible_user={USER}\nansible_port={}\nansible_winrm_scheme=http\nansible_winrm_transport=ntlm\nansible_winrm_proxy=s3cret\n",
        windows.port
    );
    let inventory = path(&stack, "inventory/hosts", &inventory)?;
    let vars = path(&stack, "inventory/group_vars/web.yml", "ansible_password: M@rked-in-the-open\n")?;
    let written = stack.directory().join("written");
    let directory = written.to_str().context("UTF-8")?;
    let output = stack.lictor(&["import", "ansible", &inventory, "--write", directory])?;
    ensure!(output.code == 0, "{}", output.stderr);
    for expected in ["ssh", "ansible_winrm_proxy", "in the open", &vars] {
        ensure!(output.text().contains(expected), "{expected} in\n{}", output.text());
    }
    let report = stack.lictor_json(&["import", "ansible", &inventory, "--write", directory])?;
    let mut all = format!("{}{}{report}", output.text(), output.stderr);
    for entry in std::fs::read_dir(&written)? {
        all.push_str(&std::fs::read_to_string(entry?.path())?);
    }
    ensure!(!all.contains("M@rked") && !all.contains("s3cret"), "{all}");
    std::fs::remove_file(vars)?;

    // The commands that it prints, with a directory of passwords in the place of one.
    let commands: Vec<&str> =
        report["commands"].as_array().context("commands")?.iter().filter_map(Value::as_str).collect();
    ensure!(commands.len() == 2, "{commands:?}");
    let name = report["credentials"][0]["name"].as_str().context("name")?;
    let secrets = stack.directory().join("secrets");
    path(&stack, &format!("secrets/{name}"), PASSWORD)?;
    let secrets = secrets.to_str().context("UTF-8")?;
    for command in commands {
        let words: Vec<&str> =
            command.split(' ').skip(1).map(|word| if word == "DIR" { secrets } else { word }).collect();
        let output = stack.lictor(&words)?;
        ensure!(output.code == 0, "{command}\n{}\n{}", output.text(), output.stderr);
    }
    Ok(())
}
