//! Listeners: accepts connections, speaks TLS where asked to, and serves until stopped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::ssl::{Ssl, SslAcceptor, SslMethod};
use openssl::x509::X509;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_openssl::SslStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authentication::ntlm::channel_bindings_hash;
use crate::host::{Host, ShellInfo};
use crate::http::Connection;
use crate::options::{Options, Tls};
use crate::statistics::Statistics;

/// MaxConnections of the service is 300; more than this wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 300;
/// HTTP.sys closes connections that have been idle for this long.
const IDLE: Duration = Duration::from_secs(120);
const HANDSHAKE: Duration = Duration::from_secs(30);
/// How often forgotten shells are looked for.
const SWEEP: Duration = Duration::from_millis(500);

/// The simulated host.
#[derive(Debug)]
pub struct Winsim;

/// Why a host did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("failed to listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// Certificate or key are of no use.
    #[error("failed to use the certificate and its key")]
    Tls(#[from] openssl::error::ErrorStack),
    /// The PEM holds no certificate.
    #[error("the certificate file holds no certificate")]
    NoCertificate,
}

/// A running host. Dropping it stops the host without waiting.
pub struct Handle {
    address: SocketAddr,
    admin_address: SocketAddr,
    host: Arc<Host>,
    stopped: CancellationToken,
    tasks: TaskTracker,
}

impl Winsim {
    /// Binds both listeners and serves in the background.
    ///
    /// # Errors
    /// [`StartError`] when an address or the certificate cannot be used.
    pub async fn start(options: Options) -> Result<Handle, StartError> {
        let tls = options.tls.as_ref().map(acceptor).transpose()?;
        let (listener, address) = bind(options.listen).await?;
        let (admin, admin_address) = bind(options.admin_listen).await?;
        let host = Arc::new(Host::new(Arc::new(options)));
        let (stopped, tasks) = (CancellationToken::new(), TaskTracker::new());

        let connections = Connections {
            host: Arc::clone(&host),
            tls,
            stopped: stopped.clone(),
            tasks: tasks.clone(),
            permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            last_id: AtomicU64::new(0),
        };
        tasks.spawn(async move { connections.accept(listener).await });
        let (admin_host, admin_stopped, admin_tasks) = (Arc::clone(&host), stopped.clone(), tasks.clone());
        tasks.spawn(async move { administrate(admin, admin_host, admin_stopped, admin_tasks).await });
        let (swept, sweep_stopped) = (Arc::clone(&host), stopped.clone());
        tasks.spawn(async move {
            while sweep_stopped.run_until_cancelled(tokio::time::sleep(SWEEP)).await.is_some() {
                swept.sweep();
            }
        });
        Ok(Handle { address, admin_address, host, stopped, tasks })
    }
}

