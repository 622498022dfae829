//! `lictor-agent migrate-init-script`: reads a start script of a Harness delegate and says what replaces it: settings, host
//! aliases of the pod and credentials, and which lines have to stay.
//!
//! The script is read, never run. No word of it that might be a password is ever in a [`Report`]: of lines that are not
//! understood it holds numbers and the names of well-known programs alone. Called by `cli`.

mod script;
mod shell;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use lictor_kerberos::config::{Configuration, Declared, Source};
use serde::Serialize;

/// First and last line.
pub type Lines = (usize, usize);

/// What replaces a script.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How many lines the script has.
    pub lines: usize,
    /// For the agent's configuration file, TOML. Empty: nothing.
    pub settings: String,
    /// A `krb5.conf` to mount as a file, when settings cannot say all of it.
    pub krb5_conf: Option<String>,
    /// For `hostAliases` of the pod.
    pub host_aliases: Vec<Alias>,
    /// Credentials to store with the control plane.
    pub credentials: Vec<Credential>,
    /// What needs no replacement.
    pub unneeded: Vec<Unneeded>,
    /// What has to stay in the script.
    pub remaining: Vec<Remaining>,
    /// What else there is to know.
    pub remarks: Vec<String>,
}

/// Names of an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alias {
    /// Where the script says so.
    pub lines: Lines,
    /// The address.
    pub ip: String,
    /// Its names.
    pub names: Vec<String>,
    #[serde(skip)]
    is_address: bool,
}

/// A user that the script logs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Credential {
    /// Where the script does so.
    pub lines: Lines,
    /// The user, with the realm where that is known.
    pub user: String,
    /// What stores the credential.
    pub command: String,
    /// The same as a document for `lictor credential import`, which names the secret.
    pub document: String,
    /// Where the secret is to be taken from.
    pub note: String,
}

/// Lines that need no replacement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unneeded {
    /// Which.
    pub lines: Lines,
    /// What they did, and why it is not needed.
    pub what: String,
}

/// Lines that have to stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remaining {
    /// Which.
    pub lines: Lines,
    /// The program, when it is a well-known one.
    pub program: String,
    /// Why.
    pub why: String,
}

#[derive(Debug)]
struct Login {
    lines: Lines,
    principal: String,
    secret: Secret,
    cache: Option<String>,
}

#[derive(Debug)]
enum Secret {
    PasswordInScript,
    PasswordFile(String),
    PasswordVariable(String),
    Keytab { path: String, in_script: bool },
}

/// Why a script is not read.
#[derive(Debug, thiserror::Error)]
#[error("the script is longer than {MAX_SCRIPT} bytes")]
pub struct TooLong;

/// Reads a script.
///
/// # Errors
/// When it is too long.
pub fn migrate(script: &[u8]) -> Result<Report, TooLong> {
    if script.len() > MAX_SCRIPT {
        return Err(TooLong);
    }
    let text = String::from_utf8_lossy(script);
    let mut report = Report { lines: text.lines().count(), ..Report::default() };
    if std::str::from_utf8(script).is_err() {
        report.remarks.push("the script is not UTF-8; what is not was replaced".to_owned());
    }
    if text.contains("\r\n") {
        report
            .remarks
            .push("lines end as on Windows, and bash takes the carriage return as a part of the last word".to_owned());
    }
    let found = script::understand(&text);
    report.host_aliases = found.aliases;
    report.unneeded = found.unneeded;
    report.remaining = found.remaining;
    report.remarks.extend(found.remarks);
    for alias in report.host_aliases.iter().filter(|alias| !alias.is_address) {
        report.remarks.push(format!("line {}: {:?} is no address, which hostAliases need", alias.lines.0, alias.ip));
    }

    let mut kerberos = Kerberos::default();
    if let Some((path, _)) = found.krb5_path {
        kerberos.krb5_conf = Some(path);
    }
    if let Some((text, lines)) = found.krb5_conf {
        report.krb5_conf(&text, lines, &mut kerberos);
    }
    for login in &found.logins {
        if let Secret::Keytab { path, .. } = &login.secret
            && !kerberos.keytabs.contains(path)
        {
            kerberos.keytabs.push(path.clone());
        }
    }
    let mut names = BTreeSet::new();
    let realm = kerberos.default_realm.as_deref();
    report.credentials = found.logins.iter().map(|login| credential(login, realm, &mut names)).collect();
    report.settings = kerberos.toml();
    Ok(report)
}

