use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// What a Harness user's INIT_SCRIPT writes, in form: tabs of its own, quoted hosts.
const QUOTED: &str = r#"[logging]
    default = FILE:/var/log/krb5libs.log
    kdc = FILE:/var/log/krb5kdc.log
[libdefaults]
    default_realm = KERBEROS.EXAMPLE
    dns_lookup_realm = true
    ticket_lifetime = 24h
    renew_lifetime = 7d
    forwardable = true
    rdns = false
[realms]
  KERBEROS.EXAMPLE = {
    kdc = "SERVER.KERBEROS.EXAMPLE"
    admin_server = "SERVER.KERBEROS.EXAMPLE"
  }
[domain_realm]
    kerberos.example = KERBEROS.EXAMPLE
    .kerberos.example = KERBEROS.EXAMPLE
"#;

fn parse(text: &str) -> Configuration {
    Configuration::parse(text, Path::new("krb5.conf")).unwrap()
}

/// Every mistake of a text.
fn mistakes(text: &str) -> Vec<String> {
    match Configuration::parse(text, Path::new("krb5.conf")) {
        Ok(_) => Vec::new(),
        Err(error) => error.mistakes().iter().map(ToString::to_string).collect(),
    }
}

fn warnings(text: &str) -> Vec<String> {
    parse(text).warnings().iter().map(ToString::to_string).collect()
}

#[track_caller]
fn assert_one(remarks: &[String], begin: &str, part: &str) {
    let [remark] = remarks else { panic!("expected one remark: {remarks:#?}") };
    assert!(
        remark.starts_with(begin) && remark.contains(part),
        "{remark:?} does not begin with {begin:?} or lacks {part:?}"
    );
}

fn addresses(configuration: &Configuration, realm: &str) -> Vec<String> {
    configuration.kdcs(realm).iter().map(Kdc::address).collect()
}

#[test]
fn the_file_of_an_init_script_is_read_without_a_word() {
    let configuration = parse(QUOTED);
    assert_eq!(configuration.warnings(), []);
    assert_eq!(configuration.default_realm(), Some("KERBEROS.EXAMPLE"));
    assert_eq!(addresses(&configuration, "KERBEROS.EXAMPLE"), ["SERVER.KERBEROS.EXAMPLE:88"]);
    assert_eq!(configuration.host_realm("web.kerberos.example").as_deref(), Some("KERBEROS.EXAMPLE"));
    assert_eq!(configuration.host_realm("web.other.example"), None);
    assert!(configuration.defines("KERBEROS.EXAMPLE"));
}

#[test]
fn all_mistakes_are_reported_at_once_with_their_lines() {
    let text = "\
[libdefaults]
    ticket_lifetime = soon
    default_tkt_enctypes = rc4-hmac
    this is no relation
[realms]
    CORP.EXAMPLE = {
        kdc = dc1.corp.example:http
        kdc = dc2.corp.example, dc3.corp.example
        kdc =
    }
    OTHER.EXAMPLE = kdc.other.example
    INLINE.EXAMPLE = { kdc = a }
[domain_realm]
    }
