//! Documents as Harness exports them, as its API answers, and as people write them by hand.

use super::*;

fn parse(text: &str) -> Result<Read, Vec<String>> {
    read(&"c.yaml".into(), text).map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}

fn one(text: &str) -> Credential {
    parse(text).unwrap().credentials.remove(0)
}

const NTLM: &str = "
secret:
  type: WinRmCredentials
  name: Web servers
  identifier: web_servers
  orgIdentifier: default
  projectIdentifier: platform
  description: of the front end
  tags: {}
  spec:
    port: 5986
    parameters: []
    auth:
      type: NTLM
      spec:
        domain: CORP
        username: svc-web
        password: account.web_password
        useSSL: true
        skipCertChecks: true
        useNoProfile: true
";

#[test]
fn the_entity_of_ntlm() {
    let credential = one(NTLM);
    assert_eq!((credential.name.as_str(), credential.scope.as_str()), ("web_servers", "default/platform"));
    assert_eq!((credential.username.as_str(), credential.domain.as_str()), ("svc-web", "CORP"));
    assert_eq!((credential.auth, credential.port, credential.use_ssl), (Auth::Ntlm, 5986, true));
    assert!(credential.skip_cert_checks && credential.use_no_profile);
    assert_eq!(credential.secret, Wanted::Password { reference: "account.web_password".to_owned() });
    assert!(credential.remarks.is_empty(), "{:?}", credential.remarks);
}

#[test]
fn kerberos_with_each_way_to_a_ticket() {
    let text = |method: &str| {
        format!(
            "type: WinRmCredentials\nidentifier: k\nspec:\n  auth:\n    type: Kerberos\n    spec:\n      principal: svc\n      \
             realm: CORP.EXAMPLE\n      useSSL: false\n{method}"
        )
    };
    let keytab = one(&text(
        "      tgtGenerationMethod: KeyTabFilePath\n      spec:\n        keyPath: /etc/keytabs/svc.keytab\n",
    ));
    assert_eq!(keytab.secret, Wanted::KeytabOnAgent { path: "/etc/keytabs/svc.keytab".to_owned() });
    assert_eq!(
        (keytab.username.as_str(), keytab.realm.as_str(), keytab.port),
        ("svc@CORP.EXAMPLE", "CORP.EXAMPLE", 5985)
    );
    let password = one(&text("      tgtGenerationMethod: Password\n      spec:\n        password: org.kerberos\n"));
    assert_eq!(password.secret, Wanted::Password { reference: "org.kerberos".to_owned() });
    for none in ["", "      tgtGenerationMethod: None\n", "      tgtGenerationMethod: null\n"] {
        let none = one(&text(none));
        assert_eq!(none.secret, Wanted::CacheOnAgent);
        assert!(none.remarks.iter().any(|remark| remark.contains("kinit")), "{:?}", none.remarks);
    }
    let wrong =
        parse(&text("      tgtGenerationMethod: KeyTabFilePath\n      spec: {keyPath: svc.keytab}\n")).unwrap_err();
    assert!(wrong[0].contains("absolute"), "{wrong:?}");
}

#[test]
fn the_port_follows_from_ssl_unless_it_is_given() {
    let text = |port: &str, ssl: &str| {
        format!("name: a\n{port}auth: {{type: NTLM, username: u, domain: D, password: p, {ssl}}}\n")
    };
    for (port, ssl, expected) in [
        ("", "useSSL: true", (5986, true)),
        ("", "useSSL: false", (5985, false)),
        ("port: 8443\n", "useSSL: true", (8443, true)),
        ("port: '5985'\n", "useSSL: no", (5985, false)),
        ("port: 5985\n", "", (5985, false)),
        ("", "", (5986, true)),
    ] {
        let credential = one(&text(port, ssl));
        assert_eq!((credential.port, credential.use_ssl), expected, "{port}{ssl}");
    }
    assert!(!one(&text("port: 5985\n", "useSSL: true")).remarks.is_empty());
    assert!(parse(&text("port: 0\n", "")).is_err());
    assert!(parse(&text("port: 65536\n", "")).is_err());
}

