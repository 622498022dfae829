//! The ledger under a hand-moved clock.

use std::time::{Duration, Instant};

use lictor_proto::v1::{
    Accepted, AgentEvent, Credit, HandBack, HandBackReason, Heartbeat, HeldState, HeldTask, Hello, OutputChunk,
    OutputStream, Started, TaskEnd, TaskOutput, TaskRef, agent_event,
};
use proptest::prelude::*;

use super::link::MAX_NAMED_TASKS;
use super::*;

mod batches;
mod codes;
mod fairness;
mod pauses;
mod secrets;

const LEASE: Duration = Duration::from_secs(30);
const LOST_WAIT: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(20);
const QUEUE: Duration = Duration::from_secs(300);

/// A ledger, its clock, and everything it ever decided.
struct World {
    ledger: Ledger,
    now: Now,
    assigned: Vec<Assign>,
    finished: Vec<Finished>,
    batches: Vec<BatchRecord>,
    appended: Vec<Append>,
    events: Vec<(SessionId, server_event::Event)>,
    evidence: usize,
    next_session: SessionId,
}

impl World {
    fn new(agents: &[&str]) -> Self {
        let settings = Settings {
            lease: LEASE,
            heartbeat_interval: Duration::from_secs(10),
            lost_wait: LOST_WAIT,
            restart_grace: GRACE,
            output_limit: 1000,
            limits: Limits::default(),
        };
        let now = Now { instant: Instant::now(), wall: UnixMillis(1_000_000) };
        let credentials = [("web".to_owned(), CredentialState { version: 1, ..CredentialState::default() })].into();
        let agents = agents.iter().map(|name| agent(name)).collect();
        Self {
            ledger: Ledger::new(settings, agents, Vec::new(), Vec::new(), credentials, now),
            now,
            assigned: Vec::new(),
            finished: Vec::new(),
            batches: Vec::new(),
            appended: Vec::new(),
            events: Vec::new(),
            evidence: 0,
            next_session: 1,
        }
    }

