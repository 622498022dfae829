//! The agent's own policy: which hosts, identities and kinds of tasks it serves, whatever the control plane asks for.
//!
//! Read from a file that the control plane cannot change. A [`Policy`] is parsed once and cannot be wrong; it must never
//! be widened by a file that is broken, half-written or gone. What a rule compares is brought into one form first, so
//! that another spelling of the same thing is the same thing. Checked by `tasks` before an assignment is accepted;
//! `watch` keeps it up to date.

mod aws;
mod file;
mod identity;
mod names;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
mod turns;
mod watch;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use lictor_proto::v1::{TaskSpec, task_spec};
use lictor_winrm::target::{AuthKind, Endpoint, MessageEncryption, Network, Networks, Scheme, TlsPolicy};

use aws::{ArnPattern, EndpointPattern};
use identity::Pattern;
use names::{Host, HostRule};

pub(crate) use file::{PolicyError, load};
pub(crate) use turns::Turn;
pub(crate) use watch::Policies;

/// What the agent serves. The doc comments of the fields are what `docs/policy.md` and its JSON schema say; a test makes them. The
/// default serves everything.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Policy {
    /// Where it was read from. Nothing: there is no policy.
    #[cfg_attr(test, schemars(skip))]
    file: Option<PathBuf>,
    /// Which hosts. A list that is present and empty allows nothing.
    hosts: Hosts,
    /// As whom.
    identities: Identities,
    /// How.
    connection: Connection,
    /// What.
    tasks: Tasks,
    /// By which secrets.
    secrets: Secrets,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Hosts {
    /// Hosts that may be connected to: names (`win01.corp.example`), everything below a name (`.corp.example`, without `corp.example`
    /// itself), addresses and blocks (`10.20.0.0/16`, `2001:db8::/32`), `*`. Default: all.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    allow: Option<Vec<HostRule>>,
    /// Hosts that may not, in the same forms, even when they are allowed above.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    deny: Vec<HostRule>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Identities {
    /// Users that tasks may run as: `CORP\svc-web`, `svc-*@corp.example`, `*`. Default: all.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    allow: Option<Vec<Pattern>>,
    /// Users that they may not run as, even when they are allowed above.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    deny: Vec<Pattern>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Connection {
    /// TCP ports that hosts may be connected to at. Default: all.
    ports: Option<BTreeSet<u16>>,
    /// `sealed`: over http only when messages are sealed, so not with Basic, nor with message encryption `never`.
    #[cfg_attr(test, schemars(with = "String"))]
    http: PlainHttp,
    /// Whether a task may skip the check of a host's certificate.
    skip_cert_check: bool,
    /// Whether a task may bring the authorities that its host's certificate is checked against. When it may not, those of the agent's
    /// system count.
    task_ca: bool,
    /// Whether a task may use Basic authentication.
    basic: bool,
    /// Ways to authenticate that a task may name. `negotiate` may turn out to be NTLM: list `kerberos` alone to insist on it. Default:
    /// all.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    auth: Option<Vec<AuthKind>>,
    /// Whether a task may hand a host a forwarded ticket, with which what runs there can go on to others as the user.
    delegation: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Tasks {
    /// Kinds of tasks. A connection test and a diagnosis open a shell and run harmless commands; a posture check reads the configuration
    /// and may run a script of the agent's own. Default: all.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    kinds: Option<BTreeSet<TaskKind>>,
    /// Most bytes that a task may bring for the host: script or command line, arguments, standard input and environment together.
    /// Default: the contract's bounds.
    max_script_bytes: Option<u32>,
    /// Most tasks that work on hosts at once. Others wait within their own timeout. Default: the setting `slots`.
    concurrent: Option<u32>,
    /// The same for one host, as the task names it: a host that is reached by two names counts twice. Default: no bound.
    concurrent_per_host: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Secrets {
    /// Keys of AWS KMS that may be used, as ARNs: `arn:aws:kms:eu-central-1:111122223333:key/*`, `*`. To read a secret the key that
    /// encrypted it counts; to write one and to test, the key as the secret manager names it. Default: all.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    kms_keys: Option<Vec<ArnPattern>>,
    /// Roles that the agent may assume for that: `arn:aws:iam::111122223333:role/lictor-*`, `*`. Default: all.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    kms_roles: Option<Vec<ArnPattern>>,
    /// URLs that may take the place of AWS's own endpoints: `https://*.kms.eu-central-1.vpce.amazonaws.com`, `*`. Whoever answers
    /// there gets to see what is encrypted, and in place of STS the token of the machine (web identity), so none is allowed unless
    /// it is listed, not even without a policy.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    kms_endpoints: Vec<EndpointPattern>,
    /// Whether a secret may be a file or a variable of the agent (the setting `secrets.directories`, `LICTOR_SECRET_<name>`).
    sources: bool,
}

impl Default for Secrets {
    fn default() -> Self {
        Self { kms_keys: None, kms_roles: None, kms_endpoints: Vec::new(), sources: true }
    }
}

/// Whether hosts may be spoken to over http.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PlainHttp {
    Allowed,
    /// Only when every message is sealed by the authentication.
    Sealed,
    Forbidden,
}

/// Kinds of tasks, as the contract names capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TaskKind {
    ConnectionTest,
    Command,
    Script,
    Diagnosis,
    Posture,
    SecretManagerTest,
    SealSecret,
}

