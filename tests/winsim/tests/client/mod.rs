//! A client on one socket: Basic over HTTP, and the few requests that tests need, written out.

use std::io;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use uuid::Uuid;
use winsim::Handle;

pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Head and body.
    pub(crate) text: String,
    pub(crate) body: String,
}

impl Answer {
    /// The code of its WSManFault.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.between("Code=\"", "\"")
    }

    fn between(&self, start: &str, end: &str) -> Option<&str> {
        self.body.split_once(start)?.1.split_once(end).map(|(text, _)| text)
    }
}

impl Client {
    pub(crate) async fn connect(host: &Handle) -> Result<Self> {
        Self::to(host.address()).await
    }

    async fn to(address: SocketAddr) -> Result<Self> {
        Ok(Self { stream: BufReader::new(TcpStream::connect(address).await?) })
    }

    /// Sends a document as `user` and reads the answer.
    pub(crate) async fn ask(&mut self, user: &str, document: String) -> Result<Answer> {
        self.exchange(&head(user, &document), &document).await
    }

    /// Sends a document as `user` and does not wait.
    pub(crate) async fn send(&mut self, user: &str, document: &str) -> Result<()> {
        Ok(self.stream.write_all(format!("{}{document}", head(user, document)).as_bytes()).await?)
    }

    /// What still comes, in bytes, and the error it ends with, or none for FIN.
    pub(crate) async fn rest(&mut self) -> (usize, Option<io::ErrorKind>) {
        let mut bytes = Vec::new();
        let end = self.stream.read_to_end(&mut bytes).await.err().map(|error| error.kind());
        (bytes.len(), end)
    }

    async fn exchange(&mut self, head: &str, body: &str) -> Result<Answer> {
        self.stream.write_all(format!("{head}{body}").as_bytes()).await?;
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.push(self.stream.read_u8().await?);
        }
        let head = String::from_utf8(bytes)?;
        let status = head.split(' ').nth(1).context("a status")?.parse()?;
        let length = head.to_ascii_lowercase();
        let length = length.split_once("content-length: ").and_then(|(_, rest)| rest.split("\r\n").next());
        let mut body = vec![0; length.map_or(Ok(0), str::parse)?];
        self.stream.read_exact(&mut body).await?;
        let body = String::from_utf8(body)?;
        Ok(Answer { status, text: format!("{head}{body}"), body })
    }

    /// Opens a shell and returns its id.
    pub(crate) async fn shell(&mut self, user: &str) -> Result<String> {
        let answer = self.ask(user, create()).await?;
        let id = answer.between("Name=\"ShellId\">", "<").map(str::to_owned);
        id.with_context(|| format!("no shell: {answer:?}"))
    }

    /// Starts a command and returns its id.
    pub(crate) async fn start(&mut self, shell: &str, line: &str) -> Result<String> {
        let answer = self.ask("alice", command(shell, line)).await?;
        let id = answer.between("<rsp:CommandId>", "<").map(str::to_owned);
        id.with_context(|| format!("no command: {answer:?}"))
    }

    /// Waits for the end of the connection: the error it ends with, or none for FIN.
    pub(crate) async fn ended(&mut self) -> Result<Option<io::ErrorKind>> {
        match self.stream.read_u8().await {
            Ok(byte) => anyhow::bail!("{byte} instead of the end"),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Ok(Some(error.kind())),
        }
    }
}

/// One request to the control interface.
pub(crate) async fn control(host: &Handle, method: &str, body: &str) -> Result<Answer> {
    let head = format!("{method} /control HTTP/1.1\r\nHost: host\r\nContent-Length: {}\r\n\r\n", body.len());
    Client::to(host.admin_address()).await?.exchange(&head, body).await
}

const SHELL: &str = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell";

/// The head of a request with this document.
pub(crate) fn head(user: &str, document: &str) -> String {
    let authorization = BASE64.encode(format!("{user}:secret"));
    format!(
        "POST /wsman HTTP/1.1\r\nHost: host\r\nAuthorization: Basic {authorization}\r\n\
         Content-Type: application/soap+xml;charset=UTF-8\r\nContent-Length: {}\r\n\r\n",
        document.len()
    )
}

pub(crate) fn get(shell: &str) -> String {
    document("http://schemas.xmlsoap.org/ws/2004/09/transfer/Get", Some(shell), "")
}

pub(crate) fn create() -> String {
    let body = "<rsp:Shell><rsp:InputStreams>stdin</rsp:InputStreams><rsp:OutputStreams>stdout stderr</rsp:OutputStreams></rsp:Shell>";
    document("http://schemas.xmlsoap.org/ws/2004/09/transfer/Create", None, body)
}

pub(crate) fn command(shell: &str, line: &str) -> String {
    let body = format!("<rsp:CommandLine><rsp:Command>{line}</rsp:Command></rsp:CommandLine>");
    document(&format!("{SHELL}/Command"), Some(shell), &body)
}

pub(crate) fn receive(shell: &str, command: &str) -> String {
    let body = format!(
        "<rsp:Receive><rsp:DesiredStream CommandId=\"{command}\">stdout stderr</rsp:DesiredStream></rsp:Receive>"
    );
    document(&format!("{SHELL}/Receive"), Some(shell), &body)
}

fn document(action: &str, shell: Option<&str>, body: &str) -> String {
    let selector = shell
        .map(|id| format!("<w:SelectorSet><w:Selector Name=\"ShellId\">{id}</w:Selector></w:SelectorSet>"))
        .unwrap_or_default();
    format!(
        "<s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" xmlns:a=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\" \
         xmlns:w=\"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd\" xmlns:rsp=\"{SHELL}\"><s:Header>\
         <a:To>http://host:5985/wsman</a:To><w:ResourceURI s:mustUnderstand=\"true\">{SHELL}/cmd</w:ResourceURI>\
         <a:ReplyTo><a:Address s:mustUnderstand=\"true\">http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address></a:ReplyTo>\
         <a:Action s:mustUnderstand=\"true\">{action}</a:Action><w:MaxEnvelopeSize s:mustUnderstand=\"true\">153600</w:MaxEnvelopeSize>\
         <a:MessageID>uuid:{}</a:MessageID><w:OperationTimeout>PT20S</w:OperationTimeout>{selector}</s:Header><s:Body>{body}</s:Body>\
         </s:Envelope>",
        Uuid::new_v4().to_string().to_uppercase(),
    )
}
