//! What an acceptor says when it does not take a ticket: a KRB-ERROR ([RFC 4120], 5.9.1), bare, framed as a GSS token or inside
//! SPNEGO ([RFC 4178], 4.2.2), or an SPNEGO answer that rejects or chooses another mechanism.
//!
//! Anybody can say it, so it ends up in error texts and nowhere else. Every length is checked, and nothing recurses deeper
//! than the protocol does.
//!
//! [RFC 4120]: https://www.rfc-editor.org/rfc/rfc4120
//! [RFC 4178]: https://www.rfc-editor.org/rfc/rfc4178

use std::time::{SystemTime, UNIX_EPOCH};

use crate::auth::ContextError;
use crate::error::Refusal;

/// Fails with what `token` says, when it refuses. Whatever else it is, others judge.
pub(super) fn check(token: &[u8]) -> Result<(), ContextError> {
    match find(token, 0) {
        Some(found) => Err(ContextError::Refused(found)),
        None => Ok(()),
    }
}

/// What a code of RFC 4120, 7.5.9, means for a ticket. `ahead` is by how many seconds the host's clock is ahead of ours.
pub(super) fn of(code: i32, ahead: Option<i64>, text: Option<String>) -> Refusal {
    match code {
        37 => Refusal::ClockSkew { ahead },
        // Its key does not open the ticket; MODIFIED is what Windows says, the others are MIT's and Heimdal's.
        31 | 41 | 44 | 45 => Refusal::WrongKey,
        32 => Refusal::Expired,
        33 => Refusal::NotYetValid,
        34 => Refusal::Replayed,
        code => Refusal::Other { code, text: text.map(shown) },
    }
}

fn find(token: &[u8], depth: u8) -> Option<Refusal> {
    let (tag, content, _) = element(token)?;
    match tag {
        KRB_ERROR => krb_error(content),
        FRAMED if depth < 2 => {
            let (OID, oid, rest) = element(content)? else { return None };
            match rest.split_first_chunk::<2>() {
                Some((&TOK_ERROR, error)) if KERBEROS.contains(&oid) => find(error, 2),
                // Old acceptors frame their SPNEGO answers.
                _ if oid == SPNEGO => find(rest, depth + 1),
                _ => None,
            }
        }
        NEG_TOKEN_RESP if depth < 2 => neg_token_resp(content, depth),
        _ => None,
    }
}

fn neg_token_resp(content: &[u8], depth: u8) -> Option<Refusal> {
    let (SEQUENCE, fields, _) = element(content)? else { return None };
    let (mut state, mut mechanism, mut inner) = (None, None, None);
    for (tag, content) in Elements(fields).take(MOST_FIELDS) {
        let value = element(content);
        match (tag, value) {
            (0xa0, Some((ENUMERATED, &[value], _))) => state = Some(value),
            (0xa1, Some((OID, oid, _))) => mechanism = Some(oid),
            (0xa2, Some((OCTETS, token, _))) => inner = find(token, depth + 1),
            _ => {}
        }
    }
    if inner.is_some() {
        return inner;
    }
    match (state, mechanism) {
        (_, Some(oid)) if !KERBEROS.contains(&oid) => Some(Refusal::OtherMechanism),
        (Some(REJECT), _) => Some(Refusal::Unsaid),
        _ => None,
    }
}

fn krb_error(content: &[u8]) -> Option<Refusal> {
    let (SEQUENCE, fields, _) = element(content)? else { return None };
    let (mut time, mut code, mut text) = (None, None, None);
    for (tag, content) in Elements(fields).take(MOST_FIELDS) {
        match (tag, element(content)) {
            (0xa4, Some((TIME, value, _))) => time = seconds(value),
            (0xa6, Some((INTEGER, value, _))) => code = integer(value),
            (0xab, Some((GENERAL_STRING, value, _))) => text = Some(String::from_utf8_lossy(value).into_owned()),
            _ => {}
        }
    }
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|now| i64::try_from(now.as_secs()).ok());
    let ahead = time.zip(ours).map(|(theirs, ours)| theirs - ours);
    Some(of(code?, ahead, text))
}

/// A text of the host's for people: short, and on one line.
fn shown(text: String) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn integer(value: &[u8]) -> Option<i32> {
    let (first, rest) = value.split_first()?;
    let start = i32::from(i8::from_be_bytes([*first]));
    if rest.len() > 3 { None } else { Some(rest.iter().fold(start, |sum, byte| (sum << 8) | i32::from(*byte))) }
}

/// `YYYYMMDDhhmmssZ`, in seconds since 1970.
fn seconds(value: &[u8]) -> Option<i64> {
    let digits = value.strip_suffix(b"Z").filter(|digits| digits.len() == 14)?;
    let number = |at: usize, length: usize| {
        digits
            .get(at..at + length)?
            .iter()
            .try_fold(0, |sum: i64, digit| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0')))
    };
    let (year, month, day) = (number(0, 4)?, number(4, 2)?, number(6, 2)?);
    if !(1..=12).contains(&month) {
        return None;
    }
    // Days since 1970 in the Gregorian calendar, with years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day
            - 1
            - 719_468;
    Some(((days * 24 + number(8, 2)?) * 60 + number(10, 2)?) * 60 + number(12, 2)?)
}

/// The first DER element: its tag, its content, and what follows.
fn element(data: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = data.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        length @ 0..=0x7f => (usize::from(length), rest),
        // Tokens stay far below 16 MiB.
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// Elements one after the other, up to the first that is none.
struct Elements<'a>(&'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (tag, content, rest) = element(self.0)?;
        self.0 = rest;
        Some((tag, content))
    }
}

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const ENUMERATED: u8 = 0x0a;
const TIME: u8 = 0x18;
const GENERAL_STRING: u8 = 0x1b;
const SEQUENCE: u8 = 0x30;
const FRAMED: u8 = 0x60;
const KRB_ERROR: u8 = 0x7e;
const NEG_TOKEN_RESP: u8 = 0xa1;
const REJECT: u8 = 2;
const TOK_ERROR: [u8; 2] = [3, 0];
const SPNEGO: &[u8] = &[0x2b, 6, 1, 5, 5, 2];
/// 1.2.840.113554.1.2.2, and 1.2.840.48018.1.2.2, by which Windows names it.
const KERBEROS: [&[u8]; 2] =
    [&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 1, 2, 2], &[0x2a, 0x86, 0x48, 0x82, 0xf7, 0x12, 1, 2, 2]];
/// KRB-ERROR has thirteen.
const MOST_FIELDS: usize = 16;
