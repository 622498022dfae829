//! Agents and control planes that go away, and come back or do not.

use lictor_proto::v1::*;

use crate::support::*;

/// The wait is long enough for a noisy machine to be seen in it.
const SHORT: &[(&str, &str)] = &[("LEASE", "1s"), ("HEARTBEAT_INTERVAL", "200ms"), ("LOST_WAIT", "2s")];

#[tokio::test]
async fn a_lease_that_runs_out_leaves_a_started_task_unknown() {
    let (server, mut user, agent) = scene(SHORT).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    let task = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    link.started(&reference).await;
    link.output(&reference, 0, "half").await;
    link.acked(&reference, 4).await;
    drop(link);
    // A broken stream alone changes nothing; the lease does.
    assert_eq!(user.task(&task.task_id).await.state(), TaskState::Running);
    user.until(&task.task_id, TaskState::Lost).await;
    let unknown = user.until(&task.task_id, TaskState::Unknown).await;
    let failure = unknown.result.unwrap().failure.unwrap();
    assert_eq!((failure.stage.as_str(), failure.code.as_str()), ("lease", "lease.expired"));
    assert!(failure.may_have_started && failure.message.contains("a1"), "{failure:?}");

    // Its agent comes back with the result: too late to count, kept as evidence, acknowledged.
    let (mut link, welcome) = agent.connect(&server, "i1", vec![held(&reference, HeldState::Ended)], 0).await;
    assert_eq!(welcome.resume[0].decision(), ResumeDecision::Continue);
    link.end(&reference, succeeded(4)).await;
    drop(link);
    assert_eq!(user.task(&task.task_id).await.state(), TaskState::Unknown);
    let (_link, welcome) = agent.connect(&server, "i1", vec![held(&reference, HeldState::Ended)], 0).await;
    assert_eq!(welcome.resume[0].decision(), ResumeDecision::Forget);
}

#[tokio::test]
async fn an_idempotent_task_goes_to_another_agent_and_the_first_is_stale() {
    let (server, mut user, first) = scene(SHORT).await;
    let (_, token) = user.token(CreateJoinTokenRequest::default()).await;
    let second = enroll(&server, &token, "a2", &[]).await.unwrap();
    let (mut link, _) = first.connect(&server, "i1", Vec::new(), 1).await;
    let task = user.submit(TaskSpec { idempotent: true, ..command() }).await;
    let old = link.assignment().await.task.unwrap();
    link.started(&old).await;
    link.output(&old, 0, "first ").await;
    link.acked(&old, 6).await;
    drop(link);
    // Not before: its session would end for saying nothing.
    user.until(&task.task_id, TaskState::Lost).await;
    let (mut other, _) = second.connect(&server, "i1", Vec::new(), 1).await;
    let new = other.assignment().await.task.unwrap();
    assert_eq!((new.task_id.as_str(), new.epoch), (task.task_id.as_str(), 2));
    let (mut link, welcome) = first.connect(&server, "i1", vec![held(&old, HeldState::Running)], 0).await;
    assert_eq!(welcome.resume[0].decision(), ResumeDecision::Stale);
    // Whatever the first still says about it changes nothing.
    link.output(&old, 6, "stale").await;
    link.end(&old, TaskResult { outcome: TaskState::Failed.into(), ..TaskResult::default() }).await;
    assert_eq!(link.heartbeat(1, vec![old.clone()]).await.stale, [old]);
    other.started(&new).await;
    other.output(&new, 0, "second").await;
    other.end(&new, succeeded(6)).await;
    let (bytes, last) = collect(user.watch(&task.task_id, 0).await).await;
    assert_eq!(bytes, b"first second");
    assert_eq!((last.state(), last.epoch), (TaskState::Succeeded, 2));
}

