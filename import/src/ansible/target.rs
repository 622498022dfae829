//! From the variables of a host to what Lictor connects to, as whom and how.
//!
//! Follows the connection plugin `winrm` of Ansible: which of several names wins, what is assumed where nothing is said. What
//! cannot be read here, templates and vaults, is told with its place and never guessed.

use serde::Serialize;
use zeroize::Zeroizing;

use super::value::{Value, Variable};
use super::variables::{self, Fate};
use super::{Effective, MAX_WARNINGS};

/// What a host comes to.
#[derive(Debug)]
pub enum Outcome {
    /// Something to connect to.
    Target(Box<Target>),
    /// A host that is not reached by the connection `winrm`, but by this.
    Other(String),
    /// A host of which something must be known that cannot be read.
    Unreadable(Vec<Problem>),
}

/// Something to connect to.
#[derive(Debug, Serialize)]
pub struct Target {
    /// Its name in the inventory.
    pub name: String,
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Scheme.
    pub scheme: Scheme,
    /// URL path.
    pub path: String,
    /// As whom.
    pub user: Option<String>,
    /// How to authenticate.
    pub auth: Auth,
    /// Realm of the user, where the name does not say it.
    pub realm: Option<String>,
    /// Whether its certificate is not checked.
    pub skip_cert_check: bool,
    /// File with the authorities for its certificate.
    pub ca_trust_path: Option<String>,
    /// When messages are sealed.
    pub message_encryption: Encryption,
    /// Whether channel bindings are sent.
    pub send_cbt: bool,
    /// Whether a ticket is forwarded.
    pub delegate: bool,
    /// Service of the host's principal.
    pub spn_service: Option<String>,
    /// Host of the host's principal.
    pub spn_host: Option<String>,
    /// Whether somebody else gets the ticket.
    pub kinit_manual: bool,
    /// Seconds that one operation may take.
    pub operation_timeout_sec: Option<u32>,
    /// Seconds that an answer may take.
    pub read_timeout_sec: Option<u32>,
    /// Where the password is.
    pub password: Password,
    /// What the user should know.
    #[serde(skip)]
    pub remarks: Vec<Remark>,
}

/// Transport schemes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

/// Ways to authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// HTTP Basic.
    Basic,
    /// NTLM.
    Ntlm,
    /// Kerberos, else NTLM.
    Negotiate,
    /// Kerberos alone.
    Kerberos,
    /// A client certificate, which Lictor cannot use yet.
    Certificate,
    /// CredSSP, which Lictor cannot do yet.
    Credssp,
}

/// When messages are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Encryption {
    /// Over http.
    Auto,
    /// Over https too.
    Always,
    /// Never.
    Never,
}

/// Where a password is. `Debug` and JSON show no password.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Password {
    /// The inventory has none: asked for when Ansible runs, or not needed.
    Missing,
    /// In the inventory, readable by all who can read that.
    Plain {
        /// The password.
        #[serde(skip)]
        text: Zeroizing<String>,
        /// Where it stands.
        place: String,
    },
    /// A value that is a vault.
    Vault {
        /// Where it stands.
        place: String,
    },
    /// A template.
    Template {
        /// The template.
        #[serde(skip)]
        text: Zeroizing<String>,
        /// Where it stands.
        place: String,
    },
    /// Perhaps in one of these files, which are vaults.
    VaultFiles {
        /// The files.
        files: Vec<String>,
    },
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Missing => "Missing",
            Self::Plain { .. } => "Plain",
            Self::Vault { .. } => "Vault",
            Self::Template { .. } => "Template",
            Self::VaultFiles { .. } => "VaultFiles",
        })
    }
}

/// What the user should know of a variable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Remark {
    /// Which.
    pub variable: String,
    /// What.
    pub text: String,
}

/// A value that cannot be read here, or means nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Which variable.
    pub variable: String,
    /// Where it is set.
    pub place: String,
    /// What is wrong with it.
    pub what: What,
}

