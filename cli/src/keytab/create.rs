//! `lictor keytab create`: a password becomes keys, with the salt of the KDC, proven before they are written.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use krb5::Principal;
use lictor_kerberos::kdc::Directory;
use lictor_kerberos::keytab::{self, Added, Existing, Keytab, Recipe};
use lictor_kerberos::{CredentialSource, Identity, Kerberos, Request, enquire};
use serde::Serialize;
use tokio::time::Instant;

use super::{read, unusable};
use crate::args::Output;
use crate::args::keytab::CreateArgs;
use crate::direct::PASSWORD_VARIABLE;
use crate::exit::Exit;
use crate::failure::{Failure, clean};
use crate::kerberos::{Settings, failed};
use crate::{console, input};

pub(super) async fn create(args: &CreateArgs, output: Output) -> Result<Exit, Failure> {
    // What can be said without the password is said before it is asked for.
    let enctypes = args.enctypes.iter().map(|text| keytab::parse_enctype(text)).collect::<Result<Vec<_>, _>>();
    let enctypes = enctypes.map_err(|error| unusable(&error))?;
    let mut keytab = before(args)?;
    let settings = match args.offline {
        true => None,
        false => Some(Settings::load(args.kdc.krb5_conf.as_deref(), args.kdc.trace).await?),
    };
    let default_realm = settings.as_ref().and_then(|settings| settings.current().default_realm().map(str::to_owned));
    let mut principal =
        keytab::parse_principal(&args.principal, default_realm.as_deref()).map_err(|error| unusable(&error))?;
    if let Some(settings) = &settings {
        settings.warn();
        principal.realm = settings.current().realm(&principal.realm).map_err(|error| {
            Failure::usage(error.to_string(), "Write the realm as krb5.conf does, mostly in capitals.")
        })?;
    }
    let password = match input::secret("password", args.password_file.as_deref(), PASSWORD_VARIABLE)? {
        Some(password) => password,
        None => input::prompt(&format!("Password for {}: ", clean(&principal.to_string())))?.ok_or_else(|| {
            Failure::usage(
                "there is no password",
                "Give --password-file FILE, or set the environment variable LICTOR_PASSWORD.",
            )
        })?,
    };
    let recipes = match &settings {
        Some(settings) => asked(settings, &principal, &enctypes, args).await?,
        None => offline(&principal, &enctypes, args),
    };
    let shown = keytab::principal_text(&principal);
    let kvno = args.kvno.unwrap_or_else(|| keytab.kvnos(&shown).first().map_or(1, |newest| newest.saturating_add(1)));
    let made = Keytab::from_password(&principal, password.expose(), kvno, now(), &recipes);
    let made = made.map_err(|error| unusable(&error))?;
    let added = merge(&mut keytab, &made, args)?;
    let checked = match &settings {
        Some(settings) if !args.no_check => prove(settings, &shown, &made, args).await.map(|()| true)?,
        _ => false,
    };
    let existing = if args.append || args.force { Existing::Replace } else { Existing::Keep };
    keytab.write(&args.file, existing).map_err(|error| unusable(&error))?;
    let view = CreatedView {
        keytab: args.file.display().to_string(),
        principal: shown,
        kvno,
        enctypes: made.entries().iter().map(keytab::Entry::enctype_text).collect(),
        salts: recipes.iter().map(|recipe| String::from_utf8_lossy(&recipe.salt).into_owned()).collect(),
        checked,
        added,
    };
    match output {
        Output::Json => console::print_json(&view)?,
        Output::Text => console::print_line(&clean(&view.to_text()))?,
    }
    Ok(Exit::SUCCESS)
}

/// What the KDC says of the account. Asking proves nothing, so that it counts as no attempt.
async fn asked(
    settings: &Settings,
    principal: &Principal,
    enctypes: &[i32],
    args: &CreateArgs,
) -> Result<Vec<Recipe>, Failure> {
    let directory = Directory::new(settings.watch.clone());
    let deadline = Instant::now() + args.kdc.timeout;
    let offered =
        enquire::salt(&directory, principal, &settings.trace, deadline).await.map_err(|error| failed(&error))?;
    // MIT's KDC names the best type only, so that nothing follows from one that is missing: the salt is the same for all, and the
    // login tells.
    let offered: Vec<Recipe> = match (enctypes, offered.first()) {
        ([_, ..], Some(first)) => {
            let recipe = |enctype: &i32| {
                let other = || Recipe { enctype: *enctype, salt: first.salt.clone(), parameters: None };
                offered.iter().find(|recipe| recipe.enctype == *enctype).cloned().unwrap_or_else(other)
            };
            enctypes.iter().map(recipe).collect()
        }
        _ => offered,
    };
    let salted = |recipe: Recipe| match &args.salt {
        Some(salt) => Recipe { salt: salt.clone().into_bytes(), ..recipe },
        None => recipe,
    };
    Ok(offered.into_iter().map(salted).collect())
}

