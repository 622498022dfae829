//! What the bootstrap script exported: read from what it left, and sorted by where it may go.
//!
//! What the pod's own environment says stays as it is, but for `PATH`. Nothing that holds a secret becomes part of an
//! environment. Pure. Called by `stage`.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::sync::Arc;

use lictor_winrm::mask::Patterns;

use super::source::{PROXIES, has, is_secret, is_source, without_user};
use super::words::{holds_password, is_telling};
use crate::config::{JOIN_TOKEN_VARIABLES, foreign_name};

/// What the script left, as its traps wrote it: `NAME=value`, and `=name=value` about itself, each ended by a zero
/// byte.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Its process.
    pub(super) pid: Option<i32>,
    /// Commands that failed.
    pub(super) failed: u64,
    /// The line of the first.
    pub(super) first: Option<u64>,
    /// The signal that ended it.
    pub(super) signal: Option<i32>,
    /// Its end was reached, so that what it exported is complete.
    pub(super) complete: bool,
    variables: Vec<(OsString, OsString)>,
}

impl Report {
    /// Takes it apart. What makes no sense is passed over.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut report = Self::default();
        // What is not ended was cut.
        let whole = bytes.iter().rposition(|byte| *byte == 0).and_then(|end| bytes.get(..end)).unwrap_or_default();
        for entry in whole.split(|byte| *byte == 0) {
            if let Some(fact) = entry.strip_prefix(b"=") {
                let fact = std::str::from_utf8(fact).unwrap_or_default();
                let (name, value) = fact.split_once('=').unwrap_or_default();
                match name {
                    "pid" => report.pid = report.pid.or(value.parse().ok().filter(|pid| *pid > 1)),
                    "failed" => report.failed = value.parse().unwrap_or(0),
                    "first" => report.first = report.first.or(value.parse().ok()),
                    "signal" => report.signal = value.parse().ok(),
                    "end" => report.complete = true,
                    _ => {}
                }
                continue;
            }
            let Some(at) = entry.iter().position(|byte| *byte == b'=') else { continue };
            let (name, value) = (entry.get(..at).unwrap_or_default(), entry.get(at + 1..).unwrap_or_default());
            if is_name(name) && report.variables.len() < MAX_VARIABLES {
                report.variables.push((OsString::from_vec(name.to_vec()), OsString::from_vec(value.to_vec())));
            }
        }
        report
    }
}

fn is_name(name: &[u8]) -> bool {
    name.first().is_some_and(|first| first.is_ascii_alphabetic() || *first == b'_')
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// What the script exported, sorted.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    /// The environment of what follows.
    pub(super) environment: Vec<(OsString, OsString)>,
    /// Settings and join tokens, which count where nothing else sets them.
    pub(super) beneath: Vec<(String, String)>,
    /// Other secret variables that the pod does not have.
    pub(super) secrets: Vec<(String, String)>,
    /// Names that the pod's own environment has otherwise.
    pub(super) kept: Vec<String>,
    /// Names whose values are secret, too long, or not for this program.
    pub(super) withheld: Vec<String>,
}

