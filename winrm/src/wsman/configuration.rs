//! The service's configuration as a host tells it: settings, listeners, mappings of client certificates.
//!
//! What a host does not tell, or tells in a form that nobody knows, is unknown: nothing is ever put in its place, because
//! people judge the safety of a host by it. Real hosts give listeners and mappings namespaces below that of the
//! configuration, the schema of [MS-WSMV] 2.2.4.19 gives them the same; both are read.
//!
//! [MS-WSMV]: https://learn.microsoft.com/en-us/openspecs/windows_protocols/ms-wsmv/

use super::response::clip;
use crate::soap::{Element, Ns, Reader, SoapError};

/// Characters of one value at most. Security descriptors are the longest; whatever is longer is unknown.
const MAX_VALUE: usize = 64 * 1024;
/// Addresses that one listener may name; the rest is passed over.
const MAX_ADDRESSES: usize = 1024;

/// A setting that the host told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    /// Its value.
    pub value: T,
    /// A group policy sets it (`Source="GPO"`): changing it on the host has no effect.
    pub by_policy: bool,
}

/// cfg:Config ([MS-WSMV] 2.2.4.10). `None` is unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// MaxEnvelopeSizekb.
    pub max_envelope_size_kb: Option<Setting<u64>>,
    /// MaxTimeoutms.
    pub max_timeout_ms: Option<Setting<u64>>,
    /// MaxBatchItems.
    pub max_batch_items: Option<Setting<u64>>,
    /// MaxProviderRequests.
    pub max_provider_requests: Option<Setting<u64>>,
    /// Client: how the host behaves towards others.
    pub client: Client,
    /// Service: how it serves.
    pub service: Service,
    /// Winrs: its shells.
    pub winrs: Winrs,
}

/// cfg:Client ([MS-WSMV] 2.2.4.6).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    /// NetworkDelayms.
    pub network_delay_ms: Option<Setting<u64>>,
    /// URLPrefix.
    pub url_prefix: Option<Setting<String>>,
    /// AllowUnencrypted.
    pub allow_unencrypted: Option<Setting<bool>>,
    /// Auth.
    pub auth: Auth,
    /// DefaultPorts.
    pub default_ports: Ports,
    /// TrustedHosts.
    pub trusted_hosts: Option<Setting<String>>,
}

/// cfg:Service ([MS-WSMV] 2.2.4.36), and what hosts tell beyond the schema.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// RootSDDL: who may use the service.
    pub root_sddl: Option<Setting<String>>,
    /// MaxConcurrentOperations.
    pub max_concurrent_operations: Option<Setting<u64>>,
    /// MaxConcurrentOperationsPerUser.
    pub max_concurrent_operations_per_user: Option<Setting<u64>>,
    /// EnumerationTimeoutms.
    pub enumeration_timeout_ms: Option<Setting<u64>>,
    /// MaxConnections.
    pub max_connections: Option<Setting<u64>>,
    /// MaxPacketRetrievalTimeSeconds.
    pub max_packet_retrieval_time_seconds: Option<Setting<u64>>,
    /// AllowUnencrypted: messages that nothing protects.
    pub allow_unencrypted: Option<Setting<bool>>,
    /// Auth.
    pub auth: Auth,
    /// DefaultPorts.
    pub default_ports: Ports,
    /// IPv4Filter: `*`, nothing, or ranges of addresses that listeners may use.
    pub ipv4_filter: Option<Setting<String>>,
    /// IPv6Filter.
    pub ipv6_filter: Option<Setting<String>>,
    /// EnableCompatibilityHttpListener: listens at port 80 too.
    pub compatibility_http_listener: Option<Setting<bool>>,
    /// EnableCompatibilityHttpsListener: listens at port 443 too.
    pub compatibility_https_listener: Option<Setting<bool>>,
    /// CertificateThumbprint.
    pub certificate_thumbprint: Option<Setting<String>>,
    /// AllowRemoteAccess.
    pub allow_remote_access: Option<Setting<bool>>,
}

