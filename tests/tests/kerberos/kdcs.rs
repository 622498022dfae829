//! Which KDC is asked, and what MIT's library makes of the settings that we read and write.

use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use krb5::{AsyncKdcClient, ClientError, Credentials, Principal};
use lictor_kerberos::config::{Configuration, Declared, Realm, Source, Watch};
use lictor_kerberos::kdc::{Directory, Failure};
use lictor_kerberos::trace::Trace;
use lictor_tests::Kdc;
use tokio::time::Instant;

/// A port whose UDP and TCP sides take everything and answer nothing, as behind a firewall.
struct BlackHole {
    udp: UdpSocket,
    _tcp: TcpListener,
}

impl BlackHole {
    fn open() -> Self {
        loop {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
                udp.set_nonblocking(true).unwrap();
                return Self { udp, _tcp: tcp };
            }
        }
    }

    fn address(&self) -> String {
        self.udp.local_addr().unwrap().to_string()
    }

    /// Datagrams that came since the last call.
    fn datagrams(&self) -> usize {
        let mut buffer = [0; 4096];
        std::iter::from_fn(|| self.udp.recv(&mut buffer).ok()).count()
    }
}

/// A port where nothing listens.
fn dead_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn address(kdc: &Kdc) -> String {
    format!("127.0.0.1:{}", kdc.port())
}

fn declared(realms: &[(&Kdc, Vec<String>)]) -> Declared {
    let realm = |kdc: &Vec<String>| Realm { kdc: kdc.clone(), ..Realm::default() };
    Declared {
        default_realm: realms.first().map(|(kdc, _)| kdc.realm().to_owned()),
        realms: realms.iter().map(|(kdc, kdcs)| (kdc.realm().to_owned(), realm(kdcs))).collect(),
        dns_lookup_kdc: Some(false),
        rdns: Some(false),
        ..Declared::default()
    }
}

fn directory(declared: Declared, rendered: Option<&Path>) -> Directory {
    Directory::new(Arc::new(Watch::start(Source::Declared(declared), rendered.map(Path::to_path_buf)).unwrap()))
}

async fn login(directory: &Directory, kdc: &Kdc, trace: &Trace, seconds: u64) -> Result<Credentials, Failure> {
    let alice = Principal::parse(&kdc.principal("alice")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let dialogue = |client: AsyncKdcClient| {
        let alice = alice.clone();
        async move { client.login_with_password(&alice, "Secret 1").await }
    };
    directory.with_client(kdc.realm(), trace, deadline, dialogue).await
}

#[tokio::test]
async fn a_login_finds_the_kdc_that_lives_and_so_does_kinit() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("alice", "Secret 1", &[]).unwrap();
    let (hole, dead) = (BlackHole::open(), dead_port());
    let kdcs = vec![dead.clone(), hole.address(), address(&kdc)];
    let rendered = kdc.path("rendered.conf");
    let directory = directory(declared(&[(&kdc, kdcs)]), Some(&rendered));

    let trace = Trace::collect();
    let ticket = login(&directory, &kdc, &trace, 60).await.unwrap();
    assert_eq!(ticket.server.to_string(), format!("krbtgt/{0}@{0}", kdc.realm()));
    let lines = trace.lines();
    let silent = hole.address();
    for line in [format!("No answer from dgram {dead}: "), format!("No answer from stream {silent}: timed out")] {
        assert!(lines.iter().any(|found| found.contains(&line)), "{line}: {lines:#?}");
    }
    assert!(lines.last().unwrap().ends_with(&format!("Received answer from {}", address(&kdc))), "{lines:#?}");
    // What the crate says while it goes on is there too.
    assert!(lines.iter().any(|line| line.contains("pre-authenticating") || line.contains("SPAKE")), "{lines:#?}");
    assert!(!lines.concat().contains("Secret"), "{lines:#?}");
    assert_eq!(hole.datagrams(), 3);
    login(&directory, &kdc, &Trace::off(), 60).await.unwrap();
    assert_eq!(hole.datagrams(), 0, "a silent KDC is waited for once");
    assert_eq!(kdc.as_exchanges(), 2);

    // What we wrote is a krb5.conf to MIT's library.
    let cache = format!("FILE:{}", kdc.path("rendered.ccache").display());
    let mut kinit = kdc.command("kinit");
    kinit.env("KRB5_CONFIG", &rendered).env("KRB5CCNAME", &cache).arg("alice").stdin(Stdio::piped());
    let mut kinit = kinit.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    kinit.stdin.take().unwrap().write_all(b"Secret 1\n").unwrap();
    let printed = kinit.wait_with_output().unwrap();
    assert!(printed.status.success(), "{printed:?}\n{}", std::fs::read_to_string(&rendered).unwrap());
    assert!(kdc.klist(&cache, &[]).unwrap().contains(&kdc.principal("alice")));
}

