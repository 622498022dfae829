//! HTTP/1.1 as HTTP.sys and WinRM speak it: one service per TCP connection.
//!
//! Decides who the request is from, opens and closes sealed bodies, and hands what is inside to the host. Whatever is not a proper
//! request gets the status that Windows gives, and is counted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, SERVER, TRANSFER_ENCODING, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;

use crate::answer_body::AnswerBody;
use crate::authentication::seal::{self, Announced, Protocol};
use crate::authentication::{Authentication, EndPoint, Means, Refused, Verdict};
use crate::envelope::{self, Message};
use crate::fault::Fault;
use crate::host::{Caller, Host};
use crate::lines::{Expiry, Line};
use crate::statistics::Exchange;

const SOAP: &str = "application/soap+xml;charset=UTF-8";
/// HTTP.sys' own limit, far above the envelope's: what is larger is not even read.
const MAX_BODY: usize = 8 * 1024 * 1024;
/// What HTTP.sys answers where nothing is registered: 315 bytes.
const NOT_FOUND: &str = "<!DOCTYPE HTML PUBLIC \"-//W3C//DTD HTML 4.01//EN\"\"http://www.w3.org/TR/html4/strict.dtd\">\r\n\
    <HTML><HEAD><TITLE>Not Found</TITLE>\r\n\
    <META HTTP-EQUIV=\"Content-Type\" Content=\"text/html; charset=us-ascii\"></HEAD>\r\n\
    <BODY><h2>Not Found</h2>\r\n\
    <hr><p>HTTP Error 404. The requested resource is not found.</p>\r\n\
    </BODY></HTML>\r\n";
/// MaxPacketRetrievalTimeSeconds.
const BODY_DEADLINE: Duration = Duration::from_secs(120);

/// One connection of a client.
pub(crate) struct Connection {
    host: Arc<Host>,
    line: Arc<Line>,
    client: String,
    tls: bool,
    authentication: Mutex<Authentication>,
}

/// An answer before it becomes HTTP.
struct Answer {
    status: StatusCode,
    /// `WWW-Authenticate`, in order.
    challenges: Vec<String>,
    body: Vec<u8>,
    content_type: Option<String>,
    close: bool,
    exchange: Exchange,
}

impl Connection {
    pub(crate) fn new(host: Arc<Host>, line: Arc<Line>, client: String, end_point: Option<&EndPoint>) -> Self {
        let authentication = Mutex::new(Authentication::new(Arc::clone(&host.options), end_point));
        let tls = host.options.tls.is_some();
        Self { host, line, client, tls, authentication }
    }

