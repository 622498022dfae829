//! Runs the bootstrap script: starts it, logs what it prints, answers probes meanwhile, and ends it when it takes too
//! long or when the agent is to stop.
//!
//! One thread, and nothing of the agent's own but this. The script's environment is the pod's without its secrets. It
//! must never wait for what the script left running. Called by `bootstrap`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use lictor_kerberos::config::{Source, Watch};
use lictor_winrm::mask::Patterns;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, WaitStatus, kill_process_group, set_child_subreaper};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};
use zeroize::Zeroizing;

use super::environment::{Report, Sorted, sort};
use super::handover::{memory, program};
use super::outcome::{End, Outcome};
use super::output::{Budget, CHUNK, Lines, MAX_OUTPUT, forms, log};
use super::source::{Script, has};
use super::words::{Found, is_telling, search};
use super::{family, shim};
use crate::config::bootstrap::Early;
use crate::config::foreign_name;
use crate::failure::chain;
use crate::process;
use crate::telemetry::Endpoints;

/// What to run, and in which surroundings.
pub(super) struct Order<'o> {
    pub(super) script: Script,
    pub(super) early: &'o Early,
    /// The pod's environment, without secrets.
    pub(super) pod: &'o [(OsString, OsString)],
    pub(super) secrets: &'o [(String, String)],
    pub(super) open_files: Option<u64>,
}

/// How it went, and what it left.
pub(super) struct Finished {
    pub(super) outcome: Outcome,
    pub(super) sorted: Sorted,
    /// What is left running still prints into these.
    pub(super) streams: Vec<(String, OwnedFd)>,
    /// What is masked in it.
    pub(super) masked: Zeroizing<Vec<String>>,
}

/// What came of it.
pub(super) enum Ran {
    Finished(Box<Finished>),
    /// The agent was asked to stop; a second time, if that is set.
    Stopped {
        again: bool,
    },
}

