//! Users with roles and scopes, their tokens, and what they are refused.

use std::time::Duration;

use lictor_proto::v1::*;
use tonic::{Code, Status};

use crate::support::{User, *};

/// Makes a user and signs in.
pub(crate) async fn sign_up(server: &Server, admin: &mut User, name: &str, role: Role, scope: &str) -> User {
    let request =
        CreateUserRequest { name: name.into(), role: role.into(), scope: scope.into(), description: String::new() };
    admin.access.create_user(request).await.unwrap();
    let (_, token) = admin.issue(name, None).await.unwrap();
    server.user_with(&token).await
}

fn scoped(scope: &str) -> TaskSpec {
    let selector = AgentSelector { tags: Vec::new(), scope: scope.into() };
    TaskSpec { selector: Some(selector), ..command() }
}

pub(crate) fn credential(name: &str, scope: &str) -> Credential {
    Credential { name: name.into(), username: "alice".into(), scope: scope.into(), ..Credential::default() }
}

async fn listed(user: &mut User) -> Vec<String> {
    let page = user.tasks.list_tasks(ListTasksRequest::default()).await.unwrap().into_inner();
    page.tasks.into_iter().map(|task| task.task_id).collect()
}

pub(crate) fn code<T>(answer: Result<T, Status>) -> Code {
    answer.err().map_or(Code::Ok, |status| status.code())
}

#[tokio::test]
async fn roles_may_do_what_they_are_for() {
    let (server, mut admin, _agent) = scene(&[]).await;
    let mut viewer = sign_up(&server, &mut admin, "viewer", Role::Viewer, "").await;
    let mut operator = sign_up(&server, &mut admin, "operator", Role::Operator, "").await;
    let task = operator.submit(command()).await;
    assert_eq!(task.submitted_by, "operator");
    assert_eq!(viewer.task(&task.task_id).await.task_id, task.task_id);
    assert_eq!(listed(&mut viewer).await, std::slice::from_ref(&task.task_id));
    assert_eq!(viewer.agents().await.len(), 1);
    let submit = SubmitTaskRequest { spec: Some(command()), idempotency_key: String::new() };
    assert_eq!(code(viewer.tasks.submit_task(submit).await), Code::PermissionDenied);
    let cancel = CancelTaskRequest { task_id: task.task_id.clone(), reason: String::new() };
    assert_eq!(code(viewer.tasks.cancel_task(cancel).await), Code::PermissionDenied);
    for user in [&mut viewer, &mut operator] {
        assert_eq!(code(user.put(credential("x", ""), Some("p")).await), Code::PermissionDenied);
        let join = user.fleet.create_join_token(CreateJoinTokenRequest::default()).await;
        assert_eq!(code(join), Code::PermissionDenied);
        let revoke = RevokeAgentRequest { agent: "a1".into(), reason: String::new() };
        assert_eq!(code(user.fleet.revoke_agent(revoke).await), Code::PermissionDenied);
        assert_eq!(code(user.access.list_users(ListUsersRequest::default()).await), Code::PermissionDenied);
        assert_eq!(code(user.issue("admin", None).await), Code::PermissionDenied);
        assert_eq!(code(user.access.export_audit(ExportAuditRequest::default()).await), Code::PermissionDenied);
        let me = user.access.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner();
        assert_eq!(me.token.unwrap().user, me.user.unwrap().name);
    }
    operator.cancel(&task.task_id).await;
}

#[tokio::test]
async fn viewers_do_not_see_what_may_hold_secrets() {
    let (server, mut admin, _agent) = scene(&[]).await;
    let mut viewer = sign_up(&server, &mut admin, "viewer", Role::Viewer, "").await;
    let script = Script { text: "echo marker-in-script".into(), language: 1, ..Script::default() };
    let task = admin.submit(TaskSpec { kind: Some(task_spec::Kind::Script(script)), ..command() }).await;
    assert!(format!("{task:?}").contains("marker-in-script"));
    let mut views = vec![viewer.task(&task.task_id).await];
    views.extend(viewer.tasks.list_tasks(ListTasksRequest::default()).await.unwrap().into_inner().tasks);
    let watched = viewer.watch(&task.task_id, 0).await.message().await.unwrap().unwrap();
    if let Some(watch_task_response::Event::Task(task)) = watched.event {
        views.push(task);
    }
    assert_eq!(views.len(), 3);
    for view in views {
        assert!(!format!("{view:?}").contains("marker-in-script"), "{view:?}");
    }
}

