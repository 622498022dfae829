//! What the engine asks of AWS KMS where the control plane itself reaches it, and who waits for the answer.
//!
//! An assignment that needs such a value is put aside, asked for, and sent when the answer is there. One question at a time for one
//! value, however many tasks wait for it. Values are kept for a minute, so that a crowd of tasks, and an agent that polls, find them.
//!
//! INVARIANT: what was put aside ends: it is sent, or its task fails; or, since its agent has never heard of it, it is decided anew
//! where that agent is gone, the task was cancelled, the credential is not what it was, or what failed may have passed.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use lictor_proto::v1::{Failure, KmsRecord};
use serde_json::json;
use tracing::{debug, warn};
use zeroize::Zeroizing;

use super::sealing::Written;
use super::{Engine, Refusal};
use crate::clock::Now;
use crate::dispatch::{Assign, SessionId};
use crate::failure;
use crate::oidc::Holder;
use crate::platform::{Done, Fetched, Place, Request, Unfetched, Work};
use crate::store::StoreError;
use crate::store::managers::ManagerRecord;

/// A value that an assignment waits for.
pub(super) struct Wish {
    pub(super) place: Place,
    pub(super) manager: Box<ManagerRecord>,
    pub(super) record: Box<KmsRecord>,
}

/// What is asked, and who waits.
#[derive(Default)]
pub(super) struct Fetching {
    next_ticket: u64,
    asked: HashMap<u64, Asked>,
    parked: Vec<Parked>,
    values: HashMap<Place, (Zeroizing<Vec<u8>>, Instant)>,
}

/// What a question was about.
pub(super) enum Asked {
    /// The value of a secret, which assignments wait for.
    Value(Place),
    /// A new version of a secret.
    Write(Box<Written>),
    /// A test, which is this task.
    Test(String),
}

/// An assignment that was put aside.
struct Parked {
    session: SessionId,
    assign: Assign,
    missing: HashSet<Place>,
    manager: String,
    until: Instant,
}

impl Fetching {
    /// A value that was fetched not long ago.
    pub(super) fn value(&self, place: &Place, now: Now) -> Option<Zeroizing<Vec<u8>>> {
        self.values.get(place).filter(|(_, until)| *until > now.instant).map(|(value, _)| value.clone())
    }

    /// When [`Engine::expire_fetching`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let parked = self.parked.iter().map(|parked| parked.until).min();
        parked.into_iter().chain(self.values.values().map(|(_, until)| *until).min()).min()
    }

    /// Everything is taken up anew from the database: what was put aside was never sent.
    pub(super) fn forget_parked(&mut self) {
        self.parked.clear();
    }

    /// An answer came of which nothing can be stored. Whoever waits for it learns that by its being dropped, or is taken up anew; left
    /// here, it would be waited for by all who want the same later, for ever.
    pub(super) fn drop_answer(&mut self, ticket: u64) {
        self.asked.remove(&ticket);
    }

    fn keep(&mut self, place: Place, value: Zeroizing<Vec<u8>>, now: Now) {
        if self.values.len() >= MAX_VALUES
            && let Some(oldest) =
                self.values.iter().min_by_key(|(_, (_, until))| *until).map(|(place, _)| place.clone())
        {
            self.values.remove(&oldest);
        }
        self.values.insert(place, (value, now.instant + KEEP));
    }

    pub(super) fn is_asked_for(&self, place: &Place) -> bool {
        self.asked.values().any(|asked| matches!(asked, Asked::Value(known) if known == place))
    }

    /// Takes out what waits for a value.
    fn take_parked(&mut self, place: &Place) -> Vec<Parked> {
        self.parked.extract_if(.., |parked| parked.missing.contains(place)).collect()
    }
}

impl Engine {
    /// Makes an assignment ready and sends it, puts it aside, or ends its task.
    pub(super) async fn hand_out(&mut self, session: SessionId, assign: Assign, now: Now) -> Result<(), StoreError> {
        let until = now.instant + longest_wait(&assign);
        self.hand_out_by(session, assign, until, now).await
    }

