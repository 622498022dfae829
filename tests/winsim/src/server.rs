//! Listeners: accepts connections, speaks TLS where asked to, and serves until stopped.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use krb5::KerberosError;
use openssl::pkey::PKey;
use openssl::ssl::{Ssl, SslAcceptor, SslMethod, SslOptions, SslVersion};
use openssl::x509::X509;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_openssl::SslStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authentication::EndPoint;
use crate::conditions::Service;
use crate::control::{self, Condition, Order};
use crate::host::{Host, ShellInfo};
use crate::http::Connection;
use crate::lines::Line;
use crate::options::{Options, Scheme, Tls, TlsVersion};
use crate::statistics::Statistics;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// After a shortage of the system.
const AGAIN: Duration = Duration::from_millis(10);
const HANDSHAKE: Duration = Duration::from_secs(30);
/// How often forgotten shells and idle connections are looked for.
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
    /// The keytab is of no use.
    #[error("failed to use the keytab {}", file.display())]
    Keytab {
        /// The keytab.
        file: PathBuf,
        /// What is wrong with it.
        source: KerberosError,
    },
    /// The `Kerberos` scheme without a keytab.
    #[error("the Kerberos scheme needs a keytab")]
    NoKeytab,
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
    pub async fn start(mut options: Options) -> Result<Handle, StartError> {
        let tls = options.tls.as_ref().map(|tls| acceptor(tls, options.tls_versions)).transpose()?;
        if options.schemes.contains(&Scheme::Kerberos) && options.kerberos.is_none() {
            return Err(StartError::NoKeytab);
        }
        let failed = |address| move |source| StartError::Listen { address, source };
        let (port, address) = reserve(options.listen).map_err(failed(options.listen))?;
        let listener = listen(address).map_err(failed(address))?;
        // From here on the address with its port.
        options.listen = address;
        let admin = TcpListener::bind(options.admin_listen).await.map_err(failed(options.admin_listen))?;
        let admin_address = admin.local_addr().map_err(failed(options.admin_listen))?;
        let host = Arc::new(Host::new(Arc::new(options)));
        if let Some(keys) = &host.keys {
            keys.load().await.map_err(|source| StartError::Keytab { file: keys.file().to_owned(), source })?;
        }
        let (stopped, tasks) = (CancellationToken::new(), TaskTracker::new());

        let connections = Connections {
            host: Arc::clone(&host),
            tls,
            stopped: stopped.clone(),
            tasks: tasks.clone(),
            address,
            _port: port,
        };
        tasks.spawn(async move { connections.accept(listener).await });
        let (admin_host, admin_stopped, admin_tasks) = (Arc::clone(&host), stopped.clone(), tasks.clone());
        tasks.spawn(async move { control::serve(admin, admin_host, admin_stopped, admin_tasks).await });
        let (swept, sweep_stopped) = (Arc::clone(&host), stopped.clone());
        tasks.spawn(async move {
            while sweep_stopped.run_until_cancelled(tokio::time::sleep(SWEEP)).await.is_some() {
                swept.sweep();
                swept.close_idle().await;
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

    /// Where the statistics are, and where orders are taken.
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
        self.host.reset();
    }

    /// The open shells.
    #[must_use]
    pub fn shells(&self) -> Vec<ShellInfo> {
        self.host.shells()
    }

    /// Makes something happen to the host, and returns when it has.
    pub async fn order(&self, order: Order) {
        self.host.obey(order).await;
    }

    /// What the host is like at the moment.
    #[must_use]
    pub fn condition(&self) -> Condition {
        self.host.condition()
    }

    /// Cuts all connections, ends all shells and waits until everything has ended.
    pub async fn stop(self) {
        self.stopped.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.host.forget();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stopped.cancel();
        self.host.forget();
    }
}

/// Takes a port for as long as the socket lives, without listening on it: nobody else gets it while the host is down.
fn reserve(address: SocketAddr) -> io::Result<(TcpSocket, SocketAddr)> {
    let socket = bind(address)?;
    let bound = socket.local_addr()?;
    Ok((socket, bound))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    bind(address)?.listen(BACKLOG)
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// What a TLS listener needs.
struct TlsListener {
    acceptor: SslAcceptor,
    /// What clients bind their logon to, where the certificate has it.
    end_point: Option<EndPoint>,
}

/// The usual suites; with them the old ones where versions below 1.2 are taken.
fn acceptor(tls: &Tls, (oldest, newest): (TlsVersion, TlsVersion)) -> Result<TlsListener, StartError> {
    let mut chain = X509::stack_from_pem(&tls.certificate)?.into_iter();
    let leaf = chain.next().ok_or(StartError::NoCertificate)?;
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    // Windows serves whatever certificate was bound to the port, weak ones too.
    builder.set_security_level(0);
    if oldest < TlsVersion::Tls1_2 {
        builder.clear_options(SslOptions::NO_TLSV1 | SslOptions::NO_TLSV1_1);
        builder.set_cipher_list("ALL:!aNULL:!eNULL:@SECLEVEL=0")?;
    }
    builder.set_min_proto_version(Some(protocol(oldest)))?;
    builder.set_max_proto_version(Some(protocol(newest)))?;
    builder.set_private_key(&*PKey::private_key_from_pem(&tls.key)?)?;
    builder.set_certificate(&leaf)?;
    for intermediate in chain {
        builder.add_extra_chain_cert(intermediate)?;
    }
    builder.check_private_key()?;
    Ok(TlsListener { acceptor: builder.build(), end_point: EndPoint::new(&leaf)? })
}

fn protocol(version: TlsVersion) -> SslVersion {
    match version {
        TlsVersion::Tls1_0 => SslVersion::TLS1,
        TlsVersion::Tls1_1 => SslVersion::TLS1_1,
        TlsVersion::Tls1_2 => SslVersion::TLS1_2,
        TlsVersion::Tls1_3 => SslVersion::TLS1_3,
    }
}

struct Connections {
    host: Arc<Host>,
    tls: Option<TlsListener>,
    stopped: CancellationToken,
    tasks: TaskTracker,
    address: SocketAddr,
    _port: TcpSocket,
}

impl Connections {
    /// Accepts until stopped. Listens while the host's conditions let it.
    async fn accept(self, listener: TcpListener) {
        let this = Arc::new(self);
        this.stopped.run_until_cancelled(this.accept_forever(listener)).await;
    }

    async fn accept_forever(self: &Arc<Self>, listener: TcpListener) {
        let Host { conditions, lines, clock, listening, .. } = &*self.host;
        let mut changes = conditions.changes();
        let mut listener = Some(listener);
        loop {
            changes.borrow_and_update();
            if conditions.service(clock.now()) == Service::Refusing {
                drop(listener.take());
                listening.send_replace(Some(false));
                let over = async {
                    match conditions.refusing_until() {
                        Some(moment) => clock.sleep_until(moment).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = over => {}
                    _ = changes.changed() => {}
                }
                continue;
            }
            let open = match listener.take().map_or_else(|| listen(self.address), Ok) {
                Ok(open) => listener.insert(open),
                Err(error) => {
                    tracing::warn!(%error, "Failed to listen again");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            };
            listening.send_replace(Some(true));
            if !lines.room(conditions.quotas().max_connections, &mut changes).await {
                continue;
            }
            tokio::select! {
                (stream, peer) = accept(open) => self.take(stream, peer),
                _ = changes.changed() => {}
            }
        }
    }

    fn take(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let entry = self.host.lines.enter();
        let connections = Arc::clone(self);
        self.tasks.spawn(async move {
            let recorder = &connections.host.recorder;
            recorder.count(|statistics| {
                statistics.connections.opened += 1;
                statistics.connections.open += 1;
            });
            let line = Arc::clone(&entry.line);
            tokio::select! {
                biased;
                () = connections.stopped.cancelled() => {}
                () = line.ended() => {}
                () = connections.connection(stream, peer, &line) => {}
            }
            recorder.count(|statistics| statistics.connections.open = statistics.connections.open.saturating_sub(1));
            drop(entry);
        });
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr, line: &Arc<Line>) {
        stream.set_nodelay(true).ok();
        let stream = line.socket(stream);
        let Some(tls) = &self.tls else { return self.serve(stream, line, peer, None).await };
        let accepted = async {
            let ssl = Ssl::new(tls.acceptor.context()).ok()?;
            let mut stream = SslStream::new(ssl, stream).ok()?;
            std::pin::Pin::new(&mut stream).accept().await.ok()?;
            Some(stream)
        };
        match self.host.clock.timeout(HANDSHAKE, accepted).await {
            Some(Some(stream)) => self.serve(stream, line, peer, tls.end_point.as_ref()).await,
            _ => tracing::debug!(connection = line.id, "TLS handshake failed"),
        }
    }

    /// Without a time limit of its own: whoever sends nothing, or half a request, is idle, and idle connections are closed.
    async fn serve<S>(&self, stream: S, line: &Arc<Line>, peer: SocketAddr, end_point: Option<&EndPoint>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let client = peer.ip().to_string();
        let connection = Arc::new(Connection::new(Arc::clone(&self.host), Arc::clone(line), client, end_point));
        let service = service_fn(move |request| {
            let connection = Arc::clone(&connection);
            async move { Ok::<_, std::convert::Infallible>(connection.serve(request).await) }
        });
        let served =
            http1::Builder::new().title_case_headers(true).serve_connection(TokioIo::new(stream), service).await;
        if let Err(error) = served {
            tracing::debug!(connection = line.id, %error, "Connection ended");
        }
    }
}

/// Accepts until it works: what fails here is the peer's, or a shortage that passes.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}
