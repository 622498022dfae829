//! What KDCs say that MIT's does not say here by itself: a relay in front of a real one answers one kind of question in its place.
//! And tickets, keytabs and caches that are of no use.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use lictor_kerberos::config::{Source, Watch};
use lictor_kerberos::trace::Trace;
use lictor_kerberos::{CredentialSource, Error, ErrorKind, Identity, Kerberos, Request, Service};
use lictor_tests::Kdc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

const PASSWORD: &str = "Secret-1";

/// The first bytes of messages (RFC 4120 5.4.1, 5.4.2).
const AS_REQ: u8 = 0x6A;
const AS_REP: u8 = 0x6B;
const TGS_REQ: u8 = 0x6C;

/// What the relay answers by itself. The rest is for the KDC.
#[derive(Clone)]
enum Answer {
    /// To this kind of question, with this.
    With(u8, Vec<u8>),
    /// Nothing to what proves a password.
    Silence,
    /// To what proves a password, the ticket that was given for the first of them.
    Replay(Arc<Mutex<Option<Vec<u8>>>>),
}

enum Reply {
    Ours(Vec<u8>),
    Theirs,
    Nobodys,
}

impl Answer {
    fn error(question: u8, code: u8, status: Option<u32>) -> Self {
        Self::With(question, krb_error(code, status))
    }

    fn to(&self, question: &[u8]) -> Reply {
        // PA-ENC-TIMESTAMP among the pre-authentication data: [1] INTEGER 2.
        let proves = question.windows(5).take(200).any(|bytes| bytes == [0xA1, 3, 2, 1, 2]);
        match self {
            Self::With(kind, bytes) if question.first() == Some(kind) => Reply::Ours(bytes.clone()),
            Self::Silence if proves => Reply::Nobodys,
            Self::Replay(first) if proves => {
                first.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Reply::Theirs, Reply::Ours)
            }
            _ => Reply::Theirs,
        }
    }

    fn heard(&self, reply: &[u8]) {
        if let (Self::Replay(first), Some(&AS_REP)) = (self, reply.first()) {
            first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reply.to_vec());
        }
    }
}

/// A relay for UDP and TCP. Dropping it stops it.
struct Relay {
    port: u16,
    _tasks: JoinSet<()>,
}

impl Relay {
    async fn start(kdc: u16, answer: Answer) -> Result<Self> {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await?;
            if let Ok(tcp) = TcpListener::bind(udp.local_addr()?).await {
                break (udp, tcp);
            }
        };
        let port = udp.local_addr()?.port();
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let answer = answer.clone();
            async move {
                let mut question = vec![0; 65_536];
                while let Ok((length, client)) = udp.recv_from(&mut question).await {
                    let reply = match answer.to(&question[..length]) {
                        Reply::Ours(reply) => reply,
                        Reply::Theirs => datagram(kdc, &question[..length]).await.unwrap_or_default(),
                        Reply::Nobodys => continue,
                    };
                    answer.heard(&reply);
                    let _ = udp.send_to(&reply, client).await;
                }
            }
        });
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = tcp.accept().await {
                open.spawn(converse(stream, kdc, answer.clone()));
            }
        });
        Ok(Self { port, _tasks: tasks })
    }
}

async fn datagram(kdc: u16, question: &[u8]) -> Result<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.send_to(question, ("127.0.0.1", kdc)).await?;
    let mut reply = vec![0; 65_536];
    let length = timeout(Duration::from_secs(5), socket.recv(&mut reply)).await??;
    reply.truncate(length);
    Ok(reply)
}

async fn converse(mut client: TcpStream, kdc: u16, answer: Answer) -> Result<()> {
    loop {
        let question = framed(&mut client).await?;
        let reply = match answer.to(&question) {
            Reply::Ours(reply) => reply,
            Reply::Theirs => {
                let mut server = TcpStream::connect(("127.0.0.1", kdc)).await?;
                send(&mut server, &question).await?;
                framed(&mut server).await?
            }
            // The connection stays open.
            Reply::Nobodys => std::future::pending().await,
        };
        answer.heard(&reply);
        send(&mut client, &reply).await?;
    }
}

