//! Flags become values of the wire contract.

use std::time::Duration;

use lictor_proto::v1;

use crate::args::control::{ConnectionArgs, KerberosArgs, KinitMode, StateFilter, StoredAuth};
use crate::args::{Encryption, Language, Scheme};
use crate::failure::Failure;
use crate::input;

/// Connection settings; what is not given inherits.
pub(super) fn connection(args: &ConnectionArgs) -> Result<v1::ConnectionSettings, Failure> {
    let ca_pem = match &args.host_ca {
        Some(path) => input::text("certificates", path, input::MAX_PEM_BYTES)?,
        None => String::new(),
    };
    let ca_secret = match &args.host_ca_secret {
        Some(secret) => identifier("--host-ca-secret", secret)?,
        None => String::new(),
    };
    Ok(v1::ConnectionSettings {
        scheme: match args.scheme {
            None => v1::Scheme::Unspecified,
            Some(Scheme::Http) => v1::Scheme::Http,
            Some(Scheme::Https) => v1::Scheme::Https,
        }
        .into(),
        port: args.port.unwrap_or_default().into(),
        path: args.path.clone().unwrap_or_default(),
        auth: match args.auth {
            None => v1::AuthKind::Unspecified,
            Some(StoredAuth::Basic) => v1::AuthKind::Basic,
            Some(StoredAuth::Ntlm) => v1::AuthKind::Ntlm,
            Some(StoredAuth::Negotiate) => v1::AuthKind::Negotiate,
            Some(StoredAuth::Kerberos) => v1::AuthKind::Kerberos,
        }
        .into(),
        ca_pem,
        ca_secret,
        skip_cert_check: args.skip_cert_check,
        message_encryption: match args.message_encryption {
            None => v1::MessageEncryption::Unspecified,
            Some(Encryption::Auto) => v1::MessageEncryption::Auto,
            Some(Encryption::Always) => v1::MessageEncryption::Always,
            Some(Encryption::Never) => v1::MessageEncryption::Never,
        }
        .into(),
        send_channel_bindings: args.send_cbt,
        allow_basic_over_http: args.allow_basic_over_http,
        kerberos: kerberos(&args.kerberos),
    })
}

/// Nothing when no flag was given.
fn kerberos(args: &KerberosArgs) -> Option<v1::KerberosSettings> {
    let kinit_mode = match args.kinit_mode {
        None => v1::KinitMode::Unspecified,
        Some(KinitMode::Managed) => v1::KinitMode::Managed,
        Some(KinitMode::Manual) => v1::KinitMode::Manual,
    };
    let settings = v1::KerberosSettings {
        realm: args.realm.clone().unwrap_or_default(),
        spn_service: args.spn_service.clone().unwrap_or_default(),
        spn_host: args.spn_host.clone().unwrap_or_default(),
        delegate: args.delegate,
        kinit_mode: kinit_mode.into(),
        fresh_tickets: args.fresh_tickets,
        trace: args.kerberos_trace,
    };
    (settings != v1::KerberosSettings::default()).then_some(settings)
}

/// A script's language.
pub(super) fn language(language: Language) -> v1::ScriptLanguage {
    match language {
        Language::Powershell => v1::ScriptLanguage::Powershell,
        Language::Cmd => v1::ScriptLanguage::Cmd,
    }
}

/// A state to list.
pub(super) fn state(filter: StateFilter) -> v1::TaskState {
    match filter {
        StateFilter::Queued => v1::TaskState::Queued,
        StateFilter::Assigned => v1::TaskState::Assigned,
        StateFilter::Running => v1::TaskState::Running,
        StateFilter::Lost => v1::TaskState::Lost,
        StateFilter::Succeeded => v1::TaskState::Succeeded,
        StateFilter::Failed => v1::TaskState::Failed,
        StateFilter::Cancelled => v1::TaskState::Cancelled,
        StateFilter::TimedOut => v1::TaskState::TimedOut,
        StateFilter::Rejected => v1::TaskState::Rejected,
        StateFilter::Unknown => v1::TaskState::Unknown,
    }
}

/// The identifier of a secret. What is none may be the secret itself, so it is neither sent nor shown.
pub(super) fn identifier(flag: &str, text: &str) -> Result<String, Failure> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=MAX_IDENTIFIER).contains(&text.len()) && text.bytes().all(known) {
        return Ok(text.to_owned());
    }
    Err(Failure::usage(
        format!(
            "{flag} takes the identifier of a stored secret: letters, digits, `-`, `_` and `.`, at most {MAX_IDENTIFIER}"
        ),
        "Store the secret with `lictor secret put`, and name it here. If it stood on the command line itself, other users of this \
         machine may have read it: change it.",
    ))
}

/// The longest identifier.
const MAX_IDENTIFIER: usize = 64;

/// A duration. Those of the command line are bounded, so nothing is lost.
pub(super) fn proto_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_identifier_is_not_shown() {
        assert_eq!(identifier("--secret", "web.password_1-a").unwrap(), "web.password_1-a");
        for wrong in ["", "P@ssw0rd!", "a b", "a/b", &"x".repeat(65)] {
            let failure = identifier("--secret", wrong).unwrap_err();
            assert_eq!(failure.exit, crate::exit::Exit::USAGE);
            assert!(wrong.is_empty() || !failure.to_text().contains(wrong), "{failure:?}");
        }
    }
}
