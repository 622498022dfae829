//! Batches: stored whole or not at all, followed, stopped, and carried over a restart.

use std::collections::{BTreeMap, BTreeSet};

use lictor_proto::v1::submit_batch_request::FailureThreshold;
use lictor_proto::v1::*;
use tonic::Code;

use crate::access::{code, credential, sign_up};
use crate::support::{User, *};

fn hosts(count: usize) -> Vec<BatchHost> {
    (0..count).map(|index| host(&format!("web{index}.corp.example"))).collect()
}

fn host(name: &str) -> BatchHost {
    BatchHost { host: name.into(), ..BatchHost::default() }
}

fn request(hosts: Vec<BatchHost>) -> SubmitBatchRequest {
    let template = TaskSpec { target: None, label: "all".into(), ..command() };
    SubmitBatchRequest { template: Some(template), hosts, ..SubmitBatchRequest::default() }
}

async fn submit(user: &mut User, request: SubmitBatchRequest) -> Batch {
    user.batches.submit_batch(request).await.unwrap().into_inner().batch.unwrap()
}

/// Everything a watcher sees from a number on: the tasks that ended, and the finished batch.
async fn watch(user: &mut User, batch_id: &str, from_ended: u32) -> (Vec<EndedTask>, Batch) {
    let request = WatchBatchRequest { batch_id: batch_id.into(), from_ended };
    let mut stream = user.batches.watch_batch(request).await.unwrap().into_inner();
    let (mut ended, mut last) = (Vec::new(), None);
    while let Some(event) = within(stream.message()).await.unwrap() {
        match event.event.unwrap() {
            watch_batch_response::Event::Batch(batch) => last = Some(batch),
            watch_batch_response::Event::Ended(task) => ended.push(task),
        }
    }
    (ended, last.unwrap())
}

#[tokio::test]
async fn a_batch_is_stored_run_and_followed() {
    let (server, mut user, agent) = scene(&[]).await;
    let mut wanted = hosts(3);
    wanted[1].port = 5999;
    wanted[1].label = "special".into();
    wanted[2].connection = Some(ConnectionSettings { port: 1, path: "/other".into(), ..ConnectionSettings::default() });
    let mut template = request(wanted);
    let common = ConnectionSettings { port: 5985, scheme: Scheme::Http.into(), ..ConnectionSettings::default() };
    template.template.as_mut().unwrap().target = Some(Target { host: String::new(), connection: Some(common) });
    let batch = submit(&mut user, SubmitBatchRequest { concurrency: 1, ..template }).await;
    let progress = batch.progress.unwrap();
    assert_eq!((progress.total, progress.waiting, batch.submitted_by.as_str()), (3, 3, "admin"));

    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 10).await;
    let mut seen = Vec::new();
    for index in 0..3 {
        let assignment = link.assignment().await;
        let reference = assignment.task.clone().unwrap();
        let spec = assignment.spec.unwrap();
        let target = spec.target.unwrap();
        let connection = target.connection.unwrap();
        assert_eq!(connection.scheme(), Scheme::Http);
        seen.push((target.host, connection.port, connection.path, spec.label));
        let running = user.batches.get_batch(GetBatchRequest { batch_id: batch.batch_id.clone() }).await;
        assert_eq!(running.unwrap().into_inner().batch.unwrap().progress.unwrap().running, 1);
        let waiting = list(&mut user, &batch.batch_id, &[TaskState::Queued]).await;
        assert_eq!(waiting.len(), 2 - index);
        let outcome = if index == 1 { TaskState::Failed } else { TaskState::Succeeded };
        link.started(&reference).await;
        link.end(&reference, TaskResult { outcome: outcome.into(), ..succeeded(0) }).await;
    }
    let expected = [
        ("web0.corp.example", 5985, "/wsman", "all"),
        ("web1.corp.example", 5999, "/wsman", "special"),
        ("web2.corp.example", 1, "/other", "all"),
    ];
    assert_eq!(
        seen.iter().map(|(h, p, path, l)| (h.as_str(), *p, path.as_str(), l.as_str())).collect::<Vec<_>>(),
        expected
    );
    let (ended, last) = watch(&mut user, &batch.batch_id, 0).await;
    assert_eq!(ended.iter().map(|ended| ended.number).collect::<Vec<_>>(), [1, 2, 3]);
    let second = ended[1].task.clone().unwrap();
    assert_eq!((second.state(), second.batch_id), (TaskState::Failed, batch.batch_id.clone()));
    assert!(second.spec.unwrap().kind.is_none());
    let progress = last.progress.unwrap();
    assert_eq!((progress.succeeded, progress.failed, last.finished_at.is_some()), (2, 1, true));
    // Whoever has seen two goes on behind them; a cancellation changes nothing any more.
    assert_eq!(watch(&mut user, &batch.batch_id, 2).await.0.len(), 1);
    let cancel = CancelBatchRequest { batch_id: batch.batch_id.clone(), reason: String::new() };
    assert!(user.batches.cancel_batch(cancel).await.unwrap().into_inner().batch.unwrap().stop.is_none());
}

