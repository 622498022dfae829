//! Storing secrets in a small control plane in the same process, which keeps what it was sent.

use std::sync::{Arc, Mutex};

use lictor_proto::sealing::SealingKey;
use lictor_proto::v1::secret_service_server::{SecretService, SecretServiceServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response};

use super::*;
use crate::args::Variable;

/// What it answers, and what it was sent.
#[derive(Default)]
struct Fake {
    stored: Option<v1::Secret>,
    prepared: Option<Result<v1::PrepareSecretResponse, Status>>,
    refused: Option<Status>,
    requests: Vec<v1::PutSecretRequest>,
    asked: Vec<v1::PrepareSecretRequest>,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Fake>>);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl SecretService for Shared {
    async fn put_secret(&self, request: Request<v1::PutSecretRequest>) -> Answer<v1::PutSecretResponse> {
        let request = request.into_inner();
        let secret = request.secret.clone().map(|secret| v1::Secret { version: 4, ..secret });
        let mut fake = self.0.lock().unwrap();
        fake.requests.push(request);
        if let Some(status) = fake.refused.clone() {
            return Err(status);
        }
        Ok(Response::new(v1::PutSecretResponse { secret }))
    }
    async fn prepare_secret(&self, request: Request<v1::PrepareSecretRequest>) -> Answer<v1::PrepareSecretResponse> {
        let mut fake = self.0.lock().unwrap();
        fake.asked.push(request.into_inner());
        fake.prepared.clone().unwrap_or_else(|| Ok(v1::PrepareSecretResponse::default())).map(Response::new)
    }
    async fn get_secret(&self, _: Request<v1::GetSecretRequest>) -> Answer<v1::GetSecretResponse> {
        match self.0.lock().unwrap().stored.clone() {
            Some(secret) => {
                Ok(Response::new(v1::GetSecretResponse { secret: Some(secret), ..v1::GetSecretResponse::default() }))
            }
            None => Err(Status::not_found("no such secret")),
        }
    }
    async fn list_secrets(&self, _: Request<v1::ListSecretsRequest>) -> Answer<v1::ListSecretsResponse> {
        Err(Status::unimplemented(""))
    }
    async fn delete_secret(&self, _: Request<v1::DeleteSecretRequest>) -> Answer<v1::DeleteSecretResponse> {
        Err(Status::unimplemented(""))
    }
    async fn put_secret_manager(
        &self,
        _: Request<v1::PutSecretManagerRequest>,
    ) -> Answer<v1::PutSecretManagerResponse> {
        Err(Status::unimplemented(""))
    }
    async fn get_secret_manager(
        &self,
        _: Request<v1::GetSecretManagerRequest>,
    ) -> Answer<v1::GetSecretManagerResponse> {
        Err(Status::unimplemented(""))
    }
    async fn list_secret_managers(
        &self,
        _: Request<v1::ListSecretManagersRequest>,
    ) -> Answer<v1::ListSecretManagersResponse> {
        Err(Status::unimplemented(""))
    }
    async fn delete_secret_manager(
        &self,
        _: Request<v1::DeleteSecretManagerRequest>,
    ) -> Answer<v1::DeleteSecretManagerResponse> {
        Err(Status::unimplemented(""))
    }
    async fn test_secret_manager(
        &self,
        _: Request<v1::TestSecretManagerRequest>,
    ) -> Answer<v1::TestSecretManagerResponse> {
        Err(Status::unimplemented(""))
    }
}

