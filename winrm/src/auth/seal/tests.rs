use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;

/// Turns bits over, and takes a checksum of one byte as its header.
#[derive(Debug)]
struct Mirror;

const PROTOCOL: &str = "application/HTTP-SPNEGO-session-encrypted";

impl SecurityContext for Mirror {
    fn scheme(&self) -> &'static str {
        "Negotiate"
    }
    fn protocol(&self) -> &'static str {
        PROTOCOL
    }
    fn step(&mut self, _: &[u8]) -> Result<Zeroizing<Vec<u8>>, ContextError> {
        Ok(Zeroizing::default())
    }
    fn is_complete(&self) -> bool {
        true
    }
    fn proof_sent(&self) -> bool {
        true
    }
    fn wrap(&mut self, data: &mut [u8]) -> Result<Vec<u8>, ContextError> {
        let sum = data.iter().fold(7, |sum: u8, byte| sum.wrapping_mul(31).wrapping_add(*byte));
        data.iter_mut().for_each(|byte| *byte = !*byte);
        Ok(vec![sum; 16])
    }
    fn unwrap(&mut self, sealed: &mut [u8], header: usize) -> Result<Range<usize>, ContextError> {
        let end = sealed.len();
        let (header, data) = sealed.split_at_mut(header);
        data.iter_mut().for_each(|byte| *byte = !*byte);
        let sum = data.iter().fold(7, |sum: u8, byte| sum.wrapping_mul(31).wrapping_add(*byte));
        if header == [sum; 16] { Ok(16..end) } else { Err(ContextError::Message("altered".into())) }
    }
}

fn sealed(message: &[u8]) -> Vec<u8> {
    seal(&mut Mirror, Bytes::copy_from_slice(message)).unwrap().concat()
}

fn opened(body: &[u8]) -> Result<Bytes, SealError> {
    open(&mut Mirror, BytesMut::from(body))
}

fn altered(body: &[u8], from: &str, to: &str) -> Vec<u8> {
    let at = body.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    [&body[..at], to.as_bytes(), &body[at + from.len()..]].concat()
}

/// [MS-WSMV] 2.2.9.1.1.2.1, and no line break before the closing boundary.
#[test]
fn the_form_is_that_of_the_specification() {
    let body = sealed(b"\xff\xfe");
    let expected = b"--Encrypted Boundary\r\n\
        \tContent-Type: application/HTTP-SPNEGO-session-encrypted\r\n\
        \tOriginalContent: type=application/soap+xml;charset=UTF-8;Length=2\r\n\
        --Encrypted Boundary\r\n\
        \tContent-Type: application/octet-stream\r\n\
        \x10\0\0\0";
    assert_eq!(&body[..expected.len()], expected);
    assert_eq!(&body[expected.len() + 16..], b"\0\x01--Encrypted Boundary--\r\n");
    assert_eq!(
        content_type(PROTOCOL),
        "multipart/encrypted;protocol=\"application/HTTP-SPNEGO-session-encrypted\";boundary=\"Encrypted Boundary\""
    );
}

#[test]
fn the_message_keeps_its_buffer() {
    let message = Bytes::from(vec![1; 1000]);
    let place = message.as_ptr();
    let [_, data, _] = seal(&mut Mirror, message).unwrap();
    assert_eq!(data.as_ptr(), place);

    let shared = Bytes::from(vec![1; 1000]);
    let mine = shared.clone();
    seal(&mut Mirror, shared).unwrap();
    assert_eq!(mine, vec![1; 1000]);

    let body = BytesMut::from(&*sealed(&[5; 1000]));
    let range = body.as_ptr_range();
    assert!(range.contains(&open(&mut Mirror, body).unwrap().as_ptr()));
}

#[test]
fn forms_that_real_servers_write() {
    let body = sealed(b"hello");
    let exchange = altered(&altered(&body, "--Encrypted", "-- Encrypted"), "\r\n--Encrypted", "\r\n-- Encrypted");
    assert_eq!(opened(&exchange).unwrap(), "hello");
    let end = exchange.len() - CLOSING.len();
    let exchange = [&exchange[..end], b"-- Encrypted Boundary--\r\n"].concat();
    assert_eq!(opened(&exchange).unwrap(), "hello");
    assert_eq!(opened(&body[..body.len() - 2]).unwrap(), "hello");
    assert_eq!(opened(&altered(&body, "\tContent-Type: app", "Content-type:app")).unwrap(), "hello");
    for field in [
        &b"multipart/encrypted;protocol=\"application/HTTP-SPNEGO-session-encrypted\";boundary=\"Encrypted Boundary\""
            [..],
        b"Multipart/Encrypted ; boundary=x; PROTOCOL = application/http-spnego-session-encrypted",
    ] {
        assert!(is_sealed(field, PROTOCOL));
    }
    for field in [
        &b"application/soap+xml;charset=UTF-8"[..],
        b"multipart/encrypted;boundary=\"Encrypted Boundary\"",
        b"multipart/encrypted;protocol=\"application/HTTP-Kerberos-session-encrypted\"",
        b"multipart/mixed;protocol=\"application/HTTP-SPNEGO-session-encrypted\"",
        b"\xff",
    ] {
        assert!(!is_sealed(field, PROTOCOL));
    }
}

