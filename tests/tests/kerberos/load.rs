//! Many sessions by tickets of the credential manager, on simulated Windows hosts: how little the KDC is asked, and that neither new
//! keys nor a KDC that is gone for a while fail a command.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use krb5::{EncType, Key, Keytab, Principal, ServiceKey};
use lictor_kerberos::config::{Source, Watch};
use lictor_kerberos::trace::Trace;
use lictor_kerberos::{CredentialSource, ErrorKind, Identity, Request, Service};
use lictor_tests::{Kdc, KdcOptions};
use lictor_winrm::auth::kerberos::{Ticket, TicketError, TicketErrorKind, TicketRequest, TicketSource};
use lictor_winrm::pool::{Pool, PoolSettings};
use lictor_winrm::shell::{Event, Invocation};
use lictor_winrm::target::{
    AuthKind, Credential, Endpoint, KerberosOptions, MessageEncryption, Scheme, ShellProperties, Target, Timeouts,
    TlsPolicy,
};
use tokio::sync::{Barrier, watch};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{Instant, timeout};
use uuid::Uuid;
use winsim::{Handle, Kerberos, Numbering, Options, Winsim};

const PATIENCE: Duration = Duration::from_secs(240);
/// AES-256 with SHA-1, the only type in these realms, so that keys can be made here.
const ENCTYPE: i32 = 18;

/// Hands tickets of the credential manager to the WinRM client, as the agent does.
#[derive(Debug)]
struct Tickets {
    manager: lictor_kerberos::Kerberos,
    identity: Identity,
}

impl TicketSource for Tickets {
    fn ticket<'a>(
        &'a self,
        request: TicketRequest<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<Ticket, TicketError>> + Send + 'a>> {
        Box::pin(async move {
            let service = Service::new(request.service, request.host);
            let wanted = Request { delegate: request.delegate, deadline: request.deadline, trace: Trace::off() };
            let granted = self.manager.service_ticket(&self.identity, &service, wanted).await;
            let granted = granted.map_err(|error| TicketError {
                kind: match error.kind() {
                    ErrorKind::ServiceUnknown => TicketErrorKind::ServiceUnknown,
                    ErrorKind::Rejected => TicketErrorKind::Rejected,
                    ErrorKind::Unavailable => TicketErrorKind::Unavailable,
                    ErrorKind::Other => TicketErrorKind::Other,
                },
                code: error.code(),
                message: error.to_string(),
                cause: error.cause().to_owned(),
                remedy: error.remedy().to_owned(),
                legacy_text: error.legacy_text().map(str::to_owned),
            })?;
            Ok(Ticket { ticket: granted.ticket, forwarded: granted.forwarded })
        })
    }

    fn identity(&self) -> [u8; 32] {
        self.identity.digest()
    }

    fn refused(&self, service: &str, host: &str) {
        self.manager.forget_service(&self.identity, &Service::new(service, host));
    }
}

/// A realm, its users with one keytab of all, its hosts with one keytab each, and a manager of tickets.
struct World {
    kdc: Kdc,
    users: usize,
    hosts: Vec<Handle>,
    manager: lictor_kerberos::Kerberos,
}

impl World {
    async fn new(users: usize, hosts: usize) -> Result<Self> {
        Self::with(users, hosts, KdcOptions::default()).await
    }

    async fn with(users: usize, hosts: usize, options: KdcOptions) -> Result<Self> {
        let kdc = block_in_place(|| {
            let enctypes = "aes256-cts-hmac-sha1-96:normal".to_owned();
            Kdc::start_with("CORP.EXAMPLE", KdcOptions { enctypes, ..options })
        })?;
        let manager = lictor_kerberos::Kerberos::new(Arc::new(Watch::start(Source::File(kdc.krb5_conf()), None)?));
        let mut world = Self { kdc, users, hosts: Vec::new(), manager };
        let names: Vec<String> = (0..users).map(user).chain((0..hosts).map(|host| world.service(host))).collect();
        let commands: Vec<String> = names.iter().map(|name| format!("addprinc -pw first {name}")).collect();
        block_in_place(|| world.kdc.kadmin(&commands.iter().map(String::as_str).collect::<Vec<_>>()))?;
        world.write_users("first", 1)?;
        for host in 0..hosts {
            world.write_host(host, &[("first", 1)])?;
            let kerberos = Kerberos {
                keytab: world.host_keytab(host),
                logons: vec![format!("*@{}=CORP\\*", world.kdc.realm()).parse().map_err(anyhow::Error::msg)?],
                numbering: Numbering::default(),
            };
            let options = Options {
                kerberos: Some(kerberos),
                max_concurrent_users: 1000,
                max_connections: 2000,
                max_shells_per_user: 100,
                ..Options::default()
            };
            world.hosts.push(Winsim::start(options).await?);
        }
        Ok(world)
    }

