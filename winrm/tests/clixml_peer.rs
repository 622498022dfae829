//! Our reading of CLIXML, judged by pypsrp: its serializer writes what we read, and its reader reads the same documents.
//!
//! Needs a Python interpreter with pypsrp in `LICTOR_PEERS_PYTHON`. Without one this does nothing but say so, unless
//! `LICTOR_PEERS` is `required`: then it fails.

use std::io::Write as _;
use std::process::{Command, Stdio};

use bytes::Bytes;
use lictor_winrm::clixml::{Decoder, Item, RecordKind};

/// Documents that pypsrp's serializer makes of texts, each with what its own reader makes of the document.
const PEER: &str = r##"
import json, sys
import xml.etree.ElementTree as ET
from pypsrp.client import Client
from pypsrp.serializer import Serializer
namespace = "http://schemas.microsoft.com/powershell/2004/04"
answers = []
for text in json.load(sys.stdin):
    objs = ET.Element("{%s}Objs" % namespace, Version="1.1.0.1")
    element = Serializer().serialize(text)
    element.tag = "{%s}%s" % (namespace, element.tag)
    element.set("S", "Error")
    objs.append(element)
    ET.register_namespace("", namespace)
    document = "#< CLIXML\r\n" + ET.tostring(objs, encoding="unicode")
    answers.append([document, Client.sanitise_clixml(document)])
json.dump(answers, sys.stdout)
"##;

const TEXTS: &[&str] = &[
    "plain",
    "two\r\nlines\r\n",
    "a < b && c > \"d\" 'e'",
    "_x000D_ as it stands, _x005F_ too, and _X0041_",
    "tab\there, bell \u{7}, escape \u{1b}[31m",
    "ümläut, €, \u{1f600}, \u{10ffff}",
    "snake_x_case __x__ _x_ _",
    "\u{85} \u{2028} \u{feff}",
    "  blanks  ",
];

#[test]
fn what_pypsrp_writes_is_read_as_pypsrp_reads_it() {
    let Some(python) = std::env::var_os("LICTOR_PEERS_PYTHON") else {
        let required = std::env::var_os("LICTOR_PEERS").is_some_and(|value| value == "required");
        assert!(!required, "LICTOR_PEERS_PYTHON is not set");
        println!("NOT RUN: LICTOR_PEERS_PYTHON is not set");
        return;
    };
    let mut peer =
        Command::new(python).args(["-c", PEER]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    peer.stdin.take().unwrap().write_all(&serde_json::to_vec(TEXTS).unwrap()).unwrap();
    let output = peer.wait_with_output().unwrap();
    assert!(output.status.success());
    let answers: Vec<(String, String)> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answers.len(), TEXTS.len());
    for (text, (document, theirs)) in TEXTS.iter().zip(answers) {
        let mut items = Vec::new();
        let mut decoder = Decoder::new();
        for piece in document.as_bytes().chunks(5) {
            decoder.push(Bytes::copy_from_slice(piece), &mut |item| items.push(item));
        }
        decoder.finish(&mut |item| items.push(item));
        let [Item::Record(record)] = &items[..] else { unreachable!("{document:?} gave {items:?}") };
        assert_eq!((record.kind, &*record.text), (RecordKind::Error, *text), "{document:?}");
        assert_eq!(theirs, *text, "pypsrp reads {document:?} in another way");
    }
}
