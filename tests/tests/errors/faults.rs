//! What a host says in a fault: each number of the table by a simulated host, each Subcode and what is no answer at all by a peer
//! that says what it is told to.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lictor_winrm::Error;
use lictor_winrm::probe::{RungOutcome, probe};
use lictor_winrm::target::{
    AuthKind, Credential, Endpoint, KerberosOptions, MessageEncryption, Scheme, Secret, ShellProperties, Target,
    Timeouts, TlsPolicy,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use winsim::{Options, Order, OrderedFault, User, Winsim};

pub(crate) const USER: &str = "CORP\\alice";
pub(crate) const PASSWORD: &str = "pässword";
/// For a whole connection test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn target(scheme: Scheme, port: u16) -> Result<Target> {
    Ok(Target {
        endpoint: Endpoint::new(scheme, "127.0.0.1", Some(port), None)?,
        auth: AuthKind::Basic,
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

/// Why the connection test fails, if it does.
pub(crate) async fn outcome(target: &Target, patience: Duration) -> Option<Error> {
    let report = probe(target, Instant::now() + patience, |_| {}).await;
    report.rungs.into_iter().find_map(|rung| match rung.outcome {
        RungOutcome::Failed(error) => Some(error),
        _ => None,
    })
}

pub(crate) async fn failure(target: &Target) -> Result<Error> {
    outcome(target, PATIENCE).await.context("the test passes")
}

/// Every number of the table, and one that is not in it.
const NUMBERS: &[u32] = &[
    5,
    170,
    995,
    1018,
    1326,
    1331,
    1460,
    1907,
    1909,
    2_147_943_418,
    2_150_858_752,
    2_150_858_771,
    2_150_858_772,
    2_150_858_790,
    2_150_858_793,
    2_150_858_805,
    2_150_858_806,
    2_150_858_813,
    2_150_858_815,
    2_150_858_823,
    2_150_858_824,
    2_150_858_843,
    2_150_859_001,
    2_150_859_027,
    2_150_859_082,
    2_150_859_087,
    2_150_859_161,
    2_150_859_173,
    2_150_859_174,
    2_150_859_175,
    2_150_859_176,
    2_150_859_177,
    2_150_859_179,
    2_150_859_180,
    2_150_859_212,
    2_150_859_230,
    2_150_859_236,
    2_150_859_237,
    2_150_859_238,
    2_150_859_239,
    2_150_859_240,
    2_150_859_241,
    2_150_859_242,
];

#[tokio::test]
async fn each_fault_is_told_by_its_code() -> Result<()> {
    let host = Winsim::start(Options {
        users: vec![User::new(USER, PASSWORD)],
        schemes: vec![winsim::Scheme::Basic],
        allow_unencrypted: true,
        ..Options::default()
    })
    .await?;
    let target = target(Scheme::Http, host.address().port())?;
    for number in NUMBERS {
        host.order(Order::Fault(of_create(*number))).await;
        let error = failure(&target).await?;
        ensure!(error.code() == format!("fault.{number}"), "{number}: {}", error.report());
        ensure!(!error.cause().is_empty() && !error.remedy().is_empty(), "{number}");
    }
    host.order(Order::Fault(of_create(0x8007_0057))).await;
    let error = failure(&target).await?;
    assert_eq!(error.code(), "fault.other", "{}", error.report());
    host.stop().await;
    Ok(())
}

fn of_create(code: u32) -> OrderedFault {
    OrderedFault { operation: "Create".to_owned(), code, times: 1, done: false, style: None }
}

/// A peer that does not identify itself and answers everything else with `answer`: a status and a body, in which `MESSAGE` stands
/// for the request's identifier.
async fn peer(status: u16, answer: String) -> Result<(u16, JoinSet<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            while let Some(request) = request(&mut stream).await {
                let identify = request.to_lowercase().contains("\r\nwsmanidentify:");
                let message = request.split("uuid:").nth(1).and_then(|rest| rest.get(..36)).unwrap_or_default();
                let body = answer.replace("MESSAGE", &format!("uuid:{message}"));
                let answer = if identify {
                    "HTTP/1.1 401 \r\nWWW-Authenticate: Basic realm=\"WSMAN\"\r\nContent-Length: 0\r\n\r\n".to_owned()
                } else {
                    let head = format!("HTTP/1.1 {status} \r\nContent-Type: application/soap+xml;charset=UTF-8\r\n");
                    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
                };
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    });
    Ok((port, tasks))
}

async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
            if body.len() >= length.parse::<usize>().unwrap_or(0) {
                return Some(text.into_owned());
            }
        }
        if !matches!(stream.read_buf(&mut read).await, Ok(length) if length > 0) {
            return None;
        }
    }
}