#[tokio::test]
async fn a_kdc_that_comes_back_is_found_again() {
    let mut kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("alice", "Secret 1", &[]).unwrap();
    let directory = directory(declared(&[(&kdc, vec![dead_port(), address(&kdc)])]), None);
    login(&directory, &kdc, &Trace::off(), 60).await.unwrap();

    kdc.kill().unwrap();
    let failed = login(&directory, &kdc, &Trace::off(), 60).await;
    let Err(Failure::Unreachable { attempts, .. }) = &failed else { panic!("{failed:?}") };
    assert!(attempts.iter().all(|attempt| attempt.why.starts_with("connection refused")), "{attempts:#?}");
    assert_eq!(attempts.len(), 2);
    kdc.restart().unwrap();
    login(&directory, &kdc, &Trace::off(), 60).await.unwrap();

    kdc.pause().unwrap();
    let failed = login(&directory, &kdc, &Trace::off(), 4).await;
    kdc.resume().unwrap();
    assert!(matches!(failed, Err(Failure::Unreachable { .. })), "{failed:?}");
    login(&directory, &kdc, &Trace::off(), 60).await.unwrap();
}

#[tokio::test]
async fn a_wrong_password_is_tried_once() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_password("alice", "another one", &[]).unwrap();
    // The same KDC under three names: three chances to try again.
    let directory = directory(declared(&[(&kdc, vec![address(&kdc), format!("localhost:{}", kdc.port())])]), None);
    let trace = Trace::collect();
    let failed = login(&directory, &kdc, &trace, 60).await;
    assert!(
        matches!(&failed, Err(Failure::Kdc(error)) if error.kdc_code() == Some(krb5::client::KDC_ERR_PREAUTH_FAILED)),
        "{failed:?}"
    );
    assert_eq!(kdc.logged(&["AS_REQ", "PREAUTH_FAILED"]), 1, "{}", kdc.log());
    let lines = trace.lines();
    let last = lines.last().unwrap();
    assert!(last.contains("Received error from KDC: -1765328360/Preauthentication failed"), "{lines:#?}");
}

#[tokio::test]
async fn tickets_lead_to_another_realm_past_its_dead_kdc() {
    let (mut first, mut second) = (Kdc::start("CORP.EXAMPLE").unwrap(), Kdc::start("OTHER.EXAMPLE").unwrap());
    first.add_password("alice", "Secret 1", &[]).unwrap();
    second.add_random("HTTP/web.other.example", &[]).unwrap();
    first.trust(&second).unwrap();
    first.restart().unwrap();
    second.restart().unwrap();
    let realms = [(&first, vec![address(&first)]), (&second, vec![dead_port(), address(&second)])];
    let directory = directory(declared(&realms), None);
    let tgt = login(&directory, &first, &Trace::off(), 60).await.unwrap();
    let service = Principal::new(2, ["HTTP", "web.other.example"], second.realm());
    let ticket = async |deadline: u64| {
        let deadline = Instant::now() + Duration::from_secs(deadline);
        let dialogue = |client: AsyncKdcClient| {
            let (tgt, service) = (&tgt, &service);
            async move { client.service_ticket(tgt, service).await }
        };
        directory.with_client(first.realm(), &Trace::off(), deadline, dialogue).await
    };
    assert_eq!(ticket(60).await.unwrap().server.to_string(), second.principal("HTTP/web.other.example"));
    // It is the other realm that is named when its KDCs are gone.
    second.kill().unwrap();
    let failed = ticket(60).await;
    assert!(matches!(&failed, Err(Failure::Unreachable { realm, .. }) if realm == second.realm()), "{failed:?}");
}

#[tokio::test]
async fn what_fails_on_our_side_is_no_reason_to_ask_the_next_kdc() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    let directory = directory(declared(&[(&kdc, vec![address(&kdc), address(&kdc)])]), None);
    let runs = std::sync::atomic::AtomicUsize::new(0);
    let deadline = Instant::now() + Duration::from_secs(60);
    let dialogue = |_client: AsyncKdcClient| {
        runs.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async { Err::<(), _>(ClientError::NoKey("none".to_owned())) }
    };
    let failed = directory.with_client(kdc.realm(), &Trace::off(), deadline, dialogue).await;
    assert!(matches!(failed, Err(Failure::Kdc(ClientError::NoKey(_)))), "{failed:?}");
    assert_eq!(runs.into_inner(), 1);
}

