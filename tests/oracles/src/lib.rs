//! What must hold of every decoder for any bytes that a peer may send.
//!
//! Each function takes bytes and panics when a promise is broken: not only "it does not crash" but that results are bounded
//! by their input, that the same content in another form gives the same result, that what was written is read back, and
//! that nothing is believed that must not be. The fuzz targets in `fuzz/` call them with bytes of libFuzzer, the
//! test beside them (`tests/seeds.rs`) with seeds, past findings and mutations of both. They must stay deterministic, or as
//! good as, and quick.

#![expect(clippy::panic, reason = "an oracle speaks by panicking")]

mod greeting;
mod http_auth;
mod import;
mod init_script;
mod kerberos;
mod keytab;
mod kms;
mod krb5_conf;
mod ntlm;
mod output;
mod posture;
mod sealed;
mod secrets;
mod soap;
mod target;
mod tickets;
mod trace_context;
mod wsman;

pub use greeting::greeting;
pub use http_auth::http_auth;
pub use import::{connector_document, credential_document, inventory};
pub use init_script::init_script;
pub use kerberos::kerberos;
pub use keytab::keytab;
pub use kms::kms_access;
pub use krb5_conf::krb5_conf;
pub use ntlm::ntlm;
pub use output::{clixml, mask, outputs};
pub use posture::{configuration, posture_script, sddl};
pub use sealed::sealed;
pub use secrets::{join_token, sealed_secret};
pub use soap::soap;
pub use target::target;
pub use tickets::{credential_cache, kdc_reply};
pub use trace_context::traceparent;
pub use wsman::{fault, received, response};

/// A target by its name: that of its fuzz target, its folder of seeds and its folder of regressions.
pub type Oracle = (&'static str, fn(&[u8]));

/// All targets.
pub const ALL: &[Oracle] = &[
    ("soap", soap),
    ("response", response),
    ("received", received),
    ("fault", fault),
    ("sealed", sealed),
    ("greeting", greeting),
    ("http_auth", http_auth),
    ("krb5_conf", krb5_conf),
    ("ntlm", ntlm),
    ("kerberos", kerberos),
    ("join_token", join_token),
    ("sealed_secret", sealed_secret),
    ("target", target),
    ("clixml", clixml),
    ("mask", mask),
    ("outputs", outputs),
    ("kdc_reply", kdc_reply),
    ("credential_cache", credential_cache),
    ("keytab", keytab),
    ("init_script", init_script),
    ("configuration", configuration),
    ("sddl", sddl),
    ("posture_script", posture_script),
    ("inventory", inventory),
    ("credential_document", credential_document),
    ("connector_document", connector_document),
    ("traceparent", traceparent),
    ("kms_access", kms_access),
];

/// Pieces of the input, for oracles that need several values: up to `N`, split at bytes of value 0, missing ones empty.
fn fields<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let mut parts = data.splitn(N, |byte| *byte == 0);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}
