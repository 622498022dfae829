//! TLS towards Windows, by OpenSSL: late client certificates and CBC suites of old hosts need it.
//!
//! TLS 1.2 and later. No ALPN is sent: the authentication is bound to the connection, and HTTP/2 has no such thing.

use std::fmt;
use std::pin::Pin;
use std::sync::OnceLock;

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::ssl::{SslConnector, SslMethod, SslMode, SslRef, SslVerifyMode, SslVersion};
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::{X509, X509NameRef, X509VerifyResult};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};
use tokio_openssl::SslStream;

use crate::error::{Error, ErrorKind, Stage};
use crate::target::TlsPolicy;

/// What is known about a TLS session. Shown as version and cipher suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsInfo {
    /// Such as `TLSv1.3`.
    pub version: String,
    /// The cipher suite, as OpenSSL names it.
    pub cipher: String,
    /// Whom the certificate names.
    pub subject: String,
    /// Who issued it.
    pub issuer: String,
    /// When it ends.
    pub not_after: String,
    /// The same, in seconds since 1970.
    pub not_after_unix: i64,
    /// SHA-1 of the certificate in upper-case hexadecimal digits, as Windows names certificates.
    pub thumbprint: String,
    /// It was issued by whom it names, as certificates are that somebody made for himself.
    pub self_issued: bool,
    /// It leads to an authority that is trusted here. Always so when the check was not skipped.
    pub trusted: bool,
    /// What a check would have said, when it was skipped by request: nothing when it was made.
    pub unchecked: Option<String>,
}

impl TlsInfo {
    pub(crate) fn warning(&self) -> Option<String> {
        self.unchecked.as_ref().map(|verdict| {
            format!("the certificate of {} (issued by {}) was not checked: {verdict}", self.subject, self.issuer)
        })
    }
}

impl fmt::Display for TlsInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.version, self.cipher)
    }
}

/// The handshake, and the check of the certificate against the policy and the host's name or address.
pub(super) async fn handshake(
    tcp: TcpStream,
    host: &str,
    policy: &TlsPolicy,
    deadline: Instant,
) -> Result<(SslStream<TcpStream>, TlsInfo), Error> {
    let fail = |kind| Error::new(Stage::Tls, kind).unsent();
    let settings = |error: ErrorStack| fail(ErrorKind::TlsSettings { detail: error.to_string() });
    // Certificates name hosts without the dot that ends a name in the DNS.
    let name = host.strip_suffix('.').unwrap_or(host);
    let connector =
        timeout_at(deadline, shared()).await.map_err(|_| fail(ErrorKind::TlsTimeout { host: host.to_owned() }))??;
    let mut configuration = connector.configure().map_err(settings)?;
    if policy.skip_certificate_check {
        configuration.set_verify(SslVerifyMode::NONE);
        configuration.set_verify_hostname(false);
    }
    if let Some(pem) = &policy.ca_pem {
        let store = store(pem).map_err(|detail| fail(ErrorKind::TlsSettings { detail }))?;
        configuration.set_verify_cert_store(store).map_err(settings)?;
    }
    let ssl = configuration.into_ssl(name).map_err(settings)?;
    let mut stream = SslStream::new(ssl, tcp).map_err(settings)?;
    let outcome = timeout_at(deadline, Pin::new(&mut stream).connect())
        .await
        .map_err(|_| fail(ErrorKind::TlsTimeout { host: host.to_owned() }))?;
    if let Err(error) = outcome {
        return Err(fail(handshake_error(host, stream.ssl(), &error)).with_source(error));
    }
    let info = info(stream.ssl(), policy.skip_certificate_check)
        .ok_or_else(|| fail(ErrorKind::TlsOther { host: host.to_owned(), detail: "no certificate".to_owned() }))?;
    Ok((stream, info))
}

/// What all sessions share. The system's roots are read once in the life of the process: parsing all of them for each
/// connection costs tens of milliseconds, and blocks.
static CONNECTOR: OnceCell<SslConnector> = OnceCell::const_new();

/// What the process trusts beside the system's roots.
static FURTHER: OnceLock<Vec<X509>> = OnceLock::new();

/// Trusts further authorities, given as PEM certificates, beside the system's, for as long as the process lives: by all
/// connections whose [`TlsPolicy`] names no authorities of its own. How many there are.
///
/// # Errors
/// When the text holds no certificates, or it is too late: once, and before the first connection.
pub fn trust_further(pem: &str) -> Result<usize, FurtherError> {
    let certificates =
        X509::stack_from_pem(pem.as_bytes()).map_err(|error| FurtherError::Malformed(error.to_string()))?;
    let count = certificates.len();
    if count == 0 {
        return Err(FurtherError::Malformed("there is no PEM certificate in it".to_owned()));
    }
    if CONNECTOR.initialized() || FURTHER.set(certificates).is_err() {
        return Err(FurtherError::Late);
    }
    Ok(count)
}

/// Why authorities are not trusted.
#[derive(Debug, thiserror::Error)]
pub enum FurtherError {
    /// What was given cannot be read.
    #[error("the further authorities cannot be read: {0}")]
    Malformed(String),
    /// Connections were made already, or authorities were given already.
    #[error("further authorities can be given once, before the first connection")]
    Late,
}

