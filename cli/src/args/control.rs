//! Flags of the commands that go through the control plane.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, ArgGroup, Args, Subcommand, ValueEnum};

use super::import::ImportCredentialsArgs;
use super::{Encryption, Language, Scheme, Variable, duration, variable};
use crate::exit;

/// Where the control plane is and who we are.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// URL of the control plane, such as https://control-plane:7443.
    #[arg(long, global = true, value_name = "URL", env = "LICTOR_SERVER", help_heading = "Control plane")]
    pub(crate) server: Option<String>,
    /// File with the user token. Without it the token itself is taken from the environment variable LICTOR_TOKEN.
    #[arg(long, global = true, value_name = "FILE", env = "LICTOR_TOKEN_FILE", help_heading = "Control plane")]
    pub(crate) token_file: Option<PathBuf>,
    /// PEM file with the authority of the control plane: ca.pem in its state directory.
    #[arg(long, global = true, value_name = "FILE", env = "LICTOR_CA", help_heading = "Control plane")]
    pub(crate) ca: Option<PathBuf>,
}

/// `lictor task`.
#[derive(Debug, Args)]
pub(crate) struct TaskArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(subcommand)]
    pub(crate) command: TaskCommand,
}

/// What to do with tasks.
#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Submit a task. Prints its id, or follows it with --watch.
    ///
    /// With --hosts or --hosts-file it becomes a batch, one task for each host: prints the batch's id, or follows it with
    /// --watch to one table of results.
    #[command(after_long_help = exit::HELP,
              group = ArgGroup::new("kind").required(true).multiple(true).args(["command", "script", "test", "diagnose", "posture"]),
              group = ArgGroup::new("looks").args(["test", "diagnose", "posture"]),
              group = ArgGroup::new("where").required(true).args(["host", "hosts", "hosts_file"]),
              group = ArgGroup::new("many").multiple(true).args(["hosts", "hosts_file"]))]
    Submit(Box<SubmitArgs>),
    /// List tasks, newest first.
    List {
        /// At most this many.
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
        /// Only tasks in this state. May be given several times.
        #[arg(long = "state", value_enum, value_name = "STATE")]
        states: Vec<StateFilter>,
        /// Only tasks of this batch.
        #[arg(long, value_name = "BATCH", default_value = "")]
        batch: String,
    },
    /// Show all that is known of one task.
    Show {
        /// The task.
        task_id: String,
    },
    /// Follow a task: its output from an offset on, then live until its end. Its exit code is the exit code.
    ///
    /// When the control plane goes away, watching goes on as soon as it is back. Ctrl-C stops watching, not the task.
    #[command(after_long_help = exit::HELP)]
    Watch {
        /// The task.
        task_id: String,
        /// First byte of the output wanted, counted over both streams.
        #[arg(long, value_name = "BYTES", default_value_t = 0)]
        from_offset: u64,
    },
    /// Ask for cancellation; a running command is stopped on its host.
    Cancel {
        /// The task.
        task_id: String,
        /// Why, for the record.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
}

