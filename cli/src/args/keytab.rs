//! Flags of `lictor keytab`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::duration;
use crate::exit;
use std::time::Duration;

/// `lictor keytab`.
#[derive(Debug, Args)]
pub(crate) struct KeytabArgs {
    #[command(subcommand)]
    pub(crate) command: KeytabCommand,
}

/// What to do with a keytab.
#[derive(Debug, Subcommand)]
pub(crate) enum KeytabCommand {
    /// Make a keytab of a password, as ktutil's `addent -password` and `wkt` do.
    ///
    /// The KDC is asked for the salt and the encryption types of the account, so that the keys are right whatever the case of
    /// its name and however often it was renamed. Then one login with the new keys proves them, and nothing is written when it fails:
    /// that is one attempt, which counts towards a lockout when the password is wrong. --no-check leaves the login out,
    /// --offline the KDC altogether.
    ///
    /// The file is written as a whole, and only its owner can read it.
    #[command(after_long_help = CREATE_HELP)]
    Create(CreateArgs),
    /// List what a keytab holds: principals, key versions, encryption types, times. Never the keys.
    List(ListArgs),
    /// Ask the KDC whether the keys of a keytab are valid, by one login for each principal.
    ///
    /// One attempt for each principal, never more: each counts towards a lockout when the key is wrong. Only the newest key version is
    /// tried. The exit code is 0 when the keys of all principals are valid, 125 when those of one are not, and 122 when no
    /// KDC could be asked.
    #[command(after_long_help = exit::HELP)]
    Check(CheckArgs),
}

/// `lictor keytab create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The file to write.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Whose keys: `user@REALM`, or `user` in the default realm of krb5.conf.
    #[arg(short, long)]
    pub(crate) principal: String,
    /// Key version number [default: one more than the file holds with --append; else 1]. Logins do not depend
    /// on it.
    #[arg(short, long, value_name = "NUMBER")]
    pub(crate) kvno: Option<u32>,
    /// Encryption type: aes256-sha1, aes128-sha1, aes256-sha2 or aes128-sha2, or their long names. May be given several times
    /// [default: what the KDC offers for the account; with --offline aes256-sha1 and aes128-sha1]. RC4 is refused.
    #[arg(short, long = "enctype", value_name = "NAME")]
    pub(crate) enctypes: Vec<String>,
    /// The salt, in place of the KDC's: `REALMuser` in the case of the directory.
    #[arg(long)]
    pub(crate) salt: Option<String>,
    /// File with the password; one line end after it is cut off. Without this flag the password comes from the environment variable
    /// LICTOR_PASSWORD, or is asked for when standard input is a terminal.
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Add to the file when it exists, and keep the older key versions in it: tickets made with them are still around.
    #[arg(long)]
    pub(crate) append: bool,
    /// Replace the file when it exists; with --append, replace a key of the same version and encryption type.
    #[arg(long)]
    pub(crate) force: bool,
    /// Do not log in with the new keys.
    #[arg(long)]
    pub(crate) no_check: bool,
    /// Do not ask the KDC at all: the salt is --salt or the default one, which is wrong for accounts that were renamed or are
    /// written in another case.
    #[arg(long)]
    pub(crate) offline: bool,
    #[command(flatten)]
    pub(crate) kdc: KdcArgs,
}

/// `lictor keytab list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// The keytab [default: what KRB5_KTNAME names].
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// `lictor keytab check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The keytab [default: what KRB5_KTNAME names].
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Check this principal only. May be given several times.
    #[arg(short, long)]
    pub(crate) principal: Vec<String>,
    #[command(flatten)]
    pub(crate) kdc: KdcArgs,
}

/// How to reach the KDC.
#[derive(Debug, Args)]
pub(crate) struct KdcArgs {
    /// The krb5.conf to use [default: what KRB5_CONFIG names, else /etc/krb5.conf].
    #[arg(long, value_name = "FILE", help_heading = "KDC")]
    pub(crate) krb5_conf: Option<PathBuf>,
    /// Print the dialogue with the KDC on standard error, as KRB5_TRACE does. Holds no keys.
    #[arg(long, help_heading = "KDC")]
    pub(crate) trace: bool,
    /// Give up on the KDC after this long, for each principal.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s", help_heading = "KDC")]
    pub(crate) timeout: Duration,
}

const CREATE_HELP: &str = "\
Examples:
  lictor keytab create svc.keytab --principal svc-lictor@CORP.EXAMPLE
  lictor keytab create svc.keytab --principal svc-lictor@CORP.EXAMPLE --append     (after the password was changed)
  lictor keytab create svc.keytab -p svc-lictor@CORP.EXAMPLE -k 1 -e aes256-cts-hmac-sha1-96 --offline
The last one does what `addent -password -p svc-lictor@CORP.EXAMPLE -k 1 -e aes256-cts-hmac-sha1-96` and `wkt svc.keytab`
do in ktutil.";