/// The one connector.
pub(crate) async fn shared() -> Result<&'static SslConnector, Error> {
    CONNECTOR.get_or_try_init(connector).await
}

async fn connector() -> Result<SslConnector, Error> {
    let settings = |detail: String| Error::new(Stage::Tls, ErrorKind::TlsSettings { detail }).unsent();
    let build = || -> Result<SslConnector, ErrorStack> {
        let mut builder = SslConnector::builder(SslMethod::tls_client())?;
        builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
        // Idle connections then cost 9 KiB less each.
        builder.set_mode(SslMode::RELEASE_BUFFERS);
        for certificate in FURTHER.get().into_iter().flatten() {
            builder.cert_store_mut().add_cert(certificate.clone())?;
        }
        Ok(builder.build())
    };
    let built = tokio::task::spawn_blocking(build).await.map_err(|error| settings(error.to_string()))?;
    built.map_err(|error| settings(error.to_string()))
}

/// The given authorities, instead of the system's.
pub(crate) fn store(pem: &str) -> Result<X509Store, String> {
    let build = || -> Result<Option<X509Store>, ErrorStack> {
        let mut store = X509StoreBuilder::new()?;
        let certificates = X509::stack_from_pem(pem.as_bytes())?;
        let any = !certificates.is_empty();
        for certificate in certificates {
            store.add_cert(certificate)?;
        }
        Ok(any.then(|| store.build()))
    };
    match build() {
        Ok(Some(store)) => Ok(store),
        Ok(None) => Err("the given authorities hold no PEM certificate".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn info(ssl: &SslRef, unchecked: bool) -> Option<TlsInfo> {
    let certificate = ssl.peer_certificate()?;
    Some(TlsInfo {
        version: ssl.version_str().to_owned(),
        cipher: ssl.current_cipher().map_or("", |cipher| cipher.name()).to_owned(),
        subject: name(certificate.subject_name()),
        issuer: name(certificate.issuer_name()),
        not_after: certificate.not_after().to_string(),
        not_after_unix: unix_time(certificate.not_after())?,
        thumbprint: certificate.digest(MessageDigest::sha1()).ok()?.iter().map(|byte| format!("{byte:02X}")).collect(),
        self_issued: certificate.issued(&certificate) == X509VerifyResult::OK,
        trusted: ssl.verify_result() == X509VerifyResult::OK,
        unchecked: unchecked.then(|| match ssl.verify_result() {
            X509VerifyResult::OK => "its issuer is trusted, its name was not compared".to_owned(),
            verdict => verdict.error_string().to_owned(),
        }),
    })
}

fn unix_time(time: &Asn1TimeRef) -> Option<i64> {
    let difference = Asn1Time::from_unix(0).and_then(|epoch| epoch.diff(time)).ok()?;
    Some(i64::from(difference.days) * 24 * 60 * 60 + i64::from(difference.secs))
}

/// `CN=host, O=Example`.
pub(crate) fn name(name: &X509NameRef) -> String {
    let parts = name.entries().map(|entry| {
        let key = entry.object().nid().short_name().unwrap_or("?");
        let value = entry.data().to_string().unwrap_or_default();
        format!("{key}={value}")
    });
    plain(&parts.collect::<Vec<_>>().join(", "))
}

/// A text of the peer's: bounded, and control characters replaced.
pub(crate) fn plain(text: &str) -> String {
    text.chars().take(MAX_NAME).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// OpenSSL's own error says no more than "certificate verify failed": the reason is the session's.
fn handshake_error(host: &str, ssl: &SslRef, error: &openssl::ssl::Error) -> ErrorKind {
    let host = host.to_owned();
    let verdict = ssl.verify_result();
    if verdict != X509VerifyResult::OK {
        let detail = verdict.error_string().to_owned();
        return match verdict.as_raw() {
            // X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
            9 | 10 => ErrorKind::TlsExpired { host, detail },
            // X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
            62 | 64 => ErrorKind::TlsHostname { host, detail },
            _ => ErrorKind::TlsUntrusted { host, detail },
        };
    }
    let Some(reason) = error.ssl_error().and_then(|stack| stack.errors().first()) else {
        let detail = match error.io_error() {
            Some(error) => error.to_string(),
            None => "the host closed the connection".to_owned(),
        };
        return ErrorKind::TlsOther { host, detail };
    };
    let detail = reason.reason().unwrap_or("unknown reason").to_owned();
    match reason.reason_code() {
        // SSL_R_WRONG_VERSION_NUMBER: the answer is no TLS at all, such as plain HTTP.
        267 => ErrorKind::TlsProtocol { host, detail: "the answer is not TLS".to_owned() },
        // SSL_R_UNSUPPORTED_PROTOCOL, and the alerts protocol_version, handshake_failure and insufficient_security.
        258 | 1070 | 1040 | 1071 => ErrorKind::TlsProtocol { host, detail },
        _ => ErrorKind::TlsOther { host, detail },
    }
}

const MAX_NAME: usize = 512;
