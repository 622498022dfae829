//! Against scripted servers on loopback. Authentication and sealing as such are judged elsewhere: `tests/spnego_peer.rs`.

use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::Arc;

use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::ssl::{Ssl, SslAcceptor, SslMethod, SslVersion};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Name};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::auth::kerberos::TicketErrorKind;
use crate::auth::kerberos::minted::Source;
use crate::target::{Credential, Endpoint, KerberosOptions, Secret, ShellProperties, Timeouts, TlsPolicy};

const READ: Duration = Duration::from_secs(10);
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/soap+xml\r\nContent-Length: 4\r\n\r\n<a/>";

fn target(scheme: Scheme, host: &str, port: u16, auth: AuthKind) -> Target {
    Target {
        endpoint: Endpoint::new(scheme, host, Some(port), None).unwrap(),
        auth,
        credential: Credential::password("CORP\\alice", Secret::new("Secret-1".into())),
        tls: TlsPolicy::default(),
        message_encryption: MessageEncryption::Auto,
        send_channel_bindings: true,
        allow_basic_over_http: true,
        kerberos: KerberosOptions::default(),
        shell: ShellProperties::default(),
        timeouts: Timeouts::default(),
    }
}

/// The same user with tickets for this host.
fn with_tickets(target: &mut Target, source: &Arc<Source>, password: Option<&str>) {
    let password = password.map(|password| Secret::new(password.to_owned()));
    target.credential = Credential::tickets("alice@CORP.EXAMPLE", Arc::<Source>::clone(source), password);
    target.kerberos.spn_host = Some("win01".into());
}

fn soon() -> Instant {
    Instant::now() + READ
}

async fn serve<F, Fut>(script: F) -> (u16, JoinHandle<Fut::Output>)
where
    F: FnOnce(TcpListener) -> Fut,
    Fut: Future<Output: Send> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (port, tokio::spawn(script(listener)))
}

/// A server that answers each request on one connection with the next of `answers`, then waits for the end: what it read.
async fn scripted(answers: Vec<String>) -> (u16, JoinHandle<Vec<String>>) {
    serve(|listener| async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut requests = Vec::new();
        for answer in answers {
            requests.push(request(&mut stream).await);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        requests.push(String::from_utf8_lossy(&rest).into_owned());
        requests
    })
    .await
}

async fn request(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(read[..end].to_vec()).unwrap().to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("Content-Length");
            if read.len() >= end + 4 + length.parse::<usize>().unwrap() {
                return String::from_utf8(read).unwrap();
            }
        }
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "the client went away");
    }
}

async fn basic(answers: &[&str]) -> (Connection, JoinHandle<Vec<String>>) {
    let (port, server) = scripted(answers.iter().map(|answer| (*answer).to_owned()).collect()).await;
    let target = target(Scheme::Http, "127.0.0.1", port, AuthKind::Basic);
    (Connection::open(&target, soon()).await.unwrap(), server)
}

#[tokio::test]
async fn basic_travels_with_each_request_on_one_connection() {
    let (mut connection, server) = basic(&[OK, OK]).await;
    for _ in 0..2 {
        let answer = connection.exchange(Bytes::from_static(b"<q/>"), READ).await.unwrap();
        assert_eq!(answer, Answer { status: 200, body: Bytes::from_static(b"<a/>") });
    }
    assert_eq!((connection.exchanges(), connection.info().sealed, connection.info().auth), (2, false, "basic"));
    assert_eq!(connection.info().warnings.len(), 1);
    assert!(!format!("{connection:?}").contains("U2VjcmV0"));
    drop(connection);
    let requests = server.await.unwrap();
    assert_eq!((requests.len(), requests[2].as_str()), (3, ""));
    for request in &requests[..2] {
        assert!(request.starts_with("POST /wsman HTTP/1.1\r\n") && request.ends_with("\r\n\r\n<q/>"), "{request}");
        assert!(request.contains("authorization: Basic Q09SUFxhbGljZTpTZWNyZXQtMQ==\r\n"), "{request}");
        assert!(request.contains("content-type: application/soap+xml;charset=UTF-8\r\n"), "{request}");
    }
}

