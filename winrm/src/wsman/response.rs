//! Answers: from bytes to values.

use bytes::Bytes;
use uuid::Uuid;

use super::configuration::{CertificateMapping, Config, Listener};
use crate::fault::{Fault, Role, parse_code};
use crate::shell::OutputStream;
use crate::soap::{Element, Ns, Reader, SoapError};

/// An answer of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// wsmid:IdentifyResponse.
    Identified(Identity),
    /// wst:CreateResponse.
    Created(Created),
    /// rsp:CommandResponse: the command's identifier.
    CommandStarted(String),
    /// rsp:SendResponse.
    Sent,
    /// rsp:ReceiveResponse.
    Received(Received),
    /// rsp:SignalResponse.
    Signalled,
    /// wsen:EnumerateResponse or wsen:PullResponse.
    Listed(Listed),
    /// cfg:Config, as wst:GetResponse has it.
    Configured(Box<Config>),
    /// An empty body, as wst:DeleteResponse has it.
    Empty,
    /// s:Fault.
    Fault(Fault),
    /// Something else: the local name of the body's element.
    Other(String),
}

impl Response {
    /// What it is, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Identified(_) => "IdentifyResponse",
            Self::Created(_) => "ResourceCreated",
            Self::CommandStarted(_) => "CommandResponse",
            Self::Sent => "SendResponse",
            Self::Received(_) => "ReceiveResponse",
            Self::Signalled => "SignalResponse",
            Self::Listed(_) => "a listing",
            Self::Configured(_) => "a configuration",
            Self::Empty => "an empty body",
            Self::Fault(_) => "a fault",
            Self::Other(name) => name,
        }
    }
}

/// What Identify tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Such as `Microsoft Corporation`.
    pub vendor: String,
    /// Such as `OS: 10.0.17763 SP: 0.0 Stack: 3.0`; without authentication the numbers of the OS are zero.
    pub version: String,
}

/// What Create tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// The shell's identifier.
    pub shell_id: String,
}

/// What Enumerate or Pull tells. An answer holds what was asked for; the rest is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// Shells of this answer.
    pub shells: Vec<ListedShell>,
    /// Listeners of this answer.
    pub listeners: Vec<Listener>,
    /// Mappings of client certificates of this answer.
    pub mappings: Vec<CertificateMapping>,
    /// Items of a kind that nobody here knows. They are there all the same.
    pub unread: usize,
    /// To ask for more with; nothing when this was all.
    pub more: Option<String>,
}

impl Listed {
    /// Every listener. Of an item that could not be read nothing is known but that it is there.
    #[must_use]
    pub fn into_listeners(self) -> Vec<Listener> {
        let unread = std::iter::repeat_with(Listener::default).take(self.unread);
        self.listeners.into_iter().chain(unread).collect()
    }

    /// Every mapping, as [`Listed::into_listeners`] has listeners.
    #[must_use]
    pub fn into_mappings(self) -> Vec<CertificateMapping> {
        let unread = std::iter::repeat_with(CertificateMapping::default).take(self.unread);
        self.mappings.into_iter().chain(unread).collect()
    }
}

/// A shell in a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListedShell {
    /// Its identifier.
    pub shell_id: String,
    /// The name that Create gave it.
    pub name: Option<String>,
}

/// What Receive brings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Received {
    /// The command that it belongs to, as the host spells it.
    pub command_id: Option<String>,
    /// Output in order; neighbours of the same stream are one piece.
    pub output: Vec<(OutputStream, Bytes)>,
    /// State of the command, when told.
    pub state: Option<State>,
    /// Exit code, when told.
    pub exit_code: Option<i32>,
}

/// States of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Not started yet.
    Pending,
    /// It runs.
    Running,
    /// It ended, and all its output was received.
    Done,
}