/// Runs it.
///
/// # Errors
/// What this process could not do for itself; what the script does is no error.
pub(super) fn run(order: Order<'_>) -> io::Result<Ran> {
    let found = search(&order.script.bytes);
    let (used, served) = passwords(&found, order.pod);
    let known = known_secrets(&order, &used);
    let masked = forms(known.iter().chain(&found.secrets).map(String::as_str));
    drop(found);
    let patterns = Arc::new(Patterns::new(masked.iter().map(String::as_str)));
    if order.script.bytes.windows(2).any(|pair| pair == b"\r\n") {
        tracing::warn!("The bootstrap script has line ends of Windows, over which bash stumbles");
    }
    let mut environment = order.pod.to_vec();
    if !has(order.pod, KRB5_CONFIG.as_ref())
        && let Some(path) = krb5_config(order.early)
    {
        environment.push((KRB5_CONFIG.into(), path.into()));
    }
    // Whatever it starts stays a descendant, and what it orphans comes to us.
    if let Err(error) = set_child_subreaper(Some(rustix::process::getpid())) {
        tracing::warn!(error = %error, "What the bootstrap script leaves running cannot be followed");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ran = runtime.block_on(async {
        let endpoints = match Endpoints::bind(order.early.http_listen).await {
            Ok(endpoints) => {
                let http_address = endpoints.address();
                tracing::info!(origin = order.script.origin, %http_address, "Running the bootstrap script");
                Some(tokio::spawn(endpoints.serve_before(STARTING)))
            }
            Err(error) => {
                let http_address = order.early.http_listen;
                tracing::warn!(error = %error, %http_address, "Probes are not answered while the bootstrap script runs");
                None
            }
        };
        let ran = attend(&order, &environment, &patterns, &served).await;
        // Their address is the next stage's. Nobody waits for a probe that is slow.
        if let Some(endpoints) = endpoints {
            endpoints.abort();
            let _ended = endpoints.await;
        }
        ran
    });
    runtime.shutdown_background();
    ran.map(|ran| match ran {
        Ran::Finished(finished) => Ran::Finished(Box::new(Finished { masked, ..*finished })),
        stopped @ Ran::Stopped { .. } => stopped,
    })
}

/// Variables of the pod that the script uses where passwords stand, which are masked, and those of them that leave the
/// environment: only where it is sure, because something else may need them.
fn passwords(found: &Found, pod: &[(OsString, OsString)]) -> (BTreeSet<String>, BTreeSet<String>) {
    let speaks =
        |name: &str| WELL_KNOWN.contains(&name) || name.starts_with("LICTOR_AGENT_") || name.starts_with("KUBERNETES_");
    let own = |name: &str| speaks(name) || foreign_name(name).is_some();
    let used: BTreeSet<String> =
        found.variables.iter().filter(|name| has(pod, name.as_ref()) && !own(name)).cloned().collect();
    let served = used.iter().filter(|name| found.served.contains(*name) || is_telling(name)).cloned().collect();
    (used, served)
}

/// What is known to be secret, beside what stands in the script: settings, what their files hold, and variables of the
/// pod.
fn known_secrets(order: &Order<'_>, used: &BTreeSet<String>) -> Zeroizing<Vec<String>> {
    let mut known = Zeroizing::new(Vec::new());
    for (_, value) in order.secrets {
        // Of a proxy's URL only the password; everything else is in each line about the proxy.
        let password = value.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')?.0.split_once(':'));
        known.push(password.map_or(value.as_str(), |(_, password)| password).trim().to_owned());
    }
    for path in &order.early.secret_files {
        let mut text = Zeroizing::new(String::with_capacity(MAX_SECRET));
        let read = File::open(path).and_then(|file| file.take(MAX_SECRET as u64).read_to_string(&mut text));
        if read.is_ok() {
            known.push(text.trim().to_owned());
        }
    }
    let mut room = MAX_SECRETS;
    for (name, value) in order.pod {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
        let meant = used.contains(name) || is_telling(name);
        if meant && value.len() <= room.min(MAX_SECRET) {
            room -= value.len();
            known.push(value.trim().to_owned());
        }
    }
    known
}

/// The configuration of Kerberos that the settings name or declare, for the script's `kinit`.
fn krb5_config(early: &Early) -> Option<PathBuf> {
    match early.kerberos.source() {
        Source::File(path) => Some(path),
        source @ Source::Declared(_) => {
            let rendered = std::path::absolute(early.state_dir.join(crate::app::KRB5_CONF)).ok()?;
            let directory = DirBuilder::new().recursive(true).mode(0o700).create(&early.state_dir);
            let written = directory
                .map_err(|error| error.to_string())
                .and_then(|()| Watch::start(source, Some(rendered.clone())).map_err(|error| chain(&error)));
            // The loader reports what is wrong with the settings.
            if let Err(error) = &written {
                tracing::warn!(error = %error, "The settings of Kerberos cannot be written for the bootstrap script");
            }
            written.is_ok().then_some(rendered)
        }
        _ => None,
    }
}

/// The script's processes and what they print.
struct Attended {
    shim: i32,
    /// The number of the script's descriptor, there.
    script: i32,
    report: File,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
}

fn start(order: &Order<'_>, environment: &[(OsString, OsString)]) -> io::Result<Attended> {
    let mut script = memory("lictor-script")?;
    script.write_all(&order.script.bytes)?;
    let report = memory("lictor-report")?;
    let (stdout, stdout_write) = io::pipe()?;
    let (stderr, stderr_write) = io::pipe()?;
    let (script_number, report_number) = (script.as_raw_fd(), report.as_raw_fd());
    let shell = &order.early.bootstrap.shell;
    let mut command = Command::new(program());
    command
        .args(shim::Arguments::words(script_number, report_number, shell, order.open_files))
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(stdout_write)
        .stderr(stderr_write);
    // Nothing else is started before they are closed to children again: there is one thread.
    for file in [script.as_fd(), report.as_fd()] {
        fcntl_setfd(file, FdFlags::empty())?;
    }
    let spawned = command.spawn();
    fcntl_setfd(&report, FdFlags::CLOEXEC)?;
    let shim = i32::try_from(spawned?.id()).map_err(io::Error::other)?;
    Ok(Attended {
        shim,
        script: script_number,
        report,
        stdout: Some(pipe::Receiver::from_owned_fd(stdout.into())?),
        stderr: Some(pipe::Receiver::from_owned_fd(stderr.into())?),
    })
}

/// How the two ended that matter, among any number of others.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ends<S> {
    shim: Option<S>,
    /// When its parent was no more.
    script: Option<S>,
}

