//! Which versions of TLS a host takes: one small handshake for each.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;

use openssl::error::ErrorStack;
use openssl::ssl::{Ssl, SslContext, SslMethod, SslVerifyMode, SslVersion};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_openssl::SslStream;

use super::{OLD_SUITES, name};
use crate::target::Endpoint;

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// 1.0.
    Tls1_0,
    /// 1.1.
    Tls1_1,
    /// 1.2.
    Tls1_2,
    /// 1.3.
    Tls1_3,
}

impl TlsVersion {
    const ALL: [Self; 4] = [Self::Tls1_0, Self::Tls1_1, Self::Tls1_2, Self::Tls1_3];

    fn openssl(self) -> SslVersion {
        match self {
            Self::Tls1_0 => SslVersion::TLS1,
            Self::Tls1_1 => SslVersion::TLS1_1,
            Self::Tls1_2 => SslVersion::TLS1_2,
            Self::Tls1_3 => SslVersion::TLS1_3,
        }
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls1_0 => "1.0",
            Self::Tls1_1 => "1.1",
            Self::Tls1_2 => "1.2",
            Self::Tls1_3 => "1.3",
        })
    }
}

/// What a host takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions {
    /// The versions that it takes, each with the suite that it chose, the oldest first.
    pub taken: Vec<(TlsVersion, String)>,
    /// The versions that it refuses.
    pub refused: Vec<TlsVersion>,
    /// The versions of which nobody knows: it did not answer in time, or the library here does not speak them.
    pub unknown: Vec<TlsVersion>,
    /// Why the last one was refused, in the words of the TLS library.
    pub reason: Option<String>,
    /// What it answered is no TLS.
    pub no_tls: bool,
}

impl Versions {
    /// Whether the host takes it.
    #[must_use]
    pub fn takes(&self, version: TlsVersion) -> bool {
        self.taken.iter().any(|(taken, _)| *taken == version)
    }
}

/// Tries each version, the newest first, on connections of their own.
pub async fn versions(endpoint: &Endpoint, address: SocketAddr, deadline: Instant) -> Versions {
    let mut found = Versions::default();
    for version in TlsVersion::ALL.into_iter().rev() {
        match shake(endpoint, address, version, deadline).await {
            Tried::Taken(suite) => found.taken.insert(0, (version, suite)),
            Tried::Refused(reason) => {
                found.refused.insert(0, version);
                found.reason = Some(reason);
            }
            Tried::Unknown => found.unknown.insert(0, version),
            // It will not be for another version either.
            Tried::NoTls => {
                found.no_tls = true;
                break;
            }
        }
    }
    found
}

enum Tried {
    Taken(String),
    Refused(String),
    Unknown,
    NoTls,
}

async fn shake(endpoint: &Endpoint, address: SocketAddr, version: TlsVersion, deadline: Instant) -> Tried {
    let Ok(ssl) = client(endpoint, version) else { return Tried::Unknown };
    let Ok(Ok(tcp)) = timeout_at(deadline, TcpStream::connect(address)).await else { return Tried::Unknown };
    let Ok(mut stream) = SslStream::new(ssl, tcp) else { return Tried::Unknown };
    match timeout_at(deadline, Pin::new(&mut stream).connect()).await {
        Err(_) => Tried::Unknown,
        Ok(Ok(())) => Tried::Taken(stream.ssl().current_cipher().map_or("", |cipher| cipher.name()).to_owned()),
        Ok(Err(error)) => {
            let Some(first) = error.ssl_error().and_then(|stack| stack.errors().first()) else {
                // HTTP.sys closes the connection where it has no version in common.
                return Tried::Refused("the host closed the connection".to_owned());
            };
            match first.reason_code() {
                // SSL_R_WRONG_VERSION_NUMBER: the answer is no TLS at all, such as plain HTTP.
                267 => Tried::NoTls,
                // SSL_R_NO_PROTOCOLS_AVAILABLE: this machine's own rules forbid the version.
                191 => Tried::Unknown,
                _ => Tried::Refused(first.reason().unwrap_or("unknown reason").to_owned()),
            }
        }
    }
}

fn client(endpoint: &Endpoint, version: TlsVersion) -> Result<Ssl, ErrorStack> {
    let mut context = SslContext::builder(SslMethod::tls_client())?;
    context.set_min_proto_version(Some(version.openssl()))?;
    context.set_max_proto_version(Some(version.openssl()))?;
    if version < TlsVersion::Tls1_2 {
        context.set_cipher_list(OLD_SUITES)?;
    }
    context.set_verify(SslVerifyMode::NONE);
    let mut ssl = Ssl::new(&context.build())?;
    name(&mut ssl, endpoint)?;
    Ok(ssl)
}
