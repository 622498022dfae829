//! Bounded SOAP 1.2: an XML writer that refuses what XML 1.0 cannot carry, and a reader that refuses what SOAP does not have.
//!
//! The reader matches names by namespace, never by prefix. It takes no document types, entities of its own or processing
//! instructions, so that nothing can expand, and bounds size, depth, attributes and namespace declarations. It borrows from
//! the message. Used by [`crate::wsman`] only; it knows nothing of shells.

use std::borrow::Cow;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::{PrefixDeclaration, QName};

/// Largest answer that is read. Hosts stay below the MaxEnvelopeSize of the request, which is a quarter of this.
pub const MAX_ANSWER: usize = 2 * 1024 * 1024;
/// Elements within elements. Real answers have about ten.
const MAX_DEPTH: usize = 32;
/// Attributes of one element, namespace declarations included. Real answers have about ten.
const MAX_ATTRIBUTES: usize = 48;
/// Namespace declarations in scope.
const MAX_NAMESPACES: usize = 128;

/// Why a message is no acceptable SOAP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SoapError {
    /// Beyond the bound.
    #[error("larger than {limit} bytes")]
    TooLarge {
        /// The bound, in bytes.
        limit: usize,
    },
    /// No UTF-8.
    #[error("not UTF-8")]
    Encoding,
    /// No well-formed XML.
    #[error("not well-formed at byte {position}: {detail}")]
    Xml {
        /// Where.
        position: u64,
        /// What the parser said.
        detail: String,
    },
    /// Something that SOAP messages must not hold.
    #[error("holds a {0}, which SOAP does not allow")]
    Forbidden(&'static str),
    /// Beyond a bound on its structure.
    #[error("holds too many {0}")]
    Bound(&'static str),
    /// Something else than what is expected.
    #[error("{0}")]
    Unexpected(Cow<'static, str>),
    /// Stream data that is no base64.
    #[error("stream data is not base64")]
    Base64,
    /// It answers another request.
    #[error("relates to {found}")]
    WrongRelatesTo {
        /// What it relates to.
        found: String,
    },
}

/// Namespaces that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ns {
    /// SOAP 1.2 envelope.
    Soap,
    /// WS-Addressing.
    Addressing,
    /// WS-Transfer.
    Transfer,
    /// WS-Enumeration.
    Enumeration,
    /// WS-Management.
    Wsman,
    /// Windows remote shell.
    Shell,
    /// WS-Management Identify.
    Identity,
    /// Windows faults.
    WsmanFault,
    /// WMI errors.
    WmiError,
    /// Configuration of the service, its listeners, its shells: real hosts give each part a namespace of its own.
    Config,
    /// Any other, or none.
    Other,
}

impl Ns {
    fn of(uri: &str) -> Self {
        match uri {
            uri::SOAP => Self::Soap,
            uri::ADDRESSING => Self::Addressing,
            uri::TRANSFER => Self::Transfer,
            uri::ENUMERATION => Self::Enumeration,
            uri::WSMAN => Self::Wsman,
            uri::SHELL => Self::Shell,
            uri::IDENTITY => Self::Identity,
            uri::WSMAN_FAULT => Self::WsmanFault,
            uri::WMI_ERROR => Self::WmiError,
            uri => match uri.strip_prefix(uri::CONFIG) {
                Some(part) if part.is_empty() || part.starts_with('/') => Self::Config,
                _ => Self::Other,
            },
        }
    }
}

/// Namespace names.
pub mod uri {
    /// SOAP 1.2 envelope.
    pub const SOAP: &str = "http://www.w3.org/2003/05/soap-envelope";
    /// WS-Addressing.
    pub const ADDRESSING: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing";
    /// WS-Transfer.
    pub const TRANSFER: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer";
    /// WS-Enumeration.
    pub const ENUMERATION: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration";
    /// WS-Management.
    pub const WSMAN: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd";
    /// Microsoft's additions to WS-Management.
    pub const WSMV: &str = "http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd";
    /// Windows remote shell.
    pub const SHELL: &str = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell";
    /// WS-Management Identify.
    pub const IDENTITY: &str = "http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd";
    /// Windows faults.
    pub const WSMAN_FAULT: &str = "http://schemas.microsoft.com/wbem/wsman/1/wsmanfault";
    /// Configuration of the service ([MS-WSMV] 2.2.4.10). Its parts stand below it.
    ///
    /// [MS-WSMV]: https://learn.microsoft.com/en-us/openspecs/windows_protocols/ms-wsmv/
    pub const CONFIG: &str = "http://schemas.microsoft.com/wbem/wsman/1/config";
    /// Of the prefix `xml`.
    pub const XML: &str = "http://www.w3.org/XML/1998/namespace";
    /// Of namespace declarations.
    pub const XMLNS: &str = "http://www.w3.org/2000/xmlns/";
    /// WMI errors.
    pub const WMI_ERROR: &str = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/MSFT_WmiError";
}

/// An element that the reader stands in.
#[derive(Debug, Clone)]
pub struct Element<'i> {
    ns: Ns,
    start: BytesStart<'i>,
    depth: usize,
}