fn soap(header: &str, body: &str) -> String {
    format!(
        "<s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" \
         xmlns:a=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\" \
         xmlns:w=\"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd\"><s:Header>{header}</s:Header><s:Body>{body}</s:Body></s:Envelope>"
    )
}

#[tokio::test]
async fn faults_without_a_number_are_told_by_their_subcode() -> Result<()> {
    for (subcode, code) in [
        ("w:TimedOut", "fault.timed_out"),
        ("w:InvalidSelectors", "fault.invalid_selectors"),
        ("w:AccessDenied", "fault.access_denied"),
        ("w:EncodingLimit", "fault.encoding_limit"),
        ("w:QuotaLimit", "fault.quota_limit"),
        ("a:ActionNotSupported", "fault.action_not_supported"),
        ("a:EndpointUnavailable", "fault.unavailable"),
        ("w:SchemaValidationError", "fault.other"),
    ] {
        let fault = format!(
            "<s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>{subcode}</s:Value></s:Subcode></s:Code>\
             <s:Reason><s:Text xml:lang=\"en-US\">why</s:Text></s:Reason></s:Fault>"
        );
        let header =
            "<a:Action>http://schemas.dmtf.org/wbem/wsman/1/wsman/fault</a:Action><a:RelatesTo>MESSAGE</a:RelatesTo>";
        let (port, _tasks) = peer(500, soap(header, &fault)).await?;
        let error = failure(&target(Scheme::Http, port)?).await?;
        assert_eq!(error.code(), code, "{subcode}: {}", error.report());
    }
    Ok(())
}

#[tokio::test]
async fn answers_that_answer_nothing_have_their_codes() -> Result<()> {
    let created = "<a:Action>http://schemas.xmlsoap.org/ws/2004/09/transfer/CreateResponse</a:Action>";
    let other = format!("{created}<a:RelatesTo>uuid:00000000-0000-0000-0000-000000000001</a:RelatesTo>");
    let own = format!("{created}<a:RelatesTo>MESSAGE</a:RelatesTo>");
    for (status, answer, code) in [
        (200, "<html>".to_owned(), "soap.malformed"),
        (200, soap(&own, ""), "soap.malformed"),
        (200, soap(&other, ""), "soap.wrong_relates_to"),
        (400, String::new(), "http.bad_request"),
        (502, String::new(), "http.status"),
    ] {
        let (port, _tasks) = peer(status, answer.clone()).await?;
        let error = failure(&target(Scheme::Http, port)?).await?;
        assert_eq!(error.code(), code, "{status} {answer}: {}", error.report());
    }
    Ok(())
}

#[tokio::test]
async fn a_request_that_xml_cannot_carry_is_not_sent() -> Result<()> {
    let (port, _tasks) = peer(200, String::new()).await?;
    let mut target = target(Scheme::Http, port)?;
    target.shell.environment.insert("NAME".to_owned(), "\u{1}".to_owned());
    let error = failure(&target).await?;
    assert_eq!((error.code(), error.is_unsent()), ("request.unsendable", true), "{}", error.report());
    Ok(())
}

#[tokio::test]
async fn a_peer_that_ends_the_handshake_is_told_apart_from_one_without_tls() -> Result<()> {
    // It takes the greeting and closes; or it answers with the alert internal_error.
    for alert in [None, Some([0x15, 3, 3, 0, 2, 2, 80])] {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await?;
            let mut greeting = [0; 5];
            stream.read_exact(&mut greeting).await?;
            let mut rest = vec![0; usize::from(u16::from_be_bytes([greeting[3], greeting[4]]))];
            stream.read_exact(&mut rest).await?;
            if let Some(alert) = alert {
                stream.write_all(&alert).await?;
            }
            stream.shutdown().await
        });
        let error = failure(&target(Scheme::Https, port)?).await?;
        assert_eq!(error.code(), "tls.failed", "{alert:?}: {}", error.report());
        server.await??;
    }
    Ok(())
}
