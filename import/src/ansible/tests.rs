//! Inventories without a disk: what is refused, what a host comes to, what targets are sorted into.

use super::plan::Plan;
use super::target::{Auth, Encryption, Outcome, Password, Scheme, Target, What, target};
use super::*;

fn file(name: &str) -> Arc<str> {
    name.into()
}

fn ini(text: &str) -> Resolved {
    let mut inventory = Inventory::default();
    inventory.add_source(&file("hosts"), text, Format::Ini).unwrap();
    inventory.finish().unwrap()
}

fn refused(text: &str, format: Format) -> String {
    let mut inventory = Inventory::default();
    let added = inventory.add_source(&file("hosts"), text, format);
    added.and_then(|()| inventory.finish().map(drop)).unwrap_err().to_string()
}

fn outcomes(resolved: &Resolved, places: &Places) -> Vec<Outcome> {
    resolved.hosts().map(|host| target(host, &resolved.effective(host, places), None)).collect()
}

fn targets(resolved: &Resolved) -> Vec<Target> {
    let target = |outcome| match outcome {
        Outcome::Target(target) => *target,
        other => panic!("{other:?}"),
    };
    outcomes(resolved, &Places::default()).into_iter().map(target).collect()
}

/// One host of the connection winrm with these variables.
fn one(variables: &str) -> Target {
    targets(&ini(&format!("h.corp.example ansible_connection=winrm {variables}\n"))).remove(0)
}

fn problem(variables: &str) -> (String, What) {
    let resolved = ini(&format!("h.corp.example ansible_connection=winrm {variables}\n"));
    match outcomes(&resolved, &Places::default()).remove(0) {
        Outcome::Unreadable(problems) => (problems[0].variable.clone(), problems[0].what),
        other => panic!("{variables}: {other:?}"),
    }
}

fn told(target: &Target, variable: &str) -> bool {
    target.remarks.iter().any(|remark| remark.variable == variable)
}

#[test]
fn mistakes_have_their_line_and_show_no_value() {
    for (text, line) in [
        ("[web]\nw1 s3cret\n", 2),
        ("[web]\nw1 a='s3cret\n", 2),
        ("ansible_password=s3cret\n", 1),
        ("[web:vars]\ns3cret\n[web]\n", 2),
        ("[web:vars]\na=s3cret\n", 1),
        ("[web:children]\ns3cret\n", 2),
        ("[a b]\n", 1),
        ("[web:odd]\n", 1),
        ("[web]\nw[1:\n", 2),
        ("[a:vars]\nansible_group_priority=s3cret\n[a]\n", 2),
    ] {
        let mistake = refused(text, Format::Ini);
        assert!(mistake.starts_with(&format!("hosts:{line}: ")), "{text:?}: {mistake}");
        assert!(!mistake.contains("s3cret") || text.contains("children"), "{text:?}: {mistake}");
    }
    for text in [
        "- s3cret\n",
        "all: {hosts: [s3cret]}\n",
        "all: {hosts: {h: s3cret}}\n",
        "all: {hosts: {1: }}\n",
        "all: {vars: {ansible_password: !secret s3cret}}\n",
        "a: {}\n---\nb: {}\n",
        "",
        "all: {hosts: {h: {ansible_user: *s3cret}}}\n",
    ] {
        let mistake = refused(text, Format::Yaml);
        assert!(!mistake.contains("s3cret}") && mistake.starts_with("hosts"), "{text:?}: {mistake}");
    }
}

#[test]
fn what_would_have_to_be_run_is_refused_with_the_way_around_it() {
    for (text, format) in [
        ("#!/usr/bin/env python3\nprint('{}')\n", Format::Either),
        ("plugin: amazon.aws.aws_ec2\nregions: []\n", Format::Yaml),
        ("$ANSIBLE_VAULT;1.1;AES256\n6162\n", Format::Either),
    ] {
        assert!(refused(text, format).contains("ansible-inventory"), "{text}");
    }
}

