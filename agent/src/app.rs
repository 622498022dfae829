//! Wires the agent together and runs it: state directory, HTTP endpoints, engine, link, and the way down.
//!
//! Decides nothing about tasks or sessions. Called by `cli` and by tests.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lictor_telemetry::{Levels, Traces, level};
use lictor_winrm::pool::{Pool, PoolSettings};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::admission::{Admission, Thresholds};
use crate::authorities;
use crate::bootstrap::Outcome;
use crate::config::{Config, Loaded, Told};
use crate::enrol::proxy::Way;
use crate::enrol::tls::Route;
use crate::enrol::{EnrolError, Store, TokenSource};
use crate::failure::ExitCode;
use crate::kerberos::{self, Kerberos};
use crate::link::{Link, LinkError, Parts, ReadyFile};
use crate::policy::{Policies, PolicyError};
use crate::secrets::{Keyring, Secrets};
use crate::sessions::Sessions;
use crate::shutdown::Shutdown;
use crate::tasks::engine::StartError;
use crate::tasks::{Engine, Settings};
use crate::telemetry::{Endpoints, Metrics};

/// Why the agent ended other than by draining.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct AppError(#[from] Kind);

#[derive(Debug, thiserror::Error)]
enum Kind {
    #[error(transparent)]
    Policy(PolicyError),
    #[error(transparent)]
    Authorities(authorities::AuthoritiesError),
    #[error("failed to set up Kerberos")]
    Kerberos(#[source] kerberos::StartError),
    #[error(transparent)]
    State(EnrolError),
    #[error(transparent)]
    Engine(StartError),
    #[error("failed to listen on {address} for the HTTP endpoints")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Link(LinkError),
    #[error("stopped at once by a second signal")]
    Interrupted,
}

impl AppError {
    /// The process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match &self.0 {
            Kind::Policy(_) | Kind::Authorities(_) | Kind::Kerberos(_) => ExitCode::Configuration,
            Kind::State(_) | Kind::Engine(_) => ExitCode::State,
            Kind::Listen { .. } => ExitCode::Other,
            Kind::Link(error) => error.exit_code(),
            Kind::Interrupted => ExitCode::Interrupted,
        }
    }
}

/// Runs the agent until `shutdown` is requested, the control plane drains it, or it cannot go on.
///
/// # Errors
/// [`AppError`], which knows its exit code.
pub async fn run(loaded: Loaded, ready_file: Option<PathBuf>, shutdown: Shutdown) -> Result<(), AppError> {
    run_after(loaded, ready_file, shutdown, Before::default()).await
}

/// What there is before the agent.
#[derive(Debug, Default)]
pub(crate) struct Before {
    /// How a bootstrap script went.
    pub(crate) outcome: Option<Outcome>,
    pub(crate) metrics: Arc<Metrics>,
    /// What changes the level of logs.
    pub(crate) levels: Option<Levels>,
}