impl Element<'_> {
    /// Whether it has this name.
    #[must_use]
    pub fn is(&self, ns: Ns, local: &str) -> bool {
        self.ns == ns && self.local() == local
    }

    /// Its namespace.
    #[must_use]
    pub fn ns(&self) -> Ns {
        self.ns
    }

    /// Its name without prefix.
    #[must_use]
    pub fn local(&self) -> &str {
        self.start.local_name().into_inner()
    }

    /// The value of an attribute that has no prefix.
    ///
    /// # Errors
    /// [`SoapError`] when the attributes are malformed.
    pub fn attribute(&self, name: &str) -> Result<Option<Cow<'_, str>>, SoapError> {
        // INVARIANT: the reader has refused duplicates before it handed the element out.
        for attribute in self.start.attributes().with_checks(false) {
            let attribute = attribute.map_err(|error| malformed(0, &error))?;
            if attribute.key.as_ref() == name {
                let value =
                    attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|error| malformed(0, &error))?;
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

/// Reads one message from start to end. Children that are not asked for are skipped.
#[derive(Debug)]
pub struct Reader<'i> {
    inner: quick_xml::Reader<&'i [u8]>,
    depth: usize,
    scopes: Scopes,
}

/// Namespace declarations in scope. quick-xml has a reader for that, which goes over all attributes once more and keeps the
/// names of namespaces, to be compared again for each element: a third of the time that an answer takes.
#[derive(Debug)]
struct Scopes {
    bindings: Vec<Binding>,
    /// All their prefixes, one after the other.
    prefixes: String,
}

/// One declaration.
#[derive(Debug)]
struct Binding {
    /// Of the element that it stands at.
    depth: usize,
    /// Where its prefix begins; empty is the default namespace.
    prefix: usize,
    /// Nothing: the declaration is taken back (`xmlns=""`).
    ns: Option<Ns>,
}

impl Scopes {
    /// [Namespaces in XML 1.0], section 3: what may not be declared, is not.
    ///
    /// [Namespaces in XML 1.0]: https://www.w3.org/TR/xml-names/
    fn declare(&mut self, depth: usize, declaration: PrefixDeclaration<'_>, uri: &str) -> Result<(), SoapError> {
        const RESERVED: SoapError = SoapError::Forbidden("declaration of a reserved namespace");
        let prefix = match declaration {
            PrefixDeclaration::Named("xml") if uri == uri::XML => return Ok(()),
            PrefixDeclaration::Named("xml" | "xmlns") => return Err(RESERVED),
            PrefixDeclaration::Named(_) if uri == uri::XML || uri == uri::XMLNS => return Err(RESERVED),
            PrefixDeclaration::Named(prefix) => prefix,
            PrefixDeclaration::Default => "",
        };
        if self.bindings.len() == MAX_NAMESPACES {
            return Err(SoapError::Bound("namespace declarations"));
        }
        let ns = (!uri.is_empty()).then(|| Ns::of(uri));
        self.bindings.push(Binding { depth, prefix: self.prefixes.len(), ns });
        self.prefixes.push_str(prefix);
        Ok(())
    }

    /// The namespace of an element with this name.
    fn resolve(&self, name: QName<'_>) -> Result<Ns, SoapError> {
        let unknown = SoapError::Unexpected("a prefix without namespace".into());
        let prefix = match name.prefix().map(|prefix| prefix.into_inner()) {
            Some("") => return Err(unknown),
            prefix => prefix.unwrap_or_default(),
        };
        let mut end = self.prefixes.len();
        for binding in self.bindings.iter().rev() {
            if self.prefixes.get(binding.prefix..end) == Some(prefix) {
                match binding.ns {
                    Some(ns) => return Ok(ns),
                    None => break,
                }
            }
            end = binding.prefix;
        }
        // The default namespace, and those that need no declaration.
        if matches!(prefix, "" | "xml" | "xmlns") { Ok(Ns::Other) } else { Err(unknown) }
    }

    /// An element of this depth has ended.
    fn leave(&mut self, depth: usize) {
        while let Some(binding) = self.bindings.pop_if(|binding| binding.depth >= depth) {
            self.prefixes.truncate(binding.prefix);
        }
    }
}

