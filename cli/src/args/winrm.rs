//! Flags of `lictor winrm`: one host, directly.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Subcommand, ValueEnum};

use super::{Auth, Encryption, KinitMode, Language, Scheme, Variable, duration, variable};
use crate::exit;

/// `lictor winrm`.
#[derive(Debug, Args)]
pub(crate) struct WinrmArgs {
    #[command(subcommand)]
    pub(crate) command: WinrmCommand,
}

/// What to do on the host.
#[derive(Debug, Subcommand)]
pub(crate) enum WinrmCommand {
    /// Test the connection rung by rung: resolve, connect, TLS, Identify, authenticate, open a shell, run, close.
    ///
    /// A wrong password is tried once. No shell is left behind. With --explain more is looked at, and each finding says what it may
    /// be and what to do.
    #[command(after_long_help = exit::HELP)]
    Test(TestArgs),
    /// Look how safely WinRM is set up on the host: listeners, certificate, authentication, access, firewall, logs.
    ///
    /// Each row passes, fails, or is unknown when the host does not tell, or not to this user; most of it takes an
    /// administrator. Nothing is changed. The rows are explained in docs/posture.md.
    #[command(after_long_help = exit::HELP)]
    Posture(PostureArgs),
    /// Run one command; its output streams while it runs, its exit code is the exit code.
    #[command(after_long_help = exit::HELP)]
    Run(RunArgs),
    /// Run a script given as a file; it travels through standard input, never on a command line.
    #[command(after_long_help = exit::HELP)]
    Script(ScriptArgs),
    /// Make a client certificate for a local account of a host, and say what to do with it there. Talks to nobody.
    MakeClientCert(MakeClientCertArgs),
}

/// `lictor winrm make-client-cert`.
#[derive(Debug, Args)]
pub(crate) struct MakeClientCertArgs {
    /// Name of the local account that the host maps the certificate to.
    #[arg(long, value_name = "NAME")]
    pub(crate) user: String,
    /// User principal name in the certificate. Default: NAME@localhost.
    #[arg(long)]
    pub(crate) upn: Option<String>,
    /// Where cert.pem and key.pem go; made when it is not there. The key can be read by its owner alone, and is not encrypted.
    #[arg(long, value_name = "DIR")]
    pub(crate) out_dir: PathBuf,
    /// How many days it is valid.
    #[arg(long, default_value_t = 3650)]
    pub(crate) days: u32,
    /// Kind of the key.
    #[arg(long, value_enum, default_value_t = ClientKeyType::Rsa2048)]
    pub(crate) key_type: ClientKeyType,
    /// Replace files that are there.
    #[arg(long)]
    pub(crate) force: bool,
}

/// Kinds of keys of client certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClientKeyType {
    /// RSA, 2048 bits: every host takes it.
    Rsa2048,
    /// RSA, 3072 bits.
    Rsa3072,
    /// ECDSA on P-256.
    #[value(name = "ecdsa-p256")]
    EcdsaP256,
}

/// `lictor winrm test`.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    #[command(flatten)]
    pub(crate) host: HostArgs,
    /// Examine the host and the way to it: Kerberos, names, ports, versions of TLS, the certificate, what answers and what it offers,
    /// then the logon, the shell and PowerShell's profile. Sends the credential at most once, and changes nothing.
    #[arg(long)]
    pub(crate) explain: bool,
    /// Give up after this long [default: 1m; with --explain 3m].
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Waits")]
    pub(crate) timeout: Option<Duration>,
}

/// `lictor winrm posture`.
#[derive(Debug, Args)]
pub(crate) struct PostureArgs {
    #[command(flatten)]
    pub(crate) host: HostArgs,
    /// Do not run the script that reads what WS-Management does not tell: firewall, logging, session configurations.
    #[arg(long)]
    pub(crate) no_script: bool,
    /// Give up after this long.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2m", help_heading = "Waits")]
    pub(crate) timeout: Duration,
}

