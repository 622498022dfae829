//! The command line of `lictor-agent`.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use lictor_telemetry::level;
use zeroize::Zeroizing;

use crate::app::{self, Before};
use crate::bootstrap::{self, Begun, Start};
use crate::check;
use crate::config::{self, Loaded, Mistakes};
use crate::doctor;
use crate::failure::ExitCode;
use crate::migrate;
use crate::process;
use crate::shutdown::Shutdown;
use crate::telemetry::{self, Metrics};

#[derive(Debug, Parser)]
#[command(name = "lictor-agent", version, about, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run until told to stop: SIGTERM or SIGINT drains, a second one stops at once. INIT_SCRIPT runs before; see docs/bootstrap.md.
    #[command(after_help = EXIT_CODES)]
    Run {
        /// Configuration file, TOML or YAML. Settings may also come from LICTOR_AGENT_KEY; see docs/agent-settings.md.
        #[arg(long)]
        config: Option<PathBuf>,
        /// Write {"http_address", "agent_id"} here when first connected.
        #[arg(long)]
        ready_file: Option<PathBuf>,
    },
    /// What stands between the agent and its bootstrap script.
    #[command(name = bootstrap::shim::COMMAND, hide = true)]
    BootstrapShim(bootstrap::shim::Arguments),
    /// Read the configuration and print every setting in effect, where it came from, which variables of a Harness delegate do
    /// nothing and why, and every mistake. Opens nothing and runs no INIT_SCRIPT.
    CheckConfig {
        /// Configuration file, TOML or YAML.
        #[arg(long)]
        config: Option<PathBuf>,
        /// How to print it.
        #[arg(long, value_enum, default_value_t)]
        output: check::Form,
    },
    /// Look at everything that this agent needs, where it runs, and say what is wrong and what to do.
    ///
    /// Looks at the settings and the policy (every mistake), the state directory and its space, the agent's identity, the way to the
    /// control plane (name, connection, proxy, TLS), krb5.conf and the KDCs of its realms with their clocks, keytabs and credential
    /// caches, and the kernel's limits. It only looks: it never enrols or spends a join token, writes nothing, and may be run beside
    /// an agent that works, such as by `kubectl exec`. Give it the same --config and environment as the agent.
    ///
    /// With --host it also examines the way to a Windows host: names, port, HTTP, TLS, what the host offers. Nobody is logged in, unless
    /// --user names somebody whose key is in the agent's keytabs or whose ticket is in one of its caches; then that is tried once.
    #[command(after_help = DOCTOR_CODES)]
    Doctor(DoctorArgs),
    /// Read an INIT_SCRIPT and print what replaces it: settings, host aliases, credentials, and the lines that have to stay. The
    /// script is never run, and no password of it is printed.
    MigrateInitScript {
        /// The script; `-` for standard input.
        #[arg(default_value = "-")]
        file: PathBuf,
        /// How to print it.
        #[arg(long, value_enum, default_value_t)]
        output: check::Form,
    },
    /// Print a JSON schema of the configuration file, for editors and other programs.
    Schema,
    /// Print a configuration file with every setting, what it means and its default, commented out.
    Example,
    /// Show or change what a running agent logs. Falls back to the settings by itself.
    ///
    /// Asks the agent by a socket in its state directory, as the user that the agent runs as, such as by `kubectl exec`. Give it the
    /// same --config and environment as the agent, or --state-dir. Libraries that print secrets stay capped at every level.
    LogLevel {
        /// `error`, `warn`, `info`, `debug`, `trace`; or a filter such as `info,lictor_agent::link=debug`; or `reset` for what the
        /// settings say. Shows what is logged now when not given.
        level: Option<String>,
        /// For how long, from 1s to 24h.
        #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
        period: std::time::Duration,
        /// Configuration file, TOML or YAML, as for `run`.
        #[arg(long, value_name = "FILE", conflicts_with = "state_dir")]
        config: Option<PathBuf>,
        /// The agent's state directory [default: what its settings say].
        #[arg(long, value_name = "DIR")]
        state_dir: Option<PathBuf>,
    },
    /// Print a completion script.
    Completion {
        /// For this shell.
        shell: Shell,
    },
}

/// `lictor-agent doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Configuration file, TOML or YAML, as for `run`.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Windows host to examine: name or address. May be given several times.
    #[arg(long = "host", value_name = "HOST", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) hosts: Vec<String>,
    /// Its WinRM port [default: 5986, with --http 5985].
    #[arg(long, requires = "hosts", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// Speak http to it, not https.
    #[arg(long, requires = "hosts")]
    pub(crate) http: bool,
    /// Do not check its certificate.
    #[arg(long, requires = "hosts")]
    pub(crate) skip_cert_check: bool,
    /// Log in as this user, such as svc-web@CORP.EXAMPLE, by a key or ticket that the agent holds [default: nobody].
    #[arg(long, value_name = "PRINCIPAL", requires = "hosts")]
    pub(crate) user: Option<String>,
    /// How to tell what was found.
    #[arg(long, value_enum, default_value_t = doctor::Output::Text)]
    pub(crate) output: doctor::Output,
}

