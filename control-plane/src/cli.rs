//! What people type, and which exit code says what.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use lictor_telemetry::level;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::{ControlPlane, issue_admin_token, settle_restored};
use crate::config::{self, Config, Loaded, Mistakes};
use crate::{check, master_keys, process, telemetry};

/// Lictor's control plane: takes tasks from users, gives them to agents, keeps output and results.
#[derive(Debug, Parser)]
#[command(name = "lictor-control-plane", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve agents and users until SIGTERM or SIGINT.
    #[command(after_help = EXIT_CODES)]
    Run {
        /// Settings, TOML or YAML. The environment (LICTOR_CONTROL_PLANE_KEY, nested keys joined by __) goes on top.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Written once both ports are bound: JSON with `address` and `http_address`.
        #[arg(long, value_name = "PATH")]
        ready_file: Option<PathBuf>,
    },
    /// Print every setting in effect and where it came from, or every mistake. Opens nothing.
    #[command(after_help = EXIT_CODES)]
    CheckConfig {
        /// Settings, TOML or YAML.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// How to print it.
        #[arg(long, value_enum, default_value_t)]
        output: check::Form,
    },
    /// Print a JSON schema of the configuration file, for editors and other programs.
    Schema,
    /// Print a configuration file with every setting, what it means and its default, commented out.
    Example,
    /// Write a new token for the administrator to the file admin-token of the state directory, for when it was lost.
    /// The control plane must not run. The user `admin` is made or enabled again if need be.
    #[command(after_help = EXIT_CODES)]
    IssueAdminToken {
        /// Settings, TOML or YAML.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Revoke the administrator's other tokens: the lost one may be in wrong hands.
        #[arg(long)]
        revoke_others: bool,
    },
    /// After a database was restored from a backup, before it is used: end every task as unknown that had not ended in it.
    /// Since the backup it may have been carried out, and must not be once more. The control plane must not run.
    #[command(after_help = EXIT_CODES)]
    SettleRestored {
        /// Settings, TOML or YAML.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Show or change what a running control plane logs. Falls back to the settings by itself.
    ///
    /// Asks it by a socket in its state directory, as the user that it runs as. Libraries that may print secrets stay capped at
    /// every level.
    #[command(after_help = EXIT_CODES)]
    LogLevel {
        /// `error`, `warn`, `info`, `debug`, `trace`; or a filter such as `info,lictor_control_plane=debug`; or `reset` for what
        /// the settings say. Shows what is logged now when not given.
        level: Option<String>,
        /// For how long, from 1s to 24h.
        #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
        period: std::time::Duration,
        /// Settings, TOML or YAML, as for `run`.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Put a new master key in front of those in their file: from then on it encrypts, and the others only decrypt.
    ///
    /// A running control plane takes it within 10s, or at once on SIGHUP, and brings credentials and secrets under it. Keep the file's
    /// other keys until `master-key-status` says that they may go.
    #[command(after_help = EXIT_CODES)]
    RotateMasterKey {
        /// Settings, TOML or YAML.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The file of keys, when it is not the one that the settings name: the original of a copy, such as a credential of systemd.
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
    },
    /// Print which master keys there are, how much is under each, and which may be taken off the list. Only looks; the control plane
    /// may run meanwhile.
    #[command(after_help = EXIT_CODES)]
    MasterKeyStatus {
        /// Settings, TOML or YAML.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// How to print it.
        #[arg(long, value_enum, default_value_t)]
        output: check::Form,
    },
    /// Print the completion script of a shell.
    Completion {
        /// The shell.
        shell: Shell,
    },
}

/// Reads the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let ended = carry_out(execute(command))
        .unwrap_or_else(|error| Err((EXIT_FAILURE, format!("failed to start the runtime: {error}"))));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, text)) => {
            // Nothing is left to be done about a closed standard error.
            if !text.is_empty() {
                let _ = writeln!(std::io::stderr(), "lictor-control-plane: {text}");
            }
            ExitCode::from(code)
        }
    }
}

/// Carries it out in a runtime of its own. What still blocks a thread afterwards, such as a read on a mount that hangs, does not
/// keep the process.
fn carry_out<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(work);
    runtime.shutdown_timeout(LAST_WAIT);
    Ok(ended)
}

