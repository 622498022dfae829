//! Start scripts of Harness delegates, which are read to see what replaces them.

use std::path::Path;

use lictor_agent::migrate::{MAX_SCRIPT, Report, migrate};
use lictor_kerberos::config::Configuration;

/// A script, and the same bytes as a password in one.
///
/// - Any bytes are read to their end, and what is said of them is bounded and names lines that are there.
/// - A `krb5.conf` that is to be mounted can be read.
/// - A password has no influence on what is said, so that nothing that is said can tell anything of it.
pub fn init_script(data: &[u8]) {
    if let Ok(report) = migrate(data) {
        bounded(&report);
        if let Some(text) = &report.krb5_conf {
            assert!(Configuration::parse(text, Path::new("krb5.conf")).is_ok(), "{text}");
        }
    } else {
        assert!(data.len() > MAX_SCRIPT);
    }
    password(&String::from_utf8_lossy(data));
}

fn bounded(report: &Report) {
    let lines = report.lines.max(1);
    let places = report.remaining.iter().map(|remaining| remaining.lines);
    let places = places.chain(report.unneeded.iter().map(|unneeded| unneeded.lines));
    let places = places.chain(report.host_aliases.iter().map(|alias| alias.lines));
    let mut count = 0;
    for (first, last) in places.chain(report.credentials.iter().map(|credential| credential.lines)) {
        assert!(1 <= first && first <= last && last <= lines, "lines {first} to {last} of {lines}");
        count += 1;
    }
    assert!(count <= 4 * 502 && report.remarks.len() <= 1100);
}

fn password(text: &str) {
    // One line, as a password is; quoted as bash wants it.
    let word: String = text.chars().filter(|c| !c.is_control()).take(500).collect();
    if word.is_empty() {
        return;
    }
    let quoted = word.replace('\'', r"'\''");
    for (before, after) in [
        ("echo ", " | kinit alice@CORP.EXAMPLE\nklist\n"),
        ("kinit alice@CORP.EXAMPLE <<< ", "\n"),
        ("P=", "\necho \"$P\" | kinit alice\n"),
    ] {
        let [given, other] =
            [quoted.as_str(), "x"].map(|password| match migrate(format!("{before}'{password}'{after}").as_bytes()) {
                Ok(report) => report,
                Err(error) => panic!("{error}"),
            });
        assert_eq!(given, other);
        assert_eq!(given.credentials.len(), 1);
    }
}
