//! Commands that an earlier process started: found again by the identifiers of shell and command, followed to their end or
//! stopped.
//!
//! The shell outlives the process that opened it, and holds the command's output back until somebody receives it. It must
//! never start anything. A shell that was taken over serves no other command: it is deleted afterwards.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::time::Instant;
use uuid::Uuid;

use super::key::Key;
use super::lease::{ASK_PATIENCE, Lease, Patience, Waiting, trouble_error};
use super::places::{Grant, Pooled};
use super::running::Running;
use super::verdicts::settle;
use super::{Pool, Queue};
use crate::error::{Error, ErrorKind, Stage};
use crate::fault::{Meaning, Operation};
use crate::session::{Session, fault_error};
use crate::shell::{Execution, Turn};
use crate::target::Target;
use crate::wsman::Response;

impl Pool {
    /// A shell of an earlier process is going to be taken over: it is not deleted as one that was left behind.
    pub fn spare(&self, shell_id: &str) {
        self.0.names.spare(shell_id);
    }

    /// Takes [`Pool::spare`] back: the shell was taken over, or nobody will.
    pub fn spare_no_more(&self, shell_id: &str) {
        self.0.names.spare_no_more(shell_id);
    }

    /// Lends a session on a shell that is there already, with a command in it that somebody else started: go on with
    /// [`Lease::follow`]. Sends nothing yet. Dropping the lease ends the command and deletes the shell, in the background.
    ///
    /// # Errors
    /// [`Error`] with code `pool.timeout` when no place for a session was free by `deadline`.
    pub async fn attach(
        &self,
        target: &Target,
        shell_id: &str,
        command_id: Uuid,
        deadline: Instant,
    ) -> Result<Lease, Error> {
        let inner = &self.0;
        inner.watch();
        let key = Key::new(target, &inner.verdicts);
        let apart = Arc::new(key.clone().apart());
        let Grant::New(mut slot) = Queue::new(inner, &apart, deadline).wait(target).await? else {
            return Err(Error::new(Stage::Connect, ErrorKind::SessionInDoubt).unsent());
        };
        slot.serve_last();
        slot.charge();
        let mut session = Session::new(target.clone(), inner.names.prefix());
        session.attach(shell_id);
        inner.shell_taken_over();
        let pooled = Pooled { session, key: Arc::new(key), slot };
        let mut lease = Lease::of(Arc::clone(inner), Some(pooled), Handle::current());
        lease.in_doubt = Some(command_id);
        lease.count();
        Ok(lease)
    }
}

impl Lease {
    /// Follows the command of [`Pool::attach`], or one that was left in the middle. A host that cannot be reached is tried
    /// until patience is at its end. Its output counts as incomplete.
    ///
    /// # Errors
    /// [`Error`] of stage `receive`, or of opening the connection: the command may have run to its end, or may go on. A shell
    /// or command that the host does not know is a fault.
    pub async fn follow(&mut self, patience: Patience) -> Result<Running<'_>, Error> {
        let Some(command_id) = self.in_doubt else {
            return Err(Error::new(Stage::Receive, ErrorKind::SessionInDoubt).unsent());
        };
        let inner = Arc::clone(&self.inner);
        let mut patience = Waiting::new(patience);
        let mut execution = Execution::attached(command_id);
        let from = self.session()?.exchanges();
        let turn = Turn::Receive { patience: ASK_PATIENCE };
        loop {
            let session = self.session()?;
            let asked = async {
                let attempt =
                    if session.is_connected() { None } else { inner.reconnect(session, session.soon()).await? };
                let result = session.turn(command_id, &turn).await;
                settle(attempt, &result);
                inner.heard(session, result)
            };
            let error = match asked.await {
                Ok(Response::Fault(fault)) if fault.meaning(Operation::Receive) == Meaning::BackOff => {
                    fault_error(Stage::Receive, fault)
                }
                Ok(response) => {
                    execution.answer(&turn, response).map_err(|trouble| trouble_error(Stage::Receive, trouble))?;
                    return Ok(Running::new(self, execution, from));
                }
                Err(error) => error,
            };
            if error.credential_rejected() || !patience.wait(&inner).await {
                return Err(error.after_start());
            }
        }
    }
}
