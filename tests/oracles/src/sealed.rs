//! Sealed bodies, with a security context that is easy to check.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use lictor_winrm::auth::seal::{self, SealError};
use lictor_winrm::auth::{ContextError, SecurityContext};
use zeroize::Zeroizing;

const PROTOCOL: &str = "application/HTTP-SPNEGO-session-encrypted";

/// Any bytes as a sealed body, and as a message to be sealed.
///
/// - What is opened lies in the body, was verified exactly once, and comes back from sealing it again.
/// - A body that is refused for its form was never shown to the context.
/// - What was sealed is opened again, cut anywhere it is refused, and with any byte changed it is refused or is still the
///   same message.
/// - A `Content-Type` is sealed only when it names the protocol.
pub fn sealed(data: &[u8]) {
    any_body(data);
    let sealed = seal_whole(data);
    assert_eq!(open(&sealed).0.as_deref(), Ok(data));
    // One place to cut and one byte to change, taken from the data, so that any input tries other ones.
    let at = data.iter().take(8).fold(0, |at: usize, byte| at.wrapping_mul(251).wrapping_add(usize::from(*byte)));
    let cut = at % sealed.len();
    // The line break at the end is not part of it: some hosts leave it out.
    if cut < sealed.len() - 2 {
        let opened = open(&sealed[..cut]).0;
        assert!(opened.is_err(), "opened after {cut} of {} bytes", sealed.len());
    }
    let mut changed = sealed.clone();
    changed[cut] ^= data.last().copied().unwrap_or_default().max(1);
    if let Ok(message) = open(&changed).0 {
        assert_eq!(message, data, "another message after a change at {cut}");
    }
    content_type(data);
}

fn any_body(data: &[u8]) {
    let layout = seal::parse(data, PROTOCOL);
    let (opened, shown) = open(data);
    match (&opened, &layout) {
        (Ok(message), Ok(layout)) => {
            assert_eq!(shown, 1, "believed without being verified once");
            assert_eq!((layout.data.len(), message.len()), (layout.length, layout.length));
            assert!(data.starts_with(b"--Encrypted Boundary\r\n") || data.starts_with(b"-- Encrypted Boundary\r\n"));
            assert!(layout.header.end == layout.data.start && layout.data.end <= data.len(), "{layout:?}");
            assert_eq!(open(&seal_whole(message)).0.as_ref(), Ok(message));
        }
        (Err(SealError::Context(_)), Ok(_)) => assert_eq!(shown, 1),
        (Err(SealError::Length { promised, actual }), Ok(layout)) => {
            assert_eq!((shown, *promised, *actual), (1, layout.length, layout.data.len()));
        }
        (Err(error), Err(same)) => assert_eq!((shown, error), (0, same)),
        other => panic!("parsing and opening disagree: {other:?}"),
    }
}

fn content_type(data: &[u8]) {
    assert!(seal::is_sealed(seal::content_type(PROTOCOL).as_bytes(), PROTOCOL));
    if seal::is_sealed(data, PROTOCOL) {
        let text = String::from_utf8_lossy(data).to_ascii_lowercase();
        assert!(text.contains("multipart/encrypted") && text.contains(&PROTOCOL.to_ascii_lowercase()));
    }
}

fn seal_whole(message: &[u8]) -> Vec<u8> {
    let pieces = seal::seal(&mut Mirror::default(), Bytes::copy_from_slice(message));
    pieces.map(|pieces| pieces.concat()).unwrap_or_default()
}

/// The result, and how often the context was asked.
fn open(body: &[u8]) -> (Result<Bytes, SealError>, u32) {
    let mut context = Mirror::default();
    let result = seal::open(&mut context, BytesMut::from(body));
    (result, context.asked)
}

/// Turns bits over and signs with a checksum of eight bytes, written twice.
#[derive(Debug, Default)]
struct Mirror {
    asked: u32,
}

impl Mirror {
    fn signature(data: &[u8]) -> [u8; 16] {
        // FNV-1a: any change of one byte changes it.
        let sum = data
            .iter()
            .fold(0xCBF2_9CE4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3));
        std::array::from_fn(|at| sum.to_le_bytes()[at % 8])
    }
}

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
        let signature = Self::signature(data);
        data.iter_mut().for_each(|byte| *byte = !*byte);
        Ok(signature.to_vec())
    }
    fn unwrap(&mut self, sealed: &mut [u8], header: usize) -> Result<Range<usize>, ContextError> {
        self.asked += 1;
        let end = sealed.len();
        let (signature, data) = sealed.split_at_mut(header);
        data.iter_mut().for_each(|byte| *byte = !*byte);
        if *signature == Self::signature(data) { Ok(header..end) } else { Err(ContextError::Message("altered".into())) }
    }
}
