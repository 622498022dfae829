//! Settings: one struct, one loader, every mistake reported at once.
//!
//! Values come from a TOML or YAML file and from the environment (`LICTOR_CONTROL_PLANE_<KEY>`, nested keys joined by
//! `__`), the environment on top. Unknown keys are errors. This module opens no port and writes no file; it must never
//! print the master key. Called by the command line.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use config::{ConfigError, Environment, File, Value, ValueKind};
use zeroize::Zeroizing;

/// All settings of the control plane. `docs/control-plane-settings.md` lists the same; a test compares the two.
#[derive(Debug, Clone)]
pub struct Config {
    /// `listen`: where agents and users connect (gRPC over TLS). Default `0.0.0.0:7443`.
    pub listen: SocketAddr,
    /// `names`: DNS names and IP addresses of this control plane, put into its certificate. Default `localhost` and
    /// `127.0.0.1`.
    pub names: Vec<String>,
    /// `state_dir`: where the database, the authority and the admin token live. Default `./lictor-control-plane`.
    pub state_dir: PathBuf,
    /// `http_listen`: where `/live`, `/ready` and `/metrics` are served. Default `127.0.0.1:7480`.
    pub http_listen: SocketAddr,
    /// `master_key_file` or the environment variable `LICTOR_MASTER_KEY`: the key that credentials are encrypted with.
    pub master_key: MasterKeySource,
    /// `lease`: how long an assignment lives without a heartbeat. Default 30 s; 1 s to 1 h.
    pub lease: Duration,
    /// `heartbeat_interval`: how often agents are asked to send a heartbeat. Default 10 s, or a third of the lease when
    /// that is less; 100 ms to half the lease.
    pub heartbeat_interval: Duration,
    /// `lost_wait`: how long a lost task waits for its agent before it is requeued or Unknown. Default 60 s; 0 to 24 h.
    pub lost_wait: Duration,
    /// `restart_grace`: no lease ends before the control plane has been up for this long. Default 30 s; 0 to 1 h.
    pub restart_grace: Duration,
    /// `agent_certificate_lifetime`: how long an agent's certificate is valid. Default 24 h; 5 s to 397 days.
    pub agent_certificate_lifetime: Duration,
    /// `output_limit`: most bytes of output stored per task. Default 1 GiB; at least 64 KiB.
    pub output_limit: u64,
    /// `connections.most`: most connections at once on `listen`. Default 4096; 16 to 1,000,000.
    pub connections_most: usize,
    /// `connections.per_source`: most of them from one address. Default 1024; 1 to 1,000,000.
    pub connections_per_source: usize,
    /// `retention.tasks`: how long finished tasks are kept. Default 30 days; 1 s to 10 years.
    pub retention_tasks: Duration,
    /// `retention.outputs`: how long the output of finished tasks is kept. Default 7 days; 1 s to 10 years.
    pub retention_outputs: Duration,
    /// `retention.output_bytes`: most bytes of output kept in all; beyond it, that of the tasks that finished first goes.
    /// Default 20 GiB; at least 1 MiB.
    pub retention_output_bytes: u64,
    /// `limits.tasks_per_host`: most tasks that run on one host at once, over all agents. Default 10; 0 is any number.
    pub limits_tasks_per_host: u32,
    /// `limits.tasks_per_credential`: most tasks that run with one credential at once, over all agents. Default 0, any
    /// number.
    pub limits_tasks_per_credential: u32,
    /// `log.format`: `text` or `json`. Default `text`.
    pub log_format: LogFormat,
    /// `log.level`: a level, or a filter such as `info,lictor_control_plane=debug`. Default `info`.
    pub log_level: String,
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
    /// Given in the environment.
    Value(Zeroizing<[u8; 32]>),
    /// Read from this file (base64, 32 bytes).
    File(PathBuf),
    /// A file in the state directory, made at the first start.
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
        let mut builder = config::Config::builder();
        if let Some(path) = file {
            builder = builder.add_source(File::from(path));
        }
        let source: config::Map<String, String> = environment
            .iter()
            .filter(|(key, _)| key.starts_with(ENVIRONMENT_PREFIX))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let layer = Environment::with_prefix("LICTOR_CONTROL_PLANE").prefix_separator("_").separator("__");
        let values = builder
            .add_source(layer.source(Some(source)))
            .build()
            .and_then(config::Config::try_deserialize::<config::Map<String, Value>>)
            .map_err(|error| Mistakes(vec![explain(&error)]))?;
        Self::from_values(values.into_iter().collect(), environment.get(MASTER_KEY_VARIABLE))
    }

    fn from_values(values: BTreeMap<String, Value>, master_key: Option<&String>) -> Result<Self, Mistakes> {
        let mut reader = Reader { values, mistakes: Vec::new(), prefix: "" };
        let listen = reader.address("listen", DEFAULT_LISTEN);
        let names = reader.names();
        let state_dir = reader.path("state_dir").unwrap_or_else(|| PathBuf::from("lictor-control-plane"));
        let http_listen = reader.address("http_listen", DEFAULT_HTTP_LISTEN);
        let key_file = reader.path("master_key_file");
        let lease = reader.duration("lease", DEFAULT_LEASE, Duration::from_secs(1), HOUR);
        let heartbeat_interval = reader.duration(
            "heartbeat_interval",
            DEFAULT_HEARTBEAT_INTERVAL.min(lease / 3),
            Duration::from_millis(100),
            HOUR,
        );
        if heartbeat_interval > lease / 2 {
            reader.mistakes.push(format!(
                "heartbeat_interval: {} is more than half the lease ({}); one lost heartbeat would lose tasks",
                humantime::format_duration(heartbeat_interval),
                humantime::format_duration(lease)
            ));
        }
        let lost_wait = reader.duration("lost_wait", DEFAULT_LOST_WAIT, Duration::ZERO, 24 * HOUR);
        let restart_grace = reader.duration("restart_grace", DEFAULT_RESTART_GRACE, Duration::ZERO, HOUR);
        let agent_certificate_lifetime =
            reader.duration("agent_certificate_lifetime", 24 * HOUR, Duration::from_secs(5), 397 * 24 * HOUR);
        let output_limit = reader.size("output_limit", DEFAULT_OUTPUT_LIMIT, MINIMUM_OUTPUT_LIMIT);
        let (connections_most, connections_per_source) = reader.connections();
        let (retention_tasks, retention_outputs, retention_output_bytes) = reader.retention();
        let (limits_tasks_per_host, limits_tasks_per_credential) = reader.limits();
        let (log_format, log_level) = reader.log();
        let master_key = match (key_file, master_key) {
            (Some(_), Some(_)) => {
                reader
                    .mistakes
                    .push(format!("master_key_file: {MASTER_KEY_VARIABLE} is set too; give only one of them"));
                MasterKeySource::StateDir
            }
            (Some(path), None) => MasterKeySource::File(path),
            (None, Some(text)) => match parse_master_key(text) {
                Some(key) => MasterKeySource::Value(key),
                None => {
                    reader.mistakes.push(format!("{MASTER_KEY_VARIABLE}: expected 32 bytes in base64"));
                    MasterKeySource::StateDir
                }
            },
            (None, None) => MasterKeySource::StateDir,
        };
        let mistakes = reader.finish();
        if !mistakes.is_empty() {
            return Err(Mistakes(mistakes));
        }
        Ok(Self {
            listen,
            names,
            state_dir,
            http_listen,
            master_key,
            lease,
            heartbeat_interval,
            lost_wait,
            restart_grace,
            agent_certificate_lifetime,
            output_limit,
            connections_most,
            connections_per_source,
            retention_tasks,
            retention_outputs,
            retention_output_bytes,
            limits_tasks_per_host,
            limits_tasks_per_credential,
            log_format,
            log_level,
        })
    }
}

