//! The control plane's own certificate authority: its key, the server's certificate, agents' certificates.
//!
//! The authority's key lives in the state directory, readable by its owner only, and never leaves this module. An
//! agent's identity is the URI `lictor:agent/<id>` in its certificate; whether that certificate still counts is for the
//! database to say. Called by the wiring, the engine (issuing) and the agents' services (reading identities).

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType, SerialNumber,
};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use tracing::warn;
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
    end: i64,
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
        let (pin, end) = pin_and_end(&ca_pem).ok_or(AuthorityError::Parse)?;
        Ok(Self { issuer, ca_pem, pin, end })
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

    /// When the authority's own certificate ends, in seconds since 1970.
    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    /// A fresh server certificate for `names`, with the authority behind it so that a pin can be checked.
    fn server_identity(&self, names: &[String], lifetime: Duration) -> Result<CertifiedKey, AuthorityError> {
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
        (params.not_before, params.not_after) = validity(lifetime);
        let leaf = params.signed_by(&key_pair, &self.issuer)?;
        let mut chain = vec![leaf.into()];
        chain.extend(certificates(&self.ca_pem)?);
        let key = Zeroizing::new(key_pair.serialize_der());
        let key = PrivateKeyDer::Pkcs8(key.as_slice().into());
        Ok(CertifiedKey::new(chain, rustls::crypto::ring::sign::any_ecdsa_type(&key)?))
    }

    /// TLS as the server speaks it: its own identity, agents' certificates verified when they show one, HTTP/2 only.
    pub(crate) fn tls(self: &Arc<Self>, names: &[String]) -> Result<rustls::ServerConfig, AuthorityError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates(&self.ca_pem)? {
            roots.add(certificate)?;
        }
        let agents = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|_| AuthorityError::Parse)?;
        let shown = Shown::new(Arc::clone(self), names, SERVER_LIFETIME)?;
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(agents)
            .with_cert_resolver(Arc::new(shown));
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

/// The certificate that the server shows. A process may run for longer than one lasts, so the handshake that finds a third of its
/// time left, or less, makes the next.
struct Shown {
    authority: Arc<Authority>,
    names: Vec<String>,
    lifetime: Duration,
    current: Mutex<(Arc<CertifiedKey>, SystemTime)>,
}

impl Shown {
    fn new(authority: Arc<Authority>, names: &[String], lifetime: Duration) -> Result<Self, AuthorityError> {
        let first = Arc::new(authority.server_identity(names, lifetime)?);
        Ok(Self { authority, names: names.to_vec(), lifetime, current: Mutex::new((first, SystemTime::now())) })
    }

    fn at(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back makes no certificate too old.
        if now.duration_since(current.1).is_ok_and(|age| age >= self.lifetime * 2 / 3) {
            match self.authority.server_identity(&self.names, self.lifetime) {
                Ok(next) => *current = (Arc::new(next), now),
                Err(error) => {
                    warn!(error = %crate::app::chain(&error), "The server's certificate could not be renewed")
                }
            }
        }
        Arc::clone(&current.0)
    }
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown").field("names", &self.names).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(SystemTime::now()))
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

/// Of the first certificate in a PEM text: SHA-256 of its SubjectPublicKeyInfo, and when it ends.
fn pin_and_end(pem: &str) -> Option<([u8; 32], i64)> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    Some((Sha256::digest(certificate.public_key().raw).into(), certificate.validity().not_after.timestamp()))
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|_| AuthorityError::Parse)
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
/// The longest that common verifiers accept; a new one is made at each start, and when a third is left.
const SERVER_LIFETIME: Duration = Duration::from_secs(397 * 86400);
/// Clocks may differ by this much, and ours may be set back by it: a wrong time zone locks nobody out.
const CLOCK_SKEW: Duration = Duration::from_secs(86400);

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86400);

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
        let identity = authority.server_identity(&["localhost".into(), "127.0.0.1".into()], DAY).unwrap();
        let [leaf, ca] = &identity.cert[..] else { panic!("not two certificates") };
        assert_eq!(peer_identity(leaf), None);
        let authority_der = &certificates(authority.ca_pem()).unwrap()[0];
        assert_eq!(ca, authority_der, "the chain carries the pinned authority");
    }

    #[test]
    fn the_servers_certificate_is_renewed_while_it_runs() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open(dir.path()).unwrap());
        let shown = Shown::new(authority, &["localhost".into()], DAY * 30).unwrap();
        let now = SystemTime::now();
        let first = shown.at(now);
        assert!(Arc::ptr_eq(&first, &shown.at(now + DAY * 19)));
        assert!(Arc::ptr_eq(&first, &shown.at(now - DAY * 400)));
        let second = shown.at(now + DAY * 21);
        assert_ne!(first.cert[0], second.cert[0]);
        assert!(Arc::ptr_eq(&second, &shown.at(now + DAY * 40)));
        assert!(!Arc::ptr_eq(&second, &shown.at(now + DAY * 42)));
    }

    #[test]
    fn the_authority_says_when_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let days = (authority.end() - OffsetDateTime::now_utc().unix_timestamp()) / 86400;
        assert!((3649..=3650).contains(&days), "{days} days");
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