#[tokio::test]
async fn a_scope_hides_everything_outside_it() {
    let server = Server::start(&[]).await;
    let mut admin = server.user().await;
    let mut ours = sign_up(&server, &mut admin, "ours", Role::Admin, "team/a").await;
    let mut theirs = sign_up(&server, &mut admin, "theirs", Role::Admin, "team/ab").await;

    // What is made without a word about the scope has the user's.
    ours.put(credential("ours", ""), Some(PASSWORD)).await.unwrap();
    theirs.put(credential("theirs", ""), Some(PASSWORD)).await.unwrap();
    admin.put(credential("common", ""), Some(PASSWORD)).await.unwrap();
    let (our_token, text) = ours.token(CreateJoinTokenRequest::default()).await;
    let (their_token, their_text) = theirs.token(CreateJoinTokenRequest::default()).await;
    assert_eq!((our_token.scope.as_str(), their_token.scope.as_str()), ("team/a", "team/ab"));
    enroll(&server, &text, "our-agent", &[]).await.unwrap();
    enroll(&server, &their_text, "their-agent", &[]).await.unwrap();
    let task = ours.submit(TaskSpec { credential: "ours".into(), ..command() }).await;
    assert_eq!(task.spec.as_ref().unwrap().selector.as_ref().unwrap().scope, "team/a");
    assert_eq!(task.candidates.iter().map(|c| c.agent_name.as_str()).collect::<Vec<_>>(), ["our-agent"]);

    // Others see nothing of it, and learn nothing from errors.
    assert!(listed(&mut theirs).await.is_empty());
    assert_eq!(listed(&mut admin).await.len(), 1);
    let strange = |id: &str| GetTaskRequest { task_id: id.into() };
    let hidden = theirs.tasks.get_task(strange(&task.task_id)).await.unwrap_err();
    let missing = theirs.tasks.get_task(strange("0197-none")).await.unwrap_err();
    assert_eq!((hidden.code(), missing.code()), (Code::NotFound, Code::NotFound));
    assert_eq!(
        hidden.message().replace(&task.task_id, "ID"),
        missing.message().replace("0197-none", "ID"),
        "the two differ"
    );
    let watch = WatchTaskRequest { task_id: task.task_id.clone(), from_offset: 0 };
    assert_eq!(code(theirs.tasks.watch_task(watch).await), Code::NotFound);
    let cancel = CancelTaskRequest { task_id: task.task_id.clone(), reason: String::new() };
    assert_eq!(code(theirs.tasks.cancel_task(cancel).await), Code::NotFound);
    let drain = DrainAgentRequest { agent: "our-agent".into(), reason: String::new() };
    assert_eq!(code(theirs.fleet.drain_agent(drain).await), Code::NotFound);
    let revoke = RevokeAgentRequest { agent: "our-agent".into(), reason: String::new() };
    assert_eq!(code(theirs.fleet.revoke_agent(revoke).await), Code::NotFound);
    let revoke = RevokeJoinTokenRequest { token_id: our_token.token_id.clone() };
    assert_eq!(code(theirs.fleet.revoke_join_token(revoke).await), Code::NotFound);
    let delete = DeleteCredentialRequest { name: "ours".into() };
    assert_eq!(code(theirs.credentials.delete_credential(delete).await), Code::NotFound);
    assert_eq!(code(theirs.put(credential("ours", ""), Some("stolen")).await), Code::AlreadyExists);
    assert_eq!(theirs.agents().await.iter().map(|a| a.name.as_str()).collect::<Vec<_>>(), ["their-agent"]);
    let credentials = theirs.credentials.list_credentials(ListCredentialsRequest::default()).await.unwrap();
    assert_eq!(credentials.into_inner().credentials.len(), 1);
    let tokens = theirs.fleet.list_join_tokens(ListJoinTokensRequest::default()).await.unwrap().into_inner();
    assert_eq!(tokens.join_tokens.iter().map(|token| &token.token_id).collect::<Vec<_>>(), [&their_token.token_id]);
    let users = theirs.access.list_users(ListUsersRequest::default()).await.unwrap().into_inner().users;
    assert_eq!(users.iter().map(|user| user.name.as_str()).collect::<Vec<_>>(), ["theirs"]);
    for name in ["ours", "admin"] {
        assert_eq!(code(theirs.issue(name, None).await), Code::NotFound, "{name}");
        let disable = DisableUserRequest { name: name.into() };
        assert_eq!(code(theirs.access.disable_user(disable).await), Code::NotFound, "{name}");
    }
    let tokens = theirs.access.list_user_tokens(ListUserTokensRequest::default()).await.unwrap().into_inner();
    assert!(tokens.user_tokens.iter().all(|token| token.user == "theirs"));
    assert_eq!(code(theirs.access.export_audit(ExportAuditRequest::default()).await), Code::PermissionDenied);

    // Nobody gives what is not theirs.
    let user = CreateUserRequest { name: "x".into(), role: 3, scope: "team".into(), description: String::new() };
    assert_eq!(code(theirs.access.create_user(user).await), Code::PermissionDenied);
    let token = CreateJoinTokenRequest { scope: "team".into(), ..Default::default() };
    assert_eq!(code(theirs.fleet.create_join_token(token).await), Code::PermissionDenied);
    assert_eq!(code(theirs.put(credential("wide", "team"), Some("p")).await), Code::PermissionDenied);
}

