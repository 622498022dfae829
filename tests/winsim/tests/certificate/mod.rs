//! A private CA and a server certificate for 127.0.0.1 and localhost, made for one test.

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, KeyUsage, SubjectAlternativeName, SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Name, X509NameRef};
use winsim::Tls;

/// What a test needs of the certificates.
pub(crate) struct Made {
    /// The CA's certificate in PEM.
    pub(crate) ca: Vec<u8>,
    /// For the server.
    pub(crate) tls: Tls,
}

pub(crate) fn make() -> Result<Made, ErrorStack> {
    let (ca_key, ca_name) = (key()?, name("winsim test CA")?);
    let mut ca = builder(&ca_name, &ca_name, &ca_key)?;
    ca.append_extension(BasicConstraints::new().critical().ca().build()?)?;
    ca.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
    let identifier = SubjectKeyIdentifier::new().build(&ca.x509v3_context(None, None))?;
    ca.append_extension(identifier)?;
    ca.sign(&ca_key, MessageDigest::sha256())?;
    let ca = ca.build();

    let server_key = key()?;
    let mut server = builder(&*name("winsim")?, &ca_name, &server_key)?;
    let names =
        SubjectAlternativeName::new().ip("127.0.0.1").dns("localhost").build(&server.x509v3_context(Some(&ca), None));
    server.append_extension(names?)?;
    let authority = AuthorityKeyIdentifier::new().keyid(true).build(&server.x509v3_context(Some(&ca), None));
    server.append_extension(authority?)?;
    server.sign(&ca_key, MessageDigest::sha384())?;
    let server: X509 = server.build();
    Ok(Made {
        ca: ca.to_pem()?,
        tls: Tls { certificate: server.to_pem()?, key: server_key.private_key_to_pem_pkcs8()? },
    })
}

fn key() -> Result<PKey<Private>, ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    PKey::from_ec_key(EcKey::generate(&group)?)
}

fn name(text: &str) -> Result<X509Name, ErrorStack> {
    let mut name = X509Name::builder()?;
    name.append_entry_by_nid(Nid::COMMONNAME, text)?;
    Ok(name.build())
}

fn builder(subject: &X509NameRef, issuer: &X509NameRef, key: &PKey<Private>) -> Result<X509Builder, ErrorStack> {
    let mut builder = X509::builder()?;
    let mut serial = BigNum::new()?;
    serial.rand(128, MsbOption::MAYBE_ZERO, false)?;
    builder.set_version(2)?;
    builder.set_serial_number(&*serial.to_asn1_integer()?)?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_pubkey(key)?;
    builder.set_not_before(&*Asn1Time::days_from_now(0)?)?;
    builder.set_not_after(&*Asn1Time::days_from_now(2)?)?;
    Ok(builder)
}
