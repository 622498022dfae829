//! Texts that want to be more than texts, in every field that takes one: refused, or made harmless.

use lictor_proto::v1::agent_service_client::AgentServiceClient;
use lictor_proto::v1::*;
use tonic::Code;

use crate::support::{User, *};

/// What is put into every field.
fn nasty() -> Vec<String> {
    let mut texts: Vec<String> = [
        "x\ny",
        "x\r\nauthorization: Bearer y",
        "x\0y",
        "\u{1b}[31mred\u{1b}[0m",
        "\u{9b}2Jx",
        "../../../etc/passwd",
        "..",
        "a\"b'c`d",
        "' OR '1'='1",
        "x'; DROP TABLE tasks; --",
        "%00%0a",
        "%s%n",
        "${jndi:ldap://x}",
        "$(id)",
        "\u{202e}evil",
        "\u{feff}",
    ]
    .map(str::to_owned)
    .into();
    texts.push("y".repeat(200_000));
    texts
}

/// An answer that was refused says why, shortly and without what could steer a terminal or a log.
fn harmless(status: &tonic::Status) {
    let message = status.message();
    assert!(message.len() < 2000, "{} bytes of message", message.len());
    assert!(!message.contains(|c: char| c.is_control()), "{message:?}");
}

/// Something that was taken holds no control characters.
fn clean(answer: &impl std::fmt::Debug, text: &str) {
    // Debug escapes them, so an escape there is one in the value.
    let shown = format!("{answer:?}");
    for escape in ["\\u{1b}", "\\u{9b}", "\\n", "\\r", "\\0"] {
        assert!(!shown.contains(escape), "{text:?} came through: {shown}");
    }
}

async fn scene_with_user() -> (Server, User, AgentPeer) {
    let (server, mut user, agent) = scene(&[]).await;
    let request = CreateUserRequest { name: "ann".into(), role: 1, ..Default::default() };
    user.access.create_user(request).await.unwrap();
    (server, user, agent)
}