impl<S: Copy> Ends<S> {
    /// The script becomes our child by the shim's end, so that it never ends in an earlier batch.
    fn take(&mut self, reaped: &[(i32, S)], shim: i32, script: impl FnOnce() -> Option<i32>) {
        let status_of = |pid: i32| reaped.iter().find(|(known, _)| *known == pid).map(|(_, status)| *status);
        self.shim = self.shim.or_else(|| status_of(shim));
        if self.shim.is_some() && self.script.is_none() && !reaped.is_empty() {
            self.script = script().and_then(status_of);
        }
    }
}

/// What is to happen next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It runs.
    Running,
    /// It was asked to end.
    Asked,
    /// It is killed.
    Killed,
}

async fn attend(
    order: &Order<'_>,
    environment: &[(OsString, OsString)],
    patterns: &Arc<Patterns>,
    served: &BTreeSet<String>,
) -> io::Result<Ran> {
    let mut children = signal(SignalKind::child())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    process::let_signals_come();
    let begun = Instant::now();
    let origin = order.script.origin.clone();
    let nothing = |end| Outcome {
        origin: origin.clone(),
        end,
        took: begun.elapsed(),
        failed_commands: 0,
        first_failed_line: None,
        background: (0, Vec::new()),
        orphaned: false,
    };
    let mut attended = match start(order, environment) {
        Ok(attended) => attended,
        Err(error) => {
            let outcome = nothing(End::NotStarted(error.to_string()));
            let sorted = sort(&Report::default(), order.pod, order.secrets, served, patterns);
            let finished = Finished { outcome, sorted, streams: Vec::new(), masked: Zeroizing::default() };
            return Ok(Ran::Finished(Box::new(finished)));
        }
    };
    let path = format!("/proc/{}/fd/{}", attended.shim, attended.script);
    let mut budget = Budget::new(MAX_OUTPUT);
    let mut lines =
        [("stdout", String::new()), ("stderr", path)].map(|(name, path)| Lines::new(name, Arc::clone(patterns), path));
    let mut flooded = false;
    let mut ended = Ends { shim: None, script: None };
    let (mut phase, mut stopping) = (Phase::Running, None);
    let mut next = begun + order.early.bootstrap.timeout;
    let end = loop {
        let reaped = family::reap();
        ended.take(&reaped, attended.shim, || Report::parse(&contents(&mut attended.report)).pid);
        let by_itself = ending(&mut attended, &ended);
        match phase {
            Phase::Running if by_itself.is_some() => break by_itself,
            // Then all that it began has to go.
            Phase::Asked | Phase::Killed if family::count() == 0 => break by_itself,
            Phase::Killed if Instant::now() >= next => break by_itself,
            _ => {}
        }
        let tick = if phase == Phase::Running { next } else { next.min(Instant::now() + LOOK) };
        tokio::select! {
            _ = children.recv() => {}
            chunk = read(&mut attended.stdout) => {
                if let (Some(chunk), [lines, _]) = (chunk, &mut lines) {
                    lines.push(chunk, &mut budget, &mut log);
                }
            }
            chunk = read(&mut attended.stderr) => {
                if let (Some(chunk), [_, lines]) = (chunk, &mut lines) {
                    lines.push(chunk, &mut budget, &mut log);
                }
            }
            () = sleep_until(tick) => {}
            _ = terminate.recv() => stopping = Some(stopping.is_some()),
            _ = interrupt.recv() => stopping = Some(stopping.is_some()),
        }
        if budget.dropped > 0 && !flooded {
            flooded = true;
            tracing::warn!(logged = MAX_OUTPUT, "The bootstrap script prints too much; the rest of it is not logged");
        }
        let overdue = Instant::now() >= next;
        if phase == Phase::Running && (overdue || stopping.is_some()) {
            if stopping.is_some() {
                tracing::info!("The agent is to stop, and the bootstrap script with it");
            } else {
                let timeout = order.early.bootstrap.timeout;
                tracing::warn!(?timeout, "The bootstrap script takes too long and is stopped");
            }
            (phase, next) = (Phase::Asked, Instant::now() + GRACE);
            send(attended.shim, Signal::TERM);
        } else if phase == Phase::Asked && (overdue || stopping == Some(true)) {
            (phase, next) = (Phase::Killed, Instant::now() + INSIST);
        }
        if phase == Phase::Killed {
            // Again and again: it may begin processes faster than they are found.
            send(attended.shim, Signal::KILL);
        }
    };
    drain(&mut attended, &mut lines, &mut budget).await;
    // From here on signals wait for the next stage. What came before has to be looked for, which waiting does.
    process::hold_signals();
    tokio::time::sleep(TURN).await;
    if terminate.recv().now_or_never().is_some() || interrupt.recv().now_or_never().is_some() {
        stopping = Some(stopping.is_some());
    }
    for one in lines {
        one.finish(&mut budget, &mut log);
    }
    if budget.dropped > 0 {
        tracing::warn!(bytes = budget.dropped, "Output of the bootstrap script that was not logged");
    }
    if let Some(again) = stopping {
        return Ok(Ran::Stopped { again });
    }
    let report = Report::parse(&contents(&mut attended.report));
    let left = family::descendants();
    let names: BTreeSet<String> = left.iter().map(|member| member.name.clone()).collect();
    let outcome = Outcome {
        end: match (phase, end, report.signal) {
            (Phase::Asked | Phase::Killed, ..) => End::TimedOut,
            (_, _, Some(signal)) => End::Signalled(signal),
            (_, Some((status, _)), _) => status,
            (_, None, _) => End::TimedOut,
        },
        failed_commands: report.failed,
        first_failed_line: report.first,
        background: (left.len(), names.into_iter().take(MAX_NAMES).collect()),
        // Whether it could still report through its parent's descriptors was a race that it ran by itself.
        orphaned: !report.complete && ended.shim.is_some_and(|status| status.exit_status().is_none()),
        ..nothing(End::TimedOut)
    };
    if !report.complete && matches!(outcome.end, End::Exited(_)) {
        tracing::warn!("The bootstrap script ended so that nothing is known of what it exported");
    }
    let sorted = sort(&report, order.pod, order.secrets, served, patterns);
    let streams = [("stdout", attended.stdout), ("stderr", attended.stderr)].into_iter();
    let streams = streams.filter_map(|(name, pipe)| Some((name.to_owned(), pipe?.into_nonblocking_fd().ok()?)));
    let streams = if left.is_empty() { Vec::new() } else { streams.collect() };
    Ok(Ran::Finished(Box::new(Finished { outcome, sorted, streams, masked: Zeroizing::default() })))
}

