//! Tests of the delegate's names, and of the page about them.

use lictor_proto::token::JoinToken;

use super::super::*;
use super::*;

fn token() -> String {
    JoinToken { id: "i".into(), secret: Zeroizing::new([1; 32]), pin: [2; 32] }.to_text().to_string()
}

fn load(more: &[(&str, &str)]) -> Result<Loaded, Mistakes> {
    let base = [("MANAGER_HOST_AND_PORT", "https://cp.corp.example:7443")];
    let all = base.iter().filter(|(name, _)| more.iter().all(|(other, _)| other != name)).chain(more);
    crate::config::load(None, all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn reasons(loaded: &Loaded) -> String {
    loaded.told.ignored.iter().map(|Ignored { name, reason }| format!("{name}: {reason}\n")).collect()
}

#[test]
fn the_page_lists_exactly_the_names() {
    let expected: Vec<String> = NAMES
        .iter()
        .map(|Name { name, alias, meaning }| {
            let alias = alias.map(|alias| format!(", `{alias}`")).unwrap_or_default();
            match meaning {
                Meaning::Works(text) => format!("| `{name}`{alias} | {text} |"),
                Meaning::Nothing(reason) => format!("| `{name}`{alias} | nothing: {reason} |"),
            }
        })
        .collect();
    let page = include_str!("../../../../docs/migrate-harness.md");
    // Other sections have tables of charts and metrics.
    let table = page.split("\n## ").find(|section| section.contains("\n| `MANAGER_HOST_AND_PORT`")).unwrap();
    let listed: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(listed, expected, "the table of docs/migrate-harness.md should be:\n{}", expected.join("\n"));
    let mut names: Vec<&str> = NAMES.iter().flat_map(|known| [Some(known.name), known.alias]).flatten().collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "a name stands there twice");
}

#[test]
fn an_existing_environment_becomes_settings() {
    let token = token();
    let loaded = load(&[
        ("HARNESS_MANAGER_HOST_AND_PORT", "https://cp.corp.example:7443"),
        ("MANAGER_HOST_AND_PORT", "https://cp.corp.example:7443/gratis"),
        ("DELEGATE_TOKEN", &token),
        ("DELEGATE_NAME", "winrm"),
        ("DELEGATE_TAGS", "site-a, windows,, not a tag"),
        ("DELEGATE_DESCRIPTION", "first\n  second"),
        ("DELEGATE_ORG_IDENTIFIER", "default"),
        ("DELEGATE_PROJECT_IDENTIFIER", "web"),
        ("DELEGATE_TASK_CAPACITY", "7"),
        ("DYNAMIC_REQUEST_HANDLING", "True"),
        ("MEMORY_USAGE_THRESHOLD", "70%"),
        ("LOGGING_LEVEL", "WARN"),
        ("HARNESS_WORKDIR", "/srv/delegate"),
        ("ACCOUNT_ID", "abc"),
        ("JAVA_OPTS", "-Xmx1g"),
        ("DEPLOY_MODE", ""),
        ("DELEGATE_COLOUR", "red"),
        ("HARNESS_DELEGATE_SERVICE_HOST", "10.0.0.1"),
        ("HARNESS_DELEGATE_PORT_3460_TCP_ADDR", "10.0.0.1"),
    ])
    .unwrap();
    let config = &loaded.config;
    assert_eq!(config.control_plane.to_string(), "https://cp.corp.example:7443");
    assert_eq!(loaded.join_token.as_ref().unwrap().to_text().as_str(), token);
    assert_eq!((config.name.as_str(), config.slots), ("winrm", 7));
    assert_eq!(config.tags, ["site-a", "windows", "winrm"]);
    assert_eq!(config.description, "first second");
    assert_eq!(config.scope.as_deref(), Some("default/web"));
    assert_eq!((config.admission.memory_percent, config.admission.cpu_percent), (Some(70), Some(80)));
    assert_eq!(config.log.level, tracing::Level::WARN);
    assert_eq!(config.state_dir, Path::new("/srv/delegate/lictor-agent"));
    let ignored: Vec<&str> = loaded.told.ignored.iter().map(|ignored| ignored.name.as_str()).collect();
    assert_eq!(ignored, ["ACCOUNT_ID", "JAVA_OPTS", "DELEGATE_COLOUR"]);
    let remarks = loaded.told.remarks.join("\n");
    for word in
        ["MANAGER_HOST_AND_PORT and HARNESS_MANAGER_HOST_AND_PORT differ", "its path means nothing", "\"not a tag\""]
    {
        assert!(remarks.contains(word), "{word:?} is missing in:\n{remarks}");
    }
    let source = |key: &str| {
        let found = loaded.overview.settings.iter().find(|setting| setting.key == key).unwrap();
        (found.value.clone(), found.source.clone())
    };
    assert_eq!(source("name"), ("winrm".into(), "DELEGATE_NAME".into()));
    assert_eq!(source("tags").1, "DELEGATE_TAGS, DELEGATE_NAME");
    assert_eq!(source("admission.cpu_percent"), ("80".into(), "DYNAMIC_REQUEST_HANDLING".into()));
    assert_eq!(source("drain_grace"), ("1m".into(), "default".into()));
    assert_eq!(source("join token"), ("set, not shown".into(), "DELEGATE_TOKEN".into()));
    assert!(!format!("{loaded:?}").contains(&token));
}

#[test]
fn replicas_get_names_of_their_own() {
    for (name, host, in_pod, expected) in [
        ("winrm", "winrm-7d9f-x2x", true, "winrm-7d9f-x2x"),
        ("winrm", "agents-7d9f-x2x", true, "winrm-agents-7d9f-x2x"),
        ("winrm", "winrmless-1", true, "winrm-winrmless-1"),
        ("winrm", "winrm-7d9f-x2x", false, "winrm"),
    ] {
        let mut delegate = Delegate::default();
        delegate.takes("HARNESS_DELEGATE_NAME", name);
        if in_pod {
            delegate.takes("DELEGATE_TYPE", "KUBERNETES");
        }
        let mut reader = Reader::new(::config::Value::default(), &[], Vec::new());
        assert!(delegate.apply(&mut reader, Some(host), false).is_none());
        delegate.listen(&mut reader);
        assert_eq!(
            reader.optional("name", lictor_settings::Form::ANY, |text| Ok(text.to_owned())).as_deref(),
            Some(expected)
        );
        assert_eq!(reader.list("tags", 9, lictor_settings::Form::ANY, |text| Ok(text.to_owned())), ["winrm"]);
        let listen = reader.optional("http_listen", lictor_settings::Form::ANY, |text| Ok(text.to_owned()));
        assert_eq!(listen.as_deref(), in_pod.then_some("0.0.0.0:3460"));
    }
    // Other programs run in pods, too: without a name of the delegate's nothing changes.
    let loaded = crate::config::load(
        None,
        [("LICTOR_AGENT_CONTROL_PLANE", "https://a"), ("KUBERNETES_SERVICE_HOST", "10.0.0.1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    )
    .unwrap();
    assert_eq!(loaded.config.http_listen.to_string(), "127.0.0.1:3460");
}

#[test]
fn own_settings_go_before_the_delegates() {
    let other = token().replace("lictor-join.i", "lictor-join.j");
    let loaded = load(&[
        ("LICTOR_AGENT_CONTROL_PLANE", "https://own"),
        ("LICTOR_AGENT_NAME", "own"),
        ("LICTOR_AGENT_TAGS", "own"),
        ("LICTOR_AGENT_SCOPE", "own"),
        ("LICTOR_AGENT_CA_FILES", "/own"),
        ("LICTOR_AGENT_JOIN_TOKEN", &other),
        ("DELEGATE_TOKEN", "a token of Harness"),
        ("DELEGATE_NAME", "theirs"),
        ("DELEGATE_TAGS", "theirs"),
        ("DELEGATE_ORG_IDENTIFIER", "theirs"),
        ("ADDITIONAL_CERTS_PATH", "/etc/hostname"),
    ])
    .unwrap();
    assert_eq!(loaded.config.control_plane.to_string(), "https://own:7443");
    assert_eq!((loaded.config.name.as_str(), loaded.config.scope.as_deref()), ("own", Some("own")));
    assert_eq!(loaded.config.tags, ["own"]);
    assert_eq!(loaded.config.ca_files, [Path::new("/own")]);
    assert_eq!(loaded.join_token.as_ref().unwrap().id, "j");
    let reasons = reasons(&loaded);
    for name in [
        "MANAGER_HOST_AND_PORT",
        "DELEGATE_TOKEN",
        "DELEGATE_NAME",
        "DELEGATE_TAGS",
        "DELEGATE_ORG_IDENTIFIER",
        "ADDITIONAL_CERTS_PATH",
    ] {
        assert!(reasons.contains(&format!("{name}: ")), "{name} is not told of:\n{reasons}");
    }
    // A file for the token does the same.
    let loaded = load(&[("LICTOR_AGENT_JOIN_TOKEN_FILE", "/f"), ("DELEGATE_TOKEN", "a token of Harness")]).unwrap();
    assert!(loaded.join_token.is_none());
}

#[test]
fn what_cannot_work_is_a_mistake_by_its_own_name() {
    let mistakes = load(&[
        ("MANAGER_HOST_AND_PORT", "https://app.harness.io/gratis"),
        ("DELEGATE_TOKEN", "Marker-0f4cbf1d1aab"),
        ("DELEGATE_TASK_CAPACITY", "many"),
        ("DYNAMIC_REQUEST_HANDLING", "yes"),
        ("POLL_FOR_TASKS", "maybe"),
    ])
    .unwrap_err();
    let text = mistakes.to_string();
    for expected in [
        "MANAGER_HOST_AND_PORT: is the address of Harness's platform",
        "DELEGATE_TOKEN: not a join token",
        "lictor token create --max-uses 0",
        "slots: must be a whole number from 1 to 1000 (from DELEGATE_TASK_CAPACITY)",
        "DYNAMIC_REQUEST_HANDLING: must be true or false",
        "POLL_FOR_TASKS: must be true or false",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing in:\n{text}");
    }
    assert_eq!(mistakes.0.len(), 5, "{text}");
    assert!(!text.contains("Marker"), "{text}");
}

#[test]
fn thresholds_authorities_and_proxies_count_where_the_delegate_lets_them() {
    let loaded = load(&[("DELEGATE_CPU_THRESHOLD", "50"), ("DYNAMIC_REQUEST_HANDLING", "false")]).unwrap();
    assert_eq!((loaded.config.admission.memory_percent, loaded.config.admission.cpu_percent), (Some(90), None));
    assert!(reasons(&loaded).contains("DELEGATE_CPU_THRESHOLD: it only counts with DYNAMIC_REQUEST_HANDLING"));
    let both = [
        ("DYNAMIC_REQUEST_HANDLING", "true"),
        ("MEMORY_USAGE_THRESHOLD", "60"),
        ("DELEGATE_RESOURCE_THRESHOLD", "50"),
        ("DELEGATE_CPU_THRESHOLD", "55"),
    ];
    let loaded = load(&both).unwrap();
    assert_eq!((loaded.config.admission.memory_percent, loaded.config.admission.cpu_percent), (Some(60), Some(55)));
    assert!(reasons(&loaded).contains("DELEGATE_RESOURCE_THRESHOLD: MEMORY_USAGE_THRESHOLD goes before it"));

    let directory = tempfile::tempdir().unwrap();
    let shared = directory.path().to_str().unwrap();
    let loaded = load(&[
        ("SHARED_CA_CERTS_PATH", shared),
        ("ADDITIONAL_CERTS_PATH", "/nowhere/ca.bundle"),
        ("TRUST_ALL_CERTIFICATES", "true"),
        ("PROXY_HOST", "proxy"),
        ("PROXY_MANAGER", "false"),
    ])
    .unwrap();
    assert_eq!(loaded.config.ca_files[0], directory.path());
    let remarks = loaded.told.remarks.join("\n");
    assert!(remarks.contains("\"/nowhere/ca.bundle\" is not there"), "{remarks}");
    assert!(remarks.contains("certificates are checked all the same"), "{remarks}");
    assert!(loaded.config.proxy.is_none() && reasons(&loaded).contains("PROXY_HOST: PROXY_MANAGER is false"));
    assert!(load(&[("PROXY_HOST", "proxy"), ("PROXY_MANAGER", "true")]).unwrap().config.proxy.is_some());

    let loaded = load(&[("DELEGATE_PROJECT_IDENTIFIER", "web"), ("LOGGING_LEVEL", "ALL")]).unwrap();
    assert_eq!(loaded.config.scope, None);
    assert!(reasons(&loaded).contains("DELEGATE_PROJECT_IDENTIFIER: ") && reasons(&loaded).contains("LOGGING_LEVEL: "));
}
