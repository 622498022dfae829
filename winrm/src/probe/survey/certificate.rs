//! What a host's certificate says, and everything that a check by the target's policy holds against it: not only the first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::Id;
use openssl::ssl::{Ssl, SslVerifyMode, SslVersion};
use openssl::x509::{X509, X509ExtendedKeyUsage, X509Ref, X509StoreContextRef, X509VerifyResult};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_openssl::SslStream;

use super::{AskError, OLD_SUITES};
use crate::connection::tls;
use crate::target::Target;

/// A host's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whom it names, such as `CN=win01.corp.example`.
    pub subject: String,
    /// Who issued it.
    pub issuer: String,
    /// Names and addresses that it is for (subject alternative names), the first few.
    pub names: Vec<String>,
    /// When it begins.
    pub not_before: String,
    /// When it ends.
    pub not_after: String,
    /// Whole days until it ends; negative when it has ended.
    pub days_left: i64,
    /// Its key, such as `RSA 2048`.
    pub key: String,
    /// Its key can be broken: RSA below 2048 bits, or an elliptic curve below 224.
    pub weak_key: bool,
    /// How it was signed, such as `sha256WithRSAEncryption`.
    pub signature: String,
    /// The signature can be forged: MD5 or SHA-1.
    pub weak_signature: bool,
    /// It was issued by itself.
    pub self_signed: bool,
    /// Its extended key usage lets it be a server's: also when it says nothing about usage.
    pub for_servers: bool,
    /// Certificates that the host sent, this one included.
    pub chain: usize,
    /// What the check holds against it, in the order in which it was found.
    pub problems: Vec<Problem>,
}

/// Something that the check holds against a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What.
    pub kind: ProblemKind,
    /// In the words of the TLS library.
    pub detail: String,
    /// Whom the certificate names that is meant: it can be one of the authorities.
    pub subject: String,
}

/// What can be held against a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// It has ended.
    Expired,
    /// It has not begun.
    NotYetValid,
    /// It is for other names.
    Name,
    /// It is its own issuer and not itself trusted.
    SelfSigned,
    /// Nobody who issued it is trusted.
    Untrusted,
    /// It is not for servers.
    Purpose,
    /// Its key is too weak for the rules here.
    WeakKey,
    /// Its signature is too weak for the rules here.
    WeakSignature,
    /// Anything else.
    Other,
}

/// Takes the certificate in a handshake, and checks it by the target's authorities and name, also when the target skips that.
///
/// # Errors
/// [`AskError`] when there was no handshake.
pub async fn certificate(target: &Target, address: SocketAddr, deadline: Instant) -> Result<Certificate, AskError> {
    match handshake(target, address, deadline, false).await {
        // A host with old versions only still has a certificate.
        Err(AskError::Tls(_)) => handshake(target, address, deadline, true).await,
        other => other,
    }
}

async fn handshake(
    target: &Target,
    address: SocketAddr,
    deadline: Instant,
    old: bool,
) -> Result<Certificate, AskError> {
    let connector = timeout_at(deadline, tls::shared())
        .await
        .map_err(|_| AskError::TooLong)?
        .map_err(|error| AskError::Tls(error.to_string()))?;
    let told: Arc<Mutex<Vec<Problem>>> = Arc::default();
    let ssl = (|| -> Result<Ssl, String> {
        let mut configuration = connector.configure().map_err(|error| error.to_string())?;
        if old {
            configuration.set_min_proto_version(Some(SslVersion::TLS1)).map_err(|error| error.to_string())?;
            configuration.set_cipher_list(OLD_SUITES).map_err(|error| error.to_string())?;
        }
        if let Some(pem) = &target.tls.ca_pem {
            configuration.set_verify_cert_store(tls::store(pem)?).map_err(|error| error.to_string())?;
        }
        let told = Arc::clone(&told);
        configuration.set_verify_callback(SslVerifyMode::PEER, move |good, context| {
            if !good {
                note(&told, context);
            }
            true
        });
        let host = target.endpoint.host();
        configuration.into_ssl(host.strip_suffix('.').unwrap_or(host)).map_err(|error| error.to_string())
    })()
    .map_err(AskError::Tls)?;
    let tcp = timeout_at(deadline, TcpStream::connect(address))
        .await
        .map_err(|_| AskError::TooLong)?
        .map_err(AskError::Connect)?;
    let mut stream = SslStream::new(ssl, tcp).map_err(|error| AskError::Tls(error.to_string()))?;
    timeout_at(deadline, Pin::new(&mut stream).connect())
        .await
        .map_err(|_| AskError::TooLong)?
        .map_err(|error| AskError::Tls(error.to_string()))?;
    let chain = stream.ssl().peer_cert_chain().map_or(0, |chain| chain.len());
    let held = stream.ssl().peer_certificate().ok_or_else(|| AskError::Tls("no certificate".to_owned()))?;
    let problems = std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner));
    describe(&held, chain, problems).map_err(|error| AskError::Tls(error.to_string()))
}

