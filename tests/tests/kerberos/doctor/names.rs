//! What hosts are called, forward and backward, on a machine whose `/etc/hosts` says so.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use lictor_doctor::{Check, KerberosSubject, Outcome, Subject};
use lictor_kerberos::config::Source;
use lictor_tests::Kdc;

use super::{found, look, step, subject, target, written};

/// Said to the copy of this test that runs among files of its own.
const INSIDE: &str = "LICTOR_TEST_HOSTS";

#[tokio::test]
async fn names_that_lead_elsewhere() {
    if std::env::var_os(INSIDE).is_none() {
        return outside();
    }
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    let realm = kdc.realm();
    let of = |name: &str, settings: &str| {
        let port = kdc.port();
        let text = format!(
            "[libdefaults]\n default_realm = {realm}\n dns_lookup_kdc = false\n{settings}[realms]\n {realm} = {{\n  kdc = 127.0.0.1:{port}\n }}\n"
        );
        written(&kdc, name, &text)
    };
    let (usual, plain) = (of("usual.conf", ""), of("plain.conf", " rdns = false\n"));
    let strict = of("strict.conf", " rdns = false\n dns_canonicalize_hostname = false\n");
    let examined = async |source: &Source, host: &str| look(&subject(source.clone(), None, Some(target(host)))).await;

    let report = examined(&usual, "web1.corp.example").await;
    found(&report, Check::HostName, Outcome::Passed, "");
    found(&report, Check::Resolve, Outcome::Passed, "");
    assert_eq!(step(&report, Check::Resolve).detail, "127.0.0.11, 127.0.0.12");
    found(&report, Check::Reverse, Outcome::Passed, "");
    assert_eq!(
        step(&report, Check::Reverse).detail,
        "127.0.0.11 is web1.corp.example; 127.0.0.12 is web1.corp.example"
    );
    // The address is called something else, which MIT's library minds unless it is told not to.
    let report = examined(&usual, "web2.corp.example").await;
    found(&report, Check::Reverse, Outcome::Warning, "dns.reverse_mismatch");
    let finding = step(&report, Check::Reverse).finding.as_ref().unwrap();
    assert!(finding.cause.contains("HTTP/node7.corp.example instead of HTTP/web2.corp.example"), "{finding:#?}");
    found(&examined(&plain, "web2.corp.example").await, Check::Reverse, Outcome::Passed, "");
    let mut named = target("web2.corp.example");
    named.kerberos.spn_host = Some("node7.corp.example".to_owned());
    let report = look(&subject(usual.clone(), None, Some(named))).await;
    found(&report, Check::HostName, Outcome::Passed, "");
    found(&report, Check::Reverse, Outcome::Passed, "");
    // What MIT's library asks for, by its own account.
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let cache = format!("FILE:{}", kdc.path("alice.ccache").display());
    kdc.kinit(&kdc.principal("alice"), "Secret-1", &cache, &[]).unwrap();
    for (source, host, asked) in [
        (&usual, "web2.corp.example", "node7"),
        (&strict, "web2.corp.example", "web2"),
        (&plain, "alias.corp.example", "web3"),
    ] {
        let Source::File(path) = source else { unreachable!() };
        let kvno =
            kdc.command("kvno").env("KRB5_CONFIG", path).env("KRB5CCNAME", &cache).args(["-S", "HTTP", host]).output();
        let said = format!("{:?}", kvno.unwrap());
        assert!(said.contains(&format!("HTTP/{asked}.corp.example@")), "{said}");
    }

    found(&examined(&plain, "alias.corp.example").await, Check::Resolve, Outcome::Warning, "dns.alias");
    let report = examined(&usual, "web1").await;
    found(&report, Check::HostName, Outcome::Warning, "dns.short_name");
    assert_eq!(step(&report, Check::HostName).detail, "web1; its full name is web1.corp.example");
    found(&examined(&usual, "127.0.0.11").await, Check::HostName, Outcome::Failed, "kerberos.host_is_address");
    found(&examined(&usual, "gone.invalid").await, Check::Resolve, Outcome::Failed, "resolve.failed");

    // Without a krb5.conf the realm has to be written with the user, and DNS to be asked.
    let system = Subject {
        usual_ports: true,
        target: None,
        kerberos: Some(KerberosSubject { source: Source::System, manager: None, identity: None }),
    };
    found(&look(&system).await, Check::Krb5Conf, Outcome::Warning, "kerberos.krb5_conf_missing");
}

/// Runs this test again in a mount namespace with another `/etc/hosts`, and no krb5.conf.
fn outside() {
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    let text = "127.0.0.1 localhost\n127.0.0.11 web1.corp.example web1\n127.0.0.12 web1.corp.example web1\n\
                127.0.0.13 node7.corp.example\n127.0.0.13 web2.corp.example\n127.0.0.14 web3.corp.example alias.corp.example\n";
    std::fs::write(&hosts, text).unwrap();
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let output = Command::new("unshare")
        .args(if root { &["--mount"][..] } else { &["--mount", "--map-root-user"] })
        .args(["sh", "-c", r#"mount --bind "$1" /etc/hosts && exec "$0" --exact --nocapture "$2""#])
        .args([std::env::current_exe().unwrap(), hosts])
        .arg("doctor::names::names_that_lead_elsewhere")
        .env(INSIDE, "1")
        .env("KRB5_CONFIG", folder.path().join("missing.conf"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}
