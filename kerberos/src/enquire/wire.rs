//! The question (RFC 4120 5.4.1) and the answers to it (5.4.2, 5.9.1; [MS-KILE] 2.2.1).

use krb5::Principal;

use super::der::{self, Reader, application, context, of, read_integer, value};
use crate::error::catalogue::clean;
use crate::keytab::Recipe;

pub(super) const RESPONSE_TOO_BIG: i32 = 52;

/// How many keys of an answer are read. There are six encryption types altogether.
const MAX_KEYS: usize = 16;
/// Longest salt: a realm and a name.
const MAX_SALT: usize = 1024;
/// How many pieces of e-data are looked at.
const MAX_PIECES: usize = 64;

const AS_REP: u8 = application(11);
const KRB_ERROR: u8 = application(30);
const PA_ETYPE_INFO2: i64 = 19;
/// [MS-KILE] 2.2.2: the type of KERB-ERROR-DATA that holds a KERB-EXT-ERROR. As a kind of PA-DATA the same number is PA-PW-SALT.
const KERB_EXTENDED: i64 = 3;

/// Why an answer is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the KDC's answer is malformed: {0}")]
pub struct Malformed(pub(super) &'static str);

/// What a KDC said to a login that proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply {
    /// Its error (RFC 4120 7.5.9), 25 when it wants pre-authentication; none when it gave a ticket at once.
    pub code: Option<i32>,
    /// How many seconds its clock is ahead of ours.
    pub ahead: Option<i64>,
    /// Active Directory's NTSTATUS.
    pub status: Option<u32>,
    /// What it says in words.
    pub text: Option<String>,
    /// The keys it would take, in its order.
    pub keys: Vec<Salted>,
    /// The kinds of pre-authentication data it sent (RFC 4120 5.2.7), in its order; which of them it would take is among them.
    pub offered: Vec<i64>,
}

/// An encryption type and how a password becomes a key of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salted {
    /// The encryption type.
    pub enctype: i32,
    /// The salt; none when it is the usual one, of realm and name.
    pub salt: Option<Vec<u8>>,
    /// Parameters of the derivation, for AES the number of iterations.
    pub parameters: Option<Vec<u8>>,
}