    /// What the engine does at the end of each turn.
    fn turn(&mut self) {
        self.ledger.tick(self.now);
        self.ledger.schedule(self.now);
        let outcome = self.ledger.take_outcome();
        self.batches.extend(outcome.batches);
        self.finished.extend(outcome.finished);
        self.appended.extend(outcome.appends);
        self.evidence += outcome.evidence.len();
        for (session, outgoing) in outcome.outgoing {
            match outgoing {
                Outgoing::Assign(assign) => self.assigned.push(assign),
                Outgoing::Event(event) => self.events.extend(event.event.map(|event| (session, event))),
                Outgoing::Close(goodbye) => self.events.push((session, server_event::Event::Goodbye(goodbye))),
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.wall = self.now.wall.plus(time);
        self.turn();
    }

    fn submit(&mut self, id: &str, idempotent: bool) {
        self.submit_with(id, |task| task.idempotent = idempotent);
    }

    fn submit_with(&mut self, id: &str, change: impl FnOnce(&mut LiveTask)) {
        let mut task = self.task(id);
        change(&mut task);
        self.ledger.submit(task, self.now);
        self.turn();
    }

    fn task(&self, id: &str) -> LiveTask {
        LiveTask {
            seq: i64::try_from(self.ledger.tasks.len() + self.finished.len()).unwrap(),
            task_id: id.into(),
            route: Route { capability: "command", ..Route::default() },
            credential: "web".into(),
            idempotent: false,
            queue_timeout: QUEUE,
            phase: Phase::Queued,
            epoch: 0,
            agent_id: None,
            accepted: false,
            started: false,
            may_have_run: false,
            credential_version: 0,
            queued_at: self.now.wall,
            assigned_at: None,
            started_at: None,
            cancel: None,
            output_bytes: 0,
            output_base: 0,
            received: 0,
            handed_back: BTreeMap::new(),
            hitch: None,
            passed: 0,
            unsent: false,
            deadline: None,
            claim: Claim {
                submitter: "someone".into(),
                host: "host".into(),
                batch: None,
                batch_ended: None,
                retries_left: 0,
                retry_at: None,
                last_result: None,
            },
        }
    }

    fn connect(&mut self, agent: &str, instance: &str, held: Vec<HeldTask>, credit: u64) -> SessionId {
        let capabilities = vec!["command".into()];
        self.greet(agent, Hello { instance_id: instance.into(), capabilities, held, ..Hello::default() }, credit)
    }

    fn connect_as(&mut self, agent: &str, instance: &str, capabilities: &[&str], credit: u64) -> SessionId {
        let capabilities = capabilities.iter().map(|&capability| capability.into()).collect();
        self.greet(agent, Hello { instance_id: instance.into(), capabilities, ..Hello::default() }, credit)
    }

    fn greet(&mut self, agent: &str, hello: Hello, credit: u64) -> SessionId {
        let session = self.next_session;
        self.next_session += 1;
        let hello = Hello { protocol: 1, slots: 8, ..hello };
        self.ledger.hello(agent, session, &hello, &HeldFacts::new(), self.now).unwrap();
        self.say(agent, session, agent_event::Event::Credit(Credit { total: credit })).unwrap();
        session
    }

    fn say(&mut self, agent: &str, session: SessionId, event: agent_event::Event) -> Result<(), ProtocolError> {
        let said = self.ledger.agent_event(agent, session, AgentEvent { event: Some(event) }, self.now);
        self.turn();
        said
    }

    fn code(&self, id: &str) -> String {
        self.ledger.candidates(id)[0].code.clone()
    }

    fn state(&self, id: &str) -> Option<TaskState> {
        self.ledger.task(id).map(LiveTask::state)
    }

    fn outcome(&self, id: &str) -> TaskState {
        let ended: Vec<_> = self.finished.iter().filter(|finished| finished.task.task_id == id).collect();
        assert_eq!(ended.len(), 1, "{id} ended {} times", ended.len());
        ended[0].result.outcome()
    }
}

fn agent(name: &str) -> AgentEntry {
    AgentEntry {
        agent_id: name.into(),
        name: name.into(),
        own_tags: Vec::new(),
        token_tags: Vec::new(),
        scope: String::new(),
        version: String::new(),
        description: String::new(),
        sealing_key: Vec::new(),
        slots: 0,
        capabilities: Vec::new(),
        enrolled_at: UnixMillis(0),
        last_seen_at: None,
        certificate_not_after: UnixMillis(0),
        drain_reason: None,
        revoked: None,
        journal_lost: false,
        instance_id: String::new(),
        degraded: Vec::new(),
        kerberos_principals: Vec::new(),
        slots_used: 0,
        resident_bytes: 0,
        link: None,
    }
}

fn reference(id: &str, epoch: u64) -> TaskRef {
    TaskRef { task_id: id.into(), epoch }
}

fn hand_back(id: &str, epoch: u64, reason: HandBackReason) -> agent_event::Event {
    agent_event::Event::HandBack(HandBack { task: Some(reference(id, epoch)), reason: reason.into(), failure: None })
}

fn started(id: &str, epoch: u64) -> agent_event::Event {
    agent_event::Event::Started(Started { task: Some(reference(id, epoch)) })
}

fn end(id: &str, epoch: u64, outcome: TaskState) -> agent_event::Event {
    let result = failure::result(outcome, None);
    agent_event::Event::End(TaskEnd { task: Some(reference(id, epoch)), result: Some(result) })
}

fn output(id: &str, epoch: u64, offset: u64, data: &[u8]) -> agent_event::Event {
    let chunk = OutputChunk { offset, stream: OutputStream::Stdout.into(), data: data.to_vec().into() };
    agent_event::Event::Output(TaskOutput { task: Some(reference(id, epoch)), chunk: Some(chunk) })
}

fn heartbeat(held: Vec<TaskRef>) -> agent_event::Event {
    agent_event::Event::Heartbeat(Heartbeat { sequence: 1, held, slots_used: 0, resident_bytes: 0 })
}

#[test]
fn a_lease_runs_out_then_the_wait_then_the_outcome_is_unknown() {
    let mut world = World::new(&["a"]);
    let session = world.connect("a", "i", Vec::new(), 1);
    world.submit("t", false);
    world.say("a", session, started("t", 1)).unwrap();
    world.pass(LEASE - Duration::from_secs(1));
    assert_eq!(world.state("t"), Some(TaskState::Running));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.state("t"), Some(TaskState::Lost));
    world.pass(LOST_WAIT);
    assert_eq!(world.outcome("t"), TaskState::Unknown);
    // The agent still believes in it.
    world.say("a", session, heartbeat(vec![reference("t", 1)])).unwrap();
    let stale = world
        .events
        .iter()
        .any(|(_, event)| matches!(event, server_event::Event::HeartbeatAck(ack) if ack.stale == [reference("t", 1)]));
    assert!(stale);
    world.say("a", session, end("t", 1, TaskState::Succeeded)).unwrap();
    assert_eq!((world.evidence, world.outcome("t")), (1, TaskState::Unknown));
}

#[test]
fn a_result_resolves_a_lost_task() {
    let mut world = World::new(&["a"]);
    let session = world.connect("a", "i", Vec::new(), 1);
    world.submit("t", false);
    world.pass(LEASE);
    assert_eq!(world.state("t"), Some(TaskState::Lost));
    world.say("a", session, end("t", 1, TaskState::Failed)).unwrap();
    assert_eq!(world.outcome("t"), TaskState::Failed);
}

#[test]
fn output_that_nobody_wants_any_more_does_not_hold_back_the_late_result_behind_it() {
    let mut world = World::new(&["a"]);
    let session = world.connect("a", "i", Vec::new(), 1);
    world.submit("t", false);
    world.say("a", session, started("t", 1)).unwrap();
    world.pass(LEASE);
    world.pass(LOST_WAIT);
    assert_eq!(world.outcome("t"), TaskState::Unknown);
    world.events.clear();
    world.say("a", session, output("t", 1, 7, b"abc")).unwrap();
    let ack = OutputAck { task: Some(reference("t", 1)), offset: 10, full: true };
    assert_eq!(world.events, [(session, server_event::Event::OutputAck(ack))]);
    assert!(world.appended.is_empty());
}

#[test]
fn no_lease_ends_within_the_grace_after_the_start() {
    let mut world = World::new(&["a"]);
    let mut task = None;
    world.connect("a", "i", Vec::new(), 1);
    world.submit("t", false);
    task.replace(world.ledger.task("t").unwrap().clone());
    let settings = Settings { lease: Duration::from_secs(1), lost_wait: Duration::ZERO, ..world.ledger.settings };
    let credentials = world.ledger.credentials.clone();
    world.ledger =
        Ledger::new(settings, vec![agent("a")], task.into_iter().collect(), Vec::new(), credentials, world.now);
    world.pass(GRACE - Duration::from_millis(1));
    assert_eq!(world.state("t"), Some(TaskState::Assigned));
    world.pass(Duration::from_millis(1));
    world.turn();
    assert_eq!(world.outcome("t"), TaskState::Unknown);
}

#[test]
fn an_idempotent_task_is_given_again_but_not_for_ever() {
    let mut world = World::new(&["a"]);
    world.submit("t", true);
    for round in 1..=MAX_ASSIGNMENTS {
        let session = world.connect("a", &format!("i{round}"), Vec::new(), 1);
        assert_eq!(world.assigned.last().unwrap().epoch, round);
        world.say("a", session, started("t", round)).unwrap();
    }
    world.connect("a", "last", Vec::new(), 1);
    assert_eq!(world.outcome("t"), TaskState::Unknown);
}

#[test]
fn an_idempotent_task_that_perhaps_ran_is_unknown_when_nobody_takes_it_again() {
    for cancelled in [false, true] {
        let mut world = World::new(&["a"]);
        let session = world.connect("a", "i", Vec::new(), 1);
        world.submit("t", true);
        world.say("a", session, started("t", 1)).unwrap();
        // The agent comes back without it and without room.
        world.connect("a", "j", Vec::new(), 0);
        assert_eq!(world.state("t"), Some(TaskState::Queued));
        if cancelled {
            world.ledger.cancel("t", "r", world.now);
            world.turn();
        } else {
            world.pass(QUEUE);
        }
        assert_eq!(world.outcome("t"), TaskState::Unknown, "cancelled: {cancelled}");
        let failure = world.finished[0].result.failure.as_ref().unwrap();
        assert!(failure.may_have_started && failure.message.contains("earlier attempt"), "{failure:?}");
    }
}

#[test]
fn a_failure_to_start_again_does_not_say_that_nothing_started() {
    let mut world = World::new(&["a"]);
    let session = world.connect("a", "i", Vec::new(), 1);
    world.submit("t", true);
    world.say("a", session, started("t", 1)).unwrap();
    let session = world.connect("a", "j", Vec::new(), 1);
    let failure = lictor_proto::v1::Failure { stage: "open_shell".into(), ..Default::default() };
    let result = failure::result(TaskState::Failed, Some(failure));
    let end = TaskEnd { task: Some(reference("t", 2)), result: Some(result) };
    world.say("a", session, agent_event::Event::End(end)).unwrap();
    assert_eq!(world.outcome("t"), TaskState::Failed);
    let failure = world.finished[0].result.failure.as_ref().unwrap();
    assert!(failure.may_have_started && failure.message.contains("earlier attempt"), "{failure:?}");
}

#[test]
fn a_waiting_task_is_rejected_in_time_even_while_agents_are_busy() {
    let mut world = World::new(&["a"]);
    world.connect("a", "i", Vec::new(), 0);
    world.submit("t", false);
    world.pass(QUEUE - Duration::from_secs(1));
    assert_eq!(world.state("t"), Some(TaskState::Queued));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.outcome("t"), TaskState::Rejected);
    assert_eq!(world.finished[0].candidates[0].code, "no_free_slot");
    assert_eq!(world.ledger.next_deadline(), None);
}

