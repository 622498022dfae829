//! Get of the service's configuration and of one listener, and who may read them.

use std::sync::PoisonError;

use openssl::hash::MessageDigest;
use openssl::x509::X509;

use super::{Caller, Host};
use crate::configuration::{Configuration, Listener};
use crate::envelope::Request;
use crate::fault::Fault;
use crate::options::Tls;

impl Host {
    /// Another configuration from now on.
    pub(crate) fn configure(&self, configuration: Configuration) {
        *self.configuration.lock().unwrap_or_else(PoisonError::into_inner) = configuration;
    }

    pub(super) fn configuration(&self) -> Configuration {
        self.configuration.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Only administrators may read the configuration.
    pub(super) fn is_standard(&self, caller: &Caller) -> bool {
        self.options.standard_users.iter().any(|user| user.eq_ignore_ascii_case(&caller.user))
    }

    /// `winrm get winrm/config`.
    pub(super) fn config(&self, request: &Request) -> Result<String, Fault> {
        if !request.selectors.is_empty() {
            return Err(self.against(request, Fault::unexpected_selectors(), "selectors"));
        }
        Ok(self.configuration().document(&self.options, &self.conditions.quotas()))
    }

    /// `winrm get winrm/config/listener?Address=*+Transport=HTTP` ([MS-WSMV] 3.1.4.1.29.5).
    pub(super) fn listener(&self, request: &Request) -> Result<String, Fault> {
        let selector = |wanted: &str| {
            let found = request.selectors.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| value.as_str())
        };
        let (Some(address), Some(transport)) = (selector("Address"), selector("Transport")) else {
            return Err(self.against(request, Fault::insufficient_selectors(), "no Address or no Transport"));
        };
        let same = |listener: &Listener| {
            listener.address.eq_ignore_ascii_case(address) && listener.transport.eq_ignore_ascii_case(transport)
        };
        let found = self.listeners().into_iter().find(|(listener, _)| same(listener));
        found.map(|(_, element)| element).ok_or_else(|| Fault::resource_not_found(&request.resource))
    }

    /// The listeners with their elements.
    pub(super) fn listeners(&self) -> Vec<(Listener, String)> {
        self.configuration().listeners(self.own(self.options.tls.as_ref()))
    }

    /// The one that there is.
    fn own(&self, tls: Option<&Tls>) -> Listener {
        let thumbprint = tls.and_then(|tls| {
            let digest = X509::from_pem(&tls.certificate).ok()?.digest(MessageDigest::sha1()).ok()?;
            Some(digest.iter().map(|byte| format!("{byte:02X}")).collect::<String>())
        });
        let listen = self.options.listen;
        let address = if listen.ip().is_unspecified() { "*".to_owned() } else { format!("IP:{}", listen.ip()) };
        Listener {
            address,
            transport: if tls.is_some() { "HTTPS" } else { "HTTP" }.to_owned(),
            port: listen.port(),
            hostname: if tls.is_some() { self.options.hostname.clone() } else { String::new() },
            certificate_thumbprint: thumbprint.unwrap_or_default(),
            listening_on: vec![listen.ip().to_string()],
            ..Listener::default()
        }
    }
}