async fn framed(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    let mut message = vec![0; usize::try_from(length)?];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn send(stream: &mut TcpStream, message: &[u8]) -> Result<()> {
    stream.write_u32(u32::try_from(message.len())?).await?;
    Ok(stream.write_all(message).await?)
}

/// A KRB-ERROR (RFC 4120 5.9.1), with Active Directory's NTSTATUS as e-data ([MS-KILE] 2.2.1, 2.2.2).
fn krb_error(code: u8, status: Option<u32>) -> Vec<u8> {
    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).unwrap_or(u8::MAX);
        let head = if length < 128 { vec![tag, length] } else { vec![tag, 0x81, length] };
        [head, content.to_vec()].concat()
    }
    let field = |number: u8, content: &[u8]| element(0xA0 + number, content);
    let name = [field(0, &[2, 1, 2]), field(1, &element(0x30, &element(0x1B, b"krbtgt")))].concat();
    let mut fields = vec![
        field(0, &[2, 1, 5]),
        field(1, &[2, 1, 30]),
        field(4, &element(0x18, b"20260101000000Z")),
        field(5, &[2, 1, 0]),
        field(6, &[2, 1, code]),
        field(9, &element(0x1B, b"CORP.EXAMPLE")),
        field(10, &element(0x30, &name)),
    ];
    if let Some(status) = status {
        let extended = [&status.to_le_bytes()[..], &[0; 4], &1_u32.to_le_bytes()].concat();
        let data = element(0x30, &[field(1, &[2, 1, 3]), field(2, &element(4, &extended))].concat());
        fields.push(field(12, &element(4, &data)));
    }
    element(0x7E, &element(0x30, &fields.concat()))
}

/// Logs in by way of a KDC with one user and one host, `web1`.
struct World {
    kdc: Kdc,
    service: Service,
}

impl World {
    fn start() -> Result<Self> {
        let kdc = Kdc::start("CORP.EXAMPLE")?;
        kdc.add_password("alice", PASSWORD, &[])?;
        let host = format!("web1.{}", kdc.realm().to_lowercase());
        kdc.add_random(&format!("HTTP/{host}"), &[])?;
        Ok(Self { kdc, service: Service::new("HTTP", host) })
    }

    fn alice(&self) -> Identity {
        identity(&self.kdc.principal("alice"), CredentialSource::Password(PASSWORD.to_owned().into()))
    }

    /// What the manager says when the relay stands between it and the KDC.
    async fn failure(&self, answer: Answer, ask: Ask) -> Result<Error> {
        let relay = Relay::start(self.kdc.port(), answer).await?;
        let kerberos = manager(self.through(&relay)?)?;
        let failed = match ask {
            Ask::Login => kerberos.check(&self.alice(), request()).await.err(),
            Ask::Service => kerberos.service_ticket(&self.alice(), &self.service, request()).await.err(),
        };
        failed.context("there is a ticket")
    }

    /// A krb5.conf whose KDC is the relay.
    fn through(&self, relay: &Relay) -> Result<PathBuf> {
        let settings = format!(
            "[libdefaults]\n default_realm = {realm}\n dns_lookup_kdc = false\n[realms]\n {realm} = {{\n  kdc = 127.0.0.1:{}\n }}\n",
            relay.port,
            realm = self.kdc.realm(),
        );
        let file = self.kdc.path("relay.krb5.conf");
        std::fs::write(&file, settings)?;
        Ok(file)
    }
}

#[derive(Clone, Copy)]
enum Ask {
    Login,
    Service,
}

fn identity(principal: &str, source: CredentialSource) -> Identity {
    Identity { principal: principal.to_owned(), realm: None, source, fresh: false }
}

fn manager(krb5_conf: PathBuf) -> Result<Kerberos> {
    Ok(Kerberos::new(Arc::new(Watch::start(Source::File(krb5_conf), None)?)))
}

fn request() -> Request {
    Request { delegate: false, deadline: Instant::now() + Duration::from_secs(60), trace: Trace::off() }
}

