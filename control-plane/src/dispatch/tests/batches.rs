//! Batches: how many run, when they stop, what is tried again.

use lictor_proto::v1::{BatchProgress, Rung, RungOutcome};

use super::*;

/// More than the longest pause before a second try.
const PAUSE: Duration = Duration::from_secs(2);

impl World {
    pub(super) fn submit_batch(
        &mut self,
        id: &str,
        tasks: u32,
        concurrency: u32,
        threshold: Option<Threshold>,
        retries: u32,
    ) {
        let progress = BatchProgress { total: tasks, waiting: tasks, ..BatchProgress::default() };
        let batch_id: Arc<str> = id.into();
        let entry = BatchEntry {
            batch_id: Arc::clone(&batch_id),
            concurrency,
            threshold,
            stop: None,
            progress,
            paused: BTreeSet::new(),
        };
        let seq = i64::try_from(self.ledger.tasks.len() + self.finished.len()).unwrap();
        let tasks = (0..tasks).map(|index| {
            let mut task = self.task(&format!("{id}{index}"));
            task.seq = seq + i64::from(index);
            task.idempotent = retries > 0;
            task.claim.host = format!("host-{index}").into();
            task.claim.batch = Some(Arc::clone(&batch_id));
            task.claim.retries_left = retries;
            task
        });
        let tasks = tasks.collect();
        self.ledger.submit_batch(entry, tasks, self.now);
        self.turn();
    }

    fn running(&self) -> Vec<&str> {
        let mut running: Vec<&str> = self.ledger.busy.tasks().map(String::as_str).collect();
        running.sort_unstable();
        running
    }

    fn record(&self) -> &BatchRecord {
        self.batches.last().unwrap()
    }

    fn failure_of(&self, id: &str) -> Failure {
        let ended = self.finished.iter().find(|finished| finished.task.task_id == id).unwrap();
        ended.result.failure.clone().unwrap_or_default()
    }
}

fn rejected(id: &str, epoch: u64) -> agent_event::Event {
    let failure = Failure { code: "auth.rejected".into(), ..Failure::default() };
    let result = failure::result(TaskState::Failed, Some(failure));
    agent_event::Event::End(TaskEnd { task: Some(reference(id, epoch)), result: Some(result) })
}

/// What is cut away of a result that is too large may be what says so.
#[test]
fn a_refusal_that_stands_in_a_rung_of_a_huge_result_counts() {
    let mut world = World::new(&["a"]);
    let session = world.connect("a", "i", Vec::new(), 100);
    world.submit_batch("x", 1, 0, None, 3);
    let failure = |code: &str, message: String| Failure { code: code.into(), message, ..Failure::default() };
    let mut result = failure::result(TaskState::Failed, Some(failure("tls.certificate", String::new())));
    result.rungs.push(Rung {
        outcome: RungOutcome::Failed.into(),
        failure: Some(failure("auth.rejected", "x".repeat(300 << 10))),
        ..Rung::default()
    });
    let ended = TaskEnd { task: Some(reference("x0", 1)), result: Some(result) };
    world.say("a", session, agent_event::Event::End(ended)).unwrap();
    assert_eq!(world.outcome("x0"), TaskState::Failed, "it is not tried again");
}

#[test]
fn so_many_run_at_once_and_batches_take_turns() {
    let mut world = World::new(&["a"]);
    let session = world.connect("a", "i", Vec::new(), 5);
    world.submit_batch("x", 10, 2, None, 0);
    assert_eq!(world.running(), ["x0", "x1"]);
    assert_eq!(world.code("x2"), "batch_limit");
    world.submit_batch("y", 10, 0, None, 0);
    assert_eq!(world.running(), ["x0", "x1", "y0", "y1", "y2"]);
    world.say("a", session, agent_event::Event::Credit(Credit { total: 50 })).unwrap();
    for index in 0..8 {
        world.say("a", session, end(&format!("x{index}"), 1, TaskState::Succeeded)).unwrap();
        let of_x = world.running().iter().filter(|id| id.starts_with('x')).count();
        assert_eq!(of_x, 2);
    }
    // A lost task may be running, and counts.
    world.pass(LEASE);
    assert_eq!(world.state("x9"), Some(TaskState::Lost));
    world.say("a", session, end("x8", 1, TaskState::Succeeded)).unwrap();
    world.say("a", session, end("x9", 1, TaskState::TimedOut)).unwrap();
    let record = world.record();
    assert!(record.finished);
    let expected = BatchProgress { total: 10, succeeded: 9, timed_out: 1, ..BatchProgress::default() };
    assert_eq!(record.progress, expected);
    assert_eq!(
        world.finished.iter().map(|f| f.task.claim.batch_ended.unwrap()).collect::<Vec<_>>(),
        (1..=10).collect::<Vec<_>>()
    );
}

