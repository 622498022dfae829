//! Real sockets: KDCs that answer with an error of our choice, that are silent, and ports where nothing listens; and a name
//! server. Dialogues that end in tickets are tested against real KDCs, with everything else that needs one.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use krb5::Principal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use super::search::{KDC_ERR_SVC_UNAVAILABLE, QUICK};
use super::*;
use crate::config::Source;

const REALM: &str = "CORP.EXAMPLE";
/// Client not found in Kerberos database.
const UNKNOWN: i32 = 6;
/// The account is locked, disabled or expired.
const REVOKED: i32 = 18;

/// A KDC that answers every request, over UDP and TCP, with the same error.
struct Fake {
    port: u16,
    requests: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Fake {
    /// Answers at once, `code`.
    async fn answering(code: i32) -> Self {
        Self::start(Some(code), 0).await
    }

    /// Takes connections and datagrams and says nothing.
    async fn silent() -> Self {
        Self::start(None, 0).await
    }

    /// Answers after it has ignored some requests; connections it then ignores always.
    async fn start(code: Option<i32>, ignored: usize) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let port = udp.local_addr().unwrap().port();
        let requests = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        let counted = Arc::clone(&requests);
        tasks.spawn(async move {
            let mut buffer = vec![0; 65536];
            while let Ok((_, peer)) = udp.recv_from(&mut buffer).await {
                if counted.fetch_add(1, Ordering::SeqCst) >= ignored
                    && let Some(code) = code
                {
                    udp.send_to(&krb_error(code), peer).await.unwrap();
                }
            }
        });
        let counted = Arc::clone(&requests);
        tasks.spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = tcp.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                if let Some(code) = code
                    && ignored == 0
                {
                    let mut length = [0; 4];
                    stream.read_exact(&mut length).await.unwrap();
                    let answer = krb_error(code);
                    stream.write_all(&u32::try_from(answer.len()).unwrap().to_be_bytes()).await.unwrap();
                    stream.write_all(&answer).await.unwrap();
                }
                open.push(stream);
            }
        });
        Self { port, requests, _tasks: tasks }
    }

    fn kdc(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// A KRB-ERROR (RFC 4120 5.9.1) with what the crate reads of it.
fn krb_error(code: i32) -> Vec<u8> {
    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![tag, u8::try_from(content.len()).unwrap()];
        assert!(out[1] < 128, "longer than the short form of a length");
        out.extend_from_slice(content);
        out
    }
    let field = |number: u8, content: &[u8]| element(0xA0 + number, content);
    let name = [field(0, &[2, 1, 2]), field(1, &element(0x30, &element(0x1B, b"krbtgt")))].concat();
    let fields = [
        field(0, &[2, 1, 5]),
        field(1, &[2, 1, 30]),
        field(4, &element(0x18, b"20260101000000Z")),
        field(5, &[2, 1, 0]),
        field(6, &[2, 1, u8::try_from(code).unwrap()]),
        field(9, &element(0x1B, REALM.as_bytes())),
        field(10, &element(0x30, &name)),
    ];
    element(0x7E, &element(0x30, &fields.concat()))
}

/// A port of this machine where nothing listens.
async fn dead_port() -> String {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    socket.local_addr().unwrap().to_string()
}

fn directory_of(settings: &str) -> Directory {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), settings).unwrap();
    Directory::new(Arc::new(Watch::start(Source::File(file.path().to_path_buf()), None).unwrap()))
}

fn directory(kdcs: &[&str]) -> Directory {
    let lines: String = kdcs.iter().map(|kdc| format!("  kdc = {kdc}\n")).collect();
    directory_of(&format!("[libdefaults]\n dns_lookup_kdc = false\n[realms]\n {REALM} = {{\n{lines} }}\n"))
}