#[test]
fn the_agent_with_the_most_room_gets_the_next_task() {
    let mut world = World::new(&["a", "b"]);
    world.connect("a", "i", Vec::new(), 1);
    world.connect("b", "i", Vec::new(), 3);
    for id in ["1", "2", "3", "4", "5"] {
        world.submit(id, false);
    }
    let given = |agent: &str| world.assigned.iter().filter(|assign| assign.agent_id == agent).count();
    assert_eq!((given("a"), given("b")), (1, 3));
    assert_eq!(world.state("5"), Some(TaskState::Queued));
}

#[test]
fn a_task_handed_back_after_its_start_is_unknown() {
    let mut world = World::new(&["a"]);
    let session = world.connect("a", "i", Vec::new(), 1);
    world.submit("t", true);
    world.say("a", session, started("t", 1)).unwrap();
    world.say("a", session, hand_back("t", 1, HandBackReason::Restarted)).unwrap();
    assert_eq!(world.outcome("t"), TaskState::Unknown);
}

#[test]
fn a_policy_sends_a_task_to_others_and_ends_it_when_nobody_is_left() {
    let mut world = World::new(&["a", "b", "c"]);
    let refusal = |epoch| {
        let failure = Failure { code: "policy.host".into(), message: format!("refused {epoch}"), ..Failure::default() };
        agent_event::Event::HandBack(HandBack {
            task: Some(reference("t", epoch)),
            reason: HandBackReason::Policy.into(),
            failure: Some(failure),
        })
    };
    let a = world.connect("a", "i", Vec::new(), 5);
    world.submit("t", false);
    world.say("a", a, refusal(1)).unwrap();
    // An agent that is not connected may allow it once it is.
    assert_eq!(world.state("t"), Some(TaskState::Queued));
    let b = world.connect("b", "i", Vec::new(), 5);
    world.turn();
    assert_eq!(world.assigned.last().map(|assign| (assign.agent_id.as_str(), assign.epoch)), Some(("b", 2)));
    world.ledger.revoke("c", "gone", world.now);
    world.say("b", b, refusal(2)).unwrap();
    assert_eq!(world.outcome("t"), TaskState::Rejected);
    assert_eq!(world.assigned.len(), 2, "nobody got it twice");
    let finished = &world.finished[0];
    assert_eq!(finished.result.failure.as_ref().unwrap().code, "policy.host");
    let reasons: Vec<_> = finished.candidates.iter().map(|c| (c.agent_id.as_str(), c.reason.as_str())).collect();
    assert_eq!(
        reasons,
        [
            ("a", "it handed the task back: refused 1"),
            ("b", "it handed the task back: refused 2"),
            ("c", "its identity was revoked")
        ]
    );
}