/// Whether MIT's library takes a krb5.conf.
fn mit_takes(path: &Path) -> bool {
    let output = Command::new("klist")
        .env("KRB5_CONFIG", path)
        .env("KRB5CCNAME", "FILE:/nonexistent/cache")
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let refused = said.contains("while initializing krb5");
    assert!(refused || said.contains("No credentials cache found"), "klist says: {said}");
    !refused
}

#[test]
fn mits_library_takes_what_we_take_and_refuses_what_we_say_it_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("krb5.conf");
    let included = folder.path().join("included");
    std::fs::create_dir(&included).unwrap();
    std::fs::write(included.join("a.conf"), "[realms]\n B = {\n  kdc = b\n }\n").unwrap();
    std::fs::write(included.join("b.txt"), "broken").unwrap();
    let includes = format!("includedir {}\n[libdefaults]\n default_realm = B\n", included.display());
    let absent = format!("include {}\n", folder.path().join("absent").display());
    let indented = format!("[libdefaults]\n include {}\n", included.join("a.conf").display());
    for (text, taken) in [
        ("[libdefaults]\n default_realm = A\n[realms]\n A = {\n  kdc = \"SERVER.A\"\n }\n", true),
        ("[realms]\n A =\n {\n  kdc = a\n }\n", true),
        ("[realms]*\n A* = {\n  kdc* = a\n }*\n[realms]\n A = {\n  kdc = b\n }\n", true),
        ("[realms]\n A = {\n  kdc = a\n", true),
        ("ignored = before the first section\n[libdefaults]\n", true),
        ("[unknown]\n a = b\n", true),
        ("", true),
        (&includes, true),
        ("[libdefaults]\n default_realm\n", false),
        ("[libdefaults]\n two words = a\n", false),
        ("[libdefaults]\n default_realm =\n", false),
        ("[libdefaults]\n default_realm =\n rdns = false\n", false),
        ("[libdefaults\n rdns = false\n", false),
        ("[libdefaults] rdns = false\n", false),
        ("[realms]\n A = {\n  kdc = a\n[libdefaults]\n", false),
        ("[realms]\n }\n", false),
        (&absent, false),
        (&indented, false),
    ] {
        std::fs::write(&path, text).unwrap();
        let ours = Configuration::load(&Source::File(path.clone()));
        assert_eq!(ours.is_ok(), taken, "{text:?}: {ours:?}");
        // An empty value at the very end is the one thing that only we mind.
        let lenient = text == "[libdefaults]\n default_realm =\n";
        assert_eq!(mit_takes(&path), taken || lenient, "{text:?}");
        if let Ok(ours) = ours {
            std::fs::write(&path, ours.text()).unwrap();
            assert!(mit_takes(&path), "{}", ours.text());
        }
    }
}

/// Said to the copy of this test that runs among mounts of its own.
const MOUNTED: &str = "LICTOR_TEST_MOUNTED_FILE";

/// As a Kubernetes volume with `subPath` is mounted.
#[test]
fn a_file_that_is_mounted_by_itself_is_warned_of() {
    let warned = |path: &Path| {
        let configuration = Configuration::load(&Source::File(path.to_path_buf())).unwrap();
        configuration.warnings().iter().any(|warning| warning.text.contains("subPath"))
    };
    if let Some(path) = std::env::var_os(MOUNTED) {
        assert!(warned(Path::new(&path)));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let [from, to] = ["from", "krb5.conf"].map(|name| folder.path().join(name));
    for path in [&from, &to] {
        std::fs::write(path, "[libdefaults]\n default_realm = A\n").unwrap();
    }
    assert!(!warned(&to));
    let root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0;
    let output = Command::new("unshare")
        .args(if root { &["--mount"][..] } else { &["--mount", "--map-root-user"] })
        .args(["sh", "-c", r#"mount --bind "$1" "$2" && exec "$0" --exact --nocapture "$3""#])
        .args([std::env::current_exe().unwrap(), from, to.clone()])
        .arg("kdcs::a_file_that_is_mounted_by_itself_is_warned_of")
        .env(MOUNTED, &to)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}