/// Parses an answer. `request` is the MessageID that it must relate to; Identify has none.
///
/// # Errors
/// [`SoapError`] when it is malformed, beyond the bounds, or answers another request.
pub fn parse(body: &[u8], request: Option<Uuid>) -> Result<Response, SoapError> {
    let (mut reader, envelope) = Reader::open(body)?;
    if !envelope.is(Ns::Soap, "Envelope") {
        return Err(SoapError::Unexpected("no SOAP 1.2 envelope".into()));
    }
    let mut relates_to = None;
    let mut response = None;
    while let Some(part) = reader.child(&envelope)? {
        if part.is(Ns::Soap, "Header") {
            while let Some(header) = reader.child(&part)? {
                if header.is(Ns::Addressing, "RelatesTo") {
                    relates_to = Some(reader.text(&header)?.trim().to_owned());
                }
            }
        } else if part.is(Ns::Soap, "Body") {
            if response.is_some() {
                return Err(SoapError::Unexpected("more than one body".into()));
            }
            response = Some(read_body(&mut reader, &part)?);
        }
    }
    reader.finish()?;
    let response = response.ok_or(SoapError::Unexpected("no body".into()))?;
    match (request, relates_to) {
        (Some(id), Some(found)) if !is_message(&found, id) => Err(SoapError::WrongRelatesTo { found: clip(&found) }),
        // A host that could not read our header faults without knowing what it answers.
        (Some(_), None) if !matches!(response, Response::Fault(_)) => {
            Err(SoapError::WrongRelatesTo { found: "nothing".to_owned() })
        }
        _ => Ok(response),
    }
}

/// Hosts may change the case of identifiers.
fn is_message(found: &str, id: Uuid) -> bool {
    let scheme = found.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("uuid:"));
    scheme && found.get(5..).is_some_and(|rest| rest.parse::<Uuid>().is_ok_and(|found| found == id))
}

fn read_body(reader: &mut Reader<'_>, body: &Element<'_>) -> Result<Response, SoapError> {
    let Some(content) = reader.child(body)? else {
        return Ok(Response::Empty);
    };
    let response = match (content.ns(), content.local()) {
        (Ns::Soap, "Fault") => Response::Fault(read_fault(reader, &content)?),
        (Ns::Identity, "IdentifyResponse") => Response::Identified(read_identity(reader, &content)?),
        (Ns::Transfer, "ResourceCreated") => Response::Created(read_created(reader, &content)?),
        (Ns::Shell, "CommandResponse") => {
            let id = reader
                .find(&content, Ns::Shell, "CommandId")?
                .ok_or(SoapError::Unexpected("CommandResponse without CommandId".into()))?;
            Response::CommandStarted(identifier(&reader.text(&id)?)?)
        }
        (Ns::Shell, "SendResponse") => Response::Sent,
        (Ns::Shell, "ReceiveResponse") => Response::Received(read_received(reader, &content)?),
        (Ns::Shell, "SignalResponse") => Response::Signalled,
        (Ns::Enumeration, "EnumerateResponse" | "PullResponse") => Response::Listed(read_listed(reader, &content)?),
        (Ns::Config, "Config") => Response::Configured(Box::new(Config::read(reader, &content)?)),
        (_, local) => Response::Other(clip(local)),
    };
    // The rest: Create is followed by the shell's properties, which are not needed. It must be well-formed all the same.
    while reader.child(body)?.is_some() {}
    Ok(response)
}

fn read_identity(reader: &mut Reader<'_>, parent: &Element<'_>) -> Result<Identity, SoapError> {
    let mut identity = Identity::default();
    while let Some(child) = reader.child(parent)? {
        if child.is(Ns::Identity, "ProductVendor") {
            identity.vendor = clip(&reader.text(&child)?);
        } else if child.is(Ns::Identity, "ProductVersion") {
            identity.version = clip(&reader.text(&child)?);
        }
    }
    Ok(identity)
}

