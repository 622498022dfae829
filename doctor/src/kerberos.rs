//! Kerberos, from its configuration to the ticket for the host.
//!
//! INVARIANT: what proves the user is sent in one place, `login`, by one call of the manager; everything before asks questions that
//! prove nothing. When it may have been sent and was not accepted, `look` says so and nobody after it tries again.

mod account;
mod kdcs;
mod login;
mod services;
mod settings;

use std::sync::Arc;

use krb5::{Credentials, Principal};
use lictor_kerberos::config::Configuration;
use lictor_kerberos::{Error, ErrorKind, Identity, Kerberos};
use lictor_winrm::Target;
use lictor_winrm::target::AuthKind;
use tokio::time::{Duration, Instant};

use self::account::Account;
use crate::catalogue;
use crate::check::Check;
use crate::examine::Subject;
use crate::finding::Finding;
use crate::names;
use crate::step::Steps;

/// For reading a keytab or a cache.
const FILES: Duration = Duration::from_secs(5);

/// Who is asked about when nobody logs in. The KDC's answer that there is no such user is as good as any.
const NOBODY: &str = "lictor-doctor";

/// Returns whether the credential was refused, or may have been used up: then nobody may try it again. Without `prove` nobody logs in.
pub(crate) async fn look(subject: &Subject, prove: bool, deadline: Instant, steps: &mut Steps<'_>) -> bool {
    let target = subject.target.as_ref();
    steps.falls_back(target.is_some_and(falls_back));
    let Some(kerberos) = &subject.kerberos else {
        names::look(target, None, deadline, steps).await;
        return false;
    };
    let Some((configuration, manager)) = settings::look(kerberos, deadline, steps).await else {
        let why = "the Kerberos settings cannot be used";
        for check in [Check::Realm, Check::KdcNames, Check::KdcUdp, Check::KdcTcp, Check::Clock] {
            steps.skipped(check, why);
        }
        steps.skipped(Check::Principal, why);
        steps.skipped(Check::Login, why);
        names::look(target, None, deadline, steps).await;
        if target.is_some() {
            steps.skipped(Check::Service, why);
        }
        return false;
    };
    // A ticket-granting ticket of the examination's own for each thing that it asks would be a login for each.
    let identity = kerberos.identity.as_ref().map(|identity| Identity { fresh: false, ..identity.clone() });
    let delegate = target.is_some_and(|target| target.kerberos.delegate);
    let how = How { prove, delegate, deadline };
    let login = examine_login(&configuration, &manager, identity.as_ref(), how, steps).await;
    names::look(target, Some(&configuration), deadline, steps).await;
    if let Some(target) = target {
        match (&login, &identity) {
            (Login::Done(granting), Some(identity)) => {
                services::look(&manager, identity, &configuration, granting, target, deadline, steps).await;
            }
            (Login::Failed { .. }, _) => steps.skipped(Check::Service, "without a login there are no tickets"),
            _ => steps.skipped(Check::Service, "nobody logs in"),
        }
    }
    matches!(login, Login::Failed { refused: true })
}

/// Whether a session would go on by NTLM without a ticket, as `lictor-winrm` does.
fn falls_back(target: &Target) -> bool {
    target.auth == AuthKind::Negotiate && target.credential.secret().is_some()
}

/// A failure on the way to a ticket.
fn told(check: Check, detail: impl Into<String>, error: &Error, steps: &mut Steps<'_>) {
    if error.kind() == ErrorKind::Unavailable {
        steps.without_ticket(check, detail, Finding::from(error));
    } else {
        steps.failed(check, detail, Finding::from(error));
    }
}

/// How far a login came.
enum Login {
    /// The ticket-granting ticket.
    Done(Arc<Credentials>),
    /// Nobody wanted one.
    Unwanted,
    /// `refused`: the proof was not taken, or may have been sent in vain.
    Failed { refused: bool },
}

#[derive(Debug, Clone, Copy)]
struct How {
    prove: bool,
    delegate: bool,
    deadline: Instant,
}

