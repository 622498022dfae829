//! `lictor-verify-windows`: finds out on a real Windows host whether this project's assumptions about WinRM hold.
//!
//! Started by `scripts/verify-windows`; `docs/verify-windows.md` says what it does. It changes nothing on the host but
//! for shells of its own, which it deletes, also when it is interrupted. It tries a wrong password once.

mod checks;
mod envelope;
mod lab;
mod reply;
mod report;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use lictor_winrm::Target;
use lictor_winrm::fault::Class;
use lictor_winrm::target::{
    AuthKind, Credential, Endpoint, KerberosOptions, MessageEncryption, Scheme, Secret, Timeouts, TlsPolicy,
};
use lictor_winrm::wsman::{self, Response};
use tokio::signal::unix::{SignalKind, signal};

use checks::{Check, Finding, Outcome, When};
use lab::Lab;
use report::{Report, Row, Summary};

/// Finds out on a Windows host whether what Lictor assumes about WinRM holds there.
///
/// Takes about five minutes, makes shells of its own and deletes them, and writes a report without password or names.
/// See docs/verify-windows.md.
///
/// Exit codes: 0 all as expected, 1 something differs, 2 usage, 3 the host could not be reached or did not let us in,
/// 4 shells may have been left behind, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "verify-windows", version)]
struct Arguments {
    /// Name or address of the host
    #[arg(long)]
    host: String,
    /// Its WinRM port [default: 5985 for http, 5986 for https]
    #[arg(long)]
    port: Option<u16>,
    #[arg(long, value_enum, default_value = "http")]
    scheme: SchemeArgument,
    #[arg(long, default_value = "/wsman")]
    path: String,
    #[arg(long, value_enum, default_value = "ntlm")]
    auth: AuthArgument,
    /// An account that may use WinRM: 'DOMAIN\user', 'user@domain' or a local name
    #[arg(long)]
    user: String,
    /// File with its password; one line break at its end is dropped [default: LICTOR_PASSWORD in the environment]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// PEM file of authorities to trust instead of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Do not check the host's certificate
    #[arg(long)]
    skip_cert_check: bool,
    /// Send the password with Basic over plain http
    #[arg(long)]
    allow_basic_over_http: bool,
    /// Also use quotas up: up to 1,600 commands in a shell and 40 shells. Disturbs other sessions of the user
    #[arg(long)]
    with_quotas: bool,
    /// Also wait for what the host does to idle connections and shells: three to five minutes more
    #[arg(long)]
    with_idle: bool,
    /// Make only checks whose names begin with this. May be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Write FILE.json and FILE.md
    #[arg(long, value_name = "FILE", default_value = "verify-windows-report")]
    report: PathBuf,
    /// Leave names of host, user and client in the report
    #[arg(long)]
    include_names: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SchemeArgument {
    Http,
    Https,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum AuthArgument {
    Basic,
    Ntlm,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say(&format!("verify-windows: {error:#}"));
            ExitCode::from(exit::USAGE)
        }
    }
}

mod exit {
    pub(super) const DIFFERS: u8 = 1;
    pub(super) const USAGE: u8 = 2;
    pub(super) const NO_ACCESS: u8 = 3;
    pub(super) const LEFT_BEHIND: u8 = 4;
    pub(super) const INTERRUPTED: u8 = 130;
}

/// A line for people, on standard output.
fn say(line: &str) {
    use std::io::Write as _;
    // A closed pipe must not keep shells from being deleted.
    let _ = writeln!(std::io::stdout(), "{line}");
}

