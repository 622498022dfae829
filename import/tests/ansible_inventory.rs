//! Our reading of inventories, judged by ansible-inventory: see `tests/peers/ansible/README.md`.
//!
//! Needs a Python interpreter with ansible-core in `LICTOR_PEERS_PYTHON`. Without one these tests do nothing but say so, unless
//! `LICTOR_PEERS` is `required`: then they fail.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "what is exempt in tests should be so in the functions that they share"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lictor_import::ansible::value::Value;
use lictor_import::ansible::{Format, Inventory, Places, Resolved, disk, variables};
use serde_json::{Value as Json, json};

/// Hosts of groups, children of groups and variables of hosts.
#[derive(Debug, Default, PartialEq)]
struct Listing {
    hosts: BTreeSet<String>,
    members: BTreeMap<String, BTreeSet<String>>,
    variables: BTreeMap<String, BTreeMap<String, Json>>,
}

#[test]
fn inventories_are_read_as_ansible_inventory_reads_them() {
    let cases: Vec<Case> = cases();
    assert!(cases.len() > 15, "the inventories are not where they should be");
    let questions: Vec<Json> = cases
        .iter()
        .map(|case| json!({"sources": case.sources, "playbook": case.playbook.as_ref().map(|path| path.to_str().unwrap())}))
        .collect();
    let Some(answer) = ask(&json!({"cases": questions})) else { return };
    let inventories = answer["inventories"].as_array().unwrap();
    assert_eq!(inventories.len(), cases.len());
    let mut compared = 0;
    for (case, listing) in cases.iter().zip(inventories) {
        assert!(listing.get("error").is_none(), "{}: {listing:#}", case.name);
        let judged = theirs(listing);
        let (inventory, places) =
            disk::load(&case.sources, case.playbook.as_deref()).unwrap_or_else(|mistake| panic!("{mistake}"));
        let ours = ours(&inventory, &places);
        assert_eq!(ours.hosts, judged.hosts, "{}: hosts", case.name);
        assert_eq!(ours.members, judged.members, "{}: groups", case.name);
        // What it prints is an inventory too, and comes to the same.
        let mut again = Inventory::default();
        again.add_source(&"listing".into(), &listing.to_string(), Format::Either).unwrap();
        let again = self::ours(&again.finish().unwrap(), &Places::default());
        assert_eq!(again.hosts, judged.hosts, "{}: hosts of the listing", case.name);
        assert_eq!(again.members, judged.members, "{}: groups of the listing", case.name);
        let known = |host: &String| judged.variables.get(host).cloned().unwrap_or_default();
        for (host, variables) in &again.variables {
            assert_eq!(variables, &known(host), "{}: {host} in the listing", case.name);
        }
        for host in &judged.hosts {
            let (ours, theirs) = (ours.variables.get(host), judged.variables.get(host));
            let names = ours.into_iter().chain(theirs).flat_map(BTreeMap::keys).collect::<BTreeSet<_>>();
            for name in names {
                let value =
                    |variables: Option<&BTreeMap<String, Json>>| variables.and_then(|all| all.get(name)).cloned();
                assert_eq!(value(ours), value(theirs), "{}: {name} of {host} (ours first)", case.name);
                compared += 1;
            }
        }
    }
    assert!(compared > 250, "only {compared} values were compared");
}

#[test]
fn no_variable_of_the_plugin_and_no_keyword_of_the_protocol_is_missing() {
    let Some(answer) = ask(&json!({"cases": []})) else { return };
    let exact = |name: &str| variables::TABLE.iter().any(|row| row.name == name);
    let mut names: Vec<String> = answer["plugin"].as_array().unwrap().iter().map(text).collect();
    assert!(names.len() > 15, "{names:?}");
    let keywords = answer["protocol"].as_array().expect("pywinrm is missing beside ansible-core");
    names.extend(keywords.iter().map(|keyword| format!("ansible_winrm_{}", text(keyword))));
    // What is no variable of a user, or was told by another name: Ansible keeps the last two for itself.
    let known = ["inventory_hostname", "ansible_pipelining", "ansible_winrm_pipelining"];
    let missing: Vec<&String> = names.iter().filter(|name| !exact(name) && !known.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "the table lacks {missing:?}");
}

