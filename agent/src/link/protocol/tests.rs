//! Tests of the protocol with a hand-moved clock and no I/O.

use std::collections::HashMap;

use lictor_proto::v1::{Assignment, Cancel, Drain, EndAck, HeartbeatAck, OutputAck, OutputStream, TaskRef, TaskState};
use proptest::prelude::*;

use super::*;
use crate::tasks::output::{Limits, Log, Piece, Shelf};

fn key(id: &str) -> TaskKey {
    TaskKey { task_id: id.into(), epoch: 1 }
}

fn wire(id: &str) -> Option<TaskRef> {
    Some(key(id).to_wire())
}

fn log(id: &str) -> Log {
    let limits = Limits { memory: 1000, disk: 1000, segment: 1000 };
    Shelf::new(std::env::temp_dir(), limits).log(&key(id))
}

fn about() -> About {
    About {
        instance_id: "i".into(),
        tags: vec!["t".into()],
        slots: 4,
        degraded: Vec::new(),
        kerberos: true,
        further: vec!["aws_kms"],
        principals: vec!["svc@R".into()],
    }
}

fn accepted(id: &str) -> Event {
    Event::Accepted { key: key(id), log: log(id) }
}

fn ended(id: &str, output_bytes: u64) -> Event {
    let result = TaskResult { outcome: TaskState::Succeeded.into(), output_bytes, ..TaskResult::default() };
    Event::Ended { key: key(id), result: Box::new(result), log: log(id) }
}

fn handed_back(id: &str) -> Event {
    Event::HandedBack { key: key(id), reason: HandBackReason::Draining, failure: Box::default() }
}

fn resume(id: &str, decision: ResumeDecision, output_acked: u64) -> Resume {
    Resume { task: wire(id), decision: decision.into(), output_acked, ..Resume::default() }
}

fn interrupted(id: &str) -> Event {
    Event::Interrupted { key: key(id), log: log(id) }
}

/// The protocol, a clock, and what a test looks at.
struct Bench {
    protocol: Protocol,
    now: Instant,
}

impl Bench {
    fn new(restored: &[Event]) -> Self {
        Self { protocol: Protocol::new(about(), restored), now: Instant::now() }
    }

    fn hello(&mut self) -> Hello {
        self.protocol.connected(self.now);
        match self.events().remove(0) {
            agent_event::Event::Hello(hello) => hello,
            other => panic!("{other:?}"),
        }
    }

    fn open(&mut self, resume: Vec<Resume>) {
        self.hello();
        self.welcome(resume);
    }

    fn welcome(&mut self, resume: Vec<Resume>) {
        let welcome = Welcome {
            heartbeat_interval: Some(prost_types::Duration { seconds: 10, nanos: 0 }),
            output_window: 100,
            resume,
            ..Welcome::default()
        };
        self.server(server_event::Event::Welcome(welcome)).unwrap();
    }

    fn server(&mut self, event: server_event::Event) -> Result<(), SessionEnd> {
        self.protocol.server(ServerEvent { event: Some(event) }, self.now)
    }

    fn pass(&mut self, seconds: u64) -> Result<(), SessionEnd> {
        self.now += Duration::from_secs(seconds);
        self.protocol.tick(self.now)
    }

    fn events(&mut self) -> Vec<agent_event::Event> {
        std::iter::from_fn(|| self.protocol.next_event(self.now, || 7).and_then(|event| event.event)).collect()
    }

    fn commands(&mut self) -> Vec<Command> {
        std::iter::from_fn(|| self.protocol.next_command()).collect()
    }

    /// Sends all output that may go, as zeroes, and returns (task, from, to).
    fn output(&mut self) -> Vec<(TaskKey, u64, u64)> {
        let mut sent = Vec::new();
        while let Some(wanted) = self.protocol.next_output() {
            let produced = self.protocol.tasks[&wanted.key].produced;
            let length = usize::try_from(produced - wanted.offset).unwrap().min(wanted.most);
            let piece = Piece { offset: wanted.offset, stream: OutputStream::Stdout, data: vec![0; length].into() };
            self.protocol.output_read(&wanted, Some(piece)).unwrap();
            sent.push((wanted.key, wanted.offset, wanted.offset + length as u64));
        }
        sent
    }

    fn assign(&mut self, id: &str) -> Result<(), SessionEnd> {
        self.server(server_event::Event::Assignment(Assignment { task: wire(id), ..Assignment::default() }))
    }