async fn execute(command: Command) -> Result<(), (u8, String)> {
    let failed = |error: crate::app::Error| (EXIT_FAILURE, error.chain());
    match command {
        Command::Run { config, ready_file } => {
            // Installed before all else: a signal that comes early is not lost.
            let signals = shutdown_signals().map_err(|error| (EXIT_FAILURE, error.to_string()))?;
            let guarded = process::guard();
            let loaded = config::load(config.as_deref(), &environment());
            let Loaded { config, traces, .. } = loaded.map_err(|mistakes| (EXIT_CONFIG, mistakes.to_string()))?;
            let told = traces.remarks.clone();
            let mut telemetry = telemetry::start(&config, traces);
            for remark in told {
                tracing::warn!(remark, "A variable of OpenTelemetry is not taken as it stands");
            }
            process::report(guarded);
            let _orphans = process::take_in_orphans().map_err(|error| (EXIT_FAILURE, error.to_string()))?;
            let mut control_plane = ControlPlane::start(&config).await.map_err(failed)?;
            if let Some(telemetry) = &mut telemetry {
                telemetry.export();
                control_plane.tell_of(telemetry);
            }
            if let Some(path) = ready_file {
                control_plane.write_ready_file(&path).map_err(failed)?;
            }
            let ended = control_plane.run(signals).await.map_err(failed);
            if let Some(telemetry) = &mut telemetry {
                telemetry.finish().await;
            }
            ended
        }
        Command::CheckConfig { config, output } => {
            let checked = check::check(config.as_deref(), &environment());
            // Nothing is left to be done about a closed standard output.
            let _ = write!(std::io::stdout(), "{}", checked.print(output));
            let told =
                |mistakes: Mistakes| if output == check::Form::Text { mistakes.to_string() } else { String::new() };
            checked.mistakes().map_or(Ok(()), |mistakes| Err((EXIT_CONFIG, told(mistakes))))
        }
        Command::Schema => {
            let _ = write!(std::io::stdout(), "{SCHEMA}");
            Ok(())
        }
        Command::Example => {
            let _ = write!(std::io::stdout(), "{EXAMPLE}");
            Ok(())
        }
        Command::IssueAdminToken { config, revoke_others } => {
            let config = load(config)?;
            let path = issue_admin_token(&config, revoke_others).await.map_err(failed)?;
            let _ = writeln!(std::io::stdout(), "{}", path.display());
            Ok(())
        }
        Command::SettleRestored { config } => {
            let settled = settle_restored(&load(config)?).await.map_err(failed)?;
            let _ = writeln!(std::io::stdout(), "{settled} tasks were ended as unknown.");
            Ok(())
        }
        Command::LogLevel { level, period, config } => {
            let refused = |error: level::LevelError| (EXIT_FAILURE, crate::app::chain(&error));
            let wish = level::Wish::of(level.as_deref(), period).map_err(refused)?;
            let answer = level::ask(&load(config)?.state_dir, &wish).map_err(refused)?;
            let _ = writeln!(std::io::stdout(), "{answer}");
            Ok(())
        }
        Command::RotateMasterKey { config, file } => {
            let failed = |error: master_keys::KeysError| (EXIT_FAILURE, crate::app::chain(&error));
            let (path, id) = master_keys::rotate(&load(config)?, file).map_err(failed)?;
            let _ = writeln!(std::io::stdout(), "{} has the new master key {id} in front.", path.display());
            Ok(())
        }
        Command::MasterKeyStatus { config, output } => {
            let failed = |error: master_keys::KeysError| (EXIT_FAILURE, crate::app::chain(&error));
            let keys = master_keys::status(&load(config)?).await.map_err(failed)?;
            let text = match output {
                check::Form::Text => master_keys::table(&keys),
                // It holds nothing that JSON cannot say.
                check::Form::Json => {
                    serde_json::to_string_pretty(&keys).map(|text| format!("{text}\n")).unwrap_or_default()
                }
            };
            let _ = write!(std::io::stdout(), "{text}");
            Ok(())
        }
        Command::Completion { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "lictor-control-plane", &mut std::io::stdout());
            Ok(())
        }
    }
}

fn load(file: Option<PathBuf>) -> Result<Config, (u8, String)> {
    Config::load(file.as_deref(), &environment()).map_err(|mistakes| (EXIT_CONFIG, mistakes.to_string()))
}

fn environment() -> BTreeMap<String, String> {
    let readable = |(key, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((key.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(readable).collect()
}

fn shutdown_signals() -> std::io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Made from the settings by a test.
const SCHEMA: &str = include_str!("../../docs/control-plane-settings.schema.json");
/// The same.
const EXAMPLE: &str = include_str!("../../deploy/control-plane.example.yaml");
const EXIT_FAILURE: u8 = 1;
const LAST_WAIT: std::time::Duration = std::time::Duration::from_secs(1);
/// EX_CONFIG of sysexits.h.
const EXIT_CONFIG: u8 = 78;
const EXIT_CODES: &str = "Exit codes:\n  0   stopped on request\n  1   could not start, or a part failed\n  2   wrong \
                          command line\n  78  the configuration has mistakes; all of them are listed";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_thread_that_hangs_does_not_keep_the_process() {
        let (release, hangs) = std::sync::mpsc::channel::<()>();
        let (ended, has_ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let work = async {
                // Blocks, as a read on a mount that hangs does.
                tokio::task::spawn_blocking(move || hangs.recv());
                7
            };
            ended.send(carry_out(work).unwrap())
        });
        assert_eq!(has_ended.recv_timeout(std::time::Duration::from_secs(60)), Ok(7));
        drop(release);
    }

    #[test]
    fn help_and_page_list_every_exit_code() {
        let page = include_str!("../../docs/control-plane-settings.md");
        for code in [0, EXIT_FAILURE, 2, EXIT_CONFIG] {
            assert!(EXIT_CODES.lines().any(|line| line.trim_start().starts_with(&format!("{code} "))), "{code}");
            assert!(page.contains(&format!("| {code} |")), "{code}");
        }
    }
}