    fn service(&self, host: usize) -> String {
        format!("HTTP/{}", self.host_name(host))
    }

    fn host_name(&self, host: usize) -> String {
        format!("win{host}.{}", self.kdc.realm().to_lowercase())
    }

    fn host_keytab(&self, host: usize) -> PathBuf {
        self.kdc.path(&format!("win{host}.keytab"))
    }

    fn keys(&self, name: &str, password: &str, kvno: u32) -> Result<ServiceKey> {
        let principal = Principal::parse(&self.kdc.principal(name))?;
        let key = Key::from_password(ENCTYPE, password, &principal.default_salt(), None)?;
        let enctype = EncType::from_i32(ENCTYPE).context("AES-256 is known")?;
        Ok(ServiceKey::new(name, self.kdc.realm(), kvno, enctype, key.bytes()))
    }

    /// Replaces a file by a rename, as every careful program does.
    fn write(&self, keys: Vec<ServiceKey>, file: &PathBuf) -> Result<()> {
        let new = file.with_extension("new");
        Keytab::from_keys(keys).save(&new)?;
        Ok(std::fs::rename(new, file)?)
    }

    fn write_users(&self, password: &str, kvno: u32) -> Result<()> {
        let keys = (0..self.users).map(|number| self.keys(&user(number), password, kvno)).collect::<Result<_>>()?;
        self.write(keys, &self.kdc.path("users.keytab"))
    }

    fn write_host(&self, host: usize, passwords: &[(&str, u32)]) -> Result<()> {
        let service = self.service(host);
        let keys =
            passwords.iter().map(|(password, kvno)| self.keys(&service, password, *kvno)).collect::<Result<_>>()?;
        self.write(keys, &self.host_keytab(host))
    }

    fn identity(&self, number: usize) -> Identity {
        Identity {
            principal: self.kdc.principal(&user(number)),
            realm: None,
            source: CredentialSource::KeytabFile(self.kdc.path("users.keytab")),
            fresh: false,
        }
    }

    fn target(&self, number: usize, host: usize) -> Result<Target> {
        let tickets = Tickets { manager: self.manager.clone(), identity: self.identity(number) };
        Ok(Target {
            endpoint: Endpoint::new(Scheme::Http, "localhost", Some(self.hosts[host].address().port()), None)?,
            auth: AuthKind::Kerberos,
            credential: Credential::tickets(self.kdc.principal(&user(number)), Arc::new(tickets), None),
            tls: TlsPolicy::default(),
            message_encryption: MessageEncryption::Auto,
            send_channel_bindings: true,
            allow_basic_over_http: false,
            kerberos: KerberosOptions { spn_host: Some(self.host_name(host)), ..KerberosOptions::default() },
            shell: ShellProperties::default(),
            timeouts: Timeouts { operation: Duration::from_secs(20), ..Timeouts::default() },
        })
    }

    /// Every logon was one with a good ticket, and nothing is left.
    fn clean(&self) -> Result<()> {
        for host in &self.hosts {
            let statistics = host.statistics();
            let authentication = &statistics.authentication;
            ensure!(authentication.refused_tickets.is_empty(), "{authentication:?}");
            ensure!(authentication.failed_logons.is_empty(), "{authentication:?}");
            ensure!(authentication.kerberos == authentication.handshakes, "{authentication:?}");
            ensure!(statistics.violation_count == 0, "{:?}", statistics.violations);
            ensure!(statistics.commands.most_requests_per_id <= 1, "a Command was repeated");
            ensure!(statistics.shells.open == 0, "{} shells open", statistics.shells.open);
        }
        Ok(())
    }
}

