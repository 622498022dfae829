//! Judged by an independent computation of [MS-NLMP] in this file, which is itself checked against the specification's
//! example values (section 4.2.4, NTLMv2).

use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use proptest::prelude::*;

use super::*;
use crate::target::Secret;

/// 4.2.4.1.1 NTOWFv2 of user `User`, domain `Domain`, password `Password`.
const NTOWF_V2: &str = "0c868a403bfd7a93a3001ef22ef02e3f";
/// 4.2.4.3 CHALLENGE_MESSAGE.
const CHALLENGE: &str = "4e544c4d53535000020000000c000c003800000033828ae20123456789abcdef\
    00000000000000002400240044000000060070170000000f5300650072007600650072000200\
    0c0044006f006d00610069006e0001000c005300650072007600650072000000\
    0000";

fn credential() -> Credential {
    Credential::password("Domain\\User", Secret::new("Password".into()))
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let key = PKey::hmac(key).unwrap();
    let mut signer = Signer::new(MessageDigest::md5(), &key).unwrap();
    signer.update(&parts.concat()).unwrap();
    signer.sign_to_vec().unwrap()
}

fn md5(parts: &[&[u8]]) -> Vec<u8> {
    openssl::hash::hash(MessageDigest::md5(), &parts.concat()).unwrap().to_vec()
}

struct Rc4 {
    state: [u8; 256],
    i: u8,
    j: u8,
}

impl Rc4 {
    fn new(key: &[u8]) -> Self {
        let mut state: [u8; 256] = std::array::from_fn(|at| at as u8);
        let mut j = 0u8;
        for i in 0..256 {
            j = j.wrapping_add(state[i]).wrapping_add(key[i % key.len()]);
            state.swap(i, j as usize);
        }
        Self { state, i: 0, j: 0 }
    }
    fn apply(&mut self, data: &[u8]) -> Vec<u8> {
        data.iter()
            .map(|byte| {
                self.i = self.i.wrapping_add(1);
                self.j = self.j.wrapping_add(self.state[self.i as usize]);
                self.state.swap(self.i as usize, self.j as usize);
                let at = self.state[self.i as usize].wrapping_add(self.state[self.j as usize]);
                byte ^ self.state[at as usize]
            })
            .collect()
    }
}

/// One direction of a session (3.4.4.2, 3.4.5).
struct Direction {
    sign: Vec<u8>,
    seal: Rc4,
    next: u32,
}

impl Direction {
    fn new(exported: &[u8], which: &str) -> Self {
        let key = |use_: &str| {
            let magic = format!("session key to {which} {use_} key magic constant\0");
            md5(&[exported, magic.as_bytes()])
        };
        Self { sign: key("signing"), seal: Rc4::new(&key("sealing")), next: 0 }
    }
    /// Data and signature.
    fn wrap(&mut self, message: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let data = self.seal.apply(message);
        (data, self.signature(message))
    }
    fn signature(&mut self, message: &[u8]) -> Vec<u8> {
        let number = self.next.to_le_bytes();
        self.next += 1;
        let checksum = self.seal.apply(&hmac(&self.sign, &[&number, message])[..8]);
        [&1u32.to_le_bytes()[..], &checksum, &number].concat()
    }
}

#[test]
fn this_file_computes_the_values_of_the_specification() {
    // 4.2.4.4: RandomSessionKey is 16 times 0x55, the message is "Plaintext" in UTF-16.
    let mut client = Direction::new(&[0x55; 16], "client-to-server");
    assert_eq!(client.sign, bytes("4788dc861b4782f35d43fd98fe1a2d39"));
    let plaintext: Vec<u8> = "Plaintext".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let (data, signature) = client.wrap(&plaintext);
    assert_eq!(data, bytes("54e50165bf1936dc996020c1811b0f06fb5f"));
    assert_eq!(signature, bytes("010000007fb38ec5c55d497600000000"));
}

/// The fields of an AUTHENTICATE_MESSAGE (2.2.1.3).
struct Authenticate<'a>(&'a [u8]);

impl<'a> Authenticate<'a> {
    fn field(&self, at: usize) -> &'a [u8] {
        let length = u16::from_le_bytes(self.0[at..at + 2].try_into().unwrap()) as usize;
        let offset = u32::from_le_bytes(self.0[at + 4..at + 8].try_into().unwrap()) as usize;
        &self.0[offset..offset + length]
    }
    fn flags(&self) -> u32 {
        u32::from_le_bytes(self.0[60..64].try_into().unwrap())
    }
    /// Attribute-value pairs of the NTLMv2 response.
    fn pairs(&self) -> Vec<(u16, &'a [u8])> {
        let mut rest = &self.field(20)[16 + 28..];
        let mut pairs = Vec::new();
        while rest.len() >= 4 {
            let id = u16::from_le_bytes(rest[..2].try_into().unwrap());
            let length = u16::from_le_bytes(rest[2..4].try_into().unwrap()) as usize;
            if id == 0 {
                break;
            }
            pairs.push((id, &rest[4..4 + length]));
            rest = &rest[4 + length..];
        }
        pairs
    }
}

