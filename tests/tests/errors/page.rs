//! `docs/errors.md` is made from the catalogues of the crates. With `LICTOR_WRITE_DOCS=1` in its environment the test writes the
//! page instead of comparing it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use lictor_proto::v1::Failure;

use crate::evidence::{self, Evidence};
use crate::sources::{self, Source};
use crate::texts;

/// One cause of a code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    stage: String,
    message: String,
    cause: String,
    remedy: String,
    legacy: Option<String>,
}

/// Every code that is told, with its causes.
pub(crate) type Catalogue = BTreeMap<String, Vec<Cause>>;

pub(crate) fn catalogue() -> Catalogue {
    let winrm = lictor_winrm::error::catalogue().into_iter().map(|error| {
        let cause = Cause {
            stage: error.stage().as_str().to_owned(),
            message: error.to_string(),
            cause: error.cause(),
            remedy: error.remedy(),
            legacy: error.legacy_text().map(str::to_owned),
        };
        (error.code().to_owned(), cause)
    });
    let kerberos = lictor_kerberos::catalogue().into_iter().map(|error| {
        let cause = Cause {
            stage: "authenticate".to_owned(),
            message: error.to_string(),
            cause: error.cause().to_owned(),
            remedy: error.remedy().to_owned(),
            legacy: error.legacy_text().map(str::to_owned),
        };
        (error.code().to_owned(), cause)
    });
    // A rung of a secret manager's test says how far it came; the failure of a task is one of its secret.
    let kms = lictor_kms::catalogue().into_iter().flat_map(|error| {
        let stage = || "secret".to_owned();
        let cause = Cause {
            stage: stage(),
            message: error.to_string(),
            cause: error.cause().to_owned(),
            remedy: error.remedy().to_owned(),
            legacy: error.legacy_text().map(str::to_owned),
        };
        let suspects = error.suspects().into_iter().map(move |suspect| {
            let lictor_kms::Suspect { code, cause, remedy } = suspect;
            (code.to_owned(), Cause { stage: stage(), message: String::new(), cause, remedy, legacy: None })
        });
        std::iter::once((error.code().to_owned(), cause)).chain(suspects)
    });
    let programs = lictor_agent::catalogue().into_iter().chain(lictor_control_plane::catalogue()).map(|failure| {
        let Failure { stage, code, message, cause, remedy, legacy_text, .. } = failure;
        (code, Cause { stage, message, cause, remedy, legacy: Some(legacy_text).filter(|text| !text.is_empty()) })
    });
    let doctor = lictor_doctor::catalogue().iter().map(|entry| {
        let lictor_doctor::Entry { code, stage, cause, remedy, legacy } = *entry;
        let [stage, cause, remedy] = [stage, cause, remedy].map(str::to_owned);
        (code.to_owned(), Cause { stage, message: String::new(), cause, remedy, legacy: legacy.map(str::to_owned) })
    });
    let mut all = Catalogue::new();
    for (code, cause) in winrm.chain(kerberos).chain(kms).chain(programs).chain(doctor) {
        let causes = all.entry(code).or_default();
        let told = |known: &Cause| (&known.cause, &known.remedy) == (&cause.cause, &cause.remedy);
        if !causes.iter().any(told) {
            causes.push(cause);
        }
    }
    all
}

/// The stages in the order in which a task passes them, and what they are called.
const STAGES: &[(&str, &str)] = &[
    ("control_plane", "Control plane"),
    ("queue", "Queue"),
    ("lease", "Lease"),
    ("policy", "Policy of the agent"),
    ("secret", "Secret"),
    ("agent", "Agent"),
    ("doctor", "`lictor-agent doctor`"),
    ("krb5_conf", "The doctor: krb5.conf"),
    ("realm", "The doctor: realm"),
    ("kdc_names", "The doctor: names of KDCs"),
    ("kdc_udp", "The doctor: KDCs over UDP"),
    ("kdc_tcp", "The doctor: KDCs over TCP"),
    ("clock", "The doctor: clocks"),
    ("principal", "The doctor: principal"),
    ("login", "The doctor: login"),
    ("service", "The doctor: service principal name"),
    ("host_name", "The doctor: the host's name"),
    ("resolve", "Name resolution"),
    ("reverse", "The doctor: reverse lookup"),
    ("connect", "TCP connection"),
    ("http", "The doctor: a bare GET"),
    ("tls", "TLS"),
    ("certificate", "The doctor: certificate"),
    ("identify", "Identify and HTTP"),
    ("offered", "The doctor: kinds of authentication"),
    ("authenticate", "Authentication and Kerberos"),
    ("open_shell", "Opening the shell"),
    ("run", "Sending the command"),
    ("profile", "The doctor: profile"),
    ("receive", "Receiving"),
    ("close", "Closing"),
];

const HEAD: &str = "\
# Errors

Every failure has a stage, a stable code, a cause and a remedy; many have the text by which users of Harness, Ansible or MIT's tools
know them. This page lists every code. It is made from the code by a test (`tests/tests/errors`), with example names; `lictor explain
CODE` and `lictor explain TEXT` print from it. Codes are never renamed.

A code stands under the stage at which it is met first or most often: what breaks a connection can do so at any later stage, too, and the
failure says at which. **Provoked by** names a test of this repository that brings the cause about and sees the code. **Derived from**
says where the rest comes from, and what a simulated host or KDC was made after. Nothing was run against real Windows. For what the
doctor says only cause and remedy stand here; its message says what it saw.
";

