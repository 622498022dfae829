//! Our security context against acceptors of pyspnego and python-gssapi (`tests/peers/spnego/kerberos_acceptor.py`), with
//! tickets that the `krb5` crate gets from a real KDC.
//!
//! Without an interpreter in `LICTOR_PEERS_PYTHON` these tests say that they did not run; with `LICTOR_PEERS=required` they
//! fail.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::pin::Pin;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use krb5::{AsyncKdcClient, Krb5Conf, Principal};
use lictor_tests::{Kdc, KdcOptions};
use lictor_winrm::Error;
use lictor_winrm::auth::kerberos::{Ticket, TicketError, TicketErrorKind, TicketRequest, TicketSource};
use lictor_winrm::connection::Connection;
use lictor_winrm::target::{
    AuthKind, Credential, Endpoint, KerberosOptions, MessageEncryption, Scheme, Secret, ShellProperties, Target,
    Timeouts, TlsPolicy,
};
use serde_json::Value;
use tokio::time::Instant;

const READ: Duration = Duration::from_secs(30);
const HOST: &str = "localhost";
const PEERS: [&str; 2] = ["pyspnego", "gssapi"];
const SCHEMES: [&str; 2] = ["negotiate", "kerberos"];
/// What the connection says that it used.
const NAMES: [&str; 2] = ["negotiate-kerberos", "kerberos"];

#[tokio::test]
async fn sealed_messages_of_all_sizes_pass_in_every_key_type_and_both_schemes() {
    let Some(python) = python() else { return };
    for enctype in [
        "aes128-cts-hmac-sha1-96",
        "aes256-cts-hmac-sha1-96",
        "aes128-cts-hmac-sha256-128",
        "aes256-cts-hmac-sha384-192",
    ] {
        let options = KdcOptions { enctypes: format!("{enctype}:normal"), ..KdcOptions::default() };
        let realm = Realm::start(options);
        let acceptor = Acceptor::start(&python, &realm.kdc, &realm.keytab, None);
        for (scheme, name) in SCHEMES.into_iter().zip(NAMES) {
            for peer in PEERS {
                let target = acceptor.http(&format!("/{peer}/{scheme}/sealed"), realm.source());
                let mut connection =
                    open(&target).await.unwrap_or_else(|e| panic!("{enctype} {peer} {scheme}: {}", e.report()));
                let evidence = acceptor.evidence();
                assert_eq!(evidence["user"], realm.kdc.principal("alice"));
                assert_eq!((&evidence["mutual"], &evidence["confidential"]), (&true.into(), &true.into()));
                assert_eq!(evidence["delegated"], Value::Null);
                let info = connection.info().clone();
                assert_eq!((info.auth, info.sealed), (name, true));
                let ticket = info.kerberos.unwrap();
                assert_eq!(ticket.client, realm.kdc.principal("alice"));
                assert_eq!(ticket.service, realm.kdc.principal("HTTP/localhost"));
                let legs = connection.exchanges();
                let sizes = [0, 1, 15, 16, 17, 4095, 150 * 1024, 2 * 1024 * 1024];
                for size in sizes {
                    let message = Bytes::from((0..size).map(|at| (at * 31 % 251) as u8).collect::<Vec<_>>());
                    let answer = connection
                        .exchange(message.clone(), READ)
                        .await
                        .unwrap_or_else(|e| panic!("{enctype} {peer} {scheme} {size}: {}", e.report()));
                    assert_eq!((answer.status, answer.body.len()), (200, size));
                    assert!(answer.body == message, "{enctype} {peer} {scheme} {size}");
                }
                // Nothing is authenticated again.
                assert_eq!(connection.exchanges(), legs + sizes.len() as u32);
            }
        }
        assert!(acceptor.is_quiet());
    }
}

