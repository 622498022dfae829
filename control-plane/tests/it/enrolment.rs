//! Joining, renewing, being revoked.

use lictor_proto::sealing::SealingKey;
use lictor_proto::v1::agent_service_client::AgentServiceClient;
use lictor_proto::v1::*;
use tonic::Code;
use tonic::transport::Identity;

use crate::support::{User, *};

#[tokio::test]
async fn a_good_token_gives_an_identity_that_works() {
    let (server, mut user, agent) = scene(&[]).await;
    let (_link, welcome) = agent.connect(&server, "i1", Vec::new(), 1).await;
    assert!(welcome.heartbeat_interval.is_some() && welcome.lease.is_some() && welcome.output_window > 0);
    let listed = user.until_agent("a1", AgentState::Online).await;
    assert_eq!(listed.agent_id, agent.id);
    assert_eq!(listed.slots, 4);
}

#[tokio::test]
async fn bad_tokens_are_refused_each_with_its_reason() {
    let server = Server::start(&[]).await;
    let mut user = server.user().await;
    let (_, once) = user.token(CreateJoinTokenRequest { max_uses: 1, ..Default::default() }).await;
    let (short_id, short) = user.token(CreateJoinTokenRequest { lifetime: seconds(1), ..Default::default() }).await;
    let (gone_id, gone) = user.token(CreateJoinTokenRequest::default()).await;
    user.fleet.revoke_join_token(RevokeJoinTokenRequest { token_id: gone_id.token_id }).await.unwrap();
    enroll(&server, &once, "first", &[]).await.unwrap();
    let other = Server::start(&[]).await;
    let (_, foreign) = other.user().await.token(CreateJoinTokenRequest::default()).await;
    // The second of its two secrets' halves is another: the identifier is known, the secret is not.
    let mut forged: Vec<String> = short.split('.').map(str::to_owned).collect();
    forged[2] = once.split('.').nth(2).unwrap().to_owned();

    let expiry = short_id.expires_at.unwrap();
    within(async {
        while std::time::SystemTime::now() < std::time::SystemTime::try_from(expiry).unwrap() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    for (token, reason) in [
        (once.as_str(), "used up"),
        (&short, "expired"),
        (&gone, "revoked"),
        (&foreign, "unknown"),
        (&forged.join("."), "unknown"),
        ("lictor-join.cut", "not a join token"),
    ] {
        let Err(status) = enroll(&server, token, "second", &[]).await else { panic!("{reason} was let in") };
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        assert!(status.message().contains(reason), "expected {reason:?} in {status}");
        assert!(status.message().contains("lictor token create"), "no remedy in {status}");
    }
    let tokens = user.fleet.list_join_tokens(ListJoinTokensRequest::default()).await.unwrap().into_inner().join_tokens;
    assert_eq!(tokens.len(), 3);
    assert_eq!(tokens.iter().map(|token| token.uses).sum::<u32>(), 1);
    assert!(user.agents().await.iter().all(|agent| agent.name == "first"));
}

#[tokio::test]
async fn a_malformed_enrolment_names_every_field() {
    let server = Server::start(&[]).await;
    let channel = server.channel(None).await.unwrap();
    let request = EnrollRequest { name: "a b".into(), sealing_key: vec![1], ..EnrollRequest::default() };
    let status = AgentServiceClient::new(channel).enroll(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    for field in ["name", "csr_der", "sealing_key"] {
        assert!(status.message().contains(field), "{field} is missing in {status}");
    }
}

#[tokio::test]
async fn a_name_that_is_an_id_is_refused() {
    let (server, mut user, agent) = scene(&[]).await;
    let (_, token) = user.token(CreateJoinTokenRequest::default()).await;
    // An agent by such a name could not be told apart from the one with that id.
    for _ in 0..2 {
        let Err(status) = enroll(&server, &token, &agent.id, &[]).await else { panic!("the name was taken") };
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    assert_eq!(user.agents().await.len(), 1);
}

#[tokio::test]
async fn without_a_certificate_only_enrolment_is_open() {
    let server = Server::start(&[]).await;
    let mut client = AgentServiceClient::new(server.channel(None).await.unwrap());
    let status = client.poll(PollRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let status = client.renew_identity(RenewIdentityRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let (server, ..) = scene(&[]).await;
    let (_other, _, stranger) = scene(&[]).await;
    let refused = match server.channel(Some(stranger.identity.clone())).await {
        Err(_) => true,
        Ok(channel) => AgentServiceClient::new(channel).poll(PollRequest::default()).await.is_err(),
    };
    assert!(refused, "a stranger's certificate was accepted");
}

#[tokio::test]
async fn an_identity_is_renewed_and_the_new_one_works() {
    let (server, _user, mut agent) = scene(&[]).await;
    let (csr_der, key_pem) = csr();
    let sealing_key = SealingKey::generate();
    let request = RenewIdentityRequest { csr_der, sealing_key: sealing_key.public_bytes().to_vec() };
    let answer = agent.client(&server).await.renew_identity(request).await.unwrap().into_inner();
    agent.identity = Identity::from_pem(answer.certificate_pem, key_pem);
    agent.connect(&server, "i1", Vec::new(), 1).await;
}

#[tokio::test]
async fn enrolling_again_keeps_the_id_and_ends_the_old_identity() {
    let (server, mut user, agent) = scene(&[]).await;
    let (_, token) = user.token(CreateJoinTokenRequest::default()).await;
    let (link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    drop(link);
    user.until_agent("a1", AgentState::Offline).await;
    let again = enroll(&server, &token, "a1", &[]).await.unwrap();
    assert_eq!(again.id, agent.id);
    // Nobody took the old identity away: who lost the new one may enrol once more.
    refused_everywhere(&server, &agent, Code::Unauthenticated).await;
    again.connect(&server, "i2", Vec::new(), 1).await;
}

#[tokio::test]
async fn a_connected_agents_name_is_not_taken_over_but_by_who_holds_its_key() {
    let (server, mut user, _) = scene(&[]).await;
    let (record, token) = user.token(CreateJoinTokenRequest { max_uses: 1, ..Default::default() }).await;
    let (csr_der, key_pem) = csr();
    let agent = enroll_with(&server, &token, "a2", csr_der.clone(), &key_pem).await.unwrap();
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    let (_, other) = user.token(CreateJoinTokenRequest::default()).await;
    let Err(status) = enroll(&server, &other, "a2", &[]).await else { panic!("a living agent lost its name") };
    // An agent that lost its state tries again until the control plane knows that its old connection is gone.
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert_eq!(link.heartbeat(1, Vec::new()).await.sequence, 1, "the session goes on");
    let same = enroll_with(&server, &other, "a2", csr_der, &key_pem).await.unwrap();
    assert_eq!(same.id, agent.id);
    assert_eq!(link.goodbye().await.reason(), GoodbyeReason::Superseded);
    same.connect(&server, "i2", Vec::new(), 1).await;
    assert_eq!(uses(&mut user, &record.token_id).await, 1);
}

#[tokio::test]
async fn a_name_belongs_to_its_scope() {
    let (server, mut user, _) = scene(&[]).await;
    for scope in ["team/a", "team"] {
        let (_, token) = user.token(CreateJoinTokenRequest { scope: scope.into(), ..Default::default() }).await;
        let Err(status) = enroll(&server, &token, "a1", &[]).await else { panic!("{scope} took the name") };
        assert_eq!(status.code(), Code::AlreadyExists, "{status}");
    }
}

#[tokio::test]
async fn a_lost_answer_does_not_spend_the_token() {
    let server = Server::start(&[]).await;
    let mut user = server.user().await;
    let (record, token) = user.token(CreateJoinTokenRequest { max_uses: 1, ..Default::default() }).await;
    let (csr_der, key_pem) = csr();
    let first = enroll_with(&server, &token, "a1", csr_der.clone(), &key_pem).await.unwrap();
    // The answer got lost: the same request again, even after a restart of the control plane.
    let server = server.restart().await;
    let mut user = {
        drop(user);
        server.user().await
    };
    let second = enroll_with(&server, &token, "a1", csr_der.clone(), &key_pem).await.unwrap();
    assert_eq!(second.id, first.id);
    assert_eq!(uses(&mut user, &record.token_id).await, 1);
    second.connect(&server, "i1", Vec::new(), 1).await;
    refused_everywhere(&server, &first, Code::Unauthenticated).await;
    // Another key, another name, or after the revocation of the agent: that is another enrolment.
    for (name, csr_der) in [("a1", csr().0), ("a2", csr_der.clone())] {
        let Err(status) = enroll_with(&server, &token, name, csr_der, &key_pem).await else { panic!("spent twice") };
        assert!(status.message().contains("used up"), "{status}");
    }
    user.fleet.revoke_agent(RevokeAgentRequest { agent: "a1".into(), reason: String::new() }).await.unwrap();
    assert!(enroll_with(&server, &token, "a1", csr_der, &key_pem).await.is_err());
    assert_eq!(user.agents().await.len(), 1);
}

#[tokio::test]
async fn twenty_at_once_on_a_single_use_token_give_one_agent() {
    let server = Server::start(&[]).await;
    let mut user = server.user().await;
    for (max_uses, expected) in [(1, 1), (3, 3), (0, 16)] {
        let before = user.agents().await.len();
        let (record, token) = user.token(CreateJoinTokenRequest { max_uses, ..Default::default() }).await;
        // The gate lets 16 at a time in; with the others it would refuse some for another reason.
        let names: Vec<String> = (0..16).map(|n| format!("agent-{max_uses}-{n}")).collect();
        let all = futures::future::join_all(names.iter().map(|name| enroll(&server, &token, name, &[]))).await;
        assert_eq!(all.iter().filter(|answer| answer.is_ok()).count(), expected, "{max_uses}");
        assert_eq!(user.agents().await.len() - before, expected);
        assert_eq!(uses(&mut user, &record.token_id).await as usize, expected);
    }
}

async fn uses(user: &mut User, token_id: &str) -> u32 {
    let tokens = user.fleet.list_join_tokens(ListJoinTokensRequest::default()).await.unwrap().into_inner().join_tokens;
    tokens.into_iter().find(|token| token.token_id == token_id).unwrap().uses
}

#[tokio::test]
async fn revocation_ends_a_waiting_poll() {
    let (server, mut user, agent) = scene(&[]).await;
    let mut client = agent.client(&server).await;
    let events = vec![AgentEvent { event: Some(agent_event::Event::Hello(agent.hello("i", Vec::new()))) }];
    let poll = tokio::spawn(async move { client.poll(PollRequest { events, wait: seconds(60) }).await });
    user.until_agent("a1", AgentState::Online).await;
    let request = RevokeAgentRequest { agent: "a1".into(), reason: "stolen".into() };
    user.fleet.revoke_agent(request).await.unwrap();
    let answer = within(poll).await.unwrap().unwrap().into_inner();
    let last = answer.events.last().and_then(|event| event.event.clone());
    let Some(server_event::Event::Goodbye(goodbye)) = last else { panic!("{answer:?}") };
    assert_eq!(goodbye.reason(), GoodbyeReason::Revoked);
    refused_everywhere(&server, &agent, Code::PermissionDenied).await;
}

#[tokio::test]
async fn an_agent_gets_nothing_of_another_agents_task() {
    let (server, mut user, agent) = scene(&[]).await;
    let (_, token) = user.token(CreateJoinTokenRequest::default()).await;
    let thief = enroll(&server, &token, "thief", &[]).await.unwrap();
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    let task = user.submit(command()).await;
    let assignment = link.assignment().await;
    let reference = assignment.task.clone().unwrap();
    link.started(&reference).await;
    link.output(&reference, 0, &b"ours"[..]).await;
    link.acked(&reference, 4).await;

    // It says that it holds the task, sends output, ends it, and renews its lease.
    let held = vec![held(&reference, HeldState::Running)];
    let (mut stolen, welcome) = thief.connect(&server, "i1", held, 1).await;
    assert_eq!(welcome.resume.len(), 1);
    assert_ne!(welcome.resume[0].decision(), ResumeDecision::Continue, "{welcome:?}");
    assert_eq!(welcome.resume[0].output_acked, 0);
    stolen.output(&reference, 4, &b"forged"[..]).await;
    let forged = TaskEnd { task: Some(reference.clone()), result: Some(succeeded(10)) };
    stolen.send(agent_event::Event::End(forged)).await;
    stolen.send(agent_event::Event::Started(Started { task: Some(reference.clone()) })).await;
    stolen.heartbeat(1, vec![reference.clone()]).await;
    let seen = user.task(&task.task_id).await;
    assert_eq!((seen.state(), seen.agent_id.as_str(), seen.output_bytes), (TaskState::Running, agent.id.as_str(), 4));
    // The credential is sealed to the one agent, for the one task.
    let secret = assignment.secret.clone().unwrap();
    let identity = assignment.identity.clone().unwrap();
    for (key, agent_id) in
        [(&thief.sealing_key, &thief.id), (&thief.sealing_key, &agent.id), (&agent.sealing_key, &thief.id)]
    {
        let binding = lictor_proto::sealing::Binding {
            agent_id,
            task_id: &reference.task_id,
            epoch: reference.epoch,
            credential: &identity.name,
            credential_version: identity.version,
        };
        assert!(key.open(&secret, &binding).is_err());
    }
    link.end(&reference, succeeded(4)).await;
    user.until(&task.task_id, TaskState::Succeeded).await;
}

#[tokio::test]
async fn a_revoked_agent_is_sent_away_and_stays_away() {
    let (server, mut user, agent) = scene(&[]).await;
    let (_, old_token) = user.token(CreateJoinTokenRequest::default()).await;
    let (mut link, _) = agent.connect(&server, "i1", Vec::new(), 1).await;
    let request = RevokeAgentRequest { agent: "a1".into(), reason: "stolen".into() };
    let revoked = user.fleet.revoke_agent(request).await.unwrap().into_inner().agent.unwrap();
    assert_eq!(revoked.state(), AgentState::Revoked);
    assert_eq!(link.goodbye().await.reason(), GoodbyeReason::Revoked);

    refused_everywhere(&server, &agent, Code::PermissionDenied).await;
    // A token that is older than the revocation does not undo it; a newer one is a decision.
    let Err(status) = enroll(&server, &old_token, "a1", &[]).await else { panic!("the revocation was undone") };
    assert_eq!(status.code(), Code::PermissionDenied);
    let (_, new_token) = user.token(CreateJoinTokenRequest::default()).await;
    enroll(&server, &new_token, "a1", &[]).await.unwrap();
    // What was revoked stays so, whoever goes by the name now.
    refused_everywhere(&server, &agent, Code::PermissionDenied).await;
}

/// Every call of the agent is refused, each with the same code.
async fn refused_everywhere(server: &Server, agent: &AgentPeer, code: Code) {
    let mut client = agent.client(server).await;
    let events = || vec![AgentEvent { event: Some(agent_event::Event::Hello(agent.hello("i", Vec::new()))) }];
    let poll = client.poll(PollRequest { events: events(), wait: seconds(0) }).await.unwrap_err();
    let report = client.report(ReportRequest { events: events() }).await.unwrap_err();
    let (csr_der, _) = csr();
    let renewal = RenewIdentityRequest { csr_der, sealing_key: vec![9; 32] };
    let renewal = client.renew_identity(renewal).await.unwrap_err();
    let Err(session) = agent.open(server, vec![agent_event::Event::Hello(agent.hello("i", Vec::new()))]).await else {
        panic!("a session was opened")
    };
    for status in [poll, report, renewal, session] {
        assert_eq!(status.code(), code, "{status}");
    }
}

#[tokio::test]
async fn a_token_gives_scope_and_tags() {
    let server = Server::start(&[]).await;
    let mut user = server.user().await;
    let request = CreateJoinTokenRequest {
        scope: "platform/production".into(),
        tags: vec!["dc1".into()],
        ..CreateJoinTokenRequest::default()
    };
    let (_, token) = user.token(request).await;
    enroll(&server, &token, "a1", &["own"]).await.unwrap();
    let agent = user.agents().await.remove(0);
    assert_eq!((agent.scope.as_str(), agent.tags), ("platform/production", vec!["dc1".to_owned(), "own".to_owned()]));
    assert_eq!(AgentState::try_from(agent.state), Ok(AgentState::Offline));
}

#[tokio::test]
async fn an_agent_gets_the_narrower_scope_that_it_asks_for() {
    let server = Server::start(&[]).await;
    let mut user = server.user().await;
    let (_, token) =
        user.token(CreateJoinTokenRequest { scope: "team".into(), max_uses: 0, ..Default::default() }).await;
    for (name, asked, granted) in [("own", "", "team"), ("below", "team/web", "team/web"), ("same", "team", "team")] {
        let answer = ask(&server, &token, name, asked).await.unwrap();
        assert_eq!(answer.scope, granted);
    }
    for asked in ["teams", "other/web", "t"] {
        let status = ask(&server, &token, "beyond", asked).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        assert!(status.message().contains("--scope"), "no remedy in {status}");
    }
    let status = ask(&server, &token, "nonsense", "team//web").await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let mut agents = user.agents().await;
    agents.sort_by(|one, other| one.name.cmp(&other.name));
    let scopes: Vec<_> = agents.iter().map(|agent| (agent.name.as_str(), agent.scope.as_str())).collect();
    assert_eq!(scopes, [("below", "team/web"), ("own", "team"), ("same", "team")]);
}

async fn ask(server: &Server, token: &str, name: &str, scope: &str) -> Result<EnrollResponse, tonic::Status> {
    let request = EnrollRequest {
        join_token: token.into(),
        csr_der: csr().0,
        sealing_key: SealingKey::generate().public_bytes().to_vec(),
        name: name.into(),
        scope: scope.into(),
        ..EnrollRequest::default()
    };
    let channel = server.channel(None).await.unwrap();
    AgentServiceClient::new(channel).enroll(request).await.map(tonic::Response::into_inner)
}