#[test]
fn one_failure_too_many_stops_what_has_not_started() {
    for (threshold, fatal) in [(Threshold::Count(0), 1), (Threshold::Count(2), 3), (Threshold::Percent(20), 5)] {
        let mut world = World::new(&["a"]);
        let session = world.connect("a", "i", Vec::new(), 1000);
        world.submit_batch("x", 20, 6, Some(threshold), 0);
        for index in 0..fatal {
            assert_eq!(world.running().len(), 6, "{threshold:?}");
            world.say("a", session, end(&format!("x{index}"), 1, TaskState::Failed)).unwrap();
        }
        assert_eq!(world.running().len(), 5, "nothing further starts");
        assert_eq!(world.outcome("x19"), TaskState::Cancelled);
        let failure = world.failure_of("x19");
        assert_eq!(failure.code, "batch.threshold");
        assert!(failure.message.contains(&format!("{fatal} of 20 tasks failed")), "{}", failure.message);
        for id in world.running().iter().map(|id| (*id).to_owned()).collect::<Vec<_>>() {
            world.say("a", session, end(&id, 1, TaskState::Succeeded)).unwrap();
        }
        let record = world.record().clone();
        assert!(record.finished);
        assert_eq!(
            (record.progress.succeeded, record.progress.failed, record.progress.cancelled),
            (5, fatal, 15 - fatal)
        );
        assert_eq!(record.stop.unwrap().code, "batch.threshold");
    }
}

#[test]
fn a_large_batch_ends_some_at_a_time_and_nobody_waits_for_it() {
    let mut world = World::new(&["a"]);
    world.submit_batch("x", 1200, 0, None, 0);
    world.ledger.cancel_batch("x", "enough", world.now);
    assert!(world.ledger.next_deadline().unwrap() <= world.now.instant, "work is due at once");
    let mut turns = 0;
    while world.ledger.has_ends_to_work_off() {
        let before = world.finished.len();
        world.turn();
        assert!(world.finished.len() - before <= 500);
        turns += 1;
    }
    assert_eq!((world.finished.len(), turns), (1200, 3));
    let last = world.finished.last().unwrap();
    assert_eq!((last.result.outcome(), last.task.cancel.as_deref()), (TaskState::Cancelled, Some("enough")));
    assert!(world.record().finished);
}

#[test]
fn cancelling_reaches_what_runs() {
    let mut world = World::new(&["a"]);
    let session = world.connect("a", "i", Vec::new(), 2);
    world.submit_batch("x", 3, 0, None, 0);
    world.ledger.cancel_batch("x", "", world.now);
    world.turn();
    let cancelled = |event: &(SessionId, server_event::Event)| matches!(event.1, server_event::Event::Cancel(_));
    assert_eq!(world.events.iter().filter(|event| cancelled(event)).count(), 2);
    assert_eq!(world.outcome("x2"), TaskState::Cancelled);
    // Handed back unstarted, it does not start again.
    let reason = HandBackReason::Restarted.into();
    let back = HandBack { task: Some(reference("x0", 1)), reason, failure: None };
    world.say("a", session, agent_event::Event::HandBack(back)).unwrap();
    assert_eq!(world.outcome("x0"), TaskState::Cancelled);
    world.say("a", session, end("x1", 1, TaskState::Cancelled)).unwrap();
    assert_eq!(world.record().stop.as_ref().unwrap().code, "batch.cancelled");
    assert!(world.record().finished);
}