#[test]
fn every_truncation_is_noticed() {
    let body = sealed(b"a message of some length");
    // The last line break may be missing.
    for length in 0..body.len() - 2 {
        assert_eq!(opened(&body[..length]).unwrap_err(), SealError::Truncated, "{length} of {}", body.len());
    }
}

#[test]
fn what_is_not_exactly_right_is_refused() {
    let body = sealed(b"hello");
    for (from, to) in [
        (
            "--Encrypted Boundary\r\n\tContent-Type: application/HTTP",
            "--Other Boundary\r\n\tContent-Type: application/HTTP",
        ),
        ("HTTP-SPNEGO", "HTTP-CredSSP"),
        ("Length=5", "Length=x"),
        ("Length=5", "Length="),
        ("Length=5", "Length=-5"),
        ("Length=5", "Length=99999999999"),
        ("Length=5", "Length=5;Length=5"),
        ("Length=5", "Size=5"),
        ("\tOriginalContent:", "\tOriginalLength:"),
        ("\tOriginalContent:", "\tOriginalContent: Length=5\r\n\tOriginalContent:"),
        ("\tOriginalContent:", "\tOriginalContent"),
        ("octet-stream", "octets"),
        ("\x10\0\0\0", "\0\0\0\x7f"),
        ("\x10\0\0\0", "\x01\x04\0\0"),
    ] {
        let error = opened(&altered(&body, from, to)).unwrap_err();
        assert!(matches!(error, SealError::Malformed(_)), "{from:?} to {to:?}: {error}");
    }
    let fields = "\tX: y\r\n".repeat(20) + "\tOriginalContent:";
    assert!(matches!(opened(&altered(&body, "\tOriginalContent:", &fields)), Err(SealError::Malformed(_))));
    let long = format!("\tX: {}\r\n\tOriginalContent:", "y".repeat(MAX_LINE));
    assert!(matches!(opened(&altered(&body, "\tOriginalContent:", &long)), Err(SealError::Malformed(_))));
    assert!(matches!(opened(&[&body[..], b"more"].concat()), Err(SealError::Malformed(_))));
    assert!(matches!(opened(b"<s:Envelope>".repeat(100).as_slice()), Err(SealError::Malformed(_))));

    let two = altered(&body, "Length=5", "Length=4");
    assert_eq!(opened(&two).unwrap_err(), SealError::Length { promised: 4, actual: 5 });
    let mut damaged = body.clone();
    let at = body.len() - CLOSING.len() - 1;
    damaged[at] ^= 1;
    assert!(matches!(opened(&damaged), Err(SealError::Context(_))));
}

proptest! {
    #[test]
    fn messages_come_back_whatever_they_hold(
        pieces in proptest::collection::vec(
            prop_oneof![
                any::<Vec<u8>>(),
                // Turned over, these are the framing's own text inside the ciphertext.
                Just(CLOSING.bytes().map(|byte| !byte).collect()),
                Just(b"-- Encrypted Boundary\r\n\tContent-Type: application/octet-stream\r\n".iter().map(|byte| !byte).collect()),
                Just(vec![!b'-', !b'-', !b' ']),
            ],
            0..6,
        ),
    ) {
        let message = pieces.concat();
        prop_assert_eq!(opened(&sealed(&message)).unwrap(), message);
    }

    #[test]
    fn no_body_is_a_panic(
        body in any::<Vec<u8>>(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3usize), 0..8),
    ) {
        let _ = opened(&body);
        let mut body = sealed(&body);
        for (at, byte, edit) in edits {
            let at = at.index(body.len());
            match edit {
                0 => body[at] = byte,
                1 => body.insert(at, byte),
                _ => { body.remove(at); }
            }
        }
        let _ = opened(&body);
    }
}
