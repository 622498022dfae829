//! The first bytes that a port says, told apart: HTTP, TLS, something else, nothing.
//!
//! A pure decoder of foreign bytes, bounded in header fields and in the text that it keeps.

use std::time::SystemTime;

use crate::auth::challenges;

/// What a port answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Greeting {
    /// HTTP.
    Http(HttpAnswer),
    /// A record of TLS: the port wants TLS.
    Tls,
    /// Another protocol; its first line, as far as it is text.
    Other(String),
    /// The connection was closed without a word.
    Closed,
    /// Nothing came.
    Silence,
}

/// The head of an HTTP answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpAnswer {
    /// Its status.
    pub status: u16,
    /// `Server`.
    pub server: Option<String>,
    /// `Via`: a proxy between.
    pub via: Option<String>,
    /// `Location`, of a redirect.
    pub location: Option<String>,
    /// `Date`: the clock of whoever answered.
    pub date: Option<SystemTime>,
    /// The schemes that `WWW-Authenticate` offers, in order.
    pub offered: Vec<String>,
}

impl HttpAnswer {
    /// Whether HTTP.sys answered, the HTTP server of Windows, and no program behind it.
    #[must_use]
    pub fn is_http_sys(&self) -> bool {
        self.server.as_deref().is_some_and(|server| server.starts_with("Microsoft-HTTPAPI/"))
    }

    /// Whether the scheme is offered.
    #[must_use]
    pub fn offers(&self, scheme: &str) -> bool {
        self.offered.iter().any(|offered| offered.eq_ignore_ascii_case(scheme))
    }
}

impl Greeting {
    /// Reads the bytes that came, and whether the peer closed the connection after them.
    #[must_use]
    pub fn read(bytes: &[u8], closed: bool) -> Self {
        if bytes.is_empty() {
            return if closed { Self::Closed } else { Self::Silence };
        }
        // Alerts and handshakes of SSL 3.0 to TLS 1.3.
        if let [0x15 | 0x16, 3, 0..=4, ..] = bytes {
            return Self::Tls;
        }
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        // Fields that came until the peer stopped count, if the first line did.
        let _ = response.parse(bytes);
        let Some(status) = response.code else {
            let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
            return Self::Other(text(line));
        };
        let fields = || response.headers.iter().filter(|field| !field.name.is_empty());
        let value =
            |name: &str| fields().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| text(field.value));
        let date = value("date").and_then(|date| httpdate::parse_http_date(&date).ok());
        let offers = fields().filter(|field| field.name.eq_ignore_ascii_case("www-authenticate"));
        let offered =
            challenges(offers.map(|field| field.value)).iter().map(|one| text(one.scheme.as_bytes())).collect();
        Self::Http(HttpAnswer {
            status,
            server: value("server"),
            via: value("via"),
            location: value("location"),
            date,
            offered,
        })
    }
}

/// Whether the head of an answer is there, or what came cannot become one.
pub(super) fn is_complete(bytes: &[u8]) -> bool {
    let http = b"HTTP/".iter().zip(bytes).all(|(wanted, byte)| wanted == byte);
    if http {
        bytes.windows(4).any(|four| four == b"\r\n\r\n") || bytes.windows(2).any(|two| two == b"\n\n")
    } else {
        !bytes.is_empty()
    }
}

/// For people: bounded, and without what steers a terminal.
fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim().chars().take(MAX_TEXT).map(|c| if c.is_control() { '?' } else { c }).collect()
}

const MAX_FIELDS: usize = 64;
const MAX_TEXT: usize = 200;