/// What is wrong with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It is a vault.
    Vault,
    /// It is a template.
    Template,
    /// It is not set in the open, and may be in a file that is a vault as a whole.
    VaultFile,
    /// It is none of the values that the variable can have.
    Wrong,
}

impl What {
    /// What to do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Vault => {
                "vaults are not opened here: write the value in the open if it is no secret, or give the whole inventory as Ansible \
                 sees it: ansible-inventory -i INVENTORY --list --ask-vault-pass (its output holds every secret)"
            }
            Self::Template => {
                "templates are not evaluated here: write the value itself, or give the whole inventory with values in place"
            }
            Self::VaultFile => {
                "files that are vaults are not opened, and it may be set in there: set it in the open, in a file beside it, also where it is \
                 what Ansible assumes; or give the whole inventory as Ansible sees it: ansible-inventory -i INVENTORY --list \
                 --ask-vault-pass (its output holds every secret)"
            }
            Self::Wrong => "give one of the values that the variable can have: docs/ansible.md",
        }
    }
}

/// Names that stand for the same, from what counts most to what counts least.
const HOST: &[&str] = &["ansible_winrm_host", "ansible_host", "ansible_ssh_host"];
const PORT: &[&str] = &["ansible_winrm_port", "ansible_port", "ansible_ssh_port"];
const USER: &[&str] = &["ansible_winrm_user", "ansible_user", "ansible_ssh_user"];
const TRANSPORT: &[&str] = &["ansible_winrm_transport"];
/// Names of the password.
pub const PASSWORD: &[&str] = &["ansible_winrm_password", "ansible_winrm_pass", "ansible_password", "ansible_ssh_pass"];

/// What the variables of a host come to. `user` is for hosts whose inventory names none.
pub fn target(name: &str, effective: &Effective<'_>, user: Option<&str>) -> Outcome {
    let mut reader = Reader { effective, problems: Vec::new(), remarks: Vec::new() };
    let connection = reader.text(&["ansible_connection"]).unwrap_or_else(|| "ssh".to_owned());
    if !reader.problems.is_empty() {
        return Outcome::Unreadable(reader.problems);
    }
    if !matches!(connection.as_str(), "winrm" | "ansible.builtin.winrm" | "ansible.legacy.winrm") {
        return Outcome::Other(connection);
    }
    let target = reader.target(name, user);
    if reader.problems.is_empty() { Outcome::Target(Box::new(target)) } else { Outcome::Unreadable(reader.problems) }
}

struct Reader<'a> {
    effective: &'a Effective<'a>,
    problems: Vec<Problem>,
    remarks: Vec<Remark>,
}

