//! Recordings of real hosts as the judge of winsim: every recorded request is asked again, and the whole answer is compared with
//! the recorded one: HTTP status, elements with namespaces and order, attributes, texts.
//!
//! What names this one run (ids, addresses, ages) is levelled first. Every other difference stands in [`DIFFERENCES`] with its
//! reason: a new one fails the test, and so does one that has gone.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::*;
use crate::options::{Options, Scheme};
use crate::soap::{Element, namespace};

/// What winsim answers otherwise: the recordings concerned, the difference with `-` before what only the real host says and `+`
/// before what only winsim says, how often it occurs in each of them, and why it stays.
const DIFFERENCES: &[(&[&str], &str, usize, &str)] = &[
    (&["test_winrs_operation_timeout"], "+p:ActivityId \"#activity\"", 8, OLDER),
    (&["test_winrs_send"], "+p:ActivityId \"#activity\"", 7, OLDER),
    (&["test_winrs_standard", "test_winrs_stderr_rc"], "+p:ActivityId \"#activity\"", 5, OLDER),
    (&["test_wsman_update_envelope_size_500"], "+p:ActivityId \"#activity\"", 1, OLDER),
    (&["test_wsman_update_envelope_size_500"], "-cfg:Kerberos \"true\"", 1, NOT_OFFERED),
    (&["test_wsman_update_envelope_size_500"], "+cfg:Kerberos \"false\"", 1, NOT_OFFERED),
    (&["test_wsman_update_envelope_size_500"], "-cfg:CredSSP \"true\"", 1, NOT_OFFERED),
    (&["test_wsman_update_envelope_size_500"], "+cfg:CredSSP \"false\"", 1, NOT_OFFERED),
    (&["test_wsman_update_envelope_size_500"], "-cfg:MaxMemoryPerShellMB \"2147483647\"", 1, NO_MEMORY),
    (&["test_wsman_update_envelope_size_500"], "+cfg:MaxMemoryPerShellMB \"1024\"", 1, NO_MEMORY),
    (&["test_winrs_unicode"], "-a:RelatesTo \"uuid:C6D0BB3D-5D04-44D6-ADC9-1DB2E445AB14\"", 1, EDITED),
    (&["test_winrs_unicode"], "+a:RelatesTo \"#asked\"", 1, EDITED),
    (
        &["test_winrs_environment"],
        "-rsp:Variable Name=\"_-(){}[]<>*+-/?\\\"!@#$^&|;:i,.`~0\" \"_-(){}[]<>*+-/\\\\?\\\"!@#$^&|;:i,.`~0\"",
        1,
        BACKSLASH,
    ),
    (
        &["test_winrs_environment"],
        "+rsp:Variable Name=\"_-(){}[]<>*+-/\\\\?\\\"!@#$^&|;:i,.`~0\" \"_-(){}[]<>*+-/\\\\?\\\"!@#$^&|;:i,.`~0\"",
        1,
        BACKSLASH,
    ),
    (
        &["test_winrs_environment"],
        "-rsp:Stream Name=\"stdout\" CommandId=\"#id1\" \"1234=5678\\r\\nPROMPT=$P$G\\r\\n_…",
        1,
        MACHINE,
    ),
    (
        &["test_winrs_environment"],
        "+rsp:Stream Name=\"stdout\" CommandId=\"#id1\" \"1234=5678\\r\\nCOMPUTERNAME=WEB…",
        1,
        MACHINE,
    ),
];

const OLDER: &str = "winsim is a host of 2016, which sends the ActivityId; this recording is of an older one";
const NOT_OFFERED: &str = "the configuration says what winsim offers, which are neither Kerberos nor CredSSP";
const NO_MEMORY: &str =
    "winsim's programs take no memory, so that nothing limits it; the value is that of an untouched host";
const EDITED: &str = "the recorded answer is to another request than the recorded one";
const BACKSLASH: &str =
    "the recorded host leaves a backslash out of a name, once; winsim gives names back as they came";
const MACHINE: &str = "the environment of a real machine, and its order, against the short one of winsim";