#[test]
fn groups_that_contain_themselves_are_refused() {
    assert!(refused("[a:children]\nb\n[b:children]\na\n", Format::Ini).contains("contains itself"));
    assert!(refused("[a:children]\na\n[a]\n", Format::Ini).contains("contains itself"));
    assert!(refused("[a:children]\nall\n", Format::Ini).contains("contains itself"));
}

#[test]
fn bounds_hold() {
    assert!(refused("h[1:9999999]\n", Format::Ini).contains("more than"));
    let groups: String = (0..60_000).map(|number| format!("[g{number}]\n")).collect();
    assert!(refused(&groups, Format::Ini).contains("more than"));
    let memberships: String = (0..50).map(|number| format!("[g{number}]\nh[1:100000]\n")).collect();
    assert!(refused(&memberships, Format::Ini).contains("more than"));
    let chain: String = (0..5000).map(|number| format!("[g{number}:children]\ng{}\n", number + 1)).collect();
    assert!(refused(&format!("{chain}[g5000]\n"), Format::Ini).contains("too many"));
}

#[test]
fn tens_of_thousands_of_hosts_are_fine() {
    let resolved =
        ini("[a]\nw[1:30000].corp.example\n[b:children]\na\n[b:vars]\nansible_connection=winrm\nansible_user=u@R\n");
    let targets = targets(&resolved);
    assert_eq!(targets.len(), 30_000);
    let plan = Plan::new(&targets);
    assert_eq!(plan.credentials.len(), 1);
    assert_eq!(plan.lists.iter().map(|list| list.hosts.len()).collect::<Vec<_>>(), [10_000, 10_000, 10_000]);
}

#[test]
fn ports_and_schemes_are_those_of_ansible() {
    for (variables, expected) in [
        ("", (5986, Scheme::Https)),
        ("ansible_port=5985", (5985, Scheme::Http)),
        ("ansible_port=8080", (8080, Scheme::Https)),
        ("ansible_winrm_scheme=http", (5986, Scheme::Http)),
        ("ansible_port=5985 ansible_winrm_scheme=https", (5985, Scheme::Https)),
        ("ansible_port=5986 ansible_winrm_port=5985", (5985, Scheme::Http)),
        ("ansible_ssh_port=5985", (5985, Scheme::Http)),
        ("ansible_ssh_port=5985 ansible_port=5986", (5986, Scheme::Https)),
    ] {
        let target = one(variables);
        assert_eq!((target.port, target.scheme), expected, "{variables}");
    }
    assert!(told(&one("ansible_winrm_scheme=http"), "ansible_winrm_scheme"));
    assert!(told(&one("ansible_ssh_port=5985"), "ansible_ssh_port"));
    for wrong in ["ansible_port=0", "ansible_port=70000", "ansible_port=http", "ansible_winrm_scheme=ftp"] {
        assert_eq!(problem(wrong).1, What::Wrong, "{wrong}");
    }
}

#[test]
fn transports() {
    for (variables, expected) in [
        ("ansible_user=svc@CORP.EXAMPLE", Auth::Kerberos),
        ("ansible_user=Administrator", Auth::Basic),
        ("ansible_user=Administrator ansible_port=5985", Auth::Basic),
        ("ansible_user=svc@CORP.EXAMPLE ansible_winrm_transport=ntlm", Auth::Ntlm),
        ("ansible_winrm_transport=plaintext", Auth::Basic),
        ("ansible_winrm_transport=ssl", Auth::Basic),
        ("ansible_winrm_transport=ssl ansible_winrm_cert_pem=/c ansible_winrm_cert_key_pem=/k", Auth::Certificate),
        ("ansible_winrm_transport=certificate", Auth::Certificate),
        ("ansible_winrm_transport=credssp", Auth::Credssp),
        ("ansible_winrm_transport=kerberos,ntlm", Auth::Negotiate),
        ("ansible_winrm_transport='[\"kerberos\", \"basic\"]'", Auth::Kerberos),
        ("ansible_winrm_transport=ntlm,kerberos", Auth::Ntlm),
        ("ansible_winrm_transport=credssp,ntlm", Auth::Ntlm),
    ] {
        assert_eq!(one(variables).auth, expected, "{variables}");
    }
    for variables in [
        "ansible_winrm_transport=kerberos,basic",
        "ansible_winrm_transport=certificate",
        "ansible_winrm_transport=credssp",
        "ansible_winrm_transport=basic ansible_port=5985",
        "ansible_winrm_transport=basic ansible_user='CORP\\\\svc'",
    ] {
        assert!(told(&one(variables), "ansible_winrm_transport"), "{variables}");
    }
    assert_eq!(problem("ansible_winrm_transport=smoke"), ("ansible_winrm_transport".to_owned(), What::Wrong));
}

