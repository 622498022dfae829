//! Tests of the loader.

use std::io::Write as _;

use lictor_proto::token::JoinToken;
use zeroize::Zeroizing;

use lictor_kerberos::config::Source;

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
fn check_config_shows_every_setting_and_every_field_has_its_key() {
    let mut reader = Reader::new(config::Value::default(), &[], Vec::new());
    proxy::read(&mut reader, proxy::Foreign::default());
    read(&mut reader, Path::new("/proc/sys/kernel/hostname"), None);
    let mut asked: Vec<String> = reader.asked().iter().map(|asked| asked.key.to_owned()).collect();
    asked.sort();
    // What check-config shows, of the same keys.
    let loaded = load(None, environment(&[("LICTOR_AGENT_CONTROL_PLANE", "https://a")])).unwrap();
    let overview: Vec<&str> = loaded.overview.settings.iter().map(|setting| setting.key.as_str()).collect();
    assert_eq!(overview, asked);

    // The struct's own fields, from its derived Debug output, so that a field that no key sets cannot hide.
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

#[test]
fn the_names_of_others_count_where_ours_say_nothing() {
    let ours = ("LICTOR_AGENT_CONTROL_PLANE", "https://a");
    let load = |more: &[(&str, &str)]| load(None, environment(&[&[ours], more].concat()));
    let proxy = |more: &[(&str, &str)]| {
        let loaded = load(more).unwrap();
        let password = loaded.proxy_password.map(|password| password.expose().to_owned());
        loaded.config.proxy.map(|proxy| {
            let scheme = if proxy.address.https { "https" } else { "http" };
            (format!("{scheme}://{}", proxy.address.authority()), proxy.username, password)
        })
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(load(&[("POLL_FOR_TASKS", "true")]).unwrap().config.transport, Transport::Poll);
    let both = [("POLL_FOR_TASKS", "true"), ("LICTOR_AGENT_TRANSPORT", "stream")];
    assert_eq!(load(&both).unwrap().config.transport, Transport::Stream);
    assert_eq!(load(&[("POLL_FOR_TASKS", "false")]).unwrap().config.transport, Transport::Auto);

    assert_eq!(proxy(&[]), None);
    let shared = ("HTTPS_PROXY", "http://u:Marker-1@shared:1");
    assert_eq!(proxy(&[shared]), Some(("http://shared:1".into(), text("u"), text("Marker-1"))));
    let delegate = [("PROXY_HOST", "delegate"), ("PROXY_PORT", "2"), ("PROXY_SCHEME", "https")];
    let user = [("PROXY_USER", "du"), ("PROXY_PASSWORD", "Marker-2")];
    let all = [&[shared][..], &delegate, &user].concat();
    assert_eq!(proxy(&all), Some(("https://delegate:2".into(), text("du"), text("Marker-2"))));
    // The passwords of other proxies are not for this one.
    let own =
        [&all[..], &[("LICTOR_AGENT_PROXY__URL", "http://own:3"), ("LICTOR_AGENT_PROXY__USERNAME", "me")]].concat();
    assert_eq!(proxy(&own), Some(("http://own:3".into(), text("me"), None)));
    let off = [&all[..], &[("LICTOR_AGENT_PROXY__URL", "none")]].concat();
    assert_eq!(proxy(&off), None);
    let file = [&all[..], &[("LICTOR_AGENT_PROXY__PASSWORD_FILE", "/f")]].concat();
    assert_eq!(proxy(&file), Some(("https://delegate:2".into(), text("du"), None)));

    let served = |more: &[(&str, &str)]| {
        let loaded = load(&[&[("https_proxy", "p:1")], more].concat()).unwrap();
        loaded.config.proxy.unwrap().serves("a.corp.example", 7443)
    };
    assert!(
        served(&[("NO_PROXY", "http://x/y, other.example,10.0.0.0/8")]),
        "what it does not understand is passed over"
    );
    assert!(!served(&[("no_proxy", "10.0.0.0/8 .corp.example")]));
    assert!(served(&[("NO_PROXY", "corp.example"), ("LICTOR_AGENT_PROXY__NO_PROXY", "other")]));

    let mistakes = load(&[
        ("POLL_FOR_TASKS", "maybe"),
        ("HTTPS_PROXY", "ftp://u:Marker-3@p"),
        ("LICTOR_AGENT_PROXY__NO_PROXY", "http://x/y"),
        ("LICTOR_AGENT_PROXY__PASSWORD", "Marker-4"),
    ])
    .unwrap_err()
    .to_string();
    for expected in [
        "POLL_FOR_TASKS: must be",
        "HTTPS_PROXY: must start",
        "proxy.no_proxy: \"http://x/y\" ",
        "proxy.password: is not a setting",
    ] {
        assert!(mistakes.contains(expected), "{expected:?} is missing in:\n{mistakes}");
    }
    assert!(!mistakes.contains("Marker"), "{mistakes}");
    let mistakes = load(&[("LICTOR_AGENT_PROXY__URL", "http://u:Marker-5@p")]).unwrap_err().to_string();
    assert!(mistakes.contains("proxy.username and proxy.password_file") && !mistakes.contains("Marker"), "{mistakes}");
}

#[test]
fn kerberos_is_named_or_declared() {
    let load = |text: &str| {
        let file = file(".toml", &format!("control_plane = \"https://a\"\n[kerberos]\n{text}"));
        load(Some(file.path()), environment(&[])).map(|loaded| loaded.config.kerberos)
    };
    let given = load("krb5_conf = \"/etc/krb5/krb5.conf\"\nkeytabs = [\"/k\"]\ncaches = [\"DIR:/c\"]").unwrap();
    assert_eq!(given.source(), Source::File("/etc/krb5/krb5.conf".into()));
    assert_eq!((given.keytabs, given.caches), (vec!["/k".into()], vec!["DIR:/c".to_owned()]));
    let given = load("").unwrap();
    assert!(!given.is_given() && given.source() == Source::System && given.check().is_ok());

    let realm = "realms.\"CORP.EXAMPLE\" = { kdc = [\"dc1.corp.example\", \"dc2.corp.example:88\"] }";
    let domains = "domain_realm = { \".corp.example\" = \"CORP.EXAMPLE\", \"web1.lab.example\" = \"CORP.EXAMPLE\" }";
    let given = load(&format!("rdns = false\n{realm}\n{domains}")).unwrap();
    let declared = given.declared.clone().unwrap();
    assert_eq!(declared.rdns, Some(false));
    assert_eq!(declared.realms["CORP.EXAMPLE"].kdc, ["dc1.corp.example", "dc2.corp.example:88"]);
    assert_eq!(declared.domain_realm["web1.lab.example"], "CORP.EXAMPLE");
    assert!(given.check().is_ok());
    // Found before anything is opened.
    let given = load("realms.\"CORP EXAMPLE\" = { kdc = [\"\"] }").unwrap();
    assert!(given.check().is_err());

    for (text, expected) in [
        ("krb5_conf = \"krb5.conf\"", "kerberos.krb5_conf: is not an absolute path"),
        ("krb5_conf = \"/k\"\nrdns = false", "kerberos.krb5_conf: is set beside"),
        ("keytabs = [\"k\"]", "kerberos.keytabs: \"k\" is not an absolute path"),
        ("caches = [\"KEYRING:x\"]", "kerberos.caches: "),
        ("rdns = \"perhaps\"", "kerberos.rdns: must be true or false"),
        ("realms.\"R\" = { kdcs = [] }", "kerberos.realms: "),
        ("kdc = \"x\"", "kerberos.kdc: is not a setting"),
    ] {
        let mistakes = load(text).unwrap_err().to_string();
        assert!(mistakes.contains(expected), "{expected:?} is missing in:\n{mistakes}");
    }
}

/// What a script exported, under a pod that says something else by a delegate's names.
fn over(beneath: &[(&str, &str)], path: Option<&Path>, pod: &[(&str, &str)]) -> Result<Loaded, Mistakes> {
    load_over(environment(beneath).into_iter().collect(), path, environment(pod))
}

fn token(id: &str) -> String {
    JoinToken { id: id.into(), secret: Zeroizing::new([1; 32]), pin: [2; 32] }.to_text().to_string()
}

#[test]
fn what_a_script_exported_is_under_a_delegates_names_too() {
    let script = [
        ("LICTOR_AGENT_CONTROL_PLANE", "https://script"),
        ("LICTOR_AGENT_NAME", "script"),
        ("LICTOR_AGENT_SLOTS", "3"),
        ("LICTOR_AGENT_PROXY__URL", "http://script:1"),
        ("LICTOR_AGENT_HTTP_LISTEN", "127.0.0.1:7"),
    ];
    let pod = [
        ("MANAGER_HOST_AND_PORT", "https://pod"),
        ("DELEGATE_NAME", "pod"),
        ("HTTPS_PROXY", "http://pod:1"),
        ("DELEGATE_TYPE", "KUBERNETES"),
    ];
    let config = over(&script, None, &pod).unwrap().config;
    assert_eq!(config.control_plane.to_string(), "https://pod:7443");
    assert!(config.name.starts_with("pod"), "{}", config.name);
    assert_eq!(config.proxy.unwrap().address.to_string(), "http://pod:1");
    assert_eq!(config.slots, 3);
    // That in a pod it listens everywhere is a default, and no setting of the pod.
    assert_eq!(config.http_listen.to_string(), "127.0.0.1:7");
    let loaded = over(&script, None, &[]).unwrap();
    assert_eq!(loaded.config.control_plane.to_string(), "https://script:7443");
    let shown = loaded.overview.settings.iter().find(|setting| setting.key == "slots").unwrap();
    assert_eq!((shown.value.as_str(), shown.source.as_str()), ("3", "INIT_SCRIPT"));
}

#[test]
fn a_scripts_join_token_counts_where_nothing_else_gives_one() {
    let (script, pod) = (token("script"), token("pod"));
    let base = ("LICTOR_AGENT_CONTROL_PLANE", "https://a");
    let id = |loaded: Loaded| loaded.join_token.map(|token| token.id);
    for name in JOIN_TOKEN_VARIABLES {
        let beneath = [(name, script.as_str()), ("LICTOR_AGENT_JOIN_TOKEN_FILE", "/of/the/script")];
        assert_eq!(id(over(&beneath, None, &[base]).unwrap()).as_deref(), Some("script"));
        for own in JOIN_TOKEN_VARIABLES {
            assert_eq!(id(over(&beneath, None, &[base, (own, &pod)]).unwrap()).as_deref(), Some("pod"), "{name} {own}");
        }
        assert_eq!(id(over(&beneath, None, &[base, ("LICTOR_AGENT_JOIN_TOKEN_FILE", "/x")]).unwrap()), None);
        let file = file(".toml", "join_token_file = \"/x\"\n");
        assert_eq!(id(over(&beneath, Some(file.path()), &[base]).unwrap()), None);
        let Mistakes(mistakes) = over(&[(name, "Mark3r")], None, &[base]).unwrap_err();
        assert!(mistakes.len() == 1 && mistakes[0].contains(name) && !mistakes[0].contains("Mark3r"), "{mistakes:?}");
    }
}

#[test]
fn in_a_pod_only_a_delegates_own_names_open_the_endpoints() {
    let pod = [("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("LICTOR_AGENT_CONTROL_PLANE", "https://a")];
    for (name, value, open) in [
        ("NO_PROXY", "*", false),
        ("JAVA_OPTS", "-Xmx1g", false),
        ("ACCOUNT_ID", "x", false),
        ("INIT_SCRIPT", "true", false),
        ("HARNESS_INIT_SCRIPT", "true", false),
        ("DELEGATE_NAME", "x", true),
        ("HARNESS_ACCOUNT_ID", "x", true),
    ] {
        let environment = environment(&[&pod[..], &[(name, value)]].concat());
        let listens = load(None, environment.clone()).unwrap().config.http_listen;
        assert_eq!(listens.ip().is_unspecified(), open, "{name}");
        // Before the script has run it is the same address.
        assert_eq!(bootstrap::early(None, environment).unwrap().http_listen, listens, "{name}");
    }
}