/// `lictor task submit`.
#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// The Windows host: name or address.
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// Many hosts, separated by commas: names or addresses, each with its port behind a colon if need be.
    #[arg(long, value_name = "HOST,...", value_delimiter = ',', help_heading = "Many hosts")]
    pub(crate) hosts: Vec<String>,
    /// Many hosts from a file, or from standard input with `-`: one a line, `HOST[:PORT] [LABEL]`. Blank lines and what
    /// follows a `#` are passed over.
    #[arg(long, value_name = "FILE", help_heading = "Many hosts")]
    pub(crate) hosts_file: Option<PathBuf>,
    /// Most hosts at once [default: as many as agents take].
    #[arg(long, value_name = "N", requires = "many", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Many hosts")]
    pub(crate) concurrency: Option<u32>,
    /// How many hosts may fail, as a number or as a share such as 10%. With the next failure no further host is started
    /// [default: any number].
    #[arg(long, value_name = "N|P%", requires = "many", value_parser = tolerance, help_heading = "Many hosts")]
    pub(crate) max_failures: Option<Tolerance>,
    /// How often each host is tried again, at most 5. Only with --idempotent.
    #[arg(long, value_name = "N", requires = "many", value_parser = clap::value_parser!(u32).range(0..=5), help_heading = "Many hosts")]
    pub(crate) retries: Option<u32>,
    /// With --watch: write each host's output to a file in this directory.
    #[arg(long, value_name = "DIR", requires = "many", requires = "watch", help_heading = "Many hosts")]
    pub(crate) output_dir: Option<PathBuf>,
    /// Name of the stored WinRM credential.
    #[arg(long, value_name = "NAME")]
    pub(crate) credential: String,
    /// Run a script: a file, or `-` for standard input. UTF-8, at most 5 MiB. Its arguments follow after `--`.
    #[arg(long, value_name = "FILE", conflicts_with = "looks", help_heading = "What to do")]
    pub(crate) script: Option<PathBuf>,
    /// Language of the script.
    #[arg(long, value_enum, default_value_t = Language::Powershell, requires = "script", help_heading = "What to do")]
    pub(crate) language: Language,
    /// Variable of the script to hand back in the result. May be given several times.
    #[arg(long = "output-variable", value_name = "NAME", requires = "script", help_heading = "What to do")]
    pub(crate) output_variables: Vec<String>,
    /// Leave PowerShell's CLIXML on standard error as it is, instead of decoding it to text and records.
    #[arg(long, conflicts_with = "looks", help_heading = "What to do")]
    pub(crate) raw_stderr: bool,
    /// Test the connection rung by rung.
    #[arg(long, help_heading = "What to do")]
    pub(crate) test: bool,
    /// Examine the host and everything on the way to it, step by step: Kerberos and its KDCs, clocks, names, ports, TLS,
    /// authentication, rights, shell; with causes and remedies. The credential is tried at most once.
    #[arg(long, help_heading = "What to do")]
    pub(crate) diagnose: bool,
    /// Check how well the host's WinRM is hardened: a row for each check, pass, fail or unknown, and the fix.
    #[arg(long, help_heading = "What to do")]
    pub(crate) posture: bool,
    /// With --posture: look only at what WS-Management tells, and run no script for the rest.
    #[arg(long, requires = "posture", conflicts_with_all = ["test", "diagnose"], help_heading = "What to do")]
    pub(crate) without_script: bool,
    /// Standard input of the command: a file, or `-` for our own. At most 5 MiB.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["script", "looks"], help_heading = "What to do")]
    pub(crate) stdin: Option<PathBuf>,
    /// Environment variable of the remote shell. May be given several times.
    #[arg(long = "env", value_name = "K=V", value_parser = variable, conflicts_with = "looks", help_heading = "Shell")]
    pub(crate) environment: Vec<Variable>,
    /// Environment variable of the remote shell that holds a stored secret, a text, which is masked in the output. May be given
    /// several times.
    #[arg(long = "secret-env", value_name = "NAME=ID", conflicts_with = "looks", help_heading = "Shell")]
    pub(crate) secret_environment: Vec<String>,
    /// Working directory on the host [default: the user's profile directory].
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "looks", help_heading = "Shell")]
    pub(crate) cwd: Option<String>,
    /// Do not load the Windows user profile, WINRS_NOPROFILE [default: as the credential says].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true,
          conflicts_with = "looks", help_heading = "Shell")]
    pub(crate) no_profile: Option<bool>,
    /// Do not run PowerShell's profile scripts (-NoProfile) [default: as --no-profile].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true,
          requires = "script", help_heading = "Shell")]
    pub(crate) no_powershell_profile: Option<bool>,
    /// Code page of the remote console [default: 65001, UTF-8].
    #[arg(long, value_name = "NUMBER", conflicts_with = "looks", help_heading = "Shell")]
    pub(crate) codepage: Option<u32>,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    /// How long the task may run [default: 1h].
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Handling")]
    pub(crate) timeout: Option<Duration>,
    /// How long the task may wait for an agent [default: 5m; of many hosts 24h, as most wait for their turn].
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Handling")]
    pub(crate) queue_timeout: Option<Duration>,
    /// Running it twice does no harm: start it again when its agent is lost.
    #[arg(long, help_heading = "Handling")]
    pub(crate) idempotent: bool,
    /// Key of your choice: a second submission with the same key returns the first task.
    #[arg(long, value_name = "KEY", help_heading = "Handling")]
    pub(crate) idempotency_key: Option<String>,
    #[command(flatten)]
    pub(crate) selector: SelectorArgs,
    /// Free text shown in lists.
    #[arg(long, value_name = "TEXT", default_value = "", help_heading = "Handling")]
    pub(crate) label: String,
    /// Follow the task to its end; its exit code is the exit code.
    #[arg(long, help_heading = "Handling")]
    pub(crate) watch: bool,
    /// The command, then its arguments, after `--`. The command goes onto the command line as it stands; each argument is
    /// quoted when it needs it. With --script: the script's arguments.
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "looks")]
    pub(crate) command: Vec<String>,
}

