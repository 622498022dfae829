//! The operations of WS-Management on remote shells and on the service's configuration ([MS-WSMV]): requests as bytes, answers as values.
//!
//! Identifiers and times come from the caller; nothing here is random or reads a clock. Headers and element order follow
//! [MS-WSMV] 2.2.4 and 3.1.4.1, whatever other orders hosts may accept. Called by the session layer.
//!
//! [MS-WSMV]: https://learn.microsoft.com/en-us/openspecs/windows_protocols/ms-wsmv/

mod configuration;
mod response;

use std::time::Duration;

use uuid::Uuid;

use crate::soap::{Unsendable, Writer, uri};
use crate::target::ShellProperties;

pub use configuration::{
    Auth, CbtHardeningLevel, CertificateMapping, Client, Config, Listener, Ports, Service, Setting, Winrs,
};
pub use response::{Created, Identity, Listed, ListedShell, Received, Response, State, parse};

/// Bytes of one request at most: MaxEnvelopeSizekb of the oldest hosts (150).
pub const MAX_REQUEST: usize = 153_600;
/// MaxEnvelopeSize that we ask answers to keep to. Hosts clamp it to their own MaxEnvelopeSizekb ([MS-WSMV] 3.1.4.1.7).
pub const MAX_ENVELOPE: usize = 512_000;

/// The Identify request. It needs no authentication.
pub const IDENTIFY: &str = concat!(
    r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" "#,
    r#"xmlns:wsmid="http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd">"#,
    "<s:Header/><s:Body><wsmid:Identify/></s:Body></s:Envelope>"
);

/// Writes the requests of one client session.
#[derive(Debug, Clone)]
pub struct Requests {
    to: String,
    session_id: Uuid,
    operation_timeout: Duration,
}

/// A command in a shell.
#[derive(Debug, Clone, Copy)]
pub struct CommandRef<'a> {
    /// The shell.
    pub shell_id: &'a str,
    /// The command.
    pub command_id: Uuid,
}

/// What a host can be asked to enumerate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Listing {
    /// The shells that the user may see ([MS-WSMV] 3.1.4.8.2).
    Shells,
    /// Where the service listens ([MS-WSMV] 3.1.4.1.29.5). For administrators.
    Listeners,
    /// Which client certificates stand for which accounts ([MS-WSMV] 3.1.4.1.29.3). For administrators.
    CertificateMappings,
}

impl Listing {
    fn resource(self) -> &'static str {
        match self {
            Self::Shells => uri::SHELL,
            Self::Listeners => "http://schemas.microsoft.com/wbem/wsman/1/config/listener",
            Self::CertificateMappings => "http://schemas.microsoft.com/wbem/wsman/1/config/service/certmapping",
        }
    }
}

/// Signals ([MS-WSMV] 2.2.4.38).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Ends the command and frees its place; also right after its end.
    Terminate,
    /// As if CTRL+C were typed.
    CtrlC,
}

impl Requests {
    /// For the endpoint with this URL. `session_id` stays the same for the session's life.
    #[must_use]
    pub fn new(to: String, session_id: Uuid, operation_timeout: Duration) -> Self {
        Self { to, session_id, operation_timeout }
    }

    /// The OperationTimeout of requests that do not name their own.
    #[must_use]
    pub fn operation_timeout(&self) -> Duration {
        self.operation_timeout
    }

    /// Another OperationTimeout from now on.
    pub fn set_operation_timeout(&mut self, operation_timeout: Duration) {
        self.operation_timeout = operation_timeout;
    }