#[tokio::test]
async fn what_users_send_is_refused_or_harmless() {
    let (server, mut user, _agent) = scene_with_user().await;
    for text in nasty() {
        let of = || text.clone();
        let selector =
            |tag: &str, scope: &str| Some(AgentSelector { tags: vec![tag.to_owned()], scope: scope.to_owned() });
        let target = Some(Target { host: of(), connection: None });
        for spec in [
            TaskSpec { target, ..command() },
            TaskSpec { credential: of(), ..command() },
            TaskSpec { selector: selector(&text, ""), ..command() },
            TaskSpec { selector: selector("t", &text), ..command() },
            TaskSpec { label: of(), ..command() },
        ] {
            let request = SubmitTaskRequest { spec: Some(spec), idempotency_key: String::new() };
            match user.tasks.submit_task(request).await {
                Ok(answer) => clean(answer.get_ref(), &text),
                Err(status) => harmless(&status),
            }
        }
        let request = SubmitTaskRequest { spec: Some(command()), idempotency_key: of() };
        if let Err(status) = user.tasks.submit_task(request).await {
            harmless(&status);
        }
        macro_rules! missing {
            ($call:expr) => {
                let status = $call.await.err().unwrap();
                assert!(matches!(status.code(), Code::NotFound | Code::InvalidArgument), "{text:?}: {status}");
                harmless(&status);
            };
        }
        missing!(user.tasks.get_task(GetTaskRequest { task_id: of() }));
        missing!(user.tasks.watch_task(WatchTaskRequest { task_id: of(), from_offset: 0 }));
        missing!(user.tasks.cancel_task(CancelTaskRequest { task_id: of(), reason: of() }));
        missing!(user.tasks.list_tasks(ListTasksRequest { page_token: of(), ..Default::default() }));
        missing!(user.fleet.drain_agent(DrainAgentRequest { agent: of(), reason: of() }));
        missing!(user.fleet.revoke_agent(RevokeAgentRequest { agent: of(), reason: of() }));
        missing!(user.fleet.revoke_join_token(RevokeJoinTokenRequest { token_id: of() }));
        missing!(user.fleet.list_join_tokens(ListJoinTokensRequest { page_token: of(), ..Default::default() }));
        missing!(user.credentials.delete_credential(DeleteCredentialRequest { name: of() }));
        missing!(user.access.disable_user(DisableUserRequest { name: of() }));
        missing!(user.access.revoke_user_token(RevokeUserTokenRequest { token_id: of() }));
        missing!(user.access.issue_user_token(IssueUserTokenRequest { user: of(), ..Default::default() }));
        // Lists take any text as the place to go on from, and compare it.
        user.fleet.list_agents(ListAgentsRequest { page_token: of(), ..Default::default() }).await.unwrap();
        user.access.list_users(ListUsersRequest { page_token: of(), ..Default::default() }).await.unwrap();
        let tokens = ListUserTokensRequest { user: of(), page_token: of(), page_size: 0 };
        assert!(user.access.list_user_tokens(tokens).await.unwrap().into_inner().user_tokens.is_empty());
        for (scope, tag, description) in [(of(), "t".into(), String::new()), (String::new(), of(), of())] {
            let request = CreateJoinTokenRequest { scope, tags: vec![tag], description, ..Default::default() };
            match user.fleet.create_join_token(request).await {
                Ok(answer) => clean(answer.get_ref(), &text),
                Err(status) => harmless(&status),
            }
        }
        for credential in [
            Credential { name: of(), username: "u".into(), ..Default::default() },
            Credential { name: "n1".into(), username: of(), ..Default::default() },
            Credential { name: "n2".into(), username: "u".into(), domain: of(), ..Default::default() },
            Credential { name: "n3".into(), username: "u".into(), description: of(), ..Default::default() },
            Credential { name: "n4".into(), username: "u".into(), scope: of(), ..Default::default() },
        ] {
            match user.put(credential, Some("p")).await {
                Ok(answer) => clean(&answer, &text),
                Err(status) => harmless(&status),
            }
        }
        for (name, scope, description) in
            [(of(), "", ""), ("ok".to_owned(), text.as_str(), ""), ("ok".to_owned(), "", &text)]
        {
            let request = CreateUserRequest { name, role: 1, scope: scope.into(), description: description.into() };
            match user.access.create_user(request).await {
                Ok(answer) => clean(answer.get_ref(), &text),
                Err(status) => harmless(&status),
            }
        }
        let drain = DrainAgentRequest { agent: "a1".into(), reason: of() };
        user.fleet.drain_agent(drain).await.unwrap();
    }
    // The records are what they were, and the log is one line an entry.
    assert!(user.tasks.list_tasks(ListTasksRequest::default()).await.is_ok());
    for entry in user.audit().await {
        assert!(!entry.contains(|c: char| c.is_control()), "{entry:?}");
        assert!(entry.len() < 5000, "{} bytes in an entry", entry.len());
    }
    assert!(!server.state_dir().join("..").join("etc").exists());
}

#[tokio::test]
async fn what_agents_send_is_refused_or_harmless() {
    let (server, mut user, agent) = scene_with_user().await;
    let (_, token) = user.token(CreateJoinTokenRequest::default()).await;
    let mut client = AgentServiceClient::new(server.channel(None).await.unwrap());
    for text in nasty() {
        let of = || text.clone();
        let good = || EnrollRequest {
            join_token: token.clone(),
            csr_der: csr().0,
            sealing_key: vec![9; 32],
            name: "b1".into(),
            ..Default::default()
        };
        for request in [
            EnrollRequest { name: of(), ..good() },
            EnrollRequest { join_token: of(), ..good() },
            EnrollRequest { tags: vec![of()], ..good() },
            EnrollRequest { version: of(), ..good() },
            EnrollRequest { description: of(), ..good() },
            EnrollRequest { scope: of(), ..good() },
            EnrollRequest { csr_der: of().into_bytes(), ..good() },
        ] {
            if let Err(status) = client.enroll(request).await {
                harmless(&status);
            }
        }
        let hello = Hello {
            version: of(),
            degraded: vec![of()],
            instance_id: format!("i{text}"),
            capabilities: vec!["command".into(), of()],
            ..agent.hello("i", Vec::new())
        };
        let mut link = agent.open(&server, vec![agent_event::Event::Hello(hello)]).await.unwrap();
        match link.next().await {
            Some(server_event::Event::Welcome(_)) => {}
            Some(server_event::Event::Goodbye(goodbye)) => {
                assert!(goodbye.detail.len() < 2000 && !goodbye.detail.contains(|c: char| c.is_control()));
            }
            other => panic!("{other:?}"),
        }
        drop(link);
    }
    for seen in user.agents().await {
        clean(&seen, "an agent");
    }
    for entry in user.audit().await {
        assert!(!entry.contains(|c: char| c.is_control()), "{entry:?}");
    }
}