#[tokio::test]
async fn heartbeats_keep_a_lease_and_bring_a_lost_task_back() {
    let (server, mut user, agent) =
        scene(&[("LEASE", "1s"), ("HEARTBEAT_INTERVAL", "200ms"), ("LOST_WAIT", "60s")]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    let task = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    link.started(&reference).await;
    for sequence in 1..=8 {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert!(link.heartbeat(sequence, vec![reference.clone()]).await.stale.is_empty());
        assert_eq!(user.task(&task.task_id).await.state(), TaskState::Running);
    }
    user.until(&task.task_id, TaskState::Lost).await;
    link.heartbeat(9, vec![reference.clone()]).await;
    user.until(&task.task_id, TaskState::Running).await;
    user.until(&task.task_id, TaskState::Lost).await;
    link.end(&reference, succeeded(0)).await;
    user.until(&task.task_id, TaskState::Succeeded).await;
}

#[tokio::test]
async fn an_agent_that_restarts_without_its_tasks() {
    let (server, mut user, agent) = scene(&[]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 2).await;
    let started = user.submit(command()).await;
    let assigned = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    link.assignment().await;
    assert_eq!(reference.task_id, started.task_id);
    link.started(&reference).await;
    user.until(&started.task_id, TaskState::Running).await;
    drop(link);
    let (mut link, _) = agent.connect(&server, "i2", Vec::new(), 1).await;
    let unknown = user.until(&started.task_id, TaskState::Unknown).await;
    assert_eq!(unknown.result.unwrap().failure.unwrap().code, "agent.lost_task");
    // What never arrived is given out again.
    let again = link.assignment().await.task.unwrap();
    assert_eq!((again.task_id, again.epoch), (assigned.task_id, 2));
}

#[tokio::test]
async fn a_start_that_only_hello_tells_survives_a_crash() {
    let (server, mut user, agent) = scene(&[]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    let task = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    // Accepted and Started were lost on the way; Hello is the first that is heard of them.
    drop(link);
    let (mut link, welcome) = agent.connect(&server, "i1", vec![held(&reference, HeldState::Running)], 0).await;
    assert_eq!(welcome.resume[0].decision(), ResumeDecision::Continue);
    link.heartbeat(1, vec![reference.clone()]).await;
    assert_eq!(user.task(&task.task_id).await.state(), TaskState::Running);
    let server = server.crash_and_restart().await;
    let mut user = server.user().await;
    let (_link, _) = agent.connect(&server, "i2", Vec::new(), 1).await;
    let unknown = user.until(&task.task_id, TaskState::Unknown).await;
    assert_eq!(unknown.epoch, 1, "what may have started was given out again");
}

#[tokio::test]
async fn an_agent_that_lost_its_journal_may_have_started_anything() {
    let (server, mut user, agent) = scene(&[]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    let task = user.submit(command()).await;
    link.assignment().await;
    drop(link);
    let (_, token) = user.token(CreateJoinTokenRequest::default()).await;
    let anew = enroll(&server, &token, "a1", &[]).await.unwrap();
    let (_link, _) = anew.connect(&server, "i2", Vec::new(), 1).await;
    let unknown = user.until(&task.task_id, TaskState::Unknown).await;
    assert_eq!(unknown.result.unwrap().failure.unwrap().code, "agent.lost_journal");
}

#[tokio::test]
async fn a_restart_in_mid_command_loses_nothing() {
    let (server, mut user, agent) = scene(&[]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    let task = user.submit(command()).await;
    let waiting = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    link.started(&reference).await;
    link.output(&reference, 0, "before ").await;
    link.acked(&reference, 7).await;
    let mut watcher = user.watch(&task.task_id, 0).await;
    let server = server.restart().await;
    assert_eq!(link.goodbye().await.reason(), GoodbyeReason::Shutdown);
    let status = loop {
        match within(watcher.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the watch ended as if the task had"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), tonic::Code::Unavailable);

    let mut user = server.user().await;
    assert_eq!(user.task(&task.task_id).await.state(), TaskState::Running);
    let (mut link, welcome) = agent.connect(&server, "i1", vec![held(&reference, HeldState::Running)], 1).await;
    assert_eq!(welcome.resume[0].decision(), ResumeDecision::Continue);
    assert_eq!(welcome.resume[0].output_acked, 7);
    assert_eq!(link.assignment().await.task.unwrap().task_id, waiting.task_id);
    link.output(&reference, 7, "after").await;
    link.end(&reference, succeeded(12)).await;
    let (bytes, last) = collect(user.watch(&task.task_id, 0).await).await;
    assert_eq!(bytes, b"before after");
    assert_eq!(last.state(), TaskState::Succeeded);
    server.stop().await;
}

#[tokio::test]
async fn a_crash_loses_nothing_that_was_acknowledged() {
    let (server, mut user, agent) = scene(&[]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 2).await;
    let ended = user.submit(command()).await;
    let running = user.submit(command()).await;
    let first = link.assignment().await.task.unwrap();
    let second = link.assignment().await.task.unwrap();
    link.started(&first).await;
    link.started(&second).await;
    link.end(&first, succeeded(0)).await;
    link.output(&second, 0, "kept").await;
    link.acked(&second, 4).await;
    let cancelled = user.cancel(&running.task_id).await;
    assert!(cancelled.cancel_requested);

    let server = server.crash_and_restart().await;
    let mut user = server.user().await;
    assert_eq!(user.task(&ended.task_id).await.state(), TaskState::Succeeded);
    let journal = vec![held(&first, HeldState::Ended), held(&second, HeldState::Running)];
    let (_link, welcome) = agent.connect(&server, "i1", journal, 0).await;
    assert_eq!(welcome.resume[0].decision(), ResumeDecision::Forget);
    assert_eq!(welcome.resume[1].decision(), ResumeDecision::Continue);
    assert_eq!(welcome.resume[1].output_acked, 4);
    assert!(welcome.resume[1].cancel_requested);
}

#[tokio::test]
async fn leases_stand_still_while_the_control_plane_is_down() {
    let settings = [("LEASE", "1s"), ("HEARTBEAT_INTERVAL", "200ms"), ("LOST_WAIT", "0s"), ("RESTART_GRACE", "30s")];
    let (server, mut user, agent) = scene(&settings).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    let task = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    link.started(&reference).await;
    user.until(&task.task_id, TaskState::Running).await;
    drop(link);
    let server = server.restart().await;
    let mut user = server.user().await;
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    assert_eq!(user.task(&task.task_id).await.state(), TaskState::Running, "the grace was not given");
}
