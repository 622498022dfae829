//! Against the acceptor of the `krb5` crate, and against what acceptors may say. Foreign acceptors judge in
//! `tests/tests/kerberos`.

use std::sync::Arc;

use krb5::Key;
use krb5::Keytab;
use krb5::acceptor::{AcceptOptions, KerberosContext as Acceptor, KerberosError};
use krb5::spnego::SpnegoAcceptor;
use proptest::prelude::*;

use super::minted::*;
use super::*;
use crate::error::{Error, ErrorKind, Stage};
use std::time::{SystemTime, UNIX_EPOCH};

const BINDINGS: &[u8] = b"tls-server-end-point:0123456789abcdef0123456789abcdef";

/// Both ends, established.
fn established(enctype: i32, spnego: bool, bindings: Option<&[u8]>) -> (KerberosContext, Acceptor) {
    let (ticket, keytab) = mint(enctype, ["HTTP", "win01"]);
    let mut context = context(ticket, spnego, bindings);
    let (acceptor, reply) = accept(&context.step(&[]).unwrap(), &keytab, spnego, bindings).unwrap();
    assert!(!context.is_complete() && !context.proof_sent());
    assert!(context.step(&reply).unwrap().is_empty());
    assert!(context.is_complete() && !context.proof_sent());
    (context, acceptor)
}

fn context(ticket: Ticket, spnego: bool, bindings: Option<&[u8]>) -> KerberosContext {
    if spnego { KerberosContext::spnego(ticket, bindings) } else { KerberosContext::raw(ticket, bindings) }
}

fn accept(
    token: &[u8],
    keytab: &Keytab,
    spnego: bool,
    bindings: Option<&[u8]>,
) -> Result<(Acceptor, Vec<u8>), KerberosError> {
    let mut options = AcceptOptions::default();
    options.channel_bindings = bindings.map(ChannelBindings::new);
    if !spnego {
        return Acceptor::accept_token_with(keytab, token, &options);
    }
    let mut acceptor = SpnegoAcceptor::with_options(keytab, options);
    let reply = acceptor.step(token)?.unwrap();
    assert!(acceptor.is_spnego() && acceptor.is_established());
    Ok((acceptor.into_context().unwrap(), reply))
}

#[test]
fn sealed_messages_pass_in_both_directions() {
    for (enctype, header) in ENCTYPES.into_iter().zip([60, 60, 64, 72]) {
        for spnego in [true, false] {
            let (mut ours, theirs) = established(enctype, spnego, None);
            let theirs = theirs.per_message_tokens().unwrap();
            let mut numbers = Vec::new();
            for (number, size) in [0, 1, 15, 16, 17, 4096, 100_000].into_iter().enumerate() {
                let message: Vec<u8> = (0..size).map(|at| (at * 31 % 251) as u8).collect();
                let mut data = message.clone();
                let token = ours.wrap(&mut data).unwrap();
                // EC 0, and rotated by the inner header and the checksum, as SSPI does.
                assert_eq!((token.len(), data.len()), (header, size));
                assert_eq!(&token[4..8], [0, 0, 0, (header - 32) as u8]);
                let opened = theirs.unwrap(&[token, data].concat()).unwrap();
                assert_eq!(opened.message, message);
                numbers.push(opened.seq);

                let answer = theirs.emit_wrap_full(7 + number as u64, &message, 0, (header - 32) as u16, None).unwrap();
                let mut sealed = answer.clone();
                let place = ours.unwrap(&mut sealed, header).unwrap();
                assert_eq!(&sealed[place], message);
            }
            assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
        }
    }
}

#[test]
fn any_layout_of_an_honest_acceptor_is_read() {
    for enctype in ENCTYPES {
        let (mut ours, theirs) = established(enctype, true, None);
        let theirs = theirs.per_message_tokens().unwrap();
        let mut number = 0;
        for filler in [0, 1, 16, 300] {
            for rotation in [0, 1, 12, 28, 44, 1000, u16::MAX] {
                for message in [&b""[..], b"x", b"a message of some more bytes than one block has"] {
                    number += 1;
                    let mut sealed = theirs.emit_wrap_full(number, message, filler, rotation, None).unwrap();
                    let place = ours.unwrap(&mut sealed, 16).unwrap();
                    assert_eq!(&sealed[place], message, "{filler} {rotation}");
                }
            }
        }
        // Whoever does not number messages is believed, and is told apart by message ids.
        let (mut ours, theirs) = established(enctype, true, None);
        let theirs = theirs.per_message_tokens().unwrap();
        for _ in 0..3 {
            let mut sealed = theirs.emit_wrap(0, b"unnumbered").unwrap();
            assert!(ours.unwrap(&mut sealed, 60).is_ok());
        }
    }
}

