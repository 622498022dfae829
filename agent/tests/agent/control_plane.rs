//! A control plane in this process, driven by the test: real TLS and gRPC, no logic of its own but enrolment.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use lictor_proto::token::JoinToken;
use lictor_proto::v1::agent_service_server::{AgentService, AgentServiceServer};
use lictor_proto::v1::{
    AgentEvent, EnrollRequest, EnrollResponse, HeartbeatAck, Hello, PollRequest, PollResponse, RenewIdentityRequest,
    RenewIdentityResponse, ReportRequest, ReportResponse, Resume, ResumeDecision, ServerEvent, SessionRequest,
    SessionResponse, Welcome, agent_event, server_event,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, PublicKeyData as _,
};
use rustls_pki_types::CertificateSigningRequestDer;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use zeroize::Zeroizing;

/// The control plane. Dropping it stops it.
pub(crate) struct ControlPlane {
    pub(crate) address: SocketAddr,
    pub(crate) shared: Arc<Shared>,
    sessions: mpsc::Receiver<Session>,
    server: tokio::task::JoinHandle<()>,
}

pub(crate) struct Shared {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    pin: [u8; 32],
    /// What Enroll answers instead of a certificate.
    pub(crate) refusal: Mutex<Option<Status>>,
    /// How long certificates last.
    pub(crate) lifetime: Mutex<Duration>,
    pub(crate) enrolments: AtomicUsize,
    pub(crate) renewals: AtomicUsize,
    pub(crate) enrolled: Mutex<Option<EnrollRequest>>,
    /// The two keys of each call of Enroll, answered or not.
    pub(crate) attempts: Mutex<Vec<(Vec<u8>, Vec<u8>)>>,
    opened: mpsc::Sender<Session>,
}

/// One session of the agent, played by the test.
pub(crate) struct Session {
    inbound: Streaming<SessionRequest>,
    outbound: mpsc::Sender<Result<SessionResponse, Status>>,
    pending: Vec<AgentEvent>,
    /// Whether the agent presented a client certificate.
    pub(crate) authenticated: bool,
}

impl ControlPlane {
    pub(crate) async fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap();
        let pin = {
            let (_, parsed) = x509_parser::parse_x509_certificate(ca.der()).unwrap();
            Sha256::digest(parsed.public_key().raw).into()
        };
        let issuer = Issuer::new(params, key);
        let leaf_key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = leaf.signed_by(&leaf_key, &issuer).unwrap();
        let chain = format!("{}{}", leaf.pem(), ca.pem());

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (opened, sessions) = mpsc::channel(8);
        let shared = Arc::new(Shared {
            issuer,
            ca_pem: ca.pem(),
            pin,
            refusal: Mutex::default(),
            lifetime: Mutex::new(Duration::from_secs(3600)),
            enrolments: AtomicUsize::new(0),
            renewals: AtomicUsize::new(0),
            enrolled: Mutex::default(),
            attempts: Mutex::default(),
            opened,
        });
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(chain, leaf_key.serialize_pem()))
            .client_ca_root(Certificate::from_pem(ca.pem()))
            .client_auth_optional(true);
        let service = AgentServiceServer::new(Service(Arc::clone(&shared)));
        let serving = Server::builder().tls_config(tls).unwrap().add_service(service);
        let server = tokio::spawn(async move {
            serving.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { address, shared, sessions, server }
    }

    /// A join token; `pin` other than the right one, if given.
    pub(crate) fn token(&self, pin: Option<[u8; 32]>) -> JoinToken {
        JoinToken { id: "t".into(), secret: Zeroizing::new([9; 32]), pin: pin.unwrap_or(self.shared.pin) }
    }

    /// The next session.
    pub(crate) async fn session(&mut self) -> Session {
        timeout(LIMIT, self.sessions.recv()).await.expect("no session in time").unwrap()
    }

    /// The next session, welcomed with everything to go on from `output_acked`.
    pub(crate) async fn welcomed(&mut self, output_acked: u64) -> (Session, Hello) {
        let mut session = self.session().await;
        let hello = session.hello().await;
        let resume = hello.held.iter().map(|held| Resume {
            task: held.task.clone(),
            decision: ResumeDecision::Continue.into(),
            output_acked,
            ..Resume::default()
        });
        let resume = resume.collect();
        session.welcome(resume).await;
        (session, hello)
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Session {
    /// The next event, heartbeats being answered on the way.
    pub(crate) async fn event(&mut self) -> agent_event::Event {
        loop {
            while self.pending.is_empty() {
                let message = timeout(LIMIT, self.inbound.message()).await.expect("no event in time");
                self.pending = message.unwrap().expect("the agent closed the session").events;
            }
            match self.pending.remove(0).event.unwrap() {
                agent_event::Event::Heartbeat(beat) => {
                    let ack = HeartbeatAck { sequence: beat.sequence, stale: Vec::new() };
                    self.send(server_event::Event::HeartbeatAck(ack)).await;
                }
                event => return event,
            }
        }
    }

    /// Skips events until `pick` takes one.
    pub(crate) async fn until<T>(&mut self, mut pick: impl FnMut(agent_event::Event) -> Option<T>) -> T {
        loop {
            if let Some(picked) = pick(self.event().await) {
                return picked;
            }
        }
    }

    pub(crate) async fn hello(&mut self) -> Hello {
        match self.event().await {
            agent_event::Event::Hello(hello) => hello,
            other => panic!("{other:?} instead of Hello"),
        }
    }

    pub(crate) async fn welcome(&mut self, resume: Vec<Resume>) {
        let welcome = Welcome {
            session_id: "s".into(),
            heartbeat_interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            output_window: 1024 * 1024,
            resume,
            ..Welcome::default()
        };
        self.send(server_event::Event::Welcome(welcome)).await;
    }

    pub(crate) async fn send(&mut self, event: server_event::Event) {
        let response = SessionResponse { events: vec![ServerEvent { event: Some(event) }] };
        self.outbound.send(Ok(response)).await.unwrap();
    }

    /// Breaks the session.
    pub(crate) async fn cut(self) {
        let _ = self.outbound.send(Err(Status::unavailable("cut"))).await;
    }

    /// Waits until the agent ends the session.
    pub(crate) async fn closed(&mut self) {
        while let Ok(Some(message)) = timeout(LIMIT, self.inbound.message()).await.expect("the session stays open") {
            for event in message.events {
                if let Some(agent_event::Event::Heartbeat(beat)) = event.event {
                    let ack = HeartbeatAck { sequence: beat.sequence, stale: Vec::new() };
                    let events = vec![ServerEvent { event: Some(server_event::Event::HeartbeatAck(ack)) }];
                    let _ = self.outbound.send(Ok(SessionResponse { events })).await;
                }
            }
        }
    }
}

struct Service(Arc<Shared>);

impl Service {
    fn issue(&self, csr_der: &[u8]) -> (String, prost_types::Timestamp) {
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der)).unwrap();
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(&request.public_key, &self.0.issuer).unwrap();
        let not_after = SystemTime::now() + *self.0.lifetime.lock().unwrap();
        (leaf.pem(), prost_types::Timestamp::from(not_after))
    }
}

