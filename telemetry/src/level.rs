//! Changing the level of logs while a program runs, by a socket in its state directory.
//!
//! The socket is a file of mode 0600 in a directory that is nobody else's, and the kernel says who is at the other end: only
//! the user that the program runs as, or root. No port can do that. A level that was changed falls back by itself, so that
//! nobody forgets a chatty agent. Called by `app` of both programs, and by their command `log-level`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::logs::Levels;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// What is logged now.
    Show,
    /// Log by this filter for so long.
    Set(String, Duration),
    /// Log by the settings again.
    Reset,
}

/// Why a level is not shown or changed.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    /// No program answers.
    #[error("nobody answers at {path}; does the program run, and as this user?")]
    Nobody {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It refused.
    #[error("the program refused: {0}")]
    Refused(String),
    /// The wish makes no sense.
    #[error("{0}")]
    Wish(String),
}

impl Wish {
    /// As people say it.
    ///
    /// # Errors
    /// [`LevelError::Wish`].
    pub fn of(level: Option<&str>, period: Duration) -> Result<Self, LevelError> {
        match level {
            None => Ok(Self::Show),
            Some("reset") => Ok(Self::Reset),
            Some(filter) => {
                check(filter).map_err(LevelError::Wish)?;
                if !(SHORTEST..=LONGEST).contains(&period) {
                    return Err(LevelError::Wish("the time must be from 1s to 24h".to_owned()));
                }
                Ok(Self::Set(filter.to_owned(), period))
            }
        }
    }

