//! How safely WinRM is set up on a host: each row one thing, that is as it should be, is not, or cannot be known.
//!
//! What WS-Management tells is asked for first; what it does not tell comes from one PowerShell script that only reads, and
//! that can be left out. What the host does not tell is unknown and never assumed. Nothing is changed: fixes are told. The
//! rows are explained in `docs/posture.md`. Called by the agent and the command line; the hidden modules are public for the
//! oracles that judge decoders.

mod access;
#[doc(hidden)]
pub mod answer;
mod checks;
mod filters;
mod rows;
mod script;
#[doc(hidden)]
pub mod sddl;

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use lictor_winrm::Target;
use lictor_winrm::connection::ConnectionDetails;
use lictor_winrm::pool::Pool;
use tokio::time::Instant;

use self::rows::Evidence;
use self::script::Script;

/// What to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Run the script too. Without it, what only the script tells is unknown.
    pub script: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { script: true }
    }
}

/// What was found.
#[derive(Debug)]
pub struct Posture {
    /// Every check, always in the same order.
    pub rows: Vec<Row>,
    /// The connection over which the configuration came.
    pub connection: ConnectionDetails,
}

impl Posture {
    /// How many rows have this verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.rows.iter().filter(|row| row.verdict == verdict).count()
    }
}

/// One thing that was looked at. Texts are for people, on one line each, and hold no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Stable name.
    pub check: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found, or why it is not known.
    pub found: String,
    /// What should be so.
    pub wanted: String,
    /// What to do about it.
    pub fix: String,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// As it should be.
    Pass,
    /// Not as it should be.
    Fail,
    /// The host does not tell, or not to this user.
    Unknown,
}

impl Verdict {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Looks at a host until `deadline`. The credential is tried once for the configuration, and when the host took it, again
/// for the script, both as `pool` has it: not when it is known to be wrong. The pool deletes the shell of the script in the
/// background, also when this future is dropped half-way: close the pool to wait for that.
///
/// # Errors
/// [`Error`](lictor_winrm::Error) when the host could not be talked to, or does not take the credential. What it refuses to tell
/// is unknown in its row.
pub async fn inspect(
    pool: &Pool,
    target: &Target,
    options: Options,
    deadline: Instant,
) -> Result<Posture, lictor_winrm::Error> {
    let told = pool.configuration(target, deadline).await?;
    let script = if options.script { script::run(pool, target, deadline).await? } else { Script::LeftOut };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let evidence = Evidence {
        endpoint: &target.endpoint,
        tls: told.connection.tls.as_ref(),
        config: told.config.as_ref().map_err(why),
        listeners: told.listeners.as_deref().map_err(why),
        mappings: told.mappings.as_deref().map_err(why),
        script: &script,
        now_unix: i64::try_from(now).unwrap_or(i64::MAX),
    };
    Ok(Posture { rows: rows::judge(&evidence), connection: told.connection })
}

/// Why the host does not tell.
fn why(error: &lictor_winrm::Error) -> String {
    match error.fault().and_then(|fault| fault.code) {
        Some(5) => "the host does not tell it to this user (access denied): it takes an administrator".to_owned(),
        _ => format!("the host does not tell it: {}", error.report()),
    }
}
