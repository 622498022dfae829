//! The SOAP reader and writer.

use lictor_winrm::soap::{Element, MAX_ANSWER, Reader, SoapError, Writer};

/// Any bytes as a message, and any text as a value in one.
///
/// - Reading all at once and walking from child to child agree: both fail, or both find the same text.
/// - There is never more text than there were bytes.
/// - A message beyond the bound is refused before it is read.
/// - What the writer takes as a value, the reader gives back, in text and in attributes.
pub fn soap(data: &[u8]) {
    let whole = all_text(data);
    let walked = walk(data);
    match (&whole, &walked) {
        (Ok(whole), Ok(walked)) => {
            assert!(whole.len() <= data.len(), "more text than bytes");
            // A walk sees children one by one and drops text between them.
            assert!(*walked <= whole.len(), "the walk found more text");
        }
        (Err(_), Err(_)) => {}
        _ => panic!("reading and walking disagree: {whole:?} and {walked:?}"),
    }
    if data.len() > MAX_ANSWER {
        assert_eq!(whole_error(data), Some(SoapError::TooLarge { limit: MAX_ANSWER }));
    }
    if let Ok(text) = std::str::from_utf8(data) {
        value(text);
    }
}

fn all_text(data: &[u8]) -> Result<String, SoapError> {
    let (mut reader, root) = Reader::open(data)?;
    let text = reader.text(&root)?.into_owned();
    reader.finish()?;
    Ok(text)
}

fn whole_error(data: &[u8]) -> Option<SoapError> {
    Reader::open(data).err()
}

/// Elements without children are read for their text, the others for their children, by turns: what was read and what was
/// skipped must come out the same.
fn walk(data: &[u8]) -> Result<usize, SoapError> {
    let (mut reader, root) = Reader::open(data)?;
    let mut read = 0;
    children(&mut reader, &root, &mut read)?;
    reader.finish()?;
    Ok(read)
}

fn children<'i>(reader: &mut Reader<'i>, parent: &Element<'i>, read: &mut usize) -> Result<(), SoapError> {
    let mut number = 0;
    while let Some(child) = reader.child(parent)? {
        number += 1;
        // Nothing is promised of the value but that asking for it does no harm.
        let _ = child.attribute("Name");
        match number % 3 {
            0 => *read += reader.text(&child)?.len(),
            1 => children(reader, &child, read)?,
            // Left alone: the next call skips it.
            _ => {}
        }
    }
    assert!(reader.child(parent)?.is_none(), "a child after the end");
    Ok(())
}

fn value(text: &str) {
    let mut writer = Writer::with_capacity(0);
    writer.markup("<v a=\"");
    let written = writer.value("", text).is_ok();
    // XML 1.0, 2.2: these and no others cannot be carried.
    let carries = !text
        .chars()
        .any(|c| matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}'));
    assert_eq!(written, carries, "the writer and XML disagree about {text:?}");
    if !written {
        return;
    }
    writer.markup("\">");
    assert!(writer.value("", text).is_ok(), "taken in an attribute and not in text");
    writer.markup("</v>");
    let message = writer.finish();
    let read = Reader::open(&message).and_then(|(mut reader, root)| {
        let attribute = root.attribute("a")?.map(std::borrow::Cow::into_owned);
        let content = reader.text(&root)?.into_owned();
        reader.finish()?;
        Ok((attribute, content))
    });
    if message.len() <= MAX_ANSWER {
        assert_eq!(read, Ok((Some(text.to_owned()), text.to_owned())));
    }
}
