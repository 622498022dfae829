//! TLS towards the control plane: rustls, either pinned by a join token or trusting the enrolled authority.
//!
//! It must never accept a certificate that does not chain to the pin or to the authority, or that names another host.
//! Called by `enrol` and `link`.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme, WantsVerifier,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use super::Identity;
use super::proxy::{Line, ProxyError, Way};
use crate::config::ControlPlaneAddress;

/// Where the control plane is, and how to get there.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    /// Where.
    pub(crate) address: ControlPlaneAddress,
    /// Through which proxy.
    pub(crate) proxy: Option<Way>,
}

/// Why the control plane cannot be reached or trusted.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Name resolution or TCP.
    #[error("failed to connect to the control plane at {address}")]
    Tcp {
        /// Where.
        address: String,
        /// How it failed.
        source: Arc<std::io::Error>,
    },
    /// No answer.
    #[error("failed to connect to the control plane at {address}: no answer within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout {
        /// Where.
        address: String,
    },
    /// The proxy in between.
    #[error("failed to connect to the control plane at {address} through the proxy {proxy}")]
    Proxy {
        /// The control plane.
        address: String,
        /// Where the proxy listens.
        proxy: String,
        /// How it failed.
        source: ProxyError,
    },
    /// It is not the control plane that the token names.
    #[error("refused to enrol at {address}")]
    Pin {
        /// Where.
        address: String,
        /// What was presented.
        source: PinMismatch,
    },
    /// TLS failed.
    #[error("failed to set up TLS with the control plane at {address}")]
    Tls {
        /// Where.
        address: String,
        /// How it failed.
        source: rustls::Error,
    },
    /// HTTP/2 did not come about.
    #[error("failed to set up gRPC with the control plane at {address}: {detail}")]
    Grpc {
        /// Where.
        address: String,
        /// How it failed.
        detail: String,
    },
    /// The address or the stored certificates are of no use.
    #[error("failed to prepare TLS towards the control plane: {0}")]
    Setup(String),
}

/// The presented chain does not hold the pinned authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "none of the {presented} certificate(s) presented is the authority that the join token pins: the address is wrong, \
     something in between ends TLS, or the control plane has got a new authority since the token was made"
)]
pub(crate) struct PinMismatch {
    presented: usize,
}

/// Trusts the authority with the given SHA-256 of its SubjectPublicKeyInfo, and nothing else.
pub(crate) fn pinned(pin: [u8; 32]) -> Result<ClientConfig, ConnectError> {
    let provider = provider();
    let verifier = PinVerifier { pin, algorithms: provider.signature_verification_algorithms, provider };
    Ok(with_alpn(builder()?.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()))
}

/// Trusts the enrolled authority and presents the agent's certificate.
pub(crate) fn identified(identity: &Identity) -> Result<ClientConfig, ConnectError> {
    let setup = |what: &str, error: &dyn std::fmt::Display| ConnectError::Setup(format!("{what}: {error}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(identity.ca_pem.as_bytes()) {
        let certificate = certificate.map_err(|error| setup("the stored authority is not PEM", &error))?;
        roots.add(certificate).map_err(|error| setup("the stored authority is not usable", &error))?;
    }
    let chain = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| setup("the stored certificate is not PEM", &error))?;
    let key = PrivateKeyDer::from_pem_slice(identity.private_key_pem.expose().as_bytes())
        .map_err(|_| ConnectError::Setup("the stored key is not PEM".into()))?;
    builder()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map(with_alpn)
        .map_err(|error| setup("the stored certificate and key do not work", &error))
}

