//! Sealed messages in HTTP bodies ([MS-WSMV] 2.2.9.1, `multipart/encrypted`).
//!
//! Bodies are taken apart by position and length: the boundary is never searched for inside ciphertext. It fails closed: a body
//! that is not exactly one sealed message of our own protocol is an error, and what was unsealed is returned only after
//! its length and signature were verified. Sealing and unsealing happen in place; nothing is copied that need not be.
//!
//! [MS-WSMV]: https://learn.microsoft.com/en-us/openspecs/windows_protocols/ms-wsmv/

use std::ops::Range;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{ContextError, SecurityContext};

/// The `Content-Type` of a sealed request.
#[must_use]
pub fn content_type(protocol: &str) -> String {
    format!("multipart/encrypted;protocol=\"{protocol}\";boundary=\"{BOUNDARY}\"")
}

/// Whether a `Content-Type` field announces a sealed body of this protocol.
#[must_use]
pub fn is_sealed(field: &[u8], protocol: &str) -> bool {
    let Ok(text) = std::str::from_utf8(field) else { return false };
    let mut parts = text.split(';').map(str::trim);
    parts.next().is_some_and(|media| media.eq_ignore_ascii_case("multipart/encrypted"))
        && parts.any(|parameter| {
            parameter.split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("protocol")
                    && value.trim().trim_matches('"').eq_ignore_ascii_case(protocol)
            })
        })
}

/// Seals a message: the three pieces of the HTTP body, in order. The middle one is the message's own buffer, unless others
/// share it.
///
/// # Errors
/// [`SealError::Context`]; the connection must be closed.
pub fn seal(context: &mut dyn SecurityContext, message: Bytes) -> Result<[Bytes; 3], SealError> {
    let mut data = message.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&*shared));
    let header = context.wrap(&mut data)?;
    let header_length = u32::try_from(header.len()).map_err(|_| SealError::Malformed("the header is too long"))?;
    let protocol = context.protocol();
    let opening = format!(
        "--{BOUNDARY}\r\n\tContent-Type: {protocol}\r\n\
         \tOriginalContent: type=application/soap+xml;charset=UTF-8;Length={}\r\n\
         --{BOUNDARY}\r\n\tContent-Type: application/octet-stream\r\n",
        data.len()
    );
    let mut front = BytesMut::with_capacity(opening.len() + 4 + header.len());
    front.put_slice(opening.as_bytes());
    front.put_u32_le(header_length);
    front.put_slice(&header);
    // HTTP.sys answers 400 to a line break before the closing boundary, so there is none.
    Ok([front.freeze(), data.freeze(), Bytes::from_static(CLOSING.as_bytes())])
}

/// Unseals a body: the message, in the buffer that it came in.
///
/// # Errors
/// [`SealError`]; the connection must be closed.
pub fn open(context: &mut dyn SecurityContext, mut body: BytesMut) -> Result<Bytes, SealError> {
    let layout = parse(&body, context.protocol())?;
    // Some mechanisms may cut header and data elsewhere than at the message, so its length is known only now.
    let message = context.unwrap(&mut body[layout.header.start..layout.data.end], layout.header.len())?;
    if message.len() != layout.length {
        return Err(SealError::Length { promised: layout.length, actual: message.len() });
    }
    let start = layout.header.start;
    Ok(body.freeze().slice(start + message.start..start + message.end))
}

/// Where the pieces of a sealed body are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The length of the message that the body promises.
    pub length: usize,
    /// The security context's header.
    pub header: Range<usize>,
    /// The sealed data.
    pub data: Range<usize>,
}