#[tokio::test]
async fn bad_answers_end_a_sealed_connection() {
    let Some(python) = python() else { return };
    let realm = Realm::start(KdcOptions::default());
    let acceptor = Acceptor::start(&python, &realm.kdc, &realm.keytab, None);
    for peer in PEERS {
        for (order, code) in [("plain", "seal.plain_answer"), ("corrupt", "seal.decrypt"), ("replay", "seal.decrypt")] {
            let target = acceptor.http(&format!("/{peer}/negotiate/sealed"), realm.source());
            let mut connection = open(&target).await.unwrap();
            // As long as the order itself, so that a replayed answer differs in nothing but its place.
            let usual = Bytes::from(vec![b'u'; order.len() + 10]);
            connection.exchange(usual.clone(), READ).await.unwrap();
            let error = connection.exchange(Bytes::from(format!("misbehave:{order}")), READ).await.unwrap_err();
            assert_eq!(error.code(), code, "{peer} {order}: {}", error.report());
            assert!(!connection.is_usable() && connection.exchange(usual, READ).await.is_err());
        }
        // A host that does not prove itself gets no message.
        for (scheme, code) in [("negotiate", "auth.handshake"), ("kerberos", "auth.handshake")] {
            let target = acceptor.http(&format!("/{peer}/{scheme}/sealed/silent"), realm.source());
            assert_eq!(open(&target).await.unwrap_err().code(), code);
        }
    }
}

#[tokio::test]
async fn channel_bindings_right_wrong_and_missing() {
    let Some(python) = python() else { return };
    let realm = Realm::start(KdcOptions::default());
    let acceptor = Acceptor::start(&python, &realm.kdc, &realm.keytab, None);
    for peer in PEERS {
        for scheme in SCHEMES {
            let at = |words: &str| acceptor.https(&format!("/{peer}/{scheme}/{words}"), realm.source());
            let mut connection = open(&at("bound")).await.unwrap_or_else(|e| panic!("{peer} {scheme}: {}", e.report()));
            assert_eq!(acceptor.evidence()["bound"], true);
            assert!(!connection.info().sealed);
            assert_eq!(connection.exchange(Bytes::from_static(b"plain"), READ).await.unwrap().body, "plain");

            let mut sealed = at("bound/sealed");
            sealed.message_encryption = MessageEncryption::Always;
            let mut connection = open(&sealed).await.unwrap();
            acceptor.evidence();
            assert_eq!(connection.exchange(Bytes::from_static(b"sealed"), READ).await.unwrap().body, "sealed");

            let wrong = open(&at("mitm")).await.unwrap_err();
            assert!(!wrong.credential_rejected());
            assert!(wrong.code().starts_with("auth.ticket_"), "{peer} {scheme}: {}", wrong.report());

            let mut missing = at("bound");
            missing.send_channel_bindings = false;
            let error = open(&missing).await.unwrap_err();
            assert!(error.code().starts_with("auth.ticket_"), "{peer} {scheme}: {}", error.report());
            let mut missing = at("any");
            missing.send_channel_bindings = false;
            open(&missing).await.unwrap();
            assert_eq!(acceptor.evidence()["bound"], false);
        }
    }
}

#[tokio::test]
async fn a_forwarded_ticket_lets_the_host_act_as_the_user() {
    let Some(python) = python() else { return };
    let realm =
        Realm::start(KdcOptions { libdefaults: vec!["forwardable = true".to_owned()], ..KdcOptions::default() });
    realm.kdc.add_random("HTTP/elsewhere", &[]).unwrap();
    let acceptor = Acceptor::start(&python, &realm.kdc, &realm.keytab, None);
    for peer in PEERS {
        for scheme in SCHEMES {
            let mut target = acceptor.http(&format!("/{peer}/{scheme}/sealed"), realm.source());
            target.kerberos.delegate = true;
            let mut connection = open(&target).await.unwrap();
            let evidence = acceptor.evidence();
            assert_eq!(evidence["delegated"]["user"], realm.kdc.principal("alice"), "{evidence}");
            assert!(connection.info().kerberos.as_ref().unwrap().delegated);
            assert_eq!(connection.exchange(Bytes::from_static(b"x"), READ).await.unwrap().body, "x");
        }
    }
    // The KDC saw the host ask for the other service with it.
    assert!(realm.kdc.logged(&["TGS_REQ", "ISSUE", "HTTP/elsewhere"]) >= 1, "{}", realm.kdc.log());
}

