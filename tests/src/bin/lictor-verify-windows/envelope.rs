//! Requests that the product's own writer does not make: other options, bounds and operations than it ever uses.
//!
//! What the product sends is written by `lictor_winrm::wsman::Requests`, so that the very bytes it relies on are judged. This
//! is for the rest, and must never be used where that suffices. Headers follow [MS-WSMV] 3.1.4.1.
//!
//! [MS-WSMV]: https://learn.microsoft.com/en-us/openspecs/windows_protocols/ms-wsmv/

use std::time::Duration;

use lictor_winrm::soap::uri;
use uuid::Uuid;

pub(crate) const SHELL_CMD: &str = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/cmd";
pub(crate) const CONFIG: &str = "http://schemas.microsoft.com/wbem/wsman/1/config";
const TRANSFER: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer";

/// One request, to be put into an envelope.
#[derive(Debug, Clone)]
pub(crate) struct Custom {
    resource: &'static str,
    action: String,
    shell: Option<String>,
    options: Vec<(&'static str, String)>,
    header: String,
    body: String,
    timeout: Duration,
    max_envelope: usize,
}

impl Custom {
    fn new(resource: &'static str, action: String, body: String) -> Self {
        let timeout = Duration::from_secs(20);
        let (shell, options, header) = (None, Vec::new(), String::new());
        Self { resource, action, shell, options, header, body, timeout, max_envelope: 512_000 }
    }

    /// wst:Create of a cmd shell.
    pub(crate) fn create(name: &str, idle: Duration) -> Self {
        let body = format!(
            "<rsp:Shell Name=\"{}\"><rsp:IdleTimeOut>PT{}.000S</rsp:IdleTimeOut><rsp:InputStreams>stdin</rsp:InputStreams>\
             <rsp:OutputStreams>stdout stderr</rsp:OutputStreams></rsp:Shell>",
            escape(name),
            idle.as_secs()
        );
        Self::new(SHELL_CMD, format!("{TRANSFER}/Create"), body)
            .option("WINRS_NOPROFILE", "FALSE")
            .option("WINRS_CODEPAGE", "65001")
    }

    /// wst:Get of a shell.
    pub(crate) fn shell(shell: &str) -> Self {
        Self::new(uri::SHELL, format!("{TRANSFER}/Get"), String::new()).on(shell)
    }

    /// wst:Get of the service's configuration.
    pub(crate) fn configuration() -> Self {
        Self::new(CONFIG, format!("{TRANSFER}/Get"), String::new())
    }

    /// rsp:Command.
    pub(crate) fn command(shell: &str, command: Uuid, line: &str) -> Self {
        let body = format!(
            "<rsp:CommandLine CommandId=\"{:X}\"><rsp:Command>{}</rsp:Command></rsp:CommandLine>",
            command.hyphenated(),
            escape(line)
        );
        Self::new(SHELL_CMD, format!("{}/Command", uri::SHELL), body).on(shell)
    }

    /// rsp:Receive.
    pub(crate) fn receive(shell: &str, command: Uuid) -> Self {
        let body = format!(
            "<rsp:Receive><rsp:DesiredStream CommandId=\"{:X}\">stdout stderr</rsp:DesiredStream></rsp:Receive>",
            command.hyphenated()
        );
        Self::new(SHELL_CMD, format!("{}/Receive", uri::SHELL), body).on(shell)
    }

    fn on(mut self, shell: &str) -> Self {
        self.shell = Some(shell.to_owned());
        self
    }

    pub(crate) fn option(mut self, name: &'static str, value: &str) -> Self {
        self.options.push((name, value.to_owned()));
        self
    }

    /// Markup of another header block.
    pub(crate) fn header(mut self, markup: &str) -> Self {
        self.header.push_str(markup);
        self
    }

    pub(crate) fn max_envelope(mut self, bytes: usize) -> Self {
        self.max_envelope = bytes;
        self
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn bytes(&self, to: &str, session: Uuid, message: Uuid) -> Vec<u8> {
        let options = if self.options.is_empty() {
            String::new()
        } else {
            let option = |(name, value): &(&str, String)| {
                format!("<wsman:Option Name=\"{name}\">{}</wsman:Option>", escape(value))
            };
            let options = self.options.iter().map(option).collect::<String>();
            format!("<wsman:OptionSet s:mustUnderstand=\"true\">{options}</wsman:OptionSet>")
        };
        let selectors = self.shell.as_deref().map_or_else(String::new, |shell| {
            let shell = escape(shell);
            format!("<wsman:SelectorSet><wsman:Selector Name=\"ShellId\">{shell}</wsman:Selector></wsman:SelectorSet>")
        });
        format!(
            "<s:Envelope xmlns:s=\"{}\" xmlns:wsa=\"{}\" xmlns:wsman=\"{}\" xmlns:wsmv=\"{}\" xmlns:rsp=\"{}\"><s:Header>\
             <wsa:To>{}</wsa:To><wsman:ResourceURI s:mustUnderstand=\"true\">{}</wsman:ResourceURI>\
             <wsa:ReplyTo><wsa:Address s:mustUnderstand=\"true\">{addressing}/role/anonymous</wsa:Address></wsa:ReplyTo>\
             <wsa:Action s:mustUnderstand=\"true\">{}</wsa:Action><wsa:MessageID>uuid:{:X}</wsa:MessageID>\
             <wsman:MaxEnvelopeSize s:mustUnderstand=\"true\">{}</wsman:MaxEnvelopeSize>\
             <wsman:OperationTimeout>PT{}.000S</wsman:OperationTimeout>\
             <wsman:Locale s:mustUnderstand=\"false\" xml:lang=\"en-US\"/>\
             <wsmv:DataLocale s:mustUnderstand=\"false\" xml:lang=\"en-US\"/>\
             <wsmv:SessionId s:mustUnderstand=\"false\">uuid:{:X}</wsmv:SessionId>{}{options}{selectors}</s:Header>\
             <s:Body>{}</s:Body></s:Envelope>",
            uri::SOAP,
            uri::ADDRESSING,
            uri::WSMAN,
            uri::WSMV,
            uri::SHELL,
            escape(to),
            self.resource,
            self.action,
            message.hyphenated(),
            self.max_envelope,
            self.timeout.as_secs(),
            session.hyphenated(),
            self.header,
            self.body,
            addressing = uri::ADDRESSING,
        )
        .into_bytes()
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
