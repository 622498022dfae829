//! The control plane's own certificate authority: its key, the server's certificate, agents' certificates.
//!
//! The authority's key lives in the state directory, readable by its owner only, and never leaves this module. An
//! agent's identity is the URI `lictor:agent/<id>` in its certificate; whether that certificate still counts is for the
//! database to say. Called by the wiring, the engine (issuing) and the agents' services (reading identities).

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType, SerialNumber,
};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use crate::clock::UnixMillis;
use crate::files;

/// The certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    pin: [u8; 32],
}

/// A certificate for an agent.
#[derive(Debug, Clone)]
pub(crate) struct AgentCertificate {
    /// Leaf and authority, PEM.
    pub(crate) chain_pem: String,
    /// Serial number, lower-case hexadecimal.
    pub(crate) serial: String,
    /// When it is to have been renewed; it still works for the grace behind that.
    pub(crate) not_after: UnixMillis,
}

/// Chain and key of the server.
pub(crate) struct ServerIdentity {
    pub(crate) chain_pem: String,
    pub(crate) key_pem: Zeroizing<String>,
}

/// Whose certificate a peer showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerIdentity {
    pub(crate) agent_id: String,
    pub(crate) serial: String,
}

/// Why the authority could not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    /// A file of the authority could not be read or written.
    #[error("failed to use the authority's file {path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// One of the two files is there, the other is not.
    #[error("the authority is incomplete: {0} is missing while its counterpart exists; restore it from a backup")]
    Incomplete(PathBuf),
    /// A certificate could not be read.
    #[error("failed to parse the authority's certificate")]
    Parse,
    /// A certificate could not be made.
    #[error("failed to issue a certificate")]
    Issue(#[from] rcgen::Error),
    /// TLS does not take what the authority made.
    #[error("failed to set up TLS with the authority's certificates")]
    Tls(#[from] rustls::Error),
    /// The request is not a usable PKCS#10 request.
    #[error("the certificate request is not a valid PKCS#10 request signed with its own key")]
    BadRequest,
}

impl Authority {
    /// Opens the authority in `state_dir`, or makes it at the first start.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, AuthorityError> {
        let certificate = state_dir.join("ca.pem");
        let key = state_dir.join("ca-key.pem");
        match (certificate.exists(), key.exists()) {
            (false, false) => Self::create(&certificate, &key)?,
            (true, true) => {}
            (true, false) => return Err(AuthorityError::Incomplete(key)),
            // The key is written first; a crash between the two files leaves this, and nothing was issued yet.
            (false, true) => Self::create(&certificate, &key)?,
        }
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| AuthorityError::File { path, source }
        };
        let ca_pem = std::fs::read_to_string(&certificate).map_err(file(&certificate))?;
        let key_pem = Zeroizing::new(std::fs::read_to_string(&key).map_err(file(&key))?);
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, KeyPair::from_pem(&key_pem)?)?;
        let pin = spki_pin(&ca_pem).ok_or(AuthorityError::Parse)?;
        Ok(Self { issuer, ca_pem, pin })
    }

    fn create(certificate: &Path, key: &Path) -> Result<(), AuthorityError> {
        let key_pair = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("Lictor control plane authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(random_serial());
        (params.not_before, params.not_after) = validity(AUTHORITY_LIFETIME);
        let pem = params.self_signed(&key_pair)?.pem();
        let key_pem = Zeroizing::new(key_pair.serialize_pem());
        files::write_private(key, key_pem.as_bytes())
            .map_err(|source| AuthorityError::File { path: key.to_owned(), source })?;
        files::write_public(certificate, pem.as_bytes())
            .map_err(|source| AuthorityError::File { path: certificate.to_owned(), source })
    }

    /// The authority's certificate, PEM.
    pub(crate) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// SHA-256 of the authority's SubjectPublicKeyInfo: what join tokens pin.
    pub(crate) fn pin(&self) -> [u8; 32] {
        self.pin
    }

    /// A fresh server certificate for `names`, with the authority behind it so that a pin can be checked.
    pub(crate) fn server_identity(&self, names: &[String]) -> Result<ServerIdentity, AuthorityError> {
        let key_pair = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(names.first().map_or("lictor-control-plane", String::as_str));
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into()?),
            });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.serial_number = Some(random_serial());
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity(SERVER_LIFETIME);
        let leaf = params.signed_by(&key_pair, &self.issuer)?;
        Ok(ServerIdentity {
            chain_pem: format!("{}{}", leaf.pem(), self.ca_pem),
            key_pem: Zeroizing::new(key_pair.serialize_pem()),
        })
    }

    /// TLS as the server speaks it: its own identity, agents' certificates verified when they show one, HTTP/2 only.
    pub(crate) fn tls(&self, names: &[String]) -> Result<rustls::ServerConfig, AuthorityError> {
        let identity = self.server_identity(names)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificates = |pem: &str| -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
            CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|_| AuthorityError::Parse)
        };
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates(&self.ca_pem)? {
            roots.add(certificate)?;
        }
        let agents = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|_| AuthorityError::Parse)?;
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(|_| AuthorityError::Parse)?;
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(agents)
            .with_single_cert(certificates(&identity.chain_pem)?, key)?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(tls)
    }

    /// SHA-256 of the key that a request asks a certificate for, as SubjectPublicKeyInfo; the request proves that the
    /// requester holds it.
    pub(crate) fn requested_key(&self, csr_der: &[u8]) -> Result<[u8; 32], AuthorityError> {
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der))
            .map_err(|_| AuthorityError::BadRequest)?;
        Ok(Sha256::digest(request.public_key.subject_public_key_info()).into())
    }

    /// Issues a client certificate. Of the request only its key counts, and that the requester holds it.
    pub(crate) fn issue_agent(
        &self,
        csr_der: &[u8],
        agent_id: &str,
        name: &str,
        lifetime: Duration,
    ) -> Result<AgentCertificate, AuthorityError> {
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der))
            .map_err(|_| AuthorityError::BadRequest)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(name);
        params.subject_alt_names = vec![SanType::URI(format!("{AGENT_URI}{agent_id}").try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let serial = random_serial();
        let serial_text = hex(&serial.to_bytes());
        params.serial_number = Some(serial);
        (params.not_before, params.not_after) = validity(lifetime + RENEWAL_GRACE);
        let not_after = UnixMillis((params.not_after - RENEWAL_GRACE).unix_timestamp() * 1000);
        let leaf = params.signed_by(&request.public_key, &self.issuer)?;
        Ok(AgentCertificate { chain_pem: format!("{}{}", leaf.pem(), self.ca_pem), serial: serial_text, not_after })
    }
}

