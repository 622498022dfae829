//! Connectors as Harness exports them, as its API answers, and as people write them by hand.

use super::*;

fn parse(text: &str) -> Result<Connectors, Vec<String>> {
    read(&"c.yaml".into(), text).map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}

fn one(text: &str) -> Manager {
    parse(text).unwrap().managers.remove(0)
}

const ACCESS_KEY: &str = "
connector:
  name: Corporate KMS
  identifier: corp_kms
  description: of the platform
  orgIdentifier: default
  projectIdentifier: platform
  tags: {team: platform}
  type: AwsKms
  spec:
    credential:
      type: ManualConfig
      spec:
        accessKey: account.aws_id
        secretKey: org.aws_key
    kmsArn: kms_arn
    region: eu-central-1
    delegateSelectors: [aws, prod, aws]
    default: false
    ignoreTestConnection: false
    executeOnDelegate: true
";

fn with(credential: &str) -> String {
    format!(
        "type: AwsKms\nidentifier: k\nspec:\n  kmsArn: arn:aws:kms:eu-central-1:111122223333:alias/lictor\n  region: eu-central-1\n  \
         credential: {credential}\n"
    )
}

#[test]
fn an_access_key_is_two_secrets() {
    let manager = one(ACCESS_KEY);
    assert_eq!((manager.identifier.as_str(), manager.name.as_str()), ("corp_kms", "Corporate KMS"));
    assert_eq!((manager.scope.as_str(), manager.region.as_str()), ("default/platform", "eu-central-1"));
    assert_eq!((manager.agent_tags, manager.tags.len()), (vec!["aws".to_owned(), "prod".to_owned()], 1));
    let secret = |identifier: &str, scope: &str| Reference { identifier: identifier.into(), scope: scope.into() };
    // Names are relative to the project of the connector.
    assert_eq!(manager.key, Value::Secret(secret("kms_arn", "default/platform")));
    let id = Value::Secret(secret("aws_id", ""));
    assert_eq!(manager.who, Who::AccessKey { id, secret: secret("aws_key", "default") });
    assert!(manager.remarks.is_empty(), "{:?}", manager.remarks);
    let references: Vec<String> = one(ACCESS_KEY).references().iter().map(|r| r.identifier.clone()).collect();
    assert_eq!(references, ["kms_arn", "aws_id", "aws_key"]);
    let plain = one(&ACCESS_KEY
        .replace("account.aws_id", "AKIAIOSFODNN7EXAMPLE")
        .replace("org.aws_key", "'<+secrets.getValue(\"account.aws$key\")>'"));
    let id = Value::Text("AKIAIOSFODNN7EXAMPLE".to_owned());
    assert_eq!(plain.who, Who::AccessKey { id, secret: secret("aws_key", "") });
    assert!(plain.remarks[0].contains("is called aws_key here"), "{:?}", plain.remarks);
}

#[test]
fn roles_of_machines_and_roles_that_they_assume() {
    let machine = one(&with("{type: AssumeIAMRole, spec: {delegateSelectors: [aws]}}"));
    assert_eq!((machine.who, machine.agent_tags), (Who::MachineRole, vec!["aws".to_owned()]));
    let machine = one(&with("{type: AssumeIAMRole}"));
    assert!(machine.remarks[0].contains("every agent"), "{:?}", machine.remarks);
    let role = "arn:aws:iam::444455556666:role/lictor";
    let spec = format!("{{roleArn: '{role}', externalName: their-id, assumeStsRoleDuration: 900}}");
    let assumed = one(&with(&format!("{{type: AssumeSTSRole, spec: {spec}}}")));
    assert_eq!(
        assumed.who,
        Who::AssumeRole { role_arn: role.into(), external_id: "their-id".into(), duration_sec: Some(900) }
    );
    for (wrong, words) in [
        ("{type: AssumeSTSRole, spec: {externalName: x}}", "You must provide RoleARN if AssumeStsRole is selected"),
        ("{type: AssumeSTSRole, spec: {roleArn: lictor}}", "must be an ARN"),
        ("{type: AssumeSTSRole, spec: {roleArn: 'arn:x', assumeStsRoleDuration: 899}}", "from 900 to 43200"),
        (
            "{type: AssumeSTSRole, spec: {roleArn: 'arn:x', duration: 900}}",
            "unknown field spec.credential.spec.duration",
        ),
        ("{type: Vault}", "AssumeSTSRole"),
        ("{}", "AssumeSTSRole"),
        ("[]", "spec.credential.type must be"),
    ] {
        let mistakes = parse(&with(wrong)).unwrap_err();
        assert!(mistakes.iter().any(|mistake| mistake.contains(words)), "{wrong}: {mistakes:?}");
    }
}