/// Sorts what was exported over the pod's environment, less `served`: variables that only served the script as
/// passwords.
pub(super) fn sort(
    report: &Report,
    pod: &[(OsString, OsString)],
    pod_secrets: &[(String, String)],
    served: &BTreeSet<String>,
    patterns: &Arc<Patterns>,
) -> Sorted {
    let mut sorted = Sorted::default();
    let unserved = |name: &OsStr| name.to_str().is_none_or(|name| !served.contains(name));
    sorted.environment = pod.iter().filter(|(name, _)| unserved(name)).cloned().collect();
    let mut room = MAX_BYTES;
    // What was said last counts.
    let mut seen = BTreeSet::new();
    for (name, value) in report.variables.iter().rev() {
        let Some(text) = name.to_str() else { continue };
        if !seen.insert(text) || SHELL.contains(&text) || text.starts_with("BASH") || is_source(text) {
            continue;
        }
        let own = pod.iter().find(|(known, _)| known == name);
        if own.is_some_and(|(_, known)| known == value) || served.contains(text) {
            continue;
        }
        // The same by another name counts as the pod's, too.
        let one = foreign_name(text);
        let same = |known: &str| known == text || (one.is_some() && foreign_name(known) == one);
        let in_pod = pod.iter().any(|(known, _)| known.to_str().is_some_and(same));
        if is_secret(text) {
            let ours = text.starts_with("LICTOR_AGENT_") || JOIN_TOKEN_VARIABLES.contains(&text);
            match value.to_str() {
                // The loader knows what goes before it.
                Some(value) if ours => sorted.beneath.push((text.to_owned(), value.to_owned())),
                Some(value) if !pod_secrets.iter().any(|(known, _)| same(known)) => {
                    sorted.secrets.push((text.to_owned(), value.to_owned()));
                }
                _ => {}
            }
            continue;
        }
        let shown = String::from_utf8_lossy(value.as_bytes());
        if PROXIES.contains(&text)
            && one.is_some()
            && let Some(bare) = without_user(&shown).filter(|_| value.len() <= MAX_VALUE)
        {
            if in_pod {
                sorted.kept.push(text.to_owned());
            } else {
                sorted.environment.push((name.clone(), bare.into()));
                sorted.secrets.push((text.to_owned(), shown.into_owned()));
            }
            continue;
        }
        let long = value.len() > MAX_VALUE || value.len() > room;
        let secret = is_telling(text) || holds_password(&shown) || patterns.masked(&shown) != shown;
        if long || text.starts_with("LD_") || secret {
            sorted.withheld.push(text.to_owned());
            continue;
        }
        // Every container has a PATH, and a script that installs programs makes it longer.
        if in_pod && text != "PATH" {
            sorted.kept.push(text.to_owned());
            continue;
        }
        room -= value.len();
        match value.to_str() {
            Some(setting) if text.starts_with("LICTOR_AGENT_") => {
                sorted.beneath.push((text.to_owned(), setting.to_owned()));
            }
            _ => {
                if has(&sorted.environment, name) {
                    sorted.environment.retain(|(known, _)| known != name);
                }
                sorted.environment.push((name.clone(), value.clone()));
            }
        }
    }
    sorted.kept.sort();
    sorted.withheld.sort();
    sorted
}