#[tokio::test]
async fn a_rejected_password_and_a_mechanism_that_is_not_offered() {
    let rejected = "HTTP/1.1 401 \r\nWWW-Authenticate: Negotiate\r\nWWW-Authenticate: Kerberos, Basic realm=\"WSMAN\"\r\nContent-Length: 0\r\n\r\n";
    let (mut connection, _server) = basic(&[rejected]).await;
    let error = connection.exchange(Bytes::new(), READ).await.unwrap_err();
    assert!(error.credential_rejected() && !connection.is_usable());
    assert_eq!((error.stage(), error.code()), (Stage::Authenticate, "auth.rejected"));

    let other = "HTTP/1.1 401 \r\nWWW-Authenticate: Negotiate, CredSSP\r\nContent-Length: 0\r\n\r\n";
    let (mut connection, _server) = basic(&[other]).await;
    let error = connection.exchange(Bytes::new(), READ).await.unwrap_err();
    assert!(!error.credential_rejected());
    assert_eq!(error.to_string(), "the host does not offer Basic authentication; it offers Negotiate, CredSSP");
}

#[tokio::test]
async fn settings_that_contradict_each_other_send_nothing() {
    // Nothing listens on port 1: an attempt to connect would fail differently.
    let mut basic = target(Scheme::Http, "127.0.0.1", 1, AuthKind::Basic);
    basic.allow_basic_over_http = false;
    let error = Connection::open(&basic, soon()).await.unwrap_err();
    assert_eq!((error.code(), error.is_unsent()), ("auth.basic_over_http", true));
    let mut sealed = target(Scheme::Https, "127.0.0.1", 1, AuthKind::Basic);
    sealed.message_encryption = MessageEncryption::Always;
    let error = Connection::open(&sealed, soon()).await.unwrap_err();
    assert_eq!((error.code(), error.is_unsent()), ("auth.encryption_impossible", true));
}

#[tokio::test]
async fn statuses_that_are_no_answer_end_the_connection() {
    for (answer, code) in [
        ("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "http.status"),
        ("HTTP/1.1 400 \r\nContent-Length: 0\r\n\r\n", "http.bad_request"),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "http.forbidden"),
        ("HTTP/1.1 503 \r\nContent-Length: 2\r\n\r\nno", "http.unavailable"),
        ("HTTP/1.1 200 \r\nContent-Type: multipart/encrypted\r\nContent-Length: 2\r\n\r\nno", "http.unexpected"),
        ("HTTP/1.1 200 \r\nContent-Length: 5000000000\r\n\r\nno", "soap.too_large"),
        ("HTTP/9.9 what\r\n\r\n", "http.protocol"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "http.protocol"),
    ] {
        let (mut connection, _server) = basic(&[answer]).await;
        let error = connection.exchange(Bytes::from_static(b"x"), READ).await.unwrap_err();
        assert_eq!((error.code(), error.is_unsent()), (code, false), "{answer}: {}", error.report());
        assert!(!connection.is_usable());
    }
}

#[tokio::test]
async fn endless_bodies_and_header_fields_are_cut_off() {
    for endless in [
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            format!("10000\r\n{}\r\n", "x".repeat(65536)).repeat(80)
        ),
        format!("HTTP/1.1 200 OK\r\n{}", "X-Field: value\r\n".repeat(50_000)),
    ] {
        let (port, server) = serve(|listener| async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            request(&mut stream).await;
            let _ = stream.write_all(endless.as_bytes()).await;
        })
        .await;
        let mut connection =
            Connection::open(&target(Scheme::Http, "127.0.0.1", port, AuthKind::Basic), soon()).await.unwrap();
        let error = connection.exchange(Bytes::from_static(b"x"), READ).await.unwrap_err();
        assert!(["soap.too_large", "http.protocol"].contains(&error.code()), "{}", error.report());
        server.await.unwrap();
    }
}

