//! `AgentService`: the plumbing between agents' streams and the engine.
//!
//! Each session has a reader, which hands events to the engine in order, and an outbox, which the response stream
//! empties. What an event means is the ledger's business.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use lictor_proto::v1::agent_service_server::AgentService;
use lictor_proto::v1::{
    AgentEvent, EnrollRequest, EnrollResponse, PollRequest, PollResponse, RenewIdentityRequest, RenewIdentityResponse,
    ReportRequest, ReportResponse, ResumeDecision, ServerEvent, SessionRequest, SessionResponse, server_event,
};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, warn};

use super::calls::Call;
use super::door::source;
use super::gate::no_certificate;
use super::{Api, door};
use crate::access::Refused;
use crate::authority::peer_identity;
use crate::clock::Now;
use crate::dispatch::SessionId;
use crate::engine::{Command, Refusal};
use crate::outbox::Outbox;
use crate::store::fleet::{Standing, certificate_standing};
use crate::validate;

impl Api {
    /// The agent that calls: its certificate was verified by TLS, and the records say that it still counts.
    async fn agent<T>(&self, request: &Request<T>) -> Result<String, Status> {
        let certificates =
            request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>().and_then(TlsConnectInfo::peer_certs);
        let leaf = certificates.as_ref().and_then(|chain| chain.first());
        let identity = leaf.and_then(|leaf| peer_identity(leaf)).ok_or_else(no_certificate)?;
        let status = match certificate_standing(&self.readers, &identity.serial, &identity.agent_id).await? {
            Standing::Good => return Ok(identity.agent_id),
            Standing::Revoked => Status::permission_denied("this agent's identity was revoked"),
            Standing::Unknown => Status::unauthenticated(
                "the certificate does not count here: another control plane issued it, or a newer enrolment of the \
                 same name replaced it; enrol again with a join token",
            ),
        };
        Err(self.refuse(request, Refused::Certificate, Some(&identity.agent_id), status))
    }

    fn refuse<T>(&self, request: &Request<T>, why: Refused, name: Option<&str>, status: Status) -> Status {
        door::refuse(&self.guard, &self.metrics, source(request.extensions()), why, name, status, Now::read())
    }

    /// Tells the engine when dropped that the session is over. Refused when the agent has too many calls under way.
    fn closing(&self, agent_id: &str, session: SessionId) -> Result<Closing, Status> {
        let call = self.calls.of_agent(agent_id)?;
        Ok(Closing { api: self.clone(), agent_id: agent_id.to_owned(), session, _call: call })
    }
}