/// What every shell sets for itself.
const SHELL: &[&str] = &["_", "PWD", "OLDPWD", "SHLVL", "IFS", "PPID", "UID", "EUID", "LINENO", "OPTIND", "PS4"];
const MAX_VARIABLES: usize = 2000;
/// The kernel takes 128 KiB in one variable, and some 2 MiB in all.
const MAX_VALUE: usize = 64 * 1024;
const MAX_BYTES: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn a_report_is_taken_apart() {
        let report = Report::parse(b"=pid=42\0=first=3\0A=1\nx\0B-C=2\0=failed=2\0A=2\0=end=\0cut=of");
        assert_eq!((report.pid, report.failed, report.first, report.complete), (Some(42), 2, Some(3), true));
        assert_eq!(report.variables, pairs(&[("A", "1\nx"), ("A", "2")]));
        for nonsense in [&b""[..], b"\0", b"=", b"=pid=x\0=\0", b"no end"] {
            assert_eq!(Report::parse(nonsense), Report::default());
        }
    }

    #[test]
    fn the_pods_own_environment_wins_but_for_the_path() {
        let report = Report::parse(
            b"PATH=/opt:/bin\0TZ=UTC\0KRB5_CONFIG=/k\0KRB5CCNAME=/c\0LICTOR_AGENT_SLOTS=4\0PWD=/\0LD_PRELOAD=/x\0\
              LICTOR_AGENT_JOIN_TOKEN=t\0AD_PASSWORD=p\0NOTE=the Mark3r\0INIT_SCRIPT=x\0",
        );
        let pod = pairs(&[("PATH", "/bin"), ("TZ", "CET"), ("LOGIN", "Mark3r")]);
        let patterns = Arc::new(Patterns::new(["Mark3r"]));
        let sorted = sort(&report, &pod, &[], &BTreeSet::from(["LOGIN".to_owned()]), &patterns);
        let mut environment = sorted.environment;
        environment.sort();
        assert_eq!(
            environment,
            pairs(&[("KRB5CCNAME", "/c"), ("KRB5_CONFIG", "/k"), ("PATH", "/opt:/bin"), ("TZ", "CET")])
        );
        let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(sorted.beneath, [own("LICTOR_AGENT_JOIN_TOKEN", "t"), own("LICTOR_AGENT_SLOTS", "4")]);
        assert_eq!(sorted.secrets, []);
        assert_eq!(sorted.kept, ["TZ"]);
        assert_eq!(sorted.withheld, ["AD_PASSWORD", "LD_PRELOAD", "NOTE"]);
    }

    #[test]
    fn no_url_with_a_password_comes_to_be_in_the_environment() {
        let report = Report::parse(
            b"HTTPS_PROXY=http://svc:Mark3r@proxy:3128/\0http_proxy=http://svc:Mark3r@proxy\0\
              REPOSITORY=see https://svc:Mark3r@host/x and more\0PLAIN=https://host/a@b\0",
        );
        let sorted = sort(&report, &[], &[], &BTreeSet::new(), &Arc::new(Patterns::new([])));
        let mut environment = sorted.environment;
        environment.sort();
        assert_eq!(
            environment,
            pairs(&[
                ("HTTPS_PROXY", "http://proxy:3128/"),
                ("PLAIN", "https://host/a@b"),
                ("http_proxy", "http://proxy")
            ])
        );
        let names: Vec<&str> = sorted.secrets.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["http_proxy", "HTTPS_PROXY"]);
        assert!(sorted.secrets.iter().all(|(_, url)| url.contains("svc:Mark3r@")), "the agent itself gets it whole");
        assert_eq!(sorted.withheld, ["REPOSITORY"]);
    }

    #[test]
    fn the_pod_wins_under_another_name_too() {
        let report = Report::parse(
            b"https_proxy=http://other:1\0HTTPS_PROXY=http://a:b@other:1\0DELEGATE_NAME=other\0DELEGATE_TAGS=new\0\
              PROXY_PASSWORD=other\0",
        );
        let pod = pairs(&[("HTTPS_PROXY", "http://proxy:1"), ("HARNESS_DELEGATE_NAME", "mine")]);
        let secrets = [("PROXY_PASSWORD".to_owned(), "mine".to_owned())];
        let sorted = sort(&report, &pod, &secrets, &BTreeSet::new(), &Arc::new(Patterns::new([])));
        assert_eq!(sorted.kept, ["DELEGATE_NAME", "HTTPS_PROXY", "https_proxy"]);
        assert_eq!(sorted.secrets, []);
        assert_eq!(sorted.environment, [pod, pairs(&[("DELEGATE_TAGS", "new")])].concat());
    }

    #[test]
    fn too_much_is_withheld() {
        let long = format!("LONG={}\0SHORT=1\0", "x".repeat(MAX_VALUE + 1));
        let sorted = sort(&Report::parse(long.as_bytes()), &[], &[], &BTreeSet::new(), &Arc::new(Patterns::new([])));
        assert_eq!((sorted.environment, sorted.withheld), (pairs(&[("SHORT", "1")]), vec!["LONG".to_owned()]));
    }

    proptest::proptest! {
        #[test]
        fn no_report_makes_it_panic(bytes in proptest::collection::vec(proptest::sample::select(b"=\0pidABC19\xff".to_vec()), 0..200)) {
            let report = Report::parse(&bytes);
            sort(&report, &[], &[], &BTreeSet::new(), &Arc::new(Patterns::new(["A1"])));
        }
    }
}