#[tonic::async_trait]
impl AgentService for Service {
    type SessionStream = ReceiverStream<Result<SessionResponse, Status>>;

    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        self.0.enrolments.fetch_add(1, Ordering::SeqCst);
        let public_key = CertificateSigningRequestDer::from(request.get_ref().csr_der.clone());
        let public_key = CertificateSigningRequestParams::from_der(&public_key).unwrap().public_key;
        let keys = (public_key.subject_public_key_info(), request.get_ref().sealing_key.clone());
        self.0.attempts.lock().unwrap().push(keys);
        if let Some(status) = self.0.refusal.lock().unwrap().clone() {
            return Err(status);
        }
        let request = request.into_inner();
        let (certificate_pem, not_after) = self.issue(&request.csr_der);
        *self.0.enrolled.lock().unwrap() = Some(request);
        Ok(Response::new(EnrollResponse {
            agent_id: "agent-1".into(),
            certificate_pem,
            ca_pem: self.0.ca_pem.clone(),
            not_after: Some(not_after),
            scope: String::new(),
        }))
    }

    async fn renew_identity(
        &self,
        request: Request<RenewIdentityRequest>,
    ) -> Result<Response<RenewIdentityResponse>, Status> {
        self.0.renewals.fetch_add(1, Ordering::SeqCst);
        assert!(request.peer_certs().is_some());
        *self.0.lifetime.lock().unwrap() = Duration::from_secs(3600);
        let (certificate_pem, not_after) = self.issue(&request.into_inner().csr_der);
        let ca_pem = self.0.ca_pem.clone();
        Ok(Response::new(RenewIdentityResponse { certificate_pem, ca_pem, not_after: Some(not_after) }))
    }

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let authenticated = request.peer_certs().is_some_and(|certificates| !certificates.is_empty());
        let (outbound, responses) = mpsc::channel(16);
        let session = Session { inbound: request.into_inner(), outbound, pending: Vec::new(), authenticated };
        self.0.opened.send(session).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn poll(&self, _: Request<PollRequest>) -> Result<Response<PollResponse>, Status> {
        Err(Status::unimplemented("poll"))
    }

    async fn report(&self, _: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        Err(Status::unimplemented("report"))
    }
}

/// For anything that is awaited: far beyond what it takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