/// How many hosts of a batch may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tolerance {
    /// So many.
    Count(u32),
    /// So many of a hundred.
    Percent(u32),
}

fn tolerance(text: &str) -> Result<Tolerance, String> {
    let number = |text: &str| text.parse::<u32>().ok();
    match text.strip_suffix('%') {
        Some(share) => number(share).filter(|share| *share <= 100).map(Tolerance::Percent),
        None => number(text).map(Tolerance::Count),
    }
    .ok_or_else(|| "it must be a number such as 5, or a share from 0% to 100%".to_owned())
}

/// `lictor batch`.
#[derive(Debug, Args)]
pub(crate) struct BatchArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(subcommand)]
    pub(crate) command: BatchCommand,
}

/// What to do with batches.
#[derive(Debug, Subcommand)]
pub(crate) enum BatchCommand {
    /// List batches, newest first.
    List {
        /// At most this many.
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
    },
    /// Show how far a batch is. Its tasks: `lictor task list --batch BATCH`.
    Show {
        /// The batch.
        batch_id: String,
    },
    /// Follow a batch to its end: one line of progress on a terminal, then one table of results. The exit code is 0 only
    /// when all of its tasks succeeded.
    ///
    /// When the control plane goes away, watching goes on as soon as it is back. Ctrl-C stops watching, not the batch.
    #[command(after_long_help = exit::HELP)]
    Watch {
        /// The batch.
        batch_id: String,
        /// Write each host's output to a file in this directory.
        #[arg(long, value_name = "DIR")]
        output_dir: Option<PathBuf>,
    },
    /// Stop a batch: nothing further starts, and running commands are stopped on their hosts.
    Cancel {
        /// The batch.
        batch_id: String,
        /// Why, for the record.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
}

/// Which agents may take a task.
#[derive(Debug, Args)]
pub(crate) struct SelectorArgs {
    /// Tag that the agent must have. May be given several times.
    #[arg(long = "tag", value_name = "TAG", help_heading = "Agents")]
    pub(crate) tags: Vec<String>,
    /// Scope of the task, such as platform/production.
    #[arg(long, value_name = "SCOPE", default_value = "", help_heading = "Agents")]
    pub(crate) scope: String,
}

/// How to connect to the host; whatever is not given is inherited.
#[derive(Debug, Args)]
pub(crate) struct ConnectionArgs {
    /// Transport.
    #[arg(long, value_enum, help_heading = "Connection")]
    pub(crate) scheme: Option<Scheme>,
    /// TCP port.
    #[arg(long, help_heading = "Connection", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// URL path.
    #[arg(long, help_heading = "Connection")]
    pub(crate) path: Option<String>,
    /// How to authenticate [default: negotiate].
    #[arg(long, value_enum, help_heading = "Connection")]
    pub(crate) auth: Option<StoredAuth>,
    /// PEM file with the authorities that may have issued the Windows host's certificate.
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub(crate) host_ca: Option<PathBuf>,
    /// Stored secret with these authorities, in place of a file.
    #[arg(long, value_name = "ID", conflicts_with = "host_ca", help_heading = "Connection")]
    pub(crate) host_ca_secret: Option<String>,
    /// Do not check the Windows host's certificate.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true,
          conflicts_with_all = ["host_ca", "host_ca_secret"], help_heading = "Connection")]
    pub(crate) skip_cert_check: Option<bool>,
    /// When to seal messages: auto seals over http, always over https too.
    #[arg(long, value_enum, value_name = "WHEN", help_heading = "Connection")]
    pub(crate) message_encryption: Option<Encryption>,
    /// Send TLS channel bindings when authenticating over https.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, help_heading = "Connection")]
    pub(crate) send_cbt: Option<bool>,
    /// Allow Basic over plain http: password and output then travel readable.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true,
          help_heading = "Connection")]
    pub(crate) allow_basic_over_http: Option<bool>,
    #[command(flatten)]
    pub(crate) kerberos: KerberosArgs,
}

