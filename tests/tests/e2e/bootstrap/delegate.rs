//! The start-up script of a Harness delegate, as its documentation has it: run as root against a real KDC, and the
//! ticket that it leaves used for a task.
//!
//! The script writes `/etc/krb5.conf` and `/etc/hosts` and leaves its ticket in `/tmp`. The agent runs in a mount
//! namespace of its own, in which all three are the test's.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{Agent, Kdc, PASSWORD, Stack, WindowsOptions, binary};

use super::environment;
use crate::{FINAL, PATIENCE};

/// What the documentation says, with placeholders for what an operator replaces.
const SCRIPT: &str = r#"# Set up kerberos
microdnf update
microdnf install vim
microdnf install yum
microdnf install -y yum-utils
yes | yum install krb5-workstation krb5-libs
truncate -s 0 /etc/krb5.conf
cat <<EOT >> /etc/krb5.conf
[logging]
    default = FILE:/var/log/krb5libs.log
    kdc = FILE:/var/log/krb5kdc.log
    admin_server = FILE:/var/log/kadmind.log
[libdefaults]
    default_realm = KERBEROS.DOMAIN
    dns_lookup_realm = true
    ticket_lifetime = 24h
    renew_lifetime = 7d
    forwardable = true
    rdns = false
[realms]
  KERBEROS.DOMAIN = {
    kdc = "SERVER_NAME.KERBEROS.DOMAIN:PORT"
    admin_server = "SERVER_NAME.KERBEROS.DOMAIN"
    default_domain = "KERBEROS.DOMAIN"
    master_kdc = "SERVER_NAME.KERBEROS.DOMAIN:PORT"
  }
[domain_realm]
  .KERBEROS.DOMAIN = KERBEROS.DOMAIN
EOT
echo 'host_ip host_name SERVER_NAME.KERBEROS.DOMAIN' >> /etc/hosts
echo 'password' | kinit USERNAME@KERBEROS.DOMAIN
klist
"#;

/// Runs what follows with its own `/etc` and its own `/tmp`, in which only the named directories are as they were.
const APART: &str = r#"
set -e
apart=$1; shift
mount --make-rprivate /
mkdir -p "$apart"
mount -t tmpfs tmpfs "$apart"
mkdir "$apart/upper" "$apart/work" "$apart/tmp"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$apart/upper,workdir=$apart/work" /etc
while [ "$1" != -- ]; do
    case $1 in /tmp/*) mkdir -p "$apart$1"; mount --bind "$1" "$apart$1";; esac
    shift
done
shift
mount --rbind "$apart/tmp" /tmp
exec "$@"
"#;

#[test]
fn the_script_of_a_delegate_runs_as_root_and_its_ticket_serves_a_task() -> Result<()> {
    let may = Command::new("unshare").args(["--mount", "true"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        ensure!(std::env::var("LICTOR_PEERS").as_deref() != Ok("required"), "this test needs the rights to mount");
        println!("NOT RUN: mounting is not allowed here");
        return Ok(());
    }
    let before = ["/etc/krb5.conf", "/etc/hosts"].map(|path| std::fs::read(path).ok());
    let kdc = Kdc::start("CORP.EXAMPLE")?;
    kdc.add_password("alice", PASSWORD, &[])?;
    let host = format!("web1.{}", kdc.realm().to_lowercase());
    kdc.add_random(&format!("HTTP/{host}"), &[])?;
    let keytab = kdc.path("host.keytab");
    kdc.keytab(&[&format!("HTTP/{host}")], &keytab)?;
    let stack = Stack::start(&[])?;
    let everybody = format!(r"*@{}=CORP\*", kdc.realm());
    let options = WindowsOptions { keytab: Some(&keytab), principals: &[&everybody], ..WindowsOptions::default() };
    let windows = stack.windows("win-a", &options)?;

    let script = SCRIPT
        .replace("SERVER_NAME", "dc1")
        .replace("KERBEROS.DOMAIN", kdc.realm())
        .replace("PORT", &kdc.port().to_string())
        .replace("host_ip host_name", "127.0.0.1 dc1")
        .replace("'password'", &format!("'{PASSWORD}'"))
        .replace("USERNAME", "alice");
    let token = stack.join_token(&[])?;
    let directory = stack.directory().to_str().context("UTF-8")?.to_owned();
    let apart = stack.directory().join("apart").to_str().context("UTF-8")?.to_owned();
    // The program too may lie in /tmp.
    let programs = binary("lictor-agent")?.parent().and_then(Path::to_str).context("UTF-8")?.to_owned();
    let entrance = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", APART, "sh"];
    let entrance = entrance.into_iter().chain([apart.as_str(), &directory, &programs, "--"]);
    let entrance = entrance.map(str::to_owned).collect();
    let mut agent = Agent::spawn_by(&stack, "agent-1", &token, &[("INIT_SCRIPT", &script)], entrance)?;
    agent.wait_connected()?;
    let log = agent.process.log();
    for line in ["microdnf: command not found", "yum: command not found", "Default principal: alice@"] {
        ensure!(log.contains(line), "{line:?} is missing in {log}");
    }
    // Six programs are missing, and the rest went well.
    ensure!(log.contains("exit status 0") && log.contains("5 of its commands failed, the first at line 2"), "{log}");
    ensure!(!log.contains(PASSWORD), "{log}");
    let list = stack.lictor_json(&["agent", "list"])?;
    ensure!(list["agents"][0]["degraded"].as_array().is_some_and(Vec::is_empty), "{list:#}");
    ensure!(!environment(agent.process.pid())?.contains_key("INIT_SCRIPT"));
    assert_eq!(kdc.as_exchanges(), 1, "{}", kdc.log());

    let user = kdc.principal("alice");
    let put = ["credential", "put", "ticket", "--user", &user, "--auth", "kerberos", "--ccache-on-agent"];
    let way = ["--scheme", "http", "--port", &windows.port, "--spn-host", &host];
    let output = stack.lictor(&[&put[..], &way[..]].concat())?;
    ensure!(output.code == 0, "{}", output.stderr);
    let task_id = stack.submit(&["--host", "localhost", "--credential", "ticket", "--", "whoami"])?;
    let task = stack.task_in(&task_id, FINAL, PATIENCE)?;
    assert_eq!(task["state"], "succeeded", "{task:#}\n{}", agent.process.log());
    let auth = task["result"]["connection"]["auth"].as_str();
    ensure!(auth.is_some_and(|auth| auth.contains("kerberos")), "{task:#}");
    let output = stack.lictor(&["task", "watch", &task_id])?.text();
    ensure!(output.to_lowercase().contains(r"corp\alice"), "{output}");
    assert_eq!(kdc.as_exchanges(), 1, "the script's ticket served: {}", kdc.log());
    let after = ["/etc/krb5.conf", "/etc/hosts"].map(|path| std::fs::read(path).ok());
    ensure!(before == after, "the machine's own files were touched");
    Ok(())
}