    fn ack(&mut self, id: &str, offset: u64) {
        self.server(server_event::Event::OutputAck(OutputAck { task: wire(id), offset, full: false })).unwrap();
    }
}

fn names(events: &[agent_event::Event]) -> Vec<String> {
    let name = |event: &agent_event::Event| match event {
        agent_event::Event::Hello(_) => "hello".into(),
        agent_event::Event::Credit(credit) => format!("credit {}", credit.total),
        agent_event::Event::Accepted(event) => format!("accepted {}", event.task.as_ref().unwrap().task_id),
        agent_event::Event::HandBack(event) => format!("hand back {}", event.task.as_ref().unwrap().task_id),
        agent_event::Event::Started(event) => format!("started {}", event.task.as_ref().unwrap().task_id),
        agent_event::Event::Output(_) => "output".into(),
        agent_event::Event::End(event) => {
            format!("end {} {}", event.task.as_ref().unwrap().task_id, event.result.as_ref().unwrap().output_bytes)
        }
        agent_event::Event::Heartbeat(event) => format!("heartbeat {}", event.sequence),
        agent_event::Event::Draining(_) => "draining".into(),
    };
    events.iter().map(name).collect()
}

#[test]
fn nothing_but_hello_goes_before_welcome() {
    let mut bench = Bench::new(&[]);
    bench.protocol.engine(&accepted("a"));
    let hello = bench.hello();
    assert_eq!((hello.protocol, hello.slots, hello.held.len()), (1, 4, 1));
    bench.protocol.engine(&Event::Started(key("a")));
    bench.protocol.produced(&key("a"), 10);
    assert!(bench.events().is_empty() && bench.output().is_empty());
    assert_eq!(bench.assign("b"), Err(SessionEnd::Violation("an event before Welcome")));
    bench.welcome(vec![resume("a", ResumeDecision::Continue, 0)]);
    assert_eq!(names(&bench.events()), ["started a", "credit 4"]);
    assert_eq!(bench.output(), [(key("a"), 0, 10)]);
}

#[test]
fn credit_is_cumulative_and_follows_free_slots() {
    let mut bench = Bench::new(&[]);
    bench.open(Vec::new());
    assert_eq!(names(&bench.events()), ["credit 4"]);
    for id in ["a", "b", "c", "d"] {
        bench.assign(id).unwrap();
    }
    assert_eq!(bench.commands().len(), 4);
    assert!(bench.events().is_empty(), "no slot is free");
    assert_eq!(bench.assign("e"), Err(SessionEnd::Violation("an assignment beyond the credit")));

    let mut bench = Bench::new(&[]);
    bench.open(Vec::new());
    bench.events();
    bench.assign("a").unwrap();
    bench.assign("b").unwrap();
    bench.protocol.engine(&Event::Settled(1));
    assert_eq!(names(&bench.events()), ["credit 5"]);
    bench.protocol.disconnected(bench.now);
    bench.open(Vec::new());
    assert_eq!(names(&bench.events()), ["credit 3"], "a new session counts anew, without the slot in use");
}

#[test]
fn the_end_goes_after_the_output_and_again_until_acknowledged() {
    let mut bench = Bench::new(&[]);
    bench.open(Vec::new());
    bench.events();
    bench.protocol.engine(&accepted("a"));
    bench.protocol.engine(&Event::Started(key("a")));
    bench.protocol.engine(&ended("a", 250));
    assert_eq!(names(&bench.events()), ["accepted a", "started a"]);
    assert_eq!(bench.output(), [(key("a"), 0, 100)], "the window is 100");
    assert!(bench.events().is_empty());
    bench.ack("a", 100);
    assert_eq!(bench.output(), [(key("a"), 100, 200)]);
    bench.ack("a", 160);
    assert_eq!(bench.output(), [(key("a"), 200, 250)]);
    assert_eq!(names(&bench.events()), ["end a 250"]);
    assert!(bench.events().is_empty());
    for sequence in 1..=3 {
        bench.pass(10).unwrap();
        let due = names(&bench.events());
        assert!(due.contains(&format!("heartbeat {sequence}")));
        assert_eq!(due.contains(&"end a 250".to_owned()), sequence == 3, "{due:?}");
        bench.server(server_event::Event::HeartbeatAck(HeartbeatAck { sequence, stale: Vec::new() })).unwrap();
    }

    // The connection breaks; the control plane has stored 200.
    bench.protocol.disconnected(bench.now);
    let hello = bench.hello();
    assert_eq!(hello.held[0].state, i32::from(HeldState::Ended));
    bench.welcome(vec![resume("a", ResumeDecision::Continue, 200)]);
    assert_eq!(names(&bench.events()), ["credit 4"]);
    assert_eq!(bench.output(), [(key("a"), 200, 250)]);
    assert_eq!(names(&bench.events()), ["end a 250"]);
    bench.commands();
    bench.server(server_event::Event::EndAck(EndAck { task: wire("a") })).unwrap();
    assert_eq!(bench.commands(), [Command::EndAcked(key("a"))]);
    assert!(bench.hello_again().held.is_empty());
}

