//! What passes is waited for: by other agents at once, by the same after a pause, and not for ever.

use super::*;
use crate::dispatch::pauses::LONGEST_PAUSE;

/// Nobody answers at KMS.
fn outage() -> Failure {
    Failure { code: "kms.unavailable".into(), message: "KMS is out of service".into(), ..Failure::default() }
}

fn passing(id: &str, epoch: u64) -> agent_event::Event {
    let (task, reason) = (Some(reference(id, epoch)), HandBackReason::Passing.into());
    agent_event::Event::HandBack(HandBack { task, reason, failure: Some(outage()) })
}

fn assigned(world: &World) -> Vec<(&str, u64)> {
    world.assigned.iter().map(|assign| (assign.agent_id.as_str(), assign.epoch)).collect()
}

#[test]
fn what_passes_is_tried_by_others_at_once_and_by_all_again_after_a_pause() {
    let mut world = World::new(&["a", "b", "never there"]);
    let a = world.connect("a", "i", Vec::new(), 9);
    world.submit("t", false);
    let b = world.connect("b", "i", Vec::new(), 9);
    world.say("a", a, passing("t", 1)).unwrap();
    assert_eq!(assigned(&world), [("a", 1), ("b", 2)]);
    world.say("b", b, passing("t", 2)).unwrap();
    assert_eq!((world.state("t"), assigned(&world).len()), (Some(TaskState::Queued), 2));
    for candidate in world.ledger.candidates("t") {
        let expected = if candidate.agent_id == "never there" { "offline" } else { "retry_pause" };
        assert_eq!(candidate.code, expected, "{candidate:?}");
        assert_eq!(candidate.reason.contains("KMS is out of service"), expected == "retry_pause", "{candidate:?}");
    }
    world.ledger.queue.check();
    world.pass(LONGEST_PAUSE);
    let (agent, epoch) = assigned(&world)[2];
    assert_eq!(epoch, 3);
    let (agent, session) = if agent == "a" { ("a", a) } else { ("b", b) };
    world.say(agent, session, started("t", 3)).unwrap();
    world.say(agent, session, end("t", 3, TaskState::Succeeded)).unwrap();
    assert_eq!(world.outcome("t"), TaskState::Succeeded);
}

#[test]
fn the_one_agent_there_is_is_asked_until_the_wait_is_over() {
    let mut world = World::new(&["a"]);
    let a = world.connect("a", "i", Vec::new(), 1000);
    world.submit("t", false);
    let begin = world.now.instant;
    while world.finished.is_empty() {
        if let (Some(TaskState::Assigned), Some(task)) = (world.state("t"), world.ledger.task("t")) {
            let epoch = task.epoch;
            world.say("a", a, passing("t", epoch)).unwrap();
        }
        world.ledger.queue.check();
        world.pass(Duration::from_secs(1));
    }
    let waited = world.now.instant - begin;
    assert!(waited >= QUEUE && waited <= QUEUE + Duration::from_secs(2), "{waited:?}");
    assert_eq!(world.outcome("t"), TaskState::Rejected);
    assert_eq!(world.finished[0].result.failure.as_ref().unwrap().code, "kms.unavailable");
    // Seldom enough for a service that is in trouble, and often enough for who waits.
    let tries = world.assigned.len();
    assert!((7..20).contains(&tries), "{tries} tries");
    assert_eq!(world.ledger.backlog().queued, 0);
}

#[test]
fn the_one_of_many_agents_that_can_is_asked_in_the_end() {
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let mut world = World::new(&names);
    let sessions: Vec<SessionId> = names.iter().map(|name| world.connect(name, "i", Vec::new(), 99)).collect();
    world.submit("t", false);
    let begin = world.now.instant;
    while let Some(TaskState::Assigned | TaskState::Queued) = world.state("t") {
        if world.state("t") == Some(TaskState::Assigned) {
            let assign = world.assigned.last().unwrap().clone();
            let session = sessions[names.iter().position(|name| *name == assign.agent_id).unwrap()];
            // The last one that anybody would come to.
            let event = if world.assigned.len() < 7 { passing("t", assign.epoch) } else { started("t", assign.epoch) };
            world.say(&assign.agent_id, session, event).unwrap();
        } else {
            world.pass(Duration::from_secs(1));
        }
        world.ledger.queue.check();
    }
    assert_eq!(world.state("t"), Some(TaskState::Running));
    let mut asked: Vec<&str> = assigned(&world).into_iter().map(|(agent, _)| agent).collect();
    asked.sort_unstable();
    assert_eq!(asked, names);
    assert!(world.now.instant - begin < LONGEST_PAUSE);
    // None of these counts against the task once it is lost for another reason.
    assert_eq!(world.ledger.task("t").unwrap().tries(), 1);
}

