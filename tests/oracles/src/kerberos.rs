//! Tokens of hosts that were sent a Kerberos ticket, raw and inside SPNEGO.

use std::sync::Arc;

use krb5::{CCache, Credentials};
use lictor_winrm::auth::kerberos::{KerberosContext, Ticket};
use lictor_winrm::auth::{ContextError, SecurityContext};
use lictor_winrm::error::Refusal;

/// The session key, which no host of the oracle knows.
const SESSION_KEY: [u8; 32] = *b"Oracle-Session-Key-of-32-bytes-7";

/// The first byte says raw or SPNEGO and with or without channel bindings, the rest is the host's token.
///
/// - No token completes the context: whoever made it had not the session key. So nothing is sealed and nothing unsealed.
/// - What it says is an error of bounded length on one line, and never the proof of a rejected password.
/// - The context is of no use afterwards.
pub fn kerberos(data: &[u8]) {
    let Some((kind, token)) = data.split_first() else { return };
    let Some(ticket) = credentials() else { panic!("the oracle's own ticket cannot be read") };
    let ticket = Ticket { ticket: Arc::new(ticket), forwarded: None };
    let bindings = (kind & 2 != 0).then_some(&b"tls-server-end-point:0123456789abcdef"[..]);
    let mut context =
        if kind & 1 == 0 { KerberosContext::raw(ticket, bindings) } else { KerberosContext::spnego(ticket, bindings) };
    assert!(context.step(&[]).is_ok_and(|first| !first.is_empty()), "no first token");
    assert!(!context.proof_sent() && !context.is_complete());
    let Err(error) = context.step(token) else { panic!("a token without the session key was believed") };
    let shown = error.to_string();
    assert!(shown.len() <= 2048, "an error of {} bytes", shown.len());
    if let ContextError::Refused(Refusal::Other { text: Some(text), .. }) = &error {
        assert!(text.chars().count() <= 200 && !text.chars().any(char::is_control), "{text:?}");
    }
    assert!(!context.proof_sent() && !context.is_complete());
    assert!(context.step(&[]).is_err() && context.step(token).is_err(), "a dead context takes a token");
    assert!(context.wrap(&mut [0; 16]).is_err(), "a dead context seals");
    assert!(context.unwrap(&mut token.to_vec(), 60).is_err(), "a dead context unseals");
}

/// A credential cache (version 4) with one ticket, which is opaque to all but the host.
fn credentials() -> Option<Credentials> {
    const REALM: &[u8] = b"CORP.EXAMPLE";
    // Ticket (RFC 4120, 5.3) with an empty name and an empty cipher.
    const TICKET: &[u8] = &[
        0x61, 0x31, 0x30, 0x2f, 0xa0, 3, 2, 1, 5, 0xa1, 0x0e, 0x1b, 12, b'C', b'O', b'R', b'P', b'.', b'E', b'X', b'A',
        b'M', b'P', b'L', b'E', 0xa2, 9, 0x30, 7, 0xa0, 3, 2, 1, 2, 0xa1, 0, 0xa3, 0x0d, 0x30, 0x0b, 0xa0, 3, 2, 1, 18,
        0xa2, 4, 4, 2, 0, 0,
    ];
    let mut cache = vec![5, 4, 0, 0];
    let counted = |cache: &mut Vec<u8>, data: &[u8]| {
        cache.extend(u32::try_from(data.len()).unwrap_or_default().to_be_bytes());
        cache.extend(data);
    };
    for name in [&[&b"alice"[..]][..], &[b"alice"], &[b"HTTP", b"win01"]] {
        cache.extend(1_u32.to_be_bytes());
        cache.extend(u32::try_from(name.len()).unwrap_or_default().to_be_bytes());
        counted(&mut cache, REALM);
        name.iter().for_each(|part| counted(&mut cache, part));
    }
    cache.extend(18_u16.to_be_bytes());
    counted(&mut cache, &SESSION_KEY);
    // Valid from 1970 to 2106, no flags, addresses or authorization data.
    for time in [1_u32, 1, u32::MAX, 0] {
        cache.extend(time.to_be_bytes());
    }
    cache.extend([0; 13]);
    counted(&mut cache, TICKET);
    counted(&mut cache, b"");
    CCache::decode(&cache).ok()?.credentials().next()
}
