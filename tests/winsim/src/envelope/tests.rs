use super::*;

const ID: &str = "uuid:FC40E3CD-53E9-4315-B486-6D538B25D1F5";

/// A Receive as [MS-WSMV] wants it, with `change` applied to its text.
fn receive(change: impl FnOnce(String) -> String) -> Result<Request, Refusal> {
    let text = format!(
        "<s:Envelope xmlns:s=\"{}\" xmlns:a=\"{}\" xmlns:w=\"{}\" xmlns:p=\"{}\" xmlns:rsp=\"{}\"><s:Header>\
         <a:To>http://host:5985/wsman</a:To><w:ResourceURI s:mustUnderstand=\"true\">u:r</w:ResourceURI>\
         <a:ReplyTo><a:Address s:mustUnderstand=\"true\">{ANONYMOUS}</a:Address></a:ReplyTo>\
         <a:Action s:mustUnderstand=\"true\">http://schemas.microsoft.com/wbem/wsman/1/windows/shell/Receive</a:Action>\
         <w:MaxEnvelopeSize s:mustUnderstand=\"true\">153600</w:MaxEnvelopeSize><a:MessageID>{ID}</a:MessageID>\
         <w:Locale xml:lang=\"en-US\" s:mustUnderstand=\"false\"/><w:OperationTimeout>PT1.5S</w:OperationTimeout>\
         <w:SelectorSet><w:Selector Name=\"ShellId\">X</w:Selector></w:SelectorSet></s:Header>\
         <s:Body><rsp:Receive/></s:Body></s:Envelope>",
        namespace::SOAP,
        namespace::ADDRESSING,
        namespace::MANAGEMENT,
        namespace::MICROSOFT,
        namespace::SHELL,
    );
    match Message::parse(change(text).as_bytes())? {
        Message::Request(request) => Ok(*request),
        Message::Identify => panic!("Identify"),
    }
}

#[test]
fn a_proper_request_is_read() {
    let request = receive(|text| text).expect("valid");
    assert_eq!(request.operation, Operation::Receive);
    assert_eq!(request.operation_timeout, Duration::from_millis(1500));
    assert_eq!(request.selectors, vec![("ShellId".to_owned(), "X".to_owned())]);
    assert_eq!(request.tolerated, Vec::<String>::new());
}

#[test]
fn what_windows_refuses_is_refused_with_its_fault() {
    for (from, to, code) in [
        ("153600", "8191", 2_150_858_805),
        ("153600", "big", 2_150_858_767),
        ("PT1.5S", "1.5", 2_150_858_881),
        ("<a:To>http://host:5985/wsman</a:To>", "", 2_150_858_769),
        ("uuid:FC40", "FC40", 2_150_858_767),
        ("/role/anonymous", "/role/other", 2_150_858_767),
        ("shell/Receive", "shell/Recieve", 2_150_858_771),
        ("<rsp:Receive/>", "", 2_150_858_791),
        ("<rsp:Receive/>", "<Receive/>", 2_150_858_840),
        ("<rsp:Receive/>", "<rsp:Send/>", 2_150_858_791),
        ("</s:Header>", "<x s:mustUnderstand=\"true\"/></s:Header>", 2_150_858_768),
        ("s:mustUnderstand=\"false\"", "s:mustUnderstand=\"true\"", 2_150_858_887),
        ("http://www.w3.org/2003/05/soap-envelope", "http://schemas.xmlsoap.org/soap/envelope/", 2_150_858_765),
        ("<s:Envelope", "<!DOCTYPE x><s:Envelope", 2_150_858_819),
        (
            "</s:Header>",
            "<a:MessageID>uuid:FC40E3CD-53E9-4315-B486-6D538B25D1F5</a:MessageID></s:Header>",
            2_150_858_767,
        ),
        ("http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd", "http://schemas.dmtf.org/wbem/wsman/2", 2_150_858_768),
    ] {
        let refusal = receive(|text| text.replace(from, to)).expect_err(from);
        assert_eq!(refusal.fault.code, code, "{from} -> {to}: {}", refusal.violation);
        assert!(!refusal.violation.is_empty());
    }
    assert_eq!(receive(|text| text.replace("153600", "1")).expect_err("small").message_id.as_deref(), Some(ID));
}

#[test]
fn what_windows_lets_pass_is_noted() {
    for (from, to) in [
        ("ResourceURI s:mustUnderstand=\"true\"", "ResourceURI"),
        ("<w:OperationTimeout>PT1.5S</w:OperationTimeout>", ""),
        ("</s:Header>", "<x/></s:Header>"),
    ] {
        assert_eq!(receive(|text| text.replace(from, to)).expect("tolerated").tolerated.len(), 1, "{from}");
    }
    // pywinrm's spelling is as good.
    let request = receive(|text| text.replace("s:mustUnderstand=\"true\"", "mustUnderstand=\"true\"")).expect("valid");
    assert!(request.tolerated.is_empty());
}

#[test]
fn durations_are_read() {
    for (text, expected) in [
        ("PT60S", Some(60_000)),
        ("PT1.250S", Some(1250)),
        ("PT1H2M3S", Some(3_723_000)),
        ("P1DT1S", Some(86_401_000)),
        ("P2D", Some(172_800_000)),
        ("PT0S", Some(0)),
        ("60", None),
        ("PT", None),
        ("P", None),
        ("PT5", None),
        ("PT1S1M", None),
        ("PT1.5M", None),
        ("-PT1S", None),
        ("P1Y", None),
        ("PTxS", None),
    ] {
        assert_eq!(duration(text), expected.map(Duration::from_millis), "{text}");
    }
}
