//! What is kept, for how long, and how it shows that something is gone; results that came too late.

use lictor_proto::v1::*;
use tonic::Code;

use crate::support::{User, *};

/// A finished task with this much output.
async fn finished(user: &mut User, link: &mut Link, bytes: usize) -> String {
    let task = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    print(link, &reference, bytes).await;
    link.end(&reference, succeeded(bytes as u64)).await;
    task.task_id
}

async fn print(link: &mut Link, reference: &TaskRef, bytes: usize) {
    link.started(reference).await;
    for offset in (0..bytes).step_by(256 << 10) {
        let piece = vec![b'x'; (bytes - offset).min(256 << 10)];
        link.output(reference, offset as u64, piece).await;
    }
    link.acked(reference, bytes as u64).await;
}

async fn until_removed(user: &mut User, task_id: &str) -> Task {
    within(async {
        loop {
            let task = user.task(task_id).await;
            if task.output_removed_bytes == task.output_bytes {
                break task;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test]
async fn output_expires_before_its_task_and_live_tasks_keep_theirs() {
    let (server, mut user, agent) = scene(&[("RETENTION__OUTPUTS", "1s")]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 2).await;
    let live = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    print(&mut link, &reference, 1000).await;
    // More than one step removes.
    let done = finished(&mut user, &mut link, 20 << 20).await;
    let task = until_removed(&mut user, &done).await;
    assert!(task.output_removed_at.is_some() && task.output_bytes == 20 << 20);
    assert_eq!(task.state(), TaskState::Succeeded);
    let mut watch = user.watch(&done, 0).await;
    let first = watch.message().await.unwrap().unwrap().event.unwrap();
    let watch_task_response::Event::Task(told) = first else { panic!("{first:?}") };
    assert_eq!(told.output_removed_bytes, 20 << 20);
    assert_eq!(watch.message().await.unwrap(), None);
    assert_eq!(user.task(&live.task_id).await.output_removed_bytes, 0);
    link.end(&reference, succeeded(1000)).await;
    // A follower that comes in the middle gets the rest or is told; it never waits for what is gone.
    let (_, task) = collect(user.watch(&live.task_id, 0).await).await;
    assert_eq!(task.state(), TaskState::Succeeded);
    until_removed(&mut user, &live.task_id).await;
    let page = get(&server, "/metrics").await;
    assert!(page.contains(&format!("control_plane_output_removed_bytes_total {}", (20 << 20) + 1000)), "{page}");
}

#[tokio::test]
async fn beyond_the_total_the_output_of_who_finished_first_goes() {
    let (server, mut user, agent) = scene(&[("RETENTION__OUTPUT_BYTES", "1MiB"), ("RETENTION__OUTPUTS", "4s")]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 3).await;
    let live = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    print(&mut link, &reference, 600 << 10).await;
    let first = finished(&mut user, &mut link, 300 << 10).await;
    let second = finished(&mut user, &mut link, 300 << 10).await;
    until_removed(&mut user, &first).await;
    assert_eq!(user.task(&second).await.output_removed_bytes, 0);
    assert_eq!(user.task(&live.task_id).await.output_removed_bytes, 0);
}

#[tokio::test]
async fn finished_tasks_go_with_all_that_belongs_to_them_and_their_key_is_free_again() {
    let (server, mut user, agent) = scene(&[("RETENTION__TASKS", "1s")]).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 2).await;
    let submit = |spec| SubmitTaskRequest { spec: Some(spec), idempotency_key: "k".into() };
    let mut tasks = user.tasks.clone();
    let first = tasks.submit_task(submit(command())).await.unwrap().into_inner().task.unwrap();
    let reference = link.assignment().await.task.unwrap();
    print(&mut link, &reference, 100).await;
    let again = tasks.submit_task(submit(command())).await.unwrap().into_inner().task.unwrap();
    assert_eq!(first.task_id, again.task_id);
    // Longer than tasks are kept: it is live, so it stays.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!(user.task(&first.task_id).await.state(), TaskState::Running);
    link.end(&reference, succeeded(100)).await;
    within(async {
        while tasks.get_task(GetTaskRequest { task_id: first.task_id.clone() }).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    let gone = tasks.get_task(GetTaskRequest { task_id: first.task_id.clone() }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    let second = tasks.submit_task(submit(command())).await.unwrap().into_inner().task.unwrap();
    assert_ne!(first.task_id, second.task_id);
    let bytes = std::fs::read(server.state_dir().join("control-plane.db-wal")).unwrap();
    assert!(!bytes.is_empty());
    // An agent that comes back with it is told to forget it.
    let (_link, welcome) = agent.connect(&server, "i2", vec![held(&reference, HeldState::Ended)], 0).await;
    assert_eq!(welcome.resume[0].decision(), ResumeDecision::Forget);
}

#[tokio::test]
async fn a_result_that_came_too_late_is_shown_once_and_decides_nothing() {
    let settings = [("LEASE", "1s"), ("HEARTBEAT_INTERVAL", "200ms"), ("LOST_WAIT", "0s")];
    let (server, mut user, agent) = scene(&settings).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    let task = user.submit(command()).await;
    let reference = link.assignment().await.task.unwrap();
    link.started(&reference).await;
    drop(link);
    user.until(&task.task_id, TaskState::Unknown).await;
    for instance in ["i2", "i3"] {
        let (mut link, _) = agent.connect(&server, instance, vec![held(&reference, HeldState::Ended)], 0).await;
        for exit_code in [7, 8] {
            let late = TaskResult { exit_code: Some(exit_code), outcome: TaskState::Failed.into(), ..succeeded(0) };
            link.end(&reference, late).await;
        }
    }
    let task = user.task(&task.task_id).await;
    assert_eq!(task.state(), TaskState::Unknown);
    let [late] = &task.late_results[..] else { panic!("{:?}", task.late_results) };
    assert_eq!((late.epoch, &late.agent_id, late.agent_name.as_str()), (1, &agent.id, "a1"));
    assert_eq!(late.result.as_ref().unwrap().exit_code, Some(7));
    assert!(late.received_at.is_some());
    // Another agent's word about it is nobody's.
    let (_, token) = user.token(CreateJoinTokenRequest::default()).await;
    let stranger = enroll(&server, &token, "a2", &[]).await.unwrap();
    let (mut link, _) = stranger.connect(&server, "i1", Vec::new(), 0).await;
    link.end(&reference, succeeded(0)).await;
    assert_eq!(user.task(&task.task_id).await.late_results.len(), 1);
    let list = user.tasks.list_tasks(ListTasksRequest::default()).await.unwrap().into_inner();
    assert!(list.tasks.iter().all(|task| task.late_results.is_empty()));
}
