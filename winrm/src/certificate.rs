//! Client certificates as WinRM's certificate authentication wants them: signed by themselves, with the user principal name of a
//! local account, good for nothing but proving a client.
//!
//! Makes them in memory; whoever calls decides where the key goes. The key is zeroed when dropped.

use std::fmt;

use openssl::asn1::{Asn1Integer, Asn1Object, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{ExtendedKeyUsage, SubjectAlternativeName, SubjectKeyIdentifier};
use openssl::x509::{X509, X509Builder, X509NameBuilder};
use zeroize::Zeroizing;

/// Kinds of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// RSA, 2048 bits.
    Rsa2048,
    /// RSA, 3072 bits.
    Rsa3072,
    /// ECDSA on P-256.
    EcdsaP256,
}

/// Whom a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    user: String,
    upn: String,
    days: u32,
    key_type: KeyType,
}

/// What cannot be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The name is no name of a local account.
    #[error("{0:?} cannot be the name of a local account")]
    User(String),
    /// The user principal name is none.
    #[error("{0:?} is no user principal name of at most {MOST_UPN} bytes")]
    Upn(String),
    /// The days are none, or too many.
    #[error("a certificate is valid for 1 to {MOST_DAYS} days")]
    Days,
}

/// A certificate and its key.
pub struct ClientCertificate {
    /// The certificate.
    pub certificate_pem: String,
    /// The private key (PKCS #8), not encrypted.
    pub key_pem: Zeroizing<Vec<u8>>,
    /// SHA-1 of the certificate in capitals, by which Windows calls it.
    pub thumbprint: String,
    /// When it ends.
    pub not_after: String,
}

/// Without the key.
impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").field("thumbprint", &self.thumbprint).finish_non_exhaustive()
    }
}

impl Request {
    /// Checks what is asked for. Without `upn` it is `user@localhost`, as hosts write local accounts.
    ///
    /// # Errors
    /// [`RequestError`] when it cannot be.
    pub fn new(user: &str, upn: Option<&str>, days: u32, key_type: KeyType) -> Result<Self, RequestError> {
        let forbidden = |c: char| c.is_control() || r#""/\[]:;|=,+*?<>@"#.contains(c);
        if user.trim() != user || user.is_empty() || user.chars().count() > MOST_USER || user.contains(forbidden) {
            return Err(RequestError::User(user.to_owned()));
        }
        let upn = upn.map_or_else(|| format!("{user}@localhost"), str::to_owned);
        let halves = upn.split_once('@');
        let whole = halves.is_some_and(|(name, place)| !name.is_empty() && !place.is_empty() && !place.contains('@'));
        if !whole || upn.len() > MOST_UPN || upn.chars().any(char::is_control) {
            return Err(RequestError::Upn(upn));
        }
        if days == 0 || days > MOST_DAYS {
            return Err(RequestError::Days);
        }
        Ok(Self { user: user.to_owned(), upn, days, key_type })
    }

    /// The user principal name.
    #[must_use]
    pub fn upn(&self) -> &str {
        &self.upn
    }

    /// Makes key and certificate. An RSA key takes a while.
    ///
    /// # Errors
    /// When the TLS library fails.
    pub fn make(&self) -> Result<ClientCertificate, ErrorStack> {
        let key = key(self.key_type)?;
        let certificate = self.certificate(&key)?;
        let thumbprint = certificate.digest(MessageDigest::sha1())?.iter().map(|byte| format!("{byte:02X}")).collect();
        Ok(ClientCertificate {
            certificate_pem: String::from_utf8_lossy(&certificate.to_pem()?).into_owned(),
            key_pem: Zeroizing::new(key.private_key_to_pem_pkcs8()?),
            thumbprint,
            not_after: certificate.not_after().to_string(),
        })
    }