/// `lictor winrm run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) host: HostArgs,
    #[command(flatten)]
    pub(crate) shell: ShellArgs,
    #[command(flatten)]
    pub(crate) runs: RepeatArgs,
    /// What runs the command: cmd takes it as a command line, powershell as a line of PowerShell.
    #[arg(long = "shell", value_enum, default_value_t = Language::Cmd, help_heading = "Shell")]
    pub(crate) shell_kind: Language,
    /// Standard input of the command: a file of at most 64 MiB, or `-` for our own, which is sent as it comes (with --repeat:
    /// read to its end first).
    #[arg(long, value_name = "FILE", help_heading = "Shell")]
    pub(crate) stdin: Option<PathBuf>,
    /// The command, then its arguments, after `--`. The command goes onto the command line as it stands; each argument is
    /// quoted when it needs it.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// `lictor winrm script`.
#[derive(Debug, Args)]
pub(crate) struct ScriptArgs {
    #[command(flatten)]
    pub(crate) host: HostArgs,
    #[command(flatten)]
    pub(crate) shell: ShellArgs,
    #[command(flatten)]
    pub(crate) runs: RepeatArgs,
    /// The script: a file, or `-` for standard input. UTF-8, at most 64 MiB.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Its language.
    #[arg(long, value_enum, default_value_t = Language::Powershell)]
    pub(crate) language: Language,
    /// Variable of the script to hand back; it goes into the JSON, or onto standard error. May be given several times.
    #[arg(long = "output-variable", value_name = "NAME")]
    pub(crate) output_variables: Vec<String>,
    /// Arguments, handed to the script in order; after `--` when one starts with a dash.
    #[arg(value_name = "ARGS")]
    pub(crate) arguments: Vec<String>,
}

/// Where the host listens, as whom and how to talk to it.
#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// Host name or address.
    #[arg(long, help_heading = "Connection")]
    pub(crate) host: String,
    /// TCP port [default: 5985 for http, 5986 for https].
    #[arg(long, help_heading = "Connection", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// Transport.
    #[arg(long, value_enum, default_value_t = Scheme::Https, help_heading = "Connection")]
    pub(crate) scheme: Scheme,
    /// URL path [default: /wsman].
    #[arg(long, help_heading = "Connection")]
    pub(crate) path: Option<String>,
    /// How to authenticate. Without this flag: kerberos when a keytab or a credential cache is given, else negotiate, which begins with
    /// Kerberos for `user@REALM` when krb5.conf serves the realm.
    #[arg(long, value_enum, help_heading = "Connection")]
    pub(crate) auth: Option<Auth>,
    /// `DOMAIN\user`, `user@domain` or a bare local name [default: the principal of the keytab or of the credential cache, when it
    /// has just one].
    #[arg(long, help_heading = "Connection")]
    pub(crate) user: Option<String>,
    /// File with the password; one line end after it is cut off. Without this flag the password comes from the
    /// environment variable LICTOR_PASSWORD.
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub(crate) password_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) kerberos: KerberosArgs,
    /// PEM file with the authorities that may have issued the host's certificate [default: the system's].
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub(crate) ca: Option<PathBuf>,
    /// Do not check the host's certificate. Warns each time.
    #[arg(long, conflicts_with = "ca", help_heading = "Connection")]
    pub(crate) skip_cert_check: bool,
    /// When to seal messages: auto seals over http, always over https too.
    #[arg(long, value_enum, default_value_t = Encryption::Auto, value_name = "WHEN", help_heading = "Connection")]
    pub(crate) message_encryption: Encryption,
    /// Send TLS channel bindings when authenticating over https.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, help_heading = "Connection")]
    pub(crate) send_cbt: bool,
    /// Allow Basic over plain http: password and output then travel readable. Refused otherwise, before anything is sent.
    #[arg(long, help_heading = "Connection")]
    pub(crate) allow_basic_over_http: bool,
    /// OperationTimeout of each message: bounds one exchange, not the command. 1s to 60s.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "20s", help_heading = "Waits")]
    pub(crate) operation_timeout: Duration,
    /// Wait for an HTTP answer; must exceed the operation timeout [default: 10s more than it].
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Waits")]
    pub(crate) read_timeout: Option<Duration>,
    /// Wait for name resolution, TCP and TLS together.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s", help_heading = "Waits")]
    pub(crate) connect_timeout: Duration,
}

