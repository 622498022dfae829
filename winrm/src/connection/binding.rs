//! The channel binding `tls-server-end-point` ([RFC 5929], section 4.1): a digest of the server's certificate.
//!
//! The digest is that of the certificate's own signature, with SHA-256 instead of MD5 and SHA-1. Signatures without one
//! (Ed25519, Ed448) have no binding. RSA-PSS names its digest in its parameters, which OpenSSL shows only in C: they are
//! read from the certificate itself.
//!
//! [RFC 5929]: https://www.rfc-editor.org/rfc/rfc5929

use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::x509::X509Ref;

/// The application data of the binding, or nothing when none is defined for such a certificate.
pub(super) fn tls_server_end_point(certificate: &X509Ref) -> Option<Vec<u8>> {
    let digest = certificate.digest(digest(certificate)?).ok()?;
    Some([b"tls-server-end-point:", &*digest].concat())
}

fn digest(certificate: &X509Ref) -> Option<MessageDigest> {
    let signature = certificate.signature_algorithm().object().nid();
    let digest = if signature == Nid::RSASSAPSS {
        pss_digest(&certificate.to_der().ok()?)?
    } else {
        signature.signature_algorithms()?.digest
    };
    match digest {
        Nid::UNDEF => None,
        Nid::MD5 | Nid::SHA1 => Some(MessageDigest::sha256()),
        digest => MessageDigest::from_nid(digest),
    }
}

/// The digest in RSASSA-PSS-params (RFC 4055): `SEQUENCE { [0] SEQUENCE { OID .. } .. }`, SHA-1 when it is left out.
fn pss_digest(certificate: &[u8]) -> Option<Nid> {
    let (SEQUENCE, certificate, _) = element(certificate)? else { return None };
    let (SEQUENCE, _to_be_signed, rest) = element(certificate)? else { return None };
    let (SEQUENCE, algorithm, _) = element(rest)? else { return None };
    let (OBJECT_IDENTIFIER, _pss, parameters) = element(algorithm)? else { return None };
    if parameters.is_empty() {
        return Some(Nid::SHA1);
    }
    let (SEQUENCE, parameters, _) = element(parameters)? else { return None };
    let Some((CONTEXT_0, hash, _)) = element(parameters) else { return Some(Nid::SHA1) };
    let (SEQUENCE, hash, _) = element(hash)? else { return None };
    let (OBJECT_IDENTIFIER, hash, _) = element(hash)? else { return None };
    match hash {
        [0x2b, 0x0e, 0x03, 0x02, 0x1a] => Some(Nid::SHA1),
        [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, last] => match last {
            1 => Some(Nid::SHA256),
            2 => Some(Nid::SHA384),
            3 => Some(Nid::SHA512),
            4 => Some(Nid::SHA224),
            _ => None,
        },
        _ => None,
    }
}

/// Tag, content and what follows one DER element.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const CONTEXT_0: u8 = 0xa0;

#[cfg(test)]
mod tests;
