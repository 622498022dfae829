//! Settings: one struct, one loader, every mistake reported at once.
//!
//! Values come from a TOML or YAML file and from the environment (`LICTOR_CONTROL_PLANE_<KEY>`, nested keys joined by
//! `__`), the environment on top. Unknown keys are errors. This module opens no port and writes no file; it must never
//! print the master key. Called by the command line.

mod oidc;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lictor_settings::{Form, Layers, Origins, Overview, Reader, Setting};
use lictor_telemetry::{Standard, Traces};
use zeroize::Zeroizing;

use crate::vault::parse_list;
pub use oidc::{Endpoint, IssuerUrl, Oidc};

/// All settings of the control plane. The doc comments of the fields are what `docs/control-plane-settings.md`, its JSON schema and the
/// example file say; a test makes them, see [`lictor_settings::reference`].
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Config {
    /// Where agents and users connect: gRPC over TLS. Only proxies that pass TCP through may stand in between.
    #[cfg_attr(test, schemars(with = "String"))]
    pub listen: SocketAddr,
    /// Names of this control plane, put into its certificate: every name that agents and users connect by.
    pub names: Vec<String>,
    /// Database, authority and keys; made with mode 0700. One control plane per directory.
    pub state_dir: PathBuf,
    /// `/live`, `/ready` and `/metrics`, in plain HTTP; and what `oidc.issuer` says.
    #[cfg_attr(test, schemars(with = "String"))]
    pub http_listen: SocketAddr,
    /// File that holds the key that credentials, secrets and tasks are encrypted with, 32 bytes in base64; or several, one a line, the first
    /// one current. Read again when it changes; see [the master key](#the-master-key).
    /// Example: `/etc/lictor/master-key`.
    #[cfg_attr(test, schemars(rename = "master_key_file", with = "String"))]
    pub master_key: MasterKeySource,
    /// How long an assignment lives without a sign of life. After three times as long the session ends.
    pub lease: Duration,
    /// How often agents are asked to send a heartbeat. A third of the lease when that is less; half the lease at most.
    pub heartbeat_interval: Duration,
    /// How long a task whose lease ran out waits for its agent, before it is given out again (when it is idempotent) or ends Unknown.
    pub lost_wait: Duration,
    /// No lease ends before the control plane has been up for this long.
    pub restart_grace: Duration,
    /// How long an agent's certificate lasts. Agents renew it after two thirds; it works for three days more, so that an agent that was
    /// off needs no new join token.
    pub agent_certificate_lifetime: Duration,
    /// Most output stored per task. What follows is counted, not stored.
    pub output_limit: u64,
    /// The control plane as OpenID Connect issuer, for secret managers that AWS is to trust without stored credentials.
    pub oidc: Oidc,
    /// Bounds of connections on `listen`.
    pub connections: Connections,
    /// What is kept of finished tasks; see [what is kept](#what-is-kept-and-for-how-long).
    pub retention: Retention,
    /// Bounds of what runs at once.
    pub limits: Limits,
    /// Logging.
    pub log: Log,
    /// Traces.
    pub telemetry: lictor_telemetry::Settings,
}

/// Bounds of connections on `listen`.
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Connections {
    /// Most connections at once on `listen`; fewer where the process may not open so many files.
    pub most: usize,
    /// Most of them from one address. Raise it to `connections.most` when all come through one proxy.
    pub per_source: usize,
}

/// What is kept of finished tasks.
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Retention {
    /// How long a finished task is kept, with its result and its idempotency key; a batch as long as its last task.
    pub tasks: Duration,
    /// How long the output of a finished task is kept.
    pub outputs: Duration,
    /// Most output kept in all. Beyond it goes the output of the tasks that finished first.
    pub output_bytes: u64,
}

/// Bounds of what runs at once.
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Limits {
    /// Most tasks that run on one host at once, over all agents; 0 is any number. A host is its name in any case, and the port when the
    /// task names one.
    pub tasks_per_host: u32,
    /// Most tasks that run with one credential at once, over all agents; 0 is any number.
    pub tasks_per_credential: u32,
}

/// Logging.
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Log {
    /// Form of log lines, on standard error.
    #[cfg_attr(test, schemars(with = "String"))]
    pub format: LogFormat,
    /// Least important level that is logged (`error`, `warn`, `info`, `debug`, `trace`), or a filter such as
    /// `info,lictor_control_plane=debug`.
    pub level: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where the master key comes from.
#[derive(Clone)]
pub enum MasterKeySource {
    /// Given in the environment, the current one first.
    Value(Vec<Zeroizing<[u8; 32]>>),
    /// Read from this file (base64, 32 bytes each, the current one first).
    File(PathBuf),
    /// The same in the state directory, made at the first start.
    StateDir,
}

impl fmt::Debug for MasterKeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.write_str("[redacted]"),
            Self::File(path) => path.fmt(f),
            Self::StateDir => f.write_str("state_dir"),
        }
    }
}