impl TaskKind {
    const ALL: [Self; 7] = [
        Self::ConnectionTest,
        Self::Command,
        Self::Script,
        Self::Diagnosis,
        Self::Posture,
        Self::SecretManagerTest,
        Self::SealSecret,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::ConnectionTest => "connection_test",
            Self::Command => "command",
            Self::Script => "script",
            Self::Diagnosis => "diagnosis",
            Self::Posture => "posture",
            Self::SecretManagerTest => "secret_manager_test",
            Self::SealSecret => "seal_secret",
        }
    }
}

/// What a task wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Job {
    /// Its kind.
    pub(crate) kind: TaskKind,
    /// Bytes that it brings along for the host: script, command line, arguments, standard input, environment.
    pub(crate) script_bytes: u64,
}

impl Job {
    /// Reads it from the wire. Nothing: a kind that this version does not know.
    pub(crate) fn of(spec: &TaskSpec) -> Option<Self> {
        let (kind, texts, shell, input) = match spec.kind.as_ref()? {
            task_spec::Kind::ConnectionTest(_) => return Some(Self::without_input(TaskKind::ConnectionTest)),
            task_spec::Kind::Diagnosis(_) => return Some(Self::without_input(TaskKind::Diagnosis)),
            // Its script is the agent's own.
            task_spec::Kind::Posture(_) => return Some(Self::without_input(TaskKind::Posture)),
            task_spec::Kind::SecretManagerTest(_) => return Some(Self::without_input(TaskKind::SecretManagerTest)),
            task_spec::Kind::SealSecret(_) => return Some(Self::without_input(TaskKind::SealSecret)),
            task_spec::Kind::Command(command) => {
                let texts = (&command.command_line, &command.arguments);
                (TaskKind::Command, texts, &command.shell, command.stdin.len())
            }
            task_spec::Kind::Script(script) => (TaskKind::Script, (&script.text, &script.arguments), &script.shell, 0),
        };
        let environment =
            shell.iter().flat_map(|shell| &shell.environment).map(|(name, value)| name.len() + value.len());
        // Their values are not known yet, and have a bound of their own.
        let secrets = shell.iter().flat_map(|shell| shell.secret_environment.keys()).map(String::len);
        let lengths = texts.1.iter().map(String::len).chain(environment).chain(secrets);
        let script_bytes = lengths.fold(texts.0.len() + input, usize::saturating_add) as u64;
        Some(Self { kind, script_bytes })
    }

    fn without_input(kind: TaskKind) -> Self {
        Self { kind, script_bytes: 0 }
    }
}

