//! The `winsim` program: one simulated Windows host from the command line.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use winsim::{
    ChannelBindings, Configuration, Form, Kerberos, Logon, Numbering, Options, Order, PowerShell, Scheme, Style, Tls,
    TlsVersion, User, Winsim,
};

/// A simulated Windows host that speaks WinRM, for tests and demonstrations.
///
/// Without certificate it speaks HTTP and serves only sealed messages, with one it speaks HTTPS. The path is /wsman. Nothing runs
/// on the real machine: cmd, PowerShell and their programs are small deterministic imitations.
#[derive(Parser)]
#[command(name = "winsim", version, after_long_help = PROGRAMS)]
struct Arguments {
    /// Where WinRM listens; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where GET /statistics, GET /shells, POST /reset and orders on /control are answered, without authentication
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    admin_listen: SocketAddr,
    /// Certificate chain in PEM; makes the listener speak HTTPS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key in PEM, not encrypted
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The oldest version of TLS that is taken
    #[arg(long, value_name = "VERSION", value_enum, default_value = "1.2")]
    tls_min: TlsVersion,
    /// The newest version of TLS that is taken
    #[arg(long, value_name = "VERSION", value_enum, default_value = "1.3")]
    tls_max: TlsVersion,
    /// An account: 'DOMAIN\name', 'name@domain' or a local 'name'. May be repeated, each with its --password-file
    #[arg(long, value_name = "NAME", required_unless_present = "keytab")]
    user: Vec<String>,
    /// File with the password of the --user at the same place; one line break at its end is dropped
    #[arg(long, value_name = "FILE")]
    password_file: Vec<PathBuf>,
    /// Keytab with the host's keys, read again whenever it has changed. With it negotiate takes Kerberos too, and --auth
    /// may name kerberos
    #[arg(long, value_name = "FILE")]
    keytab: Option<PathBuf>,
    /// A principal that may log on, and as which user: 'name@REALM' or 'name@REALM=DOMAIN\name'; a '*' for the name in both
    /// places stands for every name of the realm. Anybody else's ticket gets 401. May be repeated
    #[arg(long, value_name = "PRINCIPAL[=USER]", requires = "keytab")]
    principal: Vec<Logon>,
    /// How Kerberos messages of the host are numbered
    #[arg(long, value_name = "NUMBERS", value_enum, default_value = "counted")]
    kerberos_numbering: Numbering,
    /// Authentication schemes that are offered
    #[arg(long, value_name = "SCHEMES", value_enum, value_delimiter = ',', default_value = "negotiate")]
    auth: Vec<Scheme>,
    /// Serve plain bodies, and Basic, over HTTP
    #[arg(long)]
    allow_unencrypted: bool,
    /// What is done about channel bindings over HTTPS
    #[arg(long, value_name = "LEVEL", value_enum, default_value = "relaxed")]
    channel_bindings: ChannelBindings,
    /// The computer name
    #[arg(long, value_name = "NAME", default_value = "WINSIM")]
    hostname: String,
    /// MaxShellsPerUser
    #[arg(long, value_name = "COUNT", default_value_t = 30)]
    max_shells_per_user: usize,
    /// MaxConcurrentOperationsPerUser; a command counts until its shell is deleted
    #[arg(long, value_name = "COUNT", default_value_t = 1500)]
    max_operations_per_user: usize,
    /// MaxProcessesPerShell: commands of a shell that run at the same time
    #[arg(long, value_name = "COUNT", default_value_t = 25)]
    max_processes_per_shell: usize,
    /// MaxConcurrentUsers: users that have a shell
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    max_concurrent_users: usize,
    /// MaxConnections; more wait until one is closed
    #[arg(long, value_name = "COUNT", default_value_t = 300)]
    max_connections: usize,
    /// MaxBatchItems: items in one answer to Enumerate or Pull
    #[arg(long, value_name = "COUNT", default_value_t = 32_000)]
    max_batch_items: usize,
    /// The element of a fault that carries its code
    #[arg(long, value_name = "FORM", value_enum, default_value = "wsman-fault")]
    fault_form: Form,
    /// Write codes of faults as signed numbers
    #[arg(long)]
    signed_faults: bool,
    /// MaxEnvelopeSizekb
    #[arg(long, value_name = "KIB", default_value_t = 500)]
    max_envelope_size: usize,
    /// Longer OperationTimeouts are cut to this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    max_operation_timeout: u64,
    /// The shortest IdleTimeOut, in seconds, that a shell may ask for
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    min_idle_timeout: u64,
    /// Never send the end of a command together with output
    #[arg(long)]
    done_alone: bool,
    /// An account that can log on but may not use WinRM (fault 5). May be repeated
    #[arg(long, value_name = "NAME")]
    deny_user: Vec<String>,
    /// An account that is no administrator: it may use shells, but not read the configuration (fault 5). May be repeated
    #[arg(long, value_name = "NAME")]
    standard_user: Vec<String>,
    /// The profile script of PowerShell, as text: it runs before each script, unless -NoProfile is given
    #[arg(long, value_name = "SCRIPT", default_value = "")]
    powershell_profile: String,
    /// The language mode of PowerShell
    #[arg(long, value_name = "MODE", default_value = "FullLanguage")]
    language_mode: String,
    /// An order that is carried out at the start, see below. May be repeated
    #[arg(long, value_name = "JSON", value_parser = order)]
    order: Vec<Order>,
    /// Written once both ports are open: {"address": ..., "admin_address": ...}
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

fn order(text: &str) -> serde_json::Result<Order> {
    serde_json::from_str(text)
}

const PROGRAMS: &str = "\
Orders, to --order or as POST /control on the administration address; GET /control tells how things are:
  {\"advance\": \"120s\"}      move the host's clock: idle connections are closed at 120 s, shells expire,
                           timeouts and sleeping programs come to their end
  {\"reboot\": {\"cut\": \"close\"|\"reset\", \"refuse\": \"30s\"|\"until-ready\", \"unavailable\": \"10s\"|\"until-ready\"}}
                           connections are cut, shells and quotas gone, connections refused, then 503
  {\"restart-service\": {\"cut\": ..., \"unavailable\": ...}}   the same, but HTTP.sys goes on listening
  {\"unavailable\": 3}       503 for the next 3 requests
  \"ready\"                  every outage ends
  {\"slow\": {\"delays\": {\"Command\": \"2s\", \"*\": \"10ms\"}, \"trickle\": {\"bytes\": 10, \"every\": \"100ms\"}}}
  {\"expire-authentication\": \"unauthorized\"|\"bad-request\"}   on every connection that is open now
  {\"drop\": {\"request\": {\"after\": 100, \"cut\": ...}}}   after the 100th byte that comes in from now on
  {\"drop\": {\"answer\": {\"operation\": \"Receive\", \"after\": 100, \"cut\": ...}}}   after 100 bytes of the next such answer
  {\"quotas\": {\"max_shells_per_user\": 2, ...}}   named as the options, with underscores
  {\"fault\": {\"operation\": \"Command\", \"code\": 2150859174, \"times\": 1, \"done\": false,
             \"style\": {\"form\": \"wsman-fault\"|\"wmi-error\", \"signed\": false}}}   instead of an answer
  {\"fault-style\": {\"form\": \"wmi-error\", \"signed\": true}}   of all faults
  {\"configure\": {\"settings\": {\"Service/Auth/Basic\": \"true\"}, \"omitted\": [...], \"by_policy\": [...],
                 \"listeners\": [{\"address\": \"*\", \"transport\": \"HTTP\", \"port\": 5985, ...}], \"mappings\": [...]}}
                           what winrm/config tells; the host behaves as its options say
  {\"script\": {\"holds\": \"TEXT\", \"stdout\": \"...\", \"exit_code\": 0}}   said to PowerShell scripts that hold the text

Programs that every shell knows:
  cmd builtins      echo, set, cd, type, ver, exit, rem; & && || | ( ) > >> < 2>&1 %NAME%
  hostname, whoami, ping -n N HOST, findstr, more, chcp, cmd, powershell (a few cmdlets)
  sim.exe bytes N     exactly N bytes: 64-byte lines, line k (from 0) is k in 63 digits and LF, cut at N
  sim.exe lines N MS  'line k' CRLF for k = 1..N with a pause of MS milliseconds between them
  sim.exe sleep MS    nothing for MS milliseconds
  sim.exe mark NAME   nothing; the statistics count how often by NAME
  sim.exe argv A B    its arguments as a JSON array, split as CommandLineToArgvW does
  sim.exe stdin       standard input to standard output until its end
  sim.exe exit N      exit code N
  sim.exe stderr TEXT TEXT CRLF to standard error

The log goes to standard error; LOG=debug shows each violation.";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("LOG").unwrap_or_else(|_| "info,krb5=warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "Stopped");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    ensure!(arguments.user.len() == arguments.password_file.len(), "each --user needs its --password-file");
    let mut users = Vec::new();
    for (name, file) in arguments.user.iter().zip(&arguments.password_file) {
        let password = fs::read_to_string(file)
            .with_context(|| format!("failed to read the password of {name} from {}", file.display()))?;
        let password =
            password.strip_suffix('\n').map_or(password.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        users.push(User::new(name, password));
    }
    let read = |file: &PathBuf| fs::read(file).with_context(|| format!("failed to read {}", file.display()));
    let tls = match (&arguments.tls_cert, &arguments.tls_key) {
        (Some(certificate), Some(key)) => Some(Tls { certificate: read(certificate)?, key: read(key)? }),
        _ => None,
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let host = Winsim::start(Options {
        listen: arguments.listen,
        admin_listen: arguments.admin_listen,
        tls,
        tls_versions: (arguments.tls_min, arguments.tls_max),
        users,
        kerberos: arguments.keytab.map(|keytab| Kerberos {
            keytab,
            logons: arguments.principal,
            numbering: arguments.kerberos_numbering,
        }),
        schemes: arguments.auth,
        allow_unencrypted: arguments.allow_unencrypted,
        channel_bindings: arguments.channel_bindings,
        hostname: arguments.hostname,
        max_shells_per_user: arguments.max_shells_per_user,
        max_operations_per_user: arguments.max_operations_per_user,
        max_processes_per_shell: arguments.max_processes_per_shell,
        max_concurrent_users: arguments.max_concurrent_users,
        max_connections: arguments.max_connections,
        max_batch_items: arguments.max_batch_items,
        fault_style: Style { form: arguments.fault_form, signed: arguments.signed_faults },
        max_envelope_size: arguments.max_envelope_size * 1024,
        max_operation_timeout: Duration::from_secs(arguments.max_operation_timeout),
        min_idle_timeout: Duration::from_secs(arguments.min_idle_timeout),
        done_alone: arguments.done_alone,
        denied_users: arguments.deny_user,
        standard_users: arguments.standard_user,
        configuration: Configuration::default(),
        powershell: PowerShell { profile: arguments.powershell_profile, language_mode: arguments.language_mode },
    })
    .await?;
    for order in arguments.order {
        host.order(order).await;
    }
    tracing::info!(
        endpoint = format!("{scheme}://{}/wsman", host.address()),
        statistics = format!("http://{}/statistics", host.admin_address()),
        "Simulated Windows host is ready"
    );
    if let Some(file) = &arguments.ready_file {
        let ready = serde_json::json!({ "address": host.address(), "admin_address": host.admin_address() });
        // Whoever waits for the file must never see half of it.
        let partial = file.with_extension("partial");
        fs::write(&partial, ready.to_string()).with_context(|| format!("failed to write {}", partial.display()))?;
        fs::rename(&partial, file).with_context(|| format!("failed to write {}", file.display()))?;
    }
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    host.stop().await;
    Ok(())
}