#[tokio::test]
async fn what_hosts_have_against_a_ticket_is_told_apart() {
    let Some(python) = python() else { return };
    let realm = Realm::start(KdcOptions::default());
    let stale = realm.kdc.path("stale.keytab");
    std::fs::copy(&realm.keytab, &stale).unwrap();
    let acceptor = Acceptor::start(&python, &realm.kdc, &realm.keytab, None);
    let ahead = Acceptor::start(&python, &realm.kdc, &realm.keytab, Some(3600));
    for scheme in SCHEMES {
        // The user may not use WinRM there.
        let source = realm.source();
        let target = acceptor.http(&format!("/gssapi/{scheme}/forbidden"), Arc::clone(&source));
        let error = open(&target).await.unwrap_err();
        assert_eq!(error.code(), "auth.ticket_refused", "{}", error.report());
        assert!(!error.credential_rejected() && error.remedy().contains("Remote Management Users"));
        assert_eq!(error.legacy_text(), Some("kerberos: the specified credentials were rejected by the server"));
        assert_eq!(*source.refused.lock().unwrap(), ["HTTP/localhost"]);

        // Its clock is wrong.
        let error = open(&ahead.http(&format!("/gssapi/{scheme}"), realm.source())).await.unwrap_err();
        assert_eq!(error.code(), "auth.ticket_clock_skew", "{}", error.report());
        assert!(error.to_string().contains(" s ahead of ours"), "{error}");
    }
    // The name is registered for an account whose key the host does not have.
    realm.kdc.change_keys("HTTP/localhost", false).unwrap();
    let other = Acceptor::start(&python, &realm.kdc, &stale, None);
    for scheme in SCHEMES {
        let error = open(&other.http(&format!("/gssapi/{scheme}"), realm.source())).await.unwrap_err();
        assert_eq!(error.code(), "auth.ticket_wrong_key", "{}", error.report());
        assert!(error.remedy().contains("setspn"));
    }
}

#[tokio::test]
async fn services_are_asked_for_by_http_wsman_and_host_or_as_told() {
    let Some(python) = python() else { return };
    let realm = Realm::start(KdcOptions::default());
    realm.kdc.delete("HTTP/localhost").unwrap();
    realm.kdc.add_random("WSMAN/localhost", &[]).unwrap();
    realm.kdc.add_random("WEB/alias", &[]).unwrap();
    realm.kdc.keytab(&["WSMAN/localhost", "WEB/alias"], &realm.keytab).unwrap();
    let acceptor = Acceptor::start(&python, &realm.kdc, &realm.keytab, None);
    let mut target = acceptor.http("/gssapi/negotiate/sealed", realm.source());
    open(&target).await.unwrap();
    assert_eq!(acceptor.evidence()["service"], realm.kdc.principal("WSMAN/localhost"));
    target.kerberos =
        KerberosOptions { spn_service: Some("WEB".into()), spn_host: Some("alias".into()), delegate: false };
    open(&target).await.unwrap();
    assert_eq!(acceptor.evidence()["service"], realm.kdc.principal("WEB/alias"));
    target.kerberos.spn_service = None;
    let error = open(&target).await.unwrap_err();
    assert!(error.to_string().contains("HTTP/alias, WSMAN/alias, HOST/alias"), "{error}");
    assert!(error.is_unsent() && acceptor.is_quiet());
}

#[tokio::test]
async fn hosts_of_other_realms_are_reached_directly_and_by_referral() {
    let Some(python) = python() else { return };
    for referral in [false, true] {
        let (users, hosts) = (Kdc::start("USERS.EXAMPLE"), Kdc::start("HOSTS.EXAMPLE"));
        let (mut users, mut hosts) = (users.unwrap(), hosts.unwrap());
        users.add_password("alice", "Secret 1", &[]).unwrap();
        hosts.add_random("HTTP/win01.hosts.example", &[]).unwrap();
        users.trust(&hosts).unwrap();
        // The KDC refers names with a dot only.
        users.map_host("win01.hosts.example", hosts.realm()).unwrap();
        users.restart().unwrap();
        hosts.restart().unwrap();
        let keytab = hosts.path("http.keytab");
        hosts.keytab(&["HTTP/win01.hosts.example"], &keytab).unwrap();
        let acceptor = Acceptor::start(&python, &hosts, &keytab, None);
        let source = Arc::new(Source {
            conf: std::fs::read_to_string(users.krb5_conf()).unwrap(),
            realm: users.realm().to_owned(),
            // By referral, the client knows nothing of the other realm, and its own KDC tells.
            host_realm: if referral { users.realm() } else { hosts.realm() }.to_owned(),
            refused: Mutex::default(),
        });
        for scheme in SCHEMES {
            let mut target = acceptor.http(&format!("/gssapi/{scheme}/sealed"), Arc::clone(&source));
            target.kerberos.spn_host = Some("win01.hosts.example".into());
            let mut connection =
                open(&target).await.unwrap_or_else(|e| panic!("{referral} {scheme}: {}\n{}", e.report(), users.log()));
            let evidence = acceptor.evidence();
            assert_eq!(evidence["user"], users.principal("alice"));
            assert_eq!(evidence["service"], hosts.principal("HTTP/win01.hosts.example"));
            assert_eq!(connection.exchange(Bytes::from_static(b"x"), READ).await.unwrap().body, "x");
        }
    }
}

