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

use tokio::time::Instant;

use crate::cli::DoctorArgs;
use crate::config::{Config, Loaded, Mistakes};
use crate::failure::{ExitCode, chain};
use crate::policy;

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
    settings(args.config.as_ref(), config, book);
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
        hosts::look(host, args, &config.kerberos, kerberos.as_ref(), book).await;
    }
}

fn settings(file: Option<&PathBuf>, config: &Config, book: &mut Book) {
    let from = file.map_or_else(|| "the environment alone".to_owned(), |file| file.display().to_string());
    book.passed("settings", format!("agent {}, from {from}", config.name));
    match &config.policy_file {
        None => book.skipped("policy", "there is none: the agent serves whatever the control plane asks for"),
        Some(path) => match policy::load(path) {
            Ok(_) => book.passed("policy", path.display().to_string()),
            Err(error) => book.failed("policy", "", advice::POLICY.about(chain(&error))),
        },
    }
}

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
