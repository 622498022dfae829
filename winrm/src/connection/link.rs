//! One HTTP/1.1 connection: requests and answers of one socket, one at a time.
//!
//! hyper drives the socket in a task that this value owns: it ends with it. Nothing is retried and no redirect is
//! followed here; bodies and header fields are bounded.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Uri, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::MAX_ENVELOPE;
use crate::error::{Error, ErrorKind, Stage};
use crate::spans;
use crate::target::Endpoint;

/// The HTTP side of a connection.
#[derive(Debug)]
pub(super) struct Link {
    sender: SendRequest<Pieces>,
    driver: AbortOnDropHandle<()>,
    /// Host and port, for spans.
    server: (Box<str>, u16),
    host: HeaderValue,
    path: Uri,
    exchanges: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Usable,
    /// The last answer was good, and nothing may follow it.
    Ended,
    /// A request is in flight, or was when its future was dropped, or failed.
    Failed,
}

/// A request, without what is the same for all.
pub(super) struct Request {
    content_type: String,
    body: [Bytes; 3],
    authorization: Option<HeaderValue>,
    unauthenticated: bool,
}

impl Request {
    pub(super) fn soap(content_type: String, body: [Bytes; 3]) -> Self {
        Self { content_type, body, authorization: None, unauthenticated: false }
    }

    pub(super) fn authorized(mut self, value: &str) -> Self {
        // Base64 is always a header value. hyper's copies of it are beyond our reach.
        self.authorization = HeaderValue::from_str(value).ok().map(|mut value| {
            value.set_sensitive(true);
            value
        });
        self
    }

    pub(super) fn unauthenticated(mut self) -> Self {
        self.unauthenticated = true;
        self
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: BytesMut,
}

impl Link {
    pub(super) async fn start(
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        endpoint: &Endpoint,
    ) -> Result<Self, Error> {
        let unsendable = |detail: &str| {
            Error::new(Stage::Connect, ErrorKind::RequestUnsendable { detail: detail.to_owned() }).unsent()
        };
        let host = HeaderValue::from_str(&endpoint.authority()).map_err(|_| unsendable("the host name"))?;
        let path = Uri::try_from(endpoint.path()).map_err(|_| unsendable("the URL path"))?;
        let (sender, connection) = Builder::new()
            .max_buf_size(MAX_BUFFER)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| exchange_error(&error).unsent())?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "Connection ended");
            }
        });
        let driver = AbortOnDropHandle::new(driver);
        let server = (Box::from(endpoint.host()), endpoint.port());
        Ok(Self { sender, driver, server, host, path, exchanges: 0, state: State::Usable })
    }

    /// One request and its whole answer. At `deadline` it fails with `timeout`. Cancel safe in the sense that a dropped
    /// future closes the connection.
    pub(super) async fn round(
        &mut self,
        request: Request,
        deadline: Instant,
        timeout: ErrorKind,
    ) -> Result<Response, Error> {
        if !self.is_usable() {
            return Err(super::unusable(Stage::Run, self));
        }
        self.state = State::Failed;
        let guard = Abort(self.driver.abort_handle(), true);
        let mut progress = Progress::Unsent;
        let outcome = timeout_at(deadline, self.perform(request, &mut progress)).await;
        let result = outcome.unwrap_or_else(|_| Err(Error::new(Stage::Run, timeout)));
        match (result, progress) {
            (Ok((response, keep)), _) => {
                if keep {
                    guard.disarm();
                    self.state = State::Usable;
                } else {
                    self.state = State::Ended;
                }
                Ok(response)
            }
            (Err(error), Progress::Unsent) => Err(error.unsent()),
            (Err(error), Progress::InDoubt) => Err(error),
        }
    }

    async fn perform(&mut self, request: Request, progress: &mut Progress) -> Result<(Response, bool), Error> {
        self.sender.ready().await.map_err(|error| exchange_error(&error))?;
        let request = self.request(request)?;
        spans::note_request((&self.server.0, self.server.1), request.body().length());
        self.exchanges = self.exchanges.saturating_add(1);
        *progress = Progress::InDoubt;
        let response = match self.sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut failed) => {
                // hyper hands the request back as long as it has written nothing of it.
                if failed.take_message().is_some() {
                    *progress = Progress::Unsent;
                }
                return Err(exchange_error(failed.error()));
            }
        };
        let (head, body) = response.into_parts();
        let keep = head.version == Version::HTTP_11 && !closes(&head.headers);
        let body = read(body).await?;
        spans::note_answer(head.status.as_u16(), body.len());
        Ok((Response { status: head.status.as_u16(), headers: head.headers, body }, keep))
    }

    fn request(&self, request: Request) -> Result<http::Request<Pieces>, Error> {
        let body = Pieces { pieces: request.body, next: 0 };
        let mut built = http::Request::new(body);
        *built.method_mut() = Method::POST;
        *built.uri_mut() = self.path.clone();
        let length = built.body().length();
        let headers = built.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let content_type = HeaderValue::try_from(request.content_type).map_err(|_| {
            Error::new(Stage::Run, ErrorKind::RequestUnsendable { detail: "the content type".to_owned() })
        })?;
        headers.insert(CONTENT_TYPE, content_type);
        // Also when it is 0: HTTP.sys answers 411 to a POST without it.
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        if let Some(value) = request.authorization {
            headers.insert(AUTHORIZATION, value);
        }
        if request.unauthenticated {
            headers.insert("WSMANIDENTIFY", HeaderValue::from_static("unauthenticated"));
        }
        Ok(built)
    }

    pub(super) fn is_usable(&self) -> bool {
        self.state == State::Usable && !self.sender.is_closed()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.state == State::Failed
    }

    pub(super) fn close(&mut self) {
        self.state = State::Failed;
        self.driver.abort();
    }

    pub(super) fn exchanges(&self) -> u32 {
        self.exchanges
    }
}