#[tokio::test]
async fn a_task_uses_credentials_of_its_scope_and_above() {
    let server = Server::start(&[]).await;
    let mut admin = server.user().await;
    let mut operator = sign_up(&server, &mut admin, "operator", Role::Operator, "team/a").await;
    for (name, scope) in [("common", ""), ("team", "team"), ("a", "team/a"), ("web", "team/a/web"), ("b", "team/b")] {
        admin.put(credential(name, scope), Some(PASSWORD)).await.unwrap();
    }
    let mut submit = async |name: &str, scope: &str| {
        let spec = TaskSpec { credential: name.into(), ..scoped(scope) };
        code(operator.tasks.submit_task(SubmitTaskRequest { spec: Some(spec), idempotency_key: String::new() }).await)
    };
    for (name, scope, expected) in [
        ("common", "", Code::Ok),
        ("team", "", Code::Ok),
        ("a", "", Code::Ok),
        ("web", "", Code::InvalidArgument),
        ("web", "team/a/web", Code::Ok),
        ("a", "team/a/web/x", Code::Ok),
        ("b", "", Code::NotFound),
        ("none", "", Code::NotFound),
        ("a", "team", Code::PermissionDenied),
        ("b", "team/b", Code::PermissionDenied),
    ] {
        assert_eq!(submit(name, scope).await, expected, "{name} {scope}");
    }
    let spec = TaskSpec { credential: "a".into(), ..command() };
    let status = admin.tasks.submit_task(SubmitTaskRequest { spec: Some(spec), idempotency_key: String::new() }).await;
    assert_eq!(code(status), Code::InvalidArgument, "a task of everybody with a credential of some");

    // A new password does not give the credential to others.
    let again = admin.put(credential("a", ""), Some("new")).await.unwrap();
    assert_eq!((again.scope.as_str(), again.version), ("team/a", 2));
}

