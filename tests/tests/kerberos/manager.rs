//! The credential manager against MIT's KDC. How often it asks is read from the KDC's own log.

mod caches;
mod crowds;
mod errors;
mod rules;

use std::sync::Arc;
use std::time::Duration;

use lictor_kerberos::config::{Source, Watch};
use lictor_kerberos::trace::Trace;
use lictor_kerberos::{CredentialSource, Identity, Kerberos, Request, Service};
use lictor_tests::Kdc;
use tokio::time::Instant;

/// A manager that uses the krb5.conf of a KDC.
fn manager(kdc: &Kdc) -> Kerberos {
    let watch = Watch::start(Source::File(kdc.krb5_conf()), None).unwrap();
    Kerberos::new(Arc::new(watch))
}

fn request() -> Request {
    Request { delegate: false, deadline: Instant::now() + Duration::from_secs(60), trace: Trace::off() }
}

fn password(principal: &str, password: &str) -> Identity {
    identity(principal, CredentialSource::Password(password.to_owned().into()))
}

fn keytab_file(principal: &str, path: std::path::PathBuf) -> Identity {
    identity(principal, CredentialSource::KeytabFile(path))
}

fn identity(principal: &str, source: CredentialSource) -> Identity {
    Identity { principal: principal.to_owned(), realm: None, source, fresh: false }
}

/// A service on a host that the realm of the KDC covers.
fn service(kdc: &Kdc, host: &str) -> Service {
    Service::new("HTTP", host_name(kdc, host))
}

fn host_name(kdc: &Kdc, host: &str) -> String {
    format!("{host}.{}", kdc.realm().to_lowercase())
}

fn add_host(kdc: &Kdc, host: &str) {
    kdc.add_random(&format!("HTTP/{}", host_name(kdc, host)), &[]).unwrap();
}

fn unix_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// Waits for something that a flight in the background brings about.
async fn eventually(what: &str, check: impl AsyncFn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !check().await {
        assert!(Instant::now() < end, "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
