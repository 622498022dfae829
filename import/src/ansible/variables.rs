//! Every variable that has to do with WinRM, and what becomes of it. docs/ansible.md shows this table, and a test compares the
//! two.

/// What becomes of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It becomes part of a target or of a credential.
    Taken,
    /// Its subject is known here and cannot be done yet.
    NotYet,
    /// It has no meaning here.
    Nothing,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Name; with a `*` at its end all that begin so and are in no other row.
    pub name: &'static str,
    /// What becomes of it.
    pub fate: Fate,
    /// What it is called here, or does here.
    pub here: &'static str,
}

/// All rows.
pub const TABLE: &[Row] = &[
    row(
        "ansible_connection",
        Fate::Taken,
        "`winrm`: the host is imported. Anything else, and nothing (that is `ssh`): it is left out and counted",
    ),
    row("ansible_host", Fate::Taken, "the host; without it the name in the inventory"),
    row("ansible_port", Fate::Taken, "`--port`; 5986 unless it is given, whatever the scheme"),
    row("ansible_user", Fate::Taken, "`--user`; `user@REALM` chooses Kerberos where no transport is given"),
    row(
        "ansible_password",
        Fate::Taken,
        "that a password is wanted. Never shown nor written: give it by `--password-file` or `--password-dir`",
    ),
    row("ansible_winrm_host", Fate::Taken, "as `ansible_host`, and before it"),
    row("ansible_winrm_port", Fate::Taken, "as `ansible_port`, and before it"),
    row("ansible_winrm_user", Fate::Taken, "as `ansible_user`, and before it"),
    row("ansible_winrm_pass", Fate::Taken, "as `ansible_password`, and before it"),
    row("ansible_winrm_password", Fate::Taken, "as `ansible_password`, and before it"),
    row("ansible_ssh_host", Fate::Taken, "as `ansible_host`, where that is not set; Ansible before 2.0"),
    row("ansible_ssh_port", Fate::Taken, "as `ansible_port`, where that is not set; Ansible before 2.0"),
    row("ansible_ssh_user", Fate::Taken, "as `ansible_user`, where that is not set; Ansible before 2.0"),
    row("ansible_ssh_pass", Fate::Taken, "as `ansible_password`, where that is not set; Ansible before 2.0"),
    row("ansible_winrm_scheme", Fate::Taken, "`--scheme`; `https` unless the port is 5985"),
    row("ansible_winrm_path", Fate::Taken, "`--path`; `/wsman`"),
    row(
        "ansible_winrm_transport",
        Fate::Taken,
        "`--auth`: `kerberos`, `ntlm`, `basic` (also `plaintext` and `ssl`). Of a list the first that Lictor has; `kerberos` before `ntlm` is `negotiate`. Without it `kerberos` for `user@REALM`, else `basic`",
    ),
    row("ansible_winrm_realm", Fate::Taken, "`--realm`; without it what stands behind the `@` of the user"),
    row("ansible_winrm_server_cert_validation", Fate::Taken, "`ignore` is `--skip-cert-check`"),
    row("ansible_winrm_ca_trust_path", Fate::Taken, "`--host-ca`"),
    row("ansible_winrm_message_encryption", Fate::Taken, "`--message-encryption`"),
    row("ansible_winrm_send_cbt", Fate::Taken, "`--send-cbt`"),
    row(
        "ansible_winrm_operation_timeout_sec",
        Fate::Taken,
        "`--operation-timeout` of `lictor winrm`; agents have their own",
    ),
    row("ansible_winrm_read_timeout_sec", Fate::Taken, "`--read-timeout` of `lictor winrm`; agents have their own"),
    row("ansible_winrm_connection_timeout", Fate::Taken, "both: the operation this long, the answer 10 s longer"),
    row(
        "ansible_winrm_kinit_mode",
        Fate::Taken,
        "`--kinit-mode`; without it `managed` where there is a password, else `manual`",
    ),
    row("ansible_winrm_kerberos_delegation", Fate::Taken, "`--delegate`"),
    row("ansible_winrm_service", Fate::Taken, "`--spn-service`"),
    row("ansible_winrm_kerberos_hostname_override", Fate::Taken, "`--spn-host`"),
    row("ansible_winrm_cert_pem", Fate::NotYet, "authentication by certificate, which Lictor does not have yet"),
    row("ansible_winrm_cert_key_pem", Fate::NotYet, "authentication by certificate, which Lictor does not have yet"),
    row("ansible_winrm_credssp_disable_tlsv1_2", Fate::NotYet, "CredSSP, which Lictor does not have yet"),
    row("ansible_winrm_kinit_cmd", Fate::Nothing, "no program is run: the agent speaks to the KDC itself"),
    row("ansible_winrm_kinit_args", Fate::Nothing, "no program is run; for `-f` there is `--delegate`"),
    row("ansible_winrm_kinit_env_vars", Fate::Nothing, "no program is run; the agent has its own `KRB5_CONFIG`"),
    row(
        "ansible_winrm_keytab",
        Fate::Nothing,
        "pywinrm does not use it either. Keytabs are `--keytab` and `--keytab-on-agent` of `lictor credential put`",
    ),
    row(
        "ansible_winrm_proxy",
        Fate::Nothing,
        "agents connect to hosts without a proxy: put an agent where the hosts are",
    ),
    row("ansible_winrm_endpoint", Fate::Nothing, "Ansible makes it of host, port, scheme and path, and so does Lictor"),
    row("ansible_winrm_username", Fate::Nothing, "Ansible passes it over too: `ansible_user` counts"),
    row(
        "ansible_winrm_*",
        Fate::Nothing,
        "no keyword of `winrm.Protocol` that Lictor knows: told by its name, and passed over",
    ),
    row(
        "ansible_psrp_*",
        Fate::Nothing,
        "belongs to the connection `psrp`: set `ansible_connection: winrm` for such hosts",
    ),
    row("ansible_become*", Fate::Nothing, "commands run as the user of the credential; give another credential"),
    row("ansible_shell_type", Fate::Nothing, "each task says whether it is for PowerShell or for cmd.exe"),
    row("ansible_pipelining", Fate::Nothing, "scripts always travel through standard input"),
];