impl Bench {
    fn hello_again(&mut self) -> Hello {
        self.protocol.disconnected(self.now);
        self.hello()
    }
}

#[test]
fn control_goes_before_output_and_tasks_take_turns() {
    let mut bench = Bench::new(&[]);
    bench.open(Vec::new());
    bench.events();
    for id in ["a", "b"] {
        bench.protocol.engine(&accepted(id));
        bench.protocol.engine(&Event::Started(key(id)));
    }
    bench.events();
    bench.protocol.produced(&key("a"), 100_000);
    bench.protocol.produced(&key("b"), 100_000);
    bench.now += Duration::from_secs(10);
    assert_eq!(names(&bench.events()), ["heartbeat 1"]);
    let first = bench.protocol.next_output().unwrap();
    let second = bench.protocol.next_output().unwrap();
    assert_ne!(first.key, second.key);
}

#[test]
fn all_output_under_way_is_bounded() {
    let mut bench = Bench::new(&[]);
    bench.hello();
    let welcome = Welcome { output_window: u64::MAX / 2, ..Welcome::default() };
    bench.server(server_event::Event::Welcome(welcome)).unwrap();
    for id in ["a", "b", "c"] {
        bench.protocol.engine(&accepted(id));
        bench.protocol.engine(&Event::Started(key(id)));
        bench.protocol.produced(&key(id), 100_000_000);
    }
    bench.events();
    let sent: u64 = bench.output().iter().map(|(_, from, to)| to - from).sum();
    assert_eq!(sent, MOST_UNDER_WAY);
}

#[test]
fn a_full_log_needs_no_more_output() {
    let mut bench = Bench::new(&[]);
    bench.open(Vec::new());
    bench.protocol.engine(&accepted("a"));
    bench.protocol.engine(&Event::Started(key("a")));
    bench.protocol.produced(&key("a"), 5000);
    bench.events();
    bench.output();
    bench.server(server_event::Event::OutputAck(OutputAck { task: wire("a"), offset: 60, full: true })).unwrap();
    assert_eq!(bench.commands(), [Command::OutputAcked { key: key("a"), offset: 60, full: true }]);
    assert!(bench.output().is_empty());
    bench.protocol.engine(&ended("a", 9000));
    let events = bench.events();
    let agent_event::Event::End(end) = &events[0] else { panic!("{events:?}") };
    let result = end.result.as_ref().unwrap();
    assert_eq!((result.output_bytes, result.output_truncated), (9000, true));
}

#[test]
fn what_welcome_decides_is_done() {
    let mut bench = Bench::new(&[ended("c", 0), ended("d", 0)]);
    for id in ["a", "b"] {
        bench.protocol.engine(&accepted(id));
        bench.protocol.engine(&Event::Started(key(id)));
    }
    let mut go_on = resume("b", ResumeDecision::Continue, 0);
    go_on.cancel_requested = true;
    bench.open(vec![
        resume("a", ResumeDecision::Stale, 0),
        go_on,
        resume("c", ResumeDecision::Forget, 0),
        resume("d", ResumeDecision::Continue, 40),
    ]);
    let commands = bench.commands();
    assert!(commands.contains(&Command::Stale(key("a"))));
    assert!(commands.iter().any(|command| matches!(command, Command::Cancel { key, .. } if *key == self::key("b"))));
    assert!(commands.contains(&Command::Forget(key("c"))));
    // Restored after a crash: the control plane has more output than this process knows of.
    assert_eq!(names(&bench.events()), ["end d 40", "credit 4"]);
    bench.now += Duration::from_secs(10);
    let events = bench.events();
    let agent_event::Event::Heartbeat(beat) = &events[0] else { panic!("{events:?}") };
    assert_eq!(beat.held, [key("b").to_wire()], "neither stale nor ended");
    assert_eq!(beat.resident_bytes, 7);
    let ack = HeartbeatAck { sequence: 1, stale: vec![key("b").to_wire()] };
    bench.server(server_event::Event::HeartbeatAck(ack)).unwrap();
    assert_eq!(bench.commands(), [Command::Stale(key("b"))]);
}

