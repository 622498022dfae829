//! `lictor winrm`: one Windows host, directly over `lictor-winrm`, without agent or control plane.

mod certificate;
mod explain;
mod ladder;
mod posture;
mod session;
mod tickets;
mod who;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use lictor_winrm::powershell::{self, Outputs};
use lictor_winrm::target::{
    Endpoint, KerberosOptions, MessageEncryption, Scheme, ShellProperties, Timeouts, TlsPolicy,
};
use lictor_winrm::{Invocation, Target};
use serde::Serialize;
use uuid::Uuid;

use self::who::Who;
use crate::args::winrm::{HostArgs, RunArgs, ScriptArgs, ShellArgs, WinrmCommand};
use crate::args::{self, Encryption, Language, Output};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::{console, input};

/// Carries out a command of `lictor winrm`.
pub(crate) async fn run(command: WinrmCommand, output: Output) -> Result<Exit, Failure> {
    match command {
        WinrmCommand::Test(args) => {
            let who = who::who(&args.host, args.explain).await?;
            let target = target(&args.host, &who, None)?;
            if args.explain {
                explain::explain(target, &who, args.timeout.unwrap_or(EXPLAINED), output).await
            } else {
                ladder::climb(&target, &who, args.timeout.unwrap_or(TESTED), output).await
            }
        }
        WinrmCommand::Posture(args) => {
            let who = who::who(&args.host, false).await?;
            let options = lictor_doctor::posture::Options { script: !args.no_script };
            posture::look(&target(&args.host, &who, None)?, &who, options, args.timeout, output).await
        }
        WinrmCommand::Run(args) => {
            let work = run_work(&args)?;
            let target = target(&args.host, &who::who(&args.host, false).await?, Some(&args.shell))?;
            session::run(&target, &work, args.shell.timeout, &args.runs, output).await
        }
        WinrmCommand::Script(args) => {
            let work = script_work(&args)?;
            let target = target(&args.host, &who::who(&args.host, false).await?, Some(&args.shell))?;
            session::run(&target, &work, args.shell.timeout, &args.runs, output).await
        }
        WinrmCommand::MakeClientCert(args) => certificate::make(args, output).await,
    }
}

/// What to run, and what to make of its output.
#[derive(Debug)]
struct Work {
    invocation: Invocation,
    /// Our own standard input follows the invocation's.
    streams_input: bool,
    raw_stderr: bool,
    outputs: Option<Outputs>,
}

fn run_work(args: &RunArgs) -> Result<Work, Failure> {
    let (line, arguments) = match args.command.split_first() {
        Some((line, arguments)) => (line.as_str(), arguments),
        None => ("", &[][..]),
    };
    let mistake = |error: &dyn std::fmt::Display| Failure::usage(error.to_string(), "Correct the command.");
    // What came once cannot be sent several times.
    let streams_input = args.runs.repeat == 1 && args.stdin.as_deref() == Some(Path::new("-"));
    let invocation = match args.shell_kind {
        Language::Cmd => {
            let stdin = match &args.stdin {
                Some(_) if streams_input => None,
                Some(path) => Some(Bytes::from(input::bytes("standard input", path, MAX_STDIN_BYTES)?)),
                None => None,
            };
            let invocation = Invocation::command(line, arguments, stdin).map_err(|error| mistake(&error))?;
            if streams_input { invocation.with_streamed_input() } else { invocation }
        }
        Language::Powershell if args.stdin.is_some() => {
            return Err(Failure::usage(
                "--stdin cannot be used with --shell powershell: the PowerShell text itself travels through standard input",
                "Run powershell.exe with --shell cmd, or hand the data over as arguments of a script.",
            ));
        }
        Language::Powershell => {
            let options = powershell_options(&args.shell, None);
            powershell::powershell_script(&args.command.join(" "), &[], &options).map_err(|error| mistake(&error))?
        }
    };
    Ok(Work { invocation, streams_input, raw_stderr: args.shell.raw_stderr, outputs: None })
}

fn script_work(args: &ScriptArgs) -> Result<Work, Failure> {
    let text = input::text("script", &args.file, MAX_STDIN_BYTES)?;
    let names = args.output_variables.iter().map(String::as_str);
    let outputs = Outputs::new(Uuid::new_v4().as_u128(), names)
        .map_err(|error| Failure::usage(error.to_string(), "Correct --output-variable."))?;
    let invocation = match args.language {
        Language::Powershell => {
            let options = powershell_options(&args.shell, outputs.clone());
            powershell::powershell_script(&text, &args.arguments, &options)
        }
        Language::Cmd => powershell::cmd_script(&text, &args.arguments, outputs.as_ref()),
    };
    let invocation =
        invocation.map_err(|error| Failure::usage(error.to_string(), "Correct the script or its arguments."))?;
    Ok(Work { invocation, streams_input: false, raw_stderr: args.shell.raw_stderr, outputs })
}

fn powershell_options(shell: &ShellArgs, outputs: Option<Outputs>) -> powershell::Options {
    powershell::Options { no_profile: shell.no_powershell_profile.unwrap_or(shell.no_profile), outputs }
}

