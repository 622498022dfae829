//! The little of SPNEGO (RFC 4178) that carries NTLM: a DER reader and writer for NegTokenInit and NegTokenResp.
//!
//! Sans I/O. Only definite lengths; only what an acceptor that knows the one mechanism NTLM needs.

/// 1.3.6.1.4.1.311.2.2.10, encoded.
const NTLM: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x02, 0x0a];
/// 1.3.6.1.5.5.2, encoded.
const SPNEGO: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x02];

const SEQUENCE: u8 = 0x30;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const ENUMERATED: u8 = 0x0a;

/// A token of the client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    Init {
        /// The DER of the list of mechanisms: what mechListMIC is computed over.
        mechanisms: &'a [u8],
        /// Whether NTLM is in the list, and whether it is the first.
        ntlm: Option<Preference>,
        token: Option<&'a [u8]>,
    },
    Response {
        token: Option<&'a [u8]>,
        mechanism_list_mic: Option<&'a [u8]>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preference {
    First,
    Later,
}

#[derive(Debug, thiserror::Error)]
#[error("malformed SPNEGO token")]
pub(crate) struct Malformed;

/// `negState` of the server's answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum State {
    Completed = 0,
    Incomplete = 1,
}

impl<'a> Token<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        match bytes.first() {
            Some(0x60) => {
                let content = whole(bytes, 0x60)?;
                let (oid, rest) = take(content, OID)?;
                if oid != SPNEGO {
                    return Err(Malformed);
                }
                let fields = whole(whole(rest, 0xa0)?, SEQUENCE)?;
                let mechanisms = context(fields, 0)?.ok_or(Malformed)?;
                let mut list = whole(mechanisms, SEQUENCE)?;
                let mut ntlm = None;
                let mut first = true;
                while !list.is_empty() {
                    let (oid, rest) = take(list, OID)?;
                    if oid == NTLM && ntlm.is_none() {
                        ntlm = Some(if first { Preference::First } else { Preference::Later });
                    }
                    (list, first) = (rest, false);
                }
                Ok(Self::Init { mechanisms, ntlm, token: octets(fields, 2)? })
            }
            Some(0xa1) => {
                let fields = whole(whole(bytes, 0xa1)?, SEQUENCE)?;
                Ok(Self::Response { token: octets(fields, 2)?, mechanism_list_mic: octets(fields, 3)? })
            }
            _ => Err(Malformed),
        }
    }
}

/// A NegTokenResp of the server. The mechanism is named in the first answer only.
pub(crate) fn response(state: State, first: bool, token: Option<&[u8]>, mechanism_list_mic: Option<&[u8]>) -> Vec<u8> {
    let mut fields = element(0xa0, &element(ENUMERATED, &[state as u8]));
    if first {
        fields.extend(element(0xa1, &element(OID, NTLM)));
    }
    if let Some(token) = token {
        fields.extend(element(0xa2, &element(OCTETS, token)));
    }
    if let Some(mic) = mechanism_list_mic {
        fields.extend(element(0xa3, &element(OCTETS, mic)));
    }
    element(0xa1, &element(SEQUENCE, &fields))
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
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

/// The content of the element that starts here, and what follows it.
fn take(bytes: &[u8], tag: u8) -> Result<(&[u8], &[u8]), Malformed> {
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

fn whole(bytes: &[u8], tag: u8) -> Result<&[u8], Malformed> {
    match take(bytes, tag)? {
        (content, []) => Ok(content),
        _ => Err(Malformed),
    }
}

/// The content of the field with a context tag, if it is there.
fn context(mut fields: &[u8], number: u8) -> Result<Option<&[u8]>, Malformed> {
    while let Some(tag) = fields.first() {
        let (content, rest) = take(fields, *tag)?;
        if *tag == 0xa0 | number {
            return Ok(Some(content));
        }
        fields = rest;
    }
    Ok(None)
}

fn octets(fields: &[u8], number: u8) -> Result<Option<&[u8]>, Malformed> {
    context(fields, number)?.map(|content| whole(content, OCTETS)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A NegTokenInit as pyspnego 0.12 writes it for NTLM alone, the mechanism token shortened.
    #[test]
    fn an_init_token_is_read() {
        let list = element(SEQUENCE, &element(OID, NTLM));
        let fields = [element(0xa0, &list), element(0xa2, &element(OCTETS, b"NTLMSSP"))].concat();
        let bytes = element(0x60, &[element(OID, SPNEGO), element(0xa0, &element(SEQUENCE, &fields))].concat());
        assert_eq!(
            Token::parse(&bytes).expect("valid"),
            Token::Init { mechanisms: &list, ntlm: Some(Preference::First), token: Some(b"NTLMSSP") }
        );
        for length in 0..bytes.len() {
            assert!(Token::parse(&bytes[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_response_reads_back() {
        let long = vec![7; 300];
        let bytes = response(State::Incomplete, true, Some(&long), Some(&[1, 2]));
        assert_eq!(
            Token::parse(&bytes).expect("valid"),
            Token::Response { token: Some(&long), mechanism_list_mic: Some(&[1, 2]) }
        );
    }
}
