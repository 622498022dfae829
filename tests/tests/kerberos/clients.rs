//! Clients that others wrote, with MIT's library, against simulated Windows hosts that take Kerberos: pywinrm, pypsrp, and the
//! library itself by `kerberos_check.py`. What they accept of a simulated host, Lictor must accept too.
//!
//! They need the interpreter that `LICTOR_PEERS_PYTHON` names, with `tests/peers/winrm-clients/requirements.txt` installed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lictor_tests::{Certificates, Kdc, KdcOptions};
use winsim::{ChannelBindings, Handle, Kerberos, Numbering, Options, Scheme, Statistics, Tls, Winsim};

const PASSWORD: &str = "Secret 1";

/// A realm with alice, and with the host `localhost` under the names that clients ask for.
struct World {
    kdc: Kdc,
    python: PathBuf,
}

/// One run of a script.
struct Run<'a> {
    script: &'a str,
    auth: &'a str,
    arguments: &'a [&'a str],
    options: Options,
}

impl World {
    /// `None` when the interpreter is not there and need not be.
    fn new(options: KdcOptions) -> Option<Self> {
        let Some(python) = std::env::var_os("LICTOR_PEERS_PYTHON").map(PathBuf::from) else {
            let required = std::env::var("LICTOR_PEERS").is_ok_and(|value| value == "required");
            assert!(
                !required,
                "LICTOR_PEERS is required, but LICTOR_PEERS_PYTHON names no interpreter with the clients"
            );
            return None;
        };
        let kdc = Kdc::start_with("CORP.EXAMPLE", options).unwrap();
        kdc.add_password("alice", PASSWORD, &[]).unwrap();
        kdc.add_random("HTTP/localhost", &["+ok_as_delegate"]).unwrap();
        kdc.add_random("host/localhost", &["+ok_as_delegate"]).unwrap();
        kdc.keytab(&["HTTP/localhost", "host/localhost"], &kdc.path("host.keytab")).unwrap();
        Some(Self { kdc, python })
    }

    /// A host that takes the tickets of everybody in the realm.
    fn host(&self) -> Options {
        let logons = vec![format!("*@{}=CORP\\*", self.kdc.realm()).parse().unwrap()];
        let kerberos = Kerberos { keytab: self.kdc.path("host.keytab"), logons, numbering: Numbering::default() };
        Options { kerberos: Some(kerberos), schemes: vec![Scheme::Negotiate, Scheme::Kerberos], ..Options::default() }
    }

    /// The same on TLS; it insists on channel bindings.
    fn secure_host(&self) -> Options {
        let certificates = Certificates::create(self.kdc.path("").as_path()).unwrap();
        let read = |file: &Path| std::fs::read(file).unwrap();
        let tls = Some(Tls { certificate: read(&certificates.certificate), key: read(&certificates.key) });
        Options { tls, channel_bindings: ChannelBindings::Strict, ..self.host() }
    }

    /// Gets alice a ticket and runs a script against a host. What the script finds wrong fails the test.
    async fn judge(&self, run: Run<'_>) -> Statistics {
        let (succeeded, printed, statistics) = self.run(run).await;
        assert!(succeeded, "{printed}\n{statistics:?}");
        assert_eq!(statistics.shells.open, 0);
        statistics
    }

    async fn run(&self, run: Run<'_>) -> (bool, String, Statistics) {
        let cache = format!("FILE:{}", self.kdc.path("alice.ccache").display());
        self.kdc.kinit(&self.kdc.principal("alice"), PASSWORD, &cache, &["-f"]).unwrap();
        let https = run.options.tls.is_some();
        let host: Handle = Winsim::start(run.options).await.unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/winrm-clients");
        let mut command = tokio::process::Command::new(&self.python);
        command
            .current_dir(folder)
            .arg(run.script)
            .args(["--host", "localhost", "--port", &host.address().port().to_string(), "--auth", run.auth])
            .args(["--user", &self.kdc.principal("alice"), "--scheme", if https { "https" } else { "http" }])
            .args(run.arguments)
            // Nobody knows a wrong password from the ticket that lies in the cache.
            .args(["--skip", "wrong_password"])
            .env("KRB5_CONFIG", self.kdc.krb5_conf())
            .env("KRB5CCNAME", cache)
            .env("KRB5RCACHENAME", "none:")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("NO_PROXY", "*")
            .env_remove("LICTOR_PEER_PASSWORD")
            .kill_on_drop(true);
        if https {
            command.arg("--ca").arg(self.kdc.path("ca.pem"));
        }
        let output = tokio::time::timeout(Duration::from_secs(240), command.output()).await.unwrap().unwrap();
        let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let statistics = host.statistics();
        host.stop().await;
        (output.status.success(), printed, statistics)
    }
}

