//! Exchanges recorded from real Windows hosts: every response parses, every fault is understood, and our requests have
//! the structure of those that Windows took.
//!
//! The recordings are no part of this repository; where they are missing, the tests say that they did not run.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test; clippy knows the functions beside the test functions of such a file as ordinary code"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lictor_winrm::fault::{Class, Meaning, Operation};
use lictor_winrm::shell::OutputStream;
use lictor_winrm::soap::{Element, Reader, SoapError};
use lictor_winrm::target::ShellProperties;
use lictor_winrm::wsman::{CbtHardeningLevel, CommandRef, Requests, Response, Setting, Signal, State, parse};
use uuid::Uuid;

#[derive(serde::Deserialize)]
struct Recording {
    messages: Vec<Message>,
}

#[derive(serde::Deserialize)]
struct Message {
    request: String,
    response: String,
}

/// All recorded exchanges, or nothing when the folder is missing.
fn recordings() -> Option<Vec<(PathBuf, Vec<Message>)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/recordings");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("NOT RUN: there are no recordings at {}", folder.display());
        return None;
    };
    let mut recordings = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let recording: Recording = serde_yaml_ng::from_str(&text).unwrap();
            recordings.push((path, recording.messages));
        }
    }
    assert!(recordings.len() >= 10, "only {} recordings at {}", recordings.len(), folder.display());
    Some(recordings)
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    Some(text.split_once(start)?.1.split_once(end)?.0)
}

fn message_id(request: &str) -> Uuid {
    between(request, "<wsa:MessageID>uuid:", "</wsa:MessageID>").unwrap().parse().unwrap()
}

fn action(request: &str) -> &str {
    let action = between(request, "<wsa:Action s:mustUnderstand=\"true\">", "</wsa:Action>").unwrap();
    action.rsplit('/').next().unwrap()
}

#[test]
fn every_response_parses_to_what_was_asked_for() {
    let Some(recordings) = recordings() else { return };
    let mut faults = 0;
    for (path, messages) in recordings {
        for message in messages {
            let context = format!("{}: {}", path.display(), message.response);
            // One exchange was put together from two runs: its answer relates to another request.
            let spliced = path.ends_with("test_winrs_unicode.yml") && action(&message.request) == "Delete";
            let relates_to = (!spliced).then(|| message_id(&message.request));
            let response =
                parse(message.response.as_bytes(), relates_to).unwrap_or_else(|error| panic!("{error}: {context}"));
            if spliced {
                let refused = parse(message.response.as_bytes(), Some(message_id(&message.request)));
                assert!(matches!(refused, Err(SoapError::WrongRelatesTo { .. })), "{refused:?}");
            }
            match (action(&message.request), response) {
                ("Create", Response::Created(created)) => assert_eq!(created.shell_id.len(), 36, "{context}"),
                ("Command", Response::CommandStarted(id)) => assert!(id.parse::<Uuid>().is_ok(), "{context}"),
                ("Send", Response::Sent) | ("Signal", Response::Signalled) | ("Delete", Response::Empty) => {}
                ("Receive", Response::Received(received)) => {
                    if received.exit_code.is_some() {
                        assert_eq!(received.state, Some(State::Done), "{context}");
                    }
                }
                ("Receive", Response::Fault(fault)) => {
                    faults += 1;
                    match fault.class() {
                        Class::TimedOut => assert_eq!(fault.meaning(Operation::Receive), Meaning::PollAgain),
                        Class::NotThere => assert_eq!(fault.meaning(Operation::Receive), Meaning::Ambiguous),
                        other => panic!("{other:?}: {context}"),
                    }
                    assert!(fault.name().is_some() && !fault.reason.is_empty(), "{context}");
                }
                ("Get", Response::Configured(config)) => {
                    // No line of what the host told is lost on the way.
                    let on = |setting: &Option<Setting<bool>>| setting.as_ref().map(|setting| setting.value);
                    assert_eq!(config.max_envelope_size_kb.map(|setting| setting.value), Some(500), "{context}");
                    assert_eq!(config.winrs.max_shells_per_user.map(|setting| setting.value), Some(2_147_483_647));
                    assert_eq!(config.client.trusted_hosts.map(|setting| setting.value), Some(String::new()));
                    let service = config.service;
                    let sddl = "O:NSG:BAD:P(A;;GA;;;BA)(A;;GR;;;IU)S:P(AU;FA;GA;;;WD)(AU;SA;GXGW;;;WD)";
                    assert_eq!(service.root_sddl.map(|setting| setting.value).as_deref(), Some(sddl));
                    assert_eq!(on(&service.allow_unencrypted), Some(false));
                    assert_eq!((on(&service.auth.basic), on(&service.auth.certificate)), (Some(true), Some(false)));
                    assert_eq!((on(&service.auth.credssp), on(&service.auth.digest)), (Some(true), None));
                    let level = service.auth.cbt_hardening_level.map(|setting| setting.value);
                    assert_eq!(level, Some(CbtHardeningLevel::Relaxed));
                    assert_eq!(service.ipv4_filter.map(|setting| setting.value).as_deref(), Some("*"));
                    assert_eq!(on(&service.compatibility_https_listener), Some(false));
                    assert_eq!(on(&service.allow_remote_access), Some(true));
                    assert_eq!(service.default_ports.https.map(|setting| setting.value), Some(5986));
                }
                (action, response) => panic!("{action} was answered by {response:?}: {context}"),
            }
            // The same answer to another request is not believed.
            assert!(parse(message.response.as_bytes(), Some(Uuid::nil())).is_err(), "{context}");
        }
    }
    assert_eq!(faults, 3);
}

