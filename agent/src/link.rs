//! The link to the control plane: connects, keeps the session, reconnects, renews the identity.
//!
//! All decisions about the contract are [`protocol`]'s; this module moves bytes and time. It must never let output go
//! before control messages, nor stop reading the engine's events, connected or not. Called by `app`.

mod backoff;
mod poll;
pub(crate) mod protocol;
mod transport;

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use lictor_proto::v1::agent_service_client::AgentServiceClient;
use lictor_proto::v1::{AgentEvent, GoodbyeReason, SessionRequest, SessionResponse};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::admission::Room;
use crate::config::Config;
use crate::enrol::{self, EnrolError, Identity, Store, TokenSource, tls};
use crate::failure::{self, ExitCode, Recovery};
use crate::kerberos::Kerberos;
use crate::secrets::{Keyring, Secrets};
use crate::shutdown::Shutdown;
use crate::tasks::output::Log;
use crate::tasks::{Command, Event, Handle, TaskKey};
use crate::telemetry::{Metrics, resident_bytes};
use backoff::Backoff;
use protocol::{About, Protocol, SessionEnd};
use transport::{Choice, Mode, Pace, StreamEnd};

/// The link.
pub(crate) struct Link {
    config: Arc<Config>,
    route: tls::Route,
    store: Store,
    tokens: TokenSource,
    identity: Option<Arc<Identity>>,
    keyring: Arc<Keyring>,
    kerberos: Kerberos,
    secrets: Secrets,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
    room: watch::Receiver<Room>,
    engine: Handle,
    protocol: Protocol,
    logs: HashMap<TaskKey, Log>,
    /// Set once nothing runs any more: when to give up delivering results.
    finish_by: Option<Instant>,
    ready: Option<ReadyFile>,
    enrol_again: bool,
    backoff: Backoff,
    choice: Choice,
    pace: Pace,
    /// When a poll was last answered.
    polled: Option<Instant>,
    /// The control plane ended the session in order.
    dismissed: bool,
    /// Of an enrolment whose answer has not come.
    enrolment_keys: Option<Arc<enrol::Keys>>,
}

/// What [`Link::new`] needs.
pub(crate) struct Parts {
    /// Settings.
    pub(crate) config: Arc<Config>,
    /// How to get to the control plane.
    pub(crate) route: tls::Route,
    /// The identity's file.
    pub(crate) store: Store,
    /// Where join tokens come from.
    pub(crate) tokens: TokenSource,
    /// Gets the sealing keys.
    pub(crate) keyring: Arc<Keyring>,
    /// Whose keys to announce.
    pub(crate) kerberos: Kerberos,
    /// What of them to announce.
    pub(crate) secrets: Secrets,
    /// Figures.
    pub(crate) metrics: Arc<Metrics>,
    /// When to end.
    pub(crate) shutdown: Shutdown,
    /// Whether to ask for more work.
    pub(crate) room: watch::Receiver<Room>,
    /// The engine.
    pub(crate) engine: Handle,
    /// Written when first connected.
    pub(crate) ready: Option<ReadyFile>,
}

/// A file that says that the agent is connected.
pub(crate) struct ReadyFile {
    /// Where.
    pub(crate) path: PathBuf,
    /// Address of the HTTP endpoints, to be told in it.
    pub(crate) http_address: String,
}

/// Why the link ended other than by draining.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// No identity can be had.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// The agent was revoked.
    #[error("this agent was revoked: {0}")]
    Revoked(String),
    /// The ready file cannot be written.
    #[error("failed to write {}", path.display())]
    ReadyFile {
        /// The file.
        path: PathBuf,
        /// How it failed.
        source: std::io::Error,
    },
}

impl LinkError {
    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Enrol(error) => match failure::recovery(error) {
                Recovery::Stop(code) => code,
                // Only reached when enrolling again is impossible too.
                Recovery::EnrolAgain => ExitCode::Enrolment,
                Recovery::Retry => ExitCode::Other,
            },
            Self::Revoked(_) => ExitCode::Revoked,
            Self::ReadyFile { .. } => ExitCode::State,
        }
    }
}

/// How one session ended.
enum Closed {
    /// Drained, and everything delivered.
    Finished,
    /// Come back, at once or after the longest wait.
    Again { soon: bool },
}