#[tokio::test]
async fn unsent_and_in_doubt_are_told_apart() {
    // The host closes an idle connection: nothing is sent.
    let (port, server) = serve(|listener| async move { drop(listener.accept().await.unwrap()) }).await;
    let mut connection =
        Connection::open(&target(Scheme::Http, "127.0.0.1", port, AuthKind::Basic), soon()).await.unwrap();
    server.await.unwrap();
    while connection.is_usable() {
        tokio::task::yield_now().await;
    }
    let error = connection.exchange(Bytes::from_static(b"x"), READ).await.unwrap_err();
    assert_eq!((error.code(), error.is_unsent(), connection.exchanges()), ("connection.closed", true, 0));

    // The host takes the request and closes.
    let (port, _server) = serve(|listener| async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
    })
    .await;
    let mut connection =
        Connection::open(&target(Scheme::Http, "127.0.0.1", port, AuthKind::Basic), soon()).await.unwrap();
    let error = connection.exchange(Bytes::from_static(b"x"), READ).await.unwrap_err();
    assert_eq!((error.code(), error.is_unsent()), ("connection.closed", false));
}

#[tokio::test]
async fn an_answer_may_be_the_last_one() {
    let last = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\n<a/>";
    let (mut connection, _server) = basic(&[last]).await;
    assert_eq!(connection.exchange(Bytes::from_static(b"x"), READ).await.unwrap().status, 200);
    assert!(!connection.is_usable());
    let error = connection.exchange(Bytes::from_static(b"x"), READ).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ConnectionClosed) && error.is_unsent());
}

#[tokio::test]
async fn a_dropped_exchange_closes_the_socket() {
    let (port, server) = serve(|listener| async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.map(|_| rest)
    })
    .await;
    let mut connection =
        Connection::open(&target(Scheme::Http, "127.0.0.1", port, AuthKind::Basic), soon()).await.unwrap();
    let dropped = tokio::time::timeout(Duration::from_millis(100), connection.exchange(Bytes::from_static(b"x"), READ));
    assert!(dropped.await.is_err());
    assert!(!connection.is_usable());
    // The value still lives, the socket does not.
    assert!(server.await.unwrap().is_ok_and(|rest| rest.is_empty()));
    let error = connection.exchange(Bytes::from_static(b"x"), READ).await.unwrap_err();
    assert_eq!((error.code(), error.is_unsent()), ("connection.unusable", true));
}

#[tokio::test]
async fn identify_goes_first_and_without_credentials() {
    let (port, server) = scripted(vec![OK.to_owned(), OK.to_owned()]).await;
    let target = target(Scheme::Http, "127.0.0.1", port, AuthKind::Basic);
    let addresses = resolve(&target.endpoint, soon()).await.unwrap();
    let socket = dial(&target.endpoint, &addresses, soon()).await.unwrap();
    let transport = socket.secure(&target, soon()).await.unwrap();
    let mut candidate = transport.start(&target).await.unwrap();
    assert_eq!(candidate.identify(Bytes::from_static(b"<i/>"), READ).await.unwrap().body, "<a/>");
    let mut connection = candidate.authenticate(&target, soon()).await.unwrap();
    connection.exchange(Bytes::from_static(b"<q/>"), READ).await.unwrap();
    assert_eq!(connection.exchanges(), 2);
    drop(connection);
    let requests = server.await.unwrap();
    assert!(requests[0].contains("wsmanidentify: unauthenticated\r\n") && !requests[0].contains("authorization"));
    assert!(requests[1].contains("authorization: Basic") && !requests[1].contains("wsmanidentify"));
}