/// Opens one HTTP/2 connection. It is not reopened behind the caller's back: the first connection that breaks ends the
/// session, and reconnecting is the link's business.
pub(crate) async fn connect(route: &Route, config: ClientConfig) -> Result<Channel, ConnectError> {
    let address = &route.address;
    let authority = address.authority();
    let origin: Uri =
        address.to_string().parse().map_err(|_| ConnectError::Setup(format!("{address} is not a URL")))?;
    // tonic refuses https without its own TLS; ours is in the connector, and `origin` keeps the right scheme on the wire.
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))
        .map_err(|error| ConnectError::Setup(error.to_string()))?
        .origin(origin)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(HTTP2_WINDOW)
        .initial_connection_window_size(HTTP2_WINDOW);
    let connector = Arc::new(Connector { route: route.clone(), tls: TlsConnector::from(Arc::new(config)) });
    let service = tower::service_fn(move |_: Uri| {
        let connector = Arc::clone(&connector);
        async move { connector.open().await.map(TokioIo::new) }
    });
    match tokio::time::timeout(CONNECT_TIMEOUT * 2, endpoint.connect_with_connector(service)).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(dig(&error)
            .unwrap_or_else(|| ConnectError::Grpc { address: authority, detail: crate::failure::chain(&error) })),
        Err(_) => Err(ConnectError::Timeout { address: authority }),
    }
}

/// Our own error somewhere below a transport error.
fn dig(error: &(dyn StdError + 'static)) -> Option<ConnectError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<ConnectError>() {
            return Some(found.clone());
        }
        next = error.source();
    }
    None
}

struct Connector {
    route: Route,
    tls: TlsConnector,
}

impl Connector {
    async fn open(&self) -> Result<tokio_rustls::client::TlsStream<Box<dyn Line>>, ConnectError> {
        let Route { address: target, proxy } = &self.route;
        let address = target.authority();
        tokio::time::timeout(CONNECT_TIMEOUT, async {
            let line: Box<dyn Line> = match proxy.as_ref().filter(|way| way.serves(target.host(), target.port())) {
                Some(way) => way.tunnel(&address).await.map_err(|source| ConnectError::Proxy {
                    address: address.clone(),
                    proxy: way.authority(),
                    source,
                })?,
                None => {
                    let tcp_error = |source| ConnectError::Tcp { address: address.clone(), source: Arc::new(source) };
                    let tcp = TcpStream::connect((target.host(), target.port())).await.map_err(tcp_error)?;
                    // Without it small control messages wait for the acknowledgement of output.
                    tcp.set_nodelay(true).map_err(tcp_error)?;
                    Box::new(tcp)
                }
            };
            let name = ServerName::try_from(target.host().to_owned())
                .map_err(|_| ConnectError::Setup(format!("{:?} is not a host name", target.host())))?;
            self.tls.connect(name, line).await.map_err(|error| tls_error(&address, error))
        })
        .await
        .unwrap_or_else(|_| Err(ConnectError::Timeout { address: address.clone() }))
    }
}

fn tls_error(address: &str, error: std::io::Error) -> ConnectError {
    let address = address.to_owned();
    let Some(source) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return ConnectError::Tcp { address, source: Arc::new(error) };
    };
    if let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) = source
        && let Some(mismatch) = other.downcast_ref::<PinMismatch>()
    {
        return ConnectError::Pin { address, source: mismatch.clone() };
    }
    ConnectError::Tls { address, source: source.clone() }
}

/// Finds the pinned authority in the presented chain, then checks the leaf against it as the only root: signatures,
/// times and host name as always.
#[derive(Debug)]
struct PinVerifier {
    pin: [u8; 32],
    algorithms: WebPkiSupportedAlgorithms,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let presented = 1 + intermediates.len();
        let authority =
            std::iter::once(end_entity).chain(intermediates).find(|certificate| self.is_pinned(certificate));
        let Some(authority) = authority else {
            let mismatch = OtherError(Arc::new(PinMismatch { presented }));
            return Err(rustls::Error::InvalidCertificate(CertificateError::Other(mismatch)));
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl PinVerifier {
    fn is_pinned(&self, certificate: &CertificateDer<'_>) -> bool {
        x509_parser::parse_x509_certificate(certificate)
            .is_ok_and(|(_, parsed)| <[u8; 32]>::from(Sha256::digest(parsed.public_key().raw)) == self.pin)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, WantsVerifier>, ConnectError> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| ConnectError::Setup(error.to_string()))
}

fn with_alpn(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// For name resolution, TCP, the tunnel through a proxy and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 pings find a dead path long before TCP does.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What the control plane may send ahead: an assignment with a script and a standard input fits.
const HTTP2_WINDOW: u32 = 4 * 1024 * 1024;