impl Report {
    /// The settings for a `krb5.conf`, checked by who will read them.
    fn krb5_conf(&mut self, text: &str, lines: Lines, kerberos: &mut Kerberos) {
        let configuration = match Configuration::parse(text, Path::new("krb5.conf")) {
            Ok(configuration) => configuration,
            Err(error) => {
                let why = format!(
                    "the krb5.conf that it writes has {} mistake(s), the first in its line {}",
                    error.mistakes().len(),
                    error.mistakes().first().and_then(|mistake| mistake.line).unwrap_or(1)
                );
                self.remaining.push(Remaining { lines, program: String::new(), why });
                return;
            }
        };
        for warning in configuration.warnings() {
            self.remarks.push(warning.to_string());
        }
        kerberos.default_realm = configuration.default_realm().map(str::to_owned);
        let (declared, left) = configuration.declaration();
        if left.is_empty() && Configuration::load(&Source::Declared(declared.clone())).is_ok() {
            kerberos.declared = declared;
            return;
        }
        for remark in left {
            self.remarks.push(format!("{remark}, so krb5.conf stays a file"));
        }
        kerberos.krb5_conf = Some(MOUNTED.to_owned());
        self.krb5_conf = Some(text.to_owned());
    }

    /// For people: in the order in which one works through it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = writeln!(out, "# {} lines were read; nothing was run.", self.lines);
        if !self.settings.is_empty() {
            let _ =
                writeln!(out, "\n## Settings of the agent: into the file of --config\n\n{}", self.settings.trim_end());
        }
        if let Some(text) = &self.krb5_conf {
            let _ = writeln!(out, "\n## A file to mount as {MOUNTED}, in a ConfigMap\n\n{}", text.trim_end());
        }
        if !self.host_aliases.is_empty() {
            let _ = writeln!(out, "\n## Into the pod's specification\n\nhostAliases:");
            for Alias { ip, names, .. } in &self.host_aliases {
                let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
                let _ = writeln!(out, "  - ip: {}\n    hostnames: [{}]", quoted(ip), names.join(", "));
            }
        }
        if !self.credentials.is_empty() {
            let _ = writeln!(out, "\n## Credentials: to store with the control plane");
            for Credential { lines, command, note, .. } in &self.credentials {
                let _ = writeln!(out, "\n# {}: {note}\n{command}", place(*lines));
            }
            let documents: Vec<&str> = self.credentials.iter().map(|credential| credential.document.as_str()).collect();
            let _ = writeln!(
                out,
                "\n## Or as documents for `lictor credential import`\n\n{}",
                documents.join("---\n").trim_end()
            );
        }
        if !self.unneeded.is_empty() {
            let _ = writeln!(out, "\n## Needs no replacement\n");
            for Unneeded { lines, what } in &self.unneeded {
                let _ = writeln!(out, "- {}: {what}", place(*lines));
            }
        }
        if !self.remarks.is_empty() {
            let _ = writeln!(out, "\n## To know\n");
            for remark in &self.remarks {
                let _ = writeln!(out, "- {remark}");
            }
        }
        if self.remaining.is_empty() {
            let _ = writeln!(out, "\nNothing has to stay in INIT_SCRIPT.");
        } else {
            let _ = writeln!(out, "\n## Has to stay in INIT_SCRIPT, or needs another place\n");
            for Remaining { lines, program, why } in &self.remaining {
                let program = if program.is_empty() { String::new() } else { format!(" ({program})") };
                let _ = writeln!(out, "- {}{program}: {why}", place(*lines));
            }
        }
        out
    }
}

/// Settings below `kerberos`.
#[derive(Default)]
struct Kerberos {
    krb5_conf: Option<String>,
    declared: Declared,
    keytabs: Vec<String>,
    /// Of the script's configuration, in whatever form that is kept.
    default_realm: Option<String>,
}

