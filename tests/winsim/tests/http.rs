//! The HTTP side of winsim, byte by byte: what HTTP.sys and WinRM answer to what is no proper request, and the administration.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use winsim::{Options, Scheme, Statistics, User, Winsim};

const IDENTIFY: &str = "<s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" \
     xmlns:wsmid=\"http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd\"><s:Header/><s:Body><wsmid:Identify/></s:Body></s:Envelope>";

fn options() -> Options {
    Options {
        users: vec![User::new("alice", "secret")],
        schemes: vec![Scheme::Negotiate, Scheme::Basic],
        ..Options::default()
    }
}

/// One request on a connection of its own; status and the whole answer.
async fn ask(address: SocketAddr, head: &str, body: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("{head}\r\nHost: host\r\nConnection: close\r\n\r\n{body}").as_bytes()).await?;
    let mut answer = Vec::new();
    tokio::time::timeout(std::time::Duration::from_secs(20), stream.read_to_end(&mut answer)).await??;
    let answer = String::from_utf8(answer)?;
    let status = answer.split(' ').nth(1).context("a status")?.parse()?;
    Ok((status, answer))
}

fn post(headers: &str, body: &str) -> String {
    let content = "Content-Type: application/soap+xml;charset=UTF-8";
    let separator = if headers.is_empty() { "" } else { "\r\n" };
    format!("POST /wsman HTTP/1.1\r\n{content}\r\nContent-Length: {}{separator}{headers}", body.len())
}

fn basic(password: &str) -> String {
    format!("Authorization: Basic {}", BASE64.encode(format!("alice:{password}")))
}

#[tokio::test]
async fn what_is_no_request_gets_its_status() -> Result<()> {
    let host = Winsim::start(Options { allow_unencrypted: true, ..options() }).await?;
    let address = host.address();
    let (status, answer) = ask(address, "GET / HTTP/1.1", "").await?;
    assert_eq!(status, 404);
    assert!(answer.contains("Server: Microsoft-HTTPAPI/2.0\r\n"), "{answer}");
    assert_eq!(ask(address, "GET /wsman HTTP/1.1", "").await?.0, 405);
    let (status, answer) = ask(address, &post("", IDENTIFY), IDENTIFY).await?;
    assert_eq!(status, 401);
    assert!(answer.contains("Negotiate\r\n") && answer.contains("Basic realm=\"WSMAN\"\r\n"), "{answer}");
    assert_eq!(host.statistics().violation_count, 0);
    assert_eq!(host.statistics().authentication.legs, 1);

    let authorization = basic("secret");
    let chunked = format!("POST /wsman HTTP/1.1\r\nTransfer-Encoding: chunked\r\n{authorization}");
    assert_eq!(ask(address, &chunked, "0\r\n\r\n").await?.0, 411);
    let text = post(&authorization, IDENTIFY).replace("application/soap+xml", "text/xml");
    assert_eq!(ask(address, &text, IDENTIFY).await?.0, 415);
    let large = format!("POST /wsman HTTP/1.1\r\nContent-Length: 100000000\r\n{authorization}");
    assert_eq!(ask(address, &large, "").await?.0, 413);
    let sealed = "POST /wsman HTTP/1.1\r\nContent-Length: 1\r\nContent-Type: multipart/encrypted;protocol=\"x\"";
    let (status, answer) = ask(address, sealed, "x").await?;
    assert!(status == 400 && answer.ends_with("\r\n\r\n"), "an empty body: {answer}");
    let (status, answer) = ask(address, &post(&authorization, "<a/>"), "<a/>").await?;
    assert!(status == 500 && answer.contains("Code=\"2150858817\""), "{answer}");
    assert_eq!(host.statistics().violation_count, 5, "{:?}", host.statistics().violations);
    host.stop().await;
    Ok(())
}

#[tokio::test]
async fn identify_tells_strangers_less() -> Result<()> {
    let host = Winsim::start(Options { allow_unencrypted: true, ..options() }).await?;
    let (status, answer) = ask(host.address(), &post("WSMANIDENTIFY: unauthenticated", IDENTIFY), IDENTIFY).await?;
    assert!(status == 200 && answer.contains("OS: 0.0.0 SP: 0.0 Stack: 3.0"), "{answer}");
    let (status, answer) = ask(host.address(), &post(&basic("secret"), IDENTIFY), IDENTIFY).await?;
    assert!(status == 200 && answer.contains("OS: 10.0.14393"), "{answer}");
    assert_eq!(host.statistics().operations.get("Identify"), Some(&2));
    Ok(())
}

#[tokio::test]
async fn wrong_passwords_and_plain_bodies_are_refused() -> Result<()> {
    let host = Winsim::start(Options { allow_unencrypted: true, ..options() }).await?;
    assert_eq!(ask(host.address(), &post(&basic("wrong"), IDENTIFY), IDENTIFY).await?.0, 401);
    assert_eq!(host.statistics().authentication.failed_logons.get("alice"), Some(&1));
    // A host that wants sealed messages does not even look at Basic over HTTP.
    let strict = Winsim::start(options()).await?;
    assert_eq!(ask(strict.address(), &post(&basic("secret"), IDENTIFY), IDENTIFY).await?.0, 401);
    assert_eq!(strict.statistics().violation_count, 1);
    Ok(())
}

#[tokio::test]
async fn the_statistics_are_served_and_reset() -> Result<()> {
    let host = Winsim::start(options()).await?;
    ask(host.address(), "GET /wsman HTTP/1.1", "").await?;
    let (status, answer) = ask(host.admin_address(), "GET /statistics HTTP/1.1", "").await?;
    assert_eq!(status, 200);
    let (_, body) = answer.split_once("\r\n\r\n").context("a body")?;
    let statistics: Statistics = serde_json::from_str(body)?;
    assert_eq!((statistics.connections.opened, statistics.exchanges.len()), (1, 1));
    assert_eq!(ask(host.admin_address(), "POST /reset HTTP/1.1\r\nContent-Length: 0", "").await?.0, 204);
    assert_eq!(host.statistics().exchanges.len(), 0);
    let (status, answer) = ask(host.admin_address(), "GET /shells HTTP/1.1", "").await?;
    assert!(status == 200 && answer.ends_with("[]"), "{answer}");
    Ok(())
}
