//! Flags of the commands about users and the audit log.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::control::ServerArgs;
use super::duration;

/// `lictor user`.
#[derive(Debug, Args)]
pub(crate) struct UserArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(subcommand)]
    pub(crate) command: UserCommand,
}

/// What to do with users.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Make a user. Give the user a token with `lictor user token issue`.
    Create {
        /// Name: letters, digits, `-`, `_`, `.` and `@`. Never used twice.
        name: String,
        /// What the user may do.
        #[arg(long, value_enum, value_name = "ROLE")]
        role: Role,
        /// Where: the user sees and touches what has this scope or one below it [default: your own].
        #[arg(long, value_name = "SCOPE", default_value = "")]
        scope: String,
        /// Free text.
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
    },
    /// List users by name.
    List,
    /// Refuse every token of a user from now on, and end the user's running calls. Tasks go on.
    Disable {
        /// Which.
        name: String,
    },
    /// Let a disabled user in again, with the tokens that the user had.
    Enable {
        /// Which.
        name: String,
    },
    /// Issue, list and revoke the tokens of users.
    #[command(subcommand)]
    Token(UserTokenCommand),
}

/// What to do with users' tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum UserTokenCommand {
    /// Make a token for a user. Prints the token, and nothing else, on standard output; it is shown this once.
    Issue {
        /// For whom.
        user: String,
        /// How long it lasts, such as 90d [default: until revoked].
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        lifetime: Option<Duration>,
        /// Free text.
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
    },
    /// List tokens, without their secrets.
    List {
        /// Only this user's.
        user: Option<String>,
    },
    /// End a token and the calls that run with it.
    Revoke {
        /// Its id: the first 16 digits of the SHA-256 of its text.
        token_id: String,
    },
}

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Look.
    Viewer,
    /// Submit and cancel tasks, test credentials.
    Operator,
    /// Everything.
    Admin,
}

/// `lictor whoami`.
#[derive(Debug, Args)]
pub(crate) struct WhoAmIArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `lictor audit`.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(subcommand)]
    pub(crate) command: AuditCommand,
}

/// What to do with the audit log.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Print the audit log as lines of JSON, oldest entry first.
    Export {
        /// Entries from this time on, such as 2026-01-31T00:00:00Z [default: the first].
        #[arg(long, value_name = "TIME", value_parser = moment)]
        from: Option<OffsetDateTime>,
        /// Entries before this time [default: the last].
        #[arg(long, value_name = "TIME", value_parser = moment)]
        to: Option<OffsetDateTime>,
        /// Stay and print what is added from now on.
        #[arg(long)]
        follow: bool,
    },
    /// Check an export without a control plane: that no line was changed, taken out or put in.
    Verify {
        /// The export, or `-` for standard input.
        file: PathBuf,
    },
}

fn moment(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| "expected a time such as 2026-01-31T00:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(moment("2026-01-31T01:00:00+01:00").unwrap(), moment("2026-01-31T00:00:00Z").unwrap());
        for wrong in ["", "yesterday", "2026-01-31", "2026-01-31T00:00:00"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }
}
