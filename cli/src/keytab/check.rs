//! `lictor keytab check`: one login for each principal of a keytab, and what the KDC says to it.

use std::collections::HashMap;

use lictor_kerberos::keytab::Keytab;
use lictor_kerberos::{CredentialSource, ErrorKind, Identity, Kerberos, Request};
use serde::Serialize;
use tokio::time::Instant;

use super::{path, read, unusable};
use crate::args::Output;
use crate::args::keytab::CheckArgs;
use crate::console;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::kerberos::{Settings, failed};

pub(super) async fn check(args: &CheckArgs, output: Output) -> Result<Exit, Failure> {
    let path = path(args.file.as_deref())?;
    let keytab = read(&path)?;
    let principals = wanted(args, &keytab)?;
    let settings = Settings::load(args.kdc.krb5_conf.as_deref(), args.kdc.trace).await?;
    settings.warn();
    let kerberos = Kerberos::new(settings.watch.clone());
    if output == Output::Text {
        console::note(&format!("one login for each of {} principal(s)", principals.len()));
    }
    // What a KDC that is away says of one principal it says of all of its realm.
    let mut away: HashMap<String, Failure> = HashMap::new();
    let mut results = Vec::new();
    for principal in principals {
        let only = keytab.only(&principal, None);
        let realm = only.entries().first().map(|entry| entry.realm.clone()).unwrap_or_default();
        let kvnos = keytab.kvnos(&principal);
        let (outcome, error) = if kvnos.is_empty() {
            (Outcome::Unusable, Some(no_key(&principal)))
        } else if let Some(failure) = away.get(&realm) {
            (Outcome::Unavailable, Some(failure.clone()))
        } else {
            let identity = Identity {
                principal: principal.clone(),
                realm: None,
                source: CredentialSource::Keytab(only.to_bytes().map_err(|error| unusable(&error))?),
                fresh: true,
            };
            let request =
                Request { delegate: false, deadline: Instant::now() + args.kdc.timeout, trace: settings.trace.clone() };
            match kerberos.check(&identity, request).await {
                Ok(_) => (Outcome::Valid, None),
                Err(error) => {
                    let outcome = match (error.kind(), error.code()) {
                        (ErrorKind::Unavailable, _) => Outcome::Unavailable,
                        (_, "kerberos.principal_unknown") => Outcome::Unknown,
                        (_, "kerberos.keytab_rejected" | "kerberos.keytab_enctype") => Outcome::WrongKey,
                        _ => Outcome::Refused,
                    };
                    let failure = failed(&error);
                    if outcome == Outcome::Unavailable {
                        away.insert(realm, failure.clone());
                    }
                    (outcome, Some(failure))
                }
            }
        };
        results.push(PrincipalView { principal, kvnos, outcome, error });
    }
    let view = CheckView { keytab: path.display().to_string(), principals: results };
    match output {
        Output::Json => console::print_json(&view)?,
        Output::Text => tell(&view)?,
    }
    Ok(view.exit())
}

/// The principals that were asked for, or all.
fn wanted(args: &CheckArgs, keytab: &Keytab) -> Result<Vec<String>, Failure> {
    let held = keytab.principals();
    if held.is_empty() {
        return Err(Failure::usage("the keytab holds no key", "Give another keytab."));
    }
    for principal in &args.principal {
        if !held.contains(&principal.as_str()) {
            return Err(Failure::usage(
                format!("the keytab holds no key of {principal}"),
                "Give the principal as `lictor keytab list` shows it.",
            ));
        }
    }
    let asked = |held: &&&str| args.principal.is_empty() || args.principal.iter().any(|asked| asked == **held);
    Ok(held.iter().filter(asked).map(|principal| (*principal).to_owned()).collect())
}

fn no_key(principal: &str) -> Failure {
    Failure::own(
        Exit::AUTHENTICATE,
        "keytab",
        "keytab.enctype",
        format!("the keytab holds no AES key of {principal}"),
        "It was made for RC4 or DES only, which this program does not use.".to_owned(),
        "Allow AES for the account, then make the keytab anew, with ktpass /crypto AES256-SHA1 or `lictor keytab create`."
            .to_owned(),
    )
}

fn tell(view: &CheckView) -> Result<(), Failure> {
    let rows = view.principals.iter().map(|principal| {
        let kvnos: Vec<String> = principal.kvnos.iter().map(u32::to_string).collect();
        let why = principal.error.as_ref().map(|error| error.message.to_string()).unwrap_or_default();
        vec![principal.principal.clone(), kvnos.join(", "), principal.outcome.text().to_owned(), why]
    });
    console::print(&console::table(&["principal", "kvnos", "outcome", "why"], rows))?;
    let mut told = Vec::new();
    for error in view.principals.iter().filter_map(|principal| principal.error.as_ref()) {
        if !told.contains(&error.code) {
            told.push(error.code.clone());
            console::print_failure(error, false);
        }
    }
    Ok(())
}

/// What became of a principal's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Valid,
    WrongKey,
    Unknown,
    Refused,
    Unusable,
    Unavailable,
}

impl Outcome {
    fn text(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::WrongKey => "wrong key or version",
            Self::Unknown => "unknown to the KDC",
            Self::Refused => "refused",
            Self::Unusable => "not usable",
            Self::Unavailable => "no KDC",
        }
    }
}

#[derive(Debug, Serialize)]
struct CheckView {
    keytab: String,
    principals: Vec<PrincipalView>,
}

#[derive(Debug, Serialize)]
struct PrincipalView {
    principal: String,
    /// Versions with keys that can be used, newest first.
    kvnos: Vec<u32>,
    outcome: Outcome,
    error: Option<Failure>,
}

impl CheckView {
    /// A key that is not valid decides before a KDC that could not be asked.
    fn exit(&self) -> Exit {
        let outcomes = || self.principals.iter().map(|principal| principal.outcome);
        if outcomes().any(|outcome| !matches!(outcome, Outcome::Valid | Outcome::Unavailable)) {
            Exit::AUTHENTICATE
        } else if outcomes().any(|outcome| outcome == Outcome::Unavailable) {
            Exit::CONNECT
        } else {
            Exit::SUCCESS
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_key_weighs_more_than_a_missing_kdc() {
        let exit = |outcomes: &[Outcome]| {
            let principal = |outcome: &Outcome| PrincipalView {
                principal: String::new(),
                kvnos: Vec::new(),
                outcome: *outcome,
                error: None,
            };
            CheckView { keytab: String::new(), principals: outcomes.iter().map(principal).collect() }.exit()
        };
        assert_eq!(exit(&[Outcome::Valid, Outcome::Valid]), Exit::SUCCESS);
        assert_eq!(exit(&[Outcome::Valid, Outcome::Unavailable]), Exit::CONNECT);
        assert_eq!(exit(&[Outcome::Unavailable, Outcome::WrongKey, Outcome::Valid]), Exit::AUTHENTICATE);
        assert_eq!(exit(&[Outcome::Unusable]), Exit::AUTHENTICATE);
    }
}
