//! Secrets under AWS KMS: who to be there, data keys, and a test that tells the truth.
//!
//! Used by the agent and the control plane. It must never log or keep a value in clear beyond the bounds of its cache.