#[test]
fn a_hand_back_is_repeated_until_a_later_heartbeat_is_answered() {
    let mut bench = Bench::new(&[]);
    bench.open(Vec::new());
    bench.events();
    bench.assign("a").unwrap();
    bench.commands();
    bench.protocol.engine(&handed_back("a"));
    assert_eq!(names(&bench.events()), ["hand back a", "heartbeat 1"]);
    let hello = bench.hello_again();
    assert_eq!(hello.held[0].state, i32::from(HeldState::Accepted));
    bench.welcome(vec![resume("a", ResumeDecision::Continue, 0)]);
    let events = names(&bench.events());
    assert_eq!((events[0].as_str(), events.last().unwrap().as_str()), ("hand back a", "heartbeat 1"));
    assert!(bench.commands().is_empty());
    bench.server(server_event::Event::HeartbeatAck(HeartbeatAck { sequence: 1, stale: Vec::new() })).unwrap();
    assert_eq!(bench.commands(), [Command::HandBackDelivered(key("a"))]);
    assert!(bench.hello_again().held.is_empty());
}

#[test]
fn what_the_engine_has_not_answered_for_is_held_too() {
    let mut bench = Bench::new(&[]);
    bench.open(Vec::new());
    bench.events();
    bench.assign("a").unwrap();
    assert!(bench.events().is_empty(), "it is not journalled yet");
    // The connection breaks before the engine has taken it.
    let hello = bench.hello_again();
    let state = HeldState::Accepted.into();
    assert_eq!(hello.held, [HeldTask { task: wire("a"), state, ..HeldTask::default() }]);
    bench.welcome(vec![resume("a", ResumeDecision::Continue, 0)]);
    bench.protocol.engine(&accepted("a"));
    bench.protocol.engine(&Event::Started(key("a")));
    assert_eq!(names(&bench.events()), ["started a", "credit 3"]);
}

#[test]
fn a_duplicate_assignment_is_answered_with_what_is_known() {
    let mut bench = Bench::new(&[]);
    bench.open(Vec::new());
    bench.protocol.engine(&accepted("a"));
    bench.protocol.engine(&Event::Started(key("a")));
    bench.events();
    bench.protocol.engine(&accepted("a"));
    bench.protocol.engine(&Event::Started(key("a")));
    assert_eq!(names(&bench.events()), ["accepted a", "started a"]);
    bench.protocol.engine(&ended("a", 0));
    assert_eq!(names(&bench.events()), ["end a 0"]);
    bench.protocol.engine(&ended("a", 0));
    assert_eq!(names(&bench.events()), ["accepted a", "started a", "end a 0"]);
}

#[test]
fn draining_ends_credit_and_is_told() {
    let mut bench = Bench::new(&[]);
    bench.open(Vec::new());
    bench.events();
    bench.assign("a").unwrap();
    bench.commands();
    bench.server(server_event::Event::Drain(Drain { reason: "upgrade".into() })).unwrap();
    bench.protocol.drain("signal");
    assert_eq!(bench.commands(), [Command::Drain("upgrade".into())]);
    bench.protocol.engine(&Event::Settled(1));
    assert_eq!(names(&bench.events()), ["draining"]);
    assert!(bench.hello_again().draining);
    bench.welcome(Vec::new());
    assert!(bench.events().is_empty());
    assert!(!bench.protocol.is_flushed());
    bench.protocol.engine(&Event::Idle);
    assert!(bench.protocol.is_flushed());
}

#[test]
fn silence_ends_a_session() {
    let mut bench = Bench::new(&[]);
    bench.hello();
    assert_eq!(bench.pass(19), Ok(()));
    assert_eq!(bench.pass(1), Err(SessionEnd::Silence("Hello")));

    let mut bench = Bench::new(&[]);
    bench.open(Vec::new());
    assert_eq!(bench.pass(30), Ok(()));
    bench.server(server_event::Event::Cancel(Cancel { task: wire("x"), reason: String::new() })).unwrap();
    assert_eq!(bench.pass(34), Ok(()), "any event is a sign of life");
    assert_eq!(bench.pass(1), Err(SessionEnd::Silence("heartbeats")));
    assert_eq!(bench.protocol.disconnected(bench.now), Duration::from_secs(65));
}

