//! What is told of tasks whose agents did what they should not, or may no more.

use super::*;

#[test]
fn what_becomes_of_a_task_that_vanished_is_told_by_its_code() {
    type Event = fn(&mut World, SessionId);
    let cases: [(&str, Event); 4] = [
        ("agent.revoked", |world, _| {
            world.ledger.revoke("a", "stolen", world.now);
            world.turn();
        }),
        ("agent.contradiction", |world, session| {
            let reason = HandBackReason::Restarted.into();
            let hand_back = HandBack { task: Some(reference("t", 1)), reason, failure: None };
            world.say("a", session, agent_event::Event::HandBack(hand_back)).unwrap();
        }),
        ("agent.contradiction", |world, session| {
            world.say("a", session, end("t", 1, TaskState::Running)).unwrap();
        }),
        // It was to be started again, and somebody cancelled it before it was.
        ("task.cancelled", |world, _| {
            world.connect("a", "j", Vec::new(), 0);
            world.ledger.cancel("t", "r", world.now);
            world.turn();
        }),
    ];
    for (code, event) in cases {
        let mut world = World::new(&["a"]);
        let session = world.connect("a", "i", Vec::new(), 1);
        world.submit("t", code == "task.cancelled");
        world.say("a", session, started("t", 1)).unwrap();
        event(&mut world, session);
        assert_eq!(world.outcome("t"), TaskState::Unknown, "{code}");
        let failure = world.finished[0].result.failure.as_ref().unwrap();
        assert_eq!(failure.code, code, "{failure:?}");
        assert!(failure.may_have_started, "{failure:?}");
    }
}
