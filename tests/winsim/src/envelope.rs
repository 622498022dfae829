//! SOAP requests in, strictly, and SOAP responses out.
//!
//! Sans I/O. What a Windows host refuses is refused with its fault; what it lets pass although MS-WSMV asks for more is let pass
//! and noted. Both are violations in the statistics. What pywinrm and pypsrp do is neither:
//! - pywinrm writes `mustUnderstand` without the SOAP namespace, sends no SessionId and puts `http://windows-host:5985/wsman` in To;
//! - both put the stream names before the Environment in a shell and leave mustUnderstand off the OptionSet or set it;
//! - pypsrp writes `True` and `False` for booleans and sends Signal ctrl_c after the end of a command, or `Terminate`.

use std::time::Duration;

use uuid::Uuid;

use crate::fault::Fault;
use crate::soap::{Element, escape, namespace};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Get,
    Delete,
    Enumerate,
    Pull,
    Release,
    Command,
    Send,
    Receive,
    Signal,
}

impl Operation {
    fn from_action(action: &str) -> Option<Self> {
        const TRANSFER: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer";
        let (base, name) = action.rsplit_once('/')?;
        Some(match (base, name) {
            (TRANSFER, "Create") => Self::Create,
            (TRANSFER, "Get") => Self::Get,
            (TRANSFER, "Delete") => Self::Delete,
            (namespace::ENUMERATION, "Enumerate") => Self::Enumerate,
            (namespace::ENUMERATION, "Pull") => Self::Pull,
            (namespace::ENUMERATION, "Release") => Self::Release,
            (namespace::SHELL, "Command") => Self::Command,
            (namespace::SHELL, "Send") => Self::Send,
            (namespace::SHELL, "Receive") => Self::Receive,
            (namespace::SHELL, "Signal") => Self::Signal,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "Create",
            Self::Get => "Get",
            Self::Delete => "Delete",
            Self::Enumerate => "Enumerate",
            Self::Pull => "Pull",
            Self::Release => "Release",
            Self::Command => "Command",
            Self::Send => "Send",
            Self::Receive => "Receive",
            Self::Signal => "Signal",
        }
    }

    /// The element that the body must have, if any.
    fn body(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Create => Some((namespace::SHELL, "Shell")),
            Self::Get | Self::Delete => None,
            Self::Enumerate => Some((namespace::ENUMERATION, "Enumerate")),
            Self::Pull => Some((namespace::ENUMERATION, "Pull")),
            Self::Release => Some((namespace::ENUMERATION, "Release")),
            Self::Command => Some((namespace::SHELL, "CommandLine")),
            Self::Send => Some((namespace::SHELL, "Send")),
            Self::Receive => Some((namespace::SHELL, "Receive")),
            Self::Signal => Some((namespace::SHELL, "Signal")),
        }
    }
}

/// A request whose header is in order.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) operation: Operation,
    pub(crate) action: String,
    pub(crate) message_id: String,
    pub(crate) to: String,
    pub(crate) resource: String,
    pub(crate) selectors: Vec<(String, String)>,
    pub(crate) options: Vec<HeaderOption>,
    pub(crate) max_envelope_size: usize,
    pub(crate) operation_timeout: Duration,
    /// The element of the body; an empty one for operations without.
    pub(crate) body: Element,
    /// What Windows lets pass.
    pub(crate) tolerated: Vec<String>,
}

/// One `wsman:Option`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeaderOption {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) must_comply: bool,
}

/// A request that is answered with a fault before anybody looks at what it asks for.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) message_id: Option<String>,
    pub(crate) fault: Box<Fault>,
    pub(crate) violation: String,
}

/// A document: a request, or the question who is there.
#[derive(Debug)]
pub(crate) enum Message {
    Identify,
    Request(Box<Request>),
}

/// [MS-WSMV] 3.1.4.1.7.
const SMALLEST_ENVELOPE: u32 = 8192;
/// What a request without MaxEnvelopeSize or OperationTimeout gets.
const DEFAULT_ENVELOPE: u32 = 153_600;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
const ANONYMOUS: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous";