/// [MS-WSMV] 3.1.4.5: the selectors of the new shell stand in the reference parameters.
fn read_created(reader: &mut Reader<'_>, parent: &Element<'_>) -> Result<Created, SoapError> {
    let missing = || SoapError::Unexpected("ResourceCreated without ShellId".into());
    let parameters = reader.find(parent, Ns::Addressing, "ReferenceParameters")?.ok_or_else(missing)?;
    let set = reader.find(&parameters, Ns::Wsman, "SelectorSet")?.ok_or_else(missing)?;
    while let Some(selector) = reader.find(&set, Ns::Wsman, "Selector")? {
        if selector.attribute("Name")?.is_some_and(|name| name == "ShellId") {
            return Ok(Created { shell_id: identifier(&reader.text(&selector)?)? });
        }
    }
    Err(missing())
}

/// DSP0226 8.1 and 8.4: optimised answers hold wsman:Items, those of Pull wsen:Items. Shells without an identifier are no
/// use to anybody and are left out.
fn read_listed(reader: &mut Reader<'_>, parent: &Element<'_>) -> Result<Listed, SoapError> {
    let mut listed = Listed::default();
    let mut ended = false;
    while let Some(child) = reader.child(parent)? {
        if child.is(Ns::Wsman, "Items") || child.is(Ns::Enumeration, "Items") {
            while let Some(item) = reader.child(&child)? {
                match (item.ns(), item.local()) {
                    (Ns::Shell, "Shell") => listed.shells.extend(read_listed_shell(reader, &item)?),
                    (Ns::Config, "Listener") => listed.listeners.push(Listener::read(reader, &item)?),
                    (Ns::Config, "CertMapping") => listed.mappings.push(CertificateMapping::read(reader, &item)?),
                    _ => listed.unread += 1,
                }
            }
        } else if child.is(Ns::Enumeration, "EnumerationContext") {
            listed.more = Some(reader.text(&child)?.trim().to_owned()).filter(|context| !context.is_empty());
        } else if child.is(Ns::Wsman, "EndOfSequence") || child.is(Ns::Enumeration, "EndOfSequence") {
            ended = true;
        }
    }
    if ended {
        listed.more = None;
    }
    Ok(listed)
}

fn read_listed_shell(reader: &mut Reader<'_>, parent: &Element<'_>) -> Result<Option<ListedShell>, SoapError> {
    let mut shell = ListedShell { name: parent.attribute("Name")?.map(|name| clip(&name)), ..ListedShell::default() };
    while let Some(child) = reader.child(parent)? {
        if child.is(Ns::Shell, "ShellId") {
            shell.shell_id = identifier(&reader.text(&child)?)?;
        } else if child.is(Ns::Shell, "Name") {
            shell.name = Some(clip(&reader.text(&child)?));
        }
    }
    Ok((!shell.shell_id.is_empty()).then_some(shell))
}

fn read_received(reader: &mut Reader<'_>, parent: &Element<'_>) -> Result<Received, SoapError> {
    let mut received = Received::default();
    let mut current: Option<(OutputStream, Vec<u8>)> = None;
    while let Some(child) = reader.child(parent)? {
        let is_stream = child.is(Ns::Shell, "Stream");
        if !is_stream && !child.is(Ns::Shell, "CommandState") {
            continue;
        }
        if let Some(id) = child.attribute("CommandId")? {
            match &received.command_id {
                None => received.command_id = Some(identifier(&id)?),
                Some(known) if known.eq_ignore_ascii_case(id.trim()) => {}
                Some(_) => return Err(SoapError::Unexpected("output of several commands".into())),
            }
        }
        if is_stream {
            let stream = match child.attribute("Name")?.as_deref() {
                Some("stdout") => OutputStream::Stdout,
                Some("stderr") => OutputStream::Stderr,
                _ => return Err(SoapError::Unexpected("output of an unknown stream".into())),
            };
            // Each element is padded by itself, so that each is decoded by itself.
            match &mut current {
                Some((running, data)) if *running == stream => reader.base64(&child, data)?,
                _ => {
                    let mut data = Vec::new();
                    reader.base64(&child, &mut data)?;
                    // Hosts end a stream with an element that holds nothing: it parts no pieces of another one.
                    if !data.is_empty() {
                        received.push(current.replace((stream, data)));
                    }
                }
            }
        } else {
            received.state = match child.attribute("State")?.as_deref() {
                Some(state) if state.ends_with("/Done") => Some(State::Done),
                Some(state) if state.ends_with("/Pending") => Some(State::Pending),
                _ => Some(State::Running),
            };
            if let Some(code) = reader.find(&child, Ns::Shell, "ExitCode")? {
                let text = reader.text(&code)?;
                // Windows exit codes are unsigned; -1 and 4294967295 are the same.
                let code = parse_code(&text).ok_or(SoapError::Unexpected("an exit code that is no number".into()))?;
                received.exit_code = Some(code.cast_signed());
            }
        }
    }
    received.push(current);
    Ok(received)
}