fn note(told: &Mutex<Vec<Problem>>, context: &mut X509StoreContextRef) {
    let error = context.error();
    // X509_V_ERR_* of x509_vfy.h.
    let kind = match error.as_raw() {
        9 => ProblemKind::NotYetValid,
        10 => ProblemKind::Expired,
        62 | 64 => ProblemKind::Name,
        18 => ProblemKind::SelfSigned,
        19..=21 | 2 | 27 => ProblemKind::Untrusted,
        26 => ProblemKind::Purpose,
        66 | 67 => ProblemKind::WeakKey,
        68 => ProblemKind::WeakSignature,
        _ => ProblemKind::Other,
    };
    let subject = context.current_cert().map(|certificate| tls::name(certificate.subject_name())).unwrap_or_default();
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    // An unknown issuer is told twice: once that it is missing, once that nothing could be checked without it.
    if told.len() < MAX_PROBLEMS && told.iter().all(|known| known.kind != kind) {
        told.push(Problem { kind, detail: error.error_string().to_owned(), subject });
    }
}

fn describe(held: &X509Ref, chain: usize, problems: Vec<Problem>) -> Result<Certificate, ErrorStack> {
    let key = held.public_key()?;
    let bits = key.bits();
    let (kind, least) = match key.id() {
        Id::RSA => ("RSA", 2048),
        Id::RSA_PSS => ("RSA-PSS", 2048),
        Id::EC => ("EC", 224),
        Id::DSA => ("DSA", u32::MAX),
        Id::ED25519 => ("Ed25519", 0),
        Id::ED448 => ("Ed448", 0),
        _ => ("key of", 0),
    };
    let signature = held.signature_algorithm().object().nid();
    let weak = [
        Nid::MD5WITHRSAENCRYPTION,
        Nid::SHA1WITHRSAENCRYPTION,
        Nid::SHA1WITHRSA,
        Nid::ECDSA_WITH_SHA1,
        Nid::DSAWITHSHA1,
    ];
    let names = held.subject_alt_names().map(|names| {
        let text = |name: &openssl::x509::GeneralNameRef| match (name.dnsname(), name.ipaddress()) {
            (Some(name), _) => Some(tls::plain(name)),
            (None, Some(bytes)) => address(bytes),
            (None, None) => None,
        };
        names.iter().filter_map(text).take(MAX_NAMES).collect()
    });
    Ok(Certificate {
        subject: tls::name(held.subject_name()),
        issuer: tls::name(held.issuer_name()),
        names: names.unwrap_or_default(),
        not_before: held.not_before().to_string(),
        not_after: held.not_after().to_string(),
        days_left: days_until(held.not_after())?,
        key: format!("{kind} {bits}"),
        weak_key: bits < least,
        signature: signature.long_name().unwrap_or("unknown").to_owned(),
        weak_signature: weak.contains(&signature),
        self_signed: held.issued(held) == X509VerifyResult::OK,
        for_servers: held
            .extended_key_usage()
            .is_none_or(|usage| usage.intersects(X509ExtendedKeyUsage::SSL_SERVER | X509ExtendedKeyUsage::ANYEKU)),
        chain,
        problems,
    })
}

fn days_until(end: &Asn1TimeRef) -> Result<i64, ErrorStack> {
    let left = Asn1Time::days_from_now(0)?.diff(end)?;
    let seconds = i64::from(left.days) * 86_400 + i64::from(left.secs);
    Ok(seconds.div_euclid(86_400))
}

fn address(bytes: &[u8]) -> Option<String> {
    let address: IpAddr = match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
        (Ok(four), _) => Ipv4Addr::from(four).into(),
        (_, Ok(sixteen)) => Ipv6Addr::from(sixteen).into(),
        _ => return None,
    };
    Some(address.to_string())
}

/// Whom the authorities of a PEM text name, the first few; nothing when there is none in it.
#[must_use]
pub fn authorities(pem: &str) -> Vec<String> {
    let all = X509::stack_from_pem(pem.as_bytes()).unwrap_or_default();
    all.iter().take(MAX_NAMES).map(|one| tls::name(one.subject_name())).collect()
}

const MAX_NAMES: usize = 16;
const MAX_PROBLEMS: usize = 16;