/// Decodes a master key; nothing unless it is 32 bytes in base64.
pub(crate) fn parse_master_key(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let bytes = Zeroizing::new(STANDARD.decode(text.trim()).ok()?);
    bytes.as_slice().try_into().ok().map(Zeroizing::new)
}

/// The whole chain in one line; the crate's own text for a parse error already names file and line.
fn explain(error: &ConfigError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

/// Takes keys out of a table one by one and remembers what was wrong; what is left over is unknown.
struct Reader {
    values: BTreeMap<String, Value>,
    mistakes: Vec<String>,
    prefix: &'static str,
}

impl Reader {
    fn text(&mut self, key: &str) -> Option<String> {
        let value = self.values.remove(key)?;
        match value.kind {
            ValueKind::Table(_) | ValueKind::Array(_) | ValueKind::Nil => {
                self.mistakes.push(format!("{}{key}: expected a single value", self.prefix));
                None
            }
            _ => value.into_string().ok(),
        }
    }

    fn parse<T>(&mut self, key: &str, default: T, expected: &str, parse: impl FnOnce(&str) -> Option<T>) -> T {
        let Some(text) = self.text(key) else { return default };
        parse(text.trim()).unwrap_or_else(|| {
            self.mistakes.push(format!("{}{key}: expected {expected}, found {text:?}", self.prefix));
            default
        })
    }

    fn address(&mut self, key: &str, default: &str) -> SocketAddr {
        let fallback = SocketAddr::from(([127, 0, 0, 1], 0));
        let default = default.parse().unwrap_or(fallback);
        self.parse(key, default, "an address and a port such as 0.0.0.0:7443", |text| text.parse().ok())
    }

    fn path(&mut self, key: &str) -> Option<PathBuf> {
        self.parse(key, None, "a path", |text| (!text.is_empty()).then(|| Some(PathBuf::from(text))))
    }

    fn duration(&mut self, key: &str, default: Duration, least: Duration, most: Duration) -> Duration {
        let expected = format!(
            "a duration from {} to {} such as 30s",
            humantime::format_duration(least),
            humantime::format_duration(most)
        );
        self.parse(key, default, &expected, |text| {
            humantime::parse_duration(text).ok().filter(|value| (least..=most).contains(value))
        })
    }

    fn size(&mut self, key: &str, default: u64, least: u64) -> u64 {
        let expected = format!("a size of at least {least} bytes such as 1GiB");
        self.parse(key, default, &expected, |text| parse_size(text).filter(|size| *size >= least))
    }

    fn names(&mut self) -> Vec<String> {
        let names: Vec<String> = match self.values.remove("names") {
            None => DEFAULT_NAMES.iter().map(|&name| name.to_owned()).collect(),
            Some(value) => match value.kind {
                ValueKind::Array(items) => items.into_iter().filter_map(|item| item.into_string().ok()).collect(),
                _ => value
                    .into_string()
                    .map(|text| text.split(',').map(|name| name.trim().to_owned()).filter(|n| !n.is_empty()).collect())
                    .unwrap_or_default(),
            },
        };
        if names.is_empty() {
            self.mistakes.push("names: expected at least one DNS name or IP address".into());
        }
        for name in names.iter().filter(|name| !crate::validate::is_host(name)) {
            self.mistakes.push(format!("names: {name:?} is neither a DNS name nor an IP address"));
        }
        names
    }

    fn connections(&mut self) -> (usize, usize) {
        let mut inner = self.table("connections", "connections.", "most and per_source");
        let mut number = |key: &str, default: usize, least: usize| {
            let expected = format!("a number from {least} to {CONNECTIONS_BOUND}");
            inner.parse(key, default, &expected, |text| {
                text.parse().ok().filter(|number| (least..=CONNECTIONS_BOUND).contains(number))
            })
        };
        let bounds = (number("most", DEFAULT_CONNECTIONS, 16), number("per_source", DEFAULT_PER_SOURCE, 1));
        self.mistakes = inner.finish();
        bounds
    }

    fn retention(&mut self) -> (Duration, Duration, u64) {
        let mut inner = self.table("retention", "retention.", "tasks, outputs and output_bytes");
        let least = Duration::from_secs(1);
        let tasks = inner.duration("tasks", DEFAULT_RETENTION_TASKS, least, LONGEST_RETENTION);
        let outputs = inner.duration("outputs", DEFAULT_RETENTION_OUTPUTS, least, LONGEST_RETENTION);
        let bytes = inner.size("output_bytes", DEFAULT_RETENTION_BYTES, 1 << 20);
        self.mistakes = inner.finish();
        (tasks, outputs, bytes)
    }

    fn limits(&mut self) -> (u32, u32) {
        let mut inner = self.table("limits", "limits.", "tasks_per_host and tasks_per_credential");
        let mut limit = |key: &str, default: u32| inner.parse(key, default, "a number, or 0", |text| text.parse().ok());
        let per_host = limit("tasks_per_host", DEFAULT_TASKS_PER_HOST);
        let per_credential = limit("tasks_per_credential", 0);
        self.mistakes = inner.finish();
        (per_host, per_credential)
    }

    fn log(&mut self) -> (LogFormat, String) {
        let mut inner = self.table("log", "log.", "format and level");
        let format = inner.parse("format", LogFormat::Text, "text or json", |text| match text {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        });
        let level = inner.parse("level", "info".to_owned(), "a level such as info, or a filter", |text| {
            tracing_subscriber::EnvFilter::try_new(text).ok().map(|_| text.to_owned())
        });
        self.mistakes = inner.finish();
        (format, level)
    }

    /// A nested table as a reader of its own, which takes the mistakes along; its `finish` gives them back.
    fn table(&mut self, key: &str, prefix: &'static str, keys: &str) -> Self {
        let table = match self.values.remove(key) {
            None => BTreeMap::new(),
            Some(value) => match value.into_table() {
                Ok(table) => table.into_iter().collect(),
                Err(_) => {
                    self.mistakes.push(format!("{key}: expected a table with the keys {keys}"));
                    BTreeMap::new()
                }
            },
        };
        Self { values: table, mistakes: std::mem::take(&mut self.mistakes), prefix }
    }

    fn finish(mut self) -> Vec<String> {
        for key in self.values.keys() {
            self.mistakes.push(format!("{}{key}: unknown key", self.prefix));
        }
        self.mistakes
    }
}

/// `1048576`, `64KiB`, `200MiB`, `1GiB`.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let factor = match text[digits..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

const ENVIRONMENT_PREFIX: &str = "LICTOR_CONTROL_PLANE_";
const MASTER_KEY_VARIABLE: &str = "LICTOR_MASTER_KEY";
const HOUR: Duration = Duration::from_secs(3600);
const DEFAULT_LISTEN: &str = "0.0.0.0:7443";
/// Loopback: metrics and health are for the machine's own collector unless somebody decides otherwise.
const DEFAULT_HTTP_LISTEN: &str = "127.0.0.1:7480";
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
const LONGEST_RETENTION: Duration = DAY.saturating_mul(3653);

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn file(suffix: &str, text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::Builder::new().suffix(suffix).tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn defaults_need_nothing() {
        let config = Config::load(None, &BTreeMap::new()).unwrap();
        assert_eq!(config.listen.port(), 7443);
        assert_eq!(config.http_listen.to_string(), DEFAULT_HTTP_LISTEN);
        assert_eq!(config.lease, Duration::from_secs(30));
        assert_eq!(config.output_limit, 1 << 30);
        assert!(matches!(config.master_key, MasterKeySource::StateDir));
    }

    #[test]
    fn the_environment_overrides_the_file_in_both_formats() {
        for (suffix, text) in [
            (".toml", "lease = \"20s\"\nnames = [\"a.example\", \"10.0.0.1\"]\n[log]\nformat = \"json\"\n"),
            (".yaml", "lease: 20s\nnames: [a.example, 10.0.0.1]\nlog:\n  format: json\n"),
        ] {
            let file = file(suffix, text);
            let config = Config::load(
                Some(file.path()),
                &environment(&[("LICTOR_CONTROL_PLANE_LEASE", "40s"), ("LICTOR_CONTROL_PLANE_LOG__LEVEL", "debug")]),
            )
            .unwrap();
            assert_eq!(config.lease, Duration::from_secs(40));
            assert_eq!(config.names, ["a.example", "10.0.0.1"]);
            assert_eq!(config.log_format, LogFormat::Json);
            assert_eq!(config.log_level, "debug");
        }
        let config = Config::load(None, &environment(&[("LICTOR_CONTROL_PLANE_NAMES", "x.example, ::1")])).unwrap();
        assert_eq!(config.names, ["x.example", "::1"]);
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let file = file(
            ".toml",
            "listen = \"nowhere\"\nlease = \"forever\"\noutput_limit = \"1 potato\"\nlisten_adress = 1\nnames = [\"a b\"]\n[log]\nformat = \"xml\"\ncolour = true\n[limits]\ntasks_per_host = -1\ntasks = 1\n",
        );
        let Mistakes(mistakes) = Config::load(
            Some(file.path()),
            &environment(&[("LICTOR_CONTROL_PLANE_TYPO", "1"), ("LICTOR_MASTER_KEY", "short")]),
        )
        .unwrap_err();
        let text = mistakes.join("\n");
        for expected in [
            "listen:",
            "lease:",
            "output_limit:",
            "listen_adress: unknown key",
            "names:",
            "log.format:",
            "log.colour: unknown key",
            "limits.tasks_per_host:",
            "limits.tasks: unknown key",
            "typo: unknown key",
            "LICTOR_MASTER_KEY:",
        ] {
            assert!(text.contains(expected), "{expected} is missing in:\n{text}");
        }
        assert_eq!(mistakes.len(), 11, "{text}");
        assert!(!text.contains("short"), "the key's text must not be repeated");
    }

    #[test]
    fn a_heartbeat_slower_than_half_the_lease_is_a_mistake() {
        let pairs = [("LICTOR_CONTROL_PLANE_LEASE", "10s"), ("LICTOR_CONTROL_PLANE_HEARTBEAT_INTERVAL", "6s")];
        let Mistakes(mistakes) = Config::load(None, &environment(&pairs)).unwrap_err();
        assert!(mistakes[0].starts_with("heartbeat_interval:"), "{mistakes:?}");
    }

    #[test]
    fn a_master_key_is_never_printed() {
        let key = STANDARD.encode([7; 32]);
        let config = Config::load(None, &environment(&[("LICTOR_MASTER_KEY", &key)])).unwrap();
        assert!(matches!(&config.master_key, MasterKeySource::Value(k) if **k == [7; 32]));
        let debug = format!("{config:?}");
        assert!(!debug.contains(&key) && !debug.contains("7, 7"), "{debug}");
    }

    #[test]
    fn the_reference_page_lists_exactly_the_settings_and_their_defaults() {
        let page = include_str!("../../docs/control-plane-settings.md");
        let defaults = format!("{:#?}", Config::load(None, &BTreeMap::new()).unwrap());
        // The struct's own fields, so that one that the page leaves out cannot hide.
        let mut settings: Vec<String> = defaults
            .lines()
            .filter(|line| line.starts_with("    ") && !line.starts_with("     "))
            .filter_map(|line| line.trim().split_once(": ").map(|(field, _)| field))
            .map(|field| match field {
                "master_key" => "master_key_file".to_owned(),
                field => field
                    .replace("log_", "log.")
                    .replace("retention_", "retention.")
                    .replace("connections_", "connections.")
                    .replace("limits_", "limits."),
            })
            .collect();
        let mut listed = Vec::new();
        let mut given = BTreeMap::new();
        for row in page.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            let (setting, variable, default) = (cells[1], cells[2], cells[3]);
            assert_eq!(variable, format!("{ENVIRONMENT_PREFIX}{}", setting.to_uppercase().replace('.', "__")));
            listed.push(setting.to_owned());
            if default != "none" {
                given.insert(variable.to_owned(), default.to_owned());
            }
        }
        settings.sort();
        listed.sort();
        assert_eq!(settings, listed);
        assert_eq!(format!("{:#?}", Config::load(None, &given).unwrap()), defaults);
        assert!(page.contains(MASTER_KEY_VARIABLE));
    }

    #[test]
    fn sizes() {
        for (text, size) in
            [("5", Some(5)), ("64KiB", Some(65536)), ("2 MiB", Some(2 << 20)), ("1GB", None), ("", None), ("-1", None)]
        {
            assert_eq!(parse_size(text), size, "{text}");
        }
    }
}
