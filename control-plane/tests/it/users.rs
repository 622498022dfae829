//! What users see: tokens, checks, lists, selectors, health.

use lictor_proto::v1::*;
use tonic::Code;

use crate::support::*;

#[tokio::test]
async fn a_wrong_token_is_refused_with_a_remedy() {
    let server = Server::start(&[]).await;
    let mut stranger = server.user_with("lictor-user.wrong").await;
    let status = stranger.tasks.list_tasks(ListTasksRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("admin-token"), "{status}");
    assert_eq!(
        stranger.fleet.list_agents(ListAgentsRequest::default()).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    let status = stranger.credentials.list_credentials(ListCredentialsRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let status = stranger.tasks.watch_task(WatchTaskRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn every_wrong_field_is_named_at_once_and_nothing_is_stored() {
    let (_server, mut user, _agent) = scene(&[]).await;
    let spec = TaskSpec { timeout: seconds(0), credential: "a b".into(), ..TaskSpec::default() };
    let request = SubmitTaskRequest { spec: Some(spec), idempotency_key: "k".repeat(200) };
    let status = user.tasks.submit_task(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    for field in ["target", "credential", "kind", "timeout", "idempotency_key"] {
        assert!(status.message().contains(&format!("{field}:")), "{field} is missing in {status}");
    }
    let listed = user.tasks.list_tasks(ListTasksRequest::default()).await.unwrap().into_inner();
    assert!(listed.tasks.is_empty());
}

#[tokio::test]
async fn an_unknown_credential_is_not_found() {
    let (_server, mut user, _agent) = scene(&[]).await;
    let request = SubmitTaskRequest {
        spec: Some(TaskSpec { credential: "nobody".into(), ..command() }),
        idempotency_key: String::new(),
    };
    let status = user.tasks.submit_task(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("nobody"), "{status}");
    let status = user.tasks.get_task(GetTaskRequest { task_id: "none".into() }).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn the_same_key_gives_the_same_task() {
    let (_server, mut user, _agent) = scene(&[]).await;
    let request = SubmitTaskRequest { spec: Some(command()), idempotency_key: "deploy-7".into() };
    let first = user.tasks.submit_task(request.clone()).await.unwrap().into_inner().task.unwrap();
    let second = user.tasks.submit_task(request).await.unwrap().into_inner().task.unwrap();
    assert_eq!(first.task_id, second.task_id);
    assert_eq!(first.submitted_by, "admin");
}

#[tokio::test]
async fn lists_come_in_pages_newest_first() {
    let (_server, mut user, _agent) = scene(&[]).await;
    let mut submitted = Vec::new();
    for _ in 0..7 {
        submitted.push(user.submit(command()).await.task_id);
    }
    user.cancel(&submitted[3]).await;
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListTasksRequest { page_size: 3, page_token, ..ListTasksRequest::default() };
        let page = user.tasks.list_tasks(request).await.unwrap().into_inner();
        assert!(page.tasks.len() <= 3);
        seen.extend(page.tasks.into_iter().map(|task| task.task_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    submitted.reverse();
    assert_eq!(seen, submitted);
    let request = ListTasksRequest { states: vec![TaskState::Cancelled.into()], ..ListTasksRequest::default() };
    let cancelled = user.tasks.list_tasks(request).await.unwrap().into_inner();
    assert_eq!(cancelled.tasks.len(), 1);
    assert!(cancelled.next_page_token.is_empty());
    let request = ListTasksRequest { page_token: "x".into(), ..ListTasksRequest::default() };
    assert_eq!(user.tasks.list_tasks(request).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn agents_come_in_pages_by_name() {
    let server = Server::start(&[]).await;
    let mut user = server.user().await;
    let (_, token) = user.token(CreateJoinTokenRequest::default()).await;
    for name in ["c", "a", "b"] {
        enroll(&server, &token, name, &[]).await.unwrap();
    }
    let first = user.fleet.list_agents(ListAgentsRequest { page_size: 2, page_token: String::new() }).await;
    let first = first.unwrap().into_inner();
    assert_eq!(first.agents.iter().map(|a| a.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let rest = ListAgentsRequest { page_size: 2, page_token: first.next_page_token };
    let rest = user.fleet.list_agents(rest).await.unwrap().into_inner();
    assert_eq!(rest.agents[0].name, "c");
    assert!(rest.next_page_token.is_empty());
}

#[tokio::test]
async fn credentials_and_join_tokens_come_in_pages() {
    let server = Server::start(&[]).await;
    let mut user = server.user().await;
    let mut ids = Vec::new();
    for name in ["c", "a", "b"] {
        user.put_credential(name).await;
        ids.insert(0, user.token(CreateJoinTokenRequest::default()).await.0.token_id);
    }
    let (mut names, mut page_token) = (Vec::new(), String::new());
    for page in 0..2 {
        let request = ListCredentialsRequest { page_size: 2, page_token };
        let answer = user.credentials.list_credentials(request).await.unwrap().into_inner();
        names.extend(answer.credentials.into_iter().map(|credential| credential.name));
        page_token = answer.next_page_token;
        assert_eq!(page_token.is_empty(), page == 1);
    }
    assert_eq!(names, ["a", "b", "c"]);
    let mut listed = Vec::new();
    for page in 0..2 {
        let request = ListJoinTokensRequest { page_size: 2, page_token };
        let answer = user.fleet.list_join_tokens(request).await.unwrap().into_inner();
        listed.extend(answer.join_tokens.into_iter().map(|token| token.token_id));
        page_token = answer.next_page_token;
        assert_eq!(page_token.is_empty(), page == 1);
    }
    assert_eq!(listed, ids, "newest first");
    let request = ListJoinTokensRequest { page_token: "x".into(), ..Default::default() };
    assert_eq!(user.fleet.list_join_tokens(request).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_selector_that_fits_no_agent_names_each_agent_and_why() {
    let server = Server::start(&[]).await;
    let mut user = server.user().await;
    user.put_credential("web").await;
    let (_, scoped) = user.token(CreateJoinTokenRequest { scope: "team/a".into(), ..Default::default() }).await;
    let (_, open) = user.token(CreateJoinTokenRequest::default()).await;
    let elsewhere = enroll(&server, &scoped, "elsewhere", &["gpu"]).await.unwrap();
    let untagged = enroll(&server, &open, "untagged", &[]).await.unwrap();
    enroll(&server, &open, "offline", &["gpu"]).await.unwrap();
    let busy = enroll(&server, &open, "busy", &["gpu"]).await.unwrap();
    let draining = enroll(&server, &open, "draining", &["gpu"]).await.unwrap();
    let (_l1, _) = elsewhere.connect(&server, "i", Vec::new(), 1).await;
    let (_l2, _) = untagged.connect(&server, "i", Vec::new(), 1).await;
    let (_l3, _) = busy.connect(&server, "i", Vec::new(), 0).await;
    let (mut l4, _) = draining.connect(&server, "i", Vec::new(), 1).await;
    let drain = DrainAgentRequest { agent: "draining".into(), reason: "maintenance".into() };
    let agent = user.fleet.drain_agent(drain).await.unwrap().into_inner().agent.unwrap();
    assert_eq!(agent.state(), AgentState::Draining);
    let reason = l4
        .find(|event| match event {
            server_event::Event::Drain(drain) => Some(drain.reason),
            _ => None,
        })
        .await;
    assert_eq!(reason, "maintenance");

    let selector = AgentSelector { tags: vec!["gpu".into()], scope: "team/b".into() };
    let spec = TaskSpec { selector: Some(selector), queue_timeout: seconds(1), ..command() };
    let expected = [
        ("busy", "no_free_slot"),
        ("draining", "draining"),
        ("elsewhere", "scope"),
        ("offline", "offline"),
        ("untagged", "missing_tag"),
    ];
    let codes = |task: &Task| -> Vec<(String, String)> {
        assert!(task.candidates.iter().all(|c| !c.eligible && !c.reason.is_empty()));
        task.candidates.iter().map(|c| (c.agent_name.clone(), c.code.clone())).collect()
    };
    let expected: Vec<(String, String)> = expected.map(|(a, b)| (a.to_owned(), b.to_owned())).into();
    let waiting = user.submit(spec).await;
    assert_eq!(waiting.state(), TaskState::Queued);
    assert_eq!(codes(&waiting), expected);

    let rejected = user.until(&waiting.task_id, TaskState::Rejected).await;
    assert_eq!(codes(&rejected), expected);
    let failure = rejected.result.unwrap().failure.unwrap();
    assert_eq!((failure.stage.as_str(), failure.code.as_str()), ("control_plane", "no_agent"));
    assert_eq!(failure.legacy_text, "There are no eligible delegates available in the account to execute the task.");
    for name in ["busy", "draining", "elsewhere", "offline", "untagged"] {
        assert!(failure.message.contains(name), "{name} is missing in {failure:?}");
    }
    assert!(!failure.may_have_started);
}

#[tokio::test]
async fn health_and_metrics_are_served() {
    let (server, mut user, agent) = scene(&[]).await;
    let (_link, _) = agent.connect(&server, "i", Vec::new(), 0).await;
    user.until_agent("a1", AgentState::Online).await;
    user.submit(command()).await;
    for (path, expected) in [("/live", "200 OK"), ("/ready", "200 OK"), ("/nothing", "404")] {
        assert!(get(&server, path).await.contains(expected), "{path}");
    }
    let metrics = get(&server, "/metrics").await;
    for line in
        ["control_plane_tasks_queued 1", "control_plane_agents_connected 1", "control_plane_tasks_submitted_total 1"]
    {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
}

#[tokio::test]
async fn a_state_directory_belongs_to_one_control_plane() {
    let server = Server::start(&[]).await;
    let environment = [
        ("LICTOR_CONTROL_PLANE_LISTEN", "127.0.0.1:0"),
        ("LICTOR_CONTROL_PLANE_HTTP_LISTEN", "127.0.0.1:0"),
        ("LICTOR_CONTROL_PLANE_STATE_DIR", server.state_dir().to_str().unwrap()),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()));
    let config = lictor_control_plane::Config::load(None, &environment.into()).unwrap();
    let Err(error) = lictor_control_plane::ControlPlane::start(&config).await else { panic!("two at once") };
    assert!(error.chain().contains("in use"), "{}", error.chain());
    server.restart().await.stop().await;
}
