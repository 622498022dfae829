//! Channel bindings of a TLS listener: what clients compute from its certificate, in the forms that NTLM and Kerberos carry.

use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::x509::X509;

use super::ntlm::channel_bindings_hash;
use crate::options::ChannelBindings;

/// `tls-server-end-point` (RFC 5929) of one listener.
#[derive(Clone, Debug)]
pub(crate) struct EndPoint {
    ntlm: [u8; 16],
    kerberos: krb5::ChannelBindings,
}

/// What a client's bindings are compared with.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) ntlm: [u8; 16],
    pub(crate) kerberos: krb5::ChannelBindings,
    /// Whether the client must send some.
    pub(crate) mandatory: bool,
}

impl EndPoint {
    /// Of a listener with this certificate; some kinds of certificates have none.
    pub(crate) fn new(certificate: &X509) -> Result<Option<Self>, openssl::error::ErrorStack> {
        let Some(digest) = digest(certificate)? else { return Ok(None) };
        let data = [&b"tls-server-end-point:"[..], &digest].concat();
        Ok(Some(Self { ntlm: channel_bindings_hash(&data), kerberos: krb5::ChannelBindings::new(data) }))
    }

    /// What to compare with under `CbtHardeningLevel`.
    pub(crate) fn expected(&self, level: ChannelBindings) -> Option<Expected> {
        let mandatory = match level {
            ChannelBindings::None => return None,
            ChannelBindings::Relaxed => false,
            ChannelBindings::Strict => true,
        };
        Some(Expected { ntlm: self.ntlm, kerberos: self.kerberos.clone(), mandatory })
    }
}

/// The certificate hashed as it was signed, but never with MD5 or SHA-1.
fn digest(certificate: &X509) -> Result<Option<Vec<u8>>, openssl::error::ErrorStack> {
    let signature = certificate.signature_algorithm().object().nid();
    let digest = match signature.signature_algorithms().map(|algorithms| algorithms.digest) {
        Some(Nid::MD5 | Nid::SHA1) => Some(MessageDigest::sha256()),
        Some(nid) => MessageDigest::from_nid(nid),
        None => None,
    };
    digest.map(|digest| certificate.digest(digest).map(|bytes| bytes.to_vec())).transpose()
}
