//! Peers that mean harm, on every port: silent ones by the thousand, malformed and oversized messages, resets, floods.
//! They are refused and counted, memory stays bounded, and the work of others goes on meanwhile.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use lictor_tests::{Output, Stack, eventually};
use openssl::ssl::{SslConnector, SslMethod, SslStream, SslVerifyMode};

use crate::{FINAL, PATIENCE, ntlm_host};

/// What the control plane may grow by under any of this.
const MORE_MEMORY_KIB: u64 = 128 * 1024;

fn tls(address: &str) -> Result<SslStream<TcpStream>> {
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_alpn_protos(b"\x02h2")?;
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut configuration = builder.build().configure()?;
    configuration.set_verify_hostname(false);
    Ok(configuration.connect("localhost", socket)?)
}

fn work(stack: &Stack) -> Result<()> {
    let task_id = stack.submit(&["--host", "127.0.0.1", "--credential", "ntlm", "--", "hostname"])?;
    let task = stack.task_in(&task_id, FINAL, PATIENCE)?;
    anyhow::ensure!(task["state"] == "succeeded", "{task:#}");
    Ok(())
}

/// A figure of the control plane's metrics; 0 when it is not there yet.
fn figure(stack: &Stack, name: &str) -> Result<u64> {
    let (status, page) = stack.control_plane.get("/metrics")?;
    anyhow::ensure!(status == 200, "metrics answered {status}");
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.map_or(Ok(0), str::parse)?)
}

fn refused(stack: &Stack, reason: &str) -> Result<u64> {
    figure(stack, &format!("control_plane_connections_refused_total{{reason=\"{reason}\"}}"))
}

#[test]
fn silent_connections_by_the_thousand_are_bounded_counted_and_ended() -> Result<()> {
    let stack = Stack::start(&[("LICTOR_CONTROL_PLANE_CONNECTIONS__PER_SOURCE", "900")])?;
    let agent = stack.agent("agent-1", &[])?;
    let _windows = ntlm_host(&stack)?;
    work(&stack)?;
    let before = stack.control_plane.process.memory_kib("VmHWM")?;
    let address: SocketAddr = stack.control_plane.address.parse()?;
    // Some are through their TLS handshake when they fall silent, so that only silence itself can end them.
    let spoken: Vec<_> = (0..300).map(|_| tls(&stack.control_plane.address)).collect::<Result<_>>()?;
    // More than one address may have. On a busy machine the first are ended before the last have come; so that they go on coming.
    let mut silent = Vec::new();
    eventually("those above the bound are refused", 2 * PATIENCE, || {
        for _ in 0..500 {
            silent.push(TcpStream::connect_timeout(&address, PATIENCE)?);
        }
        // The command line of this very test may have been refused, too; it is not asked here.
        let count = refused(&stack, "source")?;
        anyhow::ensure!(count >= 1000, "{count} of {} were refused", silent.len());
        Ok(())
    })?;
    let open = figure(&stack, "control_plane_connections_open")?;
    assert!(open <= 910, "{open} connections are open");
    // The agent's session was there before and stays.
    assert_eq!(figure(&stack, "control_plane_agents_connected")?, 1);
    eventually("the handshakes that do not go on are ended", PATIENCE, || {
        let count = refused(&stack, "silent")?;
        anyhow::ensure!(count >= 590, "{count} were ended");
        Ok(())
    })?;
    // With 300 of them still there, others work.
    work(&stack)?;
    eventually("silence ends the others", PATIENCE, || {
        let open = figure(&stack, "control_plane_connections_open")?;
        anyhow::ensure!(open < 10, "{open} are open");
        Ok(())
    })?;
    work(&stack)?;
    assert_eq!(figure(&stack, "control_plane_agents_connected")?, 1);
    report_memory(&stack, "thousands of silent connections", before)?;
    drop((spoken, silent, agent));
    Ok(())
}

fn report_memory(stack: &Stack, what: &str, before: u64) -> Result<()> {
    let after = stack.control_plane.process.memory_kib("VmHWM")?;
    #[expect(clippy::print_stderr, reason = "a figure for whoever runs the test with --no-capture")]
    {
        eprintln!("{what}: the control plane's peak memory went from {before} KiB to {after} KiB");
    }
    anyhow::ensure!(after <= before + MORE_MEMORY_KIB, "{what}: from {before} KiB to {after} KiB");
    Ok(())
}

