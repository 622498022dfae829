//! Spans: one for each exchange with a host, one for each connection and its authentication.
//!
//! Subscribers that export traces name a span by its field `otel.name`. INVARIANT: what a span says comes from here, and is
//! names, numbers and the host alone: no command line, no text of anybody, nothing of a credential. Called by the session, by
//! the connection and by the pool.

use tracing::Span;
use tracing::field::Empty;

use crate::error::Error;
use crate::target::Endpoint;
use crate::wsman::Response;

/// One WS-Management operation, there and back.
pub(crate) fn exchange(operation: &'static str) -> Span {
    tracing::debug_span!(
        "exchange",
        otel.name = operation,
        otel.kind = "client",
        server.address = Empty,
        server.port = Empty,
        http.response.status_code = Empty,
        http.request.body.size = Empty,
        http.response.body.size = Empty,
        winrm.fault = Empty,
        error.type = Empty,
        otel.status_code = Empty,
    )
}

/// Name resolution, TCP and TLS.
pub(crate) fn connect(endpoint: &Endpoint) -> Span {
    tracing::debug_span!(
        "connect",
        otel.kind = "client",
        server.address = endpoint.host(),
        server.port = i64::from(endpoint.port()),
        error.type = Empty,
        otel.status_code = Empty,
    )
}

/// The authentication of a connection; its legs are exchanges of their own.
pub(crate) fn authenticate(endpoint: &Endpoint) -> Span {
    tracing::debug_span!(
        "authenticate",
        otel.kind = "client",
        server.address = endpoint.host(),
        server.port = i64::from(endpoint.port()),
        winrm.auth = Empty,
        winrm.sealed = Empty,
        winrm.handshake_legs = Empty,
        error.type = Empty,
        otel.status_code = Empty,
    )
}

/// Notes the request of the exchange under way.
pub(crate) fn note_request(endpoint: (&str, u16), bytes: u64) {
    let span = Span::current();
    span.record("server.address", endpoint.0);
    span.record("server.port", i64::from(endpoint.1));
    span.record("http.request.body.size", number(bytes));
}

/// Notes the answer to it.
pub(crate) fn note_answer(status: u16, bytes: usize) {
    let span = Span::current();
    span.record("http.response.status_code", i64::from(status));
    span.record("http.response.body.size", number(bytes as u64));
}

/// Exporters of traces know signed numbers alone.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Notes a failure by its code; its text may hold words of others.
pub(crate) fn note<T>(span: &Span, result: &Result<T, Error>) {
    if let Err(error) = result {
        span.record("error.type", error.code());
        span.record("otel.status_code", "ERROR");
    }
}

/// Notes how an exchange ended. A fault is an answer: whether it is a failure depends on who asked.
pub(crate) fn note_end(span: &Span, result: &Result<Response, Error>) {
    note(span, result);
    if let Ok(Response::Fault(fault)) = result
        && let Some(code) = fault.code
    {
        span.record("winrm.fault", i64::from(code));
    }
}
