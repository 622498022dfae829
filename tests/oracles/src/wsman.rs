//! Answers of the WinRM service: responses of every operation, output in pieces, faults in all their forms.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use lictor_winrm::fault::{Class, Fault, Meaning, Operation, parse_code};
use lictor_winrm::shell::{Event, Execution, Invocation, OutputStream, Trouble, Turn};
use lictor_winrm::soap::{MAX_ANSWER, SoapError, Writer, uri};
use lictor_winrm::wsman::{Response, State, parse};
use uuid::Uuid;

use crate::fields;

const REQUEST: Uuid = Uuid::from_u128(0x0B5E_55ED_0000_4000_8000_0000_0000_0001);
const COMMAND: Uuid = Uuid::from_u128(0x0B5E_55ED_0000_4000_8000_0000_0000_0002);

/// Any bytes as an answer.
///
/// - With a request to compare with, the result is the same or [`SoapError::WrongRelatesTo`].
/// - A byte order mark, white space after the end or a declaration before the start change nothing.
/// - Output is never more than the message; texts for people are short and hold nothing that steers terminals; identifiers
///   are bounded.
/// - Whatever the answer, a command that may have started is never taken for one that did not.
pub fn response(data: &[u8]) {
    let free = parse(data, None);
    match parse(data, Some(REQUEST)) {
        Err(SoapError::WrongRelatesTo { .. }) => {}
        bound => assert_eq!(bound, free),
    }
    if data.len() + 64 < MAX_ANSWER && !data.starts_with("\u{feff}".as_bytes()) {
        for (before, after) in [("\u{feff}", ""), ("", "\r\n \t"), ("<?xml version=\"1.0\"?>", "\n")] {
            let other = [before.as_bytes(), data, after.as_bytes()].concat();
            // Positions in messages move.
            assert_eq!(parse(&other, None).ok(), free.clone().ok(), "changed by {before:?} and {after:?}");
        }
    }
    if let Ok(response) = free {
        bounded(&response, data.len());
        for state in 0..3 {
            follow(state, &response);
        }
    }
}

fn bounded(response: &Response, length: usize) {
    let text = |text: &str| {
        assert!(text.chars().count() <= 2003, "a text of {} characters", text.chars().count());
        assert!(!text.contains(char::is_control), "a control character in {text:?}");
    };
    let identifier = |id: &str| assert!(!id.is_empty() && id.len() <= 256 && !id.contains(char::is_control), "{id:?}");
    match response {
        Response::Identified(identity) => {
            text(&identity.vendor);
            text(&identity.version);
        }
        Response::Created(created) => identifier(&created.shell_id),
        Response::CommandStarted(id) => identifier(id),
        Response::Received(received) => {
            let output: usize = received.output.iter().map(|(_, data)| data.len()).sum();
            assert!(output <= length, "{output} bytes of output in {length} bytes");
            assert!(received.output.iter().all(|(_, data)| !data.is_empty()), "an empty piece");
            let neighbours = received.output.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b));
            assert!(!neighbours, "neighbours of the same stream are two pieces");
            received.command_id.iter().for_each(|id| identifier(id));
        }
        Response::Listed(listed) => {
            assert!(listed.shells.len() <= length, "more shells than bytes");
            for shell in &listed.shells {
                identifier(&shell.shell_id);
                shell.name.iter().for_each(|name| text(name));
            }
            assert!(listed.more.as_ref().is_none_or(|more| more.len() <= length), "a context longer than the message");
            assert!(listed.listeners.len() + listed.mappings.len() + listed.unread <= length, "more items than bytes");
        }
        // What holds of configurations is said by an oracle of their own.
        Response::Configured(_) => {}
        Response::Fault(fault) => {
            text(&fault.reason);
            for shown in [&fault.subcode, &fault.machine, &fault.detail_uri].into_iter().flatten() {
                text(shown);
            }
            assert!(fault.to_string().chars().count() < 5000);
        }
        Response::Other(name) => text(name),
        Response::Sent | Response::Signalled | Response::Empty => {}
    }
}