#[tokio::test]
async fn a_host_is_connected_to_at_permitted_addresses_only() {
    use crate::target::Networks;
    let networks = |allow: &[&str], deny: &[&str]| Networks {
        allow: (!allow.is_empty()).then(|| allow.iter().map(|text| text.parse().unwrap()).collect()),
        deny: deny.iter().map(|text| text.parse().unwrap()).collect(),
    };
    let endpoint = |host: &str| target(Scheme::Http, host, 5985, AuthKind::Basic).endpoint;
    for host in ["localhost", "127.0.0.1", "::ffff:127.0.0.1"] {
        for networks in [networks(&["10.0.0.0/8"], &[]), networks(&[], &["127.0.0.0/8", "::1"])] {
            let error = resolve(&endpoint(host).within(networks), soon()).await.unwrap_err();
            assert_eq!((error.code(), error.is_unsent()), ("resolve.forbidden", true), "{host}");
        }
        resolve(&endpoint(host).within(networks(&["127.0.0.0/8", "::1"], &["10.0.0.0/8"])), soon()).await.unwrap();
    }
    // Only what is permitted is left of a name's addresses.
    let found = resolve(&endpoint("localhost").within(networks(&["127.0.0.0/8"], &[])), soon()).await.unwrap();
    assert!(found.iter().all(SocketAddr::is_ipv4), "{found:?}");
    // Sessions under other rules are not shared.
    assert_ne!(endpoint("h"), endpoint("h").within(networks(&[], &["10.0.0.0/8"])));
}

#[tokio::test]
async fn handshakes_that_go_wrong_before_the_credential_is_used() {
    for (answer, code) in [
        ("401 \r\nWWW-Authenticate: Basic realm=\"x\"\r\n", "auth.unavailable"),
        ("401 \r\nWWW-Authenticate: Negotiate\r\n", "auth.handshake"),
        ("401 \r\nWWW-Authenticate: Negotiate TlRMTVNTUAA=\r\n", "auth.handshake"),
        ("401 \r\nWWW-Authenticate: Negotiate abc\r\n", "auth.handshake"),
        ("200 \r\n", "auth.handshake"),
        ("404 \r\n", "http.not_found"),
    ] {
        for auth in [AuthKind::Ntlm, AuthKind::Negotiate] {
            let (port, server) = scripted(vec![format!("HTTP/1.1 {answer}Content-Length: 0\r\n\r\n")]).await;
            let error = Connection::open(&target(Scheme::Http, "127.0.0.1", port, auth), soon()).await.unwrap_err();
            assert_eq!((error.stage(), error.code()), (Stage::Authenticate, code), "{answer}: {}", error.report());
            assert!(!error.credential_rejected());
            let requests = server.await.unwrap();
            assert!(requests[0].to_lowercase().contains("content-length: 0\r\n"));
            assert_eq!((requests.len(), requests[1].as_str()), (2, ""));
        }
    }
}

#[tokio::test]
async fn a_silent_host_is_given_up() {
    let (port, _server) = serve(|listener| async move {
        let held = listener.accept().await.unwrap();
        std::future::pending::<()>().await;
        drop(held);
    })
    .await;
    let mut http = target(Scheme::Http, "127.0.0.1", port, AuthKind::Ntlm);
    http.timeouts.read = Duration::from_millis(100);
    let error = Connection::open(&http, soon()).await.unwrap_err();
    assert_eq!((error.stage(), error.code()), (Stage::Authenticate, "timeout.read"));
    let error = Connection::open(&http, Instant::now() + Duration::from_millis(50)).await.unwrap_err();
    assert_eq!((error.stage(), error.code()), (Stage::Authenticate, "timeout.deadline"));
    let mut https = target(Scheme::Https, "127.0.0.1", port, AuthKind::Ntlm);
    https.timeouts.connect = Duration::from_millis(100);
    let error = Connection::open(&https, soon()).await.unwrap_err();
    assert_eq!((error.stage(), error.code()), (Stage::Tls, "tls.timeout"));
}

