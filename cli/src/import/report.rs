//! What an inventory comes to, for eyes and for scripts.
//!
//! Holds no password: targets skip theirs, and values of variables without meaning are not repeated.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use lictor_import::ansible::plan::{Credential, Plan};
use lictor_import::ansible::target::{Encryption, Outcome, Password, Problem, Remark, Target};
use serde::Serialize;

use crate::console;

/// What an inventory comes to.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) targets: Vec<Target>,
    #[serde(flatten)]
    pub(super) plan: Plan,
    /// Connections that are not `winrm`, with the number of their hosts.
    left_out: BTreeMap<String, usize>,
    #[serde(serialize_with = "unreadable")]
    unreadable: BTreeMap<Problem, Vec<String>>,
    #[serde(serialize_with = "remarks")]
    remarks: BTreeMap<Remark, Hosts>,
    pub(super) warnings: Vec<String>,
    /// Ready to be copied.
    commands: Vec<String>,
    /// Files that were written.
    pub(super) written: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
struct Hosts {
    hosts: usize,
    first: String,
}

impl Report {
    /// Adds a host.
    pub(super) fn add(&mut self, host: &str, outcome: Outcome) {
        match outcome {
            Outcome::Other(connection) => *self.left_out.entry(connection).or_default() += 1,
            Outcome::Unreadable(problems) => {
                for problem in problems {
                    self.unreadable.entry(problem).or_default().push(host.to_owned());
                }
            }
            Outcome::Target(mut target) => {
                for remark in std::mem::take(&mut target.remarks) {
                    self.remark(remark, host);
                }
                if let Some(text) = about_password(&target.password) {
                    self.remark(Remark { variable: "ansible_password".to_owned(), text }, host);
                }
                self.targets.push(*target);
            }
        }
    }

    fn remark(&mut self, remark: Remark, host: &str) {
        let hosts = self.remarks.entry(remark).or_default();
        if hosts.hosts == 0 {
            host.clone_into(&mut hosts.first);
        }
        hosts.hosts += 1;
    }

    /// Says what to do next.
    pub(super) fn commands(&mut self, written: Option<&Path>) {
        match written {
            None => self.commands.extend(self.plan.credentials.iter().map(put)),
            Some(directory) if !self.plan.credentials.is_empty() => {
                let passwords = self.plan.credentials.iter().any(Credential::wants_password);
                let mut import = format!(
                    "lictor credential import {}",
                    quoted(&directory.join("credentials.yaml").to_string_lossy())
                );
                if passwords {
                    import.push_str(" --password-dir DIR");
                }
                self.commands.push(import);
                for (list, file) in self.plan.lists.iter().zip(super::write::list_names(&self.plan)) {
                    let flags: String = list.flags.iter().map(|flag| format!(" {}", quoted(flag))).collect();
                    self.commands.push(format!(
                        "lictor task submit --hosts-file {} --credential {}{flags} --test --watch",
                        quoted(&directory.join(file).to_string_lossy()),
                        list.credential,
                    ));
                }
            }
            Some(_) => {}
        }
    }

    /// For eyes.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        if !self.targets.is_empty() {
            let header = ["name", "host", "port", "scheme", "auth", "user", "certificate", "more"];
            text.push_str(&console::table(&header, self.targets.iter().map(row)));
        }
        if !self.plan.credentials.is_empty() {
            text.push_str("\nCredentials wanted\n");
            let header = ["credential", "user", "auth", "realm", "hosts", "secret"];
            text.push_str(&console::table(&header, self.plan.credentials.iter().map(credential_row)));
        }
        let section = |text: &mut String, title: &str, header: &[&str], rows: Vec<Vec<String>>| {
            if !rows.is_empty() {
                let _ = write!(text, "\n{title}\n{}", console::table(header, rows));
            }
        };
        let unreadable = self.unreadable.iter().map(|(problem, hosts)| {
            let hosts = format!("{} ({})", hosts.len(), hosts.first().map_or("", String::as_str));
            vec![
                problem.variable.clone(),
                problem.place.clone(),
                hosts,
                word(problem.what),
                problem.what.advice().to_owned(),
            ]
        });
        section(
            &mut text,
            "Not imported: what cannot be read",
            &["variable", "at", "hosts", "is", "what to do"],
            unreadable.collect(),
        );
        let left_out = self.left_out.iter().map(|(connection, hosts)| vec![connection.clone(), hosts.to_string()]);
        section(&mut text, "Left out: other connections than winrm", &["connection", "hosts"], left_out.collect());
        let without = self.plan.without.iter().map(|(reason, hosts)| {
            let hosts_text = format!("{} ({})", hosts.len(), hosts.first().map_or("", String::as_str));
            vec![why(reason).to_owned(), hosts_text]
        });
        section(&mut text, "Without a credential", &["why", "hosts"], without.collect());
        let remarks = self.remarks.iter().map(|(remark, hosts)| {
            vec![remark.variable.clone(), format!("{} ({})", hosts.hosts, hosts.first), remark.text.clone()]
        });
        section(&mut text, "To know", &["variable", "hosts", "what"], remarks.collect());
        if !self.written.is_empty() {
            let _ = write!(text, "\nWritten\n{}\n", self.written.join("\n"));
        }
        if !self.commands.is_empty() {
            let _ = write!(text, "\nNext\n{}\n", self.commands.join("\n"));
        }
        text
    }
}

fn word(what: lictor_import::ansible::target::What) -> String {
    use lictor_import::ansible::target::What;
    match what {
        What::Vault => "a vault",
        What::Template => "a template",
        What::VaultFile => "perhaps in a vault",
        What::Wrong => "no value of it",
    }
    .to_owned()
}