#[test]
fn an_agent_that_polls_stays_online_between_polls_but_not_for_ever() {
    let mut world = World::new(&["a"]);
    let online = |world: &World| world.ledger.agent_views()[0].state() == lictor_proto::v1::AgentState::Online;
    assert!(!world.ledger.polls("a", true), "the first");
    for _ in 0..5 {
        let session = world.connect("a", "i", Vec::new(), 0);
        assert!(online(&world));
        world.pass(LEASE * 2);
        assert!(online(&world), "a poll that waits for long");
        world.ledger.disconnected("a", session, world.now);
        world.pass(LEASE / 2);
        assert!(online(&world) && world.ledger.connected_agents() == 1);
        assert!(world.ledger.polls("a", true));
    }
    let session = world.connect("a", "i", Vec::new(), 0);
    world.ledger.disconnected("a", session, world.now);
    world.submit("t", false);
    assert_eq!(world.ledger.candidates("t")[0].code, "between_polls");
    assert_eq!(world.ledger.next_deadline(), Some(world.now.instant + LEASE));
    world.pass(LEASE);
    assert!(!online(&world) && world.ledger.connected_agents() == 0);
    assert_eq!(world.ledger.candidates("t")[0].code, "offline");
    // A stream that ends leaves nobody behind.
    assert!(!world.ledger.polls("a", false));
    let session = world.connect("a", "i", Vec::new(), 0);
    world.ledger.disconnected("a", session, world.now);
    assert!(!online(&world));
}

#[test]
fn an_assignment_in_an_answer_that_got_lost_goes_out_again_with_the_next_poll() {
    let mut world = World::new(&["a"]);
    for epoch in 1..4 {
        world.ledger.polls("a", true);
        world.connect("a", "i", Vec::new(), 1);
        if epoch == 1 {
            world.submit("t", false);
        }
        world.turn();
        assert_eq!(world.assigned.last().map(|assign| assign.epoch), Some(epoch));
    }
    // It got the third: nothing is given out again.
    let held = HeldTask { task: Some(reference("t", 3)), state: HeldState::Accepted.into(), ..HeldTask::default() };
    world.ledger.polls("a", true);
    world.connect("a", "i", vec![held], 1);
    world.turn();
    assert_eq!((world.assigned.len(), world.state("t")), (3, Some(TaskState::Assigned)));
}

#[test]
fn cancelling_what_never_arrived_needs_no_agent() {
    let mut world = World::new(&["a"]);
    world.connect("a", "i", Vec::new(), 1);
    world.submit("t", true);
    assert!(world.ledger.cancel("t", "r", world.now));
    world.connect("a", "i", Vec::new(), 1);
    assert_eq!(world.outcome("t"), TaskState::Cancelled);
    assert!(!world.ledger.cancel("t", "r", world.now));
}

