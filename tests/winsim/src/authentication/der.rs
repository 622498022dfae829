//! The little DER that SPNEGO and Kerberos' errors need: elements with definite lengths, read and written.
//!
//! Sans I/O. Reading never goes beyond the bytes given and never fails in another way than [`Malformed`].

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const OCTETS: u8 = 0x04;
pub(crate) const OID: u8 = 0x06;
pub(crate) const ENUMERATED: u8 = 0x0a;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const GENERAL_STRING: u8 = 0x1b;
pub(crate) const SEQUENCE: u8 = 0x30;
/// `[APPLICATION 0]`, the frame of a first GSS-API token (RFC 2743 3.1).
pub(crate) const GSS_TOKEN: u8 = 0x60;

#[derive(Debug, thiserror::Error)]
#[error("malformed DER")]
pub(crate) struct Malformed;

/// Writes one element.
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match content.len() {
        length @ 0..=0x7f => bytes.push(length as u8),
        length => {
            let digits: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
            bytes.push(0x80 | digits.len() as u8);
            bytes.extend(digits);
        }
    }
    bytes.extend(content);
    bytes
}

/// Writes a field with a context tag around an element.
pub(crate) fn field(number: u8, tag: u8, content: &[u8]) -> Vec<u8> {
    element(0xa0 | number, &element(tag, content))
}

/// The content of the element that starts here, and what follows it.
pub(crate) fn take(bytes: &[u8], tag: u8) -> Result<(&[u8], &[u8]), Malformed> {
    let [own, first, rest @ ..] = bytes else { return Err(Malformed) };
    if *own != tag {
        return Err(Malformed);
    }
    let (length, rest) = match *first {
        length @ 0..=0x7f => (usize::from(length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f)).ok_or(Malformed)?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return Err(Malformed),
    };
    rest.split_at_checked(length).ok_or(Malformed)
}

/// The content of the one element that the bytes are.
pub(crate) fn whole(bytes: &[u8], tag: u8) -> Result<&[u8], Malformed> {
    match take(bytes, tag)? {
        (content, []) => Ok(content),
        _ => Err(Malformed),
    }
}

/// The content of the field with a context tag, if it is there.
pub(crate) fn context(mut fields: &[u8], number: u8) -> Result<Option<&[u8]>, Malformed> {
    while let Some(tag) = fields.first() {
        let (content, rest) = take(fields, *tag)?;
        if *tag == 0xa0 | number {
            return Ok(Some(content));
        }
        fields = rest;
    }
    Ok(None)
}

/// The octet string in the field with a context tag, if it is there.
pub(crate) fn octets(fields: &[u8], number: u8) -> Result<Option<&[u8]>, Malformed> {
    context(fields, number)?.map(|content| whole(content, OCTETS)).transpose()
}