#[tokio::test]
async fn without_a_ticket_ntlm_takes_over_only_when_nobody_refused_anything() {
    let Some(python) = python() else { return };
    let realm = Realm::start(KdcOptions::default());
    let acceptor = Acceptor::start(&python, &realm.kdc, &realm.keytab, None);
    // Kerberos is what `negotiate` uses when there are tickets.
    let mut target = acceptor.http("/pyspnego/negotiate/sealed", realm.source());
    target.auth = AuthKind::Negotiate;
    assert_eq!(open(&target).await.unwrap().info().auth, "negotiate-kerberos");
    acceptor.evidence();
    // An address has no ticket: NTLM is begun, which this host does not have.
    target.endpoint = Endpoint::new(Scheme::Http, "127.0.0.1", Some(acceptor.http), Some("/gssapi/kerberos")).unwrap();
    target.credential =
        Credential::tickets(realm.kdc.principal("alice"), realm.source(), Some(Secret::new("Secret 1".into())));
    assert_eq!(open(&target).await.unwrap_err().code(), "auth.unavailable");
    // Without a password, or with Kerberos alone, it is said before anything is sent.
    target.auth = AuthKind::Kerberos;
    let error = open(&target).await.unwrap_err();
    assert_eq!((error.code(), error.is_unsent()), ("kerberos.host_is_address", true));
    target.auth = AuthKind::Negotiate;
    target.credential = Credential::tickets(realm.kdc.principal("alice"), realm.source(), None);
    assert_eq!(open(&target).await.unwrap_err().code(), "kerberos.host_is_address");
}

async fn open(target: &Target) -> Result<Connection, Error> {
    Connection::open(target, Instant::now() + Duration::from_secs(60)).await
}

/// Nothing, when there is no interpreter and none is required.
#[expect(clippy::print_stderr, reason = "a test that did not run must say so")]
fn python() -> Option<String> {
    let python = std::env::var("LICTOR_PEERS_PYTHON").ok();
    if python.is_none() {
        let required = std::env::var("LICTOR_PEERS").is_ok_and(|value| value == "required");
        assert!(!required, "LICTOR_PEERS=required, and LICTOR_PEERS_PYTHON names no interpreter");
        eprintln!("did not run: LICTOR_PEERS_PYTHON names no interpreter with pyspnego, gssapi and pypsrp");
    }
    python
}

/// A KDC with alice and the service of this host.
struct Realm {
    kdc: Kdc,
    keytab: std::path::PathBuf,
}

impl Realm {
    fn start(options: KdcOptions) -> Self {
        let kdc = Kdc::start_with("CORP.EXAMPLE", options).unwrap();
        kdc.add_password("alice", "Secret 1", &[]).unwrap();
        kdc.add_random("HTTP/localhost", &[]).unwrap();
        let keytab = kdc.path("http.keytab");
        kdc.keytab(&["HTTP/localhost"], &keytab).unwrap();
        Self { kdc, keytab }
    }

    fn source(&self) -> Arc<Source> {
        Arc::new(Source {
            conf: std::fs::read_to_string(self.kdc.krb5_conf()).unwrap(),
            realm: self.kdc.realm().to_owned(),
            host_realm: self.kdc.realm().to_owned(),
            refused: Mutex::default(),
        })
    }
}

/// Alice's tickets, new ones each time.
#[derive(Debug)]
struct Source {
    conf: String,
    realm: String,
    host_realm: String,
    refused: Mutex<Vec<String>>,
}

