//! Tokens of NTLM hosts, raw and inside SPNEGO.

use lictor_winrm::auth::SecurityContext;
use lictor_winrm::auth::ntlm::NtlmContext;
use lictor_winrm::target::{Credential, Secret};

const PASSWORD: &str = "Oracle-Password-7";

/// The first byte says raw or SPNEGO and with or without channel bindings, the rest is the host's second token.
///
/// - A token that does not pass leaves a context that is of no use: it takes no other, and seals and unseals nothing.
/// - The answer is bounded, never holds the password, and counts as the proof only when there is one.
/// - An established context refuses a message that it did not get from its peer.
pub fn ntlm(data: &[u8]) {
    let Some((kind, token)) = data.split_first() else { return };
    let credential = Credential::password("CORP\\oracle", Secret::new(PASSWORD.to_owned()));
    let bindings = (kind & 2 != 0).then_some(&b"tls-server-end-point:0123456789abcdef"[..]);
    let context = if kind & 1 == 0 {
        NtlmContext::raw(&credential, bindings)
    } else {
        NtlmContext::spnego(&credential, bindings)
    };
    let Ok(mut context) = context else { return };
    assert!(context.step(&[]).is_ok_and(|first| !first.is_empty()), "no first token");
    assert!(!context.proof_sent() && !context.is_complete());
    match context.step(token) {
        Err(_) => dead(&mut context),
        Ok(reply) => {
            assert!(reply.len() <= 64 * 1024 + token.len(), "an answer of {} bytes", reply.len());
            assert_eq!(context.proof_sent(), !reply.is_empty());
            let wide: Vec<u8> = PASSWORD.encode_utf16().flat_map(u16::to_le_bytes).collect();
            for text in [PASSWORD.as_bytes(), &wide] {
                // The answer repeats the host's names, and libFuzzer reads the password in this very comparison.
                assert!(holds(token, text) || !holds(&reply, text), "the password is in the answer");
            }
            if context.is_complete() {
                assert!(context.unwrap(&mut [0; 33], 16).is_err(), "unsealed what nobody sealed");
                dead(&mut context);
            }
        }
    }
}

fn holds(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len()).any(|window| window == part)
}

fn dead(context: &mut NtlmContext) {
    assert!(!context.is_complete());
    assert!(context.step(&[]).is_err() && context.step(b"NTLMSSP\0").is_err(), "a dead context takes a token");
    assert!(context.wrap(&mut [0; 16]).is_err(), "a dead context seals");
    assert!(context.unwrap(&mut [0; 32], 16).is_err(), "a dead context unseals");
}