/// Takes a sealed body apart. Nothing is verified but its form.
///
/// # Errors
/// [`SealError::Malformed`] or [`SealError::Truncated`].
pub fn parse(body: &[u8], protocol: &str) -> Result<Layout, SealError> {
    let mut at = 0;
    if !is_boundary(line(body, &mut at)?) {
        return Err(SealError::Malformed("it does not begin with the boundary"));
    }
    let (mut typed, mut length) = (false, None);
    for fields in 0.. {
        let text = line(body, &mut at)?;
        if is_boundary(text) {
            break;
        }
        if fields == MAX_FIELDS {
            return Err(SealError::Malformed("it has too many header fields"));
        }
        let (name, value) = field(text)?;
        if name.eq_ignore_ascii_case("Content-Type") {
            typed = value.eq_ignore_ascii_case(protocol);
        } else if name.eq_ignore_ascii_case("OriginalContent")
            && length.replace(promised_length(value, body.len())?).is_some()
        {
            return Err(SealError::Malformed("it promises two lengths"));
        }
    }
    let (name, value) = field(line(body, &mut at)?)?;
    if !name.eq_ignore_ascii_case("Content-Type") || !value.eq_ignore_ascii_case("application/octet-stream") {
        return Err(SealError::Malformed("its second part is not application/octet-stream"));
    }
    if !typed {
        return Err(SealError::Malformed("it is not of the protocol that was agreed on"));
    }
    let length = length.ok_or(SealError::Malformed("it does not tell the length of its content"))?;

    let Some(prefix) = body.get(at..at + 4).and_then(|prefix| prefix.try_into().ok()) else {
        return Err(SealError::Truncated);
    };
    at += 4;
    let header_length = u32::from_le_bytes(prefix) as usize;
    if header_length > MAX_CONTEXT_HEADER {
        return Err(SealError::Malformed("its security header is too long"));
    }
    let header = at..at + header_length;
    // The closing boundary is looked for in one place only: at the very end.
    let end = match before_closing(&body[at..]) {
        Some(sealed) => at + sealed.len(),
        None if body.len() < header.end + length + CLOSING.len() - "\r\n".len() => return Err(SealError::Truncated),
        None => return Err(SealError::Malformed("it does not end with the boundary")),
    };
    if header.end > end {
        return Err(SealError::Truncated);
    }
    Ok(Layout { length, data: header.end..end, header })
}

/// Why a message could not be sealed or unsealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The body is no sealed message.
    #[error("malformed sealed body: {0}")]
    Malformed(&'static str),
    /// The body ends early.
    #[error("the sealed body is truncated")]
    Truncated,
    /// The body holds more or less than it says.
    #[error("the sealed body holds {actual} bytes and promised {promised}")]
    Length {
        /// What it says.
        promised: usize,
        /// What it holds.
        actual: usize,
    },
    /// It does not decrypt or verify.
    #[error(transparent)]
    Context(#[from] ContextError),
}

/// The next line before the sealed data, without its line break.
fn line<'a>(body: &'a [u8], at: &mut usize) -> Result<&'a str, SealError> {
    let rest = &body[*at..];
    let window = &rest[..rest.len().min(MAX_LINE)];
    match window.windows(2).position(|pair| pair == b"\r\n") {
        Some(end) => {
            *at += end + 2;
            std::str::from_utf8(&window[..end]).map_err(|_| SealError::Malformed("a header field is not text"))
        }
        None if rest.len() < MAX_LINE => Err(SealError::Truncated),
        None => Err(SealError::Malformed("a header field is too long")),
    }
}

fn field(text: &str) -> Result<(&str, &str), SealError> {
    let (name, value) = text.split_once(':').ok_or(SealError::Malformed("a header field has no colon"))?;
    Ok((name.trim(), value.trim()))
}

/// Exchange writes `-- Encrypted Boundary`.
fn is_boundary(text: &str) -> bool {
    text.strip_prefix("--").is_some_and(|name| name.strip_prefix(' ').unwrap_or(name) == BOUNDARY)
}

/// `type=application/soap+xml;charset=UTF-8;Length=1234`. More than the whole body holds is a truncated body.
fn promised_length(value: &str, most: usize) -> Result<usize, SealError> {
    let mut lengths = value.split(';').filter_map(|parameter| {
        let (name, digits) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("Length").then_some(digits.trim())
    });
    let (Some(digits), None) = (lengths.next(), lengths.next()) else {
        return Err(SealError::Malformed("it does not tell one length of its content"));
    };
    if digits.is_empty() || digits.len() > 10 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(SealError::Malformed("the length of its content is no number"));
    }
    let length = digits.parse().map_err(|_| SealError::Malformed("the length of its content is no number"))?;
    if length > most { Err(SealError::Truncated) } else { Ok(length) }
}

/// What stands before the closing boundary, if the body ends with it.
fn before_closing(body: &[u8]) -> Option<&[u8]> {
    let rest = body.strip_suffix(b"\r\n").unwrap_or(body);
    let rest = rest.strip_suffix(b"--")?.strip_suffix(BOUNDARY.as_bytes())?;
    rest.strip_suffix(b" ").unwrap_or(rest).strip_suffix(b"--")
}

const BOUNDARY: &str = "Encrypted Boundary";
const CLOSING: &str = "--Encrypted Boundary--\r\n";
/// Windows writes two header fields of less than 90 bytes.
const MAX_FIELDS: usize = 8;
const MAX_LINE: usize = 512;
/// NTLM 16 bytes, Kerberos up to 72 and some more with filler, CredSSP with CBC below 100.
const MAX_CONTEXT_HEADER: usize = 1024;

#[cfg(test)]
mod tests;
