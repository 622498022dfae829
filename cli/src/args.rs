//! The command line as clap sees it: names, flags, help texts. Stable, because people script against it.
//!
//! Nothing here does anything; values are checked where they are used, by the types that cannot be wrong. There is no
//! flag that takes a password or a token: those come from files or from the environment.

pub(crate) mod access;
pub(crate) mod control;
pub(crate) mod import;
pub(crate) mod keytab;
pub(crate) mod secret;
pub(crate) mod winrm;

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::exit;

/// Lictor: run connection tests, commands and scripts on Windows hosts over WinRM, directly or through agents.
#[derive(Debug, Parser)]
#[command(name = "lictor", version, propagate_version = true, after_long_help = exit::HELP, max_term_width = 110)]
pub(crate) struct Cli {
    /// How to print results: text for eyes, json for scripts.
    #[arg(long, global = true, value_enum, default_value_t = Output::Text, help_heading = "General")]
    pub(crate) output: Output,
    /// Log to standard error what happens inside. Twice: in detail. Never holds a secret.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "General")]
    pub(crate) verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For eyes.
    Text,
    /// For scripts.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Talk to one Windows host directly, without agent or control plane.
    #[command(after_long_help = exit::HELP)]
    Winrm(Box<winrm::WinrmArgs>),
    /// Submit, look at, follow and cancel tasks.
    #[command(after_long_help = exit::HELP)]
    Task(control::TaskArgs),
    /// Look at, follow and stop batches: tasks for many hosts.
    #[command(after_long_help = exit::HELP)]
    Batch(control::BatchArgs),
    /// Look at agents, drain them, take their identity away.
    Agent(control::AgentArgs),
    /// Make, list and revoke the tokens by which agents join.
    Token(control::TokenArgs),
    /// Store, list, delete and test WinRM credentials.
    Credential(control::CredentialArgs),
    /// Store, list, show and delete secrets. Their values go in and never come out.
    Secret(secret::SecretArgs),
    /// Store, list, show, delete and test secret managers: where values of secrets are kept.
    SecretManager(secret::SecretManagerArgs),
    /// Read what users of other tools have.
    Import(import::ImportArgs),
    /// Make, list and check keytabs: files with the keys of Kerberos accounts.
    Keytab(keytab::KeytabArgs),
    /// Make, list and disable users; issue and revoke their tokens.
    User(access::UserArgs),
    /// Tell who we are to the control plane, and what we may do.
    #[command(name = "whoami")]
    WhoAmI(access::WhoAmIArgs),
    /// Export the audit log, check an export.
    Audit(access::AuditArgs),
    /// Explain an error: its cause, what to do, and the texts by which others know it.
    Explain(ExplainArgs),
    /// Print the completion script of a shell.
    Completion {
        /// Which shell.
        shell: CompletionShell,
    },
}

/// `lictor explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A code such as `tls.expired`, the number of a fault, or words of a message of this or another tool. Nothing: lists all codes.
    #[arg(allow_negative_numbers = true)]
    pub(crate) text: Vec<String>,
}

/// Shells with completion.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum CompletionShell {
    /// GNU bash.
    Bash,
    /// Z shell.
    Zsh,
    /// Friendly interactive shell.
    Fish,
}

impl From<CompletionShell> for Shell {
    fn from(shell: CompletionShell) -> Self {
        match shell {
            CompletionShell::Bash => Self::Bash,
            CompletionShell::Zsh => Self::Zsh,
            CompletionShell::Fish => Self::Fish,
        }
    }
}

/// Transport schemes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scheme {
    /// Plain HTTP, port 5985; messages are sealed when the authentication can.
    Http,
    /// HTTP over TLS, port 5986.
    Https,
}

/// Authentication kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Auth {
    /// HTTP Basic.
    Basic,
    /// NTLM without SPNEGO.
    Ntlm,
    /// SPNEGO.
    Negotiate,
    /// Kerberos, and nothing else.
    Kerberos,
}

/// Who gets the ticket-granting ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KinitMode {
    /// This program.
    Managed,
    /// Whoever ran kinit.
    Manual,
}

/// When messages are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encryption {
    /// Over http, not over https.
    Auto,
    /// Over https too.
    Always,
    /// Never.
    Never,
}

/// Languages of scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    /// Windows PowerShell.
    Powershell,
    /// cmd.exe batch commands.
    Cmd,
}

/// One environment variable of the remote shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// Parses `K=V`.
pub(crate) fn variable(text: &str) -> Result<Variable, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok(Variable { name: name.to_owned(), value: value.to_owned() }),
        _ => Err("it must look like NAME=VALUE".to_owned()),
    }
}

/// Parses a duration with its unit, such as `30s` or `2h 30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() => Err("it must be longer than nothing".to_owned()),
        Ok(duration) if duration > LONGEST => Err("it must not be longer than 366 days".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("it must be a duration with its unit, such as 30s or 5m ({error})")),
    }
}

/// Keeps sums of durations and points in time far from overflow.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_flag_takes_a_secret() {
        fn walk(command: &clap::Command) {
            for argument in command.get_arguments() {
                let long = argument.get_long().unwrap_or_default();
                assert!(!matches!(long, "password" | "token" | "value"), "{} has --{long}", command.get_name());
                // These take what a stored secret is called.
                if long == "secret" || long.ends_with("-secret") {
                    let names: Vec<&str> =
                        argument.get_value_names().unwrap_or_default().iter().map(|name| name.as_str()).collect();
                    assert_eq!(names, ["ID"], "{} --{long}", command.get_name());
                }
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }

    #[test]
    fn every_argument_has_help() {
        fn walk(command: &clap::Command) {
            for argument in
                command.get_arguments().filter(|argument| !matches!(argument.get_id().as_str(), "help" | "version"))
            {
                assert!(argument.get_help().is_some(), "{} {} lacks help", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }

    #[test]
    fn the_reference_page_names_every_flag() {
        fn walk(command: &clap::Command, missing: &mut Vec<String>) {
            for long in command.get_arguments().filter_map(clap::Arg::get_long) {
                if !REFERENCE.contains(&format!("--{long}")) {
                    missing.push(format!("{} --{long}", command.get_name()));
                }
            }
            command.get_subcommands().for_each(|command| walk(command, missing));
        }
        let mut missing = Vec::new();
        walk(&Cli::command(), &mut missing);
        assert!(missing.is_empty(), "docs/cli.md lacks {missing:?}");
    }

    #[test]
    fn the_reference_page_names_every_exit_code() {
        let codes = |text: &str| -> Vec<String> {
            let lines = text.lines().map(|line| line.trim_start_matches(['|', ' ']));
            lines
                .filter_map(|line| line.get(..3))
                .filter(|code| code.parse::<u8>().is_ok_and(|code| code > 118))
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(codes(REFERENCE), codes(exit::HELP));
    }

    const REFERENCE: &str = include_str!("../../docs/cli.md");

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(duration("90").is_err());
        assert!(duration("0s").is_err());
        assert!(duration("99999999999s").is_err());
    }

    #[test]
    fn variables_need_a_name() {
        assert_eq!(variable("A=b=c"), Ok(Variable { name: "A".to_owned(), value: "b=c".to_owned() }));
        assert_eq!(variable("A="), Ok(Variable { name: "A".to_owned(), value: String::new() }));
        assert!(variable("=x").is_err());
        assert!(variable("x").is_err());
    }
}