#[test]
fn everything_else_that_is_taken() {
    let target = one(
        "ansible_host=10.0.0.5 ansible_user=svc ansible_winrm_transport=kerberos ansible_winrm_realm=CORP.EXAMPLE \
         ansible_winrm_path=wsman2 ansible_winrm_server_cert_validation=ignore ansible_winrm_ca_trust_path=/ca.pem \
         ansible_winrm_operation_timeout_sec=60 ansible_winrm_read_timeout_sec=70 ansible_winrm_message_encryption=always \
         ansible_winrm_send_cbt=no ansible_winrm_kerberos_delegation=yes ansible_winrm_service=WSMAN \
         ansible_winrm_kerberos_hostname_override=web1.corp.example ansible_winrm_kinit_mode=manual ansible_password=x",
    );
    assert_eq!((target.host.as_str(), target.path.as_str()), ("10.0.0.5", "/wsman2"));
    assert_eq!((target.realm.as_deref(), target.kinit_manual, target.delegate), (Some("CORP.EXAMPLE"), true, true));
    assert_eq!((target.skip_cert_check, target.ca_trust_path.as_deref()), (true, Some("/ca.pem")));
    assert_eq!((target.operation_timeout_sec, target.read_timeout_sec), (Some(60), Some(70)));
    assert_eq!((target.message_encryption, target.send_cbt), (Encryption::Always, false));
    assert_eq!(target.spn_service.as_deref(), Some("WSMAN"));
    assert_eq!(target.spn_host.as_deref(), Some("web1.corp.example"));
    let timeouts = one("ansible_winrm_connection_timeout=40");
    assert_eq!((timeouts.operation_timeout_sec, timeouts.read_timeout_sec), (Some(40), Some(50)));
    assert!(one("ansible_user=s@R ansible_winrm_transport=kerberos").kinit_manual);
    assert!(!one("ansible_user=s@R ansible_winrm_transport=kerberos ansible_password=x").kinit_manual);
    let told_names = ["ansible_winrm_kinit_cmd", "ansible_winrm_proxy", "ansible_winrm_made_up", "ansible_become_user"];
    let target = one(&told_names.map(|name| format!("{name}=s3cret")).join(" "));
    for name in told_names {
        assert!(told(&target, name), "{name}");
    }
    assert!(!format!("{target:?}{}", serde_json::to_string(&target).unwrap()).contains("s3cret"));
}

#[test]
fn hosts_of_other_connections_are_left_out() {
    let resolved =
        ini("a\nb ansible_connection=ssh\nc ansible_connection=psrp\nd ansible_connection=ansible.builtin.winrm\n");
    let others: Vec<String> = outcomes(&resolved, &Places::default())
        .into_iter()
        .filter_map(|outcome| match outcome {
            Outcome::Other(connection) => Some(connection),
            _ => None,
        })
        .collect();
    assert_eq!(others, ["ssh", "ssh", "psrp"]);
}

