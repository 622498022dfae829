//! Sealed bodies: `multipart/encrypted` of [MS-WSMV] 2.2.9.1 around one sealed message.
//!
//! Sans I/O. Parsed by position and length; the boundary is never searched for inside ciphertext.

use super::protection::{NotAuthentic, Protection};

/// What the parts of a sealed body call themselves. It follows from the HTTP scheme, not from the mechanism inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// After `Negotiate`, whether NTLM or Kerberos is inside, and after `NTLM`.
    Spnego,
    /// After `Kerberos`, and only then.
    Kerberos,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Spnego => "application/HTTP-SPNEGO-session-encrypted",
            Self::Kerberos => "application/HTTP-Kerberos-session-encrypted",
        }
    }
}

/// A Content-Type that says multipart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Announced {
    Sealed(Protocol),
    /// Nothing that this host can open.
    Unknown,
}

/// Why a body was not opened or sealed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    #[error("malformed sealed body: {0}")]
    Malformed(&'static str),
    #[error("sealed body: {0}")]
    NotAuthentic(#[from] NotAuthentic),
    #[error("the sealed body has {actual} bytes instead of the {announced} it announces")]
    Length { announced: usize, actual: usize },
}

/// The Content-Type of a sealed response.
pub(crate) fn content_type(protocol: Protocol) -> String {
    format!("multipart/encrypted;protocol=\"{}\";boundary=\"Encrypted Boundary\"", protocol.name())
}

/// What a Content-Type announces, if it is multipart.
pub(crate) fn announced(content_type: &str) -> Option<Announced> {
    let lower = content_type.to_ascii_lowercase();
    if !lower.starts_with("multipart/") {
        return None;
    }
    if !lower.starts_with("multipart/encrypted") || !content_type.contains("boundary=\"Encrypted Boundary\"") {
        return Some(Announced::Unknown);
    }
    let named = |protocol: &Protocol| content_type.contains(&format!("protocol=\"{}\"", protocol.name()));
    let protocol = [Protocol::Spnego, Protocol::Kerberos].into_iter().find(named);
    Some(protocol.map_or(Announced::Unknown, Announced::Sealed))
}

/// Opens a sealed body.
pub(crate) fn open(body: &[u8], protocol: Protocol, protection: &mut Protection) -> Result<Vec<u8>, SealError> {
    let head = format!(
        "--Encrypted Boundary\r\n\tContent-Type: {}\r\n\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length=",
        protocol.name()
    );
    let rest = body.strip_prefix(head.as_bytes()).ok_or(SealError::Malformed("the first part is not as specified"))?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (length, rest) = rest.split_at(digits);
    let announced = std::str::from_utf8(length)
        .ok()
        .and_then(|text| text.parse::<usize>().ok())
        .ok_or(SealError::Malformed("the length is not a number"))?;
    let rest = rest
        .strip_prefix(b"\r\n--Encrypted Boundary\r\n\tContent-Type: application/octet-stream\r\n")
        .ok_or(SealError::Malformed("the second part is not as specified"))?;
    let data = rest
        .strip_suffix(b"--Encrypted Boundary--\r\n")
        .or_else(|| rest.strip_suffix(b"--Encrypted Boundary--"))
        .ok_or(SealError::Malformed("the closing boundary is missing"))?;
    let (length, data) = data.split_first_chunk().ok_or(SealError::Malformed("the header length is cut"))?;
    if usize::try_from(u32::from_le_bytes(*length)) != Ok(protection.header_length()) {
        return Err(SealError::Malformed("the header does not have the length that the keys give it"));
    }
    let (header, sealed) =
        data.split_at_checked(protection.header_length()).ok_or(SealError::Malformed("the header is cut"))?;
    if sealed.len() != announced {
        return Err(SealError::Length { announced, actual: sealed.len() });
    }
    Ok(protection.unseal(header, sealed)?)
}

/// Seals a body.
pub(crate) fn close(body: Vec<u8>, protocol: Protocol, protection: &mut Protection) -> Result<Vec<u8>, SealError> {
    let length = body.len();
    let (header, data) = protection.seal(body)?;
    let mut sealed = format!(
        "--Encrypted Boundary\r\n\tContent-Type: {}\r\n\tOriginalContent: \
         type=application/soap+xml;charset=UTF-8;Length={length}\r\n--Encrypted Boundary\r\n\tContent-Type: application/octet-stream\r\n",
        protocol.name()
    )
    .into_bytes();
    sealed.reserve(length + 128);
    // The longest header is 72 bytes.
    sealed.extend((header.len() as u32).to_le_bytes());
    sealed.extend(header);
    sealed.extend(data);
    sealed.extend(b"--Encrypted Boundary--\r\n");
    Ok(sealed)
}