#[test]
fn a_failed_task_is_tried_again_after_a_pause_as_often_as_it_may() {
    let mut world = World::new(&["a"]);
    let session = world.connect("a", "i", Vec::new(), 100);
    world.submit_batch("x", 1, 1, Some(Threshold::Count(0)), 2);
    world.say("a", session, end("x0", 1, TaskState::Failed)).unwrap();
    assert_eq!((world.state("x0"), world.code("x0").as_str()), (Some(TaskState::Queued), "retry_pause"));
    assert_eq!(world.assigned.len(), 1, "not at once");
    // The agent did not hear that its end arrived.
    world.say("a", session, end("x0", 1, TaskState::Failed)).unwrap();
    world.pass(PAUSE);
    assert_eq!(world.assigned.last().unwrap().epoch, 2);
    world.say("a", session, end("x0", 2, TaskState::TimedOut)).unwrap();
    world.pass(2 * PAUSE);
    world.say("a", session, end("x0", 3, TaskState::Failed)).unwrap();
    assert_eq!(world.outcome("x0"), TaskState::Failed);
    assert_eq!(world.record().progress.failed, 1);

    world.submit_batch("y", 1, 1, None, 1);
    world.say("a", session, end("y0", 1, TaskState::Unknown)).unwrap();
    world.pass(PAUSE);
    world.say("a", session, end("y0", 2, TaskState::Succeeded)).unwrap();
    assert_eq!(world.outcome("y0"), TaskState::Succeeded);
    world.ledger.queue.check();
}

#[test]
fn how_tasks_of_a_restored_batch_ended_is_not_known_whatever_was_tried_before() {
    let mut world = World::new(&["a"]);
    let session = world.connect("a", "i", Vec::new(), 100);
    world.submit_batch("x", 3, 1, Some(Threshold::Count(0)), 1);
    world.say("a", session, end("x0", 1, TaskState::Failed)).unwrap();
    assert_eq!(world.code("x0"), "retry_pause");
    assert_eq!(world.ledger.settle_restored(world.now), 3);
    world.turn();
    for id in ["x0", "x1", "x2"] {
        assert_eq!(
            (world.outcome(id), world.failure_of(id).code.as_str()),
            (TaskState::Unknown, "control_plane.restored")
        );
    }
    let record = world.record();
    assert_eq!((record.finished, record.progress.unknown), (true, 3));
    world.ledger.queue.check();
}

#[test]
fn what_is_not_tried_again() {
    let mut world = World::new(&["a"]);
    let session = world.connect("a", "i", Vec::new(), 100);
    // A rejected credential: neither the task itself, nor what waits to be tried again.
    world.submit_batch("x", 2, 0, None, 3);
    world.say("a", session, end("x1", 1, TaskState::Failed)).unwrap();
    world.say("a", session, rejected("x0", 1)).unwrap();
    assert_eq!(world.outcome("x0"), TaskState::Failed);
    assert_eq!(world.outcome("x1"), TaskState::Failed, "how it ended, not that it was rejected");
    assert!(world.record().finished);

    world.ledger.credential_stored("web", CredentialState { version: 2, ..CredentialState::default() });
    // Not idempotent; and cancelled ones.
    world.submit_batch("y", 1, 0, None, 0);
    world.say("a", session, end("y0", 1, TaskState::Failed)).unwrap();
    assert_eq!(world.outcome("y0"), TaskState::Failed);
    world.submit_batch("z", 2, 0, None, 3);
    world.say("a", session, end("z0", 1, TaskState::Cancelled)).unwrap();
    assert_eq!(world.outcome("z0"), TaskState::Cancelled);
    // Cancelled while it waits to be tried again: it did run.
    world.say("a", session, end("z1", 1, TaskState::Failed)).unwrap();
    world.ledger.cancel("z1", "", world.now);
    world.turn();
    assert_eq!(world.outcome("z1"), TaskState::Failed);
    assert_eq!(world.assigned.len(), 5);
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let mut world = World::new(&["a"]);
    let session = world.connect("a", "i", Vec::new(), 100);
    world.submit_batch("x", 10, 3, Some(Threshold::Count(1)), 1);
    world.say("a", session, started("x1", 1)).unwrap();
    world.say("a", session, end("x0", 1, TaskState::Failed)).unwrap();
    world.say("a", session, end("x2", 1, TaskState::Succeeded)).unwrap();
    let tasks: Vec<LiveTask> =
        world.ledger.tasks.values().cloned().map(|task| LiveTask { deadline: None, ..task }).collect();
    let batches = world.ledger.batches.values().cloned().map(|b| BatchEntry { paused: BTreeSet::new(), ..b }).collect();
    let credentials = world.ledger.credentials.clone();
    world.ledger = Ledger::new(world.ledger.settings, vec![agent("a")], tasks, batches, credentials, world.now);
    let running = world.running().len();
    assert_eq!(running, 3);
    world.turn();
    let held = ["x1", "x3", "x4"].map(|id| HeldTask {
        task: Some(reference(id, 1)),
        state: HeldState::Running.into(),
        ..HeldTask::default()
    });
    let session = world.connect("a", "i", held.to_vec(), 100);
    world.turn();
    assert_eq!(world.running().len(), 3, "the bound outlives the restart");
    assert_eq!(world.code("x0"), "retry_pause");
    world.pass(GRACE);
    for id in ["x1", "x3"] {
        world.say("a", session, end(id, 1, TaskState::Failed)).unwrap();
        world.pass(PAUSE);
    }
    // Second tries come before younger tasks.
    world.say("a", session, end("x4", 1, TaskState::Succeeded)).unwrap();
    for id in ["x0", "x1", "x3"] {
        world.pass(PAUSE);
        if world.state(id) == Some(TaskState::Assigned) {
            world.say("a", session, end(id, 2, TaskState::Failed)).unwrap();
        }
    }
    assert_eq!(world.record().stop.as_ref().unwrap().code, "batch.threshold");
    world.ledger.queue.check();
}