/// How the agent authenticates; with `negotiate` and `kerberos` it gets tickets itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoredAuth {
    /// HTTP Basic.
    Basic,
    /// NTLM without SPNEGO.
    Ntlm,
    /// SPNEGO: Kerberos for users such as alice@CORP.EXAMPLE whose realm the agent knows, else NTLM.
    Negotiate,
    /// Kerberos, never NTLM.
    Kerberos,
}

/// Kerberos; whatever is not given is inherited. The names that Ansible's users know stand behind the flags.
#[derive(Debug, Args)]
pub(crate) struct KerberosArgs {
    /// Realm of the user, such as CORP.EXAMPLE [default: what the user name says, else the agent's default realm].
    #[arg(long, value_name = "REALM", help_heading = "Kerberos")]
    pub(crate) realm: Option<String>,
    /// Service of the host's service principal name (ansible_winrm_service) [default: HTTP, then WSMAN, then HOST].
    #[arg(long, value_name = "SERVICE", visible_alias = "ansible-winrm-service", help_heading = "Kerberos")]
    pub(crate) spn_service: Option<String>,
    /// Host of the host's service principal name (ansible_winrm_kerberos_hostname_override) [default: the host itself].
    #[arg(
        long,
        value_name = "HOST",
        visible_alias = "ansible-winrm-kerberos-hostname-override",
        help_heading = "Kerberos"
    )]
    pub(crate) spn_host: Option<String>,
    /// Hand the host a forwarded ticket, so that what runs there can go on to others (ansible_winrm_kerberos_delegation).
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true,
          visible_alias = "ansible-winrm-kerberos-delegation", help_heading = "Kerberos")]
    pub(crate) delegate: Option<bool>,
    /// Who gets the user's ticket (ansible_winrm_kinit_mode): managed, the agent, from the password or keytab; manual,
    /// somebody else by kinit, and the agent finds it in a credential cache [default: managed].
    #[arg(
        long,
        value_enum,
        value_name = "MODE",
        visible_alias = "ansible-winrm-kinit-mode",
        help_heading = "Kerberos"
    )]
    pub(crate) kinit_mode: Option<KinitMode>,
    /// Ask the KDC for new tickets each time, as the Harness delegate does, instead of sharing those at hand.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true,
          help_heading = "Kerberos")]
    pub(crate) fresh_tickets: Option<bool>,
    /// Write what the agent and the KDC say to each other to the task's standard error, as KRB5_TRACE does.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true,
          help_heading = "Kerberos")]
    pub(crate) kerberos_trace: Option<bool>,
}

/// Who gets the user's ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KinitMode {
    /// The agent.
    Managed,
    /// Somebody else.
    Manual,
}

/// States to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum StateFilter {
    /// Waiting for an agent.
    Queued,
    /// Given to an agent, not known to have started.
    Assigned,
    /// Started.
    Running,
    /// Its agent is lost; its end is still open.
    Lost,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
    /// Ended by request.
    Cancelled,
    /// Ended by its own deadline.
    TimedOut,
    /// Never started.
    Rejected,
    /// May have started; how it ended cannot be known.
    Unknown,
}

/// `lictor agent`.
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(subcommand)]
    pub(crate) command: AgentCommand,
}

