//! The configuration of the simulated service: what `winrm get winrm/config` and `winrm enumerate winrm/config/listener` tell.
//!
//! Pure. It says what the options say, and what nothing here has an option for is as on a host that nobody has configured
//! ([MS-WSMV] 2.2.4, and a recording of a real host). A test can have anything else told, also that a policy has set it: what is told
//! does not change how the host behaves.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::options::{ChannelBindings, Options, Quotas, Scheme};
use crate::soap::escape;

pub(crate) const CONFIG: &str = "http://schemas.microsoft.com/wbem/wsman/1/config";
pub(crate) const LISTENER: &str = "http://schemas.microsoft.com/wbem/wsman/1/config/listener";
pub(crate) const MAPPING: &str = "http://schemas.microsoft.com/wbem/wsman/1/config/service/certmapping";

/// What is told otherwise than the options have it. Names of settings are paths such as `Service/Auth/Basic`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Configuration {
    /// Values of settings; those that the configuration does not have otherwise are added to the end of their group.
    pub settings: BTreeMap<String, String>,
    /// Settings that are not told.
    pub omitted: BTreeSet<String>,
    /// Settings that a group policy has set.
    pub by_policy: BTreeSet<String>,
    /// The listeners, in place of the one that there is.
    pub listeners: Option<Vec<Listener>>,
    /// Mappings of client certificates. Default none.
    pub mappings: Vec<Mapping>,
}

/// One listener ([MS-WSMV] 2.2.4.19).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listener {
    /// `GPO` or `Compatibility`; nothing for one of the host's own.
    pub source: Option<String>,
    /// `*`, `IP:` or `MAC:` with an address.
    pub address: String,
    /// `HTTP` or `HTTPS`.
    pub transport: String,
    /// TCP port.
    pub port: u16,
    /// Whom the certificate must name.
    pub hostname: String,
    /// Whether it listens.
    pub enabled: bool,
    /// SHA-1 of the certificate.
    pub certificate_thumbprint: String,
    /// Where it listens.
    pub listening_on: Vec<String>,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            source: None,
            address: "*".to_owned(),
            transport: "HTTP".to_owned(),
            port: 5985,
            hostname: String::new(),
            enabled: true,
            certificate_thumbprint: String::new(),
            listening_on: Vec::new(),
        }
    }
}

/// One mapping of client certificates to a local account ([MS-WSMV] 2.2.4.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// What it may be used for.
    pub uri: String,
    /// Which certificates.
    pub subject: String,
    /// Thumbprint of their issuer.
    pub issuer: String,
    /// The account.
    pub user_name: String,
    /// Whether it is in use.
    pub enabled: bool,
}

impl Configuration {
    /// cfg:Config.
    pub(crate) fn document(&self, options: &Options, quotas: &Quotas) -> String {
        let mut entries: Vec<(String, String)> = Vec::new();
        for (path, value) in defaults(options, quotas) {
            if !self.omitted.contains(path) {
                let value = self.settings.get(path).map_or(value, String::clone);
                entries.push((path.to_owned(), value));
            }
        }
        for (path, value) in &self.settings {
            if !entries.iter().any(|(known, _)| known == path) && !self.omitted.contains(path) {
                entries.push((path.clone(), value.clone()));
            }
        }
        let mut inner = String::new();
        self.group("", &entries, &mut inner);
        format!("<cfg:Config xmlns:cfg=\"{CONFIG}\">{inner}</cfg:Config>")
    }

    /// Everything below `prefix`, in order; a group stands where its first member does.
    fn group(&self, prefix: &str, entries: &[(String, String)], out: &mut String) {
        let mut done = BTreeSet::new();
        for (path, value) in entries {
            let Some(rest) = path.strip_prefix(prefix) else { continue };
            let (name, below) = rest.split_once('/').map_or((rest, false), |(name, _)| (name, true));
            if !done.insert(name.to_owned()) {
                continue;
            }
            let source = if self.by_policy.contains(path) { " Source=\"GPO\"" } else { "" };
            let name = escape(name);
            if below {
                out.push_str(&format!("<cfg:{name}>"));
                self.group(&format!("{prefix}{name}/"), entries, out);
                out.push_str(&format!("</cfg:{name}>"));
            } else {
                out.push_str(&format!("<cfg:{name}{source}>{}</cfg:{name}>", escape(value)));
            }
        }
    }

    /// Each cfg:Listener. `own` is the one that there is.
    pub(crate) fn listeners(&self, own: Listener) -> Vec<(Listener, String)> {
        let listeners = self.listeners.clone().unwrap_or_else(|| vec![own]);
        listeners.into_iter().map(|listener| (listener.clone(), listener.element())).collect()
    }

    /// Each cert:CertMapping. Windows does not tell their passwords.
    pub(crate) fn mapping_elements(&self) -> Vec<String> {
        let element = |mapping: &Mapping| {
            let Mapping { uri, subject, issuer, user_name, enabled } = mapping;
            let tags = [("URI", uri), ("Subject", subject), ("Issuer", issuer), ("UserName", user_name)]
                .map(|(name, value)| format!("<cfg:{name}>{}</cfg:{name}>", escape(value)))
                .concat();
            format!(
                "<cfg:CertMapping xmlns:cfg=\"{MAPPING}\" xml:lang=\"en-US\">{tags}<cfg:Enabled>{enabled}</cfg:Enabled></cfg:CertMapping>"
            )
        };
        self.mappings.iter().map(element).collect()
    }
}