const fn row(name: &'static str, fate: Fate, here: &'static str) -> Row {
    Row { name, fate, here }
}

/// The row of a variable.
pub fn find(name: &str) -> Option<&'static Row> {
    let exact = TABLE.iter().find(|row| row.name == name);
    exact.or_else(|| TABLE.iter().find(|row| row.name.strip_suffix('*').is_some_and(|start| name.starts_with(start))))
}

/// The table as docs/ansible.md has it.
pub fn markdown() -> String {
    let mut text = "| variable | | here |\n|---|---|---|\n".to_owned();
    for row in TABLE {
        let fate = match row.fate {
            Fate::Taken => "taken",
            Fate::NotYet => "not yet",
            Fate::Nothing => "no meaning",
        };
        text.push_str(&format!("| `{}` | {fate} | {} |\n", row.name, row.here));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_this_table() {
        let page = include_str!("../../../docs/ansible.md");
        assert!(page.contains(&markdown()), "docs/ansible.md should hold this:\n{}", markdown());
    }

    #[test]
    fn rows_are_found_and_stand_once() {
        assert_eq!(find("ansible_winrm_scheme").unwrap().name, "ansible_winrm_scheme");
        assert_eq!(find("ansible_winrm_made_up").unwrap().name, "ansible_winrm_*");
        assert_eq!(find("ansible_become_password").unwrap().name, "ansible_become*");
        assert!(find("ansible_python_interpreter").is_none());
        for (index, row) in TABLE.iter().enumerate() {
            assert!(TABLE[index + 1..].iter().all(|other| other.name != row.name), "{}", row.name);
        }
    }
}