/// Header blocks that the service understands.
const UNDERSTOOD: &[(&str, &[&str])] = &[
    (namespace::ADDRESSING, &["To", "From", "ReplyTo", "FaultTo", "Action", "MessageID", "RelatesTo"]),
    (
        namespace::MANAGEMENT,
        &[
            "ResourceURI",
            "SelectorSet",
            "OptionSet",
            "MaxEnvelopeSize",
            "OperationTimeout",
            "Locale",
            "RequestTotalItemsCountEstimate",
        ],
    ),
    (namespace::MICROSOFT, &["DataLocale", "SessionId", "OperationID", "SequenceId", "ActivityId"]),
];

impl Message {
    /// Reads a document.
    pub(crate) fn parse(document: &[u8]) -> Result<Self, Refusal> {
        let refuse = |fault, violation: String| Refusal { message_id: None, fault: Box::new(fault), violation };
        let envelope =
            Element::parse(document).map_err(|error| refuse(Fault::invalid_xml(), format!("invalid XML: {error}")))?;
        if envelope.name == "Envelope" && envelope.namespace != namespace::SOAP {
            return Err(refuse(Fault::soap_version_mismatch(), format!("SOAP namespace {}", envelope.namespace)));
        }
        let [header, body] = envelope.children.as_slice() else {
            return Err(refuse(Fault::schema(), "the envelope is not one Header and one Body".to_owned()));
        };
        if !envelope.is(namespace::SOAP, "Envelope")
            || !header.is(namespace::SOAP, "Header")
            || !body.is(namespace::SOAP, "Body")
        {
            return Err(refuse(Fault::schema(), "the document is not Envelope(Header, Body)".to_owned()));
        }
        if body.child(namespace::IDENTITY, "Identify").is_some() {
            return Ok(Self::Identify);
        }
        let message_id = header
            .child(namespace::ADDRESSING, "MessageID")
            .map(|element| element.text.trim().to_owned())
            .filter(|id| is_message_id(id));
        Request::read(header, body)
            .map(|request| Self::Request(Box::new(request)))
            .map_err(|(fault, violation)| Refusal { message_id, fault: Box::new(fault), violation })
    }
}

