//! Answers of the host: parsed as the product parses them, and looked into where the product does not.
//!
//! Bounds are those of `lictor_winrm::soap`. Excerpts are short: they go into a report.

use std::collections::BTreeMap;
use std::time::Duration;

use lictor_winrm::fault::Fault;
use lictor_winrm::soap::{Element, Reader, SoapError};
use lictor_winrm::wsman::Response;

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) text: String,
    pub(crate) response: Response,
    pub(crate) elapsed: Duration,
}

impl Reply {
    pub(crate) fn fault(&self) -> Option<&Fault> {
        match &self.response {
            Response::Fault(fault) => Some(fault),
            _ => None,
        }
    }

    /// The text of the first element with this local name, wherever it stands.
    pub(crate) fn element(&self, local: &str) -> Option<String> {
        let (mut reader, root) = Reader::open(self.text.as_bytes()).ok()?;
        find(&mut reader, &root, local).ok().flatten()
    }

    /// Texts of the children of each element with this local name; an attribute `Name` counts as `@Name`.
    pub(crate) fn records(&self, local: &str) -> Vec<BTreeMap<String, String>> {
        let mut records = Vec::new();
        if let Ok((mut reader, root)) = Reader::open(self.text.as_bytes()) {
            // What is malformed after the first records is for the parser of the product to complain about.
            let _ = collect(&mut reader, &root, local, &mut records);
        }
        records
    }

    /// What it is, in one line.
    pub(crate) fn brief(&self) -> String {
        let milliseconds = self.elapsed.as_millis();
        match &self.response {
            Response::Fault(fault) => format!(
                "HTTP {} after {milliseconds} ms, {fault} [{:?}, subcode {}, form {}]",
                self.status,
                fault.role,
                fault.subcode.as_deref().unwrap_or("none"),
                if self.text.contains("WSManFault") { "WSManFault" } else { "other" }
            ),
            other => format!("HTTP {} after {milliseconds} ms, {}", self.status, other.name()),
        }
    }

    /// The body, shortened.
    pub(crate) fn body(&self) -> String {
        let start = self.text.find(":Body").and_then(|at| self.text[at..].find('>').map(|end| at + end + 1));
        let body = start.map_or(self.text.as_str(), |start| &self.text[start..]);
        let end = body.rfind("</").map_or(body.len(), |end| body[..end].rfind("</").unwrap_or(end));
        clip(&body[..end], 500)
    }
}

/// At most `most` characters.
pub(crate) fn clip(text: &str, most: usize) -> String {
    let mut clipped: String = text.chars().take(most).collect();
    if clipped.len() < text.len() {
        clipped.push_str(" [...]");
    }
    clipped
}

/// Output of a program on one line.
pub(crate) fn shown(bytes: &[u8]) -> String {
    clip(&format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(1000)])), 240)
}

fn find(reader: &mut Reader<'_>, parent: &Element<'_>, local: &str) -> Result<Option<String>, SoapError> {
    while let Some(child) = reader.child(parent)? {
        if child.local() == local {
            return Ok(Some(reader.text(&child)?.into_owned()));
        }
        if let Some(found) = find(reader, &child, local)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn collect(
    reader: &mut Reader<'_>,
    parent: &Element<'_>,
    local: &str,
    records: &mut Vec<BTreeMap<String, String>>,
) -> Result<(), SoapError> {
    while let Some(child) = reader.child(parent)? {
        if child.local() != local {
            collect(reader, &child, local, records)?;
            continue;
        }
        let mut record = BTreeMap::new();
        if let Some(name) = child.attribute("Name")? {
            record.insert("@Name".to_owned(), name.into_owned());
        }
        while let Some(property) = reader.child(&child)? {
            let name = property.local().to_owned();
            let text = reader.text(&property)?.into_owned();
            record.insert(name, text);
        }
        records.push(record);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_wherever_they_stand() {
        let text = "<s:E xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" xmlns:r=\"u\"><s:Body><r:L><r:Shell Name=\"n\"><r:A>1</r:A>\
                    <r:B>2</r:B></r:Shell><r:Shell><r:A>3</r:A></r:Shell></r:L></s:Body></s:E>";
        let reply = Reply { status: 200, text: text.to_owned(), response: Response::Empty, elapsed: Duration::ZERO };
        assert_eq!(reply.element("B").as_deref(), Some("2"));
        assert_eq!(reply.element("C"), None);
        let records = reply.records("Shell");
        assert_eq!(records.len(), 2);
        assert_eq!((records[0]["@Name"].as_str(), records[0]["B"].as_str(), records[1]["A"].as_str()), ("n", "2", "3"));
        assert!(reply.body().starts_with("<r:L>"), "{}", reply.body());
    }
}