impl Source {
    async fn get(&self, request: TicketRequest<'_>) -> Result<Ticket, krb5::ClientError> {
        let conf = Krb5Conf::parse(&self.conf)?;
        let kdc = AsyncKdcClient::from_config(&conf, &self.realm).await?;
        let tgt = kdc.login_with_password(&Principal::new(1, ["alice"], &self.realm), "Secret 1").await?;
        let service = Principal::new(2, [request.service, request.host], &self.host_realm);
        let ticket = Arc::new(kdc.service_ticket(&tgt, &service).await?);
        let forwarded = if request.delegate { Some(Arc::new(kdc.forwarded_tgt(&tgt, None).await?)) } else { None };
        Ok(Ticket { ticket, forwarded })
    }
}

impl TicketSource for Source {
    fn ticket<'a>(
        &'a self,
        request: TicketRequest<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<Ticket, TicketError>> + Send + 'a>> {
        Box::pin(async move {
            self.get(request).await.map_err(|error| TicketError {
                kind: match error.kdc_code() {
                    Some(7) => TicketErrorKind::ServiceUnknown,
                    Some(_) => TicketErrorKind::Rejected,
                    None => TicketErrorKind::Other,
                },
                code: "kerberos.test",
                message: error.to_string(),
                cause: String::new(),
                remedy: String::new(),
                legacy_text: None,
            })
        })
    }
    fn identity(&self) -> [u8; 32] {
        [1; 32]
    }
    fn refused(&self, service: &str, host: &str) {
        self.refused.lock().unwrap().push(format!("{service}/{host}"));
    }
}

/// The acceptor, which ends with this value.
struct Acceptor {
    process: Child,
    lines: Receiver<String>,
    http: u16,
    https: u16,
    ca: String,
}

impl Acceptor {
    /// With a clock that is `ahead` seconds of ours.
    fn start(python: &str, kdc: &Kdc, keytab: &Path, ahead: Option<i64>) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/spnego/kerberos_acceptor.py");
        let mut command = kdc.command(python);
        command.arg(script).arg("HTTP@elsewhere").env("KRB5_KTNAME", keytab);
        if let Some(ahead) = ahead {
            let library = std::fs::read_dir("/usr/lib")
                .unwrap()
                .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketime.so.1")))
                .find(|path| path.is_file())
                .unwrap();
            command
                .env("LD_PRELOAD", library)
                .env("FAKETIME", format!("{ahead:+}s"))
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let ready: Value = serde_json::from_str(&lines.recv_timeout(Duration::from_secs(60)).unwrap()).unwrap();
        let port = |name: &str| ready[name].as_u64().unwrap().try_into().unwrap();
        let (http, https, ca) = (port("http"), port("https"), ready["ca"].as_str().unwrap().to_owned());
        Self { process, lines, http, https, ca }
    }

    /// What the acceptor tells of the next authenticated connection.
    fn evidence(&self) -> Value {
        let value: Value = serde_json::from_str(&self.lines.recv_timeout(Duration::from_secs(20)).unwrap()).unwrap();
        assert_eq!(value["event"], "authenticated", "{value}");
        value
    }

    /// Nothing more was told.
    fn is_quiet(&self) -> bool {
        self.lines.try_recv().is_err()
    }

    fn http(&self, path: &str, source: Arc<Source>) -> Target {
        target(Endpoint::new(Scheme::Http, HOST, Some(self.http), Some(path)).unwrap(), source)
    }

    fn https(&self, path: &str, source: Arc<Source>) -> Target {
        let mut target = target(Endpoint::new(Scheme::Https, HOST, Some(self.https), Some(path)).unwrap(), source);
        target.tls.ca_pem = Some(self.ca.clone());
        target
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn target(endpoint: Endpoint, source: Arc<Source>) -> Target {
    Target {
        endpoint,
        auth: AuthKind::Kerberos,
        credential: Credential::tickets(format!("alice@{}", source.realm), source, None),
        tls: TlsPolicy::default(),
        message_encryption: MessageEncryption::Auto,
        send_channel_bindings: true,
        allow_basic_over_http: false,
        kerberos: KerberosOptions::default(),
        shell: ShellProperties::default(),
        timeouts: Timeouts::default(),
    }
}
