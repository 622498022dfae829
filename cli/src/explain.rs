//! `lictor explain`: what a code means, and which codes stand behind a text that people know from elsewhere.
//!
//! Everything comes from docs/errors.md, which is compiled in; it says what the crates say, and a test of theirs holds it to
//! that. Nothing is asked of anybody.

mod page;
mod search;

use std::fmt::Write as _;

use serde::Serialize;

use self::page::Entry;
use crate::args::{ExplainArgs, Output};
use crate::console;
use crate::exit::Exit;
use crate::failure::Failure;

const PAGE: &str = include_str!("../../docs/errors.md");

/// Most entries of one answer that are printed with their causes.
const MOST: usize = 10;

pub(crate) fn run(args: &ExplainArgs, output: Output) -> Result<Exit, Failure> {
    let entries = page::parse(PAGE);
    let text = args.text.join(" ");
    if text.trim().is_empty() {
        return list(&entries, output);
    }
    let found = search::find(&entries, &text);
    if found.is_empty() {
        return Err(Failure::usage(
            "no code and no text that is known is like this",
            "Give a code such as tls.expired, or the words that were printed; `lictor explain` alone lists all codes. Those of the command \
             line itself (usage.*, local.*, run.timeout, keytab.*) are not among them: they say all there is to know where they are told.",
        ));
    }
    match output {
        Output::Json => console::print_json(&Answer { errors: found })?,
        Output::Text => console::print(&told(&found))?,
    }
    Ok(Exit::SUCCESS)
}

#[derive(Serialize)]
struct Answer<'a> {
    errors: Vec<&'a Entry>,
}

fn list(entries: &[Entry], output: Output) -> Result<Exit, Failure> {
    match output {
        Output::Json => console::print_json(&Answer { errors: entries.iter().collect() })?,
        Output::Text => {
            let row = |entry: &Entry| {
                let first = entry.causes.first();
                let said = first.map(|cause| if cause.message.is_empty() { &cause.cause } else { &cause.message });
                vec![entry.code.clone(), entry.stage.clone(), said.cloned().unwrap_or_default()]
            };
            console::print(&console::table(&["code", "stage", "for example"], entries.iter().map(row)))?;
        }
    }
    Ok(Exit::SUCCESS)
}

fn told(found: &[&Entry]) -> String {
    let mut text = String::new();
    for (index, entry) in found.iter().take(MOST).enumerate() {
        if index > 0 {
            text.push('\n');
        }
        one(entry, &mut text);
    }
    if found.len() > MOST {
        let rest: Vec<&str> = found.iter().skip(MOST).map(|entry| entry.code.as_str()).collect();
        let _ = write!(text, "\nAlso: {}\n", rest.join(", "));
    }
    text
}

fn one(entry: &Entry, text: &mut String) {
    let _ = writeln!(text, "{} (stage {})", entry.code, entry.stage);
    for cause in &entry.causes {
        if !cause.message.is_empty() {
            let _ = writeln!(text, "  for example: {}", cause.message);
        }
        let _ = writeln!(text, "  cause:       {}", cause.cause);
        if let Some(remedy) = &cause.remedy {
            let _ = writeln!(text, "  remedy:      {remedy}");
        }
        if let Some(known) = &cause.legacy_text {
            let _ = writeln!(text, "  known as:    {known}");
        }
    }
    for known in &entry.also_known_as {
        let _ = writeln!(text, "  known as:    {known}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        search::find(&page::parse(PAGE), text).into_iter().map(|entry| entry.code.clone()).collect()
    }

    #[test]
    fn every_code_of_the_crates_is_explained_in_their_words() {
        let entries = page::parse(PAGE);
        for error in lictor_winrm::error::catalogue() {
            let code = error.code();
            let entry = entries.iter().find(|entry| entry.code == code).unwrap_or_else(|| panic!("no {code}"));
            let cause = entry.causes.iter().find(|cause| cause.cause == error.cause());
            let cause = cause.unwrap_or_else(|| panic!("{code} has other causes"));
            assert_eq!(cause.remedy, Some(error.remedy()), "{code}");
            assert_eq!(cause.legacy_text.as_deref(), error.legacy_text(), "{code}");
        }
        for error in lictor_kerberos::catalogue() {
            assert_eq!(found(error.code()), [error.code()]);
        }
        for entry in &entries {
            assert!(!entry.stage.is_empty() && !entry.causes.is_empty(), "{}", entry.code);
            assert!(entry.causes.iter().all(|cause| !cause.cause.is_empty()), "{entry:?}");
            assert!(!entry.provoked_by.is_empty() || entry.derived_from.is_some(), "{entry:?}");
        }
        assert!(entries.len() >= 40);
    }

    #[test]
    fn codes_are_found_however_they_are_written() {
        for text in
            ["tls.expired", "TLS.Expired", " [tls.expired] ", "lictor: tls [tls.expired]: the certificate of x is"]
        {
            assert_eq!(found(text), ["tls.expired"], "{text}");
        }
        for text in ["fault.2150858793", "2150858793", "-2144108503", "0x80338029", "Code=2150858793"] {
            assert_eq!(found(text), ["fault.2150858793"], "{text}");
        }
    }

    #[test]
    fn texts_that_people_paste_lead_to_their_codes() {
        for (text, code) in [
            (
                "kinit: Cannot find KDC for realm \"AD.CORP.INTERNAL\" while getting initial credentials",
                "kerberos.no_kdc",
            ),
            ("Clock skew too great", "kerberos.clock_skew"),
            ("clock skew", "kerberos.clock_skew"),
            ("Client not found in Kerberos database", "kerberos.principal_unknown"),
            (
                "fatal: [web]: UNREACHABLE! => {\"msg\": \"kerberos: the specified credentials were rejected by the server\"}",
                "auth.ticket_refused",
            ),
            (
                "Error in SSL negotiation. Check if server certificate is correct. You may try with skipCertChecks",
                "tls.untrusted",
            ),
            ("Cannot reach remote host. Details: connection refused", "connect.refused"),
            ("There are no eligible delegates available in the account to execute the task.", "no_agent"),
            ("'wsmanfault_code': '5', 'fault_code': 's:Sender', 'fault_subcode': 'w:AccessDenied'", "fault.5"),
            ("Preauthentication failed", "kerberos.keytab_rejected"),
            (
                "Failure: Invalid keytab file path. Cannot proceed with Ticket Granting Ticket(TGT) generation",
                "kerberos.keytab_unreadable",
            ),
            ("ntlm: the specified credentials were rejected by the server", "auth.rejected"),
            ("[SSL: UNSUPPORTED_PROTOCOL] unsupported protocol (_ssl.c:1056)", "tls.protocol"),
        ] {
            let codes = found(text);
            assert!(codes.iter().any(|found| found == code), "{text}: {codes:?}");
            assert!(codes.len() <= 30, "{text}: {codes:?}");
        }
        for nonsense in ["zyzzyva", "the", "of it", "?!", "\u{1b}[2J"] {
            assert_eq!(found(nonsense), [""; 0], "{nonsense}");
        }
    }
}
