//! A task's way: submitted, assigned, its output, its end, and those who watch.

use lictor_proto::v1::*;

use crate::support::*;

#[tokio::test]
async fn submit_assign_output_end_watch() {
    let (server, mut user, agent) = scene(&[]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    let task = user.submit(command()).await;
    let watcher = user.watch(&task.task_id, 0).await;
    let assignment = link.assignment().await;
    let reference = assignment.task.clone().unwrap();
    assert_eq!((reference.task_id.as_str(), reference.epoch), (task.task_id.as_str(), 1));
    let spec = assignment.spec.unwrap();
    assert_eq!(spec.target.unwrap().connection.unwrap().port, 5986, "the connection is complete");
    let identity = assignment.identity.unwrap();
    assert_eq!((identity.username.as_str(), identity.version), ("CORP\\alice", 1));

    link.started(&reference).await;
    link.output(&reference, 0, "hello ").await;
    link.send(output(&reference, 6, OutputStream::Stderr, "err")).await;
    link.output(&reference, 9, " world").await;
    let ack = link.acked(&reference, 15).await;
    assert_eq!((ack.offset, ack.full), (15, false));
    user.until(&task.task_id, TaskState::Running).await;
    link.end(&reference, succeeded(15)).await;

    let (bytes, last) = collect(watcher).await;
    assert_eq!(bytes, b"hello err world");
    assert_eq!(last.state(), TaskState::Succeeded);
    assert_eq!(last.agent_name, "a1");
    assert_eq!(last.result.unwrap().exit_code, Some(0));
    assert!(last.started_at.is_some() && last.finished_at.is_some());
    // From an offset, also in the middle of a stored piece, and after the end.
    let mut later = user.watch(&task.task_id, 7).await;
    let mut seen = Vec::new();
    while let Some(event) = later.message().await.unwrap() {
        if let Some(watch_task_response::Event::Output(chunk)) = event.event {
            seen.push((chunk.offset, chunk.stream(), chunk.data));
        }
    }
    assert_eq!(seen, [(7, OutputStream::Stderr, "rr".into()), (9, OutputStream::Stdout, " world".into())]);
}

#[tokio::test]
async fn duplicates_are_ignored_and_gaps_end_the_session() {
    let (server, mut user, agent) = scene(&[]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    let task = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    link.started(&reference).await;
    link.started(&reference).await;
    link.output(&reference, 0, "abcdef").await;
    link.output(&reference, 0, "abc").await;
    link.output(&reference, 4, "efgh").await;
    assert_eq!(link.acked(&reference, 8).await.offset, 8);
    // A gap is refused: the agent has to resume at what was acknowledged.
    link.output(&reference, 20, "too far").await;
    let goodbye = link.goodbye().await;
    assert_eq!(goodbye.reason(), GoodbyeReason::ProtocolError);
    assert!(goodbye.detail.contains("20"), "{goodbye:?}");
    let (mut link, welcome) = agent.connect(&server, "i1", vec![held(&reference, HeldState::Running)], 0).await;
    assert_eq!(welcome.resume[0].decision(), ResumeDecision::Continue);
    assert_eq!(welcome.resume[0].output_acked, 8);
    link.output(&reference, 8, "ij").await;
    // The end is delivered twice; once counts.
    link.end(&reference, succeeded(10)).await;
    link.end(&reference, TaskResult { outcome: TaskState::Failed.into(), ..succeeded(10) }).await;
    let (bytes, last) = collect(user.watch(&task.task_id, 0).await).await;
    assert_eq!(bytes, b"abcdefghij");
    assert_eq!(last.state(), TaskState::Succeeded);
}

#[tokio::test]
async fn output_beyond_the_bound_is_counted_not_stored() {
    let (server, mut user, agent) = scene(&[("OUTPUT_LIMIT", "64KiB")]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    let task = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    link.started(&reference).await;
    link.output(&reference, 0, vec![b'a'; 60_000]).await;
    assert!(!link.acked(&reference, 60_000).await.full);
    link.output(&reference, 60_000, vec![b'b'; 60_000]).await;
    let ack = link.acked(&reference, 120_000).await;
    assert!(ack.full);
    // What is not needed may be left out.
    link.output(&reference, 500_000, vec![b'c'; 10]).await;
    link.acked(&reference, 500_010).await;
    link.end(&reference, succeeded(500_010)).await;
    let (bytes, last) = collect(user.watch(&task.task_id, 0).await).await;
    assert_eq!(bytes.len(), 65_536);
    assert_eq!(last.output_bytes, 65_536);
    let result = last.result.unwrap();
    assert!(result.output_truncated);
    assert_eq!(result.output_bytes, 500_010);
}

#[tokio::test]
async fn a_watcher_that_does_not_read_slows_nobody() {
    let (server, mut user, agent) = scene(&[]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    let task = user.submit(command()).await;
    let sleeping = user.watch(&task.task_id, 0).await;
    let reference = link.assignment().await.task.unwrap();
    link.started(&reference).await;
    let piece = bytes::Bytes::from(vec![b'x'; 256 << 10]);
    let total = 64 * piece.len() as u64;
    for index in 0..64u64 {
        link.output(&reference, index * piece.len() as u64, piece.clone()).await;
    }
    link.acked(&reference, total).await;
    link.end(&reference, succeeded(total)).await;
    let (bytes, _) = collect(user.watch(&task.task_id, 0).await).await;
    assert_eq!(bytes.len() as u64, total);
    let (late, _) = collect(sleeping).await;
    assert_eq!(late.len() as u64, total);
}

#[tokio::test]
async fn cancelling_by_state() {
    let (server, mut user, agent) = scene(&[]).await;
    // Waiting: at once.
    let waiting = user.submit(command()).await;
    assert_eq!(user.cancel(&waiting.task_id).await.state(), TaskState::Cancelled);
    // Running: by its agent.
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 2).await;
    let running = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    assert_eq!(reference.task_id, running.task_id);
    link.started(&reference).await;
    let asked = user.cancel(&running.task_id).await;
    assert!(asked.cancel_requested && asked.state() != TaskState::Cancelled);
    let cancel = link
        .find(|event| match event {
            server_event::Event::Cancel(cancel) => Some(cancel),
            _ => None,
        })
        .await;
    assert_eq!((cancel.task, cancel.reason.as_str()), (Some(reference.clone()), "enough"));
    link.end(&reference, TaskResult { outcome: TaskState::Cancelled.into(), ..TaskResult::default() }).await;
    user.until(&running.task_id, TaskState::Cancelled).await;
    // Finished: nothing changes.
    assert_eq!(user.cancel(&running.task_id).await.state(), TaskState::Cancelled);
    // Assigned, and handed back unstarted: it does not go to anybody else.
    let assigned = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    user.cancel(&assigned.task_id).await;
    let hand_back = HandBack { task: Some(reference), reason: HandBackReason::Draining.into(), failure: None };
    link.send(agent_event::Event::HandBack(hand_back)).await;
    user.until(&assigned.task_id, TaskState::Cancelled).await;
}

#[tokio::test]
async fn hand_backs_go_to_another_agent_or_end_the_task() {
    let (server, mut user, first) = scene(&[]).await;
    let (_, token) = user.token(CreateJoinTokenRequest::default()).await;
    let second = enroll(&server, &token, "a2", &[]).await.unwrap();
    let (mut link, _) = first.connect(&server, "i1", Vec::new(), 2).await;
    let task = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    let failure = Failure { message: "no route to the host".into(), ..Failure::default() };
    let unable =
        HandBack { task: Some(reference.clone()), reason: HandBackReason::Unable.into(), failure: Some(failure) };
    link.send(agent_event::Event::HandBack(unable.clone())).await;
    let waiting = user.until(&task.task_id, TaskState::Queued).await;
    assert_eq!(waiting.candidates[0].code, "handed_back");
    assert!(waiting.candidates[0].reason.contains("no route to the host"));
    let (mut other, _) = second.connect(&server, "i1", Vec::new(), 1).await;
    let again = other.assignment().await.task.unwrap();
    assert_eq!((again.task_id.as_str(), again.epoch), (task.task_id.as_str(), 2));
    // The first hand-back again, late: it is about a stale epoch.
    link.send(agent_event::Event::HandBack(unable)).await;
    assert_eq!(link.heartbeat(1, vec![reference.clone()]).await.stale, [reference]);
    assert_eq!(user.task(&task.task_id).await.state(), TaskState::Assigned);

    let policy = HandBack {
        task: Some(again),
        reason: HandBackReason::Policy.into(),
        failure: Some(Failure { stage: "policy".into(), code: "policy.host".into(), ..Failure::default() }),
    };
    other.send(agent_event::Event::HandBack(policy)).await;
    let rejected = user.until(&task.task_id, TaskState::Rejected).await;
    assert_eq!(rejected.result.unwrap().failure.unwrap().code, "policy.host");
}

/// Two hundred MiB in chunks of the largest size, acknowledged, stored and read back by a watcher meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_mib_arrive_whole() {
    const PIECE: usize = 256 << 10;
    const PIECES: u64 = 800;
    let (server, mut user, agent) = scene(&[]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    let task = user.submit(command()).await;
    let mut watcher = user.watch(&task.task_id, 0).await;
    let reference = link.assignment().await.task.unwrap();
    link.started(&reference).await;
    let piece = |index: u64| -> bytes::Bytes { index.to_be_bytes().repeat(PIECE / 8).into() };
    let total = PIECES * PIECE as u64;
    let sent = async {
        let mut acked = 0;
        for index in 0..PIECES {
            let offset = index * PIECE as u64;
            // The window of the Welcome.
            while offset - acked >= 4 << 20 {
                acked = link.acked(&reference, acked + 1).await.offset;
            }
            link.output(&reference, offset, piece(index)).await;
        }
        link.acked(&reference, total).await;
        link.end(&reference, succeeded(total)).await;
    };
    let watched = async {
        let mut offset = 0;
        while let Some(event) = within(watcher.message()).await.unwrap() {
            if let Some(watch_task_response::Event::Output(chunk)) = event.event {
                assert_eq!(chunk.offset, offset);
                let expected = piece(offset / PIECE as u64);
                let from = usize::try_from(offset).unwrap() % PIECE;
                assert_eq!(chunk.data, expected.slice(from..from + chunk.data.len()));
                offset += chunk.data.len() as u64;
            }
        }
        assert_eq!(offset, total);
    };
    tokio::join!(sent, watched);
}
