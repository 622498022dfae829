//! Enumerate, Pull and Release over the caller's shells, and the configuration of the service.

use super::{CONFIG, Caller, Host, IDLE_TIMEOUT};
use crate::envelope::{Request, guid};
use crate::fault::Fault;
use crate::options::{ChannelBindings, Scheme};
use crate::soap::namespace;

/// Results of Enumerate that nobody has pulled yet.
const MAX_ENUMERATIONS: usize = 64;

impl Host {
    pub(super) fn enumerate(&self, request: &Request, caller: &Caller) -> Result<String, Fault> {
        if !request.selectors.is_empty() {
            return Err(self.against(request, Fault::unexpected_selectors(), "selectors"));
        }
        let now = self.clock.now();
        let mut state = self.lock();
        let items: Vec<String> = state
            .shells
            .values()
            .filter(|shell| shell.owner == caller.user)
            .map(|shell| shell.element(Some("Connected"), now))
            .collect();
        if request.body.child(namespace::MANAGEMENT, "OptimizeEnumeration").is_some() {
            return Ok(format!(
                "<n:EnumerateResponse><n:EnumerationContext></n:EnumerationContext><w:Items>{}</w:Items><w:EndOfSequence/></n:EnumerateResponse>",
                items.concat()
            ));
        }
        if state.enumerations.len() >= MAX_ENUMERATIONS {
            state.enumerations.pop_first();
        }
        let context = format!("uuid:{}", guid());
        state.enumerations.insert(context.clone(), items);
        Ok(format!("<n:EnumerateResponse><n:EnumerationContext>{context}</n:EnumerationContext></n:EnumerateResponse>"))
    }

    pub(super) fn pull(&self, request: &Request) -> Result<String, Fault> {
        let items = self.take_enumeration(request)?;
        Ok(format!("<n:PullResponse><n:Items>{}</n:Items><n:EndOfSequence/></n:PullResponse>", items.concat()))
    }

    pub(super) fn release(&self, request: &Request) -> Result<String, Fault> {
        self.take_enumeration(request)?;
        Ok(String::new())
    }

    pub(super) fn take_enumeration(&self, request: &Request) -> Result<Vec<String>, Fault> {
        let context =
            request.body.child(namespace::ENUMERATION, "EnumerationContext").map(|element| element.text.trim());
        context.and_then(|context| self.lock().enumerations.remove(context)).ok_or_else(Fault::invalid_parameter)
    }

    /// `winrm get winrm/config`. What winsim has no settings for is as on a host that nobody has configured.
    pub(super) fn config(&self) -> String {
        let (options, quotas) = (&self.options, self.conditions.quotas());
        let tag = |name: &str, value: &str| format!("<cfg:{name}>{value}</cfg:{name}>");
        let group = |name: &str, members: &[String]| tag(name, &members.concat());
        let offers = |scheme| options.schemes.contains(&scheme).to_string();
        let ports = || group("DefaultPorts", &[tag("HTTP", "5985"), tag("HTTPS", "5986")]);
        let client = [
            tag("NetworkDelayms", "5000"),
            tag("URLPrefix", "wsman"),
            tag("AllowUnencrypted", "false"),
            group(
                "Auth",
                &[
                    tag("Basic", "true"),
                    tag("Digest", "true"),
                    tag("Kerberos", "true"),
                    tag("Negotiate", "true"),
                    tag("Certificate", "true"),
                    tag("CredSSP", "false"),
                ],
            ),
            ports(),
            tag("TrustedHosts", ""),
        ];
        let level = match options.channel_bindings {
            ChannelBindings::None => "None",
            ChannelBindings::Relaxed => "Relaxed",
            ChannelBindings::Strict => "Strict",
        };
        let service = [
            tag("RootSDDL", "O:NSG:BAD:P(A;;GA;;;BA)(A;;GR;;;IU)S:P(AU;FA;GA;;;WD)(AU;SA;GXGW;;;WD)"),
            tag("MaxConcurrentOperations", "4294967295"),
            tag("MaxConcurrentOperationsPerUser", &quotas.max_operations_per_user.to_string()),
            tag("EnumerationTimeoutms", "240000"),
            tag("MaxConnections", &quotas.max_connections.to_string()),
            tag("MaxPacketRetrievalTimeSeconds", "120"),
            tag("AllowUnencrypted", &options.allow_unencrypted.to_string()),
            group(
                "Auth",
                &[
                    tag("Basic", &offers(Scheme::Basic)),
                    tag("Kerberos", "false"),
                    tag("Negotiate", &offers(Scheme::Negotiate)),
                    tag("Certificate", "false"),
                    tag("CredSSP", "false"),
                    tag("CbtHardeningLevel", level),
                ],
            ),
            ports(),
            tag("IPv4Filter", "*"),
            tag("IPv6Filter", "*"),
            tag("EnableCompatibilityHttpListener", "false"),
            tag("EnableCompatibilityHttpsListener", "false"),
            tag("CertificateThumbprint", ""),
            tag("AllowRemoteAccess", "true"),
        ];
        let shells = [
            tag("AllowRemoteShellAccess", "true"),
            tag("IdleTimeout", &IDLE_TIMEOUT.as_millis().to_string()),
            tag("MaxConcurrentUsers", &quotas.max_concurrent_users.to_string()),
            tag("MaxShellRunTime", "2147483647"),
            tag("MaxProcessesPerShell", &quotas.max_processes_per_shell.to_string()),
            tag("MaxMemoryPerShellMB", "1024"),
            tag("MaxShellsPerUser", &quotas.max_shells_per_user.to_string()),
        ];
        format!(
            "<cfg:Config xmlns:cfg=\"{CONFIG}\">{}{}{}{}{}{}{}</cfg:Config>",
            tag("MaxEnvelopeSizekb", &(options.max_envelope_size / 1024).to_string()),
            tag("MaxTimeoutms", &options.max_operation_timeout.as_millis().to_string()),
            tag("MaxBatchItems", "32000"),
            tag("MaxProviderRequests", "4294967295"),
            group("Client", &client),
            group("Service", &service),
            group("Winrs", &shells),
        )
    }
}