    /// Answers one request.
    pub(crate) async fn serve(&self, request: Request<Incoming>) -> Response<AnswerBody> {
        let busy = self.line.exchange();
        let mut changes = self.host.conditions.changes();
        while self.host.conditions.restarting() {
            // The sender lives as long as the host.
            let _ = changes.changed().await;
        }
        let unavailable = self.host.conditions.take_unavailable(self.host.clock.now());
        let (parts, body) = request.into_parts();
        let mut answer = match self.admit(&parts.method, parts.uri.path(), &parts.headers) {
            Some(answer) => answer,
            None => match self.host.clock.timeout(BODY_DEADLINE, Limited::new(body, MAX_BODY).collect()).await {
                // HTTP.sys itself: nobody has looked at the request.
                Some(Ok(_)) if unavailable => Answer { close: true, ..self.plain(StatusCode::SERVICE_UNAVAILABLE) },
                Some(Ok(body)) => self.answer(&parts.headers, body.to_bytes()).await,
                Some(Err(error)) if error.is::<LengthLimitError>() => {
                    self.refused(StatusCode::PAYLOAD_TOO_LARGE, "a body that is too large")
                }
                // The connection broke: nobody's fault, and nobody is there to read the answer.
                Some(Err(_)) => self.plain(StatusCode::BAD_REQUEST),
                None => self.refused(StatusCode::REQUEST_TIMEOUT, "a body that does not come"),
            },
        };
        let delay = self.host.conditions.delay(&answer.exchange.operation);
        if !delay.is_zero() {
            self.host.clock.sleep(delay).await;
        }
        self.line.answers(&answer.exchange.operation);
        answer.exchange.connection = self.line.id;
        answer.exchange.status = answer.status.as_u16();
        self.host.recorder.exchange(answer.exchange);
        let trickle = self.host.conditions.trickle();
        let mut response = Response::new(AnswerBody::new(Bytes::from(answer.body), trickle, &self.host.clock, busy));
        *response.status_mut() = answer.status;
        let headers = response.headers_mut();
        headers.insert(SERVER, HeaderValue::from_static("Microsoft-HTTPAPI/2.0"));
        for challenge in answer.challenges {
            headers.extend(HeaderValue::from_str(&challenge).map(|value| (WWW_AUTHENTICATE, value)));
        }
        if let Some(value) = answer.content_type.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(CONTENT_TYPE, value);
        }
        if answer.close {
            headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// What can be refused by the head alone.
    fn admit(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<Answer> {
        if !path.eq_ignore_ascii_case("/wsman") && !path.eq_ignore_ascii_case("/wsman-anon/identify") {
            let content_type = Some("text/html; charset=us-ascii".to_owned());
            let body = NOT_FOUND.as_bytes().to_vec();
            return Some(Answer { close: true, body, content_type, ..self.plain(StatusCode::NOT_FOUND) });
        }
        if method != Method::POST {
            return Some(Answer { close: true, ..self.plain(StatusCode::METHOD_NOT_ALLOWED) });
        }
        if headers.contains_key(TRANSFER_ENCODING) {
            return Some(self.refused(StatusCode::LENGTH_REQUIRED, "a chunked body"));
        }
        let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        match length {
            None => Some(self.refused(StatusCode::LENGTH_REQUIRED, "no Content-Length")),
            Some(length) if length > MAX_BODY => {
                Some(self.refused(StatusCode::PAYLOAD_TOO_LARGE, "a body that is too large"))
            }
            Some(_) => None,
        }
    }

    async fn answer(&self, headers: &HeaderMap, body: Bytes) -> Answer {
        let text = |name: &http::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let content_type = text(&CONTENT_TYPE).unwrap_or_default();
        let sealed = seal::announced(content_type);
        let authorization = text(&AUTHORIZATION);
        if let Some(expiry) = self.line.take_expiry() {
            let mut authentication = self.lock();
            if authentication.established() {
                authentication.forget();
                drop(authentication);
                return match expiry {
                    Expiry::Unauthorized => self.unauthorized(),
                    Expiry::BadRequest => self.plain(StatusCode::BAD_REQUEST),
                };
            }
        }
        let keytab = match (&self.host.keys, authorization) {
            (Some(keys), Some(_)) => keys.current().await,
            _ => None,
        };
        let verdict = self.lock().judge(authorization, keytab.as_deref());
        let (user, header) = match verdict {
            Verdict::Anonymous => {
                let asks_anonymously = headers
                    .get("wsmanidentify")
                    .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"unauthenticated"));
                if asks_anonymously && matches!(Message::parse(&body), Ok(Message::Identify)) {
                    return self.soap(StatusCode::OK, envelope::identify_response(false), None, "Identify", None);
                }
                if sealed.is_some() {
                    // The security context belongs to another connection.
                    return self
                        .refused(StatusCode::BAD_REQUEST, "a sealed request on a connection without security context");
                }
                return self.unauthorized();
            }
            Verdict::Continue(challenge) => {
                let mut answer = self.plain(StatusCode::UNAUTHORIZED);
                answer.challenges = vec![challenge];
                answer.exchange.operation = "Authenticate".to_owned();
                return answer;
            }
            Verdict::Rejected { refused, header } => {
                match refused {
                    Refused::Logon(user) => self.host.recorder.failed_logon(&user),
                    Refused::Ticket(name) => self.host.recorder.refused_ticket(name),
                    Refused::Violation(text) => self.host.recorder.violation(format!("authentication: {text}")),
                }
                let mut answer = self.unauthorized();
                if let Some(header) = header {
                    answer.challenges = vec![header];
                }
                return answer;
            }
            Verdict::Accepted { user, header, means } => {
                self.host.recorder.count(|statistics| {
                    let counts = &mut statistics.authentication;
                    match means {
                        None => {}
                        Some(Means::Basic) => counts.basic += 1,
                        Some(Means::Ntlm) => counts.handshakes += 1,
                        Some(Means::Kerberos { delegated }) => {
                            counts.handshakes += 1;
                            counts.kerberos += 1;
                            counts.delegated += u64::from(delegated);
                        }
                    }
                });
                (user, header)
            }
        };
        let mut answer = if body.is_empty() {
            let mut answer = self.plain(StatusCode::OK);
            answer.exchange.operation = "Authenticate".to_owned();
            answer
        } else {
            match sealed {
                Some(Announced::Sealed(protocol)) => self.sealed(&body, protocol, &user).await,
                Some(Announced::Unknown) => {
                    self.refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a multipart body that is not sealed as announced")
                }
                None if !self.tls && !self.host.options.allow_unencrypted => {
                    self.refused(StatusCode::INTERNAL_SERVER_ERROR, "a plain body while AllowUnencrypted is false")
                }
                None if !is_soap(content_type) => {
                    self.refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, &format!("the content type {content_type:?}"))
                }
                None => self.message(&body, &user).await,
            }
        };
        answer.challenges = header.into_iter().collect();
        answer.exchange.user = Some(user);
        answer
    }

    async fn sealed(&self, body: &[u8], protocol: Protocol, user: &str) -> Answer {
        let opened = {
            let mut authentication = self.lock();
            let Some((protection, own)) = authentication.protection() else {
                drop(authentication);
                return self.refused(StatusCode::BAD_REQUEST, "a sealed request without sealing keys");
            };
            if own != protocol {
                drop(authentication);
                return self.refused(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "a sealed body with the protocol of another authentication scheme",
                );
            }
            let opened = seal::open(body, protocol, protection);
            if opened.is_err() {
                // The cipher stream cannot be continued after this.
                authentication.forget();
            }
            opened
        };
        match opened {
            Err(error) => Answer { close: true, ..self.refused(StatusCode::BAD_REQUEST, &error.to_string()) },
            Ok(message) => {
                let mut answer = self.message(&message, user).await;
                answer.exchange.sealed = true;
                let mut authentication = self.lock();
                let Some((protection, own)) = authentication.protection() else { return answer };
                match seal::close(std::mem::take(&mut answer.body), own, protection) {
                    Ok(body) => {
                        answer.body = body;
                        answer.content_type = Some(seal::content_type(own));
                        answer
                    }
                    Err(error) => {
                        drop(authentication);
                        self.refused(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
                    }
                }
            }
        }
    }

    /// A plain or opened body of an authenticated user.
    async fn message(&self, body: &[u8], user: &str) -> Answer {
        let machine = &self.host.options.hostname;
        let failed = |fault: &Fault, message_id: Option<&str>, operation: &str| {
            let body = fault.body(machine, self.host.conditions.style());
            let body = envelope::response(fault.action(), message_id, &body);
            self.soap(StatusCode::INTERNAL_SERVER_ERROR, body, Some(user), operation, Some(fault.code))
        };
        if body.len() > self.host.options.max_envelope_size {
            self.host.recorder.violation(format!("a request of {} bytes", body.len()));
            return failed(&Fault::request_too_large(), None, "Refused");
        }
        match Message::parse(body) {
            Ok(Message::Identify) => {
                self.soap(StatusCode::OK, envelope::identify_response(true), Some(user), "Identify", None)
            }
            Ok(Message::Request(request)) => {
                let caller = Caller { user: user.to_owned(), client: self.client.clone() };
                match self.host.perform(&request, &caller).await {
                    Ok(body) => self.soap(StatusCode::OK, body, Some(user), request.operation.name(), None),
                    Err(fault) => failed(&fault, Some(&request.message_id), request.operation.name()),
                }
            }
            Err(refusal) => {
                self.host.recorder.violation(refusal.violation);
                failed(&refusal.fault, refusal.message_id.as_deref(), "Refused")
            }
        }
    }

    fn soap(
        &self,
        status: StatusCode,
        body: Vec<u8>,
        user: Option<&str>,
        operation: &str,
        fault: Option<u32>,
    ) -> Answer {
        let mut answer = self.plain(status);
        answer.body = body;
        answer.content_type = Some(SOAP.to_owned());
        answer.exchange =
            Exchange { operation: operation.to_owned(), user: user.map(str::to_owned), fault, ..Exchange::default() };
        answer
    }

    fn unauthorized(&self) -> Answer {
        let mut answer = self.plain(StatusCode::UNAUTHORIZED);
        answer.challenges = self.lock().offers().into_iter().map(str::to_owned).collect();
        answer.exchange.operation = "Authenticate".to_owned();
        answer
    }

    fn refused(&self, status: StatusCode, violation: &str) -> Answer {
        self.host.recorder.violation(format!("HTTP {}: {violation}", status.as_u16()));
        self.plain(status)
    }

    fn plain(&self, status: StatusCode) -> Answer {
        Answer {
            status,
            challenges: Vec::new(),
            body: Vec::new(),
            content_type: None,
            close: false,
            exchange: Exchange { operation: "Refused".to_owned(), ..Exchange::default() },
        }
    }

    fn lock(&self) -> MutexGuard<'_, Authentication> {
        // The state machine is replaced as a whole, never half.
        self.authentication.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The media type of SOAP 1.2 in UTF-8. Windows reads UTF-16 too; no client of today sends it.
fn is_soap(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(|part| part.trim().to_ascii_lowercase());
    parts.next().as_deref() == Some("application/soap+xml")
        && parts.next().is_some_and(|part| matches!(part.as_str(), "charset=utf-8" | "charset=\"utf-8\""))
}

#[cfg(test)]
mod recordings;
