//! A server on a state directory, a user, and an agent that does exactly what a test tells it to.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lictor_control_plane::{Config, ControlPlane};
use lictor_proto::sealing::SealingKey;
use lictor_proto::v1::access_service_client::AccessServiceClient;
use lictor_proto::v1::agent_service_client::AgentServiceClient;
use lictor_proto::v1::batch_service_client::BatchServiceClient;
use lictor_proto::v1::credential_service_client::CredentialServiceClient;
use lictor_proto::v1::fleet_service_client::FleetServiceClient;
use lictor_proto::v1::secret_service_client::SecretServiceClient;
use lictor_proto::v1::task_service_client::TaskServiceClient;
use lictor_proto::v1::*;
use lictor_proto::version::Contract;
use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic::{Request, Status, Streaming};

/// Longer than anything that goes well, shorter than patience.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const PASSWORD: &str = "Tr0ub4dor&3-marker";

/// A running control plane.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) http_address: SocketAddr,
    state_dir: PathBuf,
    settings: Vec<(String, String)>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
    _dir: Option<tempfile::TempDir>,
}

impl Server {
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("state");
        let settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Self::start_in(state_dir, settings, Some(dir)).await
    }

    async fn start_in(state_dir: PathBuf, settings: Vec<(String, String)>, dir: Option<tempfile::TempDir>) -> Self {
        let mut environment: BTreeMap<String, String> = [
            ("LISTEN", "127.0.0.1:0"),
            ("HTTP_LISTEN", "127.0.0.1:0"),
            ("RESTART_GRACE", "0s"),
            ("STATE_DIR", state_dir.to_str().unwrap()),
        ]
        .map(|(key, value)| (format!("LICTOR_CONTROL_PLANE_{key}"), value.to_owned()))
        .into();
        environment.extend(settings.iter().map(|(k, v)| (format!("LICTOR_CONTROL_PLANE_{k}"), v.clone())));
        let config = Config::load(None, &environment).unwrap();
        let control_plane = ControlPlane::start(&config).await.unwrap();
        let (address, http_address) = (control_plane.address(), control_plane.http_address());
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(async move {
            control_plane.run(async { drop(stopped.await) }).await.unwrap();
        });
        Self { address, http_address, state_dir, settings, stop: Some(stop), running, _dir: dir }
    }

    /// Stops gracefully and starts again on the same state.
    pub(crate) async fn restart(self) -> Self {
        self.halt().await.start_again().await
    }

    /// Stops gracefully; the state stays.
    pub(crate) async fn halt(mut self) -> Stopped {
        self.stop.take().unwrap().send(()).unwrap();
        timeout(DEADLINE, &mut self.running).await.unwrap().unwrap();
        Stopped { state_dir: self.state_dir, settings: self.settings, dir: self._dir }
    }

    /// Cuts it off without any farewell and starts again on a copy of the files as they are at this moment, which is
    /// what a killed process leaves behind.
    pub(crate) async fn crash_and_restart(self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("state");
        std::fs::create_dir(&state_dir).unwrap();
        for entry in std::fs::read_dir(&self.state_dir).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, state_dir.join(path.file_name().unwrap())).unwrap();
        }
        let settings = self.settings.clone();
        self.running.abort();
        Self::start_in(state_dir, settings, Some(dir)).await
    }

    pub(crate) async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        timeout(DEADLINE, self.running).await.unwrap().unwrap();
    }

    /// Stops gracefully; the state lives as long as what is returned.
    pub(crate) async fn stop_and_keep(mut self) -> Option<tempfile::TempDir> {
        self.stop.take().unwrap().send(()).unwrap();
        timeout(DEADLINE, self.running).await.unwrap().unwrap();
        self._dir
    }

    pub(crate) fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    pub(crate) fn ca_pem(&self) -> String {
        std::fs::read_to_string(self.state_dir.join("ca.pem")).unwrap()
    }

    pub(crate) async fn channel(&self, identity: Option<Identity>) -> Result<Channel, tonic::transport::Error> {
        let mut tls =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.ca_pem())).domain_name("localhost");
        if let Some(identity) = identity {
            tls = tls.identity(identity);
        }
        let uri = format!("https://{}", self.address);
        Channel::from_shared(uri).unwrap().tls_config(tls)?.connect_timeout(DEADLINE).connect().await
    }

    pub(crate) async fn user(&self) -> User {
        let token = std::fs::read_to_string(self.state_dir.join("admin-token")).unwrap();
        self.user_with(&token).await
    }

    pub(crate) async fn user_with(&self, token: &str) -> User {
        let channel = self.channel(None).await.unwrap();
        let bearer = Bearer(format!("Bearer {token}").parse().unwrap());
        User {
            tasks: TaskServiceClient::with_interceptor(channel.clone(), bearer.clone()),
            batches: BatchServiceClient::with_interceptor(channel.clone(), bearer.clone())
                .max_decoding_message_size(lictor_proto::MAX_MESSAGE_BYTES),
            fleet: FleetServiceClient::with_interceptor(channel.clone(), bearer.clone()),
            credentials: CredentialServiceClient::with_interceptor(channel.clone(), bearer.clone()),
            secrets: SecretServiceClient::with_interceptor(channel.clone(), bearer.clone()),
            access: AccessServiceClient::with_interceptor(channel, bearer),
        }
    }
}

