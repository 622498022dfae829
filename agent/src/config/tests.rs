//! Tests of the loader, and of the reference page against it.

use std::io::Write as _;

use lictor_proto::token::JoinToken;
use zeroize::Zeroizing;

use super::*;

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn file(suffix: &str, text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(suffix).tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn the_environment_wins_over_the_file() {
    let file = file(
        ".toml",
        "control_plane = \"https://a:1\"\nslots = 3\ntags = [\"x\", \"y\"]\n[pool]\nshell_idle = \"5s\"\n",
    );
    let loaded = load(
        Some(file.path()),
        environment(&[
            ("LICTOR_AGENT_CONTROL_PLANE", "https://b"),
            ("LICTOR_AGENT_POOL__MAX_SESSIONS", "7"),
            ("LICTOR_AGENT_LOG__FORMAT", "json"),
            ("HOME", "/root"),
        ]),
    )
    .unwrap();
    assert_eq!(loaded.config.control_plane.to_string(), "https://b:7443");
    assert_eq!(loaded.config.slots, 3);
    assert_eq!(loaded.config.tags, ["x", "y"]);
    assert_eq!(loaded.config.pool.max_sessions, 7);
    assert_eq!(loaded.config.pool.shell_idle, Duration::from_secs(5));
    assert_eq!(loaded.config.log.format, LogFormat::Json);
    assert_eq!(loaded.config.drain_grace, DEFAULT_DRAIN_GRACE);
    assert!(!loaded.config.name.is_empty());
    assert!(loaded.join_token.is_none());
}

#[test]
fn all_mistakes_are_told_at_once() {
    let file = file(".yaml", "slots: 0\npool:\n  shell_idle: 5\n  colour: red\njoin_token: abc\nlog: {level: loud}\n");
    let mistakes = load(
        Some(file.path()),
        environment(&[
            ("LICTOR_AGENT_TAGS", "a,,b"),
            ("LICTOR_AGENT_JOIN_TOKEN", "nonsense-secret"),
            ("LICTOR_AGENT_SLOT", "1"),
        ]),
    )
    .unwrap_err();
    let text = mistakes.to_string();
    for expected in [
        "control_plane: is required",
        "slots: must be a whole number from 1 to 1000",
        "pool.shell_idle: must be a time with its unit",
        "pool.colour: is not a setting",
        "join_token: may only come from the environment",
        "log.level: must be",
        "tags: \"\" is empty",
        "slot: is not a setting",
        "LICTOR_AGENT_JOIN_TOKEN: not a join token",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing in:\n{text}");
    }
    assert_eq!(mistakes.0.len(), 9, "{text}");
    assert!(!text.contains("nonsense-secret") && !text.contains("abc"));
}

#[test]
fn a_missing_file_hides_no_other_mistake() {
    let mistakes = load(Some(Path::new("/nowhere/agent.toml")), environment(&[])).unwrap_err();
    assert_eq!(mistakes.0.len(), 2, "{mistakes}");
}

#[test]
fn the_join_token_comes_from_the_environment() {
    let token = JoinToken { id: "i".into(), secret: Zeroizing::new([1; 32]), pin: [2; 32] };
    let loaded = load(
        None,
        environment(&[("LICTOR_AGENT_CONTROL_PLANE", "https://a"), ("LICTOR_AGENT_JOIN_TOKEN", &token.to_text())]),
    )
    .unwrap();
    assert_eq!(loaded.join_token, Some(token));
}

#[test]
fn kubernetes_service_links_are_not_settings() {
    load(
        None,
        environment(&[
            ("LICTOR_AGENT_CONTROL_PLANE", "https://a"),
            ("LICTOR_AGENT_SERVICE_HOST", "10.0.0.1"),
            ("LICTOR_AGENT_SERVICE_PORT_HTTP", "3460"),
            ("LICTOR_AGENT_PORT", "tcp://10.0.0.1:3460"),
            ("LICTOR_AGENT_PORT_3460_TCP_ADDR", "10.0.0.1"),
        ]),
    )
    .unwrap();
}

#[test]
fn addresses_of_the_control_plane() {
    for (text, expected) in [
        ("https://h", "https://h:7443"),
        ("https://h:443", "https://h:443"),
        ("https://h:443/", "https://h:443"),
        ("https://[::1]:9", "https://[::1]:9"),
        ("https://10.0.0.1:1/", "https://10.0.0.1:1"),
    ] {
        assert_eq!(ControlPlaneAddress::parse(text).unwrap().to_string(), expected);
    }
    for text in ["http://h", "h:7443", "https://h/x", "https://u:p@h", "https://", "https://h?x"] {
        ControlPlaneAddress::parse(text).unwrap_err();
    }
}

#[test]
fn the_reference_page_lists_exactly_the_settings() {
    let mut reader = Reader::new(config::Value::default(), Vec::new());
    read(&mut reader, Path::new("/proc/sys/kernel/hostname"));
    let mut asked: Vec<String> = reader.asked().iter().map(|key| (*key).to_owned()).collect();
    asked.sort();
    let page = include_str!("../../../docs/agent-settings.md");
    let mut listed: Vec<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(key, _)| key.to_owned()))
        .filter(|key| !key.starts_with("LICTOR_"))
        .collect();
    listed.sort();
    assert_eq!(asked, listed);

    // The struct's own fields, from its derived Debug output, so that a field that no key sets cannot hide.
    let loaded = load(None, environment(&[("LICTOR_AGENT_CONTROL_PLANE", "https://a")])).unwrap();
    let text = format!("{:#?}", loaded.config);
    let fields: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("    ") && !line.starts_with("     "))
        .filter_map(|line| line.trim().split_once(": ").map(|(name, _)| name))
        .collect();
    let mut heads: Vec<&str> = asked.iter().map(|key| key.split('.').next().unwrap()).collect();
    heads.dedup();
    let mut fields_sorted = fields.clone();
    fields_sorted.sort_unstable();
    assert_eq!(fields_sorted, heads);
}