fn why(reason: &str) -> &str {
    match reason {
        "certificate" => "authentication by certificate is not supported yet",
        "credssp" => "CredSSP is not supported yet",
        "no_user" => "no user: give --user",
        other => other,
    }
}

fn row(target: &Target) -> Vec<String> {
    let mut more = Vec::new();
    let mut add = |name: &str, value: Option<String>| more.extend(value.map(|value| format!("{name}={value}")));
    add("path", Some(&target.path).filter(|path| *path != "/wsman").cloned());
    add("realm", target.realm.clone());
    add("host-ca", target.ca_trust_path.clone());
    add(
        "message-encryption",
        (target.message_encryption != Encryption::Auto).then(|| target.message_encryption.word().to_owned()),
    );
    add("send-cbt", (!target.send_cbt).then(|| "false".to_owned()));
    add("delegate", target.delegate.then(|| "true".to_owned()));
    add("spn-service", target.spn_service.clone());
    add("spn-host", target.spn_host.clone());
    add("kinit-mode", target.kinit_manual.then(|| "manual".to_owned()));
    add("operation-timeout", target.operation_timeout_sec.map(|seconds| format!("{seconds}s")));
    add("read-timeout", target.read_timeout_sec.map(|seconds| format!("{seconds}s")));
    let certificate = match (target.scheme.word(), target.skip_cert_check) {
        ("http", _) => "",
        (_, false) => "checked",
        (_, true) => "not checked",
    };
    vec![
        target.name.clone(),
        target.host.clone(),
        target.port.to_string(),
        target.scheme.word().to_owned(),
        target.auth.word().to_owned(),
        target.user.clone().unwrap_or_default(),
        certificate.to_owned(),
        more.join(" "),
    ]
}

fn credential_row(credential: &Credential) -> Vec<String> {
    let secret = match &credential.password {
        _ if !credential.wants_password() => "a ticket in a cache on the agent".to_owned(),
        Password::Missing => "a password, which the inventory does not have".to_owned(),
        Password::Plain { place, .. } => format!("a password; in the open at {place}"),
        Password::Vault { place } => format!("a password; in a vault at {place}"),
        Password::Template { place, .. } => format!("a password; a template at {place}"),
        Password::VaultFiles { files } => format!("a password; perhaps in the vault {}", files.join(", ")),
    };
    vec![
        credential.name.clone(),
        credential.user.clone(),
        credential.auth.word().to_owned(),
        credential.realm.clone().unwrap_or_default(),
        credential.hosts.to_string(),
        secret,
    ]
}

/// What the user should know of where a password is.
fn about_password(password: &Password) -> Option<String> {
    match password {
        Password::Missing => None,
        Password::Plain { place, .. } => Some(format!(
            "stands in the open at {place}, for all who can read that; it is not shown, written or taken over. Put it into a file that only \
             you can read"
        )),
        Password::Vault { place } => Some(format!(
            "is a vault at {place} and is not opened: ansible-vault view, or ansible localhost -m debug -a var=NAME, shows it; put it \
             into a file for --password-file"
        )),
        Password::Template { place, .. } => {
            Some(format!("is a template at {place}: put what it stands for into a file for --password-file"))
        }
        Password::VaultFiles { files } => {
            let view: Vec<String> = files.iter().map(|file| format!("ansible-vault view {}", quoted(file))).collect();
            Some(format!("is not set in the open; it may be in a vault, which is not opened: {}", view.join("; ")))
        }
    }
}

/// The command that stores a credential.
fn put(credential: &Credential) -> String {
    let connection = &credential.connection;
    let mut words = vec![
        "lictor credential put".to_owned(),
        credential.name.clone(),
        "--user".to_owned(),
        quoted(&credential.user),
        "--auth".to_owned(),
        credential.auth.word().to_owned(),
        "--scheme".to_owned(),
        connection.scheme.word().to_owned(),
        "--port".to_owned(),
        credential.port.to_string(),
    ];
    let mut add = |flag: &str, value: Option<&str>| {
        words.extend(value.map(|value| format!("{flag} {}", quoted(value))));
    };
    add("--path", Some(connection.path.as_str()).filter(|path| *path != "/wsman"));
    add("--realm", credential.realm.as_deref());
    add("--host-ca", credential.ca_trust_path.as_deref().filter(|_| !connection.skip_cert_check));
    add("--message-encryption", Some(connection.message_encryption.word()).filter(|word| *word != "auto"));
    add("--send-cbt", (!connection.send_cbt).then_some("false"));
    add("--spn-service", credential.spn_service.as_deref());
    if connection.skip_cert_check {
        words.push("--skip-cert-check".to_owned());
    }
    if connection.delegate {
        words.push("--delegate".to_owned());
    }
    words.push(match credential.wants_password() {
        true => "--password-file FILE".to_owned(),
        false => "--ccache-on-agent".to_owned(),
    });
    words.join(" ")
}

/// A word for a POSIX shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn unreadable<S: serde::Serializer>(map: &BTreeMap<Problem, Vec<String>>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct View<'a> {
        #[serde(flatten)]
        problem: &'a Problem,
        advice: &'static str,
        hosts: &'a [String],
    }
    serializer.collect_seq(map.iter().map(|(problem, hosts)| View { problem, advice: problem.what.advice(), hosts }))
}

fn remarks<S: serde::Serializer>(map: &BTreeMap<Remark, Hosts>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct View<'a> {
        #[serde(flatten)]
        remark: &'a Remark,
        #[serde(flatten)]
        hosts: &'a Hosts,
    }
    serializer.collect_seq(map.iter().map(|(remark, hosts)| View { remark, hosts }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_shell() {
        assert_eq!(quoted("svc@CORP.EXAMPLE"), "svc@CORP.EXAMPLE");
        assert_eq!(quoted(r"CORP\svc"), r"'CORP\svc'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
