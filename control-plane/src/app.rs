//! Wiring: opens the state, binds the ports, runs the engine and the two servers, and stops them in order.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use lictor_telemetry::{Levels, Telemetry, level};
use serde_json::json;
use sqlx::SqliteConnection;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tracing::{info, warn};

use crate::access::{Directory, Guard, Role, hash_token, new_token, token_id};
use crate::api::{Api, Calls};
use crate::audit::{Action, Actor, Chain, Event};
use crate::authority::{Authority, AuthorityError};
use crate::clock::Now;
use crate::config::Config;
use crate::dispatch::{Limits, Settings};
use crate::engine::{Command, Engine, EngineHandle, Parts, Retention, load_ledger, open_chain};
use crate::listener::{Bounds, Door, Plain};
use crate::metrics::Metrics;
use crate::oidc::{Issuer, OidcError};
use crate::platform::{Platform, Request};
use crate::store::access::{TokenRecord, UserRecord};
use crate::store::{self, Readers, StoreError};
use crate::vault::{Vault, VaultError};
use crate::watchers::Watchers;
use crate::{files, http, listener, master_keys, process};

/// Why the control plane could not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] Cause);

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("failed to prepare {path}")]
    State {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the state directory {0} is in use by another control plane")]
    InUse(PathBuf),
    #[error("failed to listen on {address}")]
    Bind {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("the certificate authority cannot be used")]
    Authority(#[from] AuthorityError),
    #[error("the master key cannot be used")]
    Vault(#[from] VaultError),
    #[error("the OpenID Connect issuer cannot be used")]
    Oidc(#[from] OidcError),
    #[error("the database cannot be used")]
    Store(#[from] StoreError),
    #[error("the gRPC server failed")]
    Grpc(#[from] tonic::transport::Error),
    #[error("the HTTP server failed")]
    Http(#[source] std::io::Error),
    #[error("a part of the control plane ended unexpectedly")]
    Panicked(#[from] tokio::task::JoinError),
}

/// A control plane with its state open and its ports bound. [`ControlPlane::run`] serves.
pub struct ControlPlane {
    engine: Engine,
    api: Api,
    tls: TlsAcceptor,
    bounds: Bounds,
    grpc: TcpListener,
    http: TcpListener,
    address: SocketAddr,
    http_address: SocketAddr,
    metrics: Arc<Metrics>,
    issuer: Arc<Issuer>,
    requests: mpsc::Receiver<Request>,
    stop: CancellationToken,
    state_dir: PathBuf,
    /// Looks after the file of master keys, if they are in one.
    master_keys: Option<master_keys::Watch>,
    /// What changes the level of logs.
    levels: Option<Levels>,
    /// INVARIANT: one process at a time decides over what is in a state directory.
    lock: std::fs::File,
}

impl ControlPlane {
    /// Opens the state in `config.state_dir`, makes what the first start needs, and binds both ports.
    ///
    /// # Errors
    /// [`Error`] when the state cannot be used or a port cannot be bound.
    pub async fn start(config: &Config) -> Result<Self, Error> {
        Ok(Self::open(config).await?)
    }

    async fn open(config: &Config) -> Result<Self, Cause> {
        let State { lock, authority, readers, users, parts, requests } = State::open(config).await?;
        let tls = TlsAcceptor::from(Arc::new(authority.tls(&config.names)?));
        let (grpc, address) = bind(config.listen).await?;
        let (http, http_address) = bind(config.http_listen).await?;
        let bounds = Bounds {
            most: listener::within_file_bound(config.connections.most, process::file_bound()),
            per_source: config.connections.per_source,
            silence: SILENCE,
        };
        let stop = CancellationToken::new();
        let (metrics, watchers) = (Arc::clone(&parts.metrics), Arc::clone(&parts.watchers));
        let audited_seen = parts.audited.subscribe();
        let vault = parts.vault.clone();
        let issuer = Arc::clone(&parts.issuer);
        let (engine, handle) = Engine::new(parts);
        let master_keys = master_keys::Watch::new(config, vault, handle.clone(), Arc::clone(&metrics));
        let api = Api {
            engine: handle,
            readers,
            watchers,
            authority,
            users,
            guard: Arc::default(),
            metrics: Arc::clone(&metrics),
            audited: audited_seen,
            sessions: Arc::new(AtomicU64::new(1)),
            calls: Calls::new(),
            tracker: TaskTracker::new(),
            stop: stop.clone(),
            silence: config.lease * LEASES_OF_SILENCE,
        };
        let (state_dir, levels) = (config.state_dir.clone(), None);
        Ok(Self {
            engine,
            api,
            tls,
            bounds,
            grpc,
            http,
            address,
            http_address,
            metrics,
            issuer,
            requests,
            stop,
            state_dir,
            master_keys,
            levels,
            lock,
        })
    }

    /// Lets what is told of this process be changed and counted.
    pub(crate) fn tell_of(&mut self, telemetry: &Telemetry) {
        self.metrics.traces(telemetry.figures());
        self.levels = Some(telemetry.levels());
    }

    /// Where agents and users connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where `/live`, `/ready` and `/metrics` are served.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Says where it listens, in a file that appears whole: for scripts that wait for it.
    ///
    /// # Errors
    /// [`Error`] when the file cannot be written.
    pub fn write_ready_file(&self, path: &Path) -> Result<(), Error> {
        let reachable = |address: SocketAddr| match address.ip().is_unspecified() {
            true => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
            false => address,
        };
        let text = serde_json::json!({
            "address": reachable(self.address).to_string(),
            "http_address": reachable(self.http_address).to_string(),
        });
        files::write_public(path, text.to_string().as_bytes())
            .map_err(|source| Error(Cause::State { path: path.to_owned(), source }))
    }

    /// Serves until `shutdown` ends, then stops gracefully: not ready first, agents get Goodbye, what was handed over
    /// is stored.
    ///
    /// # Errors
    /// [`Error`] when a part fails; everything is stopped then too.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
        Ok(self.serve(shutdown).await?)
    }

    async fn serve(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), Cause> {
        let Self {
            engine,
            api,
            tls,
            bounds,
            grpc,
            http,
            metrics,
            issuer,
            requests,
            stop,
            state_dir,
            master_keys,
            levels,
            address,
            http_address,
            lock,
        } = self;
        let (tracker, readers) = (api.tracker.clone(), api.readers.clone());
        let platform = Platform::new(Arc::clone(&issuer)).run(requests, api.engine.clone(), stop.clone());
        let notes = (api.engine.clone(), Arc::clone(&api.guard), Arc::clone(&api.users));
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_WAIT))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(MAX_STREAMS)
            .http2_max_header_list_size(MAX_HEADERS)
            .http2_max_pending_accept_reset_streams(Some(MAX_RESETS))
            .http2_max_local_error_reset_streams(Some(MAX_RESETS))
            .add_routes(api.routes());
        let notes = note_access(notes.0, notes.1, notes.2, stop.clone());
        // Full: handshakes wait.
        let (ready, incoming) = mpsc::channel(READY_CONNECTIONS);
        let incoming = ReceiverStream::new(incoming);
        let mut parts: JoinSet<Result<(), Cause>> = JoinSet::new();
        let engine_stop = stop.clone();
        parts.spawn(async move { Ok(engine.run(engine_stop).await?) });
        let door = Door::new(bounds, Arc::clone(&metrics));
        let accept_stop = stop.clone();
        parts.spawn(async move {
            listener::accept_tls(grpc, tls, door, ready, accept_stop).await;
            Ok(())
        });
        parts.spawn(async move {
            notes.await;
            Ok(())
        });
        let grpc_stop = stop.clone();
        parts.spawn(
            async move { Ok(server.serve_with_incoming_shutdown(incoming, grpc_stop.cancelled_owned()).await?) },
        );
        let door = Door::new(HTTP_BOUNDS, Arc::clone(&metrics));
        let http = Plain { listener: http, door };
        let router = http::router(metrics, Arc::clone(&issuer), stop.clone());
        let http_stop = stop.clone();
        parts.spawn(async move {
            axum::serve(http, router).with_graceful_shutdown(http_stop.cancelled_owned()).await.map_err(Cause::Http)
        });
        if let Some(master_keys) = master_keys {
            let keys_stop = stop.clone();
            parts.spawn(async move {
                master_keys.run(keys_stop).await;
                Ok(())
            });
        }
        parts.spawn(async move {
            platform.await;
            Ok(())
        });
        let tokens_stop = stop.clone();
        parts.spawn(async move {
            issuer.keep(tokens_stop).await;
            Ok(())
        });
        if let Some(levels) = levels {
            let level_stop = stop.clone();
            parts.spawn(async move {
                level::serve(state_dir, levels, level_stop).await;
                Ok(())
            });
        }
        info!(%address, %http_address, "Control plane ready");

        let first = tokio::select! {
            () = shutdown => None,
            ended = parts.join_next() => ended,
        };
        info!("Control plane stops");
        stop.cancel();
        let mut outcome = first.map_or(Ok(()), |ended| ended.map_err(Cause::from).flatten());
        let rest = async {
            while let Some(ended) = parts.join_next().await {
                let ended = ended.map_err(Cause::from).flatten();
                if outcome.is_ok() {
                    outcome = ended;
                }
            }
            tracker.close();
            tracker.wait().await;
            readers.close().await;
        };
        if tokio::time::timeout(STOP_WAIT, rest).await.is_err() {
            warn!("Some connections did not end in time and were cut");
        }
        parts.shutdown().await;
        drop(lock);
        outcome
    }
}

/// An error and all its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

impl Error {
    /// The error and all its causes in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        chain(&self.0)
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Cause> {
    let failed = |source| Cause::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// The state directory is nobody else's business.
fn prepare_directory(path: &Path) -> Result<(), Cause> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| Cause::State { path: path.to_owned(), source })
}

/// Hands what the services noted of refused calls and used tokens to the engine. Refusals at once when it was quiet
/// before, else once a minute, so that whoever tries tokens cannot fill the disk.
async fn note_access(engine: EngineHandle, guard: Arc<Guard>, users: Arc<Directory>, stop: CancellationToken) {
    let mut quiet = Instant::now();
    loop {
        let refusals = async {
            tokio::time::sleep_until(quiet).await;
            guard.pending.notified().await;
        };
        let refused = tokio::select! {
            () = stop.cancelled() => break,
            () = users.fresh.notified() => None,
            () = refusals => {
                quiet = Instant::now() + NOTE_INTERVAL;
                guard.take()
            }
        };
        if engine.tell(Command::NoteAccess { refused, used: users.used() }).await.is_err() {
            return;
        }
    }
    // An engine that has stopped already writes nothing more: what was refused in the last minute is in the metrics only.
    let _ = engine.tell(Command::NoteAccess { refused: guard.take(), used: users.used() }).await;
}

/// What is in a state directory, opened.
struct State {
    /// INVARIANT: one process at a time decides over what is in a state directory.
    lock: std::fs::File,
    authority: Arc<Authority>,
    readers: Readers,
    users: Arc<Directory>,
    parts: Parts,
    /// What the engine asks AWS KMS for.
    requests: mpsc::Receiver<Request>,
}

impl State {
    async fn open(config: &Config) -> Result<Self, Cause> {
        let state_dir = config.state_dir.as_path();
        prepare_directory(state_dir)?;
        let lock = lock(state_dir)?;
        let authority = Arc::new(Authority::open(state_dir)?);
        let vault = Vault::open(&config.master_key, state_dir)?;
        let (mut writer, readers) = store::open(state_dir, vault.task_keys()).await?;
        let (users, chain) = open_users(&mut writer, state_dir).await?;
        let users = Arc::new(users);
        let settings = Settings {
            lease: config.lease,
            heartbeat_interval: config.heartbeat_interval,
            lost_wait: config.lost_wait,
            restart_grace: config.restart_grace,
            output_limit: config.output_limit,
            limits: Limits {
                tasks_per_host: config.limits.tasks_per_host,
                tasks_per_credential: config.limits.tasks_per_credential,
            },
        };
        let ledger = load_ledger(&mut writer, &vault, settings, Now::read()).await?;
        let issuer = Issuer::open(&config.oidc, state_dir, vault.task_keys(), Now::read().wall)?;
        let (platform, requests) = Platform::queue();
        let parts = Parts {
            writer,
            ledger,
            authority: Arc::clone(&authority),
            vault,
            watchers: Arc::new(Watchers::default()),
            metrics: Arc::new(Metrics::of(Now::read().wall, authority.end())),
            agent_certificate_lifetime: config.agent_certificate_lifetime,
            settings,
            retention: Retention {
                tasks: config.retention.tasks,
                outputs: config.retention.outputs,
                output_bytes: config.retention.output_bytes,
            },
            users: Arc::clone(&users),
            issuer: Arc::new(issuer),
            chain,
            audited: watch::Sender::new(0),
            platform,
        };
        Ok(Self { lock, authority, readers, users, parts, requests })
    }
}

/// All users, and the end of the audit log; at the first start the administrator is made, and the token written to a
/// file that only its owner reads.
async fn open_users(writer: &mut SqliteConnection, state_dir: &Path) -> Result<(Directory, Chain), Cause> {
    let mut chain = open_chain(writer).await?;
    if store::access::count_users(writer).await? == 0 {
        let path = make_administrator(writer, state_dir, &mut chain, false).await?;
        info!(path = %path.display(), "First start: the administrator's token was written");
    }
    let (users, tokens) = store::access::all(writer).await?;
    Ok((Directory::new(&users, tokens), chain))
}

/// Makes the administrator, or enables that user again, with a new token. All of it happens or nothing; where the token
/// was written.
async fn make_administrator(
    writer: &mut SqliteConnection,
    state_dir: &Path,
    chain: &mut Chain,
    revoke_others: bool,
) -> Result<PathBuf, Cause> {
    let now = Now::read().wall;
    let text = new_token();
    let path = state_dir.join("admin-token");
    let statement = |error| Cause::Store(StoreError::Statement(error));
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *writer).await.map_err(statement)?;
    let known = store::access::user(writer, ADMINISTRATOR).await?;
    let admin = UserRecord {
        name: ADMINISTRATOR.into(),
        role: Role::Admin,
        scope: String::new(),
        description: known.as_ref().map(|user| user.description.clone()).unwrap_or_default(),
        created_at: known.as_ref().map_or(now, |user| user.created_at),
        disabled_at: None,
    };
    store::access::save_user(writer, &admin).await?;
    let mut done = Vec::new();
    if known.is_none_or(|user| user.disabled_at.is_some()) {
        done.push((Action::UserCreated, "user", admin.name.clone(), json!({ "role": "admin" })));
    }
    if revoke_others {
        let (_, tokens) = store::access::all(writer).await?;
        for token in tokens.into_iter().filter(|token| token.user == admin.name && token.revoked_at.is_none()) {
            store::access::revoke_token(writer, &token.token_id, now).await?;
            done.push((Action::UserTokenRevoked, "user_token", token.token_id, json!({ "user": ADMINISTRATOR })));
        }
    }
    let hash = hash_token(&text);
    let token = TokenRecord {
        token_id: token_id(&hash),
        user: admin.name,
        hash,
        description: "made on the control plane's machine".into(),
        created_at: now,
        expires_at: None,
        last_used_at: None,
        revoked_at: None,
    };
    store::access::add_token(writer, &token).await?;
    done.push((Action::UserTokenIssued, "user_token", token.token_id, json!({ "user": ADMINISTRATOR })));
    for (action, kind, id, details) in done {
        let event = Event { action, actor: Actor::Machine, object: (kind, &id), outcome: "ok", details };
        let (seq, line) = chain.next(&event, now);
        store::audit::append(writer, seq, now, &line).await?;
    }
    files::write_private(&path, text.as_bytes()).map_err(|source| Cause::State { path: path.clone(), source })?;
    sqlx::query("COMMIT").execute(writer).await.map_err(statement)?;
    Ok(path)
}

/// Issues the administrator a new token while no control plane runs on the state directory. Where it was written.
///
/// # Errors
/// [`Error`] when the state cannot be used, above all because a control plane uses it.
pub(crate) async fn issue_admin_token(config: &Config, revoke_others: bool) -> Result<PathBuf, Error> {
    let state_dir = config.state_dir.as_path();
    let issue = async {
        prepare_directory(state_dir)?;
        let _lock = lock(state_dir)?;
        let (mut writer, _readers) =
            store::open(state_dir, Vault::open(&config.master_key, state_dir)?.task_keys()).await?;
        let mut chain = open_chain(&mut writer).await?;
        make_administrator(&mut writer, state_dir, &mut chain, revoke_others).await
    };
    issue.await.map_err(Error)
}

/// Ends every task of a restored database that has not ended in it as unknown, while no control plane runs: since the
/// backup it may have been carried out. Returns how many.
///
/// # Errors
/// [`Error`] when the state cannot be used, above all because a control plane uses it.
pub(crate) async fn settle_restored(config: &Config) -> Result<usize, Error> {
    let settle = async {
        let State { lock: _lock, parts, .. } = State::open(config).await?;
        let (engine, _handle) = Engine::new(parts);
        Ok(engine.settle_restored().await?)
    };
    settle.await.map_err(|cause: Cause| Error(cause))
}

fn lock(state_dir: &Path) -> Result<std::fs::File, Cause> {
    files::lock(&state_dir.join("lock"))
        .map_err(|source| Cause::State { path: state_dir.join("lock"), source })?
        .ok_or_else(|| Cause::InUse(state_dir.to_owned()))
}

const ADMINISTRATOR: &str = "admin";
/// About 1 MiB a day of audit log at the most, while somebody tries tokens all the time.
const NOTE_INTERVAL: Duration = Duration::from_secs(60);
/// Finds out within half a minute that a peer is gone; well below what middleboxes forget connections after.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_WAIT: Duration = Duration::from_secs(15);
/// By then every lease that the session held has run out twice over.
const LEASES_OF_SILENCE: u32 = 3;
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Watchers share one connection in some clients.
const MAX_STREAMS: u32 = 256;
/// Far more than a token and what a client says of itself.
const MAX_HEADERS: u32 = 16 << 10;
/// A peer that opens streams and takes them back faster than they are looked at is cut off.
const MAX_RESETS: usize = 20;
/// Connections that are through their handshake and not yet taken by the server.
const READY_CONNECTIONS: usize = 64;
/// A living peer answers a ping at least every [`KEEPALIVE_INTERVAL`]. Behind the pings, which need HTTP/2 to have begun.
const SILENCE: Duration = Duration::from_secs(35);
/// Kubelets and collectors are few and quick.
const HTTP_BOUNDS: Bounds = Bounds { most: 128, per_source: 32, silence: Duration::from_secs(15) };
/// Longer than a Goodbye needs, shorter than the patience of an orchestrator.
const STOP_WAIT: Duration = Duration::from_secs(5);
