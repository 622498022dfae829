//! The agent's settings: one struct tree, one loader.
//!
//! Values come from a TOML or YAML file and from `LICTOR_AGENT_<KEY>` in the environment (nested keys with `__`), the
//! environment winning. Unknown keys are mistakes, and all mistakes are reported together, before anything is opened.
//! It must never keep a secret: the join token is handed on in a type that zeroes itself. Called by `app` and `cli`.

pub(crate) mod bootstrap;
mod delegate;
mod kerberos;
mod proxy;
#[cfg(test)]
mod reference;
pub(crate) mod secrets;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lictor_proto::token::JoinToken;
use lictor_settings::layers::{self, Layers};
use lictor_settings::{Form, Origins, Reader};
pub use lictor_settings::{Overview, Setting};
use lictor_telemetry::{Standard, Traces};
use lictor_winrm::pool::PoolSettings;
use lictor_winrm::target::Secret;
use zeroize::Zeroizing;

pub use bootstrap::{Bootstrap, OnFailure};
use delegate::Delegate;
pub(crate) use delegate::foreign_name;
pub use delegate::{Ignored, Told};
pub use kerberos::Kerberos;
pub use proxy::Proxy;
pub(crate) use proxy::ProxyAddress;
pub use secrets::Secrets;

/// Everything that can be set. The doc comments of the fields are what `docs/agent-settings.md`, its JSON schema and the example file
/// say; a test makes them, see [`lictor_settings::reference`].
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Config {
    /// Where the control plane listens. The port is 7443 unless given.
    #[cfg_attr(test, schemars(with = "String"))]
    pub control_plane: ControlPlaneAddress,
    /// How to talk to the control plane; see [stream and poll](#stream-and-poll).
    #[cfg_attr(test, schemars(with = "String"))]
    pub transport: Transport,
    /// The HTTP proxy on the way to the control plane; see [through a proxy](#through-a-proxy).
    pub proxy: Option<Proxy>,
    /// File that holds the join token. Read each time one is needed, so a replaced token is found without a restart.
    /// Example: `/etc/lictor/join/token`.
    pub join_token_file: Option<PathBuf>,
    /// Name shown to people; unique among agents. An agent that enrols again under its old name keeps its id.
    /// Default: the host name. Example: `web-1`.
    pub name: String,
    /// Tags that tasks may select the agent by. Range: at most 64 of 1 to 128 characters. Example: `dmz,web`.
    pub tags: Vec<String>,
    /// Free text for people.
    pub description: String,
    /// Scope that the agent asks for when it enrols: that of its join token or one below it, such as `platform/web`.
    /// It serves tasks of that scope and below. Default: that of the join token.
    pub scope: Option<String>,
    /// Identity, journal and spilled output; made with mode 0700. One agent per directory.
    pub state_dir: PathBuf,
    /// Most tasks at once.
    pub slots: u32,
    /// `/live`, `/ready` and `/metrics`; the first and the last also as `/api/health` and `/api/metrics`.
    #[cfg_attr(test, schemars(with = "String"))]
    pub http_listen: SocketAddr,
    /// How long running tasks may go on after the agent was asked to stop. Kubernetes must wait longer than this
    /// (`terminationGracePeriodSeconds`).
    pub drain_grace: Duration,
    /// The agent's own policy: which hosts, users and kinds of tasks it serves, whatever the control plane asks for;
    /// see [policy.md](policy.md). Range: a path ending in `.toml`, `.yaml` or `.yml`. Example:
    /// `/etc/lictor/policy.yaml`.
    pub policy_file: Option<PathBuf>,
    /// PEM certificates of authorities that are trusted beside the system's for HTTPS to Windows hosts: files, and
    /// directories of files. Read at the start. A credential or task with an authority of its own (`--host-ca`)
    /// trusts that one alone. Default:
    /// `/opt/harness-delegate/ca-bundle` and `/etc/lictor/ca`, where they exist. Example: `/etc/lictor/ca`.
    pub ca_files: Vec<PathBuf>,
    /// The script that runs before the agent; see [bootstrap.md](bootstrap.md).
    pub bootstrap: Bootstrap,
    /// When not to ask for more work; see [short of memory or processor time](#short-of-memory-or-processor-time).
    pub admission: Admission,
    /// Kerberos; see [Kerberos](#kerberos).
    pub kerberos: Kerberos,
    /// Secrets that are on the agent or under AWS KMS; see [secrets](#secrets).
    pub secrets: Secrets,
    /// Bounds of the pool of WinRM sessions.
    pub pool: Pool,
    /// Logging.
    pub log: Log,
    /// Traces.
    pub telemetry: lictor_telemetry::Settings,
}