impl Request {
    fn read(header: &Element, body: &Element) -> Result<Self, (Fault, String)> {
        let mut tolerated = Vec::new();
        for block in &header.children {
            let known = UNDERSTOOD
                .iter()
                .any(|(space, names)| block.namespace == *space && names.contains(&block.name.as_str()));
            if !known {
                if must_understand(block) {
                    return Err((
                        Fault::not_understood(&block.name),
                        format!("unknown header {} with mustUnderstand", block.name),
                    ));
                }
                tolerated.push(format!("unknown header {{{}}}{}", block.namespace, block.name));
            }
            if known && header.children(&block.namespace, &block.name).count() > 1 {
                return Err((Fault::header_invalid(&block.name), format!("header {} more than once", block.name)));
            }
        }
        let required = |space: &'static str, name: &'static str| {
            header
                .child(space, name)
                .ok_or_else(|| (Fault::header_missing(name), format!("header {name} is missing")))
                .map(|element| (element, element.text.trim().to_owned()))
        };
        let marked = |element: &Element, tolerated: &mut Vec<String>| {
            if !must_understand(element) {
                tolerated.push(format!("header {} without mustUnderstand", element.name));
            }
        };

        let (element, action) = required(namespace::ADDRESSING, "Action")?;
        marked(element, &mut tolerated);
        let (_, message_id) = required(namespace::ADDRESSING, "MessageID")?;
        if !is_message_id(&message_id) {
            return Err((Fault::header_invalid("MessageID"), format!("MessageID {message_id:?} is not uuid:GUID")));
        }
        let (_, to) = required(namespace::ADDRESSING, "To")?;
        if !to.starts_with("http://") && !to.starts_with("https://") {
            return Err((Fault::header_invalid("To"), format!("To {to:?} is not an HTTP address")));
        }
        let (reply_to, _) = required(namespace::ADDRESSING, "ReplyTo")?;
        match reply_to.child(namespace::ADDRESSING, "Address") {
            Some(address) if address.text.trim() == ANONYMOUS => marked(address, &mut tolerated),
            _ => return Err((Fault::header_invalid("ReplyTo"), "ReplyTo is not the anonymous role".to_owned())),
        }
        let (element, resource) = required(namespace::MANAGEMENT, "ResourceURI")?;
        marked(element, &mut tolerated);
        for (space, name) in [(namespace::MANAGEMENT, "Locale"), (namespace::MICROSOFT, "DataLocale")] {
            if let Some(locale) = header.child(space, name) {
                if must_understand(locale) {
                    return Err((Fault::locale_must_be_a_hint(), format!("{name} with mustUnderstand")));
                }
                if locale.qualified_attribute(namespace::XML, "lang").is_none() {
                    return Err((Fault::header_invalid(name), format!("{name} without xml:lang")));
                }
            }
        }
        let max_envelope_size = match header.child(namespace::MANAGEMENT, "MaxEnvelopeSize") {
            None => {
                tolerated.push("header MaxEnvelopeSize is missing".to_owned());
                DEFAULT_ENVELOPE
            }
            Some(element) => {
                marked(element, &mut tolerated);
                let size = element.text.trim().parse().map_err(|_| {
                    (
                        Fault::header_invalid("MaxEnvelopeSize"),
                        format!("MaxEnvelopeSize {:?} is not a number", element.text),
                    )
                })?;
                if size < SMALLEST_ENVELOPE {
                    return Err((
                        Fault::envelope_size_too_small(),
                        format!("MaxEnvelopeSize {size} is below {SMALLEST_ENVELOPE}"),
                    ));
                }
                size
            }
        };
        let operation_timeout = match header.child(namespace::MANAGEMENT, "OperationTimeout") {
            None => {
                tolerated.push("header OperationTimeout is missing".to_owned());
                DEFAULT_TIMEOUT
            }
            Some(element) => duration(element.text.trim()).ok_or_else(|| {
                (Fault::invalid_timeout(), format!("OperationTimeout {:?} is not a duration", element.text))
            })?,
        };
        if let Some(session) = header.child(namespace::MICROSOFT, "SessionId")
            && !is_message_id(session.text.trim())
        {
            return Err((Fault::header_invalid("SessionId"), format!("SessionId {:?} is not uuid:GUID", session.text)));
        }
        let named = |set: &str, item: &str| -> Result<Vec<(String, Element)>, (Fault, String)> {
            let Some(set) = header.child(namespace::MANAGEMENT, set) else { return Ok(Vec::new()) };
            let mut items: Vec<(String, Element)> = Vec::new();
            for element in &set.children {
                let name = element.attribute("Name").filter(|_| element.is(namespace::MANAGEMENT, item));
                let name =
                    name.ok_or_else(|| (Fault::schema(), format!("{} is not a list of named {item}", set.name)))?;
                if items.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
                    return Err((Fault::schema(), format!("{item} {name} more than once")));
                }
                items.push((name.to_owned(), element.clone()));
            }
            Ok(items)
        };
        let selectors = named("SelectorSet", "Selector")?
            .into_iter()
            .map(|(name, element)| (name, element.text.trim().to_owned()))
            .collect();
        let options = named("OptionSet", "Option")?
            .into_iter()
            .map(|(name, element)| HeaderOption {
                name,
                value: element.text.trim().to_owned(),
                must_comply: element.attribute("MustComply").is_some_and(is_true),
            })
            .collect();

        let operation = Operation::from_action(&action)
            .ok_or_else(|| (Fault::action_not_supported(), format!("unknown action {action}")))?;
        let body = match (operation.body(), body.children.as_slice()) {
            (None, []) => Element::default(),
            (None, _) => return Err((Fault::invalid_body(), format!("{} has a body", operation.name()))),
            (Some((space, name)), [element]) if element.is(space, name) => element.clone(),
            (Some((_, name)), [element]) if element.name == name => {
                return Err((Fault::wrong_namespace(), format!("{name} in namespace {:?}", element.namespace)));
            }
            (Some((_, name)), _) => return Err((Fault::invalid_body(), format!("the body is not one {name}"))),
        };
        Ok(Self {
            operation,
            action,
            message_id,
            to,
            resource,
            selectors,
            options,
            max_envelope_size: usize::try_from(max_envelope_size).unwrap_or(usize::MAX),
            operation_timeout,
            body,
            tolerated,
        })
    }
}