async fn put(fake: Fake, put: PutSecretArgs, value: Option<Given>) -> (Result<Stored, Failure>, Fake) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shared = Shared(Arc::new(Mutex::new(fake)));
    tokio::spawn(
        Server::builder()
            .add_service(SecretServiceServer::new(shared.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let control_plane = ControlPlane::over(Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy());
    let stored = store(&control_plane, put, value).await;
    let fake = std::mem::take(&mut *shared.0.lock().unwrap());
    (stored, fake)
}

fn args() -> PutSecretArgs {
    PutSecretArgs {
        identifier: "web".into(),
        value_file: None,
        keep_value: false,
        source: None,
        kind: None,
        manager: None,
        name: None,
        description: None,
        tags: Vec::new(),
        no_tags: false,
        scope: String::new(),
    }
}

fn from_file(text: &str) -> Option<Given> {
    Some(Given { bytes: Zeroizing::new(text.into()), from_file: true })
}

fn before() -> v1::Secret {
    v1::Secret {
        identifier: "web".into(),
        name: "Web".into(),
        description: "of the front end".into(),
        tags: [("team".to_owned(), "web".to_owned())].into(),
        kind: v1::SecretKind::File.into(),
        manager: "corp".into(),
        ..v1::Secret::default()
    }
}

fn to_agent(key: &SealingKey) -> v1::PrepareSecretResponse {
    v1::PrepareSecretResponse {
        must_seal: true,
        seal_id: "s1".into(),
        agent_id: "a1".into(),
        agent_name: "edge".into(),
        sealing_key: key.public_bytes().to_vec(),
        version: 4,
    }
}

#[tokio::test]
async fn a_new_secret_goes_to_the_built_in_store_without_its_line_end() {
    let (stored, fake) = put(Fake::default(), args(), from_file("pässword\r\n")).await;
    assert_eq!(stored.unwrap().secret.state_line(), "secret web: version 4, kept by built-in\n");
    assert_eq!(fake.asked[0].manager, "built-in");
    let request = &fake.requests[0];
    assert_eq!((request.value.as_deref(), &request.sealed), (Some("pässword".as_bytes()), &None));
    let secret = request.secret.as_ref().unwrap();
    assert_eq!((secret.kind(), secret.manager.as_str()), (v1::SecretKind::Text, "built-in"));
}

#[tokio::test]
async fn what_must_be_sealed_never_leaves_in_clear() {
    let key = SealingKey::generate();
    let fake = Fake { stored: Some(before()), prepared: Some(Ok(to_agent(&key))), ..Fake::default() };
    let (stored, fake) = put(fake, args(), from_file("keytab bytes\n")).await;
    let by = SealedBy { agent_id: "a1".into(), agent_name: "edge".into() };
    assert_eq!(stored.unwrap().sealed_by, Some(by));
    let request = &fake.requests[0];
    assert_eq!(request.value, None);
    let sealed = request.sealed.as_ref().unwrap();
    let binding = Binding { agent_id: "a1", task_id: "s1", epoch: 0, credential: "web", credential_version: 4 };
    let opened = key.open(sealed.value.as_ref().unwrap(), &binding).unwrap();
    // The stored kind is a file, so that nothing is cut off.
    assert_eq!((opened.as_slice(), sealed.seal_id.as_str()), (&b"keytab bytes\n"[..], "s1"));
}

#[tokio::test]
async fn an_agent_that_cannot_be_sealed_to_gets_nothing() {
    let good = to_agent(&SealingKey::generate());
    for broken in [
        v1::PrepareSecretResponse { sealing_key: vec![0; 31], ..good.clone() },
        // A point of small order, with which everybody knows the shared secret.
        v1::PrepareSecretResponse { sealing_key: vec![0; 32], ..good.clone() },
        v1::PrepareSecretResponse { seal_id: String::new(), ..good.clone() },
        v1::PrepareSecretResponse { version: 0, ..good },
    ] {
        let fake = Fake { stored: Some(before()), prepared: Some(Ok(broken)), ..Fake::default() };
        let (stored, fake) = put(fake, args(), from_file("x")).await;
        assert_eq!(&*stored.unwrap_err().code, "control_plane.broken_answer");
        assert!(fake.requests.is_empty());
    }
}

#[tokio::test]
async fn without_an_agent_each_is_told_with_its_reason() {
    let status = Status::unavailable("no agent can seal it:\nedge: missing_tag: it has no tag aws");
    let fake = Fake { stored: Some(before()), prepared: Some(Err(status)), ..Fake::default() };
    let (stored, fake) = put(fake, args(), from_file("x")).await;
    let failure = stored.unwrap_err();
    assert_eq!((failure.exit, &*failure.code), (Exit::REJECTED, "control_plane.no_agent"));
    assert!(failure.to_text().contains("\n          edge: missing_tag"), "{}", failure.to_text());
    assert!(fake.requests.is_empty());
    // Nobody there is something else.
    let control_plane = ControlPlane::over(Endpoint::from_static("http://127.0.0.1:1").connect_lazy());
    let failure = store(&control_plane, args(), from_file("x")).await.unwrap_err();
    assert_eq!(failure.exit, Exit::SERVER_UNREACHABLE);
}

#[tokio::test]
async fn what_became_of_a_sealed_value_is_told() {
    let key = SealingKey::generate();
    for (refused, exit, words) in [
        (Status::unavailable("the agent is gone"), Exit::REJECTED, "lictor agent list"),
        (Status::deadline_exceeded("not yet"), Exit::SERVER_UNREACHABLE, "lictor secret show web"),
        (Status::failed_precondition("kms.access_denied: not allowed"), Exit::SERVER_REFUSED, "kms.access_denied"),
    ] {
        let prepared = Some(Ok(to_agent(&key)));
        let fake = Fake { stored: Some(before()), prepared, refused: Some(refused), ..Fake::default() };
        let (stored, fake) = put(fake, args(), from_file("x")).await;
        let failure = stored.unwrap_err();
        assert!(failure.exit == exit && failure.to_text().contains(words), "{failure:?}");
        assert_eq!(fake.requests.len(), 1, "it is not sent again");
    }
}

#[tokio::test]
async fn what_is_not_given_stays_as_it_is_stored() {
    let keep = PutSecretArgs { keep_value: true, description: Some(String::new()), ..args() };
    let (stored, fake) = put(Fake { stored: Some(before()), ..Fake::default() }, keep, None).await;
    stored.unwrap();
    assert!(fake.asked.is_empty(), "there is nothing to seal");
    let request = &fake.requests[0];
    assert_eq!((&request.value, &request.sealed), (&None, &None));
    let secret = request.secret.as_ref().unwrap();
    assert_eq!(secret, &v1::Secret { description: String::new(), ..before() });
    let tag = Variable { name: "a".into(), value: "b".into() };
    for (tags, no_tags, expected) in [(vec![tag], false, 1), (vec![], true, 0)] {
        let secret = described(PutSecretArgs { tags, no_tags, ..args() }, Some(before()), true).unwrap();
        assert_eq!((secret.tags.len(), secret.tags.contains_key("team")), (expected, false));
    }
    let (stored, fake) = put(Fake::default(), PutSecretArgs { keep_value: true, ..args() }, None).await;
    assert_eq!(stored.unwrap_err().exit, Exit::USAGE);
    assert!(fake.requests.is_empty());
}

#[test]
fn a_source_is_for_the_agents() {
    let on_agents = PutSecretArgs { source: Some("env:WEB".into()), ..args() };
    let secret = described(on_agents, Some(before()), false).unwrap();
    assert_eq!((secret.manager.as_str(), secret.source.as_str()), ("agent", "env:WEB"));
    let elsewhere = PutSecretArgs { source: Some("env:WEB".into()), manager: Some("corp".into()), ..args() };
    assert!(described(elsewhere, None, false).is_err());
    assert!(described(PutSecretArgs { manager: Some("agent".into()), ..args() }, None, true).is_err());
    // A value for what is on the agents has no place; other changes say nothing of it, which keeps it.
    assert!(described(args(), Some(secret.clone()), true).is_err());
    let kept = described(PutSecretArgs { keep_value: true, ..args() }, Some(secret.clone()), false).unwrap();
    assert_eq!((kept.manager.as_str(), kept.source.as_str()), ("agent", ""));
    let moved = described(PutSecretArgs { manager: Some("built-in".into()), ..args() }, Some(secret), true).unwrap();
    assert_eq!((moved.manager.as_str(), moved.source.as_str()), ("built-in", ""));
}

#[test]
fn values_have_the_form_of_their_kind() {
    let check = |bytes: &[u8], from_file, kind| {
        checked(Given { bytes: Zeroizing::new(bytes.to_vec()), from_file }, kind).map(|value| value.to_vec())
    };
    let (text, file) = (v1::SecretKind::Text, v1::SecretKind::File);
    assert_eq!(check(b"a\n\n", true, text).unwrap(), b"a\n");
    assert_eq!(check(b"a\n", false, text).unwrap(), b"a\n");
    assert_eq!(check(b"\xff\0\n", true, file).unwrap(), b"\xff\0\n");
    assert_eq!(check(&vec![b'x'; MAX_TEXT_BYTES + 1], true, file).unwrap().len(), MAX_TEXT_BYTES + 1);
    for (bytes, kind) in [
        (&b""[..], text),
        (b"\n", text),
        (b"", file),
        (b"Mark\xff", text),
        (b"Mark\0", text),
        (&vec![b'x'; MAX_TEXT_BYTES + 1], text),
        (&vec![b'x'; MAX_FILE_BYTES + 1], file),
    ] {
        let failure = check(bytes, true, kind).unwrap_err();
        assert!(failure.exit == Exit::USAGE && !failure.to_text().contains("Mark"), "{failure:?}");
    }
}