impl Kerberos {
    fn toml(&self) -> String {
        let mut out = String::new();
        let declared = &self.declared;
        let texts = [
            ("krb5_conf", self.krb5_conf.as_ref()),
            ("default_realm", declared.default_realm.as_ref()),
            ("ticket_lifetime", declared.ticket_lifetime.as_ref()),
            ("renew_lifetime", declared.renew_lifetime.as_ref()),
        ];
        for (key, value) in texts.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            let _ = writeln!(out, "{key} = {}", quoted(value));
        }
        let flags = [
            ("dns_lookup_kdc", declared.dns_lookup_kdc),
            ("dns_lookup_realm", declared.dns_lookup_realm),
            ("rdns", declared.rdns),
            ("dns_canonicalize_hostname", declared.dns_canonicalize_hostname),
            ("forwardable", declared.forwardable),
        ];
        for (key, value) in flags.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            let _ = writeln!(out, "{key} = {value}");
        }
        if let Some(limit) = declared.udp_preference_limit {
            let _ = writeln!(out, "udp_preference_limit = {limit}");
        }
        if !self.keytabs.is_empty() {
            let _ = writeln!(out, "keytabs = {}", list(&self.keytabs));
        }
        for (name, realm) in &declared.realms {
            let _ = writeln!(out, "\n[kerberos.realms.{}]", quoted(name));
            if !realm.kdc.is_empty() {
                let _ = writeln!(out, "kdc = {}", list(&realm.kdc));
            }
            let servers = [
                ("primary_kdc", &realm.primary_kdc),
                ("admin_server", &realm.admin_server),
                ("kpasswd_server", &realm.kpasswd_server),
                ("default_domain", &realm.default_domain),
            ];
            for (key, value) in servers {
                if let Some(value) = value {
                    let _ = writeln!(out, "{key} = {}", quoted(value));
                }
            }
        }
        if !declared.domain_realm.is_empty() {
            let _ = writeln!(out, "\n[kerberos.domain_realm]");
            for (domain, realm) in &declared.domain_realm {
                let _ = writeln!(out, "{} = {}", quoted(domain), quoted(realm));
            }
        }
        if out.is_empty() { out } else { format!("[kerberos]\n{out}") }
    }
}

fn credential(login: &Login, realm: Option<&str>, names: &mut BTreeSet<String>) -> Credential {
    let user = match realm {
        Some(realm) if !login.principal.contains('@') => format!("{}@{realm}", login.principal),
        _ => login.principal.clone(),
    };
    let first = user.split(['@', '/']).next().unwrap_or_default().to_ascii_lowercase();
    let mut base: String = first.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(50).collect();
    if base.is_empty() {
        base.push_str("user");
    }
    let mut name = base.clone();
    for number in 2.. {
        if names.insert(name.clone()) {
            break;
        }
        name = format!("{base}-{number}");
    }
    let put = format!("lictor credential put {name} --user {} --auth kerberos", shell_quoted(&user));
    let (command, mut note) = match &login.secret {
        Secret::PasswordInScript => (
            format!("{put} --password-file FILE"),
            "the password stands in the script, for everybody who can read the manifest: change it, and write the new one into FILE"
                .to_owned(),
        ),
        Secret::PasswordFile(path) => (
            format!("{put} --password-file {}", shell_quoted(path)),
            "the password is in a file of the pod; run this where that file is".to_owned(),
        ),
        Secret::PasswordVariable(variable) => (
            format!("{put} --password-file FILE"),
            format!("the password comes from the variable {variable} of the pod; write it into FILE"),
        ),
        Secret::Keytab { path, in_script } => (
            format!("{put} --keytab-on-agent {}", shell_quoted(path)),
            if *in_script {
                "the script makes the keytab; mount it from a Secret instead".to_owned()
            } else {
                "the keytab is a file of the pod".to_owned()
            },
        ),
    };
    if let Some(cache) = &login.cache {
        let _ = write!(note, ". The agent keeps its tickets in memory; {cache:?} is of use to other programs alone");
    }
    let document = document(&name, &user, &login.secret);
    Credential { lines: login.lines, user, command, document, note }
}

/// In the form of Harness's own entities.
fn document(name: &str, user: &str, secret: &Secret) -> String {
    let (method, spec) = match secret {
        Secret::Keytab { path, .. } => ("KeyTabFilePath", format!("keyPath: {}", quoted(path))),
        _ => ("Password", format!("password: {}", quoted(name))),
    };
    let mut lines = vec![format!("principal: {}", quoted(user))];
    lines.extend(user.split_once('@').map(|(_, realm)| format!("realm: {}", quoted(realm))));
    lines.extend([
        format!("tgtGenerationMethod: {method}"),
        format!("spec: {{{spec}}}"),
        "useSSL: true".to_owned(),
        "skipCertChecks: false".to_owned(),
    ]);
    let lines: String = lines.iter().map(|line| format!("        {line}\n")).collect();
    let name = quoted(name);
    format!(
        "secret:\n  type: WinRmCredentials\n  identifier: {name}\n  name: {name}\n  spec:\n    auth:\n      type: Kerberos\n      \
         spec:\n{lines}"
    )
}

fn place((first, last): Lines) -> String {
    if first == last { format!("line {first}") } else { format!("lines {first} to {last}") }
}

fn list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(", "))
}

/// A text as TOML, YAML and JSON alike have it between quotation marks.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Bash takes more, an environment less.
pub const MAX_SCRIPT: usize = 1 << 20;
/// Where the `krb5.conf` of a ConfigMap goes.
const MOUNTED: &str = "/etc/lictor/krb5.conf";

#[cfg(test)]
mod tests;