/// How the script ended, once it has, and whether it outlived its parent.
fn ending(attended: &mut Attended, ended: &Ends<WaitStatus>) -> Option<(End, bool)> {
    let shim = ended.shim?;
    if let Some(code) = shim.exit_status() {
        return Some((End::Exited(code), false));
    }
    // It killed its parent, and goes on as our own child; before it told its name there is nothing to wait for.
    if Report::parse(&contents(&mut attended.report)).pid.is_none() {
        return Some((End::Signalled(shim.terminating_signal().unwrap_or(0)), true));
    }
    let script = ended.script?;
    let end = script.exit_status().map(End::Exited);
    Some((end.unwrap_or(End::Signalled(script.terminating_signal().unwrap_or(0))), true))
}

/// What is in the file so far.
fn contents(report: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = report.rewind().and_then(|()| report.take(MAX_REPORT).read_to_end(&mut bytes));
    if let Err(error) = read {
        tracing::warn!(error = %error, "What the bootstrap script exported cannot be read");
    }
    bytes
}

/// To the script's own group, at one stroke, and to whatever left it.
fn send(shim: i32, signal: Signal) {
    if let Some(group) = Pid::from_raw(shim) {
        // Not even a session may be left of it.
        let _gone = kill_process_group(group, signal);
    }
    family::signal_all(signal);
}

/// The next bytes. Nothing at the end, which comes once.
async fn read(pipe: &mut Option<pipe::Receiver>) -> Option<Bytes> {
    let Some(open) = pipe else { return std::future::pending().await };
    let mut buffer = BytesMut::with_capacity(CHUNK);
    match open.read_buf(&mut buffer).await {
        Ok(1..) => Some(buffer.freeze()),
        _ => {
            *pipe = None;
            None
        }
    }
}