    fn certificate(&self, key: &PKey<Private>) -> Result<X509, ErrorStack> {
        let mut name = X509NameBuilder::new()?;
        name.append_entry_by_nid(Nid::COMMONNAME, &self.user)?;
        let name = name.build();
        let mut serial = BigNum::new()?;
        serial.rand(SERIAL_BITS, MsbOption::MAYBE_ZERO, false)?;
        let mut builder = X509Builder::new()?;
        builder.set_version(X509_V3)?;
        builder.set_serial_number(&*Asn1Integer::from_bn(&serial)?)?;
        builder.set_subject_name(&name)?;
        builder.set_issuer_name(&name)?;
        builder.set_not_before(&*Asn1Time::days_from_now(0)?)?;
        builder.set_not_after(&*Asn1Time::days_from_now(self.days)?)?;
        builder.set_pubkey(key)?;
        builder.append_extension(ExtendedKeyUsage::new().client_auth().build()?)?;
        let context = builder.x509v3_context(None, None);
        let upn = utf8_string(&self.upn);
        let names = SubjectAlternativeName::new().other_name2(Asn1Object::from_str(UPN)?, &upn).build(&context)?;
        let identifier = SubjectKeyIdentifier::new().build(&context)?;
        builder.append_extension(names)?;
        builder.append_extension(identifier)?;
        builder.sign(key, MessageDigest::sha256())?;
        Ok(builder.build())
    }
}

fn key(key_type: KeyType) -> Result<PKey<Private>, ErrorStack> {
    match key_type {
        KeyType::Rsa2048 => PKey::from_rsa(Rsa::generate(2048)?),
        KeyType::Rsa3072 => PKey::from_rsa(Rsa::generate(3072)?),
        KeyType::EcdsaP256 => PKey::from_ec_key(EcKey::generate(&*EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?)?),
    }
}

/// A UTF8String in DER. `text` is shorter than 128 bytes, so that its length takes one.
fn utf8_string(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    [&[0x0C, length], text.as_bytes()].concat()
}

/// szOID_NT_PRINCIPAL_NAME: the user principal name among the other names.
const UPN: &str = "1.3.6.1.4.1.311.20.2.3";
/// Version 3, counted from 0.
const X509_V3: i32 = 2;
/// Positive, and within the 20 bytes of RFC 5280, 4.1.2.2.
const SERIAL_BITS: i32 = 127;
/// Longest common name (RFC 5280, ub-common-name). Windows takes 20 characters for a local account.
const MOST_USER: usize = 64;
const MOST_UPN: usize = 127;
/// A hundred years.
const MOST_DAYS: u32 = 36_525;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_local_account_is_refused() {
        let ask = |user: &str, upn: Option<&str>, days| Request::new(user, upn, days, KeyType::EcdsaP256);
        for user in ["", " alice", "CORP\\alice", "alice@corp.example", "a/b", "a\nb", &"x".repeat(65)] {
            assert_eq!(ask(user, None, 1), Err(RequestError::User(user.to_owned())));
        }
        for upn in ["alice", "@localhost", "alice@", "a\tb@localhost", "a@b@c", &format!("a@{}", "x".repeat(126))] {
            assert_eq!(ask("alice", Some(upn), 1), Err(RequestError::Upn(upn.to_owned())));
        }
        for days in [0, MOST_DAYS + 1] {
            assert_eq!(ask("alice", None, days), Err(RequestError::Days));
        }
        assert_eq!(ask("älice x", None, 1).unwrap().upn(), "älice x@localhost");
    }

    #[test]
    fn certificate_and_key_belong_together() {
        let request = Request::new("alice", None, 30, KeyType::EcdsaP256).unwrap();
        let made = request.make().unwrap();
        let certificate = X509::from_pem(made.certificate_pem.as_bytes()).unwrap();
        let key = PKey::private_key_from_pem(&made.key_pem).unwrap();
        assert!(certificate.public_key().unwrap().public_eq(&key) && certificate.verify(&key).unwrap());
        assert_eq!(made.thumbprint.len(), 40);
        // Two certificates are never the same.
        assert_ne!(request.make().unwrap().thumbprint, made.thumbprint);
        assert!(!format!("{made:?}").contains("PRIVATE"));
    }
}
