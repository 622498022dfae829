//! KRB-ERROR (RFC 4120 5.9.1) in the frame of a GSS-API token (RFC 4121 4.1): what an acceptor answers to a ticket that is no good.
//!
//! Windows is known to send it where a ticket is for another key (KRB_AP_ERR_MODIFIED in the answers of IIS and SMB servers), inside
//! SPNEGO where the client spoke SPNEGO, and its answer then looks like one more step of the handshake. That WinRM does so too, and
//! with the other numbers, is an assumption.

use krb5::Keytab;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::authentication::der::{GENERAL_STRING, GENERALIZED_TIME, GSS_TOKEN, INTEGER, OID, SEQUENCE, element, field};
use crate::authentication::spnego;

/// Numbers of RFC 4120 7.5.9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorCode {
    TicketExpired = 32,
    Repeat = 34,
    Skew = 37,
    Modified = 41,
}

impl ErrorCode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TicketExpired => "KRB_AP_ERR_TKT_EXPIRED",
            Self::Repeat => "KRB_AP_ERR_REPEAT",
            Self::Skew => "KRB_AP_ERR_SKEW",
            Self::Modified => "KRB_AP_ERR_MODIFIED",
        }
    }
}

/// KRB_ERROR of RFC 4121 4.1.
const TOKEN_ID: [u8; 2] = [3, 0];
/// KRB5_NT_SRV_INST.
const SERVICE_AND_INSTANCE: u8 = 2;

/// The token that says `code`. The host names itself by the first key of its keytab.
pub(crate) fn error_token(code: ErrorCode, keytab: &Keytab) -> Vec<u8> {
    let (realm, name) = keytab.keys().first().map_or(("", ""), |key| (key.realm.as_str(), key.principal.as_str()));
    token(code, realm, name, OffsetDateTime::now_utc())
}

fn token(code: ErrorCode, realm: &str, name: &str, now: OffsetDateTime) -> Vec<u8> {
    let time = now.format(format_description!("[year][month][day][hour][minute][second]Z")).unwrap_or_default();
    let parts: Vec<u8> = name.split('/').flat_map(|part| element(GENERAL_STRING, part.as_bytes())).collect();
    let service = [field(0, INTEGER, &[SERVICE_AND_INSTANCE]), field(1, SEQUENCE, &parts)].concat();
    let error = [
        // Protocol version 5, message type 30.
        field(0, INTEGER, &[5]),
        field(1, INTEGER, &[30]),
        field(4, GENERALIZED_TIME, time.as_bytes()),
        field(5, INTEGER, &digits(now.microsecond())),
        field(6, INTEGER, &[code as u8]),
        field(9, GENERAL_STRING, realm.as_bytes()),
        field(10, SEQUENCE, &service),
    ]
    .concat();
    let error = element(0x7e, &element(SEQUENCE, &error));
    element(GSS_TOKEN, &[element(OID, spnego::KERBEROS), TOKEN_ID.to_vec(), error].concat())
}

/// A positive number in as few bytes as DER wants, the highest bit clear.
fn digits(number: u32) -> Vec<u8> {
    let bytes = [&[0][..], &number.to_be_bytes()].concat();
    let superfluous = bytes.windows(2).take_while(|pair| pair[0] == 0 && pair[1] < 0x80).count();
    bytes[superfluous..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn numbers_are_short_and_positive() {
        for (number, expected) in
            [(0, &[0][..]), (127, &[127]), (128, &[0, 128]), (258, &[1, 2]), (999_999, &[0x0f, 0x42, 0x3f])]
        {
            assert_eq!(digits(number), expected);
        }
    }

    /// Written by hand from the ASN.1 of RFC 4120; MIT's library reads such tokens in `tests/tests/kerberos/clients.rs`.
    #[test]
    fn a_token_is_as_specified() {
        let token = token(ErrorCode::Skew, "R", "HTTP/h", datetime!(2030-01-02 03:04:05.000_258 UTC));
        let mut expected = vec![0x60, 0x54, 0x06, 0x09];
        expected.extend(spnego::KERBEROS);
        expected.extend([0x03, 0x00, 0x7e, 0x45, 0x30, 0x43]);
        expected.extend([0xa0, 0x03, 0x02, 0x01, 0x05, 0xa1, 0x03, 0x02, 0x01, 0x1e, 0xa4, 0x11, 0x18, 0x0f]);
        expected.extend(b"20300102030405Z");
        expected.extend([0xa5, 0x04, 0x02, 0x02, 0x01, 0x02, 0xa6, 0x03, 0x02, 0x01, 0x25]);
        expected.extend([0xa9, 0x03, 0x1b, 0x01, b'R', 0xaa, 0x14, 0x30, 0x12, 0xa0, 0x03, 0x02, 0x01, 0x02]);
        expected.extend([0xa1, 0x0b, 0x30, 0x09, 0x1b, 0x04]);
        expected.extend(b"HTTP");
        expected.extend([0x1b, 0x01, b'h']);
        assert_eq!(token, expected);
    }
}