fn checked(statistics: &Statistics, sealed: bool) {
    assert_eq!(statistics.violations, Vec::<String>::new(), "what these clients send is accepted by Windows");
    // pywinrm sends its first token before it has seen the certificate, and another one when that is refused.
    let unbound = "(wrong or no channel bindings)";
    let others: Vec<_> = statistics.authentication.failed_logons.keys().filter(|name| *name != unbound).collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(statistics.authentication.kerberos > 0);
    assert_eq!(statistics.authentication.kerberos, statistics.authentication.handshakes);
    for exchange in statistics.exchanges.iter().filter(|exchange| exchange.operation != "Authenticate") {
        assert_eq!((exchange.sealed, exchange.user.as_deref()), (sealed, Some("CORP\\alice")), "{exchange:?}");
    }
}

/// pywinrm sends its Kerberos token raw in `Negotiate` and insists on mutual authentication.
#[tokio::test]
async fn pywinrm_drives_a_host_with_kerberos() {
    let Some(world) = World::new(KdcOptions::default()) else { return };
    let run = |options, arguments| Run { script: "pywinrm_check.py", auth: "kerberos", arguments, options };
    let statistics = world.judge(run(world.host(), &["--delegate"])).await;
    checked(&statistics, true);
    assert_eq!(statistics.authentication.delegated, statistics.authentication.kerberos);
    checked(&world.judge(run(world.secure_host(), &[])).await, false);
    let statistics = world.judge(run(world.secure_host(), &["--encryption", "always"])).await;
    checked(&statistics, true);
    assert_eq!(statistics.authentication.delegated, 0);
}

#[tokio::test]
async fn pypsrp_drives_a_host_with_kerberos() {
    let Some(world) = World::new(KdcOptions::default()) else { return };
    let run = |auth, options, arguments| Run { script: "pypsrp_check.py", auth, arguments, options };
    checked(&world.judge(run("kerberos", world.host(), &[])).await, true);
    let statistics = world.judge(run("negotiate", world.host(), &["--delegate"])).await;
    checked(&statistics, true);
    assert_eq!(statistics.authentication.delegated, statistics.authentication.kerberos);
    // Only the raw scheme: other media types.
    let kerberos_alone = Options { schemes: vec![Scheme::Kerberos], ..world.host() };
    checked(&world.judge(run("kerberos", kerberos_alone, &[])).await, true);
    checked(&world.judge(run("negotiate", world.secure_host(), &["--encryption", "always"])).await, true);
}

/// AES with SHA-2: longer headers.
#[tokio::test]
async fn clients_seal_with_every_encryption_type() {
    for enctype in ["aes128-cts-hmac-sha1-96", "aes128-cts-hmac-sha256-128", "aes256-cts-hmac-sha384-192"] {
        let options = KdcOptions {
            enctypes: format!("{enctype}:normal"),
            libdefaults: vec![format!("permitted_enctypes = {enctype}")],
            ..KdcOptions::default()
        };
        let Some(world) = World::new(options) else { return };
        let slow = ["--skip", "longer_than_operation_timeout"];
        for script in ["pywinrm_check.py", "pypsrp_check.py"] {
            let run = Run { script, auth: "kerberos", arguments: &slow, options: world.host() };
            checked(&world.judge(run).await, true);
        }
    }
}