#[test]
fn another_agent_that_goes_away_is_not_waited_for() {
    let mut world = World::new(&["a", "b"]);
    let a = world.connect("a", "i", Vec::new(), 9);
    world.submit("t", false);
    // It has no free slot.
    let b = world.connect("b", "i", Vec::new(), 0);
    world.say("a", a, passing("t", 1)).unwrap();
    let codes = |world: &World| -> Vec<String> {
        world.ledger.candidates("t").iter().map(|candidate| candidate.code.clone()).collect()
    };
    assert_eq!(codes(&world), ["retry_pause", "no_free_slot"]);
    world.ledger.disconnected("b", b, world.now);
    world.pass(LONGEST_PAUSE);
    assert_eq!(assigned(&world), [("a", 1), ("a", 2)]);
}

#[test]
fn what_was_met_before_sending_is_waited_for_and_takes_no_credit() {
    let mut world = World::new(&["a"]);
    world.connect("a", "i", Vec::new(), 1);
    world.submit("t", false);
    let assign = world.assigned[0].clone();
    world.ledger.assignment_hitched(&assign, outage(), world.now);
    world.turn();
    assert_eq!((world.state("t"), world.code("t").as_str()), (Some(TaskState::Queued), "retry_pause"));
    // What is said of that assignment now is about nothing.
    world.ledger.assignment_hitched(&assign, outage(), world.now);
    world.ledger.assignment_failed(&assign, outage(), world.now);
    world.pass(LONGEST_PAUSE);
    assert_eq!(assigned(&world), [("a", 1), ("a", 2)]);

    world.ledger.cancel("t", "enough", world.now);
    let again = world.assigned[1].clone();
    world.ledger.assignment_hitched(&again, outage(), world.now);
    world.turn();
    assert_eq!(world.outcome("t"), TaskState::Cancelled);
}

#[test]
fn what_was_never_sent_is_given_to_another_when_its_agent_is_gone() {
    for sent in [false, true] {
        let mut world = World::new(&["a", "b"]);
        world.connect("a", "i", Vec::new(), 1);
        world.submit("t", false);
        world.connect("b", "i", Vec::new(), 1);
        let assign = world.assigned[0].clone();
        world.ledger.mark_unsent(&assign, true);
        if sent {
            world.ledger.mark_unsent(&assign, false);
        }
        world.ledger.revoke("a", "stolen", world.now);
        world.turn();
        if sent {
            assert_eq!(world.outcome("t"), TaskState::Unknown);
        } else {
            assert_eq!(assigned(&world), [("a", 1), ("b", 2)]);
        }
        // What is said of it later is about nothing.
        world.ledger.never_sent(&assign, world.now);
        world.turn();
        assert_eq!(world.assigned.len(), if sent { 1 } else { 2 });
    }
}

#[test]
fn tasks_of_a_batch_that_wait_for_what_passes_count_as_waiting() {
    let mut world = World::new(&["a"]);
    let a = world.connect("a", "i", Vec::new(), 9);
    world.submit_batch("x", 2, 1, None, 0);
    let task_id = world.assigned[0].task_id.clone();
    world.say("a", a, passing(&task_id, 1)).unwrap();
    // The other has its place meanwhile.
    assert_eq!(world.assigned.len(), 2);
    let progress = world.batches.last().unwrap().progress;
    assert_eq!((progress.waiting, progress.running), (1, 1));
    assert!(world.ledger.cancel_batch("x", "enough", world.now));
    world.turn();
    assert_eq!(world.outcome(&task_id), TaskState::Cancelled);
}