/// Requests of PowerShell's own protocol, which winsim does not speak: their answer is the fault for an unknown resource. By
/// recording, the operations in order.
const OUT_OF_SCOPE: &[(&str, &str)] = &[
    ("test_client_execute_ps_failure", "Create Receive Receive Command Receive Delete"),
    ("test_psrp_open_runspace", "Create Receive Receive Delete"),
    ("test_psrp_with_input", "Create Receive Receive Command Send Receive Delete"),
];

/// A longer line is compared by its beginning, in characters.
const LONG: usize = 500;
/// The beginning.
const KEPT: usize = 75;

/// How namespaces are written in lines.
const PREFIXES: &[(&str, &str)] = &[
    ("", ""),
    (namespace::SOAP, "s:"),
    (namespace::ADDRESSING, "a:"),
    (namespace::MANAGEMENT, "w:"),
    (namespace::MICROSOFT, "p:"),
    (namespace::SHELL, "rsp:"),
    (namespace::XML, "xml:"),
    ("http://schemas.microsoft.com/wbem/wsman/1/config", "cfg:"),
];

#[derive(serde::Deserialize)]
struct Recording {
    messages: Vec<Recorded>,
}

#[derive(serde::Deserialize)]
struct Recorded {
    request: String,
    response: String,
}

/// The ids of a recording and those that winsim gave in their place.
#[derive(Default)]
struct Ids(Vec<(String, String)>);

impl Ids {
    /// Notes the ids that an answer gives out.
    fn learn(&mut self, recorded: &Element, own: &Element) {
        for name in ["ShellId", "CommandId"] {
            let text = |element| find(element, name).map(|found: &Element| found.text.clone());
            if let (Some(theirs), Some(own)) = (text(recorded), text(own))
                && !self.0.contains(&(theirs.clone(), own.clone()))
            {
                self.0.push((theirs, own));
            }
        }
    }

    /// A recorded request for winsim.
    fn translate(&self, document: &str) -> String {
        self.0.iter().fold(document.to_owned(), |document, (theirs, own)| document.replace(theirs.as_str(), own))
    }

    fn level(&self, text: &str) -> Option<String> {
        let index = self.0.iter().position(|(theirs, own)| text == theirs || text == own)?;
        Some(format!("#id{index}"))
    }
}

fn find<'a>(element: &'a Element, name: &str) -> Option<&'a Element> {
    if element.name == name { Some(element) } else { element.children.iter().find_map(|child| find(child, name)) }
}

/// An answer as lines, one for each element, without what names this one run.
struct Levelled<'a> {
    ids: &'a Ids,
    asked: &'a str,
    lines: Vec<String>,
}

impl Levelled<'_> {
    fn add(&mut self, element: &Element, depth: usize) {
        let mut line = format!("{:depth$}{}{}", "", prefix(&element.namespace), element.name);
        for attribute in &element.attributes {
            let value = self.value(&attribute.name, &attribute.value);
            line.push_str(&format!(" {}{}={value:?}", prefix(&attribute.namespace), attribute.name));
        }
        let text = if element.children.is_empty() { element.text.as_str() } else { element.text.trim() };
        if !text.is_empty() {
            line.push_str(&format!(" {:?}", self.value(&element.name, text)));
        }
        // Output can be long; its beginning tells whether it is the same.
        if line.chars().count() > LONG {
            line = line.chars().take(KEPT).collect();
            line.push('…');
        }
        self.lines.push(line);
        let mut children = element.children.iter().peekable();
        while let Some(child) = children.next() {
            let data = |element: &Element| element.is(namespace::SHELL, "Stream") && element.attribute("End").is_none();
            if !data(child) {
                self.add(child, depth + 1);
                continue;
            }
            // How the output of a process is cut into pieces is its own affair.
            let mut bytes = BASE64.decode(&child.text).expect("base64");
            while let Some(next) = children.next_if(|next| next.attributes == child.attributes && data(next)) {
                bytes.extend(BASE64.decode(&next.text).expect("base64"));
            }
            let whole = Element { text: String::from_utf8_lossy(&bytes).into_owned(), ..child.clone() };
            self.add(&whole, depth + 1);
        }
    }

    fn value(&self, name: &str, value: &str) -> String {
        if let Some(level) = self.ids.level(value) {
            return level;
        }
        match name {
            "RelatesTo" if value == self.asked => "#asked",
            "MessageID" if value.starts_with("uuid:") && value.len() == 41 => "#message",
            "ActivityId" if value.len() == 36 => "#activity",
            "Machine" | "ClientIP" => "#address",
            "ShellRunTime" | "ShellInactivity" if value.starts_with("P0DT0H0M") => "#age",
            _ => value,
        }
        .to_owned()
    }
}

