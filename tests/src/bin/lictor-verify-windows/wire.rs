//! HTTP by hand: status lines, header fields and the end of a connection, which the product's connection does not show.
//!
//! Sends no credential by itself. Everything read is bounded, and every read has a deadline. Sees plain answers only.

use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lictor_winrm::Target;
use lictor_winrm::target::Scheme;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use openssl::x509::X509;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_openssl::SslStream;

const PATIENCE: Duration = Duration::from_secs(30);
const MAX_HEAD: usize = 128 * 1024;
const MAX_BODY: usize = 1024 * 1024;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One connection.
pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    host: String,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Raw {
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let same = |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        self.fields.iter().filter(same).map(|(_, value)| value.as_str()).collect()
    }

    /// Names of the offered authentication schemes.
    pub(crate) fn schemes(&self) -> Vec<String> {
        let first = |value: &&str| value.split([' ', ',']).next().unwrap_or_default().to_owned();
        self.all("WWW-Authenticate").iter().map(first).collect()
    }
}

impl Wire {
    pub(crate) async fn open(target: &Target) -> Result<Self> {
        let endpoint = &target.endpoint;
        let tcp = timeout(PATIENCE, TcpStream::connect((endpoint.host(), endpoint.port()))).await??;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match endpoint.scheme() {
            Scheme::Http => Box::new(tcp),
            Scheme::Https => {
                let mut builder = SslConnector::builder(SslMethod::tls_client())?;
                if let Some(pem) = &target.tls.ca_pem {
                    for certificate in X509::stack_from_pem(pem.as_bytes())? {
                        builder.cert_store_mut().add_cert(certificate)?;
                    }
                }
                let skip = target.tls.skip_certificate_check;
                if skip {
                    builder.set_verify(SslVerifyMode::NONE);
                }
                let ssl = builder.build().configure()?.verify_hostname(!skip).into_ssl(endpoint.host())?;
                let mut stream = SslStream::new(ssl, tcp)?;
                timeout(PATIENCE, Pin::new(&mut stream).connect()).await??;
                Box::new(stream)
            }
        };
        Ok(Self { stream, host: endpoint.authority() })
    }

    /// One POST. `fields` are added to Host and, unless `length` is false, Content-Length.
    pub(crate) async fn post(&mut self, path: &str, fields: &[(&str, &str)], length: bool, body: &[u8]) -> Result<Raw> {
        let mut head = format!("POST {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: lictor-verify-windows\r\n", self.host);
        if length {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        for (name, value) in fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        timeout(PATIENCE, async {
            self.stream.write_all(head.as_bytes()).await?;
            self.stream.write_all(body).await?;
            self.stream.flush().await?;
            self.answer().await
        })
        .await?
    }

    /// Waits until the host closes the connection; nothing when it does not within `most`.
    pub(crate) async fn closed(&mut self, most: Duration) -> Result<Option<Duration>> {
        let begin = std::time::Instant::now();
        let mut byte = [0; 1];
        match timeout(most, self.stream.read(&mut byte)).await {
            Err(_) => Ok(None),
            // A reset is an end as well.
            Ok(Ok(0) | Err(_)) => Ok(Some(begin.elapsed())),
            Ok(Ok(_)) => bail!("the host sent something that was not asked for"),
        }
    }

    async fn answer(&mut self) -> Result<Raw> {
        let mut buffer = Vec::new();
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            ensure!(buffer.len() <= MAX_HEAD, "the head of the answer is too large");
            ensure!(self.stream.read_buf(&mut buffer).await? > 0, "the host closed the connection");
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.context("the answer has no status")?;
        let field = |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        let mut raw = Raw { status, fields: lines.filter_map(field).collect(), body: buffer.split_off(end + 4) };
        let length: usize = raw.all("Content-Length").first().and_then(|text| text.parse().ok()).unwrap_or(0);
        ensure!(length <= MAX_BODY, "the body of the answer is too large");
        while raw.body.len() < length {
            ensure!(self.stream.read_buf(&mut raw.body).await? > 0, "the host closed the connection");
        }
        Ok(raw)
    }
}
