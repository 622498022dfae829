//! The settings of the bootstrap script, and the little that must be known before it runs.
//!
//! The script may write what other settings name, so that it runs before the configuration is loaded in full: [`early`]
//! reads only what running it needs, and finds no mistakes in anything else. Called by the loader and by `bootstrap`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lictor_settings::{Form, Layers, Reader};

use super::delegate::Delegate;
use super::{
    DAY, DEFAULT_HTTP_LISTEN, DEFAULT_STATE_DIR, JOIN_TOKEN_VARIABLE, Kerberos, Log, LogFormat, Mistakes,
    VARIABLE_PREFIX, kerberos, parse_address,
};

/// The bootstrap script.
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Bootstrap {
    /// File with a script that runs before the agent; not beside `INIT_SCRIPT` and kin. See
    /// [bootstrap.md](bootstrap.md). Example: `/etc/lictor/bootstrap/init.sh`.
    pub script_file: Option<PathBuf>,
    /// What follows when the script fails: the agent runs and is shown as degraded, or ends with code 70.
    #[cfg_attr(test, schemars(with = "String"))]
    pub policy: OnFailure,
    /// How long the script may take before it is stopped, which is a failure.
    pub timeout: Duration,
    /// The bash that runs the script. Range: a path, or a name in `PATH`.
    pub shell: PathBuf,
}

/// What follows when the bootstrap script fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The agent runs, and is shown as degraded.
    Warn,
    /// The agent ends.
    Fail,
}

/// What running the script needs.
#[derive(Debug)]
pub(crate) struct Early {
    pub(crate) bootstrap: Bootstrap,
    pub(crate) http_listen: SocketAddr,
    pub(crate) log: Log,
    pub(crate) state_dir: PathBuf,
    pub(crate) kerberos: Kerberos,
    /// Files that hold secrets which must not be shown.
    pub(crate) secret_files: Vec<PathBuf>,
}

pub(super) fn read(reader: &mut Reader) -> Bootstrap {
    Bootstrap {
        script_file: reader.optional_path("bootstrap.script_file"),
        policy: reader.choice(
            "bootstrap.policy",
            OnFailure::Warn,
            &[("warn", OnFailure::Warn), ("fail", OnFailure::Fail)],
        ),
        timeout: reader.duration("bootstrap.timeout", DEFAULT_TIMEOUT, Duration::from_secs(1), DAY),
        shell: reader.path("bootstrap.shell", DEFAULT_SHELL),
    }
}

/// Reads what running the script needs. A file that is not there is no mistake yet: the script may write it.
///
/// # Errors
/// Mistakes in these settings.
pub(crate) fn early(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Early, Mistakes> {
    let mut delegate = Delegate::default();
    let others = environment.into_iter().filter(|(name, value)| !delegate.takes(name, value));
    let variables: Vec<_> = others.filter(|(name, _)| name != JOIN_TOKEN_VARIABLE).collect();
    let file = file.filter(|path| path.is_file());
    let Layers { tree, .. } = Layers::read(VARIABLE_PREFIX, file, variables).map_err(Mistakes)?;
    let mut reader = Reader::new(tree, kerberos::TABLES, Vec::new());
    delegate.apply_early(&mut reader);
    delegate.listen(&mut reader);
    let secret_files = ["join_token_file", "proxy.password_file"].map(|key| reader.optional_path(key));
    let early = Early {
        bootstrap: read(&mut reader),
        http_listen: reader.or("http_listen", Form::Address, DEFAULT_HTTP_LISTEN, parse_address),
        // Whatever else stands there is a mistake that the loader reports.
        log: Log {
            format: reader
                .optional("log.format", Form::ANY, |text| {
                    Ok(if text == "json" { LogFormat::Json } else { LogFormat::Text })
                })
                .unwrap_or(LogFormat::Text),
            level: reader
                .optional("log.level", Form::ANY, |text| Ok(text.parse().unwrap_or(tracing::Level::INFO)))
                .unwrap_or(tracing::Level::INFO),
        },
        state_dir: reader.path("state_dir", DEFAULT_STATE_DIR),
        kerberos: kerberos::read(&mut reader),
        secret_files: secret_files.into_iter().flatten().collect(),
    };
    let mistakes = reader.mistakes();
    if mistakes.is_empty() { Ok(early) } else { Err(Mistakes(mistakes)) }
}

/// Packages are installed in it at times, over slow networks.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);
const DEFAULT_SHELL: &str = "bash";