impl<'i> Reader<'i> {
    /// Starts reading and returns the root element.
    ///
    /// # Errors
    /// [`SoapError`] when the message is too large, no UTF-8, or does not start with an element.
    pub fn open(message: &'i [u8]) -> Result<(Self, Element<'i>), SoapError> {
        if message.len() > MAX_ANSWER {
            return Err(SoapError::TooLarge { limit: MAX_ANSWER });
        }
        let text = std::str::from_utf8(message).map_err(|_| SoapError::Encoding)?;
        let mut inner = quick_xml::Reader::from_str(text.trim_start_matches('\u{feff}'));
        inner.config_mut().expand_empty_elements = true;
        // Room for what real answers declare.
        let scopes = Scopes { bindings: Vec::with_capacity(16), prefixes: String::with_capacity(64) };
        let mut reader = Self { inner, depth: 0, scopes };
        loop {
            match reader.next()? {
                Node::Start(root) => return Ok((reader, root)),
                Node::Text(text) if text.trim().is_empty() => {}
                _ => return Err(SoapError::Unexpected("no element".into())),
            }
        }
    }

    /// The next child of `parent`, or nothing after its end.
    ///
    /// # Errors
    /// [`SoapError`] when the message is malformed.
    pub fn child(&mut self, parent: &Element<'_>) -> Result<Option<Element<'i>>, SoapError> {
        if self.depth < parent.depth {
            return Ok(None);
        }
        loop {
            match self.next()? {
                Node::Start(element) if element.depth == parent.depth + 1 => return Ok(Some(element)),
                Node::End if self.depth < parent.depth => return Ok(None),
                Node::Eof => return Err(SoapError::Unexpected("the message ends early".into())),
                Node::Start(_) | Node::End | Node::Text(_) => {}
            }
        }
    }

    /// The next child of `parent` with this name.
    ///
    /// # Errors
    /// [`SoapError`] when the message is malformed.
    pub fn find(&mut self, parent: &Element<'_>, ns: Ns, local: &str) -> Result<Option<Element<'i>>, SoapError> {
        while let Some(child) = self.child(parent)? {
            if child.is(ns, local) {
                return Ok(Some(child));
            }
        }
        Ok(None)
    }

    /// All text in `element`, that of its children included.
    ///
    /// # Errors
    /// [`SoapError`] when the message is malformed.
    pub fn text(&mut self, element: &Element<'_>) -> Result<Cow<'i, str>, SoapError> {
        let mut whole: Cow<'i, str> = Cow::Borrowed("");
        while self.depth >= element.depth {
            match self.next()? {
                Node::Text(text) if whole.is_empty() => whole = text,
                Node::Text(text) => whole.to_mut().push_str(&text),
                Node::Eof => return Err(SoapError::Unexpected("the message ends early".into())),
                Node::Start(_) | Node::End => {}
            }
        }
        Ok(whole)
    }

    /// Decodes the base64 text of `element` and appends it to `out`.
    ///
    /// # Errors
    /// [`SoapError`] when the message is malformed or the text no base64.
    pub fn base64(&mut self, element: &Element<'_>, out: &mut Vec<u8>) -> Result<(), SoapError> {
        let text = self.text(element)?;
        let trimmed = text.trim();
        if trimmed.bytes().any(|byte| byte.is_ascii_whitespace()) {
            let dense: String = trimmed.split_ascii_whitespace().collect();
            STANDARD.decode_vec(dense, out)
        } else {
            STANDARD.decode_vec(trimmed, out)
        }
        .map_err(|_| SoapError::Base64)
    }

    /// Reads to the end of the message.
    ///
    /// # Errors
    /// [`SoapError`] when the rest is malformed, or holds more than the root element.
    pub fn finish(mut self) -> Result<(), SoapError> {
        let mut closed = self.depth == 0;
        loop {
            match self.next()? {
                Node::Eof if closed => return Ok(()),
                Node::Eof => return Err(SoapError::Unexpected("the message ends early".into())),
                Node::Start(_) if closed => return Err(SoapError::Unexpected("more than one root element".into())),
                Node::Text(text) if closed && !text.trim().is_empty() => {
                    return Err(SoapError::Unexpected("text after the root element".into()));
                }
                Node::End => closed = self.depth == 0,
                Node::Start(_) | Node::Text(_) => {}
            }
        }
    }

    fn next(&mut self) -> Result<Node<'i>, SoapError> {
        loop {
            let event = match self.inner.read_event() {
                Ok(event) => event,
                Err(error) => return Err(malformed(self.inner.error_position(), &error)),
            };
            match event {
                Event::Start(start) => {
                    self.depth += 1;
                    if self.depth > MAX_DEPTH {
                        return Err(SoapError::Bound("nested elements"));
                    }
                    let mut count = 0;
                    for attribute in start.attributes() {
                        let attribute = attribute.map_err(|error| malformed(self.inner.buffer_position(), &error))?;
                        count += 1;
                        if count > MAX_ATTRIBUTES {
                            return Err(SoapError::Bound("attributes"));
                        }
                        if let Some(declaration) = attribute.key.as_namespace_binding() {
                            self.scopes.declare(self.depth, declaration, &attribute.value)?;
                        }
                    }
                    let ns = self.scopes.resolve(start.name())?;
                    return Ok(Node::Start(Element { ns, start, depth: self.depth }));
                }
                Event::End(_) => {
                    self.scopes.leave(self.depth);
                    // The parser checks that end tags match, so that this cannot run below zero; it must not panic anyway.
                    self.depth = self.depth.saturating_sub(1);
                    return Ok(Node::End);
                }
                Event::Text(text) => return Ok(Node::Text(text.into_inner())),
                Event::CData(data) => return Ok(Node::Text(data.into_inner())),
                Event::GeneralRef(reference) => {
                    let position = self.inner.buffer_position();
                    if let Some(character) =
                        reference.resolve_char_ref().map_err(|error| malformed(position, &error))?
                    {
                        return Ok(Node::Text(Cow::Owned(character.to_string())));
                    }
                    // Only the five entities of XML itself: others would need a document type.
                    let text = quick_xml::escape::resolve_xml_entity(&reference.xml10_content())
                        .ok_or(SoapError::Forbidden("entity of its own"))?;
                    return Ok(Node::Text(Cow::Borrowed(text)));
                }
                Event::Comment(_) | Event::Decl(_) => {}
                Event::DocType(_) => return Err(SoapError::Forbidden("document type")),
                Event::PI(_) => return Err(SoapError::Forbidden("processing instruction")),
                Event::Eof => return Ok(Node::Eof),
                Event::Empty(_) => return Err(SoapError::Unexpected("an empty element that was not expanded".into())),
            }
        }
    }
}

enum Node<'i> {
    Start(Element<'i>),
    End,
    Text(Cow<'i, str>),
    Eof,
}

fn malformed(position: u64, error: &dyn std::fmt::Display) -> SoapError {
    SoapError::Xml { position, detail: error.to_string() }
}

/// Why a value cannot be put into a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} holds the character U+{character:04X}, which XML cannot carry")]
pub struct Unsendable {
    /// Which value.
    pub what: &'static str,
    /// The character.
    pub character: u32,
}

/// Writes a message.
#[derive(Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// An empty message with room for `capacity` bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { out: Vec::with_capacity(capacity) }
    }

    /// Appends markup of our own.
    pub fn markup(&mut self, markup: &str) -> &mut Self {
        self.out.extend_from_slice(markup.as_bytes());
        self
    }

    /// Appends a value, in an element or a double-quoted attribute; `what` names it in the error.
    ///
    /// # Errors
    /// [`Unsendable`] when it holds a character that XML 1.0 does not have.
    pub fn value(&mut self, what: &'static str, value: &str) -> Result<&mut Self, Unsendable> {
        for character in value.chars() {
            match character {
                '&' => self.out.extend_from_slice(b"&amp;"),
                '<' => self.out.extend_from_slice(b"&lt;"),
                '>' => self.out.extend_from_slice(b"&gt;"),
                '"' => self.out.extend_from_slice(b"&quot;"),
                // References, because parsers turn the characters themselves into others: U+000D in text, all of them
                // in attributes.
                '\r' => self.out.extend_from_slice(b"&#13;"),
                '\n' => self.out.extend_from_slice(b"&#10;"),
                '\t' => self.out.extend_from_slice(b"&#9;"),
                '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {
                    return Err(Unsendable { what, character: u32::from(character) });
                }
                _ => {
                    let mut buffer = [0; 4];
                    self.out.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
                }
            }
        }
        Ok(self)
    }

    /// Appends `data` in base64.
    pub fn base64(&mut self, data: &[u8]) -> &mut Self {
        let start = self.out.len();
        self.out.resize(start + data.len().div_ceil(3) * 4, 0);
        let written = STANDARD.encode_slice(data, self.out.get_mut(start..).unwrap_or_default()).unwrap_or_default();
        self.out.truncate(start + written);
        self
    }

    /// Appends formatted text that needs no escaping, such as numbers.
    pub fn plain(&mut self, text: std::fmt::Arguments<'_>) -> &mut Self {
        // Writing into a Vec cannot fail.
        let _ = self.out.write_fmt(text);
        self
    }

    /// The message.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}

#[cfg(test)]
mod tests;