/// A host that is set up as the recorded ones were.
fn as_recorded() -> Options {
    let unlimited = 2_147_483_647;
    Options {
        hostname: "WEB01".to_owned(),
        schemes: vec![Scheme::Negotiate, Scheme::Basic],
        max_shells_per_user: unlimited,
        max_processes_per_shell: unlimited,
        max_concurrent_users: unlimited,
        ..Options::default()
    }
}

fn prefix(namespace: &str) -> String {
    let short = PREFIXES.iter().find(|(long, _)| *long == namespace);
    short.map_or_else(|| format!("{{{namespace}}}"), |(_, prefix)| (*prefix).to_owned())
}

fn levelled(element: &Element, asked: &Element, ids: &Ids) -> Vec<String> {
    let asked = find(asked, "MessageID").map_or("", |id| id.text.as_str());
    let mut levelled = Levelled { ids, asked, lines: Vec::new() };
    levelled.add(element, 0);
    levelled.lines
}

/// The lines of one side only, `-` before the first's and `+` before the second's, by their longest common subsequence.
fn differences(first: &[String], second: &[String]) -> Vec<String> {
    let mut common = vec![vec![0_usize; second.len() + 1]; first.len() + 1];
    for (i, one) in first.iter().enumerate().rev() {
        for (j, other) in second.iter().enumerate().rev() {
            common[i][j] = if one == other { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut different) = (0, 0, Vec::new());
    while i < first.len() || j < second.len() {
        if i < first.len() && j < second.len() && first[i] == second[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == second.len() || (i < first.len() && common[i + 1][j] >= common[i][j + 1]) {
            different.push(format!("-{}", first[i].trim_start()));
            i += 1;
        } else {
            different.push(format!("+{}", second[j].trim_start()));
            j += 1;
        }
    }
    different
}

#[tokio::test(start_paused = true)]
async fn the_recordings_of_real_hosts_are_answered_alike() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/recordings");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("did not run: {} is not there", folder.display());
        return;
    };
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|name| name == "yml"))
        .collect();
    files.sort();
    let (mut compared, mut found, mut out_of_scope) = (0, BTreeMap::new(), BTreeMap::<_, Vec<_>>::new());
    for path in files {
        let file = path.file_stem().expect("name").to_string_lossy().into_owned();
        let recording: Recording =
            serde_yaml_ng::from_str(&std::fs::read_to_string(&path).expect("recording")).expect("recording");
        let host = Arc::new(Host::new(Arc::new(as_recorded())));
        let entry = host.lines.enter();
        let client = "192.0.2.1".to_owned();
        let connection = Connection::new(Arc::clone(&host), Arc::clone(&entry.line), client, None);
        let mut ids = Ids::default();
        for (index, exchange) in recording.messages.iter().enumerate() {
            // Three timeouts of 10 s and a sleep of 30 would end at the same moment of the paused clock.
            let document = ids.translate(&exchange.request).replace("Start-Sleep 30", "Start-Sleep 29");
            let asked = Element::parse(document.as_bytes()).expect("a request");
            let answer = connection.message(document.as_bytes(), "vagrant").await;
            let own = Element::parse(&answer.body).expect("an answer");
            if find(&asked, "ResourceURI").is_some_and(|uri| uri.text.contains("/powershell/")) {
                assert_eq!(answer.exchange.fault, Some(2_150_858_752), "{file} {index}");
                out_of_scope.entry(file.clone()).or_default().push(answer.exchange.operation);
                continue;
            }
            let recorded = Element::parse(exchange.response.as_bytes()).expect("a recorded answer");
            let status = if find(&recorded, "Fault").is_some() { 500 } else { 200 };
            assert_eq!(answer.status.as_u16(), status, "{file} {index}");
            assert_eq!(answer.content_type.as_deref(), Some(SOAP), "{file} {index}");
            ids.learn(&recorded, &own);
            let theirs = levelled(&recorded, &Element::parse(exchange.request.as_bytes()).expect("a request"), &ids);
            for difference in differences(&theirs, &levelled(&own, &asked, &ids)) {
                *found.entry((difference, file.clone())).or_insert(0) += 1;
            }
            compared += 1;
        }
        let statistics = host.recorder.snapshot();
        assert!(statistics.violations.is_empty(), "{file}: {:?}", statistics.violations);
    }
    let mut expected = BTreeMap::new();
    for (files, difference, times, reason) in DIFFERENCES {
        assert!(!reason.is_empty());
        for file in *files {
            expected.insert(((*difference).to_owned(), (*file).to_owned()), *times);
        }
    }
    let not_expected: Vec<_> = found.iter().filter(|row| expected.get(row.0) != Some(row.1)).collect();
    let not_found: Vec<_> = expected.iter().filter(|row| found.get(row.0) != Some(row.1)).collect();
    assert!(not_expected.is_empty() && not_found.is_empty(), "new: {not_expected:#?}\ngone: {not_found:#?}");
    let expected: BTreeMap<_, _> =
        OUT_OF_SCOPE.iter().map(|(file, names)| ((*file).to_owned(), (*names).to_owned())).collect();
    assert_eq!(
        out_of_scope.iter().map(|(file, names)| (file.clone(), names.join(" "))).collect::<BTreeMap<_, _>>(),
        expected
    );
    println!("{compared} answers compared, {} are out of scope", out_of_scope.values().map(Vec::len).sum::<usize>());
    assert_eq!(compared, 41);
}

