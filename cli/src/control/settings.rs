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
        ca_secret: String::new(),
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

/// A duration. Those of the command line are bounded, so nothing is lost.
pub(super) fn proto_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    }
}