/// What a stopped control plane leaves behind.
pub(crate) struct Stopped {
    state_dir: PathBuf,
    settings: Vec<(String, String)>,
    dir: Option<tempfile::TempDir>,
}

impl Stopped {
    pub(crate) fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    pub(crate) async fn start_again(self) -> Server {
        Server::start_in(self.state_dir, self.settings, self.dir).await
    }
}

#[derive(Clone)]
pub(crate) struct Bearer(MetadataValue<tonic::metadata::Ascii>);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Authorized = InterceptedService<Channel, Bearer>;

/// A user of the services.
pub(crate) struct User {
    pub(crate) tasks: TaskServiceClient<Authorized>,
    pub(crate) batches: BatchServiceClient<Authorized>,
    pub(crate) fleet: FleetServiceClient<Authorized>,
    pub(crate) credentials: CredentialServiceClient<Authorized>,
    pub(crate) secrets: SecretServiceClient<Authorized>,
    pub(crate) access: AccessServiceClient<Authorized>,
}

impl User {
    pub(crate) async fn token(&mut self, request: CreateJoinTokenRequest) -> (JoinToken, String) {
        let answer = self.fleet.create_join_token(request).await.unwrap().into_inner();
        (answer.join_token.unwrap(), answer.token)
    }

    /// A token for a user: its record and its text.
    pub(crate) async fn issue(
        &mut self,
        user: &str,
        lifetime: Option<prost_types::Duration>,
    ) -> Result<(UserToken, String), Status> {
        let request = IssueUserTokenRequest { user: user.into(), lifetime, description: String::new() };
        let answer = self.access.issue_user_token(request).await?.into_inner();
        Ok((answer.user_token.unwrap(), answer.token))
    }

    /// The whole audit log.
    pub(crate) async fn audit(&mut self) -> Vec<String> {
        let mut stream = self.access.export_audit(ExportAuditRequest::default()).await.unwrap().into_inner();
        let mut entries = Vec::new();
        while let Some(answer) = within(stream.message()).await.unwrap() {
            entries.extend(answer.entries);
        }
        entries
    }

    pub(crate) async fn put_credential(&mut self, name: &str) -> Credential {
        let credential =
            Credential { name: name.into(), username: "alice".into(), domain: "CORP".into(), ..Credential::default() };
        self.put(credential, Some(PASSWORD)).await.unwrap()
    }