async fn list(user: &mut User, batch_id: &str, states: &[TaskState]) -> Vec<Task> {
    let states = states.iter().map(|state| i32::from(*state)).collect();
    let request = ListTasksRequest { batch_id: batch_id.into(), states, page_size: 500, ..ListTasksRequest::default() };
    user.tasks.list_tasks(request).await.unwrap().into_inner().tasks
}

#[tokio::test]
async fn what_is_wrong_is_named_and_nothing_is_stored() {
    let (_server, mut user, _) = scene(&[]).await;
    let mut wrong = request(vec![host("a"), host("A."), host("b c"), host("10.0.0.1"), host("a")]);
    wrong.hosts[3].port = 70_000;
    let error = user.batches.submit_batch(wrong).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    for part in ["hosts[1].host: \"A.\" is hosts[0] again", "hosts[2].target.host", "hosts[3].target.connection.port"] {
        assert!(error.message().contains(part), "{part} in {}", error.message());
    }
    let mut wrong = request(Vec::new());
    wrong.retries = 1;
    wrong.failure_threshold = Some(FailureThreshold::MaxFailuresPercent(101));
    wrong.template.as_mut().unwrap().credential = "a b".into();
    wrong.template.as_mut().unwrap().target = Some(Target { host: "x".into(), connection: None });
    let error = user.batches.submit_batch(wrong).await.unwrap_err();
    for part in [
        "hosts: 1 to 10000",
        "retries: only for",
        "max_failures_percent",
        "template.credential",
        "template.target.host",
    ] {
        assert!(error.message().contains(part), "{part} in {}", error.message());
    }
    let script = Script { text: "x".repeat(1 << 20), ..Script::default() };
    let mut large = request(hosts(100));
    large.template.as_mut().unwrap().kind = Some(task_spec::Kind::Script(script));
    assert!(user.batches.submit_batch(large).await.unwrap_err().message().contains("64 MiB"));
    let mut unknown = request(hosts(1));
    unknown.template.as_mut().unwrap().credential = "nobody".into();
    assert_eq!(user.batches.submit_batch(unknown).await.unwrap_err().code(), Code::NotFound);
    let get = GetBatchRequest { batch_id: "x".into() };
    assert_eq!(user.batches.get_batch(get).await.unwrap_err().code(), Code::NotFound);
    assert!(user.batches.list_batches(ListBatchesRequest::default()).await.unwrap().into_inner().batches.is_empty());
    assert!(list(&mut user, "", &[]).await.is_empty());
}

