//! `lictor-agent doctor`: looks at everything that this agent needs, where it runs, and says what is wrong and what to do.
//!
//! It only looks: it never enrols, spends no join token, opens no session with the control plane, takes no lock and writes no
//! file, so that it can be run beside an agent that works on the same state directory. It logs in nowhere unless it is told to
//! examine a host as a user whose key or ticket the agent holds. Called by `cli`.

mod advice;
mod control_plane;
mod hosts;
mod kerberos;
mod limits;
mod report;
mod state;

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::cli::DoctorArgs;
use crate::config::{Config, Loaded, Mistakes};
use crate::failure::{ExitCode, chain};
use crate::policy::{self, Policy};

use advice::Advice;
pub(crate) use advice::catalogue;
pub(crate) use report::Output;

use report::Book;

/// Examines everything, tells it, and says how it went.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) async fn run(args: &DoctorArgs, loaded: Result<Loaded, Mistakes>) -> std::io::Result<ExitCode> {
    let mut book = Book::new(args.output);
    let code = match loaded {
        Ok(loaded) => {
            examine(args, &loaded, &mut book).await;
            if book.has_failed() { ExitCode::Ailing } else { ExitCode::Success }
        }
        Err(Mistakes(mistakes)) => {
            book.area("configuration");
            for mistake in mistakes {
                book.failed("settings", "", advice::CONFIGURATION.about(mistake));
            }
            limits::look(None, &mut book);
            ExitCode::Configuration
        }
    };
    book.finish()?;
    Ok(code)
}

async fn examine(args: &DoctorArgs, loaded: &Loaded, book: &mut Book) {
    let config = &loaded.config;
    book.area("configuration");
    let policy = settings(args.config.as_ref(), config, book).await;
    book.area("state");
    let identity = state::look(loaded, book).await;
    book.area("control plane");
    control_plane::look(loaded, identity.as_ref(), book).await;
    book.area("kerberos");
    let kerberos = kerberos::look(&config.kerberos, book).await;
    book.area("limits");
    limits::look(Some(config), book);
    for host in &args.hosts {
        book.area(&format!("host {host}"));
        hosts::look(host, args, policy.as_ref(), kerberos.as_ref(), book).await;
    }
}

/// Returns the policy, when there is none to hold to or it can be used.
async fn settings(file: Option<&PathBuf>, config: &Config, book: &mut Book) -> Option<Policy> {
    let from = file.map_or_else(|| "the environment alone".to_owned(), |file| file.display().to_string());
    book.passed("settings", format!("agent {}, from {from}", config.name));
    let Some(path) = config.policy_file.clone() else {
        book.skipped("policy", "there is none: the agent serves whatever the control plane asks for");
        return Some(Policy::default());
    };
    let shown = path.display().to_string();
    match on_disk(move || policy::load(&path)).await {
        Ok(Ok(policy)) => {
            book.passed("policy", shown);
            return Some(policy);
        }
        Ok(Err(error)) => book.failed("policy", "", advice::POLICY.about(chain(&error))),
        Err(why) => book.unknown("policy", format!("{shown}: {why}")),
    }
    None
}

/// Reads what may lie on a file system that does not answer, or says why nothing came of it. What is left of it then holds up
/// nobody.
async fn on_disk<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    match timeout(FILES, tokio::task::spawn_blocking(read)).await {
        Ok(read) => read.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", FILES.as_secs())),
    }
}

/// For one look at the disk.
const FILES: Duration = Duration::from_secs(5);

/// For one examination of a host, or of Kerberos.
const EXAMINATION: Duration = Duration::from_secs(120);

fn deadline() -> Instant {
    Instant::now() + EXAMINATION
}

/// A size for people.
fn size(bytes: u64) -> String {
    match bytes {
        0..=0x3ff => format!("{bytes} bytes"),
        0x400..=0xf_ffff => format!("{} KiB", bytes >> 10),
        0x10_0000..=0xfff_ffff => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", approximate(bytes) / approximate(1 << 30)),
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit behind the point")]
fn approximate(bytes: u64) -> f64 {
    bytes as f64
}

/// A span of time for people, to the largest unit that says enough.
fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests;
