//! The accepting side of NTLMv2: challenge, verification of the answer with its MIC and channel bindings, message sealing.
//!
//! Sans I/O, written from [MS-NLMP]. NTLMv1, LM, anonymous logons and contexts without extended session security are refused,
//! as a hardened Windows host does. Called by the authentication of one connection.
//!
//! [MS-NLMP]: https://learn.microsoft.com/openspecs/windows_protocols/ms-nlmp

use std::time::{SystemTime, UNIX_EPOCH};

use md4::{Digest, Md4};
use openssl::hash::{MessageDigest, hash};
use openssl::memcmp;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use rc4::{KeyInit, Rc4, StreamCipher};

use super::protection::NotAuthentic;
use crate::options::User;

/// Of the signature before each sealed message.
pub(crate) const SIGNATURE_LENGTH: usize = 16;

const SIGNATURE: &[u8; 8] = b"NTLMSSP\0";

/// NEGOTIATE flags of [MS-NLMP] 2.2.2.5.
mod flag {
    pub(super) const UNICODE: u32 = 0x0000_0001;
    pub(super) const REQUEST_TARGET: u32 = 0x0000_0004;
    pub(super) const SIGN: u32 = 0x0000_0010;
    pub(super) const SEAL: u32 = 0x0000_0020;
    pub(super) const NTLM: u32 = 0x0000_0200;
    pub(super) const ALWAYS_SIGN: u32 = 0x0000_8000;
    pub(super) const TARGET_TYPE_SERVER: u32 = 0x0002_0000;
    pub(super) const EXTENDED_SESSION_SECURITY: u32 = 0x0008_0000;
    pub(super) const TARGET_INFO: u32 = 0x0080_0000;
    pub(super) const VERSION: u32 = 0x0200_0000;
    pub(super) const KEY_128: u32 = 0x2000_0000;
    pub(super) const KEY_EXCHANGE: u32 = 0x4000_0000;
    pub(super) const KEY_56: u32 = 0x8000_0000;
}

/// AV_PAIR ids of [MS-NLMP] 2.2.2.1.
mod pair {
    pub(super) const END: u16 = 0;
    pub(super) const NETBIOS_COMPUTER: u16 = 1;
    pub(super) const NETBIOS_DOMAIN: u16 = 2;
    pub(super) const DNS_COMPUTER: u16 = 3;
    pub(super) const DNS_DOMAIN: u16 = 4;
    pub(super) const FLAGS: u16 = 6;
    pub(super) const TIMESTAMP: u16 = 7;
    pub(super) const CHANNEL_BINDINGS: u16 = 10;
}

/// Seconds between the epochs of Windows (1601) and Unix.
const WINDOWS_EPOCH_OFFSET: u64 = 11_644_473_600;
/// MsvAvFlags: the AUTHENTICATE message carries a MIC.
const HAS_MIC: u32 = 2;
/// Where the MIC stands in an AUTHENTICATE message: after the fixed part and the version.
const MIC_OFFSET: usize = 72;
/// Of one AUTHENTICATE message; a real one is below 2 KiB.
const MAX_MESSAGE: usize = 64 * 1024;

