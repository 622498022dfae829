//! Turns, bounds per host and per credential, and how much work they take.

use super::*;

fn limited(tasks_per_host: u32, tasks_per_credential: u32) -> World {
    let mut world = World::new(&["a"]);
    world.ledger.settings.limits = Limits { tasks_per_host, tasks_per_credential };
    world.ledger.credentials.insert("db".into(), CredentialState { version: 1, ..CredentialState::default() });
    world
}

impl World {
    fn submit_by(&mut self, id: &str, user: &str, host: &str, credential: &str) {
        self.submit_with(id, |task| {
            task.claim.submitter = user.into();
            task.claim.host = host.into();
            task.credential = credential.into();
        });
    }

    fn given(&self) -> Vec<&str> {
        self.assigned.iter().map(|assign| assign.task_id.as_str()).collect()
    }
}

#[test]
fn one_slow_host_leaves_room_for_the_others() {
    let mut world = limited(2, 0);
    let session = world.connect("a", "i", Vec::new(), 8);
    for index in 0..1000 {
        world.submit_by(&format!("slow-{index}"), "u", "slow", "web");
    }
    world.submit_by("other", "u", "other", "web");
    assert_eq!(world.given(), ["slow-0", "slow-1", "other"]);
    let candidate = &world.ledger.candidates("slow-2")[0];
    assert_eq!((candidate.eligible, candidate.code.as_str()), (false, "host_busy"));
    assert!(candidate.reason.contains("slow") && candidate.reason.contains("limits.tasks_per_host"), "{candidate:?}");
    world.say("a", session, end("slow-1", 1, TaskState::Succeeded)).unwrap();
    assert_eq!(world.given().last(), Some(&"slow-2"));
    world.ledger.queue.check();
}

#[test]
fn a_credential_runs_so_many_tasks_at_once() {
    let mut world = limited(0, 3);
    let session = world.connect("a", "i", Vec::new(), 8);
    for index in 0..5 {
        world.submit_by(&format!("w{index}"), "u", &format!("h{index}"), "web");
    }
    world.submit_by("d", "u", "h0", "db");
    assert_eq!(world.given(), ["w0", "w1", "w2", "d"]);
    assert_eq!(world.code("w3"), "credential_busy");
    // A lost task may be running.
    world.pass(LEASE);
    assert_eq!(world.state("w0"), Some(TaskState::Lost));
    assert_eq!(world.given().len(), 4);
    world.say("a", session, end("w0", 1, TaskState::Failed)).unwrap();
    assert_eq!(world.given().last(), Some(&"w3"));
}

#[test]
fn users_take_turns_and_nobody_starves() {
    let mut world = limited(0, 0);
    let session = world.connect("a", "i", Vec::new(), 0);
    for index in 0..100 {
        world.submit_by(&format!("big-{index}"), "big", "h", "web");
    }
    for user in ["x", "y"] {
        for index in 0..3 {
            world.submit_by(&format!("{user}{index}"), user, "h", "web");
        }
    }
    for credit in 1..=106 {
        world.say("a", session, agent_event::Event::Credit(Credit { total: credit })).unwrap();
    }
    let expected = ["big-0", "x0", "y0", "big-1", "x1", "y1", "big-2", "x2", "y2", "big-3", "big-4"];
    assert_eq!(world.given()[..11], expected);
    assert_eq!(world.given().len(), 106);
    assert_eq!(world.given().last(), Some(&"big-99"));
    world.ledger.queue.check();
}

#[test]
fn who_cannot_go_keeps_the_turn() {
    let mut world = limited(1, 0);
    let session = world.connect("a", "i", Vec::new(), 1);
    world.submit_by("first", "x", "h", "web");
    world.submit_by("x1", "x", "h", "web");
    world.submit_by("y1", "y", "h", "web");
    world.submit_by("y2", "y", "h", "web");
    world.say("a", session, agent_event::Event::Credit(Credit { total: 5 })).unwrap();
    assert_eq!(world.given(), ["first"]);
    world.say("a", session, end("first", 1, TaskState::Succeeded)).unwrap();
    world.say("a", session, end(world.assigned[1].task_id.clone().as_str(), 1, TaskState::Succeeded)).unwrap();
    let mut given: Vec<&str> = world.given()[1..].to_vec();
    given.sort_unstable();
    assert_eq!(given, ["x1", "y1"], "each of them went before y had its second");
}

