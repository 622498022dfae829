//! The bootstrap script (`INIT_SCRIPT`): run once, before the agent reads its configuration in full and before it has
//! any thread.
//!
//! The start has up to three stages, all the same process. The first finds secrets in its environment, which everybody
//! with the rights can read for as long as a program runs, and goes on as the same program without them. The second
//! runs the script and goes on as the same program again, with what the script exported. The third is the agent. A
//! start without script and secrets has only that. Secrets pass from stage to stage in memory and never come to be in
//! an environment again. Called by the command line.

mod environment;
mod family;
mod handover;
mod outcome;
mod output;
pub(crate) mod shim;
mod source;
mod stage;
mod words;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lictor_telemetry::Traces;
use lictor_winrm::mask::Patterns;
use rustix::process::{Resource, getrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use zeroize::{Zeroize as _, Zeroizing};

use crate::config::bootstrap::{Early, early};
use crate::config::{Mistakes, OnFailure};
use crate::failure::ExitCode;
use crate::process;
use crate::telemetry::{self, Metrics};
use handover::Handover;
pub(crate) use outcome::Outcome;
use source::{Pod, Script, pair};
use stage::{Finished, Order, Ran};

/// What the agent begins with.
pub(crate) struct Begun {
    /// Variables, secret ones among them, for the loader of the configuration.
    pub(crate) environment: Vec<(String, String)>,
    /// Settings that the script exported, under everything else.
    pub(crate) beneath: HashMap<String, String>,
    /// How the script went, when there was one.
    pub(crate) outcome: Option<Outcome>,
    streams: Vec<(String, i32)>,
    masked: Zeroizing<Vec<String>>,
    /// Whether core dumps could be forbidden.
    pub(crate) guarded: std::io::Result<()>,
    /// Whether secrets could be taken out of the environment.
    pub(crate) hidden: anyhow::Result<()>,
}

/// How the start goes on.
pub(crate) enum Start {
    /// As the agent.
    Agent(Box<Begun>),
    /// Not at all.
    Ended(ExitCode),
    /// The settings that are needed this early have mistakes.
    Mistaken(Vec<String>),
}

/// The first thing that happens. Returns in the stage that is the agent, or when there is to be none.
///
/// # Errors
/// When this process cannot do what it must.
pub(crate) fn begin(file: Option<&Path>) -> anyhow::Result<Start> {
    // Until somebody listens. Else one that comes this early is lost on the first process of a container, and the container
    // killed when its time is over.
    process::hold_signals_of_the_first();
    let open_files = getrlimit(Resource::Nofile).current;
    let guarded = process::guard();
    let mut handover = match handover::take().context("failed to read what was handed over")? {
        Some(handover) => handover,
        None => {
            let pod = Pod::of(std::env::vars_os());
            let script = match look(file, &pod) {
                Ok(script) => script,
                // The loader says what else is wrong.
                Err(mistakes) => return Ok(Start::Mistaken(mistakes)),
            };
            if script.is_none() && !pod.is_secret() {
                return Ok(Start::Agent(Box::new(Begun::plain(guarded, Ok(())))));
            }
            let runs = script.is_some();
            let mut handover = Handover::default();
            handover.secrets.clone_from(&pod.secrets);
            handover.script = script.map(|Script { origin, bytes }| (STANDARD.encode(&*bytes), origin));
            handover.open_files = open_files;
            let error = handover::go_on(&handover, &pod.plain);
            let error = anyhow::Error::new(error).context("failed to go on without the secrets in the environment");
            // A script would see them; the agent alone works with them all the same.
            return if runs { Err(error) } else { Ok(Start::Agent(Box::new(Begun::plain(guarded, Err(error))))) };
        }
    };
    match handover.script.take() {
        Some((mut script, origin)) => {
            let bytes = STANDARD.decode(&script).map(Zeroizing::new);
            script.zeroize();
            let script = Script { origin, bytes: bytes.context("the script was not handed over whole")? };
            run(file, script, &handover)
        }
        None => Ok(Start::Agent(Box::new(Begun::after(&mut handover, guarded)))),
    }
}

/// Where a script comes from, when there is one, or what is wrong with its settings and sources. Runs nothing.
pub(crate) fn origin(file: Option<&Path>) -> Result<Option<String>, Vec<String>> {
    look(file, &Pod::of(std::env::vars_os())).map(|script| script.map(|script| script.origin))
}

/// The environment as the agent's loader finds it where no script runs.
pub(crate) fn environment() -> Vec<(String, String)> {
    let pod = Pod::of(std::env::vars_os());
    whole(pod.plain, &pod.secrets)
}

/// What may be seen together with what may not. A proxy's URL is in both, in one without its password.
fn whole(plain: impl IntoIterator<Item = (OsString, OsString)>, secrets: &[(String, String)]) -> Vec<(String, String)> {
    let visible = plain.into_iter().filter_map(pair);
    let visible = visible.filter(|(name, _)| !secrets.iter().any(|(secret, _)| secret == name));
    visible.chain(secrets.iter().cloned()).collect()
}

/// The script, when there is one.
fn look(file: Option<&Path>, pod: &Pod) -> Result<Option<Script>, Vec<String>> {
    let settings =
        early(file, whole(pod.plain.iter().cloned(), &pod.secrets)).map_err(|Mistakes(mistakes)| mistakes)?;
    pod.script(settings.bootstrap.script_file.as_deref()).map_err(|mistake| vec![mistake])
}

/// The second stage. Whatever comes of it, the script's processes do not outlive an agent that ends here.
fn run(file: Option<&Path>, script: Script, handover: &Handover) -> anyhow::Result<Start> {
    let pod: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let settings = match early(file, whole(pod.iter().cloned(), &handover.secrets)) {
        Ok(settings) => settings,
        Err(Mistakes(mistakes)) => return Ok(Start::Mistaken(mistakes)),
    };
    // Of a start nothing is traced.
    let _telemetry = telemetry::start_logs(&settings.log, Traces::off()).context("failed to set up logs")?;
    // Whoever started them did so before this program ran as the agent.
    family::leave_out(family::present());
    let order =
        Order { script, early: &settings, pod: &pod, secrets: &handover.secrets, open_files: handover.open_files };
    let ran = stage::run(order).context("failed to run the bootstrap script");
    let ended = match ran {
        Ok(Ran::Finished(finished)) => match tell(&settings, &finished) {
            None => return go_on(*finished, &pod, handover),
            Some(code) => Ok(Start::Ended(code)),
        },
        Ok(Ran::Stopped { again }) => {
            tracing::info!("Stopped");
            Ok(Start::Ended(if again { ExitCode::Interrupted } else { ExitCode::Success }))
        }
        Err(error) => Err(error),
    };
    family::end();
    ended
}

/// Says how it went. Nothing: the agent goes on.
fn tell(settings: &Early, finished: &Finished) -> Option<ExitCode> {
    let Finished { outcome, sorted, .. } = finished;
    if !sorted.kept.is_empty() {
        let names = sorted.kept.join(", ");
        tracing::info!(
            names,
            "Variables of the pod's own environment count, not what the bootstrap script made of them"
        );
    }
    if !sorted.withheld.is_empty() {
        let names = sorted.withheld.join(", ");
        tracing::warn!(
            names,
            "Variables that the bootstrap script exported are not taken over: secret, too long, or for the loader"
        );
    }
    if !outcome.failed() {
        if outcome.failed_commands > 0 {
            tracing::warn!(outcome = %outcome, "The bootstrap script ended well, but not all of its commands did");
        } else {
            tracing::info!(outcome = %outcome, "The bootstrap script ended");
        }
        return None;
    }
    match settings.bootstrap.policy {
        OnFailure::Warn => {
            tracing::warn!(outcome = %outcome, "The bootstrap script failed; the agent goes on all the same");
            None
        }
        OnFailure::Fail => {
            tracing::error!(outcome = %outcome, "The bootstrap script failed, and bootstrap.policy is fail");
            Some(ExitCode::Bootstrap)
        }
    }
}

fn go_on(finished: Finished, pod: &[(OsString, OsString)], handover: &Handover) -> anyhow::Result<Start> {
    let Finished { outcome, sorted, streams, masked } = finished;
    // Inherited, so that nobody who still prints meets a broken pipe; held until this program is no more.
    let inherited = streams.iter().filter_map(|(name, pipe)| Some((name.clone(), stage::inherit(pipe).ok()?)));
    let mut next = Handover::default();
    next.secrets = handover.secrets.iter().cloned().chain(sorted.secrets).collect();
    next.beneath = sorted.beneath;
    next.outcome = Some(outcome);
    next.strangers = family::strangers().to_vec();
    next.streams = inherited.collect();
    if !streams.is_empty() {
        next.masked = masked.to_vec();
    }
    let error = handover::go_on(&next, &sorted.environment);
    tracing::warn!(error = %error, "What the bootstrap script exported cannot be taken over");
    let error = handover::go_on(&next, pod);
    family::end();
    Err(error).context("failed to go on after the bootstrap script")
}

impl Begun {
    fn plain(guarded: std::io::Result<()>, hidden: anyhow::Result<()>) -> Self {
        Self {
            environment: environment(),
            beneath: HashMap::new(),
            outcome: None,
            streams: Vec::new(),
            masked: Zeroizing::default(),
            guarded,
            hidden,
        }
    }

    fn after(handover: &mut Handover, guarded: std::io::Result<()>) -> Self {
        family::leave_out(std::mem::take(&mut handover.strangers));
        let secrets = std::mem::take(&mut handover.secrets);
        Self {
            environment: whole(std::env::vars_os(), &secrets),
            beneath: std::mem::take(&mut handover.beneath).into_iter().collect(),
            outcome: handover.outcome.take(),
            streams: std::mem::take(&mut handover.streams),
            masked: Zeroizing::new(std::mem::take(&mut handover.masked)),
            guarded,
            hidden: Ok(()),
        }
    }

    /// Follows what the script left running: logs what it prints and takes in what ends. Ends when dropped.
    pub(crate) fn follow(&mut self, metrics: &Arc<Metrics>) -> Followers {
        let stop = CancellationToken::new();
        let mut tasks = Vec::new();
        let patterns = Arc::new(Patterns::new(self.masked.iter().map(String::as_str)));
        for (name, number) in self.streams.drain(..) {
            let name = if name == "stderr" { "stderr" } else { "stdout" };
            match stage::inherited(number) {
                Ok(pipe) => tasks.push(output::follow(name, pipe, Arc::clone(&patterns), stop.clone())),
                Err(error) => tracing::warn!(error = %error, "What the bootstrap script left running cannot be heard"),
            }
        }
        let mut tasks: Vec<_> = tasks.into_iter().map(|task| AbortOnDropHandle::new(tokio::spawn(task))).collect();
        // Also without a script: the first process of a container gets everybody's orphans.
        tasks.push(AbortOnDropHandle::new(tokio::spawn(reap(Arc::clone(metrics), self.outcome.is_some()))));
        Followers { _stop: stop.drop_guard(), _tasks: tasks }
    }
}

/// Ends what the script left running, when there was one. The last thing that happens.
pub(crate) fn end(outcome: Option<&Outcome>) {
    if outcome.is_some() {
        family::end();
    }
}

/// Tasks that follow what the script left running.
pub(crate) struct Followers {
    _stop: tokio_util::sync::DropGuard,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

async fn reap(metrics: Arc<Metrics>, counted: bool) {
    let mut children = match signal(SignalKind::child()) {
        Ok(children) => children,
        Err(error) => {
            tracing::warn!(error = %error, "Processes that end cannot be taken in");
            return;
        }
    };
    loop {
        family::reap();
        if counted {
            let left = tokio::task::spawn_blocking(family::count).await.unwrap_or_default();
            metrics.bootstrap_processes(left);
        }
        if children.recv().await.is_none() {
            return;
        }
    }
}
