//! Sealing, opening and the test of a way to KMS, judged by moto and ministack: see `tests/peers/aws/README.md`.
//!
//! Needs a Python interpreter with those packages in `LICTOR_PEERS_PYTHON`. Without one these tests do nothing but say so,
//! unless `LICTOR_PEERS` is `required`: then they fail.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "what is exempt in tests should be so in the functions that they share"
)]

mod crowds;
mod failures;
mod kinds;
mod ladder;
mod machines;
mod peer;
