//! Kerberos, from its configuration to the ticket for the host.

use lictor_kerberos::config::{ConfigError, Configuration};
use tokio::time::Instant;

use crate::check::Check;
use crate::examine::Subject;
use crate::finding::Finding;
use crate::step::Steps;

/// Returns whether the credential was refused: then nobody may try it again.
pub(crate) async fn look(subject: &Subject, _deadline: Instant, steps: &mut Steps<'_>) -> bool {
    let Some(kerberos) = &subject.kerberos else { return false };
    let source = kerberos.source.clone();
    match tokio::task::spawn_blocking(move || Configuration::load(&source)).await {
        Ok(Ok(configuration)) => configured(&configuration, steps),
        Ok(Err(error)) => steps.failed(Check::Krb5Conf, "", unusable(&error)),
        Err(error) => steps.unknown(Check::Krb5Conf, error.to_string()),
    }
    false
}

fn configured(configuration: &Configuration, steps: &mut Steps<'_>) {
    let warnings: Vec<String> = configuration.warnings().iter().map(ToString::to_string).collect();
    if warnings.is_empty() {
        steps.passed(Check::Krb5Conf, "");
    } else {
        steps.warn(Check::Krb5Conf, warnings.join("; "), None);
    }
}

fn unusable(error: &ConfigError) -> Finding {
    let mistakes: Vec<String> = error.mistakes().iter().map(ToString::to_string).collect();
    Finding {
        code: "kerberos.configuration".into(),
        message: error.to_string(),
        cause: mistakes.join("; "),
        remedy: "Correct the file; docs/krb5-conf.md says what counts.".to_owned(),
        legacy_text: None,
        suspects: Vec::new(),
    }
}