#[tokio::test]
async fn a_credential_that_changed_hands_is_not_handed_out() {
    let (server, mut admin, agent) = scene(&[]).await;
    let task = admin.submit(scoped("team/a")).await;
    admin.put(credential("web", "team/b"), Some(PASSWORD)).await.unwrap();
    let (_link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    let rejected = admin.until(&task.task_id, TaskState::Rejected).await;
    assert_eq!(rejected.result.unwrap().failure.unwrap().code, "credential.unusable");
}

#[tokio::test]
async fn tokens_end_and_so_do_the_calls_made_with_them() {
    let (server, mut admin, _agent) = scene(&[]).await;
    let task = admin.submit(command()).await;
    let mut first = sign_up(&server, &mut admin, "ann", Role::Viewer, "").await;
    let (second_id, text) = admin.issue("ann", None).await.unwrap();
    let mut second = server.user_with(&text).await;
    let (short_id, text) = admin.issue("ann", seconds(1)).await.unwrap();
    let mut short = server.user_with(&text).await;

    let mut watch = second.watch(&task.task_id, 0).await;
    watch.message().await.unwrap().unwrap();
    let revoke = RevokeUserTokenRequest { token_id: second_id.token_id.clone() };
    let revoked = admin.access.revoke_user_token(revoke).await.unwrap().into_inner().user_token.unwrap();
    assert!(revoked.revoked_at.is_some());
    assert_eq!(within(watch.message()).await.unwrap_err().code(), Code::Unauthenticated);
    let status = second.tasks.list_tasks(ListTasksRequest::default()).await.unwrap_err();
    assert!(status.code() == Code::Unauthenticated && status.message().contains("revoked"), "{status}");

    let end = std::time::SystemTime::try_from(short_id.expires_at.unwrap()).unwrap();
    within(async {
        while std::time::SystemTime::now() < end {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let status = short.tasks.list_tasks(ListTasksRequest::default()).await.unwrap_err();
    assert!(status.code() == Code::Unauthenticated && status.message().contains("expired"), "{status}");

    // The user's other token is as good as before, until the user is disabled.
    let mut watch = first.watch(&task.task_id, 0).await;
    watch.message().await.unwrap().unwrap();
    admin.access.disable_user(DisableUserRequest { name: "ann".into() }).await.unwrap();
    assert_eq!(within(watch.message()).await.unwrap_err().code(), Code::Unauthenticated);
    let status = first.tasks.list_tasks(ListTasksRequest::default()).await.unwrap_err();
    assert!(status.code() == Code::Unauthenticated && status.message().contains("disabled"), "{status}");
    let server = server.restart().await;
    assert_eq!(code(server.user_with(&text).await.access.who_am_i(WhoAmIRequest {}).await), Code::Unauthenticated);
    let mut admin = server.user().await;
    admin.access.enable_user(EnableUserRequest { name: "ann".into() }).await.unwrap();
    let tokens =
        admin.access.list_user_tokens(ListUserTokensRequest { user: "ann".into(), ..Default::default() }).await;
    let tokens = tokens.unwrap().into_inner().user_tokens;
    assert_eq!(tokens.len(), 3);
    assert_eq!(tokens.iter().filter(|token| token.revoked_at.is_some()).count(), 1);
}

#[tokio::test]
async fn somebody_can_always_do_everything() {
    let server = Server::start(&[]).await;
    let mut admin = server.user().await;
    sign_up(&server, &mut admin, "scoped", Role::Admin, "team").await;
    let disable = || DisableUserRequest { name: "admin".into() };
    assert_eq!(code(admin.access.disable_user(disable()).await), Code::FailedPrecondition);
    sign_up(&server, &mut admin, "second", Role::Admin, "").await;
    admin.access.disable_user(disable()).await.unwrap();
    assert_eq!(code(admin.access.who_am_i(WhoAmIRequest {}).await), Code::Unauthenticated);
}

#[tokio::test]
async fn names_of_users_are_never_used_twice_and_pages_come_in_order() {
    let server = Server::start(&[]).await;
    let mut admin = server.user().await;
    for name in ["c", "a", "b"] {
        sign_up(&server, &mut admin, name, Role::Viewer, "").await;
    }
    let again = CreateUserRequest { name: "a".into(), role: 1, ..Default::default() };
    assert_eq!(code(admin.access.create_user(again).await), Code::AlreadyExists);
    for (name, role) in [("", 1), ("a b", 1), ("x\u{1b}[31m", 1), ("x", 0), ("x", 9)] {
        let wrong = CreateUserRequest { name: name.into(), role, ..Default::default() };
        assert_eq!(code(admin.access.create_user(wrong).await), Code::InvalidArgument, "{name:?} {role}");
    }
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = admin.access.list_users(ListUsersRequest { page_size: 2, page_token }).await.unwrap().into_inner();
        names.extend(page.users.into_iter().map(|user| user.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["a", "admin", "b", "c"]);
    let (mut users, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListUserTokensRequest { user: String::new(), page_size: 1, page_token };
        let page = admin.access.list_user_tokens(request).await.unwrap().into_inner();
        users.extend(page.user_tokens.into_iter().map(|token| token.user));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(users, ["a", "admin", "b", "c"]);
}

#[tokio::test]
async fn nothing_but_a_users_token_opens_the_users_services() {
    let (server, mut admin, agent) = scene(&[]).await;
    let (_, join) = admin.token(CreateJoinTokenRequest::default()).await;
    let user_token = std::fs::read_to_string(server.state_dir().join("admin-token")).unwrap();
    for token in [join.as_str(), "lictor-user.AAAA", "", &format!("{user_token}x"), &user_token[..user_token.len() - 1]]
    {
        let mut stranger = server.user_with(token).await;
        assert_eq!(
            code(stranger.tasks.list_tasks(ListTasksRequest::default()).await),
            Code::Unauthenticated,
            "{token}"
        );
    }
    // An agent's certificate without a token is nobody's.
    let channel = server.channel(Some(agent.identity.clone())).await.unwrap();
    let mut client = task_service_client::TaskServiceClient::new(channel);
    assert_eq!(code(client.list_tasks(ListTasksRequest::default()).await), Code::Unauthenticated);
    // A user's token does not open the agents' service, and is no join token.
    let channel = server.channel(None).await.unwrap();
    let mut request = tonic::Request::new(PollRequest::default());
    request.metadata_mut().insert("authorization", format!("Bearer {user_token}").parse().unwrap());
    let mut client = agent_service_client::AgentServiceClient::new(channel);
    assert_eq!(code(client.poll(request).await), Code::Unauthenticated);
    let Err(status) = enroll(&server, &user_token, "x", &[]).await else { panic!("a user's token enrolled an agent") };
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(!status.message().contains(&user_token[12..]), "{status}");
}

#[tokio::test]
async fn whoever_tries_tokens_is_slowed_down_counted_and_noted_once() {
    let server = Server::start(&[]).await;
    let mut admin = server.user().await;
    let mut stranger = server.user_with("lictor-user.bWFya2VyLW9mLWEtZ3Vlc3M").await;
    let mut codes = Vec::new();
    for _ in 0..40 {
        codes.push(code(stranger.tasks.list_tasks(ListTasksRequest::default()).await));
    }
    assert!(codes.iter().filter(|code| **code == Code::Unauthenticated).count() <= 12, "{codes:?}");
    assert_eq!(codes.last(), Some(&Code::ResourceExhausted));
    // Who has a right token does not suffer from a neighbour.
    admin.tasks.list_tasks(ListTasksRequest::default()).await.unwrap();
    assert!(get(&server, "/metrics").await.contains("control_plane_calls_refused_total{reason=\"unknown\"} 40"));
    let refused: Vec<_> =
        admin.audit().await.into_iter().filter(|entry| entry.contains("\"access.refused\"")).collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].contains("127.0.0.1") && !refused[0].contains("bWFya2Vy"), "{refused:?}");
}

#[tokio::test]
async fn a_lost_administrators_token_is_issued_anew_on_the_machine() {
    let server = Server::start(&[]).await;
    let mut admin = server.user().await;
    let lost = std::fs::read_to_string(server.state_dir().join("admin-token")).unwrap();
    sign_up(&server, &mut admin, "second", Role::Admin, "").await;
    admin.access.disable_user(DisableUserRequest { name: "admin".into() }).await.unwrap();
    let issue = |state_dir: &std::path::Path, flags: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lictor-control-plane"));
        command.arg("issue-admin-token").args(flags).env("LICTOR_CONTROL_PLANE_STATE_DIR", state_dir);
        command.output().unwrap()
    };
    let refused = issue(server.state_dir(), &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("in use"), "{refused:?}");
    let stopped = server.halt().await;
    let issued = issue(stopped.state_dir(), &["--revoke-others"]);
    assert!(issued.status.success(), "{issued:?}");
    assert!(!String::from_utf8_lossy(&issued.stdout).contains("lictor-user."), "{issued:?}");
    let server = stopped.start_again().await;
    let mut admin = server.user().await;
    let me = admin.access.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner().user.unwrap();
    assert_eq!((me.name.as_str(), me.role(), me.disabled_at), ("admin", Role::Admin, None));
    assert_eq!(code(server.user_with(&lost).await.access.who_am_i(WhoAmIRequest {}).await), Code::Unauthenticated);
    let log = admin.audit().await.join("\n");
    assert!(log.contains("{\"kind\":\"machine\"}") && log.contains("user_token.revoked"), "{log}");
}
