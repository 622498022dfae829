//! `docs/control-plane-settings.md`, its JSON schema and the example file are made from the settings; with `LICTOR_WRITE_DOCS=1` in
//! its environment the test writes them instead of comparing them. And what they say is tried: ranges, examples.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lictor_settings::Asked;
use lictor_settings::reference::{self, Program, Reference};
use schemars::generate::SchemaSettings;

use super::*;

const PROGRAM: Program = Program {
    title: "Settings of lictor-control-plane",
    one: "Setting",
    variables: Some(VARIABLE_PREFIX),
    page: "docs/control-plane-settings.md",
};
const COMMAND: &str = "cargo nextest run --workspace -E 'test(reference::)'";

fn top() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn asked() -> Vec<Asked> {
    let mut reader = Reader::new(config::Value::default(), &[], Vec::new());
    read(&mut reader, None);
    reader.asked().to_vec()
}

fn made() -> Reference {
    let documented = SchemaSettings::draft07()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<Config>();
    let mut reference = Reference::new(PROGRAM, documented.as_value(), &asked()).unwrap();
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
    assert!(page.contains(MASTER_KEY_VARIABLE));
    let files = [
        (PROGRAM.page, page),
        ("docs/control-plane-settings.schema.json", reference::text(&reference.schema())),
        ("deploy/control-plane.example.yaml", reference.example()),
    ];
    let stale: Vec<String> =
        files.iter().filter_map(|(path, text)| reference::keep(top(), path, text, COMMAND).err()).collect();
    assert!(stale.is_empty(), "{}", stale.join("\n"));
}

#[test]
fn every_range_ends_where_the_reference_says() {
    for Asked { key, form, .. } in asked() {
        let variable = format!("{VARIABLE_PREFIX}{}", key.to_uppercase().replace('.', "__"));
        let wrong = |value: &str| {
            // The longest heartbeat needs the longest lease.
            let base = [("LICTOR_CONTROL_PLANE_LEASE", "1h"), (variable.as_str(), value)];
            let environment = base.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let Mistakes(mistakes) = Config::load(None, &environment).err()?;
            mistakes.into_iter().find(|mistake| mistake.starts_with(&format!("{key}:")))
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
fn the_example_is_a_configuration_with_and_without_its_comments() {
    let example = made().example();
    let load = |text: &str| {
        let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let loaded = load(Some(file.path()), &BTreeMap::new()).unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}"));
        (loaded, file.path().display().to_string())
    };
    let (Loaded { overview, .. }, _) = load(&example);
    assert!(overview.settings.iter().all(|setting| setting.source == "default"), "{overview:?}");

    let (Loaded { overview, config, .. }, file) = load(&reference::uncommented(&example, &[]));
    assert!(overview.settings.iter().all(|setting| setting.source == file), "{overview:?}");
    // The values that stand there are the defaults, but for those of the key's file, the issuer and the collector, which are
    // examples.
    let defaults = Config::load(None, &BTreeMap::new()).unwrap();
    let telemetry = lictor_telemetry::Settings {
        sample_ratio: config.telemetry.sample_ratio,
        service_name: config.telemetry.service_name.clone(),
        ..defaults.telemetry.clone()
    };
    let oidc = defaults.oidc.clone();
    let without_examples = Config { master_key: MasterKeySource::StateDir, oidc, telemetry, ..config };
    assert_eq!(format!("{without_examples:?}"), format!("{defaults:?}"));
}

#[test]
fn files_that_the_schema_is_judged_by_are_judged_alike_here() {
    for entry in std::fs::read_dir(top().join("tests/deploy/settings/control-plane")).unwrap() {
        let path = entry.unwrap().path();
        let bad = path.file_name().unwrap().to_string_lossy().starts_with("bad-");
        assert_eq!(Config::load(Some(&path), &BTreeMap::new()).is_err(), bad, "{}", path.display());
    }
}

#[test]
fn check_config_tells_where_each_value_came_from_and_no_secret() {
    let key = STANDARD.encode([7; 32]);
    let environment = [("LICTOR_MASTER_KEY", key.as_str()), ("LICTOR_CONTROL_PLANE_LOG__LEVEL", "debug")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let Loaded { overview, .. } = load(None, &environment).unwrap();
    let of = |key: &str| {
        let setting = overview.settings.iter().find(|setting| setting.key == key).unwrap();
        (setting.value.as_str(), setting.source.as_str())
    };
    assert_eq!(of("log.level"), ("debug", "LICTOR_CONTROL_PLANE_LOG__LEVEL"));
    assert_eq!(of("lease"), ("30s", "default"));
    assert_eq!(of("output_limit"), ("1GiB", "default"));
    assert_eq!(of("names"), ("localhost, 127.0.0.1", "default"));
    assert_eq!(of("master key"), ("set, not shown", "LICTOR_MASTER_KEY"));
    assert!(!format!("{overview:?}").contains(&key));
    let keys: Vec<&str> = asked().iter().map(|asked| asked.key).collect();
    assert!(keys.iter().all(|key| overview.settings.iter().any(|setting| setting.key == *key)));
}

#[test]
fn links_of_kubernetes_to_a_service_are_no_settings() {
    let environment = [
        ("LICTOR_CONTROL_PLANE_SERVICE_HOST", "10.0.0.1"),
        ("LICTOR_CONTROL_PLANE_SERVICE_PORT_GRPC", "7443"),
        ("LICTOR_CONTROL_PLANE_PORT", "tcp://10.0.0.1:7443"),
        ("LICTOR_CONTROL_PLANE_PORT_7443_TCP", "tcp://10.0.0.1:7443"),
    ];
    Config::load(None, &environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into()).unwrap();
}