";
    let found = mistakes(text);
    let expected = [
        ("4", "expected `name = value`"),
        ("9", "no value"),
        ("12", "`{` must end its line"),
        ("14", "closes nothing"),
        ("2", "no duration"),
        ("3", "no AES"),
        ("7", "the port is no number"),
        ("8", "each host has a relation of its own"),
        ("11", "must be a section"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (line, part) in expected {
        let begin = format!("krb5.conf:{line}: ");
        assert!(found.iter().any(|one| one.starts_with(&begin) && one.contains(part)), "{line} {part}: {found:#?}");
    }
    let error = Configuration::parse(text, Path::new("krb5.conf")).unwrap_err();
    assert!(error.to_string().starts_with("the Kerberos settings have 9 mistakes: krb5.conf:4: "), "{error}");
}

#[test]
fn a_brace_that_is_missing_is_named_where_it_was_opened() {
    let text = "[realms]\n CORP.EXAMPLE = {\n  kdc = a.example\n[domain_realm]\n a = CORP.EXAMPLE\n";
    assert_one(&mistakes(text), "krb5.conf:4: ", "`CORP.EXAMPLE = {` in line 2 was never closed");
    // MIT's library takes this, so we do.
    assert_one(&warnings("[realms]\n CORP.EXAMPLE = {\n  kdc = a.example\n"), "krb5.conf:2: ", "never closed");
}

#[test]
fn what_has_no_effect_is_said() {
    for (text, line, part) in [
        ("default_realm = A\n[libdefaults]\n", 1, "stands before the first section"),
        ("[libdefault]\n", 1, "did you mean libdefaults?"),
        ("[libdefaults]\n default_relam = A\n", 2, "did you mean default_realm?"),
        ("[libdefaults]\n rdns = maybe\n", 2, "taken for false"),
        ("[libdefaults]\n default_realm = A\n default_realm = B\n", 3, "first value counts"),
        ("[realms]\n A = {\n  kdc = a.example # the first\n }\n", 3, "a line of its own"),
        ("[realms]\n A = {\n  kcd = a.example\n }\n", 3, "did you mean kdc?"),
        ("[realms]\n A = {\n  kdc = \"a.example\" b\n }\n", 3, "closing quotation mark"),
        ("[realms]\n A = {\n  kdc = \"a.example\n }\n", 3, "quotation mark at the end is missing"),
        ("[domain_realm]\n A.example = A\n", 2, "write a.example"),
        ("[libdefaults]\n dns_lookup_kdc = false\n default_realm = A\n", 3, "nothing finds its KDCs"),
        ("[libdefaults]\n dns_lookup_kdc = no\n[realms]\n A = {\n }\n", 4, "nothing finds its KDCs"),
        ("[realms]\n a.b = {\n }\n A.B = {\n }\n", 4, "differ in nothing but case"),
        ("module /usr/lib/krb5/plugin.so:init\n[libdefaults]\n", 1, "not loaded"),
        ("\u{feff}[libdefaults]\n", 1, "byte order mark"),
    ] {
        assert_one(&warnings(text), &format!("krb5.conf:{line}: "), part);
    }
}

#[test]
fn hosts_of_a_domain_are_not_written_with_a_star() {
    assert_one(&mistakes("[domain_realm]\n *.a.example = A\n"), "krb5.conf:2: ", "without the `*`");
}

#[test]
fn characters_of_word_processors_are_found() {
    for text in [
        "[libdefaults]\n\u{a0}rdns = false\n",
        "[realms]\n A = {\n  kdc = \u{201c}a.example\u{201d}\n }\n",
        "[a\u{0}]\n",
    ] {
        assert_one(&mistakes(text), "krb5.conf:", "type it anew");
    }
    assert_one(&mistakes("[libdefaults]\n rdns = \u{1b}[31m\n"), "krb5.conf:2: ", "\\u{1b}");
    assert_eq!(mistakes("# \u{201c}anything\u{201d} in a comment\n[libdefaults]\n"), Vec::<String>::new());
}

#[test]
fn a_realm_in_another_case_is_mapped_when_there_is_one() {
    let configuration = parse(
        "[libdefaults]\n default_realm = corp.example\n[realms]\n CORP.EXAMPLE = {\n  kdc = dc1.corp.example\n }\n\
         [domain_realm]\n .corp.example = Corp.Example\n",
    );
    assert_eq!(configuration.default_realm(), Some("CORP.EXAMPLE"));
    assert_eq!(configuration.host_realm("a.corp.example").as_deref(), Some("CORP.EXAMPLE"));
    assert_eq!(configuration.realm("corp.example").as_deref(), Ok("CORP.EXAMPLE"));
    assert_eq!(configuration.realm("elsewhere.example").as_deref(), Ok("elsewhere.example"));
    assert!(configuration.defines("corp.EXAMPLE"));
    let said: Vec<String> = configuration.warnings().iter().map(ToString::to_string).collect();
    assert!(
        said.len() == 2 && said[0].starts_with("krb5.conf:2: the realm corp.example is taken for CORP.EXAMPLE"),
        "{said:#?}"
    );
}

#[test]
fn a_realm_that_can_be_two_is_a_mistake() {
    let realms = "[realms]\n corp.example = {\n }\n CORP.EXAMPLE = {\n }\n";
    let configuration = parse(realms);
    assert_eq!(configuration.realm("corp.example").as_deref(), Ok("corp.example"));
    let candidates = vec!["corp.example".to_owned(), "CORP.EXAMPLE".to_owned()];
    assert_eq!(
        configuration.realm("Corp.Example"),
        Err(RealmError::Ambiguous { asked: "Corp.Example".to_owned(), candidates })
    );
    assert_one(
        &mistakes(&format!("[libdefaults]\n default_realm = Corp.Example\n{realms}")),
        "krb5.conf:2: ",
        "can be any of",
    );
    assert_eq!(configuration.realm("a@b"), Err(RealmError::Invalid("a@b".to_owned())));
}

#[test]
fn kdcs_in_all_their_forms() {
    let configuration = parse(
        "[realms]\n A = {\n  kdc = tcp/dc1.a.example\n  kdc = udp/dc2.a.example:8888\n  kdc = [2001:db8::1]:88\n  kdc = 192.0.2.7\n  \
         kdc = https://proxy.a.example/KdcProxy\n  kdc = http/proxy.a.example\n  kdc = /run/kdc.sock\n }\n\
         B = {\n  kdc = https://proxy.b.example/KdcProxy\n }\n",
    );
    assert_eq!(
        addresses(&configuration, "A"),
        ["dc1.a.example:88", "dc2.a.example:8888", "[2001:db8::1]:88", "192.0.2.7:88"]
    );
    assert_eq!(configuration.kdcs("A").iter().map(|kdc| kdc.tcp_only).collect::<Vec<_>>(), [true, false, false, false]);
    assert_eq!(configuration.krb5().kdcs("A").unwrap(), addresses(&configuration, "A"));
    assert_eq!(configuration.warnings().len(), 7, "{:#?}", configuration.warnings());
    // What is listed for B keeps DNS from being asked, and none of it can be used.
    assert!(!configuration.defines("B"));
    assert!(configuration.defines("C") && configuration.asks_dns("C"));
}

#[test]
fn other_kdcs_take_the_place_of_those_listed() {
    let configuration =
        parse("[libdefaults]\n rdns = false\n[realms]\n A = {\n  kdc = a\n  kdc = b\n  admin_server = c\n }\n");
    let replaced =
        [("A".to_owned(), vec!["192.0.2.1:88".to_owned()]), ("B".to_owned(), vec!["192.0.2.2:88".to_owned()])];
    let krb5 = configuration.with_kdcs(&replaced).unwrap();
    assert_eq!(krb5.kdcs("A").unwrap(), ["192.0.2.1:88"]);
    assert_eq!(krb5.kdcs("B").unwrap(), ["192.0.2.2:88"]);
    assert_eq!(krb5.get(&["realms", "A", "admin_server"]), Some("c"));
    assert_eq!(krb5.get(&["libdefaults", "rdns"]), Some("false"));
}

#[test]
fn files_include_others_and_each_mistake_has_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::create_dir(folder.path().join("krb5.conf.d")).unwrap();
    let main = format!(
        "includedir {}\ninclude {}\n[libdefaults]\n default_realm = B.EXAMPLE\n include not/in/the/first/column\n",
        at("krb5.conf.d"),
        at("absent.conf")
    );
    fs::write(folder.path().join("krb5.conf"), main).unwrap();
    fs::write(folder.path().join("krb5.conf.d/10-first"), "[libdefaults]\n default_realm = A.EXAMPLE\n").unwrap();
    fs::write(folder.path().join("krb5.conf.d/20-realm.conf"), "[realms]\n A.EXAMPLE = {\n  kdc = :88\n }\n").unwrap();
    fs::write(folder.path().join("krb5.conf.d/30-copy.conf~"), "broken").unwrap();
    let source = Source::File(folder.path().join("krb5.conf"));
    let error = Configuration::load(&source).unwrap_err();
    let found: Vec<String> = error.mistakes().iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(
        found[0].starts_with(&format!("{}:2: failed to include {}: ", at("krb5.conf"), at("absent.conf"))),
        "{found:#?}"
    );
    assert!(
        found[1].starts_with(&format!("{}:5: ", at("krb5.conf"))) && found[1].contains("first column"),
        "{found:#?}"
    );
    assert!(found[2].starts_with(&format!("{}:3: ", at("krb5.conf.d/20-realm.conf"))), "{found:#?}");

    let main = format!("includedir {}\n[libdefaults]\n default_realm = B.EXAMPLE\n", at("krb5.conf.d"));
    fs::write(folder.path().join("krb5.conf"), main).unwrap();
    fs::write(folder.path().join("krb5.conf.d/20-realm.conf"), "[realms]\n A.EXAMPLE = {\n  kdc = dc1\n }\n").unwrap();
    let configuration = Configuration::load(&source).unwrap();
    assert_eq!(configuration.default_realm(), Some("A.EXAMPLE"));
    assert_eq!(addresses(&configuration, "A.EXAMPLE"), ["dc1:88"]);
    assert!(!configuration.text().contains("include"), "{}", configuration.text());
}