fn target(host: &HostArgs, who: &Who, shell: Option<&ShellArgs>) -> Result<Target, Failure> {
    let scheme = match host.scheme {
        args::Scheme::Http => Scheme::Http,
        args::Scheme::Https => Scheme::Https,
    };
    let endpoint = Endpoint::new(scheme, &host.host, host.port, host.path.as_deref())
        .map_err(|error| Failure::usage(error.to_string(), "Correct --host, --port or --path."))?;
    let ca_pem = match &host.ca {
        Some(path) => Some(input::text("certificates", path, input::MAX_PEM_BYTES)?),
        None => None,
    };
    Ok(Target {
        endpoint,
        auth: who.auth,
        credential: who.credential.clone(),
        tls: TlsPolicy { ca_pem, skip_certificate_check: host.skip_cert_check },
        message_encryption: match host.message_encryption {
            Encryption::Auto => MessageEncryption::Auto,
            Encryption::Always => MessageEncryption::Always,
            Encryption::Never => MessageEncryption::Never,
        },
        send_channel_bindings: host.send_cbt,
        allow_basic_over_http: host.allow_basic_over_http,
        kerberos: KerberosOptions {
            spn_service: host.kerberos.spn_service.clone(),
            spn_host: host.kerberos.spn_host.clone(),
            delegate: host.kerberos.delegate,
        },
        shell: shell.map_or_else(ShellProperties::default, shell_properties),
        timeouts: timeouts(host)?,
    })
}

fn shell_properties(shell: &ShellArgs) -> ShellProperties {
    ShellProperties {
        environment: shell.environment.iter().map(|v| (v.name.clone(), v.value.clone())).collect(),
        working_directory: shell.cwd.clone(),
        no_profile: shell.no_profile,
        code_page: shell.codepage,
        ..ShellProperties::default()
    }
}

fn timeouts(host: &HostArgs) -> Result<Timeouts, Failure> {
    let operation = host.operation_timeout;
    if operation < Duration::from_secs(1) || operation > Duration::from_secs(60) {
        return Err(Failure::usage("--operation-timeout is not within 1s and 60s", "Give one that is, such as 20s."));
    }
    let read = host.read_timeout.unwrap_or(operation + READ_MARGIN);
    if read <= operation {
        return Err(Failure::usage(
            "--read-timeout does not exceed --operation-timeout, so every long poll would look like a dead host",
            "Give a longer --read-timeout, or leave it away.",
        ));
    }
    Ok(Timeouts { connect: host.connect_timeout, operation, read })
}

/// The connection that was used, in JSON.
#[derive(Debug, Serialize)]
struct ConnectionView {
    auth: &'static str,
    sealed: bool,
    reused: bool,
    tls: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl From<lictor_winrm::pool::ConnectionInfo> for ConnectionView {
    fn from(info: lictor_winrm::pool::ConnectionInfo) -> Self {
        Self { auth: info.auth, sealed: info.sealed, reused: info.reused, tls: info.tls, warnings: info.warnings }
    }
}

/// Says each warning once.
fn warn(connection: &ConnectionView) {
    for warning in &connection.warnings {
        console::note(&format!("warning: {}", crate::failure::clean(warning)));
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

/// Where the password comes from when there is no file.
pub(crate) const PASSWORD_VARIABLE: &str = "LICTOR_PASSWORD";

/// Largest script, and largest standard input, of a direct command.
const MAX_STDIN_BYTES: usize = 64 * 1024 * 1024;

/// How long a test may take.
const TESTED: Duration = Duration::from_secs(60);

/// How long an examination may take: most of it is short, but much can be silent.
const EXPLAINED: Duration = Duration::from_secs(180);

/// By how much the wait for an HTTP answer exceeds the operation timeout.
const READ_MARGIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn parse(arguments: &[&str]) -> WinrmCommand {
        let all = ["lictor", "winrm"].iter().chain(arguments);
        match Cli::try_parse_from(all).unwrap().command {
            Command::Winrm(args) => args.command,
            other => panic!("{other:?}"),
        }
    }

    fn host(arguments: &[&str]) -> HostArgs {
        match parse(&[&["test", "--host", "h", "--user", "u"], arguments].concat()) {
            WinrmCommand::Test(args) => args.host,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_read_timeout_follows_the_operation_timeout() {
        let waits = timeouts(&host(&["--operation-timeout", "40s"])).unwrap();
        assert_eq!((waits.operation, waits.read), (Duration::from_secs(40), Duration::from_secs(50)));
        assert!(timeouts(&host(&["--operation-timeout", "40s", "--read-timeout", "40s"])).is_err());
        assert!(timeouts(&host(&["--operation-timeout", "2m"])).is_err());
    }

    #[test]
    fn arguments_after_the_dashes_belong_to_the_command() {
        let WinrmCommand::Run(args) = parse(&["run", "--host", "h", "--user", "u", "--", "sim.exe", "--host", "-v"])
        else {
            panic!("not run");
        };
        assert_eq!(args.command, ["sim.exe", "--host", "-v"]);
        assert_eq!(args.host.host, "h");
    }

    #[test]
    fn powershell_has_no_standard_input_to_give() {
        let WinrmCommand::Run(args) =
            parse(&["run", "--host", "h", "--user", "u", "--shell", "powershell", "--stdin", "x", "--", "Get-Date"])
        else {
            panic!("not run");
        };
        assert_eq!(run_work(&args).unwrap_err().exit, Exit::USAGE);
    }

    #[test]
    fn skipping_the_check_and_giving_an_authority_contradict() {
        let arguments = ["lictor", "winrm", "test", "--host", "h", "--user", "u", "--ca", "f", "--skip-cert-check"];
        assert!(Cli::try_parse_from(arguments).is_err());
    }
}
