//! The retry law: what may follow a failure, for the operation that met it. The one place where that is decided; pool and
//! leases ask it and obey.
//!
//! INVARIANT: a request that may have started a command, or may have fed one, is never sent again. What the codes of
//! faults mean is told by [`crate::fault`]; no text is ever searched.

use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::fault::{Meaning, Operation};

/// What may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Once more over another connection: nothing was written, or doing it twice changes nothing. For Receive, what the
    /// lost answer held is lost.
    Again,
    /// It surely did not happen, and never will in this shell: once more in another one.
    NewShell,
    /// It surely did not happen, and may later: once more after a pause.
    BackOff,
    /// It may have happened, and the host can still tell: ask it.
    Ask,
    /// It surely did not happen, and will not.
    Fail,
    /// It may have happened, and nobody can tell.
    Unknown,
}

/// What may follow `error` of `operation`. Failures to open a connection are failures of Create, before a shell is there.
pub(crate) fn next(operation: Operation, error: &Error) -> Next {
    use Operation::{Command, Create, Delete, Receive, Send, Signal};
    if error.credential_rejected() {
        // Rejected before anything was looked at; but trying it again locks accounts out.
        return if matches!(operation, Send | Receive) { Next::Unknown } else { Next::Fail };
    }
    if let Some(fault) = error.fault() {
        return match (fault.meaning(operation), operation) {
            (Meaning::NeedsNewShell, _) => Next::NewShell,
            (Meaning::BackOff, _) => Next::BackOff,
            // The answer is lost as on a broken wire, though the host took the trouble to say so.
            (Meaning::Ambiguous | Meaning::Accepted, Command) => Next::Ask,
            (_, Create | Command | Signal | Delete) => Next::Fail,
            // The command runs, or did: that its shell is lost says nothing about how it ended.
            (_, Send | Receive) => Next::Unknown,
        };
    }
    match (error.kind(), operation) {
        // HTTP.sys answers so while the service behind it starts or is overloaded.
        (ErrorKind::HttpStatus { status: 503 } | ErrorKind::SealPlainAnswer { status: 503 }, Create) => Next::BackOff,
        (_, Command | Send | Receive | Signal | Delete) if error.is_unsent() => Next::Again,
        // A shell that nobody knows may be there: it is looked for by its name, and the caller decides what to do.
        (_, Create) => Next::Fail,
        (_, Signal | Delete) => Next::Again,
        // The data may have arrived, and would be doubled.
        (_, Send) => Next::Unknown,
        // The socket died, not the shell.
        (_, Command) if is_lost(error) => Next::Ask,
        (_, Receive) if is_lost(error) => Next::Again,
        // Whoever answers with something else than WS-Management cannot be believed in the next answer either.
        (_, Command | Receive) => Next::Unknown,
    }
}

/// Whether an answer got lost together with its connection, while the shell may live on. What is not sealed on a sealed
/// connection may come from anybody, so it says no more than that the answer is missing.
fn is_lost(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionClosed
            | ErrorKind::ConnectionUnusable
            | ErrorKind::HttpProtocol { .. }
            | ErrorKind::HttpStatus { .. }
            | ErrorKind::ReadTimeout { .. }
            | ErrorKind::AuthLost
            | ErrorKind::SealPlainAnswer { .. }
    )
}

/// Pauses between attempts: they double, up to eight seconds, and differ at random so that many who wait for the same host
/// do not come back together.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    taken: u32,
}

impl Pauses {
    /// The next pause.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.taken.min(5)).min(LONGEST_PAUSE);
        self.taken += 1;
        pause.mul_f64(rand::random_range(0.75..1.25))
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// How long something that a host puts off is tried, where the caller gives no deadline.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Stage;
    use crate::fault::Fault;

    const ALL: [Operation; 6] = [
        Operation::Create,
        Operation::Command,
        Operation::Send,
        Operation::Receive,
        Operation::Signal,
        Operation::Delete,
    ];

    fn all(error: &Error) -> [Next; 6] {
        ALL.map(|operation| next(operation, error))
    }

    fn fault(code: u32) -> Error {
        Error::new(Stage::Run, ErrorKind::Fault(Fault { code: Some(code), ..Fault::default() }))
    }

    #[test]
    fn a_lost_answer_is_never_made_up_for_by_a_second_command_or_input() {
        use Next::*;
        let lost = Error::new(Stage::Run, ErrorKind::ConnectionClosed);
        assert_eq!(all(&lost), [Fail, Ask, Unknown, Again, Again, Again]);
        let unsent = Error::new(Stage::Run, ErrorKind::ConnectionClosed).unsent();
        assert_eq!(all(&unsent), [Fail, Again, Again, Again, Again, Again]);
        let malformed = Error::new(Stage::Run, ErrorKind::SoapMalformed { detail: String::new() });
        assert_eq!(all(&malformed), [Fail, Unknown, Unknown, Unknown, Again, Again]);
        let starting = Error::new(Stage::Run, ErrorKind::HttpStatus { status: 503 });
        assert_eq!(all(&starting), [BackOff, Ask, Unknown, Again, Again, Again]);
        // HTTP.sys cannot seal.
        let starting = Error::new(Stage::Run, ErrorKind::SealPlainAnswer { status: 503 });
        assert_eq!(all(&starting), [BackOff, Ask, Unknown, Again, Again, Again]);
    }

    #[test]
    fn faults_follow_their_meaning() {
        use Next::*;
        // Too many shells, too many operations, too many per time: nothing happened, and other operations wait as well.
        assert_eq!(all(&fault(2_150_859_173))[..4], [BackOff, BackOff, BackOff, BackOff]);
        assert_eq!(all(&fault(2_150_859_174))[..4], [BackOff, NewShell, BackOff, BackOff]);
        assert_eq!(all(&fault(2_150_859_175))[..4], [BackOff, BackOff, BackOff, BackOff]);
        // The shell is gone.
        assert_eq!(all(&fault(2_150_858_843))[..4], [Fail, NewShell, Unknown, Unknown]);
        // OperationTimeout of Command: it may have been taken.
        assert_eq!(next(Operation::Command, &fault(2_150_858_793)), Ask);
        assert_eq!(next(Operation::Command, &fault(5)), Fail);
    }

    #[test]
    fn a_rejected_credential_is_not_tried_again_by_anything() {
        let user = String::from("alice");
        let rejected = Error::new(Stage::Authenticate, ErrorKind::AuthRejectedBefore { user }).unsent();
        assert!(all(&rejected).iter().all(|next| matches!(next, Next::Fail | Next::Unknown)));
        assert!(all(&fault(1326)).iter().all(|next| matches!(next, Next::Fail | Next::Unknown)));
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        let mut pauses = Pauses::default();
        let taken: Vec<Duration> = (0..10).map(|_| pauses.next()).collect();
        assert!(taken[0] <= Duration::from_millis(313) && taken[9] >= Duration::from_secs(6), "{taken:?}");
        assert!(taken.iter().all(|pause| *pause <= LONGEST_PAUSE.mul_f64(1.25)));
    }
}