/// Kinds of authentication ([MS-WSMV] 2.2.4.34 of the service, 2.2.4.4 of the client).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Auth {
    /// Basic.
    pub basic: Option<Setting<bool>>,
    /// Digest; the client's only.
    pub digest: Option<Setting<bool>>,
    /// Kerberos.
    pub kerberos: Option<Setting<bool>>,
    /// Negotiate.
    pub negotiate: Option<Setting<bool>>,
    /// Certificate.
    pub certificate: Option<Setting<bool>>,
    /// CredSSP.
    pub credssp: Option<Setting<bool>>,
    /// CbtHardeningLevel; the service's only.
    pub cbt_hardening_level: Option<Setting<CbtHardeningLevel>>,
}

/// What the service does about channel bindings over https ([MS-WSMV] 2.2.4.34).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CbtHardeningLevel {
    /// They are not looked at.
    None,
    /// Wrong ones are refused, missing ones are taken.
    Relaxed,
    /// They must be there and be right.
    Strict,
}

impl CbtHardeningLevel {
    /// As Windows writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Relaxed => "Relaxed",
            Self::Strict => "Strict",
        }
    }
}

/// DefaultPorts: of listeners that name none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports {
    /// HTTP.
    pub http: Option<Setting<u64>>,
    /// HTTPS.
    pub https: Option<Setting<u64>>,
}

/// cfg:Winrs ([MS-WSMV] 2.2.4.42).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Winrs {
    /// AllowRemoteShellAccess.
    pub allow_remote_shell_access: Option<Setting<bool>>,
    /// IdleTimeout, in milliseconds.
    pub idle_timeout_ms: Option<Setting<u64>>,
    /// MaxConcurrentUsers.
    pub max_concurrent_users: Option<Setting<u64>>,
    /// MaxShellRunTime, in milliseconds.
    pub max_shell_run_time_ms: Option<Setting<u64>>,
    /// MaxProcessesPerShell.
    pub max_processes_per_shell: Option<Setting<u64>>,
    /// MaxMemoryPerShellMB.
    pub max_memory_per_shell_mb: Option<Setting<u64>>,
    /// MaxShellsPerUser.
    pub max_shells_per_user: Option<Setting<u64>>,
}

/// cfg:Listener ([MS-WSMV] 2.2.4.19). `None` is unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listener {
    /// Where it comes from, when not from the host's own configuration: `GPO`, or `Compatibility`.
    pub source: Option<String>,
    /// Address: `*`, `IP:` and an address, or `MAC:` and the address of a network card.
    pub address: Option<String>,
    /// Transport: `HTTP` or `HTTPS`.
    pub transport: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Hostname.
    pub hostname: Option<String>,
    /// Enabled.
    pub enabled: Option<bool>,
    /// URLPrefix.
    pub url_prefix: Option<String>,
    /// CertificateThumbprint: SHA-1 in hexadecimal digits; empty for HTTP.
    pub certificate_thumbprint: Option<String>,
    /// ListeningOn: the addresses that it listens at, computed by the host.
    pub listening_on: Vec<String>,
}

/// cert:CertMapping ([MS-WSMV] 2.2.4.3). `None` is unknown. Its password, should a host ever tell it, is not read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateMapping {
    /// URI: what it may be used for.
    pub uri: Option<String>,
    /// Subject: which certificates; a `*` at one end stands for anything.
    pub subject: Option<String>,
    /// Issuer: the thumbprint of who must have issued them.
    pub issuer: Option<String>,
    /// UserName: the local account that they stand for.
    pub user_name: Option<String>,
    /// Enabled.
    pub enabled: Option<bool>,
}

