//! Tests of whole scripts; those of words and here-documents stand beside `shell`.

use std::io::Write as _;

use super::*;

/// In the shape that the documentation of Harness gives.
const SEED: &str = r#"# Set up kerberos
microdnf update
microdnf install vim
microdnf install yum
microdnf install -y yum-utils
yes | yum install krb5-workstation krb5-libs
truncate -s 0 /etc/krb5.conf
cat <<EOT >> /etc/krb5.conf
[logging]
    default = FILE:/var/log/krb5libs.log
    kdc = FILE:/var/log/krb5kdc.log
    admin_server = FILE:/var/log/kadmind.log
[libdefaults]
    default_realm = CORP.EXAMPLE
    dns_lookup_realm = true
    ticket_lifetime = 24h
    renew_lifetime = 7d
    forwardable = true
    rdns = false
[realms]
  CORP.EXAMPLE = {
    kdc = "dc1.corp.example"
    admin_server = "dc1.corp.example"
    default_domain = "CORP.EXAMPLE"
    master_kdc = "dc1.corp.example"
  }
[domain_realm]
  .corp.example = CORP.EXAMPLE
EOT
echo '10.0.0.5 dc1 dc1.corp.example' >> /etc/hosts
echo 'Marker-9b1f' | kinit alice@CORP.EXAMPLE
klist
"#;

fn report(script: &str) -> Report {
    let report = migrate(script.as_bytes()).unwrap();
    for shown in [report.text(), serde_json::to_string(&report).unwrap(), format!("{report:?}")] {
        assert!(!shown.contains("Marker"), "a password is shown:\n{shown}");
    }
    report
}

/// The settings, as the agent reads them.
fn loaded(report: &Report) -> crate::config::Kerberos {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(format!("control_plane = \"https://a\"\n{}", report.settings).as_bytes()).unwrap();
    crate::config::load(Some(file.path()), []).unwrap().config.kerberos
}

#[test]
fn the_script_of_the_documentation_is_replaced_as_a_whole() {
    let report = report(SEED);
    assert_eq!(report.remaining, []);
    assert_eq!(report.krb5_conf, None);
    let kerberos = loaded(&report);
    assert!(kerberos.check().is_ok());
    let declared = kerberos.declared.unwrap();
    assert_eq!(declared.default_realm.as_deref(), Some("CORP.EXAMPLE"));
    let realm = &declared.realms["CORP.EXAMPLE"];
    assert_eq!(
        (realm.kdc.as_slice(), realm.primary_kdc.as_deref()),
        (&["dc1.corp.example".to_owned()][..], Some("dc1.corp.example"))
    );
    assert_eq!(declared.domain_realm[".corp.example"], "CORP.EXAMPLE");
    assert_eq!((declared.rdns, declared.forwardable, declared.dns_lookup_realm), (Some(false), Some(true), Some(true)));
    assert_eq!((declared.ticket_lifetime.as_deref(), declared.renew_lifetime.as_deref()), (Some("24h"), Some("7d")));
    assert_eq!(report.host_aliases.len(), 1);
    assert_eq!((report.host_aliases[0].ip.as_str(), report.host_aliases[0].lines), ("10.0.0.5", (30, 30)));
    assert_eq!(report.host_aliases[0].names, ["dc1", "dc1.corp.example"]);
    assert_eq!(report.credentials.len(), 1);
    let expected = "lictor credential put alice --user 'alice@CORP.EXAMPLE' --auth kerberos --password-file FILE";
    assert_eq!(report.credentials[0].command, expected);
    let text = report.text();
    for expected in
        ["Nothing has to stay in INIT_SCRIPT", "hostAliases:", "line 3: microdnf: vim;", "line 32: tickets:"]
    {
        assert!(text.contains(expected), "{expected:?} is missing in:\n{text}");
    }
}