/// When not to ask for more work. Each share may be `off`.
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Admission {
    /// Share of the control group's memory limit from which on no more work is asked for; see
    /// [short of memory](#short-of-memory-or-processor-time).
    pub memory_percent: Option<u32>,
    /// The same for the control group's processor limit, over 10 s.
    pub cpu_percent: Option<u32>,
    /// The same for the share of the last 10 s in which everything waited for memory (PSI, `full avg10` of
    /// `memory.pressure`).
    pub memory_stall_percent: Option<u32>,
    /// Where control groups are mounted.
    pub cgroup_root: PathBuf,
}

/// Bounds of the session pool.
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Pool {
    /// Most WinRM sessions in all.
    pub max_sessions: u32,
    /// Most shells per host and user. Windows allows 30 over all clients unless told otherwise. When a host gives
    /// fewer, the agent asks for fewer, and tries one more every 30 s.
    pub max_shells_per_user: u32,
    /// Most shells per host, over all users.
    pub max_shells_per_host: u32,
    /// How long an idle connection is kept. Windows closes at 120 s.
    pub connection_idle: Duration,
    /// How long an idle shell is kept before it is deleted.
    pub shell_idle: Duration,
    /// Commands per shell before it is replaced. Windows counts 1500 operations per user.
    pub commands_per_shell: u32,
    /// Commands that all shells of one user on one host may have taken together. Windows counts 1500 per user over
    /// all clients, and gives a shell's share back only when the shell is deleted; the agent replaces shells in time.
    pub commands_per_user: u32,
}

/// Logging.
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Log {
    /// Form of log lines, on standard error.
    #[cfg_attr(test, schemars(with = "String"))]
    pub format: LogFormat,
    /// Least important level that is logged. Libraries that print secrets stay capped whatever is asked for.
    #[cfg_attr(test, schemars(with = "String"))]
    pub level: tracing::Level,
}

/// How to talk to the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A stream, and polls where streams are cut again and again.
    Auto,
    /// A stream, whatever happens to it.
    Stream,
    /// Polls only.
    Poll,
}

/// Formats of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Where the control plane listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlaneAddress {
    host: String,
    port: u16,
}

impl ControlPlaneAddress {
    /// Parses `https://host[:port]`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = url::Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
        if url.scheme() != "https" {
            return Err("must start with https://".into());
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err("must have no path, query or fragment".into());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not hold a user name or password".into());
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or("names no host")?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        // `port()` hides an explicit 443, which is the scheme's default and here not ours.
        let port = match url.port() {
            Some(port) => port,
            None if text.trim_end_matches('/').ends_with(":443") => 443,
            None => DEFAULT_CONTROL_PLANE_PORT,
        };
        Ok(Self { host, port })
    }

    /// Host name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port, with IPv6 addresses in brackets.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for ControlPlaneAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

/// A configuration that was read, and the join token that came with it.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// The token of `LICTOR_AGENT_JOIN_TOKEN`, or of `DELEGATE_TOKEN`, when it was set.
    pub join_token: Option<JoinToken>,
    /// The proxy's password, when it came from the environment.
    pub proxy_password: Option<Secret>,
    /// Variables that are secrets for tasks, `LICTOR_SECRET_<name>`, by their whole names.
    pub variables: BTreeMap<String, Secret>,
    /// Where traces go, the standard variables considered.
    pub traces: Traces,
    /// What there is to tell of a delegate's variables.
    pub told: Told,
    /// Every setting, and where its value came from.
    pub overview: Overview,
}