impl Config {
    pub(super) fn read(reader: &mut Reader<'_>, parent: &Element<'_>) -> Result<Self, SoapError> {
        let mut config = Self::default();
        each(reader, parent, |reader, child| {
            match child.local() {
                "MaxEnvelopeSizekb" => config.max_envelope_size_kb = number(reader, child)?,
                "MaxTimeoutms" => config.max_timeout_ms = number(reader, child)?,
                "MaxBatchItems" => config.max_batch_items = number(reader, child)?,
                "MaxProviderRequests" => config.max_provider_requests = number(reader, child)?,
                "Client" => config.client = Client::read(reader, child)?,
                "Service" => config.service = Service::read(reader, child)?,
                "Winrs" => config.winrs = Winrs::read(reader, child)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(config)
    }
}

impl Client {
    fn read(reader: &mut Reader<'_>, parent: &Element<'_>) -> Result<Self, SoapError> {
        let mut client = Self::default();
        each(reader, parent, |reader, child| {
            match child.local() {
                "NetworkDelayms" => client.network_delay_ms = number(reader, child)?,
                "URLPrefix" => client.url_prefix = text(reader, child)?,
                "AllowUnencrypted" => client.allow_unencrypted = boolean(reader, child)?,
                "Auth" => client.auth = Auth::read(reader, child)?,
                "DefaultPorts" => client.default_ports = Ports::read(reader, child)?,
                "TrustedHosts" => client.trusted_hosts = text(reader, child)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(client)
    }
}

impl Service {
    fn read(reader: &mut Reader<'_>, parent: &Element<'_>) -> Result<Self, SoapError> {
        let mut service = Self::default();
        each(reader, parent, |reader, child| {
            match child.local() {
                "RootSDDL" => service.root_sddl = text(reader, child)?,
                "MaxConcurrentOperations" => service.max_concurrent_operations = number(reader, child)?,
                "MaxConcurrentOperationsPerUser" => {
                    service.max_concurrent_operations_per_user = number(reader, child)?;
                }
                "EnumerationTimeoutms" => service.enumeration_timeout_ms = number(reader, child)?,
                "MaxConnections" => service.max_connections = number(reader, child)?,
                "MaxPacketRetrievalTimeSeconds" => service.max_packet_retrieval_time_seconds = number(reader, child)?,
                "AllowUnencrypted" => service.allow_unencrypted = boolean(reader, child)?,
                "Auth" => service.auth = Auth::read(reader, child)?,
                "DefaultPorts" => service.default_ports = Ports::read(reader, child)?,
                "IPv4Filter" => service.ipv4_filter = text(reader, child)?,
                "IPv6Filter" => service.ipv6_filter = text(reader, child)?,
                "EnableCompatibilityHttpListener" => service.compatibility_http_listener = boolean(reader, child)?,
                "EnableCompatibilityHttpsListener" => service.compatibility_https_listener = boolean(reader, child)?,
                "CertificateThumbprint" => service.certificate_thumbprint = text(reader, child)?,
                "AllowRemoteAccess" => service.allow_remote_access = boolean(reader, child)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(service)
    }
}

impl Auth {
    fn read(reader: &mut Reader<'_>, parent: &Element<'_>) -> Result<Self, SoapError> {
        let mut auth = Self::default();
        each(reader, parent, |reader, child| {
            match child.local() {
                "Basic" => auth.basic = boolean(reader, child)?,
                "Digest" => auth.digest = boolean(reader, child)?,
                "Kerberos" => auth.kerberos = boolean(reader, child)?,
                "Negotiate" => auth.negotiate = boolean(reader, child)?,
                "Certificate" => auth.certificate = boolean(reader, child)?,
                "CredSSP" => auth.credssp = boolean(reader, child)?,
                "CbtHardeningLevel" => {
                    auth.cbt_hardening_level = setting(reader, child, |text| {
                        [CbtHardeningLevel::None, CbtHardeningLevel::Relaxed, CbtHardeningLevel::Strict]
                            .into_iter()
                            .find(|level| level.as_str().eq_ignore_ascii_case(text))
                    })?;
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(auth)
    }
}

impl Ports {
    fn read(reader: &mut Reader<'_>, parent: &Element<'_>) -> Result<Self, SoapError> {
        let mut ports = Self::default();
        each(reader, parent, |reader, child| {
            match child.local() {
                "HTTP" => ports.http = number(reader, child)?,
                "HTTPS" => ports.https = number(reader, child)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(ports)
    }
}

impl Winrs {
    fn read(reader: &mut Reader<'_>, parent: &Element<'_>) -> Result<Self, SoapError> {
        let mut winrs = Self::default();
        each(reader, parent, |reader, child| {
            match child.local() {
                "AllowRemoteShellAccess" => winrs.allow_remote_shell_access = boolean(reader, child)?,
                "IdleTimeout" => winrs.idle_timeout_ms = number(reader, child)?,
                "MaxConcurrentUsers" => winrs.max_concurrent_users = number(reader, child)?,
                "MaxShellRunTime" => winrs.max_shell_run_time_ms = number(reader, child)?,
                "MaxProcessesPerShell" => winrs.max_processes_per_shell = number(reader, child)?,
                "MaxMemoryPerShellMB" => winrs.max_memory_per_shell_mb = number(reader, child)?,
                "MaxShellsPerUser" => winrs.max_shells_per_user = number(reader, child)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(winrs)
    }
}

impl Listener {
    pub(super) fn read(reader: &mut Reader<'_>, parent: &Element<'_>) -> Result<Self, SoapError> {
        let mut listener = Self { source: source(parent)?, ..Self::default() };
        each(reader, parent, |reader, child| {
            // Whichever element says so, one that a policy touches is the policy's.
            if listener.source.is_none() {
                listener.source = source(child)?;
            }
            match child.local() {
                "Address" => listener.address = told(reader, child)?,
                "Transport" => listener.transport = told(reader, child)?,
                "Port" => listener.port = told(reader, child)?.and_then(|text| text.parse().ok()),
                "Hostname" => listener.hostname = told(reader, child)?,
                "Enabled" => listener.enabled = told(reader, child)?.as_deref().and_then(truth),
                "URLPrefix" => listener.url_prefix = told(reader, child)?,
                "CertificateThumbprint" => listener.certificate_thumbprint = told(reader, child)?,
                "ListeningOn" if listener.listening_on.len() < MAX_ADDRESSES => {
                    listener.listening_on.extend(told(reader, child)?.filter(|address| !address.is_empty()));
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(listener)
    }
}

impl CertificateMapping {
    pub(super) fn read(reader: &mut Reader<'_>, parent: &Element<'_>) -> Result<Self, SoapError> {
        let mut mapping = Self::default();
        each(reader, parent, |reader, child| {
            match child.local() {
                "URI" => mapping.uri = told(reader, child)?,
                "Subject" => mapping.subject = told(reader, child)?,
                "Issuer" => mapping.issuer = told(reader, child)?,
                "UserName" => mapping.user_name = told(reader, child)?,
                "Enabled" => mapping.enabled = told(reader, child)?.as_deref().and_then(truth),
                _ => {}
            }
            Ok(())
        })?;
        Ok(mapping)
    }
}

/// Every child that belongs to the configuration.
fn each<'i>(
    reader: &mut Reader<'i>,
    parent: &Element<'_>,
    mut take: impl FnMut(&mut Reader<'i>, &Element<'i>) -> Result<(), SoapError>,
) -> Result<(), SoapError> {
    while let Some(child) = reader.child(parent)? {
        if child.ns() == Ns::Config {
            take(reader, &child)?;
        }
    }
    Ok(())
}

fn setting<T>(
    reader: &mut Reader<'_>,
    element: &Element<'_>,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<Setting<T>>, SoapError> {
    let by_policy = source(element)?.is_some_and(|source| source.eq_ignore_ascii_case("GPO"));
    let value = told(reader, element)?.and_then(|text| parse(&text));
    Ok(value.map(|value| Setting { value, by_policy }))
}

fn number(reader: &mut Reader<'_>, element: &Element<'_>) -> Result<Option<Setting<u64>>, SoapError> {
    setting(reader, element, |text| text.parse().ok())
}

fn boolean(reader: &mut Reader<'_>, element: &Element<'_>) -> Result<Option<Setting<bool>>, SoapError> {
    setting(reader, element, truth)
}

fn text(reader: &mut Reader<'_>, element: &Element<'_>) -> Result<Option<Setting<String>>, SoapError> {
    setting(reader, element, |text| Some(text.to_owned()))
}

/// xs:boolean, in any case.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" => Some(true),
        "0" => Some(false),
        text if text.eq_ignore_ascii_case("true") => Some(true),
        text if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// The text of an element on one line, without characters that steer terminals. Nothing when it is too long to be one.
fn told(reader: &mut Reader<'_>, element: &Element<'_>) -> Result<Option<String>, SoapError> {
    let text = reader.text(element)?;
    if text.len() > MAX_VALUE {
        return Ok(None);
    }
    Ok(Some(text.split_whitespace().collect::<Vec<_>>().join(" ").replace(char::is_control, "\u{fffd}")))
}

/// Who set it, when that is not the host's own configuration.
fn source(element: &Element<'_>) -> Result<Option<String>, SoapError> {
    Ok(element.attribute("Source")?.map(|source| clip(&source)).filter(|source| !source.is_empty()))
}

#[cfg(test)]
mod tests;