/// How a task wants to reach its host, and as whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Approach<'a> {
    /// Where.
    pub(crate) endpoint: &'a Endpoint,
    /// As whom.
    pub(crate) username: &'a str,
    /// The realm that the user is said to be of, whatever the user name says.
    pub(crate) realm: Option<&'a str>,
    /// How to authenticate.
    pub(crate) auth: AuthKind,
    /// Whether the host gets a ticket to go on with as the user.
    pub(crate) delegate: bool,
    /// How the host's certificate is checked.
    pub(crate) tls: &'a TlsPolicy,
    /// Whether the task brings an authority to check it against: one that is not in `tls` yet counts as well.
    pub(crate) task_ca: bool,
    /// When messages are sealed.
    pub(crate) message_encryption: MessageEncryption,
}

/// How a task wants to use AWS KMS.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KmsUse<'a> {
    /// The key that is asked for, however it is named.
    pub(crate) key: &'a str,
    /// The role to assume, if any.
    pub(crate) role: Option<&'a str>,
    /// URLs in place of AWS's own; empty ones are none.
    pub(crate) endpoints: [&'a str; 2],
}

/// A task that the policy does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}: {rule} in {} does not allow it", file.display())]
pub(crate) struct Refusal {
    /// Stable, `policy.` and what it is about.
    pub(crate) code: &'static str,
    /// Key of the rule.
    pub(crate) rule: &'static str,
    /// What the task asks for.
    pub(crate) problem: String,
    /// Where the rule stands.
    pub(crate) file: PathBuf,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            file: None,
            hosts: Hosts::default(),
            identities: Identities::default(),
            connection: Connection {
                ports: None,
                http: PlainHttp::Allowed,
                skip_cert_check: true,
                task_ca: true,
                basic: true,
                auth: None,
                delegation: true,
            },
            tasks: Tasks::default(),
            secrets: Secrets::default(),
        }
    }
}

impl Policy {
    /// Decides about a task that has not been accepted. Allowed, it may be connected to at the returned addresses only:
    /// what a name resolves to is known no sooner than when the connection is opened.
    pub(crate) fn check(&self, job: Job, approach: &Approach<'_>) -> Result<Networks, Refusal> {
        self.job(job)?;
        self.identities(approach)?;
        self.way(approach)
    }

    /// Decides as whom.
    pub(crate) fn identities(&self, approach: &Approach<'_>) -> Result<(), Refusal> {
        self.identity(approach.username)?;
        // In another realm it is another user.
        match approach.realm {
            Some(realm) => self.identity(&format!("{}@{realm}", account(approach.username))),
            None => Ok(()),
        }
    }

    /// Decides which host, and how. Allowed, it may be connected to at the returned addresses only.
    pub(crate) fn way(&self, approach: &Approach<'_>) -> Result<Networks, Refusal> {
        self.connection(approach)?;
        self.host(approach.endpoint.host())
    }

    /// Decides about a task that works on no host.
    pub(crate) fn errand(&self, job: Job) -> Result<(), Refusal> {
        self.job(job)
    }

    /// Decides about a key of AWS KMS, once the task has shown which it is.
    pub(crate) fn kms(&self, wanted: &KmsUse<'_>) -> Result<(), Refusal> {
        let Secrets { kms_keys, kms_roles, kms_endpoints, .. } = &self.secrets;
        let allows = |rules: &Option<Vec<ArnPattern>>, arn: &str| {
            rules.as_ref().is_none_or(|rules| rules.iter().any(|rule| rule.matches(arn)))
        };
        if !allows(kms_keys, wanted.key) {
            let problem = format!("the task uses the KMS key {:?}", clipped(wanted.key));
            return Err(self.refusal("policy.kms_key", "secrets.kms_keys", problem));
        }
        if let Some(role) = wanted.role.filter(|role| !allows(kms_roles, role)) {
            let problem = format!("the task assumes the role {:?}", clipped(role));
            return Err(self.refusal("policy.kms_role", "secrets.kms_roles", problem));
        }
        for endpoint in wanted.endpoints.into_iter().filter(|endpoint| !endpoint.is_empty()) {
            if !kms_endpoints.iter().any(|rule| rule.matches(endpoint)) {
                let problem = format!("the task calls AWS at {:?}", clipped(endpoint));
                return Err(self.refusal("policy.kms_endpoint", "secrets.kms_endpoints", problem));
            }
        }
        Ok(())
    }