fn render(catalogue: &Catalogue) -> Result<String> {
    let mut page = HEAD.to_owned();
    index(catalogue, &mut page)?;
    for (stage, title) in STAGES {
        let here: Vec<_> =
            catalogue.iter().filter(|(_, causes)| causes.iter().any(|cause| cause.stage == *stage)).collect();
        if here.is_empty() {
            continue;
        }
        write!(page, "\n## {title}\n\nStage `{stage}`.\n")?;
        for (code, causes) in here {
            // Each code once, under its first stage.
            if causes.first().is_some_and(|cause| cause.stage == *stage) {
                entry(code, causes, &mut page)?;
            }
        }
    }
    Ok(page)
}

/// From the texts that people know to codes.
fn index(catalogue: &Catalogue, page: &mut String) -> Result<()> {
    let mut texts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (code, causes) in catalogue {
        let own = causes.iter().filter_map(|cause| cause.legacy.as_deref());
        let others: Vec<&str> = texts::of(code).collect();
        for text in own.chain(others) {
            let codes = texts.entry(text).or_default();
            if !codes.contains(&code.as_str()) {
                codes.push(code);
            }
        }
    }
    page.push_str("\n## By the text that you know\n\n| text | codes |\n|---|---|\n");
    for (text, codes) in texts {
        let links: Vec<String> = codes.iter().map(|code| format!("[`{code}`](#{code})")).collect();
        writeln!(page, "| `{}` | {} |", text.replace('|', "\\|"), links.join(" "))?;
    }
    Ok(())
}

fn entry(code: &str, causes: &[Cause], page: &mut String) -> Result<()> {
    write!(page, "\n<a id=\"{code}\"></a>\n### `{code}`\n")?;
    let mut told = None;
    for cause in causes {
        if cause.message.is_empty() {
            page.push('\n');
        } else if told != Some(&cause.message) {
            write!(page, "\n`{}`\n\n", one_line(&cause.message).replace('`', "'"))?;
        } else {
            page.push('\n');
        }
        told = Some(&cause.message);
        writeln!(page, "- **Cause:** {}", sentence(&cause.cause))?;
        if !cause.remedy.is_empty() {
            writeln!(page, "- **Remedy:** {}", sentence(&cause.remedy))?;
        }
        if let Some(text) = &cause.legacy {
            writeln!(page, "- **Known as:** `{text}`")?;
        }
    }
    for text in texts::of(code) {
        writeln!(page, "- **Also known as:** `{text}`")?;
    }
    let evidence = evidence::of(code)?;
    for test in &evidence.provoked_by {
        let (file, name) = test.split_once("::").context("FILE::TEST")?;
        writeln!(page, "- **Provoked by:** `{name}` in [{file}](../{file})")?;
    }
    if !evidence.derived_from.is_empty() {
        writeln!(page, "- **Derived from:** {}", evidence.derived_from)?;
    }
    Ok(())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn sentence(text: &str) -> String {
    let text = one_line(text);
    if text.ends_with(['.', '?', ':', ')', '`']) { text } else { format!("{text}.") }
}

#[test]
fn the_page_is_what_the_code_says() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors.md");
    let page = render(&catalogue())?;
    if std::env::var_os("LICTOR_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page)?;
    }
    let written = std::fs::read_to_string(&path)?;
    let differs = page.lines().zip(written.lines()).find(|(made, written)| made != written);
    ensure!(
        page == written,
        "docs/errors.md is not what the code says; run this test with LICTOR_WRITE_DOCS=1. First difference: {differs:?}"
    );
    Ok(())
}

#[test]
fn every_code_is_listed_once_and_has_its_evidence() -> Result<()> {
    let catalogue = catalogue();
    let stages: Vec<&str> = STAGES.iter().map(|(stage, _)| *stage).collect();
    for (code, causes) in &catalogue {
        ensure!(causes.iter().all(|cause| stages.contains(&cause.stage.as_str())), "{code}: {causes:?}");
    }
    let mut without = Vec::new();
    for code in catalogue.keys() {
        let Evidence { provoked_by, derived_from } = evidence::of(code)?;
        if provoked_by.is_empty() && derived_from.is_empty() {
            without.push(code);
        }
    }
    ensure!(without.is_empty(), "no test and no source is named for {without:#?}");
    let unknown: Vec<&str> =
        evidence::codes().chain(texts::codes()).filter(|code| !catalogue.contains_key(*code)).collect();
    ensure!(unknown.is_empty(), "evidence for what nobody tells: {unknown:?}");
    ensure!(catalogue.len() >= 40, "{} codes", catalogue.len());
    Ok(())
}

#[test]
fn every_test_that_is_named_exists_and_names_the_code() -> Result<()> {
    let mut wrong = Vec::new();
    for code in evidence::codes() {
        for test in evidence::of(code)?.provoked_by {
            match test.split_once("::") {
                Some((file, name)) => {
                    if let Err(why) = Source::read(file).and_then(|source| source.provokes(name, code)) {
                        wrong.push(format!("{code}: {why:#}"));
                    }
                }
                None => wrong.push(format!("{code}: {test} is no FILE::TEST")),
            }
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

#[test]
fn every_code_in_the_sources_is_in_the_catalogue() -> Result<()> {
    let catalogue = catalogue();
    let mut missing = Vec::new();
    for (file, literal) in sources::codes()? {
        if !catalogue.contains_key(&literal) {
            missing.push(format!("{literal} ({file})"));
        }
    }
    ensure!(missing.is_empty(), "failures that no catalogue gives an example of: {missing:#?}");
    Ok(())
}