impl Reader<'_> {
    fn target(&mut self, name: &str, default_user: Option<&str>) -> Target {
        let host = self.text(HOST).unwrap_or_else(|| name.to_owned());
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).map(str::to_owned).unwrap_or(host);
        if !is_host(&host) {
            let (variable, place) = self.place(HOST, "the name in the inventory");
            self.problems.push(Problem { variable, place, what: What::Wrong });
        }
        let given_port = self.number(PORT, 1..=65535).and_then(|port| u16::try_from(port).ok());
        let port = given_port.unwrap_or(5986);
        let scheme = self.word("ansible_winrm_scheme", &[("http", Scheme::Http), ("https", Scheme::Https)]);
        if scheme == Some(Scheme::Http) && given_port.is_none() {
            self.remark(
                "ansible_winrm_scheme",
                "http without ansible_port: Ansible goes to port 5986 then, and so does this; http listens at 5985",
            );
        }
        let scheme = scheme.unwrap_or(if port == 5985 { Scheme::Http } else { Scheme::Https });
        let path = self.text(&["ansible_winrm_path"]).unwrap_or_else(|| "/wsman".to_owned());
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        let user = self.text(USER).or_else(|| default_user.map(str::to_owned));
        if user.is_none() {
            self.remark("ansible_user", "not set: give it with --user, as ansible -u does");
        }
        self.vaults(user.is_some());
        let password = self.password();
        let auth = self.auth(scheme, user.as_deref());
        let is_kerberos = matches!(auth, Auth::Kerberos | Auth::Negotiate);
        let mut realm = self.text(&["ansible_winrm_realm"]);
        let upn_realm = user.as_deref().and_then(|user| user.split_once('@')).map(|(_, realm)| realm);
        match (&realm, upn_realm) {
            (Some(_), _) if !is_kerberos => {
                self.remark("ansible_winrm_realm", "has a meaning for Kerberos only");
                realm = None;
            }
            (Some(realm), Some(upn)) if realm != upn => {
                self.remark(
                    "ansible_winrm_realm",
                    "differs from what stands behind the @ of the user; this realm counts",
                );
            }
            (None, None) if auth == Auth::Kerberos => {
                self.remark("ansible_user", "names no realm: the agent's default realm counts");
            }
            _ => {}
        }
        let validation = [("validate", false), ("ignore", true)];
        let skip_cert_check = self.word("ansible_winrm_server_cert_validation", &validation).unwrap_or(false);
        let encryption = [("auto", Encryption::Auto), ("always", Encryption::Always), ("never", Encryption::Never)];
        let message_encryption = self.word("ansible_winrm_message_encryption", &encryption).unwrap_or(Encryption::Auto);
        let send_cbt = self.truth("ansible_winrm_send_cbt").unwrap_or(true);
        let delegate = self.truth("ansible_winrm_kerberos_delegation").unwrap_or(false);
        let mode = self.word("ansible_winrm_kinit_mode", &[("managed", false), ("manual", true)]);
        let kinit_manual =
            is_kerberos && mode.unwrap_or(matches!(password, Password::Missing) && auth == Auth::Kerberos);
        let spn_service = self.text(&["ansible_winrm_service"]).filter(|_| is_kerberos);
        let spn_host = self.text(&["ansible_winrm_kerberos_hostname_override"]).filter(|_| is_kerberos);
        let ca_trust_path = self.text(&["ansible_winrm_ca_trust_path"]).filter(|path| path != "legacy_requests");
        let timeout = self.number(&["ansible_winrm_connection_timeout"], 1..=86_400);
        let operation = self.number(&["ansible_winrm_operation_timeout_sec"], 1..=86_400);
        let read = self.number(&["ansible_winrm_read_timeout_sec"], 1..=86_400);
        let (operation_timeout_sec, read_timeout_sec) = match timeout {
            Some(timeout) => (Some(timeout), Some(timeout.saturating_add(10))),
            None => (operation, read),
        };
        self.rest();
        let mut remarks = std::mem::take(&mut self.remarks);
        remarks.sort();
        remarks.dedup();
        Target {
            name: name.to_owned(),
            host,
            port,
            scheme,
            path,
            user,
            auth,
            realm,
            skip_cert_check,
            ca_trust_path,
            message_encryption,
            send_cbt,
            delegate,
            spn_service,
            spn_host,
            kinit_manual,
            operation_timeout_sec,
            read_timeout_sec,
            password,
            remarks,
        }
    }

    /// The variable that counts among names for the same, if one of them is set.
    fn pick(&self, names: &[&'static str]) -> Option<(&'static str, &Variable)> {
        let set = |name: &&'static str| self.effective.variables.get(*name).map(|variable| (*name, *variable));
        names.iter().filter_map(set).find(|(_, variable)| variable.value != Value::Null)
    }

    /// What a variable comes to, if it can be read.
    fn read<T>(&mut self, names: &[&'static str], parse: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let (name, variable) = self.pick(names)?;
        let what = match &variable.value {
            value if value.is_vault() => What::Vault,
            value if value.is_template() => What::Template,
            value => match parse(value) {
                Some(parsed) => return Some(parsed),
                None => What::Wrong,
            },
        };
        let problem = Problem { variable: name.to_owned(), place: variable.place(), what };
        if self.problems.len() < MAX_WARNINGS {
            self.problems.push(problem);
        }
        None
    }

    fn place(&self, names: &[&'static str], otherwise: &str) -> (String, String) {
        match self.pick(names) {
            Some((name, variable)) => (name.to_owned(), variable.place()),
            None => (names.get(1).map_or_else(String::new, |name| (*name).to_owned()), otherwise.to_owned()),
        }
    }

    fn text(&mut self, names: &[&'static str]) -> Option<String> {
        let text = self.read(names, |value| value.as_text().map(|text| text.trim().to_owned()));
        text.filter(|text| !text.is_empty())
    }

    fn number(&mut self, names: &[&'static str], range: std::ops::RangeInclusive<u32>) -> Option<u32> {
        self.read(names, |value| {
            value.as_integer().and_then(|number| u32::try_from(number).ok()).filter(|number| range.contains(number))
        })
    }

    fn truth(&mut self, name: &'static str) -> Option<bool> {
        self.read(&[name], Value::as_bool)
    }

    fn word<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)]) -> Option<T> {
        self.read(&[name], |value| {
            let text = value.as_text()?;
            words.iter().find(|(word, _)| *word == text.as_str()).map(|(_, meaning)| *meaning)
        })
    }

    fn remark(&mut self, variable: &str, text: impl Into<String>) {
        self.remarks.push(Remark { variable: variable.to_owned(), text: text.into() });
    }

    /// What files that are vaults as a whole may hold. The way to a host is never guessed: a wrong one sends the password where it
    /// does not belong.
    fn vaults(&mut self, has_user: bool) {
        if self.effective.vaults.is_empty() {
            return;
        }
        let files = self.effective.vaults.iter().copied().collect::<Vec<_>>().join(", ");
        let needed = [("ansible_port", PORT), ("ansible_winrm_transport", TRANSPORT)];
        let user = (!has_user).then_some(("ansible_user", USER));
        for (variable, names) in needed.into_iter().chain(user) {
            if self.pick(names).is_none() {
                let (variable, place) = (variable.to_owned(), files.clone());
                self.problems.push(Problem { variable, place, what: What::VaultFile });
            }
        }
        self.remark(
            "(vaults)",
            format!(
                "not opened, and whatever is set in there and counts for Ansible is not known here: {files}. ansible-inventory --list \
                 --ask-vault-pass tells Lictor all of it"
            ),
        );
    }

    fn password(&mut self) -> Password {
        let Some((name, variable)) = self.pick(PASSWORD) else {
            // A vault beside the host may hold it.
            let files: Vec<String> = self.effective.vaults.iter().map(|file| (*file).to_owned()).collect();
            return if files.is_empty() { Password::Missing } else { Password::VaultFiles { files } };
        };
        let place = variable.place();
        if variable.value.is_vault() {
            return Password::Vault { place };
        }
        let Some(text) = variable.value.as_text() else {
            let variable = name.to_owned();
            self.problems.push(Problem { variable, place, what: What::Wrong });
            return Password::Missing;
        };
        if text.is_empty() {
            Password::Missing
        } else if variable.value.is_template() {
            Password::Template { text, place }
        } else {
            Password::Plain { text, place }
        }
    }

    /// How to authenticate, of a list of transports that Ansible would try one after the other.
    fn auth(&mut self, scheme: Scheme, user: Option<&str>) -> Auth {
        const NAME: &str = "ansible_winrm_transport";
        let listed = self.read(&[NAME], |value| match value {
            Value::List(items) => items.iter().map(|item| item.as_text().map(|text| text.trim().to_owned())).collect(),
            value => value.as_text().map(|text| text.split(',').map(|part| part.trim().to_owned()).collect()),
        });
        let mut listed: Vec<String> = listed.unwrap_or_default();
        listed.retain(|transport| !transport.is_empty());
        if listed.is_empty() {
            // A user principal name is an account of a domain.
            listed.push(
                match user.is_some_and(|user| user.contains('@')) {
                    true => "kerberos",
                    false if scheme == Scheme::Https => "ssl",
                    false => "plaintext",
                }
                .to_owned(),
            );
        }
        let certificate = self.pick(&["ansible_winrm_cert_pem", "ansible_winrm_cert_key_pem"]).is_some();
        let mut known = Vec::new();
        for transport in &listed {
            known.push(match transport.as_str() {
                "kerberos" => Auth::Kerberos,
                "ntlm" => Auth::Ntlm,
                "ssl" if certificate => Auth::Certificate,
                "basic" | "plaintext" | "ssl" => Auth::Basic,
                "certificate" => Auth::Certificate,
                "credssp" => Auth::Credssp,
                _ => {
                    let (variable, place) = self.place(&[NAME], "");
                    self.problems.push(Problem { variable, place, what: What::Wrong });
                    return Auth::Basic;
                }
            });
        }
        let is_there = |auth: &Auth| !matches!(auth, Auth::Certificate | Auth::Credssp);
        let first = known.iter().copied().find(is_there).or_else(|| known.first().copied()).unwrap_or(Auth::Basic);
        let ntlm_later = known.iter().skip_while(|auth| **auth != Auth::Kerberos).any(|auth| *auth == Auth::Ntlm);
        let chosen = if first == Auth::Kerberos && ntlm_later { Auth::Negotiate } else { first };
        if known.len() > 1 {
            let word = chosen.word();
            self.remark(NAME, format!("Ansible tries several, one after the other, also after a rejection; Lictor takes {word} and tries once"));
        }
        match chosen {
            Auth::Certificate => self.remark(NAME, "authentication by certificate is not supported yet: no credential is made for it"),
            Auth::Credssp => self.remark(NAME, "CredSSP is not supported yet: no credential is made for it. Kerberos with --delegate also reaches further hosts"),
            Auth::Basic if scheme == Scheme::Http => self.remark(
                NAME,
                "Basic over http: password and output travel readable. Lictor refuses that unless told --allow-basic-over-http; better \
                 https, ntlm or kerberos",
            ),
            Auth::Basic if user.is_some_and(|user| user.contains(['@', '\\'])) => {
                self.remark(NAME, "Basic is for local accounts; the user looks like one of a domain");
            }
            _ => {}
        }
        chosen
    }

    /// What is set and not used.
    fn rest(&mut self) {
        let mut found = Vec::new();
        for (name, variable) in &self.effective.variables {
            let Some(row) = variables::find(name) else { continue };
            if row.fate != Fate::Taken && variable.value != Value::Null {
                found.push(Remark { variable: (*name).to_owned(), text: plain(row.here) });
            }
        }
        let timeouts = [
            "ansible_winrm_connection_timeout",
            "ansible_winrm_operation_timeout_sec",
            "ansible_winrm_read_timeout_sec",
        ];
        if let Some((name, _)) = self.pick(&timeouts) {
            let text = "timeouts are flags of lictor winrm; agents have their own".to_owned();
            found.push(Remark { variable: name.to_owned(), text });
        }
        for (old, new) in
            [(HOST, "ansible_host"), (PORT, "ansible_port"), (USER, "ansible_user"), (PASSWORD, "ansible_password")]
        {
            if let Some((name, _)) = self.pick(old)
                && name.starts_with("ansible_ssh_")
            {
                let text = format!("the old name of {new}, taken as that; newer versions of Ansible pass it over");
                found.push(Remark { variable: name.to_owned(), text });
            }
        }
        self.remarks.extend(found);
    }
}

/// Markdown without its quotes of code.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

impl Auth {
    /// The word of the flag `--auth`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Ntlm => "ntlm",
            Self::Negotiate => "negotiate",
            Self::Kerberos => "kerberos",
            Self::Certificate => "certificate",
            Self::Credssp => "credssp",
        }
    }

    /// Whether Lictor has it.
    pub fn is_supported(self) -> bool {
        !matches!(self, Self::Certificate | Self::Credssp)
    }
}

impl Scheme {
    /// The word of the flag `--scheme`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl Encryption {
    /// The word of the flag `--message-encryption`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

/// What the control plane takes as a host: a name or an address.
fn is_host(text: &str) -> bool {
    if text.parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let digits = name.split('.').all(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    (1..=253).contains(&name.len()) && name.split('.').all(label) && !digits
}