#[test]
fn nonsense_ends_a_session() {
    let mut bench = Bench::new(&[]);
    bench.open(Vec::new());
    let cancel = Cancel { task: None, reason: String::new() };
    assert!(matches!(bench.server(server_event::Event::Cancel(cancel)), Err(SessionEnd::Violation(_))));
    assert!(matches!(bench.server(server_event::Event::Welcome(Welcome::default())), Err(SessionEnd::Violation(_))));
    let goodbye = Goodbye { reason: GoodbyeReason::Shutdown.into(), detail: "d".into() };
    assert!(matches!(bench.server(server_event::Event::Goodbye(goodbye)), Err(SessionEnd::Goodbye { .. })));
}

#[test]
fn output_that_is_lost_is_a_gap_and_does_not_hold_the_end_back() {
    let mut bench = Bench::new(&[ended("a", 50)]);
    bench.open(vec![resume("a", ResumeDecision::Continue, 10)]);
    let wanted = bench.protocol.next_output().unwrap();
    assert!(bench.protocol.output_read(&wanted, None).is_none());
    let events = bench.events();
    let agent_event::Event::End(end) = &events[0] else { panic!("{events:?}") };
    assert!(end.result.as_ref().unwrap().output_gap);
}

#[test]
fn nothing_is_sent_from_behind_a_gap() {
    for lost in [None, Some(Piece { offset: 30, stream: OutputStream::Stdout, data: vec![0; 5].into() })] {
        let mut bench = Bench::new(&[]);
        bench.open(Vec::new());
        bench.protocol.engine(&accepted("a"));
        bench.protocol.engine(&Event::Started(key("a")));
        bench.protocol.produced(&key("a"), 35);
        bench.events();
        let wanted = bench.protocol.next_output().unwrap();
        assert!(bench.protocol.output_read(&wanted, lost).is_none());
        // The control plane would call it a breach of the contract, session after session.
        bench.protocol.produced(&key("a"), 80);
        assert_eq!(bench.protocol.next_output(), None);
        assert_eq!(bench.commands(), [Command::OutputAcked { key: key("a"), offset: 0, full: true }], "none is kept");
        bench.protocol.engine(&ended("a", 80));
        let events = bench.events();
        let agent_event::Event::End(end) = &events[0] else { panic!("{events:?}") };
        assert!(end.result.as_ref().unwrap().output_gap);
    }
}

#[derive(Debug, Clone)]
enum Move {
    Produce(u64),
    Send,
    /// The control plane stores what has arrived, up to a share of it.
    Store(u8),
    Cut,
    End,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        (1..400_u64).prop_map(Move::Produce),
        Just(Move::Send),
        any::<u8>().prop_map(Move::Store),
        Just(Move::Cut),
        Just(Move::End),
    ];
    prop::collection::vec(one, 1..60)
}

proptest! {
    /// Whatever is cut when: output arrives in order and whole, the end after it.
    #[test]
    fn cuts_lose_and_repeat_nothing(moves in moves()) {
        let mut bench = Bench::new(&[]);
        bench.open(Vec::new());
        bench.protocol.engine(&accepted("a"));
        bench.protocol.engine(&Event::Started(key("a")));
        let (mut produced, mut arrived, mut stored, mut finished) = (0, 0, 0, false);
        let mut ends: HashMap<u64, u32> = HashMap::new();
        for step in moves.into_iter().chain([Move::End, Move::Send]) {
            match step {
                Move::Produce(more) if !finished => {
                    produced += more;
                    bench.protocol.produced(&key("a"), produced);
                }
                Move::Produce(_) => {}
                Move::End if !finished => {
                    finished = true;
                    bench.protocol.engine(&ended("a", produced));
                }
                Move::End => {}
                Move::Store(share) => {
                    stored += (arrived - stored) * u64::from(share) / 255;
                    bench.ack("a", stored);
                }
                Move::Cut => {
                    bench.protocol.disconnected(bench.now);
                    arrived = stored;
                    bench.open(vec![resume("a", ResumeDecision::Continue, stored)]);
                }
                Move::Send => {
                    bench.events();
                    for (_, from, to) in bench.output() {
                        prop_assert_eq!(from, arrived);
                        arrived = to;
                        prop_assert!(arrived - stored <= 100);
                    }
                    for event in bench.events() {
                        if let agent_event::Event::End(_) = event {
                            prop_assert!(finished && arrived == produced);
                            *ends.entry(arrived).or_default() += 1;
                        }
                    }
                }
            }
        }
        // In the end everything gets there.
        for _ in 0..1000 {
            stored = arrived;
            bench.ack("a", stored);
            bench.events();
            for (_, from, to) in bench.output() {
                prop_assert_eq!(from, arrived);
                arrived = to;
            }
            if arrived == produced {
                break;
            }
        }
        prop_assert_eq!(arrived, produced);
    }
}

