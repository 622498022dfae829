//! What both programs tell of themselves beside metrics: log lines, whose level changes while they run, and traces over OTLP.
//!
//! Without a collector's address nothing is traced: there is no layer for it, and a span costs as much as a line that is not
//! logged. With one, spans wait in a bounded queue; when it is full they are dropped and counted, and no task ever waits for
//! a collector. It must never let a secret out: only spans of Lictor's own crates are exported, without events, and libraries
//! that print secrets stay capped in logs at every level. Called by the wiring of agent and control plane.

pub mod context;
mod export;
pub mod level;
mod logs;
pub mod settings;

pub use export::Figures;
pub use logs::{AWS, Format, Levels, Options, StartError, Telemetry, start};
pub use settings::{Settings, Standard, Traces};
