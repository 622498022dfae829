//! The `lictor-agent` program: hands over to the library and turns its result into an exit code.

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    lictor_agent::cli::main().map(|code| ExitCode::from(code as u8))
}