fn user(number: usize) -> String {
    format!("user{number:02}")
}

/// Says who it is, through one lease. `together` is passed while the session is there.
async fn command(pool: &Pool, target: &Target, number: usize, together: Option<&Barrier>) -> Result<()> {
    let mut lease = pool.lease(target, Instant::now() + PATIENCE).await?;
    if let Some(barrier) = together {
        timeout(PATIENCE, barrier.wait()).await.context("not all sessions came")?;
    }
    let mut running = lease.start(&Invocation::command("whoami", &[], None)?, Uuid::new_v4()).await?;
    let mut output = Vec::new();
    loop {
        match running.next().await? {
            Event::Output { data, .. } => output.extend_from_slice(&data),
            Event::Done { exit_code, .. } => {
                let text = String::from_utf8_lossy(&output).to_lowercase();
                ensure!(exit_code == 0 && text.contains(&user(number)), "{exit_code}: {text} is not {}", user(number));
                return Ok(());
            }
        }
    }
}

/// 500 sessions at the same time: each principal logs in once, and asks once for a ticket for each host.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_sessions_cost_one_login_a_principal_and_one_ticket_a_host() -> Result<()> {
    const USERS: usize = 50;
    const HOSTS: usize = 5;
    const SESSIONS: usize = 500;
    let world = World::new(USERS, HOSTS).await?;
    let settings = PoolSettings {
        max_sessions: SESSIONS,
        max_shells_per_user: 30,
        max_shells_per_host: SESSIONS,
        ..PoolSettings::default()
    };
    let pool = Pool::new(settings);
    let barrier = Arc::new(Barrier::new(SESSIONS));
    let mut sessions = JoinSet::new();
    for session in 0..SESSIONS {
        let number = session % USERS;
        let target = world.target(number, session / USERS % HOSTS)?;
        let (pool, barrier) = (pool.clone(), Arc::clone(&barrier));
        sessions.spawn(async move { command(&pool, &target, number, Some(&barrier)).await });
    }
    sessions.join_all().await.into_iter().collect::<Result<()>>()?;
    ensure!(pool.close(Instant::now() + Duration::from_secs(60)).await == 0, "shells are left");
    world.clean()?;
    assert_eq!(world.kdc.as_exchanges(), USERS, "{}", world.kdc.log());
    assert_eq!(world.kdc.tgs_exchanges(), USERS * HOSTS);
    for number in 0..USERS {
        let client = format!("{} for", world.kdc.principal(&user(number)));
        assert_eq!(world.kdc.logged(&["AS_REQ", "ISSUE:", &client]), 1);
        for host in 0..HOSTS {
            let service = format!("for {}@", world.service(host));
            assert_eq!(world.kdc.logged(&["TGS_REQ", "ISSUE:", &client, &service]), 1, "{client} {service}");
        }
    }
    Ok(())
}

/// Workers that run commands one after the other, each with a connection, a handshake and a shell of its own.
struct Load {
    workers: JoinSet<Result<()>>,
    stop: Arc<AtomicBool>,
    done: watch::Receiver<u64>,
}

impl Load {
    fn start(world: &World, workers: usize) -> Result<Self> {
        let (count, done) = watch::channel(0);
        let (count, stop) = (Arc::new(count), Arc::new(AtomicBool::new(false)));
        let mut load = Self { workers: JoinSet::new(), stop: Arc::clone(&stop), done };
        for worker in 0..workers {
            let targets = (0..world.users)
                .flat_map(|number| (0..world.hosts.len()).map(move |host| (number, host)))
                .map(|(number, host)| Ok((number, world.target(number, host)?)))
                .collect::<Result<Vec<_>>>()?;
            let (count, stop) = (Arc::clone(&count), Arc::clone(&stop));
            load.workers.spawn(async move {
                for (number, target) in targets.iter().cycle().skip(worker) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let pool = Pool::new(PoolSettings::default());
                    command(&pool, target, *number, None).await.with_context(|| user(*number))?;
                    ensure!(pool.close(Instant::now() + PATIENCE).await == 0, "a shell is left");
                    count.send_modify(|count| *count += 1);
                }
                Ok(())
            });
        }
        Ok(load)
    }

    /// Waits until this many more commands are done.
    async fn more(&mut self, commands: u64) -> Result<()> {
        let wanted = *self.done.borrow() + commands;
        tokio::select! {
            reached = timeout(PATIENCE, self.done.wait_for(|count| *count >= wanted)) => {
                reached.context("the commands do not go on")??;
                Ok(())
            }
            Some(ended) = self.workers.join_next() => ended?.and_then(|()| anyhow::bail!("a worker ended")),
        }
    }

    async fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.workers.join_all().await.into_iter().collect()
    }
}