#[test]
fn what_was_changed_repeated_reflected_or_not_sealed_is_refused() {
    for case in 0..7 {
        let (mut ours, theirs) = established(18, true, None);
        let tokens = theirs.per_message_tokens().unwrap();
        let mut first = tokens.emit_wrap(5, b"first").unwrap();
        let again = first.clone();
        ours.unwrap(&mut first, 60).unwrap();
        let mut sealed = tokens.emit_wrap(6, b"second").unwrap();
        match case {
            0 => *sealed.last_mut().unwrap() ^= 1,
            1 => sealed[15] ^= 1,
            2 => sealed.truncate(20),
            3 => sealed = again,
            4 => sealed = tokens.emit_wrap_unsealed(6, b"second", 0).unwrap(),
            5 => {
                let mut data = b"ours".to_vec();
                sealed = ours.wrap(&mut data).unwrap();
                sealed.extend(data);
            }
            _ => sealed.clear(),
        }
        assert!(matches!(ours.unwrap(&mut sealed, 60), Err(ContextError::Message(_))), "{case}");
        assert!(!ours.is_complete() && ours.wrap(&mut [1]).is_err() && ours.step(&[]).is_err());
        assert!(ours.unwrap(&mut tokens.emit_wrap(8, b"third").unwrap(), 60).is_err());
    }
}

#[test]
fn channel_bindings_are_those_of_the_connection_or_the_ticket_is_refused() {
    for spnego in [true, false] {
        established(18, spnego, Some(BINDINGS));
        let (ticket, keytab) = mint(18, ["HTTP", "win01"]);
        let token = context(ticket, spnego, Some(BINDINGS)).step(&[]).unwrap();
        let other = Some(&b"tls-server-end-point:another"[..]);
        assert!(matches!(accept(&token, &keytab, spnego, other), Err(KerberosError::BadBindings(_))));
        let (ticket, keytab) = mint(18, ["HTTP", "win01"]);
        let token = context(ticket, spnego, None).step(&[]).unwrap();
        // The acceptor cannot tell us from an older client.
        assert!(accept(&token, &keytab, spnego, Some(BINDINGS)).is_ok());
    }
}

#[test]
fn a_forwarded_ticket_reaches_the_host_and_nothing_else_does() {
    for spnego in [true, false] {
        let (mut ticket, keytab) = mint(18, ["HTTP", "win01"]);
        let forwarded = Arc::new(credentials(&Key::random(18).unwrap(), &["krbtgt", REALM]));
        ticket.forwarded = Some(Arc::clone(&forwarded));
        let token = context(ticket.clone(), spnego, None).step(&[]).unwrap();
        let (acceptor, _) = accept(&token, &keytab, spnego, None).unwrap();
        assert_eq!(acceptor.delegated.unwrap().ticket, forwarded.ticket);
        ticket.forwarded = None;
        let token = context(ticket, spnego, None).step(&[]).unwrap();
        assert!(accept(&token, &keytab, spnego, None).unwrap().0.delegated.is_none());
    }
}

/// KRB-ERROR (RFC 4120, 5.9.1), framed as a GSS token.
fn krb_error(code: i32, host_time: u32) -> Vec<u8> {
    let fields = [
        der(0xa0, &int(5)),
        der(0xa1, &int(30)),
        der(0xa4, &time(host_time)),
        der(0xa5, &int(0)),
        der(0xa6, &int(code)),
        der(0xa9, &text(REALM)),
        der(0xaa, &name(2, &["HTTP", "win01"])),
        der(0xab, &text("some\r\ntext")),
    ];
    let error = der(0x7e, &der(0x30, &fields.concat()));
    der(0x60, &[&der(0x06, KERBEROS)[..], &[3, 0], &error].concat())
}

const KERBEROS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 1, 2, 2];
const NTLM: &[u8] = &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 2, 2, 10];

/// NegTokenResp (RFC 4178, 4.2.2).
fn neg_token_resp(state: u8, mechanism: Option<&[u8]>, token: Option<&[u8]>) -> Vec<u8> {
    let fields = [
        der(0xa0, &der(0x0a, &[state])),
        mechanism.map(|oid| der(0xa1, &der(0x06, oid))).unwrap_or_default(),
        token.map(|token| der(0xa2, &der(0x04, token))).unwrap_or_default(),
    ];
    der(0xa1, &der(0x30, &fields.concat()))
}

