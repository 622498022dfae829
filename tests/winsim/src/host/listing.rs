//! Enumerate, Pull and Release over the caller's shells, and the configuration of the service.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::{CONFIG, Caller, Host, IDLE_TIMEOUT};
use crate::envelope::{Request, guid};
use crate::fault::Fault;
use crate::options::{ChannelBindings, Scheme};
use crate::soap::namespace;

/// A listing that has not been pulled to its end.
pub(super) struct Listing {
    owner: String,
    since: Instant,
    left: VecDeque<String>,
}

/// Listings that are kept. Windows has a limit of its own on operations.
const MAX_LISTINGS: usize = 64;
/// EnumerationTimeoutms.
const LISTING: Duration = Duration::from_secs(240);
/// What an envelope costs around the items, generously.
const ENVELOPE: usize = 2048;

impl Host {
    pub(super) fn enumerate(&self, request: &Request, caller: &Caller) -> Result<String, Fault> {
        if !request.selectors.is_empty() {
            return Err(self.against(request, Fault::unexpected_selectors(), "selectors"));
        }
        // Without OptimizeEnumeration nothing comes before the first Pull ([DSP0226] 8.2.3).
        let optimized = request.body.child(namespace::MANAGEMENT, "OptimizeEnumeration").is_some();
        let room = if optimized { self.batch(request, namespace::MANAGEMENT)? } else { 0 };
        let now = self.clock.now();
        let mut shells: Vec<_> = {
            let state = self.lock();
            let own = state.shells.values().filter(|shell| shell.owner == caller.user);
            own.map(|shell| (shell.created, shell.id.clone(), shell.element(Some("Connected"), now))).collect()
        };
        shells.sort();
        let left = shells.into_iter().map(|(_, _, element)| element).collect();
        let listing = Listing { owner: caller.user.clone(), since: now, left };
        let (items, context) = self.continue_listing(request, listing, room);
        let rest = match (&context, optimized) {
            (_, false) => String::new(),
            (Some(_), true) => format!("<w:Items>{items}</w:Items>"),
            (None, true) => format!("<w:Items>{items}</w:Items><w:EndOfSequence/>"),
        };
        let context = context.unwrap_or_default();
        Ok(format!(
            "<n:EnumerateResponse><n:EnumerationContext>{context}</n:EnumerationContext>{rest}</n:EnumerateResponse>"
        ))
    }

    pub(super) fn pull(&self, request: &Request, caller: &Caller) -> Result<String, Fault> {
        let room = self.batch(request, namespace::ENUMERATION)?;
        let listing = self.take_listing(request, caller)?;
        let (items, context) = self.continue_listing(request, listing, room);
        let (before, after) = match context {
            Some(context) => (format!("<n:EnumerationContext>{context}</n:EnumerationContext>"), ""),
            None => (String::new(), "<n:EndOfSequence/>"),
        };
        Ok(format!("<n:PullResponse>{before}<n:Items>{items}</n:Items>{after}</n:PullResponse>"))
    }

    pub(super) fn release(&self, request: &Request, caller: &Caller) -> Result<String, Fault> {
        self.take_listing(request, caller)?;
        Ok(String::new())
    }

    /// How many items an answer may hold: MaxElements of the request, one when it does not say, but never more than MaxBatchItems.
    fn batch(&self, request: &Request, namespace: &str) -> Result<usize, Fault> {
        let most = self.conditions.quotas().max_batch_items;
        match request.body.child(namespace, "MaxElements") {
            None => Ok(1.min(most)),
            Some(element) => match element.text.trim().parse::<usize>() {
                Ok(wanted @ 1..) => Ok(wanted.min(most)),
                _ => Err(self.against(request, Fault::schema(), "MaxElements is not a number")),
            },
        }
    }

    /// The next items, as many as there is room for, and the context for the rest.
    fn continue_listing(&self, request: &Request, mut listing: Listing, room: usize) -> (String, Option<String>) {
        let limit = request.max_envelope_size.min(self.options.max_envelope_size).saturating_sub(ENVELOPE);
        let mut items = String::new();
        for _ in 0..room {
            match listing.left.pop_front() {
                Some(item) if items.is_empty() || items.len() + item.len() <= limit => items.push_str(&item),
                Some(item) => {
                    listing.left.push_front(item);
                    break;
                }
                None => break,
            }
        }
        // Nothing was looked for yet, so nobody knows whether there is anything.
        if listing.left.is_empty() && room > 0 {
            return (items, None);
        }
        let context = format!("uuid:{}", guid());
        listing.since = self.clock.now();
        let mut state = self.lock();
        if state.listings.len() >= MAX_LISTINGS {
            state.listings.pop_first();
        }
        state.listings.insert(context.clone(), listing);
        (items, Some(context))
    }

    fn take_listing(&self, request: &Request, caller: &Caller) -> Result<Listing, Fault> {
        let context =
            request.body.child(namespace::ENUMERATION, "EnumerationContext").map(|element| element.text.trim());
        let context = context.ok_or_else(|| self.against(request, Fault::schema(), "no EnumerationContext"))?;
        let mut state = self.lock();
        state.listings.retain(|_, listing| self.clock.since(listing.since) < LISTING);
        match state.listings.get(context) {
            Some(listing) if listing.owner == caller.user => {}
            _ => return Err(Fault::invalid_enumeration()),
        }
        state.listings.remove(context).ok_or_else(Fault::invalid_enumeration)
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
            tag("EnumerationTimeoutms", &LISTING.as_millis().to_string()),
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
            tag("MaxBatchItems", &quotas.max_batch_items.to_string()),
            tag("MaxProviderRequests", "4294967295"),
            group("Client", &client),
            group("Service", &service),
            group("Winrs", &shells),
        )
    }
}