    /// Whether any key of AWS KMS could be used.
    pub(crate) fn allows_kms(&self) -> bool {
        self.secrets.kms_keys.as_ref().is_none_or(|rules| !rules.is_empty())
    }

    /// Decides about a file or a variable of the agent.
    pub(crate) fn source(&self, source: &str) -> Result<(), Refusal> {
        if self.secrets.sources {
            return Ok(());
        }
        let problem = format!("a secret of the task is {:?} on the agent", clipped(source));
        Err(self.refusal("policy.secret_source", "secrets.sources", problem))
    }

    /// Most tasks that may work on hosts at once.
    pub(crate) fn concurrent(&self) -> Option<u32> {
        self.tasks.concurrent
    }

    /// Most tasks that may work on one host at once.
    fn concurrent_per_host(&self) -> Option<u32> {
        self.tasks.concurrent_per_host
    }

    fn job(&self, job: Job) -> Result<(), Refusal> {
        if self.tasks.kinds.as_ref().is_some_and(|kinds| !kinds.contains(&job.kind)) {
            return Err(self.refusal("policy.task_kind", "tasks.kinds", format!("the task is a {}", job.kind.name())));
        }
        match self.tasks.max_script_bytes {
            Some(most) if job.script_bytes > u64::from(most) => {
                let problem = format!("the task brings {} bytes for the host, {most} are the most", job.script_bytes);
                Err(self.refusal("policy.script_size", "tasks.max_script_bytes", problem))
            }
            _ => Ok(()),
        }
    }

    fn identity(&self, username: &str) -> Result<(), Refusal> {
        let Identities { allow, deny } = &self.identities;
        if allow.is_none() && deny.is_empty() {
            return Ok(());
        }
        let refusal = |rule| self.refusal("policy.identity", rule, format!("the task runs as {username:?}"));
        // Windows may not tell such a name from the one without them.
        if username.trim() != username || username.chars().any(char::is_control) {
            return Err(refusal(if allow.is_some() { "identities.allow" } else { "identities.deny" }));
        }
        if deny.iter().any(|pattern| pattern.matches_any_form(username)) {
            return Err(refusal("identities.deny"));
        }
        match allow {
            Some(allow) if !allow.iter().any(|pattern| pattern.matches(username)) => Err(refusal("identities.allow")),
            _ => Ok(()),
        }
    }

    fn connection(&self, approach: &Approach<'_>) -> Result<(), Refusal> {
        let rules = &self.connection;
        let port = approach.endpoint.port();
        if rules.ports.as_ref().is_some_and(|ports| !ports.contains(&port)) {
            return Err(self.refusal("policy.port", "connection.ports", format!("the task uses port {port}")));
        }
        if approach.auth == AuthKind::Basic && !rules.basic {
            let problem = "the task uses Basic authentication".to_owned();
            return Err(self.refusal("policy.basic", "connection.basic", problem));
        }
        if rules.auth.as_ref().is_some_and(|auth| !auth.contains(&approach.auth)) {
            let problem = format!("the task uses {} authentication", auth_name(approach.auth));
            return Err(self.refusal("policy.auth", "connection.auth", problem));
        }
        if approach.delegate && !rules.delegation {
            let problem = "the task hands the host a forwarded ticket of the user".to_owned();
            return Err(self.refusal("policy.delegation", "connection.delegation", problem));
        }
        match approach.endpoint.scheme() {
            Scheme::Http => {
                let sealed =
                    approach.auth != AuthKind::Basic && approach.message_encryption != MessageEncryption::Never;
                let problem = match rules.http {
                    PlainHttp::Allowed => return Ok(()),
                    PlainHttp::Sealed if sealed => return Ok(()),
                    PlainHttp::Sealed => "the task uses http without sealed messages",
                    PlainHttp::Forbidden => "the task uses http",
                };
                Err(self.refusal("policy.plain_http", "connection.http", problem.to_owned()))
            }
            Scheme::Https if approach.tls.skip_certificate_check && !rules.skip_cert_check => {
                let problem = "the task skips the check of the host's certificate".to_owned();
                Err(self.refusal("policy.skip_cert_check", "connection.skip_cert_check", problem))
            }
            // Whoever may name the authority to trust need not skip the check.
            Scheme::Https if approach.task_ca && !rules.task_ca => {
                let problem = "the task brings an authority of its own to trust".to_owned();
                Err(self.refusal("policy.task_ca", "connection.task_ca", problem))
            }
            Scheme::Https => Ok(()),
        }
    }

