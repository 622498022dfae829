use super::*;

/// As the script writes it on a host where everything is as it should be.
pub(crate) const GOOD: &str = r#"{"lictor_posture":1,"items":{"firewall":{"value":{"profiles":[{"name":"Domain","enabled":"True","inbound":"Block"},{"name":"Private","enabled":"True","inbound":"Block"},{"name":"Public","enabled":"True","inbound":"Block"}],"rules":[{"name":"WinRM over HTTPS","profile":"Domain","port":"5986","remote":["192.0.2.10","192.0.2.16/28"]}]}},"script_block_logging":{"value":{"enabled":1}},"log:Security":{"value":{"enabled":true,"bytes":201326592,"mode":"Circular"}},"log:Microsoft-Windows-WinRM/Operational":{"value":{"enabled":true,"bytes":33554432,"mode":"Circular"}},"log:Microsoft-Windows-PowerShell/Operational":{"value":{"enabled":true,"bytes":33554432,"mode":"Circular"}},"session_configurations":{"value":{"configurations":[{"name":"microsoft.powershell","enabled":"True","sddl":"O:NSG:BAD:P(A;;GA;;;BA)(A;;GA;;;IU)(A;;GA;;;RM)S:P(AU;FA;GA;;;WD)(AU;SA;GXGW;;;WD)"}]}}}}"#;
/// And where nothing is.
pub(crate) const BAD: &str = r#"{"lictor_posture":1,"items":{"firewall":{"value":{"profiles":[{"name":"Domain","enabled":"True","inbound":"Block"}],"rules":[{"name":"Windows Remote Management (HTTP-In)","profile":"Domain, Private","port":"5985","remote":["Any"]}]}},"script_block_logging":{"value":{"enabled":null}},"log:Security":{"value":{"enabled":true,"bytes":1052672}},"log:Microsoft-Windows-WinRM/Operational":{"value":{"enabled":false,"bytes":1052672}},"log:Microsoft-Windows-PowerShell/Operational":{"value":{"enabled":true,"bytes":65536}},"session_configurations":{"value":{"configurations":[{"name":"open","enabled":"True","sddl":"O:NSG:BAD:P(A;;GA;;;WD)"},{"name":"off","enabled":"False","sddl":"D:(A;;GA;;;WD)"}]}}}}"#;
/// And for a user without rights, on an old host.
pub(crate) const PARTIAL: &str = r#"{"lictor_posture":1,"items":{"firewall":{"reason":"missing","error":"The term 'Get-NetFirewallProfile' is not recognized"},"script_block_logging":{"value":{"enabled":0}},"log:Security":{"reason":"denied","error":"Attempted to perform an unauthorized operation."},"log:Microsoft-Windows-WinRM/Operational":{"value":{"enabled":true}},"session_configurations":{"reason":"denied","error":"Access is denied.\r\nRun as administrator."}}}"#;

#[test]
fn a_good_answer_is_read_whole() {
    let answer = parse(GOOD.as_bytes()).unwrap();
    let firewall = answer.firewall.unwrap();
    assert_eq!((firewall.profiles.len(), firewall.profiles[1].enabled), (3, Some(true)));
    assert_eq!(firewall.rules[0].remote, ["192.0.2.10", "192.0.2.16/28"]);
    assert_eq!(answer.script_block_logging, Ok(Some(true)));
    assert_eq!(answer.security_log, Ok(Log { enabled: Some(true), bytes: Some(201_326_592) }));
    assert!(answer.session_configurations.unwrap()[0].sddl.starts_with("O:NSG:BAD:P"));
}

#[test]
fn what_could_not_be_read_says_why() {
    let answer = parse(PARTIAL.as_bytes()).unwrap();
    assert!(answer.firewall.unwrap_err().starts_with("the host does not have it: The term"));
    assert_eq!(answer.script_block_logging, Ok(Some(false)));
    assert!(answer.security_log.unwrap_err().starts_with("the user may not read it: "));
    assert_eq!(answer.winrm_log, Ok(Log { enabled: Some(true), bytes: None }));
    assert_eq!(answer.powershell_log, Err("the script did not read it".to_owned()));
    assert!(answer.session_configurations.unwrap_err().ends_with("Access is denied. Run as administrator."));
}

#[test]
fn the_answer_is_found_among_the_lines_of_others() {
    let noisy = format!("Welcome to {{the}} host\r\n{{\"lictor_posture\":2}}\r\n{GOOD}\r\nBye\r\n");
    assert_eq!(parse(noisy.as_bytes()), parse(GOOD.as_bytes()));
}

#[test]
fn lists_come_as_powershell_writes_them() {
    let firewall = |rules: &str| {
        let text = format!(
            "{{\"lictor_posture\":1,\"items\":{{\"firewall\":{{\"value\":{{\"profiles\":[],\"rules\":{rules}}}}}}}}}"
        );
        parse(text.as_bytes()).unwrap().firewall
    };
    let names = |rules: &str| firewall(rules).map(|firewall| firewall.rules.len());
    assert_eq!(names("[]"), Ok(0));
    assert_eq!(names("null"), Ok(0));
    assert_eq!(names("{\"name\":\"one\"}"), Ok(1));
    assert_eq!(names("{\"value\":[{\"name\":\"a\"},{\"name\":\"b\"}],\"Count\":2}"), Ok(2));
    let one = firewall("{\"name\":\"one\",\"remote\":\"Any\"}").unwrap();
    assert_eq!(one.rules[0].remote, ["Any"]);
    assert!(names(&format!("[{}]", vec!["1"; MAX_ITEMS + 1].join(","))).is_err());
}

#[test]
fn what_is_no_answer_is_none() {
    for nothing in
        ["", "hello", "{}", "{\"lictor_posture\":2,\"items\":{}}", "{\"lictor_posture\":1", "[\"lictor_posture\"]"]
    {
        assert!(parse(nothing.as_bytes()).is_err(), "{nothing}");
    }
    let empty = parse(b"{\"lictor_posture\":1}").unwrap();
    assert!(empty.firewall.is_err() && empty.security_log.is_err());
    // Deeper than any JSON of ours: refused, not a stack overflow.
    let deep = format!("{{\"lictor_posture\":1,\"items\":{}", "[".repeat(100_000));
    assert!(parse(deep.as_bytes()).is_err());
    assert!(parse(&vec![b'x'; MAX_OUTPUT + 1]).is_err());
    assert!(parse(b"\xff\xfe{\"lictor_posture\"").is_err());
}

#[test]
fn texts_are_short_and_on_one_line() {
    let text = format!(
        "{{\"lictor_posture\":1,\"items\":{{\"firewall\":{{\"error\":\"a\\u001b[2J\\n{}\"}}}}}}",
        "x".repeat(5000)
    );
    let why = parse(text.as_bytes()).unwrap().firewall.unwrap_err();
    assert!(why.chars().count() < 400 && !why.contains(char::is_control), "{why}");
}
