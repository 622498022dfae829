//! Rules, the ways around them, and the reference page.

use lictor_proto::v1::{Command, Script, ShellSettings};

use super::*;
use lictor_settings::Reader;

fn policy(text: &str) -> Policy {
    file::parse("/p/policy.toml".as_ref(), text.as_bytes()).unwrap()
}

fn mistakes(name: &str, text: &str) -> Vec<String> {
    match file::parse(name.as_ref(), text.as_bytes()) {
        Err(PolicyError::Mistakes { mistakes, .. }) => mistakes,
        other => panic!("{other:?}"),
    }
}

#[derive(Clone)]
struct Asked {
    scheme: Scheme,
    host: &'static str,
    port: Option<u16>,
    username: &'static str,
    realm: Option<&'static str>,
    auth: AuthKind,
    delegate: bool,
    tls: TlsPolicy,
    message_encryption: MessageEncryption,
    job: Job,
}

const COMMAND: Job = Job { kind: TaskKind::Command, script_bytes: 10 };

impl Default for Asked {
    fn default() -> Self {
        Self {
            scheme: Scheme::Https,
            host: "win01.corp.example",
            port: None,
            username: r"CORP\svc-web",
            realm: None,
            auth: AuthKind::Negotiate,
            delegate: false,
            tls: TlsPolicy::default(),
            message_encryption: MessageEncryption::Auto,
            job: COMMAND,
        }
    }
}

impl Asked {
    fn of(self, policy: &Policy) -> Result<Networks, Refusal> {
        let endpoint = Endpoint::new(self.scheme, self.host, self.port, None).unwrap();
        policy.check(
            self.job,
            &Approach {
                endpoint: &endpoint,
                username: self.username,
                realm: self.realm,
                auth: self.auth,
                delegate: self.delegate,
                tls: &self.tls,
                task_ca: self.tls.ca_pem.is_some(),
                message_encryption: self.message_encryption,
            },
        )
    }

    fn code(self, policy: &Policy) -> &'static str {
        self.of(policy).map_or_else(|refusal| refusal.code, |_| "allowed")
    }
}