fn within(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

async fn login(directory: &Directory, realm: &str, trace: &Trace, seconds: u64) -> Result<(), Failure> {
    let alice = Principal::new(1, ["alice"], REALM);
    let dialogue = async |client: AsyncKdcClient| client.login_with_password(&alice, "right").await.map(drop);
    directory.with_client(realm, trace, within(seconds), dialogue).await
}

#[track_caller]
fn assert_answered(result: Result<(), Failure>, code: i32) {
    assert!(matches!(&result, Err(Failure::Kdc(error)) if error.kdc_code() == Some(code)), "{result:?}");
}

/// Which KDCs a trace says were asked, by their ports.
fn asked(trace: &Trace) -> Vec<String> {
    let lines = trace.lines();
    lines
        .iter()
        .filter_map(|line| {
            let (_, kdc) = line.split_once("Sending request to CORP.EXAMPLE: ")?;
            Some(kdc.split([' ', ',']).nth(1)?.to_owned())
        })
        .collect()
}

#[tokio::test]
async fn a_dead_port_is_passed_over_and_asked_last_afterwards() {
    let (dead, good) = (dead_port().await, Fake::answering(UNKNOWN).await);
    let directory = directory(&[&dead, &good.kdc()]);
    let trace = Trace::collect();
    assert_answered(login(&directory, REALM, &trace, 20).await, UNKNOWN);
    assert_eq!(asked(&trace), [dead.as_str(), &good.kdc()], "{:#?}", trace.lines());
    let lines = trace.lines();
    for socket in ["dgram", "stream"] {
        let line = format!("No answer from {socket} {dead}: Connection refused");
        assert!(lines.iter().any(|found| found.contains(&line)), "{line}: {lines:#?}");
    }
    let error = "Received error from KDC: -1765328378/Client not found in Kerberos database";
    assert!(lines.iter().any(|line| line.ends_with(error)), "{lines:#?}");

    let trace = Trace::collect();
    assert_answered(login(&directory.clone(), REALM, &trace, 20).await, UNKNOWN);
    assert_eq!(asked(&trace), [good.kdc()]);
    let kdcs = directory.kdcs(REALM, &Trace::off(), within(20)).await.unwrap();
    assert_eq!(kdcs.iter().map(Kdc::address).collect::<Vec<_>>(), [good.kdc(), dead]);
}

#[tokio::test]
async fn a_silent_kdc_is_waited_for_once() {
    let (silent, good) = (Fake::silent().await, Fake::answering(UNKNOWN).await);
    let directory = directory(&[&silent.kdc(), &good.kdc()]);
    assert_answered(login(&directory, REALM, &Trace::off(), 20).await, UNKNOWN);
    // Once over UDP, once over TCP, twice more over UDP, each for QUICK: under three seconds in all.
    assert_eq!(silent.requests(), 4);
    assert!(QUICK * 4 < Duration::from_secs(3));
    for _ in 0..3 {
        assert_answered(login(&directory, REALM, &Trace::off(), 20).await, UNKNOWN);
    }
    assert_eq!(silent.requests(), 4);
}

#[tokio::test]
async fn a_proof_is_sent_once_and_to_one_kdc() {
    let (silent, good) = (Fake::silent().await, Fake::answering(UNKNOWN).await);
    let proof = |client: AsyncKdcClient| async move {
        client.login_with_password(&Principal::parse("alice@CORP.EXAMPLE")?, "password").await
    };
    let both = directory(&[&silent.kdc(), &good.kdc()]);
    let failed = both.with_proof(REALM, &Trace::off(), within(60), proof).await;
    assert!(matches!(failed, Err(Failure::Unjudged { .. })), "{failed:?}");
    assert_eq!((silent.requests(), good.requests()), (1, 0));
    // Nor is it sent again after a KDC that took it and closed the connection, or said that it is not available.
    let closing = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closing.local_addr().unwrap().to_string();
    let closed = tokio::spawn(async move {
        let mut taken = 0;
        while let Ok(Ok((stream, _))) = timeout_at(within(2), closing.accept()).await {
            taken += 1;
            drop(stream);
        }
        taken
    });
    let failed = directory(&[&address, &good.kdc()]).with_proof(REALM, &Trace::off(), within(60), proof).await;
    assert!(matches!(failed, Err(Failure::Unjudged { .. })), "{failed:?}");
    assert_eq!((closed.await.unwrap(), good.requests()), (1, 0));
    let busy = Fake::answering(KDC_ERR_SVC_UNAVAILABLE).await;
    let failed = directory(&[&busy.kdc()]).with_proof(REALM, &Trace::off(), within(60), proof).await;
    assert!(matches!(failed, Err(Failure::Unreachable { .. })), "{failed:?}");
    assert_eq!(busy.requests(), 1);
    // Where nothing listens nothing was sent, and the next one gets it.
    let dead = dead_port().await;
    let failed = directory(&[&dead, &good.kdc()]).with_proof(REALM, &Trace::off(), within(60), proof).await;
    assert!(matches!(&failed, Err(Failure::Kdc(error)) if error.kdc_code() == Some(UNKNOWN)), "{failed:?}");
    assert_eq!(good.requests(), 1);
}

#[tokio::test]
async fn an_answer_is_final() {
    let (first, second) = (Fake::answering(REVOKED).await, Fake::answering(UNKNOWN).await);
    let directory = directory(&[&first.kdc(), &second.kdc()]);
    assert_answered(login(&directory, REALM, &Trace::off(), 20).await, REVOKED);
    assert_eq!(second.requests(), 0);
    assert_eq!(first.requests(), 1);
}

#[tokio::test]
async fn a_kdc_that_calls_itself_unavailable_is_passed_over() {
    let (first, second) = (Fake::answering(KDC_ERR_SVC_UNAVAILABLE).await, Fake::answering(UNKNOWN).await);
    let directory = directory(&[&first.kdc(), &second.kdc()]);
    assert_answered(login(&directory, REALM, &Trace::off(), 20).await, UNKNOWN);
}

#[tokio::test]
async fn tcp_alone_is_used_where_it_is_asked_for() {
    let good = Fake::start(Some(UNKNOWN), 0).await;
    let directory = directory(&[&format!("tcp/{}", good.kdc())]);
    let trace = Trace::collect();
    assert_answered(login(&directory, REALM, &trace, 20).await, UNKNOWN);
    assert!(trace.lines().iter().any(|line| line.ends_with(&format!("stream {} (tcp only)", good.kdc()))));
    assert_eq!(good.requests(), 1);
}

#[tokio::test]
async fn a_slow_kdc_gets_more_time_when_there_is_no_other() {
    let (dead, slow) = (dead_port().await, Fake::start(Some(UNKNOWN), 4).await);
    let directory = directory(&[&slow.kdc(), &dead]);
    let trace = Trace::collect();
    assert_answered(login(&directory, REALM, &trace, 60).await, UNKNOWN);
    assert_eq!(asked(&trace), [slow.kdc(), dead, slow.kdc()]);
    assert!(trace.lines().iter().any(|line| line.ends_with(&format!("Waiting longer for {}", slow.kdc()))));
}

#[tokio::test]
async fn when_all_are_dead_all_are_tried_and_named() {
    let kdcs = [dead_port().await, dead_port().await];
    let directory = directory(&[&kdcs[0], &kdcs[1], "no-such-host.invalid"]);
    for _ in 0..2 {
        let trace = Trace::collect();
        let Err(Failure::Unreachable { realm, attempts }) = login(&directory, REALM, &trace, 30).await else {
            panic!("{:#?}", trace.lines());
        };
        assert_eq!(realm, REALM);
        let named: Vec<(&str, &str)> =
            attempts.iter().map(|attempt| (attempt.kdc.as_str(), attempt.transport)).collect();
        let expected =
            [(kdcs[0].as_str(), "udp and tcp"), (kdcs[1].as_str(), "udp and tcp"), ("no-such-host.invalid:88", "dns")];
        assert_eq!(named, expected);
        assert_eq!(attempts[0].why, "connection refused: nothing listens on this port");
        assert_eq!(asked(&trace), kdcs);
    }
}

#[tokio::test]
async fn the_deadline_holds() {
    let silent = Fake::silent().await;
    let end = Instant::now() + Duration::from_millis(300);
    let dialogue = async |client: AsyncKdcClient| {
        client.login_with_password(&Principal::new(1, ["alice"], REALM), "right").await.map(drop)
    };
    let directory = directory(&[&silent.kdc()]);
    let result = directory.with_client(REALM, &Trace::off(), end, dialogue).await;
    assert!(matches!(result, Err(Failure::Deadline)), "{result:?}");
    // With a KDC given up before, the failure says which.
    let result = login(&directory, REALM, &Trace::off(), 4).await;
    assert!(matches!(&result, Err(Failure::Unreachable { attempts, .. }) if attempts.len() == 1), "{result:?}");
}

#[tokio::test]
async fn a_realm_in_another_case_is_asked_for_as_it_is_known() {
    let good = Fake::answering(UNKNOWN).await;
    let trace = Trace::collect();
    assert_answered(login(&directory(&[&good.kdc()]), "corp.example", &trace, 20).await, UNKNOWN);
    assert!(trace.lines()[0].ends_with("Realm corp.example is taken for CORP.EXAMPLE"));
    let twins = directory_of("[realms]\n A.b = {\n  kdc = x\n }\n a.B = {\n  kdc = x\n }\n");
    let result = login(&twins, "A.B", &Trace::off(), 20).await;
    assert!(matches!(result, Err(Failure::Realm(RealmError::Ambiguous { .. }))), "{result:?}");
}

#[tokio::test]
async fn a_realm_without_kdcs_says_where_was_looked() {
    for (settings, part) in [
        ("[libdefaults]\n dns_lookup_kdc = no\n", "dns_lookup_kdc is off"),
        ("[realms]\n CORP.EXAMPLE = {\n  kdc = https://proxy.corp.example/\n }\n", "not supported"),
    ] {
        let trace = Trace::collect();
        let error = login(&directory_of(settings), REALM, &trace, 20).await.unwrap_err();
        assert!(matches!(&error, Failure::NotFound { .. }) && error.to_string().contains(part), "{error}");
        assert!(trace.lines()[0].contains("Cannot find KDC for realm \"CORP.EXAMPLE\""));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dialogue_can_be_awaited_in_a_task() {
    let good = Fake::answering(UNKNOWN).await;
    let directory = directory(&[&good.kdc()]);
    let password = String::from("right");
    let task = tokio::spawn(async move {
        let alice = Principal::new(1, ["alice"], REALM);
        let dialogue = async |client: AsyncKdcClient| client.login_with_password(&alice, &password).await.map(drop);
        directory.with_client(REALM, &Trace::off(), within(20), dialogue).await
    });
    assert_answered(task.await.unwrap(), UNKNOWN);
}

/// Counts the events that reach it.
struct Count(Arc<AtomicUsize>);

impl tracing::Subscriber for Count {
    fn enabled(&self, _metadata: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &tracing::Event<'_>) {
        if event.metadata().target() == "krb5::client" || event.metadata().target() == "reader" {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn new_span(&self, _span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _span: &tracing::span::Id, _values: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _span: &tracing::span::Id, _follows: &tracing::span::Id) {}
    fn enter(&self, _span: &tracing::span::Id) {}
    fn exit(&self, _span: &tracing::span::Id) {}
}

#[tokio::test]
async fn the_log_loses_nothing_to_a_trace() {
    let directory = directory(&[&dead_port().await]);
    let events = Arc::new(AtomicUsize::new(0));
    let log = tracing::Dispatch::new(Count(Arc::clone(&events)));
    let _log = tracing::dispatcher::set_default(&log);
    assert!(login(&directory, REALM, &Trace::off(), 20).await.is_err());
    // UDP three times and TCP once.
    assert_eq!(events.swap(0, Ordering::SeqCst), 4);
    let trace = Trace::to(|line| {
        if line.contains("No answer from ") {
            tracing::info!(target: "reader", line, "Trace");
        }
    });
    assert!(login(&directory, REALM, &trace, 20).await.is_err());
    assert_eq!(events.swap(0, Ordering::SeqCst), 8);
}

/// A name server. Knows the port of one KDC, on `localhost`.
struct NameServer {
    address: SocketAddr,
    questions: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl NameServer {
    async fn start(known: Option<(&'static str, u16)>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let questions = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&questions);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                counted.fetch_add(1, Ordering::SeqCst);
                socket.send_to(&answer(&buffer[..length], known), peer).await.unwrap();
            }
        });
        Self { address, questions, _tasks: tasks }
    }

    fn directory(&self) -> Directory {
        let watch = Watch::start(Source::Declared(crate::config::Declared::default()), None).unwrap();
        Directory::with_resolver(Arc::new(watch), Resolver::new(vec![self.address]))
    }

    fn questions(&self) -> usize {
        self.questions.load(Ordering::SeqCst)
    }
}

/// The answer to a question (RFC 1035 4.1): one SRV record (RFC 2782), or that there is no such name.
fn answer(question: &[u8], known: Option<(&'static str, u16)>) -> Vec<u8> {
    let mut name = String::new();
    let mut at = 12;
    while question[at] != 0 {
        let length = usize::from(question[at]);
        name.push_str(std::str::from_utf8(&question[at + 1..=at + length]).unwrap());
        name.push('.');
        at += length + 1;
    }
    let end = at + 5;
    let srv = question[at + 1..at + 3] == [0, 33];
    let port = known.filter(|(realm, _)| srv && name == format!("_kerberos._udp.{realm}.")).map(|(_, port)| port);
    let mut out = question[..end].to_vec();
    // Standard query response, recursion available; no error or no such name.
    out[2..4].copy_from_slice(&[0x81, if port.is_some() { 0x80 } else { 0x83 }]);
    out[4..12].copy_from_slice(&[0, 1, 0, u8::from(port.is_some()), 0, 0, 0, 0]);
    if let Some(port) = port {
        // The name of the question, SRV, IN, a minute; priority, weight, port, target.
        let target = b"\x09localhost\x00";
        let data = [&[0, 0, 0, 100][..], &port.to_be_bytes(), target].concat();
        out.extend_from_slice(&[0xC0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, u8::try_from(data.len()).unwrap()]);
        out.extend_from_slice(&data);
    }
    out
}

#[tokio::test]
async fn kdcs_are_found_in_dns_and_remembered() {
    let good = Fake::answering(UNKNOWN).await;
    let server = NameServer::start(Some((REALM, good.port))).await;
    let directory = server.directory();
    let trace = Trace::collect();
    assert_answered(login(&directory, REALM, &trace, 20).await, UNKNOWN);
    let lines = trace.lines();
    // Without the dot at the end of the name, which /etc/hosts does not know.
    assert!(
        lines.iter().any(|line| line.ends_with(&format!("SRV answer for {REALM}: localhost:{}", good.port))),
        "{lines:#?}"
    );
    assert!(lines.iter().any(|line| line.ends_with("Resolving hostname localhost")), "{lines:#?}");
    let questions = server.questions();
    assert_answered(login(&directory, REALM, &Trace::off(), 20).await, UNKNOWN);
    assert_eq!(server.questions(), questions);
}

#[tokio::test]
async fn many_who_ask_for_one_realm_ask_dns_once() {
    let good = Fake::answering(UNKNOWN).await;
    let server = NameServer::start(Some((REALM, good.port))).await;
    let directory = server.directory();
    let mut logins = JoinSet::new();
    for _ in 0..LOOKUPS * 4 {
        let directory = directory.clone();
        logins.spawn(async move { directory.kdcs(REALM, &Trace::off(), within(20)).await.unwrap().len() });
    }
    assert_eq!(logins.join_all().await, vec![1; LOOKUPS * 4]);
    // URI, then SRV for UDP and TCP; as many times as lookups may run at once.
    assert!(server.questions() <= 3 * LOOKUPS, "{}", server.questions());
}

#[tokio::test]
async fn a_realm_that_dns_does_not_know_is_not_found() {
    let server = NameServer::start(None).await;
    let error = login(&server.directory(), REALM, &Trace::off(), 20).await.unwrap_err();
    assert!(matches!(&error, Failure::NotFound { realm, .. } if realm == REALM), "{error}");
    assert!(error.to_string().contains("DNS has no records of its KDCs"), "{error}");
}

#[tokio::test]
async fn a_name_server_that_is_silent_does_not_hold_us_for_long() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let watch = Watch::start(Source::Declared(crate::config::Declared::default()), None).unwrap();
    let resolver = Resolver::new(vec![silent.local_addr().unwrap()]);
    let directory = Directory::with_resolver(Arc::new(watch), resolver);
    let error = login(&directory, REALM, &Trace::off(), 60).await.unwrap_err();
    assert!(matches!(&error, Failure::NotFound { .. }) && error.to_string().contains("DNS gave no answer"), "{error}");
}
