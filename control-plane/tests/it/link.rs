//! The link itself: sessions, credit, contract breaches, Poll and Report.

use lictor_proto::v1::*;
use lictor_proto::version::Contract;

use crate::support::*;

#[tokio::test]
async fn a_newer_session_takes_over() {
    let (server, mut user, agent) = scene(&[]).await;
    let (mut old, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    let (mut new, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    assert_eq!(old.goodbye().await.reason(), GoodbyeReason::Superseded);
    user.submit(command()).await;
    new.assignment().await;
}

#[tokio::test]
async fn no_task_without_credit_and_never_more_than_credit() {
    let (server, mut user, agent) = scene(&[]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 0).await;
    let first = user.submit(command()).await;
    let second = user.submit(command()).await;
    link.heartbeat(1, Vec::new()).await;
    assert_eq!(user.task(&first.task_id).await.state(), TaskState::Queued);
    link.send(agent_event::Event::Credit(Credit { total: 1 })).await;
    assert_eq!(link.assignment().await.task.unwrap().task_id, first.task_id, "first in, first out");
    link.send(agent_event::Event::Credit(Credit { total: 1 })).await;
    link.heartbeat(2, Vec::new()).await;
    assert_eq!(user.task(&second.task_id).await.state(), TaskState::Queued);
    link.send(agent_event::Event::Credit(Credit { total: 2 })).await;
    assert_eq!(link.assignment().await.task.unwrap().task_id, second.task_id);
}

#[tokio::test]
async fn a_session_without_a_sign_of_life_ends() {
    let (server, mut user, agent) = scene(&[("LEASE", "1s"), ("HEARTBEAT_INTERVAL", "200ms")]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    user.until_agent("a1", AgentState::Online).await;
    // The connection is well, but nobody speaks.
    while link.next().await.is_some() {}
    user.until_agent("a1", AgentState::Offline).await;
}

#[tokio::test]
async fn breaches_of_the_contract_end_the_session_with_a_reason() {
    let (server, _user, agent) = scene(&[]).await;
    let hello = agent.hello("i1", Vec::new());
    let breaches: Vec<(Vec<agent_event::Event>, &str)> = vec![
        (vec![agent_event::Event::Credit(Credit { total: 1 })], "Hello"),
        (vec![agent_event::Event::Hello(Hello { protocol: 9, ..hello.clone() })], "version 9"),
        (vec![agent_event::Event::Hello(Hello { instance_id: String::new(), ..hello.clone() })], "instance id"),
        (vec![agent_event::Event::Hello(hello.clone()), agent_event::Event::Hello(hello.clone())], "second Hello"),
        (vec![agent_event::Event::Hello(hello), agent_event::Event::Started(Started { task: None })], "no task"),
    ];
    for (events, reason) in breaches {
        let goodbye = agent.open(&server, events).await.unwrap().goodbye().await;
        assert_eq!(goodbye.reason(), GoodbyeReason::ProtocolError);
        assert!(goodbye.detail.contains(reason), "expected {reason:?} in {goodbye:?}");
    }
}

#[tokio::test]
async fn an_agent_of_a_version_too_far_away_finishes_what_it_holds_and_gets_nothing() {
    let (server, mut user, agent) = scene(&[]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    let mut hello = agent.hello("i1", vec![held(&reference, HeldState::Running)]);
    let far = Contract { minor: Contract::OURS.minor + 2, ..Contract::OURS };
    hello.contract = far.to_string();
    let mut link = agent.connect_saying(&server, hello).await;
    link.end(&reference, succeeded(0)).await;
    user.until(&reference.task_id, TaskState::Succeeded).await;
    let waits = user.submit(command()).await;
    link.send(agent_event::Event::Credit(Credit { total: 4 })).await;
    link.heartbeat(1, Vec::new()).await;
    let waits = user.task(&waits.task_id).await;
    let candidate = &waits.candidates[0];
    assert_eq!((waits.state(), candidate.code.as_str()), (TaskState::Queued, "version_skew"));
    let (ours, theirs) = (Contract::OURS.to_string(), far.to_string());
    assert!(candidate.reason.contains(&ours) && candidate.reason.contains(&theirs), "{}", candidate.reason);
    assert!(candidate.reason.contains("upgrade the control plane"), "{}", candidate.reason);
    assert_eq!(user.until_agent("a1", AgentState::Online).await.degraded, std::slice::from_ref(&candidate.reason));
    assert!(get(&server, "/metrics").await.contains("control_plane_agents_incompatible 1\n"));
    // One that does not say which it is, is of the previous version; and back it comes.
    let mut link =
        agent.connect_saying(&server, Hello { contract: String::new(), ..agent.hello("i1", Vec::new()) }).await;
    assert_eq!(link.assignment().await.task.unwrap().task_id, waits.task_id);
    assert!(get(&server, "/metrics").await.contains("control_plane_agents_incompatible 0\n"));
}

#[tokio::test]
async fn what_a_newer_agent_says_in_new_words_is_passed_over() {
    let (server, mut user, agent) = scene(&[]).await;
    let (mut link, welcome) = agent.connect(&server, "i1", Vec::new(), 1).await;
    assert_eq!((welcome.contract, welcome.version.as_str()), (Contract::OURS.to_string(), env!("CARGO_PKG_VERSION")));
    link.send_something_new().await;
    // Output of a stream that nobody knows is missing from the log, and nothing else is.
    let task = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    link.started(&reference).await;
    link.output(&reference, 0, "one ").await;
    let chunk = OutputChunk { offset: 4, stream: 99, data: "new".into() };
    let output = TaskOutput { task: Some(reference.clone()), chunk: Some(chunk) };
    link.send(agent_event::Event::Output(output)).await;
    link.output(&reference, 7, "two").await;
    assert!(!link.acked(&reference, 10).await.full);
    link.end(&reference, succeeded(10)).await;
    let ended = user.until(&task.task_id, TaskState::Succeeded).await;
    let result = ended.result.unwrap();
    assert_eq!((ended.output_bytes, result.output_gap, result.output_truncated), (7, true, false));
    link.send(agent_event::Event::Credit(Credit { total: 2 })).await;
    let task = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    // A reason that nobody knows keeps the task from this agent, and is not the end of it.
    let hand_back = HandBack { task: Some(reference), reason: 99, failure: None };
    link.send(agent_event::Event::HandBack(hand_back)).await;
    link.heartbeat(1, Vec::new()).await;
    let task = user.task(&task.task_id).await;
    assert_eq!((task.state(), task.candidates[0].code.as_str()), (TaskState::Queued, "handed_back"));
}

#[tokio::test]
async fn another_agents_assignment_cannot_be_touched() {
    let (server, mut user, first) = scene(&[]).await;
    let (_, token) = user.token(CreateJoinTokenRequest::default()).await;
    let thief = enroll(&server, &token, "thief", &[]).await.unwrap();
    let (mut link, _) = first.connect(&server, "i1", Vec::new(), 1).await;
    let task = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    let (mut other, welcome) = thief.connect(&server, "i1", vec![held(&reference, HeldState::Running)], 0).await;
    assert_eq!(welcome.resume[0].decision(), ResumeDecision::Stale);
    other.started(&reference).await;
    other.output(&reference, 0, "forged").await;
    other.end(&reference, succeeded(6)).await;
    assert_eq!(other.heartbeat(1, vec![reference.clone()]).await.stale, [reference]);
    let task = user.task(&task.task_id).await;
    assert_eq!((task.state(), task.output_bytes), (TaskState::Assigned, 0));
}

#[tokio::test]
async fn a_draining_agent_gets_nothing_new_until_its_next_process() {
    let (server, mut user, agent) = scene(&[]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 2).await;
    user.fleet.drain_agent(DrainAgentRequest { agent: agent.id.clone(), reason: "r".into() }).await.unwrap();
    let task = user.submit(command()).await;
    link.heartbeat(1, Vec::new()).await;
    assert_eq!(user.task(&task.task_id).await.state(), TaskState::Queued);
    // The same process again: still draining. The next one: not any more.
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 2).await;
    link.heartbeat(1, Vec::new()).await;
    assert_eq!(user.agents().await[0].state(), AgentState::Draining);
    let (mut link, _) = agent.connect(&server, "i2", Vec::new(), 2).await;
    link.assignment().await;
    // The agent's own drain counts too.
    link.send(agent_event::Event::Draining(Draining { reason: "SIGTERM".into() })).await;
    user.until_agent("a1", AgentState::Draining).await;
}

#[tokio::test]
async fn poll_and_report_mean_the_same_as_a_session() {
    let (server, mut user, agent) = scene(&[]).await;
    let mut client = agent.client(&server).await;
    let event = |event| AgentEvent { event: Some(event) };
    let hello = |held| event(agent_event::Event::Hello(agent.hello("i1", held)));
    let credit = event(agent_event::Event::Credit(Credit { total: 1 }));

    // Nothing to do: the Welcome comes back when the wait is over.
    let request = PollRequest { events: vec![hello(Vec::new()), credit.clone()], wait: seconds(0) };
    let answer = client.poll(request).await.unwrap().into_inner();
    assert!(matches!(answer.events[0].event, Some(server_event::Event::Welcome(_))));
    assert_eq!(answer.events.len(), 1);

    let task = user.submit(command()).await;
    let request = PollRequest { events: vec![hello(Vec::new()), credit], wait: seconds(20) };
    let answer = client.poll(request).await.unwrap().into_inner();
    let reference = answer
        .events
        .into_iter()
        .find_map(|event| match event.event {
            Some(server_event::Event::Assignment(assignment)) => assignment.task,
            _ => None,
        })
        .unwrap();
    let events = vec![
        hello(vec![held(&reference, HeldState::Running)]),
        event(agent_event::Event::Started(Started { task: Some(reference.clone()) })),
        event(output(&reference, 0, OutputStream::Stdout, "polled")),
    ];
    let answer = client.report(ReportRequest { events }).await.unwrap().into_inner();
    let acked = answer
        .events
        .iter()
        .any(|event| matches!(&event.event, Some(server_event::Event::OutputAck(ack)) if ack.offset == 6));
    assert!(acked, "{answer:?}");
    let end = TaskEnd { task: Some(reference.clone()), result: Some(succeeded(6)) };
    let events = vec![hello(vec![held(&reference, HeldState::Ended)]), event(agent_event::Event::End(end))];
    let answer = client.poll(PollRequest { events, wait: seconds(20) }).await.unwrap().into_inner();
    assert!(answer.events.iter().any(|event| matches!(event.event, Some(server_event::Event::EndAck(_)))));
    let (bytes, last) = collect(user.watch(&task.task_id, 0).await).await;
    assert_eq!((bytes.as_slice(), last.state()), (b"polled".as_slice(), TaskState::Succeeded));
}

#[tokio::test]
async fn a_report_does_not_disturb_a_waiting_poll() {
    let (server, mut user, agent) = scene(&[]).await;
    let mut polling = agent.client(&server).await;
    let event = |event| AgentEvent { event: Some(event) };
    let hello = event(agent_event::Event::Hello(agent.hello("i1", Vec::new())));
    let credit = event(agent_event::Event::Credit(Credit { total: 1 }));
    let request = PollRequest { events: vec![hello.clone(), credit], wait: seconds(20) };
    let poll = tokio::spawn(async move { polling.poll(request).await });
    user.until_agent("a1", AgentState::Online).await;
    agent.client(&server).await.report(ReportRequest { events: vec![hello] }).await.unwrap();
    user.submit(command()).await;
    let answer = within(poll).await.unwrap().unwrap().into_inner();
    assert!(answer.events.iter().any(|event| matches!(event.event, Some(server_event::Event::Assignment(_)))));
}

#[tokio::test]
async fn a_cancellation_does_not_wait_for_the_end_of_a_poll() {
    let (server, mut user, agent) = scene(&[]).await;
    let mut client = agent.client(&server).await;
    let event = |event| AgentEvent { event: Some(event) };
    let hello = |held| event(agent_event::Event::Hello(agent.hello("i1", held)));
    let credit = event(agent_event::Event::Credit(Credit { total: 1 }));
    let task = user.submit(command()).await;
    let request = PollRequest { events: vec![hello(Vec::new()), credit], wait: seconds(60) };
    within(client.poll(request)).await.unwrap();
    let reference = TaskRef { task_id: task.task_id.clone(), epoch: 1 };
    // Asked for while nobody polls; the agent keeps its place meanwhile.
    user.tasks.cancel_task(CancelTaskRequest { task_id: task.task_id.clone(), reason: "r".into() }).await.unwrap();
    assert_eq!(user.agents().await[0].state(), AgentState::Online);
    let beat = event(agent_event::Event::Heartbeat(Heartbeat { sequence: 1, ..Heartbeat::default() }));
    let events = vec![hello(vec![held(&reference, HeldState::Running)]), beat];
    let answer = within(client.poll(PollRequest { events, wait: seconds(60) })).await.unwrap().into_inner();
    let Some(server_event::Event::Welcome(welcome)) = &answer.events[0].event else { panic!("{answer:?}") };
    assert!(welcome.resume[0].cancel_requested);
    assert!(matches!(answer.events[1].event, Some(server_event::Event::HeartbeatAck(_))), "{answer:?}");
}

#[tokio::test]
async fn an_agent_that_floods_is_refused_and_others_work_on() {
    let (server, mut user, flooding) = scene(&[]).await;
    let (_, token) = user.token(CreateJoinTokenRequest::default()).await;
    let other = enroll(&server, &token, "a2", &[]).await.unwrap();
    let (mut link, _) = other.connect(&server, "i1", Vec::new(), 1).await;
    let client = flooding.client(&server).await;
    // Hellos as long as they may be.
    let reference = |number: u32| TaskRef { task_id: format!("{number:036}"), epoch: 1 };
    let named: Vec<HeldTask> = (0..10_000).map(|number| held(&reference(number), HeldState::Running)).collect();
    let hello = flooding.hello("i1", named);
    let flood: Vec<_> = (0..40)
        .map(|_| {
            let event = AgentEvent { event: Some(agent_event::Event::Hello(hello.clone())) };
            let request = PollRequest { events: vec![event], wait: seconds(0) };
            let mut client = client.clone();
            tokio::spawn(async move { client.poll(request).await.map(|_| ()) })
        })
        .collect();
    let task = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    link.started(&reference).await;
    link.heartbeat(1, vec![reference.clone()]).await;
    link.end(&reference, succeeded(0)).await;
    assert_eq!(user.until(&task.task_id, TaskState::Succeeded).await.agent_name, "a2");
    let mut refusals = 0;
    for call in flood {
        refusals += u32::from(within(call).await.unwrap().is_err());
    }
    assert!(refusals > 0, "every Hello of the flood was taken");
    // Sessions that never say Hello.
    let mut silent = Vec::new();
    let refused = loop {
        match client.clone().session(tokio_stream::pending()).await {
            Ok(session) => silent.push(session),
            Err(status) => break status,
        }
        assert!(silent.len() < 100, "no end to it");
    };
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    user.until_agent("a2", AgentState::Online).await;
    // Once they have been ended for their silence, it is an agent like any other.
    within(async {
        while flooding.open(&server, vec![agent_event::Event::Hello(flooding.hello("i1", Vec::new()))]).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
    .await;
}
