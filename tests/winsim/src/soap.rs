//! XML in, bounded: a namespace-resolved tree of one SOAP envelope. And escaping for XML out.
//!
//! Sans I/O. Document types, entities other than the five of XML, processing instructions and deep nesting are refused.

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::ResolveResult;
use quick_xml::reader::NsReader;

/// The namespaces of WS-Management, as Windows uses them.
pub(crate) mod namespace {
    pub(crate) const SOAP: &str = "http://www.w3.org/2003/05/soap-envelope";
    pub(crate) const ADDRESSING: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing";
    pub(crate) const MANAGEMENT: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd";
    pub(crate) const MICROSOFT: &str = "http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd";
    pub(crate) const SHELL: &str = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell";
    pub(crate) const ENUMERATION: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration";
    pub(crate) const IDENTITY: &str = "http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd";
    pub(crate) const XML: &str = "http://www.w3.org/XML/1998/namespace";
}

const MAX_DEPTH: usize = 32;
const MAX_ELEMENTS: usize = 20_000;

/// One element with everything below it. Text is that of the element itself, children's excluded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) text: String,
    pub(crate) children: Vec<Element>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attribute {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) value: String,
}

/// The document is not one that a WS-Management service reads.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct InvalidXml(String);

impl Element {
    /// Parses a whole document.
    pub(crate) fn parse(document: &[u8]) -> Result<Self, InvalidXml> {
        let document = std::str::from_utf8(document).map_err(|_| InvalidXml("not UTF-8".to_owned()))?;
        let document = document.strip_prefix('\u{feff}').unwrap_or(document);
        let mut reader = NsReader::from_str(document);
        let mut open: Vec<Self> = Vec::new();
        let mut root = None;
        let mut elements = 0;
        loop {
            let event = reader.read_event().map_err(|error| InvalidXml(error.to_string()))?;
            match event {
                Event::Start(start) => {
                    elements += 1;
                    if open.len() >= MAX_DEPTH || elements > MAX_ELEMENTS || root.is_some() {
                        return Err(InvalidXml("too deep, too many elements or more than one root".to_owned()));
                    }
                    open.push(Self::from_tag(&reader, &start)?);
                }
                Event::Empty(start) => {
                    elements += 1;
                    if elements > MAX_ELEMENTS {
                        return Err(InvalidXml("too many elements".to_owned()));
                    }
                    let element = Self::from_tag(&reader, &start)?;
                    match open.last_mut() {
                        Some(parent) => parent.children.push(element),
                        None if root.is_none() => root = Some(element),
                        None => return Err(InvalidXml("more than one root".to_owned())),
                    }
                }
                Event::End(_) => {
                    // The reader has checked that the names match, so something is open.
                    let Some(element) = open.pop() else { return Err(InvalidXml("unexpected end tag".to_owned())) };
                    match open.last_mut() {
                        Some(parent) => parent.children.push(element),
                        None => root = Some(element),
                    }
                }
                Event::Text(text) => Self::append(&mut open, &text.xml10_content())?,
                Event::CData(text) => Self::append(&mut open, &text.xml10_content())?,
                Event::GeneralRef(reference) => {
                    let character = match reference.resolve_char_ref().map_err(|error| InvalidXml(error.to_string()))? {
                        Some(character) => character,
                        None => match &*reference.xml10_content() {
                            "lt" => '<',
                            "gt" => '>',
                            "amp" => '&',
                            "apos" => '\'',
                            "quot" => '"',
                            other => return Err(InvalidXml(format!("unknown entity {other}"))),
                        },
                    };
                    Self::append(&mut open, character.encode_utf8(&mut [0; 4]))?;
                }
                Event::Decl(_) | Event::Comment(_) => {}
                Event::PI(_) => return Err(InvalidXml("processing instruction".to_owned())),
                Event::DocType(_) => return Err(InvalidXml("document type".to_owned())),
                Event::Eof => break,
            }
        }
        match root {
            Some(root) if open.is_empty() => Ok(root),
            _ => Err(InvalidXml("the document ends too early".to_owned())),
        }
    }

    fn append(open: &mut [Self], text: &str) -> Result<(), InvalidXml> {
        match open.last_mut() {
            Some(element) => element.text.push_str(text),
            None if text.trim().is_empty() => {}
            None => return Err(InvalidXml("text outside the root element".to_owned())),
        }
        Ok(())
    }

    fn from_tag(reader: &NsReader<&[u8]>, start: &BytesStart<'_>) -> Result<Self, InvalidXml> {
        let bound = |result: ResolveResult<'_>| match result {
            ResolveResult::Bound(namespace) => Ok(namespace.0.to_owned()),
            ResolveResult::Unbound => Ok(String::new()),
            ResolveResult::Unknown(prefix) => Err(InvalidXml(format!("prefix {prefix:?} is not declared"))),
        };
        let (namespace, name) = reader.resolver().resolve_element(start.name());
        let mut element = Self { namespace: bound(namespace)?, name: name.as_ref().to_owned(), ..Self::default() };
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|error| InvalidXml(error.to_string()))?;
            if attribute.key.as_namespace_binding().is_some() {
                continue;
            }
            let (namespace, name) = reader.resolver().resolve_attribute(attribute.key);
            let value =
                attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|error| InvalidXml(error.to_string()))?;
            element.attributes.push(Attribute {
                namespace: bound(namespace)?,
                name: name.as_ref().to_owned(),
                value: value.into_owned(),
            });
        }
        Ok(element)
    }

    pub(crate) fn is(&self, namespace: &str, name: &str) -> bool {
        self.namespace == namespace && self.name == name
    }

    pub(crate) fn child(&self, namespace: &str, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.is(namespace, name))
    }

    pub(crate) fn children<'a>(&'a self, namespace: &'a str, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.is(namespace, name))
    }

    /// An attribute without namespace.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.qualified_attribute("", name)
    }

    pub(crate) fn qualified_attribute(&self, namespace: &str, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|attribute| attribute.namespace == namespace && attribute.name == name)
            .map(|attribute| attribute.value.as_str())
    }
}

/// Escapes text for element content and for attribute values in double quotes.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_resolved_and_entities_decoded() {
        let element = Element::parse(b"<?xml version=\"1.0\"?><a:b xmlns:a=\"u:1\" xmlns=\"u:2\" a:x=\"1&amp;2\" y='3'>p&lt;&#65;<c/>q<![CDATA[<]]></a:b>")
            .expect("well-formed");
        assert!(element.is("u:1", "b"));
        assert_eq!(element.text, "p<Aq<");
        assert!(element.children[0].is("u:2", "c"));
        assert_eq!(element.qualified_attribute("u:1", "x"), Some("1&2"));
        assert_eq!(element.attribute("y"), Some("3"));
    }

    #[test]
    fn hostile_documents_are_refused() {
        let deep = "<a>".repeat(100) + &"</a>".repeat(100);
        for document in [
            "<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>",
            "<a>&b;</a>",
            "<a><b></a></b>",
            "<a/><b/>",
            "<a></a>text",
            "<p:a/>",
            "<?php x?><a/>",
            "",
            "<a>",
            &deep,
        ] {
            assert!(Element::parse(document.as_bytes()).is_err(), "{document}");
        }
        assert!(Element::parse(b"<a>\xff</a>").is_err());
    }
}
