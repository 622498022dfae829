//! What is made of the output of commands: CLIXML, masking, the trailer of output variables.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use lictor_winrm::clixml::{Decoder, Item, Record, RecordKind};
use lictor_winrm::mask::{MASK, MIN_BYTES, Masker, Patterns};
use lictor_winrm::powershell::{Collected, Collector, OutputValue, Outputs};

use crate::fields;

/// A stream whole, byte by byte, and cut in two at a place that the bytes choose.
fn cuts(data: &[u8]) -> [Vec<&[u8]>; 3] {
    let at = data.iter().fold(data.len(), |at, byte| at.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    let (head, tail) = data.split_at(at % (data.len() + 1));
    [vec![data], data.chunks(1).collect(), vec![head, tail]]
}

/// Any bytes as standard error.
///
/// - Where it is cut changes nothing; no text is empty; nothing grows.
/// - Without the marker nothing changes at all.
/// - Any text that is written as CLIXML is read back.
pub fn clixml(data: &[u8]) {
    let decode = |pieces: Vec<&[u8]>| {
        let mut items: Vec<Item> = Vec::new();
        let mut take = |item: Item| match (items.last_mut(), item) {
            (_, Item::Text(text)) if text.is_empty() => panic!("an empty text"),
            (Some(Item::Text(last)), Item::Text(text)) => *last = [&last[..], &text[..]].concat().into(),
            (_, item) => items.push(item),
        };
        let mut decoder = Decoder::new();
        for piece in pieces {
            decoder.push(Bytes::copy_from_slice(piece), &mut take);
        }
        decoder.finish(&mut take);
        items
    };
    let [whole, single, two] = cuts(data).map(decode);
    assert_eq!(whole, single, "one byte at a time");
    assert_eq!(whole, two, "in two pieces");
    let length = |item: &Item| match item {
        Item::Text(text) => text.len(),
        Item::Record(record) => record.text.len(),
    };
    assert!(whole.iter().map(length).sum::<usize>() <= data.len(), "more came out than went in");
    if !data.windows(9).any(|window| window == b"#< CLIXML") {
        assert_eq!(whole.len(), usize::from(!data.is_empty()));
        assert!(whole.iter().all(|item| *item == Item::Text(Bytes::copy_from_slice(data))));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut document = "#< CLIXML\r\n<Objs Version=\"1.1.0.1\"><S S=\"Warning\">".to_owned();
    for character in text.chars() {
        if character.is_ascii_alphanumeric() {
            document.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                document.push_str(&format!("_x{unit:04X}_"));
            }
        }
    }
    document.push_str("</S></Objs>");
    let record = Record { kind: RecordKind::Warning, text: text.to_owned() };
    assert_eq!(decode(vec![document.as_bytes()]), [Item::Record(record)]);
}

/// A secret, a zero, and a stream.
///
/// - Where it is cut changes nothing.
/// - The secret is not in what comes out, nor is its base64, whatever stands around it.
pub fn mask(data: &[u8]) {
    let [secret, stream] = fields(data);
    let Ok(secret) = std::str::from_utf8(secret) else { return };
    let patterns = Arc::new(Patterns::new([secret]));
    let masked = |pieces: Vec<&[u8]>| {
        let mut out = Vec::new();
        let mut masker = Masker::new(Arc::clone(&patterns));
        for piece in pieces {
            masker.push(Bytes::copy_from_slice(piece), &mut |piece| out.extend_from_slice(&piece));
        }
        masker.finish(&mut |piece| out.extend_from_slice(&piece));
        out
    };
    let [whole, single, two] = cuts(stream).map(masked);
    assert_eq!(whole, single, "one byte at a time");
    assert_eq!(whole, two, "in two pieces");
    // Shorter ones are left alone; one with the mask in it could be made up by masking.
    if secret.len() < MIN_BYTES {
        return;
    }
    let around = [stream, secret.as_bytes(), stream].concat();
    let out = masked(vec![&around]);
    assert!(out.windows(MASK.len()).any(|window| window == MASK.as_bytes()));
    if !secret.contains('*') {
        assert!(!out.windows(secret.len()).any(|window| window == secret.as_bytes()), "the secret is shown");
    }
    let encoded = STANDARD.encode(&around);
    // The characters that the secret alone decides.
    let own = &encoded[(8 * stream.len()).div_ceil(6)..8 * (stream.len() + secret.len()) / 6];
    let out = masked(vec![encoded.as_bytes()]);
    assert!(!out.windows(own.len()).any(|window| window == own.as_bytes()), "the base64 of the secret is shown");
}

/// Any bytes as standard output with a trailer; bytes of value 1 stand for its mark.
///
/// - Where it is cut changes nothing; nothing grows.
/// - Any value that is written into a trailer is read back.
pub fn outputs(data: &[u8]) {
    let Ok(Some(outputs)) = Outputs::new(1, ["a", "b"]) else { panic!("names that are none") };
    let mark = format!("lictor-{:032x}:", 1);
    let stream = data.split(|byte| *byte == 1).collect::<Vec<_>>().join(mark.as_bytes());
    let collect = |pieces: Vec<&[u8]>| -> (Vec<u8>, Collected) {
        let mut out = Vec::new();
        let mut collector = Collector::new(outputs.clone());
        for piece in pieces {
            collector.push(Bytes::copy_from_slice(piece), &mut |piece| out.extend_from_slice(&piece));
        }
        let collected = collector.finish(&mut |piece| out.extend_from_slice(&piece));
        (out, collected)
    };
    let [whole, single, two] = cuts(&stream).map(collect);
    assert_eq!(whole, single, "one byte at a time");
    assert_eq!(whole, two, "in two pieces");
    assert!(whole.0.len() <= stream.len(), "more came out than went in");
    if data.len() <= 60_000 {
        let written = format!("out{mark}0+{}\n{mark}1-\n{mark}x7\n{mark}.\nend", STANDARD.encode(data));
        let (out, collected) = collect(vec![written.as_bytes()]);
        assert_eq!(out, b"outend");
        let value = match std::str::from_utf8(data) {
            Ok(text) => OutputValue::Value(text.to_owned()),
            Err(_) => OutputValue::Unusable,
        };
        let expected = [("a".to_owned(), value), ("b".to_owned(), OutputValue::Missing)];
        assert_eq!(collected.values, expected);
        assert_eq!((collected.exit_code(0), collected.exit_code(3)), (7, 3));
    }
}