impl Listener {
    /// As real hosts write it, in a namespace of its own and with the attributes that Get-WSManInstance shows.
    fn element(&self) -> String {
        let source = self.source.as_ref().map(|source| format!(" Source=\"{}\"", escape(source))).unwrap_or_default();
        let tag = |name: &str, value: &str| match value {
            "" => format!("<cfg:{name}/>"),
            value => format!("<cfg:{name}>{}</cfg:{name}>", escape(value)),
        };
        let mut inner = [
            tag("Address", &self.address),
            tag("Transport", &self.transport),
            tag("Port", &self.port.to_string()),
            tag("Hostname", &self.hostname),
            tag("Enabled", &self.enabled.to_string()),
            tag("URLPrefix", "wsman"),
            tag("CertificateThumbprint", &self.certificate_thumbprint),
        ]
        .concat();
        for address in &self.listening_on {
            inner.push_str(&tag("ListeningOn", address));
        }
        format!(
            "<cfg:Listener xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xmlns:cfg=\"{LISTENER}\"{source} \
             xml:lang=\"en-US\">{inner}</cfg:Listener>"
        )
    }
}

/// Every setting in the order of the schema.
fn defaults(options: &Options, quotas: &Quotas) -> Vec<(&'static str, String)> {
    let offers = |scheme| options.schemes.contains(&scheme).to_string();
    let level = match options.channel_bindings {
        ChannelBindings::None => "None",
        ChannelBindings::Relaxed => "Relaxed",
        ChannelBindings::Strict => "Strict",
    };
    let told = |text: &str| text.to_owned();
    vec![
        ("MaxEnvelopeSizekb", (options.max_envelope_size / 1024).to_string()),
        ("MaxTimeoutms", options.max_operation_timeout.as_millis().to_string()),
        ("MaxBatchItems", quotas.max_batch_items.to_string()),
        ("MaxProviderRequests", told("4294967295")),
        ("Client/NetworkDelayms", told("5000")),
        ("Client/URLPrefix", told("wsman")),
        ("Client/AllowUnencrypted", told("false")),
        ("Client/Auth/Basic", told("true")),
        ("Client/Auth/Digest", told("true")),
        ("Client/Auth/Kerberos", told("true")),
        ("Client/Auth/Negotiate", told("true")),
        ("Client/Auth/Certificate", told("true")),
        ("Client/Auth/CredSSP", told("false")),
        ("Client/DefaultPorts/HTTP", told("5985")),
        ("Client/DefaultPorts/HTTPS", told("5986")),
        ("Client/TrustedHosts", String::new()),
        ("Service/RootSDDL", told("O:NSG:BAD:P(A;;GA;;;BA)(A;;GR;;;IU)S:P(AU;FA;GA;;;WD)(AU;SA;GXGW;;;WD)")),
        ("Service/MaxConcurrentOperations", told("4294967295")),
        ("Service/MaxConcurrentOperationsPerUser", quotas.max_operations_per_user.to_string()),
        ("Service/EnumerationTimeoutms", told("240000")),
        ("Service/MaxConnections", quotas.max_connections.to_string()),
        ("Service/MaxPacketRetrievalTimeSeconds", told("120")),
        ("Service/AllowUnencrypted", options.allow_unencrypted.to_string()),
        ("Service/Auth/Basic", offers(Scheme::Basic)),
        ("Service/Auth/Kerberos", offers(Scheme::Kerberos)),
        ("Service/Auth/Negotiate", offers(Scheme::Negotiate)),
        ("Service/Auth/Certificate", told("false")),
        ("Service/Auth/CredSSP", told("false")),
        ("Service/Auth/CbtHardeningLevel", told(level)),
        ("Service/DefaultPorts/HTTP", told("5985")),
        ("Service/DefaultPorts/HTTPS", told("5986")),
        ("Service/IPv4Filter", told("*")),
        ("Service/IPv6Filter", told("*")),
        ("Service/EnableCompatibilityHttpListener", told("false")),
        ("Service/EnableCompatibilityHttpsListener", told("false")),
        ("Service/CertificateThumbprint", String::new()),
        ("Service/AllowRemoteAccess", told("true")),
        ("Winrs/AllowRemoteShellAccess", told("true")),
        ("Winrs/IdleTimeout", told("7200000")),
        ("Winrs/MaxConcurrentUsers", quotas.max_concurrent_users.to_string()),
        ("Winrs/MaxShellRunTime", told("2147483647")),
        ("Winrs/MaxProcessesPerShell", quotas.max_processes_per_shell.to_string()),
        ("Winrs/MaxMemoryPerShellMB", told("1024")),
        ("Winrs/MaxShellsPerUser", quotas.max_shells_per_user.to_string()),
    ]
}