#[test]
fn a_file_that_includes_itself_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("krb5.conf");
    let again = format!("include {0}\n", path.display()).repeat(20);
    fs::write(&path, again).unwrap();
    let error = Configuration::load(&Source::File(path)).unwrap_err();
    assert!(error.mistakes().iter().any(|mistake| mistake.text.contains("deeper than")), "{error}");
    assert!(error.mistakes().len() <= 101, "{}", error.mistakes().len());
}

#[test]
fn what_is_not_a_bounded_file_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("krb5.conf");
    let fails = |part: &str| {
        let error = Configuration::load(&Source::File(path.clone())).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    };
    fails("No such file");
    // Opening a device, or a pipe that nobody writes to, would wait.
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    fails("this is not a file");
    fs::remove_file(&path).unwrap();
    fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
    fails("longer than");
}

#[test]
fn the_variable_lists_files_and_directories() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("d")).unwrap();
    fs::write(at("a"), "[libdefaults]\n default_realm = A\n").unwrap();
    fs::write(at("d/b.conf"), "[libdefaults]\n default_realm = B\n[realms]\n B = {\n  kdc = b\n }\n").unwrap();
    let list = std::env::join_paths([at("absent"), at("a"), at("d")]).unwrap();
    let configuration = Configuration::load_from(&Source::System, Some(&list), &mut Disk::default()).unwrap();
    assert_eq!(configuration.default_realm(), Some("A"));
    assert_eq!(addresses(&configuration, "B"), ["b:88"]);
    let said: Vec<String> = configuration.warnings().iter().map(ToString::to_string).collect();
    assert!(said.contains(&format!("{}: this file is not there", at("absent").display())), "{said:#?}");
}