/// One HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block of literals, none of them compressed.
fn headers(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in pairs {
        block.push(0);
        for text in [name, value] {
            // Lengths below 127 take one byte.
            block.push(u8::try_from(text.len()).unwrap_or(126).min(126));
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

fn call(path: &str) -> Vec<u8> {
    headers(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ])
}

const LONG: &str =
    "a value that is long enough to fill a header list of sixteen kibibytes in two hundred times, and then some";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

/// Reads to the end; the error code of the GOAWAY, if one came.
fn goaway(stream: &mut SslStream<TcpStream>) -> Option<u32> {
    let mut bytes = Vec::new();
    // However it ends: what came before tells.
    let _ = stream.read_to_end(&mut bytes);
    let mut rest = bytes.as_slice();
    while let Some((head, tail)) = rest.split_at_checked(9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (payload, next) = tail.split_at_checked(length)?;
        if head[3] == GOAWAY {
            return payload.get(4..8).and_then(|code| code.try_into().ok()).map(u32::from_be_bytes);
        }
        rest = next;
    }
    None
}

#[test]
fn floods_on_http2_end_the_connection_that_sends_them() -> Result<()> {
    const ENHANCE_YOUR_CALM: u32 = 11;
    let stack = Stack::start(&[])?;
    let _agent = stack.agent("agent-1", &[])?;
    let _windows = ntlm_host(&stack)?;
    work(&stack)?;
    let before = stack.control_plane.process.memory_kib("VmHWM")?;
    let block = call("/lictor.v1.TaskService/ListTasks");
    let rapid_reset: Vec<u8> = (0..20_000u32)
        .flat_map(|number| {
            let stream = 2 * number + 1;
            [frame(HEADERS, 4, stream, &block), frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())].concat()
        })
        .collect();
    // A header block that never ends.
    let endless = [
        frame(HEADERS, 0, 1, &block),
        (0..4000).flat_map(|_| frame(CONTINUATION, 0, 1, &headers(&[("x", LONG); 100]))).collect(),
    ]
    .concat();
    let settings: Vec<u8> = (0..200_000).flat_map(|_| frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1])).collect();
    let pings: Vec<u8> = (0..200_000).flat_map(|_| frame(PING, 0, 0, &[0; 8])).collect();
    let garbage = vec![0xAB; 1 << 20];
    for (name, flood, code) in [
        ("rapid reset", rapid_reset, Some(ENHANCE_YOUR_CALM)),
        ("endless headers", endless, None),
        ("settings", settings, None),
        ("pings", pings, None),
        ("garbage", garbage, None),
    ] {
        let mut stream = tls(&stack.control_plane.address)?;
        // It may be cut off in the middle, which is the point.
        let sent = stream.write_all(PREFACE).and_then(|()| stream.write_all(&flood));
        if name == "pings" || name == "settings" {
            // Answered one by one while the answers are taken; a peer that takes none stops being read.
            drop(sent);
        } else if code.is_some() {
            assert_eq!(goaway(&mut stream), code, "{name}");
        } else {
            assert!(sent.is_err() || goaway(&mut stream).is_some_and(|code| code != 0), "{name} was borne");
        }
        work(&stack).context(name)?;
    }
    report_memory(&stack, "floods on HTTP/2", before)
}

const RESOURCE_EXHAUSTED: &str = "8";
const OUT_OF_RANGE: &str = "11";
const UNIMPLEMENTED: &str = "12";
const INTERNAL: &str = "13";
const UNAUTHENTICATED: &str = "16";
const CURL_STREAM_ERROR: i32 = 92;

