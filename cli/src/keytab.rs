//! `lictor keytab`: makes, lists and checks keytabs. No key and no password is ever printed.

mod check;
mod create;

use std::path::{Path, PathBuf};

use lictor_kerberos::keytab::{Entry, Keytab, KeytabError};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::args::Output;
use crate::args::keytab::{KeytabCommand, ListArgs};
use crate::console;
use crate::exit::Exit;
use crate::failure::{Failure, chain};

/// Carries out a command of `lictor keytab`.
pub(crate) async fn run(command: KeytabCommand, output: Output) -> Result<Exit, Failure> {
    match command {
        KeytabCommand::Create(args) => create::create(&args, output).await,
        KeytabCommand::List(args) => list(&args, output),
        KeytabCommand::Check(args) => check::check(&args, output).await,
    }
}

fn list(args: &ListArgs, output: Output) -> Result<Exit, Failure> {
    let path = path(args.file.as_deref())?;
    let keytab = read(&path)?;
    let view = ListView {
        keytab: path.display().to_string(),
        entries: keytab.entries().iter().map(EntryView::from).collect(),
    };
    match output {
        Output::Json => console::print_json(&view)?,
        Output::Text => {
            let rows = view.entries.iter().map(|entry| {
                let enctype =
                    if entry.usable { entry.enctype.clone() } else { format!("{} (not used)", entry.enctype) };
                vec![
                    entry.principal.clone(),
                    entry.kvno.to_string(),
                    enctype,
                    entry.written_at.clone().unwrap_or_default(),
                ]
            });
            console::print(&console::table(&["principal", "kvno", "enctype", "written"], rows))?;
        }
    }
    Ok(Exit::SUCCESS)
}

/// The keytab that was given, else the one of the environment.
pub(crate) fn path(given: Option<&Path>) -> Result<PathBuf, Failure> {
    match given.map(Path::to_owned).or_else(from_environment) {
        Some(path) => Ok(path),
        None => {
            Err(Failure::usage("no keytab is given", "Give the file, or set the environment variable KRB5_KTNAME."))
        }
    }
}

/// What KRB5_KTNAME names, which may say that it is a file.
pub(crate) fn from_environment() -> Option<PathBuf> {
    let name = std::env::var_os(KEYTAB_VARIABLE).filter(|name| !name.is_empty())?;
    let path = name.to_str().and_then(|name| name.strip_prefix("FILE:").or_else(|| name.strip_prefix("WRFILE:")));
    Some(path.map_or_else(|| PathBuf::from(&name), PathBuf::from))
}

/// Reads a keytab.
pub(crate) fn read(path: &Path) -> Result<Keytab, Failure> {
    Keytab::read(path).map_err(|error| unusable(&error))
}

/// What is wrong with a keytab, as a failure.
pub(crate) fn unusable(error: &KeytabError) -> Failure {
    let message = chain(error);
    let (exit, code, cause, remedy) = match error {
        KeytabError::Read { .. } => {
            (Exit::USAGE, "usage.unreadable_file", "", "Give a file that exists and that you may read.")
        }
        KeytabError::Write { .. } => {
            (Exit::LOCAL, "local.failed", "", "Write to a directory where you may; what was there before is unchanged.")
        }
        KeytabError::Exists(_) => (
            Exit::USAGE,
            "keytab.exists",
            "A keytab is not overwritten by itself: the keys in it may be the only ones.",
            "Add to it with --append, replace it with --force, or write to another file.",
        ),
        KeytabError::Malformed { .. } | KeytabError::Unusable(_) | KeytabError::TooLarge | KeytabError::File { .. } => {
            (
                Exit::USAGE,
                "keytab.malformed",
                "The file is something else, is cut off, or was damaged on its way: copied as text, or base64 of it was not decoded.",
                "Copy the file again as it is (binary), or make it anew with ktpass, ktutil or `lictor keytab create`.",
            )
        }
        KeytabError::Principal { .. } => {
            (Exit::USAGE, "usage.invalid", "", "Write it as user@REALM, with the realm in capitals.")
        }
        KeytabError::Enctype { .. } => (Exit::USAGE, "usage.invalid", "", "Correct --enctype, or leave it away."),
        KeytabError::Derive(_) => {
            (Exit::LOCAL, "keytab.derive", "", "Look at the message; check --salt and --enctype if you gave them.")
        }
    };
    Failure::own(exit, "keytab", code, message, cause.to_owned(), remedy.to_owned())
}

#[derive(Debug, Serialize)]
struct ListView {
    keytab: String,
    entries: Vec<EntryView>,
}

/// One key in JSON, without the key.
#[derive(Debug, Serialize)]
struct EntryView {
    principal: String,
    kvno: u32,
    enctype: String,
    enctype_number: i32,
    usable: bool,
    written_at: Option<String>,
}

impl From<&Entry> for EntryView {
    fn from(entry: &Entry) -> Self {
        Self {
            principal: entry.principal.clone(),
            kvno: entry.kvno,
            enctype: entry.enctype_text(),
            enctype_number: entry.enctype,
            usable: entry.is_usable(),
            // ktpass writes no time.
            written_at: (entry.timestamp != 0)
                .then(|| OffsetDateTime::from_unix_timestamp(i64::from(entry.timestamp)).ok()?.format(&Rfc3339).ok())
                .flatten(),
        }
    }
}

/// Where a keytab is named when no flag names one.
const KEYTAB_VARIABLE: &str = "KRB5_KTNAME";