fn declared() -> Declared {
    let realm = Realm {
        kdc: vec!["dc1.corp.example".to_owned(), "dc2.corp.example:1088".to_owned()],
        admin_server: Some("dc1.corp.example".to_owned()),
        ..Realm::default()
    };
    Declared {
        default_realm: Some("CORP.EXAMPLE".to_owned()),
        realms: [("CORP.EXAMPLE".to_owned(), realm)].into(),
        domain_realm: [(".corp.example".to_owned(), "CORP.EXAMPLE".to_owned())].into(),
        dns_lookup_kdc: Some(false),
        rdns: Some(false),
        ticket_lifetime: Some("10h".to_owned()),
        ..Declared::default()
    }
}

#[test]
fn declared_settings_are_written_for_others_and_read_alike() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("krb5.conf");
    let watch = Watch::start(Source::Declared(declared()), Some(path.clone())).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("# Written by Lictor"), "{text}");
    let read = Configuration::load(&Source::File(path)).unwrap();
    assert_eq!(read.krb5(), watch.current().krb5());
    assert_eq!(read.warnings(), []);
    assert_eq!(addresses(&read, "CORP.EXAMPLE"), ["dc1.corp.example:88", "dc2.corp.example:1088"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn declared_settings_cannot_become_others() {
    let mut declared = declared();
    declared.realms.insert("A = {\n} [libdefaults".to_owned(), Realm::default());
    declared.default_realm = Some("A\n[realms]".to_owned());
    declared.domain_realm.insert("#x".to_owned(), "A".to_owned());
    let error = Configuration::load(&Source::Declared(declared)).unwrap_err();
    assert_eq!(error.mistakes().len(), 3, "{error}");
    assert!(error.mistakes().iter().all(|mistake| mistake.file.is_none()), "{error}");
}

#[test]
fn the_current_configuration_follows_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let (path, included) = (folder.path().join("krb5.conf"), folder.path().join("d"));
    fs::create_dir(&included).unwrap();
    fs::write(&path, format!("includedir {}\n", included.display())).unwrap();
    let watch = Watch::start(Source::File(path.clone()), None).unwrap();
    let first = watch.current();
    assert_eq!(first.default_realm(), None);

    // A file appears in an included directory; a look within a second does not see it, the next one does.
    fs::write(included.join("a"), "[libdefaults]\n default_realm = A\n").unwrap();
    assert!(Arc::ptr_eq(&first, &watch.current()));
    let later = |seconds: u64| std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    let second = watch.current_at(later(2));
    assert_eq!(second.default_realm(), Some("A"));

    // Broken: the earlier one stays. Of the same length at the same time: seen as well.
    fs::write(included.join("a"), "[libdefaults]\n default_realm : A\n").unwrap();
    assert!(Arc::ptr_eq(&second, &watch.current_at(later(4))));
    fs::write(included.join("a"), "[libdefaults]\n default_realm = B\n").unwrap();
    assert_eq!(watch.current_at(later(6)).default_realm(), Some("B"));

    // Gone for a moment, as while a file is replaced by moving it away first.
    let kept = watch.current_at(later(8));
    fs::remove_file(&path).unwrap();
    assert!(Arc::ptr_eq(&kept, &watch.current_at(later(10))));
    fs::write(&path, "[libdefaults]\n default_realm = C\n").unwrap();
    assert_eq!(watch.current_at(later(12)).default_realm(), Some("C"));
}

#[test]
fn a_config_map_is_followed_through_its_links() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (version, realm) in [("..1", "A"), ("..2", "B")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("krb5.conf"), format!("[libdefaults]\n default_realm = {realm}\n")).unwrap();
    }
    std::os::unix::fs::symlink("..1", at("..data")).unwrap();
    std::os::unix::fs::symlink("..data/krb5.conf", at("krb5.conf")).unwrap();
    let watch = Watch::start(Source::File(at("krb5.conf")), None).unwrap();
    assert_eq!(watch.current().default_realm(), Some("A"));
    std::os::unix::fs::symlink("..2", at("..new")).unwrap();
    fs::rename(at("..new"), at("..data")).unwrap();
    let later = std::time::Instant::now() + std::time::Duration::from_secs(2);
    assert_eq!(watch.current_at(later).default_realm(), Some("B"));
}