    /// wst:Create ([MS-WSMV] 3.1.4.5, 2.2.4.37). `name` is how the shell can be told from others in a listing.
    ///
    /// # Errors
    /// [`Unsendable`] when a property holds a character that XML does not have.
    pub fn create(&self, message_id: Uuid, name: &str, shell: &ShellProperties) -> Result<Vec<u8>, Unsendable> {
        let mut writer = self.start(1536, action::CREATE, message_id, self.operation_timeout)?;
        writer.plain(format_args!(
            "<wsman:OptionSet s:mustUnderstand=\"true\"><wsman:Option Name=\"WINRS_NOPROFILE\">{}</wsman:Option>\
             <wsman:Option Name=\"WINRS_CODEPAGE\">{}</wsman:Option></wsman:OptionSet>",
            if shell.no_profile { "TRUE" } else { "FALSE" },
            shell.code_page
        ));
        writer.markup("</s:Header><s:Body><rsp:Shell Name=\"");
        writer.value("the name of the shell", name)?.markup("\">");
        if !shell.environment.is_empty() || !shell.secret_environment.is_empty() {
            writer.markup("<rsp:Environment>");
            let plain = shell.environment.iter().map(|(name, value)| (name, value.as_str()));
            let secret = shell.secret_environment.iter().map(|(name, value)| (name, value.expose()));
            for (name, value) in plain.chain(secret) {
                writer.markup("<rsp:Variable Name=\"");
                writer.value("the name of an environment variable", name)?.markup("\">");
                writer.value("an environment variable", value)?.markup("</rsp:Variable>");
            }
            writer.markup("</rsp:Environment>");
        }
        if let Some(directory) = &shell.working_directory {
            writer.markup("<rsp:WorkingDirectory>");
            writer.value("the working directory", directory)?.markup("</rsp:WorkingDirectory>");
        }
        writer.markup("<rsp:IdleTimeOut>");
        duration(&mut writer, shell.idle_timeout);
        writer.markup(
            "</rsp:IdleTimeOut><rsp:InputStreams>stdin</rsp:InputStreams>\
             <rsp:OutputStreams>stdout stderr</rsp:OutputStreams></rsp:Shell></s:Body></s:Envelope>",
        );
        Ok(writer.finish())
    }

    /// rsp:Command ([MS-WSMV] 3.1.4.11, 2.2.4.7), with an identifier of our own choice. `input` says that Send will follow.
    ///
    /// # Errors
    /// [`Unsendable`] when the command line holds a character that XML does not have.
    pub fn command(
        &self,
        message_id: Uuid,
        command: CommandRef<'_>,
        line: &str,
        input: bool,
    ) -> Result<Vec<u8>, Unsendable> {
        let mut writer = self.start(1536 + line.len(), action::COMMAND, message_id, self.operation_timeout)?;
        writer.plain(format_args!(
            "<wsman:OptionSet s:mustUnderstand=\"true\"><wsman:Option Name=\"WINRS_CONSOLEMODE_STDIN\">{}</wsman:Option>\
             <wsman:Option Name=\"WINRS_SKIP_CMD_SHELL\">FALSE</wsman:Option></wsman:OptionSet>",
            // Console mode would interpret control characters in the piped input.
            if input { "FALSE" } else { "TRUE" }
        ));
        selector(&mut writer, command.shell_id)?;
        writer.plain(format_args!(
            "</s:Header><s:Body><rsp:CommandLine CommandId=\"{:X}\"><rsp:Command>",
            command.command_id.hyphenated()
        ));
        writer.value("the command line", line)?;
        writer.markup("</rsp:Command></rsp:CommandLine></s:Body></s:Envelope>");
        Ok(writer.finish())
    }

    /// rsp:Send ([MS-WSMV] 3.1.4.13): a piece of standard input, the last one when `end`.
    ///
    /// # Errors
    /// [`Unsendable`] when the shell's identifier holds a character that XML does not have.
    pub fn send(
        &self,
        message_id: Uuid,
        command: CommandRef<'_>,
        data: &[u8],
        end: bool,
        patience: Duration,
    ) -> Result<Vec<u8>, Unsendable> {
        let timeout = patience.min(self.operation_timeout);
        let mut writer = self.start(SEND_OVERHEAD + data.len().div_ceil(3) * 4, action::SEND, message_id, timeout)?;
        selector(&mut writer, command.shell_id)?;
        writer.plain(format_args!(
            "</s:Header><s:Body><rsp:Send><rsp:Stream Name=\"stdin\" CommandId=\"{:X}\"{}>",
            command.command_id.hyphenated(),
            if end { " End=\"true\"" } else { "" }
        ));
        writer.base64(data).markup("</rsp:Stream></rsp:Send></s:Body></s:Envelope>");
        Ok(writer.finish())
    }

    /// Bytes of standard input that one Send can carry.
    #[must_use]
    pub fn send_budget(&self) -> usize {
        (MAX_REQUEST - SEND_OVERHEAD - self.to.len()) / 4 * 3
    }

