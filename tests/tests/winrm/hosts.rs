//! A simulated host in this process, a target on it, and commands that a pool runs there.

use std::time::Duration;

use anyhow::Result;
use lictor_winrm::pool::Pool;
use lictor_winrm::shell::{Event, Invocation};
use lictor_winrm::target::{
    AuthKind, Credential, Endpoint, KerberosOptions, MessageEncryption, Scheme, Secret, ShellProperties, Target,
    Timeouts, TlsPolicy,
};
use tokio::time::Instant;
use uuid::Uuid;
use winsim::{Handle, Options, User, Winsim};

const USER: &str = "CORP\\alice";
const PASSWORD: &str = "pässword";

/// Both ways to a host over HTTP: sealed, and plain with Basic.
pub(crate) const WAYS: [AuthKind; 2] = [AuthKind::Negotiate, AuthKind::Basic];

pub(crate) async fn start(auth: AuthKind) -> Result<Handle> {
    let users = vec![User::new(USER, PASSWORD)];
    let (schemes, allow_unencrypted) = match auth {
        AuthKind::Basic => (vec![winsim::Scheme::Basic], true),
        _ => (vec![winsim::Scheme::Negotiate], false),
    };
    Ok(Winsim::start(Options { users, schemes, allow_unencrypted, ..Options::default() }).await?)
}

pub(crate) fn target(host: &Handle, auth: AuthKind) -> Result<Target> {
    target_on(host.address().port(), auth)
}

/// The same behind another port of this machine.
pub(crate) fn target_on(port: u16, auth: AuthKind) -> Result<Target> {
    Ok(Target {
        endpoint: Endpoint::new(Scheme::Http, "127.0.0.1", Some(port), None)?,
        auth,
        credential: Credential::password(USER, Secret::new(PASSWORD.to_owned())),
        tls: TlsPolicy::default(),
        message_encryption: MessageEncryption::Auto,
        send_channel_bindings: true,
        allow_basic_over_http: true,
        kerberos: KerberosOptions::default(),
        shell: ShellProperties::default(),
        timeouts: Timeouts::default(),
    })
}

/// Runs one command to its end: exit code and standard output.
pub(crate) async fn run(pool: &Pool, target: &Target, line: &str, patience: Duration) -> Result<(i32, Vec<u8>)> {
    let invocation = Invocation::command(line, &[], None)?;
    let deadline = Instant::now() + patience;
    let mut lease = pool.lease(target, deadline).await?;
    let mut running = lease.start(&invocation, Uuid::new_v4()).await?;
    let mut output = Vec::new();
    loop {
        match running.next().await? {
            Event::Output { data, .. } => output.extend_from_slice(&data),
            Event::Done { exit_code, .. } => return Ok((exit_code, output)),
        }
    }
}

/// Waits until `done`, for at most 20 s.
pub(crate) async fn eventually(what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        anyhow::ensure!(Instant::now() < end, "not within 20 s: {what}");
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Waits until the host holds no command any more.
pub(crate) async fn signalled(host: &Handle) -> Result<()> {
    eventually("every command is signalled", || host.shells().iter().all(|shell| shell.commands.is_empty())).await
}