#[tokio::test]
async fn the_current_configuration_is_had_without_blocking() {
    let watch = Arc::new(Watch::start(Source::Declared(declared()), None).unwrap());
    assert_eq!(watch.fresh().await.default_realm(), Some("CORP.EXAMPLE"));
}

#[test]
fn a_file_becomes_settings_as_far_as_they_go() {
    let parse = |text: &str| Configuration::parse(text, Path::new("krb5.conf")).unwrap();
    let all = parse(
        "[logging]\n default = FILE:/x\n[libdefaults]\n default_realm = A\n rdns = no\n ticket_lifetime = 10h\n\
         udp_preference_limit = 1\n[realms]\n A = {\n  kdc = tcp/dc1.a.example\n  kdc = dc2.a.example:89\n  master_kdc = dc1.a.example\n }\n\
         [domain_realm]\n .a.example = A\n",
    );
    let (declared, left) = all.declaration();
    assert_eq!(left, []);
    assert_eq!((declared.rdns, declared.udp_preference_limit), (Some(false), Some(1)));
    assert_eq!(declared.realms["A"].primary_kdc.as_deref(), Some("dc1.a.example"));
    let said = Configuration::load(&Source::Declared(declared)).unwrap();
    assert_eq!(said.kdcs("A"), all.kdcs("A"));
    assert!(said.kdcs("A")[0].tcp_only && said.host_realm("w.a.example").as_deref() == Some("A"));

    let more = parse(
        "[libdefaults]\n default_realm = A\n noaddresses = true\n[realms]\n A = {\n  kdc = a\n  auth_to_local = DEFAULT\n }\n[appdefaults]\n x = y\n",
    );
    let left: Vec<String> = more.declaration().1.iter().map(ToString::to_string).collect();
    assert_eq!(
        left,
        [
            "krb5.conf:3: [libdefaults] noaddresses has no setting",
            "krb5.conf:7: [realms] A auth_to_local has no setting",
            "krb5.conf:10: [appdefaults] x has no setting"
        ]
    );
}

