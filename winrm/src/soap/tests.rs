use proptest::prelude::*;

use super::*;

fn envelope(body: &str) -> String {
    format!("<s:Envelope xmlns:s=\"{}\"><s:Body>{body}</s:Body></s:Envelope>", uri::SOAP)
}

fn read_all(message: &[u8]) -> Result<String, SoapError> {
    let (mut reader, root) = Reader::open(message)?;
    let text = reader.text(&root)?.into_owned();
    reader.finish()?;
    Ok(text)
}

#[test]
fn names_match_by_namespace_not_prefix() {
    let message = format!(
        "<x:Envelope xmlns:x='{}'><Body xmlns='{}'><s:Body xmlns:s='urn:other'/></Body></x:Envelope>",
        uri::SOAP,
        uri::SOAP
    );
    let (mut reader, root) = Reader::open(message.as_bytes()).unwrap();
    assert!(root.is(Ns::Soap, "Envelope"));
    let body = reader.child(&root).unwrap().unwrap();
    assert!(body.is(Ns::Soap, "Body"));
    let other = reader.child(&body).unwrap().unwrap();
    assert!(!other.is(Ns::Soap, "Body"));
    assert!(reader.child(&other).unwrap().is_none());
    assert!(reader.child(&body).unwrap().is_none());
    assert!(reader.child(&root).unwrap().is_none());
    reader.finish().unwrap();
}

#[test]
fn unread_children_are_skipped() {
    let message = "<a><b><c>deep</c></b><d>shallow</d></a>";
    let (mut reader, root) = Reader::open(message.as_bytes()).unwrap();
    let b = reader.child(&root).unwrap().unwrap();
    assert_eq!(b.local(), "b");
    let d = reader.find(&root, Ns::Other, "d").unwrap().unwrap();
    assert_eq!(reader.text(&d).unwrap(), "shallow");
    reader.finish().unwrap();
}

#[test]
fn an_entity_bomb_is_refused_before_it_expands() {
    let bomb = "<!DOCTYPE l [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;'>]><l>&b;</l>";
    assert_eq!(read_all(bomb.as_bytes()), Err(SoapError::Forbidden("document type")));
    assert_eq!(read_all(b"<l>&b;</l>"), Err(SoapError::Forbidden("entity of its own")));
    assert!(read_all(b"<l a='&b;'/>").is_ok_and(|text| text.is_empty()));
    let (_, root) = Reader::open(b"<l a='&b;'/>").unwrap();
    assert!(root.attribute("a").is_err());
}

#[test]
fn structure_is_bounded() {
    let deep = format!("{}{}", "<a>".repeat(MAX_DEPTH + 1), "</a>".repeat(MAX_DEPTH + 1));
    assert_eq!(read_all(deep.as_bytes()), Err(SoapError::Bound("nested elements")));
    let deep = format!("{}{}", "<a>".repeat(MAX_DEPTH), "</a>".repeat(MAX_DEPTH));
    assert!(read_all(deep.as_bytes()).is_ok());
    let attributes: String = (0..=MAX_ATTRIBUTES).map(|n| format!(" a{n}=''")).collect();
    assert_eq!(read_all(format!("<a{attributes}/>").as_bytes()), Err(SoapError::Bound("attributes")));
    let namespaces: String = (0..200).map(|n| format!(" xmlns:n{n}='urn:{n}'")).collect();
    assert!(read_all(format!("<a{namespaces}/>").as_bytes()).is_err());
    let large = envelope(&"x".repeat(MAX_ANSWER));
    assert_eq!(read_all(large.as_bytes()), Err(SoapError::TooLarge { limit: MAX_ANSWER }));
}

#[test]
fn what_is_no_soap_is_refused() {
    for bad in [
        "",
        "  ",
        "text",
        "<a>",
        "<a></b>",
        "</a>",
        "<a/><b/>",
        "<a/>text",
        "<a b=1/>",
        "<a b='1' b='2'/>",
        "<p:a/>",
        "<?x y?><a/>",
        "<a>&</a>",
        "<a>&#0;</a>",
        "<a>&#xFFFFFFFF;</a>",
        "<a",
    ] {
        assert!(read_all(bad.as_bytes()).is_err(), "{bad:?}");
    }
    assert_eq!(read_all(b"<a>\xff</a>"), Err(SoapError::Encoding));
    assert_eq!(
        read_all("\u{feff}<?xml version='1.0'?>\n<!-- c --><a> b&amp;&#65;<![CDATA[<c>]]></a>\n".as_bytes()).unwrap(),
        " b&A<c>"
    );
}