/// Drives a raw context against the specification's challenge and checks its answer: the exported session key.
fn session(context: &mut NtlmContext) -> Vec<u8> {
    let negotiate = context.step(&[]).unwrap().to_vec();
    assert!(!context.is_complete() && !context.proof_sent());
    let challenge = bytes(&CHALLENGE.replace(' ', ""));
    let token = context.step(&challenge).unwrap().to_vec();
    assert!(context.is_complete() && context.proof_sent());
    let message = Authenticate(&token);
    assert_eq!(&token[..12], b"NTLMSSP\0\x03\0\0\0");
    let text = |at| message.field(at).chunks(2).map(|pair| char::from(pair[0])).collect::<String>();
    assert_eq!((text(28), text(36)), ("Domain".into(), "User".into()));
    // SEAL, SIGN, EXTENDED_SESSIONSECURITY, KEY_EXCH, 128.
    assert_eq!(message.flags() & 0x6008_0030, 0x6008_0030);

    let response = message.field(20);
    let (proof, temp) = response.split_at(16);
    let ntowf = bytes(NTOWF_V2);
    assert_eq!(proof, hmac(&ntowf, &[&bytes("0123456789abcdef"), temp]), "NTProofStr");
    let base = hmac(&ntowf, &[proof]);
    let exported = Rc4::new(&base).apply(message.field(52));
    let mut without_mic = token.clone();
    without_mic[72..88].fill(0);
    assert_eq!(&token[72..88], hmac(&exported, &[&negotiate, &challenge, &without_mic]), "MIC");
    assert!(message.pairs().contains(&(6, &2u32.to_le_bytes()[..])), "the MIC is announced");
    exported
}

#[test]
fn authenticates_and_seals_as_the_specification_says() {
    let mut context = NtlmContext::raw(&credential(), None).unwrap();
    let exported = session(&mut context);
    let mut client = Direction::new(&exported, "client-to-server");
    let mut server = Direction::new(&exported, "server-to-client");
    for message in [&b"one"[..], b"", b"three and some more"] {
        let mut data = message.to_vec();
        let header = context.wrap(&mut data).unwrap();
        assert_eq!((data, header), client.wrap(message));
        let (data, header) = server.wrap(message);
        let mut sealed = [header, data].concat();
        let place = context.unwrap(&mut sealed, 16).unwrap();
        assert_eq!(&sealed[place], message);
    }
}

#[test]
fn channel_bindings_are_hashed_into_the_response() {
    let application = b"tls-server-end-point:0123456789abcdef0123456789abcdef";
    let mut context = NtlmContext::raw(&credential(), Some(application)).unwrap();
    context.step(&[]).unwrap();
    let token = context.step(&bytes(&CHALLENGE.replace(' ', ""))).unwrap();
    // MsvAvChannelBindings: MD5 of gss_channel_bindings_struct, addresses empty (2.2.2.1).
    let length = u32::try_from(application.len()).unwrap().to_le_bytes();
    let hash = md5(&[&[0; 16], &length, application]);
    assert!(Authenticate(&token).pairs().contains(&(10, &hash[..])));
}

#[test]
fn damage_kills_the_context() {
    for damage in 0..4 {
        let mut context = NtlmContext::raw(&credential(), None).unwrap();
        let exported = session(&mut context);
        let mut server = Direction::new(&exported, "server-to-client");
        if damage == 3 {
            // The second message in the place of the first.
            server.wrap(b"first");
        }
        let (mut data, mut header) = server.wrap(b"message");
        match damage {
            0 => data[0] ^= 1,
            1 => header[5] ^= 1,
            2 => header.truncate(12),
            _ => {}
        }
        let unsealed = context.unwrap(&mut [&header[..], &data].concat(), header.len());
        assert!(matches!(unsealed, Err(ContextError::Message(_))), "{damage}");
        let mut server = Direction::new(&exported, "server-to-client");
        let (data, header) = server.wrap(b"message");
        assert!(context.unwrap(&mut [header, data].concat(), 16).is_err());
        assert!(context.wrap(&mut [1, 2, 3]).is_err());
        assert!(!context.is_complete());
    }
}

