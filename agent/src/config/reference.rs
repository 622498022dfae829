//! `docs/agent-settings.md`, its JSON schema and the example file are made from the settings; with `LICTOR_WRITE_DOCS=1` in its
//! environment the test writes them instead of comparing them. And what they say is tried: ranges, examples, variables of a delegate.

use std::collections::BTreeMap;
use std::io::Write as _;

use lictor_settings::Asked;
use lictor_settings::reference::{self, Program, Reference};
use schemars::generate::SchemaSettings;

use super::*;

const PROGRAM: Program = Program {
    title: "Settings of lictor-agent",
    one: "Setting",
    variables: Some(VARIABLE_PREFIX),
    page: "docs/agent-settings.md",
};
const COMMAND: &str = "cargo nextest run --workspace -E 'test(reference::)'";

fn top() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn asked() -> Vec<Asked> {
    let mut reader = Reader::new(config::Value::default(), kerberos::TABLES, Vec::new());
    proxy::read(&mut reader, proxy::Foreign::default());
    read(&mut reader, Path::new("/proc/sys/kernel/hostname"), None);
    reader.asked().to_vec()
}

fn made() -> Reference {
    let documented = SchemaSettings::draft07()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<Config>();
    let mut reference = Reference::new(PROGRAM, documented.as_value(), &asked()).unwrap();
    for name in DELEGATES {
        for key in name.sets() {
            reference.also_set_by(&key, name.name);
        }
    }
    for (key, names) in lictor_telemetry::settings::VARIABLES {
        names.iter().for_each(|name| reference.also_set_by(key, name));
    }
    reference
}

#[test]
fn the_generated_files_are_current() {
    let reference = made();
    let page = std::fs::read_to_string(top().join(PROGRAM.page)).unwrap();
    let page = reference::between_marks(&page, &reference.table()).unwrap();
    let files = [
        (PROGRAM.page, page),
        ("docs/agent-settings.schema.json", reference::text(&reference.schema())),
        ("deploy/agent.example.yaml", reference.example()),
    ];
    let stale: Vec<String> =
        files.iter().filter_map(|(path, text)| reference::keep(top(), path, text, COMMAND).err()).collect();
    assert!(stale.is_empty(), "{}", stale.join("\n"));
}

fn mistakes(environment: &[(&str, &str)]) -> Vec<String> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load(None, environment).err().map(|Mistakes(mistakes)| mistakes).unwrap_or_default()
}

#[test]
fn every_range_ends_where_the_reference_says() {
    for Asked { key, form, .. } in asked() {
        let variable = format!("{VARIABLE_PREFIX}{}", key.to_uppercase().replace('.', "__"));
        let wrong = |value: &str| {
            let base = ("LICTOR_AGENT_CONTROL_PLANE", "https://a");
            let given = [base, (variable.as_str(), value)];
            let given = if key == "control_plane" { &given[1..] } else { &given[..] };
            mistakes(given).into_iter().find(|mistake| mistake.starts_with(&format!("{key}:")))
        };
        let edges = form.edges();
        for value in edges.inside {
            assert_eq!(wrong(&value), None, "{key} = {value:.80}");
        }
        for value in edges.outside {
            assert!(wrong(&value).is_some(), "{key} = {value:.80} is taken");
        }
    }
}

#[test]
fn files_that_the_schema_is_judged_by_are_judged_alike_here() {
    for entry in std::fs::read_dir(top().join("tests/deploy/settings/agent")).unwrap() {
        let path = entry.unwrap().path();
        let bad = path.file_name().unwrap().to_string_lossy().starts_with("bad-");
        assert_eq!(load(Some(&path), []).is_err(), bad, "{}", path.display());
    }
}

