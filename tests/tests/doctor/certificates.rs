//! Authorities and certificates of hosts, each with one thing wrong.

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Name};
use winsim::Tls;

pub(crate) struct Authority {
    certificate: X509,
    key: PKey<Private>,
}

impl Authority {
    pub(crate) fn new(common_name: &str) -> Self {
        let key = curve();
        let mut builder = begin(common_name, &key, 0, 365);
        builder.set_issuer_name(&name(common_name)).unwrap();
        builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
        builder.append_extension(KeyUsage::new().critical().key_cert_sign().build().unwrap()).unwrap();
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        Self { certificate: builder.build(), key }
    }

    pub(crate) fn pem(&self) -> String {
        String::from_utf8(self.certificate.to_pem().unwrap()).unwrap()
    }

    /// A certificate for 127.0.0.1 and win01.corp.example, with nothing wrong.
    pub(crate) fn host(&self) -> Leaf<'_> {
        Leaf {
            authority: Some(self),
            names: &["127.0.0.1", "win01.corp.example"],
            from: 0,
            to: 365,
            key: curve(),
            digest: MessageDigest::sha256(),
            for_clients: false,
        }
    }
}

pub(crate) struct Leaf<'a> {
    /// Nothing: itself.
    pub(crate) authority: Option<&'a Authority>,
    pub(crate) names: &'a [&'a str],
    /// Days from now.
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) key: PKey<Private>,
    pub(crate) digest: MessageDigest,
    pub(crate) for_clients: bool,
}

impl Leaf<'_> {
    pub(crate) fn tls(self) -> Tls {
        let mut builder = begin("win01", &self.key, self.from, self.to);
        let issuer = self.authority.map(|authority| authority.certificate.subject_name().to_owned().unwrap());
        builder.set_issuer_name(&issuer.unwrap_or_else(|| name("win01"))).unwrap();
        let mut names = SubjectAlternativeName::new();
        for name in self.names {
            if name.parse::<std::net::IpAddr>().is_ok() {
                names.ip(name)
            } else {
                names.dns(name)
            };
        }
        let names = names.build(&builder.x509v3_context(None, None)).unwrap();
        builder.append_extension(names).unwrap();
        let mut usage = ExtendedKeyUsage::new();
        if self.for_clients {
            usage.client_auth()
        } else {
            usage.server_auth()
        };
        builder.append_extension(usage.build().unwrap()).unwrap();
        let signer = self.authority.map_or(&self.key, |authority| &authority.key);
        builder.sign(signer, self.digest).unwrap();
        Tls { certificate: builder.build().to_pem().unwrap(), key: self.key.private_key_to_pem_pkcs8().unwrap() }
    }
}

pub(crate) fn curve() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

pub(crate) fn rsa(bits: u32) -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap()
}

fn name(text: &str) -> X509Name {
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_nid(Nid::COMMONNAME, text).unwrap();
    name.build()
}

fn begin(common_name: &str, key: &PKey<Private>, from: i64, to: i64) -> X509Builder {
    let day = |days: i64| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().cast_signed();
        // Not on the very second.
        Asn1Time::from_unix(now + days * 86_400 - 60).unwrap()
    };
    let mut builder = X509::builder().unwrap();
    let mut serial = BigNum::new().unwrap();
    serial.rand(128, MsbOption::MAYBE_ZERO, false).unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&name(common_name)).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.set_not_before(&day(from)).unwrap();
    builder.set_not_after(&day(to)).unwrap();
    builder
}