#[test]
fn what_the_host_says_is_understood() {
    let now = u32::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let refusal = |spnego: bool, token: &[u8]| {
        let mut context = context(mint(18, ["HTTP", "win01"]).0, spnego, None);
        context.step(&[]).unwrap();
        let result = context.step(token);
        assert!(context.step(token).is_err() && !context.is_complete());
        match result {
            Err(ContextError::Refused(refusal)) => refusal,
            other => panic!("{other:?}"),
        }
    };
    for (code, expected, told) in [
        (41, Refusal::WrongKey, "auth.ticket_wrong_key"),
        (45, Refusal::WrongKey, "auth.ticket_wrong_key"),
        (32, Refusal::Expired, "auth.ticket_not_valid"),
        (33, Refusal::NotYetValid, "auth.ticket_not_valid"),
        (34, Refusal::Replayed, "auth.ticket_replayed"),
        (60, Refusal::Other { code: 60, text: Some("sometext".into()) }, "auth.ticket_refused"),
    ] {
        let error = krb_error(code, now);
        let kind = ErrorKind::TicketRefused {
            service: "HTTP/win01".into(),
            refusal: refusal(false, &error),
            over_tls: false,
            kept: false,
        };
        assert_eq!(Error::new(Stage::Authenticate, kind).code(), told);
        assert_eq!(refusal(false, &error), expected);
        assert_eq!(refusal(true, &neg_token_resp(2, None, Some(&error))), expected);
        assert_eq!(refusal(true, &neg_token_resp(1, Some(KERBEROS), Some(&error))), expected);
    }
    for offset in [-7200, 600] {
        let error = krb_error(37, now.checked_add_signed(offset).unwrap());
        let Refusal::ClockSkew { ahead: Some(ahead) } = refusal(true, &neg_token_resp(2, None, Some(&error))) else {
            panic!("no offset");
        };
        assert!((ahead - i64::from(offset)).abs() < 30, "{ahead}");
    }
    assert_eq!(refusal(true, &neg_token_resp(2, None, None)), Refusal::Unsaid);
    assert_eq!(refusal(true, &neg_token_resp(2, Some(KERBEROS), None)), Refusal::Unsaid);
    assert_eq!(refusal(true, &neg_token_resp(1, Some(NTLM), None)), Refusal::OtherMechanism);
    assert_eq!(refusal(true, &neg_token_resp(3, Some(NTLM), None)), Refusal::OtherMechanism);
}

#[test]
fn a_host_that_does_not_prove_itself_gets_nothing() {
    for spnego in [true, false] {
        let (ticket, keytab) = mint(18, ["HTTP", "win01"]);
        let mut honest = context(ticket.clone(), spnego, None);
        let (_, reply) = accept(&honest.step(&[]).unwrap(), &keytab, spnego, None).unwrap();
        // The answer to another request, a changed one, and none at all.
        let mut changed = reply.clone();
        *changed.last_mut().unwrap() ^= 1;
        for answer in [&reply[..], &changed, b"", &neg_token_resp(0, Some(KERBEROS), None)] {
            let mut context = context(ticket.clone(), spnego, None);
            context.step(&[]).unwrap();
            assert!(context.step(answer).is_err());
            assert!(!context.is_complete() && context.wrap(&mut [1]).is_err());
        }
    }
}

#[test]
fn nothing_secret_is_shown() {
    let (ticket, _) = mint(18, ["HTTP", "win01"]);
    let shown = format!("{ticket:?}");
    assert_eq!(
        shown,
        "Ticket { client: \"alice@CORP.EXAMPLE\", server: \"HTTP/win01@CORP.EXAMPLE\", forwarded: false, .. }"
    );
    let context = KerberosContext::spnego(ticket, None);
    assert_eq!(format!("{context:?}"), "KerberosContext { state: \"ready\", .. }");
}

proptest! {
    #[test]
    fn no_token_and_no_message_is_a_panic(
        garbage in any::<Vec<u8>>(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        spnego in any::<bool>(),
    ) {
        let (ticket, keytab) = mint(19, ["HTTP", "win01"]);
        let mut honest = context(ticket.clone(), spnego, None);
        let (acceptor, reply) = accept(&honest.step(&[]).unwrap(), &keytab, spnego, None).unwrap();
        let message = acceptor.per_message_tokens().unwrap().emit_wrap_full(1, b"message", 3, 5, None).unwrap();
        let error = krb_error(37, 1_700_000_000);
        for original in [&reply, &message, &error, &neg_token_resp(2, Some(KERBEROS), Some(&error)), &garbage] {
            let mut token = original.clone();
            for (at, byte) in &edits {
                if !token.is_empty() {
                    let at = at.index(token.len());
                    token[at] = *byte;
                }
            }
            token.truncate(cut.index(token.len() + 1));
            let mut context = context(ticket.clone(), spnego, None);
            context.step(&[]).unwrap();
            prop_assert!(context.step(&token).is_err(), "the answer to another request");
        }
        honest.step(&reply).unwrap();
        let mut sealed = message.clone();
        for (at, byte) in &edits {
            let at = at.index(sealed.len());
            sealed[at] = *byte;
        }
        sealed.truncate(cut.index(sealed.len() + 1));
        if let Ok(place) = honest.unwrap(&mut sealed, 16) {
            prop_assert_eq!(&sealed[place], b"message");
        }
    }
}
