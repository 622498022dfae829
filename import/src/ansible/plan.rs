//! Targets sorted into what Lictor stores and takes: credentials, and lists of hosts that share one.
//!
//! A credential is a user with a secret and how it is used; hosts that differ in the connection alone share it, and their list
//! carries the flags that override what the credential says. No password gets out of here.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use super::target::{Auth, Encryption, Password, Scheme, Target};

/// Credentials and lists of hosts.
#[derive(Debug, Default, Serialize)]
pub struct Plan {
    /// What is to be stored.
    pub credentials: Vec<Credential>,
    /// Whom to use it for.
    pub lists: Vec<HostList>,
    /// Names of hosts for which there is no credential, with the reason.
    pub without: BTreeMap<&'static str, Vec<String>>,
}

/// A credential that is wanted.
#[derive(Debug, Serialize)]
pub struct Credential {
    /// Name, made of the user and the way to authenticate.
    pub name: String,
    /// Who.
    pub user: String,
    /// How.
    pub auth: Auth,
    /// Realm, where the user does not say it.
    pub realm: Option<String>,
    /// Whether somebody else gets the ticket.
    pub kinit_manual: bool,
    /// Service of the hosts' principals.
    pub spn_service: Option<String>,
    /// File with authorities.
    pub ca_trust_path: Option<String>,
    /// What most of its hosts have.
    pub connection: Connection,
    /// Port of most of its hosts.
    pub port: u16,
    /// How many hosts.
    pub hosts: usize,
    /// Where the inventory has the password. One of possibly many places.
    pub password: Password,
}

/// The part of a connection that a task may override.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Connection {
    /// Scheme.
    pub scheme: Scheme,
    /// URL path.
    pub path: String,
    /// Whether certificates are not checked.
    pub skip_cert_check: bool,
    /// When messages are sealed.
    pub message_encryption: Encryption,
    /// Whether channel bindings are sent.
    pub send_cbt: bool,
    /// Whether a ticket is forwarded.
    pub delegate: bool,
}

/// Hosts for one batch.
#[derive(Debug, Serialize)]
pub struct HostList {
    /// Whose.
    pub credential: String,
    /// Flags that make up for what its credential says otherwise.
    pub flags: Vec<String>,
    /// The hosts.
    pub hosts: Vec<ListedHost>,
}

/// A line of a list.
#[derive(Debug, Serialize)]
pub struct ListedHost {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Its name in the inventory.
    pub label: String,
}

impl Plan {
    /// Sorts targets.
    pub fn new(targets: &[Target]) -> Self {
        let mut plan = Self::default();
        let mut secrets: HashMap<&str, usize> = HashMap::new();
        let mut wanted: BTreeMap<Key<'_>, Vec<&Target>> = BTreeMap::new();
        for target in targets {
            let reason = match (target.auth, &target.user) {
                (Auth::Certificate, _) => "certificate",
                (Auth::Credssp, _) => "credssp",
                (_, None) => "no_user",
                (auth, Some(user)) => {
                    let secret = secret_key(&target.password, &mut secrets);
                    let key = Key {
                        user,
                        auth,
                        realm: target.realm.as_deref(),
                        kinit_manual: target.kinit_manual,
                        spn_service: target.spn_service.as_deref(),
                        ca_trust_path: target.ca_trust_path.as_deref(),
                        secret,
                    };
                    wanted.entry(key).or_default().push(target);
                    continue;
                }
            };
            plan.without.entry(reason).or_default().push(target.name.clone());
        }
        let mut names = HashSet::new();
        for (key, targets) in wanted {
            plan.credential(&key, &targets, &mut names);
        }
        plan
    }

