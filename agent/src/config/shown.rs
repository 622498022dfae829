//! The settings as people are shown them: every key with its value in effect and where that came from.
//!
//! Must never show a secret; of those it says where they came from. Called by the loader, for `check-config`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::{Config, LogFormat, OnFailure, Transport, proxy};
use lictor_settings::Reader;

/// Every setting in effect.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Overview {
    /// In the order in which they are read.
    pub settings: Vec<Setting>,
}

/// One setting in effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its key, or the name of a secret.
    pub key: String,
    /// Its value; of a secret only that it is set.
    pub value: String,
    /// Where the value came from: `default`, a file, a variable.
    pub source: String,
}

/// What sources are called.
pub(super) struct Origins<'a> {
    /// The configuration file.
    pub(super) file: Option<&'a Path>,
    /// Variables by the keys that they set.
    pub(super) names: BTreeMap<String, String>,
}

impl Origins<'_> {
    fn source(&self, reader: &Reader, key: &str) -> String {
        match (reader.source(key), self.names.get(key), self.file) {
            (None, ..) => "default".to_owned(),
            (Some("the environment"), Some(name), _) => name.clone(),
            // It is layered under the configuration as variables that the process never had.
            (Some("the environment"), None, _) => "INIT_SCRIPT".to_owned(),
            (Some(_), _, Some(file)) if !reader.is_foreign(key) => file.display().to_string(),
            (Some(source), ..) => source.to_owned(),
        }
    }
}

impl Overview {
    pub(super) fn new(config: &Config, reader: &Reader, origins: &Origins<'_>, join_token: Option<&str>) -> Self {
        let mut values = values(config);
        let mut settings: Vec<Setting> = reader
            .asked()
            .iter()
            .map(|asked| Setting {
                key: asked.key.to_owned(),
                value: values.remove(asked.key).unwrap_or_default(),
                source: origins.source(reader, asked.key),
            })
            .collect();
        let secrets = [("join token", join_token), (proxy::PASSWORD, reader.source(proxy::PASSWORD))];
        settings.extend(secrets.into_iter().filter_map(|(key, source)| {
            Some(Setting { key: key.to_owned(), value: "set, not shown".to_owned(), source: source?.to_owned() })
        }));
        settings.sort_by(|one, other| one.key.cmp(&other.key));
        Self { settings }
    }
}

/// The values in effect by their keys. A test sees to it that none is missing.
pub(super) fn values(config: &Config) -> BTreeMap<&'static str, String> {
    let Config { admission, kerberos, pool, log, proxy, .. } = config;
    let proxy_text = |text: fn(&super::Proxy) -> String| proxy.as_ref().map(text).unwrap_or_default();
    let declared = kerberos.declared.clone().unwrap_or_default();
    let flag = |flag: Option<bool>| flag.map(|flag| flag.to_string()).unwrap_or_default();
    let realms = declared.realms.iter().map(|(name, realm)| match realm.kdc.as_slice() {
        [] => name.clone(),
        kdcs => format!("{name} ({})", kdcs.join(", ")),
    });
    BTreeMap::from([
        ("control_plane", config.control_plane.to_string()),
        (
            "transport",
            match config.transport {
                Transport::Auto => "auto",
                Transport::Stream => "stream",
                Transport::Poll => "poll",
            }
            .to_owned(),
        ),
        ("proxy.url", proxy.as_ref().map_or_else(|| "none".to_owned(), |proxy| proxy.address.to_string())),
        ("proxy.username", proxy_text(|proxy| proxy.username.clone().unwrap_or_default())),
        ("proxy.password_file", proxy_text(|proxy| path(proxy.password_file.as_ref()))),
        ("proxy.ca_file", proxy_text(|proxy| path(proxy.ca_file.as_ref()))),
        ("proxy.no_proxy", proxy_text(|proxy| list(&proxy.no_proxy))),
        ("join_token_file", path(config.join_token_file.as_ref())),
        ("name", config.name.clone()),
        ("tags", list(&config.tags)),
        ("description", config.description.clone()),
        ("scope", config.scope.clone().unwrap_or_default()),
        ("state_dir", config.state_dir.display().to_string()),
        ("slots", config.slots.to_string()),
        ("http_listen", config.http_listen.to_string()),
        ("drain_grace", duration(config.drain_grace)),
        ("policy_file", path(config.policy_file.as_ref())),
        ("ca_files", paths(&config.ca_files)),
        ("bootstrap.script_file", path(config.bootstrap.script_file.as_ref())),
        (
            "bootstrap.policy",
            match config.bootstrap.policy {
                OnFailure::Warn => "warn",
                OnFailure::Fail => "fail",
            }
            .to_owned(),
        ),
        ("bootstrap.timeout", duration(config.bootstrap.timeout)),
        ("bootstrap.shell", config.bootstrap.shell.display().to_string()),
        ("admission.memory_percent", percent(admission.memory_percent)),
        ("admission.cpu_percent", percent(admission.cpu_percent)),
        ("admission.memory_stall_percent", percent(admission.memory_stall_percent)),
        ("admission.cgroup_root", admission.cgroup_root.display().to_string()),
        ("kerberos.krb5_conf", path(kerberos.krb5_conf.as_ref())),
        ("kerberos.default_realm", declared.default_realm.clone().unwrap_or_default()),
        ("kerberos.realms", realms.collect::<Vec<_>>().join(", ")),
        (
            "kerberos.domain_realm",
            list(
                &declared.domain_realm.iter().map(|(domain, realm)| format!("{domain} = {realm}")).collect::<Vec<_>>(),
            ),
        ),
        ("kerberos.dns_lookup_kdc", flag(declared.dns_lookup_kdc)),
        ("kerberos.dns_lookup_realm", flag(declared.dns_lookup_realm)),
        ("kerberos.rdns", flag(declared.rdns)),
        ("kerberos.dns_canonicalize_hostname", flag(declared.dns_canonicalize_hostname)),
        ("kerberos.forwardable", flag(declared.forwardable)),
        ("kerberos.ticket_lifetime", declared.ticket_lifetime.clone().unwrap_or_default()),
        ("kerberos.renew_lifetime", declared.renew_lifetime.clone().unwrap_or_default()),
        (
            "kerberos.udp_preference_limit",
            declared.udp_preference_limit.map(|limit| limit.to_string()).unwrap_or_default(),
        ),
        ("kerberos.keytabs", paths(&kerberos.keytabs)),
        ("kerberos.caches", list(&kerberos.caches)),
        ("pool.max_sessions", pool.max_sessions.to_string()),
        ("pool.max_shells_per_user", pool.max_shells_per_user.to_string()),
        ("pool.max_shells_per_host", pool.max_shells_per_host.to_string()),
        ("pool.connection_idle", duration(pool.connection_idle)),
        ("pool.shell_idle", duration(pool.shell_idle)),
        ("pool.commands_per_shell", pool.commands_per_shell.to_string()),
        ("pool.commands_per_user", pool.commands_per_user.to_string()),
        (
            "log.format",
            match log.format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            }
            .to_owned(),
        ),
        ("log.level", log.level.to_string().to_lowercase()),
    ])
}

fn path(path: Option<&PathBuf>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

fn paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn list(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

fn percent(percent: Option<u32>) -> String {
    percent.map_or_else(|| "off".to_owned(), |percent| percent.to_string())
}