/// What to do with agents.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// List agents by name.
    List,
    /// Ask an agent to take nothing new and finish what runs.
    Drain {
        /// Its id or name.
        agent: String,
        /// Why, for the record.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Take an agent's identity away and end its session.
    Revoke {
        /// Its id or name.
        agent: String,
        /// Why, for the record.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
}

/// `lictor token`.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

/// What to do with join tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a join token. Prints the token, and nothing else, on standard output; it is shown this once.
    Create {
        /// Scope that agents get.
        #[arg(long, value_name = "SCOPE", default_value = "")]
        scope: String,
        /// Tag that agents get beside their own. May be given several times.
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<String>,
        /// Most enrolments; 0 is until revoked.
        #[arg(long, value_name = "N", default_value_t = 1)]
        max_uses: u32,
        /// How long it lasts [default: until revoked].
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        lifetime: Option<Duration>,
        /// Free text.
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
    },
    /// List join tokens, without their secrets.
    List,
    /// End a join token. Agents that have enrolled with it stay.
    Revoke {
        /// The token's id: the part after `lictor-join.`.
        token_id: String,
    },
}

/// `lictor credential`.
#[derive(Debug, Args)]
pub(crate) struct CredentialArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(subcommand)]
    pub(crate) command: CredentialCommand,
}

/// What to do with credentials.
#[derive(Debug, Subcommand)]
pub(crate) enum CredentialCommand {
    /// Store a WinRM credential, or replace it.
    Put(Box<PutArgs>),
    /// Store WinRM credentials from a document, as Harness has them.
    ///
    /// One credential, a list, or several YAML documents; the entity of Harness (secret: type: WinRmCredentials), answers of its
    /// API, or the fields alone. All are checked before the first is stored. Passwords are names in the document, and come from
    /// files or the environment.
    Import(ImportCredentialsArgs),
    /// List credentials by name, without their secrets.
    List,
    /// Delete a credential. Tasks that wait for it are rejected.
    Delete {
        /// Which.
        name: String,
    },
    /// Test a credential on a host, rung by rung, through an agent.
    ///
    /// Where that fails, `lictor task submit --diagnose` with the same host and credential looks closer.
    Test(Box<TestCredentialArgs>),
}

/// `lictor credential put`.
#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    /// Name: letters, digits, `-`, `_` and `.`.
    pub(crate) name: String,
    /// `DOMAIN\user`, `user@domain` or a bare name.
    #[arg(long)]
    pub(crate) user: String,
    /// Domain, when the user name does not hold it.
    #[arg(long, default_value = "")]
    pub(crate) domain: String,
    /// File with the password; one line end after it is cut off. Without this flag and those for keytabs and caches the
    /// password comes from the environment variable LICTOR_PASSWORD.
    #[arg(long, value_name = "FILE", group = "secret")]
    pub(crate) password_file: Option<PathBuf>,
    /// Keep the stored password or keytab; change only the rest.
    #[arg(long, group = "secret")]
    pub(crate) keep_password: bool,
    /// Identifier of a stored secret that is the password or, being a file, the keytab: never the password itself. A new version
    /// of it is a new version of the credential.
    #[arg(long = "secret", value_name = "ID", group = "secret")]
    pub(crate) secret_identifier: Option<String>,
    /// MIT keytab with a key of the user, to be stored in place of a password; at most 64 KiB. For Kerberos.
    #[arg(long, value_name = "FILE", group = "secret")]
    pub(crate) keytab: Option<PathBuf>,
    /// The key is in a keytab that agents hold: this file, or any of theirs. Only agents that have a key of the user get
    /// tasks. For Kerberos.
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = "", group = "secret")]
    pub(crate) keytab_on_agent: Option<String>,
    /// The ticket is in a credential cache on the agent, put there by kinit: FILE:PATH, DIR:PATH, a path, or the agent's
    /// default cache. The same as --kinit-mode manual. For Kerberos.
    #[arg(long, value_name = "CACHE", num_args = 0..=1, default_missing_value = "", group = "secret")]
    pub(crate) ccache_on_agent: Option<String>,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    /// Run without the Windows user's profile.
    #[arg(long)]
    pub(crate) no_profile: bool,
    /// Where it may be used: by tasks of this scope and below [default: as stored; of a new one, your own].
    #[arg(long, value_name = "SCOPE", default_value = "")]
    pub(crate) scope: String,
    /// Free text.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) description: String,
}

/// `lictor credential test`.
#[derive(Debug, Args)]
pub(crate) struct TestCredentialArgs {
    /// Which credential.
    pub(crate) name: String,
    /// The host to try it on.
    #[arg(long)]
    pub(crate) host: String,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[command(flatten)]
    pub(crate) selector: SelectorArgs,
}
