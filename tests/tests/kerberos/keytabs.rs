//! Keytabs, judged by MIT's tools and by a real KDC: klist and kinit read ours, we read those of ktutil and kadmin.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lictor_kerberos::keytab::{Existing, Keytab, Recipe, default_salt, parse_principal};
use lictor_tests::{Kdc, Output, binary};

const PASSWORD: &str = "Grünes Haus 7";
const ENCTYPES: [(&str, i32); 4] = [
    ("aes256-cts-hmac-sha1-96", 18),
    ("aes128-cts-hmac-sha1-96", 17),
    ("aes256-cts-hmac-sha384-192", 20),
    ("aes128-cts-hmac-sha256-128", 19),
];

/// Runs `lictor keytab` with the KDC's krb5.conf and the password in a file.
fn lictor(kdc: &Kdc, password: &str, arguments: &[&str]) -> Output {
    let file = kdc.path("password");
    std::fs::write(&file, password).unwrap();
    let mut command = kdc.command(binary("lictor").unwrap().to_str().unwrap());
    command.env_remove("LICTOR_PASSWORD").arg("keytab").args(arguments);
    if arguments[0] == "create" {
        command.arg("--password-file").arg(&file);
    }
    Output::of(&mut command, Duration::from_secs(60)).unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    assert!(!output.stdout.is_empty(), "{}", output.stderr);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn failure(output: &Output) -> serde_json::Value {
    serde_json::from_str::<serde_json::Value>(output.stderr.lines().last().unwrap()).unwrap()["error"].clone()
}

/// Types commands into ktutil.
fn ktutil(input: &str) {
    let mut child = Command::new("ktutil").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
}

/// What klist says of a keytab, without the times: principal, version, encryption type and key of each line.
fn klist(path: &Path) -> Vec<String> {
    let output = Command::new("klist").args(["-k", "-e", "-K"]).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| line.contains("(0x")).map(|line| line.trim().to_owned()).collect()
}

fn kinit(kdc: &Kdc, name: &str, keytab: &Path) -> anyhow::Result<()> {
    let cache = format!("FILE:{}", kdc.path("kinit.ccache").display());
    kdc.kinit(&kdc.principal(name), "", &cache, &["-k", "-t", keytab.to_str().unwrap()])
}

#[test]
fn klist_reads_ours_and_finds_the_keys_of_ktutil() {
    let directory = tempfile::tempdir().unwrap();
    for (index, (name, enctype)) in ENCTYPES.into_iter().enumerate() {
        for text in ["alice@CORP.EXAMPLE", "HTTP/web.corp.example@CORP.EXAMPLE", "a/b/c/d@X"] {
            let (ours, theirs) = (directory.path().join(format!("ours{index}")), directory.path().join("theirs"));
            let _ = std::fs::remove_file(&theirs);
            let principal = parse_principal(text, None).unwrap();
            let recipe = Recipe { enctype, salt: default_salt(&principal), parameters: None };
            let kvno = [1, 255, 256, 70_000][index];
            let keytab = Keytab::from_password(&principal, PASSWORD, kvno, 1_700_000_000, &[recipe]).unwrap();
            keytab.write(&ours, Existing::Replace).unwrap();
            ktutil(&format!("addent -password -p {text} -k {kvno} -e {name}\n{PASSWORD}\nwkt {}\n", theirs.display()));
            let seen = klist(&ours);
            assert_eq!(seen, klist(&theirs));
            assert!(seen.len() == 1 && seen[0].contains(&format!("{kvno} {text} ({name})")), "{seen:?}");
            assert!(Keytab::read(&theirs).unwrap().entries()[0].is_same_key(&keytab.entries()[0]));
        }
    }
}