    fn host(&self, host: &str) -> Result<Networks, Refusal> {
        let Hosts { allow, deny } = &self.hosts;
        if allow.is_none() && deny.is_empty() {
            return Ok(Networks::default());
        }
        let refusal = |rule| self.refusal("policy.host", rule, format!("the task is for host {host:?}"));
        let blocks = |rules: &[HostRule]| -> Vec<Network> { rules.iter().filter_map(HostRule::network).collect() };
        let Some(host) = Host::parse(host) else {
            // The system may read it as an address: `127.1`, `0x7f000001`.
            return Err(refusal(if allow.is_some() { "hosts.allow" } else { "hosts.deny" }));
        };
        if deny.iter().any(|rule| rule.matches(&host)) {
            return Err(refusal("hosts.deny"));
        }
        let denied = blocks(deny);
        let Some(allow) = allow else { return Ok(Networks { allow: None, deny: denied }) };
        if allow.iter().any(|rule| rule.matches(&host)) {
            return Ok(Networks { allow: None, deny: denied });
        }
        let allowed = blocks(allow);
        match host {
            // Which of them it has shows when it is connected to.
            Host::Name(_) if !allowed.is_empty() => Ok(Networks { allow: Some(allowed), deny: denied }),
            Host::Name(_) | Host::Address(_) => Err(refusal("hosts.allow")),
        }
    }

    fn refusal(&self, code: &'static str, rule: &'static str, problem: String) -> Refusal {
        let file = self.file.clone().unwrap_or_else(|| PathBuf::from("the policy file (there is none)"));
        Refusal { code, rule, problem, file }
    }
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl HostRule {
    fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Any, _) => true,
            (Self::Name(rule), Host::Name(name)) => rule == name,
            (Self::Suffix(suffix), Host::Name(name)) => name.len() > suffix.len() && name.ends_with(suffix.as_str()),
            (Self::Network(network), Host::Address(address)) => network.contains(*address),
            (Self::Name(_) | Self::Suffix(_), Host::Address(_)) | (Self::Network(_), Host::Name(_)) => false,
        }
    }

    fn network(&self) -> Option<Network> {
        match self {
            Self::Network(network) => Some(*network),
            _ => None,
        }
    }
}

/// The account's own name, without its domain.
fn account(username: &str) -> &str {
    let user = username.split_once('\\').map_or(username, |(_, user)| user);
    user.split_once('@').map_or(user, |(user, _)| user)
}

/// What a task says may be long.
fn clipped(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_SHOWN)).unwrap_or_default()
}

/// As the contract and the settings spell it.
fn auth_name(auth: AuthKind) -> &'static str {
    match auth {
        AuthKind::Basic => "basic",
        AuthKind::Ntlm => "ntlm",
        AuthKind::Negotiate => "negotiate",
        AuthKind::Kerberos => "kerberos",
    }
}

/// An address in the form that rules are compared with.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Of a name in a refusal. An ARN has 2048 bytes at most.
const MAX_SHOWN: usize = 2048;
