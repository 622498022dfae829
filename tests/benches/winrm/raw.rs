//! The bare client: hyper over one socket, and the very bytes that `lictor-winrm` sends.
//!
//! It knows what is to come. Requests are templates, written once by `lictor-winrm`, in which only the identifiers are
//! replaced; of answers it looks at the status and for the end of the command. No pool, no deadline, no state machine, no
//! XML. Sealed, it calls the same NTLM of the `sspi` crate, puts constant framing around the result, and takes
//! answers apart at fixed places. That is the floor that ours is compared with.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use lictor_winrm::Target;
use lictor_winrm::auth::ntlm::NtlmContext;
use lictor_winrm::auth::{Handshake, SecurityContext, Step, basic, seal};
use lictor_winrm::target::AuthKind;
use lictor_winrm::wsman::{CommandRef, Requests, Response, Signal, parse};
use tokio::net::TcpStream;
use uuid::Uuid;

use super::COMMAND;

/// One connection with one shell.
pub(crate) struct Raw {
    http: Http,
    command: Template,
    receive: Template,
    signal: Template,
    last: u64,
}

impl Raw {
    pub(crate) async fn connect(target: &Target) -> Result<Self> {
        let mut http = Http::connect(target).await?;
        let requests = Requests::new(target.endpoint.to_string(), Uuid::new_v4(), target.timeouts.operation);
        let id = Uuid::new_v4();
        let answer = http.exchange(requests.create(id, "bench", &target.shell)?).await?;
        let Response::Created(created) = parse(&answer, Some(id))? else { anyhow::bail!("no shell") };
        let command = CommandRef { shell_id: &created.shell_id, command_id: COMMAND_ID };
        Ok(Self {
            command: Template::new(requests.command(MESSAGE_ID, command, COMMAND, false)?)?,
            receive: Template::new(requests.receive(MESSAGE_ID, command, Duration::MAX)?)?,
            signal: Template::new(requests.signal(MESSAGE_ID, command, Signal::Terminate)?)?,
            http,
            last: 0,
        })
    }

    /// Command, Receive until the end, Signal.
    pub(crate) async fn command(&mut self) -> Result<u32> {
        self.last += 1;
        let mut exchanges = 2;
        self.http.exchange(self.command.fill(self.last)).await?;
        loop {
            exchanges += 1;
            let answer = self.http.exchange(self.receive.fill(self.last)).await?;
            if std::str::from_utf8(&answer)?.contains("/CommandState/Done\"") {
                break;
            }
        }
        self.http.exchange(self.signal.fill(self.last)).await?;
        Ok(exchanges)
    }
}

const MESSAGE_ID: Uuid = Uuid::from_u128(0xAAAA_AAAA_AAAA_4AAA_8AAA_AAAA_AAAA_AAAA);
const COMMAND_ID: Uuid = Uuid::from_u128(0xCCCC_CCCC_CCCC_4CCC_8CCC_CCCC_CCCC_CCCC);

/// A request with the places of its two identifiers.
struct Template {
    text: Vec<u8>,
    message_id: usize,
    command_id: usize,
}

impl Template {
    fn new(text: Vec<u8>) -> Result<Self> {
        let place = |id: Uuid| {
            let wanted = format!("{:X}", id.hyphenated());
            std::str::from_utf8(&text)?.find(&wanted).context("the identifier is not in the request")
        };
        Ok(Self { message_id: place(MESSAGE_ID)?, command_id: place(COMMAND_ID)?, text })
    }

    fn fill(&self, number: u64) -> Vec<u8> {
        let mut text = self.text.clone();
        let id = Uuid::from_u64_pair(0x4000, number | 1 << 63);
        for at in [self.message_id, self.command_id] {
            if let Some(place) = text.get_mut(at..at + 36) {
                id.hyphenated().encode_upper(place);
            }
        }
        text
    }
}

/// One HTTP connection.
struct Http {
    sender: SendRequest<Full<Bytes>>,
    host: HeaderValue,
    content_type: HeaderValue,
    authorization: Option<HeaderValue>,
    context: Option<NtlmContext>,
}