impl Reply {
    /// Reads an answer that came at `received` (seconds since 1970, by our clock).
    ///
    /// # Errors
    /// When it is neither an error nor a ticket.
    pub fn parse(bytes: &[u8], received: i64) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let (tag, content) = reader.next()?.ok_or(Malformed("it is empty"))?;
        let mut fields = Reader::new(Reader::new(content).expect(der::SEQUENCE)?);
        match tag {
            KRB_ERROR => Self::of_error(&mut fields, received),
            AS_REP => Self::of_ticket(&mut fields),
            _ => Err(Malformed("it is neither an error nor a ticket")),
        }
    }

    fn of_error(fields: &mut Reader<'_>, received: i64) -> Result<Self, Malformed> {
        let mut reply = Self::default();
        let mut code = None;
        while let Some((tag, content)) = fields.next()? {
            let mut inner = Reader::new(content);
            if tag == context(4) {
                let kdc = unix_time(inner.expect(der::GENERALIZED_TIME)?)?;
                reply.ahead = Some(kdc.saturating_sub(received));
            } else if tag == context(6) {
                let number = read_integer(inner.expect(der::INTEGER)?)?;
                code = Some(i32::try_from(number).map_err(|_| Malformed("an error number out of bounds"))?);
            } else if tag == context(11) {
                let text = inner.expect(der::GENERAL_STRING)?;
                // MIT's KDC ends its texts with a NUL.
                let text = String::from_utf8_lossy(text).trim_end_matches('\0').to_owned();
                reply.text = Some(clean(&text)).filter(|text| !text.is_empty());
            } else if tag == context(12) {
                // What cannot be read in there says nothing; the error itself stands.
                let _ = reply.read_data(inner.expect(der::OCTET_STRING)?);
            }
        }
        reply.code = Some(code.ok_or(Malformed("an error without a number"))?);
        Ok(reply)
    }

    /// An account that needs no pre-authentication gets a ticket at once; beside it stands its salt.
    fn of_ticket(fields: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut reply = Self::default();
        let mut ticket = false;
        while let Some((tag, content)) = fields.next()? {
            if tag == context(2) {
                let _ = reply.read_data(content);
            }
            ticket |= tag == context(5);
        }
        if ticket { Ok(reply) } else { Err(Malformed("a ticket is missing")) }
    }

    /// e-data: METHOD-DATA (a sequence of PA-DATA), or one KERB-ERROR-DATA, whose form is that of one PA-DATA. Samba sends the same
    /// inside a sequence.
    fn read_data(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let content = Reader::new(bytes).expect(der::SEQUENCE)?;
        if content.first() == Some(&der::SEQUENCE) {
            let mut pieces = Reader::new(content);
            let mut count = 0;
            while let Some((tag, piece)) = pieces.next()? {
                count += 1;
                if tag != der::SEQUENCE || count > MAX_PIECES {
                    return Err(Malformed("e-data of another kind than expected"));
                }
                self.read_piece(piece)?;
            }
            Ok(())
        } else {
            self.read_piece(content)
        }
    }

    fn read_piece(&mut self, piece: &[u8]) -> Result<(), Malformed> {
        let mut fields = Reader::new(piece);
        let kind = read_integer(Reader::new(fields.expect(context(1))?).expect(der::INTEGER)?)?;
        let Some((tag, content)) = fields.next()? else { return Ok(()) };
        if tag != context(2) {
            return Err(Malformed("e-data of another kind than expected"));
        }
        let content = Reader::new(content).expect(der::OCTET_STRING)?;
        if self.offered.len() < MAX_PIECES {
            self.offered.push(kind);
        }
        match kind {
            PA_ETYPE_INFO2 => self.keys = keys(content)?,
            // KERB-EXT-ERROR: status, reserved, flags, little-endian. A salt of such bytes is nobody's.
            KERB_EXTENDED => {
                if let (Some(status), 12) = (content.first_chunk::<4>(), content.len()) {
                    self.status = Some(u32::from_le_bytes(*status)).filter(|status| status >> 30 == 3);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The salt as people can read it, when it is text and there is one.
    pub(crate) fn salt_text(&self) -> Option<String> {
        let salt = self.keys.iter().find_map(|key| key.salt.as_deref())?;
        std::str::from_utf8(salt).ok().map(clean).filter(|text| !text.is_empty())
    }
}

impl Salted {
    /// For making a key of the principal's password; nothing for types that no key is made of here.
    pub(super) fn recipe(&self, principal: &Principal) -> Option<Recipe> {
        let parameters = match &self.parameters {
            None => None,
            // Others than four bytes are none of the types below.
            Some(bytes) => Some(bytes.as_slice().try_into().ok()?),
        };
        (17..=20).contains(&self.enctype).then(|| Recipe {
            enctype: self.enctype,
            salt: self.salt.clone().unwrap_or_else(|| principal.default_salt()),
            parameters,
        })
    }
}

fn keys(bytes: &[u8]) -> Result<Vec<Salted>, Malformed> {
    let mut entries = Reader::new(Reader::new(bytes).expect(der::SEQUENCE)?);
    let mut keys = Vec::new();
    while let Some((tag, entry)) = entries.next()? {
        if tag != der::SEQUENCE || keys.len() >= MAX_KEYS {
            return Err(Malformed("a list of keys of another kind than expected"));
        }
        let mut fields = Reader::new(entry);
        let enctype = read_integer(Reader::new(fields.expect(context(0))?).expect(der::INTEGER)?)?;
        let mut key = Salted {
            enctype: i32::try_from(enctype).map_err(|_| Malformed("an encryption type out of bounds"))?,
            salt: None,
            parameters: None,
        };
        while let Some((tag, content)) = fields.next()? {
            let mut inner = Reader::new(content);
            if tag == context(1) {
                let salt = inner.expect(der::GENERAL_STRING)?;
                if salt.len() > MAX_SALT {
                    return Err(Malformed("a salt that is too long"));
                }
                key.salt = Some(salt.to_vec());
            } else if tag == context(2) {
                key.parameters = Some(inner.expect(der::OCTET_STRING)?.to_vec()).filter(|bytes| bytes.len() <= 16);
            }
        }
        keys.push(key);
    }
    Ok(keys)
}

/// An AS-REQ without pre-authentication for a ticket-granting ticket.
pub(super) fn as_req(client: &Principal, enctypes: &[i32], nonce: u32, now: i64) -> Vec<u8> {
    let string = |text: &str| value(der::GENERAL_STRING, text.as_bytes());
    let name = |kind: i32, components: &[&str]| {
        let strings: Vec<Vec<u8>> = components.iter().map(|component| string(component)).collect();
        of(
            der::SEQUENCE,
            &[of(context(0), &[der::integer(i64::from(kind))]), of(context(1), &[of(der::SEQUENCE, &strings)])],
        )
    };
    let components: Vec<&str> = client.components.iter().map(String::as_str).collect();
    let enctypes: Vec<Vec<u8>> = enctypes.iter().map(|enctype| der::integer(i64::from(*enctype))).collect();
    let body = of(
        der::SEQUENCE,
        &[
            of(context(0), &[value(der::BIT_STRING, &[0; 5])]),
            of(context(1), &[name(client.name_type, &components)]),
            of(context(2), &[string(&client.realm)]),
            of(context(3), &[name(2, &["krbtgt", &client.realm])]),
            of(context(5), &[value(der::GENERALIZED_TIME, kerberos_time(now.saturating_add(600)).as_bytes())]),
            of(context(7), &[der::integer(i64::from(nonce))]),
            of(context(8), &[of(der::SEQUENCE, &enctypes)]),
        ],
    );
    let request = of(
        der::SEQUENCE,
        &[of(context(1), &[der::integer(5)]), of(context(2), &[der::integer(10)]), of(context(4), &[body])],
    );
    value(application(10), &request)
}

/// `YYYYMMDDHHMMSSZ`, RFC 4120 5.2.3.
fn kerberos_time(unix: i64) -> String {
    let (days, second) = (unix.div_euclid(86_400), unix.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    format!("{year:04}{month:02}{day:02}{:02}{:02}{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

fn unix_time(content: &[u8]) -> Result<i64, Malformed> {
    let bad = Malformed("a time that is none");
    let text: &[u8; 15] = content.try_into().map_err(|_| bad)?;
    let (digits, zone) = text.split_at(14);
    if zone != b"Z" || !digits.iter().all(u8::is_ascii_digit) {
        return Err(bad);
    }
    let number = |from: usize, to: usize| {
        digits
            .get(from..to)
            .unwrap_or_default()
            .iter()
            .fold(0_i64, |number, digit| number * 10 + i64::from(digit - b'0'))
    };
    let (year, month, day) = (number(0, 4), number(4, 6), number(6, 8));
    let (hour, minute, second) = (number(8, 10), number(10, 12), number(12, 14));
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return Err(bad);
    }
    Ok(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years begin in March, so that the odd day comes last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day
        - 1
        - 719_468
}

/// The date so many days after 1970-01-01.
fn civil(since: i64) -> (i64, i64, i64) {
    // A year too many is put right by counting down; one is enough, since 365.2425 days are a year on average.
    let mut year = (since + 719_468).div_euclid(365) + 1;
    while days(year, 3, 1) > since {
        year -= 1;
    }
    let day_of_year = since - days(year, 3, 1);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

#[cfg(test)]
mod tests;