#[test]
fn every_difference_shows() {
    let ids = Ids(vec![("A".to_owned(), "B".to_owned())]);
    let lines = |document: &str| {
        let element = Element::parse(document.as_bytes()).expect("well-formed");
        levelled(&element, &Element::default(), &ids)
    };
    let streams =
        |ends: &str| format!("<r:x xmlns:r=\"{}\" I=\"A\"><r:Stream>YQ==</r:Stream>{ends}<c/></r:x>", namespace::SHELL);
    let own = streams("<r:Stream>Yg==</r:Stream>");
    let theirs = streams("").replace("YQ==", "YWI=").replace("\"A\"", "\"B\"");
    assert_eq!(differences(&lines(&own), &lines(&theirs)), Vec::<String>::new());
    for (from, to, expected) in [
        ("<c/>", "", vec!["-c"]),
        ("<c/>", "<d/>", vec!["-c", "+d"]),
        ("<c/>", "<c>x</c>", vec!["-c", "+c \"x\""]),
        ("<c/>", "<c y=\"1\"/>", vec!["-c", "+c y=\"1\""]),
        ("I=\"A\"", "I=\"C\"", vec!["-rsp:x I=\"#id0\"", "+rsp:x I=\"C\""]),
        ("<c/>", "<c xmlns=\"u:v\"/>", vec!["-c", "+{u:v}c"]),
        ("Yg==", "Yw==", vec!["-rsp:Stream \"ab\"", "+rsp:Stream \"ac\""]),
    ] {
        assert_eq!(differences(&lines(&own), &lines(&own.replace(from, to))), expected, "{from} -> {to}");
    }
    let (one, other) = ("<x><a/><b/></x>", "<x><b/><a/></x>");
    assert_eq!(differences(&lines(one), &lines(other)).len(), 2, "order counts");
}