proptest! {
    /// What we take without a warning, the crate takes from the original text as the same.
    #[test]
    fn we_read_as_the_crate_does(lines in prop::collection::vec(prop::sample::select(LINES), 0..30)) {
        let text = lines.join("\n");
        if let Ok(configuration) = Configuration::parse(&text, Path::new("krb5.conf")) {
            let crates = Krb5Conf::parse(&text);
            prop_assert!(crates.is_ok(), "{text}\n{crates:?}");
            if configuration.warnings().is_empty() {
                prop_assert_eq!(&crates.unwrap(), configuration.krb5(), "{}", text);
            }
            let again = Configuration::parse(configuration.text(), Path::new("krb5.conf"));
            prop_assert!(again.is_ok(), "{}\n{:?}", configuration.text(), again);
            let again = again.unwrap();
            prop_assert_eq!(again.krb5(), configuration.krb5());
        }
    }

    /// Values survive being written.
    #[test]
    fn values_are_written_so_that_they_are_read_back(value in "[ -~]{1,40}") {
        prop_assume!(!value.trim().is_empty());
        let text = format!("[appdefaults]\n a = {}\n", super::profile::quoted(&value));
        let configuration = Configuration::parse(&text, Path::new("krb5.conf")).unwrap();
        prop_assert_eq!(configuration.krb5().get(&["appdefaults", "a"]), Some(value.as_str()));
    }
}

const LINES: &[&str] = &[
    "[libdefaults]",
    "[libdefaults]*",
    "[realms]",
    "[appdefaults]",
    "  default_realm = A",
    "  default_realm* = A",
    "  renewable = \"a \\\" b\\\\\"",
    "  A = {",
    "  A* = {",
    "  a = {",
    "    kdc = a.example:88",
    "    kdc* = a.example:88",
    "    auth_to_local = DEFAULT",
    "    admin_server=\"c.example\"",
    "  }",
    "  }*",
    "# comment",
    "",
    "  kdc =",
    "  {",
    "}",
];
