//! What users of other tools bring: inventories of Ansible, credentials and connectors of Harness.

use std::sync::Arc;

use lictor_import::Mistake;
use lictor_import::ansible::plan::Plan;
use lictor_import::ansible::target::{Outcome, Target, target};
use lictor_import::ansible::{Format, Inventory, Place, Places, Vars};
use lictor_import::harness::connector::{self, Value, Who};
use lictor_import::harness::{self, Wanted};

use crate::fields;

/// A password that nothing may show.
const MARK: &str = "Zq7-marked";

/// An INI inventory; and after bytes of value 0 another source, in YAML if it can be, and a file of variables.
///
/// - A mistake stands in a line of its text, and repeats no value of a variable.
/// - Hosts come once, each is in a group, and groups hold nothing but hosts.
/// - What was read shows no value by `Debug`. A plan shows no password, its lists are lines, and its documents are read again as
///   the same credentials.
pub fn inventory(data: &[u8]) {
    let [ini, other, vars] = fields(data).map(String::from_utf8_lossy);
    if [&ini, &other, &vars].iter().any(|text| text.contains(MARK)) {
        return;
    }
    let marked = format!("[all:vars]\nansible_connection=winrm\nansible_password={MARK}\n[ungrouped]\n{ini}");
    let mut inventory = Inventory::default();
    for (name, text, format) in [("ini", marked.as_str(), Format::Ini), ("other", &other, Format::Either)] {
        if let Err(mistake) = inventory.add_source(&name.into(), text, format) {
            return told(&mistake, text);
        }
    }
    let resolved = match inventory.finish() {
        Ok(resolved) => resolved,
        Err(mistake) => return told(&mistake, ""),
    };
    let mut place = Place::default();
    let mut all = Vars::default();
    if let Err(mistake) = all.add(&"vars".into(), &vars) {
        return told(&mistake, &vars);
    }
    place.groups.insert("all".into(), all);
    let places = Places { sources: vec![place], playbook: None };

    let hosts: Vec<&Arc<str>> = resolved.hosts().collect();
    let mut sorted = hosts.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), hosts.len(), "a host comes twice");
    for group in resolved.groups() {
        for host in resolved.hosts_of(group) {
            assert!(sorted.binary_search_by(|known| (***known).cmp(host)).is_ok(), "a group holds what is no host");
        }
    }
    let mut targets: Vec<Target> = Vec::new();
    for host in hosts.into_iter().take(MOST_HOSTS) {
        assert!(!resolved.groups_of(host).is_empty(), "a host is in no group");
        let effective = resolved.effective(host, &places);
        assert!(!format!("{effective:?}").contains(MARK), "a value is shown");
        match target(host, &effective, None) {
            Outcome::Target(target) => targets.push(*target),
            Outcome::Other(_) => {}
            Outcome::Unreadable(problems) => assert!(!problems.is_empty()),
        }
    }
    plan(&targets);
}

fn plan(targets: &[Target]) {
    let plan = Plan::new(targets);
    let documents: String =
        plan.credentials.iter().map(|credential| format!("---\n{}", credential.document())).collect();
    assert!(!documents.contains(MARK) && !format!("{plan:?}").contains(MARK), "a password is shown");
    for list in &plan.lists {
        assert!(plan.credentials.iter().any(|credential| credential.name == list.credential));
        for host in &list.hosts {
            assert!(!host.line().contains(|c: char| c.is_control()), "a host that is no line");
        }
    }
    if documents.is_empty() {
        return;
    }
    // Texts that no credential can hold are mistakes, and then none is taken.
    if let Ok(read) = harness::read(&"documents".into(), &documents) {
        let names: Vec<&str> = read.credentials.iter().map(|credential| credential.name.as_str()).collect();
        let planned: Vec<&str> = plan.credentials.iter().map(|credential| credential.name.as_str()).collect();
        assert_eq!(names, planned);
    }
}

