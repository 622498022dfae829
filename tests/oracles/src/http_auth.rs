//! `WWW-Authenticate` fields and the handshake that they drive.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lictor_winrm::auth::{
    AuthError, Challenge, ContextError, Handshake, SecurityContext, Step, challenges, offered_schemes,
};
use zeroize::Zeroizing;

/// Lines as the fields of an answer.
///
/// - Schemes are tokens and tokens are token68 (RFC 9110, 5.6.2 and 11.2), both as they stand in the input, in bounded number.
/// - Several fields are the same as one field with commas (RFC 9110, 5.3), as long as no quoted string runs over the end.
/// - The list of schemes for people is bounded.
/// - A handshake ends after a bounded number of legs, is done only when its context is, and tells a 401 after the proof as a
///   rejection, whatever the fields say.
pub fn http_auth(data: &[u8]) {
    let fields: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let found = challenges(fields.iter().copied());
    assert!(found.len() <= 32);
    for challenge in &found {
        assert!(is_token(challenge.scheme), "{challenge:?}");
        assert!(challenge.token.is_none_or(is_token68), "{challenge:?}");
        for text in std::iter::once(challenge.scheme).chain(challenge.token) {
            assert!(data.windows(text.len()).any(|window| window == text.as_bytes()), "{text:?} was made up");
        }
    }
    let offered = offered_schemes(&found);
    assert!(!offered.is_empty() && offered.len() <= 8 * 34, "{offered:?}");
    if data.len() < 64 * 1024 && !data.contains(&b'"') && std::str::from_utf8(data).is_ok() {
        let joined = fields.join(&b", "[..]);
        assert_eq!(challenges([&joined[..]]), found, "other challenges in one field");
    }
    for proof_after in 0..4 {
        for (turn, status) in [(0, 200), (1, 200), (2, 500), (2, 200), (4, 200), (64, 200)] {
            handshake(&fields, &found, proof_after, turn, status);
        }
    }
}

/// The host answers with 401 until leg `turn`, and with `status` from then on.
fn handshake(fields: &[&[u8]], found: &[Challenge<'_>], proof_after: u8, turn: u32, status: u16) {
    let mut context = Scripted { steps: 0, proof_after };
    let Ok((mut handshake, first)) = Handshake::begin(&mut context) else { return };
    assert!(first.starts_with("Negotiate "));
    let ours = |challenge: &&Challenge<'_>| challenge.scheme.eq_ignore_ascii_case("Negotiate");
    let token = found.iter().filter(ours).find_map(|challenge| challenge.token);
    for leg in 0..64_u32 {
        let status = if leg < turn { 401 } else { status };
        let proof_sent = context.proof_sent();
        let steps = context.steps;
        match handshake.answer(&mut context, status, fields.iter().copied()) {
            Ok(Step::Send(value)) => {
                assert!(status == 401 && !proof_sent, "goes on after {status}");
                assert!(token.is_some_and(|token| STANDARD.decode(token).is_ok()), "goes on without a token");
                assert!(value.starts_with("Negotiate "), "{}", *value);
            }
            Ok(Step::Done) => {
                assert!((200..300).contains(&status) && context.is_complete(), "done at {status}");
                return;
            }
            Err(error) => {
                if status == 401 && proof_sent {
                    assert_eq!(error, AuthError::Rejected);
                    assert_eq!(context.steps, steps, "the context was asked after the rejection");
                } else {
                    assert_ne!(error, AuthError::Rejected, "no credential was used");
                }
                return;
            }
        }
    }
    panic!("the handshake does not end");
}

/// Sends its proof with the token after `proof_after` others, and is complete then.
#[derive(Debug)]
struct Scripted {
    steps: u8,
    proof_after: u8,
}

impl SecurityContext for Scripted {
    fn scheme(&self) -> &'static str {
        "Negotiate"
    }
    fn protocol(&self) -> &'static str {
        "application/HTTP-SPNEGO-session-encrypted"
    }
    fn step(&mut self, token: &[u8]) -> Result<Zeroizing<Vec<u8>>, ContextError> {
        assert!(token.len() <= 48 * 1024, "a token beyond the bound");
        self.steps += 1;
        Ok(Zeroizing::new(vec![self.steps]))
    }
    fn is_complete(&self) -> bool {
        self.proof_sent()
    }
    fn proof_sent(&self) -> bool {
        self.steps > self.proof_after
    }
    fn wrap(&mut self, _: &mut [u8]) -> Result<Vec<u8>, ContextError> {
        Ok(Vec::new())
    }
    fn unwrap(&mut self, sealed: &mut [u8], header: usize) -> Result<Range<usize>, ContextError> {
        Ok(header..sealed.len())
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn is_token68(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}