/// The machine of a command takes the answer in the state that `state` names: before Command, with input waiting, or
/// receiving.
fn follow(state: u8, response: &Response) {
    let input = (state == 1).then(|| Bytes::from_static(b"input"));
    let Ok(invocation) = Invocation::command("ver", &[], input) else { return };
    let mut execution = Execution::new(&invocation, COMMAND, 4096);
    if state > 0 {
        let started = execution.answer(&Turn::Command, Response::CommandStarted(COMMAND.to_string()));
        assert_eq!(started, Ok(()));
    }
    let before = execution.turn();
    let result = execution.answer(&before, response.clone());
    if state > 0 {
        // INVARIANT: a command that may have started is never started again.
        assert_ne!(execution.turn(), Turn::Command, "{before:?} answered with {response:?} starts the command again");
    } else if let Err(Trouble::Fault(fault)) = &result {
        // Only what the host says in a fault proves that it did not start.
        assert_eq!(*response, Response::Fault(fault.clone()));
    }
    let mut output = Vec::new();
    let mut done = 0;
    while let Some(event) = execution.event() {
        match event {
            Event::Output { data, .. } => output.extend_from_slice(&data),
            Event::Done { .. } => done += 1,
        }
    }
    assert!(done <= 1, "done {done} times");
    if let (Response::Received(received), Ok(()), Turn::Receive { .. }) = (response, &result, &before) {
        let sent: Vec<u8> = received.output.iter().flat_map(|(_, data)| data.iter().copied()).collect();
        assert_eq!(output, sent, "output was lost or made up");
        assert_eq!(done == 1, received.state == Some(State::Done), "the end of the command");
    }
    if done == 1 || result.is_err() {
        assert_eq!(execution.turn(), Turn::Finished);
    }
}

/// Output in any pieces: the first bytes say where it is cut and how each piece is written, the rest is the output.
///
/// - Whatever the pieces, the bytes of a stream come out whole and in order.
pub fn received(data: &[u8]) {
    let (plan, output) = data.split_at(data.len().min(8));
    let mut body = String::from("<r:ReceiveResponse>");
    let mut rest = output;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    for step in plan {
        // The last piece takes what is left.
        let (piece, after) = rest.split_at(rest.len().min(usize::from(step >> 3)));
        push(&mut body, *step, piece, &mut stdout, &mut stderr);
        rest = after;
    }
    push(&mut body, 0, rest, &mut stdout, &mut stderr);
    body.push_str(&format!(
        "<r:CommandState CommandId=\"{COMMAND}\" State=\"x/CommandState/Running\"/></r:ReceiveResponse>"
    ));
    let response = parse(envelope(&body).as_bytes(), Some(REQUEST));
    let Ok(Response::Received(received)) = &response else {
        assert!(output.len() > MAX_ANSWER / 2, "{response:?}");
        return;
    };
    for (stream, expected) in [(OutputStream::Stdout, &stdout), (OutputStream::Stderr, &stderr)] {
        let pieces = received.output.iter().filter(|(of, _)| *of == stream);
        let whole: Vec<u8> = pieces.flat_map(|(_, data)| data.iter().copied()).collect();
        assert_eq!(whole, *expected, "{stream:?}");
    }
    if let Ok(response) = response {
        follow(2, &response);
    }
}

fn push(body: &mut String, step: u8, piece: &[u8], stdout: &mut Vec<u8>, stderr: &mut Vec<u8>) {
    let name = if step & 1 == 0 { "stdout" } else { "stderr" };
    let whole = if step & 1 == 0 { stdout } else { stderr };
    whole.extend_from_slice(piece);
    let mut text = STANDARD.encode(piece);
    if step & 2 != 0 {
        // Base64 of XML may hold white space (XML Schema, 3.2.16).
        text = text.as_bytes().chunks(5).map(String::from_utf8_lossy).collect::<Vec<_>>().join("\n\t ");
    }
    if step & 4 != 0 {
        let half = text.len() / 2;
        text.insert_str(half, "]]><![CDATA[");
        text = format!("<![CDATA[{text}]]>");
    }
    body.push_str(&format!("<r:Stream Name=\"{name}\" CommandId=\"{COMMAND}\">{text}</r:Stream>"));
}

