//! Judges by other hands: curl and OpenSSL's command line say the same about a host as the doctor does, and a TLS server that is not
//! ours is looked at.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use lictor_doctor::{Check, Outcome};
use lictor_tests::Output;
use lictor_winrm::probe::survey::{TlsVersion, versions};
use lictor_winrm::target::Scheme;
use tokio::time::Instant;
use winsim::{Options, Tls};

use crate::certificates::{Authority, Leaf, rsa};
use crate::hosts::{detail, found, hasty, host, look, message, options, target};

async fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let done = tokio::task::spawn_blocking(move || Output::of(&mut command, std::time::Duration::from_secs(30)));
    let output = done.await.unwrap().unwrap();
    output.text() + &output.stderr
}

/// The answer that a real host gave to `curl -I`, but for its date.
#[tokio::test]
async fn curl_sees_the_answer_of_http_sys() {
    let windows = host(options()).await;
    let said = run("curl", &["-sS", "-I", "--max-time", "20", &format!("http://{}", windows.address())]).await;
    let mut lines: Vec<&str> = said.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    let date = lines.iter().position(|line| line.starts_with("Date: ")).expect("a date");
    lines.remove(date);
    assert_eq!(
        lines,
        [
            "Connection: close",
            "Content-Length: 315",
            "Content-Type: text/html; charset=us-ascii",
            "HTTP/1.1 404 Not Found",
            "Server: Microsoft-HTTPAPI/2.0",
        ]
    );
    let body = run("curl", &["-sS", "--max-time", "20", &format!("http://{}", windows.address())]).await;
    assert_eq!(body.len(), 315);
    windows.stop().await;
}

/// Whether OpenSSL's client gets through with one version.
async fn openssl_takes(address: SocketAddr, version: TlsVersion) -> bool {
    let flag = match version {
        TlsVersion::Tls1_0 => "-tls1",
        TlsVersion::Tls1_1 => "-tls1_1",
        TlsVersion::Tls1_2 => "-tls1_2",
        TlsVersion::Tls1_3 => "-tls1_3",
    };
    let address = address.to_string();
    let said = run("openssl", &["s_client", "-connect", &address, flag, "-cipher", "ALL:@SECLEVEL=0"]).await;
    assert!(said.contains("CONNECTED"), "{said}");
    !said.contains("Cipher is (NONE)")
}

#[tokio::test]
async fn openssl_agrees_about_versions_and_the_certificate() {
    let authority = Authority::new("Corp CA");
    let leaf = || Leaf { key: rsa(2048), ..authority.host() }.tls();
    use winsim::TlsVersion::{Tls1_0, Tls1_1, Tls1_2, Tls1_3};
    for tls_versions in [(Tls1_0, Tls1_0), (Tls1_1, Tls1_2), (Tls1_2, Tls1_3), (Tls1_3, Tls1_3)] {
        let windows = host(Options { tls: Some(leaf()), tls_versions, ..options() }).await;
        let mut target = target(Scheme::Https, windows.address());
        target.tls.ca_pem = Some(authority.pem());
        let by = Instant::now() + std::time::Duration::from_secs(30);
        let found = versions(&target.endpoint, windows.address(), by).await;
        for version in [TlsVersion::Tls1_0, TlsVersion::Tls1_1, TlsVersion::Tls1_2, TlsVersion::Tls1_3] {
            let theirs = openssl_takes(windows.address(), version).await;
            assert_eq!(found.takes(version), theirs, "{tls_versions:?} {version} {found:?}");
        }
        assert!(found.unknown.is_empty(), "{found:?}");
        windows.stop().await;
    }
    let windows = host(Options { tls: Some(leaf()), ..options() }).await;
    let mut target = target(Scheme::Https, windows.address());
    target.tls.ca_pem = Some(authority.pem());
    let report = look(&target).await;
    let ours = detail(&report, Check::Certificate);
    let directory = tempfile::tempdir().unwrap();
    let shown = run("openssl", &["s_client", "-connect", &windows.address().to_string(), "-showcerts"]).await;
    let pem = directory.path().join("shown.pem");
    std::fs::write(&pem, &shown).unwrap();
    let wanted = ["-subject", "-issuer", "-dates", "-ext", "subjectAltName", "-nameopt", "RFC2253"];
    let facts = run("openssl", &[&["x509", "-in", pem.to_str().unwrap(), "-noout"], &wanted[..]].concat()).await;
    let fact = |name: &str| facts.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{facts}"));
    let names: Vec<&str> = facts
        .lines()
        .find(|line| line.contains("IP Address:"))
        .unwrap()
        .split(", ")
        .map(|name| name.rsplit_once(':').unwrap().1.trim())
        .collect();
    let theirs = format!(
        "{}, issued by {}; for {}; {} to {}; RSA 2048, ",
        fact("subject="),
        fact("issuer="),
        names.join(", "),
        fact("notBefore="),
        fact("notAfter=")
    );
    assert!(ours.starts_with(&theirs), "{ours}\n{theirs}");
    windows.stop().await;
}

/// `openssl s_server`, until it is dropped.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(directory: &Path, tls: &Tls, flags: &[&str]) -> Self {
        let file = directory.join("server.pem");
        let mut pem = std::fs::File::create(&file).unwrap();
        pem.write_all(&tls.certificate).unwrap();
        pem.write_all(&tls.key).unwrap();
        let mut process = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-www", "-cert"])
            .arg(&file)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let told = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = told
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("ACCEPT ").and_then(|address| address.parse().ok()))
            .unwrap();
        Self { process, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_foreign_server_with_tls_1_0_only_is_too_old_and_one_with_weak_keys_is_weak() {
    let authority = Authority::new("Corp CA");
    let directory = tempfile::tempdir().unwrap();
    let ciphers = ["-cipher", "ALL:@SECLEVEL=0"];
    let server = |tls: &Tls, flags: &[&str]| Server::start(directory.path(), tls, &[&ciphers[..], flags].concat());
    let good = Leaf { key: rsa(2048), ..authority.host() }.tls();
    let peer = server(&good, &["-tls1"]);
    let mut old = hasty(target(Scheme::Https, peer.address));
    old.tls.ca_pem = Some(authority.pem());
    let report = look(&old).await;
    assert_eq!(found(&report, Check::Tls), (Outcome::Failed, "tls.too_old"), "{:#?}", report.steps);
    assert!(message(&report, Check::Tls).starts_with("the host takes TLS 1.0 ("), "{}", message(&report, Check::Tls));
    assert_eq!(found(&report, Check::Certificate), (Outcome::Passed, ""), "{:#?}", report.steps);
    // It is a web server, and no Windows host.
    assert_eq!(found(&report, Check::Http), (Outcome::Warning, "http.other_server"));
    drop(peer);
    let peer = server(&Leaf { key: rsa(1024), ..authority.host() }.tls(), &["-tls1_2"]);
    let mut weak = hasty(target(Scheme::Https, peer.address));
    weak.tls.ca_pem = Some(authority.pem());
    let report = look(&weak).await;
    assert_eq!(found(&report, Check::Tls), (Outcome::Passed, ""), "{:#?}", report.steps);
    assert_eq!(found(&report, Check::Certificate), (Outcome::Failed, "certificate.weak_key"), "{:#?}", report.steps);
}