#[test]
fn we_read_what_kadmin_and_ktutil_write() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    for name in ["alice", "HTTP/web.corp.example"] {
        kdc.add_random(name, &[]).unwrap();
    }
    let path = kdc.path("kadmin.keytab");
    kdc.keytab(&["alice", "HTTP/web.corp.example"], &path).unwrap();
    kdc.change_keys("alice", false).unwrap();
    kdc.keytab(&["alice"], &path).unwrap();
    let same = |path: &Path| {
        let ours: Vec<String> = Keytab::read(path)
            .unwrap()
            .entries()
            .iter()
            .map(|entry| format!("{} {} ({})", entry.kvno, entry.principal, entry.enctype_text()))
            .collect();
        let theirs: Vec<String> =
            klist(path).iter().map(|line| line.split("  (0x").next().unwrap().to_owned()).collect();
        assert_eq!(ours, theirs);
        ours.len()
    };
    assert_eq!(same(&path), 12);
    assert_eq!(Keytab::read(&path).unwrap().kvnos(&kdc.principal("alice")), [2, 1]);
    // Deleted entries leave holes when kadmin takes them out, and none when ktutil writes the file anew.
    kdc.kadmin(&[&format!("ktremove -k {} alice 1", path.display())]).unwrap();
    assert_eq!(same(&path), 8);
    let anew = kdc.path("anew.keytab");
    ktutil(&format!("rkt {}\ndelent 1\nwkt {}\n", path.display(), anew.display()));
    assert_eq!(same(&anew), 7);
    // What we write of it is the same to MIT.
    let ours = kdc.path("ours.keytab");
    Keytab::read(&path).unwrap().write(&ours, Existing::Keep).unwrap();
    assert_eq!(klist(&ours), klist(&path));
}

#[test]
fn kinit_gets_a_ticket_with_what_the_command_line_makes() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("alice", PASSWORD, &[]).unwrap();
    let principal = kdc.principal("alice");
    for (index, (name, _)) in ENCTYPES.into_iter().enumerate() {
        let path = kdc.path(&format!("{index}.keytab"));
        let file = path.to_str().unwrap();
        let made = lictor(&kdc, PASSWORD, &["create", file, "-p", &principal, "-k", "1", "-e", name, "--offline"]);
        assert_eq!(made.code, 0, "{}", made.stderr);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        kinit(&kdc, "alice", &path).unwrap();
        let wrong = kdc.path("wrong.keytab");
        let file = wrong.to_str().unwrap();
        let made = lictor(&kdc, "wrong", &["create", file, "-p", &principal, "-e", name, "--offline", "--force"]);
        assert_eq!(made.code, 0, "{}", made.stderr);
        assert!(kinit(&kdc, "alice", &wrong).is_err());
    }
}

#[test]
fn a_keytab_is_neither_overwritten_nor_loses_older_keys_by_mistake() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("alice", PASSWORD, &[]).unwrap();
    let (principal, path) = (kdc.principal("alice"), kdc.path("alice.keytab"));
    let file = path.to_str().unwrap();
    let create = |password: &str, more: &[&str]| {
        let arguments = ["--output", "json", "create", file, "-p", &principal, "-e", "aes256-sha1", "--offline"];
        lictor(&kdc, password, &[&arguments[2..], &arguments[..2], more].concat())
    };
    assert_eq!(json(&create(PASSWORD, &[]))["added"], 1);
    let before = std::fs::read(&path).unwrap();
    let refused = create(PASSWORD, &[]);
    assert_eq!((refused.code, &failure(&refused)["code"]), (120, &"keytab.exists".into()));
    let refused = create("another", &["--append", "--kvno", "1"]);
    assert_eq!((refused.code, &failure(&refused)["code"]), (120, &"keytab.other_key".into()));
    assert_eq!(std::fs::read(&path).unwrap(), before);

    // The password is changed: the new key comes to the old one, and is the one that is used.
    kdc.change_password("alice", "another").unwrap();
    assert!(kinit(&kdc, "alice", &path).is_err());
    let made = json(&create("another", &["--append"]));
    assert_eq!((&made["kvno"], &made["added"]), (&2.into(), &1.into()));
    assert_eq!(klist(&path).len(), 2);
    kinit(&kdc, "alice", &path).unwrap();

    // A file that is no keytab stays as it is, and the error says where it is wrong.
    let cut = kdc.path("cut.keytab");
    std::fs::write(&cut, &before[..before.len() - 5]).unwrap();
    let refused = lictor(
        &kdc,
        PASSWORD,
        &["create", cut.to_str().unwrap(), "-p", &principal, "--append", "--offline", "--output", "json"],
    );
    let error = failure(&refused);
    assert_eq!(error["code"], "keytab.malformed");
    assert!(error["message"].as_str().unwrap().contains("at byte 2"), "{error}");
    let refused = create(PASSWORD, &["-e", "rc4-hmac"]);
    assert!(refused.code == 120 && refused.stderr.contains("RC4"), "{}", refused.stderr);
}