/// Faults: once as any bytes inside `Detail`, and once made from its parts (code, Subcode, reason, machine).
///
/// - The same number means the same, signed or unsigned, as WSManFault or as MSFT_WmiError.
/// - The text never decides anything.
/// - A fault whose class says that a command was under way never means that it may be sent again.
pub fn fault(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let body = format!("<s:Fault><s:Detail>{text}</s:Detail></s:Fault>");
        if let Ok(response) = parse(envelope(&body).as_bytes(), None) {
            bounded(&response, body.len() + 2048);
        }
    }
    let [code, subcode, reason, machine] = fields(data).map(String::from_utf8_lossy);
    let number = parse_code(&code);
    let (Some(first), Some(other)) =
        (built(&code, &subcode, &reason, &machine, Form::Wsman), built(&code, &subcode, "", "", Form::Wsman))
    else {
        return;
    };
    assert_eq!(first.code, number, "the code {code:?}");
    same(&first, &other);
    if let Some(number) = number {
        let signed = number.cast_signed().to_string();
        for (code, form) in [(number.to_string(), Form::Wmi), (signed.clone(), Form::Wsman), (signed, Form::Wmi)] {
            let Some(other) = built(&code, &subcode, &reason, &machine, form) else { continue };
            assert_eq!(other.code, Some(number), "{code} as {form:?}");
            same(&first, &other);
        }
        // The table is by number alone.
        if let Some(other) = built(&code, "TimedOut", &reason, &machine, Form::Wsman) {
            same(&first, &other);
        }
    }
    let under_way =
        [Class::TimedOut, Class::Aborted, Class::CommandTerminated, Class::ProviderTimeout, Class::CannotDecrypt];
    if under_way.contains(&first.class()) {
        assert!(!matches!(
            first.meaning(Operation::Command),
            Meaning::NeedsNewShell | Meaning::BackOff | Meaning::Refused
        ));
    }
}

fn same(a: &Fault, b: &Fault) {
    assert_eq!(a.class(), b.class());
    assert_eq!(a.stable_code(), b.stable_code());
    for operation in [
        Operation::Create,
        Operation::Command,
        Operation::Send,
        Operation::Receive,
        Operation::Signal,
        Operation::Delete,
    ] {
        assert_eq!(a.meaning(operation), b.meaning(operation), "{operation:?}");
    }
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Wsman,
    Wmi,
}

/// Nothing when a part holds what XML cannot carry.
fn built(code: &str, subcode: &str, reason: &str, machine: &str, form: Form) -> Option<Fault> {
    let mut writer = Writer::with_capacity(1024);
    writer.markup("<s:Fault><s:Code><s:Value>s:Receiver</s:Value><s:Subcode><s:Value>w:");
    writer.value("", subcode).ok()?;
    writer.markup("</s:Value></s:Subcode></s:Code><s:Reason><s:Text>");
    writer.value("", reason).ok()?;
    writer.markup("</s:Text></s:Reason><s:Detail>");
    match form {
        Form::Wsman => {
            writer.plain(format_args!("<f:WSManFault xmlns:f=\"{}\" Code=\"", uri::WSMAN_FAULT));
            writer.value("", code).ok()?.markup("\" Machine=\"").value("", machine).ok()?.markup("\"><f:Message>");
            writer.value("", reason).ok()?.markup("</f:Message></f:WSManFault>");
        }
        Form::Wmi => {
            writer.plain(format_args!("<p:MSFT_WmiError xmlns:p=\"{}\"><p:error_Code>", uri::WMI_ERROR));
            writer.value("", code).ok()?.markup("</p:error_Code><p:Message>");
            writer.value("", reason).ok()?.markup("</p:Message></p:MSFT_WmiError>");
        }
    }
    writer.markup("</s:Detail></s:Fault>");
    let body = String::from_utf8(writer.finish()).ok()?;
    match parse(envelope(&body).as_bytes(), Some(REQUEST)) {
        Ok(Response::Fault(fault)) => Some(fault),
        Err(SoapError::TooLarge { .. }) => None,
        other => panic!("a fault reads as {other:?}"),
    }
}

fn envelope(body: &str) -> String {
    format!(
        "<s:Envelope xmlns:s=\"{}\" xmlns:a=\"{}\" xmlns:w=\"{}\" xmlns:r=\"{}\"><s:Header><a:RelatesTo>uuid:{REQUEST}</a:RelatesTo>\
         </s:Header><s:Body>{body}</s:Body></s:Envelope>",
        uri::SOAP,
        uri::ADDRESSING,
        uri::WSMAN,
        uri::SHELL
    )
}
