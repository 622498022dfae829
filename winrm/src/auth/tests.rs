use super::*;

/// A mechanism of two tokens each way: `one`, then `two`, then `done` from the peer.
#[derive(Debug, Default)]
struct Script {
    steps: usize,
    wants_last: bool,
    complete: bool,
}

impl SecurityContext for Script {
    fn scheme(&self) -> &'static str {
        "Negotiate"
    }
    fn protocol(&self) -> &'static str {
        "application/test"
    }
    fn step(&mut self, token: &[u8]) -> Result<Zeroizing<Vec<u8>>, ContextError> {
        self.steps += 1;
        let reply: &[u8] = match (self.steps, token) {
            (1, b"") => b"one",
            (2, b"challenge") => {
                self.complete = !self.wants_last;
                b"two"
            }
            (3, b"done") if self.wants_last => {
                self.complete = true;
                b""
            }
            (_, b"more") => b"again",
            _ => return Err(ContextError::Token("unexpected".into())),
        };
        Ok(Zeroizing::new(reply.to_vec()))
    }
    fn is_complete(&self) -> bool {
        self.complete
    }
    fn proof_sent(&self) -> bool {
        self.steps > 1 && self.steps < 4
    }
    fn wrap(&mut self, _: &mut [u8]) -> Result<Vec<u8>, ContextError> {
        Ok(Vec::new())
    }
    fn unwrap(&mut self, sealed: &mut [u8], header: usize) -> Result<Range<usize>, ContextError> {
        Ok(header..sealed.len())
    }
}

const CHALLENGE: &[u8] = b"Negotiate Y2hhbGxlbmdl";
const DONE: &[u8] = b"Negotiate ZG9uZQ==";

fn begin(context: &mut Script) -> Handshake {
    let (handshake, value) = Handshake::begin(context).unwrap();
    assert_eq!(*value, "Negotiate b25l");
    handshake
}

fn challenged(context: &mut Script) -> Handshake {
    let mut handshake = begin(context);
    match handshake.answer(context, 401, [&b"Kerberos, Basic realm=\"Negotiate\""[..], CHALLENGE]).unwrap() {
        Step::Send(value) => assert_eq!(*value, "Negotiate dHdv"),
        Step::Done => panic!("not done"),
    }
    handshake
}

#[test]
fn with_and_without_a_last_token() {
    let mut context = Script::default();
    assert!(matches!(challenged(&mut context).answer(&mut context, 200, []), Ok(Step::Done)));
    let mut context = Script { wants_last: true, ..Script::default() };
    assert!(matches!(challenged(&mut context).answer(&mut context, 200, [DONE]), Ok(Step::Done)));
}

#[test]
fn success_counts_only_when_all_was_said() {
    let mut context = Script { wants_last: true, ..Script::default() };
    assert_eq!(challenged(&mut context).answer(&mut context, 200, []).unwrap_err(), AuthError::Incomplete);
    let mut context = Script { wants_last: true, ..Script::default() };
    let forged = challenged(&mut context).answer(&mut context, 200, [CHALLENGE]).unwrap_err();
    assert!(matches!(forged, AuthError::Context(_)));
    let mut context = Script::default();
    assert_eq!(begin(&mut context).answer(&mut context, 200, []).unwrap_err(), AuthError::Incomplete);
}

#[test]
fn refusals_before_and_after_the_proof_are_told_apart() {
    let mut context = Script::default();
    let error = begin(&mut context).answer(&mut context, 401, [&b"Basic realm=\"x\", CredSSP, basic"[..]]).unwrap_err();
    assert_eq!(error, AuthError::Unavailable { scheme: "Negotiate", offered: "Basic, CredSSP".into() });
    let mut context = Script::default();
    let error = begin(&mut context).answer(&mut context, 401, []).unwrap_err();
    assert_eq!(error, AuthError::Unavailable { scheme: "Negotiate", offered: "nothing".into() });
    let mut context = Script::default();
    let error = begin(&mut context).answer(&mut context, 401, [&b"negotiate"[..]]).unwrap_err();
    assert_eq!(error, AuthError::Refused { scheme: "Negotiate" });
    for fields in [&[][..], &[&b"Negotiate"[..]], &[CHALLENGE], &[&b"Basic"[..]]] {
        let mut context = Script::default();
        let error = challenged(&mut context).answer(&mut context, 401, fields.iter().copied()).unwrap_err();
        assert_eq!(error, AuthError::Rejected);
    }
    for status in [100, 302, 400, 403, 500, 503] {
        let mut context = Script::default();
        let error = begin(&mut context).answer(&mut context, status, [CHALLENGE]).unwrap_err();
        assert_eq!(error, AuthError::Status(status));
    }
}

#[test]
fn tokens_are_bounded_and_the_exchange_ends() {
    let mut context = Script::default();
    let long = format!("Negotiate {}", "A".repeat(MAX_TOKEN + 4));
    let error = begin(&mut context).answer(&mut context, 401, [long.as_bytes()]).unwrap_err();
    assert_eq!(error, AuthError::Encoding);
    let mut context = Script::default();
    let error = begin(&mut context).answer(&mut context, 401, [&b"Negotiate abc"[..]]).unwrap_err();
    assert_eq!(error, AuthError::Encoding);

    // A peer that never has enough, with a mechanism that never sends its proof.
    let mut context = Script { steps: 10, ..Script::default() };
    let mut handshake = Handshake { legs: 1 };
    let mut legs = 1;
    let error = loop {
        match handshake.answer(&mut context, 401, [&b"Negotiate bW9yZQ=="[..]]) {
            Ok(_) => legs += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((error, legs), (AuthError::Endless, MAX_LEGS));
}