#[test]
fn a_list_shows_everything_but_keys() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_random("svc", &[]).unwrap();
    let path = kdc.path("svc.keytab");
    kdc.keytab(&["svc"], &path).unwrap();
    let file = path.to_str().unwrap();
    let listed = json(&lictor(&kdc, "", &["list", file, "--output", "json"]));
    let entries = listed["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 4);
    assert_eq!(entries[0]["principal"], kdc.principal("svc"));
    assert_eq!((&entries[0]["enctype"], &entries[0]["kvno"]), (&"aes256-cts-hmac-sha1-96".into(), &1.into()));
    let table = lictor(&kdc, "", &["list", file]).text();
    assert!(table.contains("PRINCIPAL") && table.contains("aes128-cts-hmac-sha256-128"), "{table}");
    for line in klist(&path) {
        let key = line.split("(0x").nth(1).unwrap().trim_end_matches(')');
        assert!(key.len() >= 32 && !format!("{table}{listed}").contains(key));
    }
}

#[test]
fn the_kdc_tells_the_salt_and_proves_the_keys_before_they_are_written() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("before", PASSWORD, &[]).unwrap();
    // Renamed: the salt stays that of the name before, so that the default one makes wrong keys.
    kdc.kadmin(&["renprinc -force before after"]).unwrap();
    let (principal, path) = (kdc.principal("after"), kdc.path("after.keytab"));
    let file = path.to_str().unwrap();
    let made = json(&lictor(&kdc, PASSWORD, &["create", file, "-p", "after", "--output", "json"]));
    assert_eq!((&made["principal"], &made["checked"]), (&principal.clone().into(), &true.into()), "{made}");
    assert_eq!(made["salts"][0], kdc.realm().to_owned() + "before");
    kinit(&kdc, "after", &path).unwrap();
    for (name, _) in ENCTYPES {
        let made =
            lictor(&kdc, PASSWORD, &["create", file, "-p", "after", "-e", name, "-k", "9", "--append", "--force"]);
        assert_eq!(made.code, 0, "{name} {}", made.stderr);
    }
    assert_eq!(klist(&path).iter().filter(|line| line.starts_with("9 ")).count(), 4);
    let checked = lictor(&kdc, "", &["check", file, "--output", "json"]);
    assert_eq!((checked.code, &json(&checked)["principals"][0]["outcome"]), (0, &"valid".into()));

    // One attempt with a wrong password, and no file.
    let none = kdc.path("none.keytab");
    let failed = kdc.logged(&["AS_REQ", "PREAUTH_FAILED"]);
    let refused = lictor(&kdc, "wrong", &["create", none.to_str().unwrap(), "-p", &principal, "--output", "json"]);
    assert_eq!((refused.code, &failure(&refused)["code"]), (125, &"kerberos.keytab_rejected".into()));
    assert!(!none.exists());
    assert!(kdc.logged(&["AS_REQ", "PREAUTH_FAILED"]) <= failed + 1, "{}", kdc.log());
    let refused = lictor(&kdc, PASSWORD, &["create", none.to_str().unwrap(), "-p", "nobody", "--output", "json"]);
    assert_eq!((refused.code, &failure(&refused)["code"]), (125, &"kerberos.principal_unknown".into()));
}

#[test]
fn a_check_says_of_each_principal_what_the_kdc_says() {
    let mut kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    for name in ["good", "rotated", "gone"] {
        kdc.add_random(name, &[]).unwrap();
    }
    let path = kdc.path("all.keytab");
    kdc.keytab(&["good", "rotated", "gone"], &path).unwrap();
    kdc.change_keys("rotated", false).unwrap();
    kdc.delete("gone").unwrap();
    let file = path.to_str().unwrap();
    let checked = lictor(&kdc, "", &["check", file, "--output", "json"]);
    let outcomes: Vec<_> = json(&checked)["principals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|principal| principal["outcome"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!((checked.code, outcomes), (125, vec!["valid".to_owned(), "wrong_key".to_owned(), "unknown".to_owned()]));
    let table = lictor(&kdc, "", &["check", file]);
    assert!(table.text().contains("wrong key or version") && table.stderr.contains("remedy"), "{}", table.text());
    let one = lictor(&kdc, "", &["check", file, "-p", &kdc.principal("good")]);
    assert_eq!(one.code, 0, "{}", one.stderr);
    kdc.kill().unwrap();
    let away = lictor(&kdc, "", &["check", file, "--output", "json", "--timeout", "10s"]);
    assert_eq!((away.code, &json(&away)["principals"][2]["outcome"]), (122, &"unavailable".into()));
}
