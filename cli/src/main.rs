//! `lictor`: submit and watch tasks through the control plane, or talk to one Windows host directly.
//!
//! Parses, runs, maps the result to an exit code. Passwords and tokens are never taken from the command line.

mod args;
mod console;
mod control;
mod direct;
mod exit;
mod explain;
mod failure;
mod import;
mod input;
mod interrupt;
mod kerberos;
mod keytab;
mod script;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Command, Output};
use crate::exit::Exit;
use crate::failure::Failure;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            // clap's own code for mistakes is 2, which a remote command may mean.
            return if error.use_stderr() { Exit::USAGE.into() } else { Exit::SUCCESS.into() };
        }
    };
    log(cli.verbose);
    let json = cli.output == Output::Json;
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            console::print_failure(&failure, json);
            failure.exit.into()
        }
    }
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::local(format!("failed to start: {error}")))?;
    let result = runtime.block_on(async {
        match cli.command {
            Command::Winrm(args) => direct::run(args.command, cli.output).await,
            Command::Task(args) => control::task(args, cli.output).await,
            Command::Batch(args) => control::batch(args, cli.output).await,
            Command::Agent(args) => control::agent(args, cli.output).await,
            Command::Token(args) => control::token(args, cli.output).await,
            Command::Credential(args) => control::credential(args, cli.output).await,
            Command::Secret(args) => control::secret(args, cli.output).await,
            Command::SecretManager(args) => control::secret_manager(args, cli.output).await,
            Command::Import(args) => import::run(args.command, cli.output).await,
            Command::Keytab(args) => keytab::run(args.command, cli.output).await,
            Command::User(args) => control::user(args, cli.output).await,
            Command::WhoAmI(args) => control::whoami(args, cli.output).await,
            Command::Audit(args) => control::audit(args, cli.output).await,
            Command::Explain(args) => explain::run(&args, cli.output),
            Command::Completion { shell } => completion(shell.into()),
        }
    });
    // A write to somebody who does not read must not keep the program.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

fn completion(shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "lictor", &mut script);
    console::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::SUCCESS)
}

/// Logs to standard error when asked to.
fn log(verbose: u8) {
    let filter = match verbose {
        0 => return,
        1 => "warn,lictor=debug,lictor_winrm=debug,lictor_kerberos=debug",
        _ => "debug,lictor=trace,lictor_winrm=trace,lictor_kerberos=trace,h2=info,hyper_util=info,rustls=info",
    };
    // INVARIANT: sspi and picky log plain text and keys at debug; nothing lifts this cap.
    let filter = EnvFilter::new(format!("{filter},sspi=warn,picky=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
}