#[test]
fn a_cancelled_idempotent_task_is_not_started_again() {
    let mut world = World::new(&["a"]);
    let session = world.connect("a", "i", Vec::new(), 1);
    world.submit("t", true);
    world.say("a", session, started("t", 1)).unwrap();
    world.ledger.cancel("t", "r", world.now);
    world.connect("a", "j", Vec::new(), 1);
    assert_eq!(world.outcome("t"), TaskState::Unknown);
}

/// As the checks leave a task that only looks.
fn diagnosis(task: &mut LiveTask) {
    (task.route.capability, task.idempotent) = ("diagnosis", true);
}

#[test]
fn what_only_looks_goes_to_agents_that_can_and_is_never_unknown() {
    let mut world = World::new(&["a"]);
    // Of a version that knows nothing of diagnoses.
    world.connect("a", "i", Vec::new(), 1);
    world.submit_with("t", diagnosis);
    assert_eq!(world.code("t"), "missing_capability");
    assert_eq!(world.state("t"), Some(TaskState::Queued));
    let updated = |world: &mut World, instance: &str| {
        let session = world.connect_as("a", instance, &["command", "diagnosis"], 1);
        let epoch = world.ledger.task("t").map(|task| task.epoch).unwrap();
        world.say("a", session, started("t", epoch)).unwrap();
        session
    };
    // The process ends in the middle of it, and the next one knows nothing of it, or gives it back.
    updated(&mut world, "j");
    let session = updated(&mut world, "k");
    assert_eq!((world.assigned.len(), world.state("t")), (2, Some(TaskState::Running)));
    world.say("a", session, hand_back("t", 2, HandBackReason::Restarted)).unwrap();
    assert_eq!(world.state("t"), Some(TaskState::Queued));
    updated(&mut world, "l");
    world.ledger.cancel("t", "r", world.now);
    world.connect("a", "m", Vec::new(), 1);
    assert_eq!(world.outcome("t"), TaskState::Cancelled);
    assert!(!world.finished[0].result.failure.as_ref().is_some_and(|failure| failure.may_have_started));
}

#[test]
fn what_only_looks_and_takes_every_agent_down_comes_to_an_end() {
    let mut world = World::new(&["a"]);
    world.submit_with("t", diagnosis);
    for epoch in 1..=10 {
        let session = world.connect_as("a", &format!("i{epoch}"), &["diagnosis"], 1);
        world.say("a", session, started("t", epoch)).unwrap();
    }
    world.connect_as("a", "last", &["diagnosis"], 1);
    assert_eq!((world.assigned.len(), world.outcome("t")), (10, TaskState::Rejected));
    assert_eq!(world.finished[0].result.failure.as_ref().unwrap().code, "too_many_assignments");
}

#[test]
fn an_unstarted_task_that_every_agent_loses_is_not_given_for_ever() {
    let mut world = World::new(&["a"]);
    world.submit("t", false);
    for round in 0..200 {
        world.connect("a", &format!("i{round}"), Vec::new(), 1);
    }
    assert_eq!(world.outcome("t"), TaskState::Rejected);
    let failure = world.finished[0].result.failure.as_ref().unwrap();
    assert_eq!(failure.code, "too_many_assignments");
    assert!(!failure.may_have_started);
}

#[test]
fn whatever_an_agent_sends_a_result_stays_small() {
    use lictor_proto::v1::{ConnectionReport, PostureRow, Suspect};
    use prost::Message as _;
    let mut world = World::new(&["a"]);
    let session = world.connect("a", "i", Vec::new(), 1);
    world.submit("t", false);
    let long = "ä".repeat(1 << 20);
    let suspect = Suspect { cause: long.clone(), ..Suspect::default() };
    let result = TaskResult {
        outcome: TaskState::Failed.into(),
        connection: Some(ConnectionReport { auth: long.clone(), tls: long.clone(), ..ConnectionReport::default() }),
        failure: Some(Failure { message: long.clone(), suspects: vec![suspect], ..Failure::default() }),
        posture_rows: vec![PostureRow { found: long, ..PostureRow::default() }],
        ..TaskResult::default()
    };
    let end = agent_event::Event::End(TaskEnd { task: Some(reference("t", 1)), result: Some(result) });
    world.say("a", session, end).unwrap();
    let stored = &world.finished[0].result;
    assert!(stored.encoded_len() < 64 << 10, "{} bytes", stored.encoded_len());
    assert!(stored.failure.is_some() && stored.connection.is_some());
}

#[test]
fn all_candidates_fit_into_one_message() {
    use prost::Message as _;
    let names: Vec<String> = (0..1500).map(|index| format!("agent-{index}")).collect();
    let mut world = World::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    world.submit("t", false);
    world.ledger.tasks.get_mut("t").unwrap().route.tags = (0..64).map(|_| "ü".repeat(128)).collect();
    let task = lictor_proto::v1::Task { candidates: world.ledger.candidates("t"), ..Default::default() };
    assert!(task.encoded_len() < 1 << 20, "{} bytes", task.encoded_len());
}

