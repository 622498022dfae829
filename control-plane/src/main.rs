//! The binary `lictor-control-plane`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    lictor_control_plane::cli::main().await
}