fn assignment(id: &str) -> server_event::Event {
    server_event::Event::Assignment(Assignment { task: wire(id), ..Assignment::default() })
}

#[test]
fn a_poll_says_everything_at_once_and_the_next_one_says_again_what_got_no_answer() {
    let mut bench = Bench::new(&[]);
    // Which version the control plane is must be known before anything is asked of it.
    bench.protocol.polling(bench.now);
    assert_eq!(names(&bench.events())[1..], ["heartbeat 1"]);
    bench.welcome(Vec::new());
    bench.protocol.disconnected(bench.now);
    bench.protocol.polling(bench.now);
    assert_eq!(names(&bench.events())[1..], ["credit 4", "heartbeat 1"]);
    bench.welcome(Vec::new());
    bench.server(assignment("a")).unwrap();
    bench.server(assignment("b")).unwrap();
    bench.commands();
    bench.protocol.disconnected(bench.now);

    bench.protocol.engine(&accepted("a"));
    bench.protocol.engine(&Event::Started(key("a")));
    bench.protocol.produced(&key("a"), 50);
    bench.protocol.engine(&handed_back("b"));
    for _ in 0..3 {
        // However often the answer is lost.
        bench.protocol.polling(bench.now);
        let events = bench.events();
        assert_eq!(names(&events)[1..], ["hand back b", "credit 2", "heartbeat 1"]);
        let agent_event::Event::Hello(hello) = &events[0] else { panic!("{events:?}") };
        let held: Vec<_> = hello.held.iter().map(HeldTask::state).collect();
        assert_eq!(held, [HeldState::Running, HeldState::Accepted]);
        assert_eq!(bench.output(), [(key("a"), 0, 50)]);
        bench.protocol.disconnected(bench.now);
    }
    bench.protocol.polling(bench.now);
    bench.events();
    bench.output();
    bench.welcome(vec![resume("a", ResumeDecision::Continue, 0)]);
    bench.server(server_event::Event::HeartbeatAck(HeartbeatAck { sequence: 1, stale: Vec::new() })).unwrap();
    bench.server(server_event::Event::OutputAck(OutputAck { task: wire("a"), offset: 50, full: false })).unwrap();
    assert!(bench.commands().contains(&Command::HandBackDelivered(key("b"))));
    bench.protocol.disconnected(bench.now);

    bench.protocol.engine(&ended("a", 50));
    for _ in 0..2 {
        bench.protocol.polling(bench.now);
        assert!(names(&bench.events()).contains(&"end a 50".to_owned()));
        assert!(bench.output().is_empty());
        bench.protocol.disconnected(bench.now);
    }
    bench.protocol.polling(bench.now);
    bench.events();
    bench.welcome(vec![resume("a", ResumeDecision::Continue, 50)]);
    bench.server(server_event::Event::EndAck(EndAck { task: wire("a") })).unwrap();
    bench.protocol.disconnected(bench.now);
    assert!(!bench.protocol.is_busy());
}

#[test]
fn what_the_engine_has_not_answered_for_yet_counts_as_held() {
    let mut bench = Bench::new(&[]);
    bench.open(Vec::new());
    bench.events();
    for id in ["a", "b", "c"] {
        bench.server(assignment(id)).unwrap();
    }
    assert!(bench.protocol.awaits_engine());
    bench.protocol.engine(&accepted("b"));
    let hello = bench.hello_again();
    let held: Vec<_> = hello.held.iter().map(|held| (held.task.clone(), held.state())).collect();
    let expected = ["a", "b", "c"].map(|id| (wire(id), HeldState::Accepted));
    assert_eq!(held, expected, "or they were given out a second time while they are being accepted");
    bench.welcome(vec![resume("a", ResumeDecision::Forget, 0), resume("c", ResumeDecision::Continue, 0)]);
    bench.protocol.engine(&handed_back("c"));
    assert!(!bench.protocol.awaits_engine());
}