fn host(policy: &Policy, host: &'static str) -> &'static str {
    Asked { host, ..Asked::default() }.code(policy)
}

fn user(policy: &Policy, username: &'static str) -> &'static str {
    Asked { username, ..Asked::default() }.code(policy)
}

#[test]
fn without_a_policy_everything_is_allowed() {
    let tls = TlsPolicy { skip_certificate_check: true, ca_pem: Some("x".into()) };
    let policy = Policy::default();
    for scheme in [Scheme::Http, Scheme::Https] {
        let asked = Asked { scheme, tls: tls.clone(), auth: AuthKind::Basic, host: "127.1", ..Asked::default() };
        assert_eq!(asked.of(&policy), Ok(Networks::default()));
    }
}

#[test]
fn hosts_are_allowed_by_name_suffix_and_block() {
    let policy =
        policy("hosts.allow = [\"Win01.Other.example.\", \".corp.example\", \"10.1.0.0/16\", \"[2001:db8::7]\"]");
    for (name, expected) in [
        ("win01.other.example", "allowed"),
        ("WIN01.OTHER.EXAMPLE.", "allowed"),
        ("a.corp.example", "allowed"),
        ("a.b.Corp.Example.", "allowed"),
        ("10.1.2.3", "allowed"),
        ("::ffff:10.1.2.3", "allowed"),
        ("::ffff:a01:203", "allowed"),
        ("2001:db8::7", "allowed"),
        ("[2001:0db8:0::7]", "allowed"),
        ("10.2.0.1", "policy.host"),
        ("::ffff:10.2.0.1", "policy.host"),
        ("2001:db8::8", "policy.host"),
    ] {
        assert_eq!(host(&policy, name), expected, "{name}");
    }
    // Of other names only the addresses can allow them, once they are known.
    for name in ["corp.example", "evilcorp.example", "win01.other.example.evil", "10.1.2.3.evil.example"] {
        let networks = Asked { host: name, ..Asked::default() }.of(&policy).unwrap();
        assert!(
            networks.permit("10.1.9.9".parse().unwrap()) && !networks.permit("10.2.0.1".parse().unwrap()),
            "{name}"
        );
    }
    // Names that a rule allows are not held to blocks.
    let networks = Asked { host: "a.corp.example", ..Asked::default() }.of(&policy).unwrap();
    assert!(networks.permit("192.0.2.1".parse().unwrap()));
}

#[test]
fn without_blocks_unknown_names_are_refused_at_once() {
    let policy = policy("hosts.allow = [\".corp.example\"]");
    for name in ["corp.example", "evilcorp.example", "x.corp.example.evil", "10.0.0.1", "::1"] {
        assert_eq!(host(&policy, name), "policy.host", "{name}");
    }
    assert_eq!(host(&self::policy("hosts.allow = []"), "win01.corp.example"), "policy.host");
    assert_eq!(host(&self::policy("hosts.allow = [\"*\"]"), "win01.corp.example"), "allowed");
}

#[test]
fn addresses_in_disguise_are_refused() {
    let policy = policy("hosts.deny = [\"127.0.0.0/8\", \"169.254.169.254\", \"DC01.corp.example\"]");
    for name in [
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.0.0.1.",
        "127.0.1",
        "0x",
        "1.0x7f",
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
        "dc01.corp.example.",
        "DC01.CORP.example",
    ] {
        assert_eq!(host(&policy, name), "policy.host", "{name}");
    }
    // What a name resolves to is held to the same rule.
    let networks = Asked { host: "localhost", ..Asked::default() }.of(&policy).unwrap();
    for (address, permitted) in
        [("127.0.0.1", false), ("::ffff:127.0.0.1", false), ("169.254.169.254", false), ("10.0.0.1", true)]
    {
        assert_eq!(networks.permit(address.parse().unwrap()), permitted, "{address}");
    }
    // And so are names that are allowed.
    let both = self::policy("hosts.allow = [\".corp.example\"]\nhosts.deny = [\"10.0.0.1\"]");
    let networks = Asked::default().of(&both).unwrap();
    assert!(!networks.permit("10.0.0.1".parse().unwrap()) && networks.permit("10.0.0.2".parse().unwrap()));
}

#[test]
fn names_of_other_scripts_are_compared_as_the_dns_has_them() {
    let policy = policy("hosts.allow = [\"BÜCHER.example\", \".ｃｏｒｐ.example\"]");
    assert_eq!(host(&policy, "xn--bcher-kva.example"), "allowed");
    assert_eq!(host(&policy, "XN--BCHER-KVA.example."), "allowed");
    assert_eq!(host(&policy, "a.corp.example"), "allowed");
    assert_eq!(host(&policy, "bucher.example"), "policy.host");
}

#[test]
fn identities_are_compared_without_case_and_asterisks_stay_within_their_part() {
    let policy = policy("identities.allow = ['corp\\SVC-*', 'svc-*@corp.example', 'local']");
    for (name, expected) in [
        (r"CORP\svc-web", "allowed"),
        (r"corp\SVC-", "allowed"),
        ("SVC-a@CORP.example", "allowed"),
        ("Local", "allowed"),
        (r".\local", "policy.identity"),
        (r"CORP\administrator", "policy.identity"),
        (r"EVIL\CORP\svc-web", "policy.identity"),
        (r"CORP\svc-x@evil.example", "policy.identity"),
        (r"svc-x\admin@corp.example", "policy.identity"),
        ("svc-x@evil.example@corp.example", "policy.identity"),
        ("svc-a@corp.example ", "policy.identity"),
        ("local\n", "policy.identity"),
        ("", "policy.identity"),
    ] {
        assert_eq!(user(&policy, name), expected, "{name:?}");
    }
}

#[test]
fn a_user_of_another_realm_is_another_user() {
    let policy =
        policy("identities.allow = ['CORP\\svc-*', 'svc-*@corp.example']\nidentities.deny = ['svc-root@evil.example']");
    let asked = |username, realm| Asked { username, realm, ..Asked::default() }.code(&policy);
    assert_eq!(asked(r"CORP\svc-web", None), "allowed");
    assert_eq!(asked(r"CORP\svc-web", Some("CORP.EXAMPLE")), "allowed");
    assert_eq!(asked("svc-web@corp.example", Some("CORP.EXAMPLE")), "allowed");
    assert_eq!(asked(r"CORP\svc-web", Some("EVIL.EXAMPLE")), "policy.identity");
    assert_eq!(asked("svc-web@corp.example", Some("EVIL.EXAMPLE")), "policy.identity");
    let policy = self::policy("identities.deny = ['svc-root@evil.example']");
    let asked = |username, realm| Asked { username, realm, ..Asked::default() }.code(&policy);
    assert_eq!(asked(r"CORP\svc-root", Some("EVIL.EXAMPLE")), "policy.identity");
}

#[test]
fn ways_to_authenticate_and_delegation_can_be_limited() {
    let policy = policy("connection.auth = ['kerberos', 'basic']\nconnection.delegation = false");
    let asked = |auth, delegate| Asked { auth, delegate, ..Asked::default() }.code(&policy);
    assert_eq!(asked(AuthKind::Kerberos, false), "allowed");
    assert_eq!(asked(AuthKind::Basic, false), "allowed");
    assert_eq!(asked(AuthKind::Ntlm, false), "policy.auth");
    assert_eq!(asked(AuthKind::Negotiate, false), "policy.auth");
    assert_eq!(asked(AuthKind::Kerberos, true), "policy.delegation");
    let found = mistakes("p.toml", "connection.auth = ['credssp']");
    assert!(found[0].contains("is not one of basic, ntlm, negotiate and kerberos"), "{found:?}");
}

#[test]
fn a_denied_account_is_denied_in_every_domain_and_form() {
    let policy = policy("identities.deny = ['Administrator', 'adm-*', 'CORP\\root']");
    for (name, expected) in [
        ("administrator", "policy.identity"),
        (r"CORP\ADMINISTRATOR", "policy.identity"),
        (r".\administrator", "policy.identity"),
        ("administrator@corp.example", "policy.identity"),
        (r"x\administrator@corp.example", "policy.identity"),
        ("corp/administrator", "policy.identity"),
        (" administrator", "policy.identity"),
        (r"CORP\adm-alice", "policy.identity"),
        ("adm-alice@corp.example", "policy.identity"),
        (r"corp\Root", "policy.identity"),
        (r"OTHER\root", "allowed"),
        (r"CORP\alice", "allowed"),
        (r"CORP\notadministrator", "allowed"),
    ] {
        assert_eq!(user(&policy, name), expected, "{name:?}");
    }
    let all = self::policy("identities.allow = ['*']\nidentities.deny = ['CORP\\*']");
    assert_eq!((user(&all, r"OTHER\x"), user(&all, r"corp\x")), ("allowed", "policy.identity"));
}

#[test]
fn connections_are_limited() {
    let policy = policy(
        "[connection]\nports = [5986]\nhttp = \"forbidden\"\nskip_cert_check = false\ntask_ca = false\nbasic = false\n",
    );
    let asked = Asked::default;
    let tls = |skip, ca: Option<&str>| TlsPolicy { skip_certificate_check: skip, ca_pem: ca.map(str::to_owned) };
    assert_eq!(asked().code(&policy), "allowed");
    assert_eq!(Asked { port: Some(22), ..asked() }.code(&policy), "policy.port");
    assert_eq!(Asked { scheme: Scheme::Http, ..asked() }.code(&policy), "policy.port");
    assert_eq!(Asked { scheme: Scheme::Http, port: Some(5986), ..asked() }.code(&policy), "policy.plain_http");
    assert_eq!(Asked { tls: tls(true, None), ..asked() }.code(&policy), "policy.skip_cert_check");
    assert_eq!(Asked { tls: tls(false, Some("pem")), ..asked() }.code(&policy), "policy.task_ca");
    assert_eq!(Asked { auth: AuthKind::Basic, ..asked() }.code(&policy), "policy.basic");

    let sealed = self::policy("connection.http = \"sealed\"");
    let http = || Asked { scheme: Scheme::Http, ..Asked::default() };
    assert_eq!(http().code(&sealed), "allowed");
    assert_eq!(Asked { message_encryption: MessageEncryption::Never, ..http() }.code(&sealed), "policy.plain_http");
    assert_eq!(Asked { auth: AuthKind::Basic, ..http() }.code(&sealed), "policy.plain_http");
}

#[test]
fn tasks_are_limited_by_kind_and_by_all_that_they_bring() {
    let policy = policy("[tasks]\nkinds = [\"command\", \"connection_test\"]\nmax_script_bytes = 20\n");
    let job = |kind, script_bytes| Asked { job: Job { kind, script_bytes }, ..Asked::default() }.code(&policy);
    assert_eq!(job(TaskKind::ConnectionTest, 0), "allowed");
    assert_eq!(job(TaskKind::Script, 1), "policy.task_kind");
    assert_eq!((job(TaskKind::Command, 20), job(TaskKind::Command, 21)), ("allowed", "policy.script_size"));

    let shell = Some(ShellSettings { environment: [("ab".to_owned(), "cde".to_owned())].into(), ..Default::default() });
    let command = Command {
        command_line: "12".into(),
        arguments: vec!["3".into(), "45".into()],
        stdin: vec![0; 6].into(),
        shell: shell.clone(),
        ..Default::default()
    };
    let spec = |kind| TaskSpec { kind: Some(kind), ..TaskSpec::default() };
    let of = |kind| Job::of(&spec(kind)).unwrap();
    assert_eq!(of(task_spec::Kind::Command(command)), Job { kind: TaskKind::Command, script_bytes: 16 });
    let script = Script { text: "1234567".into(), arguments: vec!["8".into()], shell, ..Default::default() };
    assert_eq!(of(task_spec::Kind::Script(script)), Job { kind: TaskKind::Script, script_bytes: 13 });
    assert_eq!(Job::of(&TaskSpec::default()), None);
}

#[test]
fn a_refusal_names_the_rule_and_the_file() {
    let refusal = Asked::default().of(&policy("hosts.allow = [\"other\"]")).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "the task is for host \"win01.corp.example\": hosts.allow in /p/policy.toml does not allow it"
    );
}

#[test]
fn every_mistake_is_told_at_once_and_nothing_is_taken_for_granted() {
    let text = "colour = 1\n[hosts]\nallow = [\"a b\", \"*.x\", \"10.0.0.1/8\", \"127.1\", \"\", \"a%41\", \"10.0.0.0/33\"]\n\
                [connection]\nports = [0, 70000]\nhttp = \"maybe\"\nbasic = \"no\"\n\
                [tasks]\nkinds = [\"powershell\"]\nconcurrent = 0\nmax_script_bytes = -1\n[identities]\ndeny = [\"\"]\n";
    let found = mistakes("p.toml", text);
    let all = found.join("\n");
    for expected in [
        "colour: is not a setting",
        "hosts.allow: \"a b\" is not a host name",
        "names below another are written .x",
        "did you mean 10.0.0.0/8?",
        "hosts.allow: \"127.1\" is another spelling of an address; write 127.0.0.1",
        "hosts.allow: \"\" is not a host name",
        "hosts.allow: \"a%41\"",
        "hosts.allow: \"10.0.0.0/33\" has no prefix length",
        "connection.ports: \"0\" is not a TCP port",
        "connection.ports: \"70000\" is not a TCP port",
        "connection.http: must be",
        "connection.basic: must be true or false",
        "tasks.kinds: \"powershell\" is not a kind",
        "tasks.concurrent: must be",
        "tasks.max_script_bytes: must be",
        "identities.deny: \"\" is empty",
    ] {
        assert!(all.contains(expected), "{expected:?} is missing in:\n{all}");
    }
    assert_eq!(found.len(), 16, "{all}");
    // A key without a value limits nothing, which is not what was meant.
    for text in ["hosts:\n  allow:\n", "hosts: ~\ntasks: {concurrent: 1}\n"] {
        assert!(mistakes("p.yaml", text).iter().any(|text| text.contains("has no value")), "{text}");
    }
    for (name, text) in [("p.toml", ""), ("p.yaml", "# nothing\n"), ("p.yaml", "{}"), ("p.txt", "hosts.allow = []")] {
        assert_eq!(mistakes(name, text).len(), 1, "{name} {text:?}");
    }
    assert!(!mistakes("p.yaml", "hosts: {allow: [a]}\nhosts: {deny: [b]}\n").is_empty(), "a key given twice");
    assert!(matches!(load("/nowhere/p.toml".as_ref()), Err(PolicyError::Read { .. })));
}

#[test]
fn every_field_has_its_rule_and_the_page_lists_the_codes() {
    let mut reader = Reader::new(config::Value::default(), &[], Vec::new());
    let policy = file::take(&mut reader, "/p".as_ref());
    let asked = reader.asked();
    let page = include_str!("../../../docs/policy.md");
    // The struct's own fields, so that a field that no key sets cannot hide.
    let fields =
        format!("{policy:#?}").lines().filter(|line| line.starts_with("        ") && line.contains(": ")).count();
    assert_eq!(fields, asked.len());
    for code in [
        "host",
        "address",
        "identity",
        "task_kind",
        "port",
        "plain_http",
        "skip_cert_check",
        "task_ca",
        "basic",
        "script_size",
    ] {
        assert!(page.contains(&format!("| `policy.{code}` |")), "policy.{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_beyond_the_bound_waits_for_its_turn() {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::watch;
    use tokio::time::timeout;

    let (policies, receiver) = watch::channel(Arc::new(policy("[tasks]\nconcurrent = 3\nconcurrent_per_host = 2\n")));
    let turns = Arc::new(turns::Turns::new(receiver));
    let soon = Duration::from_secs(1);
    let first = turns.next("Host.").await;
    let _second = turns.next("host").await;
    assert!(timeout(soon, turns.next("HOST")).await.is_err(), "the host is full");
    let _third = turns.next("other").await;
    assert!(timeout(soon, turns.next("third")).await.is_err(), "the agent is full");
    let waiting = tokio::spawn({
        let turns = Arc::clone(&turns);
        async move { turns.next("host").await }
    });
    tokio::task::yield_now().await;
    drop(first);
    let again = waiting.await.unwrap();
    assert!(timeout(soon, turns.next("third")).await.is_err());
    policies.send_replace(Arc::new(Policy::default()));
    timeout(soon, turns.next("host")).await.expect("the new policy has no bounds");
    drop(again);
}

fn kms<'a>(key: &'a str, role: Option<&'a str>, endpoint: &'a str) -> KmsUse<'a> {
    KmsUse { key, role, endpoints: ["", endpoint] }
}

fn kms_code(policy: &Policy, wanted: &KmsUse<'_>) -> &'static str {
    policy.kms(wanted).map_or_else(|refusal| refusal.code, |()| "allowed")
}

const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

#[test]
fn keys_and_roles_are_compared_part_by_part() {
    let policy = policy(
        "secrets.kms_keys = [\"arn:aws:kms:*:111122223333:key/*\"]\n\
         secrets.kms_roles = [\"arn:aws:iam::111122223333:role/lictor-*\"]",
    );
    for (key, role, expected) in [
        (KEY, None, "allowed"),
        (KEY, Some("arn:aws:iam::111122223333:role/lictor-kms"), "allowed"),
        (KEY, Some("arn:aws:iam::111122223333:role/admin"), "policy.kms_role"),
        (KEY, Some("arn:aws:iam::444455556666:role/lictor-kms"), "policy.kms_role"),
        (KEY, Some("arn:aws:iam::444455556666:x:111122223333:role/lictor-kms"), "policy.kms_role"),
        (KEY, Some(""), "policy.kms_role"),
        ("arn:aws:kms:eu-central-1:444455556666:key/a", None, "policy.kms_key"),
        ("arn:aws:kms:eu-central-1:444455556666:111122223333:key/a", None, "policy.kms_key"),
        ("ARN:aws:kms:eu-central-1:111122223333:key/a", None, "policy.kms_key"),
        ("arn:aws:kms:eu-central-1:111122223333:alias/a", None, "policy.kms_key"),
        // Of which account it is only AWS knows.
        ("alias/a", None, "policy.kms_key"),
        ("1234abcd-12ab-34cd-56ef-1234567890ab", None, "policy.kms_key"),
        ("", None, "policy.kms_key"),
    ] {
        assert_eq!(kms_code(&policy, &kms(key, role, "")), expected, "{key} {role:?}");
    }
    let any = self::policy("secrets.kms_keys = [\"*\"]\nsecrets.kms_roles = []");
    assert_eq!(kms_code(&any, &kms("alias/a", None, "")), "allowed");
    assert_eq!(kms_code(&any, &kms("alias/a", Some("arn:aws:iam::111122223333:role/a"), "")), "policy.kms_role");
    assert!(any.allows_kms() && !self::policy("secrets.kms_keys = []").allows_kms());
}

#[test]
fn other_endpoints_are_refused_unless_they_are_listed() {
    let endpoint = |policy: &Policy, url: &str| kms_code(policy, &kms(KEY, None, url));
    for policy in [Policy::default(), policy("secrets.sources = true")] {
        assert_eq!(endpoint(&policy, ""), "allowed");
        assert_eq!(endpoint(&policy, "https://kms.eu-central-1.amazonaws.com"), "policy.kms_endpoint");
    }
    let refusal = Policy::default().kms(&kms(KEY, None, "https://kms.evil.example")).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "the task calls AWS at \"https://kms.evil.example\": secrets.kms_endpoints in the policy file (there is none) does not allow it"
    );
    let policy = policy(
        "secrets.kms_endpoints = [\"https://*.kms.eu-central-1.vpce.amazonaws.com/\", \"http://127.0.0.1:*\", \"https://Kms.corp.example\"]",
    );
    for (url, expected) in [
        ("https://vpce-0abc.kms.eu-central-1.vpce.amazonaws.com", "allowed"),
        ("https://vpce-0abc.kms.eu-central-1.vpce.amazonaws.com:443/", "allowed"),
        ("https://KMS.CORP.EXAMPLE/", "allowed"),
        ("http://127.0.0.1:4566", "allowed"),
        ("http://kms.corp.example", "policy.kms_endpoint"),
        ("https://kms.corp.example:8443", "policy.kms_endpoint"),
        ("https://a.b.kms.eu-central-1.vpce.amazonaws.com", "policy.kms_endpoint"),
        ("https://evil.example/.kms.eu-central-1.vpce.amazonaws.com", "policy.kms_endpoint"),
        ("https://evil.example#.kms.eu-central-1.vpce.amazonaws.com", "policy.kms_endpoint"),
        ("https://kms.corp.example@evil.example", "policy.kms_endpoint"),
        ("https://user@kms.corp.example", "policy.kms_endpoint"),
        ("https://kms.corp.example/x", "policy.kms_endpoint"),
        ("https://kms.corp.example?x", "policy.kms_endpoint"),
        ("http://127.0.0.1", "policy.kms_endpoint"),
        ("http://127.0.0.1.evil.example:1", "policy.kms_endpoint"),
        ("no URL", "policy.kms_endpoint"),
    ] {
        assert_eq!(endpoint(&policy, url), expected, "{url}");
    }
    assert_eq!(endpoint(&self::policy("secrets.kms_endpoints = [\"*\"]"), "http://a/b"), "allowed");
}

#[test]
fn sources_and_errands_can_be_forbidden() {
    let rules = policy("secrets.sources = false\ntasks.kinds = [\"secret_manager_test\"]");
    assert_eq!(rules.source("env:LICTOR_SECRET_A").unwrap_err().code, "policy.secret_source");
    assert!(Policy::default().source("env:LICTOR_SECRET_A").is_ok());
    let job = |kind| Job { kind, script_bytes: 0 };
    assert!(rules.errand(job(TaskKind::SecretManagerTest)).is_ok());
    assert_eq!(rules.errand(job(TaskKind::SealSecret)).unwrap_err().code, "policy.task_kind");
    assert!(Policy::default().errand(job(TaskKind::SealSecret)).is_ok());
}

#[test]
fn rules_about_aws_that_are_none_are_mistakes() {
    for rule in [
        "kms_keys = [\"alias/a\"]",
        "kms_keys = [\"arn:aws:iam::111122223333:role/a\"]",
        "kms_keys = [\"arn:aws:kms:eu-central-1:111122223333:\"]",
        "kms_roles = [\"admin\"]",
        "kms_endpoints = [\"kms.corp.example\"]",
        "kms_endpoints = [\"https://\"]",
        "kms_endpoints = [\"https://a/b\"]",
        "kms_endpoints = [\"https://a@b\"]",
        "kms_endpoints = [\"ftp://a\"]",
        "kms_keys = [\"\"]",
        "sources = 1",
        "kms_key = []",
    ] {
        assert_eq!(mistakes("p.toml", &format!("secrets.{rule}\n")).len(), 1, "{rule}");
    }
}
