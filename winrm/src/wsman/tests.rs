use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::fault::Class;
use crate::shell::OutputStream;
use crate::soap::{MAX_ANSWER, Ns, Reader, SoapError};
use crate::target::Secret;

const MESSAGE: Uuid = Uuid::from_u128(0xAABB_CCDD);
const COMMAND: Uuid = Uuid::from_u128(0x1122_3344);
const SHELL: &str = "0D6FCA9D-2D40-44C3-B691-E665BE7AA687";

fn requests() -> Requests {
    Requests::new("http://win01:5985/wsman".into(), Uuid::from_u128(7), Duration::from_millis(20_500))
}

fn command() -> CommandRef<'static> {
    CommandRef { shell_id: SHELL, command_id: COMMAND }
}

fn answer(body: &str) -> Vec<u8> {
    answer_to(&format!("uuid:{MESSAGE}"), body)
}

fn answer_to(relates_to: &str, body: &str) -> Vec<u8> {
    format!(
        "<s:Envelope xmlns:s='{}' xmlns:a='{}' xmlns:x='{}' xmlns:w='{}' xmlns:r='{}'><s:Header><a:RelatesTo>{relates_to}</a:RelatesTo>\
         </s:Header><s:Body>{body}</s:Body></s:Envelope>",
        uri::SOAP,
        uri::ADDRESSING,
        uri::TRANSFER,
        uri::WSMAN,
        uri::SHELL
    )
    .into_bytes()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn create_writes_the_properties_in_schema_order() {
    let shell = ShellProperties {
        environment: BTreeMap::from([("A&B".into(), "1 < 2".into())]),
        secret_environment: BTreeMap::from([("A".into(), Secret::new("x&y".into()))]),
        working_directory: Some(r"C:\x".into()),
        no_profile: true,
        ..ShellProperties::default()
    };
    let request = text(requests().create(MESSAGE, "lictor:a:b:c", &shell).unwrap());
    let body = request.split("<s:Body>").nth(1).unwrap();
    assert_eq!(
        body,
        "<rsp:Shell Name=\"lictor:a:b:c\"><rsp:Environment><rsp:Variable Name=\"A&amp;B\">1 &lt; 2</rsp:Variable>\
         <rsp:Variable Name=\"A\">x&amp;y</rsp:Variable></rsp:Environment>\
         <rsp:WorkingDirectory>C:\\x</rsp:WorkingDirectory><rsp:IdleTimeOut>PT7200.000S</rsp:IdleTimeOut>\
         <rsp:InputStreams>stdin</rsp:InputStreams><rsp:OutputStreams>stdout stderr</rsp:OutputStreams></rsp:Shell></s:Body></s:Envelope>"
    );
    assert!(request.contains("Name=\"WINRS_NOPROFILE\">TRUE<"));
    assert!(request.contains("Name=\"WINRS_CODEPAGE\">65001<"));
    assert!(!request.contains("<wsman:SelectorSet>"));
    assert!(request.contains("<wsman:OperationTimeout>PT20.500S</wsman:OperationTimeout>"));
    assert!(request.contains("<wsa:MessageID>uuid:00000000-0000-0000-0000-0000AABBCCDD</wsa:MessageID>"));
}

#[test]
fn requests_are_well_formed_and_name_shell_and_command() {
    let requests = requests();
    let patience = Duration::from_secs(5);
    for request in [
        requests.command(MESSAGE, command(), "echo <&>\"", true).unwrap(),
        requests.send(MESSAGE, command(), b"hi", true, patience).unwrap(),
        requests.receive(MESSAGE, command(), patience).unwrap(),
        requests.signal(MESSAGE, command(), Signal::CtrlC).unwrap(),
        requests.delete(MESSAGE, SHELL).unwrap(),
    ] {
        let (mut reader, envelope) = Reader::open(&request).unwrap();
        let header = reader.find(&envelope, Ns::Soap, "Header").unwrap().unwrap();
        let set = reader.find(&header, Ns::Wsman, "SelectorSet").unwrap().unwrap();
        let selector = reader.child(&set).unwrap().unwrap();
        assert_eq!(reader.text(&selector).unwrap(), SHELL);
        reader.finish().unwrap();
    }
    let receive = text(requests.receive(MESSAGE, command(), patience).unwrap());
    assert!(receive.contains("<wsman:OperationTimeout>PT5.000S<"));
    let send = text(requests.send(MESSAGE, command(), b"hi", true, patience).unwrap());
    assert!(send.contains(
        "<rsp:Stream Name=\"stdin\" CommandId=\"00000000-0000-0000-0000-000011223344\" End=\"true\">aGk=</rsp:Stream>"
    ));
    assert!(requests.command(MESSAGE, command(), "a\u{1}", false).is_err());
}

#[test]
fn a_full_send_keeps_to_the_bound() {
    let requests = requests();
    let budget = requests.send_budget();
    assert!(budget > 100_000);
    let longest = CommandRef { shell_id: &"\"".repeat(100), command_id: COMMAND };
    let request = requests.send(MESSAGE, longest, &vec![0; budget], true, Duration::MAX).unwrap();
    assert!(request.len() <= MAX_REQUEST, "{}", request.len());
}

#[test]
fn receive_decodes_each_element_and_joins_neighbours() {
    let id = COMMAND;
    let message = answer(&format!(
        "<r:ReceiveResponse><r:Stream Name='stdout' CommandId='{id}'>aGk=</r:Stream><r:Stream Name='stdout' CommandId='{id}'>IHRo</r:Stream>\
         <r:Stream Name='stderr' CommandId='{id}'>4oI=</r:Stream><r:Stream Name='stdout' CommandId='{id}' End='true'/>\
         <r:Stream Name='stderr' CommandId='{id}' End='true'>rA==</r:Stream>\
         <r:CommandState CommandId='{id}' State='{}/CommandState/Done'><r:ExitCode>4294967295</r:ExitCode></r:CommandState></r:ReceiveResponse>",
        uri::SHELL
    ));
    let Response::Received(received) = parse(&message, Some(MESSAGE)).unwrap() else { panic!() };
    assert_eq!(
        received.output,
        [
            (OutputStream::Stdout, Bytes::from_static(b"hi th")),
            (OutputStream::Stderr, Bytes::from_static(b"\xe2\x82\xac")),
        ]
    );
    assert_eq!((received.state, received.exit_code), (Some(State::Done), Some(-1)));
}

#[test]
fn answers_to_other_requests_are_refused() {
    let body = "<r:SendResponse/>";
    assert_eq!(
        parse(&answer_to(&format!("UUID:{}", MESSAGE.to_string().to_uppercase()), body), Some(MESSAGE)),
        Ok(Response::Sent)
    );
    let other = parse(&answer_to("uuid:00000000-0000-0000-0000-000000000001", body), Some(MESSAGE));
    assert!(matches!(other, Err(SoapError::WrongRelatesTo { .. })));
    assert!(matches!(parse(&answer_to("", body), Some(MESSAGE)), Err(SoapError::WrongRelatesTo { .. })));
    let none = format!(
        "<s:Envelope xmlns:s='{}'><s:Body><r:SendResponse xmlns:r='{}'/></s:Body></s:Envelope>",
        uri::SOAP,
        uri::SHELL
    );
    assert!(matches!(parse(none.as_bytes(), Some(MESSAGE)), Err(SoapError::WrongRelatesTo { .. })));
    assert_eq!(parse(none.as_bytes(), None), Ok(Response::Sent));
}

#[test]
fn malformed_answers_are_refused() {
    let cases = [
        ("<r:ReceiveResponse><r:Stream Name='stdout'>a</r:Stream></r:ReceiveResponse>", "bad base64"),
        ("<r:ReceiveResponse><r:Stream Name='video'>aGk=</r:Stream></r:ReceiveResponse>", "unknown stream"),
        (
            "<r:ReceiveResponse><r:Stream Name='stdout' CommandId='a'/><r:Stream Name='stdout' CommandId='b'/></r:ReceiveResponse>",
            "two commands",
        ),
        (
            "<r:ReceiveResponse><r:CommandState State='x/Done'><r:ExitCode>x</r:ExitCode></r:CommandState></r:ReceiveResponse>",
            "exit code",
        ),
        ("<x:ResourceCreated/>", "no ShellId"),
        ("<r:CommandResponse/>", "no CommandId"),
        ("<r:CommandResponse><r:CommandId> </r:CommandId></r:CommandResponse>", "empty CommandId"),
    ];
    for (body, why) in cases {
        assert!(parse(&answer(body), Some(MESSAGE)).is_err(), "{why}");
    }
    let bomb = b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>";
    assert_eq!(parse(bomb, None), Err(SoapError::Forbidden("document type")));
    let nested = answer(&format!("{}{}", "<a>".repeat(100), "</a>".repeat(100)));
    assert_eq!(parse(&nested, Some(MESSAGE)), Err(SoapError::Bound("nested elements")));
    assert_eq!(parse(&vec![b' '; MAX_ANSWER + 1], None), Err(SoapError::TooLarge { limit: MAX_ANSWER }));
    assert!(parse(b"<html><body>Service Unavailable</body></html>", None).is_err());
    let whole = answer("<r:SendResponse/>");
    for cut in 0..whole.len() {
        assert!(parse(&whole[..cut], Some(MESSAGE)).is_err(), "cut at {cut}");
    }
}

#[test]
fn faults_are_read_in_all_their_forms() {
    let wsman = answer(
        "<s:Fault><s:Code><s:Value>s:Receiver</s:Value><s:Subcode><s:Value>w:TimedOut</s:Value></s:Subcode></s:Code>\
         <s:Reason><s:Text xml:lang='de'>Zeit</s:Text></s:Reason><s:Detail>\
         <f:WSManFault xmlns:f='http://schemas.microsoft.com/wbem/wsman/1/wsmanfault' Code='-2144108503' Machine='w'>\
         <f:Message>&#27;Zu <f:ProviderFault provider='p' path='q'>spät</f:ProviderFault></f:Message></f:WSManFault></s:Detail></s:Fault>",
    );
    let Response::Fault(fault) = parse(&wsman, Some(MESSAGE)).unwrap() else { panic!() };
    assert_eq!(fault.class(), Class::TimedOut);
    assert_eq!(fault.to_string(), "fault 2150858793 (ERROR_WSMAN_OPERATION_TIMEDOUT): \u{fffd}Zu spät");
    assert_eq!(fault.machine.as_deref(), Some("w"));

    let wmi = answer(
        "<s:Fault><s:Code><s:Value>s:Receiver</s:Value></s:Code><s:Detail>\
         <p:MSFT_WmiError xmlns:p='http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/MSFT_WmiError'>\
         <p:error_Code>2150859173</p:error_Code><p:Message>quota</p:Message></p:MSFT_WmiError></s:Detail></s:Fault>",
    );
    let Response::Fault(fault) = parse(&wmi, Some(MESSAGE)).unwrap() else { panic!() };
    assert_eq!(fault.class(), Class::QuotaShells);
    assert_eq!(fault.reason, "quota");

    let bare = answer(
        "<s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>w:AccessDenied</s:Value></s:Subcode></s:Code></s:Fault>",
    );
    let Response::Fault(fault) = parse(&bare, Some(MESSAGE)).unwrap() else { panic!() };
    assert_eq!(fault.class(), Class::AccessDenied);
}

#[test]
fn identify_is_read() {
    let message = format!(
        "<s:Envelope xmlns:s='{}'><s:Header/><s:Body><i:IdentifyResponse xmlns:i='{}'><i:ProtocolVersion>x</i:ProtocolVersion>\
         <i:ProductVendor>Microsoft Corporation</i:ProductVendor><i:ProductVersion>OS: 0.0.0 SP: 0.0 Stack: 3.0</i:ProductVersion>\
         </i:IdentifyResponse></s:Body></s:Envelope>",
        uri::SOAP,
        uri::IDENTITY
    );
    let Response::Identified(identity) = parse(message.as_bytes(), None).unwrap() else { panic!() };
    assert_eq!(identity.vendor, "Microsoft Corporation");
    assert_eq!(identity.version, "OS: 0.0.0 SP: 0.0 Stack: 3.0");
    assert!(Reader::open(IDENTIFY.as_bytes()).is_ok());
}

proptest! {
    #[test]
    fn mutated_answers_never_panic(position in 0usize..400, byte in any::<u8>(), length in 0usize..4) {
        let mut message = answer("<r:ReceiveResponse><r:Stream Name='stdout' CommandId='a'>aGk=</r:Stream></r:ReceiveResponse>");
        let position = position.min(message.len());
        let end = (position + length).min(message.len());
        message.splice(position..end, [byte]);
        let _ = parse(&message, Some(MESSAGE));
    }
}

/// Structure after DSP0226 8.4 (optimised) and WS-Enumeration 3.2 (Pull); values as winrs shows them.
#[test]
fn listings_of_shells_come_in_one_answer_or_in_many() {
    let listing = |content: &str| {
        let envelope = format!(
            "<s:Envelope xmlns:s=\"{}\" xmlns:a=\"{}\" xmlns:n=\"{}\" xmlns:w=\"{}\" xmlns:rsp=\"{}\"><s:Header>\
             <a:RelatesTo>uuid:{MESSAGE}</a:RelatesTo></s:Header><s:Body>{content}</s:Body></s:Envelope>",
            uri::SOAP,
            uri::ADDRESSING,
            uri::ENUMERATION,
            uri::WSMAN,
            uri::SHELL
        );
        match parse(envelope.as_bytes(), Some(MESSAGE)).unwrap() {
            Response::Listed(listed) => listed,
            other => panic!("{other:?}"),
        }
    };
    let shell = |id: &str, name: &str| ListedShell {
        shell_id: id.to_owned(),
        name: Some(name.to_owned()).filter(|name| !name.is_empty()),
    };
    let one = "<rsp:Shell Name=\"first\"><rsp:ShellId>A</rsp:ShellId><rsp:Owner>x</rsp:Owner></rsp:Shell>";
    let two = "<rsp:Shell><rsp:ShellId>B</rsp:ShellId><rsp:Name>second</rsp:Name></rsp:Shell><rsp:Shell><rsp:Owner/></rsp:Shell>";
    let whole = listing(&format!(
        "<n:EnumerateResponse><w:Items>{one}{two}</w:Items><n:EnumerationContext>left over</n:EnumerationContext><w:EndOfSequence/>\
         </n:EnumerateResponse>"
    ));
    assert_eq!(whole, Listed { shells: vec![shell("A", "first"), shell("B", "second")], ..Listed::default() });
    let part = listing(&format!(
        "<n:EnumerateResponse><n:EnumerationContext>uuid:7</n:EnumerationContext><w:Items>{one}</w:Items></n:EnumerateResponse>"
    ));
    assert_eq!(
        part,
        Listed { shells: vec![shell("A", "first")], more: Some("uuid:7".to_owned()), ..Listed::default() }
    );
    let rest = listing(
        "<n:PullResponse><n:Items><rsp:Shell><rsp:ShellId>C</rsp:ShellId></rsp:Shell></n:Items><n:EndOfSequence/></n:PullResponse>",
    );
    assert_eq!(rest, Listed { shells: vec![shell("C", "")], ..Listed::default() });
    assert_eq!(listing("<n:PullResponse><n:EndOfSequence/></n:PullResponse>"), Listed::default());

    let request = text(requests().list(MESSAGE, Listing::Shells).unwrap());
    assert!(
        request.contains("windows/shell</wsman:ResourceURI>") && request.contains("<wsman:OptimizeEnumeration/>"),
        "{request}"
    );
    let request = text(requests().list_more(MESSAGE, Listing::Shells, "uuid:7").unwrap());
    assert!(request.contains("<wsen:EnumerationContext>uuid:7</wsen:EnumerationContext>"), "{request}");
}