/// Kerberos.
#[derive(Debug, Args)]
pub(crate) struct KerberosArgs {
    /// Log in with the keys in this keytab [default: with the password; where there is none, with what KRB5_KTNAME names].
    #[arg(long, value_name = "FILE", conflicts_with_all = ["password_file", "ccache"], help_heading = "Kerberos")]
    pub(crate) keytab: Option<PathBuf>,
    /// Use the tickets of this credential cache: FILE:path, DIR:path or a path [default with --kinit-mode manual, and where there
    /// is neither password nor keytab: what KRB5CCNAME names].
    #[arg(long, value_name = "CACHE", conflicts_with = "password_file", help_heading = "Kerberos")]
    pub(crate) ccache: Option<String>,
    /// Who gets the ticket-granting ticket: managed is us, with password or keytab; manual is you, with kinit, into a cache that
    /// is only read.
    #[arg(long, value_enum, value_name = "MODE", help_heading = "Kerberos")]
    pub(crate) kinit_mode: Option<KinitMode>,
    /// The user's realm [default: the one in --user, else the default realm of krb5.conf].
    #[arg(long, help_heading = "Kerberos")]
    pub(crate) realm: Option<String>,
    /// Service of the host's SPN [default: HTTP, then WSMAN, then HOST].
    #[arg(long, value_name = "SERVICE", help_heading = "Kerberos")]
    pub(crate) spn_service: Option<String>,
    /// Host of the SPN [default: --host].
    #[arg(long, value_name = "HOST", help_heading = "Kerberos")]
    pub(crate) spn_host: Option<String>,
    /// Hand the host a ticket-granting ticket, so that the command can act as the user on other hosts. Give it only to hosts that
    /// you trust with that.
    #[arg(long, help_heading = "Kerberos")]
    pub(crate) delegate: bool,
    /// The krb5.conf to use [default: what KRB5_CONFIG names, else /etc/krb5.conf].
    #[arg(long, value_name = "FILE", help_heading = "Kerberos")]
    pub(crate) krb5_conf: Option<PathBuf>,
    /// Print the dialogue with Kerberos on standard error, as KRB5_TRACE does. Holds no keys.
    #[arg(long, help_heading = "Kerberos")]
    pub(crate) trace: bool,
}

/// Properties of the remote shell.
#[derive(Debug, Args)]
pub(crate) struct ShellArgs {
    /// Do not load the Windows user profile (WINRS_NOPROFILE).
    #[arg(long, help_heading = "Shell")]
    pub(crate) no_profile: bool,
    /// Do not run PowerShell's profile scripts (-NoProfile) [default: as --no-profile].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true,
          help_heading = "Shell")]
    pub(crate) no_powershell_profile: Option<bool>,
    /// Leave PowerShell's CLIXML on standard error as it is, instead of decoding it to text and records.
    #[arg(long, help_heading = "Shell")]
    pub(crate) raw_stderr: bool,
    /// Environment variable of the remote shell. May be given several times.
    #[arg(long = "env", value_name = "K=V", value_parser = variable, help_heading = "Shell")]
    pub(crate) environment: Vec<Variable>,
    /// Working directory on the host [default: the user's profile directory].
    #[arg(long, value_name = "DIRECTORY", help_heading = "Shell")]
    pub(crate) cwd: Option<String>,
    /// Code page of the remote console; 65001 is UTF-8.
    #[arg(long, value_name = "NUMBER", default_value_t = 65001, help_heading = "Shell")]
    pub(crate) codepage: u32,
    /// Stop the command after this long.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1h", help_heading = "Waits")]
    pub(crate) timeout: Duration,
}

/// Running something more than once.
#[derive(Debug, Args)]
pub(crate) struct RepeatArgs {
    /// Run it this many times, over shared sessions; a summary follows on standard error.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = "Repetition")]
    pub(crate) repeat: u32,
    /// Run this many at once.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000), help_heading = "Repetition")]
    pub(crate) concurrency: u32,
}
