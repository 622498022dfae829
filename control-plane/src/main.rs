//! The binary `lictor-control-plane`.

use std::process::ExitCode;

fn main() -> ExitCode {
    lictor_control_plane::cli::main()
}