impl Handle {
    /// Where WinRM listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the statistics are.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// What has been counted since the start or the last reset.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.host.statistics()
    }

    /// Forgets what was counted, but for what is open.
    pub fn reset(&self) {
        self.host.recorder.reset();
    }

    /// The open shells.
    #[must_use]
    pub fn shells(&self) -> Vec<ShellInfo> {
        self.host.shells()
    }

    /// Cuts all connections, ends all shells and waits until everything has ended.
    pub async fn stop(self) {
        self.stopped.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.host.clear();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stopped.cancel();
        self.host.clear();
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// What a TLS listener needs.
struct TlsListener {
    acceptor: SslAcceptor,
    /// The hash that NTLM carries for this certificate, where there is one.
    channel_bindings: Option<[u8; 16]>,
}

/// TLS 1.2 and later with the usual suites.
fn acceptor(tls: &Tls) -> Result<TlsListener, StartError> {
    let mut chain = X509::stack_from_pem(&tls.certificate)?.into_iter();
    let leaf = chain.next().ok_or(StartError::NoCertificate)?;
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    builder.set_private_key(&*PKey::private_key_from_pem(&tls.key)?)?;
    builder.set_certificate(&leaf)?;
    for intermediate in chain {
        builder.add_extra_chain_cert(intermediate)?;
    }
    builder.check_private_key()?;
    let channel_bindings = end_point_digest(&leaf)?
        .map(|digest| channel_bindings_hash(&[&b"tls-server-end-point:"[..], &digest].concat()));
    Ok(TlsListener { acceptor: builder.build(), channel_bindings })
}

/// `tls-server-end-point` of RFC 5929: the certificate hashed as it was signed, but never with MD5 or SHA-1.
fn end_point_digest(certificate: &X509) -> Result<Option<Vec<u8>>, openssl::error::ErrorStack> {
    let signature = certificate.signature_algorithm().object().nid();
    let digest = match signature.signature_algorithms().map(|algorithms| algorithms.digest) {
        Some(Nid::MD5 | Nid::SHA1) => Some(MessageDigest::sha256()),
        Some(nid) => MessageDigest::from_nid(nid),
        None => None,
    };
    digest.map(|digest| certificate.digest(digest).map(|bytes| bytes.to_vec())).transpose()
}

struct Connections {
    host: Arc<Host>,
    tls: Option<TlsListener>,
    stopped: CancellationToken,
    tasks: TaskTracker,
    permits: Arc<Semaphore>,
    last_id: AtomicU64,
}

impl Connections {
    async fn accept(self, listener: TcpListener) {
        let this = Arc::new(self);
        while let Some((stream, peer)) = this.stopped.run_until_cancelled(accept(&listener)).await {
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&this.permits).acquire_owned().await else { return };
            let connections = Arc::clone(&this);
            this.tasks.spawn(async move {
                let recorder = &connections.host.recorder;
                recorder.count(|statistics| {
                    statistics.connections.opened += 1;
                    statistics.connections.open += 1;
                });
                connections.stopped.run_until_cancelled(connections.connection(stream, peer)).await;
                recorder
                    .count(|statistics| statistics.connections.open = statistics.connections.open.saturating_sub(1));
                drop(permit);
            });
        }
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr) {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        stream.set_nodelay(true).ok();
        let Some(tls) = &self.tls else { return self.serve(stream, id, peer, None).await };
        let accepted = async {
            let ssl = Ssl::new(tls.acceptor.context()).ok()?;
            let mut stream = SslStream::new(ssl, stream).ok()?;
            std::pin::Pin::new(&mut stream).accept().await.ok()?;
            Some(stream)
        };
        match tokio::time::timeout(HANDSHAKE, accepted).await {
            Ok(Some(stream)) => self.serve(stream, id, peer, tls.channel_bindings).await,
            _ => tracing::debug!(connection = id, "TLS handshake failed"),
        }
    }

    async fn serve<S>(&self, stream: S, id: u64, peer: SocketAddr, channel_bindings: Option<[u8; 16]>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let client = peer.ip().to_string();
        let connection = Arc::new(Connection::new(Arc::clone(&self.host), id, client, channel_bindings));
        let service = service_fn(move |request| {
            let connection = Arc::clone(&connection);
            async move { Ok::<_, std::convert::Infallible>(connection.serve(request).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .title_case_headers(true)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(connection = id, %error, "Connection ended");
        }
    }
}

/// Accepts until it works: what fails here is the peer's, or a shortage that passes.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// The administration listener.
async fn administrate(listener: TcpListener, host: Arc<Host>, stopped: CancellationToken, tasks: TaskTracker) {
    while let Some((stream, _)) = stopped.run_until_cancelled(accept(&listener)).await {
        let (host, stopped) = (Arc::clone(&host), stopped.clone());
        tasks.spawn(async move {
            let service = service_fn(move |request| {
                let answer = administer(&host, &request);
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE)
                .serve_connection(TokioIo::new(stream), service);
            stopped.run_until_cancelled(served).await;
        });
    }
}

fn administer(host: &Host, request: &Request<Incoming>) -> Response<Full<bytes::Bytes>> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/statistics") => (StatusCode::OK, serde_json::to_vec_pretty(&host.statistics())),
        (&Method::GET, "/shells") => (StatusCode::OK, serde_json::to_vec_pretty(&host.shells())),
        (&Method::POST, "/reset") => {
            host.recorder.reset();
            (StatusCode::NO_CONTENT, Ok(Vec::new()))
        }
        _ => (StatusCode::NOT_FOUND, Ok(Vec::new())),
    };
    let mut response = Response::new(Full::new(bytes::Bytes::from(body.unwrap_or_default())));
    *response.status_mut() = status;
    if status == StatusCode::OK {
        response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    }
    response
}