fn written(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn the_example_is_a_configuration_with_and_without_its_comments() {
    let example = made().example();
    let file = written(&example);
    let checked = crate::check::check(Some(file.path()), []);
    assert!(checked.valid, "{:?}", checked.mistakes());

    // Every setting, but for the one that excludes others.
    let all = reference::uncommented(&example, &["krb5_conf"]);
    let file = written(&all);
    let loaded = load(Some(file.path()), []).unwrap_or_else(|mistakes| panic!("{mistakes}\n{all}"));
    let shown = file.path().display().to_string();
    for setting in &loaded.overview.settings {
        assert!(setting.source == shown || setting.key == "kerberos.krb5_conf", "{setting:?}");
    }
    loaded.config.kerberos.check().unwrap();
}

#[test]
fn realms_have_the_keys_that_the_reference_says() {
    let schema = made().schema();
    let realm = &schema["properties"]["kerberos"]["properties"]["realms"]["additionalProperties"];
    assert_eq!(realm["additionalProperties"], serde_json::json!(false));
    let keys: Vec<&str> = realm["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    let values = keys.iter().map(|key| format!("{key}: {}", if *key == "kdc" { "[h]" } else { "h" }));
    let text = format!(
        "control_plane: https://a\nkerberos: {{realms: {{R: {{{}}}}}}}\n",
        values.collect::<Vec<_>>().join(", ")
    );
    let file = written(&text);
    let realms = load(Some(file.path()), []).unwrap().config.kerberos.declared.unwrap().realms;
    // Nothing is left that a realm could have besides.
    let shown = format!("{:?}", realms["R"]);
    assert_eq!(shown.matches(": ").count(), keys.len(), "{shown}");
    assert!(!shown.contains("None") && !shown.contains("[]"), "{shown}");
}

/// A variable of a delegate or of other programs that settings come from, with a value, and with what it means nothing without.
struct Foreign {
    name: &'static str,
    value: &'static str,
    with: &'static [(&'static str, &'static str)],
}

impl Foreign {
    /// The settings that it sets, from loading with it and without.
    fn sets(&self) -> Vec<String> {
        let shown = |with_it: bool| {
            let environment =
                [("LICTOR_AGENT_CONTROL_PLANE", "https://a")].into_iter().filter(|_| self.name != PLATFORM);
            let before = self.with.iter().copied();
            let it = [(self.name, self.value)].into_iter().filter(|_| with_it);
            let given = environment.chain(before).chain(it).map(|(name, value)| (name.to_owned(), value.to_owned()));
            let loaded =
                load(None, given.collect::<BTreeMap<_, _>>()).unwrap_or_else(|error| panic!("{}: {error}", self.name));
            loaded.overview.settings
        };
        let without = shown(false);
        let changed = shown(true).into_iter().filter(|setting| !without.contains(setting));
        changed.map(|setting| setting.key).collect()
    }
}

#[test]
fn every_variable_of_a_delegate_that_works_is_in_the_table_or_is_no_setting() {
    let no_settings = ["DELEGATE_TOKEN", "INIT_SCRIPT", "INIT_SCRIPT_PATH", "PROXY_PASSWORD", "PROXY_MANAGER"];
    let mut works = delegate::names_that_work();
    works.retain(|name| !no_settings.contains(name));
    works.push("HTTPS_PROXY");
    let mut tried: Vec<&str> = DELEGATES.iter().map(|foreign| foreign.name).collect();
    works.sort_unstable();
    tried.sort_unstable();
    assert_eq!(works, tried);
    for foreign in DELEGATES {
        assert!(!foreign.sets().is_empty(), "{} sets nothing", foreign.name);
    }
}

const PLATFORM: &str = "MANAGER_HOST_AND_PORT";
const PROXY: &[(&str, &str)] = &[("PROXY_HOST", "proxy.corp.example")];
const HANDLING: &[(&str, &str)] = &[("DYNAMIC_REQUEST_HANDLING", "true")];

const fn foreign(name: &'static str, value: &'static str) -> Foreign {
    Foreign { name, value, with: &[] }
}

const DELEGATES: &[Foreign] = &[
    Foreign { name: PLATFORM, value: "https://b", with: &[(PLATFORM, "https://a")] },
    foreign("DELEGATE_NAME", "a-name"),
    foreign("DELEGATE_TAGS", "a,b"),
    foreign("DELEGATE_DESCRIPTION", "text"),
    foreign("DELEGATE_ORG_IDENTIFIER", "a"),
    Foreign { name: "DELEGATE_PROJECT_IDENTIFIER", value: "b", with: &[("DELEGATE_ORG_IDENTIFIER", "a")] },
    Foreign { name: "DELEGATE_TYPE", value: "KUBERNETES", with: &[("DELEGATE_NAME", "a-name")] },
    foreign("DELEGATE_TASK_CAPACITY", "5"),
    foreign("POLL_FOR_TASKS", "true"),
    foreign("DYNAMIC_REQUEST_HANDLING", "true"),
    Foreign { name: "MEMORY_USAGE_THRESHOLD", value: "70", with: HANDLING },
    Foreign { name: "DELEGATE_RESOURCE_THRESHOLD", value: "70", with: HANDLING },
    Foreign { name: "CPU_USAGE_THRESHOLD", value: "70", with: HANDLING },
    Foreign { name: "DELEGATE_CPU_THRESHOLD", value: "70", with: HANDLING },
    foreign("ADDITIONAL_CERTS_PATH", "/etc"),
    foreign("SHARED_CA_CERTS_PATH", "/etc"),
    foreign("LOGGING_LEVEL", "DEBUG"),
    foreign("PROXY_HOST", "proxy.corp.example"),
    Foreign { name: "PROXY_PORT", value: "3128", with: PROXY },
    Foreign { name: "PROXY_SCHEME", value: "https", with: PROXY },
    Foreign { name: "PROXY_USER", value: "user", with: PROXY },
    Foreign { name: "NO_PROXY", value: "a", with: PROXY },
    foreign("HARNESS_WORKDIR", "/work"),
    foreign("HTTPS_PROXY", "http://user@proxy.corp.example"),
];