    /// rsp:Receive ([MS-WSMV] 3.1.4.14).
    ///
    /// # Errors
    /// [`Unsendable`] when the shell's identifier holds a character that XML does not have.
    pub fn receive(
        &self,
        message_id: Uuid,
        command: CommandRef<'_>,
        patience: Duration,
    ) -> Result<Vec<u8>, Unsendable> {
        let timeout = patience.min(self.operation_timeout);
        let mut writer = self.start(1536, action::RECEIVE, message_id, timeout)?;
        writer.markup(
            "<wsman:OptionSet s:mustUnderstand=\"true\"><wsman:Option Name=\"WSMAN_CMDSHELL_OPTION_KEEPALIVE\">TRUE\
             </wsman:Option></wsman:OptionSet>",
        );
        selector(&mut writer, command.shell_id)?;
        writer.plain(format_args!(
            "</s:Header><s:Body><rsp:Receive><rsp:DesiredStream CommandId=\"{:X}\">stdout stderr</rsp:DesiredStream>\
             </rsp:Receive></s:Body></s:Envelope>",
            command.command_id.hyphenated()
        ));
        Ok(writer.finish())
    }

    /// rsp:Signal ([MS-WSMV] 3.1.4.12, 2.2.4.38).
    ///
    /// # Errors
    /// [`Unsendable`] when the shell's identifier holds a character that XML does not have.
    pub fn signal(&self, message_id: Uuid, command: CommandRef<'_>, signal: Signal) -> Result<Vec<u8>, Unsendable> {
        let mut writer = self.start(1536, action::SIGNAL, message_id, self.operation_timeout)?;
        selector(&mut writer, command.shell_id)?;
        writer.plain(format_args!(
            "</s:Header><s:Body><rsp:Signal CommandId=\"{:X}\"><rsp:Code>{}/signal/{}</rsp:Code></rsp:Signal></s:Body></s:Envelope>",
            command.command_id.hyphenated(),
            uri::SHELL,
            match signal {
                Signal::Terminate => "terminate",
                Signal::CtrlC => "ctrl_c",
            }
        ));
        Ok(writer.finish())
    }

    /// wst:Delete: ends the shell and everything in it.
    ///
    /// # Errors
    /// [`Unsendable`] when the shell's identifier holds a character that XML does not have.
    pub fn delete(&self, message_id: Uuid, shell_id: &str) -> Result<Vec<u8>, Unsendable> {
        let mut writer = self.start(1536, action::DELETE, message_id, self.operation_timeout)?;
        selector(&mut writer, shell_id)?;
        writer.markup("</s:Header><s:Body/></s:Envelope>");
        Ok(writer.finish())
    }

    /// wst:Get of the service's configuration ([MS-WSMV] 3.1.4.1.29). Hosts tell it to administrators only.
    ///
    /// # Errors
    /// [`Unsendable`] when the endpoint holds a character that XML does not have.
    pub fn configuration(&self, message_id: Uuid) -> Result<Vec<u8>, Unsendable> {
        let mut writer = self.start_on(1536, uri::CONFIG, action::GET, message_id, self.operation_timeout)?;
        writer.markup("</s:Header><s:Body/></s:Envelope>");
        Ok(writer.finish())
    }

    /// wsen:Enumerate ([MS-WSMV] 3.1.4.8), in one answer when everything fits into it.
    ///
    /// # Errors
    /// [`Unsendable`] when the endpoint holds a character that XML does not have.
    pub fn list(&self, message_id: Uuid, listing: Listing) -> Result<Vec<u8>, Unsendable> {
        let mut writer =
            self.start_on(1536, listing.resource(), action::ENUMERATE, message_id, self.operation_timeout)?;
        writer.plain(format_args!(
            "</s:Header><s:Body><wsen:Enumerate xmlns:wsen=\"{}\"><wsman:OptimizeEnumeration/>\
             <wsman:MaxElements>{MAX_LISTED}</wsman:MaxElements></wsen:Enumerate></s:Body></s:Envelope>",
            uri::ENUMERATION
        ));
        Ok(writer.finish())
    }

    /// wsen:Pull: what did not fit into the answer before. `context` comes from there.
    ///
    /// # Errors
    /// [`Unsendable`] when `context` holds a character that XML does not have.
    pub fn list_more(&self, message_id: Uuid, listing: Listing, context: &str) -> Result<Vec<u8>, Unsendable> {
        let mut writer = self.start_on(1536, listing.resource(), action::PULL, message_id, self.operation_timeout)?;
        writer.plain(format_args!(
            "</s:Header><s:Body><wsen:Pull xmlns:wsen=\"{}\"><wsen:EnumerationContext>",
            uri::ENUMERATION
        ));
        writer.value("the enumeration context", context)?;
        writer.plain(format_args!(
            "</wsen:EnumerationContext><wsen:MaxElements>{MAX_LISTED}</wsen:MaxElements></wsen:Pull></s:Body></s:Envelope>"
        ));
        Ok(writer.finish())
    }