/// What was printed before the end. What still runs may go on printing for ever.
async fn drain(attended: &mut Attended, lines: &mut [Lines; 2], budget: &mut Budget) {
    let [out, err] = lines;
    for _ in 0..MAX_CHUNKS {
        if attended.stdout.is_none() && attended.stderr.is_none() {
            return;
        }
        tokio::select! {
            biased;
            chunk = read(&mut attended.stdout) => out.push(chunk.unwrap_or_default(), budget, &mut log),
            chunk = read(&mut attended.stderr) => err.push(chunk.unwrap_or_default(), budget, &mut log),
            () = tokio::time::sleep(SILENCE) => return,
        }
    }
}

/// Lets the next program have a descriptor.
pub(super) fn inherit(descriptor: &OwnedFd) -> io::Result<i32> {
    fcntl_setfd(descriptor, FdFlags::empty())?;
    Ok(descriptor.as_raw_fd())
}

/// A pipe that was inherited.
pub(super) fn inherited(number: i32) -> io::Result<pipe::Receiver> {
    pipe::OpenOptions::new().open_receiver(Path::new("/proc/self/fd").join(number.to_string()))
}

const KRB5_CONFIG: &str = "KRB5_CONFIG";
/// What probes are told.
const STARTING: &str = "the bootstrap script is running\n";
/// These say nothing secret, whatever they are piped into.
const WELL_KNOWN: &[&str] = &[
    "HOME",
    "USER",
    "LOGNAME",
    "PATH",
    "HOSTNAME",
    "SHELL",
    "PWD",
    "LANG",
    "TZ",
    "TERM",
    "KRB5_CONFIG",
    "KRB5CCNAME",
    "KRB5_KTNAME",
];
/// Between being asked to end and being killed.
const GRACE: Duration = Duration::from_secs(5);
/// How long killing is tried: what is left then hangs in the kernel.
const INSIST: Duration = Duration::from_secs(5);
/// How often it is looked whether all have ended; whatever is not our own child ends unnoticed.
const LOOK: Duration = Duration::from_millis(50);
/// After its end nobody prints any more when nothing comes for so long.
const SILENCE: Duration = Duration::from_millis(100);
/// What a full pipe holds, and a little more.
const MAX_CHUNKS: usize = 64;
/// The runtime takes in signals only while all its tasks wait.
const TURN: Duration = Duration::from_millis(1);
/// Of the names of what is left running.
const MAX_NAMES: usize = 20;
const MAX_REPORT: u64 = 4 << 20;
/// Of one secret, and of those of the environment together.
const MAX_SECRET: usize = 4096;
const MAX_SECRETS: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_shim_is_remembered_over_any_number_of_others() {
        let mut ends = Ends::default();
        ends.take(&[(9, 'x'), (2, 'b'), (1, 'a')], 1, || Some(7));
        for pid in 1000..4000 {
            ends.take(&[(pid, 'x')], 1, || Some(7));
        }
        assert_eq!(ends, Ends { shim: Some('a'), script: None });
        ends.take(&[(7, 'c'), (8, 'x')], 1, || Some(7));
        assert_eq!(ends, Ends { shim: Some('a'), script: Some('c') });
        // Both at once, in any order.
        let mut ends = Ends::default();
        ends.take(&[(7, 'c'), (1, 'a')], 1, || Some(7));
        assert_eq!(ends, Ends { shim: Some('a'), script: Some('c') });
    }

    #[test]
    fn only_a_password_leaves_the_pods_environment() {
        let script = "echo \"$DELEGATE_NAME $MANAGER_HOST_AND_PORT $NO_PROXY $https_proxy $KUBERNETES_PORT $SITE\" | base64\n\
                      echo \"$AD_SECRET\" | base64\necho \"$LOGIN\" | kinit alice\nkinit x <<< $DELEGATE_TAGS\n";
        let names = [
            "DELEGATE_NAME",
            "DELEGATE_TAGS",
            "MANAGER_HOST_AND_PORT",
            "NO_PROXY",
            "https_proxy",
            "KUBERNETES_PORT",
            "SITE",
            "AD_SECRET",
            "LOGIN",
        ];
        let pod: Vec<(OsString, OsString)> = names.iter().map(|name| (name.into(), "value".into())).collect();
        let (used, served) = passwords(&search(script.as_bytes()), &pod);
        assert_eq!(used.iter().map(String::as_str).collect::<Vec<_>>(), ["AD_SECRET", "LOGIN", "SITE"]);
        assert_eq!(served.iter().map(String::as_str).collect::<Vec<_>>(), ["AD_SECRET", "LOGIN"]);
    }
}