#[tonic::async_trait]
impl AgentService for Api {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        let from = Request::from_parts(request.metadata().clone(), request.extensions().clone(), ());
        let address = source(from.extensions()).map(|source| source.to_string()).unwrap_or_default();
        let request = Box::new(validate::enrolment(request.into_inner())?);
        match self.engine.ask(|reply| Command::Enroll { request, source: address, reply }).await {
            Ok(answer) => Ok(Response::new(answer)),
            Err(refusal @ (Refusal::Unauthenticated(_) | Refusal::Denied(_) | Refusal::Taken(_))) => {
                Err(self.refuse(&from, Refused::Enrolment, None, refusal.into()))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    async fn renew_identity(
        &self,
        request: Request<RenewIdentityRequest>,
    ) -> Result<Response<RenewIdentityResponse>, Status> {
        let agent_id = self.agent(&request).await?;
        let request = Box::new(request.into_inner());
        validate::renewal(&request.csr_der, &request.sealing_key)?;
        Ok(Response::new(self.engine.ask(|reply| Command::Renew { agent_id, request, reply }).await?))
    }

    type SessionStream = Pin<Box<dyn Stream<Item = Result<SessionResponse, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let agent_id = self.agent(&request).await?;
        let mut inbound = request.into_inner();
        let session = self.next_session();
        let outbox = Arc::new(Outbox::default());
        let closing = self.closing(&agent_id, session)?;
        let reading = CancellationToken::new();
        let reader = {
            let (api, outbox, reading) = (self.clone(), Arc::clone(&outbox), reading.clone());
            async move {
                let read = read_session(&api, &agent_id, session, &mut inbound, &outbox);
                tokio::select! {
                    () = reading.cancelled() => {}
                    () = read => {}
                }
                outbox.end();
                drop(closing);
            }
        };
        self.tracker.spawn(reader);
        let open = OpenSession { outbox, _reading: reading.drop_guard() };
        let stream = futures::stream::unfold(open, |open| async move {
            let events = open.outbox.next().await?;
            Some((Ok(SessionResponse { events }), open))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn poll(&self, request: Request<PollRequest>) -> Result<Response<PollResponse>, Status> {
        let agent_id = self.agent(&request).await?;
        let PollRequest { events, wait } = request.into_inner();
        let deadline = Instant::now() + validate::poll_wait(wait);
        let session = self.next_session();
        let outbox = Arc::new(Outbox::default());
        let _closing = self.closing(&agent_id, session)?;
        let open = Command::Open { agent_id, session, outbox: Arc::clone(&outbox), events, polling: true };
        self.engine.tell(open).await?;
        let mut answer: Vec<ServerEvent> = Vec::new();
        // The Welcome is part of the answer however short the wait is.
        let patience = deadline.max(Instant::now() + FIRST_MESSAGE_WAIT);
        while let Ok(Some(events)) =
            timeout_at(if answer.is_empty() { patience } else { deadline }, outbox.next()).await
        {
            let worth_returning = events.iter().any(is_news);
            answer.extend(events);
            if worth_returning || answer.len() >= MAX_POLL_EVENTS {
                break;
            }
        }
        Ok(Response::new(PollResponse { events: answer }))
    }

    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        let agent_id = self.agent(&request).await?;
        let events = request.into_inner().events;
        let session = self.next_session();
        let outbox = Arc::new(Outbox::default());
        let _closing = self.closing(&agent_id, session)?;
        let into = Arc::clone(&outbox);
        self.engine.ask(|reply| Command::Report { agent_id, session, outbox: into, events, reply }).await?;
        Ok(Response::new(ReportResponse { events: outbox.take().0 }))
    }
}

/// Hands the agent's events to the engine until its stream ends.
async fn read_session(
    api: &Api,
    agent_id: &str,
    session: SessionId,
    inbound: &mut Streaming<SessionRequest>,
    outbox: &Arc<Outbox>,
) {
    let Ok(first) = timeout(FIRST_MESSAGE_WAIT, inbound.message()).await else {
        debug!(agent_id, session, "Session ended: no Hello came");
        return;
    };
    let mut next = first;
    let mut opened = false;
    loop {
        let events: Vec<AgentEvent> = match next {
            Ok(Some(request)) => request.events,
            Ok(None) => return,
            Err(status) => {
                debug!(agent_id, session, error = %status, "Session broken");
                return;
            }
        };
        let agent = agent_id.to_owned();
        let command = if std::mem::replace(&mut opened, true) {
            Command::Events { agent_id: agent, session, events }
        } else {
            Command::Open { agent_id: agent, session, outbox: Arc::clone(outbox), events, polling: false }
        };
        if api.engine.tell(command).await.is_err() {
            return;
        }
        // A dead connection is found out sooner; this is for a process that hangs behind a living one.
        match timeout(api.silence, inbound.message()).await {
            Ok(message) => next = message,
            Err(_) => {
                warn!(agent_id, session, "Session ended: the agent gave no sign of life");
                return;
            }
        }
    }
}

/// What lives as long as the response stream of a session.
struct OpenSession {
    outbox: Arc<Outbox>,
    _reading: DropGuard,
}

/// Tells the engine on drop that a session's connection is gone.
struct Closing {
    api: Api,
    agent_id: String,
    session: SessionId,
    _call: Call,
}

impl Drop for Closing {
    fn drop(&mut self) {
        let engine = self.api.engine.clone();
        let command = Command::Closed { agent_id: std::mem::take(&mut self.agent_id), session: self.session };
        self.api.tracker.spawn(async move {
            // A stopped engine knows of no sessions any more.
            let _ = engine.tell(command).await;
        });
    }
}

/// What a waiting Poll returns for.
fn is_news(event: &ServerEvent) -> bool {
    match &event.event {
        // A cancellation that was asked for between two polls, or an assignment to be given up, must not wait either.
        Some(server_event::Event::Welcome(welcome)) => {
            welcome.resume.iter().any(|resume| resume.cancel_requested || resume.decision() != ResumeDecision::Continue)
        }
        Some(server_event::Event::HeartbeatAck(ack)) => !ack.stale.is_empty(),
        Some(_) => true,
        None => false,
    }
}

/// An agent that connects says Hello at once.
const FIRST_MESSAGE_WAIT: Duration = Duration::from_secs(10);
const MAX_POLL_EVENTS: usize = 1024;