impl Http {
    async fn connect(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(target.endpoint.authority()).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the process.
        tokio::spawn(connection);
        let host = HeaderValue::from_str(&target.endpoint.authority())?;
        let content_type = HeaderValue::from_static("application/soap+xml;charset=UTF-8");
        let mut http = Self { sender, host, content_type, authorization: None, context: None };
        match target.auth {
            AuthKind::Basic => {
                http.authorization = Some(HeaderValue::from_str(&basic::authorization(&target.credential)?)?);
            }
            _ => http.authenticate(target).await?,
        }
        Ok(http)
    }

    async fn authenticate(&mut self, target: &Target) -> Result<()> {
        let mut context = NtlmContext::spnego(&target.credential, None)?;
        let (mut handshake, mut authorization) = Handshake::begin(&mut context)?;
        loop {
            self.authorization = Some(HeaderValue::from_str(&authorization)?);
            let answer = self.sender.send_request(self.request(Vec::new())).await?;
            let (head, body) = answer.into_parts();
            body.collect().await?;
            let fields = head.headers.get_all(WWW_AUTHENTICATE).iter().map(HeaderValue::as_bytes);
            match handshake.answer(&mut context, head.status.as_u16(), fields)? {
                Step::Send(next) => authorization = next,
                Step::Done => break,
            }
        }
        self.authorization = None;
        self.content_type = HeaderValue::try_from(seal::content_type(context.protocol()))?;
        self.context = Some(context);
        Ok(())
    }

    /// One envelope and its answer.
    async fn exchange(&mut self, envelope: Vec<u8>) -> Result<BytesMut> {
        let body = match &mut self.context {
            Some(context) => seal_with(context, &envelope)?,
            None => envelope,
        };
        self.sender.ready().await?;
        let answer = self.sender.send_request(self.request(body)).await?;
        ensure!(answer.status() == 200, "HTTP status {}", answer.status());
        let mut incoming = answer.into_body();
        let mut body = BytesMut::new();
        while let Some(frame) = incoming.frame().await {
            if let Ok(data) = frame?.into_data() {
                body.extend_from_slice(&data);
            }
        }
        match &mut self.context {
            Some(context) => unseal_with(context, body),
            None => Ok(body),
        }
    }

    fn request(&self, body: Vec<u8>) -> Request<Full<Bytes>> {
        let length = body.len();
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static("/wsman");
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("lictor-winrm/", env!("CARGO_PKG_VERSION"))));
        headers.insert(CONTENT_TYPE, self.content_type.clone());
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        if let Some(value) = &self.authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        request
    }
}

fn seal_with(context: &mut NtlmContext, envelope: &[u8]) -> Result<Vec<u8>> {
    const MIDDLE: &[u8] = b"\r\n--Encrypted Boundary\r\n\tContent-Type: application/octet-stream\r\n";
    let mut body = Vec::with_capacity(envelope.len() + 512);
    body.extend_from_slice(
        b"--Encrypted Boundary\r\n\tContent-Type: application/HTTP-SPNEGO-session-encrypted\r\n\
          \tOriginalContent: type=application/soap+xml;charset=UTF-8;Length=",
    );
    body.extend_from_slice(envelope.len().to_string().as_bytes());
    body.extend_from_slice(MIDDLE);
    let at = body.len();
    body.extend_from_slice(&[16, 0, 0, 0]);
    body.extend_from_slice(&[0; 16]);
    body.extend_from_slice(envelope);
    let (front, data) = body.split_at_mut(at + 20);
    let signature = context.wrap(data)?;
    front.get_mut(at + 4..).context("the place of the signature")?.copy_from_slice(&signature);
    body.extend_from_slice(b"--Encrypted Boundary--\r\n");
    Ok(body)
}

fn unseal_with(context: &mut NtlmContext, mut body: BytesMut) -> Result<BytesMut> {
    const BEFORE: &[u8] = b"octet-stream\r\n";
    const AFTER: usize = b"--Encrypted Boundary--\r\n".len();
    let head = body.get(..400).unwrap_or(&body);
    let at = head.windows(BEFORE.len()).position(|window| window == BEFORE).context("not sealed")? + BEFORE.len();
    // What stands before the signature: the length of the header, and all that is not sealed.
    drop(body.split_to(body.len().min(at + 4)));
    body.truncate(body.len().saturating_sub(AFTER));
    let message = context.unwrap(&mut body, 16)?;
    body.truncate(message.end);
    Ok(body.split_off(message.start))
}
