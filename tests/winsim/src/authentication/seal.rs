//! Sealed bodies: `multipart/encrypted` of [MS-WSMV] 2.2.9.1 around one NTLM message.
//!
//! Sans I/O. Parsed by position and length; the boundary is never searched for inside ciphertext.

use super::ntlm::Sealing;

/// The protocol of messages sealed after the `Negotiate` header.
pub(crate) const PROTOCOL: &str = "application/HTTP-SPNEGO-session-encrypted";

/// Why a sealed body was not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnsealError {
    #[error("malformed sealed body: {0}")]
    Malformed(&'static str),
    #[error("sealed body: {0}")]
    NotAuthentic(#[from] super::ntlm::NotAuthentic),
    #[error("the sealed body has {actual} bytes instead of the {announced} it announces")]
    Length { announced: usize, actual: usize },
}

/// The Content-Type of a sealed response.
pub(crate) fn content_type() -> String {
    format!("multipart/encrypted;protocol=\"{PROTOCOL}\";boundary=\"Encrypted Boundary\"")
}

/// Whether a Content-Type announces a sealed body, and if so whether it is one that this host can open.
pub(crate) fn announced(content_type: &str) -> Option<bool> {
    let lower = content_type.to_ascii_lowercase();
    lower.starts_with("multipart/").then(|| {
        lower.starts_with("multipart/encrypted")
            && content_type.contains(&format!("protocol=\"{PROTOCOL}\""))
            && content_type.contains("boundary=\"Encrypted Boundary\"")
    })
}

/// Opens a sealed body.
pub(crate) fn open(body: &[u8], sealing: &mut Sealing) -> Result<Vec<u8>, UnsealError> {
    let head = format!(
        "--Encrypted Boundary\r\n\tContent-Type: {PROTOCOL}\r\n\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length="
    );
    let rest =
        body.strip_prefix(head.as_bytes()).ok_or(UnsealError::Malformed("the first part is not as specified"))?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (length, rest) = rest.split_at(digits);
    let announced = std::str::from_utf8(length)
        .ok()
        .and_then(|text| text.parse::<usize>().ok())
        .ok_or(UnsealError::Malformed("the length is not a number"))?;
    let rest = rest
        .strip_prefix(b"\r\n--Encrypted Boundary\r\n\tContent-Type: application/octet-stream\r\n")
        .ok_or(UnsealError::Malformed("the second part is not as specified"))?;
    let data = rest
        .strip_suffix(b"--Encrypted Boundary--\r\n")
        .or_else(|| rest.strip_suffix(b"--Encrypted Boundary--"))
        .ok_or(UnsealError::Malformed("the closing boundary is missing"))?;
    let [16, 0, 0, 0, data @ ..] = data else {
        return Err(UnsealError::Malformed("the header length is not 16"));
    };
    let (signature, sealed) = data.split_at_checked(16).ok_or(UnsealError::Malformed("the signature is cut"))?;
    if sealed.len() != announced {
        return Err(UnsealError::Length { announced, actual: sealed.len() });
    }
    let mut message = sealed.to_vec();
    sealing.unseal(signature, &mut message)?;
    Ok(message)
}

/// Seals a body.
pub(crate) fn close(mut body: Vec<u8>, sealing: &mut Sealing) -> Vec<u8> {
    let length = body.len();
    let signature = sealing.seal(&mut body);
    let mut sealed = format!(
        "--Encrypted Boundary\r\n\tContent-Type: {PROTOCOL}\r\n\tOriginalContent: \
         type=application/soap+xml;charset=UTF-8;Length={length}\r\n--Encrypted Boundary\r\n\tContent-Type: application/octet-stream\r\n"
    )
    .into_bytes();
    sealed.reserve(length + 64);
    sealed.extend(16u32.to_le_bytes());
    sealed.extend(signature);
    sealed.extend(body);
    sealed.extend(b"--Encrypted Boundary--\r\n");
    sealed
}