#[test]
fn passwords_are_found_in_every_place_and_shown_from_none() {
    for script in [
        "echo Marker-1 | kinit alice",
        "echo -n 'Marker-1' | sudo kinit -V alice",
        "printf '%s\\n' \"Marker-1\" | kinit -l 10h alice",
        "kinit alice <<< 'Marker-1'",
        "kinit alice <<E\nMarker-1\nE",
        "kinit alice <<'E'\nMarker-1\nE",
        "PW=Marker-1\necho $PW | kinit alice",
        "export PW='Marker-1'; echo \"${PW}\" | kinit alice",
        "yes Marker-1 | kinit alice",
        "echo Marker-1 > /tmp/pw; kinit alice < /tmp/pw; rm -f /tmp/pw",
        "echo Marker-1 > /tmp/pw\ncat /tmp/pw | kinit -c /tmp/cache alice",
    ] {
        let report = report(script);
        assert_eq!(report.credentials.len(), 1, "{script}");
        assert!(report.credentials[0].command.ends_with("--password-file FILE"), "{script}: {report:?}");
    }
    // What is not understood is shown by numbers, whatever stands there.
    for script in [
        "Marker-1",
        "kinit alice Marker-1 \"$(cat)\"",
        "echo 'Marker-1 | kinit alice",
        "echo x | kinit alice Marker-1",
        "if true; then echo Marker-1 | kinit alice; fi",
        "curl -u admin:Marker-1 https://h",
        "frobnicate --password=Marker-1",
        "API_KEY=Marker-1 ./run",
        "yum install Marker-1",
        "echo $(Marker-1) | kinit alice",
        "cat <<E\nMarker-1",
        "Marker-1 > /etc/krb5.conf",
    ] {
        let report = report(script);
        assert!(report.credentials.is_empty() || script.contains("kinit"), "{script}");
        assert!(!report.remaining.is_empty() || script.starts_with("yum"), "{script}: {report:?}");
    }
}

#[test]
fn logins_by_files_variables_and_keytabs_keep_their_places() {
    let one = |script: &str| {
        let report = report(script);
        assert_eq!((report.credentials.len(), report.remaining.len()), (1, 0), "{script}: {report:?}");
        (report.credentials[0].clone(), report)
    };
    let (credential, _) = one("kinit alice@A < /run/secrets/pw");
    assert!(credential.command.ends_with("--password-file '/run/secrets/pw'"), "{credential:?}");
    let (credential, _) = one("echo \"$KRB_PASSWORD\" | kinit alice@A");
    assert!(credential.note.contains("the variable KRB_PASSWORD"), "{credential:?}");
    for script in ["kinit -kt /etc/keytabs/a.keytab svc/h@A", "kinit -k -t /etc/keytabs/a.keytab svc/h@A"] {
        let (credential, report) = one(script);
        assert!(credential.command.ends_with("--keytab-on-agent '/etc/keytabs/a.keytab'"), "{credential:?}");
        assert_eq!(loaded(&report).keytabs, [Path::new("/etc/keytabs/a.keytab")]);
    }
    let (_, report) =
        one("echo Marker | base64 -d > /tmp/a.keytab\nchmod 600 /tmp/a.keytab\nkinit -kt /tmp/a.keytab a@A");
    assert!(report.remarks.iter().any(|remark| remark.contains("as good as a password")), "{report:?}");
    assert_eq!(report_of("kinit -R").unneeded.len(), 1);
    let two = report_of("echo a | kinit alice@A; echo b | kinit Alice@B");
    assert!(two.credentials[1].command.contains(" alice-2 "), "{two:?}");
}

fn report_of(script: &str) -> Report {
    report(script)
}

#[test]
fn documents_are_what_lictor_credential_import_takes() {
    use lictor_import::harness::{Auth, Wanted, read};
    let report = report("echo Marker | kinit alice@A.EXAMPLE\nkinit -kt /etc/k/svc.keytab svc@A.EXAMPLE");
    let [password, keytab] = [0, 1].map(|at: usize| {
        let taken = read(&"report".into(), &report.credentials[at].document).unwrap();
        taken.credentials.into_iter().next().unwrap()
    });
    assert_eq!((password.name.as_str(), password.username.as_str()), ("alice", "alice@A.EXAMPLE"));
    assert_eq!((password.auth, password.use_ssl, password.skip_cert_checks), (Auth::Kerberos, true, false));
    assert_eq!(password.secret, Wanted::Password { reference: "alice".into() });
    assert_eq!(keytab.secret, Wanted::KeytabOnAgent { path: "/etc/k/svc.keytab".into() });
}

