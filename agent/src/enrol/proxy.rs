//! A tunnel through an HTTP proxy: CONNECT, as RFC 9110 section 9.3.6 has it, with Basic authentication.
//!
//! TLS with the control plane goes through the tunnel as a whole: the proxy sees its address and nothing else. The
//! proxy's password goes to the proxy only, and into no error. What a proxy answers is bounded. Called by `tls`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lictor_winrm::target::Secret;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::config::{Proxy, ProxyAddress};

/// The proxy, and the password for it.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    proxy: Proxy,
    password: Option<Secret>,
}

/// Why there is no tunnel. Each has a code, a cause and a remedy in [`ProxyError::advice`].
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ProxyError {
    /// Nothing listens there, or it cannot be found.
    #[error("failed to reach it")]
    Unreachable(#[source] Arc<io::Error>),
    /// No answer.
    #[error("it did not answer within {} s", TUNNEL_TIMEOUT.as_secs())]
    Timeout,
    /// TLS with the proxy itself failed.
    #[error("failed to set up TLS with it")]
    Tls(#[source] Arc<io::Error>),
    /// A file with certificates or the password is of no use.
    #[error("failed to use {}: {problem}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The connection ended before the answer did.
    #[error("it closed the connection without a whole answer")]
    Closed,
    /// What came is not an answer to CONNECT.
    #[error("its answer is not HTTP: {0}")]
    NotHttp(&'static str),
    /// 407.
    #[error("it asks for authentication: 407, {offered}")]
    Authentication {
        /// What it takes, or what it was given.
        offered: String,
        /// Whether it was given a password.
        refused: bool,
    },
    /// Another refusal.
    #[error("it refused the tunnel: {status} {reason}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// In its words.
        reason: String,
    },
}

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Advice {
    /// Stable.
    pub(crate) code: &'static str,
    /// Why it happens.
    pub(crate) cause: &'static str,
    /// What helps.
    pub(crate) remedy: &'static str,
}

impl ProxyError {
    /// The one table of codes, causes and remedies.
    pub(crate) fn advice(&self) -> Advice {
        let row = |code, cause, remedy| Advice { code, cause, remedy };
        match self {
            Self::Unreachable(_) => row(
                "proxy.unreachable",
                "Nothing listens at the proxy's address, or a firewall is in between",
                "Check proxy.url, PROXY_HOST and PROXY_PORT or HTTPS_PROXY, and the network",
            ),
            Self::Timeout => row(
                "proxy.timeout",
                "The proxy, or the control plane behind it, does not answer",
                "Check the proxy, and that it may reach the control plane",
            ),
            Self::Tls(_) => row(
                "proxy.tls",
                "The proxy does not speak TLS, or an authority that is not trusted here issued its certificate",
                "Use http:// when the proxy is spoken to in plain, or name its authority by proxy.ca_file",
            ),
            Self::File { .. } => row(
                "proxy.file",
                "A file that the proxy's settings name cannot be read",
                "Check proxy.ca_file and proxy.password_file",
            ),
            Self::Closed => row(
                "proxy.closed",
                "What listens there is no HTTP proxy, or it expects TLS",
                "Check the port, and whether the proxy's URL should start with https://",
            ),
            Self::NotHttp(_) => row(
                "proxy.not_http",
                "What listens there is no HTTP proxy",
                "Check the address and the port of the proxy",
            ),
            Self::Authentication { refused: false, .. } => row(
                "proxy.authentication",
                "The proxy wants a user name and a password",
                "Set proxy.username and proxy.password_file, or PROXY_USER and PROXY_PASSWORD",
            ),
            Self::Authentication { refused: true, .. } => row(
                "proxy.authentication",
                "The proxy does not take this user name and password, or does not know Basic authentication",
                "Check them, and that the proxy offers Basic; NTLM and Kerberos are not available towards proxies",
            ),
            Self::Refused { status: 502..=504, .. } => row(
                "proxy.gateway",
                "The proxy cannot reach the control plane",
                "Check the control plane's address, and that the proxy resolves and reaches it",
            ),
            Self::Refused { status: 403, .. } => row(
                "proxy.forbidden",
                "The proxy's rules do not allow a tunnel to this host and port",
                "Have the control plane's host and port allowed for CONNECT; many proxies allow port 443 only",
            ),
            Self::Refused { .. } => row(
                "proxy.refused",
                "The proxy does not open tunnels, or takes the request for a wrong one",
                "Check the address of the proxy, and that it allows CONNECT",
            ),
        }
    }
}

/// Bytes both ways.
pub(super) trait Line: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Line for T {}

impl Way {
    pub(crate) fn new(proxy: Proxy, password: Option<Secret>) -> Self {
        Self { proxy, password }
    }

    /// Whether a connection to `host` goes through the proxy.
    pub(crate) fn serves(&self, host: &str, port: u16) -> bool {
        self.proxy.serves(host, port)
    }

    /// Where the proxy is, for people.
    pub(crate) fn authority(&self) -> String {
        self.proxy.address.authority()
    }

    /// A tunnel to `authority`.
    pub(super) async fn tunnel(&self, authority: &str) -> Result<Box<dyn Line>, ProxyError> {
        timeout(TUNNEL_TIMEOUT, async {
            let authorization = self.authorization().await?;
            let mut line = self.open().await?;
            connect(&mut line, authority, authorization.as_deref().map(String::as_str)).await?;
            Ok(line)
        })
        .await
        .unwrap_or(Err(ProxyError::Timeout))
    }

    async fn open(&self) -> Result<Box<dyn Line>, ProxyError> {
        let ProxyAddress { https, host, port } = &self.proxy.address;
        let unreachable = |error| ProxyError::Unreachable(Arc::new(error));
        let tcp = TcpStream::connect((host.as_str(), *port)).await.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        if !https {
            return Ok(Box::new(tcp));
        }
        let path = self.proxy.ca_file.clone();
        let loaded = tokio::task::spawn_blocking(move || trust(path)).await;
        let config = loaded.map_err(|error| ProxyError::Tls(Arc::new(io::Error::other(error))))??;
        let name =
            ServerName::try_from(host.clone()).map_err(|error| ProxyError::Tls(Arc::new(io::Error::other(error))))?;
        let secured = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
        Ok(Box::new(secured.map_err(|error| ProxyError::Tls(Arc::new(error)))?))
    }

    /// The header's value. Read as late as possible, and zeroed behind its use.
    async fn authorization(&self) -> Result<Option<Zeroizing<String>>, ProxyError> {
        let Some(username) = &self.proxy.username else { return Ok(None) };
        let password = match (&self.proxy.password_file, &self.password) {
            (Some(path), _) => {
                let text = tokio::fs::read_to_string(path).await.map(Zeroizing::new).map_err(|error| {
                    // The kind, not the text: who knows what a file system puts in there.
                    ProxyError::File { path: path.clone(), problem: error.kind().to_string() }
                })?;
                Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            (None, Some(password)) => Zeroizing::new(password.expose().to_owned()),
            (None, None) => Zeroizing::default(),
        };
        let pair = Zeroizing::new(format!("{username}:{}", *password));
        Ok(Some(Zeroizing::new(STANDARD.encode(pair.as_bytes()))))
    }
}

/// Asks for the tunnel. Afterwards the next byte is the control plane's.
async fn connect(line: &mut (dyn Line + '_), authority: &str, authorization: Option<&str>) -> Result<(), ProxyError> {
    let broken = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ProxyError::Closed,
        _ => ProxyError::Unreachable(Arc::new(error)),
    };
    let credentials = Zeroizing::new(match authorization {
        Some(value) => format!("Proxy-Authorization: Basic {value}\r\n"),
        None => String::new(),
    });
    let request = Zeroizing::new(format!(
        "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: lictor-agent\r\n{}\r\n",
        *credentials
    ));
    line.write_all(request.as_bytes()).await.map_err(broken)?;
    line.flush().await.map_err(broken)?;
    let mut head = Vec::new();
    let end = loop {
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        // Told apart early: who speaks another protocol may never send a line's end.
        let known = head.len().min(START.len());
        if head[..known] != START[..known] {
            return Err(ProxyError::NotHttp("it does not begin with HTTP/1"));
        }
        if head.len() > MAX_HEAD {
            return Err(ProxyError::NotHttp("its header does not end"));
        }
        let mut piece = [0; 1024];
        match line.read(&mut piece).await.map_err(broken)? {
            0 => return Err(ProxyError::Closed),
            count => head.extend_from_slice(&piece[..count]),
        }
    };
    let text = String::from_utf8_lossy(&head[..end]).into_owned();
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().splitn(3, ' ');
    let version = words.next().unwrap_or_default();
    let status = words.next().filter(|word| word.len() == 3).and_then(|word| word.parse::<u16>().ok());
    let (Some(status @ 100..=599), "HTTP/1.0" | "HTTP/1.1") = (status, version) else {
        return Err(ProxyError::NotHttp("it has no status line"));
    };
    match status {
        200..=299 if head.len() > end + 4 => Err(ProxyError::NotHttp("something follows its header")),
        200..=299 => Ok(()),
        407 => {
            let offers = lines.filter_map(|line| line.split_once(':'));
            let offers = offers.filter(|(name, _)| name.eq_ignore_ascii_case("proxy-authenticate"));
            let schemes: Vec<String> =
                offers.filter_map(|(_, value)| value.split_whitespace().next().map(clean)).take(8).collect();
            let offered = match (authorization, schemes.is_empty()) {
                (Some(_), true) => "it refused the user name and password it was given".to_owned(),
                (Some(_), false) => format!("it refused what it was given and offers {}", schemes.join(", ")),
                (None, _) => format!("it offers {}", schemes.join(", ")),
            };
            Err(ProxyError::Authentication { offered, refused: authorization.is_some() })
        }
        _ => Err(ProxyError::Refused { status, reason: clean(words.next().unwrap_or_default()) }),
    }
}

/// A foreign text that is fit for a line of the log.
fn clean(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(100).collect()
}

/// What an https proxy is checked against.
fn trust(file: Option<PathBuf>) -> Result<ClientConfig, ProxyError> {
    let path = match file {
        Some(path) => path,
        None => SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file()).ok_or_else(|| {
            ProxyError::File { path: SYSTEM_BUNDLES[0].into(), problem: "there is no such file".into() }
        })?,
    };
    let problem = |problem: String| ProxyError::File { path: path.clone(), problem };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(&path).map_err(|error| problem(error.to_string()))?;
    for certificate in certificates {
        // System bundles may hold one that this library does not take.
        roots.add_parsable_certificates(certificate.ok());
    }
    if roots.is_empty() {
        return Err(problem("it holds no certificate".into()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| problem(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// For reaching the proxy and for its answer, which waits for the control plane's.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(8);
/// Far beyond what proxies say.
const MAX_HEAD: usize = 16 * 1024;
const START: &[u8] = b"HTTP/1.";
/// Debian, Red Hat, Alpine and SUSE.
const SYSTEM_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::config;

    const PASSWORD: &str = "Pr0xy-Marker";

    /// A proxy that reads a request and answers this; then it closes, or waits for ever. Gives the request back.
    async fn proxy(answer: &'static [u8], close: bool) -> (u16, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && socket.read_buf(&mut request).await.unwrap_or(0) > 0 {}
            let _ = socket.write_all(answer).await;
            if !close {
                let _ = socket.read_buf(&mut Vec::new()).await;
            }
            String::from_utf8_lossy(&request).into_owned()
        });
        (port, served)
    }

    fn way(url: &str, password: Option<&str>) -> Way {
        let mut variables = vec![
            ("LICTOR_AGENT_CONTROL_PLANE".to_owned(), "https://cp".to_owned()),
            ("PROXY_HOST".to_owned(), url.rsplit_once(':').unwrap().0.to_owned()),
            ("PROXY_PORT".to_owned(), url.rsplit_once(':').unwrap().1.to_owned()),
        ];
        if let Some(password) = password {
            variables.push(("PROXY_USER".into(), "user".into()));
            variables.push(("PROXY_PASSWORD".into(), password.into()));
        }
        let loaded = config::load(None, variables).unwrap();
        Way::new(loaded.config.proxy.unwrap(), loaded.proxy_password)
    }

    async fn answered(answer: &'static [u8], close: bool) -> Result<(), ProxyError> {
        let (port, _served) = proxy(answer, close).await;
        way(&format!("127.0.0.1:{port}"), Some(PASSWORD)).tunnel("cp.example:7443").await.map(|_| ())
    }

    #[tokio::test]
    async fn a_tunnel_is_asked_for_with_basic_authentication() {
        let (port, served) = proxy(b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n", true).await;
        way(&format!("127.0.0.1:{port}"), Some(PASSWORD)).tunnel("[::1]:7443").await.map(|_| ()).unwrap();
        let request = served.await.unwrap();
        assert!(request.starts_with("CONNECT [::1]:7443 HTTP/1.1\r\nHost: [::1]:7443\r\n"), "{request}");
        let expected = STANDARD.encode(format!("user:{PASSWORD}"));
        assert!(request.contains(&format!("Proxy-Authorization: Basic {expected}\r\n")), "{request}");
    }

    #[tokio::test]
    async fn what_goes_wrong_has_its_code_and_tells_no_password() {
        let long: &'static [u8] = Box::leak([b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'y'; 20_000]].concat().into());
        let cases: [(&'static [u8], bool, &str); 14] = [
            (
                b"HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n",
                true,
                "proxy.authentication",
            ),
            (b"HTTP/1.1 403 Filtered\r\n\r\n", true, "proxy.forbidden"),
            (b"HTTP/1.1 502 Bad Gateway\r\n\r\n<html>", true, "proxy.gateway"),
            (b"HTTP/1.1 405 What\x1b[2J\r\n\r\n", true, "proxy.refused"),
            (b"HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n", true, "proxy.refused"),
            (b"", true, "proxy.closed"),
            (b"HTTP/1.1 200 OK\r\n", true, "proxy.closed"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", false, "proxy.not_http"),
            (b"\x15\x03\x01\x00\x02\x02\x46", false, "proxy.not_http"),
            (b"HTTP/1.1 2000 OK\r\n\r\n", false, "proxy.not_http"),
            (b"HTTP/1.1\r\n\r\n", false, "proxy.not_http"),
            (b"HTTP/1.9 200 OK\r\n\r\n", false, "proxy.not_http"),
            (b"HTTP/1.1 200 OK\r\n\r\n\x16\x03", false, "proxy.not_http"),
            (long, false, "proxy.not_http"),
        ];
        for (answer, close, code) in cases {
            let error = answered(answer, close).await.unwrap_err();
            let said = String::from_utf8_lossy(&answer[..answer.len().min(60)]);
            assert_eq!(error.advice().code, code, "{said}: {error}");
            let text = format!("{error} {error:?}");
            assert!(!text.contains(PASSWORD) && !text.contains('\x1b') && text.len() < 500, "{text}");
        }
        let error = answered(b"HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\n\r\n", true).await.unwrap_err();
        assert!(error.to_string().contains("offers Negotiate"), "{error}");
        // Nobody there.
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let error = way(&gone.to_string(), None).tunnel("cp:1").await.map(|_| ()).unwrap_err();
        assert_eq!(error.advice().code, "proxy.unreachable");
    }

    #[tokio::test]
    async fn a_proxy_that_says_nothing_is_given_up() {
        let (port, _served) = proxy(b"HTTP/1.1 2", false).await;
        let way = way(&format!("127.0.0.1:{port}"), None);
        tokio::time::pause();
        let error = way.tunnel("cp:1").await.map(|_| ()).unwrap_err();
        assert_eq!(error.advice().code, "proxy.timeout");
    }
}