    pub(crate) async fn put(&mut self, credential: Credential, password: Option<&str>) -> Result<Credential, Status> {
        let request = PutCredentialRequest {
            credential: Some(credential),
            password: password.map(str::to_owned),
            keytab: Vec::new(),
        };
        Ok(self.credentials.put_credential(request).await?.into_inner().credential.unwrap())
    }

    pub(crate) async fn put_keytab(&mut self, credential: Credential, keytab: &[u8]) -> Result<Credential, Status> {
        let request = PutCredentialRequest { credential: Some(credential), password: None, keytab: keytab.to_vec() };
        Ok(self.credentials.put_credential(request).await?.into_inner().credential.unwrap())
    }

    pub(crate) async fn put_secret(&mut self, secret: Secret, value: Option<&[u8]>) -> Result<Secret, Status> {
        let request = PutSecretRequest { secret: Some(secret), value: value.map(<[u8]>::to_vec), sealed: None };
        Ok(self.secrets.put_secret(request).await?.into_inner().secret.unwrap())
    }

    pub(crate) async fn secret(&mut self, identifier: &str) -> Result<GetSecretResponse, Status> {
        let request = GetSecretRequest { identifier: identifier.into() };
        Ok(self.secrets.get_secret(request).await?.into_inner())
    }

    pub(crate) async fn put_manager(&mut self, manager: SecretManager) -> Result<SecretManager, Status> {
        let request = PutSecretManagerRequest { manager: Some(manager) };
        Ok(self.secrets.put_secret_manager(request).await?.into_inner().manager.unwrap())
    }

    pub(crate) async fn submit(&mut self, spec: TaskSpec) -> Task {
        let request = SubmitTaskRequest { spec: Some(spec), idempotency_key: String::new() };
        self.tasks.submit_task(request).await.unwrap().into_inner().task.unwrap()
    }

    pub(crate) async fn task(&mut self, task_id: &str) -> Task {
        let request = GetTaskRequest { task_id: task_id.into() };
        self.tasks.get_task(request).await.unwrap().into_inner().task.unwrap()
    }

    pub(crate) async fn until(&mut self, task_id: &str, state: TaskState) -> Task {
        let mut last = self.task(task_id).await;
        let reached = timeout(DEADLINE, async {
            while last.state() != state {
                sleep(Duration::from_millis(20)).await;
                last = self.task(task_id).await;
            }
        });
        assert!(reached.await.is_ok(), "the task never became {state:?}: {last:?}");
        self.task(task_id).await
    }

    pub(crate) async fn cancel(&mut self, task_id: &str) -> Task {
        let request = CancelTaskRequest { task_id: task_id.into(), reason: "enough".into() };
        self.tasks.cancel_task(request).await.unwrap().into_inner().task.unwrap()
    }

    pub(crate) async fn watch(&mut self, task_id: &str, from_offset: u64) -> Streaming<WatchTaskResponse> {
        let request = WatchTaskRequest { task_id: task_id.into(), from_offset };
        self.tasks.watch_task(request).await.unwrap().into_inner()
    }

    pub(crate) async fn agents(&mut self) -> Vec<Agent> {
        self.fleet.list_agents(ListAgentsRequest::default()).await.unwrap().into_inner().agents
    }