#[test]
fn base64_is_checked_and_appended() {
    let message = b"<a><b>aGk=</b><b>\n IHRo\r\nZXJl </b><b></b><b>aGk</b></a>";
    let (mut reader, root) = Reader::open(message).unwrap();
    let mut out = Vec::new();
    for _ in 0..3 {
        let b = reader.child(&root).unwrap().unwrap();
        reader.base64(&b, &mut out).unwrap();
    }
    assert_eq!(out, b"hi there");
    let b = reader.child(&root).unwrap().unwrap();
    assert_eq!(reader.base64(&b, &mut out), Err(SoapError::Base64));
}

#[test]
fn characters_that_xml_does_not_have_are_refused() {
    let mut writer = Writer::default();
    assert_eq!(
        writer.value("the command", "a\u{1}").map(drop).unwrap_err().to_string(),
        "the command holds the character U+0001, which XML cannot carry"
    );
    assert!(writer.value("it", "\0").is_err());
    assert!(writer.value("it", "\u{ffff}").is_err());
}

proptest! {
    #[test]
    fn values_survive_text_and_attribute(value in "[^\\x00-\\x08\\x0B\\x0C\\x0E-\\x1F\u{fffe}\u{ffff}]*") {
        let mut writer = Writer::default();
        writer.markup("<a b=\"");
        writer.value("it", &value).unwrap();
        writer.markup("\">");
        writer.value("it", &value).unwrap();
        writer.markup("</a>");
        let message = writer.finish();
        let (mut reader, root) = Reader::open(&message).unwrap();
        prop_assert_eq!(root.attribute("b").unwrap().unwrap(), value.as_str());
        prop_assert_eq!(reader.text(&root).unwrap(), value.as_str());
        reader.finish().unwrap();
    }

    #[test]
    fn data_survives_base64(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut writer = Writer::default();
        writer.markup("<a>").base64(&data).markup("</a>");
        let message = writer.finish();
        let (mut reader, root) = Reader::open(&message).unwrap();
        let mut out = Vec::new();
        reader.base64(&root, &mut out).unwrap();
        prop_assert_eq!(out, data);
    }

    #[test]
    fn arbitrary_bytes_never_panic(data in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = read_all(&data);
    }

    #[test]
    fn arbitrary_markup_never_panics(text in "[<>/a&;:='\" !\\[\\]x\\-?#0-9]{0,200}") {
        let _ = read_all(text.as_bytes());
    }
}

/// [Namespaces in XML 1.0](https://www.w3.org/TR/xml-names/), sections 3 and 6: scopes end with their element, declarations
/// can be taken back, `xml` needs none, and reserved names cannot be declared.
#[test]
fn declarations_hold_for_their_element_only() {
    let names = |message: &str| -> Result<Vec<Ns>, SoapError> {
        let (mut reader, root) = Reader::open(message.as_bytes())?;
        let mut found = vec![root.ns()];
        while let Some(child) = reader.child(&root)? {
            found.push(child.ns());
        }
        reader.finish()?;
        Ok(found)
    };
    let (soap, shell) = (uri::SOAP, uri::SHELL);
    assert_eq!(
        names(&format!(
            "<s:a xmlns:s='{soap}' xmlns='{shell}'><b/><s:b xmlns:s='{shell}'/><s:b/><b xmlns=''/><b/><b xmlns='urn:x'><c/></b><xml:b/></s:a>"
        )),
        Ok(vec![Ns::Soap, Ns::Shell, Ns::Shell, Ns::Soap, Ns::Other, Ns::Shell, Ns::Other, Ns::Other])
    );
    let missing = Err(SoapError::Unexpected("a prefix without namespace".into()));
    assert_eq!(names(&format!("<a><b xmlns:s='{soap}'/><s:b/></a>")), missing);
    assert_eq!(names(&format!("<a xmlns:s='{soap}'><s:b xmlns:s=''/></a>")), missing);
    assert_eq!(names(&format!("<:a xmlns='{soap}'/>")), missing);
    for reserved in [
        "xmlns:xml='urn:x'".to_owned(),
        "xmlns:xmlns='urn:x'".to_owned(),
        format!("xmlns:x='{}'", uri::XML),
        format!("xmlns:x='{}'", uri::XMLNS),
    ] {
        assert!(names(&format!("<a {reserved}/>")).is_err(), "{reserved}");
    }
    assert_eq!(names(&format!("<xml:a xmlns:xml='{}'/>", uri::XML)), Ok(vec![Ns::Other]));
    // More at once than are kept.
    let declarations: String = (0..40).map(|number| format!(" xmlns:n{number}='urn:x'")).collect();
    let nested = format!("<a{declarations}><a{declarations}><a{declarations}><a{declarations}/></a></a></a>");
    assert_eq!(names(&nested), Err(SoapError::Bound("namespace declarations")));
    let beside = format!("<a>{}</a>", format!("<b{declarations}/>").repeat(10));
    assert_eq!(names(&beside).map(|names| names.len()), Ok(11));
}
