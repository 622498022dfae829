//! The little of SPNEGO (RFC 4178) that carries NTLM and Kerberos: NegTokenInit and NegTokenResp, and the choice of a mechanism.
//!
//! Sans I/O. Only what an acceptor needs; nothing here knows the mechanisms' own tokens.

use super::der::{
    ENUMERATED, GSS_TOKEN, Malformed, OCTETS, OID, SEQUENCE, context, element, field, octets, take, whole,
};

/// 1.3.6.1.4.1.311.2.2.10, encoded.
const NTLM: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x02, 0x0a];
/// 1.3.6.1.5.5.2, encoded.
const SPNEGO: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x02];
/// 1.2.840.113554.1.2.2, encoded.
pub(crate) const KERBEROS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 0x01, 0x02, 0x02];
/// 1.2.840.48018.1.2.2, encoded: Kerberos by the number that Windows 2000 got wrong and that Windows still names first.
pub(crate) const KERBEROS_OF_WINDOWS: &[u8] = &[0x2a, 0x86, 0x48, 0x82, 0xf7, 0x12, 0x01, 0x02, 0x02];

/// A token of the client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    Init {
        /// The DER of the list of mechanisms: what mechListMIC is computed over.
        mechanisms: &'a [u8],
        /// The OIDs in the list, the client's favourite first.
        offered: Vec<&'a [u8]>,
        token: Option<&'a [u8]>,
    },
    Response {
        token: Option<&'a [u8]>,
        mechanism_list_mic: Option<&'a [u8]>,
    },
}

/// A mechanism that this host knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    Ntlm,
    Kerberos,
}

/// What was chosen from the client's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice<'a> {
    pub(crate) mechanism: Mechanism,
    /// As the client spells it.
    pub(crate) oid: &'a [u8],
    /// Whether it is the client's favourite: then its first token is for it, and the list needs no protection.
    pub(crate) favourite: bool,
}

/// `negState` of the server's answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum State {
    Completed = 0,
    Incomplete = 1,
}

impl<'a> Token<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        match bytes.first() {
            Some(&GSS_TOKEN) => {
                let content = whole(bytes, GSS_TOKEN)?;
                let (oid, rest) = take(content, OID)?;
                if oid != SPNEGO {
                    return Err(Malformed);
                }
                let fields = whole(whole(rest, 0xa0)?, SEQUENCE)?;
                let mechanisms = context(fields, 0)?.ok_or(Malformed)?;
                let mut list = whole(mechanisms, SEQUENCE)?;
                let mut offered = Vec::new();
                while !list.is_empty() {
                    let (oid, rest) = take(list, OID)?;
                    offered.push(oid);
                    list = rest;
                }
                Ok(Self::Init { mechanisms, offered, token: octets(fields, 2)? })
            }
            Some(0xa1) => {
                let fields = whole(whole(bytes, 0xa1)?, SEQUENCE)?;
                Ok(Self::Response { token: octets(fields, 2)?, mechanism_list_mic: octets(fields, 3)? })
            }
            _ => Err(Malformed),
        }
    }
}

/// The client's first mechanism that this host accepts.
pub(crate) fn choose<'a>(offered: &[&'a [u8]], accepts: impl Fn(Mechanism) -> bool) -> Option<Choice<'a>> {
    offered.iter().enumerate().find_map(|(index, oid)| {
        let mechanism = match *oid {
            NTLM => Mechanism::Ntlm,
            KERBEROS | KERBEROS_OF_WINDOWS => Mechanism::Kerberos,
            _ => return None,
        };
        accepts(mechanism).then_some(Choice { mechanism, oid, favourite: index == 0 })
    })
}

/// Whether a token is one of Kerberos itself, without SPNEGO around it.
pub(crate) fn is_raw_kerberos(token: &[u8]) -> bool {
    whole(token, GSS_TOKEN)
        .and_then(|content| take(content, OID))
        .is_ok_and(|(oid, _)| matches!(oid, KERBEROS | KERBEROS_OF_WINDOWS))
}

/// A NegTokenResp of the server. The mechanism is named in the first answer only.
pub(crate) fn response(
    state: State,
    chosen: Option<&[u8]>,
    token: Option<&[u8]>,
    mechanism_list_mic: Option<&[u8]>,
) -> Vec<u8> {
    let mut fields = field(0, ENUMERATED, &[state as u8]);
    if let Some(oid) = chosen {
        fields.extend(field(1, OID, oid));
    }
    if let Some(token) = token {
        fields.extend(field(2, OCTETS, token));
    }
    if let Some(mic) = mechanism_list_mic {
        fields.extend(field(3, OCTETS, mic));
    }
    element(0xa1, &element(SEQUENCE, &fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A NegTokenInit as pyspnego 0.12 writes it, the mechanism token shortened.
    #[test]
    fn an_init_token_is_read() {
        let list = element(SEQUENCE, &[element(OID, KERBEROS_OF_WINDOWS), element(OID, NTLM)].concat());
        let fields = [element(0xa0, &list), field(2, OCTETS, b"NTLMSSP")].concat();
        let bytes = element(GSS_TOKEN, &[element(OID, SPNEGO), element(0xa0, &element(SEQUENCE, &fields))].concat());
        let offered = vec![KERBEROS_OF_WINDOWS, NTLM];
        assert_eq!(
            Token::parse(&bytes).expect("valid"),
            Token::Init { mechanisms: &list, offered, token: Some(b"NTLMSSP") }
        );
        for length in 0..bytes.len() {
            assert!(Token::parse(&bytes[..length]).is_err(), "cut at {length}");
        }
        assert!(!is_raw_kerberos(&bytes));
    }

    #[test]
    fn a_response_reads_back() {
        let long = vec![7; 300];
        let bytes = response(State::Incomplete, Some(NTLM), Some(&long), Some(&[1, 2]));
        assert_eq!(
            Token::parse(&bytes).expect("valid"),
            Token::Response { token: Some(&long), mechanism_list_mic: Some(&[1, 2]) }
        );
    }

    #[test]
    fn the_clients_order_decides() {
        let unknown: &[u8] = &[0x2a, 0x03];
        let kerberos = |favourite| Some(Choice { mechanism: Mechanism::Kerberos, oid: KERBEROS, favourite });
        let ntlm = |favourite| Some(Choice { mechanism: Mechanism::Ntlm, oid: NTLM, favourite });
        assert_eq!(choose(&[KERBEROS, NTLM], |_| true), kerberos(true));
        assert_eq!(choose(&[NTLM, KERBEROS], |_| true), ntlm(true));
        assert_eq!(choose(&[unknown, KERBEROS, NTLM], |_| true), kerberos(false));
        assert_eq!(choose(&[KERBEROS, NTLM], |mechanism| mechanism == Mechanism::Ntlm), ntlm(false));
        assert_eq!(choose(&[unknown], |_| true), None);
    }
}