/// Everything that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration has {} mistake(s):{}", .0.len(), .0.iter().map(|m| format!("\n  - {m}")).collect::<String>())]
pub struct Mistakes(pub Vec<String>);

impl Config {
    /// Reads the file, if one is given, and the environment.
    ///
    /// # Errors
    /// [`Mistakes`] lists all that is wrong.
    pub fn load(file: Option<&Path>, environment: &BTreeMap<String, String>) -> Result<Self, Mistakes> {
        load(file, environment).map(|loaded| loaded.config)
    }
}

/// A configuration that was read.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The settings.
    pub(crate) config: Config,
    /// Where traces go, the standard variables considered.
    pub(crate) traces: Traces,
    /// Every setting, and where its value came from.
    pub(crate) overview: Overview,
}

/// Reads the file, if one is given, and the environment.
pub(crate) fn load(file: Option<&Path>, environment: &BTreeMap<String, String>) -> Result<Loaded, Mistakes> {
    let Layers { tree, names, mistakes } =
        Layers::read(VARIABLE_PREFIX, file, environment.clone()).map_err(Mistakes)?;
    let mut reader = Reader::new(tree, &[], mistakes);
    // Without its value, `master_key_file:` would mean a new key beside a database that an old one sealed.
    reader.insist_on_values();
    let mut standard = Standard::default();
    for (name, value) in environment {
        standard.takes(name, value);
    }
    standard.apply(&mut reader);
    let headers = standard.headers_source().filter(|_| !reader.is_set("telemetry.otlp_headers_file"));
    let config = read(&mut reader, environment.get(MASTER_KEY_VARIABLE));
    let given = matches!(config.master_key, MasterKeySource::Value(_));
    let secrets = [("master key", given.then_some(MASTER_KEY_VARIABLE)), ("OTLP headers", headers)];
    let secrets = secrets.into_iter().filter_map(|(key, source)| Some(Setting::secret(key, source?)));
    let overview = Overview::new(&reader, &Origins { file, names, beneath: "the environment" }, secrets);
    let mistakes = reader.finish();
    if !mistakes.is_empty() {
        return Err(Mistakes(mistakes));
    }
    let traces = Traces::new(config.telemetry.clone(), standard);
    Ok(Loaded { config, traces, overview })
}

fn read(reader: &mut Reader, master_key: Option<&String>) -> Config {
    let listen = address(reader, "listen", DEFAULT_LISTEN);
    let names = names(reader);
    let state_dir = reader.path("state_dir", DEFAULT_STATE_DIR);
    let http_listen = address(reader, "http_listen", DEFAULT_HTTP_LISTEN);
    let key_file = reader.optional_path("master_key_file");
    let master_key = match (key_file, master_key) {
        (Some(_), Some(_)) => {
            reader.mistake("master_key_file", &format!("{MASTER_KEY_VARIABLE} is set too; give only one of them"));
            MasterKeySource::StateDir
        }
        (Some(path), None) => MasterKeySource::File(path),
        (None, Some(text)) => match parse_list(text) {
            Ok(keys) => MasterKeySource::Value(keys),
            Err(why) => {
                let text = format!("expected 32 bytes in base64, or several such keys separated by commas: {why}");
                reader.mistake(MASTER_KEY_VARIABLE, &text);
                MasterKeySource::StateDir
            }
        },
        (None, None) => MasterKeySource::StateDir,
    };
    let lease = reader.duration("lease", DEFAULT_LEASE, SECOND, HOUR);
    let heartbeat_interval = reader.duration(
        "heartbeat_interval",
        DEFAULT_HEARTBEAT_INTERVAL.min(lease / 3),
        Duration::from_millis(100),
        HOUR / 2,
    );
    if heartbeat_interval > lease / 2 {
        let text = format!(
            "{} is more than half the lease ({}); one lost heartbeat would lose tasks",
            humantime::format_duration(heartbeat_interval),
            humantime::format_duration(lease)
        );
        reader.mistake("heartbeat_interval", &text);
    }
    Config {
        listen,
        names,
        state_dir,
        http_listen,
        master_key,
        lease,
        heartbeat_interval,
        lost_wait: reader.duration("lost_wait", DEFAULT_LOST_WAIT, Duration::ZERO, DAY),
        restart_grace: reader.duration("restart_grace", DEFAULT_RESTART_GRACE, Duration::ZERO, HOUR),
        agent_certificate_lifetime: reader.duration(
            "agent_certificate_lifetime",
            DAY,
            Duration::from_secs(5),
            LONGEST_CERTIFICATE,
        ),
        output_limit: reader.size("output_limit", DEFAULT_OUTPUT_LIMIT, MINIMUM_OUTPUT_LIMIT),
        oidc: Oidc::read(reader),
        connections: Connections {
            most: reader.number("connections.most", DEFAULT_CONNECTIONS, 16, CONNECTIONS_BOUND),
            per_source: reader.number("connections.per_source", DEFAULT_PER_SOURCE, 1, CONNECTIONS_BOUND),
        },
        retention: Retention {
            tasks: reader.duration("retention.tasks", DEFAULT_RETENTION_TASKS, SECOND, LONGEST_RETENTION),
            outputs: reader.duration("retention.outputs", DEFAULT_RETENTION_OUTPUTS, SECOND, LONGEST_RETENTION),
            output_bytes: reader.size("retention.output_bytes", DEFAULT_RETENTION_BYTES, MINIMUM_RETENTION_BYTES),
        },
        limits: Limits {
            tasks_per_host: reader.number("limits.tasks_per_host", DEFAULT_TASKS_PER_HOST, 0, u32::MAX),
            tasks_per_credential: reader.number("limits.tasks_per_credential", 0, 0, u32::MAX),
        },
        log: Log {
            format: reader.choice(
                "log.format",
                LogFormat::Text,
                &[("text", LogFormat::Text), ("json", LogFormat::Json)],
            ),
            level: reader.or("log.level", LEVEL_FORM, DEFAULT_LEVEL.to_owned(), |text| {
                let filter = tracing_subscriber::EnvFilter::try_new(text);
                filter.map(|_| text.to_owned()).map_err(|_| "must be a level such as info, or a filter".to_owned())
            }),
        },
        telemetry: lictor_telemetry::Settings::read(reader, TRACES_SERVICE),
    }
}