#[test]
fn oversized_and_malformed_calls_are_refused_as_a_foreign_client_sees_it() -> Result<()> {
    let stack = Stack::start(&[])?;
    let _agent = stack.agent("agent-1", &[])?;
    let _windows = ntlm_host(&stack)?;
    work(&stack)?;
    let before = stack.control_plane.process.memory_kib("VmHWM")?;
    let ca = stack.control_plane.state.join("ca.pem").display().to_string();
    let token = std::fs::read_to_string(stack.control_plane.state.join("admin-token"))?;
    let url = |method: &str| format!("https://{}/lictor.v1.{method}", stack.control_plane.address);
    let own = tempfile::tempdir()?;
    // A gRPC message says its length before it comes; this one says 4 GiB and sends 32 MiB.
    let oversized = own.path().join("oversized");
    std::fs::write(&oversized, [&[0, 0xFF, 0xFF, 0xFF, 0xFF][..], &vec![0; 32 << 20]].concat())?;
    let malformed = own.path().join("malformed");
    std::fs::write(&malformed, [0, 0, 0, 0, 4, 0xFF, 0xFF, 0xFF, 0xFF])?;
    let curl = |method: &str, body: &std::path::Path, more: &[&str]| -> Result<Output> {
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--show-error", "--http2", "--max-time", "50", "--cacert", &ca, "--dump-header", "-"])
            .args([
                "-H",
                "content-type: application/grpc",
                "-H",
                "te: trailers",
                "-H",
                &format!("authorization: Bearer {token}"),
            ])
            .args(more)
            .arg("--data-binary")
            .arg(format!("@{}", body.display()))
            .arg(url(method));
        Output::of(&mut command, PATIENCE)
    };
    let status = |output: &Output| -> Option<String> {
        let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
        text.lines().find_map(|line| line.strip_prefix("grpc-status:").map(|code| code.trim().to_owned()))
    };
    // Answered while the body is still under way, the answer may be overtaken by the reset that ends the body.
    let cut_off = |output: &Output, codes: &[&str]| match status(output) {
        Some(code) => codes.contains(&code.as_str()),
        None => output.code == CURL_STREAM_ERROR,
    };
    let submit = "TaskService/SubmitTask";
    let answer = curl(submit, &oversized, &[])?;
    assert!(cut_off(&answer, &[OUT_OF_RANGE, RESOURCE_EXHAUSTED]), "{answer:?}");
    let answer = curl(submit, &malformed, &[])?;
    assert_eq!(status(&answer).as_deref(), Some(INTERNAL), "{answer:?}");
    for method in ["AgentService/Session", "AgentService/Poll", "AgentService/Report", "AgentService/RenewIdentity"] {
        let answer = curl(method, &oversized, &[])?;
        assert!(cut_off(&answer, &[UNAUTHENTICATED]), "{method}: {answer:?}");
        let answer = curl(method, &malformed, &[])?;
        assert!(cut_off(&answer, &[UNAUTHENTICATED]), "{method}: {answer:?}");
    }
    let answer = curl("AgentService/Enroll", &oversized, &[])?;
    assert!(cut_off(&answer, &[OUT_OF_RANGE, RESOURCE_EXHAUSTED]), "{answer:?}");
    let huge = format!("x-huge: {}", "y".repeat(60_000));
    let answer = curl(submit, &malformed, &["-H", &huge])?;
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    assert!(answer.code != 0 || text.contains(" 431"), "{answer:?}");
    for path in ["TaskService/../../etc/passwd", "TaskService/SubmitTask%0d%0aX-Evil:%201", "Nobody/Nothing"] {
        let answer = curl(path, &malformed, &["--path-as-is"])?;
        assert!(cut_off(&answer, &[UNIMPLEMENTED]), "{path}: {answer:?}");
        assert!(!String::from_utf8_lossy(&answer.stdout).to_lowercase().contains("x-evil"), "{answer:?}");
    }
    work(&stack)?;
    report_memory(&stack, "oversized and malformed calls", before)
}

#[test]
fn silent_http_clients_do_not_keep_the_collector_out() -> Result<()> {
    let stack = Stack::start(&[])?;
    let agent = stack.agent("agent-1", &[])?;
    for (name, address) in [("control plane", stack.control_plane.http_address()), ("agent", agent.http_address())] {
        let address: SocketAddr = address.parse()?;
        let silent: Vec<TcpStream> =
            (0..400).map(|_| TcpStream::connect_timeout(&address, PATIENCE)).collect::<Result<_, _>>()?;
        let begin = Instant::now();
        eventually(&format!("the {name} answers again"), PATIENCE, || {
            let mut socket = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            socket.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            socket.read_to_string(&mut text)?;
            if !text.contains("200 OK") {
                bail!("{name}: {text:?} after {:?}", begin.elapsed());
            }
            Ok(())
        })?;
        drop(silent);
    }
    Ok(())
}

#[test]
fn an_agent_that_stands_still_is_noticed_within_35_seconds() -> Result<()> {
    let stack = Stack::start(&[])?;
    let agent = stack.agent("agent-1", &[])?;
    assert_eq!(figure(&stack, "control_plane_agents_connected")?, 1);
    agent.process.signal("STOP")?;
    let noticed = eventually("it is offline", Duration::from_secs(35), || {
        anyhow::ensure!(figure(&stack, "control_plane_agents_connected")? == 0, "it is still connected");
        Ok(())
    });
    agent.process.signal("CONT")?;
    noticed?;
    eventually("it is back", PATIENCE, || {
        anyhow::ensure!(figure(&stack, "control_plane_agents_connected")? == 1, "it is not connected");
        Ok(())
    })
}