#[test]
fn a_long_queue_makes_no_event_expensive() {
    const WAITING: usize = 100_000;
    let mut world = limited(1, 0);
    let session = world.connect("a", "i", Vec::new(), 1000);
    // All wait for one host, then for slots; a few more that nobody can take.
    for index in 0..WAITING {
        let (user, host) = if index % 2 == 0 { ("x", "slow".to_owned()) } else { ("y", format!("h{index}")) };
        world.submit_with(&index.to_string(), |task| {
            task.claim.submitter = user.into();
            task.claim.host = host.into();
            if index % 1000 == 7 {
                task.route.tags = vec!["nobody".into()];
            }
        });
    }
    assert_eq!(world.assigned.len(), 1000);
    let mut most = 0;
    for round in 0..200 {
        let before = world.ledger.queue.looks();
        let ended = world.assigned[round].task_id.clone();
        world.say("a", session, end(&ended, 1, TaskState::Succeeded)).unwrap();
        world.say("a", session, agent_event::Event::Credit(Credit { total: 1001 + round as u64 })).unwrap();
        most = most.max(world.ledger.queue.looks() - before);
    }
    assert_eq!(world.assigned.len(), 1200);
    assert!(most <= 40, "{most} looks for one task that ended, with {WAITING} waiting");
    let waiting: Vec<String> = world.ledger.tasks.values().map(|task| task.task_id.clone()).collect();
    for task_id in waiting {
        world.ledger.cancel(&task_id, "", world.now);
    }
    world.ledger.queue.check();
    assert_eq!(world.ledger.waiting(), 0);
}

#[test]
fn what_waits_and_what_runs_is_counted() {
    let mut world = limited(1, 0);
    let session = world.connect("a", "i", Vec::new(), 5);
    let since = world.now.wall;
    for (id, host) in [("r", "h1"), ("q", "h1"), ("s", "h2")] {
        world.submit_by(id, "u", host, "web");
    }
    world.say("a", session, started("r", 1)).unwrap();
    let expected =
        Backlog { queued: 1, assigned: 1, running: 1, lost: 0, oldest: Some(since), free_slots: 3, incompatible: 0 };
    assert_eq!(world.ledger.backlog(), expected);
    world.pass(LEASE);
    let lost = Backlog { lost: 2, assigned: 0, running: 0, ..expected };
    assert_eq!(world.ledger.backlog(), lost);
    world.ledger.disconnected("a", session, world.now);
    assert_eq!(world.ledger.backlog(), Backlog { free_slots: 0, ..lost });
    // What gets nothing has no room.
    let hello = Hello { instance_id: "i".into(), contract: "0.9".into(), ..Hello::default() };
    world.greet("a", hello, 5);
    assert_eq!(world.ledger.backlog().free_slots, 0);
}

proptest! {
    #[test]
    fn the_indexes_agree_whatever_happens(
        steps in prop::collection::vec((0..5u8, 0..40usize, 0..3usize, 0..4usize), 1..150),
        per_host in 0..3u32,
        per_credential in 0..3u32,
    ) {
        let mut world = limited(per_host, per_credential);
        let session = world.connect("a", "i", Vec::new(), 0);
        let mut credit = 0;
        for (number, (step, which, user, host)) in steps.into_iter().enumerate() {
            let live: Vec<String> = {
                let mut ids: Vec<String> = world.ledger.tasks.keys().cloned().collect();
                ids.sort_unstable();
                ids
            };
            let chosen = live.get(which % live.len().max(1)).cloned();
            match (step, chosen) {
                (0, _) => {
                    let credential = ["web", "db"][which % 2];
                    world.submit_by(&number.to_string(), ["x", "y", "z"][user], ["h", "i", "j", "k"][host], credential);
                }
                (1, _) => {
                    credit += 1;
                    world.say("a", session, agent_event::Event::Credit(Credit { total: credit })).unwrap();
                }
                (2, Some(id)) => {
                    world.ledger.cancel(&id, "", world.now);
                    world.turn();
                }
                (3, Some(id)) => {
                    let epoch = world.ledger.task(&id).unwrap().epoch;
                    world.say("a", session, end(&id, epoch, TaskState::Succeeded)).unwrap();
                }
                (_, Some(id)) => {
                    let epoch = world.ledger.task(&id).unwrap().epoch;
                    let reason = HandBackReason::Restarted.into();
                    let back = HandBack { task: Some(reference(&id, epoch)), reason, failure: None };
                    world.say("a", session, agent_event::Event::HandBack(back)).unwrap();
                }
                _ => {}
            }
            world.ledger.queue.check();
            for limit in [("host", per_host), ("credential", per_credential)] {
                let mut running: HashMap<&str, u32> = HashMap::new();
                for task in world.ledger.tasks.values().filter(|task| task.phase != Phase::Queued) {
                    let key = if limit.0 == "host" { &*task.claim.host } else { task.credential.as_str() };
                    *running.entry(key).or_default() += 1;
                }
                prop_assert!(limit.1 == 0 || running.values().all(|running| *running <= limit.1));
            }
        }
    }
}