#[test]
fn credentials_that_ntlm_cannot_carry_are_refused() {
    let make =
        |user: &str, password: &str| NtlmContext::raw(&Credential::password(user, Secret::new(password.into())), None);
    for user in ["", "CORP\\", "a\\b\\c", "A@B\\c"] {
        assert!(matches!(make(user, "x"), Err(ContextError::Credential(_))), "{user}");
    }
    assert!(make("a", "$NTLM$:32ed87bdb5fdc5e9cba88547376818d4").is_err());
    assert!(make("a", &"x".repeat(5000)).is_err());
    for user in ["a", "a@b", "CORP\\a", ".\\a", "CORP\\a@b"] {
        assert!(make(user, "").is_ok(), "{user}");
    }
}

#[test]
fn nothing_secret_is_shown() {
    let context = NtlmContext::spnego(&credential(), None).unwrap();
    assert_eq!(format!("{context:?}"), "NtlmContext { state: \"negotiating inside SPNEGO\", .. }");
}

#[test]
fn messages_before_and_tokens_after_the_end_are_refused() {
    let mut context = NtlmContext::spnego(&credential(), None).unwrap();
    assert!(context.wrap(&mut [1]).is_err());
    let mut context = NtlmContext::raw(&credential(), None).unwrap();
    session(&mut context);
    assert!(context.step(b"NTLMSSP\0").is_err());
    assert!(context.wrap(&mut [1]).is_err());
}

proptest! {
    #[test]
    fn no_challenge_is_a_panic(
        garbage in any::<Vec<u8>>(),
        edits in proptest::collection::vec((0..104usize, any::<u8>()), 1..6),
        cut in 0..=104usize,
    ) {
        let mut challenge = bytes(&CHALLENGE.replace(' ', ""));
        for (at, byte) in edits {
            let at = at % challenge.len();
            challenge[at] = byte;
        }
        challenge.truncate(cut);
        for token in [&garbage, &challenge] {
            let mut context = NtlmContext::raw(&credential(), None).unwrap();
            context.step(&[]).unwrap();
            let _ = context.step(token);
            // NegTokenResp { negState accept-incomplete, supportedMech NTLM, responseToken }.
            let mut context = NtlmContext::spnego(&credential(), None).unwrap();
            context.step(&[]).unwrap();
            let _ = context.step(token);
            let mut context = NtlmContext::spnego(&credential(), None).unwrap();
            context.step(&[]).unwrap();
            let reply = context.step(&neg_token_resp(1, true, Some(token), None));
            if reply.is_ok() {
                let _ = context.step(&garbage);
            }
        }
    }
}

/// One DER element.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = match content.len() {
        length @ 0..=0x7f => vec![length as u8],
        length @ 0x80..=0xff => vec![0x81, length as u8],
        length => [&[0x82][..], &u16::try_from(length).unwrap().to_be_bytes()].concat(),
    };
    [&[tag][..], &length, content].concat()
}

/// NegTokenResp (RFC 4178, 4.2.2) of the given fields.
fn neg_token_resp(state: u8, mechanism: bool, token: Option<&[u8]>, mic: Option<&[u8]>) -> Vec<u8> {
    let ntlm = bytes("060a2b06010401823702020a");
    let fields = [
        der(0xa0, &der(0x0a, &[state])),
        if mechanism { der(0xa1, &ntlm) } else { Vec::new() },
        token.map(|token| der(0xa2, &der(0x04, token))).unwrap_or_default(),
        mic.map(|mic| der(0xa3, &der(0x04, mic))).unwrap_or_default(),
    ];
    der(0xa1, &der(0x30, &fields.concat()))
}

/// [MS-SPNG] 3.2.5.1: with NTLM the acceptor's mechListMIC is not optional.
#[test]
fn spnego_is_not_complete_without_the_acceptors_mic() {
    let without = neg_token_resp(0, false, None, None);
    let forged = neg_token_resp(0, false, None, Some(&bytes("01000000001122334455667700000000")));
    let rejected = neg_token_resp(2, false, None, None);
    for last in [without, forged, rejected] {
        let mut context = NtlmContext::spnego(&credential(), None).unwrap();
        context.step(&[]).unwrap();
        let challenge = bytes(&CHALLENGE.replace(' ', ""));
        let reply = context.step(&neg_token_resp(1, true, Some(&challenge), None)).unwrap();
        assert!(reply.windows(8).any(|window| window == b"NTLMSSP\0"));
        assert!(context.proof_sent() && !context.is_complete());
        assert!(context.wrap(&mut [1]).is_err());
        // Whether it is an error or a wish for more: nothing is sealed, and the credential is not tried again.
        let _ = context.step(&last);
        assert!(!context.is_complete());
        assert!(context.wrap(&mut [1]).is_err());
    }
}