#[tokio::test]
async fn hosts_that_cannot_be_reached() {
    let unused = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port();
    let error = Connection::open(&target(Scheme::Http, "127.0.0.1", unused, AuthKind::Ntlm), soon()).await.unwrap_err();
    assert_eq!((error.stage(), error.code(), error.is_unsent()), (Stage::Connect, "connect.refused", true));
    let error = Connection::open(&target(Scheme::Http, "host.invalid", 1, AuthKind::Ntlm), soon()).await.unwrap_err();
    assert_eq!((error.stage(), error.code(), error.is_unsent()), (Stage::Resolve, "resolve.failed", true));

    // The second address answers though the first refuses.
    let (port, _server) = scripted(vec![]).await;
    let endpoint = Endpoint::new(Scheme::Http, "localhost", Some(port), None).unwrap();
    let addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, unused)), SocketAddr::from((Ipv4Addr::LOCALHOST, port))];
    assert_eq!(dial(&endpoint, &addresses, soon()).await.unwrap().peer(), addresses[1]);
}

/// A certificate for `names`, signed by itself, and its PEM.
fn certificate(names: &[&str], days: (i64, i64)) -> (X509, PKey<Private>, String) {
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_text("CN", "the host").unwrap();
    let name = name.build();
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    let at = |days: i64| Asn1Time::from_unix(now + days * 24 * 60 * 60).unwrap();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(&name).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.set_not_before(&at(days.0)).unwrap();
    builder.set_not_after(&at(days.1)).unwrap();
    builder.append_extension(BasicConstraints::new().ca().build().unwrap()).unwrap();
    let mut alternatives = SubjectAlternativeName::new();
    for name in names {
        if name.parse::<std::net::IpAddr>().is_ok() {
            alternatives.ip(name)
        } else {
            alternatives.dns(name)
        };
    }
    let extension = alternatives.build(&builder.x509v3_context(None, None)).unwrap();
    builder.append_extension(extension).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    let certificate = builder.build();
    let pem = String::from_utf8(certificate.to_pem().unwrap()).unwrap();
    (certificate, key, pem)
}