async fn run(arguments: &Arguments) -> Result<u8> {
    let target = target(arguments)?;
    let selected: Vec<Check> = checks::all().into_iter().filter(|check| is_selected(check, &arguments.only)).collect();
    ensure!(!selected.is_empty(), "no check's name begins with {:?}", arguments.only);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let begin = Instant::now();
    let started = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    say(&format!("Examining {} as {}", target.endpoint, target.credential.username()));

    let lab = Lab::new(target);
    let host = match introduce(&lab).await {
        Ok(host) => host,
        Err(error) => {
            say(&format!("The host could not be examined: {error:#}"));
            // A shell may have been made all the same, when the answer to Create got lost.
            let clean =
                !lab.may_have_shells() || matches!(tokio::time::timeout(CLEAN_UP, lab.close()).await, Ok(Ok(0)));
            return Ok(if clean { exit::NO_ACCESS } else { exit::LEFT_BEHIND });
        }
    };
    say(&format!("Host: {host}\n"));
    let mut rows = Vec::new();
    let interrupted = tokio::select! {
        () = examine(&lab, arguments, &selected, &mut rows) => false,
        _ = interrupt.recv() => true,
        _ = terminate.recv() => true,
        _ = hangup.recv() => true,
    };
    if interrupted {
        say("\nInterrupted: deleting shells; once more ends at once, and leaves them behind");
    }
    let left = tokio::select! {
        left = tokio::time::timeout(CLEAN_UP, lab.close()) => left.ok().and_then(Result::ok),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
    };

    let mut summary = Summary::default();
    rows.iter().for_each(|(_, outcome)| summary.count(*outcome));
    let differs = summary.differs > 0;
    let mut report = Report {
        format: 1,
        kit: concat!("lictor-verify-windows ", env!("CARGO_PKG_VERSION")),
        started,
        took_seconds: begin.elapsed().as_secs(),
        connection: connection(&lab.target),
        host,
        summary,
        shells_left_behind: left,
        interrupted,
        checks: rows.into_iter().map(|(row, _)| row).collect(),
    };
    report.hide(&names(&lab, arguments.include_names));
    table(&report);
    let [json, markdown] = report.write(&arguments.report)?;
    say(&format!("Report: {} and {}", json.display(), markdown.display()));
    Ok(match left {
        Some(0) if interrupted => exit::INTERRUPTED,
        Some(0) if differs => exit::DIFFERS,
        Some(0) => 0,
        _ => exit::LEFT_BEHIND,
    })
}

fn is_selected(check: &Check, only: &[String]) -> bool {
    only.is_empty() || only.iter().any(|prefix| check.name.starts_with(prefix.as_str()))
}

