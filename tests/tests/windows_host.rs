//! docs/windows-host.md and `lictor winrm make-client-cert`: the PowerShell in both is PowerShell, and the certificate is what the
//! openssl program makes of the commands that users of Ansible know.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{Output, binary};
use serde_json::Value;
use tree_sitter::{Node, Parser};

const PATIENCE: Duration = Duration::from_secs(120);

fn page() -> Result<String> {
    Ok(std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/windows-host.md"))?)
}

/// The blocks of PowerShell of a page.
fn blocks(page: &str) -> Vec<&str> {
    page.split("```powershell\n").skip(1).filter_map(|rest| rest.split_once("```").map(|(block, _)| block)).collect()
}

/// Lines that a grammar of PowerShell cannot read.
fn mistakes(script: &str) -> Result<Vec<String>> {
    fn look(node: Node<'_>, script: &str, found: &mut Vec<String>) {
        if node.is_error() || node.is_missing() {
            let row = node.start_position().row;
            found.push(script.lines().nth(row).unwrap_or_default().to_owned());
        }
        node.children(&mut node.walk()).for_each(|child| look(child, script, found));
    }
    let mut parser = Parser::new();
    parser.set_language(&tree_sitter_powershell::LANGUAGE.into())?;
    let tree = parser.parse(script, None).context("no tree")?;
    let mut found = Vec::new();
    look(tree.root_node(), script, &mut found);
    Ok(found)
}

#[test]
fn every_block_of_the_host_guide_is_powershell() -> Result<()> {
    let page = page()?;
    let blocks = blocks(&page);
    ensure!(blocks.len() > 10, "{} blocks", blocks.len());
    for block in blocks {
        let mistakes = mistakes(block)?;
        ensure!(mistakes.is_empty(), "{mistakes:?} in\n{block}");
    }
    // It can tell.
    ensure!(!mistakes("Get-Item -Path (\n")?.is_empty() && !mistakes("if ($a { 'b' }\n")?.is_empty());
    Ok(())
}

fn run(command: &mut Command) -> Result<String> {
    let output = Output::of(command, PATIENCE)?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(output.code == 0, "{command:?}: {said}{}", output.stderr);
    Ok(said)
}

fn make(arguments: &[&str], directory: &Path) -> Result<Value> {
    let mut command = Command::new(binary("lictor")?);
    command.args(["winrm", "make-client-cert", "--output", "json", "--out-dir"]).arg(directory).args(arguments);
    Ok(serde_json::from_str(&run(&mut command)?)?)
}

fn openssl(arguments: &[&str], certificate: &Path) -> Result<String> {
    run(Command::new("openssl").args(arguments).arg(certificate))
}

/// What a certificate says but for keys, serial number and times: subject, issuer, version, extensions.
fn extensions(certificate: &Path) -> Result<String> {
    openssl(&["x509", "-noout", "-subject", "-issuer", "-ext", "extendedKeyUsage,subjectAltName", "-in"], certificate)
}

/// Names of all extensions, in order.
fn names(certificate: &Path) -> Result<Vec<String>> {
    let text = openssl(&["x509", "-noout", "-text", "-in"], certificate)?;
    let lines = text.lines().map(str::trim).filter(|line| line.starts_with("X509v3 ") && *line != "X509v3 extensions:");
    Ok(lines.map(str::to_owned).collect())
}

/// As the guide of Ansible has it made.
fn made_by_openssl(directory: &Path) -> Result<PathBuf> {
    let configuration = directory.join("openssl.conf");
    std::fs::write(
        &configuration,
        "distinguished_name = req_distinguished_name\n[req_distinguished_name]\n[client]\nextendedKeyUsage = clientAuth\n\
         subjectAltName = otherName:1.3.6.1.4.1.311.20.2.3;UTF8:deploy@localhost\n",
    )?;
    let (certificate, key) = (directory.join("theirs.pem"), directory.join("their-key.pem"));
    run(Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-days", "3650", "-newkey", "rsa:2048", "-subj", "/CN=deploy"])
        .args(["-extensions", "client", "-out"])
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .env("OPENSSL_CONF", &configuration))?;
    Ok(certificate)
}

#[test]
fn client_certificates_are_what_openssl_makes() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let made = make(&["--user", "deploy"], directory.path())?;
    let certificate = PathBuf::from(made["certificate"].as_str().context("certificate")?);
    let key = PathBuf::from(made["key"].as_str().context("key")?);
    let theirs = made_by_openssl(directory.path())?;
    assert_eq!(extensions(&certificate)?, extensions(&theirs)?);
    assert_eq!(names(&certificate)?, names(&theirs)?);

    // It verifies for a client when it is trusted, as in the stores that the host gets it into, and for no server.
    let ca = certificate.display().to_string();
    let verified = openssl(&["verify", "-CAfile", &ca, "-purpose", "sslclient"], &certificate)?;
    assert!(verified.trim_end().ends_with("OK"), "{verified}");
    assert!(openssl(&["verify", "-CAfile", &ca, "-purpose", "sslserver"], &certificate).is_err());

    // The key is its key.
    let public = openssl(&["x509", "-noout", "-pubkey", "-in"], &certificate)?;
    assert_eq!(openssl(&["pkey", "-pubout", "-in"], &key)?, public);
    // The thumbprint is Windows's: SHA-1.
    let fingerprint = openssl(&["x509", "-noout", "-fingerprint", "-sha1", "-in"], &certificate)?;
    let digits: String = fingerprint.split('=').nth(1).context("digits")?.trim().replace(':', "");
    assert_eq!(made["thumbprint"], digits);
    // 3650 days from now: it is valid for the last but one of them, and not after the last.
    let valid = |seconds: &str| openssl(&["x509", "-noout", "-checkend", seconds, "-in"], &certificate).is_ok();
    assert!(valid("315273600") && !valid("315446400"), "{made:#}");

    let commands = made["on_the_host"].as_str().context("commands")?;
    ensure!(mistakes(commands)?.is_empty(), "{commands}");
    assert!(commands.contains(&digits) && page()?.contains("-Subject 'deploy@localhost' -URI * -Issuer"));
    Ok(())
}

#[test]
fn keys_of_other_kinds_and_other_names() -> Result<()> {
    for (kind, shown) in [("rsa3072", "(3072 bit)"), ("ecdsa-p256", "prime256v1")] {
        let directory = tempfile::tempdir()?;
        let arguments = ["--user", "o'neil", "--upn", "o'neil@web1", "--days", "30", "--key-type", kind];
        let made = make(&arguments, directory.path())?;
        let certificate = PathBuf::from(made["certificate"].as_str().context("certificate")?);
        let text = openssl(&["x509", "-noout", "-text", "-in"], &certificate)?;
        assert!(text.contains(shown) && text.contains("o'neil@web1"), "{text}");
        let commands = made["on_the_host"].as_str().context("commands")?;
        ensure!(mistakes(commands)?.is_empty() && commands.contains("'o''neil@web1'"), "{commands}");
        // What is there is kept.
        assert!(make(&arguments, directory.path()).is_err());
        make(&[&arguments[..], &["--force"]].concat(), directory.path())?;
    }
    Ok(())
}