    /// The same for one that may have been put aside before: however often that is, it waits until then and no longer.
    async fn hand_out_by(
        &mut self,
        session: SessionId,
        assign: Assign,
        until: Instant,
        now: Now,
    ) -> Result<(), StoreError> {
        match self.assignment(&assign, now).await? {
            super::assignments::Made::Ready(event) => {
                self.parts.ledger.mark_unsent(&assign, false);
                self.outgoing.push((session, super::Ready::Event(event)));
            }
            super::assignments::Made::Failed(failure) => self.parts.ledger.assignment_failed(&assign, failure, now),
            super::assignments::Made::Waits(wishes) => self.put_aside(session, assign, wishes, until, now).await?,
        }
        Ok(())
    }

    async fn put_aside(
        &mut self,
        session: SessionId,
        assign: Assign,
        wishes: Vec<Wish>,
        until: Instant,
        now: Now,
    ) -> Result<(), StoreError> {
        let missing = wishes.iter().map(|wish| wish.place.clone()).collect();
        let manager = wishes.first().map(|wish| wish.manager.manager.identifier.clone()).unwrap_or_default();
        for wish in wishes {
            if self.fetching.is_asked_for(&wish.place) {
                continue;
            }
            let Wish { place, manager, record } = wish;
            let asked = Asked::Value(place.clone());
            if let Err((unfetched, _)) = self.ask_platform(&manager, place, Work::Open(*record), asked, now).await? {
                self.give_up(&assign, *unfetched, now);
                return Ok(());
            }
        }
        debug!(task_id = assign.task_id, epoch = assign.epoch, "Assignment waits for a secret");
        self.parts.ledger.mark_unsent(&assign, true);
        self.fetching.parked.push(Parked { session, assign, missing, manager, until });
        Ok(())
    }

    /// Asks the control plane's own way to AWS KMS. What could not be asked comes back.
    pub(super) async fn ask_platform(
        &mut self,
        manager: &ManagerRecord,
        place: Place,
        work: Work,
        asked: Asked,
        now: Now,
    ) -> Result<Result<(), (Box<Unfetched>, Asked)>, StoreError> {
        // A place first: nothing is made or noted down for what is not asked then.
        let Ok(way) = self.parts.platform.clone().try_reserve_owned() else {
            let failure = failure::manager_unusable(&manager.manager.identifier, "too much is asked of it at once");
            return Ok(Err((Box::new(Unfetched::passing(failure)), asked)));
        };
        let (access, keys) = match self.access(manager, Holder::ControlPlane, now).await? {
            Ok(found) => found,
            Err(failure) => return Ok(Err((Box::new(Unfetched::lasting(*failure)), asked))),
        };
        for (identifier, version) in keys {
            let details = json!({ "manager": manager.manager.identifier, "version": version, "why": ["manager"] });
            self.audit_use(&identifier, details, now).await?;
        }
        let ticket = self.fetching.next_ticket;
        self.fetching.next_ticket += 1;
        way.send(Request { ticket, access, place, work });
        self.fetching.asked.insert(ticket, asked);
        Ok(Ok(()))
    }