/// Credentials of Harness.
///
/// - Mistakes are told at once, a bounded number of them, each in a line of the text.
/// - What is taken has a name that is one here, and that nobody else has; a port; a user of one line; and no password.
pub fn credential_document(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let read = match harness::read(&"document".into(), &text) {
        Ok(read) => read,
        Err(mistakes) => {
            assert!(!mistakes.is_empty() && mistakes.len() <= 101, "{} mistakes", mistakes.len());
            return mistakes.iter().for_each(|mistake| told(mistake, &text));
        }
    };
    assert!(!read.credentials.is_empty() || !read.others.is_empty());
    for (index, credential) in read.credentials.iter().enumerate() {
        let name = &credential.name;
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        assert!((1..=64).contains(&name.len()) && name.bytes().all(good), "{name:?}");
        assert!(read.credentials.iter().skip(index + 1).all(|other| other.name != *name), "{name} comes twice");
        assert!(credential.port > 0);
        assert!(!credential.username.is_empty() && !credential.username.contains(|c: char| c.is_control()));
        match &credential.secret {
            Wanted::Password { reference } => assert!(harness::reference_name(reference).is_some(), "{reference:?}"),
            Wanted::KeytabOnAgent { path } => assert!(path.starts_with('/')),
            Wanted::CacheOnAgent => {}
        }
    }
}

/// Connectors of Harness.
///
/// - Mistakes are told at once, a bounded number of them, each in a line of the text.
/// - What is taken has an identifier that is one here, and that nobody else has; a scope that is one; roles that are ARNs; and
///   names of secrets in the place of secrets.
/// - A secret access key in the open is refused and repeated nowhere, whatever stands behind it.
pub fn connector_document(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if text.contains(KEY) {
        return;
    }
    let good = |text: &str| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    match connector::read(&"document".into(), &text) {
        Ok(read) => {
            assert!(!read.managers.is_empty() || !read.others.is_empty());
            for (index, manager) in read.managers.iter().enumerate() {
                let identifier = &manager.identifier;
                assert!(good(identifier), "{identifier:?}");
                assert!(!matches!(identifier.as_str(), "built-in" | "agent"), "{identifier:?}");
                let mut others = read.managers.iter().skip(index + 1);
                assert!(others.all(|other| other.identifier != *identifier), "{identifier} comes twice");
                assert!(manager.scope.is_empty() || manager.scope.split('/').all(good), "{:?}", manager.scope);
                assert!(manager.references().iter().all(|reference| good(&reference.identifier)));
                assert!(manager.agent_tags.len() <= 64 && manager.tags.len() <= 32);
                match &manager.who {
                    Who::AccessKey { id: Value::Text(id), .. } => assert_eq!(id.len(), 20),
                    Who::AccessKey { .. } | Who::MachineRole => {}
                    Who::AssumeRole { role_arn, duration_sec, .. } | Who::Oidc { role_arn, duration_sec, .. } => {
                        assert!(role_arn.starts_with("arn:") && !role_arn.contains(|c: char| c.is_control()));
                        assert!(duration_sec.is_none_or(|seconds| (900..=43_200).contains(&seconds)));
                    }
                }
            }
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty() && mistakes.len() <= 101, "{} mistakes", mistakes.len());
            mistakes.iter().for_each(|mistake| told(mistake, &text));
        }
    }
    // A key in the open before it.
    let marked = format!(
        "{{type: AwsKms, identifier: k, spec: {{kmsArn: alias/k, credential: {{type: ManualConfig, accessKey: id, secretKey: '{KEY}'}}}}}}\n\
         ---\n{text}"
    );
    match connector::read(&"document".into(), &marked) {
        Ok(_) => panic!("a secret is taken for a name"),
        Err(mistakes) => {
            assert!(mistakes.iter().all(|mistake| !mistake.to_string().contains(KEY)), "a secret is shown")
        }
    }
}

fn told(mistake: &Mistake, text: &str) {
    // To YAML a carriage return ends a line too.
    let lines = text.split(['\n', '\r']).count();
    if let Some(line) = mistake.line {
        assert!((1..=lines + 1).contains(&line), "{mistake} of {lines} lines");
    }
    assert!(!mistake.to_string().contains(MARK), "{mistake}");
}

/// What AWS's documentation has for a secret access key.
const KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

/// As many as are quickly looked at: a range makes many of a few bytes.
const MOST_HOSTS: usize = 100;
