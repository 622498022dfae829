//! Signals, kept apart: the first SIGTERM or SIGINT drains, the second stops at once.
//!
//! Knows nothing of what is drained or stopped. Called by `app` and, for tests, from outside.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::process;

/// The two requests to end. Cloning gives another handle to the same pair.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    stop: CancellationToken,
}

impl Shutdown {
    /// Asks to take nothing new, finish what runs, and end. Asked again, it stops at once.
    pub fn request(&self) {
        if self.drain.is_cancelled() {
            self.stop.cancel();
        }
        self.drain.cancel();
    }

    /// Cancelled when draining was asked for.
    pub(crate) fn drain(&self) -> &CancellationToken {
        &self.drain
    }

    /// Cancelled when everything is to stop now.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Turns SIGTERM and SIGINT into requests, for as long as the future is polled.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub async fn follow_signals(self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        process::let_signals_come();
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            self.request();
        }
    }
}