/// Closes the socket when an exchange is dropped before its end.
struct Abort(tokio::task::AbortHandle, bool);

impl Abort {
    fn disarm(mut self) {
        self.1 = false;
    }
}

impl Drop for Abort {
    fn drop(&mut self) {
        if self.1 {
            self.0.abort();
        }
    }
}

enum Progress {
    Unsent,
    InDoubt,
}

/// A request body of known pieces, none of them copied.
#[derive(Debug)]
struct Pieces {
    pieces: [Bytes; 3],
    next: usize,
}

impl Pieces {
    fn length(&self) -> u64 {
        self.pieces.iter().skip(self.next).map(|piece| piece.len() as u64).sum()
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        while let Some(piece) = this.pieces.get_mut(this.next) {
            this.next += 1;
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(std::mem::take(piece)))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.length() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length())
    }
}

/// Reads a body to its end, so that the next answer begins where it should.
async fn read(mut body: Incoming) -> Result<BytesMut, Error> {
    let too_large = || Error::new(Stage::Run, ErrorKind::AnswerTooLarge { limit: MAX_ENVELOPE });
    let expected = body.size_hint().exact().unwrap_or(0);
    let expected = usize::try_from(expected).ok().filter(|length| *length <= MAX_BODY).ok_or_else(too_large)?;
    let mut whole = BytesMut::with_capacity(expected);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| exchange_error(&error))?;
        if let Ok(data) = frame.into_data() {
            if data.len() > MAX_BODY - whole.len() {
                return Err(too_large());
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole)
}

fn closes(headers: &HeaderMap) -> bool {
    headers
        .get_all(http::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|option| option.trim().eq_ignore_ascii_case("close"))
}

fn exchange_error(error: &hyper::Error) -> Error {
    let mut source = std::error::Error::source(error);
    let mut broken = error.is_incomplete_message() || error.is_closed() || error.is_canceled();
    let mut detail = error.to_string();
    while let Some(inner) = source {
        broken |= inner.downcast_ref::<io::Error>().is_some_and(|error| {
            use io::ErrorKind as Io;
            matches!(error.kind(), Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe | Io::UnexpectedEof)
        });
        detail = format!("{detail}: {inner}");
        source = inner.source();
    }
    Error::new(Stage::Run, if broken { ErrorKind::ConnectionClosed } else { ErrorKind::HttpProtocol { detail } })
}

const AGENT: &str = concat!("lictor-winrm/", env!("CARGO_PKG_VERSION"));
/// For header fields; tokens of Windows stay below 64,000 bytes.
const MAX_BUFFER: usize = 256 * 1024;
/// A sealed envelope has some 350 bytes around it.
const MAX_BODY: usize = MAX_ENVELOPE + 4096;