async fn examine_login(
    configuration: &Configuration,
    manager: &Kerberos,
    identity: Option<&Identity>,
    how: How,
    steps: &mut Steps<'_>,
) -> Login {
    let How { prove, delegate, deadline } = how;
    let names = match identity {
        Some(identity) => Some(manager.principals(identity, deadline.min(Instant::now() + FILES)).await),
        None => None,
    };
    let unwanted = Login::Unwanted;
    let Some(realm) = examine_realm(configuration, identity, names.as_ref(), steps) else {
        let why = "there is no realm whose KDC could be asked";
        for check in [Check::KdcNames, Check::KdcUdp, Check::KdcTcp, Check::Clock, Check::Principal] {
            steps.skipped(check, why);
        }
        return match names {
            // What the step before did not say.
            Some(Err(error)) if !is_about_names(&error) => {
                told(Check::Login, "", &error, steps);
                Login::Failed { refused: false }
            }
            Some(_) => {
                steps.skipped(Check::Login, why);
                Login::Failed { refused: false }
            }
            None => {
                steps.skipped(Check::Login, why);
                unwanted
            }
        };
    };
    let principals = match &names {
        Some(Ok(principals)) => principals.as_slice(),
        _ => &[],
    };
    let nobody = Principal::new(1, [NOBODY], realm.as_str());
    let asked = principals.first().unwrap_or(&nobody);
    let answers = kdcs::look(manager.directory(), configuration, &realm, asked, deadline, steps).await;
    let (identity, names) = match (identity, names) {
        (Some(identity), Some(names)) => (identity, names),
        _ => {
            steps.skipped(Check::Principal, "nobody is to log in");
            steps.skipped(Check::Login, "nobody is to log in");
            return unwanted;
        }
    };
    let principals = match names {
        Ok(principals) => principals,
        Err(error) => {
            steps.skipped(Check::Principal, "nobody knows who is to log in");
            if is_about_names(&error) {
                steps.skipped(Check::Login, "nobody knows who is to log in");
            } else {
                told(Check::Login, "", &error, steps);
            }
            return Login::Failed { refused: false };
        }
    };
    if answers.is_empty() && !login::needs_no_kdc(identity) {
        let why = "no KDC answers";
        steps.skipped(Check::Principal, why);
        steps.skipped(Check::Login, why);
        return Login::Failed { refused: false };
    }
    let account = account::look(&answers, &principals, deadline, steps).await;
    if !prove {
        steps.skipped(Check::Login, "what would prove the user is not used");
        return unwanted;
    }
    match account {
        Account::Refused { refused } if !login::needs_no_kdc(identity) => {
            steps.skipped(Check::Login, "the KDC would refuse it, as it says before anything was proved");
            return Login::Failed { refused };
        }
        Account::Refused { .. } | Account::Usable => {}
    }
    login::look(manager, identity, delegate, deadline, steps).await
}

/// The realm to look at, in its right case.
fn examine_realm(
    configuration: &Configuration,
    identity: Option<&Identity>,
    names: Option<&Result<Vec<Principal>, Error>>,
    steps: &mut Steps<'_>,
) -> Option<String> {
    if let Some(Err(error)) = names
        && is_about_names(error)
    {
        told(Check::Realm, "", error, steps);
        return configuration.default_realm().filter(|realm| configuration.defines(realm)).map(str::to_owned);
    }
    let principal = match names {
        Some(Ok(principals)) => principals.first(),
        _ => None,
    };
    let written = identity.and_then(written_realm).or_else(|| configuration.default_realm().map(str::to_owned));
    let realm = match (principal, &written) {
        (Some(principal), _) => principal.realm.clone(),
        (None, Some(written)) => configuration.realm(written).unwrap_or_else(|_| written.clone()),
        (None, None) => {
            let Some(only) = configuration.realms_with_kdcs().next() else {
                steps.warn(
                    Check::Realm,
                    "",
                    Some(catalogue::DEFAULT_REALM_MISSING.found("there is no default realm", "")),
                );
                return None;
            };
            let missing = catalogue::DEFAULT_REALM_MISSING.found("there is no default realm", "");
            steps.warn(Check::Realm, format!("looking at {only}, which [realms] lists"), Some(missing));
            return Some(only.to_owned());
        }
    };
    let has_lower = realm.chars().any(char::is_lowercase);
    let written = written.unwrap_or_else(|| realm.clone());
    if !configuration.defines(&realm) {
        let message = format!("nothing here says where the KDCs of {realm} are");
        let entry = if has_lower { catalogue::REALM_CASE } else { catalogue::REALM_UNDEFINED };
        let known: Vec<&str> = configuration.realms_with_kdcs().take(10).collect();
        let seen =
            if known.is_empty() { String::new() } else { format!("Realms with KDCs here: {}.", known.join(", ")) };
        steps.without_ticket(Check::Realm, "", entry.found(message, &seen));
        return None;
    }
    if written.eq_ignore_ascii_case(&realm) && (written != realm || has_lower) {
        let message = if written == realm {
            format!("the realm {realm} is written with lower-case letters")
        } else {
            format!("the realm is written {written}, and taken for {realm}")
        };
        steps.warn(Check::Realm, realm.clone(), Some(catalogue::REALM_CASE.found(message, "")));
    } else if written.eq_ignore_ascii_case(&realm) {
        steps.passed(Check::Realm, realm.clone());
    } else if written.chars().any(char::is_lowercase) || configuration.defines(&written) {
        steps.passed(Check::Realm, format!("{realm}; the user is named by a user principal name of @{written}"));
    } else {
        // Somebody who writes it in upper case means a realm.
        let message =
            format!("{written} is no realm that is known here; the name is taken for a user principal name of {realm}");
        steps.warn(Check::Realm, realm.clone(), Some(catalogue::REALM_UNDEFINED.found(message, "")));
    }
    Some(realm)
}

/// The realm as the user wrote it.
fn written_realm(identity: &Identity) -> Option<String> {
    let suffix = || identity.principal.rsplit_once('@').map(|(_, suffix)| suffix.to_owned());
    identity.realm.clone().or_else(suffix).filter(|realm| !realm.is_empty())
}

/// Whether a failure to find out who is to log in comes from how the user or the realm is written.
fn is_about_names(error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable || error.code() == "kerberos.principal_invalid"
}

#[cfg(test)]
mod tests;
