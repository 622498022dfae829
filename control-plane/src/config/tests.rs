//! Tests of the loader.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn file(suffix: &str, text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(suffix).tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn defaults_need_nothing() {
    let config = Config::load(None, &BTreeMap::new()).unwrap();
    assert_eq!(config.listen.port(), 7443);
    assert_eq!(config.http_listen.to_string(), "127.0.0.1:7480");
    assert_eq!(config.lease, Duration::from_secs(30));
    assert_eq!(config.output_limit, 1 << 30);
    assert!(matches!(config.master_key, MasterKeySource::StateDir));
}

#[test]
fn the_environment_overrides_the_file_in_both_formats() {
    for (suffix, text) in [
        (".toml", "lease = \"20s\"\nnames = [\"a.example\", \"10.0.0.1\"]\n[log]\nformat = \"json\"\n"),
        (".yaml", "lease: 20s\nnames: [a.example, 10.0.0.1]\nlog:\n  format: json\n"),
    ] {
        let file = file(suffix, text);
        let config = Config::load(
            Some(file.path()),
            &environment(&[("LICTOR_CONTROL_PLANE_LEASE", "40s"), ("LICTOR_CONTROL_PLANE_LOG__LEVEL", "debug")]),
        )
        .unwrap();
        assert_eq!(config.lease, Duration::from_secs(40));
        assert_eq!(config.names, ["a.example", "10.0.0.1"]);
        assert_eq!(config.log.format, LogFormat::Json);
        assert_eq!(config.log.level, "debug");
    }
    let config = Config::load(None, &environment(&[("LICTOR_CONTROL_PLANE_NAMES", "x.example, ::1")])).unwrap();
    assert_eq!(config.names, ["x.example", "::1"]);
}

#[test]
fn a_key_without_a_value_is_a_mistake() {
    let file = file(".yaml", "master_key_file:\nlisen:\nlog:\nlease: 20s\n");
    let Mistakes(mut mistakes) = Config::load(Some(file.path()), &BTreeMap::new()).unwrap_err();
    mistakes.sort();
    assert_eq!(mistakes, ["lisen: has no value", "log: has no value", "master_key_file: has no value"]);
}

#[test]
fn values_that_end_in_a_line_break_mean_the_same() {
    let config = Config::load(
        None,
        &environment(&[
            ("LICTOR_CONTROL_PLANE_STATE_DIR", "/data\n"),
            ("LICTOR_CONTROL_PLANE_MASTER_KEY_FILE", "/key\n"),
            ("LICTOR_CONTROL_PLANE_NAMES", "a.example,\n"),
            ("LICTOR_CONTROL_PLANE_LISTEN", "127.0.0.1:1\n"),
            ("LICTOR_CONTROL_PLANE_LEASE", " 20s\n"),
            ("LICTOR_CONTROL_PLANE_LIMITS__TASKS_PER_HOST", "3\n"),
            ("LICTOR_CONTROL_PLANE_OUTPUT_LIMIT", "1 MiB\n"),
            ("LICTOR_CONTROL_PLANE_LOG__FORMAT", "json\n"),
        ]),
    )
    .unwrap();
    assert_eq!(config.state_dir, Path::new("/data"));
    assert!(matches!(&config.master_key, MasterKeySource::File(path) if path == Path::new("/key")));
    assert_eq!(config.names, ["a.example"]);
    assert_eq!((config.listen.port(), config.lease, config.output_limit), (1, Duration::from_secs(20), 1 << 20));
    assert_eq!((config.limits.tasks_per_host, config.log.format), (3, LogFormat::Json));
}

#[test]
fn every_mistake_is_reported_at_once() {
    let file = file(
        ".toml",
        "listen = \"nowhere\"\nlease = \"forever\"\noutput_limit = \"1 potato\"\nlisten_adress = 1\nnames = [\"a b\"]\n[log]\nformat = \"xml\"\ncolour = true\n[limits]\ntasks_per_host = -1\ntasks = 1\n",
    );
    let Mistakes(mistakes) = Config::load(
        Some(file.path()),
        &environment(&[("LICTOR_CONTROL_PLANE_TYPO", "1"), ("LICTOR_MASTER_KEY", "short")]),
    )
    .unwrap_err();
    let text = mistakes.join("\n");
    for expected in [
        "listen:",
        "lease:",
        "output_limit:",
        "listen_adress: is not a setting",
        "names:",
        "log.format:",
        "log.colour: is not a setting",
        "limits.tasks_per_host:",
        "limits.tasks: is not a setting",
        "typo: is not a setting",
        "LICTOR_MASTER_KEY:",
    ] {
        assert!(text.contains(expected), "{expected} is missing in:\n{text}");
    }
    assert_eq!(mistakes.len(), 11, "{text}");
    assert!(!text.contains("short"), "the key's text must not be repeated");
}

#[test]
fn a_heartbeat_slower_than_half_the_lease_is_a_mistake() {
    let pairs = [("LICTOR_CONTROL_PLANE_LEASE", "10s"), ("LICTOR_CONTROL_PLANE_HEARTBEAT_INTERVAL", "6s")];
    let Mistakes(mistakes) = Config::load(None, &environment(&pairs)).unwrap_err();
    assert!(mistakes[0].starts_with("heartbeat_interval:"), "{mistakes:?}");
}

#[test]
fn a_master_key_is_never_printed() {
    let key = STANDARD.encode([7; 32]);
    let config = Config::load(None, &environment(&[("LICTOR_MASTER_KEY", &key)])).unwrap();
    assert!(matches!(&config.master_key, MasterKeySource::Value(keys) if *keys[0] == [7; 32]));
    let debug = format!("{config:?}");
    assert!(!debug.contains(&key) && !debug.contains("7, 7"), "{debug}");
}