#[test]
fn lists_documents_and_answers_of_the_api() {
    let flat = "{name: NAME, auth: {type: NTLM, spec: {username: u, password: p, useSSL: true}}}";
    let list = format!("[{}, {}]", flat.replace("NAME", "a"), flat.replace("NAME", "b"));
    assert_eq!(parse(&list).unwrap().credentials.len(), 2);
    let documents = format!("---\n{}\n---\n{}\n", flat.replace("NAME", "a"), flat.replace("NAME", "b"));
    assert_eq!(parse(&documents).unwrap().credentials.len(), 2);
    let answer = r#"{"status": "SUCCESS", "data": {"totalItems": 2, "content": [
        {"secret": {"type": "WinRmCredentials", "name": "a", "identifier": "a", "tags": {}, "spec": {"port": 5986, "parameters": [],
            "auth": {"type": "NTLM", "spec": {"domain": "CORP", "username": "u", "password": "account.p", "useSSL": true,
            "skipCertChecks": false, "useNoProfile": false}}}}, "createdAt": 1, "updatedAt": 2, "draft": false},
        {"secret": {"type": "SecretText", "name": "p", "identifier": "p"}, "createdAt": 1}]}, "correlationId": "x"}"#;
    let read = parse(answer).unwrap();
    assert_eq!((read.credentials.len(), read.others.len()), (1, 1));
    assert_eq!(read.others[0].0, "SecretText");
    let twice = parse(&format!("[{flat}, {flat}]")).unwrap_err();
    assert!(twice[0].contains("lictor.name"), "{twice:?}");
    assert!(parse("").is_err());
    assert!(parse("- 5\n").is_err());
}

#[test]
fn unknown_fields_are_named_with_their_lines() {
    let text = NTLM.replace("useNoProfile: true", "useNoProfil: true").replace("port: 5986", "port: 5986\n    prt: 1");
    let mistakes = parse(&text).unwrap_err();
    assert!(mistakes.contains(&"c.yaml:12: unknown field spec.prt".to_owned()), "{mistakes:?}");
    assert!(mistakes.contains(&"c.yaml:22: unknown field auth.spec.useNoProfil".to_owned()), "{mistakes:?}");
    let text = NTLM.replace("type: NTLM\n", "type: NTLM\n      method: x\n");
    assert!(parse(&text).unwrap_err()[0].ends_with("unknown field auth.method"));
    assert!(parse(&NTLM.replace("username: svc-web", "username: <+input>")).unwrap_err()[0].contains("pipeline"));
}

#[test]
fn parameters_are_told_without_their_values() {
    let text = NTLM.replace("parameters: []", "parameters:\n      - parameter: proxy\n        value: s3cret");
    let remarks = one(&text).remarks.join("\n");
    assert!(remarks.contains("\"proxy\"") && !remarks.contains("s3cret"), "{remarks}");
}

#[test]
fn a_password_in_a_document_is_refused_and_not_repeated() {
    for password in ["P@ss w0rd!", "hunter2!", "account.p@ss", "<+secrets.getValue(x)>", "7seven"] {
        let mistakes = parse(&NTLM.replace("account.web_password", &format!("'{password}'"))).unwrap_err();
        assert!(mistakes.iter().any(|mistake| mistake.contains("--password-file")), "{mistakes:?}");
        assert!(!mistakes.iter().any(|mistake| mistake.contains(password)), "{mistakes:?}");
    }
    assert_eq!(reference_name("account.my_secret"), Some("my_secret"));
    assert_eq!(reference_name("<+secrets.getValue(\"org.my_secret\")>"), Some("my_secret"));
    assert_eq!(reference_name("my$ecret"), Some("my$ecret"));
}

#[test]
fn a_user_and_a_domain_that_contradict_each_other() {
    assert!(parse(&NTLM.replace("username: svc-web", "username: OTHER\\svc")).is_err());
    assert_eq!(one(&NTLM.replace("username: svc-web", "username: corp\\svc")).domain, "");
    assert!(parse(&NTLM.replace("        username: svc-web\n", "")).unwrap_err()[0].contains("Username or domain"));
    let text = "name: k\nauth: {type: Kerberos, principal: svc@A.EXAMPLE, realm: B.EXAMPLE, useSSL: true}\n";
    assert!(parse(text).unwrap_err()[0].contains("another"));
}

#[test]
fn our_own_section_says_what_harness_does_not_have() {
    let text = format!(
        "{NTLM}lictor:\n  name: other\n  path: /x\n  sendCbt: false\n  messageEncryption: always\n  scope: ops\n"
    );
    let credential = one(&text);
    assert_eq!((credential.name.as_str(), credential.scope.as_str()), ("other", "ops"));
    assert_eq!((credential.own.path.as_deref(), credential.own.send_cbt), (Some("/x"), Some(false)));
    assert!(parse(&text.replace("always", "sometimes")).is_err());
    assert!(parse(&text.replace("sendCbt", "cbt")).unwrap_err()[0].contains("unknown field lictor.cbt"));
}
