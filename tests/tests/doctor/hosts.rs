//! Targets, peers with something to say, and what an examination found.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lictor_doctor::{Check, Outcome, Report, Subject, examine};
use lictor_winrm::Target;
use lictor_winrm::target::{
    AuthKind, Credential, Endpoint, KerberosOptions, MessageEncryption, Scheme, Secret, ShellProperties, Timeouts,
    TlsPolicy,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use winsim::{Handle, Options, User, Winsim};

pub(crate) const USER: &str = "CORP\\alice";
pub(crate) const PASSWORD: &str = "pässword";

pub(crate) fn target(scheme: Scheme, address: SocketAddr) -> Target {
    Target {
        endpoint: Endpoint::new(scheme, &address.ip().to_string(), Some(address.port()), None).unwrap(),
        auth: AuthKind::Negotiate,
        credential: Credential::password(USER, Secret::new(PASSWORD.to_owned())),
        tls: TlsPolicy::default(),
        message_encryption: MessageEncryption::Auto,
        send_channel_bindings: true,
        allow_basic_over_http: true,
        kerberos: KerberosOptions::default(),
        shell: ShellProperties::default(),
        timeouts: Timeouts::default(),
    }
}

/// A target that waits less for peers that never answer.
pub(crate) fn hasty(mut target: Target) -> Target {
    target.timeouts.connect = Duration::from_secs(2);
    target
}

pub(crate) fn options() -> Options {
    Options { users: vec![User::new(USER, PASSWORD)], ..Options::default() }
}

pub(crate) async fn host(options: Options) -> Handle {
    Winsim::start(options).await.unwrap()
}

pub(crate) async fn look(target: &Target) -> Report {
    let subject = Subject { target: Some(target.clone()), kerberos: None, usual_ports: true };
    let mut told = 0;
    let report = examine(&subject, Instant::now() + Duration::from_secs(90), |_| told += 1).await;
    assert_eq!(told, report.steps.len());
    let mut checks: Vec<Check> = report.steps.iter().map(|step| step.check).collect();
    checks.retain(|check| *check >= Check::Connect);
    assert!(checks.is_sorted(), "{checks:?}");
    checks.dedup();
    assert_eq!(checks.len(), 11, "each is told once: {checks:?}");
    report
}

/// Outcome and code.
pub(crate) fn found(report: &Report, check: Check) -> (Outcome, &str) {
    let step = report.steps.iter().find(|step| step.check == check).unwrap();
    (step.outcome, step.finding.as_ref().map_or("", |finding| finding.code.as_ref()))
}

pub(crate) fn detail(report: &Report, check: Check) -> &str {
    &report.steps.iter().find(|step| step.check == check).unwrap().detail
}

pub(crate) fn message(report: &Report, check: Check) -> &str {
    let step = report.steps.iter().find(|step| step.check == check).unwrap();
    &step.finding.as_ref().unwrap().message
}

pub(crate) fn suspects(report: &Report, check: Check) -> Vec<&'static str> {
    let step = report.steps.iter().find(|step| step.check == check).unwrap();
    step.finding.as_ref().unwrap().suspects.iter().map(|suspect| suspect.code).collect()
}

/// Something that listens and is no Windows host.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// Requests that held a credential.
    pub(crate) credentials: Arc<AtomicUsize>,
    _server: AbortOnDropHandle<()>,
}

/// What a peer does with a connection.
#[derive(Clone, Copy)]
pub(crate) enum Does {
    /// Says this at once, and no more.
    Says(&'static str),
    /// Answers each request with this.
    Answers(&'static str),
    /// Nothing.
    Holds,
    /// Closes it.
    Closes,
}

impl Peer {
    pub(crate) async fn start(does: Does) -> Self {
        Self::start_at("127.0.0.1:0", does).await
    }

    pub(crate) async fn start_at(address: &str, does: Does) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let credentials = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&credentials);
        let server = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let counted = Arc::clone(&counted);
                connections.spawn(async move {
                    match does {
                        Does::Says(text) => _ = stream.write_all(text.as_bytes()).await,
                        Does::Answers(_) | Does::Holds => {}
                        Does::Closes => return,
                    }
                    let mut buffer = [0; 4096];
                    while let Ok(count) = stream.read(&mut buffer).await {
                        let text = String::from_utf8_lossy(&buffer[..count]).to_lowercase();
                        counted.fetch_add(text.matches("authorization:").count(), Ordering::Relaxed);
                        match does {
                            _ if count == 0 => return,
                            Does::Answers(answer) if stream.write_all(answer.as_bytes()).await.is_err() => return,
                            // Nobody waits for more after an answer.
                            Does::Answers(_) => return,
                            _ => {}
                        }
                    }
                });
            }
        });
        Self { address, credentials, _server: AbortOnDropHandle::new(server) }
    }

    /// No credential came.
    pub(crate) fn was_told_nothing(&self) {
        assert_eq!(self.credentials.load(Ordering::Relaxed), 0);
    }
}