    /// Waits until the agent shows the state.
    pub(crate) async fn until_agent(&mut self, name: &str, state: AgentState) -> Agent {
        within(async {
            loop {
                if let Some(agent) = self.agents().await.into_iter().find(|a| a.name == name && a.state() == state) {
                    return agent;
                }
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("nothing happened in time")
}

/// An enrolled agent.
pub(crate) struct AgentPeer {
    pub(crate) id: String,
    pub(crate) sealing_key: SealingKey,
    pub(crate) identity: Identity,
    pub(crate) tags: Vec<String>,
}

pub(crate) fn csr() -> (Vec<u8>, String) {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    (request.der().to_vec(), key.serialize_pem())
}

pub(crate) async fn enroll(server: &Server, token: &str, name: &str, tags: &[&str]) -> Result<AgentPeer, Status> {
    let (csr_der, key_pem) = csr();
    enroll_as(server, token, name, tags, csr_der, &key_pem).await
}

/// Enrols with a key of the test's choice.
pub(crate) async fn enroll_with(
    server: &Server,
    token: &str,
    name: &str,
    csr_der: Vec<u8>,
    key_pem: &str,
) -> Result<AgentPeer, Status> {
    enroll_as(server, token, name, &[], csr_der, key_pem).await
}

async fn enroll_as(
    server: &Server,
    token: &str,
    name: &str,
    tags: &[&str],
    csr_der: Vec<u8>,
    key_pem: &str,
) -> Result<AgentPeer, Status> {
    let sealing_key = SealingKey::generate();
    let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
    let request = EnrollRequest {
        join_token: token.into(),
        csr_der,
        sealing_key: sealing_key.public_bytes().to_vec(),
        name: name.into(),
        tags: tags.clone(),
        version: "0.1.0".into(),
        ..EnrollRequest::default()
    };
    let channel = server.channel(None).await.unwrap();
    let answer = AgentServiceClient::new(channel).enroll(request).await?.into_inner();
    let identity = Identity::from_pem(answer.certificate_pem, key_pem);
    Ok(AgentPeer { id: answer.agent_id, sealing_key, identity, tags })
}

/// A server with a credential `web` and an enrolled agent `a1`.
pub(crate) async fn scene(settings: &[(&str, &str)]) -> (Server, User, AgentPeer) {
    let server = Server::start(settings).await;
    let mut user = server.user().await;
    user.put_credential("web").await;
    let (_, token) = user.token(CreateJoinTokenRequest::default()).await;
    let agent = enroll(&server, &token, "a1", &[]).await.unwrap();
    (server, user, agent)
}

impl AgentPeer {
    pub(crate) async fn client(&self, server: &Server) -> AgentServiceClient<Channel> {
        let channel = server.channel(Some(self.identity.clone())).await.unwrap();
        AgentServiceClient::new(channel).max_encoding_message_size(lictor_proto::MAX_MESSAGE_BYTES)
    }

    pub(crate) fn hello(&self, instance: &str, held: Vec<HeldTask>) -> Hello {
        Hello {
            protocol: 1,
            version: "0.1.0".into(),
            instance_id: instance.into(),
            tags: self.tags.clone(),
            slots: 4,
            capabilities: ["connection_test", "command", "script"].map(String::from).into(),
            held,
            draining: false,
            degraded: Vec::new(),
            kerberos_principals: Vec::new(),
            contract: Contract::OURS.to_string(),
        }
    }

    /// Like [`AgentPeer::connect`], for an agent that can do Kerberos and whose keytabs hold keys of `principals`.
    pub(crate) async fn connect_with_keytabs(&self, server: &Server, principals: &[&str]) -> Link {
        let mut hello = self.hello("i1", Vec::new());
        hello.capabilities.push("kerberos".into());
        hello.kerberos_principals = principals.iter().map(|&principal| principal.to_owned()).collect();
        self.connect_saying(server, hello).await
    }

    /// Like [`AgentPeer::connect`], with a Hello of the test's own.
    pub(crate) async fn connect_saying(&self, server: &Server, hello: Hello) -> Link {
        let mut link = self.open(server, vec![agent_event::Event::Hello(hello)]).await.unwrap();
        let Some(server_event::Event::Welcome(_)) = link.next().await else { panic!("no Welcome") };
        link.send(agent_event::Event::Credit(Credit { total: 4 })).await;
        link
    }

    /// Opens a session, takes the Welcome and grants credit.
    pub(crate) async fn connect(
        &self,
        server: &Server,
        instance: &str,
        held: Vec<HeldTask>,
        credit: u64,
    ) -> (Link, Welcome) {
        let mut link = self.open(server, vec![agent_event::Event::Hello(self.hello(instance, held))]).await.unwrap();
        let Some(server_event::Event::Welcome(welcome)) = link.next().await else { panic!("no Welcome") };
        link.send(agent_event::Event::Credit(Credit { total: credit })).await;
        (link, welcome)
    }

    pub(crate) async fn open(&self, server: &Server, events: Vec<agent_event::Event>) -> Result<Link, Status> {
        // Room for everything a test sends ahead.
        let (sender, receiver) = mpsc::channel(64);
        let events = events.into_iter().map(|event| AgentEvent { event: Some(event) }).collect();
        sender.send(SessionRequest { events }).await.unwrap();
        let stream = self.client(server).await.session(ReceiverStream::new(receiver)).await?.into_inner();
        Ok(Link { sender, stream, ready: Vec::new() })
    }
}

/// An open session of an agent.
pub(crate) struct Link {
    sender: mpsc::Sender<SessionRequest>,
    stream: Streaming<SessionResponse>,
    ready: Vec<server_event::Event>,
}

impl Link {
    pub(crate) async fn send(&self, event: agent_event::Event) {
        let events = vec![AgentEvent { event: Some(event) }];
        self.sender.send(SessionRequest { events }).await.unwrap();
    }

    /// An event that only later versions know: to this one it has no content.
    pub(crate) async fn send_something_new(&self) {
        self.sender.send(SessionRequest { events: vec![AgentEvent { event: None }] }).await.unwrap();
    }

    /// The next event; nothing at the end of the session.
    pub(crate) async fn next(&mut self) -> Option<server_event::Event> {
        while self.ready.is_empty() {
            let message = timeout(DEADLINE, self.stream.message()).await.expect("no event came in time");
            let events = message.ok()??.events;
            self.ready.extend(events.into_iter().filter_map(|event| event.event));
        }
        Some(self.ready.remove(0))
    }

    /// The next event that the test cares about; others are passed over.
    pub(crate) async fn find<T>(&mut self, pick: impl Fn(server_event::Event) -> Option<T>) -> T {
        loop {
            let event = self.next().await.expect("the session ended");
            if let Some(found) = pick(event) {
                return found;
            }
        }
    }

    pub(crate) async fn assignment(&mut self) -> Assignment {
        self.find(|event| match event {
            server_event::Event::Assignment(assignment) => Some(assignment),
            _ => None,
        })
        .await
    }

    pub(crate) async fn goodbye(&mut self) -> Goodbye {
        let goodbye = self
            .find(|event| match event {
                server_event::Event::Goodbye(goodbye) => Some(goodbye),
                _ => None,
            })
            .await;
        assert!(self.next().await.is_none(), "the session goes on after Goodbye");
        goodbye
    }

    pub(crate) async fn heartbeat(&mut self, sequence: u64, held: Vec<TaskRef>) -> HeartbeatAck {
        self.send(agent_event::Event::Heartbeat(Heartbeat { sequence, held, slots_used: 1, resident_bytes: 7 })).await;
        self.find(|event| match event {
            server_event::Event::HeartbeatAck(ack) if ack.sequence == sequence => Some(ack),
            _ => None,
        })
        .await
    }

    pub(crate) async fn started(&self, task: &TaskRef) {
        self.send(agent_event::Event::Accepted(Accepted { task: Some(task.clone()) })).await;
        self.send(agent_event::Event::Started(Started { task: Some(task.clone()) })).await;
    }

    pub(crate) async fn output(&self, task: &TaskRef, offset: u64, data: impl Into<bytes::Bytes>) {
        self.send(output(task, offset, OutputStream::Stdout, data)).await;
    }

    pub(crate) async fn acked(&mut self, task: &TaskRef, offset: u64) -> OutputAck {
        let task = task.clone();
        self.find(move |event| match event {
            server_event::Event::OutputAck(ack) if ack.task.as_ref() == Some(&task) && ack.offset >= offset => {
                Some(ack)
            }
            _ => None,
        })
        .await
    }

    pub(crate) async fn end(&mut self, task: &TaskRef, result: TaskResult) {
        self.send(agent_event::Event::End(TaskEnd { task: Some(task.clone()), result: Some(result) })).await;
        let task = task.clone();
        self.find(move |event| match event {
            server_event::Event::EndAck(ack) if ack.task.as_ref() == Some(&task) => Some(()),
            _ => None,
        })
        .await;
    }
}

pub(crate) fn output(
    task: &TaskRef,
    offset: u64,
    stream: OutputStream,
    data: impl Into<bytes::Bytes>,
) -> agent_event::Event {
    let chunk = OutputChunk { offset, stream: stream.into(), data: data.into() };
    agent_event::Event::Output(TaskOutput { task: Some(task.clone()), chunk: Some(chunk) })
}

pub(crate) fn succeeded(output_bytes: u64) -> TaskResult {
    TaskResult { outcome: TaskState::Succeeded.into(), exit_code: Some(0), output_bytes, ..TaskResult::default() }
}

pub(crate) fn held(task: &TaskRef, state: HeldState) -> HeldTask {
    HeldTask { task: Some(task.clone()), state: state.into(), ..HeldTask::default() }
}

pub(crate) fn command() -> TaskSpec {
    TaskSpec {
        target: Some(Target { host: "web1.corp.example".into(), connection: None }),
        credential: "web".into(),
        kind: Some(task_spec::Kind::Command(Command { command_line: "hostname".into(), ..Command::default() })),
        ..TaskSpec::default()
    }
}

/// A text secret of the built-in store, unless the test changes it.
pub(crate) fn secret(identifier: &str) -> Secret {
    Secret { identifier: identifier.into(), ..Secret::default() }
}

/// A secret manager that authenticates with an access key whose secret part is this secret.
pub(crate) fn kms_manager(identifier: &str, secret_access_key: &str) -> SecretManager {
    let text = |text: &str| Some(TextOrSecret { text: text.into(), secret: String::new() });
    let access_key =
        AwsAccessKey { access_key_id: text("IDOFANACCESSKEY0"), secret_access_key: secret_access_key.into() };
    let kms = AwsKms {
        key: text("arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"),
        credentials: Some(aws_kms::Credentials::AccessKey(access_key)),
        ..AwsKms::default()
    };
    SecretManager {
        identifier: identifier.into(),
        kind: Some(secret_manager::Kind::AwsKms(kms)),
        ..SecretManager::default()
    }
}

pub(crate) fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

/// Everything a watcher sees, joined: the output, and the last state.
pub(crate) async fn collect(mut stream: Streaming<WatchTaskResponse>) -> (Vec<u8>, Task) {
    let mut bytes = Vec::new();
    let mut last = None;
    while let Some(event) = within(stream.message()).await.unwrap() {
        match event.event.unwrap() {
            watch_task_response::Event::Task(task) => last = Some(task),
            watch_task_response::Event::Output(chunk) => {
                assert_eq!(chunk.offset, bytes.len() as u64, "the log has a gap or an overlap");
                bytes.extend_from_slice(&chunk.data);
            }
        }
    }
    (bytes, last.unwrap())
}

/// Whether some file in the directory, but for the administrator's own, holds the text.
pub(crate) fn on_disk(dir: &Path, needle: &str) -> bool {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
        let bytes = std::fs::read(&path).unwrap();
        !path.ends_with("admin-token") && bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
    })
}

/// GET on the HTTP port: the whole answer.
pub(crate) async fn get(server: &Server, path: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(server.http_address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    within(socket.read_to_string(&mut text)).await.unwrap();
    text
}
