use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::X509;

use super::*;

fn signed(key: &PKey<Private>, digest: MessageDigest) -> X509 {
    let mut builder = X509::builder().unwrap();
    builder.set_pubkey(key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
    builder.sign(key, digest).unwrap();
    builder.build()
}

fn binds(certificate: &X509, digest: MessageDigest) -> bool {
    let hash = openssl::hash::hash(digest, &certificate.to_der().unwrap()).unwrap();
    tls_server_end_point(certificate).unwrap() == [b"tls-server-end-point:", &*hash].concat()
}

#[test]
fn the_digest_is_the_signatures_own_but_never_md5_or_sha1() {
    let rsa = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let curve = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    for key in [rsa, curve] {
        assert!(binds(&signed(&key, MessageDigest::sha1()), MessageDigest::sha256()));
        assert!(binds(&signed(&key, MessageDigest::sha256()), MessageDigest::sha256()));
        assert!(binds(&signed(&key, MessageDigest::sha384()), MessageDigest::sha384()));
        assert!(binds(&signed(&key, MessageDigest::sha512()), MessageDigest::sha512()));
    }
}

/// Made by `openssl req -x509 -sigopt rsa_padding_mode:pss`.
#[test]
fn pss_names_its_digest_in_its_parameters() {
    let certificate = X509::from_pem(include_bytes!("rsa-pss-sha384.pem")).unwrap();
    assert!(binds(&certificate, MessageDigest::sha384()));
    // All parameters left out: SHA-1.
    let certificate = X509::from_pem(include_bytes!("rsa-pss-sha1.pem")).unwrap();
    assert!(binds(&certificate, MessageDigest::sha256()));
    let der = certificate.to_der().unwrap();
    for length in 0..der.len() {
        pss_digest(&der[..length]);
    }
    assert_eq!(pss_digest(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
}

#[test]
fn no_digest_no_binding() {
    let certificate = X509::from_pem(include_bytes!("ed25519.pem")).unwrap();
    assert_eq!(tls_server_end_point(&certificate), None);
}