/// The same after a bootstrap script, perhaps.
pub(crate) async fn run_after(
    loaded: Loaded,
    ready_file: Option<PathBuf>,
    shutdown: Shutdown,
    Before { outcome, metrics, levels }: Before,
) -> Result<(), AppError> {
    let Loaded { config, join_token, proxy_password, variables, told, traces, .. } = loaded;
    let config = Arc::new(config);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), name = config.name, control_plane = %config.control_plane, "Starting");
    tell(&told, &traces);
    authorities::trust(&config.ca_files).await.map_err(Kind::Authorities)?;
    let policies = Policies::open(config.policy_file.clone()).map_err(Kind::Policy)?;
    let store = Store::open(&config.state_dir).map_err(Kind::State)?;
    let rendered = std::path::absolute(config.state_dir.join(KRB5_CONF)).unwrap_or_else(|_| PathBuf::from(KRB5_CONF));
    let kerberos = Kerberos::start(&config.kerberos, rendered).await.map_err(Kind::Kerberos)?;
    if let Some(outcome) = &outcome {
        metrics.bootstrapped(outcome);
    }
    let keyring = Arc::new(Keyring::default());
    let pool = Pool::new(pool_settings(&config, store.installation().map_err(Kind::State)?));
    let endpoints = Endpoints::bind(config.http_listen)
        .await
        .map_err(|source| Kind::Listen { address: config.http_listen, source })?;
    let settings = Settings { slots: config.slots, drain_grace: config.drain_grace };
    let secrets = Secrets::new(
        Arc::clone(&keyring),
        &config.name,
        &config.secrets,
        variables,
        Arc::clone(&policies),
        Arc::clone(&metrics),
    );
    let sessions =
        Sessions::new(pool.clone(), secrets.clone(), Arc::clone(&policies), kerberos.clone(), Arc::clone(&metrics));
    let started = Engine::start(&config.state_dir, settings, sessions, Arc::clone(&metrics)).await;
    let (engine, mut handle) = started.map_err(Kind::Engine)?;
    handle.degraded.extend(outcome.filter(Outcome::failed).map(|outcome| outcome.summary()));

    let http_address = endpoints.address().to_string();
    let served = CancellationToken::new();
    let server = tokio::spawn(endpoints.serve(Arc::clone(&metrics), pool, served.clone()));
    let server = AbortOnDropHandle::new(server);
    let thresholds = Thresholds {
        memory: config.admission.memory_percent,
        cpu: config.admission.cpu_percent,
        stall: config.admission.memory_stall_percent,
    };
    let root = config.admission.cgroup_root.clone();
    let admission = Admission::new(root, thresholds, Arc::clone(&policies), Arc::clone(&metrics));
    let room = admission.room();
    let admission = AbortOnDropHandle::new(tokio::spawn(admission.follow(served.clone())));
    let following = policies.follow(Arc::clone(&metrics), served.clone());
    let following = AbortOnDropHandle::new(tokio::spawn(following));
    // Only now: the engine holds the lock of the state directory.
    let leveller = levels.map(|levels| {
        AbortOnDropHandle::new(tokio::spawn(level::serve(config.state_dir.clone(), levels, served.clone())))
    });
    let engine = AbortOnDropHandle::new(tokio::spawn(engine.run(shutdown.stop().clone())));

    let route = Route {
        address: config.control_plane.clone(),
        proxy: config.proxy.clone().map(|proxy| Way::new(proxy, proxy_password)),
    };
    let link = Link::new(Parts {
        route,
        tokens: TokenSource { value: join_token, file: config.join_token_file.clone() },
        config,
        store,
        keyring,
        kerberos,
        secrets,
        metrics,
        shutdown: shutdown.clone(),
        room,
        engine: handle,
        ready: ready_file.map(|path| ReadyFile { path, http_address }),
    });
    let ended = link.run().await;
    if let Err(error) = &ended {
        tracing::error!(error = %crate::failure::chain(error), "The agent cannot go on");
    }

    // The link dropped its handle, which ends the engine once its tasks have stopped.
    match engine.await {
        Ok(sessions) => {
            let wait = if shutdown.stop().is_cancelled() { SHORT_CLOSE } else { CLOSE };
            let left = sessions.close(Instant::now() + wait).await;
            if left > 0 {
                tracing::warn!(
                    left,
                    "Shells could not be deleted on their hosts; Windows deletes them when they have been idle long enough"
                );
            }
        }
        Err(error) => tracing::error!(error = %error, "The engine broke off"),
    }
    served.cancel();
    // A scrape that hangs must not keep the process.
    if !matches!(timeout(SERVER_CLOSE, server).await, Ok(Ok(Ok(())))) {
        tracing::debug!("The HTTP endpoints were not closed in order");
    }
    if !matches!(timeout(SERVER_CLOSE, admission).await, Ok(Ok(()))) {
        tracing::debug!("The control group was not watched to the end");
    }
    if let Some(leveller) = leveller
        && !matches!(timeout(SERVER_CLOSE, leveller).await, Ok(Ok(())))
    {
        tracing::debug!("The socket for the level of logs was not closed in order");
    }
    if !matches!(timeout(SERVER_CLOSE, following).await, Ok(Ok(Ok(())))) {
        tracing::debug!("The policy was not followed to the end");
    }
    ended.map_err(Kind::Link)?;
    if shutdown.stop().is_cancelled() {
        return Err(Kind::Interrupted.into());
    }
    tracing::info!("Stopped");
    Ok(())
}

/// Says what became of a delegate's variables: in one line what does nothing, in one each what was understood otherwise.
fn tell(told: &Told, traces: &Traces) {
    if !told.ignored.is_empty() {
        let each = told.ignored.iter().map(|ignored| format!("{}: {}", ignored.name, ignored.reason));
        let ignored = each.collect::<Vec<_>>().join("; ");
        tracing::info!(ignored, "Some variables of a Harness delegate do nothing here");
    }
    for remark in &told.remarks {
        tracing::warn!(remark, "A variable of a Harness delegate is not taken as it stands");
    }
    for remark in &traces.remarks {
        tracing::warn!(remark, "A variable of OpenTelemetry is not taken as it stands");
    }
    if let Some(endpoint) = &traces.settings.otlp_endpoint {
        tracing::info!(endpoint, sample_ratio = traces.settings.sample_ratio, "Traces are exported");
    }
}

fn pool_settings(config: &Config, installation: String) -> PoolSettings {
    let number = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
    PoolSettings {
        max_sessions: number(config.pool.max_sessions),
        max_shells_per_user: number(config.pool.max_shells_per_user),
        max_shells_per_host: number(config.pool.max_shells_per_host),
        connection_idle: config.pool.connection_idle,
        shell_idle: config.pool.shell_idle,
        commands_per_shell: config.pool.commands_per_shell,
        commands_per_user: config.pool.commands_per_user,
        owner: Some(installation),
    }
}

/// What the settings declare, for MIT's programs; beside the agent's own state.
pub(crate) const KRB5_CONF: &str = "krb5.conf";
/// For deleting shells on their hosts; one exchange with each, side by side.
const CLOSE: Duration = Duration::from_secs(15);
/// The same after a second signal.
const SHORT_CLOSE: Duration = Duration::from_secs(3);
/// For answers of the HTTP endpoints under way.
const SERVER_CLOSE: Duration = Duration::from_secs(1);