    /// An answer came.
    pub(super) async fn fetched(&mut self, fetched: Fetched, now: Now) -> Result<(), StoreError> {
        let Fetched { ticket, outcome } = fetched;
        match (self.fetching.asked.remove(&ticket), outcome) {
            (Some(Asked::Value(place)), Ok(Done::Value(value))) => {
                self.parts.metrics.secret_fetched("opened");
                self.fetching.keep(place.clone(), value, now);
                for mut parked in self.fetching.take_parked(&place) {
                    parked.missing.remove(&place);
                    if !parked.missing.is_empty() {
                        self.fetching.parked.push(parked);
                    } else if self.parts.ledger.awaits(&parked.assign, parked.session) {
                        self.hand_out_by(parked.session, parked.assign, parked.until, now).await?;
                    } else {
                        self.parts.ledger.never_sent(&parked.assign, now);
                    }
                }
            }
            (Some(Asked::Value(place)), outcome) => {
                let unfetched = failed(outcome, &place.identifier);
                self.parts.metrics.secret_fetched(if unfetched.passing { "unavailable" } else { "failed" });
                warn!(secret = place.identifier, code = unfetched.failure.code, "Secret could not be fetched");
                for parked in self.fetching.take_parked(&place) {
                    self.take_out(parked, unfetched.clone(), now);
                }
            }
            (Some(Asked::Write(written)), Ok(Done::Record(record))) => self.write_record(*written, record, now).await?,
            (Some(Asked::Write(written)), outcome) => {
                let failure = failed(outcome, &written.secret.identifier).failure;
                self.reply(written.reply, Err(refused(&failure)));
            }
            (Some(Asked::Test(task_id)), Ok(Done::Tested(result))) => {
                self.parts.ledger.done_here(&task_id, *result, now);
            }
            (Some(Asked::Test(task_id)), outcome) => {
                let failure = failed(outcome, &task_id).failure;
                let result = failure::result(lictor_proto::v1::TaskState::Failed, Some(failure));
                self.parts.ledger.done_here(&task_id, result, now);
            }
            (None, _) => {}
        }
        Ok(())
    }

    /// Somebody cancelled a task: what was put aside of it is not waited for.
    pub(super) fn cancel_parked(&mut self, task_id: &str, now: Now) {
        let parked: Vec<Parked> =
            self.fetching.parked.extract_if(.., |parked| parked.assign.task_id == task_id).collect();
        for parked in parked {
            let failure = failure::secret_not_fetched(&parked.manager, 0);
            self.take_out(parked, Unfetched::lasting(failure), now);
        }
    }

    /// Ends waits that are too long, and forgets values.
    pub(super) fn expire_fetching(&mut self, now: Now) {
        self.fetching.values.retain(|_, (_, until)| *until > now.instant);
        let late: Vec<Parked> = self.fetching.parked.extract_if(.., |parked| parked.until <= now.instant).collect();
        for parked in late {
            let failure = failure::secret_not_fetched(&parked.manager, longest_wait(&parked.assign).as_secs());
            self.take_out(parked, Unfetched::passing(failure), now);
        }
    }

    /// What was put aside is waited for no more.
    fn take_out(&mut self, parked: Parked, unfetched: Unfetched, now: Now) {
        if self.parts.ledger.awaits(&parked.assign, parked.session) {
            self.give_up(&parked.assign, unfetched, now);
        } else {
            self.parts.ledger.never_sent(&parked.assign, now);
        }
    }

    /// An assignment cannot be made ready. Its task ends, or is taken up again when what failed may have passed.
    fn give_up(&mut self, assign: &Assign, unfetched: Unfetched, now: Now) {
        let Unfetched { failure, passing } = unfetched;
        if passing {
            self.parts.ledger.assignment_hitched(assign, failure, now);
        } else {
            self.parts.ledger.assignment_failed(assign, failure, now);
        }
    }
}

/// The failure in an answer; an answer to another question is one, too.
fn failed(outcome: Result<Done, Box<Unfetched>>, identifier: &str) -> Unfetched {
    match outcome {
        Err(unfetched) => *unfetched,
        Ok(_) => {
            let failure = failure::secret_unusable(identifier, "the answer was to another question");
            Unfetched::lasting(failure)
        }
    }
}

/// A failure as the answer to a call.
pub(super) fn refused(failure: &Failure) -> Refusal {
    Refusal::Impossible(in_words(failure))
}

/// Code, message, and what to do.
pub(super) fn in_words(failure: &Failure) -> String {
    let Failure { code, message, remedy, .. } = failure;
    if remedy.is_empty() { format!("{code}: {message}") } else { format!("{code}: {message}. {remedy}") }
}

/// How long an assignment waits: not as long as its lease, which begins before it is sent. Else it would count as lost without ever having
/// been anywhere.
fn longest_wait(assign: &Assign) -> Duration {
    LONGEST_WAIT.min(assign.lease * 3 / 4)
}

/// Nor longer than that.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long a value is kept.
const KEEP: Duration = Duration::from_secs(60);
/// A quarter of a mebibyte each at the most.
const MAX_VALUES: usize = 64;
