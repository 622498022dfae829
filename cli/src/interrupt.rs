//! Ctrl-C and SIGTERM: the first asks to stop in good order, the second quits at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::console;
use crate::exit::Exit;
use crate::failure::Failure;

/// Listens for the whole life of the program. The token is cancelled by the first signal.
///
/// `first` is what to say then.
pub(crate) fn listen(first: &'static str) -> Result<CancellationToken, Failure> {
    let unavailable = |error: std::io::Error| Failure::local(format!("failed to listen for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unavailable)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(unavailable)?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    // Ends with the runtime: there is nothing to clean up.
    tokio::spawn(async move {
        for count in 0.. {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if count > 0 {
                std::process::exit(i32::from(Exit::CANCELLED.code()));
            }
            console::note(first);
            cancelled.cancel();
        }
    });
    Ok(token)
}