    fn credential(&mut self, key: &Key<'_>, targets: &[&Target], names: &mut HashSet<String>) {
        let mut lists: BTreeMap<(Connection, Option<&str>), Vec<&Target>> = BTreeMap::new();
        for target in targets {
            lists.entry((Connection::of(target), target.spn_host.as_deref())).or_default().push(target);
        }
        let most = lists.iter().max_by_key(|(_, hosts)| hosts.len()).map(|((connection, _), _)| connection.clone());
        let (Some(connection), Some(first)) = (most, targets.first()) else { return };
        let mut ports: BTreeMap<u16, usize> = BTreeMap::new();
        for target in targets.iter().filter(|target| target.scheme == connection.scheme) {
            *ports.entry(target.port).or_default() += 1;
        }
        let port = ports.iter().max_by_key(|(_, count)| **count).map_or(first.port, |(port, _)| *port);
        let name = name(key.user, key.auth, names);
        for ((own, spn_host), hosts) in lists {
            let hosts = hosts.iter().map(|target| ListedHost {
                host: target.host.clone(),
                port: target.port,
                label: target.name.clone(),
            });
            // The control plane refuses a host that comes twice on one port.
            let mut seen = HashSet::new();
            let mut rounds: Vec<Vec<ListedHost>> = Vec::new();
            for host in hosts {
                if !seen.insert((host.host.trim_end_matches('.').to_ascii_lowercase(), host.port)) {
                    continue;
                }
                match rounds.last_mut() {
                    Some(round) if round.len() < HOSTS_PER_BATCH => round.push(host),
                    _ => rounds.push(vec![host]),
                }
            }
            let flags = own.flags(&connection, spn_host);
            let lists =
                rounds.into_iter().map(|hosts| HostList { credential: name.clone(), flags: flags.clone(), hosts });
            self.lists.extend(lists);
        }
        self.credentials.push(Credential {
            name,
            user: key.user.to_owned(),
            auth: key.auth,
            realm: key.realm.map(str::to_owned),
            kinit_manual: key.kinit_manual,
            spn_service: key.spn_service.map(str::to_owned),
            ca_trust_path: key.ca_trust_path.map(str::to_owned),
            connection,
            port,
            hosts: targets.len(),
            password: first.password.clone(),
        });
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    user: &'a str,
    auth: Auth,
    realm: Option<&'a str>,
    kinit_manual: bool,
    spn_service: Option<&'a str>,
    ca_trust_path: Option<&'a str>,
    secret: String,
}

/// Tells secrets apart without holding them: readable ones by a number, others by where they are.
fn secret_key<'a>(password: &'a Password, secrets: &mut HashMap<&'a str, usize>) -> String {
    let mut number = |text: &'a str| {
        let next = secrets.len();
        *secrets.entry(text).or_insert(next)
    };
    match password {
        Password::Missing => String::new(),
        Password::Plain { text, .. } => format!("plain {:08}", number(text)),
        Password::Template { text, .. } => format!("template {:08}", number(text)),
        Password::Vault { place } => format!("vault {place}"),
        Password::VaultFiles { files } => format!("files {}", files.join(" ")),
    }
}

impl Connection {
    fn of(target: &Target) -> Self {
        Self {
            scheme: target.scheme,
            path: target.path.clone(),
            skip_cert_check: target.skip_cert_check,
            message_encryption: target.message_encryption,
            send_cbt: target.send_cbt,
            delegate: target.delegate,
        }
    }

    /// Flags of `lictor task submit` that turn `stored` into this.
    fn flags(&self, stored: &Self, spn_host: Option<&str>) -> Vec<String> {
        let mut flags = Vec::new();
        if self.scheme != stored.scheme {
            flags.extend(["--scheme".to_owned(), self.scheme.word().to_owned()]);
        }
        if self.path != stored.path {
            flags.extend(["--path".to_owned(), self.path.clone()]);
        }
        if self.skip_cert_check != stored.skip_cert_check {
            flags.push(format!("--skip-cert-check={}", self.skip_cert_check));
        }
        if self.message_encryption != stored.message_encryption {
            flags.extend(["--message-encryption".to_owned(), self.message_encryption.word().to_owned()]);
        }
        if self.send_cbt != stored.send_cbt {
            flags.extend(["--send-cbt".to_owned(), self.send_cbt.to_string()]);
        }
        if self.delegate != stored.delegate {
            flags.push(format!("--delegate={}", self.delegate));
        }
        if let Some(host) = spn_host {
            flags.extend(["--spn-host".to_owned(), host.to_owned()]);
        }
        flags
    }
}

impl Credential {
    /// Whether a password is to be given for it. Only where Kerberos is the one way a ticket of somebody else will do: NTLM, which
    /// [`Auth::Negotiate`] falls back to, is nothing without a password.
    pub fn wants_password(&self) -> bool {
        !(self.kinit_manual && self.auth == Auth::Kerberos)
    }