#[tokio::test]
async fn the_same_key_gives_the_same_batch_and_batches_come_in_pages() {
    let (_server, mut user, _) = scene(&[]).await;
    let keyed = SubmitBatchRequest { idempotency_key: "k".into(), ..request(hosts(2)) };
    let first = submit(&mut user, keyed.clone()).await;
    assert_eq!(submit(&mut user, keyed).await.batch_id, first.batch_id);
    let mut ids = vec![first.batch_id];
    for _ in 0..4 {
        ids.push(submit(&mut user, request(hosts(1))).await.batch_id);
    }
    assert_eq!(list(&mut user, "", &[]).await.len(), 6);
    let (mut listed, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListBatchesRequest { page_size: 2, page_token };
        let page = user.batches.list_batches(request).await.unwrap().into_inner();
        listed.extend(page.batches.into_iter().map(|batch| batch.batch_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    listed.reverse();
    assert_eq!(listed, ids);
}

#[tokio::test]
async fn a_batch_survives_crashes_with_its_bounds_and_its_retries() {
    let (server, mut user, agent) = scene(&[]).await;
    let mut wanted = request(hosts(6));
    wanted.template.as_mut().unwrap().idempotent = true;
    wanted.concurrency = 2;
    wanted.retries = 1;
    wanted.failure_threshold = Some(FailureThreshold::MaxFailures(1));
    let batch = submit(&mut user, wanted).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 10).await;
    let first = link.assignment().await.task.unwrap();
    let second = link.assignment().await.task.unwrap();
    link.started(&second).await;
    link.end(&first, TaskResult { outcome: TaskState::Failed.into(), ..succeeded(0) }).await;
    let third = link.assignment().await.task.unwrap();
    let server = server.crash_and_restart().await;
    let mut user = server.user().await;
    let held = vec![held(&second, HeldState::Running), held(&third, HeldState::Accepted)];
    let (mut link, welcome) = agent.connect(&server, "i1", held, 10).await;
    assert_eq!(welcome.resume.len(), 2);
    // Both places are taken; the first end was stored before the crash, and its second try waits.
    let progress = |batch: &Batch| batch.progress.unwrap();
    let now = user.batches.get_batch(GetBatchRequest { batch_id: batch.batch_id.clone() }).await.unwrap();
    let now = progress(&now.into_inner().batch.unwrap());
    assert_eq!((now.running, now.waiting, now.failed), (2, 4, 0));
    let mut failed = BTreeSet::new();
    link.end(&third, succeeded(0)).await;
    let mut running = vec![second];
    loop {
        let reference = link.assignment().await.task.unwrap();
        running.push(reference);
        assert!(running.len() <= 2);
        // The oldest that runs fails, whichever try it is.
        let reference = running.remove(0);
        link.end(&reference, TaskResult { outcome: TaskState::Failed.into(), ..succeeded(0) }).await;
        if reference.epoch == 2 {
            failed.insert(reference.task_id);
            if failed.len() == 2 {
                break;
            }
        }
    }
    for reference in running {
        link.end(&reference, succeeded(0)).await;
    }
    let (ended, last) = watch(&mut user, &batch.batch_id, 0).await;
    assert_eq!(ended.len(), 6);
    let stop = last.stop.clone().unwrap();
    assert_eq!(stop.code, "batch.threshold");
    assert!(stop.message.contains("2 of 6"), "{}", stop.message);
    assert!(ended.iter().all(|ended| ended.task.as_ref().unwrap().epoch <= 2));
    assert_eq!(progress(&last).waiting + progress(&last).running, 0);
}

#[tokio::test]
async fn ten_thousand_hosts_are_taken_whole_and_cancelled() {
    let (server, mut user, _) = scene(&[]).await;
    let batch = submit(&mut user, request(hosts(10_000))).await;
    assert_eq!(batch.progress.unwrap().waiting, 10_000);
    // What was acknowledged is on disk, all of it.
    let server = server.crash_and_restart().await;
    let mut user = server.user().await;
    let error = user.batches.submit_batch(request(hosts(10_001))).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let cancel = CancelBatchRequest { batch_id: batch.batch_id.clone(), reason: "enough".into() };
    user.batches.cancel_batch(cancel).await.unwrap();
    let (ended, last) = watch(&mut user, &batch.batch_id, 0).await;
    assert_eq!(ended.len(), 10_000);
    assert_eq!(last.progress.unwrap().cancelled, 10_000);
    assert_eq!(last.stop.unwrap().message, "enough");
}

#[tokio::test]
async fn a_batch_is_kept_as_long_as_its_tasks() {
    let (_server, mut user, _) = scene(&[("RETENTION__TASKS", "1s"), ("RETENTION__OUTPUTS", "1s")]).await;
    let going = submit(&mut user, request(hosts(2))).await;
    let batch = submit(&mut user, request(hosts(2))).await;
    let cancel = CancelBatchRequest { batch_id: batch.batch_id.clone(), reason: String::new() };
    user.batches.cancel_batch(cancel).await.unwrap();
    within(async {
        let get = GetBatchRequest { batch_id: batch.batch_id.clone() };
        while user.batches.get_batch(get.clone()).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(list(&mut user, &batch.batch_id, &[]).await.is_empty());
    let left = user.batches.list_batches(ListBatchesRequest::default()).await.unwrap().into_inner().batches;
    assert_eq!(left.iter().map(|batch| &batch.batch_id).collect::<Vec<_>>(), [&going.batch_id]);
}

async fn get(user: &mut User, batch_id: &str) -> Result<Batch, tonic::Status> {
    let request = GetBatchRequest { batch_id: batch_id.into() };
    Ok(user.batches.get_batch(request).await?.into_inner().batch.unwrap())
}

async fn cancel(user: &mut User, batch_id: &str, reason: &str) -> Result<Batch, tonic::Status> {
    let request = CancelBatchRequest { batch_id: batch_id.into(), reason: reason.into() };
    Ok(user.batches.cancel_batch(request).await?.into_inner().batch.unwrap())
}

async fn listed(user: &mut User) -> Vec<String> {
    let page = user.batches.list_batches(ListBatchesRequest::default()).await.unwrap().into_inner();
    page.batches.into_iter().map(|batch| batch.batch_id).collect()
}

#[tokio::test]
async fn viewers_look_at_batches_and_operators_make_them() {
    let (server, mut admin, _) = scene(&[]).await;
    let mut viewer = sign_up(&server, &mut admin, "viewer", Role::Viewer, "").await;
    let mut operator = sign_up(&server, &mut admin, "operator", Role::Operator, "").await;
    assert_eq!(code(viewer.batches.submit_batch(request(hosts(1))).await), Code::PermissionDenied);
    let mut wanted = request(hosts(2));
    let environment = [("NAME".to_owned(), "marker-value".to_owned())].into();
    let shell = ShellSettings { environment, ..ShellSettings::default() };
    let script = Script { text: "echo marker-script".into(), shell: Some(shell), ..Script::default() };
    wanted.template.as_mut().unwrap().kind = Some(task_spec::Kind::Script(script));
    let batch = submit(&mut operator, wanted).await;
    assert_eq!(batch.submitted_by, "operator");
    assert_eq!(code(cancel(&mut viewer, &batch.batch_id, "").await), Code::PermissionDenied);
    assert!(get(&mut viewer, &batch.batch_id).await.unwrap().stop.is_none());
    assert_eq!(listed(&mut viewer).await, std::slice::from_ref(&batch.batch_id));
    let tasks = list(&mut viewer, &batch.batch_id, &[]).await;
    cancel(&mut operator, &batch.batch_id, "enough").await.unwrap();
    let (ended, _) = watch(&mut viewer, &batch.batch_id, 0).await;
    assert_eq!((tasks.len(), ended.len()), (2, 2));
    assert!(!format!("{tasks:?}{ended:?}").contains("marker"));
    assert!(format!("{:?}", list(&mut operator, &batch.batch_id, &[]).await).contains("marker-script"));
}

#[tokio::test]
async fn a_scope_hides_batches_outside_it() {
    let server = Server::start(&[]).await;
    let mut admin = server.user().await;
    let mut ours = sign_up(&server, &mut admin, "ours", Role::Operator, "team/a").await;
    let mut theirs = sign_up(&server, &mut admin, "theirs", Role::Operator, "team/ab").await;
    for (name, scope) in [("web", ""), ("ours", "team/a"), ("theirs", "team/ab")] {
        admin.put(credential(name, scope), Some(PASSWORD)).await.unwrap();
    }
    let with = |credential: &str, scope: &str| {
        let mut wanted = request(hosts(2));
        let template = wanted.template.as_mut().unwrap();
        template.credential = credential.into();
        template.selector = Some(AgentSelector { tags: Vec::new(), scope: scope.into() });
        wanted
    };
    // What nobody said a word about has the scope of who made it, each of the tasks too.
    let batch = submit(&mut ours, SubmitBatchRequest { idempotency_key: "k".into(), ..with("ours", "") }).await;
    assert_eq!(batch.scope, "team/a");
    let tasks = list(&mut ours, &batch.batch_id, &[]).await;
    assert!(tasks.iter().all(|task| task.spec.as_ref().unwrap().selector.as_ref().unwrap().scope == "team/a"));
    assert_eq!(submit(&mut ours, with("web", "team/a/web")).await.scope, "team/a/web");
    let above = submit(&mut admin, with("web", "")).await;

    // Nothing can be made elsewhere, or with somebody else's credential, which looks like none.
    for scope in ["team", "team/ab"] {
        assert_eq!(code(ours.batches.submit_batch(with("web", scope)).await), Code::PermissionDenied, "{scope}");
    }
    let hidden = ours.batches.submit_batch(with("theirs", "")).await.unwrap_err();
    let missing = ours.batches.submit_batch(with("nobody", "")).await.unwrap_err();
    assert_eq!((hidden.code(), missing.code()), (Code::NotFound, Code::NotFound));
    assert_eq!(hidden.message().replace("theirs", "NAME"), missing.message().replace("nobody", "NAME"));

    assert!(listed(&mut theirs).await.is_empty());
    assert!(list(&mut theirs, &batch.batch_id, &[]).await.is_empty());
    assert_eq!((listed(&mut ours).await.len(), listed(&mut admin).await.len()), (2, 3));
    let hidden = get(&mut theirs, &batch.batch_id).await.unwrap_err();
    let missing = get(&mut theirs, "0197-none").await.unwrap_err();
    assert_eq!((hidden.code(), missing.code()), (Code::NotFound, Code::NotFound));
    assert_eq!(hidden.message().replace(&batch.batch_id, "ID"), missing.message().replace("0197-none", "ID"));
    for user in [&mut theirs, &mut ours] {
        assert_eq!(code(get(user, &above.batch_id).await), Code::NotFound);
    }
    let watch_it = WatchBatchRequest { batch_id: batch.batch_id.clone(), from_ended: 0 };
    assert_eq!(code(theirs.batches.watch_batch(watch_it).await), Code::NotFound);
    assert_eq!(code(cancel(&mut theirs, &batch.batch_id, "mine").await), Code::NotFound);
    assert!(get(&mut ours, &batch.batch_id).await.unwrap().stop.is_none());
    // The same key of somebody else is another one.
    let keyed = SubmitBatchRequest { idempotency_key: "k".into(), ..with("theirs", "") };
    assert_ne!(submit(&mut theirs, keyed).await.batch_id, batch.batch_id);
    assert_eq!(cancel(&mut ours, &batch.batch_id, "ours").await.unwrap().stop.unwrap().message, "ours");
}

#[tokio::test]
async fn a_watch_of_a_batch_ends_with_its_user() {
    let (server, mut admin, _) = scene(&[]).await;
    let batch = submit(&mut admin, request(hosts(1))).await;
    let mut viewer = sign_up(&server, &mut admin, "viewer", Role::Viewer, "").await;
    let request = WatchBatchRequest { batch_id: batch.batch_id, from_ended: 0 };
    let mut stream = viewer.batches.watch_batch(request).await.unwrap().into_inner();
    within(stream.message()).await.unwrap().unwrap();
    admin.access.disable_user(DisableUserRequest { name: "viewer".into() }).await.unwrap();
    assert_eq!(within(stream.message()).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn the_audit_log_tells_of_a_batch_once_and_of_each_assignment() {
    let (server, mut user, agent) = scene(&[]).await;
    let keyed = SubmitBatchRequest { concurrency: 1, idempotency_key: "k".into(), ..request(hosts(3)) };
    let batch = submit(&mut user, keyed.clone()).await;
    submit(&mut user, keyed).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 10).await;
    let reference = link.assignment().await.task.unwrap();
    cancel(&mut user, &batch.batch_id, "too\nmany").await.unwrap();
    link.end(&reference, TaskResult { outcome: TaskState::Cancelled.into(), ..succeeded(0) }).await;
    assert_eq!(watch(&mut user, &batch.batch_id, 0).await.0.len(), 3);
    // A finished batch is not cancelled, and so the log does not say it was.
    cancel(&mut user, &batch.batch_id, "again").await.unwrap();

    let entries = user.audit().await;
    let all: Vec<serde_json::Value> = entries.iter().map(|entry| serde_json::from_str(entry).unwrap()).collect();
    let mut counts = BTreeMap::new();
    for entry in &all {
        *counts.entry(entry["action"].as_str().unwrap()).or_insert(0) += 1;
    }
    for (action, count) in [("batch.submitted", 1), ("batch.cancelled", 1), ("task.assigned", 1), ("task.finished", 3)]
    {
        assert_eq!(counts.get(action), Some(&count), "{action}");
    }
    assert!(!counts.contains_key("task.submitted") && !counts.contains_key("task.cancel_requested"));
    let of = |action: &str| all.iter().find(|entry| entry["action"] == action).unwrap();
    let submitted = of("batch.submitted");
    assert_eq!(submitted["actor"]["name"], "admin");
    assert_eq!(submitted["object"], serde_json::json!({ "id": batch.batch_id, "kind": "batch" }));
    assert_eq!(submitted["details"]["hosts"], 3);
    assert_eq!(submitted["details"]["credential"], "web");
    assert_eq!(submitted["details"]["kind"], "command");
    assert_eq!(of("batch.cancelled")["details"]["reason"], "toomany");
    assert_eq!(of("task.assigned")["details"]["batch_id"], batch.batch_id);
    assert!(all.iter().filter(|e| e["action"] == "task.finished").all(|e| e["details"]["batch_id"] == batch.batch_id));
}