#[tokio::test]
async fn what_active_directory_has_against_an_account_is_told_apart() -> Result<()> {
    let world = World::start()?;
    for (code, status, told) in [
        (18, Some(0xC000_0234), "kerberos.account_locked"),
        (18, Some(0xC000_0072), "kerberos.account_disabled"),
        (18, Some(0xC000_0193), "kerberos.account_expired"),
        (18, Some(0xC000_006F), "kerberos.logon_hours"),
        (18, Some(0xC000_0070), "kerberos.workstation"),
        (18, Some(0xC000_0413), "kerberos.authentication_policy"),
        (18, None, "kerberos.account_revoked"),
        (23, Some(0xC000_0224), "kerberos.password_must_change"),
        (23, Some(0xC000_0071), "kerberos.password_expired"),
    ] {
        let error = world.failure(Answer::error(AS_REQ, code, status), Ask::Login).await?;
        assert_eq!((error.code(), error.kind()), (told, ErrorKind::Rejected), "{status:x?}: {error:?}");
        assert!(!error.remedy().is_empty() && error.legacy_text().is_some(), "{error:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_a_kdc_says_of_a_login_is_told_apart() -> Result<()> {
    let world = World::start()?;
    for (code, told) in [
        (1, "kerberos.account_expired"),
        (6, "kerberos.principal_unknown"),
        (12, "kerberos.policy"),
        (14, "kerberos.enctype"),
        (24, "kerberos.password_rejected"),
        (37, "kerberos.clock_skew"),
        (60, "kerberos.kdc_error"),
        (68, "kerberos.wrong_realm"),
    ] {
        let error = world.failure(Answer::error(AS_REQ, code, None), Ask::Login).await?;
        assert_eq!(error.code(), told, "{code}: {error:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_a_kdc_says_of_a_service_is_told_apart() -> Result<()> {
    let world = World::start()?;
    for (code, told) in [
        (7, "kerberos.service_unknown"),
        (8, "kerberos.service_duplicate"),
        (12, "kerberos.policy"),
        (14, "kerberos.service_enctype"),
        (27, "kerberos.service_of_user"),
    ] {
        let error = world.failure(Answer::error(TGS_REQ, code, None), Ask::Service).await?;
        assert_eq!(error.code(), told, "{code}: {error:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_answer_that_is_none_and_a_login_that_nobody_judges() -> Result<()> {
    let world = World::start()?;
    // The ticket of an earlier login, in place of one for this.
    let first = Arc::default();
    let relay = Relay::start(world.kdc.port(), Answer::Replay(Arc::clone(&first))).await?;
    let krb5_conf = world.through(&relay)?;
    manager(krb5_conf.clone())?.check(&world.alice(), request()).await?;
    let error = manager(krb5_conf)?.check(&world.alice(), request()).await.err().context("a ticket")?;
    assert_eq!(error.code(), "kerberos.kdc_answer", "{error:?}");
    // The KDC answers the first question and takes the proof without a word.
    let error = world.failure(Answer::Silence, Ask::Login).await?;
    assert_eq!((error.code(), error.kind()), ("kerberos.unjudged", ErrorKind::Other), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn keys_and_tickets_that_are_of_no_use() -> Result<()> {
    let World { kdc, service } = World::start()?;
    let kerberos = manager(kdc.krb5_conf())?;

    // A keytab of the time before AES.
    kdc.kadmin(&["addprinc -e arcfour-hmac:normal -randkey old"])?;
    let keytab = kdc.path("old.keytab");
    kdc.keytab(&["old"], &keytab)?;
    let old = identity(&kdc.principal("old"), CredentialSource::KeytabFile(keytab));
    let error = kerberos.check(&old, request()).await.err().context("a ticket of RC4")?;
    assert_eq!(error.code(), "kerberos.keytab_enctype", "{error:?}");

    // A cache that somebody filled with the ticket for a host and nothing else.
    let cache = format!("FILE:{}", kdc.path("service.ccache").display());
    kdc.kinit(&kdc.principal("alice"), PASSWORD, &cache, &["-S", &service.to_string()])?;
    let cached = identity(&kdc.principal("alice"), CredentialSource::Cache(cache));
    let error = kerberos.check(&cached, request()).await.err().context("a ticket-granting ticket")?;
    assert_eq!(error.code(), "kerberos.cache_no_tgt", "{error:?}");
    Ok(())
}

#[tokio::test]
async fn a_host_of_a_realm_that_does_not_trust_the_users() -> Result<()> {
    let World { kdc, .. } = World::start()?;
    let partner = Kdc::start("PARTNER.EXAMPLE")?;
    partner.add_random("HTTP/web9.partner.example", &[])?;
    kdc.knows(&partner)?;
    kdc.map_host("web9.partner.example", partner.realm())?;
    let alice = identity(&kdc.principal("alice"), CredentialSource::Password(PASSWORD.to_owned().into()));
    let host = Service::new("HTTP", "web9.partner.example");
    let failed = manager(kdc.krb5_conf())?.service_ticket(&alice, &host, request()).await;
    let error = failed.err().context("a ticket without trust")?;
    // A KDC says the same of a realm that it knows no way to as of a service that it does not know.
    assert_eq!(error.code(), "kerberos.service_unknown", "{error:?}");
    assert!(error.cause().contains("no path of trust"), "{error:?}");
    Ok(())
}