    fn line(&self) -> String {
        match self {
            Self::Show => "show\n".to_owned(),
            Self::Set(filter, period) => format!("set {} {filter}\n", period.as_secs()),
            Self::Reset => "reset\n".to_owned(),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        match line.strip_suffix('\n')? {
            "show" => Some(Self::Show),
            "reset" => Some(Self::Reset),
            other => {
                let (seconds, filter) = other.strip_prefix("set ")?.split_once(' ')?;
                let period = Duration::from_secs(seconds.parse().ok()?);
                (SHORTEST..=LONGEST).contains(&period).then(|| Self::Set(filter.to_owned(), period))
            }
        }
    }
}

/// Asks the program whose state is in `state_dir`. Its answer, for people.
///
/// # Errors
/// [`LevelError`]: no program runs there, or it refused.
pub fn ask(state_dir: &Path, wish: &Wish) -> Result<String, LevelError> {
    let path = state_dir.join(SOCKET);
    let failed = |source| LevelError::Nobody { path: path.clone(), source };
    let mut stream = BlockingStream::connect(&path).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.write_all(wish.line().as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    let mut reader = BufReader::new(stream.take(MAX_LINE as u64));
    reader.read_line(&mut answer).map_err(failed)?;
    match answer.trim_end().split_once(' ') {
        Some(("ok", text)) => Ok(text.to_owned()),
        Some(("no", text)) => Err(LevelError::Refused(text.to_owned())),
        _ => Err(LevelError::Refused("this is not the user that it runs as".to_owned())),
    }
}

/// Takes wishes until `stop`. Where the socket cannot be made, the level simply stays.
pub async fn serve(state_dir: PathBuf, levels: Levels, stop: CancellationToken) {
    let path = state_dir.join(SOCKET);
    let listener = match bind(&path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(path = %path.display(), error = %error, "The level of logs cannot be changed at run time");
            return stop.cancelled().await;
        }
    };
    let own = file_number(&path);
    let mut changed: Option<(String, Instant)> = None;
    loop {
        let until = changed.as_ref().map(|(_, until)| *until);
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                changed = None;
                reset(&levels);
            }
            accepted = listener.accept() => match accepted {
                // One after another: they are few, and each has a deadline.
                Ok((stream, _)) => drop(timeout(PATIENCE, answer(stream, &levels, &mut changed)).await),
                Err(error) => {
                    tracing::debug!(error = %error, "A connection to the socket for the level was not taken");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
    // Another process may have put its own there by now. What stays is removed by the next start.
    if file_number(&path) == own && own.is_some() {
        let _ = tokio::fs::remove_file(&path).await;
    }
}

fn file_number(path: &Path) -> Option<u64> {
    std::fs::symlink_metadata(path).ok().map(|details| details.ino())
}

fn bind(path: &Path) -> std::io::Result<UnixListener> {
    // INVARIANT: the caller holds the state directory's lock, so what lies there is of a process that is gone.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn answer(mut stream: UnixStream, levels: &Levels, changed: &mut Option<(String, Instant)>) {
    // Whoever else got at the socket is not listened to.
    let ours = rustix::process::geteuid().as_raw();
    if stream.peer_cred().map_or(true, |peer| peer.uid() != 0 && peer.uid() != ours) {
        return;
    }
    let mut line = Vec::with_capacity(MAX_LINE);
    while line.len() < MAX_LINE && !line.ends_with(b"\n") {
        match stream.read_buf(&mut line).await {
            Ok(1..) => {}
            _ => break,
        }
    }
    let wish = std::str::from_utf8(&line).ok().and_then(Wish::parse);
    let answer = match wish {
        None => "no that is not understood".to_owned(),
        Some(Wish::Show) => format!("ok {}", shown(levels, changed.as_ref())),
        Some(Wish::Reset) => {
            *changed = None;
            reset(levels);
            format!("ok {}", shown(levels, None))
        }
        Some(Wish::Set(filter, period)) => match check(&filter).and_then(|()| levels.set(&filter)) {
            Ok(()) => {
                tracing::info!(level = filter, period = %humantime::format_duration(period), "The level of logs was changed");
                *changed = Some((filter, Instant::now() + period));
                format!("ok {}", shown(levels, changed.as_ref()))
            }
            Err(error) => format!("no {error}"),
        },
    };
    let answer: String = answer.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    // Whoever asked and went away needs no answer.
    let _ = stream.write_all(format!("{answer}\n").as_bytes()).await;
}

/// A word that is no level would be taken for a part of the program, which alone would be logged then.
fn check(filter: &str) -> Result<(), String> {
    let sound = |part: &str| part.contains('=') || part.parse::<tracing::Level>().is_ok();
    if filter.len() <= MAX_LINE / 2 && filter.split(',').all(|part| sound(part.trim())) {
        return Ok(());
    }
    Err("expected error, warn, info, debug or trace, or a filter such as info,lictor_agent::link=debug".to_owned())
}

fn reset(levels: &Levels) {
    match levels.set(levels.configured()) {
        Ok(()) => tracing::info!(level = levels.configured(), "The level of logs is that of the settings again"),
        Err(error) => tracing::error!(error, "The level of the settings cannot be restored"),
    }
}

fn shown(levels: &Levels, changed: Option<&(String, Instant)>) -> String {
    match changed {
        Some((filter, until)) => {
            let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(999);
            let left = Duration::from_secs(left.as_secs());
            format!("{filter} for {}, then {}", humantime::format_duration(left), levels.configured())
        }
        None => format!("{}, as in the settings", levels.configured()),
    }
}

/// Name of the socket.
const SOCKET: &str = "log-level.socket";
const MAX_LINE: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(5);
/// Between attempts to take a connection, when descriptors are short.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a changed level may last.
pub const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// At least.
pub const SHORTEST: Duration = Duration::from_secs(1);
/// Long enough to see a failure again.
pub const DEFAULT: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::levels_for_tests;

    const SETTINGS: &str = "info, as in the settings";

    async fn asked(directory: &Path, wish: Wish) -> Result<String, LevelError> {
        let directory = directory.to_owned();
        tokio::task::spawn_blocking(move || ask(&directory, &wish)).await.unwrap()
    }

    #[tokio::test]
    async fn a_level_is_changed_shown_and_falls_back_by_itself() {
        let directory = tempfile::tempdir().unwrap();
        let (levels, _subscriber) = levels_for_tests("info");
        let stop = CancellationToken::new();
        std::fs::write(directory.path().join(SOCKET), "what an earlier process left").unwrap();
        let serving = tokio::spawn(serve(directory.path().to_owned(), levels, stop.clone()));
        let by = Instant::now() + Duration::from_secs(20);
        while asked(directory.path(), Wish::Show).await.ok().as_deref() != Some(SETTINGS) {
            assert!(Instant::now() < by, "it never answers");
            tokio::task::yield_now().await;
        }
        let mode = std::fs::metadata(directory.path().join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let set = |filter: &str, seconds| Wish::Set(filter.into(), Duration::from_secs(seconds));
        assert_eq!(asked(directory.path(), set("debug", 600)).await.unwrap(), "debug for 10m, then info");
        assert!(asked(directory.path(), set("verbose", 600)).await.is_err(), "no level");
        assert!(asked(directory.path(), set("no such=level", 600)).await.is_err());
        assert!(asked(directory.path(), set("trace", 0)).await.is_err(), "too short");
        assert!(asked(directory.path(), Wish::Show).await.unwrap().starts_with("debug for "));
        assert_eq!(asked(directory.path(), Wish::Reset).await.unwrap(), SETTINGS);
        assert!(asked(directory.path(), set("trace", 1)).await.is_ok());
        let by = Instant::now() + Duration::from_secs(20);
        while asked(directory.path(), Wish::Show).await.unwrap() != SETTINGS {
            assert!(Instant::now() < by, "it does not fall back");
        }
        stop.cancel();
        serving.await.unwrap();
        assert!(asked(directory.path(), Wish::Show).await.is_err());
    }

    #[test]
    fn only_wishes_within_bounds_parse() {
        for (line, wish) in [
            ("show\n", Some(Wish::Show)),
            ("reset\n", Some(Wish::Reset)),
            ("set 60 debug\n", Some(Wish::Set("debug".into(), Duration::from_secs(60)))),
            ("set 60 debug", None),
            ("set 86401 debug\n", None),
            ("set -1 debug\n", None),
            ("set 60\n", None),
            ("\n", None),
        ] {
            assert_eq!(Wish::parse(line), wish, "{line:?}");
        }
        let wish = Wish::Set("info,h2=debug".into(), LONGEST);
        assert_eq!(Wish::parse(&wish.line()), Some(wish));
    }
}