/// Why an answer was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Rejection {
    #[error("malformed NTLM message: {0}")]
    Malformed(&'static str),
    #[error("NTLM answer refused: {0}")]
    Refused(&'static str),
    #[error("logon of {user} failed: {reason}")]
    Logon { user: String, reason: &'static str },
}

/// A challenge that was sent and waits for its answer.
#[derive(Debug)]
pub(crate) struct Challenge {
    negotiate: Vec<u8>,
    message: Vec<u8>,
    nonce: [u8; 8],
    flags: u32,
}

impl Challenge {
    /// Answers a NEGOTIATE message.
    pub(crate) fn new(negotiate: &[u8], hostname: &str, domain: &str) -> Result<Self, Rejection> {
        if message_type(negotiate)? != 1 {
            return Err(Rejection::Malformed("NEGOTIATE expected"));
        }
        let wanted = read_u32(negotiate, 12)?;
        if wanted & flag::UNICODE == 0 || wanted & flag::NTLM == 0 {
            return Err(Rejection::Refused("the client does not offer Unicode and NTLM"));
        }
        if wanted & flag::EXTENDED_SESSION_SECURITY == 0 {
            return Err(Rejection::Refused("the client does not offer extended session security"));
        }
        let flags = (wanted
            & (flag::UNICODE
                | flag::REQUEST_TARGET
                | flag::SIGN
                | flag::SEAL
                | flag::NTLM
                | flag::ALWAYS_SIGN
                | flag::EXTENDED_SESSION_SECURITY
                | flag::VERSION
                | flag::KEY_128
                | flag::KEY_EXCHANGE
                | flag::KEY_56))
            | flag::TARGET_INFO
            | flag::TARGET_TYPE_SERVER
            | flag::REQUEST_TARGET;
        let nonce: [u8; 8] = rand::random();
        let target = utf16(&hostname.to_uppercase());
        let mut information = Vec::new();
        for (id, value) in [
            (pair::NETBIOS_DOMAIN, utf16(&domain.to_uppercase())),
            (pair::NETBIOS_COMPUTER, utf16(&hostname.to_uppercase())),
            (pair::DNS_DOMAIN, utf16(&domain.to_lowercase())),
            (pair::DNS_COMPUTER, utf16(&hostname.to_lowercase())),
            (pair::TIMESTAMP, file_time().to_le_bytes().to_vec()),
            (pair::END, Vec::new()),
        ] {
            information.extend(id.to_le_bytes());
            information.extend(length16(value.len()));
            information.extend(value);
        }
        const FIXED: usize = 56;
        let mut message = SIGNATURE.to_vec();
        message.extend(2u32.to_le_bytes());
        push_field(&mut message, target.len(), FIXED);
        message.extend(flags.to_le_bytes());
        message.extend(nonce);
        message.extend([0; 8]);
        push_field(&mut message, information.len(), FIXED + target.len());
        // Windows 10.0 build 14393 (Server 2016), NTLM revision 15.
        message.extend([10, 0, 0x39, 0x38, 0, 0, 0, 15]);
        message.extend(target);
        message.extend(information);
        Ok(Self { negotiate: negotiate.to_vec(), message, nonce, flags })
    }

    /// The CHALLENGE message.
    pub(crate) fn message(&self) -> &[u8] {
        &self.message
    }

    /// Verifies the AUTHENTICATE message. `channel_bindings` is the hash for `tls-server-end-point` that this connection has,
    /// with `true` where the client must send it.
    pub(crate) fn verify(
        self,
        authenticate: &[u8],
        users: &[User],
        hostname: &str,
        channel_bindings: Option<(&[u8; 16], bool)>,
    ) -> Result<Established, Rejection> {
        if message_type(authenticate)? != 3 || authenticate.len() > MAX_MESSAGE {
            return Err(Rejection::Malformed("AUTHENTICATE expected"));
        }
        let response = field(authenticate, 20)?;
        let domain = from_utf16(field(authenticate, 28)?)?;
        let name = from_utf16(field(authenticate, 36)?)?;
        let encrypted_key = field(authenticate, 52)?;
        let flags = read_u32(authenticate, 60)?;
        if flags & !self.flags & (flag::SIGN | flag::SEAL | flag::KEY_EXCHANGE | flag::KEY_128 | flag::KEY_56) != 0 {
            return Err(Rejection::Refused("the client turned on flags that the challenge did not offer"));
        }
        let full_name = if domain.is_empty() { name.clone() } else { format!("{domain}\\{name}") };
        let failed = |reason| Rejection::Logon { user: full_name.clone(), reason };
        // An NTLMv1 response is 24 bytes, an NTLMv2 one 16 bytes of proof and at least 28 of the client's challenge.
        if response.len() < 44 {
            return Err(failed("not an NTLMv2 response"));
        }
        let (proof, temporary) = response.split_at(16);
        let Some(user) = users.iter().find(|user| user.answers_to(&domain, &name, hostname)) else {
            return Err(failed("unknown user"));
        };
        let owf = response_key(user.password(), &name, &domain);
        let expected = hmac_md5(&owf, &[&self.nonce, temporary]);
        if !memcmp::eq(&expected, proof) {
            return Err(failed("wrong password"));
        }
        let session_base_key = hmac_md5(&owf, &[proof]);
        let exported = if flags & flag::KEY_EXCHANGE == 0 {
            session_base_key
        } else {
            let mut key: [u8; 16] = encrypted_key
                .try_into()
                .map_err(|_| Rejection::Malformed("the encrypted session key is not 16 bytes"))?;
            rc4(&session_base_key)?.apply_keystream(&mut key);
            key
        };
        let pairs = pairs(&temporary[28..])?;
        let value = |id| pairs.iter().find(|(own, _)| *own == id).map(|(_, value)| *value);
        // The challenge carried a timestamp, so a client must send a MIC ([MS-NLMP] 3.1.5.1.2).
        let has_mic =
            value(pair::FLAGS).is_some_and(|value| value.first().is_some_and(|low| u32::from(*low) & HAS_MIC != 0));
        if !has_mic {
            return Err(Rejection::Refused("no MIC although the challenge has a timestamp"));
        }
        let mic = authenticate.get(MIC_OFFSET..MIC_OFFSET + 16).ok_or(Rejection::Malformed("the MIC is missing"))?;
        let mut without_mic = authenticate.to_vec();
        without_mic[MIC_OFFSET..MIC_OFFSET + 16].fill(0);
        if !memcmp::eq(&hmac_md5(&exported, &[&self.negotiate, &self.message, &without_mic]), mic) {
            return Err(Rejection::Refused("wrong MIC"));
        }
        if let Some((own, mandatory)) = channel_bindings {
            match value(pair::CHANNEL_BINDINGS).filter(|value| *value != [0; 16]) {
                Some(sent) if sent == own => {}
                Some(_) => return Err(failed("wrong channel bindings")),
                None if mandatory => return Err(failed("no channel bindings")),
                None => {}
            }
        }
        let sealing = if flags & flag::SEAL == 0 { None } else { Some(Sealing::new(&exported, flags)?) };
        Ok(Established { user: user.name().to_owned(), sealing })
    }
}

/// A user who has proved to be one.
pub(crate) struct Established {
    /// The account's configured name.
    pub(crate) user: String,
    /// The keys of the connection, when the client asked for sealing.
    pub(crate) sealing: Option<Sealing>,
}

/// Message protection of one connection, both directions ([MS-NLMP] 3.4), from the server's side.
pub(crate) struct Sealing {
    incoming: Direction,
    outgoing: Direction,
}

struct Direction {
    signing_key: [u8; 16],
    sealing_key: Vec<u8>,
    cipher: Rc4,
    sequence: u32,
    key_exchange: bool,
}

impl Sealing {
    fn new(exported: &[u8; 16], flags: u32) -> Result<Self, Rejection> {
        Ok(Self {
            incoming: Direction::new(exported, flags, "client-to-server")?,
            outgoing: Direction::new(exported, flags, "server-to-client")?,
        })
    }

    /// Decrypts a message in place after checking its 16-byte signature.
    pub(crate) fn unseal(&mut self, signature: &[u8], message: &mut [u8]) -> Result<(), NotAuthentic> {
        self.incoming.cipher.apply_keystream(message);
        if memcmp::eq(&self.incoming.mac(message), &fixed(signature)?) { Ok(()) } else { Err(NotAuthentic::Signature) }
    }

    /// Encrypts a message in place and returns its signature.
    pub(crate) fn seal(&mut self, message: &mut [u8]) -> [u8; 16] {
        let plain = message.to_vec();
        self.outgoing.cipher.apply_keystream(message);
        self.outgoing.mac(&plain)
    }

    /// Checks a signature over a message that travels in the clear: SPNEGO's mechListMIC. The cipher's state is put back as
    /// MS-SPNG 3.3.5.1 says, the sequence number is not.
    pub(crate) fn verify_mechanism_list(&mut self, signature: &[u8], message: &[u8]) -> Result<(), NotAuthentic> {
        let expected = self.incoming.mac(message);
        self.incoming.reset();
        if memcmp::eq(&expected, &fixed(signature)?) { Ok(()) } else { Err(NotAuthentic::Signature) }
    }

    /// The server's own mechListMIC.
    pub(crate) fn sign_mechanism_list(&mut self, message: &[u8]) -> [u8; 16] {
        let signature = self.outgoing.mac(message);
        self.outgoing.reset();
        signature
    }
}

fn fixed(signature: &[u8]) -> Result<[u8; 16], NotAuthentic> {
    signature.try_into().map_err(|_| NotAuthentic::Signature)
}

impl Direction {
    fn new(exported: &[u8; 16], flags: u32, name: &str) -> Result<Self, Rejection> {
        let magic = |kind: &str| format!("session key to {name} {kind} key magic constant\0").into_bytes();
        let signing_key = md5(&[&exported[..], &magic("signing")].concat());
        let base = if flags & flag::KEY_128 != 0 {
            &exported[..]
        } else if flags & flag::KEY_56 != 0 {
            &exported[..7]
        } else {
            &exported[..5]
        };
        let sealing_key = md5(&[base, &magic("sealing")].concat()).to_vec();
        let cipher = rc4(&sealing_key)?;
        Ok(Self { signing_key, sealing_key, cipher, sequence: 0, key_exchange: flags & flag::KEY_EXCHANGE != 0 })
    }

    fn mac(&mut self, message: &[u8]) -> [u8; 16] {
        let sequence = self.sequence.to_le_bytes();
        self.sequence = self.sequence.wrapping_add(1);
        let mut checksum = [0; 8];
        checksum.copy_from_slice(&hmac_md5(&self.signing_key, &[&sequence, message])[..8]);
        if self.key_exchange {
            self.cipher.apply_keystream(&mut checksum);
        }
        let mut mac = [0; 16];
        mac[0] = 1;
        mac[4..12].copy_from_slice(&checksum);
        mac[12..].copy_from_slice(&sequence);
        mac
    }

    fn reset(&mut self) {
        // The key was accepted once already.
        if let Ok(cipher) = rc4(&self.sealing_key) {
            self.cipher = cipher;
        }
    }
}

/// NTOWFv2 of [MS-NLMP] 3.3.2.
fn response_key(password: &str, user: &str, domain: &str) -> [u8; 16] {
    let hash: [u8; 16] = Md4::digest(utf16(password)).into();
    hmac_md5(&hash, &[&utf16(&user.to_uppercase()), &utf16(domain)])
}

/// The MD5 of a `gss_channel_bindings_struct` that has nothing but application data ([MS-NLMP] 2.2.2.1, RFC 4121 4.1.1.2).
pub(crate) fn channel_bindings_hash(application_data: &[u8]) -> [u8; 16] {
    let length = u32::try_from(application_data.len()).unwrap_or(u32::MAX).to_le_bytes();
    md5(&[&[0; 16], &length[..], application_data].concat())
}

fn message_type(message: &[u8]) -> Result<u32, Rejection> {
    if message.get(..8) != Some(&SIGNATURE[..]) {
        return Err(Rejection::Malformed("no NTLMSSP signature"));
    }
    read_u32(message, 8)
}

fn read_u32(message: &[u8], offset: usize) -> Result<u32, Rejection> {
    match message.get(offset..offset + 4) {
        Some(&[a, b, c, d]) => Ok(u32::from_le_bytes([a, b, c, d])),
        _ => Err(Rejection::Malformed("the message ends too early")),
    }
}

/// A field by its length, maximum length and offset.
fn field(message: &[u8], at: usize) -> Result<&[u8], Rejection> {
    let short = Rejection::Malformed("a field is outside the message");
    let &[low, high, ..] = message.get(at..at + 8).ok_or(short.clone())? else { return Err(short) };
    let length = usize::from(u16::from_le_bytes([low, high]));
    let offset = usize::try_from(read_u32(message, at + 4)?).map_err(|_| short.clone())?;
    let end = offset.checked_add(length).ok_or(short.clone())?;
    message.get(offset..end).ok_or(short)
}

fn push_field(message: &mut Vec<u8>, length: usize, offset: usize) {
    message.extend(length16(length));
    message.extend(length16(length));
    message.extend(u32::try_from(offset).unwrap_or(u32::MAX).to_le_bytes());
}

fn length16(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes()
}

/// The AV_PAIRs of the client's challenge.
fn pairs(mut bytes: &[u8]) -> Result<Vec<(u16, &[u8])>, Rejection> {
    let mut pairs = Vec::new();
    while let [a, b, c, d, rest @ ..] = bytes {
        let (id, length) = (u16::from_le_bytes([*a, *b]), usize::from(u16::from_le_bytes([*c, *d])));
        if id == pair::END {
            return Ok(pairs);
        }
        let (value, rest) = rest.split_at_checked(length).ok_or(Rejection::Malformed("an AV_PAIR is too long"))?;
        pairs.push((id, value));
        bytes = rest;
    }
    Err(Rejection::Malformed("the AV_PAIRs have no end"))
}

fn file_time() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs() + WINDOWS_EPOCH_OFFSET) * 10_000_000 + u64::from(since.subsec_nanos()) / 100
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn from_utf16(bytes: &[u8]) -> Result<String, Rejection> {
    let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    String::from_utf16(&units).map_err(|_| Rejection::Malformed("a name is not UTF-16"))
}

fn rc4(key: &[u8]) -> Result<Rc4, Rejection> {
    Rc4::new_from_slice(key).map_err(|_| Rejection::Malformed("the session key has a wrong length"))
}

fn md5(data: &[u8]) -> [u8; 16] {
    let mut digest = [0; 16];
    #[expect(clippy::expect_used, reason = "MD5 is in OpenSSL's default provider; without it no test can run")]
    digest.copy_from_slice(&hash(MessageDigest::md5(), data).expect("MD5 is available"));
    digest
}

fn hmac_md5(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let compute = || {
        let key = PKey::hmac(key)?;
        let mut signer = Signer::new(MessageDigest::md5(), &key)?;
        for part in parts {
            signer.update(part)?;
        }
        signer.sign_to_vec()
    };
    let mut digest = [0; 16];
    #[expect(clippy::expect_used, reason = "HMAC-MD5 is in OpenSSL's default provider; without it no test can run")]
    digest.copy_from_slice(&compute().expect("HMAC-MD5 is available"));
    digest
}

#[cfg(test)]
mod tests;