/// Every mistake of a configuration. Holds no values of secrets.
#[derive(Debug, thiserror::Error)]
pub struct Mistakes(pub Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} mistake(s)", self.0.len())?;
        for mistake in &self.0 {
            write!(f, "\n  - {mistake}")?;
        }
        Ok(())
    }
}

/// Reads the configuration from `file`, when given, and from `environment`.
///
/// # Errors
/// [`Mistakes`], all of them at once.
pub fn load(file: Option<&Path>, environment: impl IntoIterator<Item = (String, String)>) -> Result<Loaded, Mistakes> {
    load_over(HashMap::new(), file, environment)
}

/// The same over what a bootstrap script exported, which counts where neither of them says anything.
pub(crate) fn load_over(
    mut beneath: HashMap<String, String>,
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, Mistakes> {
    let mut mistakes = Vec::new();
    let handed: Vec<(&'static str, Zeroizing<String>)> = JOIN_TOKEN_VARIABLES
        .iter()
        .filter_map(|name| beneath.remove(*name).map(|token| (*name, Zeroizing::new(token))))
        .filter(|(_, token)| !token.trim().is_empty())
        .collect();
    let mut join_token = None;
    let mut variables = HashMap::new();
    let mut secret_variables = BTreeMap::new();
    let mut delegate = Delegate::default();
    let mut standard = Standard::default();
    for (name, value) in environment {
        standard.takes(&name, &value);
        if delegate.takes(&name, &value) {
            continue;
        }
        if name.starts_with(secrets::VARIABLE_PREFIX) {
            if !secrets::is_variable(&name) {
                mistakes.push(format!(
                    "{name}: is no name of a secret: letters, digits and `_` may stand behind the prefix"
                ));
            } else if !value.is_empty() {
                secret_variables.insert(name, Secret::new(value));
            }
            continue;
        }
        if name == JOIN_TOKEN_VARIABLE {
            let value = Zeroizing::new(value);
            if !value.trim().is_empty() {
                match value.parse::<JoinToken>() {
                    Ok(token) => join_token = Some((token, JOIN_TOKEN_VARIABLE)),
                    Err(error) => mistakes.push(format!("{JOIN_TOKEN_VARIABLE}: {error}")),
                }
            }
        } else if name.starts_with(VARIABLE_PREFIX) {
            variables.insert(name, value);
        }
    }

    let Layers { tree, names, mistakes: missing } = match Layers::read(VARIABLE_PREFIX, file, variables) {
        Ok(layers) => layers,
        Err(more) => {
            mistakes.extend(more);
            return Err(Mistakes(mistakes));
        }
    };
    mistakes.extend(missing);
    let below = match Layers::read(VARIABLE_PREFIX, None, beneath) {
        Ok(layers) => layers.tree,
        Err(more) => {
            mistakes.extend(more.iter().map(|mistake| format!("of what INIT_SCRIPT exported: {mistake}")));
            return Err(Mistakes(mistakes));
        }
    };

    let mut reader = Reader::new(tree, kerberos::TABLES, mistakes);
    let hostname_file = Path::new("/proc/sys/kernel/hostname");
    let has_token = join_token.is_some();
    let mut join_token = join_token.or(delegate.apply(&mut reader, host_name(hostname_file).as_deref(), has_token));
    if join_token.is_none() && !reader.is_set("join_token_file") {
        // A file that the script names does not go before it.
        join_token = match handed.first().map(|(name, text)| (*name, text.parse::<JoinToken>())) {
            Some((name, Ok(token))) => Some((token, name)),
            Some((name, Err(error))) => {
                reader.mistake(name, &format!("{error} (INIT_SCRIPT exported it)"));
                None
            }
            None => None,
        };
    }
    reader.put_beneath(below, |key| !delegate.proxy.covers(key));
    delegate.listen(&mut reader);
    standard.apply(&mut reader);
    let headers_source = standard.headers_source().filter(|_| !reader.is_set("telemetry.otlp_headers_file"));
    let (proxy, proxy_password) = proxy::read(&mut reader, std::mem::take(&mut delegate.proxy));
    let config = read(&mut reader, hostname_file, proxy);
    let Some(config) = config else { return Err(Mistakes(reader.finish())) };
    show(&config, &mut reader);
    let secrets = [
        ("join token", join_token.as_ref().map(|(_, name)| *name)),
        ("OTLP headers", headers_source),
        (proxy::PASSWORD, reader.source(proxy::PASSWORD)),
    ];
    let secrets = secrets.into_iter().filter_map(|(key, source)| Some(Setting::secret(key, source?)));
    // What INIT_SCRIPT exported is layered under the configuration as variables that the process never had.
    let origins = Origins { file, names, beneath: "INIT_SCRIPT" };
    let overview = Overview::new(&reader, &origins, secrets);
    let mistakes = reader.finish();
    if !mistakes.is_empty() {
        return Err(Mistakes(mistakes));
    }
    let join_token = join_token.map(|(token, _)| token);
    let traces = Traces::new(config.telemetry.clone(), standard);
    let told = delegate.into_told();
    Ok(Loaded { config, join_token, proxy_password, variables: secret_variables, traces, told, overview })
}

/// What is in effect otherwise than it was given.
fn show(config: &Config, reader: &mut Reader) {
    fn list<T>(items: &[T], text: impl Fn(&T) -> String) -> String {
        items.iter().map(text).collect::<Vec<_>>().join(", ")
    }
    reader.show("control_plane", &config.control_plane);
    reader.show("name", &config.name);
    reader.show("ca_files", list(&config.ca_files, |path| path.display().to_string()));
    reader.show("secrets.directories", list(&config.secrets.directories, |path| path.display().to_string()));
    match &config.proxy {
        Some(proxy) => {
            reader.show("proxy.url", &proxy.address);
            reader.show("proxy.username", proxy.username.as_deref().unwrap_or_default());
            reader.show("proxy.no_proxy", list(&proxy.no_proxy, ToString::to_string));
        }
        None => reader.show("proxy.url", "none"),
    }
    if let Some(declared) = &config.kerberos.declared {
        let realms: Vec<_> = declared.realms.iter().collect();
        let realms = list(&realms, |(name, realm)| match realm.kdc.as_slice() {
            [] => (*name).clone(),
            kdcs => format!("{name} ({})", kdcs.join(", ")),
        });
        reader.show("kerberos.realms", realms);
        let domains: Vec<_> = declared.domain_realm.iter().collect();
        reader.show("kerberos.domain_realm", list(&domains, |(domain, realm)| format!("{domain} = {realm}")));
    }
}

fn read(reader: &mut Reader, hostname_file: &Path, proxy: Option<Proxy>) -> Option<Config> {
    if reader.take("join_token").is_some() {
        reader.mistake("join_token", &format!("may only come from the environment ({JOIN_TOKEN_VARIABLE}), so that it is not left lying in a file; use join_token_file"));
    }
    let control_plane = reader.required("control_plane", CONTROL_PLANE_FORM, ControlPlaneAddress::parse);
    let transport = [("auto", Transport::Auto), ("stream", Transport::Stream), ("poll", Transport::Poll)];
    let transport = reader.choice("transport", Transport::Auto, &transport);
    let join_token_file = reader.optional_path("join_token_file");
    let name_form = Form::Text { least: 1, most: MAX_NAME_CHARACTERS };
    let name = reader.optional("name", name_form.clone(), |text| limited(text, MAX_NAME_CHARACTERS));
    let name = name.or_else(|| host_name(hostname_file));
    if name.is_none() {
        reader.mistake("name", "is not set, and the machine has no host name to take its place");
    }
    let description_form = Form::Text { least: 0, most: MAX_DESCRIPTION_CHARACTERS };
    let config = Config {
        control_plane: control_plane.unwrap_or(ControlPlaneAddress { host: String::new(), port: 0 }),
        transport,
        proxy,
        join_token_file,
        name: name.unwrap_or_default(),
        tags: reader.list("tags", MAX_TAGS, name_form, |text| limited(text, MAX_NAME_CHARACTERS)),
        description: reader.or("description", description_form, String::new(), |text| {
            if text.chars().count() <= MAX_DESCRIPTION_CHARACTERS {
                Ok(text.to_owned())
            } else {
                Err(format!("is longer than {MAX_DESCRIPTION_CHARACTERS} characters"))
            }
        }),
        scope: reader.optional("scope", SCOPE_FORM, parse_scope),
        state_dir: reader.path("state_dir", DEFAULT_STATE_DIR),
        slots: reader.number("slots", DEFAULT_SLOTS, 1, 1000),
        http_listen: reader.or("http_listen", Form::Address, DEFAULT_HTTP_LISTEN, parse_address),
        drain_grace: reader.duration("drain_grace", DEFAULT_DRAIN_GRACE, Duration::ZERO, DAY),
        policy_file: reader.optional_path("policy_file"),
        ca_files: reader
            .optional_list("ca_files", MAX_CA_FILES, Form::Path, |text| non_empty(text).map(PathBuf::from))
            .unwrap_or_else(|| default_ca_directories().map(PathBuf::from).collect()),
        bootstrap: bootstrap::read(reader),
        admission: Admission {
            memory_percent: reader.number_or_off("admission.memory_percent", DEFAULT_MEMORY_PERCENT, 1, 100),
            cpu_percent: reader.number_or_off("admission.cpu_percent", None, 1, 100),
            memory_stall_percent: reader.number_or_off("admission.memory_stall_percent", None, 1, 100),
            cgroup_root: reader.path("admission.cgroup_root", DEFAULT_CGROUP_ROOT),
        },
        kerberos: kerberos::read(reader),
        secrets: secrets::read(reader),
        pool: pool(reader),
        log: Log {
            format: reader.choice(
                "log.format",
                LogFormat::Text,
                &[("text", LogFormat::Text), ("json", LogFormat::Json)],
            ),
            level: reader.choice("log.level", tracing::Level::INFO, &LEVELS),
        },
        telemetry: lictor_telemetry::Settings::read(reader, TRACES_SERVICE),
    };
    Some(config)
}

fn pool(reader: &mut Reader) -> Pool {
    let default = PoolSettings::default();
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let second = Duration::from_secs(1);
    Pool {
        max_sessions: reader.number("pool.max_sessions", number(default.max_sessions), 1, 10_000),
        max_shells_per_user: reader.number("pool.max_shells_per_user", number(default.max_shells_per_user), 1, 100),
        max_shells_per_host: reader.number("pool.max_shells_per_host", number(default.max_shells_per_host), 1, 1000),
        connection_idle: reader.duration(
            "pool.connection_idle",
            default.connection_idle,
            second,
            Duration::from_secs(110),
        ),
        shell_idle: reader.duration("pool.shell_idle", default.shell_idle, second, Duration::from_secs(3600)),
        commands_per_shell: reader.number("pool.commands_per_shell", default.commands_per_shell, 1, 1400),
        commands_per_user: reader.number("pool.commands_per_user", default.commands_per_user, 1, 1_000_000),
    }
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is not an address such as 127.0.0.1:3460".to_owned())
}

fn host_name(file: &Path) -> Option<String> {
    let name = std::fs::read_to_string(file).ok()?.trim().to_owned();
    (!name.is_empty()).then_some(name)
}

fn parse_scope(text: &str) -> Result<String, String> {
    let is_name = |name: &str| {
        (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    if text.len() <= MAX_SCOPE && text.split('/').all(is_name) {
        Ok(text.to_owned())
    } else {
        Err("is not a path of names such as platform/production".into())
    }
}

/// Those that are there.
fn default_ca_directories() -> impl Iterator<Item = &'static str> {
    DEFAULT_CA_DIRECTORIES.into_iter().filter(|path| Path::new(path).is_dir())
}

fn non_empty(text: &str) -> Result<&str, String> {
    if text.is_empty() { Err("is empty".into()) } else { Ok(text) }
}

fn limited(text: &str, most: usize) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        Err("is empty".into())
    } else if text.chars().count() > most {
        Err(format!("is longer than {most} characters"))
    } else if text.chars().any(char::is_control) {
        Err("holds control characters".into())
    } else {
        Ok(text.to_owned())
    }
}

/// Whether it is one of Kubernetes' links to a service of whatever name.
fn is_link_of_a_service(name: &str) -> bool {
    name.match_indices('_').any(|(at, _)| layers::is_link(&name[at + 1..]))
}

/// Environment variable of the join token.
pub const JOIN_TOKEN_VARIABLE: &str = "LICTOR_AGENT_JOIN_TOKEN";
/// All names of it, the first that counts first.
pub(crate) const JOIN_TOKEN_VARIABLES: [&str; 3] = [JOIN_TOKEN_VARIABLE, "DELEGATE_TOKEN", "HARNESS_DELEGATE_TOKEN"];
const CONTROL_PLANE_FORM: Form = Form::Written {
    pattern: "^https://[^/?#@]+/?$",
    words: "`https://host[:port]`",
    example: "https://lictor.corp.example:7443",
};
const SCOPE_FORM: Form = Form::Written {
    pattern: "^[A-Za-z0-9._-]{1,64}(/[A-Za-z0-9._-]{1,64})*$",
    words: "a path of names",
    example: "platform/web",
};
const LEVELS: [(&str, tracing::Level); 5] = [
    ("error", tracing::Level::ERROR),
    ("warn", tracing::Level::WARN),
    ("info", tracing::Level::INFO),
    ("debug", tracing::Level::DEBUG),
    ("trace", tracing::Level::TRACE),
];
/// What the agent is called in traces.
const TRACES_SERVICE: &str = "lictor-agent";
const VARIABLE_PREFIX: &str = "LICTOR_AGENT_";
/// What the control plane listens on unless told otherwise.
const DEFAULT_CONTROL_PLANE_PORT: u16 = 7443;
const DEFAULT_STATE_DIR: &str = "./lictor-agent";
/// A command mostly waits for its host; 16 keep one core of an agent busy enough without crowding small estates.
const DEFAULT_SLOTS: u32 = 16;
/// The Harness delegate's health port, so that existing probes fit; loopback until somebody opens it.
const DEFAULT_HTTP_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3460);
/// Kubernetes kills after 30 s unless told otherwise; the chart raises that above this value.
const DEFAULT_DRAIN_GRACE: Duration = Duration::from_secs(60);
/// What is left is for the tasks that run: their output may grow by 64 KiB windows and the pool by connections.
const DEFAULT_MEMORY_PERCENT: Option<u32> = Some(90);
const DEFAULT_CGROUP_ROOT: &str = "/sys/fs/cgroup";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_NAME_CHARACTERS: usize = 128;
const MAX_TAGS: usize = 64;
/// The control plane's limit.
const MAX_SCOPE: usize = 256;
const MAX_CA_FILES: usize = 100;
/// Where a Harness delegate finds the authorities of its owner, and where our chart puts them.
const DEFAULT_CA_DIRECTORIES: [&str; 2] = ["/opt/harness-delegate/ca-bundle", "/etc/lictor/ca"];
/// The contract's limit.
const MAX_DESCRIPTION_CHARACTERS: usize = 500;