#[test]
fn a_hello_that_names_too_much_is_refused() {
    let mut world = World::new(&["a"]);
    let held = (0..MAX_NAMED_TASKS + 1).map(|_| HeldTask::default()).collect();
    let hello = Hello { protocol: 1, instance_id: "i".into(), held, ..Hello::default() };
    assert!(world.ledger.hello("a", 1, &hello, &HeldFacts::new(), world.now).is_err());
}

/// What an agent, a user or time may do next.
#[derive(Debug, Clone)]
enum Step {
    Submit(bool),
    Connect { agent: u8, keep: bool, restart: bool },
    Disconnect(u8),
    Accepted { agent: u8, pick: u8 },
    Started { agent: u8, pick: u8 },
    Output { agent: u8, pick: u8, back: u8, length: u8 },
    HandBack { agent: u8, pick: u8, reason: i32 },
    End { agent: u8, pick: u8 },
    Heartbeat(u8),
    Cancel(u8),
    Drain(u8),
    Pass(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let small = 0u8..2;
    let pick = 0u8..6;
    prop_oneof![
        any::<bool>().prop_map(Step::Submit),
        (small.clone(), any::<bool>(), any::<bool>()).prop_map(|(agent, keep, restart)| Step::Connect {
            agent,
            keep,
            restart
        }),
        small.clone().prop_map(Step::Disconnect),
        (small.clone(), pick.clone()).prop_map(|(agent, pick)| Step::Accepted { agent, pick }),
        (small.clone(), pick.clone()).prop_map(|(agent, pick)| Step::Started { agent, pick }),
        (small.clone(), pick.clone(), 0u8..4, 0u8..200).prop_map(|(agent, pick, back, length)| Step::Output {
            agent,
            pick,
            back,
            length
        }),
        (small.clone(), pick.clone(), 1i32..7).prop_map(|(agent, pick, reason)| Step::HandBack { agent, pick, reason }),
        (small.clone(), pick.clone()).prop_map(|(agent, pick)| Step::End { agent, pick }),
        small.clone().prop_map(Step::Heartbeat),
        pick.prop_map(Step::Cancel),
        small.prop_map(Step::Drain),
        (0u16..100).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Whatever happens in whatever order: a task ends once, epochs only grow, one that was reported started and is
    /// not idempotent is never given again, and the stored log has neither gap nor overlap.
    #[test]
    fn invariants_hold_in_any_order(steps in prop::collection::vec(step(), 1..80)) {
        let names = ["a", "b"];
        let mut world = World::new(&names);
        let mut sessions: [Option<SessionId>; 2] = [None, None];
        let mut instances = [0, 0];
        let mut submitted: Vec<(String, bool)> = Vec::new();
        let mut reported: HashSet<(String, u64)> = HashSet::new();
        for step in steps {
            let assigned = world.assigned.clone();
            let own = |agent: u8, pick: u8| {
                let mine: Vec<&Assign> =
                    assigned.iter().filter(|assign| assign.agent_id == names[agent as usize]).collect();
                let count = mine.len();
                mine.get((pick as usize).min(count.wrapping_sub(1))).map(|assign| (assign.task_id.clone(), assign.epoch))
            };
            let say = |world: &mut World, agent: u8, event: agent_event::Event| {
                if let Some(session) = sessions[agent as usize] {
                    prop_assert!(world.say(names[agent as usize], session, event).is_ok());
                }
                Ok(())
            };
            match step {
                Step::Submit(idempotent) => {
                    let id = format!("t{}", submitted.len());
                    world.submit(&id, idempotent);
                    submitted.push((id, idempotent));
                }
                Step::Connect { agent, keep, restart } => {
                    let name = names[agent as usize];
                    instances[agent as usize] += u32::from(restart);
                    let held = world.ledger.held_by(name).into_iter().filter(|_| keep).map(|id| {
                        let task = world.ledger.task(&id).unwrap();
                        let state = if task.started { HeldState::Running } else { HeldState::Accepted };
                        HeldTask { task: Some(task.reference()), state: state.into(), ..HeldTask::default() }
                    }).collect();
                    let instance = format!("i{}", instances[agent as usize]);
                    sessions[agent as usize] = Some(world.connect(name, &instance, held, 3));
                }
                Step::Disconnect(agent) => {
                    if let Some(session) = sessions[agent as usize].take() {
                        world.ledger.disconnected(names[agent as usize], session, world.now);
                    }
                }
                Step::Accepted { agent, pick } => {
                    if let Some((id, epoch)) = own(agent, pick) {
                        let event = Accepted { task: Some(reference(&id, epoch)) };
                        say(&mut world, agent, agent_event::Event::Accepted(event))?;
                    }
                }
                Step::Started { agent, pick } => {
                    if let Some((id, epoch)) = own(agent, pick) {
                        say(&mut world, agent, started(&id, epoch))?;
                    }
                }
                Step::Output { agent, pick, back, length } => {
                    if let Some((id, epoch)) = own(agent, pick) {
                        let received = world.ledger.task(&id).map_or(0, |task| task.received);
                        let event = output(&id, epoch, received.saturating_sub(back.into()), &vec![0; length.into()]);
                        say(&mut world, agent, event)?;
                    }
                }
                Step::HandBack { agent, pick, reason } => {
                    if let Some((id, epoch)) = own(agent, pick) {
                        let event = HandBack { task: Some(reference(&id, epoch)), reason, failure: None };
                        say(&mut world, agent, agent_event::Event::HandBack(event))?;
                    }
                }
                Step::End { agent, pick } => {
                    if let Some((id, epoch)) = own(agent, pick) {
                        say(&mut world, agent, end(&id, epoch, TaskState::Succeeded))?;
                    }
                }
                Step::Heartbeat(agent) => {
                    let held = world.ledger.held_by(names[agent as usize]).iter()
                        .map(|id| world.ledger.task(id).unwrap().reference()).collect();
                    say(&mut world, agent, heartbeat(held))?;
                }
                Step::Cancel(pick) => {
                    if let Some((id, _)) = submitted.get(pick as usize) {
                        world.ledger.cancel(id, "r", world.now);
                    }
                }
                Step::Drain(agent) => world.ledger.drain(names[agent as usize], "r"),
                Step::Pass(seconds) => world.pass(Duration::from_secs(seconds.into())),
            }
            world.turn();
            for task in world.ledger.tasks.values().filter(|task| task.started) {
                reported.insert((task.task_id.clone(), task.epoch));
            }
        }
        let mut epochs: HashMap<&str, u64> = HashMap::new();
        for assign in &world.assigned {
            let last = epochs.insert(&assign.task_id, assign.epoch).unwrap_or(0);
            prop_assert_eq!(assign.epoch, last + 1);
            let idempotent = submitted.iter().any(|(id, idempotent)| *id == assign.task_id && *idempotent);
            prop_assert!(
                idempotent || !reported.contains(&(assign.task_id.clone(), last)),
                "{} was started and given again", assign.task_id
            );
        }
        for (id, _) in &submitted {
            let ended = world.finished.iter().filter(|finished| finished.task.task_id == *id).count();
            let live = usize::from(world.ledger.task(id).is_some());
            prop_assert_eq!(ended + live, 1, "{} is neither live nor ended, or both", id);
            let mut at = 0;
            for append in world.appended.iter().filter(|append| append.task_id == *id) {
                prop_assert_eq!(append.start, at);
                at += append.data.len() as u64;
            }
            prop_assert!(at <= 1000);
        }
    }
}

#[test]
fn a_secret_is_sealed_again_only_to_the_agent_that_was_given_the_epoch() {
    let mut world = World::new(&["a", "b"]);
    world.submit("t", false);
    let session = world.connect("a", "one", Vec::new(), 1);
    let reference = world.ledger.task("t").unwrap().reference();
    world.say("a", session, agent_event::Event::Started(Started { task: Some(reference.clone()) })).unwrap();
    let held = |reference: &TaskRef, wants_assignment| HeldTask {
        task: Some(reference.clone()),
        state: HeldState::Running.into(),
        wants_assignment,
        ..HeldTask::default()
    };
    let stale = TaskRef { epoch: reference.epoch + 1, ..reference.clone() };
    let given = HeldFacts::from([((stale.task_id.clone(), stale.epoch), HeldFact::NoResult)]);
    let asked = |world: &mut World, agent: &str, held: HeldTask, facts: &HeldFacts| {
        let session = world.next_session;
        world.next_session += 1;
        let hello = Hello { protocol: 1, instance_id: "two".into(), held: vec![held], ..Hello::default() };
        world.ledger.hello(agent, session, &hello, facts, world.now).unwrap();
        let outcome = world.ledger.take_outcome();
        outcome.resealed.into_iter().map(|(_, assign)| (assign.agent_id, assign.epoch)).collect::<Vec<_>>()
    };
    let none = HeldFacts::new();
    assert_eq!(asked(&mut world, "a", held(&reference, true), &none), [("a".to_owned(), reference.epoch)]);
    assert_eq!(asked(&mut world, "a", held(&reference, false), &none), []);
    assert_eq!(asked(&mut world, "b", held(&reference, true), &none), []);
    // A stale epoch: to whom it was given, so that it can end the command; to nobody else.
    assert_eq!(asked(&mut world, "a", held(&stale, true), &given), [("a".to_owned(), stale.epoch)]);
    assert_eq!(asked(&mut world, "b", held(&stale, true), &none), []);
    let stored = HeldFacts::from([((stale.task_id.clone(), stale.epoch), HeldFact::ResultStored)]);
    assert_eq!(asked(&mut world, "a", held(&stale, true), &stored), []);
}

#[test]
fn a_clock_that_moves_by_an_hour_ends_nothing_and_prolongs_nothing() {
    for hour in [3_600_000, -3_600_000] {
        let mut world = World::new(&["a"]);
        world.submit("waits", false);
        let session = world.connect("a", "i", Vec::new(), 0);
        world.now.wall.0 += hour;
        world.pass(QUEUE - Duration::from_secs(1));
        assert_eq!(world.state("waits"), Some(TaskState::Queued));
        world.submit("runs", false);
        world.say("a", session, agent_event::Event::Credit(Credit { total: 1 })).unwrap();
        assert_eq!(world.state("waits"), Some(TaskState::Assigned));
        world.say("a", session, started("waits", 1)).unwrap();
        world.now.wall.0 -= 2 * hour;
        world.pass(LEASE - Duration::from_millis(1));
        assert_eq!(world.state("waits"), Some(TaskState::Running));
        let task = TaskRef { task_id: "waits".into(), epoch: 1 };
        world.say("a", session, heartbeat(vec![task])).unwrap();
        world.now.wall.0 += hour;
        world.pass(LEASE - Duration::from_millis(1));
        assert_eq!(world.state("waits"), Some(TaskState::Running));
        world.pass(Duration::from_millis(1));
        assert_eq!(world.state("waits"), Some(TaskState::Lost));
        world.pass(LOST_WAIT);
        assert_eq!(world.outcome("waits"), TaskState::Unknown);
        // The other one waits its own time from its own submission, no more and no less.
        world.pass(QUEUE - 2 * LEASE - LOST_WAIT);
        assert_eq!(world.state("runs"), Some(TaskState::Queued));
        world.pass(Duration::from_millis(1));
        assert_eq!(world.outcome("runs"), TaskState::Rejected);
    }
}

#[test]
fn a_task_from_the_future_waits_its_whole_time_after_a_restart() {
    let mut world = World::new(&["a"]);
    world.submit("t", false);
    let task = world.ledger.task("t").cloned();
    // The clock went back while the control plane was off.
    world.now.wall.0 -= 3_600_000;
    let credentials = world.ledger.credentials.clone();
    world.ledger = Ledger::new(
        world.ledger.settings,
        vec![agent("a")],
        task.into_iter().collect(),
        Vec::new(),
        credentials,
        world.now,
    );
    world.pass(QUEUE - Duration::from_millis(1));
    assert_eq!(world.state("t"), Some(TaskState::Queued));
    world.pass(Duration::from_millis(1));
    assert_eq!(world.outcome("t"), TaskState::Rejected);
}

#[test]
fn what_a_replaced_process_still_had_under_way_changes_nothing() {
    let mut world = World::new(&["a"]);
    world.submit("t", false);
    let old = world.connect("a", "first", Vec::new(), 1);
    world.say("a", old, started("t", 1)).unwrap();
    let task = Some(TaskRef { task_id: "t".into(), epoch: 1 });
    let held = vec![HeldTask { task, state: HeldState::Running.into(), ..HeldTask::default() }];
    let new = world.connect("a", "second", held.clone(), 1);
    let hello = Hello { protocol: 1, instance_id: "first".into(), held, ..Hello::default() };
    let output = AgentEvent { event: Some(output("t", 1, 0, b"late")) };
    world.ledger.report("a", 77, &hello, &HeldFacts::new(), vec![output], world.now).unwrap();
    world.ledger.hello("a", 78, &hello, &HeldFacts::new(), world.now).unwrap();
    let outcome = world.ledger.take_outcome();
    let closed = outcome.outgoing.iter().filter(|(_, what)| matches!(what, Outgoing::Close(_)));
    assert_eq!(closed.map(|(session, _)| *session).collect::<Vec<_>>(), [77, 78]);
    assert!(outcome.appends.is_empty());
    assert_eq!(world.ledger.agent("a").unwrap().link.as_ref().map(|link| link.session), Some(new));
    // Only what came before the newest process is refused.
    world.connect("a", "third", Vec::new(), 1);
}

#[test]
fn a_living_process_whose_session_was_overtaken_comes_back() {
    let mut world = World::new(&["a"]);
    let hello = |instance: &str| Hello { protocol: 1, instance_id: instance.into(), ..Hello::default() };
    let connect = |world: &mut World, session, instance: &str| {
        world.ledger.hello("a", session, &hello(instance), &HeldFacts::new(), world.now).unwrap();
        let outcome = world.ledger.take_outcome();
        outcome.outgoing.iter().any(|(to, what)| *to == session && matches!(what, Outgoing::Close(_)))
    };
    // The call of the process before was given the later number.
    assert!(!connect(&mut world, 8, "dead"));
    assert!(connect(&mut world, 7, "alive"));
    assert_eq!(world.ledger.agent("a").unwrap().link.as_ref().map(|link| link.session), Some(8));
    assert!(!connect(&mut world, 9, "alive"), "the living process is shut out");
    assert_eq!(world.ledger.agent("a").unwrap().link.as_ref().map(|link| link.session), Some(9));
    assert!(connect(&mut world, 10, "dead"));
}