/// What happened in an open session.
enum Step {
    Nothing,
    Message(Result<Option<SessionResponse>, tonic::Status>),
    RenewalDue,
    Renewed(Box<Result<Identity, EnrolError>>),
    GaveUp,
}

impl Link {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            config,
            route,
            store,
            tokens,
            keyring,
            kerberos,
            secrets,
            metrics,
            shutdown,
            mut room,
            engine,
            ready,
        } = parts;
        let about = About {
            instance_id: uuid::Uuid::new_v4().to_string(),
            tags: config.tags.clone(),
            slots: config.slots,
            degraded: engine.degraded.clone(),
            kerberos: kerberos.is_ready(),
            further: Vec::new(),
            principals: Vec::new(),
        };
        let mut protocol = Protocol::new(about, &engine.restored);
        protocol.admit(*room.borrow_and_update());
        let mut link = Self {
            backoff: Backoff::new(),
            choice: Choice::new(config.transport),
            pace: Pace::new(),
            polled: None,
            dismissed: false,
            config,
            route,
            store,
            tokens,
            identity: None,
            keyring,
            kerberos,
            secrets,
            metrics,
            shutdown,
            room,
            engine,
            protocol,
            logs: HashMap::new(),
            finish_by: None,
            ready,
            enrol_again: false,
            enrolment_keys: None,
        };
        for event in std::mem::take(&mut link.engine.restored) {
            link.keep_log(&event);
        }
        link
    }

    /// Runs until everything is drained and delivered, or nothing can be done any more.
    pub(crate) async fn run(mut self) -> Result<(), LinkError> {
        self.identity = self.store.load()?.map(Arc::new);
        if let Some(identity) = &self.identity {
            self.metrics.certificate_ends(identity.not_after);
            self.keyring.put(&identity.agent_id, copy_of(identity)?);
        }
        loop {
            let (soon, error) = match self.attempt().await {
                Ok((Closed::Finished, _)) => return Ok(()),
                Ok((Closed::Again { soon }, useful)) => {
                    self.backoff.was_useful(useful);
                    (soon, None)
                }
                Err(LinkError::Enrol(error)) => match failure::recovery(&error) {
                    Recovery::Stop(_) => return Err(error.into()),
                    Recovery::Retry => (true, Some(error)),
                    // Without a token only somebody else can help, but the refusal may pass: a control plane that is being
                    // restored from a backup, for instance.
                    Recovery::EnrolAgain if self.tokens.is_empty() => (false, Some(error)),
                    Recovery::EnrolAgain => {
                        self.enrol_again = true;
                        (true, Some(error))
                    }
                },
                Err(error) => return Err(error),
            };
            let wait = if soon { self.backoff.next() } else { self.backoff.longest() };
            if let Some(error) = error {
                self.metrics.link_failed();
                let advice = failure::connecting(&error);
                tracing::warn!(
                    error = %failure::chain(&error),
                    stage = advice.map(|_| "proxy"),
                    code = advice.map(|advice| advice.code),
                    cause = advice.map(|advice| advice.cause),
                    remedy = advice.map(|advice| advice.remedy),
                    retry_in = ?wait,
                    "The control plane is not available"
                );
            }
            if self.alongside(sleep(wait)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Gets an identity if need be, connects, and holds a session until it ends.
    async fn attempt(&mut self) -> Result<(Closed, Duration), LinkError> {
        let Some(identity) = self.identity().await? else { return Ok((Closed::Finished, Duration::ZERO)) };
        let route = self.route.clone();
        let tls = tls::identified(&identity).map_err(EnrolError::from)?;
        let Some(channel) = self.alongside(async move { tls::connect(&route, tls).await }).await else {
            return Ok((Closed::Finished, Duration::ZERO));
        };
        // Keytabs change; what they hold now is announced with each connection.
        let kerberos = self.kerberos.clone();
        let Some(principals) = self.alongside(async move { kerberos.principals().await }).await else {
            return Ok((Closed::Finished, Duration::ZERO));
        };
        self.protocol.holds_keys_of(principals);
        self.protocol.can(self.secrets.capabilities());
        let now = std::time::Instant::now();
        let mode = self.choice.mode(now);
        self.dismissed = false;
        let closed = match (channel, mode) {
            (Err(error), _) => Err(EnrolError::from(error).into()),
            (Ok(channel), Mode::Stream) => self.session(channel).await,
            (Ok(channel), Mode::Poll) => self.polls(channel).await,
        };
        let now = std::time::Instant::now();
        let useful = self.protocol.disconnected(now);
        // Between two polls there is nothing to be seen.
        let lately = mode == Mode::Poll && self.polled.is_some_and(|polled| polled.elapsed() < POLL_SILENCE);
        if !lately {
            self.metrics.connected(false);
        }
        if mode == Mode::Stream && self.choice.stream_ended(self.stream_end(&closed, useful), now, rand::random()) {
            tracing::warn!("Streams to the control plane are cut again and again, polling instead");
        }
        Ok((closed?, useful))
    }

    fn stream_end(&self, closed: &Result<Closed, LinkError>, useful: Duration) -> StreamEnd {
        match closed {
            Ok(Closed::Again { .. }) if !self.dismissed && !self.enrol_again => StreamEnd::Broken(useful),
            Err(LinkError::Enrol(EnrolError::Call { .. })) => StreamEnd::Broken(useful),
            _ => StreamEnd::Other,
        }
    }

    async fn identity(&mut self) -> Result<Option<Arc<Identity>>, EnrolError> {
        if let Some(identity) = &self.identity {
            let ended = identity.not_after <= SystemTime::now();
            // Without a token an ended certificate may still be renewed within the control plane's grace.
            if !self.enrol_again && (!ended || self.tokens.is_empty()) {
                return Ok(Some(Arc::clone(identity)));
            }
            tracing::warn!(agent_id = identity.agent_id, "The certificate is of no use any more, enrolling again");
        }
        let token = self.tokens.read()?;
        let (config, route) = (Arc::clone(&self.config), self.route.clone());
        let keys = match &self.enrolment_keys {
            Some(keys) => Arc::clone(keys),
            None => Arc::clone(self.enrolment_keys.insert(Arc::new(enrol::Keys::generate()?))),
        };
        let enrolled = self.alongside(async move { enrol::enrol(&config, &route, &token, &keys).await }).await;
        let Some(enrolled) = enrolled else { return Ok(None) };
        let identity = self.adopt(enrolled?).await?;
        self.enrolment_keys = None;
        self.enrol_again = false;
        tracing::info!(agent_id = identity.agent_id, name = self.config.name, "Enrolled");
        Ok(Some(identity))
    }

    /// Stores a new identity and uses it from now on.
    async fn adopt(&mut self, identity: Identity) -> Result<Arc<Identity>, EnrolError> {
        let identity = Arc::new(identity);
        let saved = tokio::task::spawn_blocking({
            let (store, identity) = (self.store.clone(), Arc::clone(&identity));
            move || store.save(&identity)
        });
        saved.await.unwrap_or_else(|error| Err(self.store.interrupted(error)))?;
        self.keyring.put(&identity.agent_id, copy_of(&identity)?);
        self.metrics.certificate_ends(identity.not_after);
        self.identity = Some(Arc::clone(&identity));
        Ok(identity)
    }

    async fn session(&mut self, channel: Channel) -> Result<Closed, LinkError> {
        if !self.engine_answers().await {
            return Ok(Closed::Finished);
        }
        let (outbound, requests) = mpsc::channel(OUTBOUND);
        self.protocol.connected(std::time::Instant::now());
        // Hello must be there before the answer is waited for: the control plane may want to see it first.
        self.pump(&outbound).await;
        let mut client = AgentServiceClient::new(channel.clone())
            .max_decoding_message_size(lictor_proto::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(lictor_proto::MAX_REPORT_BYTES);
        let opening = timeout(OPEN_TIMEOUT, client.session(ReceiverStream::new(requests)));
        let mut inbound = match self.alongside(opening).await {
            None => return Ok(Closed::Finished),
            Some(Err(_)) => {
                let message = "no answer in time".into();
                return Err(EnrolError::Call { call: "Session", code: tonic::Code::DeadlineExceeded, message }.into());
            }
            Some(Ok(Err(status))) => return Err(session_error("Session", &status).into()),
            Some(Ok(Ok(response))) => response.into_inner(),
        };
        self.hold(&channel, &outbound, &mut inbound).await
    }

    async fn hold(
        &mut self,
        channel: &Channel,
        outbound: &mpsc::Sender<SessionRequest>,
        inbound: &mut Streaming<SessionResponse>,
    ) -> Result<Closed, LinkError> {
        let mut renewal: Option<BoxFuture<'static, Result<Identity, EnrolError>>> = None;
        let mut renew_at = self.renewal_instant();
        loop {
            let blocked = self.pump(outbound).await;
            if self.protocol.is_flushed() {
                return Ok(Closed::Finished);
            }
            let deadline = self.protocol.deadline().map(Instant::from_std);
            // In no order of preference: neither a chatty engine nor a chatty control plane starves the other.
            let step = tokio::select! {
                step = self.housekeeping() => if step { Step::Nothing } else { Step::GaveUp },
                message = inbound.message() => Step::Message(message),
                _ = outbound.reserve(), if blocked => Step::Nothing,
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => Step::Nothing,
                renewed = async { match renewal.as_mut() { Some(renewal) => renewal.await, None => std::future::pending().await } } => {
                    Step::Renewed(Box::new(renewed))
                }
                () = sleep_until(renew_at), if renewal.is_none() && self.protocol.is_open() => Step::RenewalDue,
            };
            let now = std::time::Instant::now();
            match step {
                Step::Nothing => {}
                Step::GaveUp => return Ok(Closed::Finished),
                Step::Message(message) => {
                    if let Some(closed) = self.message(message, now).await? {
                        return Ok(closed);
                    }
                }
                Step::RenewalDue => {
                    if let Some(identity) = self.identity.clone() {
                        let channel = channel.clone();
                        renewal = Some(Box::pin(async move { enrol::renew(channel, &identity).await }));
                    }
                }
                Step::Renewed(renewed) => {
                    renewal = None;
                    renew_at = self.renewed(*renewed).await?;
                    if self.enrol_again {
                        return Ok(Closed::Again { soon: true });
                    }
                }
            }
            if let Err(end) = self.protocol.tick(now) {
                return self.ended(end);
            }
            if self.choice.stream_lasts(self.protocol.useful(now)) {
                tracing::info!("The stream to the control plane lasts, polling is over");
            }
        }
    }

    async fn message(
        &mut self,
        message: Result<Option<SessionResponse>, tonic::Status>,
        now: std::time::Instant,
    ) -> Result<Option<Closed>, LinkError> {
        match message {
            Ok(Some(response)) => {
                for event in response.events {
                    let was_open = self.protocol.is_open();
                    if let Err(end) = self.protocol.server(event, now) {
                        return self.ended(end).map(Some);
                    }
                    if !was_open && self.protocol.is_open() {
                        self.heed_version();
                        self.welcomed("stream").await?;
                    }
                }
                Ok(None)
            }
            Ok(None) => {
                tracing::info!("The control plane closed the session");
                Ok(Some(Closed::Again { soon: true }))
            }
            Err(status) => Err(session_error("Session", &status).into()),
        }
    }

    /// Whether the control plane that has just spoken is near enough for new tasks.
    fn heed_version(&self) {
        let mismatch = self.protocol.mismatch();
        let new = self.metrics.version_mismatch(mismatch.is_some());
        if let Some(mismatch) = mismatch.filter(|_| new) {
            tracing::error!(
                error = %mismatch,
                remedy = mismatch.remedy("this agent", "the control plane"),
                "The control plane's version is too far from this agent's; asking for no tasks"
            );
        }
    }

    async fn welcomed(&mut self, transport: &'static str) -> Result<(), LinkError> {
        self.metrics.connected(true);
        tracing::info!(control_plane = %self.config.control_plane, transport, "Connected");
        let Some(ready) = self.ready.take() else { return Ok(()) };
        let agent_id = self.identity.as_ref().map(|identity| identity.agent_id.clone());
        let text = serde_json::json!({ "http_address": ready.http_address, "agent_id": agent_id }).to_string();
        let new = ready.path.with_extension("new");
        let written = async {
            tokio::fs::write(&new, text).await?;
            tokio::fs::rename(&new, &ready.path).await
        };
        written.await.map_err(|source| LinkError::ReadyFile { path: ready.path.clone(), source })
    }

    fn ended(&mut self, end: SessionEnd) -> Result<Closed, LinkError> {
        let (reason, detail) = match end {
            SessionEnd::Goodbye { reason, detail } => {
                self.dismissed = true;
                (reason, detail)
            }
            SessionEnd::Afresh => {
                tracing::info!("Connecting again, to say what has changed");
                return Ok(Closed::Again { soon: true });
            }
            SessionEnd::Violation(_) | SessionEnd::Silence(_) => {
                self.metrics.link_failed();
                tracing::warn!(error = %end, "The session is over");
                return Ok(Closed::Again { soon: true });
            }
        };
        match reason {
            // It comes back soon; the backoff spreads the agents out.
            GoodbyeReason::Shutdown | GoodbyeReason::Unspecified => {
                tracing::info!(detail, "The control plane is stopping");
                Ok(Closed::Again { soon: true })
            }
            // Coming back at once would throw the other one out, and so on for ever.
            GoodbyeReason::Superseded => {
                tracing::warn!(detail, "Another process uses this agent's identity");
                Ok(Closed::Again { soon: false })
            }
            GoodbyeReason::ProtocolError => {
                self.metrics.link_failed();
                tracing::error!(detail, "The control plane says that this agent broke the contract");
                Ok(Closed::Again { soon: false })
            }
            GoodbyeReason::Revoked => Err(LinkError::Revoked(detail)),
        }
    }

    async fn renewed(&mut self, renewed: Result<Identity, EnrolError>) -> Result<Instant, LinkError> {
        let error = match renewed {
            Ok(identity) => {
                let identity = self.adopt(identity).await?;
                tracing::info!(agent_id = identity.agent_id, "Certificate renewed");
                return Ok(self.renewal_instant());
            }
            Err(error) => error,
        };
        tracing::warn!(error = %failure::chain(&error), "The certificate was not renewed");
        match failure::recovery(&error) {
            Recovery::Stop(_) => Err(error.into()),
            Recovery::Retry => Ok(Instant::now() + RENEWAL_RETRY),
            Recovery::EnrolAgain => {
                self.enrol_again = !self.tokens.is_empty();
                Ok(Instant::now() + RENEWAL_RETRY)
            }
        }
    }

    fn renewal_instant(&self) -> Instant {
        let due = self.identity.as_ref().map_or_else(SystemTime::now, |identity| identity.renewal_due());
        Instant::now() + due.duration_since(SystemTime::now()).unwrap_or_default()
    }

    /// Hands over what may be sent now, control messages first. True when more waits for room.
    async fn pump(&mut self, outbound: &mpsc::Sender<SessionRequest>) -> bool {
        loop {
            // Full means that the network is slower than the tasks: output stays in its log, which slows the commands.
            let permit = match outbound.try_reserve() {
                Ok(permit) => permit,
                Err(mpsc::error::TrySendError::Full(())) => return true,
                // The stream is gone; reading it tells why.
                Err(mpsc::error::TrySendError::Closed(())) => return false,
            };
            match self.next_outbound().await {
                Some(event) => permit.send(SessionRequest { events: vec![event] }),
                None => return false,
            }
        }
    }

    /// The next event for the control plane, output behind everything else.
    async fn next_outbound(&mut self) -> Option<AgentEvent> {
        loop {
            let event = self.protocol.next_event(std::time::Instant::now(), resident_bytes);
            if event.is_some() {
                return event;
            }
            let wanted = self.protocol.next_output()?;
            let piece = match self.logs.get(&wanted.key) {
                None => None,
                Some(log) => log.read(wanted.offset, wanted.most).await.unwrap_or_else(|error| {
                    tracing::error!(task_id = %wanted.key.task_id, error = %error, "Spilled output cannot be read and is lost");
                    None
                }),
            };
            // Nothing to send when it is lost: on to what comes behind it.
            let event = self.protocol.output_read(&wanted, piece);
            if event.is_some() {
                return event;
            }
        }
    }

    /// Waits for what the engine says about assignments that it got, so that Hello can name them as they are. Bounded: an engine
    /// that is stuck must not keep leases from being renewed, and what it has not answered for is named all the same. False
    /// when the time to deliver is over.
    async fn engine_answers(&mut self) -> bool {
        let patience = Instant::now() + ENGINE_WAIT;
        while self.protocol.awaits_engine() && Instant::now() < patience {
            let chore = timeout(patience.saturating_duration_since(Instant::now()), self.housekeeping()).await;
            if chore == Ok(false) {
                return false;
            }
        }
        true
    }

    /// Runs `work` while the engine goes on. Nothing: the agent is done.
    async fn alongside<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        loop {
            if self.protocol.is_flushed() {
                return None;
            }
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                going = self.housekeeping() => if !going { return None; },
            }
        }
    }

    /// Moves one event or command between engine and protocol. False when the time to deliver is over. Safe to drop.
    async fn housekeeping(&mut self) -> bool {
        enum Chore {
            GiveUp,
            Drain,
            Event(Event),
            Grown(BTreeSet<TaskKey>),
            Room(Room),
            Nothing,
        }
        let (engine, protocol, logs) = (&mut self.engine, &mut self.protocol, &mut self.logs);
        let chore = tokio::select! {
            biased;
            () = sleep_until(self.finish_by.unwrap_or_else(Instant::now)), if self.finish_by.is_some() => Chore::GiveUp,
            () = self.shutdown.drain().cancelled(), if !protocol.is_draining() => Chore::Drain,
            // Nothing comes only when the engine is gone, which ends the agent.
            event = engine.events.recv() => event.map_or(Chore::GiveUp, Chore::Event),
            permit = engine.commands.reserve(), if protocol.has_command() => {
                if let (Ok(permit), Some(command)) = (permit, protocol.next_command()) {
                    if let Command::EndAcked(key) | Command::Stale(key) | Command::Forget(key) = &command {
                        logs.remove(key);
                    }
                    permit.send(command);
                }
                Chore::Nothing
            }
            grown = engine.shelf.grown() => Chore::Grown(grown),
            Ok(()) = self.room.changed() => Chore::Room(*self.room.borrow_and_update()),
        };
        match chore {
            Chore::GiveUp => {
                tracing::warn!("Results that were not acknowledged stay in the journal for the next start");
                return false;
            }
            Chore::Drain => {
                self.metrics.draining();
                self.protocol.drain("the agent was asked to stop");
            }
            Chore::Event(event) => {
                self.keep_log(&event);
                self.protocol.engine(&event);
                if matches!(event, Event::Idle) {
                    let wait = if self.shutdown.stop().is_cancelled() { SHORT_FLUSH } else { FLUSH };
                    self.finish_by = Some(Instant::now() + wait);
                }
                if let Event::HandedBack { key, .. } | Event::Left(key) = &event {
                    self.logs.remove(key);
                }
            }
            Chore::Grown(grown) => {
                for key in grown {
                    if let Some(log) = self.logs.get(&key) {
                        self.protocol.produced(&key, log.end());
                    }
                }
            }
            Chore::Room(room) => self.protocol.admit(room),
            Chore::Nothing => {}
        }
        true
    }

    fn keep_log(&mut self, event: &Event) {
        if let Event::Accepted { key, log } | Event::Interrupted { key, log } | Event::Ended { key, log, .. } = event {
            self.logs.insert(key.clone(), log.clone());
        }
    }
}

fn copy_of(identity: &Identity) -> Result<lictor_proto::sealing::SealingKey, EnrolError> {
    lictor_proto::sealing::SealingKey::from_private_bytes(identity.sealing_key.private_bytes())
        .map_err(EnrolError::SealingKey)
}

fn session_error(call: &'static str, status: &tonic::Status) -> EnrolError {
    let message = status.message().to_owned();
    match status.code() {
        tonic::Code::Unauthenticated => EnrolError::CertificateRefused(message),
        tonic::Code::PermissionDenied => EnrolError::Forbidden(message),
        code => EnrolError::Call { call, code, message },
    }
}

/// For the engine to answer for the assignments of a session that broke, before the next one names what is held.
const ENGINE_WAIT: Duration = Duration::from_secs(5);
/// A poll's answer counts as being connected for so long: two idle polls.
const POLL_SILENCE: Duration = Duration::from_secs(60);
/// Messages between us and the HTTP/2 connection. A control message waits for at most so many pieces of output.
const OUTBOUND: usize = 2;
/// For the control plane to answer the call; Welcome has its own limit.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// After a renewal that failed.
const RENEWAL_RETRY: Duration = Duration::from_secs(60);
/// For delivering the last results when draining.
const FLUSH: Duration = Duration::from_secs(10);
/// The same after a second signal.
const SHORT_FLUSH: Duration = Duration::from_secs(2);