/// What most accounts have.
fn offline(principal: &Principal, enctypes: &[i32], args: &CreateArgs) -> Vec<Recipe> {
    let salt = args.salt.as_ref().map_or_else(|| keytab::default_salt(principal), |salt| salt.clone().into_bytes());
    let enctypes = if enctypes.is_empty() { &OFFLINE_ENCTYPES } else { enctypes };
    enctypes.iter().map(|enctype| Recipe { enctype: *enctype, salt: salt.clone(), parameters: None }).collect()
}

/// One login with the new keys.
async fn prove(settings: &Settings, principal: &str, made: &Keytab, args: &CreateArgs) -> Result<(), Failure> {
    let identity = Identity {
        principal: principal.to_owned(),
        realm: None,
        source: CredentialSource::Keytab(made.to_bytes().map_err(|error| unusable(&error))?),
        fresh: true,
    };
    let request =
        Request { delegate: false, deadline: Instant::now() + args.kdc.timeout, trace: settings.trace.clone() };
    match Kerberos::new(settings.watch.clone()).check(&identity, request).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let mut failure = failed(&error);
            failure.message = format!("no keytab was written: {}", failure.message).into();
            Err(failure)
        }
    }
}

/// What the keytab holds before: nothing, unless it is to be added to.
fn before(args: &CreateArgs) -> Result<Keytab, Failure> {
    if !exists(&args.file)? {
        return Ok(Keytab::default());
    }
    match (args.append, args.force) {
        (true, _) => read(&args.file),
        (false, true) => Ok(Keytab::default()),
        (false, false) => Err(unusable(&keytab::KeytabError::Exists(args.file.clone()))),
    }
}

fn exists(path: &Path) -> Result<bool, Failure> {
    path.try_exists().map_err(|error| Failure::unreadable("keytab", path, &error))
}

/// Adds the keys. Another key of the same version is only replaced when that was asked for.
fn merge(keytab: &mut Keytab, made: &Keytab, args: &CreateArgs) -> Result<usize, Failure> {
    let mut added = 0;
    for entry in made.entries() {
        if !args.force && keytab.find(entry).is_some_and(|there| !there.is_same_key(entry)) {
            return Err(Failure::own(
                Exit::USAGE,
                "keytab",
                "keytab.other_key",
                format!(
                    "{} holds another {} key of {} in version {}",
                    args.file.display(),
                    entry.enctype_text(),
                    entry.principal,
                    entry.kvno
                ),
                "The password is another one than that of the key, or its salt is.".to_owned(),
                "Give the new key's version with --kvno, or leave --kvno away; --force replaces the key.".to_owned(),
            ));
        }
        added += usize::from(keytab.add(entry.clone()) != Added::Same);
    }
    Ok(added)
}

fn now() -> u32 {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    u32::try_from(seconds).unwrap_or_default()
}

#[derive(Debug, Serialize)]
struct CreatedView {
    keytab: String,
    principal: String,
    kvno: u32,
    enctypes: Vec<String>,
    /// One for each encryption type.
    salts: Vec<String>,
    /// The KDC took the keys.
    checked: bool,
    /// Keys that are new in the file.
    added: usize,
}

impl CreatedView {
    fn to_text(&self) -> String {
        let proven = if self.checked { "the KDC took them" } else { "not checked with the KDC" };
        let count = self.added;
        let keys = if count == 1 { "key" } else { "keys" };
        format!(
            "{}: {count} new {keys} of {}, version {}, {}; {proven}",
            self.keytab,
            self.principal,
            self.kvno,
            self.enctypes.join(", ")
        )
    }
}

/// What Active Directory has for every account that may use AES.
const OFFLINE_ENCTYPES: [i32; 2] = [18, 17];