fn target(arguments: &Arguments) -> Result<Target> {
    let password = match &arguments.password_file {
        Some(file) => std::fs::read_to_string(file)
            .with_context(|| format!("failed to read the password from {}", file.display()))?,
        None => std::env::var("LICTOR_PASSWORD").context("give --password-file, or LICTOR_PASSWORD")?,
    };
    let password =
        password.strip_suffix('\n').map_or(password.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    let (scheme, auth) = match (arguments.scheme, arguments.auth) {
        (SchemeArgument::Http, AuthArgument::Basic) if !arguments.allow_basic_over_http => {
            bail!("Basic over http shows the password to everybody on the way: use https, or --allow-basic-over-http")
        }
        (scheme, auth) => (
            match scheme {
                SchemeArgument::Http => Scheme::Http,
                SchemeArgument::Https => Scheme::Https,
            },
            match auth {
                AuthArgument::Basic => AuthKind::Basic,
                AuthArgument::Ntlm => AuthKind::Ntlm,
            },
        ),
    };
    let ca_pem = match &arguments.ca {
        Some(file) => {
            Some(std::fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?)
        }
        None => None,
    };
    Ok(Target {
        endpoint: Endpoint::new(scheme, &arguments.host, arguments.port, Some(&arguments.path))?,
        auth,
        credential: Credential::password(arguments.user.clone(), Secret::new(password.to_owned())),
        tls: TlsPolicy { ca_pem, skip_certificate_check: arguments.skip_cert_check },
        message_encryption: MessageEncryption::Auto,
        send_channel_bindings: true,
        allow_basic_over_http: arguments.allow_basic_over_http,
        kerberos: KerberosOptions::default(),
        shell: lab::properties(),
        timeouts: Timeouts::default(),
    })
}

/// The first logon: when it fails, nothing else is tried. What the host says of itself.
async fn introduce(lab: &Lab) -> Result<String> {
    let mut line = lab.connect().await?;
    let identify = Bytes::from_static(wsman::IDENTIFY.as_bytes());
    let answer = line.0.exchange(identify, Duration::from_secs(30)).await.map_err(|error| lab::failure(&error))?;
    let host = match wsman::parse(&answer.body, None)? {
        Response::Identified(identity) => format!("{}, {}", identity.vendor, identity.version),
        other => bail!("Identify was answered with {}", other.name()),
    };
    // A host that lets nobody make shells has nothing to tell. Any other trouble is for the checks to describe.
    let (shell, reply) =
        lab.create_with(&mut line, |name| envelope::Custom::create(name, Duration::from_secs(900))).await?;
    if let Some(fault) = reply.fault()
        && matches!(fault.class(), Class::AccessDenied | Class::ShellsNotAllowed)
    {
        bail!("the account may log on, but may not make a remote shell: {fault}");
    }
    let Some(shell) = shell else { return Ok(host) };
    let mut bench = lab::Bench { line, shell };
    for (variable, instead) in NAMES {
        if let Ok(ended) = lab.run(&mut bench, &format!("set {variable}"), None).await {
            // `set NAME` shows all variables that begin so.
            for line in String::from_utf8_lossy(&ended.stdout).lines() {
                if let Some((_, value)) = line.split_once('=') {
                    lab.hide(value.trim_start_matches('\\'), instead);
                }
            }
        }
    }
    Ok(host)
}

/// Variables whose values name the host, its domain or the user.
const NAMES: [(&str, &str); 5] = [
    ("COMPUTERNAME", "<host>"),
    ("USERDOMAIN", "<domain>"),
    ("USERDNSDOMAIN", "<domain>"),
    ("LOGONSERVER", "<host>"),
    ("USERNAME", "<user>"),
];

async fn examine(lab: &Lab, arguments: &Arguments, checks: &[Check], rows: &mut Vec<(Row, Outcome)>) {
    for (index, check) in checks.iter().enumerate() {
        let begin = Instant::now();
        let finding = match check.when {
            When::WithQuotas if !arguments.with_quotas => Finding::skipped("needs --with-quotas"),
            When::WithIdle if !arguments.with_idle => Finding::skipped("needs --with-idle"),
            _ if lab.is_rejected() => Finding::skipped("the host has rejected the credential"),
            when => match tokio::time::timeout(checks::patience(when), (check.run)(lab)).await {
                Ok(Ok(finding)) => finding,
                Ok(Err(error)) => Finding::unknown([format!("{error:#}")]),
                Err(_) => Finding::unknown([format!("no end after {:?}", checks::patience(when))]),
            },
        };
        let took = begin.elapsed();
        say(&format!("[{:>2}/{}] {:<14} {}", index + 1, checks.len(), finding.outcome.as_str(), check.name));
        if finding.outcome == Outcome::Differs {
            say(&format!("        expected: {}", check.expected));
        }
        if matches!(finding.outcome, Outcome::Differs | Outcome::CouldNotTell) {
            finding.evidence.iter().for_each(|line| say(&format!("        {line}")));
        }
        rows.push((Row::new(check, &finding, took), finding.outcome));
        // What it could not delete now is tried again at the end.
        let _ = tokio::time::timeout(CLEAN_UP, lab.sweep()).await;
    }
}

fn table(report: &Report) {
    let width = report.checks.iter().map(|row| row.name.len()).max().unwrap_or(0);
    say("");
    for row in &report.checks {
        say(&format!("{:<width$}  {:<14}  {:>7} ms", row.name, row.result, row.took_ms));
    }
    say(&format!("\n{}", report.totals()));
}

fn connection(target: &Target) -> String {
    let (scheme, auth) = (target.endpoint.scheme(), target.auth);
    format!("{auth:?} over {scheme:?}").to_lowercase()
}

/// What must not stand in the report: always the password; names unless they were asked for.
fn names(lab: &Lab, include: bool) -> Vec<(String, &'static str)> {
    let secret = lab.target.credential.secret().map(|secret| (secret.expose().to_owned(), "<password>"));
    let mut names: Vec<_> = secret.into_iter().collect();
    if include {
        return names;
    }
    let user = lab.target.credential.username();
    let (domain, bare) = match (user.split_once('\\'), user.split_once('@')) {
        (Some((domain, bare)), _) | (None, Some((bare, domain))) => (Some(domain), bare),
        (None, None) => (None, user),
    };
    names.push((user.to_owned(), "<user>"));
    names.push((bare.to_owned(), "<user>"));
    names.extend(domain.map(|domain| (domain.to_owned(), "<domain>")));
    let host = lab.target.endpoint.host();
    names.push((host.to_owned(), "<host>"));
    // An address has no parts that say anything; those of a name do.
    if host.parse::<std::net::IpAddr>().is_err()
        && let Some((first, rest)) = host.split_once('.')
    {
        names.push((first.to_owned(), "<host>"));
        names.push((rest.to_owned(), "<domain>"));
    }
    for (name, instead) in lab.hidden() {
        // `DOMAIN\user` of Owner is also found in parts.
        if let Some((domain, bare)) = name.split_once('\\') {
            names.push((domain.to_owned(), "<domain>"));
            names.push((bare.to_owned(), "<user>"));
        }
        names.push((name, instead));
    }
    names.retain(|(name, _)| !name.is_empty());
    names
}

/// For shells that have to be deleted.
const CLEAN_UP: Duration = Duration::from_secs(60);
