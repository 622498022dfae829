//! The settings: where they were read, what is wrong or doubtful in them.

use std::sync::Arc;

use krb5::config::parse_enctype_list;
use lictor_kerberos::Kerberos;
use lictor_kerberos::config::{ConfigError, Configuration, Source, Watch};
use tokio::time::{Duration, Instant, timeout_at};

use crate::catalogue;
use crate::check::Check;
use crate::examine::KerberosSubject;
use crate::finding::Finding;
use crate::step::Steps;

/// A file system that hangs must not take all the time.
const READING: Duration = Duration::from_secs(5);

/// Warnings and files that are shown.
const MOST: usize = 12;

/// The encryption types of AES that Active Directory has (RFC 3961 8).
const ACTIVE_DIRECTORY: [i32; 2] = [17, 18];

pub(super) async fn look(
    kerberos: &KerberosSubject,
    deadline: Instant,
    steps: &mut Steps<'_>,
) -> Option<(Arc<Configuration>, Kerberos)> {
    let (source, given) = (kerberos.source.clone(), kerberos.manager.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let configuration = Configuration::load(&source)?;
        let manager = match given {
            Some(manager) => manager,
            None => Kerberos::new(Arc::new(Watch::start(source, None)?)),
        };
        Ok((Arc::new(configuration), manager))
    });
    match timeout_at(deadline.min(Instant::now() + READING), reading).await {
        Ok(Ok(Ok((configuration, manager)))) => {
            judge(&kerberos.source, &configuration, steps);
            Some((configuration, manager))
        }
        Ok(Ok(Err(error))) => {
            steps.failed(Check::Krb5Conf, "", unusable(&error));
            None
        }
        Ok(Err(_)) => {
            steps.unknown(Check::Krb5Conf, "reading the settings failed");
            None
        }
        Err(_) => {
            steps.unknown(Check::Krb5Conf, "the settings were not read in time: the file system does not answer");
            None
        }
    }
}

fn judge(source: &Source, configuration: &Configuration, steps: &mut Steps<'_>) {
    let detail = describe(source, configuration);
    let warnings: Vec<String> = configuration.warnings().iter().take(MOST).map(ToString::to_string).collect();
    let more = configuration.warnings().len().saturating_sub(MOST);
    let mut seen = warnings.join("; ");
    if more > 0 {
        seen.push_str(&format!("; and {more} more"));
    }
    if *source == Source::System && configuration.files().is_empty() {
        let missing = catalogue::KRB5_CONF_MISSING.found("no krb5.conf was found", &seen);
        steps.warn(Check::Krb5Conf, detail, Some(missing));
    } else if let Some((name, value)) = without_active_directory(configuration) {
        let message = format!("[libdefaults] {name} = {value} leaves no encryption type of Active Directory");
        steps.warn(Check::Krb5Conf, detail, Some(catalogue::KRB5_CONF_ENCTYPES.found(message, &seen)));
    } else if seen.is_empty() {
        steps.passed(Check::Krb5Conf, detail);
    } else {
        let message = format!("{} of the settings are doubtful", warnings.len() + more);
        steps.warn(Check::Krb5Conf, detail, Some(catalogue::KRB5_CONF_DOUBTFUL.found(message, &format!("{seen}."))));
    }
}

/// Where it comes from, and the settings that matter most when something is wrong.
fn describe(source: &Source, configuration: &Configuration) -> String {
    let files = configuration.files();
    let mut text = match source {
        Source::Declared(_) => "the program's own settings".to_owned(),
        _ if files.is_empty() => "no file".to_owned(),
        _ => {
            let shown: Vec<String> = files.iter().take(MOST).map(|file| file.display().to_string()).collect();
            let more = files.len().saturating_sub(MOST);
            if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
        }
    };
    if let Some(realm) = configuration.default_realm() {
        text.push_str(&format!("; default realm {realm}"));
    }
    for name in ["dns_lookup_kdc", "rdns", "dns_canonicalize_hostname", "clockskew", "udp_preference_limit"] {
        if let Some(value) = configuration.krb5().get(&["libdefaults", name]) {
            text.push_str(&format!("; {name} = {value}"));
        }
    }
    text
}

fn without_active_directory(configuration: &Configuration) -> Option<(&'static str, &str)> {
    ["permitted_enctypes", "default_tkt_enctypes", "default_tgs_enctypes"].into_iter().find_map(|name| {
        let value = configuration.krb5().get(&["libdefaults", name])?;
        let allowed = parse_enctype_list(value);
        (!allowed.iter().any(|enctype| ACTIVE_DIRECTORY.contains(enctype))).then_some((name, value))
    })
}

fn unusable(error: &ConfigError) -> Finding {
    let mistakes: Vec<String> = error.mistakes().iter().take(MOST).map(ToString::to_string).collect();
    let message = match error {
        ConfigError::Mistakes(all) => format!("the Kerberos settings have {} mistakes", all.len()),
        ConfigError::Write { .. } => error.to_string(),
    };
    let seen = if mistakes.is_empty() { String::new() } else { format!("{}.", mistakes.join("; ")) };
    catalogue::KRB5_CONF_UNUSABLE.found(message, &seen)
}