/// Parses the process's arguments, does what they say, and returns the exit code.
///
/// # Errors
/// What went wrong outside the agent's own failures.
pub fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Run { config, ready_file } => match bootstrap::begin(config.as_deref())? {
            Start::Agent(mut begun) => {
                let outcome = begun.outcome.clone();
                let given = (std::mem::take(&mut begun.beneath), std::mem::take(&mut begun.environment));
                let ended = match load(config.as_deref(), given, Vec::new())? {
                    Some(loaded) => run(loaded, ready_file, *begun),
                    None => Ok(ExitCode::Configuration),
                };
                bootstrap::end(outcome.as_ref());
                ended
            }
            Start::Ended(code) => Ok(code),
            Start::Mistaken(mistakes) => {
                load(config.as_deref(), (HashMap::new(), bootstrap::environment()), mistakes)?;
                Ok(ExitCode::Configuration)
            }
        },
        Command::BootstrapShim(arguments) => {
            let status = bootstrap::shim::run(&arguments)?;
            // No exit code of this program, but the script's.
            std::process::exit(i32::from(status))
        }
        Command::CheckConfig { config, output } => {
            let checked = check::check(config.as_deref(), bootstrap::environment());
            let checked = checked.with_script(bootstrap::origin(config.as_deref()));
            match output {
                check::Form::Text => print(checked.text().as_bytes())?,
                check::Form::Json => print(format!("{}\n", serde_json::to_string_pretty(&checked)?).as_bytes())?,
            }
            if let (Some(mistakes), check::Form::Text) = (checked.mistakes(), output) {
                writeln!(std::io::stderr(), "lictor-agent: {mistakes}")?;
            }
            Ok(if checked.valid { ExitCode::Success } else { ExitCode::Configuration })
        }
        Command::Doctor(args) => {
            // Keys and tickets are read; where this fails, the agent itself says so in its log.
            let _ = process::guard();
            let loaded = config::load(args.config.as_deref(), bootstrap::environment());
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("failed to start the runtime")?;
            let code = runtime.block_on(doctor::run(&args, loaded))?;
            runtime.shutdown_timeout(LAST_WAIT);
            Ok(code)
        }
        Command::MigrateInitScript { file, output } => {
            let report = migrate::migrate(&script(&file)?)?;
            match output {
                check::Form::Text => print(report.text().as_bytes())?,
                check::Form::Json => print(format!("{}\n", serde_json::to_string_pretty(&report)?).as_bytes())?,
            }
            Ok(ExitCode::Success)
        }
        Command::Schema => print(SCHEMA.as_bytes()).map(|()| ExitCode::Success),
        Command::Example => print(EXAMPLE.as_bytes()).map(|()| ExitCode::Success),
        Command::LogLevel { level, period, config, state_dir } => {
            let wish = level::Wish::of(level.as_deref(), period)?;
            let state_dir = match state_dir {
                Some(state_dir) => state_dir,
                None => match load(config.as_deref(), (HashMap::new(), bootstrap::environment()), Vec::new())? {
                    Some(loaded) => loaded.config.state_dir,
                    None => return Ok(ExitCode::Configuration),
                },
            };
            let answer = level::ask(&state_dir, &wish)?;
            print(format!("{answer}\n").as_bytes()).map(|()| ExitCode::Success)
        }
        Command::Completion { shell } => {
            // Not straight to standard output: the generator panics when a reader such as `head` has had enough.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "lictor-agent", &mut script);
            print(&script).map(|()| ExitCode::Success)
        }
    }
}

/// The bytes of a script, no more than are looked at and one.
fn script(file: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let most = u64::try_from(migrate::MAX_SCRIPT).unwrap_or(u64::MAX).saturating_add(1);
    // At once, so that no copies of a password stay behind where it grew.
    let mut script = Zeroizing::new(Vec::with_capacity(migrate::MAX_SCRIPT + 1));
    if file == Path::new("-") {
        std::io::stdin().take(most).read_to_end(&mut script).context("failed to read the script")?;
    } else {
        let opened = std::fs::File::open(file).with_context(|| format!("failed to open {}", file.display()))?;
        opened.take(most).read_to_end(&mut script).with_context(|| format!("failed to read {}", file.display()))?;
    }
    Ok(script)
}