/// Builds the envelope of a response. `body` is XML with the prefixes that are declared here.
pub(crate) fn response(action: &str, relates_to: Option<&str>, body: &str) -> Vec<u8> {
    let relates_to = relates_to.map(|id| format!("<a:RelatesTo>{}</a:RelatesTo>", escape(id))).unwrap_or_default();
    let (message, activity) = (guid(), guid());
    format!(
        "<s:Envelope xml:lang=\"en-US\" xmlns:s=\"{}\" xmlns:a=\"{}\" xmlns:x=\"http://schemas.xmlsoap.org/ws/2004/09/transfer\" \
         xmlns:w=\"{}\" xmlns:rsp=\"{}\" xmlns:n=\"{}\" xmlns:p=\"{}\"><s:Header><a:Action>{action}</a:Action>\
         <a:MessageID>uuid:{message}</a:MessageID><p:ActivityId>{activity}</p:ActivityId><a:To>{ANONYMOUS}</a:To>{relates_to}</s:Header>\
         <s:Body>{body}</s:Body></s:Envelope>",
        namespace::SOAP,
        namespace::ADDRESSING,
        namespace::MANAGEMENT,
        namespace::SHELL,
        namespace::ENUMERATION,
        namespace::MICROSOFT,
    )
    .into_bytes()
}

/// The answer to Identify. Who has not authenticated does not learn the version of the system.
pub(crate) fn identify_response(authenticated: bool) -> Vec<u8> {
    let version = if authenticated { "10.0.14393" } else { "0.0.0" };
    format!(
        "<s:Envelope xml:lang=\"en-US\" xmlns:s=\"{}\"><s:Header/><s:Body><wsmid:IdentifyResponse xmlns:wsmid=\"{}\">\
         <wsmid:ProtocolVersion>{}</wsmid:ProtocolVersion><wsmid:ProductVendor>Microsoft Corporation</wsmid:ProductVendor>\
         <wsmid:ProductVersion>OS: {version} SP: 0.0 Stack: 3.0</wsmid:ProductVersion></wsmid:IdentifyResponse></s:Body></s:Envelope>",
        namespace::SOAP,
        namespace::IDENTITY,
        namespace::MANAGEMENT,
    )
    .into_bytes()
}

/// A new id, as Windows writes them.
pub(crate) fn guid() -> String {
    Uuid::new_v4().to_string().to_uppercase()
}

/// `True`, `TRUE`, `true` or `1`: clients write all of them.
pub(crate) fn is_true(value: &str) -> bool {
    value.eq_ignore_ascii_case("true") || value == "1"
}

/// A positive `xs:duration` without years and months, which have no fixed length.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let rest = text.strip_prefix('P')?;
    let (days, time) = rest.split_once('T').map_or((rest, None), |(days, time)| (days, Some(time)));
    if rest.is_empty() || time == Some("") {
        return None;
    }
    let mut total = Duration::ZERO;
    let mut read = |part: &str, units: &[(char, u64)]| -> Option<()> {
        let mut digits = String::new();
        let mut units = units.iter();
        for character in part.chars() {
            if character.is_ascii_digit() || character == '.' {
                digits.push(character);
                continue;
            }
            let (unit, seconds) = units.find(|(unit, _)| *unit == character)?;
            let plain = digits.chars().all(|digit| digit.is_ascii_digit());
            let value: f64 = if plain || *unit == 'S' { digits.parse().ok()? } else { return None };
            total = total.checked_add(Duration::try_from_secs_f64(value * *seconds as f64).ok()?)?;
            digits.clear();
        }
        digits.is_empty().then_some(())
    };
    read(days, &[('D', 86_400)])?;
    read(time.unwrap_or_default(), &[('H', 3600), ('M', 60), ('S', 1)])?;
    Some(total)
}

fn must_understand(element: &Element) -> bool {
    element
        .qualified_attribute(namespace::SOAP, "mustUnderstand")
        .or_else(|| element.attribute("mustUnderstand"))
        .is_some_and(is_true)
}

fn is_message_id(text: &str) -> bool {
    text.strip_prefix("uuid:").is_some_and(|id| id.len() == 36 && Uuid::try_parse(id).is_ok())
}

#[cfg(test)]
mod tests;