fn address(reader: &mut Reader, key: &'static str, default: SocketAddr) -> SocketAddr {
    reader.or(key, Form::Address, default, |text| {
        text.parse().map_err(|_| "is not an address and a port such as 0.0.0.0:7443".to_owned())
    })
}

fn names(reader: &mut Reader) -> Vec<String> {
    let names = reader.list_or("names", MAX_NAMES, NAME_FORM, &DEFAULT_NAMES, |name| {
        if crate::validate::is_host(name) {
            Ok(name.to_owned())
        } else {
            Err("is neither a DNS name nor an IP address".into())
        }
    });
    if reader.shown("names").is_empty() {
        reader.mistake("names", "must have at least one DNS name or IP address");
    }
    names
}

/// What the control plane is called in traces.
const TRACES_SERVICE: &str = "lictor-control-plane";
const VARIABLE_PREFIX: &str = "LICTOR_CONTROL_PLANE_";
const MASTER_KEY_VARIABLE: &str = "LICTOR_MASTER_KEY";
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7443);
const DEFAULT_STATE_DIR: &str = "./lictor-control-plane";
/// Loopback: metrics and health are for the machine's own collector unless somebody decides otherwise.
const DEFAULT_HTTP_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7480);
const DEFAULT_NAMES: [&str; 2] = ["localhost", "127.0.0.1"];
/// Three heartbeats: one may be lost and one late.
const DEFAULT_LEASE: Duration = Duration::from_secs(30);
const DEFAULT_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// An agent whose node restarts is back within a minute.
const DEFAULT_LOST_WAIT: Duration = Duration::from_secs(60);
/// As long as a lease: agents reconnect with a backoff well below it.
const DEFAULT_RESTART_GRACE: Duration = Duration::from_secs(30);
const DEFAULT_OUTPUT_LIMIT: u64 = 1 << 30;
/// A third of the shells that Windows gives one user by default (MaxShellsPerUser 30); one slow host takes no more slots.
const DEFAULT_TASKS_PER_HOST: u32 = 10;
const MINIMUM_OUTPUT_LIMIT: u64 = 64 << 10;
/// Some 50 KiB each; an agent needs one.
const DEFAULT_CONNECTIONS: usize = 4096;
/// Many agents may stand behind one address; one address is not to take all the places.
const DEFAULT_PER_SOURCE: usize = 1024;
const CONNECTIONS_BOUND: usize = 1_000_000;
const DAY: Duration = Duration::from_secs(86400);
/// A month of what was done, and of idempotency keys.
const DEFAULT_RETENTION_TASKS: Duration = Duration::from_secs(30 * 86400);
/// Output is what fills disks, and is seldom looked at after a week.
const DEFAULT_RETENTION_OUTPUTS: Duration = Duration::from_secs(7 * 86400);
/// Twenty tasks that print as much as they may.
const DEFAULT_RETENTION_BYTES: u64 = 20 << 30;
const MINIMUM_RETENTION_BYTES: u64 = 1 << 20;
/// Ten years.
const LONGEST_RETENTION: Duration = DAY.saturating_mul(3653);
/// What public authorities sign at most.
const LONGEST_CERTIFICATE: Duration = DAY.saturating_mul(397);
const MAX_NAMES: usize = 100;
const NAME_FORM: Form = Form::Written {
    pattern: "^[0-9A-Za-z._:-]+$",
    words: "DNS names and IP addresses",
    example: "lictor.corp.example",
};
const LEVEL_FORM: Form = Form::Written { pattern: "^.+$", words: "a level or a filter", example: "info" };
const DEFAULT_LEVEL: &str = "info";