#[test]
fn roles_by_openid_connect_say_who_calls_aws() {
    for (kind, field, beside, expected) in [
        ("OidcAuthentication", "iamRoleArn", "", false),
        ("OIDC", "iamRole", "  executeOnDelegate: true\n", false),
        ("OidcAuthentication", "iamRoleArn", "  executeOnDelegate: false\n", true),
    ] {
        let text = with(&format!("{{type: {kind}, spec: {{{field}: 'arn:aws:iam::111122223333:role/lictor'}}}}"));
        let Who::Oidc { by_platform, .. } = one(&format!("{text}{beside}")).who else { panic!("{kind}") };
        assert_eq!(by_platform, expected, "{kind} {beside}");
    }
    let text = with("{type: OidcAuthentication, spec: {iamRoleArn: 'arn:x', connectivity: Platform}}");
    assert!(matches!(one(&text).who, Who::Oidc { by_platform: true, .. }));
    // An agent calls AWS with the other types.
    let text = format!("{}  executeOnDelegate: false\n", with("{type: AssumeIAMRole, delegateSelectors: [a]}"));
    assert!(one(&text).remarks[0].contains("executeOnDelegate"));
}

#[test]
fn a_secret_access_key_in_a_document_is_refused_and_not_repeated() {
    for key in ["wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "wJalrXUtnFEMIaK7MDENGbbPxRfiCYEXAMPLEKEY", "Mark ed"] {
        let mistakes = parse(&ACCESS_KEY.replace("org.aws_key", &format!("'{key}'"))).unwrap_err();
        assert!(mistakes.iter().any(|mistake| mistake.contains("lictor secret put")), "{mistakes:?}");
        assert!(!mistakes.iter().any(|mistake| mistake.contains(key)), "{mistakes:?}");
    }
}

#[test]
fn keys_are_told_from_names_of_secrets() {
    for (text, is_plain) in [
        ("arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab", true),
        ("alias/lictor", true),
        ("1234abcd-12ab-34cd-56ef-1234567890ab", true),
        ("mrk-1234abcd12ab34cd56ef1234567890ab", true),
        ("account.kms", false),
        ("kms_arn", false),
    ] {
        let manager = one(&ACCESS_KEY.replace("kmsArn: kms_arn", &format!("kmsArn: {text}")));
        assert_eq!(matches!(manager.key, Value::Text(_)), is_plain, "{text}");
    }
    for wrong in ["'x y'", "1234", "''", "[a]", "null"] {
        assert!(parse(&ACCESS_KEY.replace("kmsArn: kms_arn", &format!("kmsArn: {wrong}"))).is_err(), "{wrong}");
    }
}

#[test]
fn lists_documents_and_answers_of_the_api() {
    let connector = with("{type: AssumeIAMRole}");
    let documents = format!("---\n{connector}\n---\n{}\n", connector.replace("identifier: k", "identifier: l"));
    assert_eq!(parse(&documents).unwrap().managers.len(), 2);
    assert!(parse(&format!("---\n{connector}\n---\n{connector}\n")).unwrap_err()[0].contains("lictor.identifier"));
    let answer = r#"{"status": "SUCCESS", "data": {"content": [
        {"connector": {"name": "k", "identifier": "k", "type": "AwsKms", "tags": {}, "spec": {"kmsArn": "account.arn",
            "region": "eu-central-1", "delegateSelectors": [], "default": true, "credential": {"type": "AssumeIAMRole", "spec": {}}}},
         "createdAt": 1, "lastModifiedAt": 2, "status": {"status": "FAILURE"}, "harnessManaged": false, "isFavorite": false},
        {"connector": {"name": "v", "identifier": "v", "type": "Vault", "spec": {}}, "createdAt": 1}]}, "correlationId": "x"}"#;
    let read = parse(answer).unwrap();
    assert_eq!((read.managers.len(), read.others), (1, vec![("Vault".to_owned(), 5)]));
    assert!(read.managers[0].remarks.iter().any(|remark| remark.contains("default secret manager")));
    for nothing in ["", "- 5\n", "connector: 5\n", "{}"] {
        assert!(parse(nothing).is_err(), "{nothing}");
    }
}

#[test]
fn unknown_fields_are_named_with_their_lines() {
    let mistakes = parse(&ACCESS_KEY.replace("region:", "regon:").replace("secretKey:", "secretkey:")).unwrap_err();
    assert!(mistakes.contains(&"c.yaml:17: unknown field spec.regon".to_owned()), "{mistakes:?}");
    assert!(mistakes.contains(&"c.yaml:15: unknown field spec.credential.spec.secretkey".to_owned()), "{mistakes:?}");
    assert!(parse(&format!("{ACCESS_KEY}other: 1\n")).unwrap_err()[0].ends_with("unknown field \"other\""));
    assert!(parse(&ACCESS_KEY.replace("eu-central-1", "<+input>")).unwrap_err()[0].contains("pipeline"));
}

#[test]
fn our_own_section_says_what_harness_does_not_have() {
    let text = format!(
        "{ACCESS_KEY}lictor:\n  identifier: other\n  scope: ops\n  endpoint: https://kms.corp.example\n  stsEndpoint: \
         https://sts.corp.example\n"
    );
    let manager = one(&text);
    assert_eq!((manager.identifier.as_str(), manager.scope.as_str()), ("other", "ops"));
    assert_eq!(
        (manager.endpoint.as_str(), manager.sts_endpoint.as_str()),
        ("https://kms.corp.example", "https://sts.corp.example")
    );
    assert!(parse(&text.replace("identifier: other", "identifier: agent")).unwrap_err()[0].contains("always there"));
    assert!(parse(&text.replace("scope: ops", "scope: ops//x")).is_err());
}
