//! The wire contract of Lictor: what agents, control plane and users say to each other.
//!
//! Holds the generated code of `lictor/v1/*.proto` ([`v1`]), the two byte formats that travel inside it: sealed secrets
//! ([`sealing`]) and join tokens ([`token`]), and how far apart two sides may be ([`version`]). It must never hold behaviour
//! of either side. Used by the agent, the control plane, the command line and the tests.

pub mod sealing;
pub mod token;
pub mod version;

/// Generated from `lictor/v1/*.proto`; the documentation of each item stands there.
#[expect(clippy::allow_attributes, clippy::large_enum_variant, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("lictor.v1");
}

/// The contract described by itself, a `google.protobuf.FileDescriptorSet`: for checks that nothing in it was forgotten.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Major version of the contract's package that [`v1::Hello`] announces; [`version::Contract`] is the one that moves.
pub const PROTOCOL_VERSION: u32 = 1;

/// Largest gRPC message that either side sends or takes, in bytes. Leaves room for two tasks with the largest input.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Largest gRPC message that an agent sends: output and results, no input. Strangers can send one before they are known.
pub const MAX_REPORT_BYTES: usize = 4 * 1024 * 1024;

/// Largest piece of output in one [`v1::OutputChunk`], in bytes.
pub const MAX_OUTPUT_CHUNK_BYTES: usize = 256 * 1024;

/// Largest script text and largest standard input of a task, in bytes.
pub const MAX_INPUT_BYTES: usize = 5 * 1024 * 1024;