#[test]
fn what_an_earlier_process_started_asks_for_its_assignment_until_it_is_decided() {
    let mut bench = Bench::new(&[interrupted("a"), interrupted("b"), interrupted("c"), interrupted("d")]);
    for _ in 0..2 {
        let held = bench.hello().held;
        assert!(held.iter().all(|held| held.wants_assignment && held.state() == HeldState::Running), "{held:?}");
        bench.protocol.disconnected(bench.now);
    }
    bench.hello();
    let assignment = |id: &str| Some(Assignment { task: wire(id), ..Assignment::default() });
    bench.welcome(vec![
        Resume { assignment: assignment("a"), cancel_requested: true, ..resume("a", ResumeDecision::Continue, 70) },
        // Of an older control plane, or of one that mixes things up.
        Resume { assignment: assignment("a"), ..resume("b", ResumeDecision::Continue, 0) },
        Resume { assignment: assignment("c"), ..resume("c", ResumeDecision::Stale, 0) },
        Resume { assignment: assignment("d"), ..resume("d", ResumeDecision::Forget, 0) },
    ]);
    let resumed = |id: &str, given: bool, output_acked, stale| {
        let assignment = assignment(id).filter(|_| given).map(Box::new);
        Command::Resume(Box::new(Resumption { key: key(id), assignment, output_acked, stale }))
    };
    let reason = "asked for while the agent was not connected".to_owned();
    assert_eq!(
        bench.commands(),
        [
            resumed("a", true, 70, false),
            Command::Cancel { key: key("a"), reason },
            resumed("b", false, 0, false),
            resumed("c", true, 0, true),
            Command::Stale(key("c")),
            Command::Forget(key("d")),
        ]
    );
    // All of them hold slots until the engine lets them go, so there is no credit.
    assert!(!bench.events().iter().any(|event| matches!(event, agent_event::Event::Credit(_))));
    bench.protocol.engine(&Event::Settled(1));
    assert!(bench.events().contains(&agent_event::Event::Credit(lictor_proto::v1::Credit { total: 1 })));
    // Output goes on behind what is stored.
    bench.protocol.produced(&key("a"), 100);
    assert_eq!(bench.output(), [(key("a"), 70, 100)]);
    bench.protocol.disconnected(bench.now);
    let held = bench.hello().held;
    assert_eq!(held.len(), 2, "{held:?}");
    assert!(!held.iter().any(|held| held.wants_assignment));
}

#[test]
fn what_is_left_to_the_next_process_does_not_hold_up_the_end() {
    let mut bench = Bench::new(&[interrupted("a")]);
    bench.protocol.drain("asked");
    assert!(matches!(bench.commands()[..], [Command::Drain(_)]));
    bench.protocol.engine(&Event::Left(key("a")));
    bench.protocol.engine(&Event::Idle);
    assert!(bench.protocol.is_flushed());
}

#[test]
fn output_with_a_hole_in_it_is_not_sent() {
    let mut bench = Bench::new(&[ended("a", 100)]);
    bench.open(vec![resume("a", ResumeDecision::Continue, 10)]);
    let wanted = bench.protocol.next_output().unwrap();
    assert_eq!(wanted.offset, 10);
    let piece = Piece { offset: 40, stream: OutputStream::Stdout, data: vec![0; 20].into() };
    assert_eq!(bench.protocol.output_read(&wanted, Some(piece)), None);
    assert_eq!(bench.output(), []);
    let events = bench.events();
    let end = events.iter().find_map(|event| match event {
        agent_event::Event::End(end) => end.result.as_ref(),
        _ => None,
    });
    assert!(end.is_some_and(|result| result.output_gap && result.output_bytes == 100), "{events:?}");
}

#[test]
fn short_of_room_it_grants_no_new_credit_and_takes_none_back() {
    let mut bench = Bench::new(&[]);
    bench.protocol.admit(Room { open: true, most: Some(2) });
    bench.open(Vec::new());
    assert_eq!(names(&bench.events()), ["credit 2"]);
    bench.protocol.admit(Room { open: false, most: None });
    assert!(bench.events().is_empty());
    // Against credit of old: accepted, and not made up for.
    bench.server(assignment("a")).unwrap();
    assert!(matches!(bench.commands()[..], [Command::Assign(_)]));
    bench.protocol.engine(&accepted("a"));
    assert_eq!(names(&bench.events()), ["accepted a"]);
    bench.protocol.engine(&Event::Settled(1));
    assert!(bench.events().is_empty());
    // A new session begins with none.
    bench.hello_again();
    bench.welcome(Vec::new());
    assert!(bench.events().is_empty() && bench.protocol.is_closed());
    bench.protocol.admit(Room::default());
    assert_eq!(names(&bench.events()), ["credit 4"]);
    // Fewer slots than before are no reason to say anything.
    bench.protocol.admit(Room { open: true, most: Some(1) });
    assert!(bench.events().is_empty());
}