/// pypsrp looks at the numbers of what it receives, so it would not get on with a host that sends 0 all the time. pywinrm would.
#[tokio::test]
async fn pypsrp_insists_on_counted_messages() {
    let Some(world) = World::new(KdcOptions::default()) else { return };
    let zero = |script| {
        let mut options = world.host();
        options.kerberos.as_mut().unwrap().numbering = Numbering::Zero;
        Run { script, auth: "kerberos", arguments: &["--skip", "longer_than_operation_timeout"], options }
    };
    world.judge(zero("pywinrm_check.py")).await;
    let (succeeded, printed, _) = world.run(zero("pypsrp_check.py")).await;
    assert!(!succeeded && printed.contains("duplicate of an earlier token"), "{printed}");
}

/// The checks of `kerberos_check.py`: those that any host stands, and those that want a host in a certain state.
const ALWAYS: [&str; 6] = [
    "both_schemes",
    "protocol_of_the_other_scheme",
    "no_mutual_authentication",
    "sealed_messages_are_counted",
    "replay",
    "kerberos_as_second_choice",
];
const SOMETIMES: [&str; 3] =
    ["the_error_of_a_ticket_for_other_keys", "the_error_of_a_wrong_clock", "a_good_ticket_without_rights"];

/// The arguments that leave out all checks but these.
fn only<'a>(checks: &[&str]) -> Vec<&'a str> {
    let others = ALWAYS.into_iter().chain(SOMETIMES).filter(|check| !checks.contains(check));
    others.flat_map(|check| ["--skip", check]).collect()
}

/// Schemes and media types, mutual authentication or none, replays, numbers, mechListMIC.
#[tokio::test]
async fn the_library_itself_finds_nothing_wrong() {
    let Some(world) = World::new(KdcOptions::default()) else { return };
    let arguments = only(&ALWAYS);
    let run = Run { script: "kerberos_check.py", auth: "kerberos", arguments: &arguments, options: world.host() };
    let statistics = world.judge(run).await;
    let refused = &statistics.authentication.refused_tickets;
    assert_eq!(refused.iter().collect::<Vec<_>>(), [(&"KRB_AP_ERR_REPEAT".to_owned(), &1)]);
}

/// A host whose keys are not those of the KDC, and one that does not know whose the ticket is.
#[tokio::test]
async fn refusals_are_told_as_windows_tells_them() {
    let Some(world) = World::new(KdcOptions::default()) else { return };
    let mut options = world.host();
    options.kerberos.as_mut().unwrap().logons = vec!["bob@OTHER.EXAMPLE".parse().unwrap()];
    let arguments = only(&["a_good_ticket_without_rights"]);
    let run = Run { script: "kerberos_check.py", auth: "kerberos", arguments: &arguments, options };
    let statistics = world.judge(run).await;
    assert_eq!(statistics.authentication.failed_logons.get(&world.kdc.principal("alice")), Some(&2));
    assert_eq!(statistics.authentication.kerberos, 0);

    world.kdc.change_keys("HTTP/localhost", false).unwrap();
    let arguments = only(&["the_error_of_a_ticket_for_other_keys"]);
    let run = Run { script: "kerberos_check.py", auth: "kerberos", arguments: &arguments, options: world.host() };
    let statistics = world.judge(run).await;
    assert_eq!(statistics.authentication.refused_tickets.get("KRB_AP_ERR_MODIFIED"), Some(&2));

    // The keytab is told of the new keys: nobody has to start the host again.
    world.kdc.keytab(&["HTTP/localhost"], &world.kdc.path("host.keytab")).unwrap();
    let arguments = only(&["both_schemes"]);
    let run = Run { script: "kerberos_check.py", auth: "kerberos", arguments: &arguments, options: world.host() };
    assert_eq!(world.judge(run).await.authentication.kerberos, 3);
}

/// The ticket is good, the time that the client puts beside it is not.
#[tokio::test]
async fn a_wrong_clock_is_told() {
    let Some(world) = World::new(KdcOptions { clock_offset: -3600, ..KdcOptions::default() }) else { return };
    let arguments = only(&["the_error_of_a_wrong_clock"]);
    let run = Run { script: "kerberos_check.py", auth: "kerberos", arguments: &arguments, options: world.host() };
    let statistics = world.judge(run).await;
    assert_eq!(statistics.authentication.refused_tickets.get("KRB_AP_ERR_SKEW"), Some(&2));
}