/// To standard output; a reader that has had enough, such as `head`, is no failure.
fn print(bytes: &[u8]) -> anyhow::Result<()> {
    match std::io::stdout().write_all(bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Nothing when there are mistakes, in the settings or in the files that they name, which are printed.
/// So are those that were found `before`.
fn load(file: Option<&Path>, given: Given, before: Vec<String>) -> anyhow::Result<Option<Loaded>> {
    let (beneath, environment) = given;
    let loaded = match config::load_over(beneath, file, environment) {
        Ok(loaded) if before.is_empty() => loaded,
        loaded => {
            let mut all = before;
            let more = loaded.err().map(|Mistakes(more)| more).unwrap_or_default();
            all.extend(more.into_iter().filter(|mistake| !all.contains(mistake)).collect::<Vec<_>>());
            writeln!(std::io::stderr(), "lictor-agent: {}", Mistakes(all))?;
            return Ok(None);
        }
    };
    let mistakes = check::beyond(&loaded);
    for mistake in &mistakes {
        writeln!(std::io::stderr(), "lictor-agent: {mistake}")?;
    }
    Ok(mistakes.is_empty().then_some(loaded))
}

/// What a bootstrap script exported, and the environment.
type Given = (HashMap<String, String>, Vec<(String, String)>);

fn run(loaded: Loaded, ready_file: Option<PathBuf>, mut begun: Begun) -> anyhow::Result<ExitCode> {
    let mut telemetry =
        telemetry::start_logs(&loaded.config.log, loaded.traces.clone()).context("failed to set up logs")?;
    process::report(std::mem::replace(&mut begun.guarded, Ok(())));
    if let Err(error) = &begun.hidden {
        let error = format!("{error:#}");
        tracing::warn!(error, "Secrets stay in the environment, where /proc shows them");
    }
    if let Some(outcome) = &begun.outcome {
        tracing::info!(outcome = %outcome, "Going on after the bootstrap script");
    }
    let metrics = Arc::new(Metrics::default());
    metrics.traces(telemetry.figures());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    let shutdown = Shutdown::default();
    let ended = runtime.block_on(async {
        telemetry.export();
        let _followers = begun.follow(&metrics);
        let before =
            Before { outcome: begun.outcome.take(), metrics: Arc::clone(&metrics), levels: Some(telemetry.levels()) };
        let work = app::run_after(loaded, ready_file, shutdown.clone(), before);
        tokio::select! {
            ended = and_then_traces(work, telemetry.finish(), &shutdown) => Ok(ended),
            signals = shutdown.clone().follow_signals() => signals.context("failed to listen for signals").map(|()| Ok(())),
        }
    })?;
    // What still blocks a thread must not keep the process.
    runtime.shutdown_timeout(LAST_WAIT);
    match ended {
        Ok(()) => Ok(ExitCode::Success),
        Err(error) => {
            writeln!(std::io::stderr(), "lictor-agent: {}", crate::failure::chain(&error))?;
            Ok(error.exit_code())
        }
    }
}

/// Works, and exports the traces that are left, unless everything is to stop at once: signals count in that time, too.
async fn and_then_traces<T>(work: impl Future<Output = T>, traces: impl Future<Output = ()>, shutdown: &Shutdown) -> T {
    let ended = work.await;
    tokio::select! {
        () = traces => {}
        () = shutdown.stop().cancelled() => {}
    }
    ended
}

/// Made from the settings by a test.
const SCHEMA: &str = include_str!("../../docs/agent-settings.schema.json");
/// The same.
const EXAMPLE: &str = include_str!("../../deploy/agent.example.yaml");
const EXIT_CODES: &str = "\
Exit codes:
  0   drained and stopped as asked
  1   a failure that none of the others describes
  2   the command line is wrong
  64  the configuration has mistakes; all of them are printed
  65  the control plane refused the join token, or there is none
  66  the control plane is not the one that the join token names
  67  the agent was revoked
  68  the state directory cannot be used
  69  stopped at once by a second signal, before draining was done
  70  the bootstrap script failed, and bootstrap.policy is fail
  72  doctor: something that was looked at does not work";

const DOCTOR_CODES: &str = "\
Exit codes:
  0   nothing that was looked at fails; there may be warnings
  2   the command line is wrong
  64  the configuration has mistakes; all of them are told, and little else can be looked at
  72  something that was looked at does not work";

/// The agent waits far more than it computes; each thread costs memory.
const WORKERS: usize = 4;
const LAST_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_ends_the_wait_for_the_last_traces() {
        let shutdown = Shutdown::default();
        let ended = and_then_traces(async { 7 }, std::future::pending(), &shutdown);
        tokio::pin!(ended);
        let mut still = async |shutdown: &Shutdown| {
            shutdown.request();
            tokio::time::timeout(std::time::Duration::from_secs(1), &mut ended).await.ok()
        };
        assert_eq!(still(&shutdown).await, None);
        assert_eq!(still(&shutdown).await, Some(7));
        // Where nothing is asked for, all of them are waited for.
        let exported = std::cell::Cell::new(false);
        and_then_traces(async {}, async { exported.set(true) }, &Shutdown::default()).await;
        assert!(exported.get());
    }

    #[test]
    fn help_and_page_list_every_exit_code() {
        let page = include_str!("../../docs/agent-settings.md");
        for code in [
            ExitCode::Success,
            ExitCode::Other,
            ExitCode::Configuration,
            ExitCode::Enrolment,
            ExitCode::Pin,
            ExitCode::Revoked,
            ExitCode::State,
            ExitCode::Interrupted,
            ExitCode::Bootstrap,
            ExitCode::Ailing,
        ] {
            let number = code as u8;
            assert!(EXIT_CODES.lines().any(|line| line.trim_start().starts_with(&format!("{number} "))), "{code:?}");
            assert!(page.contains(&format!("| {number} |")), "{code:?}");
        }
    }
}