/// A TLS server for one connection, which answers one request.
async fn tls_server(certificate: X509, key: PKey<Private>, version: SslVersion) -> u16 {
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    acceptor.set_min_proto_version(None).unwrap();
    acceptor.set_max_proto_version(Some(version)).unwrap();
    acceptor.set_certificate(&certificate).unwrap();
    acceptor.set_private_key(&key).unwrap();
    let acceptor = acceptor.build();
    let (port, _server) = serve(|listener| async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let ssl = Ssl::new(acceptor.context()).unwrap();
        let mut stream = tokio_openssl::SslStream::<TcpStream>::new(ssl, tcp).unwrap();
        if std::pin::Pin::new(&mut stream).accept().await.is_ok() {
            request(&mut stream).await;
            stream.write_all(OK.as_bytes()).await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    port
}

#[tokio::test]
async fn certificates_are_checked_by_authority_name_and_time() {
    let good = certificate(&["localhost", "127.0.0.1"], (-1, 1));
    let elsewhere = certificate(&["other.example", "10.0.0.1"], (-1, 1));
    let expired = certificate(&["localhost", "127.0.0.1"], (-3, -1));
    let early = certificate(&["localhost", "127.0.0.1"], (1, 3));
    for (shown, host, trusted, code) in [
        (&good, "localhost", Some(&good), None),
        (&good, "LOCALHOST", Some(&good), None),
        (&good, "127.0.0.1", Some(&good), None),
        (&good, "localhost", Some(&elsewhere), Some("tls.untrusted")),
        (&good, "localhost", None, Some("tls.untrusted")),
        (&elsewhere, "localhost", Some(&elsewhere), Some("tls.hostname")),
        (&elsewhere, "127.0.0.1", Some(&elsewhere), Some("tls.hostname")),
        (&expired, "localhost", Some(&expired), Some("tls.expired")),
        (&early, "localhost", Some(&early), Some("tls.expired")),
    ] {
        let port = tls_server(shown.0.clone(), shown.1.clone(), SslVersion::TLS1_3).await;
        let mut target = target(Scheme::Https, host, port, AuthKind::Basic);
        target.tls.ca_pem = trusted.map(|(_, _, pem)| pem.clone());
        match (Connection::open(&target, soon()).await, code) {
            (Ok(mut connection), None) => {
                let tls = connection.info().tls.clone().unwrap();
                assert_eq!(
                    (tls.version.as_str(), tls.subject.as_str(), tls.unchecked),
                    ("TLSv1.3", "CN=the host", None)
                );
                assert_eq!(connection.exchange(Bytes::from_static(b"x"), READ).await.unwrap().body, "<a/>");
            }
            (Err(error), Some(code)) => {
                assert_eq!((error.stage(), error.code()), (Stage::Tls, code), "{host}: {}", error.report());
            }
            (outcome, code) => panic!("{host}: {outcome:?}, expected {code:?}"),
        }

        target.endpoint = Endpoint::new(
            Scheme::Https,
            host,
            Some(tls_server(shown.0.clone(), shown.1.clone(), SslVersion::TLS1_2).await),
            None,
        )
        .unwrap();
        target.tls.skip_certificate_check = true;
        let mut connection = Connection::open(&target, soon()).await.unwrap();
        assert_eq!(connection.info().warnings.len(), 1);
        assert!(connection.info().tls.as_ref().is_some_and(|tls| tls.version == "TLSv1.2" && tls.unchecked.is_some()));
        assert_eq!(connection.exchange(Bytes::from_static(b"x"), READ).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn what_is_no_modern_tls_is_named() {
    let (shown, key, pem) = certificate(&["localhost"], (-1, 1));
    let port = tls_server(shown, key, SslVersion::TLS1_1).await;
    let mut old = target(Scheme::Https, "localhost", port, AuthKind::Basic);
    old.tls.ca_pem = Some(pem);
    let error = Connection::open(&old, soon()).await.unwrap_err();
    assert_eq!(error.code(), "tls.protocol", "{}", error.report());

    let (port, _server) = serve(|listener| async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let plain = target(Scheme::Https, "localhost", port, AuthKind::Basic);
    let error = Connection::open(&plain, soon()).await.unwrap_err();
    assert_eq!(error.code(), "tls.protocol", "{}", error.report());
    assert!(error.to_string().contains("the answer is not TLS"));
}

#[tokio::test]
async fn authorities_that_are_none_are_a_mistake_in_the_settings() {
    for pem in ["", "not a certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let (port, _server) = scripted(vec![]).await;
        let mut target = target(Scheme::Https, "localhost", port, AuthKind::Basic);
        target.tls.ca_pem = Some(pem.to_owned());
        let error = Connection::open(&target, soon()).await.unwrap_err();
        assert_eq!((error.stage(), error.code()), (Stage::Tls, "tls.settings"), "{pem}");
    }
}

fn unauthorized(schemes: &str) -> String {
    format!("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {schemes}\r\nContent-Length: 0\r\n\r\n")
}

#[tokio::test]
async fn kerberos_goes_inside_spnego_and_else_as_it_is_on_the_same_connection() {
    let (port, server) = scripted(vec![unauthorized("Kerberos, Basic realm=\"x\""), unauthorized("Kerberos")]).await;
    let source = Arc::new(Source::of(["HTTP", "win01"]));
    let mut target = target(Scheme::Http, "127.0.0.1", port, AuthKind::Kerberos);
    with_tickets(&mut target, &source, Some("Secret-1"));
    let error = Connection::open(&target, soon()).await.unwrap_err();
    assert_eq!((error.stage(), error.code()), (Stage::Authenticate, "auth.ticket_refused"));
    assert_eq!(error.legacy_text(), Some("kerberos: the specified credentials were rejected by the server"));
    assert!(!error.credential_rejected() && !error.is_unsent());
    // One ticket for both, and the source is told once that it was of no use.
    assert_eq!(*source.asked.lock().unwrap(), ["HTTP/win01"]);
    assert_eq!(*source.refused.lock().unwrap(), ["HTTP/win01"]);
    let requests = server.await.unwrap();
    assert!(requests[0].contains("authorization: Negotiate YI"), "{requests:?}");
    assert!(requests[1].contains("authorization: Kerberos YI"), "{requests:?}");
}

#[tokio::test]
async fn a_host_without_kerberos_is_told_apart_and_ntlm_is_never_tried_for_it() {
    for (auth, schemes, code) in [
        (AuthKind::Kerberos, "Basic realm=\"x\"", "auth.unavailable"),
        (AuthKind::Negotiate, "Kerberos", "auth.unavailable"),
        (AuthKind::Kerberos, "Negotiate", "auth.ticket_refused"),
        // NegTokenResp: accept-incomplete, NTLM.
        (AuthKind::Kerberos, "Negotiate oRUwE6ADCgEBoQwGCisGAQQBgjcCAgo=", "auth.ticket_other_mechanism"),
        (AuthKind::Negotiate, "Negotiate oRUwE6ADCgEBoQwGCisGAQQBgjcCAgo=", "auth.ticket_other_mechanism"),
    ] {
        let (port, server) = scripted(vec![unauthorized(schemes)]).await;
        let source = Arc::new(Source::of(["HTTP", "win01"]));
        let mut target = target(Scheme::Http, "127.0.0.1", port, auth);
        with_tickets(&mut target, &source, Some("Secret-1"));
        let error = Connection::open(&target, soon()).await.unwrap_err();
        assert_eq!(error.code(), code, "{schemes}: {}", error.report());
        assert!(!error.credential_rejected());
        let requests = server.await.unwrap();
        assert!(!requests[1..].concat().contains("uthorization"), "{requests:?}");
    }
}

#[tokio::test]
async fn ntlm_takes_over_only_when_there_is_no_ticket_and_nobody_refused_one() {
    for (kind, password, begins) in [
        (TicketErrorKind::Unavailable, Some("Secret-1"), true),
        (TicketErrorKind::Unavailable, None, false),
        (TicketErrorKind::Rejected, Some("Secret-1"), false),
        (TicketErrorKind::ServiceUnknown, Some("Secret-1"), false),
        (TicketErrorKind::Other, Some("Secret-1"), false),
    ] {
        for auth in [AuthKind::Negotiate, AuthKind::Kerberos] {
            let begins = begins && auth == AuthKind::Negotiate;
            let (port, server) = scripted(if begins { vec![unauthorized("Negotiate")] } else { Vec::new() }).await;
            let mut target = target(Scheme::Http, "127.0.0.1", port, auth);
            with_tickets(&mut target, &Arc::new(Source::failing(kind)), password);
            let error = Connection::open(&target, soon()).await.unwrap_err();
            if begins {
                assert_eq!(error.code(), "auth.handshake");
            } else {
                assert_eq!((error.code(), error.is_unsent()), ("kerberos.test", true));
                assert_eq!(error.credential_rejected(), kind == TicketErrorKind::Rejected);
            }
            let requests = server.await.unwrap().concat();
            // NTLMSSP inside SPNEGO.
            assert_eq!(requests.contains("authorization: Negotiate YE"), begins, "{requests}");
        }
    }
}

#[tokio::test]
async fn a_ticket_that_is_too_long_for_the_host_is_not_a_mystery() {
    let (port, _server) = scripted(vec!["HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_owned()]).await;
    let mut source = Source::of(["HTTP", "win01"]);
    let long = Arc::make_mut(&mut source.known[0].1.ticket);
    long.ticket = vec![0; 20_000];
    let mut target = target(Scheme::Http, "127.0.0.1", port, AuthKind::Kerberos);
    with_tickets(&mut target, &Arc::new(source), None);
    let error = Connection::open(&target, soon()).await.unwrap_err();
    assert_eq!(error.code(), "auth.ticket_too_large");
    assert!(error.remedy().contains("MaxFieldLength"));
}