    /// The document that `lictor credential import` takes. The password is a name in it, never the password.
    pub fn document(&self) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut own = Vec::new();
        if self.connection.path != "/wsman" {
            own.push(format!("path: {}", quoted(&self.connection.path)));
        }
        if self.connection.message_encryption != Encryption::Auto {
            own.push(format!("messageEncryption: {}", self.connection.message_encryption.word()));
        }
        if !self.connection.send_cbt {
            own.push("sendCbt: false".to_owned());
        }
        if self.connection.delegate {
            own.push("delegate: true".to_owned());
        }
        if let Some(service) = &self.spn_service {
            own.push(format!("spnService: {}", quoted(service)));
        }
        if let Some(path) = &self.ca_trust_path {
            own.push(format!("hostCaFile: {}", quoted(path)));
        }
        let mut auth = Vec::new();
        let kind = match self.auth {
            Auth::Kerberos => "Kerberos",
            Auth::Negotiate => "Negotiate",
            Auth::Basic => "Basic",
            Auth::Ntlm | Auth::Certificate | Auth::Credssp => "NTLM",
        };
        if self.auth == Auth::Kerberos {
            auth.push(format!("principal: {}", quoted(&self.user)));
            let upn = self.user.split_once('@').map(|(_, realm)| realm);
            if let Some(realm) = self.realm.as_deref().or(upn) {
                auth.push(format!("realm: {}", quoted(realm)));
            }
            if !self.wants_password() {
                auth.push("tgtGenerationMethod: None".to_owned());
            } else {
                auth.push("tgtGenerationMethod: Password".to_owned());
                auth.push(format!("spec: {{password: {}}}", quoted(&self.name)));
            }
        } else {
            auth.push(format!("username: {}", quoted(&self.user)));
            auth.push(format!("password: {}", quoted(&self.name)));
            if let Some(realm) = &self.realm {
                own.push(format!("realm: {}", quoted(realm)));
            }
        }
        auth.push(format!("useSSL: {}", self.connection.scheme == Scheme::Https));
        auth.push(format!("skipCertChecks: {}", self.connection.skip_cert_check));
        let mut text = format!(
            "secret:\n  type: WinRmCredentials\n  identifier: {name}\n  name: {name}\n  spec:\n    port: {port}\n    auth:\n      \
             type: {kind}\n      spec:\n",
            name = quoted(&self.name),
            port = self.port,
        );
        auth.iter().for_each(|line| text.push_str(&format!("        {line}\n")));
        if !own.is_empty() {
            text.push_str("  lictor:\n");
            own.iter().for_each(|line| text.push_str(&format!("    {line}\n")));
        }
        text
    }
}

/// `svc_web_corp_example` for `svc-web@CORP.EXAMPLE`; what comes twice gets the way to authenticate, then a number.
fn name(user: &str, auth: Auth, taken: &mut HashSet<String>) -> String {
    let mut base = String::new();
    for character in user.chars().take(LONGEST_NAME) {
        match character {
            character if character.is_ascii_alphanumeric() => base.push(character.to_ascii_lowercase()),
            _ if !base.is_empty() && !base.ends_with('_') => base.push('_'),
            _ => {}
        }
    }
    let base = base.trim_end_matches('_');
    let base =
        if base.starts_with(|c: char| c.is_ascii_alphabetic()) { base.to_owned() } else { format!("user_{base}") };
    let base = base.trim_end_matches('_').to_owned();
    let with_auth = format!("{base}_{}", auth.word());
    let numbered = (2..).map(|number: u32| format!("{with_auth}_{number}"));
    let candidates = [base, with_auth.clone()].into_iter().chain(numbered);
    for candidate in candidates {
        if taken.insert(candidate.clone()) {
            return candidate;
        }
    }
    with_auth
}

impl ListedHost {
    /// A line of the file that `--hosts-file` takes.
    pub fn line(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        // A name may hold anything, and a line is a line.
        let label: String = self.label.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        match label.trim() {
            label if label == self.host || label.is_empty() => format!("{host}:{}", self.port),
            label => format!("{host}:{} {label}", self.port),
        }
    }
}

/// Room for the way to authenticate and a number in a name of 64 characters.
const LONGEST_NAME: usize = 40;
/// What the control plane takes as one batch.
const HOSTS_PER_BATCH: usize = 10_000;