#[test]
fn vaults_and_templates_are_not_guessed() {
    let yaml = "all:\n  hosts: {h.corp.example: }\n  vars:\n    ansible_connection: winrm\n    ansible_user: svc\n    ansible_password: \
                !vault |\n      $ANSIBLE_VAULT;1.1;AES256\n      6162\n";
    let resolved = |text: &str| {
        let mut inventory = Inventory::default();
        inventory.add_source(&file("hosts.yml"), text, Format::Yaml).unwrap();
        inventory.finish().unwrap()
    };
    let vault = targets(&resolved(yaml)).remove(0);
    assert!(matches!(&vault.password, Password::Vault { place } if place == "hosts.yml:6"), "{:?}", vault.password);
    let user = yaml.replace("ansible_user: svc", "ansible_user: '{{ user }}'");
    match outcomes(&resolved(&user), &Places::default()).remove(0) {
        Outcome::Unreadable(problems) => {
            assert_eq!((problems[0].variable.as_str(), problems[0].what), ("ansible_user", What::Template));
            assert_eq!(problems[0].place, "hosts.yml:5");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(problem("ansible_port='{{ port }}'").1, What::Template);
    assert_eq!(problem("ansible_connection='{{ c }}'").0, "ansible_connection");
    assert!(matches!(one("ansible_password='{{ p }}'").password, Password::Template { .. }));
}

/// A host in a group with a file that is a vault as a whole.
fn beside_a_vault(variables: &str, user: Option<&str>) -> Outcome {
    let resolved = ini(&format!("[web]\nh.corp.example ansible_connection=winrm {variables}\n"));
    let mut place = Place::default();
    let mut vars = Vars::default();
    vars.add(&file("group_vars/web/vault.yml"), "$ANSIBLE_VAULT;1.1;AES256\n6162\n").unwrap();
    place.groups.insert("web".into(), vars);
    let places = Places { sources: vec![place], playbook: None };
    let host = resolved.hosts().next().unwrap();
    target(host, &resolved.effective(host, &places), user)
}

#[test]
fn what_may_be_in_a_vault_is_neither_guessed_nor_hidden() {
    const ALL: &str = "ansible_port=5986 ansible_winrm_transport=ntlm ansible_user=svc";
    for (variables, user) in [
        (ALL.to_owned(), None),
        (format!("{ALL} ansible_password=x"), None),
        (ALL.replace("ansible_user=svc", ""), Some("svc")),
        (ALL.replace("ansible_port", "ansible_winrm_port"), None),
    ] {
        let Outcome::Target(target) = beside_a_vault(&variables, user) else { panic!("{variables}") };
        let in_vault =
            matches!(&target.password, Password::VaultFiles { files } if files == &["group_vars/web/vault.yml"]);
        assert_eq!(in_vault, !variables.contains("ansible_password"), "{variables}");
        let named = target.remarks.iter().any(|remark| remark.text.contains("group_vars/web/vault.yml"));
        assert!(named, "{variables}: {:?}", target.remarks);
    }
    for (missing, variable) in [
        ("ansible_port=5986", "ansible_port"),
        ("ansible_winrm_transport=ntlm", "ansible_winrm_transport"),
        ("ansible_user=svc", "ansible_user"),
    ] {
        // Also where the password is known.
        let variables = format!("{} ansible_password=x", ALL.replace(missing, ""));
        let Outcome::Unreadable(problems) = beside_a_vault(&variables, None) else { panic!("{variables}") };
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        assert_eq!((problem.variable.as_str(), problem.what), (variable, What::VaultFile));
        assert_eq!(problem.place, "group_vars/web/vault.yml");
    }
}

#[test]
fn a_plan_shares_credentials_and_keeps_passwords_apart() {
    let targets = targets(&ini(
        "[all:vars]\nansible_connection=winrm\n[web]\nw1 ansible_user=svc@CORP.EXAMPLE ansible_password=one\nw2 \
         ansible_user=svc@CORP.EXAMPLE ansible_password=one\nw3 ansible_user=svc@CORP.EXAMPLE ansible_password=one \
         ansible_winrm_server_cert_validation=ignore ansible_winrm_kerberos_hostname_override=x.corp.example\nw4 \
         ansible_user=svc@CORP.EXAMPLE ansible_password=two\nw5 ansible_winrm_transport=certificate\nw6\nw7 \
         ansible_user=svc@CORP.EXAMPLE ansible_password=one ansible_host=w1\nw8 ansible_host=2001:db8::1 ansible_port=5985 \
         ansible_user='CORP\\\\svc' ansible_winrm_transport=ntlm ansible_password=three\n",
    ));
    let plan = Plan::new(&targets);
    let names: Vec<&str> = plan.credentials.iter().map(|credential| credential.name.as_str()).collect();
    assert_eq!(names, ["corp_svc", "svc_corp_example", "svc_corp_example_kerberos"]);
    assert_eq!(plan.credentials.iter().map(|credential| credential.hosts).collect::<Vec<_>>(), [1, 4, 1]);
    let special = plan.lists.iter().find(|list| !list.flags.is_empty()).unwrap();
    assert_eq!(special.flags, ["--skip-cert-check=true", "--spn-host", "x.corp.example"]);
    let lines = |name: &str| -> Vec<String> {
        let lists = plan.lists.iter().filter(|list| list.credential == name && list.flags.is_empty());
        lists.flat_map(|list| list.hosts.iter().map(plan::ListedHost::line)).collect()
    };
    // w7 is w1 once more.
    assert_eq!(lines("svc_corp_example"), ["w1:5986", "w2:5986"]);
    assert_eq!(lines("corp_svc"), ["[2001:db8::1]:5985 w8"]);
    assert_eq!(plan.without["certificate"], ["w5"]);
    assert_eq!(plan.without["no_user"], ["w6"]);
    let shown = format!("{plan:?}{}", serde_json::to_string(&plan).unwrap());
    for password in ["one\"", "\"two", "three"] {
        assert!(!shown.contains(password), "{shown}");
    }
}

#[test]
fn a_document_of_a_plan_is_read_again() {
    let targets = targets(&ini(
        "[all:vars]\nansible_connection=winrm\nansible_winrm_send_cbt=no\nansible_winrm_message_encryption=always\n[web]\nw1 \
         ansible_user=svc@CORP.EXAMPLE ansible_password=x ansible_winrm_service=WSMAN ansible_winrm_kerberos_delegation=yes\nw2 \
         ansible_user='CORP\\\\svc \"odd\": x' ansible_winrm_transport=ntlm ansible_winrm_ca_trust_path='/a b'\nw3 \
         ansible_user=svc@CORP.EXAMPLE\nw4 ansible_user=svc@CORP.EXAMPLE ansible_winrm_transport=kerberos,ntlm ansible_password=y\nw5 \
         ansible_user=local ansible_port=5985\n",
    ));
    let plan = Plan::new(&targets);
    assert_eq!(plan.credentials.len(), 5);
    let text: String = plan.credentials.iter().map(|credential| format!("---\n{}", credential.document())).collect();
    let read = crate::harness::read(&file("credentials.yaml"), &text)
        .unwrap_or_else(|mistakes| panic!("{mistakes:?}\n{text}"));
    assert_eq!(read.credentials.len(), 5);
    for (planned, read) in plan.credentials.iter().zip(&read.credentials) {
        assert_eq!((&planned.name, &planned.user, planned.port), (&read.name, &read.username, read.port));
        assert_eq!(read.own.send_cbt, Some(false));
        assert_eq!(read.own.message_encryption.as_deref(), Some("always"));
    }
}

/// Else the report says that no password is needed, and the document names one.
#[test]
fn a_ticket_of_somebody_else_serves_kerberos_alone() {
    for (transport, wants) in [("kerberos", false), ("kerberos,ntlm", true), ("ntlm", true)] {
        let variables =
            format!("ansible_user=s@R.EXAMPLE ansible_winrm_transport={transport} ansible_winrm_kinit_mode=manual");
        let plan = Plan::new(&[one(&variables)]);
        let [credential] = &plan.credentials[..] else { panic!("{plan:?}") };
        assert_eq!(credential.wants_password(), wants, "{transport}");
        assert_eq!(credential.document().contains("password: "), wants, "{transport}");
    }
}