    /// The envelope of a request to a cmd shell.
    fn start(
        &self,
        capacity: usize,
        action: &str,
        message_id: Uuid,
        operation_timeout: Duration,
    ) -> Result<Writer, Unsendable> {
        self.start_on(capacity, SHELL_CMD, action, message_id, operation_timeout)
    }

    /// The envelope up to the headers that all requests share ([MS-WSMV] 3.1.4.1).
    fn start_on(
        &self,
        capacity: usize,
        resource: &str,
        action: &str,
        message_id: Uuid,
        operation_timeout: Duration,
    ) -> Result<Writer, Unsendable> {
        let mut writer = Writer::with_capacity(capacity + self.to.len());
        writer.plain(format_args!(
            "<s:Envelope xmlns:s=\"{}\" xmlns:wsa=\"{}\" xmlns:wsman=\"{}\" xmlns:wsmv=\"{}\" xmlns:rsp=\"{}\"><s:Header><wsa:To>",
            uri::SOAP,
            uri::ADDRESSING,
            uri::WSMAN,
            uri::WSMV,
            uri::SHELL
        ));
        writer.value("the endpoint", &self.to)?;
        writer.plain(format_args!(
            "</wsa:To><wsman:ResourceURI s:mustUnderstand=\"true\">{resource}</wsman:ResourceURI>\
             <wsa:ReplyTo><wsa:Address s:mustUnderstand=\"true\">{addressing}/role/anonymous</wsa:Address></wsa:ReplyTo>\
             <wsa:Action s:mustUnderstand=\"true\">{action}</wsa:Action>\
             <wsa:MessageID>uuid:{message:X}</wsa:MessageID>\
             <wsman:MaxEnvelopeSize s:mustUnderstand=\"true\">{MAX_ENVELOPE}</wsman:MaxEnvelopeSize>\
             <wsman:OperationTimeout>",
            addressing = uri::ADDRESSING,
            message = message_id.hyphenated(),
        ));
        duration(&mut writer, operation_timeout);
        writer.plain(format_args!(
            "</wsman:OperationTimeout><wsman:Locale s:mustUnderstand=\"false\" xml:lang=\"en-US\"/>\
             <wsmv:DataLocale s:mustUnderstand=\"false\" xml:lang=\"en-US\"/>\
             <wsmv:SessionId s:mustUnderstand=\"false\">uuid:{:X}</wsmv:SessionId>",
            self.session_id.hyphenated()
        ));
        Ok(writer)
    }
}

/// Resource of the cmd shell.
const SHELL_CMD: &str = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/cmd";
/// Items that one answer may list. MaxShellsPerUser is far below, and so are the listeners of any host.
const MAX_LISTED: usize = 1000;

/// More than a Send without data takes, the URL apart; a test measures it.
const SEND_OVERHEAD: usize = 2048;

fn selector(writer: &mut Writer, shell_id: &str) -> Result<(), Unsendable> {
    writer.markup("<wsman:SelectorSet><wsman:Selector Name=\"ShellId\">");
    writer.value("the identifier of the shell", shell_id)?;
    writer.markup("</wsman:Selector></wsman:SelectorSet>");
    Ok(())
}

/// xs:duration in seconds and milliseconds.
fn duration(writer: &mut Writer, duration: Duration) {
    writer.plain(format_args!("PT{}.{:03}S", duration.as_secs(), duration.subsec_millis()));
}

/// Actions of requests.
mod action {
    pub(super) const CREATE: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer/Create";
    pub(super) const DELETE: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer/Delete";
    pub(super) const GET: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer/Get";
    pub(super) const ENUMERATE: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration/Enumerate";
    pub(super) const PULL: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration/Pull";
    pub(super) const COMMAND: &str = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/Command";
    pub(super) const SEND: &str = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/Send";
    pub(super) const RECEIVE: &str = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/Receive";
    pub(super) const SIGNAL: &str = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/Signal";
}

#[cfg(test)]
mod tests;
