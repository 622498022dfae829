//! Enumerate, Pull and Release over the caller's shells, and the configuration of the service.

use super::{CONFIG, Caller, Host};
use crate::envelope::{Request, guid};
use crate::fault::Fault;
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

    /// `winrm get winrm/config`, as far as clients look at it.
    pub(super) fn config(&self) -> String {
        let options = &self.options;
        format!(
            "<cfg:Config xmlns:cfg=\"{CONFIG}\"><cfg:MaxEnvelopeSizekb>{}</cfg:MaxEnvelopeSizekb><cfg:MaxTimeoutms>{}</cfg:MaxTimeoutms>\
             <cfg:MaxBatchItems>32000</cfg:MaxBatchItems><cfg:MaxProviderRequests>4294967295</cfg:MaxProviderRequests>\
             <cfg:Service><cfg:MaxConcurrentOperationsPerUser>{}</cfg:MaxConcurrentOperationsPerUser>\
             <cfg:EnumerationTimeoutms>240000</cfg:EnumerationTimeoutms><cfg:MaxConnections>300</cfg:MaxConnections>\
             <cfg:MaxPacketRetrievalTimeSeconds>120</cfg:MaxPacketRetrievalTimeSeconds>\
             <cfg:AllowUnencrypted>{}</cfg:AllowUnencrypted></cfg:Service>\
             <cfg:Winrs><cfg:AllowRemoteShellAccess>true</cfg:AllowRemoteShellAccess><cfg:IdleTimeout>7200000</cfg:IdleTimeout>\
             <cfg:MaxShellsPerUser>{}</cfg:MaxShellsPerUser></cfg:Winrs></cfg:Config>",
            options.max_envelope_size / 1024,
            options.max_operation_timeout.as_millis(),
            options.max_operations_per_user,
            options.allow_unencrypted,
            options.max_shells_per_user,
        )
    }
}