impl Received {
    fn push(&mut self, piece: Option<(OutputStream, Vec<u8>)>) {
        if let Some((stream, data)) = piece
            && !data.is_empty()
        {
            self.output.push((stream, Bytes::from(data)));
        }
    }
}

fn read_fault(reader: &mut Reader<'_>, parent: &Element<'_>) -> Result<Fault, SoapError> {
    let mut fault = Fault::default();
    let mut wmi_code = None;
    let mut message = String::new();
    while let Some(part) = reader.child(parent)? {
        if part.is(Ns::Soap, "Code") {
            while let Some(child) = reader.child(&part)? {
                if child.is(Ns::Soap, "Value") {
                    fault.role = match local(&reader.text(&child)?) {
                        "Sender" => Role::Sender,
                        "MustUnderstand" | "VersionMismatch" => Role::NotUnderstood,
                        _ => Role::Receiver,
                    };
                } else if child.is(Ns::Soap, "Subcode")
                    && let Some(value) = reader.find(&child, Ns::Soap, "Value")?
                {
                    fault.subcode = Some(clip(local(&reader.text(&value)?)));
                }
            }
        } else if part.is(Ns::Soap, "Reason") {
            if let Some(text) = reader.find(&part, Ns::Soap, "Text")? {
                fault.reason = clip(&reader.text(&text)?);
            }
        } else if part.is(Ns::Soap, "Detail") {
            while let Some(child) = reader.child(&part)? {
                if child.is(Ns::WsmanFault, "WSManFault") {
                    fault.code = child.attribute("Code")?.as_deref().and_then(parse_code);
                    fault.machine = child.attribute("Machine")?.map(|machine| clip(&machine));
                    message = clip(&reader.text(&child)?);
                } else if child.is(Ns::Wsman, "FaultDetail") {
                    fault.detail_uri = Some(clip(&reader.text(&child)?));
                } else if child.ns() == Ns::WmiError {
                    while let Some(property) = reader.child(&child)? {
                        match property.local() {
                            "error_Code" => wmi_code = parse_code(&reader.text(&property)?),
                            "Message" if message.is_empty() => message = clip(&reader.text(&property)?),
                            _ => {}
                        }
                    }
                }
            }
        }
    }
    // Quota faults come in either form.
    fault.code = fault.code.or(wmi_code);
    // The message of the fault is the more precise one; the reason is often only that of its Subcode.
    if !message.trim().is_empty() {
        fault.reason = message;
    }
    Ok(fault)
}

/// A QName without its prefix. Subcodes are compared by local name: each stands in one namespace only.
fn local(qname: &str) -> &str {
    let qname = qname.trim();
    qname.rsplit_once(':').map_or(qname, |(_, local)| local)
}

/// An identifier that the host chose: it goes back in every request, so it is bounded.
fn identifier(text: &str) -> Result<String, SoapError> {
    let text = text.trim();
    if text.is_empty() || text.len() > 256 || text.contains(char::is_control) {
        return Err(SoapError::Unexpected("an identifier that is none".into()));
    }
    Ok(text.to_owned())
}

/// Foreign text for people: on one line, bounded, and without characters that steer terminals.
pub(super) fn clip(text: &str) -> String {
    const MOST: usize = 2000;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ").replace(char::is_control, "\u{fffd}");
    match text.char_indices().nth(MOST) {
        Some((cut, _)) => format!("{}...", text.get(..cut).unwrap_or_default()),
        None => text,
    }
}
