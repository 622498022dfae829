//! The two documents of the issuer, as they are asked for from outside, kindly and otherwise.

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Server, get, within};

const DISCOVERY: &str = "/oidc/.well-known/openid-configuration";
const KEYS: &str = "/oidc/.well-known/jwks.json";

async fn issuing() -> Server {
    Server::start(&[("OIDC__ISSUER", "https://lictor.corp.example/oidc")]).await
}

/// Sends these bytes; the whole answer, as far as it is kept.
async fn send(server: &Server, request: &[u8]) -> String {
    let mut socket = TcpStream::connect(server.http_address).await.unwrap();
    // It may be cut off in the middle.
    let _ = within(socket.write_all(request)).await;
    let mut bytes = Vec::new();
    let _ = within(socket.read_to_end(&mut bytes)).await;
    String::from_utf8(bytes).unwrap()
}

async fn ask(server: &Server, method: &str, target: &str, headers: &str) -> String {
    let request = format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
    send(server, request.as_bytes()).await
}

fn body(answer: &str) -> Value {
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("cut off")
}

#[tokio::test]
async fn both_documents_are_served_and_may_be_cached() {
    let server = issuing().await;
    let answer = get(&server, DISCOVERY).await;
    let headers = answer.split_once("\r\n\r\n").unwrap().0.to_ascii_lowercase();
    for header in
        ["content-type: application/json", "cache-control: public, max-age=300", "x-content-type-options: nosniff"]
    {
        assert!(headers.contains(header), "{headers}");
    }
    let discovery = body(&answer);
    assert_eq!(discovery["issuer"], "https://lictor.corp.example/oidc");
    assert_eq!(discovery["jwks_uri"], format!("https://lictor.corp.example{KEYS}"));
    assert_eq!(discovery["id_token_signing_alg_values_supported"], serde_json::json!(["ES256"]));
    let keys = body(&get(&server, KEYS).await);
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
    assert_eq!(body(&get(&server, &format!("{KEYS}?x=1")).await), keys);
    let server = server.restart().await;
    assert_eq!(body(&get(&server, KEYS).await), keys, "the same key as before");
    server.stop().await;
}

#[tokio::test]
async fn without_an_issuer_there_is_nothing() {
    let server = Server::start(&[]).await;
    for path in [DISCOVERY, KEYS, "/.well-known/openid-configuration", "/.well-known/jwks.json"] {
        assert_eq!(status(&get(&server, path).await), "404", "{path}");
    }
    assert!(!server.state_dir().join("oidc-keys").exists());
    server.stop().await;
}

#[tokio::test]
async fn nothing_that_a_request_says_gets_into_a_document() {
    let server = issuing().await;
    let told = "X-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: http\r\nForwarded: host=evil.example\r\nX-Original-URL: /metrics\r\n";
    let plain = get(&server, DISCOVERY).await;
    for (target, host) in [
        (DISCOVERY.to_owned(), "evil.example"),
        (DISCOVERY.to_owned(), "lictor.corp.example:1@evil.example"),
        (format!("http://evil.example{DISCOVERY}"), "lictor.corp.example"),
        (format!("{DISCOVERY}?issuer=https://evil.example"), "lictor.corp.example"),
    ] {
        let answer = ask(&server, "GET", &target, &format!("Host: {host}\r\n{told}")).await;
        assert_eq!(body(&answer), body(&plain), "{target} {host}");
        assert!(!answer.contains("evil"), "{answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn other_paths_and_methods_find_nothing() {
    let server = issuing().await;
    for target in [
        "/.well-known/openid-configuration",
        "/.well-known/jwks.json",
        "/oidc",
        "/oidc/",
        "/oidc/metrics",
        "/oidc/.well-known",
        "/oidc/.well-known/",
        "/oidc/.well-known/jwks.json/",
        "/oidc/.well-known/JWKS.json",
        "/oidc//.well-known/jwks.json",
        "//oidc/.well-known/jwks.json",
        "/oidc/./.well-known/jwks.json",
        "/oidc/x/../.well-known/jwks.json",
        "/oidc/%2ewell-known/jwks.json",
        "/oidc%2f.well-known/jwks.json",
        "/oidc/.well-known/../../metrics",
        "/oidc/.well-known/%2e%2e/%2e%2e/metrics",
        "/oidc/.well-known/jwks.json%00",
        "/oidc/.well-known/oidc-keys",
        "/oidc-keys",
    ] {
        let answer = get(&server, target).await;
        assert_eq!(status(&answer), "404", "{target}: {answer}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW"] {
        let answer = ask(&server, method, KEYS, "Host: x\r\nContent-Length: 0\r\n").await;
        assert_eq!(status(&answer), "405", "{method}: {answer}");
        assert!(!answer.contains("kty"), "{answer}");
    }
    let head = ask(&server, "HEAD", KEYS, "Host: x\r\n").await;
    let whole = get(&server, KEYS).await;
    let length = whole.split_once("\r\n\r\n").unwrap().1.len();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(head.to_ascii_lowercase().contains(&format!("content-length: {length}\r\n")), "{head}");
    server.stop().await;
}

#[tokio::test]
async fn large_and_broken_requests_are_turned_away_and_the_next_is_served() {
    let server = issuing().await;
    let long = "x".repeat(1 << 20);
    let many: String = (0..2000).map(|number| format!("x-{number}: 1\r\n")).collect();
    for (what, request) in [
        ("a target", format!("GET {KEYS}?{long} HTTP/1.1\r\nHost: x\r\n\r\n")),
        ("a header", format!("GET {KEYS} HTTP/1.1\r\nHost: x\r\nx: {long}\r\n\r\n")),
        ("headers", format!("GET {KEYS} HTTP/1.1\r\nHost: x\r\n{many}\r\n")),
        ("a wrong length", format!("GET {KEYS} HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n")),
        ("two lengths", format!("GET {KEYS} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n")),
        ("no HTTP", "\u{0}\u{1}\u{2}\r\n\r\n".to_owned()),
    ] {
        let answer = send(&server, request.as_bytes()).await;
        assert!(
            !answer.contains("kty") && !answer.starts_with("HTTP/1.1 2") && answer.len() < 1024,
            "{what}: {answer}"
        );
    }
    // A body is not waited for, let alone read.
    let request = format!("POST {KEYS} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n");
    assert_eq!(status(&send(&server, request.as_bytes()).await), "405");
    body(&get(&server, KEYS).await);
    server.stop().await;
}