/// The host's keys, the users' keys, and then the KDC itself: nothing of that fails a command.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_new_keys_nor_a_lost_kdc_fail_a_command() -> Result<()> {
    const USERS: usize = 4;
    const HOSTS: usize = 2;
    /// One of four workers does at least eleven of these, so that every user has been on every host.
    const ROUND: u64 = 44;
    let mut world = World::new(USERS, HOSTS).await?;
    let mut load = Load::start(&world, 4)?;
    load.more(ROUND).await?;
    assert_eq!(world.kdc.as_exchanges(), USERS);

    // New keys of the hosts. They have them before the KDC gives tickets for them, and keep the old ones, as Windows does.
    for host in 0..HOSTS {
        world.write_host(host, &[("first", 1), ("second", 2)])?;
        block_in_place(|| world.kdc.change_password(&world.service(host), "second"))?;
    }
    load.more(ROUND).await?;
    let issued = world.kdc.tgs_exchanges();
    for number in 0..USERS {
        for host in 0..HOSTS {
            let service = Service::new("HTTP", world.host_name(host));
            world.manager.forget_service(&world.identity(number), &service);
        }
    }
    // Whoever began with an old ticket is through after this; then only the new key is any good.
    load.more(ROUND).await?;
    assert_eq!(world.kdc.tgs_exchanges(), issued + USERS * HOSTS);
    for host in 0..HOSTS {
        world.write_host(host, &[("second", 2)])?;
    }
    load.more(ROUND).await?;

    // New keys of the users, in the keytab that the agent holds. The logins that follow are with them.
    for number in 0..USERS {
        block_in_place(|| world.kdc.change_password(&user(number), "second"))?;
    }
    world.write_users("second", 2)?;
    load.more(ROUND).await?;
    assert_eq!(world.kdc.as_exchanges(), USERS, "nobody had to log in again");
    for number in 0..USERS {
        world.manager.forget(&world.identity(number));
    }
    load.more(ROUND).await?;
    assert_eq!(world.kdc.as_exchanges(), 2 * USERS);

    // Every ticket is good for hours: the KDC is not missed.
    block_in_place(|| world.kdc.kill())?;
    load.more(ROUND).await?;
    block_in_place(|| world.kdc.restart())?;
    load.more(ROUND).await?;
    load.stop().await?;
    assert_eq!(world.kdc.as_exchanges(), 2 * USERS);
    world.clean()
}

/// A ticket that was got before the host's key changed is of no use: a newer one is got, and the command runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_has_only_a_new_key_gets_a_newer_ticket() -> Result<()> {
    // By the KDC's clock its tickets were not got just now.
    let mut world = World::with(1, 1, KdcOptions { clock_offset: -60, ..KdcOptions::default() }).await?;
    let target = world.target(0, 0)?;
    let pool = Pool::new(PoolSettings::default());
    command(&pool, &target, 0, None).await?;
    ensure!(pool.close(Instant::now() + PATIENCE).await == 0, "a shell is left");

    block_in_place(|| world.kdc.change_password(&world.service(0), "second"))?;
    world.write_host(0, &[("second", 2)])?;
    let pool = Pool::new(PoolSettings::default());
    command(&pool, &target, 0, None).await?;
    ensure!(pool.close(Instant::now() + PATIENCE).await == 0, "a shell is left");
    assert_eq!((world.kdc.as_exchanges(), world.kdc.tgs_exchanges()), (1, 2));
    let refused = world.hosts.remove(0).statistics().authentication.refused_tickets.len();
    assert_eq!(refused, 1);
    Ok(())
}