#[test]
fn an_agent_that_cannot_write_its_journal_says_so_in_a_new_session_and_takes_nothing() {
    let mut bench = Bench::new(&[]);
    bench.open(Vec::new());
    assert!(names(&bench.events()).contains(&"credit 4".to_owned()));
    bench.protocol.engine(&Event::Impaired(Some("full".into())));
    assert_eq!(bench.pass(0).unwrap_err(), SessionEnd::Afresh);
    bench.protocol.disconnected(bench.now);
    assert_eq!(bench.hello().degraded, ["full"]);
    bench.welcome(Vec::new());
    assert!(!names(&bench.events()).iter().any(|name| name.starts_with("credit")));
    // The same once more is no news.
    bench.protocol.engine(&Event::Impaired(Some("still full".into())));
    bench.pass(0).unwrap();
    bench.protocol.engine(&Event::Impaired(None));
    assert_eq!(bench.pass(0).unwrap_err(), SessionEnd::Afresh);
    bench.protocol.disconnected(bench.now);
    assert_eq!(bench.hello().degraded, [""; 0]);
    bench.welcome(Vec::new());
    assert!(names(&bench.events()).contains(&"credit 4".to_owned()));
}

fn welcome_of(contract: &str) -> server_event::Event {
    server_event::Event::Welcome(Welcome { output_window: 100, contract: contract.into(), ..Welcome::default() })
}

#[test]
fn a_control_plane_too_far_away_is_asked_for_nothing_and_gets_what_is_held() {
    let near = Contract { minor: Contract::OURS.minor + 1, ..Contract::OURS };
    let far = Contract { minor: Contract::OURS.minor + 2, ..Contract::OURS };
    let mut bench = Bench::new(&[ended("a", 0)]);
    assert_eq!(bench.hello().contract, Contract::OURS.to_string());
    bench.server(welcome_of(&far.to_string())).unwrap();
    assert_eq!(bench.protocol.mismatch(), Some(Mismatch::TooFar(far)));
    let events = bench.events();
    assert!(events.iter().any(|event| matches!(event, agent_event::Event::End(_))), "{events:?}");
    assert!(!events.iter().any(|event| matches!(event, agent_event::Event::Credit(_))), "{events:?}");
    // Nor by the next poll, which waits as long as any: nothing here can end that.
    bench.protocol.disconnected(bench.now);
    bench.protocol.polling(bench.now);
    let events = bench.events();
    assert!(!events.iter().any(|event| matches!(event, agent_event::Event::Credit(_))), "{events:?}");
    assert!(bench.protocol.is_closed() && !bench.protocol.is_closed_by_itself());
    bench.protocol.disconnected(bench.now);
    // It was replaced by one that is near enough, or by one of the previous version, which does not say what it is.
    for contract in [near.to_string(), String::new()] {
        bench.hello();
        bench.server(welcome_of(&contract)).unwrap();
        assert_eq!(bench.protocol.mismatch(), None);
        let events = bench.events();
        assert!(events.iter().any(|event| matches!(event, agent_event::Event::Credit(_))), "{events:?}");
    }
}

#[test]
fn a_reason_that_the_control_plane_does_not_know_is_one_that_it_does() {
    for (contract, expected) in
        [("", HandBackReason::Unable), ("0.1", HandBackReason::Unable), ("0.2", HandBackReason::Passing)]
    {
        let passing = Event::HandedBack { key: key("a"), reason: HandBackReason::Passing, failure: Box::default() };
        let mut bench = Bench::new(&[passing]);
        bench.hello();
        bench.server(welcome_of(contract)).unwrap();
        let said = bench.events().into_iter().find_map(|event| match event {
            agent_event::Event::HandBack(event) => Some(event.reason()),
            _ => None,
        });
        assert_eq!(said, Some(expected), "{contract:?}");
    }
}

#[test]
fn what_a_newer_control_plane_says_in_new_words_is_passed_over() {
    let mut bench = Bench::new(&[]);
    bench.open(Vec::new());
    bench.events();
    bench.protocol.server(ServerEvent { event: None }, bench.now).unwrap();
    bench.assign("a").unwrap();
    assert_eq!(bench.commands().len(), 1);
}