#[test]
fn output_and_exit_codes_are_as_recorded() {
    let Some(recordings) = recordings() else { return };
    let run = |name: &str| {
        let (_, messages) = recordings.iter().find(|(path, _)| path.ends_with(name)).unwrap();
        let (mut stdout, mut stderr, mut code) = (Vec::new(), Vec::new(), None);
        for message in messages {
            if let Ok(Response::Received(received)) = parse(message.response.as_bytes(), None) {
                for (stream, data) in received.output {
                    match stream {
                        OutputStream::Stdout => stdout.extend_from_slice(&data),
                        OutputStream::Stderr => stderr.extend_from_slice(&data),
                    }
                }
                code = code.or(received.exit_code);
            }
        }
        (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap(), code)
    };
    let (stdout, stderr, code) = run("test_winrs_send.yml");
    assert_eq!((stdout.as_str(), stderr.as_str(), code), ("output 1\noutput 2\n", "", Some(0)));
    let (stdout, stderr, code) = run("test_winrs_stderr_rc.yml");
    assert!(!stdout.is_empty() && !stderr.is_empty(), "{stdout:?} {stderr:?}");
    assert!(code.is_some_and(|code| code != 0), "{code:?}");
    let (stdout, ..) = run("test_winrs_unicode.yml");
    assert!(!stdout.is_ascii(), "{stdout:?}");
}

#[test]
fn our_requests_have_the_structure_of_those_that_windows_took() {
    let Some(recordings) = recordings() else { return };
    let requests = Requests::new("http://192.168.56.11:5985/wsman".into(), Uuid::from_u128(1), Duration::from_secs(20));
    let id = Uuid::from_u128(2);
    let command = CommandRef { shell_id: "0D6FCA9D-2D40-44C3-B691-E665BE7AA687", command_id: Uuid::from_u128(3) };
    let mut shell = ShellProperties::default();
    let mut compared = 0;
    for (path, messages) in &recordings {
        // Those of the PowerShell protocol have another resource and other bodies.
        for message in
            messages.iter().filter(|message| message.request.contains("windows/shell/cmd</wsman:ResourceURI>"))
        {
            let theirs = Structure::of(message.request.as_bytes());
            shell.environment.clear();
            if message.request.contains("<rsp:Environment>") {
                shell.environment.insert("NAME".into(), "value".into());
            }
            let ours = match action(&message.request) {
                "Create" => requests.create(id, "lictor:test:1", &shell),
                "Command" => requests.command(id, command, "whoami /all", false),
                "Send" => requests.send(id, command, b"data", true, Duration::MAX),
                "Receive" => requests.receive(id, command, Duration::MAX),
                "Signal" => requests.signal(id, command, Signal::CtrlC),
                "Delete" => requests.delete(id, command.shell_id),
                other => panic!("{other}"),
            };
            let ours = Structure::of(&ours.unwrap());
            let context = format!("{}: {}", path.display(), message.request);
            assert!(ours.header.is_superset(&theirs.header), "{:?} {context}", theirs.header.difference(&ours.header));
            let ours_only: Vec<_> = ours.header.difference(&theirs.header).map(String::as_str).collect();
            // We always say how the shell is to be made.
            assert!(ours_only.is_empty() || ours_only == ["OptionSet", "OptionSet/Option"], "{ours_only:?} {context}");
            // The idle timeout and the working directory are ours to ask for, arguments are theirs to split off.
            let optional = |name: &&String| {
                !name.ends_with("/IdleTimeOut") && !name.ends_with("/Arguments") && !name.ends_with("/WorkingDirectory")
            };
            let (ours, theirs): (BTreeSet<_>, BTreeSet<_>) =
                (ours.body.iter().filter(optional).collect(), theirs.body.iter().filter(optional).collect());
            assert_eq!(ours, theirs, "{context}");
            compared += 1;
        }
    }
    assert!(compared > 20, "{compared}");
}

/// Paths of elements in header and body, with their namespaces told apart.
struct Structure {
    header: BTreeSet<String>,
    body: BTreeSet<String>,
}

impl Structure {
    fn of(message: &[u8]) -> Self {
        let (mut reader, envelope) = Reader::open(message).unwrap();
        let header = reader.child(&envelope).unwrap().unwrap();
        let mut structure = Self { header: BTreeSet::new(), body: BTreeSet::new() };
        collect(&mut reader, &header, "", &mut structure.header);
        let body = reader.child(&envelope).unwrap().unwrap();
        collect(&mut reader, &body, "", &mut structure.body);
        reader.finish().unwrap();
        structure
    }
}

fn collect(reader: &mut Reader<'_>, parent: &Element<'_>, prefix: &str, found: &mut BTreeSet<String>) {
    while let Some(child) = reader.child(parent).unwrap() {
        let path = format!("{prefix}{}", child.local());
        collect(reader, &child, &format!("{path}/"), found);
        found.insert(path);
    }
}