#[test]
fn krb5_conf_is_put_together_as_the_script_does() {
    let realm = "[realms]\nA.EXAMPLE = {\n kdc = dc.a.example\n}\n";
    let libdefaults = "[libdefaults]\ndefault_realm = A.EXAMPLE\n";
    for script in [
        format!("cat > /etc/krb5.conf <<E\n{libdefaults}{realm}E\n"),
        format!(
            "echo old > /etc/krb5.conf\ncat <<E > /etc/krb5.conf\n{libdefaults}E\ncat <<E >> /etc/krb5.conf\n{realm}E\n"
        ),
        format!("tee /etc/krb5.conf <<'E' >/dev/null\n{libdefaults}{realm}E\n"),
        format!("R=A.EXAMPLE\ncat <<E | tee /etc/krb5.conf\n{}{realm}E\n", libdefaults.replace("A.EXAMPLE", "$R")),
        format!("cat <<E > /tmp/k\n{libdefaults}{realm}E\ncp /tmp/k /etc/krb5.conf; rm /tmp/k"),
        format!("export KRB5_CONFIG=/tmp/k\ncat <<E > /tmp/k\n{libdefaults}{realm}E\n"),
        format!("printf '{}' > /etc/krb5.conf", format!("{libdefaults}{realm}").replace('\n', "\\n")),
    ] {
        let report = report(&script);
        let declared = loaded(&report).declared.unwrap_or_else(|| panic!("{script}\n{report:?}"));
        assert_eq!(declared.default_realm.as_deref(), Some("A.EXAMPLE"), "{script}");
        assert_eq!(declared.realms["A.EXAMPLE"].kdc, ["dc.a.example"], "{script}");
    }
    // What settings cannot say stays a file, and what cannot be used stays where it is.
    let more =
        report_of(&format!("cat > /etc/krb5.conf <<E\n{libdefaults}default_tkt_enctypes = aes256-cts\n{realm}E\n"));
    assert!(more.krb5_conf.as_deref().is_some_and(|text| text.contains("default_tkt_enctypes")), "{more:?}");
    assert_eq!(loaded(&more).krb5_conf.as_deref(), Some(Path::new("/etc/lictor/krb5.conf")));
    let wrong = report_of("cat > /etc/krb5.conf <<E\n[libdefaults]\nticket_lifetime = soon\nE\n");
    assert!(wrong.remaining[0].why.contains("mistake") && wrong.settings.is_empty(), "{wrong:?}");
    let unknown = report_of("envsubst < /k > /etc/krb5.conf");
    assert_eq!((unknown.remaining[0].lines, unknown.remaining[0].program.as_str()), ((1, 1), "envsubst"));
    let mounted = report_of("ln -sf /mnt/krb5.conf /etc/krb5.conf");
    assert_eq!(loaded(&mounted).krb5_conf.as_deref(), Some(Path::new("/mnt/krb5.conf")));
}

#[test]
fn odd_scripts_are_read_to_their_end() {
    assert_eq!(report("").text().matches("Nothing has to stay").count(), 1);
    let bytes = migrate(b"kinit \xff\xfe <<< x\r\n").unwrap();
    assert_eq!(bytes.remarks.len(), 2, "{bytes:?}");
    assert!(migrate(&vec![b'a'; MAX_SCRIPT + 1]).is_err());
    let long = migrate("foo;".repeat(MAX_SCRIPT / 4).as_bytes()).unwrap();
    assert!(long.remaining.len() <= 501);
    // A variable that doubles in each line would fill the memory.
    let doubling = "a=xxxxxxxx\n".to_owned() + &"a=$a$a\n".repeat(60) + "echo $a | kinit alice\n";
    report(&doubling);
    let aliases = report("echo host_ip dc1 >> /etc/hosts");
    assert!(aliases.remarks[0].contains("is no address"), "{aliases:?}");
    let loops = report("for h in a b; do\n echo \"10.0.0.1 $h\" >> /etc/hosts\ndone\nklist");
    assert_eq!((loops.host_aliases.len(), loops.unneeded.len()), (0, 1), "{loops:?}");
}

#[test]
fn a_file_that_something_unknown_changes_makes_no_settings() {
    let written = "cat <<EOF > /etc/krb5.conf\n[libdefaults]\ndefault_realm = __REALM__\nEOF\n";
    for more in [
        "sed -i s/__REALM__/CORP.EXAMPLE/ /etc/krb5.conf\n",
        "if true; then\n echo x >> /etc/krb5.conf\nfi\n",
        "for a in b; do echo \"$a\" > /etc/krb5.conf; done\n",
        "f=/etc/krb5.conf\nperl -pi -e x $f\n",
        "false || echo x > /etc/krb5.conf\n",
        "envsubst < x > /etc/krb5.conf\n",
    ] {
        let script = format!("{written}{more}");
        let report = report(&script);
        assert!(!report.settings.contains("REALM"), "{script}: {}", report.settings);
        // Both the statement itself and what wrote the rest stay.
        assert!(report.remaining.iter().any(|remaining| remaining.lines.0 >= 5), "{script}: {:?}", report.remaining);
    }
    for more in ["grep -q x /etc/krb5.conf\n", "if [ -s /etc/krb5.conf ]; then echo yes; fi\n", "cat /etc/krb5.conf\n"]
    {
        let report = report(&format!("{written}{more}"));
        assert!(report.settings.contains("__REALM__"), "{more}: {}", report.settings);
    }
    // Written anew, it is known again.
    let report = report(&format!("sed -i s/a/b/ /etc/krb5.conf\n{}", written.replace("__REALM__", "CORP.EXAMPLE")));
    assert!(report.settings.contains("CORP.EXAMPLE"), "{}", report.settings);
}