/// Reads the identity out of a certificate that TLS has already verified against the authority. Nothing when it is not
/// an agent's.
pub(crate) fn peer_identity(certificate_der: &[u8]) -> Option<PeerIdentity> {
    let (_, certificate) = X509Certificate::from_der(certificate_der).ok()?;
    let usage = certificate.extended_key_usage().ok()??;
    if !usage.value.client_auth {
        return None;
    }
    let names = certificate.subject_alternative_name().ok()??;
    let agent_id = names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(AGENT_URI),
        _ => None,
    })?;
    Some(PeerIdentity { agent_id: agent_id.to_owned(), serial: hex(certificate.raw_serial()) })
}

/// SHA-256 of the SubjectPublicKeyInfo of the first certificate in a PEM text.
fn spki_pin(pem: &str) -> Option<[u8; 32]> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    Some(Sha256::digest(certificate.public_key().raw).into())
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

fn validity(lifetime: Duration) -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::now_utc();
    (now - CLOCK_SKEW, now + lifetime)
}

/// 16 random bytes, positive and without a leading zero, so that every library prints the same serial.
fn random_serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = (bytes[0] & 0x7F) | 0x40;
    SerialNumber::from_slice(&bytes)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

const AGENT_URI: &str = "lictor:agent/";
/// Ten years: replacing the authority means a new pin in every join token.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3650 * 86400);
/// A weekend: who was off for longer than its certificate lasts comes back without a new join token.
const RENEWAL_GRACE: Duration = Duration::from_secs(3 * 86400);
/// The longest that common verifiers accept; a new one is made at each start.
const SERVER_LIFETIME: Duration = Duration::from_secs(397 * 86400);
/// Clocks may differ by this much, and ours may be set back by it: a wrong time zone locks nobody out.
const CLOCK_SKEW: Duration = Duration::from_secs(86400);

#[cfg(test)]
mod tests {
    use super::*;

    fn csr() -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        CertificateParams::default().serialize_request(&key).unwrap().der().to_vec()
    }

    #[test]
    fn an_authority_survives_a_restart_and_its_key_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::open(dir.path()).unwrap();
        let second = Authority::open(dir.path()).unwrap();
        assert_eq!(first.pin(), second.pin());
        assert_eq!(first.ca_pem(), second.ca_pem());
        let mode = std::fs::metadata(dir.path().join("ca-key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_missing_key_is_not_papered_over() {
        let dir = tempfile::tempdir().unwrap();
        Authority::open(dir.path()).unwrap();
        std::fs::remove_file(dir.path().join("ca-key.pem")).unwrap();
        assert!(matches!(Authority::open(dir.path()), Err(AuthorityError::Incomplete(_))));
    }

    #[test]
    fn an_agent_is_read_back_from_its_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let issued = authority.issue_agent(&csr(), "0197-id", "web 1", Duration::from_secs(60)).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(issued.chain_pem.as_bytes()).unwrap();
        assert_eq!(
            peer_identity(&pem.contents),
            Some(PeerIdentity { agent_id: "0197-id".into(), serial: issued.serial })
        );
    }

    #[test]
    fn a_certificate_outlasts_its_announced_end_by_the_grace() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let issued = authority.issue_agent(&csr(), "id", "name", Duration::from_secs(60)).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(issued.chain_pem.as_bytes()).unwrap();
        let end = pem.parse_x509().unwrap().validity().not_after.timestamp() * 1000;
        assert_eq!(UnixMillis(end), issued.not_after.plus(RENEWAL_GRACE));
    }

    #[test]
    fn the_servers_own_certificate_is_no_agent() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let identity = authority.server_identity(&["localhost".into(), "127.0.0.1".into()]).unwrap();
        let (rest, pem) = x509_parser::pem::parse_x509_pem(identity.chain_pem.as_bytes()).unwrap();
        assert_eq!(peer_identity(&pem.contents), None);
        let ca = std::str::from_utf8(rest).unwrap();
        assert_eq!(spki_pin(ca), Some(authority.pin()), "the chain carries the pinned authority");
    }

    #[test]
    fn malformed_requests_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let mut broken = csr();
        let last = broken.len() - 1;
        broken[last] ^= 1;
        for request in [Vec::new(), b"nonsense".to_vec(), broken] {
            assert!(matches!(
                authority.issue_agent(&request, "id", "name", Duration::from_secs(60)),
                Err(AuthorityError::BadRequest)
            ));
        }
    }
}