proptest! {
    #[test]
    fn every_task_ends_once_and_the_counts_are_right(
        steps in prop::collection::vec((0..7u8, 0..40usize), 1..200),
        concurrency in 0..4u32,
        allowed in 0..8u32,
        retries in 0..3u32,
    ) {
        const TASKS: u32 = 12;
        let mut world = World::new(&["a"]);
        let session = world.connect("a", "i", Vec::new(), 1000);
        world.submit_batch("x", TASKS, concurrency, Some(Threshold::Count(allowed)), retries);
        world.submit("single", true);
        for (step, which) in steps {
            let before = world.assigned.len();
            let stopped = world.batches.iter().any(|record| record.stop.is_some());
            let mut live: Vec<String> = world.ledger.tasks.keys().cloned().collect();
            live.sort_unstable();
            let Some(id) = live.get(which % live.len().max(1)).cloned() else { break };
            let epoch = world.ledger.task(&id).unwrap().epoch;
            match step {
                0 | 1 => world.say("a", session, end(&id, epoch, TaskState::Succeeded)).unwrap(),
                2 => world.say("a", session, end(&id, epoch, TaskState::Failed)).unwrap(),
                3 => world.say("a", session, started(&id, epoch)).unwrap(),
                4 => {
                    world.ledger.cancel(&id, "", world.now);
                    world.turn();
                }
                5 => world.pass(LEASE),
                _ => world.pass(PAUSE),
            }
            world.ledger.queue.check();
            let of_batch = |task: &&LiveTask| task.claim.batch.is_some();
            let running = world.ledger.tasks.values().filter(of_batch).filter(|t| t.phase != Phase::Queued).count();
            let waiting = world.ledger.tasks.values().filter(of_batch).filter(|t| t.phase == Phase::Queued).count();
            prop_assert!(concurrency == 0 || running <= concurrency as usize);
            let progress = world.batches.last().map_or(BatchProgress::default(), |record| record.progress);
            if world.batches.last().is_some() {
                prop_assert_eq!((progress.running as usize, progress.waiting as usize), (running, waiting));
            }
            let fresh = world.assigned[before..].iter().filter(|assign| assign.task_id.starts_with('x')).count();
            prop_assert!(!stopped || fresh == 0, "a stopped batch starts nothing");
        }
        let ended: Vec<&str> = world.finished.iter().map(|finished| finished.task.task_id.as_str()).collect();
        let different: HashSet<&str> = ended.iter().copied().collect();
        prop_assert_eq!(ended.len(), different.len());
    }
}