fn ours(inventory: &Resolved, places: &Places) -> Listing {
    let mut listing = Listing { hosts: inventory.hosts().map(ToString::to_string).collect(), ..Listing::default() };
    for group in inventory.groups() {
        let members: BTreeSet<String> = inventory.hosts_of(group).into_iter().map(str::to_owned).collect();
        if !members.is_empty() && &**group != "all" {
            listing.members.insert(group.to_string(), members);
        }
    }
    for host in inventory.hosts() {
        let effective = inventory.effective(host, places);
        let variables =
            effective.variables.iter().map(|(name, variable)| ((*name).to_owned(), as_json(&variable.value)));
        listing.variables.insert(host.to_string(), variables.collect());
    }
    listing
}

fn theirs(judged: &Json) -> Listing {
    let mut listing = Listing::default();
    for (group, members) in judged.as_object().unwrap().iter().filter(|(name, _)| *name != "_meta") {
        let members: BTreeSet<String> = members["hosts"].as_array().into_iter().flatten().map(text).collect();
        listing.hosts.extend(members.iter().cloned());
        if !members.is_empty() {
            listing.members.insert(group.clone(), members);
        }
    }
    for (host, variables) in judged["_meta"]["hostvars"].as_object().into_iter().flatten() {
        let kept = variables.as_object().unwrap().iter().filter(|(name, _)| name.starts_with("ansible_"));
        listing.variables.insert(host.clone(), kept.map(|(name, value)| (name.clone(), plain(value))).collect());
    }
    listing
}

/// What the judge prints, without its marks.
fn plain(value: &Json) -> Json {
    match value {
        Json::Object(map) if map.contains_key("__ansible_vault") => json!({"vault": true}),
        Json::Object(map) if map.contains_key("__ansible_unsafe") => plain(&map["__ansible_unsafe"]),
        Json::Object(map) => map.iter().map(|(key, value)| (key.clone(), plain(value))).collect(),
        Json::Array(items) => items.iter().map(plain).collect(),
        Json::Number(number) => json!(number.as_f64()),
        other => other.clone(),
    }
}

fn as_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Integer(number) => json!(*number as f64),
        Value::Float(number) => json!(number),
        Value::Text(text) => json!(text.as_str()),
        Value::List(items) => items.iter().map(as_json).collect(),
        Value::Map(map) => map.iter().map(|(key, value)| (key.clone(), as_json(value))).collect(),
        Value::Vault => json!({"vault": true}),
    }
}

fn text(value: &Json) -> String {
    value.as_str().unwrap().to_owned()
}

/// An inventory of `tests/inventories`, unpacked.
struct Case {
    name: String,
    sources: Vec<String>,
    playbook: Option<PathBuf>,
    _directory: tempfile::TempDir,
}

/// Each is one file: `sources: ...` and perhaps `playbook: ...`, then files, each behind a line `-- path --`.
fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inventories");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| unpack(path)).collect()
}

fn unpack(path: &Path) -> Case {
    let text = std::fs::read_to_string(path).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut case = Case {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        sources: Vec::new(),
        playbook: None,
        _directory: directory,
    };
    let root = case._directory.path().to_owned();
    let mut file: Option<std::fs::File> = None;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end();
        if let Some(name) = bare.strip_prefix("-- ").and_then(|rest| rest.strip_suffix(" --")) {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            file = Some(std::fs::File::create(path).unwrap());
        } else if let Some(file) = &mut file {
            file.write_all(line.as_bytes()).unwrap();
        } else if let Some(sources) = bare.strip_prefix("sources: ") {
            let place = |source: &str| match source.contains(',') {
                true => source.to_owned(),
                false => root.join(source).to_str().unwrap().to_owned(),
            };
            case.sources = sources.split(' ').map(place).collect();
        } else if let Some(playbook) = bare.strip_prefix("playbook: ") {
            case.playbook = Some(root.join(playbook));
        } else {
            panic!("{}: {bare:?} before the first file", path.display());
        }
    }
    case
}

/// What the judge answers. Nothing without an interpreter.
fn ask(question: &Json) -> Option<Json> {
    let Some(python) = std::env::var_os("LICTOR_PEERS_PYTHON") else {
        let required = std::env::var("LICTOR_PEERS").is_ok_and(|value| value == "required");
        assert!(!required, "LICTOR_PEERS is required, but LICTOR_PEERS_PYTHON names no interpreter with ansible-core");
        println!("not run: LICTOR_PEERS_PYTHON names no interpreter with ansible-core");
        return None;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/peers/ansible/judge.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(question.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}
